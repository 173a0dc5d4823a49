"""Stills and animations of recordings, with charts of class probabilities."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import new_file, scratch_folder
from ..layouts import LayoutLike, get_layout
from ..sequence import SkeletonSequence
from .charts import Chart, chart_height, draw_chart
from .panel import (
    CLASS_COLORS,
    MUTED,
    TITLE_HEIGHT,
    Panel,
    colors_used,
    mixed,
    new_figure,
    without_glyph_warnings,
    write_text,
)
from .scene import Scene


@dataclass(frozen=True, eq=False)
class Picture:
    """The content of a still picture or an animation.

    Attributes:
        scene: The recording.
        title: Heading.
        chart: Chart below it.
        beside: Nearest clips and their captions.
    """

    scene: Scene
    title: str
    chart: Chart = field(default_factory=Chart)
    beside: Sequence[tuple[Scene, str]] = ()


def draw_clip(
    clip: np.ndarray, layout: LayoutLike, title: str, path: str | os.PathLike, num_pictures: int = 8
) -> None:
    """Draw frames of a clip side by side; the body's left side is paler.

    A normalised body has its right side at +x, so it is seen from behind.

    Args:
        clip: Keypoints ``(T, M, V, C)``, y up if C is 3 and y down if C is 2; all-zero joints are left out.
        layout: Joint layout.
        title: Heading.
        path: PNG file to write.
        num_pictures: Number of evenly spaced frames.
    """
    coordinates = "3d" if clip.shape[-1] == 3 else "2d"
    scene = Scene.of(SkeletonSequence(clip, get_layout(layout), coordinates=coordinates, up="y"))
    draw_stills(Picture(replace(scene, azimuth=0.0, elevation=0.0, floor=None), title), path, num_pictures)


def draw_rows(pictures: Sequence[Picture], path: str | os.PathLike, num_pictures: int = 8) -> None:
    """Draw stills of several recordings, one below the other and on one scale.

    Args:
        pictures: The content of each row.
        path: PNG file to write.
        num_pictures: Number of evenly spaced frames of each recording.
    """
    # 3D bodies of all rows have the same scale.
    sizes = [np.subtract(*reversed(picture.scene.box)) for picture in pictures if not picture.scene.flat]
    size = np.max(sizes or [np.zeros(3)], axis=0)
    pictures = [p if p.scene.flat else replace(p, scene=replace(p.scene, size=tuple(size))) for p in pictures]
    with scratch_folder() as folder, new_file(path) as partial:
        rows = []
        for number, picture in enumerate(pictures):
            row = folder / f"{number}.png"
            draw_stills(picture, row, num_pictures)
            rows.append(Image.open(row).convert("RGB"))
        sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
        top = 0
        for image in rows:
            sheet.paste(image, (0, top))
            top += image.height
        sheet.save(partial, format="png")


def draw_stills(picture: Picture, path: str | os.PathLike, num_pictures: int = 8) -> int:
    """Draw frames of a recording side by side, its chart below, and the nearest clips below that.

    Args:
        picture: The content.
        path: PNG file to write.
        num_pictures: Number of evenly spaced frames; halved for a recording that is wider than high.

    Returns:
        Number of frames drawn.
    """
    scene, chart = picture.scene, picture.chart
    num_pictures = num_pictures if scene.aspect > 1 else max(num_pictures // 2, 1)
    frames = np.unique(np.linspace(0, scene.num_frames - 1, num_pictures).round().astype(int))
    width = max(1.7 * num_pictures, 8.5)
    share = 1 / len(frames)
    tall = min(width * share * min(max(scene.aspect, 0.5), 2.2), 5.0) + 0.3
    below, beside = chart_height(chart, width), 2.3 if picture.beside else 0.0
    figure = new_figure(width, TITLE_HEIGHT + tall + below + beside)
    height = figure.get_figheight()
    write_text(figure, 0.2 / width, 1 - 0.33 / height, picture.title, 12, weight="bold")
    write_text(figure, 1 - 0.15 / width, 1 - 0.5 / height, scene.key, 7, color=MUTED, ha="right")
    low = beside + below
    for column, frame in enumerate(frames):
        box = (column * share, (low + 0.22) / height, share, (tall - 0.22) / height)
        Panel(figure.add_axes(box), scene).show(frame)
        time = "" if scene.fps is None else f"{frame / scene.fps:.2f} s, "
        caption = f"{time}frame {frame}"
        write_text(figure, (column + 0.5) * share, (low + 0.1) / height, caption, 7.5, color=MUTED, ha="center")
    if below:
        draw_chart(figure, (0.5 / width, beside / height, 1 - 0.7 / width, below / height), chart, scene)
    for column, (other, caption) in enumerate(picture.beside):
        share = 1 / len(picture.beside)
        box = (column * share, 0.5 / height, share, (beside - 0.6) / height)
        Panel(figure.add_axes(box), other).show(other.num_frames // 2)
        write_text(figure, (column + 0.5) * share, 0.42 / height, caption, 7.5, ha="center", va="top")
    with new_file(path) as partial, without_glyph_warnings():
        figure.savefig(partial, format="png", dpi=120)
    return len(frames)


def draw_animation(picture: Picture, path: str | os.PathLike, frames: np.ndarray, fps: float) -> None:
    """Draw an animation.

    Args:
        picture: The content; the first three nearest clips loop at their own speed.
        path: GIF file to write.
        frames: Indices of the frames to draw.
        fps: Playback rate; a GIF frame lasts a whole number of hundredths of a second.
    """
    scene, chart = picture.scene, picture.chart
    beside = 1.8 if picture.beside else 0.0
    width, tall = 5.4 + beside, min(max(5.0 * scene.aspect, 3.0), 4.4)
    below = chart_height(chart, width)
    figure = new_figure(width, TITLE_HEIGHT + tall + below)
    height = figure.get_figheight()
    write_text(figure, 0.15 / width, 1 - 0.32 / height, picture.title, 11, weight="bold")
    write_text(figure, 0.15 / width, 1 - 0.5 / height, scene.key, 7, color=MUTED)
    left = 1 - beside / width
    main = figure.add_axes((0, below / height, left, tall / height))
    panels = [(Panel(main, scene, moving=True), 1.0)]
    for row, (other, caption) in enumerate(picture.beside[:3]):
        low, part = below + tall * (1 - (row + 1) / 3), tall / 3
        axes = figure.add_axes((left, (low + 0.42) / height, beside / width, (part - 0.46) / height))
        panels.append((Panel(axes, other, moving=True), other.rate / scene.rate))
        write_text(figure, (left + 1) / 2, (low + 0.38) / height, caption, 6.5, ha="center", va="top")
    cursors = []
    if below:
        cursors = draw_chart(figure, (0.5 / width, 0, 1 - 0.7 / width, below / height), chart, scene)
    canvas: Any = figure.canvas
    images = []
    with without_glyph_warnings():
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
    # One palette for all frames, of all colours in eight steps to white: a palette per frame would flicker.
    used = np.array([mixed(color, share / 7) for color in colors_used() for share in range(7)])
    # Off-white colours would replace the white background.
    used = np.concatenate([used[used.min(1) < 0.95], np.ones((1, 3))])
    palette = Image.new("P", (1, 1))
    palette.putpalette((used * 255).round().astype(np.uint8).tobytes())
    first, *rest = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    duration = max(round(100 / fps), 1) * 10
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0)


def draw_segments(
    sequence: SkeletonSequence,
    bands: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    title: str,
    path: str | os.PathLike,
) -> None:
    """Draw segments of a recording as bars over time; overlapping ones lie below each other.

    Args:
        sequence: The recording.
        bands: Heading of each band -> segments ``(N, 3)``: class, first frame and end (exclusive).
        class_names: Names of the classes.
        title: Heading.
        path: PNG file to write.
    """
    kinds = sorted({int(row[0]) for rows in bands.values() for row in rows})
    colors = {kind: CLASS_COLORS[number % len(CLASS_COLORS)] for number, kind in enumerate(kinds)}
    drawn = [
        (heading, [(class_names[kind], colors[kind], start, end) for kind, start, end in sorted_rows.tolist()])
        for heading, rows in bands.items()
        for sorted_rows in [rows[np.argsort(rows[:, 1], kind="stable")].astype(int)]
    ]
    scene = Scene.of(replace(sequence, events=None))
    draw_probability_plots([Picture(scene, title, Chart(bands=drawn))], path)


def draw_probability_plots(pictures: Sequence[Picture], path: str | os.PathLike) -> None:
    """Draw the charts of recordings, without the skeletons, one below the other.

    Args:
        pictures: Titles and charts.
        path: PNG file to write.
    """
    width = 12.0
    heights = [TITLE_HEIGHT + chart_height(picture.chart, width) for picture in pictures]
    figure = new_figure(width, sum(heights))
    low = total = figure.get_figheight()
    for picture, height in zip(pictures, heights, strict=True):
        write_text(figure, 0.5 / width, (low - 0.33) / total, picture.title, 11, weight="bold")
        low -= height
        box = (0.5 / width, low / total, 1 - 0.7 / width, (height - TITLE_HEIGHT) / total)
        draw_chart(figure, box, picture.chart, picture.scene)
    with new_file(path) as partial, without_glyph_warnings():
        figure.savefig(partial, format="png", dpi=110)
