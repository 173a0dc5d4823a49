"""How programs name joints and markers, and which joints of ours they are.

A program or rig of your own is one entry more, made before the files are read:

    from usdrl_hub.data.formats.joint_names import RIGS

    RIGS["My rig"] = {"@_hip": "@Femur", "@_knee": "@Tibia", "@_ankle": "@Talus", "@_shoulder": "@Deltoid"}

Left of the colon stands a joint of ours (`JOINTS`), right of it the file's names for it, the preferred one first;
``@`` is the side. Case, blanks, dots, dashes, underscores and a prefix that all names share make no difference, and
``@Femur`` is ``LeftFemur``, ``L_Femur``, ``femur.l`` and ``FemurLeft`` alike. A rig may name legs or arms only: trunk,
arms and legs are looked up one by one. Without Python, ``--layout FILE.json`` names the joints of a file as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...layouts import LAYOUTS, Layout, LayoutLike, get_layout
from ...sequence import SkeletonFormatError

# Joints of ours that files may name, and what each hangs on: the first of these that a file has.
_PARENTS = {
    "spine_base": "",
    "spine_mid": "spine_base",
    "spine_shoulder": "spine_mid spine_base",
    "neck": "spine_shoulder spine_mid spine_base",
    "head": "neck spine_shoulder spine_mid spine_base",
    "nose": "head neck",
    "@_eye": "nose head",
    "@_ear": "@_eye head",
    "@_collar": "neck spine_mid spine_base",
    "@_shoulder": "@_collar spine_shoulder neck spine_mid spine_base",
    "@_elbow": "@_shoulder",
    "@_wrist": "@_elbow",
    "@_hand": "@_wrist",
    "@_hip": "spine_base spine_mid neck",
    "@_knee": "@_hip",
    "@_ankle": "@_knee",
    "@_heel": "@_ankle",
    "@_foot": "@_ankle",
    "@_big_toe": "@_foot @_ankle",
    "@_small_toe": "@_foot @_ankle",
}
_SIDES = ("left", "right")
# Without these a body is not whole: one of the names of each entry is needed.
REQUIRED = (
    ("head", "neck", "nose"),
    *((f"@_{joint}",) for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")),
)

_PARTS = {
    "trunk": ("spine_base", "neck", "head", "nose", "@_eye", "@_ear"),
    "arms": ("@_collar", "@_shoulder", "@_elbow", "@_wrist"),
    "legs": ("@_hip", "@_knee", "@_ankle", "@_heel", "@_foot", "@_big_toe", "@_small_toe"),
}
_ARM = {"@_collar": "@Shoulder @Collar", "@_shoulder": "@Arm", "@_elbow": "@ForeArm", "@_wrist": "@Hand"}
# Joint names of rigs and programs, see above. Where two fit equally well the first is taken.
RIGS: dict[str, Mapping[str, str]] = {
    "any": {
        **{"spine_base": "Hips Hip Pelvis MidHip CHip Root", "neck": "Neck Neck1 Neck01 NeckTwist01 NeckLower"},
        **{"head": "Head", "nose": "Nose", "@_eye": "@Eye", "@_ear": "@Ear"},
    },
    # MotionBuilder's names: CMU as BVH, Mixamo, Rokoko, Perception Neuron, LaFAN1, iPi.
    "MotionBuilder": {
        **_ARM,
        **{"@_hip": "@UpLeg", "@_knee": "@Leg", "@_ankle": "@Foot", "@_foot": "@ToeBase @Toe @Toes @ForeFoot"},
    },
    # Xsens MVN, 3ds Max, 100STYLE and SMPL as BVH.
    "Xsens": {
        **{"@_collar": "@Collar", "@_shoulder": "@Shoulder", "@_elbow": "@Elbow", "@_wrist": "@Wrist"},
        **{"@_hip": "@Hip", "@_knee": "@Knee", "@_ankle": "@Ankle", "@_foot": "@Toe @ToeBase @Toes @Foot"},
    },
    # Pose estimators that write TRC: Pose2Sim, Sports2D.
    "Halpe": {
        **{"@_shoulder": "@Shoulder", "@_elbow": "@Elbow", "@_wrist": "@Wrist"},
        **{"@_hip": "@Hip", "@_knee": "@Knee", "@_ankle": "@Ankle", "@_heel": "@Heel"},
        **{"@_big_toe": "@BigToe", "@_small_toe": "@SmallToe"},
    },
    # Character Studio's Biped, iClone (CC_Base_), Unreal, Blender's Rigify.
    "Character Studio": {
        **{"@_collar": "@Clavicle @Shoulder", "@_shoulder": "@UpperArm @UpArm", "@_elbow": "@ForeArm @LowerArm"},
        **{"@_wrist": "@Hand", "@_hip": "@Thigh", "@_knee": "@Calf @Shin", "@_ankle": "@Foot"},
        "@_foot": "@Toe0 @ToeBase @Toe @Ball",
    },
    # Bandai-Namco, Unity's humanoid, VRM.
    "Bandai": {
        **{"@_collar": "@Shoulder", "@_shoulder": "@UpperArm", "@_elbow": "@LowerArm @ForeArm", "@_wrist": "@Hand"},
        **{"@_hip": "@UpperLeg", "@_knee": "@LowerLeg", "@_ankle": "@Foot", "@_foot": "@Toes @Toe @ToeBase"},
    },
    "Biovision": {
        **{"@_collar": "@Collar", "@_shoulder": "@UpArm", "@_elbow": "@LowArm", "@_wrist": "@Hand"},
        **{"@_hip": "@UpLeg", "@_knee": "@LowLeg", "@_ankle": "@Foot", "@_foot": "@Toe"},
    },
    "Rokoko": {**_ARM, "@_hip": "@Thigh", "@_knee": "@Shin", "@_ankle": "@Foot", "@_foot": "@Toe @ToeBase"},
    # The leg begins with what others call the knee.
    "SOMA": {**_ARM, "@_hip": "@Leg", "@_knee": "@Shin", "@_ankle": "@Foot", "@_foot": "@ToeBase @Toe"},
    # Poser, DAZ.
    "Poser": {
        **{"@_collar": "@Collar", "@_shoulder": "@Shldr @ShldrBend", "@_elbow": "@ForeArm @ForearmBend"},
        **{"@_wrist": "@Hand", "@_hip": "@Thigh @ThighBend", "@_knee": "@Shin", "@_ankle": "@Foot", "@_foot": "@Toe"},
    },
    # OptiTrack Motive's bones.
    "Motive": {"@_collar": "@Shoulder", "@_shoulder": "@UArm", "@_elbow": "@FArm", "@_wrist": "@Hand"},
    # CMU's bones by the joint that they begin at.
    "CMU": {
        **{"@_collar": "@Clavicle", "@_shoulder": "@Humerus", "@_elbow": "@Radius", "@_wrist": "@Wrist @Hand"},
        **{"@_hip": "@Femur", "@_knee": "@Tibia", "@_ankle": "@Foot", "@_foot": "@Toes"},
    },
}

# Joints as means of markers on the skin: recipes, the preferred one first, between ``|``; weights stand behind ``*``.
# ``@`` is L or R, or the side in full.
MARKER_SETS: dict[str, Mapping[str, str]] = {
    # Plug-in Gait, also with CMU's waist, and with a single marker at wrist or sacrum.
    "Plug-in Gait": {
        "spine_base": "LASI RASI LPSI RPSI | LASI RASI SACR*2 | LFWT RFWT LBWT RBWT",
        "spine_mid": "T10 STRN",
        "spine_shoulder": "C7*3 CLAV*3 T10 STRN",
        "neck": "C7 CLAV | C7",
        "head": "LFHD RFHD LBHD RBHD | LFHD RFHD | LBHD RBHD | ARIEL",
        "nose": "LFHD*3 RFHD*3 LBHD*-2 RBHD*-2",
        "@_shoulder": "@SHO",
        "@_elbow": "@ELB | @ELBL @ELBM | @LEL @MEL",
        "@_wrist": "@WRA @WRB | @WRI | @WRA | @WRB",
        "@_hand": "@WRA @WRB @FIN*2",
        "@_hip": "@ASI @PSI | @ASI*2 SACR | @FWT @BWT",
        "@_knee": "@KNE @KNM | @KNE",
        "@_ankle": "@ANK @MED | @ANK",
        "@_heel": "@HEE",
        "@_foot": "@TOE",
    },
    # Helen Hayes, as Cortex and EVaRT name it; who has no marker at the head has it in line with the trunk.
    "Helen Hayes": {
        "spine_base": "L.ASIS R.ASIS V.Sacral*2 | L.ASIS R.ASIS Sacral*2 | LASI RASI VSAC*2",
        "neck": "C7 | L.Shoulder R.Shoulder | LSHO RSHO",
        "head": "Top.Head Front.Head Rear.Head | Top.Head | L.Head R.Head | "
        "L.Shoulder*0.7 R.Shoulder*0.7 V.Sacral*-0.4 | LSHO*0.7 RSHO*0.7 VSAC*-0.4",
        "@_shoulder": "@.Shoulder | @SHO",
        "@_elbow": "@.Elbow @.Elbow.Medial | @.Elbow | @ELB",
        "@_wrist": "@.Wrist | @WRI",
        "@_hip": "@.ASIS*2 V.Sacral | @.ASIS*2 Sacral | @ASI*2 VSAC",
        "@_knee": "@.Knee @.Knee.Medial | @.Knee | @KNE",
        "@_ankle": "@.Ankle @.Ankle.Medial | @.Ankle | @ANK",
        "@_heel": "@.Heel | @HEE",
        "@_foot": "@.Toe | @TOE",
    },
    # OpenCap and Stanford's full body; ``_study`` at the end of a name is left out.
    "OpenCap": {
        "spine_base": "L.ASIS R.ASIS L.PSIS R.PSIS",
        "spine_shoulder": "C7 L_Shoulder R_Shoulder",
        "neck": "C7",
        "head": "C7*1.4 L.ASIS*-0.1 R.ASIS*-0.1 L.PSIS*-0.1 R.PSIS*-0.1",
        "@_shoulder": "@_Shoulder",
        "@_elbow": "@_elbow_med @_elbow_lat | @_melbow @_lelbow",
        "@_wrist": "@_wrist_radius @_wrist_ulna | @_lwrist @_mwrist",
        "@_hip": "@HJC | @HJC_reg | @.ASIS @.PSIS",
        "@_knee": "@_knee @_mknee | @_knee",
        "@_ankle": "@_ankle @_mankle | @_ankle",
        "@_heel": "@_calc",
        "@_big_toe": "@_toe",
        "@_small_toe": "@_5meta",
    },
    # OptiTrack Motive (Baseline, Core) and Qualisys' animation set.
    "Motive": {
        "spine_base": "WaistLFront WaistRFront WaistLBack WaistRBack | WaistLFront WaistRFront WaistBack*2",
        "spine_shoulder": "BackTop Chest | SpineTop Chest | BackTop ChestTop",
        "neck": "BackTop | SpineTop",
        "head": "HeadTop HeadFront HeadSide | HeadL HeadR | HeadTop HeadFront | HeadTop",
        "@_shoulder": "@ShoulderTop",
        "@_elbow": "@ElbowOut @ElbowIn | @ElbowOut",
        "@_wrist": "@WristOut @WristIn | @WristOut",
        "@_hand": "@HandOut @HandIn | @HandOut",
        "@_hip": "Waist@Front Waist@Back | Waist@Front WaistBack",
        "@_knee": "@KneeOut @KneeIn | @KneeOut",
        "@_ankle": "@AnkleOut @AnkleIn | @AnkleOut",
        "@_heel": "@Heel | @HeelBack",
        "@_foot": "@ToeTip | @ToeIn @ToeOut | @ForefootIn @ForefootOut",
    },
    # Qualisys' sports set (CAST, IOR).
    "Qualisys": {
        "spine_base": "L_IAS R_IAS L_IPS R_IPS",
        "spine_shoulder": "SJN TV2 | SJN CV7",
        "neck": "TV2 SJN | CV7 | CV7 SJN",
        "head": "L_HEAD R_HEAD SGL | L_HEAD R_HEAD",
        "@_shoulder": "@_SAE | @_SIA",
        "@_elbow": "@_HLE @_HME | @_HLE",
        "@_wrist": "@_USP @_RSP",
        "@_hand": "@_HM2 | @_HM5 @_HM2",
        "@_hip": "@_IAS @_IPS",
        "@_knee": "@_FLE @_FME | @_FLE",
        "@_ankle": "@_FAL @_TAM | @_FAL",
        "@_heel": "@_FCC",
        "@_foot": "@_FM1 @_FM5 | @_FM2",
    },
}
# Layouts of the registry whose joints are markers as files name them.
_MARKER_LAYOUTS = ("ui-prmd39", "opencap51")


def _both(names: Sequence[str]) -> list[str]:
    """Names with ``@`` once for each side."""
    return [name.replace("@", side) for name in names for side in (_SIDES if "@" in name else ("",))]


JOINTS = tuple(_both(list(_PARENTS)))


def named_layout(joints: Sequence[str], name: str = "named") -> Layout:
    """The layout of some of `JOINTS`, in their order there, y up."""
    names = [joint for joint in JOINTS if joint in set(joints)]
    bones = []
    for joint in names:
        side = joint.partition("_")[0] if joint.startswith(_SIDES) else ""
        rule = _PARENTS[joint.replace(side, "@", 1) if side else joint].replace("@", side)
        parent = next((other for other in rule.split() if other in names), joint)
        bones.append((names.index(joint), names.index(parent)))
    ends = [names.index(end) for end in ("left_shoulder", "right_shoulder") if end in names]
    center = names.index("spine_base") if "spine_base" in names else None
    return Layout(name, tuple(names), tuple(bones), center=center, x_axis=(ends[0], ends[1]) if ends[1:] else None)


def plain_names(names: Sequence[str]) -> list[str]:
    """Names in small letters and digits only, without a prefix that all share, as ``mixamorig:`` or ``Bip01``."""
    bare = (re.sub(r"^mixamorig\d*|_study$", "", name.rpartition(":")[2].lower()) for name in names)
    parts = [re.findall(r"[a-z0-9]+", name) for name in bare]
    while True:
        first = Counter(words[0] for words in parts if len(words) > 1).most_common(1)
        # Sides, and parts of the body that have many markers, are no prefix.
        if not first or first[0][1] < 0.7 * len(parts) or first[0][0] in ("l", "r", *_SIDES):
            return ["".join(words) for words in parts]
        parts = [words[1:] if len(words) > 1 and words[0] == first[0][0] else words for words in parts]


def _spellings(name: str) -> list[tuple[str, list[str]]]:
    """Each side of a name of the tables, and how it may be spelled, plain."""
    plain = "".join(re.findall(r"[a-z0-9@]+", name.lower()))
    if "@" not in plain:
        return [("", [plain])]
    head, _, tail = plain.partition("@")
    return [
        (
            side,
            [head + letter + tail for letter in (side, side[0])]
            + [head + tail + letter for letter in (side, side[0])],
        )
        for side in _SIDES
    ]


def find_joints(names: Sequence[str]) -> dict[str, int]:
    """Index of each of `JOINTS` among the names of a file, of those that it has, by `RIGS`."""
    indices: dict[str, int] = {}
    for index, name in enumerate(plain_names(names)):
        indices.setdefault(name, index)
    found: dict[str, int] = {}
    for part, joints in _PARTS.items():
        made = [_of_rig(rig, joints, indices) for rig in RIGS.values()]
        # The trunk has the same names everywhere; what an arm or a leg is called depends on the rig.
        for joints_of_rig in reversed(made) if part == "trunk" else [max(made, key=len)]:
            found.update(joints_of_rig)
    return found


def _of_rig(rig: Mapping[str, str], joints: Sequence[str], indices: Mapping[str, int]) -> dict[str, int]:
    """Where some joints are, by the names of one rig."""
    made: dict[str, int] = {}
    for joint in joints:
        for name in rig.get(joint, "").split():
            for side, spellings in _spellings(name):
                index = next((indices[spelling] for spelling in spellings if spelling in indices), None)
                if index is not None and index not in made.values():
                    made.setdefault(joint.replace("@", side), index)
    return made


def lacking(joints: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Joints without which a body is not whole, of those that are not there."""
    return [
        " or ".join(either)
        for names in REQUIRED
        for either in ([[name.replace("@", side) for name in names] for side in _SIDES][: 2 if "@" in names[0] else 1])
        if not set(either) & set(joints)
    ]


