import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdrl_hub import SkeletonFormatError, SkeletonSequence, USDRLFeatureExtractor
from usdrl_hub.persons import track_persons
from usdrl_hub.sequence import MOST_PERSONS

BODY = np.random.default_rng(0).normal(size=(40, 2, 25, 3)).astype(np.float32)


@given(st.sampled_from(["TMVC", "MTVC", "CTVM"]), st.integers(1, 60), st.integers(1, 4))
def test_every_axis_order_gives_the_same_sequence(axes, frames, persons):
    body = np.random.default_rng(frames).normal(size=(frames, persons, 25, 3)).astype(np.float32)
    array = body.transpose(["TMVC".index(axis) for axis in axes])
    np.testing.assert_array_equal(SkeletonSequence.from_array(array, axes=axes).keypoints, body)


@given(st.integers(1, 80), st.integers(1, 80))
def test_a_shape_is_guessed_only_if_one_order_fits(first, second):
    array = np.ones((first, second, 25, 3), np.float32)
    fits = [first <= MOST_PERSONS and (first, second) != (1, 1), second <= MOST_PERSONS]
    # Three of the first axis could also be coordinates, and the last axis three people.
    if sum(fits) == 1 and first != 3:
        sequence = SkeletonSequence.from_array(array)
        assert (sequence.num_frames, sequence.num_persons) == ((first, second) if fits[1] else (second, first))
    else:
        with pytest.raises(SkeletonFormatError):
            SkeletonSequence.from_array(array)


def test_the_release_axes_are_told_from_2d_people():
    assert SkeletonSequence.from_array(np.ones((3, 40, 25, 2))).keypoints.shape == (40, 2, 25, 3)


def test_one_person_needs_no_axis():
    assert SkeletonSequence.from_array(BODY[:, 0]).keypoints.shape == (40, 1, 25, 3)


def broken(change):
    body = BODY.copy()
    change(body)
    return body


@pytest.mark.parametrize(
    "array, message",
    [
        (broken(lambda b: b.__setitem__((3, 1, 7, 0), np.nan)), "frame 3, person 1, joint 7 is NaN"),
        (broken(lambda b: b.__setitem__((3, 1, 7, 0), np.inf)), "frame 3, person 1, joint 7 is NaN or infinite"),
        (BODY * 0, "every person is empty"),
        (BODY[:0], "no frames to read"),
        (BODY[:, :0], "no persons to read"),
        (BODY[:, :, :24], "24 joints, but layout 'ntu25' has 25"),
        (BODY[0], "four axes"),
        (np.array([object()]), "must be real numbers"),
        (BODY.astype(complex), "must be real numbers"),
        (np.array(["a"]), "must be real numbers"),
        (np.full((1, 1, 25, 3), 1e300), "NaN or infinite"),
    ],
)
def test_what_no_model_can_read_is_refused_by_name(array, message):
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        SkeletonSequence(array, name="walk_01")
    assert "walk_01" in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_axes_are_refused():
    with pytest.raises(SkeletonFormatError, match="axes must be one of"):
        SkeletonSequence.from_array(BODY, axes="VTMC")
    with pytest.raises(SkeletonFormatError, match="need 3 axes"):
        SkeletonSequence.from_array(BODY, axes="TVC")
    with pytest.raises(SkeletonFormatError, match="rows of different length"):
        SkeletonSequence.from_array([[1.0], [1.0, 2.0]])


