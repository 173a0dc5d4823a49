"""`USDRLTrainer`: supervised training of USDRL heads, full fine-tuning or linear probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, Trainer

from .modeling_usdrl import USDRLClassificationModel


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Top-1 and, with more than five classes, top-5 accuracy in [0, 1].

    Args:
        prediction: Logits ``(..., K)`` and labels ``(...)``; labels of -100 are left out.
    """
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    labels = np.asarray(prediction.label_ids)
    counted = labels != -100
    logits, labels = np.asarray(logits)[counted], labels[counted]
    # How many classes score at least as high as the true one, a tie counted against it.
    rank = (logits >= np.take_along_axis(logits, labels[:, None], axis=1)).sum(axis=1)
    scores = {"accuracy": float((rank <= 1).mean())}
    if logits.shape[-1] > 5:
        scores["top5_accuracy"] = float((rank <= 5).mean())
    return scores


class USDRLTrainer(Trainer):
    """`transformers.Trainer` for USDRL heads.

    Takes any data set that yields `keypoints` ``(T, M, V, C)`` and `labels`; accuracy is the default metric.

    Args:
        *args: Those of `transformers.Trainer`.
        linear_probe: Train the linear layer only, with the encoder frozen and in eval mode.
        **kwargs: Those of `transformers.Trainer`.

    Raises:
        ValueError: If `linear_probe` is asked of a model without a head to train.
    """

    def __init__(self, *args: Any, linear_probe: bool = False, **kwargs: Any):
        """Set the trainer up; see the class."""
        kwargs.setdefault("compute_metrics", accuracy)
        self.linear_probe = linear_probe
        super().__init__(*args, **kwargs)
        if linear_probe and self.model is not None:
            self._freeze(self.model)

    def call_model_init(self, trial: Any = None) -> torch.nn.Module:
        """Make a model with `model_init`, which `train` does anew, and freeze its encoder where asked to."""
        model = super().call_model_init(trial)
        if self.linear_probe:
            self._freeze(model)
        return model

    @staticmethod
    def _freeze(model: torch.nn.Module) -> None:
        if not isinstance(model, USDRLClassificationModel):
            raise ValueError(
                f"a linear probe trains a classification layer, and {type(model).__name__} has none: use "
                "USDRLForActionRecognition or USDRLForActionDetection"
            )
        model.freeze_encoder()
