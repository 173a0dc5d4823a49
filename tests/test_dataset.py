import numpy as np
import pytest
import torch

from usdrl_hub import ClipDataset, SkeletonDataset, SkeletonFormatError, USDRLFeatureExtractor, get_layout
from usdrl_hub.data.augmentation import (
    ClipAugmentation,
    random_crop,
    random_mirror,
    random_missing_joints,
    random_shear,
)
from usdrl_hub.data.protocols import default_split
from usdrl_hub.data.samples import load_samples

from .helpers import arrays


def test_sequences_have_their_frames_labels_and_names():
    dataset = SkeletonDataset.from_arrays(arrays(names=np.array(["a", "b", "c"]), fps=np.array(30.0)), "x")
    assert [s.num_frames for s in dataset] == [10, 2, 18] == dataset.lengths.tolist()
    assert [(s.name, s.label, s.subject, s.fps) for s in dataset][1] == ("b", 1, 2, 30.0)
    chosen = dataset.select(np.array([True, False, True])).select(np.array([False, True]))
    assert len(chosen) == 1 and chosen[0].name == "c"
    np.testing.assert_array_equal(chosen[0].keypoints, dataset[2].keypoints)


def test_joints_in_another_order_and_a_tracking_flag_are_understood():
    names = list(get_layout("kinect20").joint_names)
    data = np.random.default_rng(0).normal(size=(30, 1, 20, 4))
    dataset = SkeletonDataset.from_arrays(arrays(data=data, joint_names=np.array(names[::-1])), "x")
    assert dataset.layout.name == "kinect20"
    np.testing.assert_allclose(dataset[0].keypoints, data[:10, :, ::-1, :3], rtol=1e-6)


@pytest.mark.parametrize("name", ["uav17", "coco17-release", "coco17"])
def test_a_named_layout_is_that_layout(name):
    dataset = SkeletonDataset.from_arrays(arrays(data=np.ones((30, 1, 17, 3)), layout=np.array(name)), "x")
    assert dataset.layout == get_layout(name) and len(dataset[:2]) == 2


def test_one_unreadable_sequence_costs_no_other():
    data = np.random.default_rng(0).normal(size=(30, 1, 25, 3))
    data[10:12] = 0
    dataset = SkeletonDataset.from_arrays(arrays(data=data), "mine.npz")
    errors = []
    assert [s.num_frames for s in dataset.iterate(errors.append)] == [10, 18]
    assert len(errors) == 1 and "mine.npz: 1: every person is empty" in str(errors[0])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data": None}, "no array 'data'"),
        ({"offsets": None}, "no array 'offsets'"),
        ({"offsets": np.array([0, 12, 10, 30])}, "must rise"),
        ({"offsets": np.array([0, 10, 31])}, "must rise"),
        ({"offsets": np.array([-5, 30])}, "must rise"),
        ({"offsets": np.array([0.0, 30.0])}, "must rise"),
        ({"labels": np.array([0])}, "'labels' must have one entry for each of the 3"),
        ({"layout": np.array("kinect20")}, "its layout has 20 joints"),
        ({"data": np.ones((30, 25, 3))}, "must be numbers with the axes"),
        ({"data": np.ones((30, 1, 25, 7))}, "7 coordinates"),
        ({"labels": np.array([0, np.nan, 1])}, "'labels' is of the wrong type float64"),
        ({"labels": np.array(["a", "b", "c"])}, "'labels' is of the wrong type"),
        ({"labels": np.array(1)}, "'labels' must have one entry"),
        ({"labels": np.array([[0], [1], [1]])}, "'labels' must have one entry"),
        ({"labels": np.array([0, 1, 2])}, "label 2 of 'labels' has no name among 2"),
        ({"fps": np.array([30, 30])}, "'fps' must be a single value, or one for each of the 3"),
        ({"split_test": np.array([0, -1, 1])}, "'split_test' must be true or false"),
        ({"frame_labels": np.full(30, 2)}, "label 2 of 'frame_labels' has no name"),
        ({"events": np.array([[3, 0, 0]])}, "'events' names frame 0 of sequence 3, which is not among the 3"),
        ({"image_shape": np.array([480])}, "'image_shape' must be height and width"),
        ({"units": np.array(1)}, "'units' is of the wrong type"),
        ({"edges": np.array([1, 2, 3])}, "its layout cannot be read"),
        ({"layout": np.array("foo")}, "unknown layout 'foo'"),
        ({"joint_names": np.array(["a"])}, "its layout has 1 joints"),
        # faults.md 24 and 27, found by `make fuzz`.
        ({"edges": np.zeros((2_000_000, 3), dtype=int)}, "'edges' must be whole numbers of shape"),
        ({"joint_names": np.array([f"j{i}" for i in range(2000)])}, "2000 joints"),
        ({"names": np.frombuffer(b"\xff" * 12, "<U1")}, "'names' is damaged"),
        ({"names": np.frombuffer(b"\xff" * 12, ">U1")}, "'names' is damaged"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(SkeletonFormatError, match=message):
        SkeletonDataset.from_arrays(arrays(**changes), "x.npz")


def test_people_are_never_on_both_sides():
    train, test, rule = default_split(SkeletonDataset.from_arrays(arrays(), "x"))
    assert {s.subject for s in train} == {1, 3} and {s.subject for s in test} == {2} and "odd" in rule


def test_the_files_own_split_comes_first_and_leaked_clips_are_left_out():
    changes = {"split_test": np.array([False, True, True]), "split_test_leaked": np.array([False, False, True])}
    train, test, rule = default_split(SkeletonDataset.from_arrays(arrays(**changes), "x"))
    assert (len(train), len(test)) == (1, 1) and "without 1 test clips" in rule
    columns = np.array([[True, False], [False, True], [False, True]])
    train, test, _ = default_split(SkeletonDataset.from_arrays(arrays(split_test=columns), "x"))
    assert (len(train), len(test)) == (2, 1)


def test_data_that_cannot_be_split_are_refused():
    with pytest.raises(SkeletonFormatError, match="split"):
        default_split(SkeletonDataset.from_arrays(arrays(subjects=None, labels=None), "x"))


@pytest.mark.parametrize("people", [[1, 3, 5], [2, 4, 6], [2.0, 4.0, 6.0]])
def test_people_with_all_odd_or_all_even_numbers_are_split_in_order(people):
    train, test, rule = default_split(SkeletonDataset.from_arrays(arrays(subjects=np.array(people)), "x"))
    assert {s.subject for s in test} == {people[1]} and len(train) == 2 and "every second" in rule


def test_data_without_numbered_people_are_split_too():
    train, test, rule = default_split(SkeletonDataset.from_arrays(arrays(subjects=np.array(["b", "a", "c"])), "x"))
    assert {s.subject for s in test} == {"b"} and {s.subject for s in train} == {"a", "c"}
    assert "every second person" in rule
    unknown = arrays(subjects=None, labels=np.array([0, 0, 0]))
    train, test, rule = default_split(SkeletonDataset.from_arrays(unknown, "x"))
    assert (len(train), len(test)) == (2, 1) and "random fifth" in rule and "who moves is not known" in rule
    alone = arrays(subjects=np.array([4, 4, 4]), labels=np.array([0, 0, 0]))
    rule = default_split(SkeletonDataset.from_arrays(alone, "x"))[2]
    assert rule == "a random fifth of each class tests; all clips are of one person"
    single = arrays(subjects=None, labels=np.array([0, 1, 2]), class_names=np.array(["a", "b", "c"]))
    with pytest.raises(SkeletonFormatError, match="each class has one clip, which trains"):
        default_split(SkeletonDataset.from_arrays(single, "x"))


def test_a_loaders_batch_is_its_items():
    dataset = ClipDataset(load_samples(), USDRLFeatureExtractor(num_persons=1))
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4)))
    assert batch["keypoints"].shape == (4, 64, 1, 25, 3)
    for number in range(4):
        item = dataset[number]
        torch.testing.assert_close(batch["keypoints"][number], item["keypoints"])
        assert batch["labels"][number] == item["labels"]


