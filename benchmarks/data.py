"""Speed of reading and normalising skeleton files, compared with the authors' released code in the same run.

    python benchmarks/data.py [--reference .reference/FoundSkelModel] [--output benchmarks/data.json]
    python benchmarks/data.py --prepare [--count 2000]

The released code is not part of this repository: to compare, put a copy of github.com/wengwanjiang/FoundSkelModel into
`.reference/`. Files and sequences are generated; figures are medians over paired repetitions.

`--prepare` measures one thing only, and adds it to the output: `usdrl prepare ntu60 --workers 2`, with its start,
beside the release's script for one protocol, from the same text files to what training reads. The script also writes
the modalities motion and bone, which ours computes when they are needed.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from usdrl_hub import SkeletonSequence, USDRLFeatureExtractor, read_skeleton
from usdrl_hub.normalization import Geometry, normalize_sequences
from usdrl_hub.ragged import RaggedFrames
from usdrl_hub.records import redact_paths, run_record

REPETITIONS = 5


def make_sequences(count: int, seed: int = 0) -> list[np.ndarray]:
    """Sequences (T, 2, 25, 3) of NTU's lengths (32 to 300 frames, 85 on average), a quarter with two people."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.gamma(6, 14, count), 32, 300).astype(int)
    sequences = []
    for number, length in enumerate(lengths):
        sequence = np.cumsum(rng.normal(0, 0.01, (length, 2, 25, 3)), axis=0) + rng.normal(0, 0.4, (1, 2, 25, 3))
        sequence[..., 2] += 3
        if number % 4:
            sequence[:, 1] = 0
        sequences.append(sequence.astype(np.float32))
    return sequences


