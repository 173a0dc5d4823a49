import copy
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usdrl_hub import (
    SkeletonFormatError,
    SkeletonSequence,
    SkeletonStore,
    USDRLFeatureExtractor,
    extract_embeddings,
    iter_embeddings,
    open_data,
    write_skeleton,
    write_store,
)
from usdrl_hub.data.huggingface import from_huggingface, to_huggingface
from usdrl_hub.data.prepare import PrepareOptions, prepare
from usdrl_hub.data.protocols import default_split
from usdrl_hub.data.reading import Reading
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.data.store_writer import StoreWriter
from usdrl_hub.errors import EmptySequenceError
from usdrl_hub.inference.feed import StoreFeed
from usdrl_hub.inference.source import Source
from usdrl_hub.layouts import get_layout
from usdrl_hub.tasks.fit import FitRecipe
from usdrl_hub.tasks.recognition import finetune

from .conftest import relative_error, write_ntu


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


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"units": "mm", "up": "z"}, {"mirrored": True, "up": "-x"}, {"layout": "ui-prmd39"}, {"layout": "smpl24"}],
)
def test_clips_made_of_whole_groups_are_those_of_each_recording(tmp_path, dtype, fields):
    written, rng = [], np.random.default_rng(1)
    for number in range(9):
        joints = get_layout(fields.get("layout", "ntu25")).num_joints
        # Of one to three people, some never seen, and of frames without anyone.
        keypoints = rng.normal(size=(5 + 40 * number, 1 + number % 3, joints, 3))
        keypoints[rng.random(keypoints.shape[:3]) < 0.1 * (number % 2)] = 0
        keypoints[:2, -1] = 0
        written.append(SkeletonSequence(keypoints, name=f"s{number}", fps=30.0, label=number % 2, **fields))
    store = write(tmp_path / "store", written, dtype)
    selected = store.select(np.array([True, False] + [True] * 7))
    for changes in ({}, {"fill_joints": True, "normalization": "body", "num_persons": 1, "max_frames": None}):
        extractor = USDRLFeatureExtractor(**changes)
        feed = StoreFeed(selected, extractor, torch.device("cpu"))
        found = [feed.clips(part) for part in (slice(0, 3), slice(3, 8))]
        prepared = [extractor.prepare(sequence) for sequence in selected]
        assert relative_error(torch.cat(found), extractor.clips(prepared)) < 1e-6
        for sequence, expected in zip(feed.sequences(slice(0, 8)), prepared, strict=True):
            assert sequence.num_frames == expected.num_frames and "keypoints" not in vars(sequence)
            for name in ("layout", "fps", "name", "label", "up", "units", "coordinates", "mirrored", "num_frames"):
                assert getattr(sequence, name) == getattr(expected, name)
            assert np.array_equal(pickle.loads(pickle.dumps(sequence)).keypoints, expected.keypoints)
            assert replace(sequence, name="other").num_persons == expected.num_persons


def test_a_damaged_recording_is_named_among_those_that_are_embedded_in_groups(tmp_path):
    good = [sequence(20 + seed, 1 + seed % 2, seed) for seed in range(6)]
    store = write(tmp_path / "store", good, "int16", part=6)
    expected = extract_embeddings(good)
    assert relative_error(extract_embeddings(store), expected) < 1e-3
    assert np.array_equal(extract_embeddings([str(store.path)]), extract_embeddings(store))
    facts = store.header.shards[0]
    with open(store.path / facts.file, "r+b") as file:
        file.seek(facts.offset + 2 * int(store.index["start"][3]))
        file.write(bytes(2 * int(store.sizes[3])))
    with pytest.raises(EmptySequenceError, match="s3: every person is empty"):
        extract_embeddings(store, batch_size=2)
    errors = []
    found = [(one.name, row) for one, row in iter_embeddings(store, on_error=errors.append, batch_size=2)]
    assert [name for name, _ in found] == ["s0", "s1", "s2", "s4", "s5"] and "s3" in str(errors[0])
    assert relative_error(np.stack([row for _, row in found]), np.delete(expected, 3, 0)) < 1e-3


