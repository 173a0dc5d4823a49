"""Tables of the known layouts: names of joints, bones, and recipes for joints that a layout lacks.

All joint numbers are 0-based. This file also ships as remote code, so it imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def tree_bones(parents: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """``(child, parent)`` pairs of all joints."""
    return tuple(enumerate(parents))


def _links(names: Sequence[str], text: str) -> tuple[tuple[int, int], ...]:
    """Edges from a text of ``name-name`` pairs."""
    pairs = (pair.split("-") for pair in text.split())
    return tuple((names.index(a), names.index(b)) for a, b in pairs)


def spanning_parents(num_joints: int, edges: Sequence[tuple[int, int]], root: int = 0) -> list[int]:
    """Parents of a breadth-first tree over undirected edges; each component's first joint is its own parent."""
    neighbours: dict[int, list[int]] = {}
    for a, b in edges:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    parents = [-1] * num_joints
    for start in (root, *range(num_joints)):
        if parents[start] >= 0:
            continue
        parents[start] = start
        queue = [start]
        for joint in queue:
            for other in neighbours.get(joint, ()):
                if 0 <= other < num_joints and parents[other] < 0:
                    parents[other] = joint
                    queue.append(other)
    return parents


def _both_sides(table: dict[str, str]) -> dict[str, str]:
    """Write the rows of a table of recipes that begin with ``@`` for both sides.

    ``{S}`` becomes ``L`` or ``R``, ``{s}`` becomes ``l`` or ``r``.
    """
    rows: dict[str, str] = {}
    for name, recipe in table.items():
        if not name.startswith("@"):
            rows[name] = recipe
            continue
        for side, letter in (("left", "L"), ("right", "R")):
            rows[side + name[1:]] = recipe.format(S=letter, s=letter.lower())
    return rows


def _sides(text: str) -> tuple[str, ...]:
    """Joint names from a text in which ``@name`` stands for ``left_name right_name``."""
    names: list[str] = []
    for word in text.split():
        names += [f"left_{word[1:]}", f"right_{word[1:]}"] if word.startswith("@") else [word]
    return tuple(names)


# How a joint that a layout lacks is made of joints that it may have: recipes, in order of preference. A recipe is a
# text of names, each with an optional weight (``name*1.3``); weights are divided by their sum. ``@`` stands for the
# side of a paired joint. Names on the right may themselves be made by a recipe.
RECIPES: dict[str, tuple[str, ...]] = {
    # The middle of the body, from the hips up.
    "spine_base": ("hip_center", "pelvis", "mid_hip", "root", "hip", "hips", "left_hip right_hip", "torso"),
    "spine_mid": ("spine", "torso", "belly", "spine2", "spine_base spine_shoulder"),
    "spine_shoulder": ("shoulder_center", "thorax", "left_shoulder right_shoulder", "neck"),
    "neck": ("lowerneck", "head_bottom", "spine_shoulder*2 head", "spine_shoulder"),
    "head": ("face", "left_ear right_ear", "nose", "neck"),
    "head_bottom": ("neck",),
    "head_top": ("head*1.5 neck*-0.5", "head"),
    # Other names of the same places.
    "hip_center": ("spine_base",),
    "pelvis": ("spine_base",),
    "mid_hip": ("spine_base",),
    "root": ("spine_base",),
    "hip": ("spine_base",),
    "hips": ("spine_base",),
    "chest": ("spine_mid spine_shoulder",),
    "spine_navel": ("spine_mid",),
    "spine_chest": ("spine_shoulder",),
    "spine": ("spine_mid",),
    "torso": ("spine_mid",),
    "belly": ("spine_mid",),
    "shoulder_center": ("spine_shoulder",),
    "thorax": ("spine_shoulder",),
    "face": ("head",),
    "nose": ("head",),
    "spine1": ("spine_base*2 spine_mid",),
    "spine2": ("spine_mid",),
    "spine3": ("spine_mid spine_shoulder",),
    # Joints of motion capture files that no recipe of theirs names alone.
    "lowerback": ("spine_base spine_mid",),
    "upperback": ("spine_mid spine_shoulder",),
    "upperneck": ("neck head",),
    "lwrist": ("left_wrist",),
    "rwrist": ("right_wrist",),
    "Spine": ("spine_base spine_mid",),
    "Chest": ("spine_mid spine_shoulder",),
    "L5": ("spine_base*3 spine_mid",),
    "L3": ("spine_base spine_mid*2",),
    "T8": ("spine_mid spine_shoulder",),
    # Paired joints; the end of a limb lies a little beyond the last joint, along the limb.
    "@_eye": ("@_eye_inner @_eye_outer", "nose*2 @_ear", "head"),
    "@_eye_inner": ("@_eye",),
    "@_eye_outer": ("@_eye",),
    "@_ear": ("head",),
    "@_mouth": ("nose",),
    "@_collar": ("@_shoulder spine_shoulder",),
    "@_shoulder": ("@_upper_arm",),
    "@_wrist": ("@_hand",),
    "@_hand": ("@_index @_pinky", "@_wrist*1.15 @_elbow*-0.15", "@_wrist"),
    "@_hand_tip": ("@_index", "@_hand*1.5 @_wrist*-0.5", "@_wrist*1.3 @_elbow*-0.3", "@_hand"),
    "@_index": ("@_hand_tip",),
    "@_pinky": ("@_hand_tip",),
    "@_thumb": ("@_hand",),
    "@_ankle": ("@_foot",),
    "@_foot": ("@_big_toe @_small_toe", "@_toes", "@_big_toe", "@_ankle"),
    "@_toes": ("@_foot",),
    "@_big_toe": ("@_foot",),
    "@_small_toe": ("@_foot",),
    "@_heel": ("@_ankle",),
    # The middles of limbs, where trackers lie.
    "@_arm": ("@_shoulder @_elbow",),
    "@_forearm": ("@_elbow @_wrist",),
    "@_thigh": ("@_hip @_knee",),
    "@_tibia": ("@_knee @_ankle",),
}


