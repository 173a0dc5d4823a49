"""USDRL, the foundation model for skeleton-based human action understanding, in the style of transformers.

Names are imported when they are first used: `import usdrl_hub` alone does not import torch or transformers. Where
transformers is imported, before or after, its Auto classes and pipelines know the models of this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .after_import import after_import

if TYPE_CHECKING:
    from .acceleration.fused import fuse as fuse
    from .configuration_usdrl import USDRLConfig as USDRLConfig
    from .data.clips import ClipDataset as ClipDataset
    from .data.dataset import SkeletonData as SkeletonData
    from .data.dataset import open_data as open_data
    from .data.npz import SkeletonDataset as SkeletonDataset
    from .data.poses import from_pose_estimation as from_pose_estimation
    from .data.readers import iter_skeletons as iter_skeletons
    from .data.readers import read_skeleton as read_skeleton
    from .data.reading import Reading as Reading
    from .data.sequence_list import SkeletonList as SkeletonList
    from .data.store import SkeletonStore as SkeletonStore
    from .data.store_writer import write_store as write_store
    from .data.writing import write_skeleton as write_skeleton
    from .facts.checkpoints import checkpoint_path as checkpoint_path
    from .facts.checkpoints import list_models as list_models
    from .feature_extraction_usdrl import USDRLFeatureExtractor as USDRLFeatureExtractor
    from .inference.archive import write_embeddings as write_embeddings
    from .inference.blazepose import BlazePoseEstimator as BlazePoseEstimator
    from .inference.counting import Repetitions as Repetitions
    from .inference.counting import count_repetitions as count_repetitions
    from .inference.embedding import extract_embeddings as extract_embeddings
    from .inference.embedding import extract_frame_embeddings as extract_frame_embeddings
    from .inference.embedding import iter_embeddings as iter_embeddings
    from .inference.embedding import iter_frame_embeddings as iter_frame_embeddings
    from .inference.engine import Engine as Engine
    from .inference.ensemble import USDRLEnsemble as USDRLEnsemble
    from .inference.pipelines import pipeline as pipeline
    from .inference.prediction import Prediction as Prediction
    from .inference.prediction import extract_predictions as extract_predictions
    from .inference.prediction import iter_predictions as iter_predictions
    from .inference.source import Source as Source
    from .inference.streaming import StreamResult as StreamResult
    from .inference.streaming import USDRLStream as USDRLStream
    from .inference.timeline import Timeline as Timeline
    from .inference.timeline import extract_timelines as extract_timelines
    from .inference.timeline import iter_timelines as iter_timelines
    from .inference.video import PoseEstimator as PoseEstimator
    from .inference.video import VideoReading as VideoReading
    from .inference.video import read_video as read_video
    from .layouts import LAYOUTS as LAYOUTS
    from .layouts import Layout as Layout
    from .layouts import convert_layout as convert_layout
    from .layouts import get_layout as get_layout
    from .modeling_usdrl import USDRLForActionDetection as USDRLForActionDetection
    from .modeling_usdrl import USDRLForActionRecognition as USDRLForActionRecognition
    from .modeling_usdrl import USDRLForActionSegmentation as USDRLForActionSegmentation
    from .modeling_usdrl import USDRLForEarlyActionPrediction as USDRLForEarlyActionPrediction
    from .modeling_usdrl import USDRLForPreTraining as USDRLForPreTraining
    from .modeling_usdrl import USDRLModel as USDRLModel
    from .modeling_usdrl import USDRLPreTrainedModel as USDRLPreTrainedModel
    from .normalization import Geometry as Geometry
    from .persons import PersonSelection as PersonSelection
    from .pretraining.arguments import ComputeOptions as ComputeOptions
    from .pretraining.arguments import PretrainingArguments as PretrainingArguments
    from .pretraining.data import PretrainingDataset as PretrainingDataset
    from .pretraining.readout import fit_readout as fit_readout
    from .pretraining.run import pretrain as pretrain
    from .pretraining.trainer import USDRLPreTrainer as USDRLPreTrainer
    from .search.build import WindowOptions as WindowOptions
    from .search.index import MotionIndex as MotionIndex
    from .sequence import SkeletonFormatError as SkeletonFormatError
    from .sequence import SkeletonSequence as SkeletonSequence
    from .tasks.evaluate import evaluate as evaluate
    from .tasks.fit import FitRecipe as FitRecipe
    from .tasks.heads import with_head as with_head
    from .tasks.recognition import finetune as finetune
    from .tasks.regression import finetune_values as finetune_values
    from .training import USDRLTrainer as USDRLTrainer
    from .visualize.map import draw_map as draw_map
    from .visualize.recording import render as render

__version__ = "0.1.0"

# The same for Python: the module that each name comes from.
_MODULES = {
    name: module
    for module, names in {
        "acceleration.fused": ["fuse"],
        "configuration_usdrl": ["USDRLConfig"],
        "data.clips": ["ClipDataset"],
        "data.dataset": ["SkeletonData", "open_data"],
        "data.npz": ["SkeletonDataset"],
        "data.poses": ["from_pose_estimation"],
        "data.readers": ["iter_skeletons", "read_skeleton"],
        "data.reading": ["Reading"],
        "data.sequence_list": ["SkeletonList"],
        "data.store": ["SkeletonStore"],
        "data.store_writer": ["write_store"],
        "data.writing": ["write_skeleton"],
        "feature_extraction_usdrl": ["USDRLFeatureExtractor"],
        "facts.checkpoints": ["checkpoint_path", "list_models"],
        "inference.archive": ["write_embeddings"],
        "inference.counting": ["Repetitions", "count_repetitions"],
        "inference.embedding": [
            "extract_embeddings",
            "extract_frame_embeddings",
            "iter_embeddings",
            "iter_frame_embeddings",
        ],
        "inference.engine": ["Engine"],
        "inference.ensemble": ["USDRLEnsemble"],
        "inference.pipelines": ["pipeline"],
        "inference.prediction": ["Prediction", "extract_predictions", "iter_predictions"],
        "inference.source": ["Source"],
        "inference.streaming": ["StreamResult", "USDRLStream"],
        "inference.timeline": ["Timeline", "extract_timelines", "iter_timelines"],
        "inference.blazepose": ["BlazePoseEstimator"],
        "inference.video": ["PoseEstimator", "VideoReading", "read_video"],
        "layouts": ["LAYOUTS", "Layout", "convert_layout", "get_layout"],
        "modeling_usdrl": [
            "USDRLForActionDetection",
            "USDRLForActionRecognition",
            "USDRLForActionSegmentation",
            "USDRLForEarlyActionPrediction",
            "USDRLForPreTraining",
            "USDRLModel",
            "USDRLPreTrainedModel",
        ],
        "persons": ["PersonSelection"],
        "normalization": ["Geometry"],
        "pretraining.arguments": ["ComputeOptions", "PretrainingArguments"],
        "pretraining.data": ["PretrainingDataset"],
        "pretraining.readout": ["fit_readout"],
        "pretraining.run": ["pretrain"],
        "pretraining.trainer": ["USDRLPreTrainer"],
        "search.build": ["WindowOptions"],
        "search.index": ["MotionIndex"],
        "sequence": ["SkeletonFormatError", "SkeletonSequence"],
        "tasks.evaluate": ["evaluate"],
        "tasks.fit": ["FitRecipe"],
        "tasks.heads": ["with_head"],
        "tasks.recognition": ["finetune"],
        "tasks.regression": ["finetune_values"],
        "training": ["USDRLTrainer"],
        "visualize.map": ["draw_map"],
        "visualize.recording": ["render"],
    }.items()
    for name in names
}

__all__ = sorted([*_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_configuration() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from .configuration_usdrl import USDRLConfig

    AutoConfig.register("usdrl", USDRLConfig)


def _register_feature_extractor() -> None:
    from transformers.models.auto.feature_extraction_auto import AutoFeatureExtractor

    from .configuration_usdrl import USDRLConfig
    from .feature_extraction_usdrl import USDRLFeatureExtractor

    AutoFeatureExtractor.register(USDRLConfig, USDRLFeatureExtractor)


def _register_models() -> None:
    from transformers.models.auto import modeling_auto as auto

    from .configuration_usdrl import USDRLConfig
    from .modeling_usdrl import HEADS

    # Several heads give a class per frame: `architectures` in a checkpoint's configuration says which one it is.
    for auto_class in {head.auto_class for head in HEADS.values()}:
        heads = tuple(head for head in HEADS.values() if head.auto_class == auto_class)
        getattr(auto, auto_class).register(USDRLConfig, heads if len(heads) > 1 else heads[0])


def _register_pipelines() -> None:
    from .inference.pipelines import register_pipelines

    register_pipelines()


after_import("transformers.models.auto.configuration_auto", _register_configuration)
after_import("transformers.models.auto.feature_extraction_auto", _register_feature_extractor)
after_import("transformers.models.auto.modeling_auto", _register_models)
after_import("transformers.pipelines", _register_pipelines)
