"""`usdrl check` reads everything and reports each damage in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from usdrl_hub import SkeletonStore, write_store
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.errors import USDRLError
from usdrl_hub.hub.check import check
from usdrl_hub.lookup import bundled_checkpoint

from .helpers import make_store, run


@pytest.fixture
def store(tmp_path) -> Path:
    make_store(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(bundled_checkpoint("usdrl/tiny-uiprmd"), tmp_path / "model"))


def flip(file: Path, place: int) -> None:
    """Change one bit of a number."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_what_is_whole_is_told_in_a_line(store, model, tmp_path, capsys):
    write_store(load_samples()[:2], tmp_path / "int16", load_samples().class_names, "int16")
    (tmp_path / "clips").mkdir()
    for number, clip in enumerate(load_samples()[:2]):
        np.save(tmp_path / "clips" / f"{number}.npy", clip.to_layout("ntu25").keypoints)
    for path, kind, counts in (
        (store, "store", "5 files, 7 sequences, 49 frames"),
        (tmp_path / "int16", "store", "3 files, 2 sequences"),
        (sample_path(), "data set", "100 sequences"),
        (model, "checkpoint", "1 files"),
        ("usdrl/mocap-tiny", "checkpoint", "1 files"),
        (tmp_path / "clips", "recordings", "2 files, 2 sequences"),
        (tmp_path / "clips" / "1.npy", "recording", "1 sequences"),
    ):
        code, out, err = run(capsys, "check", path)
        assert (code, err) == (0, "") and out.startswith(f"{path}: {kind}, whole: {counts}"), out
        code, out, err = run(capsys, "check", path, "--json")
        assert code == 0 and json.loads(out)["whole"] is True and json.loads(out)["kind"] == kind


@pytest.mark.parametrize("named", [True, False], ids=["a checksum each", "one of all"])
def test_a_bit_that_changed_is_found_by_checksums(store, capsys, named):
    """faults.md 22: checksums were never compared."""
    if not named:
        content = json.loads((store / "store.json").read_text())
        for shard in content["shards"]:
            del shard["sha256"]
        (store / "store.json").write_text(json.dumps(content))
        assert check(store).whole
    flip(store / "frames-00001.safetensors", -4)
    assert len(list(SkeletonStore.open(store))) == 7, "the number is one of a body still"
    code, out, err = run(capsys, "check", store)
    where = store / "frames-00001.safetensors" if named else store
    assert code == 2 and "1 damaged" in out and err.startswith(f"usdrl: {where}: ") and err.count("\n") == 1


def test_an_index_or_header_that_changed_is_found(store):
    """faults.md 22."""
    index = load_file(store / "index.safetensors")
    index["camera"][2] += 1
    save_file(index, store / "index.safetensors")
    assert [damage.partition(": ")[0] for damage in check(store).damages] == [
        f"{store / 'index.safetensors'} or store.json"
    ]
    index["camera"][2] -= 1
    save_file(index, store / "index.safetensors")
    assert check(store).whole
    text = (store / "store.json").read_text()
    (store / "store.json").write_text(text.replace('"units": "m"', '"units": "mm"'))
    assert len(check(store).damages) == 1
    (store / "store.json").unlink()
    assert check(store).kind == "store" and "the store is incomplete" in check(store).damages[0]


def test_each_damage_has_a_line(store):
    flip(store / "frames-00002.safetensors", -4)
    file = store / "frames-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    file.write_bytes(content)
    found = check(store)
    assert found.counts["sequences"] == 6 and len(found.damages) == 3
    assert [Path(damage.partition(": ")[0]).name for damage in found.damages] == [
        *("frames-00000.safetensors", "frames-00002.safetensors"),
        "store",
    ]


def test_damaged_checkpoints_are_told(model):
    """faults.md 25: weights that are not finite."""
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    tensors = load_file(weights)
    name = sorted(key for key, tensor in tensors.items() if tensor.dtype == np.float32)[0]
    tensors[name].flat[0] = np.nan
    save_file(tensors, weights, {"format": "pt"})
    damages = check(model).damages
    assert any(f"'{name}' are NaN or infinite" in damage and "1 of" in damage for damage in damages)
    weights.write_bytes(content[:-4])
    assert any("model.safetensors" in damage for damage in check(model).damages)
    weights.write_bytes(content)
    (model / "metrics.json").write_text(json.dumps({"checkpoint_sha256": "0" * 64}))
    [damage] = check(model).damages
    assert "its SHA-256 is not the one in" in damage
    (model / "metrics.json").write_text("{")
    assert ["metrics.json: it is truncated" in damage for damage in check(model).damages] == [True]
    (model / "metrics.json").unlink()
    config = json.loads((model / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").write_text(json.dumps(config | {"num_frames": 10**9}))
    [damage] = check(model).damages
    assert "num_frames 1000000000" in damage
    (model / "config.json").unlink()
    assert any("config.json" in damage for damage in check(model).damages)
    assert torch.get_default_dtype() == torch.float32


def test_damaged_recordings_are_told_and_the_others_read(tmp_path, capsys):
    """faults.md 27."""
    folder = tmp_path / "clips"
    folder.mkdir()
    clip = np.random.default_rng(0).normal(size=(5, 25, 3))
    np.save(folder / "whole.npy", clip)
    np.save(folder / "empty.npy", clip * 0)
    np.save(folder / "nan.npy", clip * np.nan)
    (folder / "cut.npy").write_bytes((folder / "whole.npy").read_bytes()[:200])
    code, out, err = run(capsys, "check", folder)
    assert code == 2 and "4 files, " in out and "1 sequences" in out and "1 nobody seen" in out
    told = [line for line in err.splitlines() if not line.startswith("usdrl: note: ")]
    assert [line.split(":")[1].split("/")[-1] for line in told] == ["cut.npy", "nan.npy"]


def test_an_archive_with_a_changed_byte_is_told(tmp_path):
    shutil.copy(sample_path(), tmp_path / "data.npz")
    flip(tmp_path / "data.npz", (tmp_path / "data.npz").stat().st_size // 2)
    found = check(tmp_path / "data.npz")
    assert len(found.damages) == 1 and "data.npz" in found.damages[0]


def test_what_is_not_there_is_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    for path, message in ((tmp_path / "absent", "no such file"), (tmp_path / "nothing", "no store, no checkpoint")):
        with pytest.raises(USDRLError, match=message):
            check(path)


def test_a_pattern_stands_for_the_files_of_the_frames(tmp_path):
    for number in range(4):
        person = {"person_id": [-1], "pose_keypoints_2d": [1.0 + number] * 75}
        (tmp_path / f"a_{number:012d}_keypoints.json").write_text(json.dumps({"people": [person]}))
    found = check(tmp_path / "a_*_keypoints.json")
    assert found.whole and found.counts == {"sequences": 1, "frames": 4}
    assert check(tmp_path / "b_*_keypoints.json").damages == [
        f"{tmp_path / 'b_*_keypoints.json'}: there is no such file"
    ]
