"""The page that recognises in the browser: its JavaScript computes what the package computes."""

import base64
import json
import re
import shutil
import ssl
import subprocess
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from usdrl_hub import (
    LAYOUTS,
    BlazePoseEstimator,
    SkeletonSequence,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLModel,
    extract_timelines,
    read_skeleton,
)
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.facts.checkpoints import ENCODER, RECOGNISER
from usdrl_hub.facts.outputs import RUNTIME, RUNTIME_ADDRESS, RUNTIME_FILES, RUNTIME_VERSION
from usdrl_hub.inference.blazepose import LAYOUT, Pose, constants
from usdrl_hub.inference.timeline import Timeline
from usdrl_hub.metrics.retrieval import top_k
from usdrl_hub.postprocessing import action_proposals, smooth_over_shift_gap
from usdrl_hub.visualize.live import preprocessing, write_live_page
from usdrl_hub.visualize.page import shared_file
from usdrl_hub.visualize.recording import nearest_clips

from .browser import Browser, find_browser
from .conftest import SHARED, relative_error
from .helpers import HOSTILE_TEXT, randomised, run, walking, write_film

GOLDENS = SHARED / "goldens" / "blazepose_ntu_clip.npz"
FRAMES = "const frames = ([shape, values]) => new Frames(shape[0], shape[1], shape[2], Float32Array.from(values));"


def packed(sequence: SkeletonSequence) -> list:
    return [list(sequence.keypoints.shape[:3]), sequence.keypoints.ravel().tolist()]


def landmarks(frames=40, persons=1, seed=0) -> SkeletonSequence:
    """People as BlazePose sees them: metres, y down."""
    sequence = walking(frames, persons, LAYOUT)
    noise = 0.02 * np.random.default_rng(seed).standard_normal(sequence.keypoints.shape)
    return replace(sequence, keypoints=(sequence.keypoints + noise) * np.float32([1, -1, -1]), up="-y")


def changed(sequence: SkeletonSequence, *absent) -> SkeletonSequence:
    """The same with people or joints that are not seen."""
    keypoints = sequence.keypoints.copy()
    for index in absent:
        keypoints[index] = 0
    return replace(sequence, keypoints=keypoints)


def recordings() -> dict[str, SkeletonSequence]:
    two = landmarks(50, 2, seed=1)
    turned = landmarks(30, seed=2)
    return {
        "one": landmarks(),
        "one frame": landmarks(1),
        "long": landmarks(130, seed=3),
        "two": two,
        "late": changed(two, np.s_[:7, 0], np.s_[20:22]),
        "gone": changed(two, np.s_[30:, 1]),
        "only the second": changed(two, np.s_[:, 0]),
        "three": landmarks(25, 3, seed=4),
        "hidden hands": changed(landmarks(seed=5), np.s_[5:, :, 15:23], np.s_[:3, :, 15]),
        "hidden legs": changed(landmarks(seed=6), np.s_[:, :, 25:]),
        "a hidden hip": changed(landmarks(seed=7), np.s_[::2, :, 23]),
        "from behind": replace(turned, keypoints=turned.keypoints * np.float32([-1, 1, -1])),
        "upside down": replace(turned, keypoints=turned.keypoints * np.float32([1, -1, -1])),
    }


@pytest.fixture(scope="module")
def scripts_page(tmp_path_factory) -> Path:
    """A page with nothing but the scripts that compute."""
    page = tmp_path_factory.mktemp("scripts") / "scripts.html"
    code = "\n".join(map(shared_file, ("scene.js", "live_clips.js", "live_pose.js")))
    page.write_text(f"<!doctype html><script>{code}</script>", "utf-8")
    return page


