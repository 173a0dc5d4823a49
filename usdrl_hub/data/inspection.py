"""What files of recordings are, as they are read: kind, layout, people, frames, unit, up, and what is passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import UNREADABLE, notice, unreadable
from ..layouts import get_layout, seen_joints
from ..sequence import METRES, SkeletonFormatError, SkeletonSequence
from .dataset import open_data
from .detections import load_json
from .formats.amass import is_amass
from .formats.bodies import height_of
from .formats.gcn_arrays import is_ctr_gcn
from .formats.sniffing import array_names, is_uav, kind_of
from .parallel import ReadingPool, with_notices
from .poses import program_of
from .readers import count_endings, find_videos, is_video, iter_skeletons, walk
from .reading import Reading
from .remote import is_address
from .series import frame_files, is_series
from .store import SkeletonStore, is_store

# Reads the facts of a video's container, in place of its pictures: the keys of `FileFacts.film`.
FilmReader: TypeAlias = Callable[[Path], Mapping[str, Any]]
# Kinds of files by `sniffing.kind_of`: their names for readers, and where their layout comes from.
_KINDS = {
    "body text": ("NTU RGB+D", "file"),
    "npy": ("NumPy array", "number of joints"),
    "npz": ("NumPy arrays", "number of joints"),
    "pickle": ("pyskl pickle", "number of joints"),
    "json": ("JSON array", "number of joints"),
    "table": ("table", "names"),
    "numbers": ("lines of numbers", "number of joints"),
    "bvh": ("BVH", "names"),
    "amc": ("ASF/AMC", "file"),
    "c3d": ("C3D", "names"),
    "trc": ("TRC", "names"),
    "mvnx": ("MVNX", "file"),
    "pose-format": (".pose", "names"),
}
# Programs whose files have one layout.
_OF_ONE_LAYOUT = {"Kinetics-skeleton", "Azure Kinect", "KERAAL", "CMU Panoptic", "ViTPose", "MediaPipe"}


@dataclass(frozen=True)
class RecordingFacts:
    """What a recording is.

    Attributes:
        name: Its name.
        layout: Name of its joint layout.
        joints: Joints of a body.
        people: People in it.
        frames: Frames.
        fps: Frames per second, or None if unknown.
        seconds: Duration, or None if unknown.
        coordinates: ``"3d"``, ``"2d"`` or ``"2d+score"``.
        units: ``"m"`` for 3D keypoints of files, ``"px"`` for 2D.
        file_units: Unit of 3D keypoints as the file says it, or None.
        up: Axis of 3D keypoints that points up, or None for 2D.
        height: Height of the bodies in metres by their bones, in any pose (median); None for 2D, or where no leg and
            trunk are seen together.
        unseen: Share of the joints that are not seen, of people in frames in which they are, in [0, 1].
        empty_frames: Frames without any person.
        image_shape: Height and width in pixels of the image of 2D keypoints, or None.
        label: Class index, or None.
    """

    name: str
    layout: str
    joints: int
    people: int
    frames: int
    fps: float | None
    seconds: float | None
    coordinates: str
    units: str
    file_units: str | None
    up: str | None
    height: float | None
    unseen: float
    empty_frames: int
    image_shape: tuple[float, float] | None
    label: int | None

    @classmethod
    def of(cls, sequence: SkeletonSequence, file_units: str | None = None) -> RecordingFacts:
        """The facts of a sequence; `file_units` is the unit that its file says."""
        layout = get_layout(sequence.layout)
        keypoints = sequence.keypoints
        seen = seen_joints(keypoints, sequence.coordinates == "2d+score")
        there = seen.any(-1)
        height = height_of(keypoints, layout) if sequence.is_3d else None
        return cls(
            name=sequence.name,
            layout=layout.name,
            joints=layout.num_joints,
            people=int(there.any(0).sum()),
            frames=sequence.num_frames,
            fps=sequence.fps,
            seconds=None if sequence.fps is None else sequence.num_frames / sequence.fps,
            coordinates=str(sequence.coordinates),
            units=sequence.units if sequence.is_3d else "px",
            file_units=file_units if sequence.is_3d else None,
            up=(sequence.up or layout.up) if sequence.is_3d else None,
            height=None if height is None else height * METRES[sequence.units],
            unseen=float((there[..., None] & ~seen).sum() / max(there.sum() * layout.num_joints, 1)),
            empty_frames=int((~there.any(1)).sum()),
            image_shape=sequence.image_shape,
            label=sequence.label,
        )


@dataclass(frozen=True)
class FileFacts:
    """What a file is.

    Attributes:
        path: The file; a pattern such as ``NAME_*_keypoints.json`` for a file per frame; or a store.
        kind: Kind of file, such as "BVH"; empty if it is none that is read.
        layout_from: Where the layout comes from: "given", "file" (it says it, or its kind has one), "names" (guessed
            from the names of joints, markers or columns) or "number of joints" (guessed).
        recordings: Those in it that can be read.
        notes: Guesses, repairs and omissions while it was read, as messages with their kinds.
        problems: Why it, or recordings in it, cannot be read.
        film: Of a video: `frames`, `fps`, `seconds`, `width` and `height`, each None where the container does not say.
    """

    path: str
    kind: str = ""
    layout_from: str = ""
    recordings: tuple[RecordingFacts, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    film: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        facts = asdict(self) | {"notes": [message for message, _ in self.notes]}
        return {key: value for key, value in facts.items() if key != "film" or value is not None}


@dataclass(frozen=True)
class _NotingReading(Reading):
    """A reading that notes the unit which a file says."""

    units_said: list[str | None] = field(default_factory=list, compare=False)

    def complete(self, sequence: SkeletonSequence, units: str | None = None) -> SkeletonSequence:
        """Complete a sequence, see `Reading.complete`."""
        self.units_said.append(units)
        return super().complete(sequence, units)


def inspect_file(path: str | os.PathLike, reading: Reading = Reading(), film: FilmReader | None = None) -> FileFacts:
    """Read a file completely and say what it is.

    Args:
        path: A recording, a data set, a store, a video, or a pattern for a file per frame.
        reading: What the file does not say.
        film: Reads the facts of a video's container; without it, videos are refused.

    Returns:
        The facts; a file that cannot be read has its error among the problems.
    """
    facts, notes = with_notices(partial(_inspect, reading=reading, film=film), Path(path))
    return FileFacts(**{**facts.__dict__, "notes": tuple(notes)})


def inspect_files(
    paths: Iterable[str | os.PathLike],
    reading: Reading = Reading(),
    *,
    film: FilmReader | None = None,
    workers: int = 1,
) -> Iterator[FileFacts]:
    """Inspect several files in order, see `inspect_file`; `files_to_inspect` finds those of a folder.

    Args:
        paths: The files.
        reading: What they do not say.
        film: See `inspect_file`.
        workers: Processes that read.
    """
    with ReadingPool(workers) as pool:
        yield from pool.map(partial(inspect_file, reading=reading, film=film), paths)


def files_to_inspect(path: str | os.PathLike) -> list[Path]:
    """The recordings and videos in a folder and its subfolders, sorted; a single file or store by itself.

    A warning counts the other files in the folder, by their endings.

    Raises:
        SkeletonFormatError: If there is no recording and no video in the folder.
    """
    path = Path(path)
    if not path.is_dir() or is_store(path):
        return [path]
    if (path / "config.json").is_file():
        raise SkeletonFormatError(f"{path}: it is a model, not recordings: 'usdrl check' reads it")
    recordings, others = walk(path)
    files = sorted([*recordings, *find_videos(path)])
    passed = Counter({suffix: count for suffix, count in others.items() if not is_video(f"x{suffix}")})
    shown = count_endings(passed)
    if not files:
        beside = f" ({shown})" if shown else ""
        raise SkeletonFormatError(f"{path}: there is no recording and no video in this folder{beside}")
    if passed:
        notice(f"{path}: other files are passed over: {shown}", "files passed over")
    return files


def _inspect(path: Path, reading: Reading, film: FilmReader | None) -> FileFacts:
    where = str(path)
    problems: list[str] = []
    recordings: list[RecordingFacts] = []
    if is_video(path) and film is not None:
        try:
            return FileFacts(where, "video", film=film(path))
        except UNREADABLE as error:
            return FileFacts(where, problems=(str(unreadable(error, where)),))
    noting = _NotingReading(**{name: getattr(reading, name) for name in Reading.__dataclass_fields__})

    def note(error: SkeletonFormatError) -> None:
        problems.append(str(error))

    kind = origin = ""
    try:
        if is_address(path):
            data = open_data(path, reading.layout, keypoints=reading.keypoints)
            (kind, origin), found = ("data set", "file"), data.iterate(note)
        elif is_store(path):
            (kind, origin), found = ("store", "file"), SkeletonStore.open(path).iterate(note)
        else:
            (kind, origin), found = _describe(path), iter_skeletons(path, noting, on_error=note)
        for sequence in found:
            recordings.append(RecordingFacts.of(sequence, noting.units_said[-1] if noting.units_said else None))
    except UNREADABLE as error:
        problems.append(str(unreadable(error, where)))
    if kind in ("NumPy array", "NumPy arrays") and len(recordings) > 1:
        kind = "2s-AGCN"
    if origin != "file" and reading.layout is not None:
        origin = "given"
    return FileFacts(where, kind, origin, tuple(recordings), problems=tuple(problems))


def _describe(path: Path) -> tuple[str, str]:
    """The kind of a file and where its layout comes from, as `FileFacts` names them; empty where it is no file."""
    if is_series(path):
        first = next(iter(frame_files(path).values()))
        program = "Ultralytics" if first.suffix.lower() == ".txt" else program_of(load_json(first))
        return f"{program}, a file per frame", _origin(program)
    if not path.is_file():
        return "", ""
    kind = kind_of(path)
    if kind == "json":
        content = load_json(path)
        if (program := program_of(content)) is not None:
            return program, _origin(program)
        name, origin = _KINDS["json"]
        return name, "file" if isinstance(content, dict) and "layout" in content else origin
    if kind == "body text" and is_uav(path):
        return "UAV-Human", "file"
    if kind == "npz":
        names = array_names(path)
        if is_amass(path):
            return "AMASS", "file"
        if is_ctr_gcn(names):
            return "CTR-GCN", "file"
        if "offsets" in names:
            return "data set", "file"
        if {"reconstruction", "positions_3d"} & names:
            return "VideoPose3D", "file"
    return _KINDS.get(str(kind), ("", ""))


def _origin(program: str | None) -> str:
    return "file" if program in _OF_ONE_LAYOUT else "number of joints"


def summary_of(files: Sequence[FileFacts]) -> dict[str, Any]:
    """Sums over files.

    Returns:
        `files`, `unreadable` (files of which nothing is read), `recordings`, `problems`, `frames`, `seconds` of those
        whose rate is known, `without_rate` (recordings whose rate is not), and how many files have each of the `kinds`
        and recordings each of the `layouts`.
    """
    recordings = [recording for facts in files for recording in facts.recordings]
    read = [facts for facts in files if facts.recordings or facts.film]
    return {
        "files": len(files),
        "unreadable": len(files) - len(read),
        "recordings": len(recordings),
        "problems": sum(len(facts.problems) for facts in files),
        "frames": sum(recording.frames for recording in recordings),
        "seconds": sum(recording.seconds or 0 for recording in recordings),
        "without_rate": sum(recording.seconds is None for recording in recordings),
        "kinds": dict(Counter(facts.kind for facts in read)),
        "layouts": dict(Counter(recording.layout for recording in recordings)),
    }
