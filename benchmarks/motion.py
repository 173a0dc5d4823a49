"""The motion that the mocap checkpoints are pretrained on, their pretraining, and trials of recipes.

    python benchmarks/motion.py list --data DATA
    python benchmarks/motion.py trial [NAME ...] --data DATA --runs RUNS [--output benchmarks/mocap.json]
    python benchmarks/motion.py train NAME [NAME ...] --data DATA --runs RUNS

DATA holds the open sets as .npz files (they cannot be part of this repository). `list` prints what of each set is
used. `trial` pretrains the encoder of each named trial in RUNS/trial-NAME (of all, where none is named; a run that was
stopped goes on) and scores it on the development sets, which are not used in pretraining: 1-NN by the readout (cosine)
and logistic regression on the pooled embedding, with five clips per class in three draws, and with all.

`train` pretrains mocap-tiny, mocap-base, mocap-base-nc, mocap-large or mocap-2d in RUNS/NAME by the package's recipe;
with -seed1, -seed2, ... behind the name with another seed. The same command goes on with a run that was stopped. A GPU
is used where there is one, and can be shared by several runs; mocap-large needs one.

The rule, written before the first trial: the score of a trial is the mean, over the six sets, of 1-NN at five clips,
1-NN with all and logistic regression at five. The highest score wins; of trials within half a point the simplest does.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usdrl_hub import USDRLFeatureExtractor, USDRLModel, open_data, write_store
from usdrl_hub.data.dataset import SkeletonData
from usdrl_hub.data.protocols import default_split
from usdrl_hub.facts.recipes import Recipe
from usdrl_hub.files import new_file
from usdrl_hub.inference.embedding import embed_clips
from usdrl_hub.metrics.retrieval import top_k
from usdrl_hub.pretraining.arguments import ComputeOptions
from usdrl_hub.pretraining.build import load_recipe
from usdrl_hub.pretraining.run import pretrain
from usdrl_hub.records import redact_paths, run_record
from usdrl_hub.tasks.linear import fit_logistic_regression

# Its terms allow a checkpoint for any use.
FREE = (
    "ui_prmd_vicon",
    "cmu_asfamc_s01_s02",
    "cmu_iclone",
    "cmu_deepmimic",
    "cmu_8actions",
    "cmu_dance_martial",
    "cmu_salsa_pairs",
    "reactidle",
)
# A checkpoint may be used for research only. Its people of UCF are those of jk2017_kinect2, which must not score it.
RESEARCH = ("msrc12", "bandai_namco1", "bandai_namco2", "jk2017_sessions", "sfu", "ase_sword_shield")
DEVELOPMENT = ("utd_mhad", "nw_ucla", "sbu", "utkinect", "hdm05_11", "cad60")
# Of people who idle every fourth recording's worth of frames is kept, or standing still dominates.
IDLE_SHARE, WINDOW = 4, 200
SHOTS, DRAWS, STEPS = 5, (0, 1, 2), 1500
# What each trial changes in the recipe mocap-tiny, without its errors of pose estimators.
TRIALS: dict[str, Mapping[str, Any]] = {
    "free-motion": {},
    "pose-errors": {"views": {"pose_errors": {"probability": 0.5}}},
    "limbs": {"views": {"corrupted_joints": 0, "joint_dropout": 0.1, "limb_dropout": 0.45}},
    "three-modalities": {"model": {"modality": "joint+motion+bone"}},
    "four-heads": {"model": {"num_attention_heads": 4}},
    "frames-96": {"model": {"num_frames": 96}},
}
MODELS = ("mocap-tiny", "mocap-base", "mocap-base-nc", "mocap-large", "mocap-2d")
# Where encoders and logistic regressions are computed; training chooses by itself.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def sources_of(name: str) -> tuple[str, ...]:
    """Names of the sets that a checkpoint is pretrained on."""
    return (*FREE, *RESEARCH) if name.endswith("-nc") else FREE


def recipe_of(name: str) -> str:
    """Recipe that a checkpoint is pretrained by: a research-only one differs in its data alone."""
    return name.removesuffix("-nc")


class Record:
    """Figures in a JSON file, which is written after each measurement."""

    def __init__(self, path: Path):
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def put(self, *keys: str, value: Any) -> None:
        """Set a figure."""
        # Read again: another process may be measuring other models.
        self.content = json.loads(self.path.read_text()) if self.path.is_file() else {}
        place = self.content
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        with new_file(self.path) as partial:
            partial.write_text(json.dumps(self.content, indent=1, sort_keys=True) + "\n")

    def has(self, *keys: str) -> bool:
        """Whether a figure has been measured."""
        place = self.content
        for key in keys:
            if key not in place:
                return False
            place = place[key]
        return True


def _take(name: str) -> tuple[int, int] | None:
    """Subject and number of a take of CMU; None where its name does not tell them."""
    found = re.fullmatch(r"(\d+)_(\d+)", name)
    return None if found is None else (int(found[1]), int(found[2]))


def chosen(data: Path) -> dict[str, SkeletonData]:
    """What of each free set is used: people of UI-PRMD with odd numbers, one copy of each take of CMU, idling less."""
    parts, takes = {}, set()
    for name in FREE:
        source = open_data(data / f"{name}.npz")
        names = [str(title) for title in source.column("names")] if source.column("names") is not None else []
        kept = np.ones(len(source), dtype=bool)
        if name == "ui_prmd_vicon":
            source = default_split(source)[0]
            kept = np.ones(len(source), dtype=bool)
        elif name == "cmu_dance_martial":
            # The couples are in cmu_salsa_pairs, both people together.
            kept = np.array([not title.startswith("salsa/") for title in names])
        elif name.startswith("cmu_"):
            kept = np.array([(take := _take(title)) is None or take not in takes for title in names])
            takes |= {take for title in names if (take := _take(title)) is not None}
        part = source.select(kept).drop_empty()
        if name == "reactidle":
            cut = [
                part.read(number, start, min(start + WINDOW, int(length)))
                for number, length in enumerate(part.lengths)
                for start in range(0, int(length), WINDOW * IDLE_SHARE)
            ]
            part = open_data(cut).drop_empty()
        parts[name] = part
    return parts


def sources(name: str, data: Path, runs: Path) -> list[Path]:
    """Pretraining data of a checkpoint: stores of the free motion in RUNS/motion, written once, and files of DATA."""
    folders = [runs / "motion" / title for title in FREE]
    if not all(folder.is_dir() for folder in folders):
        for title, part in chosen(data).items():
            if not (runs / "motion" / title).is_dir():
                write_store(part, runs / "motion" / title)
    return [*folders, *(data / f"{title}.npz" for title in sources_of(name) if title not in FREE)]


def train(name: str, data: Path, runs: Path) -> None:
    """Pretrain a checkpoint, or go on with it; `name` ends with -seedK for another seed than 0."""
    plain, _, seed = name.partition("-seed")
    if plain not in MODELS or (seed and not seed.isdecimal()):
        raise SystemExit(f"there is no checkpoint {name}: there are {', '.join(MODELS)}, with or without -seed1, ...")
    folder = runs / name
    if not (folder / "model.safetensors").is_file():
        motion, compute = sources(plain, data, runs), ComputeOptions(progress=True)
        pretrain(motion, folder, recipe_of(plain), seed=int(seed or 0), max_steps=STEPS, compute=compute)
    if not (folder / "model.safetensors").is_file():
        raise SystemExit(f"{name} was stopped: the same command goes on")


def trial_recipe(name: str) -> Recipe:
    """The recipe of a trial."""
    base, changes = load_recipe("mocap-tiny"), TRIALS[name]
    views = {**base.views, "pose_errors": None, **changes.get("views", {})}
    return replace(base, model={**base.model, **changes.get("model", {})}, views=views)


class Set:
    """One set: sequences, clips and labels of its training and test part, for one draw of the labelled clips."""

    def __init__(self, path: Path, extractor: USDRLFeatureExtractor, draw: int):
        self.name, self.draw = path.stem, draw
        dataset = open_data(path)
        # Draw k of a set with folds is scored on fold k.
        folds = dataset.column("folds") is not None
        train, test, self.rule = default_split(dataset, draw if folds else 0)
        parts = [part.drop_empty() for part in (train, test)]
        self.labels = [torch.as_tensor(np.asarray(part.column("labels"), dtype=np.int64)) for part in parts]
        self.sequences = [list(part) for part in parts]
        self.clips = [extractor(part, return_tensors="pt")["keypoints"] for part in self.sequences]
        self.num_classes = int(max(labels.max() for labels in self.labels)) + 1

    def drawn(self, shots: int | None) -> torch.Tensor:
        """Training clips of this draw: `shots` of each class, or all."""
        order = torch.from_numpy(np.random.default_rng(self.draw).permutation(len(self.labels[0])))
        labels = self.labels[0][order]
        return torch.cat([order[labels == kind][:shots] for kind in range(self.num_classes)]).sort().values

    def linear_answers(self, features: Sequence[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        """Classes of the test clips by logistic regression on features of the drawn training clips."""
        train, test = (part.float().clone().to(DEVICE) for part in (features[0][rows], features[1]))
        layer = fit_logistic_regression(train, self.labels[0][rows], self.num_classes)
        with torch.no_grad():
            return layer(test).argmax(1).cpu()

    def scores(self, features: list[torch.Tensor], linear: list[torch.Tensor]) -> dict[str, float]:
        """Accuracies by 1-NN on `features` and by logistic regression on `linear` features, train and test."""
        found = {}
        for shots in (SHOTS, None):
            rows, key = self.drawn(shots), str(shots or "all")
            nearest = top_k(features[1], features[0][rows], 1)[1][:, 0]
            found[f"1nn@{key}"] = float((self.labels[0][rows][nearest] == self.labels[1]).float().mean())
            found[f"linear@{key}"] = float((self.linear_answers(linear, rows) == self.labels[1]).float().mean())
        return found


def score(folder: Path, data: Path) -> dict[str, dict[str, float]]:
    """Accuracies on the development sets, each the mean over the draws."""
    extractor, model = (
        USDRLFeatureExtractor.from_pretrained(folder),
        USDRLModel.from_pretrained(folder).eval().to(DEVICE),
    )
    table = {}
    for name in DEVELOPMENT:
        rows = []
        for draw in DRAWS:
            subject = Set(data / f"{name}.npz", extractor, draw)
            readout, pooled = ([embed_clips(model, part, pooled=kind) for part in subject.clips] for kind in (0, 1))
            rows.append(subject.scores(readout, pooled))
        table[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return table


def total(table: Mapping[str, Mapping[str, float]]) -> float:
    """The score of a trial, in percent."""
    return 100 * float(np.mean([row[key] for row in table.values() for key in ("1nn@5", "1nn@all", "linear@5")]))


def try_recipe(name: str, data: Path, runs: Path, record: Record) -> None:
    """Pretrain the encoder of a trial, or go on with it, and score it."""
    started, folder = time.monotonic(), runs / f"trial-{name}"
    if not (folder / "model.safetensors").is_file():
        motion, compute = sources("mocap-tiny", data, runs), ComputeOptions(progress=True)
        pretrain(motion, folder, trial_recipe(name), max_steps=STEPS, compute=compute)
    if not (folder / "model.safetensors").is_file():
        raise SystemExit(f"{name} was stopped: the same command goes on")
    table = score(folder, data)
    record.put("trials", name, value={"changes": TRIALS[name], "score": total(table), "sets": table})
    record.put("run", value=redact_paths(run_record(started)))
    means = {key: 100 * np.mean([row[key] for row in table.values()]) for key in next(iter(table.values()))}
    print(name, f"{total(table):.1f}", {key: round(float(mean), 1) for key, mean in means.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["list", "trial", "train"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("mocap.json"))
    arguments = parser.parse_args()
    if arguments.what == "list":
        for name, part in chosen(arguments.data).items():
            print(f"{name}: {len(part)} recordings, {int(np.sum(part.lengths))} frames")
        return
    if arguments.runs is None:
        parser.error("name --runs")
    if arguments.what == "train":
        if not arguments.names:
            parser.error(f"name checkpoints: {', '.join(MODELS)}")
        for name in arguments.names:
            train(name, arguments.data, arguments.runs)
        return
    unknown = [name for name in arguments.names if name not in TRIALS]
    if unknown:
        parser.error(f"there is no trial {unknown[0]}: there are {', '.join(TRIALS)}")
    for name in arguments.names or TRIALS:
        try_recipe(name, arguments.data, arguments.runs, Record(arguments.output))


if __name__ == "__main__":
    main()