@pytest.fixture
def scripts(open_page, scripts_page):
    return open_page(scripts_page)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"normalization": "body"},
        {"normalization": "body", "fill_joints": True, "num_persons": 1},
        {"normalization": "none", "num_frames": 20, "fill_joints": True},
        {"normalization": "ntu", "z_axis": [0, 1], "max_frames": 20},
        {"normalization": "ntu", "num_persons": 3, "torso": [0, 2], "center_joint": 0},
        {"layout": "uav17", "normalization": "body", "center_joint": 11, "torso": [5, 11], "x_axis": [5, 6]},
        {"layout": LAYOUT, "normalization": "none", "num_persons": 1},
        {"layout": "cmu31", "num_frames": 40},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:only the first 20 frames")
def test_clips_are_those_of_the_feature_extractor(scripts, fields):
    extractor, found = USDRLFeatureExtractor(**{"num_frames": 32} | fields), recordings()
    script = """
    const [items, how] = arguments;
    return items.map(item => Array.from(makeClip(convertJoints(frames(item), how), how)));
    """
    clips = scripts.run(FRAMES + script, [packed(sequence) for sequence in found.values()], preprocessing(extractor))
    for (name, sequence), clip in zip(found.items(), clips, strict=True):
        expected = extractor(sequence)["keypoints"][0]
        # Both round coordinates to float32, not in the same order; a short vector to be turned shows it most.
        assert relative_error(np.reshape(clip, expected.shape), expected) < 3e-5, name


def test_probabilities_of_frames_become_the_same_segments(scripts):
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.full(4, 0.3), size=60).repeat(3, 0)[:170]
    rows[40:44] = rows[90] = 0
    for gap in (1, 2, 4, 5):
        expected = smooth_over_shift_gap(torch.from_numpy(rows), gap)
        found = scripts.run("return smoothed(arguments[0], arguments[1])", rows.tolist(), gap)
        assert_allclose(found, expected, atol=1e-12)
    how = {"classes": list("abcd"), "has_background": True, "threshold": 0.3, "min_similarity": None}
    script = "return segmentsOf(arguments[0], arguments[1]).map(item => [item.kind, item.start, item.end, item.score])"
    found, expected = scripts.run(script, rows.tolist(), how), action_proposals(torch.from_numpy(rows), 0.3).numpy()
    assert_allclose(found, expected[np.argsort(expected[:, 1], kind="stable")], atol=1e-12)
    timeline = Timeline(list("abcd"), rows, None, None, False, "")
    found = scripts.run(script, rows.tolist(), how | {"has_background": False})
    assert_allclose(found, timeline.runs(), atol=1e-12)


def test_nearest_clips_have_the_largest_cosine(scripts):
    random = np.random.default_rng(0)
    rows, query = random.standard_normal((50, 8)).astype("f4"), random.standard_normal(8).astype("f4")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    script = "return nearestClips(Float32Array.from(arguments[0]), {rows: Float32Array.from(arguments[1])}, 5)"
    found = scripts.run(script, query.tolist(), rows.ravel().tolist())
    [scores], [order] = top_k(torch.from_numpy(query)[None], torch.from_numpy(rows), 5)
    assert [item["number"] for item in found] == order.tolist()
    assert_allclose([item["similarity"] for item in found], scores, atol=1e-6)


def test_pictures_at_irregular_times_become_frames_at_a_steady_rate(scripts):
    script = """
    const person = (track, x) => ({ track, world: [[x, 0, 1]], image: [[10 * x, 0]], visibility: [1] });
    const two = [person(0, 1), person(1, 5)];
    const seen = [[0, [person(0, 0)]], [0.1, two], [0.15, [person(1, 6)]], [2, [person(1, 7)]]];
    const frames = steady(seen.map(([time, people]) => ({ time, people })), 20);
    return frames.map(people => people.map(item => [item.track, item.world[0][0], item.image[0][0]]));
    """
    found = scripts.run(script)
    assert len(found) == 41
    assert found[0] == [[0, 0, 0]] and found[2] == [[0, 1, 10], [1, 5, 50]] and found[3] == [[1, 6, 60]]
    # Between two pictures; who is in one of them only is where he is there.
    assert_allclose(found[1], [[0, 0.5, 5], [1, 5, 50]])
    # In a gap of two seconds nobody is invented.
    assert found[7] == [[1, 6, 60]] and found[9:35] == [[]] * 26 and found[36] == [[1, 7, 70]]


