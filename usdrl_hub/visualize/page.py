"""Pages that need no other file: templates filled with packed numbers."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..files import new_file
from .scene import Scene

# Stands for a joint that was not seen, or a frame about which nothing is said.
NOT_SEEN = 65535


def shown_name(model: Any, name: str | None = None) -> str:
    """What a model is called in a page, which is for others, whom the folders of this machine do not concern."""
    if name is None:
        name = str(model) if isinstance(model, str | os.PathLike) else type(model).__name__
    return Path(name).resolve().name if name and Path(name).is_dir() else name


def check_output(output: str | os.PathLike, suffixes: Sequence[str], what: str) -> str:
    """The ending of the file to write.

    Args:
        output: The file.
        suffixes: Endings that it may have.
        what: What is written, for the error.

    Raises:
        ValueError: If it has none of them.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in suffixes:
        raise ValueError(f"{output}: {what} as {', '.join(suffixes)}, so name the file accordingly")
    return suffix


def write_page(template: str, title: str, content: dict[str, Any], path: Path) -> None:
    """Write a page that needs no other file.

    Args:
        template: Name of the template in this folder, with places for title and content.
        title: Title.
        content: What the page's script reads, as JSON.
        path: File to write.
    """
    # What could end the script element is written as an escape, so that no name can.
    text = re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(content, allow_nan=False))
    title = html.escape(title.encode("utf-8", "replace").decode("utf-8"))
    empty = resources.files(__package__).joinpath(template).read_text("utf-8")
    page = re.sub(r"\{\{(title|data)\}\}", lambda found: title if found[1] == "title" else text, empty)
    with new_file(path) as partial:
        partial.write_text(page, "utf-8")


def packed_base64(values: np.ndarray, dtype: str = "<u2") -> str:
    """Numbers as a page's script unpacks them."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def packed_scene(scene: Scene, frames: np.ndarray, every: int) -> dict[str, Any]:
    """A scene as the page reads it: coordinates as 16-bit multiples of a step, `NOT_SEEN` for what was not seen."""
    points, seen = scene.points[frames].astype(np.float64), scene.seen[frames]
    channels = 2 if scene.flat else 3
    found = scene.points[scene.seen]
    low, high = found.min(0).astype(np.float64), found.max(0).astype(np.float64)
    step = float((high - low).max()) / (NOT_SEEN - 1) or 1.0
    steps = np.where(seen[..., None], ((points - low) / step).round(), NOT_SEEN)[..., :channels]
    image = None
    if scene.flat and scene.image_shape is not None:
        image = [0.0, -float(scene.image_shape[0]), float(scene.image_shape[1]), 0.0]
    return {
        "frames": len(frames),
        "total": scene.num_frames,
        "every": every,
        "persons": points.shape[1],
        "people": list(scene.people),
        "joints": list(scene.layout.joint_names),
        "edges": [list(pair) for pair in scene.layout.edges],
        "sides": scene.sides.tolist(),
        "channels": channels,
        "low": low.tolist(),
        "step": step,
        "data": packed_base64(steps),
        "fps": scene.rate / every,
        "azimuth": scene.azimuth,
        "elevation": scene.elevation,
        "floor": scene.floor,
        "box": [values.tolist() for values in scene.box],
        "unit": "px" if scene.flat else "m",
        "image": image,
    }
