import json

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from usdrl_hub import SkeletonFormatError, SkeletonSequence, USDRLConfig, USDRLFeatureExtractor

from .conftest import relative_error
from .test_normalization import raw

TOLERANCE = 1e-5


def test_raw_arrays_become_the_clips_of_the_release(golden):
    file = golden("feeder_ntu25")
    sequences = raw(golden)
    extractor = USDRLFeatureExtractor()
    together = extractor(sequences, axes="TMVC").keypoints
    for number, sequence in enumerate(sequences):
        alone = extractor(sequence, axes="TMVC", return_tensors="pt").keypoints
        assert alone.dtype == torch.float32 and alone.shape == (1, 64, 2, 25, 3)
        for clip in (alone[0], together[number]):
            assert relative_error(clip, file[f"s{number}_r1.0_crop"].transpose(1, 3, 2, 0)) < TOLERANCE


def test_the_preset_follows_the_layout():
    uav = USDRLFeatureExtractor(layout="uav17", normalization="ntu")
    assert (uav.center_joint, uav.x_axis, uav.z_axis) == (1, None, [11, 5])
    assert USDRLFeatureExtractor(layout="coco17-release").normalization == "none"
    assert USDRLFeatureExtractor(center_joint=0, x_axis=(12, 16)).x_axis == [12, 16]


def test_every_choice_is_saved(tmp_path):
    extractor = USDRLFeatureExtractor(num_frames=32, num_persons=1, max_frames=None, source_layout="kinect20")
    extractor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored == {
        "center_joint": 1,
        "feature_extractor_type": "USDRLFeatureExtractor",
        "layout": "ntu25",
        "max_frames": None,
        "normalization": "ntu",
        "num_channels": 3,
        "num_frames": 32,
        "num_persons": 1,
        "source_layout": "kinect20",
        "x_axis": [4, 8],
        "z_axis": None,
    }
    keypoints = np.random.randn(50, 20, 3)
    for loader in (USDRLFeatureExtractor, AutoFeatureExtractor):
        loaded = loader.from_pretrained(tmp_path)
        np.testing.assert_array_equal(loaded(keypoints).keypoints, extractor(keypoints).keypoints)


def test_ragged_lists_tensors_and_batches_are_taken():
    extractor = USDRLFeatureExtractor()
    one, two = np.random.randn(20, 25, 3), np.random.randn(70, 2, 25, 3)
    ragged = extractor([one, torch.from_numpy(two), SkeletonSequence(two), two.tolist()]).keypoints
    assert ragged.shape == (4, 64, 2, 25, 3)
    np.testing.assert_array_equal(ragged[1], ragged[2])
    np.testing.assert_array_equal(ragged[1], ragged[3])
    assert not ragged[0, :, 1].any() and ragged[1, :, 1].any()
    batch = np.stack([two, 2 * two])
    np.testing.assert_array_equal(extractor(batch).keypoints, extractor(list(batch)).keypoints)
    np.testing.assert_array_equal(extractor(torch.from_numpy(batch)).keypoints, extractor(batch).keypoints)
    moved = batch.transpose(0, 4, 1, 3, 2)
    np.testing.assert_array_equal(extractor(moved, axes="CTVM").keypoints, extractor(batch).keypoints)


@pytest.mark.parametrize("frames", [1, 2, 63, 64, 65, 10_000])
def test_any_length_becomes_a_clip(frames):
    clip = USDRLFeatureExtractor(max_frames=None)(np.random.randn(frames, 2, 25, 3), axes="TMVC").keypoints
    assert clip.shape == (1, 64, 2, 25, 3) and np.isfinite(clip).all()


def test_only_the_first_frames_are_read_unless_told_otherwise():
    keypoints = np.random.randn(400, 25, 3)
    changed = keypoints.copy()
    changed[300:] += 1
    extractor = USDRLFeatureExtractor()
    np.testing.assert_array_equal(extractor(keypoints).keypoints, extractor(changed).keypoints)
    extractor.max_frames = None
    assert not np.array_equal(extractor(keypoints).keypoints, extractor(changed).keypoints)


def test_other_layouts_are_converted_and_turned_upright():
    keypoints = np.random.default_rng(0).normal(size=(30, 39, 3)).astype(np.float32)
    extractor = USDRLFeatureExtractor(num_persons=1)
    by_argument = extractor(keypoints, source_layout="ui-prmd39").keypoints
    sequence = SkeletonSequence.from_array(keypoints, "ui-prmd39")
    np.testing.assert_array_equal(extractor(sequence).keypoints, by_argument)
    np.testing.assert_array_equal(extractor(sequence.to_layout("ntu25")).keypoints, by_argument)


def test_normalization_none_only_resizes():
    keypoints = np.random.randn(64, 1, 25, 3).astype(np.float32)
    keypoints[50:] = 0
    clip = USDRLFeatureExtractor(normalization="none", num_persons=1)(keypoints).keypoints
    np.testing.assert_array_equal(clip[0], keypoints)


@pytest.mark.parametrize(
    "keypoints, options, message",
    [
        (np.ones((5, 25, 2)), {}, "keypoints are 2D, but the model reads 3"),
        (np.ones((5, 24, 3)), {}, "is not a skeleton of layout 'ntu25'"),
        (np.ones((5, 2, 25, 3)), {}, "can be read as TMVC or MTVC: say which"),
        (np.ones((5, 17, 3)), {"source_layout": "coco17"}, "2d\\+score keypoints"),
        (np.ones((5, 25, 3)), {"source_layout": "nothing"}, "unknown layout"),
        (np.zeros((5, 25, 3)), {}, "every person is empty"),
        (np.full((5, 25, 3), np.nan), {}, "NaN"),
        (np.ones((0, 25, 3)), {}, "no frames"),
        ([], {}, "no sequences"),
        ("walk.skeleton", {}, "read files with read_skeleton"),
        (7, {}, "expected skeleton sequences"),
        ([np.ones((5, 25, 3)), np.zeros((5, 25, 3))], {}, "sequence 1: every person"),
    ],
)
def test_what_the_model_cannot_read_is_refused(keypoints, options, message):
    with pytest.raises(ValueError, match=message):
        USDRLFeatureExtractor()(keypoints, **options)


def test_2d_is_told_apart_by_the_layout():
    with pytest.raises(SkeletonFormatError, match="2D"):
        USDRLFeatureExtractor()(SkeletonSequence(np.ones((5, 1, 25, 2)), layout="ntu25"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"normalization": "z-score"}, "unknown normalization"),
        ({"normalization": "ntu", "layout": "coco17"}, "needs a centre joint"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"center_joint": 25}, "must be joints 0 to 24"),
        ({"num_channels": 2}, "needs 3 coordinates"),
    ],
)
def test_impossible_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        USDRLFeatureExtractor(**options)


def test_it_follows_from_a_model():
    config = USDRLConfig(num_frames=32, num_persons=1, hidden_size=16)
    extractor = USDRLFeatureExtractor.from_model_config(config, max_frames=None)
    assert (extractor.num_frames, extractor.num_persons, extractor.max_frames) == (32, 1, None)
    with pytest.raises(ValueError, match="has no layout"):
        USDRLFeatureExtractor.from_model_config(USDRLConfig(num_joints=4, hidden_size=16))
