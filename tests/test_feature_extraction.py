import json
import warnings

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from usdrl_hub import (
    SkeletonFormatError,
    SkeletonSequence,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLModel,
    get_layout,
    read_skeleton,
)
from usdrl_hub.data.samples import load_samples
from usdrl_hub.errors import USDRLWarning
from usdrl_hub.sequence import implausible

from .conftest import relative_error
from .helpers import formed, raw_sequences

TOLERANCE = 1e-5


def test_raw_arrays_become_the_clips_of_the_release(golden):
    file = golden("feeder_ntu25")
    sequences = raw_sequences(golden)
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
    assert uav.to_dict()["x_axis"] is None and USDRLFeatureExtractor(layout="uav17").normalization == "uav"
    assert USDRLFeatureExtractor(layout="coco17-release").normalization == "release-2d"
    assert USDRLFeatureExtractor(layout="coco17").normalization == "image"
    assert USDRLFeatureExtractor(center_joint=0, x_axis=(12, 16)).x_axis == [12, 16]


def test_every_choice_is_saved(tmp_path):
    extractor = USDRLFeatureExtractor(num_frames=32, num_persons=1, max_frames=None, source_layout="kinect20")
    extractor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored == {
        "body_size": None,
        "center_joint": 1,
        "choose_by": "energy",
        "feature_extractor_type": "USDRLFeatureExtractor",
        "layout": "ntu25",
        "max_frames": None,
        "missing": "refuse",
        "normalization": "ntu",
        "num_channels": 3,
        "num_frames": 32,
        "num_persons": 1,
        "relink": False,
        "fill_joints": False,
        "source_layout": "kinect20",
        "torso": None,
        "torso_length": 0.5,
        "upright": False,
        "use_score": True,
        "x_axis": [4, 8],
        "z_axis": None,
    }
    keypoints = np.random.randn(50, 20, 3)
    for loader in (USDRLFeatureExtractor, AutoFeatureExtractor):
        loaded = loader.from_pretrained(tmp_path)
        np.testing.assert_array_equal(loaded(keypoints).keypoints, extractor(keypoints).keypoints)


