"""Check the tensors of safetensors files, by their headers, against a configuration.

Headers are read before anything is allocated: a file of a few bytes cannot allocate gigabytes.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightRenaming
from transformers.utils import cached_file, is_peft_available
from transformers.utils.peft_utils import find_adapter_config_file

from .configuration_usdrl import USDRLConfig
from .errors import NonFiniteError

# Arguments of `from_pretrained` that locate a repository's files.
HUB_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)
# Fields that give the weights their meaning.
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
    "readout_parts",
    "readout_size",
)
# Types of weights; those of quantised models have others.
_FLOATING = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_WHOLE = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1}
_WIDTHS = {**_FLOATING, **_WHOLE, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
_ADAPTER = "adapter_config.json"
_LARGEST_HEADER = 100_000_000
# Largest size in bytes of the tensors that a configuration describes and the weights lack: a constant, and a multiple
# of the weights' own size. Loading may take 64 MB and 50 times that size in all.
_LARGEST_NEW, _NEW_PER_BYTE = 32_000_000, 40
# The same if the caller chose another size of the head.
_LARGEST_ASKED = 1 << 33
# Sizes of heads, which a caller may choose.
_HEAD_SIZES = (
    "num_labels",
    "segmentation_stages",
    "segmentation_layers",
    "segmentation_channels",
    "stream_projector_sizes",
    "instance_projector_sizes",
)


class Adapter(NamedTuple):
    """PEFT adapters, which are stored without the weights of their base model.

    Attributes:
        base: Name or folder of the base model.
        model_class: Name of the class that they were trained on; empty where unknown.
        config: The configuration stored with them, or None.
        has_head: Whether a classification layer is stored with them.
        revision: Commit, tag or branch of a base model of the hub; None where it is not stated.
    """

    base: str
    model_class: str
    config: USDRLConfig | None
    has_head: bool = False
    revision: str | None = None


def find_adapter(name: str | os.PathLike | None, **arguments: Any) -> Adapter | None:
    """Read the base model of PEFT adapters; None where `name` is a whole model.

    Args:
        name: Folder, or repository on the hub.
        **arguments: See `find_tensors`.

    Raises:
        ValueError: If it is an adapter, and PEFT is not installed or its base model is not named.
    """
    if name is None or arguments.get("state_dict") is not None:
        return None
    where = {key: arguments[key] for key in HUB_ARGUMENTS if arguments.get(key) is not None}
    folder = Path(name) / (where.get("subfolder") or "")
    if Path(name).is_dir() and (not (folder / _ADAPTER).is_file() or any(folder.glob("model*.safetensors*"))):
        return None
    if not Path(name).is_dir() and _is_known_as_model(str(name), where):
        return None
    path = find_adapter_config_file(str(name), **where)
    if path is None:
        return None
    try:
        record = json.loads(Path(path).read_text("utf-8"))
        base, mapping = record["base_model_name_or_path"], record.get("auto_mapping") or {}
        revision = record.get("revision") or None
        if not isinstance(base, str) or not base or not isinstance(revision, str | None):
            raise ValueError
        kind = str(mapping.get("base_model_class") or "")
        has_head = "classifier" in (record.get("modules_to_save") or ())
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        raise ValueError(f"{path}: it does not name the adapter's base model ('base_model_name_or_path')") from None
    if not is_peft_available():
        raise ValueError(f"model '{name}' is an adapter of PEFT for '{base}': install the package peft to load it")
    has_config = cached_file(name, "config.json", _raise_exceptions_for_missing_entries=False, **where) is not None
    config = USDRLConfig.from_pretrained(name, **where) if has_config else None
    # Of a folder there is but one.
    return Adapter(base, kind, config, has_head, None if Path(base).is_dir() else revision)


def _is_known_as_model(name: str, where: dict[str, Any]) -> bool:
    """Whether the hub's cache holds a repository's configuration and no adapter, so that the hub need not be asked."""
    cache = {key: where[key] for key in ("cache_dir", "revision") if key in where}
    folder = f"{where['subfolder']}/" if where.get("subfolder") else ""
    try:
        model, adapter = (try_to_load_from_cache(name, folder + file, **cache) for file in ("config.json", _ADAPTER))
    except HFValidationError:
        return False
    return isinstance(model, str) and not isinstance(adapter, str)


class Stored(NamedTuple):
    """A tensor in a safetensors file, by the header.

    Attributes:
        shape: Its shape.
        dtype: Its type, as named by safetensors.
        path: The file.
    """

    shape: tuple[int, ...]
    dtype: str
    path: Path


def read_header(path: str | os.PathLike) -> dict[str, Stored]:
    """The tensors in a safetensors file, by its header alone.

    Raises:
        ValueError: If the header is damaged, or a tensor in it does not fit the file; the message names both.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise ValueError(f"{path}: it is truncated or not a safetensors file: download or save it again")
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, AttributeError, RecursionError):
            raise ValueError(f"{path}: its header is damaged: download or save it again") from None
    tensors, end = {}, 0
    for name, entry in entries.items():
        try:
            width, shape, (start, stop) = _WIDTHS[entry["dtype"]], entry["shape"], entry["data_offsets"]
            fits = all(isinstance(value, int) and value >= 0 for value in (*shape, start, stop))
            fits = fits and stop - start == width * math.prod(shape)
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"{path}: tensor '{name}' has an impossible type, shape or offset in the header")
        if 8 + length + stop > size:
            raise ValueError(f"{path}: tensor '{name}' is cut off: download or save the file again")
        tensors[name] = Stored(tuple(shape), entry["dtype"], path)
        end = max(end, stop)
    if 8 + length + end != size:
        raise ValueError(f"{path}: there are bytes in it that belong to no tensor")
    return tensors


