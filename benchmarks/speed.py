"""Speed of embedding, compared with the authors' released code with the same weights, and with other engines.

    python benchmarks/speed.py [--reference .reference/FoundSkelModel] [--gpu] [--output benchmarks/speed.json]
    python benchmarks/speed.py --engines [NAME ...] [--batches 1 64] [--again] [--output benchmarks/speed.json]

On the sample clips, with an encoder of the paper's size (hidden size 1024, 25 joints, 2 people, 64 frames) and the
same random weights in both codes. Seconds are medians of interleaved runs; errors are the largest difference of an
embedding to the released code's in float32, over its largest value. Peak memory is that of a process that reads a
checkpoint in its own format and embeds one batch of 64 clips, minus that of its imports. On a GPU, clips are on the
device and each code runs at its best batch size: ours compiled, in bfloat16, the release in float32. `--gpu` measures
only the device and keeps the CPU figures in the output file. The released model is hard-coded for 17 joints, which is
patched on loading. Without the released code or a GPU, the rows say "not measured".

`--engines` measures what else embeds with the same weights on a CPU, each in turns with our fused model in float32, so
that what else the machine does slows both: onnxruntime and OpenVINO on the file of `usdrl export`, torch.compile and
AOTInductor with frozen weights, and our model as it is and in bfloat16. Models: `usdrl/mocap-tiny` (hidden size 96)
and one of the paper's size; one clip, and 64. `pip install openvino` for its rows; torch.compile and AOTInductor need
a C++ compiler. Each row is written when it is measured, and passed over in the next run, unless --again.
"""

import argparse
import contextlib
import io
import itertools
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from usdrl_hub import Engine, USDRLConfig, USDRLFeatureExtractor, USDRLModel, fuse
from usdrl_hub.data.samples import load_samples
from usdrl_hub.facts.checkpoints import ENCODER
from usdrl_hub.files import new_file
from usdrl_hub.hub.convert import save_original
from usdrl_hub.inference.export import write_onnx
from usdrl_hub.records import redact_paths, run_record

sys.path.insert(0, str(Path(__file__).parent))
from data import earlier_record, medians  # noqa: E402
from pretraining import load, matrix_rate  # noqa: E402

BATCH = 64
REPETITIONS = {1: 31, BATCH: 5}
NOT_MEASURED = "not measured"


def make_model() -> USDRLModel:
    """The encoder with random norms and biases, which initialisation would leave at one and zero."""
    torch.manual_seed(0)
    model = USDRLModel(USDRLConfig()).requires_grad_(False).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def real_clips(count: int) -> torch.Tensor:
    samples = load_samples()[:count]
    return USDRLFeatureExtractor.from_model_config(USDRLConfig())(samples, return_tensors="pt")["keypoints"]


class Release:
    """The released encoder with the weights of a checkpoint in its own format."""

    def __init__(self, folder: Path, checkpoint: Path):
        module = load(folder / "model" / "DSTE.py", tokens=("34", "50"))
        self.model = module.Downstream(150, 192, 1024, 1, 2).eval()
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        state = {key.removeprefix("module."): values for key, values in state.items()}
        left = self.model.load_state_dict(state, strict=False)
        if left.unexpected_keys or any(key.startswith("backbone.") for key in left.missing_keys):
            raise ValueError(f"the weights do not fit the released encoder: {left}")

    def __call__(self, tokens: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Clip embeddings ``(B, 2d)`` of temporal and spatial tokens, as in its retrieval."""
        return self.model(*tokens, None, None, None, None, knn_eval=True)


def to_release(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of clips, as made by its data loader."""
    return clips.flatten(2), clips.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)


def pooled(model: USDRLModel) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda clips: model(clips).pooler_output


def operations(model: USDRLModel, clip: torch.Tensor | None = None) -> int:
    """Floating-point operations of one clip's matrix products, without attention scores."""
    with FlopCounterMode(display=False) as counter:
        model(real_clips(1) if clip is None else clip)
    return counter.get_total_flops()


