"""Damaged stores: they open, or an error names the file and the field."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from usdrl_hub import SkeletonFormatError, SkeletonSequence, SkeletonStore, write_store
from usdrl_hub.layouts import MOST_JOINTS, get_layout

from .helpers import make_store

# What a field of JSON may be in place of what it is.
VALUES = (
    *(None, True, -1, 0, 1, 3, 2**31, 2**63, 2**70, 10**400, -(2**63), 0.5, 1e999, float("nan")),
    *("", "O", "<f8", "x" * 10_000, "\ud800", "..", "/etc/passwd", "3d", "frames-00000.safetensors"),
    *([], [[]], [None], ["a"], [2, 3], [[10**9, 0]], [[1e999, 0]], {}, {"a": {}}, {"joint_names": ["a"], "bones": []}),
    *({"joint_names": ["a"] * 3, "bones": [[0, 1]] * 3}, {"file": "..", "offset": 8, "bytes": 8}),
)


def use(path: Path) -> None:
    """All that training and embedding ask of a store."""
    store = SkeletonStore.open(path)
    assert len(list(store)) == len(store) == len(store.names) > 0
    for key in ("labels", "subjects", "cameras", "setups", "split_test", "folds"):
        store.column(key)
    store.read(len(store) - 1, 0, 1)
    assert len(store.class_names) <= 100_000 and store.max_persons > 0 and store.layout.num_joints
    assert store.content_hash and len(store.drop_empty()) == len(store)


def outcome(path: Path) -> str:
    """ "" if a store can be used, else the error, which names a file of it; any other outcome fails."""
    try:
        use(path)
    except SkeletonFormatError as error:
        assert str(path) in str(error) and len(str(error)) <= 300 + len(str(path)), str(error)
        assert str(error).isprintable()
        return str(error)
    return ""


def places(content, where=()):
    """Every place in JSON at which something stands."""
    yield where
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*where, key))


def changed(content, where, value=None, delete=False):
    """A copy of JSON with one place changed or deleted."""
    if not where:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    if len(where) == 1 and delete:
        del copy[where[0]]
    else:
        copy[where[0]] = changed(content[where[0]], where[1:], value, delete)
    return copy


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store"
    make_store(path)
    return path


@pytest.fixture
def store(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "store"))


def test_every_field_of_the_header_may_be_anything(store):
    """faults.md 21, 22: dtype "O" crashed, and 31 % of damaged stores ended in errors of many kinds."""
    file = store / "store.json"
    content = json.loads(file.read_text())
    tried, refused = 0, 0
    for where in places(content):
        mutants = [json.dumps(changed(content, where, value)) for value in VALUES]
        mutants += [json.dumps(changed(content, where, delete=True))] if where else []
        for mutant in mutants:
            file.write_text(mutant)
            tried += 1
            refused += bool(outcome(store))
    # What may be anything: the data set's name, the names of classes and people.
    assert tried > 1000 and 0.6 < refused / tried < 1


@pytest.mark.parametrize("name", ["store.json", "index.safetensors", "frames-00001.safetensors"])
def test_any_bytes_of_a_file_may_be_damaged(store, name):
    """faults.md 22."""
    content = (store / name).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(700):
        damaged = bytearray(content)
        kind = number % 5
        at = int(rng.integers(len(damaged) if number % 2 else min(len(damaged), 2000)))
        if kind == 0:
            del damaged[at:]
        elif kind == 1:
            damaged[at : at + int(rng.integers(1, 9))] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 2:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif kind == 3:
            damaged[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"\x7f" * 8, b"\xff" * 7 + b"\x7f"])
        else:
            del damaged[at : at + int(rng.integers(1, 64))]
        (store / name).write_bytes(damaged)
        refused += bool(outcome(store))
    assert refused > 200


INDEX = {
    "shard": (1, [2, 5, -1, 2**62]),
    "start": (1, [1, -1, 2**62, -(2**63)]),
    "frames": (2, [0, -1, 2**31 - 1, 7]),
    "persons": (2, [0, -5, 2**31 - 1, 3]),
    "label": (3, [3, -2, 10**9, 2**62]),
    "subject": (3, [2, -2, 2**62]),
    "split": (0, [2, -2, 2**31 - 1]),
    "name_ends": (3, [-1, 0, 2**62, 1]),
    "event_ends": (3, [-1, 0, 2**62]),
    "fps": (1, [np.inf, -1, 0]),
    "scale": (0, [np.nan, np.inf, -1, 0]),
    "image_shape": (0, [-1, np.inf, 0]),
    "events": (2, [-1, 2**62, 10**9]),
    "names": (0, [0xFF, 0xA4]),
}


@pytest.mark.parametrize("key", INDEX)
def test_every_number_of_the_index_is_checked_and_named(store, key):
    """faults.md 22."""
    index = load_file(store / "index.safetensors")
    place, values = INDEX[key]
    for value in values:
        array = index[key].copy()
        array[place] = value
        save_file({**index, key: array}, store / "index.safetensors")
        assert f"{key}'" in outcome(store) and "index.safetensors" in outcome(store), value
    for other in (index[key][:-1], index[key][None], index[key].astype(np.float16), index[key].astype(bool)):
        save_file({**index, key: np.ascontiguousarray(other)}, store / "index.safetensors")
        assert f"'{key}'" in outcome(store) or key in ("names", "events")
    save_file({name: array for name, array in index.items() if name != key}, store / "index.safetensors")
    assert f"array '{key}' is missing" in outcome(store)
    for other in (index["column.folds"][:-1], np.zeros((7, 1, 1)), np.zeros(())):
        save_file({**index, "column.folds": other}, store / "index.safetensors")
        assert "'column.folds'" in outcome(store)


def test_an_index_that_claims_much_takes_no_memory(store):
    """faults.md 24: its header is compared with the file before anything is set aside."""
    header = json.dumps({"shard": {"dtype": "I64", "shape": [2**40], "data_offsets": [0, 2**43]}}).encode()
    for claimed in (len(header), 2**40, 2**63):
        (store / "index.safetensors").write_bytes(claimed.to_bytes(8, "little") + header)
        tracemalloc.start()
        assert "index.safetensors" in outcome(store)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name", ["../secret.bin", "/dev/zero", "frames-00000.safetensors/..", "sub/frames-00000.safetensors"]
)
def test_shards_are_plain_names(store, tmp_path, name):
    """faults.md 22: files outside were read."""
    (tmp_path / "secret.bin").write_bytes(bytes(2000))
    content = json.loads((store / "store.json").read_text())
    content["shards"][0]["file"] = name
    (store / "store.json").write_text(json.dumps(content))
    assert "field 'shards[0].file'" in outcome(store)


@pytest.mark.parametrize("name", ["store.json", "index.safetensors", "frames-00000.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "absent", "device"])
def test_files_of_a_store_are_regular_and_inside(store, tmp_path, name, kind):
    """faults.md 22: a pipe in place of a shard hung, a link led outside."""
    file = store / name
    shutil.copy(file, tmp_path / "outside")
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to(tmp_path / "outside")
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    message = outcome(store)
    assert "the store is incomplete" in message
    if kind != "absent" or name != "store.json":
        assert str(file) in message


def test_a_link_inside_the_folder_is_a_file_of_it(store):
    (store / "index.safetensors").rename(store / "index.bin")
    (store / "index.safetensors").symlink_to("index.bin")
    assert outcome(store) == ""
    (store / "index.bin").unlink()
    (store / "index.bin").symlink_to("index.safetensors")
    assert "index.safetensors" in outcome(store)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_stores_made_before_shards_had_checksums_open(tmp_path, dtype):
    made = make_store(tmp_path / "store", dtype)
    content = json.loads((tmp_path / "store" / "store.json").read_text())
    for shard in content["shards"]:
        assert len(shard.pop("sha256")) == 64
    # The first versions had these as int32.
    index = load_file(tmp_path / "store" / "index.safetensors")
    index |= {key: index[key].astype(np.int32) for key in ("label", "subject", "camera", "setup")}
    save_file(index, tmp_path / "store" / "index.safetensors")
    (tmp_path / "store" / "store.json").write_text(json.dumps(content))
    opened = SkeletonStore.open(tmp_path / "store")
    for old, new in zip(opened, made, strict=True):
        np.testing.assert_array_equal(old.keypoints, new.keypoints)
        assert (old.label, old.subject, old.split) == (new.label, new.subject, new.split)


def test_numbers_that_are_none_are_told_with_store_and_sequence_and_the_others_read(store):
    file = store / "frames-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    file.write_bytes(content)
    assert "Gehen-ä2" in outcome(store)
    told = []
    assert len(list(SkeletonStore.open(store).iterate(told.append))) == 6
    assert len(told) == 1 and str(store) in str(told[0]) and "NaN" in str(told[0])
    opened = SkeletonStore.open(store)
    file.unlink()
    told.clear()
    assert len(list(opened.iterate(told.append))) == 4
    assert [str(error).partition(": ")[0] for error in told] == [str(file)]


def test_labels_without_names_make_no_list_of_a_billion(tmp_path):
    """faults.md 24."""
    clip = SkeletonSequence(np.ones((3, 1, 25, 3)), name="clip")
    for fields in ({"label": 10**9}, {"label": -2}, {"events": [[10**9, 0, 2]]}):
        odd = SkeletonSequence(np.ones((3, 1, 25, 3)), name="odd", **fields)
        with pytest.raises(SkeletonFormatError, match="odd: class .* is not from 0 to 99999"):
            write_store([clip, odd], tmp_path / "store")
    labelled = SkeletonSequence(np.ones((3, 1, 25, 3)), name="odd", label=2)
    with pytest.raises(SkeletonFormatError, match="class 2 has no name among the 2 class names"):
        write_store([clip, labelled], tmp_path / "store", ["a", "b"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "layout, message",
    [
        ([[10**9, 0]], "joint 1000000000"),
        ([[1e999, 0]], "list of"),
        ({"joint_names": [f"j{n}" for n in range(MOST_JOINTS + 1)], "bones": []}, f"{MOST_JOINTS} are the most"),
        ({"joint_names": ["a"], "bones": [], "center": 1e999}, "a custom layout needs"),
        ({"joint_names": ["a"], "bones": [], "derived": {"b": "a*x"}}, "a custom layout needs"),
        ({"joint_names": ["a"], "bones": [], "derived": {"b": "a*1 a*-1"}}, "a custom layout needs"),
        ({"joint_names": ["a"], "bones": [], "derived": {"b": ""}}, "a custom layout needs"),
        ({"joint_names": ["a", "b"], "bones": [[0, 1]] * 200_000}, "two parents"),
    ],
)
def test_layouts_are_bounded(layout, message):
    """faults.md 24: a layout of a few bytes asked for gigabytes, one of a megabyte for hours."""
    with pytest.raises(ValueError, match=message):
        get_layout(layout)
