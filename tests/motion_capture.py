"""Writers of motion-capture files from positions, by the published form of each kind, and the clip they write."""

import struct
from pathlib import Path

import numpy as np

from usdrl_hub import convert_layout, get_layout
from usdrl_hub.data.samples import load_samples

# A deep squat of 86 frames, z up, metres.
CLIP = "m01_s02_e05"
FPS = 100 / 3


def clip(layout: str = "ui-prmd39", up: str = "z") -> np.ndarray:
    """Keypoints ``(T, V, 3)`` of the shipped deep squat, float64; converted to another layout they are y up."""
    sequence = next(sequence for sequence in load_samples() if sequence.name == CLIP)
    keypoints = sequence.keypoints.astype(np.float64)
    if layout != "ui-prmd39":
        keypoints = convert_layout(keypoints, "ui-prmd39", layout, up)
    return keypoints[:, 0]


def in_ntu25(keypoints: np.ndarray) -> np.ndarray:
    """The clip's markers ``(T, 39, 3)`` as ntu25, y up."""
    return convert_layout(keypoints, "ui-prmd39", "ntu25", "z")


# --- Rotations, by Rodrigues and by their definition -----------------------------------------------------------------


def about(axis: str, degrees: np.ndarray) -> np.ndarray:
    """Matrices ``(T, 3, 3)`` of rotations about one axis."""
    a = np.deg2rad(np.asarray(degrees, np.float64))
    x, y, z = (1.0 * (axis == name) for name in "XYZ")
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(a)[..., None, None] * cross + (1 - np.cos(a))[..., None, None] * (cross @ cross)


def product(order: str, degrees: np.ndarray) -> np.ndarray:
    """``R_first @ R_second @ R_third`` of angles ``(T, 3)``."""
    first, second, third = (about(axis, degrees[..., place]) for place, axis in enumerate(order))
    return first @ second @ third


def angles(order: str, matrices: np.ndarray) -> np.ndarray:
    """Angles ``(T, 3)`` in degrees whose `product` is the matrices, of three different axes."""
    i, j, k = ("XYZ".index(axis) for axis in order)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    first = np.arctan2(-sign * matrices[..., j, k], matrices[..., k, k])
    second = np.arcsin(np.clip(sign * matrices[..., i, k], -1, 1))
    third = np.arctan2(-sign * matrices[..., i, j], matrices[..., i, i])
    return np.rad2deg(np.stack([first, second, third], axis=-1))


def between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The shortest rotations ``(T, 3, 3)`` that bring a direction ``(3,)`` onto others ``(T, 3)``."""
    start = np.broadcast_to(start / np.linalg.norm(start), end.shape)
    end = end / np.linalg.norm(end, axis=-1, keepdims=True)
    v, c = np.cross(start, end), (start * end).sum(-1)
    zero = np.zeros(len(v))
    cross = np.stack([zero, -v[:, 2], v[:, 1], v[:, 2], zero, -v[:, 0], -v[:, 1], v[:, 0], zero], -1).reshape(-1, 3, 3)
    return np.eye(3) + cross + cross @ cross / (1 + c)[:, None, None]


def rigid(positions: np.ndarray, parents: list[int]) -> np.ndarray:
    """The same motion with bones of the lengths of the first frame ``(T, V, 3)``; parents come first, -1 is none."""
    fixed = positions.copy()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            bone = positions[:, joint] - positions[:, parent]
            length = np.linalg.norm(bone, axis=-1, keepdims=True)
            fixed[:, joint] = fixed[:, parent] + bone / np.maximum(length, 1e-9) * length[0]
    return fixed


def rotations(positions: np.ndarray, parents: list[int], rest: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rotations of all joints ``(V, T, 3, 3)`` that bring resting bones ``(V, 3)`` onto a rigid motion.

    A bone is turned by its own joint's rotation, as in ASF/AMC.
    """
    rng = np.random.default_rng(seed)
    found = np.zeros((len(parents), len(positions), 3, 3))
    for joint, parent in enumerate(parents):
        twist = np.broadcast_to(rng.uniform(-60, 60, 3), (len(positions), 3))
        bone = positions[:, joint] - positions[:, parent] if parent >= 0 else None
        if bone is None or np.linalg.norm(rest[joint]) < 1e-6:
            found[joint] = product("XYZ", twist)
        else:
            found[joint] = between(rest[joint], bone)
    return found


# --- BVH -------------------------------------------------------------------------------------------------------------

