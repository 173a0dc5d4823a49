"""Recordings of pose estimators and sensors as JSON: what they mean, and what is refused."""

import json
import warnings

import numpy as np
import pytest

from usdrl_hub import get_layout
from usdrl_hub.data.poses import iter_pose_json, read_pose_json
from usdrl_hub.data.readers import find_recordings, iter_skeletons, read_skeleton
from usdrl_hub.data.reading import Reading
from usdrl_hub.errors import EmptySequenceError, SkeletonFormatError, USDRLWarning

from .clip import GENERATED, SHARED, is_upright, landmarks, needs_shared, pixels, same_squat, scored, squat


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def points(rows, score=0.99):
    return [dict(zip("xyz", map(float, row), strict=False)) | {"visibility": score} for row in rows]


MEDIAPIPE_NAMES = [name.upper().replace("_TOES", "_FOOT_INDEX") for name in get_layout("mediapipe33").joint_names]
WORLD = [points(frame) for frame in landmarks()]
IMAGE = [points(frame * 0.4 + (0.5, 0.5, 0)) for frame in landmarks()]


@pytest.mark.parametrize(
    "content",
    [
        [{"pose_landmarks": [a], "pose_world_landmarks": [b]} for a, b in zip(IMAGE, WORLD, strict=True)],
        [{"poseLandmarks": a, "poseWorldLandmarks": b} for a, b in zip(IMAGE, WORLD, strict=True)],
        [{"landmarks": [a], "worldLandmarks": [b]} for a, b in zip(IMAGE, WORLD, strict=True)],
        [{"frame": number, "world_landmarks": frame} for number, frame in enumerate(WORLD)],
        {"fps": 25, "frames": [{"pose_world_landmarks": {"landmark": frame}} for frame in WORLD]},
        {str(number): {"world_landmarks": frame} for number, frame in enumerate(WORLD)},
        [{"world_landmarks": np.ravel(frame).tolist()} for frame in landmarks()],
        [{"world_landmarks": dict(zip(MEDIAPIPE_NAMES, frame, strict=True))} for frame in WORLD],
        landmarks().tolist(),
        np.concatenate([landmarks(), np.ones((86, 33, 1))], axis=-1).tolist(),
    ],
)
def test_world_landmarks_of_mediapipe_stand_upright(tmp_path, content):
    """Landmarks in the image were taken before those in the world; only one of eleven forms was read."""
    sequence = read_skeleton(write(tmp_path / "a.json", content))
    assert (get_layout(sequence.layout).name, sequence.up, sequence.units) == ("mediapipe33", "-y", "m")
    same_squat(sequence, by_way_of="mediapipe33")
    is_upright(sequence)
    # The middle of the hips lies at the origin, and is seen all the same.
    assert sequence.to_layout("ntu25").keypoints.any(-1).all()
    assert sequence.fps == (25 if isinstance(content, dict) and "fps" in content else None)


@pytest.mark.parametrize("key", [None, "landmarks", "pose_landmarks", "poseLandmarks"])
def test_landmarks_in_the_image_are_shares_of_it(tmp_path, key):
    frames = IMAGE if key is None else [{key: frame} for frame in IMAGE]
    # Frames without people are null or empty, at any place.
    holes = [None, *frames[:40], {} if key else [], None, *frames[40:], []]
    sequence = read_skeleton(write(tmp_path / "a.json", holes))
    assert (get_layout(sequence.layout).name, sequence.coordinates) == ("mediapipe33", "2d+score")
    seen = sequence.keypoints.any((1, 2, 3))
    assert seen.sum() == 86 and not seen[[0, 41, 42, 89]].any()
    np.testing.assert_allclose(sequence.keypoints[seen, 0, :, :2], landmarks()[..., :2] * 0.4 + 0.5, atol=1e-6)
    assert (sequence.keypoints[seen][..., 2] == np.float32(0.99)).all() and sequence.image_shape == (1, 1)
    shaped = read_skeleton(tmp_path / "a.json", image_shape=(1080, 1920))
    np.testing.assert_allclose(shaped.keypoints[..., 0], sequence.keypoints[..., 0] * 1920, rtol=1e-5)
    assert shaped.image_shape == (1080, 1920)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_arrays_of_landmarks_are_upright(tmp_path):
    """They stood on their heads."""
    with_score = np.concatenate([landmarks(), np.ones((86, 33, 1))], axis=-1)
    for array in (landmarks(), with_score, landmarks().reshape(86, 99), with_score.reshape(86, 132)):
        np.save(tmp_path / "a.npy", array)
        with pytest.warns(USDRLWarning, match="MediaPipe's y points down"):
            sequence = read_skeleton(tmp_path / "a.npy")
        same_squat(sequence, by_way_of="mediapipe33")
    image = np.concatenate([landmarks() * 0.4 + (0.5, 0.5, 0), np.full((86, 33, 1), 0.8)], axis=-1)
    np.save(tmp_path / "a.npy", image.reshape(86, 132))
    sequence = read_skeleton(tmp_path / "a.npy", image_shape=(480, 640))
    assert (sequence.coordinates, sequence.image_shape) == ("2d+score", (480, 640))
    np.testing.assert_allclose(sequence.keypoints[:, 0, :, 1], image[..., 1] * 480, rtol=1e-5)


