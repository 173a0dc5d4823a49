"""Search for movements that were planted in an archive, by the shipped encoders and by the joints themselves.

    python benchmarks/planted.py --data DATA [--output FILE]

200 clips of UI-PRMD (people with even numbers, who are in no shipped encoder's training data) are blended over ten
frames into ten hours of MSRC-12 and Bandai motion, all as kinect20 at 30 frames per second with the same noise. Each
clip is a query; precision and recall of as many hits as there are other clips of its movement, by each encoder, random
weights, and the normalised joints. A hit is right if half of it lies in a planted clip of the query's movement.

Twice: with bodies of the planted clips as they are, which a search may know by their proportions (the mean pose alone
finds them), and with the bone lengths of the recordings they are planted in, as if its person moved.

DATA holds the open sets as .npz files (they cannot be part of this repository). Methods in the output file are kept:
delete an encoder's figures there when the encoder changes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usdrl_hub import Engine, SkeletonSequence, USDRLModel, get_layout, open_data
from usdrl_hub.files import new_file
from usdrl_hub.records import redact_paths, run_record
from usdrl_hub.search.build import cut, embed_windows
from usdrl_hub.search.hits import Hit, merged
from usdrl_hub.search.vectors import NearestVectors, unit_vectors

ROOT = Path(__file__).parent.parent
ENCODERS = ("usdrl/mocap-tiny", "usdrl/tiny-uiprmd", "checkpoints/usdrl--mocap-base")
QUERIES, HOURS, FPS, BLEND, NOISE = 200, 10.0, 30.0, 10, 0.01
WINDOW, STRIDE, BATCH = 2.0, 0.5, 64
BODIES = ("their own", "of the recording")
# First frame, end, movement, and number of the clip that is planted there.
Mark = tuple[int, int, int, int]
# Embeddings of windows, not yet unit vectors.
Embed = Callable[[list[SkeletonSequence]], np.ndarray]


@dataclass
class Archive:
    """Recordings with planted clips.

    Attributes:
        recordings: Them.
        queries: The clips.
        marks: Of each recording, what is planted in it.
    """

    recordings: list[SkeletonSequence]
    queries: list[SkeletonSequence]
    marks: list[list[Mark]]


def as_kinect(sequence: SkeletonSequence, random: np.random.Generator) -> SkeletonSequence:
    """One person as kinect20 at 30 frames per second with noise."""
    one = next(sequence.each_person()).to_layout("kinect20")
    keypoints = one.keypoints
    rate = one.fps or FPS
    frames = np.minimum(
        (np.arange(max(int(len(keypoints) * FPS / rate), 1)) * rate / FPS).astype(int), len(keypoints) - 1
    )
    keypoints = keypoints[frames]
    noise = random.standard_normal(keypoints.shape, dtype=np.float32) * np.float32(NOISE)
    seen = keypoints.any(-1, keepdims=True)
    return replace(one, keypoints=np.where(seen, keypoints + noise, 0), fps=FPS, events=None, label=None)


def planted_archive(data: Path, hours: float, bodies: str) -> Archive:
    """An archive in which the planted clips have their own bodies or those of the recordings."""
    random = np.random.default_rng(0)
    prmd = open_data(data / "ui_prmd_vicon.npz")
    people, right = np.asarray(prmd.column("subjects")), np.asarray(prmd.column("correct")).astype(bool)
    chosen = np.flatnonzero((people % 2 == 0) & right)
    # Fewer in a short archive, where they would have no room.
    chosen = np.sort(random.choice(chosen, min(QUERIES, max(int(QUERIES * hours / 2), 10)), replace=False))
    queries = [replace(as_kinect(prmd[int(number)], random), label=prmd[int(number)].label) for number in chosen]
    recordings, frames = [], 0
    sources = [open_data(data / f"{name}.npz") for name in ("msrc12", "bandai_namco1", "bandai_namco2")]
    order = [(source, number) for source, data_set in enumerate(sources) for number in range(len(data_set))]
    for place in random.permutation(len(order)):
        source, number = order[place]
        try:
            recordings.append(as_kinect(sources[source][number], random))
        except ValueError:
            continue
        frames += recordings[-1].num_frames
        if frames >= hours * 3600 * FPS:
            break
    marks: list[list[Mark]] = [[] for _ in recordings]
    lengths = np.array([recording.num_frames for recording in recordings])
    for number, query in enumerate(queries):
        while True:
            place = int(random.choice(len(recordings), p=lengths / lengths.sum()))
            room = lengths[place] - query.num_frames
            if room <= 2 * BLEND:
                continue
            start = int(random.integers(BLEND, room - BLEND))
            end = start + query.num_frames
            if all(end + BLEND <= a or start - BLEND >= b for a, b, *_ in marks[place]):
                break
        clip = query if bodies == BODIES[0] else with_bones_of(query, recordings[place])
        recordings[place] = blended(recordings[place], clip, start)
        marks[place].append((start, end, query.label or 0, number))
    named = [replace(recording, name=f"r{number:04d}") for number, recording in enumerate(recordings)]
    return Archive(named, queries, marks)


def with_bones_of(clip: SkeletonSequence, other: SkeletonSequence) -> SkeletonSequence:
    """A kinect20 clip with the bone lengths of another recording (medians)."""
    parents = np.array(get_layout("kinect20").parents)

    def lengths(frames: np.ndarray) -> np.ndarray:
        return np.median(np.linalg.norm(frames - frames[:, :, parents], axis=-1), axis=(0, 1))

    points = clip.keypoints
    scale = (lengths(other.keypoints) / np.maximum(lengths(points), 1e-6))[:, None].astype(np.float32)
    bones, result = (points - points[:, :, parents]) * scale, points.copy()
    depth, above = np.zeros(len(parents), int), np.arange(len(parents))
    while (moved := above != parents[above]).any():
        depth, above = depth + moved, parents[above]
    for joint in np.argsort(depth):
        if depth[joint]:
            result[:, :, joint] = result[:, :, parents[joint]] + bones[:, :, joint]
    return replace(clip, keypoints=result)


def blended(recording: SkeletonSequence, clip: SkeletonSequence, start: int) -> SkeletonSequence:
    """A recording with a clip in place of some frames, where its body stands and looks, blended over ten frames."""
    keypoints = recording.keypoints.copy()
    end = start + clip.num_frames
    points = clip.keypoints.copy()
    # Turned about the vertical and moved so that the hips of the first frames coincide.
    hips = [recording_hips(keypoints[start]), recording_hips(points[0])]
    # A row vector times this matrix turns it back by the angle.
    angle = hips[1][1] - hips[0][1]
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]], np.float32)
    points = (points - hips[1][0]) @ turn + hips[0][0]
    before, after = keypoints[start : start + BLEND].copy(), keypoints[end - BLEND : end].copy()
    keypoints[start:end] = points
    share = (np.arange(1, BLEND + 1, dtype=np.float32) / (BLEND + 1))[:, None, None, None]
    keypoints[start : start + BLEND] = before * (1 - share) + points[:BLEND] * share
    keypoints[end - BLEND : end] = after * share + points[-BLEND:] * (1 - share)
    return replace(recording, keypoints=keypoints)


def recording_hips(frame: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle of the hips of a kinect20 body, and the direction from the left to the right one about the vertical."""
    base, left, right = frame[0, 0], frame[0, 12], frame[0, 16]
    across = right - left
    return base, float(np.arctan2(across[2], across[0]))


