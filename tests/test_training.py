import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from usdrl_hub import (
    Engine,
    USDRLConfig,
    USDRLEnsemble,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLModel,
    USDRLTrainer,
    extract_embeddings,
)
from usdrl_hub.cli import main
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.errors import CheckpointLoadError, USDRLWarning
from usdrl_hub.inference.pipelines import SkeletonActionRecognitionPipeline
from usdrl_hub.inference.prediction import iter_predictions
from usdrl_hub.inference.timeline import iter_timelines
from usdrl_hub.loading import MissingPreprocessorError, load_feature_extractor
from usdrl_hub.metrics.classification import accuracy
from usdrl_hub.tasks.baselines import nearest_neighbour_baselines
from usdrl_hub.tasks.choice import FULL
from usdrl_hub.tasks.console import Console, say_classes
from usdrl_hub.tasks.fit import FitRecipe
from usdrl_hub.tasks.recognition import Evaluation, finetune

from .helpers import Clips, arguments, tiny_config


@pytest.mark.parametrize("model_class", [USDRLForActionRecognition, USDRLForActionDetection])
def test_accumulating_4_times_8_equals_a_batch_of_32(tmp_path, model_class):
    config = tiny_config(drop_path_rate=0)
    dataset = Clips(config, frame_labels=model_class is USDRLForActionDetection)
    weights = []
    for batch, steps in ((32, 1), (8, 4)):
        torch.manual_seed(0)
        model = model_class(config)
        changes = {"optim": "sgd", "max_steps": 4, "max_grad_norm": 1e9}
        trainer = USDRLTrainer(
            model,
            arguments(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=steps, **changes),
            train_dataset=dataset,
        )
        trainer.train()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-7)
    start = torch.cat([parameter.detach().flatten() for parameter in _fresh(model_class, config).parameters()])
    assert (weights[0] - start).abs().max() > 1e-4


def _fresh(model_class, config):
    torch.manual_seed(0)
    return model_class(config)


@pytest.mark.long
def test_training_learns_and_a_linear_probe_leaves_the_encoder(tmp_path):
    config = tiny_config(drop_path_rate=0.2)
    for probe in (False, True):
        torch.manual_seed(0)
        model = USDRLForActionRecognition(config)
        before = {name: tensor.clone() for name, tensor in model.usdrl.state_dict().items()}
        trainer = USDRLTrainer(
            model,
            arguments(
                tmp_path,
                num_train_epochs=15,
                per_device_train_batch_size=16,
                learning_rate=0.3 if probe else 1e-2,
            ),
            train_dataset=Clips(config),
            eval_dataset=Clips(config),
            linear_probe=probe,
        )
        trainer.train()
        # A quarter is chance; the probe reads random features.
        assert trainer.evaluate()["eval_accuracy"] > (0.5 if probe else 0.8)
        same = all(torch.equal(before[name], tensor) for name, tensor in model.usdrl.state_dict().items())
        assert same == probe


def test_a_linear_probe_of_a_bare_encoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="USDRLModel has none"):
        USDRLTrainer(USDRLModel(tiny_config()), arguments(tmp_path), linear_probe=True)


def test_a_linear_probe_holds_for_models_that_the_trainer_makes(tmp_path):
    config = tiny_config()
    trainer = USDRLTrainer(
        model_init=lambda: _fresh(USDRLForActionRecognition, config),
        args=arguments(tmp_path, max_steps=2),
        train_dataset=Clips(config),
        linear_probe=True,
    )
    trainer.train()
    before = _fresh(USDRLForActionRecognition, config).usdrl.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.usdrl.state_dict().items())


def test_accuracy_counts_ranks_and_leaves_out_what_is_ignored():
    logits = np.eye(7)[[0, 1, 2, 3]]
    logits[3] = [6, 5, 4, 3, 2, 1, 0]
    scores = accuracy(logits, np.array([0, 1, 5, 4]))
    assert scores == {"accuracy": 0.5, "top5_accuracy": 0.75}
    assert accuracy(logits, np.array([0, -100, -100, -100]))["accuracy"] == 1
    # A model that says the same of all classes is right about none.
    assert accuracy(np.zeros((2, 3)), np.array([0, 1])) == {"accuracy": 0.0}


