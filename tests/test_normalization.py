import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from usdrl_hub import SkeletonSequence, USDRLFeatureExtractor
from usdrl_hub.errors import USDRLWarning
from usdrl_hub.layouts import get_layout
from usdrl_hub.normalization import Geometry, clip_batch, normalize_further, normalize_sequences, resize, rotation_onto
from usdrl_hub.ragged import RaggedFrames, fill_joints, person_energy, select_persons, truncate

from .conftest import relative_error
from .helpers import raw_sequences

TOLERANCE = 1e-6
NTU = Geometry(1, (4, 8))
GOLDENS = {
    "normalize_ntu25": NTU,
    "normalize_ntu25_zx": Geometry(1, (8, 4), (0, 1)),
    "normalize_uav17": Geometry(1, z_axis=(11, 5)),
}


def ragged(sequences) -> RaggedFrames:
    return RaggedFrames(
        torch.cat([torch.as_tensor(np.ascontiguousarray(sequence)) for sequence in sequences]),
        torch.tensor([len(sequence) for sequence in sequences]),
    )


def split(batch: RaggedFrames) -> list[np.ndarray]:
    return [part.numpy() for part in batch.frames.split(batch.lengths.tolist())]


@pytest.mark.parametrize("name", GOLDENS)
def test_whole_sequences_are_normalised_as_the_release_does(golden, name):
    source = "normalize_uav17" if "uav" in name else "normalize_ntu25"
    expected = golden(name)["normalized_NCTVM"]
    for number, actual in enumerate(split(normalize_sequences(ragged(raw_sequences(golden, source)), GOLDENS[name]))):
        assert relative_error(actual, expected[number][:, : len(actual)].transpose(1, 3, 2, 0)) < TOLERANCE


FLAT = Geometry.preset("body-2d", get_layout("coco17"))


def flat_clip(seed: int = 0, frames: int = 20, persons: int = 1) -> torch.Tensor:
    """A clip of 2D keypoints with scores, in pixels."""
    points = torch.randn(frames, persons, 17, 2, generator=torch.Generator().manual_seed(seed)) * 40 + 300
    return torch.cat([points, torch.full((frames, persons, 17, 1), 0.9)], -1)


def test_a_flat_body_is_centred_over_the_clip_and_scaled_by_its_joints():
    # Two joints, 2 apart and then 4 apart: 1 and 2 from their middle, 1.5 on average, and (3, 5) is the middle.
    frames = torch.tensor([[[2.0, 5.0, 0.7], [4.0, 5.0, 0.8]], [[3.0, 3.0, 0.9], [3.0, 7.0, 1.0]]])[:, None]
    placed = normalize_sequences(ragged([frames]), Geometry(body_size=3.0)).frames[:, 0]
    np.testing.assert_allclose(placed[..., :2], [[[-2, 0], [2, 0]], [[0, -4], [0, 4]]], atol=1e-6)
    np.testing.assert_array_equal(placed[..., 2], frames[:, 0, :, 2])


@given(
    scale=st.floats(0.01, 100), shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)), seed=st.integers(0, 999)
)
def test_a_flat_body_is_the_same_wherever_it_stands_in_a_picture_of_any_size(scale, shift, seed):
    clip = flat_clip(seed, persons=2)
    clip[3, 0, 5] = 0
    moved = clip.clone()
    moved[..., :2] = (moved[..., :2] + torch.tensor(shift)) * scale
    moved[3, 0, 5] = 0
    first, second = (clip_batch(ragged([part]), 16, FLAT) for part in (clip, moved))
    np.testing.assert_allclose(first, second, atol=2e-3)
    [whole] = split(normalize_sequences(ragged([clip]), FLAT))
    assert (whole[3, 0, 5] == 0).all() and np.abs(whole[..., :2]).max() > 0.1


def test_a_flat_body_of_which_one_joint_is_seen_has_no_size_and_counts_as_unseen():
    clip = flat_clip()
    clip[..., 1:, :] = 0
    assert not normalize_sequences(ragged([clip]), FLAT).frames[..., :2].any()
    # Unseen joints stand where the nearest seen one is, so all of them are in one point.
    extractor = USDRLFeatureExtractor(layout="coco17", normalization="body-2d", num_persons=1, fill_joints=True)
    with pytest.warns(USDRLWarning, match="^lone: one joint at most is seen at a time, .* counts as unseen$"):
        clips = extractor(SkeletonSequence(clip.numpy(), "coco17", name="lone"), return_tensors="pt")["keypoints"]
    assert not clips[..., :2].any()


