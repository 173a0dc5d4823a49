"""Pictures of skeletons: how a recording is turned to be drawn, stills side by side, and moving pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..files import new_file
from ..layouts import TO_Y_UP, Layout, LayoutLike, get_layout, make_joint
from ..sequence import METRES, SkeletonSequence

# Colours that people with colour-blindness tell apart, too (Okabe and Ito 2008; Tol's "bright" scheme).
PERSON_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
CLASS_COLORS = ("#4477aa", "#ee6677", "#228833", "#b59a00", "#2fa8cc", "#aa3377", "#775533", "#555577")
NOTHING_COLOR = "#999999"
_INK, _MUTED, _GRID = "#1d1d20", "#66666c", "#d5d5cf"
# Where no frame rate is known, motion is played as most sensors record it.
DEFAULT_FPS = 30.0
# Seen from a little beside and above the body's front, in radians.
_ASIDE, _ABOVE = 0.45, 0.16


@dataclass(frozen=True, eq=False)
class Scene:
    """A recording as it is drawn.

    Attributes:
        points: ``(T, M, V, 3)`` float32, right-handed, y up, 3D in metres; of 2D keypoints z is 0 and y is negative.
        seen: Which joints were seen ``(T, M, V)``.
        layout: Joint layout.
        flat: Whether the keypoints are 2D.
        fps: Frames per second.
        people: Number of each person in the recording ``(M,)``, from 1; those never seen are left out.
        azimuth: Direction it is looked at from, about the vertical, in radians from +z to +x.
        elevation: The same above the floor.
        floor: Height of the floor, or None where none is drawn.
        image_shape: Height and width of the picture that 2D keypoints lie in, or None.
    """

    points: np.ndarray
    seen: np.ndarray
    layout: Layout
    flat: bool = False
    fps: float = DEFAULT_FPS
    people: Sequence[int] = ()
    azimuth: float = 0.0
    elevation: float = 0.0
    floor: float | None = None
    image_shape: tuple[float, float] | None = None

    @classmethod
    def of(cls, sequence: SkeletonSequence) -> Scene:
        """Turn a recording upright and find where to look at it from.

        Args:
            sequence: The recording, of any layout, unit, handedness and up axis.
        """
        layout = get_layout(sequence.layout)
        seen = _seen(sequence, layout)
        people = np.flatnonzero(seen.any((0, 2)))
        points = _upright(sequence, layout)[:, people]
        seen = seen[:, people]
        scene = cls(points, seen, layout, sequence.coordinates != "3d", sequence.fps or DEFAULT_FPS)
        scene = replace(scene, people=[int(person) + 1 for person in people], image_shape=sequence.image_shape)
        if scene.flat:
            return scene
        lowest = np.where(seen, points[..., 1], np.inf).min((1, 2))
        floor = float(np.percentile(lowest[np.isfinite(lowest)], 10))
        return replace(scene, azimuth=_azimuth(points, seen, layout), elevation=_ABOVE, floor=floor)

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.points)

    @property
    def sides(self) -> np.ndarray:
        """Side of each joint ``(V,)``: -1 left, 1 right, 0 neither."""
        names = self.layout.joint_names
        other = np.array(self.layout.mirrored)
        left = np.array([name.startswith(("left_", "L", "l")) or name.endswith("_L") for name in names])
        return np.where(other == np.arange(len(names)), 0, np.where(left, -1, 1))

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates ``(3,)`` of nearly all joints; a few that jump far away do not count."""
        found = self.points[self.seen]
        found = found[:: max(len(found) // 200_000, 1)]
        low, high = np.percentile(found, [0.5, 99.5], axis=0)
        # What half a percent leaves out of an ordinary recording belongs to it.
        margin = 0.3 * float((high - low).max())
        near = found[((found >= low - margin) & (found <= high + margin)).all(-1)]
        if self.floor is not None:
            low[1] = min(low[1], self.floor)
        return np.minimum(low, near.min(0)), np.maximum(high, near.max(0))

    def thinned(self, frames: np.ndarray, fps: float) -> Scene:
        """The frames given only, at another rate."""
        return replace(self, points=self.points[frames], seen=self.seen[frames], fps=fps)

    def projected(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places on the picture ``(..., 2)`` and nearness ``(...)`` of points ``(..., 3)``, seen in perspective.

        The page that shows recordings in a browser does the same.
        """
        low, high = self.box
        x, y, z = np.moveaxis(points - (low + high) / 2, -1, 0)
        cosine, sine = np.cos(self.azimuth), np.sin(self.azimuth)
        across, towards = x * cosine - z * sine, x * sine + z * cosine
        height = y * np.cos(self.elevation) - towards * np.sin(self.elevation)
        depth = y * np.sin(self.elevation) + towards * np.cos(self.elevation)
        if self.flat or self.floor is None:
            return np.stack([across, height], -1), depth
        near = 1 / np.maximum(1 - depth / max(2.5 * float(np.linalg.norm(high - low)), 1e-9), 0.15)
        return np.stack([across * near, height * near], -1), depth


def _seen(sequence: SkeletonSequence, layout: Layout) -> np.ndarray:
    keypoints = sequence.keypoints
    seen = (keypoints != 0).any(-1)
    if sequence.coordinates == "2d+score":
        seen &= keypoints[..., 2] > 0
    if layout.center is not None and not seen[..., layout.center].any():
        # A body that was centred on this joint has it at exactly zero, which is no missing joint.
        seen[..., layout.center] = seen.any(-1)
    return seen


def _upright(sequence: SkeletonSequence, layout: Layout) -> np.ndarray:
    """Keypoints ``(T, M, V, 3)``, y up."""
    if sequence.coordinates != "3d":
        flat = sequence.keypoints[..., :2] * np.array([1, -1], np.float32)
        return np.concatenate([flat, np.zeros_like(flat[..., :1])], axis=-1)
    axes, signs = TO_Y_UP[sequence.up or layout.up]
    turned = sequence.keypoints[..., axes] * np.array(signs, np.float32) * np.float32(METRES[sequence.units])
    return turned * np.array([-1, 1, 1], np.float32) if sequence.mirrored else turned


def _azimuth(points: np.ndarray, seen: np.ndarray, layout: Layout) -> float:
    """From where a recording is seen best: from the front of one person, from beside what happens between several."""
    step = max(len(points) // 500, 1)
    points, seen = points[::step].astype(np.float64), seen[::step]
    ahead = np.zeros(3)
    for left, right in (("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")):
        weights = [make_joint(name, layout) for name in (left, right)]
        if weights[0] is not None and weights[1] is not None:
            whole = seen[..., weights[0] != 0].all(-1) & seen[..., weights[1] != 0].all(-1)
            across = np.tensordot(points, weights[1] - weights[0], axes=(2, 0))[whole].sum(0)
            ahead += np.cross([0.0, 1.0, 0.0], across)
    front = float(np.arctan2(ahead[0], ahead[2])) if np.linalg.norm(ahead) > 0 else 0.0
    present = np.argsort(-seen.any(-1).sum(0), kind="stable")[:2]
    if len(present) < 2:
        return front + _ASIDE
    middles = [np.median(points[:, person][seen[:, person]], axis=0) for person in present]
    line = middles[1] - middles[0]
    side = float(np.arctan2(-line[2], line[0]))
    return side if np.cos(side - front) >= 0 else side + np.pi


def thinning(num_frames: int, fps: float, most: int, fastest: float) -> tuple[np.ndarray, float]:
    """Frames to draw of a recording, so that it plays at its own speed where that is possible.

    Args:
        num_frames: Frames of the recording.
        fps: Frames per second of it.
        most: Most frames to draw.
        fastest: Most frames per second to draw.

    Returns:
        The frames' numbers, evenly spread, and frames per second to play them at: lower than `fastest` by a whole
        divisor, down to a fifth, where there would be too many; beyond that the recording is played faster than it
        was.
    """
    length = num_frames / fps
    for divisor in (1, 2, 3, 4, 5):
        rate = min(fastest / divisor, fps)
        count = max(int(length * rate), 1)
        if count <= most:
            return np.minimum((np.arange(count) * fps / rate).round().astype(int), num_frames - 1), rate
    return np.linspace(0, num_frames - 1, most).round().astype(int), rate


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
    layout = get_layout(layout)
    coordinates = "3d" if clip.shape[-1] == 3 else "2d"
    scene = Scene.of(SkeletonSequence(clip, layout, coordinates=coordinates, up="y"))
    draw_stills(Picture(replace(scene, azimuth=0.0, elevation=0.0, floor=None), title), path, num_pictures)


def draw_stills(picture: Picture, path: str | os.PathLike, num_pictures: int = 8) -> int:
    """Draw frames of a recording side by side, what is said about it below, and other recordings below that.

    Args:
        picture: What to draw.
        path: PNG file to write.
        num_pictures: Frames drawn, evenly spread; fewer of recordings that are wide.

    Returns:
        Frames drawn.
    """
    scene = picture.scene
    frames = np.unique(np.linspace(0, scene.num_frames - 1, num_pictures).round().astype(int))
    aspect = _aspect(scene)
    # Wide recordings are drawn in fewer, larger pictures.
    frames = (
        frames if aspect > 0.6 or len(frames) < 5 else frames[np.linspace(0, len(frames) - 1, 5).round().astype(int)]
    )
    width = max(1.7 * len(frames), 8.5)
    tall = width / len(frames) * min(max(aspect, 0.5), 2.2) + 0.25
    beside, below = (1.9 if picture.beside else 0.0), _chart_height(picture.chart)
    figure = _new_figure(width, 0.5 + tall + below + beside)
    total = figure.get_figheight()
    rows = [top for top in (tall, below, beside)]
    starts = total - 0.5 - np.cumsum(rows)
    _write(figure, 0.15 / width, 1 - 0.3 / total, picture.title, 12, weight="semibold")
    for place, frame in enumerate(frames):
        axes = figure.add_axes((place / len(frames), starts[0] / total, 1 / len(frames), tall / total))
        panel = _Panel(axes, scene)
        panel.show(frame)
        axes.text(0.5, 0.01, f"{frame + 1} / {scene.num_frames}", transform=axes.transAxes, ha="center", **_SMALL)
    if below:
        _draw_chart(figure, (0.5 / width, starts[1] / total, 1 - 0.7 / width, below / total), picture.chart, scene)
    for place, (other, caption) in enumerate(picture.beside):
        share = 1 / len(picture.beside)
        axes = figure.add_axes((place * share, (starts[2] + 0.5) / total, share, (beside - 0.55) / total))
        _Panel(axes, other).show(other.num_frames // 2)
        _write(figure, (place + 0.5) * share, (starts[2] + 0.42) / total, caption, 7.5, ha="center", va="top")
    with new_file(path) as partial, _quietly():
        figure.savefig(partial, format="png", dpi=120)
    return len(frames)


def draw_animation(picture: Picture, path: str | os.PathLike, frames: np.ndarray, fps: float) -> None:
    """Draw a recording that moves.

    Args:
        picture: What to draw; all of it is played over the same time.
        path: GIF file to write.
        frames: Numbers of the frames to draw.
        fps: Frames per second to play them at; GIF counts in hundredths of a second.
    """
    from PIL import Image

    scene = picture.scene
    beside, below = (1.7 if picture.beside else 0.0), _chart_height(picture.chart)
    width, tall = 5.4 + beside, min(max(5.4 * _aspect(scene), 3.4), 4.6)
    figure = _new_figure(width, 0.5 + tall + below)
    total = figure.get_figheight()
    _write(figure, 0.15 / width, 1 - 0.3 / total, picture.title, 11, weight="semibold")
    left = (width - beside) / width
    panels = [(_Panel(figure.add_axes((0, below / total, left, tall / total)), scene), 1.0)]
    for place, (other, caption) in enumerate(picture.beside[:3]):
        height = tall / 3
        low = (below + tall - (place + 1) * height) / total
        axes = figure.add_axes((left, low + 0.38 / total, beside / width, (height - 0.4) / total))
        panels.append((_Panel(axes, other), other.fps / scene.fps))
        _write(figure, left + beside / width / 2, low + 0.36 / total, caption, 6.5, ha="center", va="top")
    cursors = []
    if below:
        cursors = _draw_chart(figure, (0.5 / width, 0, 1 - 0.7 / width, below / total), picture.chart, scene)
    canvas: Any = figure.canvas
    with _quietly():
        canvas.draw()
        background = canvas.copy_from_bbox(figure.bbox)
        images = []
        for frame in frames:
            canvas.restore_region(background)
            for panel, pace in panels:
                panel.show(int(frame * pace) % panel.scene.num_frames)
                panel.draw()
            for cursor in cursors:
                cursor.set_xdata([frame, frame])
                cursor.axes.draw_artist(cursor)
            images.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    # One palette for all frames: colours that differ from frame to frame would flicker.
    some = images[:: max(len(images) // 8, 1)]
    palette = Image.fromarray(np.concatenate(some)).quantize(128, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    with new_file(path) as partial:
        pictures[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=round(100 / fps) * 10,
            loop=0,
        )


_SMALL: dict[str, Any] = {"fontsize": 7.5, "color": _MUTED}


class _Panel:
    """A recording in a picture: its floor, and a body that can be shown in any frame."""

    def __init__(self, axes: Any, scene: Scene):
        from matplotlib.collections import LineCollection

        self.axes, self.scene = axes, scene
        axes.set_axis_off()
        axes.set_aspect("equal")
        found = scene.points[scene.seen]
        low, high = scene.box
        inside = found[((found >= low) & (found <= high)).all(-1)]
        places, _ = scene.projected(inside[:: max(len(inside) // 50_000, 1)])
        span = np.maximum(places.max(0) - places.min(0), 1e-6)
        middle = (places.max(0) + places.min(0)) / 2
        half = np.maximum(span, 0.2 * span.max()) * 0.56
        axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
        axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
        if scene.floor is not None:
            axes.add_collection(LineCollection(_floor_lines(scene), colors=_GRID, linewidths=0.5, zorder=0))
        self.shadows = LineCollection([], colors="#00000012", capstyle="round", animated=True, zorder=1)
        self.bones = LineCollection([], capstyle="round", animated=True, zorder=2)
        self.joints = axes.scatter([], [], linewidths=0, zorder=3, animated=True)
        axes.add_collection(self.shadows)
        axes.add_collection(self.bones)
        size = axes.get_window_extent()
        # Thick enough to be seen in a small picture, and thin in a crowd.
        share = float((scene.box[1] - scene.box[0])[1]) / (2 * half[1])
        self.thick = min(max(size.height * share / 90, 1.2), 4.5) * 72 / 100

    def show(self, frame: int) -> None:
        """Put the body where it is in a frame."""
        scene = self.scene
        points, seen = scene.points[frame], scene.seen[frame]
        places, depth = scene.projected(points)
        edges = np.array(scene.layout.edges).reshape(-1, 2)
        person, edge = np.nonzero(seen[:, edges].all(-1))
        order = np.argsort(depth[person[:, None], edges[edge]].mean(-1), kind="stable")
        person, edge = person[order], edge[order]
        one, other = edges[edge].T
        sides = np.where(scene.sides[one] != 0, scene.sides[one], scene.sides[other])
        self.bones.set_segments(np.stack([places[person, one], places[person, other]], axis=1))
        self.bones.set_color([_shade(who, side) for who, side in zip(person, sides, strict=True)])
        self.bones.set_linewidth(self.thick * 1.5)
        if scene.floor is not None:
            below, _ = scene.projected(points * [1, 0, 1] + [0, scene.floor, 0])
            self.shadows.set_segments(np.stack([below[person, one], below[person, other]], axis=1))
            self.shadows.set_linewidth(self.thick * 2.4)
        person, joint = np.nonzero(seen)
        self.joints.set_offsets(places[person, joint])
        self.joints.set_color([_shade(who, side) for who, side in zip(person, scene.sides[joint], strict=True)])
        self.joints.set_sizes([(self.thick * 1.9) ** 2])
        for artist in (self.shadows, self.bones, self.joints):
            artist.set_animated(False)

    def draw(self) -> None:
        """Draw the body over what the figure shows already."""
        for artist in (self.shadows, self.bones, self.joints):
            self.axes.draw_artist(artist)


def _shade(person: int, side: int) -> tuple[float, ...]:
    """Colour of a person's limb; the left is paler."""
    color = PERSON_COLORS[person % len(PERSON_COLORS)]
    values = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return tuple(values + (1 - values) * (0.45 if side < 0 else 0.0))


def nice_step(length: float) -> float:
    """1, 2 or 5 times a power of ten, near a length."""
    power = 10.0 ** np.floor(np.log10(max(length, 1e-12)))
    rest = length / power
    return float(power * (1 if rest < 1.5 else 2 if rest < 3.5 else 5 if rest < 7.5 else 10))


def _floor_lines(scene: Scene) -> np.ndarray:
    """Lines of the floor's grid, projected ``(N, 2, 2)``."""
    low, high = scene.box
    half, center = (high - low) / 2, (low + high) / 2
    step = nice_step(float(np.linalg.norm(half)) / 3)
    reach = int(np.ceil(max(float(np.hypot(half[0], half[2])) * 1.5, half[1]) / step))
    x, z = (np.round(center[axis] / step) * step + step * np.arange(-reach, reach + 1) for axis in (0, 2))
    along_z = np.stack(np.broadcast_arrays(x[:, None], scene.floor, z[[0, -1]]), -1)
    along_x = np.stack(np.broadcast_arrays(x[[0, -1]], scene.floor, z[:, None]), -1)
    return scene.projected(np.concatenate([along_z, along_x]))[0]


def _aspect(scene: Scene) -> float:
    """Height over width of a recording as it is seen."""
    low, high = scene.box
    places, _ = scene.projected(
        np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    )
    span = places.max(0) - places.min(0)
    return float(span[1] / max(span[0], 1e-9))


def _chart_height(chart: Chart) -> float:
    if not chart.lines and not chart.bands:
        return 0.0
    return 0.45 + (1.15 if chart.lines else 0) + 0.36 * len(chart.bands)


def _draw_chart(figure: Any, place: tuple[float, float, float, float], chart: Chart, scene: Scene) -> list[Any]:
    """Draw lines and bands over time in a part of a figure; returns what marks the moment in each."""
    left, low, width, height = place
    total = figure.get_figheight()
    cursors = []
    top = low + height
    if chart.lines:
        axes = figure.add_axes((left, top - 1.2 / total, width, 0.95 / total))
        for _, color, values in chart.lines:
            axes.plot(values, color=color, linewidth=1.3)
        axes.set_ylim(-0.02, 1.02)
        axes.set_yticks([0, 1], ["0 %", "100 %"], **_SMALL)
        columns = min(len(chart.lines), 3 if figure.get_figwidth() < 8 else 4)
        # A name with an underscore in front would be left out.
        names = [f" {_plain(name)}" for name, _, _ in chart.lines]
        look: dict[str, Any] = {"fontsize": 6.5, "framealpha": 0.8, "edgecolor": "none", "borderpad": 0.1}
        legend = axes.legend(axes.lines, names, loc="upper left", ncols=columns, **look)
        for text in legend.get_texts():
            text.set_parse_math(False)
        cursors.append(_time_axis(axes, scene))
        top -= 1.25 / total
    for title, segments in chart.bands:
        axes = figure.add_axes((left, top - 0.33 / total, width, 0.17 / total))
        axes.set_facecolor("#f1f1ee")
        for name, color, start, end in segments:
            axes.axvspan(start, max(end - 1, start + 0.5), color=color, alpha=0.45, linewidth=0)
            text = axes.text(start, 0.45, f" {_plain(name)}", va="center", fontsize=6.5, color=_INK, clip_on=True)
            text.set_parse_math(False)
        _write(figure, left, top - 0.13 / total, title, 6.5, color=_MUTED)
        axes.set_yticks([])
        cursors.append(_time_axis(axes, scene))
        top -= 0.36 / total
    for cursor in cursors[:-1]:
        cursor.axes.set_xticks([])
    axes.set_xlabel(chart.about, fontsize=6.5, color=_MUTED, labelpad=2)
    return cursors


def _time_axis(axes: Any, scene: Scene) -> Any:
    last = max(scene.num_frames - 1, 1)
    axes.set_xlim(0, last)
    step = nice_step(last / scene.fps / 6)
    ticks = np.arange(0, last / scene.fps + 1e-9, step)
    axes.set_xticks(ticks * scene.fps, [f"{tick:g} s" for tick in ticks], **_SMALL)
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


def _plain(text: str) -> str:
    """Text on one line, without what a font cannot show."""
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return text if len(text) <= 90 else text[:89] + "…"


def _write(figure: Any, x: float, y: float, text: str, size: float, **options: Any) -> None:
    lines = "\n".join(_plain(line) for line in text.split("\n"))
    written = figure.text(x, y, lines, fontsize=size, **({"color": _INK} | options))
    # A name may hold dollar signs, which are no formula.
    written.set_parse_math(False)


@contextmanager
def _quietly() -> Iterator[None]:
    """Do without the warning that a font lacks a letter of a name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
