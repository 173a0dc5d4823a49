"""`Reading`: layout, axes, units and rates of files that do not state them."""

import json
import warnings

import numpy as np
import pytest

from usdrl_hub import Reading, SkeletonFormatError, SkeletonSequence, iter_skeletons, open_data, read_skeleton
from usdrl_hub.data.formats.sniffing import BY_SUFFIX
from usdrl_hub.data.readers import READERS, SUFFIXES

from .conftest import write_ntu

BODY = np.random.default_rng(0).random((12, 25, 3)).astype(np.float32)
FLAT = np.random.default_rng(1).random((12, 17, 2)).astype(np.float32)


def _only_doubts_of_bodies():
    """Every warning is an error, but that these joints, which lie at random, are no body."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*: (people|heads|toes) ")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"layout": "none-such"}, "unknown layout 'none-such'"),
        ({"default_layout": "none-such"}, "unknown layout 'none-such'"),
        ({"axes": "VTC"}, "axes must be one of TVC, TMVC, MTVC, CTVM, got 'VTC'"),
        ({"fps": 0}, "frames per second must be between 0.01 and 10000, got 0"),
        ({"fps": float("nan")}, "frames per second must be between"),
        ({"up": "up"}, "up must be one of y, z, -y, -z, x, -x, got 'up'"),
        ({"units": "ft"}, "units must be one of m, cm, mm, in, got 'ft'"),
        ({"image_shape": (1080,)}, r"image_shape must be \(height, width\) in pixels"),
        ({"image_shape": (0, 1920)}, r"image_shape must be \(height, width\) in pixels"),
        ({"missing": "zero"}, "missing must be one of refuse, interpolate, got 'zero'"),
    ],
)
def test_a_field_out_of_range_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Reading(**fields)


def test_what_a_file_does_not_say_is_filled_in(tmp_path):
    np.save(tmp_path / "walk.npy", BODY)
    with warnings.catch_warnings():
        _only_doubts_of_bodies()
        found = read_skeleton(tmp_path / "walk.npy", fps=25, up="-z", units="mm")
        assert (found.fps, found.up, found.units, found.name) == (25, "-z", "m", "walk")
        np.testing.assert_allclose(found.keypoints[:, 0], BODY * 0.001, rtol=1e-6)
        np.save(tmp_path / "flat.npy", FLAT)
        flat = read_skeleton(tmp_path / "flat.npy", Reading(fps=25), layout="coco17", image_shape=(1080, 1920))
    assert (flat.fps, flat.image_shape, flat.layout.name) == (25, (1080, 1920), "coco17")


def test_what_a_file_says_is_kept_and_the_contradiction_is_reported(tmp_path):
    path = tmp_path / "set.npz"
    keypoints = np.random.default_rng(2).random((9, 1, 17, 2)).astype(np.float32)
    np.savez(path, data=keypoints, offsets=[0, 9], fps=30.0, image_shape=(480.0, 640.0), layout="coco17")
    given = Reading("openpose18", fps=25, image_shape=(1080, 1920))
    with pytest.warns(UserWarning) as caught:
        [found] = iter_skeletons(path, given)
    assert (found.fps, found.image_shape, found.layout.name) == (30, (480, 640), "coco17")
    told = " ".join(str(warning.message) for warning in caught)
    assert "its fps is 30.0, as it says itself, and not 25" in told
    assert "its image_shape is (480.0, 640.0), as it says itself, and not (1080, 1920)" in told
    assert "its layout is coco17, as it says itself, and not openpose18" in told


def test_a_data_set_without_joint_names_has_the_layout_given(tmp_path):
    """It was read as a layout of its own, which no model knows."""
    keypoints = np.random.default_rng(2).random((9, 1, 20, 3)).astype(np.float32)
    np.savez(tmp_path / "set.npz", data=keypoints, offsets=[0, 9])
    with warnings.catch_warnings():
        _only_doubts_of_bodies()
        [found] = iter_skeletons(tmp_path / "set.npz", Reading("kinect20"))
        assert found.layout.name == open_data(tmp_path / "set.npz", "kinect20").layout.name == "kinect20"
    with pytest.raises(SkeletonFormatError, match="its layout has 17 joints, but 'data' has 20"):
        list(iter_skeletons(tmp_path / "set.npz", Reading("coco17")))


def test_a_field_replaces_the_convention_of_a_format(tmp_path):
    path = write_ntu(tmp_path / "S001C001P001R001A001.skeleton", BODY[:, None])
    assert read_skeleton(path).fps == 30
    with warnings.catch_warnings():
        _only_doubts_of_bodies()
        found = read_skeleton(path, fps=15, units="cm")
    assert found.fps == 15
    np.testing.assert_allclose(found.keypoints, read_skeleton(path).keypoints / 100, rtol=1e-5)
    with pytest.warns(UserWarning, match="its layout is ntu25, as it says itself, and not coco17"):
        assert read_skeleton(path, layout="coco17").layout == "ntu25"


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"units": "mm"}, "it is 2D, in pixels, so units has no effect"),
        ({"up": "z"}, "it is 2D, in pixels, so up has no effect"),
    ],
)
def test_a_field_without_effect_is_reported(tmp_path, fields, told):
    np.save(tmp_path / "flat.npy", FLAT)
    with pytest.warns(UserWarning, match=told):
        found = read_skeleton(tmp_path / "flat.npy", layout="coco17", **fields)
    np.testing.assert_array_equal(found.keypoints[:, 0], FLAT)
    with pytest.warns(UserWarning, match="it is 3D, so image_shape has no effect"):
        assert Reading(image_shape=(480, 640)).sequence(BODY).image_shape is None


def test_the_default_layout_is_a_hint_and_the_layout_is_not(tmp_path):
    path = tmp_path / "pose.json"
    path.write_text(json.dumps([{"image_id": 0, "keypoints": [1.0, 2.0, 0.9] * 17}]))
    [found] = iter_skeletons(path, Reading(default_layout="openpose25"))
    assert found.layout.name == "coco17"
    [found] = iter_skeletons(path, Reading(default_layout="coco17-release"))
    assert found.layout.name == "coco17-release"
    with pytest.raises(SkeletonFormatError, match="17 2D joints, but layout 'openpose25' has 25 2D joints: leave"):
        list(iter_skeletons(path, Reading("openpose25")))


@pytest.mark.parametrize("up, turned", [("x", [-2, 1, 3]), ("-x", [2, -1, 3])])
def test_a_body_lying_along_x_is_put_upright(up, turned):
    """The x axis of such data points up or down, and to the left or right of the body afterwards."""
    sequence = Reading(up=up).sequence(np.broadcast_to([1.0, 2, 3], (4, 25, 3)))
    np.testing.assert_array_equal(sequence.to_layout("ntu25").keypoints[0, 0, 0], turned)


def test_units_are_scaled_once():
    sequence = Reading(units="in").sequence(BODY)
    np.testing.assert_allclose(sequence.keypoints[:, 0], BODY * 0.0254, rtol=1e-6)
    assert sequence.to_layout("ntu25") is sequence
    with pytest.warns(UserWarning, match="its units is mm, as it says itself, and not in"):
        kept = Reading(units="in").complete(SkeletonSequence(BODY[:, None]), units="mm")
    np.testing.assert_allclose(kept.keypoints[:, 0], BODY * 0.001, rtol=1e-6)


def test_each_kind_of_file_that_is_found_in_a_folder_has_a_reader():
    assert all(BY_SUFFIX[suffix] in READERS for suffix in SUFFIXES)


@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_arrays_of_as_many_joints_as_smpl_are_smpls(tmp_path, suffix):
    """HumanML3D's ``new_joints`` needed --layout smpl22."""
    joints, layout = 22, "smpl22"
    body = np.random.default_rng(3).random((9, joints, 3))
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, body)
    else:
        path.write_text(json.dumps(body.tolist()))
    with pytest.warns(UserWarning, match=f"{joints} joints are read as layout '{layout}'"):
        assert read_skeleton(path).layout.name == layout
    with warnings.catch_warnings():
        _only_doubts_of_bodies()
        assert read_skeleton(path, layout=layout).num_frames == read_skeleton(path, default_layout=layout).num_frames


def test_arrays_without_axes_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.float32(1))
    with pytest.raises(SkeletonFormatError, match="a.npy"):
        read_skeleton(tmp_path / "a.npy")


def test_hands_and_rotations_are_not_taken_for_bodies(tmp_path):
    for name, shape in (("hand", (9, 21, 3)), ("h36m", (9, 32, 3)), ("rotations", (9, 24, 3)), ("row", (9, 72))):
        np.save(tmp_path / f"{name}.npy", np.ones(shape))
        with pytest.raises(SkeletonFormatError, match="name (another|the) layout, such as"):
            read_skeleton(tmp_path / f"{name}.npy")
