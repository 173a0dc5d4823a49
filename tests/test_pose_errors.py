import json
from pathlib import Path

import pytest
import torch

from usdrl_hub.data.augmentation import ClipAugmentation
from usdrl_hub.data.pose_errors import MEASURED, PoseErrors, erring_body, head_axes, measured, torch_bits
from usdrl_hub.layouts import LAYOUTS, get_layout

NTU, COCO = get_layout("ntu25"), get_layout("coco17")
ONLY_POSITIONS = {"probability": 1.0, "size": 0.0, "limb_gap": 0.0, "wrong_person": 0.0}
NOTHING = {**ONLY_POSITIONS, "strength": 0.0}


def bodies(count=6, frames=40, persons=1, joints=25, channels=3) -> torch.Tensor:
    """Clips of bodies that do not move, of standard deviation 1."""
    body = torch.randn(count, 1, persons, joints, channels, generator=torch.Generator().manual_seed(0))
    return body.expand(-1, frames, -1, -1, -1).clone()


def seen(clips: torch.Tensor, errors: PoseErrors, layout=NTU, seed=0, step=1.0) -> torch.Tensor:
    torch.manual_seed(seed)
    return errors(clips, erring_body(layout, layout.is_3d), torch_bits(len(clips), clips.device), step)


def body_sizes(clips: torch.Tensor) -> torch.Tensor:
    return (clips - clips.mean(-2, keepdim=True)).square().sum(-1).mean((1, 3)).sqrt()


def test_no_strength_or_no_probability_changes_nothing():
    clips = bodies(persons=2)
    assert torch.equal(seen(clips, PoseErrors(**NOTHING)), clips)
    assert torch.equal(seen(clips, PoseErrors(probability=0.0)), clips)
    kept = (seen(bodies(400), PoseErrors(0.3)) == bodies(400)).flatten(1).all(1)
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.07)


def test_errors_come_of_the_seed():
    clips, errors = bodies(), PoseErrors(probability=1.0)
    assert torch.equal(seen(clips, errors), seen(clips, errors))
    assert not torch.isclose(seen(clips, errors), seen(clips, errors, seed=1)).any()


@pytest.mark.parametrize("layout, name", [(NTU, "3d"), (get_layout("jhmdb15"), "2d")])
def test_errors_have_the_measured_size_in_space_and_time(layout, name):
    values, channels = measured()[name], 3 if layout.is_3d else 2
    clips = bodies(1500, 64, 1, layout.num_joints, channels)
    error = (seen(clips, PoseErrors(**ONLY_POSITIONS), layout) - clips)[:, :, 0]
    error = error / body_sizes(clips)[:, :, None, None]
    spread = error.square().sum(-1).mean((0, 1)).sqrt()
    # Joints of the same name err as measured; a shoulder is one in every layout.
    for joint in set(values["joints"]) & set(layout.joint_names):
        row = layout.joint_names.index(joint)
        assert spread[row].item() == pytest.approx(values["joints"][joint], rel=0.06), joint
    scaled = error / spread[:, None]

    def product(lag: int) -> float:
        return float((scaled[:, lag:] * scaled[:, : 64 - lag]).sum(-1).mean())

    # Beside the offset, drift falls to 1/e in so many frames and jitter is gone at once.
    constant, white = values["constant"], values["white"]
    for lag in (1, 8, 24):
        kept = torch.exp(torch.tensor(-lag / values["correlation"])).item()
        assert product(lag) == pytest.approx(constant + (1 - constant) * (1 - white) * kept, abs=0.04)
    doubled = seen(clips, PoseErrors(**{**ONLY_POSITIONS, "strength": 2.0}), layout) - clips
    torch.testing.assert_close(doubled[:, :, 0] / body_sizes(clips)[:, :, None, None], 2 * error, rtol=1e-3, atol=1e-4)


