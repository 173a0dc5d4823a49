"""Splits that keep groups of clips together: people, sessions or anything else that a column or a folder names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from ..sequence import SkeletonFormatError
from .dataset import SkeletonData
from .protocols import default_split, parts_of, people_numbers

# A fifth of the training groups validates; a fifth of all tests where the data have no split of their own.
_FOLDS = 5
# What a group is called in sentences, by the option that names it.
_TITLES = {"subject": ("person", "people"), "folder": ("folder", "folders")}


@dataclass(frozen=True)
class Parts:
    """The parts of a data set for one training.

    Attributes:
        train: What trains.
        validation: What chooses among recipes and checkpoints; None where no clip can be spared.
        test: What tests.
        rule: The split in words.
        by: What no two parts share, see `groups_of`; None where no group is known.
        shared: Groups that both train and test, because the data's own split puts them on both sides.
        tested: Indices of the test clips in the whole data set; only of folds.
    """

    train: SkeletonData
    validation: SkeletonData | None
    test: SkeletonData
    rule: str
    by: str | None
    shared: int = 0
    tested: np.ndarray | None = None

    def to_dict(self) -> dict[str, object]:
        """Numbers of groups of each part, as JSON has them; not their names, which may be those of people."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        numbers = {
            name: len(_known(groups_of(part, self.by))) for name, part in named.items() if part is not None and self.by
        }
        return {"by": self.by, **numbers, "shared": self.shared}


def titled(by: str | None, count: int = 1) -> str:
    """What groups are called in a sentence: "person" or "people", "folder" or "folders", else by their column."""
    one, more = _TITLES.get(by or "subject", (f"{by} group", f"{by} groups"))
    return one if count == 1 else more


def groups_of(dataset: SkeletonData, by: str | None) -> np.ndarray:
    """The group of each clip, as text ``(n,)``, empty where it is unknown.

    Args:
        dataset: Labelled clips.
        by: "subject" for the person; "folder" for the folders of the recording's name, without that of its class; or
            the name of a column; None for no groups.
    """
    if by == "folder":
        return _folders(dataset)
    values = None if by is None else _column(dataset, by)
    if values is None or values.ndim != 1:
        return np.full(len(dataset), "")
    if values.dtype.kind in "USb":
        return values.astype(str)
    known = ~np.isnan(values) & (values >= 0 if by == "subject" else values != -1)
    whole = values.dtype.kind in "iu" or bool((values[known] == np.round(values[known])).all())
    return np.array(
        [
            "" if not is_known else str(int(value)) if whole else repr(float(value))
            for value, is_known in zip(values, known, strict=True)
        ]
    )


def check_groups(dataset: SkeletonData, by: str) -> np.ndarray:
    """The group of each clip, see `groups_of`.

    Raises:
        SkeletonFormatError: If no group is known.
    """
    groups = groups_of(dataset, by)
    if (groups != "").any():
        return groups
    columns = [key for key in ("cameras", "setups", *dataset.extra_columns) if dataset.column(key) is not None]
    others = f", or one of its columns ({', '.join(columns)})" if columns else ""
    if by == "folder":
        raise SkeletonFormatError(
            "--group-by folder: the recordings lie directly in the folders of their classes: put those of each person "
            "or session into a folder of their own (class/person/recording)"
        )
    if by == "subject":
        raise SkeletonFormatError(
            "--group-by subject: the data do not say who moves: prepare them with a table that has the column "
            f"'subject', or group them by folder{others}"
        )
    values = _column(dataset, by)
    if values is None:
        raise SkeletonFormatError(f"--group-by {by}: the data have no column '{by}': use subject, folder{others}")
    fault = "has several entries for each clip" if values.ndim != 1 else "is unknown in all clips"
    raise SkeletonFormatError(f"--group-by {by}: column '{by}' {fault}: use subject, folder{others}")


def _column(dataset: SkeletonData, by: str) -> np.ndarray | None:
    names = ("subjects",) if by == "subject" else (by, f"{by}s")
    return next((values for name in names if (values := dataset.column(name)) is not None), None)


def _folders(dataset: SkeletonData) -> np.ndarray:
    labels, classes = dataset.column("labels"), dataset.class_names
    found = []
    for number, name in enumerate(dataset.names):
        parts = list(PurePosixPath(str(name).replace("\\", "/")).parts[:-1])
        label = None if labels is None or labels[number] < 0 else classes[int(labels[number])]
        # Groups that are classes would leave nothing to learn from.
        if label in parts:
            parts.remove(label)
        found.append("/".join(parts))
    return np.array(found)


