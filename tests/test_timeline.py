import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from usdrl_hub import (
    Engine,
    Reading,
    SkeletonSequence,
    USDRLEnsemble,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    iter_timelines,
)
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.inference.timeline import Timeline, make_timeline, segment_rows, write_segments
from usdrl_hub.inference.windows import frame_probabilities
from usdrl_hub.postprocessing import action_proposals, smooth_over_shift_gap, suppress
from usdrl_hub.visualize.charts import lanes
from usdrl_hub.visualize.panel import CLASS_COLORS
from usdrl_hub.visualize.recording import draw_timelines

from .helpers import run, tiny_model

TINY = "usdrl/tiny-uiprmd"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a random model of every kind that speaks of time, and a recording for them."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {
        "detector": (USDRLForActionDetection, {}),
        "segmenter": (USDRLForActionSegmentation, {"segmentation_stages": 2, "segmentation_layers": 3}),
        "early": (USDRLForEarlyActionPrediction, {"is_causal": True}),
        "recogniser": (USDRLForActionRecognition, {}),
    }
    for name, (kind, fields) in kinds.items():
        torch.manual_seed(0)
        model, extractor = tiny_model(kind, **fields)
        with torch.no_grad():
            getattr(model, "classifier", torch.nn.Linear(1, 1)).weight.mul_(200)
        model.save_pretrained(folder / name)
        extractor.save_pretrained(folder / name)
    np.save(folder / "long.npy", np.random.default_rng(0).standard_normal((150, 1, 5, 3)))
    return folder


def made(probabilities, **fields) -> Timeline:
    names = [f"c{number}" for number in range(np.shape(probabilities)[1])]
    whole = {"segments": None, "overall": None, "has_background": False, "description": ""} | fields
    return Timeline(names, np.asarray(probabilities, np.float32), **whole)


def test_runs_of_the_likeliest_class_break_where_nobody_is_seen():
    values = [[0.6, 0.4], [0.8, 0.2], [0.1, 0.9], [0, 0], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]]
    runs = made(values).runs()
    np.testing.assert_allclose(runs, [[0, 0, 2, 0.7], [1, 2, 3, 0.9], [1, 4, 6, 0.75], [0, 6, 7, 0.9]], atol=1e-6)
    assert made(np.zeros((4, 2))).runs().shape == (0, 4)


def test_rows_tell_frames_and_seconds_where_the_rate_is_known():
    timeline = made([[0.9, 0.1]] * 3 + [[0.25, 0.75]] * 6)
    sequence = SkeletonSequence(np.ones((9, 1, 25, 3)), fps=30.0)
    first, second = segment_rows(sequence, timeline)
    assert second == {
        "label": "c1",
        "start": 3,
        "end": 9,
        "start_seconds": 0.1,
        "end_seconds": 0.3,
        "probability": pytest.approx(0.75),
    }
    for fps in (None, 0.0):
        assert segment_rows(replace(sequence, fps=fps), timeline)[0]["end_seconds"] is None


def test_proposals_of_a_class_never_overlap_so_none_has_to_be_merged():
    for threshold in (0.05, 0.2, 0.3):
        probabilities = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(6) / 2, 400))
        found = action_proposals(probabilities, threshold).numpy()
        assert len(found) > 100 and suppress(found, 1e-9).all()


@pytest.mark.parametrize("fields, gap", [({}, 4), ({"shift_gap": 3}, 3), ({"encoder": "sttr"}, 1)])
def test_what_a_detector_says_is_averaged_over_the_gap_of_its_encoder(fields, gap):
    model, extractor = tiny_model(USDRLForActionDetection, **fields)
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    sequence = SkeletonSequence(np.random.default_rng(0).standard_normal((150, 1, 5, 3)), extractor.layout)
    [(_, plain)] = frame_probabilities(Engine(model, extractor), [extractor.prepare(sequence)])
    timeline = make_timeline(Engine(model, extractor), sequence)
    np.testing.assert_allclose(timeline.probabilities, smooth_over_shift_gap(torch.from_numpy(plain), gap), atol=1e-6)
    assert np.allclose(timeline.probabilities, plain) == (gap == 1)


def test_overlapping_segments_are_drawn_below_each_other():
    rows = lanes([("a", "", 0, 9), ("b", "", 3, 5), ("c", "", 5, 8), ("d", "", 9, 12)])
    assert [[segment[0] for segment in lane] for lane in rows] == [["a", "d"], ["b", "c"]]
    assert lanes([]) == [[]]


