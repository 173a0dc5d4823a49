import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForTokenClassification

from usdrl_hub import (
    Engine,
    SkeletonSequence,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLModel,
)
from usdrl_hub.data.augmentation import ClipAugmentation
from usdrl_hub.facts.benchmarks import BENCHMARKS, RELEASE_THRESHOLD
from usdrl_hub.inference.causal import causal_predictions
from usdrl_hub.inference.timeline import make_timeline
from usdrl_hub.inference.windows import frame_probabilities, segment
from usdrl_hub.metrics.detection import THETAS, detection_metrics, point_metrics
from usdrl_hub.metrics.segmentation import edit_score, segmentation_metrics
from usdrl_hub.postprocessing import (
    action_points,
    action_proposals,
    detect,
    segments_of,
    smooth_over_shift_gap,
    suppress,
)
from usdrl_hub.tasks.detection import FrameLabelDataset, dilate_events, true_actions
from usdrl_hub.tasks.early_prediction import (
    LeftAlignedDataset,
    causal_accuracy,
    cut_and_resize_accuracy,
    observed_frames,
    truncate_to_ratio,
)
from usdrl_hub.tasks.segmentation import WholeVideoDataset
from usdrl_hub.visualize.pictures import draw_segments

from .conftest import relative_error
from .helpers import clips, tiny_config

# -- detection metrics


def test_metrics_are_the_official_ones(golden):
    file = golden("detection_map")
    metrics = detection_metrics(
        file["proposals_video_label_start_end_score"], file["ground_truth_video_label_start_end"], 51, 60
    )
    assert len(metrics) == 16
    for name, value in metrics.items():
        assert abs(value - file[name]) < 1e-9, name


def slow_metrics(proposals, truth, num_classes, num_videos, theta):
    """The definition, proposal by proposal."""

    def overlap(p, g):
        return (min(p[3], g[3]) - max(p[2], g[2])) / (max(p[3], g[3]) - min(p[2], g[2]))

    def matches(found, actions):
        result = []
        for p in found:
            best = None
            for number, g in enumerate(actions):
                alike = p[0] == g[0] and p[1] == g[1] and overlap(p, g) >= theta
                if alike and (best is None or overlap(p, g) >= overlap(p, actions[best])):
                    best = number
            result.append(best)
        return result

    def rates(matched, left, total):
        right = len({m for m in matched if m is not None})
        return (right / left, right / total) if left and total else (0.0, 0.0)

    def average(found, actions):
        found = sorted(found, key=lambda p: p[4])
        matched = matches(found, actions)
        best, last = rates(matched, len(found), len(actions))
        total = 0.0
        for number in range(len(found)):
            if matched[number] is not None:
                p, r = rates(matched[number + 1 :], len(found) - number - 1, len(actions))
                best = max(best, p)
                total += best * (last - r)
                last = r
        return total

    p, r = rates(matches(proposals, truth), len(proposals), len(truth))

    def grouped(column, groups):
        values = [
            average([row for row in proposals if row[column] == g], [row for row in truth if row[column] == g])
            for g in groups
        ]
        return float(np.mean(values)) if values else 0.0

    return {
        f"F1@{theta}": 2 * p * r / (p + r) if p + r else 0.0,
        f"AP@{theta}": average(proposals, truth),
        f"mAP_action@{theta}": grouped(1, range(1, num_classes + 1)),
        f"mAP_video@{theta}": grouped(0, range(num_videos)),
    }


ROW = st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 12), st.integers(1, 9))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ROW, st.integers(0, 4)), max_size=14), st.lists(ROW, max_size=8), st.sampled_from(THETAS))
def test_metrics_follow_the_definition_with_ties_and_empty_sets(found, actions, theta):
    # Few different places and scores, so that overlaps and scores are often equal.
    proposals = [(v, c, s, s + n, score / 4) for (v, c, s, n), score in found]
    truth = [(v, c, s, s + n) for v, c, s, n in actions]
    expected = slow_metrics(proposals, truth, 3, 3, theta)
    actual = detection_metrics(np.array(proposals), np.array(truth), 3, 3, [theta])
    assert actual == pytest.approx(expected, abs=1e-12)


def test_one_class_one_video_and_nothing_at_all():
    one = np.array([[0, 1, 0, 10, 0.9]])
    assert set(detection_metrics(one, one[:, :4], 1, 1, [0.5]).values()) == {1.0}
    assert set(detection_metrics(one, np.zeros((0, 4)), 1, 1, [0.5]).values()) == {0.0}
    assert set(detection_metrics(np.zeros((0, 5)), np.zeros((0, 4)), 1).values()) == {0.0}


