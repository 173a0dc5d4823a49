"""The package's own code inside a checkpoint folder, for `trust_remote_code=True` where it is not installed."""

from __future__ import annotations

import json
import os
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
    "sequence.py",
    "weights.py",
)
_MODEL_MAP = {
    "AutoConfig": "configuration_usdrl.USDRLConfig",
    "AutoModel": "modeling_usdrl.USDRLModel",
    "AutoModelForPreTraining": "modeling_usdrl.USDRLForPreTraining",
    "AutoModelForVideoClassification": "modeling_usdrl.USDRLForActionRecognition",
    "AutoModelForTokenClassification": "modeling_usdrl.USDRLForActionDetection",
}
_FRAME_HEADS = ("USDRLForActionDetection", "USDRLForActionSegmentation", "USDRLForEarlyActionPrediction")
_EXTRACTOR_MAP = {"AutoFeatureExtractor": "feature_extraction_usdrl.USDRLFeatureExtractor"}


def add_remote_code(folder: str | os.PathLike) -> None:
    """Copy the code into a saved checkpoint and name all classes in its configurations.

    Several heads give a class per frame: the Auto class for those gets the one that the checkpoint was saved from.

    Args:
        folder: A folder with ``config.json`` and perhaps ``preprocessor_config.json``.
    """
    folder = Path(folder)
    for name in CODE_FILES:
        shutil.copyfile(_PACKAGE / name, folder / name)
    for name, auto_map in (("config.json", _MODEL_MAP), ("preprocessor_config.json", _EXTRACTOR_MAP)):
        path = folder / name
        if not path.is_file():
            continue
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        config["auto_map"] = dict(auto_map)
        saved = (config.get("architectures") or [""])[0]
        if name == "config.json" and saved in _FRAME_HEADS:
            config["auto_map"]["AutoModelForTokenClassification"] = f"modeling_usdrl.{saved}"
        with new_file(path) as partial:
            partial.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
