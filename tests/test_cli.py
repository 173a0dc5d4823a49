import json
import os
import re
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
import torch
from typer.main import get_command

import usdrl_hub
from usdrl_hub import extract_embeddings, extract_frame_embeddings, open_data
from usdrl_hub.cli.app import app
from usdrl_hub.data.readers import SUFFIXES, iter_skeletons
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.errors import notice
from usdrl_hub.facts.checkpoints import list_models
from usdrl_hub.layouts import NORMALIZATIONS

from .conftest import GOLDENS, write_ntu
from .helpers import run


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "walk.npy"
    np.save(path, np.random.randn(40, 25, 3))
    return path


def test_predict_prints_a_table_that_names_model_and_labels(capsys, recording, tmp_path):
    skeleton = write_ntu(tmp_path / "S001C001P001R001A001.skeleton", np.random.randn(9, 1, 25, 3).astype(np.float32))
    code, out, err = run(capsys, "predict", recording, skeleton, "--top-k", 3, "--threshold", 0)
    # These joints are at random, and so larger than any body.
    assert code == 0 and f"usdrl: note: {recording}: people are 8" in err and "(implausible bodies)" in err
    assert all(line.startswith("usdrl: note: ") for line in err.splitlines())
    assert "model usdrl/tiny-uiprmd, 10 classes: deep squat, " in out
    lines = out.splitlines()
    assert lines[2].split() == ["file", "1.", "2.", "3."] and lines[4].startswith("walk ")
    assert lines[5].startswith("S001C001P001R001A001 ") and lines[4].count("%") == 3


def test_predict_prints_json(capsys):
    code, out, _ = run(capsys, "predict", sample_path(), "--json", "--top-k", 2)
    answer = json.loads(out)
    assert code == 0 and answer["model"] == "usdrl/tiny-uiprmd" and len(answer["labels"]) == 10
    assert [row["name"] for row in answer["predictions"]] == [sequence.name for sequence in load_samples()]
    assert all(len(row["top"]) == 2 and row["top"][0]["label"] in answer["labels"] for row in answer["predictions"])


EXTRACT = {"clip": extract_embeddings, "frame": extract_frame_embeddings}


@pytest.mark.parametrize("level", EXTRACT)
def test_embed_writes_names_and_embeddings(capsys, tmp_path, level):
    for number, frames in enumerate((30, 90, 64)):
        np.save(tmp_path / f"r{number}.npy", np.random.randn(frames, 25, 3))
    output = tmp_path / "new" / "out.npz"
    for _ in range(2):  # a second run does not take the first one's result for a recording
        code, out, _ = run(capsys, "embed", tmp_path, "--output", output, "--level", level, "--batch-size", 2)
    assert code == 0 and "embeddings of 3 recordings by usdrl/mocap-tiny" in out
    expected = EXTRACT[level]([tmp_path / f"r{number}.npy" for number in range(3)], batch_size=2)
    with np.load(output) as file:
        assert file["names"].tolist() == ["r0", "r1", "r2"]
        if level == "frame":
            assert file["offsets"].tolist() == [0, 30, 120, 184]
            expected = np.concatenate(expected)
        np.testing.assert_allclose(file["embeddings"], expected, rtol=1e-5, atol=1e-6)
    assert os.listdir(tmp_path / "new") == ["out.npz"]


def test_a_folder_with_bad_files_gives_the_good_ones_and_status_2(capsys, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "a.npy", np.ones((4, 25, 3)))
    np.save(folder / "b.npy", np.full((4, 25, 3), np.nan))
    (folder / "c.skeleton").write_text("2\n1\n")
    np.save(folder / "d.npy", np.ones((4, 25, 2)))
    np.save(folder / "e.npy", np.random.randn(4, 25, 3))
    code, _, err = run(capsys, "embed", folder, "--output", tmp_path / "out.npz")
    assert code == 2
    told = [line for line in err.splitlines() if re.match("usdrl: (?!note: )", line)]
    assert len(told) == 3 and all(name in line for name, line in zip("bcd", told, strict=True))
    with np.load(tmp_path / "out.npz") as file:
        assert file["names"].tolist() == ["a", "e"]
    code, out, err = run(capsys, "predict", folder / "a.npy", folder / "b.npy", "--json")
    assert code == 2 and len(json.loads(out)["predictions"]) == 1 and "b.npy" in err


