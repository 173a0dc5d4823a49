"""Hits of a search as one page: the query and the moments like it, moving side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..search.hits import Hit
from ..sequence import SkeletonSequence
from .page import check_output, packed_scene, write_page
from .panel import PERSON_COLORS
from .scene import Scene, frames_to_draw

SEARCH_SUFFIXES = (".html",)
# Frames of a skeleton and their highest rate, so that a page of fifty hits has only a few MB.
_MAX_FRAMES, _MAX_FPS = 120, 20.0


def draw_hits(
    query: SkeletonSequence,
    hits: Sequence[Hit],
    frames: Sequence[SkeletonSequence],
    output: str | os.PathLike,
    about: str = "",
) -> None:
    """Write a self-contained page of a query and its hits.

    Args:
        query: The query, as the model sees it.
        hits: The hits, the best first.
        frames: The frames of each hit; see `MotionIndex.read`.
        output: File to write, ``.html``.
        about: How was searched, in words.

    Raises:
        ValueError: If the file has another suffix.
        OutputError: If it cannot be written.
    """
    check_output(output, SEARCH_SUFFIXES, "hits are drawn")
    figures = [{"name": query.name or "query", "about": "query", "scene": _packed(query)}]
    for hit, sequence in zip(hits, frames, strict=True):
        figures.append({"name": hit.recording, "about": describe(hit), "scene": _packed(sequence)})
    title = f"Like {query.name or 'the query'}"
    content: dict[str, Any] = {"name": title, "about": about, "figures": figures, "colors": list(PERSON_COLORS)}
    write_page("search_template.html", title, content, Path(output))


def describe(hit: Hit) -> str:
    """Label, time and score of a hit, in words."""
    if hit.fps is None:
        time = f"frames {hit.start} to {hit.end}"
    else:
        time = f"{hit.start / hit.fps:.1f} to {hit.end / hit.fps:.1f} s"
    return ", ".join([*([hit.label] if hit.label else []), time, f"similarity {hit.score:.3f}"])


def _packed(sequence: SkeletonSequence) -> dict[str, Any]:
    scene = Scene.of(sequence)
    frames, rate = frames_to_draw(scene.num_frames, scene.rate, _MAX_FRAMES, _MAX_FPS)
    return packed_scene(scene.subsampled(frames, rate), np.arange(len(frames)), 1)