def find_tensors(name: str | os.PathLike, **arguments: Any) -> dict[str, Stored]:
    """The tensors of all shards of a folder or repository, by the names under which they are loaded.

    Args:
        name: Folder, or repository on the hub.
        **arguments: Of `from_pretrained`: `HUB_ARGUMENTS`, `variant` and `key_mapping` are used.

    Raises:
        ValueError: See `read_header`; or if the index of the shards is damaged or names files outside.
        OSError: If there are no weights in safetensors format.
    """
    where = {key: arguments[key] for key in HUB_ARGUMENTS if arguments.get(key) is not None}

    def find(file: str) -> str | None:
        return cached_file(name, file, _raise_exceptions_for_missing_entries=False, **where)

    variant = f".{arguments['variant']}" if arguments.get("variant") else ""
    renaming = dict(arguments.get("key_mapping") or {})
    if single := find(f"model{variant}.safetensors"):
        return _renamed(read_header(single), renaming)
    if not (index := find(f"model.safetensors.index{variant}.json")):
        # transformers would have a service convert pickles, and send it the token.
        raise OSError(f"model '{name}': there are no weights in safetensors format")
    try:
        placed = dict(json.loads(Path(index).read_text("utf-8"))["weight_map"])
        shards = sorted(set(placed.values()))
    except (ValueError, KeyError, TypeError, OSError):
        raise ValueError(f"{index}: the index of the shards is damaged") from None
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ValueError(f"{index}: the index names a file outside, '{str(shard)[-40:]}'")
    tensors: dict[str, Stored] = {}
    for shard in shards:
        if not (path := find(shard)):
            raise ValueError(f"{name}: the file {shard}, which its index names, is missing")
        tensors |= read_header(path)
    if lost := sorted(set(placed) - set(tensors)):
        raise ValueError(f"{name}: tensor '{lost[0]}' is in none of its files")
    return _renamed(tensors, renaming)


def _renamed(tensors: dict[str, Stored], renaming: Mapping[str, str]) -> dict[str, Stored]:
    """Tensors by the names under which transformers loads them with `key_mapping`: pattern -> replacement."""
    for pattern, replacement in renaming.items():
        rule = WeightRenaming(source_patterns=pattern, target_patterns=replacement)
        tensors = {rule.rename_source_key(name)[0]: stored for name, stored in tensors.items()}
    return tensors


