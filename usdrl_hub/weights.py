"""What a safetensors file holds, read off its header, and whether that fits a configuration.

A header is read before anything is allocated: a file of a few bytes cannot make a model of gigabytes.
"""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils import cached_file

from .configuration_usdrl import USDRLConfig

# Arguments that say where a repository's files are.
HUB_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)
# Fields without which the same numbers mean something else.
MEANING = (
    "encoder",
    "modality",
    "layout",
    "num_frames",
    "num_persons",
    "num_joints",
    "num_channels",
    "num_attention_heads",
    "alpha",
    "shift_gap",
)
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_LARGEST_HEADER = 100_000_000
# Numbers of a head that is made anew; a recogniser of a million classes has fewer.
_LARGEST_HEAD = 1 << 31


def read_shapes(path: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a safetensors file, by its header alone.

    Raises:
        ValueError: If the header is none, or a tensor in it does not fit the file; the message names file and tensor.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise ValueError(f"{path}: it is cut, or no safetensors file: download or save it again")
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, AttributeError, RecursionError):
            raise ValueError(f"{path}: its header is damaged: download or save it again") from None
    shapes, end = {}, 0
    for name, entry in entries.items():
        try:
            width, shape, (start, stop) = _WIDTHS[entry["dtype"]], entry["shape"], entry["data_offsets"]
            fits = all(isinstance(value, int) and value >= 0 for value in (*shape, start, stop))
            fits = fits and stop - start == width * math.prod(shape)
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"{path}: tensor '{name}' has no possible type, shape and place in the header")
        if 8 + length + stop > size:
            raise ValueError(f"{path}: tensor '{name}' is cut off: download or save the file again")
        shapes[name] = tuple(shape)
        end = max(end, stop)
    if 8 + length + end != size:
        raise ValueError(f"{path}: there are bytes in it that belong to no tensor")
    return shapes


def find_shapes(name: str | os.PathLike, **arguments) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a folder or repository, of all its shards.

    Args:
        name: Folder, or repository on the hub.
        **arguments: Of `from_pretrained`; those that say where the files are count.

    Raises:
        ValueError: See `read_shapes`; or if the index of the shards is damaged or names files outside.
        OSError: If there are no weights in safetensors format.
    """
    where = {key: arguments[key] for key in HUB_ARGUMENTS if arguments.get(key) is not None}

    def find(file: str) -> str | None:
        return cached_file(name, file, _raise_exceptions_for_missing_entries=False, **where)

    variant = f".{arguments['variant']}" if arguments.get("variant") else ""
    if single := find(f"model{variant}.safetensors"):
        return read_shapes(single)
    if not (index := find(f"model.safetensors.index{variant}.json")):
        # transformers would ask a service to convert pickles, and send it the token.
        raise OSError(f"model '{name}': there are no weights in safetensors format")
    try:
        placed = dict(json.loads(Path(index).read_text("utf-8"))["weight_map"])
        shards = sorted(set(placed.values()))
    except (ValueError, KeyError, TypeError, OSError):
        raise ValueError(f"{index}: the index of the shards is damaged") from None
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ValueError(f"{index}: the index names a file outside, '{shard}'")
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in shards:
        if not (path := find(shard)):
            raise ValueError(f"{name}: the file {shard}, which its index names, is missing")
        shapes |= read_shapes(path)
    if lost := sorted(set(placed) - set(shapes)):
        raise ValueError(f"{name}: tensor '{lost[0]}' is in none of its files")
    return shapes


def check_shapes(
    name: str | os.PathLike,
    shapes: dict[str, tuple[int, ...]],
    config: USDRLConfig,
    build: Callable[[], PreTrainedModel],
    other_head: bool = False,
) -> None:
    """Compare the tensors of a checkpoint with what its configuration describes.

    Args:
        name: The checkpoint's name, for errors.
        shapes: See `find_shapes`.
        config: Its configuration.
        build: Makes the model of the configuration; called on the meta device, after its sizes have been checked.
        other_head: Whether the head's tensors may have other shapes, and are then made anew.

    Raises:
        ValueError: If a tensor of the encoder is missing, any tensor has another shape, or a new head would be too
            large; the message names the tensor.
    """
    prefix = "usdrl." if any(key.startswith("usdrl.") for key in shapes) else ""
    layers = {int(match[1]) for key in shapes if (match := re.match(rf"{prefix}temporal\.layers\.(\d+)\.", key))}
    # Numbers of modules, before any is made.
    if config.num_hidden_layers != len(layers):
        raise ValueError(
            f"model '{name}': its configuration says {config.num_hidden_layers} layers, but its weights hold "
            f"{len(layers)}: '{prefix}temporal.layers.{min(config.num_hidden_layers, len(layers))}...' differs"
        )
    with torch.device("meta"):
        model = build()
    base = f"{model.base_model_prefix}."
    own = "" if model.base_model is model else base
    for key, tensor in model.state_dict().items():
        encoder = key.startswith(own)
        stored = (prefix + key.removeprefix(own)) if encoder else key
        if stored not in shapes:
            if encoder:
                raise ValueError(f"model '{name}': tensor '{stored}' is missing from its weights")
            if tensor.numel() > _LARGEST_HEAD:
                raise ValueError(f"model '{name}': a new tensor '{key}' of {tensor.numel()} numbers is too large")
        elif shapes[stored] != tuple(tensor.shape) and not (other_head and not encoder):
            raise ValueError(
                f"model '{name}': tensor '{stored}' has the shape {list(shapes[stored])}, but its configuration "
                f"describes {list(tensor.shape)}"
            )


def check_meaning(name: str | os.PathLike, own: USDRLConfig, wanted: dict) -> None:
    """Refuse to read a checkpoint's numbers as those of another configuration.

    Args:
        name: The checkpoint's name.
        own: Its configuration.
        wanted: Fields of the one it is to be loaded with.

    Raises:
        ValueError: If one says that the input or the encoder's operations are others; the message names it.
    """
    for field in MEANING:
        if field in wanted and wanted[field] != getattr(own, field):
            raise ValueError(
                f"model '{name}' was trained with {field} {getattr(own, field)!r}, but is to be loaded with "
                f"{wanted[field]!r}: its weights mean something else there; train one for it, or leave {field} out"
            )
