"""The commands 'finetune', 'pretrain' and 'evaluate'."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..facts.benchmarks import BENCHMARKS, get_benchmark
from ..facts.checkpoints import ENCODER
from ..facts.recipes import recipe_names
from ..layouts import MODALITIES, NORMALIZATIONS, get_layout
from .options import LABELLED, Model, complete_layout, complete_model, completing, join_or
from .tables import print_table, say


def finetune(
    data: Annotated[Path, typer.Argument(help=LABELLED)],
    output_dir: Annotated[Path, typer.Option(help="Folder to create for the trained model.")],
    model: Model = ENCODER,
    from_scratch: Annotated[bool, typer.Option(help="Train from random weights, with the sizes below.")] = False,
    encoder: Annotated[str | None, typer.Option(help="dste or sttr.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of both streams.")] = None,
    num_persons: Annotated[int | None, typer.Option(help="Persons per clip; the data's if unset.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(autocompletion=complete_layout, help="Joint layout of the model; the data's if unset."),
    ] = None,
    modality: Annotated[str | None, typer.Option(help=f"{join_or(MODALITIES)}.")] = None,
    normalization: Annotated[
        str | None, typer.Option(help=f"{join_or(NORMALIZATIONS)}; the layout's if unset.")
    ] = None,
    linear_probe: Annotated[
        bool, typer.Option("--linear-probe", help="Fit the last layer only, on the frozen encoder's features.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Train all weights, without comparing with a probe.")] = False,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training clips, if all weights are trained.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate, that of the head.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips per step.")] = None,
    balance: Annotated[bool, typer.Option("--balance", help="Weight all classes alike, however many clips.")] = False,
    mirror: Annotated[
        bool,
        typer.Option("--mirror", help="Learn from mirror images, too; not if the classes distinguish left and right."),
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(help="Never on both sides of the split: subject, folder or a column; subject where it is known."),
    ] = None,
    pose_errors: Annotated[
        float,
        typer.Option(help="Probability that a training clip has the errors of pose estimators; for films, try 0.5."),
    ] = 0.0,
    baseline: Annotated[bool, typer.Option(help="Also score nearest neighbours on the raw joints.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Find the numbers of this column of the data, such as a score, not classes.")
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(help="Test every clip once: a number of folds, or subject to leave out each person in turn."),
    ] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Also train on 1, 2, 5 ... clips of each class.")
    ] = False,
    report_to: Annotated[str, typer.Option(help="Log to tensorboard, trackio, wandb or none.")] = "none",
    resume: Annotated[bool, typer.Option(help="Go on with a run of the same command that was killed.")] = True,
    seed: Annotated[int, typer.Option(help="Random seed of weights, order and augmentation.")] = 0,
) -> None:
    """Train a recogniser on your own data and score it on the data's test part."""
    from ..tasks.choice import FULL, SCRATCH
    from ..tasks.console import Console
    from ..tasks.recognition import Evaluation
    from ..tasks.recognition import finetune as finetune_recognition

    if linear_probe and full:
        raise ValueError("--linear-probe and --full contradict each other: give one of them, or none to compare both")
    changes = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    method = "linear" if linear_probe else "full" if full or pose_errors else "auto"
    # The warnings are printed before the scores.
    console = Console(say, lambda text: None, report_to=report_to, resume=resume)
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    recipe = replace(
        SCRATCH if from_scratch else FULL, mirror=mirror, pose_errors=pose_errors, balance=balance, **given
    )
    evaluation = Evaluation(group_by, baseline, folds, learning_curve)
    if target is not None:
        from ..tasks.regression import finetune_values
        from ..tasks.value_training import VALUES

        values = finetune_values(
            data,
            output_dir,
            target,
            model,
            method=method,
            recipe=replace(VALUES, **given) if epochs is None else replace(VALUES, min_steps=0, **given),
            evaluation=evaluation,
            console=console,
            seed=seed,
        )
        _print_values(output_dir, values)
        if values["stopped"]:
            raise typer.Exit(130)
        return
    config = _model_fields(
        encoder=encoder,
        hidden_size=hidden_size,
        num_persons=num_persons,
        layout=layout,
        modality=modality,
        normalization=normalization,
    )
    record = finetune_recognition(
        data,
        output_dir,
        None if from_scratch else model,
        recipe=recipe if epochs is None else replace(recipe, min_steps=0),
        method=method,
        config=config,
        evaluation=evaluation,
        console=console,
        seed=seed,
    )
    say(f"\n{output_dir}: {record['task']}, trained on {record['n']['train']} clips; {record['split']}")
    _print_scores(record)
    say(f"confusions and misclassified clips: {output_dir}/report.html")
    say(f"use it: usdrl predict FILE --model {shlex.quote(str(output_dir))}")
    if record["stopped"]:
        raise typer.Exit(130)


