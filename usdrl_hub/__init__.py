"""USDRL, the foundation model for skeleton-based human action understanding, in the style of transformers."""

from .configuration_usdrl import USDRLConfig
from .layouts import LAYOUTS, Layout, convert_layout, get_layout
from .sequence import SkeletonFormatError, SkeletonSequence

__all__ = [
    "LAYOUTS",
    "Layout",
    "SkeletonFormatError",
    "SkeletonSequence",
    "USDRLConfig",
    "convert_layout",
    "get_layout",
]
