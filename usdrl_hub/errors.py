"""The errors of this package: types with fields, so that no caller has to read their English.

This file also ships as remote code, so it imports nothing of the package.
"""

from __future__ import annotations

import warnings

# What an error tells at most: names of files, classes and tensors come from files that anybody may have written.
LONGEST_SENTENCE = 300


class USDRLError(ValueError):
    """Wrong input of any kind; the message says what, where, and what to do.

    As text it is one printable line of at most `LONGEST_SENTENCE` characters, whatever names and values went into it.
    """

    def __str__(self) -> str:
        return _clipped(printable(super().__str__()), LONGEST_SENTENCE)


class SkeletonFormatError(USDRLError):
    """Input that is not a usable skeleton sequence; the message names the file and the place."""


class EmptySequenceError(SkeletonFormatError):
    """A recording, or a part of one, in which no person is seen."""


class NonFiniteError(USDRLError):
    """Weights, outputs, losses or scores that are NaN or infinite."""


class TrainingDivergedError(NonFiniteError):
    """Training that cannot go on, because its loss, a gradient or a weight is NaN or infinite.

    Attributes:
        step: The step that could not be made, from 1; None where there are none.
        learning_rate: What it was then, if known.
        checkpoint: The last good checkpoint of the run; None where there is none.
    """

    def __init__(
        self,
        message: str,
        step: int | None = None,
        learning_rate: float | None = None,
        checkpoint: str | None = None,
    ):
        super().__init__(message)
        self.step, self.learning_rate, self.checkpoint = step, learning_rate, checkpoint


class PretrainingCollapseError(TrainingDivergedError):
    """Pretraining whose loss left its range, or whose features stopped telling clips apart."""


class CheckpointLoadError(USDRLError):
    """A checkpoint that cannot be found or loaded; the message names it and says what to do.

    Attributes:
        kind: "missing" where there is none of that name, "hub" where the hub failed or refused, else "damaged".
        hint: How it is made, or which name was meant, as a sentence; empty where nothing is known.
    """

    def __init__(self, message: str, kind: str = "damaged", hint: str = ""):
        super().__init__(message)
        self.kind, self.hint = kind, hint


class CheckpointNotFoundError(CheckpointLoadError, OSError):
    """A checkpoint of this project whose weights are not here; `from_pretrained` of transformers raises OSError."""


class OutputError(USDRLError, OSError):
    """Something that cannot be written; the message names it and says why."""


class FolderInUseError(USDRLError):
    """Something that another process is writing; the message names the host and the process."""


# What reading a file of unknown origin may raise, besides errors of ours: from the system, NumPy, JSON and Python.
UNREADABLE = (ValueError, OSError, OverflowError, RecursionError)


def unreadable(error: BaseException, where: str) -> SkeletonFormatError:
    """The error of a file that cannot be read, whatever its reader raised, with the file's name."""
    if isinstance(error, SkeletonFormatError):
        return error
    sentence = one_sentence(error)
    return SkeletonFormatError(sentence if sentence.startswith(where) else f"{where}: it cannot be read: {sentence}")


class USDRLWarning(UserWarning):
    """What a user should know and that stops nothing: a guess, a repair, something left out.

    The command prints the first of a kind, and how many more there were.

    Attributes:
        kind: What such warnings have in common, in a few words, such as "people left out".
    """

    def __init__(self, message: str, kind: str = ""):
        super().__init__(message)
        self.kind = kind or message


def notice(message: str, kind: str = "", stacklevel: int = 2) -> None:
    """Warn of what stops nothing: the one way of this package to do so, see `USDRLWarning`.

    Args:
        message: One sentence: what, where (file, sequence), and which option changes it.
        kind: What all such warnings have in common, without names of files, such as "people left out"; the message
            where empty.
        stacklevel: Whose line is named, as for `warnings.warn`: 2 is that of the caller.
    """
    warnings.warn(USDRLWarning(message, kind), stacklevel=stacklevel + 1)


def printable(text: str) -> str:
    r"""Text of unknown origin for a terminal or a table: one line, control characters as ``\x1b`` and the like."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_sentence(error: BaseException, longest: int = LONGEST_SENTENCE) -> str:
    """What an error says, on one printable line of at most `longest` characters; its middle is left out beyond."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        # In the order of the others, and without the system's number.
        text = f"{error.filename}: {error.strerror}"
    return _clipped(printable(" ".join(text.split())) or type(error).__name__, longest)


def _clipped(text: str, longest: int) -> str:
    """The beginning, which names the file, and the end, which says what to do."""
    if len(text) <= longest:
        return text
    head = longest * 2 // 3
    return f"{text[:head]} ... {text[len(text) - (longest - head - 5) :]}"
