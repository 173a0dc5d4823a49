"""Preparing data sets concurrently, after a kill, and with unreadable files."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import psutil
import pytest

from usdrl_hub import SkeletonFormatError, SkeletonStore, USDRLFeatureExtractor, open_data, write_store
from usdrl_hub.data import prepare as prepare_module
from usdrl_hub.data.huggingface import from_huggingface
from usdrl_hub.data.prepare import prepare
from usdrl_hub.data.reading import Reading
from usdrl_hub.data.samples import load_samples
from usdrl_hub.data.store_writer import StoreWriter
from usdrl_hub.errors import FolderInUseError, OutputError, USDRLError, USDRLWarning
from usdrl_hub.files import check_memory, check_space
from usdrl_hub.inference.archive import expected_rows, write_embeddings
from usdrl_hub.pretraining.data import PretrainingDataset

RUN = """
import sys, time
from usdrl_hub.data import prepare
from usdrl_hub.data.reading import Reading
from usdrl_hub.data.prepare import StoreWriter
prepare._PART = 4
write = StoreWriter.write_part
def slowly(self, *arguments):
    size = write(self, *arguments)
    print(len(self.parts), flush=True)
    time.sleep(float(sys.argv[4]))
    return size
StoreWriter.write_part = slowly
prepare.prepare("folder", sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
"""


@pytest.fixture
def recordings(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "raw" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number:02d}.npy", rng.normal(size=(9, 25, 3)))
    return tmp_path / "raw"


def run(raw: Path, output: Path, workers: int = 1, pause: float = 0.0) -> subprocess.Popen:
    """Begin to prepare in a process of its own; each line that it prints is a part that it has written."""
    command = [sys.executable, "-c", RUN, str(raw), str(output), str(workers), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@pytest.mark.parametrize("exists", [False, True], ids=["new", "an empty folder"])
def test_two_cannot_prepare_one_store_and_a_killed_one_goes_on(recordings, tmp_path, monkeypatch, exists):
    """faults.md 23, 26: two wrote into each other's parts; of several processes none keeps the lock."""
    monkeypatch.setattr(prepare_module, "_PART", 4)
    prepare("folder", recordings, tmp_path / "whole")
    output = tmp_path / "out"
    if exists:
        output.mkdir()
    first = run(recordings, output, workers=2, pause=60)
    try:
        assert first.stdout is not None and first.stdout.readline() == "1\n"
        workers = psutil.Process(first.pid).children(recursive=True)
        assert len(workers) == 2
        with pytest.raises(FolderInUseError, match=f"process {first.pid} on"):
            prepare("folder", recordings, output)
        with pytest.raises(FolderInUseError):
            write_store(load_samples()[:2], output)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    # Those that read for it end with it.
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    [partial] = [*tmp_path.rglob(".out.partial")]
    (partial / ".frames-00001.safetensors.1-0-abc@elsewhere.partial").write_text("half")
    assert (partial / "part-00000.json").exists() and not (output / "store.json").exists()
    made = (partial / "frames-00000.safetensors").stat().st_mtime_ns
    prepare("folder", recordings, output)
    assert contents(output) == contents(tmp_path / "whole")
    assert (output / "frames-00000.safetensors").stat().st_mtime_ns == made, "its first part was not made again"
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "whole", "out"}


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_a_writer_that_dies_while_it_fills_a_folder_goes_on(recordings, tmp_path, monkeypatch, moved):
    """faults.md 26: a mount cannot be replaced by a folder, so its store is moved into it file by file."""
    monkeypatch.setattr(prepare_module, "_PART", 6)
    prepare("folder", recordings, tmp_path / "whole")
    output = tmp_path / "out"
    output.mkdir()
    inode, replace = output.stat().st_ino, os.replace
    left = [moved]

    def dying(source, target):
        if Path(target).parent == output:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", dying)
        prepare("folder", recordings, output)
    assert len([*output.glob("*.safetensors")]) == moved and not (output / "store.json").exists()
    with pytest.raises(SkeletonFormatError, match="the store is incomplete"):
        SkeletonStore.open(output)
    prepare("folder", recordings, output)
    assert contents(output) == contents(tmp_path / "whole") and output.stat().st_ino == inode
    with pytest.raises(OutputError, match="not an empty folder"):
        prepare("folder", recordings, output)


