import errno
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from usdrl_hub import USDRLForActionDetection, USDRLForActionRecognition, USDRLForPreTraining, USDRLModel
from usdrl_hub.cli import main
from usdrl_hub.hub.convert import CheckpointError, convert_checkpoint, original_state_dict, save_original

from .conftest import GOLDENS, relative_error, to_clips
from .helpers import PRETRAIN, PRETRAINED, formed
from .reference import encode

CLASSIFIERS = ["recognition_dste_ntu25", "recognition_sttr_ntu25", "recognition_dste_uav17", "detection_dste_ntu25"]
TOLERANCE = 1e-5


def original(name):
    return GOLDENS / f"{name}.pth.tar"


def converted(name, folder, *options):
    """Run the command as a user does."""
    main_exits_cleanly(["convert", str(original(name)), "--output-dir", str(folder), *options])
    return folder


def main_exits_cleanly(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code in (0, None)


@pytest.mark.parametrize("name, modality", PRETRAINED)
def test_pretraining_checkpoints_compute_what_the_release_computes(golden, tmp_path, name, modality):
    file = golden(name)
    folder = converted(name, tmp_path / "model", "--modality", modality)
    model = USDRLForPreTraining.from_pretrained(folder).eval()
    base = USDRLModel.from_pretrained(folder).eval()
    keypoints = to_clips(file["input_NCTVM"])
    with torch.no_grad():
        tokens, output, encoded = formed(model.usdrl, keypoints), model(keypoints), base(keypoints)
    actual = {
        "temporal_tokens": tokens[0],
        "spatial_tokens": tokens[1],
        "temporal": encoded.temporal_hidden_state,
        "spatial": encoded.spatial_hidden_state,
        "pooled": encoded.pooler_output,
        "z_temporal": output.temporal_projection,
        "z_spatial": output.spatial_projection,
        "z_instance": output.instance_projection,
    }
    for key, tensor in actual.items():
        assert relative_error(tensor, file[f"{modality}_{key}"]) < TOLERANCE, key


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_compute_what_the_release_computes(golden, tmp_path, name):
    file = golden(name)
    folder = converted(name, tmp_path / "model")
    keypoints = to_clips(file["input_NCTVM"])
    recognizer = USDRLForActionRecognition.from_pretrained(folder).eval()
    detector = USDRLForActionDetection.from_pretrained(folder).eval()
    with torch.no_grad():
        encoded = recognizer.usdrl(keypoints)
        actual = {
            "logits": recognizer(keypoints).logits,
            "frame_logits": detector(keypoints).logits,
            "embedding": encoded.pooler_output,
            "dense": encoded.last_hidden_state,
        }
    for key, tensor in actual.items():
        assert relative_error(tensor, file[key]) < TOLERANCE, key


@pytest.mark.parametrize("name", ["pretrain_dste_ntu25", "pretrain_sttr_ntu25"])
def test_the_reference_of_the_tests_computes_what_the_release_computes(golden, name):
    file = golden(name)
    state = torch.load(original(name), weights_only=True)["state_dict"]
    state = {key.removeprefix("module."): value for key, value in state.items()}
    with torch.no_grad():
        temporal, spatial = encode(state, to_clips(file["input_NCTVM"]))
    assert relative_error(temporal, file["joint_temporal"]) < TOLERANCE
    assert relative_error(spatial, file["joint_spatial"]) < TOLERANCE


@pytest.mark.parametrize("name", PRETRAIN + CLASSIFIERS)
def test_going_back_gives_the_original_bit_for_bit(tmp_path, name):
    folder = converted(name, tmp_path / "model")
    main_exits_cleanly(["convert", str(folder), "--output-dir", str(tmp_path / "back"), "--to-original"])
    back = torch.load(tmp_path / "back" / "checkpoint.pth.tar", weights_only=True)["state_dict"]
    expected = torch.load(original(name), weights_only=True)["state_dict"]
    assert set(back) == set(expected)
    for key, tensor in expected.items():
        assert torch.equal(back[key], tensor), key


def test_sizes_follow_from_the_file_and_the_folder_is_complete(tmp_path, capsys):
    folder = converted("recognition_dste_uav17", tmp_path / "uav")
    assert "layout coco17-release (inferred from the 34 spatial tokens" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_joints"], config["hidden_size"], len(config["id2label"])) == (17, 32, 155)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    named = converted("recognition_dste_uav17", tmp_path / "named", "--layout", "uav17")
    assert json.loads((named / "config.json").read_text())["layout"] == "uav17"
    assert "as given" in capsys.readouterr().out


def test_a_name_of_other_joints_is_refused_with_both_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("USDRL_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(original("recognition_dste_uav17")), "--name", "usdrl/ntu60-xsub"])
    said = "its 34 spatial tokens are 17 joints of 2 people, and layout 'ntu25' has 25: it is another checkpoint"
    assert caught.value.code == 2 and said in capsys.readouterr().err and not list(tmp_path.rglob("config.json"))


def test_choices_that_the_file_does_not_hold_are_kept(tmp_path):
    options = ["--num-attention-heads", "4", "--alpha", "0.3", "--shift-gap", "2", "--task", "detection"]
    folder = converted("detection_dste_ntu25", tmp_path / "model", *options)
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_attention_heads"], config["alpha"], config["shift_gap"]) == (4, 0.3, 2)
    assert config["architectures"] == ["USDRLForActionDetection"]


def test_keys_may_lack_the_prefix_and_optimizer(tmp_path):
    state = torch.load(original("recognition_sttr_ntu25"), weights_only=True)["state_dict"]
    torch.save({"state_dict": {key.removeprefix("module."): t for key, t in state.items()}}, tmp_path / "plain.pth")
    assert isinstance(convert_checkpoint(tmp_path / "plain.pth"), USDRLForActionRecognition)


def changed(tmp_path, name="recognition_dste_ntu25", **changes):
    """A checkpoint with entries replaced (or, by None, removed); '__' stands for '.'."""
    checkpoint = torch.load(original(name), weights_only=True)
    for key, value in changes.items():
        key = "module." + key.replace("__", ".")
        if value is None:
            del checkpoint["state_dict"][key]
        else:
            checkpoint["state_dict"][key] = value
    path = tmp_path / "changed.pth.tar"
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"backbone__t_tr__CA__norm1__weight": None}, "tensor 'backbone.t_tr.CA.norm1.weight' is missing"),
        ({"backbone__spe": None}, "tensor 'backbone.spe' is missing"),
        ({"backbone__surprise": torch.ones(2)}, "tensor 'backbone.surprise' is unknown"),
        ({"backbone__s_tr__DSA__wt1__weight": torch.ones(3, 3)}, r"'backbone.s_tr.DSA.wt1.weight' has shape \(3, 3\)"),
        ({"backbone__t_tr__CA__conv1__weight": torch.ones(32, 32, 3)}, "kernel of 3"),
        ({"backbone__t_tr__DSA__attn__in_proj_bias": torch.ones(96)}, "differs from the attention that it shares"),
        ({"fc__bias": torch.full((60,), torch.nan)}, "'fc.bias' holds NaN"),
        ({"backbone__tpe__pe": torch.zeros(1, 200, 32)}, "not the sinusoid"),
        ({"backbone__spe": torch.ones(50, 32)}, "'backbone.spe' has shape"),
        ({"fc__weight": None}, "tensor 'fc.weight' is missing"),
        ({"t_proj__0__weight": torch.ones(64, 32)}, "is missing"),
        ({"fc__bias": torch.ones(60).to_sparse()}, "'fc.bias' is torch.float32, torch.sparse_coo"),
        ({"fc__bias": torch.ones(60, dtype=torch.complex64)}, "'fc.bias' is torch.complex64"),
        ({"fc__bias": torch.ones(60, dtype=torch.int64)}, "'fc.bias' is torch.int64"),
        ({"fc__bias": torch.full((60,), 1e300, dtype=torch.float64)}, "'fc.bias' holds NaN or infinity"),
        ({"fc__bias": torch.ones(1).expand(60)}, "'fc.bias' is torch.float32"),
        ({"module__fc__bias": torch.ones(60)}, "'module.fc.bias' is unknown"),
    ],
)
def test_a_file_that_is_not_such_a_checkpoint_is_refused_by_key(tmp_path, capsys, changes, message):
    path = changed(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(path)
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(path), "--output-dir", str(tmp_path / "out")])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(path) in error
    assert not (tmp_path / "out").exists() and sorted(os.listdir(tmp_path)) == ["changed.pth.tar"]


