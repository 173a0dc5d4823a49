"""Data sets of films: a folder per class, or a table; what is no film of people is named."""

import os

import numpy as np
import pytest

from usdrl_hub import SkeletonFormatError, SkeletonSequence
from usdrl_hub.data.prepare import PrepareOptions, prepare
from usdrl_hub.errors import EmptySequenceError, USDRLWarning
from usdrl_hub.inference.video import VideoReading

from .helpers import run

BODY = np.random.default_rng(0).random((12, 1, 33, 3)).astype(np.float32) + 1
FILMS = {"sit/a.mp4": 3, "sit/b.MOV": 4, "walk/c.webm": 5, "walk/day 1/d.avi": 6}


def watch(path):
    """Stands for a pose estimator: a film of so many frames as its file says, of nobody where it says 0."""
    if not path.is_file():
        raise SkeletonFormatError(f"{path}: there is no such file")
    if path.read_text() == "stop":
        raise KeyboardInterrupt
    if not (frames := int(path.read_text())):
        raise EmptySequenceError(f"{path}: no person is found in its 9 pictures")
    return SkeletonSequence(BODY[:frames], "mediapipe33", fps=25, name=path.stem, up="-y")


@pytest.fixture
def films(tmp_path):
    for name, frames in FILMS.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text(str(frames))
    return tmp_path / "raw"


@pytest.mark.parametrize("workers", [1, 2])
def test_films_in_a_folder_per_class_become_a_store(films, tmp_path, workers):
    (films / "walk" / "empty.mp4").write_text("0")
    (films / "walk" / "._c.webm").write_text("of another system")
    store, report = prepare("folder", films, tmp_path / "store", options=PrepareOptions(film=watch), workers=workers)
    assert store.names == ["sit/a", "sit/b", "walk/c", "walk/day 1/d"] and store.class_names == ["sit", "walk"]
    assert store.column("labels").tolist() == [0, 0, 1, 1] and store.lengths.tolist() == [3, 4, 5, 6]
    assert (store[0].fps, store[0].up) == (25, "-y") and report["skipped"] == {"no person is seen": 1}
    assert "no person is found in its 9 pictures" in report["problems"]["walk/empty.mp4"]
    np.testing.assert_array_equal(store[1].keypoints, BODY[:4])


def test_a_table_names_films(films, tmp_path):
    rows = [f"{name},{name.partition('/')[0]},{person}" for person, name in enumerate([*FILMS, "sit/gone.mp4"])]
    (films / "list.csv").write_text("file,label,subject\n" + "\n".join(rows) + "\n")
    store, report = prepare("csv", films / "list.csv", tmp_path / "store", options=PrepareOptions(film=watch))
    assert len(store) == 4 and store.column("subjects").tolist() == [0, 1, 2, 3]
    assert "there is no such file" in report["problems"]["sit/gone.mp4"]


def test_films_beside_recordings_are_left_out_unless_asked_for(films, tmp_path):
    np.save(films / "sit" / "a.npy", BODY)
    with pytest.warns(USDRLWarning, match=r"videos beside recordings are left out \(4\)"):
        store, _ = prepare("folder", films, tmp_path / "one", options=PrepareOptions(film=watch))
    assert store.names == ["sit/a"]
    whole = PrepareOptions(film=watch, all_films=True, to_layout="ntu25")
    store, _ = prepare("folder", films, tmp_path / "all", options=whole)
    assert sorted(store.lengths.tolist()) == [3, 4, 5, 6, 12]


def test_without_a_way_to_read_films_they_are_not_found(films, tmp_path):
    with pytest.raises(SkeletonFormatError, match="there is no file such as class/recording"):
        prepare("folder", films, tmp_path / "store")


def test_a_stopped_run_goes_on_behind_the_last_film(films, tmp_path):
    options = PrepareOptions(film=watch)
    (films / "walk" / "c.webm").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        prepare("folder", films, tmp_path / "store", options=options)
    assert len(list((tmp_path / ".store.partial").glob("part-*.json"))) == 2
    # Nobody looks at these again.
    for name in ("a.mp4", "b.MOV"):
        stamp = (films / "sit" / name).stat()
        (films / "sit" / name).write_text("0")
        os.utime(films / "sit" / name, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    stamp = (films / "walk" / "c.webm").stat()
    (films / "walk" / "c.webm").write_text("   5")
    os.utime(films / "walk" / "c.webm", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    store, _ = prepare("folder", films, tmp_path / "store", options=options)
    assert store.lengths.tolist() == [3, 4, 5, 6]


def test_the_command_says_how_a_data_set_of_films_is_made(capsys, films, tmp_path):
    code, _, err = run(capsys, "finetune", films, "--output-dir", tmp_path / "model")
    assert code == 2 and "'usdrl prepare folder' makes one of a folder of recordings or videos" in err
    code, _, err = run(capsys, "prepare", "ntu60", films, "--output-dir", tmp_path / "store", "--mirrored")
    assert code == 2 and "--mirrored has no effect on data that are no videos" in err


def test_a_stopped_command_says_that_what_was_read_is_kept(capsys, films, tmp_path, monkeypatch):
    monkeypatch.setattr(VideoReading, "read", lambda self, path: watch(path))
    (films / "walk" / "c.webm").write_text("stop")
    code, _, err = run(capsys, "prepare", "folder", films, "--output-dir", tmp_path / "store")
    assert code == 130 and "note: what has been read is kept: repeat the command to continue" in err
    assert len(list((tmp_path / ".store.partial").glob("part-*.json"))) == 2
