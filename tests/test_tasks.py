import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import label_ranking_average_precision_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from usdrl_hub import USDRLFeatureExtractor
from usdrl_hub.data.samples import load_samples
from usdrl_hub.metrics import retrieval
from usdrl_hub.metrics.classification import accuracy
from usdrl_hub.metrics.retrieval import retrieval_metrics, top_k
from usdrl_hub.tasks.baselines import joint_neighbours
from usdrl_hub.tasks.linear import fit_logistic_regression, train_linear


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40), st.integers(50, 2000))
def test_neighbours_are_those_of_scikit_learn_whatever_the_blocks(queries, gallery, k, most):
    rng = np.random.default_rng(queries * 41 + gallery)
    first, second = rng.normal(size=(queries, 6)), rng.normal(size=(gallery, 6))
    k = min(k, gallery)
    before = retrieval.MAX_SIMILARITIES
    retrieval.MAX_SIMILARITIES = most
    try:
        scores, numbers = top_k(torch.from_numpy(first), torch.from_numpy(second), k)
    finally:
        retrieval.MAX_SIMILARITIES = before
    distances, expected = (
        NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(second).kneighbors(first)
    )
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_allclose(1 - scores, distances, atol=1e-5)


def test_equal_neighbours_come_in_order():
    gallery = torch.ones(5, 3)
    assert top_k(torch.ones(2, 3), gallery, 4)[1].tolist() == [[0, 1, 2, 3]] * 2
    with pytest.raises(ValueError, match="between 1 and the 5 items"):
        top_k(gallery, gallery, 6)


def test_retrieval_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(60, 5)), rng.normal(size=(40, 5))
    gallery_labels, labels = rng.integers(0, 4, 60), rng.integers(0, 4, 40)
    metrics = retrieval_metrics(torch.from_numpy(gallery), gallery_labels, torch.from_numpy(queries), labels)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (queries, gallery)]
    scores = unit[0] @ unit[1].T
    right = gallery_labels == labels[:, None]
    # scikit-learn's ranking precision of a row is its average precision.
    assert metrics["map"] == pytest.approx(label_ranking_average_precision_score(right, scores), abs=1e-6)
    order = np.argsort(-scores, axis=1)
    for rank in (1, 5, 10):
        hit = np.take_along_axis(right, order[:, :rank], axis=1).any(axis=1).mean()
        assert metrics[f"recall@{rank}"] == pytest.approx(hit)
    assert metrics["accuracy_1nn"] == metrics["recall@1"]


def test_classes_absent_from_the_gallery_count_as_not_found():
    gallery = torch.eye(3)
    metrics = retrieval_metrics(gallery, [0, 0, 1], torch.eye(3)[:2], [0, 7], ranks=(1, 2, 50))
    assert metrics == {"accuracy_1nn": 0.5, "recall@1": 0.5, "recall@2": 0.5, "map": 0.5}


@pytest.mark.parametrize("clips", [200, 10])
def test_logistic_regression_is_that_of_scikit_learn(clips):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(clips, 12)) * rng.uniform(0.1, 30, 12) + 5
    features[:, 3] = 2.0
    labels = np.arange(clips) % 5
    features[:, 0] += 20 * labels
    ours = fit_logistic_regression(torch.from_numpy(features).float(), labels, 5, strength=0.5)
    standard = StandardScaler().fit_transform(features)
    theirs = LogisticRegression(C=0.5, max_iter=5000, tol=1e-8).fit(standard, labels)
    with torch.no_grad():
        actual = ours(torch.from_numpy(features).float()).softmax(dim=1).numpy()
    np.testing.assert_allclose(actual, theirs.predict_proba(standard), atol=1e-3)
    assert accuracy(ours(torch.from_numpy(features).float()).detach(), labels)["accuracy"] == theirs.score(
        standard, labels
    )


def test_the_schedule_of_the_release_learns_and_repeats():
    torch.manual_seed(0)
    labels = torch.arange(600) % 3
    features = torch.randn(600, 8) + 3 * torch.nn.functional.one_hot(labels, 8)
    layers = [train_linear(features, labels, 3, learning_rate=0.03, epochs=20, drop_epochs=(15,)) for _ in range(2)]
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert accuracy(layers[0](features).detach(), labels)["accuracy"] > 0.9


def test_the_nearest_joints_are_those_of_all_training_clips(monkeypatch):
    """In blocks as in one."""
    samples = load_samples()
    train, test = samples.select(np.arange(len(samples)) % 3 != 0), samples.select(np.arange(len(samples)) % 3 == 0)
    extractor = USDRLFeatureExtractor("ntu25", num_frames=16)
    whole = joint_neighbours(train, test, extractor)
    monkeypatch.setattr("usdrl_hub.tasks.baselines._BLOCK", 7)
    np.testing.assert_array_equal(joint_neighbours(train, test, extractor), whole)
    clips = [extractor(list(part), return_tensors="np")["keypoints"].reshape(len(part), -1) for part in (train, test)]
    expected = [np.linalg.norm(clips[0] - clip, axis=1).argmin() for clip in clips[1]]
    np.testing.assert_array_equal(whole, np.asarray(train.column("labels"))[expected])
