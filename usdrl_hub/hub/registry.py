"""The checkpoints of this project by name: what each is, where its weights come from, and what is known of it."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from ..configuration_usdrl import CHECKPOINTS_FOLDER, MODALITIES, REPOSITORY_FOLDER, USDRLConfig
from ..data.facts import DATASETS, DatasetFacts
from ..errors import CheckpointLoadError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..layouts import get_layout
from ..modeling_usdrl import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLModel,
    USDRLPreTrainedModel,
)
from ..pretraining.recipes import load_recipe
from ..tasks.benchmarks import BENCHMARKS, Benchmark

NAMESPACE = "usdrl"
DEFAULT_CHECKPOINT = f"{NAMESPACE}/tiny-uiprmd"
# Where the authors publish their weights: of DSTE with the TPAMI release, of STTR with the AAAI release.
ORIGINALS = {
    "dste": "https://github.com/wengwanjiang/FoundSkelModel (Model Zoo)",
    "sttr": "https://github.com/wengwanjiang/USDRL (Pretrained Models)",
}
# How a task is called in listings and cards, by the class that does it.
TASK_NAMES: dict[type[USDRLPreTrainedModel], str] = {
    USDRLForActionDetection: "detection",
    USDRLForActionRecognition: "recognition",
    USDRLForActionSegmentation: "segmentation",
    USDRLForEarlyActionPrediction: "early prediction",
    USDRLForPreTraining: "pretraining",
    USDRLModel: "embedding",
}
_REPOSITORY = "in the folder checkpoints/ of the project's repository, not in the package"
_SHIPPED, _AUTHORS, _TO_TRAIN = "ships with the package", "the authors' release, to be converted", "to be trained"
_RESEARCH = "other"
_MULTIMODAL = "+".join(("joint", "motion", "bone"))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that this project has a name for.

    Attributes:
        name: Repository name, ``usdrl/<dataset>-<protocol>[-sttr][-<modality>][-<task>]`` for the paper's benchmarks.
        kind: The model's class.
        dataset: Name of the training data in `data.facts.DATASETS`.
        summary: What it is, in one sentence.
        origin: Where its weights come from.
        limits: What it cannot do.
        license: Licence of the weights, as the hub writes licences.
        protocol: Which part of the data trains; empty where the data have one only.
        encoder: "dste" or "sttr".
        modality: Modality of the encoder.
        recipe: Name of the recipe of its pretraining; empty where it has none.
        base: Name of the encoder that a head is trained on; empty for encoders.
        benchmarks: Ids of the benchmarks that score it.
        published: What papers report for it: benchmark and metric -> value in [0, 1].
        source: Where `published` stands.
    """

    name: str
    kind: type[USDRLPreTrainedModel]
    dataset: str
    summary: str
    origin: str
    limits: str
    license: str = _RESEARCH
    protocol: str = ""
    encoder: str = "dste"
    modality: str = "joint"
    recipe: str = ""
    base: str = ""
    benchmarks: tuple[str, ...] = ()
    published: Mapping[tuple[str, str], float] = field(default_factory=dict)
    source: str = ""

    @property
    def task(self) -> str:
        """What it does: "embedding", "recognition", "detection", ..."""
        return TASK_NAMES[self.kind]

    @property
    def facts(self) -> DatasetFacts:
        """Its training data."""
        return DATASETS[self.dataset]

    @property
    def folder(self) -> Path | None:
        """Where it lies, in the package or the repository around it."""
        parent = REPOSITORY_FOLDER if self.origin == _REPOSITORY else CHECKPOINTS_FOLDER
        path = parent / self.name.replace("/", "--")
        return path if (path / "config.json").is_file() else None

    @cached_property
    def config(self) -> USDRLConfig:
        """Its configuration: that of its files where it ships, else that of its recipe."""
        if self.folder is not None:
            return USDRLConfig.from_pretrained(self.folder)
        config = load_recipe(self.recipe).build()[0]
        names = self.facts.class_names
        if self.kind in (USDRLForActionDetection, USDRLForActionSegmentation):
            names = ("nothing", *names)
        causal = self.kind is USDRLForEarlyActionPrediction
        changes = {"encoder": self.encoder, "modality": self.modality, "is_causal": causal, "intermediate_size": None}
        if names and self.task != "embedding":
            changes |= {"id2label": dict(enumerate(names)), "label2id": None}
        return USDRLConfig(**{**config.to_dict(), **changes, "architectures": [self.kind.__name__]})

    @cached_property
    def extractor(self) -> USDRLFeatureExtractor:
        """Its feature extractor."""
        if self.folder is not None:
            return USDRLFeatureExtractor.from_pretrained(self.folder)
        return load_recipe(self.recipe).build()[1]

    @property
    def metrics(self) -> dict[str, Any]:
        """Its ``metrics.json``, empty where there is none."""
        path = None if self.folder is None else self.folder / "metrics.json"
        return json.loads(path.read_text("utf-8")) if path is not None and path.is_file() else {}

    @property
    def num_labels(self) -> int | None:
        """Classes that it tells apart; None without a head, or where the data bring the names."""
        known = self.folder is not None or self.facts.class_names
        return None if self.task in ("embedding", "pretraining") or not known else self.config.num_labels

    @property
    def num_bytes(self) -> int:
        """Size of its weights: of its files where it ships, else of as many float32 numbers."""
        if self.folder is not None:
            return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
        config = self.config
        sizes = (config.encoder, config.modality, config.num_joints, config.num_channels, config.is_causal)
        return _weights_size(self.kind.__name__, *sizes, config.num_labels, config.hidden_size)

    def how_to_make(self) -> str:
        """What to do where the weights are not published yet: the original, where it is, and the command."""
        short = self.name.partition("/")[2]
        if self.origin == _AUTHORS:
            modality = "" if self.modality == "joint" else f" --modality {self.modality}"
            task = " --task detection" if self.task == "detection" else ""
            place = ORIGINALS[self.encoder].partition(" ")[0]
            made = (
                f"download the original from {place} and run 'usdrl convert FILE.pth.tar "
                f"--layout {self.config.layout}{modality}{task} --output-dir {short}'"
            )
        elif self.origin == _SHIPPED:
            return f"it ships with the package, as {self.name}"
        elif self.origin == _REPOSITORY:
            return (
                f"take its folder from checkpoints/ of the project's repository, or run 'python benchmarks/mocap.py "
                f"pretrain {short} --data DATA --runs RUNS'; then use the folder"
            )
        elif self.base:
            made = (
                f"after 'usdrl prepare', run 'usdrl evaluate {self.base} --benchmark {self.benchmarks[0]} --data "
                f"{self.dataset} --output-dir {short}'"
            )
        else:
            made = (
                f"after 'usdrl prepare', run 'usdrl pretrain {self.dataset} --split train "
                f"--recipe {self.recipe} --modality {self.modality} --output-dir {short}'"
            )
        return f"{made} and use that folder"