@pytest.mark.parametrize("probe", [False, True])
def test_finetuning_on_the_shipped_clips_gives_a_model_folder_that_repeats(tmp_path, probe):
    recipe = None if probe else replace(FULL, epochs=2, min_steps=0)
    options = {"recipe": recipe, "method": "linear" if probe else "full", "seed": 3}
    data = _with_even_and_odd_people(tmp_path)
    evaluation = Evaluation(baseline=True)
    records = [finetune(data, tmp_path / name, evaluation=evaluation, **options) for name in ("a", "b")]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["checkpoint_sha256"] == records[1]["checkpoint_sha256"]
    record = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert record["n"] == {"train": 60, "test": 40} and record["seed"] == 3 and record["versions"]["torch"]
    assert set(record["metrics"]) >= {"accuracy", "top5_accuracy", "baseline_1nn_raw", "baseline_1nn_centered"}
    model = USDRLForActionRecognition.from_pretrained(tmp_path / "a")
    assert model.config.class_names[0] == "deep squat"
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [
        "config.json",
        "metrics.json",
        "model.safetensors",
        "predictions.csv",
        "preprocessor_config.json",
        "report.html",
    ]


def test_what_is_said_after_training_agrees_in_all_places(tmp_path):
    record = finetune(_with_even_and_odd_people(tmp_path), tmp_path / "out", recipe=FitRecipe(epochs=1))
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["scores"] == record["scores"] and written["baselines"] == record["baselines"]
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [entry["name"] for entry in record["scores"]["classes"]]
    assert len(rows) == record["n"]["test"] == np.sum(record["scores"]["confusion"])
    confusion = np.zeros((len(names), len(names)), int)
    for row in rows:
        probabilities = [float(row[f"p:{name}"]) for name in names]
        assert names[int(np.argmax(probabilities))] == row["predicted_class"]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        confusion[names.index(row["true_class"]), names.index(row["predicted_class"])] += 1
    assert confusion.tolist() == record["scores"]["confusion"]
    assert record["metrics"]["accuracy"] == pytest.approx(np.trace(confusion) / confusion.sum())
    # People test whom nobody trained on, and intervals draw people.
    assert record["scores"]["interval_unit"] == "group" and {int(row["group"]) % 2 for row in rows} == {0}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert data["confusion"] == record["scores"]["confusion"] and data["warnings"] == record["warnings"]
    assert [score["value"] for score in data["scores"][:3]] == [
        record["scores"][name] for name in ("accuracy", "balanced_accuracy", "macro_f1")
    ]


def test_unknown_people_are_not_one_person_and_names_of_any_bytes_are_written(tmp_path):
    """After hours of training, a name that is not UTF-8 must not cost the model."""
    samples = list(load_samples())
    clips = [
        replace(clip, subject=None, split="test" if number % 2 else "train", name=f"\udcff {clip.name}")
        for number, clip in enumerate(samples)
    ]
    record = finetune(clips, tmp_path / "out", recipe=FitRecipe(epochs=0.1))
    assert record["scores"]["interval_unit"] == "clip"
    assert any("do not say who moves" in sentence for sentence in record["warnings"])
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "person tests" not in page and "\\udcff" in (tmp_path / "out" / "predictions.csv").read_text("utf-8")


@pytest.mark.long
def test_the_split_that_was_asked_for_is_recorded_and_a_mixed_one_is_reported(tmp_path):
    clips = [replace(clip, split="test" if number % 2 else "train") for number, clip in enumerate(load_samples())]
    record = finetune(clips, tmp_path / "mixed", recipe=FitRecipe(epochs=0.1))
    assert record["groups"] == {"by": "subject", "train": 5, "test": 5, "shared": 5}
    assert any("5 people both train and test" in sentence for sentence in record["warnings"])
    record = finetune(
        clips, tmp_path / "apart", recipe=FitRecipe(epochs=0.1), evaluation=Evaluation(group_by="subject")
    )
    assert record["groups"] == {"by": "subject", "train": 4, "test": 1, "shared": 0}
    assert record["split"].startswith("1 of 5 people tests") and record["n"] == {"train": 80, "test": 20}
    assert not any("both train and test" in sentence for sentence in record["warnings"])