def test_a_damaged_first_recording_does_not_end_the_others(tmp_path):
    store = write(tmp_path / "store", [sequence(20 + seed, seed=seed) for seed in range(6)], part=6)
    facts = store.header.shards[0]
    with open(store.path / facts.file, "r+b") as file:
        file.seek(facts.offset)
        file.write(bytes(4 * int(store.sizes[0])))
    errors = []
    found = [one.name for one, _ in iter_embeddings(store, on_error=errors.append, batch_size=2)]
    assert found == ["s1", "s2", "s3", "s4", "s5"]
    assert len(errors) == 1 and "s0: every person is empty" in str(errors[0])


def test_a_recording_without_a_joint_that_the_model_reads_is_left_to_its_reader(tmp_path):
    """No joint of `ntu25` is made of the eyes of `uav17`."""
    whole = np.random.default_rng(0).normal(size=(9, 1, 17, 3))
    eyes = np.where(np.isin(np.arange(17), [1, 2])[:, None], whole, 0)
    store = write(tmp_path / "store", [SkeletonSequence(body, "uav17", name="s") for body in (whole, eyes)])
    extractor = USDRLFeatureExtractor()
    feed = StoreFeed(store, extractor, torch.device("cpu"))
    assert feed.clips(slice(0, 1)) is not None and feed.clips(slice(0, 2)) is None
    with pytest.raises(EmptySequenceError, match="every person is empty"):
        extractor.prepare(store[1])


def test_sources_of_sources_are_embedded_in_groups_too(tmp_path):
    """As those of the commands are."""
    store = write(tmp_path / "store", [sequence(seed=number) for number in range(4)])
    inner = Source(str(store.path)).for_model(USDRLFeatureExtractor())
    found = list(iter_embeddings(inner))
    assert [one.name for one, _ in found] == ["s0", "s1", "s2", "s3"]
    assert not any("keypoints" in vars(one) for one, _ in found)
    [*given, _] = iter_embeddings(Source(Source(store, Reading(fps=25))))
    assert [one.fps for one, _ in given] == [25] * 3


def test_pickles_of_embedded_recordings_outlive_their_store(tmp_path):
    written = [sequence(seed=number, label=1, subject=number) for number in range(300)]
    store = write(tmp_path / "store", written, part=300)
    found = [one for one, _ in iter_embeddings(store[:2])]
    pickled, copied = pickle.dumps(found[1]), copy.deepcopy(found[1])
    # The index of the store is larger than a recording.
    assert len(pickled) < 2 * len(pickle.dumps(written[1]))
    shutil.rmtree(store.path)
    for kept in (pickle.loads(pickled), copied):
        assert (kept.name, kept.label, kept.subject) == ("s1", 1, 1)
        np.testing.assert_array_equal(kept.keypoints, written[1].keypoints)


def test_selections_read_only_what_they_hold(tmp_path):
    store = write(tmp_path / "store", [sequence(seed=n, label=n % 2) for n in range(10)])
    assert store.class_names == ["sit", "stand"] and store.column("labels").tolist() == [0, 1] * 5
    assert store.column("split_test") is None and store.column("cameras") is None
    odd = store.select(store.column("labels") == 1)
    assert [s.name for s in odd] == ["s1", "s3", "s5", "s7", "s9"] and [s.name for s in odd[1:3]] == ["s3", "s5"]
    assert isinstance(open_data(tmp_path / "store"), SkeletonStore)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=0, max_size=12), st.integers(1, 10), st.sampled_from(["float32", "int16"]))
def test_any_order_is_read_one_after_another_as_one_by_one(tmp_path_factory, numbers, part, dtype):
    written = [sequence(1 + n % 4, 1 + n % 2, n, label=n % 2) for n in range(10)]
    store = write(tmp_path_factory.mktemp("stores") / "store", written, dtype, part)
    chosen = replace(store, selection=np.array(numbers, dtype=np.int64))
    read = list(chosen)
    assert [s.name for s in read] == [f"s{n}" for n in numbers]
    for place, found in enumerate(read):
        np.testing.assert_array_equal(found.keypoints, chosen[place].keypoints)
        assert found.keypoints.base is None or found.keypoints.base.size == found.keypoints.size


