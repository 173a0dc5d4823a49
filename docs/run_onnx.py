"""Recognise the action in a recording with NumPy and onnxruntime only, without torch, transformers or usdrl_hub.

    usdrl export usdrl/tiny-uiprmd --output-dir exported
    python run_onnx.py exported/model.onnx recording.npy

The recording is an array (frames, joints, 3) or (frames, persons, joints, 3) with the joints in the order of the
file's metadata (`joint_names`), in metres, y up, all zero for absent persons. For recognisers of 3D joints; 2D
keypoints, other layouts and missing joints need the package.
"""

import json
import sys

import numpy as np
import onnxruntime


def fill(frames):
    """Move the frames of a person who appears late to the start, and repeat them to the end."""
    for person in frames.swapaxes(0, 1):
        seen = np.flatnonzero(person.sum(-1).sum(-1))
        if len(seen):
            person[:] = person[np.resize(seen if seen[0] else np.arange(seen[-1] + 1), len(person))]


def rotation(vector, target):
    """The rotation of a vector onto an axis, about their common normal."""
    normal, length = np.cross(vector, target), np.linalg.norm(vector)
    angle = np.arccos(np.clip(vector @ target / max(length, 1e-300), -1, 1))
    if min(abs(vector).sum(), abs(normal).sum(), angle) < 1e-6:
        return np.eye(3)
    x, y, z = normal / np.linalg.norm(normal)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def make_clip(frames, how):
    """The model's input (1, T, M, V, 3) from a recording (F, persons, V, 3), by preprocessor_config.json."""
    seen, wanted = frames.sum(-1).sum(-1) != 0, how["num_persons"]
    rank = seen.any(0).astype(float)
    if rank.sum() > wanted:  # keep the people who move most
        people = [frames[there, person].astype(float) for person, there in enumerate(seen.T)]
        rank = np.array([person.std((0, 1)).sum() if len(person) else 0 for person in people])
    frames = frames[: how["max_frames"], np.argsort(-rank, kind="stable")[:wanted]]
    frames = np.pad(frames, ((0, 0), (0, wanted - frames.shape[1]), (0, 0), (0, 0)))
    raw, turn, scale = frames.copy(), np.eye(3), 1.0
    if how["normalization"] != "none":
        fill(frames)
    if how["center_joint"] is not None:
        present = frames.sum(-1, keepdims=True) != 0
        frames = (frames - frames[:, :1, how["center_joint"], None]) * present
    if how["upright"] and how["x_axis"]:
        first = frames[np.minimum(np.arange(8), len(frames) - 1), 0].astype(float)
        x, _, z = (first[:, how["x_axis"][1]] - first[:, how["x_axis"][0]]).mean(0)
        length = np.hypot(x, z)
        if length > 1e-6:
            turn = np.array([[x, 0, z], [0, length, 0], [-z, 0, x]]) / length
    else:
        for joints, axis in ((how["z_axis"], [0.0, 0, 1]), (how["x_axis"], [1.0, 0, 0])):
            if joints:
                vector = frames[0, 0, joints[1]].astype(float) - frames[0, 0, joints[0]]
                turn = rotation(turn @ vector, np.array(axis)) @ turn
    if how["torso"]:
        start, end = raw[:, 0, how["torso"]].astype(float).swapaxes(0, 1)
        length = np.linalg.norm(end - start, axis=-1)[(start != 0).any(-1) & (end != 0).any(-1)]
        scale = how["torso_length"] / length.mean() if len(length) and length.mean() > 1e-6 else 1.0
    frames = frames @ (turn * scale).astype(np.float32).T
    place = np.maximum((np.arange(how["num_frames"]) + 0.5) * len(frames) / how["num_frames"] - 0.5, 0)
    before = np.minimum(place.astype(int), len(frames) - 1)
    after, weight = np.minimum(before + 1, len(frames) - 1), (place % 1).astype(np.float32)[:, None, None, None]
    return (frames[before] * (1 - weight) + frames[after] * weight)[None]


def main(model, recording):
    """Print the three most probable classes, or the numbers that a regression model says."""
    session = onnxruntime.InferenceSession(model)
    about = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    how, joints = about["preprocessor_config.json"], about["joint_names"]
    plain = {"relink": False, "choose_by": "energy", "missing": "refuse"}
    if about["coordinates"] != "3d" or any(how[name] != value for name, value in plain.items()):
        sys.exit(f"this example lacks the preprocessing of {model}: use usdrl_hub")
    if about["config.json"]["architectures"] != ["USDRLForActionRecognition"]:
        sys.exit(f"{model} is not a recogniser, as this example needs")
    frames = np.load(recording).astype(np.float32)
    frames = frames[:, None] if frames.ndim == 3 else frames
    fits = frames.ndim == 4 and frames.shape[2:] == (len(joints), 3)
    if not fits or not np.isfinite(frames).all() or not frames.any():
        sys.exit(f"{recording}: give (frames, persons, {len(joints)}, 3) without NaN; joints: {', '.join(joints)}")
    some, joints_seen = frames.any(-1).any(-1, keepdims=True), frames.any(-1)
    if how.get("fill_joints") and (some & ~joints_seen).any():
        sys.exit(f"{recording}: joints are missing, which {model} imputes: use usdrl_hub")
    [logits] = session.run(["logits"], {"keypoints": make_clip(frames, how)})
    names, problem = about["config.json"]["id2label"], about["config.json"].get("problem_type")
    if problem == "regression":
        for number, value in enumerate(logits[0]):
            print(f"{value:.6g}  {names[str(number)]}")
        return
    scores = np.exp(logits[0] - logits[0].max())
    scores = 1 / (1 + np.exp(-logits[0])) if problem == "multi_label_classification" else scores / scores.sum()
    for number in np.argsort(-scores, kind="stable")[:3]:
        print(f"{scores[number]:.6f}  {names[str(number)]}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
