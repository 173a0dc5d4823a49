"""No group of clips on two sides: over lists, files, stores, folders, tables and folds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usdrl_hub import SkeletonFormatError, SkeletonList, SkeletonSequence, open_data, write_store
from usdrl_hub.data.prepare import prepare
from usdrl_hub.data.splits import fold_parts, group_folds, groups_of, split_data, with_validation

from .helpers import walking

FRAME = np.ones((1, 1, 25, 3), np.float32)


def clips(labels, people, names=None, columns=None) -> SkeletonList:
    """A clip of one frame for each label and person; None is an unknown person."""
    sequences = [
        SkeletonSequence(FRAME, "ntu25", label=int(label), subject=person, name=name)
        for label, person, name in zip(labels, people, names or map(str, range(len(labels))), strict=True)
    ]
    return SkeletonList(sequences, ["walk", "wave", "bow"], columns)


def sides(parts) -> list[set[str]]:
    """Known groups of each part."""
    named = (parts.train, parts.validation, parts.test)
    return [set(groups_of(part, parts.by)) - {""} for part in named if part is not None]


def assert_apart(parts):
    found = sides(parts)
    assert sum(map(len, found)) == len(set().union(*found))


@st.composite
def groups_and_labels(draw):
    count = draw(st.integers(6, 60))
    labels = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    groups = draw(st.lists(st.integers(-1, 7), min_size=count, max_size=count))
    return np.array(labels), np.array(groups)


@settings(max_examples=60, deadline=None)
@given(groups_and_labels(), st.integers(0, 3), st.sampled_from(["people", "column", "folder"]))
def test_no_group_is_on_two_sides_whatever_says_it(drawn, seed, form):
    labels, groups = drawn
    if len(np.unique(groups[groups >= 0])) < 2:
        groups[:2] = 0, 1
    people = [int(group) if form == "people" and group >= 0 else None for group in groups]
    kinds = ["walk", "wave", "bow"]
    names = [
        f"{kinds[label]}/{f'session {group}/' if form == 'folder' and group >= 0 else ''}{number}"
        for number, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]
    data = clips(labels, people, names, {"session": groups} if form == "column" else None)
    by = {"people": "subject", "column": "session", "folder": "folder"}[form]
    parts = split_data(data, by, seed=seed)
    assert_apart(parts)
    assert len(parts.train) + len(parts.test) == len(data) and not parts.shared
    # Clips of unknown groups train: their people may be any.
    assert (groups_of(parts.test, by) != "").all()
    whole = with_validation(parts, seed)
    if "clips validate" not in whole.rule:
        assert_apart(whole)
    if whole.validation is not None:
        assert set(whole.train.column("labels")) == set(parts.train.column("labels"))
    for fold in fold_parts(data, by, seed=seed):
        assert_apart(fold)
        assert len(set(groups_of(fold.test, by))) == 1


@settings(max_examples=60, deadline=None)
@given(groups_and_labels(), st.integers(2, 5), st.integers(0, 3))
def test_each_clip_of_a_known_group_tests_in_one_fold(drawn, count, seed):
    labels, groups = drawn
    names = np.array([str(group) if group >= 0 else "" for group in groups])
    found = len(np.unique(names[names != ""])) or len(labels)
    if found < count:
        with pytest.raises(SkeletonFormatError, match=f"use --folds {found}"):
            group_folds(labels, names, count, seed)
        return
    folds = group_folds(labels, names, count, seed)
    assert set(folds[names != ""] if (names != "").any() else folds) == set(range(count))
    for name in np.unique(names[names != ""]):
        assert len(np.unique(folds[names == name])) == 1
    if (names != "").any():
        assert (folds[names == ""] == -1).all()


def test_folds_of_single_clips_have_as_many_of_each_class():
    labels = np.repeat([0, 1, 2], [10, 25, 7])
    folds = group_folds(labels, np.full(42, ""), 5)
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_folds_of_people_have_about_as_many_of_each_class():
    """Each movement is that of two people: chance would put both into one fold now and then."""
    people = np.repeat(np.arange(10), 6)
    labels = people % 5
    for seed in range(5):
        folds = group_folds(labels, people.astype(str), 5, seed)
        assert [len(np.unique(folds[labels == label])) for label in range(5)] == [2] * 5
        assert (np.bincount(folds) == 12).all()


def test_a_split_of_the_data_that_mixes_people_is_named_or_replaced():
    side = np.array([0, 1, 0, 1, 0, 1])
    data = clips([0, 1, 0, 1, 0, 1], [1, 1, 2, 2, 3, 3], columns={"split_test": side})
    parts = split_data(data)
    assert parts.shared == 3 and "3 people train and test" in parts.rule
    apart = split_data(data, "subject")
    assert_apart(apart)
    assert "because the data's 'split_test' puts a person on both sides" in apart.rule and apart.shared == 0
    kept = split_data(clips([0, 1, 0, 1], [1, 1, 2, 2], columns={"split_test": np.array([0, 0, 1, 1])}), "subject")
    assert kept.rule == "the file's split_test; no person is on both sides"


def test_validation_takes_training_people_and_says_where_it_cannot():
    people = np.repeat(np.arange(1, 11), 6)
    parts = with_validation(split_data(clips(np.tile([0, 1, 2], 20), people.tolist())))
    assert_apart(parts)
    assert parts.rule.endswith("1 of 5 training people validate") and len(parts.validation) == 6
    # A single person trains: validation clips are of the same person.
    parts = with_validation(split_data(clips([0, 1] * 10, [1] * 10 + [2] * 10)))
    assert parts.rule.endswith("2 of 10 training clips validate, of the same people as the others")
    # The only clips of a class are one person's, who then trains.
    parts = with_validation(split_data(clips([0, 1, 2, 0, 1, 0, 0, 1], [1, 1, 1, 3, 3, 3, 2, 2])))
    assert set(parts.train.column("labels")) == {0, 1, 2} and sides(parts)[1] == {"3"}
    alone = with_validation(split_data(clips([0, 1, 0, 1], [1, 1, 2, 2])))
    assert alone.validation is None and alone.rule.endswith("no clip validates")


@pytest.mark.parametrize(
    "by, message",
    [
        ("subject", "do not say who moves"),
        ("folder", "class/person/recording"),
        ("session", "have no column 'session': use subject, folder, or one of its columns .takes"),
        ("takes", "all clips are of one takes group"),
    ],
)
def test_groups_that_the_data_do_not_know_are_refused(by, message):
    data = clips([0, 1, 0], [None] * 3, ["walk/a", "wave/b", "walk/c"], {"takes": np.array([4, 4, 4])})
    with pytest.raises(SkeletonFormatError, match=message):
        split_data(data, by)


def test_groups_are_the_same_in_a_file_a_store_and_a_folder(tmp_path):
    for kind in ("walk", "wave"):
        for person in "abc":
            (tmp_path / "raw" / kind / person).mkdir(parents=True)
            for take in range(2):
                np.save(tmp_path / "raw" / kind / person / f"{take}.npy", walking(frames=8).keypoints[:, 0])
    prepare("folder", tmp_path / "raw", tmp_path / "store")
    store = open_data(tmp_path / "store")
    assert sorted(set(groups_of(store, "folder"))) == ["a", "b", "c"]
    parts = split_data(store, "folder")
    assert_apart(parts)
    assert parts.rule == "1 of 3 folders tests, the others train"
    data = clips([0, 1] * 6, [3, 3, 4, 4, 7, 7] * 2, columns={"takes": np.arange(12) % 3})
    write_store(data, tmp_path / "people")
    for by in ("subject", "takes"):
        np.testing.assert_array_equal(groups_of(open_data(tmp_path / "people"), by), groups_of(data, by))


@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_on_two_sides_of_a_store_a_folder_or_a_table(tmp_path, seed):
    """Groups are known from how the data were made, not from what the package reads."""
    random = np.random.default_rng(seed)
    groups = [f"p{number}" for number in (*range(5), *random.integers(0, 5, 31))]
    rows, truth = ["file,label,subject,session"], {}
    for number, group in enumerate(groups):
        kind = ("walk", "wave")[random.integers(2)]
        path = tmp_path / "raw" / kind / group / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, walking(frames=4).keypoints[:, 0])
        rows.append(f"{path.relative_to(tmp_path).as_posix()},{kind},{group},{group[1:]}")
        truth[str(number)] = group
    (tmp_path / "table.csv").write_text("\n".join(rows))
    prepare("folder", tmp_path / "raw", tmp_path / "folder")
    prepare("csv", tmp_path / "table.csv", tmp_path / "table")
    write_store(open_data(tmp_path / "table"), tmp_path / "copy")
    for name, by in (
        ("folder", "folder"),
        ("table", None),
        ("table", "subject"),
        ("table", "session"),
        ("copy", None),
    ):
        data = open_data(tmp_path / name)
        tested = []
        splits = [split_data(data, by, seed=seed), *fold_parts(data, "3", by, seed=seed)]
        left_out = fold_parts(data, by or "subject", seed=seed)
        for number, parts in enumerate((*splits, *left_out)):
            whole = with_validation(parts, seed)
            assert whole.validation is not None
            seen = [{truth[Path(clip).stem] for clip in part.names} for part in (whole.train, whole.validation)]
            mine = {truth[Path(clip).stem] for clip in whole.test.names}
            assert mine and not mine & (seen[0] | seen[1]) and not seen[0] & seen[1]
            tested += [Path(clip).stem for clip in whole.test.names] if number >= len(splits) else []
        assert sorted(tested) == sorted(truth) and len(left_out) == 5


def test_folds_that_cannot_be_are_refused():
    data = clips([0, 1] * 4, [1, 1, 1, 1, 2, 2, 2, 2])
    for folds, by, message in (
        ("1", None, "use 2 or more"),
        ("3", None, "3 folds need 3 groups, and there are 2: use --folds 2"),
        ("subject", "folder", "leave out --group-by folder"),
    ):
        with pytest.raises(ValueError, match=message):
            fold_parts(data, folds, by)
    assert len(fold_parts(data, "2")) == 2
