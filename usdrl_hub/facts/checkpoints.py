"""The registry of checkpoints: what each is, where its weights come from, and how to make them."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import CheckpointLoadError
from .benchmarks import BENCHMARKS, Benchmark
from .datasets import DATASETS, DatasetFacts
from .recipes import read_recipe

NAMESPACE = "usdrl"
# What is taken where no model is named: to embed, and to name actions.
ENCODER = f"{NAMESPACE}/mocap-tiny"
FLAT_ENCODER = f"{NAMESPACE}/mocap-2d"
RECOGNISER = f"{NAMESPACE}/tiny-uiprmd"
# The authors' weights: DSTE in the TPAMI release, STTR in the AAAI release.
ORIGINALS = {
    "dste": "https://github.com/wengwanjiang/FoundSkelModel (Model Zoo)",
    "sttr": "https://github.com/wengwanjiang/USDRL (Pretrained Models)",
}
# Checkpoints that ship in the package, in folders named owner--name.
CHECKPOINTS_FOLDER = Path(__file__).parent.parent / "checkpoints"
# Checkpoints in the project's repository only: their terms or size keep them out of the package.
REPOSITORY_FOLDER = CHECKPOINTS_FOLDER.parent.parent / "checkpoints"
# Where models are installed under a name: set USDRL_HOME to a folder that several users share.
_HOME, _INSTALLED = "~/.usdrl", "models"
_REPOSITORY = "in the folder checkpoints/ of the project's repository, not in the package"
_SHIPPED, _AUTHORS, _TO_TRAIN = "ships with the package", "the authors' release, to be converted", "to be trained"
_RESEARCH = "other"
# The paper's modalities, together and each by itself.
_MULTIMODAL = "joint+motion+bone"
_MODALITIES = _MULTIMODAL.split("+")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the registry.

    Attributes:
        name: Repository name, ``usdrl/<dataset>-<protocol>[-sttr][-<modality>][-<task>]`` for the paper's benchmarks.
        task: The head's `task`: "embedding", "recognition", "detection", "segmentation" or "early prediction".
        dataset: Name of the training data in `facts.datasets.DATASETS`.
        summary: One sentence about it.
        origin: Where its weights come from.
        limits: What it cannot do.
        license: Licence of the weights, in the hub's spelling.
        protocol: Training split; empty if the data set has only one.
        encoder: "dste" or "sttr".
        modality: Modality of the encoder.
        recipe: Name of its pretraining recipe, or empty.
        base: Name of the encoder under the head; empty for encoders.
        benchmarks: Ids of its benchmarks.
        published: Figures of papers: (benchmark, metric) -> value in [0, 1].
        source: Source of `published`.
    """

    name: str
    task: str
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
    def facts(self) -> DatasetFacts:
        """The training data."""
        return DATASETS[self.dataset]

    @property
    def folder(self) -> Path | None:
        """Folder of its weights, in the package or in the repository around it; None if there is none."""
        parent = REPOSITORY_FOLDER if self.origin == _REPOSITORY else CHECKPOINTS_FOLDER
        path = parent / self.name.replace("/", "--")
        return path if (path / "config.json").is_file() else None

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of its ``metrics.json``, or empty."""
        return self._read("metrics.json")

    @property
    def layout(self) -> str:
        """Name of the joint layout of its input."""
        return str((self._read("config.json") or read_recipe(self.recipe).model)["layout"])

    @property
    def shipped(self) -> bool:
        """Whether its weights are available, in the package or in the repository around it."""
        return self.folder is not None

    @property
    def measured(self) -> dict[str, float]:
        """This project's own figures by metric, in [0, 1]."""
        return self.metrics.get("metrics", {})

    @property
    def num_labels(self) -> int | None:
        """Number of classes without the background; None for encoders, and if only the data contain the classes."""
        if self.task == "embedding":
            return None
        names = self._read("config.json").get("id2label", ()) if self.folder is not None else self.facts.class_names
        return len(names) or None

    @property
    def num_bytes(self) -> int | None:
        """Size of its weights; None if it has no folder (then `hub.listing.num_bytes` computes it)."""
        if self.folder is None:
            return None
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder and self.folder / name
        return json.loads(path.read_text("utf-8")) if path and path.is_file() else {}

    def describe(self) -> dict[str, Any]:
        """Plain values for ``usdrl list --json``; the keys of `published` are "benchmark metric"."""
        names = ("name", "task", "dataset", "protocol", "encoder", "modality", "layout", "num_labels", "num_bytes")
        return {name: getattr(self, name) for name in (*names, "license", "origin", "benchmarks", "source")} | {
            "terms": self.facts.terms,
            "shipped": self.shipped,
            "published": {" ".join(key): value for key, value in self.published.items()},
            "measured": self.measured,
        }

    def how_to_make(self) -> str:
        """How to get or make the weights, as a sentence without its capital and full stop."""
        short = self.name.partition("/")[2]
        if self.origin == _AUTHORS:
            url = ORIGINALS[self.encoder].partition(" ")[0]
            return (
                f"download the original from {url} and run 'usdrl convert FILE.pth.tar --name {self.name}' once; then "
                "the name loads here, without a network, too"
            )
        if self.origin == _SHIPPED:
            return f"it ships with the package, as {self.name}"
        if self.origin == _REPOSITORY:
            return (
                f"take its folder from checkpoints/ of the project's repository, or run 'python benchmarks/motion.py "
                f"train {short} --data DATA --runs RUNS'; then use the folder"
            )
        if self.base:
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


