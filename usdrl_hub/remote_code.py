"""The package's own code inside a checkpoint folder, for `trust_remote_code=True` where it is not installed."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from .files import new_file

_PACKAGE = Path(__file__).parent
# Imports among these files are relative and of this folder only; transformers finds them by their text.
CODE_FILES = (
    "configuration_usdrl.py",
    "errors.py",
    "finite.py",
    "feature_extraction_usdrl.py",
    "layout_tables.py",
    "layouts.py",
    "lookup.py",
    "modeling_usdrl.py",
    "normalization.py",
    "persons.py",
    "postprocessing.py",
    "ragged.py",
    "sequence.py",
    "weights.py",
)
_EXTRACTOR_MAP = {"AutoFeatureExtractor": "feature_extraction_usdrl.USDRLFeatureExtractor"}


def add_remote_code(folder: str | os.PathLike) -> None:
    """Copy the code into a saved checkpoint, and map the Auto classes to it in its configurations.

    Args:
        folder: A folder with ``config.json`` and perhaps ``preprocessor_config.json``.
    """
    folder = Path(folder)
    for name in CODE_FILES:
        shutil.copyfile(_PACKAGE / name, folder / name)
    for name in ("config.json", "preprocessor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        saved = (config.get("architectures") or [""])[0]
        config["auto_map"] = _model_map(saved) if name == "config.json" else _EXTRACTOR_MAP
        with new_file(path) as partial:
            partial.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _model_map(saved: str) -> dict[str, str]:
    """The class that each Auto class loads: of several, the one named `saved`, else the first.

    Read from the text of the model's file, because that file imports this one when a model is pushed.
    """
    found = {"AutoConfig": "configuration_usdrl.USDRLConfig"}
    head = ""
    text = (_PACKAGE / "modeling_usdrl.py").read_text("utf-8")
    for name, auto_class in re.findall(r'^class (\w+)|^    auto_class = "(\w+)"', text, re.MULTILINE):
        head = name or head
        if auto_class and (head == saved or auto_class not in found):
            found[auto_class] = f"modeling_usdrl.{head}"
    return found
