"""Self-contained pages: templates filled with base64-packed numbers."""

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
from ..inference.engine import Engine
from .scene import Scene

# Marks a missing joint, or a frame without a prediction.
NOT_SEEN = 65535


def shown_name(model: Any) -> str:
    """A model's name in a page or a picture, without the folders of this machine.

    Args:
        model: A checkpoint's name or folder, a model, an ensemble, or an `Engine`.
    """
    if isinstance(model, Engine):
        return shown_name(model.model)
    if hasattr(model, "models"):
        return ", ".join(map(shown_name, model.models))
    name = str(model if isinstance(model, str | os.PathLike) else getattr(model, "name_or_path", ""))
    from ..lookup import checkpoint_name

    name = checkpoint_name(name) or name
    return Path(name).resolve().name if Path(name).is_dir() and name else name or type(model).__name__


def check_output(output: str | os.PathLike, suffixes: Sequence[str], what: str) -> str:
    """The lower-case suffix of an output file.

    Args:
        output: The file.
        suffixes: The allowed suffixes.
        what: Beginning of the message, such as "a map is drawn".

    Raises:
        ValueError: If the file has another suffix.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in suffixes:
        raise ValueError(f"{output}: {what} as {', '.join(suffixes)}, so name the file accordingly")
    return suffix


def write_page(template: str, title: str, content: dict[str, Any], path: Path, **parts: str) -> None:
    """Write a self-contained page.

    Args:
        template: Name of a template in this folder, with ``{{title}}``, ``{{data}}``, and in place of what pages share
            ``{{page_style}}`` and ``{{scene_script}}``.
        title: Title.
        content: Data of the page's script.
        path: File to write.
        **parts: Text in place of other names in the template, as it is.
    """
    # Escaped, so that no name can end the script element.
    text = re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(content, allow_nan=False))
    title = html.escape(title.encode("utf-8", "replace").decode("utf-8"))
    shared = {"page_style": shared_file("page.css"), "scene_script": shared_file("scene.js")}
    filled = {"title": title, "data": text, **shared, **parts}
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], shared_file(template))
    with new_file(path) as partial:
        partial.write_text(page, "utf-8")


def shared_file(name: str) -> str:
    """Text of a file in this folder."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def packed_base64(values: np.ndarray, dtype: str = "<u2") -> str:
    """Encode numbers for a page's script."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def packed_scene(scene: Scene, frames: np.ndarray, every: int) -> dict[str, Any]:
    """Encode a scene for a page: coordinates as 16-bit multiples of a step, `NOT_SEEN` for missing joints."""
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
