"""A recording to look at: a page for any browser, a moving or a still picture, with what a model says about it."""

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
from ..data.readers import iter_skeletons
from ..data.reading import Reading
from ..data.store import is_store
from ..facts.outputs import RENDER_SUFFIXES
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.embedding import iter_embeddings
from ..inference.ensemble import USDRLEnsemble, ready_classifier
from ..inference.inputs import ErrorHandler, batched
from ..inference.timeline import CLASSIFIERS, Timeline, make_timeline
from ..layouts import LayoutLike
from ..metrics.retrieval import top_k
from ..modeling_usdrl import USDRLPreTrainedModel
from ..sequence import DETECTION_THRESHOLD, SkeletonFormatError, SkeletonSequence, is_rate
from .charts import Chart
from .page import NOT_SEEN, check_output, packed_base64, packed_scene, shown_name, write_page
from .panel import CLASS_COLORS, NOTHING_COLOR, PERSON_COLORS
from .pictures import Picture, draw_animation, draw_probability_plots, draw_stills
from .scene import Scene, thinning

# Coordinates that a page holds at most: 16 MB of text.
_MOST_NUMBERS = 6_000_000
# Classes whose probabilities a page holds and draws, and frames of a nearest clip that it plays.
_MOST_CLASSES, _MOST_LINES, _CLIP_FRAMES = 24, 5, 90
_GIF_FRAMES, _GIF_FPS = 300, 20.0
# Recordings whose course over time one picture holds.
_MAX_PLOTS = 30


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording that was read, and what its file says about classes.

    Attributes:
        sequence: The recording.
        class_names: Names of the classes of the file's labels and events; empty where it has none.
    """

    sequence: SkeletonSequence
    class_names: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A clip of a gallery that resembles a recording.

    Attributes:
        sequence: The clip, in the model's layout.
        similarity: Cosine of the embeddings, in [-1, 1].
        label: Name of its class, or None.
    """

    sequence: SkeletonSequence
    similarity: float
    label: str | None


@dataclass(frozen=True)
class Rendered:
    """What was drawn.

    Attributes:
        frames: Frames drawn.
        fps: Frames per second they are played at, or None for a still picture.
        top: The likeliest class of the recording as a whole and its probability, where a recogniser said so.
    """

    frames: int
    fps: float | None
    top: tuple[str, float] | None


def find_recording(
    path: str | os.PathLike,
    name: str | None = None,
    layout: LayoutLike = "ntu25",
    axes: str | None = None,
    missing: str = "refuse",
    up: str | None = None,
    fps: float | None = None,
    image_shape: tuple[float, float] | None = None,
) -> Recording:
    """Read one recording of a file or a store.

    Args:
        path: Any file that `read_skeleton` takes, a data set in one file, or a store.
        name: Which of several: its name, or its number from 0.
        layout: Joint layout of array files.
        axes: Axis order of arrays, see `SkeletonSequence.from_array`.
        missing: What NaN in arrays means, see `SkeletonSequence.from_array`.
        up: Axis that points up, whatever the file says; see `SkeletonSequence`.
        fps: Frames per second, whatever the file says.
        image_shape: Height and width in pixels of the picture of 2D keypoints, where the file does not say.

    Raises:
        SkeletonFormatError: If it cannot be read, there are several and none is named, or none has the name.
    """
    path = Path(path)
    if path.is_dir() and not is_store(path):
        raise SkeletonFormatError(f"{path}: it is a folder: name one of the recordings in it")
    if fps is not None and not is_rate(fps):
        raise SkeletonFormatError(f"{path}: frames per second must be between 0.01 and 10000, got {fps}")
    data: SkeletonData | list[SkeletonSequence]
    if is_store(path) or (path.suffix == ".npz" and "offsets" in load_npz(path)):
        data = open_data(path)
    else:
        data = list(iter_skeletons(path, Reading(axes=axes, missing=missing, default_layout=layout)))
    sequence = data[_chosen(path, _names(data), name)]
    changed = replace(
        sequence,
        up=up or sequence.up,
        fps=fps or sequence.fps,
        image_shape=sequence.image_shape or image_shape,
    )
    return Recording(changed, [] if isinstance(data, list) else data.class_names)


def _names(data: SkeletonData | list[SkeletonSequence]) -> list[str]:
    return [sequence.name for sequence in data] if isinstance(data, list) else data.names