@lru_cache
def _weights_size(
    kind_name: str,
    encoder: str,
    modality: str,
    joints: int,
    channels: int,
    causal: bool,
    labels: int,
    width: int,
) -> int:
    """Bytes of a model's weights in float32."""
    config = USDRLConfig(
        encoder=encoder,  # type: ignore[arg-type]
        modality=modality,
        num_joints=joints,
        num_channels=channels,
        is_causal=causal,
        id2label={number: str(number) for number in range(labels)},
        hidden_size=width,
    )
    kind = next(kind for kind in TASK_NAMES if kind.__name__ == kind_name)
    with torch.device("meta"):
        return sum(4 * tensor.numel() for tensor in kind(config).state_dict().values())


_NTU = (("ntu60", "xsub"), ("ntu60", "xview"), ("ntu120", "xsub"), ("ntu120", "xset"))
# What is pretrained on what, with which recipe.
_ENCODERS = (
    *((data, protocol, data) for data, protocol in _NTU),
    ("ntu120", "one-shot", "ntu120"),
    ("pkummd1", "xsub", "pku2"),
    ("pkummd1", "xview", "pku2"),
    ("pkummd2", "xsub", "pku2"),
    ("pkummd2", "xview", "pku2"),
    *((f"{data}-2d", protocol, "ntu-2d") for data, protocol in _NTU),
    ("uav", "v1", "uav"),
    ("uav", "v2", "uav"),
)
# Data sets of which the release names every modality, and STTR.
_EVERY_VARIANT = (*_NTU, ("pkummd2", "xsub"))
_KINDS: dict[str, type[USDRLPreTrainedModel]] = {
    "linear": USDRLForActionRecognition,
    "finetuned": USDRLForActionRecognition,
    "semi": USDRLForActionRecognition,
    "transfer": USDRLForActionRecognition,
    "early": USDRLForActionRecognition,
    "early-causal": USDRLForEarlyActionPrediction,
    "detection": USDRLForActionDetection,
    "segmentation": USDRLForActionSegmentation,
}
# Linear evaluation of the variants, in the order of `_EVERY_VARIANT`; that of DSTE's joints stands in `BENCHMARKS`.
_VARIANT_FIGURES = {
    ("sttr", "joint"): (0.842, 0.908, 0.760, 0.769, 0.518),
    ("sttr", _MULTIMODAL): (0.858, 0.918, 0.775, 0.788, 0.547),
}
_LIMITS = (
    "Its training data are recordings of indoor activities by people of one region, from one kind of sensor; other "
    "movements, people who move differently (children, patients) and other sensors are untested. With a head, it "
    "names one of its classes for any input, also for movements that it does not know."
)