def test_later_frames_of_a_flat_body_are_placed_as_its_beginning():
    clip = flat_clip(frames=30)
    beginning, rest = ragged([clip[:20]]), clip[None, 20:]
    middle, size = clip[:20, 0, :, :2].mean((0, 1)), FLAT.body_size
    away = clip[:20, 0, :, :2] - clip[:20, 0, :, :2].mean(1, keepdim=True)
    expected = (rest[..., :2] - middle) * size / away.square().sum(-1).mean(1).sqrt().mean()
    np.testing.assert_allclose(normalize_further(beginning, rest, FLAT)[..., :2], expected, atol=1e-5)


def test_a_single_flat_frame_whose_joints_cancel_is_not_taken_for_an_empty_one():
    # About the origin its coordinates sum to zero, which stands for nobody in the release's rules.
    square = torch.tensor([[1.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 3.0]])
    batch = ragged([square.expand(5, 1, 4, 2).clone()])
    [placed] = split(normalize_sequences(batch, Geometry(body_size=2.0**0.5)))
    np.testing.assert_allclose(placed[:, 0], np.broadcast_to([[-1, -1], [1, -1], [1, 1], [-1, 1]], (5, 4, 2)))
    nobody = ragged([torch.zeros(5, 1, 4, 2)])
    assert (normalize_sequences(nobody, Geometry(body_size=1.0)).frames == 0).all()


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("body-2d", "ntu25", "is for 2D keypoints, but layout 'ntu25' is 3D"),
        ("body", "coco17", "is for 3D joints, but layout 'coco17' is 2D: use 'body-2d'"),
    ],
)
def test_bodies_in_pictures_and_in_space_are_not_confused(name, layout, message):
    with pytest.raises(ValueError, match=message):
        Geometry.preset(name, get_layout(layout))
    for size in (-1.0, float("inf"), float("nan"), "x"):
        with pytest.raises(ValueError, match="body_size must be above 0"):
            Geometry.preset("body-2d", get_layout("coco17"), body_size=size)
    with pytest.raises(ValueError, match="body_size is for 2D keypoints, but layout 'ntu25' is 3D"):
        Geometry.preset("ntu", get_layout("ntu25"), body_size=0.3)


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_clips_are_cropped_and_resized_as_the_release_does(golden, ratio):
    file = golden("feeder_ntu25")
    clips = clip_batch(ragged(raw_sequences(golden)), 64, NTU, ratio)
    # The release has no half crop of the one-frame sequence.
    for number in range(6 if ratio == 1 else 5):
        expected = file[f"s{number}_r{ratio}_crop"].transpose(1, 3, 2, 0)
        assert relative_error(clips[number], expected) < TOLERANCE


def test_a_preset_is_the_geometry_of_a_normalization_and_changes_come_first():
    layout = get_layout("ntu25")
    assert Geometry.preset("ntu", layout) == Geometry(1, layout.x_axis)
    assert Geometry.preset("none", layout) == Geometry(fill=False)
    assert Geometry.preset("body", layout, x_axis=[0, 1], torso=None).x_axis == [0, 1]
    with pytest.raises(ValueError, match="joints 0 to 24"):
        Geometry.preset("ntu", layout, torso=[0, 25])


# A second, slow implementation of the same rules, one frame and joint at a time.


def slow_rotation(vector, target):
    axis = np.cross(vector, target)
    if np.abs(vector).sum() < 1e-6 or np.abs(axis).sum() < 1e-6:
        return np.eye(3)
    angle = np.arccos(np.clip(np.dot(vector / np.linalg.norm(vector), target), -1, 1))
    if abs(angle) < 1e-6:
        return np.eye(3)
    u = axis / np.linalg.norm(axis)
    outer = np.outer(u, u)
    cross = np.array([[0, -u[2], u[1]], [u[2], 0, -u[0]], [-u[1], u[0], 0]])
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * outer


