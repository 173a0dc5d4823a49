import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdrl_hub import SkeletonDataset, SkeletonFormatError, open_data
from usdrl_hub.data.protocols import (
    NTU120_NOVEL_CLASSES,
    PROTOCOLS,
    NTUSample,
    default_split,
    draw_exemplars,
    draw_labelled,
    protocol_side,
    split_by_name,
)
from usdrl_hub.data.text import read_pku_split

from .helpers import arrays


def all_names(dataset):
    """A recording of every subject, camera and setup that a data set has."""
    subjects, setups = (range(1, 41), range(1, 18)) if dataset == "ntu60" else (range(1, 107), range(1, 33))
    return [
        f"S{setup:03d}C{camera:03d}P{subject:03d}R001A{(setup * 7 + subject) % 60 + 1:03d}.skeleton"
        for setup in setups
        for camera in (1, 2, 3)
        for subject in subjects
    ]


@pytest.mark.parametrize("dataset, protocol", [key for key in PROTOCOLS if key[0].startswith("ntu")])
def test_nobody_is_on_both_sides_of_what_a_protocol_crosses(dataset, protocol):
    names = all_names(dataset)
    train = split_by_name(names, dataset, protocol)
    samples = [NTUSample.parse(name) for name in names]
    crossed = {"xsub": "subject", "xview": "camera", "xset": "setup", "one-shot": "action"}[protocol]
    sides = [{getattr(s, crossed) for s, t in zip(samples, train, strict=True) if t == side} for side in (True, False)]
    assert not sides[0] & sides[1] and sides[0] and sides[1]
    sizes = {"ntu60 xsub": 20, "ntu120 xsub": 53, "ntu60 xview": 2, "ntu120 xset": 16}
    if f"{dataset} {protocol}" in sizes:
        assert len(sides[0]) == sizes[f"{dataset} {protocol}"]


def test_the_novel_classes_are_every_sixth():
    assert [number + 1 for number in NTU120_NOVEL_CLASSES][:3] == [1, 7, 13] and len(NTU120_NOVEL_CLASSES) == 20
    assert NTU120_NOVEL_CLASSES[-1] + 1 == 115


def test_names_and_protocols_that_do_not_exist_are_refused():
    with pytest.raises(SkeletonFormatError, match="is not an NTU"):
        split_by_name(["walk"], "ntu60", "xsub")
    with pytest.raises(ValueError, match="'ntu60' has no protocol 'xset': use xsub, xview"):
        split_by_name([], "ntu60", "xset")
    with pytest.raises(SkeletonFormatError, match="not a PKU-MMD video"):
        split_by_name(["0002"], "pku1", "xview")


def test_pku_splits(shared_data):
    assert split_by_name(["0002-L", "0002-M", "0003-R"], "pku1", "xview").tolist() == [False, True, True]
    train, test = read_pku_split(shared_data / "pku_mmd_labels" / "pkuv1_cross_subject.txt")
    assert not set(train) & set(test)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300), st.floats(0.001, 1), st.integers(0, 99))
def test_labels_are_drawn_per_class_and_repeatably(labels, share, seed):
    labels = np.array(labels)
    drawn = draw_labelled(labels, share, seed)
    np.testing.assert_array_equal(drawn, draw_labelled(labels, share, seed))
    for label in np.unique(labels):
        count = (labels == label).sum()
        assert (drawn & (labels == label)).sum() == max(round(share * count), 1)
    exemplars = draw_exemplars(labels, 2, seed)
    assert all((exemplars & (labels == label)).sum() == min(2, (labels == label).sum()) for label in np.unique(labels))


def test_seeds_draw_differently():
    labels = np.zeros(1000, int)
    assert (draw_labelled(labels, 0.1, 0) != draw_labelled(labels, 0.1, 1)).any()
    for call in (
        lambda: draw_labelled(labels, 0, 0),
        lambda: draw_labelled(labels, 1.1, 0),
        lambda: draw_exemplars(labels, 0, 0),
    ):
        with pytest.raises(ValueError):
            call()


def test_folds_test_in_turn():
    dataset = SkeletonDataset.from_arrays(arrays(folds=np.array([0, 1, 1])), "x")
    train, test, rule = default_split(dataset, 1)
    assert (len(train), len(test)) == (1, 2) and rule == "fold 1 of the file's 2 tests"
    with pytest.raises(SkeletonFormatError, match="no split 2: the data set has 2"):
        default_split(dataset, 2)


@pytest.mark.parametrize(
    "name, fold, sizes, excluded",
    [
        ("utd_mhad", 0, (431, 430), 0),
        ("nw_ucla", 0, (1020, 369), 95),
        ("sbu", 3, (228, 54), 0),
        ("jhmdb", 2, (434, 175), 0),
        ("utkinect", 0, (100, 99), 0),
    ],
)
def test_the_open_sets_are_split_as_their_papers_do(shared_data, name, fold, sizes, excluded):
    dataset = open_data(shared_data / f"{name}.npz")
    train, test, _ = default_split(dataset, fold)
    assert len(train) + len(test) + excluded == len(dataset)
    assert (len(train), len(test)) == sizes
    assert not set(train.selection) & set(test.selection)
    if name in ("utd_mhad", "utkinect"):
        assert not {s.subject for s in train} & {s.subject for s in test}


def test_uav_human_parts_its_people_in_two_ways():
    names = [f"clips/P{person:03}S01G10B00H10UC102000LC092000A031R0_09131758.txt" for person in range(119)]
    for version, train, test in (("v1", (0, 2, 118), (1, 3, 113)), ("v2", (0, 3, 118), (1, 2, 116))):
        trains = split_by_name(names, "uav", version)
        assert trains.sum() == 89 and (~trains).sum() == 30, "the numbers of the paper"
        assert trains[list(train)].all() and not trains[list(test)].any()
        side = protocol_side("uav", version)
        assert [side(name) for name in names[:4]] == ["train" if value else "test" for value in trains[:4]]
    with pytest.raises(ValueError, match="no protocol 'v3'"):
        split_by_name(names, "uav", "v3")
    with pytest.raises(ValueError, match="use v1, v2, folders"):
        protocol_side("uav", "xsub")
    with pytest.raises(SkeletonFormatError, match="not a UAV-Human name"):
        split_by_name(["S001C002P003R002A013"], "uav", "v1")
