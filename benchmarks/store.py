"""A store of the size of NTU-120: its size beside the release's array, and beside other stores of the same clips.

    python benchmarks/store.py [--clips 114480] [--output benchmarks/store.json]
    python benchmarks/store.py --beside datasets lance litdata [--clips 20000]

The second command needs `pip install datasets pylance litdata`, or those of them that it names; it adds to the output
and measures nothing else. Clips are generated (lengths as in NTU, a quarter with two people) in a temporary folder,
which needs about 17 kB per clip and store.

Beside each other store, ours is measured in turns with it, so that what else the machine does slows both: batches of
256 clips, read one after the other (`sequential`) or in random order (`shuffled`), as float32 arrays of all frames
with their label; medians of seven. All hold int16 numbers with one scale per clip. `resumed`: whether an epoch that
is stopped in its middle goes on with the clips that were left, and the seconds from opening the store to the first of
them. Everything was just written, so reading measures the processor and not the disk.
"""

import argparse
import itertools
import json
import logging
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from data import make_sequences, medians

from usdrl_hub import SkeletonSequence, SkeletonStore
from usdrl_hub.data.store_writer import StoreWriter
from usdrl_hub.files import new_file
from usdrl_hub.records import redact_paths, run_record

BATCH = 256
PART = 2000
# Batches of a measurement, and measurements of which the median counts.
BATCHES, REPETITIONS = 8, 7
SEED = 0
Batches = Iterator[list[tuple[np.ndarray, int]]]


@cache
def drawn() -> list[np.ndarray]:
    """Generated clips ``(T, M, 25, 3)``, of which all others are copies."""
    # A second person who is never there is not stored, as a reader would not return one.
    return [body if body[:, 1].any() else body[:, :1] for body in make_sequences(PART)]


def label_of(number: int) -> int:
    return number % 120


def quantised(number: int) -> dict[str, Any]:
    """A clip as the other stores get it: the numbers of ours."""
    clip = drawn()[number % PART]
    scale = float(np.abs(clip).max()) / 32767
    frames = np.round(clip / scale).astype(np.int16)
    return {"frames": frames, "scale": scale, "persons": clip.shape[1], "label": label_of(number)}


def restored(frames: np.ndarray, scale: float, persons: int) -> np.ndarray:
    return (frames * np.float32(scale)).reshape(-1, persons, 25, 3)


def shuffled(count: int) -> np.ndarray:
    """The order of an epoch, by its seed alone."""
    return np.random.default_rng(SEED).permutation(count)


class _Ours:
    """`SkeletonStore`."""

    @staticmethod
    def write(path: Path, count: int) -> None:
        writer = StoreWriter(path, {}, "int16")
        for start in range(0, count, PART):
            sequences = [
                SkeletonSequence(drawn()[n - start], name=f"clip{n:07d}", label=label_of(n), subject=n % 106)
                for n in range(start, min(start + PART, count))
            ]
            writer.write_part(sequences, {}, [str(start)])
        writer.finish([])

    def __init__(self, path: Path):
        self.store = SkeletonStore.open(path)

    def sequential(self) -> Batches:
        sequences = iter(self.store)
        while batch := list(itertools.islice(sequences, BATCH)):
            yield [(sequence.keypoints, sequence.label or 0) for sequence in batch]

    def shuffled(self, first: int = 0) -> Batches:
        order = shuffled(len(self.store)).tolist()
        for start in range(first * BATCH, len(order), BATCH):
            sequences = (self.store[number] for number in order[start : start + BATCH])
            yield [(sequence.keypoints, sequence.label or 0) for sequence in sequences]


class _Datasets:
    """An Arrow file of `datasets`, read in its fastest format."""

    @staticmethod
    def write(path: Path, count: int) -> None:
        import datasets

        datasets.disable_progress_bars()
        number = {"scale": datasets.Value("float64"), "persons": datasets.Value("int8")}
        features = {"frames": datasets.List(datasets.Value("int16")), **number, "label": datasets.Value("int16")}

        def clips() -> Iterator[dict[str, Any]]:
            for number in range(count):
                clip = quantised(number)
                yield clip | {"frames": clip["frames"].ravel()}

        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = datasets.Dataset.from_generator(clips, datasets.Features(features), cache_dir=folder)
            made.save_to_disk(path)

    def __init__(self, path: Path):
        import datasets

        self.rows = datasets.load_from_disk(str(path)).with_format("arrow")

    def sequential(self) -> Batches:
        return map(_of_table, self.rows.iter(BATCH))

    def shuffled(self, first: int = 0) -> Batches:
        order = shuffled(len(self.rows))
        for start in range(first * BATCH, len(order), BATCH):
            yield _of_table(self.rows[order[start : start + BATCH].tolist()])


