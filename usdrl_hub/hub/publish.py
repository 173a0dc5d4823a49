"""A checkpoint's folder to a repository on the Hugging Face Hub, in one complete commit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import notice
from ..files import new_file, scratch_folder
from ..loading import load_config, load_model
from ..records import redact_paths
from ..remote_code import CODE_FILES, add_remote_code
from ..visualize.layout_picture import draw_layout
from .card_source import CardSource
from .cards import FEW_LABELS, GENERATED, picture_name, render_card
from .evaluations import RESULTS, check_results_file, results_of
from .licenses import UNKNOWN
from .upload import TOKEN, any_of, repository_name, upload
from .upload import Commit as Commit
from .upload import PublishError as PublishError

_WEIGHTS = ("model*.safetensors", "model.safetensors.index*.json")
_TEXTS = ("config.json", "preprocessor_config.json", "metrics.json", "README.md", *CODE_FILES)
_PICTURES = ("layout-*.png", "timeline.png", FEW_LABELS)
_OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True)
class Published:
    """The files that were published, or would be in a dry run.

    Attributes:
        repo_id: The repository.
        files: Names of its files and their sizes in bytes.
        url: The commit or the pull request; empty in a dry run.
        changed: Whether a commit was made; False if the repository already held the same files.
    """

    repo_id: str
    files: dict[str, int]
    url: str = ""
    changed: bool = False


def publish(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    commit: Commit | None = None,
    dry_run: bool = False,
    include_code: bool = True,
    include_optimizer: bool = False,
    license_name: str | None = None,
) -> Published:
    """Publish a checkpoint's folder: weights, configurations, metrics and card in a single commit.

    The model is loaded and checked first. The card is rendered from the configuration, ``metrics.json`` and the
    registry, unless the folder has one written by hand. Pickles (``training_args.bin``, ``optimizer.pt``) and
    other files that are no part of a model are never uploaded. Publishing the same files again makes no commit.

    Args:
        folder: The checkpoint's folder.
        repo_id: ``owner/name``; a bare name gets the namespace of this project, see `facts.checkpoints.namespace`.
        commit: Message, branch, pull request, visibility and token.
        dry_run: Only return what would be published; nothing is sent.
        include_code: Add the model's code, so that transformers loads it without this package
            (``trust_remote_code=True``). Otherwise the card names this package as the library.
        include_optimizer: Add the state of the optimizer of the newest ``checkpoint-*`` folder, as safetensors.
        license_name: Licence in the hub's spelling; what the licences of encoder and data allow where None.

    Returns:
        The files, and where they were published.

    Raises:
        PublishError: If the folder is no complete model, holds NaN, a link out of it or what looks like a token, the
            repository's name is impossible, or the hub refuses or is unreachable. The repository is then unchanged; a
            new one is deleted again, and if that fails the error says so.
        CheckpointLoadError: If the model cannot be loaded.
        ValueError: If the licence is none, or allows more than that of the encoder or the data.
    """
    folder = Path(folder)
    repo_id = repository_name(repo_id)
    check_model(folder)
    with scratch_folder() as scratch:
        files = _stage(folder, scratch, repo_id, include_code, include_optimizer, license_name)
        sizes = {name: path.stat().st_size for name, path in sorted(files.items())}
        if dry_run:
            return Published(repo_id, sizes)
        url, changed = upload(repo_id, files, commit or Commit(), stale=_WEIGHTS)
    return Published(repo_id, sizes, url, changed)


def check_model(folder: Path) -> None:
    """Load a model, and check its weights.

    Raises:
        PublishError: If a file is missing, or a weight is NaN or infinite.
        CheckpointLoadError: If it cannot be loaded.
    """
    if not folder.is_dir():
        raise PublishError(f"{folder}: there is no such folder")
    config = load_config(folder)
    if config.layout is not None and not (folder / "preprocessor_config.json").is_file():
        raise PublishError(
            f"{folder}: it has no preprocessor_config.json, so no input can be prepared for the model: save its "
            "feature extractor there (a trainer does if given as processing_class)"
        )
    load_model(folder)
    if not any(folder.glob("model*.safetensors")):
        raise PublishError(
            f"{folder}: it holds an adapter of PEFT, not a whole model: save it merged, load_model(folder)"
            ".save_pretrained(NEW), with its preprocessor_config.json, and publish that"
        )
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                tensor = weights.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise PublishError(
                        f"{path}: tensor '{name}' holds NaN or infinity: a model that broke in training"
                    )


def _stage(
    folder: Path, scratch: Path, repo_id: str, code: bool, optimizer: bool, license_name: str | None
) -> dict[str, Path]:
    """The files to publish: name in the repository -> file; generated ones are written to `scratch`."""
    files = dict(_chosen(folder))
    for name in (*files,):
        if not any_of(name, _WEIGHTS):
            files[name] = Path(shutil.copyfile(files[name], scratch / name))
    source = CardSource.of_folder(folder, repo_id)
    code = code or set(CODE_FILES) <= set(files)
    record = redact_paths(source.record)
    source = replace(source, record=record, has_code=code, wanted_license=license_name)
    if "metrics.json" in files:
        files["metrics.json"].write_text(json.dumps(source.record, indent=2) + "\n", "utf-8")
    files |= _evaluation_files(folder, source.record, repo_id, scratch)
    card = scratch / "README.md"
    if not card.is_file() or GENERATED in card.read_text("utf-8"):
        if source.license == UNKNOWN:
            notice(f"{repo_id}: its licence is not known: name it with --license", "models without a licence")
        card.write_text(render_card(source), "utf-8")
        files["README.md"] = card
        picture = picture_name(source.config)
        if picture and picture not in files:
            draw_layout(source.config.layout, scratch / picture)  # type: ignore[arg-type]
            files[picture] = scratch / picture
    elif license_name is not None:
        raise PublishError(f"{folder / 'README.md'} was written by hand: change the licence at its head")
    if code:
        add_remote_code(scratch)
        files |= {name: scratch / name for name in CODE_FILES}
    if optimizer:
        files[_OPTIMIZER] = _optimizer_state(folder, scratch / _OPTIMIZER)
    for name, path in files.items():
        if path.suffix in (".json", ".md", ".py", ".yaml") and TOKEN.search(path.read_text("utf-8", "replace")):
            raise PublishError(
                f"{folder / name}: it holds what looks like an access token: take it out, and revoke it"
            )
    return files


def _chosen(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of the folder that are part of a model."""
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not any_of(path.name, (*_WEIGHTS, *_TEXTS, *_PICTURES)):
            continue
        if folder.resolve() not in path.resolve().parents:
            raise PublishError(f"{path}: it is a link out of the folder: put the file itself there")
        yield path.name, path