def slow_normalize(sequence, center_joint, x_axis=None, z_axis=None):
    people = [sequence[:, person].astype(np.float64) for person in range(sequence.shape[1])]
    for number, person in enumerate(people):
        if not person.any():
            continue
        if person[0].sum() == 0:
            kept = [frame for frame in person if frame.sum() != 0]
            person = np.array(kept + [np.zeros_like(person[0])] * (len(person) - len(kept)))
        tail = next((t for t in range(len(person)) if not person[t:].any()), len(person))
        people[number] = np.array([person[t] if t < tail else person[t % tail] for t in range(len(person))])
    out = np.stack(people, axis=1)
    center = out[:, 0, center_joint].copy()
    for t, m, v in np.ndindex(out.shape[:3]):
        out[t, m, v] = 0 if out[t, m, v].sum() == 0 else out[t, m, v] - center[t]
    for joints, target in ((z_axis, [0, 0, 1]), (x_axis, [1, 0, 0])):
        if joints is not None:
            rotation = slow_rotation(out[0, 0, joints[1]] - out[0, 0, joints[0]], np.array(target, float))
            out = np.einsum("tmvc,dc->tmvd", out, rotation)
    return out


@st.composite
def sequences(draw):
    """Short sequences with empty frames and joints anywhere, late and absent people."""
    count = draw(st.integers(1, 4))
    result = []
    for _ in range(count):
        frames, persons = draw(st.integers(1, 9)), 2
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        sequence = rng.normal(size=(frames, persons, 12, 3))
        sequence[rng.random((frames, persons)) < draw(st.sampled_from([0, 0.3, 0.7]))] = 0
        sequence[rng.random((frames, persons, 12)) < draw(st.sampled_from([0, 0.2]))] = 0
        if draw(st.booleans()):
            sequence[: draw(st.integers(0, frames)), 1] = 0
        if draw(st.booleans()):
            sequence[draw(st.integers(0, frames)) :] = 0
        if draw(st.integers(0, 5)) == 0:
            # The shoulders point exactly away from +x.
            sequence[0, 0, [4, 8]] = [[2, 0, 0], [-1, 0, 0]]
        result.append(sequence)
    return result


@settings(max_examples=150, deadline=None)
@given(sequences(), st.sampled_from([None, (4, 8)]), st.sampled_from([None, (0, 1)]))
def test_gaps_late_people_and_opposite_vectors_follow_the_rules(batch, x_axis, z_axis):
    normalised = split(normalize_sequences(ragged(batch), Geometry(1, x_axis, z_axis)))
    clips = clip_batch(ragged(batch), 16, Geometry(1, x_axis, z_axis))
    for sequence, actual, clip in zip(batch, normalised, clips, strict=True):
        expected = slow_normalize(sequence, 1, x_axis, z_axis)
        np.testing.assert_allclose(actual, expected, atol=1e-9)
        interpolated = torch.nn.functional.interpolate(
            torch.from_numpy(expected.reshape(len(expected), -1).T[None]), size=16, mode="linear"
        )
        np.testing.assert_allclose(clip.reshape(16, -1).T, interpolated[0], atol=1e-9)


@settings(deadline=None)
@given(sequences(), st.randoms())
def test_a_sequence_does_not_depend_on_its_batch(batch, random):
    together = clip_batch(select_persons(ragged(batch), 2), 16, NTU)
    number = random.randrange(len(batch))
    alone = clip_batch(select_persons(ragged([batch[number]]), 2), 16, NTU)
    assert torch.equal(together[number], alone[0])


@pytest.mark.parametrize("missing", [False, True])
def test_a_body_far_away_keeps_its_digits_whoever_is_beside_it(missing):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(90, 2, 25, 3, generator=generator) + torch.tensor([1000.0, 0, -3000])
    if missing:
        frames[5, 0, 7] = 0
    lengths, turns = torch.tensor([90]), Geometry(1, (4, 8), (0, 1))
    far = clip_batch(RaggedFrames(frames, lengths), 64, turns)
    expected = clip_batch(RaggedFrames(frames.double(), lengths), 64, turns)
    torch.testing.assert_close(far.double(), expected, rtol=1e-5, atol=1e-5)
    near = torch.randn(40, 2, 25, 3, generator=generator)
    both = RaggedFrames(torch.cat([frames, near]), torch.tensor([90, 40]))
    together, alone = clip_batch(both, 64, turns), clip_batch(RaggedFrames(near, torch.tensor([40])), 64, turns)
    assert torch.equal(together[0], far[0]) and torch.equal(together[1], alone[0])


