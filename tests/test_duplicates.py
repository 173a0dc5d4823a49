"""`usdrl duplicates` and `usdrl outliers`."""

import json
from dataclasses import replace

import numpy as np
import pytest

from usdrl_hub import Engine, SkeletonFormatError, SkeletonList, SkeletonSequence, write_store
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.search.duplicates import find_copies, find_outliers, groups_of, motion_distance

from .helpers import run

TURN = np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("usdrl/mocap-tiny", head=False, device="cpu")


@pytest.fixture(scope="module")
def clips() -> list[SkeletonSequence]:
    return [replace(clip, split="train") for clip in load_samples()[:40]]


def changed(clip: SkeletonSequence, name: str) -> SkeletonSequence:
    """A copy that is cropped at the front, turned, moved and noisy."""
    noise = np.random.default_rng(0).normal(0, 0.01, clip.keypoints[5:].shape)
    keypoints = (clip.keypoints[5:] + noise.astype(np.float32)) @ TURN + np.float32(0.4)
    return replace(clip, keypoints=keypoints, name=name, split="test")


def test_copies_are_found_though_they_were_changed(clips, engine):
    data = SkeletonList([*clips, replace(clips[7], name="same"), changed(clips[3], "changed")])
    copies = find_copies(data, engine)
    assert [(copy.first, copy.second, copy.shift) for copy in copies] == [(3, 41, 5), (7, 40, 0)]
    assert copies[1].distance == pytest.approx(0, abs=1e-6) and copies[1].similarity == pytest.approx(1, abs=1e-3)
    assert 0.02 < copies[0].distance < 0.06
    assert find_copies(data, engine, max_distance=0.01) == copies[1:]
    sides = np.arange(42) >= 40
    assert find_copies(data, engine, sides=sides) == copies
    assert find_copies(data, engine, sides=np.arange(42) == 41) == copies[:1]


def test_distance_of_a_known_change(clips):
    """Noise of a known size, beside the size of the body."""
    clip = clips[0]
    noise = np.random.default_rng(0).normal(0, 0.02, clip.keypoints.shape).astype(np.float32)
    other = replace(clip, keypoints=(clip.keypoints + noise) @ TURN)
    away = clip.keypoints[:, 0] - clip.keypoints[:, 0].mean(1, keepdims=True)
    size = np.sqrt((away**2).sum(-1).mean())
    distance, shift = motion_distance(clip, other)
    assert shift == 0 and distance == pytest.approx(0.02 * np.sqrt(3) / size, rel=0.05)
    # A mirrored body is no turned one.
    mirrored = replace(clip, keypoints=clip.keypoints * np.array([-1, 1, 1], np.float32))
    assert motion_distance(clip, mirrored)[0] > 0.08


def test_what_is_not_comparable_is_infinitely_far(clips):
    clip = clips[0]
    half = replace(clip, keypoints=clip.keypoints[: clip.num_frames // 2])
    other_layout = SkeletonSequence(np.ones((clip.num_frames, 1, 25, 3), np.float32))
    assert motion_distance(clip, half)[0] == motion_distance(clip, other_layout)[0] == np.inf
    # Two people who stand still alike are no copies of each other; two equal files are.
    still = np.repeat(clip.keypoints[:1], 40, axis=0)
    one, other = (
        replace(clip, keypoints=still + np.random.default_rng(seed).normal(0, 0.01, still.shape).astype(np.float32))
        for seed in (0, 1)
    )
    assert motion_distance(one, other)[0] == np.inf
    assert motion_distance(one, one)[0] == pytest.approx(0, abs=1e-6)
    single = replace(clip, keypoints=clip.keypoints[:1])
    assert motion_distance(single, single) == (pytest.approx(0, abs=1e-6), 0)


def test_groups(clips, engine):
    data = SkeletonList([*clips[:12], *(replace(clips[2], name=f"same {n}") for n in range(2)), clips[5]])
    assert groups_of(find_copies(data, engine)) == [[2, 12, 13], [5, 14]]
    assert groups_of([]) == []


def test_outliers_come_first(clips, engine):
    walls = np.random.default_rng(0).normal(size=(60, 1, 39, 3)).astype(np.float32)
    strange = replace(clips[0], keypoints=walls, name="noise")
    found = find_outliers(SkeletonList([*clips, strange]), engine)
    assert found[0].index == 40
    assert found[0].ratio == pytest.approx(found[0].distance / np.median([entry.distance for entry in found]))
    assert len(found) == 41 and [entry.distance for entry in found] == sorted(
        (e.distance for e in found), reverse=True
    )
    pair = find_outliers(SkeletonList(clips[:2]), engine)
    assert [entry.nearest for entry in pair] == [1 - entry.index for entry in pair]


def test_wrong_arguments(clips, engine):
    with pytest.raises(SkeletonFormatError, match="there is 1 that can be"):
        find_copies(SkeletonList(clips[:1]), engine)
    with pytest.raises(ValueError, match="got 2"):
        find_copies(SkeletonList(clips), engine, max_distance=2)
    with pytest.raises(ValueError, match="got 0"):
        find_outliers(SkeletonList(clips), engine, neighbours=0)


def test_commands(clips, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_store([*clips[:12], changed(clips[3], "changed")], "store", load_samples().class_names)
    code, out, _ = run(capsys, "duplicates", "store", "--across-split", "--output", "copies.csv")
    assert code == 0 and "13 recordings: 1 pairs of copies, 1 test recordings are copies of training recordings" in out
    assert (tmp_path / "copies.csv").read_text().splitlines()[1].startswith(f"{clips[3].name},changed,0.0")
    code, out, _ = run(capsys, "duplicates", sample_path(), "--json", "--max-distance", "0.001")
    assert code == 0 and json.loads(out) == {"recordings": 100, "copies": []}
    code, out, _ = run(capsys, "outliers", "store", "--top-k", "3", "--output", "outliers.json")
    assert code == 0 and len(json.loads((tmp_path / "outliers.json").read_text())["outliers"]) == 13
    assert out.splitlines()[2].split() == ["recording", "distance", "times_the_median", "nearest", "label"]
    code, _, err = run(capsys, "duplicates", sample_path(), "--across-split")
    assert code == 2 and "no single split into train and test" in err
    code, _, err = run(capsys, "outliers", "store", "--output", "rows.txt")
    assert code == 2 and "rows are written as .csv, .json" in err
