"""Splits of data sets into training and test sequences: the papers' protocols, from names and metadata."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from ..errors import notice
from ..sequence import SkeletonFormatError
from .dataset import SkeletonData
from .text import NTU, UAV, read_pku_split

_NTU60_TRAIN_SUBJECTS = frozenset({1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38})
_NTU120_TRAIN_SUBJECTS = _NTU60_TRAIN_SUBJECTS | {
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94),
    *(95, 97, 98, 100, 103),
}
# Of UAV-Human's 119 subjects (0 to 118), those that its README does not name for training.
_UAV_TEST_SUBJECTS = {
    version: frozenset(map(int, subjects.split()))
    for version, subjects in {
        "v1": "1 3 4 9 22 23 24 31 41 54 58 60 66 72 74 75 91 92 93 94 95 96 97 99 101 104 107 108 109 113",
        "v2": "1 2 7 9 13 15 17 23 25 27 28 33 34 41 42 48 50 51 53 55 58 65 68 76 82 85 90 98 105 116",
    }.items()
}
# NTU-120's one-shot protocol: A1, A7, ..., A115 are novel, the others train; 0-based here.
NTU120_NOVEL_CLASSES = tuple(range(0, 120, 6))


@dataclass(frozen=True)
class NTUSample:
    """The numbers in the name of an NTU RGB+D recording, as they are; the action counts from 1."""

    setup: int
    camera: int
    subject: int
    action: int

    @classmethod
    def parse(cls, name: str) -> NTUSample:
        """Read a name such as ``S001C002P003R002A013``, with or without a folder and a suffix.

        Raises:
            SkeletonFormatError: If it is not such a name.
        """
        match = NTU.name.search(_stem(name))
        if match is None:
            raise SkeletonFormatError(f"'{name}' is not an NTU RGB+D name such as S001C002P003R002A013")
        return cls(**{key: int(value) for key, value in match.groupdict().items()})


def _uav_subject(name: str) -> int:
    match = UAV.name.search(_stem(name))
    if match is None:
        raise SkeletonFormatError(f"'{name}' is not a UAV-Human name such as P070S01G10B00H10UC102000LC092000A031R0_0")
    return int(match["subject"])


def _trains_in_cross_view(name: str) -> bool:
    """Whether a video of PKU-MMD is of camera M or R; those of L test."""
    if _stem(name)[-2:] not in ("-L", "-M", "-R"):
        raise SkeletonFormatError(f"'{name}' is not a PKU-MMD video such as 0002-L")
    return not _stem(name).endswith("-L")


def _stem(name: str) -> str:
    """A name without folder and suffix."""
    return re.split(r"[/\\]", name)[-1].partition(".")[0]


# Whether a recording trains, by its name, for each data set and protocol.
PROTOCOLS: dict[tuple[str, str], Callable[[str], bool]] = {
    ("ntu60", "xsub"): lambda name: NTUSample.parse(name).subject in _NTU60_TRAIN_SUBJECTS,
    ("ntu60", "xview"): lambda name: NTUSample.parse(name).camera in (2, 3),
    ("ntu120", "xsub"): lambda name: NTUSample.parse(name).subject in _NTU120_TRAIN_SUBJECTS,
    ("ntu120", "xset"): lambda name: NTUSample.parse(name).setup % 2 == 0,
    ("ntu120", "one-shot"): lambda name: NTUSample.parse(name).action - 1 not in NTU120_NOVEL_CLASSES,
    ("uav", "v1"): lambda name: _uav_subject(name) not in _UAV_TEST_SUBJECTS["v1"],
    ("uav", "v2"): lambda name: _uav_subject(name) not in _UAV_TEST_SUBJECTS["v2"],
    ("pku1", "xview"): _trains_in_cross_view,
    ("pku2", "xview"): _trains_in_cross_view,
}


def split_by_name(names: Sequence[str], dataset: str, protocol: str) -> np.ndarray:
    """Which recordings train in a protocol, by their names.

    Args:
        names: Names of the recordings, with or without a folder and a suffix.
        dataset: "ntu60", "ntu120", "uav", "pku1" or "pku2".
        protocol: "xsub" or "xview" of NTU-60; "xsub", "xset" or "one-shot" of NTU-120, where the recordings of 100
            classes train, and those of the 20 others, except one exemplar each, test; "v1" or "v2" of UAV-Human, with
            89 people to train and 30 to test; "xview" of PKU-MMD, where the cameras M and R train and L tests.

    Returns:
        Boolean array ``(len(names),)``; the others test.

    Raises:
        SkeletonFormatError: If a name is not one of the data set's.
        ValueError: If there is no such protocol.
    """
    trains = PROTOCOLS.get((dataset, protocol))
    if trains is None:
        raise _unknown(dataset, protocol)
    return np.array([trains(name) for name in names], dtype=bool)


def _unknown(dataset: str, protocol: str) -> ValueError:
    known = [name for data, name in PROTOCOLS if data == dataset]
    known += ["xsub"] if dataset in ("pku1", "pku2") else []
    return ValueError(f"'{dataset}' has no protocol '{protocol}': use {', '.join([*known, 'folders'])}")


def protocol_side(
    dataset: str, protocol: str, split_file: str | os.PathLike | None = None
) -> Callable[[str], str | None]:
    """The split of a protocol of a data set, as a function of a recording's name.

    Args:
        dataset: "ntu60", "ntu120", "uav", "pku1", "pku2", or any other.
        protocol: See `split_by_name`; also "xsub" of PKU-MMD, and "folders" for any data set with folders called train
            and test.
        split_file: PKU-MMD's split file, which "xsub" needs.

    Returns:
        A function of a recording's name, or path below its folder, to "train", "test", or None for neither.

    Raises:
        SkeletonFormatError: If the split file cannot be read.
        ValueError: If there is no such protocol, or its split file is not given.
    """
    if protocol == "folders":
        return _side_of_folders
    is_pku = dataset in ("pku1", "pku2") and protocol in ("xsub", "xview")
    if is_pku and split_file is not None:
        train, test = read_pku_split(split_file)
        sides = dict.fromkeys(train, "train") | dict.fromkeys(test, "test")
        return lambda name: sides.get(_stem(name))
    if is_pku and protocol == "xsub":
        raise ValueError("PKU-MMD's xsub is defined in its split file: name it with --split-file")
    trains = PROTOCOLS.get((dataset, protocol))
    if trains is None:
        raise _unknown(dataset, protocol)
    return lambda name: "train" if trains(name) else "test"


def _side_of_folders(name: str) -> str | None:
    parts = {part.lower() for part in PurePosixPath(name).parts[:-1]}
    sides = [side for side in ("train", "test") if side in parts]
    return sides[0] if len(sides) == 1 else None


# Names of the lists of pyskl and MMAction2: xsub_train and xsub_val, train and val, train1 and test1.
_LIST = re.compile(
    r"(?:(?P<protocol>.+?)[_-])?(?P<side>train|val|valid|validation|test)(?P<number>\d*)", re.IGNORECASE
)


def named_sides(lists: Mapping[str, Sequence[str]], protocol: str | None, where: str) -> dict[str, str] | None:
    """The split of the recordings of a pyskl file, from its lists.

    Args:
        lists: Names of recordings by the name of the list, such as "xsub_train".
        protocol: Which of several splits: "xsub" for the lists xsub_train and xsub_val, "1" for train1 and test1.
        where: The file.

    Returns:
        "train" or "test" by the names of the recordings; None if the file has no lists. Of lists for training,
        validation and test, the validation is left out.

    Raises:
        SkeletonFormatError: If there are several splits and none is named, the one named is not there or has no two
            sides, or a recording is on both.
    """
    splits: dict[str, dict[str, Sequence[str]]] = {}
    for name, members in lists.items():
        if match := _LIST.fullmatch(name):
            key = "_".join(part for part in (match["protocol"], match["number"]) if part)
            splits.setdefault(key, {})[match["side"].lower()[:3]] = members
    splits = {key: sides for key, sides in splits.items() if "tra" in sides and len(sides) > 1}
    if not lists and protocol is None:
        return None
    held = f"its lists are {', '.join(lists)}" if lists else "it brings no lists of recordings"
    choices = " or ".join(f"--protocol {key}" for key in splits if key)
    if protocol is None and not splits:
        notice(f"{where}: {held}, not a split into train and test or val: they are not used", "unknown splits")
        return None
    if protocol is None and len(splits) > 1:
        raise SkeletonFormatError(f"{where}: it brings several splits ({', '.join(lists)}): choose {choices}")
    chosen = splits.get(protocol) if protocol is not None else next(iter(splits.values()))
    if chosen is None:
        raise SkeletonFormatError(f"{where}: it brings no split '{protocol}': {held}; choose {choices or 'none'}")
    train, test = (set(chosen[key]) for key in ("tra", "tes" if "tes" in chosen else "val"))
    if both := sorted(train & test):
        raise SkeletonFormatError(f"{where}: '{both[0]}' trains and tests, as {len(both)} recordings of its split do")
    return dict.fromkeys(train, "train") | dict.fromkeys(test, "test")


def draw_labelled(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Sample the sequences whose labels a semi-supervised method may use.

    Args:
        labels: Classes ``(n,)``.
        share: Share of each class to sample, in (0, 1]; rounded to the nearest number, at least one of each class.
        seed: Random seed.

    Returns:
        Boolean array ``(n,)``.

    Raises:
        ValueError: If `share` is outside its range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of labels must be above 0 and at most 1, got {share}")
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[generator.permutation(members)[: max(round(share * len(members)), 1)]] = True
    return chosen


def draw_exemplars(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Sample `shots` sequences of each class, as boolean array ``(n,)``; all of a class that has fewer.

    Raises:
        ValueError: If `shots` is below 1.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, got {shots}")
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[generator.permutation(np.flatnonzero(labels == label))[:shots]] = True
    return chosen


def default_split(
    dataset: SkeletonData, fold: int = 0, with_leak: bool = False
) -> tuple[SkeletonData, SkeletonData, str]:
    """Split a data set by its own protocol.

    By the data's `split_test`, without the test sequences in `split_test_leaked`, which are copies of training ones;
    else by their `folds`; else by subject: odd numbers train and even numbers test, or every second subject tests if
    they have names or only odd or only even numbers; else, if the subjects are unknown, a random fifth of each class
    tests, with a warning, and the only clip of a class trains.

    Args:
        dataset: The data set.
        fold: Which of several splits (columns of `split_test`) or folds tests.
        with_leak: Keep the sequences in `split_test_leaked` in the test part, as papers do.

    Returns:
        Training part, test part, and the rule in words.

    Raises:
        SkeletonFormatError: If the data have none of these and no labels, there is no such fold, or a part is empty.
    """
    split, folds, subjects = (dataset.column(key) for key in ("split_test", "folds", "subjects"))
    people = None if subjects is None else people_numbers(subjects)
    if split is not None:
        columns = split[:, None] if split.ndim == 1 else split
        rule = "the file's split_test" + (f", split {fold}" if split.ndim > 1 else "")
        _check_fold(fold, columns.shape[1])
        test = columns[:, fold].astype(bool)
        train, leaked = ~test, None if with_leak else dataset.column("split_test_leaked")
        if leaked is not None:
            rule += f", without {int((test & leaked.astype(bool)).sum())} test clips that are copies of training clips"
            test = test & ~leaked.astype(bool)
    elif folds is not None:
        _check_fold(fold, int(folds.max()) + 1)
        test, rule = folds == fold, f"fold {fold} of the file's {int(folds.max()) + 1} tests"
        train = ~test
        if (folds < 0).any():
            rule += f"; {int((folds < 0).sum())} clips of no fold always train"
    elif subjects is not None and people is not None and len(np.unique(people[people >= 0])) > 1:
        _check_fold(fold, 1)
        known = people >= 0
        rule = "people with odd numbers train, people with even numbers test"
        if subjects.dtype.kind not in "iuf" or len(np.unique(people[known] % 2)) == 1:
            people[known] = np.unique(people[known], return_inverse=True)[1] + 1
            rule = "every second person, in order, tests"
        # Clips of unknown subjects train, because their subjects may be among those that train.
        test = known & (people % 2 == 0)
        train = ~test
        if not known.all():
            rule += f"; {int((~known).sum())} clips of people who are not known train"
            notice(
                f"{int((~known).sum())} of {len(people)} clips do not say who moves: they train, and those people may "
                "be among the test people, too: give all clips a subject",
                "clips of unknown people",
            )
    elif (labels := dataset.column("labels")) is not None:
        _check_fold(fold, 1)
        test, rule = _random_fifth(dataset, labels, people)
        train = ~test
    else:
        raise SkeletonFormatError(
            "the data set has no 'split_test', 'folds', 'subjects' or 'labels' to split it by: add one"
        )
    return *parts_of(dataset, train, test, rule), rule


def _random_fifth(dataset: SkeletonData, labels: np.ndarray, people: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Which clips test ``(n,)``, a fifth of each class, where the data say nothing of it, and the rule."""
    test = draw_labelled(labels, 0.2, seed=0)
    classes, counts = np.unique(labels, return_counts=True)
    single = classes[counts == 1]
    if len(single) == len(classes):
        raise SkeletonFormatError(
            "the split leaves no sequence to test: each class has one clip, which trains "
            f"({_named(dataset, single)}). Give two or more clips of each class"
        )
    one_person = people is not None and bool((people >= 0).all())
    whose = "all clips are of one person" if one_person else "who moves is not known, so people may be on both sides"
    rule = f"a random fifth of each class tests; {whose}"
    remedy = "give clips of others" if one_person else "give the data 'subjects'"
    notice(f"{rule}: {remedy}, 'split_test' or 'folds', or prepare them with --protocol", "a random split")
    if len(single):
        test &= ~np.isin(labels, single)
        rule += f"; the only clip of a class trains ({_named(dataset, single)})"
        notice(
            f"the only clip of a class trains, so nothing tests {_named(dataset, single)}: more clips are needed "
            "to score it",
            "classes of one clip",
        )
    return test, rule


