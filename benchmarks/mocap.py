"""Evidence for the mocap checkpoints: accuracy with few labels beside baselines, robustness, tables and cards.

    python benchmarks/mocap.py proof MODEL [MODEL ...] --data DATA [--sets development] [--only 1nn linear finetuned]
    python benchmarks/mocap.py robust MODEL [MODEL ...] --data DATA
    python benchmarks/mocap.py layouts MODEL [MODEL ...] --data DATA
    python benchmarks/mocap.py ship MODEL [MODEL ...] --sets development
    python benchmarks/mocap.py table [benchmarks/README.md]

DATA holds the open sets as .npz files (they cannot be part of this repository). MODEL is a folder written by
`benchmarks/motion.py train` (mocap-tiny, mocap-tiny-seed1, ...), or a published one.

`proof`: nearest neighbour (cosine of the readout), logistic regression on the pooled embedding, and full fine-tuning
with 1, 2, 5, 10 and all training clips of each class, with three random draws of the clips; beside the same network
with random weights (frozen) or trained from scratch, and the joints, raw and normalised. On sets with folds, draw k is
scored on fold k. Recipes were chosen with the development sets in view; the final sets are scored once, at the end.
Models of 2D keypoints are scored on the 2D sets, the others on the 3D sets. Figures already in the output file are
kept, so a run that was stopped goes on. A GPU is used where there is one; `--sets` also takes single sets, so that
processes with an `--output` each can share the work.

`robust`: similarity of the embeddings of clips with half of the joints missing to those of the complete clips.

`layouts`: clips of two data sets, first converted to every registered layout with at least 15 of its joints in common,
classified by a head trained on directly converted clips: how often the class is the same.

`ship` writes an encoder for publication, with its figures, to a folder beside the output file.

`table` prints the figures, with the difference to each baseline and its 95 % interval (paired bootstrap over the test
clips of each set), draws the curves, and updates the tables of a document.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from motion import DEVELOPMENT, DEVICE, TRIALS, Record, Set, sources_of

from usdrl_hub import (
    SkeletonSequence,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLModel,
    open_data,
)
from usdrl_hub.data.augmentation import ClipAugmentation
from usdrl_hub.data.protocols import default_split
from usdrl_hub.facts.checkpoints import CHECKPOINTS, NAMESPACE
from usdrl_hub.files import new_file, new_folder
from usdrl_hub.hub.cards import FEW_LABELS
from usdrl_hub.inference.embedding import embed_clips
from usdrl_hub.layouts import LAYOUTS, TO_Y_UP, get_layout, make_joint, weights_through
from usdrl_hub.metrics.retrieval import top_k
from usdrl_hub.normalization import resize
from usdrl_hub.records import redact_paths, run_record, sha256, write_metrics
from usdrl_hub.tasks.fit import FitRecipe, fit
from usdrl_hub.tasks.heads import with_head
from usdrl_hub.tasks.linear import fit_logistic_regression

# Sets by what they are for. Of tennis, where half of the clips are of one class, the mean over classes is reported.
GROUPS = {
    "development": DEVELOPMENT,
    "final": ("gtu_kinect2", "jk2017_kinect2", "yoga_mediapipe33"),
    "development-2d": ("jhmdb",),
    "final-2d": ("tennis_movenet2d",),
}
PER_CLASS = ("tennis_movenet2d",)
SHOTS = (1, 2, 5, 10, None)
KEYS = tuple(str(count or "all") for count in SHOTS)
DRAWS = (0, 1, 2)
MEASURES = ("1nn", "linear", "finetuned")
TITLES = {"1nn": "1-NN", "linear": "linear probe", "finetuned": "fine-tuned"}
JOINTS = {"normalised": "joints, normalised", "joints": "joints as they are"}
# Fine-tuning takes as many steps for every number of clips, or this many passes where there are more; the same for
# pretrained weights and from scratch. Chosen on training people of utd_mhad and nw_ucla.
STEPS, PASSES, BATCH = 160, 4, 16
# Wide networks are fine-tuned with these numbers of clips only.
WIDE, WIDE_SHOTS = 256, ("5", "all")
Accuracies = dict[str, list[np.ndarray]]


def raw_joints(subject: Set) -> list[torch.Tensor]:
    """Joints as they are in the file, resized to 64 frames, of each part."""
    most = max(sequence.num_persons for part in subject.sequences for sequence in part)
    rows = []
    for part in subject.sequences:
        frames = [resize(torch.from_numpy(sequence.keypoints), 64) for sequence in part]
        rows.append(
            torch.stack(
                [torch.nn.functional.pad(clip, (0, 0, 0, 0, 0, most - clip.shape[1])).flatten() for clip in frames]
            )
        )
    return rows


def linear_hits(features: Sequence[torch.Tensor], data: Set, rows: torch.Tensor) -> torch.Tensor:
    """Which test clips are right by logistic regression."""
    return data.linear_answers(features, rows) == data.labels[1]


def nearest_hits(features: Sequence[torch.Tensor], data: Set, rows: torch.Tensor, *, cosine: bool) -> torch.Tensor:
    """Which test clips are right by the nearest neighbour: cosine for embeddings, Euclidean for coordinates."""
    train = features[0][rows]
    nearest = top_k(features[1], train, 1)[1][:, 0] if cosine else torch.cdist(features[1], train).argmin(dim=1)
    return data.labels[0][rows][nearest] == data.labels[1]


class Clips(torch.utils.data.Dataset):
    """Normalised clips in memory."""

    def __init__(self, clips: torch.Tensor, labels: torch.Tensor, augment: ClipAugmentation | None = None):
        self.clips, self.labels, self.augment = clips, labels, augment

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        clips = self.clips[indices]
        clips = clips if self.augment is None else self.augment(clips)
        return [{"keypoints": c, "labels": int(self.labels[i])} for c, i in zip(clips, indices, strict=True)]


def finetuned_hits(encoder: USDRLModel, data: Set, rows: torch.Tensor) -> torch.Tensor:
    """Fine-tune the model on the drawn clips; returns which test clips are right.

    The head starts from the logistic regression on the encoder's features, be they pretrained or random: with a few
    clips, a random head would spoil either.
    """
    torch.manual_seed(data.draw)
    model = with_head(encoder, USDRLForActionRecognition, data.num_classes)
    clips, labels = data.clips[0][rows], data.labels[0][rows]
    start = fit_logistic_regression(embed_clips(encoder, clips, pooled=True).clone(), labels, data.num_classes)
    model.classifier.load_state_dict(start.state_dict())
    per_epoch = -(-len(rows) // BATCH)
    recipe = FitRecipe(
        epochs=max(STEPS / per_epoch, PASSES), batch_size=BATCH, learning_rate=3e-4, label_smoothing=0.1
    )
    shear = 0.15 if encoder.config.num_channels == 3 else 0.0
    augment = ClipAugmentation(shortest_crop=0.7, shear=shear, missing_joints=0.1)
    fit(model, Clips(clips, labels, augment), recipe, seed=data.draw)
    with torch.inference_mode():
        answers = [model(part.to(model.device)).logits.argmax(1).cpu() for part in data.clips[1].split(128)]
    return torch.cat(answers) == data.labels[1]


def name_of(model: Path) -> str:
    """Name of a checkpoint: its folder, without the owner."""
    return model.name.removeprefix("usdrl--")


def recipe_of(name: str) -> str:
    """The checkpoint of which a run is another seed."""
    return name.partition("-seed")[0]


def random_encoder(config: USDRLConfig, seed: int) -> USDRLModel:
    """The same network with random weights; without a readout, whose statistics are of the trained one."""
    config = USDRLConfig.from_dict(config.to_dict() | {"readout_parts": None})
    torch.manual_seed(seed)
    return USDRLModel(config).eval().to(DEVICE)


def packed(hits: torch.Tensor) -> str:
    return np.packbits(hits.numpy()).tobytes().hex()


def unpacked(text: str, count: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))[:count].astype(bool)


def prove(models: list[Path], data: Path, record: Record, measures: list[str], tests: Sequence[str]) -> None:
    """Measure the missing figures of models of one layout."""
    started = time.monotonic()
    encoders = {name_of(path): USDRLModel.from_pretrained(path).eval().to(DEVICE) for path in models}
    extractor = USDRLFeatureExtractor.from_pretrained(models[0])
    for path in models:
        record.put("models", name_of(path), value=sha256(path / "model.safetensors"))
    for name in tests:
        for draw in DRAWS:
            subject = Set(data / f"{name}.npz", extractor, draw)
            record.put("sets", f"{name} {draw}", value={"split": subject.rule, "labels": subject.labels[1].tolist()})
            # The network of another seed has been measured already.
            untrained = {
                f"{name} random": random_encoder(model.config, draw)
                for name, model in encoders.items()
                if name == recipe_of(name)
            }
            networks = {**encoders, **untrained}
            if {"1nn", "linear"} & set(measures):
                _prove_frozen(networks, subject, record)
            if "finetuned" in measures:
                for (who, encoder), shots in ((pair, shots) for pair in networks.items() for shots in SHOTS):
                    who = who.replace(" random", " scratch")
                    keys = ("hits", name, "finetuned", who, str(shots or "all"), str(draw))
                    narrow = encoder.config.hidden_size < WIDE
                    if (narrow or str(shots or "all") in WIDE_SHOTS) and not record.has(*keys):
                        hits = finetuned_hits(encoder, subject, subject.drawn(shots))
                        record.put(*keys, value=packed(hits))
                        print(name, draw, shots, who, f"{100 * hits.float().mean():.1f}", flush=True)
    record.put("run", value=redact_paths(run_record(started)))


def _prove_frozen(networks: Mapping[str, USDRLModel], subject: Set, record: Record) -> None:
    """Nearest neighbours and linear probe of each network and of the joints."""
    joints = {"joints": raw_joints(subject), "normalised": [part.flatten(1) for part in subject.clips]}
    for who in (*networks, *joints):
        keys = [("hits", subject.name, m, who, key, str(subject.draw)) for m in ("1nn", "linear") for key in KEYS]
        if all(record.has(*row) for row in keys):
            continue
        if who in joints:
            compared = pooled = joints[who]
        else:
            model = networks[who]
            compared, pooled = ([embed_clips(model, part, pooled=kind) for part in subject.clips] for kind in (0, 1))
        for shots in SHOTS:
            rows, key = subject.drawn(shots), str(shots or "all")
            nearest = nearest_hits(compared, subject, rows, cosine=who in networks)
            for measure, hits in (("1nn", nearest), ("linear", linear_hits(pooled, subject, rows))):
                record.put("hits", subject.name, measure, who, key, str(subject.draw), value=packed(hits))


def accuracies(content: dict, tests: Sequence[str], measure: str, who: str, shots: str) -> Accuracies:
    """Hits of each measured set, one array for each draw; their mean is the accuracy, see `_weights`."""
    found = {}
    for name in tests:
        draws = content["hits"].get(name, {}).get(measure, {}).get(who, {}).get(shots, {})
        if draws:
            found[name] = [
                unpacked(text, len(weights)) * weights
                for draw, text in draws.items()
                for weights in [_weights(content, name, draw)]
            ]
    return found


def _weights(content: dict, name: str, draw: str) -> np.ndarray:
    """Weight of each test clip in the accuracy of a set, 1 on average: equal, or equal for each class."""
    labels = np.asarray(content["sets"][f"{name} {draw}"]["labels"])
    if name not in PER_CLASS:
        return np.ones(len(labels))
    kinds, counts = np.unique(labels, return_counts=True)
    return len(labels) / counts[np.searchsorted(kinds, labels)] / len(kinds)


def set_accuracy(draws: Sequence[np.ndarray]) -> float:
    """Accuracy of a set in percent, mean over the draws."""
    return 100 * float(np.mean([hits.mean() for hits in draws]))


def mean_accuracy(content: dict, tests: Sequence[str], measure: str, who: str, shots: str) -> float:
    """Mean accuracy over sets and draws, in percent; NaN where a set was not measured."""
    found = accuracies(content, tests, measure, who, shots)
    if set(found) != set(tests):
        return float("nan")
    return float(np.mean([set_accuracy(draws) for draws in found.values()]))


def difference(ours: Accuracies, rival: Accuracies, draws: int = 2000) -> tuple[float, float, float]:
    """Mean difference over the sets with its 95 % bootstrap interval over the test clips of each set.

    The same clips are drawn for all draws of labelled clips of a set with one test part, so that clips, not pairs of
    clip and draw, are the sample.
    """
    rng = np.random.default_rng(0)
    means, total = [], np.zeros(draws)
    for name in ours:
        gaps = [mine.astype(float) - other for mine, other in zip(ours[name], rival[name], strict=True)]
        means.append(np.mean([gap.mean() for gap in gaps]))
        if len({len(gap) for gap in gaps}) == 1:
            gaps = [np.mean(gaps, axis=0)]
        for gap in gaps:
            total += gap[rng.integers(0, len(gap), (draws, len(gap)))].mean(1) / len(gaps)
    low, high = np.percentile(total / len(means), [2.5, 97.5])
    return float(np.mean(means)), float(low), float(high)


def measured(content: dict, tests: Sequence[str]) -> list[tuple[str, str]]:
    """Measures and names with the accuracy of all sets at five clips per class and with all, networks first."""
    found = []
    for measure in MEASURES:
        names = {who for name in tests for who in content["hits"].get(name, {}).get(measure, {})}
        for who in sorted(names, key=lambda who: (who in JOINTS, who)):
            if all(not np.isnan(mean_accuracy(content, tests, measure, who, key)) for key in WIDE_SHOTS):
                found.append((measure, who))
    return found


def label(content: dict, who: str) -> str:
    """Name of a network or baseline in a table."""
    network, _, kind = who.rpartition(" ")
    if who in JOINTS:
        return JOINTS[who]
    if kind in ("random", "scratch"):
        return f"{network}, {'random weights' if kind == 'random' else 'from scratch'}"
    if who != recipe_of(who):
        return f"{recipe_of(who)}, seed {who.partition('-seed')[2]}"
    # Weights that are too large for the repository have figures only.
    return f"`{NAMESPACE}/{who}`" if f"{NAMESPACE}/{who}" in CHECKPOINTS else who


def accuracy_table(content: dict, group: str) -> str:
    """Mean accuracy against the number of labelled clips, and each set with five."""
    tests = GROUPS[group]
    lines = [
        f"| {group}: measure | features | {' | '.join(KEYS)} | at 5: {' | '.join(tests)} |",
        "|" + "---|" * (7 + len(tests)),
    ]
    known = measured(content, tests)

    def row(measure: str, names: Sequence[str]) -> str:
        at_five = [accuracies(content, tests, measure, who, "5") for who in names]
        means = [np.mean([mean_accuracy(content, tests, measure, who, key) for who in names]) for key in KEYS]
        means += [np.mean([set_accuracy(of[name]) for of in at_five]) for name in tests]
        title = label(content, names[0]) if len(names) == 1 else f"{recipe_of(names[0])}, mean of {len(names)} seeds"
        cells = " | ".join("" if np.isnan(mean) else f"{mean:.1f}" for mean in means)
        return f"| {TITLES[measure]} | {title} | {cells} |"

    for measure, who in known:
        lines.append(row(measure, [who]))
        seeds = [name for of, name in known if of == measure and name in content["models"]]
        seeds = [name for name in seeds if recipe_of(name) == recipe_of(who)]
        if len(seeds) > 1 and who == seeds[-1]:
            lines.append(row(measure, seeds))
    return "\n".join(lines)


def difference_table(content: dict, group: str) -> str:
    """Differences to the baselines, with five clips per class and with all, and their intervals."""
    tests = GROUPS[group]
    known = measured(content, tests)
    lines = [
        f"| {group}: differences | against | with 5 | 95 % interval | with all | 95 % interval |",
        "|" + "---|" * 6,
    ]
    for measure, who in known:
        if who not in content["models"] or who != recipe_of(who):
            continue
        rivals = [*JOINTS, f"{recipe_of(who)} random", f"{recipe_of(who)} scratch"]
        rivals += ["mocap-tiny"] if recipe_of(who) != "mocap-tiny" else []
        # The research-only variant is to be better than the one that anybody may use.
        rivals += [who.removesuffix("-nc")] if who.endswith("-nc") else []
        for rival in [rival for rival in rivals if (measure, rival) in known]:
            cells = []
            for key in WIDE_SHOTS:
                pair = (accuracies(content, tests, measure, name, key) for name in (who, rival))
                mean, low, high = (100 * value for value in difference(*pair))
                cells += [f"{mean:+.1f}", f"{low:+.1f} to {high:+.1f}"]
            lines.append(
                f"| {label(content, who)}, {TITLES[measure]} | {label(content, rival)} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def trial_table(content: dict) -> str:
    """The trials of recipes, scored on the development sets."""
    keys = ("1nn@5", "1nn@all", "linear@5", "linear@all")
    lines = ["| trial | score | 1-NN at 5 | 1-NN, all | linear probe at 5 | linear probe, all |", "|" + "---|" * 6]
    for name in [name for name in TRIALS if name in content.get("trials", {})]:
        row = content["trials"][name]
        means = [100 * float(np.mean([values[key] for values in row["sets"].values()])) for key in keys]
        lines.append(f"| {name} | {row['score']:.1f} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    return "\n".join(lines)


def tables(content: dict) -> list[str]:
    """The tables of `benchmarks/README.md`; those without figures are left out."""
    rows = [table(content, group) for group in GROUPS for table in (accuracy_table, difference_table)]
    return [table for table in (*rows, trial_table(content)) if len(table.splitlines()) > 2]


def write_tables(content: dict, path: Path) -> None:
    """Replace the tables of a document with the same header."""
    text = path.read_text()
    for table in tables(content):
        head, found, rest = text.partition("\n" + table.splitlines()[0] + "\n")
        if not found:
            raise SystemExit(f"{path}: there is no table that begins with '{table.splitlines()[0]}'")
        text = f"{head}\n{table}\n\n{rest.partition(chr(10) * 2)[2]}"
    with new_file(path) as partial:
        partial.write_text(text)


def draw_curves(content: dict, group: str, path: Path) -> None:
    """Mean accuracy over the sets against the number of labelled clips of a class."""
    tests = GROUPS[group]
    known = measured(content, tests)
    measures = [measure for measure in MEASURES if measure in dict(known)]
    figure = Figure(figsize=(0.4 + 3.6 * len(measures), 4.0), layout="constrained")
    rows = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    # The encoders that are published, and their baselines.
    shown = list(dict.fromkeys(who for _, who in known if "-seed" not in who and not who.endswith("-nc")))
    lines = {}
    for axes, measure in zip(rows, measures, strict=True):
        for who in [who for of, who in known if of == measure and who in shown]:
            means = [mean_accuracy(content, tests, measure, who, count) for count in KEYS]
            style = "-" if who in content["models"] else "--"
            name, color = label(content, who).strip("`"), f"C{shown.index(who)}"
            [lines[name]] = axes.plot(KEYS, means, marker="o", linestyle=style, color=color)
        axes.set(title=TITLES[measure], xlabel="labelled clips of each class")
        axes.grid(alpha=0.3)
    # Below the panels, where it covers no line.
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=3, fontsize=8)
    where = tests[0] if len(tests) == 1 else f"mean of the {len(tests)} {group} sets"
    figure.supylabel(f"accuracy, %, {where}", fontsize=9)
    with new_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


@torch.inference_mode()
def half_missing(
    extractor: USDRLFeatureExtractor, model: USDRLModel, path: Path
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of test clips and of copies with half of the joints missing; which copies are nearest to theirs."""
    _, test, _ = default_split(open_data(path))
    whole = [extractor.prepare(sequence) for sequence in test.drop_empty()]
    rng = np.random.default_rng(0)
    half = []
    for sequence in whole:
        keypoints = sequence.keypoints.copy()
        joints = keypoints.shape[2]
        keypoints[:, :, rng.permutation(joints)[: joints // 2]] = 0
        half.append(replace(sequence, keypoints=keypoints))
    first, second = (embed_clips(model, extractor(s, return_tensors="pt")["keypoints"]) for s in (whole, half))
    return first, second, top_k(second, first, 1)[1][:, 0] == torch.arange(len(first))


def measure_robustness(models: list[Path], data: Path, record: Record, tests: Sequence[str]) -> None:
    """Compare embeddings of clips with half of their joints missing at random with those of the complete clips."""
    print("| model | set | cosine | finds its clip | to other clips |\n|---|---|---|---|---|")
    for path in models:
        extractor, model = USDRLFeatureExtractor.from_pretrained(path), USDRLModel.from_pretrained(path).eval()
        for name in tests:
            first, second, found = half_missing(extractor, model, data / f"{name}.npz")
            cosine = torch.nn.functional.cosine_similarity
            values = {
                "cosine": float(cosine(first, second).mean()),
                "lowest_cosine": float(cosine(first, second).min()),
                "finds_itself": float(found.float().mean()),
                "other_clips_cosine": float(cosine(first, first.roll(1, 0)).mean()),
            }
            record.put("robust", name_of(path), name, value=values)
            cells = [f"{values[key]:.3f}" for key in ("cosine", "finds_itself", "other_clips_cosine")]
            print(f"| {name_of(path)} | {name} | " + " | ".join(cells) + " |", flush=True)


@torch.no_grad()
def measure_layouts(models: list[Path], data: Path, record: Record) -> None:
    """Compare classes of clips converted through another layout with those of directly converted clips."""
    print("| model | set | layout | joints | same class |\n|---|---|---|---|---|")
    for path in models:
        extractor, model = USDRLFeatureExtractor.from_pretrained(path), USDRLModel.from_pretrained(path).eval()
        target = get_layout(extractor.layout)
        for name in ("ui_prmd_vicon", "hdm05_11"):
            parts = [part.drop_empty() for part in default_split(open_data(data / f"{name}.npz"))[:2]]
            labels = torch.as_tensor(np.asarray(parts[0].column("labels"), dtype=np.int64))
            native = [
                embed_clips(model, extractor(list(part), return_tensors="pt")["keypoints"], pooled=True)
                for part in parts
            ]
            with torch.enable_grad():
                head = fit_logistic_regression(native[0].clone(), labels, int(labels.max()) + 1)
            answers = head(native[1].clone()).argmax(1)
            for layout in LAYOUTS.values():
                source = parts[1].layout
                weights = weights_through(source, layout, target, min_joints=15)
                if weights is None or layout.name == source.name:
                    continue
                # Turned upright first: the way between is a matter of joints only.
                axes, signs = TO_Y_UP[source.up]
                clips = [
                    SkeletonSequence(weights @ (s.keypoints[..., axes] * np.float32(signs)), target) for s in parts[1]
                ]
                keypoints = extractor(clips, return_tensors="pt")["keypoints"]
                features = embed_clips(model, keypoints, pooled=True).clone()
                joints = sum(make_joint(joint, source) is not None for joint in layout.joint_names)
                same = float((head(features).argmax(1) == answers).float().mean())
                record.put("layouts", name_of(path), name, layout.name, value={"joints": joints, "same_class": same})
                print(f"| {name_of(path)} | {name} | {layout.name} | {joints} | {100 * same:.1f} |", flush=True)


def few_labels(content: dict, group: str, name: str) -> list[dict[str, Any]]:
    """Accuracies in [0, 1] of an encoder, its seeds and baselines on a group of sets, for a card."""
    rows = []
    for measure, who in measured(content, GROUPS[group]):
        means = {key: mean_accuracy(content, GROUPS[group], measure, who, key) / 100 for key in KEYS}
        means = {key: mean for key, mean in means.items() if not np.isnan(mean)}
        if means and (who in JOINTS or recipe_of(who.partition(" ")[0]) == name):
            rows.append({"measure": measure, "who": who, "accuracy": means})
    return sorted(rows, key=lambda row: row["who"] in JOINTS)


def test_clips(content: dict, group: str) -> dict[str, int]:
    """Number of test clips of a group of sets."""
    return {"test": sum(len(content["sets"][f"{test} 0"]["labels"]) for test in GROUPS[group])}


def final_scores(content: dict, group: str, name: str) -> dict[str, Any]:
    """The same of the final sets, or empty before they are scored."""
    few = few_labels(content, group, name)
    if not any(row["who"] == name for row in few):
        return {}
    return {"dataset": ", ".join(GROUPS[group]), "n": test_clips(content, group), "few_labels": few}


def ship(run: Path, record: Record, folder: Path, group: str) -> None:
    """Write an encoder's folder for publication: without projectors, with its figures on a group of sets."""
    name, content = name_of(run), record.content
    model = USDRLModel.from_pretrained(run)
    few, final = few_labels(content, group, name), group.replace("development", "final")
    own = {row["measure"]: row["accuracy"] for row in few if row["who"] == name}
    joints = {row["measure"]: row["accuracy"] for row in few if row["who"] == "normalised"}
    figures = {f"{measure}@5": accuracy["5"] for measure, accuracy in own.items()}
    figures |= {f"baseline_{measure}@5": accuracy["5"] for measure, accuracy in joints.items()}
    figures["1nn@all"] = own["1nn"]["all"]
    with new_folder(folder) as partial:
        model.save_pretrained(partial)
        USDRLFeatureExtractor.from_pretrained(run).save_pretrained(partial)
        draw_curves(content, group, partial / FEW_LABELS)
        made = redact_paths(json.loads((run / "metrics.json").read_text()))
        kept = ("seed", "recipe", "steps", "log", "command", "wall_seconds", "resumed_at_step")
        kept += ("git_revision", "versions", "hardware")
        write_metrics(
            partial,
            {
                "task": "frozen or fine-tuned, with few labels",
                "dataset": ", ".join(GROUPS[group]),
                "n": test_clips(content, group),
                "trained_on": list(sources_of(name)),
                "metrics": figures,
                "few_labels": few,
                **({"final": scores} if (scores := final_scores(content, final, name)) else {}),
                **{key: made[key] for key in kept if key in made},
                "checkpoint_sha256": sha256(partial / "model.safetensors"),
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["proof", "robust", "layouts", "ship", "table"])
    parser.add_argument("names", nargs="*", help="Folders of models, or documents.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=[*GROUPS, *sum(GROUPS.values(), ())],
        default=["development"],
        help="Groups of sets, or sets; `ship` takes one group.",
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    record = Record(arguments.output)
    if arguments.what not in ("ship", "table") and arguments.data is None:
        parser.error("name --data")
    if arguments.what != "table":
        lost = [name for name in arguments.names if not (Path(name) / "model.safetensors").is_file()]
        if lost or not arguments.names:
            parser.error(f"{lost[0]}: no model lies there" if lost else "name folders of models")
    if arguments.what == "ship" and arguments.sets[0] not in GROUPS:
        parser.error(f"{arguments.sets[0]}: figures of a whole group are shipped: {', '.join(GROUPS)}")
    models = [Path(name) for name in arguments.names]
    tests = [test for given in arguments.sets for test in GROUPS.get(given, (given,))]
    if arguments.what == "proof":
        prove(models, arguments.data, record, arguments.only, tests)
    elif arguments.what == "robust":
        measure_robustness(models, arguments.data, record, tests)
    elif arguments.what == "layouts":
        measure_layouts(models, arguments.data, record)
    elif arguments.what == "ship":
        for run in models:
            ship(run, record, arguments.output.parent / f"usdrl--{name_of(run)}", arguments.sets[0])
    else:
        print("\n\n".join(tables(record.content)))
        for name in arguments.names:
            write_tables(record.content, Path(name))
        for group in [group for group in GROUPS if measured(record.content, GROUPS[group])]:
            draw_curves(record.content, group, arguments.output.with_name(f"mocap-{group}.png"))


if __name__ == "__main__":
    main()