def test_all_of_pku_mmd_is_scored(shared_data):
    import io
    import zipfile

    truth = []
    with zipfile.ZipFile(shared_data / "pku_mmd_labels" / "V1_Label.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".txt"))
        for video, name in enumerate(names):
            rows = [line.split(b",")[:3] for line in io.BytesIO(archive.read(name)) if line.strip()]
            truth += [(video, int(a), min(int(b), int(c)), max(int(b), int(c))) for a, b, c in rows]
    assert len(names) == 1076 and len(truth) == 21545
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(truth), 50 * 1076)
    proposals = np.c_[
        np.array(truth)[chosen] + rng.integers(-30, 30, (len(chosen), 4)) * [0, 0, 1, 1], rng.random(len(chosen))
    ]
    proposals[:, 3] = np.maximum(proposals[:, 3], proposals[:, 2] + 1)
    metrics = detection_metrics(proposals, truth, 51, 1076)
    assert 0.1 < metrics["AP@0.5"] < 1


# -- proposals


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 10**6), st.sampled_from([0.02, 0.3, 0.9]))
def test_proposals_are_the_longest_runs(frames, classes, seed, threshold):
    probabilities = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), frames).astype(np.float32)
    expected = []
    for kind in range(1, classes):
        start = None
        for frame in range(frames + 1):
            likely = frame < frames and probabilities[frame, kind] > np.float32(threshold)
            if likely and start is None:
                start = frame
            elif not likely and start is not None:
                expected.append((kind, start, frame, probabilities[start:frame, kind].astype(np.float64).mean()))
                start = None
    found = action_proposals(torch.from_numpy(probabilities), threshold).numpy()
    assert found.shape == (len(expected), 4)
    np.testing.assert_allclose(found, np.array(expected).reshape(-1, 4), rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**16))
def test_frames_are_averaged_over_one_period_of_the_shift_gap(frames, gap, seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), frames)
    probabilities[rng.random(frames) < 0.2] = 0
    actual = smooth_over_shift_gap(torch.from_numpy(probabilities), gap).numpy()
    for frame in range(frames):
        # Both ends of an even period count half.
        near = [other for other in range(frames) if abs(other - frame) <= gap / 2 and probabilities[other].any()]
        weights = np.array([0.5 if abs(other - frame) == gap / 2 else 1.0 for other in near])
        seen = probabilities[frame].any()
        expected = weights @ probabilities[near] / weights.sum() if seen else np.zeros(3)
        np.testing.assert_allclose(actual[frame], expected, atol=1e-12)


def test_what_every_fourth_frame_says_otherwise_breaks_no_segment():
    """Frames 0, 4, 8 ... of dense shift are of another kind than the rest."""
    probabilities = torch.tensor([[0.4, 0.6]]).repeat(24, 1)
    probabilities[::4] = torch.tensor([0.9, 0.1])
    assert len(action_proposals(probabilities, 0.3)) == 6
    smooth = smooth_over_shift_gap(probabilities, 4)
    torch.testing.assert_close(smooth[2:-2], torch.tensor([[0.525, 0.475]]).repeat(20, 1))
    assert action_proposals(smooth, 0.3)[:, 1:3].tolist() == [[0, 24]]
    output = type("Output", (), {"logits": probabilities[None].log()})
    [found] = USDRLFeatureExtractor().post_process_action_detection(output, 0.3, shift_gap=4)
    assert found["segments"].tolist() == [[0, 24]]
    with pytest.raises(ValueError, match="shift_gap must be at least 1, got 0"):
        smooth_over_shift_gap(probabilities, 0)


