"""Damaged inputs of every family of readers give a result or one of our errors; `make fuzz` reads 100 000 of each."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from usdrl_hub.errors import LONGEST_SENTENCE, SkeletonFormatError, USDRLError

from . import fuzzing
from .fuzz_families import FAMILIES, LONG, family
from .fuzzing import Family, any_bytes, bench, make_input, make_long_input

SEED = 0


@pytest.mark.parametrize("name", FAMILIES)
def test_damaged_inputs_give_a_result_or_one_error_of_ours(name):
    """faults.md 22, 24, 27, 29 and their kind."""
    if name == "pose":
        pytest.importorskip("pose_format", reason="needs the extra 'pose'")
    subject = family(name)
    kinds, wrong = Counter(), []
    with bench(subject) as place:
        for number in range(subject.in_tests):
            outcome = place.read(make_input(subject, SEED, number))
            kinds[outcome.kind] += 1
            if not outcome.is_right:
                wrong.append(f"{name} {number}: {outcome.kind}: {outcome.detail}")
    assert not wrong, "\n".join(wrong[:10])
    # Damage that is always noticed, or never, tests little.
    assert kinds["result"] and kinds["error"], kinds


@pytest.mark.parametrize("name", LONG)
def test_long_inputs_stay_within_memory_and_time(name):
    """faults.md 24."""
    subject = family(name)
    with bench(subject) as place:
        for number in range(8):
            outcome = place.read(make_long_input(subject, SEED, number, 1_000_000))
            assert outcome.is_right, f"{number}: {outcome}"


def _digest(name: str) -> str:
    digest = hashlib.sha256()
    for number in range(40):
        for file, content in sorted(make_input(family(name), SEED, number).items()):
            digest.update(file.encode() + content)
    return digest.hexdigest()


def test_an_input_follows_from_its_number_alone():
    names = ("csv", "npz-data-set", "pyskl", "recipe")
    program = f"from tests.test_fuzz import _digest; print(*[_digest(name) for name in {names}])"
    root = Path(__file__).parent.parent
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert other.stdout.split()[-len(names) :] == [_digest(name) for name in names]
    assert make_input(family("csv"), 0, 1) != make_input(family("csv"), 1, 1)


def _takes_memory(path):
    # More than the allocator may have kept of what earlier tests have freed, which no limit counts again.
    assert path.read_bytes() == b"good" or np.ones(2**28).any()


def _hides_a_lack_of_memory(path):
    try:
        np.empty(10**9)
    except Exception:
        raise SkeletonFormatError(f"{path}: it is cut") from None


def _never_ends(path):
    while True:
        try:
            sum(range(1000))
        except Exception:
            continue


def _raises(error, path):
    raise error(path)


@pytest.mark.parametrize(
    "read, kind",
    [
        (lambda path: None, "result"),
        (lambda path: _raises(lambda p: SkeletonFormatError(f"{p}: no"), path), "error"),
        (lambda path: _raises(lambda p: USDRLError("no"), path), "the error names no file"),
        (lambda path: _raises(lambda p: ValueError(f"{p}: no"), path), "ValueError"),
        (lambda path: _raises(lambda p: RecursionError(p), path), "RecursionError"),
        (lambda path: fuzzing.check_sequence(np.ones(3)), "no result"),
        (_never_ends, "too slow"),
        pytest.param(_takes_memory, "MemoryError", marks=pytest.mark.skipif("sys.platform != 'linux'")),
        pytest.param(_hides_a_lack_of_memory, "too much memory", marks=pytest.mark.skipif("sys.platform != 'linux'")),
    ],
)
def test_every_wrong_outcome_is_seen(monkeypatch, read, kind):
    monkeypatch.setattr(fuzzing, "MOST_SECONDS", (1.0, 0.0))
    subject = Family("own", [{"a.txt": b"good"}], "a.txt", lambda path: None, [any_bytes()])
    with bench(subject) as place:
        place.family = Family("own", subject.seeds, "a.txt", read, subject.mutations)
        assert place.read({"a.txt": b"bad"}).kind == kind


def test_errors_are_one_printable_line_of_300_characters():
    """faults.md 28, 29."""
    for text in ("a.csv, line 3: '" + "9" * 5000 + "' is no number: mend it", "a.npy: \x1b[31m\x07\nred"):
        for kind in (USDRLError, SkeletonFormatError):
            told = str(kind(text))
            assert told.isprintable() and len(told) <= LONGEST_SENTENCE
            assert told.startswith(text[:5]) and told[-4:] in (": mend it"[-4:], "nred"[-4:])
    assert str(USDRLError("short: \u00e9")) == "short: \u00e9"
