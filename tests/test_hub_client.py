"""The package with the Hub's real clients (huggingface_hub, transformers, `hf`) against `loopback_hub`."""

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    errors,
    hf_hub_download,
    snapshot_download,
)
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForVideoClassification, TrainingArguments

from usdrl_hub import (
    MotionIndex,
    Reading,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLModel,
    USDRLTrainer,
    WindowOptions,
    checkpoint_path,
)
from usdrl_hub.cli import main
from usdrl_hub.errors import CheckpointLoadError
from usdrl_hub.hub.card_source import base_model
from usdrl_hub.hub.install import install
from usdrl_hub.inference.blazepose import SHIPPED, BlazePoseEstimator
from usdrl_hub.loading import (
    MissingPreprocessorError,
    extractor_of,
    load_config,
    load_feature_extractor,
    load_model,
    pinned_name,
)
from usdrl_hub.lookup import revision_of
from usdrl_hub.remote_code import CODE_FILES, add_remote_code
from usdrl_hub.visualize.page import shown_name

from .helpers import run, same_weights, tiny_config

CLASSES = [
    USDRLModel,
    USDRLForPreTraining,
    USDRLForActionRecognition,
    USDRLForActionDetection,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
]
HF = Path(sys.executable).with_name("hf")
# The client's own way to call the HTTP library beneath it.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def tiny(model_class=USDRLForActionRecognition, **fields):
    fields |= {"segmentation_channels": 8, "is_causal": model_class is USDRLForEarlyActionPrediction}
    return model_class(tiny_config(**fields)).eval()


def tiny_extractor(**fields):
    return USDRLFeatureExtractor.from_model_config(tiny_config(), normalization="none", **fields)


def saved(model, folder, **kwargs) -> dict[str, bytes]:
    model.save_pretrained(folder, **kwargs)
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


def sentence(*args, **kwargs) -> str:
    """What `load_model` says."""
    with pytest.raises(CheckpointLoadError) as caught:
        load_model(*args, **kwargs)
    assert "\n" not in str(caught.value) and str(args[0]) in str(caught.value)
    return str(caught.value)