def find_marker_layout(names: Sequence[str]) -> tuple[Layout, list[int]] | None:
    """A layout of the registry all of whose markers a file has, and where they are."""
    indices = {name: index for index, name in reversed(list(enumerate(plain_names(names))))}
    for layout in (LAYOUTS[name] for name in _MARKER_LAYOUTS):
        wanted = ["".join(re.findall(r"[a-z0-9]+", name.lower())) for name in layout.joint_names]
        if set(wanted) <= set(indices):
            return layout, [indices[name] for name in wanted]
    return None


def find_markers(names: Sequence[str]) -> tuple[Layout, list[int]]:
    """The joints that the markers of a file make, by the one of `MARKER_SETS` that makes the most of those required.

    Returns:
        A layout of those markers whose recipes (`Layout.derived`) make the joints, and where the markers are; the
        layout makes no joint where no marker is known.
    """
    indices = {name: index for index, name in reversed(list(enumerate(plain_names(names))))}
    best: dict[str, str] = {}
    for table in MARKER_SETS.values():
        made: dict[str, str] = {}
        for joint, recipes in table.items():
            for side in _SIDES if "@" in joint else ("",):
                for recipe in recipes.split("|"):
                    parts = [part.partition("*") for part in recipe.split()]
                    markers = [_index_of(marker, side, indices) for marker, _, _ in parts]
                    if all(marker is not None for marker in markers):
                        made[joint.replace("@", side)] = " ".join(
                            f"m{marker}{star}{weight}"
                            for marker, (_, star, weight) in zip(markers, parts, strict=True)
                        )
                        break
        best = made if len(lacking(made)) < len(lacking(best)) else best
    used = sorted({int(part.partition("*")[0][1:]) for recipe in best.values() for part in recipe.split()})
    return Layout("markers", tuple(f"m{index}" for index in used), (), derived=best), used


