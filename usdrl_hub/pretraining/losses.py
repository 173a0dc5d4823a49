"""Multi-grained feature decorrelation (arXiv 2508.12586, section 3), as the authors' released code computes it.

Axes: n views, B clips, D features. Only norms of the D x D matrices enter, and the norm of Z^T Z is that of Z Z^T, so
where B < D the B x B matrices are formed instead: the same values and gradients at a fraction of the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_VARIANCE_EPS = 1e-4


def similarity(views: torch.Tensor) -> torch.Tensor:
    """Distance between the projections of the views of each clip.

    Args:
        views: ``(n, B, D)``, n at least 2.

    Returns:
        With c the mean of all views but the last: the sum, over all views but the last, of the mean squared
        differences to the last view and to c.
    """
    others, last = views[:-1], views[-1]
    center = others.mean(dim=0)
    return ((others - last).square() + (others - center).square()).mean(dim=(1, 2)).sum()


def variance(views: torch.Tensor) -> torch.Tensor:
    """Hinge loss on the features' standard deviations over the batch, which should reach 1.

    Args:
        views: ``(n, B, D)``, B at least 2.

    Returns:
        The mean over features of ``max(0, 1 - sqrt(var + 1e-4))``, var unbiased, summed over views.
    """
    return (1 - (views.var(dim=1) + _VARIANCE_EPS).sqrt()).relu().mean(dim=1).sum()


def autocovariance(views: torch.Tensor, gram: bool | None = None) -> torch.Tensor:
    """Off-diagonal covariance between the features of each view.

    Args:
        views: ``(n, B, D)``, B at least 2.
        gram: Form B x B matrices (True) or D x D ones (False); the smaller where None.

    Returns:
        The squares of the off-diagonal entries of the unbiased covariance, over D, summed over views.
    """
    _, batch, features = views.shape
    centered = views - views.mean(dim=1, keepdim=True)
    variances = centered.square().sum(dim=1) / (batch - 1)
    rows = gram if gram is not None else batch < features
    squares = _SquaredProducts.apply(centered if rows else centered.transpose(1, 2)) / (batch - 1) ** 2
    return (squares - variances.square().sum()) / features


def cross_correlation(views: torch.Tensor, off_diagonal: float = 0.005, gram: bool | None = None) -> torch.Tensor:
    """Distance of the cross-correlation between two views' features from the identity.

    Args:
        views: ``(n, B, D)``, B at least 2; no feature constant.
        off_diagonal: Weight of the correlations between different features.
        gram: See `autocovariance`.

    Returns:
        ``sum_i (C_ii - 1)^2 + off_diagonal * sum_{i != j} C_ij^2``, summed over the unordered pairs of views, with
        ``C = Za^T Zb / B`` of views standardised by their unbiased deviations.
    """
    number, batch, features = views.shape
    standard = (views - views.mean(dim=1, keepdim=True)) / views.std(dim=1, keepdim=True)
    first, second = torch.triu_indices(number, number, offset=1, device=views.device)
    diagonal = (standard[first] * standard[second]).sum(dim=1) / batch
    if gram if gram is not None else batch < features:
        # <Ga, Gb> over all pairs at once: the square of the sum less the sum of the squares.
        products = (standard @ standard.transpose(1, 2)) / batch
        squares = (products.sum(dim=0).square().sum() - products.square().sum()) / 2
    else:
        squares = ((standard[first].transpose(1, 2) @ standard[second]) / batch).square().sum()
    on = diagonal.square().sum()
    return (diagonal - 1).square().sum() + off_diagonal * (squares - on)


class _SquaredProducts(torch.autograd.Function):
    """Sum of the squares of ``A A^T`` of matrices ``(n, R, S)``.

    ``A A^T`` is symmetric, so the gradient is one product, 4 (A A^T) A, where autograd would form two.
    """

    @staticmethod
    def forward(ctx, matrices: torch.Tensor) -> torch.Tensor:
        products = matrices @ matrices.transpose(1, 2)
        ctx.save_for_backward(matrices, products)
        return products.square().sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        matrices, products = ctx.saved_tensors
        return (4 * gradient) * (products @ matrices)


@dataclass(frozen=True)
class MultiGrainedFeatureDecorrelation:
    """The pretraining loss over temporal, spatial and instance projections.

    Attributes:
        similarity: Weight of `similarity`.
        variance: Weight of `variance`; the release's 5.
        autocovariance: Weight of `autocovariance`.
        cross_correlation: Weight of `cross_correlation`: 1e-3 in the AAAI release, 0 in the TPAMI release, which does
            not compute it.
        temporal: Weight of the temporal domain.
        spatial: Weight of the spatial domain.
        instance: Weight of the instance domain.
        off_diagonal: See `cross_correlation`.
    """

    similarity: float = 5.0
    variance: float = 5.0
    autocovariance: float = 1.0
    cross_correlation: float = 0.0
    temporal: float = 0.5
    spatial: float = 0.5
    instance: float = 1.0
    off_diagonal: float = 0.005

    def __post_init__(self) -> None:
        """Refuse impossible weights."""
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"the loss's {name} must be a weight of at least 0, got {value!r}")
        if not (self.temporal or self.spatial or self.instance):
            raise ValueError("the loss needs a weight above 0 for one of temporal, spatial and instance")

    @classmethod
    def preset(cls, name: str) -> MultiGrainedFeatureDecorrelation:
        """The loss of a release: "aaai" or "tpami".

        Raises:
            ValueError: If the name is another.
        """
        weights = {"aaai": 1e-3, "tpami": 0.0}
        if name not in weights:
            raise ValueError(f"there is no loss '{name}': use aaai or tpami, or a mapping of its weights")
        return cls(cross_correlation=weights[name])

    def __call__(
        self, temporal: torch.Tensor, spatial: torch.Tensor, instance: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The loss of a batch of views.

        Args:
            temporal: Projections ``(n, B, D_t)`` of n views of the whole global batch.
            spatial: The same ``(n, B, D_s)``.
            instance: The same ``(n, B, D_i)``.

        Returns:
            `loss`, and its parts over all domains, unweighted: `similarity`, `variance`, `autocovariance` and, where
            its weight is not 0, `cross_correlation`. Computed in float32, or float64 for such input.

        Raises:
            ValueError: If there are fewer than two views or clips, which have no statistics.
        """
        if len(instance) < 2 or instance.shape[1] < 2:
            raise ValueError(f"the loss is a statistic of views and clips: {tuple(instance.shape[:2])} are too few")
        domains = [(self.temporal, temporal), (self.spatial, spatial), (self.instance, instance)]
        terms = {"similarity": similarity, "variance": variance, "autocovariance": autocovariance}
        parts = {}
        device = instance.device.type
        with torch.autocast(device, enabled=False):
            # Half precision is too coarse for sums of thousands of squares.
            domains = [
                (weight, views.to(torch.promote_types(views.dtype, torch.float32))) for weight, views in domains
            ]
            for name, term in terms.items():
                parts[name] = sum(weight * term(views) for weight, views in domains)
            if self.cross_correlation:
                parts["cross_correlation"] = sum(
                    weight * cross_correlation(views, self.off_diagonal) for weight, views in domains
                )
            total = sum(getattr(self, name) * part for name, part in parts.items())
        return {"loss": total, **parts}  # type: ignore[dict-item]
