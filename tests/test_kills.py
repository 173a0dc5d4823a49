"""Kills, signals, full disks and concurrent writers: nothing half-written loads, and a repeated command succeeds.

faults.md 23, 26 and 27, and issue 17: kill tests.
"""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from usdrl_hub import MotionIndex, SkeletonStore, checkpoint_path, write_store
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.hub.convert import save_original
from usdrl_hub.loading import load_feature_extractor, load_model

from .conftest import write_ntu
from .helpers import disk, recipe
from .zygote import Ended, Running, Zygote

TINY = "usdrl/tiny-uiprmd"
KILLS = 25


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Recordings, a data set, an original checkpoint, a recipe and a model."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "raw").mkdir()
    random = np.random.default_rng(0)
    for number in range(24):
        name = f"S001C001P{number % 4 + 1:03}R{number // 4 + 1:03}A{number % 6 + 1:03}"
        write_ntu(folder / "raw" / f"{name}.skeleton", random.normal(size=(20, 1, 25, 3)))
    write_store(load_samples()[:24], folder / "store", load_samples().class_names)
    save_original(load_model(TINY), folder / "original.pth.tar")
    settings = recipe(epochs=2, save_epochs=0.5, batch_size=8)
    fields = {"model": settings.model, "extractor": settings.extractor, "window": settings.window}
    fields |= {"about": "Tiny.", "loss": "tpami", "views": settings.views, "training": vars(settings.training)}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(fields))
    return folder


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("zygote")
    # Their temporary folders, too, must be empty in the end.
    (scratch / "tmp").mkdir()
    own = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(scratch / "home"), "TMPDIR": str(scratch / "tmp")}
    zygote = Zygote(scratch, os.environ | own)
    yield zygote
    zygote.close()


def _loads(folder: Path) -> None:
    load_model(folder)
    load_feature_extractor(folder)


def _embeddings(file: Path) -> None:
    with np.load(file) as arrays:
        assert len(arrays["names"]) == len(arrays["embeddings"])


@dataclass(frozen=True)
class Command:
    """A command that makes something.

    Attributes:
        arguments: Its arguments, with `inputs` and the output put in.
        load: Takes what was made as its users do; raises where it is not whole.
        equal: Files that are the same bytes at every run.
        resumes: Whether a run that was stopped leaves what its repeat goes on with.
        name: Of the output.
        modules: What takes long to import.
    """

    arguments: tuple[str, ...]
    load: Callable[[Path], object]
    equal: tuple[str, ...] = ()
    resumes: bool = False
    name: str = "out"
    modules: tuple[str, ...] = ()

    def line(self, inputs: Path, output: Path) -> list[str]:
        return [part.format(inputs=inputs, output=output, samples=sample_path()) for part in self.arguments]


COMMANDS = {
    "prepare": Command(
        ("prepare", "ntu60", "{inputs}/raw", "--output-dir", "{output}"), SkeletonStore.open, ("*",), resumes=True
    ),
    "finetune": Command(
        ("finetune", "{inputs}/store", "--epochs", "1", "--output-dir", "{output}"), _loads, resumes=True
    ),
    "evaluate": Command(
        ("evaluate", TINY, "--benchmark", "linear/ui_prmd_vicon", "--tiny", "--output-dir", "{output}"), _loads
    ),
    "pretrain": Command(
        ("pretrain", "{inputs}/store", "--recipe", "{inputs}/recipe.yaml", "--output-dir", "{output}"),
        _loads,
        ("model.safetensors",),
        resumes=True,
    ),
    "convert": Command(
        ("convert", "{inputs}/original.pth.tar", "--include-code", "--num-persons", "1", "--output-dir", "{output}"),
        _loads,
        ("*",),
    ),
    "export": Command(
        ("export", TINY, "--output-dir", "{output}"),
        lambda folder: onnx.load(str(folder / "model.onnx")),
        modules=("onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch.onnx", "transformers.exporters"),
    ),
    "embed": Command(
        ("embed", "{samples}", "--batch-size", "8", "--output", "{output}"), _embeddings, name="out.npz", equal=("*",)
    ),
    "index": Command(("index", "{inputs}/store", "--output", "{output}"), MotionIndex.open, ("*",), resumes=True),
}