# MotionBuilder's names of joints of smpl22.
MOTIONBUILDER = {
    "pelvis": "Hips",
    "left_hip": "LeftUpLeg",
    "left_knee": "LeftLeg",
    "left_ankle": "LeftFoot",
    "left_foot": "LeftToeBase",
    "right_hip": "RightUpLeg",
    "right_knee": "RightLeg",
    "right_ankle": "RightFoot",
    "right_foot": "RightToeBase",
    "spine1": "Spine",
    "spine2": "Spine1",
    "spine3": "Spine2",
    "neck": "Neck",
    "head": "Head",
    "left_collar": "LeftShoulder",
    "left_shoulder": "LeftArm",
    "left_elbow": "LeftForeArm",
    "left_wrist": "LeftHand",
    "right_collar": "RightShoulder",
    "right_shoulder": "RightArm",
    "right_elbow": "RightForeArm",
    "right_wrist": "RightHand",
}


def tree(layout: str) -> list[int]:
    """Parents of a layout's joints, -1 for the root."""
    return [-1 if parent == joint else parent for joint, parent in enumerate(get_layout(layout).parents)]


def bvh(
    names: list[str],
    parents: list[int],
    positions: np.ndarray,
    fps: float = 30,
    *,
    order: str = "ZXY",
    moving: bool = True,
    digits: int = 6,
    end_sites: dict[int, tuple[float, float, float]] | None = None,
    seed: int = 0,
) -> str:
    """A BVH file of positions ``(T, V, 3)``.

    Args:
        names: Names of the joints, of which one is the root.
        parents: Their parents, -1 for the root.
        positions: Where they are.
        fps: Frames per second.
        order: Order of the rotations.
        moving: Whether all joints have position channels, so that any rotations do; else bones have the lengths of the
            first frame, and each joint is turned so that its first child is where it should be.
        digits: Digits behind the point.
        end_sites: Offsets of End Sites by joint; leaves without one get a short one.
        seed: Of the rotations that do not matter.
    """
    rng = np.random.default_rng(seed)
    children = {
        joint: [child for child, parent in enumerate(parents) if parent == joint] for joint in range(-1, len(names))
    }
    world: dict[int, np.ndarray] = {-1: np.broadcast_to(np.eye(3), (len(positions), 3, 3))}
    lines, columns = ["HIERARCHY"], []

    def write(joint: int, depth: int) -> None:
        pad, parent = "\t" * depth, parents[joint]
        bone = positions[:, joint] - (positions[:, parent] if parent >= 0 else 0)
        if moving:
            world[joint] = product("XYZ", rng.uniform(-170, 170, (len(positions), 3)))
        else:
            below = children[joint][:1]
            rest = positions[0, below[0]] - positions[0, joint] if below else np.array([0.0, 1.0, 0.0])
            ahead = positions[:, below[0]] - positions[:, joint] if below else np.broadcast_to(rest, bone.shape)
            world[joint] = between(rest, ahead)
        local = np.einsum("tji,tj->ti", world[parent], bone)
        offset = local[0] if parent >= 0 else np.zeros(3)
        lines.append(f"{pad}{'ROOT' if parent < 0 else 'JOINT'} {names[joint]}")
        lines.extend([pad + "{", f"{pad}\tOFFSET " + " ".join(f"{value:.{digits}f}" for value in offset)])
        turned = angles(order, np.einsum("tji,tjk->tik", world[parent], world[joint]))
        kinds = [f"{axis}rotation" for axis in order]
        if moving or parent < 0:
            kinds = ["Xposition", "Yposition", "Zposition", *kinds]
            columns.append(local)
        columns.append(turned)
        lines.append(f"{pad}\tCHANNELS {len(kinds)} " + " ".join(kinds))
        for child in children[joint]:
            write(child, depth + 1)
        if not children[joint]:
            end = (end_sites or {}).get(joint, (0.0, 0.01, 0.0))
            lines.extend(
                [f"{pad}\tEnd Site", f"{pad}\t{{", f"{pad}\t\tOFFSET {end[0]} {end[1]} {end[2]}", f"{pad}\t}}"]
            )
        lines.append(pad + "}")

    write(children[-1][0], 0)
    rows = np.concatenate(columns, axis=1)
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / fps:.7f}"]
    lines += [" ".join(f"{value:.{digits}f}" for value in row) for row in rows]
    return "\n".join(lines) + "\n"


# --- ASF/AMC ---------------------------------------------------------------------------------------------------------


