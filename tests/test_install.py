"""Models that are installed under a name: found by it in every process, offline, whole or not at all."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModel

from usdrl_hub import (
    SkeletonSequence,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLForPreTraining,
    USDRLModel,
    checkpoint_path,
    extract_embeddings,
    pipeline,
)
from usdrl_hub.errors import CheckpointLoadError
from usdrl_hub.facts.checkpoints import find_checkpoint, installed_names
from usdrl_hub.hub.convert import save_original
from usdrl_hub.hub.install import InstallError, conversion_choices, install
from usdrl_hub.hub.listing import model_config
from usdrl_hub.loading import load_feature_extractor, load_model

from .helpers import run

NAME = "usdrl/ntu120-xsub"
HF = Path(sys.executable).with_name("hf")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("USDRL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("usdrl_hub.lookup._reported", set())
    return tmp_path / "home"


@pytest.fixture(scope="module")
def encoder() -> USDRLModel:
    """Random weights in the sizes that the registry promises of the name, narrow for the test."""
    torch.manual_seed(0)
    return USDRLModel(narrow(NAME)).eval()


def narrow(name: str) -> USDRLConfig:
    return USDRLConfig(**{**model_config(find_checkpoint(name)).to_dict(), "hidden_size": 16, "intermediate_size": 32})


@pytest.fixture
def promised(monkeypatch):
    """The registry with narrow encoders."""
    monkeypatch.setattr("usdrl_hub.hub.install.model_config", lambda entry: narrow(entry.name))


@pytest.fixture
def original(encoder, tmp_path) -> Path:
    return save_original(encoder, tmp_path / "authors.pth.tar")


def test_a_converted_file_loads_by_its_name(capsys, home, original, encoder, promised, tmp_path, monkeypatch):
    code, out, err = run(capsys, "convert", original, "--name", NAME)
    assert code == 0 and f"installed as {NAME}" in out and f"layout ntu25 (that of {NAME})" in out, err
    folder = home / "models" / "usdrl--ntu120-xsub"
    clips = torch.randn(2, 64, 2, 25, 3)
    expected = encoder(clips).pooler_output
    monkeypatch.chdir(tmp_path)
    for name in (NAME, "ntu120-xsub", checkpoint_path(NAME)):
        assert torch.equal(USDRLModel.from_pretrained(name).eval()(clips).pooler_output, expected)
        assert load_model(name).config.layout == "ntu25" and load_feature_extractor(name).normalization == "ntu"
    assert torch.equal(USDRLModel.from_pretrained(NAME, revision="main").eval()(clips).pooler_output, expected)
    assert isinstance(AutoModel.from_pretrained(checkpoint_path(NAME)), USDRLModel)
    assert USDRLModel.from_pretrained(NAME).name_or_path == NAME and checkpoint_path(NAME) == folder
    for file in folder.glob("*.json"):
        assert str(tmp_path) not in file.read_text()


def test_a_file_of_the_hub_is_converted_in_one_command(capsys, hub, home, original, encoder, promised, tmp_path):
    content = original.read_bytes()
    hub.commit("wan/Zoo", {"ntu120_xs_j_dste/checkpoint_0450.pth.tar": content, "README.md": b"# Zoo"})
    HfApi().create_tag("wan/Zoo", tag="v1", token=hub.add_user("wan"))
    clips = torch.randn(2, 64, 2, 25, 3)
    file = "wan/Zoo/ntu120_xs_j_dste/checkpoint_0450.pth.tar"
    code, out, err = run(capsys, "convert", file, "--name", NAME)
    assert code == 0 and f"installed as {NAME}" in out, err
    assert torch.equal(USDRLModel.from_pretrained(NAME).eval()(clips).pooler_output, encoder(clips).pooler_output)
    # A killed download goes on, and a file that is here is not asked for again.
    hub.stop()
    address = "hf://wan/Zoo@v1/ntu120_xs_j_dste/checkpoint_0450.pth.tar"
    for name in (file, address):
        code, _, err = run(capsys, "convert", name, "--name", f"alice/{len(name)}")
        assert code == (0 if name == file else 2), err
    hub.start()
    assert run(capsys, "convert", address, "--output-dir", tmp_path / "out")[0] == 0
    for name, said in {
        "wan/Zoo": "names none of the hub: the repository holds ntu120_xs_j_dste/checkpoint_0450.pth.tar",
        "wan/Zoo/other.pth.tar": "wan/Zoo has no file 'other.pth.tar': the repository holds ntu120_xs_j_dste/",
        "hf://wan/Zoo@v2/a.pth.tar": "the hub has no revision 'v2' of it",
        "hf://datasets/wan/Zoo/a.pth.tar": "is no address of a model",
        "wan/Zoo/README.md": "cannot be read as a checkpoint",
        "wan/none/a.pth.tar": "the hub has none that you may read",
        "zoo/a.pth.tar": "no such checkpoint file",
        "nothing": "no such checkpoint file",
    }.items():
        code, _, err = run(capsys, "convert", name, "--output-dir", tmp_path / "wrong")
        assert code == 2 and said in err and len(err.splitlines()) == 1, err
        assert not (tmp_path / "wrong").exists()
    hub.repos["wan/Zoo"].readers = set()
    shutil.rmtree(tmp_path / "cache")
    code, _, err = run(capsys, "convert", file, "--output-dir", tmp_path / "gated")
    assert code == 2 and "ask its owner for access" in err and hub.token not in err


ELSEWHERE = """
import os, sys
import numpy as np
import torch, transformers
import usdrl_hub
from usdrl_hub.facts.checkpoints import installed_names
from usdrl_hub.loading import load_model
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification, pipeline

