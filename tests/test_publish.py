"""Publishing with the real client to an in-memory hub."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from usdrl_hub import (
    ClipDataset,
    PretrainingArguments,
    PretrainingDataset,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLForPreTraining,
    USDRLModel,
    USDRLPreTrainer,
    USDRLTrainer,
    checkpoint_path,
)
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.errors import CheckpointLoadError
from usdrl_hub.hub.card_source import CardSource, base_model
from usdrl_hub.hub.cards import render_card
from usdrl_hub.hub.evaluations import TASKS, results_of
from usdrl_hub.hub.licenses import model_licenses
from usdrl_hub.hub.publish import Commit, PublishError, publish
from usdrl_hub.loading import load_feature_extractor, load_model
from usdrl_hub.pretraining.views import ViewAugmentation
from usdrl_hub.remote_code import CODE_FILES

from .conftest import GOLDENS
from .helpers import figures, run, same_weights, tiny_config

TINY = "usdrl/tiny-uiprmd"
COMPLETE = {"config.json", "preprocessor_config.json", "model.safetensors", "metrics.json", "README.md"}
COMPLETE |= {"layout-ntu25.png", ".gitattributes", *CODE_FILES}
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def folder(tmp_path):
    """The checkpoint that ships, among what lies in a training folder."""
    folder = Path(shutil.copytree(checkpoint_path(TINY), tmp_path / "model"))
    torch.save({"a": 1}, folder / "training_args.bin")
    (folder / "run.json").write_text("{}")
    (folder / ".hidden").write_text("x")
    for step, value in (("checkpoint-5", 0.0), ("checkpoint-10", 1.0)):
        (folder / step).mkdir()
        shutil.copy(folder / "model.safetensors", folder / step)
        state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.full((2, 2), value)}}
        torch.save({"state": state, "param_groups": [{"lr": 0.1, "params": [0]}]}, folder / step / "optimizer.pt")
    return folder


def edited(folder, name, **changes):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | changes))


def test_one_commit_holds_everything_and_the_same_again_makes_none(hub, folder):
    done = publish(folder, "ada/tiny")
    assert done.changed and set(hub.files("ada/tiny")) == COMPLETE == {*done.files, ".gitattributes"}
    assert len(hub.commits("ada/tiny")) == 2, "the commit that makes the repository, and ours"
    pulled = USDRLForActionRecognition.from_pretrained("ada/tiny")
    assert same_weights(pulled, USDRLForActionRecognition.from_pretrained(TINY))
    found = load_feature_extractor("ada/tiny").to_dict()
    assert found.pop("auto_map") and found == load_feature_extractor(TINY).to_dict()
    again = publish(folder, "ada/tiny")
    assert not again.changed and len(hub.commits("ada/tiny")) == 2
    edited(folder, "metrics.json", seed=5)
    assert publish(folder, "ada/tiny", commit=Commit(message="Another seed")).changed
    assert [commit.title for commit in hub.commits("ada/tiny")][:2] == ["Another seed", "Publish with usdrl_hub"]


def test_the_card_on_the_hub_is_valid_and_says_what_was_measured(hub, folder):
    publish(folder, "ada/tiny")
    card = ModelCard.load("ada/tiny")
    card.validate()
    accepted = json.loads((folder / "metrics.json").read_text())["refusal"]["false_alarms"].values()
    refusals = {f"{100 * row['accepted']:.1f}" for row in accepted}
    assert figures(str(card)) - refusals <= {"96.9", "99.9", "78.7", "95.0", "95.1", "58.1"}
    assert {"96.9", "99.9", "78.7", "95.0"} | refusals <= figures(str(card)) and "# ada/tiny" in str(card)
    assert {result.metric_value for result in card.data.eval_results} == {96.9, 99.9}


def test_shards_of_an_earlier_form_go_in_the_same_commit(hub, folder):
    model = USDRLForActionRecognition.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="500KB")
    publish(folder, "ada/tiny")
    assert same_weights(load_model("ada/tiny"), model) and "model.safetensors" not in hub.files("ada/tiny")
    for path in folder.glob("model-*"):
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    model.save_pretrained(folder)
    publish(folder, "ada/tiny")
    assert set(hub.files("ada/tiny")) == COMPLETE and len(hub.commits("ada/tiny")) == 3
    assert same_weights(load_model("ada/tiny"), model)


def test_branches_and_pull_requests_leave_main_as_it_was(hub, folder):
    publish(folder, "ada/tiny")
    edited(folder, "metrics.json", seed=5)
    assert publish(folder, "ada/tiny", commit=Commit(revision="v2")).changed
    assert json.loads(hub.files("ada/tiny", "v2")["metrics.json"])["seed"] == 5
    edited(folder, "metrics.json", seed=6)
    done = publish(folder, "ada/tiny", commit=Commit(create_pr=True))
    assert "discussions/1" in done.url
    assert json.loads(hub.files("ada/tiny", "refs/pr/1")["metrics.json"])["seed"] == 6
    assert json.loads(hub.files("ada/tiny")["metrics.json"])["seed"] == 0


def test_private_is_private_or_refused(hub, folder):
    publish(folder, "ada/secret", commit=Commit(private=True))
    with pytest.raises(ValueError, match="was not found"):
        os.environ.pop("HF_TOKEN")
        load_model("ada/secret")
    os.environ["HF_TOKEN"] = hub.token
    publish(folder, "ada/open")
    edited(folder, "metrics.json", seed=5)
    with pytest.raises(PublishError, match="^ada/open: it exists already and is public"):
        publish(folder, "ada/open", commit=Commit(private=True))
    assert len(hub.commits("ada/open")) == 2


def test_the_optimizer_goes_as_safetensors_and_only_if_asked_for(hub, folder):
    publish(folder, "ada/tiny", include_optimizer=True)
    files = hub.files("ada/tiny")
    assert set(files) == COMPLETE | {"optimizer.safetensors"}
    (folder / "state").write_bytes(files["optimizer.safetensors"])
    state = load_file(folder / "state")
    assert state["0.exp_avg"].tolist() == [[1.0, 1.0], [1.0, 1.0]] and state["0.step"] == 3
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"x")
    with pytest.raises(PublishError, match="it is damaged"):
        publish(folder, "ada/tiny", include_optimizer=True)
    shutil.rmtree(folder / "checkpoint-5")
    shutil.rmtree(folder / "checkpoint-10")
    with pytest.raises(PublishError, match="no checkpoint-"):
        publish(folder, "ada/tiny", include_optimizer=True)


def test_code_is_added_on_the_way_and_the_folder_stays_as_it_is(hub, folder):
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    publish(folder, "ada/tiny")
    files = hub.files("ada/tiny")
    assert set(CODE_FILES) <= set(files) == COMPLETE
    assert json.loads(files["config.json"])["auto_map"]["AutoModel"] == "modeling_usdrl.USDRLModel"
    assert "auto_map" in json.loads(files["preprocessor_config.json"])
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def outputs_without_the_package(environment, folder, name, auto):
    """What transformers makes of a repository by itself, with the snippet of its card."""
    np.save(folder / "raw.npy", np.random.default_rng(0).normal(scale=0.2, size=(30, 25, 3)))
    script = f"""
