"""Numbers of clips: quality scores and angles, from tables and columns, for people who are new."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from usdrl_hub import SkeletonFormatError, SkeletonList, get_layout, open_data
from usdrl_hub.data.samples import load_samples
from usdrl_hub.loading import load_model
from usdrl_hub.metrics.regression import regression_report
from usdrl_hub.tasks import regression, value_training
from usdrl_hub.tasks.recognition import Evaluation
from usdrl_hub.tasks.regression import finetune_values
from usdrl_hub.tasks.value_training import VALUES, fit_ridge

from .helpers import run


def knee_angle(sequence) -> float:
    """The smallest angle of the right knee in a recording, in degrees."""
    body = sequence.to_layout("ntu25")
    names = list(get_layout("ntu25").joint_names)
    hip, knee, ankle = (body.keypoints[:, 0, names.index(name)] for name in ("right_hip", "right_knee", "right_ankle"))
    thigh, shank = hip - knee, ankle - knee
    cosine = (thigh * shank).sum(-1) / np.linalg.norm(thigh, axis=-1) / np.linalg.norm(shank, axis=-1)
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).min())


def test_errors_are_those_of_their_definitions():
    random = np.random.default_rng(0)
    values = random.normal(50, 10, 60)
    predicted, groups = values + random.normal(0, 5, 60), np.repeat(["a", "b", "c"], 20)
    report = regression_report(predicted, values, groups, 48.0)
    assert report["mae"] == pytest.approx(np.abs(predicted - values).mean())
    assert report["rmse"] == pytest.approx(np.sqrt(((predicted - values) ** 2).mean()))
    assert report["mae_of_mean"] == pytest.approx(np.abs(48 - values).mean())
    assert report["correlation"] == pytest.approx(pearsonr(predicted, values)[0])
    assert report["intervals"]["mae"][0] < report["mae"] < report["intervals"]["mae"][1]
    assert [row["n"] for row in report["groups"]] == [20, 20, 20]
    assert np.mean([row["mae"] for row in report["groups"]]) == pytest.approx(report["mae"])
    assert regression_report(np.ones(3), values[:3])["correlation"] is None
    with pytest.raises(ValueError, match="do not fit"):
        regression_report(predicted, values[1:])


def test_a_ridge_regression_is_its_normal_equations():
    random = np.random.default_rng(0)
    features, values = random.normal(3, 2, (30, 5)), random.normal(size=30)
    weight, bias = fit_ridge(torch.from_numpy(features), values, 7.0)
    standard = (features - features.mean(0)) / features.std(0)
    expected = np.linalg.solve(standard.T @ standard + 7 * np.eye(5), standard.T @ (values - values.mean()))
    np.testing.assert_allclose(
        features @ weight.numpy() + bias, standard @ expected + values.mean(), rtol=1e-9, atol=1e-9
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Recordings of three movements, and a table with the angles of their knees; one is missing."""
    folder = tmp_path_factory.mktemp("values")
    samples = [clip for clip in load_samples() if clip.label < 3]
    with open(folder / "list.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "subject", "knee"])
        for number, clip in enumerate(samples):
            np.save(folder / f"{clip.name}.npy", clip.keypoints[:, 0])
            writer.writerow([f"{clip.name}.npy", clip.subject, "" if number == 5 else f"{knee_angle(clip):.6f}"])
    return folder


def test_numbers_of_a_table_are_found_by_the_command(table, tmp_path, capsys):
    options = ["--layout", "ui-prmd39", "--fps", "30", "--output-dir", tmp_path / "store"]
    assert run(capsys, "prepare", "csv", table / "list.csv", *options)[0] == 0
    angles = open_data(tmp_path / "store").column("knee")
    assert len(angles) == 30 and np.isnan(angles).sum() == 1
    options = ["--target", "knee", "--linear-probe", "--output-dir", tmp_path / "out"]
    code, out, err = run(capsys, "finetune", tmp_path / "store", *options)
    assert code == 0 and "linear regression of knee" in out and "1 of 30 clips have no number" in err
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    errors = [abs(float(row["true_value"]) - float(row["predicted_value"])) for row in rows]
    assert np.mean(errors) == pytest.approx(record["metrics"]["mae"], rel=1e-5)
    assert len(rows) == record["n"]["test"] and record["groups"]["shared"] == 0
    assert record["metrics"]["mae"] < record["baselines"]["mean of the training clips"]
    page = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "out" / "report.html").read_text())[1])
    assert page["kind"] == "values" and page["scores"][0]["value"] == record["metrics"]["mae"]
    assert {clip["name"]: clip["predicted"] for clip in page["clips"]} == {
        row["name"]: pytest.approx(float(row["predicted_value"]), rel=1e-6) for row in rows
    }
    gaps = [abs(clip["truth"] - clip["predicted"]) for clip in page["clips"]]
    assert gaps == sorted(gaps, reverse=True)
    model = load_model(tmp_path / "out")
    assert model.config.problem_type == "regression" and model.config.class_names == ["knee"]
    code, out, _ = run(capsys, "predict", tmp_path / "store", "--model", tmp_path / "out")
    assert code == 0 and "knee" in out and "%" not in out


