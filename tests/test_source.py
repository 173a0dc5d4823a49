"""Recordings from files, folders, data sets, arrays and sequences, one after another."""

import numpy as np
import pytest

from usdrl_hub import Reading, SkeletonDataset, SkeletonSequence, USDRLFeatureExtractor, open_data, write_store
from usdrl_hub.data.sequence_list import SkeletonList
from usdrl_hub.distributed import Workers
from usdrl_hub.errors import SkeletonFormatError
from usdrl_hub.inference.source import Source

from .helpers import walking

BODY = np.random.default_rng(0).random((12, 2, 25, 3)).astype(np.float32) + 1


@pytest.fixture
def forms(tmp_path):
    """The same two recordings of BODY: in an array, as sequences, in files, in an .npz file and in a store."""
    folder = tmp_path / "folder" / "sub"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", BODY)
    np.savez(tmp_path / "set.npz", data=np.concatenate([BODY, BODY]), offsets=[0, 12, 24])
    sequences = [SkeletonSequence(BODY, name=name) for name in ("sub/a", "sub/b")]
    write_store(sequences, tmp_path / "store")
    return {
        "array": np.stack([BODY, BODY]),
        "sequences": sequences,
        "folder": tmp_path / "folder",
        "file": tmp_path / "set.npz",
        "store": tmp_path / "store",
        "dataset": open_data(tmp_path / "set.npz"),
    }


FORMS = ("array", "sequences", "folder", "file", "store", "dataset")


@pytest.mark.filterwarnings("ignore:.*its up is y")
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_read_alike(forms, form):
    """A store says which axis points up."""
    reading = Reading(fps=25, up="z", axes="TMVC" if form in ("array", "folder") else None)
    found = list(Source(forms[form], reading))
    assert [(sequence.fps, sequence.up) for sequence in found] == [(25, "y" if form == "store" else "z")] * 2
    assert form not in ("folder", "sequences", "store") or [sequence.name for sequence in found] == ["sub/a", "sub/b"]
    for sequence in found:
        np.testing.assert_allclose(sequence.keypoints, BODY, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*its units is m")
@pytest.mark.parametrize("form", FORMS)
def test_units_scale_what_says_no_unit_and_nothing_else(forms, form):
    """A sequence, and so a store, is in metres."""
    reading = Reading(units="mm", axes="TMVC" if form in ("array", "folder") else None)
    for sequence in Source(forms[form], reading):
        scale = 1 if form in ("sequences", "store") else 0.001
        np.testing.assert_allclose(sequence.keypoints, BODY * scale, rtol=1e-5)
        assert sequence.units == "m"


def test_a_model_says_what_the_reading_leaves_open(tmp_path):
    holes = np.repeat(BODY[:, :1, :20], 3, axis=0)[:12]
    holes[3, 0, 4] = np.nan
    np.save(tmp_path / "walk.npy", holes)
    extractor = USDRLFeatureExtractor("ntu25", source_layout="kinect20", missing="interpolate")
    [found] = Source(tmp_path / "walk.npy").prepared(extractor)
    assert found.layout.name == "ntu25" and found.keypoints[3].any(-1).all()
    with pytest.raises(ValueError, match="NaN or infinite"):
        list(Source(tmp_path / "walk.npy", Reading(missing="refuse")).prepared(extractor))
    refusing = USDRLFeatureExtractor("ntu25", source_layout="kinect20")
    with pytest.raises(ValueError, match="NaN or infinite"):
        list(Source(tmp_path / "walk.npy").prepared(refusing))
    [same] = Source(tmp_path / "walk.npy", Reading(missing="interpolate")).prepared(refusing)
    np.testing.assert_array_equal(same.keypoints, found.keypoints)


def test_each_person_is_a_recording(forms):
    errors = []
    source = Source(forms["sequences"], each_person=True, on_error=errors.append)
    names = [sequence.name for sequence in source.prepared(USDRLFeatureExtractor())]
    assert names == ["sub/a#0", "sub/a#1", "sub/b#0", "sub/b#1"] and not errors


@pytest.mark.parametrize("form", ["folder", "file", "store"])
def test_processes_share_the_recordings(forms, form):
    """Together they read each recording once, under the same name, as one process does."""
    reading = Reading(axes="TMVC") if form == "folder" else Reading()
    alone = [sequence.name for sequence in Source(forms[form], reading).share(Workers(), 1)]
    found = []
    for rank in range(2):
        share = Source(forms[form], reading).share(Workers(rank, 2, rank), 1)
        found += [sequence.name for sequence in share]
    assert found == alone and len(found) == 2


def test_only_what_arrives_one_by_one_is_a_stream(forms):
    assert not any(Source(value).is_stream for value in forms.values())
    assert Source(iter(forms["sequences"])).is_stream
    assert isinstance(forms["dataset"], SkeletonDataset)


def test_data_sets_in_a_list_are_read_one_after_another(forms):
    store = open_data(forms["store"])
    found = list(Source([store, forms["dataset"], SkeletonList(forms["sequences"]), forms["sequences"][0]]))
    assert [sequence.name for sequence in found[:2] + found[4:]] == ["sub/a", "sub/b"] * 2 + ["sub/a"]
    assert len(found) == 7 and all(np.array_equal(sequence.keypoints, BODY) for sequence in found)


def test_several_processes_read_the_same_as_one(tmp_path):
    for number in range(40):
        np.save(tmp_path / f"r{number:02d}.npy", walking(4 + number).keypoints[:, 0])
    (tmp_path / "r05.npy").write_bytes(b"")
    found = {}
    for workers in (1, 3):
        errors = []
        source = Source(tmp_path, Reading(layout="ntu25", fps=25), on_error=errors.append, workers=workers)
        found[workers] = [(one.name, one.fps, one.keypoints.tobytes()) for one in source], list(map(str, errors))
    assert found[1] == found[3]
    assert len(found[1][0]) == 39 and found[1][1] == [f"{tmp_path / 'r05.npy'}: the file is empty"]
    with pytest.raises(SkeletonFormatError, match="r05.npy: the file is empty"):
        list(Source(tmp_path, workers=2))
    with pytest.raises(SkeletonFormatError, match="there is no such file"):
        list(Source(tmp_path / "none.npy", workers=2))