def run_hf(environment, *arguments):
    return subprocess.run([HF, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def forget(tmp_path):
    """Empty the client's cache."""
    return lambda: shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.fixture
def pushed(hub, forget):
    """A recogniser that lies at ``ada/model``; the cache is empty."""
    model = tiny()
    model.push_to_hub("ada/model")
    hub.requests.clear()
    forget()
    return model


# A single file.


def test_a_larger_pose_network_comes_from_the_hub_and_then_from_its_cache(hub, monkeypatch):
    pytest.importorskip("onnxruntime")
    HfApi().create_repo("ada/blazepose")
    hub.commit("ada/blazepose", {"full.onnx": (SHIPPED / "lite.onnx").read_bytes(), "notes.txt": b"none"})
    picture = [np.full((96, 128, 3), 128, np.uint8)]
    estimator = BlazePoseEstimator("ada/blazepose/full.onnx")
    assert [len(people) for people in estimator.track(picture)] == [0]
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    BlazePoseEstimator("ada/blazepose/full.onnx")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name, reason in {
        "ada/nothing/full.onnx": "'ada/nothing' was not found",
        "ada/blazepose/heavy.onnx": "ada/blazepose has no file 'heavy.onnx': the repository holds full.onnx",
        "ada/blazepose/notes.txt": "notes.txt: it is not an ONNX file",
        "models/full.onnx": "models/full.onnx: there is no such file: make it with conversion/blazepose.py",
    }.items():
        with pytest.raises(CheckpointLoadError, match=f"(?s){reason}"):
            BlazePoseEstimator(name)


# Push and pull.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("model_class", CLASSES)
def test_every_class_and_dtype_comes_back_bit_for_bit(hub, model_class, dtype):
    model = tiny(model_class).to(dtype)
    model.push_to_hub("ada/model")
    assert [commit.title for commit in hub.commits("ada/model")] == [
        "Upload " + ("model" if "Model" in model_class.__name__ else model_class.__name__),
        "initial commit",
    ]
    files = {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert set(hub.files("ada/model")) == files | set(CODE_FILES)
    pulled = model_class.from_pretrained("ada/model")
    loaded = load_model("ada/model")
    assert same_weights(model, pulled) and same_weights(model, loaded)
    assert type(loaded) is model_class and loaded.dtype == dtype and not loaded.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_shards_come_back_bit_for_bit(hub, dtype):
    model = tiny().to(dtype)
    model.push_to_hub("ada/model", max_shard_size="20KB")
    shards = [name for name in hub.files("ada/model") if name.endswith(".safetensors")]
    assert len(shards) > 1 and len(hub.commits("ada/model")) == 2
    assert same_weights(model, load_model("ada/model"))
    assert same_weights(model, AutoModelForVideoClassification.from_pretrained("ada/model"))


def test_config_and_feature_extractor_come_back_as_they_were(hub):
    config, extractor = tiny_config(modality="bone", alpha=0.25), tiny_extractor(max_frames=7)
    config.push_to_hub("ada/parts")
    extractor.push_to_hub("ada/parts")
    pulled = USDRLConfig.from_pretrained("ada/parts").to_dict()
    # Where the code that goes along has its classes.
    assert pulled.pop("auto_map") and pulled == config.to_dict()
    for made in (USDRLFeatureExtractor.from_pretrained("ada/parts"), load_feature_extractor("ada/parts")):
        pulled = made.to_dict()
        assert pulled.pop("auto_map") and pulled == extractor.to_dict()


def test_pushing_the_same_again_makes_no_commit(hub, pushed):
    pushed.push_to_hub("ada/model")
    assert len(hub.commits("ada/model")) == 2 and not any(call.method == "PUT" for call in hub.requests)
    tiny().push_to_hub("ada/model")
    assert len(hub.commits("ada/model")) == 3


def test_one_commit_adds_copies_and_deletes(hub, pushed):
    api, first = HfApi(), hub.commits("ada/model")[0]
    operations = [
        CommitOperationAdd("notes/a.txt", b"a"),
        CommitOperationCopy("model.safetensors", "copy.safetensors"),
        CommitOperationDelete("README.md"),
    ]
    api.create_commit("ada/model", operations, commit_message="All", parent_commit=first.oid)
    files = hub.files("ada/model")
    assert len(hub.commits("ada/model")) == 3 and api.list_repo_files("ada/model") == list(files)
    assert files["copy.safetensors"] == files["model.safetensors"] and files["notes/a.txt"] == b"a"
    assert "README.md" not in files
    with pytest.raises(errors.HfHubHTTPError, match="A commit has happened since"):
        api.create_commit("ada/model", operations[-1:], commit_message="No", parent_commit=first.oid)
    with pytest.raises(errors.RemoteEntryNotFoundError):
        api.create_commit("ada/model", [CommitOperationDelete("nothing.txt")], commit_message="No")
    assert hub.files("ada/model") == files


def test_weights_go_to_large_storage_and_no_token_goes_with_them(hub):
    model = tiny()
    model.push_to_hub("ada/model", private=True)
    assert same_weights(model, load_model("ada/model"))
    head = hub.commits("ada/model")[0]
    assert {name for name, file in head.files.items() if file.lfs} == {"model.safetensors"}
    storage = [call for call in hub.requests if call.path.startswith("/storage/")]
    assert [call.method for call in storage] == ["PUT", "GET"]
    assert all(call.token is None and call.headers["host"].startswith("localhost") for call in storage)
    info = HfApi().model_info("ada/model")
    assert info.safetensors.total == sum(parameter.numel() for parameter in model.state_dict().values())
    assert info.config["architectures"] == ["USDRLForActionRecognition"] and info.private


def test_revisions_are_kept_apart(hub, pushed):
    api = HfApi()
    api.create_tag("ada/model", tag="v1")
    first = api.model_info("ada/model").sha
    second = tiny(USDRLForActionDetection)
    second.push_to_hub("ada/model")
    branched = tiny(USDRLModel)
    branched.push_to_hub("ada/model", revision="try/this")
    tiny_extractor(max_frames=5).push_to_hub("ada/model", revision="try/this")
    for revision, model in [("v1", pushed), (first, pushed), (None, second), ("try/this", branched)]:
        loaded = load_model("ada/model", revision=revision)
        assert type(loaded) is type(model) and same_weights(model, loaded)
        assert same_weights(model, type(model).from_pretrained("ada/model", revision=revision or "main"))
    assert load_feature_extractor("ada/model", revision="try/this").max_frames == 5
    assert "the hub has no revision 'v2' of it" in sentence("ada/model", revision="v2")


def test_a_pull_request_leaves_the_branch_as_it_was(hub, pushed):
    files, proposed = hub.files("ada/model"), tiny(USDRLForActionDetection)
    reader = hub.add_user("bob")
    commit = proposed.push_to_hub("ada/model", create_pr=True, token=reader)
    assert commit.pr_revision == "refs/pr/1" and hub.files("ada/model") == files
    assert same_weights(proposed, load_model("ada/model", revision="refs/pr/1"))
    assert same_weights(pushed, load_model("ada/model"))
    pulls = HfApi().list_repo_refs("ada/model", include_pull_requests=True).pull_requests
    assert [(pull.ref, pull.target_commit) for pull in pulls] == [("refs/pr/1", commit.oid)]


def test_a_model_in_a_subfolder_is_loaded_with_its_own_config(hub, pushed, tmp_path):
    inner = tiny(USDRLForActionDetection)
    inner.save_pretrained(tmp_path / "inner")
    tiny_extractor(max_frames=5).save_pretrained(tmp_path / "inner")
    HfApi().upload_folder(repo_id="ada/model", folder_path=tmp_path / "inner", path_in_repo="detector")
    loaded = load_model("ada/model", subfolder="detector")
    assert type(loaded) is USDRLForActionDetection and same_weights(inner, loaded)
    assert load_feature_extractor("ada/model", subfolder="detector").max_frames == 5
    assert same_weights(pushed, load_model("ada/model"))
    assert "no config.json" in sentence("ada/model", subfolder="nowhere")


def test_a_shipped_name_with_a_revision_is_loaded_from_the_hub(hub):
    model = tiny()
    model.push_to_hub("usdrl/tiny-uiprmd", revision="v1", token=hub.add_user("usdrl"))
    assert same_weights(model, load_model("usdrl/tiny-uiprmd", revision="v1"))
    assert load_model("usdrl/tiny-uiprmd").config.hidden_size == 80


def test_a_repository_without_preprocessor_is_refused_unless_it_is_to_be_guessed(hub, pushed):
    """faults.md 6."""
    with pytest.raises(MissingPreprocessorError, match="model 'ada/model' has no preprocessor_config.json"):
        load_feature_extractor("ada/model")
    assert (
        load_feature_extractor("ada/model", guess=True).to_dict()
        == USDRLFeatureExtractor.from_model_config(tiny_config()).to_dict()
    )
    hub.stop()
    assert load_feature_extractor("ada/model", guess=True).num_frames == tiny_config().num_frames


def test_the_hf_command_uploads_and_downloads(hub, hub_environment, tmp_path):
    folder = checkpoint_path("usdrl/tiny-uiprmd")
    done = run_hf(hub_environment, "upload", "ada/tiny", folder, "--private", "--commit-message", "From the command")
    assert done.returncode == 0, done.stderr
    assert hub.files("ada/tiny") == contents(folder) | {".gitattributes": hub.files("ada/tiny")[".gitattributes"]}
    assert [commit.title for commit in hub.commits("ada/tiny")] == ["From the command", "initial commit"]
    done = run_hf(hub_environment, "download", "ada/tiny", "--local-dir", tmp_path / "down")
    assert done.returncode == 0, done.stderr
    assert contents(folder).items() <= contents(tmp_path / "down").items()
    assert same_weights(load_model(folder), load_model(tmp_path / "down"))
    assert same_weights(load_model(folder), load_model("ada/tiny"))
    stranger = run_hf(hub_environment | {"HF_TOKEN": hub.add_user("eve")}, "download", "ada/tiny")
    assert stranger.returncode != 0 and "not found" in stranger.stderr


def test_the_usdrl_command_takes_models_from_the_hub(hub, forget, capsys, tmp_path):
    hub.commit("ada/tiny", contents(checkpoint_path("usdrl/tiny-uiprmd")))
    np.save(tmp_path / "walk.npy", np.random.randn(40, 25, 3))
    arguments = ["predict", str(tmp_path / "walk.npy"), "--json", "--model"]
    answers = []
    for name in ("ada/tiny", "usdrl/tiny-uiprmd"):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, name])
        assert not caught.value.code
        answers.append(json.loads(capsys.readouterr().out)["predictions"])
    assert answers[0] == answers[1]
    hub.stop()
    forget()
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "ada/tiny"])
    assert caught.value.code == 2
    assert "model 'ada/tiny' was not found" in capsys.readouterr().err


