"""Whether what lies on disk is whole: stores, data sets, checkpoints and recordings, read to the last byte."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..data.dataset import open_data
from ..data.readers import SUFFIXES, find_recordings, iter_skeletons
from ..data.store import SkeletonStore
from ..data.store_files import HEADER, INDEX, Shard
from ..errors import CheckpointLoadError, EmptySequenceError, SkeletonFormatError, USDRLError, one_sentence
from ..loading import load_feature_extractor, load_model
from ..lookup import bundled_checkpoint
from ..records import sha256
from ..sequence import SkeletonSequence
from ..weights import read_header

_CHECKPOINT = ("config.json", "model.safetensors", "model.safetensors.index.json", "preprocessor_config.json")
_BLOCK = 1 << 20


@dataclass
class Check:
    """What was found.

    Attributes:
        path: What was read.
        kind: "store", "data set", "checkpoint", "recording" or "recordings".
        counts: How many of what were read, such as sequences and frames.
        damages: A sentence for each damage, which names the file; none where all is whole.
    """

    path: str
    kind: str
    counts: dict[str, int] = field(default_factory=dict)
    damages: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**asdict(self), "whole": self.whole}

    def damaged(self, error: Exception | str) -> None:
        """Note a damage; a recording in which nobody is seen is none, and counted."""
        if isinstance(error, EmptySequenceError):
            self.count("nobody seen")
        else:
            self.damages.append(one_sentence(error if isinstance(error, Exception) else ValueError(error)))

    def count(self, what: str, number: int = 1) -> None:
        """Count what was read."""
        self.counts[what] = self.counts.get(what, 0) + number


def check(path: str | os.PathLike) -> Check:
    """Read everything in a store, a data set, a checkpoint, a recording or a folder of recordings.

    Args:
        path: Its file or folder, or the name of a checkpoint that ships.

    Raises:
        USDRLError: If there is nothing that could be read.
    """
    place = Path(path)
    if not os.path.lexists(place):
        place = Path(bundled_checkpoint(str(path)))
    if not os.path.lexists(place):
        raise USDRLError(f"{path}: there is no such file or folder")
    if place.is_dir():
        names = {entry.name for entry in place.iterdir()}
        if HEADER in names or INDEX in names or any(place.glob("frames-*.safetensors")):
            return _check_store(place)
        if names.intersection(_CHECKPOINT):
            return _check_checkpoint(place)
        files = find_recordings(place)
        if not files:
            raise USDRLError(f"{path}: there is no store, no checkpoint and no {', '.join(SUFFIXES)} file in it")
        found = Check(str(path), "recordings", {"files": len(files)})
        for file in files:
            _read(found, iter_skeletons, file)
        return found
    if place.suffix == ".npz":
        return _check_npz(place)
    found = Check(str(path), "recording")
    _read(found, iter_skeletons, place)
    return found


def _read(found: Check, read: Callable[..., Iterator[SkeletonSequence]], *arguments: Any) -> None:
    """Count the sequences that a reader yields, and note what it cannot read."""
    try:
        for sequence in read(*arguments, on_error=found.damaged):
            found.count("sequences")
            found.count("frames", sequence.num_frames)
    except SkeletonFormatError as error:
        found.damaged(error)
    except OSError as error:
        found.damaged(f"{arguments[0] if arguments else found.path}: it cannot be read: {error.strerror or error}")


def _check_npz(path: Path) -> Check:
    """A data set in one file, or a recording: its archive has a checksum of each array, which reading compares."""
    found = Check(str(path), "recording")
    try:
        data = open_data(path)
    except SkeletonFormatError:
        # It is a recording, or damaged, which the reader tells.
        _read(found, iter_skeletons, path)
        return found
    found.kind = "data set"
    _read(found, data.iterate)
    return found


def _check_store(path: Path) -> Check:
    found = Check(str(path), "store")
    try:
        store = SkeletonStore.open(path)
    except SkeletonFormatError as error:
        found.damaged(error)
        return found
    found.count("files", len(store.header.shards) + 2)
    digest = hashlib.sha256(store.header.shared.encode())
    read = True
    for shard in store.header.shards:
        try:
            numbers = _hash_of(path, shard)
        except OSError as error:
            found.damaged(f"{path / shard.file}: it cannot be read: {error.strerror or error}")
            read = False
            continue
        digest.update(numbers.encode())
        if shard.sha256 is not None and numbers != shard.sha256:
            found.damaged(f"{path / shard.file}: its numbers are not those that were written: make the store anew")
    for key in sorted(store.index):
        digest.update(key.encode() + store.index[key].tobytes())
    if read and not found.damages and digest.hexdigest() != store.content_hash:
        # Stores made before each shard had a checksum do not say which file it is.
        known = all(shard.sha256 is not None for shard in store.header.shards)
        where = f"{path / INDEX} or {HEADER}" if known else str(path)
        found.damaged(f"{where}: the content is not what was written: make the store anew")
    _read(found, store.iterate)
    return found


def _hash_of(path: Path, shard: Shard) -> str:
    digest = hashlib.sha256()
    with open(path / shard.file, "rb") as file:
        file.seek(shard.offset)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _check_checkpoint(path: Path) -> Check:
    """The weights of a model and of a run's checkpoints, what is loaded with them, and the record's checksum."""
    found = Check(str(path), "checkpoint")
    for file in sorted({*path.glob("*.safetensors"), *path.glob("checkpoint-*/*.safetensors")}):
        _check_weights(found, file)
    record = path / "metrics.json"
    if record.is_file():
        _check_record(found, record)
    if not found.damages:
        # What has damaged weights could not be loaded for that reason alone.
        for load in (load_model, load_feature_extractor):
            try:
                load(path.as_posix())
            except (CheckpointLoadError, USDRLError) as error:
                found.damaged(error)
    return found


def _check_weights(found: Check, file: Path) -> None:
    """Every tensor in a file fits it, and is finite."""
    try:
        names = read_header(file)
    except (ValueError, OSError) as error:
        found.damaged(error)
        return
    found.count("files")
    with safe_open(file, framework="pt") as tensors:
        for name in names:
            tensor = tensors.get_tensor(name)
            found.count("tensors")
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                wrong = int((~torch.isfinite(tensor.float())).sum())
                found.damaged(f"{file}: {wrong} of {tensor.numel()} numbers of '{name}' are NaN or infinite")


def _check_record(found: Check, record: Path) -> None:
    """The weights are those that the record of their training is about."""
    try:
        content = json.loads(record.read_text("utf-8"))
        expected = content.get("checkpoint_sha256")
    except (OSError, ValueError, AttributeError, RecursionError):
        found.damaged(f"{record}: it is cut, or no JSON")
        return
    weights = record.parent / "model.safetensors"
    if expected is not None and weights.is_file():
        found.count("checksums")
        if sha256(weights) != expected:
            found.damaged(f"{weights}: it is not the file that {record.name} is about: its SHA-256 is another")