class _Lance:
    """A data set of Lance."""

    @staticmethod
    def write(path: Path, count: int) -> None:
        import lance
        import pyarrow

        schema = {"frames": pyarrow.list_(pyarrow.int16()), "scale": pyarrow.float64()}
        schema |= {"persons": pyarrow.int8(), "label": pyarrow.int16()}

        def parts() -> Iterator[Any]:
            for start in range(0, count, PART):
                clips = [quantised(number) for number in range(start, min(start + PART, count))]
                ends = np.cumsum([0, *(clip["frames"].size for clip in clips)]).astype(np.int32)
                numbers = np.concatenate([clip["frames"].ravel() for clip in clips])
                columns = {
                    name: pyarrow.array([clip[name] for clip in clips], schema[name]) for name in list(schema)[1:]
                }
                frames = pyarrow.ListArray.from_arrays(ends, numbers)
                yield pyarrow.record_batch({"frames": frames, **columns}, schema=pyarrow.schema(schema))

        lance.write_dataset(parts(), str(path), schema=pyarrow.schema(schema))

    def __init__(self, path: Path):
        import lance

        self.rows = lance.dataset(str(path))

    def sequential(self) -> Batches:
        return map(_of_table, self.rows.to_batches(batch_size=BATCH))

    def shuffled(self, first: int = 0) -> Batches:
        order = shuffled(self.rows.count_rows())
        for start in range(first * BATCH, len(order), BATCH):
            yield _of_table(self.rows.take(order[start : start + BATCH].tolist()))


def _of_table(table: Any) -> list[tuple[np.ndarray, int]]:
    """Clips of a table or a batch of Arrow, without a copy of the numbers."""
    frames = table["frames"]
    frames = frames.combine_chunks() if hasattr(frames, "combine_chunks") else frames
    ends, numbers = frames.offsets.to_numpy(), frames.values.to_numpy()
    columns = [table[name].to_numpy() for name in ("scale", "persons", "label")]
    rows = zip(ends[:-1].tolist(), ends[1:].tolist(), *(column.tolist() for column in columns), strict=True)
    return [(restored(numbers[start:end], scale, persons), label) for start, end, scale, persons, label in rows]


class _Litdata:
    """Chunks of litdata, which shuffles the chunks and the clips in each, not all clips."""

    @staticmethod
    def write(path: Path, count: int) -> None:
        import litdata

        numbers = list(range(count))
        litdata.optimize(quantised, numbers, str(path), chunk_bytes="64MB", num_workers=1, verbose=False)

    def __init__(self, path: Path):
        self.path = str(path)

    def _loader(self, is_shuffled: bool) -> Any:
        import litdata

        data = litdata.StreamingDataset(self.path, shuffle=is_shuffled, drop_last=False, seed=SEED)
        return litdata.StreamingDataLoader(data, batch_size=BATCH, num_workers=0, collate_fn=_of_dicts)

    def sequential(self) -> Batches:
        return iter(self._loader(False))

    def shuffled(self, first: int = 0) -> Batches:
        loader = self._loader(True)
        if first:
            # As after a kill: the state is what a checkpoint holds.
            loader.load_state_dict(self.state)
        for number, batch in enumerate(loader, first):
            if number + 1 == len(loader) // 2:
                self.state = loader.state_dict()
            yield batch


def _of_dicts(clips: list[dict[str, Any]]) -> list[tuple[np.ndarray, int]]:
    return [(restored(clip["frames"], clip["scale"], clip["persons"]), clip["label"]) for clip in clips]


STORES: dict[str, Any] = {"datasets": _Datasets, "lance": _Lance, "litdata": _Litdata}


def bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def endless(batches: Callable[[], Batches]) -> Callable[[], int]:
    """A function that takes some batches, epoch after epoch."""
    running = itertools.chain.from_iterable(batches() for _ in itertools.count())
    return lambda: sum(len(batch) for batch in itertools.islice(running, BATCHES))


def resumed(kind: Any, path: Path) -> tuple[bool, float]:
    """Whether an epoch goes on in its middle with what was left of it, and the seconds until its first batch."""
    store = kind(path)
    epoch = [[label for _, label in batch] for batch in store.shuffled()]
    middle = len(epoch) // 2
    began = time.perf_counter()
    again = kind(path)
    if hasattr(store, "state"):
        again.state = store.state
    rest = again.shuffled(middle)
    found = [[label for _, label in next(rest)]]
    seconds = time.perf_counter() - began
    found += [[label for _, label in batch] for batch in rest]
    return found == epoch[middle:], seconds