def test_an_address_is_the_model_of_the_hub_whatever_is_installed(hub, forget, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("USDRL_HOME", str(tmp_path / "home"))
    models = [tiny() for _ in range(3)]
    for number, model in enumerate(models):
        model.save_pretrained(tmp_path / str(number))
        tiny_extractor(max_frames=30 + number).save_pretrained(tmp_path / str(number))
    hub.commit("ada/tiny", contents(tmp_path / "0"))
    HfApi().create_tag("ada/tiny", tag="v1")
    hub.commit("ada/tiny", contents(tmp_path / "1"))
    install(tmp_path / "2", "ada/tiny")
    assert same_weights(load_model("ada/tiny"), models[2])
    for name, model in {"hf://ada/tiny@v1": models[0], "hf://ada/tiny": models[1]}.items():
        for form in (name, Path(name)):
            assert same_weights(load_model(form), model)
        loaded = load_model(name)
        # Also of a model that was loaded before: the installed one would prepare its clips in another way.
        extractor = load_feature_extractor(name)
        assert extractor.to_dict() == extractor_of(loaded).to_dict() == extractor_of(loaded.base_model).to_dict()
        assert extractor.max_frames == 30 + models.index(model)
        assert load_config(name).hidden_size == model.config.hidden_size
        assert (shown_name(name), base_model(name), base_model(loaded)) == ("ada/tiny",) * 3
    np.save(tmp_path / "walk.npy", np.random.randn(40, 5, 3))
    code, out, err = run(capsys, "predict", tmp_path / "walk.npy", "--model", "hf://ada/tiny@v1")
    assert code == 0 and "model hf://ada/tiny@v1, 4 classes" in out, err
    code, out, err = run(capsys, "install", "hf://ada/tiny@v1", "--name", "ada/first")
    assert code == 0 and same_weights(load_model("ada/first"), models[0]), err
    code, out, err = run(capsys, "check", "hf://ada/tiny")
    assert code == 0 and "whole" in out, err
    hub.stop()
    assert same_weights(load_model("hf://ada/tiny@v1"), models[0])
    assert same_weights(load_model("hf://ada/tiny"), models[1])
    forget()
    with pytest.raises(CheckpointLoadError, match="'ada/tiny' .* not in the cache, and the hub is not reachable"):
        load_model("hf://ada/tiny")


def test_an_index_holds_the_commit_of_its_model(hub, capsys, tmp_path, monkeypatch):
    """It is searched with this commit, though the tag or the branch has moved; another revision is refused."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        torch.manual_seed(number)
        tiny().save_pretrained(f"model{number}")
        tiny_extractor().save_pretrained(f"model{number}")
    hub.commit("ada/tiny", contents(Path("model0")))
    HfApi().create_tag("ada/tiny", tag="v1")
    commit = HfApi().model_info("ada/tiny").sha
    for name in ("walk", "run"):
        np.save(f"{name}.npy", np.random.randn(40, 5, 3))
    index = ["index", "walk.npy", "--fps", "10", "--output", "tag"]
    search = ["run.npy", "--fps", "10", "--json"]
    code, _, err = run(capsys, *index, "--model", "hf://ada/tiny@v1")
    assert code == 0, err
    models = {"name": "ada/tiny", "loaded": USDRLModel.from_pretrained("ada/tiny", revision="v1")}
    for name, model in models.items():
        MotionIndex.build(["walk.npy"], name, model, options=WindowOptions(reading=Reading(fps=10)))
    # A fine-tuning starts from this commit in each of its parts, also after a kill.
    pinned = f"hf://ada/tiny@{commit}"
    assert {pinned_name(name) for name in ("ada/tiny", "hf://ada/tiny@v1", pinned)} == {pinned}
    for name in ("usdrl/mocap-tiny", "mocap-tiny", "model0", "ada/none", "hf://ada/none@v1", str(tmp_path / "model0")):
        assert pinned_name(name) == name
    assert (revision_of(pinned), revision_of("ada/tiny"), revision_of(None)) == (commit, None, None)
    hub.commit("ada/tiny", contents(Path("model1")))
    HfApi().delete_tag("ada/tiny", tag="v1")
    HfApi().create_tag("ada/tiny", tag="v1")
    assert {MotionIndex.open(name).model_name for name in ("tag", *models)} == {f"hf://ada/tiny@{commit}"}
    code, out, err = run(capsys, "search", "tag", *search)
    assert code == 0 and json.loads(out)["hits"], err
    code, _, err = run(capsys, *index)
    assert code == 0, err
    for moved in ("hf://ada/tiny@v1", "ada/tiny"):
        code, _, err = run(capsys, "search", "tag", *search, "--model", moved)
        assert code == 2 and f"another model or revision (hf://ada/tiny@{commit})" in err


def test_adapters_are_loaded_with_the_commit_of_their_base(hub, capsys, tmp_path, monkeypatch):
    """Onto other weights they would compute something else, without a word."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        torch.manual_seed(number)
        tiny().save_pretrained(f"model{number}")
        tiny_extractor().save_pretrained(f"model{number}")
    hub.commit("ada/tiny", contents(Path("model0")))
    commit = HfApi().model_info("ada/tiny").sha
    base, clip = load_model("ada/tiny"), torch.randn(1, 12, 1, 5, 3)
    adapted = get_peft_model(base, LoraConfig(target_modules=["fc1"], r=2, init_lora_weights=False)).eval()
    arguments = TrainingArguments(output_dir="run", report_to=[], use_cpu=True)
    USDRLTrainer(adapted, arguments, processing_class=tiny_extractor()).save_model("adapter")
    expected = adapted(clip).logits
    hub.commit("ada/tiny", contents(Path("model1")))
    assert json.loads(Path("adapter/adapter_config.json").read_text())["revision"] == commit
    for load in (load_model, type(tiny()).from_pretrained):
        torch.testing.assert_close(load("adapter")(clip).logits, expected)
    # The index is of the adapter, not of its base.
    np.save("walk.npy", np.random.randn(40, 5, 3))
    MotionIndex.build(["walk.npy"], "index", "adapter", options=WindowOptions(reading=Reading(fps=10)))
    code, _, err = run(capsys, "search", "index", "walk.npy", "--fps", "10")
    assert code == 0, err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://ada/tiny@v9", "the hub has no revision 'v9' of it"),
        ("hf://ada/none", "the hub has none that you may read"),
        ("hf://usdrl/tiny-uiprmd", "the hub has none that you may read|How to make it"),
        ("hf://ada/tiny/model.pth.tar", "is a file of the hub, not a model"),
        ("hf://datasets/ada/tiny", "is no address of a model"),
        ("hf://ada", "is no address of a model"),
        ("hf:ada/tiny", "is no address of a model"),
        ("hf://models/ada/tiny", "is no address of a model"),
        ("hf://ada/tiny@", "is no address of a model"),
        ("hf://ada/tiny:test", "is no address of a model"),
        ("HTTPS://huggingface.co/ada/tiny", "is no address of a model: it is hf://OWNER/NAME"),
        ("hf://ada/ti ny", "cannot be loaded"),
    ],
)
def test_a_wrong_address_is_told_in_one_sentence(hub, name, message):
    hub.commit("ada/tiny", contents(checkpoint_path("usdrl/tiny-uiprmd")))
    for load in (load_model, load_config, load_feature_extractor):
        with pytest.raises((CheckpointLoadError, ValueError), match=message) as caught:
            load(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="the revision is 'v2', too"):
        load_model("hf://ada/tiny@v1", revision="v2")


