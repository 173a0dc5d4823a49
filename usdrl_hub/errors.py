"""Errors and warnings of this package. Callers distinguish them by type and fields, not by message.

This file also ships as remote code, so it imports nothing of the package.
"""

from __future__ import annotations

import warnings

# Longest message in characters. Messages quote names from untrusted files, which may be of any length.
LONGEST_SENTENCE = 300


class USDRLError(ValueError):
    """Invalid input of any kind; the message says what is wrong, where, and how to fix it.

    Its text is one printable line of at most `LONGEST_SENTENCE` characters, whatever names and values it quotes.
    """

    def __str__(self) -> str:
        return _clipped(printable(super().__str__()), LONGEST_SENTENCE)


class SkeletonFormatError(USDRLError):
    """Input that is not a usable skeleton sequence; the message names the file and the line, frame or array."""


class EmptySequenceError(SkeletonFormatError):
    """A recording or clip without any visible person."""


class NonFiniteError(USDRLError):
    """Weights, outputs, losses or scores are NaN or infinite."""


class TrainingDivergedError(NonFiniteError):
    """Training stopped: its loss, a gradient or a weight is NaN or infinite.

    Attributes:
        step: The failed optimisation step, from 1; None for training without steps.
        learning_rate: Learning rate at that step, if known.
        checkpoint: Last good checkpoint of the run, or None.
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
    """Pretraining collapsed: its loss left its range, or all clips have nearly the same features."""


class CheckpointLoadError(USDRLError):
    """A checkpoint that cannot be found or loaded; the message names it and says what to do.

    Attributes:
        kind: "missing" if no checkpoint has the name, "hub" if the hub failed or refused, else "damaged".
        hint: How to make it or which similar names exist, as a sentence; may be empty.
    """

    def __init__(self, message: str, kind: str = "damaged", hint: str = ""):
        super().__init__(message)
        self.kind, self.hint = kind, hint


class CheckpointNotFoundError(CheckpointLoadError, OSError):
    """A known checkpoint without available weights; an OSError, too, as `from_pretrained` of transformers raises."""


class OutputError(USDRLError, OSError):
    """A file or folder that cannot be written; the message names it and the reason."""


class FolderInUseError(USDRLError):
    """A file or folder that another process is writing; the message names the host and the process."""


# What the operating system, NumPy, JSON and Python may raise on reading a file of unknown origin.
UNREADABLE = (ValueError, OSError, OverflowError, RecursionError)


def unreadable(error: BaseException, where: str) -> SkeletonFormatError:
    """Any error of a reader as a `SkeletonFormatError` that names the file."""
    if isinstance(error, SkeletonFormatError):
        return error
    sentence = one_sentence(error)
    return SkeletonFormatError(sentence if sentence.startswith(where) else f"{where}: it cannot be read: {sentence}")


class USDRLWarning(UserWarning):
    """A guess, a repair or an omission that the user should know of.

    The command line prints the first warning of each kind, and how many more there were.

    Attributes:
        kind: Short name of the group of warnings, such as "people left out".
    """

    def __init__(self, message: str, kind: str = ""):
        super().__init__(message)
        self.kind = kind or message


def notice(message: str, kind: str = "", stacklevel: int = 2) -> None:
    """Issue a `USDRLWarning`; all warnings of this package go through here.

    Args:
        message: One sentence: what, where (file, sequence), and which option changes it.
        kind: Short name of the group, without file names, such as "people left out"; defaults to the message.
        stacklevel: See `warnings.warn`; 2 is the line of the caller.
    """
    warnings.warn(USDRLWarning(message, kind), stacklevel=stacklevel + 1)


def printable(text: str) -> str:
    r"""Untrusted text as one printable line: control characters are escaped, such as ``\x1b``."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_sentence(error: BaseException, longest: int = LONGEST_SENTENCE) -> str:
    """An error's message as one printable line; beyond `longest` characters its middle is cut out."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        # "file: reason", as our own errors, without the errno.
        text = f"{error.filename}: {error.strerror}"
    return _clipped(printable(" ".join(text.split())) or type(error).__name__, longest)


def _clipped(text: str, longest: int) -> str:
    """Cut the middle out: the beginning names the file, the end says what to do."""
    if len(text) <= longest:
        return text
    head = longest * 2 // 3
    return f"{text[:head]} ... {text[len(text) - (longest - head - 5) :]}"
