"""Scores of classes beside scikit-learn's, and their intervals."""

from contextlib import nullcontext

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binomtest

from usdrl_hub.errors import NonFiniteError
from usdrl_hub.metrics.classification import (
    calibration_error,
    classification_report,
    confusion_matrix,
    paired_difference,
)
from usdrl_hub.metrics.regression import regression_report


def answers(seed=0, clips=200, classes=6, skill=2.0):
    """Labels of unequal frequency, and probabilities of a model with some skill."""
    random = np.random.default_rng(seed)
    labels = random.choice(classes, clips, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = random.normal(size=(clips, classes))
    logits[np.arange(clips), labels] += skill
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("clips", [3, 20, 400])
def test_scores_are_those_of_scikit_learn(seed, clips):
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, labels = answers(seed, clips)
    predicted = probabilities.argmax(1)
    report = classification_report(probabilities, labels, resamples=10)
    assert_array_equal(report["confusion"], metrics.confusion_matrix(labels, predicted, labels=range(6)))
    assert report["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    with pytest.warns() if set(predicted) - set(labels) else nullcontext():
        assert report["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert report["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro", zero_division=0))
    for name, values in zip(
        ("precision", "recall", "f1", "support"),
        metrics.precision_recall_fscore_support(labels, predicted, labels=range(6), zero_division=np.nan),
        strict=True,
    ):
        assert_allclose([np.nan if row[name] is None else row[name] for row in report["classes"]], values)


def test_calibration_error_by_hand():
    # Four clips at 0.9, of which three are right; two at 0.55, of which one is.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.55, 0.45]] * 2)
    labels = np.array([0, 0, 0, 1, 0, 1])
    assert calibration_error(probabilities, labels) == pytest.approx((4 * 0.15 + 2 * 0.05) / 6)
    assert calibration_error(np.array([[1.0, 0.0]]), [0]) == 0


def test_a_paired_difference_by_hand():
    first, second = np.array([1, 1, 1, 1, 0, 0, 1, 0], bool), np.array([1, 0, 0, 0, 1, 0, 1, 0], bool)
    # Three clips for the one, one for the other: McNemar's (b - c) / n and sqrt(b + c) / n.
    assert paired_difference(first, second) == (2 / 8, 2 / 8)
    assert paired_difference(second, first) == (-2 / 8, 2 / 8)
    assert paired_difference(first, first) == (0, 0)
    weights = np.array([1, 2, 3, 4, 5, 6, 7, 8])
    assert_allclose(paired_difference(first, second, weights), (4 / 36, np.sqrt(4 + 9 + 16 + 25) / 36))
    # The lead of a single clip is one standard error, whatever its weight.
    lead, error = paired_difference(first[:3], second[:3] | [False, True, False], np.array([0.1, 0.3, 0.7]))
    assert lead == error


def test_the_standard_error_of_a_paired_difference_is_that_of_many_samples():
    random = np.random.default_rng(0)
    both = random.random((2000, 300)) < 0.6
    answers = [np.where(random.random(both.shape) < 0.3, random.random(both.shape) < 0.5, both) for _ in range(2)]
    found = [paired_difference(first, second) for first, second in zip(*answers, strict=True)]
    leads, errors = np.array(found).T
    assert np.mean(errors) == pytest.approx(leads.std(), rel=0.05)


def test_an_interval_holds_the_true_accuracy_about_as_often_as_it_says():
    held = []
    for seed in range(200):
        right = np.random.default_rng(seed).random(60) < 0.8
        probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        low, high = classification_report(probabilities, np.zeros(60, int), resamples=300)["intervals"]["accuracy"]
        held.append(low <= 0.8 <= high)
    assert 0.88 <= np.mean(held) <= 0.99


def test_clips_of_one_person_are_drawn_together():
    """Ten people who are right or wrong in all of their clips are ten observations, not a hundred."""
    right = np.repeat([True] * 7 + [False] * 3, 10)
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    labels, people = np.zeros(100, int), np.repeat([f"person {number}" for number in range(10)], 10)
    by_clip, by_group = (classification_report(probabilities, labels, groups=groups) for groups in (None, people))
    assert (by_clip["interval_unit"], by_group["interval_unit"]) == ("clip", "group")
    widths = [np.diff(report["intervals"]["accuracy"])[0] for report in (by_clip, by_group)]
    assert widths[1] > 2.5 * widths[0]
    # One person says nothing of others: clips are drawn, and the unit says so.
    assert classification_report(probabilities, labels, groups=["me"] * 100)["interval_unit"] == "clip"


@pytest.mark.parametrize("right, expected", [(True, [0.025 ** (1 / 6), 1]), (False, [0, 1 - 0.025 ** (1 / 6)])])
def test_an_interval_of_answers_that_are_all_right_or_wrong_is_the_exact_one(right, expected):
    """6 of 6 right: of classifiers that are right in 54 %, one in forty gets so far."""
    interval = binomtest(6 if right else 0, 6).proportion_ci(0.95, "exact")
    probabilities = np.tile([0.9, 0.1] if right else [0.1, 0.9], (6, 1))
    report = classification_report(probabilities, np.zeros(6, int))
    assert report["intervals"]["accuracy"] == pytest.approx(expected) and expected == pytest.approx(list(interval))
    # Thirty clips of six people are six observations.
    groups = np.repeat(np.arange(6), 5)
    report = classification_report(np.repeat(probabilities, 5, axis=0), np.zeros(30, int), groups=groups)
    assert report["intervals"]["accuracy"] == pytest.approx(expected)


def test_classes_that_are_all_right_or_all_wrong_leave_the_interval_of_the_accuracy():
    labels = np.repeat([0, 1, 2], 10)
    report = classification_report(np.eye(3)[np.repeat([0, 1, 1], 10)], labels)
    low, high = report["intervals"]["accuracy"]
    assert low < 0.55 and high > 0.8 and report["balanced_accuracy"] == pytest.approx(report["accuracy"])
    assert report["intervals"]["balanced_accuracy"] == pytest.approx([low, high])


def test_two_people_who_are_alike_by_chance_leave_the_interval_of_their_clips():
    right = np.tile([True, True, False], 8)
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    labels, people = np.zeros(24, int), np.repeat([0, 1], 12)
    by_group, by_clip = (classification_report(probabilities, labels, groups=groups) for groups in (people, None))
    assert by_group["intervals"]["accuracy"] == by_clip["intervals"]["accuracy"]
    low, high = by_clip["intervals"]["accuracy"]
    assert low < 0.55 and high > 0.8
    errors = np.tile([0.0, 3.0], 12)
    low, high = regression_report(errors, np.zeros(24), people.astype(str))["intervals"]["mae"]
    assert low < 1.2 and high > 1.8


def test_order_and_names_of_groups_make_no_difference():
    probabilities, labels = answers()
    groups = np.random.default_rng(1).integers(0, 7, len(labels))
    order = np.random.default_rng(2).permutation(len(labels))
    one = classification_report(probabilities, labels, groups=groups)
    other = classification_report(probabilities[order], labels[order], groups=groups[order])
    assert one["intervals"].keys() == other["intervals"].keys() and one["confusion"] == other["confusion"]
    for name, interval in one["intervals"].items():
        assert interval == pytest.approx(other["intervals"][name])


def test_what_cannot_be_scored_is_refused():
    probabilities, labels = answers()
    with pytest.raises(ValueError, match="do not fit"):
        classification_report(probabilities, labels[1:])
    with pytest.raises(ValueError, match="do not fit"):
        classification_report(probabilities[:0], labels[:0])
    with pytest.raises(ValueError, match=r"in \[0, 6\)"):
        confusion_matrix([6], [0], 6)
    for wrong in (labels + 0.5, labels - 100):
        with pytest.raises(ValueError, match="classes"):
            classification_report(probabilities, wrong)
    with pytest.raises(ValueError, match="may be logits"):
        classification_report(10 * probabilities, labels)
    with pytest.raises(ValueError, match="200 clips, but groups of 3"):
        classification_report(probabilities, labels, groups=[1, 2, 3])
    with pytest.raises(ValueError, match="equally many"):
        confusion_matrix([0, 1], [0], 2)
    probabilities[3, 2] = np.nan
    with pytest.raises(NonFiniteError):
        classification_report(probabilities, labels)
