"""Kinds without a real sample here, written from what their authors publish of the form, not from the readers.

HumanML3D: ``new_joints/*.npy``, (frames, 22, 3), metres, y up; its kinematic chains give the order of the joints.
MVNX: Xsens' schema, whose elements are in the namespace http://www.xsens.com/mvn/mvnx.
Mixamo: a rig of 65 joints, with fingers, the top of the head and the ends of the toes.
"""

import numpy as np
import pytest

from usdrl_hub import get_layout, read_skeleton

from ..motion_capture import bvh, clip, mvnx
from .clip import squat

# HumanML3D's chains: right leg, left leg, spine, right arm, left arm.
CHAINS = ([0, 2, 5, 8, 11], [0, 1, 4, 7, 10], [0, 3, 6, 9, 12, 15], [9, 14, 17, 19, 21], [9, 13, 16, 18, 20])


def humanml3d() -> np.ndarray:
    """Joints ``(86, 22, 3)`` of the squat, placed along the chains by what ntu25 has there."""
    body, names = squat("ntu25"), get_layout("ntu25").joint_names

    def at(name: str) -> np.ndarray:
        return body[:, names.index(name)]

    joints = np.zeros((86, 22, 3))
    for side, chain in zip(("right", "left"), CHAINS[:2], strict=True):
        for joint, name in zip(chain[1:], ("hip", "knee", "ankle", "foot"), strict=True):
            joints[:, joint] = at(f"{side}_{name}")
    low, mid, top = at("spine_base"), at("spine_mid"), at("spine_shoulder")
    places = (low, (2 * low + mid) / 3, mid, (mid + top) / 2, at("neck"), at("head"))
    for joint, place in zip(CHAINS[2], places, strict=True):
        joints[:, joint] = place
    for side, chain in zip(("right", "left"), CHAINS[3:], strict=True):
        joints[:, chain[1]] = (at("spine_shoulder") + at(f"{side}_shoulder")) / 2
        for joint, name in zip(chain[2:], ("shoulder", "elbow", "wrist"), strict=True):
            joints[:, joint] = at(f"{side}_{name}")
    return joints


@pytest.mark.filterwarnings("ignore:.*22 joints are read as layout 'smpl22'")
def test_humanml3d(tmp_path):
    np.save(tmp_path / "000021.npy", humanml3d().astype(np.float32))
    found = read_skeleton(tmp_path / "000021.npy", fps=20)
    assert (found.layout.name, found.fps, found.num_frames) == ("smpl22", 20, 86)
    names, expected = get_layout("ntu25").joint_names, squat("ntu25")
    keypoints = found.to_layout("ntu25").keypoints[:, 0]
    for joint in ("hip", "knee", "ankle", "foot", "shoulder", "elbow", "wrist"):
        for side in ("left", "right"):
            place = names.index(f"{side}_{joint}")
            np.testing.assert_allclose(keypoints[:, place], expected[:, place], atol=1e-5, err_msg=f"{side} {joint}")
    for joint in ("spine_base", "neck", "head"):
        place = names.index(joint)
        np.testing.assert_allclose(keypoints[:, place], expected[:, place], atol=0.02, err_msg=joint)


def test_mvnx_in_the_namespace_of_the_schema(tmp_path):
    text = mvnx(clip("xsens23"), 60)
    plain, path = tmp_path / "plain.mvnx", tmp_path / "a.mvnx"
    plain.write_text(text)
    path.write_text(text.replace("<mvnx ", '<mvnx xmlns="http://www.xsens.com/mvn/mvnx" ', 1))
    found, expected = read_skeleton(path), read_skeleton(plain)
    assert found.fps == 60 and found.layout == expected.layout
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    path.write_text(text.replace("<", "<m:").replace("<m:/", "</m:").replace("<m:?", "<?").replace(
        "<m:mvnx ", '<m:mvnx xmlns:m="http://www.xsens.com/mvn/mvnx" ', 1
    ))  # fmt: skip
    np.testing.assert_array_equal(read_skeleton(path).keypoints, expected.keypoints)


BODY = "Hips Spine Spine1 Spine2 Neck Head HeadTop_End".split()
ARM, LEG = "Shoulder Arm ForeArm Hand".split(), "UpLeg Leg Foot ToeBase Toe_End".split()
OF_SIDES = {"Arm": "shoulder", "ForeArm": "elbow", "Hand": "wrist", "UpLeg": "hip", "Leg": "knee", "Foot": "ankle"}


def mixamo() -> tuple[list[str], list[int], np.ndarray]:
    """Names, parents and places ``(86, 65, 3)`` of the rig, in centimetres."""
    body, joints = squat("ntu25"), get_layout("ntu25").joint_names
    names, parents, places = [], [], []

    def at(name: str) -> np.ndarray:
        return body[:, joints.index(name)]

    def add(name: str, parent: str, place: np.ndarray) -> None:
        parents.append(names.index(parent) if parent else -1)
        names.append(name)
        places.append(place)

    low, top = at("spine_base"), at("spine_shoulder")
    for number, name in enumerate(BODY[:4]):
        add(name, BODY[number - 1] if number else "", low + (top - low) * number / 3)
    add("Neck", "Spine2", at("neck"))
    add("Head", "Neck", at("head"))
    add("HeadTop_End", "Head", at("head") + (0, 0.15, 0))
    for side in ("Left", "Right"):
        mine = side.lower()
        add(f"{side}Shoulder", "Spine2", (top + at(f"{mine}_shoulder")) / 2)
        for parent, name in zip(ARM[:-1], ARM[1:], strict=True):
            add(f"{side}{name}", f"{side}{parent}", at(f"{mine}_{OF_SIDES[name]}"))
        for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky"):
            for number in range(1, 5):
                parent = f"{side}Hand{finger}{number - 1}" if number > 1 else f"{side}Hand"
                add(f"{side}Hand{finger}{number}", parent, at(f"{mine}_wrist") - (0, 0.02 * number, 0))
        for parent, name in zip(("Hips", *LEG[:2]), LEG[:3], strict=True):
            above = parent if parent == "Hips" else f"{side}{parent}"
            add(f"{side}{name}", above, at(f"{mine}_{OF_SIDES[name]}"))
        add(f"{side}ToeBase", f"{side}Foot", at(f"{mine}_foot"))
        toes = at(f"{mine}_foot")
        add(f"{side}Toe_End", f"{side}ToeBase", toes + 0.3 * (toes - at(f"{mine}_ankle")))
    return [f"mixamorig:{name}" for name in names], parents, 100 * np.stack(places, axis=1)


@pytest.mark.filterwarnings("ignore:.*BVH names no unit")
def test_mixamo(tmp_path):
    names, parents, places = mixamo()
    assert len(names) == 65
    (tmp_path / "a.bvh").write_text(bvh(names, parents, places, 30, order="ZYX"))
    found = read_skeleton(tmp_path / "a.bvh")
    assert found.fps == 30 and found.up == "y"
    joints, expected = get_layout("ntu25").joint_names, squat("ntu25")
    keypoints = found.to_layout("ntu25").keypoints[:, 0]
    for name in (*OF_SIDES.values(), "foot"):
        for side in ("left", "right"):
            place = joints.index(f"{side}_{name}")
            np.testing.assert_allclose(keypoints[:, place], expected[:, place], atol=1e-3, err_msg=f"{side} {name}")