def test_errors_along_the_camera_are_larger_and_a_wrist_takes_its_hand_along():
    clips = bodies(3000, 1)
    error = (seen(clips, PoseErrors(**ONLY_POSITIONS)) - clips)[:, 0, 0]
    wrist, hand, foot = (error[:, NTU.joint_names.index(f"left_{name}")] for name in ("wrist", "hand", "foot"))
    along = [(a * b).sum(-1).mean() / (a.square().sum(-1).mean() * b.square().sum(-1).mean()).sqrt() for a, b in
             ((wrist, hand), (wrist, foot))]  # fmt: skip
    assert along[0].item() == pytest.approx(measured()["3d"]["along"], abs=0.05) and abs(along[1]) < 0.1
    # The camera looks along any horizontal direction, so that x and z differ from y only.
    depth = measured()["3d"]["depth"]
    square = error.square().mean((0, 1))
    assert (square[[0, 2]].mean() / square[1]).item() == pytest.approx((1 + depth**2) / 2, rel=0.05)


def test_drift_lasts_over_recorded_frames_however_long_the_clip():
    clips = bodies(600, 64)
    for step in (0.5, 2.0):
        error = (seen(clips, PoseErrors(**ONLY_POSITIONS), step=step) - clips)[:, :, 0]
        lag = round(16 / step)
        moving = (error[:, lag:] * error[:, : 64 - lag]).sum(-1).mean() / error.square().sum(-1).mean()
        values = measured()["3d"]
        kept = torch.exp(torch.tensor(-lag * step / values["correlation"])).item()
        wanted = values["constant"] + (1 - values["constant"]) * (1 - values["white"]) * kept
        assert moving.item() == pytest.approx(wanted, abs=0.04)


def test_bodies_change_size_and_pictures_do_not():
    clips = bodies(2000, 2)
    sizes = body_sizes(seen(clips, PoseErrors(**{**NOTHING, "size": 0.2}))) / body_sizes(clips)
    assert 0.8 <= sizes.min() < 0.81 and 1.19 < sizes.max() < 1.201
    flat = bodies(20, 2, joints=17)
    assert torch.equal(seen(flat, PoseErrors(**{**NOTHING, "size": 0.2}), COCO), flat)


def test_a_limb_is_missing_for_some_frames():
    clips, most = bodies(300, 50), 0.4
    missing = (seen(clips, PoseErrors(**{**NOTHING, "limb_gap": 0.5, "gap_length": most}, fill=False)) == 0).all(-1)
    lost = missing.any(1)[:, 0]
    share = lost.any(1).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.1)
    body = erring_body(NTU, True)
    for number in range(len(clips)):
        frames = missing[number, :, 0].any(1).nonzero()[:, 0]
        if len(frames):
            assert len(frames) == frames[-1] - frames[0] + 1 <= most * 50 + 1
            assert (body.limbs == lost[number]).all(1).any() and not lost[number].all()
    filled = seen(clips, PoseErrors(**{**NOTHING, "limb_gap": 0.5, "gap_length": most}))
    assert not (filled == 0).all(-1).any()
    hand, wrist = NTU.joint_names.index("left_hand"), NTU.joint_names.index("left_wrist")
    gone = missing[:, :, 0, hand] & ~missing[:, :, 0, wrist]
    assert gone.any()
    # Filled by the nearest joint, and a little of those a bone further.
    torch.testing.assert_close(filled[:, :, 0, hand][gone], filled[:, :, 0, wrist][gone], atol=0.02, rtol=0)


