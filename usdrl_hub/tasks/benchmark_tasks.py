"""The tasks of the benchmarks: which head each needs, how it is trained on an encoder, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from ..data.augmentation import ClipAugmentation
from ..data.dataset import SkeletonData
from ..data.protocols import draw_exemplars, draw_labelled
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.embedding import embed_part
from ..inference.engine import Engine
from ..inference.windows import frame_probabilities, segment
from ..metrics.classification import accuracy, agreement
from ..metrics.detection import detection_metrics, point_metrics
from ..metrics.retrieval import retrieval_metrics, top_k
from ..metrics.segmentation import segmentation_metrics
from ..modeling_usdrl import (
    USDRLClassificationModel,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLPreTrainedModel,
)
from ..postprocessing import action_points, detect
from ..sequence import DETECTION_THRESHOLD
from ..visualize.pictures import draw_segments
from .choice import train_recogniser
from .detection import FrameLabelDataset, dilate_events, true_actions
from .early_prediction import LeftAlignedDataset, causal_accuracy, cut_and_resize_accuracy
from .fit import FitRecipe, fit
from .heads import Head, with_head
from .linear import fit_logistic_regression, train_linear
from .segmentation import WholeVideoDataset

Scores = dict[str, float]


@dataclass(frozen=True)
class Context:
    """The encoder, data and recipe of one evaluation.

    Attributes:
        encoder: A pretrained model, of which the encoder is taken.
        extractor: Its feature extractor.
        train: Training part.
        test: Test part.
        class_names: Names of the classes, without the background.
        recipe: The benchmark's recipe, with the caller's changes.
        seed: Random seed of everything that is drawn.
        folder: Where pictures are written; None for none.
        train_head: Whether heads are trained; otherwise the head of `encoder` is scored as it is.
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
            raise ValueError("the model does not predict one class per clip, so it cannot be scored without training")
        # The background of older models has another name.
        if model.config.class_names[head.has_background :] != self.class_names:
            raise ValueError("the model's classes are not those of the data, so it cannot be scored without training")
        return model

    def new_head(self, head: type[Head], **fields: Any) -> Head:
        """A new head on a copy of the encoder, drawn from the seed; see `with_head`."""
        set_seed(self.seed)
        return with_head(self.encoder, head, self.class_names, **fields)


@dataclass(frozen=True)
class Task:
    """How a task of the benchmarks is trained and scored.

    Attributes:
        score: The metrics of a model on the test part.
        head: The class that is scored; None where the encoder is.
        fit: Trains a new head on the training part; None where there is none to train.
        tiny: Other values of the recipe for a trial on the clips that ship.
    """

    score: Callable[[Context, Any], Scores]
    head: type[USDRLClassificationModel] | None = None
    fit: Callable[[Context], USDRLClassificationModel] | None = None
    tiny: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_untrimmed(self) -> bool:
        """Whether its data are recordings with events, not labelled clips."""
        return self.head is not None and self.head.has_background

    def run(self, context: Context) -> tuple[Scores, USDRLPreTrainedModel | None]:
        """Train the head where there is one to train, and score it.

        Returns:
            The metrics, and the head that was scored; None where the encoder was.
        """
        if self.head is None or self.fit is None:
            return self.score(context, context.encoder), None
        model = context.existing_head(self.head) or self.fit(context)
        return self.score(context, model), model


def fit_linear(context: Context) -> USDRLForActionRecognition:
    """A linear layer on the frozen encoder's features."""
    features, labels = embed_part(context.encoder, context.extractor, context.train, pooled=True)
    recipe, num_classes = context.recipe, len(context.class_names)
    if recipe.get("solver") == "logistic":
        layer = fit_logistic_regression(features, labels, num_classes, strength=recipe["strength"])
    else:
        layer = train_linear(
            features,
            labels,
            num_classes,
            learning_rate=recipe["learning_rate"],
            epochs=int(recipe["epochs"]),
            drop_epochs=tuple(recipe["drop_epochs"]),
            batch_size=recipe["batch_size"],
            seed=context.seed,
        )
    classifier = context.new_head(USDRLForActionRecognition)
    classifier.classifier.load_state_dict(layer.state_dict())
    return classifier.eval()


def fit_recogniser(context: Context) -> USDRLForActionRecognition:
    """All weights, or those of the head where the recipe freezes the encoder."""
    classifier = context.new_head(USDRLForActionRecognition)
    recipe = FitRecipe.of(context.recipe)
    train_recogniser(classifier, context.extractor, context.train, recipe, seed=context.seed)
    return classifier


def score_recogniser(context: Context, classifier: USDRLForActionRecognition) -> Scores:
    """Accuracy on the test part."""
    features, labels = embed_part(classifier, context.extractor, context.test, pooled=True)
    with torch.no_grad():
        return accuracy(classifier.classifier(features.to(classifier.device)).cpu(), labels)


def score_semi(context: Context, encoder: USDRLPreTrainedModel) -> Scores:
    """Fine-tuning with a share of the labels: the mean of several draws."""
    if not context.train_head:
        raise ValueError("semi-supervised recognition is the mean of several trained heads: it cannot do without")
    labels, accuracies = np.asarray(context.train.column("labels")), []
    for draw in range(context.recipe["draws"]):
        chosen = draw_labelled(labels, context.recipe["share"], context.seed + draw)
        part = replace(context, train=context.train.select(chosen), seed=context.seed + draw)
        accuracies.append(score_recogniser(part, fit_recogniser(part))["accuracy"])
    return _mean_and_deviation(accuracies)


def score_retrieval(context: Context, encoder: USDRLPreTrainedModel) -> Scores:
    """Nearest training clips by the cosine of the frozen encoder's embeddings."""
    gallery, labels = embed_part(encoder, context.extractor, context.train)
    queries, truth = embed_part(encoder, context.extractor, context.test)
    return retrieval_metrics(gallery, labels, queries, truth)