@pytest.mark.parametrize("absent", [False, True])
def test_a_whole_sequence_has_the_same_digits_beside_one_with_missing_joints(absent):
    generator = torch.Generator().manual_seed(0)
    for frames in (5, 63, 64, 200):
        whole, broken = (torch.randn(frames + more, 2, 25, 3, generator=generator) + 2 for more in (0, 7))
        broken[3, 0, 7] = 0
        if absent:
            whole[:, 1] = 0
        alone = RaggedFrames(whole, torch.tensor([frames]))
        beside = RaggedFrames(torch.cat([whole, broken]), torch.tensor([frames, frames + 7]))
        first, second = (clip_batch(batch, 64, Geometry(1, (4, 8), (0, 1)))[0] for batch in (alone, beside))
        assert torch.equal(first, second)
        assert bool((first[:, 1] == 0).all()) == absent


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_rotations_are_rotations_onto_the_target(vector):
    rotation = rotation_onto(torch.tensor([vector], dtype=torch.float64), (1.0, 0.0, 0.0))[0]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)
    turned = rotation.numpy() @ vector
    length = np.linalg.norm(vector)
    if length > 1e-3 and np.linalg.norm(vector[1:]) > 1e-3:
        np.testing.assert_allclose(turned, [length, 0, 0], atol=1e-6)


def test_an_opposite_vector_stays():
    rotation = rotation_onto(torch.tensor([[-2.0, 0, 0]]), (1.0, 0.0, 0.0))
    torch.testing.assert_close(rotation[0], torch.eye(3, dtype=torch.float64))


def test_energy_is_the_population_deviation_of_seen_frames(golden):
    sequence = raw_sequences(golden)[1].copy()
    sequence[:5] = 0
    energy = person_energy(ragged([sequence]))[0]
    for person in range(2):
        seen = sequence[:, person][sequence[:, person].sum((1, 2)) != 0].astype(np.float64)
        expected = sum(seen[..., axis].std() for axis in range(3)) if len(seen) else 0
        assert energy[person] == pytest.approx(expected, rel=1e-9)


def test_the_most_energetic_people_are_kept_and_absent_ones_come_last():
    rng = np.random.default_rng(0)
    crowd = rng.normal(size=(20, 5, 25, 3)) * np.array([1, 0, 5, 3, 4])[:, None, None]
    pair = np.concatenate([np.zeros((7, 1, 25, 3)), rng.normal(size=(7, 1, 25, 3)), np.zeros((7, 3, 25, 3))], axis=1)
    kept = split(select_persons(ragged([crowd, pair]), 2))
    np.testing.assert_array_equal(kept[0], crowd[:, [2, 4]])
    np.testing.assert_array_equal(kept[1], pair[:, [1, 0]])
    # As many as wanted: the order given stays, whoever moves most.
    few = crowd[:, [3, 2]]
    np.testing.assert_array_equal(split(select_persons(ragged([few]), 2))[0], few)
    assert split(select_persons(ragged([few]), 3))[0].shape == (20, 3, 25, 3)


def test_frames_past_the_limit_are_left_out():
    long, short = np.ones((310, 1, 25, 3)), 2 * np.ones((3, 1, 25, 3))
    kept = truncate(ragged([long, short]), 300)
    assert kept.lengths.tolist() == [300, 3] and kept.frames[300:].eq(2).all()


@given(st.integers(1, 200), st.integers(1, 80))
def test_resizing_is_torch_linear_interpolation(length, size):
    frames = torch.randn(length, 4, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(frames.T[None], size=size, mode="linear")[0].T
    torch.testing.assert_close(resize(frames, size), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["ntu25", "coco17", "ui-prmd39", "mediapipe33"]))
# Twelve and thirteen bones away.
@example(14272, "ui-prmd39")
def test_missing_joints_are_put_where_their_nearest_neighbours_are(seed, name):
    layout, rng = get_layout(name), np.random.default_rng(seed)
    frames = rng.normal(size=(5, 2, layout.num_joints, 3)).astype(np.float32)
    frames[rng.random(frames.shape[:3]) < rng.uniform(0, 1)] = 0
    filled = fill_joints(torch.from_numpy(frames), torch.from_numpy(layout.distances)).numpy()
    for frame, person in np.ndindex(5, 2):
        seen = frames[frame, person].any(-1)
        np.testing.assert_array_equal(filled[frame, person][seen], frames[frame, person][seen])
        if not seen.any():
            assert not filled[frame, person].any()
            continue
        for joint in np.flatnonzero(~seen):
            away = np.where(seen, layout.distances[joint], 99)
            nearest = frames[frame, person][away == away.min()].mean(0)
            np.testing.assert_allclose(filled[frame, person, joint], nearest, atol=0.2)