def asf_amc(positions: np.ndarray, unit: float = 0.0254 / 0.45, seed: int = 0) -> tuple[str, str]:
    """A skeleton and its motion of rigid positions ``(T, 31, 3)`` of cmu31, metres, y up."""
    rng = np.random.default_rng(seed)
    layout, parents = get_layout("cmu31"), tree("cmu31")
    positions = positions / unit
    bones = [
        positions[0, joint] - positions[0, parent] if parent >= 0 else np.zeros(3)
        for joint, parent in enumerate(parents)
    ]
    world = rotations(positions, parents, np.array(bones), seed)
    axes = rng.uniform(-90, 90, (len(parents), 3)).round(3)
    axes[0] = 0
    asf = [":version 1.10", ":name VICON", ":units", "  mass 1.0", "  length 0.45", "  angle deg", ":documentation"]
    asf += [
        "  made by hand",
        ":root",
        "  order TX TY TZ RX RY RZ",
        "  axis XYZ",
        "  position 0 0 0",
        "  orientation 0 0 0",
    ]
    asf += [":bonedata"]
    for joint, name in enumerate(layout.joint_names):
        if parents[joint] < 0:
            continue
        length = np.linalg.norm(bones[joint])
        direction = bones[joint] / max(length, 1e-9)
        asf += ["  begin", f"     id {joint}", f"     name {name}"]
        asf += ["     direction " + " ".join(f"{value:.9f}" for value in direction), f"     length {length:.9f}"]
        asf += ["     axis " + " ".join(map(str, axes[joint])) + "  XYZ", "    dof rx ry rz"]
        asf += ["    limits (-180.0 180.0)", "           (-180.0 180.0)", "           (-180.0 180.0)", "  end"]
    asf += [":hierarchy", "  begin"]
    for joint, name in enumerate(layout.joint_names):
        below = [layout.joint_names[child] for child, parent in enumerate(parents) if parent == joint]
        if below:
            asf.append("    " + " ".join([name, *below]))
    asf.append("  end")
    amc = ["#!OML:ASF made.ASF", ":FULLY-SPECIFIED", ":DEGREES"]
    turned = []
    for joint, parent in enumerate(parents):
        local = world[joint] if parent < 0 else np.einsum("tji,tjk->tik", world[parent], world[joint])
        # The numbers are about the bone's own axes, x first: M = C' L C with M = Rz Ry Rx.
        own = product("ZYX", axes[joint][::-1])
        turned.append(angles("ZYX", own.T @ local @ own)[:, ::-1])
    for frame in range(len(positions)):
        amc.append(str(frame + 1))
        for joint, name in enumerate(layout.joint_names):
            values = turned[joint][frame]
            if parents[joint] < 0:
                values = np.concatenate([positions[frame, 0], values])
            amc.append(name + " " + " ".join(f"{value:.6g}" for value in values))
    return "\n".join(asf) + "\n", "\n".join(amc) + "\n"


# --- C3D -------------------------------------------------------------------------------------------------------------


