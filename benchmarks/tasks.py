"""What a pretrained encoder is worth on the tasks, on the open sets.

    python benchmarks/tasks.py MODEL --data DATA [--only linear retrieval ...] [--output benchmarks/tasks.json]

DATA holds the open sets in the .npz form (they cannot be part of this repository). Runs every benchmark of the list
below with `usdrl evaluate`; figures already in the output file are kept, unless --again is given. `nw_ucla` is scored
without the test clips that are copies of training clips, and with them, as papers do.
"""

import argparse
import json
from pathlib import Path

from usdrl_hub.files import new_file
from usdrl_hub.tasks.evaluate import evaluate
from usdrl_hub.tasks.results import sha256

SETS = ("utd_mhad", "nw_ucla", "utkinect", "hdm05_11")
RUNS = [
    *(f"{task}/{name}" for task in ("linear", "retrieval", "one-shot", "finetuned", "semi-10") for name in SETS),
    *(f"{task}/{name}" for task in ("early", "early-causal") for name in SETS[:3]),
    "detection/utkinect_untrimmed",
    "segmentation/utkinect_untrimmed",
]
LEAKING = ("linear/nw_ucla", "retrieval/nw_ucla", "finetuned/nw_ucla")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="Tasks to run.")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    model = sha256(arguments.model / "model.safetensors")
    table = json.loads(arguments.output.read_text())["table"] if arguments.output.is_file() else {}
    runs = [(name, False) for name in RUNS] + [(name, True) for name in LEAKING]
    for name, leak in runs:
        key = f"{name} with leak" if leak else name
        wanted = arguments.only is None or name.partition("/")[0] in arguments.only
        if not wanted or (not arguments.again and table.get(key, {}).get("encoder_sha256") == model):
            continue
        data = arguments.data / f"{name.partition('/')[2]}.npz"
        record = evaluate(arguments.model, name, data, with_leak=leak)
        kept = ("split", "n", "metrics", "seed", "recipe", "wall_seconds", "git_revision", "versions", "hardware")
        table[key] = {field: record[field] for field in kept} | {"encoder_sha256": model}
        shown = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in list(record["metrics"].items())[:6])
        print(f"| {key} | {shown} |", flush=True)
        # After each: what has been measured is not lost.
        with new_file(arguments.output) as partial:
            partial.write_text(json.dumps({"table": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
