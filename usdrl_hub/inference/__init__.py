"""Embeddings and predictions from files or sequences, and pictures of them."""

from .embedding import extract_embeddings, iter_embeddings, write_embeddings
from .ensemble import USDRLEnsemble
from .pipelines import SkeletonActionRecognitionPipeline, SkeletonFeatureExtractionPipeline, pipeline
from .prediction import Prediction, iter_predictions
from .timeline import Timeline, iter_timelines, make_timeline, segment_rows, write_segments

__all__ = [
    "Prediction",
    "SkeletonActionRecognitionPipeline",
    "SkeletonFeatureExtractionPipeline",
    "Timeline",
    "USDRLEnsemble",
    "extract_embeddings",
    "iter_embeddings",
    "iter_predictions",
    "iter_timelines",
    "make_timeline",
    "pipeline",
    "segment_rows",
    "write_embeddings",
    "write_segments",
]
