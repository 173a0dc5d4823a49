"""Licences of models follow those of their encoder and data."""

import json
from pathlib import Path

import pytest

from usdrl_hub.facts.checkpoints import checkpoint_path
from usdrl_hub.facts.datasets import DATASETS
from usdrl_hub.hub.card_source import CardSource
from usdrl_hub.hub.cards import render_card
from usdrl_hub.hub.licenses import data_license, license_of, model_licenses
from usdrl_hub.hub.publish import publish

TINY = "usdrl/tiny-uiprmd"


@pytest.mark.parametrize(
    "sources, expected",
    [
        ({"encoder": "apache-2.0", "data": "pddl"}, "apache-2.0"),
        ({"encoder": "apache-2.0", "data": "unknown"}, "unknown"),
        ({"encoder": "cc-by-nc-4.0", "data": "unknown"}, "cc-by-nc-4.0"),
        ({"encoder": "apache-2.0", "data": "other"}, "other"),
        ({"encoder": "cc-by-nc-4.0", "data": "cc-by-sa-3.0"}, "other"),
        ({"encoder": "apache-2.0", "data": "cc-by-sa-3.0"}, "cc-by-sa-3.0"),
        ({}, "unknown"),
    ],
)
def test_a_model_allows_no_more_than_what_it_was_made_from(sources, expected):
    assert license_of(sources) == expected


@pytest.mark.parametrize("wanted", ["apache-2.0", "mit", "cc-by-4.0", "openrail", "cc-by-sa-4.0"])
@pytest.mark.parametrize("bound", ["other", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"])
def test_research_only_cannot_become_any_use(wanted, bound):
    with pytest.raises(ValueError, match="was made from the encoder, whose licence is"):
        license_of({"the encoder": bound, "data": "unknown"}, wanted)
    assert license_of({"the encoder": bound}, "cc-by-nc-4.0") == "cc-by-nc-4.0"


def test_the_owner_of_the_data_names_the_licence():
    assert license_of({"encoder": "apache-2.0", "data": "unknown"}, "cc-by-4.0") == "cc-by-4.0"
    with pytest.raises(ValueError, match="no licence in the hub's spelling"):
        license_of({}, "My own!")


def test_known_data_sets_have_their_licences():
    assert [data_license(name) for name in ("ntu60", "pkummd1", "uav")] == ["other"] * 3
    assert (data_license("folder/ui_prmd_vicon.npz"), data_license("hdm05_11")) == ("pddl", "cc-by-sa-3.0")
    assert data_license("my-store") == "unknown" == data_license("utkinect")
    for facts in DATASETS.values():
        assert ("research only" in facts.terms) == (facts.license == "other"), facts.name
        assert ("NC" in facts.terms) == ("-nc" in facts.license), facts.name


def test_the_licences_of_an_encoder_are_found(tmp_path):
    assert model_licenses(TINY) == {TINY: "apache-2.0"} and model_licenses(None) == {}
    assert model_licenses("usdrl/ntu60-xsub") == {"usdrl/ntu60-xsub": "other"}
    assert list(model_licenses(tmp_path).values()) == ["unknown"]
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Mine\n\nlicense: mit\n")
    assert list(model_licenses(tmp_path).values()) == ["cc-by-nc-4.0"]
    (tmp_path / "metrics.json").write_text(json.dumps({"licenses": {"usdrl/a": "other", "data": "pddl"}}))
    assert model_licenses(tmp_path) == {"usdrl/a": "other", "data": "pddl"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A recogniser without the registry's name."""
    target = tmp_path / "mine"
    target.mkdir()
    for file in checkpoint_path(TINY).iterdir():
        if file.name != "README.md" and file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    return target


def with_licenses(folder: Path, **licenses: str) -> None:
    record = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(record | {"licenses": licenses}))


def test_cards_and_the_command_hold_to_it(folder):
    with_licenses(folder, encoder="cc-by-nc-4.0", data="unknown")
    assert "license: cc-by-nc-4.0" in render_card(CardSource.of_folder(folder, "ada/mine"))
    with pytest.raises(ValueError, match="apache-2.0 would allow more"):
        publish(folder, "ada/mine", dry_run=True, license_name="apache-2.0")
    with_licenses(folder, encoder="apache-2.0", data="unknown")
    with pytest.warns(UserWarning, match="its licence is not known: name it with --license"):
        publish(folder, "ada/mine", dry_run=True)
    publish(folder, "ada/mine", dry_run=True, license_name="cc-by-4.0")
    with_licenses(folder, encoder="apache-2.0", data="other")
    assert "license: other" in render_card(CardSource.of_folder(folder, "ada/mine"))


def test_a_record_that_names_no_encoder_allows_nothing_by_itself(folder):
    record = json.loads((folder / "metrics.json").read_text())
    assert "licenses" not in record
    for dataset, expected in (("ui_prmd_vicon", "unknown"), ("ntu60", "other"), (["hdm05_11"], "cc-by-sa-3.0")):
        (folder / "metrics.json").write_text(json.dumps(record | {"dataset": dataset}))
        assert CardSource.of_folder(folder, "ada/mine").license == expected
