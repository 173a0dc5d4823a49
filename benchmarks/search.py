"""Search of an archive: recall and time of the approximate index, copies, and growth.

    python benchmarks/search.py [vectors] [duplicates] [growth] [--data DATA] [--output FILE]

All parts where none is named; FILE is benchmarks/search.json. A part replaces its own figures in the output. DATA
holds the open sets as .npz files, which `duplicates` needs (they cannot be part of this repository). What a search
finds is measured by planted.py.

`vectors`: a million vectors, embeddings of the shipped clips plus noise whose deviation (root mean square length) is
the median distance of two clips of one class; recall@10 of the approximate search beside the exact one, the time of a
query on one core, and the bytes of a vector.

`duplicates`: the 95 copies in NW-UCLA's test set, also after cropping, noise, and turning.

`growth`: time, memory and bytes of an index of 10^4, 10^5, ... generated clips, and their exponents. Sizes that the
output has are not measured again: `--clips 10000 100000` now, `--clips 1000000` another time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usdrl_hub import (
    Engine,
    MotionIndex,
    SkeletonList,
    SkeletonSequence,
    WindowOptions,
    extract_embeddings,
    open_data,
    write_store,
)
from usdrl_hub.data.samples import load_samples
from usdrl_hub.files import new_file
from usdrl_hub.records import redact_paths, run_record
from usdrl_hub.search.duplicates import find_copies
from usdrl_hub.search.vectors import InvertedFile, NearestVectors, unit_vectors

ENCODERS = ("usdrl/mocap-tiny", "usdrl/tiny-uiprmd")
ROOT = Path(__file__).parent.parent


def vectors(count: int, model: str = "usdrl/mocap-tiny") -> dict[str, Any]:
    """Recall, time and size of the approximate search."""
    data = load_samples()
    clips = unit_vectors(extract_embeddings(data, model))
    labels = np.asarray(data.column("labels"))
    away = np.linalg.norm(clips[:, None] - clips[None], axis=-1)
    deviation = float(np.median(away[(labels[:, None] == labels) & ~np.eye(len(clips), dtype=bool)]))
    size = clips.shape[1]
    random = np.random.default_rng(0)

    def noisy(number: int) -> np.ndarray:
        found = clips[random.integers(0, len(clips), number)]
        step = 1 << 16
        for start in range(0, number, step):
            part = found[start : start + step]
            part += random.standard_normal(part.shape, dtype=np.float32) * np.float32(deviation / np.sqrt(size))
        return unit_vectors(found)

    with tempfile.TemporaryDirectory() as folder:
        # As in an index: half precision, on disk.
        path = Path(folder) / "vectors.npy"
        np.save(path, noisy(count).astype(np.float16))
        stored = np.load(path, mmap_mode="r")
        read = lambda numbers: stored[numbers].astype(np.float32)  # noqa: E731
        queries = noisy(100)
        truth = nearest_exactly(stored, queries, 10)
        began = time.monotonic()
        inverted = InvertedFile.train(read, count, size)
        built = time.monotonic() - began
        near = NearestVectors(read, count, size, inverted)
        near.search(queries[:1], 10)
        torch.set_num_threads(1)
        import faiss

        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        times, found = [], []
        for query in queries:
            began = time.perf_counter()
            found.append(near.search(query[None], 10)[1][0])
            times.append(time.perf_counter() - began)
        faiss.omp_set_num_threads(threads)
    shared = [len({*one.tolist()} & {*other.tolist()}) for one, other in zip(found, truth, strict=True)]
    # In an index: also the first frame of each window.
    arrays = sum(array.nbytes for array in inverted.arrays().values()) + 4 * count
    return {
        "vectors": count,
        "size": size,
        "noise_deviation": round(deviation, 4),
        "lists": len(inverted.ends),
        "recall_at_10": float(np.mean(shared)) / 10,
        "milliseconds_a_query": {
            key: round(1e3 * float(value), 2)
            for key, value in (("median", np.median(times)), ("95 %", np.percentile(times, 95)))
        },
        "bytes_a_window": round(arrays / count, 1),
        "bytes_a_window_reranking": 2 * size,
        "seconds_to_build": round(built, 1),
    }


def nearest_exactly(stored: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """The nearest of all vectors, a block at a time."""
    best = np.full((len(queries), k), -2.0, np.float32)
    numbers = np.zeros((len(queries), k), np.int64)
    for start in range(0, len(stored), 1 << 16):
        block = stored[start : start + (1 << 16)].astype(np.float32)
        scores = np.concatenate([best, queries @ block.T], axis=1)
        both = np.concatenate(
            [numbers, np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))], 1
        )
        order = np.argpartition(-scores, k, axis=1)[:, :k]
        best, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(both, order, 1)
    return numbers


def duplicates(data: Path) -> dict[str, Any]:
    """The copies that are found in NW-UCLA, and what else."""
    source = open_data(data / "nw_ucla.npz")
    sequences, test = list(source), np.asarray(source.column("split_test")).astype(bool)
    random = np.random.default_rng(0)
    by_frames: dict[bytes, list[int]] = {}
    for number, sequence in enumerate(sequences):
        by_frames.setdefault(sequence.keypoints.tobytes(), []).append(number)
    true = {(pair[0], pair[1]) for pair in by_frames.values() if len(pair) == 2}
    copied = {one if test[one] else other for one, other in true}

    def cropped(sequence: SkeletonSequence) -> SkeletonSequence:
        kept = max(round(0.9 * sequence.num_frames), 1)
        start = int(random.integers(0, sequence.num_frames - kept + 1))
        return replace(sequence, keypoints=sequence.keypoints[start : start + kept])

    def noisy(sequence: SkeletonSequence) -> SkeletonSequence:
        keypoints = sequence.keypoints
        noise = random.standard_normal(keypoints.shape, dtype=np.float32) * np.float32(0.01)
        return replace(sequence, keypoints=np.where(keypoints.any(-1, keepdims=True), keypoints + noise, 0))

    def turned(sequence: SkeletonSequence) -> SkeletonSequence:
        angle = random.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], np.float32)
        return replace(sequence, keypoints=sequence.keypoints @ turn)

    changes: dict[str, tuple] = {"as they are": (), "cropped by 10 %": (cropped,), "noise of 1 cm": (noisy,)}
    changes |= {"turned": (turned,), "all three": (cropped, noisy, turned)}
    engine = Engine.load(ENCODERS[0], head=False, device="cpu")
    results = {}
    for name, steps in changes.items():
        changed = list(sequences)
        for number in copied:
            for step in steps:
                changed[number] = step(changed[number])
        began = time.monotonic()
        pairs = {(copy.first, copy.second) for copy in find_copies(SkeletonList(changed), engine, sides=test)}
        results[name] = {"found": len(pairs & true), "others": len(pairs - true)}
        results[name]["seconds"] = round(time.monotonic() - began, 1)
        print(name, results[name], flush=True)
    return {"copies": len(true), "recordings": len(sequences), **results}


def growth(counts: list[int], known: list[dict[str, float]]) -> Iterator[dict[str, Any]]:
    """Time, memory and bytes of an index by the number of clips, each in a process of its own; yields after each.

    Args:
        counts: Numbers of clips.
        known: Rows of an earlier run, which are not measured again.
    """
    rows = {int(row["clips"]): row for row in known}
    for count in counts:
        if count not in rows:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--grow", str(count), "--folder", folder]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows[count] = json.loads(done.stdout.splitlines()[-1])
            print(rows[count], flush=True)
        yield growing([rows[key] for key in sorted(rows)])


def growing(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Exponents of the figures by the number of clips, and what they would be of 10^8."""
    if len(rows) < 2:
        return {"rows": rows}
    logs = np.log([row["clips"] for row in rows])
    keys = [key for key in rows[0] if key != "clips"]
    exponents = {key: round(float(np.polyfit(logs, np.log([row[key] for row in rows]), 1)[0]), 2) for key in keys}
    far = {key: rows[-1][key] * (1e8 / rows[-1]["clips"]) ** exponents[key] for key in keys}
    return {
        "rows": rows,
        "exponents": exponents,
        "extrapolated_to_1e8": {key: float(f"{v:.3g}") for key, v in far.items()},
    }


