"""Files and folders are whole or absent, and written by one process at a time."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from usdrl_hub.errors import LONGEST_SENTENCE, FolderInUseError, one_sentence
from usdrl_hub.files import locked, new_file, new_folder, scratch_file


def begin(code: str, *arguments) -> subprocess.Popen:
    """Start a process and wait until it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline()
    return process


HOLD = """
import sys, time
from usdrl_hub.files import {0}
with {0}(sys.argv[1]) as partial:
    if partial is not None and partial.is_dir():
        (partial / "half").write_text("half")
    print("holding", flush=True)
    time.sleep(60)
"""


def test_who_holds_a_path_is_named_to_the_others(tmp_path):
    holder = begin(HOLD.format("locked"), tmp_path / "out")
    try:
        with pytest.raises(FolderInUseError, match=f"process {holder.pid} on"), locked(tmp_path / "out"):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir()), "the lock's file is gone with it"


@pytest.mark.parametrize("exists", [False, True], ids=["new", "an empty folder"])
def test_what_a_dead_process_left_of_a_folder_is_cleaned_by_the_next(tmp_path, exists):
    """faults.md 26."""
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    # Another output whose name begins alike, and is being made.
    other = begin(HOLD.format("new_folder"), tmp_path / "out.v2")
    dead = begin(HOLD.format("new_folder"), out)
    dead.kill()
    dead.wait()
    try:
        assert list(tmp_path.rglob("half")) and not (out / "half").exists()
        with new_folder(out) as partial:
            (partial / "whole").write_text("whole")
        assert [path.name for path in out.iterdir()] == ["whole"]
        left = {path.name.split(".new-")[0] for path in tmp_path.iterdir()}
        assert left == {"out", ".out.v2", ".out.v2.lock"}, "the other's are left alone"
    finally:
        other.kill()
        other.wait()


def test_what_a_dead_process_left_of_a_file_is_cleaned_by_the_next(tmp_path):
    dead = begin(HOLD.format("new_file"), tmp_path / "table.csv")
    alive = begin(HOLD.format("new_file"), tmp_path / "table.csv")
    dead.kill()
    dead.wait()
    try:
        with new_file(tmp_path / "table.csv") as partial:
            partial.write_text("whole")
        names = {path.name for path in tmp_path.iterdir()}
        assert len(names) == 2 and "table.csv" in names
        assert next(name for name in names if name != "table.csv").startswith(f".table.csv.{alive.pid}@")
    finally:
        alive.kill()
        alive.wait()


def test_two_cannot_make_one_folder(tmp_path):
    """faults.md 23."""
    with new_folder(tmp_path / "out") as partial:
        (partial / "whole").write_text("first")
        with pytest.raises(FolderInUseError, match=str(os.getpid())), new_folder(tmp_path / "out"):
            pass
    assert (tmp_path / "out" / "whole").read_text() == "first"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"), new_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sentences_of_unknown_origin_are_one_short_printable_line():
    """faults.md 28, 29."""
    error = ValueError("a\x1b[31m\x07\n" + "b" * 10_000 + " name another")
    sentence = one_sentence(error)
    assert len(sentence) == LONGEST_SENTENCE and sentence.isprintable()
    assert sentence.startswith("a\\x1b[31m\\x07") and sentence.endswith("name another")
    assert one_sentence(KeyError()) == "KeyError"


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_errors_of_the_system_name_what_was_asked_for(tmp_path, make):
    """faults.md "words that mislead": `[Errno 2] ... .x.partial`."""
    with pytest.raises(OSError) as caught, make(tmp_path / "out") as partial:
        if partial.is_file():
            partial.unlink()
        (partial / "in" / "side").write_text("x") if partial.is_dir() else None
    asked = str(tmp_path / "out")
    assert caught.value.filename.startswith(asked) and "partial" not in str(caught.value)
    assert one_sentence(caught.value).startswith(asked) and "Errno" not in one_sentence(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError) as caught, new_file(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert one_sentence(caught.value) == f"{tmp_path / 'out'}: No space left on device"


def test_a_scratch_file_is_gone_afterwards_and_when_its_process_died(tmp_path):
    with scratch_file(tmp_path / "new" / "out") as file:
        file.write_text("x")
        assert os.listdir(tmp_path / "new") == [file.name]
    assert os.listdir(tmp_path / "new") == []
    process = begin(HOLD.format("scratch_file").replace("print", "partial.touch(); print"), tmp_path / "out")
    process.kill()
    process.wait()
    assert len(list(tmp_path.glob(".out.*.partial"))) == 1
    with new_file(tmp_path / "out") as partial:
        partial.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == ["new", "out"]