_NTU = (("ntu60", "xsub"), ("ntu60", "xview"), ("ntu120", "xsub"), ("ntu120", "xset"))
# Data set, protocol and recipe of each encoder.
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
# Data sets for which the release has every modality, and STTR.
_EVERY_VARIANT = (*_NTU, ("pkummd2", "xsub"))
# Task of the head that a benchmark trains; benchmarks without a head are missing.
_HEAD_TASKS = {
    "linear": "recognition",
    "finetuned": "recognition",
    "semi": "recognition",
    "transfer": "recognition",
    "early": "recognition",
    "early-causal": "early prediction",
    "detection": "detection",
    "segmentation": "segmentation",
}
# Linear evaluation of the variants, in the order of `_EVERY_VARIANT`; `BENCHMARKS` has that of DSTE, joint.
_VARIANT_FIGURES = {
    ("sttr", "joint"): (0.842, 0.908, 0.760, 0.769, 0.518),
    ("sttr", _MULTIMODAL): (0.858, 0.918, 0.775, 0.788, 0.547),
}
_LIMITS = (
    "Its training data are recordings of indoor activities by people of one region, from one kind of sensor; other "
    "movements, people who move differently (children, patients) and other sensors are untested. With a head, it "
    "predicts one of its classes for any input, also for movements that it was not trained on."
)


def _variant_name(dataset: str, protocol: str, encoder: str, modality: str) -> str:
    parts = [dataset, protocol, "sttr" if encoder == "sttr" else "", "" if modality == "joint" else modality]
    return f"{NAMESPACE}/" + "-".join(part.replace("+", "-") for part in parts if part)


def _variants(dataset: str, protocol: str) -> Iterator[tuple[str, str]]:
    """Encoder and modality of each variant for a data set."""
    yield "dste", "joint"
    if (dataset, protocol) in _EVERY_VARIANT:
        yield from (("dste", modality) for modality in (*_MODALITIES[1:], _MULTIMODAL))
        yield from (("sttr", modality) for modality in (*_MODALITIES, _MULTIMODAL))