def windows_of(engine: Engine, archive: Archive) -> tuple[list[SkeletonSequence], list[tuple[int, int, int]]]:
    """Prepared windows, and recording, first frame and end of each."""
    windows, table = [], []
    for number, recording in enumerate(archive.recordings):
        prepared = engine.extractor.persons.kept(engine.extractor.prepare(recording))
        size, found = cut(prepared, WINDOW, STRIDE)
        for start, window in found:
            windows.append(window)
            table.append((number, start, min(start + size, prepared.num_frames)))
    return windows, table


def embeddings(
    engine: Engine, embed: Embed, archives: dict[str, Archive]
) -> Iterator[tuple[str, np.ndarray, list[tuple[int, int, int]]]]:
    """Bodies, embeddings and table of each archive's windows; windows that do not differ are embedded once."""
    before: list[SkeletonSequence] = []
    rows = np.empty(0)
    for bodies, archive in archives.items():
        windows, table = windows_of(engine, archive)
        if not before:
            rows = embed(windows)
        else:
            pairs = enumerate(zip(windows, before, strict=True))
            changed = [number for number, (one, other) in pairs if not np.array_equal(one.keypoints, other.keypoints)]
            rows = rows.copy()
            rows[changed] = embed([windows[number] for number in changed])
        before = windows
        yield bodies, rows, table


def found_by(
    engine: Engine, embed: Embed, archive: Archive, rows: np.ndarray, table: list[tuple[int, int, int]], centred: bool
) -> tuple[float, float]:
    """Precision and recall of hits."""
    mean = rows.mean(0) if centred else np.zeros(rows.shape[1], np.float32)
    stored = unit_vectors(rows - mean).astype(np.float16)
    near = NearestVectors(lambda n: stored[n].astype(np.float32), len(stored), stored.shape[1])
    per_movement = np.bincount([query.label or 0 for query in archive.queries])
    scores = []
    for number, query in enumerate(archive.queries):
        label = query.label or 0
        wanted = int(per_movement[label]) - 1
        if not wanted:
            continue
        # As `MotionIndex.prepared` does.
        sequence = engine.extractor.prepare(query)
        size, windows = cut(sequence, WINDOW, STRIDE)
        clips = [window for _, window in windows] if sequence.num_frames > 1.5 * size else [sequence]
        similar, numbers = near.search(unit_vectors(embed(clips) - mean), 20 * (wanted + 1))
        best: dict[int, float] = {}
        for score, window in zip(similar.ravel().tolist(), numbers.ravel().tolist(), strict=True):
            best[window] = max(score, best.get(window, -1.0))
        ordered = sorted(best, key=lambda window: -best[window])
        hits = hits_of([best[window] for window in ordered], ordered, table, 2 * wanted + 4, query.num_frames / FPS)
        # The query is in the archive, too: that it is found is no merit.
        hits = [hit for hit in hits if not is_own(hit, archive.marks, number)][:wanted]
        right, recalled = judged(hits, archive.marks, label, number)
        scores.append((right / max(len(hits), 1), recalled / wanted))
    precision, recall = np.mean(scores, axis=0)
    return round(float(precision), 3), round(float(recall), 3)


