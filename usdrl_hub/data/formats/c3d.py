"""C3D: points and analog signals of a motion-capture laboratory, by the specification of c3d.org."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...sequence import SkeletonFormatError, SkeletonSequence
from ..reading import OnError, Reading
from .bodies import make_sequence, unit_of
from .lines import as_text
from .markers import find_people

_BLOCK = 512
# Processors by the fourth byte of the parameters: PC, DEC (VAX), SGI and MIPS (big-endian).
_INTEL, _DEC, _MIPS = 84, 85, 86
_MAX_PARAMETERS = 10_000
_MAX_POINTS = 10_000


class _Cut(Exception):
    """A file that ends too early, or whose numbers point outside it."""


def read(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Read a C3D file: joints by the labels of its points, unit and fps as it says, z up where people stand so.

    Args:
        path: The file.
        reading: A layout all of whose joints are labels of the file is taken as it is.
        on_error: Not called: a file holds one recording.

    Raises:
        SkeletonFormatError: If it is not C3D, is malformed or cut, or its points make no whole body.
    """
    labels, points, rate, unit = read_points(path)
    keypoints, layout = find_people(path, labels, points, reading)
    fps = rate if rate > 0 else None
    yield make_sequence(path, keypoints, layout, reading, fps=fps, units=unit_of(unit), up="z", kind="C3D")


def read_points(path: Path) -> tuple[list[str], np.ndarray, float, str]:
    """Labels, positions ``(T, P, 3)``, frames per second and unit of the points; NaN where one is not seen.

    Raises:
        SkeletonFormatError: If it is not C3D, or is malformed or cut.
    """
    content = path.read_bytes()
    if len(content) < 2 * _BLOCK or content[1] != 0x50:
        raise SkeletonFormatError(f"{path}: it is not a C3D file, or truncated")
    try:
        return _parse(content)
    except _Cut as error:
        raise SkeletonFormatError(f"{path}: {error}") from None
    except (struct.error, IndexError):
        raise SkeletonFormatError(f"{path}: its parameters are truncated or damaged") from None