def outputs(folder):
    auto = AutoModel.from_pretrained(folder).eval()
    head = AutoModelForVideoClassification.from_pretrained(folder).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert {type(part).__module__ for part in (auto, head, extractor)} == {
        "usdrl_hub.modeling_usdrl", "usdrl_hub.feature_extraction_usdrl"
    }
    recording = np.load(sys.argv[2])
    clip = extractor(usdrl_hub.SkeletonSequence(recording[:, None], "ntu25"), return_tensors="pt")
    found = [auto(**clip).pooler_output, head(**clip).logits, load_model(sys.argv[3])(**clip).logits]
    found = [part.detach().numpy().ravel() for part in found]
    named = pipeline("skeleton-action-recognition", model=folder)(recording, layout="ntu25", top_k=10)
    scores = np.array([entry["score"] for entry in named], np.float32)
    embedding = usdrl_hub.extract_embeddings([recording], sys.argv[3]).ravel()
    return np.concatenate([*found, embedding, scores])

before = outputs(sys.argv[1])
if os.geteuid() == 0:
    # Another user: the interpreter itself may be root's alone, so all is imported by now.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.environ["HOME"] = "/nonexistent"
    assert np.array_equal(outputs(sys.argv[1]), before)
    # What ships loads although USDRL_HOME may not be read.
    os.environ["USDRL_HOME"] = sys.argv[4]
    assert load_model("usdrl/tiny-uiprmd").config.num_labels == 10
    assert usdrl_hub.checkpoint_path("usdrl/tiny-uiprmd") and not installed_names()
