"""Maps: recordings as points in a 2D projection of their embeddings, as a page or a picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import SkeletonData, open_data
from ..data.npz import SkeletonDataset
from ..data.reading import Reading
from ..data.remote import is_address
from ..data.sequence_list import SkeletonList
from ..data.store import SkeletonStore
from ..facts.checkpoints import ENCODER
from ..facts.outputs import MAP_SUFFIXES, PROJECTIONS
from ..inference.embedding import iter_embeddings
from ..inference.engine import Engine
from ..inference.source import ErrorHandler, list_files
from ..layouts import Layout, LayoutLike, get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .charts import draw_scatter
from .page import check_output, packed_base64, shown_name, write_page
from .panel import BACKGROUND_COLOR, CLASS_COLORS, PERSON_COLORS
from .scene import Scene

# SVG outlines of points about (0, 0), y down, and matplotlib's markers for them. With eight colours, 48 classes are
# told apart.
_SHAPES = (
    ("M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", "o"),
    ("M-4.4-4.4h8.8v8.8h-8.8z", "s"),
    ("M0-5.8 5.4 4h-10.8z", "^"),
    ("M0-6 6 0 0 6-6 0z", "D"),
    ("M-1.8-5.4h3.6v3.6h3.6v3.6h-3.6v3.6h-3.6v-3.6h-3.6v-3.6h3.6z", "P"),
    ("M0 5.8 5.4-4h-10.8z", "v"),
)
# Frames of a thumbnail, bytes of all thumbnails together, and their frame rate.
_THUMB_FRAMES, _THUMB_BYTES, _THUMB_FPS = 10, 1_400_000, 5.0
# Coordinate of a missing joint.
_UNSEEN = 255


@dataclass(frozen=True, eq=False)
class Map:
    """Recordings as points in two dimensions.

    Attributes:
        positions: ``(N, 2)`` float64, centred on (0, 0).
        names: Names of the recordings.
        labels: Classes ``(N,)``, -1 for none.
        class_names: Names of the classes.
        thumbs: Joints ``(N, F, M, V, 2)`` uint8, y up, 255 for a missing joint; each recording is scaled to 0..254.
        layout: Layout of the joints.
        sides: Side of each joint ``(V,)``: -1 left, 1 right, 0 neither.
        about: The projection, in words.
    """

    positions: np.ndarray
    names: Sequence[str]
    labels: np.ndarray
    class_names: Sequence[str]
    thumbs: np.ndarray
    layout: Layout
    sides: np.ndarray
    about: str


def project_pca(embeddings: np.ndarray, seed: int = 0) -> tuple[np.ndarray, str]:
    """Project L2-normalised embeddings to their first two principal components.

    Args:
        embeddings: ``(N, D)``.
        seed: Not used.

    Returns:
        Positions ``(N, 2)`` float64, and a description with the explained variance.
    """
    unit = _centred(embeddings)
    values, vectors = np.linalg.eigh(unit.T @ unit)
    axes = vectors[:, ::-1][:, :2]
    # The sign of an axis is arbitrary: make its largest entry positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    total = max(float(values.sum()), 1e-12)
    share = float(values[::-1][:2].clip(0).sum()) / total
    positions = np.pad(unit @ axes, ((0, 0), (0, 2 - axes.shape[1])))
    return positions, f"First two principal components of the embeddings, {100 * share:.0f} % of the variance"


def project_tsne(embeddings: np.ndarray, seed: int = 0) -> tuple[np.ndarray, str]:
    """Project L2-normalised embeddings with t-SNE (van der Maaten 2008), which preserves neighbourhoods.

    Args:
        embeddings: ``(N, D)``.
        seed: Random seed.

    Returns:
        Positions ``(N, 2)`` float64, and a description.

    Raises:
        ValueError: If scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise ValueError("the projection tsne needs scikit-learn: pip install 'usdrl-hub[map]', or use pca") from None
    unit = _centred(embeddings)
    perplexity = max(min(30.0, (len(unit) - 1) / 3), 1.0)
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit.astype(np.float32))
    about = "t-SNE of the embeddings, which preserves neighbours but not distances between groups"
    return found.astype(np.float64) - found.mean(0), about


PROJECTORS: dict[str, Callable[[np.ndarray, int], tuple[np.ndarray, str]]] = dict(
    zip(PROJECTIONS, (project_pca, project_tsne), strict=True)
)


