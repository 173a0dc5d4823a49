import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usdrl_hub.normalization import RaggedFrames
from usdrl_hub.pretraining import ViewAugmentation
from usdrl_hub.pretraining.views import crop_resize, hashed_uniform

from .conftest import relative_error

RELEASE = ViewAugmentation()


def ragged(lengths, joints=25, persons=2, seed=0) -> RaggedFrames:
    frames = torch.randn(sum(lengths), persons, joints, 3, generator=torch.Generator().manual_seed(seed))
    return RaggedFrames(frames, torch.tensor(lengths))


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
    batch = ragged(lengths)
    clips = torch.arange(100, 100 + len(lengths))
    together = RELEASE(batch, clips, seed, step)
    assert together.shape == (4, len(lengths), 64, 2, 25, 3) and torch.isfinite(together).all()
    start = 0
    for number, length in enumerate(lengths):
        alone = RaggedFrames(batch.frames[start : start + length], torch.tensor([length]))
        torch.testing.assert_close(RELEASE(alone, clips[number : number + 1], seed, step)[:, 0], together[:, number])
        start += length


def test_views_differ_by_seed_step_clip_and_view():
    batch = ragged([80] * 2, seed=1)
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
    batch = ragged([64])
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
        RELEASE(ragged([9], joints=11), torch.tensor([0]))