sys.stdout.buffer.write(before.tobytes())
"""


@pytest.mark.long
def test_transformers_own_tools_read_what_is_installed_as_another_user_elsewhere(monkeypatch):
    """Auto classes, `pipeline` and the cache of the hub; pytest's own folders are of one user only."""
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder)
        shared.chmod(0o755)
        monkeypatch.setenv("USDRL_HOME", str(shared / "home"))
        monkeypatch.setenv("HF_HOME", str(shared / "cache"))
        installed = install(checkpoint_path("usdrl/tiny-uiprmd"), "alice/ten")
        recording = np.random.default_rng(0).normal(size=(30, 25, 3)).astype(np.float32)
        np.save(shared / "recording.npy", recording)
        elsewhere, closed = shared / "elsewhere", shared / "closed"
        elsewhere.mkdir()
        closed.mkdir(mode=0o700)
        for path in [*(shared / "home").rglob("*"), shared / "home"]:
            path.chmod(path.stat().st_mode & ~0o222)
        command = [sys.executable, "-c", ELSEWHERE, str(installed), str(shared / "recording.npy"), "alice/ten"]
        command.append(str(closed))
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        assert done.stderr.decode().count("is the one that is installed on this machine") == 1, done.stderr.decode()
        model, extractor = load_model("usdrl/tiny-uiprmd"), load_feature_extractor("usdrl/tiny-uiprmd")
        clip = extractor(SkeletonSequence(recording[:, None], "ntu25"), return_tensors="pt")
        pooled, logits = model.base_model(**clip).pooler_output.detach().numpy(), model(**clip).logits.detach().numpy()
        embedding = extract_embeddings([recording], "usdrl/tiny-uiprmd").ravel()
        named = pipeline("skeleton-action-recognition", "usdrl/tiny-uiprmd")(recording, layout="ntu25", top_k=10)
        scores = np.array([entry["score"] for entry in named], np.float32)
        expected = np.concatenate([pooled.ravel(), logits.ravel(), logits.ravel(), embedding, scores])
        assert np.array_equal(np.frombuffer(done.stdout, np.float32), expected)
        # Nothing of it is in the client's cache, whose own command reads it.
        (shared / "cache" / "hub").mkdir(parents=True, exist_ok=True)
        listed = subprocess.run([HF, "cache", "ls"], env=environment, capture_output=True, text=True)
        assert listed.returncode == 0 and "ten" not in listed.stdout, listed.stderr
        for path in [shared / "home", *(shared / "home").rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_its_use_is_said_once_and_the_hub_can_be_asked(encoder, promised, tmp_path, recwarn):
    encoder.save_pretrained(tmp_path / "made")
    USDRLFeatureExtractor(normalization="ntu").save_pretrained(tmp_path / "made")
    install(tmp_path / "made", NAME)
    for _ in range(2):
        USDRLModel.from_pretrained(NAME)
    said = [str(entry.message) for entry in recwarn if "installed on this machine" in str(entry.message)]
    assert len(said) == 1 and NAME in said[0]
    for arguments in ({"revision": "v1"}, {"force_download": True}):
        with pytest.raises(OSError):
            USDRLModel.from_pretrained(NAME, **arguments)


def test_an_installed_model_goes_before_the_shipped_one(tmp_path):
    shutil.copytree(checkpoint_path("usdrl/tiny-uiprmd"), tmp_path / "mine")
    model = USDRLForActionRecognition.from_pretrained(tmp_path / "mine")
    with torch.no_grad():
        model.classifier.bias.fill_(3)
    model.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "metrics.json").unlink()
    install(tmp_path / "mine", "tiny-uiprmd")
    assert installed_names() == ["usdrl/tiny-uiprmd"]
    assert USDRLForActionRecognition.from_pretrained("usdrl/tiny-uiprmd").classifier.bias.eq(3).all()


