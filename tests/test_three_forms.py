"""Data as an ``.npz`` file, a store and a list of sequences behave the same."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from usdrl_hub import (
    SkeletonDataset,
    SkeletonFormatError,
    SkeletonList,
    extract_embeddings,
    extract_frame_embeddings,
    open_data,
    write_store,
)
from usdrl_hub.data.huggingface import list_from_huggingface, to_huggingface
from usdrl_hub.data.prepare import PrepareOptions, prepare
from usdrl_hub.data.protocols import check_classes, default_split, named_sides, with_clips
from usdrl_hub.errors import LONGEST_SENTENCE, USDRLWarning
from usdrl_hub.facts.benchmarks import BENCHMARKS, missing_data
from usdrl_hub.inference.timeline import iter_timelines
from usdrl_hub.pretraining.run import pretrain
from usdrl_hub.tasks.evaluate import evaluate, repeat
from usdrl_hub.tasks.fit import FitRecipe
from usdrl_hub.tasks.recognition import Evaluation, finetune

from .helpers import recipe, run
from .three_forms import FORMS, assert_same_sequence, labelled_arrays, sequences_of

MODEL = "usdrl/tiny-uiprmd"
COUNT = len(labelled_arrays()["labels"])


@pytest.mark.parametrize("layout", ["ntu25", "kinect20", "coco17"])
def test_every_recording_has_the_same_fields(in_three_forms, layout):
    """Also frame rates, cameras, setups, picture and side of the split, which a file had for all or not at all."""
    forms = in_three_forms(labelled_arrays(layout))
    expected = sequences_of(forms.arrays)
    assert {sequence.fps for sequence in expected} >= {None, 29.97} and expected[1].split == "test"
    for form in FORMS:
        data = open_data(forms[form])
        assert len(data) == len(expected) and data.names == [sequence.name for sequence in expected]
        for ours, theirs in zip(data, expected, strict=True):
            assert_same_sequence(ours, theirs)
        part, piece = data.select(np.arange(COUNT) % 2 == 1)[2:4], data.read(3, 5, 9)
        assert_same_sequence(part[1], expected[7])
        np.testing.assert_array_equal(piece.keypoints[:, :1], expected[3].keypoints[5:9, :1])
        assert piece.events is None and (piece.label, piece.fps, piece.split) == (
            expected[3].label,
            expected[3].fps,
            expected[3].split,
        )
        assert data.layout.name == layout and data.class_names == ["squat", "hurdle step", "lunge"]
        assert data.lengths.tolist() == [sequence.num_frames for sequence in expected] and data.max_persons == 2


@pytest.mark.parametrize("form", FORMS)
def test_every_column_is_the_same_and_follows_a_selection(in_three_forms, form):
    arrays = labelled_arrays(folds=np.arange(COUNT) % 4)
    data = open_data(in_three_forms(arrays)[form])
    mask = np.arange(COUNT) % 4 == 2
    keys = ("labels", "subjects", "cameras", "setups", "names", "split_test", "split_test_leaked", "folds", "correct")
    for key in keys:
        np.testing.assert_array_equal(data.column(key), arrays[key])
        np.testing.assert_array_equal(data.select(mask)[1:].column(key), arrays[key][mask][1:])
    assert data.column("guess") is None
    assert {"split_test_leaked", "folds", "correct"} <= set(data.select(mask).extra_columns)


SPLITS = {
    "split_test": {},
    "several splits": {"split_test": np.stack([np.arange(COUNT) % 3 == 1, np.arange(COUNT) % 2 == 1], axis=1)},
    "folds": {"split_test": None, "split_test_leaked": None, "folds": np.arange(COUNT) % 4 - 1},
    "people": {"split_test": None, "split_test_leaked": None},
    "some people": {"split_test": None, "split_test_leaked": None, "subjects": np.arange(COUNT) % 5 - 1},
    "names": {
        "split_test": None,
        "split_test_leaked": None,
        "subjects": np.array(["", "ada", "zoe", "eva"])[np.arange(COUNT) % 4],
    },
    "chance": {"split_test": None, "split_test_leaked": None, "subjects": None},
}


@pytest.mark.filterwarnings("ignore::usdrl_hub.errors.USDRLWarning")
@pytest.mark.parametrize("kind", SPLITS)
def test_every_split_is_the_same(in_three_forms, kind):
    """faults.md 3: also with the clips that are copies of training clips."""
    forms = in_three_forms(labelled_arrays(**SPLITS[kind]))
    for fold in (0, 1) if kind in ("several splits", "folds") else (0,):
        for with_leak in (False, True):
            found = [default_split(open_data(forms[form]), fold, with_leak) for form in FORMS]
            names = [[part.names for part in parts[:2]] for parts in found]
            assert names[0] == names[1] == names[2] and len({parts[2] for parts in found}) == 1
            train, test = map(set, names[0])
            assert train and test and not train & test
            if kind == "split_test":
                assert len(test) == (6 if with_leak else 3)
            if kind in ("some people", "names"):
                # Nobody knows whether those who are not known are among the test people.
                unknown = {f"r{n:02d}" for n in range(COUNT) if forms.arrays["subjects"][n] in (-1, "")}
                assert unknown and unknown <= train and "not known train" in found[0][2]


def test_clips_are_on_the_side_of_their_recording(tmp_path):
    """faults.md 2: a clip was on the side of the recording with its number, and one too many ended the run."""
    rng = np.random.default_rng(0)
    arrays = {
        "data": rng.normal(size=(40, 1, 25, 3)),
        "offsets": np.array([0, 10, 20, 30, 40]),
        "layout": np.array("ntu25"),
        "names": np.array(["r0", "r1", "r2", "r3"]),
        "subjects": np.array([5, 6, 5, 6]),
        "split_test": np.array([[0, 1], [1, 0], [0, 1], [1, 0]]),
        "split_test_leaked": np.array([0, 0, 0, 1]),
        "folds": np.array([0, 1, 2, 3]),
        "correct": np.array([1, 0, 1, 0]),
        "effort": np.array([0.5, 1.5, 2.5, 3.5]),
        "events": np.array([[1, 0, 5, 0], [1, 3, 9, 1], [1, 6, 9, 1], [2, 0, 4, 0], [3, 1, 5, 1], [3, 2, 9, 0]]),
    }
    np.savez(tmp_path / "data.npz", **arrays)
    store, report = prepare("file", tmp_path / "data.npz", tmp_path / "store", options=PrepareOptions(clips=True))
    # Of r0 nobody says an event.
    assert store.names == ["r1_000", "r1_001", "r1_002", "r2_000", "r3_000", "r3_001"] and report["read"] == 6
    recording = [1, 1, 1, 2, 3, 3]
    for key in ("subjects", "split_test", "split_test_leaked", "folds", "correct", "effort"):
        np.testing.assert_array_equal(store.column(key), arrays[key][recording])
    train, test, _ = default_split(store)
    assert train.names == ["r2_000"] and test.names == ["r1_000", "r1_001", "r1_002"]
    assert [clip.num_frames for clip in store] == [5, 6, 3, 4, 4, 7]
    once = {**arrays, "split_test": arrays["split_test"][:, 0], "events": np.array([[1, 5, 0], [3, 9, 1]])}
    np.savez(tmp_path / "once.npz", **once)
    store, _ = prepare("file", tmp_path / "once.npz", tmp_path / "moments", options=PrepareOptions(clips=True))
    assert store.names == ["r1_000", "r3_000"] and [clip.split for clip in store] == ["test", "test"]


def test_a_recording_that_is_left_out_takes_its_entries_along(tmp_path):
    """faults.md 2: names that come twice, or the number of another recording, must not shift the columns."""
    arrays = labelled_arrays(names=np.array(["walk", "1"] * (COUNT // 2)), folds=np.arange(COUNT))
    arrays["data"][arrays["offsets"][2] : arrays["offsets"][3]] = 0
    np.savez(tmp_path / "data.npz", **arrays)
    store, report = prepare("file", tmp_path / "data.npz", tmp_path / "store")
    kept = [number for number in range(COUNT) if number != 2]
    assert report["skipped"] == {"no person is seen": 1} and store.column("folds").tolist() == kept
    np.testing.assert_array_equal(store.column("labels"), arrays["labels"][kept])


def pyskl(path, lists, names=tuple("abcdef")):
    entries = [
        {"frame_dir": name, "label": number % 2, "img_shape": (90, 160), "keypoint": np.ones((1, 5, 17, 2)) + number}
        for number, name in enumerate(names)
    ]
    path.write_bytes(pickle.dumps({"split": lists, "annotations": entries}))
    return path


def test_a_pyskl_files_split_is_used(tmp_path, capsys):
    """faults.md 4: it was dropped, and a random fifth tested."""
    lists = {"xsub_train": list("acde"), "xsub_val": list("bf")}
    file = pyskl(tmp_path / "data.pkl", lists)
    store, _ = prepare("file", file, tmp_path / "store")
    train, test, rule = default_split(store)
    assert (train.names, test.names) == (list("acde"), list("bf")) and "split_test" in rule
    both = pyskl(tmp_path / "both.pkl", {**lists, "xview_train": list("ab"), "xview_val": list("cde")})
    code, _, err = run(capsys, "prepare", "file", both, "--output-dir", tmp_path / "out")
    assert code == 2 and "--protocol xsub or --protocol xview" in err and not (tmp_path / "out").exists()
    code, out, _ = run(capsys, "prepare", "file", both, "--protocol", "xview", "--output-dir", tmp_path / "out")
    # One recording is in neither list.
    assert code == 0 and "xview: 2 train, 3 test" in out and "on no side" in out
    with pytest.raises(SkeletonFormatError, match="choose --protocol xsub or --protocol xview"):
        prepare("file", both, tmp_path / "other", options=PrepareOptions(protocol="xset"))


@pytest.mark.parametrize(
    "lists, protocol, sides",
    [
        ({}, None, None),
        ({"train": ["a"], "test": ["b"]}, None, {"a": "train", "b": "test"}),
        ({"train": ["a"], "val": ["c"], "test": ["b"]}, None, {"a": "train", "b": "test"}),
        ({"train1": ["a"], "test1": ["b"], "train2": ["b"], "test2": ["a"]}, "2", {"b": "train", "a": "test"}),
        ({"xsub_train": ["a"], "xsub_val": []}, "xsub", {"a": "train"}),
    ],
)
def test_lists_of_every_name_are_sides(lists, protocol, sides):
    """faults.md 4."""
    assert named_sides(lists, protocol, "x.pkl") == sides


def test_lists_that_are_no_split_are_told(tmp_path):
    """faults.md 4."""
    with pytest.warns(USDRLWarning, match="its lists are mini, not a split"):
        assert named_sides({"mini": ["a"]}, None, "x.pkl") is None
    with pytest.raises(SkeletonFormatError, match="'a' trains and tests"):
        named_sides({"train": ["a", "b"], "val": ["a"]}, None, "x.pkl")


def test_a_split_that_says_nothing_of_some_is_refused(tmp_path):
    """faults.md 4, 5: recordings on no side counted as training recordings."""
    sequences = sequences_of(labelled_arrays())
    sequences[3] = replace(sequences[3], split=None)
    store = write_store(sequences, tmp_path / "store")
    for data in (store, SkeletonList(sequences)):
        with pytest.raises(SkeletonFormatError, match="1 of 18 sequences are on no side of the split"):
            default_split(data)
        assert len(default_split(data[4:])[0]) > 0


@pytest.mark.parametrize("form", FORMS)
def test_the_only_clip_of_a_class_trains(in_three_forms, form):
    """faults.md 5: it was a test clip, and its class could not be learned."""
    labels = np.repeat([0, 1, 2], [9, 8, 1])
    changes = {"labels": labels, "split_test": None, "split_test_leaked": None, "subjects": None}
    data = open_data(in_three_forms(labelled_arrays(**changes))[form])
    with pytest.warns(USDRLWarning) as told:
        train, test, rule = default_split(data)
    assert 2 in train.column("labels") and sorted(set(test.column("labels"))) == [0, 1]
    assert "people may be on both sides" in rule and "the only clip of a class trains ('lunge')" in rule
    assert {warning.message.kind for warning in told} == {"a random split", "classes of one clip"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("named", [True, False])
def test_classes_are_those_that_have_clips(in_three_forms, form, named):
    """faults.md 19: labels 0, 10, 20 were 21 classes; a label of -1 is none."""
    labels = np.array([0, 10, 20, 10, 0, -1] * 3)
    names = np.array([f"action {number}" for number in range(22)]) if named else None
    data = open_data(in_three_forms(labelled_arrays(labels=labels, class_names=names))[form])
    before = data.class_names
    with pytest.warns(USDRLWarning) as told:
        found = with_clips(data, where="mine")
    expected = ["action 0", "action 10", "action 20"] if named else ["class 0", "class 10", "class 20"]
    assert found.class_names == expected and data.class_names == before
    assert found.column("labels").tolist() == [0, 1, 2, 1, 0] * 3
    assert [sequence.label for sequence in found] == [0, 1, 2, 1, 0] * 3
    messages = [str(warning.message) for warning in told]
    assert "mine: 3 of 18 sequences have no label and are left out" in messages
    assert any(f"of {len(before)} classes have no clip ('{before[1]}'" in message for message in messages)
    with pytest.warns(USDRLWarning, match="they stay, because the model has a head"):
        assert with_clips(data, before).class_names == before


def test_one_class_cannot_be_recognised_and_one_without_training_is_told(in_three_forms, tmp_path, capsys):
    """faults.md 19: 100 % of one class, 0 % of a class in the test part alone; both are told before training."""
    data = open_data(in_three_forms(labelled_arrays()).list)
    labels = data.column("labels")
    with pytest.raises(SkeletonFormatError, match="6 clips that train are all of one class, 'squat'"):
        check_classes(data.select(labels == 0), data.select(labels == 1))
    with pytest.warns(USDRLWarning, match=r"6 of 12 test clips are of classes without a training clip \('lunge'\)"):
        check_classes(data.select(labels < 2), data.select(labels > 0))
    one = in_three_forms(labelled_arrays(labels=np.zeros(COUNT, dtype=int)))
    for form in FORMS:
        with pytest.raises(SkeletonFormatError, match="nothing to tell apart"):
            finetune(one[form], tmp_path / "out")
        with pytest.raises(SkeletonFormatError, match="are compared with are all of one class"), pytest.warns():
            evaluate(MODEL, "retrieval/sbu", one[form], output_dir=tmp_path / "out")
    code, _, err = run(capsys, "finetune", one.npz, "--output-dir", tmp_path / "out")
    assert code == 2 and "2 of 3 classes have no clip" in err and "nothing to tell apart" in err
    assert not (tmp_path / "out").exists()


def test_empty_class_folders_are_told(tmp_path, capsys):
    """faults.md 19."""
    for folder in ("bow", "empty", "wave"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    for number in range(6):
        clip = np.random.default_rng(number).normal(size=(9, 25, 3))
        np.save(tmp_path / "raw" / ("wave" if number % 2 else "bow") / f"{number}.npy", clip)
    code, _, err = run(capsys, "prepare", "folder", tmp_path / "raw", "--output-dir", tmp_path / "store")
    assert code == 0 and "1 of 3 classes have no clip: 'empty'" in err
    options = ["--linear-probe", "--output-dir", tmp_path / "model"]
    code, _, err = run(capsys, "finetune", tmp_path / "store", *options)
    assert code == 0 and "1 of 3 classes have no clip ('empty'), so they are left out" in err
    assert "a random fifth of each class tests; who moves is not known" in err
    saved = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    assert saved["id2label"] == {"0": "bow", "1": "wave"}


def test_a_split_without_one_side_says_what_to_do():
    """Words that mislead: "leaves no sequence to train" had no remedy."""
    data = SkeletonList(sequences_of(labelled_arrays(split_test=np.ones(COUNT, dtype=bool))))
    with pytest.raises(
        SkeletonFormatError, match="to train: all 18 are on the other side.*Give the data 'split_test'"
    ):
        default_split(data)


def test_what_is_told_of_missing_data_is_there():
    """Words that mislead: nine benchmarks sent to README for what was not there."""
    for benchmark in BENCHMARKS.values():
        told = missing_data(benchmark)
        assert "in the README" not in told
        # What to do survives the cutting of a long sentence.
        assert "or use --tiny" in told[: LONGEST_SENTENCE * 2 // 3] or len(told) <= LONGEST_SENTENCE
    assert "make an .npz file with the arrays of usdrl_hub.SkeletonDataset" in missing_data(BENCHMARKS["linear/sbu"])
    assert "split_test_leaked" in SkeletonDataset.__doc__
    assert "--protocol xview --output-dir" in missing_data(BENCHMARKS["detection/pkummd1-xview"])


@pytest.mark.parametrize("benchmark", ["retrieval/nw_ucla", "linear/sbu", "linear/ui_prmd_vicon-correct"])
def test_every_form_is_evaluated_alike(in_three_forms, benchmark):
    """faults.md 3: the option to test on copies was ignored for a store."""
    forms = in_three_forms(labelled_arrays())
    for with_leak, count in ((False, 3), (True, 6)):
        records = [evaluate(MODEL, benchmark, forms[form], with_leak=with_leak) for form in FORMS]
        assert [record["n"] for record in records] == [{"train": 12, "test": count}] * 3
        assert records[0]["metrics"] == records[1]["metrics"] == records[2]["metrics"]
        assert len({record["split"] for record in records}) == 1


@pytest.mark.long
def test_detection_and_several_splits_are_evaluated_alike(in_three_forms, tmp_path):
    forms = in_three_forms(labelled_arrays(**SPLITS["several splits"]))
    changes = {"epochs": 1, "stride": 32}
    records = [evaluate(MODEL, "detection/utkinect_untrimmed", forms[form], fold=1, changes=changes) for form in FORMS]
    assert records[0]["metrics"] == records[1]["metrics"] == records[2]["metrics"]
    assert records[0]["n"] == {"train": 9, "test": 6}
    evaluate(MODEL, "retrieval/sbu", forms.list, output_dir=tmp_path / "out")
    with pytest.raises(ValueError, match="its data were in memory"):
        repeat(tmp_path / "out" / "metrics.json")


def test_names_that_tell_a_protocol_decide(in_three_forms):
    """faults.md 3, 4: a store split by subject was scored as cross-view, and an .npz was split by no protocol."""
    camera = np.array([1, 2, 3] * 6)
    names = np.array([f"S001C{c:03d}P{1 + n % 3:03d}R001A{1 + n % 2:03d}" for n, c in enumerate(camera)])
    forms = in_three_forms(labelled_arrays(names=names))
    for form in FORMS:
        with pytest.warns(USDRLWarning, match="own split is not ntu60 xsub: the split by the sequences"):
            record = evaluate(MODEL, "retrieval/ntu60-xsub", forms[form])
        # Of the people 1, 2 and 3 the first two train; the data's own split goes by the camera.
        assert record["split"] == "ntu60 xsub" and record["n"] == {"train": 12, "test": 6}
    videos = np.array([f"00{n // 3:02d}-{'LMR'[n % 3]}" for n in range(COUNT)])
    view = in_three_forms(labelled_arrays(names=videos, split_test=np.arange(COUNT) % 3 == 0))
    unknown = in_three_forms(labelled_arrays(names=videos, split_test=None, split_test_leaked=None))
    for form in FORMS:
        with pytest.raises(SkeletonFormatError, match="split by xview: prepare them with --protocol xsub"):
            evaluate(MODEL, "detection/pkummd1-xsub", view[form])
        with pytest.raises(SkeletonFormatError, match="the data have no split"):
            evaluate(MODEL, "detection/pkummd1-xsub", unknown[form])


@pytest.mark.long
def test_every_form_is_fine_tuned_alike(in_three_forms, tmp_path):
    forms = in_three_forms(labelled_arrays())
    recipe = FitRecipe(epochs=1, freeze_encoder=True)
    records = [
        finetune(forms[form], tmp_path / form, recipe=recipe, evaluation=Evaluation(baseline=True)) for form in FORMS
    ]
    assert records[0]["metrics"] == records[1]["metrics"] == records[2]["metrics"]
    assert len({record["checkpoint_sha256"] for record in records}) == 1
    assert [record["dataset"] for record in records] == ["data.npz", "store", "list of sequences"]
    # Sequences alone, as they come from a reader, do as well.
    plain = finetune(sequences_of(forms.arrays), tmp_path / "plain", recipe=recipe)
    assert plain["n"] == records[0]["n"] | {"test": 6}


@pytest.mark.long
def test_every_form_pretrains_alike(in_three_forms, tmp_path):
    forms = in_three_forms(labelled_arrays())
    settings = recipe(epochs=1, batch_size=6)
    weights = []
    for form in FORMS:
        pretrain([forms[form]], tmp_path / form, settings, split="train", probe=forms[form])
        weights.append(load_file(tmp_path / form / "model.safetensors"))
    for other in weights[1:]:
        assert all(torch.equal(other[name], weight) for name, weight in weights[0].items())
    pretrain(sequences_of(forms.arrays), tmp_path / "plain", settings, split="train")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert all(torch.equal(plain[name], weight) for name, weight in weights[0].items())
    with pytest.raises(ValueError, match="a run with another data|is finished"):
        pretrain(sequences_of(forms.arrays)[:9], tmp_path / "plain", settings, split="train")


def test_every_form_is_embedded_and_scored_over_time_alike(in_three_forms):
    forms = in_three_forms(labelled_arrays())
    embeddings = [extract_embeddings(forms[form], MODEL) for form in FORMS]
    assert np.array_equal(embeddings[0], embeddings[1]) and np.array_equal(embeddings[0], embeddings[2])
    frames = [extract_frame_embeddings(forms[form], MODEL) for form in FORMS]
    timelines = [list(iter_timelines(forms[form], MODEL)) for form in FORMS]
    for first, second, third in zip(*frames, strict=True):
        assert np.array_equal(first, second) and np.array_equal(first, third)
    for (sequence, timeline), *others in zip(*timelines, strict=True):
        for other, again in others:
            assert other.name == sequence.name and np.array_equal(again.probabilities, timeline.probabilities)
            assert other.fps == sequence.fps


@pytest.mark.parametrize("form", FORMS)
def test_a_store_of_any_form_loses_nothing(in_three_forms, tmp_path, form):
    """faults.md 2: folds, sides and class names were not written."""
    data = open_data(in_three_forms(labelled_arrays(folds=np.arange(COUNT) % 4))[form])
    copy = write_store(data, tmp_path / "copy")
    assert write_store(copy, tmp_path / "again").content_hash == copy.content_hash
    assert copy.class_names == data.class_names and set(copy.extra_columns) == set(data.extra_columns)
    for key in ("split_test", "split_test_leaked", "folds", "correct", "cameras", "setups"):
        np.testing.assert_array_equal(copy.column(key), data.column(key))
    for ours, theirs in zip(copy, data, strict=True):
        assert_same_sequence(ours, theirs)


@pytest.mark.parametrize("form", FORMS)
def test_hugging_face_rows_keep_every_column(in_three_forms, form):
    arrays = labelled_arrays(split_test=SPLITS["several splits"]["split_test"], folds=np.arange(COUNT) % 4)
    data = open_data(in_three_forms(arrays)[form])
    back = list_from_huggingface(to_huggingface(data))
    for ours, theirs in zip(back, data, strict=True):
        assert_same_sequence(ours, theirs)
    assert back.class_names == data.class_names and set(back.extra_columns) == set(data.extra_columns)
    for key in ("split_test", "split_test_leaked", "folds", "correct"):
        np.testing.assert_array_equal(back.column(key), arrays[key])


def test_lists_that_are_no_data_set_are_refused():
    sequences = sequences_of(labelled_arrays())
    other = sequences_of(labelled_arrays("kinect20"))[0]
    for wrong, message in (
        ([], "there is no sequence"),
        ([sequences[0], np.zeros((3, 25, 3))], "entry 1 is a ndarray, not a SkeletonSequence"),
        ([sequences[0], other], "'r00' differs in layout"),
        ([sequences[0], replace(sequences[1], units="mm")], "bring all into one layout with to_layout"),
    ):
        with pytest.raises(SkeletonFormatError, match=message):
            open_data(wrong)
    for columns, message in (({"folds": [0]}, "'folds' must have one"), ({"mood": ["a"] * COUNT}, "'mood' must")):
        with pytest.raises(SkeletonFormatError, match=message):
            SkeletonList(sequences, columns=columns)
    with pytest.raises(SkeletonFormatError, match="label 2 of 'labels' has no name among 2"):
        SkeletonList(sequences, ["a", "b"])
    with pytest.raises(SkeletonFormatError, match="some people have numbers"):
        SkeletonList([replace(sequences[0], subject="ada"), *sequences[1:]]).column("subjects")
