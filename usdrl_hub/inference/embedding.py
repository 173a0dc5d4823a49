"""Embeddings of skeleton files and sequences, one per clip or one per frame."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.lib import format as npy_format

from ..data.dataset import SkeletonData
from ..data.npz import SkeletonDataset
from ..data.reading import Reading
from ..data.store import SkeletonStore, is_store
from ..distributed import Workers
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import check_space, locked, new_file, remove_leftovers, scratch_file
from ..finite import check_finite
from ..layouts import LayoutLike
from ..modeling_usdrl import USDRLModel, USDRLPreTrainedModel
from ..sequence import SkeletonFormatError, SkeletonSequence
from ..speedups import with_cuda_graph
from .inputs import batches_of_clips, finite_rows, ready_model
from .source import ErrorHandler, Source
from .windows import frame_outputs

LEVELS = ("clip", "frame")
# Clips encoded at once by `embed_clips`.
_CLIPS_AT_ONCE = 256


def extract_embeddings(
    files_or_sequences: Any,
    model: str | os.PathLike | USDRLPreTrainedModel = "usdrl/tiny-uiprmd",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    level: str = "clip",
    feature_extractor: USDRLFeatureExtractor | None = None,
    source_layout: LayoutLike | None = None,
    axes: str | None = None,
    per_person: bool = False,
    image_shape: tuple[float, float] | None = None,
) -> np.ndarray | list[np.ndarray]:
    """Embed skeletons with a pretrained encoder.

    Args:
        files_or_sequences: A file, a folder, a `SkeletonSequence`, an array, or a list of any of these.
        model: A checkpoint's name or folder; or a loaded model, which is left and used as it is. What is loaded by
            name is fused: `fuse(model)` is as fast.
        batch_size: Clips encoded at once.
        device: Where to compute; CUDA if there is one where None and `model` is a name.
        dtype: Type to compute in, such as "bfloat16"; the result is float32.
        level: "clip" for one embedding per recording; "frame" for one per frame, from windows of the model's length
            that overlap by half and are averaged where they do.
        feature_extractor: The model's own where None.
        source_layout: Layout of arrays and array files; the model's where None.
        axes: Axis order of arrays; see `SkeletonSequence.from_array`.
        per_person: Take everybody in a recording by themselves, as recordings ``<name>#<place>``.
        image_shape: Height and width in pixels of the picture that 2D keypoints lie in, where they do not say.

    Returns:
        For clips an array ``(N, 2d)``; for frames a list of N arrays ``(T_i, 2d)``, zero where nobody is seen. In the
        order of the input, float32.

    Raises:
        SkeletonFormatError: If an input cannot be read or does not fit the model.
        CheckpointLoadError: If the model cannot be found or loaded.
        NonFiniteError: If an embedding is NaN or infinite; the message names the sequence.
        ValueError: If another argument is impossible.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import extract_embeddings
        >>> extract_embeddings([np.random.rand(90, 25, 3), np.random.rand(40, 25, 3)], "usdrl/tiny-uiprmd").shape[0]
        2
    """
    stream = iter_embeddings(
        files_or_sequences,
        model,
        batch_size,
        device,
        dtype,
        level,
        feature_extractor,
        source_layout,
        axes,
        per_person,
        image_shape,
    )
    embeddings = [embedding for _, embedding in stream]
    if level == "frame":
        return embeddings
    if not embeddings:
        raise ValueError("there are no sequences to embed")
    return np.stack(embeddings)


def iter_embeddings(
    files_or_sequences: Any,
    model: str | os.PathLike | USDRLPreTrainedModel = "usdrl/tiny-uiprmd",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    level: str = "clip",
    feature_extractor: USDRLFeatureExtractor | None = None,
    source_layout: LayoutLike | None = None,
    axes: str | None = None,
    per_person: bool = False,
    image_shape: tuple[float, float] | None = None,
    on_error: ErrorHandler | None = None,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each sequence, in the model's layout, with its embedding; memory does not grow with their number.

    Args:
        files_or_sequences: See `extract_embeddings`, as all arguments but the last.
        model: As above.
        batch_size: As above.
        device: As above.
        dtype: As above.
        level: As above.
        feature_extractor: As above.
        source_layout: As above.
        axes: As above.
        per_person: As above.
        image_shape: As above.
        on_error: Called with the error of an input that cannot be used, which is then left out; None raises it.

    Raises:
        SkeletonFormatError: See `extract_embeddings`.
        CheckpointLoadError: See `extract_embeddings`.
        NonFiniteError: See `extract_embeddings`.
        ValueError: See `extract_embeddings`.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be 'clip' or 'frame', got {level!r}")
    encoder, extractor = ready_model(model, feature_extractor, False, device, dtype)
    reading = Reading(source_layout, axes, image_shape=image_shape)
    source = Source(files_or_sequences, reading, each_person=per_person, on_error=on_error)
    sequences = source.prepared(extractor)
    encoder = cast(USDRLModel, encoder)
    if level == "frame":
        yield from _embed_frames(sequences, encoder, extractor, batch_size, on_error)
        return
    encode = with_cuda_graph(encoder)
    for batch, clips in batches_of_clips(sequences, extractor, batch_size, encoder.device, source.is_stream):
        with torch.inference_mode():
            pooled = encode(clips).pooler_output
        yield from finite_rows(batch, pooled.float().cpu().numpy(), "its embedding", on_error)


def _embed_frames(
    sequences: Iterable[SkeletonSequence],
    encoder: USDRLModel,
    extractor: USDRLFeatureExtractor,
    batch_size: int,
    on_error: ErrorHandler | None,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    encode = with_cuda_graph(encoder)

    def compute(clips: torch.Tensor) -> torch.Tensor:
        return encode(clips).last_hidden_state.float()

    return frame_outputs(sequences, compute, extractor, batch_size, encoder.device, on_error=on_error)


def expected_rows(source: Any, level: str) -> int:
    """A lower bound of the embeddings that will come of data sets, stores and files, without reading them.

    Args:
        source: A data set or store, or a list of files and stores.
        level: "clip" or "frame".
    """
    if isinstance(source, SkeletonDataset | SkeletonStore):
        return len(source) if level == "clip" else int(source.lengths.sum(dtype=np.int64))
    return sum(
        expected_rows(SkeletonStore.open(file), level) if is_store(file) else 1 if level == "clip" else 0
        for file in source
    )


def write_embeddings(
    stream: Iterable[tuple[SkeletonSequence, np.ndarray]],
    path: str | os.PathLike,
    level: str = "clip",
    rows: int = 0,
) -> int:
    """Write names and embeddings to an ``.npz`` file as they come; only the names stay in memory.

    Where several processes share the work (see `Workers`), each has the stream of its share; the first one writes the
    file, in the order of the processes, and a file system that all of them see is needed.

    Args:
        stream: What `iter_embeddings` yields.
        path: File to write, whole or not at all: `names` ``(N,)`` and `embeddings`, ``(N, 2d)`` for clips, ``(all
            frames, 2d)`` with `offsets` ``(N + 1,)`` for frames; float32.
        level: "clip" or "frame", as the stream was made.
        rows: How many rows will come at least, see `expected_rows`; the disk is asked for their room before the first
            one is written.

    Returns:
        Number of recordings written, by all processes.

    Raises:
        SkeletonFormatError: If the stream is empty.
        FolderInUseError: If another process is writing the file.
        OSError: If the file cannot be written, or the disk has no room for the rows.
    """
    path, workers = Path(path), Workers.of_environment()
    part = failed = partial = None
    with ExitStack() as stack:
        try:
            if workers.is_first:
                stack.enter_context(locked(path))
                remove_leftovers(path)
                partial = stack.enter_context(new_file(path))
        except Exception as error:
            failed = error
        # Before the work, so that nobody does it in vain.
        with workers.gathered(failed is None) as ready:
            if failed is not None:
                raise failed
            if not all(ready):
                raise SkeletonFormatError(f"{path} is not written: another process could not go on, as it says")
        try:
            part = stack.enter_context(_Part.of(stream, path, rows))
        except Exception as error:
            failed = error
        # All come here, also who failed: nobody waits in vain, and no rows go before they were read.
        with workers.gathered(part.facts if part else None) as parts:
            if failed is not None:
                raise failed
            if None in parts:
                raise SkeletonFormatError(f"{path} is not written: another process could not go on, as it says")
            count = sum(len(names) for _, names, _, _ in parts)
            if not count:
                raise SkeletonFormatError(f"no recording could be embedded, so {path} is not written")
            if partial is not None:
                _write_archive(partial, parts, level)
    return count


@dataclass(frozen=True)
class _Part:
    """Embeddings that one process has made: the file of their rows, names, rows of each, and numbers of a row."""

    facts: tuple[str, list[str], list[int], int]

    @classmethod
    @contextmanager
    def of(cls, stream: Iterable[tuple[SkeletonSequence, np.ndarray]], path: Path, rows: int) -> Iterator[_Part]:
        """Write what a stream yields to a file beside `path`, which is gone afterwards."""
        names: list[str] = []
        lengths: list[int] = []
        width = 0
        with scratch_file(path) as file:
            with open(file, "wb") as raw:
                for sequence, embedding in stream:
                    found = np.atleast_2d(embedding)
                    if not names:
                        # Twice: these, and the archive that is made of them.
                        check_space(path, 2 * 4 * rows * found.shape[1], f"{path} of {rows} embeddings")
                    width = found.shape[1]
                    names.append(sequence.name)
                    lengths.append(len(found))
                    raw.write(np.ascontiguousarray(found, dtype="<f4").tobytes())
            # Closed: some systems do not open a file twice.
            yield cls((str(file), names, lengths, width))


def _write_archive(path: Path, parts: list[tuple[str, list[str], list[int], int]], level: str) -> None:
    """Write the parts of all processes, in their order, as an ``.npz`` file."""
    lengths = [length for _, _, part, _ in parts for length in part]
    arrays = {"names": np.array([name for _, names, _, _ in parts for name in names])}
    if level == "frame":
        arrays["offsets"] = np.cumsum([0, *lengths])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                npy_format.write_array(member, array, allow_pickle=False)
        with archive.open("embeddings.npy", "w", force_zip64=True) as member:
            width = max(width for _, _, _, width in parts)
            header = {"descr": "<f4", "fortran_order": False, "shape": (sum(lengths), width)}
            npy_format.write_array_header_1_0(member, header)
            for file, _, _, _ in parts:
                with open(file, "rb") as raw:
                    shutil.copyfileobj(raw, member, 1 << 20)


@torch.inference_mode()
def embed_clips(model: USDRLPreTrainedModel, clips: torch.Tensor) -> torch.Tensor:
    """Clip embeddings ``(N, 2d)`` float32 on the CPU of clips ``(N, T, M, V, C)``; the model is left in its mode.

    Raises:
        NonFiniteError: If one is NaN or infinite.
    """
    encoder: USDRLModel = model.base_model  # type: ignore[assignment]
    training = encoder.training
    encoder.eval()
    parts = [encoder(part.to(encoder.device)).pooler_output.float().cpu() for part in clips.split(_CLIPS_AT_ONCE)]
    encoder.train(training)
    embeddings = torch.cat(parts)
    check_finite(embeddings, "the embeddings of the clips")
    return embeddings


def embed_part(
    model: USDRLPreTrainedModel, extractor: USDRLFeatureExtractor, part: SkeletonData
) -> tuple[torch.Tensor, np.ndarray]:
    """Embeddings ``(N, 2d)`` of a part of a data set, and its labels; memory holds one batch of clips."""
    features = []
    for start in range(0, len(part), _CLIPS_AT_ONCE):
        sequences = list(part[start : start + _CLIPS_AT_ONCE])
        features.append(embed_clips(model, extractor(sequences, return_tensors="pt")["keypoints"]))
    return torch.cat(features), np.asarray(part.column("labels"))
