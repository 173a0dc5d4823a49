"""Effect of low precision on embeddings and predictions, compared with the unfused model in float32.

    python benchmarks/precision.py [--data DATA] [--encoder FOLDER] [--sets utkinect ...] [--wide utkinect ...]

DATA holds the open sets as .npz files (they cannot be part of this repository); without it only the sample clips are
used. Three models: the shipped recogniser on people of UI-PRMD not in its training data; the encoder in FOLDER on the
sets; and, on the sets `--wide`, a network of the paper's size (hidden size 1024, 25 joints, 2 people) with random
weights. Cosine: similarity of the clip embeddings in both precisions. Agreement: share of test clips with the same
class, by the model's head, or by logistic regression (pooled embeddings) and nearest neighbour (readouts) on what the
training clips give in float32. Error: largest difference of a logit over the largest logit. Bounds for bfloat16:
cosine at least 0.9995, agreement at least 99.5 %.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from usdrl_hub import USDRLFeatureExtractor, USDRLForActionRecognition, USDRLModel, fuse, open_data
from usdrl_hub.data.protocols import default_split
from usdrl_hub.data.samples import sample_path
from usdrl_hub.facts.checkpoints import RECOGNISER
from usdrl_hub.files import new_file
from usdrl_hub.inference.embedding import embed_clips
from usdrl_hub.loading import load_feature_extractor, load_model
from usdrl_hub.metrics.retrieval import top_k
from usdrl_hub.modeling_usdrl import USDRLPreTrainedModel
from usdrl_hub.records import redact_paths, run_record
from usdrl_hub.tasks.linear import fit_logistic_regression

sys.path.insert(0, str(Path(__file__).parent))
from speed import make_model, processor  # noqa: E402

SETS = ("nw_ucla", "utd_mhad", "utkinect", "hdm05_11")
BOUNDS = {"cosine_min": 0.9995, "agreement": 0.995}


def variants(model: USDRLPreTrainedModel):
    """Names and models, made one by one to keep only two in memory."""
    yield "fused float32", fuse(model)
    for name in ("bfloat16", "float16"):
        dtype = getattr(torch, name)
        yield name, copy.deepcopy(model).to(dtype)
        yield f"fused {name}", fuse(model).to(dtype)


def clips_of(path: Path, extractor: USDRLFeatureExtractor) -> tuple[list[torch.Tensor], list[torch.Tensor], str]:
    """Clips and labels of the training and the test part of a set, and the rule of the split."""
    train, test, rule = default_split(open_data(path))
    parts = [part.drop_empty() for part in (train, test)]
    clips = [extractor(list(part), return_tensors="pt")["keypoints"] for part in parts]
    return clips, [torch.as_tensor(part.column("labels")) for part in parts], rule


@torch.no_grad()
def compare(model: USDRLPreTrainedModel, clips: list[torch.Tensor], labels: list[torch.Tensor]) -> dict[str, dict]:
    """Figures of every precision for a model, on training and test clips."""
    is_recogniser = isinstance(model, USDRLForActionRecognition)
    truth = embed_clips(model, clips[1])
    if not is_recogniser:
        gallery = embed_clips(model, clips[0])
        # A copy: nothing can be fitted to what was made in inference mode.
        pooled = embed_clips(model, clips[0], pooled=True).clone()
        with torch.enable_grad():
            layer = fit_logistic_regression(pooled, labels[0], int(max(part.max() for part in labels)) + 1)

    def logits_of(some: USDRLPreTrainedModel, pooled: torch.Tensor) -> torch.Tensor:
        if not is_recogniser:
            return layer(pooled)
        return some.classifier(pooled.to(some.device, some.dtype)).float().cpu()

    expected = logits_of(model, embed_clips(model, clips[1], pooled=True))
    rows = {"float32": {"accuracy": float((expected.argmax(1) == labels[1]).double().mean())}}
    for name, variant in variants(model):
        found = embed_clips(variant, clips[1])
        cosine = torch.nn.functional.cosine_similarity(found.double(), truth.double())
        logits = logits_of(variant, embed_clips(variant, clips[1], pooled=True))
        row = {
            "cosine_min": float(cosine.min()),
            "cosine_mean": float(cosine.mean()),
            "agreement": float((logits.argmax(1) == expected.argmax(1)).double().mean()),
            "error": float((logits - expected).abs().max() / expected.abs().max()),
            "accuracy": float((logits.argmax(1) == labels[1]).double().mean()),
        }
        if not is_recogniser:
            nearest, expected_nearest = (labels[0][top_k(each, gallery, 1)[1][:, 0]] for each in (found, truth))
            row["agreement_1nn"] = float((nearest == expected_nearest).double().mean())
        rows[name] = row
    return rows


def jobs(arguments: argparse.Namespace) -> Iterator[tuple[str, USDRLPreTrainedModel, USDRLFeatureExtractor, Path]]:
    """Measurements: name, model, feature extractor, and labelled clips."""
    path = arguments.data / "ui_prmd_vicon.npz" if arguments.data else sample_path()
    yield "tiny-uiprmd, d 80", load_model(RECOGNISER), load_feature_extractor(RECOGNISER), path
    if arguments.encoder:
        encoder, extractor = load_model(arguments.encoder).base_model, load_feature_extractor(arguments.encoder)
        for name in arguments.sets:
            yield f"encoder, d {encoder.config.hidden_size}", encoder, extractor, arguments.data / f"{name}.npz"
    wide: USDRLModel = make_model()
    extractor = USDRLFeatureExtractor.from_model_config(wide.config)
    for path in [arguments.data / f"{name}.npz" for name in arguments.wide] or [sample_path()]:
        yield "random weights, d 1024", wide, extractor, path


def measure(what: str, model: USDRLPreTrainedModel, extractor: USDRLFeatureExtractor, path: Path) -> dict:
    clips, labels, rule = clips_of(path, extractor)
    rows = compare(model, clips, labels)
    for name, row in rows.items():
        cells = [f"{row[key]:{form}}" if key in row else "" for key, form in FORMS.items()]
        print(f"| {what} | {path.stem}, {len(labels[1])} | {name} | {' | '.join(cells)} |", flush=True)
    return {"model": what, "set": path.stem, "split": rule, "n": [len(part) for part in labels], "precision": rows}


FORMS = {
    "cosine_min": ".6f",
    "cosine_mean": ".6f",
    "agreement": ".2%",
    "agreement_1nn": ".2%",
    "error": ".1e",
    "accuracy": ".2%",
}


def misses(table: list[dict]) -> list[str]:
    """Violations of the bounds for bfloat16, in words."""
    return [
        f"{entry['model']} on {entry['set']}, {name}: {key} {row[key]:.5f}"
        for entry in table
        for name, row in entry["precision"].items()
        if name.endswith("bfloat16")
        for key in ("cosine_min", "agreement", "agreement_1nn")
        if row.get(key, 1.0) < BOUNDS[key.removesuffix("_1nn")]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--wide", nargs="+", default=(), help="Sets of DATA; the clips that ship where unset.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    if (arguments.encoder or arguments.wide) and arguments.data is None:
        parser.error("--encoder and --wide need --data")
    started = time.monotonic()
    print("| model | test clips | precision | cosine, least | mean | same class | same by 1-NN | error | accuracy |")
    print("|---" * 9 + "|")
    table = []
    for what, model, extractor, path in jobs(arguments):
        table.append(measure(what, model.to(arguments.device), extractor, path))
        record = {"table": table, "bounds": BOUNDS, "missed": misses(table), **processor()}
        record |= {"threads": torch.get_num_threads(), **redact_paths(run_record(started))}
        # After each: what has been measured is not lost.
        with new_file(arguments.output) as partial:
            partial.write_text(json.dumps(record, indent=2) + "\n")
    print("\nbelow the bounds for bfloat16: " + ("; ".join(misses(table)) or "nothing"))


if __name__ == "__main__":
    main()
