"""The benchmarks: data set x protocol x task x metric, how each is trained, and what the paper reports.

These are all combinations in the released code and its README, and the openly usable data sets; only the paper says
which of its tables it counts as its 25 benchmarks. Recipes are the releases', or this project's for the open sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .datasets import DATASETS, nearest

TASKS = (
    "linear",
    "finetuned",
    "semi",
    "retrieval",
    "one-shot",
    "detection",
    "segmentation",
    "early",
    "early-causal",
    "transfer",
)
# The release's threshold: a frame with a higher probability belongs to a segment.
RELEASE_THRESHOLD = 0.02
_SOURCE = "arXiv 2508.12586, DSTE, joint"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        id: ``task/dataset-protocol``.
        task: One of `TASKS`.
        dataset: Name in `facts.datasets.DATASETS`.
        protocol: "xsub", "xview", "xset", "one-shot", or "own" for a split that comes with the data.
        metric: The main metric.
        recipe: Settings of training and scoring, as plain values.
        published: Figures of papers: metric -> value in [0, 1].
        source: Source of `published`.
        pretrained_on: Pretraining data of the encoder, if not the training part.
        labels: Name of the array of class labels in the data.
        class_names: Names of the classes; empty for those of the data set.
    """

    id: str
    task: str
    dataset: str
    protocol: str
    metric: str
    recipe: Mapping[str, Any]
    published: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    pretrained_on: str = ""
    labels: str = "labels"
    class_names: tuple[str, ...] = ()


# Linear evaluation as in the release: a frozen encoder, SGD, 160 epochs.
_LINEAR = {
    "solver": "sgd",
    "learning_rate": 0.006,
    "epochs": 160,
    "drop_epochs": [120, 140],
    "batch_size": 512,
}
# For few clips: the optimal linear layer, by logistic regression.
_LOGISTIC: dict[str, Any] = {"solver": "logistic", "strength": 1.0}
_FINETUNED = {"epochs": 40, "batch_size": 64, "learning_rate": 3e-4, "label_smoothing": 0.1}
_OPEN_FINETUNED: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "label_smoothing": 0.1,
    "mirror": True,
}
_DETECTION = {
    "epochs": 150,
    "batch_size": 512,
    "learning_rate": 0.005,
    "optimizer": "sgd",
    "weight_decay": 0.0,
    "schedule": "constant",
    "max_grad_norm": 0.0,
    "augment": False,
    "stride": 32,
    "threshold": RELEASE_THRESHOLD,
}
_OPEN_DETECTION = {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3, "augment": False, "stride": 4}
_OPEN_DETECTION |= {"threshold": RELEASE_THRESHOLD}
_SEGMENTATION = {"epochs": 60, "batch_size": 2, "learning_rate": 5e-4, "weight_decay": 1e-4, "augment": False}
_SEGMENTATION |= {"stride": 16}
_NTU = (("ntu60", "xsub"), ("ntu60", "xview"), ("ntu120", "xsub"), ("ntu120", "xset"))
_PKU_LINEAR = {**_LINEAR, "learning_rate": 0.01}
_TRIMMED = ("utd_mhad", "nw_ucla", "utkinect", "sbu", "hdm05_11", "jhmdb", "ui_prmd_vicon")


def _tuned(dataset: str) -> dict[str, Any]:
    """Fine-tuning on an open set; UTD-MHAD is not mirrored: a mirrored swipe or circle is another of its classes."""
    return {**_OPEN_FINETUNED, "mirror": dataset != "utd_mhad"}


def _row(
    task: str, dataset: str, protocol: str, metric: str, recipe: Mapping[str, Any], *, id: str = "", **fields: Any
) -> Benchmark:
    """A benchmark; its id follows from its other fields unless given."""
    name = id or f"{task}/{dataset}" + ("" if protocol == "own" else f"-{protocol}")
    return Benchmark(name, task, dataset, protocol, metric, recipe, **fields)


def _published(**values: float) -> dict[str, Any]:
    """The paper's figures with their source."""
    return {"published": values, "source": _SOURCE}


