"""Kinds without a real sample here, written from what their authors publish of the form, not from the readers.

HumanML3D: ``new_joints/*.npy``, (frames, 22, 3), metres, y up; its kinematic chains give the order of the joints.
MVNX: Xsens' schema, whose elements are in the namespace http://www.xsens.com/mvn/mvnx.
Mixamo: a rig of 65 joints, with fingers, the top of the head and the ends of the toes.
SOMA (BONES-SEED): BVH of a root and 77 joints, in centimetres, y up, facing +z, 120 frames/s, root and hips with six
channels, bones along their joint's x axis and no End Sites; LeftLeg is the thigh, LeftShin the shank.
AMASS: ``poses`` (frames, 156 or 165), rotation vectors of SMPL-H's or SMPL-X's joints; the body at rest is y up, faces
+z, and has its arms out; the first rotation and ``trans`` bring it into a world that is z up.
MSR-Action3D: ``aAA_sSS_eEE_skeleton3D.txt``, 20 lines a frame: x, y, z (metres, y up, z from the camera), confidence.
"""

import numpy as np
import pytest

from usdrl_hub import SkeletonFormatError, get_layout, read_skeleton

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


FINGERS = {
    "Thumb": ("1", "2", "3", "End"),
    **dict.fromkeys(("Index", "Middle", "Ring", "Pinky"), ("1", "2", "3", "4", "End")),
}
SOMA_SIDES = {
    "Arm": "shoulder", "ForeArm": "elbow", "Hand": "wrist",
    "Leg": "hip", "Shin": "knee", "Foot": "ankle", "ToeBase": "foot",
}  # fmt: skip


def soma() -> tuple[list[str], list[int], np.ndarray]:
    """Names, parents and places ``(86, 78, 3)`` of the rig that moves as the squat, in centimetres."""
    body, joints = squat("ntu25"), get_layout("ntu25").joint_names
    names, parents, places = ["Root"], [-1], [np.zeros((86, 3))]

    def at(name: str) -> np.ndarray:
        return body[:, joints.index(name)]

    def add(name: str, parent: str, place: np.ndarray) -> None:
        parents.append(names.index(parent))
        names.append(name)
        places.append(place)

    low, top, neck, head = at("spine_base"), at("spine_shoulder"), at("neck"), at("head")
    add("Hips", "Root", low)
    for number, (name, parent) in enumerate((("Spine1", "Hips"), ("Spine2", "Spine1"), ("Chest", "Spine2"))):
        add(name, parent, low + (top - low) * (number + 1) / 4)
    add("Neck1", "Chest", neck)
    add("Neck2", "Neck1", (neck + head) / 2)
    add("Head", "Neck2", head)
    for name, offset in {"HeadEnd": (0, 0.15, 0), "Jaw": (0, -0.05, 0.05), "LeftEye": (0.03, 0, 0.08),
                         "RightEye": (-0.03, 0, 0.08)}.items():  # fmt: skip
        add(name, "Head", head + offset)
    for side in ("Left", "Right"):
        mine = side.lower()
        add(f"{side}Shoulder", "Chest", (top + at(f"{mine}_shoulder")) / 2)
        for parent, name in (("Shoulder", "Arm"), ("Arm", "ForeArm"), ("ForeArm", "Hand")):
            add(f"{side}{name}", f"{side}{parent}", at(f"{mine}_{SOMA_SIDES[name]}"))
        for row, (finger, ends) in enumerate(FINGERS.items()):
            for number, end in enumerate(ends):
                parent = f"{side}Hand{finger}{ends[number - 1]}" if number else f"{side}Hand"
                add(f"{side}Hand{finger}{end}", parent, at(f"{mine}_wrist") + (0.01 * row, -0.03 * (number + 1), 0.02))
    for side in ("Left", "Right"):
        mine = side.lower()
        for parent, name in (("Hips", "Leg"), ("Leg", "Shin"), ("Shin", "Foot"), ("Foot", "ToeBase")):
            above = parent if parent == "Hips" else f"{side}{parent}"
            add(f"{side}{name}", above, at(f"{mine}_{SOMA_SIDES[name]}"))
        add(f"{side}ToeEnd", f"{side}ToeBase", at(f"{mine}_foot") + 0.3 * (at(f"{mine}_foot") - at(f"{mine}_ankle")))
    return names, parents, 100 * np.stack(places, axis=1)


