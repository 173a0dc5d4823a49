"""Embeddings and predictions from files or sequences, and pictures of them."""

from .embedding import extract_embeddings, iter_embeddings, write_embeddings
from .ensemble import USDRLEnsemble
from .prediction import Prediction, iter_predictions
from .streaming import StreamResult, USDRLStream

__all__ = [
    "Prediction",
    "StreamResult",
    "USDRLEnsemble",
    "USDRLStream",
    "extract_embeddings",
    "iter_embeddings",
    "iter_predictions",
    "write_embeddings",
]