def test_a_changed_byte_is_noticed(tmp_path):
    content = bytearray(original("recognition_sttr_ntu25").read_bytes())
    with zipfile.ZipFile(original("recognition_sttr_ntu25")) as archive:
        record = max(archive.infolist(), key=lambda info: info.file_size)
    content[record.header_offset + record.file_size // 2 + 200] ^= 1
    (tmp_path / "changed.pth.tar").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or of another format"):
        convert_checkpoint(tmp_path / "changed.pth.tar")


def test_models_without_a_layout_go_there_and_back(tmp_path):
    folder = converted("recognition_sttr_ntu25", tmp_path / "model", "--num-persons", "1", "--include-code")
    assert not (folder / "preprocessor_config.json").exists() and (folder / "modeling_usdrl.py").is_file()
    main_exits_cleanly(["convert", str(folder), "--output-dir", str(tmp_path / "back"), "--to-original"])


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9])
def test_a_cut_file_is_refused(tmp_path, kept):
    content = original("recognition_sttr_ntu25").read_bytes()
    path = tmp_path / "cut.pth.tar"
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(CheckpointError, match="cut.pth.tar"):
        convert_checkpoint(path)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "zip or not")


def zip_with_a_name_that_is_no_text(path):
    """Found by `make fuzz`: the entry claims to be UTF-8, and is not."""
    torch.save({"state_dict": {"a": torch.ones(2)}}, path)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 9] |= 0x08
    content[entry + 46] = 0xFF
    path.write_bytes(bytes(content))


