"""`USDRLEnsemble`: late fusion of recognition models of several modalities, the "3s" of the papers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from ..errors import CheckpointLoadError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..loading import load_feature_extractor
from ..modeling_usdrl import USDRLForActionRecognition, USDRLRecognitionOutput
from .engine import load_for_inference
from .scores import is_single_label


class USDRLEnsemble(nn.Module):
    """Recognition models of the same classes and clips, whose probabilities are averaged.

    Example:
        >>> import torch
        >>> from usdrl_hub import USDRLEnsemble
        >>> ensemble = USDRLEnsemble.from_pretrained(["usdrl/tiny-uiprmd"] * 3)
        >>> ensemble(torch.randn(4, 64, 1, 25, 3)).logits.shape
        torch.Size([4, 10])
    """

    task = USDRLForActionRecognition.task
    has_background = False

    def __init__(
        self,
        models: Sequence[USDRLForActionRecognition],
        feature_extractor: USDRLFeatureExtractor,
        weights: Sequence[float] | None = None,
    ):
        """Join models.

        Args:
            models: Recognition models, usually of joint, motion and bone.
            feature_extractor: Makes the clips of all of them.
            weights: Weight of each model's probabilities; all 1 where None.

        Raises:
            ValueError: If there are no models, one has several or no classes per clip, their classes or clips differ,
                or there is not one positive weight per model.
        """
        super().__init__()
        if not models:
            raise ValueError("an ensemble needs at least one model")
        first = models[0].config
        for model in models:
            if not is_single_label(model.config):
                raise ValueError(
                    f"an ensemble averages probabilities of classes, not of a {model.config.problem_type}"
                )
        sizes = ("num_frames", "num_persons", "num_joints", "num_channels")
        for model in models[1:]:
            if model.config.class_names != first.class_names:
                raise ValueError("the models of an ensemble must have the same classes in the same order")
            for name in sizes:
                if getattr(model.config, name) != getattr(first, name):
                    raise ValueError(f"the models of an ensemble must read the same clips, but {name} differs")
        weights = [1.0] * len(models) if weights is None else list(weights)
        if len(weights) != len(models) or not all(weight > 0 for weight in weights):
            raise ValueError(f"{len(models)} models need as many positive weights, got {weights}")
        self.models = nn.ModuleList(models)
        self.feature_extractor = feature_extractor
        self.weights = [weight / sum(weights) for weight in weights]
        self.config = first

    @classmethod
    def from_pretrained(
        cls,
        names: Sequence[str | os.PathLike],
        weights: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> USDRLEnsemble:
        """Load recognition models by name or folder, fused for inference; see `acceleration.fused.fuse`.

        Args:
            names: Checkpoints.
            weights: Weight of each model's probabilities; all 1 where None.
            dtype: Type to compute in.

        Raises:
            CheckpointLoadError: If one cannot be loaded, is no recognition model, or prepares its clips in another way
                than the first.
            ValueError: If they cannot be joined, see the constructor.
        """
        models, extractors = [], []
        for name in names:
            model = load_for_inference(name, device=torch.device("cpu"), dtype=dtype)
            if not isinstance(model, USDRLForActionRecognition):
                raise CheckpointLoadError(f"{name} is {type(model).__name__}, which is not a recogniser")
            models.append(model)
            extractors.append(load_feature_extractor(name))
            if extractors[-1].to_dict() != extractors[0].to_dict():
                raise CheckpointLoadError(f"{name} and {names[0]} differ in their preprocessing")
        return cls(models, extractors[0] if extractors else USDRLFeatureExtractor(), weights)

    @property
    def device(self) -> torch.device:
        """Where the models compute."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type that the models compute in."""
        return next(self.parameters()).dtype

    def forward(self, keypoints: torch.Tensor) -> USDRLRecognitionOutput:
        """Score clips ``(B, T, M, V, C)``.

        Returns:
            `logits` ``(B, K)``, the logarithms of the averaged probabilities; and `similarity` ``(B,)``, if all models
            have one: that of the first model, shifted by the mean distance of the models' similarities from their own
            `min_similarity`.
        """
        outputs = [model(keypoints) for model in self.models]
        scores = [
            weight * output.logits.float().softmax(dim=-1)
            for weight, output in zip(self.weights, outputs, strict=True)
        ]
        similarity = None
        if all(output.similarity is not None for output in outputs):
            least = [cast(float, cast(Any, model).config.min_similarity) for model in self.models]
            above = [
                weight * (output.similarity - own)
                for weight, output, own in zip(self.weights, outputs, least, strict=True)
            ]
            similarity = least[0] + torch.stack(above).sum(dim=0)
        # Clamped, because the logarithm of an underflown probability is minus infinity.
        logits = torch.stack(scores).sum(dim=0).clamp(min=1e-38).log()
        return USDRLRecognitionOutput(logits=logits, similarity=similarity)  # type: ignore[arg-type]
