"""Export to ONNX: one file with weights, preprocessing and class names that runs without torch.

The fused model is exported by `transformers.exporters`. The file is kept only if onnxruntime computes the same from it
as PyTorch.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch

from ..facts.outputs import EXPORT_FORMATS
from ..files import new_folder
from ..finite import check_finite
from ..layouts import get_layout
from ..loading import load_feature_extractor, load_model
from ..modeling_usdrl import USDRLPreTrainedModel
from ..records import package_versions
from ..speedups import for_inference

FILE_NAME = "model.onnx"
# Packages of transformers.exporters and the check.
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-5
# The first one is traced; a batch of 1 shows sizes that were traced as constants.
_BATCHES = (2, 1, 5)
# Bytes: protobuf limits a file to 2 GB.
_LARGEST = 2**31 - 2**20


@dataclass(frozen=True)
class Export:
    """An exported and checked file.

    Attributes:
        path: The file.
        model_class: Name of the exported class.
        inputs: Shape of each input, by name; dynamic sizes are names, such as "batch".
        outputs: Shape of each output.
        error: Largest difference between an output and PyTorch's, relative to the largest value of that output.
    """

    path: Path
    model_class: str
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    error: float


def export_model(name: str | os.PathLike, output_dir: str | os.PathLike, format: str = "onnx") -> Export:
    """Write a model as one ONNX file that needs neither torch nor this package.

    The file's metadata hold ``config.json`` (class names and sizes), ``preprocessor_config.json`` (how clips are
    made), ``joint_names`` in the model's order, ``coordinates`` (3d or 2d) and ``versions``, each as JSON. The batch
    size is dynamic, and so are the windows and frames of a segmenter; the frames of a clip are the model's. Of a
    pretraining checkpoint the encoder is exported.

    Args:
        name: A checkpoint's name or folder.
        output_dir: Folder to create, for ``model.onnx``.
        format: "onnx".

    Raises:
        CheckpointLoadError: If the model cannot be loaded.
        ValueError: If the format is unknown, several models are named, a package is missing, the folder exists and is
            not empty, the model is larger than 2 GB, or the file's results differ from PyTorch's.
    """
    if format not in EXPORT_FORMATS:
        raise ValueError(f"there is no format '{format}': use {', '.join(EXPORT_FORMATS)}")
    check_exportable(name)
    with new_folder(output_dir) as folder:
        model = load_model(name, dtype=torch.float32)
        if model.task == "pretraining":
            model = cast(USDRLPreTrainedModel, model.base_model)
        done = write_onnx(model, folder / FILE_NAME, _metadata(name, model))
    return replace(done, path=Path(output_dir) / FILE_NAME)


def check_exportable(name: str | os.PathLike) -> None:
    """Refuse an ensemble, and an export without its packages.

    Raises:
        ValueError: See above.
    """
    if "," in str(name) and not Path(name).is_dir():
        raise ValueError(f"'{name}' is an ensemble: export its models one by one, and average their probabilities")
    for package in _PACKAGES:
        try:
            import_module(package)
        except ImportError:
            raise ValueError(f"an export needs the package {package}: pip install 'usdrl-hub[onnx]'") from None


def write_onnx(model: USDRLPreTrainedModel, path: Path, metadata: Mapping[str, str] = MappingProxyType({})) -> Export:
    """Write a loaded model as an ONNX file, and compare the file's outputs with the model's.

    Args:
        model: Any model but a pretraining one, in float32; its configuration no longer asks for hidden states.
        path: File to write.
        metadata: Entries of the file.

    Raises:
        ValueError: If the model is larger than 2 GB, or the outputs differ.
    """
    # A fused model returns neither, even if the configuration asks for them.
    model.config.output_hidden_states = model.config.output_attentions = False
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > _LARGEST:
        name = model.name_or_path or type(model).__name__
        raise ValueError(f"model '{name}' has {size / 1e9:.1f} GB of weights, and one ONNX file holds 2 at most")
    program = _trace(model)
    _save(program, metadata, path)
    inputs, outputs = (
        {value.name: _sizes(value) for value in values} for values in (program.graph.inputs, program.graph.outputs)
    )
    return Export(path, type(model).__name__, inputs, outputs, _check(path, model))


def _metadata(name: str | os.PathLike, model: USDRLPreTrainedModel) -> dict[str, str]:
    """Preprocessing, classes and versions as JSON, by name."""
    extractor = load_feature_extractor(name)
    layout = get_layout(extractor.layout)
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    # The folder that it was loaded from.
    config.pop("_name_or_path", None)
    return {
        "config.json": json.dumps(config),
        "preprocessor_config.json": json.dumps(extractor.to_dict()),
        "joint_names": json.dumps(list(layout.joint_names)),
        "coordinates": json.dumps(layout.coordinates),
        "versions": json.dumps(package_versions()),
    }


def _inputs(model: USDRLPreTrainedModel, batch: int) -> dict[str, torch.Tensor]:
    """Random inputs, the same at every call."""
    config, generator = model.config, torch.Generator().manual_seed(batch)
    clip = (config.num_frames, config.num_persons, config.num_joints, config.num_channels)
    if model.granularity != "video":
        return {"keypoints": torch.randn(batch, *clip, generator=generator)}
    windows = batch + 1
    starts = torch.arange(windows).mul(max(config.num_frames // 2, 1)).expand(batch, -1).clone()
    # A shorter, padded video.
    starts[1:, -1] = -1
    return {"keypoints": torch.randn(batch, windows, *clip, generator=generator), "window_starts": starts}


def _trace(model: USDRLPreTrainedModel) -> Any:
    """The fused model as an `onnx_ir.Model` whose dynamic sizes have names."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    inputs = _inputs(model, _BATCHES[0])
    free = ["batch", "windows"] if "window_starts" in inputs else ["batch"]
    axes = {axis: torch.export.Dim(name) for axis, name in enumerate(free)}
    with _silence():
        try:
            exporter = OnnxExporter()
        except ImportError as error:
            raise ValueError(f"an export needs other packages: {error}") from None
        fused = for_inference(model, packed=False, keep=True)
        program = exporter.export(fused, dict(inputs), OnnxConfig(dynamic_shapes=dict.fromkeys(inputs, axes))).program
    symbols = dict(zip(map(str, program.graph.inputs[0].shape), free, strict=False))
    for value in [*program.graph.inputs, *program.graph.outputs]:
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                # A dynamic size that no input has is the number of frames of a video.
                value.shape[axis] = symbols.get(str(size), "frames")
    return program


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silence developer notes of torch and transformers; the result is checked anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _save(program: Any, metadata: Mapping[str, str], path: Path) -> None:
    import onnx_ir

    # The metadata name source files, with this machine's folders.
    for node in program.graph.all_nodes():
        node.metadata_props.clear()
    program.metadata_props.update(metadata)
    onnx_ir.save(program, str(path))


