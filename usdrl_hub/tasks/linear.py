"""Linear recognition on frozen features that are computed once: logistic regression, or the release's schedule."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..errors import TrainingDivergedError
from ..finite import check_finite


def fit_logistic_regression(
    features: torch.Tensor,
    labels: np.ndarray | torch.Tensor,
    num_classes: int,
    *,
    strength: float = 1.0,
    weights: torch.Tensor | None = None,
) -> nn.Linear:
    """The linear layer with the smallest regularised cross-entropy, found by L-BFGS.

    It is fitted to standardised features; the layer returned takes the features as they are given.

    Args:
        features: ``(N, D)``.
        labels: Classes ``(N,)``.
        num_classes: Number of classes K.
        strength: The inverse of the penalty, scikit-learn's C: half the squared norm of the weights over `strength` is
            added to the summed cross-entropy.
        weights: Weight of each class ``(K,)`` in the cross-entropy; 1 where None.

    Returns:
        A layer from D features to K logits, on the features' device.

    Raises:
        NonFiniteError: If a feature is NaN or infinite.
        TrainingDivergedError: If the loss or a weight becomes NaN or infinite.
    """
    check_finite(features, "the features to train on")
    labels = torch.as_tensor(labels, device=features.device).long()
    values = features.double()
    mean, deviation = values.mean(dim=0), values.std(dim=0, unbiased=False)
    # Constant features are not divided by zero.
    deviation = torch.where(deviation < 1e-9, 1.0, deviation)
    standard = (values - mean) / deviation
    # The weights are combinations of the clips' features: fewer clips than features span a smaller space.
    directions = None
    if len(standard) < standard.shape[1]:
        directions, reduced = torch.linalg.qr(standard.T)
        standard = reduced.T
    per_class = None if weights is None else weights.to(features.device, torch.float64)
    weight = torch.zeros(num_classes, standard.shape[1], dtype=torch.float64, device=features.device)
    bias = torch.zeros(num_classes, dtype=torch.float64, device=features.device)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=1000, tolerance_grad=1e-7, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        entropy = nn.functional.cross_entropy(standard @ weight.T + bias, labels, per_class, reduction="sum")
        loss = (entropy + weight.square().sum() / (2 * strength)) / len(labels)
        loss.backward()
        if not torch.isfinite(loss):
            raise TrainingDivergedError("the loss of the logistic regression is NaN or infinite: lower its strength")
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    layer = nn.Linear(features.shape[1], num_classes, device=features.device)
    with torch.no_grad():
        weight = weight if directions is None else weight @ directions.T
        layer.weight.copy_(weight / deviation)
        layer.bias.copy_(bias - (weight / deviation) @ mean)
    _check_layer(layer, "the logistic regression")
    return layer


def train_linear(
    features: torch.Tensor,
    labels: np.ndarray | torch.Tensor,
    num_classes: int,
    *,
    learning_rate: float = 0.006,
    epochs: int = 160,
    drop_epochs: tuple[int, ...] = (120, 140),
    batch_size: int = 512,
    seed: int = 0,
) -> nn.Linear:
    """Train a linear layer as the release's linear evaluation does: SGD with momentum 0.9, no weight decay.

    Args:
        features: ``(N, D)``.
        labels: Classes ``(N,)``.
        num_classes: Number of classes K.
        learning_rate: The first learning rate.
        epochs: Passes over the features.
        drop_epochs: Finished epochs after which the learning rate drops to a tenth.
        batch_size: Clips per step; the last, smaller batch of an epoch is used, too.
        seed: Random seed of weights (normal, standard deviation 0.01) and order.

    Raises:
        NonFiniteError: If a feature is NaN or infinite.
        TrainingDivergedError: At the first step whose loss or gradient is NaN or infinite.
    """
    check_finite(features, "the features to train on")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.as_tensor(labels, device=features.device).long()
    layer = nn.Linear(features.shape[1], num_classes, device=features.device)
    with torch.no_grad():
        layer.weight.copy_(0.01 * torch.randn(layer.weight.shape, generator=generator))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), learning_rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(drop_epochs), 0.1)
    step = 0
    for _ in range(epochs):
        order = torch.randperm(len(features), generator=generator).to(features.device)
        for rows in order.split(batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(layer(features[rows]), labels[rows])
            loss.backward()
            step += 1
            gradients = [values.grad.flatten() for values in layer.parameters() if values.grad is not None]
            if not torch.isfinite(torch.cat([loss.detach()[None], *gradients])).all():
                rate = float(schedule.get_last_lr()[0])
                raise TrainingDivergedError(
                    f"step {step}: the loss or its gradient is NaN or infinite: at a learning rate of {rate:g} the "
                    "linear layer has diverged, and it has no checkpoints: try a lower learning rate",
                    step,
                    rate,
                )
            optimizer.step()
        schedule.step()
    _check_layer(layer, "the linear layer")
    return layer


def _check_layer(layer: nn.Linear, what: str) -> None:
    for values in layer.parameters():
        if not torch.isfinite(values.detach()).all():
            raise TrainingDivergedError(f"{what} has diverged: weights are NaN or infinite after the last step")
