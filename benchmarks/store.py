"""A store of the size of NTU-120: its size compared with the release's array, opening time, and a shuffled epoch.

    python benchmarks/store.py [--clips 114480] [--output benchmarks/store.json]

Clips are generated (lengths as in NTU, a quarter with two people) in a temporary folder, which needs about 17 kB per
clip.
"""

import argparse
import json
import logging
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from data import make_sequences

from usdrl_hub import SkeletonSequence, SkeletonStore
from usdrl_hub.data.store_writer import StoreWriter
from usdrl_hub.records import run_record

BATCH = 256
PART = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=114_480)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    logging.getLogger("usdrl_hub").setLevel(logging.ERROR)
    started = time.monotonic()
    figures: dict[str, float | int] = {"clips": arguments.clips}
    # A second person who is never there is not stored, as a reader would not return one.
    drawn = [body if body[:, 1].any() else body[:, :1] for body in make_sequences(PART)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        writer = StoreWriter(path, {}, "int16")
        begun = time.perf_counter()
        for start in range(0, arguments.clips, PART):
            part = range(start, min(start + PART, arguments.clips))
            sequences = [
                SkeletonSequence(drawn[n - start], name=f"clip{n:07d}", label=n % 120, subject=n % 106) for n in part
            ]
            writer.write_part(sequences, {}, [str(start)])
        writer.finish([])
        figures["write_clips_per_second"] = arguments.clips / (time.perf_counter() - begun)
        size = sum(file.stat().st_size for file in path.iterdir())
        figures["bytes"] = size
        figures["release_bytes"] = arguments.clips * 3 * 300 * 25 * 2 * 4
        figures["times_smaller"] = figures["release_bytes"] / size
        begun = time.perf_counter()
        store = SkeletonStore.open(path)
        figures["open_seconds"] = time.perf_counter() - begun
        order = np.random.default_rng(0).permutation(len(store))
        peaks = []
        begun = time.perf_counter()
        for number, start in enumerate(range(0, len(order), BATCH)):
            batch = [store[int(place)] for place in order[start : start + BATCH]]
            assert len(batch)
            if number == 20:
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        figures["epoch_clips_per_second"] = len(order) / (time.perf_counter() - begun)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        figures["memory_growth_over_the_epoch_kb"] = peaks[1] - peaks[0]
    print("| figure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:,.4g} |" if isinstance(value, float) else f"| {name} | {value:,} |")
    arguments.output.write_text(json.dumps(figures | run_record(started), indent=2) + "\n")


if __name__ == "__main__":
    main()