def old_form(path, size=None):
    torch.save({"state_dict": {"a": torch.ones(2)}}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:size])


OBJECTS, CUT = "Python objects other than tensors", "damaged or of another format"


@pytest.mark.parametrize(
    "write, message",
    [
        (other_zip, "a zip file, but not one of PyTorch"),
        (zip_with_a_name_that_is_no_text, CUT),
        (lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path), "TorchScript"),
        (lambda path: torch.save({"state_dict": {"zip": Path("x")}}, path), OBJECTS),
        (lambda path: path.write_bytes(pickle.dumps({"state_dict": Path("zip")})), OBJECTS),
        (lambda path: path.write_bytes(pickle.dumps({"state_dict": Path("zip")})[:-5]), CUT),
        (lambda path: old_form(path, -5), CUT),
        (lambda path: old_form(path, 60), CUT),
        (lambda path: path.write_bytes(bytes(1000)), CUT),
        (lambda path: path.write_bytes(b"weights_only Unsupported unsafe zip"), CUT),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_is_no_checkpoint_is_told_by_its_content(tmp_path, write, message):
    """faults.md 27: it was told by words in torch's messages, such as "zip"."""
    write(tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=f"^[^\n]*file.pth: cannot be read as a checkpoint: [^\n]*{message}"):
        convert_checkpoint(tmp_path / "file.pth")


FULL_DISK = """
import resource, sys
from usdrl_hub.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="the system has no such limit")
@pytest.mark.parametrize("direction", ["there", pytest.param("back", marks=pytest.mark.slow)])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, direction):
    """faults.md 27: `convert --to-original` ended with a traceback, and no name of a file."""
    out = tmp_path / "out"
    back = ["usdrl/tiny-uiprmd", "--to-original"]
    arguments = back if direction == "back" else [original("recognition_dste_ntu25")]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "convert", *arguments, "--output-dir", out],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("usdrl: ") and str(out) in told and os.strerror(errno.EFBIG) in told, done.stderr
    assert not list(tmp_path.iterdir())


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [True, False])
def test_code_in_a_checkpoint_never_runs(tmp_path, legacy):
    marker, path = tmp_path / "ran", tmp_path / "evil.pth.tar"
    if legacy:
        path.write_bytes(pickle.dumps({"state_dict": Payload(marker)}))
    else:
        torch.save({"state_dict": Payload(marker)}, path)
        assert zipfile.is_zipfile(path)
    with pytest.raises(CheckpointError, match="never run|cannot be read"):
        convert_checkpoint(path)
    assert not marker.exists()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        convert_checkpoint(tmp_path / "absent.pth")
    torch.save({"weights": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="'weights' is unknown|missing"):
        convert_checkpoint(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no 'state_dict'"):
        convert_checkpoint(tmp_path / "list.pth")
    with pytest.raises(ValueError, match="task must be"):
        convert_checkpoint(original("recognition_sttr_ntu25"), task="segmentation")


def test_an_existing_folder_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(original("recognition_sttr_ntu25")), "--output-dir", str(tmp_path / "out")])
    assert caught.value.code == 2 and "not an empty folder" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == ["mine.txt"]


def test_models_made_here_go_to_the_original_form_and_back(tmp_path):
    from .helpers import clips, tiny_config

    for encoder in ("dste", "sttr"):
        model = USDRLForPreTraining(tiny_config(encoder=encoder, num_hidden_layers=3)).eval()
        path = save_original(model, tmp_path / f"{encoder}.pth.tar")
        read = convert_checkpoint(path, num_persons=1, layout=model.config.layout)
        keypoints = clips(model.config)
        assert torch.equal(read(keypoints).instance_projection, model(keypoints).instance_projection)
        assert set(original_state_dict(read)) == set(original_state_dict(model))