def parts_of(
    dataset: SkeletonData, train: np.ndarray, test: np.ndarray, rule: str
) -> tuple[SkeletonData, SkeletonData]:
    """The sequences that train and those that test.

    Raises:
        SkeletonFormatError: If a part is empty.
    """
    for mask, part, other in ((train, "train", "test"), (test, "test", "train")):
        if not mask.any():
            raise SkeletonFormatError(
                f"the split ({rule}) leaves no sequence to {part}: all {len(dataset)} are on the other side ({other}) "
                "or left out. Give the data 'split_test', 'folds' or 'subjects' that leave clips on both sides"
            )
    return dataset.select(train), dataset.select(test)


def people_numbers(subjects: np.ndarray) -> np.ndarray:
    """Subjects as integers ``(n,)``, -1 for unknown; names are numbered in their order."""
    if subjects.dtype.kind in "US":
        names, numbers = np.unique(subjects, return_inverse=True)
        return np.where(subjects == names.dtype.type(), -1, numbers)
    known = ~np.isnan(subjects) & (subjects >= 0)
    whole = (subjects[known] == np.round(subjects[known])).all()
    people = np.full(len(subjects), -1, dtype=np.int64)
    people[known] = subjects[known] if whole else np.unique(subjects[known], return_inverse=True)[1]
    return people


