"""USDRL, the foundation model for skeleton-based human action understanding, in the style of transformers."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForTokenClassification,
    AutoModelForVideoClassification,
)

from .configuration_usdrl import USDRLConfig
from .data import (
    ClipDataset,
    SkeletonDataset,
    SkeletonList,
    SkeletonStore,
    from_pose_estimation,
    iter_skeletons,
    read_skeleton,
)
from .feature_extraction_usdrl import USDRLFeatureExtractor
from .hub import checkpoint_path, list_checkpoints
from .inference import USDRLEnsemble, USDRLStream, extract_embeddings, iter_predictions, iter_timelines
from .inference.mapping import draw_map
from .inference.pipelines import pipeline, register_pipelines
from .inference.rendering import render
from .inference.video import PoseEstimator, read_video
from .layouts import LAYOUTS, Layout, convert_layout, get_layout
from .modeling_usdrl import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLModel,
    USDRLPreTrainedModel,
)
from .pretraining import PretrainingDataset, USDRLPreTrainer
from .sequence import SkeletonFormatError, SkeletonSequence
from .training import USDRLTrainer

__all__ = [
    "LAYOUTS",
    "ClipDataset",
    "Layout",
    "PoseEstimator",
    "PretrainingDataset",
    "SkeletonDataset",
    "SkeletonList",
    "SkeletonFormatError",
    "SkeletonSequence",
    "SkeletonStore",
    "USDRLConfig",
    "USDRLEnsemble",
    "USDRLFeatureExtractor",
    "USDRLForActionDetection",
    "USDRLForActionRecognition",
    "USDRLForActionSegmentation",
    "USDRLForEarlyActionPrediction",
    "USDRLForPreTraining",
    "USDRLModel",
    "USDRLPreTrainer",
    "USDRLPreTrainedModel",
    "USDRLStream",
    "USDRLTrainer",
    "checkpoint_path",
    "convert_layout",
    "draw_map",
    "extract_embeddings",
    "from_pose_estimation",
    "get_layout",
    "iter_predictions",
    "iter_skeletons",
    "iter_timelines",
    "list_checkpoints",
    "pipeline",
    "read_skeleton",
    "read_video",
    "render",
]

AutoConfig.register("usdrl", USDRLConfig)
AutoModel.register(USDRLConfig, USDRLModel)
AutoModelForPreTraining.register(USDRLConfig, USDRLForPreTraining)
AutoModelForVideoClassification.register(USDRLConfig, USDRLForActionRecognition)
# Three heads give a class per frame: `architectures` in a checkpoint's configuration says which one it is.
AutoModelForTokenClassification.register(
    USDRLConfig, (USDRLForActionDetection, USDRLForActionSegmentation, USDRLForEarlyActionPrediction)
)
AutoFeatureExtractor.register(USDRLConfig, USDRLFeatureExtractor)
register_pipelines()
