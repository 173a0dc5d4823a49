"""BlazePose: its numbers, people over time, and films in which something is wrong."""

import json
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from usdrl_hub import BlazePoseEstimator, SkeletonFormatError, extract_embeddings, read_skeleton, read_video
from usdrl_hub.data.samples import load_samples
from usdrl_hub.errors import CheckpointLoadError, EmptySequenceError
from usdrl_hub.inference.blazepose import ANCHORS, LAYOUT, SHIPPED
from usdrl_hub.inference.source import Source
from usdrl_hub.inference.video import VideoReading, open_video

from .conftest import SHARED
from .helpers import crossing, run

pytest.importorskip("onnxruntime")
# Of what mediapipe and the conversions found in the film, see ../shared/goldens.
GOLDENS = SHARED / "goldens" / "blazepose_ntu_clip.npz"


@pytest.fixture(scope="module")
def film(shared_data):
    pytest.importorskip("av")
    return shared_data / "ntu_rgbd_samples" / "S001C001P001R001A001_rgb.avi"


@pytest.fixture(scope="module")
def images(film):
    return list(open_video(film)[0])


@pytest.fixture(scope="module")
def estimator():
    return BlazePoseEstimator(num_threads=1)


@pytest.fixture(scope="module")
def poses(images):
    """Of each picture, unsmoothed."""
    return list(BlazePoseEstimator(smooth=False, num_threads=1).track(images, 30))


@pytest.fixture(scope="module")
def mirrored(film):
    """What is seen in the film; NTU's pictures are mirrored, its skeletons are not."""
    return read_video(film, BlazePoseEstimator(num_threads=1), mirrored=True)


def middles(poses, track: int) -> np.ndarray:
    """Columns of the hips of a person; NaN where he is not seen."""
    rows = [[pose.image[[23, 24], 0].mean() for pose in people if pose.track == track] for people in poses]
    return np.array([row[0] if row else np.nan for row in rows])


def test_landmarks_are_those_of_the_same_network_run_by_hand(poses):
    """Later pictures hang on earlier ones, so that rounding grows; the first ones must be equal."""
    goldens = np.load(GOLDENS)
    world, image = goldens["onnx_lite_world"], goldens["onnx_lite_image"]
    assert [len(people) for people in poses] == [1] * 103
    found = np.stack([people[0].world for people in poses]), np.stack([people[0].image for people in poses])
    visibility = np.stack([people[0].visibility for people in poses])
    assert_allclose(found[0][:20], world[:20, :, :3], atol=1e-3)
    assert_allclose(found[1][:20], image[:20, :, :2] * (1920, 1080), atol=0.1)
    assert_allclose(visibility[:20], world[:20, :, 3], atol=1e-2)
    assert np.linalg.norm(found[0] - world[..., :3], axis=-1).mean() < 0.01
    assert np.linalg.norm(found[1] - image[..., :2] * (1920, 1080), axis=-1).mean() < 1


def test_the_largest_part_of_the_work_is_right_beside_mediapipe(poses):
    """The lite network of MediaPipe's own program is not in the goldens; full is 4.5 pixels and 43 mm away."""
    goldens = np.load(GOLDENS)
    image = np.stack([people[0].image for people in poses])
    world = np.stack([people[0].world for people in poses])
    expected = goldens["mediapipe_full_unsmoothed_image"][..., :2] * (1920, 1080)
    assert np.linalg.norm(image - expected, axis=-1).mean() < 6
    assert np.linalg.norm(world - goldens["mediapipe_full_unsmoothed_world"][..., :3], axis=-1).mean() < 0.05


def test_a_mirrored_film_has_its_twin_among_the_recordings_of_the_kinect(film, mirrored):
    skeletons = sorted(film.parent.glob("*.skeleton"))
    twin = read_skeleton(film.with_name("S001C001P001R001A001.skeleton"))
    others = [read_skeleton(path) for path in skeletons if path.stem != twin.name]
    samples = load_samples()
    clips = [twin, *others, *(samples.read(number) for number in range(0, len(samples), 4))]
    vectors = extract_embeddings([mirrored, *clips], "usdrl/mocap-tiny")
    vectors -= vectors[1:].mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (vectors[1:] @ vectors[0]).argmax() == 0


@pytest.mark.long
def test_a_model_of_2d_keypoints_reads_a_film_as_it_is_in_the_picture(estimator, images, film):
    flat = estimator.recording(images[:20], fps=30, name="film", in_picture=True)
    assert (flat.coordinates, flat.image_shape, flat.layout) == ("2d+score", (1080, 1920), LAYOUT)
    golden = np.load(GOLDENS)["onnx_lite_image"][:20]
    seen = flat.keypoints[:, 0, :, 2] > 0
    assert seen.mean() > 0.9
    assert_allclose(flat.keypoints[:, 0, :, :2][seen], (golden[..., :2] * (1920, 1080))[seen], atol=0.1)
    whole = estimator.recording(images, fps=30, in_picture=True)
    expected, found = extract_embeddings([whole], "usdrl/mocap-2d"), extract_embeddings([film], "usdrl/mocap-2d")
    assert_allclose(found, expected, atol=1e-4)


def test_a_person_stands_upright_in_metres_with_his_left_on_his_left(mirrored):
    assert (mirrored.layout, mirrored.up, mirrored.units, mirrored.fps) == (LAYOUT, "-y", "m", 30)
    assert mirrored.keypoints.shape == (103, 1, 33, 3)
    points = mirrored.keypoints[:, 0].mean(0)
    # Shoulders 11 and 12, ankles 27 and 28; y points down, and she faces the camera.
    assert 1.0 < points[[27, 28], 1].mean() - points[0, 1] < 2.0
    assert points[11, 0] > points[12, 0]