def test_recorded_keypoints_are_those_of_python_and_usdrl_reads_them(scripts, tmp_path):
    pytest.importorskip("onnxruntime")
    random, poses = np.random.default_rng(0), []
    names = LAYOUTS[LAYOUT].joint_names
    base = landmarks(1).keypoints[0, 0]
    for frame in range(12):
        people = [number for number in (0, 1) if frame >= 3 * number]
        poses.append(
            [
                Pose(
                    number,
                    (base + 0.05 * random.standard_normal(base.shape)).astype(np.float64),
                    400 * (number + 1) + 300 * base[:, :2] + 5 * frame,
                    random.random(len(names)),
                    1.0,
                )
                for number in people
            ]
        )

    class Recorded(BlazePoseEstimator):
        def track(self, images, fps=None):
            return iter(poses)

    expected = Recorded().recording([], fps=25.0)
    lists = [
        [
            {name: np.asarray(getattr(pose, name)).tolist() for name in ("world", "image", "visibility", "track")}
            for pose in people
        ]
        for people in poses
    ]
    how = constants()
    script = """
    const keypoints = keypointsOf(arguments[0], arguments[1]);
    return [keypoints.persons, Array.from(keypoints.values), recordingJSON(keypoints, 25, { name: "</script>" })];
    """
    persons, values, text = scripts.run(script, lists, how)
    assert persons == 2
    assert_allclose(np.reshape(values, expected.keypoints.shape), expected.keypoints, atol=1e-6)
    (tmp_path / "saved.json").write_text(text, "utf-8")
    read = read_skeleton(tmp_path / "saved.json")
    assert (read.layout.name, read.up, read.fps, read.num_frames) == (LAYOUT, "-y", 25.0, 12)
    # What was not seen is not seen, and all else differs by what the reader adds to tell it from that.
    assert_allclose(read.keypoints, expected.keypoints, atol=1e-6)


def test_what_the_page_cannot_do_is_refused():
    def refused(**fields) -> str:
        with pytest.raises(ValueError) as caught:
            preprocessing(USDRLFeatureExtractor(**fields), "mine")
        return str(caught.value)

    assert "mine reads 2D keypoints, but the page estimates joints in 3D" in refused(layout="coco17")
    assert "mine has relink=True in preprocessor_config.json, which the page cannot do" in refused(relink=True)
    assert "choose_by='size'" in refused(choose_by="size") and "missing=" in refused(missing="interpolate")
    custom = {"name": "hands", "joint_names": ["thumb_1", "thumb_2"], "bones": [[1, 0]]}
    assert "cannot be converted to 'hands'" in refused(layout=custom, normalization="none")


# ---- whole pages, whose networks onnxruntime-web runs ----


@pytest.fixture(scope="module")
def runtime() -> Path:
    """The npm package, where .ci/run has installed it."""
    pytest.importorskip("onnxscript", reason="needs pip install 'usdrl-hub[onnx]'")
    folder = Path(__file__).parent.parent / ".runtime" / "node_modules" / RUNTIME
    if not folder.is_dir():
        pytest.skip(f"needs npm install --prefix .runtime --ignore-scripts {RUNTIME}@{RUNTIME_VERSION}")
    return folder


def saved(model, folder: Path, **fields) -> Path:
    model.save_pretrained(folder)
    USDRLFeatureExtractor.from_model_config(model.config, **fields).save_pretrained(folder)
    return folder


