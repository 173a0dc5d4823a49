"""The documentation site of docs/site/build.py."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

import usdrl_hub

ROOT = Path(__file__).parent.parent
pytest.importorskip("sphinx")


@pytest.fixture(scope="module")
def site():
    spec = importlib.util.spec_from_file_location("site_build", ROOT / "docs" / "site" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(site, tmp_path_factory):
    """The gathered pages by name, and their folder."""
    folder = tmp_path_factory.mktemp("pages")
    site.gather(folder)
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*.*") if
            path.suffix in (".md", ".rst") and "files" not in path.parts}, folder  # fmt: skip


def test_every_page_is_gathered_and_its_links_lead_to_pages(pages):
    texts, folder = pages
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"search.md"} <= set(texts)
    assert {"changelog.md", "notebook.md", "measurements.md", "contributing.md", "cards/tiny-uiprmd.md"} <= set(texts)
    count = 0
    for name, text in texts.items():
        text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
            assert (folder / name).parent.joinpath(target).is_file(), f"{name}: {target}"
            count += 1
    assert count > 50


def test_no_page_has_the_name_of_one_that_sphinx_writes(pages):
    assert not {"search.md", "genindex.md", "py-modindex.md"} & set(pages[0])
    assert "# Searching an archive" in pages[0]["archive-search.md"]


def test_the_contents_name_every_page_once(pages):
    trees = "\n".join(re.findall(r":::\{toctree\}.*?\n\n(.*?):::", pages[0]["index.md"], flags=re.DOTALL))
    named = re.findall(r"^(?:.*<)?([\w-]+)>?$", trees, flags=re.MULTILINE)
    assert sorted(named) == sorted({name[:-3] for name in pages[0] if re.fullmatch(r"[\w-]+\.md", name)} - {"index"})


def test_the_reference_has_every_public_name_once(pages):
    references = "\n".join(text for name, text in pages[0].items() if name.startswith("reference/"))
    named = re.findall(r"^\.\. \S+:: usdrl_hub\.(\w+)$", references, flags=re.MULTILINE)
    assert sorted(named) == sorted(set(usdrl_hub.__all__) - {"__version__"})
    assert ".. autoclass:: usdrl_hub.BlazePoseEstimator\n   :class-doc-from: both\n" in references


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(site, tmp_path):
    assert site.build(tmp_path / "site") == 0
    reference = (tmp_path / "site" / "reference" / "inference.html").read_text("utf-8")
    assert 'id="usdrl_hub.extract_embeddings"' in reference
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "changelog.html" in home and "errors.html" in home


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_pictures(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "30 recordings; the first one" in text
    assert "'accuracy'" in text and "deep squat is most like ['deep squat'" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert (tmp_path / "my-model" / "report.html").is_file()


def test_the_notebook_of_the_documentation_is_python_that_compiles():
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text("utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    # The first cell installs the package where it is missing.
    assert "find_spec" in codes[0] and "%pip install" in codes[0]
    for number, code in enumerate(codes[1:]):
        compile(code, f"cell {number}", "exec")