import sys
sys.modules["usdrl_hub"] = None  # an import of the package fails
import numpy as np, torch
from transformers import AutoFeatureExtractor, {auto}

extractor = AutoFeatureExtractor.from_pretrained({name!r}, trust_remote_code=True)
model = {auto}.from_pretrained({name!r}, trust_remote_code=True)
clip = extractor(np.load("raw.npy"), return_tensors="pt")
with torch.no_grad():
    np.savez("out.npz", keypoints=clip.keypoints, output=model(**clip)[0])
"""
    environment = environment | {"PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as out:
        return out["keypoints"], out["output"]


def outputs_here(folder, model):
    clip = USDRLFeatureExtractor.from_pretrained(TINY)(np.load(folder / "raw.npy"), return_tensors="pt")
    with torch.no_grad():
        return clip.keypoints.numpy(), model(**clip)[0].numpy()


@pytest.mark.long
def test_transformers_alone_loads_what_was_published(hub, hub_environment, folder, tmp_path):
    """Cards say library_name transformers, and the hub's own snippet failed: no model type usdrl."""
    publish(folder, "ada/tiny")
    card = ModelCard.load("ada/tiny")
    assert card.data.library_name == "transformers" and "trust_remote_code=True" in str(card)
    for auto, model in (
        ("AutoModelForVideoClassification", USDRLForActionRecognition.from_pretrained(TINY)),
        ("AutoModel", USDRLModel.from_pretrained(TINY)),
    ):
        found = outputs_without_the_package(hub_environment, tmp_path, "ada/tiny", auto)
        for one, other in zip(found, outputs_here(tmp_path, model), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_transformers_alone_loads_what_push_to_hub_of_a_model_sent(hub, hub_environment, tmp_path):
    """The same for transformers' own method, which knows nothing of cards and code."""
    model = USDRLForActionRecognition.from_pretrained(TINY)
    model.push_to_hub("ada/own")
    USDRLFeatureExtractor.from_pretrained(TINY).push_to_hub("ada/own")
    model.config.push_to_hub("ada/own")
    assert set(CODE_FILES) <= set(hub.files("ada/own"))
    auto = "AutoModelForVideoClassification"
    found = outputs_without_the_package(hub_environment, tmp_path, "ada/own", auto)
    for one, other in zip(found, outputs_here(tmp_path, model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_code_the_card_names_the_package(hub, folder, capsys):
    """Or the hub's snippet promises what transformers alone cannot do."""
    code, _, err = run(capsys, "push", folder, "ada/tiny", "--no-include-code")
    assert code == 0 and set(hub.files("ada/tiny")) == COMPLETE - set(CODE_FILES), err
    card = ModelCard.load("ada/tiny")
    assert card.data.library_name == "usdrl_hub" and "trust_remote_code" not in str(card)
    assert "import usdrl_hub" in str(card) and "auto_map" not in json.loads(hub.files("ada/tiny")["config.json"])


def test_a_card_that_a_person_wrote_is_kept(hub, folder):
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    publish(folder, "ada/tiny")
    assert hub.files("ada/tiny")["README.md"] == b"---\nlicense: mit\n---\n# Mine\n"


def test_a_layout_of_ones_own_has_no_picture_and_no_broken_link(hub, tmp_path):
    layout = {"joint_names": list("abcde"), "bones": [[1, 0], [2, 0], [3, 0], [4, 0]]}
    config = tiny_config(layout=layout, num_joints=5)
    USDRLForActionRecognition(config).save_pretrained(tmp_path / "own")
    USDRLFeatureExtractor.from_model_config(config, normalization="none").save_pretrained(tmp_path / "own")
    publish(tmp_path / "own", "ada/own")
    files = hub.files("ada/own")
    assert set(files) == COMPLETE - {"metrics.json", "layout-ntu25.png"}
    assert b"png" not in files["README.md"] and b"a, b, c, d, e" in files["README.md"]
    assert same_weights(load_model("ada/own"), USDRLForActionRecognition.from_pretrained(tmp_path / "own"))


def test_places_of_this_machine_stay_at_home(hub, folder):
    command = "usdrl evaluate /home/ada/model --data=/home/ada/sets/mine.npz --seed 1"
    repeat = {"model": "/home/ada/model", "data": "/home/ada/sets/mine.npz", "seed": 1}
    edited(folder, "metrics.json", command=command, repeat=repeat)
    publish(folder, "ada/tiny")
    files = hub.files("ada/tiny")
    record = json.loads(files["metrics.json"])
    assert record["command"] == "usdrl evaluate model --data=mine.npz --seed 1"
    assert record["repeat"] == {"model": "model", "data": "mine.npz", "seed": 1}
    assert all(b"/home/ada" not in content and str(folder).encode() not in content for content in files.values())


def test_results_on_a_data_set_of_the_hub_go_along_as_the_hub_reads_them(hub, folder):
    """Of the whole test split only; a file of the folder goes, too, if the hub can read it."""
    commit = "a" * 40
    about = {"task": "linear recognition", "address": f"hf://datasets/bob/Moves@{commit}"}
    edited(folder, "metrics.json", **about, split="the file's split_test; 1 of 4 training people validate")
    publish(folder, "ada/tiny")
    written = yaml.safe_load(hub.files("ada/tiny")[".eval_results/Moves.yaml"])
    entries = parse_eval_result_entries(written)
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert [entry.task_id for entry in entries] == [name for name in TASKS if name in metrics] != []
    for entry in entries:
        assert entry.value == round(100 * metrics[entry.task_id], 2)
        assert (entry.dataset_id, entry.dataset_revision) == ("bob/Moves", commit)
        assert entry.notes == "linear recognition, trained on the train split"
        assert entry.source_url == f"{hub.endpoint}/ada/tiny/blob/main/metrics.json"
    card = hub.files("ada/tiny")["README.md"].decode()
    assert "datasets:\n- bob/Moves\n" in card and "https://huggingface.co/datasets/bob/Moves" in card
    others = folder / ".eval_results" / "others.yaml"
    others.parent.mkdir()
    others.write_text(yaml.safe_dump([{"dataset": {"id": "eve/falls", "task_id": "accuracy"}, "value": 50.0}]))
    publish(folder, "ada/tiny")
    assert hub.files("ada/tiny")[".eval_results/others.yaml"] == others.read_bytes()
    for text in ("{", "[]", "- value: 3", "- dataset: {id: eve/falls}\n", "just a text"):
        others.write_text(text)
        with pytest.raises(PublishError, match="others.yaml: it is no list of results as the hub reads them"):
            publish(folder, "ada/tiny")


def test_the_licence_of_a_base_model_on_the_hub_is_that_of_its_card(hub):
    hub.commit("ada/base", {"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n# Base\n", "config.json": b"{}"})
    hub.commit("ada/plain", {"config.json": b"{}"})
    for name in ("ada/base", "hf://ada/base@main"):
        assert model_licenses(name) == {"ada/base": "cc-by-nc-4.0"}
    assert model_licenses("ada/plain") == {"ada/plain": "unknown"}
    assert model_licenses("hf://usdrl/tiny-uiprmd") == {TINY: "apache-2.0"}
    hub.stop()
    assert model_licenses("ada/base") == {"ada/base": "cc-by-nc-4.0"}
    assert model_licenses("ada/none") == {"ada/none": "unknown"}


@pytest.mark.parametrize(
    "changes",
    [
        {"split": "people with odd numbers train, people with even numbers test"},
        {"split": "the file's split_test, without 3 test clips that are copies of training clips"},
        {"split": "the file's split_test, split 1"},
        {"folds": []},
        {"address": "hf://datasets/bob/Moves:train"},
        {"address": "of no data set"},
        {"address": None},
        {"task": "retrieval"},
        {"metrics": {"accuracy": None, "macro_f1": 7}},
    ],
)
def test_no_other_figures_are_said_to_be_results_on_it(changes):
    record = {
        "task": "fine-tuned recognition",
        "address": "hf://datasets/bob/Moves",
        "split": "the file's split_test",
        "metrics": {"accuracy": 0.5},
    }
    assert set(results_of(record)) == {"Moves.yaml"}
    assert results_of(record | changes) == {}


def nan(folder):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def link(folder):
    (folder.parent / "secret.json").write_text("{}")
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").symlink_to(folder.parent / "secret.json")


@pytest.mark.parametrize(
    "change, name, message",
    [
        (nan, "ada/tiny", "tensor 'classifier.bias' holds NaN"),
        (link, "ada/tiny", "link out of the folder"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "ada/tiny", "no preprocessor_config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "ada/tiny", "no weights in safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "ada/tiny", "no config.json"),
        (lambda folder: shutil.rmtree(folder), "ada/tiny", "no such folder"),
        (lambda folder: (folder / "metrics.json").write_text("{"), "ada/tiny", "not a metrics.json of this package"),
        (
            lambda folder: edited(folder, "metrics.json", note="hf_abcdefghijklmnopqrst"),
            "ada/tiny",
            "looks like an access token",
        ),
        (lambda folder: None, "a b/c", "cannot be a repository's name"),
    ],
)
def test_what_is_no_complete_model_is_refused_before_anything_is_sent(hub, folder, change, name, message):
    change(folder)
    with pytest.raises(ValueError, match=message) as caught:
        publish(folder, name)
    assert "\n" not in str(caught.value) and "abcdefghij" not in str(caught.value)
    assert not [request for request in hub.requests if "POST" in request or "PUT" in request]


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"pattern": "PUT /storage", "status": 403, "times": 99}, "nothing was published"),
        ({"pattern": "POST .*/commit/", "received": 10, "reset": True, "times": 99}, "nothing was published"),
        ({"pattern": "POST .*/commit/", "status": 403, "times": 99}, "may not write there"),
        ({"pattern": "POST .*/preupload/", "status": 401, "times": 99}, "hf auth login"),
    ],
)
def test_a_fault_is_told_in_one_sentence_and_the_repository_is_as_it_was(hub, folder, fault, message):
    publish(folder, "ada/tiny")
    before = hub.files("ada/tiny")
    model = USDRLForActionRecognition.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(folder)
    hub.fail(fault.pop("pattern"), **fault)
    with pytest.raises(PublishError, match=message) as caught:
        publish(folder, "ada/tiny")
    assert "\n" not in str(caught.value) and hub.token not in str(caught.value)
    assert hub.files("ada/tiny") == before
    hub.faults.clear()
    assert publish(folder, "ada/tiny").changed