@pytest.mark.parametrize("label", [1.5, float("nan"), "squat"])
def test_labels_that_are_no_classes_are_refused(label, tmp_path):
    clips = [replace(clip, label=label) for clip in list(load_samples())[:10]]
    with pytest.raises(ValueError, match="not the number of a class"):
        finetune(clips, tmp_path / "out")


def test_classes_and_people_that_the_split_leaves_out_are_reported(tmp_path):
    samples = [clip for clip in load_samples() if clip.label < 3]
    sides = ["test" if clip.label == 2 or number % 2 else "train" for number, clip in enumerate(samples)]
    clips = [replace(clip, split=side, subject=7) for clip, side in zip(samples, sides, strict=True)]
    record = finetune(clips, tmp_path / "out", method="linear")
    assert "All clips are of one person: nothing is known of any other." in record["warnings"]
    assert "No clip trains the class 'class 2': its test clips count as wrong." in record["warnings"]
    # What was trained comes with the record.
    predictions = list(iter_predictions(clips, Engine(record.model, record.extractor)))
    right = [found.top(1)[0][0] == f"class {clip.label}" for found, clip in zip(predictions, clips, strict=True)]
    tested = [clip.split == "test" for clip in clips]
    assert np.mean(np.array(right)[tested]) == pytest.approx(record["metrics"]["accuracy"])
    assert record["metrics"]["accuracy"] <= np.mean([clip.label != 2 for clip in clips if clip.split == "test"])


def test_a_class_of_one_person_counts_as_wrong_in_folds_and_is_reported(tmp_path):
    clips = [clip for clip in load_samples() if clip.label < 2 or (clip.label == 2 and clip.subject == 2)]
    record = finetune(clips, tmp_path / "out", method="linear", evaluation=Evaluation(folds="subject"))
    alone = (
        "All clips of the class 'class 2' test in one fold, which no clip of it trains: 2 test clips count as wrong."
    )
    assert alone in record["warnings"] and record["scores"]["classes"][2]["recall"] == 0
    assert alone in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    "names, balance, expected",
    [
        (["a", "b"], False, ["--balance"]),
        (["a", "b"], True, []),
        (["1.5", "2"], True, ["--target"]),
        (["1.0", "2.0"], True, []),
    ],
)
def test_what_looks_wrong_with_the_classes_is_said_with_the_option_that_helps(names, balance, expected):
    told, data = [], load_samples()
    data = data.relabelled(np.array([0] * 95 + [1] * 5), names)
    say_classes(told.append, data, balance=balance)
    assert told[0] == f"clips of each class: {names[0]} 95, {names[1]} 5"
    assert [option for option in ("--balance", "--target") if any(option in text for text in told[1:])] == expected


def test_a_model_that_is_worse_than_the_joints_themselves_says_so(tmp_path):
    recipe = FitRecipe(epochs=0.1, learning_rate=1e-9)
    with pytest.warns(USDRLWarning, match="is not better than the nearest neighbour on normalised joints"):
        record = finetune(
            _with_even_and_odd_people(tmp_path), tmp_path / "out", None, recipe=recipe, config={"hidden_size": 16}
        )
    assert record["metrics"]["accuracy"] <= record["baselines"]["nearest neighbour on normalised joints"]
    assert any("is not better than" in sentence for sentence in record["warnings"])


@pytest.mark.parametrize("probe", [False, True])
def test_a_new_head_on_a_pretrained_encoder_starts_from_what_the_features_say(tmp_path, probe):
    data = _with_even_and_odd_people(tmp_path)
    with np.load(data) as file:
        arrays = dict(file)
    np.savez(data, **{**arrays, "labels": arrays["labels"].astype(np.int8 if probe else np.uint16)})
    # So slow that nothing is learned but where it starts: a random head would be right in a tenth.
    recipe = FitRecipe(freeze_encoder=probe, epochs=1, learning_rate=1e-9)
    record = finetune(data, tmp_path / "out", "usdrl/mocap-tiny", recipe=recipe)
    assert record["metrics"]["accuracy"] >= 0.7


