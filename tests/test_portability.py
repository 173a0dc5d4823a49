"""No Linux-only functions are used: the tests do not run on Windows and macOS (issue 17)."""

import ast
from pathlib import Path

import pytest

import usdrl_hub

FILES = sorted(Path(usdrl_hub.__file__).parent.rglob("*.py"))
# With what to use in their place.
MODULES = {"fcntl", "grp", "pwd", "resource"}
NAMES = {
    "fork": "multiprocessing",
    "link": "shutil.copyfile",
    "NamedTemporaryFile": "files.scratch_file: Windows does not open a file twice",
    "rename": "os.replace, which also replaces on Windows",
    "SIGALRM": "a thread",
    "SIGHUP": "signal.SIGTERM",
    "SIGKILL": "psutil.Process.kill",
    "symlink": "shutil.copyfile",
    "symlink_to": "shutil.copyfile",
}


def complaints(source: str) -> list[str]:
    """Names that are not there, and text files in whatever encoding the system prefers."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            found += [f"{node.lineno}: import {name}" for name in sorted(imported & MODULES)]
            found += [f"{node.lineno}: {name}: use {NAMES[name]}" for name in sorted(imported & set(NAMES))]
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            found.append(f"{node.lineno}: {node.attr}: use {NAMES[node.attr]}")
        if isinstance(node, ast.Call) and _is_text_without_encoding(node):
            found.append(f'{node.lineno}: a text file without encoding="utf-8"')
    return found


def _is_text_without_encoding(call: ast.Call) -> bool:
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("read_text", "write_text"):
        return len(call.args) < (1 if call.func.attr == "read_text" else 2)
    if isinstance(call.func, ast.Name) and call.func.id == "open":
        modes = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        return not any(isinstance(mode, ast.Constant) and "b" in mode.value for mode in modes)
    return False


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(FILES[0].parent).as_posix())
def test_no_module_needs_linux_or_a_locale(file):
    assert complaints(file.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source, count",
    [
        ("import resource\nfrom os import rename\nos.fork()", 3),
        ("path.read_text()\npath.write_text(text)\nopen(path)\nopen(path, 'w')\nopen(path, mode='r')", 5),
        ("path.read_text('utf-8')\nopen(path, 'rb')\nopen(path, encoding='utf-8')\nos.replace(a, b)", 0),
    ],
)
def test_the_check_finds_what_it_is_for(source, count):
    assert len(complaints(source)) == count
