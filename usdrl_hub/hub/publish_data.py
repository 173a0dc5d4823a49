"""A data set to a repository on the Hugging Face Hub: Parquet files that its viewer shows, and a card."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from string import Template
from typing import Any

import numpy as np
from huggingface_hub import DatasetCardData

from ..data.dataset import SkeletonData, open_data
from ..data.parquet_writer import write_parquet
from ..data.readers import find_recordings
from ..data.sequence_list import SkeletonList
from ..data.store import is_store
from ..files import scratch_folder
from ..inference.source import Source
from ..layouts import Layout
from ..sequence import SkeletonSequence
from ..visualize.pictures import Picture, draw_animation, draw_rows
from ..visualize.scene import Scene, frames_to_draw
from .cards import GENERATED, as_table, escaped
from .evaluations import BENCHMARK, benchmark_of
from .publish import Published
from .upload import TOKEN, Commit, PublishError, repository_name, upload

_TEMPLATE = Path(__file__).parent / "dataset_template.md"
PICTURE, ANIMATION = "classes.png", "preview.gif"
# Classes and frames that are drawn, and playback rate.
_DRAWN_CLASSES, _DRAWN_FRAMES, _DRAWN_FPS = 12, 60, 12
# Identifiers of licences that the hub knows, by which most data are shared; any other of its form is taken, too.
LICENSES = ("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "odc-by", "odbl", "pddl", "mit")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def publish_data(
    source: Any, repo_id: str, license: str | None, *, commit: Commit | None = None, dry_run: bool = False
) -> Published:
    """Publish labelled recordings as a data set repository, in a single commit.

    Args:
        source: What `open_data` opens: a store, an ``.npz`` file, sequences; or a folder of recordings.
        repo_id: ``owner/name``; a bare name gets the namespace of this project.
        license: The licence under which the recordings may be used, in the hub's spelling, such as ``cc-by-4.0``;
            "other" if the card's owner describes it there.
        commit: Message, branch, pull request, visibility and token.
        dry_run: Only return what would be published; nothing is sent.

    Returns:
        The files, and where they were published.

    Raises:
        PublishError: If no licence is named, a name holds a path of this machine or what looks like a token, or the
            hub refuses or is unreachable.
        SkeletonFormatError: If the data cannot be read.
        ImportError: If `datasets` is not installed.
    """
    repo_id = repository_name(repo_id)
    if license is None:
        raise PublishError(
            f"{repo_id}: name the licence under which others may use the recordings: --license {LICENSES[1]}, "
            f"{LICENSES[0]}, {LICENSES[3]}, or another of the hub; of recorded people you need their consent"
        )
    if not _LICENSE.fullmatch(license):
        raise PublishError(f"'{license}' is no licence in the hub's spelling, such as {', '.join(LICENSES[:4])}")
    data = _opened(source)
    _check_private(data)
    with scratch_folder() as scratch:
        written = write_parquet(data, scratch)
        files = {f"data/{name}": scratch / name for names in written.values() for name in names}
        draw_classes(data, scratch / PICTURE)
        draw_preview(data, scratch / ANIMATION)
        card = scratch / "README.md"
        card.write_text(render_dataset_card(data, repo_id, license, list(written)), "utf-8")
        files |= {name: scratch / name for name in ("README.md", PICTURE, ANIMATION)}
        if (benchmark := benchmark_of(data, repo_id)) is not None:
            (scratch / BENCHMARK).write_text(benchmark, "utf-8")
            files[BENCHMARK] = scratch / BENCHMARK
        sizes = {name: path.stat().st_size for name, path in sorted(files.items())}
        if dry_run:
            return Published(repo_id, sizes)
        url, changed = upload(repo_id, files, commit or Commit(), kind="dataset", stale=("data/*.parquet", BENCHMARK))
    return Published(repo_id, sizes, url, changed)


def _opened(source: Any) -> SkeletonData:
    """A data set; of a folder its recordings, whose classes are its folders."""
    path = Path(source) if isinstance(source, str | Path) else None
    if path is None or not path.is_dir() or is_store(path):
        return open_data(source).drop_empty()
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and find_recordings(entry))
    sequences = []
    for sequence in Source(path):
        folder = sequence.name.partition("/")[0]
        sequences.append(replace(sequence, label=classes.index(folder)) if folder in classes else sequence)
    return SkeletonList(sequences, classes if any(one.label is not None for one in sequences) else ())


def _check_private(data: SkeletonData) -> None:
    """Refuse what tells of this machine, or opens an account."""
    subjects = data.column("subjects")
    people = [] if subjects is None or subjects.dtype.kind in "iuf" else np.unique(subjects).tolist()
    for what, names in (("recording", data.names), ("class", data.class_names), ("person", people)):
        for name in map(str, names):
            if TOKEN.search(name):
                raise PublishError(
                    f"the name of a {what} holds what looks like an access token: rename it, and revoke it"
                )
            if name.startswith(("/", "~", "\\\\")) or PureWindowsPath(name).is_absolute():
                raise PublishError(f"the name of a {what} is a path of this machine, '{name[:60]}': rename it")


def draw_classes(data: SkeletonData, path: Path) -> None:
    """Draw the first clip of each class, of at most twelve; of data without classes, the first recordings."""
    labels = data.column("labels")
    if labels is None:
        chosen = [(number, data.names[number]) for number in range(min(len(data), 6))]
    else:
        first = {int(label): number for number, label in reversed(list(enumerate(labels))) if label >= 0}
        chosen = [(first[label], data.class_names[label]) for label in sorted(first)[:_DRAWN_CLASSES]]
    draw_rows([Picture(Scene.of(_short(data[number])), title) for number, title in chosen], path, 5)


def draw_preview(data: SkeletonData, path: Path) -> None:
    """Draw a recording from the middle of the data as an animation."""
    sequence = _short(data[len(data) // 2])
    scene = Scene.of(sequence)
    frames, fps = frames_to_draw(scene.num_frames, scene.rate, _DRAWN_FRAMES, _DRAWN_FPS)
    title = sequence.name if sequence.label is None else data.class_names[sequence.label]
    draw_animation(Picture(scene, title), path, frames, fps)


def _short(sequence: SkeletonSequence) -> SkeletonSequence:
    return replace(sequence, keypoints=sequence.keypoints[:600], events=None)


def render_dataset_card(data: SkeletonData, repo_id: str, license: str, splits: Sequence[str]) -> str:
    """Markdown of a data set's card, with the hub's metadata header.

    Args:
        data: The data set.
        repo_id: Its repository.
        license: Its licence, in the hub's spelling.
        splits: Its splits.
    """
    size = next((text for limit, text in _SIZES if len(data) < limit), "1M<n<10M")
    metadata = DatasetCardData(
        license=license,
        pretty_name=repo_id.partition("/")[2],
        task_categories=["video-classification"],
        tags=["usdrl", "skeleton", "human-motion", "pose"],
        size_categories=size,
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
    ).to_yaml()
    body = Template(_TEMPLATE.read_text("utf-8")).substitute(_facts(data, repo_id, license, splits))
    return f"---\n{metadata}\n---\n\n{GENERATED}\n\n{body}"


def _facts(data: SkeletonData, repo_id: str, license: str, splits: Sequence[str]) -> Mapping[str, Any]:
    layout, lengths, labels = data.layout, data.lengths, data.column("labels")
    frames, first = int(lengths.sum()), data[0]
    known = [] if labels is None else [int(label) for label in labels if label >= 0]
    tests = data.column("split_test")
    sides = Counter("test" if test else "train" for test in tests) if tests is not None and tests.ndim == 1 else None
    extra = ", ".join(f"`{name}`" for name in data.extra_columns)
    people, subjects = _people(data)
    classes = "The recordings have no classes."
    if known:
        counts = Counter(known)
        rows = [(escaped(data.class_names[label]), str(counts[label])) for label in sorted(counts)]
        classes = as_table(("class", "recordings"), rows)
    missing = [] if subjects else ["who moves is not known, so people may be on both sides of a split of them"]
    if first.fps is None:
        missing.append("the frame rate of some recordings is not known")
    missing.append(
        "nothing is stated here of consent, of the sensor's errors, or of whom these people do not represent: the "
        "owner may add it"
    )
    return {
        "name": repo_id,
        "address": f"hf://datasets/{repo_id}",
        "summary": f"{len(data)} recordings of moving people as {layout.num_joints} joints"
        + (f" in {len(set(known))} classes." if known else "."),
        "picture": PICTURE,
        "animation": ANIMATION,
        "recordings": f"{len(data)}, of {int(lengths.min())} to {int(lengths.max())} frames, {frames} in all",
        "people": people,
        "keypoints": f"{layout.num_joints} joints of layout `{layout.name}`, {layout.coordinates}",
        "rate": "not known" if first.fps is None else f"{first.fps:g} frames per second (that of the first recording)",
        "parts": "none" if sides is None else f"{sides['train']} train, {sides['test']} test",
        "license": f"`{license}`",
        "split": splits[0],
        "unit": _unit(first, layout),
        "columns": f" Further: {extra}." if extra else "",
        "layout": layout.name,
        "joints": ", ".join(map(escaped, layout.joint_names)),
        "classes": classes,
        "limits": ". ".join(sentence[0].upper() + sentence[1:] for sentence in missing) + ".",
    }


def _people(data: SkeletonData) -> tuple[str, int]:
    subjects = data.column("subjects")
    known = set() if subjects is None else {str(value) for value in subjects if str(value) not in ("", "-1", "nan")}
    at_once = f"at most {data.max_persons} at once" if data.max_persons > 1 else "one at a time"
    return (f"{len(known)}, {at_once}" if known else f"not known who, {at_once}"), len(known)


def _unit(sequence: SkeletonSequence, layout: Layout) -> str:
    if not layout.is_3d:
        return "x and y in pixels or as given, y down" + (", and a score" if layout.coordinates == "2d+score" else "")
    return f"unit {sequence.units or 'm'}, {(sequence.up or layout.up)} up"
