import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification

import usdrl_hub
from usdrl_hub import (
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLModel,
    checkpoint_path,
    list_models,
)
from usdrl_hub.errors import CheckpointLoadError, USDRLWarning
from usdrl_hub.facts.benchmarks import BENCHMARKS
from usdrl_hub.facts.checkpoints import CHECKPOINTS, explain_missing, find_checkpoint, namespace
from usdrl_hub.hub.card_source import CardSource
from usdrl_hub.hub.cards import card_of, model_list, render_card, update_list, write_cards
from usdrl_hub.hub.convert import convert_checkpoint
from usdrl_hub.hub.listing import feature_extractor, model_config
from usdrl_hub.loading import MissingPreprocessorError, load_feature_extractor, load_model
from usdrl_hub.modeling_usdrl import HEADS
from usdrl_hub.records import sha256
from usdrl_hub.remote_code import CODE_FILES, add_remote_code

from .conftest import GOLDENS, relative_error
from .helpers import clips, figures, supported_figures, tiny_config

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
    infos = {info.name: info for info in list_models(pretrained=False)}
    info = infos[TINY]
    assert (info.task, info.layout, info.num_labels, info.license) == ("recognition", "ntu25", 10, "apache-2.0")
    assert info.shipped and info.measured["accuracy"] == 0.969 and next(iter(infos)) == TINY
    tiny = infos["usdrl/mocap-tiny"]
    assert tiny.shipped and tiny.license == "apache-2.0" and "commercial use" in tiny.facts.terms
    linear = infos["usdrl/ntu60-xsub-linear"]
    assert (linear.num_labels, linear.published) == (60, {("linear/ntu60-xsub", "accuracy"): 0.852})
    assert not linear.shipped and linear.measured == {} and "2508.12586" in linear.source
    assert [info.name for info in list_models(task="detection", pretrained=False, owner="alice")] == [
        "alice/pkummd1-xsub-detection",
        "alice/pkummd1-xview-detection",
    ]
    assert [info.name for info in list_models("uiprmd")] == [TINY]
    with pytest.raises(ValueError, match="no task 'detect'"):
        list_models(task="detect")
    with pytest.raises(CheckpointLoadError, match="there are: .*usdrl/.*tiny-uiprmd"):
        checkpoint_path("usdrl/nothing")


def test_every_benchmark_of_the_paper_has_a_checkpoint_that_loads_as_its_config_says():
    named = {name for entry in CHECKPOINTS.values() for name in entry.benchmarks}
    assert {name for name, row in BENCHMARKS.items() if row.protocol != "own"} == named
    pattern = re.compile(
        r"usdrl/(mocap-[a-z0-9-]+|[a-z0-9]+(-2d)?-(xsub|xview|xset|v1|v2|one-shot|uiprmd)(-[a-z0-9-]+)?)"
    )
    for entry in CHECKPOINTS.values():
        assert pattern.fullmatch(entry.name), entry.name
        config = model_config(entry)
        assert HEADS[config.architectures[0]].task == entry.task and config.modality == entry.modality
        assert not entry.base or CHECKPOINTS[entry.base].task == "embedding"
        assert feature_extractor(entry).layout == config.layout == entry.layout
    golden = convert_checkpoint(GOLDENS / "pretrain_sttr_ntu25.pth.tar")
    config = model_config(CHECKPOINTS["usdrl/ntu60-xsub-sttr"])
    for field in ("encoder", "num_joints", "num_persons", "num_channels", "num_frames", "num_hidden_layers"):
        assert getattr(config, field) == getattr(golden.config, field)


