"""Pictures of recordings: stills side by side, and moving ones."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.samples import load_samples
from ..files import new_file, scratch_folder
from ..layouts import Layout, LayoutLike, convert_layout, get_layout
from ..normalization import upright_rotation
from ..sequence import SkeletonSequence
from .scene import CLASS_COLORS, NOTHING_COLOR, PERSON_COLORS, Scene, nice_step

_INK, _MUTED, _GRID, _SHADOW = "#1d1d20", "#66666c", "#cfcfc9", "#ebebe8"
_SMALL: dict[str, Any] = {"fontsize": 7.5, "color": _MUTED}
# Heights in inches: title, chart without its legend, a line of the legend, a band, a lane of it but the first.
_TITLE, _COURSE, _LEGEND, _BAND, _LANE = 0.5, 1.15, 0.17, 0.42, 0.19


@dataclass(frozen=True, eq=False)
class Chart:
    """Probabilities over time, as they are drawn below a recording.

    Attributes:
        lines: Name, colour and probability in each frame ``(T,)`` (NaN for none) of each class drawn.
        bands: Title, and name, colour, first frame and end of each segment, of each band.
        about: What is drawn, in words.
    """

    lines: Sequence[tuple[str, str, np.ndarray]] = ()
    bands: Sequence[tuple[str, Sequence[tuple[str, str, int, int]]]] = ()
    about: str = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """What a still or moving picture shows.

    Attributes:
        scene: The recording.
        title: Heading.
        chart: What is drawn below it.
        beside: Other recordings beside it, with their captions.
    """

    scene: Scene
    title: str
    chart: Chart = field(default_factory=Chart)
    beside: Sequence[tuple[Scene, str]] = ()


def draw_clip(
    clip: np.ndarray, layout: LayoutLike, title: str, path: str | os.PathLike, num_pictures: int = 8
) -> None:
    """Draw frames of a clip side by side; the body's left is paler.

    A normalised body has its right at +x, so it is seen from behind, as one sees oneself in a mirror.

    Args:
        clip: Keypoints ``(T, M, V, C)``, y up where C is 3 and y down where it is 2; zero joints are left out.
        layout: Joint layout.
        title: Heading.
        path: PNG file to write.
        num_pictures: Frames drawn, evenly spread over the clip.
    """
    coordinates = "3d" if clip.shape[-1] == 3 else "2d"
    scene = Scene.of(SkeletonSequence(clip, get_layout(layout), coordinates=coordinates, up="y"))
    draw_stills(Picture(replace(scene, azimuth=0.0, elevation=0.0, floor=None), title), path, num_pictures)


def draw_clips(
    clips: Sequence[tuple[np.ndarray, str]], layout: LayoutLike, path: str | os.PathLike, num_pictures: int = 8
) -> None:
    """Draw several clips as `draw_clip` does, one below the other.

    Args:
        clips: Keypoints ``(T, M, V, C)`` and heading of each.
        layout: Joint layout of all.
        path: PNG file to write.
        num_pictures: Frames drawn of each.
    """
    with scratch_folder() as folder, new_file(path) as partial:
        rows = []
        for number, (clip, title) in enumerate(clips):
            row = folder / f"{number}.png"
            draw_clip(clip, layout, title, row, num_pictures)
            rows.append(Image.open(row).convert("RGB"))
        sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
        top = 0
        for picture in rows:
            sheet.paste(picture, (0, top))
            top += picture.height
        sheet.save(partial, format="png")


def draw_layout(layout: LayoutLike, path: str | os.PathLike) -> None:
    """Draw the joints and bones of a layout with the joints' numbers and names, on a body of the clips that ship.

    The body raises an arm and is seen from behind, its left paler.

    Args:
        layout: A layout that this package knows.
        path: PNG file to write.
    """
    layout = get_layout(layout)
    body = _sample_body(layout)
    scene = Scene(body[None, None], np.ones((1, 1, layout.num_joints), dtype=bool), layout)
    figure = _new_figure(8, 5.4)
    axes = figure.add_axes((0.02, 0.02, 0.5, 0.96))
    _Panel(axes, scene).show(0)
    for number, place in enumerate(scene.projected(body)[0]):
        axes.annotate(str(number), tuple(place), xytext=(4, 4), textcoords="offset points", fontsize=7, color=_INK)
    rows = -(-layout.num_joints // 2)
    colors = {-1: _mixed(PERSON_COLORS[0], 0.3), 0: _INK, 1: PERSON_COLORS[0]}
    for number, name in enumerate(layout.joint_names):
        across, up = 0.56 + 0.22 * (number // rows), 0.93 - 0.9 * (number % rows) / rows
        _write(figure, across, up, f"{number}  {name}", 8, color=colors[int(scene.sides[number])])
    with new_file(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def _sample_body(layout: Layout) -> np.ndarray:
    """Joints ``(V, 3)`` of a body that raises an arm, with its right at +x."""
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


def draw_stills(picture: Picture, path: str | os.PathLike, num_pictures: int = 8) -> int:
    """Draw frames of a recording side by side, what is said about it below, and other recordings below that.

    Args:
        picture: What to draw.
        path: PNG file to write.
        num_pictures: Frames drawn, evenly spread; fewer of recordings that are wide.

    Returns:
        Frames drawn.
    """
    scene, chart = picture.scene, picture.chart
    num_pictures = num_pictures if scene.aspect > 1 else max(num_pictures // 2, 1)
    frames = np.unique(np.linspace(0, scene.num_frames - 1, num_pictures).round().astype(int))
    width = max(1.7 * num_pictures, 8.5)
    share = 1 / len(frames)
    tall = min(width * share * min(max(scene.aspect, 0.5), 2.2), 5.0) + 0.3
    below, beside = _chart_height(chart, width), 2.3 if picture.beside else 0.0
    figure = _new_figure(width, _TITLE + tall + below + beside)
    height = figure.get_figheight()
    _write(figure, 0.2 / width, 1 - 0.33 / height, picture.title, 12, weight="bold")
    low = beside + below
    for place, frame in enumerate(frames):
        box = (place * share, (low + 0.22) / height, share, (tall - 0.22) / height)
        _Panel(figure.add_axes(box), scene).show(frame)
        time = "" if scene.fps is None else f"{frame / scene.fps:.2f} s, "
        caption = f"{time}frame {frame + 1}"
        _write(figure, (place + 0.5) * share, (low + 0.1) / height, caption, 7.5, color=_MUTED, ha="center")
    if below:
        _draw_chart(figure, (0.5 / width, beside / height, 1 - 0.7 / width, below / height), chart, scene)
    for place, (other, caption) in enumerate(picture.beside):
        share = 1 / len(picture.beside)
        _Panel(figure.add_axes((place * share, 0.5 / height, share, (beside - 0.6) / height)), other).show(
            other.num_frames // 2
        )
        _write(figure, (place + 0.5) * share, 0.42 / height, caption, 7.5, ha="center", va="top")
    with new_file(path) as partial, _quietly():
        figure.savefig(partial, format="png", dpi=120)
    return len(frames)


def draw_courses(pictures: Sequence[Picture], path: str | os.PathLike) -> None:
    """Draw what is said about recordings over time, without the recordings themselves, one below the other.

    Args:
        pictures: Titles, and what is drawn of each.
        path: PNG file to write.
    """
    width = 12.0
    heights = [_TITLE + _chart_height(picture.chart, width) for picture in pictures]
    figure = _new_figure(width, sum(heights))
    low = total = figure.get_figheight()
    for picture, height in zip(pictures, heights, strict=True):
        _write(figure, 0.5 / width, (low - 0.33) / total, picture.title, 11, weight="bold")
        low -= height
        place = (0.5 / width, low / total, 1 - 0.7 / width, (height - _TITLE) / total)
        _draw_chart(figure, place, picture.chart, picture.scene)
    with new_file(path) as partial, _quietly():
        figure.savefig(partial, format="png", dpi=110)


def draw_scatter(
    places: np.ndarray,
    kinds: Sequence[tuple[str, str, str, np.ndarray]],
    title: str,
    about: str,
    path: str | os.PathLike,
) -> None:
    """Draw points with a legend of their kinds.

    Args:
        places: ``(N, 2)``.
        kinds: Name, colour, matplotlib's marker, and which points it is of ``(N,)``, of each kind.
        title: Heading.
        about: What is drawn, in words.
        path: PNG file to write.
    """
    # In columns of thirty names, at most three.
    shown, columns = kinds[:90], min(-(-len(kinds) // 30), 3)
    width, height = 8.0 + 2.6 * columns, 7.6
    figure = _new_figure(width, height)
    _write(figure, 0.3 / width, 1 - 0.36 / height, title, 12, weight="bold")
    axes = figure.add_axes((0.2 / width, 0.7 / height, 7.6 / width, 1 - 1.3 / height))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(_GRID)
    size = float(np.clip(6000 / max(len(places), 1), 12, 60))
    for name, color, marker, which in kinds:
        x, y = places[which].T
        look: dict[str, Any] = {"s": size, "alpha": 0.8, "linewidths": 0.4, "edgecolors": "white"}
        axes.scatter(x, y, color=color, marker=marker, label=f" {_plain(name, 36)}", **look)
    axes.set_aspect("equal", adjustable="datalim")
    handles = axes.collections[: len(shown)]
    legend = figure.legend(
        handles,
        [f" {_plain(name, 36)}" for name, *_ in shown],
        loc="upper left",
        bbox_to_anchor=(8.0 / width, 1 - 0.55 / height),
        ncols=columns,
        fontsize=7.5,
        frameon=False,
        markerscale=1.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    _write(figure, 0.3 / width, 0.1 / height, about.replace("; ", "\n"), 7.5, color=_MUTED, va="bottom")
    with new_file(path) as partial, _quietly():
        figure.savefig(partial, format="png", dpi=120)


def draw_animation(picture: Picture, path: str | os.PathLike, frames: np.ndarray, fps: float) -> None:
    """Draw a recording that moves.

    Args:
        picture: What to draw; three of the recordings beside it are, at their own pace and again and again.
        path: GIF file to write.
        frames: Numbers of the frames to draw.
        fps: Frames per second to play them at; GIF counts in hundredths of a second.
    """
    scene, chart = picture.scene, picture.chart
    beside = 1.8 if picture.beside else 0.0
    width, tall = 5.4 + beside, min(max(5.0 * scene.aspect, 3.0), 4.4)
    below = _chart_height(chart, width)
    figure = _new_figure(width, _TITLE + tall + below)
    height = figure.get_figheight()
    _write(figure, 0.15 / width, 1 - 0.32 / height, picture.title, 11, weight="bold")
    left = 1 - beside / width
    main = figure.add_axes((0, below / height, left, tall / height))
    panels = [(_Panel(main, scene, moving=True), 1.0)]
    for place, (other, caption) in enumerate(picture.beside[:3]):
        low, part = below + tall * (1 - (place + 1) / 3), tall / 3
        axes = figure.add_axes((left, (low + 0.42) / height, beside / width, (part - 0.46) / height))
        panels.append((_Panel(axes, other, moving=True), other.rate / scene.rate))
        _write(figure, (left + 1) / 2, (low + 0.38) / height, caption, 6.5, ha="center", va="top")
    cursors = []
    if below:
        cursors = _draw_chart(figure, (0.5 / width, 0, 1 - 0.7 / width, below / height), chart, scene)
    canvas: Any = figure.canvas
    images = []
    with _quietly():
        canvas.draw()
        still = canvas.copy_from_bbox(figure.bbox)
        for frame in frames:
            canvas.restore_region(still)
            for panel, pace in panels:
                panel.show(int(frame * pace) % panel.scene.num_frames)
                panel.draw()
            for cursor in cursors:
                cursor.set_xdata([frame, frame])
                cursor.axes.draw_artist(cursor)
            images.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    with new_file(path) as partial:
        _save_gif(images, partial, fps)


def _save_gif(images: Sequence[np.ndarray], path: Path, fps: float) -> None:
    from PIL import Image

    # One palette of the colours that are used, in eight steps to white: colours that are found anew in every frame
    # would flicker.
    used = np.array([_mixed(color, share / 7) for color in _colors_used() for share in range(7)])
    # What is nearly white would be taken for white.
    used = np.concatenate([used[used.min(1) < 0.95], np.ones((1, 3))])
    palette = Image.new("P", (1, 1))
    palette.putpalette((used * 255).round().astype(np.uint8).tobytes())
    first, *rest = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    duration = max(round(100 / fps), 1) * 10
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0)


def _colors_used() -> list[str]:
    return [*PERSON_COLORS, *CLASS_COLORS, NOTHING_COLOR, _INK, _MUTED, _GRID, _SHADOW]


class _Panel:
    """A recording in a picture: its floor, and a body that can be shown in any frame."""

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
        places, _ = scene.projected(inside[:: max(len(inside) // 50_000, 1)])
        middle, half = (places.max(0) + places.min(0)) / 2, (places.max(0) - places.min(0)) / 2
        half = np.maximum(half, max(0.1 * half.max(), 1e-6)) * 1.14
        size = axes.get_window_extent()
        # What is drawn fills the panel in one direction and lies in the middle of it in the other.
        scale = min(size.width / half[0], size.height / half[1])
        half = np.array([size.width, size.height]) / scale
        axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
        axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
        if scene.flat:
            edge: dict[str, Any] = {"fill": False, "edgecolor": _GRID, "linewidth": 0.6}
            axes.add_patch(Rectangle((0.015, 0.015), 0.97, 0.97, transform=axes.transAxes, **edge))
        if scene.floor is not None:
            lines, colors = _floor_lines(scene)
            axes.add_collection(LineCollection(list(lines), colors=colors, linewidths=0.6, zorder=0))
        # Thick enough to be seen in a small picture, and thin in a crowd.
        self.thick = min(max(scale * float((high - low)[1]) / 200, 1.1), 3.4)
        self.shadow = LineCollection([], colors=_SHADOW, capstyle="round", zorder=1, linewidths=self.thick * 1.9)
        self.bones = LineCollection([], capstyle="round", zorder=2, linewidths=self.thick * 1.3)
        self.joints = axes.scatter([], [], s=(self.thick * 1.8) ** 2, zorder=3, linewidths=0)
        for artist in (self.shadow, self.bones, self.joints):
            artist.set_animated(moving)
        axes.add_collection(self.shadow)
        axes.add_collection(self.bones)

    def show(self, frame: int) -> None:
        """Put the body where it is in a frame."""
        scene = self.scene
        points, seen = scene.points[frame], scene.seen[frame]
        places, depth = scene.projected(points)
        edges = np.array(scene.layout.edges, dtype=int).reshape(-1, 2)
        person, edge = np.nonzero(seen[:, edges].all(-1))
        order = np.argsort(depth[person[:, None], edges[edge]].mean(-1), kind="stable")
        person, (one, other) = person[order], edges[edge[order]].T
        sides = np.where(scene.sides[one] != 0, scene.sides[one], scene.sides[other])
        self.bones.set_segments(np.stack([places[person, one], places[person, other]], axis=1))
        self.bones.set_color(_shades(person, sides))
        if scene.floor is not None:
            below, _ = scene.projected(points * [1, 0, 1] + [0, scene.floor, 0])
            self.shadow.set_segments(np.stack([below[person, one], below[person, other]], axis=1))
        person, joint = np.nonzero(seen)
        self.joints.set_offsets(places[person, joint])
        self.joints.set_color(_shades(person, scene.sides[joint]))

    def draw(self) -> None:
        """Draw the body over what the figure shows already."""
        for artist in (self.shadow, self.bones, self.joints):
            self.axes.draw_artist(artist)


def _shades(persons: np.ndarray, sides: np.ndarray) -> list[tuple[float, ...]]:
    """Colours of persons' limbs; the left is paler."""
    pairs = zip(persons.tolist(), sides.tolist(), strict=True)
    return [_mixed(PERSON_COLORS[who % len(PERSON_COLORS)], 0.45 if side < 0 else 0.0) for who, side in pairs]


