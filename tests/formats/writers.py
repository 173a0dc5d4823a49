"""The squat as the programs of docs/formats.md write it, one file for each kind."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from .clip import landmarks, pixels, scored, squat
from .test_tables import SDK, lines_of, table


def write_all(folder: Path) -> None:
    """Write the files that the guide names."""

    def write(name: str, content: Any) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    named = [[dict(zip("xyz", map(float, point), strict=True)) for point in frame] for frame in landmarks()]
    write("mediapipe.json", [{"pose_world_landmarks": [frame]} for frame in named])
    rows = scored(pixels())
    flat = [row.ravel().tolist() for row in rows]
    write("alphapose.json", [{"image_id": f"{number}.jpg", "keypoints": row} for number, row in enumerate(flat)])
    people = [{"keypoints": row[:, :2].tolist(), "keypoint_scores": row[:, 2].tolist()} for row in rows]
    write("mmpose.json", [{"frame_id": number, "instances": [person]} for number, person in enumerate(people)])
    columns = [dict(zip(("x", "y", "visible"), row.T.tolist(), strict=True)) for row in rows]
    write("ultralytics.json", [[{"name": "person", "keypoints": keypoints}] for keypoints in columns])
    for number, row in enumerate(rows / (1920, 1080, 1)):
        write(f"labels/film_{number}.txt", "0 0.5 0.5 0.2 0.6 " + " ".join(map(str, row.ravel().round(6))))
    for number, row in enumerate(scored(pixels("openpose25"))):
        person = {"person_id": [-1], "pose_keypoints_2d": row.ravel().tolist()}
        write(f"poses/squat_{number:012d}_keypoints.json", {"version": 1.3, "people": [person]})
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 1080, "width": 1920} for number in range(86)]
    people = [{"image_id": number, "keypoints": row} for number, row in enumerate(flat)]
    write("coco.json", {"images": images, "annotations": people})
    bodies = (squat("azure32") * (1000, -1000, -1000)).tolist()
    write("azure.json", {"frames": [{"bodies": [{"body_id": 1, "joint_positions": body}]} for body in bodies]})
    write("kinect.csv", table(SDK, squat(), axes="XYZ"))
    write("kinect.txt", lines_of(squat()))
    write("a12_s05_e01_skeleton3D.txt", lines_of(scored(squat("msr20")).reshape(-1, 1, 4)))
    for number, body in enumerate(scored(squat("panoptic19") * (100, -100, -100))):
        content = {"univTime": 1.0, "bodies": [{"id": 0, "joints19": body.ravel().tolist()}]}
        write(f"panoptic/body3DScene_{number:08d}.json", content)
    clips = np.zeros((4, 90, 2, 25, 3), np.float32)
    clips[:, :86, 0] = squat()
    np.save(folder / "train_data_joint.npy", clips.transpose(0, 4, 1, 3, 2))
    (folder / "train_label.pkl").write_bytes(pickle.dumps((["a", "b", "c", "d"], [0, 1, 2, 3])))
    classes = np.eye(4)
    np.savez(
        folder / "NTU60_CS.npz",
        **{"x_train": clips[:3].reshape(3, 90, 150), "y_train": classes[:3]},
        **{"x_test": clips[3:].reshape(1, 90, 150), "y_test": classes[3:]},
    )
    entry = {"frame_dir": "a", "label": 0, "keypoint": squat()[None].astype(np.float16), "total_frames": 86}
    content = {"split": {"xsub_train": ["a"], "xsub_val": ["b"]}, "annotations": [entry, {**entry, "frame_dir": "b"}]}
    (folder / "ntu60_3danno.pkl").write_bytes(pickle.dumps(content))
