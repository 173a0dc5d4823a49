"""`Source`: recordings from files, folders, data sets, arrays and sequences, one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from ..data.dataset import open_data
from ..data.npz import SkeletonDataset
from ..data.parallel import ReadingPool
from ..data.readers import SUFFIXES, find_recordings, find_videos, is_video, iter_skeletons
from ..data.reading import Reading
from ..data.remote import is_address
from ..data.sequence_list import SkeletonList
from ..data.series import recording_name
from ..data.store import SkeletonStore, is_store
from ..distributed import Workers
from ..errors import UNREADABLE, USDRLError, notice, unreadable
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..sequence import SkeletonFormatError, SkeletonSequence, is_nested_numbers
from .video import VideoReading

# Called with the error of an input that cannot be used, which is then left out; None raises it.
ErrorHandler = Callable[[USDRLError], None]


class Source:
    """Recordings from files, folders, data sets, arrays and sequences, one after another.

    Iterating yields a `SkeletonSequence` each. One in a folder is named by its path below the folder, without the
    suffix.

    Attributes:
        inputs: A file, a folder, a data set, a `SkeletonSequence`, an array, or an iterable of any of these.
        reading: What the inputs do not say themselves.
        each_person: Whether `prepared` makes every person a recording of their own, named ``<name>#<index>``.
        on_error: Called with the error of an input that cannot be used, which is then left out; None raises it.
        videos: How videos are read. A folder's videos are read if there is no other recording in it, or if a pose
            estimator is named here.
        folder: Folder that the files given as `inputs` lie in, below which they are named; None names them alone.
        workers: Processes that read files, where there are several; videos and stores are read in this one.
    """

    def __init__(
        self,
        inputs: Any,
        reading: Reading = Reading(),
        *,
        each_person: bool = False,
        on_error: ErrorHandler | None = None,
        videos: VideoReading | None = None,
        folder: str | os.PathLike | None = None,
        workers: int = 1,
    ):
        # An empty path would be the current folder.
        if inputs is None or isinstance(inputs, int | float) or (isinstance(inputs, str) and not inputs):
            raise SkeletonFormatError(f"{inputs!r} is no recording: give a file, a folder, an array or a list of them")
        self.inputs: Any = inputs.detach().cpu().float().numpy() if isinstance(inputs, torch.Tensor) else inputs
        self.reading = reading
        if is_address(inputs):
            self.inputs = open_data(inputs, reading.layout, keypoints=reading.keypoints)
        self.each_person = each_person
        self.on_error = on_error
        self.videos = videos or VideoReading()
        self.folder = folder
        self.workers = workers
        self._extractor: USDRLFeatureExtractor | None = None

    @property
    def is_stream(self) -> bool:
        """Whether the inputs may arrive one by one while the caller waits."""
        if isinstance(self.inputs, Source):
            return self.inputs.is_stream
        at_rest = (str, os.PathLike, Sequence, np.ndarray, SkeletonSequence, SkeletonDataset, SkeletonStore)
        return not isinstance(self.inputs, at_rest)

    def share(self, workers: Workers, block: int, without: Path | None = None) -> Source:
        """The part of a file or folder that one of several processes reads.

        Args:
            workers: The processes.
            block: Recordings of a data set that stay together, see `Workers.share`.
            without: A file in the folder that is not a recording, such as an older result.

        Returns:
            A source whose `inputs` are a list of files, or the part of a single data set.

        Raises:
            SkeletonFormatError: If there is no recording.
        """
        if isinstance(self.inputs, SkeletonStore | SkeletonList):
            mask = np.zeros(len(self.inputs), dtype=bool)
            mask[workers.share(len(self.inputs), block)] = True
            return self._with(self.inputs.select(mask), self.reading, None)
        files = list_files(self.inputs, self.videos.estimator is not None)
        if without is not None:
            files = [file for file in files if file.resolve() != without.resolve()]
        mine: Any = files[workers.share(len(files), 1)]
        if workers.count > 1 and len(files) == 1 and (is_store(files[0]) or files[0].suffix == ".npz"):
            try:
                whole = open_data(files[0], self.reading.layout)
            except SkeletonFormatError:
                # It is a single recording, or the reader reports the error.
                pass
            else:
                mask = np.zeros(len(whole), dtype=bool)
                mask[workers.share(len(whole), block)] = True
                mine = whole.select(mask)
        return self._with(mine, self.reading, self.inputs)

    def __iter__(self) -> Iterator[SkeletonSequence]:
        """Yield the recordings as they were read.

        Raises:
            SkeletonFormatError: If one cannot be read; see `on_error`.
        """
        inputs = self.inputs
        if isinstance(inputs, SkeletonDataset | SkeletonStore):
            yield from self._data(inputs)
            return
        if isinstance(inputs, np.ndarray) or is_nested_numbers(inputs):
            yield from self.reading.sequences(inputs)
            return
        single = isinstance(inputs, str | os.PathLike | SkeletonSequence)
        if self.workers > 1 and (single or isinstance(inputs, Sequence)):
            yield from self._in_processes([inputs] if single else inputs)
            return
        for number, item in enumerate([inputs] if single else inputs):
            try:
                yield from self._item(item, number)
            except SkeletonFormatError as error:
                self._report(error)

    def _in_processes(self, items: Sequence[Any]) -> Iterator[SkeletonSequence]:
        """Yield the recordings of inputs whose files several processes read."""
        parts = [self._files_of(item) if isinstance(item, str | os.PathLike) else [item] for item in items]
        paths = [part for found in parts for part in found if isinstance(part, Path)]
        with ReadingPool(self.workers) as pool:
            read = pool.map(partial(_read_whole, reading=self.reading), paths)
            for number, (item, found) in enumerate(zip(items, parts, strict=True)):
                for part in found:
                    try:
                        if isinstance(part, Path):
                            folder = Path(item if self.folder is None else self.folder)
                            yield from self._file(part, folder, next(read))
                        else:
                            yield from self._item(part, number)
                    except SkeletonFormatError as error:
                        self._report(error)

    def _files_of(self, item: str | os.PathLike) -> list[Path]:
        try:
            return (
                [Path(item)]
                if is_store(item) or is_address(item)
                else list_files(item, self.videos.estimator is not None)
            )
        except SkeletonFormatError as error:
            self._report(error)
            return []

    def of(self, data: Any) -> Source:
        """This source with other inputs; where its inputs are a source, that with other inputs."""
        inputs = self.inputs.of(data) if isinstance(self.inputs, Source) else data
        return self._with(inputs, self.reading, self.folder)

    def for_model(self, extractor: USDRLFeatureExtractor) -> Source:
        """The source with a model's layout and treatment of NaN where `reading` names none."""
        reading = self.reading.with_defaults(extractor.source_layout or extractor.layout, extractor.missing)
        source = self._with(self.inputs, reading, self.folder)
        source._extractor = extractor
        return source

    def prepared(self, extractor: USDRLFeatureExtractor) -> Iterator[SkeletonSequence]:
        """Yield the recordings that a model can read, as its extractor prepares them.

        Args:
            extractor: The model's; its layout and its treatment of NaN are taken where `reading` names none.

        Raises:
            SkeletonFormatError: If one cannot be read or does not fit the model; see `on_error`.
        """
        source = self.for_model(extractor)
        if source.reading.missing != extractor.missing:
            extractor = USDRLFeatureExtractor(**{**extractor.to_dict(), "missing": source.reading.missing})
        for sequence in source:
            try:
                if self.each_person:
                    # People are tracked before they are separated.
                    people = extractor.persons.tracked(sequence).each_person()
                    yield from [extractor.prepare(person) for person in people]
                else:
                    yield extractor.prepare(sequence)
            except ValueError as error:
                message = str(error)
                named = message if message.startswith(sequence.name) else f"{sequence.name}: {message}"
                self._report(SkeletonFormatError(named), error)

    def _with(self, inputs: Any, reading: Reading, folder: str | os.PathLike | None) -> Source:
        choices: dict[str, Any] = {"each_person": self.each_person, "on_error": self.on_error, "videos": self.videos}
        return Source(inputs, reading, **choices, folder=folder, workers=self.workers)

    def _report(self, error: SkeletonFormatError, cause: BaseException | None = None) -> None:
        if self.on_error is None:
            raise error from cause
        self.on_error(error)

    def _item(self, item: Any, number: int) -> Iterator[SkeletonSequence]:
        """Yield the recordings of one input of several."""
        if isinstance(item, SkeletonSequence):
            yield self.reading.complete(item, item.units)
        elif isinstance(item, SkeletonDataset | SkeletonList | SkeletonStore):
            yield from self._data(item)
        elif isinstance(item, str | os.PathLike) and is_address(item):
            yield from Source(item, self.reading)
        elif isinstance(item, str | os.PathLike) and is_store(item):
            yield from self._data(SkeletonStore.open(item))
        elif isinstance(item, str | os.PathLike):
            for file in list_files(item, self.videos.estimator is not None):
                yield from self._file(file, Path(item if self.folder is None else self.folder))
        else:
            array = item.detach().cpu().float().numpy() if isinstance(item, torch.Tensor) else item
            yield self.reading.sequence(array, f"sequence {number}")

    def _data(self, data: SkeletonDataset | SkeletonList | SkeletonStore) -> Iterator[SkeletonSequence]:
        for sequence in data.iterate(self.on_error):
            yield self.reading.complete(sequence, data.units if isinstance(data, SkeletonDataset) else sequence.units)

    def _file(self, file: Path, folder: Path, read: _Read | None = None) -> Iterator[SkeletonSequence]:
        """Yield the recordings of a file or store, named by their path below a folder; `read` if a process read it."""
        if is_store(file):
            yield from self._data(SkeletonStore.open(file))
            return
        try:
            found: Iterable[SkeletonSequence]
            if is_video(file):
                found = [self.reading.complete(self.videos.read(file, self._extractor), units="m")]
            elif read is not None:
                found = read[0]
            else:
                found = iter_skeletons(file, self.reading, on_error=self.on_error)
            for error in () if read is None else read[1]:
                self._report(error)
            for sequence in found:
                if file != folder and sequence.name == recording_name(file):
                    sequence = replace(sequence, name=(file.parent / sequence.name).relative_to(folder).as_posix())
                yield sequence
        except UNREADABLE as error:
            self._report(unreadable(error, str(file)), error.__cause__)


