"""Speed of detection metrics, compared with PKU-MMD's official script on the same proposals in the same run.

    python benchmarks/detection.py LABELS.zip [--reference .reference/FoundSkelModel] [--videos 1076]

LABELS.zip holds the original ground truth of PKU-MMD I, a text file per video. Each video gets fifty proposals: true
actions with randomly shifted ends and random scores. Both implementations compute F1, AP and both mean APs at one
threshold, from lists in memory, and must agree.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np

from usdrl_hub.metrics.detection import detection_metrics
from usdrl_hub.records import run_record

THETA, PROPOSALS, CLASSES = 0.5, 50, 51


def ground_truth(path: Path, videos: int) -> np.ndarray:
    """Rows of video, class, start and end."""
    rows = []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".txt"))[:videos]
        for video, name in enumerate(names):
            for line in archive.read(name).decode("ascii").split("\n"):
                if line.strip():
                    label, start, end = (int(field) for field in line.split(",")[:3])
                    rows.append((video, label, min(start, end), max(start, end)))
    return np.array(rows, dtype=np.float64)


def make_proposals(truth: np.ndarray, videos: int) -> np.ndarray:
    """Rows of video, class, start, end and score; half of the classes are wrong."""
    rng = np.random.default_rng(0)
    rows = []
    for video in range(videos):
        actions = truth[truth[:, 0] == video]
        drawn = actions[rng.integers(0, len(actions), PROPOSALS)].copy()
        wrong = rng.random(PROPOSALS) < 0.5
        drawn[wrong, 1] = rng.integers(1, CLASSES + 1, wrong.sum())
        drawn[:, 2:] += rng.integers(-20, 21, (PROPOSALS, 2))
        drawn[:, 3] = np.maximum(drawn[:, 3], drawn[:, 2] + 1)
        rows.append(np.c_[drawn, rng.random(PROPOSALS)])
    return np.concatenate(rows)


def official(script: Path, proposals: np.ndarray, truth: np.ndarray, videos: int) -> dict[str, float]:
    """The official script's metrics, combined as in its `process`."""
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("official", None))
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(script.read_text(), str(script), "exec"), module.__dict__)
    found = [[row[1], row[2], row[3], row[4], int(row[0])] for row in proposals.tolist()]
    actions = [[row[1], row[2], row[3], 1.0, int(row[0])] for row in truth.tolist()]

    def by(rows, place, groups):
        lists = {group: [] for group in groups}
        for row in rows:
            lists[int(row[place])].append(row)
        return list(lists.values())

    kinds, films = range(1, CLASSES + 1), range(videos)
    ordered = sum(by(found, 0, kinds), []), sum(by(actions, 0, kinds), [])
    classes = zip(by(found, 0, kinds), by(actions, 0, kinds), strict=True)
    filmed = zip(by(found, 4, films), by(actions, 4, films), strict=True)
    return {
        f"F1@{THETA}": module.f1(ordered[0], THETA, ordered[1]),
        f"AP@{THETA}": module.ap(list(ordered[0]), THETA, ordered[1]),
        f"mAP_action@{THETA}": sum(module.ap(a, THETA, b) for a, b in classes) / CLASSES,
        f"mAP_video@{THETA}": sum(module.ap(a, THETA, b) for a, b in filmed) / videos,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--reference", type=Path, default=Path(".reference/FoundSkelModel"))
    parser.add_argument("--videos", type=int, default=1076)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    truth = ground_truth(arguments.labels, arguments.videos)
    proposals = make_proposals(truth, arguments.videos)
    detection_metrics(proposals, truth, CLASSES, arguments.videos, [THETA])
    start = time.perf_counter()
    ours = detection_metrics(proposals, truth, CLASSES, arguments.videos, [THETA])
    seconds = {"ours": time.perf_counter() - start}
    script = arguments.reference / "scripts" / "cal_mAP.py"
    if script.is_file():
        start = time.perf_counter()
        theirs = official(script, proposals, truth, arguments.videos)
        seconds["official"] = time.perf_counter() - start
        off = max(abs(ours[name] - value) for name, value in theirs.items())
        print(f"largest difference {off:.1e}; {seconds['official'] / seconds['ours']:.0f} times faster")
    print(f"{len(truth)} true actions, {len(proposals)} proposals: {seconds}")
    record = {"seconds": seconds, "true_actions": len(truth), "proposals": len(proposals), "metrics": ours}
    if "official" in seconds:
        record |= {"ratio": seconds["official"] / seconds["ours"], "largest_difference": off}
    record |= {key: value for key, value in run_record(started).items() if key != "command"}
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