def test_a_part_of_which_a_file_is_gone_is_made_again(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "_PART", 4)
    prepare("folder", recordings, tmp_path / "whole")
    for name, content in (("frames-00000.safetensors", None), ("part-00001.json", "{"), ("settings.json", "{")):
        monkeypatch.setattr(StoreWriter, "finish", lambda self, *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare("folder", recordings, tmp_path / "out")
        file = tmp_path / ".out.partial" / name
        file.unlink() if content is None else file.write_text(content)
        monkeypatch.undo()
        monkeypatch.setattr(prepare_module, "_PART", 4)
        prepare("folder", recordings, tmp_path / "out")
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")
        shutil.rmtree(tmp_path / "out")


def test_a_file_that_was_mended_is_read_again(recordings, tmp_path, monkeypatch):
    broken = recordings / "class 0" / "00.npy"
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(StoreWriter, "finish", lambda self, *_: 1 / 0)
        prepare("folder", recordings, tmp_path / "out")
    broken.write_bytes(content)
    store, report = prepare("folder", recordings, tmp_path / "out")
    assert len(store) == 12 and not report["problems"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_cannot_be_read_is_told_and_the_others_go_on(recordings, tmp_path, monkeypatch, workers):
    """faults.md 27: the whole run ended."""
    refused = recordings / "class 1" / "03.npy"
    read = prepare_module.iter_skeletons

    def reader(path, *arguments, **options):
        if Path(path) == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    # Reading processes are forked from this one, which root's rights do not keep from reading anything.
    monkeypatch.setattr(prepare_module, "iter_skeletons", reader)
    if workers > 1 and sys.platform != "linux":
        pytest.skip("they are begun anew there")
    store, report = prepare("folder", recordings, tmp_path / "store", workers=workers)
    assert len(store) == 11 and report["skipped"] == {"unreadable": 1}
    [(name, problem)] = report["problems"].items()
    assert name == "class 1/03.npy" and problem.startswith(f"{refused}: ") and problem.endswith("Permission denied")


Usage = namedtuple("Usage", "total used free")


def test_disks_that_are_too_small_are_told_before_the_work(recordings, tmp_path, monkeypatch):
    """Issue 17, before long work: what the files to be read come to is estimated from those that were."""
    monkeypatch.setattr(prepare_module, "_PART", 4)
    written = 4 * 9 * 25 * 3 * 4
    for free, parts in ((written // 2, 0), (2 * written, 1)):
        with monkeypatch.context() as patched, pytest.raises(OutputError, match="of disk and .* are free: make room"):
            patched.setattr(shutil, "disk_usage", lambda path, free=free: Usage(10 * free, 9 * free, free))
            prepare("folder", recordings, tmp_path / "out")
        # What is done is not done again once there is room.
        assert len([*(tmp_path / ".out.partial").glob("part-*.json")]) == parts
    assert len(prepare("folder", recordings, tmp_path / "out")[0]) == 12
    check_space(tmp_path / "absent" / "deeper", 1, "out")
    with pytest.raises(OutputError, match=r"^out: it needs 1000000\.0 GB of disk and"):
        check_space(tmp_path / "absent" / "deeper", 10**15, "out")


def test_memory_that_is_too_small_is_told_before_the_work(monkeypatch):
    """Issue 17, before long work."""
    extractor = USDRLFeatureExtractor(layout="ui-prmd39", normalization="none", num_persons=1)
    data = load_samples()
    held = PretrainingDataset([data], extractor, window=30)
    assert held.memory is not None
    needed = held.memory.numel() * 4
    Memory = namedtuple("Memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(needed - 1))
    with pytest.raises(USDRLError, match="of memory and .* are available: .*in_memory"):
        PretrainingDataset([data], extractor, window=30)
    assert PretrainingDataset([data], extractor, window=30, in_memory=False).memory is None
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(100 * needed))
    assert len(PretrainingDataset([data], extractor, window=30)) == len(held)
    check_memory(0, "nothing", "")


# Joints that no registered layout has.
EDGES = {"joint_names": [f"j{number}" for number in range(25)]}


def untrimmed(path: Path, **arrays) -> Path:
    """A data set of three recordings, in the second of which nothing happens."""
    rng = np.random.default_rng(0)
    labels = np.array([-1, 0, 0, 1, -1] + [-1] * 4 + [1, 1, -1])
    content = {"data": rng.normal(size=(12, 1, 25, 3)).astype(np.float32), "offsets": [0, 5, 9, 12]}
    np.savez(path, **{**content, "layout": "ntu25", "frame_labels": labels, "class_names": ["a", "b"], **arrays})
    return path


def test_a_recording_in_which_nothing_happens_has_no_events(tmp_path):
    """faults.md 27: NumPy's words about shapes, and no file."""
    data = open_data(untrimmed(tmp_path / "data.npz"))
    store, _ = prepare("file", tmp_path / "data.npz", tmp_path / "store")
    expected = [[[0, 1, 3], [1, 3, 4]], [], [[1, 0, 2]]]
    for found in (data, store):
        assert [sequence.events.tolist() for sequence in found] == expected
    with np.load(tmp_path / "data.npz") as arrays:
        labels = arrays["frame_labels"]
    np.testing.assert_array_equal(np.concatenate([s.frame_labels() for s in store]), labels)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"class_names": [], "frame_labels": np.full(12, 10**9)}, "label 1000000000 of 'frame_labels' is not from 0"),
        ({"class_names": [], "labels": np.array([0, 10**9, 1])}, "label 1000000000 of 'labels' is not from 0"),
        ({"frame_labels": np.full(12, 2)}, "label 2 of 'frame_labels' has no name among 2"),
        ({"events": np.array([[3, 0, 1]])}, "'events' names frame 0 of sequence 3"),
        ({"events": np.array([[2, 3, 1]])}, "'events' names frame 3 of sequence 2"),
        ({"events": np.array([[-1, 0, 1]])}, "'events' names frame 0 of sequence -1"),
        ({"events": np.array([[0, 0, -1]])}, "'events' has the class -1"),
        ({"events": np.array([[0, 0, 2]])}, "label 2 of 'events' has no name"),
        ({**EDGES, "edges": np.zeros((2_000_000, 3), dtype=np.int64)}, "'edges' must be whole numbers of shape"),
        ({**EDGES, "edges": np.zeros((4, 2))}, "'edges' must be whole numbers of shape"),
        ({"fps": np.array(0)}, "'fps' must be a number above 0"),
        ({"fps": np.array(np.nan)}, "'fps' must be a number above 0"),
    ],
)
def test_classes_and_events_of_data_sets_are_checked(tmp_path, arrays, message):
    """faults.md 24: a list of a billion names was made; and events outside were left out without a word."""
    path = untrimmed(tmp_path / "data.npz", **arrays)
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        open_data(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("field", ["num_frames", "num_persons", "num_channels"])
def test_clips_of_a_billion_frames_or_people_are_refused(tmp_path, field):
    """faults.md 24: gigabytes were asked for, or minutes taken."""
    extractor = USDRLFeatureExtractor(normalization="none", x_axis=None)
    extractor.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: 10**9}))
    with pytest.raises(ValueError, match=f"{field} 1000000000.* is too large"):
        USDRLFeatureExtractor.from_pretrained(tmp_path)
    # The longest of today's.
    USDRLFeatureExtractor(num_frames=2000, num_persons=10)