def contents(path: Path) -> dict[str, bytes]:
    """Files at or below a path by name."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def tidy(zygote: Zygote, around: Path, *names: str) -> None:
    """Nothing temporary is left, neither beside the output nor in it nor where the system has it."""
    assert sorted(path.name for path in around.iterdir()) == sorted(names)
    assert not [path for path in around.rglob(".*")]
    assert not [path for path in (zygote.scratch / "tmp").iterdir() if path.name.startswith("usdrl-")]


@dataclass
class Trial:
    """A command, and what it makes where nobody disturbs it."""

    command: Command
    zygote: Zygote
    inputs: Path
    whole: dict[str, bytes]
    steps: int
    folder: Path

    def line(self, output: Path) -> list[str]:
        return self.command.line(self.inputs, output)

    @cached_property
    def seconds(self) -> float:
        """How long it takes."""
        timed = self.folder / "timed" / self.command.name
        ended = self.zygote.run(*self.line(timed))
        assert ended.status == 0 and contents(timed).keys() == self.whole.keys()
        return ended.seconds

    def is_whole(self, output: Path) -> bool:
        """Whether all is there; refuses what is there in part and can be loaded all the same."""
        found = contents(output) if output.exists() else {}
        shown = {name for name in found if not name.startswith(".") and not name.startswith("checkpoint-")}
        wanted = {name for name in self.whole if not name.startswith("checkpoint-")}
        if shown >= wanted and self._same(found):
            self.command.load(output)
            return True
        if output.exists():
            with pytest.raises(Exception):  # noqa: B017 - whatever a reader says of what is not whole
                self.command.load(output)
        return False

    def _same(self, found: dict[str, bytes]) -> bool:
        for pattern in self.command.equal:
            names = self.whole if pattern == "*" else [pattern]
            if any(found[name] != self.whole[name] for name in names):
                return False
        return True

    def repeat(self, output: Path) -> None:
        """Run it where a process died: it succeeds, and leaves what an undisturbed one leaves."""
        ended = self.zygote.run(*self.line(output))
        assert ended.status == 0, ended.said
        found = contents(output)
        # A signal leaves a checkpoint of its step.
        steps = [{name for name in made if not name.startswith("checkpoint-")} for made in (found, self.whole)]
        assert steps[0] == steps[1] and self._same(found)
        self.command.load(output)


def trial(name: str, zygote: Zygote, inputs: Path, folder: Path) -> Trial:
    command = COMMANDS[name]
    zygote.load(*command.modules)
    output = folder / "whole" / command.name
    watched = zygote.run(*command.line(inputs, output), watched=output.parent)
    assert watched.status == 0, watched.said
    steps = int(watched.said.rsplit("steps: ", 1)[1])
    whole = contents(output)
    return Trial(command, zygote, inputs, whole, steps, folder)


def kill_at(trial: Trial, output: Path, seconds: float) -> Ended:
    running = trial.zygote.start(*trial.line(output))
    time.sleep(max(0.0, running.begun + seconds - time.monotonic()))
    running.send(signal.SIGKILL)
    return running.wait()


def check_kills(trial: Trial, folder: Path, kills: list[Callable[[Path], Ended]]) -> int:
    """Kill it at each moment, every other time in an empty folder that is there already; how many came in time."""
    killed = 0
    for number, kill in enumerate(kills):
        around = folder / f"kill-{number}"
        output = around / trial.command.name
        around.mkdir()
        if number % 2 and trial.command.name == "out":
            output.mkdir()
        elif number % 4 == 1:
            # An older result stays until the new one is whole.
            output.write_bytes(trial.whole[trial.command.name])
        ended = kill(output)
        killed += ended.status == -signal.SIGKILL
        if not trial.is_whole(output) or trial.command.name != "out":
            trial.repeat(output)
        elif ended.status == -signal.SIGKILL:
            # Whole, and killed before its end: the repeat only says so, and clears up.
            assert trial.zygote.run(*trial.line(output)).status in (0, 2)
        tidy(trial.zygote, around, trial.command.name)
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_moment_it_leaves_nothing_wrong_and_the_repeat_succeeds(name, zygote, inputs, tmp_path):
    """faults.md 26."""
    made = trial(name, zygote, inputs, tmp_path)
    random = np.random.default_rng(list(COMMANDS).index(name))
    moments = (np.arange(KILLS) + random.random(KILLS)) / KILLS * made.seconds

    def killing(seconds: float) -> Callable[[Path], Ended]:
        return lambda output: kill_at(made, output, seconds)

    killed = check_kills(made, tmp_path, [killing(seconds) for seconds in moments])
    assert killed >= KILLS // 2


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_step_on_the_disk_it_leaves_nothing_wrong(name, zygote, inputs, tmp_path):
    """faults.md 26: at what it makes, renames and deletes, which takes no time."""
    made = trial(name, zygote, inputs, tmp_path)
    chosen = np.unique(np.linspace(1, made.steps, 12).round().astype(int)).tolist()
    check_steps(made, tmp_path, [*chosen, made.steps - 1])


def check_steps(made: Trial, folder: Path, steps: list[int]) -> None:
    def killing(step: int) -> Callable[[Path], Ended]:
        return lambda output: made.zygote.run(*made.line(output), watched=output.parent, last=step)

    assert check_kills(made, folder, [killing(step) for step in steps]) >= len(steps) - 1


@pytest.mark.parametrize(
    "name", ["prepare", pytest.param("embed", marks=pytest.mark.long), pytest.param("index", marks=pytest.mark.slow)]
)
def test_killed_now_and_then_it_leaves_nothing_wrong(name, zygote, inputs, tmp_path):
    """faults.md 26."""
    made = trial(name, zygote, inputs, tmp_path)
    check_steps(made, tmp_path, [made.steps // 2, made.steps - 1])


def stopped_with_a_lock(running: Running, folder: Path) -> bool:
    """Stop the process where it holds a lock. A lock's file is made a moment before it is locked."""
    for path in folder.rglob("*.lock"):
        running.send(signal.SIGSTOP)
        with suppress(FileNotFoundError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        running.send(signal.SIGCONT)
    return False


@pytest.mark.parametrize(
    "name",
    [
        "prepare",
        pytest.param("embed", marks=pytest.mark.long),
        *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name not in ("prepare", "embed")),
    ],
)
def test_of_two_at_once_one_is_told(name, zygote, inputs, tmp_path):
    """faults.md 23."""
    command = COMMANDS[name]
    output = tmp_path / "made" / command.name
    first = zygote.start(*command.line(inputs, output))
    # Held until the second has ended, however the system shares its processors.
    while not stopped_with_a_lock(first, tmp_path):
        assert time.monotonic() < first.begun + 100
        time.sleep(0.001)
    second = zygote.run(*command.line(inputs, output))
    first.send(signal.SIGCONT)
    ended = [first.wait(), second]
    assert [one.status for one in ended] == [0, 2], [one.said for one in ended]
    assert str(output) in ended[1].complaint()
    command.load(output)
    tidy(zygote, output.parent, command.name)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_ends_it_cleanly(name, number, zygote, inputs, tmp_path):
    made = trial(name, zygote, inputs, tmp_path)
    stopped = 0
    for share in (0.1, 0.3, 0.6):
        around = tmp_path / f"{share}"
        output = around / made.command.name
        around.mkdir()
        running = zygote.start(*made.line(output))
        time.sleep(share * made.seconds)
        running.send(number)
        ended = running.wait()
        if ended.status == 0:
            continue
        stopped += 1
        if number == signal.SIGINT and made.command.arguments[0] == "finetune" and made.is_whole(output):
            # It keeps the best weights so far.
            assert ended.status == 130
            tidy(zygote, around, made.command.name)
            continue
        assert ended.status in (128 + number, 130), ended.said
        ended.complaint()
        assert not made.is_whole(output)
        if not made.command.resumes:
            tidy(zygote, around)
        made.repeat(output)
        tidy(zygote, around, made.command.name)
    assert stopped