def _index_of(marker: str, side: str, indices: Mapping[str, int]) -> int | None:
    plain = "".join(re.findall(r"[a-z0-9@]+", marker.lower()))
    found = (indices.get(plain.replace("@", letter)) for letter in (side[:1], side))
    return next((index for index in found if index is not None), None)


def find_body(path: Path, names: Sequence[str], layout: LayoutLike | None) -> tuple[Layout, list[int]] | None:
    """The layout that the user names, where the file names all of its joints, and where they are.

    Returns:
        None where no layout is named, or one of the registry that the file does not follow.

    Raises:
        SkeletonFormatError: If the user describes a layout of which a joint is not in the file.
    """
    if layout is None:
        return None
    chosen = get_layout(layout)
    indices = {name: index for index, name in reversed(list(enumerate(names)))}
    indices |= {name.rpartition(":")[2]: index for name, index in indices.items() if ":" in name}
    missing = [name for name in chosen.joint_names if name not in indices]
    if not missing:
        return chosen, [indices[name] for name in chosen.joint_names]
    if isinstance(layout, str) or LAYOUTS.get(chosen.name) == chosen:
        return None
    raise SkeletonFormatError(
        f"{path}: it has no joint '{missing[0][:60]}' of layout '{chosen.name[:40]}': it has {', '.join(names[:7])}"
    )
