import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usdrl_hub import SkeletonDataset, SkeletonFormatError, SkeletonSequence, SkeletonStore, extract_embeddings
from usdrl_hub.data.prepare import prepare
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.data.store import StoreWriter
from usdrl_hub.tasks.recognition import finetune

from .conftest import write_ntu


def sequence(frames=5, persons=1, seed=0, **fields) -> SkeletonSequence:
    keypoints = np.random.default_rng(seed).uniform(-4, 4, (frames, persons, 25, 3))
    return SkeletonSequence(keypoints, name=f"s{seed}", **fields)


def write(path, sequences, dtype="float32", part=3) -> SkeletonStore:
    writer = StoreWriter(path, {}, dtype)
    for start in range(0, len(sequences), part):
        writer.write_part(sequences[start : start + part], {}, [str(start)])
    return writer.finish(["sit", "stand"])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=10),
    st.sampled_from(["float32", "int16"]),
)
def test_what_is_written_is_read(tmp_path_factory, shapes, dtype):
    written = [
        sequence(frames, persons, seed, label=seed % 2, subject=seed, fps=30.0, camera=2 if seed % 3 else None)
        for seed, (frames, persons) in enumerate(shapes)
    ]
    store = write(tmp_path_factory.mktemp("stores") / "store", written, dtype)
    assert len(store) == len(written) and store.names == [s.name for s in written]
    assert store.lengths.tolist() == [s.num_frames for s in written]
    for read, expected in zip(store, written, strict=True):
        off = np.abs(read.keypoints - expected.keypoints).max()
        assert off == 0 if dtype == "float32" else off <= 0.0001
        assert not ((read.keypoints == 0) != (expected.keypoints == 0)).any()
        for field in ("name", "label", "subject", "camera", "setup", "fps", "units", "coordinates", "image_shape"):
            assert getattr(read, field) == getattr(expected, field), field


def test_selections_read_only_what_they_hold(tmp_path):
    store = write(tmp_path / "store", [sequence(seed=n, label=n % 2) for n in range(10)])
    assert store.class_names == ["sit", "stand"] and store.column("labels").tolist() == [0, 1] * 5
    assert store.column("split_test") is None and store.column("cameras") is None
    odd = store.select(store.column("labels") == 1)
    assert [s.name for s in odd] == ["s1", "s3", "s5", "s7", "s9"] and [s.name for s in odd[1:3]] == ["s3", "s5"]
    assert isinstance(SkeletonDataset.open(tmp_path / "store"), SkeletonStore)


def test_the_hash_is_that_of_the_content(tmp_path):
    sequences = [sequence(seed=n) for n in range(4)]
    hashes = [write(tmp_path / str(n), s).content_hash for n, s in enumerate([sequences, sequences, sequences[::-1]])]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("damage", ["store.json", "index.safetensors", "frames-00000.safetensors"])