# The recordings of a file that another process has read, and the errors of those that cannot be used.
_Read: TypeAlias = tuple[list[SkeletonSequence], list[SkeletonFormatError]]


def _read_whole(file: Path, reading: Reading) -> _Read:
    """The recordings of a file; none of a video or a store."""
    sequences: list[SkeletonSequence] = []
    errors: list[SkeletonFormatError] = []
    if not is_video(file) and not is_store(file):
        try:
            sequences += iter_skeletons(file, reading, on_error=errors.append)
        except UNREADABLE as error:
            errors.append(unreadable(error, str(file)))
    return sequences, errors


def list_files(path: str | os.PathLike, with_videos: bool = False) -> list[Path]:
    """The file itself, or the recordings in a folder and its subfolders, sorted by path, see `find_recordings`.

    Args:
        path: A file, a store or a folder.
        with_videos: Whether videos count beside other recordings; where there are no others, they always do.

    Raises:
        SkeletonFormatError: If there is nothing at `path`, or no recording in it.
    """
    path = Path(path)
    if not path.is_dir() or is_store(path):
        return [path]
    files, videos = find_recordings(path), find_videos(path)
    if files and videos and not with_videos:
        notice(
            f"{path}: {len(videos)} videos beside recordings are left out: name them to read them", "videos left out"
        )
        return files
    if not files and not videos:
        raise SkeletonFormatError(f"{path}: there is no {', '.join(SUFFIXES)} file and no video in this folder")
    return sorted([*files, *videos])