def _print_scores(record: dict[str, Any]) -> None:
    """Warnings, scores with intervals, and baselines of a record of `tasks.report`."""
    for sentence in record["warnings"]:
        say(f"warning: {sentence}")
    rows = [["score", "", "95 % interval"]]
    for name, value in record["metrics"].items():
        low, high = record["scores"]["intervals"].get(name, (None, None))
        rows.append([name, f"{100 * value:.1f} %", "" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"])
    rows += [[name, f"{100 * value:.1f} %", ""] for name, value in record["baselines"].items()]
    print_table(rows)
    if "folds" in record:
        mean, deviation = (100 * record["accuracy_of_folds"][name] for name in ("mean", "std"))
        say(f"accuracy of {len(record['folds'])} folds: mean {mean:.1f} %, deviation {deviation:.1f}")
    for row in record.get("learning_curve", ()):
        spread = f" ({100 * row['low']:.1f} to {100 * row['high']:.1f})" if "low" in row else ""
        say(f"with {row['clips']:g} clips of each class: {100 * row['accuracy']:.1f} %{spread}")
    say(f"on {record['n']['test']} test clips")
    if refusal := record.get("refusal"):
        say(
            f"none of these: below a similarity of {refusal['min_similarity']:.3f}, which keeps "
            f"{100 * refusal['kept']:.1f} % of the recognised test clips; other motion was not tried"
        )


def _print_values(output_dir: Path, record: dict[str, Any]) -> None:
    """The errors of a record of `tasks.regression`."""
    task = f"{record['task']} of {record['target']}"
    say(f"\n{output_dir}: {task}, trained on {record['n']['train']} clips; {record['split']}")
    for sentence in record["warnings"]:
        say(f"warning: {sentence}")

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    scores = record["scores"]
    low, high = scores["intervals"]["mae"]
    rows = [["clips", "n", "mean absolute error", "of the mean", "correlation"]]
    for row in ({"name": "all", "n": record["n"]["test"], **scores}, *scores["groups"]):
        errors = [shown(row[name]) for name in ("mae", "mae_of_mean", "correlation")]
        rows.append([str(row["name"]), str(row["n"]), *errors])
    print_table(rows)
    say(f"95 % interval of the mean absolute error: {low:.4g} to {high:.4g}")
    if "folds" in record:
        mean, deviation = (record["mae_of_folds"][name] for name in ("mean", "std"))
        say(f"mean absolute error of {len(record['folds'])} folds: mean {mean:.4g}, deviation {deviation:.4g}")
    say(f"errors of each clip, and the worst ones as skeletons: {output_dir}/report.html")
    say(f"use it: usdrl predict FILE --model {shlex.quote(str(output_dir))}")


def report(
    model: Annotated[str, typer.Argument(autocompletion=complete_model, help="A recogniser: a name or a folder.")],
    data: Annotated[Path, typer.Option(help=LABELLED)],
    output_dir: Annotated[Path, typer.Option(help="Folder to create: report.html, predictions.csv, metrics.json.")],
    part: Annotated[
        str, typer.Option(help="test, the data's test part, or all, if none of the clips trained the model.")
    ] = "test",
    group_by: Annotated[
        str | None,
        typer.Option(help="Never on both sides of the split: subject, folder or a column; subject where it is known."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of a split by groups.")] = 0,
) -> None:
    """Score a recogniser on labelled data, with a page of confusions and misclassified clips."""
    from ..tasks.report import report_model

    record = report_model(model, data, output_dir, part=part, group_by=group_by, seed=seed)
    say(f"{output_dir}: {model} on {record['dataset']}; {record['split']}")
    _print_scores(record)
    say(f"confusions and misclassified clips: {output_dir}/report.html")


def pretrain(
    data: Annotated[list[Path], typer.Argument(help="Data sets: .npz files or stores; labels are not used.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the run; a stopped run is resumed.")],
    recipe: Annotated[
        str,
        typer.Option(
            autocompletion=completing(recipe_names), help="Recipe: a name (see 'usdrl recipes') or a .yaml file."
        ),
    ] = "mocap-tiny",
    epochs: Annotated[float | None, typer.Option(help="Passes over the data; the recipe's if unset.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Number of steps, instead of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips per step, over all processes.")] = None,
    micro_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clips encoded at once, if a batch does not fit in memory.")
    ] = None,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Recompute activations: less memory, more time.")
    ] = False,
    compile_encoder: Annotated[
        bool,
        typer.Option("--compile", help="Compile the encoder: a minute at the start, faster steps on a GPU."),
    ] = False,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    precision: Annotated[str | None, typer.Option(help="mixed, float32, bf16 or fp16.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of both streams.")] = None,
    num_persons: Annotated[int | None, typer.Option(help="Persons per clip.")] = None,
    layout: Annotated[
        str | None, typer.Option(autocompletion=complete_layout, help="Joint layout of the model.")
    ] = None,
    modality: Annotated[str | None, typer.Option(help=f"{join_or(MODALITIES)}, or several joined by +.")] = None,
    split: Annotated[str, typer.Option(help="all recordings, or the training part of each data set (train).")] = "all",
    probe: Annotated[
        Path | None, typer.Option(help="Labelled data set whose 1-NN accuracy is logged during training.")
    ] = None,
    probe_epochs: Annotated[int, typer.Option(min=1, help="Epochs between probes.")] = 1,
    in_memory: Annotated[bool, typer.Option(help="Normalise all recordings once and keep them in memory.")] = True,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Read the recordings while training, from the disk or the hub (hf://datasets/...), without a copy in "
            "memory or on disk; the order is drawn by blocks.",
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Number of reading processes, with --no-in-memory or --stream.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Random seed of weights, order and views.")] = 0,
) -> None:
    """Pretrain a model on motion without labels.

    On several GPUs: torchrun --nproc-per-node N -m usdrl_hub.cli pretrain ...
    """
    from ..pretraining.arguments import ComputeOptions
    from ..pretraining.build import load_recipe
    from ..pretraining.run import pretrain as run_pretraining

    fields = _model_fields(hidden_size=hidden_size, num_persons=num_persons, layout=layout, modality=modality)
    schedule = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "precision": precision}
    record = run_pretraining(
        data,
        output_dir,
        load_recipe(recipe).changed(fields, **schedule),
        seed=seed,
        split=split,
        max_steps=max_steps,
        probe=probe,
        probe_epochs=probe_epochs,
        compute=ComputeOptions(
            micro_batch_size,
            activation_checkpointing,
            compile_encoder,
            in_memory,
            workers,
            stream=stream,
            progress=sys.stderr.isatty(),
        ),
    )
    if record is None:
        print(f"usdrl: stopped; repeat the command to resume {output_dir}", file=sys.stderr)
        raise typer.Exit(130)
    say(f"{output_dir}: pretrained on {record['n']['train']} sequences, {record['steps']} steps")
    say(f"use it: usdrl finetune DATA --model {shlex.quote(str(output_dir))} --output-dir NEW")


def evaluate(
    model: Annotated[str | None, typer.Argument(autocompletion=complete_model, help="Checkpoint to evaluate.")] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(autocompletion=completing(lambda: BENCHMARKS), help="Benchmark, see 'usdrl benchmarks'."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Its data: a store or an .npz file.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Folder to create for the model and metrics.json.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of heads, orders and draws.")] = 0,
    fold: Annotated[int, typer.Option(min=0, help="Number of the split, for data with several.")] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="A quick test on the sample clips.")] = False,
    with_leak: Annotated[
        bool, typer.Option("--with-leak", help="Also test on copies of training clips, as papers do.")
    ] = False,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change an entry of the recipe, such as epochs=20; can be repeated."),
    ] = None,
    train: Annotated[bool, typer.Option(help="Train the task's head; --no-train scores the model's own head.")] = True,
    repeat: Annotated[Path | None, typer.Option(help="A metrics.json whose evaluation is repeated.")] = None,
) -> None:
    """Evaluate a pretrained encoder on a benchmark (trains the task head if needed)."""
    from ..tasks.evaluate import TINY
    from ..tasks.evaluate import evaluate as run_evaluation
    from ..tasks.evaluate import repeat as repeat_evaluation

    if repeat is not None:
        record = repeat_evaluation(repeat, output_dir)
    elif model is None or benchmark is None:
        raise ValueError("name a model and a --benchmark, or a metrics.json with --repeat")
    else:
        changes = dict(_change(text) for text in change or [])
        record = run_evaluation(
            model,
            benchmark,
            TINY if tiny else data,
            output_dir=output_dir,
            seed=seed,
            fold=fold,
            with_leak=with_leak,
            changes=changes,
            train_head=train,
        )
    # Published figures do not compare with a trial on other data.
    published = {} if record["dataset"] == "tiny" else get_benchmark(record["benchmark"]).published
    say(f"{record['benchmark']}: {record['n']['train']} train, {record['n']['test']} test ({record['split']})")
    rows = [["metric", "measured", "published"]]
    for name, value in record["metrics"].items():
        rows.append([name, f"{100 * value:.2f} %", f"{100 * published[name]:.1f} %" if name in published else ""])
    print_table(rows)
    if output_dir is not None:
        say(f"written: {output_dir}/metrics.json")


def _model_fields(**fields: Any) -> dict[str, Any]:
    """Fields of `USDRLConfig` by the options that were given, with the layout's number of joints."""
    given = {name: value for name, value in fields.items() if value is not None}
    if "layout" in given:
        given["num_joints"] = get_layout(given["layout"]).num_joints
    return given


def _change(text: str) -> tuple[str, Any]:
    """Name and value of ``name=value``; the value as JSON reads it, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set is '{text}': give an entry of the recipe and its value, such as epochs=20")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
