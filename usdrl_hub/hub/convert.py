"""Conversion of the authors' checkpoints to this package's format, and back.

The original file is ``torch.save({"epoch", "state_dict", "optimizer"})`` with keys ``module.backbone.<encoder key>``,
``module.fc.*`` and ``module.{t,s,i}_proj.*``. Encoder family and sizes follow from the shapes; attention heads, alpha,
shift gap, modality and layout are not in the file, so the caller names them.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError

from ..configuration_usdrl import USDRLConfig
from ..errors import USDRLError
from ..files import new_file
from ..layouts import LayoutLike, get_layout
from ..modeling_usdrl import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForPreTraining,
    USDRLModel,
    USDRLPreTrainedModel,
    USDRLSinusoidPosition,
)

# Positions in the release's sinusoid buffer, whatever the number of frames.
_RELEASE_POSITIONS = 200

_STREAMS = {"t": "temporal", "s": "spatial"}
_PROJECTORS = {"t": "temporal_projector", "s": "spatial_projector", "i": "instance_projector"}
_ATTENTION = {
    "in_proj_weight": "in_proj.weight",
    "in_proj_bias": "in_proj.bias",
    "out_proj.weight": "out_proj.weight",
    "out_proj.bias": "out_proj.bias",
}
_BOTH = ("weight", "bias")
_BATCH_NORM = (*_BOTH, "running_mean", "running_var", "num_batches_tracked")


class CheckpointError(USDRLError):
    """A file that is not a checkpoint of the authors' releases; the message names the file and the key."""


def key_map(config: USDRLConfig, head: bool, projectors: bool) -> dict[str, str]:
    """Map original keys without ``module.`` to this package's keys, for all tensors but the sinusoid.

    The original stores the attention of a DSTE layer twice (under CA and DSA); both keys map to the same one.
    """
    names = {"spe": "spatial.position.values"}
    for letter, stream in _STREAMS.items():
        for theirs, ours in (("0", "fc1"), ("1", "norm"), ("3", "fc2")):
            for leaf in _BOTH:
                names[f"ske_emb.{letter}_embedding.{theirs}.{leaf}"] = f"{stream}.embedding.{ours}.{leaf}"
        for layer in range(config.num_hidden_layers):
            for theirs, ours in _layer_keys(config.encoder, letter, layer):
                names[theirs] = f"{stream}.layers.{layer}.{ours}"
    prefix = "usdrl." if head or projectors else ""
    names = {f"backbone.{theirs}": prefix + ours for theirs, ours in names.items()}
    if projectors:
        for letter, projector in _PROJECTORS.items():
            for module in (0, 1, 3, 4, 6):
                for leaf in _BATCH_NORM if module in (1, 4) else _BOTH:
                    names[f"{letter}_proj.{module}.{leaf}"] = f"{projector}.{module}.{leaf}"
    if head:
        names |= {f"fc.{leaf}": f"classifier.{leaf}" for leaf in _BOTH}
    return names


def _layer_keys(encoder: str, letter: str, layer: int) -> Iterator[tuple[str, str]]:
    if encoder == "sttr":
        base = f"{letter}_tr.layers.{layer}."
        for theirs, ours in _ATTENTION.items():
            yield f"{base}self_attn.{theirs}", f"attention.{ours}"
        modules = {"linear1": "fc1", "linear2": "fc2", "norm1": "norm1", "norm2": "norm2"}
    else:
        base = f"{letter}_tr{layer or ''}."
        for branch in ("CA", "DSA"):
            for theirs, ours in _ATTENTION.items():
                yield f"{base}{branch}.attn.{theirs}", f"attention.{ours}"
        modules = {"CA.conv1": "convolutional.conv", "DSA.wt1": "dense_shift.mix1", "DSA.wt2": "dense_shift.mix2"}
        for theirs, ours in (("CA", "convolutional"), ("DSA", "dense_shift")):
            for module in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                modules[f"{theirs}.{module}"] = f"{ours}.{module}"
    for theirs, ours in modules.items():
        for leaf in _BOTH:
            yield f"{base}{theirs}.{leaf}", f"{ours}.{leaf}"


