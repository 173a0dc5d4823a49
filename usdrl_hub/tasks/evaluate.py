"""One call for every benchmark: train what the task needs, score it, and write what is needed to repeat it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import set_seed

from ..data.augmentation import ClipAugmentation
from ..data.dataset import SkeletonData, open_data, source_name
from ..data.protocols import (
    check_classes,
    default_split,
    draw_exemplars,
    draw_labelled,
    ntu_split,
    parts_of,
    pku_cross_view,
    uav_split,
    with_clips,
)
from ..data.samples import load_samples
from ..data.store import SkeletonStore
from ..errors import notice
from ..facts.benchmarks import Benchmark, get_benchmark, missing_data
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_folder
from ..inference.embedding import embed_part
from ..inference.windows import frame_probabilities, segment
from ..loading import load_config, load_feature_extractor, load_model
from ..metrics.classification import accuracy, agreement
from ..metrics.detection import detection_metrics, point_metrics
from ..metrics.retrieval import retrieval_metrics, top_k
from ..metrics.segmentation import segmentation_metrics
from ..modeling_usdrl import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLPreTrainedModel,
)
from ..postprocessing import action_points, detect
from ..records import check_results, run_record, sha256, write_metrics
from ..sequence import DETECTION_THRESHOLD, SkeletonFormatError, SkeletonSequence
from ..visualize.pictures import draw_segments
from .detection import FrameLabelDataset, dilate_events, true_actions
from .early_prediction import LeftAlignedDataset, causal_accuracy, cut_and_resize_accuracy
from .fit import FitRecipe, fit
from .heads import Head, with_head
from .linear import fit_logistic_regression, train_linear
from .recognition import train_recogniser
from .segmentation import WholeVideoDataset
from .tiny import tiny_recordings


@dataclass(frozen=True)
class Context:
    """What a task's run has at hand.

    Attributes:
        encoder: A pretrained model, of which the encoder is taken.
        extractor: Its feature extractor.
        train: Training part.
        test: Test part.
        class_names: Names of the classes.
        recipe: The benchmark's recipe with the changes asked for.
        seed: Seeds everything drawn.
        folder: Where pictures go; None for nowhere.
        train_head: Whether heads are trained; otherwise the one that `encoder` has is scored as it is.
    """

    encoder: USDRLPreTrainedModel
    extractor: USDRLFeatureExtractor
    train: SkeletonData
    test: SkeletonData
    class_names: list[str]
    recipe: Mapping[str, Any]
    seed: int
    folder: Path | None = None
    train_head: bool = True

    def existing_head(self, head: type[Head]) -> Head | None:
        """The model as it is, where it is scored without training; None where a head is to be trained.

        Raises:
            ValueError: If its head is another one, or for other classes.
        """
        if self.train_head:
            return None
        model = self.encoder
        if not isinstance(model, head):
            raise ValueError(
                f"the model is {type(model).__name__}, and {head.__name__} is needed to score it without training: "
                "name one, or train a head"
            )
        if model.config.problem_type not in (None, "single_label_classification"):
            raise ValueError("the model does not name one class per clip, so it cannot be scored without training")
        # The background of older models has another name.
        if model.config.class_names[head.has_background :] != self.class_names:
            raise ValueError("the model's classes are not those of the data, so it cannot be scored without training")
        return model

    def new_head(self, head: type[Head], **fields: Any) -> Head:
        """A new head on a copy of the encoder, drawn from the seed; see `with_head`."""
        set_seed(self.seed)
        return with_head(self.encoder, head, self.class_names, **fields)


# What a task's run gives: its metrics, and the model it has trained, if any.
Outcome = tuple[dict[str, float], USDRLPreTrainedModel | None]


def evaluate(
    model: str | os.PathLike,
    benchmark: str | Benchmark,
    data: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence] | None = None,
    output_dir: str | os.PathLike | None = None,
    seed: int = 0,
    fold: int = 0,
    tiny: bool = False,
    with_leak: bool = False,
    changes: Mapping[str, Any] | None = None,
    train_head: bool = True,
) -> dict[str, Any]:
    """Train and score a pretrained model on a benchmark.

    Args:
        model: Checkpoint whose encoder is taken.
        benchmark: A benchmark, or its id.
        data: Its data: a store or an ``.npz`` file, one that is open, or sequences, see `SkeletonList`.
        output_dir: Folder to make for ``metrics.json`` and the trained model, if the task trains one; nothing is
            written where None.
        seed: Seeds heads, orders and draws.
        fold: Which of several splits of the data tests.
        tiny: Use clips that ship with the package, and few steps, to try the whole path.
        with_leak: Test also on the clips that the data call copies of training clips, as papers do.
        changes: Other values for entries of the recipe.
        train_head: Whether the task's head is trained; otherwise the one that the model has is scored as it is.

    Returns:
        The record that ``metrics.json`` holds; it is enough to repeat the run with `repeat`, unless the data were in
        memory.

    Raises:
        SkeletonFormatError: If the data cannot be read or split.
        CheckpointLoadError: If the model cannot be loaded.
        TrainingDivergedError: If the training of a head comes to NaN or infinity; nothing is written then.
        NonFiniteError: If what the model says, or a score, is NaN or infinite.
        ValueError: If the benchmark is unknown, its data are not given, or a change is no entry of its recipe.
    """
    started = time.monotonic()
    chosen = get_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    changes = dict(changes or {})
    if data is None and not tiny:
        raise ValueError(missing_data(chosen))
    recipe = {**chosen.recipe, **(_TINY.get(chosen.task, {}) if tiny else {}), **changes}
    unknown = sorted(set(changes) - set(chosen.recipe) - set(FitRecipe().to_dict()) - _OPTIONS)
    if unknown:
        raise ValueError(f"the recipe of {chosen.id} has no entry '{unknown[0]}'")
    with new_folder(output_dir) if output_dir is not None else nullcontext() as folder:
        given = None if train_head else load_config(model).class_names
        train, test, rule, names = _parts(chosen, data, fold, tiny, with_leak, given)
        extractor = load_feature_extractor(model)
        encoder = load_model(model, dtype=torch.float32)
        if torch.cuda.is_available():
            encoder = encoder.to("cuda")  # type: ignore[arg-type]
        context = Context(encoder, extractor, train, test, names, recipe, seed, folder, train_head)
        for sequence in (train[0], test[0]):
            extractor.prepare(sequence)
        metrics, trained = RUNS[chosen.task](context)
        check_results(metrics, chosen.id)
        record = {
            "benchmark": chosen.id,
            "task": chosen.task,
            "dataset": "tiny" if tiny else source_name(data),
            "split": rule,
            "n": {"train": len(train), "test": len(test)},
            "metric": chosen.metric,
            "metrics": metrics,
            "seed": seed,
            "recipe": recipe,
            "repeat": {
                "model": str(model),
                "benchmark": chosen.id,
                "data": _repeatable(data),
                "seed": seed,
                "fold": fold,
                "tiny": tiny,
                "with_leak": with_leak,
                "changes": changes,
                "train_head": train_head,
            },
            **run_record(started),
        }
        if folder is not None:
            if trained is not None and train_head:
                trained.save_pretrained(folder)
                extractor.save_pretrained(folder)
                record["checkpoint_sha256"] = sha256(folder / "model.safetensors")
            write_metrics(folder, record)
    return record


def repeat(metrics_file: str | os.PathLike, output_dir: str | os.PathLike | None = None) -> dict[str, Any]:
    """Run again what a ``metrics.json`` says.

    Args:
        metrics_file: The file.
        output_dir: See `evaluate`.

    Raises:
        ValueError: If the file is not one that `evaluate` wrote; else as `evaluate`.
    """
    try:
        arguments = json.loads(Path(metrics_file).read_text("utf-8"))["repeat"]
        if arguments["data"] == _IN_MEMORY:
            raise ValueError(f"{metrics_file}: its data were in memory, so the run cannot be repeated from the file")
        return evaluate(**arguments, output_dir=output_dir)
    except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(f"{metrics_file}: it is no metrics.json of 'usdrl evaluate'") from None


def _repeatable(data: Any) -> str | None:
    """Where data lie, for a later run; what is in memory is not there then."""
    if isinstance(data, SkeletonStore):
        return str(data.path) if len(data) == len(data.index["shard"]) else _IN_MEMORY
    return None if data is None else str(data) if isinstance(data, str | os.PathLike) else _IN_MEMORY


def _parts(
    benchmark: Benchmark, data: Any, fold: int, tiny: bool, with_leak: bool, given: list[str] | None
) -> tuple[SkeletonData, SkeletonData, str, list[str]]:
    """Training and test part, the rule that parts them, and the classes, those of `given` where they are the same."""
    if tiny:
        dataset: SkeletonData = (
            tiny_recordings() if benchmark.task in ("detection", "segmentation") else load_samples()
        )
        tests = np.isin(np.asarray(dataset.column("subjects")), [8, 10])
        return dataset.select(~tests), dataset.select(tests), "the last two of five people test", dataset.class_names
    dataset = open_data(data).drop_empty()
    if benchmark.labels != "labels":
        dataset = _relabelled(dataset, benchmark)
    of_frames = benchmark.task in ("detection", "segmentation")
    if not of_frames:
        dataset = with_clips(dataset, given, source_name(data))
    trains = _by_name(benchmark, dataset)
    if trains is not None:
        rule = f"{benchmark.dataset} {benchmark.protocol}"
        train, test = parts_of(dataset, trains, ~trains, rule)
    else:
        train, test, rule = default_split(dataset, fold, with_leak)
    if not of_frames:
        # One-shot recognition compares test clips with each other.
        alone = benchmark.task == "one-shot"
        check_classes(test if alone else train, None if alone else test, not alone and benchmark.task != "retrieval")
    return train, test, rule, dataset.class_names


def _relabelled(dataset: SkeletonData, benchmark: Benchmark) -> SkeletonData:
    """The data with the classes of another of their columns."""
    labels = dataset.column(benchmark.labels)
    if labels is None:
        raise SkeletonFormatError(f"{benchmark.id} needs data with the column '{benchmark.labels}'")
    return dataset.relabelled(labels.astype(np.int64), benchmark.class_names)


def _by_name(benchmark: Benchmark, dataset: SkeletonData) -> np.ndarray | None:
    """Who trains in a protocol that names tell, or None where the data's own split is to be used.

    Raises:
        SkeletonFormatError: If neither names nor the data say who trains in this protocol.
    """
    base, protocol = benchmark.dataset.removesuffix("-2d"), benchmark.protocol
    if protocol == "own":
        return None
    own = dataset.column("split_test")
    is_pku = base.startswith("pkummd")
    names = [name[:6] if is_pku and "_" in name else name for name in dataset.names]
    try:
        if base in ("ntu60", "ntu120"):
            trains = ntu_split(names, base, protocol)
        elif base == "uav":
            trains = uav_split(names, protocol)
        else:
            trains = pku_cross_view(names)
    except SkeletonFormatError:
        if own is None:
            raise
        notice(
            f"the names of the data do not tell who trains in {base} {protocol}, so their own split is used",
            "the data's own split",
        )
        return None
    same = own is not None and own.ndim == 1 and bool((own.astype(bool) == ~trains).all())
    if is_pku and protocol == "xsub":
        # Names of videos tell the view only; who trains stands in a file that the data were prepared with.
        if own is None or same:
            raise SkeletonFormatError(
                f"{benchmark.id}: the data {'do not say who trains' if own is None else 'are split by xview'}: "
                "prepare them with --protocol xsub --split-file FILE"
            )
        return None
    if own is not None and not same:
        notice(
            f"the data's own split is not {base} {protocol}, which the names tell: the names decide",
            "the data's own split",
        )
    return trains


def run_linear(context: Context) -> Outcome:
    """A linear layer on the frozen encoder's features."""
    if (head := context.existing_head(USDRLForActionRecognition)) is not None:
        return _scored(context, head), head
    features, labels = embed_part(context.encoder, context.extractor, context.train)
    recipe = context.recipe
    if recipe.get("solver") == "logistic":
        layer = fit_logistic_regression(features, labels, len(context.class_names), recipe["strength"])
    else:
        layer = train_linear(
            features,
            labels,
            len(context.class_names),
            recipe["learning_rate"],
            int(recipe["epochs"]),
            tuple(recipe["drop_epochs"]),
            recipe["batch_size"],
            context.seed,
        )
    classifier = context.new_head(USDRLForActionRecognition)
    classifier.classifier.load_state_dict(layer.state_dict())
    return _scored(context, classifier), classifier.eval()


