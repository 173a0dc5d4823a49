"""Retrieval by the cosine of embeddings: exact nearest neighbours, recall and mean average precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..finite import check_finite

# Similarities in memory at once: 32 MiB of float32, and twice that for the numbers beside them.
MAX_SIMILARITIES = 1 << 23


def top_k(
    queries: torch.Tensor, gallery: torch.Tensor, k: int, device: str | torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` most similar gallery items of each query.

    Args:
        queries: Features ``(Q, D)``.
        gallery: Features ``(G, D)``.
        k: How many, at most G.
        device: Where to compute; that of the gallery where None.

    Returns:
        Cosines ``(Q, k)``, highest first, and numbers of the items ``(Q, k)`` int64; of equal ones the lower number
        comes first. Memory is bounded, whatever Q and G are.

    Raises:
        ValueError: If `k` is not between 1 and G.
        NonFiniteError: If a feature is NaN or infinite.
    """
    check_finite(queries, "the features to search with")
    check_finite(gallery, "the features to search among")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must be between 1 and the {len(gallery)} items of the gallery, got {k}")
    place = gallery.device if device is None else torch.device(device)
    queries, gallery = _unit(queries).to(place), _unit(gallery).to(place)
    rows = max(MAX_SIMILARITIES // max(len(gallery), 1), 1)
    columns = max(MAX_SIMILARITIES // rows, k)
    scores, numbers = [], []
    for block in queries.split(rows):
        best = torch.full((len(block), 0), 0.0, device=place)
        items = torch.zeros((len(block), 0), dtype=torch.int64, device=place)
        for start in range(0, len(gallery), columns):
            similar = block @ gallery[start : start + columns].T
            number = torch.arange(start, start + similar.shape[1], device=place).expand_as(similar)
            similar, number = torch.cat([best, similar], dim=1), torch.cat([items, number], dim=1)
            best, order = _highest(similar, min(k, similar.shape[1]))
            items = number.gather(1, order)
        scores.append(best.cpu())
        numbers.append(items.cpu())
    return torch.cat(scores), torch.cat(numbers)


def _highest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` highest of each row with their places, of equal ones the first."""
    kth = values.topk(k, dim=1).values[:, -1:]
    if bool(((values >= kth).sum(dim=1) > k).any()):
        # Equal values at the end of the list: a stable sort keeps the first ones.
        highest, order = values.sort(dim=1, descending=True, stable=True)
        return highest[:, :k], order[:, :k]
    places = values.topk(k, dim=1).indices.sort(dim=1).values
    highest, order = values.gather(1, places).sort(dim=1, descending=True, stable=True)
    return highest, places.gather(1, order)


def _unit(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features.float(), dim=1)


def retrieval_metrics(
    gallery: torch.Tensor,
    gallery_labels: np.ndarray | torch.Tensor,
    queries: torch.Tensor,
    query_labels: np.ndarray | torch.Tensor,
    ranks: Sequence[int] = (1, 5, 10),
    device: str | torch.device | None = None,
) -> dict[str, float]:
    """How well queries find items of their class.

    Args:
        gallery: Features ``(G, D)``.
        gallery_labels: Classes ``(G,)``.
        queries: Features ``(Q, D)``.
        query_labels: Classes ``(Q,)``.
        ranks: The k of recall; those above G are left out.
        device: See `top_k`.

    Returns:
        `accuracy_1nn`; `recall@k`, the share of queries with an item of their class among the k most similar; `map`,
        the mean over queries of the average precision of the whole ranking, 0 for a query whose class is not in the
        gallery. All in [0, 1].

    Raises:
        ValueError: If there is no query or nothing to find.
        NonFiniteError: If a feature is NaN or infinite.
    """
    check_finite(queries, "the features to search with")
    check_finite(gallery, "the features to search among")
    if not len(gallery) or not len(queries):
        raise ValueError("retrieval needs at least one query and one item to find")
    gallery_labels, query_labels = torch.as_tensor(gallery_labels), torch.as_tensor(query_labels)
    place = gallery.device if device is None else torch.device(device)
    unit = _unit(gallery).to(place)
    labels = gallery_labels.to(place)
    known = [rank for rank in ranks if rank <= len(gallery)]
    found: dict[int, float] = dict.fromkeys([1, *known], 0.0)
    precision = 0.0
    step = torch.arange(1, len(gallery) + 1, device=place, dtype=torch.float64)
    for block, wanted in zip(
        _unit(queries).split(max(MAX_SIMILARITIES // len(gallery), 1)),
        query_labels.split(max(MAX_SIMILARITIES // len(gallery), 1)),
        strict=True,
    ):
        order = (block.to(place) @ unit.T).argsort(dim=1, descending=True, stable=True)
        right = labels[order] == wanted.to(place)[:, None]
        for rank in found:
            found[rank] += float(right[:, :rank].any(dim=1).sum())
        hits = right.double().cumsum(dim=1)
        count = right.sum(dim=1).clamp(min=1)
        precision += float(((hits / step * right).sum(dim=1) / count).sum())
    total = len(queries)
    metrics = {"accuracy_1nn": found[1] / total, **{f"recall@{rank}": found[rank] / total for rank in known}}
    return {**metrics, "map": precision / total}
