"""Motion that is none of a recogniser's classes: how it is told, and how often it is not.

    python benchmarks/none_of_these.py compare --shared SHARED
    python benchmarks/none_of_these.py ship --shared SHARED [--folder usdrl_hub/checkpoints/usdrl--tiny-uiprmd]

SHARED holds the open data sets as data/*.npz. The model is `usdrl/tiny-uiprmd`, trained on the people with odd numbers
of UI-PRMD; the other people are its test clips.

`compare` scores motion of the sets in DEVELOPMENT, without classes that the model knows, by several measures of
confidence. Each has the threshold that keeps 95 % of the recognised test clips; what is compared is the share of other
motion that is still named. `ship` sets the threshold of the chosen measure, the similarity to the mean training clip
of the class (`fit_min_similarity`), writes it with the means into the model's folder, and scores the sets in FINAL,
which were not looked at when the measure was chosen. (The Mahalanobis distance is a few points better, but needs a
matrix of the embedding's width squared, which is larger than a head.) Recordings longer than 400 frames are cut into
windows of 150.
"""

import argparse
import json
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from usdrl_hub import Engine, SkeletonSequence, Source, USDRLForActionRecognition, extract_predictions, open_data
from usdrl_hub.data.protocols import default_split
from usdrl_hub.errors import EmptySequenceError
from usdrl_hub.inference.embedding import embed_part
from usdrl_hub.loading import load_feature_extractor
from usdrl_hub.records import redact_paths, run_record, sha256, write_metrics
from usdrl_hub.tasks.refusal import fit_min_similarity

TRAINED = "ui_prmd_vicon"
# Each set, with the numbers of its classes that the model knows, too: squats, lunges, sitting down and standing up.
DEVELOPMENT: dict[str, tuple[int, ...]] = {
    "utd_mhad": (23, 24, 25, 26),
    "utkinect": (1, 2),
    "nw_ucla": (4, 5),
    "hdm05_11": (9,),
    "cad60": (),
    "cmu_8actions": (),
    "cmu_dance_martial": (),
    "cmu_deepmimic": (),
    "reactidle": (),
    "msrc12": (),
    "jk2017_sessions": (),
}
FINAL: dict[str, tuple[int, ...]] = {
    "bandai_namco1": (),
    "bandai_namco2": (),
    "ase_sword_shield": (),
    "cmu_asfamc_s01_s02": (),
    "cmu_salsa_pairs": (),
}
LONG, WINDOW, MOST = 400, 150, 400


def other_motion(data: Path, name: str, known: tuple[int, ...]) -> list[SkeletonSequence]:
    """At most 400 recordings or windows of a set, evenly from all of it, without the classes that the model knows."""
    dataset = open_data(data / f"{name}.npz").drop_empty()
    labels = dataset.column("labels")
    rows = [row for row in range(len(dataset)) if labels is None or int(labels[row]) not in known]
    lengths = np.asarray(dataset.lengths)
    spans = []
    for row in rows:
        starts = [0] if lengths[row] <= LONG else range(0, int(lengths[row]) - WINDOW, 2 * WINDOW)
        spans += [
            (row, start, min(start + WINDOW, int(lengths[row])) if lengths[row] > LONG else None) for start in starts
        ]
    chosen = [spans[index] for index in np.linspace(0, len(spans) - 1, min(MOST, len(spans))).astype(int)]
    found = []
    for row, start, end in chosen:
        with suppress(EmptySequenceError):
            found.append(dataset[row] if end is None else dataset.read(row, start, end))
    return found


