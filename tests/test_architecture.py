"""The floors of the package: a module imports only from its own or a lower floor."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "usdrl_hub"
TESTS = Path(__file__).parent
# Ground first. A module imports from its own floor and from those above it in this list, also inside functions. A
# name of a folder stands for all modules in it.
FLOORS = [
    ["errors", "files", "finite", "records", "distributed", "after_import"],
    ["facts"],
    [
        *["layouts", "layout_tables", "sequence", "ragged", "normalization", "persons", "postprocessing"],
        *["lookup", "remote_code", "configuration_usdrl", "weights", "feature_extraction_usdrl", "modeling_usdrl"],
    ],
    ["acceleration", "speedups"],
    ["data"],
    ["loading"],
    ["metrics"],
    ["inference"],
    ["search"],
    ["visualize"],
    ["hub"],
    ["training", "resume"],
    ["tasks"],
    ["pretraining"],
    ["cli", "usdrl_hub"],
]
# Offenders of today, as "module -> what it imports": this list only shrinks.
ALLOWED: set[str] = set()
# Modules that are on no floor yet: this list only shrinks.
HOMELESS: set[str] = set()
# In a circle today: this list only shrinks.
CIRCLES: set[str] = set()
# Longer than 500 lines today: this list only shrinks, down to the model.
LONG: set[str] = {
    "modeling_usdrl",
}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "usdrl_hub"


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imported(path: Path, module: str) -> set[str]:
    """Modules of the package that a file imports, at its top or in its functions."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    package = [] if module == "usdrl_hub" else package
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "usdrl_hub":
            parts = node.module.split(".")[1:]
        else:
            continue
        base = ".".join(parts)
        for alias in node.names:
            whole = f"{base}.{alias.name}".strip(".")
            found.add(whole if whole in MODULES else base or "usdrl_hub")
    return found - {module}


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports."""
    return {module: _imported(path, module) for module, path in MODULES.items()}


def floor(module: str) -> int | None:
    """Number of a module's floor, or None where it has none."""
    found = (number for number, names in enumerate(FLOORS) if module in names or module.split(".")[0] in names)
    return next(found, None)


def test_each_module_is_on_a_floor():
    assert {module for module in MODULES if floor(module) is None} == HOMELESS


def test_data_never_walks_back():
    """A module imports nothing of a higher floor."""
    offenders = set()
    for module, imported in imports().items():
        for other in imported:
            heights = floor(module), floor(other)
            if None not in heights and heights[0] < heights[1]:
                offenders.add(f"{module} -> {other}")
    assert offenders == ALLOWED


def test_no_modules_import_each_other_in_a_circle():
    """Except that modules of a package import its ``__init__`` on their way."""
    graph = {
        module: {other for other in imported if not _is_package(other)}
        for module, imported in imports().items()
        if not _is_package(module)
    }
    circles = set()
    for module in graph:
        seen, ahead = set(), [module]
        while ahead:
            new = graph[ahead.pop()] - seen
            seen |= new
            ahead += new
        if module in seen:
            circles.add(module)
    assert circles == CIRCLES


def _is_package(module: str) -> bool:
    return MODULES[module].name == "__init__.py"


def test_files_fit_in_a_head():
    lengths = {module: len(path.read_text("utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module for module, length in lengths.items() if length > 500} == LONG


def _functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


def _body_lines(function: ast.FunctionDef) -> int:
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = function.body[1:] if is_docstring else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def _parameters(function: ast.FunctionDef) -> int:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


# Functions above the limits today: these lists only shrink. Constructors of configurations and extractors are
# written as transformers writes them, with one argument for each key of their JSON.
LONG_BODIES: set[str] = set()
MANY_PARAMETERS: set[str] = set()
_CONSTRUCTORS = {"configuration_usdrl.__init__", "feature_extraction_usdrl.__init__"}


def test_functions_fit_on_a_screen():
    found = {
        f"{module}.{function.name}"
        for module, path in MODULES.items()
        for function in _functions(path)
        if _body_lines(function) > 60
    }
    assert found == LONG_BODIES


def test_functions_have_at_most_nine_parameters():
    """Commands have one for each option."""
    found = {
        f"{module}.{function.name}"
        for module, path in MODULES.items()
        for function in _functions(path)
        if _parameters(function) > 9 and module.split(".")[0] != "cli"
    }
    assert found - _CONSTRUCTORS == MANY_PARAMETERS


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.py")), ids=lambda path: path.stem)
def test_no_test_module_imports_another(path):
    """What several of them need is in ``helpers.py`` and its like."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[-1], *(alias.name for alias in node.names)}
            assert not [name for name in names if name.startswith("test_") and (TESTS / f"{name}.py").exists()]


# Test modules that use private names of the package today: this list only shrinks.
PRIVATE: set[str] = {
    "test_views: _Body",
}


def test_private_names_are_not_tested():
    found = set()
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("usdrl_hub"):
                found |= {f"{path.stem}: {alias.name}" for alias in node.names if alias.name.startswith("_")}
    assert found == PRIVATE


def test_the_tree_in_the_documents_is_the_package_as_it_is():
    """Each file and folder of the package, in the order of the floors."""
    document = (PACKAGE.parent / "docs" / "structure.md").read_text("utf-8")
    tree = document.split("```\nusdrl_hub/\n")[1].split("\ndocs/")[0]
    names = [line.split("   ")[0] for line in tree.splitlines()]
    drawn = [word for line in names for word in re.findall(r"(?<=  )[a-z_]+(?:\.py|/)", line)]
    there = {path.name + "/" * path.is_dir() for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert sorted(drawn) == sorted(there - {"__init__.py", "__pycache__/"})
    heights = [height for name in drawn if (height := floor(name.removesuffix(".py").rstrip("/"))) is not None]
    assert heights == sorted(heights)