def _scored(context: Context, classifier: USDRLForActionRecognition) -> dict[str, float]:
    """Accuracy of a recogniser on the test part."""
    features, labels = embed_part(classifier, context.extractor, context.test)
    with torch.no_grad():
        return accuracy(classifier.classifier(features.to(classifier.device)).cpu(), labels)


def run_finetuned(context: Context) -> Outcome:
    """All weights, or those of the head where the recipe freezes the encoder."""
    if (head := context.existing_head(USDRLForActionRecognition)) is not None:
        return _scored(context, head), head
    classifier = context.new_head(USDRLForActionRecognition)
    recipe = FitRecipe.of(context.recipe)
    scores = train_recogniser(classifier, context.extractor, context.train, context.test, recipe, context.seed)
    return {name: scores[name] for name in ("accuracy", "top5_accuracy") if name in scores}, classifier


def run_semi(context: Context) -> Outcome:
    """Fine-tuning with a share of the labels, several draws."""
    if not context.train_head:
        raise ValueError("semi-supervised recognition is the mean of several trained heads: it cannot do without")
    labels, accuracies = np.asarray(context.train.column("labels")), []
    for draw in range(context.recipe["draws"]):
        chosen = draw_labelled(labels, context.recipe["share"], context.seed + draw)
        part = replace(context, train=context.train.select(chosen), seed=context.seed + draw)
        accuracies.append(run_finetuned(part)[0]["accuracy"])
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return {"accuracy_mean": float(np.mean(accuracies)), "accuracy_std": spread}, None


