"""Print the declared lower bounds of all dependencies as constraints for pip: what `make test-lowest` installs."""

import re
import tomllib
from pathlib import Path

settings = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
project, groups = settings["project"], settings["dependency-groups"]
lowest: dict[str, str] = {}
# The package's own bounds come first: an extra may need a newer release than the package does, and its tests say so.
for requirements in (project["dependencies"], *project["optional-dependencies"].values(), groups["dev"]):
    # A group that includes another, as that of the documentation's tools, does so by a table.
    for requirement in filter(lambda entry: isinstance(entry, str), requirements):
        name, bound = re.match(r"([\w.-]+)\s*>=\s*([\w.]+)", requirement).groups()
        lowest.setdefault(name, bound)
# Development tools may be newer.
for name in ("mypy", "pytest", "pytest-xdist", "hypothesis", "ruff", "build", "ipykernel", "nbclient", "twine"):
    lowest.pop(name, None)
print("\n".join(f"{name}=={bound}" for name, bound in sorted(lowest.items())))