def test_the_list_shows_what_can_be_loaded(capsys, encoder, promised, tmp_path):
    encoder.save_pretrained(tmp_path / "made")
    USDRLFeatureExtractor(normalization="ntu").save_pretrained(tmp_path / "made")
    assert NAME not in run(capsys, "list")[1]
    for name in (NAME, "alice/mine"):
        code, out, err = run(capsys, "install", tmp_path / "made", "--name", name)
        assert code == 0 and f"installed as {name}" in out, err
    out = run(capsys, "list")[1]
    assert [line for line in out.splitlines() if NAME in line and "installed on this machine" in line]
    assert "also installed on this machine: alice/mine" in out
    listed = {entry["name"]: entry for entry in json.loads(run(capsys, "list", "--json")[1])}
    assert listed[NAME]["installed"] and not listed["usdrl/mocap-tiny"]["installed"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layout": "coco17-release", "num_joints": 17}, "layout"),
        ({"num_persons": 1}, "num_persons 2, and this model 1"),
        ({"modality": "bone"}, "modality joint, and this model bone"),
        ({"hidden_size": 32}, "hidden_size 16, and this model 32"),
    ],
)
def test_a_model_that_the_name_does_not_promise_is_refused(change, said, home, promised, tmp_path):
    config = {**narrow(NAME).to_dict(), "intermediate_size": None, **change}
    USDRLModel(USDRLConfig(**config)).save_pretrained(tmp_path / "made")
    USDRLFeatureExtractor.from_model_config(USDRLConfig(**config)).save_pretrained(tmp_path / "made")
    with pytest.raises(InstallError, match=said):
        install(tmp_path / "made", NAME)
    assert installed_names() == [] and not list(home.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("usdrl/uav-v1-linear", ("recognition", "uav17", "joint")),
        ("ntu60-xsub-bone", ("recognition", "ntu25", "bone")),
        ("usdrl/pkummd1-xsub-detection", ("detection", "ntu25", "joint")),
    ],
)
def test_a_known_name_brings_what_its_file_does_not_contain(name, expected):
    task, choices = conversion_choices(name)
    assert (task, choices["layout"], choices["modality"]) == expected
    assert conversion_choices(name, modality="motion", task="recognition")[1]["modality"] == "motion"
    assert conversion_choices("alice/mine", layout=None) == ("recognition", {})


def test_what_cannot_be_installed_is_refused(capsys, home, encoder, promised, tmp_path, original):
    made = tmp_path / "made"
    USDRLForPreTraining(narrow(NAME)).save_pretrained(made)
    with pytest.raises(InstallError, match="preprocessor_config.json"):
        install(made, NAME)
    USDRLFeatureExtractor(normalization="ntu").save_pretrained(made)
    with pytest.raises(InstallError, match="cannot be a model's name"):
        install(made, "a/b/c")
    for name in ("../x", "", "a--b"):
        with pytest.raises(InstallError):
            install(made, name)
    with pytest.raises(InstallError, match="no model folder"):
        install(tmp_path / "nothing", NAME)
    with pytest.raises(InstallError, match="usdrl/ntu120-xsub-linear is a USDRLForActionRecognition"):
        install(made, "usdrl/ntu120-xsub-linear")
    # The projectors of pretraining are the authors' form of an encoder.
    install(made, NAME)
    with pytest.raises(InstallError, match="is installed as usdrl/ntu120-xsub already: remove"):
        install(made, "ntu120-xsub")
    for arguments in (["--name", NAME], [], ["--name", "x", "--output-dir", tmp_path / "out"]):
        code, _, err = run(capsys, "convert", original, *arguments)
        assert code == 2 and err.startswith("usdrl: ") and len(err.splitlines()) == 1
    (made / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InstallError, match="model.safetensors"):
        install(made, "alice/broken")
    assert installed_names() == [NAME]


def test_a_name_of_nothing_says_what_is_here():
    with pytest.raises(CheckpointLoadError, match="'usdrl/ntu60-xsub' is not here. .* --name usdrl/ntu60-xsub'"):
        checkpoint_path("usdrl/ntu60-xsub")


@pytest.mark.parametrize("model_class", [USDRLForPreTraining, USDRLForActionRecognition])
def test_an_encoder_is_loaded_without_a_report_of_the_head_that_it_leaves_out(home, model_class, tmp_path):
    saved = model_class(narrow(NAME))
    saved.save_pretrained(tmp_path / "made")
    USDRLFeatureExtractor(normalization="ntu").save_pretrained(tmp_path / "made")
    install(tmp_path / "made", "alice/mine")
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        encoder = USDRLModel.from_pretrained("alice/mine")
    finally:
        logger.removeHandler(handler)
    assert heard == []
    assert all(torch.equal(value, saved.usdrl.state_dict()[key]) for key, value in encoder.state_dict().items())
