"""Models as the options of the command line choose them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import ModelOptions

if TYPE_CHECKING:
    from ..data.reading import Reading
    from ..feature_extraction_usdrl import USDRLFeatureExtractor
    from ..inference.video import PoseEstimator
    from ..modeling_usdrl import USDRLPreTrainedModel


def ready(
    model: str, whole: bool, reading: Reading, computing: ModelOptions, device: str | None = None
) -> tuple[USDRLPreTrainedModel, USDRLFeatureExtractor]:
    """A model, and its feature extractor with the choices of the command line.

    Args:
        model: Checkpoint.
        whole: With its head.
        reading: Options of the command.
        computing: Options of the command.
        device: Where it computes if the options do not say.
    """
    from ..feature_extraction_usdrl import USDRLFeatureExtractor
    from ..inference.inputs import ready_model
    from ..loading import load_feature_extractor

    given_extractor = load_feature_extractor(model, guess=True) if computing.guess_preprocessing else None
    loaded, extractor = ready_model(model, given_extractor, whole, computing.device or device, computing.dtype)
    choices = {"missing": reading.missing, "choose_by": computing.choose_by, "relink": computing.relink or None}
    given = {name: value for name, value in choices.items() if value is not None}
    if given:
        extractor = USDRLFeatureExtractor(**{**extractor.to_dict(), **given})
    return loaded, extractor


def ready_classifier(model: str, reading: Reading, computing: ModelOptions) -> tuple[Any, USDRLFeatureExtractor]:
    """A model, or the ensemble of several whose names are joined by commas; see `ready`."""
    from ..inference.ensemble import USDRLEnsemble

    first, *others = model.split(",")
    one, extractor = ready(first, True, reading, computing)
    # The device and the type are checked as for one model.
    return (
        (USDRLEnsemble.from_pretrained([first, *others]).to(one.device, one.dtype), extractor)
        if others
        else (one, extractor)
    )


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
