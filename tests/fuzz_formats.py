"""Small valid recordings of other programs, which `fuzz_families` damages."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np

from .fuzzing import Files, npy, pack


def _rows(frames: int, joints: int, channels: int, seed: int = 0) -> np.ndarray:
    """Joints ``(T, V, C)`` of somebody who stands still and trembles."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.1, 0.9, (1, joints, channels)) + rng.normal(0, 0.01, (frames, joints, channels))).round(4)


def _files(*contents: Any) -> list[Files]:
    return [{"a.json": json.dumps(content).encode()} for content in contents]


def ultralytics() -> list[Files]:
    """``to_json()`` with and without scores and track numbers."""
    plain = [
        [{"name": "person", "keypoints": {"x": row[:, 0].tolist(), "y": row[:, 1].tolist(), "visible": [0.5] * 17}}]
        for row in _rows(2, 17, 2) * 100
    ]
    tracked = [
        [{"track_id": 3, "keypoints": {"x": row[:, 0].tolist(), "y": row[:, 1].tolist()}}] for row in _rows(2, 17, 2)
    ]
    return _files([*plain, []], tracked, {"frames": [{"frame": 4, "detections": plain[0]}]})


def labels() -> list[Files]:
    """The folder of ``save_txt``."""

    def line(row: np.ndarray, more: str = "") -> bytes:
        return ("0 0.5 0.5 0.2 0.6 " + " ".join(map(str, row.ravel().tolist())) + more + "\n").encode()

    scored, plain = _rows(2, 17, 3), _rows(2, 17, 2)
    return [
        {"film_1.txt": line(scored[0]), "film_2.txt": line(scored[1]) + line(scored[0] / 2)},
        {"film_01.txt": line(plain[0], " 0.9 1"), "film_03.txt": line(plain[1], " 0.8 1")},
    ]


def mmpose() -> list[Files]:
    """Predictions in 3D, of one image, and of whole bodies."""
    spatial = [
        {"frame_id": number, "instances": [{"keypoints": row.tolist(), "keypoint_scores": [0.5] * 17}]}
        for number, row in enumerate(_rows(2, 17, 3))
    ]
    image = [{"keypoints": row.tolist(), "keypoint_scores": [0.5] * 17} for row in _rows(2, 17, 2)]
    whole = [{"instances": [{"keypoints": row.tolist(), "keypoint_scores": [0.5] * 133}]} for row in _rows(1, 133, 2)]
    return _files({"instance_info": spatial}, image, whole)


def mediapipe() -> list[Files]:
    """Landmarks by many names."""
    frames = [[{"x": x, "y": y, "z": z, "visibility": 0.9} for x, y, z in row.tolist()] for row in _rows(2, 33, 3)]
    return _files(
        frames,
        {"fps": 30, "frames": [{"frame": number, "landmarks": frame} for number, frame in enumerate(frames)]},
        [{"poseLandmarks": frames[0], "poseWorldLandmarks": {"landmark": frames[1]}}, None, {}],
        {"0": {"pose_world_landmarks": frames[0]}, "7": {"pose_world_landmarks": []}},
        _rows(2, 33, 4).tolist(),
    )


def json_lines() -> list[Files]:
    """Landmarks with a line for each frame."""
    frames = [{"t": number / 30, "worldLandmarks": frame} for number, frame in enumerate(_rows(3, 33, 3).tolist())]
    return [{"a.json": "\n".join(map(json.dumps, frames)).encode()}]


def coco() -> list[Files]:
    """Annotations of a video, of images of different sizes, and of PoseTrack."""
    people = [
        {"image_id": number, "keypoints": row.ravel().tolist(), "track_id": 1}
        for number, row in enumerate(_rows(2, 17, 3) * 100)
    ]
    video = [{"id": number, "file_name": f"a/{number}.jpg", "height": 100, "width": 200} for number in (0, 1)]
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 100 + number, "width": 200} for number in (0, 1)]
    tracked = [{"id": number, "vid_id": "v", "file_name": f"a/{number}.jpg"} for number in (0, 1)]
    names = ["nose", "head_bottom", "head_top"]
    return _files(
        {"images": video, "annotations": people, "categories": [{"keypoints": []}]},
        {"images": images, "annotations": people},
        {"images": tracked, "annotations": people, "categories": [{"keypoints": names}]},
    )


def kinetics() -> list[Files]:
    """Kinetics-skeleton."""
    frames = [
        {"frame_index": number + 1, "skeleton": [{"pose": row.ravel().tolist(), "score": [0.5] * 18}]}
        for number, row in enumerate(_rows(2, 18, 2))
    ]
    return _files({"data": [*frames, {"frame_index": 4, "skeleton": []}], "label": "squat", "label_index": 3})


def azure() -> list[Files]:
    """Bodies of Azure Kinect."""
    frames = [
        {
            "frame_id": number,
            "timestamp_usec": 33333 * number,
            "bodies": [{"body_id": 1, "joint_positions": row.tolist()}],
        }
        for number, row in enumerate(_rows(2, 32, 3) * 1000)
    ]
    return _files({"frames": [*frames, {"frame_id": 3, "bodies": []}]}, {"frames": frames[:1]})