@pytest.mark.parametrize("encoder", ["dste", "sttr"])
def test_a_detector_says_the_same_everywhere(encoder):
    """faults.md 17: 33 segments by post_process_action_detection, 12 by the timeline, of the same 64 frames."""
    torch.manual_seed(0)
    config = tiny_config(encoder=encoder, num_frames=64, num_joints=25, layout="ntu25", num_labels=3)
    model = USDRLForActionDetection(config).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(300)
    extractor = USDRLFeatureExtractor.from_model_config(config, normalization="none")
    clip = SkeletonSequence(np.random.default_rng(0).normal(size=(64, 1, 25, 3)).astype(np.float32), "ntu25")
    with torch.no_grad():
        output = model(extractor(clip, return_tensors="pt").keypoints)
    [found] = extractor.post_process_action_detection(output)
    timeline = make_timeline(Engine(model, extractor), clip)
    expected = sorted((int(kind), int(start), int(end)) for kind, start, end, _ in timeline.segments)
    segments = found["segments"].tolist()
    assert (
        sorted((kind, *segment) for kind, segment in zip(found["labels"].tolist(), segments, strict=True)) == expected
    )
    assert len(expected) > 1
    # The release's, as evaluate scores it, is another by choice.
    [released] = extractor.post_process_action_detection(output, RELEASE_THRESHOLD, shift_gap=1)
    [(_, values)] = frame_probabilities(Engine(model, extractor), [clip])
    proposals = detect([values], RELEASE_THRESHOLD)
    assert len(released["labels"]) == len(proposals)
    assert {benchmark.recipe["threshold"] for benchmark in BENCHMARKS.values() if benchmark.task == "detection"} == {
        RELEASE_THRESHOLD
    }
    if encoder == "dste":
        assert len(proposals) != len(expected)
    assert list(output.keys()) == ["logits"]
    with pytest.raises(ValueError, match="these outputs do not say which frames .*: give shift_gap"):
        extractor.post_process_action_detection(type("Output", (), {"logits": output.logits}))


def test_suppression_keeps_the_likeliest_of_each_class():
    proposals = np.array([[1, 0, 10, 0.5], [1, 1, 10, 0.9], [2, 0, 10, 0.4], [1, 20, 30, 0.1], [1, 8, 22, 0.3]])
    assert suppress(proposals, 0.5).tolist() == [False, True, True, True, True]
    assert suppress(proposals, 1.0).all() and suppress(proposals[:0], 0.5).tolist() == []
    probabilities = np.full((30, 2), 0.5)
    assert len(detect([probabilities, probabilities], 0.02)) == 2 and len(detect([], 0.02)) == 0


def test_the_extractor_names_actions_in_transformers_style():
    logits = torch.full((2, 8, 3), -5.0)
    logits[0, 2:5, 1], logits[0, 6:, 2], logits[..., 0] = 9.0, 6.0, 0.0
    output = type("Output", (), {"logits": logits})
    first, second = USDRLFeatureExtractor().post_process_action_detection(output, threshold=0.5, shift_gap=1)
    assert first["labels"].tolist() == [1, 2] and first["segments"].tolist() == [[2, 5], [6, 8]]
    assert first["scores"][0] > first["scores"][1] and len(second["labels"]) == 0
    stretched = USDRLFeatureExtractor().post_process_action_detection(output, 0.5, target_lengths=[16, 8], shift_gap=1)
    assert sorted(stretched[0]["segments"].tolist()) == [[4, 10], [12, 16]]
    with pytest.raises(ValueError, match="2 clips, but 1 target_lengths"):
        USDRLFeatureExtractor().post_process_action_detection(output, target_lengths=[3], shift_gap=1)


# -- frames of untrimmed recordings

EXTRACTOR = USDRLFeatureExtractor("ntu25", "body", num_persons=1, num_frames=16, max_frames=None)
CONFIG = {"hidden_size": 16, "num_persons": 1, "num_joints": 25, "num_frames": 16, "layout": "ntu25", "num_labels": 3}


def recording(frames, events, seed=0):
    keypoints = np.random.default_rng(seed).normal(size=(frames, 1, 25, 3))
    return SkeletonSequence(keypoints, name=f"r{seed}", events=events)


def test_windows_have_the_labels_of_their_frames():
    data = FrameLabelDataset([recording(40, [[0, 5, 20], [1, 30, 40]])], EXTRACTOR, stride=8)
    assert len(data) == 4 and data[0]["keypoints"].shape == (16, 1, 25, 3)
    truth = np.zeros(40, int)
    truth[5:20], truth[30:40] = 1, 2
    for window, start in enumerate((0, 8, 16, 24)):
        assert data.labels[window].tolist() == truth[start : start + 16].tolist()
    short = FrameLabelDataset([recording(4, [[1, 2, 4]])], EXTRACTOR)
    assert short.labels.tolist() == [[0] * 8 + [2] * 8]
    with pytest.raises(ValueError, match="is not annotated"):
        FrameLabelDataset([recording(4, None)], EXTRACTOR)