def _parse(content: bytes) -> tuple[list[str], np.ndarray, float, str]:
    start = (content[0] - 1) * _BLOCK
    if start < _BLOCK or start + 4 > len(content):
        raise _Cut(f"its parameters begin at block {content[0]}, which it does not have")
    processor = content[start + 3]
    if processor not in (_INTEL, _DEC, _MIPS):
        raise _Cut(f"its processor is of the unknown kind {processor}")
    order = ">" if processor == _MIPS else "<"
    words = struct.unpack(order + "6H", content[:12])
    count, analog, first, last = words[1:5]
    scale = _floats(content[12:16], processor)[0]
    data, per_frame = struct.unpack(order + "2H", content[16:20])
    rate = _floats(content[20:24], processor)[0]
    end = max(start + content[start + 2] * _BLOCK, (data - 1) * _BLOCK)
    parameters = _parse_parameters(content, start + 4, end, order)
    # The parameters are newer than the header where both say it.
    scale = _number(parameters, "SCALE", processor, scale)
    rate = _number(parameters, "RATE", processor, rate)
    count = int(_number(parameters, "USED", processor, count))
    if not 0 < count <= _MAX_POINTS or not np.isfinite(scale) or scale == 0:
        raise _Cut(f"it has {count} points of scale {scale:g}, which is not a recording")
    is_float = scale < 0
    size = count * 4 + analog
    begin = (data - 1) * _BLOCK
    dtype = np.dtype(order + ("f4" if is_float else "i2"))
    if begin < _BLOCK or begin > len(content):
        raise _Cut(f"its data begin at block {data}, which it does not have")
    there = (len(content) - begin) // (size * dtype.itemsize)
    frames = _count_frames(parameters, last - first + 1, there, processor)
    raw = np.frombuffer(content, dtype, frames * size, begin).reshape(frames, size)[:, : 4 * count]
    raw = raw.reshape(frames, count, 4)
    if is_float and processor == _DEC:
        raw = _floats(raw.tobytes(), processor).reshape(raw.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        points = raw[..., :3].astype(np.float64) * (1.0 if is_float else scale)
        # A point that is not seen has residual -1; some writers write zeros or NaN in place of it.
        unseen = (raw[..., 3] < 0) | ~np.isfinite(raw[..., 3])
    points[unseen | (points == 0).all(-1)] = np.nan
    labels = _labels(parameters, count)
    unit = b"".join(parameters.get("UNITS", (1, (), b""))[2:3]).decode("latin-1").strip("\0 ")[:20]
    return labels, points, float(rate) if np.isfinite(rate) else 0.0, unit


def _parse_parameters(content: bytes, at: int, end: int, order: str) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """Type, dimensions and bytes of the parameters of POINT, and of TRIAL as ``TRIAL:NAME``."""
    groups: dict[int, str] = {}
    found: list[tuple[int, str, tuple[int, tuple[int, ...], bytes]]] = []
    # The step of the last parameter may be anything.
    while at < end and len(found) < _MAX_PARAMETERS:
        size, group = struct.unpack("bb", content[at : at + 2])
        if size == 0 or group == 0:
            break
        at += 2
        name = as_text(content[at : at + abs(size)]).upper()
        at += abs(size)
        (step,) = struct.unpack(order + "H", content[at : at + 2])
        if group < 0:
            groups[-group] = name
        else:
            kind, axes = struct.unpack("bB", content[at + 2 : at + 4])
            dims = tuple(content[at + 4 : at + 4 + axes])
            begin = at + 4 + axes
            length = abs(kind) * int(np.prod(dims, dtype=object)) if dims else abs(kind)
            if kind not in (-1, 1, 2, 4) or len(dims) < axes or begin + length > len(content):
                raise _Cut(f"its parameter '{name[:40]}' is truncated or damaged")
            found.append((group, name, (kind, dims, content[begin : begin + length])))
        if step == 0:
            break
        at += step
    prefixes = {"POINT": "", "TRIAL": "TRIAL:"}
    return {prefixes[groups[group]] + name: value for group, name, value in found if groups.get(group) in prefixes}


def _floats(content: bytes, processor: int) -> np.ndarray:
    """Floats of 32 bits as a processor writes them, float32."""
    if processor == _MIPS:
        return np.frombuffer(content, ">f4").astype(np.float32)
    if processor == _INTEL:
        return np.frombuffer(content, "<f4")
    # DEC's have their 16-bit words the other way round, and an exponent that is two higher.
    words = np.frombuffer(content, "<u2").reshape(-1, 2)[:, ::-1]
    return np.ascontiguousarray(words).view("<f4")[:, 0] / np.float32(4)


def _number(parameters: dict, name: str, processor: int, otherwise: float) -> float:
    """The first number of a parameter."""
    kind, _, content = parameters.get(name, (0, (), b""))
    if kind == 4 and len(content) >= 4:
        return float(_floats(content[:4], processor)[0])
    if kind == 2 and len(content) >= 2:
        # Counts beyond 32767 are written unsigned.
        return int.from_bytes(content[:2], "big" if processor == _MIPS else "little")
    return otherwise


def _count_frames(parameters: dict, header: int, there: int, processor: int) -> int:
    """How many frames there are: headers and 16-bit parameters count to 65535 only."""
    promised = [header, _number(parameters, "FRAMES", processor, 0)]
    ends = [parameters.get(f"TRIAL:ACTUAL_{end}_FIELD", (0, (), b""))[2] for end in ("START", "END")]
    if all(len(words) >= 4 for words in ends):
        order = "big" if processor == _MIPS else "little"
        first, last = (
            int.from_bytes(words[:2], order) + (int.from_bytes(words[2:4], order) << 16)  # type: ignore[arg-type]
            for words in ends
        )
        promised.append(last - first + 1)
    counts = [int(frames) for frames in promised if np.isfinite(frames) and 0 < frames < 1 << 31]
    if not counts:
        raise _Cut("it has no frame")
    fitting = [frames for frames in counts if frames <= there]
    if not fitting:
        raise _Cut(f"it has {there} of the {min(counts)} frames that it says: it is truncated")
    return max(fitting)


def _labels(parameters: dict, count: int) -> list[str]:
    """Names of the points; beyond those that are named, empty ones."""
    labels: list[str] = []
    for name in ("LABELS", *(f"LABELS{number}" for number in range(2, 100))):
        kind, dims, content = parameters.get(name, (0, (), b""))
        if kind == -1 and len(dims) == 2 and dims[0]:
            size = dims[0]
            labels += [as_text(content[at : at + size]).strip("\0 \t\r\n") for at in range(0, len(content), size)]
    return [*labels[:count], *([""] * (count - len(labels)))]
