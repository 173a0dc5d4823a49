"""Self-supervised pretraining: views, multi-grained feature decorrelation, trainer and recipes."""

from ..errors import PretrainingCollapseError
from .data import PretrainingDataset
from .losses import MultiGrainedFeatureDecorrelation
from .trainer import USDRLPreTrainer
from .views import ViewAugmentation

__all__ = [
    "MultiGrainedFeatureDecorrelation",
    "PretrainingCollapseError",
    "PretrainingDataset",
    "USDRLPreTrainer",
    "ViewAugmentation",
]