def small(kind, names=("nothing", HOSTILE_TEXT, "point", "bow"), **fields):
    """A random model of NTU's joints that is exported quickly."""
    sizes = {"layout": "ntu25", "num_joints": 25, "num_frames": 16, "num_persons": 1, "hidden_size": 16}
    config = USDRLConfig(**sizes | {"encoder": "sttr", "num_hidden_layers": 1} | fields)
    if names:
        config.id2label = dict(enumerate(names))
    return randomised(kind(config))


@pytest.fixture(scope="module")
def exported(runtime, tmp_path_factory) -> tuple[Path, Path]:
    """A recogniser and its page."""
    folder = tmp_path_factory.mktemp("live")
    model = saved(small(USDRLForActionRecognition), folder / f"my {HOSTILE_TEXT.split()[0].replace('/', '')}")
    write_live_page(model, folder / "page.html", runtime=runtime)
    return model, folder / "page.html"


def ready(browser):
    """The browser, when the networks of its page run."""
    browser.wait("model.ready || !$('message').hidden", 60)
    assert browser.text("#message") == ""
    return browser


@pytest.fixture
def live(open_page, exported):
    """The recogniser's page."""
    return ready(open_page(exported[1]))


def asked(browser, script: str, *arguments):
    """What an asynchronous script returns."""
    end = "().then(arguments[arguments.length - 1], error => arguments[arguments.length - 1](String(error.stack)))"
    wrapped = f"(async () => {{ {script} }}){end}"
    return browser.ask("POST", "/execute/async", {"script": wrapped, "args": list(arguments)})


def film_landmarks() -> SkeletonSequence:
    """The sample film's, by the network run by hand; where there are none, random ones."""
    if not GOLDENS.is_file():
        return landmarks(103)
    world = np.load(GOLDENS)["onnx_lite_world"][:, None, :, :3]
    return SkeletonSequence(world.astype("f4"), LAYOUT, up="-y", fps=30.0)


def check_analysis(browser, model: Path, sequence: SkeletonSequence) -> None:
    """What the page says of keypoints is what the package says."""
    found = asked(browser, FRAMES + "return analysed(frames(arguments[0]))", packed(sequence))
    [(_, timeline)] = extract_timelines([sequence], model)
    assert_allclose(found["rows"], timeline.probabilities, atol=1e-5)
    if timeline.overall is not None:
        assert_allclose(found["whole"], timeline.overall, atol=1e-5)
        assert found["isKnown"] == timeline.is_known
    expected = timeline.runs()
    expected = expected[np.argsort(expected[:, 1], kind="stable")]
    segments = [[each[name] for name in ("kind", "start", "end", "score")] for each in found["segments"]]
    assert_allclose(np.reshape(segments, (-1, 4)), expected, atol=1e-5)


def test_probabilities_are_those_of_python(live, exported):
    check_analysis(live, exported[0], film_landmarks())
    check_analysis(live, exported[0], changed(landmarks(9, 2), np.s_[3:5]))


def test_the_page_requests_nothing_and_names_are_text(live, exported):
    assert live.run("return performance.getEntriesByType('resource').map(entry => entry.name)") == []
    assert "requests nothing from any network" in live.text("#privacy")
    live.run("showNow([0.1, 0.6, 0.2, 0.1])")
    assert live.text("#top") == f"{HOSTILE_TEXT} 60 %" and live.text("#name") == exported[0].name
    assert live.run("return window.hacked === undefined") and live.complaints() == []
    refused = asked(live, "try { await fetch('https://example.org/'); return 'sent' } catch { return 'refused' }")
    assert refused == "refused" and "Content Security Policy" in " ".join(live.complaints())


