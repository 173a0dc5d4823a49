"""Pictures of joint layouts."""

from __future__ import annotations

import os

import numpy as np
import torch

from ..data.samples import load_samples
from ..files import new_file
from ..layouts import Layout, LayoutLike, convert_layout, get_layout
from ..normalization import upright_rotation
from .panel import INK, PERSON_COLORS, Panel, mixed, new_figure, write_text
from .scene import Scene


def draw_layout(layout: LayoutLike, path: str | os.PathLike) -> None:
    """Draw the joints and bones of a layout with the joints' numbers and names.

    The body of a sample clip raises an arm and is seen from behind, its left side paler.

    Args:
        layout: A layout or its name.
        path: PNG file to write.
    """
    layout = get_layout(layout)
    body = _sample_body(layout)
    scene = Scene(body[None, None], np.ones((1, 1, layout.num_joints), dtype=bool), layout)
    figure = new_figure(8, 5.4)
    axes = figure.add_axes((0.02, 0.02, 0.5, 0.96))
    Panel(axes, scene).show(0)
    for number, position in enumerate(scene.projected(body)[0]):
        axes.annotate(str(number), tuple(position), xytext=(4, 4), textcoords="offset points", fontsize=7, color=INK)
    rows = -(-layout.num_joints // 2)
    colors = {-1: mixed(PERSON_COLORS[0], 0.3), 0: INK, 1: PERSON_COLORS[0]}
    for number, name in enumerate(layout.joint_names):
        across, up = 0.56 + 0.22 * (number // rows), 0.93 - 0.9 * (number % rows) / rows
        write_text(figure, across, up, f"{number}  {name}", 8, color=colors[int(scene.sides[number])])
    with new_file(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def _sample_body(layout: Layout) -> np.ndarray:
    """Joints ``(V, 3)`` of a body that raises an arm, with its right side at +x."""
    samples = load_samples()
    sample = next(clip for clip in samples if samples.class_names[clip.label or 0] == "standing shoulder abduction")
    trunk = torch.from_numpy(convert_layout(sample.keypoints, sample.layout, "ntu25"))
    names = get_layout("ntu25").joint_names
    hands = [names.index(f"{side}_hand") for side in ("left", "right")]
    widest = int((trunk[:, 0, hands[0]] - trunk[:, 0, hands[1]])[:, [0, 2]].norm(dim=-1).argmax())
    shoulders = [names.index(f"{side}_shoulder") for side in ("left", "right")]
    turn = upright_rotation(trunk[None, widest, None, 0], shoulders)[0].numpy()
    body = convert_layout(sample.keypoints[widest], sample.layout, layout, coordinates="3d")[0]
    return (body @ turn.T).astype(np.float32)
