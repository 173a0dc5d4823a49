"""The documentation site of docs/site/build.py."""

import importlib.util
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
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(texts)
    assert {"changelog.md", "measurements.md", "contributing.md", "cards/tiny-uiprmd.md"} <= set(texts)
    count = 0
    for name, text in texts.items():
        text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
            assert (folder / name).parent.joinpath(target).is_file(), f"{name}: {target}"
            count += 1
    assert count > 50


def test_the_reference_has_every_public_name_once(pages):
    references = "\n".join(text for name, text in pages[0].items() if name.startswith("reference/"))
    named = re.findall(r"^\.\. \S+:: usdrl_hub\.(\w+)$", references, flags=re.MULTILINE)
    assert sorted(named) == sorted(set(usdrl_hub.__all__) - {"__version__"})


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(site, tmp_path):
    assert site.build(tmp_path / "site") == 0
    reference = (tmp_path / "site" / "reference" / "inference.html").read_text("utf-8")
    assert 'id="usdrl_hub.extract_embeddings"' in reference
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "changelog.html" in home and "errors.html" in home
