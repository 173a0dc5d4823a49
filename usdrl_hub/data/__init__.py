"""Readers of raw skeleton formats and data sets."""

from .dataset import ClipDataset, SkeletonDataset
from .readers import iter_skeletons, read_skeleton
from .store import SkeletonStore

__all__ = ["ClipDataset", "SkeletonDataset", "SkeletonStore", "iter_skeletons", "read_skeleton"]