def soma_bvh(names: list[str], parents: list[int], places: np.ndarray) -> tuple[str, np.ndarray]:
    """A file whose joints have fixed offsets, and where its joints are by its own rotations ``(86, 78, 3)``."""
    children = [[child for child, parent in enumerate(parents) if parent == joint] for joint in range(len(names))]
    world = np.broadcast_to(np.eye(3), (len(names), 86, 3, 3)).copy()
    for joint in range(1, len(names)):
        if children[joint]:  # the x axis along the bone, the y axis to the front
            x = places[:, children[joint][0]] - places[:, joint]
            x /= np.linalg.norm(x, axis=-1, keepdims=True)
            y = np.array([0.1, 0.2, 1]) - x * (x @ [0.1, 0.2, 1])[:, None]
            y /= np.linalg.norm(y, axis=-1, keepdims=True)
            world[joint] = np.stack([x, y, np.cross(x, y)], axis=-1)
        else:
            world[joint] = world[parents[joint]]
    offsets, found = np.zeros((len(names), 3)), np.zeros_like(places)
    columns: list[np.ndarray] = []
    for joint, parent in enumerate(parents):
        turn = world[joint] if parent < 0 else np.swapaxes(world[parent], 1, 2) @ world[joint]
        # Z Y X as it is written: turn = Rz Ry Rx.
        z = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
        x = np.arctan2(turn[:, 2, 1], turn[:, 2, 2])
        angles = np.rad2deg(np.stack([z, -np.arcsin(turn[:, 2, 0]), x], axis=-1))
        if names[joint] in ("Root", "Hips"):
            columns.append(places[:, joint])
            found[:, joint] = places[:, joint]
        else:
            offsets[joint] = world[parent][0].T @ (places[0, joint] - places[0, parent])
            found[:, joint] = found[:, parent] + world[parent] @ offsets[joint]
        columns.append(angles)
    lines = ["HIERARCHY"]

    def write(joint: int, depth: int) -> None:
        pad = "  " * depth
        moves = "Xposition Yposition Zposition " if names[joint] in ("Root", "Hips") else ""
        lines.extend([
            f"{pad}{'JOINT' if joint else 'ROOT'} {names[joint]}", pad + "{",
            f"{pad}  OFFSET " + " ".join(f"{value:.6f}" for value in offsets[joint]),
            f"{pad}  CHANNELS {6 if moves else 3} {moves}Zrotation Yrotation Xrotation",
        ])  # fmt: skip
        for child in children[joint]:
            write(child, depth + 1)
        lines.append(pad + "}")

    write(0, 0)
    lines += ["MOTION", "Frames: 86", "Frame Time: 0.008333"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in np.concatenate(columns, axis=-1)]
    return "\n".join(lines) + "\n", found / 100


@pytest.mark.filterwarnings("ignore:.*BVH names no unit")
def test_soma(tmp_path):
    names, parents, places = soma()
    assert len(names) == 78
    text, expected = soma_bvh(names, parents, places)
    path = tmp_path / "walk_001__A001.bvh"
    path.write_text(text)
    found = read_skeleton(path)
    assert found.fps == pytest.approx(120, rel=1e-3) and found.up == "y"
    joints = get_layout("ntu25").joint_names
    keypoints = found.to_layout("ntu25").keypoints[:, 0]
    for name, joint in SOMA_SIDES.items():
        for side in ("Left", "Right"):
            place = joints.index(f"{side.lower()}_{joint}")
            of_file = expected[:, names.index(side + name)]
            np.testing.assert_allclose(keypoints[:, place], of_file, atol=1e-4, err_msg=side + name)
    assert np.linalg.norm(keypoints[:, joints.index("head")] - expected[:, names.index("Head")], axis=-1).max() < 0.15


SMPL_JOINTS = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist"
).split()
SMPL_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]