def _chosen(path: Path, names: Sequence[str], name: str | None) -> int:
    if name is None:
        if len(names) == 1:
            return 0
        raise SkeletonFormatError(f"{path}: it holds {len(names)} recordings: choose one by name, such as {names[0]}")
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise SkeletonFormatError(f"{path}: none of its {len(names)} recordings is called '{name}', such as {names[0]}")


def nearest_clips(
    sequence: SkeletonSequence,
    gallery: SkeletonData | Iterable[SkeletonSequence],
    model: USDRLPreTrainedModel,
    extractor: USDRLFeatureExtractor,
    count: int = 5,
    batch_size: int = 64,
    on_error: ErrorHandler | None = None,
) -> list[Neighbour]:
    """The clips of a gallery whose embeddings are most like a recording's; the recording itself is left out.

    Args:
        sequence: The recording.
        gallery: A data set, a store, or sequences; memory does not grow with their number.
        model: An encoder, or a model with any head, in eval mode.
        extractor: Its feature extractor.
        count: How many clips.
        batch_size: Clips embedded at once.
        on_error: Called with the error of a clip that cannot be used, which is then left out; None raises it.

    Returns:
        At most `count`, most similar first.

    Raises:
        SkeletonFormatError: If the recording does not fit the model, or no clip of the gallery does.
    """
    names = getattr(gallery, "class_names", [])
    [(prepared, embedding)] = iter_embeddings(sequence, model, feature_extractor=extractor)
    query = torch.from_numpy(embedding)[None]
    stream = iter_embeddings(gallery, model, batch_size, feature_extractor=extractor, on_error=on_error)
    others = (item for item in stream if not np.array_equal(item[0].keypoints, prepared.keypoints))
    best: list[tuple[SkeletonSequence, np.ndarray]] = []
    cosines: list[float] = []
    for group in batched(others, 512):
        best += group
        features = torch.from_numpy(np.stack([features for _, features in best]))
        found, places = top_k(query, features, min(count, len(best)))
        best, cosines = [best[place] for place in places[0].tolist()], found[0].tolist()
    if not best:
        raise SkeletonFormatError("there is no clip in the gallery that the recording could be compared with")
    return [
        Neighbour(clip, cosine, None if clip.label is None or not names else names[clip.label])
        for (clip, _), cosine in zip(best, cosines, strict=True)
    ]


def render(
    recording: Recording | SkeletonSequence,
    output: str | os.PathLike,
    model: str | os.PathLike | USDRLPreTrainedModel | USDRLEnsemble | None = None,
    feature_extractor: USDRLFeatureExtractor | None = None,
    gallery: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence] | None = None,
    count: int = 5,
    threshold: float = DETECTION_THRESHOLD,
    batch_size: int = 64,
    model_name: str | None = None,
    on_error: ErrorHandler | None = None,
) -> Rendered:
    """Draw a recording, what a model says about every frame of it, and the nearest clips of a gallery.

    Args:
        recording: The recording, of any layout, in 2D or 3D.
        output: File to write: ``.html``, one file that needs nothing else, in which the recording plays, can be turned
            and scrubbed, and tells the names of joints; ``.gif``, at most 300 frames; ``.png``, stills side by side.
        model: A checkpoint's name or folder, or a model; one that names no classes is for the gallery only.
        feature_extractor: The model's own where None.
        gallery: Clips to find the nearest ones in, or the file or store that holds them.
        count: How many nearest clips.
        threshold: Probability above which a detector's class is a segment.
        batch_size: Clips computed at once.
        model_name: What the model is called in the page; its name or folder where None.
        on_error: See `nearest_clips`.

    Raises:
        SkeletonFormatError: If the recording does not fit the model.
        CheckpointLoadError: If the model cannot be loaded, or names no classes and there is no gallery.
        ValueError: If the file is of another kind, a gallery has no model, or the file cannot be written.

    Example:
        >>> from usdrl_hub import SkeletonSequence, render
        >>> recording = SkeletonSequence.from_array(np.random.rand(90, 25, 3), "ntu25")
        >>> render(recording, "recording.html", model="usdrl/tiny-uiprmd").frames
        90
    """
    kind = check_output(output, RENDER_SUFFIXES, "a recording is drawn")
    given = recording if isinstance(recording, Recording) else Recording(recording)
    if gallery is not None and (model is None or isinstance(model, USDRLEnsemble)):
        raise ValueError("the clips of a gallery are compared by one model: name it, too")
    if not 0 < threshold < 1 or count < 1:
        raise ValueError(f"threshold must be between 0 and 1 and count at least 1, got {threshold} and {count}")
    model_name = shown_name(model, model_name)
    timeline, neighbours = None, []
    if model is not None:
        loaded, extractor = ready_classifier(model, feature_extractor)
        if gallery is None or isinstance(loaded, CLASSIFIERS):
            timeline = make_timeline(given.sequence, loaded, extractor, batch_size, threshold)
        if gallery is not None and not isinstance(loaded, USDRLEnsemble):
            clips = open_data(gallery) if isinstance(gallery, str | os.PathLike) else gallery
            neighbours = nearest_clips(given.sequence, clips, loaded, extractor, count, batch_size, on_error)
    write = {".html": _write_page, ".gif": _write_gif, ".png": _write_png}[kind]
    frames, fps = write(RecordingView(given, timeline, neighbours, model_name), Path(output))
    if timeline is None or timeline.whole is None:
        return Rendered(frames, fps, None)
    best = int(timeline.whole.argmax())
    return Rendered(frames, fps, (timeline.class_names[best], float(timeline.whole[best])))