INTERRUPTED_IMPORT = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupts(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch._prims" and not hasattr(self, "sent"):
            self.sent = True
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupts())
from usdrl_hub.cli import main
main(["embed", sys.argv[1], "--output", sys.argv[2]])
"""


def test_an_interrupt_during_the_import_of_torch_ends_it_cleanly(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, str(sample_path()), str(tmp_path / "out.npz")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "usdrl: interrupted\n")


@contextmanager
def _limited(folder: Path):
    # What the command says goes to a file, too.
    yield {"most": 10_000}


@contextmanager
def _full(folder: Path):
    with disk(folder, "size=24k"):
        yield {}


@contextmanager
def _read_only(folder: Path):
    with disk(folder, "size=1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield {}


@pytest.mark.slow
@pytest.mark.parametrize("how", [_limited, _full, _read_only], ids=["file size", "full disk", "read-only"])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_cannot_be_written_is_told_and_leaves_nothing(name, how, zygote, inputs, tmp_path):
    """faults.md 27."""
    command = COMMANDS[name]
    around = tmp_path / "disk"
    around.mkdir()
    with how(around) as limits:
        output = around / command.name
        ended = zygote.run(*command.line(inputs, output), **limits)
        assert ended.status == 2, ended.said
        said = ended.complaint()
        # Or the disk is asked for room before the work.
        reasons = ("cannot be written", "MB of disk", *map(os.strerror, (errno.ENOSPC, errno.EFBIG)))
        assert str(output) in said and any(reason in said for reason in reasons), said
        assert not output.exists() or command.resumes
        if not command.resumes:
            tidy(zygote, around)


@pytest.mark.slow
def test_an_older_result_outlives_a_full_disk(zygote, inputs, tmp_path):
    command = COMMANDS["embed"]
    output = tmp_path / command.name
    output.write_bytes(b"older")
    assert zygote.run(*command.line(inputs, output), most=2000).status == 2
    assert output.read_bytes() == b"older"
    tidy(zygote, tmp_path, command.name)


@pytest.fixture
def model(tmp_path):
    """A model's folder, for publishing."""
    return shutil.copytree(checkpoint_path(TINY), tmp_path / "model")


