import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usdrl_hub.layouts import LAYOUTS, get_layout
from usdrl_hub.normalization import RaggedFrames
from usdrl_hub.pretraining.views import ViewAugmentation, _Body, crop_resize, hashed_uniform

from .conftest import relative_error
from .helpers import random_frames

RELEASE = ViewAugmentation()


def test_crops_are_resized_as_the_release_does(golden):
    file = golden("temporal_crop_resize")
    frames = torch.from_numpy(np.ascontiguousarray(file["source_CTVM"].transpose(1, 3, 2, 0)))
    batch = RaggedFrames(frames, torch.tensor([len(frames)]))
    places = [file[f"crop{number}_start_len"].tolist() for number in range(4)]
    start, length = (torch.tensor([[place[axis]] for place in places]) for axis in (0, 1))
    crops = crop_resize(batch, start, length, 64)
    for number, crop in enumerate(crops[:, 0]):
        assert relative_error(crop, file[f"crop{number}"].transpose(1, 3, 2, 0)) < 1e-5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.integers(0, 2**62), st.integers(0, 10**6))
def test_views_do_not_depend_on_the_batch(lengths, seed, step):
    batch = random_frames(lengths)
    clips = torch.arange(100, 100 + len(lengths))
    together = RELEASE(batch, clips, seed, step)
    assert together.shape == (4, len(lengths), 64, 2, 25, 3) and torch.isfinite(together).all()
    start = 0
    for number, length in enumerate(lengths):
        alone = RaggedFrames(batch.frames[start : start + length], torch.tensor([length]))
        torch.testing.assert_close(RELEASE(alone, clips[number : number + 1], seed, step)[:, 0], together[:, number])
        start += length


def test_views_differ_by_seed_step_clip_and_view():
    batch = random_frames([80] * 2, seed=1)
    batch.frames[80:] = batch.frames[:80]
    views = RELEASE(batch, torch.tensor([0, 1]), 0, 0)
    others = [RELEASE(batch, torch.tensor([0, 1]), seed, step) for seed, step in ((1, 0), (0, 1))]
    flat = torch.cat([views.flatten(0, 1), *(other.flatten(0, 1) for other in others)]).flatten(1)
    distances = torch.cdist(flat, flat) + torch.eye(len(flat)) * 1e9
    assert distances.min() > 0.1
    assert torch.equal(views, RELEASE(batch, torch.tensor([0, 1]), 0, 0))


def test_random_numbers_are_uniform_and_uncorrelated():
    numbers = hashed_uniform(3, 7, torch.arange(2000), 50)
    assert 0 <= numbers.min() and numbers.max() < 1
    counts = torch.histc(numbers.flatten().float(), 20, 0, 1)
    # Chi-squared with 19 degrees of freedom: 43.8 is passed once in a thousand.
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8
    correlations = torch.corrcoef(numbers.T) - torch.eye(50)
    # Of 1225 pairs of 2000 numbers, none beyond five deviations.
    assert correlations.abs().max() < 5 / 2000**0.5
    neighbours = torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))[0, 1]
    assert abs(neighbours) < 5 / numbers.numel() ** 0.5


def drawn(augmentation=RELEASE, clips=4000, length=200, joints=25):
    return augmentation.draw(torch.full((clips,), length), joints, torch.arange(clips), 0, 0)


def test_crops_follow_their_definition():
    values = drawn()
    start, length = values["start"], values["length"]
    assert length.min() == 64 and length.max() <= 200 and (start + length <= 200).all() and start.min() == 0
    # A share below 0.32 is 64 frames: (0.32 - 0.1) / 0.9 of them.
    share = (length == 64).double().mean()
    assert abs(share - (64 + 1 - 20) / 180) < 0.02
    mean = length[length > 64].double().mean()
    assert abs(mean - (65 + 199) / 2) < 2
    # Both ends of the range of starts are reached.
    ends = (start == 200 - length) & (length < 100)
    assert ends.any()
    short = drawn(length=10)
    assert (short["length"] == 10).all() and (short["start"] == 0).all()