@given(st.integers(1, 300), st.integers(2, 70))
def test_windows_cover_every_frame_and_end_at_the_last(frames, size):
    body = np.arange(1, frames + 1, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 25, 3), np.float32)
    windows = list(SkeletonSequence(body).windows(size, max(size // 2, 1)))
    covered = np.zeros(frames, int)
    for start, window in windows:
        assert window.num_frames == min(size, frames)
        np.testing.assert_array_equal(window.keypoints, body[start : start + size])
        covered[start : start + size] += 1
    assert covered.min() >= 1 and windows[-1][0] + windows[-1][1].num_frames == frames


def test_windows_without_anybody_are_left_out():
    body = np.zeros((100, 1, 25, 3), np.float32)
    body[:10] = 1
    assert [start for start, _ in SkeletonSequence(body).windows(20, 20)] == [0]


def test_layout_conversion_notes_the_new_up_axis():
    sequence = SkeletonSequence(np.ones((2, 1, 39, 3), np.float32), layout="ui-prmd39")
    converted = sequence.to_layout("ntu25")
    assert converted.keypoints.shape == (2, 1, 25, 3) and converted.up == "y"
    assert converted.to_layout("ntu25") is converted


def test_people_who_swap_places_are_linked_again():
    rng = np.random.default_rng(0)
    paths = np.cumsum(rng.normal(0, 0.02, (60, 3, 25, 3)), axis=0) + np.array([0, 2, 5])[:, None, None]
    shuffled = paths.copy()
    for frame in range(1, 60):
        shuffled[frame] = paths[frame][rng.permutation(3)]
    # A person who goes for a while comes back to the same place.
    gone = np.linalg.norm(shuffled[20:30] - paths[20:30][:, 1:2], axis=(2, 3)).argmin(1)
    shuffled[np.arange(20, 30), gone] = 0
    linked = track_persons(SkeletonSequence(shuffled)).keypoints
    expected = paths.astype(np.float32)
    expected[20:30, 1] = 0
    np.testing.assert_array_equal(linked, expected)
    untouched = SkeletonSequence(expected)
    np.testing.assert_array_equal(track_persons(untouched).keypoints, expected)


def test_a_person_who_comes_late_takes_a_free_place():
    keypoints = np.zeros((4, 2, 25, 3))
    keypoints[:, 0] = 1.0
    keypoints[2:, 0], keypoints[2:, 1] = 5.0, 1.0
    linked = track_persons(SkeletonSequence(keypoints)).keypoints
    assert (linked[:, 0] == 1).all() and (linked[:2, 1] == 0).all() and (linked[2:, 1] == 5).all()


@pytest.mark.parametrize("by, kept", [("confidence", [2, 0]), ("size", [1, 0]), ("frames", [3, 0]), ("order", [0, 1])])
def test_people_are_chosen_by_what_is_asked(by, kept):
    rng = np.random.default_rng(0)
    keypoints = np.zeros((20, 4, 17, 3))
    keypoints[..., :2] = 100 + rng.normal(size=(20, 4, 17, 2)) * np.array([20, 50, 4, 5])[:, None, None]
    keypoints[..., 2] = np.array([0.5, 0.3, 0.9, 0.4])[:, None]
    keypoints[[[15, 16, 17]], 0], keypoints[5:, 1], keypoints[10:, 2] = 0, 0, 0
    sequence = SkeletonSequence(keypoints, "coco17")
    extractor = USDRLFeatureExtractor("coco17", choose_by=by, normalization="none")
    np.testing.assert_array_equal(extractor.prepare(sequence).keypoints, sequence.keypoints[:, kept])
    assert extractor(sequence).keypoints.shape == (1, 64, 2, 17, 3)


def test_confidence_needs_a_score():
    with pytest.raises(SkeletonFormatError, match="no score to choose people by"):
        USDRLFeatureExtractor(choose_by="confidence").prepare(SkeletonSequence(np.ones((3, 3, 25, 3))))


@pytest.mark.parametrize(
    "events, message", [([[0, 5, 5]], "is not in its 9 frames"), ([[0, 9, 12]], "is not in"), ([[0.5, 1, 2]], "whole")]
)
def test_events_outside_the_recording_are_refused(events, message):
    with pytest.raises(SkeletonFormatError, match=message):
        SkeletonSequence(np.ones((9, 1, 25, 3)), events=events)
