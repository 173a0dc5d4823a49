"""Pictures of skeletons."""

from __future__ import annotations

import os

import numpy as np
import torch

from ..data.samples import load_samples
from ..files import new_file
from ..layouts import Layout, LayoutLike, convert_layout, get_layout
from ..normalization import upright_rotation

_LEFT, _RIGHT, _MIDDLE = "#d1495b", "#00798c", "#4a4e69"


def draw_clip(
    clip: np.ndarray, layout: LayoutLike, title: str, path: str | os.PathLike, num_pictures: int = 8
) -> None:
    """Draw frames of a clip side by side, the body's left red and its right blue.

    A normalised body has its right at +x, so it is seen from behind, as one sees oneself in a mirror.

    Args:
        clip: Keypoints ``(T, M, V, C)``, y up where C is 3 and y down where it is 2; zero joints are left out.
        layout: Joint layout.
        title: Heading.
        path: PNG file to write.
        num_pictures: Frames drawn, evenly spread over the clip.
    """
    # Imported here: it takes half a second that only a picture is worth.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = get_layout(layout)
    frames = np.unique(np.linspace(0, len(clip) - 1, num_pictures).round().astype(int))
    seen = clip[(clip != 0).any(-1)]
    low, high = seen[:, :2].min(0), seen[:, :2].max(0)
    margin = 0.05 * float((high - low).max())
    aspect = float((high - low)[1] + 2 * margin) / float((high - low)[0] + 2 * margin)
    width = 1.7
    figure = Figure(figsize=(width * len(frames), width * min(max(aspect, 0.5), 3) + 0.7))
    FigureCanvasAgg(figure)
    for place, frame in enumerate(frames):
        axes = figure.add_subplot(1, len(frames), place + 1)
        for person in clip[frame]:
            _draw_person(axes, person, layout)
        axes.set_xlim(low[0] - margin, high[0] + margin)
        vertical = (low[1] - margin, high[1] + margin)
        axes.set_ylim(vertical if clip.shape[-1] == 3 else vertical[::-1])
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel(f"{frame + 1}/{len(clip)}", fontsize=8, color="#666666")
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    with new_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def draw_layout(layout: LayoutLike, path: str | os.PathLike) -> None:
    """Draw the joints and bones of a layout with the joints' numbers and names, on a body of the clips that ship.

    The body raises an arm and is seen from behind, its left in red.

    Args:
        layout: A layout that this package knows.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = get_layout(layout)
    samples = load_samples()
    sample = next(clip for clip in samples if samples.class_names[clip.label or 0] == "standing shoulder abduction")
    trunk = torch.from_numpy(convert_layout(sample.keypoints, sample.layout, "ntu25"))
    names = get_layout("ntu25").joint_names
    hands = [names.index(f"{side}_hand") for side in ("left", "right")]
    widest = int((trunk[:, 0, hands[0]] - trunk[:, 0, hands[1]])[:, [0, 2]].norm(dim=-1).argmax())
    shoulders = [names.index(f"{side}_shoulder") for side in ("left", "right")]
    turn = upright_rotation(trunk[None, widest, None, 0], shoulders)[0].numpy()
    body = convert_layout(sample.keypoints[widest], sample.layout, layout, coordinates="3d")[0]
    body = body @ turn.T
    figure = Figure(figsize=(8, 5.4))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.5, 0.96))
    _draw_person(axes, body, layout)
    for number, joint in enumerate(body):
        axes.annotate(str(number), joint[:2], xytext=(3, 3), textcoords="offset points", fontsize=7, color="#22223b")
    axes.set_aspect("equal")
    axes.set_axis_off()
    rows = -(-layout.num_joints // 2)
    for number, name in enumerate(layout.joint_names):
        color = _LEFT if name.startswith("left_") else _RIGHT if name.startswith("right_") else _MIDDLE
        place = (0.56 + 0.22 * (number // rows), 0.93 - 0.9 * (number % rows) / rows)
        figure.text(*place, f"{number}  {name}", fontsize=8, color=color)
    with new_file(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def _draw_person(axes, person: np.ndarray, layout: Layout) -> None:
    present = (person != 0).any(-1)
    # A normalised body has its centre at exactly zero, which is no missing joint.
    if layout.center is not None and present.any():
        present[layout.center] = True
    for first, second in layout.edges:
        if present[first] and present[second]:
            names = layout.joint_names[first], layout.joint_names[second]
            color = _MIDDLE
            if any(name.startswith("left_") for name in names):
                color = _LEFT
            elif any(name.startswith("right_") for name in names):
                color = _RIGHT
            axes.plot(*person[[first, second], :2].T, color=color, linewidth=2, solid_capstyle="round")
    axes.plot(*person[present, :2].T, "o", color="#22223b", markersize=2)