def read_original(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read the tensors of an original checkpoint; their names lose ``module.``.

    Only tensors and plain containers are unpickled, never code.

    Raises:
        CheckpointError: If the file is missing, damaged, contains code, or is not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # torch.load ignores the checksums.
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"zip: record {damaged} is damaged")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises many types: of zip and pickle, end of file, missing records.
        reason = _why_unreadable(path, error)
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {reason}") from None
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: there is no 'state_dict' in it")
    tensors: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: entry {key!r} of 'state_dict' is not a tensor")
        name = key.removeprefix("module.")
        if name in tensors:
            raise CheckpointError(f"{path}: tensor '{name}' appears twice, with and without 'module.'")
        tensors[name] = _plain(value, name, path)
    return tensors


def _why_unreadable(path: Path, error: Exception) -> str:
    """Why torch cannot read a file, judged by its content: torch's messages differ between versions."""
    objects = "it contains Python objects other than tensors, which are never loaded"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, zipfile.BadZipFile) or not zipfile.is_zipfile(path):
        is_pickle = isinstance(error, pickle.UnpicklingError) and _holds_whole_pickles(path)
        return objects if is_pickle else "it is damaged or of another format"
    if isinstance(error, pickle.UnpicklingError):
        return objects
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return "it is a TorchScript archive, whose code is never run"
    except Exception:
        # Invalid names and sizes make zipfile raise any error.
        return "it is damaged or of another format"
    return "it is a zip file, but not one of PyTorch"


def _holds_whole_pickles(path: Path) -> bool:
    """Whether a file begins with complete pickles; they are parsed but not loaded."""
    with path.open("rb") as file:
        # PyTorch's format before 2020: three numbers and the object, followed by the tensors.
        for _ in range(4):
            try:
                for _ in pickletools.genops(file):
                    pass
            except Exception:
                # Invalid bytes make pickletools raise any error.
                return False
            if not file.read(1):
                return True
            file.seek(-1, os.SEEK_CUR)
    return True


