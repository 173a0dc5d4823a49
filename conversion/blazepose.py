"""Convert BlazePose (MediaPipe Pose, Apache-2.0) to the ONNX files that `usdrl_hub.inference.blazepose` runs.

    pip install ai-edge-litert onnx onnxruntime tflite
    python conversion/blazepose.py OUTPUT [--size lite] [--size full] [--size heavy]

The TensorFlow Lite files come from the packages `mediapipe` 0.10.21 (pip) and `@mediapipe/pose` 0.5.1675469404 (npm)
and must have the SHA-256 below. Each converted network is compared with LiteRT on random input before it is written.
Weights are stored in half precision, as in the source; arithmetic is float32.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tflite
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

WHEEL = ("mediapipe==0.10.21", "manylinux_2_28_x86_64")
NPM = "@mediapipe/pose@0.5.1675469404"
OPSET, IR_VERSION = 17, 9
# Difference from LiteRT that is allowed, as a share of the largest value of an output where that is above 1.
TOLERANCE = 1e-3
LANDMARKS = {0: "landmarks", 1: "presence", 3: "heatmap", 4: "world"}


@dataclass(frozen=True)
class Network:
    """A network and where it comes from.

    Attributes:
        member: Path in the package.
        sha256: Of the TensorFlow Lite file.
        outputs: Number of an output in the source -> its name.
        npm: Whether the package is that of npm; otherwise it is the wheel.
    """

    member: str
    sha256: str
    outputs: dict[int, str]
    npm: bool = True


NETWORKS = {
    "detector": Network(
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        {0: "boxes", 1: "scores"},
        npm=False,
    ),
    "lite": Network(
        "package/pose_landmark_lite.tflite",
        "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
        LANDMARKS,
    ),
    "full": Network(
        "package/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        LANDMARKS,
    ),
    "heavy": Network(
        "package/pose_landmark_heavy.tflite",
        "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
        LANDMARKS,
    ),
}


def download(folder: Path, npm: bool) -> Callable[[str], bytes]:
    """Download a package with its own installer; returns a function that reads a member of it."""
    if npm:
        subprocess.run(["npm", "pack", "--silent", NPM], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
            content = {name: file.read() for name, file in files.items() if file and name.endswith(".tflite")}
        return content.__getitem__
    wheel = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--platform", WHEEL[1], WHEEL[0]]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "-d", str(folder), *wheel], check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).read


def dense(tensor: tflite.Tensor, values: np.ndarray) -> np.ndarray:
    """The dense form of a tensor that is stored as non-zero values with compressed rows."""
    sparsity, shape = tensor.Sparsity(), tensor.ShapeAsNumpy()
    if sparsity.BlockMapLength() or list(sparsity.TraversalOrderAsNumpy()) != list(range(len(shape))):
        raise SystemExit("a sparse tensor has blocks or another order, which this script does not read")
    positions, index = np.zeros(1, np.int64), []
    for number in range(len(shape)):
        dimension = sparsity.DimMetadata(number)
        if dimension.Format() == tflite.DimensionType.DENSE:
            counts = np.full(len(positions), dimension.DenseSize())
            own = np.tile(np.arange(dimension.DenseSize()), len(positions))
            positions = np.repeat(positions * dimension.DenseSize(), counts) + own
        else:
            segments = _numbers(dimension.ArraySegmentsType(), dimension.ArraySegments())
            indices = _numbers(dimension.ArrayIndicesType(), dimension.ArrayIndices())
            counts = segments[positions + 1] - segments[positions]
            first = np.repeat(segments[positions] - np.cumsum(counts) + counts, counts)
            positions = first + np.arange(counts.sum())
            own = indices[positions]
        index = [np.repeat(values, counts) for values in index] + [own]
    result = np.zeros(shape, values.dtype)
    result[tuple(index)] = values[positions]
    return result


def _numbers(kind: int, table) -> np.ndarray:
    vector = {1: tflite.Int32Vector, 2: tflite.Uint16Vector, 3: tflite.Uint8Vector}[kind]()
    vector.Init(table.Bytes, table.Pos)
    return vector.ValuesAsNumpy().astype(np.int64)


class Converter:
    """Builds the ONNX graph of one TensorFlow Lite network, channels first."""

    def __init__(self, content: bytes):
        self.model = tflite.Model.GetRootAsModel(content, 0)
        self.graph = self.model.Subgraphs(0)
        self.constants: dict[int, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.channels_last: set[int] = set()

    def convert(self, outputs: dict[int, str]) -> onnx.ModelProto:
        """The network with the named outputs."""
        first = self.graph.Inputs(0)
        self.add("Transpose", ["input"], f"t{first}", perm=[0, 3, 1, 2])
        names = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}
        for number in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(number)
            kind = names[self.model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
            convert = getattr(self, f"_{kind.lower()}", None)
            if convert is None:
                raise SystemExit(f"the network has an operation that this script does not convert: {kind}")
            convert(operator, list(operator.InputsAsNumpy()))
        for number, name in outputs.items():
            self.add("Identity", [self.as_stored(self.graph.Outputs(number))], name)
        return self._model(first, outputs)

    def _model(self, first: int, outputs: dict[int, str]) -> onnx.ModelProto:
        # Outputs that nobody wants (the silhouette) take their operations and weights along.
        wanted, nodes = set(outputs.values()), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                nodes.insert(0, node)
                wanted.update(node.input)
        stored, casts = [], []
        for name, values in self.weights.items():
            if name not in wanted:
                continue
            if values.dtype == np.float32 and values.size > 16:
                stored.append(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
                casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
            else:
                stored.append(numpy_helper.from_array(values, name))
        results = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shape(self.graph.Outputs(number)))
            for number, name in outputs.items()
        ]
        picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, self.shape(first))
        graph = helper.make_graph(casts + nodes, "blazepose", [picture], results, stored)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="usdrl_hub")
        onnx.checker.check_model(model)
        return model

    def add(self, kind: str, inputs: list[str], output: str, **attributes) -> None:
        """Add a node."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def weight(self, values: np.ndarray) -> str:
        """Name of a constant input."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.ascontiguousarray(values)
        return name

    def shape(self, tensor: int) -> list[int]:
        """Shape in the source, channels last."""
        return [int(size) for size in self.graph.Tensors(tensor).ShapeAsNumpy()]

    def as_stored(self, tensor: int) -> str:
        """Name of a tensor with its channels last, as the source has it."""
        if len(self.shape(tensor)) != 4:
            return f"t{tensor}"
        if tensor not in self.channels_last:
            self.add("Transpose", [f"t{tensor}"], f"t{tensor}_last", perm=[0, 2, 3, 1])
            self.channels_last.add(tensor)
        return f"t{tensor}_last"

    def constant(self, number: int) -> np.ndarray:
        """Values of a constant tensor."""
        if number not in self.constants:
            tensor = self.graph.Tensors(number)
            kind = {0: np.float32, 1: np.float16, 2: np.int32}[tensor.Type()]
            values = np.frombuffer(self.model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), kind)
            self.constants[number] = dense(tensor, values) if tensor.Sparsity() else values.reshape(self.shape(number))
        return self.constants[number]

    def options(self, operator, kind):
        """Options of an operator."""
        options, table = kind(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def activated(self, kind: int, output: str, add: Callable[[str], None]) -> None:
        """Add a node by `add(its output)`, followed by the activation that is fused with it in the source."""
        activations = tflite.ActivationFunctionType
        if kind == activations.NONE:
            return add(output)
        add(f"{output}_linear")
        if kind == activations.RELU:
            self.add("Relu", [f"{output}_linear"], output)
        elif kind == activations.RELU6:
            limits = [self.weight(np.float32(limit)) for limit in (0, 6)]
            self.add("Clip", [f"{output}_linear", *limits], output)
        else:
            raise SystemExit(f"the network has an activation that this script does not convert: {kind}")

    def padding(self, options, tensor: int, kernel: tuple[int, int], strides: list[int]) -> list[int]:
        """Padding of a window before and behind each axis, as "SAME" means it."""
        if options.Padding() == tflite.Padding.VALID:
            return [0, 0, 0, 0]
        sizes = self.shape(tensor)[1:3]
        totals = [
            max((math.ceil(size / stride) - 1) * stride + width - size, 0)
            for size, stride, width in zip(sizes, strides, kernel, strict=True)
        ]
        return [total // 2 for total in totals] + [total - total // 2 for total in totals]

    # -- one method for each kind of operator

    def _dequantize(self, operator, inputs):
        self.constants[operator.Outputs(0)] = self.constant(inputs[0]).astype(np.float32)

    def _densify(self, operator, inputs):
        self.constants[operator.Outputs(0)] = self.constant(inputs[0])

    def _conv_2d(self, operator, inputs):
        self._convolution(operator, inputs, tflite.Conv2DOptions, (0, 3, 1, 2), False)

    def _depthwise_conv_2d(self, operator, inputs):
        self._convolution(operator, inputs, tflite.DepthwiseConv2DOptions, (3, 0, 1, 2), True)

    def _convolution(self, operator, inputs, kind, order, depthwise):
        options = self.options(operator, kind)
        kernel = self.constant(inputs[1]).transpose(order)
        strides = [options.StrideH(), options.StrideW()]
        pads = self.padding(options, inputs[0], kernel.shape[2:], strides)
        names = [f"t{inputs[0]}", self.weight(kernel), self.weight(self.constant(inputs[2]))]
        groups = len(kernel) if depthwise else 1
        self.activated(
            options.FusedActivationFunction(),
            f"t{operator.Outputs(0)}",
            lambda output: self.add("Conv", names, output, strides=strides, pads=pads, group=groups),
        )

    def _add(self, operator, inputs):
        kind = self.options(operator, tflite.AddOptions).FusedActivationFunction()
        names = [f"t{number}" for number in inputs]
        self.activated(kind, f"t{operator.Outputs(0)}", lambda output: self.add("Add", names, output))

    def _pad(self, operator, inputs):
        widths = self.constant(inputs[1]).reshape(-1, 2)[[0, 3, 1, 2]]
        name = self.weight(widths.T.reshape(-1).astype(np.int64))
        self.add("Pad", [f"t{inputs[0]}", name], f"t{operator.Outputs(0)}")

    def _max_pool_2d(self, operator, inputs):
        options = self.options(operator, tflite.Pool2DOptions)
        kernel, strides = [options.FilterHeight(), options.FilterWidth()], [options.StrideH(), options.StrideW()]
        pads = self.padding(options, inputs[0], kernel, strides)
        output = f"t{operator.Outputs(0)}"
        self.add("MaxPool", [f"t{inputs[0]}"], output, kernel_shape=kernel, strides=strides, pads=pads)

    def _resize_bilinear(self, operator, inputs):
        options, shape = self.options(operator, tflite.ResizeBilinearOptions), self.shape(operator.Outputs(0))
        mode = "half_pixel" if options.HalfPixelCenters() else "asymmetric"
        mode = "align_corners" if options.AlignCorners() else mode
        sizes = self.weight(np.array(shape)[[0, 3, 1, 2]].astype(np.int64))
        names = [f"t{inputs[0]}", "", "", sizes]
        self.add("Resize", names, f"t{operator.Outputs(0)}", mode="linear", coordinate_transformation_mode=mode)

    def _depth_to_space(self, operator, inputs):
        size = self.options(operator, tflite.DepthToSpaceOptions).BlockSize()
        self.add("DepthToSpace", [f"t{inputs[0]}"], f"t{operator.Outputs(0)}", blocksize=size, mode="DCR")

    def _reshape(self, operator, inputs):
        shape = self.weight(np.array(self.shape(operator.Outputs(0)), np.int64))
        self.add("Reshape", [self.as_stored(inputs[0]), shape], f"t{operator.Outputs(0)}")

    def _concatenation(self, operator, inputs):
        axis = self.options(operator, tflite.ConcatenationOptions).Axis()
        self.add("Concat", [f"t{number}" for number in inputs], f"t{operator.Outputs(0)}", axis=axis)

    def _logistic(self, operator, inputs):
        self.add("Sigmoid", [f"t{inputs[0]}"], f"t{operator.Outputs(0)}")


def differences(model: onnx.ModelProto, source: bytes, outputs: dict[int, str]) -> Iterator[tuple[str, float]]:
    """Largest difference of each output from LiteRT's, as a share of its largest value."""
    interpreter = Interpreter(model_content=source)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = dict.fromkeys(outputs.values(), 0.0)
    random = np.random.default_rng(0)
    for _ in range(5):
        picture = random.random(given["shape"], np.float32)
        interpreter.set_tensor(given["index"], picture)
        interpreter.invoke()
        found = dict(zip(outputs.values(), session.run(list(outputs.values()), {"input": picture}), strict=True))
        for number, name in outputs.items():
            expected = interpreter.get_tensor(interpreter.get_output_details()[number]["index"])
            # Metres and probabilities by themselves, pixels and logits by their size.
            share = float(np.abs(expected - found[name]).max() / max(np.abs(expected).max(), 1.0))
            worst[name] = max(worst[name], share)
    yield from worst.items()


def main() -> None:
    """Convert what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", action="append", choices=[name for name in NETWORKS if name != "detector"])
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        readers = {npm: download(Path(folder), npm) for npm in (False, True)}
        for name in ("detector", *(options.size or ["lite"])):
            network = NETWORKS[name]
            source = readers[network.npm](network.member)
            if (found := hashlib.sha256(source).hexdigest()) != network.sha256:
                raise SystemExit(f"{network.member}: its SHA-256 is {found}, expected {network.sha256}")
            model = Converter(source).convert(network.outputs)
            for output, share in differences(model, source, network.outputs):
                print(f"{name}: {output} differs from LiteRT by {share:.1e}")
                if not share <= TOLERANCE:
                    raise SystemExit(f"{name}: {output} differs by more than {TOLERANCE:.0e}: nothing was written")
            path = options.output / f"{name}.onnx"
            partial = path.with_suffix(".partial")
            partial.write_bytes(model.SerializeToString())
            partial.replace(path)
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
