"""The command 'env'."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from .tables import say

# Settings that change what a command does; their values may be private.
_SETTINGS = (
    *("USDRL_HOME", "USDRL_NAMESPACE", "USDRL_PLAIN", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
)
_EXTRA = re.compile(r"([\w.-]+)[^;]*;.*extra\s*==\s*['\"]([\w-]+)['\"]")
_LICENCE = "usdrl-hub: Apache License 2.0"


def env(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False) -> None:
    """Print versions, devices, extras and licence notices, as an issue needs them; no paths, no names."""
    facts = _facts()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    revision = f" (revision {facts['revision']})" if facts["revision"] else ""
    say(f"usdrl-hub {facts['version']}{revision}")
    say(f"platform   {facts['platform']}")
    say(f"devices    {', '.join(facts['devices'])}")
    say(f"settings   {', '.join(facts['settings']) or 'none'}")
    say("\nversions")
    for name, found in facts["versions"].items():
        say(f"  {name:<17} {found or 'not installed'}")
    say("\nextras")
    for name, packages in facts["extras"].items():
        missing = [package for package, found in packages.items() if found is None]
        present = ", ".join(f"{package} {found}" for package, found in packages.items() if found)
        state = f"needs {', '.join(missing)}: pip install 'usdrl-hub[{name}]'" if missing else present
        say(f"  {name:<17} {state}")
    say("\nlicences")
    for line in facts["licences"]:
        say(f"  {line}")


def _facts() -> dict[str, Any]:
    from ..records import run_record

    record = run_record(time.monotonic())
    extras = _extras()
    return {
        "version": __version__,
        "revision": record["git_revision"],
        "platform": platform.platform(),
        "devices": _devices(record["hardware"]),
        "settings": [name for name in _SETTINGS if os.environ.get(name)],
        "versions": {name: found for name, found in record["versions"].items() if name != "usdrl-hub"},
        "extras": extras,
        "licences": [_LICENCE, *(_notice() if all(extras.get("video", {"": None}).values()) else [])],
    }


def _devices(hardware: str) -> list[str]:
    """What torch can compute on, with CUDA's version."""
    import torch

    found = [hardware]
    if torch.cuda.is_available():
        found[0] += f", CUDA {torch.version.cuda}"
    if torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    return found


def _extras() -> dict[str, dict[str, str | None]]:
    """For each extra its packages with their versions, None for those that are not installed."""
    try:
        needed = requires("usdrl-hub") or []
    except PackageNotFoundError:
        # Run from a folder of source files, without an installation.
        return {}
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in needed:
        if found := _EXTRA.match(requirement):
            package, extra = found.groups()
            extras.setdefault(extra, {})[package] = _installed(package)
    return extras


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _notice() -> list[str]:
    """The notice of BlazePose's networks, which films and cameras use."""
    paragraphs = (Path(__file__).parent.parent / "pose" / "NOTICE").read_text("utf-8").strip().split("\n\n")
    return [" ".join(paragraph.split()) for paragraph in paragraphs]
