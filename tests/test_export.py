import json
import os
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from usdrl_hub import (
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLModel,
)
from usdrl_hub.data.samples import load_samples
from usdrl_hub.hub.convert import convert_checkpoint
from usdrl_hub.inference import export
from usdrl_hub.inference.export import export_model

from .conftest import GOLDENS, relative_error, to_clips
from .helpers import clips, inputs_of, randomised, run, tiny_config

onnx = pytest.importorskip("onnx", reason="needs pip install 'usdrl-hub[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install 'usdrl-hub[onnx]'")
# Older ones cannot export a segmentation head of any number of frames.
pytest.importorskip("torch", minversion="2.13")
pytest.importorskip("onnxscript", reason="needs pip install 'usdrl-hub[onnx]'")

TINY = "usdrl/tiny-uiprmd"
TOLERANCE = 1e-5
EXAMPLE = Path(__file__).parent.parent / "docs" / "run_onnx.py"


def compute(path: Path, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {name: values.numpy() for name, values in inputs.items()})
    return dict(zip(names, found, strict=True))


def metadata(path: Path) -> dict:
    about = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    return {name: json.loads(text) for name, text in about.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    # An export takes seconds: the rarer ones are slow tests.
    return export_model(TINY, tmp_path_factory.mktemp("exports") / "tiny").path


@pytest.fixture(scope="module")
def example() -> dict:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def recording(tmp_path) -> Path:
    """A real clip in the model's layout."""
    path = tmp_path / "recording.npy"
    np.save(path, load_samples()[7].to_layout("ntu25").keypoints)
    return path


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_the_bundled_recogniser_computes_the_same_in_onnxruntime(exported, batch):
    samples = load_samples()[:batch]
    keypoints = USDRLFeatureExtractor.from_pretrained(TINY)(samples, return_tensors="pt")["keypoints"]
    with torch.no_grad():
        expected = USDRLForActionRecognition.from_pretrained(TINY).eval()(keypoints)
    found = compute(exported, {"keypoints": keypoints})
    assert list(found) == ["logits", "similarity"] and found["similarity"].shape == (batch,)
    for name, values in found.items():
        assert relative_error(values, expected[name]) < TOLERANCE


def test_one_file_says_how_clips_are_made_and_what_the_classes_are(exported):
    assert os.listdir(exported.parent) == ["model.onnx"]
    about = metadata(exported)
    config = USDRLConfig.from_pretrained(TINY)
    assert about["config.json"]["id2label"] == {str(key): name for key, name in config.id2label.items()}
    assert USDRLConfig(**about["config.json"]).class_names == config.class_names
    extractor = USDRLFeatureExtractor.from_pretrained(TINY)
    assert USDRLFeatureExtractor(**about["preprocessor_config.json"]).to_dict() == extractor.to_dict()
    assert about["joint_names"][1] == "spine_mid" and len(about["joint_names"]) == 25
    assert about["versions"]["torch"] == version("torch") and about["coordinates"] == "3d"
    # Nothing of the machine that it was made on.
    content = exported.read_bytes()
    for place in (Path(export.__file__).parent, Path(torch.__file__).parent, Path.home()):
        assert str(place).encode() not in content


def test_the_example_names_the_action_without_torch_as_usdrl_predict_does(capsys, exported, recording):
    blocked = f"import runpy, sys; sys.modules |= dict.fromkeys({['torch', 'transformers', 'usdrl_hub']}); "
    code = blocked + f"sys.argv = {['run_onnx.py', str(exported), str(recording)]}; "
    code += f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [line.split("  ", 1) for line in done.stdout.splitlines()]
    status, out, _ = run(capsys, "predict", recording, "--json", "--top-k", 3)
    top = json.loads(out)["predictions"][0]["top"]
    assert status == 0 and [name for _, name in told] == [each["label"] for each in top]
    for (probability, _), each in zip(told, top, strict=True):
        assert abs(float(probability) - each["probability"]) < TOLERANCE


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_the_example_says_what_heads_of_other_losses_say(capsys, tmp_path, exported, example, recording, problem):
    """It took a softmax of the numbers of a regression model: a single one was always 1."""
    changed, path = onnx.load(exported), tmp_path / "model.onnx"
    [about] = [entry for entry in changed.metadata_props if entry.key == "config.json"]
    about.value = json.dumps({**json.loads(about.value), "problem_type": problem})
    onnx.save(changed, path)
    example["main"](str(path), str(recording))
    told = dict(line.split("  ", 1)[::-1] for line in capsys.readouterr().out.splitlines())
    clip = USDRLFeatureExtractor.from_pretrained(TINY)(np.load(recording), return_tensors="pt")["keypoints"]
    [logits] = compute(exported, {"keypoints": clip})["logits"]
    values = logits if problem == "regression" else 1 / (1 + np.exp(-logits))
    assert len(told) == (10 if problem == "regression" else 3)
    for name, value in told.items():
        assert abs(float(value) - values[metadata(exported)["config.json"]["label2id"][name]]) < 1e-4


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"normalization": "body"},
        {"normalization": "none", "num_frames": 100},
        {"normalization": "ntu", "z_axis": [0, 1], "max_frames": 40},
        {"num_persons": 1},
        {"num_persons": 3},
    ],
)
def test_the_example_makes_the_clips_that_the_feature_extractor_makes(example, fields):
    extractor = USDRLFeatureExtractor(layout="ntu25", **fields)
    real = [sequence.to_layout("ntu25").keypoints for sequence in load_samples()[:12:3]]
    two = np.concatenate([real[0][:50], 1.3 * real[1][:50] + 0.5], axis=1)
    late, gone = two.copy(), two.copy()
    # Nobody at first, a gap, and one who leaves.
    late[:7, 0] = late[20:22] = gone[30:, 1] = 0
    # Shoulders along -x, and upside down.
    behind = real[2] * np.float32([-1, 1, -1])
    pause = np.concatenate([two[:1] * 0, two[:1]])
    for frames in [*real, two, late, gone, behind, -real[3], pause, two[:1]]:
        found = example["make_clip"](frames.copy(), extractor.to_dict())
        expected = extractor(frames, axes="TMVC")["keypoints"]
        assert found.dtype == np.float32 and relative_error(found, expected) < 1e-6