def test_training_on_flat_keypoints_starts_from_the_flat_encoder(tmp_path, capsys):
    data = np.random.default_rng(0).uniform(1, 9, (40, 1, 17, 2)).astype(np.float32)
    arrays = {"data": data, "offsets": np.arange(0, 41, 10), "labels": np.array([0, 1, 0, 1])}
    arrays |= {"subjects": np.array([1, 1, 2, 2]), "layout": np.array("coco17")}
    np.savez(tmp_path / "flat.npz", **arrays)
    with pytest.raises(ValueError, match="are 2D, but 'usdrl/tiny-uiprmd' reads 3D: start from usdrl/mocap-2d with"):
        finetune(tmp_path / "flat.npz", tmp_path / "out", "usdrl/tiny-uiprmd")
    assert not (tmp_path / "out").exists()
    said: list[str] = []
    trained = finetune(tmp_path / "flat.npz", tmp_path / "out", method="linear", console=Console(said.append))
    assert "2D keypoints: training starts from usdrl/mocap-2d" in said
    assert trained.model.config.layout == "coco17" and trained["base_model"] == "usdrl/mocap-2d"


def _with_even_and_odd_people(folder):
    """The shipped clips, whose people all have even numbers, with people 2, 6 and 10 as odd ones."""
    with np.load(sample_path()) as file:
        arrays = dict(file)
    arrays["subjects"] = arrays["subjects"] // 2
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_training_from_random_weights_takes_the_data_layout(tmp_path):
    data, recipe = _with_even_and_odd_people(tmp_path), FitRecipe(epochs=1)
    finetune(data, tmp_path / "out", None, recipe=recipe, config={"hidden_size": 16})
    config = USDRLConfig.from_pretrained(tmp_path / "out")
    assert (config.layout, config.num_joints, config.num_persons, config.num_labels) == ("ui-prmd39", 39, 1, 10)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"config": {"normalization": "none"}}, "has its own"),
        ({"model": "usdrl/tiny-uiprmd", "config": {"hidden_size": 8}}, "has its own"),
        ({"model": None, "config": {"hidden_size": 7}}, "must be even"),
    ],
)
def test_impossible_training_is_refused_and_leaves_nothing(tmp_path, options, message):
    data = _with_even_and_odd_people(tmp_path)
    with pytest.raises(ValueError, match=message):
        finetune(data, tmp_path / "out", **options)
    assert [file.name for file in tmp_path.iterdir()] == ["data.npz"]


def test_what_cannot_be_read_is_told_before_the_training(tmp_path, monkeypatch):
    data = _with_even_and_odd_people(tmp_path)
    with np.load(data) as file:
        arrays = dict(file)
    arrays["data"][-1, 0, 3] = np.nan
    np.savez(data, **arrays)
    monkeypatch.setattr(USDRLTrainer, "train", lambda self: pytest.fail("it trained"))
    with pytest.raises(ValueError, match="data.npz: .* is NaN"):
        finetune(data, tmp_path / "out")


@pytest.mark.parametrize("there", [True, False])
def test_a_result_goes_into_an_empty_folder_that_is_there(tmp_path, monkeypatch, there):
    data = _with_even_and_odd_people(tmp_path)
    if there:
        (tmp_path / "out").mkdir()
        monkeypatch.chdir(tmp_path / "out")
    finetune(data, "." if there else tmp_path / "out", recipe=FitRecipe(epochs=0.1))
    assert "metrics.json" in {file.name for file in (tmp_path / "out").iterdir()}
    assert not list(tmp_path.glob("**/*.partial"))


def test_nearest_neighbours_of_the_training_clips_are_themselves():
    from usdrl_hub.data.samples import load_samples

    samples = load_samples().select(np.arange(100) < 30)
    assert nearest_neighbour_baselines(samples, samples) == {"baseline_1nn_raw": 1.0, "baseline_1nn_centered": 1.0}


