"""How a recogniser is trained: linear probe or full fine-tuning, by the number of clips and by validation."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ..data.augmentation import ClipAugmentation, mirror_image
from ..data.clips import ClipDataset
from ..data.dataset import SkeletonData
from ..data.pose_errors import PoseErrors
from ..data.splits import Parts, with_validation
from ..errors import NonFiniteError, TrainingDivergedError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.embedding import embed_part
from ..layouts import get_layout
from ..metrics.classification import paired_difference
from ..modeling_usdrl import USDRLForActionRecognition
from .fit import FitRecipe, Progress, class_weights, clip_weights, fit
from .linear import fit_logistic_regression
from .report import class_probabilities
from .state import RunState

METHODS = ("auto", "linear", "full")
TITLES = {"linear": "linear probe", "full": "full fine-tuning"}
# Of a pretrained encoder: it learns more slowly than the head, and the learning rate rises from zero, so that the
# first steps do not spoil it. Chosen on training people of utd_mhad and utkinect.
FULL = FitRecipe(
    epochs=10,
    min_steps=200,
    batch_size=16,
    learning_rate=1e-3,
    encoder_rate=0.3,
    label_smoothing=0.1,
    linear_start=True,
)
# Of random weights.
SCRATCH = FitRecipe(label_smoothing=0.1)
# With fewer training clips in the median class, a linear probe is taken without a trial; with as many clips in all as
# the second number, the weights that validated best are kept, and no second training follows.
HANDFUL, MANY = 4, 5000
# Clips by which the time of a training is estimated.
_TIMED = 16


@dataclass(frozen=True)
class Chosen:
    """A method, and why it was taken.

    Attributes:
        method: "linear" or "full".
        reason: Why, as a sentence.
        recipe: How the full model was trained; None for a linear probe.
        validation: Accuracy on the validation part by method, with the number of its clips as `n`; every class counts
            alike where the recipe balances them. Empty where nothing was tried.
        history: See `Progress`.
    """

    method: str
    reason: str
    recipe: FitRecipe | None
    validation: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The choice, as JSON has it."""
        recipe = None if self.recipe is None else self.recipe.to_dict()
        return {"method": self.method, "reason": self.reason, "recipe": recipe, "validation": self.validation}


def train_recogniser(
    classifier: USDRLForActionRecognition,
    extractor: USDRLFeatureExtractor,
    train: SkeletonData,
    recipe: FitRecipe,
    *,
    seed: int = 0,
    validation: SkeletonData | None = None,
    progress: Progress | None = None,
) -> Progress:
    """Train a recogniser in place, see `fit`."""
    if recipe.linear_start:
        train_linear_probe(classifier, extractor, train, recipe)
    augment = None
    if recipe.augment:
        augment = ClipAugmentation(
            mirrored=get_layout(extractor.layout).mirrored if recipe.mirror else None,
            pose_errors=PoseErrors(recipe.pose_errors, fill=extractor.fill_joints) if recipe.pose_errors else None,
            layout=extractor.layout,
            center_joint=extractor.center_joint,
            pace=float(np.mean(train.lengths)) / extractor.num_frames,
        )
    return fit(
        classifier,
        ClipDataset(train, extractor, augment),
        recipe,
        seed=seed,
        validation=None if validation is None else ClipDataset(validation, extractor),
        labels=np.asarray(train.column("labels")),
        progress=progress,
    )


def train_linear_probe(
    classifier: USDRLForActionRecognition, extractor: USDRLFeatureExtractor, train: SkeletonData, recipe: FitRecipe
) -> None:
    """Put a logistic regression on the frozen encoder's features into the head of a recogniser.

    Of the recipe, `balance` and `mirror` count: mirror images of all clips are then learned from, too.
    """
    if torch.cuda.is_available():
        classifier.to("cuda")  # type: ignore[arg-type]
    features, labels = embed_part(classifier, extractor, train, pooled=True)
    if recipe.mirror:
        mirror = partial(mirror_image, mirrored=get_layout(extractor.layout).mirrored)
        images, again = embed_part(classifier, extractor, train, pooled=True, change=mirror)
        features, labels = torch.cat([features, images]), np.concatenate([labels, again])
    count = len(classifier.config.class_names)
    weights = class_weights(labels, count) if recipe.balance else None
    layer = fit_logistic_regression(features, labels, count, weights=weights)
    classifier.classifier.load_state_dict(layer.state_dict())
    classifier.eval()


