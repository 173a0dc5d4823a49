"""``metrics.json``: the results of a run, and everything needed to repeat it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .files import new_file
from .finite import check_finite

_PACKAGES = ("usdrl-hub", "torch", "transformers", "huggingface_hub", "safetensors", "numpy", "accelerate")


def run_record(started: float, argv: list[str] | None = None) -> dict[str, Any]:
    """Command, duration, revision, package versions and hardware of the current run.

    Args:
        started: `time.monotonic()` at its start.
        argv: Its command line; `sys.argv` if None.
    """
    argv = list(sys.argv if argv is None else argv)
    return {
        "command": shlex.join([Path(argv[0]).name, *argv[1:]]),
        "wall_seconds": round(time.monotonic() - started, 1),
        "git_revision": _git_revision(),
        "versions": package_versions(),
        "hardware": _hardware(),
    }


def package_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that results depend on; None if not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Git revision of the package, with "+changes" if it is not clean; None outside a checkout."""
    # The whole package: recipes and shipped checkpoints affect results, too.
    folder = Path(__file__).parent
    try:
        # Without locks, which a killed `git status` would leave behind.
        git = ["git", "--no-optional-locks", "-C", str(folder)]
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10)
        if tracked.returncode:
            return None
        revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        status = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if revision.returncode:
        return None
    return revision.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def redact_paths(record: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a ``metrics.json`` with absolute paths cut to file names, to be published."""

    def bare(value: str) -> str:
        option, equals, path = value.rpartition("=")
        return f"{option}{equals}{Path(path).name}" if path.startswith(("/", "~")) else value

    shared = dict(record)
    if isinstance(shared.get("command"), str):
        try:
            shared["command"] = shlex.join(bare(word) for word in shlex.split(shared["command"]))
        except ValueError:
            del shared["command"]
    if isinstance(shared.get("repeat"), dict):
        arguments = shared["repeat"].items()
        shared["repeat"] = {key: bare(value) if isinstance(value, str) else value for key, value in arguments}
    return shared


def check_results(record: Any, where: str = "metrics.json") -> None:
    """Refuse NaN and infinity anywhere in a record.

    Args:
        record: The content of ``metrics.json``.
        where: Name of the record in the message, to which the keys are added.

    Raises:
        NonFiniteError: If a number is NaN or infinite.
    """
    if isinstance(record, Mapping):
        for name, value in record.items():
            check_results(value, f"{where}: {name}")
    elif isinstance(record, list | tuple):
        for number, value in enumerate(record):
            check_results(value, f"{where}[{number}]")
    elif isinstance(record, float):
        check_finite(record, where, "this is not a result: the model or the data it was measured on are damaged")


def write_metrics(folder: str | os.PathLike, record: dict[str, Any]) -> Path:
    """Write ``metrics.json`` into a folder, atomically.

    NaN and infinity in `log`, such as the gradient norm of a skipped step, become null.

    Raises:
        NonFiniteError: If a result is NaN or infinite.
    """
    path = Path(folder) / "metrics.json"
    check_results({name: value for name, value in record.items() if name != "log"})
    if "log" in record:
        record = {**record, "log": [{key: _or_none(value) for key, value in entry.items()} for entry in record["log"]]}
    with new_file(path) as partial:
        partial.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", "utf-8")
    return path


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
