"""The commands 'list', 'benchmarks', 'recipes', 'card', 'push', 'convert', 'install' and 'export'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..facts.benchmarks import BENCHMARKS, TASKS
from ..facts.checkpoints import Checkpoint, cached_names, installed_names, list_models, namespace
from ..facts.datasets import DATASETS
from ..facts.outputs import EXPORT_FORMATS, RUNTIME, RUNTIME_VERSION
from ..facts.recipes import read_recipe, recipe_names
from ..files import new_folder, scratch_folder
from ..layouts import MODALITIES
from ..sequence import DETECTION_THRESHOLD
from .messages import Errors
from .options import Namespace, complete_layout, complete_model, join_or
from .tables import print_table, say


def list_command(
    text: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
    task: Annotated[str | None, typer.Option(help="Only those of a task, such as detection.")] = None,
    shipped: Annotated[bool, typer.Option("--shipped", help="Only those that ship with the package.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also those whose weights are not available.")] = False,
    owner: Namespace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the known checkpoints: task, layout, licence, origin of the weights, and accuracy."""
    infos = list_models(text, task=task, pretrained=shipped, owner=owner)
    if not infos:
        raise ValueError(f"there is no such checkpoint with '{text}' in its name: see 'usdrl list'")
    if as_json:
        names = installed_names()
        described = ({**info.describe(), "num_bytes": _size(info), "installed": info.name in names} for info in infos)
        print(json.dumps(list(described), indent=2))
        return
    rows = [["name", "task", "layout", "classes", "size", "licence", "weights", "published", "measured"]]
    # A filter shows all matches.
    installed, cached = installed_names(), cached_names()
    here = [info for info in infos if info.shipped or info.name in {*installed, *cached}]
    left = 0 if everything or text or task or not here else len(infos) - len(here)
    for info in here if left else infos:
        published = next(iter(info.published.values()), None)
        measured = next(iter(info.measured.values()), None)
        rows.append(
            [
                info.name,
                info.task,
                info.layout,
                str(info.num_labels or ""),
                f"{_size(info) / 1e6:.1f} MB",
                "research only" if info.license == "other" else info.license,
                _where(info, installed, cached),
                "" if published is None else f"{100 * published:.1f} %",
                "" if measured is None else f"{100 * measured:.1f} %",
            ]
        )
    print_table(rows)
    others = [name for name in installed if text in name and name not in {info.name for info in infos}]
    if others and not task:
        print(f"\nalso installed on this machine: {', '.join(others)}")
    if left:
        print(f"\n{left} more without available weights: usdrl list --all")


def _where(info: Checkpoint, installed: list[str], cached: list[str]) -> str:
    if info.name in installed:
        return "installed on this machine"
    return "in the hub's cache" if info.name in cached and not info.shipped else info.origin


def _size(info: Checkpoint) -> int:
    if info.num_bytes is not None:
        return info.num_bytes
    # Without weights, the size is that of a newly built model.
    from ..hub.listing import num_bytes

    return num_bytes(info.name)