def pictures(shared_data) -> list[np.ndarray]:
    av = pytest.importorskip("av")
    with av.open(str(shared_data / "ntu_rgbd_samples" / "S001C001P001R001A001_rgb.avi")) as container:
        return [frame.reformat(640, 360).to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.slow
def test_landmarks_are_those_of_python(live, shared_data):
    images = pictures(shared_data)[:24:4]
    live.run("model.estimator.reset()")
    script = """
    const raw = atob(arguments[0]), data = new Uint8ClampedArray(640 * 360 * 4);
    for (let at = 0; at < raw.length; at++) data[4 * Math.floor(at / 3) + at % 3] = raw.charCodeAt(at);
    return model.estimator.track({ width: 640, height: 360, data }, 30);
    """
    for poses, image in zip(BlazePoseEstimator(max_persons=1).track(images, 30), images, strict=True):
        [found] = asked(live, script, base64.b64encode(image.tobytes()).decode())
        [pose] = poses
        away = np.abs(found["image"] - pose.image).max(-1)
        # Heat at the threshold, or a point at the border of a cell, may fall to the other side by rounding.
        assert np.median(away) < 1e-3 and (away < 0.05).mean() > 0.9 and away.max() < 3, away
        assert_allclose(found["world"], pose.world, atol=1e-3)
        assert_allclose(found["visibility"], pose.visibility, atol=1e-3)
        assert found["track"] == pose.track


def choose(browser, path: Path) -> None:
    [element] = browser.ask("POST", "/element", {"using": "css selector", "value": "#film"}).values()
    browser.ask("POST", f"/element/{element}/value", {"text": str(path)})


@pytest.mark.slow
def test_a_second_person_is_found_while_another_is_tracked(live, shared_data):
    images = pictures(shared_data)
    narrow = [image[:, 250:390] for image in images[:25]]
    two = [np.concatenate([np.full((360, 250, 3), 200, np.uint8), image, image[:, ::-1]], 1) for image in narrow]
    for image in two[:5]:
        image[:, 390:] = 200
    live.run("model.estimator.reset(); model.estimator.persons = 2")
    script = """
    const raw = atob(arguments[0]), width = arguments[1], data = new Uint8ClampedArray(width * 360 * 4);
    for (let at = 0; at < raw.length; at++) data[4 * Math.floor(at / 3) + at % 3] = raw.charCodeAt(at);
    return (await model.estimator.track({ width, height: 360, data }, 30)).map(person => person.track);
    """
    found = [asked(live, script, base64.b64encode(image.tobytes()).decode(), image.shape[1]) for image in two]
    live.run("model.estimator.persons = 1")
    assert found[:5] == [[0]] * 5 and found[-1] == [0, 1]


@pytest.mark.slow
def test_a_film_is_watched_to_its_end_and_its_keypoints_are_saved(live, exported, shared_data, tmp_path, capsys):
    film = write_film(tmp_path / "my film <b>.webm", pictures(shared_data)[:24])
    live.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    choose(live, film)
    live.wait("recording && recording.found || !$('message').hidden", 60)
    assert live.text("#message") == "" and live.text("#when") == "Whole recording"
    frames, rate = live.run("return [recording.frames.length, recording.rate]")
    assert abs(rate - 25) < 0.5 and 22 <= frames <= 25
    assert live.run("return $('segments').querySelectorAll('tbody tr').length") > 0
    live.click("#save")
    written = tmp_path / "my_film_b_.json"
    for _ in range(500):
        if written.is_file():
            break
        time.sleep(0.02)
    code, out, err = run(capsys, "predict", written, "--model", exported[0], "--json", "--top-k", 4)
    assert code == 0, err
    [prediction] = json.loads(out)["predictions"]
    names = live.run("return how.classes")
    told = {each["label"]: each["probability"] for each in prediction["top"]}
    assert prediction["frames"] == frames
    assert_allclose([told[name] for name in names], live.run("return recording.found.whole"), atol=1e-5)
    # Another one after it.
    choose(live, write_film(tmp_path / "empty.webm", [np.full((120, 160, 3), 90, np.uint8)] * 12))
    live.wait("!$('message').hidden", 60)
    assert re.fullmatch(r"No person was found in the \d+ pictures of empty.webm.", live.text("#message"))
    assert live.run("return $('save').disabled && $('stop').disabled")
    choose(live, write_film(tmp_path / "one frame.webm", pictures(shared_data)[:1]))
    live.wait("recording && recording.found", 60)
    assert live.run("return [recording.frames.length, recording.found.segments.length]") == [1, 1]
    assert live.text("#message") == "" and live.complaints() == []


def test_what_cannot_be_watched_gets_a_sentence(live, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"this is no film" * 100)
    choose(live, tmp_path / "broken.mp4")
    live.wait("!$('message').hidden", 20)
    expected = "This browser cannot play broken.mp4: convert it to MP4 (H.264) or WebM."
    assert live.text("#message") == expected
    live.run("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
    live.click("#camera")
    live.wait("$('message').textContent.startsWith('The camera was refused: allow it')")
    live.run("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'))")
    live.click("#camera")
    live.wait("$('message').textContent.startsWith('There is no camera')")
    live.run("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    live.click("#camera")
    live.wait("$('message').textContent.startsWith('This browser gives the page no camera')")
    assert live.run("return !$('camera').disabled && !watching")


def test_wrong_input_gets_a_sentence_and_no_page(capsys, tmp_path):
    pytest.importorskip("onnxscript", reason="needs pip install 'usdrl-hub[onnx]'")

    def refused(*words) -> str:
        code, out, err = run(capsys, "export", *words)
        assert code == 2 and out == "" and err.startswith("usdrl: ") and err.count("\n") == 1
        return err

    page = ["--page", tmp_path / "page.html"]
    assert "give --output-dir for one ONNX file, or --page" in refused(RECOGNISER)
    assert "give --output-dir for one ONNX file, or --page" in refused(
        RECOGNISER, *page, "--output-dir", tmp_path / "o"
    )
    assert "--gallery has no effect without --page" in refused(
        RECOGNISER, "--output-dir", tmp_path / "o", "--gallery", 1
    )
    assert "--format has no effect without --output-dir" in refused(RECOGNISER, *page, "--format", "onnx")
    assert "a page is written as .html" in refused(RECOGNISER, "--page", tmp_path / "page.pdf")
    assert "is an encoder without classes: add --gallery" in refused(ENCODER, *page)
    assert f"'{RECOGNISER},{RECOGNISER}' is an ensemble" in refused(f"{RECOGNISER},{RECOGNISER}", *page)
    assert "a threshold has no effect on usdrl/tiny-uiprmd" in refused(RECOGNISER, *page, "--threshold", 0.5)
    assert "threshold must be between 0 and 1" in refused(RECOGNISER, *page, "--threshold", 2)
    assert "there is no ort.wasm.min.js of onnxruntime-web in it: npm install" in refused(
        RECOGNISER, *page, "--runtime", tmp_path
    )
    (tmp_path / "ort.wasm.min.js").write_text("alert(1)")
    assert f"it is not that of onnxruntime-web {RUNTIME_VERSION}" in refused(RECOGNISER, *page, "--runtime", tmp_path)
    assert "nowhere.npz" in refused(ENCODER, *page, "--gallery", tmp_path / "nowhere.npz")
    segmenter = saved(small(USDRLForActionSegmentation, segmentation_stages=1), tmp_path / "segmenter")
    assert "and a page shows recognisers, detectors, and encoders" in refused(segmenter, *page)
    several = small(USDRLForActionRecognition, problem_type="multi_label_classification")
    assert "needs classes of which one holds at a time" in refused(saved(several, tmp_path / "several"), *page)
    flat = small(USDRLForActionRecognition, layout="coco17", num_joints=17)
    assert "flat reads 2D keypoints, but the page estimates joints in 3D" in refused(
        saved(flat, tmp_path / "flat"), *page
    )
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_a_detector_finds_the_segments_that_python_finds(open_page, runtime, tmp_path):
    model = small(USDRLForActionDetection, encoder="dste", num_persons=2)
    torch.nn.init.normal_(model.classifier.weight, std=1.5)
    folder = saved(model, tmp_path / "detector")
    write_live_page(folder, tmp_path / "page.html", runtime=runtime, threshold=0.3)
    browser = ready(open_page(tmp_path / "page.html"))
    sequence = changed(landmarks(90, 2, seed=8), np.s_[60:66])
    [(_, timeline)] = extract_timelines([sequence], folder)
    assert len(timeline.segments) > 3
    check_analysis(browser, folder, sequence)
    check_analysis(browser, folder, film_landmarks())


@pytest.mark.slow
@pytest.mark.parametrize("name", [RECOGNISER, ENCODER, "with a readout"])
def test_the_nearest_clips_of_a_gallery_are_those_of_python(open_page, runtime, tmp_path, capsys, name):
    page = tmp_path / "page.html"
    if name == "with a readout":
        model = small(USDRLModel, names=(), readout_parts=[1, 2], readout_size=12)
        name = saved(model, tmp_path / "encoder", normalization="body")
    code, out, err = run(capsys, "export", name, "--page", page, "--gallery", sample_path(), "--runtime", runtime)
    assert code == 0 and "MB, 100 clips to search; runs by onnxruntime-web" in out, err
    browser, sequence = ready(open_page(page)), film_landmarks()
    found = asked(browser, FRAMES + "return analysed(frames(arguments[0]))", packed(sequence))
    expected = nearest_clips(sequence, load_samples(), name)
    clips = browser.run("return model.clips.map(clip => [clip.name, clip.label])")
    names = [clips[item["number"]] for item in found["nearest"]]
    assert names == [[each.sequence.name, each.label] for each in expected]
    assert_allclose(
        [item["similarity"] for item in found["nearest"]], [each.similarity for each in expected], atol=1e-5
    )
    if name == RECOGNISER:
        check_analysis(browser, name, sequence)
    browser.run("showNearest(arguments[0])", found["nearest"])
    assert browser.run("return document.querySelectorAll('.clip').length") == 5


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_without_a_runtime_folder_the_page_loads_what_it_says_and_checks_it(exported, runtime, tmp_path, damaged):
    """The CDN is played by this machine, under its name."""
    if find_browser() is None or shutil.which("openssl") is None:
        pytest.skip("needs chromium, chromedriver and openssl")
    write_live_page(exported[0], tmp_path / "page.html")
    host = urlsplit(RUNTIME_ADDRESS).netloc
    folder = tmp_path / "cdn" / urlsplit(RUNTIME_ADDRESS).path.strip("/")
    shutil.copytree(runtime / "dist", folder, ignore=lambda _, names: set(names) - set(RUNTIME_FILES))
    if damaged:
        with open(folder / "ort-wasm-simd-threaded.mjs", "a") as file:
            file.write(" ")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", "key.pem"]
    subprocess.run([*make, "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True)
    asked_for = []

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self):
            self.send_header("Access-Control-Allow-Origin", "*")
            super().end_headers()

        def log_message(self, *_):
            asked_for.append((self.command, self.path))

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "cdn"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rules = f"--host-resolver-rules=MAP {host}:443 127.0.0.1:{server.server_port}"
    browser = Browser(800, 600, tmp_path, rules, "--ignore-certificate-errors")
    try:
        browser.open(tmp_path / "page.html")
        browser.wait("model.ready || !$('message').hidden", 60)
        assert f"loads {RUNTIME} {RUNTIME_VERSION} from {host}, checks it" in browser.text("#privacy")
        if damaged:
            assert browser.text("#message").startswith(f"{RUNTIME} {RUNTIME_VERSION} could not be loaded from {host}:")
        else:
            assert browser.text("#message") == ""
            check_analysis(browser, exported[0], film_landmarks())
            assert sorted(asked_for) == sorted(
                ("GET", urlsplit(RUNTIME_ADDRESS).path + name) for name in RUNTIME_FILES
            )
    finally:
        browser.close()
        server.shutdown()
        server.server_close()
