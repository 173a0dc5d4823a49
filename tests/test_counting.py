"""`usdrl count`: repetitions of movements, at any rate and tempo."""

import json

import numpy as np
import pytest

from usdrl_hub import SkeletonSequence, count_repetitions
from usdrl_hub.data.samples import load_samples

from .helpers import run


def squats(count: int, fps: float = 30.0, *, seconds: float = 2.0, before: float = 0.0, uneven: float = 0.0):
    """A body whose upper joints go down and up `count` times, with `before` seconds of standing at both ends."""
    random = np.random.default_rng(count)
    durations = seconds * (1 + uneven * random.uniform(-1, 1, count))
    phase = np.concatenate(
        [np.linspace(0, 1, max(round(duration * fps), 2), endpoint=False) for duration in durations]
    )
    rest = np.zeros(round(before * fps))
    depth = np.concatenate([rest, (1 - np.cos(2 * np.pi * phase)) / 2, rest])
    body = np.random.default_rng(0).uniform(0.1, 1.7, (25, 3))
    high = (body[:, 1] > 0.9).astype(float)
    keypoints = np.repeat(body[None], len(depth), 0)
    keypoints[:, :, 1] -= 0.5 * depth[:, None] * high
    return keypoints + random.normal(0, 0.003, keypoints.shape)


@pytest.mark.parametrize("fps", [10, 30, 120])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_repetitions_are_counted_at_any_rate(fps, count):
    keypoints = squats(count, fps, uneven=0.15)
    [(_, found)] = count_repetitions(SkeletonSequence(keypoints[:, None], layout="ntu25", fps=fps))
    assert found.count == count
    assert found.spans[0, 0] == pytest.approx(0, abs=0.3 * fps)
    assert found.spans[-1, 1] == pytest.approx(len(keypoints), abs=0.3 * fps)
    assert (found.spans[1:, 0] == found.spans[:-1, 1]).all()
    assert found.period == pytest.approx(2 * fps, rel=0.2)


def test_standing_before_and_after_is_no_repetition():
    keypoints = squats(5, before=3.0)
    [(_, found)] = count_repetitions(SkeletonSequence(keypoints[:, None], layout="ntu25", fps=30.0))
    assert found.count == 5
    assert found.spans[0, 0] == pytest.approx(90, abs=10) and found.spans[-1, 1] == pytest.approx(390, abs=10)


def test_joined_recordings_of_people_are_counted():
    """The samples hold one repetition each."""
    clips = [clip for clip in load_samples() if clip.label == 0 and not clip.name.endswith("_inc")][:4]
    for count in (1, 3, 4):
        keypoints = np.concatenate([clip.keypoints for clip in clips[:count]])
        joined = SkeletonSequence(keypoints, layout=clips[0].layout, fps=clips[0].fps)
        assert count_repetitions(joined)[0][1].count == count


def test_the_person_who_moves_is_counted_and_each_alone():
    still = squats(1)[:1].repeat(180, 0)
    both = SkeletonSequence(np.stack([still, squats(3)], axis=1), layout="ntu25", fps=30.0, name="two")
    assert count_repetitions(both)[0][1].count == 3
    alone = {sequence.name: found.count for sequence, found in count_repetitions(both, each_person=True)}
    assert alone == {"two#0": 0, "two#1": 3}


def test_joints_and_frames_that_are_not_seen_change_nothing():
    keypoints = squats(4)
    keypoints[:, 3] = 0
    keypoints[50:60, 7] = 0
    keypoints = np.concatenate([np.zeros((40, 25, 3)), keypoints, np.zeros((30, 25, 3))])
    [(_, found)] = count_repetitions(SkeletonSequence(keypoints[:, None], layout="ntu25", fps=30.0))
    assert found.count == 4
    assert found.spans.min() >= 40 and found.spans.max() <= len(keypoints) - 30


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_few_frames_are_one_movement_or_none(frames):
    keypoints = squats(1)[:: 60 // frames][:frames]
    [(_, found)] = count_repetitions(SkeletonSequence(keypoints[:, None], layout="ntu25"))
    assert found.count == (0 if frames == 1 else 1)


def test_the_command_prints_a_table_and_json(capsys, tmp_path):
    np.save(tmp_path / "squats.npy", squats(6))
    code, out, _ = run(capsys, "count", tmp_path / "squats.npy", "--layout", "ntu25", "--fps", 30)
    line = out.splitlines()[-1].split()
    assert code == 0 and line[:3] == ["squats", "6", "2.0"] and "and 2 more" in out
    code, out, _ = run(capsys, "count", tmp_path / "squats.npy", "--json")
    [found] = json.loads(out)["recordings"]
    assert code == 0 and (found["count"], found["fps"], len(found["repetitions"])) == (6, None, 6)
    assert found["repetitions"][0]["start_seconds"] is None
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    code, out, err = run(capsys, "count", tmp_path)
    assert code == 2 and "broken" in err and "squats" in out and "30 frames per second are assumed" in out