def test_exactly_one_change_in_space_and_of_the_right_kind():
    matrix = drawn(clips=3000)["matrix"].flatten(0, 1)
    eye = torch.eye(3, dtype=matrix.dtype)
    same = (matrix == matrix[:, :1]).all(dim=(1, 2, 3))
    assert abs(same.double().mean() - 0.5) < 0.02
    shear = matrix[same][:, 0]
    assert (shear.diagonal(dim1=1, dim2=2) == 1).all()
    off = shear[:, eye == 0]
    assert off.abs().max() <= 1 and abs(off.mean()) < 0.02 and abs(off.var() - 1 / 3) < 0.02
    corrupted = matrix[~same]
    changed = (corrupted != eye).any(dim=(2, 3))
    assert (changed.sum(dim=1) == 15).all() and not changed[:, 17:].any()
    assert (changed[:, :17].double().mean(dim=0) - 15 / 17).abs().max() < 0.03
    zero = (corrupted == 0).all(dim=(2, 3))
    zeroed = zero.any(dim=1)
    assert (zero.sum(dim=1)[zeroed] == 15).all() and abs(zeroed.double().mean() - 0.5) < 0.03
    broken = corrupted[~zeroed]
    first = broken[torch.arange(len(broken)), changed[~zeroed].double().argmax(dim=1)]
    assert first.abs().max() <= 1 and abs(first.mean()) < 0.02 and abs(first.var() - 1 / 3) < 0.02
    # All corrupted joints of a view are multiplied by the same matrix.
    assert ((broken == first[:, None]) | (broken == eye)).all()


def test_every_parameter_counts():
    every = ViewAugmentation(corruptible_joints=None, corrupted_joints=5, corruption=1.0, zeroed=0.0, num_views=2)
    matrix = drawn(every, clips=500)["matrix"]
    changed = (matrix != torch.eye(3)).any(dim=(3, 4))
    assert matrix.shape[0] == 2 and (changed.sum(dim=2) == 5).all() and changed[..., 17:].any()
    still = ViewAugmentation(crop_ratio=(1, 1), corruption=0.0, shear=0.0, num_frames=64)
    batch = random_frames([64])
    torch.testing.assert_close(still(batch, torch.tensor([0]))[2, 0], batch.frames)
    flat = RaggedFrames(batch.frames[..., :2], batch.lengths)
    assert RELEASE(flat, torch.tensor([0])).shape == (4, 1, 64, 2, 25, 2)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_views": 1}, "num_views"),
        ({"crop_ratio": (0, 1)}, "two shares in"),
        ({"crop_ratio": (0.9, 0.2)}, "rising"),
        ({"corruption": 1.5}, "corruption must be a probability"),
        ({"corrupted_joints": 20}, "20 joints cannot be drawn from the first 17"),
    ],
)
def test_impossible_views_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ViewAugmentation(**fields)
    with pytest.raises(ValueError, match="lower corrupted_joints"):
        RELEASE(random_frames([9], joints=11), torch.tensor([0]))


# -- what sensors do

SENSOR = ViewAugmentation(
    layout="ntu25",
    corrupted_joints=8,
    joint_dropout=0.3,
    limb_dropout=0.3,
    other_layout=0.3,
    max_stride=3,
    noise=0.02,
    mirror=0.5,
    max_yaw=30,
    scale_jitter=0.15,
)
STILL = {"layout": "ntu25", "crop_ratio": (1, 1), "corruption": 0.0, "shear": 0.0}


def upright_body(frames=64, persons=1) -> RaggedFrames:
    """Bodies whose centre joint lies at the origin."""
    batch = random_frames([frames], persons=persons)
    batch.frames[:, :] -= batch.frames[:, :1, 1:2].clone()
    return batch


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=4), st.integers(0, 2**62))
def test_what_sensors_do_does_not_depend_on_the_batch_either(lengths, seed):
    batch = random_frames(lengths)
    clips = torch.arange(len(lengths))
    together = SENSOR(batch, clips, seed, 3)
    assert torch.isfinite(together).all()
    start = 0
    for number, length in enumerate(lengths):
        alone = RaggedFrames(batch.frames[start : start + length], torch.tensor([length]))
        torch.testing.assert_close(SENSOR(alone, clips[number : number + 1], seed, 3)[:, 0], together[:, number])
        start += length


def test_without_what_sensors_do_views_are_what_they_were():
    batch, clips = random_frames([80, 70]), torch.arange(2)
    assert torch.equal(ViewAugmentation(layout="ntu25")(batch, clips, 5, 6), RELEASE(batch, clips, 5, 6))


def test_whoever_is_absent_stays_absent():
    batch = upright_body(persons=2)
    batch.frames[:, 1] = 0
    views = ViewAugmentation(**STILL, joint_dropout=0.5, other_layout=0.5, noise=0.1, mirror=1.0)(
        batch, torch.tensor([0])
    )
    assert not views[..., 1, :, :].any() and views[..., 0, :, :].any()