def _evaluation_files(folder: Path, record: Mapping[str, Any], repo_id: str, scratch: Path) -> dict[str, Path]:
    """Results on benchmarks of the hub: those of the folder, and those that follow from its record."""
    files = {}
    for path in sorted((folder / RESULTS).glob("*.yaml")):
        check_results_file(path)
        files[f"{RESULTS}/{path.name}"] = Path(shutil.copyfile(path, scratch / path.name))
    for name, text in results_of(record, f"{constants.ENDPOINT}/{repo_id}/blob/main/metrics.json").items():
        (scratch / name).write_text(text, "utf-8")
        files[f"{RESULTS}/{name}"] = scratch / name
    return files


def _optimizer_state(folder: Path, path: Path) -> Path:
    """The newest checkpoint's optimizer as safetensors: ``<parameter>.<name>``, and its settings as metadata."""
    found = sorted(folder.glob("checkpoint-*/optimizer.pt"), key=lambda file: int(file.parent.name.split("-")[1]))
    if not found:
        raise PublishError(f"{folder}: there is no checkpoint-*/optimizer.pt in it to publish")
    try:
        state = torch.load(found[-1], map_location="cpu", weights_only=True)
    except Exception:
        # torch's readers raise errors of many types.
        raise PublishError(
            f"{found[-1]}: it is damaged, or holds more than tensors: leave the optimizer out"
        ) from None
    tensors = {
        f"{number}.{name}": torch.as_tensor(value).contiguous()
        for number, values in state["state"].items()
        for name, value in values.items()
    }
    with new_file(path) as partial:
        save_file(tensors, partial, metadata={"param_groups": json.dumps(state["param_groups"])})
    return path