@pytest.mark.parametrize(
    "name, parts",
    [
        ("usdrl/ntu60-xsub-bone", ["FoundSkelModel", "usdrl convert", "--name usdrl/ntu60-xsub-bone"]),
        ("usdrl/ntu120-xset-sttr", ["wengwanjiang/USDRL", "usdrl convert"]),
        ("usdrl/ntu60-xsub-linear", ["usdrl evaluate usdrl/ntu60-xsub --benchmark linear/ntu60-xsub"]),
        ("usdrl/pkummd1-xsub-detection", ["usdrl convert", "--name usdrl/pkummd1-xsub-detection"]),
        ("usdrl/ntu60-xsub-joint-motion-bone", ["usdrl pretrain ntu60", "--modality joint+motion+bone"]),
        ("ntu120-xsub", ["wengwanjiang/FoundSkelModel", "usdrl convert"]),
        ("usdrl/ntu120xsub", ["Did you mean usdrl/ntu120-xsub?", "hf://usdrl/ntu120xsub"]),
        ("tiny-uiprdm", ["Did you mean usdrl/tiny-uiprmd?"]),
        ("usdrl/ntu60-detector", ["no checkpoint of that name. Did you mean usdrl/"]),
        ("usdrl/zzz", ["no checkpoint of that name. See 'usdrl list'."]),
    ],
)
def test_a_known_name_without_weights_says_how_to_make_them(name, parts):
    """faults.md 34 and 35: after 80 lines, and with "How to make it: this project has no checkpoint ... ?."."""
    for loader in (USDRLModel, USDRLConfig, USDRLFeatureExtractor, USDRLForActionRecognition):
        with pytest.raises(OSError) as caught:
            loader.from_pretrained(name)
        assert all(part in str(caught.value) for part in parts), str(caught.value)
        assert caught.value.kind == "missing" and caught.value.hint and "\n" not in str(caught.value)
        assert len("".join(traceback.format_exception(caught.value)).splitlines()) < 25
    with pytest.raises(CheckpointLoadError) as caught:
        load_model(name)
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value)
    assert caught.value.kind == "missing" and caught.value.hint in str(caught.value)
    for told in (caught.value, caught.value.__cause__):
        assert "?." not in str(told) and ".." not in str(told).replace("...", "")


@pytest.mark.parametrize("name, asked", [("usdrl/tiny-uiprdm", False), ("usdrl/ntu120-xsub", True), ("alice/a", True)])
def test_a_misspelt_name_is_corrected_before_any_request(monkeypatch, name, asked):
    requests = []
    monkeypatch.setattr("usdrl_hub.lookup.is_offline_mode", lambda: False)
    monkeypatch.setattr("usdrl_hub.lookup.get_session", lambda: requests.append(name))
    for load in (load_model, USDRLModel.from_pretrained, USDRLConfig.from_pretrained):
        with pytest.raises((OSError, CheckpointLoadError)):
            load(name)
    assert bool(requests) == asked


def test_every_hint_is_said_whole():
    """Errors are clipped at 300 characters; what is to be done must not be."""
    for name in CHECKPOINTS:
        hint = explain_missing(name)
        error = CheckpointLoadError(f"model '{name}' was not found. {hint}", "missing", hint)
        assert hint and str(error).endswith(hint), error


def test_names_of_others_get_no_hint():
    for name in ("bert-base", "alice/thing"):
        with pytest.raises(CheckpointLoadError, match="was not found") as caught:
            load_model(name)
        assert caught.value.kind == "missing" and not caught.value.hint


def test_bare_names_of_this_project_work_everywhere():
    """faults.md 35."""
    for load in (load_model, load_feature_extractor, USDRLConfig.from_pretrained, USDRLModel.from_pretrained):
        assert load("mocap-tiny")
    assert checkpoint_path("tiny-uiprmd") == checkpoint_path(TINY)


def test_a_checkpoint_that_is_there_but_damaged_is_of_that_kind(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointLoadError) as caught:
        load_model(folder)
    assert (caught.value.kind, caught.value.hint) == ("damaged", "")


