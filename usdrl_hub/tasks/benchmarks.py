"""The benchmarks: data set x protocol x task x metric, how each is trained, and what the paper reports.

Which tables the paper counts as its 25 benchmarks is in the paper only; these are all combinations that its released
code and its README name, and the openly usable sets. Recipes are the releases'; those of the open sets, which the
releases do not know, are this project's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.facts import DATASETS, nearest
from ..postprocessing import RELEASE_THRESHOLD

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
_SOURCE = "arXiv 2508.12586, DSTE, joint"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        id: ``task/dataset-protocol``.
        task: One of `TASKS`.
        dataset: Name in `data.facts.DATASETS`.
        protocol: "xsub", "xview", "xset", "one-shot", or "own" for the split that the data bring.
        metric: The metric that papers compare.
        recipe: What trains and scores it, as plain values.
        published: What papers report: metric -> value in [0, 1].
        source: Where `published` stands.
        pretrained_on: What the encoder is pretrained on, where that is not the training part.
        labels: The data's array that holds the classes, where it is not `labels`.
        class_names: Names of those classes.
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


# The release's linear evaluation: a frozen encoder, SGD, 160 epochs.
_LINEAR = {
    "solver": "sgd",
    "learning_rate": 0.006,
    "epochs": 160,
    "drop_epochs": [120, 140],
    "batch_size": 512,
}
# Few clips: the best linear layer there is, by logistic regression.
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
_ONE_SHOT = {"shots": 1, "draws": 1}


def _benchmarks() -> list[Benchmark]:
    rows: list[Benchmark] = []

    def add(task: str, data: str, protocol: str, metric: str, recipe: Mapping[str, Any], **more: Any) -> None:
        name = data if protocol == "own" else f"{data}-{protocol}"
        rows.append(Benchmark(f"{task}/{name}", task, data, protocol, metric, recipe, **more))

    ntu = (("ntu60", "xsub"), ("ntu60", "xview"), ("ntu120", "xsub"), ("ntu120", "xset"))
    linear = dict(zip(ntu, (0.852, 0.917, 0.766, 0.781), strict=True))
    for data, protocol in ntu:
        recipe = {**_LINEAR, "learning_rate": 0.03} if (data, protocol) == ("ntu60", "xview") else _LINEAR
        published = {"accuracy": linear[data, protocol]}
        add("linear", data, protocol, "accuracy", recipe, published=published, source=_SOURCE)
    pku = {**_LINEAR, "learning_rate": 0.01}
    add("linear", "pkummd1", "xsub", "accuracy", pku)
    add("linear", "pkummd2", "xsub", "accuracy", pku, published={"accuracy": 0.544}, source=_SOURCE)
    for data, protocol in ntu:
        add("linear", f"{data}-2d", protocol, "accuracy", _LINEAR)
    for version in ("v1", "v2"):
        add("linear", "uav", version, "accuracy", _LINEAR)
    for data, protocol in ntu:
        add("retrieval", data, protocol, "accuracy_1nn", {})
    for protocol in ("xsub", "xview"):
        for share in (0.01, 0.1):
            recipe = {**_FINETUNED, "share": share, "draws": 5}
            rows.append(
                Benchmark(
                    f"semi-{round(100 * share)}/ntu60-{protocol}", "semi", "ntu60", protocol, "accuracy_mean", recipe
                )
            )
    published = {"mAP_action@0.5": 0.757, "mAP_video@0.5": 0.749}
    add("detection", "pkummd1", "xsub", "mAP_action@0.5", _DETECTION, published=published, source=_SOURCE)
    add("detection", "pkummd1", "xview", "mAP_action@0.5", _DETECTION)
    for protocol in ("xsub", "xview"):
        add("segmentation", "pkummd2", protocol, "frame_accuracy", _SEGMENTATION)
    for data, protocol in ntu[:3]:
        add("early", data, protocol, "mean_accuracy", _FINETUNED)
        add("early-causal", data, protocol, "mean_accuracy", _FINETUNED)
    add("one-shot", "ntu120", "one-shot", "accuracy_mean", _ONE_SHOT, pretrained_on="ntu120, the 100 other classes")
    for source in ("ntu60-xsub", "ntu120-xsub", "pkummd1-xsub"):
        rows.append(
            Benchmark(
                f"transfer/{source}-to-pkummd2-xsub",
                "transfer",
                "pkummd2",
                "xsub",
                "accuracy",
                _FINETUNED,
                pretrained_on=source,
            )
        )
    for data, protocol in ntu:
        add("finetuned", data, protocol, "accuracy", _FINETUNED)
    for data in ("utd_mhad", "nw_ucla", "utkinect", "sbu", "hdm05_11", "jhmdb", "ui_prmd_vicon"):
        # Swipes to the left and to the right, circles clockwise and not: a mirror image is another class.
        tuned = {**_OPEN_FINETUNED, "mirror": data != "utd_mhad"}
        add("linear", data, "own", "accuracy", _LOGISTIC)
        add("finetuned", data, "own", "accuracy", tuned)
        add("retrieval", data, "own", "accuracy_1nn", {})
        add("transfer", data, "own", "accuracy", tuned)
        add("one-shot", data, "own", "accuracy_mean", {"shots": 1, "draws": 5})
        recipe = {**tuned, "share": 0.1, "draws": 5}
        rows.append(Benchmark(f"semi-10/{data}", "semi", data, "own", "accuracy_mean", recipe))
    for data in ("utd_mhad", "nw_ucla", "utkinect"):
        tuned = {**_OPEN_FINETUNED, "mirror": data != "utd_mhad"}
        add("early", data, "own", "mean_accuracy", tuned)
        add("early-causal", data, "own", "mean_accuracy", {**tuned, "label_smoothing": 0.0})
    add("detection", "utkinect_untrimmed", "own", "mAP_action@0.5", _OPEN_DETECTION)
    add("segmentation", "utkinect_untrimmed", "own", "frame_accuracy", _SEGMENTATION)
    # Its events are moments: they are widened to train on, and found to within ten frames.
    moments = {**_OPEN_DETECTION, "epochs": 4, "stride": 32, "widen": 10, "tolerance": 10}
    add("detection", "msrc12", "own", "point_F1", moments)
    for task, recipe in (("linear", _LOGISTIC), ("finetuned", _OPEN_FINETUNED)):
        rows.append(
            Benchmark(
                f"{task}/ui_prmd_vicon-correct",
                task,
                "ui_prmd_vicon",
                "own",
                "accuracy",
                recipe,
                pretrained_on="motion of none of the test people",
                labels="correct",
                class_names=("done wrong", "done right"),
            )
        )
    return rows


BENCHMARKS: dict[str, Benchmark] = {benchmark.id: benchmark for benchmark in _benchmarks()}


def get_benchmark(name: str) -> Benchmark:
    """A benchmark by its id.

    Raises:
        ValueError: If there is none of that name; the message names the nearest.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark '{name}': {nearest(name, sorted(BENCHMARKS))}")
    return BENCHMARKS[name]


def missing_data(benchmark: Benchmark) -> str:
    """What to say where a benchmark's data are not given."""
    facts = DATASETS[benchmark.dataset]
    made = f"make {facts.prepare}"
    if facts.prepare.startswith("usdrl "):
        command = facts.prepare.replace("--protocol xsub", f"--protocol {benchmark.protocol}")
        # Of PKU-MMD's protocols the names of the videos tell the views, a file the people.
        command = command.replace(" --split-file FILE", "") if benchmark.protocol == "xview" else command
        made = f"prepare it with '{command}'"
    return (
        f"{benchmark.id} needs {facts.title}: {made}, and give it with --data, or use --tiny; get it from {facts.url} "
        f"(terms: {facts.terms})"
    )