def check_files(
    model_class: type[PreTrainedModel], name: str | os.PathLike | None, arguments: dict[str, Any]
) -> dict[str, Stored]:
    """Compare configuration and weights of a checkpoint by their headers.

    Args:
        model_class: The class that is loaded.
        name: Folder, or repository on the hub.
        arguments: Keyword arguments of `from_pretrained`.

    Returns:
        The checkpoint's tensors, by the names under which they are loaded; empty if `state_dict` is given.

    Raises:
        ValueError: See `check_meaning`, `find_tensors` and `check_tensors`.
    """
    if name is None or arguments.get("state_dict") is not None:
        return {}
    where = {key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}
    own = USDRLConfig.from_pretrained(name, **where)
    given = arguments.get("config")
    fields = {key: getattr(given, key) for key in MEANING} if isinstance(given, USDRLConfig) else {}
    fields |= {key: arguments[key] for key in MEANING if key in arguments}
    check_meaning(name, own, fields)
    tensors = find_tensors(name, **arguments)
    changes = {key: arguments[key] for key in ("is_causal", "num_labels", "id2label") if key in arguments}
    config = given if isinstance(given, USDRLConfig) else USDRLConfig.from_pretrained(name, **where, **changes)
    other_head = bool(arguments.get("ignore_mismatched_sizes"))
    check_tensors(name, tensors, config, own, lambda: model_class(config), other_head)
    return tensors


def check_tensors(
    name: str | os.PathLike,
    tensors: Mapping[str, Stored],
    config: USDRLConfig,
    own: USDRLConfig,
    build: Callable[[], PreTrainedModel],
    other_head: bool = False,
) -> None:
    """Compare the tensors of a checkpoint with what its configuration describes.

    Args:
        name: The checkpoint's name, for errors.
        tensors: See `find_tensors`.
        config: The configuration that it is loaded with.
        own: The configuration that it was saved with.
        build: Makes the model of the configuration, on the meta device; called after its number of layers is checked.
        other_head: Whether the head's tensors may have other shapes, and are then initialised.

    Raises:
        ValueError: If a tensor of the encoder is missing, any tensor has another shape or is not floating, or the
            tensors that the weights lack are too large; the message names the tensor.
    """
    prefix = "usdrl." if any(key.startswith("usdrl.") for key in tensors) else ""
    layers = {int(match[1]) for key in tensors if (match := re.match(rf"{prefix}temporal\.layers\.(\d+)\.", key))}
    # Before any module is made.
    if config.num_hidden_layers != len(layers):
        raise ValueError(
            f"model '{name}': its configuration says {config.num_hidden_layers} layers, but its weights hold "
            f"{len(layers)}: '{prefix}temporal.layers.{min(config.num_hidden_layers, len(layers))}...' differs"
        )
    with torch.device("meta"):
        model = build()
    base = f"{model.base_model_prefix}."
    own_base = "" if model.base_model is model else base
    # Quantised weights are stored in several tensors, with names and types of their library.
    quantised = getattr(own, "quantization_config", None) is not None
    parts = {key.rpartition(".")[0] for key in tensors} if quantised else set()
    state = model.state_dict()
    new = {key: buffer.numel() for key, buffer in model.named_buffers() if key not in state}
    asked = any(getattr(config, field) != getattr(own, field) for field in _HEAD_SIZES)
    hint = "; for a new head give ignore_mismatched_sizes=True or call with_head"
    # Of a head for other classes, its weights are named first.
    for key, tensor in sorted(state.items(), key=lambda item: item[0].startswith("class_centers.")):
        encoder = key.startswith(own_base)
        stored_key = (prefix + key.removeprefix(own_base)) if encoder else key
        stored = tensors.get(stored_key)
        if stored is None and stored_key.rpartition(".")[0] in parts:
            continue
        if stored is None and encoder:
            raise ValueError(f"model '{name}': tensor '{stored_key}' is missing from its weights")
        if stored is None or stored.shape != tuple(tensor.shape) and other_head and not encoder:
            new[key] = tensor.numel()
        elif stored.shape != tuple(tensor.shape):
            raise ValueError(
                f"model '{name}': tensor '{stored_key}' has the shape {list(stored.shape)}, but its configuration "
                f"describes {list(tensor.shape)}" + hint * (asked and not encoder)
            )
        elif stored.dtype not in (_FLOATING if tensor.is_floating_point() else _WHOLE) and not quantised:
            raise ValueError(
                f"model '{name}': tensor '{stored_key}' has the type {stored.dtype}, but a model's weights are "
                f"{'floating' if tensor.is_floating_point() else 'whole'}: it was not saved by this package"
            )
    num_bytes = sum(math.prod(stored.shape) * _WIDTHS[stored.dtype] for stored in tensors.values())
    largest = _LARGEST_ASKED if asked else _LARGEST_NEW + _NEW_PER_BYTE * num_bytes
    if new and 4 * sum(new.values()) > largest:
        key = max(new, key=lambda key: new[key])
        raise ValueError(
            f"model '{name}': its weights hold {num_bytes} bytes, but its configuration describes "
            f"{4 * sum(new.values())} more, most of them in '{key}' of {new[key]} numbers: that is too large"
        )