def test_the_namespace_of_the_environment_is_known_and_a_wrong_one_refused(monkeypatch):
    monkeypatch.setenv("USDRL_NAMESPACE", "alice")
    assert find_checkpoint("alice/ntu60-xsub") is CHECKPOINTS["usdrl/ntu60-xsub"]
    assert find_checkpoint("bob/ntu60-xsub") is None
    assert list_models("ntu60-xsub", pretrained=False)[0].name == "alice/ntu60-xsub"
    with pytest.raises(ValueError, match="the namespace is 'a b'"):
        namespace("a b")


def test_the_shipped_folder_is_found_whatever_lies_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "usdrl" / "tiny-uiprmd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert (checkpoint_path(TINY) / "config.json").is_file()


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """Every card, as `make cards` writes them."""
    folder = tmp_path_factory.mktemp("cards")
    return {path.stem: path.read_text() for path in write_cards(folder) if path.parent == folder}


def test_cards_are_up_to_date(cards):
    kept = {path.stem: path.read_text() for path in (REPOSITORY / "model_cards").glob("*.md")}
    assert kept == cards, "run make cards"
    assert (checkpoint_path(TINY) / "README.md").read_text() == cards["tiny-uiprmd"]
    pictures = {path.name for path in (REPOSITORY / "model_cards").glob("*.png")}
    assert {name for card in cards.values() for name in re.findall(r"\(([^)]*png)\)", card)} == pictures


@pytest.mark.parametrize("document", ["README.md", "docs/models.md"])
def test_the_list_of_models_is_what_metrics_say(document):
    text = (REPOSITORY / document).read_text("utf-8")
    [shown] = re.findall(r"<!-- models: [^>]*-->\n(.*?)<!-- /models -->", text, flags=re.DOTALL)
    assert shown == model_list(), "run make cards"
    rows = {row.split("`")[1]: row for row in shown.split("\n- ")}
    assert {TINY, "usdrl/mocap-tiny"} <= set(rows)
    for name, row in rows.items():
        checkpoint = find_checkpoint(name)
        own, _, end = row.partition("; on ")
        measured = {f"{100 * value:.1f}" for value in checkpoint.measured.values()}
        figures = re.findall(r" (\d+\.\d) %", own)
        assert len(figures) in (3, 4) and set(figures) <= measured
        scored = checkpoint.metrics.get("final", {"few_labels": []})["few_labels"]
        final = {f"{100 * row['accuracy']['5']:.1f}" for row in scored if f"usdrl/{row['who']}" == name}
        assert set(re.findall(r" (\d+\.\d) %", end)) <= final and bool(end) is bool(final)


def test_a_list_of_models_is_brought_up_to_date_between_its_marks(tmp_path):
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- models: x -->\nold\n<!-- /models -->\nafter\n")
    update_list(document)
    assert document.read_text() == f"before\n<!-- models: x -->\n{model_list()}<!-- /models -->\nafter\n"


def test_any_card_is_rendered_by_name(cards):
    assert card_of("ntu60-xsub") == cards["ntu60-xsub"] and "sttr" not in " ".join(cards)
    assert "usdrl/ntu60-xsub-sttr" in card_of("usdrl/ntu60-xsub-sttr")
    with pytest.raises(CheckpointLoadError, match="usdrl list --all"):
        card_of("usdrl/nothing")


def test_cards_name_the_licence_of_the_pose_networks_that_read_films(cards):
    for card in cards.values():
        assert "MediaPipe Pose (BlazePose GHUM), by The\nMediaPipe Authors" in card
    assert "Apache License 2.0" in cards["tiny-uiprmd"]


def test_cards_hold_no_figure_without_a_source():
    for entry in CHECKPOINTS.values():
        source = CardSource.of_entry(entry)
        shown = figures(card_of(entry.name))
        assert shown == supported_figures(source), entry.name
        assert entry.published or entry.metrics or not shown
        assert ("Nothing has been measured" in render_card(source)) == (not entry.metrics)


