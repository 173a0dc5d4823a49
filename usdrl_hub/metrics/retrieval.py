"""Retrieval by cosine similarity of embeddings: exact nearest neighbours, recall and mean average precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..finite import check_finite

# Similarities in memory at once: 32 MiB of float32, and 64 MiB of indices.
MAX_SIMILARITIES = 1 << 23


def top_k(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    k: int,
    device: str | torch.device | None = None,
    *,
    is_unit: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` most similar gallery items of each query, in bounded memory.

    Args:
        queries: Features ``(Q, D)``.
        gallery: Features ``(G, D)``.
        k: Number of items, from 1 to G.
        device: Device to compute on; the gallery's if None.
        is_unit: Whether the gallery is finite and was scaled by `unit`, which takes longer than to compare it.

    Returns:
        Cosine similarities ``(Q, k)``, highest first, and indices ``(Q, k)`` int64; ties are in order of the index.

    Raises:
        ValueError: If `k` is not between 1 and G.
        NonFiniteError: If a feature is NaN or infinite.
    """
    check_finite(queries, "the features of the queries")
    if not is_unit:
        check_finite(gallery, "the features of the gallery")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must be between 1 and the {len(gallery)} items of the gallery, got {k}")
    device = gallery.device if device is None else device
    queries, gallery = unit(queries).to(device), (gallery if is_unit else unit(gallery)).to(device)
    rows = max(MAX_SIMILARITIES // max(len(gallery), 1), 1)
    columns = max(MAX_SIMILARITIES // rows, k)
    scores, numbers = [], []
    for block in queries.split(rows):
        best = torch.full((len(block), 0), 0.0, device=device)
        items = torch.zeros((len(block), 0), dtype=torch.int64, device=device)
        for start in range(0, len(gallery), columns):
            similar = block @ gallery[start : start + columns].T
            number = torch.arange(start, start + similar.shape[1], device=device).expand_as(similar)
            similar, number = torch.cat([best, similar], dim=1), torch.cat([items, number], dim=1)
            best, order = _highest(similar, min(k, similar.shape[1]))
            items = number.gather(1, order)
        scores.append(best.cpu())
        numbers.append(items.cpu())
    return torch.cat(scores), torch.cat(numbers)


def _highest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` highest values of each row and their indices; ties are in order of the index."""
    kth = values.topk(k, dim=1).values[:, -1:]
    if bool(((values >= kth).sum(dim=1) > k).any()):
        # A tie at the k-th value: a stable sort keeps the first ones.
        highest, order = values.sort(dim=1, descending=True, stable=True)
        return highest[:, :k], order[:, :k]
    columns = values.topk(k, dim=1).indices.sort(dim=1).values
    highest, order = values.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return highest, columns.gather(1, order)


def unit(features: torch.Tensor) -> torch.Tensor:
    """Features ``(N, D)`` scaled to length 1, float32; zeros stay."""
    return torch.nn.functional.normalize(features.float(), dim=1)


def retrieval_metrics(
    gallery: torch.Tensor,
    gallery_labels: np.ndarray | torch.Tensor,
    queries: torch.Tensor,
    query_labels: np.ndarray | torch.Tensor,
    ranks: Sequence[int] = (1, 5, 10),
    device: str | torch.device | None = None,
) -> dict[str, float]:
    """1-NN accuracy, recall and mean average precision, in [0, 1].

    Args:
        gallery: Features ``(G, D)``.
        gallery_labels: Classes ``(G,)``.
        queries: Features ``(Q, D)``.
        query_labels: Classes ``(Q,)``.
        ranks: The k of recall; those above G are ignored.
        device: Device to compute on; the gallery's if None.

    Returns:
        `accuracy_1nn`; `recall@k`, the share of queries with an item of their class among the k most similar; `map`,
        the mean average precision of the whole ranking, with 0 for a query whose class is not in the gallery.

    Raises:
        ValueError: If there are no queries or the gallery is empty.
        NonFiniteError: If a feature is NaN or infinite.
    """
    check_finite(queries, "the features of the queries")
    check_finite(gallery, "the features of the gallery")
    if not len(gallery) or not len(queries):
        raise ValueError("retrieval needs at least one query and one gallery item")
    device = gallery.device if device is None else device
    items = unit(gallery).to(device)
    labels, query_labels = torch.as_tensor(gallery_labels).to(device), torch.as_tensor(query_labels)
    known = [rank for rank in ranks if rank <= len(gallery)]
    found: dict[int, float] = dict.fromkeys([1, *known], 0.0)
    precision = 0.0
    step = torch.arange(1, len(gallery) + 1, device=device, dtype=torch.float64)
    rows = max(MAX_SIMILARITIES // len(gallery), 1)
    for block, wanted in zip(unit(queries).split(rows), query_labels.split(rows), strict=True):
        order = (block.to(device) @ items.T).argsort(dim=1, descending=True, stable=True)
        right = labels[order] == wanted.to(device)[:, None]
        for rank in found:
            found[rank] += float(right[:, :rank].any(dim=1).sum())
        hits = right.double().cumsum(dim=1)
        count = right.sum(dim=1).clamp(min=1)
        precision += float(((hits / step * right).sum(dim=1) / count).sum())
    total = len(queries)
    metrics = {"accuracy_1nn": found[1] / total, **{f"recall@{rank}": found[rank] / total for rank in known}}
    return {**metrics, "map": precision / total}
