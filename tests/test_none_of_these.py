"""Recordings that show none of a recogniser's classes, wherever a recogniser is used."""

import json

import numpy as np
import pytest
import torch

from usdrl_hub import (
    Engine,
    SkeletonList,
    SkeletonSequence,
    USDRLConfig,
    USDRLEnsemble,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLModel,
    USDRLStream,
    extract_predictions,
    extract_timelines,
    fuse,
    pipeline,
    with_head,
)
from usdrl_hub.data.samples import load_samples
from usdrl_hub.inference.scores import NONE_OF_THESE
from usdrl_hub.tasks.refusal import fit_min_similarity

from .helpers import run

NAME = "usdrl/tiny-uiprmd"


@pytest.fixture(scope="module")
def model():
    return USDRLForActionRecognition.from_pretrained(NAME).eval()


@pytest.fixture(scope="module")
def engine():
    return Engine.load(NAME)


@pytest.fixture(scope="module")
def known():
    """A movement of the model's, as a recording; it is refused by none but the highest threshold."""
    return next(sequence for sequence in load_samples() if sequence.label == 0)


@pytest.fixture(scope="module")
def lying():
    """A squat of somebody who lies upside down, which is like none of the classes."""
    sequence = next(sequence for sequence in load_samples() if sequence.label == 0)
    body = sequence.to_layout("ntu25")
    turned = body.keypoints[..., [1, 2, 0]] * np.float32([-1, 1, 1])
    return SkeletonSequence(np.ascontiguousarray(turned), "ntu25", name="lying", fps=body.fps)


def test_what_is_like_no_class_is_none_of_these(model, known, lying, engine):
    right, wrong = extract_predictions([known, lying], engine)
    assert right.is_known and right.label == right.top(1)[0][0] == "deep squat"
    assert not wrong.is_known and wrong.label == NONE_OF_THESE
    assert wrong.similarity < model.config.min_similarity < right.similarity
    assert wrong.probabilities.shape == (10,) and wrong.probabilities.sum() == pytest.approx(1)


def test_the_threshold_decides_and_0_refuses_nothing(known, lying, engine):
    similar = [prediction.similarity for prediction in extract_predictions([known, lying], engine)]
    for threshold in (0, similar[1] - 1e-4, similar[1] + 1e-4, similar[0] + 1e-4, 1):
        predictions = extract_predictions([known, lying], engine, threshold=threshold)
        assert [prediction.is_known for prediction in predictions] == [value >= threshold for value in similar]
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="threshold must be a similarity from 0 to 1"):
            extract_predictions([known], engine, threshold=bad)


def test_similarity_is_the_cosine_to_the_mean_training_clip(model, known):
    clips = USDRLFeatureExtractor.from_pretrained(NAME)([known, known], return_tensors="pt")["keypoints"]
    with torch.inference_mode():
        output, embedding = model(clips), model.usdrl(clips).pooler_output[0].double()
        fused = fuse(model)(clips).similarity
    center = model.class_centers.mean[int(output.logits[0].argmax())].double()
    expected = embedding @ center / embedding.norm() / center.norm()
    assert output.similarity.shape == (2,) and output.similarity[0].item() == pytest.approx(float(expected), abs=1e-6)
    torch.testing.assert_close(fused, output.similarity)


def test_live_results_say_it(lying, known, engine):
    for sequence, threshold, is_known in ((known, None, True), (lying, None, False), (lying, 0, True)):
        body = sequence.to_layout("ntu25").keypoints[:, 0]
        stream = USDRLStream(engine, stride=len(body), window=len(body), min_frames=len(body), threshold=threshold)
        [result] = [found for frame in body if (found := stream.push(frame)) is not None]
        [prediction] = extract_predictions([sequence], engine, threshold=threshold)
        assert result.is_known == is_known and result.label == prediction.label
        assert result.similarity == pytest.approx(prediction.similarity, abs=1e-5)
        assert (result.label == NONE_OF_THESE) != is_known


def test_pipelines_say_it_first(known, lying, engine):
    recognise = pipeline("skeleton-action-recognition", NAME)
    [right] = recognise(known, top_k=1)
    assert right["label"] == "deep squat"
    first, second = recognise(lying, top_k=1)
    [prediction] = extract_predictions([lying], engine)
    assert first["label"] == NONE_OF_THESE and first["score"] == pytest.approx(prediction.similarity, abs=1e-5)
    assert second["label"] == prediction.top(1)[0][0]
    assert len(recognise(lying, top_k=1, threshold=0)) == 1
    with pytest.raises(ValueError, match="from 0 to 1"):
        recognise(lying, threshold=2)


