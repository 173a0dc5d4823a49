"""Cost and latency of a frame in live recognition.

    python benchmarks/streaming.py [--output benchmarks/streaming.json]

The sample clips are pushed frame by frame through `USDRLStream`, in the model's own layout: with the shipped
recogniser, and with encoders of the paper's size (hidden size 1024, random weights), in sliding windows with a result
in every frame or in every eighth, and causal with a cache. For 1 and 8 people: the time of a push, median and 95th
percentile over pushes with a result, and the mean over all pushes per person and frame. For comparison, a causal
encoder also recomputes its whole clip in every frame.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from usdrl_hub import (
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLForEarlyActionPrediction,
    USDRLStream,
    fuse,
)
from usdrl_hub.data.samples import load_samples
from usdrl_hub.files import new_file
from usdrl_hub.records import redact_paths, run_record

WARM, FRAMES = 70, 160
PEOPLE = (1, 8)


def large(kind, **fields):
    torch.manual_seed(0)
    return kind(USDRLConfig(layout="ntu25", num_labels=60, **fields)).eval()


def measure(stream: USDRLStream, people: int, frames: int) -> dict[str, float]:
    """Seconds of pushes for a number of people, after a warm-up that fills the windows."""
    extractor = USDRLFeatureExtractor(num_persons=1, normalization="none", max_frames=None)
    clips = [extractor.prepare(sample).keypoints for sample in load_samples()[:people]]
    answered, total = [], 0.0
    for time_step in range(WARM + frames):
        given = {number: clip[time_step % len(clip)] for number, clip in enumerate(clips)}
        started = time.perf_counter()
        results = stream.push_many(given)
        seconds = time.perf_counter() - started
        if time_step >= WARM:
            total += seconds
            if results:
                answered.append(seconds)
    cuts = statistics.quantiles(answered, n=20)
    return {"median": cuts[9], "p95": cuts[18], "per_frame_and_person": total / frames / people}


def again(model: USDRLForEarlyActionPrediction, people: int) -> dict[str, float]:
    """Seconds of a causal model that recomputes whole clips."""
    clips = torch.randn(people, model.config.num_frames, model.config.num_persons, 25, 3)
    seconds = []
    with torch.inference_mode():
        for _ in range(12):
            started = time.perf_counter()
            model(clips)
            seconds.append(time.perf_counter() - started)
    cuts = statistics.quantiles(seconds[2:], n=20)
    return {"median": cuts[9], "p95": cuts[18], "per_frame_and_person": statistics.mean(seconds[2:]) / people}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recogniser = fuse(large(USDRLForActionRecognition).to(device))
    causal = large(USDRLForEarlyActionPrediction, is_causal=True).to(device)
    rows = {}
    for people in PEOPLE:
        streams = {
            "usdrl/tiny-uiprmd, every frame": lambda: USDRLStream(device=device),
            "usdrl/tiny-uiprmd, every 8th frame": lambda: USDRLStream(stride=8, device=device),
            "hidden size 1024, every 8th frame": lambda: USDRLStream(recogniser, stride=8),
            "hidden size 1024, causal, every frame": lambda: USDRLStream(causal),
        }
        for name, make in streams.items():
            rows[f"{name}, people: {people}"] = measure(make(), people, FRAMES)
        if device == "cpu":
            rows[f"the same without what is kept, people: {people}"] = again(causal, people)
    print(f"{device}, {torch.get_num_threads()} threads\n")
    print("| what | ms a push, median | 95th percentile | ms a frame and person |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{1000 * value:.2f}" for value in row.values()) + " |")
    record = {
        "table": rows,
        "device": device,
        "threads": torch.get_num_threads(),
        **redact_paths(run_record(started)),
    }
    with new_file(arguments.output) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