# Who may do what.


def test_a_private_repository_is_there_for_its_owner_only(hub, monkeypatch):
    model = tiny()
    model.push_to_hub("ada/secret", private=True)
    tiny_extractor().push_to_hub("ada/secret")
    monkeypatch.delenv("HF_TOKEN")
    hidden = "the hub has none that you may read: log in with 'hf auth login' if it is private"
    assert hidden in sentence("ada/secret")
    assert hidden in sentence("ada/secret", token=hub.add_user("eve"))
    assert "does not know the token" in sentence("ada/secret", token="hf_forged")
    for token, error in [(False, errors.RepositoryNotFoundError), ("hf_forged", errors.HfHubHTTPError)]:
        with pytest.raises(error):
            HfApi().model_info("ada/secret", token=token)
    assert same_weights(model, load_model("ada/secret", token=hub.token))
    assert load_feature_extractor("ada/secret", token=hub.token).layout


def test_who_may_only_read_changes_nothing(hub, pushed):
    files = hub.files("ada/model")
    for token in (hub.add_user("ada", write=False), hub.add_user("bob")):
        with pytest.raises(errors.HfHubHTTPError, match="403 Forbidden"):
            tiny().push_to_hub("ada/model", token=token)
    assert hub.files("ada/model") == files and same_weights(pushed, load_model("ada/model"))