def test_cards_are_what_the_hub_reads(cards):
    for name, text in cards.items():
        card = ModelCard(text)
        assert card.data.library_name == "transformers" and "usdrl" in card.data.tags
        assert card.data.license in ("apache-2.0", "cc-by-nc-4.0", "other") and "$" not in text
        for heading in ("Input", "Use", "Classes", "Training", "Results", "Limits and bias", "Licence", "Citation"):
            assert f"\n## {heading}\n" in text, name
        assert "@article{wang2025foundation" in text and "@inproceedings{weng2025usdrl" in text
    measured = ModelCard(cards["tiny-uiprmd"]).data.eval_results
    assert {result.metric_type: result.metric_value for result in measured} == {
        "accuracy": 96.9,
        "top5_accuracy": 99.9,
    }
    assert ModelCard(cards["ntu60-xsub-linear"]).data.eval_results is None, "published figures are not ours"


def test_a_card_follows_what_its_folder_measured(folder):
    record = json.loads((folder / "metrics.json").read_text()) | {"metrics": {"accuracy": 0.123, "count": 7}}
    record["refusal"].pop("false_alarms")
    (folder / "metrics.json").write_text(json.dumps(record))
    card = render_card(CardSource.of_folder(folder, "alice/mine"))
    assert figures(card) == {"12.3"} and "# alice/mine" in card
    assert "The split: people with odd numbers train" in card and "Who moves was not known" not in card
    assert "Motion of other kinds was not tried" in card
    (folder / "metrics.json").write_text("[1]")
    with pytest.raises(ValueError, match="not a metrics.json of this package"):
        CardSource.of_folder(folder, "alice/mine")


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


def poisoned(name, value):
    """A tensor with one number that is none."""

    def change(weights):
        weights[name].view(-1)[-1] = value

    return damage(change)


SEGMENTER = {"architectures": ["USDRLForActionSegmentation"], "segmentation_channels": 20_000}
PROJECTORS = {"architectures": ["USDRLForPreTraining"], "stream_projector_sizes": [40_000] * 3}


