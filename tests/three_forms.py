"""The same labelled recordings in three forms: an ``.npz`` file, a store, and a list of sequences."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from usdrl_hub import SkeletonList, SkeletonSequence, get_layout
from usdrl_hub.data.prepare import prepare
from usdrl_hub.data.samples import load_samples

FORMS = ("npz", "store", "list")
# What a sequence has besides its keypoints.
_FIELDS = [field.name for field in fields(SkeletonSequence) if field.name not in ("keypoints", "layout", "events")]


def labelled_arrays(layout: str = "ntu25", **changes: Any) -> dict[str, np.ndarray]:
    """Eighteen real recordings of three people and three classes, as the arrays of an ``.npz`` data set.

    Some show two people; frame rates differ, and one is unknown; the class happens in the middle of each recording.

    Args:
        layout: "ntu25" or another 3D layout; "coco17" has scores and lies in a picture.
        **changes: Other arrays; None leaves one out.
    """
    samples = load_samples()
    chosen = np.isin(samples.column("subjects"), [2, 4, 6]) & (samples.column("labels") < 3)
    clips = [clip.to_layout("ntu25" if layout == "coco17" else layout) for clip in samples.select(chosen)]
    pieces, truth = [], []
    for number, clip in enumerate(clips):
        frames = clip.keypoints[::4][: 24 + number]
        if layout == "coco17":
            frames = np.concatenate([400 + 200 * frames[:, :, :17, :2], np.ones((len(frames), 1, 17, 1))], axis=-1)
        # The second one stands still, so the first is the more energetic.
        second = np.broadcast_to(frames[:1] + np.float32(0.7), frames.shape) * (number % 3 == 0)
        if layout == "coco17":
            second = second * np.array([1, 1, 0]) + np.array([0, 0, 1]) * (number % 3 == 0)
        pieces.append(np.concatenate([frames, second], axis=1).astype(np.float32))
        labels = np.full(len(frames), -1)
        labels[4 : 12 + number % 5] = clip.label
        truth.append(labels)
    count = len(pieces)
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "data": np.concatenate(pieces),
        "offsets": np.cumsum([0, *map(len, pieces)]),
        "layout": np.array(layout),
        "names": np.array([f"r{number:02d}" for number in range(count)]),
        "labels": np.array([clip.label for clip in clips]),
        "subjects": np.array([clip.subject for clip in clips]),
        "cameras": np.arange(count) % 2,
        "setups": np.arange(count) % 5 - 1,
        "class_names": np.array(["squat", "hurdle step", "lunge"]),
        "frame_labels": np.concatenate(truth),
        "fps": np.array([np.nan, *rng.choice([25, 29.97, 30], count - 1)]),
        "split_test": np.arange(count) % 3 == 1,
        "split_test_leaked": np.arange(count) % 6 == 1,
        "correct": np.arange(count) % 2,
    }
    if layout == "coco17":
        arrays["image_shape"] = np.tile([1080.0, 1920.0], (count, 1))
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def sequences_of(arrays: dict[str, np.ndarray]) -> list[SkeletonSequence]:
    """The sequences that the arrays mean, made one by one, without any code of the package that reads them."""

    def of(key: str, number: int) -> Any:
        values = arrays.get(key)
        return None if values is None or values[number] in (-1, "") else values[number].item()

    sequences = []
    for number, (start, end) in enumerate(zip(arrays["offsets"][:-1], arrays["offsets"][1:], strict=True)):
        events, labels = [], arrays.get("frame_labels", np.zeros(0))[start:end].tolist()
        for frame, label in enumerate(labels):
            if label != -1 and frame and labels[frame - 1] == label:
                events[-1][2] = frame + 1
            elif label != -1:
                events.append([label, frame, frame + 1])
        rate, side = of("fps", number), arrays.get("split_test")
        sequences.append(
            SkeletonSequence(
                arrays["data"][start:end],
                str(arrays["layout"]),
                fps=None if rate is None or np.isnan(rate) else rate,
                name=str(arrays["names"][number]),
                label=of("labels", number),
                subject=of("subjects", number),
                camera=of("cameras", number),
                setup=of("setups", number),
                image_shape=tuple(arrays["image_shape"][number].tolist()) if "image_shape" in arrays else None,
                events=np.array(events, dtype=np.int64).reshape(-1, 3) if "frame_labels" in arrays else None,
                split=None if side is None or side.ndim > 1 else "test" if side[number] else "train",
            )
        )
    return sequences


@dataclass(frozen=True)
class InThreeForms:
    """The recordings of some arrays, in each of `FORMS`."""

    arrays: dict[str, np.ndarray]
    npz: Path
    store: Path
    list: SkeletonList

    @classmethod
    def write(cls, arrays: dict[str, np.ndarray], folder: Path) -> "InThreeForms":
        """Write the file and the store."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "data.npz", **arrays)
        prepare("file", folder / "data.npz", folder / "store")
        keys = ("split_test", "split_test_leaked", "folds", "correct")
        columns = {key: arrays[key] for key in keys if key in arrays}
        # A single split is the sequences' own.
        if np.ndim(columns.get("split_test")) == 1:
            del columns["split_test"]
        held = SkeletonList(sequences_of(arrays), arrays.get("class_names", ()), columns)
        return cls(arrays, folder / "data.npz", folder / "store", held)

    def __getitem__(self, form: str) -> Any:
        """What a user gives: the path of the file or store, or the list."""
        return getattr(self, form)


def assert_same_sequence(first: SkeletonSequence, second: SkeletonSequence) -> None:
    """Two sequences say the same; people who are never seen count as absent."""
    persons = max(first.num_persons, second.num_persons)
    padded = [
        np.pad(one.keypoints, ((0, 0), (0, persons - one.num_persons), (0, 0), (0, 0))) for one in (first, second)
    ]
    np.testing.assert_array_equal(*padded)
    layouts = [get_layout(one.layout) for one in (first, second)]
    assert layouts[0] == layouts[1]
    for name in _FIELDS:
        values = [getattr(one, name) for one in (first, second)]
        if name == "up":
            values = [value or layouts[0].up for value in values]
        assert values[0] == values[1], (first.name, name)
    assert (first.events is None) == (second.events is None)
    if first.events is not None:
        np.testing.assert_array_equal(first.events, second.events)
