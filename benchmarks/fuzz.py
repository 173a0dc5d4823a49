"""Read 100 000 damaged inputs of every family of readers (``make fuzz``); figures and seed go to ``fuzz.json``.

    python benchmarks/fuzz.py                                # continues; --fresh starts again
    python benchmarks/fuzz.py --family csv --only 12345      # one input, with its traceback

Each family is read by its own process with a limit of 2 GB, which is restarted if it dies; the input at which it died
or hung is a wrong outcome. ``tests/fuzzing.py`` defines inputs and right outcomes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

# Memory of a process, beyond what it has before the first input.
MOST_BYTES = 2 << 30
# Seconds in which a process has to get through one input; its own limit ends what takes processor time.
MOST_SILENCE = 120
# What a process writes while it works, so that nothing is lost when it dies. "in_flight" is the input that it reads.
FIELDS = (
    *("next", "in_flight", "results", "errors", "wrong", "nanoseconds", "most_memory", "most_memory_number"),
    *("memory_permille", "memory_permille_number", "time_permille", "time_permille_number"),
)


class State:
    """Progress of a family, in a file with which a restarted process continues."""

    def __init__(self, folder: Path, family: str, seed: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{family}-{seed}.state"
        self.list = folder / f"{family}-{seed}.jsonl"
        if not self.path.exists():
            np.zeros(len(FIELDS), np.int64).tofile(self.path)
        self.values = np.memmap(self.path, np.int64, "r+", shape=len(FIELDS))

    def __getitem__(self, field: str) -> int:
        return int(self.values[FIELDS.index(field)])

    def __setitem__(self, field: str, value: int) -> None:
        self.values[FIELDS.index(field)] = value

    def add(self, field: str, value: int = 1) -> None:
        """Add to a count."""
        self[field] += value

    def raise_to(self, field: str, value: int, number: int) -> None:
        """Keep the largest value of a figure and the input that had it."""
        if value > self[field]:
            self[field], self[f"{field}_number"] = value, number

    def note(self, number: int, kind: str, detail: str) -> None:
        """Record a wrong outcome."""
        self.add("wrong")
        with open(self.list, "a") as file:
            file.write(json.dumps({"number": number, "outcome": kind, "detail": detail}) + "\n")

    @property
    def noted(self) -> list[dict]:
        """The wrong outcomes so far."""
        if not self.list.exists():
            return []
        return [json.loads(line) for line in self.list.read_text().splitlines()]

    def forget(self) -> None:
        """Reset the progress."""
        self.values[:] = 0
        self.list.unlink(missing_ok=True)


def quieten() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def work(name: str, seed: int, inputs: int, folder: Path) -> None:
    """Read the remaining inputs of a family."""
    import resource

    from tests.fuzz_families import family
    from tests.fuzzing import MOST_MEMORY, MOST_SECONDS, bench, make_input

    quieten()
    state, subject = State(folder, name, seed), family(name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with bench(subject) as place:
        pages = Path("/proc/self/statm").read_text().split()
        most = int(pages[5]) * resource.getpagesize() + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        while (number := state["next"]) < inputs:
            state["in_flight"] = number
            start = time.perf_counter_ns()
            outcome = place.read(make_input(subject, seed, number))
            state.add("nanoseconds", time.perf_counter_ns() - start)
            if outcome.is_right:
                state.add("results" if outcome.kind == "result" else "errors")
            else:
                state.note(number, outcome.kind, outcome.detail)
            state.raise_to("most_memory", outcome.memory, number)
            memory = MOST_MEMORY[0] + MOST_MEMORY[1] * outcome.size
            seconds = MOST_SECONDS[0] + MOST_SECONDS[1] * outcome.size
            state.raise_to("memory_permille", round(1000 * outcome.memory / memory), number)
            state.raise_to("time_permille", round(1000 * outcome.seconds / seconds), number)
            state["next"] = number + 1


def run(name: str, seed: int, inputs: int, folder: Path) -> State:
    """Read the inputs of a family in a separate process, restarted if it dies."""
    from usdrl_hub.files import locked

    with locked(folder / f"{name}-{seed}.state"):
        return _run(name, seed, inputs, folder)


def _run(name: str, seed: int, inputs: int, folder: Path) -> State:
    state = State(folder, name, seed)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", "--family", name, "--seed", str(seed), "--inputs", str(inputs)]
    while state["next"] < inputs:
        before = state["next"]
        with open(folder / f"{name}-{seed}.log", "wb") as log:
            process = subprocess.Popen([*command, "--state", str(folder)], stdout=log, stderr=log, env=environment)
            silence, last = 0.0, -1
            while process.poll() is None:
                time.sleep(0.5)
                silence, last = (silence + 0.5, last) if state["next"] == last else (0.0, state["next"])
                if silence > MOST_SILENCE:
                    process.send_signal(signal.SIGKILL)
        if process.returncode == 0:
            continue
        if state["next"] == before and state["in_flight"] != before:
            # It did not come to its first input.
            raise SystemExit(f"{name}: {Path(log.name).read_text()[-2000:]}")
        number = state["next"]
        state.note(number, "hung" if silence > MOST_SILENCE else "died", f"exit status {process.returncode}")
        state["next"] = number + 1
    return state


def read_again(name: str, seed: int, folder: Path) -> None:
    """Read the inputs with wrong outcomes again, after a fix, and update the counts."""
    from tests.fuzz_families import family
    from tests.fuzzing import bench, make_input

    quieten()
    state, subject = State(folder, name, seed), family(name)
    noted = state.noted
    state.list.unlink(missing_ok=True)
    state["wrong"] = 0
    with bench(subject) as place:
        for entry in noted:
            outcome = place.read(make_input(subject, seed, entry["number"]))
            if outcome.is_right:
                state.add("results" if outcome.kind == "result" else "errors")
            else:
                state.note(entry["number"], outcome.kind, outcome.detail)


def figures(state: State) -> dict:
    count = state["next"]
    return {
        "inputs": count,
        "results": state["results"],
        "errors": state["errors"],
        "wrong": state["wrong"],
        "wrong_inputs": state.noted[:20],
        "inputs_per_second": round(count / max(state["nanoseconds"] / 1e9, 1e-9)),
        "most_megabytes": round(state["most_memory"] / (1 << 20), 1),
        "most_memory_number": state["most_memory_number"],
        "share_of_memory_limit": state["memory_permille"] / 1000,
        "share_of_time_limit": state["time_permille"] / 1000,
        "slowest_number": state["time_permille_number"],
    }


def record(path: Path, seed: int, folder: Path, names: tuple[str, ...]) -> None:
    """Write the figures of all families."""
    from usdrl_hub.files import new_file

    before = json.loads(path.read_text()) if path.exists() else {}
    # Families that another checkout has read stay, if their inputs were the same.
    families = before["families"] if before.get("seed") == seed else {}
    found = {name: State(folder, name, seed) for name in names if (folder / f"{name}-{seed}.state").exists()}
    content = {
        "seed": seed,
        "memory_limit": "64 MB + 50 bytes for each byte of the input",
        "time_limit": "5 s + 1 s for each MB of the input, of processor time",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "families": families | {name: figures(state) for name, state in found.items() if state["next"]},
    }
    path.unlink(missing_ok=True)
    with new_file(path) as file:
        file.write_text(json.dumps(content, indent=1) + "\n")


def show(name: str, seed: int, number: int, keep: Path | None) -> None:
    """Read one input and print its outcome."""
    from tests.fuzz_families import family
    from tests.fuzzing import bench, make_input

    quieten()
    subject = family(name)
    files = make_input(subject, seed, number)
    for file, content in files.items():
        print(f"{file}: {len(content)} bytes, {content[:300]!r}")
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / file).write_bytes(content)
    with bench(subject) as place:
        print(place.read(files))
        try:
            subject.read(place.folder / subject.target if subject.target else place.folder)
        except Exception:
            traceback.print_exc()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", help="only this one; may be given several times")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="read this input and print what becomes of it")
    parser.add_argument("--keep", type=Path, help="with --only: write its files here")
    parser.add_argument("--fresh", action="store_true", help="begin again")
    parser.add_argument("--again", action="store_true", help="first read the inputs with wrong outcomes again")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--state", type=Path, default=ROOT / "benchmarks" / ".fuzz")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "fuzz.json")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.family[0], options.seed, options.inputs, options.state)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    if options.only is not None:
        return show(options.family[0], options.seed, options.only, options.keep)

    from tests.fuzz_families import FAMILIES
    from usdrl_hub.files import locked

    names = options.family or FAMILIES
    for name in names if options.fresh else ():
        state = State(options.state, name, options.seed)
        with locked(state.path):
            state.forget()
    for name in names if options.again else ():
        read_again(name, options.seed, options.state)

    def one(name: str) -> int:
        state = run(name, options.seed, options.inputs, options.state)
        told = {key: value for key, value in figures(state).items() if key != "wrong_inputs"}
        print(name, told, *state.noted[:10], sep="\n    ", flush=True)
        return state["wrong"]

    with ThreadPoolExecutor(options.processes) as pool:
        wrong = []
        for number in pool.map(one, names):
            wrong.append(number)
            record(options.output, options.seed, options.state, FAMILIES)
    raise SystemExit(f"{sum(wrong)} wrong outcomes" if any(wrong) else 0)


if __name__ == "__main__":
    main()
