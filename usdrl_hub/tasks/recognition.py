"""Recognition: train a recogniser, fully or as a linear probe, and score it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from ..configuration_usdrl import USDRLConfig
from ..data.dataset import SkeletonData, open_data, source_name
from ..data.protocols import check_classes, with_clips
from ..data.splits import Parts, split_data
from ..errors import notice
from ..facts.checkpoints import ENCODER
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_folder
from ..layouts import get_layout
from ..loading import load_config, load_feature_extractor, load_model
from ..modeling_usdrl import USDRLForActionRecognition
from ..normalization import resize
from ..records import run_record, sha256, write_metrics
from ..sequence import SkeletonSequence
from ..visualize.page import shown_name
from .choice import FULL, SCRATCH, TITLES, Training
from .fit import FitRecipe, Progress
from .heads import with_head
from .report import TrainingReport


@dataclass(frozen=True)
class Evaluation:
    """How a recogniser is tested.

    Attributes:
        group_by: What is never on both sides of the split: "subject", "folder" or a column, see `split_data`; people
            where None and they are known.
        baseline: Also score nearest neighbours on the joints as they are in the file, and with each recording's mean
            position subtracted.
    """

    group_by: str | None = None
    baseline: bool = False


@dataclass(frozen=True)
class Console:
    """What is shown during a training.

    Attributes:
        say: Receives sentences: the split, the clips of each class, what is decided.
        warn: Receives the warnings about the model.
        bar: Show progress bars.
        report_to: Where transformers logs: "none", "tensorboard", "trackio" or "wandb".
    """

    say: Callable[[str], None] = lambda text: None
    warn: Callable[[str], None] = lambda text: notice(text, "warnings about the model")
    bar: bool = True
    report_to: str = "none"


def finetune(
    data: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence],
    output_dir: str | os.PathLike,
    model: str | os.PathLike | None = ENCODER,
    *,
    recipe: FitRecipe | None = None,
    method: str | None = None,
    config: Mapping[str, Any] | None = None,
    evaluation: Evaluation = Evaluation(),
    console: Console = Console(),
    seed: int = 0,
) -> dict[str, Any]:
    """Train a recogniser on a labelled data set, score it on the data set's test part, and write its folder.

    By default a validation part of the training people chooses between a linear probe and full fine-tuning; a handful
    of clips get a linear probe. The clips of full fine-tuning are augmented, see `ClipAugmentation`, and a new head on
    a pretrained encoder starts from the logistic regression on the encoder's features.

    Args:
        data: A data set in the ``.npz`` form of `SkeletonDataset`, with labels and `split_test` or `subjects`; or the
            folder of a `SkeletonStore`; one of them that is open; or labelled sequences, see `SkeletonList`. Sequences
            without a label and classes without a sequence are left out, with a warning.
        output_dir: Folder to make: weights, configuration, feature extractor, ``metrics.json``, ``predictions.csv`` of
            the tested clips, and ``report.html``.
        model: Checkpoint to start from; its head is kept if the class names are the same. None starts from random
            weights.
        recipe: How all weights are trained; `choice.FULL`, or `choice.SCRATCH` from random weights, where None.
            `linear_start` is set by whether the head is new.
        method: "linear", a logistic regression on the frozen encoder's features; "full"; or "auto" to choose. None is
            "full" where a recipe is given, else "auto".
        config: Fields of `USDRLConfig` for a model from random weights, and the `normalization` of its feature
            extractor.
        evaluation: How the model is tested.
        console: What is shown.
        seed: Random seed of weights, order and augmentation.

    Returns:
        The record that was written to ``metrics.json``.

    Raises:
        SkeletonFormatError: If the data cannot be read or split, or train a single class.
        CheckpointLoadError: If the model cannot be loaded.
        TrainingDivergedError: If a loss, gradient or weight comes to NaN or infinity; no folder is left then.
        ValueError: If the output folder is not empty, or an argument is impossible.
    """
    started = time.monotonic()
    method = method or ("auto" if recipe is None else "full")
    with new_folder(output_dir) as folder:
        where = str(data) if isinstance(data, str | os.PathLike) else source_name(data)
        known = None if model is None else load_config(model).class_names
        dataset = with_clips(open_data(data).drop_empty(), known, where)
        parts = split_data(dataset, evaluation.group_by, seed=seed)
        check_classes(parts.train, parts.test)
        set_seed(seed)
        classifier, extractor, has_head = _model(model, config or {}, dataset)
        _check_dimensions(where, model, dataset, extractor)
        recipe = recipe or (SCRATCH if model is None else FULL)
        recipe = replace(recipe, linear_start=model is not None and not has_head)
        # Refuse sequences that cannot be read before the training, not after it.
        for sequence in (*parts.train, *parts.test):
            extractor.prepare(sequence)
        _say_parts(console.say, parts)
        training = Training(
            classifier, extractor, parts, recipe, seed, Progress(console.bar, console.report_to), console.say
        )
        classifier, chosen, tried = training.run(method, model is not None)
        parts = replace(parts, rule=tried.rule)
        classifier.save_pretrained(folder)
        extractor.save_pretrained(folder)
        task = "linear recognition" if chosen.method == "linear" or recipe.freeze_encoder else "fine-tuned recognition"
        about = {
            "Task": task,
            "Starts from": "random weights" if model is None else shown_name(model),
            "Data": f"{source_name(data)}: {len(parts.train)} clips train, {len(parts.test)} test",
            "Split": parts.rule,
            "Method": f"{TITLES[chosen.method]}: {chosen.reason}",
        }
        if chosen.recipe is not None:
            about["Recipe"] = ", ".join(f"{name} {value}" for name, value in chosen.recipe.to_dict().items())
        report = TrainingReport(classifier, extractor, parts, about=about, history=chosen.history)
        report.write(folder, f"{Path(output_dir).name}: {source_name(data)}")
        for sentence in report.warnings:
            console.warn(f"{output_dir}: {sentence}")
        metrics = report.summary()
        if evaluation.baseline:
            metrics |= nearest_neighbour_baselines(parts.train, parts.test, extractor.num_frames)
        record = {
            "task": task,
            "dataset": source_name(data),
            "split": parts.rule,
            "groups": tried.to_dict(),
            "n": {"train": len(parts.train), "test": len(parts.test)},
            "choice": chosen.to_dict(),
            "metrics": metrics,
            **report.metrics(),
            "seed": seed,
            **run_record(started),
            "checkpoint_sha256": sha256(folder / "model.safetensors"),
        }
        write_metrics(folder, record)
    return record


def _say_parts(say: Callable[[str], None], parts: Parts) -> None:
    """The split, and the clips of each class."""
    say(f"split: {parts.rule}")
    names = parts.train.class_names
    trained, tested = (
        np.bincount(np.asarray(part.column("labels")), minlength=len(names)) for part in (parts.train, parts.test)
    )
    shown = [f"{name} {train}/{test}" for name, train, test in zip(names, trained, tested, strict=True)]
    say(f"clips of each class, training/test: {', '.join(shown)}")
    if trained.max() >= 10 * max(trained[trained > 0].min(), 1):
        say("the classes differ much in their number of clips: --balance weights them alike")


def _check_dimensions(
    where: str, model: str | os.PathLike | None, dataset: SkeletonData, extractor: USDRLFeatureExtractor
) -> None:
    """Refuse 2D keypoints for a model of 3D ones, and the reverse."""
    flat = [not get_layout(layout).is_3d for layout in (dataset.layout, extractor.layout)]
    if model is not None and flat[0] != flat[1]:
        kinds = ["2D" if is_flat else "3D" for is_flat in flat]
        raise ValueError(
            f"{where}: the keypoints are {kinds[0]}, but '{model}' reads {kinds[1]}: train from random weights "
            "with --from-scratch (model=None)"
        )


def _model(
    name: str | os.PathLike | None,
    fields: Mapping[str, Any],
    dataset: SkeletonData,
) -> tuple[USDRLForActionRecognition, USDRLFeatureExtractor, bool]:
    """The model to train, its feature extractor, and whether its head already has the data set's classes."""
    id2label = dict(enumerate(dataset.class_names))
    if name is None:
        normalization = fields.get("normalization")
        fields = {key: value for key, value in fields.items() if key != "normalization"}
        layout = fields.get("layout", dataset.layout.to_config())
        given = {"num_persons": dataset.max_persons, "num_joints": dataset.layout.num_joints} | dict(fields)
        config = USDRLConfig(**(given | {"layout": layout, "id2label": id2label}))
        extractor = USDRLFeatureExtractor.from_model_config(config, max_frames=None, normalization=normalization)
        return USDRLForActionRecognition(config), extractor, False
    if fields:
        raise ValueError(f"'{next(iter(fields))}' is for a model from random weights; '{name}' has its own")
    loaded, extractor = load_model(name, dtype=torch.float32), load_feature_extractor(name)
    config = loaded.config
    one_class = config.problem_type in (None, "single_label_classification")
    if isinstance(loaded, USDRLForActionRecognition) and one_class and config.id2label == id2label:
        return loaded, extractor, True
    return with_head(loaded, USDRLForActionRecognition, dataset.class_names), extractor, False


def nearest_neighbour_baselines(train: SkeletonData, test: SkeletonData, num_frames: int = 64) -> dict[str, float]:
    """Accuracy of the nearest training clip by joint coordinates, without any model.

    Args:
        train: Training sequences.
        test: Test sequences.
        num_frames: Frames that every sequence is resized to.

    Returns:
        Accuracy in [0, 1]: `baseline_1nn_raw` on the coordinates as they are, `baseline_1nn_centered` with each
        recording's mean position subtracted.
    """
    answers = [np.array([sequence.label for sequence in part]) for part in (train, test)]
    scores = {}
    for name, center in (("raw", False), ("centered", True)):
        features = []
        for part in (train, test):
            rows = []
            for sequence in part:
                frames = torch.from_numpy(sequence.keypoints)
                frames = frames - frames.mean(dim=(0, 2), keepdim=True) if center else frames
                rows.append(resize(frames, num_frames).flatten())
            features.append(torch.stack(rows))
        nearest = torch.cdist(features[1], features[0]).argmin(dim=1).numpy()
        scores[f"baseline_1nn_{name}"] = float((answers[0][nearest] == answers[1]).mean())
    return scores