def test_timelines_leave_it_out(known, lying, engine):
    [(_, right)], [(_, wrong)] = (extract_timelines([sequence], engine) for sequence in (known, lying))
    assert right.is_known and len(right.runs()) and not wrong.is_known
    assert wrong.known.shape == (len(wrong.probabilities),)
    inside = np.zeros(len(wrong.known), dtype=bool)
    for _, start, end, _ in wrong.runs().astype(int):
        inside[start:end] = True
    assert np.array_equal(inside, wrong.known)
    [(_, every)] = extract_timelines([lying], engine, threshold=0)
    assert every.known.all() and every.runs()[-1, 2] == len(every.known)
    np.testing.assert_array_equal(every.probabilities, wrong.probabilities)


def test_ensembles_say_it_if_their_models_do(known, lying, engine):
    twice = USDRLEnsemble.from_pretrained([NAME, NAME], weights=[1, 3])
    single, both = extract_predictions([known, lying], engine), extract_predictions([known, lying], twice)
    assert [prediction.is_known for prediction in both] == [True, False]
    for one, other in zip(single, both, strict=True):
        assert one.similarity == pytest.approx(other.similarity, abs=1e-5)
    models = [USDRLForActionRecognition.from_pretrained(NAME) for _ in range(2)]
    models[1].set_class_centers(None, None)
    silent = USDRLEnsemble(models, twice.feature_extractor)
    assert silent(torch.randn(2, 64, 1, 25, 3)).similarity is None


def test_an_ensemble_whose_models_cannot_all_tell_refuses_nothing(lying):
    models = [USDRLForActionRecognition.from_pretrained(NAME) for _ in range(2)]
    models[1].set_class_centers(None, None)
    ensemble = USDRLEnsemble(models, USDRLFeatureExtractor.from_pretrained(NAME))
    [prediction] = extract_predictions([lying], ensemble)
    assert prediction.is_known and prediction.similarity is None
    [(_, timeline)] = extract_timelines([lying], ensemble)
    assert timeline.known is None and timeline.is_known


def test_models_without_it_refuse_nothing(lying, tmp_path):
    model = with_head(USDRLModel.from_pretrained("usdrl/mocap-tiny"), USDRLForActionRecognition, ["a", "b"]).eval()
    assert model.config.min_similarity is None and not any("center" in key for key in model.state_dict())
    extractor = USDRLFeatureExtractor.from_pretrained("usdrl/mocap-tiny")
    [prediction] = extract_predictions([lying], Engine(model, extractor), threshold=0.99)
    assert prediction.is_known and prediction.similarity is None
    again = USDRLForActionRecognition.from_pretrained(NAME)
    again.reset_classifier(["fall", "no fall"])
    assert again.config.min_similarity is None and again.class_centers is None
    encoder = with_head(again, USDRLForActionRecognition, ["a"])
    assert encoder.config.min_similarity is None
    assert (
        with_head(USDRLForActionRecognition.from_pretrained(NAME), USDRLForActionRecognition, ["a"]).class_centers
        is None
    )


def test_a_head_for_other_classes_refuses_nothing(lying):
    other = USDRLForActionRecognition.from_pretrained(NAME, num_labels=3, ignore_mismatched_sizes=True).eval()
    [prediction] = extract_predictions([lying], Engine(other, USDRLFeatureExtractor.from_pretrained(NAME)))
    assert prediction.is_known and prediction.similarity is None and other.config.min_similarity is None
    _, report = USDRLModel.from_pretrained(NAME, output_loading_info=True)
    assert not any("center" in name for name in report["unexpected_keys"])


def test_a_model_that_cannot_tell_takes_no_threshold(tmp_path, capsys, lying):
    model = with_head(USDRLModel.from_pretrained("usdrl/mocap-tiny"), USDRLForActionRecognition, ["a", "b"])
    model.save_pretrained(tmp_path / "model")
    USDRLFeatureExtractor.from_pretrained("usdrl/mocap-tiny").save_pretrained(tmp_path / "model")
    np.save(tmp_path / "lying.npy", lying.keypoints)
    command = ["predict", tmp_path / "lying.npy", "--layout", "ntu25", "--model", tmp_path / "model"]
    code, _, err = run(capsys, *command, "--threshold", "0.5")
    assert code == 2 and "--threshold has no effect, as the model does not hold what its classes look like" in err
    code, out, _ = run(capsys, *command, "--threshold", "0", "--json")
    assert code == 0 and "threshold" not in json.loads(out) and "similarity" not in json.loads(out)["predictions"][0]


