"""Accuracy of an encoder pretrained on open data, on other data sets.

    python benchmarks/open_motion.py --data DATA --runs RUNS [--seeds 0 1 2] [--output benchmarks/open_motion.json]

DATA holds the open sets as .npz files (they cannot be part of this repository). For each seed, a small DSTE is
pretrained without labels with the recipe `laptop` on UI-PRMD, both Bandai-Namco sets, MSRC-12 and CMU in RUNS/seed<N>;
an interrupted run continues and a finished one is reused. It is scored by 1-NN (cosine) and logistic regression on
frozen embeddings of utd_mhad, nw_ucla (without the test clips that are copies of training clips), utkinect, hdm05_11
and sbu (fold 0, one person), and compared with the same network with random weights and with the normalised joints.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from usdrl_hub import USDRLConfig, USDRLFeatureExtractor, USDRLModel, open_data
from usdrl_hub.data.protocols import default_split
from usdrl_hub.files import new_file
from usdrl_hub.inference.embedding import embed_clips
from usdrl_hub.metrics.classification import accuracy
from usdrl_hub.metrics.retrieval import retrieval_metrics
from usdrl_hub.pretraining.arguments import ComputeOptions
from usdrl_hub.pretraining.build import load_recipe
from usdrl_hub.pretraining.run import pretrain
from usdrl_hub.records import redact_paths, run_record
from usdrl_hub.tasks.linear import fit_logistic_regression

SOURCES = ("ui_prmd_vicon", "bandai_namco1", "bandai_namco2", "msrc12", "cmu_asfamc_s01_s02")
TESTS = ("nw_ucla", "utd_mhad", "utkinect", "hdm05_11", "sbu")
EPOCHS = 6


def clips_of(path: Path, extractor: USDRLFeatureExtractor):
    """Clips and labels of the training and the test part, and the split rule."""
    train, test, rule = default_split(open_data(path))
    parts = [part.drop_empty() for part in (train, test)]
    clips = [extractor(list(part), return_tensors="pt")["keypoints"] for part in parts]
    return clips, [torch.as_tensor(part.column("labels")) for part in parts], rule


def scores(features, labels) -> dict[str, float]:
    layer = fit_logistic_regression(features[0], labels[0], int(max(part.max() for part in labels)) + 1)
    return {
        "1nn": retrieval_metrics(features[0], labels[0], features[1], labels[1], ranks=())["accuracy_1nn"],
        "linear": accuracy(layer(features[1]).detach(), labels[1])["accuracy"],
    }


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        key: {
            "mean": statistics.mean(row[key] for row in rows),
            "spread": statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0,
            "values": [row[key] for row in rows],
        }
        for key in ("1nn", "linear")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    recipe = load_recipe("laptop").changed(epochs=EPOCHS)
    folders = [arguments.runs / f"seed{seed}" for seed in arguments.seeds]
    for seed, folder in zip(arguments.seeds, folders, strict=True):
        if not (folder / "model.safetensors").is_file():
            sources = [arguments.data / f"{name}.npz" for name in SOURCES]
            pretrain(sources, folder, recipe, seed=seed, compute=ComputeOptions(progress=True))
    extractor = USDRLFeatureExtractor.from_pretrained(folders[0])
    config = USDRLConfig.from_pretrained(folders[0])
    pretrained = [USDRLModel.from_pretrained(folder).eval() for folder in folders]
    untrained = []
    for seed in arguments.seeds:
        torch.manual_seed(seed)
        untrained.append(USDRLModel(config).eval())
    table = {}
    print("| test set | measure | pretrained | random weights | raw joints |\n|---|---|---|---|---|")
    for name in TESTS:
        clips, labels, rule = clips_of(arguments.data / f"{name}.npz", extractor)
        row = {
            "split": rule,
            "n": [len(part) for part in labels],
            "pretrained": summary([scores([embed_clips(m, c) for c in clips], labels) for m in pretrained]),
            "random": summary([scores([embed_clips(m, c) for c in clips], labels) for m in untrained]),
            "raw": scores([part.flatten(1) for part in clips], labels),
        }
        table[name] = row
        for key in ("1nn", "linear"):
            means = [
                f"{100 * row[who][key]['mean']:.1f} ± {100 * row[who][key]['spread']:.1f}"
                for who in ("pretrained", "random")
            ]
            print(f"| {name} | {key} | {means[0]} | {means[1]} | {100 * row['raw'][key]:.1f} |", flush=True)
    logs = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    runs = [{key: log[key] for key in ("seed", "steps", "wall_seconds", "git_revision")} for log in logs]
    record = {"table": table, "recipe": logs[0]["recipe"], "runs": runs, **redact_paths(run_record(started))}
    with new_file(arguments.output) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
