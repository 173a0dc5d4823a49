import numpy as np
import pytest
import torch

from usdrl_hub import (
    Engine,
    SkeletonFormatError,
    SkeletonSequence,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLModel,
    USDRLStream,
    extract_embeddings,
    iter_predictions,
)
from usdrl_hub.inference.causal import causal_predictions
from usdrl_hub.speedups import IS_PLAIN

from .conftest import relative_error

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_persons": 2, "layout": "ntu25", "num_labels": 4}


def motion(frames: int, seed: int = 0, persons: int = 1) -> np.ndarray:
    """Bodies that sway, ``(T, M, V, C)``."""
    rng = np.random.default_rng(seed)
    body, phase = rng.normal(size=(persons, 25, 3)), rng.uniform(0, 6, (persons, 25, 3))
    time = np.arange(frames)[:, None, None, None]
    return (body + 0.3 * np.sin(0.2 * time + phase) + 0.01 * rng.normal(size=(frames, 1, 1, 1))).astype(np.float32)


def built(kind, seed=0, **fields):
    torch.manual_seed(seed)
    model = kind(USDRLConfig(**{**SMALL, **fields})).eval()
    for parameter in model.parameters():
        # Released weights are larger than fresh ones; small ones would hide mistakes.
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


# -- windows


@pytest.mark.parametrize("window, stride", [(64, 1), (40, 7), (100, 10)])
def test_a_result_is_that_of_its_window_by_itself(window, stride):
    model, recording = built(USDRLForActionRecognition), motion(110, persons=2)
    stream = USDRLStream(model, window=window, stride=stride, min_frames=5)
    results = [result for frame in recording if (result := stream.push(frame))]
    assert [result.frame for result in results] == list(range(4, 110, stride))
    for result in results[:: max(len(results) // 6, 1)]:
        alone = SkeletonSequence(recording[result.start : result.frame + 1])
        assert alone.num_frames == min(window, result.frame + 1)
        assert relative_error(result.embedding, extract_embeddings([alone], model)[0]) < 1e-5
        [prediction] = iter_predictions([alone], model)
        assert relative_error(result.probabilities, prediction.probabilities) < 1e-5
        assert result.top(2)[0][0] == prediction.top(1)[0][0]


def test_what_ships_streams_recordings_of_another_layout():
    stream = USDRLStream(layout="kinect20", units="mm", stride=16)
    recording = 1000 * motion(64)[:, 0, :20]
    last = [stream.push(frame) for frame in recording][-1]
    expected = SkeletonSequence(recording[:, None], "kinect20", units="mm")
    [prediction] = iter_predictions([expected])
    assert relative_error(last.probabilities, prediction.probabilities) < 1e-5 and len(last.top(3)) == 3


@pytest.mark.parametrize("kind", [USDRLForActionDetection, USDRLForActionSegmentation])
@pytest.mark.parametrize("delay", [0, 9])
def test_heads_of_frames_score_the_newest_or_one_before(kind, delay):
    model, recording = built(kind, num_persons=1), motion(70)
    stream = USDRLStream(model, delay=delay, min_frames=64)
    last = [stream.push(frame) for frame in recording][-1]
    clip = stream.extractor(recording[6:], return_tensors="pt")["keypoints"]
    with torch.no_grad():
        if kind is USDRLForActionDetection:
            logits = model(clip).logits
        else:
            logits = model(clip[:, None], window_starts=torch.zeros(1, 1, dtype=torch.long)).logits
    assert relative_error(last.probabilities, logits[0, 63 - delay].softmax(-1)) < 1e-5
    assert (last.frame, last.start) == (69 - delay, 6)


def test_an_encoder_gives_embeddings_only():
    stream = USDRLStream(built(USDRLModel), stride=64)
    result = [stream.push(frame) for frame in motion(64)][15]
    assert result.embedding.shape == (64,) and result.probabilities is None and result.top(3) == []


def test_many_people_come_and_go_and_each_is_as_if_alone():
    model = built(USDRLForActionRecognition, num_persons=1)
    people = {name: motion(60, seed) for seed, name in enumerate("abc")}
    begin = {"a": 0, "b": 7, "c": 20}
    stream = USDRLStream(model, window=30, stride=4, min_frames=10)
    found = {name: [] for name in people}
    for time in range(80):
        frames = {
            name: clip[time - begin[name]] for name, clip in people.items() if 0 <= time - begin[name] < len(clip)
        }
        for name, result in stream.push_many(frames).items():
            found[name].append(result)
    for name, clip in people.items():
        alone = USDRLStream(model, window=30, stride=4, min_frames=10)
        expected = [result for frame in clip if (result := alone.push(frame))]
        assert [result.frame for result in found[name]] == [result.frame for result in expected]
        for mine, theirs in zip(found[name], expected, strict=True):
            assert relative_error(mine.embedding, theirs.embedding) < 1e-5


def test_who_stays_away_is_forgotten_and_begins_anew():
    stream = USDRLStream(built(USDRLModel), patience=3, min_frames=1)
    frame = motion(1)[0]
    stream.push_many({"a": frame, "b": frame})
    for _ in range(3):
        stream.push_many({"b": frame})
    assert stream.people == ["a", "b"]
    assert stream.push_many({"a": frame})["a"].frame == 1
    for _ in range(4):
        stream.push_many({"b": frame})
    assert stream.people == ["b"] and stream.push_many({"a": frame})["a"].frame == 0
    stream.reset("a")
    assert stream.people == ["b"]
    stream.reset()
    assert stream.people == [] and stream.push_many({}) == {}
    # Who came by `push` is forgotten alone.
    stream.push(frame)
    for _ in range(4):
        stream.push_many({"b": frame})
    assert stream.people == ["b"]


def test_nobody_is_nobody_until_somebody_comes():
    model = built(USDRLForActionRecognition)
    stream = USDRLStream(model, min_frames=1)
    assert stream.push(None) is None and stream.push(np.zeros((2, 25, 3))) is None and not stream.people
    assert stream.push(motion(1)[0]).frame == 0
    # Somebody who is not seen for a while: as in a recording with a gap.
    frames = [motion(1)[0], None, None, motion(1, 3)[0]]
    gap = USDRLStream(model, min_frames=4)
    result = [gap.push(frame) for frame in frames][-1]
    recording = np.stack([np.zeros_like(frames[0]) if frame is None else frame for frame in frames])
    assert relative_error(result.embedding, extract_embeddings([SkeletonSequence(recording)], model)[0]) < 1e-5


# -- causal models


@pytest.mark.parametrize("encoder", ["dste", "sttr"])
@pytest.mark.parametrize("modality", ["joint", "joint+motion+bone"])
def test_a_causal_stream_equals_the_recording_across_restarts(encoder, modality):
    model = built(
        USDRLForEarlyActionPrediction, is_causal=True, encoder=encoder, modality=modality, num_attention_heads=2
    )
    extractor = USDRLFeatureExtractor.from_model_config(model.config, max_frames=None)
    recording = motion(140, persons=2)
    stream = USDRLStream(Engine(model, extractor))
    scores = np.stack([stream.push(frame).probabilities for frame in recording])
    [(_, logits)] = causal_predictions(Engine(model, extractor), [SkeletonSequence(recording)])
    assert relative_error(scores, torch.from_numpy(logits).softmax(-1)) < 1e-5


def test_causal_people_who_begin_at_different_times_do_not_disturb_each_other():
    model = built(USDRLForEarlyActionPrediction, is_causal=True, num_persons=1)
    clips = {name: motion(90, seed) for seed, name in enumerate("abcd")}
    stream, found = USDRLStream(model, patience=5), {name: [] for name in clips}
    for time in range(90 + 3 * 13):
        # Who has left makes room for somebody else's states.
        frames = {
            name: clip[time - 13 * number]
            for number, (name, clip) in enumerate(clips.items())
            if 0 <= time - 13 * number < 90
        }
        for name, result in stream.push_many(frames).items():
            found[name].append(result.probabilities)
    for name, clip in clips.items():
        alone = USDRLStream(model)
        expected = np.stack([alone.push(frame).probabilities for frame in clip])
        assert relative_error(np.stack(found[name]), expected) < 1e-5


def test_what_comes_later_changes_no_causal_result_also_with_bodies_of_any_size():
    model = built(USDRLForEarlyActionPrediction, is_causal=True)
    extractor = USDRLFeatureExtractor.from_model_config(model.config, normalization="body", max_frames=None)
    recording = motion(30)
    streams = [USDRLStream(Engine(model, extractor), stride=5, min_frames=10) for _ in range(2)]
    short = [streams[0].push(frame) for frame in recording[:20]]
    long = [streams[1].push(scale * frame) for scale, frame in zip([1] * 20 + [9] * 10, recording, strict=True)]
    assert [result.frame for result in long if result] == [9, 14, 19, 24, 29]
    assert np.array_equal(short[19].probabilities, long[19].probabilities)
    # From the ninth frame on, the body is as large as the first eight frames say.
    fixed = extractor.normalized_further([SkeletonSequence(recording)], 8)[0]
    doubled = np.concatenate([recording[:8], 2 * recording[8:]])
    assert relative_error(extractor.normalized_further([SkeletonSequence(doubled)], 8)[0], 2 * fixed) < 1e-5


# -- wrong input


def test_a_wrong_frame_is_refused_and_leaves_everybody_where_they_were():
    stream = USDRLStream(built(USDRLModel), min_frames=1)
    frame = motion(1)[0]
    for wrong, message in [
        (np.zeros((20, 3)), "expected .25, 3. joints and coordinates of layout 'ntu25'"),
        (np.full((25, 3), np.nan), "NaN or infinity"),
        # It was refused with each window that held it, for everybody.
        (np.full((25, 3), 3.4e38), "frame of 'b': a coordinate is 3.4e.38, beyond 1e.07"),
        ("frame", "sequence|number|frame"),
    ]:
        with pytest.raises(SkeletonFormatError, match=message):
            stream.push_many({"a": frame, "b": wrong})
    assert stream.people == [] and stream.push_many({"a": frame})["a"].frame == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"window": 0}, "window must be a whole number"),
        ({"stride": 1.5}, "stride must be a whole number"),
        ({"min_frames": 99}, "a window has 64 frames"),
        ({"delay": 3}, "for detectors and segmenters"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"units": "inch"}, "units must be one of"),
        ({"layout": "kinect"}, "unknown layout"),
        ({"model": "nowhere/at-all"}, "nowhere/at-all"),
    ],
)
def test_what_cannot_be_is_refused(options, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=message):
        USDRLStream(**options)


def test_causal_models_stream_in_their_own_window_and_unfused():
    if IS_PLAIN:
        pytest.skip("there is nothing fused without acceleration/")
    from usdrl_hub import fuse

    model = built(USDRLForEarlyActionPrediction, is_causal=True)
    with pytest.raises(ValueError, match="goes through clips of 64 frames"):
        USDRLStream(model, window=32)
    with pytest.raises(ValueError, match="streams as it is"):
        USDRLStream(fuse(model))
