"""Shares of the work: `prepare --shard`, `embed --shard`, several indexes, and `usdrl join`."""

import numpy as np
import pytest

from usdrl_hub import MotionIndex, SkeletonStore, write_store
from usdrl_hub.data.samples import load_samples
from usdrl_hub.distributed import Workers

from .helpers import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with seven recordings of two classes, and what each command makes of it in two shares and in one go."""
    path = tmp_path_factory.mktemp("shards")
    for number, clip in enumerate(load_samples()[:7]):
        (path / "raw" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        np.save(path / "raw" / f"class{number % 2}" / f"{clip.name}.npy", clip.to_layout("kinect20").keypoints)
    return path


def test_stores_and_indexes(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    prepare = ["prepare", "folder", "raw", "--layout", "kinect20", "--fps", "30", "--int16"]
    for shard in (1, 2):
        assert run(capsys, *prepare, "--shard", f"{shard}/2", "--output-dir", f"store{shard}")[0] == 0
        assert run(capsys, "index", f"store{shard}", "--output", f"index{shard}")[0] == 0
    assert run(capsys, *prepare, "--output-dir", "whole")[0] == 0
    code, out, _ = run(capsys, "join", "store1", "store2", "--output", "joined")
    assert (code, out) == (0, "joined: 7 sequences of 2 stores, layout kinect20\n")
    whole, joined = SkeletonStore.open("whole"), SkeletonStore.open("joined")
    assert joined.names == whole.names and joined.class_names == whole.class_names == ["class0", "class1"]
    np.testing.assert_array_equal(joined.column("labels"), whole.column("labels"))
    for one, other in zip(joined, whole, strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-4)
        assert one.fps == other.fps == 30
    code, out, _ = run(capsys, "join", "index1", "index2", "--output", "indexed")
    assert code == 0 and out.startswith("indexed: 7 recordings of 2 indexes; exact search")
    index = MotionIndex.open("indexed")
    query = whole[3]
    hits = index.search(query, top_k=2)
    assert hits[0].recording == query.name and hits[0].label == f"class{query.label}"
    assert index.read(hits)[0].num_frames == hits[0].end - hits[0].start
    code, _, err = run(capsys, "join", "index1", "index2", "--output", "indexed")
    assert code == 2 and "indexed: it exists already" in err
    code, _, err = run(capsys, "join", "indexed", "index2", "--output", "twice")
    assert code == 2 and "in another of the indexes, too" in err


def test_embeddings(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    for level in ("clip", "frame"):
        embed = ["embed", "raw", "--layout", "kinect20", "--level", level]
        for shard in (1, 2, 3):
            assert run(capsys, *embed, "--shard", f"{shard}/3", "--output", f"{level}{shard}.npz")[0] == 0
        assert run(capsys, *embed, "--output", f"{level}.npz")[0] == 0
        parts = [f"{level}{shard}.npz" for shard in (1, 2, 3)]
        code, out, _ = run(capsys, "join", *parts, "--output", f"{level}-joined.npz")
        assert (code, out) == (0, f"{level}-joined.npz: embeddings of 7 recordings of 3 files\n")
        whole, joined = np.load(f"{level}.npz"), np.load(f"{level}-joined.npz")
        assert set(whole) == set(joined)
        for key in set(whole) - {"embeddings"}:
            np.testing.assert_array_equal(joined[key], whole[key])
        np.testing.assert_allclose(joined["embeddings"], whole["embeddings"], atol=1e-4)
    code, _, err = run(capsys, "join", "clip1.npz", "frame2.npz", "--output", "mixed.npz")
    assert code == 2 and "of another model or level" in err and not (folder / "mixed.npz").exists()


def test_shards_of_different_data_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = load_samples()[:4]
    write_store(clips, "a", load_samples().class_names)
    write_store(clips, "b", [f"{name}!" for name in load_samples().class_names])
    write_store([clip.to_layout("kinect20") for clip in clips], "c", load_samples().class_names)
    np.savez("d.npz", names=np.array(["x"]), embeddings=np.zeros((3, 4), np.float32))
    for arguments, message in (
        (["a", "b"], "b: its classes differ from those of a"),
        (["a", "c"], "c: its layout, unit and axes differ from those of a"),
        (["a"], "at least two"),
        (["a", "a"], "named twice"),
        (["a", "missing"], "missing: there is no such file"),
        (["a", "d.npz"], "must be all stores"),
    ):
        code, _, err = run(capsys, "join", *arguments, "--output", "out")
        assert code == 2 and message in err, err
    code, _, err = run(capsys, "join", "d.npz", "e.npz", "--output", "out.npz")
    assert code == 2 and not (tmp_path / "out").exists() and not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_impossible_shards(shard):
    with pytest.raises(ValueError, match="a shard is i/n"):
        Workers.of_shard(shard)
    assert Workers.of_shard("2/3") == Workers(1, 3) and Workers.of_shard(None) == Workers()
