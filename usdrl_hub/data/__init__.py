"""Readers of raw skeleton formats and data sets."""

from .dataset import ClipDataset, SkeletonDataset
from .readers import iter_skeletons, read_skeleton

__all__ = ["ClipDataset", "SkeletonDataset", "iter_skeletons", "read_skeleton"]
