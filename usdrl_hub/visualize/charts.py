"""Charts: class probabilities and segments over time, and scatter plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import new_file
from .panel import GRID, INK, MUTED, SMALL, mixed, new_figure, one_line, without_glyph_warnings, write_text
from .scene import Scene, nice_step

# Heights in inches: plot without legend, a line of the legend, a band with one lane, a further lane.
_PLOT, _LEGEND, _BAND, _LANE = 1.15, 0.17, 0.42, 0.19


@dataclass(frozen=True, eq=False)
class Chart:
    """Probabilities and segments over time.

    Attributes:
        lines: For each class its name, colour, and probabilities ``(T,)``, NaN for none.
        bands: For each band its title, and the name, colour, first frame and end (exclusive) of each segment.
        about: Caption.
    """

    lines: Sequence[tuple[str, str, np.ndarray]] = ()
    bands: Sequence[tuple[str, Sequence[tuple[str, str, int, int]]]] = ()
    about: str = ""


def draw_scatter(
    positions: np.ndarray,
    classes: Sequence[tuple[str, str, str, np.ndarray]],
    title: str,
    about: str,
    path: str | os.PathLike,
) -> None:
    """Draw points with a legend of their classes.

    Args:
        positions: ``(N, 2)``.
        classes: For each class its name, colour, matplotlib marker, and the mask ``(N,)`` of its points.
        title: Heading.
        about: Caption.
        path: PNG file to write.
    """
    # The legend has up to three columns of thirty names.
    shown, columns = classes[:90], min(-(-len(classes) // 30), 3)
    width, height = 8.0 + 2.6 * columns, 7.6
    figure = new_figure(width, height)
    write_text(figure, 0.3 / width, 1 - 0.36 / height, title, 12, weight="bold")
    axes = figure.add_axes((0.2 / width, 0.7 / height, 7.6 / width, 1 - 1.3 / height))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(GRID)
    size = float(np.clip(6000 / max(len(positions), 1), 12, 60))
    for name, color, marker, which in classes:
        x, y = positions[which].T
        look: dict[str, Any] = {"s": size, "alpha": 0.8, "linewidths": 0.4, "edgecolors": "white"}
        axes.scatter(x, y, color=color, marker=marker, label=f" {one_line(name, 36)}", **look)
    axes.set_aspect("equal", adjustable="datalim")
    handles = axes.collections[: len(shown)]
    legend = figure.legend(
        handles,
        [f" {one_line(name, 36)}" for name, *_ in shown],
        loc="upper left",
        bbox_to_anchor=(8.0 / width, 1 - 0.55 / height),
        ncols=columns,
        fontsize=7.5,
        frameon=False,
        markerscale=1.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    write_text(figure, 0.3 / width, 0.1 / height, about.replace("; ", "\n"), 7.5, color=MUTED, va="bottom")
    with new_file(path) as partial, without_glyph_warnings():
        figure.savefig(partial, format="png", dpi=120)


def _columns(width: float) -> int:
    """Columns of a legend in a figure `width` inches wide."""
    return 2 if width < 6 else 3 if width < 8 else 6


def chart_height(chart: Chart, width: float) -> float:
    """Height of a chart in inches, 0 for an empty one, in a figure `width` inches wide."""
    if not chart.lines and not chart.bands:
        return 0.0
    lines = _PLOT + _LEGEND * -(-len(chart.lines) // _columns(width)) if chart.lines else 0.0
    bands = sum(_BAND + _LANE * (len(lanes(segments)) - 1) for _, segments in chart.bands)
    return lines + bands + 0.5


def lanes(segments: Sequence[tuple[str, str, int, int]]) -> list[list[tuple[str, str, int, int]]]:
    """Assign segments, in order of their start, to the first lane without overlap; there is at least one lane."""
    lanes: list[list[tuple[str, str, int, int]]] = [[]]
    for segment in segments:
        lane = next((lane for lane in lanes if not lane or lane[-1][3] <= segment[2]), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(segment)
    return lanes


def draw_chart(figure: Any, box: tuple[float, float, float, float], chart: Chart, scene: Scene) -> list[Any]:
    """Draw lines and bands over time in a part of a figure (left, bottom, width, height); returns their cursors."""
    left, low, width, height = box
    total, top = figure.get_figheight(), low + height
    rows = []
    if chart.lines:
        columns = _columns(figure.get_figwidth())
        legend = _LEGEND * -(-len(chart.lines) // columns)
        rows.append(figure.add_axes((left, top - (legend + _PLOT) / total, width, (_PLOT - 0.15) / total)))
        _draw_lines(rows[-1], chart, columns)
        top -= (legend + _PLOT + 0.02) / total
    for title, segments in chart.bands:
        write_text(figure, left, top - (_BAND - 0.25) / total, title, 6.5, color=MUTED)
        for number, lane in enumerate(lanes(segments)):
            top -= (_LANE if number else _BAND) / total
            rows.append(figure.add_axes((left, top + 0.04 / total, width, 0.17 / total)))
            _draw_band(rows[-1], lane, max(scene.num_frames - 1, 1))
    cursors = [_time_axis(axes, scene) for axes in rows]
    for axes in rows[:-1]:
        axes.set_xticks([])
    about = chart.about if scene.fps is not None else f"{chart.about}; in frames" if chart.about else "frames"
    write_text(figure, left + width / 2, low + 0.14 / total, about, 6.5, color=MUTED, ha="center")
    return cursors


def _draw_lines(axes: Any, chart: Chart, columns: int) -> None:
    for _, color, values in chart.lines:
        axes.plot(values, color=color, linewidth=1.4)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 1], ["0 %", "100 %"], **SMALL)
    # Matplotlib leaves out names that begin with an underscore.
    names = [f" {one_line(name, 34)}" for name, _, _ in chart.lines]
    look: dict[str, Any] = {"fontsize": 6.5, "frameon": False, "borderaxespad": 0.2, "handlelength": 1.2}
    legend = axes.legend(axes.lines, names, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=columns, **look)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_band(axes: Any, segments: Sequence[tuple[str, str, int, int]], last: int) -> None:
    axes.set_facecolor("#f4f4f1")
    axes.set_yticks([])
    wide = axes.get_window_extent().width
    for name, color, start, end in segments:
        patch = axes.axvspan(start, max(end - 1, start + 0.5), color=mixed(color, 0.5), linewidth=0)
        # A long name is cut to what fits, and left out of a narrow segment.
        room = wide * (end - start) / last
        if room > 25:
            text = axes.text(start, 0.45, "", va="center", fontsize=6.5, color=INK, clip_on=True)
            text.set_parse_math(False)
            text.set_clip_path(patch)
            with without_glyph_warnings():
                for letters in range(max(min(len(name), 90), 2), 1, -1):
                    text.set_text(f" {one_line(name, letters)}")
                    if text.get_window_extent().width <= room:
                        break


def _time_axis(axes: Any, scene: Scene) -> Any:
    last = max(scene.num_frames - 1, 1)
    axes.set_xlim(0, last)
    rate, unit = (1.0, "") if scene.fps is None else (scene.fps, " s")
    step = nice_step(last / rate / 6)
    ticks = np.arange(0, last / rate + 1e-9, max(step, 1.0) if scene.fps is None else step)
    axes.set_xticks(ticks * rate, [f"{tick:g}{unit}" for tick in ticks], **SMALL)
    axes.tick_params(length=2, color=GRID, pad=2)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    return axes.axvline(0, color=INK, linewidth=1, animated=True)
