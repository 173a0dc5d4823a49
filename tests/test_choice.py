"""The choice between linear probe and full fine-tuning, by the number of clips and by validation."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from usdrl_hub.data.augmentation import mirror_image
from usdrl_hub.data.samples import load_samples
from usdrl_hub.data.splits import split_data
from usdrl_hub.layouts import get_layout
from usdrl_hub.loading import load_feature_extractor, load_model
from usdrl_hub.modeling_usdrl import USDRLForActionRecognition
from usdrl_hub.tasks import choice, fit
from usdrl_hub.tasks.choice import FULL, Training
from usdrl_hub.tasks.fit import choice_score, class_weights
from usdrl_hub.tasks.heads import with_head
from usdrl_hub.tasks.linear import fit_logistic_regression

QUICK = replace(FULL, epochs=2, min_steps=0)


def training(recipe=QUICK, movements=3, clips_of_each=100, **fields) -> Training:
    """Of the shipped clips of a few movements: five people, of whom one tests."""
    samples = load_samples()
    labels, taken = np.asarray(samples.column("labels")), np.zeros(len(samples), bool)
    for label in range(movements):
        taken[np.flatnonzero(labels == label)[:clips_of_each]] = True
    data = samples.select(taken)
    model = with_head(load_model("usdrl/mocap-tiny"), USDRLForActionRecognition, data.class_names)
    extractor = load_feature_extractor("usdrl/mocap-tiny")
    return Training(model, extractor, split_data(data, "subject"), recipe, **fields)


def test_a_handful_of_clips_gets_a_linear_probe_and_says_why():
    said = []
    run = training(clips_of_each=4, say=said.append)
    before = {name: values.clone() for name, values in run.classifier.usdrl.state_dict().items()}
    model, chosen, parts = run.run()
    assert chosen.method == "linear" and "too few" in chosen.reason and parts.validation is None
    assert said == [f"linear probe: {chosen.reason}"]
    assert all(torch.equal(before[name], values) for name, values in model.usdrl.state_dict().items())


def test_a_training_that_spoils_the_encoder_is_not_taken():
    model, chosen, parts = training(replace(QUICK, learning_rate=0.3, encoder_rate=1.0)).run()
    assert chosen.method == "linear" and not model.training
    assert chosen.validation["linear probe"] > chosen.validation["full fine-tuning"]
    assert parts.rule.endswith("1 of 4 training people validate") and chosen.validation["n"] == len(parts.validation)
    assert {"validation_accuracy", "validation_loss"} <= {key for row in chosen.history for key in row}


def test_full_fine_tuning_is_taken_where_it_validates_better(monkeypatch):
    probe, calls = choice.train_linear_probe, []

    def first_is_bad(model, *rest):
        calls.append(rest)
        torch.nn.init.zeros_(model.classifier.weight) if len(calls) == 1 else probe(model, *rest)

    named, arguments = [], fit.TrainingArguments
    monkeypatch.setattr(fit, "TrainingArguments", lambda **all: named.append(all["run_name"]) or arguments(**all))
    monkeypatch.setattr(choice, "train_linear_probe", first_is_bad)
    run = training(QUICK)
    run.progress.run = "my-model"
    model, chosen, _ = run.run()
    # Each has a curve of its own in the logs.
    assert named == ["my-model/main/trial", "my-model/main/final"]
    assert chosen.method == "full" and chosen.recipe.epochs == pytest.approx(2, abs=0.1)
    assert chosen.validation["full fine-tuning"] > chosen.validation["linear probe"]
    assert model is run.classifier


@pytest.mark.parametrize(
    ("only_probe", "only_full", "stopped", "method", "why"),
    [
        (0, 1, False, "full", "% right"),
        (1, 1, False, "full", "; a tie goes to full fine-tuning"),
        (1, 0, False, "full", "; the probe's lead of {lead:.1f} points is within one standard error, {lead:.1f}, so"),
        (2, 0, False, "linear", "% right"),
        # A lead of two clips, with a standard error of two.
        (3, 1, False, "full", "is within one standard error"),
        (1, 0, True, "linear", "stopped by Ctrl-C"),
        (1, 1, True, "full", "a tie goes to full fine-tuning; stopped by Ctrl-C"),
    ],
)
def test_the_probe_needs_a_lead_of_more_than_one_standard_error(
    only_probe, only_full, stopped, method, why, monkeypatch
):
    answers = []

    def answer(model, extractor, data):
        truth = np.asarray(data.column("labels"))
        wrong = slice(0, only_full) if not answers else slice(only_full, only_full + only_probe)
        answers.append(truth.copy())
        answers[-1][wrong] = (truth[wrong] + 1) % 3
        return np.eye(3)[answers[-1]]

    def train(*rest, progress, **fields):
        progress.stopped, progress.epochs = stopped, 1.0

    monkeypatch.setattr(choice, "train_linear_probe", lambda *rest: None)
    monkeypatch.setattr(choice, "train_recogniser", train)
    monkeypatch.setattr(choice, "class_probabilities", answer)
    _, chosen, parts = training().run()
    assert chosen.method == method
    lead = 100 * (only_probe - only_full) / len(parts.validation)
    assert chosen.reason.startswith(f"of {len(parts.validation)} validation clips, linear probe gets ")
    assert why.format(lead=lead) in chosen.reason
    gap = chosen.validation["linear probe"] - chosen.validation["full fine-tuning"]
    assert 100 * gap == pytest.approx(lead)


def test_with_many_clips_the_weights_that_validated_best_are_kept(monkeypatch):
    monkeypatch.setattr(choice, "MANY", 10)
    run = training(replace(QUICK, epochs=4))
    model, chosen, parts = run.run("full")
    accuracies = [row["validation_accuracy"] for row in chosen.history if "validation_accuracy" in row]
    assert chosen.validation["full fine-tuning"] == pytest.approx(max(accuracies))
    assert model is not run.classifier and len(parts.validation) == chosen.validation["n"]


def test_a_linear_probe_also_learns_from_mirror_images():
    # Movements of one side of the body: of the other side, they are new to a probe that never saw them.
    run = training(movements=10, clips_of_each=10)
    part, mirrored = run.parts.train, get_layout(run.extractor.layout).mirrored
    images = partial(mirror_image, mirrored=mirrored)
    clips = images(run.extractor(list(part), return_tensors="pt")["keypoints"])
    labels = torch.as_tensor(np.asarray(part.column("labels")))
    sure = []
    for mirror in (False, True):
        choice.train_linear_probe(run.classifier, run.extractor, part, replace(QUICK, mirror=mirror))
        with torch.no_grad():
            sure.append(run.classifier(clips).logits.softmax(-1)[torch.arange(len(labels)), labels].mean())
    assert sure[0] < 0.93 < 0.97 < sure[1], sure


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of auto, linear, full"):
        training().run("best")


def test_balanced_scores_and_weights_count_classes_alike():
    labels = np.array([0] * 8 + [1] * 2)
    probabilities = np.tile([0.9, 0.1], (10, 1))
    assert choice_score(probabilities, labels) == pytest.approx(0.8, abs=1e-3)
    assert choice_score(probabilities, labels, balance=True) == pytest.approx(0.5, abs=1e-3)
    # Of two that are as often right, the surer.
    assert choice_score(probabilities, labels) > choice_score(np.tile([0.6, 0.4], (10, 1)), labels)
    np.testing.assert_allclose(class_weights(labels, 3), [10 / 16, 10 / 4, 0])


def test_a_weighted_class_counts_as_if_its_clips_were_repeated():
    features, labels = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), np.array([0, 1] * 6)
    weighted = fit_logistic_regression(features[:7], labels[:7], 2, weights=torch.tensor([1.0, 1.0]))
    plain = fit_logistic_regression(features[:7], labels[:7], 2)
    assert torch.equal(weighted.weight, plain.weight)
    standard = torch.cat([features, -features])  # Repeated clips change neither mean nor deviation.
    both = np.concatenate([labels, labels])
    tripled = fit_logistic_regression(standard.repeat(3, 1), np.tile(both, 3), 2)
    heavy = fit_logistic_regression(standard, both, 2, weights=torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(heavy.weight, tripled.weight, atol=1e-4, rtol=1e-4)


def test_a_trial_that_diverges_leaves_the_linear_probe():
    _, chosen, _ = training(replace(QUICK, learning_rate=9e5, encoder_rate=1.0)).run()
    assert chosen.method == "linear" and chosen.reason.startswith("full fine-tuning diverged")