def test_the_client_tells_what_is_missing_by_its_type(hub, pushed):
    api = HfApi()
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("ada/nothing")
    with pytest.raises(errors.RevisionNotFoundError):
        hf_hub_download("ada/model", "config.json", revision="v9")
    with pytest.raises(errors.RemoteEntryNotFoundError):
        hf_hub_download("ada/model", "nothing.json")
    assert HfApi().whoami()["name"] == "ada"
    api.delete_repo("ada/model")
    assert not api.repo_exists("ada/model")


# The cache.


def test_what_was_loaded_is_not_downloaded_again_and_loads_without_hub(hub, pushed, monkeypatch):
    tiny_extractor().push_to_hub("ada/model")
    assert same_weights(pushed, load_model("ada/model"))
    load_feature_extractor("ada/model")
    hub.requests.clear()
    assert same_weights(pushed, load_model("ada/model"))
    assert not [call for call in hub.requests if "/resolve/" in call.path or "/storage/" in call.path]
    hub.stop()
    assert same_weights(pushed, load_model("ada/model")) and load_feature_extractor("ada/model").layout
    hub.start()
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert same_weights(pushed, load_model("ada/model")) and load_feature_extractor("ada/model").layout
    assert same_weights(pushed, USDRLForActionRecognition.from_pretrained("ada/model"))
    assert not hub.requests
    assert "not in the cache, and the hub is not reachable" in sentence("ada/other")


