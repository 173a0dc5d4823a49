import json
import re
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil

from usdrl_hub import (
    Layout,
    PoseEstimator,
    SkeletonFormatError,
    SkeletonSequence,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    from_pose_estimation,
    iter_predictions,
    read_skeleton,
    read_video,
)
from usdrl_hub.errors import CheckpointLoadError, USDRLWarning
from usdrl_hub.inference.source import Source
from usdrl_hub.inference.video import VideoReading, check_reads, open_video

from .helpers import content, run

av = pytest.importorskip("av")
pytest.importorskip("scipy")


def write_video(path, images, fps=12):
    """Write pictures (T, H, W, 3) without loss that would matter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def moving_square(frames=20, height=96, width=128, empty=()):
    """A light square that walks over a dark ground; not in the frames that are empty."""
    images = np.full((frames, height, width, 3), 20, np.uint8)
    for number in set(range(frames)) - set(empty):
        images[number, 30:70, 10 + 4 * number : 40 + 4 * number] = 230
    return images


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a pose model, a detector and a recogniser of 2D keypoints, tiny and with random weights."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], hidden_size=16, num_hidden_layers=1, num_attention_heads=2, out_indices=[1]
    )
    pose = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17))
    resnet = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage2", "stage3", "stage4"]
    )
    sizes = {"encoder_hidden_dim": 16, "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    channels = {"encoder_in_channels": [8] * 3, "decoder_in_channels": [16] * 3}
    config = RTDetrConfig(
        backbone_config=resnet,
        **sizes,
        **layers,
        **channels,
        num_queries=4,
        num_denoising=0,
        id2label={0: "dog", 1: "Person"},
        label2id={"dog": 0, "Person": 1},
    )
    detector = RTDetrForObjectDetection(config)
    torch.manual_seed(1)
    with torch.no_grad():
        # Weights with which what it says depends on the picture: it takes a light square for two persons.
        for name, weights in detector.named_parameters():
            if "class_embed" in name or "score_head" in name:
                weights.normal_(std=1)
            elif "bbox" in name or weights.ndim > 1:
                weights.normal_(std=0.5 if "bbox" in name else 0.3)
    processors = {
        "pose": VitPoseImageProcessorPil(size={"height": 64, "width": 48}),
        "detector": RTDetrImageProcessorPil(size={"height": 64, "width": 64}),
    }
    for name, model in (("pose", pose), ("detector", detector)):
        model.save_pretrained(folder / name)
        processors[name].save_pretrained(folder / name)
    flat = USDRLConfig(hidden_size=16, layout="coco17", num_joints=17, num_persons=2, id2label={0: "walk", 1: "sit"})
    USDRLForActionRecognition(flat).save_pretrained(folder / "flat")
    USDRLFeatureExtractor.from_model_config(flat).save_pretrained(folder / "flat")
    return folder


@pytest.fixture(scope="module")
def estimator(models):
    return PoseEstimator.from_pretrained(models / "pose", models / "detector", 0.1, "cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", moving_square())


# -- poses as transformers gives them


def people(frames=30, seed=0) -> np.ndarray:
    """Two people (T, 2, 17, 2) who walk past each other at a distance."""
    random = np.random.default_rng(seed)
    body = random.random((2, 17, 2)) * [40, 90]
    steps = np.arange(frames)[:, None, None]
    one = body[0] + np.concatenate([100 + 6 * steps, 0 * steps + 50], axis=-1)
    other = body[1] + np.concatenate([400 - 6 * steps, 0 * steps + 260], axis=-1)
    return np.stack([one, other], axis=1)


def as_results(points, make=torch.tensor, swap=()):
    """The form of post_process_pose_estimation; the order of people is turned in some frames."""
    results = []
    for frame, pair in enumerate(points):
        scores = make(np.full(17, 0.8))
        found = [{"keypoints": make(row), "scores": scores, "bbox": make([0, 0, 1, 1])} for row in pair]
        found = found[::-1] if frame in swap else found
        results.append(found)
    return results


def test_poses_of_transformers_become_a_recording_with_tracks():
    points = people()
    swapped = as_results(points, swap={3, 4, 11, 12, 13, 20})
    sequence = from_pose_estimation(swapped, image_shape=(480, 640), fps=25, name="two")
    assert sequence.keypoints.shape == (30, 2, 17, 3) and sequence.coordinates == "2d+score"
    assert (sequence.image_shape, sequence.fps, sequence.name) == ((480, 640), 25, "two")
    np.testing.assert_allclose(sequence.keypoints[..., :2], points, rtol=1e-5)
    np.testing.assert_allclose(sequence.keypoints[..., 2], 0.8, rtol=1e-6)


def test_frames_without_anybody_are_empty_and_the_recording_is_as_long_as_the_video():
    results = [[], [], *as_results(people(4)), [], *as_results(people(4))[3:], [], []]
    sequence = from_pose_estimation(results)
    np.testing.assert_array_equal(sequence.keypoints.any((1, 2, 3)), [0, 0, 1, 1, 1, 1, 0, 1, 0, 0])


def test_joints_below_a_threshold_were_not_seen():
    keep = [0, 5, 16]
    person = {"keypoints": torch.ones(3, 2), "scores": torch.full((3,), 0.5), "labels": torch.tensor(keep)}
    sequence = from_pose_estimation([[person]])
    np.testing.assert_array_equal(np.flatnonzero(sequence.keypoints.any(-1)[0, 0]), keep)


def test_the_same_in_json_is_read_as_it_is(tmp_path):
    results = as_results(people(), make=lambda values: np.asarray(values).tolist())
    (tmp_path / "two.json").write_text(json.dumps([[], *results]))
    sequence = read_skeleton(tmp_path / "two.json")
    np.testing.assert_array_equal(sequence.keypoints[1:], from_pose_estimation(results).keypoints)
    assert sequence.name == "two" and not sequence.keypoints[0].any()


@pytest.mark.parametrize(
    "results, message",
    [
        ([[], []], "poses: no person is detected in its 2 frames"),
        ([{"keypoints": 1}], "poses, frame 0: it is not a list of people"),
        ([[], [{"keypoints": np.ones((18, 2)), "scores": np.ones(18)}]], "frame 1: 'keypoints' .* do not fit the 17"),
        ([[{"keypoints": np.ones((17, 2)), "scores": np.ones(16)}]], "frame 0: 'keypoints' .* do not fit"),
        ([[{"keypoints": np.ones((1, 2)), "scores": np.ones(1), "labels": [17]}]], "do not fit the 17 joints of COCO"),
        ([[{"scores": np.ones(17)}]], "NaN or infinite|do not fit|not all numbers"),
        ([[{"keypoints": np.full((17, 2), np.nan), "scores": np.ones(17)}]], "a keypoint is NaN"),
    ],
)
def test_poses_of_another_form_are_refused(results, message):
    with pytest.raises(SkeletonFormatError, match=message):
        from_pose_estimation(results)


# -- video


def test_a_video_is_read_frame_by_frame_upright(tmp_path, film):
    frames, fps = open_video(film)
    images = np.stack(list(frames))
    assert fps == 12 and images.shape == (20, 96, 128, 3) and images.dtype == np.uint8
    assert np.abs(images.astype(int) - moving_square()).mean() < 3
    # A telephone held upright: the picture lies, and its matrix says so.
    content = bytearray(film.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    (tmp_path / "upright.mp4").write_bytes(content)
    turned = np.stack(list(open_video(tmp_path / "upright.mp4")[0]))
    assert turned.shape == (20, 128, 96, 3)
    np.testing.assert_array_equal(turned, np.rot90(images, -1, (1, 2)))


def write_at(path: Path, times: list[float], codec: str = "libvpx") -> Path:
    """A video whose frames at given times become lighter one by one."""
    base = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height = 64, 48
        stream.codec_context.time_base = base
        for number, moment in enumerate(times):
            image = np.full((48, 64, 3), 10 + 5 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(moment / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(path: Path) -> tuple[list[int], float]:
    """Which frames of `write_at` are read, and their rate."""
    frames, fps = open_video(path)
    return [round((float(frame.mean()) - 10) / 5) for frame in frames], fps


@pytest.mark.parametrize("name", ["film.webm", "film.mkv", "film.mp4"])
def test_frames_at_irregular_times_are_read_at_a_steady_rate(tmp_path, name):
    codec = "libx264" if name == "film.mp4" else "libvpx"
    steady = write_at(tmp_path / f"steady-{name}", [number / 15 for number in range(30)], codec)
    found, fps = numbers(steady)
    # A file of WebM declares a rate that is not that of its frames.
    assert found == list(range(30)) and fps == pytest.approx(15, rel=0.02)
    # Slower in the second half, as a telephone's in the dark.
    times = [number / 25 for number in range(20)] + [0.8 + number / 8 for number in range(10)]
    with pytest.warns(USDRLWarning, match="frames are at irregular times, and it is read at 25 frames per second"):
        found, fps = numbers(write_at(tmp_path / name, times, codec))
    assert fps == pytest.approx(25, rel=0.02) and len(found) == round(times[-1] * fps) + 1
    assert found[:20] == list(range(20)) and found == sorted(found) and set(found) == set(range(30))
    # Each is read when it is shown, to a frame.
    shown = [number / fps for number in range(len(found))]
    assert all(times[frame] - 1 / fps < moment for frame, moment in zip(found, shown, strict=True))


def test_a_cut_webm_is_reported(tmp_path):
    """Its header says how long it was, and it does not count its frames."""
    whole = write_at(tmp_path / "whole.webm", [number / 25 for number in range(50)])
    assert len(numbers(whole)[0]) == 50
    (tmp_path / "cut.webm").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.warns(USDRLWarning, match=r"cut.webm: it ends after 1\.\d+ of its 1.99 seconds: it is cut off"):
        found, fps = numbers(tmp_path / "cut.webm")
    assert found == list(range(len(found))) and 20 < len(found) < 45 and fps == pytest.approx(25, rel=0.02)


def test_a_video_of_one_frame_is_read(tmp_path):
    assert numbers(write_at(tmp_path / "one.webm", [0.0]))[0] == [0]


def test_a_time_far_away_is_not_filled_with_frames(tmp_path):
    times = [number / 25 for number in range(9)] + [5000.0]
    with pytest.warns(USDRLWarning, match="far apart, and are read as if they were not"):
        found, fps = numbers(write_at(tmp_path / "far.webm", times))
    assert found == list(range(10)) and fps == pytest.approx(25, rel=0.02)


def test_a_cut_video_is_reported(tmp_path):
    content = write_video(tmp_path / "whole.avi", moving_square(20, 240, 320)).read_bytes()
    # Behind the frames; one that is cut in two is damaged.
    frames = [found.start() for found in re.finditer(b"00dc", content)]
    (tmp_path / "cut.avi").write_bytes(content[: frames[9]])
    with pytest.warns(USDRLWarning, match=r"cut.avi: only \d+ of its 20 frames can be read: it is cut off"):
        found = list(open_video(tmp_path / "cut.avi")[0])
    assert 7 < len(found) < 11


def test_what_is_seen_is_what_the_models_say_one_frame_at_a_time(estimator, film):
    sequence = read_video(film, estimator)
    assert (sequence.num_frames, sequence.fps, sequence.image_shape) == (20, 12, (96, 128))
    assert sequence.name == "film" and sequence.layout == "coco17" and sequence.num_persons <= 4
    for number in (0, 7, 19):
        image = list(open_video(film)[0])[number]
        inputs = estimator.detector_processor(images=[image], return_tensors="pt")
        with torch.no_grad():
            found = estimator.detector(**inputs)
        [found] = estimator.detector_processor.post_process_object_detection(
            found, threshold=0.1, target_sizes=[(96, 128)]
        )
        boxes = found["boxes"][found["labels"] == 1].numpy().clip(0, [128, 96, 128, 96])
        boxes[:, 2:] -= boxes[:, :2]
        boxes = boxes[(boxes[:, 2:] >= 1).all(1)]
        inputs = estimator.pose_processor([image], boxes=[boxes], return_tensors="pt")
        with torch.no_grad():
            poses = estimator.pose_model(**inputs)
        [expected] = estimator.pose_processor.post_process_pose_estimation(poses, boxes=[boxes])
        rows = sequence.keypoints[number][sequence.keypoints[number].any((1, 2))]
        assert len(rows) == len(expected) > 0
        for person in expected:
            row = np.c_[person["keypoints"], person["scores"]]
            assert np.abs(rows - row).max((1, 2)).min() < 0.05


def test_a_video_is_seen_the_same_again_whatever_the_batch(models, film):
    names = models / "pose", models / "detector"
    one, again, other = (
        read_video(film, PoseEstimator.from_pretrained(*names, 0.1, "cpu", batch_size=size)).keypoints
        for size in (1, 1, 8)
    )
    np.testing.assert_array_equal(one, again)
    # Pixels: the peak of a heat map of random weights is flat, which magnifies rounding (0.1 with torch 2.11).
    np.testing.assert_allclose(one, other, atol=0.2)


def test_models_of_several_data_sets_take_their_first_expert(estimator):
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48],
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        out_indices=[1],
        num_experts=3,
        part_features=4,
    )
    pose = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17))
    parts = estimator.pose_processor, estimator.detector, estimator.detector_processor
    image = moving_square()[0]
    [found] = PoseEstimator(pose, *parts, 0.1)([image])
    boxes = estimator.find_persons([image])
    inputs = estimator.pose_processor([image], boxes=boxes, return_tensors="pt")
    for expert in range(3):
        with torch.no_grad():
            output = pose(**inputs, dataset_index=torch.full((len(boxes[0]),), expert))
        [expected] = estimator.pose_processor.post_process_pose_estimation(output, boxes=boxes)
        same = all(torch.equal(a["scores"], b["scores"]) for a, b in zip(found, expected, strict=True))
        assert same == (expert == 0)


def test_frames_in_which_nobody_is_found_are_empty(estimator, tmp_path):
    empty = range(6, 13)
    path = write_video(tmp_path / "film.mp4", moving_square(empty=empty))
    sequence = read_video(path, estimator)
    seen = sequence.keypoints.any((2, 3)).sum(1)
    np.testing.assert_array_equal(seen, [len(boxes) for boxes in estimator.find_persons(list(open_video(path)[0]))])
    np.testing.assert_array_equal(seen == 0, [number in empty for number in range(20)])


@pytest.mark.parametrize(
    "name, make, message",
    [
        ("absent.mp4", None, "there is no such file"),
        ("text.mp4", lambda path: path.write_text("film"), "cannot be read as a video"),
        ("empty.mp4", lambda path: path.write_bytes(b""), "cannot be read as a video"),
    ],
)
def test_what_is_no_video_is_refused(estimator, tmp_path, name, make, message):
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        read_video(tmp_path / name, estimator)
    assert name in str(caught.value)


def test_a_cut_video_and_one_of_nobody_are_refused(models, film, tmp_path):
    strict = PoseEstimator.from_pretrained(models / "pose", models / "detector", 0.99999, "cpu")
    with pytest.raises(SkeletonFormatError, match=r"film.mp4: no person is detected in its 20 frames"):
        read_video(film, strict)
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(SkeletonFormatError, match=r"cut.mp4: it (cannot be read|is damaged)"):
        read_video(tmp_path / "cut.mp4", strict)


def test_models_of_another_kind_are_refused(models, tmp_path):
    with pytest.raises(CheckpointLoadError, match="'usdrl/nothing' was not found"):
        PoseEstimator.from_pretrained("usdrl/nothing", models / "detector", device="cpu")
    with pytest.raises(CheckpointLoadError, match="cannot be loaded"):
        PoseEstimator.from_pretrained(models / "detector", models / "detector", device="cpu")
    estimator = PoseEstimator.from_pretrained(models / "pose", models / "detector", device="cpu")
    parts = estimator.pose_model, estimator.pose_processor, estimator.detector, estimator.detector_processor
    with pytest.raises(ValueError, match="the threshold for persons must be"):
        PoseEstimator(*parts, threshold=1)
    config = json.loads((models / "detector" / "config.json").read_text())
    names, estimator.detector.config.id2label = estimator.detector.config.id2label, {0: "dog", 1: "cat"}
    with pytest.raises(CheckpointLoadError, match="no class 'person' among its 2 classes"):
        PoseEstimator(*parts)
    estimator.detector.config.id2label = names
    with pytest.raises(CheckpointLoadError, match="does not give the 17 joints of COCO"):
        PoseEstimator(parts[2], parts[3], parts[2], parts[3])
    assert config["model_type"] == "rt_detr"


def test_the_extra_is_named_where_it_is_not_installed(estimator, film, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'usdrl-hub\[video\]'"):
        read_video(film, estimator)


def test_models_of_three_dimensions_are_refused_before_anything_is_looked_at(models):
    with pytest.raises(
        ValueError, match="gives 2D keypoints, but mine reads 3D joints: leave --pose-model and --detector out, take"
    ):
        check_reads(USDRLFeatureExtractor(), "mine", "coco17")
    tail = Layout("cat", ("tail_root", "tail_tip"), ((1, 0),), coordinates="2d")
    with pytest.raises(ValueError, match="'cat'"):
        check_reads(USDRLFeatureExtractor(tail.to_config()), "mine", "coco17")
    check_reads(USDRLFeatureExtractor("coco17"), "mine", "mediapipe33")
    check_reads(USDRLFeatureExtractor(), "mine", "mediapipe33")
    for layout in ("coco17", "coco17-release", "openpose18", "jhmdb15"):
        check_reads(USDRLFeatureExtractor(layout), "mine", "coco17")


# -- the command


def options(models, threshold=0.1):
    chosen = ["--pose-model", models / "pose", "--detector", models / "detector"]
    return [*chosen, "--person-threshold", threshold, "--device", "cpu"]


def test_predict_names_what_happens_in_videos(capsys, models, film, estimator, tmp_path):
    code, out, err = run(capsys, "predict", film, "--model", models / "flat", *options(models), "--json")
    assert code == 0 and err == ""
    [row] = json.loads(out)["predictions"]
    [expected] = iter_predictions(read_video(film, estimator), models / "flat")
    assert row["name"] == "film" and row["frames"] == 20
    assert row["top"][0]["probability"] == pytest.approx(expected.top(1)[0][1], abs=1e-4)
    (tmp_path / "broken.avi").write_text("film")
    films = [tmp_path, film]
    command = ["predict", *films, "--model", models / "flat", *options(models), "--timeline", "--output"]
    code, out, err = run(capsys, *command, tmp_path.parent / "out.csv")
    assert code == 2 and "broken.avi: it cannot be read as a video" in err and err.count("\n") == 1
    assert "1.67 s" in out and (tmp_path.parent / "out.csv").read_text().count("film") >= 1


def test_render_draws_the_people_in_a_video(capsys, models, film, tmp_path):
    chosen = ["--model", models / "flat", *options(models)]
    code, out, err = run(capsys, "render", film, "--output", tmp_path / "film.html", *chosen)
    assert code == 0 and err == "" and "20 of 20 frames of film at 12 frames per second" in out
    page = content(tmp_path / "film.html")
    assert page["scene"]["frames"] == 20 and page["scene"]["channels"] == 2 and page["timeline"]["model"] == "flat"
    assert page["scene"]["image"] == [0, -96, 128, 0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["predict", "{film}", "--model", "{flat}"], "film.mp4: no person is found in its 20 pictures"),
        (["predict", "{film}", "--top-k", "1"], "film.mp4: no person is found in its 20 pictures"),
        (["predict", "{film}", "--pose-model", "{pose}"], "people are found by a --detector .* name both"),
        (["predict", "{film}", "--detector", "{pose}", "--pose-model", "{pose}"], "the model reads 3D joints"),
        (["render", "{film}", "--output", "{folder}/out.html"], "no person is found in its 20 pictures"),
        (["predict", "{film}", "--detector", "x", "--pose-model", "a.onnx"], "has its own detector"),
        (
            ["render", "{film}", "--output", "{folder}/out.html", "--detector", "x/y", "--pose-model", "{pose}"],
            "model 'x/y' was not found",
        ),
    ],
)
def test_what_cannot_be_seen_in_a_video_is_refused(capsys, models, film, tmp_path, arguments, message):
    places = {"film": film, "pose": models / "pose", "folder": tmp_path, "flat": models / "flat"}
    capsys.readouterr()
    code, _, err = run(capsys, *(part.format(**places) for part in arguments))
    [told] = [line for line in err.splitlines() if line]
    assert code == 2 and told.startswith("usdrl: ") and re.search(message, told)
    assert list(tmp_path.iterdir()) == []


def test_a_real_video_is_seen_whole_and_the_same_again(models, shared_data):
    path = shared_data / "ntu_rgbd_samples" / "S001C001P001R001A001_rgb.avi"
    estimator = PoseEstimator.from_pretrained(models / "pose", models / "detector", 0.1, "cpu")
    sequence = read_video(path, estimator)
    assert sequence.num_frames == 103 and sequence.fps == 30 and sequence.image_shape == (1080, 1920)
    images = [image for _, image in zip(range(8), open_video(path)[0], strict=False)]
    assert images[0].shape == (1080, 1920, 3)
    for people, found in zip(estimator(images), sequence.keypoints, strict=False):
        expected = [np.c_[person["keypoints"], person["scores"]].astype(np.float32) for person in people]
        rows = found[found.any((1, 2))]
        np.testing.assert_array_equal(sorted(map(np.ndarray.tolist, rows)), sorted(map(np.ndarray.tolist, expected)))
    [prediction] = iter_predictions(sequence, models / "flat")
    assert prediction.probabilities.sum() == pytest.approx(1)


def test_videos_of_a_folder_are_read_where_there_is_nothing_else_or_they_are_asked_for(tmp_path, monkeypatch):
    (tmp_path / "film.mp4").write_text("film")
    seen = SkeletonSequence(np.ones((2, 1, 17, 3)), "coco17", name="film", image_shape=(4, 4))
    monkeypatch.setattr("usdrl_hub.inference.video.read_video", lambda *_, **__: seen)
    monkeypatch.setattr("usdrl_hub.inference.video.BlazePoseEstimator", lambda: None)
    assert [sequence.name for sequence in Source(tmp_path)] == ["film"]
    np.save(tmp_path / "walk.npy", np.ones((4, 25, 3)))
    with pytest.warns(USDRLWarning, match="1 videos beside recordings are left out: name them to read them"):
        assert [sequence.name for sequence in Source(tmp_path)] == ["walk"]
    assert [sequence.name for sequence in Source([tmp_path / "film.mp4", tmp_path / "walk.npy"])] == ["film", "walk"]
    both = Source(tmp_path, videos=VideoReading(estimator=object()))
    assert [sequence.name for sequence in both] == ["film", "walk"]
