"""Recognition: train a recogniser, fully or as a linear probe, and score it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from ..configuration_usdrl import USDRLConfig
from ..data.augmentation import ClipAugmentation
from ..data.clips import ClipDataset
from ..data.dataset import SkeletonData, open_data, source_name
from ..data.pose_errors import PoseErrors
from ..data.protocols import check_classes, with_clips
from ..data.splits import split_data
from ..errors import notice
from ..facts.checkpoints import ENCODER
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_folder
from ..inference.embedding import embed_part
from ..layouts import get_layout
from ..loading import load_config, load_feature_extractor, load_model
from ..modeling_usdrl import USDRLForActionRecognition
from ..normalization import resize
from ..records import run_record, sha256, write_metrics
from ..sequence import SkeletonSequence
from ..visualize.page import shown_name
from .fit import FitRecipe, fit
from .heads import with_head
from .linear import fit_logistic_regression
from .report import TrainingReport

# AdamW with a cosine schedule, as `finetune` trains.
FINETUNING = FitRecipe(label_smoothing=0.1)


def finetune(
    data: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence],
    output_dir: str | os.PathLike,
    model: str | os.PathLike | None = ENCODER,
    *,
    recipe: FitRecipe = FINETUNING,
    config: Mapping[str, Any] | None = None,
    normalization: str | None = None,
    group_by: str | None = None,
    baseline: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Train a recogniser on a labelled data set, score it on the data set's test part, and write its folder.

    The training clips are augmented, see `ClipAugmentation`. A new head on a pretrained encoder starts from the
    logistic regression on the encoder's features, so that a few clips are enough.

    Args:
        data: A data set in the ``.npz`` form of `SkeletonDataset`, with labels and `split_test` or `subjects`; or the
            folder of a `SkeletonStore`; one of them that is open; or labelled sequences, see `SkeletonList`. Sequences
            without a label and classes without a sequence are left out, with a warning.
        output_dir: Folder to make: weights, configuration, feature extractor, ``metrics.json``, ``predictions.csv`` of
            the tested clips, and ``report.html``.
        model: Checkpoint to start from; its head is kept if the class names are the same. None starts from random
            weights.
        recipe: How it is trained; `linear_start` is set by whether the head is new.
        config: Fields of `USDRLConfig` for a model from random weights.
        normalization: That of the feature extractor of a model from random weights; the layout's default where None.
        group_by: What is never on both sides of the split: "subject", "folder" or a column, see `split_data`.
        baseline: Also score nearest neighbours on the joints as they are in the file, and with each recording's mean
            position subtracted.
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
    with new_folder(output_dir) as folder:
        where = str(data) if isinstance(data, str | os.PathLike) else source_name(data)
        known = None if model is None else load_config(model).class_names
        dataset = with_clips(open_data(data).drop_empty(), known, where)
        parts = split_data(dataset, group_by, seed=seed)
        train, test, split = parts.train, parts.test, parts.rule
        check_classes(train, test)
        set_seed(seed)
        classifier, extractor, has_head = _model(model, config or {}, dataset, normalization)
        flat = [not get_layout(layout).is_3d for layout in (dataset.layout, extractor.layout)]
        if model is not None and flat[0] != flat[1]:
            kinds = ["2D" if is_flat else "3D" for is_flat in flat]
            raise ValueError(
                f"{where}: the keypoints are {kinds[0]}, but '{model}' reads {kinds[1]}: train from random weights "
                "with --from-scratch (model=None)"
            )
        recipe = replace(recipe, linear_start=model is not None and not has_head)
        # Refuse sequences that cannot be read before the training, not after it.
        for sequence in (*train, *test):
            extractor.prepare(sequence)
        history: list[dict[str, float]] = []
        scores = train_recogniser(
            classifier, extractor, train, test, recipe, seed=seed, progress=True, history=history
        )
        classifier.save_pretrained(folder)
        extractor.save_pretrained(folder)
        metrics: dict[str, float] = {name: scores[name] for name in ("accuracy", "top5_accuracy") if name in scores}
        task = "linear recognition" if recipe.freeze_encoder else "fine-tuned recognition"
        about = {
            "Task": task,
            "Starts from": "random weights" if model is None else shown_name(model),
            "Data": f"{source_name(data)}: {len(train)} clips train, {len(test)} test",
            "Split": split,
            "Recipe": ", ".join(f"{name} {value}" for name, value in recipe.to_dict().items()),
        }
        report = TrainingReport(classifier, extractor, parts, about=about, history=history)
        metrics |= {name: report.scores[name] for name in ("balanced_accuracy", "macro_f1")}
        report.write(folder, f"{Path(output_dir).name}: {source_name(data)}")
        for sentence in report.warnings:
            notice(f"{output_dir}: {sentence}", "warnings about the model")
        if baseline:
            metrics |= nearest_neighbour_baselines(train, test, extractor.num_frames)
        record = {
            "task": task,
            "dataset": source_name(data),
            "split": split,
            "groups": parts.to_dict(),
            "n": {"train": len(train), "test": len(test)},
            "metrics": metrics,
            **report.metrics(),
            "seed": seed,
            **run_record(started),
            "checkpoint_sha256": sha256(folder / "model.safetensors"),
        }
        write_metrics(folder, record)
    return record


def train_recogniser(
    classifier: USDRLForActionRecognition,
    extractor: USDRLFeatureExtractor,
    train: SkeletonData,
    test: SkeletonData | None,
    recipe: FitRecipe,
    *,
    seed: int = 0,
    progress: bool = False,
    history: list[dict[str, float]] | None = None,
) -> dict[str, float]:
    """Train a recogniser in place, and score it on the test part if there is one; see `fit`."""
    if recipe.linear_start:
        if torch.cuda.is_available():
            classifier.to("cuda")  # type: ignore[arg-type]
        features, labels = embed_part(classifier, extractor, train, pooled=True)
        start = fit_logistic_regression(features, labels, len(classifier.config.class_names))
        classifier.classifier.load_state_dict(start.state_dict())
    augment = None
    if recipe.augment:
        augment = ClipAugmentation(
            mirrored=get_layout(extractor.layout).mirrored if recipe.mirror else None,
            pose_errors=PoseErrors(recipe.pose_errors, fill=extractor.fill_joints) if recipe.pose_errors else None,
            layout=extractor.layout,
            center_joint=extractor.center_joint,
            pace=float(np.mean(train.lengths)) / extractor.num_frames,
        )
    tested = None if test is None else ClipDataset(test, extractor)
    clips = ClipDataset(train, extractor, augment)
    return fit(classifier, clips, recipe, seed=seed, test=tested, progress=progress, history=history)


def _model(
    name: str | os.PathLike | None,
    fields: Mapping[str, Any],
    dataset: SkeletonData,
    normalization: str | None,
) -> tuple[USDRLForActionRecognition, USDRLFeatureExtractor, bool]:
    """The model to train, its feature extractor, and whether its head already has the data set's classes."""
    id2label = dict(enumerate(dataset.class_names))
    if name is None:
        layout = fields.get("layout", dataset.layout.to_config())
        given = {"num_persons": dataset.max_persons, "num_joints": dataset.layout.num_joints} | dict(fields)
        config = USDRLConfig(**(given | {"layout": layout, "id2label": id2label}))
        extractor = USDRLFeatureExtractor.from_model_config(config, max_frames=None, normalization=normalization)
        return USDRLForActionRecognition(config), extractor, False
    if normalization is not None:
        fields = {**fields, "normalization": normalization}
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
