import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usdrl_hub import LAYOUTS, Layout, convert_layout, get_layout
from usdrl_hub.layouts import conversion_weights, match_layout, seen_joints

# Markers on the skin can be turned into joints, but joints not into markers.
MARKERS = ("ui-prmd39", "opencap51")
CONVERTIBLE = [(a, b) for a in LAYOUTS for b in LAYOUTS if b not in MARKERS or a == b]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_unique_names_and_survives_its_json_form(name):
    layout = get_layout(name)
    assert len(set(layout.joint_names)) == layout.num_joints
    assert get_layout(layout.to_config()) == layout
    assert all(0 <= parent < layout.num_joints for parent in layout.parents)


def test_release_bones_are_those_of_the_specification():
    assert get_layout("ntu25").parents[0] == 1 and get_layout("ntu25").parents[20] == 20
    # Joint 6 counted from one has no bone in the release's list.
    assert get_layout("coco17-release").parents[5] == 5
    assert get_layout("coco17-release").parents[9] == 7 and get_layout("coco17").parents[9] == 7


@pytest.mark.parametrize(
    "name, places",
    [
        # As the writers of such files number them.
        ("halpe26", {"right_ankle": 16, "head": 17, "neck": 18, "hip": 19, "right_big_toe": 21, "left_heel": 24}),
        ("wholebody23", {"right_ankle": 16, "left_big_toe": 17, "left_heel": 19, "right_big_toe": 20}),
        ("posetrack17", {"head_bottom": 1, "head_top": 2, "left_ear": 3, "left_shoulder": 5, "right_ankle": 16}),
        ("azure32", {"pelvis": 0, "neck": 3, "left_thumb": 10, "right_shoulder": 12, "left_hip": 18, "head": 26}),
        ("panoptic19", {"neck": 0, "nose": 1, "mid_hip": 2, "left_wrist": 5, "right_shoulder": 9, "right_ear": 18}),
        ("msr20", {"shoulder_center": 2, "spine": 3, "hip_center": 6, "right_hand": 11, "left_foot": 18, "head": 19}),
        ("keraal17", {"right_forearm": 0, "chest": 4, "left_hand": 10, "hips": 13, "head": 14, "left_tibia": 16}),
    ],
)
def test_joints_lie_where_such_files_have_them(name, places):
    names = get_layout(name).joint_names
    assert {joint: names.index(joint) for joint in places} == places


@pytest.mark.parametrize("source, target", CONVERTIBLE)
def test_each_joint_is_an_average(source, target):
    weights = conversion_weights(get_layout(source), get_layout(target))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    # Limbs are extended by little.
    assert weights.min() >= -2
    if source == target:
        np.testing.assert_array_equal(weights, np.eye(len(weights)))


@pytest.mark.parametrize("source, target", CONVERTIBLE)
def test_conversion_treats_left_and_right_alike(source, target):
    source, target = get_layout(source), get_layout(target)
    weights = conversion_weights(source, target)
    mirrored = weights[list(target.mirrored)][:, list(source.mirrored)]
    np.testing.assert_allclose(mirrored, weights, atol=1e-6)