def test_stores_that_are_not_whole_are_refused(tmp_path, damage):
    write(tmp_path / "store", [sequence()])
    file = tmp_path / "store" / damage
    content = file.read_bytes()
    for change in (lambda: file.write_bytes(content[: len(content) // 2]), file.unlink):
        change()
        with pytest.raises(SkeletonFormatError, match="no whole store"):
            SkeletonStore.open(tmp_path / "store")


def test_what_does_not_belong_together_is_refused(tmp_path):
    writer = StoreWriter(tmp_path / "store", {}, "int16")
    with pytest.raises(SkeletonFormatError, match="but the store holds"):
        writer.write_part([sequence(), sequence(units="mm")], {}, [])
    with pytest.raises(SkeletonFormatError, match="off by more than 0.1 mm"):
        writer.write_part([SkeletonSequence(10 * np.ones((2, 1, 25, 3)))], {}, [])
    with pytest.raises(ValueError, match="float32 or int16"):
        StoreWriter(tmp_path / "other", {}, "float16")
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        StoreWriter(tmp_path / "taken", {})


@pytest.fixture
def ntu_folder(tmp_path):
    folder = tmp_path / "raw" / "deep"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        keypoints = rng.normal(0, 1, (6, 1 + number % 3, 25, 3)).astype(np.float32)
        write_ntu(folder / f"S001C001P{number + 1:03d}R001A{number % 4 + 1:03d}.skeleton", keypoints)
    write_ntu(folder / "S001C001P001R001A061.skeleton", keypoints)
    (folder / "S001C001P001R002A001.skeleton").write_text("2\n0\n0\n")
    (folder / "S001C001P001R002A002.skeleton").write_text("2\n1\n")
    (tmp_path / "missing.txt").write_text("S001C001P001R001A001\n")
    return tmp_path / "raw"


@pytest.mark.parametrize("workers", [1, 2])
def test_ntu_folders_are_prepared_with_a_report(ntu_folder, tmp_path, workers):
    options = {"ignore": tmp_path / "missing.txt", "workers": workers}
    store, report = prepare("ntu60", ntu_folder, tmp_path / f"out{workers}", int16=True, **options)
    assert len(store) == 11 and report["read"] == 11 and report["frames"] == 66
    assert report["skipped"] == {"in the list of names to leave out": 1, "nobody is seen": 1, "malformed": 1}
    assert any("line 2" in problem for problem in report["problems"].values())
    assert [s.subject for s in store] == list(range(2, 13)) and store.max_persons == 2
    assert len(prepare("ntu120", ntu_folder, tmp_path / f"all{workers}", **options)[0]) == 12


def test_a_folder_of_ones_own_becomes_a_model(tmp_path):
    for number, clip in enumerate(load_samples()):
        folder = tmp_path / "mine" / f"class {clip.label % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", clip.keypoints)
    store, _ = prepare("folder", tmp_path / "mine", tmp_path / "store", layout="ui-prmd39", fps=33.0)
    assert len(store) == 100 and store.class_names == ["class 0", "class 1"] and store[0].fps == 33
    assert extract_embeddings(tmp_path / "store").shape == (100, 160)
    record = finetune(tmp_path / "store", tmp_path / "model", epochs=1)
    assert record["n"] == {"train": 80, "test": 20} and "random fifth" in record["split"]


def test_a_prepared_file_trains_as_the_file_does(tmp_path):
    with np.load(sample_path()) as file:
        arrays = dict(file)
    arrays["subjects"] = arrays["subjects"] // 2
    np.savez(tmp_path / "data.npz", **arrays)
    prepare("file", tmp_path / "data.npz", tmp_path / "store")
    scores = [
        finetune(tmp_path / data, tmp_path / f"m{n}", epochs=1)["metrics"]
        for n, data in enumerate(("data.npz", "store"))
    ]
    assert scores[0] == scores[1]


PREPARE = """
import sys
from usdrl_hub.data import prepare
prepare._PART = 2
prepare.prepare("ntu60", sys.argv[1], sys.argv[2])
"""


def test_a_killed_run_leaves_nothing_wrong_and_goes_on(ntu_folder, tmp_path):
    whole, _ = prepare("ntu60", ntu_folder, tmp_path / "whole")
    target = tmp_path / "killed"
    command = [sys.executable, "-c", PREPARE, str(ntu_folder), str(target)]
    kills = 0
    for delay in np.linspace(0.0, 0.6, 7):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not (tmp_path / ".killed.partial").exists() and not target.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay / 20)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert not target.exists() or len(SkeletonStore.open(target)) == len(whole)
        if target.exists():
            break
    assert kills
    if not target.exists():
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    resumed = SkeletonStore.open(target)
    assert resumed.names == whole.names
    for a, b in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
    assert {file.name for file in tmp_path.iterdir()} == {"raw", "missing.txt", "whole", "killed"}


def test_a_run_with_other_settings_begins_anew(ntu_folder, tmp_path):
    writer = StoreWriter(tmp_path / "out", {"kind": "other"})
    writer.write_part([sequence()], {"read": 1, "frames": 5, "skipped": {}, "problems": {}}, ["s0"])
    store, report = prepare("ntu60", ntu_folder, tmp_path / "out")
    assert len(store) == report["read"] == 12


@pytest.mark.parametrize(
    "kind, raw, message",
    [
        ("ntu60", "absent", "there is no such folder"),
        ("uav", "raw", "no file such as a name of UAV-Human"),
        ("folder", "raw/deep", "no file such as class/recording"),
        ("file", "absent.npz", "there is no such file"),
        ("coco", "raw", "unknown kind of data 'coco'"),
    ],
)
def test_impossible_inputs_are_refused_and_leave_nothing(ntu_folder, tmp_path, kind, raw, message):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match=message):
        prepare(kind, tmp_path / raw, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == before


def test_the_command_says_what_was_left_out(ntu_folder, tmp_path, capsys):
    from .test_cli import run

    code, out, err = run(capsys, "prepare", "ntu60", ntu_folder, "--output-dir", tmp_path / "out", "--int16")
    assert code == 2 and "12 sequences, 72 frames, layout ntu25" in out and "left out: 1 (malformed)" in out
    assert err.count("usdrl: ") == 2 and json.loads((tmp_path / "out" / "store.json").read_text())["dtype"] == "int16"
    code, out, _ = run(capsys, "embed", tmp_path / "out", "--output", tmp_path / "e.npz")
    assert code == 0 and "embeddings of 12 recordings" in out