def test_unlabelled_sequences_are_refused_by_name():
    names = np.array(get_layout("ntu25").joint_names)
    changes = {"labels": np.array([0, -1, 0]), "names": np.array(["a", "b", "c"]), "joint_names": names}
    dataset = SkeletonDataset.from_arrays(arrays(**changes), "x")
    with pytest.raises(ValueError, match="b: it has no label"):
        ClipDataset(dataset, USDRLFeatureExtractor())[1]


def test_random_crops_are_parts_of_the_clip():
    clips = torch.arange(64.0)[None, :, None, None, None].expand(200, 64, 1, 1, 3).contiguous()
    cropped = random_crop(clips, 0.5)[:, :, 0, 0, 0]
    step = cropped.diff(dim=1)
    assert (cropped >= 0).all() and (cropped <= 63).all()
    torch.testing.assert_close(step, step[:, :1].expand_as(step), atol=1e-3, rtol=0)
    assert step.min() >= 0.499 and step.max() <= 1.001 and step.mean().item() == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(random_crop(clips, 1.0), clips, atol=1e-4, rtol=0)


def test_shears_are_linear_per_clip():
    clips = torch.randn(50, 4, 1, 6, 3)
    sheared = random_shear(clips, 0.3)
    matrices = torch.linalg.lstsq(clips.flatten(1, 3), sheared.flatten(1, 3)).solution.transpose(1, 2)
    change = matrices - torch.eye(3)
    assert change.abs().max() < 0.3001 and change.std().item() == pytest.approx(0.3 / 3**0.5, rel=0.1)
    torch.testing.assert_close(random_shear(clips, 0.0), clips)


def test_missing_joints_are_missing_throughout():
    kept = random_missing_joints(torch.ones(400, 5, 2, 25, 3), 0.4)
    joints = kept[:, 0, 0, :, 0]
    assert (kept == joints[:, None, None, :, None]).all()
    assert (1 - joints).mean().item() == pytest.approx(0.2, abs=0.03)


def test_mirror_images_swap_sides_and_x():
    clips = torch.randn(200, 3, 1, 25, 3)
    order = get_layout("ntu25").mirrored
    images = random_mirror(clips, order)
    same = (images == clips).flatten(1).all(1)
    assert 70 < same.sum() < 130
    expected = clips[~same][..., list(order), :] * torch.tensor([-1.0, 1, 1])
    assert torch.equal(images[~same], expected)


def test_augmentation_leaves_2d_unsheared_and_can_be_switched_off():
    clips = torch.randn(3, 8, 1, 5, 2)
    assert torch.equal(ClipAugmentation(shortest_crop=1, shear=0.3, missing_joints=0)(clips), clips)


def test_joint_names_of_no_joint_are_refused():
    """Found by `make fuzz`: an IndexError."""
    with pytest.raises(SkeletonFormatError, match="mine.npz: its layout cannot be read: it names no joint"):
        SkeletonDataset.from_arrays(arrays(joint_names=np.array([], dtype=str)), "mine.npz")