@pytest.mark.parametrize("loader", [USDRLFeatureExtractor, AutoFeatureExtractor])
def test_overrides_of_a_saved_one_are_checked_and_all_taken(tmp_path, loader):
    """A misspelt one, and one that an older file does not hold, were left out without a word."""
    made = USDRLFeatureExtractor(num_persons=1)
    made.save_pretrained(tmp_path)
    for wrong, message in (({"num_frame": 1}, "no argument 'num_frame'"), ({"num_frames": 0}, "at least 1")):
        with pytest.raises(ValueError, match=message):
            loader.from_pretrained(tmp_path, **wrong)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    del saved["relink"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    assert loader.from_pretrained(tmp_path, relink=True, num_frames=32).to_dict() == made.to_dict() | {
        "relink": True,
        "num_frames": 32,
    }
    # Another layout's or normalization's centre and axes, not those of the one that is replaced.
    for changes in ({"layout": "kinect20"}, {"normalization": "none"}, {"normalization": "body"}):
        expected = USDRLFeatureExtractor(**{"num_persons": 1, "normalization": "ntu"} | changes)
        assert loader.from_pretrained(tmp_path, **changes).to_dict() == expected.to_dict()
    _, unused = USDRLFeatureExtractor.from_pretrained(tmp_path, foo=1, return_unused_kwargs=True)
    assert unused["foo"] == 1


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


@pytest.mark.parametrize("padding", ["confidence", "zero"])
def test_2d_clips_and_tokens_are_those_of_the_release(golden, padding):
    file = golden("feeder_coco17")
    array = np.concatenate([file["keypoint_MTV2"], file["keypoint_score_MTV"][..., None]], axis=-1)
    shape = tuple(float(size) for size in file["img_shape"])
    sequence = SkeletonSequence.from_array(array, "coco17-release", "MTVC", image_shape=shape)
    extractor = USDRLFeatureExtractor("coco17-release", use_score=padding == "confidence")
    clip = extractor(sequence, return_tensors="pt").keypoints
    assert relative_error(clip[0], file[f"{padding}_crop"].transpose(1, 3, 2, 0)) < TOLERANCE
    for modality, letter in (("joint", "j"), ("bone", "b"), ("motion", "m")):
        config = USDRLConfig(num_joints=17, layout="coco17-release", modality=modality, hidden_size=16)
        temporal, spatial = formed(USDRLModel(config), clip)
        assert relative_error(temporal[0], file[f"{padding}_{letter}t"]) < TOLERANCE
        assert relative_error(spatial[0], file[f"{padding}_{letter}s"]) < TOLERANCE


def test_image_normalization_divides_by_width_and_height():
    pixels = np.random.default_rng(0).uniform(1, 100, (64, 1, 17, 2)).astype(np.float32)
    sequence = SkeletonSequence(pixels, "coco17", image_shape=(200, 400))
    clip = USDRLFeatureExtractor("coco17", num_persons=1)(sequence).keypoints[0]
    np.testing.assert_allclose(clip[..., 0], pixels[..., 0] / 400, rtol=1e-6)
    np.testing.assert_allclose(clip[..., 1], pixels[..., 1] / 200, rtol=1e-6)
    assert not clip[..., 2].any()
    with pytest.raises(SkeletonFormatError, match="image_shape"):
        USDRLFeatureExtractor("coco17")(SkeletonSequence(pixels, "coco17"))
    with pytest.raises(SkeletonFormatError, match="the keypoints are 3D"):
        USDRLFeatureExtractor("coco17")(SkeletonSequence(np.ones((3, 1, 17, 3)), "uav17"))


@pytest.mark.parametrize("units, scale", [("mm", 1000), ("cm", 100), ("m", 1)])
@pytest.mark.parametrize("up, turn", [("y", [0, 1, 2]), ("z", [0, 2, 1]), ("-y", [0, 1, 2]), ("-z", [0, 2, 1])])
@pytest.mark.parametrize("mirrored", [False, True])
def test_units_axes_and_handedness_are_converted(units, scale, up, turn, mirrored):
    upright = np.random.default_rng(0).normal(size=(30, 1, 25, 3)).astype(np.float32)
    signs = {"y": [1, 1, 1], "z": [1, -1, 1], "-y": [1, -1, -1], "-z": [1, 1, -1]}[up]
    recorded = upright[..., turn] * np.array(signs, np.float32) * scale
    if mirrored:
        recorded[..., 0] *= -1
    sequence = SkeletonSequence(recorded, units=units, up=up, mirrored=mirrored).to_layout("ntu25")
    np.testing.assert_allclose(sequence.keypoints, upright, rtol=1e-5, atol=1e-6)
    assert (sequence.units, sequence.up, sequence.mirrored) in [("m", "y", False), ("m", None, False)]
    assert sequence.to_layout("ntu25") is sequence


def standing_body() -> np.ndarray:
    """A person of ntu25 who stands, right shoulder at +x, toes at -z, in metres."""
    body = np.random.default_rng(0).normal(0, 0.02, (25, 3)).astype(np.float32)
    names = get_layout("ntu25").joint_names
    places = {"spine_base": (0, 0.9, 0), "spine_mid": (0, 1.1, 0), "neck": (0, 1.4, 0), "head": (0, 1.6, 0)}
    for side, x in (("left", -1), ("right", 1)):
        places |= {f"{side}_shoulder": (0.2 * x, 1.35, 0), f"{side}_ankle": (0.1 * x, 0.1, 0)}
        places[f"{side}_foot"] = (0.1 * x, 0.03, -0.15)
    for name, place in places.items():
        body[names.index(name)] = place
    return np.repeat(body[None, None], 20, axis=0)


def test_an_implausible_body_is_reported_once(tmp_path):
    """By the reader of a file, or else by the extractor."""
    extractor = USDRLFeatureExtractor.from_pretrained("usdrl/tiny-uiprmd")
    recording = load_samples()[0].to_layout("ntu25")
    mirrored = recording.keypoints * np.float32([-1, 1, 1])
    np.save(tmp_path / "a.npy", mirrored)
    with pytest.warns(USDRLWarning, match="a.npy: toes point backwards"):
        read = read_skeleton(tmp_path / "a.npy", layout="ntu25")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor(read)
    with pytest.warns(USDRLWarning, match="toes of a body point backwards"):
        extractor([read, SkeletonSequence(mirrored, "ntu25")])


def test_an_implausible_body_is_doubted_with_the_way_to_mend_it():
    body = standing_body()
    assert implausible(body[None, :, 0], "ntu25") is None
    assert "units='mm'" in implausible(1000 * body[None, :, 0], "ntu25")
    assert "units='cm'" in implausible(100 * body[None, :, 0], "ntu25")
    assert "mirrored=True" in implausible(body[None, :, 0] * [-1, 1, 1], "ntu25")
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0].astype(np.float32)
    for matrix in (rotation, -rotation):
        doubt = implausible((body @ matrix)[None, :, 0], "ntu25")
        assert (doubt is None) == (np.linalg.det(matrix) > 0)