def test_it_travels_with_the_model(tmp_path, model):
    copy = USDRLForActionRecognition(USDRLConfig(hidden_size=16, id2label={0: "a", 1: "b"}))
    copy.set_class_centers(torch.arange(64.0).view(2, 32), 0.5)
    copy.save_pretrained(tmp_path)
    again = USDRLForActionRecognition.from_pretrained(tmp_path)
    assert again.config.min_similarity == 0.5 and torch.equal(again.class_centers.mean, copy.class_centers.mean)
    again.set_class_centers(None, None)
    again.save_pretrained(tmp_path / "without")
    assert USDRLForActionRecognition.from_pretrained(tmp_path / "without").class_centers is None
    # A class without a mean training clip is never refused.
    copy.set_class_centers(torch.zeros(2, 32), 1.0)
    assert copy.similarity(torch.randn(3, 32), torch.randn(3, 2)).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"must have the shape \(2, 32\)"):
        copy.set_class_centers(torch.zeros(2, 31), 0.5)
    with pytest.raises(ValueError, match="min_similarity must be between 0 and 1"):
        copy.set_class_centers(torch.zeros(2, 32), 1.5)
    with pytest.raises(ValueError, match="min_similarity must be between 0 and 1"):
        USDRLConfig(min_similarity=-0.5)


def test_the_similarity_keeps_the_share_asked_for(model):
    classifier, extractor = (
        USDRLForActionRecognition.from_pretrained(NAME),
        USDRLFeatureExtractor.from_pretrained(NAME),
    )
    samples = list(load_samples())
    train = SkeletonList(samples[::2], load_samples().class_names)
    test = SkeletonList(samples[1::2], load_samples().class_names)
    found = fit_min_similarity(classifier, extractor, train, test, kept=0.8)
    assert 0.8 <= found["kept"] < 0.9 and found["recognised"] + found["misclassified"] == 50
    assert classifier.config.min_similarity == found["min_similarity"]
    kept = [prediction for prediction in extract_predictions(test, Engine(classifier.eval(), extractor))]
    right = [p for p in kept if p.top(1)[0][0] == p.class_names[p.sequence.label]]
    assert np.mean([prediction.is_known for prediction in right]) == pytest.approx(found["kept"], abs=0.03)
    few = SkeletonList(samples[1:20], load_samples().class_names)
    assert fit_min_similarity(classifier, extractor, train, few) == {}
    assert classifier.config.min_similarity is None and classifier.class_centers is None


def test_the_command_says_it(tmp_path, capsys, known, lying):
    for sequence in (known, lying):
        np.save(tmp_path / f"{sequence.name}.npy", sequence.to_layout("ntu25").keypoints)
    _, out, _ = run(capsys, "predict", tmp_path, "--layout", "ntu25", "--top-k", "2")
    assert "training clips of a class: none of these (--threshold)" in out
    row = next(line for line in out.splitlines() if line.startswith("lying"))
    assert "none of these (most like " in row and "%" not in row
    _, always, _ = run(capsys, "predict", tmp_path, "--layout", "ntu25", "--threshold", "0")
    assert "none of these" not in always
    rows = json.loads(run(capsys, "predict", tmp_path / "lying.npy", "--layout", "ntu25", "--json")[1])
    assert rows["threshold"] == pytest.approx(0.921, abs=0.05) and len(rows["labels"]) == 10
    [row] = rows["predictions"]
    assert row["label"] == NONE_OF_THESE and row["similarity"] < rows["threshold"] and len(row["top"]) == 5
    _, timeline, _ = run(capsys, "predict", tmp_path / "lying.npy", "--layout", "ntu25", "--timeline")
    assert "like none of the classes are left out" in timeline


def test_the_card_says_how_often_other_motion_is_named(model):
    from usdrl_hub.hub.cards import card_of

    card = card_of(NAME)
    assert "are none of the classes" in card and f"below {model.config.min_similarity:.3f}" in card
    assert "% named as one of them" in card
