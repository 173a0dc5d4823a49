import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification

from usdrl_hub import (
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForPreTraining,
    USDRLModel,
    checkpoint_path,
    list_checkpoints,
)
from usdrl_hub.hub.cards import render_card, write_cards
from usdrl_hub.hub.registry import CHECKPOINTS, CheckpointLoadError, load_feature_extractor, load_model
from usdrl_hub.hub.remote_code import CODE_FILES, add_remote_code
from usdrl_hub.tasks.results import sha256

from .test_modeling import clips, tiny_config

TINY = "usdrl/tiny-uiprmd"
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped checkpoint, to be damaged."""
    return Path(shutil.copytree(checkpoint_path(TINY), tmp_path / "tiny"))


def test_shipped_names_load_without_network_and_leave_no_trace():
    cache = Path(os.environ["HF_HOME"])
    before = sorted(cache.rglob("*"))
    model = USDRLForActionRecognition.from_pretrained(TINY)
    assert USDRLConfig.from_pretrained(TINY).class_names == model.config.class_names
    assert USDRLFeatureExtractor.from_pretrained(TINY).layout == "ntu25"
    path = checkpoint_path(TINY)
    for loaded in (
        AutoModelForVideoClassification.from_pretrained(path),
        USDRLForActionRecognition.from_pretrained(str(path)),
    ):
        assert torch.equal(loaded.classifier.weight, model.classifier.weight)
    assert isinstance(AutoModel.from_pretrained(path), USDRLModel)
    assert isinstance(AutoConfig.from_pretrained(path), USDRLConfig)
    assert isinstance(AutoFeatureExtractor.from_pretrained(path), USDRLFeatureExtractor)
    assert sorted(cache.rglob("*")) == before


def test_a_revision_asks_the_hub_and_a_local_folder_comes_first(tmp_path, monkeypatch):
    for loader in (USDRLModel, USDRLConfig, USDRLFeatureExtractor):
        with pytest.raises(OSError):
            loader.from_pretrained(TINY, revision="v1")
    monkeypatch.chdir(tmp_path)
    USDRLModel(tiny_config()).save_pretrained(tmp_path / "usdrl" / "tiny-uiprmd")
    assert USDRLModel.from_pretrained(TINY).config.hidden_size == 16


def test_saved_configurations_hold_no_path_of_this_machine(tmp_path):
    USDRLForActionRecognition.from_pretrained(TINY).save_pretrained(tmp_path)
    USDRLFeatureExtractor.from_pretrained(TINY).save_pretrained(tmp_path)
    for name in ("config.json", "preprocessor_config.json"):
        assert str(REPOSITORY) not in (tmp_path / name).read_text()


def test_the_shipped_checkpoint_is_small_and_better_than_its_baselines():
    path = checkpoint_path(TINY)
    assert (path / "model.safetensors").stat().st_size <= 2_000_000
    record = json.loads((path / "metrics.json").read_text())
    assert record["checkpoint_sha256"] == sha256(path / "model.safetensors")
    metrics = record["metrics"]
    assert metrics["accuracy"] > 0.914
    assert metrics["accuracy"] > max(metrics["baseline_1nn_raw"], metrics["baseline_1nn_centered"])


def test_checkpoints_are_listed_with_their_facts():
    info = {info.name: info for info in list_checkpoints()}[TINY]
    assert (info.task, info.layout, info.num_labels, info.license) == ("recognition", "ntu25", 10, "apache-2.0")
    assert set(CHECKPOINTS) == {info.name for info in list_checkpoints()}
    with pytest.raises(CheckpointLoadError, match="there are: usdrl/tiny-uiprmd"):
        checkpoint_path("usdrl/nothing")


def test_the_shipped_folder_is_found_whatever_lies_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "usdrl" / "tiny-uiprmd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert (checkpoint_path(TINY) / "config.json").is_file()


def test_cards_are_up_to_date_and_say_only_what_was_measured(tmp_path):
    card = render_card(checkpoint_path(TINY), CHECKPOINTS[TINY])
    assert (REPOSITORY / "model_cards" / "tiny-uiprmd.md").read_text() == card
    assert (checkpoint_path(TINY) / "README.md").read_text() == card
    record = json.loads((checkpoint_path(TINY) / "metrics.json").read_text())
    assert f"| top-1 accuracy | {100 * record['metrics']['accuracy']:.1f} |" in card
    assert record["command"] in card and "$" not in card.replace("`$", "")
    assert write_cards(tmp_path)[0].read_text() == card


def damage(change):
    def apply(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def cut(name, share):
    def apply(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return apply


def edited(name, **changes):
    def apply(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return apply


class Payload:
    def __reduce__(self):
        return os.system, ("touch pickle-ran",)


def pickled_weights(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Payload()}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "change, message",
    [
        (cut("model.safetensors", 0.5), "cannot be loaded"),
        (cut("model.safetensors", 0.0), "cannot be loaded"),
        (cut("config.json", 0.5), "cannot be loaded"),
        (cut("preprocessor_config.json", 0.5), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (pickled_weights, "cannot be loaded"),
        (edited("config.json", id2label=["a"]), "cannot be loaded"),
        (edited("config.json", hidden_size=82), "the shapes of its weights"),
        (edited("preprocessor_config.json", x_axis=[1]), "must be two joints"),
        (edited("preprocessor_config.json", normalisation="none"), "no argument 'normalisation'"),
        (damage(lambda w: w.pop("usdrl.temporal.layers.0.attention.in_proj.bias")), "in_proj.bias' is missing"),
        (damage(lambda w: w.update({"classifier.bias": torch.ones(3)})), "cannot be loaded"),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_sentence(folder, monkeypatch, change, message):
    monkeypatch.chdir(folder)
    change(folder)
    with pytest.raises(CheckpointLoadError, match=message) as caught:
        load_model(folder)
        load_feature_extractor(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_preprocessor_gets_the_one_of_its_config(folder):
    (folder / "preprocessor_config.json").unlink()
    assert load_feature_extractor(folder).layout == "ntu25"
    USDRLModel(tiny_config(layout=None)).save_pretrained(folder / "bare")
    with pytest.raises(CheckpointLoadError, match="has no preprocessor_config.json, and the model's config has no"):
        load_feature_extractor(folder / "bare")


def test_a_file_is_no_model(folder):
    for load in (load_model, load_feature_extractor):
        with pytest.raises(CheckpointLoadError, match="usdrl convert"):
            load(folder / "model.safetensors")


@pytest.mark.parametrize("modality", ["joint", "bone"])
def test_remote_code_gives_the_same_outputs_where_the_package_is_missing(tmp_path, modality):
    config = tiny_config(modality=modality)
    keypoints = clips(config)
    np.save(tmp_path / "keypoints.npy", keypoints.numpy())
    raw = np.random.randn(30, 5, 3)
    np.save(tmp_path / "raw.npy", raw)
    classes = {
        "AutoModel": USDRLModel,
        "AutoModelForPreTraining": USDRLForPreTraining,
        "AutoModelForVideoClassification": USDRLForActionRecognition,
        "AutoModelForTokenClassification": USDRLForActionDetection,
    }
    expected = {}
    for name, model_class in classes.items():
        model = model_class(config).eval()
        model.save_pretrained(tmp_path / name)
        extractor = USDRLFeatureExtractor.from_model_config(config, normalization="none")
        extractor.save_pretrained(tmp_path / name)
        add_remote_code(tmp_path / name)
        expected[name] = model(keypoints)[0].detach().numpy()
    script = f"""
