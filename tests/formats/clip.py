"""The shipped deep squat as other programs see it, and where real files of such programs lie."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from usdrl_hub import convert_layout, get_layout
from usdrl_hub.data.samples import load_samples
from usdrl_hub.sequence import SkeletonSequence

# Files that are too large for the repository, or not free to copy, where they are beside it.
SHARED = next(
    (folder / "shared" / "recordings" for folder in Path(__file__).parents if (folder / "shared").is_dir()),
    Path("no such folder"),
)
GENERATED = SHARED / "generated"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared/recordings is not here")


@cache
def squat(layout: str = "ntu25") -> np.ndarray:
    """Joints ``(86, V, 3)`` of the first deep squat, metres and y up."""
    clip = next(clip for clip in load_samples() if clip.label == 0)
    return convert_layout(np.asarray(clip.keypoints), clip.layout, layout)[:, 0]


def pixels(layout: str = "coco17") -> np.ndarray:
    """Joints ``(86, V, 2)`` of the squat in an image of 1920 x 1080."""
    return (960, 540) + (200, -200) * squat(layout)[..., :2]


def scored(points: np.ndarray, score: float = 0.9) -> np.ndarray:
    """Points ``(..., 2)`` with a score."""
    return np.concatenate([points, np.full_like(points[..., :1], score)], axis=-1)


def landmarks() -> np.ndarray:
    """World landmarks ``(86, 33, 3)`` of MediaPipe: metres, y down, the middle of the hips at the origin."""
    points = squat("mediapipe33") * (1, -1, -1)
    return points - (points[:, 23] + points[:, 24])[:, None] / 2


def same_squat(sequence: SkeletonSequence, atol: float = 1e-4, by_way_of: str = "ntu25") -> None:
    """Check that a 3D recording is the squat, upright, left being left, but for where it stands in each frame.

    Args:
        sequence: The recording.
        atol: Metres that it may be off, as its format rounds.
        by_way_of: Layout that the file's writer had, which may lack joints.
    """
    found = sequence.to_layout("ntu25").keypoints[:, 0]
    expected = convert_layout(squat(by_way_of), by_way_of, "ntu25", up="y")
    assert sequence.is_3d and found.shape == expected.shape
    np.testing.assert_allclose(found - found[:, :1], expected - expected[:, :1], atol=atol)


def is_upright(sequence: SkeletonSequence) -> None:
    """Check that most people of a recording stand on their feet and, in 3D, have their left on their left."""
    target = "ntu25" if sequence.is_3d else "coco17"
    keypoints, names = sequence.to_layout(target).keypoints, get_layout(target).joint_names
    seen = keypoints.any((2, 3))
    sign = 1 if sequence.is_3d else -1

    def at(name: str) -> np.ndarray:
        return keypoints[..., names.index(name), :][seen]

    top, hip = at("head" if sequence.is_3d else "nose"), at("left_hip")
    both = top.any(-1) & hip.any(-1)
    assert (sign * top[both][:, 1] > sign * hip[both][:, 1]).mean() > 0.9
    if sequence.is_3d:
        # The nose or the toes point ahead, and ahead is left x up.
        ahead = np.cross(at("left_shoulder") - at("right_shoulder"), at("neck") - at("spine_base"))
        toes = at("left_foot") - at("left_ankle")
        assert not toes.any() or (np.einsum("nc,nc->n", ahead, toes) > 0).mean() > 0.5