class Items(torch.utils.data.Dataset):
    """Labelled input of any head."""

    def __init__(self, model, kind="", count=32):
        config, generator = model.config, torch.Generator().manual_seed(0)
        shape = (config.num_frames, config.num_persons, config.num_joints, config.num_channels)
        frames = config.num_frames
        self.columns = {}
        if isinstance(model, USDRLForActionSegmentation):
            shape, frames = (2, *shape), 18
            self.columns["window_starts"] = torch.tensor([0, 6]).expand(count, 2)
        self.columns["keypoints"] = torch.randn(count, *shape, generator=generator)
        if kind == "regression":
            labels = torch.rand(count, generator=generator)
        elif kind:
            labels = (torch.rand(count, config.num_labels, generator=generator) > 0.5).float()
        else:
            size = (count,) if isinstance(model, USDRLForActionRecognition) else (count, frames)
            labels = torch.randint(0, 4, size, generator=generator)
            if len(size) == 2:
                # Left out, not as many in each batch; a segmenter's loss is a mean over batches of equal numbers.
                labels[:, -2:] = -100
                if not isinstance(model, USDRLForActionSegmentation):
                    labels[:8, -5:] = -100
        self.columns["labels"] = labels

    def __len__(self):
        return len(self.columns["labels"])

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.columns.items()}


HEADS = [
    (USDRLForActionRecognition, {}, {}),
    (USDRLForActionRecognition, {}, {"label_smoothing_factor": 0.1}),
    (USDRLForActionRecognition, {"num_labels": 1, "problem_type": "regression"}, {}),
    (USDRLForActionRecognition, {"problem_type": "multi_label_classification"}, {}),
    (USDRLForActionDetection, {}, {}),
    (USDRLForActionDetection, {}, {"label_smoothing_factor": 0.1}),
    (USDRLForEarlyActionPrediction, {"is_causal": True}, {}),
    (USDRLForActionSegmentation, {"segmentation_layers": 2, "segmentation_channels": 8}, {}),
]


