"""Speed of pretraining, compared with the authors' released code in the same run.

    python benchmarks/pretraining.py [--reference .reference/FoundSkelModel] [--gpu] [--output FILE]

Measures the loss, the views on one core, steps of three hidden sizes on the CPU, and, on a CUDA device, a step of the
largest batch up to 384 in mixed precision, with and without `--compile`, its share of the device's measured bf16
matrix rate (by the operations that it does), the memory of the first uncompiled step, and the time of
NTU-60's schedule. `--gpu` measures only the device and keeps the CPU figures in the output file. Sizes are the
paper's: hidden size 1024, 25 joints, 2 people, 64 frames, 4 views. The released model is hard-coded for 17 joints, and
its views do not run on NumPy 2; both are patched on loading. Without the released code or a GPU, the rows say "not
measured".
"""

import argparse
import contextlib
import gc
import importlib.util
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch

from usdrl_hub import USDRLConfig, USDRLForPreTraining
from usdrl_hub.pretraining.losses import MultiGrainedFeatureDecorrelation
from usdrl_hub.pretraining.trainer import compile_streams
from usdrl_hub.pretraining.views import ViewAugmentation
from usdrl_hub.ragged import RaggedFrames
from usdrl_hub.records import redact_paths, run_record
from usdrl_hub.speedups import in_training

sys.path.insert(0, str(Path(__file__).parent))
from data import REPETITIONS, earlier_record, make_sequences, medians  # noqa: E402

NOT_MEASURED = "not measured"
BATCH = 384
# Hidden sizes and batches of the steps on the CPU.
STEPS = ((96, 64), (256, 64), (1024, 8))
# Training clips of NTU-60 xsub and the epochs of its schedule.
CLIPS, EPOCHS = 40_091, 451


def load(path: Path, **replaced: str):
    """A module of the released code, with parts of its text replaced."""
    text = path.read_text()
    for old, new in replaced.values():
        if old not in text:
            raise ValueError(f"{path}: '{old}' is not in it")
        text = text.replace(old, new)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(path.stem, None))
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module


class Release:
    """The parts of the released code that are measured."""

    def __init__(self, folder: Path):
        self.loss = load(folder / "model" / "loss.py")
        self.views = load(folder / "feeder" / "augmentations.py", scalar=("np.random.rand(1)", "np.random.rand()"))
        self.model = load(folder / "model" / "DSTE.py", tokens=("34", "50")).USDRL

    def total(self, temporal, spatial, instance):
        """The total loss of the TPAMI release, as in its training loop."""
        criterion = torch.nn.MSELoss()
        similarity, covariance = (
            function(instance) + 0.5 * (function(temporal) + function(spatial))
            for function in (
                lambda views: self.loss.similarity(views, criterion),
                lambda views: sum(self.loss.v_ac(view) for view in views),
            )
        )
        return 5 * similarity + covariance

    def draw(self, clip: np.ndarray, frames: int) -> list[np.ndarray]:
        """Four views of one padded clip, as in its data loader."""
        drawn = []
        for _ in range(4):
            view = self.views.temporal_cropresize(clip, frames, [0.1, 1], 64)
            corrupt = random.random() < 0.5
            change = self.views.joint_courruption if corrupt else self.views.pose_augmentation
            drawn.append(change(view))
        return drawn


def ragged(count: int) -> RaggedFrames:
    sequences = make_sequences(count)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return RaggedFrames(torch.from_numpy(np.concatenate(sequences)), lengths)


def measure_loss(release: Release | None) -> dict[str, float]:
    """Forward and backward of the loss at the paper's sizes."""
    torch.manual_seed(0)
    sizes = (2048, 2048, 4096)
    ours = MultiGrainedFeatureDecorrelation.preset("tpami")
    projections = [torch.randn(4, BATCH, size, requires_grad=True) for size in sizes]
    detached = [views.detach() for views in projections]
    runs = {"ours": lambda: ours(*projections)["loss"].backward()}
    if release is not None:
        views = [[view.detach().clone().requires_grad_() for view in views] for views in projections]
        runs["release"] = lambda: release.total(*views).backward()
        ours_value, release_value = float(ours(*detached)["loss"]), float(release.total(*detached))
        assert abs(ours_value - release_value) < 1e-4 * abs(release_value), (ours_value, release_value)
    return medians(**runs)