def check_values(name: str | os.PathLike, model: PreTrainedModel, tensors: Mapping[str, Stored]) -> None:
    """Refuse weights that are NaN or infinite.

    Args:
        name: The checkpoint's name, for errors.
        model: The model that was loaded.
        tensors: See `find_tensors`; offloaded weights are read from these files.

    Raises:
        NonFiniteError: If any is; the message names the tensor.
    """
    loaded = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for key, tensor in loaded.items():
        # Quantised weights are of types of other libraries.
        if tensor.is_meta or not tensor.is_floating_point() or type(tensor.data) is not torch.Tensor:
            continue
        if tensor.numel() and not all(map(math.isfinite, torch.stack(tensor.detach().aminmax()).tolist())):
            raise _non_finite(name, key)
    offloaded = {key.removeprefix("usdrl.") for key, tensor in loaded.items() if tensor.is_meta}
    for path in {stored.path for stored in tensors.values()} if offloaded else ():
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                if key.removeprefix("usdrl.") in offloaded and not bool(file.get_tensor(key).isfinite().all()):
                    raise _non_finite(name, key)


def _non_finite(name: str | os.PathLike, key: str) -> NonFiniteError:
    return NonFiniteError(
        f"model '{name}': tensor '{key}' holds NaN or infinity: its training has diverged, or the file is damaged"
    )


def share(folder: str | os.PathLike) -> None:
    """Give weights the permissions of any new file: safetensors makes them readable for their owner alone.

    Args:
        folder: Where the weights were saved.
    """
    for path in Path(folder).glob("*.safetensors"):
        # The umask cannot be read without changing it: make a file, and read its permissions.
        probe = path.with_name(f".{path.name}.{os.getpid()}.rights")
        try:
            probe.touch()
            os.chmod(path, probe.stat().st_mode & 0o777)
        finally:
            probe.unlink(missing_ok=True)


def check_meaning(name: str | os.PathLike, own: USDRLConfig, wanted: dict) -> None:
    """Refuse a configuration that gives a checkpoint's weights another meaning.

    Args:
        name: The checkpoint's name.
        own: Its configuration.
        wanted: Fields that it is loaded with.

    Raises:
        ValueError: If one of `MEANING` differs; the message names it.
    """
    for field in MEANING:
        if field in wanted and wanted[field] != getattr(own, field):
            raise ValueError(
                f"model '{name}' was trained with {field} {getattr(own, field)!r}, but is to be loaded with "
                f"{wanted[field]!r}: its weights mean something else there; train one for it, or leave {field} out"
            )