import sys
sys.modules["usdrl_hub"] = None  # an import of the package fails
import numpy as np, torch, transformers
folder = {str(tmp_path)!r}
keypoints = torch.from_numpy(np.load(folder + "/keypoints.npy"))
for name in {list(classes)}:
    model = getattr(transformers, name).from_pretrained(f"{{folder}}/{{name}}", trust_remote_code=True).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(f"{{folder}}/{{name}}", trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules"), type(model)
    np.save(f"{{folder}}/{{name}}.npy", model(keypoints)[0].detach().numpy())
    np.save(f"{{folder}}/{{name}}.clip.npy", extractor(np.load(folder + "/raw.npy")).keypoints)
"""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for name, output in expected.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), output)
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.clip.npy"), extractor(raw).keypoints)


def test_code_of_a_folder_runs_only_if_trusted(tmp_path):
    USDRLModel(tiny_config()).save_pretrained(tmp_path)
    USDRLFeatureExtractor.from_model_config(tiny_config(), normalization="none").save_pretrained(tmp_path)
    add_remote_code(tmp_path)
    (tmp_path / "modeling_usdrl.py").write_text("raise RuntimeError('ran')")
    assert isinstance(AutoModel.from_pretrained(tmp_path), USDRLModel)
    assert {name for name in CODE_FILES} <= {file.name for file in tmp_path.iterdir()}
