import json

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, TrainingArguments

from usdrl_hub import USDRLConfig, USDRLForActionDetection, USDRLForActionRecognition, USDRLModel, USDRLTrainer
from usdrl_hub.data.samples import sample_path
from usdrl_hub.tasks.recognition import finetune, nearest_neighbour_baselines
from usdrl_hub.training import accuracy

from .test_modeling import tiny_config


class Clips(torch.utils.data.Dataset):
    """Any data set that yields keypoints and labels will do."""

    def __init__(self, config, count=64, frame_labels=False):
        generator = torch.Generator().manual_seed(0)
        shape = (config.num_frames, config.num_persons, config.num_joints, config.num_channels)
        self.labels = torch.randint(0, 4, (count,), generator=generator)
        self.keypoints = torch.randn(count, *shape, generator=generator) + self.labels[:, None, None, None, None]
        if frame_labels:
            self.labels = self.labels[:, None].expand(-1, config.num_frames)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"keypoints": self.keypoints[index], "labels": self.labels[index]}


def arguments(folder, **changes):
    values = {"learning_rate": 1e-2, "report_to": "none", "save_strategy": "no", "seed": 0, "disable_tqdm": True}
    return TrainingArguments(output_dir=folder, **(values | changes))


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
    scores = accuracy(EvalPrediction(logits, np.array([0, 1, 5, 4])))
    assert scores == {"accuracy": 0.5, "top5_accuracy": 0.75}
    assert accuracy(EvalPrediction(logits, np.array([0, -100, -100, -100])))["accuracy"] == 1
    # A model that says the same of all classes is right about none.
    assert accuracy(EvalPrediction(np.zeros((2, 3)), np.array([0, 1]))) == {"accuracy": 0.0}


@pytest.mark.parametrize("probe", [False, True])
def test_finetuning_on_the_shipped_clips_gives_a_model_folder_that_repeats(tmp_path, probe):
    options = {"linear_probe": probe, "epochs": 2, "batch_size": 16, "seed": 3}
    data = _with_even_and_odd_people(tmp_path)
    records = [finetune(data, tmp_path / name, baseline=True, **options) for name in ("a", "b")]
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
        "preprocessor_config.json",
    ]


@pytest.mark.parametrize("probe", [False, True])
def test_a_new_head_on_a_pretrained_encoder_starts_from_what_the_features_say(tmp_path, probe):
    data = _with_even_and_odd_people(tmp_path)
    with np.load(data) as file:
        arrays = dict(file)
    np.savez(data, **{**arrays, "labels": arrays["labels"].astype(np.int8 if probe else np.uint16)})
    # So slow that nothing is learned but where it starts: a random head would be right in a tenth.
    record = finetune(data, tmp_path / "out", "usdrl/mocap-tiny", linear_probe=probe, epochs=1, learning_rate=1e-9)
    assert record["metrics"]["accuracy"] >= 0.7


def test_flat_keypoints_are_told_to_begin_from_scratch(tmp_path):
    data = np.random.default_rng(0).uniform(1, 9, (40, 1, 17, 2)).astype(np.float32)
    arrays = {"data": data, "offsets": np.arange(0, 41, 10), "labels": np.array([0, 1, 0, 1])}
    arrays |= {"subjects": np.array([1, 1, 2, 2]), "layout": np.array("coco17")}
    np.savez(tmp_path / "flat.npz", **arrays)
    with pytest.raises(ValueError, match="are 2D, but 'usdrl/mocap-tiny' reads 3D: train .* --from-scratch"):
        finetune(tmp_path / "flat.npz", tmp_path / "out", "usdrl/mocap-tiny")
    assert not (tmp_path / "out").exists()


def _with_even_and_odd_people(folder):
    """The shipped clips, whose people all have even numbers, with people 2, 6 and 10 as odd ones."""
    with np.load(sample_path()) as file:
        arrays = dict(file)
    arrays["subjects"] = arrays["subjects"] // 2
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_training_from_random_weights_takes_the_data_layout(tmp_path):
    finetune(_with_even_and_odd_people(tmp_path), tmp_path / "out", None, {"hidden_size": 16}, epochs=1)
    config = USDRLConfig.from_pretrained(tmp_path / "out")
    assert (config.layout, config.num_joints, config.num_persons, config.num_labels) == ("ui-prmd39", 39, 1, 10)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 0}, "must be positive"),
        ({"epochs": float("inf")}, "must be positive"),
        ({"normalization": "none"}, "has its own"),
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
    finetune(data, "." if there else tmp_path / "out", epochs=0.1)
    assert "metrics.json" in {file.name for file in (tmp_path / "out").iterdir()}
    assert not list(tmp_path.glob("**/*.partial"))


def test_nearest_neighbours_of_the_training_clips_are_themselves():
    from usdrl_hub.data.samples import load_samples

    samples = load_samples().select(np.arange(100) < 30)
    assert nearest_neighbour_baselines(samples, samples) == {"baseline_1nn_raw": 1.0, "baseline_1nn_centered": 1.0}