def measure_views(release: Release | None) -> dict[str, float]:
    """Four views of each of 64 sequences, on one core."""
    batch = ragged(64)
    clips = torch.arange(64)
    augmentation = ViewAugmentation()
    runs = {"ours": lambda: augmentation(batch, clips)}
    if release is not None:
        padded, frames = [], []
        for sequence in make_sequences(64):
            clip = np.zeros((3, 300, 25, 2), np.float32)
            clip[:, : len(sequence)] = sequence.transpose(3, 0, 2, 1)
            padded.append(clip)
            frames.append(len(sequence))
        runs["release"] = lambda: [release.draw(*each) for each in zip(padded, frames, strict=True)]
    return medians(**runs)


def our_step(
    batch_size: int,
    device: str,
    dtype: torch.dtype | None,
    checkpointing: bool = False,
    compiled: bool = False,
    hidden_size: int = 1024,
):
    """A training step of this package, including the views, as a function."""
    torch.manual_seed(0)
    model = USDRLForPreTraining(USDRLConfig(hidden_size=hidden_size)).to(device).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    # As the Trainer does, for as long as the step lives.
    context = in_training(model)
    context.__enter__()
    if compiled:
        compile_streams(model)
    loss = MultiGrainedFeatureDecorrelation.preset("tpami")
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, weight_decay=1e-5, fused=device == "cuda")
    batch = ragged(batch_size)
    batch = RaggedFrames(batch.frames.to(device), batch.lengths.to(device))
    clips = torch.arange(batch_size, device=device)
    augmentation = ViewAugmentation()

    def step(views=None):
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            output = model(augmentation(batch, clips) if views is None else views)
            names = ("temporal_projection", "spatial_projection", "instance_projection")
            total = loss(*(output[name] for name in names))["loss"]
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    step.context = context  # type: ignore[attr-defined]
    return step


def release_step(release: Release, batch_size: int, device: str, dtype: torch.dtype | None, hidden_size: int = 1024):
    """A training step of the release on given views, which its data loader makes separately."""
    torch.manual_seed(0)
    model = release.model(150, 192, hidden_size, 1, 2).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, weight_decay=1e-5)
    scaler = torch.amp.GradScaler(device, enabled=dtype is not None)
    views = [torch.randn(batch_size, 3, 64, 25, 2, device=device) for _ in range(4)]

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            total = release.total(*model(*views))
        total.item()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def measure_steps(
    what: str, release: Release | None, hidden_size: int, batch_size: int, repetitions: int
) -> dict[str, dict[str, float]]:
    """Steps on the CPU, ours in float32 and in bfloat16, in turns with the release's in float32."""
    runs = {
        "ours": our_step(batch_size, "cpu", None, hidden_size=hidden_size),
        "bfloat16": our_step(batch_size, "cpu", torch.bfloat16, hidden_size=hidden_size),
    }
    if release is not None:
        runs["release"] = release_step(release, batch_size, "cpu", None, hidden_size)
    seconds = medians(repetitions, **runs)
    rough = {"ours": seconds.pop("bfloat16")} | {key: seconds[key] for key in seconds if key == "release"}
    return {what: seconds, f"{what}, ours in bfloat16": rough}


