"""Selection of the people in a recording, and tracking from frame to frame.

This file also ships as remote code, so it imports only its siblings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .errors import SkeletonFormatError
from .layouts import seen_joints
from .sequence import SkeletonSequence

# Criteria of selection, see `PersonSelection`.
CHOOSE_BY = ("energy", "confidence", "size", "frames", "order")


@dataclass(frozen=True)
class PersonSelection:
    """Which people of a recording are kept if there are more than a model reads.

    Attributes:
        num_persons: People to keep.
        by: Criterion: "energy" of motion, as in the release, "confidence", "size", "frames" or "order"; see
            `person_scores`.
        track: Whether people are tracked by their positions first, see `track_persons`.

    Raises:
        ValueError: If a field is out of range.
    """

    num_persons: int = 2
    by: str = "energy"
    track: bool = False

    def __post_init__(self) -> None:
        if self.num_persons < 1:
            raise ValueError(f"num_persons must be at least 1, got {self.num_persons}")
        if self.by not in CHOOSE_BY:
            raise ValueError(f"choose_by must be one of {', '.join(CHOOSE_BY)}, got {self.by!r}")

    def __call__(self, sequence: SkeletonSequence) -> SkeletonSequence:
        """The recording with at most `num_persons` people, the first choice first; see `tracked` and `kept`."""
        return self.kept(self.tracked(sequence))

    def tracked(self, sequence: SkeletonSequence) -> SkeletonSequence:
        """The recording with all people, tracked by their positions if `track` is set."""
        return track_persons(sequence) if self.track else sequence

    def kept(self, sequence: SkeletonSequence) -> SkeletonSequence:
        """The recording with at most `num_persons` people, the first choice first.

        Raises:
            SkeletonFormatError: If people are chosen by confidence, and the joints have no scores.
        """
        if sequence.num_persons <= self.num_persons:
            return sequence
        scores = person_scores(sequence, self.by)
        if self.by == "energy" and (scores > -np.inf).sum() <= self.num_persons:
            # Nobody is left out, so the order stays.
            scores = (scores > -np.inf).astype(np.float64)
        order = np.argsort(-scores, kind="stable")[: self.num_persons]
        return replace(sequence, keypoints=sequence.keypoints[:, order])


def motion_energy(keypoints: np.ndarray) -> np.ndarray:
    """Motion of each person of a recording, see `ragged.person_energy`.

    Args:
        keypoints: ``(T, M, V, C)``.

    Returns:
        Float64 ``(M,)``; 0 for a person who is never seen.
    """
    seen = keypoints.sum((2, 3)) != 0
    weights = seen[..., None, None]
    count = np.maximum(seen.sum(0) * keypoints.shape[2], 1)[:, None]
    frames = keypoints.astype(np.float64)
    mean = (frames * weights).sum((0, 2)) / count
    variance = (np.square(frames - mean[:, None]) * weights).sum((0, 2)) / count
    return np.sqrt(variance).sum(-1)


def person_scores(sequence: SkeletonSequence, by: str) -> np.ndarray:
    """Score of each person of a recording by a criterion of selection.

    Args:
        sequence: The recording.
        by: "energy" for `motion_energy`; "confidence" for the mean score of the joints; "size" for the median over
            frames of the diagonal around the joints seen; "frames" for the number of frames in which the person is
            seen; "order" for the order in the file, which is that of the tracks where it has tracks.

    Returns:
        Float array ``(M,)``, higher first; minus infinity for people who are never seen.

    Raises:
        SkeletonFormatError: If confidence is asked for and the joints have no score.
    """
    keypoints = sequence.keypoints.astype(np.float64)
    joints = seen_joints(keypoints)
    frames = joints.any(-1)
    if by == "energy":
        seen = sequence.keypoints.sum((2, 3)) != 0
        return np.where(seen.any(0), motion_energy(sequence.keypoints), -np.inf)
    if by == "confidence":
        if sequence.coordinates != "2d+score":
            raise SkeletonFormatError(
                f"{sequence.name or 'sequence'}: the joints have no score to choose people by: use energy or size"
            )
        scores = (keypoints[..., 2] * joints).sum((0, 2)) / np.maximum(joints.sum((0, 2)), 1)
    elif by == "size":
        points = keypoints[..., : 3 if sequence.is_3d else 2]
        low = np.where(joints[..., None], points, np.inf).min(2)
        high = np.where(joints[..., None], points, -np.inf).max(2)
        with np.errstate(invalid="ignore"):
            diagonal = np.linalg.norm(np.where(frames[..., None], high - low, 0), axis=-1)
        scores = np.array(
            [np.median(row[seen]) if seen.any() else 0 for row, seen in zip(diagonal.T, frames.T, strict=True)]
        )
    elif by == "frames":
        scores = frames.sum(0).astype(np.float64)
    else:
        scores = -np.arange(sequence.num_persons, dtype=np.float64)
    return np.where(frames.any(0), scores, -np.inf)


def track_persons(sequence: SkeletonSequence) -> SkeletonSequence:
    """Track people by their positions, so that they do not swap indices between frames.

    In each frame, persons are assigned greedily to the tracks with the nearest last position. A person without a track
    gets an unused one, else a free one. Tracks persist over frames in which their person is not seen.
    """
    keypoints = sequence.keypoints
    persons = keypoints.shape[1]
    if persons == 1:
        return sequence
    points = keypoints[..., : 3 if sequence.is_3d else 2].astype(np.float64)
    joints = seen_joints(keypoints)
    seen = joints.any(-1)
    middle = (points * joints[..., None]).sum(2) / np.maximum(joints.sum(2), 1)[..., None]
    last = np.full((persons, points.shape[-1]), np.nan)
    order = np.tile(np.arange(persons), (len(keypoints), 1))
    # Each frame depends on the one before it; empty frames change nothing.
    for frame in np.flatnonzero(seen.any(-1)):
        here = np.flatnonzero(seen[frame])
        away = np.linalg.norm(last[:, None] - middle[frame][None, here], axis=-1)
        away[np.isnan(away)] = np.inf
        track_of = np.full(persons, -1)
        while np.isfinite(away).any():
            track, column = np.unravel_index(away.argmin(), away.shape)
            track_of[here[column]] = track
            away[track], away[:, column] = np.inf, np.inf
        free = [track for track in range(persons) if track not in track_of]
        # Unused tracks come first, and a person's own index before others.
        for person in sorted(np.flatnonzero(track_of < 0), key=lambda person: not seen[frame, person]):
            unused = [track for track in free if np.isnan(last[track, 0])] if seen[frame, person] else free
            choice = unused or free
            track_of[person] = person if person in choice else choice[0]
            free.remove(track_of[person])
        last[track_of[here]] = middle[frame, here]
        order[frame, track_of] = np.arange(persons)
    linked = np.take_along_axis(keypoints, order[..., None, None], axis=1)
    return replace(sequence, keypoints=linked)