_NTU25_NAMES = _sides(
    "spine_base spine_mid neck head left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow "
    "right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot "
    "spine_shoulder left_hand_tip left_thumb right_hand_tip right_thumb"
)
_NTU25_PARENTS = (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11)

_KINECT20_NAMES = _sides(
    "hip_center spine shoulder_center head left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow "
    "right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot"
)
_KINECT20_PARENTS = (0, 0, 1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18)

_COCO17_NAMES = _sides("nose @eye @ear @shoulder @elbow @wrist @hip @knee @ankle")
_COCO17_PARENTS = (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14)
# The list that the release applies to every 17-joint clip; it is not anatomical and leaves joint 5 without a bone.
_COCO17_RELEASE_BONES = (
    ((0, 1), (1, 3), (2, 4), (3, 5), (4, 6), (6, 8), (7, 9), (8, 10), (9, 7), (10, 8))
    + ((11, 13), (12, 14), (13, 15), (14, 16), (15, 13), (16, 14))
)  # fmt: skip

_OPENPOSE18_NAMES = _sides(
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear"
)
_OPENPOSE18_PARENTS = (1, 1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15)
_OPENPOSE25_NAMES = _sides(
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip right_hip "
    "right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_big_toe "
    "left_small_toe left_heel right_big_toe right_small_toe right_heel"
)
_OPENPOSE25_PARENTS = (1, 8, 1, 2, 3, 1, 5, 6, 8, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11)

# Bodies of Halpe's 26 or 136 points and of COCO-WholeBody's 133, without face and hands; both begin with COCO's 17.
_HALPE26_NAMES = (*_COCO17_NAMES, *_sides("head neck hip @big_toe @small_toe @heel"))
_HALPE26_PARENTS = (17, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 18, 19, 19, 15, 16, 15, 16, 15, 16)
_WHOLEBODY23_NAMES = (
    *_COCO17_NAMES,
    *_sides("left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"),
)
_WHOLEBODY23_PARENTS = (*_COCO17_PARENTS, 15, 15, 15, 16, 16, 16)
_POSETRACK17_NAMES = _sides("nose head_bottom head_top @ear @shoulder @elbow @wrist @hip @knee @ankle")
_POSETRACK17_PARENTS = (1, 1, 0, 0, 0, 1, 1, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14)

_H36M17_NAMES = _sides(
    "hip right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax neck head left_shoulder "
    "left_elbow left_wrist right_shoulder right_elbow right_wrist"
)
_H36M17_PARENTS = (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)

