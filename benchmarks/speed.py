"""Speed of embedding, compared with the authors' released code with the same weights.

    python benchmarks/speed.py [--reference .reference/FoundSkelModel] [--gpu] [--output benchmarks/speed.json]

On the sample clips, with an encoder of the paper's size (hidden size 1024, 25 joints, 2 people, 64 frames) and the
same random weights in both codes. Seconds are medians of interleaved runs; errors are the largest difference of an
embedding to the released code's in float32, over its largest value. Peak memory is that of a process that reads a
checkpoint in its own format and embeds one batch of 64 clips, minus that of its imports. On a GPU, clips are on the
device and each code runs at its best batch size: ours compiled, in bfloat16, the release in float32. `--gpu` measures
only the device and keeps the CPU figures in the output file. The released model is hard-coded for 17 joints, which is
patched on loading. Without the released code or a GPU, the rows say "not measured".
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from usdrl_hub import Engine, USDRLConfig, USDRLFeatureExtractor, USDRLModel, fuse
from usdrl_hub.data.samples import load_samples
from usdrl_hub.hub.convert import save_original
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


def operations(model: USDRLModel) -> int:
    """Floating-point operations of one clip's matrix products, without attention scores."""
    with FlopCounterMode(display=False) as counter:
        model(real_clips(1))
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
    arguments = parser.parse_args()
    if arguments.embed:
        embed_once(arguments.embed[0], Path(arguments.embed[1]), arguments.reference)
        return
    record = {"gpu": NOT_MEASURED} | earlier_record(parser, arguments)
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
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