def outputs(model: USDRLForActionRecognition, sequences: list[SkeletonSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and logits of recordings."""
    encoder = Engine.load(model, head=False)
    rows = [encoder.run(clips).pooler_output.clone() for _, clips in encoder.batches(Source(sequences), 64)]
    embeddings = torch.cat(rows)
    with torch.inference_mode():
        return embeddings, model.classifier(embeddings)


class Measures:
    """Measures of confidence, higher for what is known better, from training embeddings and labels."""

    def __init__(self, embeddings: torch.Tensor, labels: torch.Tensor, num_classes: int):
        self.train = torch.nn.functional.normalize(embeddings, dim=1)
        self.centers = torch.stack([embeddings[labels == label].mean(0) for label in range(num_classes)])
        spread = embeddings - self.centers[labels]
        covariance = spread.T @ spread / len(spread)
        # A ridge of a thousandth of the mean variance.
        ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance))
        self.precision = torch.linalg.inv(covariance + ridge)

    def __call__(self, embeddings: torch.Tensor, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each measure of clips ``(B,)``, by name."""
        away = embeddings - self.centers[logits.argmax(1)]
        alike = torch.cosine_similarity(embeddings, self.centers[logits.argmax(1)], dim=1)
        nearest = torch.nn.functional.normalize(embeddings, dim=1) @ self.train.T
        return {
            "probability": logits.softmax(1).amax(1),
            "largest logit": logits.amax(1),
            "energy": logits.logsumexp(1),
            "similarity to the class": alike,
            "distance to the class": -away.norm(dim=1),
            "Mahalanobis distance to the class": -torch.einsum("nd,de,ne->n", away, self.precision, away),
            "fifth nearest training clip": nearest.topk(5, dim=1).values[:, -1],
        }


def compare(model: USDRLForActionRecognition, data: Path) -> dict:
    """The share of other motion that each measure still names, by set."""
    extractor = load_feature_extractor("usdrl/tiny-uiprmd")
    train, test, split = default_split(open_data(data / f"{TRAINED}.npz").drop_empty())[:3]
    features, labels = embed_part(model, extractor, train, pooled=True)
    measures = Measures(features, torch.as_tensor(labels).long(), len(model.config.class_names))
    tested, truth = embed_part(model, extractor, test, pooled=True)
    with torch.inference_mode():
        logits = model.classifier(tested)
    right = logits.argmax(1) == torch.as_tensor(truth)
    known = measures(tested, logits)
    least = {name: float(values[right].quantile(0.05)) for name, values in known.items()}
    result: dict = {"split": split, "thresholds": least, "sets": {}}
    result["refused_errors"] = {name: float((known[name][~right] < least[name]).float().mean()) for name in least}
    for name, skipped in DEVELOPMENT.items():
        found = measures(*outputs(model, other_motion(data, name, skipped)))
        row = {
            measure: round(float((values >= least[measure]).float().mean()), 3) for measure, values in found.items()
        }
        result["sets"][name] = {"clips": len(next(iter(found.values()))), "named": row}
        print(name, result["sets"][name], flush=True)
    named = [entry["named"] for entry in result["sets"].values()]
    result["mean"] = {name: round(float(np.mean([row[name] for row in named])), 3) for name in least}
    print(json.dumps(result["mean"], indent=1))
    return result


def ship(model: USDRLForActionRecognition, data: Path, folder: Path) -> dict:
    """Set the threshold, score the final sets, and write both into the model's folder."""
    extractor = load_feature_extractor("usdrl/tiny-uiprmd")
    train, test = default_split(open_data(data / f"{TRAINED}.npz").drop_empty())[:2]
    refusal: dict = fit_min_similarity(model, extractor, train, test)
    alarms = {}
    for name, skipped in FINAL.items():
        predictions = extract_predictions(other_motion(data, name, skipped), Engine(model, extractor))
        accepted = float(np.mean([prediction.is_known for prediction in predictions]))
        alarms[name] = {"clips": len(predictions), "accepted": round(accepted, 3)}
        print(name, alarms[name], flush=True)
    refusal["false_alarms"] = alarms
    model.save_pretrained(folder)
    record = json.loads((folder / "metrics.json").read_text("utf-8"))
    record |= {"refusal": refusal, "checkpoint_sha256": sha256(folder / "model.safetensors")}
    write_metrics(folder, record)
    return refusal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("compare", "ship"))
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    root = Path(__file__).parents[1]
    parser.add_argument("--folder", type=Path, default=root / "usdrl_hub/checkpoints/usdrl--tiny-uiprmd")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments, started = parser.parse_args(), time.monotonic()
    model = USDRLForActionRecognition.from_pretrained("usdrl/tiny-uiprmd").eval()
    data = arguments.shared / "data"
    result = compare(model, data) if arguments.command == "compare" else ship(model, data, arguments.folder)
    content = json.loads(arguments.output.read_text("utf-8")) if arguments.output.is_file() else {}
    content[arguments.command] = {**result, "run": redact_paths(run_record(started))}
    arguments.output.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