def c3d(
    labels: list[str],
    points: np.ndarray,
    rate: float = 100.0,
    unit: str = "mm",
    *,
    scale: float = -0.1,
    processor: int = 84,
    analog: int = 0,
    residuals: np.ndarray | None = None,
) -> bytes:
    """A C3D file of points ``(T, P, 3)``: floats where the scale is negative, else 16-bit numbers of that size.

    Args:
        labels: Names of the points.
        points: Where they are, in the unit.
        rate: Frames per second.
        unit: The unit.
        scale: Scale factor.
        processor: 84 is Intel, 85 DEC, 86 MIPS.
        analog: Analog numbers in a frame.
        residuals: Residuals ``(T, P)``; -1 is a point that is not seen. Zero where None.
    """
    order = ">" if processor == 86 else "<"

    def real(values) -> bytes:
        values = np.asarray(values, np.float32)
        if processor != 85:
            return values.astype(order + "f4").tobytes()
        return np.ascontiguousarray(
            (values * np.float32(4)).astype("<f4").view("<u2").reshape(-1, 2)[:, ::-1]
        ).tobytes()

    def parameter(group: int, name: str, kind: int, dims: list[int], content: bytes) -> bytes:
        body = struct.pack("bB", kind, len(dims)) + bytes(dims) + content + b"\0"
        return struct.pack("bb", len(name), group) + name.encode() + struct.pack(order + "H", len(body) + 2) + body

    def group(number: int, name: str) -> bytes:
        return struct.pack("bb", len(name), -number) + name.encode() + struct.pack(order + "H", 3) + b"\0"

    frames, count, _ = points.shape
    width = max(map(len, labels))
    text = b"".join(label.encode().ljust(width) for label in labels)
    number = struct.Struct(order + "h")
    parts = group(1, "POINT") + group(2, "ANALOG")
    parts += parameter(1, "USED", 2, [], number.pack(count)) + parameter(
        1, "FRAMES", 2, [], struct.pack(order + "H", frames)
    )
    parts += parameter(1, "SCALE", 4, [], real([scale])) + parameter(1, "RATE", 4, [], real([rate]))
    parts += parameter(2, "USED", 2, [], number.pack(analog)) + parameter(1, "UNITS", -1, [len(unit)], unit.encode())
    parts += parameter(1, "LABELS", -1, [width, min(count, 255)], text[: width * 255])
    if count > 255:
        parts += parameter(1, "LABELS2", -1, [width, count - 255], text[width * 255 :])
    blocks = -(-(len(parts) + 6) // 512)
    data_start = 2 + blocks
    parameters = (bytes([1, 80, blocks, processor]) + parts + b"\0\0").ljust(512 * blocks, b"\0")
    header = bytes([2, 80]) + struct.pack(order + "5H", count, analog, 1, min(frames, 65535), 0) + real([scale])
    header += struct.pack(order + "2H", data_start, 1 if analog else 0) + real([rate])
    seen = np.zeros((frames, count)) if residuals is None else residuals
    values = np.concatenate([points if scale < 0 else np.round(points / scale), seen[..., None]], axis=-1)
    rows = np.concatenate([values.reshape(frames, -1), np.ones((frames, analog))], axis=1)
    data = real(rows) if scale < 0 else rows.astype(order + "i2").tobytes()
    content = header.ljust(512, b"\0") + parameters + data
    return content + bytes(-len(content) % 512)


# --- TRC -------------------------------------------------------------------------------------------------------------


def trc(
    names: list[str],
    points: np.ndarray,
    rate: float = 100.0,
    unit: str = "mm",
    *,
    separator: str = "\t",
    digits: int = 5,
) -> str:
    """A TRC file of points ``(T, P, 3)``; NaN is an empty cell."""
    keys = "DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame OrigNumFrames".split()
    facts = [rate, rate, len(points), len(names), unit, rate, 1, len(points)]
    heads = [cell for name in names for cell in (name, "", "")]
    axes = [f"{axis}{number}" for number in range(1, len(names) + 1) for axis in "XYZ"]
    lines = [
        ["PathFileType", "4", "(X/Y/Z)", "made.trc"],
        keys,
        map(str, facts),
        ["Frame#", "Time", *heads],
        ["", "", *axes],
    ]
    rows = [separator.join(line) for line in lines] + [""]
    for frame, row in enumerate(points.reshape(len(points), -1)):
        cells = ["" if np.isnan(value) else f"{value:.{digits}f}" for value in row]
        rows.append(separator.join([str(frame + 1), f"{frame / rate:.5f}", *cells]))
    return "\n".join(rows) + "\n"


# --- MVNX ------------------------------------------------------------------------------------------------------------


def mvnx(positions: np.ndarray, rate: int = 60, names: list[str] | None = None) -> str:
    """An MVNX file of positions ``(T, S, 3)`` of Xsens' segments, metres, z up, with calibration poses before them."""
    names = names or list(get_layout("xsens23").joint_names)
    segments = "\n".join(
        f'<segment label="{name}" id="{number}"><points><point label="p{name}"><pos_b>0 0 0</pos_b></point></points>'
        "</segment>"
        for number, name in enumerate(names, 1)
    )

    def frame(place: np.ndarray, kind: str, number: str) -> str:
        turned = " ".join(["1.000000 0.000000 0.000000 0.000000"] * len(names))
        where = " ".join(f"{value:.6f}" for value in place.ravel())
        return (
            f'<frame time="0" index="{number}" tc="00:00:00:00" ms="1" type="{kind}">'
            f"<orientation>{turned}</orientation><position>{where}</position><velocity>{where}</velocity></frame>"
        )

    frames = [frame(positions[0] + 5, kind, "") for kind in ("identity", "tpose", "tpose-isb")]
    frames += [frame(place, "normal", str(number)) for number, place in enumerate(positions)]
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<mvnx version="4">\n<mvn version="2018.0.0"/>\n<comment></comment>\n'
    )
    subject = f'<subject label="Suit 1" frameRate="{rate}" segmentCount="{len(names)}" configuration="FullBody">\n'
    body = (
        f'<segments>\n{segments}\n</segments>\n<frames segmentCount="{len(names)}">\n'
        + "\n".join(frames)
        + "\n</frames>\n"
    )
    return f"{head}{subject}{body}</subject>\n</mvnx>\n"