@pytest.mark.parametrize("kind", ["detector", "segmenter", "early", "recogniser", "recogniser,recogniser"])
def test_every_model_of_classes_gives_segments(capsys, saved, tmp_path, kind):
    names = ",".join(str(saved / part) for part in kind.split(","))
    command = ["predict", saved / "long.npy", "--timeline", "--model", names, "--fps", 25, "--json"]
    outputs = [tmp_path / f"out.{ending}" for ending in ("json", "csv", "png")]
    for output in outputs:
        code, out, err = run(capsys, *command, "--output", output)
        assert code == 0 and err == "", err
    [recording] = json.loads(out)["recordings"]
    assert (recording["name"], recording["frames"], recording["fps"]) == ("long", 150, 25)
    segments = recording["segments"]
    finds = kind in ("detector", "segmenter")
    assert recording["found"] == finds and len(segments) > 0
    if not finds:  # Every frame is in one.
        assert segments[0]["start"] == 0 and segments[-1]["end"] == 150
        for one, other in zip(segments, segments[1:], strict=False):
            assert one["end"] == other["start"] and one["label"] != other["label"]
    for segment in segments:
        assert 0 <= segment["start"] < segment["end"] <= 150 and 0 < segment["probability"] <= 1
        assert segment["start_seconds"] == pytest.approx(segment["start"] / 25)
        assert not finds or segment["label"] != "nothing"
    assert json.loads(outputs[0].read_text()) == json.loads(out)
    with open(outputs[1], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("name") for row in rows] == ["long"] * len(segments)
    assert [{key: str(value) for key, value in row.items()} for row in segments] == rows
    picture = np.asarray(Image.open(outputs[2]).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100 and 200 < len(picture) < 500
    assert sorted(tmp_path.iterdir()) == sorted(outputs)


def test_the_table_names_class_frames_and_seconds(capsys, saved, tmp_path):
    short = np.load(saved / "long.npy")[:30]
    np.save(tmp_path / "short.npy", short)
    files = [saved / "long.npy", tmp_path / "short.npy"]
    code, out, _ = run(capsys, "predict", *files, "--timeline", "--model", saved / "recogniser")
    lines = out.splitlines()
    assert code == 0 and "these are the runs of frames with the same most probable class" in lines[1]
    assert lines[4].split() == ["file", "class", "start", "end", "from", "to", "probability"]
    assert lines[6].split()[0] == "long" and lines[-1].split()[0] == "short" and " s " not in out
    options = ["--timeline", "--model", saved / "detector", "--fps", 10]
    code, out, _ = run(capsys, "predict", files[1], *options)
    assert code == 0 and "most probable class" not in out and re.search(r"\d\.\d\d s  +\d\.\d\d s  ", out)
    code, out, _ = run(capsys, "predict", files[1], *options, "--threshold", 0.999999)
    assert code == 0 and out.splitlines()[-1].split() == ["short", "(nothing)"]


def test_timelines_of_data_sets_keep_their_names_and_rates():
    found = list(iter_timelines(load_samples()[:3], TINY, reading=Reading(fps=5)))
    assert [sequence.name for sequence, _ in found] == [sequence.name for sequence in load_samples()[:3]]
    assert found[0][0].fps == pytest.approx(100 / 3)
    assert segment_rows(*found[0])[0]["label"] == "deep squat"
    ensemble = USDRLEnsemble.from_pretrained([TINY, TINY])
    fused = next(iter_timelines(load_samples()[:1], ensemble))[1]
    np.testing.assert_allclose(fused.probabilities, found[0][1].probabilities, atol=1e-5)


def test_everybody_gets_a_timeline_of_their_own(capsys, saved, tmp_path):
    pair = np.load(saved / "long.npy")[:40].repeat(2, 1)
    np.save(tmp_path / "pair.npy", pair)
    options = ["--timeline", "--per-person", "--json", "--model", saved / "recogniser"]
    answer = json.loads(run(capsys, "predict", tmp_path / "pair.npy", *options)[1])
    assert [row["name"] for row in answer["recordings"]] == ["pair#0", "pair#1"]


def test_a_file_that_cannot_be_read_costs_no_other(capsys, saved, tmp_path):
    np.save(tmp_path / "bad.npy", np.full((4, 5, 3), np.nan))
    files = [tmp_path / "bad.npy", saved / "long.npy"]
    options = ["--timeline", "--model", saved / "recogniser", "--output", tmp_path / "out.csv"]
    code, out, err = run(capsys, "predict", *files, *options)
    assert code == 2 and "bad.npy" in err and out.endswith(f"written: {tmp_path / 'out.csv'}\n")
    (tmp_path / "out.csv").unlink()
    code, _, err = run(capsys, "predict", files[0], *options)
    assert code == 2 and "bad.npy" in err and err.count("\n") == 1 and not (tmp_path / "out.csv").exists()
    np.save(tmp_path / "worse.npy", np.full((4, 5, 3), np.nan))
    code, _, err = run(capsys, "predict", files[0], tmp_path / "worse.npy", *options)
    assert code == 2 and "is not written" in err and not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--output", "{folder}/out.csv"], "--output has no effect without --timeline"),
        (["--timeline", "--output", "{folder}/out.html"], "segments are written as .csv, .json, .png"),
        (["--timeline", "--threshold", "1.5"], "threshold must be a similarity from 0 to 1"),
        (["--timeline", "--fps", "0"], "frames per second must be between"),
        (["--timeline", "--output", "{file}/out.csv"], "it would lie among the recordings"),
    ],
)
def test_what_cannot_be_told_over_time_is_refused_with_one_sentence(capsys, tmp_path, options, message):
    places = {"folder": tmp_path, "file": sample_path()}
    code, out, err = run(capsys, "predict", sample_path(), *(option.format(**places) for option in options))
    assert code == 2 and message in err and err.startswith("usdrl: ") and err.count("\n") == 1 and not out
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="written as .csv or .json"):
        write_segments([], tmp_path / "out.txt")
    with pytest.raises(ValueError, match="a picture shows 1 to 30 recordings, not 31"):
        draw_timelines([(load_samples()[0], made(np.ones((4, 2))))] * 31, tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_cells_of_a_table_are_no_formulas(tmp_path):
    """faults.md 28: cells `=cmd|...`, `@SUM(1)`, `+1` in CSV, and names with ESC and newlines."""
    names = ["=cmd|' /C calc'!A0", "@SUM(1)", " +1", "-1", "\x1b[2Ja\nb", "squat"]
    values = np.full((12, 6), 0.02, dtype=np.float32)
    values[np.arange(12), np.repeat(np.arange(6), 2)] = 0.9
    sequence = SkeletonSequence(np.random.rand(12, 1, 25, 3), "ntu25", name="=1+1")
    write_segments([(sequence, Timeline(names, values, None, None, False, ""))], tmp_path / "out.csv")
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[1] for row in rows] == [
        "'=cmd|' /C calc'!A0", "'@SUM(1)", "' +1", "'-1", "\\x1b[2Ja\\nb", "squat",
    ]  # fmt: skip
    assert {row[0] for row in rows} == {"'=1+1"} and [float(row[-1]) for row in rows] == pytest.approx([0.9] * 6)