def _named(dataset: SkeletonData, classes: Iterable[int], limit: int = 5) -> str:
    """Classes by name, for a sentence."""
    names = dataset.class_names
    shown = [f"'{names[number]}'" if number >= 0 else "no class" for number in classes]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")


def with_clips(dataset: SkeletonData, keep: Sequence[str] | None = None, where: str = "the data") -> SkeletonData:
    """The labelled sequences of a data set and the classes that have any; warnings report what is left out.

    Args:
        dataset: Labelled sequences.
        keep: Class names of a model's head; if they are the data's, all classes are kept.
        where: Name of the data, used in errors.

    Raises:
        SkeletonFormatError: If no sequence has a label.
    """
    labels = dataset.column("labels")
    if labels is None or not (labels >= 0).any():
        raise SkeletonFormatError(f"{where}: it has no 'labels' to train on")
    if (labels < 0).any():
        notice(
            f"{where}: {int((labels < 0).sum())} of {len(labels)} sequences have no label and are left out",
            "sequences without a label",
        )
        dataset = dataset.select(labels >= 0)
    labels = labels[labels >= 0].astype(np.int64)
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return dataset
    message = f"{where}: {len(empty)} of {len(counts)} classes have no clip ({_named(dataset, empty)})"
    if keep is not None and list(keep) == dataset.class_names:
        notice(f"{message}; they stay, because the model has a head for them", "classes without clips")
        return dataset
    notice(f"{message}, so they are left out", "classes without clips")
    new_index, names = np.cumsum(counts > 0) - 1, dataset.class_names
    return dataset.relabelled(new_index[labels], [names[number] for number in np.flatnonzero(counts)])


