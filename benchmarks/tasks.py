"""Results of a pretrained encoder on the tasks, on the open sets.

    python benchmarks/tasks.py MODEL --data DATA [--group open] [--only linear ...] [--output benchmarks/tasks.json]
    python benchmarks/tasks.py --table

DATA holds the open sets as .npz files (they cannot be part of this repository). Runs every benchmark of a group
with `usdrl evaluate`; figures already in the output file are kept, unless --again is given. The groups, by what MODEL
must be:

open      usdrl/mocap-tiny's folder, or another encoder of 3D motion not pretrained on people of the test parts
flat      usdrl/mocap-2d's folder, or another encoder of 2D keypoints
averaged  as open, after it and with the same --keep: its detector with averaging over the shift gap
transfer  a recogniser fine-tuned on the set named by --source; its encoder is tested on the other sets

`nw_ucla` is scored without the test clips that are copies of training clips, and with them, as in papers. --table
prints the tables.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from usdrl_hub.facts.benchmarks import BENCHMARKS
from usdrl_hub.files import new_file
from usdrl_hub.records import redact_paths, sha256
from usdrl_hub.tasks.evaluate import evaluate

SETS = ("utd_mhad", "nw_ucla", "utkinect", "hdm05_11")


@dataclass(frozen=True)
class Run:
    """A benchmark and the split of its data."""

    benchmark: str
    leak: bool = False
    fold: int = 0
    averaged: bool = False

    @property
    def key(self) -> str:
        """Its name in the table."""
        fold = f" fold {self.fold}" if BENCHMARKS[self.benchmark].dataset == "sbu" else ""
        return self.benchmark + fold + (" with leak" if self.leak else "") + (", averaged" if self.averaged else "")


GROUPS = {
    "open": [
        *(Run(f"{task}/{name}") for task in ("linear", "retrieval", "one-shot", "finetuned") for name in SETS),
        Run("linear/nw_ucla", leak=True),
        Run("retrieval/nw_ucla", leak=True),
        Run("finetuned/nw_ucla", leak=True),
        Run("detection/utkinect_untrimmed"),
        Run("segmentation/utkinect_untrimmed"),
        *(Run(f"early-causal/{name}") for name in SETS[:3]),
        *(Run(f"early/{name}") for name in SETS[:3]),
        *(Run(f"semi-10/{name}") for name in SETS),
        *(Run(f"{task}/sbu", fold=fold) for task in ("linear", "finetuned") for fold in range(5)),
        *(Run(f"{task}/ui_prmd_vicon-correct") for task in ("linear", "finetuned")),
        Run("detection/msrc12"),
    ],
    "flat": [Run(f"{task}/jhmdb") for task in ("linear", "retrieval", "finetuned")],
    "averaged": [Run("detection/utkinect_untrimmed", averaged=True)],
    "transfer": [Run(f"transfer/{name}") for name in SETS],
}


# Nearest neighbour on the raw resized joints, as the README of DATA states it.
RAW = {"utd_mhad": 0.854, "nw_ucla": 0.697, "nw_ucla with leak": 0.759, "utkinect": 0.859, "hdm05_11": 0.990}
COLUMNS = (
    ("retrieval", "accuracy_1nn", "1-NN"),
    ("linear", "accuracy", "linear"),
    ("one-shot", "accuracy_mean", "one-shot"),
    ("finetuned", "accuracy", "fine-tuned"),
    ("semi-10", "accuracy_mean", "10 % of the labels"),
    ("early", "mean_accuracy", "early"),
    ("early-causal", "mean_accuracy", "early, causal"),
)


# What is shown of the other tasks.
SHOWN = ("accuracy", "accuracy_1nn", "point_F1", "mAP_action@0.5", "mAP_video@0.5", "F1@0.5", "frame_accuracy", "edit")
SHOWN += ("F1@10", "F1@25", "F1@50")


def print_tables(table: dict[str, dict]) -> None:
    """Print Markdown: a table of recognition by set, then a table of the other figures."""

    def percent(key: str, metric: str) -> str:
        return f"{100 * table[key]['metrics'][metric]:.1f}" if key in table else ""

    print("| set | raw joints | " + " | ".join(title for _, _, title in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, raw in RAW.items():
        cells = [percent(f"{task}/{name}", metric) for task, metric, _ in COLUMNS]
        print(f"| {name} | {100 * raw:.1f} | " + " | ".join(cells) + " |")
    print("\n| what | figures, % |\n|---|---|")
    shown = {f"{task}/{name}" for task, _, _ in COLUMNS for name in RAW}
    for key, record in table.items():
        if key not in shown and " fold " not in key:
            metrics = record["metrics"]
            print(
                f"| `{key}` | {', '.join(f'{name} {100 * metrics[name]:.1f}' for name in SHOWN if name in metrics)} |"
            )
    for task in ("linear", "finetuned"):
        folds = [record["metrics"]["accuracy"] for key, record in table.items() if key.startswith(f"{task}/sbu fold")]
        if len(folds) == 5:
            spread = 100 * statistics.stdev(folds)
            print(f"| `{task}/sbu`, five folds | accuracy {100 * statistics.mean(folds):.1f} ± {spread:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--table", action="store_true", help="Print what has been measured, and do nothing else.")
    parser.add_argument("--group", choices=GROUPS, default="open")
    parser.add_argument("--only", nargs="+", help="Tasks to run.")
    parser.add_argument("--sets", nargs="+", help="Data sets to run on.")
    parser.add_argument("--source", default="", help="With the group transfer: the set that MODEL was fine-tuned on.")
    parser.add_argument("--keep", type=Path, help="Folder for the trained models.")
    parser.add_argument("--seed", type=int, default=0, help="Of heads, orders and draws; figures of others are named.")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    if arguments.table:
        print_tables(json.loads(arguments.output.read_text())["table"])
        return
    if arguments.model is None or arguments.data is None:
        parser.error("name a MODEL and --data")
    if arguments.group == "averaged" and arguments.keep is None:
        parser.error("name --keep: the detector is there")
    model = sha256(arguments.model / "model.safetensors")
    for run in GROUPS[arguments.group]:
        task, _, name = run.benchmark.partition("/")
        key = f"{run.key} from {arguments.source}" if arguments.source else run.key
        key += f", seed {arguments.seed}" if arguments.seed else ""
        # Read each time: another group may be running.
        table = json.loads(arguments.output.read_text())["table"] if arguments.output.is_file() else {}
        done = not arguments.again and table.get(key, {}).get("encoder_sha256") == model
        asked = task in (arguments.only or (task,)) and name in (arguments.sets or (name,))
        if done or not asked or name == arguments.source:
            continue
        data = arguments.data / f"{BENCHMARKS[run.benchmark].dataset}.npz"
        folder = same = None
        if arguments.keep:
            folder = arguments.keep / (key.replace("/", "-").replace(" ", "-"))
            seed = f",-seed-{arguments.seed}" if arguments.seed else ""
            # What is trained in the same way is not trained twice.
            trained = task if run.averaged else "finetuned" if run.leak or task == "early" else None
            same = arguments.keep / f"{trained}-{name}{seed}" if trained else None
        reuse = same is not None and (run.averaged or task in ("finetuned", "early")) and same.is_dir()
        model_folder, folder = (same, None) if reuse else (arguments.model, folder)
        record = redact_paths(
            evaluate(
                model_folder,
                run.benchmark,
                data,
                output_dir=folder,
                seed=arguments.seed,
                with_leak=run.leak,
                fold=run.fold,
                train_head=not reuse,
                changes={"average_phases": True} if run.averaged else None,
            )
        )
        kept = ("split", "n", "metrics", "seed", "recipe", "wall_seconds", "git_revision", "versions", "hardware")
        shown = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in list(record["metrics"].items())[:6])
        print(f"| {key} | {shown} |", flush=True)
        # After each: what has been measured is not lost.
        table = json.loads(arguments.output.read_text())["table"] if arguments.output.is_file() else {}
        table[key] = {field: record[field] for field in kept} | {"encoder_sha256": model}
        with new_file(arguments.output) as partial:
            partial.write_text(json.dumps({"table": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
