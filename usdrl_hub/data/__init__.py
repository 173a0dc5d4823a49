"""Readers of raw skeleton formats and data sets."""

from .dataset import ClipDataset, SkeletonDataset, SkeletonList
from .poses import from_pose_estimation
from .readers import iter_skeletons, read_skeleton
from .store import SkeletonStore

__all__ = [
    "ClipDataset",
    "SkeletonDataset",
    "SkeletonList",
    "SkeletonStore",
    "from_pose_estimation",
    "iter_skeletons",
    "read_skeleton",
]
