"""The sample clips of the package: motion capture of UI-PRMD (Vicon), public domain."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..files import new_file
from .arrays import load_npz
from .npz import SkeletonDataset

_TERMS = (
    "UI-PRMD (University of Idaho Physical Rehabilitation Movements Data, Vicon part), Open Data Commons Public "
    "Domain Dedication and License (PDDL) 1.0; float16, so off by up to 1 mm"
)
# One of the ten repetitions of each movement.
_REPETITION = "_e05"


def sample_path() -> Path:
    """The ``.npz`` file of the sample clips.

    Ten rehabilitation movements by the five subjects with even numbers, each performed once correctly and once
    incorrectly; 39 markers (layout ``ui-prmd39``), metres, z up. `terms` in the file gives the source and licence.
    """
    return Path(__file__).parent / "uiprmd_samples.npz"


def load_samples() -> SkeletonDataset:
    """The sample clips, see `sample_path`."""
    return SkeletonDataset.from_arrays(load_npz(sample_path()), str(sample_path()))


def write_samples(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Write the sample clips, selected from UI-PRMD.

    Args:
        source: The data set in the ``.npz`` form of `SkeletonDataset`.
        path: File to write.
    """
    dataset = SkeletonDataset.from_arrays(load_npz(source), str(source))
    names, subjects = dataset.fields["names"], dataset.fields["subjects"]
    chosen = np.array([_REPETITION in str(name) for name in names]) & (subjects % 2 == 0)
    part = dataset.select(chosen)
    clips = [part.frames[part.offsets[number] : part.offsets[number + 1]] for number in part.selection]
    columns = {key: part.fields[key][part.selection] for key in ("labels", "subjects", "names", "correct")}
    same = {key: part.fields[key] for key in ("class_names", "joint_names", "edges", "fps")}
    offsets = np.cumsum([0, *map(len, clips)])
    arrays: dict[str, Any] = {
        "data": np.concatenate(clips),
        "offsets": offsets,
        "terms": np.array(_TERMS),
        **columns,
        **same,
    }
    with new_file(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    write_samples(sys.argv[1], sample_path())
