"""The mocap checkpoints: pretraining, and accuracy with few labels.

    python benchmarks/mocap.py pretrain NAME --data DATA --runs RUNS
    python benchmarks/mocap.py proof MODEL [MODEL ...] --data DATA [--only 1nn linear finetuned]
    python benchmarks/mocap.py robust MODEL [MODEL ...] --data DATA
    python benchmarks/mocap.py layouts MODEL [MODEL ...] --data DATA
    python benchmarks/mocap.py ablation --data DATA --runs RUNS
    python benchmarks/mocap.py ship MODEL [MODEL ...]
    python benchmarks/mocap.py table [benchmarks/README.md]

DATA holds the open sets as .npz files (they cannot be part of this repository). `pretrain` runs the recipe NAME
(mocap-tiny, mocap-small-nc; or a variant of the first: mocap-tiny-pairs with synthetic pairs of people,
mocap-tiny-seed1 and -seed2 with another seed) without labels on the data in SOURCES, without the people of the sample
clips, and writes the encoder to RUNS/NAME. MODEL is such a folder, or a published one
(`usdrl_hub/checkpoints/usdrl--mocap-tiny`).

`proof`: nearest neighbour (cosine), logistic regression and full fine-tuning with 1, 2, 5, 10 and all training clips
of each class, on five data sets not used in pretraining, with three random draws of the clips; compared with the same
network with random weights (frozen) or trained from scratch, and with the joints, raw and normalised. On sbu, draw k
is scored on fold k. Figures already in the output file are kept.

`robust`: similarity of the embeddings of clips with half of the joints missing to those of the complete clips.

`layouts`: clips of two data sets, first converted to every registered layout with at least 15 of its joints in common,
classified by a head trained on directly converted clips: how often the class is the same.

`ablation`: single changes of the recipe mocap-tiny in a short run of one seed, scored with five clips per class by
nearest neighbour and logistic regression, and by the share of clips that, with half of their joints missing, are
nearest to themselves.

`ship` writes an encoder for publication, with its figures, to a folder beside the output file.

`table` prints the figures, with the difference to each baseline at five clips per class and its 95 % interval (paired
bootstrap over test clips within each set), draws the curves, and updates the tables of a document.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from usdrl_hub import (
    SkeletonSequence,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLModel,
    open_data,
    write_store,
)
from usdrl_hub.data.augmentation import ClipAugmentation
from usdrl_hub.data.protocols import default_split
from usdrl_hub.files import new_file, new_folder
from usdrl_hub.hub.cards import FEW_LABELS
from usdrl_hub.inference.embedding import embed_clips
from usdrl_hub.layouts import LAYOUTS, TO_Y_UP, get_layout, make_joint, weights_through
from usdrl_hub.metrics.retrieval import top_k
from usdrl_hub.normalization import resize
from usdrl_hub.pretraining.arguments import ComputeOptions
from usdrl_hub.pretraining.build import load_recipe
from usdrl_hub.pretraining.run import pretrain
from usdrl_hub.records import redact_paths, run_record, sha256, write_metrics
from usdrl_hub.tasks.fit import FitRecipe, fit
from usdrl_hub.tasks.heads import with_head
from usdrl_hub.tasks.linear import fit_logistic_regression

SOURCES = {
    "mocap-tiny": ("ui_prmd_vicon", "cmu_asfamc_s01_s02"),
    "mocap-small-nc": ("ui_prmd_vicon", "cmu_asfamc_s01_s02", "bandai_namco1", "bandai_namco2"),
}
TESTS = ("utd_mhad", "nw_ucla", "sbu", "utkinect", "hdm05_11")
SHOTS = (1, 2, 5, 10, None)
SEEDS = (0, 1, 2)
MEASURES = ("1nn", "linear", "finetuned")
TITLES = {"1nn": "1-NN", "linear": "linear probe", "finetuned": "fine-tuned"}
JOINTS = {"normalised": "joints, normalised", "joints": "joints as they are"}
# Other runs of a recipe: what tables call them, what they change, and their seed. The first is the recipe as it was
# once, by which pairs are judged at full length; the others tell what is the luck of a seed.
VARIANTS = {
    "mocap-tiny-pairs": ("mocap-tiny, trained with `pairs: 0.5`", {"synthetic_pairs": 0.5}, 0),
    "mocap-tiny-seed1": ("mocap-tiny, pretrained with seed 1", {}, 1),
    "mocap-tiny-seed2": ("mocap-tiny, pretrained with seed 2", {}, 2),
}
# Fine-tuning takes as many steps for every number of clips, or this many passes where there are more; the same for
# pretrained weights and from scratch. Chosen on training people of utd_mhad and nw_ucla.
STEPS, PASSES, BATCH = 160, 4, 16


def sources(name: str, data: Path, runs: Path) -> list[Path]:
    """Pretraining data of a checkpoint; UI-PRMD without the people of the sample clips."""
    paths = {source: data / f"{source}.npz" for source in SOURCES[name]}
    part = runs / "ui_prmd_vicon-train"
    if not part.is_dir():
        write_store(default_split(open_data(paths["ui_prmd_vicon"]))[0].drop_empty(), part)
    return [part, *(path for source, path in paths.items() if source != "ui_prmd_vicon")]


class Set:
    """One set's training and test part, normalised clips and joints as they are, for one draw of the clips."""

    def __init__(self, path: Path, extractor: USDRLFeatureExtractor, seed: int):
        self.name = path.stem
        dataset = open_data(path)
        train, test, self.rule = default_split(dataset, seed if dataset.column("folds") is not None else 0)
        parts = [part.drop_empty() for part in (train, test)]
        self.labels = [torch.as_tensor(np.asarray(part.column("labels"), dtype=np.int64)) for part in parts]
        self.num_classes = int(max(part.max() for part in self.labels)) + 1
        self.sequences = [list(part) for part in parts]
        self.clips = [extractor(part, return_tensors="pt")["keypoints"] for part in self.sequences]
        self.seed = seed

    def raw(self) -> list[torch.Tensor]:
        """Joints as they are in the file, resized."""
        most = max(sequence.num_persons for part in self.sequences for sequence in part)
        rows = []
        for part in self.sequences:
            frames = [resize(torch.from_numpy(sequence.keypoints), 64) for sequence in part]
            pad = [(0, 0, 0, 0, 0, most - clip.shape[1]) for clip in frames]
            rows.append(
                torch.stack([torch.nn.functional.pad(*row).flatten() for row in zip(frames, pad, strict=True)])
            )
        return rows

    def drawn(self, shots: int | None) -> torch.Tensor:
        """Training clips of this draw: `shots` of each class, or all."""
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(self.labels[0])))
        labels = self.labels[0][order]
        kept = [order[labels == kind][:shots] for kind in range(self.num_classes)]
        return torch.cat(kept).sort().values


