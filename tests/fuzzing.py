"""Damaged inputs for every family of readers, each a pure function of (family, seed, number), and their outcomes.

`test_fuzz.py` reads a few of each in the default run; ``make fuzz`` (`benchmarks/fuzz.py`) reads 100 000 of each. A
reading is right where it ends in a result of finite numbers or in one error of ours that names the file in at most 300
characters, within 64 MB + 50 bytes for each byte of the input and 5 s + 1 s for each MB of it.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import pickletools
import random
import re
import signal
import struct
import tempfile
import threading
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from usdrl_hub.errors import LONGEST_SENTENCE, USDRLError

try:
    import resource
except ImportError:  # Memory is measured where the system can limit it.
    resource = None  # type: ignore[assignment]

MEGABYTE = 1 << 20
# Beyond these an input takes too much: fixed, and for each byte of it.
MOST_MEMORY = (64 * MEGABYTE, 50)
MOST_SECONDS = (5.0, 1 / MEGABYTE)

Files = dict[str, bytes]
Mutation = Callable[[random.Random, "Family"], Files]


class OutOfTime(BaseException):
    """An input that is read for too long; no `except Exception` of a reader may hide it."""


@dataclass(frozen=True)
class Family:
    """A family of inputs.

    Attributes:
        name: Its name, which is part of what makes input number i.
        seeds: Valid inputs: files by name.
        target: What the reader is given, a path below the folder of the files; "" for the folder itself.
        read: Reads it to the end, and raises AssertionError where what it got is no result.
        mutations: Ways to damage a seed.
        in_tests: Inputs of the default run.
        named: Names of which an error has to hold one; those of target and files where empty.
    """

    name: str
    seeds: list[Files]
    target: str
    read: Callable[[Path], None]
    mutations: list[Mutation]
    in_tests: int = 500
    named: tuple[str, ...] = ()


# --- What is put in place of a value -------------------------------------------------------------------------------

_TEXT_VALUES = [
    *(b"0", b"-1", b"1", b"2", b"25", b"1e30", b"-1e30", b"3e38", b"1e39", b"nan", b"NaN", b"inf", b"-Infinity"),
    *(b"1e400", b"1000000000", b"2147483648", b"9223372036854775808", b"9" * 5000, b"0." + b"3" * 5000, b"1_000"),
    *(
        b"",
        b" ",
        b"0x10",
        b"1e-320",
        b"-0.0",
        b"00012",
        b"+1",
        b"1.5",
        b"1,5",
        b"--1",
        b"\xd9\xa3",
        b"\xb2",
        b"x" * 2000,
    ),
    *(b"\x1b[31m", b"\0", b'"', b"\n", b"null", b"[]", b"{}", b"true"),
]
_VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        17,
        25,
        2**31,
        2**63,
        -(2**63),
        10**9,
        10**400,
        0.5,
        1e30,
        -1e30,
        3e38,
        1e300,
    ),
    *(
        1e-300,
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "x" * 3000,
        "\x1b[31m\n",
        "nan",
        "12",
        "1e9",
        "\u00e9" * 900,
    ),
    *("../secret.bin", "/dev/zero", "\ud800", "a\0b", [], {}, [[]], [1, 2, 3], [None], {"a": 1}, [[1, 2], [3]]),
    *(["x"] * 3, [[[0.0] * 3] * 25] * 2, {"0": 1}, [{}], "ntu25", "coco17", [0.5] * 51),
]
_DTYPES = "|O <f8 <f4 <f2 <c16 |b1 |S0 |S3 <U3 <U0 <i8 <u8 >f4 <M8[s] <m8[ns] |V8 |V0 <f16 |i1 f8 junk".split()


def _odd_value(rng: random.Random) -> Any:
    if rng.random() < 0.03:
        nested: Any = 1
        for _ in range(rng.choice([20, 500, 900])):
            nested = [nested]
        return nested
    return copy.deepcopy(rng.choice(_VALUES))


def _odd_array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """An array that differs in shape, type or values."""
    array = np.array(array)
    kind = rng.randrange(7)
    if kind == 0 and array.size:
        flat, number = array.reshape(-1), rng.choice([np.nan, np.inf, 1e30, -1, 0, 3e38, 2**62, -(2**31), 10**9, 255])
        with np.errstate(all="ignore"):
            flat[rng.randrange(array.size)] = np.array(number).astype(array.dtype, casting="unsafe")
        return array
    if kind == 1:
        code = rng.choice([d for d in _DTYPES if d not in ("|O", "junk", "|V0", "|V8", "<m8[ns]", "<M8[s]")])
        with np.errstate(all="ignore"):
            try:
                return array.astype(code)
            except (TypeError, ValueError):
                return np.zeros(array.shape, code)
    if kind == 2 and array.ndim:
        axis = rng.randrange(array.ndim)
        size = rng.choice([0, 1, 2, max(array.shape[axis] - 1, 0)])
        return array.take(range(min(size, array.shape[axis])), axis=axis)
    if kind == 3:
        return rng.choice([array[None], array[..., None], array.reshape(-1), array.T])
    if kind == 4 and array.ndim and array.size < 20_000:
        return np.repeat(array, rng.choice([2, 3, 12]), axis=rng.randrange(array.ndim))
    if kind == 5:
        return np.zeros_like(array) if rng.random() < 0.5 else np.array(rng.choice([0, 1.5, np.nan, "x", 10**9, -1]))
    zeros = [(), (0,), (1,), (2, 0, 25, 3), (1, 1, 25, 3), (0, 1, 25, 3), (3, 25), (1,) * 20]
    return np.ones(rng.choice(zeros), rng.choice(["<f4", "<i8", "<U2"]))


# --- Damage to bytes and text --------------------------------------------------------------------------------------


def damage_bytes(rng: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """One to three places changed, cut out, repeated or put in; the end cut off; or another seed's end put on."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place, size = rng.randrange(len(data) + 1), rng.choice([1, 2, 4, 16, 60, 400])
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[place % len(data)] = rng.choice([0, 1, 10, 32, 34, 44, 46, 48, 57, 127, 128, 255, rng.randrange(256)])
        elif kind == 2:
            del data[place : place + size]
        elif kind == 3:
            data[place:place] = rng.randbytes(size) if rng.random() < 0.5 else rng.choice(_TEXT_VALUES)
        elif kind == 4:
            data[place:place] = data[place : place + size] * rng.choice([1, 1, 1, 50])
        elif kind == 5:
            data = data[:place]
        elif kind == 6 and other:
            data = data[:place] + other[rng.randrange(len(other)) :]
        elif data:
            end = place + size
            data[place:end] = bytes(rng.choice([b"\0", b"\xff", b" ", b"9"])) * len(data[place:end])
    return bytes(data)