def _variant_name(dataset: str, protocol: str, encoder: str, modality: str) -> str:
    parts = [dataset, protocol, "sttr" if encoder == "sttr" else "", "" if modality == "joint" else modality]
    return f"{NAMESPACE}/" + "-".join(part.replace("+", "-") for part in parts if part)


def _variants(dataset: str, protocol: str) -> Iterator[tuple[str, str]]:
    """Encoder and modality of what there is for a data set."""
    yield "dste", "joint"
    if (dataset, protocol) in _EVERY_VARIANT:
        yield from (("dste", modality) for modality in (*MODALITIES[1:], _MULTIMODAL))
        yield from (("sttr", modality) for modality in (*MODALITIES, _MULTIMODAL))


def _encoders() -> Iterator[Checkpoint]:
    for dataset, protocol, recipe in _ENCODERS:
        for encoder, modality in _variants(dataset, protocol):
            scored = [f"{task}/{dataset}-{protocol}" for task in ("retrieval", "one-shot")]
            if protocol == "one-shot":
                scored = ["one-shot/ntu120-one-shot"]
            yield Checkpoint(
                name=_variant_name(dataset, protocol, encoder, modality),
                kind=USDRLModel,
                dataset=dataset,
                protocol=protocol,
                summary=f"The {encoder.upper()} encoder of USDRL, pretrained without labels on the training part of "
                f"{DATASETS[dataset].title} ({protocol}), modality {modality}.",
                origin=_TO_TRAIN if modality == _MULTIMODAL or protocol == "one-shot" else _AUTHORS,
                limits=_LIMITS,
                encoder=encoder,
                modality=modality,
                recipe=recipe,
                benchmarks=tuple(name for name in scored if name in BENCHMARKS),
            )


def _heads(encoders: Mapping[str, Checkpoint]) -> Iterator[Checkpoint]:
    for benchmark in BENCHMARKS.values():
        pretrained = benchmark.pretrained_on if benchmark.task == "transfer" else ""
        place = pretrained or f"{benchmark.dataset}-{benchmark.protocol}"
        base = encoders.get(f"{NAMESPACE}/{place}")
        if benchmark.task not in _KINDS or base is None or benchmark.protocol == "own":
            continue
        task = benchmark.id.partition("/")[0] + (f"-{pretrained}" if pretrained else "")
        head = Checkpoint(
            name=f"{NAMESPACE}/{benchmark.dataset}-{benchmark.protocol}-{task}",
            kind=_KINDS[benchmark.task],
            dataset=benchmark.dataset,
            protocol=benchmark.protocol,
            summary=f"{base.name.partition('/')[2]} with a head for the benchmark {benchmark.id}.",
            origin=_AUTHORS if benchmark.id == "detection/pkummd1-xsub" else _TO_TRAIN,
            limits=_LIMITS,
            recipe=base.recipe,
            base=base.name,
            benchmarks=(benchmark.id,),
            published={(benchmark.id, metric): value for metric, value in benchmark.published.items()},
            source=benchmark.source,
        )
        yield head
        if benchmark.task == "linear":
            yield from _linear_variants(head, benchmark)