def test_smoothing_takes_jitter_away_and_follows(images, poses):
    smooth = np.stack([people[0].world for people in BlazePoseEstimator(num_threads=1).track(images, 30)])
    raw = np.stack([people[0].world for people in poses])

    def jitter(points):
        return np.linalg.norm(np.diff(points, 2, axis=0), axis=-1).mean()

    assert jitter(smooth) < jitter(raw) / 3
    assert np.linalg.norm(smooth - raw, axis=-1).mean() < 0.015


@pytest.mark.long
def test_two_people_whose_paths_cross_keep_their_numbers(images):
    film = crossing(images, ((1450, 150), (150, 1450)))
    poses = list(BlazePoseEstimator(num_threads=1).track(film, 30))
    assert sorted({pose.track for people in poses for pose in people}) == [0, 1]
    leftward, rightward = sorted((middles(poses, 0), middles(poses, 1)), key=lambda row: row[-1])
    assert np.isfinite(rightward).mean() > 0.9 and np.isfinite(leftward).mean() > 0.8
    expected = np.linspace(300, 1600, len(film))
    # No swap: each is where its own person is in every picture.
    assert np.nanmax(np.abs(rightward - expected)) < 60 and np.nanmax(np.abs(leftward - expected[::-1])) < 60


def test_a_cut_begins_new_people(images):
    moved = [np.roll(image, 500, axis=1)[::-1][::-1] for image in images[:8]]
    film = [*images[:8], np.zeros_like(images[0]), *moved]
    poses = list(BlazePoseEstimator(num_threads=1).track(film, 30))
    assert [[pose.track for pose in people] for people in poses] == [[0]] * 8 + [[]] + [[1]] * 8


def test_a_film_without_people_is_refused(estimator):
    black = [np.zeros((90, 160, 3), np.uint8)] * 3
    with pytest.raises(EmptySequenceError, match=r"dark\.mp4: no person is found in its 3 pictures"):
        estimator.recording(black, name="dark", where="dark.mp4")
    with pytest.raises(EmptySequenceError, match="there is no picture in it"):
        estimator.recording([], name="none")


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (2160, 3840, 3), (640, 360, 3)])
def test_pictures_of_any_size_are_read(estimator, shape):
    assert list(estimator.track([np.full(shape, 90, np.uint8)])) == [[]]


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((90, 160), np.uint8),
        np.zeros((90, 160, 4), np.uint8),
        np.zeros((90, 160, 3), np.float32),
        np.zeros((0, 160, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(estimator, picture):
    """Four channels were read as if they were three."""
    for call in (lambda: list(estimator.track([picture])), lambda: estimator.detect(picture)):
        with pytest.raises(ValueError, match=r"a picture must be \(H, W, 3\) of uint8"):
            call()


def test_one_picture_is_a_recording(estimator, images):
    recording = estimator.recording(images[:1], name="still")
    assert recording.num_frames == 1 and recording.fps is None


def test_a_picture_turned_by_a_right_angle_gives_the_same_body(estimator, images):
    square = estimator.detect(images[0])[0]
    pose, _ = estimator.landmarks(images[0], square)
    turned = np.ascontiguousarray(np.rot90(images[0]))
    [square] = estimator.detect(turned)
    other, _ = estimator.landmarks(turned, square)
    # rot90 takes (x, y) to (y, width - 1 - x).
    back = np.stack([1919 - other.image[:, 1], other.image[:, 0]], -1)
    assert np.median(np.linalg.norm(back - pose.image, axis=-1)) < 12
    assert len(ANCHORS) == 2254


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"max_persons": 1.5}, "max_persons must be a whole number of at least 1"),
        ({"threshold": 1.0}, "between 0 and 1"),
        ({"min_visibility": -0.1}, "min_visibility"),
    ],
)
def test_impossible_choices_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        BlazePoseEstimator(**choices)


@pytest.mark.long
def test_predict_reads_a_film_without_further_options(capsys, film):
    code, out, err = run(capsys, "predict", film, "--mirrored", "--json")
    assert code == 0 and "Traceback" not in err
    [row] = json.loads(out)["predictions"]
    assert row["name"] == "S001C001P001R001A001_rgb" and row["frames"] == 103 and len(row["top"]) == 5


@pytest.mark.long
def test_a_film_is_an_input_like_any_other(film, mirrored):
    videos = VideoReading(BlazePoseEstimator(num_threads=1), mirrored=True)
    [sequence] = Source(film, videos=videos)
    assert_array_equal(sequence.keypoints, mirrored.keypoints)
    assert extract_embeddings(Source([film], videos=videos)).shape == (1, 256)


def test_what_is_no_network_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(CheckpointLoadError, match="not an ONNX file"):
        BlazePoseEstimator(tmp_path / "text.onnx")
    with pytest.raises(CheckpointLoadError, match="there is no such file"):
        BlazePoseEstimator(tmp_path / "absent.onnx")
    with pytest.raises(CheckpointLoadError, match="it gives boxes, scores and not landmarks"):
        BlazePoseEstimator(SHIPPED / "detector.onnx")


def test_the_extra_is_named_where_onnxruntime_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'usdrl-hub\[video\]'"):
        BlazePoseEstimator()


def test_a_film_that_is_none_is_refused_with_its_name(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(SkeletonFormatError, match=r"film\.mp4"):
        read_video(tmp_path / "film.mp4")
    assert_array_equal(sorted(path.name for path in SHIPPED.iterdir()), ["NOTICE", "detector.onnx", "lite.onnx"])
