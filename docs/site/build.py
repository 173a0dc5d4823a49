"""Builds the documentation site.

    python docs/site/build.py build/site

The pages of docs/, CHANGELOG.md, benchmarks/README.md, .github/CONTRIBUTING.md and SECURITY.md and the model cards are
gathered in one folder, with the links between them; the reference is made from the public names. A warning is
an error. A new page in docs/ is taken without being listed here.
"""

import argparse
import json
import os
import re
import shutil
from pathlib import Path

from sphinx.cmd.build import build_main

import usdrl_hub

ROOT = Path(__file__).resolve().parents[2]
# Pages outside docs/, by their name in the site.
OTHERS = {
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "measurements.md",
    ".github/CONTRIBUTING.md": "contributing.md",
    ".github/SECURITY.md": "security.md",
    "docs/space/README.md": "space.md",
    # Sphinx writes its own search.html.
    "docs/search.md": "archive-search.md",
}
# The order of the contents; other pages follow under "More".
CONTENTS = {
    "First steps": ("installation", "own-data", "trainer", "notebook", "formats", "films", "models"),
    "Guides": (
        *(
            "library",
            "similar-movements",
            "archive-search",
            "scale",
            "long-recordings",
            "browser",
            "As a Space <space>",
            "deployment",
            "pretraining",
        ),
        *("paper-benchmarks", "authors-checkpoints", "publishing"),
    ),
    "Understanding": ("method", "glossary", "results", "All measurements <measurements>", "beware", "errors"),
    "Reference": ("reference/*", "cards/index"),
    "Developing": ("contributing", "security", "structure", "AGENTS", "changelog"),
}
# Headings of the reference, by the module of the names.
ROOMS = {
    "Recordings and layouts": ("sequence", "errors", "layouts", "persons", "normalization", "data"),
    "Models": ("configuration_usdrl", "feature_extraction_usdrl", "modeling_usdrl", "acceleration", "facts"),
    "Inference": ("inference", "search"),
    "Training": ("training", "tasks", "pretraining"),
    "Pictures": ("visualize",),
}
# Names that are no classes or functions.
DATA = {"LAYOUTS": f"All known joint layouts by name, as :class:`Layout`: {', '.join(usdrl_hub.LAYOUTS)}."}
_LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)(#[^)]*)?(\))")


def gather(folder: Path) -> None:
    """Write all pages to a folder."""
    pages = {path: Path(path.name) for path in (ROOT / "docs").glob("*.md")}
    pages |= {path: Path(f"{path.stem}.md") for path in (ROOT / "docs").glob("*.ipynb")}
    pages |= {ROOT / path: Path(name) for path, name in OTHERS.items()}
    pages |= {path: Path("cards", path.name) for path in (ROOT / "model_cards").glob("*.md")}
    for source, target in pages.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_text(_linked(source, target, pages, folder), "utf-8")
    listed = {name.partition("<")[2].rstrip(">") or name for names in CONTENTS.values() for name in names}
    others = sorted({path.stem for path in folder.glob("*.md")} - listed - {"index"})
    with open(folder / "index.md", "a", encoding="utf-8") as file:
        for heading, names in (CONTENTS | ({"More": others} if others else {})).items():
            file.write(f"\n:::{{toctree}}\n:hidden:\n:glob:\n:caption: {heading}\n\n" + "\n".join(names) + "\n:::\n")
    cards = "# Model cards\n\n:::{toctree}\n:glob:\n\n*\n:::\n"
    (folder / "cards" / "index.md").write_text(cards, "utf-8")
    (folder / "reference").mkdir()
    for heading, rooms in ROOMS.items():
        (folder / "reference" / (heading.split()[0].lower() + ".rst")).write_text(_reference(heading, rooms), "utf-8")


def _linked(source: Path, target: Path, pages: dict[Path, Path], folder: Path) -> str:
    """The text of a page with links to other pages as the site names them; linked files are copied."""

    def link(found: re.Match) -> str:
        before, path, anchor, after = found.groups()
        linked = (source.parent / path).resolve()
        if linked == ROOT / "README.md":
            place = Path("index.md")
        elif linked in pages:
            place = pages[linked]
        else:
            place = Path("files", linked.relative_to(ROOT))
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(linked, folder / place)
        return f"{before}{os.path.relpath(place, target.parent)}{anchor or ''}{after}"

    text = source.read_text("utf-8") if source.suffix == ".md" else _notebook(source)
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def _notebook(path: Path) -> str:
    """The cells of a notebook as Markdown."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells) + "\n"


def _reference(heading: str, rooms: tuple[str, ...]) -> str:
    """A page of the reference, as reStructuredText."""
    lines = [heading, "=" * len(heading), ""]
    for name in usdrl_hub.__all__:
        value = getattr(usdrl_hub, name)
        module = getattr(value, "__module__", "usdrl_hub.layouts").removeprefix("usdrl_hub.")
        if name == "__version__" or module.split(".")[0] not in rooms:
            continue
        lines += [name, "-" * len(name), ""]
        if callable(value):
            lines += [f".. auto{'class' if isinstance(value, type) else 'function'}:: usdrl_hub.{name}"]
            # The arguments of a constructor that is ours.
            constructor = vars(value).get("__init__") if isinstance(value, type) else None
            lines += [*(["   :class-doc-from: both"] if constructor and constructor.__doc__ else []), ""]
        else:
            lines += [f".. py:data:: usdrl_hub.{name}", "", f"   {DATA[name]}", ""]
    return "\n".join(lines)


def build(output: Path) -> int:
    """Build the site; returns Sphinx's exit status."""
    source = output.parent / f"{output.name}-source"
    for folder in (source, output):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    gather(source)
    config = str(Path(__file__).parent)
    return build_main(["-b", "html", "-W", "--keep-going", "-q", "-c", config, str(source), str(output)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder of the site")
    raise SystemExit(build(parser.parse_args().output))
