"""Motion-capture files: BVH, ASF/AMC, C3D, TRC, MVNX and AMASS give the clip that they were made of, upright."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usdrl_hub import Reading, SkeletonFormatError, get_layout, read_skeleton
from usdrl_hub.data.formats.bodies import height_of
from usdrl_hub.data.formats.joint_names import JOINTS, RIGS, find_joints, named_layout
from usdrl_hub.data.formats.lines import rate_of

from .. import motion_capture
from ..helpers import run
from ..motion_capture import FPS, MOTIONBUILDER, clip, in_ntu25, rigid, tree, write
from .clip import SHARED

HERE = Path(__file__).parent.parent / "recordings"
NTU25 = get_layout("ntu25").joint_names
MARKERS = list(get_layout("ui-prmd39").joint_names)
SMPL22 = get_layout("smpl22").joint_names
BVH_NAMES = [MOTIONBUILDER[name] for name in SMPL22]
# Joints of ntu25 that a skeleton as MotionBuilder's has itself.
OWN = ["spine_base", "neck", "head", *(f"{side}_{joint}" for side in ("left", "right") for joint in
       ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "foot"))]  # fmt: skip


def read(path, **fields):
    """A recording and what was told."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sequence = read_skeleton(path, **fields)
    return sequence, [str(warning.message) for warning in told]


def joints(keypoints, names=OWN):
    return keypoints[..., [NTU25.index(name) for name in names], :]


def as_ntu25(sequence):
    return sequence.to_layout("ntu25").keypoints


def assert_upright(sequence):
    """Head above ankles, left hip on the left of who looks along the toes, height of a person."""
    keypoints = as_ntu25(sequence)[:, 0].astype(np.float64)
    seen = keypoints.any(-1)
    point = dict(zip(NTU25, keypoints.transpose(1, 0, 2), strict=True))
    ankles = (point["left_ankle"] + point["right_ankle"]) / 2
    there = seen.all(-1)
    assert there.mean() > 0.5
    assert np.median((point["head"] - ankles)[there, 1]) > 0.8
    toes = (point["left_foot"] + point["right_foot"]) / 2 - ankles
    ahead = np.cross(point["left_hip"] - point["right_hip"], [0, 1, 0])
    assert np.median((ahead * toes).sum(-1)[there]) > 0
    assert 1.2 < height_of(keypoints[:, None], get_layout("ntu25")) < 2.2


# --- The clip in each form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [-1.0, 0.1])
@pytest.mark.parametrize("processor", [84, 85, 86])
def test_c3d_gives_the_clip(tmp_path, scale, processor):
    content = motion_capture.c3d(MARKERS, clip() * 1000, FPS, "mm", scale=scale, processor=processor, analog=3)
    sequence, told = read(write(tmp_path, "a.c3d", content))
    assert get_layout(sequence.layout).name == "ui-prmd39" and sequence.units == "m" and not told
    assert sequence.fps == pytest.approx(FPS) and sequence.keypoints.shape == (86, 1, 39, 3)
    np.testing.assert_allclose(sequence.keypoints[:, 0], clip(), atol=6e-5 if scale > 0 else 1e-6)
    np.testing.assert_allclose(as_ntu25(sequence)[:, 0], in_ntu25(clip()), atol=2e-4)


@pytest.mark.parametrize("separator", ["\t", ","])
def test_trc_gives_the_clip(tmp_path, separator):
    # OpenSim's y points up.
    turned = clip()[..., [0, 2, 1]] * [1, 1, -1]
    text = motion_capture.trc(MARKERS, turned * 1000, FPS, "mm", separator=separator)
    sequence, told = read(write(tmp_path, "a.trc", text))
    assert get_layout(sequence.layout).name == "ui-prmd39" and sequence.up == "y" and not told
    assert sequence.fps == pytest.approx(FPS)
    np.testing.assert_allclose(as_ntu25(sequence)[:, 0], in_ntu25(clip()), atol=2e-6)


@pytest.mark.parametrize("unit", [1, 100, 1000, 1 / 0.0254, 0.45 / 0.0254, 0.2])
def test_bvh_gives_the_clip_whatever_its_unit(tmp_path, unit):
    positions = clip("smpl22")
    text = motion_capture.bvh(BVH_NAMES, tree("smpl22"), positions * unit, FPS)
    sequence, told = read(write(tmp_path, "a.bvh", text))
    assert sequence.fps == pytest.approx(FPS, rel=1e-5) and sequence.up == "y" and len(told) == 1 and "unit" in told[0]
    wanted = positions * (1.7 / (height_of(positions[:, None], get_layout("smpl22"))) if unit == 0.2 else 1)
    assert "scaled to 1.7 m" in told[0] if unit == 0.2 else "a.bvh: BVH names no unit: by its height" in told[0]
    own = get_layout(sequence.layout).joint_names
    for joint in set(own) & set(SMPL22):
        np.testing.assert_allclose(
            sequence.keypoints[:, 0, own.index(joint)],
            wanted[:, SMPL22.index(joint)],
            atol=3e-5 if unit > 0.5 else 1e-4,
        )
    if unit == 1:
        np.testing.assert_allclose(joints(as_ntu25(sequence)[:, 0]), joints(in_ntu25(clip())), atol=0.02)


