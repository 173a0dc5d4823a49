"""`USDRLTrainer`: supervised training of USDRL heads, full fine-tuning or linear probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi
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


class PublishingTrainer(Trainer):
    """A trainer whose `push_to_hub` publishes as `usdrl push` does: one complete commit, and no pickle.

    transformers' own uploads ``training_args.bin``, which is one, and a card without results.
    """

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save the model and publish its folder; give the feature extractor to the trainer as `processing_class`.

        Args:
            commit_message: The commit's message.
            blocking: Wait until it is done; otherwise a future is returned.
            token: Access token; the trainer's, else that of ``hf auth login``, where None.
            revision: Branch; the trainer's where None.
            private: Whether a new repository is private; the trainer's choice where None.
            **kwargs: Other arguments of `hub.publish.publish`, such as `create_pr`.

        Returns:
            See `hub.publish.publish`; None on other processes than the first.

        Raises:
            PublishError: See `hub.publish.publish`.
        """
        # The hub's room comes after this one and is entered only here.
        from .hub.publish import publish

        args = self.args
        self.callback_handler.on_push_begin(args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        folder = Path(args.output_dir or ".").absolute()
        name = args.hub_model_id or folder.name
        if "/" not in name:
            name = f"{HfApi(token=token or args.hub_token).whoami()['name']}/{name}"
        given = {
            "private": args.hub_private_repo if private is None else private,
            "revision": revision or args.hub_revision,
            "message": commit_message,
            "token": token or args.hub_token,
            **kwargs,
        }
        if blocking:
            return publish(folder, name, **given)
        return HfApi().run_as_future(publish, folder, name, **given)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Nothing: the repository is made when there is something to publish."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: a checkpoint in the middle of a run holds pickles, and is no finished model."""


class USDRLTrainer(PublishingTrainer):
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