def test_a_class_has_one_colour_in_the_plots_of_several_recordings(tmp_path):
    """The class that leads in the first recording comes second in the other, where its line has the same colour."""
    clip = load_samples()[0]
    clip = replace(clip, keypoints=clip.keypoints[:40])
    one, other = [0.8, 0.2, 0.0], [0.2, 0.0, 0.8]
    timelines = [made([values] * 40, overall=np.array(values)) for values in (one, other)]
    draw_timelines([(clip, timeline) for timeline in timelines], tmp_path / "out.png")
    picture = np.asarray(Image.open(tmp_path / "out.png").convert("RGB"))
    colors = [tuple(bytes.fromhex(color[1:])) for color in CLASS_COLORS[:3]]
    for rows, leader in zip(np.array_split(picture, 2), (0, 2), strict=True):
        # The line of a class lies high in its plot if the class is probable, and the bar below has its pale colour.
        heights = [np.nonzero((rows == color).all(-1))[0] for color in colors]
        assert min(range(3), key=lambda kind: np.median(heights[kind])) == leader


def test_the_title_of_a_recording_that_is_like_no_class_names_none(tmp_path, monkeypatch):
    clip = load_samples()[0]
    shown = []
    monkeypatch.setattr(
        "usdrl_hub.visualize.recording.draw_probability_plots", lambda pictures, _: shown.extend(pictures)
    )
    values = np.tile([0.9, 0.1], (clip.num_frames, 1))
    for known in (True, False):
        draw_timelines([(clip, made(values, overall=values[0], is_known=known))], tmp_path / "out.png")
    assert [picture.title for picture in shown] == ["m01_s02_e05: c0 (90 %)", "m01_s02_e05: none of these"]
