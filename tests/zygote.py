"""Fast subprocesses for tests: forked from a process with all imports done.

A command needs seconds to import; tests that start and kill hundreds of commands fork instead.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, negative for a signal, what it said, and after how many seconds."""

    status: int
    said: str
    seconds: float

    def complaint(self) -> str:
        """The one sentence in which it told what is wrong."""
        assert "Traceback" not in self.said and "Error:" not in self.said, self.said
        # A bar of progress may stand on its line.
        lines = re.findall(r"usdrl: (?!note: ).*", self.said)
        assert len(lines) == 1, self.said
        return lines[0]


class Zygote:
    """A process that forks others.

    Args:
        scratch: Folder for what they say.
        environment: Of all of them.
    """

    def __init__(self, scratch: Path, environment: dict[str, str]):
        self.scratch = scratch
        self.count = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"],
            cwd=PACKAGE,
            env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._ask() == "ready"

    def _ask(self, **request):
        assert self.process.stdin is not None and self.process.stdout is not None
        if request:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def load(self, *modules: str) -> None:
        """Import what commands need that not all of them do."""
        self._ask(modules=modules)

    def start(self, *arguments, environment=None, most=None, watched=None, last=None) -> "Running":
        """Begin a command.

        Args:
            *arguments: Of ``usdrl``.
            environment: Further variables.
            most: Bytes that a file may have (RLIMIT_FSIZE).
            watched: A folder: what is made, renamed and deleted below it is counted.
            last: Kill the process at that one of these.
        """
        self.count += 1
        said = self.scratch / f"{self.count}.txt"
        request = {"arguments": list(map(str, arguments)), "said": str(said), "environment": environment or {}}
        pid = self._ask(**request, most=most, watched=watched and str(watched), last=last)
        return Running(self, pid, said, time.monotonic())

    def run(self, *arguments, **how) -> Ended:
        """Run a command to its end."""
        return self.start(*arguments, **how).wait()

    def close(self) -> None:
        """End."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True)
class Running:
    """A command that runs."""

    zygote: Zygote
    pid: int
    said: Path
    begun: float

    def send(self, number: int) -> None:
        """Send a signal to the process and all that it has started."""
        os.killpg(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end."""
        status, ended = self.zygote._ask(wait=self.pid)
        return Ended(status, self.said.read_text("utf-8", "replace"), ended - self.begun)


def _main() -> None:
    from usdrl_hub import cli

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "modules" in request:
            for name in request["modules"]:
                __import__(name)
            answer = True
        elif "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = [os.waitstatus_to_exitcode(status), time.monotonic()]
        elif not (answer := os.fork()):
            _run(cli.main, request)
        print(json.dumps(answer), flush=True)


def _run(main, request) -> None:
    import resource

    os.setsid()
    # Where the tests were started in the background, interrupts are ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT)
    for number, place in ((0, os.open(os.devnull, os.O_RDONLY)), (1, said), (2, said)):
        os.dup2(place, number)
    os.environ.update(request["environment"])
    if request["most"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["most"], request["most"]))
    steps = _count(request["watched"], request["last"]) if request["watched"] else None
    status = 1
    try:
        main(request["arguments"])
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    try:
        if steps is not None:
            print(f"steps: {steps[0]}", flush=True)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Not the end of an ordinary process: it would wait for onnxruntime's threads, which are not in a fork.
        os._exit(status)


def _count(folder: str, last: int | None) -> list[int]:
    """Count what is done to files below a folder; die at one of them."""
    count = [0]
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    events = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod"}

    def seen(event, arguments):
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & writing or event in events:
            place = arguments[0]
            if isinstance(place, bytes):
                place = os.fsdecode(place)
            if isinstance(place, str | os.PathLike) and str(place).startswith(folder):
                count[0] += 1
                if count[0] == last:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(seen)
    return count


if __name__ == "__main__":
    _main()
