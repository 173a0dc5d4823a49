"""Colours, fonts and figures, and the panel that draws skeletons in one frame."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .scene import Scene

# Palettes for colour-blind readers (Okabe and Ito 2008; Tol's "bright" scheme).
PERSON_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
CLASS_COLORS = ("#4477aa", "#ee6677", "#228833", "#b59a00", "#2fa8cc", "#aa3377", "#775533", "#555577")
BACKGROUND_COLOR = "#999999"
INK, MUTED, GRID, SHADOW = "#1d1d20", "#66666c", "#cfcfc9", "#ebebe8"
SMALL: dict[str, Any] = {"fontsize": 7.5, "color": MUTED}
# Height in inches of a title.
TITLE_HEIGHT = 0.5


class Panel:
    """Matplotlib axes with the floor and the skeletons of a recording in one frame."""

    def __init__(self, axes: Any, scene: Scene, moving: bool = False):
        from matplotlib.collections import LineCollection
        from matplotlib.patches import Rectangle

        self.shadow: Any
        self.bones: Any
        self.axes, self.scene = axes, scene
        axes.set_axis_off()
        low, high = scene.box
        found = scene.points[scene.seen]
        inside = found[((found >= low) & (found <= high)).all(-1)]
        shown = inside[:: max(len(inside) // 50_000, 1)] if scene.size is None else scene.corners
        points, _ = scene.projected(shown)
        middle, half = (points.max(0) + points.min(0)) / 2, (points.max(0) - points.min(0)) / 2
        half = np.maximum(half, max(0.1 * half.max(), 1e-6)) * 1.14
        size = axes.get_window_extent()
        # Fit the panel in one direction and centre in the other.
        scale = min(size.width / half[0], size.height / half[1])
        half = np.array([size.width, size.height]) / scale
        axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
        axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
        if scene.flat:
            edge: dict[str, Any] = {"fill": False, "edgecolor": GRID, "linewidth": 0.6}
            axes.add_patch(Rectangle((0.015, 0.015), 0.97, 0.97, transform=axes.transAxes, **edge))
        if scene.floor is not None:
            lines, colors = _floor_lines(scene)
            axes.add_collection(LineCollection(list(lines), colors=colors, linewidths=0.6, zorder=0))
        # Line width in proportion to the scene, within limits for small pictures.
        self.thick = min(max(scale * float((high - low)[1]) / 200, 1.1), 3.4)
        self.shadow = LineCollection([], colors=SHADOW, capstyle="round", zorder=1, linewidths=self.thick * 1.9)
        self.bones = LineCollection([], capstyle="round", zorder=2, linewidths=self.thick * 1.3)
        self.joints = axes.scatter([], [], s=(self.thick * 1.8) ** 2, zorder=3, linewidths=0)
        for artist in (self.shadow, self.bones, self.joints):
            artist.set_animated(moving)
        axes.add_collection(self.shadow)
        axes.add_collection(self.bones)

    def show(self, frame: int) -> None:
        """Move the skeletons to their positions in a frame."""
        scene = self.scene
        points, seen = scene.points[frame], scene.seen[frame]
        projected, depth = scene.projected(points)
        edges = np.array(scene.layout.edges, dtype=int).reshape(-1, 2)
        person, edge = np.nonzero(seen[:, edges].all(-1))
        order = np.argsort(depth[person[:, None], edges[edge]].mean(-1), kind="stable")
        person, (one, other) = person[order], edges[edge[order]].T
        sides = np.where(scene.sides[one] != 0, scene.sides[one], scene.sides[other])
        self.bones.set_segments(np.stack([projected[person, one], projected[person, other]], axis=1))
        self.bones.set_color(_shades(person, sides))
        if scene.floor is not None:
            below, _ = scene.projected(points * [1, 0, 1] + [0, scene.floor, 0])
            self.shadow.set_segments(np.stack([below[person, one], below[person, other]], axis=1))
        person, joint = np.nonzero(seen)
        self.joints.set_offsets(projected[person, joint])
        self.joints.set_color(_shades(person, scene.sides[joint]))

    def draw(self) -> None:
        """Draw the skeletons onto the figure's canvas."""
        for artist in (self.shadow, self.bones, self.joints):
            self.axes.draw_artist(artist)


def _shades(persons: np.ndarray, sides: np.ndarray) -> list[tuple[float, ...]]:
    """Colours of limbs by person; the left side is paler."""
    pairs = zip(persons.tolist(), sides.tolist(), strict=True)
    return [mixed(PERSON_COLORS[who % len(PERSON_COLORS)], 0.45 if side < 0 else 0.0) for who, side in pairs]


def mixed(color: str, white: float) -> tuple[float, ...]:
    """RGB of a colour ``#rrggbb`` mixed with a share of white, all in [0, 1]."""
    values = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return tuple(values + (1 - values) * white)


def _floor_lines(scene: Scene, segments: int = 16) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Segments of the floor's grid, projected ``(N, 2, 2)``, and their colours, paler away from the centre."""
    low, high = scene.box
    half, center = (high - low) / 2, (low + high) / 2
    step = scene.grid_step
    reach = int(np.ceil(max(float(np.hypot(half[0], half[2])) * 1.6, half[1]) / step))
    along = np.linspace(-reach, reach, segments + 1) * step
    one, other = np.meshgrid(step * np.arange(-reach, reach + 1), along, indexing="ij")
    lines = []
    for x, z in ((one, other), (other, one)):
        x, z = (values + np.round(center[axis] / step) * step for axis, values in ((0, x), (2, z)))
        points = np.stack(np.broadcast_arrays(x, np.float64(scene.floor or 0), z), -1)
        lines.append(np.stack([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 2, 3))
    found = np.concatenate(lines)
    away = np.linalg.norm((found.mean(1) - center)[:, [0, 2]], axis=-1) / (reach * step)
    near = away < 1
    colors = [mixed(GRID, float(share)) for share in away[near] ** 1.5]
    return scene.projected(found[near])[0], colors


def colors_used() -> list[str]:
    """All colours of pictures except white."""
    return [*PERSON_COLORS, *CLASS_COLORS, BACKGROUND_COLOR, INK, MUTED, GRID, SHADOW]


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of a size in inches."""
    # Imported here: matplotlib takes half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def one_line(text: str, max_length: int = 90) -> str:
    """Text on one line, without control characters, cut to `max_length` characters."""
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def write_text(figure: Any, x: float, y: float, text: str, size: float, **options: Any) -> None:
    """Write literal text at a position given as shares of the figure's width and height."""
    lines = "\n".join(one_line(line) for line in text.split("\n"))
    # Dollar signs in names do not begin a formula.
    figure.text(x, y, lines, fontsize=size, **({"color": INK} | options)).set_parse_math(False)


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Suppress matplotlib's warning of characters that the font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