def amass_file(path, poses: np.ndarray, trans: np.ndarray, rate: str = "mocap_framerate", **more) -> None:
    """A file of the body's 22 rotation vectors ``(T, 22, 3)``; hands (and face, with ``more``) are at rest."""
    width = 165 if "surface_model_type" in more else 156
    whole = np.zeros((len(poses), width))
    whole[:, :66] = poses.reshape(len(poses), 66)
    np.savez(path, poses=whole, trans=trans, gender="female", betas=np.zeros(16), **{rate: 120.0}, **more)


@pytest.mark.parametrize("smplx", [False, True])
def test_amass_at_rest_stands_with_its_arms_out(tmp_path, smplx):
    poses = np.zeros((4, 22, 3))
    poses[:, 0, 0] = np.pi / 2  # from y up to z up
    trans = np.array([[0, 0, 0.9], [0.5, 0, 0.9], [0.5, -0.25, 0.9], [0.5, -0.25, 1.0]])
    more = {"surface_model_type": "smplx", "root_orient": poses[:, 0]} if smplx else {"dmpls": np.zeros((4, 8))}
    amass_file(tmp_path / "a.npz", poses, trans, "mocap_frame_rate" if smplx else "mocap_framerate", **more)
    found = read_skeleton(tmp_path / "a.npz")
    assert (found.layout.name, found.fps, found.up) == ("smpl22", 120, "z")
    at = dict(zip(found.layout.joint_names, np.moveaxis(found.keypoints[:, 0], 1, 0), strict=True))
    np.testing.assert_allclose(at["pelvis"] - at["pelvis"][:1], trans - trans[:1], atol=1e-6)
    heights = [
        at[name][0, 2] for name in "head neck spine3 spine2 spine1 left_hip left_knee left_ankle left_foot".split()
    ]
    assert heights == sorted(heights, reverse=True)
    assert 1.35 < heights[0] - heights[-1] < 1.75  # from the base of the skull to the ball of the foot
    for name in ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist"):
        left, right = (at[f"{side}_{name}"][0] - at["pelvis"][0] for side in ("left", "right"))
        assert left[0] > 0.03 > -0.03 > right[0], name
    assert (at["left_foot"] - at["left_ankle"])[0, 1] < -0.05  # +z of the body is -y of the world
    assert abs((at["left_wrist"] - at["left_shoulder"])[0, 2]) < 0.1
    assert 1.1 < (at["left_wrist"] - at["right_wrist"])[0, 0] < 1.6


def test_amass_turns_each_joint_in_its_parents_frame(tmp_path):
    draw = np.random.default_rng(0)
    poses = draw.normal(0, 0.6, (20, 22, 3))
    poses[0] = 0
    trans = draw.normal(0, 1, (20, 3))
    amass_file(tmp_path / "a.npz", poses, trans)
    keypoints = read_skeleton(tmp_path / "a.npz").keypoints[:, 0].astype(np.float64)
    world = np.zeros((22, 20, 3, 3))
    for joint, parent in enumerate(SMPL_PARENTS):
        angle = np.linalg.norm(poses[:, joint], axis=-1)[:, None, None]
        x, y, z = (poses[:, joint] / np.maximum(angle[:, 0], 1e-12)).T
        zero = np.zeros(20)
        cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(20, 3, 3)
        turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
        world[joint] = turn if parent < 0 else world[parent] @ turn
    for joint, parent in enumerate(SMPL_PARENTS[1:], 1):
        bone = keypoints[:, joint] - keypoints[:, parent]
        at_rest = np.einsum("tji,tj->ti", world[parent], bone)
        np.testing.assert_allclose(
            at_rest, np.broadcast_to(bone[0], at_rest.shape), atol=1e-5, err_msg=SMPL_JOINTS[joint]
        )
    np.testing.assert_allclose(np.diff(keypoints[:, 0], axis=0), np.diff(trans, axis=0), atol=1e-5)