def step_operations(batch_size: int) -> float:
    """Floating-point operations of the matrix products that one step does on the device."""
    from torch.utils.flop_counter import FlopCounterMode

    step = our_step(batch_size, "cuda", torch.bfloat16)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def matrix_rate() -> float:
    """Operations per second of a large bf16 matrix product on the device."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)

    def product():
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()

    return 20 * 2 * 8192**3 / medians(ours=product)["ours"]


def largest_batch(make) -> int:
    """The largest of a few batch sizes whose step fits in memory."""
    for size in (BATCH, 256, 192, 128, 64, 32):
        try:
            make(size)()
            return size
        except torch.OutOfMemoryError:
            pass
        finally:
            gc.collect()
            torch.cuda.empty_cache()
    raise RuntimeError("not even 32 clips fit in the device's memory")


def measure_gpu(release: Release | None) -> dict:
    """Steps on the device in mixed precision."""
    started = time.monotonic()
    found: dict = {"device": torch.cuda.get_device_name(0)}
    size = largest_batch(lambda batch: our_step(batch, "cuda", torch.bfloat16))
    if release is not None:
        size = min(size, largest_batch(lambda batch: release_step(release, batch, "cuda", torch.float16)))
    runs = {
        "ours": our_step(size, "cuda", torch.bfloat16, compiled=True),
        "eager": our_step(size, "cuda", torch.bfloat16),
    }
    if release is not None:
        runs["release"] = release_step(release, size, "cuda", torch.float16)
    seconds = medians(**runs)
    rate = matrix_rate()
    found |= {"batch": size, "seconds": seconds, "bf16_matrix_tflops": rate / 1e12}
    found["share_of_matrix_rate"] = step_operations(size) / seconds["ours"] / rate
    found["ntu60_schedule_hours"] = EPOCHS * (CLIPS // size) * seconds["ours"] / 3600
    del runs
    for name, checkpointing in (("memory_gib", False), ("memory_gib_checkpointing", True)):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        our_step(size, "cuda", torch.bfloat16, checkpointing)()
        found[name] = torch.cuda.max_memory_allocated() / 2**30
    return found | redact_paths(run_record(started))


@contextlib.contextmanager
def threads(count: int):
    """Compute with this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def ratio_of(seconds: dict[str, float]) -> float | None:
    """Speed-up over the release."""
    return seconds["release"] / seconds["ours"] if "release" in seconds else None


def print_row(what: str, seconds: dict[str, float]) -> None:
    ratio = ratio_of(seconds)
    beside = f"{seconds['release']:.3f} | {ratio:.1f}" if ratio else f"{NOT_MEASURED} | "
    print(f"| {what} | {seconds['ours']:.3f} | {beside} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=Path(".reference/FoundSkelModel"))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--gpu", action="store_true", help="measure the GPU only")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="of a step on the CPU")
    arguments = parser.parse_args()
    record = {"gpu": NOT_MEASURED} | earlier_record(parser, arguments)
    started = time.monotonic()
    release = Release(arguments.reference) if (arguments.reference / "model").is_dir() else None
    if not arguments.gpu:
        rows = {"loss, forward and backward, batch 384": measure_loss(release)}
        with threads(1):
            rows["four views of 64 clips, one core"] = measure_views(release)
        for hidden_size, batch_size in STEPS:
            what = f"whole step on the CPU, hidden size {hidden_size}, batch {batch_size}"
            rows |= measure_steps(what, release, hidden_size, batch_size, arguments.repetitions)
        table = [{"what": what, "seconds": seconds, "ratio": ratio_of(seconds)} for what, seconds in rows.items()]
        record |= {"table": table, "threads": torch.get_num_threads(), **redact_paths(run_record(started))}
    if torch.cuda.is_available():
        record["gpu"] = measure_gpu(release)
    print("| what | ours, s | release, s | ratio |\n|---|---|---|---|")
    for row in record["table"]:
        print_row(row["what"], row["seconds"])
    gpu = record["gpu"]
    if gpu != NOT_MEASURED:
        what = f"whole step on {gpu['device']}, batch {gpu['batch']}, mixed precision"
        print_row(f"{what}, compiled", gpu["seconds"])
        print_row(f"{what}, not compiled", {**gpu["seconds"], "ours": gpu["seconds"]["eager"]})
    for name in ("share_of_matrix_rate", "ntu60_schedule_hours", "memory_gib", "memory_gib_checkpointing"):
        print(f"| {name} | {gpu if gpu == NOT_MEASURED else f'{gpu[name]:.3g}'} | | |")
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
