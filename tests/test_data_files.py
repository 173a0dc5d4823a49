"""Readers of data sets' text files and of pose estimators' files."""

import io
import json
import pickle
import pickletools
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from usdrl_hub import SkeletonFormatError, get_layout, read_skeleton
from usdrl_hub.data.csv import read_csv
from usdrl_hub.data.pickles import load_numpy_pickle
from usdrl_hub.data.poses import read_pose_json
from usdrl_hub.data.prepare import prepare
from usdrl_hub.data.pyskl import read_pyskl
from usdrl_hub.data.readers import find_recordings, iter_skeletons
from usdrl_hub.data.reading import Reading
from usdrl_hub.data.text import read_pku_labels, read_pku_skeleton, read_pku_split
from usdrl_hub.inference.source import Source

RNG = np.random.default_rng(0)


def write_uav(path, keypoints):
    lines = [str(len(keypoints))]
    for frame in keypoints:
        lines.append(str(len(frame)))
        for body in frame:
            lines += ["1 0 0", "17", *(" ".join(repr(float(value)) for value in joint) for joint in body)]
    path.write_text("\n".join(lines))
    return path


def write_pku(path, keypoints):
    np.savetxt(path, keypoints.reshape(len(keypoints), -1), fmt="%.9g")
    return path


def write_pyskl(path, protocol=4, frames=6):
    keypoint = RNG.uniform(1, 900, (2, frames, 17, 2)).astype(np.float16)
    annotation = {
        "frame_dir": "S001C001P001R001A003",
        "label": np.int64(2),
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
        "total_frames": frames,
        "keypoint": keypoint,
        "keypoint_score": RNG.uniform(0.1, 1, (2, frames, 17)).astype(np.float16),
    }
    content = {"split": {"xsub_train": ["S001C001P001R001A003"]}, "annotations": [annotation, annotation]}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return annotation


def openpose():
    return {"people": [{"pose_keypoints_2d": RNG.uniform(1, 9, 75).round(3).tolist()} for _ in range(2)]}


def alphapose():
    return [
        {"image_id": f"{frame}.jpg", "keypoints": RNG.uniform(1, 9, 51).round(3).tolist(), "score": 1.0, "idx": person}
        for frame in range(3)
        for person in (7, 3)
    ]


def mmpose():
    instances = [{"keypoints": RNG.uniform(1, 9, (17, 2)).tolist(), "keypoint_scores": [0.5] * 17}]
    return {"instance_info": [{"frame_id": frame + 1, "instances": instances} for frame in range(4)]}


def mediapipe(key="pose_world_landmarks"):
    landmark = {"x": 0.1, "y": -0.5, "z": 0.2, "visibility": 0.9}
    return [{key: [[landmark] * 33]}, {key: []}, {key: [[landmark] * 33]}]


def write_table(path, layout="ntu25", rows=5, axes=("x", "y", "z")):
    names = [f"{joint}_{axis}" for joint in get_layout(layout).joint_names for axis in axes]
    lines = [",".join(["frame", *names])]
    lines += [
        ",".join([str(row), *(f"{value:.4f}" for value in RNG.normal(1, 0.1, len(names)))]) for row in range(rows)
    ]
    path.write_text("\n".join(lines))
    return path


def test_uav_human_files_are_read(tmp_path):
    keypoints = RNG.normal(size=(4, 2, 17, 3)) * np.array([3, 1])[:, None, None]
    path = write_uav(tmp_path / "P001S02G10B10H20UC022000LC021000A154R0_08251609.txt", keypoints)
    sequence = read_skeleton(path)
    np.testing.assert_allclose(sequence.keypoints, keypoints, rtol=1e-6)
    assert (sequence.layout, sequence.label, sequence.subject) == ("uav17", 154, 1)


def test_pku_videos_are_read_untrimmed(tmp_path):
    keypoints = RNG.normal(size=(700, 2, 25, 3))
    sequence = read_pku_skeleton(write_pku(tmp_path / "0364-R.txt", keypoints))
    np.testing.assert_allclose(sequence.keypoints, keypoints, rtol=1e-6)
    assert (sequence.name, sequence.camera, sequence.num_frames) == ("0364-R", 2, 700)