def test_a_new_commit_is_seen(hub, pushed):
    assert same_weights(pushed, load_model("ada/model"))
    newer = tiny()
    newer.push_to_hub("ada/model")
    assert same_weights(newer, load_model("ada/model"))


# Downloads that fail.


@pytest.mark.parametrize(
    "fault",
    [
        {"pattern": "HEAD .*/config.json", "status": 503},
        {"pattern": "GET .*/revision/main", "status": 500},
        {"pattern": "GET /storage", "status": 503},
        {"pattern": "GET /storage", "status": 429, "headers": {"Retry-After": "0"}},
        {"pattern": "GET .*/config.json", "sent": 100},
        {"pattern": "GET /storage", "sent": 40_000, "reset": True},
        {"pattern": "GET /storage", "delay": 0.6},
    ],
    ids=str,
)
def test_a_fault_that_passes_is_got_over(hub, pushed, monkeypatch, fault):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.fail(**fault)
    assert same_weights(pushed, load_model("ada/model"))
    assert not hub.faults


def test_a_download_that_is_cut_goes_on_where_it_was(hub):
    # What is below the client's chunk of 10 MiB is asked for again.
    content = os.urandom(12 * 2**20)
    hub.commit("ada/large", {"large.bin": content})
    hub.fail("GET /storage", sent=11 * 2**20)
    assert Path(hf_hub_download("ada/large", "large.bin")).read_bytes() == content
    first, second = [call for call in hub.requests if call.path.startswith("/storage")]
    assert first.status == 0 and second.headers["range"] == f"bytes={10 * 2**20}-"


def test_nothing_of_a_download_that_fails_is_loaded_or_kept(hub, pushed, tmp_path):
    # After a cut alone there is one more try, so the hub leaves, too.
    hub.fail("GET /storage", sent=40_000, reset=True, leave=True)
    start = time.monotonic()
    assert "not in the cache, and the hub is not reachable" in sentence("ada/model")
    assert time.monotonic() - start < 5
    assert max(len(content) for content in contents(tmp_path / "cache").values()) < 40_000
    assert not [file for file in (tmp_path / "cache").rglob("*") if "incomplete" in file.name]
    assert "not in the cache, and the hub is not reachable" in sentence("ada/model")
    hub.start()
    assert same_weights(pushed, load_model("ada/model"))


@pytest.mark.parametrize(
    "status, message",
    [(500, "the hub failed: try again later"), (403, "ask its owner for access"), (401, "does not know the token")],
)
def test_a_fault_that_stays_is_told_in_one_sentence(hub, pushed, status, message):
    hub.fail("GET /storage", status=status, times=9)
    told = sentence("ada/model")
    assert message in told and told.endswith(f"(status {status})")


def test_connections_that_are_cut_every_time_are_told_in_one_sentence(hub, pushed):
    hub.fail("GET /storage", sent=0, reset=True, times=9)
    assert "the connection to the hub was cut; try again" in sentence("ada/model")


def test_a_hub_that_is_gone_is_told_quickly_in_one_sentence(hub, pushed):
    hub.stop()
    start = time.monotonic()
    assert "not in the cache, and the hub is not reachable" in sentence("ada/model")
    with pytest.raises(CheckpointLoadError, match="the hub is not reachable"):
        load_feature_extractor("ada/model")
    # The client alone tries for 23 seconds.
    assert time.monotonic() - start < 5


