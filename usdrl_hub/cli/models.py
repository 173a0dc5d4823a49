"""Models as the options of the command line choose them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .options import ModelOptions, VideoOptions

if TYPE_CHECKING:
    from ..data.reading import Reading
    from ..feature_extraction_usdrl import USDRLFeatureExtractor
    from ..inference.engine import Engine
    from ..inference.video import VideoReading


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


def video_reading(
    options: VideoOptions, device: str | None, extractor: USDRLFeatureExtractor | None = None
) -> VideoReading:
    """How videos are read, as the options say.

    Args:
        options: Options of the command.
        device: Where pose models of transformers compute.
        extractor: Of the model that reads the recordings; one that cannot is refused before a pose model is loaded.

    Raises:
        ValueError: If a detector is named without a pose model that needs one, or the other way round.
    """
    from ..inference.blazepose import BlazePoseEstimator
    from ..inference.video import Estimator, PoseEstimator, VideoReading, check_reads

    estimator: Estimator | None = None
    if options.pose_model is not None and options.pose_model.endswith(".onnx"):
        if options.detector is not None:
            raise ValueError("a --pose-model in ONNX (BlazePose) has its own detector: leave --detector out")
        estimator = BlazePoseEstimator(options.pose_model, threshold=options.person_threshold)
    elif options.pose_model is not None and options.detector is not None:
        if extractor is not None:
            check_reads(extractor, "the model", PoseEstimator.layout)
        names = options.pose_model, options.detector
        estimator = PoseEstimator.from_pretrained(*names, options.person_threshold, device)
    elif options.pose_model is not None or options.detector is not None:
        raise ValueError("people are found by a --detector and their joints by a --pose-model: name both, or neither")
    elif options.person_threshold != VideoOptions.person_threshold:
        estimator = BlazePoseEstimator(threshold=options.person_threshold)
    return VideoReading(estimator, options.mirrored, progress=True)
