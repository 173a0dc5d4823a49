"""A reader of pickles that creates containers, numbers, text and plain numeric arrays only."""

from __future__ import annotations

import codecs
import gc
import math
import os
import pickle
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SkeletonFormatError

# Types of numbers and text in NumPy's pickles; all else about a type is compared, never executed.
_NUMBER = re.compile(r"(?:b1|[iu][1248]|f[248]|[US][0-9]{1,6})")
# Containers of a file at most: a constant, and one per so many bytes. Each takes 50 to 130 bytes of memory.
_FEW, _BYTES_EACH = 1000, 4
# Depth of nested containers at most; a data set has four.
_DEEPEST = 50
# Bytes of the longest plain number.
_SHORT = 16
_MARK = object()


class _Refused(Exception):
    """Content of a pickle that is refused, as the message says."""


class _Type:
    """A numeric type of a pickle; its state gives the byte order."""

    def __init__(self, code: Any, *rest: Any) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code) or any(type(value) is not bool for value in rest):
            raise _Refused("it holds an array of an unknown type")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags): all but the second follow from the
        # code. With any other state NumPy could read memory outside the array.
        if not isinstance(state, tuple) or not 8 <= len(state) <= 9 or state[1] not in ("<", ">", "|", "="):
            raise _Refused("it holds an array of an unknown type")
        if state[2:5] != (None, None, None) or (len(state) == 9 and state[8] is not None):
            raise _Refused("it holds an array of an unknown type")
        sizes = (self.dtype.itemsize, self.dtype.alignment) if self.dtype.kind in "US" else (-1, -1)
        if state[5:7] != sizes:
            raise _Refused("it holds an array of an unknown type")
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array that gets its shape, type and numbers from its state."""

    def __init__(self, kind: Any, shape: Any, code: Any) -> None:
        if kind is not _ARRAY_KIND:
            raise _Refused("it holds an array of an unknown kind")
        self.keys: list[int] = []


# Stands for the class numpy.ndarray, which is never called.
_ARRAY_KIND = object()


def _plain_array(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """An array of the numbers in `content`, which shares its memory."""
    if not isinstance(content, bytes | bytearray) or not isinstance(kind, _Type) or order not in ("C", "F"):
        raise _Refused("it holds an array of an unknown kind")
    plain = isinstance(shape, tuple) and len(shape) <= 32 and all(type(size) is int and size >= 0 for size in shape)
    if not plain or math.prod(shape) * kind.dtype.itemsize != len(content):
        raise _Refused("it holds an array of another size than its numbers")
    return np.ndarray(shape, kind.dtype, content, order=order)


def _scalar(kind: Any, content: Any = b"") -> Any:
    return _plain_array(content, kind, (), "C").item()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    if order == "K" and isinstance(axes, tuple) and all(type(axis) is int for axis in axes):
        # NumPy 2 writes transposed arrays in their memory order.
        return _plain_array(content, kind, shape, "C").transpose(axes)
    return _plain_array(content, kind, shape, order)


class _Reader:
    """A virtual machine for the opcodes of containers, numbers, text and NumPy arrays."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # Budgets of objects and of copied bytes, by the size of the file.
        self.objects = _FEW + len(content) // _BYTES_EACH
        self.copies = len(content)

    def load(self) -> Any:
        opcodes = _OPCODES
        while True:
            code = self.take(1)
            if code == b".":
                [result] = self.stack
                self.check_depth(result)
                return result
            read = opcodes.get(code)
            if read is None:
                raise _Refused("it holds objects other than arrays and plain containers")
            read(self)

    def take(self, size: int) -> bytes:
        end = self.position + size
        content = self.content[self.position : end]
        if len(content) != size:
            raise EOFError
        self.position = end
        return content

    def line(self) -> bytes:
        end = self.content.index(b"\n", self.position)
        content = self.content[self.position : end]
        self.position = end + 1
        return content

    def number(self, form: str) -> Any:
        [value] = struct.unpack(form, self.take(struct.calcsize(form)))
        return value

    def push(self, value: Any) -> None:
        """Push a container or a result, and count it."""
        self.objects -= 1
        if self.objects < 0:
            raise _Refused("it holds more containers than a file of its size has")
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self) -> None:
        if len(self.marks) >= 10 * _DEEPEST:
            raise _Refused("its containers are nested too deeply")
        self.marks.append(len(self.stack))

    def remember(self, key: int) -> None:
        value = self.stack[-1]
        if not 0 <= key < 1 << 32:
            raise _Refused("it is damaged")
        if isinstance(value, _Array):
            value.keys.append(key)
        if key not in self.memo:
            self.objects -= 1
            if self.objects < 0:
                raise _Refused("it refers to more objects than a file of its size has")
        self.memo[key] = value

    def append(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise _Refused("it holds objects other than arrays and plain containers")
        target.extend(items)

    def set_items(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise _Refused("it holds objects other than arrays and plain containers")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing nested tuples recurses without a limit; large numbers can be chosen to collide.
            if not isinstance(key, str | bytes | None) and not (isinstance(key, int) and abs(key) < 1 << 31):
                raise _Refused("it holds a dictionary whose keys are not names or small numbers")
            target[key] = value

    def find(self, module: str, name: str) -> None:
        found = _known(module, name)
        if module.partition(".")[0] == "torch":
            raise _Refused(
                "it holds tensors of PyTorch, such as a model's scores, and no arrays: save keypoints with "
                "numpy.save(tensor.numpy())"
            )
        if found is None:
            raise _Refused(f"it holds '{module}.{name}', which is not an array or plain container")
        self.stack.append(found)

    def reduce(self) -> None:
        arguments = self.stack.pop()
        call = self.stack.pop()
        if type(arguments) is not tuple or not any(call is known for known in _CALLS):
            raise _Refused("it holds objects other than arrays and plain containers")
        if call is _encode:
            self.copy(arguments[0])
        elif call is _scalar and len(arguments[-1]) > _SHORT:
            self.copy(arguments[-1])
        self.push(call(*arguments))

    def copy(self, content: Any) -> None:
        """Count copied bytes: many references may copy the same content."""
        self.copies -= len(content)
        if self.copies < 0:
            raise _Refused("it holds more bytes than a file of its size has")

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Type):
            target.set_state(state)
            return
        if not isinstance(target, _Array) or not isinstance(state, tuple) or len(state) not in (4, 5):
            raise _Refused("it holds objects other than arrays and plain containers")
        shape, kind, is_fortran, content = state[-4:]
        if isinstance(content, str):
            # Python 2 wrote bytes as text.
            self.copy(content)
            content = content.encode("latin1")
        array = _plain_array(content, kind, shape, "F" if is_fortran else "C")
        self.stack[-1] = array
        for key in target.keys:
            self.memo[key] = array

    def check_depth(self, result: Any) -> None:
        """Refuse containers nested so deeply that Python's recursion fails."""
        level, known = [result], {id(result)}
        for _ in range(_DEEPEST):
            deeper = []
            for container in level:
                if isinstance(container, list | tuple | dict):
                    for item in container.values() if isinstance(container, dict) else container:
                        if isinstance(item, list | tuple | dict) and id(item) not in known:
                            known.add(id(item))
                            deeper.append(item)
            if not deeper:
                return
            level = deeper
        raise _Refused("its containers are nested too deeply")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("it holds bytes of an unknown kind")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_CALLS = (_Type, _Array, _scalar, _from_buffer, _encode, _no_bytes)


def _known(module: str, name: str) -> Any:
    """The substitute for a name in pickles of NumPy arrays; None for all other names."""
    if module == "numpy":
        return {"ndarray": _ARRAY_KIND, "dtype": _Type}.get(name)
    if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        return {"_reconstruct": _Array, "scalar": _scalar}.get(name)
    if module in ("numpy.core.numeric", "numpy._core.numeric"):
        return {"_frombuffer": _from_buffer}.get(name)
    return {("_codecs", "encode"): _encode, ("__builtin__", "bytes"): _no_bytes}.get((module, name))


def _int_of_line(text: bytes) -> Any:
    return text == b"01" if text in (b"00", b"01") else int(text)


def _quoted(text: bytes) -> str:
    if len(text) < 2 or text[0] != text[-1] or text[:1] not in (b"'", b'"'):
        raise _Refused("it is damaged")
    return codecs.escape_decode(text[1:-1])[0].decode("latin1")  # type: ignore[attr-defined]


def _long(content: bytes) -> int:
    return int.from_bytes(content, "little", signed=True)


def _push(make: Callable[[_Reader], Any]) -> Callable[[_Reader], None]:
    def read(reader: _Reader) -> None:
        reader.stack.append(make(reader))

    return read


def _tuple_of(count: int) -> Callable[[_Reader], None]:
    def read(reader: _Reader) -> None:
        if len(reader.stack) < count:
            raise IndexError
        items = tuple(reader.stack[len(reader.stack) - count :])
        del reader.stack[len(reader.stack) - count :]
        reader.push(items)

    return read


def _dictionary(reader: _Reader) -> None:
    items = reader.since_mark()
    reader.push({})
    reader.set_items(items)


def _stack_global(reader: _Reader) -> None:
    name, module = reader.stack.pop(), reader.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise _Refused("it is damaged")
    reader.find(module, name)


def _pair(reader: _Reader) -> None:
    value, key = reader.stack.pop(), reader.stack.pop()
    reader.set_items([key, value])


_OPCODES: dict[bytes, Callable[[_Reader], None]] = {
    pickle.PROTO: lambda r: r.number("<B") and None,
    pickle.FRAME: lambda r: r.number("<Q") and None,
    pickle.MARK: _Reader.mark,
    pickle.NONE: _push(lambda r: None),
    pickle.NEWTRUE: _push(lambda r: True),
    pickle.NEWFALSE: _push(lambda r: False),
    pickle.INT: _push(lambda r: _int_of_line(r.line())),
    pickle.LONG: _push(lambda r: int(r.line().removesuffix(b"L"))),
    pickle.FLOAT: _push(lambda r: float(r.line())),
    pickle.BININT: _push(lambda r: r.number("<i")),
    pickle.BININT1: _push(lambda r: r.number("<B")),
    pickle.BININT2: _push(lambda r: r.number("<H")),
    pickle.LONG1: _push(lambda r: _long(r.take(r.number("<B")))),
    pickle.LONG4: _push(lambda r: _long(r.take(r.number("<I")))),
    pickle.BINFLOAT: _push(lambda r: r.number(">d")),
    pickle.STRING: _push(lambda r: _quoted(r.line())),
    pickle.BINSTRING: _push(lambda r: r.take(r.number("<I")).decode("latin1")),
    pickle.SHORT_BINSTRING: _push(lambda r: r.take(r.number("<B")).decode("latin1")),
    pickle.UNICODE: _push(lambda r: codecs.decode(r.line(), "raw_unicode_escape")),
    pickle.BINUNICODE: _push(lambda r: r.take(r.number("<I")).decode("utf-8")),
    pickle.SHORT_BINUNICODE: _push(lambda r: r.take(r.number("<B")).decode("utf-8")),
    pickle.BINUNICODE8: _push(lambda r: r.take(r.number("<Q")).decode("utf-8")),
    pickle.BINBYTES: _push(lambda r: r.take(r.number("<I"))),
    pickle.SHORT_BINBYTES: _push(lambda r: r.take(r.number("<B"))),
    pickle.BINBYTES8: _push(lambda r: r.take(r.number("<Q"))),
    pickle.BYTEARRAY8: _push(lambda r: bytearray(r.take(r.number("<Q")))),
    pickle.EMPTY_LIST: lambda r: r.push([]),
    pickle.LIST: lambda r: r.push(r.since_mark()),
    pickle.APPEND: lambda r: r.append([r.stack.pop()]),
    pickle.APPENDS: lambda r: r.append(r.since_mark()),
    pickle.EMPTY_TUPLE: _push(lambda r: ()),
    pickle.TUPLE: lambda r: r.push(tuple(r.since_mark())),
    pickle.TUPLE1: _tuple_of(1),
    pickle.TUPLE2: _tuple_of(2),
    pickle.TUPLE3: _tuple_of(3),
    pickle.EMPTY_DICT: lambda r: r.push({}),
    pickle.DICT: _dictionary,
    pickle.SETITEM: _pair,
    pickle.SETITEMS: lambda r: r.set_items(r.since_mark()),
    pickle.PUT: lambda r: r.remember(int(r.line())),
    pickle.BINPUT: lambda r: r.remember(r.number("<B")),
    pickle.LONG_BINPUT: lambda r: r.remember(r.number("<I")),
    pickle.MEMOIZE: lambda r: r.remember(len(r.memo)),
    pickle.GET: _push(lambda r: r.memo[int(r.line())]),
    pickle.BINGET: _push(lambda r: r.memo[r.number("<B")]),
    pickle.LONG_BINGET: _push(lambda r: r.memo[r.number("<I")]),
    pickle.GLOBAL: lambda r: r.find(r.line().decode(), r.line().decode()),
    pickle.STACK_GLOBAL: _stack_global,
    pickle.REDUCE: _Reader.reduce,
    pickle.BUILD: _Reader.build,
}


@contextmanager
def without_collection() -> Iterator[None]:
    """Suspend garbage collection, which takes longer than creating many containers."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_numpy_pickle(path: str | os.PathLike) -> Any:
    """Load a pickle of NumPy arrays and plain containers; nothing is executed, and no other object is created.

    Arrays are of integers, floats, booleans or text; dictionaries have names or small numbers as keys. Containers are
    nested at most 50 deep, and the size of the file limits their number.

    Raises:
        SkeletonFormatError: If the file is missing, truncated, or contains anything else.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror}") from None
    try:
        with without_collection():
            return _Reader(content).load()
    except _Refused as error:
        raise SkeletonFormatError(f"{path}: it is refused: {' '.join(str(error).split())[:200]}") from None
    except Exception as error:
        # A damaged pickle raises errors of any type.
        raise SkeletonFormatError(f"{path}: it is truncated or damaged ({type(error).__name__})") from None