@pytest.mark.slow
def test_a_hub_that_keeps_silent_is_waited_for_once(hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert "not in the cache, and the hub is not reachable" in sentence("ada/model")
        with pytest.raises(CheckpointLoadError, match="How to make it"):
            load_model("usdrl/ntu60-xsub")
        assert time.monotonic() - start < 4


# Uploads that fail.


@pytest.mark.parametrize(
    "fault",
    [
        {"pattern": "POST .*/preupload/", "status": 429, "headers": {"Retry-After": "0"}},
        {"pattern": "PUT /storage", "status": 500},
        {"pattern": "PUT /storage", "received": 10_000},
    ],
    ids=str,
)
def test_an_upload_gets_over_a_fault_that_passes_with_one_commit(hub, fault):
    model = tiny()
    hub.fail(**fault)
    model.push_to_hub("ada/model")
    assert len(hub.commits("ada/model")) == 2 and not hub.faults
    assert same_weights(model, load_model("ada/model"))


@pytest.mark.parametrize(
    "faults",
    [
        [{"pattern": "PUT /storage", "received": 10_000}, {"pattern": "PUT /storage", "status": 403}],
        [{"pattern": "POST .*/commit/", "received": 100}],
        [{"pattern": "POST .*/commit/", "received": 100, "reset": True}],
        [{"pattern": "POST .*/commit/", "status": 503}],
        [{"pattern": "POST .*/validate-yaml", "received": 0}],
    ],
    ids=["large file", "commit", "commit reset", "commit refused", "card"],
)
def test_an_upload_that_is_cut_leaves_the_remote_as_it_was(hub, pushed, faults):
    files, newer = hub.files("ada/model"), tiny()
    for fault in faults:
        hub.fail(**fault)
    with pytest.raises((errors.HTTPError, RuntimeError)):
        newer.push_to_hub("ada/model")
    assert len(hub.commits("ada/model")) == 2 and hub.files("ada/model") == files
    assert same_weights(pushed, load_model("ada/model"))
    newer.push_to_hub("ada/model")
    assert len(hub.commits("ada/model")) == 3 and same_weights(newer, load_model("ada/model"))


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, pushed):
    newer = tiny()
    hub.fail("POST .*/commit/", sent=10)
    with pytest.raises(errors.HTTPError):
        newer.push_to_hub("ada/model")
    newer.push_to_hub("ada/model")
    assert len(hub.commits("ada/model")) == 3 and same_weights(newer, load_model("ada/model"))


# What is in a repository.


@pytest.mark.parametrize(
    "name",
    ["../escaped.txt", "a/../../escaped.txt", "/escaped.txt", "..\\escaped.txt", "C:/escaped.txt", "{absolute}"],
)
def test_files_do_not_escape_the_folder(hub, tmp_path, name):
    name = name.format(absolute=tmp_path / "escaped.txt")
    hub.commit("ada/evil", {name: b"escaped", "good.txt": b"good"})
    (tmp_path / "deep").mkdir()
    for place in ({}, {"local_dir": tmp_path / "deep" / "down"}):
        with pytest.raises(ValueError, match="Invalid filename"):
            snapshot_download("ada/evil", **place)
        with pytest.raises(ValueError, match="Invalid filename"):
            hf_hub_download("ada/evil", name, **place)
    assert not [file for file in tmp_path.rglob("*") if "escaped" in file.name] and not Path("/escaped.txt").exists()
    cache = tmp_path / "cache"
    assert all(file.resolve().is_relative_to(cache) for file in cache.rglob("*"))


@pytest.mark.parametrize("name", ["../outside.safetensors", "{absolute}"])
def test_an_index_does_not_reach_files_outside(hub, tmp_path, name):
    files = saved(tiny(), tmp_path / "model", max_shard_size="20KB")
    index = json.loads(files["model.safetensors.index.json"])
    shard = sorted(set(index["weight_map"].values()))[0]
    (tmp_path / "model" / shard).rename(tmp_path / "outside.safetensors")
    outside = name.format(absolute=tmp_path / "outside.safetensors")
    index["weight_map"] = {key: outside if value == shard else value for key, value in index["weight_map"].items()}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    (tmp_path / "model" / "model.safetensors.index.json").write_bytes(files["model.safetensors.index.json"])
    assert "names a file outside" in sentence(tmp_path / "model")
    hub.commit("ada/evil", files | {outside: files[shard]})
    assert "names a file outside" in sentence("ada/evil")


def test_code_and_pickles_of_a_repository_are_left_alone(hub, tmp_path, monkeypatch):
    model = tiny()
    model.save_pretrained(tmp_path / "model")
    add_remote_code(tmp_path / "model")
    files = contents(tmp_path / "model") | {"modeling_usdrl.py": b"raise RuntimeError('ran')"}
    hub.commit("ada/code", files)
    assert same_weights(model, load_model("ada/code")) and isinstance(
        AutoModel.from_pretrained("ada/code"), USDRLModel
    )
    weights = files.pop("model.safetensors")
    hub.commit("ada/pickle", files | {"pytorch_model.bin": weights})
    hub.requests.clear()
    assert "there are no weights in safetensors format" in sentence("ada/pickle", token=hub.token)
    # transformers would have it converted elsewhere, with the token.
    assert not [call for call in hub.requests if "discussions" in call.path or "/commits/" in call.path]
    assert not [call for call in hub.requests if "pytorch_model.bin" in call.path]