@pytest.mark.parametrize(
    "change, message",
    [
        # faults.md 25.
        (poisoned("usdrl.temporal.embedding.fc1.weight", float("nan")), "fc1.weight' holds NaN or infinity"),
        (poisoned("classifier.bias", float("-inf")), "'classifier.bias' holds NaN or infinity"),
        (damage(lambda w: w.update({"classifier.bias": w["classifier.bias"].int()})), "has the type I32"),
        (edited("config.json", layer_norm_eps=float("nan")), "layer_norm_eps must be above 0"),
        (edited("config.json", layer_norm_eps=-1.0), "layer_norm_eps must be above 0"),
        # faults.md 24: refused before anything is allocated.
        (edited("config.json", **SEGMENTER), "'stages.0.layers.0.dilated.weight' of 1200000000 numbers: that is too"),
        (edited("config.json", **PROJECTORS), "'temporal_projector.3.weight' of 1600000000 numbers: that is too"),
        # faults.md 27.
        (edited("config.json", architectures=5), "architectures must be a list of names"),
        (cut("model.safetensors", 0.5), "cannot be loaded"),
        (cut("model.safetensors", 0.0), "cannot be loaded"),
        (cut("config.json", 0.5), "cannot be loaded"),
        (cut("preprocessor_config.json", 0.5), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (pickled_weights, "cannot be loaded"),
        (edited("config.json", id2label=["a"]), "cannot be loaded"),
        (edited("config.json", hidden_size=82), "temporal.embedding.fc1.weight' has the shape .80, 75"),
        (edited("config.json", num_hidden_layers=10**9), "says 1000000000 layers, but its weights hold 2"),
        (edited("config.json", hidden_size=10**9), "cannot be loaded"),
        (edited("config.json", num_labels=10**9, id2label=None), "num_labels must be at most"),
        (edited("config.json", segmentation_layers=10**9), "must be at most 32"),
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_weights_of_any_width_are_loaded(folder, dtype):
    """faults.md 25: other types are refused."""
    damage(lambda w: w.update({name: tensor.to(dtype) for name, tensor in w.items()}))(folder)
    assert (
        relative_error(load_model(folder).classifier.bias.detach().float(), load_model(TINY).classifier.bias.detach())
        < 0.01
    )


def test_positions_of_frames_that_no_tensor_holds_are_bounded(folder):
    """faults.md 24: in a causal STTR nothing in the weights depends on the number of frames."""
    config = tiny_config(encoder="sttr", is_causal=True)
    USDRLForActionRecognition(config).save_pretrained(folder)
    edited("config.json", num_frames=10**9)(folder)
    with pytest.raises(CheckpointLoadError, match="temporal.position.values' of 16000000000 numbers"):
        load_model(folder)


def test_heads_that_the_caller_asks_for_may_be_larger_than_the_weights():
    model = USDRLForActionSegmentation.from_pretrained(TINY, segmentation_channels=1500, segmentation_stages=2)
    assert model.stages[1].layers[0].dilated.weight.shape == (1500, 1500, 3)


def test_projectors_are_left_out_of_an_encoder_without_a_word(tmp_path, caplog):
    """faults.md 36: transformers printed a table of 20 lines."""
    USDRLForPreTraining(tiny_config()).save_pretrained(tmp_path)
    caplog.clear()
    USDRLModel.from_pretrained(tmp_path)
    # What another test leaves of the verbosity is no matter.
    assert not [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")]


@pytest.mark.skipif(os.name != "posix", reason="the system has no such rights")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_weights_have_the_rights_of_any_new_file(tmp_path, mask):
    """faults.md 37: they were readable for their owner alone."""
    before = os.umask(mask)
    try:
        USDRLModel(tiny_config()).save_pretrained(tmp_path, max_shard_size="20KB")
    finally:
        os.umask(before)
    rights = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert len(rights) > 3 and set(rights.values()) == {0o666 & ~mask}, rights


@pytest.mark.parametrize("name", [TINY, "tiny-uiprmd", checkpoint_path(TINY)])
def test_a_shipped_model_is_called_by_its_name_not_by_its_place(name):
    """faults.md 32: adapters and cards write down what they are of."""
    for model in (USDRLModel.from_pretrained(name), USDRLForActionRecognition.from_pretrained(name)):
        assert model.name_or_path == model.config.name_or_path == model.base_model.name_or_path == TINY


def test_a_folder_without_preprocessor_is_refused_unless_it_is_to_be_guessed(folder):
    """faults.md 6: another normalization than the model's was taken, nothing said."""
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(MissingPreprocessorError, match="no preprocessor_config.json, so the .*--guess-prep"):
        load_feature_extractor(folder)
    with pytest.warns(USDRLWarning, match="normalization 'ntu' is used, as its layout suggests"):
        assert load_feature_extractor(folder, guess=True).layout == "ntu25"
    USDRLModel(tiny_config(layout=None)).save_pretrained(folder / "bare")
    with pytest.raises(CheckpointLoadError, match="has no preprocessor_config.json, and the model's config has no"):
        load_feature_extractor(folder / "bare", guess=True)


def test_a_file_is_no_model(folder):
    for load in (load_model, load_feature_extractor):
        with pytest.raises(CheckpointLoadError, match="usdrl convert"):
            load(folder / "model.safetensors")


# Every class that a repository may hold, by the Auto class that loads it.
REMOTE = {
    USDRLModel: "AutoModel",
    USDRLForPreTraining: "AutoModelForPreTraining",
    USDRLForActionRecognition: "AutoModelForVideoClassification",
    USDRLForActionDetection: "AutoModelForTokenClassification",
    USDRLForActionSegmentation: "AutoModelForTokenClassification",
    USDRLForEarlyActionPrediction: "AutoModelForTokenClassification",
}


@pytest.mark.parametrize("modality", [pytest.param("joint", marks=pytest.mark.slow), "bone"])
def test_remote_code_gives_the_same_outputs_where_the_package_is_missing(tmp_path, modality):
    config = tiny_config(modality=modality)
    keypoints = clips(config)
    np.save(tmp_path / "keypoints.npy", keypoints.numpy())
    raw = np.random.randn(30, 5, 3)
    np.save(tmp_path / "raw.npy", raw)
    expected = {}
    for model_class in REMOTE:
        name = model_class.__name__
        changes = {"is_causal": model_class is USDRLForEarlyActionPrediction, "segmentation_channels": 8}
        model = model_class(USDRLConfig(**{**config.to_dict(), **changes})).eval()
        model.save_pretrained(tmp_path / name)
        extractor = USDRLFeatureExtractor.from_model_config(config, normalization="none")
        extractor.save_pretrained(tmp_path / name)
        add_remote_code(tmp_path / name)
        expected[name] = remote_output(model, keypoints).numpy()
    script = f"""
import sys
sys.modules["usdrl_hub"] = None  # an import of the package fails
import numpy as np, torch, transformers
folder = {str(tmp_path)!r}
keypoints = torch.from_numpy(np.load(folder + "/keypoints.npy"))
{inspect.getsource(remote_output)}
for name, auto in {[(kind.__name__, auto) for kind, auto in REMOTE.items()]}:
    model = getattr(transformers, auto).from_pretrained(f"{{folder}}/{{name}}", trust_remote_code=True).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(f"{{folder}}/{{name}}", trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules") and type(model).__name__ == name, type(model)
    np.save(f"{{folder}}/{{name}}.npy", remote_output(model, keypoints).numpy())
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


@torch.no_grad()
def remote_output(model, keypoints):
    if "Segmentation" in type(model).__name__:
        return model(keypoints[:, None], torch.zeros(len(keypoints), 1, dtype=torch.long)).logits
    return model(keypoints)[0]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"modality": "bone"}, "was trained with modality 'joint', but is to be loaded with 'bone'"),
        ({"layout": "uav17", "num_joints": 17}, "was trained with layout 'ntu25'"),
        ({"num_persons": 2}, "was trained with num_persons 1"),
        ({"alpha": 0.25}, "was trained with alpha 0.5"),
        ({"shift_gap": 2}, "was trained with shift_gap 4"),
    ],
)
def test_weights_are_not_read_with_another_meaning(changes, message):
    for model_class in (USDRLModel, USDRLForActionDetection):
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(TINY, **changes)
        config = USDRLConfig(**{**USDRLConfig.from_pretrained(TINY).to_dict(), **changes})
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(TINY, config=config)


def test_changes_that_keep_the_meaning_are_taken():
    model = USDRLForActionRecognition.from_pretrained(TINY, drop_path_rate=0.3, dtype=torch.bfloat16)
    assert model.config.drop_path_rate == 0.3 and model.dtype == torch.bfloat16
    causal = USDRLForEarlyActionPrediction.from_pretrained(TINY, is_causal=True, ignore_mismatched_sizes=True)
    base = USDRLModel.from_pretrained(TINY)
    assert torch.equal(causal.usdrl.temporal.embedding.fc1.weight, base.temporal.embedding.fc1.weight)
    with pytest.raises(
        ValueError, match="classifier.weight' has the shape .10, 160.*ignore_mismatched_sizes=True or call with_head"
    ):
        USDRLForActionRecognition.from_pretrained(TINY, num_labels=3)
    other = USDRLForActionRecognition.from_pretrained(TINY, num_labels=3, ignore_mismatched_sizes=True)
    assert other.classifier.out_features == 3


def test_base_and_head_report_what_transformers_reports(tmp_path):
    USDRLModel(tiny_config()).save_pretrained(tmp_path / "base")
    head, report = USDRLForActionRecognition.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert sorted(report["missing_keys"]) == ["classifier.bias", "classifier.weight"]
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    head.save_pretrained(tmp_path / "head")
    _, report = USDRLModel.from_pretrained(tmp_path / "head", output_loading_info=True)
    # An encoder is what was asked for: the head's weights are not missed.
    assert not report["missing_keys"] and not report["mismatched_keys"] and not report["unexpected_keys"]


def raw_header(header, data=b""):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header

    def apply(folder):
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)

    return apply


@pytest.mark.parametrize(
    "change, message",
    [
        (raw_header(b"{"), "its header is damaged"),
        (raw_header(b"[1]"), "its header is damaged"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 20),
            "it is truncated or not",
        ),
        (
            raw_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
            "tensor 'a' has an imp",
        ),
        (
            raw_header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
            "tensor 'a' has an imp",
        ),
        (raw_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}), "tensor 'a' has an impossible"),
        (raw_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"), "tensor 'a' is cut off"),
        (raw_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345"), "belong to no tensor"),
    ],
)
def test_a_damaged_header_is_told_by_the_tensor(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message):
        USDRLModel.from_pretrained(folder)
    with pytest.raises(CheckpointLoadError, match=message):
        load_model(folder)


def test_the_code_that_goes_along_is_whole():
    """A file of the package that the code imports, and that is not sent with it, fails at whoever loads the code."""
    package = Path(usdrl_hub.__file__).parent
    for name in CODE_FILES:
        for node in ast.walk(ast.parse((package / name).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module and f"{node.module}.py" in CODE_FILES, (name, node.module)
                # transformers finds them by this text.
                assert f"from .{node.module} import" in (package / name).read_text("utf-8")


def test_code_of_a_folder_runs_only_if_trusted(tmp_path):
    USDRLModel(tiny_config()).save_pretrained(tmp_path)
    USDRLFeatureExtractor.from_model_config(tiny_config(), normalization="none").save_pretrained(tmp_path)
    add_remote_code(tmp_path)
    (tmp_path / "modeling_usdrl.py").write_text("raise RuntimeError('ran')")
    assert isinstance(AutoModel.from_pretrained(tmp_path), USDRLModel)
    assert {name for name in CODE_FILES} <= {file.name for file in tmp_path.iterdir()}


def test_what_a_record_or_a_model_says_is_text_in_a_card():
    """faults.md 28: HTML, headings and `javascript:` links in metrics.json or class names."""
    evil = "<img src=x onerror=alert(1)>\n# Heading\n[click](javascript:alert(1)) | `code` **bold** \x1b[2J"
    config = USDRLConfig(layout="ntu25", id2label={0: evil, 1: "# squat"}, num_joints=25)
    config.architectures = ["USDRLForActionRecognition"]
    record = {
        "dataset": evil,
        "split": evil,
        "n": {"train": evil, "test": evil},
        "metrics": {"accuracy": 0.5, evil: 0.25},
        "benchmark": evil,
        "seed": evil,
        "command": f"```\n{evil}\n```",
        "wall_seconds": evil,
        "hardware": evil,
        "versions": {evil: evil},
        "git_revision": evil,
        "checkpoint_sha256": evil,
        "few_labels": [{"measure": evil, "who": evil, "accuracy": {evil: 0.5}}],
    }
    body = render_card(CardSource("ada/model", config, None, record, 1000, None, True)).split("\n---\n", 1)[1]
    shown = re.sub(r"\\[^\w\s]", "", re.sub(r"```.*?```|`[^`\n]*`", "", body, flags=re.S))
    assert "<img" not in shown and "](javascript" not in shown and "**bold" not in shown and "\x1b" not in body
    assert "\n# Heading" not in body and "onerror" in body and body.count("```") % 2 == 0


def test_an_error_of_loading_names_the_model_once(folder):
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(CheckpointLoadError, match="cannot be loaded: there are no weights") as caught:
        load_model(folder)
    assert str(caught.value).count("model '") == 1