@pytest.mark.parametrize("revision", [None, "v2"])
@pytest.mark.parametrize("status", [403, 500])
def test_no_empty_repository_stays_where_the_first_commit_fails(hub, folder, status, revision):
    """faults.md 38: the repository was made before the commit, and stayed."""
    hub.fail("POST .*/commit/", status=status, times=99)
    with pytest.raises(PublishError) as caught:
        publish(folder, "ada/new", commit=Commit(revision=revision))
    assert "ada/new" not in hub.repos and "\n" not in str(caught.value), caught.value
    hub.faults.clear()
    assert publish(folder, "ada/new", commit=Commit(revision=revision)).changed
    hub.fail("POST .*/commit/", status=403, times=99)
    edited(folder, "metrics.json", seed=5)
    with pytest.raises(PublishError):
        publish(folder, "ada/new", commit=Commit(revision=revision))
    assert len(hub.commits("ada/new", revision or "main")) == 2, "what was there before stays"


def test_a_repository_that_cannot_be_deleted_again_is_told(hub, folder):
    """faults.md 38: and so is one whose commit has arrived, although the answer was lost."""
    hub.fail("POST .*/commit/", status=403, times=99)
    hub.fail("DELETE /api/repos", status=403, times=99)
    with pytest.raises(PublishError, match="could not be deleted: delete ada/new on the hub"):
        publish(folder, "ada/new")
    assert len(hub.commits("ada/new")) == 1
    hub.faults.clear()
    hub.fail("POST .*/commit/", sent=0, reset=True)
    with pytest.raises(PublishError, match="ada/other holds files now: look whether the commit has arrived"):
        publish(folder, "ada/other")
    assert set(hub.files("ada/other")) == COMPLETE


