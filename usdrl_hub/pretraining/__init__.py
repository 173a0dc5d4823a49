"""Self-supervised pretraining: views, multi-grained feature decorrelation, trainer and recipes."""

from .data import PretrainingDataset
from .losses import MultiGrainedFeatureDecorrelation
from .trainer import PretrainingCollapseError, USDRLPreTrainer
from .views import ViewAugmentation

__all__ = [
    "MultiGrainedFeatureDecorrelation",
    "PretrainingCollapseError",
    "PretrainingDataset",
    "USDRLPreTrainer",
    "ViewAugmentation",
]