def test_list_and_convert_and_finetune_say_what_they_did(capsys, tmp_path):
    code, out, _ = run(capsys, "list")
    assert code == 0 and "usdrl/tiny-uiprmd" in out and "ntu25" in out
    assert json.loads(run(capsys, "list", "--json")[1])[0]["num_labels"] == 10
    with np.load(sample_path()) as file:
        arrays = dict(file)
    arrays["subjects"] = arrays["subjects"] // 2
    np.savez(tmp_path / "data.npz", **arrays)
    options = ["--output-dir", tmp_path / "my model", "--linear-probe"]
    code, out, _ = run(capsys, "finetune", tmp_path / "data.npz", *options)
    assert code == 0 and "linear recognition, trained on 60 clips" in out and "on 40 test clips" in out
    # As a shell wants it.
    assert f"use it: usdrl predict FILE --model '{tmp_path / 'my model'}'\n" in out
    code, out, _ = run(capsys, "predict", sample_path(), "--model", tmp_path / "my model")
    assert code == 0 and f"model {tmp_path / 'my model'}" in out


def test_a_table_of_predictions_fits_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, wide, _ = run(capsys, "predict", sample_path())
    rows = wide.partition("\n\n")[2].splitlines()
    assert max(map(len, rows)) > 150 and rows[0].split()[-1] == "5."
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    main_code, narrow, _ = run(capsys, "predict", sample_path())
    table, _, note = narrow.partition("\n\n")[2].partition("\n\n")
    assert main_code == 0 and max(map(len, table.splitlines())) <= 80
    assert table.splitlines()[0].split() == ["file", "1.", "2."]
    assert note == "2 of 5 classes fit this terminal: --json prints all\n"
    assert re.search(r"^m01_s02_e05 +93\.7 % deep squat", table, flags=re.MULTILINE)


def test_a_demo_into_a_file_is_refused_before_it_computes(capsys, tmp_path):
    (tmp_path / "demo").write_text("a file")
    code, out, err = run(capsys, "demo", "--output-dir", tmp_path / "demo")
    assert (code, out, err) == (2, "", f"usdrl: {tmp_path / 'demo'}: it is a file: name a folder\n")


def test_preparing_without_the_kind_of_the_data_says_how(capsys, tmp_path):
    (tmp_path / "recordings").mkdir()
    code, _, err = run(capsys, "prepare", tmp_path / "recordings", "--output-dir", tmp_path / "store")
    assert code == 2 and "name the kind of the data and the data, such as 'usdrl prepare folder DATA'" in err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "kind, name, sentence",
    [
        ("csv", "folder", "it is a folder: take the kind 'folder'"),
        ("file", "folder", "it is a folder: take the kind 'folder'"),
        ("folder", "list.csv", "it is a file: take the kind 'file', or 'csv' for a table"),
        ("folder", "absent", "there is no such folder"),
        ("csv", "absent", "there is no such file"),
    ],
)
def test_preparing_another_kind_of_data_says_which(capsys, tmp_path, kind, name, sentence):
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.csv").write_text("file,label")
    code, _, err = run(capsys, "prepare", kind, tmp_path / name, "--output-dir", tmp_path / "store")
    assert code == 2 and err == f"usdrl: {tmp_path / name}: {sentence}\n"


