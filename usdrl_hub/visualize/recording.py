"""Rendering of recordings with a model's predictions: interactive page, animation or stills."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.arrays import load_npz
from ..data.dataset import SkeletonData, open_data
from ..data.npz import SkeletonDataset
from ..data.readers import choose_recording, iter_skeletons
from ..data.reading import Reading
from ..data.remote import is_address
from ..data.store import is_store
from ..facts.checkpoints import ENCODER
from ..facts.outputs import RENDER_SUFFIXES
from ..inference.embedding import iter_embeddings
from ..inference.engine import Engine, batched
from ..inference.ensemble import USDRLEnsemble
from ..inference.scores import NONE_OF_THESE
from ..inference.source import ErrorHandler
from ..inference.timeline import Timeline, has_classes, make_timeline
from ..metrics import retrieval
from ..sequence import SkeletonFormatError, SkeletonSequence
from .charts import Chart
from .page import NOT_SEEN, check_output, packed_base64, packed_scene, shown_name, write_page
from .panel import BACKGROUND_COLOR, CLASS_COLORS, PERSON_COLORS
from .pictures import Picture, draw_animation, draw_probability_plots, draw_stills
from .scene import Scene, frames_to_draw

# Coordinates in a page: 16 MB of text.
_MAX_COORDINATES = 6_000_000
# Classes in a page, plotted classes, and frames of a nearest clip.
_MAX_CLASSES, _MAX_LINES, _CLIP_FRAMES = 24, 5, 90
_GIF_FRAMES, _GIF_FPS = 300, 20.0
# Probability plots in a picture.
_MAX_PLOTS = 30


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording with the names of its classes.

    Attributes:
        sequence: The recording.
        class_names: Names of the classes of its label and events; may be empty.
    """

    sequence: SkeletonSequence
    class_names: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A clip of a gallery that is similar to a recording.

    Attributes:
        sequence: The clip, in the model's layout.
        similarity: Cosine similarity of the embeddings, in [-1, 1].
        label: Name of its class, or None.
    """

    sequence: SkeletonSequence
    similarity: float
    label: str | None


@dataclass(frozen=True)
class Rendered:
    """The result of `render`.

    Attributes:
        frames: Number of frames drawn.
        fps: Frames per second of playback; None for a still picture.
        top: The most probable class of the whole recording and its probability; None without a recogniser.
    """

    frames: int
    fps: float | None
    top: tuple[str, float] | None


def find_recording(path: str | os.PathLike, name: str | None = None, reading: Reading = Reading()) -> Recording:
    """Read one recording of a file or a store.

    Args:
        path: Any file that `read_skeleton` takes, a data set in one file, or a store.
        name: Name or index (from 0) of the recording, where there are several.
        reading: What the file does not say.

    Raises:
        SkeletonFormatError: If it cannot be read, there are several and none is named, or none has the name.
    """
    if is_address(path):
        data = open_data(path, reading.layout, keypoints=reading.keypoints)
        sequence = data[choose_recording(Path(path), data.names, name)]
        return Recording(reading.complete(sequence, sequence.units), data.class_names)
    path = Path(path)
    if path.is_dir() and not is_store(path):
        raise SkeletonFormatError(f"{path}: it is a folder: name one of the recordings in it")
    if is_store(path) or (path.suffix == ".npz" and "offsets" in load_npz(path)):
        data = open_data(path, reading.layout)
        sequence = data[choose_recording(path, data.names, name)]
        sequence = reading.complete(sequence, data.units if isinstance(data, SkeletonDataset) else sequence.units)
        return Recording(sequence, data.class_names)
    found = list(iter_skeletons(path, reading))
    return Recording(found[choose_recording(path, [sequence.name for sequence in found], name)])


def nearest_clips(
    sequence: SkeletonSequence,
    gallery: SkeletonData | Iterable[SkeletonSequence],
    model: Any = ENCODER,
    *,
    top_k: int = 5,
    batch_size: int = 64,
    on_error: ErrorHandler | None = None,
) -> list[Neighbour]:
    """The clips of a gallery with the most similar embeddings, without the recording itself.

    Args:
        sequence: The recording.
        gallery: A data set, a store, or sequences; memory use does not depend on their number.
        model: A checkpoint's name, folder or hub repository; a loaded model; or an `Engine`.
        top_k: Number of clips.
        batch_size: Clips embedded at once.
        on_error: Called with the error of a clip that cannot be used and is skipped; None raises the error.

    Returns:
        At most `top_k` clips, most similar first.

    Raises:
        SkeletonFormatError: If the recording does not fit the model, or no clip of the gallery does.
    """
    names = getattr(gallery, "class_names", [])
    engine = Engine.load(model, head=False)
    [(prepared, embedding)] = iter_embeddings(sequence, engine)
    query = torch.from_numpy(embedding)[None]
    stream = iter_embeddings(gallery, engine, batch_size=batch_size, on_error=on_error)
    others = (item for item in stream if not np.array_equal(item[0].keypoints, prepared.keypoints))
    best: list[tuple[SkeletonSequence, np.ndarray]] = []
    cosines: list[float] = []
    for group in batched(others, 512):
        best += group
        features = torch.from_numpy(np.stack([features for _, features in best]))
        found, indices = retrieval.top_k(query, features, min(top_k, len(best)))
        best, cosines = [best[index] for index in indices[0].tolist()], found[0].tolist()
    if not best:
        raise SkeletonFormatError("the gallery has no other clip that fits the model")
    return [
        Neighbour(clip, cosine, None if clip.label is None or not names else names[clip.label])
        for (clip, _), cosine in zip(best, cosines, strict=True)
    ]


def render(
    recording: Recording | SkeletonSequence,
    output: str | os.PathLike,
    model: Any = None,
    *,
    gallery: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence] | None = None,
    top_k: int = 5,
    threshold: float | None = None,
    batch_size: int = 64,
    on_error: ErrorHandler | None = None,
) -> Rendered:
    """Render a recording with per-frame predictions and the nearest clips of a gallery.

    Args:
        recording: The recording, of any layout, in 2D or 3D.
        output: File to write: ``.html``, a self-contained interactive page; ``.gif``, at most 300 frames; ``.png``,
            stills side by side.
        model: A checkpoint's name, folder or hub repository; a loaded model or ensemble; or an `Engine`. Without it
            only the skeletons are drawn. An encoder without classes needs a gallery.
        gallery: Clips to search, or their data set file or store.
        top_k: Number of nearest clips.
        threshold: See `extract_timelines`.
        batch_size: Clips computed at once.
        on_error: Called with the error of a gallery clip that cannot be used and is skipped; None raises the error.

    Returns:
        How many frames were drawn, at which rate, and the most probable class.

    Raises:
        SkeletonFormatError: If the recording does not fit the model.
        CheckpointLoadError: If the model cannot be loaded, or has no classes and there is no gallery.
        ValueError: If `output` has another suffix, the threshold or `top_k` is out of range, or a gallery is given
            without a single model.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import SkeletonSequence, render
        >>> recording = SkeletonSequence.from_array(np.random.rand(90, 25, 3), "ntu25")
        >>> render(recording, "recording.html", model="usdrl/tiny-uiprmd").frames
        90
    """
    kind = check_output(output, RENDER_SUFFIXES, "a recording is drawn")
    given = recording if isinstance(recording, Recording) else Recording(recording)
    engine = None if model is None else Engine.load(model)
    if gallery is not None and (engine is None or isinstance(engine.model, USDRLEnsemble)):
        raise ValueError("a gallery needs a single model, which embeds its clips: add it")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    timeline, neighbours = None, []
    if engine is not None:
        if gallery is None or has_classes(engine.model):
            timeline = make_timeline(engine, given.sequence, batch_size=batch_size, threshold=threshold)
        if gallery is not None:
            clips = open_data(gallery) if isinstance(gallery, str | os.PathLike) else gallery
            choices: dict[str, Any] = {"top_k": top_k, "batch_size": batch_size, "on_error": on_error}
            neighbours = nearest_clips(given.sequence, clips, engine, **choices)
    write = {".html": _write_page, ".gif": _write_gif, ".png": _write_png}[kind]
    frames, fps = write(RecordingView(given, timeline, neighbours, shown_name(model)), Path(output))
    if timeline is None or timeline.overall is None:
        return Rendered(frames, fps, None)
    best = int(timeline.overall.argmax())
    label = timeline.class_names[best] if timeline.is_known else NONE_OF_THESE
    return Rendered(frames, fps, (label, float(timeline.overall[best])))


def draw_timelines(timelines: Sequence[tuple[SkeletonSequence, Timeline]], path: str | os.PathLike) -> None:
    """Draw class probabilities over time, with segments as bars, one recording below the other, as a PNG picture.

    Without segments, the bars are runs of frames with the same most probable class.

    Args:
        timelines: Recordings with their predictions; see `iter_timelines`.
        path: PNG file to write.

    Raises:
        ValueError: If there are no recordings or more than 30.
    """
    if not 0 < len(timelines) <= _MAX_PLOTS:
        raise ValueError(
            f"{path}: a picture shows 1 to {_MAX_PLOTS} recordings, not {len(timelines)}: write .csv or .json"
        )
    # The names of the recordings' own events are unknown here.
    views = [
        RecordingView(Recording(replace(sequence, events=None)), replace(timeline, segments=timeline.runs()), [], "")
        for sequence, timeline in timelines
    ]
    # A class has the same colour in all recordings.
    colors = _class_colors(name for view in views for name in view.named)
    for view in views:
        view.colors = colors | view.background
    draw_probability_plots([view.picture() for view in views], path)


class RecordingView:
    """The content of a page or picture: title, colours, lines, segments and nearest clips."""

    def __init__(
        self, recording: Recording, timeline: Timeline | None, neighbours: Sequence[Neighbour], model_name: str
    ):
        self.sequence, self.truth_names = recording.sequence, recording.class_names
        self.scene = Scene.of(recording.sequence)
        self.timeline, self.neighbours, self.model_name = timeline, neighbours, model_name
        self.name = recording.sequence.name or "recording"
        self.lines = [] if timeline is None else _lines(timeline)
        # A class has the same colour in predictions and labels.
        self.colors = _class_colors(self.named) | self.background

    @property
    def named(self) -> list[str]:
        """The classes of lines and segments, in the order in which they get colours."""
        names = [] if self.timeline is None else [self.timeline.class_names[kind] for kind in self.lines]
        return names + [label for _, segments in self.bands for label, *_ in segments]

    @property
    def background(self) -> dict[str, str]:
        """Colour of the background class, if there is one."""
        timeline = self.timeline
        return {timeline.class_names[0]: BACKGROUND_COLOR} if timeline is not None and timeline.has_background else {}

    @property
    def facts(self) -> list[str]:
        """Label, length, frame rate, number of persons and layout, in words."""
        sequence, people = self.sequence, len(self.scene.people)
        unknown = f"frame rate unknown, played at {self.scene.rate:g} per second"
        rate = f"{self.scene.fps:.3g} frames per second" if self.scene.fps else unknown
        label = sequence.label
        known = label is not None and label < len(self.truth_names)
        return [
            *([f"labelled {self.truth_names[label or 0]}"] if known else []),
            f"{sequence.num_frames} frame{'s' if sequence.num_frames > 1 else ''}",
            *([rate] if sequence.num_frames > 1 else []),
            f"{people} person" if people == 1 else f"{people} persons",
            f"{self.scene.layout.name}, {'2D' if self.scene.flat else '3D'}",
        ]

    @property
    def bands(self) -> list[tuple[str, list[tuple[str, int, int, float | None]]]]:
        """Predicted and labelled segments: title of the band; label, start, end and probability of each segment."""
        bands: list[tuple[str, list[tuple[str, int, int, float | None]]]] = []
        if self.timeline is not None and self.timeline.segments is not None:
            names = self.timeline.class_names
            found = [(names[int(kind)], int(a), int(b), float(p)) for kind, a, b, p in self.timeline.segments]
            bands.append(("Detected" if self.timeline.has_background else "Likeliest", list(found)))
        if self.sequence.events is not None:
            names = [*self.truth_names]
            events = self.sequence.events[np.argsort(self.sequence.events[:, 1], kind="stable")]
            named = [
                (names[kind] if kind < len(names) else f"class {kind}", a, b, None) for kind, a, b in events.tolist()
            ]
            bands.append(("Labelled", list(named)))
        return bands

    def picture(self) -> Picture:
        """The content for stills and animations."""
        lines, timeline = [], self.timeline
        if timeline is not None:
            values = np.where(timeline.probabilities.any(1, keepdims=True), timeline.probabilities, np.nan)
            names = timeline.class_names
            lines = [(names[kind], self.colors[names[kind]], values[:, kind]) for kind in self.lines]
        bands = [
            (title, [(label, self.colors[label], start, end) for label, start, end, _ in segments])
            for title, segments in self.bands
        ]
        title = self.name
        if timeline is not None and timeline.overall is not None:
            best = int(timeline.overall.argmax())
            label = f"{timeline.class_names[best]} ({100 * timeline.overall[best]:.0f} %)"
            title += f": {label if timeline.is_known else NONE_OF_THESE}"
        beside = []
        for other in self.neighbours:
            about = f"{other.sequence.name}, similarity {other.similarity:.3f}"
            scene = replace(Scene.of(other.sequence), floor=None)
            beside.append((scene, about if other.label is None else f"{other.label}\n{about}"))
        return Picture(
            self.scene, title, Chart(lines, bands, "" if timeline is None else timeline.description), beside
        )


def _class_colors(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, by first appearance."""
    return {name: CLASS_COLORS[number % len(CLASS_COLORS)] for number, name in enumerate(dict.fromkeys(names))}