def keraal() -> list[Files]:
    """Positions by name and by number."""
    names = "Nose Neck rShoulder rElbow rWrist lShoulder lElbow lWrist rHip rKnee rAnkle lHip lKnee lAnkle rEye lEye"
    named = {
        f"{number + 1}.0": dict(zip([*names.split(), "rEar", "lEar"], row.tolist(), strict=True))
        for number, row in enumerate(_rows(2, 18, 2))
    }
    numbered = {
        str(number): {str(joint): point for joint, point in enumerate(row.tolist())}
        for number, row in enumerate(_rows(2, 17, 2))
    }
    return _files({"positions": named}, {"positions": numbered})


def panoptic() -> list[Files]:
    """Frames of CMU Panoptic."""
    rows = _rows(4, 19, 4) * (100, 100, 100, 1)
    contents = [
        {"univTime": 1.0, "fpsType": "hd_29_97", "bodies": [{"id": 0, "joints19": row.ravel().tolist()}]}
        for row in rows
    ]
    files = {f"body3DScene_{number:08d}.json": json.dumps(content).encode() for number, content in enumerate(contents)}
    return [files, dict(list(files.items())[1:2])]


def tables() -> list[Files]:
    """Tables under other names: Kinect's SDK, MediaPipe by name and number, a row for each joint, semicolons."""
    points = _rows(3, 33, 4).tolist()
    sdk = "SpineBase SpineMid Neck Head ShoulderLeft ElbowLeft WristLeft HandLeft ShoulderRight ElbowRight WristRight "
    sdk += "HandRight HipLeft KneeLeft AnkleLeft FootLeft HipRight KneeRight AnkleRight FootRight SpineShoulder "
    sdk += "HandTipLeft ThumbLeft HandTipRight ThumbRight"
    kinect = ";".join(["time", *(f"{name}_{axis}" for name in sdk.split() for axis in "XYZ")])
    timed = np.c_[np.arange(3) / 30, _rows(3, 25, 3).reshape(3, -1)].round(3).tolist()
    rows = [";".join(map(str, row)).replace(".", ",") for row in timed]
    counted = ",".join(["class", *(f"{axis}{joint}" for joint in range(1, 34) for axis in "xyzv")])
    body = [",".join(["squat", *map(str, np.ravel(row))]) for row in points]
    long = [
        ",".join(map(str, [frame, joint, *point]))
        for frame, row in enumerate(points)
        for joint, point in enumerate(row)
    ]
    return [
        {"a.csv": "\n".join([kinect, *rows]).encode()},
        {"a.csv": "\n".join([counted, *body]).encode()},
        {"a.csv": "\n".join(["frame,landmark,x,y,z,visibility", *long]).encode()},
    ]


def numbers() -> list[Files]:
    """Lines of numbers: Kinect v2 with states, with quaternions and with times; MediaPipe; KERAAL; MSR-Action3D."""

    def text(rows: np.ndarray, separator: str = " ") -> list[Files]:
        return [{"a.txt": "\n".join(separator.join(map(str, row)) for row in rows.tolist()).encode()}]

    states = np.concatenate([_rows(3, 25, 3), np.full((3, 25, 1), 2.0)], axis=-1).reshape(3, -1)
    timed = np.c_[np.arange(4) / 30, _rows(4, 25, 3).reshape(4, -1)].round(4)
    return [
        *text(states, ","),
        *text(_rows(2, 25, 7).reshape(2, -1)),
        *text(timed, "\t"),
        *text(_rows(2, 33, 4).reshape(2, -1), ","),
        *text(_rows(2, 17, 7).reshape(2, -1) * 1000),
        *text(_rows(2, 20, 4).reshape(40, 4)),
    ]


def _clips(recordings: int, frames: int, seed: int = 0) -> np.ndarray:
    """Recordings ``(N, T, M, V, C)`` of one person of two, padded with zeros."""
    found = np.zeros((recordings, frames + 2, 2, 25, 3), np.float32)
    found[:, :frames, 0] = _rows(recordings * frames, 25, 3, seed).reshape(recordings, frames, 25, 3)
    return found


def agcn_array() -> np.ndarray:
    """The array of 2s-AGCN."""
    return _clips(3, 4).transpose(0, 4, 1, 3, 2)


def agcn() -> list[Files]:
    """2s-AGCN's array with its labels, and without."""
    names = [f"S001C001P00{number}R001A00{number}.skeleton" for number in (1, 2, 3)]
    files = {"train_data_joint.npy": npy(agcn_array()), "train_label.pkl": pickle.dumps((names, [0, 1, 2]), 2)}
    return [files, {"train_data_joint.npy": npy(agcn_array())}]


def ctr_gcn() -> list[Files]:
    """CTR-GCN's archive, of both sides and of one."""
    sides = {
        "x_train": _clips(3, 4).reshape(3, 6, 150),
        "y_train": np.eye(5)[[0, 1, 2]],
        "x_test": _clips(2, 4, 1).reshape(2, 6, 150),
        "y_test": np.eye(5)[[3, 4]],
    }
    halves = (sides, {name: sides[name] for name in ("x_test", "y_test")})
    return [{"a.npz": pack({f"{name}.npy": npy(array) for name, array in half.items()})} for half in halves]


def annotations() -> list[Any]:
    """What pickles of MMAction2 hold besides a data set: a list of annotations, and one."""
    entry = {
        "frame_dir": "a",
        "label": 2,
        "keypoint": _rows(3, 25, 3)[None].astype(np.float16),
        "total_frames": 3,
    }
    return [[entry, {**entry, "frame_dir": "b"}], entry]