@pytest.mark.parametrize("order", ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX"])
def test_bvh_turns_about_its_channels_in_their_order(tmp_path, order):
    """All orders of axes, of bones of fixed lengths."""
    positions = rigid(clip("smpl22"), tree("smpl22"))
    names, parents = BVH_NAMES, tree("smpl22")
    sequence, _ = read(
        write(tmp_path, "a.BVH", motion_capture.bvh(names, parents, positions * 100, order=order, moving=True)),
        units="cm",
    )
    own = get_layout(sequence.layout).joint_names
    for joint in ("left_wrist", "right_foot", "head", "left_knee"):
        np.testing.assert_allclose(
            sequence.keypoints[:, 0, own.index(joint)], positions[:, SMPL22.index(joint)], atol=1e-5
        )


def test_bvh_of_fixed_bones(tmp_path):
    """Only the root moves; limbs of one child each follow exactly."""
    positions = rigid(clip("smpl22"), tree("smpl22"))
    text = motion_capture.bvh(BVH_NAMES, tree("smpl22"), positions * 100, moving=False)
    sequence, _ = read(write(tmp_path, "a.bvh", text), units="cm")
    own, found = get_layout(sequence.layout).joint_names, sequence.keypoints[:, 0]
    for side in ("left", "right"):
        for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
            a, b = f"{side}_{start}", f"{side}_{end}"
            bone = found[:, own.index(b)] - found[:, own.index(a)]
            wanted = positions[:, SMPL22.index(b)] - positions[:, SMPL22.index(a)]
            np.testing.assert_allclose(bone, wanted, atol=1e-5)
    assert_upright(sequence)


def test_amc_gives_the_clip(tmp_path):
    positions = rigid(clip("cmu31"), tree("cmu31"))
    asf, amc = motion_capture.asf_amc(positions)
    write(tmp_path, "01.asf", asf)
    sequence, told = read(write(tmp_path, "01_02.amc", amc))
    assert get_layout(sequence.layout).name == "cmu31" and sequence.fps == 120 and sequence.up == "y" and not told
    np.testing.assert_allclose(sequence.keypoints[:, 0], positions, atol=2e-5)
    assert_upright(sequence)


def test_mvnx_gives_the_clip(tmp_path):
    positions = clip("xsens23")
    sequence, told = read(write(tmp_path, "a.mvnx", motion_capture.mvnx(positions, 60)))
    assert get_layout(sequence.layout).name == "xsens23" and sequence.fps == 60 and sequence.up == "z" and not told
    np.testing.assert_allclose(sequence.keypoints[:, 0], positions, atol=1e-6)
    limbs = ["left_knee", "right_wrist", "left_shoulder"]
    np.testing.assert_allclose(joints(as_ntu25(sequence)[:, 0], limbs), joints(in_ntu25(clip()), limbs), atol=2e-5)
    assert_upright(sequence)


def test_mvnx_may_name_a_document_type_that_is_not_fetched(tmp_path):
    text = motion_capture.mvnx(clip("xsens23")).replace(
        "?>", '?>\n<!DOCTYPE mvnx SYSTEM "http://127.0.0.1:9/mvn/mvnx/schema.dtd">', 1
    )
    np.testing.assert_allclose(read(write(tmp_path, "a.mvnx", text))[0].keypoints[:, 0], clip("xsens23"), atol=1e-6)


@pytest.mark.parametrize("width", [66, 72, 156, 165])
def test_amass_gives_the_motion_of_the_clip(tmp_path, width):
    """The body is our own; the directions of its limbs are those of the clip."""
    positions = clip("smpl22")
    arrays = motion_capture.amass(positions, 100.0, width)
    arrays |= {"labels": np.array([None, "x"], object)}
    sequence, told = read(write(tmp_path, "a.npz", arrays))
    assert get_layout(sequence.layout).name == "smpl22" and sequence.fps == 100 and sequence.up == "z" and not told
    found = as_ntu25(sequence)[:, 0]
    for side in ("left", "right"):
        for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
            bone, wanted = (
                joints(keypoints, [f"{side}_{end}"]) - joints(keypoints, [f"{side}_{start}"])
                for keypoints in (found, in_ntu25(clip()))
            )
            cosine = (bone * wanted).sum(-1) / np.linalg.norm(bone, axis=-1) / np.linalg.norm(wanted, axis=-1)
            assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 12, (side, start)
    assert_upright(sequence)


def test_the_recogniser_sees_a_deep_squat_in_each_form(tmp_path, capsys):
    for path in motion_capture.write_squats(tmp_path):
        code, out, err = run(capsys, "predict", path)
        assert code == 0 and "deep squat" in out, (path, out, err)


# --- Names of joints and markers -------------------------------------------------------------------------------------


NAMES = {
    "Mixamo": (
        "mixamorig:Hips mixamorig:Spine mixamorig:Neck mixamorig:Head mixamorig:LeftEye mixamorig:RightEye "
        "mixamorig:LeftShoulder mixamorig:LeftArm mixamorig:LeftForeArm mixamorig:LeftHand "
        "mixamorig:RightShoulder mixamorig:RightArm mixamorig:RightForeArm mixamorig:RightHand "
        "mixamorig:LeftUpLeg mixamorig:LeftLeg mixamorig:LeftFoot mixamorig:LeftToeBase mixamorig:RightUpLeg "
        "mixamorig:RightLeg mixamorig:RightFoot mixamorig:RightToeBase"
    ),
    "Xsens": (
        "Hips Chest Chest2 Chest3 Chest4 Neck Head RightCollar RightShoulder RightElbow RightWrist "
        "LeftCollar LeftShoulder LeftElbow LeftWrist RightHip RightKnee RightAnkle RightToe LeftHip LeftKnee "
        "LeftAnkle LeftToe"
    ),
    "Biped": (
        "Bip01|Bip01 Pelvis|Bip01 Spine|Bip01 Neck|Bip01 Head|Bip01 L Clavicle|Bip01 L UpperArm|"
        "Bip01 L Forearm|Bip01 L Hand|Bip01 R Clavicle|Bip01 R UpperArm|Bip01 R Forearm|Bip01 R Hand|"
        "Bip01 L Thigh|Bip01 L Calf|Bip01 L Foot|Bip01 L Toe0|Bip01 R Thigh|Bip01 R Calf|Bip01 R Foot|"
        "Bip01 R Toe0"
    ),
    "Bandai": (
        "joint_Root Hips Spine Chest Neck Head Shoulder_L UpperArm_L LowerArm_L Hand_L Shoulder_R UpperArm_R "
        "LowerArm_R Hand_R UpperLeg_L LowerLeg_L Foot_L Toes_L UpperLeg_R LowerLeg_R Foot_R Toes_R"
    ),
    "iClone": (
        "RL_BoneRoot CC_Base_Hip CC_Base_Pelvis CC_Base_L_Thigh CC_Base_L_Calf CC_Base_L_Foot "
        "CC_Base_L_ToeBase CC_Base_R_Thigh CC_Base_R_Calf CC_Base_R_Foot CC_Base_R_ToeBase CC_Base_Waist "
        "CC_Base_Spine01 CC_Base_Spine02 CC_Base_NeckTwist01 CC_Base_NeckTwist02 CC_Base_Head "
        "CC_Base_L_Clavicle CC_Base_L_Upperarm CC_Base_L_Forearm CC_Base_L_Hand CC_Base_R_Clavicle "
        "CC_Base_R_Upperarm CC_Base_R_Forearm CC_Base_R_Hand"
    ),
    "Rokoko": (
        "Hips Spine Spine1 Spine2 Neck Head LeftShoulder LeftArm LeftForeArm LeftHand RightShoulder RightArm "
        "RightForeArm RightHand LeftThigh LeftShin LeftFoot LeftToe RightThigh RightShin RightFoot RightToe"
    ),
    "SOMA": (
        "Root Hips Spine1 Spine2 Chest Neck1 Neck2 Head HeadEnd Jaw LeftEye RightEye LeftShoulder LeftArm "
        "LeftForeArm LeftHand RightShoulder RightArm RightForeArm RightHand LeftLeg LeftShin LeftFoot "
        "LeftToeBase RightLeg RightShin RightFoot RightToeBase"
    ),
    "Neuron": (
        "Robot_Hips Robot_RightUpLeg Robot_RightLeg Robot_RightFoot Robot_LeftUpLeg Robot_LeftLeg "
        "Robot_LeftFoot Robot_Spine Robot_Spine1 Robot_Neck Robot_Head Robot_RightShoulder Robot_RightArm "
        "Robot_RightForeArm Robot_RightHand Robot_LeftShoulder Robot_LeftArm Robot_LeftForeArm "
        "Robot_LeftHand"
    ),
    "Unreal": (
        "root pelvis spine_01 neck_01 head clavicle_l upperarm_l lowerarm_l hand_l clavicle_r upperarm_r "
        "lowerarm_r hand_r thigh_l calf_l foot_l ball_l thigh_r calf_r foot_r ball_r"
    ),
    "SMPL": (
        "Pelvis L_Hip L_Knee L_Ankle L_Foot R_Hip R_Knee R_Ankle R_Foot Spine1 Spine2 Spine3 Neck L_Collar "
        "L_Shoulder L_Elbow L_Wrist R_Collar R_Shoulder R_Elbow R_Wrist Head"
    ),
    "CMU": (
        "Hips LHipJoint LeftUpLeg LeftLeg LeftFoot LeftToeBase RHipJoint RightUpLeg RightLeg RightFoot "
        "RightToeBase LowerBack Spine Spine1 Neck Neck1 Head LeftShoulder LeftArm LeftForeArm LeftHand "
        "LeftFingerBase RightShoulder RightArm RightForeArm RightHand RThumb"
    ),
}
# The file's names of left hip, left knee, left shoulder and right wrist.
LIMBS = {
    "Mixamo": "mixamorig:LeftUpLeg mixamorig:LeftLeg mixamorig:LeftArm mixamorig:RightHand",
    "Xsens": "LeftHip LeftKnee LeftShoulder RightWrist",
    "Biped": "Bip01 L Thigh|Bip01 L Calf|Bip01 L UpperArm|Bip01 R Hand",
    "Bandai": "UpperLeg_L LowerLeg_L UpperArm_L Hand_R",
    "iClone": "CC_Base_L_Thigh CC_Base_L_Calf CC_Base_L_Upperarm CC_Base_R_Hand",
    "Rokoko": "LeftThigh LeftShin LeftArm RightHand",
    "SOMA": "LeftLeg LeftShin LeftArm RightHand",
    "Neuron": "Robot_LeftUpLeg Robot_LeftLeg Robot_LeftArm Robot_RightHand",
    "Unreal": "thigh_l calf_l upperarm_l hand_r",
    "SMPL": "L_Hip L_Knee L_Shoulder R_Wrist",
    "CMU": "LeftUpLeg LeftLeg LeftArm RightHand",
}


@pytest.mark.parametrize("rig", NAMES)
def test_joints_are_known_by_the_names_of_each_program(rig):
    names, limbs = (table[rig].split("|" if "|" in table[rig] else " ") for table in (NAMES, LIMBS))
    found = {joint: names[index] for joint, index in find_joints(names).items()}
    assert [found[joint] for joint in ("left_hip", "left_knee", "left_shoulder", "right_wrist")] == limbs
    assert {"spine_base", "neck", "head"} <= set(found)
    assert found["spine_base"].lower().endswith(("hips", "pelvis", "hip"))
    assert ("left_foot" in found) == (rig != "Neuron")


def test_a_rig_of_ones_own_is_one_more_entry(tmp_path, monkeypatch):
    names = [name.replace("UpLeg", "Femur").replace("Leg", "Tibial") for name in BVH_NAMES]
    path = write(tmp_path, "a.bvh", motion_capture.bvh(names, tree("smpl22"), clip("smpl22") * 100))
    with pytest.raises(
        SkeletonFormatError, match="is known as left_hip, right_hip, left_knee: name them with --layout"
    ):
        read(path)
    legs = {"@_hip": "@Femur", "@_knee": "@Tibial", "@_ankle": "@Foot", "@_foot": "@ToeBase"}
    monkeypatch.setitem(RIGS, "My rig", legs)
    assert_upright(read(path)[0])


def test_a_layout_of_ones_own_names_the_joints_of_a_file(tmp_path):
    names = [f"j{number}" for number in range(22)]
    path = write(tmp_path, "a.bvh", motion_capture.bvh(names, tree("smpl22"), clip("smpl22") * 100))
    bones = [(joint, max(parent, 0)) for joint, parent in enumerate(tree("smpl22"))]
    derived = dict(zip(SMPL22, names, strict=True))
    layout = {"name": "mine", "joint_names": names, "bones": bones, "derived": derived}
    sequence, _ = read(path, layout=layout)
    assert get_layout(sequence.layout).name == "mine" and sequence.keypoints.shape == (86, 1, 22, 3)
    assert_upright(sequence)
    with pytest.raises(SkeletonFormatError, match="a.bvh: it has no joint 'x' of layout 'mine'"):
        read(path, layout=layout | {"joint_names": ["x", *names[1:]]})


def test_a_command_takes_a_layout_from_a_file(tmp_path, capsys):
    names = [f"j{number}" for number in range(22)]
    path = write(tmp_path, "a.bvh", motion_capture.bvh(names, tree("smpl22"), clip("smpl22") * 100, FPS))
    bones = [(joint, max(parent, 0)) for joint, parent in enumerate(tree("smpl22"))]
    layout = {"joint_names": names, "bones": bones, "derived": dict(zip(SMPL22, names, strict=True))}
    file = write(tmp_path, "mine.json", json.dumps(layout))
    code, out, _ = run(capsys, "predict", path, "--layout", file)
    assert code == 0 and "deep squat" in out
    for content, sentence in (("{", "it describes no layout"), ('{"joint_names": ["a"]}', "needs 'joint_names' and")):
        file.write_text(content)
        code, _, err = run(capsys, "predict", path, "--layout", file)
        assert code == 2 and f"{file}: " in err and sentence in err
    code, _, err = run(capsys, "predict", path, "--layout", tmp_path / "none.json")
    assert code == 2 and "none.json: it cannot be read: No such file" in err


def test_joints_of_ours_make_a_layout():
    layout = named_layout(JOINTS)
    assert layout.joint_names == JOINTS and layout.center == JOINTS.index("spine_base")
    assert layout.mirrored[JOINTS.index("left_knee")] == JOINTS.index("right_knee")


@pytest.mark.parametrize(
    "lost", [["RBAK"], ["LUPA", "LFRM", "RUPA", "LTHI"], ["LPSI", "RPSI", "RBAK"], ["T10", "STRN", "LFIN"]]
)
def test_markers_that_are_not_there_leave_the_joints_that_the_others_make(tmp_path, lost):
    kept = [name for name in MARKERS if name not in lost]
    points = clip()[:, [MARKERS.index(name) for name in kept]]
    names = kept
    if "LPSI" in lost:
        names = [*kept, "SACR"]
        back = clip()[:, [MARKERS.index("LPSI"), MARKERS.index("RPSI")]].mean(1, keepdims=True)
        points = np.concatenate([points, back], axis=1)
    sequence, _ = read(write(tmp_path, "a.c3d", motion_capture.c3d(names, points * 1000, FPS)))
    assert get_layout(sequence.layout).name == "named"
    found, wanted = as_ntu25(sequence)[:, 0], in_ntu25(clip())
    np.testing.assert_allclose(joints(found, OWN), joints(wanted, OWN), atol=0.05 if "LPSI" in lost else 2e-5)


def test_a_lower_body_is_refused_by_what_is_missing(tmp_path):
    legs = [name for name in MARKERS if name[1:] in ("ASI", "PSI", "THI", "KNE", "TIB", "ANK", "HEE", "TOE")]
    points = clip()[:, [MARKERS.index(name) for name in legs]]
    path = write(tmp_path, "legs.c3d", motion_capture.c3d(legs, points * 1000))
    with pytest.raises(
        SkeletonFormatError, match="legs.c3d: its 16 markers .* head or neck or nose, left_shoulder"
    ) as caught:
        read(path)
    assert len(str(caught.value)) <= 300


def test_cells_of_points_without_a_name_are_left_out(tmp_path):
    """As Cortex writes them, in some rows only."""
    lines = motion_capture.trc(MARKERS, clip() * 1000).split("\n")
    lines[10] += "\t1.5\t2.5\t3.5\t"
    sequence, told = read(write(tmp_path, "a.trc", "\n".join(lines)))
    np.testing.assert_allclose(sequence.keypoints[:, 0], clip(), atol=1e-5)
    assert any("points behind those that have names are left out" in line for line in told)


def test_markers_that_opencap_estimates(tmp_path):
    """Its names end in ``_study``, and the head has no marker."""
    there = {"C7": "C7", "LSHO": "L_shoulder", "RSHO": "r_shoulder", "LELB": "L_lelbow", "RELB": "r_lelbow"}
    there |= {
        "LWRA": "L_lwrist",
        "RWRA": "r_lwrist",
        "LASI": "L.ASIS",
        "RASI": "r.ASIS",
        "LPSI": "L.PSIS",
        "RPSI": "r.PSIS",
    }
    there |= {
        "LKNE": "L_knee",
        "RKNE": "r_knee",
        "LANK": "L_ankle",
        "RANK": "r_ankle",
        "LTOE": "L_toe",
        "RTOE": "r_toe",
    }
    twice = {"LELB": "L_melbow", "RELB": "r_melbow", "LWRB": "L_mwrist", "RWRB": "r_mwrist"}
    names = [f"{name}_study" for name in (*there.values(), *twice.values())]
    points = clip()[:, [MARKERS.index(name) for name in (*there, *twice)]]
    sequence, _ = read(write(tmp_path, "a.trc", motion_capture.trc(names, points * 1000)))
    assert_upright(sequence)
    found, wanted = as_ntu25(sequence)[:, 0], in_ntu25(clip())
    limbs = ["left_shoulder", "right_elbow", "left_wrist", "right_hip", "left_knee", "right_ankle"]
    np.testing.assert_allclose(joints(found, limbs), joints(wanted, limbs), atol=2e-5)
    assert np.linalg.norm(joints(found, ["head"]) - joints(wanted, ["head"]), axis=-1).max() < 0.2


def test_a_body_without_markers_at_the_head_has_it_in_line_with_the_trunk(tmp_path):
    """Helen Hayes, as Cortex names it."""
    names = {f"{side}{ours}": f"{side}.{theirs}" for side in "LR" for ours, theirs in
             zip(("SHO", "ELB", "WRA", "ASI", "KNE", "ANK", "HEE", "TOE"),
                 ("Shoulder", "Elbow", "Wrist", "ASIS", "Knee", "Ankle", "Heel", "Toe"), strict=True)}  # fmt: skip
    sacrum = clip()[:, [MARKERS.index("LPSI"), MARKERS.index("RPSI")]].mean(1, keepdims=True)
    points = np.concatenate([clip()[:, [MARKERS.index(name) for name in names]], sacrum], axis=1)
    sequence, _ = read(write(tmp_path, "a.c3d", motion_capture.c3d([*names.values(), "V.Sacral"], points * 1000)))
    assert_upright(sequence)
    keypoints = as_ntu25(sequence)[:, 0]
    assert np.linalg.norm(joints(keypoints, ["head"]) - joints(in_ntu25(clip()), ["head"]), axis=-1).max() < 0.2


def test_people_are_told_apart_by_the_prefix_of_their_markers(tmp_path):
    labels = [f"{who}:{name}" for who in ("Ada", "Bob") for name in MARKERS] + ["Ball:Ball1", "*5"]
    points = np.concatenate([clip(), clip() + [1, 0, 0], clip()[:, :2]], axis=1)
    sequence, _ = read(write(tmp_path, "a.c3d", motion_capture.c3d(labels, points * 1000)))
    assert sequence.keypoints.shape == (86, 2, 39, 3) and get_layout(sequence.layout).name == "ui-prmd39"
    np.testing.assert_allclose(sequence.keypoints[:, 1], clip() + [1, 0, 0], atol=1e-5)


# --- Gaps, axes, units, encodings ------------------------------------------------------------------------------------


def test_gaps_are_joints_that_are_not_seen(tmp_path):
    residuals = np.zeros((86, 39))
    residuals[10:20, 3] = -1
    points = clip() * 1000
    sequence, _ = read(write(tmp_path, "a.c3d", motion_capture.c3d(MARKERS, points, residuals=residuals)))
    assert not sequence.keypoints[10:20, 0, 3].any() and sequence.keypoints[9, 0, 3].all()
    points[30:40, 5] = np.nan
    for name, content in {
        "b.c3d": motion_capture.c3d(MARKERS, points),
        "b.trc": motion_capture.trc(MARKERS, points),
    }.items():
        sequence, _ = read(write(tmp_path, name, content))
        assert not sequence.keypoints[30:40, 0, 5].any() and sequence.keypoints[:, 0, 6].all(), name
        assert_upright(sequence)


@pytest.mark.parametrize("up", ["y", "z", "x", "-y", "-z", "-x"])
def test_up_is_the_axis_along_which_people_stand(tmp_path, up):
    """A body with its axes turned, never mirrored, is put upright."""
    axis, sign = "xyz".index(up[-1]), -1 if up.startswith("-") else 1
    y_up = clip("smpl22")
    turned = np.roll(y_up, axis - 1, axis=-1)
    if sign < 0:
        turned[..., [axis, (axis + 1) % 3]] *= -1
    path = write(tmp_path, "a.bvh", motion_capture.bvh(BVH_NAMES, tree("smpl22"), turned * 100))
    sequence, told = read(path)
    assert (sequence.up == up) and any("people stand along its axis" in line for line in told) == (up != "y")
    assert_upright(sequence)
    assert read(path, up=up)[0].up == up


def test_who_lies_most_of_the_time_is_not_turned_upright(tmp_path):
    y_up = clip("smpl22")
    lying = np.concatenate([y_up[:10], (y_up[..., [0, 2, 1]] * [1, -1, 1])[:76]])
    path = write(tmp_path, "a.bvh", motion_capture.bvh(BVH_NAMES, tree("smpl22"), lying * 100))
    assert read(path)[0].up == "y"


def test_what_the_user_says_of_the_unit_counts(tmp_path):
    path = write(tmp_path, "a.bvh", motion_capture.bvh(BVH_NAMES, tree("smpl22"), clip("smpl22")))
    sequence, told = read(path, units="in")
    # No guess is reported, but that nobody is so small.
    assert [line.split(": ")[1][:16] for line in told] == ["people are 0.047"] and height_of(
        sequence.keypoints, get_layout(sequence.layout)
    ) == pytest.approx(0.0254 * 1.7, rel=0.2)
    c3d = write(tmp_path, "a.c3d", motion_capture.c3d(MARKERS, clip() * 1000))
    sequence, told = read(c3d, units="m")
    assert "its units is mm" in told[0] and sequence.keypoints.max() < 3


def test_each_root_of_a_bvh_is_a_person(tmp_path):
    first, second = (
        motion_capture.bvh(BVH_NAMES, tree("smpl22"), clip("smpl22") * 100 + [away, 0, 0], seed=away)
        for away in (0, 99)
    )
    heads, motions = zip(*(text.split("MOTION\n") for text in (first, second)), strict=True)
    rows = [motion.split("\n") for motion in motions]
    both = "\n".join([*rows[0][:2], *(" ".join(pair) for pair in zip(rows[0][2:-1], rows[1][2:-1], strict=True))])
    text = heads[0] + heads[1].replace("HIERARCHY\n", "") + "MOTION\n" + both + "\n"
    sequence, _ = read(write(tmp_path, "a.bvh", text), units="cm")
    assert sequence.keypoints.shape == (86, 2, 20, 3)
    np.testing.assert_allclose(sequence.keypoints[:, 1] - sequence.keypoints[:, 0], np.tile([0.99, 0, 0], (86, 20, 1)),
                               atol=1e-4)  # fmt: skip
    prop = "ROOT Ball\n{\nOFFSET 0 0 0\nCHANNELS 3 Xposition Yposition Zposition\nEnd Site\n{\nOFFSET 0 1 0\n}\n}\n"
    with_prop = "\n".join([*rows[0][:2], *(f"{row} 1 2 3" for row in rows[0][2:-1])])
    sequence, told = read(write(tmp_path, "b.bvh", heads[0] + prop + "MOTION\n" + with_prop + "\n"), units="cm")
    assert sequence.keypoints.shape == (86, 1, 20, 3) and "1 of 2 roots is not a whole body" in told[0]


def test_encodings_and_line_endings(tmp_path):
    text = motion_capture.bvh(BVH_NAMES, tree("smpl22"), clip("smpl22") * 100)
    plain = read(write(tmp_path, "a.bvh", text))[0].keypoints
    forms = {
        "crlf.bvh": text.replace("\n", "\r\n").encode(),
        "cr.bvh": text.replace("\n", "\r").encode(),
        "bom.bvh": b"\xef\xbb\xbf" + text.encode(),
        "utf16.bvh": text.encode("utf-16"),
        "comma.BVH": text.replace(".", ",").encode(),
        "umlaut.bvh": text.replace("ROOT Hips", "ROOT M\u00fcller:Hips").encode("latin-1"),
    }
    for name, content in forms.items():
        np.testing.assert_array_equal(read(write(tmp_path, name, content))[0].keypoints, plain, err_msg=name)
    trc = motion_capture.trc(MARKERS, clip() * 1000)
    plain = read(write(tmp_path, "a.trc", trc))[0].keypoints
    for name, content in {"b.trc": trc.replace("\n", "\r\n"), "c.TRC": "\ufeff" + trc}.items():
        np.testing.assert_array_equal(read(write(tmp_path, name, content))[0].keypoints, plain)


RATES = {"0.008333": 120, ".0083333": 120, "0.033333": 30, "0.0333667": 29.97, "0.04": 25, "1e-2": 100, "0.016667": 60}


@pytest.mark.parametrize("text, fps", [*RATES.items(), ("0", None), ("x", None)])
def test_a_frame_time_is_the_rate_that_it_is_rounded_from(text, fps):
    assert rate_of(text) == (None if fps is None else pytest.approx(fps, rel=1e-5))


# --- Real files ------------------------------------------------------------------------------------------------------

REAL = {
    "bvh/bvh_test3.bvh": ("named", 100, 120),
    "bvh/cmu_01_01_motionbuilder.bvh": ("named", 2752, 120),
    "bvh/freebvh.bvh": ("named", 69, 30),
    "bvh/mocapbank.bvh": ("named", 455, 30),
    "bvh/pybvh_example.bvh": ("named", 75, 30),
    "bvh/pymo_walk.bvh": ("named", 1064, 120),
    "asfamc/01_01.amc": ("cmu31", 2751, 120),
    "asfamc/02_01.amc": ("cmu31", 343, 120),
    "trc/opencap.trc": ("opencap51", 861, 100),
    "trc/pose2sim.trc": ("named", 100, 60),
}
REFUSED = {
    "trc/markers.trc": "make no whole body: nothing says where head or neck or nose",
    "c3d/markers_analogs.c3d": "its 51 markers .* make no whole body",
    "c3d/optitrack_walking.c3d": "its 12 markers .* make no whole body: nothing says where head or neck or nose, left",
    "c3d/sprintbasket.c3d": "its 26 markers .* make no whole body",
    "asfamc/01.asf": "it is the skeleton of recordings that end in .amc",
}


def real(name):
    if not (SHARED / name).is_file():
        pytest.skip("needs ../shared/recordings, which is beside the developers' checkout only")
    return SHARED / name


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_upright(name):
    layout, frames, fps = REAL[name]
    sequence, _ = read(real(name))
    assert get_layout(sequence.layout).name == layout
    assert (sequence.num_frames, sequence.num_persons, sequence.fps) == (frames, 1, fps)
    assert_upright(sequence)


@pytest.mark.parametrize("name", REFUSED)
def test_real_files_without_a_whole_body_are_refused(name):
    path = real(name)
    copy = path
    with pytest.raises(SkeletonFormatError, match=REFUSED[name]) as caught:
        read(copy)
    assert len(str(caught.value)) <= 300 and str(path.name) in str(caught.value)


def test_a_recording_of_cmu():
    sequence, told = read(HERE / "02_01.amc")
    assert get_layout(sequence.layout).name == "cmu31" and sequence.num_frames == 343 and not told
    assert_upright(sequence)


def test_two_files_of_one_motion_agree():
    """CMU's first motion as AMC and, from another hand, as BVH, which begins with a T pose."""
    amc, bvh = read(real("asfamc/01_01.amc"))[0], read(real("bvh/cmu_01_01_motionbuilder.bvh"))[0]
    ours, theirs = get_layout(bvh.layout).joint_names, get_layout("cmu31").joint_names
    for joint, bone in {
        "left_knee": "lfemur",
        "right_ankle": "rtibia",
        "left_foot": "lfoot",
        "right_hip": "rhipjoint",
    }.items():
        found = bvh.keypoints[1:, 0, ours.index(joint)]
        np.testing.assert_allclose(found, amc.keypoints[:, 0, theirs.index(bone)], atol=1e-5)


# --- Wrong files -----------------------------------------------------------------------------------------------------

BVH = motion_capture.bvh(BVH_NAMES, tree("smpl22"), clip("smpl22")[:3] * 100)
TRC = motion_capture.trc(MARKERS, clip()[:3] * 1000)
MVNX = motion_capture.mvnx(clip("xsens23")[:3])
C3D = motion_capture.c3d(MARKERS, clip()[:3] * 1000)
WRONG = {
    "no.bvh": (BVH.replace("MOTION", ""), "it is not BVH, or truncated: there is no line MOTION"),
    "brace.bvh": (BVH.replace("}", "", 1), "a brace is open before MOTION"),
    "offset.bvh": (BVH.replace("OFFSET", "OFFSET x", 1), "line 4: an OFFSET needs three numbers"),
    "channel.bvh": (BVH.replace("Zrotation", "Wrotation", 1), "line 5: 'Wrotation' is not a channel"),
    "number.bvh": (BVH.rpartition(" ")[0] + " 1_0\n", "'1_0' is not a number"),
    "short.bvh": (BVH.rpartition(" ")[0] + "\n", "131 numbers for a frame, expected 132"),
    "frames.bvh": (BVH.replace("Frames: 3", "Frames: many"), "expected 'Frames: N' and 'Frame Time: SECONDS'"),
    "still.bvh": (BVH.partition("Frame Time")[0] + "Frame Time: 0.1\n", "there is no frame in it"),
    "alone.amc": ((HERE / "02_01.amc").read_text()[:5000], "its skeleton is not beside it: put 'alone.asf'"),
    "no.trc": (TRC.replace("PathFileType", "Path"), "its first line does not begin with PathFileType"),
    "wide.trc": (TRC.rstrip("\n") + "\t1.0\n", "120 cells for a frame, expected 119"),
    "word.trc": (TRC.rstrip("\n").rpartition("\t")[0] + "\tx\n", "line 9: 'x' is not a number"),
    "axes.trc": (TRC.replace("\tX1\tY1", "\tX1"), "line 5: 116 coordinates of 39 points"),
    "empty.trc": ("\n".join(TRC.split("\n")[:5]) + "\n", "there is no frame in it"),
    "no.mvnx": ("<a><b/></a>", "it is XML, but no MVNX: its root is 'a'"),
    "cut.mvnx": (MVNX[:-60], "it is not well-formed XML"),
    "bomb.mvnx": ('<!DOCTYPE x [<!ENTITY a "aaaa">]>' + MVNX.partition("?>")[2], "it defines entities"),
    "leg.mvnx": (MVNX.replace('label="LeftFoot"', 'label="Prop1"'), "LeftFoot is lacking"),
    "number.mvnx": (MVNX.replace("<position>", "<position>x "), "its position has 70 fields, expected 69 numbers"),
    "no.c3d": (b"x" * 2000, "it is not a C3D file, or truncated"),
    "cut.c3d": (C3D[:-900], "it has 1 of the 3 frames that it says: it is truncated"),
    "processor.c3d": (C3D[:515] + b"\1" + C3D[516:], "its processor is of the unknown kind 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_with_one_sentence(tmp_path, name):
    content, sentence = WRONG[name]
    path = write(tmp_path, name, content)
    with pytest.raises(SkeletonFormatError, match="^" + str(path)) as caught:
        read(path)
    assert sentence in str(caught.value) and len(str(caught.value)) <= 300


def test_a_file_that_ends_early_is_read_as_far_as_it_is_whole(tmp_path):
    sequence, told = read(write(tmp_path, "a.bvh", BVH[:-20]))
    assert sequence.num_frames == 2 and "2 whole frames are there, not the 3 that it says" in told[0]


def test_a_motion_that_ends_early_is_read_as_far_as_it_is_whole(tmp_path):
    shutil.copy(HERE / "02.asf", tmp_path / "02.asf")
    lines = (HERE / "02_01.amc").read_text().split("\n")
    sequence, told = read(write(tmp_path, "02_01.amc", "\n".join(lines[:83]) + "\nrtibia 3"))
    assert sequence.num_frames == 2 and "the last of 3 frames is cut: the 2 that are whole are read" in told[0]


def test_a_skeleton_that_is_not_the_motions(tmp_path):
    shutil.copy(HERE / "02.asf", tmp_path / "02.asf")
    amc = (HERE / "02_01.amc").read_text()
    lines = amc.split("\n")[:130]
    cases = {
        "bone": ("\n".join(lines).replace("lowerback", "lowback"), "line 6: 'lowback' is not a bone of the skeleton"),
        "count": ("\n".join(lines[:32]).replace("lradius", "lradius 1"), "2 numbers of 'lradius', expected 1"),
        "order": (
            "\n".join([*lines[:40], lines[41], lines[40], *lines[42:]]),
            "is not the line that follows in the first frame",
        ),
        "word": ("\n".join(lines[:33]).replace("lfemur ", "lfemur x"), "is not a number"),
    }
    for case, (text, sentence) in cases.items():
        path = write(tmp_path, f"02_{case}.amc", text)
        with pytest.raises(SkeletonFormatError) as caught:
            read(path)
        assert sentence in str(caught.value) and path.name in str(caught.value), (case, caught.value)
    circle = (
        (HERE / "02.asf")
        .read_text()
        .replace("root lhipjoint rhipjoint lowerback", "ltoes lhipjoint\n root rhipjoint lowerback")
    )
    write(tmp_path, "02.asf", circle)
    with pytest.raises(SkeletonFormatError, match="form a cycle"):
        read(write(tmp_path, "02_01.amc", amc))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_numbers_of_any_spelling_are_read_as_python_reads_them(tmp_path, data):
    number = st.floats(-500, 500, allow_nan=False).flatmap(
        lambda value: st.sampled_from([f"{value:.3f}", f"{value:.6g}", f"{value:e}", repr(value), f"{value:+.1f}"])
    )
    rows = data.draw(st.lists(st.lists(number, min_size=132, max_size=132), min_size=1, max_size=3))
    head = BVH.partition("MOTION")[0] + f"MOTION\nFrames: {len(rows)}\nFrame Time: 0.01\n"
    blank = data.draw(st.sampled_from([" ", "\t", "  "]))
    text = head + "\n".join(blank.join(row) for row in rows) + data.draw(st.sampled_from(["", "\n", " \n\n"]))
    sequence, _ = read(write(tmp_path, "a.bvh", text), units="cm")
    own = get_layout(sequence.layout).joint_names
    np.testing.assert_allclose(
        sequence.keypoints[:, 0, own.index("spine_base")],
        np.array([[float(value) for value in row[:3]] for row in rows]) / 100,
        rtol=1e-5,
        atol=1e-6,
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), scale=st.sampled_from([-1.0, 0.1]), processor=st.sampled_from([84, 85, 86]))
def test_c3d_of_any_writer_is_read_as_it_was_written(tmp_path, seed, scale, processor):
    from usdrl_hub.data.formats.c3d import read_points

    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 300))
    labels = [f"S:m{number}" for number in range(count)]
    points = rng.uniform(-3000, 3000, (int(rng.integers(1, 9)), count, 3))
    content = motion_capture.c3d(labels, points, 50.0, "mm", scale=scale, processor=processor, analog=int(seed % 5))
    found, places, rate, unit = read_points(write(tmp_path, "a.c3d", content))
    assert (found, rate, unit) == (labels, 50.0, "mm")
    np.testing.assert_allclose(places, points, atol=0.051 if scale > 0 else 1e-3)


def test_a_reading_reaches_every_reader(tmp_path):
    path = write(tmp_path, "a.bvh", BVH.replace("Frame Time: 0.0333333", "Frame Time: 0"))
    assert read(path)[0].fps is None and read(path, fps=25)[0].fps == 25
    with pytest.raises(ValueError, match="up must be one of"):
        Reading(up="w")


def test_c3d_points_are_those_that_another_reader_finds():
    """A second opinion, where ezc3d is installed: it crashes on some damaged files, so it is no dependency."""
    ezc3d = pytest.importorskip("ezc3d")
    from usdrl_hub.data.formats.c3d import read_points

    for path in sorted(real("c3d/sprintbasket.c3d").parent.glob("*.c3d")):
        labels, points, rate, unit = read_points(path)
        theirs = ezc3d.c3d(str(path))
        facts = {name: theirs["parameters"]["POINT"][name]["value"] for name in ("LABELS", "RATE", "UNITS")}
        assert (labels, [rate], [unit]) == (facts["LABELS"], list(facts["RATE"]), facts["UNITS"])
        found = theirs["data"]["points"][:3].transpose(2, 1, 0)
        np.testing.assert_array_equal(np.nan_to_num(points), np.nan_to_num(found))