def _mixed(color: str, white: float) -> tuple[float, ...]:
    values = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return tuple(values + (1 - values) * white)


def _floor_lines(scene: Scene, pieces: int = 16) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Pieces of the floor's grid, projected ``(N, 2, 2)``, and their colours, paler the farther from the middle."""
    low, high = scene.box
    half, center = (high - low) / 2, (low + high) / 2
    step = nice_step(float(np.linalg.norm(half)) / 3)
    reach = int(np.ceil(max(float(np.hypot(half[0], half[2])) * 1.6, half[1]) / step))
    places = step * np.arange(-reach, reach + 1)
    along = np.linspace(-reach, reach, pieces + 1) * step
    one, other = np.meshgrid(places, along, indexing="ij")
    lines = []
    for x, z in ((one, other), (other, one)):
        x, z = (values + np.round(center[axis] / step) * step for axis, values in ((0, x), (2, z)))
        points = np.stack(np.broadcast_arrays(x, np.float64(scene.floor or 0), z), -1)
        lines.append(np.stack([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 2, 3))
    found = np.concatenate(lines)
    away = np.linalg.norm((found.mean(1) - center)[:, [0, 2]], axis=-1) / (reach * step)
    near = away < 1
    colors = [_mixed(_GRID, float(share)) for share in away[near] ** 1.5]
    return scene.projected(found[near])[0], colors


def _columns(width: float) -> int:
    """Names of classes beside each other in a legend."""
    return 2 if width < 6 else 3 if width < 8 else 6


def _chart_height(chart: Chart, width: float) -> float:
    if not chart.lines and not chart.bands:
        return 0.0
    lines = _COURSE + _LEGEND * -(-len(chart.lines) // _columns(width)) if chart.lines else 0.0
    bands = sum(_BAND + _LANE * (len(_lanes(segments)) - 1) for _, segments in chart.bands)
    return lines + bands + 0.5


def _lanes(segments: Sequence[tuple[str, str, int, int]]) -> list[list[tuple[str, str, int, int]]]:
    """Segments in order of their beginning, each in the first row in which it overlaps none; at least one row."""
    lanes: list[list[tuple[str, str, int, int]]] = [[]]
    for segment in segments:
        lane = next((lane for lane in lanes if not lane or lane[-1][3] <= segment[2]), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(segment)
    return lanes


def _draw_chart(figure: Any, place: tuple[float, float, float, float], chart: Chart, scene: Scene) -> list[Any]:
    """Draw lines and bands over time in a part of a figure; returns what marks the moment in each."""
    left, low, width, height = place
    total, top = figure.get_figheight(), low + height
    rows = []
    if chart.lines:
        columns = _columns(figure.get_figwidth())
        legend = _LEGEND * -(-len(chart.lines) // columns)
        rows.append(figure.add_axes((left, top - (legend + _COURSE) / total, width, (_COURSE - 0.15) / total)))
        _draw_lines(rows[-1], chart, columns)
        top -= (legend + _COURSE + 0.02) / total
    for title, segments in chart.bands:
        _write(figure, left, top - (_BAND - 0.25) / total, title, 6.5, color=_MUTED)
        for number, lane in enumerate(_lanes(segments)):
            top -= (_LANE if number else _BAND) / total
            rows.append(figure.add_axes((left, top + 0.04 / total, width, 0.17 / total)))
            _draw_band(rows[-1], lane, max(scene.num_frames - 1, 1))
    cursors = [_time_axis(axes, scene) for axes in rows]
    for axes in rows[:-1]:
        axes.set_xticks([])
    about = chart.about if scene.fps is not None else f"{chart.about}; in frames" if chart.about else "frames"
    _write(figure, left + width / 2, low + 0.14 / total, about, 6.5, color=_MUTED, ha="center")
    return cursors


def _draw_lines(axes: Any, chart: Chart, columns: int) -> None:
    for _, color, values in chart.lines:
        axes.plot(values, color=color, linewidth=1.4)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 1], ["0 %", "100 %"], **_SMALL)
    # A name with an underscore in front would be left out.
    names = [f" {_plain(name, 34)}" for name, _, _ in chart.lines]
    look: dict[str, Any] = {"fontsize": 6.5, "frameon": False, "borderaxespad": 0.2, "handlelength": 1.2}
    legend = axes.legend(axes.lines, names, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=columns, **look)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_band(axes: Any, segments: Sequence[tuple[str, str, int, int]], last: int) -> None:
    axes.set_facecolor("#f4f4f1")
    axes.set_yticks([])
    wide = axes.get_window_extent().width
    for name, color, start, end in segments:
        patch = axes.axvspan(start, max(end - 1, start + 0.5), color=_mixed(color, 0.5), linewidth=0)
        # A name that does not fit is cut at the segment's end, and left out where nothing of it could be read.
        if wide * (end - start) / last > 25:
            text = axes.text(start, 0.45, f" {_plain(name)}", va="center", fontsize=6.5, color=_INK, clip_on=True)
            text.set_parse_math(False)
            text.set_clip_path(patch)


def _time_axis(axes: Any, scene: Scene) -> Any:
    last = max(scene.num_frames - 1, 1)
    axes.set_xlim(0, last)
    rate, unit = (1.0, "") if scene.fps is None else (scene.fps, " s")
    step = nice_step(last / rate / 6)
    ticks = np.arange(0, last / rate + 1e-9, max(step, 1.0) if scene.fps is None else step)
    axes.set_xticks(ticks * rate, [f"{tick:g}{unit}" for tick in ticks], **_SMALL)
    axes.tick_params(length=2, color=_GRID, pad=2)
    for spine in axes.spines.values():
        spine.set_color(_GRID)
    return axes.axvline(0, color=_INK, linewidth=1, animated=True)


def _new_figure(width: float, height: float) -> Any:
    # Imported here: it takes half a second that only a picture is worth.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def _plain(text: str, most: int = 90) -> str:
    """Text on one line, without what a font cannot show."""
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _write(figure: Any, x: float, y: float, text: str, size: float, **options: Any) -> None:
    lines = "\n".join(_plain(line) for line in text.split("\n"))
    # A name may hold dollar signs, which are no formula.
    figure.text(x, y, lines, fontsize=size, **({"color": _INK} | options)).set_parse_math(False)


@contextmanager
def _quietly() -> Iterator[None]:
    """Do without the warning that a font lacks a letter of a name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
