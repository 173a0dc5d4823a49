"""Frames of a film a second from which BlazePose finds people, on one core, decoding included.

    python benchmarks/film.py FILM [--output benchmarks/film.json]

FILM is NTU RGB+D's sample film, S001C001P001R001A001_rgb.avi. Two people are its person and her mirror image, each
walking on her side of a film that is written here. The median of three passes, with the models of the package.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers import crossing, write_film  # noqa: E402
from usdrl_hub.files import new_file  # noqa: E402
from usdrl_hub.inference.blazepose import BlazePoseEstimator  # noqa: E402
from usdrl_hub.records import redact_paths, run_record  # noqa: E402

RATE = 30
# Columns over which each of two people walks.
APART = (1450, 1150), (150, 450)


def frames(film: Path) -> Iterator[np.ndarray]:
    """Decode a film in one thread."""
    with av.open(str(film)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def measure(film: Path) -> dict[str, float]:
    """Figures of a film; people are the fewest and the most that are found in a frame."""
    estimator, rates, people = BlazePoseEstimator(num_threads=1), [], [0]
    for _ in range(3):
        begun = time.perf_counter()
        people = [len(found) for found in estimator.track(frames(film), RATE)]
        rates.append(len(people) / (time.perf_counter() - begun))
    shape = next(frames(film)).shape
    figures = {"frames": len(people), "fewest_people": min(people), "people": max(people)}
    return {**figures, "height": shape[0], "width": shape[1], "frames_per_second": statistics.median(rates)}


def main() -> None:
    """Measure both films and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    started, figures = time.monotonic(), dict[str, Any](measure(arguments.film))
    with tempfile.TemporaryDirectory() as folder:
        two = write_film(Path(folder) / "two.avi", crossing(list(frames(arguments.film)), APART), RATE)
        figures["two_people"] = measure(two)
    with new_file(arguments.output) as partial:
        partial.write_text(json.dumps({**figures, "run": redact_paths(run_record(started))}, indent=2) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
