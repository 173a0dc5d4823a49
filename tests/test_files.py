"""Atomic files and folders, written by one process at a time."""

import errno
import fcntl
import multiprocessing
import os
import stat
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from usdrl_hub import files
from usdrl_hub.errors import LONGEST_SENTENCE, FolderInUseError, OutputError, one_sentence
from usdrl_hub.files import locked, new_file, new_folder, scratch_file, scratch_folder

from .helpers import disk


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
        assert next(name for name in names if name != "table.csv").startswith(f".table.csv.{alive.pid}-")
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


def test_threads_and_a_process_of_the_same_number_do_not_meet_in_a_temporary_file(tmp_path):
    """faults.md 26: in a container the dead process often had the number of the living one."""
    with scratch_file(tmp_path / "table.csv") as scratch:
        host = scratch.name.rpartition("@")[2]
    left = tmp_path / f".table.csv.{os.getpid()}-7-abcdef@{host}"
    left.write_text("half")
    with new_file(tmp_path / "table.csv") as first, new_file(tmp_path / "table.csv") as second:
        assert first != second and first.exists() and second.exists() and not left.exists()
        first.write_text("first")
        second.write_text("second")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "first", "who ends last"


def test_two_threads_cannot_make_one_folder(tmp_path):
    """faults.md 23."""
    told: list[BaseException] = []

    def other():
        try:
            with new_folder(tmp_path / "out"):
                pass
        except BaseException as error:
            told.append(error)

    with new_folder(tmp_path / "out"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert [type(error) for error in told] == [FolderInUseError]


def _wait(ready, end):
    ready.set()
    end.wait(60)


def test_a_forked_process_does_not_go_on_holding(tmp_path):
    """faults.md 23: workers of a process that was killed may live on."""
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    with locked(tmp_path / "out"):
        worker = context.Process(target=_wait, args=(ready, end))
        worker.start()
        assert ready.wait(30)
    try:
        # What the worker has of the lock must not keep the next one out, nor may its end set the lock free.
        with locked(tmp_path / "out"):
            end.set()
            worker.join()
            with pytest.raises(FolderInUseError), locked(tmp_path / "out"):
                pass
    finally:
        end.set()
        worker.join()


def test_workers_of_a_dead_process_do_not_hold_its_lock(tmp_path):
    code = """
    import multiprocessing, os, sys, time
    from usdrl_hub.files import locked
    with locked(sys.argv[1]):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        print(worker.pid, flush=True)
        time.sleep(60)
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    holder.kill()
    try:
        os.kill(worker, 0)
        with locked(tmp_path / "out"):
            pass
    finally:
        os.kill(worker, 9)
        holder.wait()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_of_the_file_system_a_file_is_one(tmp_path, monkeypatch, number):
    """faults.md 23: network file systems without flock."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "out"), pytest.raises(FolderInUseError), locked(tmp_path / "out"):
        pass
    with locked(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_lies_around_an_output_is_made_and_goes_where_nothing_comes_of_it(tmp_path):
    for make in (new_folder, new_file):
        with pytest.raises(KeyError), make(tmp_path / "a" / "b" / "out") as partial:
            assert partial.exists()
            raise KeyError
        assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "a" / "b" / "out"):
        pass
    assert (tmp_path / "a" / "b" / "out").is_dir()


def test_a_process_that_dies_while_it_fills_a_folder_leaves_nothing_that_loads(tmp_path, monkeypatch):
    """faults.md 26: into an existing empty folder."""
    out = tmp_path / "out"
    out.mkdir()
    replace = os.replace

    class Killed(BaseException):
        pass

    def some(source, target):
        if str(target).endswith("config.json"):
            raise Killed
        replace(source, target)

    def make():
        with new_folder(out) as partial:
            for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
                (partial / name).write_text("whole")

    with monkeypatch.context() as patched:
        # Killed: nothing is cleaned up.
        patched.setattr(os, "replace", some)
        patched.setattr(files, "_remove", lambda path: None)
        patched.setattr(files, "_deleted", lambda path: True)
        patched.setattr(files.shutil, "rmtree", lambda path, **_: None)
        with pytest.raises(Killed):
            make()
    assert (out / "model.safetensors").exists() and not (out / "config.json").exists(), "what loads it comes last"
    make()
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    with pytest.raises(OutputError, match="not an empty folder"):
        make()


def test_a_failure_while_a_folder_is_filled_leaves_it_empty(tmp_path, monkeypatch):
    replace = os.replace

    def refuse(source, target):
        if str(target).endswith("b"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=f"{tmp_path}"), new_folder(tmp_path) as partial:
        (partial / "a").write_text("a")
        (partial / "b").write_text("b")
    assert not list(tmp_path.iterdir())


def test_a_folder_and_one_of_the_same_name_in_it_are_two(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with new_folder(out / "out") as inner, new_folder(tmp_path / "other"):
        (inner / "x").write_text("x")
        with pytest.raises(OutputError, match="not an empty folder"), new_folder(out):
            pass
    assert (out / "out" / "x").exists()
    (out / "out" / "x").unlink()
    (out / "out").rmdir()
    with new_folder(out) as outer:
        (outer / "y").write_text("y")
        with new_folder(out / "out"):
            assert (outer / "y").exists()
        (out / "out").rmdir()
    assert (out / "y").exists()


def test_names_as_long_as_a_file_system_takes_them(tmp_path):
    for length in (200, 255):
        with new_folder(tmp_path / ("d" * length)) as partial:
            (partial / "x").write_text("x")
        with new_file(tmp_path / ("é" * (length // 2))) as partial:
            partial.write_text("x")
    assert sorted(len(os.fsencode(path.name)) for path in tmp_path.iterdir()) == [200, 200, 254, 255]


def test_links_are_followed_and_devices_left_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere" / "table.csv")
    for content in ("first", "second"):
        with new_file(tmp_path / "link.csv") as partial:
            partial.write_text(content)
        assert (tmp_path / "link.csv").is_symlink()
        assert (tmp_path / "elsewhere" / "table.csv").read_text() == content
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="a device"), new_file(tmp_path / "pipe"):
        pass


def test_outputs_have_the_rights_of_any_new_file(tmp_path):
    """faults.md 37."""
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "folder") as partial:
            (partial / "x").write_text("x")
        with new_file(tmp_path / "file") as partial:
            partial.write_text("x")
        with locked(tmp_path / "out"):
            assert stat.S_IMODE((tmp_path / ".out.lock").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_mount_in_what_cannot_be_written_is_filled(tmp_path):
    """A container's output folder; the one around it is read-only."""
    outer = tmp_path / "outer"
    outer.mkdir()
    with disk(outer, "size=1m"):
        (outer / "out").mkdir()
        with disk(outer / "out", "size=1m"):
            subprocess.run(["mount", "-o", "remount,ro", str(outer)], check=True)
            with new_folder(outer / "out") as partial:
                (partial / "x").write_text("x")
                with pytest.raises(FolderInUseError), new_folder(outer / "out"):
                    pass
            assert [path.name for path in (outer / "out").iterdir()] == ["x"]
            for make in (new_folder, new_file):
                with pytest.raises(OutputError, match="new: it cannot be written: Read-only"), make(outer / "new"):
                    pass


def test_a_full_disk_is_told_by_the_name_that_was_asked_for(tmp_path):
    """faults.md, words that mislead: ``[Errno 2] ... .x.partial``."""
    with disk(tmp_path, "size=64k"):
        (tmp_path / "file").write_text("older")
        for make in (new_folder, new_file):
            target = tmp_path / ("file" if make is new_file else "out")
            with pytest.raises(OSError) as told, make(target) as at:
                (at / "x" if at.is_dir() else at).write_bytes(bytes(1 << 20))
            assert one_sentence(told.value) == f"{target}: No space left on device"
            assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_text() == "older"


def test_what_a_library_says_of_a_full_disk_is_told_in_our_words(tmp_path):
    said = f"Error while serializing: I/O error: No space left on device (os error {errno.ENOSPC})"
    with pytest.raises(OSError) as told, new_folder(tmp_path / "out"):
        raise SafetensorError(said)
    assert one_sentence(told.value) == f"{tmp_path / 'out'}: No space left on device"
    with pytest.raises(FileNotFoundError, match="mine"), new_folder(tmp_path / "out"):
        (tmp_path / "mine").read_text()


def test_scratch_folders_of_dead_processes_go(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process, name in ((dead.pid, files._HOST), (dead.pid, "elsewhere"), (1, files._HOST)):
        (tmp_path / f"usdrl-{process}-0-abc@{name}.partial").mkdir()
    with scratch_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "x").write_text("x")
    assert len(list(tmp_path.iterdir())) == 2


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
    assert os.listdir(tmp_path) == [], "nor is the folder that was made for it"
    process = begin(HOLD.format("scratch_file").replace("print", "partial.touch(); print"), tmp_path / "out")
    process.kill()
    process.wait()
    assert len(list(tmp_path.glob(".out.*.partial"))) == 1
    with new_file(tmp_path / "out") as partial:
        partial.write_text("whole")
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.skipif(os.name != "posix", reason="the system has no such rights")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_rights_of_any_new_file_whoever_writes_them(tmp_path, mask):
    """faults.md 37: safetensors makes its own file, readable for its owner alone; a store's were."""
    before = os.umask(mask)
    try:
        with new_file(tmp_path / "frames.safetensors") as partial:
            save_file({"frames": np.zeros(3)}, partial)
    finally:
        os.umask(before)
    assert (tmp_path / "frames.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