def _centred(embeddings: np.ndarray) -> np.ndarray:
    unit = embeddings.astype(np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    return unit - unit.mean(0)


def make_map(
    source: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence],
    model: Any = ENCODER,
    *,
    projection: str = "pca",
    max_recordings: int = 5000,
    seed: int = 0,
    reading: Reading = Reading(),
    batch_size: int = 64,
    on_error: ErrorHandler | None = None,
) -> Map:
    """Embed recordings and project the embeddings to two dimensions.

    Args:
        source: A data set or store, or its file or folder; a folder of recordings; or sequences.
        model: A checkpoint's name, folder or hub repository; a loaded model; or an `Engine`.
        projection: One of `PROJECTIONS`.
        max_recordings: If there are more recordings, a random subset of this size is embedded.
        seed: Random seed of the subset and of t-SNE.
        reading: What the files do not say themselves.
        batch_size: Clips embedded at once.
        on_error: Called with the error of an input that cannot be used and is skipped; None raises the error.

    Raises:
        SkeletonFormatError: If there are fewer than two recordings.
        CheckpointLoadError: If the model cannot be loaded.
        ValueError: If the projection is unknown or not installed, or `max_recordings` is below 2.
    """
    if projection not in PROJECTIONS:
        raise ValueError(f"there is no projection '{projection}': use one of {', '.join(PROJECTIONS)}")
    if max_recordings < 2:
        raise ValueError(f"a map needs at least two recordings, not {max_recordings}")
    engine = Engine.load(model, head=False)
    extractor = engine.extractor
    chosen, class_names, total = _sample(source, max_recordings, seed, reading.layout)
    names, labels, thumbs, embeddings = [], [], [], []
    stream = iter_embeddings(chosen, engine, reading=reading, batch_size=batch_size, on_error=on_error)
    for sequence, embedding in stream:
        names.append(sequence.name)
        labels.append(-1 if sequence.label is None else sequence.label)
        thumbs.append(thumbnail(extractor.persons.kept(sequence)))
        embeddings.append(embedding)
    if len(names) < 2:
        raise SkeletonFormatError(f"a map needs at least two recordings that fit the model, not {len(names)}")
    positions, about = PROJECTORS[projection](np.stack(embeddings), seed)
    about += f"; a random sample of {len(names)} of {total} recordings" if total > len(names) else ""
    model_layout = get_layout(extractor.layout)
    return Map(
        positions,
        names,
        np.array(labels),
        [*class_names, *(f"class {number}" for number in range(len(class_names), max(labels) + 1))],
        stack_thumbnails(thumbs),
        model_layout,
        Scene(np.zeros(0), np.zeros(0), model_layout).sides,
        f"{about}; by {shown_name(model)}",
    )


def _sample(source: Any, max_recordings: int, seed: int, layout: LayoutLike | None) -> tuple[Any, Sequence[str], int]:
    """A random subset of recordings or files, the names of the classes, and the number of recordings in all."""
    data: Any = source
    if is_address(source):
        data = open_data(source, layout)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        is_folder = path.is_dir()
        files = list_files(path)
        data = files if is_folder and files != [path] else open_data(path, layout)
    elif not isinstance(source, SkeletonDataset | SkeletonStore | SkeletonList):
        data = list(source)
    names = getattr(data, "class_names", [])
    if len(data) <= max_recordings:
        return data, names, len(data)
    indices = np.sort(np.random.default_rng(seed).choice(len(data), max_recordings, replace=False))
    if isinstance(data, list):
        return [data[index] for index in indices], names, len(data)
    return data.select(np.isin(np.arange(len(data)), indices)), names, len(data)


def thumbnail(sequence: SkeletonSequence) -> np.ndarray:
    """Ten evenly spaced frames of a recording, projected: ``(F, M, V, 2)`` uint8, see `Map`."""
    seen = np.flatnonzero(sequence.keypoints.any((1, 2, 3)))
    frames = seen[np.linspace(0, len(seen) - 1, _THUMB_FRAMES).round().astype(int)]
    scene = replace(Scene.of(replace(sequence, keypoints=sequence.keypoints[frames], events=None)), floor=None)
    projected, _ = scene.projected(scene.points.astype(np.float64))
    found = projected[scene.seen]
    low, high = found.min(0), found.max(0)
    span = max(float((high - low).max()), 1e-9)
    steps = (127 + (projected - (low + high) / 2) / span * 254).round().clip(0, _UNSEEN - 1)
    return np.where(scene.seen[..., None], steps, _UNSEEN).astype(np.uint8)


