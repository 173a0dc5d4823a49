"""Which people of a recording are kept."""

import numpy as np
import pytest
import torch

from usdrl_hub import SkeletonSequence
from usdrl_hub.persons import PersonSelection, motion_energy
from usdrl_hub.ragged import RaggedFrames, person_energy, select_persons


def crowd(people=5):
    rng = np.random.default_rng(0)
    keypoints = rng.normal(size=(30, people, 25, 3)).astype(np.float32) * np.arange(people)[:, None, None]
    keypoints[3:9, 2] = 0
    return SkeletonSequence(keypoints)


def test_energy_and_the_people_chosen_by_it_are_those_of_batches():
    sequence = crowd()
    batch = RaggedFrames(torch.from_numpy(sequence.keypoints), torch.tensor([sequence.num_frames]))
    np.testing.assert_allclose(motion_energy(sequence.keypoints), person_energy(batch)[0].numpy(), rtol=1e-12)
    for count in (1, 2, 4):
        kept = PersonSelection(count)(sequence)
        np.testing.assert_array_equal(kept.keypoints, select_persons(batch, count).frames.numpy())


def test_where_no_more_are_seen_than_are_kept_their_order_stays():
    kept = PersonSelection(4)(crowd())
    np.testing.assert_array_equal(kept.keypoints, crowd().keypoints[:, 1:])


@pytest.mark.parametrize("fields", [{"num_persons": 0}, {"by": "luck"}])
def test_impossible_selections_are_refused(fields):
    with pytest.raises(ValueError, match="num_persons|choose_by"):
        PersonSelection(**fields)