def test_amass_bends_elbows_and_knees_to_their_side(tmp_path):
    poses = np.zeros((2, 22, 3))
    poses[:, 0, 0] = np.pi / 2
    poses[1, SMPL_JOINTS.index("left_elbow"), 1] = -np.pi / 2
    poses[1, SMPL_JOINTS.index("right_knee"), 0] = np.pi / 2
    amass_file(tmp_path / "a.npz", poses, np.zeros((2, 3)))
    keypoints = read_skeleton(tmp_path / "a.npz").to_layout("ntu25").keypoints[:, 0]
    at = dict(zip(get_layout("ntu25").joint_names, np.moveaxis(keypoints, 1, 0), strict=True))
    ahead = at["left_foot"][0] - at["left_ankle"][0]
    forearm, shank = at["left_wrist"] - at["left_elbow"], at["right_ankle"] - at["right_knee"]
    assert forearm[1] @ ahead > 0.8 * np.linalg.norm(forearm[1]) * np.linalg.norm(ahead * (1, 0, 1))
    assert shank[1] @ ahead < -0.8 * np.linalg.norm(shank[1]) * np.linalg.norm(ahead * (1, 0, 1))
    assert abs(at["right_wrist"][1] - at["right_wrist"][0]).max() < 1e-5


# Joints of MSR-Action3D as ntu25 names them, 1 to 20.
MSR = (
    "right_shoulder left_shoulder spine_shoulder spine_mid right_hip left_hip spine_base right_elbow left_elbow "
    "right_wrist left_wrist right_hand left_hand right_knee left_knee right_ankle left_ankle right_foot left_foot head"
).split()


def msr_action3d(confidence: float = 1.0) -> np.ndarray:
    """Lines ``(86 * 20, 4)`` of the squat, 2.8 m from the camera."""
    body, names = squat("ntu25"), get_layout("ntu25").joint_names
    joints = body[:, [names.index(name) for name in MSR]] + (0, 0.1, 2.8)
    return np.concatenate([joints, np.full((86, 20, 1), confidence)], axis=-1).reshape(-1, 4)


def test_msr_action3d(tmp_path):
    np.savetxt(tmp_path / "a01_s02_e03_skeleton3D.txt", msr_action3d(), fmt="%.6f")
    found = read_skeleton(tmp_path / "a01_s02_e03_skeleton3D.txt")
    assert get_layout(found.layout).name == "msr20"
    assert (found.num_frames, found.up or get_layout("msr20").up, found.coordinates) == (86, "y", "3d")
    assert (found.fps, found.label, found.subject) == (15, 0, 2)
    names, expected = get_layout("ntu25").joint_names, squat("ntu25") + (0, 0.1, 2.8)
    keypoints = found.to_layout("ntu25").keypoints[:, 0]
    for name in MSR:
        place = names.index(name)
        np.testing.assert_allclose(keypoints[:, place], expected[:, place], atol=1e-5, err_msg=name)


def test_msr_action3d_in_the_depth_image_is_refused(tmp_path):
    lines = msr_action3d()
    x, y, depth, confidence = lines.T
    path = tmp_path / "a01_s02_e03_skeleton.txt"
    image = np.stack([160 + 285 * x / depth, 120 - 285 * y / depth, 1000 * depth, confidence], axis=-1)
    np.savetxt(path, image, fmt="%.6f")
    with pytest.raises(SkeletonFormatError, match=r"places in the depth image.*_skeleton3D.txt"):
        read_skeleton(path)


def test_amass_files_of_a_persons_shape_have_no_motion(tmp_path):
    np.savez(tmp_path / "neutral_stagei.npz", betas=np.zeros(16), gender="neutral", markers_latent=np.zeros((40, 3)))
    with pytest.raises(SkeletonFormatError, match="the shape of a person"):
        read_skeleton(tmp_path / "neutral_stagei.npz")
    # Another program's joints beside a shape are not denied.
    np.savez(tmp_path / "a.npz", betas=np.zeros(10), joints3d=np.ones((4, 25, 3)), theta=np.zeros((4, 72)))
    with pytest.raises(SkeletonFormatError, match="which of the arrays betas, joints3d, theta is the skeleton"):
        read_skeleton(tmp_path / "a.npz")