def _plain(tensor: torch.Tensor, name: str, path: Path) -> torch.Tensor:
    """Return a tensor after checking that it is dense, finite and floating, or an integer counter of batches."""
    counter = name.endswith("num_batches_tracked")
    ordinary = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    kinds = (torch.int64, torch.int32) if counter else (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    # A stride of 0 can expand a few bytes to a tensor of any size.
    if not ordinary or tensor.dtype not in kinds or tensor.numel() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: tensor '{name}' is {tensor.dtype}, {tensor.layout}, which no release writes")
    if not counter and not torch.isfinite(tensor.float()).all():
        raise CheckpointError(f"{path}: tensor '{name}' holds NaN or infinity")
    return tensor


def infer_config(state: dict[str, torch.Tensor], where: str = "checkpoint", **choices: Any) -> USDRLConfig:
    """Infer the configuration from the shapes of an original state dict.

    Args:
        state: Tensors, as returned by `read_original`.
        where: Name of the checkpoint in errors.
        **choices: Fields of `USDRLConfig` that the file does not contain.

    Raises:
        CheckpointError: If a required tensor is missing or has an invalid shape.
    """

    def shape(key: str, axes: int) -> tuple[int, ...]:
        if key not in state:
            raise CheckpointError(f"{where}: tensor '{key}' is missing")
        if state[key].ndim != axes or 0 in state[key].shape:
            raise CheckpointError(f"{where}: tensor '{key}' has shape {tuple(state[key].shape)}, expected {axes} axes")
        return tuple(state[key].shape)

    _, tokens, hidden_size = shape("backbone.spe", 3)
    temporal_size = shape("backbone.ske_emb.t_embedding.0.weight", 2)[1]
    spatial_size = shape("backbone.ske_emb.s_embedding.0.weight", 2)[1]
    if temporal_size % tokens or spatial_size % (temporal_size // tokens):
        raise CheckpointError(
            f"{where}: the input size {temporal_size} of 'backbone.ske_emb.t_embedding.0.weight' does not divide by "
            f"the {tokens} tokens of 'backbone.spe'"
        )
    channels = temporal_size // tokens
    dste = any(key.startswith("backbone.t_tr.CA.") for key in state)
    pattern = re.compile(r"backbone\.t_tr(\d*)\.CA\." if dste else r"backbone\.t_tr\.layers\.(\d+)\.")
    numbers = {int(match.group(1) or 0) for key in state if (match := pattern.match(key))}
    if not numbers:
        raise CheckpointError(f"{where}: there is no encoder layer ('backbone.t_tr...') in it")
    first_linear = "backbone.t_tr.CA.mlp.fc1.weight" if dste else "backbone.t_tr.layers.0.linear1.weight"
    if dste:
        kernel = shape("backbone.t_tr.CA.conv1.weight", 3)[2]
        if kernel != 1:
            raise CheckpointError(
                f"{where}: 'backbone.t_tr.CA.conv1.weight' has a kernel of {kernel}; only 1 is supported"
            )
    persons = choices.pop("num_persons", 2)
    if tokens % persons:
        raise CheckpointError(f"{where}: {tokens} spatial tokens do not divide among {persons} persons")
    _check_layout(choices.get("layout"), tokens, persons, where)
    if any(key.startswith("fc.") for key in state) and "num_labels" not in choices and "id2label" not in choices:
        choices["num_labels"] = shape("fc.weight", 2)[0]
    if "t_proj.0.weight" in state:
        for field, letter in (("stream_projector_sizes", "t"), ("instance_projector_sizes", "i")):
            choices[field] = [shape(f"{letter}_proj.{module}.weight", 2)[0] for module in (0, 3, 6)]
    try:
        return USDRLConfig(
            encoder="dste" if dste else "sttr",
            num_frames=spatial_size // channels,
            num_persons=persons,
            num_joints=tokens // persons,
            num_channels=channels,
            hidden_size=hidden_size,
            num_hidden_layers=len(numbers),
            intermediate_size=shape(first_linear, 2)[0],
            **choices,
        )
    except (ValueError, StrictDataclassError) as error:
        raise CheckpointError(f"{where}: {' '.join(str(error).split())}") from None


def _check_layout(layout: LayoutLike | None, tokens: int, persons: int, where: str) -> None:
    """Refuse a layout, also that of the name a checkpoint is to get, whose joints are not those of the file."""
    try:
        found = None if layout is None else get_layout(layout)
    except (ValueError, TypeError):
        # The configuration says what is wrong with it.
        return
    if found is not None and found.num_joints != tokens // persons:
        raise CheckpointError(
            f"{where}: its {tokens} spatial tokens are {tokens // persons} joints of {persons} people, and layout "
            f"'{found.name}' has {found.num_joints}: it is another checkpoint, or --num-persons is another"
        )


def convert_checkpoint(path: str | os.PathLike, task: str = "recognition", **choices: Any) -> USDRLPreTrainedModel:
    """Load an original checkpoint as a model of this package.

    Args:
        path: The authors' file.
        task: Task of its classification layer: ``"recognition"`` or ``"detection"``.
        **choices: Fields of `USDRLConfig` that the file does not contain: `modality`, `layout` (default ``ntu25`` for
            25 joints and ``coco17-release`` for 17), `num_attention_heads`, `alpha`, `shift_gap`, `num_persons`.

    Returns:
        `USDRLForPreTraining` for a file with projectors, `USDRLForActionRecognition` or `USDRLForActionDetection` for
        one with a classification layer, else `USDRLModel`; in eval mode.

    Raises:
        CheckpointError: If the file cannot be read; if a tensor is unknown, missing, not finite or has the wrong
            shape; or if the two copies of the shared attention differ.
        ValueError: If `task` or a choice is invalid.
    """
    if task not in ("recognition", "detection"):
        raise ValueError(f"task must be 'recognition' or 'detection', got {task!r}")
    where = str(path)
    state = read_original(path)
    config = infer_config(state, where, **choices)
    head = any(key.startswith("fc.") for key in state)
    projectors = any(re.match(r"[tsi]_proj\.", key) for key in state)
    if head and projectors:
        raise CheckpointError(f"{where}: it has both 'fc' and projectors, unlike any release")
    model_class: type[USDRLPreTrainedModel] = USDRLModel
    if projectors:
        model_class = USDRLForPreTraining
    elif head:
        model_class = USDRLForActionDetection if task == "detection" else USDRLForActionRecognition
    with torch.device("meta"):
        expected = {key: tensor.shape for key, tensor in model_class(config).state_dict().items()}
    names = key_map(config, head, projectors)
    converted = _rename(state, names, expected, where)
    model = model_class(config)
    model.load_state_dict(converted, strict=True)
    _check_sinusoid(state, _position(model), where)
    return model.eval()


def _rename(
    state: dict[str, torch.Tensor], names: dict[str, str], expected: dict[str, torch.Size], where: str
) -> dict[str, torch.Tensor]:
    unknown = [key for key in state if key not in names and key != "backbone.tpe.pe"]
    if unknown:
        raise CheckpointError(f"{where}: tensor '{unknown[0]}' is unknown; the releases write no such key")
    converted: dict[str, torch.Tensor] = {}
    for theirs, ours in names.items():
        if theirs not in state:
            raise CheckpointError(f"{where}: tensor '{theirs}' is missing")
        tensor = state[theirs]
        if tensor.shape != expected[ours]:
            raise CheckpointError(
                f"{where}: tensor '{theirs}' has shape {tuple(tensor.shape)}, expected {tuple(expected[ours])}"
            )
        if ours in converted and not torch.equal(converted[ours], tensor):
            raise CheckpointError(f"{where}: '{theirs}' differs from the attention that it shares with the CA branch")
        converted[ours] = tensor
    return converted


def _position(model: USDRLPreTrainedModel) -> USDRLSinusoidPosition:
    return cast(USDRLSinusoidPosition, cast(USDRLModel, model.base_model).temporal.position)


def _check_sinusoid(state: dict[str, torch.Tensor], position: USDRLSinusoidPosition, where: str) -> None:
    """Check that the file's position embedding is the sinusoid, which this package computes."""
    stored = state.get("backbone.tpe.pe")
    if stored is None:
        return
    table = position.table()
    if (
        stored.ndim != 3
        or stored.shape[0] != 1
        or stored.shape[1] < table.shape[1]
        or stored.shape[2] != table.shape[2]
    ):
        raise CheckpointError(f"{where}: tensor 'backbone.tpe.pe' has shape {tuple(stored.shape)}")
    if not torch.allclose(stored[:, : table.shape[1]].float(), table, atol=1e-4):
        raise CheckpointError(f"{where}: 'backbone.tpe.pe' is not the sinusoid of the releases")


def original_state_dict(model: USDRLPreTrainedModel) -> dict[str, torch.Tensor]:
    """The model's tensors under the release's names, for its strict `load_state_dict`.

    Raises:
        CheckpointError: If the model has several modalities.
    """
    if len(model.config.modalities) > 1:
        raise CheckpointError(f"the release has only models of one modality, not {model.config.modality}")
    state = model.state_dict()
    names = key_map(model.config, hasattr(model, "classifier"), hasattr(model, "instance_projector"))
    original = {f"module.{theirs}": state[ours].clone() for theirs, ours in names.items()}
    original["module.backbone.tpe.pe"] = _position(model).table(max(_RELEASE_POSITIONS, model.config.num_frames))
    return original


def save_original(model: USDRLPreTrainedModel, path: str | os.PathLike) -> Path:
    """Write a model in the release's format, without optimizer and with epoch 0."""
    # Through memory: on a full disk, torch's error lacks the reason.
    content = io.BytesIO()
    torch.save({"epoch": 0, "state_dict": original_state_dict(model)}, content)
    with new_file(path) as partial:
        # A copy: a view of the buffer kept in an error's traceback crashes Python 3.12 and 3.13 at exit.
        partial.write_bytes(content.getvalue())
    return Path(path)