def test_a_hub_without_xet_is_told_with_what_to_do(hub, folder, monkeypatch):
    """faults.md 38: the hub "could not be reached ... try again", which never helps."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(PublishError, match="has no Xet storage.*HF_HUB_DISABLE_XET=1") as caught:
        publish(folder, "ada/tiny")
    assert "\n" not in str(caught.value) and "ada/tiny" not in hub.repos
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    assert publish(folder, "ada/tiny").changed


@pytest.mark.parametrize("disabled", [True, False])
def test_a_hub_that_insists_on_xet_is_told_in_one_sentence(hub, folder, tmp_path, monkeypatch, disabled):
    publish(folder, "ada/tiny")
    hub.xet_only = True
    if not disabled:
        # As where hf_xet is not installed.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
        for module in ("_commit_api", "file_download", "utils._runtime"):
            monkeypatch.setattr(f"huggingface_hub.{module}.is_xet_available", lambda: False)
        monkeypatch.setattr("usdrl_hub.lookup.is_xet_available", lambda: False)
    said = "this hub stores files by Xet only: install hf_xet, and unset HF_HUB_DISABLE_XET"
    with pytest.raises(PublishError, match=f"^ada/xet-tiny: {said}; nothing was published$"):
        publish(folder, "ada/xet-tiny")
    assert "ada/xet-tiny" not in hub.repos
    with pytest.raises(CheckpointLoadError, match=f"^model 'ada/tiny' cannot be loaded: {said}$"):
        load_model("ada/tiny")
    # Another fault of a repository with the word in its name.
    hub.xet_only = False
    hub.commit("ada/xet", hub.files("ada/tiny"))
    hub.fail("GET /storage", status=400, times=9)
    with pytest.raises(CheckpointLoadError, match="the hub refused"):
        load_model("ada/xet")


def test_others_repositories_and_a_hub_that_is_gone_are_told(hub, folder, monkeypatch):
    with pytest.raises(PublishError, match="may not write there.*--namespace"):
        publish(folder, "bob/tiny")
    monkeypatch.setenv("HF_TOKEN", hub.add_user("eve", write=False))
    with pytest.raises(PublishError, match="may not write there|does not know you"):
        publish(folder, "eve/tiny")
    hub.stop()
    started = time.monotonic()
    with pytest.raises(PublishError, match="could not be reached"):
        publish(folder, "ada/tiny")
    assert time.monotonic() - started < 30


def test_the_command_publishes_and_says_so(hub, folder, capsys, monkeypatch):
    code, out, err = run(capsys, "push", folder, "ada/tiny", "--dry-run")
    assert code == 0 and "nothing was uploaded" in out and not hub.requests, err
    code, out, err = run(capsys, "push", folder, "tiny", "--namespace", "ada", "--private")
    assert code == 0 and "published: http" in out and set(hub.files("ada/tiny")) == COMPLETE, err
    monkeypatch.setenv("USDRL_NAMESPACE", "ada")
    code, out, _ = run(capsys, "push", folder, "tiny")
    assert code == 0 and "no commit was created" in out
    code, out, err = run(capsys, "push", folder / "none", "ada/tiny")
    assert code == 2 and "no such folder" in err and err.count("\n") == 1
    assert hub.token not in out + err


def trained(tmp_path, model, kind, dataset, **kwargs):
    arguments = (PretrainingArguments if kind is USDRLPreTrainer else TrainingArguments)(
        output_dir=str(tmp_path / "run"),
        max_steps=2,
        per_device_train_batch_size=8,
        save_strategy="steps",
        save_steps=1,
        report_to="none",
        disable_tqdm=True,
        push_to_hub=True,
        hub_model_id="ada/trained",
        hub_private_repo=True,
    )
    trainer = kind(model, arguments, train_dataset=dataset, **kwargs)
    trainer.train()
    return trainer


def test_a_trainer_publishes_a_whole_model_and_no_pickle(hub, tmp_path):
    model = USDRLForActionRecognition.from_pretrained(TINY)
    extractor = USDRLFeatureExtractor.from_pretrained(TINY)
    dataset = ClipDataset(load_samples()[:16], extractor)
    trainer = trained(tmp_path, model, USDRLTrainer, dataset, processing_class=extractor)
    assert not any(request.startswith(("POST", "PUT")) for request in map(str, hub.requests)), "only when asked to"
    trainer.push_to_hub()
    assert (tmp_path / "run" / "training_args.bin").is_file()
    assert set(hub.files("ada/trained")) == COMPLETE - {"metrics.json"} and len(hub.commits("ada/trained")) == 2
    assert same_weights(load_model("ada/trained"), trainer.model.eval())
    future = trainer.push_to_hub(blocking=False)
    assert future.result(60).changed is False


def test_the_pretrainer_publishes_too(hub, tmp_path):
    extractor = USDRLFeatureExtractor.from_pretrained(TINY)
    model = USDRLForPreTraining.from_pretrained(TINY)
    dataset = PretrainingDataset([load_samples()[:16]], extractor, 60)
    views = ViewAugmentation(min_length=8, corrupted_joints=5)
    trainer = trained(tmp_path, model, USDRLPreTrainer, dataset, views=views, processing_class=extractor)
    trainer.push_to_hub(private=False)
    assert set(hub.files("ada/trained")) == COMPLETE - {"metrics.json"}
    assert isinstance(load_model("ada/trained"), USDRLForPreTraining)


@pytest.mark.long
def test_a_folder_of_the_authors_checkpoints_becomes_repositories(hub, hub_environment, tmp_path):
    manifest = [
        {"file": "recognition_dste_uav17.pth.tar", "name": "own/uav-v1-linear", "layout": "uav17"},
        {"file": "detection_dste_ntu25.pth.tar", "name": "own/pkummd1-xsub-detection", "task": "detection"},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    script = Path(__file__).parent.parent / "conversion" / "convert_all.py"
    command = [sys.executable, script, GOLDENS, tmp_path / "manifest.json", tmp_path / "out", "--push"]
    environment = hub_environment | {"HF_TOKEN": hub.token}
    for told in ("published as http", "published as ada/uav-v1-linear before"):
        done = subprocess.run(
            [*command, "--namespace", "ada"], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0 and told in done.stdout and hub.token not in done.stdout + done.stderr, done
    for name in ("ada/uav-v1-linear", "ada/pkummd1-xsub-detection"):
        assert {"README.md", "model.safetensors", *CODE_FILES} <= set(hub.files(name)) and len(hub.commits(name)) == 2
    assert type(load_model("ada/pkummd1-xsub-detection")).__name__ == "USDRLForActionDetection"


def test_the_sample_clips_are_named_with_a_model_from_the_hub(hub, folder, capsys):
    publish(folder, "ada/tiny")
    code, out, err = run(capsys, "predict", sample_path(), "--model", "ada/tiny", "--top-k", 1)
    assert code == 0 and "deep squat" in out, err


def test_the_card_of_a_model_of_ones_own_says_what_its_record_knows(folder):
    (folder / "README.md").unlink()
    classes = [{"name": "deep | squat", "precision": 0.9, "recall": 1.0, "f1": 0.947, "support": 4}]
    changes = {"base_model": "usdrl/mocap-tiny", "scores": {"classes": classes}, "n": {"train": 60, "test": 40}}
    changes |= {"groups": {"by": "subject", "train": 3, "test": 2, "shared": 0}, "warnings": ["It is *no* better."]}
    edited(folder, "metrics.json", **changes)
    card = render_card(CardSource.of_folder(folder, "ada/mine"))
    assert "base_model: usdrl/mocap-tiny" in card
    assert "| deep \\| squat | 90.0 | 100.0 | 94.7 | 4 |" in card
    assert "trained on 60 clips of 3 people and tested on 40 clips of 2 people, with 10 classes" in card
    assert "Its joints are those of `ntu25`" in card and "It is \\*no\\* better." in card
    assert "usdrl predict recording.npy --model ada/mine --layout " in card
    # Whose movements they are was not known.
    edited(folder, "metrics.json", groups={"by": None})
    assert "the same people may be on both sides" in render_card(CardSource.of_folder(folder, "ada/mine"))


@pytest.mark.parametrize(
    "model, name",
    [
        ("mocap-tiny", "usdrl/mocap-tiny"),
        (checkpoint_path(TINY), TINY),
        ("alice/encoder", "alice/encoder"),
        ("/somewhere/encoder", None),
        (Path(__file__).parent, None),
        (None, None),
    ],
)
def test_the_base_of_a_model_is_a_name_that_others_find(model, name):
    assert base_model(model) == name