def test_probabilities_are_averaged_over_windows():
    model = USDRLForActionDetection(tiny_config(**CONFIG)).eval()
    sequence = recording(40, [])
    ((_, found),) = frame_probabilities(Engine(model, EXTRACTOR), [sequence], stride=8)
    with torch.no_grad():
        windows = [sequence.keypoints[start : start + 16] for start in (0, 8, 16, 24)]
        each = [
            model(EXTRACTOR([SkeletonSequence(w)], return_tensors="pt")["keypoints"]).logits[0].softmax(-1)
            for w in windows
        ]
    expected, count = np.zeros((40, 3)), np.zeros((40, 1))
    for start, values in zip((0, 8, 16, 24), each, strict=True):
        expected[start : start + 16] += values.numpy()
        count[start : start + 16] += 1
    assert relative_error(found, expected / count) < 1e-5
    assert true_actions([recording(40, [[0, 5, 20]]), recording(9, [])]).tolist() == [[0, 1, 5, 20]]


def test_segments_are_drawn(tmp_path):
    bands = {"True": np.array([[0, 5, 20]]), "Proposed": np.array([[0, 4, 21.0], [1, 10, 40.0]])}
    draw_segments(recording(50, []), bands, ["a", "b"], "x", tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    draw_segments(recording(50, []), {"True": np.zeros((0, 3))}, ["a"], "none", tmp_path / "u.png")


# -- segmentation


def test_segmentation_metrics_by_hand():
    truth = np.array([0, 0, 1, 1, 1, 1, 0, 2, 2, 2, 2, 2, 0, 3])
    predicted = np.array([0, 1, 1, 1, 1, 0, 0, 2, 2, 0, 1, 1, 0, 3])
    assert segments_of(predicted).tolist() == [[1, 1, 5], [2, 7, 9], [1, 10, 12], [3, 13, 14]]
    metrics = segmentation_metrics([predicted], [truth])
    # Segments 1 2 1 3 against 1 2 3: one too many. Overlaps: 3/5, 2/5, none, 1.
    assert metrics == pytest.approx(
        {"frame_accuracy": 9 / 14, "edit": 3 / 4, "F1@10": 6 / 7, "F1@25": 6 / 7, "F1@50": 4 / 7}
    )


def test_segmentation_metrics_of_edges():
    nothing, one = np.zeros(5, int), np.ones(5, int)
    assert segmentation_metrics([nothing], [nothing]) == {
        "frame_accuracy": 1,
        "edit": 1,
        "F1@10": 0,
        "F1@25": 0,
        "F1@50": 0,
    }
    assert segmentation_metrics([nothing], [one])["edit"] == 0
    assert segmentation_metrics([one], [one])["F1@50"] == 1
    # Two pieces of one true segment: only one counts.
    split = np.array([1, 1, 0, 1, 1])
    assert segmentation_metrics([split], [one])["F1@25"] == pytest.approx(2 / 3)
    both = segmentation_metrics([one, nothing], [one, one])
    assert both["edit"] == 0.5 and both["frame_accuracy"] == 0.5
    with pytest.raises(ValueError, match="same videos and frames"):
        segmentation_metrics([one], [one[:3]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=8), st.lists(st.integers(1, 4), max_size=8))
def test_the_edit_score_is_that_of_levenshtein(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1))
    table[:, 0], table[0] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = min(table[i, j] + (a != b), table[i, j + 1] + 1, table[i + 1, j] + 1)
    expected = 1 - table[-1, -1] / max(len(first), len(second), 1)
    assert edit_score(np.array(first), np.array(second)) == pytest.approx(expected)


def test_whole_videos_are_segmented_whatever_the_batch():
    torch.manual_seed(0)
    model = USDRLForActionSegmentation(tiny_config(**CONFIG, segmentation_layers=3, segmentation_channels=8)).eval()
    videos = [recording(40, [[0, 5, 20]]), recording(23, [[1, 2, 9]], 1), recording(7, [], 2)]
    data = WholeVideoDataset(videos, EXTRACTOR)
    assert [len(item["labels"]) for item in data.items] == [40, 23, 16]
    batch = data.collate([data[number] for number in range(3)])
    with torch.no_grad():
        together = model(**batch)
        for number, video in enumerate(videos):
            alone = model(**{key: value[None] for key, value in data[number].items()})
            length = alone.logits.shape[1]
            torch.testing.assert_close(together.logits[number, :length], alone.logits[0], rtol=1e-4, atol=1e-5)
            assert segment(Engine(model, EXTRACTOR), [video])[0].shape == (video.num_frames,)
    assert together.logits.shape == (3, 40, 3) and together.loss > 0
    model.train()
    model(**batch).loss.backward()
    assert all(parameter.grad is not None for parameter in model.stages.parameters())