_NUMBER = re.compile(rb"[-+]?\d[\d.eE+-]*")


def damage_text(rng: random.Random, content: bytes, separators: bytes = b"\n") -> bytes:
    """Numbers replaced by extreme ones; lines or cells lost, repeated, swapped, joined."""
    kind = rng.randrange(6)
    if kind < 3 and (spans := [match.span() for match in _NUMBER.finditer(content)]):
        chosen = {rng.choice(spans) for _ in range(rng.choice([1, 1, 1, 2, 5]))}
        for start, end in sorted(chosen, reverse=True):
            content = content[:start] + rng.choice(_TEXT_VALUES) + content[end:]
        return content
    separator = bytes([rng.choice(separators)])
    parts = content.split(separator)
    place, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    if kind == 3:
        change = rng.randrange(6)
        if change == 0:
            del parts[place : place + rng.choice([1, 1, 2, 20])]
        elif change == 1:
            parts[place:place] = parts[place : place + rng.choice([1, 2, 27])] * rng.choice([1, 1, 2, 30])
        elif change == 2:
            parts[place], parts[other] = parts[other], parts[place]
        elif change == 3:
            parts = parts[place:] + parts[:place]
        elif change == 4:
            parts[place] = rng.choice(_TEXT_VALUES)
        else:
            parts[place] += rng.choice([b" 1", b",", b"\r", b"\t", b" ", b"#x"])
        return separator.join(parts)
    if kind == 4:
        # The whole in another way of writing it.
        return rng.choice(
            [
                lambda: content.replace(b"\n", b"\r\n"),
                lambda: b"\xef\xbb\xbf" + content,
                lambda: content.decode("latin1").encode("utf-16"),
                lambda: content + b"\n" * 50,
                lambda: b"\n" + content,
                lambda: content.replace(b" ", b"  ").replace(b",", b", "),
                lambda: content + content,
                lambda: content.swapcase(),
            ]
        )()
    # A count near the beginning, which says how much follows.
    end = max(parts[0].find(b" "), 0) or len(parts[0])
    parts[0] = rng.choice(_TEXT_VALUES[:24]) + parts[0][end:]
    return separator.join(parts)