def write_ntu(folder: Path, sequences: list[np.ndarray]) -> list[Path]:
    """Write sequences as NTU RGB+D text files."""
    paths = []
    for number, sequence in enumerate(sequences):
        lines = [str(len(sequence))]
        for frame in sequence:
            bodies = [body for body in frame if body.any()]
            lines.append(str(len(bodies)))
            for body in bodies:
                lines += ["72057594037931101 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
                lines += [
                    " ".join(f"{value:.7g}" for value in joint) + " 277.419 191.8218 1036.233 519.1677"
                    " -0.2059419 0.05349901 0.9692109 -0.1239193 2"
                    for joint in body
                ]
        # Each number has a name of its own: 120 actions of persons, in further setups.
        setup, person, action = number // 120 + 1, number % 40 + 1, number % 60 + 1
        path = folder / f"S{setup:03d}C001P{person:03d}R001A{action:03d}.skeleton"
        path.write_text("\n".join(lines) + "\n")
        paths.append(path)
    return paths


def medians(repetitions: int = REPETITIONS, **functions: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each function over interleaved repetitions."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repetition in range(repetitions + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            # The first round warms up.
            if repetition:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def earlier_record(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> dict:
    """The record of an earlier run in the output file; refuses `--gpu` without a GPU or such a record."""
    if arguments.gpu and not torch.cuda.is_available():
        parser.error("--gpu measures a GPU, and there is none")
    if arguments.output.is_file():
        return json.loads(arguments.output.read_text())
    if arguments.gpu:
        parser.error(
            f"{arguments.output}: --gpu adds to the figures of a CPU, and there are none: run it without first"
        )
    return {}


def load_release(folder: Path):
    """The released reading and normalisation functions, or None without a copy."""
    if not (folder / "data_gen").is_dir():
        return None

    def load(name: str, path: Path):
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        # The release's own package of this name does not import; its script asks for one function of it.
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    preprocess = load("preprocess", folder / "data_gen" / "preprocess" / "preprocess.py")
    # Its progress bars would be timed, too.
    preprocess.tqdm = lambda iterable, **_: iterable
    return load("ntu_gendata", folder / "data_gen" / "ntu_gendata.py"), preprocess.pre_normalization


def measure_prepare(count: int, release) -> dict:
    """Seconds from text files to what training reads."""
    found: dict = {"files": count}
    with tempfile.TemporaryDirectory() as name:
        raw, made = Path(name) / "raw", Path(name) / "made"
        raw.mkdir()
        made.mkdir()
        write_ntu(raw, make_sequences(count))
        found["megabytes"] = sum(path.stat().st_size for path in raw.iterdir()) / 1e6
        command = [sys.executable, "-m", "usdrl_hub.cli", "prepare", "ntu60", str(raw), "--workers", "2"]
        begun = time.perf_counter()
        subprocess.run([*command, "--output-dir", str(made / "store")], check=True, capture_output=True)
        found["ours"] = time.perf_counter() - begun
        found["megabytes_per_second"] = found["megabytes"] / found["ours"]
        if release is not None:
            begun = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                for part in ("train", "val"):
                    release[0].gendata(str(raw), str(made), None, "xsub", part)
            found["release"] = time.perf_counter() - begun
            found["ratio"] = found["release"] / found["ours"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=Path(".reference/FoundSkelModel"))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--count", type=int, help="sequences; 64, or 2000 with --prepare")
    parser.add_argument("--prepare", action="store_true", help="measure 'usdrl prepare' only")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.prepare:
        record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
        found = measure_prepare(arguments.count or 2000, load_release(arguments.reference))
        record["prepare"] = found | redact_paths(run_record(started)) | {"load_average": os.getloadavg()[0]}
        print(json.dumps(found, indent=2))
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")
        return
    arguments.count = arguments.count or 64
    torch.set_num_threads(1)
    # The generated bodies are random points, which the extractor rightly doubts.
    logging.getLogger("usdrl_hub").setLevel(logging.ERROR)
    sequences = make_sequences(arguments.count)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    batch = RaggedFrames(torch.from_numpy(np.concatenate(sequences)), lengths)
    extractor = USDRLFeatureExtractor()
    wrapped = [SkeletonSequence(sequence) for sequence in sequences]
    release = load_release(arguments.reference)
    with tempfile.TemporaryDirectory() as name:
        paths = write_ntu(Path(name), sequences)
        reading: dict[str, Callable[[], object]] = {"ours": lambda: [read_skeleton(path) for path in paths]}
        normalizing: dict[str, Callable[[], object]] = {
            "ours": lambda: normalize_sequences(batch, Geometry(1, (4, 8)))
        }
        clips = {"ours": lambda: extractor(wrapped, return_tensors="pt")}
        if release is not None:
            read_xyz, pre_normalization = release[0].read_xyz, release[1]
            # As the release stores them: (N, C, T, V, M), padded to 300 frames.
            padded = np.zeros((arguments.count, 3, 300, 25, 2), np.float32)
            for number, sequence in enumerate(sequences):
                padded[number, :, : len(sequence)] = sequence.transpose(3, 0, 2, 1)

            def normalize_as_released():
                with contextlib.redirect_stdout(io.StringIO()):
                    pre_normalization(padded.copy(), zaxis=[], xaxis=[4, 8])

            reading["release"] = lambda: [read_xyz(str(path)) for path in paths]
            normalizing["release"] = normalize_as_released
        rows = {
            "reading .skeleton files": medians(**reading),
            "normalising sequences": medians(**normalizing),
            "normalised clips": medians(**clips),
        }
        if torch.cuda.is_available():
            on_device = RaggedFrames(batch.frames.cuda(), batch.lengths.cuda())

            def normalize_on_device():
                normalize_sequences(on_device, Geometry(1, (4, 8)))
                torch.cuda.synchronize()

            # The release normalises on the CPU only.
            rows["normalising sequences on a GPU"] = medians(
                ours=normalize_on_device, **{name: run for name, run in normalizing.items() if name == "release"}
            )
    print(f"sequences per second on one core, medians of {REPETITIONS} paired repetitions\n")
    print("| step | ours | release | ratio |\n|---|---|---|---|")
    table = []
    for step, seconds in rows.items():
        rates = {who: arguments.count / value for who, value in seconds.items()}
        ratio = rates["ours"] / rates["release"] if "release" in rates else None
        table.append({"step": step, "sequences_per_second": rates, "ratio": ratio})
        shown = f"{rates['release']:.1f} | {ratio:.1f}" if ratio else "not measured | "
        print(f"| {step} | {rates['ours']:.0f} | {shown} |")
    earlier = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    record = {key: earlier[key] for key in ("prepare",) if key in earlier} | {
        "table": table,
        "threads": 1,
        "sequences": arguments.count,
        "cpus": os.cpu_count(),
        **run_record(started),
    }
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