def test_mirror_images_are_of_all_views_and_change_sides():
    batch, layout = upright_body(), get_layout("ntu25")
    views = ViewAugmentation(**STILL, mirror=1.0)(batch, torch.tensor([0]))
    expected = batch.frames[:, :, list(layout.mirrored)] * torch.tensor([-1.0, 1, 1])
    for view in views[:, 0]:
        torch.testing.assert_close(view, expected)


def test_lost_joints_are_where_the_nearest_ones_are_and_the_body_stays_about_its_centre():
    batch, layout = upright_body(), get_layout("ntu25")
    views = ViewAugmentation(**STILL, limb_dropout=1.0, num_views=40)(batch, torch.tensor([0]))[:, 0, :, 0]
    hand, tip, wrist = (layout.joint_names.index(f"left_{name}") for name in ("hand", "hand_tip", "wrist"))
    assert torch.equal(views[:, :, layout.center], torch.zeros_like(views[:, :, layout.center]))
    cut = [view for view in views if torch.allclose(view[:, hand], view[:, wrist], atol=1e-2)]
    assert cut and all(torch.allclose(view[:, tip], view[:, hand], atol=1e-2) for view in cut)
    whole = [view for view in views if torch.allclose(view, batch.frames[:, 0])]
    assert len(whole) + len(cut) < 40 and all(torch.isfinite(view).all() for view in views)


def test_slow_sensors_leave_frames_out():
    frames = torch.arange(64.0)[:, None, None, None].expand(64, 1, 25, 3).contiguous().square()
    batch = RaggedFrames(frames, torch.tensor([64]))
    every_third = crop_resize(
        batch, torch.zeros(1, 1, dtype=torch.long), torch.tensor([[64]]), 64, torch.tensor([[3]])
    )
    values = every_third[0, 0, :, 0, 0, 0]
    assert torch.equal(values[::3], frames[::3, 0, 0, 0]) and values[1] == frames[3, 0, 0, 0] / 3
    all_frames = crop_resize(batch, torch.zeros(1, 1, dtype=torch.long), torch.tensor([[64]]), 64, torch.tensor([[1]]))
    assert torch.equal(all_frames[0, 0], frames)


def test_noise_turn_and_size_are_as_large_as_asked():
    batch = RaggedFrames(torch.ones(64, 1, 25, 3), torch.tensor([64]))
    noisy = ViewAugmentation(**STILL, noise=0.1, num_views=200)(batch, torch.tensor([0]))[:, 0] - 1
    spreads = noisy.flatten(1).std(dim=1)
    assert spreads.min() < 0.01 and 0.09 < spreads.max() < 0.105 and abs(float(noisy.mean())) < 1e-3
    batch.frames[:] = torch.tensor([1.0, 2.0, 0.0])
    moved = ViewAugmentation(**STILL, max_yaw=30, scale_jitter=0.2, num_views=200)(batch, torch.tensor([0]))[
        :, 0, 0, 0, 0
    ]
    angle, size = torch.atan2(-moved[:, 2], moved[:, 0]).rad2deg(), moved[:, 1] / 2
    assert -30 < angle.min() < -28 and 28 < angle.max() < 30 and 0.8 < size.min() < 0.81 and 1.19 < size.max() < 1.2
    torch.testing.assert_close(moved[:, [0, 2]].norm(dim=1), size)


@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if layout.coordinates == "3d"])
def test_every_layout_can_lose_joints_and_come_in_others(layout):
    joints = get_layout(layout).num_joints
    views = ViewAugmentation(
        layout=layout,
        corrupted_joints=2,
        corruptible_joints=None,
        joint_dropout=0.3,
        limb_dropout=0.3,
        other_layout=0.4,
    )
    batch = random_frames([20], joints=joints)
    assert torch.isfinite(views(batch, torch.tensor([0]))).all()
    # A body that is a point stays that point, whatever its joints are made of.
    body = _Body(get_layout(layout))
    torch.testing.assert_close(body.others.sum(-1), torch.ones(body.others.shape[:2]))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"joint_dropout": 0.5, "limb_dropout": 0.6, "layout": "ntu25"}, "their sum is at most 1"),
        ({"mirror": 0.5}, "need the layout"),
        ({"max_stride": 0}, "max_stride must be a whole number"),
        ({"max_yaw": 200}, "max_yaw in"),
    ],
)
def test_what_no_sensor_does_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ViewAugmentation(**fields)
