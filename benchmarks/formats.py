"""How fast motion-capture files are read: megabytes a second and times real time, on one core; and folders of files.

    python benchmarks/formats.py [--frames 6000] [--files 1000] [--workers 1 2 4] [--output benchmarks/formats.json]

The shipped deep squat is written again and again into one file of each kind; figures are medians over repetitions in
seconds of the processor, so that other programs on the machine count little. The folder holds as many BVH files of one
squat each, which `usdrl inspect` reads with each number of processes; its seconds are those of the clock, so the
machine has to be quiet. The facts of all files must be equal whatever the number.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import motion_capture  # noqa: E402
from usdrl_hub import get_layout, read_skeleton  # noqa: E402
from usdrl_hub.data.inspection import inspect_files  # noqa: E402
from usdrl_hub.records import run_record  # noqa: E402

REPETITIONS = 5
FPS = 120.0
# What each kind has to reach.
MEGABYTES_PER_SECOND, TIMES_REAL_TIME = 20, 50


def long_clip(layout: str, frames: int) -> np.ndarray:
    """The deep squat down and up again until there are so many frames, ``(frames, V, 3)``."""
    once = motion_capture.clip(layout)
    there_and_back = np.concatenate([once, once[::-1]])
    return np.tile(there_and_back, (-(-frames // len(there_and_back)), 1, 1))[:frames]


def write_files(folder: Path, frames: int) -> list[Path]:
    """A file of each kind."""
    write, tree = motion_capture.write, motion_capture.tree
    smpl22 = long_clip("smpl22", frames)
    names = [motion_capture.MOTIONBUILDER[name] for name in get_layout("smpl22").joint_names]
    markers, points = list(get_layout("ui-prmd39").joint_names), long_clip("ui-prmd39", frames) * 1000
    asf, amc = motion_capture.asf_amc(motion_capture.rigid(long_clip("cmu31", frames), tree("cmu31")))
    write(folder, "squat.asf", asf)
    return [
        write(folder, "squat.bvh", motion_capture.bvh(names, tree("smpl22"), smpl22 * 100, FPS, moving=False)),
        write(folder, "squat.amc", amc),
        write(folder, "squat.c3d", motion_capture.c3d(markers, points, FPS)),
        write(folder, "squat.trc", motion_capture.trc(markers, points, FPS)),
        write(folder, "squat.mvnx", motion_capture.mvnx(long_clip("xsens23", frames), int(FPS))),
        write(folder, "squat.npz", motion_capture.amass(smpl22, FPS)),
    ]


def measure(path: Path) -> dict[str, float | str]:
    """Figures of one file."""
    times = []
    for _ in range(REPETITIONS + 1):
        start = time.process_time()
        sequence = read_skeleton(path)
        times.append(time.process_time() - start)
    # The first round warms up.
    seconds = statistics.median(times[1:])
    return {
        "kind": path.suffix,
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "frames": sequence.num_frames,
        "megabytes_per_second": round(path.stat().st_size / 1e6 / seconds, 1),
        "times_real_time": round(sequence.num_frames / sequence.fps / seconds, 1),
    }


def measure_folder(files: int, workers: list[int]) -> dict[str, object]:
    """Seconds in which a folder's files are inspected by so many processes, and whether their facts are equal."""
    tree, smpl22 = motion_capture.tree("smpl22"), motion_capture.clip("smpl22") * 100
    names = [motion_capture.MOTIONBUILDER[name] for name in get_layout("smpl22").joint_names]
    seconds: dict[str, float] = {}
    facts = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = motion_capture.bvh(names, tree, smpl22, FPS, moving=False)
        paths = [motion_capture.write(folder, f"squat_{number:05d}.bvh", text) for number in range(files)]
        for count in workers:
            start = time.perf_counter()
            facts.append([found.__dict__ for found in inspect_files(paths, workers=count)])
            seconds[str(count)] = round(time.perf_counter() - start, 2)
    return {"files": files, "seconds_by_workers": seconds, "equal": all(found == facts[0] for found in facts)}


def main() -> None:
    """Measure, print a table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6000)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        table = [measure(path) for path in write_files(Path(name), arguments.frames)]
    print("| kind | file, MB | MB/s | times real time |\n|---|---|---|---|")
    for row in table:
        print(f"| {row['kind']} | {row['megabytes']} | {row['megabytes_per_second']} | {row['times_real_time']:.0f} |")
    folder = measure_folder(arguments.files, arguments.workers)
    print(f"folder of {folder['files']} files, seconds by processes: {folder['seconds_by_workers']}")
    if not folder["equal"]:
        sys.exit("the facts differ with the number of processes")
    record = {
        "table": table,
        "folder": folder,
        "wanted": {"megabytes_per_second": MEGABYTES_PER_SECOND, "times_real_time": TIMES_REAL_TIME},
        "threads": 1,
        "cpus": os.cpu_count(),
        **run_record(started),
    }
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