def test_a_shard_that_shrinks_while_it_is_read_is_named(tmp_path):
    store = write(tmp_path / "store", [sequence(seed=n) for n in range(3)])
    shard = next((tmp_path / "store").glob("frames-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-4])
    store[1]
    for read in (lambda: list(store), lambda: store[2]):
        with pytest.raises(SkeletonFormatError, match="the file is truncated: prepare the store again"):
            read()


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
        with pytest.raises(SkeletonFormatError, match="the store is incomplete"):
            SkeletonStore.open(tmp_path / "store")


def test_what_does_not_belong_together_is_refused(tmp_path):
    writer = StoreWriter(tmp_path / "store", {}, "int16")
    with pytest.raises(SkeletonFormatError, match="of the others"):
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
    options = PrepareOptions(tmp_path / "missing.txt")
    store, report = prepare(
        "ntu60", ntu_folder, tmp_path / f"out{workers}", options=replace(options, int16=True), workers=workers
    )
    assert len(store) == 11 and report["read"] == 11 and report["frames"] == 66
    assert report["skipped"] == {"in the list of names to leave out": 1, "no person is seen": 1, "malformed": 1}
    assert any("line 2" in problem for problem in report["problems"].values())
    assert [s.subject for s in store] == list(range(2, 13)) and store.max_persons == 2
    store, _ = prepare("ntu120", ntu_folder, tmp_path / f"all{workers}", options=options, workers=workers)
    assert len(store) == 12


def test_a_folder_of_ones_own_becomes_a_model(tmp_path):
    for number, clip in enumerate(load_samples()):
        folder = tmp_path / "mine" / f"class {clip.label % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", clip.keypoints)
    store, _ = prepare("folder", tmp_path / "mine", tmp_path / "store", reading=Reading("ui-prmd39", fps=33.0))
    assert len(store) == 100 and store.class_names == ["class 0", "class 1"] and store[0].fps == 33
    assert extract_embeddings(tmp_path / "store").shape == (100, 256)
    record = finetune(tmp_path / "store", tmp_path / "model", recipe=FitRecipe(epochs=1))
    assert record["n"] == {"train": 80, "test": 20} and "random fifth" in record["split"]


@pytest.mark.long
def test_a_prepared_file_trains_as_the_file_does(tmp_path):
    with np.load(sample_path()) as file:
        arrays = dict(file)
    arrays["subjects"] = arrays["subjects"] // 2
    np.savez(tmp_path / "data.npz", **arrays)
    prepare("file", tmp_path / "data.npz", tmp_path / "store")
    scores = [
        finetune(tmp_path / data, tmp_path / f"m{n}", recipe=FitRecipe(epochs=1))["metrics"]
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
    with StoreWriter(tmp_path / "out", {"kind": "other"}) as writer:
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
    from .helpers import run

    code, out, err = run(capsys, "prepare", "ntu60", ntu_folder, "--output-dir", tmp_path / "out", "--int16")
    assert code == 2 and "12 sequences, 72 frames, layout ntu25" in out and "left out: 1 (malformed)" in out
    assert (
        err.count("usdrl: ") - err.count("usdrl: note: ") == 2
        and json.loads((tmp_path / "out" / "store.json").read_text())["dtype"] == "int16"
    )
    code, out, _ = run(capsys, "embed", tmp_path / "out", "--output", tmp_path / "e.npz")
    assert code == 0 and "embeddings of 12 recordings" in out


def pku_folder(path, frames=(120, 90, 150)):
    """Three videos of two persons with label files as PKU-MMD lays them out, and a split file."""
    (path / "PKU_Skeleton_Renew").mkdir(parents=True)
    (path / "Train_Label_PKU_final").mkdir()
    rng = np.random.default_rng(0)
    for name, length in zip(("0002-L", "0002-M", "0003-R"), frames, strict=True):
        values = rng.normal(size=(length, 2, 25, 3)).round(5)
        values[:, 1] = 0 if name == "0003-R" else values[:, 1]
        rows = [" ".join(map(str, frame.ravel())) for frame in values]
        (path / "PKU_Skeleton_Renew" / f"{name}.txt").write_text("\n".join(rows) + "\n")
        (path / "Train_Label_PKU_final" / f"{name}.txt").write_text("6,10,30,1\n51,80,40,2\n")
    (path / "cross-subject.txt").write_text(
        "Training videos: \n0002-L, 0002-M, \nValidation videos:\n0009-L, 0003-R\n"
    )


def test_pku_videos_keep_their_events_and_sides(tmp_path):
    pku_folder(tmp_path / "pku")
    split_file = tmp_path / "pku" / "cross-subject.txt"
    options = PrepareOptions(protocol="xsub", split_file=split_file)
    store, report = prepare("pku1", tmp_path / "pku", tmp_path / "whole", options=options)
    assert report["read"] == 3 and store.names == ["0002-L", "0002-M", "0003-R"]
    assert store.column("split_test").tolist() == [False, False, True] and store.header.dataset == "pku1"
    # Classes from 0; the row that ends before it starts is turned round.
    assert [s.events.tolist() for s in store] == [[[5, 10, 30], [50, 40, 80]]] * 3
    labels = store[0].frame_labels()
    assert labels[[9, 10, 29, 30, 40, 79, 80]].tolist() == [-1, 5, 5, -1, 50, 50, -1]
    clips, report = prepare("pku2", tmp_path / "pku", tmp_path / "clips", options=replace(options, clips=True))
    assert report["read"] == 6 and clips.column("labels").tolist() == [5, 50] * 3
    assert clips.lengths.tolist() == [20, 40] * 3 and clips.names[:2] == ["0002-L_000", "0002-L_001"]
    np.testing.assert_array_equal(clips[1].keypoints, store[0].keypoints[40:80])
    view, _ = prepare("pku1", tmp_path / "pku", tmp_path / "view", options=PrepareOptions(protocol="xview"))
    assert view.column("split_test").tolist() == [True, False, False]
    with pytest.raises(ValueError, match="split file"):
        prepare("pku1", tmp_path / "pku", tmp_path / "out", options=PrepareOptions(protocol="xsub"))


def test_protocols_write_their_sides(ntu_folder, tmp_path):
    store, _ = prepare("ntu60", ntu_folder, tmp_path / "xsub", options=PrepareOptions(protocol="xsub"))
    train, test, rule = default_split(store)
    assert {s.subject for s in train} <= {1, 2, 4, 5, 8, 9} and not {s.subject for s in train} & {
        s.subject for s in test
    }
    assert "split_test" in rule and len(train) + len(test) == len(store)
    for part in ("train", "test"):
        (tmp_path / "raw" / part).mkdir()
    for number, file in enumerate(sorted((ntu_folder / "deep").glob("*.skeleton"))):
        file.rename(ntu_folder / ("train" if number % 2 else "test") / file.name)
    store, report = prepare("ntu60", ntu_folder, tmp_path / "folders", options=PrepareOptions(protocol="folders"))
    expected = [
        file.parent.name == "test" for file in sorted(ntu_folder.rglob("*.skeleton")) if file.stem in store.names
    ]
    assert sorted(store.column("split_test")) == sorted(expected) and report["read"] == 12
    with pytest.raises(ValueError, match="'ntu60' has no protocol 'xset': use xsub, xview, folders"):
        prepare("ntu60", ntu_folder, tmp_path / "out", options=PrepareOptions(protocol="xset"))


def test_a_table_names_files_labels_people_and_sides(tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(4):
        np.save(tmp_path / "files" / f"{number}.npy", np.random.default_rng(number).normal(size=(9, 25, 3)))
    rows = ["file,label,subject,split"] + [
        f"files/{n}.npy,{'wave' if n % 2 else 'bow'},anna{n // 2},train" for n in range(3)
    ]
    table = tmp_path / "list.csv"
    table.write_text("\n".join([*rows, "files/3.npy,wave,zoe,test"]) + "\n")
    store, _ = prepare("csv", table, tmp_path / "store", reading=Reading(fps=25))
    assert store.class_names == ["bow", "wave"] and store.column("labels").tolist() == [0, 1, 0, 1]
    assert store.column("subjects").tolist() == ["anna0", "anna0", "anna1", "zoe"] and store[3].subject == "zoe"
    assert store.column("split_test").tolist() == [False, False, False, True] and store[0].fps == 25
    table.write_text("file,label,subject\nfiles/0.npy,10,7\nfiles/1.npy,9,\n")
    for content in ("file;label;score\nfiles/0.npy;a;1,5\n", "file\tlabel\tscore\nfiles/0.npy\ta\t1.5\n"):
        table.write_text(content, "utf-16")
        store, _ = prepare("csv", table, tmp_path / f"as-written-{len(content)}-{';' in content}")
        assert store.class_names == ["a"] and store.column("score").tolist() == [1.5]
    table.write_text("file,label,subject\nfiles/0.npy,10,7\nfiles/1.npy,9,\n")
    store, _ = prepare("csv", table, tmp_path / "numbers")
    assert store.class_names == ["9", "10"] and store.column("subjects").tolist() == [7, -1]
    for content, message in [
        ("file,label,colour\nfiles/0.npy,1,red\n", "line 2: 'red' in column 'colour' is no number"),
        ("file,label,names\nfiles/0.npy,1,2\n", "a column cannot be called 'names'"),
        (",file,label\n0,files/0.npy,1\n", r"a column cannot be called '': name it, or .*index=False"),
        ("name\nx\n", "no row below a column 'file'"),
        ("file,label\nfiles/0.npy\n", "line 2: it has not as many cells"),
        ("file,split\nfiles/0.npy,validation\n", "line 2: split is 'validation'"),
        ("file\nfiles/0.npy\nfiles/0.npy\n", "more than once"),
        ("file\n", "no row below"),
    ]:
        table.write_text(content)
        with pytest.raises(SkeletonFormatError, match=message):
            prepare("csv", table, tmp_path / "out")


def test_missing_joints_are_counted_and_filled_when_asked(tmp_path):
    keypoints = np.cumsum(np.ones((12, 1, 25, 3)), axis=0)
    keypoints[3:5, 0, 7] = np.nan
    (tmp_path / "mine" / "a").mkdir(parents=True)
    np.save(tmp_path / "mine" / "a" / "x.npy", keypoints)
    with pytest.raises(SkeletonFormatError, match="no sequence could be read.*is NaN"):
        prepare("folder", tmp_path / "mine", tmp_path / "refused")
    assert os.listdir(tmp_path) == ["mine"]
    store, report = prepare("folder", tmp_path / "mine", tmp_path / "filled", reading=Reading(missing="interpolate"))
    assert (report["joints"], report["joints_missing"], report["joints_filled"]) == (300, 2, 2)
    np.testing.assert_allclose(store[0].keypoints[:, 0, 7, 0], np.arange(1, 13), rtol=1e-6)
    # A person who is not seen at all misses no joints, though the frames are filled.
    keypoints[8:10] = np.nan
    np.save(tmp_path / "mine" / "a" / "x.npy", keypoints)
    _, report = prepare("folder", tmp_path / "mine", tmp_path / "unseen", reading=Reading(missing="interpolate"))
    assert (report["joints"], report["joints_missing"], report["joints_filled"]) == (250, 2, 2)


def test_a_stream_becomes_a_store_or_nothing(tmp_path):
    def stream(fail):
        yield from (sequence(seed=n, label=n % 2, events=[[0, 1, 3]], split="test") for n in range(3))
        if fail:
            raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_store(stream(True), tmp_path / "store")
    assert os.listdir(tmp_path) == []
    store = write_store(stream(False), tmp_path / "store", ["sit", "stand"])
    assert (
        [s.label for s in store] == [0, 1, 0] and store[2].events.tolist() == [[0, 1, 3]] and store[0].split == "test"
    )


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_data_sets_hold_the_same(tmp_path, streaming):
    written = [
        sequence(3 + n, 1 + n % 2, n, label=None if n == 2 else n % 2, subject=f"p{n}", fps=30.0, up="z", units="cm")
        for n in range(4)
    ]
    written.append(sequence(9, events=[[1, 2, 5], [0, 6, 9]], split="train", up="z", units="cm"))
    store = write_store(written, tmp_path / "store", ["sit", "stand"])
    rows = to_huggingface(store, streaming=streaming)
    assert rows.features["label"].names == ["sit", "stand"]
    back = write_store(from_huggingface(rows), tmp_path / "back", ["sit", "stand"])
    assert back.content_hash == store.content_hash
    with pytest.raises(SkeletonFormatError, match="name the layout"):
        next(from_huggingface([{"keypoints": np.zeros((3, 25, 3))}]))
    (plain,) = from_huggingface([{"keypoints": np.ones((3, 25, 3)), "label": -1}], layout="ntu25")
    assert plain.label is None and plain.num_persons == 1


def test_how_a_data_set_takes_itself_apart_is_kept(tmp_path):
    with np.load(sample_path()) as file:
        arrays = dict(file)
    count = len(arrays["labels"])
    rng = np.random.default_rng(0)
    arrays["split_test"] = rng.integers(0, 2, count).astype(bool)
    arrays["split_test_leaked"] = arrays["split_test"] & (rng.random(count) < 0.3)
    # Two clips in which no person is seen are left out, with their entries.
    for number in (3, 50):
        arrays["data"][arrays["offsets"][number] : arrays["offsets"][number + 1]] = 0
    np.savez(tmp_path / "data.npz", **arrays)
    store, report = prepare("file", tmp_path / "data.npz", tmp_path / "store")
    assert report["skipped"] == {"no person is seen": 2} and len(store) == count - 2
    dataset = open_data(tmp_path / "data.npz").drop_empty()
    for ours, theirs in zip(default_split(store)[:2], default_split(dataset)[:2], strict=True):
        assert ours.names == [sequence.name for sequence in theirs]
    folds = {**arrays, "folds": np.arange(count) % 5}
    del folds["split_test"], folds["split_test_leaked"]
    np.savez(tmp_path / "folds.npz", **folds)
    store, _ = prepare("file", tmp_path / "folds.npz", tmp_path / "folded")
    assert "fold 2 of the file's 5 tests" in default_split(store, 2)[2]


@pytest.mark.parametrize("kind", [np.float64, "S9"])
def test_people_of_any_type_stay_known(tmp_path, kind):
    with np.load(sample_path()) as file:
        arrays = dict(file)
    arrays["subjects"] = arrays["subjects"].astype(kind)
    np.savez(tmp_path / "data.npz", **arrays)
    store, _ = prepare("file", tmp_path / "data.npz", tmp_path / "store")
    train, test, _ = default_split(store)
    assert not {s.subject for s in train} & {s.subject for s in test} and len({s.subject for s in store}) == 5


def test_mirrored_bodies_stay_mirrored_and_by_themselves(tmp_path):
    store = write_store([sequence(mirrored=True)], tmp_path / "store")
    assert store[0].mirrored
    with pytest.raises(SkeletonFormatError, match="of the others"):
        write_store([sequence(mirrored=True), sequence()], tmp_path / "other")


def test_large_numbers_fit_or_are_refused(tmp_path):
    assert write_store([sequence(subject=2**40)], tmp_path / "store")[0].subject == 2**40
    with pytest.raises(SkeletonFormatError, match="fits in 64 bits"):
        write_store([sequence(subject=2**70)], tmp_path / "other")
    with pytest.raises(SkeletonFormatError, match="class 1180591620717411303424 is not from 0 to 99999"):
        write_store([sequence(label=2**70)], tmp_path / "other")
    odd = sequence()
    object.__setattr__(odd, "name", "caf\udce9")
    assert write_store([odd], tmp_path / "odd").names == ["caf\\udce9"]


def test_pieces_are_read_by_themselves(tmp_path):
    store = write_store([sequence(20, 2, n, events=[[0, 2, 9]]) for n in range(3)], tmp_path / "store")
    for number in range(3):
        np.testing.assert_array_equal(store.read(number, 4, 11).keypoints, store[number].keypoints[4:11])
    assert store.read(1, 4, 11).events is None and store.read(1, 0, 20).events is not None
    data = load_samples()
    for some in (store, data):
        frames = int(some.lengths[0])
        for start, end in ((-1, 3), (3, 3), (4, frames + 1), (frames, None)):
            with pytest.raises(IndexError, match=f"not part of a sequence of {frames} frames"):
                some.read(0, start, end)


FINISH = """
import sys, os
from pathlib import Path
from usdrl_hub.data import prepare, store_writer
prepare._PART = 3
calls = 0
unlink, replace = Path.unlink, os.replace
def counted(function):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[3]):
            os._exit(9)
        return function(*args, **kwargs)
    return wrapped
finish = store_writer.StoreWriter.finish
def watched(self, *args):
    Path.unlink, os.replace = counted(unlink), counted(replace)
    return finish(self, *args)
store_writer.StoreWriter.finish = watched
prepare.prepare("ntu60", sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5, 6, 9, 12])
def test_a_kill_at_the_end_leaves_a_store_or_what_makes_one(ntu_folder, tmp_path, moment):
    command = [sys.executable, "-c", FINISH, str(ntu_folder), str(tmp_path / "out")]
    killed = subprocess.run([*command, str(moment)], stderr=subprocess.DEVNULL).returncode == 9
    assert killed
    if not (tmp_path / "out").exists():
        prepare("ntu60", ntu_folder, tmp_path / "out")
    assert len(SkeletonStore.open(tmp_path / "out")) == 12


def test_pku_files_of_every_kind_are_taken_for_what_they_are(tmp_path):
    pku_folder(tmp_path / "pku")
    labels = tmp_path / "pku" / "Train_Label_PKU_final"
    (labels / "0002-M.txt").write_text("")
    (labels / "0003-R.txt").write_text("6,10,10,1\n6,900,950,1\n9,20,30,1\n")
    store, report = prepare("pku1", tmp_path / "pku", tmp_path / "store")
    assert [len(s.events) for s in store] == [2, 0, 1]
    assert report["skipped"] == {"events outside their video": 1} and "2 events" in str(report["problems"])
    split_file = tmp_path / "pku" / "cross-subject.txt"
    with pytest.raises(ValueError, match="has no protocol 'banana'"):
        prepare(
            "pku1", tmp_path / "pku", tmp_path / "a", options=PrepareOptions(protocol="banana", split_file=split_file)
        )
    with pytest.raises(ValueError, match="belongs to a protocol of PKU-MMD"):
        prepare(
            "folder",
            tmp_path / "pku",
            tmp_path / "a",
            options=PrepareOptions(protocol="folders", split_file=split_file),
        )


def test_a_half_filled_column_of_sides_is_refused(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(9, 25, 3)))
    (tmp_path / "list.csv").write_text("file,split\na.npy,train\nb.npy,\n")
    with pytest.raises(SkeletonFormatError, match="fill in the column"):
        prepare("csv", tmp_path / "list.csv", tmp_path / "store")


def test_class_numbers_do_not_depend_on_chance(tmp_path):
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(9, 25, 3)))
    (tmp_path / "list.csv").write_text("file,label\na.npy,01\nb.npy,1\nc.npy,2\n")
    assert prepare("csv", tmp_path / "list.csv", tmp_path / "store")[0].class_names == ["01", "1", "2"]


def test_recordings_of_several_rigs_become_one_store_in_a_layout(tmp_path, capsys):
    """BVH files have joints of their own: those of the first alone were kept."""
    from .helpers import run, walking

    (tmp_path / "raw" / "walk").mkdir(parents=True)
    for name, layout, up in (("a", "ntu25", "y"), ("b", "kinect20", "y"), ("c", "ntu25", "z")):
        write_skeleton(walking(layout=layout, up=up), tmp_path / "raw" / "walk" / f"{name}.json")
    code, out, err = run(capsys, "prepare", "folder", tmp_path / "raw", "--output-dir", tmp_path / "first")
    assert code == 2 and "1 sequences" in out and "left out: 2 (of another kind)" in out
    assert (
        "its layout 'kinect20' (20 joints, 3d) is not that of the others, layout 'ntu25' (25 joints, 3d): convert all "
        "to one layout with --to-layout" in err
    )
    assert "its up is z, that of the others y: --to-layout turns all y up and to metres" in err
    arguments = ("prepare", "folder", tmp_path / "raw", "--output-dir", tmp_path / "all", "--to-layout", "kinect20")
    code, out, _ = run(capsys, *arguments)
    store = SkeletonStore.open(tmp_path / "all")
    assert code == 0 and len(store) == 3 and store.layout.name == "kinect20" and "left out" not in out
    assert [sequence.up for sequence in store] == ["y"] * 3
    code, _, err = run(capsys, *arguments[:-3], tmp_path / "flat", "--to-layout", "coco17")
    assert code == 2 and "it is 3D, but layout 'coco17' is of 2D keypoints" in err