def _linear_variants(head: Checkpoint, benchmark: Benchmark) -> Iterator[Checkpoint]:
    """The same head on the other encoders of its data set."""
    place = (head.dataset, head.protocol)
    for encoder, modality in list(_variants(*place))[1:]:
        base = _variant_name(*place, encoder, modality)
        figures = _VARIANT_FIGURES.get((encoder, modality))
        published = {(benchmark.id, "accuracy"): figures[_EVERY_VARIANT.index(place)]} if figures else {}
        yield replace(
            head,
            name=f"{base}-linear",
            base=base,
            encoder=encoder,
            modality=modality,
            summary=f"{base.partition('/')[2]} with a head for the benchmark {benchmark.id}.",
            published=published,
            source=f"arXiv 2508.12586, {encoder.upper()}, {modality}" if published else "",
        )


def _shipped() -> Iterator[Checkpoint]:
    yield Checkpoint(
        name=DEFAULT_CHECKPOINT,
        kind=USDRLForActionRecognition,
        dataset="ui_prmd_vicon",
        summary="A small USDRL recogniser of ten rehabilitation movements, for first steps and tests.",
        origin=_SHIPPED,
        license="apache-2.0",
        limits=(
            "It was trained on five healthy people in a laboratory, one person per clip, from optical motion "
            "capture. It names one of its ten movements for any input, also for movements that it does not know, "
            "and does not judge whether an exercise is done well. Its training recipe was chosen with the "
            "accuracy on the test people in view, so that figure is a little optimistic. It is no medical device."
        ),
    )
    limits = (
        "It is small, and has seen little: few people, healthy adults, in laboratories, {motion}. It tells movements "
        "of the whole body apart better than those of hands and objects, which its joints do not show. Where many "
        "labelled clips are at hand, or for arm gestures, the joints themselves or a network trained from scratch can "
        "do as well: the figures say where. In pretraining two people are beside each other, but never in contact. "
        "Its recipe was chosen with results on the sets that it is scored on in view. It names nothing, and it is no "
        "medical device."
    )
    for short, dataset, origin, licence, summary, motion in (
        (
            "mocap-tiny",
            "mocap",
            _SHIPPED,
            "apache-2.0",
            "A small encoder of any 3D motion, pretrained without labels on motion whose terms allow any use.",
            "rehabilitation exercises, walks and jumps",
        ),
        (
            "mocap-small-nc",
            "mocap-nc",
            _REPOSITORY,
            "cc-by-nc-4.0",
            "A small encoder of any 3D motion, pretrained without labels on more motion, not for commercial use.",
            "rehabilitation exercises, walks and jumps, and acted everyday movements in several styles",
        ),
    ):
        yield Checkpoint(
            name=f"{NAMESPACE}/{short}",
            kind=USDRLModel,
            dataset=dataset,
            summary=summary,
            origin=origin,
            license=licence,
            limits=limits.format(motion=motion),
            recipe=short,
        )


def _checkpoints() -> dict[str, Checkpoint]:
    encoders = {checkpoint.name: checkpoint for checkpoint in _encoders()}
    every = (*_shipped(), *encoders.values(), *_heads(encoders))
    return {checkpoint.name: checkpoint for checkpoint in every}


CHECKPOINTS: dict[str, Checkpoint] = _checkpoints()


def namespace(given: str | None = None) -> str:
    """The hub's user or organisation that repositories of this project lie under.

    Args:
        given: The choice of a command line; the environment's USDRL_NAMESPACE, else "usdrl", where None.

    Raises:
        ValueError: If it cannot be part of a repository's name.
    """
    chosen = given or os.environ.get("USDRL_NAMESPACE") or NAMESPACE
    if not chosen.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"the namespace is '{chosen}': give the name of a user or an organisation of the hub")
    return chosen


def find_checkpoint(name: str) -> Checkpoint | None:
    """The registry's entry of a name, under "usdrl" or USDRL_NAMESPACE or bare; None where it has none."""
    owner, _, short = str(name).rpartition("/")
    return CHECKPOINTS.get(f"{NAMESPACE}/{short}") if owner in ("", NAMESPACE, namespace()) else None


