"""`usdrl count`: repetitions in recordings of MSRC-12, cut at random to hold one to nine, and in joined clips.

    python benchmarks/counting.py measure --data DATA
    python benchmarks/counting.py table [benchmarks/README.md]

DATA holds msrc12.npz and ui_prmd_vicon.npz (MSRC-12 cannot be part of this repository). MSRC-12 marks one frame of
each gesture. A cut begins and ends in the middle third between two marks, or as far before the first and after the
last mark, so it holds one to nine whole gestures. People did each gesture about ten times, and recordings have up to
16 marks; ten of "wind it up" have 20 to 31, one for each turn of the arm. Figures are given with and without those
ten. People with odd numbers are those on which the method and its constants were chosen; people with even numbers were
held out. UI-PRMD has single repetitions only: one to nine of one person and movement are joined end
to end, which makes a jump at each seam.

`median` answers the median count of the odd people, `autocorrelation` divides the duration by the lag of the highest
autocorrelation of the joints (an earlier peak wins with 80 % of its height; chosen on the odd people). `embeddings` is
the method of `usdrl count` on frame embeddings of usdrl/mocap-tiny, odd people only. Figures are mean absolute errors,
and the share of right counts. Measured figures are kept: delete those of a method that has changed.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mocap import Record

from usdrl_hub import SkeletonSequence, extract_frame_embeddings, open_data
from usdrl_hub.facts.checkpoints import ENCODER
from usdrl_hub.inference.counting import repetitions_of, repetitions_of_features
from usdrl_hub.records import redact_paths, run_record

OUTPUT = Path(__file__).with_name("counting.json")
MOST = 9
# With as many marks in a whole recording, every turn of a gesture is marked.
TURNS = 18
TITLES = {
    "msrc12": "MSRC-12, people held out",
    "msrc12 gestures": "the same, one mark a gesture",
    "msrc12 chosen on": "MSRC-12, people of the choice",
    "msrc12 chosen on gestures": "the same, one mark a gesture",
    "ui_prmd": "UI-PRMD, single repetitions joined",
}
METHODS = {
    "median": "constant median",
    "autocorrelation": "autocorrelation of joints",
    "embeddings": "the same on frame embeddings",
    "count": "`usdrl count`",
}


def msrc12(path: Path) -> tuple[list[SkeletonSequence], np.ndarray, np.ndarray, np.ndarray]:
    """A cut of each recording, named by its gesture, its count, its person, and whether each turn is marked."""
    data = open_data(path)
    with np.load(path) as file:
        raw = {key: file[key] for key in ("data", "offsets", "events")}
    events = raw["events"]
    subjects, random = data.column("subjects"), np.random.default_rng(0)
    cuts, counts, people, turns = [], [], [], []
    for number, person in enumerate(np.asarray(subjects)):
        marks = np.unique(events[events[:, 0] == number, 1])
        frames = int(data.lengths[number])
        count = int(random.integers(1, MOST + 1))
        if len(marks) < max(count, 2):
            continue
        first, gap = int(random.integers(0, len(marks) - count + 1)), int(np.median(np.diff(marks)))
        edges = [max(marks[0] - gap, 0), *marks, min(marks[-1] + gap, frames)]
        start, end = (
            int(edges[place] + (edges[place + 1] - edges[place]) * random.uniform(1 / 3, 2 / 3))
            for place in (first, first + count)
        )
        keypoints = raw["data"][raw["offsets"][number] :][start:end, :, :, :3]
        name = data.class_names[int(data.column("labels")[number])]
        if not keypoints.any():
            continue
        cuts.append(SkeletonSequence(keypoints.astype(np.float32), layout=data.layout, fps=30.0, name=name))
        counts.append(count)
        people.append(int(person))
        turns.append(len(marks) >= TURNS)
    return cuts, np.array(counts), np.array(people), np.array(turns)


def ui_prmd(path: Path) -> tuple[list[SkeletonSequence], np.ndarray]:
    """Single repetitions of a person and movement, joined end to end, and their counts."""
    data, random = open_data(path), np.random.default_rng(0)
    labels, subjects, correct = (np.asarray(data.column(key)) for key in ("labels", "subjects", "correct"))
    joined, counts = [], []
    for person in np.unique(subjects):
        for movement in np.unique(labels):
            mine = np.flatnonzero((subjects == person) & (labels == movement) & correct.astype(bool))
            if len(mine) < MOST:
                continue
            count = int(random.integers(1, MOST + 1))
            clips = [data[int(number)] for number in random.choice(mine, count, replace=False)]
            keypoints = np.concatenate([clip.keypoints for clip in clips])
            joined.append(SkeletonSequence(keypoints, layout=clips[0].layout, fps=clips[0].fps))
            counts.append(count)
    return joined, np.array(counts)


def autocorrelated(sequence: SkeletonSequence) -> int:
    """The duration divided by the lag of the highest autocorrelation of the joints around their middle."""
    joints = sequence.keypoints[:, 0].astype(np.float64)
    rows = (joints - joints.mean(1, keepdims=True)).reshape(len(joints), -1)
    rows -= rows.mean(0)
    alike = np.fft.irfft(np.square(np.abs(np.fft.rfft(rows, 2 * len(rows), axis=0))).sum(1))[: int(0.75 * len(rows))]
    peaks = 1 + np.flatnonzero((alike[1:-1] > alike[:-2]) & (alike[1:-1] >= alike[2:]))
    peaks = peaks[(peaks >= 13) & (alike[peaks] > 0.05 * alike[0])]
    if not len(peaks):
        return 1
    return max(round(len(rows) / int(peaks[alike[peaks] >= 0.8 * alike[peaks].max()][0])), 1)


def by_embeddings(cuts: list[SkeletonSequence]) -> list[int]:
    """The method of `usdrl count` on frame embeddings."""
    found = extract_frame_embeddings(cuts, ENCODER)
    return [repetitions_of_features(rows, 30.0).count for rows in found]


def measure(data: Path, record: Record) -> None:
    """Count all recordings with all methods."""
    started = time.monotonic()
    cuts, counts, people, turns = msrc12(data / "msrc12.npz")
    chosen_on = people % 2 == 1
    usual = float(np.median(counts[chosen_on]))
    joined, joined_counts = ui_prmd(data / "ui_prmd_vicon.npz")
    kept = {
        "msrc12 chosen on": chosen_on,
        "msrc12 chosen on gestures": chosen_on & ~turns,
        "msrc12": ~chosen_on,
        "msrc12 gestures": ~chosen_on & ~turns,
    }
    parts = {name: ([cuts[number] for number in np.flatnonzero(mask)], counts[mask]) for name, mask in kept.items()}
    parts["ui_prmd"] = joined, joined_counts
    methods: dict[str, Callable[[list[SkeletonSequence]], list[float]]] = {
        "median": lambda part: [usual] * len(part),
        "autocorrelation": lambda part: [autocorrelated(sequence) for sequence in part],
        "embeddings": lambda part: list(by_embeddings(part)),
        "count": lambda part: [repetitions_of(sequence).count for sequence in part],
    }
    for name, (part, truth) in parts.items():
        for method, answer in methods.items():
            if record.has("scores", name, method) or (method == "embeddings" and name != "msrc12 chosen on"):
                continue
            errors = np.abs(np.array(answer(part)) - truth)
            scores: dict[str, Any] = {"mae": float(errors.mean()), "right": float((errors == 0).mean())}
            if name.startswith("msrc12"):
                names = np.array([sequence.name for sequence in part])
                scores["classes"] = {kind: float(errors[names == kind].mean()) for kind in np.unique(names)}
            record.put("scores", name, method, value=scores)
            print(f"{name} {method}: {scores['mae']:.3f}, {100 * scores['right']:.1f} % right", flush=True)
        record.put("recordings", name, value=len(part))
    record.put("run", value=redact_paths(run_record(started)))


def table(content: dict) -> str:
    """Errors by recordings and method."""
    lines = [f"| recordings | {' | '.join(METHODS.values())} |", "|" + "---|" * (1 + len(METHODS))]
    for name, title in TITLES.items():
        found = content["scores"][name]
        cells = [
            f"{found[method]['mae']:.2f} ({100 * found[method]['right']:.0f} %)" if method in found else ""
            for method in METHODS
        ]
        lines.append(f"| {title} ({content['recordings'][name]}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--data", type=Path, required=True)
    writing = commands.add_parser("table")
    writing.add_argument("document", type=Path, nargs="?")
    options = parser.parse_args()
    record = Record(OUTPUT)
    if options.command == "measure":
        measure(options.data, record)
        return
    text = table(record.content)
    print(text)
    if options.document is not None:
        whole = options.document.read_text()
        head, found, rest = whole.partition("\n" + text.splitlines()[0] + "\n")
        if not found:
            raise SystemExit(f"{options.document}: no table begins with '{text.splitlines()[0]}'")
        options.document.write_text(f"{head}\n{text}\n\n{rest.partition(chr(10) * 2)[2]}")


if __name__ == "__main__":
    main()
