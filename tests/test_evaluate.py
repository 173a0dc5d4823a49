import json

import numpy as np
import pytest
import torch

from usdrl_hub import (
    SkeletonDataset,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    checkpoint_path,
    open_data,
)
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.facts.benchmarks import BENCHMARKS, TASKS
from usdrl_hub.facts.checkpoints import CHECKPOINTS
from usdrl_hub.facts.datasets import DATASETS, NTU120_CLASSES, PKU_CLASSES
from usdrl_hub.inference.embedding import embed_part
from usdrl_hub.loading import load_feature_extractor, load_model
from usdrl_hub.tasks.benchmark_tasks import TASKS as RUNS
from usdrl_hub.tasks.benchmark_tasks import Context, score_recogniser
from usdrl_hub.tasks.choice import train_recogniser
from usdrl_hub.tasks.evaluate import evaluate, repeat
from usdrl_hub.tasks.fit import FitRecipe
from usdrl_hub.tasks.tiny import tiny_recordings

from .helpers import run

MODEL = "usdrl/tiny-uiprmd"
FEW = {"epochs": 1}


def test_every_benchmark_is_complete():
    assert set(RUNS) == set(TASKS) == {benchmark.task for benchmark in BENCHMARKS.values()}
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.id == name and benchmark.dataset in DATASETS
        json.dumps(dict(benchmark.recipe))
        if benchmark.published:
            assert benchmark.source and all(0 < value < 1 for value in benchmark.published.values())
        if "epochs" in benchmark.recipe and benchmark.recipe.get("solver") is None:
            FitRecipe.of(benchmark.recipe)
    for checkpoint in CHECKPOINTS.values():
        heads = [RUNS[BENCHMARKS[name].task].head for name in checkpoint.benchmarks if checkpoint.base]
        assert all(head is None or head.task == checkpoint.task for head in heads)
    assert len(NTU120_CLASSES) == len(set(NTU120_CLASSES)) == 120 and len(PKU_CLASSES) == len(set(PKU_CLASSES)) == 51
    listed = {"linear/ntu60-xsub", "retrieval/ntu120-xset", "semi-1/ntu60-xsub", "detection/pkummd1-xview"}
    listed |= {"segmentation/pkummd2-xview", "early/ntu120-xsub", "one-shot/ntu120-one-shot", "linear/uav-v2"}
    listed |= {"transfer/pkummd1-xsub-to-pkummd2-xsub", "finetuned/ntu120-xset", "linear/ntu120-2d-xset"}
    assert listed <= set(BENCHMARKS)


@pytest.mark.parametrize(
    "benchmark, changes, kind, metric",
    [
        ("linear/ntu60-xsub", {}, USDRLForActionRecognition, "accuracy"),
        ("linear/utd_mhad", {}, USDRLForActionRecognition, "top5_accuracy"),
        ("finetuned/ntu60-xsub", FEW, USDRLForActionRecognition, "accuracy"),
        ("semi-10/utd_mhad", {**FEW, "draws": 2}, None, "accuracy_std"),
        ("retrieval/nw_ucla", {}, None, "map"),
        ("one-shot/ntu120-one-shot", {"shots": 2, "draws": 3}, None, "accuracy_mean"),
        ("detection/pkummd1-xsub", FEW, USDRLForActionDetection, "mAP_action@0.5"),
        ("segmentation/pkummd2-xsub", {**FEW, "stride": 32}, USDRLForActionSegmentation, "edit"),
        ("early/utkinect", FEW, USDRLForActionRecognition, "accuracy@50"),
        ("early-causal/utkinect", FEW, USDRLForEarlyActionPrediction, "mean_accuracy"),
        ("transfer/sbu", FEW, USDRLForActionRecognition, "accuracy"),
    ],
)
def test_every_task_runs_from_end_to_end(tmp_path, benchmark, changes, kind, metric):
    record = evaluate(MODEL, benchmark, output_dir=tmp_path / "out", data="tiny", changes=changes)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == json.loads(json.dumps(record)) and 0 <= record["metrics"][metric] <= 1
    assert all(key in record for key in ("n", "seed", "recipe", "command", "versions", "hardware", "wall_seconds"))
    if kind is None:
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["metrics.json"]
    else:
        assert isinstance(load_model(tmp_path / "out"), kind) and record["checkpoint_sha256"]
        assert isinstance(load_feature_extractor(tmp_path / "out"), USDRLFeatureExtractor)