# Markers lie on the skin: a joint is the mean of several, and none is found again.
@pytest.mark.parametrize("source, target", [pair for pair in CONVERTIBLE if pair[0] not in MARKERS])
def test_common_joints_survive_a_round_trip(source, target):
    source, target = get_layout(source), get_layout(target)
    keypoints = np.random.default_rng(0).uniform(1, 2, (2, source.num_joints, 3)).astype(np.float32)
    back = convert_layout(convert_layout(keypoints, source, target, "y"), target, source, "y")
    for number, name in enumerate(source.joint_names):
        if name in target.joint_names:
            np.testing.assert_array_equal(back[:, number], keypoints[:, number])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_conversion_commutes_with_moving_and_scaling(seed, scale):
    keypoints = np.random.default_rng(seed).uniform(1, 2, (3, 1, 20, 3)).astype(np.float32)
    moved = convert_layout(keypoints * np.float32(scale) + 5, "kinect20", "ntu25")
    np.testing.assert_allclose(moved, convert_layout(keypoints, "kinect20", "ntu25") * scale + 5, rtol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_joints_that_both_layouts_name_are_taken_as_they_are(seed):
    keypoints = np.random.default_rng(seed).normal(size=(2, 20, 3)).astype(np.float32)
    source, target = get_layout("kinect20"), get_layout("ntu25")
    converted = convert_layout(keypoints, source, target)
    for number, name in enumerate(target.joint_names):
        if name in source.joint_names:
            np.testing.assert_array_equal(converted[:, number], keypoints[:, source.joint_names.index(name)])


@pytest.mark.parametrize("name", LAYOUTS)
def test_mirroring_twice_is_the_identity_and_swaps_sides(name):
    layout = get_layout(name)
    mirrored = layout.mirrored
    assert [mirrored[joint] for joint in mirrored] == list(range(layout.num_joints))
    sided = [joint for joint in layout.joint_names if joint.startswith(("left_", "right_"))]
    assert sum(joint != other for joint, other in enumerate(mirrored)) >= len(sided)
    if name == "ui-prmd39":
        swapped = {layout.joint_names[j] for j, other in enumerate(mirrored) if j != other}
        assert {name for name in layout.joint_names if name not in swapped} == {"C7", "T10", "CLAV", "STRN", "RBAK"}


def test_missing_joints_are_left_out_of_averages_and_stay_missing():
    layout = get_layout("ui-prmd39")
    keypoints = np.ones((1, 39, 3), np.float32)
    names = layout.joint_names
    keypoints[0, names.index("LWRA")] = 0
    keypoints[0, names.index("LWRB")] = 3
    keypoints[0, names.index("RELB")] = 0
    converted = convert_layout(keypoints, "ui-prmd39", "ntu25", up="y")[0]
    ntu = get_layout("ntu25").joint_names
    np.testing.assert_allclose(converted[ntu.index("left_wrist")], 3)
    np.testing.assert_array_equal(converted[ntu.index("right_elbow")], 0)


def test_an_extended_limb_ends_at_its_last_joint_where_a_part_is_missing():
    names = get_layout("coco17").joint_names
    keypoints = np.ones((1, 17, 3), np.float32)
    keypoints[0, names.index("left_wrist")] = (2, 2, 1)
    whole = convert_layout(keypoints, "uav17", "ntu25")[0, 7]
    keypoints[0, names.index("left_elbow")] = 0
    np.testing.assert_allclose(whole, (2.15, 2.15, 1), rtol=1e-6)
    np.testing.assert_allclose(convert_layout(keypoints, "uav17", "ntu25")[0, 7], (2, 2, 1))


def test_a_made_joint_is_as_sure_as_its_least_sure_part():
    names = get_layout("coco17").joint_names
    keypoints = np.ones((1, 17, 3), np.float32)
    keypoints[0, names.index("left_hip"), 2] = 0.25
    keypoints[0, names.index("left_shoulder")] = (7, 7, 0)
    converted = convert_layout(keypoints, "coco17", "openpose25")[0]
    target = get_layout("openpose25").joint_names
    np.testing.assert_allclose(converted[target.index("mid_hip")], (1, 1, 0.25))
    # A joint of score 0 was not seen, whatever its coordinates.
    assert not converted[target.index("left_shoulder")].any()


def test_z_up_becomes_y_up_without_mirroring():
    keypoints = np.zeros((1, 39, 3), np.float32)
    keypoints[0, :] = (1, 2, 3)
    np.testing.assert_allclose(convert_layout(keypoints, "ui-prmd39", "ntu25")[0, 0], (1, 3, -2), rtol=1e-6)


def test_file_joint_order_is_recognised():
    names = list(get_layout("kinect20").joint_names)
    shuffled = names[::-1]
    layout, order = match_layout(shuffled, [])
    assert layout.name == "kinect20" and [shuffled[i] for i in order] == names
    layout, order = match_layout(["a", "b", "c"], [[1, 0], [2, 1]])
    assert layout.name == "custom" and layout.parents == (0, 0, 1) and order == [0, 1, 2]


@pytest.mark.parametrize(
    "layout, message",
    [
        ("ntu26", "unknown layout 'ntu26'"),
        ({"joint_names": ["a"]}, "needs 'joint_names' and 'bones'"),
        ({"joint_names": ["a"], "bones": [[0, 1]]}, "joint 1 is used"),
        ({"joint_names": ["a", "b"], "bones": [[0, 1], [0, 0]]}, "two parents"),
        ({"joint_names": ["a"], "bones": [], "centre": 0}, "no field 'centre'"),
        ([[0, 1], 3], "list of"),
        ({"joint_names": ["a", "a"], "bones": []}, "the same name"),
        ({"joint_names": ["a"], "bones": [], "up": "w"}, "up must be one of"),
        ({"joint_names": ["a"], "bones": [], "coordinates": "4d"}, "coordinates must be"),
        ({"joint_names": 5, "bones": []}, "a custom layout needs a list of joint_names"),
        ({"joint_names": ["a"], "bones": [], "x_axis": 5}, "a custom layout needs"),
        ({"joint_names": ["a"], "bones": [], "center": "a"}, "a custom layout needs"),
    ],
)
def test_impossible_layouts_are_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        get_layout(layout)


def test_conversion_that_nothing_defines_is_refused():
    with pytest.raises(ValueError, match="nothing says what its 'LBHD' is"):
        convert_layout(np.ones((1, 25, 3), np.float32), "ntu25", "ui-prmd39")
    with pytest.raises(ValueError, match="nothing says what its 'spine_base' is"):
        convert_layout(np.ones((1, 2, 3), np.float32), [(1, 0)], "ntu25")
    with pytest.raises(ValueError, match="has 25"):
        convert_layout(np.ones((1, 24, 3), np.float32), "ntu25", "ntu25")


def test_custom_layout_keeps_its_axes_in_json():
    derived = {"head": "a*2 b"}
    layout = Layout("mine", ("a", "b", "c"), ((1, 0), (2, 1)), ((0, 2),), 1, (0, 2), up="z", derived=derived)
    assert get_layout(layout.to_config()) == layout


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
def test_a_joint_is_seen_if_a_coordinate_is_not_zero_and_its_score_is_above_zero(make):
    keypoints = make(np.array([[0, 0, 0], [0, -1, 0], [0, 0, 0.5], [3, 4, 0.5]], dtype=np.float32))
    assert seen_joints(keypoints).tolist() == [False, True, True, True]
    assert seen_joints(keypoints, has_score=True).tolist() == [False, False, True, True]