def _encoders() -> Iterator[Checkpoint]:
    for dataset, protocol, recipe in _ENCODERS:
        for encoder, modality in _variants(dataset, protocol):
            scored = [f"{task}/{dataset}-{protocol}" for task in ("retrieval", "one-shot")]
            if protocol == "one-shot":
                scored = ["one-shot/ntu120-one-shot"]
            yield Checkpoint(
                name=_variant_name(dataset, protocol, encoder, modality),
                task="embedding",
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
        base = encoders.get(f"{NAMESPACE}/{pretrained or f'{benchmark.dataset}-{benchmark.protocol}'}")
        if benchmark.task not in _HEAD_TASKS or base is None or benchmark.protocol == "own":
            continue
        task = benchmark.id.partition("/")[0] + (f"-{pretrained}" if pretrained else "")
        head = Checkpoint(
            name=f"{NAMESPACE}/{benchmark.dataset}-{benchmark.protocol}-{task}",
            task=_HEAD_TASKS[benchmark.task],
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
    trained_on = (head.dataset, head.protocol)
    for encoder, modality in list(_variants(*trained_on))[1:]:
        base = _variant_name(*trained_on, encoder, modality)
        figures = _VARIANT_FIGURES.get((encoder, modality))
        published = {(benchmark.id, "accuracy"): figures[_EVERY_VARIANT.index(trained_on)]} if figures else {}
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
        name=RECOGNISER,
        task="recognition",
        dataset="ui_prmd_vicon",
        summary="A small USDRL recogniser of ten rehabilitation movements, for first steps and for tests.",
        origin=_SHIPPED,
        license="apache-2.0",
        limits=(
            "It was trained on five healthy people in a laboratory, one person per clip, from optical motion "
            "capture. Of other movements it refuses most (see above), but takes gestures of standing people for its "
            "shoulder exercises: 84 % of those of UTD-MHAD (benchmarks/none_of_these.json). It does not judge whether "
            "an exercise is done well. Its training recipe was chosen with the accuracy on the test "
            "people in view, so that figure is a little optimistic. It is not a medical device."
        ),
    )
    limits = (
        "It distinguishes whole-body movements better than those of hands and objects, which its joints do not show. "
        "Of two people in contact it saw a few dances only. Its recipe was chosen on the sets named first, so their "
        "figures are a little optimistic. It has no classes of its own, and it is not a medical device."
    )
    tiny = Checkpoint(
        name=ENCODER,
        task="embedding",
        dataset="mocap",
        summary="A small encoder of any 3D motion, pretrained without labels on motion whose terms allow any use.",
        origin=_SHIPPED,
        license="apache-2.0",
        limits="It was trained on 1.6 hours of motion of healthy adults in laboratories: rehabilitation exercises, "
        f"walks, jumps, sports, dances and martial arts. {limits}",
        recipe="mocap-tiny",
    )
    yield tiny
    yield replace(
        tiny,
        name=f"{NAMESPACE}/mocap-base",
        summary=f"An encoder of any 3D motion, as {ENCODER} and of the same motion, with 256 numbers a token, not 96.",
        origin=_REPOSITORY,
        limits=f"It takes four times as long as {ENCODER} and is hardly better on the sets named first, but clearly "
        "on those that were scored at the end. It learned from the same 1.6 hours of motion of healthy adults in "
        f"laboratories. {limits}",
        recipe="mocap-base",
    )
    yield replace(
        tiny,
        name=FLAT_ENCODER,
        summary="A small encoder of 2D keypoints of any pose estimator, pretrained without labels on random cameras' "
        "views of the same 3D motion.",
        limits=(
            "It was trained on the motion of usdrl/mocap-tiny, 1.6 hours of healthy adults in laboratories, and has "
            "never seen a film: what estimators do to bodies is imitated. It reads where joints are, not how sure the "
            "estimator is of them, and no motion towards the camera. A body in 2D shows less than in 3D: prefer "
            "usdrl/mocap-tiny where joints are 3D. Its recipe was chosen with JHMDB in view, so those figures "
            "are a little optimistic. The tennis player who tests it is left-handed, those who train are not, which "
            "fine-tuning suffers from. It has no classes of its own, and it is not a medical device."
        ),
        recipe="mocap-2d",
    )


def _checkpoints() -> dict[str, Checkpoint]:
    encoders = {checkpoint.name: checkpoint for checkpoint in _encoders()}
    every = (*_shipped(), *encoders.values(), *_heads(encoders))
    return {checkpoint.name: checkpoint for checkpoint in every}


CHECKPOINTS: dict[str, Checkpoint] = _checkpoints()


def namespace(given: str | None = None) -> str:
    """The hub user or organisation that owns the repositories of this project.

    Args:
        given: The command line's choice; if None, the environment variable USDRL_NAMESPACE, else "usdrl".

    Raises:
        ValueError: If it is not a valid owner's name.
    """
    chosen = given or os.environ.get("USDRL_NAMESPACE") or NAMESPACE
    if not chosen.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"the namespace is '{chosen}': give the name of a user or an organisation of the hub")
    return chosen


def find_checkpoint(name: str) -> Checkpoint | None:
    """The registry's entry for a name without owner, or with "usdrl" or USDRL_NAMESPACE; None if there is none."""
    owner, _, short = str(name).rpartition("/")
    return CHECKPOINTS.get(f"{NAMESPACE}/{short}") if owner in ("", NAMESPACE, namespace()) else None