def test_demo_writes_a_page_embeddings_a_picture_and_recordings(capsys, tmp_path):
    code, out, _ = run(capsys, "demo", "--output-dir", tmp_path / "demo")
    assert code == 0 and "truth" in out and " of 100 clips right" in out
    files = ["embeddings.npz", "nearest.png", "prediction.html", "recordings", "uiprmd-samples.npz"]
    assert sorted(os.listdir(tmp_path / "demo")) == files
    assert (tmp_path / "demo" / "nearest.png").read_bytes()[:4] == b"\x89PNG"
    assert out.endswith(f"open in a browser: {tmp_path / 'demo' / 'prediction.html'}\n")
    page = (tmp_path / "demo" / "prediction.html").read_text("utf-8")
    assert "deep squat" in page and "m01_s02_e05" in page
    recordings = sorted((tmp_path / "demo" / "recordings").rglob("*.npz"))
    assert [path.parent.name for path in recordings] == ["lunge"] * 5 + ["raise"] * 5 + ["squat"] * 5
    [clip] = iter_skeletons(recordings[-1])
    assert (clip.name, clip.layout.name, clip.label, clip.units) == ("m01_s10_e05", "ui-prmd39", None, "m")
    # Movements of a person, by another sensor, whom the encoder never saw.
    right, asked = re.search(r"(\d+) of (\d+) nearest clips show the same movement", out).groups()
    assert int(asked) == 10 and int(right) >= 7
    with np.load(tmp_path / "demo" / "embeddings.npz") as file:
        assert file["embeddings"].shape == (100, 160) and len(file["names"]) == 100