# --- Damage to what JSON, YAML and pickles hold --------------------------------------------------------------------


def damage_tree(rng: random.Random, root: Any) -> Any:
    """A copy of nested lists and dictionaries with one to three values replaced, lost, repeated, moved or nested."""
    root = copy.deepcopy(root)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if not isinstance(root, dict | list) or not root:
            return _odd_value(rng)
        node = root
        while True:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            child = node[key]
            if not isinstance(child, dict | list) or not child or rng.random() < 0.3:
                break
            node = child
        kind = rng.randrange(8)
        if kind < 3:
            node[key] = _odd_value(rng)
        elif kind == 3:
            del node[key]
        elif kind == 4 and isinstance(node, list):
            node[key:key] = [child] * rng.choice([1, 1, 2, 11, 40])
        elif kind == 4:
            node[rng.choice(["x" * 500, "\x1b", "", "label", "keypoints", "data"])] = child
        elif kind == 5:
            node[key] = rng.choice([[child], {"x": child}, [child, child], str(child)])
        elif kind == 6 and isinstance(child, int | float | np.generic | np.ndarray) and not isinstance(child, bool):
            if isinstance(child, np.ndarray):
                node[key] = _odd_array(rng, child)
            else:
                factor = rng.choice([0, -1, 1.5, 1e10, 10**9, float("nan"), 10**40])
                node[key] = factor if isinstance(child, np.generic) or abs(child) > 1e300 else child * factor
        elif isinstance(node, list):
            other = rng.randrange(len(node))
            node[key], node[other] = node[other], node[key]
        else:
            other = rng.choice(list(node))
            node[key], node[other] = node[other], node[key]
    return root


def damage_json(rng: random.Random, content: bytes) -> bytes:
    """JSON with values of its tree replaced, now and then nested without end, or with names twice."""
    kind = rng.random()
    if kind < 0.04:
        brackets = rng.choice([b"[", b'{"a":', b'{"people":[', b"[[[{"])
        place = rng.choice([0, rng.randrange(len(content) + 1)])
        return content[:place] + brackets * rng.choice([10, 900, 5000]) + content[place:]
    if kind < 0.08:
        place = content.find(b"{", rng.randrange(len(content) + 1)) + 1
        return (
            content[:place] + rng.choice([b'"":1,', b'"people":[],', b'"keypoints":1,', b'"x":1,']) + content[place:]
        )
    text = json.dumps(damage_tree(rng, json.loads(content)), ensure_ascii=rng.random() < 0.7)
    return text.encode("utf-8", "surrogatepass")


def damage_pickle(rng: random.Random, content: Any) -> bytes:
    """A pickle of a damaged tree, or of the tree with damaged opcodes."""
    protocol = rng.choice([0, 2, 2, 4, 4, 5])
    if rng.random() < 0.45:
        return _dumps(damage_tree(rng, content), protocol)
    return damage_opcodes(rng, _dumps(content, protocol))