def score_one_shot(context: Context, encoder: USDRLPreTrainedModel) -> Scores:
    """Nearest of a few exemplars of each class, drawn from the test part's classes: the mean of several draws."""
    features, labels = embed_part(encoder, context.extractor, context.test)
    recipe, accuracies = context.recipe, []
    for draw in range(recipe["draws"]):
        exemplar = draw_exemplars(labels, recipe["shots"], context.seed + draw)
        if exemplar.all():
            raise ValueError(f"with {recipe['shots']} exemplars of each class no clip is left to test: lower 'shots'")
        _, nearest = top_k(features[~exemplar], features[exemplar], 1)
        accuracies.append(agreement(labels[exemplar][nearest[:, 0].numpy()], labels[~exemplar]))
    return _mean_and_deviation(accuracies)


def _mean_and_deviation(accuracies: list[float]) -> Scores:
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return {"accuracy_mean": float(np.mean(accuracies)), "accuracy_std": spread}


def fit_detector(context: Context) -> USDRLForActionDetection:
    """A class per frame of windows."""
    detector, recipe = context.new_head(USDRLForActionDetection), context.recipe
    widen = recipe.get("widen", 0)
    videos = (dilate_events(sequence, widen) if widen else sequence for sequence in context.train)
    data = FrameLabelDataset(videos, context.extractor, recipe["stride"])
    fit(detector, data, FitRecipe.of(recipe), seed=context.seed)
    return detector


def score_detector(context: Context, detector: USDRLForActionDetection) -> Scores:
    """PKU-MMD's metrics of the segments; of action points where the recipe dilates events."""
    recipe, num_classes = context.recipe, len(context.class_names)
    averaged = bool(recipe.get("average_phases"))
    scored = frame_probabilities(Engine(detector, context.extractor), context.test, averaged=averaged)
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
    if recipe.get("widen", 0):
        true_points = np.c_[truth[:, :2], truth[:, 2]]
        return point_metrics(action_points(proposals), true_points, num_classes, recipe["tolerance"])
    metrics = detection_metrics(proposals, truth, num_classes, len(context.test))
    frames = [sequence.frame_labels() + 1 for sequence in context.test]
    predicted = [values.argmax(-1) for values in found]
    return {**metrics, "frame_accuracy": agreement(np.concatenate(predicted), np.concatenate(frames))}


def fit_segmenter(context: Context) -> USDRLForActionSegmentation:
    """A class per frame of whole videos."""
    segmenter = context.new_head(USDRLForActionSegmentation)
    data = WholeVideoDataset(context.train, context.extractor, context.recipe["stride"])
    fit(segmenter, data, FitRecipe.of(context.recipe), seed=context.seed, collate=data.collate)
    return segmenter


def score_segmenter(context: Context, segmenter: USDRLForActionSegmentation) -> Scores:
    """Frame accuracy, edit score and segmental F1."""
    found = segment(Engine(segmenter, context.extractor), context.test, stride=context.recipe["stride"])
    truth = [sequence.frame_labels() + 1 for sequence in context.test]
    return segmentation_metrics(found, truth)


def score_early(context: Context, classifier: USDRLForActionRecognition) -> Scores:
    """A recogniser of whole clips on their beginnings, resized."""
    return cut_and_resize_accuracy(classifier, context.extractor, list(context.test))


def fit_early_predictor(context: Context) -> USDRLForEarlyActionPrediction:
    """A causal model that predicts the action after every frame."""
    model = context.new_head(USDRLForEarlyActionPrediction, is_causal=True)
    recipe = FitRecipe.of(context.recipe)
    augment = ClipAugmentation(shortest_crop=1) if recipe.augment else None
    data = LeftAlignedDataset(list(context.train), context.extractor, augment)
    fit(model, data, recipe, seed=context.seed)
    return model


def score_early_predictor(context: Context, model: USDRLForEarlyActionPrediction) -> Scores:
    """Accuracy after the first frames of clips."""
    return causal_accuracy(model, context.extractor, list(context.test))


_SHORT = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-3, "optimizer": "adamw", "schedule": "cosine"}
_SHORT |= {"drop_epochs": [], "weight_decay": 0.05}
_FINETUNED = Task(score_recogniser, USDRLForActionRecognition, fit_recogniser, _SHORT)
# By the names of `facts.benchmarks.TASKS`.
TASKS: dict[str, Task] = {
    "linear": Task(
        score_recogniser,
        USDRLForActionRecognition,
        fit_linear,
        {"epochs": 20, "drop_epochs": [15], "batch_size": 64},
    ),
    "finetuned": _FINETUNED,
    "semi": Task(score_semi, tiny={**_SHORT, "share": 0.5, "draws": 2}),
    "retrieval": Task(score_retrieval),
    "one-shot": Task(score_one_shot),
    "detection": Task(score_detector, USDRLForActionDetection, fit_detector, {**_SHORT, "stride": 16}),
    "segmentation": Task(
        score_segmenter, USDRLForActionSegmentation, fit_segmenter, {**_SHORT, "epochs": 6, "batch_size": 2}
    ),
    "early": Task(score_early, USDRLForActionRecognition, fit_recogniser, _SHORT),
    "early-causal": Task(score_early_predictor, USDRLForEarlyActionPrediction, fit_early_predictor, _SHORT),
    # The encoder was pretrained on other data; the training is that of fine-tuning.
    "transfer": _FINETUNED,
}
# Entries of recipes that tasks read besides those of `FitRecipe`.
OPTIONS = {"solver", "strength", "share", "draws", "shots", "stride", "threshold", "average_phases"}
OPTIONS |= {"widen", "tolerance"}
