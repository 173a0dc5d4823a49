from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usdrl_hub import SkeletonSequence
from usdrl_hub.data.pose_errors import PoseErrors
from usdrl_hub.facts.recipes import Recipe
from usdrl_hub.layouts import LAYOUTS, get_layout
from usdrl_hub.pretraining.build import build_recipe, motion_extractor
from usdrl_hub.pretraining.camera import DRAWS, RandomCamera, in_picture
from usdrl_hub.pretraining.views import ViewAugmentation, _Body, crop_resize, hashed_uniform
from usdrl_hub.ragged import RaggedFrames

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


# -- what cameras and pose estimators do

OBSERVED = {
    "estimator": ViewAugmentation(layout="ntu25", pose_errors=PoseErrors()),
    "camera": ViewAugmentation(
        layout="ntu25",
        keypoint_layout="coco17",
        corrupted_joints=5,
        joint_dropout=0.3,
        mirror=0.5,
        camera=RandomCamera(),
        pose_errors=PoseErrors(),
    ),
}


@pytest.mark.parametrize("augmentation", OBSERVED.values(), ids=OBSERVED)
def test_observed_views_do_not_depend_on_the_batch_either(augmentation):
    lengths, clips = [30, 1, 80], torch.tensor([7, 2, 9])
    batch = random_frames(lengths)
    together = augmentation(batch, clips, 4, 3)
    assert torch.isfinite(together).all() and torch.equal(together, augmentation(batch, clips, 4, 3))
    start = 0
    for number, length in enumerate(lengths):
        alone = RaggedFrames(batch.frames[start : start + length], torch.tensor([length]))
        torch.testing.assert_close(augmentation(alone, clips[number : number + 1], 4, 3)[:, 0], together[:, number])
        start += length
    for seed, step in ((5, 3), (4, 4)):
        assert not torch.isclose(augmentation(batch, clips, seed, step), together).all()


def test_estimated_bodies_stay_about_their_centre():
    batch = upright_body(persons=2)
    views = ViewAugmentation(**STILL, pose_errors=PoseErrors(1.0))(batch, torch.tensor([0]))
    assert not views[..., 0, 1, :].any() and views[..., 1, 1, :].any()
    assert not torch.isclose(views[0, 0], views[1, 0]).all(-1)[..., 0, 2].any()


def test_later_layouts_do_not_change_other_layouts(monkeypatch):
    batch = upright_body()
    views = ViewAugmentation(**STILL, other_layout=1.0, num_views=20)
    before = views(batch, torch.tensor([0]))
    monkeypatch.setitem(LAYOUTS, "later", LAYOUTS["kinect20"])
    again = ViewAugmentation(**STILL, other_layout=1.0, num_views=20)
    assert torch.equal(before, again(batch, torch.tensor([0])))
    one = ViewAugmentation(**STILL, other_layout=1.0, other_layouts=["kinect20"], num_views=20)
    assert len(one(batch, torch.tensor([0])).flatten(1).unique(dim=0)) == 1


FRONT = {"max_yaw": 0, "pitch": (0, 0), "max_roll": 0, "aspect": (1, 1), "coverage": (0.5, 0.5), "distance": (4, 4)}
POINTS = get_layout([[1, 0], [2, 1]])


def seen_points(points, **changes):
    """Points of a layout of three joints in a picture."""
    camera = RandomCamera(layout=POINTS, **(FRONT | changes))
    drawn = torch.full((1, DRAWS), 0.5)
    flat, aspect = camera.project(torch.tensor(points, dtype=torch.float32)[None, :, None], POINTS, drawn)
    return in_picture(flat, aspect, 3, None)[0, :, 0]


def test_a_camera_in_front_sees_left_on_the_right_and_the_head_above():
    seen = seen_points([[[0.5, 1.0, 0], [-0.5, -1, 0], [0, 0, 0]]])[0]
    # Two metres high in half of the picture, in its middle.
    torch.testing.assert_close(seen, torch.tensor([[0.625, 0.25, 1], [0.375, 0.75, 1], [0.5, 0.5, 1]]))


def test_what_is_nearer_is_larger():
    seen = seen_points([[[0.5, 1.0, 1], [-0.5, 1.0, 1], [0, -1, 1]], [[0.5, 1.0, -1], [-0.5, 1.0, -1], [0, -1, -1]]])
    widths = seen[:, 0, 0] - seen[:, 1, 0]
    assert (widths[0] / widths[1]).item() == pytest.approx(5 / 3)
    far = seen_points(
        [[[0.5, 1.0, 1], [-0.5, 1.0, 1], [0, -1, 1]], [[0.5, 1.0, -1], [-0.5, 1.0, -1], [0, -1, -1]]],
        distance=(1000, 1000),
    )
    widths = far[:, 0, 0] - far[:, 1, 0]
    assert (widths[0] / widths[1]).item() == pytest.approx(1, abs=0.01)


def test_joints_outside_the_picture_are_missing():
    seen = seen_points([[[0, 1.0, 0], [0, -1, 0], [0, 0, 0]]], coverage=(2, 2))[0]
    assert not seen[:2].any() and seen[2, 2] == 1
    torch.testing.assert_close(seen[2, :2], torch.tensor([0.5, 0.5]))