def check_classes(train: SkeletonData, test: SkeletonData | None, trains: bool = True) -> None:
    """Refuse training clips of a single class, and warn of test classes without training clips.

    Args:
        train: Training part, or the clips that are compared with.
        test: Test part.
        trains: Whether a model is trained; otherwise clips are compared.

    Raises:
        SkeletonFormatError: If the training part has clips of one class only.
    """
    known = np.unique(np.asarray(train.column("labels")))
    if len(known) < 2:
        raise SkeletonFormatError(
            f"the {len(train)} clips that {'train' if trains else 'are compared with'} are all of one class, "
            f"{_named(train, known)}: there is nothing to tell apart, and everything would be found to be of that "
            "class. Give clips of two classes or more"
        )
    labels = np.zeros(0, dtype=np.int64) if test is None else np.asarray(test.column("labels"))
    unknown = np.setdiff1d(labels, known)
    if len(unknown):
        notice(
            f"{int(np.isin(labels, unknown).sum())} of {len(labels)} test clips are of classes without a training "
            f"clip ({_named(train, unknown)}), which cannot be predicted: they count as wrong",
            "classes in the test part alone",
        )


def _check_fold(fold: int, count: int) -> None:
    if not 0 <= fold < count:
        raise SkeletonFormatError(f"there is no split {fold}: the data set has {count}, counted from 0")