def run_retrieval(context: Context) -> Outcome:
    """Nearest training clips by the cosine of the frozen encoder's embeddings."""
    gallery, labels = embed_part(context.encoder, context.extractor, context.train)
    queries, truth = embed_part(context.encoder, context.extractor, context.test)
    return retrieval_metrics(gallery, labels, queries, truth), None


def run_one_shot(context: Context) -> Outcome:
    """Nearest of a few exemplars of each class, drawn from the test part's classes; several draws."""
    features, labels = embed_part(context.encoder, context.extractor, context.test)
    recipe, accuracies = context.recipe, []
    for draw in range(recipe["draws"]):
        exemplar = draw_exemplars(labels, recipe["shots"], context.seed + draw)
        if exemplar.all():
            raise ValueError(f"with {recipe['shots']} exemplars of each class no clip is left to test: lower 'shots'")
        _, nearest = top_k(features[~exemplar], features[exemplar], 1)
        accuracies.append(agreement(labels[exemplar][nearest[:, 0].numpy()], labels[~exemplar]))
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return {"accuracy_mean": float(np.mean(accuracies)), "accuracy_std": spread}, None


def run_detection(context: Context) -> Outcome:
    """A class per frame of windows, segments of it, and PKU-MMD's metrics."""
    recipe = context.recipe
    widen = recipe.get("widen", 0)
    if (detector := context.existing_head(USDRLForActionDetection)) is None:
        detector = context.new_head(USDRLForActionDetection)
        videos = (dilate_events(sequence, widen) if widen else sequence for sequence in context.train)
        data = FrameLabelDataset(videos, context.extractor, recipe["stride"])
        fit(detector, data, FitRecipe.of(recipe), context.seed)
    averaged = bool(recipe.get("average_phases"))
    scored = frame_probabilities(detector, context.extractor, context.test, averaged=averaged)
    found = [values for _, values in scored]
    proposals = detect(found, recipe["threshold"])
    truth = true_actions(context.test)
    if context.folder is not None:
        first, likely = context.test[0], proposals[proposals[:, 4] > DETECTION_THRESHOLD]
        bands = {
            heading: rows[rows[:, 0] == 0, 1:4] - (1, 0, 0)
            for heading, rows in (("True", truth), ("Proposed", likely))
        }
        draw_segments(first, bands, context.class_names, first.name, context.folder / "timeline.png")
    if widen:
        moments = np.c_[truth[:, :2], truth[:, 2]]
        return point_metrics(
            action_points(proposals), moments, len(context.class_names), recipe["tolerance"]
        ), detector
    metrics = detection_metrics(proposals, truth, len(context.class_names), len(context.test))
    frames = [sequence.frame_labels() + 1 for sequence in context.test]
    predicted = [values.argmax(-1) for values in found]
    return {**metrics, "frame_accuracy": agreement(np.concatenate(predicted), np.concatenate(frames))}, detector