def written(kind: Any, path: Path, count: int) -> dict[str, float]:
    began = time.perf_counter()
    kind.write(path, count)
    return {"write_clips_per_second": count / (time.perf_counter() - began), "bytes_a_clip": bytes_of(path) / count}


def beside(name: str, count: int, folder: Path) -> dict[str, Any]:
    """Figures of another store and of ours, measured in turns."""
    kinds = {"ours": _Ours, name: STORES[name]}
    figures: dict[str, Any] = {}
    for who, kind in kinds.items():
        figures[who] = written(kind, folder / who, count)
    stores = {who: kind(folder / who) for who, kind in kinds.items()}
    first = {who: next(iter(store.sequential())) for who, store in stores.items()}
    for (one, label), (other, other_label) in zip(*first.values(), strict=True):
        assert label == other_label
        np.testing.assert_allclose(one, other, atol=1e-3)
    for way in ("shuffled", "sequential"):
        seconds = medians(REPETITIONS, **{who: endless(getattr(store, way)) for who, store in stores.items()})
        for who, median in seconds.items():
            figures[who][f"{way}_clips_per_second"] = BATCH * BATCHES / median
    for who, kind in kinds.items():
        figures[who]["resumed"], figures[who]["resume_seconds"] = resumed(kind, folder / who)
    for who in kinds:
        shutil.rmtree(folder / who)
    return figures


def measured(count: int) -> dict[str, float | int]:
    """Size, opening and a shuffled epoch of our store."""
    figures: dict[str, float | int] = {"clips": count}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        figures["write_clips_per_second"] = written(_Ours, path, count)["write_clips_per_second"]
        figures["bytes"] = bytes_of(path)
        figures["release_bytes"] = count * 3 * 300 * 25 * 2 * 4
        figures["times_smaller"] = figures["release_bytes"] / figures["bytes"]
        began = time.perf_counter()
        store = SkeletonStore.open(path)
        figures["open_seconds"] = time.perf_counter() - began
        order = shuffled(len(store))
        peaks = []
        began = time.perf_counter()
        for number, start in enumerate(range(0, len(order), BATCH)):
            batch = [store[int(place)] for place in order[start : start + BATCH]]
            assert len(batch)
            if number == 20:
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        figures["epoch_clips_per_second"] = len(order) / (time.perf_counter() - began)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        figures["memory_growth_over_the_epoch_kb"] = peaks[1] - peaks[0]
    return figures


def print_beside(stores: dict[str, Any]) -> None:
    """A row of the table for each store: its rates as multiples of ours, measured in turns with it."""
    columns = ["store", "shuffled, clips/s", "times ours", "sequential, clips/s", "times ours", "bytes a clip"]
    print(f"| {' | '.join([*columns, 'writing, times ours', 'resumes'])} |")
    print("|" + "---|" * 8)
    for name, figures in stores.items():
        row, ours = figures[name], figures["ours"]
        cells = []
        for key in ("shuffled", "sequential"):
            rate = row[f"{key}_clips_per_second"]
            cells += [f"{rate:,.0f}", f"{rate / ours[f'{key}_clips_per_second']:.1f}"]
        cells += [f"{row['bytes_a_clip']:,.0f} (ours {ours['bytes_a_clip']:,.0f})"]
        cells += [f"{row['write_clips_per_second'] / ours['write_clips_per_second']:.2f}"]
        cells += [f"{'yes' if row['resumed'] else 'no'}, after {row['resume_seconds']:.2f} s"]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, help="114480; 20000 with --beside")
    parser.add_argument("--beside", nargs="+", choices=list(STORES), help="other stores to measure ours beside")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    logging.getLogger("usdrl_hub").setLevel(logging.ERROR)
    started = time.monotonic()
    record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    if arguments.beside:
        count = arguments.clips or 20_000
        for name in arguments.beside:
            with tempfile.TemporaryDirectory() as folder:
                figures = beside(name, count, Path(folder))
            run = redact_paths(run_record(started)) | {"load_average": os.getloadavg()[0]}
            record.setdefault("beside", {})[name] = {"clips": count, **figures, "run": run}
        print_beside(record["beside"])
    else:
        figures = measured(arguments.clips or 114_480)
        print("| figure | value |\n|---|---|")
        for name, value in figures.items():
            print(f"| {name} | {value:,.4g} |" if isinstance(value, float) else f"| {name} | {value:,} |")
        others = {"beside": record["beside"]} if "beside" in record else {}
        record = figures | redact_paths(run_record(started)) | others
    with new_file(arguments.output) as partial_file:
        partial_file.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