def group_folds(labels: np.ndarray, groups: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Divide clips into folds that have about as many clips of each class, with no group in two of them.

    Args:
        labels: Classes ``(n,)``.
        groups: Groups ``(n,)`` as text, empty where unknown; if all are unknown, clips are divided one by one.
        count: Number of folds.
        seed: Random seed of the order.

    Returns:
        The fold of each clip ``(n,)`` in [0, count); -1 for clips of an unknown group among known ones.

    Raises:
        SkeletonFormatError: If there are fewer groups, or clips, than folds.
    """
    labels = np.unique(labels, return_inverse=True)[1]
    random = np.random.default_rng(seed)
    folds = np.full(len(labels), -1, dtype=np.int64)
    known = np.asarray(groups) != ""
    found = int(known.any() and len(np.unique(groups[known]))) or len(labels)
    if found < count:
        what = "groups" if known.any() else "clips"
        raise SkeletonFormatError(f"{count} folds need {count} {what}, and there are {found}: use --folds {found}")
    if not known.any():
        order = random.permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        folds[order] = np.arange(len(labels)) % count
        return folds
    numbers = np.unique(groups[known], return_inverse=True)[1]
    held = np.zeros((found, labels.max() + 1))
    np.add.at(held, (numbers, labels[known]), 1)
    share = held / held.sum(0).clip(1)
    # Large groups first: the small ones even out what they leave.
    order = random.permutation(found)
    order = order[np.argsort(-held[order].sum(1), kind="stable")]
    filled, fold_of = np.zeros((count, held.shape[1])), np.zeros(found, dtype=np.int64)
    for place, group in enumerate(order):
        # No fold stays empty.
        empty = np.flatnonzero(~filled.any(1))
        choices = empty if found - place <= len(empty) else np.arange(count)
        cost = filled[choices] @ share[group] + 1e-6 * filled[choices].sum(1)
        fold_of[group] = choices[cost.argmin()]
        filled[fold_of[group]] += share[group]
    folds[known] = fold_of[numbers]
    return folds


def split_data(dataset: SkeletonData, group_by: str | None = None, *, fold: int = 0, seed: int = 0) -> Parts:
    """Divide a data set into a training and a test part.

    Without `group_by`, `default_split` makes the test part; with it, the data's own split does if it keeps the groups
    apart, else a fifth of the groups tests. `with_validation` takes a validation part from what trains.

    Args:
        dataset: Clips with labels.
        group_by: What may not be on both sides, see `groups_of`; None for people where they are known.
        fold: Which of the data's own splits or folds, see `default_split`.
        seed: Random seed of the choice of groups.

    Raises:
        SkeletonFormatError: If the data cannot be divided so.
    """
    by = group_by or ("subject" if _has_people(dataset) else None)
    if group_by is None:
        train, test, rule = default_split(dataset, fold)
    else:
        train, test, rule = _grouped_test(dataset, group_by, fold, seed)
    shared = _shared(train, test, by)
    if shared:
        rule += f"; {shared} {titled(by, shared)} {'trains and tests' if shared == 1 else 'train and test'}"
    return Parts(train, None, test, rule, by, shared)


def fold_parts(dataset: SkeletonData, folds: str, group_by: str | None = None, *, seed: int = 0) -> list[Parts]:
    """Divide a data set so that each clip of a known group tests once.

    Args:
        dataset: Clips with labels.
        folds: A number of folds; or what is left out in turn, such as "subject", see `groups_of`.
        group_by: What no fold shares with another; None for people where they are known, else single clips.
        seed: Random seed of the folds.

    Raises:
        SkeletonFormatError: If there are too few groups or clips.
        ValueError: If `folds` is a number below 2, or contradicts `group_by`.
    """
    labels = np.asarray(dataset.column("labels"))
    if folds.lstrip("-").isdecimal():
        count = int(folds)
        if count < 2:
            raise ValueError(f"--folds is {count}: use 2 or more, or subject to leave out each person in turn")
        by = group_by or ("subject" if _has_people(dataset) else None)
        groups = check_groups(dataset, by) if by else groups_of(dataset, by)
        number = group_folds(labels, groups, count, seed)
        rule = f"fold {{}} of {count} tests; " + (
            f"no {titled(by)} is in two folds" if by else "who moves is not known, so people may be on both sides"
        )
        titles = list(map(str, range(1, count + 1)))
    else:
        if group_by not in (None, folds):
            raise ValueError(f"--folds {folds} leaves out each {titled(folds)}: leave out --group-by {group_by}")
        by, groups = folds, check_groups(dataset, folds)
        titles = _known(groups)
        if len(titles) < 2:
            raise SkeletonFormatError(f"--folds {folds}: all clips are of one {titled(folds)}: use --folds 5")
        number = np.full(len(groups), -1)
        for place, title in enumerate(titles):
            number[groups == title] = place
        rule = f"{titled(by)} {{}} tests, the others train"
    if (number < 0).any():
        rule += f"; {int((number < 0).sum())} clips of no known {titled(by)} always train"
    parts = []
    for place, title in enumerate(titles):
        text = rule.format(title)
        train, test = parts_of(dataset, number != place, number == place, text)
        parts.append(Parts(train, None, test, text, by, tested=np.flatnonzero(number == place)))
    return parts


def with_validation(parts: Parts, seed: int = 0) -> Parts:
    """Take a validation part from the training part: whole groups, or clips where a single group trains.

    Every class with a training clip keeps at least one. Nothing validates where no class can spare a clip.
    """
    labels = np.asarray(parts.train.column("labels"))
    groups = groups_of(parts.train, parts.by)
    known = _known(groups)
    by_group = len(known) > 1
    candidates = _candidates(labels, groups, seed, len(known)) if by_group else []
    if not candidates:
        by_group, candidates = False, _candidates(labels, groups, seed, 0)
    if not candidates:
        return Parts(parts.train, None, parts.test, f"{parts.rule}; no clip validates", parts.by, parts.shared)
    mask = candidates[0]
    count = len(_known(groups[mask]))
    text = (
        f"{count} of {len(known)} training {titled(parts.by, 2)} validate"
        if by_group
        else (
            f"{int(mask.sum())} of {len(labels)} training clips validate, of the same people as the others"
            if parts.by and known
            else f"{int(mask.sum())} of {len(labels)} training clips validate"
        )
    )
    return Parts(
        parts.train.select(~mask),
        parts.train.select(mask),
        parts.test,
        f"{parts.rule}; {text}",
        parts.by,
        parts.shared,
    )


def _candidates(labels: np.ndarray, groups: np.ndarray, seed: int, known: int) -> list[np.ndarray]:
    """Validation parts ``(n,)`` that leave a training clip of every class, the one nearest to a fifth first."""
    count = min(_FOLDS, known or len(labels))
    if count < 2:
        return []
    if known:
        folds = group_folds(labels, groups, count, seed)
        masks = [folds == fold for fold in range(count)]
        masks = [mask for mask in masks if len(np.unique(labels[~mask])) == len(np.unique(labels))]
        return sorted(masks, key=lambda mask: (-len(np.unique(labels[mask])), abs(mask.mean() - 1 / _FOLDS)))
    # A fifth of each class, at least one clip of those with two or more.
    random, mask = np.random.default_rng(seed), np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        mask[members[: min(max(round(len(members) / _FOLDS), 1), len(members) - 1)]] = True
    return [mask] if mask.any() else []


def _grouped_test(dataset: SkeletonData, by: str, fold: int, seed: int) -> tuple[SkeletonData, SkeletonData, str]:
    """Training and test part that share no group, and the rule."""
    groups = check_groups(dataset, by)
    own = next((key for key in ("split_test", "folds") if dataset.column(key) is not None), None)
    if own is not None:
        train, test, rule = default_split(dataset, fold)
        unknown = sum(bool((groups_of(part, by) == "").any()) for part in (train, test))
        if not _shared(train, test, by) and not unknown:
            return train, test, f"{rule}; no {titled(by)} is on both sides"
    known = _known(groups)
    if len(known) < 2:
        raise SkeletonFormatError(
            f"--group-by {by}: all clips are of one {titled(by)}, so none is left to test: leave the option out, or "
            "give clips of others"
        )
    folds = group_folds(np.asarray(dataset.column("labels")), groups, min(_FOLDS, len(known)), seed)
    test_mask = folds == 0
    count = len(_known(groups[test_mask]))
    rule = f"{count} of {len(known)} {titled(by, 2)} {'tests' if count == 1 else 'test'}, the others train"
    if own is not None:
        rule += f", because the data's '{own}' puts a {titled(by)} on both sides"
    if (folds < 0).any():
        rule += f"; {int((folds < 0).sum())} clips of no known {titled(by)} train"
    return *parts_of(dataset, ~test_mask, test_mask, rule), rule


def _known(groups: np.ndarray) -> list[str]:
    """Names of the known groups, numbers in their order."""
    names = [str(name) for name in np.unique(groups[groups != ""])]
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def _shared(train: SkeletonData, test: SkeletonData, by: str | None) -> int:
    return 0 if by is None else len(set(_known(groups_of(train, by))) & set(_known(groups_of(test, by))))


def _has_people(dataset: SkeletonData) -> bool:
    subjects = dataset.column("subjects")
    return subjects is not None and bool((people_numbers(subjects) >= 0).any())
