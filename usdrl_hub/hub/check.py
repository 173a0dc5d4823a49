"""`usdrl check`: read stores, data sets, checkpoints and recordings completely and report damage."""

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
from ..data.reading import Reading
from ..data.remote import is_address
from ..data.series import is_series
from ..data.store import SkeletonStore
from ..data.store_files import HEADER, INDEX, Shard
from ..errors import CheckpointLoadError, EmptySequenceError, SkeletonFormatError, USDRLError, one_sentence
from ..loading import find_folder, load_feature_extractor, load_model
from ..lookup import bundled_checkpoint
from ..records import sha256
from ..search.files import HEADER as INDEX_HEADER
from ..search.index import MotionIndex
from ..sequence import SkeletonSequence
from ..weights import read_header

_CHECKPOINT = ("config.json", "model.safetensors", "model.safetensors.index.json", "preprocessor_config.json")
_BLOCK = 1 << 20


@dataclass
class Check:
    """The result of a check.

    Attributes:
        path: The file or folder.
        kind: "store", "index", "data set", "checkpoint", "recording" or "recordings".
        counts: Numbers of items read, by name, such as "sequences" and "frames".
        damages: One sentence for each damage, which names the file.
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
        """Plain values for JSON."""
        return {**asdict(self), "whole": self.whole}

    def damaged(self, error: Exception | str) -> None:
        """Record a damage; a recording without a visible person is only counted."""
        if isinstance(error, EmptySequenceError):
            self.count("nobody seen")
        else:
            self.damages.append(one_sentence(error if isinstance(error, Exception) else ValueError(error)))

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + number


def check(path: str | os.PathLike, reading: Reading = Reading()) -> Check:
    """Read everything in a store, an index, a data set, a checkpoint, a recording or a folder of recordings.

    Args:
        path: A file or folder, a pattern for a file per frame, or the name of a shipped checkpoint.
        reading: What recordings do not say.

    Raises:
        USDRLError: If there is no such file, or nothing to read in the folder.
    """
    if is_address(path) and "datasets/" in os.fspath(path):
        data = open_data(path, reading.layout, keypoints=reading.keypoints)
        found = Check(str(path), "data set")
        _read(found, data.iterate)
        return found
    found_at = find_folder(path)
    if not os.path.lexists(found_at) and not is_series(found_at):
        found_at = Path(bundled_checkpoint(str(path)))
    if not os.path.lexists(found_at) and not is_series(found_at):
        raise USDRLError(f"{path}: there is no such file or folder")
    if found_at.is_dir():
        names = {entry.name for entry in found_at.iterdir()}
        if INDEX_HEADER in names:
            return _check_index(found_at)
        if HEADER in names or INDEX in names or any(found_at.glob("frames-*.safetensors")):
            return _check_store(found_at)
        if names.intersection(_CHECKPOINT):
            return _check_checkpoint(found_at)
        files = find_recordings(found_at)
        if not files:
            raise USDRLError(f"{path}: there is no store, no checkpoint and no {', '.join(SUFFIXES)} file in it")
        found = Check(str(path), "recordings", {"files": len(files)})
        for file in files:
            _read(found, iter_skeletons, file, reading)
        return found
    if found_at.suffix == ".npz":
        return _check_npz(found_at, reading)
    found = Check(str(path), "recording")
    _read(found, iter_skeletons, found_at, reading)
    return found


def _check_index(path: Path) -> Check:
    """An index of windows: its arrays, and the checksums of its files."""
    found = Check(str(path), "index")
    try:
        index = MotionIndex.open(path)
    except USDRLError as error:
        found.damaged(error)
        return found
    found.counts |= {"recordings": index.num_recordings, "windows": len(index)}
    for stored in index.header.files:
        if sha256(path / stored.file) != stored.sha256:
            found.damaged(f"{path / stored.file}: its checksum is not the one in {INDEX_HEADER}")
    return found


def _read(found: Check, read: Callable[..., Iterator[SkeletonSequence]], *arguments: Any) -> None:
    """Count the sequences of a reader and record its errors."""
    try:
        for sequence in read(*arguments, on_error=found.damaged):
            found.count("sequences")
            found.count("frames", sequence.num_frames)
    except SkeletonFormatError as error:
        found.damaged(error)
    except OSError as error:
        found.damaged(f"{arguments[0] if arguments else found.path}: it cannot be read: {error.strerror or error}")


def _check_npz(path: Path, reading: Reading) -> Check:
    """A data set in one file, or a recording; reading compares the archive's checksums."""
    found = Check(str(path), "recording")
    try:
        data = open_data(path, reading.layout)
    except SkeletonFormatError:
        # A recording, or damaged: the reader reports it.
        _read(found, iter_skeletons, path, reading)
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
            found.damaged(f"{path / shard.file}: its content has changed: prepare the store again")
    for key in sorted(store.index):
        digest.update(key.encode() + store.index[key].tobytes())
    if read and not found.damages and digest.hexdigest() != store.content_hash:
        # Old stores have no checksums of shards, so the damaged file is unknown.
        known = all(shard.sha256 is not None for shard in store.header.shards)
        where = f"{path / INDEX} or {HEADER}" if known else str(path)
        found.damaged(f"{where}: the content has changed: prepare the store again")
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
    """The weights of a model and of a run's checkpoints, its configuration, and the checksum in ``metrics.json``."""
    found = Check(str(path), "checkpoint")
    for file in sorted({*path.glob("*.safetensors"), *path.glob("checkpoint-*/*.safetensors")}):
        _check_weights(found, file)
    record = path / "metrics.json"
    if record.is_file():
        _check_record(found, record)
    if not found.damages:
        # With damaged weights, loading would only report the same again.
        for load in (load_model, load_feature_extractor):
            try:
                load(path.as_posix())
            except (CheckpointLoadError, USDRLError) as error:
                found.damaged(error)
    return found


def _check_weights(found: Check, file: Path) -> None:
    """Check that the header fits the file and all tensors are finite."""
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
    """Compare the SHA-256 of the weights with that in ``metrics.json``."""
    try:
        content = json.loads(record.read_text("utf-8"))
        expected = content.get("checkpoint_sha256")
    except (OSError, ValueError, AttributeError, RecursionError):
        found.damaged(f"{record}: it is truncated or not JSON")
        return
    weights = record.parent / "model.safetensors"
    if expected is not None and weights.is_file():
        found.count("checksums")
        if sha256(weights) != expected:
            found.damaged(f"{weights}: its SHA-256 is not the one in {record.name}")
