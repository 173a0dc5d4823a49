"""Embeddings and predictions from files or sequences, and pictures of them."""

from .embedding import extract_embeddings, iter_embeddings, write_embeddings
from .ensemble import USDRLEnsemble
from .pipelines import SkeletonActionRecognitionPipeline, SkeletonFeatureExtractionPipeline, pipeline
from .prediction import Prediction, iter_predictions
from .streaming import StreamResult, USDRLStream
from .timeline import Timeline, iter_timelines, make_timeline, segment_rows, write_segments
from .video import PoseEstimator, iter_videos, read_video

__all__ = [
    "PoseEstimator",
    "Prediction",
    "SkeletonActionRecognitionPipeline",
    "SkeletonFeatureExtractionPipeline",
    "StreamResult",
    "Timeline",
    "USDRLEnsemble",
    "USDRLStream",
    "extract_embeddings",
    "iter_embeddings",
    "iter_predictions",
    "iter_timelines",
    "iter_videos",
    "make_timeline",
    "pipeline",
    "read_video",
    "segment_rows",
    "write_embeddings",
    "write_segments",
]
