"""Project files: workflows, templates, and what is packed for PyPI."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import usdrl_hub

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def steps(workflow: Path) -> list[dict]:
    return [step for job in yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values() for step in job["steps"]]


def test_workflows_call_targets_that_exist():
    targets = (ROOT / "Makefile").read_text("utf-8")
    called = set()
    for workflow in WORKFLOWS:
        for step in steps(workflow):
            called |= set(re.findall(r"^make ([\w-]+)", step.get("run", ""), flags=re.MULTILINE))
    assert called == {"lint", "test", "test-lowest", "demo", "docs", "package", "workflows"}
    assert all(f"\n{name}:" in targets for name in called)


def test_workflows_test_the_pythons_that_the_package_declares():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8"))["jobs"]
    tested = jobs["linux"]["strategy"]["matrix"]["python"]
    assert tested == [line.split(" :: ")[2] for line in PROJECT["classifiers"] if line.startswith("Programming")]
    assert PROJECT["requires-python"] == f">={tested[0]}"
    assert {"macos", "windows", "lowest"} <= set(jobs)


def test_a_release_is_published_without_a_password_by_a_job_that_runs_no_code_of_ours():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert [list(step)[0] for step in jobs["publish"]["steps"]] == ["uses", "uses"]
    assert jobs["publish"]["steps"][1]["with"]["attestations"] is True
    assert not any("secrets." in workflow.read_text("utf-8") for workflow in WORKFLOWS)


def test_issue_templates_ask_for_the_environment():
    templates = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(templates) == 3
    for path in templates:
        fields = {field["id"]: field for field in yaml.safe_load(path.read_text("utf-8"))["body"]}
        assert fields["env"]["attributes"]["label"] == "Output of `usdrl env`"


def test_version_changelog_and_citation_agree():
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert titles[:2] == ["Unreleased", f"{usdrl_hub.__version__} ({citation['date-released']})"]
    assert citation["version"] == usdrl_hub.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", citation["date-released"])


def test_each_version_of_the_changelog_says_what_was_added_changed_and_fixed():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    for version in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        headings = re.findall(r"^### (.*)$", version, flags=re.MULTILINE)
        assert headings == [name for name in ("Added", "Changed", "Fixed") if name in headings], version[:20]


@pytest.mark.slow
def test_sdist_and_wheel_are_complete_and_their_descriptions_render(tmp_path):
    """`make package` also installs the wheel in an empty environment."""
    command = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    packages = sorted(tmp_path.iterdir())
    assert [path.suffix for path in packages] == [".whl", ".gz"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, packages)], check=True)
    # People download it whole, with its weights.
    assert packages[0].stat().st_size < 15_000_000
    with zipfile.ZipFile(packages[0]) as wheel:
        names = set(wheel.namelist())
    assert {"usdrl_hub/pose/NOTICE", "usdrl_hub/checkpoints/usdrl--tiny-uiprmd/model.safetensors"} <= names
    assert all(name.startswith(("usdrl_hub/", "usdrl_hub-")) for name in names)
    assert any(name.endswith("licenses/usdrl_hub/pose/NOTICE") for name in names)
    with tarfile.open(packages[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        "docs/pictures/recognition.gif",
        "docs/site/build.py",
        ".github/CONTRIBUTING.md",
        "tests/conftest.py",
    } <= names