def encoder_for(model: Any, is_3d: bool) -> Any:
    """The encoder to train on data: `FLAT_ENCODER` instead of `ENCODER` where these are 2D keypoints."""
    return FLAT_ENCODER if model == ENCODER and not is_3d else model


def list_models(
    text: str = "", *, task: str | None = None, pretrained: bool = True, owner: str | None = None
) -> list[Checkpoint]:
    """The models of this project.

    Args:
        text: Text that names must contain.
        task: A task, such as "detection"; None for all.
        pretrained: Only models with available weights; if False, the paper's follow, to be converted or trained.
        owner: Namespace in the names of models without weights; see `namespace`.

    Returns:
        Names and facts of the models, those with weights first.

    Raises:
        ValueError: If the task is unknown.
    """
    if task is not None and task not in (tasks := sorted({entry.task for entry in CHECKPOINTS.values()})):
        raise ValueError(f"there is no task '{task}': use one of {', '.join(tasks)}")
    owner = namespace(owner)
    here, absent = [], []
    for entry in CHECKPOINTS.values():
        if text not in entry.name or task not in (None, entry.task):
            continue
        if entry.folder is not None:
            here.append(entry)
        elif not pretrained:
            absent.append(replace(entry, name=f"{owner}/{entry.name.partition('/')[2]}"))
    return here + absent


def installed_models() -> Path:
    """Folder of the models that are installed under a name: ``models`` in USDRL_HOME, by default ``~/.usdrl``."""
    return Path(os.environ.get("USDRL_HOME") or _HOME).expanduser() / _INSTALLED


def installed_names() -> list[str]:
    """Names of the models that are installed on this machine."""
    try:
        found = sorted(installed_models().glob("*--*/config.json"))
    except OSError:
        # A home that may not be read, such as another user's.
        return []
    return [path.parent.name.replace("--", "/", 1) for path in found]


def cached_names() -> list[str]:
    """Names of this project's models that the hub's cache holds."""
    from huggingface_hub import try_to_load_from_cache

    return [name for name in CHECKPOINTS if isinstance(try_to_load_from_cache(name, "config.json"), str)]


def installed_path(name: str) -> Path | None:
    """Folder of an installed model; None if no model is installed under the name, with or without its owner."""
    path = installed_models() / (name.replace("/", "--") if "/" in name else f"{NAMESPACE}--{name}")
    return path if os.path.isfile(path / "config.json") else None


def checkpoint_path(name: str) -> Path:
    """Folder of an installed or shipped checkpoint, for Auto classes and pipelines.

    Args:
        name: The checkpoint's name, such as "usdrl/tiny-uiprmd".

    Returns:
        The folder, with ``config.json`` and the weights in it.

    Raises:
        CheckpointLoadError: If no checkpoint of that name is here; the message lists those that are.
    """
    if (installed := installed_path(name)) is not None:
        return installed
    entry = find_checkpoint(name)
    if entry is None or entry.folder is None:
        if entry is not None:
            raise CheckpointLoadError(f"checkpoint '{name}' is not here. How to make it: {entry.how_to_make()}.")
        shipped = {name for name, entry in CHECKPOINTS.items() if entry.folder is not None}
        here = ", ".join(sorted({*shipped, *installed_names()}))
        raise CheckpointLoadError(f"no checkpoint '{name}' ships with the package or is installed; there are: {here}")
    return entry.folder


def misspelt(name: str) -> str:
    """Hint for a name that is nearly one of this project's; empty for any other.

    The hub need not be asked for it: what it has under that name all the same is named by its address.
    """
    owner, _, short = str(name).rpartition("/")
    if owner not in ("", NAMESPACE) or find_checkpoint(name) is not None:
        return ""
    near = difflib.get_close_matches(short, [known.partition("/")[2] for known in CHECKPOINTS], n=1, cutoff=0.9)
    if not near:
        return ""
    return (
        f"Did you mean {NAMESPACE}/{near[0]}? The hub was not asked; a newer model of that name is "
        f"hf://{NAMESPACE}/{short}"
    )


def explain_missing(name: str) -> str:
    """Hint for a repository that is not on the hub: how to make it, or similar names.

    Args:
        name: The repository, with or without its owner.

    Returns:
        Sentences; empty for the repositories of other owners.
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
