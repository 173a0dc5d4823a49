"""Whether the encoder has to wait for reading, normalising and copying.

    python benchmarks/feed.py [--clips 2048] [--gpu] [--output benchmarks/feed.json]

Clips per second of embedding a store from disk, compared with the encoder alone on prepared clips in memory,
interleaved, medians of five: the shipped recogniser on the CPU; on a GPU also an encoder of the paper's size (hidden
size 1024) in bfloat16, replayed as a CUDA graph. `--gpu` measures only that and keeps the CPU figures in the output
file. The store holds copies of the sample clips, in the model's layout ("prepared") and in their own, which has to be
converted.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from usdrl_hub import (
    Engine,
    SkeletonStore,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLModel,
    fuse,
    iter_embeddings,
    write_store,
)
from usdrl_hub.data.samples import load_samples
from usdrl_hub.files import new_file
from usdrl_hub.records import redact_paths, run_record

sys.path.insert(0, str(Path(__file__).parent))
from data import earlier_record, medians  # noqa: E402

BATCH = 64
GPU_ROW = "hidden size 1024 on the GPU"


def make_store(path: Path, count: int, layout: str | None) -> SkeletonStore:
    samples = load_samples()
    if layout is not None:
        samples = [sample.to_layout(layout) for sample in samples]
    rows = (replace(samples[number % len(samples)], name=str(number)) for number in range(count))
    return write_store(rows, path)


def measure(engine: Engine, store: SkeletonStore) -> dict[str, float]:
    """Clips per second of both, and their ratio."""
    sequences = [store[number] for number in range(BATCH)]
    clips = engine.extractor(sequences, return_tensors="pt", device=engine.device)["keypoints"]

    def bare() -> None:
        for _ in range(len(store) // BATCH):
            engine.run(clips).pooler_output.float().cpu()

    def feed() -> None:
        for _ in iter_embeddings(store, engine, batch_size=BATCH):
            pass

    seconds = medians(5, bare=bare, feed=feed)
    rates = {name: len(store) / value for name, value in seconds.items()}
    return {**rates, "share": rates["feed"] / rates["bare"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--gpu", action="store_true", help="measure the GPU only")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    record = {"table": {}} | earlier_record(parser, arguments)
    started = time.monotonic()
    count = arguments.clips // BATCH * BATCH
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        stores = {
            "prepared": make_store(Path(name) / "prepared", count, "ntu25"),
            "of another layout": make_store(Path(name) / "own", count, None),
        }
        encoders = {}
        if not arguments.gpu:
            encoders["usdrl/tiny-uiprmd on the CPU"] = Engine.load("usdrl/tiny-uiprmd", head=False, device="cpu")
        if torch.cuda.is_available():
            large = fuse(USDRLModel(USDRLConfig()).to("cuda")).to(torch.bfloat16)
            encoders[GPU_ROW] = Engine(large, USDRLFeatureExtractor.from_model_config(large.config))
        for who, engine in encoders.items():
            for what, store in stores.items():
                rows[f"{who}, {what}"] = measure(engine, store)
    run = redact_paths(run_record(started))
    record["table"] |= rows
    if torch.cuda.is_available():
        record["gpu_run"] = {"device": torch.cuda.get_device_name(0), **run}
    if not arguments.gpu:
        record |= {"threads": torch.get_num_threads(), **run}
    print("| what | bare encoder, clips/s | embedding from disk, clips/s | share |\n|---|---|---|---|")
    for what, row in record["table"].items():
        print(f"| {what} | {row['bare']:.0f} | {row['feed']:.0f} | {100 * row['share']:.0f} % |")
    with new_file(arguments.output) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