def draw_timelines(timelines: Sequence[tuple[SkeletonSequence, Timeline]], path: str | os.PathLike) -> None:
    """Draw what a model says about every moment of recordings, one below the other, as a PNG picture.

    Below each the segments that it found are bars, or the runs of the likeliest class; those that overlap lie below
    each other.

    Args:
        timelines: Recordings with what is said about them; see `iter_timelines`.
        path: PNG file to write.

    Raises:
        ValueError: If there are more recordings than a picture holds, or none.
    """
    if not 0 < len(timelines) <= _MAX_PLOTS:
        raise ValueError(
            f"{path}: a picture shows 1 to {_MAX_PLOTS} recordings, not {len(timelines)}: write .csv or .json"
        )
    pictures = []
    for sequence, timeline in timelines:
        # What happened is not known by name here.
        recording = Recording(replace(sequence, events=None))
        pictures.append(RecordingView(recording, replace(timeline, segments=timeline.runs()), [], "").picture())
    draw_probability_plots(pictures, path)


class RecordingView:
    """A recording as all outputs show it: title, colours, lines, segments and nearest clips."""

    def __init__(
        self, recording: Recording, timeline: Timeline | None, neighbours: Sequence[Neighbour], model_name: str
    ):
        self.sequence, self.truth_names = recording.sequence, recording.class_names
        self.scene = Scene.of(recording.sequence)
        self.timeline, self.neighbours, self.model_name = timeline, neighbours, model_name
        self.name = recording.sequence.name or "recording"
        self.lines = [] if timeline is None else _lines(timeline)
        names = [] if timeline is None else [timeline.class_names[kind] for kind in self.lines]
        names += [label for _, segments in self.bands for label, *_ in segments]
        # A class has one colour, whoever speaks of it.
        self.colors = {
            label: CLASS_COLORS[place % len(CLASS_COLORS)] for place, label in enumerate(dict.fromkeys(names))
        }
        if timeline is not None and timeline.has_nothing:
            self.colors[timeline.class_names[0]] = NOTHING_COLOR

    @property
    def facts(self) -> list[str]:
        """The recording in a few words."""
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
        """Title, and label, first frame, end and probability of the segments, of what was found and what is true."""
        bands: list[tuple[str, list[tuple[str, int, int, float | None]]]] = []
        if self.timeline is not None and self.timeline.segments is not None:
            names = self.timeline.class_names
            found = [(names[int(kind)], int(a), int(b), float(p)) for kind, a, b, p in self.timeline.segments]
            bands.append(("Detected" if self.timeline.has_nothing else "Likeliest", list(found)))
        if self.sequence.events is not None:
            names = [*self.truth_names]
            events = self.sequence.events[np.argsort(self.sequence.events[:, 1], kind="stable")]
            named = [
                (names[kind] if kind < len(names) else f"class {kind}", a, b, None) for kind, a, b in events.tolist()
            ]
            bands.append(("Labelled", list(named)))
        return bands

    def picture(self) -> Picture:
        """The same for still and moving pictures."""
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
        if timeline is not None and timeline.whole is not None:
            best = int(timeline.whole.argmax())
            title += f": {timeline.class_names[best]} ({100 * timeline.whole[best]:.0f} %)"
        beside = []
        for other in self.neighbours:
            about = f"{other.sequence.name}, similarity {other.similarity:.3f}"
            scene = replace(Scene.of(other.sequence), floor=None)
            beside.append((scene, about if other.label is None else f"{other.label}\n{about}"))
        return Picture(self.scene, title, Chart(lines, bands, "" if timeline is None else timeline.about), beside)