def test_frames_in_which_nobody_is_seen_have_a_class_too():
    keypoints = np.random.default_rng(0).normal(size=(64, 1, 25, 3))
    keypoints[10:50] = 0
    video = SkeletonSequence(keypoints, events=[[0, 2, 9]])
    model = USDRLForActionSegmentation(tiny_config(**CONFIG)).eval()
    assert segment(Engine(model, EXTRACTOR), [video])[0].shape == (64,)
    assert len(WholeVideoDataset([video], EXTRACTOR)[0]["window_starts"]) == 7


# -- early prediction


@pytest.mark.parametrize("encoder", ["dste", "sttr"])
@pytest.mark.parametrize("modality", ["joint", "motion", "bone", "joint+motion+bone"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_comes_later_changes_nothing_bit_for_bit(encoder, modality, attention):
    torch.manual_seed(0)
    config = tiny_config(is_causal=True, encoder=encoder, modality=modality, attn_implementation=attention)
    model = USDRLForEarlyActionPrediction(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    keypoints = clips(config)
    with torch.no_grad():
        before, encoded = model(keypoints).logits, model.usdrl(keypoints).last_hidden_state
        for frame in range(12):
            changed = keypoints.clone()
            changed[:, frame:] = torch.randn_like(changed[:, frame:])
            assert torch.equal(model(changed).logits[:, :frame], before[:, :frame])
            # The running maximum may hide the change of a frame, but the encoder sees it (motion has none at first).
            assert frame == 0 or not torch.equal(model.usdrl(changed).last_hidden_state[:, frame], encoded[:, frame])


def test_a_causal_model_has_the_temporal_stream_only(tmp_path):
    config = tiny_config(is_causal=True)
    model = USDRLModel(config)
    output = model(clips(config), output_hidden_states=True)
    assert not any("spatial" in name for name, _ in model.named_parameters())
    assert output.last_hidden_state.shape == (3, 12, 16) and output.pooler_output.shape == (3, 16)
    assert output.spatial_hidden_state is None and len(output.hidden_states) == 3
    with pytest.raises(ValueError, match="no spatial stream to pretrain"):
        USDRLForPreTraining(config)
    with pytest.raises(ValueError, match="needs a causal encoder"):
        USDRLForEarlyActionPrediction(tiny_config())


def test_a_pretrained_encoder_becomes_causal(tmp_path):
    torch.manual_seed(0)
    USDRLModel(tiny_config()).save_pretrained(tmp_path)
    model = USDRLForEarlyActionPrediction.from_pretrained(tmp_path, is_causal=True)
    expected = USDRLModel.from_pretrained(tmp_path).temporal.state_dict()
    for name, tensor in model.usdrl.temporal.state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_long_recordings_go_on_in_further_clips():
    torch.manual_seed(0)
    model = USDRLForEarlyActionPrediction(tiny_config(**CONFIG, is_causal=True)).eval()
    videos = [recording(60, None), recording(9, None, 1), recording(16, None, 2)]
    found = [logits for _, logits in causal_predictions(Engine(model, EXTRACTOR), videos)]
    assert [len(logits) for logits in found] == [60, 9, 16]
    for video, together in zip(videos, found, strict=True):
        ((_, alone),) = causal_predictions(Engine(model, EXTRACTOR), [video])
        np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        first = EXTRACTOR.normalized(videos[:1]).frames
        encoded = [model.usdrl(first[None, start : start + 16]).temporal_hidden_state for start in (0, 1)]
        # The second clip begins one frame later and sees the others again; its last frame is new.
        highest = torch.cat([encoded[0].cummax(1).values, torch.cat(encoded, 1).amax(1, keepdim=True)], 1)
        expected = model.classifier(highest)
    np.testing.assert_allclose(found[0][:17], expected[0], rtol=1e-4, atol=1e-5)


def test_observation_ratios_are_counted_as_the_release_counts_them():
    assert [observed_frames(100, ratio) for ratio in (0.1, 0.55, 1.0)] == [10, 55, 100]
    assert observed_frames(20, 0.1) == 3 and observed_frames(2, 0.1) == 2
    keypoints = np.ones((30, 1, 25, 3))
    keypoints[:5] = 0
    assert (
        truncate_to_ratio(SkeletonSequence(keypoints), 0.1) is None
        and truncate_to_ratio(SkeletonSequence(keypoints), 0.5).num_frames == 15
    )


def test_early_accuracies_are_of_every_ratio():
    from usdrl_hub import USDRLForActionRecognition

    sequences = [SkeletonSequence(recording(20 + n, None, n).keypoints, label=n % 3) for n in range(6)]
    recogniser = USDRLForActionRecognition(tiny_config(**CONFIG)).eval()
    scores = cut_and_resize_accuracy(recogniser, EXTRACTOR, sequences, [0.5, 1.0])
    with torch.no_grad():
        whole = recogniser(EXTRACTOR(sequences, return_tensors="pt")["keypoints"]).logits.argmax(-1).tolist()
    assert scores["accuracy@100"] == pytest.approx(
        np.mean([a == s.label for a, s in zip(whole, sequences, strict=True)])
    )
    assert scores["mean_accuracy"] == pytest.approx((scores["accuracy@50"] + scores["accuracy@100"]) / 2)
    causal = USDRLForEarlyActionPrediction(tiny_config(**CONFIG, is_causal=True)).eval()
    assert set(causal_accuracy(causal, EXTRACTOR, sequences)) == {f"accuracy@{r}" for r in range(10, 101, 10)} | {
        "mean_accuracy"
    }


def test_left_aligned_clips_end_where_the_recording_ends():
    sequences = [SkeletonSequence(recording(frames, None, frames).keypoints, label=1) for frames in (9, 40)]
    data = LeftAlignedDataset(sequences, EXTRACTOR, ClipAugmentation(shortest_crop=1))
    short, long = data.__getitems__([0, 1])
    assert short["labels"].tolist() == [1] * 9 + [-100] * 7 and long["labels"].tolist() == [1] * 16
    still = LeftAlignedDataset(sequences, EXTRACTOR)[0]["keypoints"]
    assert torch.equal(still[8:], still[8:9].expand(8, -1, -1, -1))
    assert (
        LeftAlignedDataset(sequences, EXTRACTOR, random_start=True)[0]["labels"].tolist() == short["labels"].tolist()
    )


# -- heads of a class per frame


@pytest.mark.parametrize("kind", [USDRLForActionDetection, USDRLForActionSegmentation, USDRLForEarlyActionPrediction])
def test_the_architecture_selects_the_head(tmp_path, kind):
    kind(tiny_config(is_causal=kind is USDRLForEarlyActionPrediction)).save_pretrained(tmp_path)
    assert type(AutoModelForTokenClassification.from_pretrained(tmp_path)) is kind


# -- moments


def test_moments_are_matched_once_and_near_enough():
    truth = [(0, 1, 100), (0, 1, 130), (0, 2, 100), (1, 1, 100)]
    found = [(0, 1, 105, 0.9), (0, 1, 97, 0.8), (0, 2, 111, 0.9), (1, 2, 100, 0.9), (1, 1, 110, 0.2)]
    metrics = point_metrics(np.array(found), np.array(truth), 2)
    # Of the two moments near frame 100 one counts; 11 frames off is too far.
    assert metrics["point_F1"] == pytest.approx(2 * 2 / (5 + 4))
    assert metrics["point_F1_mean"] == pytest.approx((2 * 2 / (3 + 3) + 0 / 3) / 2)
    assert point_metrics(np.zeros((0, 4)), np.array(truth), 2) == {"point_F1": 0, "point_F1_mean": 0}
    assert point_metrics(np.array(found), np.zeros((0, 3)), 2) == {"point_F1": 0, "point_F1_mean": 0}


def test_moments_come_from_likely_segments_that_lie_apart():
    proposals = np.array(
        [[0, 1, 10, 21, 0.9], [0, 1, 24, 27, 0.5], [0, 1, 60, 71, 0.4], [0, 2, 10, 13, 0.1], [1, 1, 10, 21, 0.8]]
    )
    assert action_points(proposals)[:, :3].tolist() == [[0, 1, 15], [1, 1, 15], [0, 1, 65]]
    assert action_points(proposals[:0]).shape == (0, 4)
    wide = dilate_events(recording(40, [[0, 3, 4], [1, 38, 39]]), 10)
    assert wide.events.tolist() == [[0, 0, 14], [1, 28, 40]]