def stack_thumbnails(thumbs: Sequence[np.ndarray]) -> np.ndarray:
    """Stack thumbnails ``(N, F, M, V, 2)``, with fewer frames if there are many."""
    persons = max(thumb.shape[1] for thumb in thumbs)
    size = len(thumbs) * persons * thumbs[0].shape[2] * 2
    count = int(np.clip(_THUMB_BYTES // size, 1, _THUMB_FRAMES))
    # A single frame is the middle one.
    frames = np.linspace(0, _THUMB_FRAMES - 1, count).round().astype(int) if count > 1 else [_THUMB_FRAMES // 2]
    stacked = np.full((len(thumbs), count, persons, *thumbs[0].shape[2:]), _UNSEEN, dtype=np.uint8)
    for number, thumb in enumerate(thumbs):
        stacked[number, :, : thumb.shape[1]] = thumb[frames]
    return stacked


def draw_map(
    source: Map | str | os.PathLike | SkeletonData | Iterable[SkeletonSequence],
    output: str | os.PathLike,
    model: Any = ENCODER,
    title: str | None = None,
    **choices: Any,
) -> Map:
    """Draw a map of recordings, coloured by class.

    Args:
        source: Recordings, see `make_map`; or a `Map`.
        output: File to write: ``.html``, a self-contained page that shows the name and the moving skeleton of a point;
            or ``.png``.
        model: A checkpoint's name, folder or hub repository; a loaded model; or an `Engine`.
        title: Heading; by default the name of the source file.
        **choices: Other arguments of `make_map`; none for a `Map`.

    Returns:
        The map.

    Raises:
        SkeletonFormatError: If there are fewer than two recordings.
        CheckpointLoadError: If the model cannot be loaded.
        ValueError: If an argument is invalid or `output` has another suffix.

    Example:
        >>> from usdrl_hub import draw_map
        >>> from usdrl_hub.data.samples import load_samples
        >>> len(draw_map(load_samples(), "map.html").names)
        100
    """
    kind = check_output(output, MAP_SUFFIXES, "a map is drawn")
    if title is None:
        title = Path(source).resolve().stem if isinstance(source, str | os.PathLike) else "recordings"
    if isinstance(source, Map) and choices:
        raise ValueError(f"'{next(iter(choices))}' has no effect on a Map: give it to make_map")
    made = source if isinstance(source, Map) else make_map(source, model, **choices)
    looks = _looks(made)
    if kind == ".png":
        rows = [(label, color, _SHAPES[shape][1], made.labels == number) for number, label, color, shape in looks]
        draw_scatter(made.positions, rows, title, made.about, output)
    else:
        write_page("map_template.html", title, _content(made, looks, title), Path(output))
    return made


def _looks(made: Map) -> list[tuple[int, str, str, int]]:
    """Number, name, colour and shape of each class that occurs, unlabelled recordings last."""
    found, colors = np.unique(made.labels), len(CLASS_COLORS)
    looks = [
        (number, str(made.class_names[number]), CLASS_COLORS[index % colors], index // colors % len(_SHAPES))
        for index, number in enumerate(found[found >= 0].tolist())
    ]
    return looks + [(-1, "no label", BACKGROUND_COLOR, 0)] * int((found < 0).any())


def _content(made: Map, looks: Sequence[tuple[int, str, str, int]], title: str) -> dict[str, Any]:
    low, high = made.positions.min(0), made.positions.max(0)
    span = max(float((high - low).max()), 1e-12)
    numbers = [number for number, *_ in looks]
    classes = sum(number >= 0 for number in numbers)
    kinds = np.array([numbers.index(label) for label in made.labels.tolist()])
    return {
        "name": title,
        "facts": [f"{len(made.names)} recordings", *([f"{classes} classes"] if classes else [])],
        "about": made.about,
        "names": list(made.names),
        "positions": packed_base64(((made.positions - low) / span * 65535).round()),
        "extent": np.maximum((high - low) / span, 1e-3).tolist(),
        "kinds": packed_base64(kinds),
        "classes": [
            {"label": label, "color": color, "shape": shape, "count": int((made.labels == number).sum())}
            for number, label, color, shape in looks
        ],
        "shapes": [path for path, _ in _SHAPES],
        "thumbs": {
            "frames": made.thumbs.shape[1],
            "persons": made.thumbs.shape[2],
            "joints": made.thumbs.shape[3],
            "edges": [list(pair) for pair in made.layout.edges],
            "sides": made.sides.tolist(),
            "colors": PERSON_COLORS,
            "fps": _THUMB_FPS,
            "data": packed_base64(made.thumbs, "u1"),
        },
    }