def files_of(hub, name) -> dict[str, bytes]:
    return {file: content for file, content in hub.files(name).items() if file != ".gitattributes"}


@pytest.mark.slow
def test_a_killed_push_leaves_the_whole_commit_or_none(hub, zygote, model, tmp_path):
    token = {"HF_TOKEN": hub.token}
    ended = zygote.run("push", model, "ada/whole", environment=token)
    assert ended.status == 0, ended.said
    whole = files_of(hub, "ada/whole")
    names = [path.name for path in model.iterdir()]
    random = np.random.default_rng(0)
    killed = 0
    for number in range(KILLS):
        name = f"ada/kill-{number}"
        running = zygote.start("push", model, name, environment=token)
        time.sleep((number + random.random()) / KILLS * ended.seconds)
        running.send(signal.SIGKILL)
        killed += running.wait().status == -signal.SIGKILL
        # What it has sent already may still be on its way.
        time.sleep(0.2)
        there = files_of(hub, name) if name in hub.repos else {}
        assert not there or there.keys() == whole.keys()
        again = zygote.run("push", model, name, environment=token)
        assert again.status == 0, again.said
        assert files_of(hub, name).keys() == whole.keys() and len(hub.commits(name)) == 2
        assert files_of(hub, name)["model.safetensors"] == whole["model.safetensors"]
    assert killed >= KILLS // 2
    tidy(zygote, model, *names)


@pytest.mark.slow
def test_of_two_pushes_at_once_one_makes_the_commit(hub, zygote, model):
    token = {"HF_TOKEN": hub.token}
    running = [zygote.start("push", model, "ada/two", environment=token) for _ in range(2)]
    ended = [one.wait() for one in running]
    assert {one.status for one in ended} <= {0, 2} and 0 in {one.status for one in ended}, ended
    for one in ended:
        assert one.status == 0 or one.complaint()
    assert "model.safetensors" in hub.files("ada/two")
    assert len(hub.commits("ada/two")) == 2