@pytest.mark.parametrize("form", ["json", "lists", "npy", "csv"])
def test_world_landmarks_that_are_not_visible_are_unseen(tmp_path, form):
    visibility = np.full((86, 33, 1), 0.9)
    visibility[3, 13], visibility[4, 13], visibility[5] = 0.05, 0.15, 0  # frame 5: the program knows no visibility
    made = np.concatenate([landmarks(), visibility], axis=-1)
    path = tmp_path / f"a.{'json' if form == 'lists' else form}"
    if form == "npy":
        np.save(path, made)
    elif form == "csv":
        header = ",".join(f"{axis}{joint}" for joint in range(1, 34) for axis in "xyzv")
        np.savetxt(path, made.reshape(86, -1), header=header, comments="", delimiter=",")
    elif form == "lists":
        path.write_text(json.dumps([{"pose_world_landmarks": frame} for frame in made.tolist()]))
    else:
        keys = ("x", "y", "z", "visibility")
        frames = [[dict(zip(keys, row, strict=True)) for row in frame] for frame in made.tolist()]
        path.write_text(json.dumps([{"poseWorldLandmarks": frame} for frame in frames]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", USDRLWarning)  # arrays and tables do not say that y points down
        found = read_skeleton(path).keypoints
    seen = found[:, 0].any(-1)
    assert seen.sum() == 86 * 33 - 1 and not seen[3, 13]
    np.testing.assert_allclose(found[seen[:, None]], landmarks()[seen], atol=1e-5)


def test_json_lines_and_times_of_frames(tmp_path):
    lines = [json.dumps({"t": number / 30, "pose_world_landmarks": [frame]}) for number, frame in enumerate(WORLD)]
    for ends in ("\n", "\r\n", "\r"):
        (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + ends.join(lines).encode())
        sequence = read_skeleton(tmp_path / "a.json")
        assert sequence.fps == 30
        same_squat(sequence, by_way_of="mediapipe33")
    (tmp_path / "a.json").write_bytes("\n".join(lines).encode("utf-16"))
    same_squat(read_skeleton(tmp_path / "a.json"), by_way_of="mediapipe33")


def person(frame, form):
    keypoints = pixels()[frame] / ((1920, 1080) if form == "shares" else 1)
    visible = {} if form == "bare" else {"visible": [0.9] * 17}
    x, y = keypoints.T.tolist()
    return {"name": "person", "class": 0, "box": {}, "track_id": 3, "keypoints": {"x": x, "y": y, **visible}}


@pytest.mark.parametrize("form", ["plain", "bare", "shares", "text", "named"])
def test_json_of_ultralytics(tmp_path, form):
    frames = [[], *([person(frame, form)] for frame in range(86)), []]
    frames = [json.dumps(frame) for frame in frames] if form == "text" else frames
    named = {"frames": [{"frame": number, "detections": frame} for number, frame in enumerate(frames)]}
    path = write(tmp_path / "a.json", named if form == "named" else frames)
    sequence = read_skeleton(path, image_shape=(1080, 1920))
    assert sequence.keypoints.shape == (88, 1, 17, 2 if form == "bare" else 3)
    assert not sequence.keypoints[[0, 87]].any() and sequence.image_shape == (1080, 1920)
    np.testing.assert_allclose(sequence.keypoints[1:87, 0, :, :2], pixels(), rtol=1e-4)


@pytest.mark.parametrize("scores, track", [(True, None), (False, None), (True, 4), (False, 4)])
def test_labels_of_ultralytics_are_one_recording(tmp_path, scores, track):
    shares = pixels() / (1920, 1080)
    rows = scored(shares) if scores else shares
    for frame in (*range(3, 50), *range(60, 86)):
        numbers = " ".join(f"{value:.6f}" for value in rows[frame].ravel())
        line = f"0 0.5 0.5 0.2 0.6 {numbers}" + (f" 0.91 {track}" if track else "")
        (tmp_path / f"film_{frame}.txt").write_text(line + "\n")
    sequence = read_skeleton(tmp_path / "film_*.txt", image_shape=(1080, 1920))
    assert sequence.keypoints.shape == (83, 1, 17, 3 if scores else 2) and sequence.name == "film"
    assert not sequence.keypoints[47:57].any()
    np.testing.assert_allclose(sequence.keypoints[:47, 0, :, :2], pixels()[3:50], atol=2e-3)
    assert find_recordings(tmp_path) == [tmp_path / "film_*.txt"]
    with pytest.warns(USDRLWarning, match="labels holds one frame"):
        assert read_skeleton(tmp_path / "film_3.txt").num_frames == 1


def detections(rows, **more):
    return [
        {"image_id": f"{number}.jpg", "keypoints": row.ravel().tolist(), "score": 2.0, **more}
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize("idx", [1, 1.0, [1.0], [[1.0], [0.5]], 0])
@pytest.mark.parametrize("points", [17, 26, 136])
def test_detections_of_alphapose(tmp_path, idx, points):
    rows = scored(np.concatenate([pixels(), np.repeat(pixels()[:, :1], points - 17, 1)], axis=1))
    # Rows are in any order, and frames without people are absent.
    kept = [entry for number, entry in enumerate(detections(rows, idx=idx)) if number % 9]
    content = [kept[number] for number in np.random.default_rng(0).permutation(len(kept))]
    sequence = read_skeleton(write(tmp_path / "a.json", content))
    assert get_layout(sequence.layout).name == ("coco17" if points == 17 else "halpe26")
    assert sequence.keypoints.shape[:2] == (85, 1)
    there = np.arange(1, 86) % 9 > 0
    assert (sequence.keypoints.any((1, 2, 3)) == there).all()
    body = sequence.to_layout("coco17").keypoints[there, 0, :, :2]
    np.testing.assert_allclose(body, pixels()[1:][there], rtol=1e-5)
    assert read_skeleton(tmp_path / "a.json", layout="coco17").keypoints.shape[2] == 17


def instance(row, **more):
    return {"keypoints": row.tolist(), "keypoint_scores": [0.9] * len(row), "bbox": [[1, 2, 3, 4]], **more}


def test_predictions_of_mmpose(tmp_path):
    path = tmp_path / "a.json"
    frames = [{"frame_id": number + 1, "instances": [instance(row)]} for number, row in enumerate(pixels())]
    for content in ({"meta_info": {}, "instance_info": frames}, frames):
        sequence = read_skeleton(write(path, content))
        assert get_layout(sequence.layout).name == "coco17"
        np.testing.assert_allclose(sequence.keypoints[:, 0], scored(pixels()), rtol=1e-5)
    # One image is a list of people.
    people = [instance(pixels()[0]), instance(pixels()[0] + 500)]
    assert read_skeleton(write(path, people)).keypoints.shape == (1, 2, 17, 3)
    frames = [
        {"frame_id": number, "instances": [instance(np.resize(row, (133, 2)))]} for number, row in enumerate(pixels())
    ]
    with pytest.warns(USDRLWarning, match="of 133 points the 23 of the body"):
        sequence = read_skeleton(write(path, frames))
    assert get_layout(sequence.layout).name == "wholebody23"
    np.testing.assert_allclose(sequence.keypoints[:, 0, :17, :2], pixels(), rtol=1e-5)


def test_3d_predictions_of_mmpose_are_upright(tmp_path):
    # x, y, z of the file are x, -z, y of ours.
    bodies = squat("h36m17")[..., [0, 2, 1]] * (1, -1, 1)
    content = {"instance_info": [{"frame_id": t, "instances": [instance(row)]} for t, row in enumerate(bodies)]}
    sequence = read_skeleton(write(tmp_path / "a.json", content))
    assert (get_layout(sequence.layout).name, sequence.up) == ("h36m17", "z")
    same_squat(sequence, by_way_of="h36m17")


def coco(sizes, videos=None):
    images = [
        {"id": 100 + number, "file_name": f"{(videos or 'v' * 86)[number]}/{number:06d}.png", "height": h, "width": w}
        for number, (h, w) in enumerate(sizes)
    ]
    flags = np.concatenate([pixels(), np.full((86, 17, 1), 2)], axis=-1)
    annotations = [
        {"id": number, "image_id": 100 + number, "category_id": 1, "keypoints": flags[number].ravel().tolist()}
        for number in range(len(images))
        if number % 10
    ]
    categories = [{"keypoints": list(get_layout("coco17").joint_names)}]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_annotations_of_coco_are_videos_or_single_images(tmp_path):
    path = write(tmp_path / "a.json", coco([(1080, 1920)] * 86))
    sequence = read_skeleton(path)
    assert sequence.keypoints.shape == (86, 1, 17, 3) and sequence.image_shape == (1080, 1920)
    assert not sequence.keypoints[::10].any() and (sequence.keypoints[1, 0, :, 2] == 1).all()
    np.testing.assert_allclose(sequence.keypoints[1:10, 0, :, :2], pixels()[1:10], rtol=1e-5)
    write(path, coco([(1080, 1920)] * 86, "a" * 40 + "b" * 46))
    assert [(one.name, one.num_frames) for one in iter_skeletons(path)] == [("a, a", 40), ("a, b", 46)]
    with pytest.raises(SkeletonFormatError, match="several sequences"):
        read_skeleton(path)
    write(path, coco([(100 + number, 200) for number in range(5)]))
    with pytest.warns(USDRLWarning, match="each is a recording of one frame"):
        assert [one.num_frames for one in iter_pose_json(path)] == [1] * 4


def test_kinetics_skeleton(tmp_path):
    shares = pixels("openpose18") / (1920, 1080)
    frames = [
        {"frame_index": t + 1, "skeleton": [{"pose": row.ravel().tolist(), "score": [0.5] * 18}] if t % 5 else []}
        for t, row in enumerate(shares)
    ]
    sequence = read_skeleton(write(tmp_path / "a.json", {"data": frames, "label": "squat", "label_index": 3}))
    assert (sequence.layout.name, sequence.label, sequence.image_shape) == ("openpose18", 3, (1, 1))
    assert sequence.num_frames == 86 and not sequence.keypoints[::5].any()
    np.testing.assert_allclose(sequence.keypoints[1, 0, :, :2], shares[1], rtol=1e-5)


def azure(number, row):
    body = {"body_id": 1, "joint_positions": row.tolist(), "joint_orientations": [[1, 0, 0, 0]] * 32}
    return {"frame_id": number, "timestamp_usec": 33333 * number, "num_bodies": 1, "bodies": [body]}


def test_bodies_of_azure_kinect(tmp_path):
    joints = squat("azure32") * (1000, -1000, -1000) + (0, 0, 2500)
    frames = [azure(number, row) for number, row in enumerate(joints)]
    sequence = read_skeleton(write(tmp_path / "a.json", {"frames": frames, "joint_names": []}))
    assert (sequence.layout.name, sequence.up, sequence.units, sequence.fps) == ("azure32", "-y", "m", 30)
    np.testing.assert_allclose(sequence.keypoints[:, 0] * 1000, joints, atol=0.01)
    same_squat(sequence, by_way_of="azure32")
    frames[5] = {"frame_id": 5, "timestamp_usec": 5 * 33333, "num_bodies": 0, "bodies": []}
    del frames[9]
    sequence = read_skeleton(write(tmp_path / "a.json", {"frames": frames}))
    assert sequence.num_frames == 86 and not sequence.keypoints[[5, 9]].any()


def test_frames_of_cmu_panoptic_are_one_recording(tmp_path):
    joints = squat("panoptic19") * (100, -100, -100)
    for number in (*range(100, 120), *range(125, 130)):
        rows = np.c_[joints[number - 100], np.full(19, 0.7)]
        rows[3] = (0, 0, 0, -1)
        body = {"id": 0, "joints19": rows.ravel().tolist()}
        content = {"version": 0.7, "univTime": 1.5, "fpsType": "hd_29_97", "bodies": [body]}
        write(tmp_path / f"body3DScene_{number:08d}.json", content)
    assert find_recordings(tmp_path) == [tmp_path / "body3DScene_*.json"]
    sequence = read_skeleton(tmp_path / "body3DScene_*.json")
    assert (sequence.layout.name, sequence.up, sequence.fps, sequence.num_frames) == ("panoptic19", "-y", 29.97, 30)
    assert not sequence.keypoints[20:25].any() and not sequence.keypoints[:, :, 3].any()
    turned = sequence.keypoints[:20, 0] * (1, -1, -1)
    np.testing.assert_allclose(np.delete(turned, 3, 1), np.delete(squat("panoptic19")[:20], 3, 1), atol=1e-5)


@pytest.mark.parametrize("layout, names", [("openpose18", "rl"), ("coco17", "numbers"), ("mediapipe33", "MediaPipe")])
def test_positions_of_keraal(tmp_path, layout, names):
    shares = pixels(layout) / (1920, 1080)
    joints = get_layout(layout).joint_names
    if names == "rl":
        called = [name.title().replace("_", "").replace("Right", "r").replace("Left", "l") for name in joints]
    elif names == "MediaPipe":
        called = [name.capitalize().replace("_toes", "_foot_index") for name in joints]
    else:
        called = [str(number) for number in range(len(joints))]
    frames = {f"{t + 1}.0": dict(zip(called, row.tolist(), strict=True)) for t, row in enumerate(shares) if t != 7}
    del frames["3.0"][called[-1]]
    sequence = read_skeleton(write(tmp_path / "a.json", {"positions": frames}))
    assert (get_layout(sequence.layout).name, sequence.coordinates, sequence.num_frames) == (layout, "2d", 86)
    assert not sequence.keypoints[7].any() and not sequence.keypoints[2, 0, -1].any()
    np.testing.assert_allclose(sequence.keypoints[10, 0], shares[10], rtol=1e-5)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"frames": [{"bodies": [{"joint_positions": [[1, 2, 3]]}]}]}, "frame 0: 'joint_positions' are not 32 joints"),
        ({"frames": [{"frame_id": 1, "bodies": 3}]}, "frame 0: there is no list 'bodies'"),
        ({"data": [{"frame_index": 1, "skeleton": [{"pose": [1], "score": [1]}]}]}, "'pose' is not two numbers"),
        ({"images": [{"id": 1}], "annotations": [{"image_id": 2, "keypoints": [1]}]}, "names none of the images"),
        ({"images": [{"id": 1}], "annotations": [{"image_id": 1, "keypoints": [1]}]}, "are not x, y, v"),
        ({"positions": {"1": {"Tail": [1, 2]}}}, "no layout has its 1 joints, such as 'Tail'"),
        ({"positions": {"1": {str(joint): [1] for joint in range(17)}}}, "'0' is not two or three numbers"),
        ({"univTime": 1, "bodies": [{"joints19": [1, 2]}]}, "'joints19' of a body are not 19 joints"),
        ({"time": [0.0], "bodies": {"pelvis": {}}}, "OpenCap's scene"),
        ([{"keypoints": {"x": [1], "y": [2, 3]}}], "x, y and visible are not as many numbers"),
        ([{"pose_landmarks": [[{"x": 1, "y": 2}]]}], "no layout of a pose estimator has 1 joints"),
        ([{"instances": [{"keypoints": [[1, 2], [3, 4]], "keypoint_scores": [1]}]}], "do not fit"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_frame(tmp_path, content, message):
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        list(iter_skeletons(write(tmp_path / "a.json", content)))
    assert "a.json" in str(caught.value) and len(str(caught.value)) <= 300


def test_nobody_in_any_frame(tmp_path):
    for content in ({"frames": [{"bodies": []}]}, {"data": [{"frame_index": 1, "skeleton": []}]}):
        with pytest.raises(EmptySequenceError):
            read_pose_json(write(tmp_path / "a.json", content))


TWO_D = {
    "ap_coco17.json": "coco17",
    "ap_coco17_tracked.json": "coco17",
    "ap_halpe26.json": "halpe26",
    "ap_halpe136.json": "halpe26",
    "coco_results.json": "coco17",
    "mm_demo_save_predictions.json": "coco17",
    "mm_inferencer_video.json": "coco17",
    "mm_halpe26.json": "halpe26",
    "mm_wholebody133.json": "wholebody23",
    "yolo_to_json.json": "coco17",
}


@needs_shared
@pytest.mark.parametrize("name", TWO_D)
def test_generated_2d_recordings(name):
    sequence = read_skeleton(GENERATED / name)
    assert get_layout(sequence.layout).name == TWO_D[name] and sequence.coordinates == "2d+score"
    found = sequence.to_layout("coco17").keypoints[:, 0]
    np.testing.assert_allclose(found[..., :2], pixels(), rtol=1e-4)
    assert sequence.keypoints[..., 2].min() > 0


@needs_shared
@pytest.mark.parametrize(
    "name", ["mp_1_tasks_snake", "mp_4_camel_legacy", "mp_5_tasks_js", "mp_6_world_list", "mp_world_list"]
)
def test_generated_landmarks(name):
    same_squat(read_skeleton(GENERATED / f"{name}.json"), by_way_of="mediapipe33")


@needs_shared
@pytest.mark.parametrize("name, layout", [("azure_kinect", "ntu25"), ("mm_human3d", "h36m17")])
def test_generated_3d_recordings(name, layout):
    same_squat(read_skeleton(GENERATED / f"{name}.json"), by_way_of=layout)


@needs_shared
@pytest.mark.parametrize("name", ["ap_two_int.json", "ap_two_float.json", "ap_two_list.json"])
def test_two_people_are_two(name):
    sequence = read_skeleton(GENERATED / name)
    assert sequence.num_persons == 2 and sequence.keypoints.any(-1).all()
    # Nobody jumps to where the other is.
    assert np.abs(np.diff(sequence.keypoints[..., :2], axis=0)).max() < 100


REAL = {
    "keraal/G3-AP-CTK-P1T1-Unknown-C-0.json": ("coco17", (196, 1)),
    "keraal/G3-AP-ELK-P1T1-Unknown-C-0.json": ("coco17", (193, 1)),
    "keraal/G3-BP-CTK-P1T1-Unknown-C-0.json": ("mediapipe33", (196, 1)),
    "keraal/G3-BP-ELK-P1T1-Unknown-C-0.json": ("mediapipe33", (193, 1)),
    "keraal/G3-OP-CTK-P1T1-Unknown-C-0.json": ("openpose18", (197, 1)),
    "keraal/G3-OP-ELK-P1T1-Unknown-C-0.json": ("openpose18", (194, 1)),
    "openpose-frames/14_*_keypoints.json": ("openpose25", (30, 1)),
    "openpose-frames-other-name/*.json": ("openpose25", (40, 2)),
    "coco-json/posetrack18_012834.json": ("posetrack17", (1, 10)),
    "panoptic/body3DScene_*.json": ("panoptic19", (2, 3)),
    "generated/openpose_hf/film_*_keypoints.json": ("openpose25", (3, 1)),
    "generated/yolo_labels/film_*.txt": ("coco17", (3, 1)),
}


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_real_recordings(name):
    sequence = read_skeleton(SHARED / name)
    layout, shape = REAL[name]
    assert get_layout(sequence.layout).name == layout and sequence.keypoints.shape[:2] == shape
    is_upright(sequence)


@needs_shared
def test_annotated_images_are_recordings_of_one_frame():
    for name, layout in (("test_coco", "coco17"), ("test_coco_wholebody", "coco17"), ("test_halpe", "halpe26")):
        found = list(iter_skeletons(SHARED / "coco-json" / f"{name}.json", Reading()))
        assert len(found) == 4 and {get_layout(one.layout).name for one in found} == {layout}