def test_the_example_says_what_it_does_not_cover(exported, example, recording, tmp_path):
    for array in (np.ones((9, 1, 17, 3)), np.full((9, 25, 3), np.nan), np.zeros((9, 25, 3)), np.ones((9, 25, 2))):
        np.save(recording, array)
        with pytest.raises(SystemExit, match=r"give \(frames, persons, 25, 3\) without NaN; joints: spine_base, "):
            example["main"](str(exported), str(recording))
    import onnx

    other = onnx.load(str(exported))
    for entry in other.metadata_props:
        if entry.key == "preprocessor_config.json":
            entry.value = json.dumps(json.loads(entry.value) | {"relink": True})
    onnx.save(other, str(tmp_path / "other.onnx"))
    with pytest.raises(SystemExit, match="this example lacks the preprocessing of .*other.onnx: use usdrl_hub"):
        example["main"](str(tmp_path / "other.onnx"), str(recording))


@pytest.mark.parametrize(
    ("name", "task", "key"),
    [
        ("recognition_dste_ntu25", "detection", "frame_logits"),
        pytest.param("recognition_dste_ntu25", "recognition", "logits", marks=pytest.mark.slow),
        pytest.param("recognition_sttr_ntu25", "recognition", "logits", marks=pytest.mark.slow),
        pytest.param("recognition_dste_uav17", "recognition", "logits", marks=pytest.mark.slow),
    ],
)
def test_an_exported_model_computes_what_the_release_computes(golden, tmp_path, name, task, key):
    file = golden(name)
    model = convert_checkpoint(GOLDENS / f"{name}.pth.tar", task)
    model.save_pretrained(tmp_path / "model")
    USDRLFeatureExtractor.from_model_config(model.config).save_pretrained(tmp_path / "model")
    path = export_model(tmp_path / "model", tmp_path / "exported").path
    found = compute(path, {"keypoints": to_clips(file["input_NCTVM"])})
    assert relative_error(found["logits"], file[key]) < TOLERANCE


