"""Frames of a film a second from which BlazePose finds people, on one core, decoding included.

    python benchmarks/film.py FILM [--output benchmarks/film.json]

The median of three passes over the film, with the models of the package.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from usdrl_hub.files import new_file
from usdrl_hub.inference.blazepose import BlazePoseEstimator
from usdrl_hub.records import redact_paths, run_record

RATE = 30


def frames(film: Path) -> Iterator[np.ndarray]:
    """Decode a film in one thread."""
    with av.open(str(film)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    started, estimator, rates, most = time.monotonic(), BlazePoseEstimator(num_threads=1), [], 0
    for _ in range(3):
        begun = time.perf_counter()
        people = [len(found) for found in estimator.track(frames(arguments.film), RATE)]
        rates.append(len(people) / (time.perf_counter() - begun))
        most = max(people)
    shape = next(frames(arguments.film)).shape
    figures = {"frames": len(people), "people": most, "height": shape[0], "width": shape[1]}
    figures["frames_per_second"] = statistics.median(rates)
    with new_file(arguments.output) as partial:
        partial.write_text(json.dumps({**figures, "run": redact_paths(run_record(started))}, indent=2) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