@pytest.mark.parametrize(
    "name, share, message",
    [
        ("model.safetensors", 0.5, "cannot be loaded"),
        ("model.safetensors", 0.001, "cannot be loaded"),
        ("config.json", 0.5, "cannot be loaded: It looks like the config file"),
        ("config.json", None, "there is no config.json in the repository"),
        ("model.safetensors", None, "there are no weights in safetensors format"),
    ],
)
def test_damaged_repositories_are_refused_in_one_sentence(hub, tmp_path, name, share, message):
    files = saved(tiny(), tmp_path / "model")
    content = files.pop(name)
    hub.commit("ada/damaged", files | ({} if share is None else {name: content[: int(len(content) * share)]}))
    assert message in sentence("ada/damaged")


# Tokens.


@pytest.mark.long
def test_tokens_appear_nowhere(hub, hub_environment, forget, tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    for library in ("huggingface_hub", "transformers"):
        # They keep their messages from pytest otherwise.
        monkeypatch.setattr(logging.getLogger(library), "propagate", True)
        logging.getLogger(library).setLevel(logging.DEBUG)
    monkeypatch.setattr(huggingface_hub.constants, "HF_DEBUG", True)
    told = []

    def attempt(action, *args, **kwargs):
        try:
            action(*args, **kwargs)
        except Exception as error:
            told.extend(traceback.format_exception(error))

    def try_everything(token):
        forget()
        attempt(tiny().push_to_hub, "ada/secret", token=token)
        attempt(load_model, "ada/secret", token=token)
        attempt(load_feature_extractor, "ada/secret", token=token)

    tokens = [hub.token, hub.add_user("eve"), "hf_forgedforgedforgedforged"]
    tiny_extractor().push_to_hub("ada/secret", private=True)
    for fault in ({"status": 500}, {"status": 403}, {"sent": 0, "reset": True}):
        hub.fail("(POST .*/commit/|GET /storage|GET .*preprocessor_config.json)", times=4, **fault)
        try_everything(hub.token)
        hub.faults.clear()
    tiny().save_pretrained(tmp_path / "saved")
    for token in tokens:
        try_everything(token)
        arguments = ["upload", "ada/secret", tmp_path / "saved"] if token != tokens[1] else ["download", "ada/secret"]
        done = run_hf(hub_environment | {"HF_TOKEN": token, "HF_DEBUG": "1"}, *arguments)
        told += [done.stdout, done.stderr]
    shown = capfd.readouterr()
    told += [shown.out, shown.err, caplog.text, *(repr(record.__dict__) for record in caplog.records)]
    told += [call.path + call.body.decode(errors="ignore") for call in hub.requests]
    written = [
        *contents(tmp_path).values(),
        *contents(os.environ["HF_HOME"]).values(),
        *hub.files("ada/secret").values(),
    ]
    told += [content.decode(errors="ignore") for content in written]
    # All of it was used, and the output is there.
    assert {call.token for call in hub.requests} >= set(tokens)
    assert any("curl" in text for text in told) and any("403" in text for text in told)
    assert not re.findall("|".join(tokens), "\n".join(told))


# Names of this project.


def test_a_name_that_the_registry_knows_and_the_hub_lacks_says_how_to_make_it(hub):
    for load in (USDRLModel.from_pretrained, USDRLForActionRecognition.from_pretrained, load_model):
        with pytest.raises((OSError, CheckpointLoadError)) as caught:
            load("usdrl/ntu60-xsub-bone")
        assert "FoundSkelModel" in str(caught.value) and "usdrl convert FILE.pth.tar" in str(caught.value)
    with pytest.raises(OSError) as caught:
        USDRLModel.from_pretrained("ada/nothing")
    assert "make it" not in str(caught.value)


def test_a_published_name_is_loaded_like_any_other(hub, forget, tmp_path):
    model = tiny(USDRLModel)
    hub.commit("usdrl/ntu60-xsub", saved(model, tmp_path / "model"))
    assert same_weights(USDRLModel.from_pretrained("usdrl/ntu60-xsub"), model)
    assert same_weights(load_model("usdrl/ntu60-xsub"), model)