def test_real_pku_labels_and_split(shared_data, tmp_path):
    count = swapped = 0
    with zipfile.ZipFile(shared_data / "pku_mmd_labels" / "V1_Label.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        for name in names:
            (tmp_path / "labels.txt").write_bytes(archive.read(name))
            rows = read_pku_labels(tmp_path / "labels.txt")
            plain = np.loadtxt(io.BytesIO(archive.read(name)), delimiter=",", ndmin=2)
            assert (rows[:, 2] >= rows[:, 1]).all() and (rows[:, 0] == plain[:, 0]).all()
            count, swapped = count + len(rows), swapped + int((plain[:, 2] < plain[:, 1]).sum())
    assert (len(names), count, swapped) == (1076, 21_545, 1)
    train, test = read_pku_split(shared_data / "pku_mmd_labels" / "pkuv1_cross_subject.txt")
    assert len(train) + len(test) <= 1076 and "0002-L" in train and "" not in train + test


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pyskl_pickles_are_read(tmp_path, protocol):
    annotation = write_pyskl(tmp_path / "ntu60.pkl", protocol)
    sequences, splits = read_pyskl(tmp_path / "ntu60.pkl")
    first, second = sequences
    assert splits == {"xsub_train": ["S001C001P001R001A003"]} and second.name == first.name == annotation["frame_dir"]
    np.testing.assert_array_equal(first.keypoints[..., :2], annotation["keypoint"].transpose(1, 0, 2, 3))
    np.testing.assert_array_equal(first.keypoints[..., 2], annotation["keypoint_score"].transpose(1, 0, 2))
    assert (first.label, first.image_shape, first.coordinates) == (2, (1080.0, 1920.0), "2d+score")
    assert len(list(iter_skeletons(tmp_path / "ntu60.pkl"))) == 2


class Runs:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_in_a_pickle_never_runs(tmp_path, protocol):
    import os

    marker = tmp_path / "ran"
    for payload in (
        Runs(os.system, f"touch {marker}"),
        Runs(exec, f"open({str(marker)!r}, 'w')"),
        Runs(np.save, str(marker), np.ones(1)),
        np.array([Runs(os.system, f"touch {marker}")], dtype=object),
    ):
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"annotations": [payload]}, protocol=protocol))
        with pytest.raises(SkeletonFormatError, match=r"evil\.pkl"):
            load_numpy_pickle(tmp_path / "evil.pkl")
        assert not marker.exists()