def grow(count: int, folder: Path) -> dict[str, float]:
    """Write, index and search generated clips of 60 frames."""
    random = np.random.default_rng(0)
    data = [sequence.to_layout("kinect20") for sequence in load_samples()]

    def generated() -> Iterator[SkeletonSequence]:
        for number in range(count):
            keypoints = data[number % len(data)].keypoints[:60]
            noise = random.standard_normal(keypoints.shape, dtype=np.float32) * np.float32(0.02)
            yield replace(data[number % len(data)], keypoints=keypoints + noise, name=f"c{number:07d}", label=None)

    began = time.monotonic()
    write_store(generated(), folder / "store", dtype="int16")
    stored = time.monotonic() - began
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    engine = Engine.load(ENCODERS[0], head=False)
    index = MotionIndex.build([folder / "store"], folder / "index", engine, options=WindowOptions(window=0))
    built = time.monotonic() - began
    query = data[0]
    index.search(query, engine, top_k=10)
    began = time.monotonic()
    index.search(query, engine, top_k=10)
    return {
        "clips": count,
        "store_seconds": stored,
        "index_seconds": built,
        "search_seconds": time.monotonic() - began,
        "store_bytes": sum(file.stat().st_size for file in (folder / "store").iterdir()),
        "index_bytes": sum(file.stat().st_size for file in (folder / "index").iterdir()),
        "peak_megabytes": max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, before) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="vectors, duplicates, growth; all if none is named")
    parser.add_argument("--data", type=Path, help="folder of the open sets")
    parser.add_argument("--vectors", type=int, default=1_000_000, help="vectors of the first part")
    parser.add_argument("--clips", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="of growth")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.grow:
        print(json.dumps(grow(arguments.grow, arguments.folder)))
        return
    record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    rows = record.get("growth", {}).get("rows", [])
    parts: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
        "vectors": lambda: [vectors(arguments.vectors)],
        "duplicates": lambda: [duplicates(arguments.data)],
        "growth": lambda: growth(arguments.clips, rows),
    }
    chosen = arguments.parts or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: name {', '.join(parts)}")
    if "duplicates" in chosen and arguments.data is None:
        parser.error("duplicates needs --data, the folder of the open sets")
    for name in chosen:
        began = time.monotonic()
        for found in parts[name]():
            record[name] = {**found, "run": redact_paths(run_record(began))}
            with new_file(arguments.output) as partial:
                partial.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
            print(json.dumps({name: found}, indent=2), flush=True)


if __name__ == "__main__":
    main()