@torch.no_grad()
def frozen_hits(features: list[torch.Tensor], data: Set, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Which test clips are right by the nearest neighbour and by logistic regression."""
    train, labels = features[0][rows], data.labels[0][rows]
    nearest = top_k(features[1], train, 1)[1][:, 0]
    with torch.enable_grad():
        layer = fit_logistic_regression(train, labels, data.num_classes)
    linear = layer(features[1].float()).argmax(1)
    return {"1nn": labels[nearest] == data.labels[1], "linear": linear == data.labels[1]}


def nearest_hits(features: list[torch.Tensor], data: Set, rows: torch.Tensor) -> torch.Tensor:
    """Which test clips are right by the nearest neighbour in Euclidean distance, for coordinates."""
    nearest = torch.cdist(features[1], features[0][rows]).argmin(dim=1)
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
    torch.manual_seed(data.seed)
    model = with_head(encoder, USDRLForActionRecognition, data.num_classes)
    clips, labels = data.clips[0][rows], data.labels[0][rows]
    start = fit_logistic_regression(embed_clips(encoder, clips, pooled=True), labels, data.num_classes)
    model.classifier.load_state_dict(start.state_dict())
    per_epoch = -(-len(rows) // BATCH)
    recipe = FitRecipe(
        epochs=max(STEPS / per_epoch, PASSES), batch_size=BATCH, learning_rate=3e-4, label_smoothing=0.1
    )
    augment = ClipAugmentation(shortest_crop=0.7, shear=0.15, missing_joints=0.1)
    fit(model, Clips(clips, labels, augment), recipe, seed=data.seed)
    with torch.inference_mode():
        answers = [model(part.to(model.device)).logits.argmax(1).cpu() for part in data.clips[1].split(128)]
    return torch.cat(answers) == data.labels[1]


def name_of(model: Path) -> str:
    """Name of a checkpoint: its folder, without the owner."""
    return model.name.removeprefix("usdrl--")


def recipe_of(name: str) -> str:
    """The recipe of a checkpoint or variant."""
    return name.rpartition("-")[0] if name in VARIANTS else name


def random_encoder(config: USDRLConfig, seed: int) -> USDRLModel:
    torch.manual_seed(seed)
    return USDRLModel(config).eval()


def packed(hits: torch.Tensor) -> str:
    return np.packbits(hits.numpy()).tobytes().hex()


def unpacked(text: str, count: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))[:count].astype(bool)


class Record:
    """The figures, saved after each measurement."""

    def __init__(self, path: Path):
        self.path = path
        self.content = json.loads(path.read_text()) if path.is_file() else {}

    def put(self, *keys: str, value) -> None:
        """Set a figure."""
        # Read again: another process may be measuring the other half.
        self.content = json.loads(self.path.read_text()) if self.path.is_file() else {}
        place = self.content
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        with new_file(self.path) as partial:
            partial.write_text(json.dumps(self.content, indent=1, sort_keys=True) + "\n")

    def has(self, *keys: str) -> bool:
        """Whether a figure has been measured."""
        place = self.content
        for key in keys:
            if key not in place:
                return False
            place = place[key]
        return True


def prove(models: list[Path], data: Path, record: Record, measures: list[str], tests: tuple[str, ...]) -> None:
    """Measure the missing figures."""
    started = time.monotonic()
    encoders = {name_of(path): USDRLModel.from_pretrained(path).eval() for path in models}
    extractor = USDRLFeatureExtractor.from_pretrained(models[0])
    for path in models:
        record.put("models", name_of(path), value=sha256(path / "model.safetensors"))
    for name in tests:
        for seed in SEEDS:
            subject = Set(data / f"{name}.npz", extractor, seed)
            record.put("sets", f"{name} {seed}", value={"split": subject.rule, "test": len(subject.labels[1])})
            # The network of a variant has been measured already.
            untrained = {
                f"{name} random": random_encoder(model.config, seed)
                for name, model in encoders.items()
                if name not in VARIANTS
            }
            networks = {**encoders, **untrained}
            if {"1nn", "linear"} & set(measures):
                features = {
                    who: [embed_clips(model, part) for part in subject.clips] for who, model in networks.items()
                }
                features |= {"joints": subject.raw(), "normalised": [part.flatten(1) for part in subject.clips]}
                for shots in SHOTS:
                    rows = subject.drawn(shots)
                    for who, values in features.items():
                        hits = frozen_hits(values, subject, rows)
                        if who in ("joints", "normalised"):
                            hits["1nn"] = nearest_hits(values, subject, rows)
                        for measure in set(measures) & set(hits):
                            keys = ("hits", name, measure, who, str(shots or "all"), str(seed))
                            record.put(*keys, value=packed(hits[measure]))
            if "finetuned" in measures:
                for shots in SHOTS:
                    for who, encoder in networks.items():
                        who = who.replace(" random", " scratch")
                        keys = ("hits", name, "finetuned", who, str(shots or "all"), str(seed))
                        if not record.has(*keys):
                            hits = finetuned_hits(encoder, subject, subject.drawn(shots))
                            record.put(*keys, value=packed(hits))
                            print(name, seed, shots, who, f"{100 * hits.float().mean():.1f}", flush=True)
    record.put("run", value=redact_paths(run_record(started)))


def accuracies(content: dict, measure: str, who: str, shots: str) -> dict[str, list[np.ndarray]]:
    """Hits of each measured set, one array for each draw."""
    found = {}
    for name in TESTS:
        draws = content["hits"].get(name, {}).get(measure, {}).get(who, {}).get(shots, {})
        if draws:
            found[name] = [unpacked(text, content["sets"][f"{name} {seed}"]["test"]) for seed, text in draws.items()]
    return found


def difference(ours: dict, rival: dict, draws: int = 2000) -> tuple[float, float, float]:
    """Mean difference over the sets with its 95 % bootstrap interval over the test clips of each set and draw."""
    rng = np.random.default_rng(0)
    sets = [name for name in ours if name in rival]
    means, total = [], np.zeros(draws)
    for name in sets:
        rows = []
        for mine, other in zip(ours[name], rival[name], strict=True):
            gap = mine.astype(float) - other.astype(float)
            rows.append(gap.mean())
            total += gap[rng.integers(0, len(gap), (draws, len(gap)))].mean(1) / len(ours[name])
        means.append(np.mean(rows))
    low, high = np.percentile(total / len(sets), [2.5, 97.5])
    return float(np.mean(means)), float(low), float(high)


def everyone(content: dict) -> dict[str, list[str]]:
    """Features with measured accuracy, by measure."""
    return {m: sorted({who for s in content["hits"].values() for who in s.get(m, {})}) for m in MEASURES}


def mean_accuracy(content: dict, measure: str, who: str, shots: str) -> float:
    """Mean accuracy over sets and draws, in percent."""
    found = accuracies(content, measure, who, shots)
    return 100 * float(np.mean([np.mean([hits.mean() for hits in draws]) for draws in found.values()]))


def label(content: dict, who: str) -> str:
    """Name of a network or baseline in a table."""
    if who in content["models"]:
        return VARIANTS[who][0] if who in VARIANTS else f"`usdrl/{who}`"
    network, _, kind = who.rpartition(" ")
    return {"random": f"{network}, random weights", "scratch": f"{network}, from scratch"}.get(kind) or JOINTS[who]


def whole_rows(content: dict) -> list[tuple[str, str]]:
    """Measures and names with all figures, networks first."""
    shots = [str(count or "all") for count in SHOTS]
    return [
        (measure, who)
        for measure in MEASURES
        for who in sorted(everyone(content)[measure], key=lambda who: (who in JOINTS, who))
        if all(
            len(found := accuracies(content, measure, who, count)) == len(TESTS)
            and all(len(draws) == len(SEEDS) for draws in found.values())
            for count in shots
        )
    ]


def tables(content: dict) -> list[str]:
    """The tables of `benchmarks/README.md`: accuracy with few labels, differences to baselines, and the ablation."""
    shots = [str(count or "all") for count in SHOTS]
    lines = [f"| measure | features | {' | '.join(shots)} | at 5: {' | '.join(TESTS)} |", "|" + "---|" * 12]
    for measure, who in whole_rows(content):
        at_five = accuracies(content, measure, who, "5")
        means = [mean_accuracy(content, measure, who, count) for count in shots]
        means += [100 * float(np.mean([hits.mean() for hits in at_five[name]])) for name in TESTS]
        cells = " | ".join(f"{mean:.1f}" for mean in means)
        lines.append(f"| {TITLES[measure]} | {label(content, who)} | {cells} |")
    gaps = ["| with 5 clips per class | against | difference | 95 % interval |", "|---|---|---|---|"]
    known = whole_rows(content)
    for measure, who in known:
        # What pretraining adds is told of each seed, the rest of the encoder that is published.
        rivals = [f"{recipe_of(who)} random", f"{recipe_of(who)} scratch"] if who in content["models"] else []
        rivals = [] if who == "mocap-tiny-pairs" else rivals
        rivals = [*JOINTS, *rivals, f"{who}-pairs"] if who in SOURCES else rivals
        for rival in rivals:
            if (measure, rival) in known:
                ours, theirs = (accuracies(content, measure, name, "5") for name in (who, rival))
                mean, low, high = (100 * value for value in difference(ours, theirs))
                gaps.append(
                    f"| {label(content, who)}, {TITLES[measure]} | {label(content, rival)} | {mean:+.1f} "
                    f"| {low:+.1f} to {high:+.1f} |"
                )
    changes = ["| change | 1-NN | linear probe | on sbu | finds itself |", "|---|---|---|---|---|"]
    for name in ABLATION:
        if name in content.get("ablation", {}):
            values = content["ablation"][name]
            cells = [float(np.mean(list(values[key].values()))) for key in ("1nn", "linear", "finds_itself")]
            cells.insert(2, values["linear"]["sbu"])
            changes.append(f"| {name} | " + " | ".join(f"{100 * cell:.1f}" for cell in cells) + " |")
    return ["\n".join(rows) for rows in (lines, gaps, changes)]


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


def draw_curves(content: dict, path: Path) -> None:
    """Mean accuracy over the sets against the number of labelled clips of a class."""
    shots = [str(count or "all") for count in SHOTS]
    known = whole_rows(content)
    measures = [measure for measure in MEASURES if measure in dict(known)]
    figure = Figure(figsize=(0.4 + 3.6 * len(measures), 3.6), layout="constrained")
    rows = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(rows, measures, strict=True):
        for who in [who for of, who in known if of == measure and who not in VARIANTS]:
            means = [mean_accuracy(content, measure, who, count) for count in shots]
            name = label(content, who).strip("`")
            axes.plot(shots, means, marker="o", linestyle="-" if who in SOURCES else "--", label=name)
        axes.set(title=TITLES[measure], xlabel="labelled clips of each class")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.supylabel("accuracy, %, mean of five sets", fontsize=9)
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


def measure_robustness(models: list[Path], data: Path, record: Record) -> None:
    """Compare embeddings of clips with half of their joints missing at random with those of the complete clips."""
    print("| model | set | cosine | without the mean | finds its clip | to other clips |\n|---|---|---|---|---|---|")
    for path in models:
        extractor, model = USDRLFeatureExtractor.from_pretrained(path), USDRLModel.from_pretrained(path).eval()
        for name in TESTS:
            first, second, found = half_missing(extractor, model, data / f"{name}.npz")
            cosine = torch.nn.functional.cosine_similarity
            mean = first.mean(0)
            values = {
                "cosine": float(cosine(first, second).mean()),
                "lowest_cosine": float(cosine(first, second).min()),
                "centred_cosine": float(cosine(first - mean, second - mean).mean()),
                "finds_itself": float(found.float().mean()),
                "other_clips_cosine": float(cosine(first, first.roll(1, 0)).mean()),
            }
            record.put("robust", name_of(path), name, value=values)
            cells = [
                f"{values[key]:.3f}" for key in ("cosine", "centred_cosine", "finds_itself", "other_clips_cosine")
            ]
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
            native = [embed_clips(model, extractor(list(part), return_tensors="pt")["keypoints"]) for part in parts]
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
                features = embed_clips(model, extractor(clips, return_tensors="pt")["keypoints"]).clone()
                joints = sum(make_joint(joint, source) is not None for joint in layout.joint_names)
                same = float((head(features).argmax(1) == answers).float().mean())
                record.put("layouts", name_of(path), name, layout.name, value={"joints": joints, "same_class": same})
                print(f"| {name_of(path)} | {name} | {layout.name} | {joints} | {100 * same:.1f} |", flush=True)


def ship(run: Path, record: Record, folder: Path) -> None:
    """Write an encoder's folder for publication: without projectors, with its figures."""
    name, content = name_of(run), record.content
    shots = [str(count or "all") for count in SHOTS]
    few = [
        {
            "measure": measure,
            "who": who,
            "accuracy": {count: mean_accuracy(content, measure, who, count) / 100 for count in shots},
        }
        for measure, who in whole_rows(content)
        if who not in VARIANTS
    ]
    figures = {f"{row['measure']}@5": row["accuracy"]["5"] for row in few if row["who"] == name}
    with new_folder(folder) as partial:
        USDRLModel.from_pretrained(run).save_pretrained(partial)
        USDRLFeatureExtractor.from_pretrained(run).save_pretrained(partial)
        draw_curves(content, partial / FEW_LABELS)
        made = redact_paths(json.loads((run / "metrics.json").read_text()))
        kept = ("seed", "recipe", "steps", "log", "command", "wall_seconds", "git_revision", "versions", "hardware")
        write_metrics(
            partial,
            {
                "task": "frozen or fine-tuned, with few labels",
                "dataset": ", ".join(TESTS),
                "n": {"test": sum(content["sets"][f"{test} 0"]["test"] for test in TESTS)},
                "trained_on": list(SOURCES[name]),
                "metrics": figures,
                "few_labels": few,
                **{key: made[key] for key in kept if key in made},
                "checkpoint_sha256": sha256(partial / "model.safetensors"),
            },
        )


# Name of each row, and what of the recipe it changes: fields of the model, the loss and the views, and of the recipe.
ABLATION = {
    "the recipe": {},
    "views of the release only": {
        "views": dict.fromkeys(("joint_dropout", "limb_dropout", "other_layout", "noise", "mirror"), 0.0)
        | {"max_yaw": 0.0, "scale_jitter": 0.0, "max_stride": 1}
    },
    "nothing lost": {"views": {"joint_dropout": 0.0, "limb_dropout": 0.0, "other_layout": 0.0}},
    "half of the lone people in pairs": {"synthetic_pairs": 0.5},
    "STTR": {"model": {"encoder": "sttr"}},
    "without the temporal domain": {"loss": {"temporal": 0.0}},
    "without the spatial domain": {"loss": {"spatial": 0.0}},
    "without the instance domain": {"loss": {"instance": 0.0}},
    "with cross-correlation": {"loss": {"cross_correlation": 1e-3}},
    "alpha 0": {"model": {"alpha": 0.0}},
    "gap 1": {"model": {"shift_gap": 1}},
    "joint, motion and bone": {"model": {"modality": "joint+motion+bone"}},
}
ABLATION_EPOCHS = 4


def ablate(data: Path, runs: Path, record: Record, rows: list[str] | None) -> None:
    """Short runs of the recipe with single changes, scored with five clips per class."""
    base = load_recipe("mocap-tiny")
    for name, changes in ABLATION.items():
        if (rows and name not in rows) or record.has("ablation", name):
            continue
        changed = {key: {**getattr(base, key), **value} for key, value in changes.items() if key in ("model", "views")}
        changed |= {key: changes[key] for key in ("loss", "synthetic_pairs") if key in changes}
        recipe = replace(base, **changed).changed(epochs=ABLATION_EPOCHS)
        folder = runs / ("ablation-" + name.replace(" ", "-").replace(",", ""))
        if not (folder / "model.safetensors").is_file():
            pretrain(sources("mocap-tiny", data, runs), folder, recipe, seed=0)
        extractor, model = USDRLFeatureExtractor.from_pretrained(folder), USDRLModel.from_pretrained(folder).eval()
        scores: dict[str, list[float]] = {"1nn": [], "linear": [], "finds_itself": []}
        for test in TESTS:
            subject = Set(data / f"{test}.npz", extractor, 0)
            hits = frozen_hits([embed_clips(model, part) for part in subject.clips], subject, subject.drawn(5))
            hits["finds_itself"] = half_missing(extractor, model, data / f"{test}.npz")[2]
            for measure in scores:
                scores[measure].append(float(hits[measure].float().mean()))
        values = {measure: dict(zip(TESTS, found, strict=True)) for measure, found in scores.items()}
        record.put("ablation", name, value=values)
        print(
            f"| {name} | " + " | ".join(f"{100 * np.mean(found):.1f}" for found in scores.values()) + " |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pretrain", "proof", "robust", "layouts", "ablation", "ship", "table"])
    parser.add_argument("names", nargs="*", help="Recipe, models' folders, the ablation's rows, or documents.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--sets", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    record = Record(arguments.output)
    if arguments.what not in ("ship", "table") and arguments.data is None:
        parser.error("name --data")
    if arguments.what in ("pretrain", "ablation") and arguments.runs is None:
        parser.error("name --runs")
    if arguments.what in ("proof", "robust", "layouts", "ship"):
        lost = [name for name in arguments.names if not (Path(name) / "model.safetensors").is_file()]
        if lost or not arguments.names:
            parser.error(f"{lost[0]}: no model lies there" if lost else "name folders of models")
    if arguments.what == "pretrain":
        for name in arguments.names:
            plain = recipe_of(name)
            if plain not in SOURCES:
                parser.error(f"no checkpoint is called {name}: there are {', '.join((*SOURCES, *VARIANTS))}")
            _, changes, seed = VARIANTS.get(name, ("", {}, 0))
            recipe = replace(load_recipe(plain), **changes) if changes else plain
            found = sources(plain, arguments.data, arguments.runs)
            pretrain(found, arguments.runs / name, recipe, seed=seed, compute=ComputeOptions(progress=True))
    elif arguments.what == "proof":
        prove([Path(name) for name in arguments.names], arguments.data, record, arguments.only, tuple(arguments.sets))
    elif arguments.what == "robust":
        measure_robustness([Path(name) for name in arguments.names], arguments.data, record)
    elif arguments.what == "layouts":
        measure_layouts([Path(name) for name in arguments.names], arguments.data, record)
    elif arguments.what == "ship":
        for name in arguments.names:
            run = Path(name)
            ship(run, record, arguments.output.parent / f"usdrl--{name_of(run)}")
    elif arguments.what == "ablation":
        ablate(arguments.data, arguments.runs, record, arguments.names or None)
    else:
        print("\n\n".join(tables(record.content)))
        for name in arguments.names:
            write_tables(record.content, Path(name))
        draw_curves(record.content, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
