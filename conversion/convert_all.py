"""Convert a folder of the authors' checkpoints to model folders; install them under their names, or publish them.

    python conversion/convert_all.py CHECKPOINTS MANIFEST OUTPUT [--install]
        [--push [--namespace NAME] [--private] [--dry-run]]

MANIFEST is a JSON list of objects with `file` (below CHECKPOINTS), `name` (of the repository, such as
"usdrl/ntu60-xsub-bone") and optionally `modality`, `layout`, `num_attention_heads`, `alpha`, `shift_gap`,
`num_persons` and `task`; modality, layout and task of a known name default to the registry's, and a file that cannot
be the named checkpoint is refused. Existing folders in OUTPUT and installed names are skipped, and re-publishing
identical files creates no commit, so an interrupted run can be repeated. The outcome of each entry is printed; the
exit status is 2 if any failed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from usdrl_hub import USDRLFeatureExtractor
from usdrl_hub.facts.checkpoints import installed_path, namespace
from usdrl_hub.files import new_folder
from usdrl_hub.hub.convert import convert_checkpoint
from usdrl_hub.hub.install import check_promise, conversion_choices, install
from usdrl_hub.hub.publish import Commit, publish
from usdrl_hub.remote_code import add_remote_code


def convert_entry(checkpoints: Path, entry: dict[str, Any], output: Path) -> tuple[Path, str]:
    """Convert an entry of the manifest; returns its folder and the outcome.

    Raises:
        ValueError: If the entry is incomplete, leaves the folder, or its file cannot be converted.
    """
    choices = dict(entry)
    try:
        file, name = choices.pop("file"), choices.pop("name")
    except KeyError as error:
        raise ValueError(f"an entry of the manifest has no {error}") from None
    task, choices = conversion_choices(name, **choices)
    folder = output / name.replace("/", "--")
    if output.resolve() not in folder.resolve().parents:
        raise ValueError(f"the name '{name}' leaves the output folder")
    if folder.exists():
        return folder, "exists already"
    model = convert_checkpoint(checkpoints / file, task, **choices)
    model.config.architectures = [type(model).__name__]
    check_promise(model.config, name)
    with new_folder(folder) as partial:
        model.save_pretrained(partial)
        USDRLFeatureExtractor.from_model_config(model.config).save_pretrained(partial)
        add_remote_code(partial)
    return folder, f"{type(model).__name__} from {file}"


def push_entry(folder: Path, name: str, arguments: argparse.Namespace) -> str:
    """Publish a converted entry; returns the outcome."""
    repository = f"{namespace(arguments.namespace)}/{name.rpartition('/')[2]}"
    done = publish(folder, repository, commit=Commit(private=arguments.private or None), dry_run=arguments.dry_run)
    if arguments.dry_run:
        return f"would be published as {repository} ({len(done.files)} files)"
    return f"published as {done.url}" if done.changed else f"published as {repository} before"


def main() -> int:
    """Convert every entry and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--install", action="store_true", help="Also install each model under its name here.")
    parser.add_argument("--push", action="store_true", help="Also publish each model.")
    parser.add_argument("--namespace", help="Owner of the repositories; by default USDRL_NAMESPACE, else usdrl.")
    parser.add_argument("--private", action="store_true")
    parser.add_argument(
        "--dry-run", action="store_true", help="With --push: only list the files that would be published."
    )
    arguments = parser.parse_args()
    entries, failed = json.loads(arguments.manifest.read_text()), 0
    for entry in entries:
        name = entry.get("name", entry.get("file", "?"))
        try:
            folder, outcome = convert_entry(arguments.checkpoints, entry, arguments.output)
            if arguments.install:
                there = installed_path(name) is not None
                outcome += "; installed before" if there else f"; installed in {install(folder, name)}"
            if arguments.push:
                outcome = f"{outcome}; {push_entry(folder, name, arguments)}"
        except (TypeError, ValueError) as error:
            failed += 1
            outcome = f"failed: {error}"
        print(f"{name}: {outcome}", flush=True)
    print(f"{len(entries) - failed} of {len(entries)} done, {failed} failed")
    return 2 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
