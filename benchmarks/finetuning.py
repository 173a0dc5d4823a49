"""`usdrl finetune` without options, beside its alternatives: linear probe, full fine-tuning, 1-NN on the joints.

    python benchmarks/finetuning.py measure --data DATA [--sets SET ...]
    python benchmarks/finetuning.py average --data DATA [--sets SET ...]
    python benchmarks/finetuning.py table [benchmarks/README.md]

DATA holds the open sets as .npz files (they cannot be part of this repository). Each set is split as it says itself;
on sbu, draw k is scored on fold k. With 5 clips of each class, five random draws; with all clips, one run. Measured
figures are kept, so a stopped run continues when the command is repeated; those of another encoder are refused.

`default` is what the command does without options; `linear` and `full` are --linear-probe and --full; `1nn` is the
nearest training clip by normalised joints. Figures are the test clips that are right, one bit each.

`average` asks whether the mean of the weights before and after full fine-tuning (Wortsman et al., "Robust fine-tuning
of zero-shot models", CVPR 2022) is better than the weights after it: `1 - a` of the linear probe on the pretrained
encoder plus `a` of the fine-tuned model. Nothing of the test part is used: a fifth of the training people, another in
each draw, is held out. The rule was written before: an `a` is taken only if its mean gain over `a` = 1 is above two
standard errors over sets and draws, each the mean of the gains with 5 clips of each class and with all.

`table` prints mean accuracies, and the difference of the default to each alternative with its 95 % interval (paired
bootstrap over the test clips of each set), over the draws that all sets have, and updates the tables of a document.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from mocap import Record, difference, packed, unpacked
from transformers import set_seed

from usdrl_hub import USDRLForActionRecognition, open_data
from usdrl_hub.data.protocols import default_split, draw_exemplars
from usdrl_hub.data.splits import Parts, with_validation
from usdrl_hub.facts.checkpoints import ENCODER
from usdrl_hub.loading import load_feature_extractor, load_model
from usdrl_hub.lookup import bundled_checkpoint
from usdrl_hub.records import redact_paths, run_record, sha256
from usdrl_hub.tasks.baselines import joint_neighbours
from usdrl_hub.tasks.choice import FULL, Training, train_linear_probe, train_recogniser
from usdrl_hub.tasks.fit import Progress
from usdrl_hub.tasks.heads import with_head
from usdrl_hub.tasks.report import class_probabilities

SETS = ("utkinect", "sbu", "hdm05_11", "utd_mhad", "nw_ucla", "cad60")
SHOTS, DRAWS = 5, 5
METHODS = {"default": "auto", "linear": "linear", "full": "full"}
TITLES = {"default": "no options", "linear": "`--linear-probe`", "full": "`--full`", "1nn": "1-NN, normalised joints"}
# Of `average`: sets with three training people or more, draws of people and clips, and shares of the tuned weights.
AVERAGED, AVERAGE_DRAWS = ("utkinect", "sbu", "hdm05_11", "utd_mhad", "nw_ucla"), 4
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
OUTPUT = Path(__file__).with_name("finetuning.json")


def parts_of(path: Path, shots: str, draw: int) -> Parts:
    """The parts of a set for one draw of the training clips."""
    dataset = open_data(path)
    train, test, rule = default_split(dataset, draw if dataset.column("folds") is not None else 0)
    train, test = train.drop_empty(), test.drop_empty()
    if shots != "all":
        train = train.select(draw_exemplars(np.asarray(train.column("labels")), int(shots), draw))
    subjects = train.column("subjects")
    return Parts(train, None, test, rule, None if subjects is None else "subject")


def measure(data: Path, sets: list[str], record: Record) -> None:
    """Measure the missing figures."""
    started = time.monotonic()
    extractor, encoder = load_feature_extractor(ENCODER), load_model(ENCODER)
    weights = {"model": ENCODER, "sha256": sha256(Path(bundled_checkpoint(ENCODER)) / "model.safetensors")}
    if record.content.setdefault("encoder", weights) != weights:
        raise SystemExit(f"{record.path.name} has figures of another {ENCODER}: delete it to measure this one")
    record.put("encoder", value=weights)
    runs = [(name, "5", draw) for draw in range(DRAWS) for name in sets] + [(name, "all", 0) for name in sets]
    for name, shots, draw in runs:
        missing = [method for method in TITLES if not record.has("hits", name, method, shots, str(draw))]
        if not missing:
            continue
        parts = parts_of(data / f"{name}.npz", shots, draw)
        truth = np.asarray(parts.test.column("labels"))
        record.put("sets", f"{name} {shots} {draw}", value={"split": parts.rule, "test": len(truth)})
        for method in missing:
            begun = time.process_time()
            if method == "1nn":
                hits = joint_neighbours(parts.train, parts.test, extractor) == truth
            else:
                set_seed(draw)
                model = with_head(encoder, USDRLForActionRecognition, parts.train.class_names)
                training = Training(model, extractor, parts, FULL, draw, Progress())
                trained, chosen, tried = training.run(METHODS[method])
                hits = class_probabilities(trained, extractor, parts.test).argmax(1) == truth
                if method == "default":
                    content = {**chosen.to_dict(), "rule": tried.rule}
                    record.put("choices", name, shots, str(draw), value=content)
            seconds = time.process_time() - begun
            record.put("cpu_seconds", name, method, shots, str(draw), value=round(seconds, 1))
            record.put("hits", name, method, shots, str(draw), value=packed(torch.from_numpy(hits)))
            print(f"{name} {shots} {draw} {method}: {100 * hits.mean():.1f}, {seconds:.0f} s", flush=True)
        record.put("recipe", value=FULL.to_dict())
        record.put("run", value=redact_paths(run_record(started)))


def average(data: Path, sets: list[str], record: Record) -> None:
    """Score averages of the weights before and after fine-tuning on held-out training people."""
    started = time.monotonic()
    extractor, encoder = load_feature_extractor(ENCODER), load_model(ENCODER)
    runs = [(name, shots, draw) for draw in range(AVERAGE_DRAWS) for name in sets for shots in ("5", "all")]
    for name, shots, draw in runs:
        if record.has("averaging", name, shots, str(draw)):
            continue
        begun = time.process_time()
        parts = with_validation(parts_of(data / f"{name}.npz", "all", draw), draw)
        assert parts.validation is not None
        train, truth = parts.train, np.asarray(parts.validation.column("labels"))
        if shots != "all":
            train = train.select(draw_exemplars(np.asarray(train.column("labels")), int(shots), draw))
        set_seed(draw)
        model = with_head(encoder, USDRLForActionRecognition, train.class_names)
        train_linear_probe(model, extractor, train, FULL)
        first = {key: values.clone() for key, values in model.state_dict().items()}
        train_recogniser(model, extractor, train, FULL, seed=draw)
        last = {key: values.clone() for key, values in model.state_dict().items()}
        right = {}
        for share in SHARES:
            model.load_state_dict(
                {
                    key: (1 - share) * first[key] + share * values if values.is_floating_point() else values
                    for key, values in last.items()
                }
            )
            right[str(share)] = int((class_probabilities(model, extractor, parts.validation).argmax(1) == truth).sum())
        value = {"rule": parts.rule, "validation": len(truth), "right": right}
        record.put("averaging", name, shots, str(draw), value=value)
        print(f"{name} {shots} {draw}: {right} of {len(truth)}, {time.process_time() - begun:.0f} s", flush=True)
        record.put("averaging_run", value=redact_paths(run_record(started)))


def averaging_table(content: dict) -> str:
    """Mean accuracies of averaged weights, and their gains over the fine-tuned ones with standard errors."""
    found = content["averaging"]
    draws = [
        str(draw)
        for draw in range(AVERAGE_DRAWS)
        if all(str(draw) in found.get(name, {}).get(shots, {}) for name in AVERAGED for shots in ("5", "all"))
    ]
    lines = [
        "| weight of the fine-tuned | 5 clips | all | gain over 1 | standard error |",
        "|---|---|---|---|---|",
    ]

    def accuracies(shots: str, share: float) -> np.ndarray:
        entries = [found[name][shots][draw] for name in AVERAGED for draw in draws]
        return np.array([100 * entry["right"][str(share)] / entry["validation"] for entry in entries])

    for share in SHARES:
        few, every = accuracies("5", share), accuracies("all", share)
        gains = (few + every - accuracies("5", 1.0) - accuracies("all", 1.0)) / 2
        error = gains.std(ddof=1) / np.sqrt(len(gains))
        lines.append(f"| {share:g} | {few.mean():.1f} | {every.mean():.1f} | {gains.mean():+.2f} | {error:.2f} |")
    return "\n".join(lines)


def hits_of(content: dict, method: str, shots: str) -> dict[str, list[np.ndarray]]:
    """Hits of each set, in the draws that have been measured in all sets with every method."""

    def measured(name: str, kind: str) -> dict[str, str]:
        return content["hits"].get(name, {}).get(kind, {}).get(shots, {})

    draws = [
        str(draw)
        for draw in range(DRAWS if shots == "5" else 1)
        if all(str(draw) in measured(name, kind) for name in SETS for kind in TITLES)
    ]
    return {
        name: [
            unpacked(measured(name, method)[draw], content["sets"][f"{name} {shots} {draw}"]["test"]) for draw in draws
        ]
        for name in SETS
        if draws
    }


def tables(content: dict) -> list[str]:
    """Accuracies of each set, and differences of the default to its alternatives."""
    lines = [f"| clips of a class | draws | training | mean | {' | '.join(SETS)} |", "|" + "---|" * (4 + len(SETS))]
    gaps = ["| clips of a class | no options against | difference | 95 % interval |", "|---|---|---|---|"]
    for shots in ("5", "all"):
        for method, title in TITLES.items():
            found = hits_of(content, method, shots)
            if not found:
                continue
            means = [100 * float(np.mean([hits.mean() for hits in draws])) for draws in found.values()]
            cells = " | ".join(f"{value:.1f}" for value in means)
            lines.append(f"| {shots} | {len(found[SETS[0]])} | {title} | {np.mean(means):.1f} | {cells} |")
            if method != "default":
                mean, low, high = (100 * value for value in difference(hits_of(content, "default", shots), found))
                gaps.append(f"| {shots} | {title} | {mean:+.1f} | {low:+.1f} to {high:+.1f} |")
    return ["\n".join(lines), "\n".join(gaps)]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--data", type=Path, required=True)
    measuring.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    averaging = commands.add_parser("average")
    averaging.add_argument("--data", type=Path, required=True)
    averaging.add_argument("--sets", nargs="+", choices=AVERAGED, default=list(AVERAGED))
    writing = commands.add_parser("table")
    writing.add_argument("document", type=Path, nargs="?")
    options = parser.parse_args()
    record = Record(OUTPUT)
    if options.command == "measure":
        measure(options.data, options.sets, record)
        return
    if options.command == "average":
        average(options.data, options.sets, record)
        return
    averaged = [averaging_table(record.content)] if "averaging" in record.content else []
    for table in [*tables(record.content), *averaged]:
        print(table, end="\n\n")
        if options.document is not None:
            text = options.document.read_text()
            head, found, rest = text.partition("\n" + table.splitlines()[0] + "\n")
            if not found:
                raise SystemExit(f"{options.document}: no table begins with '{table.splitlines()[0]}'")
            options.document.write_text(f"{head}\n{table}\n\n{rest.partition(chr(10) * 2)[2]}")


if __name__ == "__main__":
    main()