def _lines(timeline: Timeline) -> list[int]:
    """The classes worth a line: those that are likeliest most of the time, then those that ever are likely."""
    values = timeline.probabilities
    kinds = np.arange(1 if timeline.has_nothing else 0, values.shape[1])
    likeliest = np.bincount(values.argmax(1), minlength=values.shape[1])
    order = np.lexsort((-values.max(0)[kinds], -likeliest[kinds]))
    return [int(kind) for kind in kinds[order][:_MOST_LINES]]


def _write_png(story: RecordingView, path: Path) -> tuple[int, float | None]:
    return draw_stills(story.picture(), path), None


def _write_gif(story: RecordingView, path: Path) -> tuple[int, float | None]:
    frames, fps = thinning(story.scene.num_frames, story.scene.rate, _GIF_FRAMES, _GIF_FPS)
    draw_animation(story.picture(), path, frames, fps)
    return len(frames), fps


def _write_page(story: RecordingView, path: Path) -> tuple[int, float | None]:
    scene = story.scene
    every = -(-scene.points.size // _MOST_NUMBERS)
    frames = np.arange(0, scene.num_frames, every)
    bands = [
        {
            "title": title,
            "segments": [
                {"label": label, "color": story.colors[label], "start": start, "end": end, "score": score}
                for label, start, end, score in segments
            ],
        }
        for title, segments in story.bands
    ]
    content = {
        "name": story.name,
        "facts": story.facts + ([f"every {every}th frame shown"] if every > 1 else []),
        "colors": PERSON_COLORS,
        "scene": packed_scene(scene, frames, every),
        "timeline": None if story.timeline is None else _packed_timeline(story, story.timeline, frames),
        "bands": bands,
        "neighbours": [_packed_neighbour(neighbour) for neighbour in story.neighbours],
        "origin": f"By the cosine of embeddings of whole recordings by {story.model_name}",
    }
    write_page("render_template.html", story.name, content, path)
    return len(frames), scene.rate / every


def _packed_timeline(story: RecordingView, timeline: Timeline, frames: np.ndarray) -> dict[str, Any]:
    """Probabilities as the page reads them: 16-bit shares of the classes that are ever likely."""
    names, values = timeline.class_names, timeline.probabilities[frames]
    likely = np.argsort(-values.max(0), kind="stable")
    kinds = list(dict.fromkeys([*story.lines, *likely.tolist()]))[:_MOST_CLASSES]
    said = values.any(1, keepdims=True)
    whole = np.zeros(0) if timeline.whole is None else timeline.whole
    return {
        "about": timeline.about,
        "model": story.model_name,
        "classes": [{"label": names[kind], "color": story.colors.get(names[kind], NOTHING_COLOR)} for kind in kinds],
        "lines": list(range(len(story.lines))),
        "data": packed_base64(
            np.where(said, (values[:, kinds].astype(np.float64) * (NOT_SEEN - 1)).round(), NOT_SEEN)
        ),
        "whole": [
            {"label": names[kind], "probability": float(whole[kind])}
            for place, kind in enumerate(np.argsort(-whole, kind="stable")[:3].tolist())
            if place == 0 or whole[kind] >= 0.05
        ],
    }


def _packed_neighbour(neighbour: Neighbour) -> dict[str, Any]:
    scene = replace(Scene.of(neighbour.sequence), floor=None)
    frames, fps = thinning(scene.num_frames, scene.rate, _CLIP_FRAMES, 15.0)
    played = scene.thinned(frames, fps)
    return {
        "name": neighbour.sequence.name,
        "label": neighbour.label,
        "similarity": neighbour.similarity,
        "scene": packed_scene(played, np.arange(len(frames)), 1),
    }