def _sizes(value: Any) -> list[int | str]:
    return [size if isinstance(size, int) else str(size) for size in value.shape]


@contextlib.contextmanager
def _size_of_sums(model: USDRLPreTrainedModel) -> Iterator[list[float]]:
    """Receive the largest sum of absolute terms of a logit, in each pass through a linear head."""
    sizes: list[float] = []
    head = getattr(model, "classifier", None)

    def measure(layer: torch.nn.Linear, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        sizes.append(float((inputs[0].abs() @ layer.weight.abs().T).max()))

    handle = head.register_forward_hook(measure) if isinstance(head, torch.nn.Linear) else None
    try:
        yield sizes
    finally:
        if handle is not None:
            handle.remove()


@torch.inference_mode()
def _check(path: Path, model: USDRLPreTrainedModel) -> float:
    """Largest difference between what onnxruntime computes from a file and what the model computes, as a share of it.

    Raises:
        ValueError: If it is above 1e-5.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names, largest = [output.name for output in session.get_outputs()], 0.0
    for batch in _BATCHES:
        inputs = _inputs(model, batch)
        with _size_of_sums(model) as sizes:
            expected = model(**inputs)
        for name in names:
            check_finite(expected[name], f"the model's '{name}'")
        found = session.run(names, {name: values.numpy() for name, values in inputs.items()})
        for name, values in zip(names, found, strict=True):
            truth = expected[name].numpy()
            # Logits are sums of large terms that cancel: their rounding errors are relative to these.
            size = max(np.abs(truth).max(), *(sizes if name == "logits" else []), 0.0)
            error = float(np.abs(values - truth).max() / size) if values.shape == truth.shape else None
            # Written so that NaN fails.
            if error is None or not error <= _TOLERANCE:
                raise ValueError(
                    f"the exported model's '{name}' differs from PyTorch's at a batch of {batch} "
                    f"({'in shape' if error is None else f'relative error {error:.1e}'}), so it is not written"
                )
            largest = max(largest, error)
    return largest