def test_env_says_what_an_issue_needs_and_nothing_private(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("USDRL_HOME", str(tmp_path))
    code, out, _ = run(capsys, "env")
    assert code == 0 and out.startswith(f"usdrl-hub {usdrl_hub.__version__}")
    assert f"torch             {torch.__version__}" in out and "USDRL_HOME" in out
    assert str(tmp_path) not in out and os.path.expanduser("~") not in out
    facts = json.loads(run(capsys, "env", "--json")[1])
    assert set(facts["extras"]) >= {"datasets", "map", "onnx", "video"}
    assert facts["extras"]["map"] == {"scikit-learn": version("scikit-learn")}
    # The films' pose estimator has a notice of its own, which is shown to those who can use it.
    assert any("MediaPipe Authors" in line for line in facts["licences"])


def test_env_names_the_packages_that_an_extra_lacks(capsys, monkeypatch):
    def without_av(name):
        if name == "av":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("usdrl_hub.cli.environment.version", without_av)
    code, out, _ = run(capsys, "env")
    assert code == 0 and "needs av: pip install 'usdrl-hub[video]'" in out and "MediaPipe" not in out


def write_bytes(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    "name, write, message",
    [
        ("empty.skeleton", write_bytes(b""), "the file is empty"),
        ("cut.skeleton", write_bytes(b"3\n1\n"), "line 2: the file ends"),
        ("joints.npy", lambda path: np.save(path, np.ones((4, 24, 3))), "is not a skeleton of layout 'ntu25'"),
        ("nan.npy", lambda path: np.save(path, np.full((4, 25, 3), np.nan)), "NaN or infinite"),
        ("frames.npy", lambda path: np.save(path, np.ones((0, 25, 3))), "no frames"),
        ("nobody.npy", lambda path: np.save(path, np.zeros((4, 25, 3))), "every person is empty"),
        ("flat.npy", lambda path: np.save(path, np.ones((4, 25, 2))), "2D"),
        ("objects.npy", lambda path: np.save(path, np.array([None]), allow_pickle=True), "Python objects"),
        ("film.mp4", write_bytes(b"film"), "it cannot be read as a video"),
    ],
)
def test_wrong_files_end_in_one_sentence_and_status_2(capsys, tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    for command in (["predict", path], ["embed", path, "--output", tmp_path / "out.npz"]):
        code, _, err = run(capsys, *command)
        first = err.splitlines()[0]
        assert code == 2 and message in first and (name in first or path.stem in first)
        assert "Traceback" not in err
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    "command, message",
    [
        (["predict", "{file}", "--model", "usdrl/nothing"], "model 'usdrl/nothing' was not found"),
        (["predict", "{file}", "--model", "{file}"], "is a file, not a model folder"),
        (["predict", "{file}", "--model", "{folder}"], "there is no config.json in the folder"),
        (["predict", "{file}", "--device", "tpu9"], "device 'tpu9' is not available"),
        (["predict", "{file}", "--dtype", "float8"], "unknown dtype"),
        (["predict", "{file}", "--layout", "coco18"], "unknown layout 'coco18'"),
        (["predict", "{folder}/absent.npy"], "there is no such file"),
        (["predict", "{file}", "--axes", "CTVM"], "axes CTVM need 4 axes"),
        (["embed", "{file}", "--output", "{folder}/out.csv"], "written as .npz"),
        (["embed", "{folder}", "--output", "{folder}/out.npz"], "there is no .skeleton, .npy, .npz"),
        (["embed", "{file}", "--output", "{file}/out.npz"], "cannot be written"),
        (["embed", "{file}", "--output", "{folder}/out.npz", "--level", "video"], "level must be"),
        (["finetune", "{file}", "--output-dir", "{folder}/new"], "is a single array, not a .npz archive"),
        (["finetune", "{data}", "--output-dir", "{folder}/new", "--hidden-size", "8"], "add --from-scratch"),
        (["finetune", "{data}", "--output-dir", "{file}"], "exists already"),
        (["convert", "{file}", "--output-dir", "{folder}/new"], "cannot be read as a checkpoint"),
        (
            ["convert", "{golden}", "--output-dir", "{folder}/new", "--modality", "foo"],
            "modality must be joint, bone, motion, or different ones",
        ),
        (["predict", "{file}", "--device", "meta"], "device 'meta' is not available"),
        (["convert", "{folder}/absent.pth", "--output-dir", "{folder}/new"], "no such checkpoint file"),
    ],
)
def test_wrong_arguments_end_in_one_sentence_and_status_2(capsys, tmp_path, recording, command, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    golden = GOLDENS / "recognition_sttr_ntu25.pth.tar"
    places = {"file": recording, "folder": folder, "data": sample_path(), "golden": golden}
    code, out, err = run(capsys, *(part.format(**places) for part in command))
    out = out if command[0] != "predict" or "--model" in command else ""
    assert code == 2 and message in err and err.startswith("usdrl: ") and err.count("\n") == 1 and not out
    assert os.listdir(folder) == []


def test_an_unwritten_output_does_not_replace_an_older_one(capsys, tmp_path):
    np.save(tmp_path / "bad.npy", np.full((4, 25, 3), np.nan))
    (tmp_path / "out.npz").write_text("older")
    code, _, _ = run(capsys, "embed", tmp_path / "bad.npy", "--output", tmp_path / "out.npz")
    assert code == 2 and (tmp_path / "out.npz").read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["bad.npy", "out.npz"]


def test_the_installed_command_runs():
    command = os.path.join(os.path.dirname(sys.executable), "usdrl")
    done = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "finetune" in done.stdout
    assert subprocess.run([command, "predict"], capture_output=True).returncode == 2


def test_notices_are_told_once_per_kind_and_counted(capsys, monkeypatch, recording):
    """issue 17: what the package warns of reaches the user of the command, and does not drown the rest."""

    def told(*arguments, **choices):
        for number in range(4):
            notice(f"file {number}: \x1b[31m3 of 5 people are left out; --per-person keeps all", "people left out")
        notice("the layout is guessed")
        notice("the layout is guessed")
        return iter(())

    monkeypatch.setattr("usdrl_hub.inference.prediction.iter_predictions", told)
    with warnings.catch_warnings(record=True) as others:
        code, _, err = run(capsys, "predict", recording)
    assert code == 0 and not others
    assert [line for line in err.splitlines() if line] == [
        "usdrl: note: file 0: \\x1b[31m3 of 5 people are left out; --per-person keeps all",
        "usdrl: note: the layout is guessed",
        "usdrl: note: 3 more like it (people left out)",
    ]


def test_a_doubt_about_a_body_reaches_the_user_of_the_command(capsys, tmp_path):
    """issue 17, faults.md 18: a skeleton in millimetres is doubted, also where the same was said before."""
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", 1000 * load_samples()[number].to_layout("ntu25").keypoints)
    for _ in range(2):
        code, _, err = run(capsys, "predict", tmp_path, "--batch-size", 1)
        # The first file's doubt, and how many more like it: of the readers, and of the extractor for each batch.
        assert code == 0 and err.count("usdrl: note: ") == 2 and err.count("units='mm'") == 1
        assert err.startswith(f"usdrl: note: {tmp_path / '0.npy'}: people are 1.86e+03 m tall")


@pytest.mark.parametrize(
    "command, option",
    [
        (
            "predict X --fps 30 --threshold 7",
            "--fps has no effect without --timeline: add --timeline, or leave it out",
        ),
        ("predict X --output a.csv", "--output has no effect without --timeline"),
        ("predict X --top-k 5 --timeline", "--top-k has no effect with --timeline"),
        ("predict X --person-threshold 0.5", "--person-threshold has no effect on a file that is not a video"),
        ("predict X --per-person --choose-by size", "--choose-by has no effect with --per-person"),
        ("embed X --output a.npz --per-person --choose-by size", "--choose-by has no effect with --per-person"),
        ("render X --output a.html --choose-by nonsense --top-k 9", "--choose-by has no effect without --model"),
        (
            "render X --output a.html --model usdrl/tiny-uiprmd --top-k 5",
            "--top-k has no effect without --gallery",
        ),
        ("render X --output a.html --gallery X", "--gallery has no effect without --model"),
        ("render X --output a.html --threshold 0.3", "--threshold has no effect without --model"),
        ("render X --output a.html --dtype float32", "--dtype has no effect without --model"),
        ("render X --output a.html --batch-size 4", "--batch-size has no effect without --model"),
        ("render X --output a.html --device cpu", "--device has no effect without --model"),
        ("render X --output a.html --pose-model a", "--pose-model has no effect on a file that is not a video"),
        ("render a.mp4 --output a.html --pose-model a --detector a --fps 9", "--fps has no effect on a video"),
        ("finetune X --output-dir m --hidden-size 8", "--hidden-size has no effect without --from-scratch"),
        ("finetune X --output-dir m --linear-probe --epochs 3", "--epochs has no effect with --linear-probe"),
        ("finetune X --output-dir m --normalization ntu", "--normalization has no effect without --from-scratch"),
        ("finetune X --output-dir m --from-scratch --model m", "--model has no effect with --from-scratch"),
        ("pretrain X --output-dir m --max-steps 1 --epochs 2", "--epochs has no effect with --max-steps"),
        ("pretrain X --output-dir m --workers 1", "--workers has no effect without --no-in-memory"),
        ("pretrain X --output-dir m --probe-epochs 1", "--probe-epochs has no effect without --probe"),
        ("evaluate --repeat m.json --seed 0", "--seed has no effect with --repeat"),
        ("evaluate m --repeat m.json", "MODEL has no effect with --repeat"),
        ("evaluate m --benchmark b --tiny --fold 1", "--fold has no effect with --tiny"),
        ("convert X --output-dir m --to-original --alpha 0.5", "--alpha has no effect with --to-original"),
        ("prepare folder X --output-dir m --split-file X", "--split-file has no effect on data other than PKU-MMD's"),
        ("prepare pku1 X --output-dir m --split-file X", "--split-file has no effect without --protocol"),
        ("predict X --fps 30", "--fps has no effect without --timeline"),
        ("embed X --output a.npz --fps 30", "--fps has no effect on an embedding"),
        ("embed X --output a.npz --workers 2", "--workers has no effect on a single file or a store"),
        ("map X --output a.html --fps 30", "--fps has no effect on an embedding"),
        ("check X --units mm", "--units has no effect on whether a file can be read"),
        ("predict a.skeleton --layout ntu25", "--layout has no effect on a file that says its layout"),
        ("predict a.csv --axes TVC", "--axes has no effect on a file that is not an array"),
        ("predict a.mp4 b.avi --up z --pose-model a --detector a", "--up has no effect on a video"),
        ("prepare ntu60 . --output-dir m --layout ntu25", "--layout has no effect on a data set whose layout is"),
        ("prepare pku1 . --output-dir m --image-size 9x9", "--image-size has no effect on a data set whose layout"),
        ("push X a/b --namespace c", "--namespace has no effect on a name that has an owner"),
    ],
)
def test_options_without_effect_are_refused_by_name(capsys, recording, tmp_path, monkeypatch, command, option):
    """faults.md 16: whoever gives an option expects an effect, also where it is the default that is given."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *command.replace("X", recording.name).split())
    assert (
        code == 2
        and out == ""
        and option in err
        and err.startswith("usdrl: --" if option[0] != "M" else "usdrl: M")
        and os.listdir(tmp_path) == [recording.name]
    )


@pytest.mark.parametrize(
    "command",
    [
        *(f"predict X --timeline --fps {value}" for value in ("0", "-1", "nan", "inf")),
        *(f"render X --output a.html --fps {value}" for value in ("0", "-1", "nan", "inf")),
        *(f"prepare folder . --output-dir m --fps {value}" for value in ("0", "-1", "nan", "inf")),
        *(f"finetune Y --output-dir m --epochs {value}" for value in ("0", "-1", "nan", "inf")),
        *(f"pretrain Y --output-dir m --learning-rate {value}" for value in ("0", "-1", "nan", "inf")),
        "predict X --top-k 0",
        "predict X --layout nonsense",
        "predict X --axes nonsense",
        "embed X --output a.npz --axes nonsense",
        "map X --output a.html --up nonsense",
        "render X --output a.html --units nonsense",
        "check X --missing nonsense",
        "prepare folder . --output-dir m --choose-by nonsense",
        "predict X --image-size 1920",
        "map X --output a.html --max-recordings 1",
    ],
)
def test_numbers_and_names_out_of_range_are_refused(capsys, recording, tmp_path, monkeypatch, command):
    """faults.md 16."""
    monkeypatch.chdir(tmp_path)
    words = command.replace("X", recording.name).replace("Y", str(sample_path())).split()
    code, out, err = run(capsys, *words)
    assert code == 2 and out == "" and os.listdir(tmp_path) == [recording.name]
    assert "Traceback" not in err and (words[-1] in err or words[-2] in err or "positive" in err)


@pytest.mark.parametrize("size, expected", [("1920x1080", (1080, 1920)), ("1080x1920", (1920, 1080))])
def test_image_size_is_width_and_height_and_image_shape_the_other_way_round(capsys, tmp_path, size, expected):
    """In landscape and in portrait."""
    (tmp_path / "raw" / "wave").mkdir(parents=True)
    np.save(tmp_path / "raw" / "wave" / "a.npy", np.random.rand(9, 17, 2) * (int(size.split("x")[0]), 1))
    words = ["--layout", "coco17", "--image-size", size, "--fps", 30, "--output-dir", tmp_path / "store"]
    code, _, err = run(capsys, "prepare", "folder", tmp_path / "raw", *words)
    assert code == 0, err
    [sequence] = open_data(tmp_path / "store")
    assert (sequence.image_shape, sequence.fps) == (expected, 30)


def test_every_command_that_reads_has_the_same_options():
    wanted = {"layout", "axes", "fps", "up", "units", "image_size", "missing"}
    commands = get_command(app).commands
    for name in ("predict", "embed", "render", "map", "prepare", "check"):
        assert wanted <= {option.name for option in commands[name].params}, name
    for name in ("predict", "embed", "render", "map", "prepare"):
        assert {"choose_by", "relink"} <= {option.name for option in commands[name].params}, name


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_layout_that_does_not_fit_a_pose_file_is_refused(capsys, tmp_path, more):
    """It was a note, and the file was read as another layout."""
    path = tmp_path / "pose.json"
    path.write_text(json.dumps([{"image_id": n, "keypoints": [1.0, 2.0, 0.9] * 17} for n in range(4)]))
    code, out, err = run(capsys, "predict", path, "--layout", "openpose18", *more)
    assert code == 2 and out == ""
    assert "has 17 2D joints, but layout 'openpose18' has 18 2D joints: leave the layout out for 'coco17'" in err


def test_units_and_up_of_the_command_line_reach_the_model(capsys, tmp_path):
    clip = load_samples()[0].to_layout("ntu25").keypoints
    np.save(tmp_path / "metres.npy", clip)
    np.save(tmp_path / "other.npy", clip[..., [0, 2, 1]] * np.array([1000, -1000, 1000], np.float32))
    code, plain, _ = run(capsys, "predict", tmp_path / "metres.npy", "--json")
    assert code == 0
    code, turned, err = run(capsys, "predict", tmp_path / "other.npy", "--json", "--up", "z", "--units", "mm")
    assert code == 0 and err == ""
    [first], [second] = (json.loads(text)["predictions"] for text in (plain, turned))
    assert [row["label"] for row in first["top"]] == [row["label"] for row in second["top"]]
    assert first["top"][0]["probability"] == pytest.approx(second["top"][0]["probability"], abs=1e-4)


def test_a_table_without_rows_is_not_printed(capsys, tmp_path):
    """faults.md, words that mislead: an empty table after a refused predict."""
    for more in ([], ["--timeline"]):
        code, out, err = run(capsys, "predict", tmp_path / "absent.npy", *more)
        assert code == 2 and out == "" and err == f"usdrl: {tmp_path / 'absent.npy'}: there is no such file\n"


def test_help_lists_what_there_is(capsys, monkeypatch):
    """faults.md, words that mislead: help texts that list 3 of 6 endings and 4 of 6 normalisations, and the README."""
    # Wide enough that no word is broken, whatever typer draws around it.
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("TERMINAL_WIDTH", "1000")
    words = {
        name: run(capsys, name, "--help")[1].replace("│", " ").split() for name in ("predict", "embed", "finetune")
    }
    for name in ("predict", "embed"):
        assert all(f"{suffix}" in " ".join(words[name]).replace("(", "").replace(")", "") for suffix in SUFFIXES)
    told = " ".join(words["finetune"])
    assert all(name in told for name in NORMALIZATIONS) and "README" not in told
    assert "in the README" not in run(capsys, "benchmarks", "--json")[1]


def test_a_recording_is_no_data_set_to_train_on(capsys, tmp_path):
    """faults.md, words that mislead: "it is cut" for a BVH given to finetune."""
    (tmp_path / "walk.bvh").write_text("HIERARCHY\n")
    code, _, err = run(capsys, "finetune", tmp_path / "walk.bvh", "--output-dir", tmp_path / "model")
    assert code == 2 and "it is not a data set" in err and "usdrl prepare" in err and "cut" not in err


HOSTILE = "\x1b[2J\x07a\nb\u202e"


def test_names_cannot_move_the_cursor(capsys, tmp_path, monkeypatch):
    """faults.md 28: names of files and people with ESC, BEL, newline and bidirectional marks are escaped."""
    np.save(tmp_path / f"{HOSTILE}.npy", load_samples()[0].to_layout("ntu25").keypoints)
    np.save(tmp_path / f"{HOSTILE}2.npy", np.full((4, 25, 3), np.nan))
    for more in ([], ["--timeline"], ["--json"]):
        code, out, err = run(capsys, "predict", tmp_path, *more)
        assert code == 2 and (more == ["--json"] or "\\x1b[2J\\x07a\\nb\\u202e" in out)
        assert all(line.isprintable() for line in [*out.splitlines(), *err.splitlines()])
        assert all(line.startswith("usdrl: ") for line in err.splitlines())
        if more == ["--json"]:
            assert json.loads(out)["predictions"][0]["name"] == HOSTILE


def test_version_is_known(capsys):
    """faults.md 39."""
    code, out, err = run(capsys, "--version")
    assert code == 0 and re.fullmatch(r"usdrl \d+\.\d+.*\n", out) and not err


def test_list_shows_what_can_be_loaded_first_and_says_how_many_more(capsys):
    """faults.md 39: 121 names of which 3 exist."""
    here = [info.name for info in list_models()]
    code, out, _ = run(capsys, "list")
    lines = out.splitlines()
    assert code == 0 and [line.split()[0] for line in lines[2 : 2 + len(here)]] == here
    assert (
        lines[-1].startswith(f"{len(list_models(pretrained=False)) - len(here)} more ")
        and "usdrl list --all" in lines[-1]
    )
    assert len(run(capsys, "list", "--all")[1].splitlines()) == 2 + len(list_models(pretrained=False))


@pytest.mark.parametrize(
    "error, words",
    [
        (MemoryError("Unable to allocate 4 TiB"), "--batch-size"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator"), "--batch-size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "--batch-size"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    ],
)
def test_what_a_machine_cannot_do_is_told_in_one_sentence(capsys, recording, monkeypatch, error, words):
    """issue 17: no traceback where memory or the stack ends."""

    def fail(*arguments, **choices):
        raise error

    monkeypatch.setattr("usdrl_hub.inference.prediction.iter_predictions", fail)
    code, out, err = run(capsys, "predict", recording)
    assert code == 2 and not out and err.startswith("usdrl: ") and words in err and err.count("\n") == 1


def test_a_reader_that_has_enough_ends_the_command_quietly():
    code = "import sys; from usdrl_hub.cli import main; sys.stdin.readline(); main(['benchmarks'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _, err = process.communicate(b"\n")
    assert b"Traceback" not in err and b"BrokenPipe" not in err


@pytest.mark.parametrize(
    "error, told",
    [
        (lambda path: PermissionError(13, "Permission denied", str(path)), "Permission denied"),
        (lambda path: ValueError("Exceeds the limit (4300 digits) for integer string conversion"), "4300 digits"),
        (lambda path: RecursionError("maximum recursion depth exceeded"), "recursion"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "embed", "map", "prepare"])
def test_whatever_is_wrong_with_one_file_the_others_go_on(capsys, tmp_path, monkeypatch, command, error, told):
    """faults.md 27: that file is told, the others go on, and the exit status is 2."""
    folder = tmp_path / "folder" / "class"
    folder.mkdir(parents=True)
    for number in range(4):
        np.save(folder / f"r{number}.npy", load_samples()[number].to_layout("ntu25").keypoints)

    def read(path, *arguments, **choices):
        if path.stem == "r1":
            raise error(path)
        return iter_skeletons(path, *arguments, **choices)

    monkeypatch.setattr("usdrl_hub.inference.source.iter_skeletons", read)
    monkeypatch.setattr("usdrl_hub.data.prepare.iter_skeletons", read)
    words = {
        "predict": ["predict", folder, "--json"],
        "embed": ["embed", folder, "--output", tmp_path / "out.npz"],
        "map": ["map", folder, "--output", tmp_path / "out.html"],
        "prepare": ["prepare", "folder", folder.parent, "--output-dir", tmp_path / "store"],
    }
    code, out, err = run(capsys, *words[command])
    [line] = [line for line in err.splitlines() if line.startswith("usdrl: ") and ": note: " not in line]
    assert code == 2 and "r1.npy" in line and told in line and "Traceback" not in err
    if command == "predict":
        assert [row["name"] for row in json.loads(out)["predictions"]] == ["r0", "r2", "r3"]
    else:
        assert " 3 " in out


@pytest.mark.parametrize(
    "command, option, word, expected",
    [
        ("predict", "layout", "ntu", "ntu25"),
        ("prepare", "layout", "kin", "kinect20"),
        ("embed", "model", "usdrl/ti", "usdrl/tiny-uiprmd"),
        ("evaluate", "model", "usdrl/mo", "usdrl/mocap-tiny"),
        ("pretrain", "recipe", "mocap-t", "mocap-tiny"),
        ("evaluate", "benchmark", "linear/", "linear/ntu60-xsub"),
    ],
)
def test_a_shell_completes_names(command, option, word, expected):
    group = get_command(app)
    [parameter] = [found for found in group.commands[command].params if found.name == option]
    offered = [item.value for item in parameter.shell_complete(group.make_context("usdrl", ["list"]), word)]
    assert expected in offered and all(name.startswith(word) for name in offered)


def test_the_shell_is_taught_by_an_option(capsys):
    assert "--install-completion" in run(capsys, "--help")[1]