@dataclass(frozen=True)
class CheckpointInfo:
    """What `list_checkpoints` says of a checkpoint.

    Attributes:
        name: Repository name.
        task: "embedding", "recognition", "detection", "segmentation" or "early prediction".
        dataset: Name of the training data.
        protocol: Which part of it trains.
        encoder: "dste" or "sttr".
        modality: Modality of its encoder.
        layout: Joint layout of its input.
        num_labels: Classes it tells apart, or None.
        num_bytes: Size of its weights.
        license: Licence of the weights.
        terms: Terms of the training data.
        origin: Where the weights come from.
        shipped: Whether it is here: in the package, or in the repository around it.
        benchmarks: Ids of the benchmarks that score it.
        published: What papers report, ``"benchmark metric"`` -> value in [0, 1].
        source: Where that stands.
        measured: What this project measured, by metric.
    """

    name: str
    task: str
    dataset: str
    protocol: str
    encoder: str
    modality: str
    layout: str
    num_labels: int | None
    num_bytes: int
    license: str
    terms: str
    origin: str
    shipped: bool
    benchmarks: tuple[str, ...]
    published: dict[str, float]
    source: str
    measured: dict[str, float]


def list_checkpoints(
    text: str = "", task: str | None = None, shipped: bool = False, owner: str | None = None
) -> list[CheckpointInfo]:
    """The checkpoints of this project, those that ship first.

    Args:
        text: Only names that contain it.
        task: Only those of a task, such as "detection".
        shipped: Only those that ship in the package.
        owner: Namespace of the names of those that do not; see `namespace`.

    Raises:
        ValueError: If there is no such task.
    """
    if task is not None and task not in (tasks := sorted({entry.task for entry in CHECKPOINTS.values()})):
        raise ValueError(f"there is no task '{task}': use one of {', '.join(tasks)}")
    chosen = [
        entry
        for entry in CHECKPOINTS.values()
        if text in entry.name and task in (None, entry.task) and (entry.folder is not None or not shipped)
    ]
    return [_describe(entry, namespace(owner)) for entry in sorted(chosen, key=lambda entry: entry.folder is None)]


def _describe(entry: Checkpoint, owner: str) -> CheckpointInfo:
    short = entry.name.partition("/")[2]
    return CheckpointInfo(
        name=entry.name if entry.folder is not None else f"{owner}/{short}",
        task=entry.task,
        dataset=entry.dataset,
        protocol=entry.protocol,
        encoder=entry.encoder,
        modality=entry.modality,
        layout=get_layout(entry.config.layout).name if entry.config.layout else "none",
        num_labels=entry.num_labels,
        num_bytes=entry.num_bytes,
        license=entry.license,
        terms=entry.facts.terms,
        origin=entry.origin,
        shipped=entry.folder is not None,
        benchmarks=entry.benchmarks,
        published={" ".join(key): value for key, value in entry.published.items()},
        source=entry.source,
        measured=entry.metrics.get("metrics", {}),
    )


def checkpoint_path(name: str) -> Path:
    """Folder of a checkpoint that ships in the package, for Auto classes and pipelines.

    Raises:
        CheckpointLoadError: If the package ships none of that name.
    """
    entry = find_checkpoint(name)
    if entry is None or entry.folder is None:
        shipped = sorted(name for name, entry in CHECKPOINTS.items() if entry.folder is not None)
        raise CheckpointLoadError(f"no checkpoint '{name}' ships with the package; there are: {', '.join(shipped)}")
    return entry.folder


def explain_missing(name: str) -> str:
    """What to say where a repository is not on the hub: how to make it, or which names are near; perhaps nothing.

    Args:
        name: A name of this project, with or without its namespace.

    Returns:
        Whole sentences, or nothing for the names of others.
    """
    entry = find_checkpoint(name)
    if entry is not None:
        return f"How to make it: {entry.how_to_make()}."
    owner, slash, short = str(name).rpartition("/")
    near = difflib.get_close_matches(short, [known.partition("/")[2] for known in CHECKPOINTS], n=3, cutoff=0.6)
    if slash and owner not in (NAMESPACE, namespace()) or not short or not (near or slash):
        return ""
    meant = f"Did you mean {' or '.join(f'{NAMESPACE}/{known}' for known in near)}?" if near else "See 'usdrl list'."
    return f"This project has no checkpoint of that name. {meant}"
