"""Shared helpers of the tests: tiny models, clips, recordings, recipes, commands."""

import json
import re
import subprocess
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from usdrl_hub import (
    SkeletonSequence,
    SkeletonStore,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionSegmentation,
    get_layout,
)
from usdrl_hub.cli import main
from usdrl_hub.data.store_writer import StoreWriter
from usdrl_hub.facts.recipes import Recipe, Training
from usdrl_hub.hub.card_source import CardSource
from usdrl_hub.ragged import RaggedFrames

VIEWS = {"min_length": 6, "corrupted_joints": 5}
MODEL = {"hidden_size": 16, "num_persons": 1, "layout": "ntu25", "num_frames": 16, "drop_path_rate": 0.2}
PRETRAIN = ["pretrain_dste_ntu25", "pretrain_sttr_ntu25", "pretrain_dste_coco17"]
# The release forms no bones of 17 joints.
PRETRAINED = [
    (name, modality)
    for name in PRETRAIN
    for modality in ("joint", "bone", "motion")
    if (name, modality) != ("pretrain_dste_coco17", "bone")
]
HOSTILE_TEXT = (
    "</script><script>window.hacked = 1</script> <!-- {{data}} & \"$x^2$' \u2028 \\u003c <img src=x onerror=hacked=1>"
)


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return caught.value.code or 0, captured.out, captured.err