def estimated_seconds(
    classifier: USDRLForActionRecognition,
    extractor: USDRLFeatureExtractor,
    train: SkeletonData,
    recipe: FitRecipe,
    method: str,
) -> float:
    """Seconds that a training takes at most, about, from the time in which a few clips are classified.

    Args:
        classifier: The model to train.
        extractor: Its feature extractor.
        train: Training clips.
        recipe: Of the full model.
        method: See `Training.run`.
    """
    some = np.arange(len(train)) < _TIMED
    class_probabilities(classifier, extractor, train.select(some))
    begun = time.monotonic()
    class_probabilities(classifier, extractor, train.select(some))
    each, count = (time.monotonic() - begun) / some.sum(), len(train)
    # A step takes about three times as long as an answer; "auto" trains twice.
    passes = {"full": 3.0, "auto": 6.0}.get(method, 0.0) * recipe.epochs_for(count)
    return float(each * count * (passes + 1))


@dataclass
class Training:
    """The training of a recogniser by a method, or by the one that a validation part finds better.

    Attributes:
        classifier: The model to start from; it is trained in place, or a copy of it is.
        extractor: Its feature extractor.
        parts: What trains, without a validation part.
        recipe: Of the full model.
        seed: Random seed of the order and the augmentation.
        progress: How the training is shown.
        say: Receives what is decided, as sentences.
        state: Keeps what is done, so that a run that was killed goes on; None for none.
        key: Name of this training in the state.
    """

    classifier: USDRLForActionRecognition
    extractor: USDRLFeatureExtractor
    parts: Parts
    recipe: FitRecipe
    seed: int = 0
    progress: Progress = field(default_factory=Progress)
    say: Callable[[str], None] = lambda text: None
    state: RunState | None = None
    key: str = "main"

    def run(self, method: str = "auto", is_pretrained: bool = True) -> tuple[USDRLForActionRecognition, Chosen, Parts]:
        """Train.

        A trial trains on the training part without its validation part. Full fine-tuning is taken unless the linear
        probe is better on the validation part by more than one standard error of the difference; what is taken then
        trains on both parts. With many clips, the weights that validated best are kept instead.

        Args:
            method: "linear", "full", or "auto" to choose.
            is_pretrained: Whether the encoder has features for a linear probe.

        Returns:
            The model, what was chosen, and the parts, with a validation part where one was used.

        Raises:
            ValueError: If there is no such method.
        """
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got '{method}'")
        counts = np.bincount(np.asarray(self.parts.train.column("labels")))
        typical = int(np.median(counts[counts > 0]))
        tried = with_validation(self.parts, self.seed)
        many = counts.sum() >= MANY and tried.validation is not None
        reason = "as asked for"
        if method == "auto" and not is_pretrained:
            method, reason = "full", "the weights are random, so there are no features for a linear probe"
        elif method == "auto" and (typical < HANDFUL or tried.validation is None):
            clips = "1 training clip" if typical == 1 else f"{typical} training clips"
            method, reason = "linear", f"the median class has {clips}, too few to compare it with full fine-tuning"
        if method == "linear":
            return *self._linear(reason, {}), self.parts
        if method == "full" and not many:
            return *self._full(reason, {}, self.recipe), self.parts
        return *self._tried(method, tried, bool(many)), tried

    def _linear(self, reason: str, validation: dict[str, float]) -> tuple[USDRLForActionRecognition, Chosen]:
        self.say(f"{TITLES['linear']}: {reason}")
        train_linear_probe(self.classifier, self.extractor, self.parts.train, self.recipe)
        return self.classifier, Chosen("linear", reason, None, validation, self.progress.history)

    def _full(
        self,
        reason: str,
        validation: dict[str, float],
        recipe: FitRecipe,
        tried: USDRLForActionRecognition | None = None,
    ) -> tuple[USDRLForActionRecognition, Chosen]:
        self.say(f"{TITLES['full']}: {reason}")
        progress = self._progress("final")
        train_recogniser(self.classifier, self.extractor, self.parts.train, recipe, seed=self.seed, progress=progress)
        model = self.classifier
        if progress.stopped:
            kept = "the last weights are kept" if tried is None else "the weights of the trial are kept"
            whole = recipe.epochs_for(len(self.parts.train))
            reason += f"; stopped by Ctrl-C at epoch {progress.epochs:.1f} of {whole:g}, {kept}"
            model = model if tried is None else tried
        self.progress.stopped = progress.stopped
        # The curves of a trial have a validation part.
        history = self.progress.history or progress.history
        return model, Chosen("full", reason, recipe, validation, history)

    def _progress(self, part: str) -> Progress:
        folder = None if self.state is None else self.state.folder(f"{self.key}/{part}")
        return Progress(self.progress.bar, self.progress.report_to, folder, f"{self.progress.run}/{self.key}/{part}")

    def _trial(self, parts: Parts) -> USDRLForActionRecognition:
        """The full model that validates best, trained without the validation part."""
        model, key = copy.deepcopy(self.classifier), f"{self.key}/trial"
        done = None if self.state is None else self.state.load(key)
        if done is not None:
            values, tensors = done
            model.load_state_dict(tensors)
            for name, value in values.items():
                setattr(self.progress, name, value)
            return model.eval()
        progress = self._progress("trial")
        train_recogniser(
            model,
            self.extractor,
            parts.train,
            self.recipe,
            seed=self.seed,
            validation=parts.validation,
            progress=progress,
        )
        values = {name: getattr(progress, name) for name in ("history", "best", "epochs", "stopped")}
        for name, value in values.items():
            setattr(self.progress, name, value)
        if self.state is not None and not progress.stopped:
            self.state.save(key, values, dict(model.state_dict()))
        return model

    def _tried(self, method: str, parts: Parts, many: bool) -> tuple[USDRLForActionRecognition, Chosen]:
        """Compare the methods on the validation part."""
        assert parts.validation is not None
        weights = clip_weights(np.asarray(parts.validation.column("labels")), self.recipe.balance)
        validation, right = {"n": float(len(parts.validation))}, {}
        if method == "auto":
            probe = copy.deepcopy(self.classifier)
            train_linear_probe(probe, self.extractor, parts.train, self.recipe)
            right["linear"] = self._right(probe, parts.validation)
            validation[TITLES["linear"]] = float(np.average(right["linear"], weights=weights))
        try:
            model = self._trial(parts)
        except (TrainingDivergedError, NonFiniteError) as error:
            if method == "full":
                raise
            return self._linear(f"full fine-tuning diverged ({str(error).partition(':')[0]})", validation)
        right["full"] = self._right(model, parts.validation)
        validation[TITLES["full"]] = float(np.average(right["full"], weights=weights))
        balanced = ", counting all classes alike" if self.recipe.balance else ""
        reason = f"of {len(parts.validation)} validation clips{balanced}, " + " and ".join(
            f"{TITLES[name]} gets {100 * validation[TITLES[name]]:.1f} % right" for name in right
        )
        best, why = "full", ""
        if method == "auto":
            best, why = self._better(*paired_difference(right["linear"], right["full"], weights))
        reason += why
        whole = self.recipe.epochs_for(len(parts.train))
        if self.progress.stopped:
            reason += f"; stopped by Ctrl-C at epoch {self.progress.epochs:.1f} of {whole:g}, the best so far is kept"
        if best == "linear":
            return self._linear(reason, validation)
        if many or self.progress.stopped:
            epoch = self.progress.best.get("epoch", self.progress.epochs)
            self.say(f"{TITLES['full']}: {reason}; the weights of epoch {epoch:.1f} are kept")
            return model, Chosen("full", reason, self.recipe, validation, self.progress.history)
        # As long as the trial, which may have been stopped early.
        epochs = self.progress.epochs / whole * self.recipe.epochs_for(len(self.parts.train))
        return self._full(reason, validation, replace(self.recipe, epochs=epochs, min_steps=0), model)

    def _right(self, model: USDRLForActionRecognition, data: SkeletonData) -> np.ndarray:
        """Which clips a model has right, ``(N,)``."""
        found = class_probabilities(model, self.extractor, data).argmax(1)
        return np.asarray(found == np.asarray(data.column("labels")))

    def _better(self, lead: float, error: float) -> tuple[str, str]:
        """The method to take, and why, given the probe's lead and its standard error."""
        # A training that was cut short has no benefit of the doubt.
        if lead > (0.0 if self.progress.stopped else error):
            return "linear", ""
        if lead < 0:
            return "full", ""
        if lead == 0:
            return "full", "; a tie goes to full fine-tuning"
        return "full", (
            f"; the probe's lead of {100 * lead:.1f} points is within one standard error, {100 * error:.1f}, so full "
            "fine-tuning is taken"
        )