# The benchmarks of the paper and of its released code.
_OF_THE_PAPER = (
    _row("linear", "ntu60", "xsub", "accuracy", _LINEAR, **_published(accuracy=0.852)),
    _row("linear", "ntu60", "xview", "accuracy", {**_LINEAR, "learning_rate": 0.03}, **_published(accuracy=0.917)),
    _row("linear", "ntu120", "xsub", "accuracy", _LINEAR, **_published(accuracy=0.766)),
    _row("linear", "ntu120", "xset", "accuracy", _LINEAR, **_published(accuracy=0.781)),
    _row("linear", "pkummd1", "xsub", "accuracy", _PKU_LINEAR),
    _row("linear", "pkummd2", "xsub", "accuracy", _PKU_LINEAR, **_published(accuracy=0.544)),
    *(_row("linear", f"{data}-2d", protocol, "accuracy", _LINEAR) for data, protocol in _NTU),
    *(_row("linear", "uav", version, "accuracy", _LINEAR) for version in ("v1", "v2")),
    *(_row("retrieval", data, protocol, "accuracy_1nn", {}) for data, protocol in _NTU),
    *(
        _row(
            "semi",
            "ntu60",
            protocol,
            "accuracy_mean",
            {**_FINETUNED, "share": share / 100, "draws": 5},
            id=f"semi-{share}/ntu60-{protocol}",
        )
        for protocol in ("xsub", "xview")
        for share in (1, 10)
    ),
    _row(
        "detection",
        "pkummd1",
        "xsub",
        "mAP_action@0.5",
        _DETECTION,
        **_published(**{"mAP_action@0.5": 0.757, "mAP_video@0.5": 0.749}),
    ),
    _row("detection", "pkummd1", "xview", "mAP_action@0.5", _DETECTION),
    *(_row("segmentation", "pkummd2", protocol, "frame_accuracy", _SEGMENTATION) for protocol in ("xsub", "xview")),
    *(
        _row(task, data, protocol, "mean_accuracy", _FINETUNED)
        for data, protocol in _NTU[:3]
        for task in ("early", "early-causal")
    ),
    _row(
        "one-shot",
        "ntu120",
        "one-shot",
        "accuracy_mean",
        {"shots": 1, "draws": 1},
        pretrained_on="ntu120, the 100 other classes",
    ),
    *(
        _row(
            "transfer",
            "pkummd2",
            "xsub",
            "accuracy",
            _FINETUNED,
            id=f"transfer/{source}-to-pkummd2-xsub",
            pretrained_on=source,
        )
        for source in ("ntu60-xsub", "ntu120-xsub", "pkummd1-xsub")
    ),
    *(_row("finetuned", data, protocol, "accuracy", _FINETUNED) for data, protocol in _NTU),
)
# The openly usable sets, with their own splits.
_OPEN = (
    *(
        row
        for data in _TRIMMED
        for row in (
            _row("linear", data, "own", "accuracy", _LOGISTIC),
            _row("finetuned", data, "own", "accuracy", _tuned(data)),
            _row("retrieval", data, "own", "accuracy_1nn", {}),
            _row("transfer", data, "own", "accuracy", _tuned(data)),
            _row("one-shot", data, "own", "accuracy_mean", {"shots": 1, "draws": 5}),
            _row(
                "semi", data, "own", "accuracy_mean", _tuned(data) | {"share": 0.1, "draws": 5}, id=f"semi-10/{data}"
            ),
        )
    ),
    *(
        row
        for data in ("utd_mhad", "nw_ucla", "utkinect")
        for row in (
            _row("early", data, "own", "mean_accuracy", _tuned(data)),
            _row("early-causal", data, "own", "mean_accuracy", {**_tuned(data), "label_smoothing": 0.0}),
        )
    ),
    _row("detection", "utkinect_untrimmed", "own", "mAP_action@0.5", _OPEN_DETECTION),
    _row("segmentation", "utkinect_untrimmed", "own", "frame_accuracy", _SEGMENTATION),
    # Its events are action points: dilated for training, and matched within ten frames.
    _row(
        "detection",
        "msrc12",
        "own",
        "point_F1",
        {**_OPEN_DETECTION, "epochs": 4, "stride": 32, "widen": 10, "tolerance": 10},
    ),
    *(
        _row(
            task,
            "ui_prmd_vicon",
            "own",
            "accuracy",
            recipe,
            id=f"{task}/ui_prmd_vicon-correct",
            pretrained_on="motion of none of the test people",
            labels="correct",
            class_names=("done wrong", "done right"),
        )
        for task, recipe in (("linear", _LOGISTIC), ("finetuned", _OPEN_FINETUNED))
    ),
)

BENCHMARKS: dict[str, Benchmark] = {row.id: row for row in (*_OF_THE_PAPER, *_OPEN)}


def get_benchmark(name: str) -> Benchmark:
    """Look a benchmark up by its id.

    Raises:
        ValueError: If no benchmark has the name; the message suggests similar ones.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark '{name}': {nearest(name, sorted(BENCHMARKS))}")
    return BENCHMARKS[name]


def missing_data(benchmark: Benchmark) -> str:
    """The error message for a benchmark without data: how to prepare them and where to get them."""
    facts = DATASETS[benchmark.dataset]
    made = f"make {facts.prepare}"
    if facts.prepare.startswith("usdrl "):
        command = facts.prepare.replace("--protocol xsub", f"--protocol {benchmark.protocol}")
        # PKU-MMD's video names contain the view, so only xsub needs a split file.
        command = command.replace(" --split-file FILE", "") if benchmark.protocol == "xview" else command
        made = f"prepare it with '{command}'"
    return (
        f"{benchmark.id} needs {facts.title}: {made}, and give it with --data, or use --tiny; get it from {facts.url} "
        f"(terms: {facts.terms})"
    )