def test_missing_joints_are_interpolated_when_asked():
    whole = np.linspace(1, 2, 11)[:, None, None, None] * np.ones((1, 2, 25, 3))
    array = whole.copy()
    array[3:6, 0, 7] = np.nan
    # A joint of which one coordinate is unknown is not at zero there: it was not seen.
    array[0, 0, 3, 1] = np.nan
    array[8:, 0, 4] = 0
    array[5, 0] = 0
    array[:4, 1] = 0
    array[:, 1, 9] = np.nan
    extractor = USDRLFeatureExtractor(missing="interpolate", normalization="none", num_frames=11)
    with pytest.raises(SkeletonFormatError, match="NaN"):
        USDRLFeatureExtractor()(array, axes="TMVC")
    clip = extractor(array, axes="TMVC").keypoints[0]
    np.testing.assert_allclose(clip[:, 0, 7], whole[:, 0, 7], rtol=1e-6)
    np.testing.assert_allclose(clip[5, 0], whole[5, 0], rtol=1e-6)
    np.testing.assert_allclose(clip[0, 0, 3], whole[1, 0, 3], rtol=1e-6)
    np.testing.assert_allclose(clip[8:, 0, 4], np.broadcast_to(whole[7, 0, 4], (3, 3)), rtol=1e-6)
    assert not clip[:4, 1].any() and not clip[:, 1, 9].any() and clip[4:, 1, 8].all()


def test_normalization_none_only_resizes():
    keypoints = np.random.randn(64, 1, 25, 3).astype(np.float32)
    keypoints[50:] = 0
    clip = USDRLFeatureExtractor(normalization="none", num_persons=1)(keypoints).keypoints
    np.testing.assert_array_equal(clip[0], keypoints)


@pytest.mark.parametrize(
    "keypoints, options, message",
    [
        (np.ones((5, 25, 2)), {}, "keypoints are 2D .2d., but the model reads 3D"),
        (np.ones((5, 24, 3)), {}, "is not a skeleton of layout 'ntu25'"),
        (np.ones((0, 1, 25, 3)), {}, "no frames to read"),
        (np.ones((5, 25, 4)), {}, "leave out the last number of each joint, if it is a confidence"),
        (np.ones((5, 25, 4)), {"axes": "TVC"}, "3 numbers per joint, not 4: leave out the last number of each joint"),
        (np.ones((5, 2, 25, 3)), {}, "can be read as TMVC or MTVC: say which"),
        (np.ones((5, 17, 3)), {"source_layout": "coco17"}, "keypoints are 2D"),
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
        ({"num_frames": 0}, "num_frames must be a whole number"),
        ({"num_frames": 2.5}, "num_frames must be a whole number"),
        ({"x_axis": [1]}, "x_axis must be two joints"),
        ({"normalisation": "none"}, "no argument 'normalisation'"),
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


def test_clips_are_float32_whatever_the_default():
    extractor, before = USDRLFeatureExtractor(), torch.get_default_dtype()
    try:
        for dtype in (torch.bfloat16, torch.float64):
            torch.set_default_dtype(dtype)
            assert extractor(np.random.rand(9, 25, 3), return_tensors="pt")["keypoints"].dtype == torch.float32
    finally:
        torch.set_default_dtype(before)
