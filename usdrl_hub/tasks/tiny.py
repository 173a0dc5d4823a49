"""Untrimmed recordings made of the clips that ship, for trials of detection and segmentation."""

from __future__ import annotations

import numpy as np

from ..data.npz import SkeletonDataset
from ..data.samples import load_samples


def tiny_recordings() -> SkeletonDataset:
    """Untrimmed recordings of the clips that ship: a person's movements one after another.

    Before each movement the person stands still in its first frame for half a second, which is background.
    """
    samples = load_samples()
    frames, truth, offsets, people = [], [], [0], []
    for subject in sorted(set(np.asarray(samples.column("subjects")).tolist())):
        for half in range(4):
            clips = [clip for clip in samples if clip.subject == subject][half::4]
            for clip in clips:
                rest = np.repeat(clip.keypoints[:1], 16, axis=0)
                frames += [rest, clip.keypoints[::3]]
                truth += [np.full(16, -1), np.full(len(clip.keypoints[::3]), clip.label)]
            offsets.append(sum(map(len, frames)))
            people.append(subject)
    arrays = {
        "data": np.concatenate(frames),
        "offsets": np.array(offsets),
        "subjects": np.array(people),
        "labels": np.zeros(len(people), dtype=np.int64),
        "frame_labels": np.concatenate(truth),
        "class_names": np.array(samples.class_names),
        "joint_names": samples.fields["joint_names"],
        "edges": samples.fields["edges"],
        "up": np.array("z"),
    }
    return SkeletonDataset.from_arrays(arrays, "clips that ship with the package")