@pytest.mark.parametrize(
    "bomb",
    [
        # Memory for a memo of a thousand million places; for a string of a terabyte; an array of a million million.
        b"\x80\x04N" + b"r\x00\x00\x00\x3f" + b".",
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'f8'\ntR.",
        b"cnumpy\nndarray\n((I1000000000000\nttR.",
    ],
)
def test_a_small_pickle_takes_little_memory(tmp_path, bomb):
    (tmp_path / "bomb.pkl").write_bytes(bomb)
    script = f"""
import resource
from usdrl_hub.data.pickles import load_numpy_pickle
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_numpy_pickle({str(tmp_path / "bomb.pkl")!r})
except ValueError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 64_000


def test_pose_files_are_read(tmp_path):
    path = tmp_path / "pose.json"

    def read(content):
        path.write_text(json.dumps(content))
        return read_pose_json(path)

    content = openpose()
    sequence = read(content)
    assert sequence.keypoints.shape == (1, 2, 25, 3) and get_layout(sequence.layout).name == "openpose25"
    np.testing.assert_allclose(sequence.keypoints[0, 1].ravel(), content["people"][1]["pose_keypoints_2d"], rtol=1e-6)
    content = alphapose()
    sequence = read(content)
    assert sequence.keypoints.shape == (3, 2, 17, 3) and sequence.coordinates == "2d+score"
    # Tracks stay together whatever their order in a frame.
    np.testing.assert_allclose(sequence.keypoints[2, 1].ravel(), content[5]["keypoints"], rtol=1e-6)
    assert read(mmpose()).keypoints.shape == (4, 1, 17, 3)
    world = read(mediapipe())
    assert (world.keypoints.shape, world.coordinates, world.up) == ((3, 1, 33, 3), "3d", "-y")
    assert not world.keypoints[1].any() and world.to_layout("ntu25").keypoints[0, 0, 0, 1] == pytest.approx(0.5)
    shares = read(mediapipe("pose_landmarks"))
    assert (shares.coordinates, shares.image_shape) == ("2d+score", (1.0, 1.0))
    assert read_skeleton(path).keypoints.shape == (3, 1, 33, 3)


def test_json_holds_arrays_of_any_layout(tmp_path):
    path = tmp_path / "plain.json"
    keypoints = np.random.randn(6, 20, 3).round(3)
    path.write_text(json.dumps(keypoints.tolist()))
    [plain] = iter_skeletons(path, Reading("kinect20"))
    assert plain.layout.name == "kinect20" and plain.name == "plain"
    np.testing.assert_allclose(plain.keypoints[:, 0], keypoints, rtol=1e-6)
    pairs = np.random.randn(90, 2, 17, 3)
    path.write_text(json.dumps({"keypoints": pairs.tolist(), "fps": 30}))
    flat = read_pose_json(path, Reading("coco17", image_shape=(1080, 1920)))
    assert (flat.num_persons, flat.coordinates, flat.image_shape) == (2, "2d+score", (1080, 1920))
    holes = keypoints.tolist()
    holes[2][3] = [None, None, None]
    path.write_text(json.dumps(holes))
    with pytest.raises(SkeletonFormatError, match="NaN"):
        list(iter_skeletons(path, Reading("kinect20")))
    [filled] = iter_skeletons(path, Reading("kinect20", missing="interpolate"))
    assert not filled.keypoints[2, 0, 3].any() and filled.keypoints[2, 0, 4].any()
    # In a data set, too, where the option had no effect.
    keypoints[2, 3, 1] = np.nan
    arrays = {"data": keypoints[:, None], "offsets": [0, len(keypoints)], "layout": "kinect20"}
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(SkeletonFormatError, match="NaN"):
        list(iter_skeletons(tmp_path / "set.npz"))
    [sequence] = iter_skeletons(tmp_path / "set.npz", Reading(missing="interpolate"))
    np.testing.assert_array_equal(sequence.keypoints, filled.keypoints)


def test_tables_are_read(tmp_path):
    sequence = read_csv(write_table(tmp_path / "walk.csv"))
    assert sequence.keypoints.shape == (5, 1, 25, 3) and sequence.coordinates == "3d" and sequence.name == "walk"
    flat = read_csv(write_table(tmp_path / "flat.csv", "coco17", axes=("x", "y", "score")), Reading("coco17"))
    assert flat.coordinates == "2d+score"
    assert (
        read_csv(write_table(tmp_path / "bare.csv", "coco17", axes=("x", "y")), Reading("coco17")).coordinates == "2d"
    )
    lines = (tmp_path / "walk.csv").read_text().splitlines()
    lines[2] = lines[2].replace(lines[2].split(",")[3], "", 1)
    lines[3] = "9" + lines[3][1:]
    (tmp_path / "gaps.csv").write_text("\n".join(lines))
    gaps = read_csv(tmp_path / "gaps.csv")
    assert gaps.num_frames == 10 and not gaps.keypoints[2].any() and gaps.keypoints[9].any()


# Of COCO; images of different sizes are no video.
IMAGES_WITHOUT_PEOPLE = json.dumps(
    {"images": [{"id": number, "height": 8 + number, "width": 9} for number in range(2)], "annotations": []}
)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.json", "{", "it is not JSON"),
        ("a.json", "[]", "not JSON of OpenPose"),
        ("a.json", '{"people": []}', "no person is detected"),
        ("a.json", IMAGES_WITHOUT_PEOPLE, "no person with keypoints is annotated in its 2 images"),
        ("a.json", '{"people": [{"pose_keypoints_2d": [1, 2]}]}', "frame 0: 'pose_keypoints_2d' is not a list of x"),
        ("a.json", '{"people": [{"pose_keypoints_2d": [1, 2, "x"]}]}', "not all numbers"),
        ("a.json", '{"people": [{"pose_keypoints_2d": [1, 2, NaN]}]}', "NaN or infinite"),
        ("a.json", '{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "has 1 joints: name the layout"),
        ("a.json", "[" * 100_000, "it is not JSON"),
        ("a.json", "[[[1, 2, 3], [1, 2]]]", "no array: every frame needs as many joints"),
        ("a.json", '[[[1, 2, "x"]]]', "no array"),
        ("a.json", "[1, 2, 3]", "(3,)"),
        ("a.json", "[[[[]]]]", "frame 0: it is not a list of people"),
        ("a.csv", "frame\n", "no frame below"),
        ("a.csv", "frame,x\n1,2\n", "needs the column 'spine_base_x'"),
        ("a.txt", "1 2 3\n", "line 1: 3 numbers, expected 150"),
        ("a.txt", " ".join(["nan"] * 150), "line 1: a coordinate is NaN"),
        ("a.pkl", "plain text", "a.pkl"),
    ],
)
def test_malformed_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        list(iter_skeletons(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,2\n", "expected label"),
        ("52,1,2,1\n", "class 52"),
        ("a,1,2,1", "expected label"),
        ("1,-2,3,1", "expected label"),
    ],
)
def test_malformed_labels_and_splits_are_refused(tmp_path, text, message):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(SkeletonFormatError, match=message):
        read_pku_labels(path)
    path.write_text("Training:\na, b,\nValidation:\nb, c,\n")
    with pytest.raises(SkeletonFormatError, match="'b' is on both sides"):
        read_pku_split(path)


def test_the_pickles_of_the_tests_hold_what_they_claim(tmp_path):
    write_pyskl(tmp_path / "a.pkl", protocol=2)
    names = {
        argument
        for opcode, argument, _ in pickletools.genops((tmp_path / "a.pkl").read_bytes())
        if opcode.name == "GLOBAL"
    }
    assert any("_reconstruct" in name for name in names) and any("scalar" in name for name in names)


def write_frames(folder, name="squat", start=0, step=1, tracked=False, frames=6):
    """Frames as OpenPose writes them: a person to the left and one to the right, who swap places in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = np.random.default_rng(0).uniform(0, 50, (2, 25, 2)) + [[[100, 100]], [[900, 100]]]
    for number in range(frames):
        rows = [np.c_[body + number, np.ones(25)].ravel().tolist() for body in bodies]
        people = [
            {"person_id": [4 - who if tracked else -1], "pose_keypoints_2d": row} for who, row in enumerate(rows)
        ]
        # Nobody is seen in the first frame and the last.
        people = [] if number in (0, frames - 1) else people[:: -1 if number % 2 else 1]
        file = folder / f"{name}_{start + step * number:012d}_keypoints.json"
        file.write_text(json.dumps({"version": 1.3, "people": people}))
    return bodies


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("start, step", [(0, 1), (7, 5)])
def test_frames_of_openpose_are_one_recording(tmp_path, tracked, start, step):
    bodies = write_frames(tmp_path, "a [1] *", start, step, tracked)
    write_frames(tmp_path, "other")
    [path, other] = find_recordings(tmp_path)
    assert (path.name, other.name) == ("a [1] *_*_keypoints.json", "other_*_keypoints.json")
    sequence = read_skeleton(path)
    assert (sequence.name, sequence.layout.name, sequence.keypoints.shape) == ("a [1] *", "openpose25", (6, 2, 25, 3))
    assert not sequence.keypoints[[0, 5]].any()
    left, right = sorted(sequence.keypoints[1:5].transpose(1, 0, 2, 3), key=lambda person: person[0, 0, 0])
    for body, person in zip(bodies, (left, right), strict=True):
        np.testing.assert_allclose(person[..., :2], body + np.arange(1, 5)[:, None, None], rtol=1e-6)
    # A frame by itself is a recording of one frame.
    assert read_skeleton(tmp_path / f"other_{2:012d}_keypoints.json").num_frames == 1


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "there is no such file"),
        ("[]", r"walk_000000000003_keypoints.json: it is not a frame of OpenPose"),
        ('{"people": [', r"walk_000000000003_keypoints.json: it is not JSON"),
        ('{"people": [{"pose_keypoints_2d": [1, 2]}]}', r"walk_000000000003_keypoints.json, frame 3"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "people have 1 and 25 joints"),
        ('{"people": 3}', "no list 'people'"),
    ],
)
def test_damaged_frames_of_openpose_are_refused(tmp_path, content, message):
    if content is not None:
        write_frames(tmp_path, "walk")
        (tmp_path / f"walk_{3:012d}_keypoints.json").write_text(content)
    with pytest.raises(SkeletonFormatError, match=message):
        read_skeleton(tmp_path / "walk_*_keypoints.json")


def test_frames_without_anybody_are_refused(tmp_path):
    write_frames(tmp_path, frames=2)
    with pytest.raises(SkeletonFormatError, match="no person is detected"):
        read_skeleton(tmp_path / "squat_*_keypoints.json")


def test_folders_of_openpose_become_stores_and_sequences(tmp_path):
    for name in ("squat", "lunge"):
        write_frames(tmp_path / "raw" / name / "day 1", f"{name}-1")
        write_frames(tmp_path / "raw" / name / "day 1", f"{name}-2")
    store, report = prepare("folder", tmp_path / "raw", tmp_path / "store", reading=Reading(image_shape=(1080, 1920)))
    assert (len(store), report["read"], store.class_names) == (4, 4, ["lunge", "squat"])
    assert store.names[0] == "lunge/day 1/lunge-1" and store[0].image_shape == (1080, 1920)
    names = [sequence.name for sequence in Source(tmp_path / "raw")]
    assert names == store.names
