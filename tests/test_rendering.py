import base64
import re
import warnings
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from PIL import Image

from usdrl_hub import (
    Engine,
    Layout,
    SkeletonFormatError,
    SkeletonSequence,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLModel,
    open_data,
    render,
    write_store,
)
from usdrl_hub.data.reading import Reading
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.errors import CheckpointLoadError
from usdrl_hub.inference.embedding import extract_embeddings
from usdrl_hub.inference.prediction import iter_predictions
from usdrl_hub.inference.timeline import make_timeline
from usdrl_hub.inference.windows import segment
from usdrl_hub.layouts import TO_Y_UP
from usdrl_hub.visualize.charts import Chart, draw_chart
from usdrl_hub.visualize.panel import PERSON_COLORS, new_figure
from usdrl_hub.visualize.pictures import Picture, draw_rows
from usdrl_hub.visualize.recording import Recording, find_recording, nearest_clips
from usdrl_hub.visualize.scene import Scene, frames_to_draw

from .conftest import write_ntu
from .helpers import HOSTILE_TEXT, content, run, tiny_config, tiny_model, walking

TINY = "usdrl/tiny-uiprmd"
CHAIN = [(i, i // 2) for i in range(5)]


def unpacked(scene: dict) -> tuple[np.ndarray, np.ndarray]:
    """Points and which were seen, of a scene in a page."""
    steps = np.frombuffer(base64.b64decode(scene["data"]), "<u2")
    steps = steps.reshape(scene["frames"], scene["persons"], len(scene["joints"]), scene["channels"])
    return scene["low"][: scene["channels"]] + scene["step"] * steps, steps[..., 0] != 65535


@pytest.fixture(scope="module")
def samples():
    return load_samples()


# -- how a recording is turned


@pytest.mark.parametrize("up", TO_Y_UP)
@pytest.mark.parametrize("units, mirrored", [("m", False), ("cm", True), ("mm", False)])
def test_a_recording_is_upright_whatever_its_axes_and_units_are(up, units, mirrored):
    expected, axes, signs = Scene.of(walking()), *TO_Y_UP[up]
    turned = np.empty_like(walking().keypoints)
    turned[..., axes] = walking().keypoints * np.array(signs)
    turned[..., axes[0]] *= -1 if mirrored else 1
    turned *= {"m": 1, "cm": 100, "mm": 1000}[units]
    scene = Scene.of(SkeletonSequence(turned, "ntu25", up=up, units=units, mirrored=mirrored))
    np.testing.assert_allclose(scene.points, expected.points, atol=1e-4)
    assert abs(scene.azimuth - expected.azimuth) < 1e-3 and abs(scene.floor - expected.floor) < 1e-3


def test_one_person_is_seen_from_the_front():
    # The left of who looks towards +z is at +x.
    scene = Scene.of(walking())
    assert 0 < scene.azimuth < 1
    head, foot = (scene.layout.joint_names.index(name) for name in ("head", "left_foot"))
    places, _ = scene.projected(scene.points[0, 0])
    assert places[head, 1] > places[foot, 1]
    left, right = (places[scene.layout.joint_names.index(f"{side}_shoulder"), 0] for side in ("left", "right"))
    assert left > right
    away = walking().keypoints * [-1, 1, -1]
    assert abs(abs(Scene.of(SkeletonSequence(away)).azimuth - scene.azimuth) - np.pi) < 0.01


def test_two_persons_are_seen_beside_each_other():
    pair = walking(persons=2).keypoints.copy()
    pair[:, 1] += [-1, 0, 2]
    scene = Scene.of(SkeletonSequence(pair))
    one, other = scene.projected(scene.points.mean((0, 2)))[0]
    assert abs(other[0] - one[0]) > 1.5


def test_two_dimensions_are_flat_with_y_down():
    keypoints = np.random.rand(6, 2, 17, 3) * [640, 480, 1] + [1, 1, 0.1]
    keypoints[2, 0, 3, 2] = 0
    scene = Scene.of(SkeletonSequence(keypoints, "coco17", image_shape=(480, 640)))
    assert scene.flat and scene.floor is None and not scene.seen[2, 0, 3] and scene.seen.sum() == 6 * 2 * 17 - 1
    np.testing.assert_allclose(scene.points[..., :2], keypoints[..., :2] * [1, -1], rtol=1e-6)
    places, _ = scene.projected(scene.points)
    assert places[0, 0, keypoints[0, 0, :, 1].argmin(), 1] == places[0, 0, :, 1].max()


def test_people_never_seen_are_left_out_and_a_centred_joint_is_not():
    keypoints = walking(persons=3).keypoints.copy()
    keypoints[:, 1] = 0
    keypoints -= keypoints[:, :, 1:2] * (keypoints != 0).any(-1, keepdims=True)
    scene = Scene.of(SkeletonSequence(keypoints))
    assert list(scene.people) == [1, 3] and scene.seen.all()
    keypoints = walking().keypoints.copy()
    keypoints[:, :, 1] = 0
    assert not Scene.of(SkeletonSequence(keypoints)).seen[:, :, 1].any()


def test_a_few_wild_joints_do_not_make_everybody_small():
    keypoints = walking(frames=200).keypoints.copy()
    keypoints[7, 0, 3] = [900, -4000, 20]
    low, high = Scene.of(SkeletonSequence(keypoints)).box
    assert (high - low).max() < 4


@pytest.mark.parametrize(
    "frames, fps, drawn, rate",
    [
        (60, 30, 40, 20.0),
        (30, 10, 30, 10.0),
        (45, 15, 43, 100 / 7),
        (400, 30, 267, 20.0),
        (600, 30, 200, 10.0),
        (1800, 30, 300, 5.0),
        (9000, 30, 300, 4.0),
        (1, 30, 1, 20.0),
        (10, 0.5, 10, 0.5),
    ],
)
def test_moving_pictures_keep_the_pace_as_long_as_they_can(frames, fps, drawn, rate):
    numbers, found = frames_to_draw(frames, fps, 300, 20.0)
    assert len(numbers) == drawn and found == pytest.approx(rate) and numbers.max() < frames
    assert (100 / found) == pytest.approx(round(100 / found))
    if drawn < 300:
        assert len(numbers) / found == pytest.approx(frames / fps, abs=1 / found)


# -- what a model says


def test_a_recognisers_timeline_is_the_mean_of_the_windows_over_a_frame(samples):
    model = USDRLForActionRecognition.from_pretrained(TINY).eval()
    extractor = USDRLFeatureExtractor.from_pretrained(TINY)
    sequence = max(samples, key=lambda item: item.num_frames)
    timeline = make_timeline(Engine(model, extractor), sequence, batch_size=3)
    whole = next(iter_predictions(sequence, TINY))
    np.testing.assert_allclose(timeline.overall, whole.probabilities, atol=1e-5)
    assert timeline.class_names == whole.class_names and timeline.segments is None and not timeline.has_background
    last = sequence.num_frames - 64
    starts = [*range(0, last, 8), last]
    windows = np.stack(
        [p.probabilities for p in iter_predictions([whole.sequence.keypoints[s : s + 64] for s in starts], TINY)]
    )
    inside = np.array([[start <= frame < start + 64 for start in starts] for frame in range(sequence.num_frames)])
    expected = inside @ windows / inside.sum(1, keepdims=True)
    np.testing.assert_allclose(timeline.probabilities, expected, atol=1e-4)


def test_a_detectors_segments_are_runs_of_likely_frames():
    model, extractor = tiny_model(USDRLForActionDetection)
    sequence = SkeletonSequence(np.random.randn(50, 1, 5, 3), model.config.layout)
    with torch.no_grad():
        model.classifier.weight.mul_(200)
    timeline = make_timeline(Engine(model, extractor), sequence, threshold=0.4)
    assert timeline.has_background and timeline.overall is None and len(timeline.segments)
    assert (np.diff(timeline.segments[:, 1]) >= 0).all()
    covered = np.zeros((50, 4), dtype=bool)
    for kind, start, end, score in timeline.segments:
        covered[int(start) : int(end), int(kind)] = True
        assert score == pytest.approx(timeline.probabilities[int(start) : int(end), int(kind)].mean(), abs=1e-5)
    np.testing.assert_array_equal(covered[:, 1:], timeline.probabilities[:, 1:] > 0.4)


def test_segmenters_and_early_predictors_speak_of_every_frame():
    sequence = SkeletonSequence(np.random.randn(30, 1, 5, 3), tiny_config().layout)
    model, extractor = tiny_model(USDRLForActionSegmentation, segmentation_stages=2, segmentation_layers=3)
    timeline = make_timeline(Engine(model, extractor), sequence)
    np.testing.assert_allclose(timeline.probabilities.sum(1), 1, atol=1e-5)
    labels = np.zeros(30, dtype=int)
    for kind, start, end, _ in timeline.segments:
        labels[int(start) : int(end)] = int(kind)
    np.testing.assert_array_equal(labels, segment(Engine(model, extractor), [extractor.prepare(sequence)])[0])
    model, extractor = tiny_model(USDRLForEarlyActionPrediction, is_causal=True)
    timeline = make_timeline(Engine(model, extractor), sequence)
    np.testing.assert_allclose(timeline.probabilities.sum(1), 1, atol=1e-5)
    assert timeline.segments is None and timeline.overall is None
    start = make_timeline(Engine(model, extractor), SkeletonSequence(sequence.keypoints[:7], sequence.layout))
    np.testing.assert_allclose(start.probabilities, timeline.probabilities[:7], atol=1e-5)


def test_frames_in_which_nobody_is_seen_have_no_probability(tmp_path):
    model, extractor = tiny_model(USDRLForActionRecognition)
    keypoints = np.random.randn(60, 1, 5, 3)
    keypoints[12:48] = 0
    sequence = SkeletonSequence(keypoints, model.config.layout)
    timeline = make_timeline(Engine(model, extractor), sequence)
    empty = ~timeline.probabilities.any(1)
    assert empty.any() and not empty[:12].any() and not empty[48:].any()
    render(sequence, tmp_path / "gap.html", Engine(model, extractor))
    page = content(tmp_path / "gap.html")
    shares = np.frombuffer(base64.b64decode(page["timeline"]["data"]), "<u2").reshape(60, -1)
    np.testing.assert_array_equal((shares == 65535).all(1), empty)


def test_a_model_without_classes_is_for_a_gallery_only(tmp_path, samples):
    with pytest.raises(CheckpointLoadError, match="which has no classes"):
        render(samples[0], tmp_path / "out.html", USDRLModel.from_pretrained(TINY))
    extractor = USDRLFeatureExtractor.from_pretrained(TINY)
    render(
        samples[0],
        tmp_path / "out.html",
        Engine(USDRLModel.from_pretrained(TINY).eval(), extractor),
        gallery=samples[:7],
    )
    page = content(tmp_path / "out.html")
    assert page["timeline"] is None and len(page["neighbours"]) == 5


def test_the_nearest_clips_are_those_of_the_highest_cosine_without_the_recording_itself(samples):
    model = USDRLModel.from_pretrained(TINY).eval()
    extractor = USDRLFeatureExtractor.from_pretrained(TINY)
    samples = samples[:16]
    found = nearest_clips(samples[3], samples, Engine(model, extractor), top_k=4, batch_size=7)
    unit = extract_embeddings(samples, TINY)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    order = [place for place in np.argsort(-unit @ unit[3], kind="stable") if place != 3][:4]
    assert [clip.sequence.name for clip in found] == [samples[place].name for place in order]
    np.testing.assert_allclose([clip.similarity for clip in found], (unit @ unit[3])[order], atol=1e-5)
    assert [clip.label for clip in found] == [samples.class_names[samples[place].label] for place in order]
    with pytest.raises(SkeletonFormatError, match="the gallery has no other clip"):
        nearest_clips(samples[3], samples[3:4], Engine(model, extractor))


# -- files


def test_a_page_is_one_file_that_asks_for_nothing(tmp_path, samples):
    drawn = render(Recording(samples[0], samples.class_names), tmp_path / "out.html", TINY, gallery=samples[:9])
    text = (tmp_path / "out.html").read_text("utf-8")
    assert set(re.findall(r"\w+://[^\s\"'<]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=(?!\"data:,\")", text) and "@import" not in text
    assert "default-src 'none'" in text and "{{" not in text
    page = content(tmp_path / "out.html")
    assert drawn.frames == samples[0].num_frames == page["scene"]["frames"] and drawn.top[0] == "deep squat"
    assert page["timeline"]["whole"][0]["label"] == "deep squat" and page["facts"][0] == "labelled deep squat"
    assert [len(page["neighbours"]), page["neighbours"][0]["label"]] == [5, "deep squat"]
    assert all(neighbour["scene"]["frames"] <= 90 for neighbour in page["neighbours"])


def test_pictures_say_what_their_marks_mean(samples):
    assert Scene.of(samples[0]).key == "grid 0.5 m; the left side is paler"
    flat = SkeletonSequence(np.random.rand(9, 1, 17, 2), "coco17", image_shape=(100, 100), coordinates="2d")
    assert Scene.of(flat).key == "the left side is paler"
    stick = Layout("stick", ("a", "b"), ((0, 1), (1, 1)))
    assert Scene.of(SkeletonSequence(np.random.rand(9, 1, 2, 3), stick)).key.startswith("grid ")
    assert "left" not in Scene.of(SkeletonSequence(np.random.rand(9, 1, 2, 3), stick)).key


def test_a_page_of_motion_that_is_like_no_class_says_so(tmp_path):
    drawn = render(SkeletonSequence(np.random.rand(90, 1, 25, 3), "ntu25"), tmp_path / "out.html", TINY)
    timeline = content(tmp_path / "out.html")["timeline"]
    assert drawn.top[0] == timeline["refused"] == timeline["none"] == "none of these"
    assert timeline["known"] == "0" * 90
    render(SkeletonSequence(np.random.rand(90, 1, 25, 3), "ntu25"), tmp_path / "out.html", TINY, threshold=0)
    timeline = content(tmp_path / "out.html")["timeline"]
    assert timeline["refused"] == "" and "0" not in timeline["known"]


def test_a_thousand_frames_of_two_persons_fit_in_three_megabytes_and_are_exact_to_a_tenth_of_a_millimetre(tmp_path):
    sequence = SkeletonSequence(np.random.rand(1000, 2, 25, 3) * 4 - 2, "ntu25")
    render(sequence, tmp_path / "out.html", TINY)
    assert (tmp_path / "out.html").stat().st_size < 1_000_000
    points, seen = unpacked(content(tmp_path / "out.html")["scene"])
    assert seen.all() and np.abs(points - Scene.of(sequence).points).max() < 1e-4


def test_very_long_recordings_are_thinned_in_pages(tmp_path):
    sequence = SkeletonSequence(np.random.rand(45_000, 2, 25, 3), "ntu25", fps=30.0)
    drawn = render(sequence, tmp_path / "out.html")
    scene = content(tmp_path / "out.html")["scene"]
    assert (scene["every"], scene["frames"], scene["total"], scene["fps"]) == (2, 22_500, 45_000, 15.0)
    assert drawn.frames == 22_500 and (tmp_path / "out.html").stat().st_size < 17_000_000


def odd_recordings():
    flat = np.random.rand(9, 1, 17, 2) * 100
    crowd = walking(persons=5).keypoints.copy()
    crowd[5:20, 2], crowd[:, 1, ::2], crowd[10:30] = 0, 0, 0
    nameless = Layout("odd", tuple(f"$joint_{i} \\frac" for i in range(5)), ())
    yield "one frame", SkeletonSequence(np.random.rand(1, 1, 25, 3))
    yield "gaps and five persons", SkeletonSequence(crowd)
    yield "2D", SkeletonSequence(flat, "coco17", image_shape=(100, 120))
    yield "2D with scores", SkeletonSequence(np.random.rand(9, 3, 18, 3) * [90, 90, 1], "openpose18", fps=25.0)
    yield "a single joint", SkeletonSequence(np.eye(25, 3)[None, None, ::-1] * 0.5)
    yield "one point", SkeletonSequence(np.ones((4, 1, 25, 3)))
    yield "no bones", SkeletonSequence(np.random.rand(4, 1, 5, 3), nameless)
    yield "no rate", SkeletonSequence(np.random.rand(4, 1, 25, 3), fps=0.0)
    yield "huge", SkeletonSequence(np.random.rand(4, 1, 25, 3) * 1e6)


@pytest.mark.parametrize("suffix", [".html", ".gif", ".png"])
@pytest.mark.parametrize("name, sequence", list(odd_recordings()), ids=[name for name, _ in odd_recordings()])
def test_odd_recordings_are_drawn(tmp_path, recwarn, name, sequence, suffix):
    path = tmp_path / f"out{suffix}"
    drawn = render(sequence, path)
    assert drawn.frames <= sequence.num_frames and [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix == ".html":
        points, seen = unpacked(content(path)["scene"])
        scene = Scene.of(sequence)
        np.testing.assert_array_equal(seen, scene.seen)
        error = np.abs(points - scene.points[..., : points.shape[-1]])[seen].max()
        assert error <= np.ptp(scene.points[scene.seen], axis=0).max() / 65534 + 1e-6
    else:
        picture = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
        assert (picture == 255).all(1).mean() > 0.5 and len(np.unique(picture, axis=0)) > 3
    assert not [warning for warning in recwarn if "numpy" in str(warning.filename)]


def test_a_moving_picture_lasts_as_long_as_the_recording(tmp_path):
    for frames, expected in ((90, 60), (900, 300)):
        drawn = render(walking(frames), tmp_path / "out.gif")
        with Image.open(tmp_path / "out.gif") as picture:
            # Frames that look the same are joined by the writer; none is here.
            assert picture.n_frames == drawn.frames == expected
            assert picture.n_frames * picture.info["duration"] / 1000 == pytest.approx(frames / 30, abs=0.1)
            picture.seek(5)
            colors = picture.convert("RGB").getcolors(1 << 16)
            first = tuple(bytes.fromhex(PERSON_COLORS[0][1:]))
            assert dict((color, count) for count, color in colors)[first] > 100


def test_pictures_show_what_a_model_says_and_nearest_clips(tmp_path, samples):
    sizes = {}
    for number, options in enumerate(({}, {"model": TINY}, {"model": TINY, "gallery": samples[:9]})):
        for suffix in ("png", "gif"):
            render(samples[0], tmp_path / f"{number}.{suffix}", **options)
            sizes[number, suffix] = Image.open(tmp_path / f"{number}.{suffix}").size
    assert sizes[0, "png"][1] < sizes[1, "png"][1] < sizes[2, "png"][1]
    assert sizes[0, "gif"][1] < sizes[1, "gif"][1] and sizes[1, "gif"][0] < sizes[2, "gif"][0]


def hostile_case():
    names = tuple(f"{HOSTILE_TEXT}{number}" for number in range(5))
    layout = Layout(HOSTILE_TEXT, names, tuple(CHAIN))
    model, extractor = tiny_model(
        USDRLForActionDetection, ("nothing", HOSTILE_TEXT, f"_{HOSTILE_TEXT}", "$$"), layout=layout.to_config()
    )
    with torch.no_grad():
        model.classifier.weight.mul_(200)
    events = np.array([[0, 3, 30]])
    gallery = [
        SkeletonSequence(np.random.rand(12, 1, 5, 3), layout, name=f"{HOSTILE_TEXT}{number}") for number in range(3)
    ]
    sequence = SkeletonSequence(np.random.rand(40, 1, 5, 3), layout, name=HOSTILE_TEXT, events=events, label=0)
    return Recording(sequence, [HOSTILE_TEXT]), model, extractor, gallery


def test_names_are_text_whatever_they_hold(tmp_path):
    recording, model, extractor, gallery = hostile_case()
    model.name_or_path = HOSTILE_TEXT
    render(recording, tmp_path / "out.html", Engine(model, extractor), gallery=gallery)
    text = (tmp_path / "out.html").read_text("utf-8")
    assert text.count("<script") == text.count("</script>") == 2 and "<img" not in text and text.count("<!--") == 0
    page = content(tmp_path / "out.html")
    title = re.search("<title>(.*?)</title>", text, re.S)[1]
    assert unescape(title) == page["name"] == HOSTILE_TEXT and page["scene"]["joints"][1] == f"{HOSTILE_TEXT}1"
    assert page["timeline"]["model"] == HOSTILE_TEXT and page["facts"][0] == f"labelled {HOSTILE_TEXT}"
    assert {band["title"] for band in page["bands"]} == {"Detected", "Labelled"}
    assert {neighbour["name"] for neighbour in page["neighbours"]} == {clip.name for clip in gallery}
    for suffix in (".png", ".gif"):
        render(recording, tmp_path / f"out{suffix}", Engine(model, extractor), gallery=gallery)


# -- the command


def test_one_of_several_recordings_is_chosen_by_name_or_number(tmp_path, samples):
    write_store(samples[:4], tmp_path / "store")
    for path in (sample_path(), tmp_path / "store"):
        assert find_recording(path, samples[2].name).sequence.name == samples[2].name
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = find_recording(path, "1", Reading(fps=12.5))
        # A store says the rate of its recordings.
        assert (found.sequence.name, found.sequence.fps) == (samples[1].name, samples[1].fps or 12.5)
        assert len(caught) == (samples[1].fps is not None)
        with pytest.raises(SkeletonFormatError, match="choose one by name, such as m01_s02_e05"):
            find_recording(path)
        with pytest.raises(SkeletonFormatError, match="is called 'nobody'"):
            find_recording(path, "nobody")
    assert find_recording(sample_path(), "0").class_names == open_data(sample_path()).class_names


def test_render_says_what_it_drew(capsys, tmp_path):
    file = write_ntu(tmp_path / "S001C001P001R001A001.skeleton", walking(persons=2).keypoints)
    code, out, err = run(capsys, "render", file, "--output", tmp_path / "two.html")
    assert code == 0 and err == ""
    assert out == f"{tmp_path / 'two.html'}: 40 of 40 frames of {file.stem} at 30 frames per second\n"
    options = ["--model", f"{TINY},{TINY}", "--fps", 50]
    code, out, _ = run(capsys, "render", file, "--output", tmp_path / "out.gif", *options)
    assert code == 0 and "16 of 40 frames" in out and "20 frames per second; " in out and out.endswith(" %\n")
    write_store(load_samples()[:5], tmp_path / "store", load_samples().class_names)
    options = ["--name", "m01_s02_e05", "--model", TINY, "--gallery", tmp_path / "store", "--top-k", 2]
    code, out, _ = run(capsys, "render", sample_path(), "--output", tmp_path / "squat.html", *options)
    assert code == 0 and "of m01_s02_e05 at 33.3333 frames per second; deep squat" in out
    neighbours = content(tmp_path / "squat.html")["neighbours"]
    assert [neighbour["label"] for neighbour in neighbours] == ["deep squat"] * 2


def test_a_page_does_not_tell_the_folders_of_the_machine_that_made_it(capsys, tmp_path):
    model, extractor = tiny_model(USDRLForActionRecognition)
    model.save_pretrained(tmp_path / "my-model")
    extractor.save_pretrained(tmp_path / "my-model")
    np.save(tmp_path / "walk.npy", np.random.rand(20, 5, 3))
    options = ["--model", tmp_path / "my-model", "--output", tmp_path / "out.html"]
    assert run(capsys, "render", tmp_path / "walk.npy", *options)[0] == 0
    assert content(tmp_path / "out.html")["timeline"]["model"] == "my-model"
    assert str(tmp_path) not in (tmp_path / "out.html").read_text()


def test_nan_is_refused_or_filled(capsys, tmp_path):
    keypoints = walking().keypoints[:, 0].copy()
    keypoints[3, 4], keypoints[5] = np.nan, np.nan
    np.save(tmp_path / "nan.npy", keypoints)
    code, _, err = run(capsys, "render", tmp_path / "nan.npy", "--output", tmp_path / "out.html")
    assert code == 2 and "frame 3, person 0, joint 4 is NaN" in err and not (tmp_path / "out.html").exists()
    options = ["--missing", "interpolate", "--output", tmp_path / "out.html"]
    assert run(capsys, "render", tmp_path / "nan.npy", *options)[0] == 0
    points, seen = unpacked(content(tmp_path / "out.html")["scene"])
    assert seen.all()
    np.testing.assert_allclose(points[3, 0, 4], (keypoints[2, 4] + keypoints[4, 4]) / 2, atol=1e-3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{file}", "--output", "{folder}/out.mp4"], "drawn as .html, .gif, .png"),
        (["{folder}", "--output", "{folder}/out.html"], "it is a folder: name one of the recordings"),
        (["{data}", "--output", "{folder}/out.html"], "it holds 100 recordings: choose one by name"),
        (["{data}", "--name", "x", "--output", "{folder}/out.html"], "is called 'x'"),
        (["{folder}/absent.npy", "--output", "{folder}/out.html"], "there is no such file"),
        (
            ["{file}", "--output", "{folder}/out.html", "--gallery", "{data}"],
            "--gallery has no effect without",
        ),
        (["{file}", "--output", "{folder}/out.html", "--model", "usdrl/nothing"], "was not found"),
        (["{file}", "--output", "{folder}/out.html", "--layout", "coco17"], "is not a skeleton of layout 'coco17'"),
        (["{file}", "--output", "{folder}/out.html", "--up", "w"], "--up is 'w': give y, z"),
        (["{file}", "--output", "{folder}/out.html", "--fps", "0"], "frames per second must be"),
        (["{file}", "--output", "{folder}/out.html", "--threshold", "2"], "--threshold has no effect without"),
        (["{file}", "--output", "{file}/out.html"], "cannot be written"),
        (["{flat}", "--output", "{folder}/out.html", "--model", TINY], "the keypoints are 2D"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_one_sentence(capsys, tmp_path, arguments, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(tmp_path / "walk.npy", walking().keypoints[:, 0])
    np.save(tmp_path / "flat.npy", walking().keypoints[:, 0, :, :2] * (1, -1))
    places = {"file": tmp_path / "walk.npy", "flat": tmp_path / "flat.npy", "folder": folder, "data": sample_path()}
    code, out, err = run(capsys, "render", *(part.format(**places) for part in arguments))
    assert code == 2 and message in err and err.startswith("usdrl: ") and err.count("\n") == 1 and not out
    assert list(folder.iterdir()) == []


def test_real_recordings_of_other_sensors_are_drawn(tmp_path, shared_data):
    pair = find_recording(shared_data / "ntu_rgbd_samples" / "S001C003P008R002A058.skeleton")
    drawn = render(pair, tmp_path / "pair.html", TINY)
    page = content(tmp_path / "pair.html")
    assert page["scene"]["people"] == [1, 2] and drawn.frames == 70 and "2 persons" in page["facts"]
    fall = find_recording(shared_data / "falling_openpose18.npz", "3")
    assert render(fall, tmp_path / "fall.gif").frames == 269
    assert render(fall, tmp_path / "fall.html").frames == 403
    assert content(tmp_path / "fall.html")["scene"]["persons"] == 5
    whole = find_recording(shared_data / "utkinect_untrimmed.npz", "s02_e01")
    render(whole, tmp_path / "whole.html")
    [band] = content(tmp_path / "whole.html")["bands"]
    assert band["title"] == "Labelled" and len(band["segments"]) == 10


# -- in a browser


def frame_shown(browser) -> int:
    return int(re.search(r"(\d+) / \d+", browser.text("#clock"))[1])


def colors_shown(browser, path) -> dict[tuple, int]:
    """How often each colour is seen on the stage."""
    browser.screenshot(path)
    x, y, width, height = browser.box("#stage")
    stage = Image.open(path).convert("RGB").crop((x, y + 40, x + width, y + height - 40))
    return {color: count for count, color in stage.getcolors(1 << 24)}


def color(text) -> tuple:
    return tuple(bytes.fromhex(text[1:]))


def test_a_page_plays_pauses_scrubs_and_obeys_keys(tmp_path, open_page, samples):
    render(walking(frames=60, persons=2), tmp_path / "out.html")
    browser = open_page(tmp_path / "out.html")
    assert browser.text("#name") == "walking" and "2 persons" in browser.text("#facts").replace("\xa0", " ")
    browser.wait("parseInt(document.querySelector('#clock span:last-child').textContent) > 3")
    assert browser.run("return document.querySelector('#play').getAttribute('aria-label')") == "Pause"
    browser.press(" ")
    shown = frame_shown(browser)
    browser.settle()
    assert frame_shown(browser) == shown
    browser.press("\ue011")  # Home
    assert frame_shown(browser) == 0
    browser.press("\ue014", "\ue014", "\ue012")  # right, right, left
    assert frame_shown(browser) == 1 and browser.text("#clock").startswith("0.03 s")
    browser.press("\ue010")  # End
    assert frame_shown(browser) == 59
    x, y, width, height = browser.box("#scrub")
    browser.pointer(("move", x + width / 2, y + height / 2), ("down",), ("move", x + width / 4, y + 5), ("up",))
    assert 13 <= frame_shown(browser) <= 18
    browser.click("#next")
    browser.click("#play")
    before = frame_shown(browser)
    browser.wait(f"parseInt(document.querySelector('#clock span:last-child').textContent) !== {before}")
    assert browser.complaints() == []


def test_a_page_draws_everybody_in_their_colours_and_can_be_turned_and_zoomed(tmp_path, open_page):
    render(walking(persons=2), tmp_path / "out.html")
    browser = open_page(tmp_path / "out.html")
    browser.press(" ", "\ue011")
    drawn = colors_shown(browser, tmp_path / "a.png")
    assert all(drawn[color(text)] > 300 for text in PERSON_COLORS[:2])
    x, y, width, height = browser.box("#view")
    middle = x + width / 2, y + height / 2
    browser.pointer(("move", *middle), ("down",), ("move", middle[0] + 80, middle[1] + 10), ("up",))
    turned = colors_shown(browser, tmp_path / "b.png")
    assert turned != drawn
    browser.press("+", "+")
    assert colors_shown(browser, tmp_path / "c.png")[color(PERSON_COLORS[0])] > 1.2 * turned[color(PERSON_COLORS[0])]
    browser.press("r")
    again = colors_shown(browser, tmp_path / "d.png")
    # Edges are smoothed a little differently now and then.
    assert all(again[color(text)] == pytest.approx(drawn[color(text)], rel=0.02) for text in PERSON_COLORS[:2])
    browser.click("#legend button:first-child")
    assert color(PERSON_COLORS[0]) not in colors_shown(browser, tmp_path / "e.png")
    browser.press("f", "a", "w", "?")
    assert browser.run("return document.querySelector('#keys').open") and browser.complaints() == []


def test_hovering_tells_the_name_of_a_joint(tmp_path, open_page):
    body = np.zeros((3, 1, 25, 3))
    body[:, 0, 3] = [0.1, 1.7, 3.0]
    body[:, 0, 0] = [0.1, 0.9, 3.0]
    render(SkeletonSequence(body, "ntu25", name="two joints"), tmp_path / "out.html")
    browser = open_page(tmp_path / "out.html")
    browser.press(" ")
    told = {}
    x, y, width, height = browser.box("#view")
    for down in range(20, int(height), 12):
        browser.pointer(("move", x + width / 2, y + down))
        if not browser.run("return document.querySelector('#tip').hidden"):
            told[browser.text("#tip b")] = browser.text("#tip span")
    assert list(told) == ["head", "spine_base"]
    assert told["head"] == "x 0.10  y 1.70  z 3.00 m"
    assert browser.complaints() == []


def test_probabilities_segments_and_nearest_clips_follow_the_recording(tmp_path, open_page):
    recording, model, extractor, gallery = hostile_case()
    recording = Recording(recording.sequence, ["wave"])
    model.config.id2label = {0: "nothing", 1: "wave", 2: "a class with a name that is much too long for it", 3: "bow"}
    render(recording, tmp_path / "out.html", Engine(model, extractor), gallery=gallery)
    timeline = make_timeline(Engine(model, extractor), recording.sequence)
    browser = open_page(tmp_path / "out.html")
    browser.press(" ")
    names = model.config.class_names
    for frame in (0, 17, 39):
        browser.press("\ue011", *["\ue014"] * frame)
        best = timeline.probabilities[frame].argmax()
        assert browser.text("#top").startswith(names[best])
        wave = browser.run("return [...document.querySelectorAll('.class')].map(row => row.textContent)")
        share = timeline.probabilities[frame, 1]
        assert ("wave< 1 %" if 0 < share < 0.005 else f"wave{100 * share:.0f} %") in wave
    lanes = browser.run(
        "return [...document.querySelectorAll('.lane div')].map(box => "
        "[box.textContent, parseFloat(box.style.left) / 100, parseFloat(box.style.width) / 100])"
    )
    found = [[names[int(kind)], start / 39, (end - 1 - start) / 39] for kind, start, end, _ in timeline.segments]
    assert len(lanes) == len(found) + 1
    for label, left, width in (*found, ["wave", 3 / 39, 26 / 39]):
        assert any(label == lane[0] and np.allclose(lane[1:], [left, width], atol=1e-4) for lane in lanes)
    assert browser.run("return document.querySelectorAll('#chart path').length") == 3
    assert browser.run("return document.querySelectorAll('.clip canvas').length") == 3
    x, y, width, height = browser.box("#chart")
    browser.pointer(("move", x + 5, y + 9), ("down",), ("move", x + width * 10 / 39, y + 9), ("up",))
    assert frame_shown(browser) == 10
    x, y, width, height = browser.box("#bands .row:last-child .lane div")
    browser.pointer(("move", x + 8, y + 8))
    assert browser.text("#tip") == "waveframes 3 to 29"
    assert browser.complaints() == []


def test_names_that_look_like_markup_do_nothing(tmp_path, open_page):
    recording, model, extractor, gallery = hostile_case()
    model.name_or_path = HOSTILE_TEXT
    render(recording, tmp_path / "out.html", Engine(model, extractor), gallery=gallery)
    browser = open_page(tmp_path / "out.html")
    assert browser.text("#name") == HOSTILE_TEXT and browser.run("return document.title").startswith("</script>")
    assert browser.run("return window.hacked === undefined && !document.querySelector('main img, body img')")
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width, height", [(1280, 800), (800, 560), (360, 740)])
def test_a_page_fits_its_window_in_light_and_dark(tmp_path, open_page, samples, width, height, dark):
    name = "a recording with a rather long name that must not push anything out of the window"
    sequence = SkeletonSequence(samples[0].keypoints, samples[0].layout, name=name, fps=0.02)
    render(sequence, tmp_path / "out.html", TINY, gallery=samples[:4])
    browser = open_page(tmp_path / "out.html", width, height, dark)
    browser.press(" ", "\ue010")
    assert browser.text("#clock").startswith("4250.00 s")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    # No two parts overlap, and all of them lie in the window's width.
    parts = ["header h1", "#corner", "#stage", "footer", "aside"]
    boxes = [browser.box(part) for part in parts]
    for number, (x, y, wide, high) in enumerate(boxes):
        assert wide > 30 and high > 15 and x >= 0 and x + wide <= width, parts[number]
        for other, (left, top, across, down) in enumerate(boxes[:number]):
            apart = x >= left + across or left >= x + wide or y >= top + down or top >= y + high
            assert apart, (parts[number], parts[other])
    inside = "const box = document.querySelector('footer').getBoundingClientRect();"
    inside += "return [...document.querySelectorAll('#transport > *')].every(part => "
    assert browser.run(inside + "part.getBoundingClientRect().right <= box.right)")
    [paper] = sorted(colors_shown(browser, tmp_path / "a.png").items(), key=lambda item: -item[1])[:1]
    assert (sum(paper[0]) < 150) == dark
    browser.press("t")
    assert (browser.run("return document.documentElement.dataset.theme") == "light") == dark
    assert browser.complaints() == []


def test_the_name_of_a_segment_is_shortened_to_what_fits():
    names = {"a": 20, "standing shoulder abduction": 12, "行走": 40}
    starts = np.cumsum([0, *names.values()])
    segments = [
        (name, "#4477aa", start, start + length)
        for (name, length), start in zip(names.items(), starts[:-1], strict=True)
    ]
    figure = new_figure(5, 1)
    scene = Scene.of(walking(frames=int(starts[-1])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_chart(figure, (0, 0, 1, 1), Chart(bands=[("band", segments)]), scene)
    shown = {text.get_text().strip(): text for axes in figure.axes for text in axes.texts}
    assert set(names) - set(shown) == {"standing shoulder abduction"}
    [short] = set(shown) - set(names)
    assert short.endswith("…") and "standing shoulder abduction".startswith(short[:-1])
    assert shown[short].get_window_extent().width <= 500 * 12 / (starts[-1] - 1)


def test_rows_of_a_picture_have_one_scale(tmp_path, samples):
    """A person of half the size is half as high in the picture, and has the grid of the other."""
    scene = Scene.of(samples[0])
    half = replace(samples[0], keypoints=samples[0].keypoints * np.float32(0.5))
    draw_rows([Picture(scene, "one"), Picture(Scene.of(half), "other")], tmp_path / "rows.png", 1)
    picture = np.asarray(Image.open(tmp_path / "rows.png").convert("RGB")).astype(int)
    rows = np.split(picture, 2)
    blue = [np.flatnonzero((abs(row - [0, 114, 178]).sum(-1) < 30).any(1)) for row in rows]
    high, low = (np.ptp(found) for found in blue)
    assert 0.4 < low / high < 0.6


def test_single_frames_flat_recordings_and_crowds_are_shown(tmp_path, open_page):
    for name, sequence in odd_recordings():
        render(sequence, tmp_path / "out.html")
        browser = open_page(tmp_path / "out.html")
        x, y, width, height = browser.box("#view")
        browser.pointer(("move", x + 200, y + 200), ("down",), ("move", x + 260, y + 230), ("up",))
        # Play or stop, stop and step back, and go to the first frame.
        browser.press("f", "r", " ", "\ue012", "\ue011")
        drawn = colors_shown(browser, tmp_path / "a.png")
        person = [drawn.get(color(PERSON_COLORS[person]), 0) for person in range(5)]
        seen = Scene.of(sequence).seen[0].any(-1)
        assert all((count > 10) == there for count, there in zip(person, seen, strict=False)), name
        still = browser.run("return document.querySelector('#play').disabled")
        assert still == (sequence.num_frames == 1) and browser.complaints() == [], name