@pytest.mark.parametrize(("model_class", "fields", "changes"), HEADS)
def test_loss_and_gradient_of_accumulated_batches_are_those_of_one(tmp_path, model_class, fields, changes):
    """faults.md 7: both were 4 times too large for segmentation."""
    found = []
    for batch, steps in ((32, 1), (8, 4)):
        torch.manual_seed(0)
        model = model_class(tiny_config(drop_path_rate=0, **fields))
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        choices = {"optim": "sgd", "max_steps": 1, "max_grad_norm": 1e9, "logging_steps": 1} | changes
        trainer = USDRLTrainer(
            model,
            arguments(tmp_path, **sizes, **choices),
            train_dataset=Items(model, fields.get("problem_type", "")),
        )
        gradient = {}

        class Keep(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model=None, kept=gradient, **kwargs):
                kept.update({name: values.grad.clone() for name, values in model.named_parameters()})

        trainer.add_callback(Keep())
        trainer.train()
        found.append((trainer.state.log_history[0]["loss"], gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert max(values.abs().max() for values in found[0][1].values()) > 1e-4
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


def test_label_smoothing_that_would_replace_a_loss_is_refused(tmp_path):
    """faults.md 7, 14: the stages of a segmenter, and numbers, were left out without a word."""
    # Where the configuration says what the problem is, transformers leaves the smoothing out, with a warning.
    for model_class, fields, kind in ((*HEADS[-1][:2], ""), (USDRLForActionRecognition, {}, "several")):
        model = model_class(tiny_config(**fields))
        trainer = USDRLTrainer(
            model,
            arguments(tmp_path, label_smoothing_factor=0.1, max_steps=1),
            train_dataset=Items(model, kind),
        )
        with pytest.raises(ValueError, match="label_smoothing_factor would replace"):
            trainer.train()


@pytest.mark.parametrize(
    ("told", "shape"),
    [
        (True, "flat"),
        (False, "column"),
        pytest.param(True, "column", marks=pytest.mark.slow),
        pytest.param(False, "flat", marks=pytest.mark.slow),
    ],
)
@pytest.mark.long
def test_a_quality_score_is_learned_saved_and_predicted(tmp_path, told, shape):
    """faults.md 14: problem_type was ignored, then torch's error came."""
    torch.manual_seed(0)
    fields = {"problem_type": "regression"} if told else {}
    config = tiny_config(num_labels=1, drop_path_rate=0, num_joints=25, layout="ntu25", **fields)
    data = Clips(config)
    data.labels = data.labels.float() / 3
    if shape == "column":
        data.labels = data.labels[:, None]
    trainer = USDRLTrainer(
        USDRLForActionRecognition(config),
        arguments(tmp_path / "run", num_train_epochs=40, per_device_train_batch_size=16),
        train_dataset=data,
        eval_dataset=data,
    )
    before = trainer.evaluate()
    trainer.train()
    scores = trainer.evaluate()
    assert scores["eval_mse"] < 0.2 * before["eval_mse"] and scores["eval_mae"] < before["eval_mae"]
    assert scores["eval_loss"] == pytest.approx(scores["eval_mse"], rel=1e-3)
    trainer.model.save_pretrained(tmp_path / "model")
    model = USDRLForActionRecognition.from_pretrained(tmp_path / "model")
    assert model.config.problem_type == "regression"
    extractor = USDRLFeatureExtractor.from_model_config(model.config)
    clips = np.random.default_rng(0).random((2, 30, 25, 3))
    found = list(iter_predictions(list(clips), Engine(model, extractor)))
    with torch.no_grad():
        logits = model(**extractor(list(clips), return_tensors="pt")).logits
    for prediction, value in zip(found, logits[:, 0].tolist(), strict=True):
        assert prediction.is_regression and prediction.top(5) == [("LABEL_0", pytest.approx(value, abs=1e-5))]
    recognise = SkeletonActionRecognitionPipeline(model, feature_extractor=extractor)
    assert recognise(clips[0])[0]["score"] == pytest.approx(logits[0, 0].item(), abs=1e-5)
    with pytest.raises(CheckpointLoadError, match="problem_type is 'regression', and a timeline needs"):
        list(iter_timelines(list(clips), Engine(model, extractor)))
    with pytest.raises(ValueError, match="an ensemble averages probabilities of classes"):
        USDRLEnsemble([model], extractor)


def test_classes_that_hold_together_have_probabilities_of_their_own(tmp_path):
    """faults.md 14."""
    torch.manual_seed(0)
    config = tiny_config(drop_path_rate=0, num_joints=25, layout="ntu25")
    model = USDRLForActionRecognition(config)
    data = Items(model, "multi_label_classification")
    trainer = USDRLTrainer(model, arguments(tmp_path, num_train_epochs=2), train_dataset=data, eval_dataset=data)
    trainer.train()
    assert model.config.problem_type == "multi_label_classification"
    scores = trainer.evaluate()
    with torch.no_grad():
        logits = model.eval()(data.columns["keypoints"]).logits
    right = (logits > 0) == (data.columns["labels"] > 0.5)
    assert scores["eval_exact_match"] == pytest.approx(right.all(dim=1).double().mean().item())
    truth = torch.nn.functional.binary_cross_entropy(logits.sigmoid(), data.columns["labels"])
    assert scores["eval_loss"] == pytest.approx(truth.item(), rel=1e-5)
    extractor = USDRLFeatureExtractor.from_model_config(config)
    clip = np.random.default_rng(0).random((30, 25, 3))
    [prediction] = iter_predictions([clip], Engine(model, extractor))
    with torch.no_grad():
        expected = model(**extractor(clip, return_tensors="pt")).logits[0].sigmoid()
    np.testing.assert_allclose(prediction.probabilities, expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize(("model_class", "fields"), [(head, fields) for head, fields, _ in HEADS[4:]])
def test_heads_of_frames_name_the_problem_that_they_have_not(model_class, fields):
    """faults.md 14."""
    for problem in ("regression", "multi_label_classification"):
        with pytest.raises(ValueError, match=f"problem_type is '{problem}': only USDRLForActionRecognition"):
            model_class(tiny_config(problem_type=problem, **fields))
    model = model_class(tiny_config(**fields))
    item = {name: values[:2] for name, values in Items(model).columns.items()}
    with pytest.raises(ValueError, match="the labels are classes, whole numbers"):
        model(**{**item, "labels": item["labels"].float()})


def test_labels_that_do_not_fit_the_problem_are_refused():
    """faults.md 14: 0.7 was taken as class 0."""
    config = tiny_config(num_labels=3, problem_type="multi_label_classification")
    clips = torch.randn(4, *(getattr(config, f"num_{name}") for name in ("frames", "persons", "joints", "channels")))
    with pytest.raises(ValueError, match=r"needs labels of the shape \(4, 3\), got \(4,\)"):
        USDRLForActionRecognition(config)(clips, labels=torch.rand(4))
    single = USDRLForActionRecognition(tiny_config(problem_type="single_label_classification"))
    with pytest.raises(ValueError, match="the labels are classes, whole numbers from 0 to 3"):
        single(clips, labels=torch.rand(4))


class Few(torch.utils.data.Dataset):
    """A data set of one's own, which says nothing of how its clips were made."""

    def __init__(self, config, extractor=None):
        shape = (config.num_frames, config.num_persons, config.num_joints, config.num_channels)
        self.clips = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
        if extractor is not None:
            self.feature_extractor = extractor

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return {"keypoints": self.clips[index], "labels": index % 2}


def test_the_trainer_saves_the_extractor_of_the_model_that_it_was_given(tmp_path):
    """faults.md 6: none was saved, and predict normalised in another way, nothing said."""
    model = USDRLForActionRecognition.from_pretrained("usdrl/mocap-tiny", num_labels=2)
    expected = load_feature_extractor("usdrl/mocap-tiny")
    assert expected.normalization != USDRLFeatureExtractor.from_model_config(model.config).normalization
    choices = arguments(tmp_path / "run", max_steps=1, save_strategy="steps", save_steps=1)
    trainer = USDRLTrainer(model, choices, train_dataset=Few(model.config))
    trainer.train()
    trainer.save_model(tmp_path / "model")
    for folder in (tmp_path / "model", tmp_path / "run" / "checkpoint-1"):
        assert load_feature_extractor(folder).to_dict() == expected.to_dict()
    # What the clips were made with comes first; and what is given before that.
    other = USDRLFeatureExtractor.from_model_config(model.config, normalization="none")
    assert USDRLTrainer(model, choices, train_dataset=Few(model.config, other)).processing_class is other
    assert USDRLTrainer(model, choices, processing_class=expected).processing_class is expected
    # The object is read as its name is.
    clip = np.random.default_rng(0).random((30, 25, 3), dtype=np.float32)
    encoder = USDRLModel.from_pretrained("usdrl/mocap-tiny").eval()
    for loaded in (encoder, model.eval()):
        found = extract_embeddings(clip, loaded)
        np.testing.assert_allclose(found, extract_embeddings(clip, Engine(loaded, expected)), atol=1e-6)


def test_a_model_without_an_extractor_is_told_and_refused(tmp_path, capsys):
    """faults.md 6."""
    config = tiny_config(num_joints=25, layout="ntu25")
    trainer = USDRLTrainer(USDRLForActionRecognition(config), arguments(tmp_path / "run"), train_dataset=Few(config))
    with pytest.warns(USDRLWarning, match="saved without a feature extractor"):
        trainer.save_model(tmp_path / "model")
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).random((30, 25, 3), dtype=np.float32))
    command = ["predict", str(tmp_path / "clip.npy"), "--model", str(tmp_path / "model")]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2 and "has no preprocessor_config.json" in capsys.readouterr().err
    model = USDRLForActionRecognition.from_pretrained(tmp_path / "model")
    with pytest.raises(MissingPreprocessorError):
        extract_embeddings(tmp_path / "clip.npy", model)
    with pytest.raises(SystemExit) as end:
        main([*command, "--guess-preprocessing"])
    told = capsys.readouterr()
    assert not end.value.code and "LABEL_0" in told.out
    assert "note: model" in told.err and "normalization 'ntu' is used, as its layout suggests" in told.err


@pytest.mark.parametrize("epochs", [0, float("inf")])
def test_impossible_recipes_are_refused(epochs):
    with pytest.raises(ValueError, match="must be positive"):
        FitRecipe(epochs=epochs)


def test_a_loss_that_is_refused_leaves_the_kind_of_problem_open():
    """Wrong labels once made the model one of several labels, and right ones were refused from then on."""
    model = USDRLForActionRecognition(tiny_config(num_labels=3))
    with pytest.raises(ValueError, match="needs labels of the shape"):
        model._loss(torch.zeros(2, 3), torch.tensor([0.0, 1.0]), None)
    assert model.config.problem_type is None
    assert float(model._loss(torch.zeros(2, 3), torch.tensor([0, 1]), None)) == pytest.approx(np.log(3))
    assert model.config.problem_type is None
