"""Models as the options of the command line choose them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .options import ModelOptions

if TYPE_CHECKING:
    from ..data.reading import Reading
    from ..feature_extraction_usdrl import USDRLFeatureExtractor
    from ..inference.engine import Engine
    from ..inference.video import PoseEstimator


def load_engine(
    model: str, reading: Reading, computing: ModelOptions, *, head: bool = True, device: str | None = None
) -> Engine:
    """Load a model, or the ensemble of several whose names are joined by commas, as the options say.

    Args:
        model: Checkpoint.
        reading: What the files do not say.
        computing: Options of the command.
        head: Whether the head is needed.
        device: Where it computes if the options do not say.
    """
    from ..feature_extraction_usdrl import USDRLFeatureExtractor
    from ..inference.engine import Engine
    from ..inference.ensemble import USDRLEnsemble
    from ..loading import load_feature_extractor

    first, *others = model.split(",") if head else [model]
    guessed = load_feature_extractor(first, guess=True) if computing.guess_preprocessing else None
    place = computing.device or device
    engine = Engine.load(first, extractor=guessed, head=head, device=place, dtype=computing.dtype)
    if others:
        ensemble = USDRLEnsemble.from_pretrained([first, *others])
        engine = Engine.load(ensemble, extractor=guessed, device=engine.device, dtype=engine.model.dtype)
    choices = {"missing": reading.missing, "choose_by": computing.choose_by, "relink": computing.relink or None}
    given = {name: value for name, value in choices.items() if value is not None}
    if given:
        engine.extractor = USDRLFeatureExtractor(**{**engine.extractor.to_dict(), **given})
    return engine


def pose_estimator(
    pose_model: str | None,
    detector: str | None,
    threshold: float,
    device: str | None,
    reader: tuple[USDRLFeatureExtractor, str] | None,
) -> PoseEstimator | None:
    """The models that see people in video, where they are named and the model that reads them can."""
    from ..inference.video import PoseEstimator, check_reads

    if pose_model is None and detector is None:
        return None
    if pose_model is None or detector is None:
        raise ValueError("people are found by a --detector and their joints by a --pose-model: name both")
    if reader is not None:
        check_reads(*reader, PoseEstimator.layout)
    return PoseEstimator.from_pretrained(pose_model, detector, threshold, device)
