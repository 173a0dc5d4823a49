"""Notes on bodies that look implausible as they were read, and the option that mends each."""

import warnings

import numpy as np
import pytest

from usdrl_hub import Reading, SkeletonSequence, iter_skeletons, read_skeleton
from usdrl_hub.errors import USDRLWarning

from ..helpers import run
from .clip import same_squat, squat

AS_IT_IS = Reading()


def notes_of(path, reading=AS_IT_IS) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(iter_skeletons(path, reading, on_error=lambda error: None))
    return [str(item.message) for item in caught if issubclass(item.category, USDRLWarning)]


MENDED = {
    "units='mm'": (lambda points: points * 1000, Reading(units="mm")),
    "units='cm'": (lambda points: points * 100, Reading(units="cm")),
    "units='in'": (lambda points: points / 0.0254, Reading(units="in")),
    "up='-y'": (lambda points: points * (1, -1, -1), Reading(up="-y")),
    "--left-handed": (lambda points: points * (-1, 1, 1), Reading(mirrored=True)),
}


@pytest.mark.parametrize("remedy", MENDED)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_implausible_body_is_noted_with_the_option_that_mends_it(tmp_path, remedy, suffix):
    change, reading = MENDED[remedy]
    path, points = tmp_path / f"squat{suffix}", change(squat())
    if suffix == ".npy":
        np.save(path, points)
    else:
        np.savez(path, data=points[:, None], offsets=[0, 86], layout="ntu25")
    [note] = notes_of(path)
    assert note.startswith(f"{path}: ") and remedy in note
    assert notes_of(path, reading) == []
    [mended] = iter_skeletons(path, reading)
    same_squat(mended)


def test_people_who_lie_or_turn_over_are_people(tmp_path):
    for name, points in {
        "back": squat()[..., [0, 2, 1]] * (1, 1, -1),
        "side": squat()[..., [1, 0, 2]] * (-1, 1, 1),
        "handstand": np.concatenate([squat()[:30], squat() * (1, -1, -1)]),
    }.items():
        np.save(tmp_path / f"{name}.npy", points)
        assert notes_of(tmp_path / f"{name}.npy") == [], name


def test_sizes_of_2d_keypoints_and_lone_upper_bodies_are_not_judged(tmp_path):
    np.save(tmp_path / "flat.npy", squat("coco17")[..., :2] * (1000, -1000))
    upper = squat().copy() * 1000
    upper[:, 12:20] = 0
    np.save(tmp_path / "upper.npy", upper)
    assert notes_of(tmp_path / "flat.npy", Reading("coco17")) == [] == notes_of(tmp_path / "upper.npy")


def test_left_handed_axes_are_an_option_and_a_field(capsys, tmp_path):
    np.save(tmp_path / "a.npy", squat() * (-1, 1, 1))
    assert read_skeleton(tmp_path / "a.npy", mirrored=True).mirrored
    code, out, err = run(capsys, "predict", tmp_path / "a.npy", "--left-handed", "--top-k", 1)
    assert code == 0 and "deep squat" in out and err == ""
    code, _, err = run(capsys, "predict", tmp_path / "a.npy", "--top-k", 1)
    assert code == 0 and "give --left-handed" in err
    with pytest.warns(USDRLWarning, match="it is 2D, in pixels, so mirrored has no effect"):
        flat = SkeletonSequence(np.ones((2, 1, 17, 2)), "coco17")
        assert not Reading(mirrored=True).complete(flat).mirrored


@pytest.mark.parametrize("name", ["yoga_mediapipe33", "cmu_deepmimic", "utkinect"])
def test_real_people_are_plausible(shared_data, name):
    """Yoga, somersaults, and what a Kinect sees."""
    found = notes_of(shared_data / f"{name}.npz", Reading(missing="interpolate"))
    assert not [note for note in found if "tall" in note or "toes" in note or "heads" in note]