def _dumps(content: Any, protocol: int) -> bytes:
    try:
        return pickle.dumps(content, protocol=protocol)
    except (UnicodeEncodeError, RecursionError):
        return pickle.dumps(repr(content)[:300].encode("utf-8", "backslashreplace"), protocol=4)


# Parts of pickles: numbers and types that claim much, and states of a dtype that would jump anywhere.
_PICKLED = [
    b"N",
    b"\x88",
    b"]",
    b"}",
    b")",
    b"I1000000000\n",
    b"L" + b"9" * 5000 + b"L\n",
    b"F1e400\n",
    b"Fnan\n",
    b"\x8a\xff" + b"\x7f" * 255,
    b"X\x03\x00\x00\x00abc",
    b"r\x00\x00\x00\x3f",
    b"\x8e" + (1 << 40).to_bytes(8, "little") + b"x",
    b"B\x00\x00\x00\x7fx",
    b"(" * 50,
    b"2",
    b"0",
    b"1",
    b"]" * 900 + b"a" * 899,
    b"](" + b"2" * 900 + b"e",
    b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR(I3\nS'|'\nN(S'a'\nt(dS'a'\n(cnumpy\ndtype\n(S'O'\nI0\nI1\ntRI0\ntsI8\nI1\nI0\ntb",
    b"cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\n(NNtI-1\nI-1\nI0\ntb",
    b"cnumpy\ndtype\n(S'O'\nI0\nI1\ntR",
    b"cnumpy\ndtype\n(S'f8,O'\ntR",
    b"cnumpy\ndtype\n(S'(1000000000,)f8'\ntR",
    b"cnumpy\ndtype\n(S'V1000000000'\ntR",
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'f8'\ntR",
    b"cnumpy\nndarray\n((I1000000000000\nttR",
    b"cbuiltins\neval\n(S'1'\ntR",
    b"cposix\nsystem\n(S'true'\ntR",
    b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00latin1tR",
]


def damage_opcodes(rng: random.Random, content: bytes) -> bytes:
    """A pickle with opcodes lost, repeated, swapped or put in, between what is left as it was."""
    places = _opcode_places(content)
    parts = [content[start:end] for start, end in zip(places, [*places[1:], len(content)], strict=True)]
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(7)
        if kind == 0 and len(parts) > 1:
            del parts[place]
        elif kind == 1:
            parts.insert(place, parts[other])
        elif kind == 2:
            parts[place], parts[other] = parts[other], parts[place]
        elif kind == 3:
            parts.insert(place, rng.choice(_PICKLED))
        elif kind == 4:
            parts[place] = rng.choice(_PICKLED)
        elif kind == 5:
            parts[place:place] = parts[place : place + rng.randint(1, 6)] * rng.choice([1, 1, 100])
        else:
            parts[place] = damage_bytes(rng, parts[place])
    return b"".join(parts)


@cache
def _opcode_places(content: bytes) -> list[int]:
    return [place for _, _, place in pickletools.genops(content) if place is not None]


# --- Damage to arrays and archives ---------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    """An array as a ``.npy`` file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=True)
    return file.getvalue()


def damage_npy(rng: random.Random, array: np.ndarray) -> bytes:
    """A ``.npy`` file with another array, or with a header that does not fit what follows."""
    kind = rng.randrange(10)
    if kind < 4:
        return npy(_odd_array(rng, array))
    if kind == 4:
        objects = np.empty(2, dtype=object)
        objects[:] = [{"a": 1}, "x"]
        return npy(rng.choice([objects, np.zeros(2, [("a", "f4"), ("b", "i2")]), np.array("x" * 500)]))
    if kind == 5:
        return damage_bytes(rng, npy(array))
    shape: Any = list(array.shape)
    if shape and rng.random() < 0.7:
        shape[rng.randrange(len(shape))] = rng.choice([0, -1, 1, 2, 10**6, 10**9, 2**62, 10**30, 1.5, True, None, "2"])
    else:
        shape = rng.choice([[], [10**9], [10**7, 25, 3], [1] * 40, [0] * 5, [2**32, 2**32], None, "x", [[1]]])
    descr: Any = array.dtype.str
    if rng.random() < 0.4:
        structured = [("a", "<f4")], [("a", "|O")], ("<f4", (25, 3)), [("", "<f4"), ("b", "<i2", (10**6,))], None, 5
        descr = rng.choice([*_DTYPES, "V1000000000", "U1000000000", "(1000000,)f4", *structured])
    header: dict[str, Any] = {"descr": descr, "fortran_order": rng.choice([False, False, True, 0, "no"])}
    header["shape"] = tuple(shape) if isinstance(shape, list) else shape
    if rng.random() < 0.1:
        header[rng.choice(["descr", "more", "shape"])] = _odd_value(rng)
    text = repr(header)
    if rng.random() < 0.1:
        text = rng.choice([text[:-1], "(" * 300, "__import__('os')", text + " #", "", "1" * 5000, "{'descr': 1}"])
    version = rng.choice([(1, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 0)])
    encoded = text.encode("utf-8", "backslashreplace") + b" " * rng.randrange(64) + b"\n"
    length = len(encoded) if rng.random() < 0.9 else rng.choice([0, 10, 65535, 2**31])
    size = (length & 0xFFFF).to_bytes(2, "little") if version[0] < 2 else length.to_bytes(4, "little")
    data = array.tobytes()
    data = data if rng.random() < 0.7 else rng.choice([b"", data[: len(data) // 2], data * 2, data[:-1]])
    return b"\x93NUMPY" + bytes(version) + size + encoded + data


def pack(members: Mapping[str, bytes] | list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive with true checksums."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items() if isinstance(members, Mapping) else members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, content)
    return file.getvalue()


def unpack(content: bytes) -> list[tuple[str, bytes]]:
    """Members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def damage_npz(rng: random.Random, content: bytes) -> bytes:
    """An ``.npz`` file with an array changed, lost, renamed, added or standing twice; its checksums are true."""
    members = unpack(content)
    place = rng.randrange(len(members))
    name, data = members[place]
    kind = rng.randrange(12)
    if kind < 6:
        array = np.load(io.BytesIO(data), allow_pickle=False)
        members[place] = (name, npy(_odd_array(rng, array)) if kind < 4 else damage_npy(rng, array))
    elif kind == 6:
        del members[place]
    elif kind == 7:
        members[place] = (
            rng.choice(["x.npy", name[:-4], name.upper(), "../a.npy", "a/b.npy", "\x1b.npy", "x" * 900]),
            data,
        )
    elif kind == 8:
        members.append((rng.choice([name, "more.npy", "keypoints.npy", "offsets.npy", "folds.npy"]), data))
    elif kind == 9:
        members[place] = (name, damage_bytes(rng, data))
    elif kind == 10:
        other = rng.randrange(len(members))
        members[place], members[other] = (name, members[other][1]), (members[other][0], data)
    else:
        # A zip bomb: zeros are packed a thousand to one.
        return _pack_bomb(members, place, rng.choice([(2_000_000, 3), (20_000, 25, 3), (300_000, 25, 3)]))
    return pack(members, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


@cache
def _zeros(shape: tuple[int, ...]) -> tuple[int, int, bytes]:
    """Checksum, size and packed form of a ``.npy`` file of zeros."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    content = header.getvalue()
    packer, rest = zlib.compressobj(1, wbits=-15), math.prod(shape) * 4
    parts, checksum, size, block = [packer.compress(content)], zlib.crc32(content), len(content) + rest, bytes(1 << 20)
    while rest > 0:
        piece = block[:rest]
        parts.append(packer.compress(piece))
        checksum, rest = zlib.crc32(piece, checksum), rest - len(piece)
    return checksum, size, b"".join([*parts, packer.flush()])


def _pack_bomb(members: list[tuple[str, bytes]], place: int, shape: tuple[int, ...]) -> bytes:
    """A zip archive in which one member is an array of zeros; built by hand, as packing them takes long."""
    body, directory = b"", b""
    for number, (name, content) in enumerate(members):
        checksum, size, packed = _zeros(shape) if number == place else (zlib.crc32(content), len(content), content)
        facts = struct.pack("<HHHLLLHH", 8 if number == place else 0, 0, 33, checksum, len(packed), size, len(name), 0)
        directory += b"PK\1\2\x14\0\x14\0\0\0" + facts + struct.pack("<HHHLL", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\3\4\x14\0\0\0" + facts + name.encode() + packed
    end = struct.pack("<HHHHLLH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "|u1"}


def split_safetensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(header: Any, data: bytes) -> bytes:
    """The inverse of `split_safetensors`."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def damage_safetensors(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file with another header, other values, or other tensors with a header that fits them."""
    header, data = split_safetensors(content)
    kind = rng.randrange(8)
    if kind == 0:
        return damage_bytes(rng, content)
    if kind == 1:
        return join_safetensors(damage_tree(rng, header), data)
    if kind == 2:
        entry = header[rng.choice([name for name in header if name != "__metadata__"])]
        entry[rng.choice(["dtype", "shape", "data_offsets"])] = rng.choice(
            [
                "F32",
                "F16",
                "BF16",
                "I64",
                "U8",
                "BOOL",
                "F8_E4M3",
                "O",
                [],
                [0],
                [1],
                [10**9, 25],
                [0, 4],
                [-4, 0],
                [0, 2**62],
            ]
        )
        return join_safetensors(header, data)
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[start:end], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    name = rng.choice(list(tensors))
    if kind < 6:
        tensors[name] = _odd_array(rng, tensors[name])
    elif kind == 6:
        del tensors[name]
    else:
        other = rng.choice(list(tensors))
        tensors[name], tensors[other] = tensors[other], tensors[name]
    return safetensors({key: value for key, value in tensors.items() if value.dtype.kind in "fiub"})


def safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file; types that it does not know are left out."""
    names = {np.dtype(code): name for name, code in _SAFETENSORS.items()} | {np.dtype(bool): "BOOL"}
    header, parts, end = {}, [], 0
    for key, array in tensors.items():
        if array.dtype in names:
            start, end = end, end + array.nbytes
            header[key] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
            parts.append(np.ascontiguousarray(array).tobytes())
    return join_safetensors(header, b"".join(parts))


# --- Ways to damage one file of a seed -----------------------------------------------------------------------------


def of_file(damage: Callable[[random.Random, bytes], bytes], suffix: str = "", splice: bool = False) -> Mutation:
    """A mutation that damages one file, of those whose name ends with `suffix`."""

    def mutate(rng: random.Random, family: Family) -> Files:
        files = dict(rng.choice(family.seeds))
        name = rng.choice([name for name in files if name.endswith(suffix)])
        if splice:
            other = rng.choice(family.seeds).get(name, b"")
            files[name] = damage_bytes(rng, files[name], other)
        else:
            files[name] = damage(rng, files[name])
        return files

    return mutate


def any_bytes(suffix: str = "") -> Mutation:
    """Damaged bytes, and two seeds joined."""
    return of_file(damage_bytes, suffix, splice=True)


def lose_file(rng: random.Random, family: Family) -> Files:
    """A file lost, empty, under the name of another, or one more."""
    files = dict(rng.choice(family.seeds))
    name, other = rng.choice(list(files)), rng.choice(list(files))
    kind = rng.randrange(4)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[name] = b""
    elif kind == 2:
        files[name], files[other] = files[other], files[name]
    else:
        files["more-" + name] = files[name]
    return files


# --- What is right -------------------------------------------------------------------------------------------------


def check_sequence(sequence: Any) -> None:
    """Refuse what is no sequence of finite numbers."""
    from usdrl_hub import SkeletonSequence

    assert isinstance(sequence, SkeletonSequence), f"{type(sequence).__name__} in place of a sequence"
    keypoints = sequence.keypoints
    assert keypoints.dtype == np.float32 and keypoints.ndim == 4, f"keypoints {keypoints.dtype} {keypoints.shape}"
    assert np.isfinite(keypoints).all() and keypoints.any(), "keypoints that are not finite, or nobody"
    assert isinstance(sequence.name, str) and (sequence.label is None or int(sequence.label) >= 0), "name or label"


@dataclass
class Outcome:
    """What became of an input.

    Attributes:
        kind: "result", "error", or what is wrong.
        detail: The error's message, or where it came from.
        size: Bytes of the input.
        seconds: Processor time that reading took.
        memory: Bytes that it took at most, 0 where that is not measured.
    """

    kind: str
    detail: str = ""
    size: int = 0
    seconds: float = 0.0
    memory: int = 0

    @property
    def is_right(self) -> bool:
        """Whether it is a result or one error of ours."""
        return self.kind in ("result", "error")


@dataclass
class Bench:
    """A folder where inputs of a family are written, one after another, and read."""

    family: Family
    folder: Path
    files: Files = field(default_factory=dict)
    meter: Meter = field(default_factory=lambda: Meter())

    def read(self, files: Files) -> Outcome:
        """Write an input and read it within the limits."""
        self.write(files)
        size = sum(map(len, files.values()))
        target = self.folder / self.family.target if self.family.target else self.folder
        seconds = MOST_SECONDS[0] + MOST_SECONDS[1] * size
        start = time.process_time()
        caught: BaseException | None = None
        try:
            with self.meter.limited(MOST_MEMORY[0] + MOST_MEMORY[1] * size, seconds):
                try:
                    self.family.read(target)
                except BaseException as error:
                    caught = error
        except OutOfTime as error:
            # The alarm came between the two.
            caught = error
        took = time.process_time() - start
        kind, detail = self._judge(caught, target)
        # Its frames hold what was read.
        caught = None
        if kind in ("result", "error") and took > seconds:
            kind = "too slow"
        if kind in ("result", "error") and self.meter.peak > MOST_MEMORY[0] + MOST_MEMORY[1] * size:
            kind = "too much memory"
        return Outcome(kind, detail, size, took, self.meter.peak)

    def _judge(self, error: BaseException | None, target: Path) -> tuple[str, str]:
        if error is None:
            return "result", ""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        if isinstance(error, OutOfTime):
            return "too slow", _last_lines(error)
        if isinstance(error, AssertionError):
            return "no result", str(error)[:600]
        if not isinstance(error, USDRLError):
            return type(error).__name__, f"{str(error)[:200]} {_last_lines(error)}"
        text = str(error)
        return self._judge_text(error, text, target), text[:600]

    def _judge_text(self, error: USDRLError, text: str, target: Path) -> str:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return "too much memory"
            cause = cause.__context__
        names = self.family.named or (target.name, *self.files)
        if not any(name in text for name in names):
            return "the error names no file"
        if len(text) > LONGEST_SENTENCE:
            return "the error is too long"
        return "error" if "\n" not in text else "the error has several lines"

    def write(self, files: Files) -> None:
        """Bring the folder to these files."""
        for name in self.files.keys() - files.keys():
            (self.folder / name).unlink()
        for name, content in files.items():
            if self.files.get(name) is not content:
                (self.folder / name).write_bytes(content)
        self.files = dict(files)


def _last_lines(error: BaseException) -> str:
    told = traceback.format_exception(type(error), error, error.__traceback__, limit=-3, chain=False)
    lines = [line.strip() for line in "".join(told).splitlines() if line.strip()]
    return " | ".join(lines[-7:])[:700]


class Meter:
    """Limits what a reading may take, and measures its memory where the system tells (Linux)."""

    def __init__(self) -> None:
        self.peak = 0
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)
            self._status = os.open("/proc/self/status", os.O_RDONLY)
            self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY)
        except OSError:
            self._statm = self._status = self._clear = -1
        self._measures = self._clear >= 0 and resource is not None
        self._alarms = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    @contextmanager
    def limited(self, memory: int, seconds: float) -> Iterator[None]:
        """Within the block, more memory is a MemoryError and more processor time (or 12 times that) is OutOfTime."""
        if self._alarms:
            for number, timer, share in (
                (signal.SIGPROF, signal.ITIMER_PROF, 1.0),
                (signal.SIGALRM, signal.ITIMER_REAL, 12.0),
            ):
                signal.signal(number, _out_of_time)
                signal.setitimer(timer, seconds * share)
        before = 0
        if self._measures:
            pages = os.pread(self._statm, 200, 0).split()
            data, before = int(pages[5]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()
            os.write(self._clear, b"5")
            limit = resource.getrlimit(resource.RLIMIT_DATA)
            most = data + memory if limit[1] == resource.RLIM_INFINITY else min(data + memory, limit[1])
            resource.setrlimit(resource.RLIMIT_DATA, (most, limit[1]))
        try:
            yield
        finally:
            if self._measures:
                resource.setrlimit(resource.RLIMIT_DATA, limit)
                status = os.pread(self._status, 4000, 0)
                place = status.index(b"VmHWM:") + 6
                self.peak = max(int(status[place : status.index(b"kB", place)]) * 1024 - before, 0)
            if self._alarms:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)


def _out_of_time(*_: Any) -> None:
    raise OutOfTime


def generator(family: Family, seed: int, number: int) -> random.Random:
    """The generator of input `number`, which nothing else decides."""
    return random.Random(f"{family.name}:{seed}:{number}")


def make_input(family: Family, seed: int, number: int) -> Files:
    """Input `number` of a family."""
    rng = generator(family, seed, number)
    return rng.choice(family.mutations)(rng, family)


_REPEATED = [
    *(b"0\n", b"\n", b"[],", b"{},", b"1,", b"[0],", b"1\n0\n", b",", b"[", b" ", b"0 ", b'"a":1,', b"[[]],", b'""'),
    *(b'{"people":[]},', b"\n\n1\n", b",\n", b"a.npy,x\n", b"- ", b"a: 1\n"),
]


def make_long_input(family: Family, seed: int, number: int, size: int) -> Files:
    """A seed grown to `size` bytes: a few bytes of it, a line, an element or something else, over and over."""
    rng = random.Random(f"{family.name}:long:{seed}:{number}")
    files = dict(rng.choice(family.seeds))
    name = rng.choice([name for name in files if Path(name).suffix == Path(family.target).suffix])
    content = files[name]
    place, kind = rng.randrange(len(content) + 1), number % 4
    block = content[place : place + rng.choice([1, 3, 10, 60, 400])]
    if kind == 0:
        block = rng.choice(_REPEATED)
    elif kind == 2:
        start, place = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", place) + 1 or len(content)
        block = content[start:place]
    elif kind == 3 and (ends := [match.end() for match in re.finditer(rb"[]}]", content)]):
        place = rng.choice(ends)
        block = b"," + content[max(content.rfind(b"{", 0, place), content.rfind(b"[", 0, place)) : place]
    block = block or b"x"
    files[name] = content[:place] + block * (size // len(block)) + content[place:]
    return files


@contextmanager
def bench(family: Family) -> Iterator[Bench]:
    """A folder for a family's inputs, after its seeds have been read, which also loads what reading needs.

    Raises:
        AssertionError: If a seed is not read as what it is.
    """
    # In memory, where there is such a place: a disk is ten times slower than the reader.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="usdrl-fuzz-", dir=memory) as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(place) / f"{family.name}-input"
        folder.mkdir()
        found = Bench(family, folder)
        for number, files in enumerate(family.seeds):
            found.write(files)
            family.read(folder / family.target if family.target else folder)
            outcome = found.read(files)
            assert outcome.kind == "result", f"seed {number} of {family.name}: {outcome}"
        yield found