def compared(outputs: torch.Tensor, truth: torch.Tensor | None) -> dict[str, float]:
    if truth is None:
        return {}
    outputs = outputs.float().cpu()
    error = float((outputs - truth).abs().max() / truth.abs().max())
    return {"error": error, "cosine": float(torch.nn.functional.cosine_similarity(outputs, truth).min())}


def row(what: str, encoders: dict[str, Callable], clips: torch.Tensor, release: Release | None) -> dict:
    """Median seconds of encoders and of the released one, and the errors of their outputs."""
    given = to_release(clips)
    truth = None if release is None else release(given)
    errors = {name: compared(encode(clips), truth) for name, encode in encoders.items()}
    runs: dict[str, Callable] = {name: lambda run=encode: run(clips) for name, encode in encoders.items()}
    if release is not None:
        runs["release"] = lambda: release(given)
    seconds = medians(REPETITIONS[len(clips)], **runs)
    ratios = {name: seconds["release"] / seconds[name] for name in encoders} if release is not None else {}
    return {"what": what, "seconds": seconds, "ratio": ratios, **{"errors": errors if release is not None else {}}}


def measure_cpu(model: USDRLModel, release: Release | None) -> list[dict]:
    """Rows for one clip and for a batch, in float32 and in bfloat16."""
    fused, rough = fuse(model), fuse(model).to(torch.bfloat16)
    rows = []
    for size in REPETITIONS:
        encoders = {"unfused": pooled(model), "fused": pooled(fused), "fused bfloat16": pooled(rough)}
        rows.append(row(f"CPU, batch {size}", encoders, real_clips(size), release))
    return rows