def test_cameras_cover_their_ranges():
    body = get_layout("ntu25")
    points = torch.randn(1, 5, 1, 25, 3, generator=torch.Generator().manual_seed(0)).expand(3000, -1, -1, -1, -1) * 0.4
    camera = RandomCamera(coverage=(0.3, 0.8))
    drawn = torch.rand(3000, DRAWS, generator=torch.Generator().manual_seed(1))
    flat, aspect = camera.project(points, body, drawn)
    assert 0.5625 <= aspect.min() < 0.57 and 1.76 < aspect.max() <= 1.7778
    shares = in_picture(flat, aspect, 2, None)
    assert shares.shape == (3000, 5, 1, 25, 2) and shares.any(-1).all()
    extent = (shares.amax((1, 2, 3)) - shares.amin((1, 2, 3))).amax(-1)
    assert 0.3 <= extent.min() + 1e-5 < 0.31 and 0.79 < extent.max() < 0.8001
    # Anywhere in the picture, and from all sides.
    assert shares[..., 0].min() < 0.01 and shares[..., 0].max() > 0.99
    names = list(body.joint_names)
    wide = flat[:, 0, 0, names.index("left_shoulder"), 0] - flat[:, 0, 0, names.index("right_shoulder"), 0]
    assert 0.4 < (wide > 0).float().mean() < 0.6


def camera_recipe(**views):
    return Recipe(
        model={"hidden_size": 16, "num_persons": 1, "layout": "coco17", "num_frames": 16},
        extractor={"normalization": "image", "max_frames": None},
        views={"corrupted_joints": 5, "min_length": 6, **views},
    )


def test_a_recipe_of_a_2d_model_sees_3d_motion():
    from usdrl_hub.data.samples import load_samples

    recipe = camera_recipe(camera=True, pose_errors={"probability": 1.0}, corruption=0.0, shear=0.0)
    config, extractor, _, augmentation = build_recipe(recipe)
    motion = motion_extractor(recipe, extractor)
    assert motion.layout == "ntu25" and motion.fill_joints and not augmentation.pose_errors.fill
    batch = motion.normalized(list(load_samples())[:3])
    views = augmentation(batch, torch.arange(3))
    assert views.shape == (4, 3, 16, 1, 17, 3)
    seen = views[..., 2] > 0
    assert 0.5 < seen.float().mean() < 1 and not views[~seen].any()
    positions = views[seen]
    assert 0 <= positions[:, :2].min() and positions[:, :2].max() <= 1 and 0.05 <= positions[:, 2].min()
    eyes = views[..., [1, 2], :]
    assert (eyes[..., 0, :2] != eyes[..., 1, :2]).any(), "a face is no point"
    # The picture's y points down: knees are below shoulders.
    layout = get_layout("coco17")
    knee, shoulder = (layout.joint_names.index(name) for name in ("left_knee", "left_shoulder"))
    both = seen[..., knee] & seen[..., shoulder]
    assert (views[..., knee, 1] > views[..., shoulder, 1])[both].float().mean() > 0.9
    flat = build_recipe(camera_recipe(camera={}))[3]
    assert flat.pose_errors is None and flat(batch, torch.arange(3)).shape == (4, 3, 16, 1, 17, 3)


@torch.no_grad()
def test_a_camera_places_bodies_as_the_extractor_does():
    """Whole sequences, as a camera sees them, equal the extractor's clips of the same keypoints in any picture."""
    from usdrl_hub.data.samples import load_samples

    def recipe(name):
        camera = {"coverage": [0.4, 0.8]}
        return replace(camera_recipe(camera=camera), extractor={"normalization": name, "max_frames": None})

    batch = motion_extractor(recipe("image"), build_recipe(recipe("image"))[1]).normalized(list(load_samples())[:3])
    made = {name: build_recipe(recipe(name))[3].whole() for name in ("image", "body-2d")}
    shares, placed = (views(batch, torch.arange(3))[0] for views in made.values())
    assert placed.shape == shares.shape == (3, 16, 1, 17, 3)
    extractor = build_recipe(recipe("body-2d"))[1]
    for clip, expected in zip(shares, placed, strict=True):
        # Shares of a picture's width and height: its shape is found again from the body's.
        width, height = (np.ptp(expected[..., axis]) / np.ptp(clip[..., axis]) for axis in (0, 1))
        pixels = clip.numpy() * [1000 * width / height, 1000, 1]
        sequence = SkeletonSequence(pixels.astype(np.float32), "coco17", coordinates="2d+score")
        np.testing.assert_allclose(extractor(sequence, return_tensors="pt")["keypoints"][0], expected, atol=1e-4)


def test_corruption_in_the_picture_leaves_scores():
    views = ViewAugmentation(
        layout="ntu25", keypoint_layout="coco17", camera=RandomCamera(coverage=(0.5, 0.5)), corruption=1.0, zeroed=0.5
    )(random_frames([20], persons=1), torch.tensor([0]))
    scores = views[..., 2]
    assert set(scores.unique().tolist()) == {0.0, 1.0} and not views[scores == 0].any()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: build_recipe(camera_recipe(camera={"yaw": 3})), "there is no entry 'views.camera.yaw'"),
        (lambda: build_recipe(camera_recipe(camera=3)), "views.camera must be true or a mapping of entries, got 3"),
        (lambda: build_recipe(camera_recipe(camera={"layout": "coco17"})), "no spine_base and neck"),
        (lambda: build_recipe(camera_recipe(pose_errors={"strength": "x"})), "strength must be at least 0"),
        (lambda: build_recipe(Recipe(views={"camera": True})), "normalization 'body-2d' or 'image'"),
        (lambda: RandomCamera(layout="coco17"), "layout 'coco17' is not 3D"),
        (lambda: RandomCamera(distance=(3, 2)), "distance must be two numbers from 1 to 1000, rising"),
        (lambda: RandomCamera(max_yaw=200), r"max_yaw must be an angle in \[0, 180\]"),
        (lambda: ViewAugmentation(layout="ntu25", camera=RandomCamera()), "needs keypoint_layout"),
        (lambda: ViewAugmentation(pose_errors=PoseErrors()), "pose_errors need the layout"),
    ],
)
def test_impossible_cameras_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