def benchmarks(
    task: Annotated[str | None, typer.Option(help="Only those of a task, such as linear.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the benchmarks: data set, protocol, task, metric, and the paper's figures."""
    if task is not None and task not in TASKS:
        raise ValueError(f"there is no task '{task}': use one of {', '.join(TASKS)}")
    chosen = [entry for entry in BENCHMARKS.values() if task in (None, entry.task)]
    if as_json:
        print(json.dumps([{**vars(entry), "data": vars(DATASETS[entry.dataset])} for entry in chosen], indent=2))
        return
    rows = [["id", "data set", "metric", "published", "terms of the data"]]
    for entry in chosen:
        facts = DATASETS[entry.dataset]
        value = entry.published.get(entry.metric)
        rows.append([entry.id, facts.title, entry.metric, f"{100 * value:.1f} %" if value else "", facts.terms])
    print_table(rows)


def recipes() -> None:
    """List the pretraining recipes."""
    print_table([["name", "about"], *([name, read_recipe(name).about] for name in recipe_names())])


def card(name: Annotated[str, typer.Argument(help="Name of a checkpoint, see 'usdrl list --all'.")]) -> None:
    """Print the model card of a known checkpoint."""
    from ..hub.cards import card_of

    print(card_of(name))


def push(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A model folder of finetune, pretrain, evaluate or convert; with --dataset a data set (store or "
            ".npz), or a folder class/recording."
        ),
    ],
    repo_id: Annotated[str, typer.Argument(help="Repository: owner/name, or a name in --namespace.")],
    dataset: Annotated[bool, typer.Option("--dataset", help="Publish recordings, as a data set repository.")] = False,
    license: Annotated[
        str | None,
        typer.Option(
            help="Licence of the recordings or the model in the hub's spelling, such as cc-by-4.0; if unset, what "
            "those of the model's encoder and data allow."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; created if missing.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files that would be published.")] = False,
    include_code: Annotated[
        bool, typer.Option(help="Add the model's code, for trust_remote_code=True without this package.")
    ] = True,
    include_optimizer: Annotated[
        bool, typer.Option("--include-optimizer", help="Add the newest checkpoint's optimizer, as safetensors.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    owner: Namespace = None,
) -> None:
    """Publish a model or a data set on the Hugging Face Hub, with a card, in one commit.

    Log in with 'hf auth login', or set HF_TOKEN.
    """
    from ..hub.publish import Commit, publish

    repo_id = repo_id if "/" in repo_id else f"{namespace(owner)}/{repo_id}"
    commit = Commit(message, revision, create_pr, private or None)
    if dataset:
        from ..hub.publish_data import publish_data

        done = publish_data(folder, repo_id, license, commit=commit, dry_run=dry_run)
    else:
        done = publish(
            folder,
            repo_id,
            commit=commit,
            dry_run=dry_run,
            include_code=include_code,
            include_optimizer=include_optimizer,
            license_name=license,
        )
    print_table([["file", "bytes"], *([name, str(size)] for name, size in done.files.items())])
    if dry_run:
        say(f"nothing was uploaded; without --dry-run these files go to {done.repo_id}")
    elif done.changed:
        say(f"published: {done.url}")
        if dataset:
            say(f"use it: usdrl finetune hf://datasets/{done.repo_id} --output-dir NEW")
    else:
        say(f"{done.repo_id} is up to date: no commit was created")


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="The authors' file, also one on the hub (OWNER/REPOSITORY/FILE, or "
            "hf://OWNER/REPOSITORY@REVISION/FILE); with --to-original, a model."
        ),
    ],
    output_dir: Annotated[Path | None, typer.Option(help="Folder to create.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Install the model under this name, such as usdrl/ntu120-xsub, which then loads on this machine; of "
            "a known name, modality, layout and task follow."
        ),
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help=f"Modality of the training data: {join_or(MODALITIES)}. By default joint.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(autocompletion=complete_layout, help="Joint layout; by default from the number of joints."),
    ] = None,
    num_attention_heads: Annotated[int, typer.Option(min=1, help="Number of attention heads.")] = 1,
    alpha: Annotated[float, typer.Option(help="Weight of the convolutional attention.")] = 0.5,
    shift_gap: Annotated[int, typer.Option(min=1, help="Gap of the dense shift.")] = 4,
    num_persons: Annotated[int, typer.Option(min=1, help="Number of persons in the spatial tokens.")] = 2,
    task: Annotated[
        str | None, typer.Option(help="Task of its classes: recognition (by default) or detection.")
    ] = None,
    include_code: Annotated[bool, typer.Option(help="Add the code for trust_remote_code=True.")] = False,
    to_original: Annotated[bool, typer.Option(help="Write the authors' format instead.")] = False,
) -> None:
    """Convert the authors' checkpoint to a model folder, or back."""
    from ..feature_extraction_usdrl import USDRLFeatureExtractor
    from ..hub.convert import convert_checkpoint, save_original
    from ..hub.install import conversion_choices, install, install_target
    from ..loading import find_file, load_model
    from ..remote_code import add_remote_code

    if (output_dir is None) == (name is None):
        raise ValueError("name the folder to create (--output-dir), or the name to install it under (--name)")
    if to_original and output_dir is not None:
        model = load_model(checkpoint.as_posix())
        with new_folder(output_dir) as folder:
            save_original(model, folder / "checkpoint.pth.tar")
        say(f"{output_dir / 'checkpoint.pth.tar'}: {type(model).__name__} in the authors' format")
        return
    if name is not None:
        # Before the work.
        install_target(name)
    task, choices = conversion_choices(name or "", task=task, modality=modality, layout=layout)
    choices = {"modality": "joint", "num_attention_heads": num_attention_heads, "alpha": alpha} | choices
    model = convert_checkpoint(find_file(checkpoint), task, **choices, shift_gap=shift_gap, num_persons=num_persons)
    config = model.config
    with scratch_folder() if output_dir is None else new_folder(output_dir) as folder:
        model.save_pretrained(folder)
        if config.layout is not None:
            USDRLFeatureExtractor.from_model_config(config).save_pretrained(folder)
        if include_code:
            add_remote_code(folder)
        where = output_dir if name is None else install(folder, name)
    tokens = f"{config.num_spatial_tokens} spatial tokens"
    origin = f"inferred from the {tokens}; change it with --layout"
    if "layout" in choices:
        origin = "as given" if layout is not None else f"that of {name}"
    say(f"{where}: {type(model).__name__}, {config.encoder}, hidden size {config.hidden_size}, {tokens}")
    say(f"layout {config.layout} ({origin}); modality {config.modality}, alpha {alpha}, gap {shift_gap}")
    if name is not None:
        say(f"installed as {name}")


def install(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A model folder of convert, finetune, pretrain or evaluate; or hf://OWNER/NAME@REVISION of the hub."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name to install it under: owner/name, or a name of this project.")],
) -> None:
    """Install a model under a name, which then loads on this machine, offline, in Python and in every command.

    Models are installed in the folder models of USDRL_HOME, by default ~/.usdrl.
    """
    from ..hub.install import full_name, install

    say(f"{install(folder, name)}: installed as {full_name(name)}")


def export(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_model, help="Checkpoint: a name (see 'usdrl list'), a folder, or a repository."
        ),
    ],
    output_dir: Annotated[Path | None, typer.Option(help="Folder to create for model.onnx.")] = None,
    format: Annotated[str, typer.Option(help=f"Format of the file: {', '.join(EXPORT_FORMATS)}.")] = EXPORT_FORMATS[0],
    page: Annotated[
        Path | None,
        typer.Option(help="Page to write, .html: it runs pose estimator and model on a camera or film, in a browser."),
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="For the page: data set (.npz or store) to search for the nearest clips.")
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            help=f"For the page: folder of the npm package {RUNTIME}, to make it part of the page; if unset, the page "
            "loads it from a CDN."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="For the page of a detector: probability above which a frame belongs to a segment, "
            f"{DETECTION_THRESHOLD} if unset."
        ),
    ] = None,
) -> None:
    """Export a model to one ONNX file, compared with PyTorch, or to a page that runs it in a browser.

    The file's metadata hold class names, joint names and preprocessing; docs/run_onnx.py shows how to run it.
    """
    if (output_dir is None) == (page is None):
        raise ValueError("give --output-dir for one ONNX file, or --page for a page that runs in a browser")
    if page is not None:
        from ..visualize.live import write_live_page

        errors = Errors()
        live = write_live_page(model, page, gallery=gallery, runtime=runtime, threshold=threshold, on_error=errors)
        size = f"{live.path.stat().st_size / 1e6:.1f} MB"
        clips = f", {live.num_clips} clips to search" if live.num_clips else ""
        origin = f"loads it from {live.runtime}" if live.runtime else "requests nothing from any network"
        say(f"{live.path}: {size}{clips}; runs by {RUNTIME} {RUNTIME_VERSION} and {origin}")
        errors.finish()
        return
    from ..inference.export import export_model

    done = export_model(model, str(output_dir), format)
    say(f"{done.path}: {done.model_class}, {done.path.stat().st_size / 1e6:.1f} MB")
    for role, arrays in (("input", done.inputs), ("output", done.outputs)):
        for name, sizes in arrays.items():
            say(f"  {role} {name} ({', '.join(map(str, sizes))})")
    say(f"  largest relative difference to PyTorch: {done.error:.1e}")