def tiny_config(**fields) -> USDRLConfig:
    sizes = {
        "hidden_size": 16,
        "num_frames": 12,
        "num_persons": 1,
        "num_joints": 5,
        "layout": [(i, i // 2) for i in range(5)],
    }
    return USDRLConfig(**(sizes | {"num_labels": 4} | fields))


def clips(config, batch=3) -> torch.Tensor:
    return torch.randn(batch, config.num_frames, config.num_persons, config.num_joints, config.num_channels)


def formed(model, keypoints) -> list[torch.Tensor]:
    """The temporal and the spatial tokens of a model of one modality."""
    return [tokens[model.config.modality] for tokens in model.tokens(keypoints, None)]


def tiny_model(kind, names=("nothing", "wave", "point", "bow"), **fields):
    """A random model of five joints and twelve frames, with its feature extractor."""
    config = tiny_config(id2label=dict(enumerate(names)), num_labels=len(names), **fields)
    extractor = USDRLFeatureExtractor.from_model_config(config, normalization="none")
    return kind(config).eval(), extractor


def walking(frames=40, persons=1, layout="ntu25", **fields) -> SkeletonSequence:
    """Somebody upright: shoulders across x, the head above the feet, hands that move."""
    names, random = get_layout(layout).joint_names, np.random.default_rng(0)
    body = random.random((len(names), 3)) * 0.2
    body[:, 0] += [-0.3 if name.startswith("right") else 0.3 if name.startswith("left") else 0 for name in names]
    body[:, 1] += np.linspace(1.6, 0.1, len(names))
    points = np.repeat(body[None, None], frames, 0).repeat(persons, 1) + [0, 0, 3]
    points[..., 0] += np.arange(persons)[:, None]
    points += 0.1 * np.sin(np.arange(frames) / 5)[:, None, None, None] * random.random((len(names), 3))
    return SkeletonSequence(points, layout, **({"fps": 30.0, "name": "walking"} | fields))


def content(page) -> dict:
    """What a page was told, as its own script reads it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.S)
    return json.loads(found[1])


def recipe(model=None, **training) -> Recipe:
    fields = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "save_epochs": 0.5, "precision": "float32"}
    return Recipe(
        model=MODEL | (model or {}),
        extractor={"normalization": "body", "max_frames": None},
        window=60,
        views=VIEWS,
        training=Training(**(fields | training)),
    )


def random_frames(lengths, joints=25, persons=2, seed=0) -> RaggedFrames:
    frames = torch.randn(sum(lengths), persons, joints, 3, generator=torch.Generator().manual_seed(seed))
    return RaggedFrames(frames, torch.tensor(lengths))


def arrays(**changes):
    rng = np.random.default_rng(0)
    values = {
        "data": rng.normal(size=(30, 1, 25, 3)),
        "offsets": np.array([0, 10, 12, 30]),
        "labels": np.array([0, 1, 1]),
        "subjects": np.array([1, 2, 3]),
        "class_names": np.array(["sit", "stand"]),
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def raw_sequences(golden, name="normalize_ntu25"):
    file = golden(name)
    return [array[:, :n].transpose(1, 3, 2, 0) for array, n in zip(file["raw_NCTVM"], file["num_frames"], strict=True)]


def make_store(path: Path, dtype: str = "float32") -> SkeletonStore:
    """Seven sequences in three shards with all that a sequence can have."""
    rng = np.random.default_rng(0)
    sequences = [
        SkeletonSequence(
            rng.uniform(-2, 2, (4 + number, 1 + number % 2, 25, 3)),
            name=f"Gehen-ä{number}",
            label=number % 3 if number else None,
            subject=f"person {number % 2}",
            camera=number,
            fps=30.0 if number % 2 else None,
            events=[None, np.zeros((0, 3), dtype=int), [[0, 1, 3], [2, 0, 4]]][number % 3],
            split="test" if number % 2 else "train",
            image_shape=(480.0, 640.0) if number == 2 else None,
        )
        for number in range(7)
    ]
    with StoreWriter(path, {}, dtype) as writer:
        for start in range(0, len(sequences), 3):
            part = sequences[start : start + 3]
            writer.write_part(part, {}, [str(start)], {"folds": [start] * len(part)})
        return writer.finish(["a", "b", "c"], "own")


def randomised(model: nn.Module) -> nn.Module:
    """Values that no default hides: norms and biases are not one and zero."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def inputs_of(model_class, config) -> dict[str, torch.Tensor]:
    if model_class is USDRLForActionSegmentation:
        windows = torch.stack([clips(config), clips(config)])
        return {"keypoints": windows, "window_starts": torch.tensor([[0, 6, 12], [0, 5, -1]])}
    return {"keypoints": clips(config)}


class Clips(torch.utils.data.Dataset):
    """Any data set that yields keypoints and labels will do."""

    def __init__(self, config, count=64, frame_labels=False):
        generator = torch.Generator().manual_seed(0)
        shape = (config.num_frames, config.num_persons, config.num_joints, config.num_channels)
        self.labels = torch.randint(0, 4, (count,), generator=generator)
        self.keypoints = torch.randn(count, *shape, generator=generator) + self.labels[:, None, None, None, None]
        if frame_labels:
            self.labels = self.labels[:, None].expand(-1, config.num_frames)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"keypoints": self.keypoints[index], "labels": self.labels[index]}


def arguments(folder, **changes):
    values = {"learning_rate": 1e-2, "report_to": "none", "save_strategy": "no", "seed": 0, "disable_tqdm": True}
    return TrainingArguments(output_dir=folder, **(values | changes))


@contextmanager
def disk(place, options):
    """A file system of its own at a folder."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def same_weights(left, right) -> bool:
    """Whether two models hold the same tensors, bit for bit."""
    left, right = left.state_dict(), right.state_dict()
    same_kind = all(tensor.dtype == right[name].dtype for name, tensor in left.items())
    return left.keys() == right.keys() and same_kind and all(torch.equal(left[name], right[name]) for name in left)


def connections() -> list[str]:
    """Threads of this process that speak to other processes, where the system lists threads."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def figures(card: str) -> set[str]:
    """The figures in the tables of a model card's results, as text."""
    results = card.partition("## Results")[2].partition("\n## ")[0]
    rows = [line for line in results.splitlines() if line.startswith("|")]
    return {cell.strip() for row in rows for cell in row.split("|") if re.fullmatch(r"\s*-?\d+\.\d+\s*", cell)}


def supported_figures(source: CardSource) -> set[str]:
    """The figures that a model card may contain: those of ``metrics.json`` or a published source, in percent."""
    shares = [*source.entry.published.values()] if source.entry is not None else []
    shares += [value for value in dict(source.record.get("metrics") or {}).values() if 0 <= value <= 1]
    for part in (source.record, source.record.get("final") or {}):
        for row in part.get("few_labels") or []:
            shares += row["accuracy"].values()
    alarms = dict(source.record.get("refusal") or {}).get("false_alarms") or {}
    shares += [entry["accepted"] for entry in alarms.values()]
    return {f"{100 * value:.1f}" for value in shares}


def write_film(path: Path, images: Sequence[np.ndarray], rate: int = 25, format: str | None = None) -> Path:
    """Write pictures ``(H, W, 3)`` uint8 as a film; VP8 in WebM, which browsers read, and MPEG-4 otherwise."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream("libvpx" if Path(path).suffix == ".webm" else "mpeg4", rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.bit_rate = 3_000_000
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return Path(path)


def crossing(images: list[np.ndarray], spans: tuple[tuple[int, int], tuple[int, int]]) -> list[np.ndarray]:
    """A film of two people: the one of NTU's sample film and her mirror image, each walking over a span of columns."""
    film = []
    for number in range(len(images)):
        picture = np.full_like(images[0], 200)
        picture[600:] = 60
        share = number / (len(images) - 1)
        # She stands at column 1040.
        people = images[-1 - number][:, 890:1190][:, ::-1], images[number][:, 890:1190]
        for (start, end), person in zip(spans, people, strict=True):
            left = round(start + (end - start) * share)
            picture[:, left : left + 300] = person
        film.append(picture)
    return film