_MEDIAPIPE33_NAMES = _sides(
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer @ear @mouth @shoulder "
    "@elbow @wrist @pinky @index @thumb @hip @knee @ankle @heel @toes"
)
_MEDIAPIPE33_PARENTS = (
    *(0, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16, 11, 12, 23, 24, 25, 26, 27, 28),
    *(29, 30),
)

_SMPL22_NAMES = _sides("pelvis @hip spine1 @knee spine2 @ankle spine3 @foot neck @collar head @shoulder @elbow @wrist")
_SMPL22_PARENTS = (0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
_SMPL24_NAMES = (*_SMPL22_NAMES, "left_hand", "right_hand")
_SMPL24_PARENTS = (*_SMPL22_PARENTS, 20, 21)

_UI_PRMD39_NAMES = _sides(
    "LFHD RFHD LBHD RBHD C7 T10 CLAV STRN RBAK LSHO LUPA LELB LFRM LWRA LWRB LFIN RSHO RUPA RELB RFRM RWRA RWRB RFIN "
    "LASI RASI LPSI RPSI LTHI LKNE LTIB LANK LHEE LTOE RTHI RKNE RTIB RANK RHEE RTOE"
)
_UI_PRMD39_EDGES = _links(
    _UI_PRMD39_NAMES,
    "LFHD-RFHD LFHD-LBHD RFHD-RBHD LBHD-RBHD LBHD-C7 RBHD-C7 C7-CLAV C7-T10 CLAV-STRN T10-RBAK CLAV-LSHO CLAV-RSHO "
    "LSHO-LUPA LUPA-LELB LELB-LFRM LFRM-LWRA LFRM-LWRB LWRA-LFIN LWRB-LFIN STRN-LASI T10-LPSI LASI-LTHI LTHI-LKNE "
    "LKNE-LTIB LTIB-LANK LANK-LHEE LANK-LTOE RSHO-RUPA RUPA-RELB RELB-RFRM RFRM-RWRA RFRM-RWRB RWRA-RFIN RWRB-RFIN "
    "STRN-RASI T10-RPSI RASI-RTHI RTHI-RKNE RKNE-RTIB RTIB-RANK RANK-RHEE RANK-RTOE LASI-RASI LPSI-RPSI",
)
# Markers lie on the skin: the middle of the body is the mean of a front and a back marker.
_UI_PRMD39_DERIVED = _both_sides(
    {
        "spine_base": "LASI RASI LPSI RPSI",
        "spine_mid": "T10 STRN",
        "spine_shoulder": "C7*3 CLAV*3 T10 STRN",
        "neck": "C7 CLAV",
        "head": "LFHD RFHD LBHD RBHD",
        "nose": "LFHD*3 RFHD*3 LBHD*-2 RBHD*-2",
        "@_ear": "{S}FHD {S}BHD",
        "@_eye": "{S}FHD",
        "@_shoulder": "{S}SHO",
        "@_elbow": "{S}ELB",
        "@_wrist": "{S}WRA {S}WRB",
        "@_hand": "{S}WRA {S}WRB {S}FIN*2",
        "@_hand_tip": "{S}FIN",
        "@_thumb": "{S}WRA {S}FIN",
        "@_hip": "{S}ASI {S}PSI",
        "@_knee": "{S}KNE",
        "@_ankle": "{S}ANK",
        "@_foot": "{S}TOE",
        "@_heel": "{S}HEE",
    }
)

# The joints of ASF/AMC files, CMU's and HDM05's: each is the far end of the bone it is named after.
_CMU31_NAMES = _sides(
    "root lhipjoint rhipjoint lowerback lfemur ltibia lfoot ltoes rfemur rtibia rfoot rtoes upperback thorax "
    "lowerneck lclavicle rclavicle upperneck head lhumerus lradius lwrist lhand lthumb lfingers rhumerus rradius "
    "rwrist rhand rthumb rfingers"
)
_CMU31_EDGES = _links(
    _CMU31_NAMES,
    "root-lhipjoint root-rhipjoint root-lowerback lhipjoint-lfemur lfemur-ltibia ltibia-lfoot lfoot-ltoes "
    "rhipjoint-rfemur rfemur-rtibia rtibia-rfoot rfoot-rtoes lowerback-upperback upperback-thorax thorax-lowerneck "
    "thorax-lclavicle thorax-rclavicle lowerneck-upperneck upperneck-head lclavicle-lhumerus lhumerus-lradius "
    "lradius-lwrist lwrist-lhand lwrist-lthumb lhand-lfingers rclavicle-rhumerus rhumerus-rradius rradius-rwrist "
    "rwrist-rhand rwrist-rthumb rhand-rfingers",
)
_CMU31_DERIVED = _both_sides(
    {
        "spine_base": "root",
        "spine_mid": "lowerback upperback",
        "spine_shoulder": "thorax",
        "neck": "lowerneck",
        "nose": "head",
        "@_shoulder": "{s}clavicle",
        "@_elbow": "{s}humerus",
        "@_wrist": "{s}radius",
        "@_hand": "{s}hand",
        "@_hand_tip": "{s}fingers",
        "@_thumb": "{s}thumb",
        "@_hip": "{s}hipjoint",
        "@_knee": "{s}femur",
        "@_ankle": "{s}tibia",
        "@_foot": "{s}foot",
        "@_toes": "{s}toes",
    }
)

# Bandai-Namco's joints are the near ends of the bones they are named after; hands and toes are ends.
_BANDAI21_NAMES = _sides(
    "Hips Spine Chest Neck Head Shoulder_L UpperArm_L LowerArm_L Hand_L Shoulder_R UpperArm_R LowerArm_R Hand_R "
    "UpperLeg_L LowerLeg_L Foot_L Toes_L UpperLeg_R LowerLeg_R Foot_R Toes_R"
)
_BANDAI21_EDGES = _links(
    _BANDAI21_NAMES,
    "Hips-Spine Spine-Chest Chest-Neck Neck-Head Chest-Shoulder_L Shoulder_L-UpperArm_L UpperArm_L-LowerArm_L "
    "LowerArm_L-Hand_L Chest-Shoulder_R Shoulder_R-UpperArm_R UpperArm_R-LowerArm_R LowerArm_R-Hand_R Hips-UpperLeg_L "
    "UpperLeg_L-LowerLeg_L LowerLeg_L-Foot_L Foot_L-Toes_L Hips-UpperLeg_R UpperLeg_R-LowerLeg_R LowerLeg_R-Foot_R "
    "Foot_R-Toes_R",
)
_BANDAI21_DERIVED = _both_sides(
    {
        "spine_base": "Hips",
        "spine_mid": "Spine Chest",
        "spine_shoulder": "Chest Neck*2",
        "neck": "Neck",
        "head": "Head",
        "@_collar": "Shoulder_{S}",
        "@_shoulder": "UpperArm_{S}",
        "@_elbow": "LowerArm_{S}",
        "@_wrist": "Hand_{S}",
        "@_hip": "UpperLeg_{S}",
        "@_knee": "LowerLeg_{S}",
        "@_ankle": "Foot_{S}",
        "@_foot": "Toes_{S}",
    }
)

_AZURE32_NAMES = _sides(
    "pelvis spine_navel spine_chest neck left_collar left_shoulder left_elbow left_wrist left_hand left_hand_tip "
    "left_thumb right_collar right_shoulder right_elbow right_wrist right_hand right_hand_tip right_thumb left_hip "
    "left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot head nose left_eye left_ear right_eye "
    "right_ear"
)
_AZURE32_PARENTS = (
    *(0, 0, 1, 2, 2, 4, 5, 6, 7, 8, 7, 2, 11, 12, 13, 14, 15, 14, 0, 18, 19, 20, 0, 22, 23, 24, 3, 26, 26, 26, 26),
    26,
)
_AZURE32_DERIVED = {"spine_mid": "spine_navel", "spine_shoulder": "spine_chest"}

# MSR-Action3D numbers Kinect's 20 joints in an order of its own.
_MSR20_NAMES = _sides(
    "right_shoulder left_shoulder shoulder_center spine right_hip left_hip hip_center right_elbow left_elbow "
    "right_wrist left_wrist right_hand left_hand right_knee left_knee right_ankle left_ankle right_foot left_foot head"
)
_MSR20_PARENTS = (2, 2, 3, 6, 6, 6, 6, 0, 1, 7, 8, 9, 10, 4, 5, 13, 14, 15, 16, 2)

_PANOPTIC19_NAMES = _sides(
    "neck nose mid_hip left_shoulder left_elbow left_wrist left_hip left_knee left_ankle right_shoulder right_elbow "
    "right_wrist right_hip right_knee right_ankle left_eye left_ear right_eye right_ear"
)
_PANOPTIC19_PARENTS = (2, 0, 2, 0, 3, 4, 2, 6, 7, 0, 9, 10, 2, 12, 13, 1, 15, 1, 17)

# Trackers in the middle of the segments of the body, as KERAAL's motion capture has them.
_KERAAL17_NAMES = _sides(
    "right_forearm left_forearm right_arm left_arm chest right_thigh left_thigh right_shoulder left_shoulder "
    "right_hand left_hand right_foot left_foot hips head right_tibia left_tibia"
)
_KERAAL17_PARENTS = (2, 3, 7, 8, 13, 13, 13, 4, 4, 0, 1, 15, 16, 13, 4, 5, 6)
_KERAAL17_DERIVED = {
    "spine_base": "hips",
    "spine_mid": "hips chest",
    **{f"{side}_elbow": f"{side}_arm {side}_forearm" for side in ("left", "right")},
    **{f"{side}_wrist": f"{side}_forearm {side}_hand*2" for side in ("left", "right")},
    **{f"{side}_hip": f"hips {side}_thigh" for side in ("left", "right")},
    **{f"{side}_knee": f"{side}_thigh {side}_tibia" for side in ("left", "right")},
    **{f"{side}_ankle": f"{side}_foot" for side in ("left", "right")},
}

_SBU15_NAMES = _sides(
    "head neck torso left_shoulder left_elbow left_hand right_shoulder right_elbow right_hand left_hip left_knee "
    "left_foot right_hip right_knee right_foot"
)
_SBU15_PARENTS = (1, 1, 1, 1, 3, 4, 1, 6, 7, 2, 9, 10, 2, 12, 13)
_JHMDB15_NAMES = _sides(
    "neck belly face right_shoulder left_shoulder right_hip left_hip right_elbow left_elbow right_knee left_knee "
    "right_wrist left_wrist right_ankle left_ankle"
)
_JHMDB15_PARENTS = (0, 0, 0, 0, 0, 1, 1, 3, 4, 5, 6, 7, 8, 9, 10)

# Xsens MVN's segments by their origins: each is the joint at which it begins.
_XSENS23_NAMES = (
    *"Pelvis L5 L3 T12 T8 Neck Head".split(),
    *(side + part for side in ("Right", "Left") for part in ("Shoulder", "UpperArm", "ForeArm", "Hand")),
    *(side + part for side in ("Right", "Left") for part in ("UpperLeg", "LowerLeg", "Foot", "Toe")),
)
_XSENS23_PARENTS = (0, 0, 1, 2, 3, 4, 5, 4, 7, 8, 9, 4, 11, 12, 13, 0, 15, 16, 17, 0, 19, 20, 21)
_XSENS23_DERIVED = {
    "spine_base": "Pelvis",
    "spine_mid": "T12",
    "spine_shoulder": "T8 Neck*2",
    "neck": "Neck",
    "head": "Head",
    **{
        f"{side}_{ours}": side.capitalize() + theirs
        for side in ("left", "right")
        for ours, theirs in (
            *(("collar", "Shoulder"), ("shoulder", "UpperArm"), ("elbow", "ForeArm"), ("wrist", "Hand")),
            *(("hip", "UpperLeg"), ("knee", "LowerLeg"), ("ankle", "Foot"), ("foot", "Toe")),
        )
    },
}

# OpenCap's anatomical markers, in the order of its TRC files; ``r.ASIS`` and ``r_knee`` there are ``R_`` here.
_OPENCAP51_NAMES = tuple(
    "R_knee R_shank_antsup R_ankle R_calc R_5meta R_toe L_knee L_shank_antsup L_ankle L_calc L_5meta L_toe R_sh2 "
    "R_sh3 R_sh4 L_sh2 L_sh3 R_thigh1 R_thigh2 R_thigh3 R_thigh4 R_thigh5 L_thigh1 L_thigh2 L_thigh3 L_thigh4 "
    "R_ASIS R_PSIS L_ASIS L_PSIS C7 R_Shoulder L_Shoulder R_Sternum L_Sternum R_humerus R_elbow_med R_elbow_lat "
    "R_forearm R_wrist_radius R_wrist_ulna L_humerus L_elbow_med L_elbow_lat L_forearm L_wrist_radius "
    "L_wrist_ulna R_HJC L_HJC "
    "R_HJC_reg L_HJC_reg".split()
)
_OPENCAP51_EDGES = _links(
    _OPENCAP51_NAMES,
    "R_ASIS-L_ASIS R_PSIS-L_PSIS R_PSIS-C7 L_PSIS-C7 R_Sternum-L_Sternum R_thigh4-R_thigh5 R_sh3-R_sh4 "
    + " ".join(
        f"{s}_ASIS-{s}_PSIS C7-{s}_Shoulder {s}_Sternum-{s}_Shoulder {s}_Shoulder-{s}_humerus {s}_ASIS-{s}_HJC "
        f"{s}_humerus-{s}_elbow_lat {s}_elbow_lat-{s}_elbow_med {s}_elbow_lat-{s}_forearm {s}_HJC-{s}_HJC_reg "
        f"{s}_forearm-{s}_wrist_radius {s}_wrist_radius-{s}_wrist_ulna {s}_HJC-{s}_knee {s}_thigh1-{s}_thigh2 "
        f"{s}_thigh2-{s}_thigh3 {s}_thigh3-{s}_thigh4 {s}_thigh2-{s}_knee {s}_knee-{s}_shank_antsup {s}_sh2-{s}_sh3 "
        f"{s}_shank_antsup-{s}_sh2 {s}_knee-{s}_ankle {s}_ankle-{s}_calc {s}_calc-{s}_5meta {s}_5meta-{s}_toe "
        f"{s}_toe-{s}_ankle"
        for s in "RL"
    ),
)
# Joint centres from pairs of markers; the head has none, so it lies above the neck in line with the trunk.
_OPENCAP51_DERIVED = _both_sides(
    {
        "spine_base": "L_ASIS R_ASIS L_PSIS R_PSIS",
        "spine_shoulder": "C7*2 L_Sternum R_Sternum",
        "neck": "C7*2 L_Shoulder R_Shoulder",
        "head": "C7*1.4 L_ASIS*-0.1 R_ASIS*-0.1 L_PSIS*-0.1 R_PSIS*-0.1",
        "@_shoulder": "{S}_Shoulder",
        "@_elbow": "{S}_elbow_med {S}_elbow_lat",
        "@_wrist": "{S}_wrist_radius {S}_wrist_ulna",
        "@_hip": "{S}_HJC",
        "@_knee": "{S}_knee",
        "@_ankle": "{S}_ankle",
        "@_heel": "{S}_calc",
        "@_big_toe": "{S}_toe",
        "@_small_toe": "{S}_5meta",
    }
)

_CMU31: dict[str, Any] = dict(
    joint_names=_CMU31_NAMES,
    bones=tree_bones(spanning_parents(31, _CMU31_EDGES)),
    center=0,
    x_axis=(15, 16),
    derived=_CMU31_DERIVED,
)
_ANATOMICAL = tuple((a, b) for a, b in tree_bones(_COCO17_PARENTS) if a != b)

# Fields of `layouts.Layout` by name; see there.
TABLES: dict[str, dict[str, Any]] = {
    # Kinect v2, NTU RGB+D and PKU-MMD: +x of the normalised body runs from the left to the right shoulder.
    "ntu25": dict(joint_names=_NTU25_NAMES, bones=tree_bones(_NTU25_PARENTS), center=1, x_axis=(4, 8)),
    "kinect20": dict(joint_names=_KINECT20_NAMES, bones=tree_bones(_KINECT20_PARENTS), center=1, x_axis=(4, 8)),
    "coco17": dict(joint_names=_COCO17_NAMES, bones=tree_bones(_COCO17_PARENTS), coordinates="2d+score"),
    "coco17-release": dict(
        joint_names=_COCO17_NAMES, bones=_COCO17_RELEASE_BONES, edges=_ANATOMICAL, coordinates="2d+score"
    ),
    # UAV-Human: COCO's joints in 3D; the release gives it the bones above and turns the left side upright.
    "uav17": dict(joint_names=_COCO17_NAMES, bones=_COCO17_RELEASE_BONES, edges=_ANATOMICAL, center=1, z_axis=(11, 5)),
    "openpose18": dict(joint_names=_OPENPOSE18_NAMES, bones=tree_bones(_OPENPOSE18_PARENTS), coordinates="2d+score"),
    "openpose25": dict(joint_names=_OPENPOSE25_NAMES, bones=tree_bones(_OPENPOSE25_PARENTS), coordinates="2d+score"),
    "halpe26": dict(joint_names=_HALPE26_NAMES, bones=tree_bones(_HALPE26_PARENTS), coordinates="2d+score"),
    "wholebody23": dict(
        joint_names=_WHOLEBODY23_NAMES, bones=tree_bones(_WHOLEBODY23_PARENTS), coordinates="2d+score"
    ),
    "posetrack17": dict(
        joint_names=_POSETRACK17_NAMES, bones=tree_bones(_POSETRACK17_PARENTS), coordinates="2d+score"
    ),
    "h36m17": dict(joint_names=_H36M17_NAMES, bones=tree_bones(_H36M17_PARENTS), center=0, x_axis=(11, 14)),
    "azure32": dict(
        joint_names=_AZURE32_NAMES,
        bones=tree_bones(_AZURE32_PARENTS),
        center=0,
        x_axis=(5, 12),
        derived=_AZURE32_DERIVED,
    ),
    "msr20": dict(joint_names=_MSR20_NAMES, bones=tree_bones(_MSR20_PARENTS), center=6, x_axis=(1, 0)),
    "panoptic19": dict(joint_names=_PANOPTIC19_NAMES, bones=tree_bones(_PANOPTIC19_PARENTS), center=2, x_axis=(3, 9)),
    "keraal17": dict(
        joint_names=_KERAAL17_NAMES,
        bones=tree_bones(_KERAAL17_PARENTS),
        center=13,
        x_axis=(8, 7),
        up="z",
        derived=_KERAAL17_DERIVED,
    ),
    "mediapipe33": dict(joint_names=_MEDIAPIPE33_NAMES, bones=tree_bones(_MEDIAPIPE33_PARENTS)),
    "smpl22": dict(joint_names=_SMPL22_NAMES, bones=tree_bones(_SMPL22_PARENTS), center=0, x_axis=(16, 17)),
    "smpl24": dict(joint_names=_SMPL24_NAMES, bones=tree_bones(_SMPL24_PARENTS), center=0, x_axis=(16, 17)),
    "ui-prmd39": dict(
        joint_names=_UI_PRMD39_NAMES,
        bones=tree_bones(spanning_parents(39, _UI_PRMD39_EDGES, root=5)),
        edges=_UI_PRMD39_EDGES,
        center=5,
        x_axis=(9, 16),
        up="z",
        derived=_UI_PRMD39_DERIVED,
    ),
    "cmu31": _CMU31,
    "hdm05": _CMU31,
    "bandai21": dict(
        joint_names=_BANDAI21_NAMES,
        bones=tree_bones(spanning_parents(21, _BANDAI21_EDGES)),
        center=0,
        x_axis=(6, 10),
        derived=_BANDAI21_DERIVED,
    ),
    "xsens23": dict(
        **dict(joint_names=_XSENS23_NAMES, bones=tree_bones(_XSENS23_PARENTS), derived=_XSENS23_DERIVED),
        **dict(center=0, x_axis=(12, 8), up="z"),
    ),
    "opencap51": dict(
        joint_names=_OPENCAP51_NAMES,
        bones=tree_bones(spanning_parents(51, _OPENCAP51_EDGES, root=30)),
        edges=_OPENCAP51_EDGES,
        x_axis=(32, 31),
        derived=_OPENCAP51_DERIVED,
    ),
    "sbu15": dict(joint_names=_SBU15_NAMES, bones=tree_bones(_SBU15_PARENTS), center=2, x_axis=(3, 6)),
    "jhmdb15": dict(joint_names=_JHMDB15_NAMES, bones=tree_bones(_JHMDB15_PARENTS), coordinates="2d"),
}
