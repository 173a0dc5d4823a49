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
from .data import ClipDataset, SkeletonDataset, SkeletonStore, iter_skeletons, read_skeleton
from .feature_extraction_usdrl import USDRLFeatureExtractor
from .hub import checkpoint_path, list_checkpoints
from .inference import USDRLEnsemble, USDRLStream, extract_embeddings, iter_predictions
from .inference.rendering import render
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
    "PretrainingDataset",
    "SkeletonDataset",
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
    "extract_embeddings",
    "get_layout",
    "iter_predictions",
    "iter_skeletons",
    "list_checkpoints",
    "read_skeleton",
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