def _lines(timeline: Timeline) -> list[int]:
    """The classes to plot: by the number of frames in which they are most probable, then by their peak."""
    values = timeline.probabilities
    kinds = np.arange(1 if timeline.has_background else 0, values.shape[1])
    likeliest = np.bincount(values.argmax(1), minlength=values.shape[1])
    order = np.lexsort((-values.max(0)[kinds], -likeliest[kinds]))
    return [int(kind) for kind in kinds[order][:_MAX_LINES]]


def _write_png(view: RecordingView, path: Path) -> tuple[int, float | None]:
    return draw_stills(view.picture(), path), None


def _write_gif(view: RecordingView, path: Path) -> tuple[int, float | None]:
    frames, fps = frames_to_draw(view.scene.num_frames, view.scene.rate, _GIF_FRAMES, _GIF_FPS)
    draw_animation(view.picture(), path, frames, fps)
    return len(frames), fps


def _write_page(view: RecordingView, path: Path) -> tuple[int, float | None]:
    scene = view.scene
    every = -(-scene.points.size // _MAX_COORDINATES)
    frames = np.arange(0, scene.num_frames, every)
    bands = [
        {
            "title": title,
            "segments": [
                {"label": label, "color": view.colors[label], "start": start, "end": end, "score": score}
                for label, start, end, score in segments
            ],
        }
        for title, segments in view.bands
    ]
    content = {
        "name": view.name,
        "facts": view.facts + ([f"one frame in {every} shown"] if every > 1 else []),
        "colors": PERSON_COLORS,
        "scene": packed_scene(scene, frames, every),
        "timeline": None if view.timeline is None else _packed_timeline(view, view.timeline, frames),
        "bands": bands,
        "neighbours": [_packed_neighbour(neighbour) for neighbour in view.neighbours],
        "origin": f"Cosine similarity of embeddings of whole recordings by {view.model_name}",
    }
    write_page("render_template.html", view.name, content, path)
    return len(frames), scene.rate / every


def _packed_timeline(view: RecordingView, timeline: Timeline, frames: np.ndarray) -> dict[str, Any]:
    """Encode probabilities of the most probable classes for a page, as 16-bit shares."""
    names, values = timeline.class_names, timeline.probabilities[frames]
    likely = np.argsort(-values.max(0), kind="stable")
    kinds = list(dict.fromkeys([*view.lines, *likely.tolist()]))[:_MAX_CLASSES]
    said = values.any(1, keepdims=True)
    whole = np.zeros(0) if timeline.overall is None else timeline.overall
    return {
        "about": timeline.description,
        "model": view.model_name,
        "classes": [{"label": names[kind], "color": view.colors.get(names[kind], BACKGROUND_COLOR)} for kind in kinds],
        "lines": list(range(len(view.lines))),
        "data": packed_base64(
            np.where(said, (values[:, kinds].astype(np.float64) * (NOT_SEEN - 1)).round(), NOT_SEEN)
        ),
        "whole": [
            {"label": names[kind], "probability": float(whole[kind])}
            for rank, kind in enumerate(np.argsort(-whole, kind="stable")[:3].tolist())
            if rank == 0 or whole[kind] >= 0.05
        ],
        # Where the recording is like none of the classes: a digit per frame.
        "refused": "" if timeline.is_known else NONE_OF_THESE,
        "known": "" if timeline.known is None else "".join("01"[int(known)] for known in timeline.known[frames]),
        "none": NONE_OF_THESE,
    }


def _packed_neighbour(neighbour: Neighbour) -> dict[str, Any]:
    scene = replace(Scene.of(neighbour.sequence), floor=None)
    frames, fps = frames_to_draw(scene.num_frames, scene.rate, _CLIP_FRAMES, 15.0)
    played = scene.subsampled(frames, fps)
    return {
        "name": neighbour.sequence.name,
        "label": neighbour.label,
        "similarity": neighbour.similarity,
        "scene": packed_scene(played, np.arange(len(frames)), 1),
    }