def planted(data: Path, hours: float, output: Path) -> None:
    """Write precision and recall of hits of planted movements, by method and bodies."""
    began = time.monotonic()
    archives = {bodies: planted_archive(data, hours, bodies) for bodies in BODIES}
    archive = archives[BODIES[0]]
    frames = sum(recording.num_frames for recording in archive.recordings)
    share = sum(end - start for recording in archive.marks for start, end, *_ in recording) / frames
    facts = {"hours": round(frames / FPS / 3600, 2), "share_planted": round(share, 4), "queries": len(archive.queries)}
    facts |= {"window": WINDOW, "stride": STRIDE, "noise_metres": NOISE}
    results: dict[str, Any] = json.loads(output.read_text())["methods"] if output.exists() else {}
    for name, embed, engine, centred in methods():
        if name in results:
            continue
        found: dict[str, Any] = {}
        for bodies, rows, table in embeddings(engine, embed, archives):
            for center in (False, True) if centred else (False,):
                title = f"{name}, centred" if center else name
                precision, recall = found_by(engine, embed, archives[bodies], rows, table, center)
                found.setdefault(title, {})[bodies] = {"precision": precision, "recall": recall}
                print(title, bodies, found[title][bodies], f"{len(rows)} windows", flush=True)
        results |= found
        with new_file(output) as partial:
            record = {**facts, "methods": results, "run": redact_paths(run_record(began))}
            partial.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def methods() -> Iterator[tuple[str, Embed, Engine, bool]]:
    """Name, embedding and engine of each, and whether it is also tried with the archive's mean taken away."""
    torch.manual_seed(0)
    first = Engine.load(ENCODERS[0], head=False, device="cpu")

    def clips(windows: list[SkeletonSequence], step: int) -> np.ndarray:
        """Normalised joints of every step-th frame."""
        parts = [windows[start : start + 1024] for start in range(0, len(windows), 1024)]
        return np.concatenate([first.extractor.clips(part)[:, ::step].numpy() for part in parts])

    def joints(windows: list[SkeletonSequence]) -> np.ndarray:
        return clips(windows, 4).reshape(len(windows), -1)

    def pose(windows: list[SkeletonSequence]) -> np.ndarray:
        return clips(windows, 4).mean(1).reshape(len(windows), -1)

    yield "normalised joints", joints, first, True
    yield "mean pose", pose, first, True
    random = Engine(USDRLModel(first.model.config).eval(), first.extractor)
    yield "random weights", lambda windows: embed_windows(random, windows, BATCH), random, False
    for name in ENCODERS:
        path = str(ROOT / name) if name.startswith("checkpoints/") else name
        if path != name and not Path(path).is_dir():
            continue
        engine = Engine.load(path, head=False, device="cpu")
        embed = lambda windows, engine=engine: embed_windows(engine, windows, BATCH)  # noqa: E731
        yield name.removeprefix("checkpoints/").replace("--", "/"), embed, engine, False


def hits_of(
    scores: list[float], numbers: list[int], table: list[tuple[int, int, int]], count: int, seconds: float
) -> list[Hit]:
    """Merge windows as a search does."""
    windows = []
    for score, number in zip(scores, numbers, strict=True):
        recording, start, end = table[number]
        windows.append(Hit(str(recording), Path("planted"), start, end, FPS, score, None, 1))
    return merged(windows, count, 1.5 * max(WINDOW, seconds))


def is_own(hit: Hit, marks: list[list[Mark]], query: int) -> bool:
    """Whether a hit lies in the clip that is the query itself."""
    return any(
        start < hit.end and hit.start < end and own == query for start, end, _, own in marks[int(hit.recording)]
    )


def judged(hits: list[Hit], marks: list[list[Mark]], label: int, query: int) -> tuple[int, int]:
    """Hits half of which lie in a planted clip of a movement, and how many of those clips are found."""
    right, found = 0, set()
    for hit in hits:
        for start, end, movement, number in marks[int(hit.recording)]:
            shared = min(end, hit.end) - max(start, hit.start)
            if movement == label and number != query and shared >= 0.5 * min(hit.end - hit.start, end - start):
                right += 1
                found.add(number)
                break
    return right, len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the open sets")
    parser.add_argument("--hours", type=float, default=HOURS, help="of motion")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    planted(arguments.data, arguments.hours, arguments.output)


if __name__ == "__main__":
    main()