# --- AMASS -----------------------------------------------------------------------------------------------------------


def amass(positions: np.ndarray, rate: float = 120.0, width: int = 156) -> dict[str, np.ndarray]:
    """Arrays of an AMASS file of positions ``(T, 22, 3)`` of smpl22, y up, as poses of a T pose, turned z up."""
    parents = tree("smpl22")
    names = get_layout("smpl22").joint_names
    ahead = {"hip": None, "collar": None, "foot": (0.0, -0.4, 1.0)}
    rest = []
    for name in names:
        side = 1.0 if name.startswith("left") else -1.0
        kind = name.rpartition("_")[2]
        rest.append(
            ahead[kind]
            if kind in ahead
            else (side, 0.0, 0.0)
            if kind in ("shoulder", "elbow", "wrist")
            else (0.0, -1.0, 0.0)
            if kind in ("knee", "ankle")
            else (0.0, 1.0, 0.0)
        )
    # The rotation of a joint turns the bones below it; the first child with a direction of its own says how.
    world = np.zeros((len(names), len(positions), 3, 3))
    left = positions[:, names.index("left_hip")] - positions[:, names.index("right_hip")]
    up = positions[:, names.index("neck")] - positions[:, 0]
    across = left / np.linalg.norm(left, axis=-1, keepdims=True)
    up -= (up * across).sum(-1, keepdims=True) * across
    up /= np.linalg.norm(up, axis=-1, keepdims=True)
    trunk = np.stack([across, up, np.cross(across, up)], axis=-1)
    to_z_up = about("X", np.array(90.0))
    for joint, parent in enumerate(parents):
        child = next(
            (other for other, above in enumerate(parents) if above == joint and rest[other] is not None), None
        )
        if joint in (0, *(names.index(name) for name in ("spine1", "spine2", "spine3"))):
            world[joint] = trunk
        elif child is None or names[joint] in ("neck", "left_collar", "right_collar", "head"):
            world[joint] = world[parent]
        else:
            bone = positions[:, child] - positions[:, joint]
            # In the parent's frame the turn is the shortest.
            local = np.einsum("tji,tj->ti", world[parent], bone)
            world[joint] = world[parent] @ between(np.array(rest[child]), local)
    world = to_z_up @ world
    poses = np.zeros((len(positions), width))
    for joint, parent in enumerate(parents):
        local = world[joint] if parent < 0 else np.einsum("tji,tjk->tik", world[parent], world[joint])
        poses[:, 3 * joint : 3 * joint + 3] = rotation_vectors(local)
    return {
        "poses": poses,
        "trans": positions[:, 0] @ to_z_up.T,
        "mocap_framerate": np.array(rate),
        "gender": np.array("neutral"),
        "betas": np.zeros(16),
        "dmpls": np.zeros((len(positions), 8)),
    }


def rotation_vectors(matrices: np.ndarray) -> np.ndarray:
    """Axes times angles ``(T, 3)`` of rotations by less than half a turn."""
    angle = np.arccos(np.clip((np.trace(matrices, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    axis = np.stack(
        [
            matrices[..., 2, 1] - matrices[..., 1, 2],
            matrices[..., 0, 2] - matrices[..., 2, 0],
            matrices[..., 1, 0] - matrices[..., 0, 1],
        ],
        -1,
    )
    return axis * (angle / np.maximum(2 * np.sin(angle), 1e-9))[..., None]


def write(folder: Path, name: str, content) -> Path:
    """Write text, bytes or arrays under a name."""
    path = folder / name
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_squats(folder: Path) -> list[Path]:
    """The clip as ``squat.*`` of each kind; the skeleton of the AMC lies beside it."""
    joints, markers = get_layout("smpl22").joint_names, list(get_layout("ui-prmd39").joint_names)
    asf, amc = asf_amc(rigid(clip("cmu31"), tree("cmu31")))
    write(folder, "squat.asf", asf)
    names = [MOTIONBUILDER[name] for name in joints]
    contents = {
        "bvh": bvh(names, tree("smpl22"), clip("smpl22") * 100, FPS),
        "amc": amc,
        "c3d": c3d(markers, clip() * 1000, FPS),
        "trc": trc(markers, clip() * 1000, FPS),
        "mvnx": mvnx(clip("xsens23"), 33),
        "npz": amass(clip("smpl22"), FPS),
    }
    return [write(folder, f"squat.{kind}", content) for kind, content in contents.items()]