def run_segmentation(context: Context) -> Outcome:
    """A class per frame of whole videos."""
    if (segmenter := context.existing_head(USDRLForActionSegmentation)) is None:
        segmenter = context.new_head(USDRLForActionSegmentation)
        data = WholeVideoDataset(context.train, context.extractor, context.recipe["stride"])
        fit(segmenter, data, FitRecipe.of(context.recipe), context.seed, data.collate)
    found = segment(segmenter, context.extractor, context.test, context.recipe["stride"])
    truth = [sequence.frame_labels() + 1 for sequence in context.test]
    return segmentation_metrics(found, truth), segmenter


def run_early(context: Context) -> Outcome:
    """A recogniser of whole clips, tested on their beginnings."""
    _, classifier = run_finetuned(context)
    recogniser = cast(USDRLForActionRecognition, classifier)
    return cut_and_resize_accuracy(recogniser, context.extractor, list(context.test)), classifier


def run_early_causal(context: Context) -> Outcome:
    """A causal model that names the action after every frame."""
    if (model := context.existing_head(USDRLForEarlyActionPrediction)) is None:
        model = context.new_head(USDRLForEarlyActionPrediction, is_causal=True)
        recipe = FitRecipe.of(context.recipe)
        augment = ClipAugmentation(shortest_crop=1) if recipe.augment else None
        data = LeftAlignedDataset(list(context.train), context.extractor, augment)
        fit(model, data, recipe, context.seed)
    return causal_accuracy(model, context.extractor, list(context.test)), model