def synchronised(encode: Callable, clips: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        encode(clips)
        torch.cuda.synchronize()

    return run


def fastest(encode: Callable, dtype: torch.dtype, sizes: tuple[int, ...], given: Callable) -> dict:
    """Clips per second at the best batch size, and at all of them; clips are on the device."""
    best: dict = {"clips_per_second": 0.0}
    rates = {}
    for size in sizes:
        clips = real_clips(BATCH).repeat(size // BATCH, 1, 1, 1, 1).to("cuda", dtype)
        try:
            rate = size / medians(run=synchronised(encode, given(clips)))["run"]
        except torch.OutOfMemoryError:
            break
        rates[size] = rate
        if rate > best["clips_per_second"]:
            best = {"clips_per_second": rate, "batch": size}
    return {**best, "by_batch": rates}


def graphed(encode: Callable, clips: torch.Tensor) -> Callable[[], None]:
    """A run of an encoder captured as a CUDA graph, without Python's overhead."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            encode(clips)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        encode(clips)

    def run() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return run


def measure_gpu(model: USDRLModel, release: Release | None, operations_per_clip: int) -> dict:
    """Rate of clips on the device, its share of the measured bf16 matrix rate, and the time of one clip."""
    started = time.monotonic()
    fused = fuse(model, packed=False).to("cuda").to(torch.bfloat16)
    compiled = torch.compile(pooled(fused), dynamic=False)
    sizes = (64, 256, 512, 1024)
    found: dict = {"device": torch.cuda.get_device_name(0)}
    truth = None
    if release is not None:
        truth = release(to_release(real_clips(BATCH)))
        release.model.to("cuda")
        found["release"] = fastest(release, torch.float32, sizes, to_release)
    found["eager"] = fastest(pooled(fused), torch.bfloat16, sizes, lambda clips: clips)
    # Each size is compiled by itself, which takes ten seconds.
    found["ours"] = fastest(compiled, torch.bfloat16, sizes[-2:], lambda clips: clips)
    rate = matrix_rate()
    found["bf16_matrix_tflops"] = rate / 1e12
    found["share_of_matrix_rate"] = operations_per_clip * found["ours"]["clips_per_second"] / rate
    one = real_clips(1).to("cuda", torch.bfloat16)
    runs = {"graph": graphed(pooled(fused), one), "eager": synchronised(pooled(fused), one)}
    if release is not None:
        found["ratio"] = found["ours"]["clips_per_second"] / found["release"]["clips_per_second"]
        runs["release"] = synchronised(release, to_release(one.float()))
    found["one_clip_seconds"] = medians(REPETITIONS[1], **runs)
    clips = real_clips(BATCH).repeat(sizes[-1] // BATCH, 1, 1, 1, 1).to("cuda", torch.bfloat16)
    return found | compared(compiled(clips)[:BATCH], truth) | redact_paths(run_record(started))


def peak_memory(who: str, checkpoint: Path, reference: Path) -> float:
    """Peak memory in MiB of a process that reads a checkpoint and embeds a batch."""
    command = [sys.executable, __file__, "--embed", who, str(checkpoint), "--reference", str(reference)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak() -> float:
    """Peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # A new process starts with its parent's peak in `getrusage`, but not here.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 1024)


def embed_once(who: str, checkpoint: Path, reference: Path) -> None:
    """Read a checkpoint and embed a batch."""
    clips = real_clips(BATCH)
    before = peak()
    if who == "release":
        Release(reference, checkpoint)(to_release(clips))
    elif who == "fused":
        Engine.load(checkpoint, head=False, device="cpu").model(clips)
    else:
        USDRLModel.from_pretrained(checkpoint)(clips)
    print(peak() - before)


class Pooled(torch.nn.Module):
    """The clip embedding alone, for exporters and compilers."""

    def __init__(self, model: USDRLModel):
        super().__init__()
        self.model = model

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clip embeddings ``(B, 2d)``."""
        return self.model(clips).pooler_output


def onnx_file(model: USDRLModel, folder: Path, is_int8: bool = False) -> Path:
    """The file of `usdrl export`, also with weights in int8 by onnxruntime's dynamic quantisation."""
    path = folder / "model.onnx"
    if not path.exists():
        with torch.inference_mode(False):
            write_onnx(model, path)
    if not is_int8:
        return path
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, folder / "int8.onnx", weight_type=QuantType.QInt8)
    return folder / "int8.onnx"


def in_onnxruntime(model: USDRLModel, clips: torch.Tensor, folder: Path, is_int8: bool = False) -> Callable:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = onnx_file(model, folder, is_int8)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(session.run(["pooler_output"], {"keypoints": given.numpy()})[0])


def in_openvino(model: USDRLModel, clips: torch.Tensor, folder: Path, precision: str = "f32") -> Callable:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": precision}
    core = openvino.Core()
    read = core.read_model(onnx_file(model, folder))
    read.reshape({"keypoints": list(clips.shape)})
    request = core.compile_model(read, "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
    return lambda given: torch.from_numpy(request.infer({"keypoints": given.numpy()})["pooler_output"])


def compiled_by_torch(model: USDRLModel, clips: torch.Tensor, folder: Path) -> Callable:
    import torch._inductor.config as inductor

    inductor.freezing = True
    compiled = torch.compile(Pooled(model), dynamic=False)

    def run(given: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return compiled(given)

    return run


def ahead_of_time(model: USDRLModel, clips: torch.Tensor, folder: Path) -> Callable:
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    path = folder / "model.pt2"
    with torch.inference_mode(False), torch.no_grad():
        program = torch.export.export(Pooled(model), (clips.clone(),))
        aoti_compile_and_package(program, package_path=str(path), inductor_configs={"freezing": True})
    return aoti_load_package(str(path))


ENGINES: dict[str, Callable] = {
    "ours, as it is": lambda model, clips, folder: pooled(model),
    "ours, fused bfloat16": lambda model, clips, folder: pooled(fuse(model).to(torch.bfloat16)),
    "onnxruntime": in_onnxruntime,
    "onnxruntime int8": partial(in_onnxruntime, is_int8=True),
    "OpenVINO": in_openvino,
    "OpenVINO bfloat16": partial(in_openvino, precision="bf16"),
    "torch.compile": compiled_by_torch,
    "AOTInductor": ahead_of_time,
}
# Hidden sizes, and interleaved repetitions by the size of a batch.
SIZES = {96: {1: 101, BATCH: 9}, 1024: {1: 15, BATCH: 3}}


def model_and_clips(size: int) -> tuple[USDRLModel, torch.Tensor]:
    """An encoder of a hidden size, and 64 clips for it."""
    # Tensors that were made in inference mode can be neither exported nor compiled.
    with torch.inference_mode(False):
        if size == 1024:
            return make_model(), real_clips(BATCH)
        engine = Engine.load(ENCODER, head=False, fused=False, device="cpu")
    clips = engine.extractor(list(load_samples()[:BATCH]), return_tensors="pt")["keypoints"]
    return engine.model.requires_grad_(False), clips


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence notes of exporters and compilers."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def engine_row(name: str, model: USDRLModel, clips: torch.Tensor, repetitions: int, folder: Path) -> dict:
    """An engine in turns with our fused model; exported files stay in the folder."""
    started = time.monotonic()
    with quiet():
        encoders = {"ours": pooled(fuse(model)), "other": ENGINES[name](model, clips, folder)}
        error = compared(encoders["other"](clips), pooled(model)(clips))
        prepared = time.monotonic() - started
        seconds = medians(repetitions, **{who: partial(encode, clips) for who, encode in encoders.items()})
    row = {"seconds": seconds, "times_as_fast": seconds["ours"] / seconds["other"], **error}
    row |= {"prepare_seconds": round(prepared, 1), "load_average": os.getloadavg()[0], **processor()}
    return row | {"threads": torch.get_num_threads(), **redact_paths(run_record(started))}


def measure_engines(record: dict, output: Path, names: list[str], batches: list[int], again: bool) -> None:
    """Add the rows that are missing."""
    rows, counts = record.setdefault("engines", {}), record.setdefault("operations_by_hidden_size", {})
    given = {size: model_and_clips(size) for size in SIZES}
    counts |= {str(size): operations(fuse(model, packed=False), clips[:1]) for size, (model, clips) in given.items()}
    with tempfile.TemporaryDirectory() as name_of_folder:
        # A killed run leaves broken files in the compiler's cache.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(name_of_folder) / "inductor")
        # Engines that compile for minutes come last.
        for name, size in itertools.product(names, SIZES):
            model, clips = given[size]
            folder = Path(name_of_folder) / str(size)
            folder.mkdir(exist_ok=True)
            for batch in batches:
                key = f"{name}, d {size}, batch {batch}"
                if key in rows and not again:
                    continue
                try:
                    rows[key] = engine_row(name, model, clips[:batch], SIZES[size][batch], folder)
                except (ImportError, RuntimeError, ValueError) as error:
                    print(f"{key}: {NOT_MEASURED}: {' '.join(str(error).split())[:200]}", flush=True)
                    continue
                seconds = rows[key]["seconds"]
                print(f"{key}: {1e3 * seconds['other']:.1f} ms, ours {1e3 * seconds['ours']:.1f} ms", flush=True)
                write(record, output)
    print_engines(rows)


def print_engines(rows: dict) -> None:
    """A row of the table for each engine and hidden size."""
    print("\n| hidden size | engine | one clip | times as fast as ours | 64 clips | times as fast | cosine, least |")
    print("|" + "---|" * 7)
    for size, name in itertools.product(SIZES, ENGINES):
        found = [rows.get(f"{name}, d {size}, batch {batch}") for batch in SIZES[size]]
        # Threads of some engines keep a core busy after their turn, which slows ours: the fastest of its turns counts.
        ours = [
            min([row["seconds"]["ours"] for key, row in rows.items() if key.endswith(f", d {size}, batch {batch}")])
            if row
            else 0
            for row, batch in zip(found, SIZES[size], strict=True)
        ]
        shown = [
            (1e3 * row["seconds"]["other"], best / row["seconds"]["other"]) if row else None
            for row, best in zip(found, ours, strict=True)
        ]
        cells = [f"{pair[0]:.1f} ms | {pair[1]:.1f}" if pair else f"{NOT_MEASURED} | " for pair in shown]
        if any(found):
            print(f"| {size} | {name} | {' | '.join(cells)} | {min(row['cosine'] for row in found if row):.5f} |")


def write(record: dict, output: Path) -> None:
    with new_file(output) as partial_file:
        partial_file.write_text(json.dumps(record, indent=2) + "\n")


def processor() -> dict:
    """Name of the CPU, and whether it has AMX for bfloat16."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"cpu": name, "amx_bf16": any("amx_bf16" in line for line in lines)}


def print_table(rows: list[dict], memory: dict, gpu: dict | str, facts: dict) -> None:
    print(f"{facts['cpu']}, {facts['threads']} threads, AMX for bfloat16: {'yes' if facts['amx_bf16'] else 'no'}\n")
    print("| what | code | s | times as fast as the release | error | cosine |\n|---|---|---|---|---|---|")
    for each in rows:
        for name, seconds in each["seconds"].items():
            error, ratio = each["errors"].get(name, {}), each["ratio"].get(name)
            shown = [f"{error[key]:{form}}" if error else "" for key, form in (("error", ".1e"), ("cosine", ".5f"))]
            beside = f"{ratio:.2f}" if ratio else "" if name == "release" else NOT_MEASURED
            print(f"| {each['what']} | {name} | {seconds:.4f} | {beside} | {' | '.join(shown)} |")
    for who, mebibytes in memory.items():
        print(f"| peak memory, batch {BATCH} | {who} | {mebibytes:.0f} MiB | | | |")
    print(f"\nGPU: {gpu if isinstance(gpu, str) else json.dumps(gpu)}")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=Path(".reference/FoundSkelModel"))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--gpu", action="store_true", help="measure the GPU only")
    parser.add_argument("--embed", nargs=2, metavar=("CODE", "CHECKPOINT"), help="measure memory in this process")
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES), help="measure other engines; all if unnamed")
    parser.add_argument(
        "--batches", nargs="+", type=int, choices=(1, BATCH), default=[1, BATCH], help="of the engines"
    )
    parser.add_argument("--again", action="store_true", help="measure the rows that there are, too")
    arguments = parser.parse_args()
    if arguments.embed:
        embed_once(arguments.embed[0], Path(arguments.embed[1]), arguments.reference)
        return
    record = {"gpu": NOT_MEASURED} | earlier_record(parser, arguments)
    if arguments.engines is not None:
        names = arguments.engines or list(ENGINES)
        measure_engines(record, arguments.output, names, arguments.batches, arguments.again)
        return
    started = time.monotonic()
    has_release = (arguments.reference / "model").is_dir()
    with tempfile.TemporaryDirectory() as name:
        folder, original = Path(name) / "model", Path(name) / "original.pth.tar"
        model = make_model()
        model.save_pretrained(folder)
        save_original(model, original)
        del model
        memory = {}
        if not arguments.gpu:
            memory = {who: peak_memory(who, folder, arguments.reference) for who in ("fused", "unfused")}
            if has_release:
                memory["release"] = peak_memory("release", original, arguments.reference)
        model = make_model()
        release = Release(arguments.reference, original) if has_release else None
    count = {"unfused": operations(model), "fused": operations(fuse(model, packed=False))}
    if not arguments.gpu:
        record |= {"table": measure_cpu(model, release), "peak_memory_mib": memory, "operations_per_clip": count}
        record |= {**processor(), "threads": torch.get_num_threads(), **redact_paths(run_record(started))}
    if torch.cuda.is_available():
        record["gpu"] = measure_gpu(model, release, count["fused"])
    print_table(record["table"], record["peak_memory_mib"], record["gpu"], record)
    write(record, arguments.output)


if __name__ == "__main__":
    main()