def test_a_trial_compares_with_full_fine_tuning(tmp_path):
    clips = [clip for clip in load_samples() if clip.label < 2]
    data = SkeletonList(clips, columns={"angle": np.array([knee_angle(clip) for clip in clips])})
    recipe = replace(VALUES, epochs=1, min_steps=0)
    record = finetune_values(data, tmp_path / "out", "angle", recipe=recipe)
    errors = record["choice"]["validation"]
    better = min(("linear probe", "full fine-tuning"), key=lambda name: errors[name])
    assert {"linear probe": "linear", "full fine-tuning": "full"}[better] == record["choice"]["method"]
    full = finetune_values(data, tmp_path / "full", "angle", recipe=recipe, method="full")
    assert full["task"] == "fine-tuned regression" and full["metrics"]["mae"] < 30


@pytest.mark.long
def test_folds_test_each_person_once_beside_the_mean_of_the_others(table, tmp_path, capsys):
    options = ["--layout", "ui-prmd39", "--fps", "30", "--output-dir", tmp_path / "store"]
    assert run(capsys, "prepare", "csv", table / "list.csv", *options)[0] == 0
    options = ["--target", "knee", "--linear-probe", "--folds", "subject", "--output-dir", tmp_path / "out"]
    code, out, err = run(capsys, "finetune", tmp_path / "store", *options)
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "mean absolute error of 5 folds" in out and record["n"] == {"train": 29, "test": 29}
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == 29
    people = {row["name"]: row for row in record["scores"]["groups"]}
    assert len(people) == 5
    for person, scores in people.items():
        mine = np.array([[row["true_value"], row["predicted_value"]] for row in rows if row["group"] == person], float)
        others = [float(row["true_value"]) for row in rows if row["group"] != person]
        assert scores["mae"] == pytest.approx(np.abs(mine[:, 0] - mine[:, 1]).mean(), rel=1e-5)
        assert scores["mae_of_mean"] == pytest.approx(np.abs(mine[:, 0] - np.mean(others)).mean(), rel=1e-5)
        assert scores["correlation"] == pytest.approx(pearsonr(*mine.T)[0], abs=1e-5)
    errors = [row["mae"] for row in record["folds"]]
    assert errors == pytest.approx([row["mae"] for row in people.values()])
    assert record["mae_of_folds"] == {"mean": pytest.approx(np.mean(errors)), "std": pytest.approx(np.std(errors))}


