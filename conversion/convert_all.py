"""Convert a folder of the authors' checkpoints to one model folder each.

    python conversion/convert_all.py CHECKPOINTS MANIFEST OUTPUT

MANIFEST is a JSON list of objects: `file` (below CHECKPOINTS), `name` (of the repository, such as
"usdrl/ntu60-xsub"), and any of `modality`, `layout`, `num_attention_heads`, `alpha`, `shift_gap`, `num_persons` and
`task`. What OUTPUT holds already is left as it is, so a run that was stopped can be repeated. It says of each entry
whether it was converted, was there, or failed and why; the exit status is 2 if anything failed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from usdrl_hub import USDRLFeatureExtractor
from usdrl_hub.files import new_folder
from usdrl_hub.hub.convert import convert_checkpoint
from usdrl_hub.hub.remote_code import add_remote_code


def convert_entry(checkpoints: Path, entry: dict[str, Any], output: Path) -> str:
    """Convert one entry of the manifest and say what happened.

    Raises:
        ValueError: If the entry is incomplete, leaves the folder, or its file cannot be converted.
    """
    choices = dict(entry)
    try:
        file, name = choices.pop("file"), choices.pop("name")
    except KeyError as error:
        raise ValueError(f"an entry of the manifest has no {error}") from None
    folder = output / name.replace("/", "--")
    if output.resolve() not in folder.resolve().parents:
        raise ValueError(f"the name '{name}' leaves the output folder")
    if folder.exists():
        return f"{name}: there already"
    model = convert_checkpoint(checkpoints / file, **choices)
    with new_folder(folder) as partial:
        model.save_pretrained(partial)
        USDRLFeatureExtractor.from_model_config(model.config).save_pretrained(partial)
        add_remote_code(partial)
    return f"{name}: {type(model).__name__} from {file}"


def main(arguments: list[str]) -> int:
    """Convert every entry and return the exit status."""
    checkpoints, manifest, output = (Path(argument) for argument in arguments)
    lines, failed = [], 0
    for entry in json.loads(manifest.read_text()):
        try:
            lines.append(convert_entry(checkpoints, entry, output))
        except (TypeError, ValueError) as error:
            failed += 1
            lines.append(f"{entry.get('name', entry.get('file', '?'))}: failed: {error}")
        print(lines[-1], flush=True)
    print(f"{len(lines) - failed} of {len(lines)} are there, {failed} failed")
    return 2 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