def test_frames_per_second_are_above_zero(recordings, tmp_path):
    for fps in (0, -30, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="frames per second must be between"):
            prepare("folder", recordings, tmp_path / "out", reading=Reading(fps=fps))


def test_long_numbers_in_a_table_are_names(tmp_path):
    """faults.md 27: Python's words about 4300 digits."""
    np.save(tmp_path / "a.npy", np.ones((4, 25, 3)))
    table = tmp_path / "table.csv"
    table.write_text(f"file,label,subject\na.npy,{'1' * 5000},{'2' * 5000}\n")
    store, _ = prepare("csv", table, tmp_path / "store")
    assert store.class_names == ["1" * 5000] and store[0].subject == "2" * 5000


def test_room_for_embeddings_is_asked_before_they_are_written(recordings, tmp_path, monkeypatch):
    """Issue 17, before long work."""
    store, _ = prepare("folder", recordings, tmp_path / "store")
    assert expected_rows([tmp_path / "store"]) == 12 and expected_rows(store, per_frame=True) == 12 * 9
    assert expected_rows([tmp_path / "a.npy", tmp_path / "b.npy"]) == 2
    rows = [(sequence, np.ones(64, dtype=np.float32)) for sequence in store]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9000, 3001, 5999))
    with pytest.raises(OutputError, match="e.npz of 12 embeddings: it needs 0.0 MB of disk"):
        write_embeddings(rows, tmp_path / "e.npz", rows=12)
    assert not (tmp_path / "e.npz").exists() and not [*tmp_path.glob(".*")]
    assert write_embeddings(rows, tmp_path / "e.npz", rows=11) == 12


@pytest.mark.parametrize(
    "change",
    [
        *({"keypoints": [[1], [1, 2]]}, {"keypoints": "a"}, {"label": "wave"}, {"events": [[1, 2]]}),
        *({"image_shape": ["a", 1]}, {"image_shape": 3}, {"layout": "{}"}, {"layout": "no such"}, {"units": 5}),
    ],
)
def test_rows_of_other_data_are_refused_by_name(change):
    """faults.md 27: Python's and NumPy's words, and no row."""
    row = {"keypoints": np.ones((3, 25, 3)), "layout": "ntu25", "name": "row seven"}
    assert len(list(from_huggingface([row]))) == 1
    with pytest.raises(SkeletonFormatError, match="row seven: "):
        list(from_huggingface([{**row, **change}]))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_noticed_while_files_are_read_is_told_by_the_process_that_was_started(tmp_path, workers):
    """faults.md 9: also where other processes read."""
    person = {"keypoints": [float(number) for number in range(1, 52)], "score": 1.0}
    for name in ("a", "b"):
        folder = tmp_path / "raw" / name
        folder.mkdir(parents=True)
        rows = [{"image_id": f"{frame}.jpg", "category_id": 1, **person} for frame in range(6)]
        shifted = [{**row, "keypoints": [value + 500 for value in person["keypoints"]]} for row in rows]
        # Both have the number 0.
        (folder / f"{name}.json").write_text(json.dumps([row | {"idx": 0} for row in rows + shifted]))
    with pytest.warns(USDRLWarning) as told:
        store, _ = prepare("folder", tmp_path / "raw", tmp_path / "store", workers=workers)
    shared = [str(one.message) for one in told if "same track number in a frame" in str(one.message)]
    assert sorted(Path(message.split(":")[0]).name for message in shared) == ["a.json", "b.json"]
    assert store[0].num_persons == 2