def test_folds_that_were_tested_are_not_trained_again(tmp_path, monkeypatch):
    clips = [clip for clip in load_samples() if clip.label < 2]
    data = SkeletonList(clips, columns={"angle": np.array([knee_angle(clip) for clip in clips])})
    predict, answers = value_training.ValueTraining.predict, []
    evaluation = Evaluation(folds="2")

    def interrupted(self, model, part):
        if self.key == "fold-1" and len(answers) < 99:
            raise KeyboardInterrupt
        answers.append(self.key)
        return predict(self, model, part)

    monkeypatch.setattr(value_training.ValueTraining, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune_values(data, tmp_path / "out", "angle", method="linear", evaluation=evaluation)
    assert set(answers) == {"fold-0"}
    answers[:] = ["known"] * 99
    record = finetune_values(data, tmp_path / "out", "angle", method="linear", evaluation=evaluation)
    assert "fold-0" not in answers and [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.undo()
    whole = finetune_values(data, tmp_path / "whole", "angle", method="linear", evaluation=evaluation)
    assert record["scores"] == whole["scores"] and record["folds"] == whole["folds"]


@pytest.mark.long
def test_a_run_that_was_interrupted_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    clips = [clip for clip in load_samples() if clip.label < 2]
    data = SkeletonList(clips, columns={"angle": np.array([knee_angle(clip) for clip in clips])})
    recipe, fit, calls = replace(VALUES, epochs=1, min_steps=0), value_training.fit, []

    def counted(*arguments, **choices):
        calls.append(choices["progress"].folder.name)
        return fit(*arguments, **choices)

    def interrupted(*arguments, **choices):
        raise KeyboardInterrupt

    monkeypatch.setattr(value_training, "fit", counted)
    monkeypatch.setattr(regression, "write_metrics", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune_values(data, tmp_path / "out", "angle", recipe=recipe)
    assert calls[0] == "trial" and not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.setattr(value_training, "fit", counted)
    calls.clear()
    record = finetune_values(data, tmp_path / "out", "angle", recipe=recipe)
    assert "trial" not in calls and [path.name for path in tmp_path.iterdir()] == ["out"]
    whole = finetune_values(data, tmp_path / "whole", "angle", recipe=recipe)
    assert record["metrics"] == whole["metrics"] and not record["stopped"]
    assert record["choice"] == whole["choice"]


def test_numbers_of_one_person_say_nothing_of_others(tmp_path):
    clips = [replace(clip, subject=1) for clip in load_samples() if clip.label < 2]
    data = SkeletonList(clips, columns={"angle": np.array([knee_angle(clip) for clip in clips])})
    record = finetune_values(data, tmp_path / "out", "angle", method="linear")
    assert record["warnings"][-1] == "All clips are of one person: nothing is known of any other."
    assert record["split"].startswith(
        "a random fifth of each quarter of the numbers tests; all clips are of one person"
    )


@pytest.mark.parametrize(
    "column, values, message",
    [
        ("angle", None, "no column 'angle' of numbers"),
        ("angle", np.ones((20, 2)), "several numbers .* problem_type='multi_label_classification'"),
        ("names", None, "column 'names' holds text instead of numbers"),
        ("angle", np.full(20, np.nan), "0 clips have a number"),
        ("angle", np.full(20, 2.0), "is 2 in all training clips"),
    ],
)
def test_columns_that_hold_no_numbers_are_refused(tmp_path, column, values, message):
    clips = [clip for clip in load_samples() if clip.label < 2]
    data = SkeletonList(clips, columns={} if values is None else {column: values})
    with pytest.raises(SkeletonFormatError, match=message):
        finetune_values(data, tmp_path / "out", column)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_knee_angle_of_squats_of_new_people_is_found_with_hidden_knees(shared_data, tmp_path):
    data = open_data(shared_data / "ui_prmd_vicon.npz")
    squats = [data[int(number)] for number in np.flatnonzero(np.asarray(data.column("labels")) == 0)]
    angles = np.array([knee_angle(clip) for clip in squats])
    knees = [number for number, name in enumerate(get_layout("ntu25").joint_names) if "knee" in name]
    hidden = []
    for clip in squats:
        body = clip.to_layout("ntu25")
        keypoints = body.keypoints.copy()
        keypoints[:, :, knees] = 0
        hidden.append(replace(body, keypoints=keypoints))
    assert len(knees) == 2
    record = finetune_values(SkeletonList(hidden, columns={"angle": angles}), tmp_path / "out", "angle")
    assert record["groups"]["shared"] == 0 and record["groups"]["test"] >= 3
    assert record["metrics"]["mae"] <= 0.5 * record["baselines"]["mean of the training clips"]