RUNS: dict[str, Callable[[Context], Outcome]] = {
    "linear": run_linear,
    "finetuned": run_finetuned,
    "semi": run_semi,
    "retrieval": run_retrieval,
    "one-shot": run_one_shot,
    "detection": run_detection,
    "segmentation": run_segmentation,
    "early": run_early,
    "early-causal": run_early_causal,
    # The encoder has been pretrained elsewhere; the training is that of fine-tuning.
    "transfer": run_finetuned,
}
# Stands in a record for data that no file holds.
_IN_MEMORY = "(data in memory)"
# Entries that tasks read besides those of `FitRecipe`.
_OPTIONS = {"solver", "strength", "share", "draws", "shots", "stride", "threshold", "average_phases"}
_OPTIONS |= {"widen", "tolerance"}
_SHORT = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-3, "optimizer": "adamw", "schedule": "cosine"}
_SHORT |= {"drop_epochs": [], "weight_decay": 0.05}
_TINY: dict[str, dict[str, Any]] = {
    "linear": {"epochs": 20, "drop_epochs": [15], "batch_size": 64},
    "finetuned": _SHORT,
    "semi": {**_SHORT, "share": 0.5, "draws": 2},
    "detection": {**_SHORT, "stride": 16},
    "segmentation": {**_SHORT, "epochs": 6, "batch_size": 2},
    "early": _SHORT,
    "early-causal": _SHORT,
    "transfer": _SHORT,
}