@pytest.mark.parametrize("benchmark", ["linear/ntu60-xsub", pytest.param("finetuned/sbu", marks=pytest.mark.slow)])
def test_metrics_alone_are_enough_to_repeat_a_run(tmp_path, benchmark):
    first = evaluate(MODEL, benchmark, output_dir=tmp_path / "a", data="tiny", seed=3, changes=FEW)
    second = repeat(tmp_path / "a" / "metrics.json", tmp_path / "b")
    assert second["metrics"] == first["metrics"] and second["checkpoint_sha256"] == first["checkpoint_sha256"]
    record = json.loads((tmp_path / "a" / "metrics.json").read_text())
    record["repeat"] |= {"data": None, "tiny": True}
    (tmp_path / "old.json").write_text(json.dumps(record))
    assert repeat(tmp_path / "old.json")["metrics"] == first["metrics"]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="not a metrics.json"):
        repeat(tmp_path / "other.json")


@pytest.mark.long
def test_cached_features_score_as_the_whole_loop_does():
    """The linear layer on features computed once, beside the layer trained on the frozen encoder in a loop."""
    samples = load_samples()
    test = np.isin(samples.column("subjects"), [8, 10])
    recipe = {"solver": "sgd", "learning_rate": 0.05, "epochs": 30, "drop_epochs": [25], "batch_size": 60}
    encoder, extractor = load_model(MODEL), load_feature_extractor(MODEL)
    context = Context(encoder, extractor, samples.select(~test), samples.select(test), samples.class_names, recipe, 0)
    cached, classifier = RUNS["linear"].run(context)
    looped = context.new_head(USDRLForActionRecognition)
    loop = FitRecipe.of({**recipe, "optimizer": "sgd", "schedule": "constant", "weight_decay": 0.0})
    loop = FitRecipe.of({**loop.to_dict(), "augment": False, "freeze_encoder": True, "max_grad_norm": 0.0})
    train_recogniser(looped, extractor, context.train, loop)
    scores = score_recogniser(context, looped)
    assert abs(scores["accuracy"] - cached["accuracy"]) <= 0.001
    for ours, theirs in zip(classifier.usdrl.parameters(), looped.usdrl.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    features, _ = embed_part(context.encoder, context.extractor, context.test)
    assert features.shape == (40, 160)


def test_tiny_recordings_are_whole_and_their_truth_fits():
    data = tiny_recordings()
    assert len(data) == 20 and set(data.column("subjects").tolist()) == {2, 4, 6, 8, 10}
    assert all(len(recording.events) == 5 for recording in data)
    first = data[0]
    assert first.num_frames == len(first.frame_labels()) and (first.frame_labels()[:16] == -1).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"benchmark": "linear/ntu60-xsup", "data": "tiny"}, "did you mean linear/ntu60-xsub"),
        ({"benchmark": "linear/ntu60-xsub"}, "usdrl prepare ntu60.*get it from https://.*terms: "),
        ({"benchmark": "linear/ntu60-xsub", "data": "tiny", "changes": {"epoch": 3}}, "has no entry 'epoch'"),
        ({"benchmark": "finetuned/sbu", "data": "tiny", "changes": {"optimizer": "lion"}}, "optimizer must be"),
        ({"benchmark": "linear/ntu60-xsub", "data": "absent.npz"}, "there is no such file"),
    ],
)
def test_impossible_evaluations_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(MODEL, output_dir=tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_leak_is_left_out_unless_asked_for(tmp_path):
    with np.load(sample_path()) as file:
        arrays = dict(file)
    arrays["split_test"] = np.isin(arrays["subjects"], [8, 10])
    arrays["split_test_leaked"] = arrays["split_test"] & (arrays["labels"] == 0)
    np.savez(tmp_path / "data.npz", **arrays)
    counts = [
        evaluate(MODEL, "retrieval/nw_ucla", tmp_path / "data.npz", with_leak=leak)["n"]["test"]
        for leak in (False, True)
    ]
    assert counts == [36, 40]


def test_the_commands_evaluate_repeat_and_list(capsys, tmp_path):
    folder = tmp_path / "out"
    options = ["--benchmark", "linear/ntu60-xsub", "--tiny", "--set", "epochs=2", "--output-dir", folder]
    code, out, _ = run(capsys, "evaluate", MODEL, *options)
    assert code == 0 and "accuracy" in out and "85.2" not in out
    code, again, _ = run(capsys, "evaluate", "--repeat", folder / "metrics.json")
    assert code == 0 and again.splitlines()[:5] == out.splitlines()[:5]
    code, _, err = run(capsys, "evaluate", MODEL, "--benchmark", "linear/ntu60-xsub")
    assert code == 2 and "usdrl prepare ntu60" in err
    code, _, err = run(capsys, "evaluate", MODEL, "--benchmark", "linear/sbu", "--tiny", "--set", "epochs")
    assert code == 2 and "such as epochs=20" in err
    code, _, err = run(capsys, "evaluate", MODEL, "--tiny")
    assert code == 2 and "name a model and a --benchmark" in err
    code, out, _ = run(capsys, "benchmarks")
    assert code == 0 and "linear/ntu60-xsub" in out and "85.2 %" in out
    code, out, _ = run(capsys, "benchmarks", "--task", "detection", "--json")
    assert code == 0 and {entry["task"] for entry in json.loads(out)} == {"detection"}
    code, _, err = run(capsys, "benchmarks", "--task", "guess")
    assert code == 2 and "there is no task 'guess'" in err


def test_the_head_starts_from_the_encoder_given():
    samples = load_samples()
    context = Context(load_model(MODEL), load_feature_extractor(MODEL), samples, samples, ["a", "b"], {}, 0)
    head = context.new_head(USDRLForActionDetection)
    assert head.config.class_names == ["background", "a", "b"] and head.classifier.out_features == 3
    original = load_model(checkpoint_path(MODEL)).base_model.state_dict()
    assert all(torch.equal(value, original[name]) for name, value in head.usdrl.state_dict().items())
    assert isinstance(open_data(sample_path()), SkeletonDataset)


def test_right_and_wrong_movements_are_classes_of_their_own(tmp_path):
    record = evaluate(MODEL, "linear/ui_prmd_vicon-correct", sample_path(), output_dir=tmp_path / "out")
    assert load_model(tmp_path / "out").config.class_names == ["done wrong", "done right"]
    assert record["n"] == {"train": 60, "test": 40} and "top5_accuracy" not in record["metrics"]


def test_moments_are_found_and_a_timeline_is_drawn(tmp_path):
    changes = {**FEW, "widen": 6, "tolerance": 5, "stride": 32}
    record = evaluate(MODEL, "detection/utkinect_untrimmed", output_dir=tmp_path / "out", data="tiny", changes=changes)
    assert set(record["metrics"]) == {"point_F1", "point_F1_mean"}
    assert (tmp_path / "out" / "timeline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "benchmark, changes",
    [
        ("linear/utd_mhad", {}),
        ("finetuned/utd_mhad", FEW),
        ("early/utkinect", FEW),
        ("early-causal/utkinect", FEW),
        ("detection/pkummd1-xsub", FEW),
        ("segmentation/pkummd2-xsub", {**FEW, "stride": 32}),
    ],
)
def test_a_trained_head_is_scored_again_without_training(tmp_path, benchmark, changes):
    trained = evaluate(MODEL, benchmark, output_dir=tmp_path / "head", data="tiny", changes=changes)
    again = evaluate(
        tmp_path / "head", benchmark, output_dir=tmp_path / "again", data="tiny", changes=changes, train_head=False
    )
    assert again["metrics"] == pytest.approx(trained["metrics"], abs=1e-6)
    assert not (tmp_path / "again" / "model.safetensors").exists()
    assert repeat(tmp_path / "again" / "metrics.json")["metrics"] == again["metrics"]


@pytest.mark.long
def test_segments_are_of_averaged_frames_where_asked_to(tmp_path):
    name, few = "detection/pkummd1-xsub", {"epochs": 5, "learning_rate": 0.003, "threshold": 0.3}
    plain = evaluate(MODEL, name, output_dir=tmp_path / "head", data="tiny", changes=few)
    options = {"data": "tiny", "train_head": False, "changes": {**few, "average_phases": True}}
    averaged = evaluate(tmp_path / "head", name, **options)
    # Segments that do not break are fewer, and more of them are right.
    assert averaged["metrics"]["F1@0.1"] > plain["metrics"]["F1@0.1"] > 0


def test_what_cannot_be_scored_without_training_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="USDRLForActionRecognition, and USDRLForActionDetection is needed"):
        evaluate(MODEL, "detection/pkummd1-xsub", data="tiny", train_head=False)
    with pytest.raises(ValueError, match="cannot do without"):
        evaluate(MODEL, "semi-10/utd_mhad", data="tiny", train_head=False)
    evaluate(MODEL, "detection/pkummd1-xsub", output_dir=tmp_path / "head", data="tiny", changes=FEW)
    code, _, err = run(capsys, "evaluate", tmp_path / "head", "--benchmark", "linear/sbu", "--tiny", "--no-train")
    assert code == 2 and "name one, or train a head" in err