@pytest.mark.parametrize(
    ("model_class", "fields", "outputs"),
    [
        pytest.param(USDRLForPreTraining, {"modality": "bone"}, ["last_hidden_state"], marks=pytest.mark.slow),
        pytest.param(
            *(USDRLModel, {"modality": "joint+motion", "num_attention_heads": 2}, ["last_hidden_state"]),
            marks=pytest.mark.slow,
        ),
        (USDRLForEarlyActionPrediction, {"is_causal": True, "modality": "motion"}, ["logits"]),
        (USDRLForActionSegmentation, {"segmentation_stages": 2, "segmentation_layers": 2}, ["logits"]),
    ],
)
def test_every_kind_of_model_is_exported(tmp_path, model_class, fields, outputs):
    config = tiny_config(encoder="sttr", num_hidden_layers=1, output_hidden_states=True, **fields)
    model = randomised(model_class(config))
    model.save_pretrained(tmp_path / "model")
    USDRLFeatureExtractor.from_model_config(model.config, normalization="none").save_pretrained(tmp_path / "model")
    done = export_model(tmp_path / "model", tmp_path / "exported")
    inputs = inputs_of(model_class, config)
    found = compute(done.path, inputs)
    is_pretraining = model_class is USDRLForPreTraining
    expected = (model.usdrl if is_pretraining else model)(**inputs)
    assert done.model_class == metadata(done.path)["config.json"]["architectures"][0]
    assert done.model_class == ("USDRLModel" if is_pretraining else model_class.__name__)
    assert list(done.outputs) == list(found) and list(found)[: len(outputs)] == outputs
    assert done.error < TOLERANCE and done.inputs["keypoints"][0] == "batch"
    for name, values in found.items():
        assert relative_error(values, expected[name].detach()) < TOLERANCE, name
    if model_class is USDRLForActionSegmentation:
        assert done.inputs["window_starts"] == ["batch", "windows"]
        assert done.outputs["logits"] == ["batch", "frames", 4]
        one = {"keypoints": clips(config, 1)[None], "window_starts": torch.tensor([[0]])}
        assert relative_error(compute(done.path, one)["logits"], model(**one).logits.detach()) < TOLERANCE


def test_a_file_that_computes_something_else_than_the_model_is_refused(exported):
    model = USDRLForActionRecognition.from_pretrained(TINY).eval()
    assert export._check(exported, model) < TOLERANCE
    with torch.no_grad():
        model.classifier.bias[3] += 1e-3
    with pytest.raises(
        ValueError, match=r"'logits' differs from PyTorch's at a batch of 2 \(relative error \d.\de-04\)"
    ):
        export._check(exported, model)


@pytest.mark.slow
def test_a_model_that_computes_nan_is_not_written(capsys, tmp_path):
    model = USDRLModel(tiny_config(encoder="sttr", num_hidden_layers=1))
    # Finite, as loading wants it, but its products are not.
    torch.nn.init.constant_(model.temporal.layers[0].fc1.bias, 3e38)
    torch.nn.init.constant_(model.temporal.layers[0].fc2.weight, 1e3)
    model.save_pretrained(tmp_path / "model")
    USDRLFeatureExtractor.from_model_config(model.config, normalization="none").save_pretrained(tmp_path / "model")
    code, out, err = run(capsys, "export", tmp_path / "model", "--output-dir", tmp_path / "exported")
    assert code == 2 and out == "" and err.startswith("usdrl: the model's '") and err.count("\n") == 1
    assert "numbers are NaN or infinite" in err and os.listdir(tmp_path) == ["model"]


def test_wrong_input_gets_a_sentence(capsys, tmp_path, monkeypatch):
    def refused(*arguments) -> str:
        code, out, err = run(capsys, "export", *arguments)
        assert code == 2 and out == "" and err.startswith("usdrl: ") and err.count("\n") == 1
        return err

    output = ["--output-dir", tmp_path / "exported"]
    assert "there is no format 'tflite': use onnx" in refused(TINY, *output, "--format", "tflite")
    assert f"'{TINY},{TINY}' is an ensemble: export its models one by one" in refused(f"{TINY},{TINY}", *output)
    assert "'usdrl/tiny-uiprdm' was not found" in refused("usdrl/tiny-uiprdm", *output)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.onnx").write_text("mine")
    assert "exists already and is not an empty folder" in refused(TINY, "--output-dir", tmp_path / "kept")
    monkeypatch.setattr(export, "_LARGEST", 1_000_000)
    assert f"model '{TINY}' has 0.0 GB of weights, and one ONNX file holds 2 at most" in refused(TINY, *output)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "needs the package onnxruntime: pip install 'usdrl-hub[onnx]'" in refused(TINY, *output)
    assert os.listdir(tmp_path) == ["kept"] and (tmp_path / "kept" / "model.onnx").read_text() == "mine"


@pytest.mark.slow
def test_the_command_says_what_it_wrote(capsys, tmp_path):
    model = USDRLForActionRecognition(tiny_config(encoder="sttr", num_hidden_layers=1))
    model.save_pretrained(tmp_path / "model")
    USDRLFeatureExtractor.from_model_config(model.config, normalization="none").save_pretrained(tmp_path / "model")
    code, out, err = run(capsys, "export", tmp_path / "model", "--output-dir", tmp_path / "exported")
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'exported' / 'model.onnx'}: USDRLForActionRecognition, ")
    assert lines[1:3] == ["  input keypoints (batch, 12, 1, 5, 3)", "  output logits (batch, 4)"]
    assert float(lines[3].removeprefix("  largest relative difference to PyTorch: ")) < TOLERANCE