def test_a_wrong_person_for_moments():
    two = bodies(200, 30, persons=2)
    changed = seen(two, PoseErrors(**{**NOTHING, "wrong_person": 0.5, "wrong_length": 0.3}))
    swapped = (changed == two.flip(2)).flatten(2).all(-1)
    kept = (changed == two).flatten(2).all(-1)
    assert (swapped | kept).all() and swapped.any(1).float().mean().item() == pytest.approx(0.75, abs=0.1)
    assert 1 <= swapped.sum(1)[swapped.any(1)].min() and swapped.sum(1).max() <= 20
    # Alone, a person turns for a moment, with the same body at the same position.
    one = bodies(200, 30)
    turned = seen(one, PoseErrors(**{**NOTHING, "wrong_person": 1.0, "wrong_length": 0.3}))
    other = ~torch.isclose(turned, one, atol=1e-5).flatten(2).all(-1)
    assert other.any(1).all() and other.sum(1).max() <= 9
    torch.testing.assert_close(turned.mean(3), one.mean(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned[..., 1], one[..., 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(body_sizes(turned), body_sizes(one))
    flat = bodies(20, 30, joints=17)
    mirrored = seen(flat, PoseErrors(**{**NOTHING, "wrong_person": 1.0, "wrong_length": 1.0}), COCO)
    torch.testing.assert_close(mirrored[..., 1:], flat[..., 1:], atol=1e-5, rtol=0)


def test_missing_joints_and_absent_people_stay_so():
    clips = bodies(40, 20, persons=2)
    clips[:, :, 1] = 0
    clips[:, 5:9, 0, 3] = 0
    changed = seen(clips, PoseErrors(probability=1.0, limb_gap=0.0, wrong_person=0.0))
    assert torch.equal((changed == 0).all(-1), (clips == 0).all(-1))
    every = seen(clips, PoseErrors(probability=1.0, limb_gap=1.0, wrong_person=1.0))
    assert not every[:, :, 1].any() and torch.isfinite(every).all()


def test_scores_of_2d_keypoints():
    clips = bodies(300, 10, joints=17)
    clips[..., 2] = 1
    clips[:, 2:4, 0, 5] = 0
    changed = seen(clips, PoseErrors(**ONLY_POSITIONS), COCO)
    assert not changed[:, 2:4, 0, 5].any()
    scores = changed[..., 2][clips[..., 2] > 0]
    assert 0.05 <= scores.min() and scores.max() <= 1
    assert scores.mean().item() == pytest.approx(measured()["scores"]["mean"], abs=0.03)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_joints_of_every_layout_err(layout):
    body = erring_body(get_layout(layout), LAYOUTS[layout].is_3d)
    size = body.factor.norm(dim=1)
    assert torch.isfinite(size).all() and 0.01 < size.min() and size.max() < 0.7


def test_joints_of_unknown_names_err_independently():
    body = erring_body(get_layout([[1, 0], [2, 1]]), True)
    assert torch.equal(body.factor, torch.eye(3) * body.factor[0, 0]) and 0.2 < body.factor[0, 0] < 0.4


def test_heads_face_where_shoulders_do():
    points = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(head_axes(*points), torch.eye(3))


def test_defaults_are_the_measured_ones():
    results = json.loads((Path(__file__).parents[1] / "benchmarks" / "estimators.json").read_text())["measured"]
    packaged = json.loads(MEASURED.read_text())
    for name in ("3d", "2d"):
        assert packaged[name] == {key: results[name][key] for key in packaged[name]}
    assert packaged["defaults"] == results["defaults"] and packaged["face"] == results["face"]
    errors = PoseErrors()
    assert {key: getattr(errors, key) for key in packaged["defaults"]} == packaged["defaults"]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"probability": 1.2}, r"probability must be a share in \[0, 1\], got 1.2"),
        ({"limb_gap": True}, "limb_gap must be a share"),
        ({"strength": -1}, "strength must be at least 0"),
        ({"size": 1}, "size must be at least 0 and below 1"),
        ({"strength": float("nan")}, "strength must be"),
        ({"fill": "yes"}, "fill must be true or false"),
    ],
)
def test_impossible_errors_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PoseErrors(**fields)


def test_fine_tuning_takes_the_same_errors():
    clips = bodies(8, 20, persons=2)
    clips -= clips[:, :, :1, 1:2].clone()
    augment = ClipAugmentation(1.0, 0.0, 0.0, pose_errors=PoseErrors(1.0), layout="ntu25", center_joint=1, pace=2.0)
    torch.manual_seed(0)
    augmented = augment(clips)
    expected = seen(clips, PoseErrors(1.0), step=2.0)
    torch.testing.assert_close(augmented, expected - expected[:, :, :1, 1:2])
    assert not augmented[:, :, 0, 1].any() and not torch.isclose(augmented, clips).all()
