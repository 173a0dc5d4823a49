"""Data sets of the hub by their address, against the real client and `loopback_hub`."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import psutil
import pytest
import torch
import yaml
from huggingface_hub import HfApi, parse_eval_result_entries, scan_cache_dir
from PIL import Image
from safetensors.torch import load_file

from usdrl_hub import (
    SkeletonFormatError,
    SkeletonList,
    SkeletonSequence,
    SkeletonStore,
    USDRLFeatureExtractor,
    open_data,
)
from usdrl_hub.data.parquet_writer import write_parquet
from usdrl_hub.data.remote import HubAddress, commit_of
from usdrl_hub.data.samples import load_samples
from usdrl_hub.data.store_writer import write_store
from usdrl_hub.errors import USDRLWarning
from usdrl_hub.facts.recipes import Recipe
from usdrl_hub.hub.publish_data import draw_classes, draw_preview, publish_data
from usdrl_hub.hub.upload import Commit, PublishError
from usdrl_hub.pretraining.arguments import ComputeOptions
from usdrl_hub.pretraining.data import BlockSampler, PretrainingDataset
from usdrl_hub.pretraining.run import pretrain

from .helpers import recipe, run

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ADDRESS = "hf://datasets/ada/moves"


def clips(count: int = 24) -> SkeletonList:
    """Sample clips with everything that a sequence has: two people at times, events, parts, and a column."""
    samples = load_samples()
    sequences = []
    for number in range(count):
        one = samples[4 * number % len(samples)]
        keypoints = one.keypoints if number % 3 else np.repeat(one.keypoints, 2, axis=1)
        events = np.array([[number % 3, 1, 5]]) if number % 2 else None
        sequences.append(
            replace(
                one,
                keypoints=keypoints,
                name=f"clip {number}",
                subject=f"P{number % 5}",
                split="test" if number % 4 == 3 else "train",
                fps=30.0 if number % 2 else None,
                events=events,
            )
        )
    return SkeletonList(sequences, samples.class_names, {"score": np.arange(count) / 2})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> SkeletonStore:
    path = tmp_path_factory.mktemp("data") / "moves"
    data = clips()
    write_store(data, path)
    return SkeletonStore.open(path)


@pytest.fixture(scope="module")
def files(store, tmp_path_factory) -> dict[str, bytes]:
    """The files of a pushed data set, made once."""
    folder = tmp_path_factory.mktemp("parquet")
    written = write_parquet(store, folder)
    card = {"configs": [{"config_name": "default", "data_files": []}]}
    card["configs"][0]["data_files"] = [{"split": side, "path": f"data/{side}-*.parquet"} for side in written]
    found = {f"data/{name}": (folder / name).read_bytes() for names in written.values() for name in names}
    return found | {"README.md": f"---\n{json.dumps(card)}\n---\n".encode()}


@pytest.fixture
def moves(hub, files):
    hub.commit("datasets/ada/moves", files)
    return hub


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures that cost no time."""
    for name in ("draw_classes", "draw_preview"):
        monkeypatch.setattr(f"usdrl_hub.hub.publish_data.{name}", lambda data, path: path.write_bytes(b"picture"))


def sentence(source=ADDRESS, **kwargs) -> str:
    with pytest.raises(SkeletonFormatError) as caught:
        open_data(source, **kwargs)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def same(one, other) -> None:
    for key in ("name", "label", "subject", "camera", "split", "fps", "units", "up", "mirrored", "coordinates"):
        assert getattr(one, key) == getattr(other, key), key
    assert np.array_equal(one.keypoints, other.keypoints) and one.keypoints.dtype == other.keypoints.dtype
    assert (one.events is None) == (other.events is None)
    assert one.events is None or np.array_equal(one.events, other.events)


@pytest.mark.parametrize("stream", [False, True])
def test_a_data_set_of_the_hub_is_that_of_the_store(moves, store, stream):
    data = open_data(Path(ADDRESS) if stream else ADDRESS, stream=stream)
    assert len(data) == len(store) and data.class_names == store.class_names and data.layout == store.layout
    for number, (one, other) in enumerate(zip(data, store, strict=True)):
        same(one, other)
        same(data.read(number, 3, 9), store.read(number, 3, 9))
    for key in ("labels", "subjects", "split_test", "score", "names", "cameras"):
        assert np.array_equal(data.column(key), store.column(key)) or data.column(key) is store.column(key) is None
    assert data.max_persons == 2 and np.array_equal(data.lengths, store.lengths)
    mask = np.asarray(store.column("split_test"))
    same(data.select(mask)[2], store.select(mask)[2])


def test_a_split_is_a_data_set_of_its_own(moves, store):
    test = open_data(f"{ADDRESS}:test")
    assert test.names == store.select(np.asarray(store.column("split_test"))).names
    assert test.column("split_test") is None
    assert "there is no split 'dev', but train, test" in sentence(f"{ADDRESS}:dev")


def test_the_pictures_of_a_card_are_drawn(tmp_path):
    data = clips(3)
    draw_classes(data, tmp_path / "classes.png")
    draw_preview(data, tmp_path / "preview.gif")
    assert (tmp_path / "preview.gif").read_bytes()[:4] == b"GIF8"
    with Image.open(tmp_path / "classes.png") as picture:
        assert picture.width > 500 and picture.height > 300


def test_a_push_makes_one_commit_that_opens_as_the_store(hub, store, undrawn, capsys, tmp_path):
    code, out, err = run(capsys, "push", store.path, "ada/moves", "--dataset", "--license", "cc-by-4.0")
    assert code == 0 and "hf://datasets/ada/moves" in out, err
    pushed = hub.files("datasets/ada/moves")
    assert {"README.md", "classes.png", "preview.gif"} < set(pushed) and len(hub.commits("datasets/ada/moves")) == 2
    card = pushed["README.md"].decode()
    assert "license: cc-by-4.0" in card and "deep squat" in card and "18 train, 6 test" in card
    for content in pushed.values():
        assert str(tmp_path).encode() not in content and str(store.path.parent).encode() not in content
    for one, other in zip(open_data(ADDRESS), store, strict=True):
        same(one, other)
    code, out, err = run(capsys, "push", store.path, "ada/moves", "--dataset", "--license", "cc-by-4.0")
    assert code == 0 and "up to date" in out and len(hub.commits("datasets/ada/moves")) == 2
    api = HfApi()
    assert api.dataset_info("ada/moves").siblings and not api.repo_exists("ada/moves")


def test_datasets_itself_reads_what_was_pushed(hub, files, store, tmp_path):
    datasets = pytest.importorskip("datasets")
    for name, content in files.items():
        (tmp_path / Path(name).name).write_bytes(content)
    rows = datasets.load_dataset(
        "parquet",
        data_files={side: str(tmp_path / f"{side}-*.parquet") for side in ("train", "test")},
        cache_dir=str(tmp_path / "cache"),
    )
    assert rows["test"].features["label"].names == store.class_names and len(rows["train"]) == 18
    assert np.array_equal(np.asarray(rows["train"][1]["keypoints"], np.float32)[:, :1], store[1].keypoints)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "name the licence"),
        (("--license", "CC BY"), "no licence in the hub's spelling"),
        (("--license", "mit", "--include-optimizer"), "--include-optimizer has no effect with --dataset"),
    ],
)
def test_a_push_of_data_that_says_too_little_is_refused(hub, store, capsys, arguments, message):
    code, _, err = run(capsys, "push", store.path, "ada/moves", "--dataset", *arguments)
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not hub.repos


@pytest.mark.parametrize("name", ["/home/ada/clip", "C:\\clips\\one", "hf_abcdefghijklmnopqrstuvwxyz"])
def test_what_tells_of_this_machine_is_refused(hub, name):
    data = clips(3)
    data = SkeletonList([replace(one, name=name) for one in data], data.class_names)
    with pytest.raises(PublishError, match="the name of a recording"):
        publish_data(data, "ada/moves", "mit")
    assert not hub.repos


@pytest.mark.parametrize("faults", [{"received": 100}, {"status": 500, "times": 20}, {"status": 403, "times": 20}])
def test_an_upload_that_fails_leaves_nothing(hub, store, undrawn, faults, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.fail("POST /api/datasets/ada/moves/commit", **({"times": 9} | faults))
    with pytest.raises(PublishError):
        publish_data(store, "ada/moves", "mit")
    assert not hub.repos
    hub.faults.clear()
    assert publish_data(store, "ada/moves", "mit", commit=Commit(private=True)).changed
    assert hub.repos["datasets/ada/moves"].private


@pytest.mark.parametrize("stream", [False, True])
def test_a_hub_that_insists_on_xet_is_named_in_a_sentence(moves, store, undrawn, stream):
    moves.xet_only = True
    said = "this hub stores files by Xet only: install hf_xet"
    assert said in sentence(stream=stream)
    with pytest.raises(PublishError, match=said):
        publish_data(store, "ada/others", "mit")
    assert "datasets/ada/others" not in moves.repos


def test_private_and_gated_data_are_named_in_a_sentence(moves, monkeypatch):
    moves.repos["datasets/ada/moves"].private = True
    monkeypatch.setenv("HF_TOKEN", token := moves.add_user("bob"))
    assert "no data set of this name that you may read" in (said := sentence())
    moves.repos["datasets/ada/moves"].private = False
    moves.repos["datasets/ada/moves"].readers = set()
    assert "it is gated: ask for access on" in (gated := sentence())
    assert token not in said + gated
    moves.repos["datasets/ada/moves"].readers = {"bob"}
    assert len(open_data(ADDRESS)) == 24


@pytest.mark.parametrize(
    "source, message",
    [
        ("hf://ada/moves", "no address of a data set"),
        ("hf://datasets/ada", "no address of a data set"),
        ("hf://datasets/ada/moves?nonsense=1", "'nonsense=1' says nothing of it"),
        ("hf://datasets/ada/moves?fps=fast", "fps must be between"),
        ("hf://datasets/-a/m..s", "cannot be a data set"),
        ("hf://datasets/ada/nothing", "no data set of this name"),
        (f"{ADDRESS}@v9", "the hub has no revision 'v9' of it"),
        (f"{ADDRESS}:other/train", "there is no configuration 'other', but default"),
    ],
)
def test_a_wrong_address_is_named_in_a_sentence(moves, source, message):
    assert message in sentence(source)


def test_a_revision_is_kept_apart_and_a_new_commit_is_seen(moves, files, tmp_path):
    first = commit_of(ADDRESS)
    moves.commit("datasets/ada/moves", {"README.md": b"---\nlicense: mit\n---\n"})
    assert commit_of(ADDRESS) != first and commit_of(first) == first
    assert len(open_data(first)) == len(open_data(ADDRESS)) == 24


def test_what_was_opened_is_read_without_hub_from_a_read_only_cache(moves, store, monkeypatch, tmp_path):
    assert len(open_data(f"{ADDRESS}:test")) == 6
    downloads = len([call for call in moves.requests if call.path.startswith("/storage")])
    assert downloads == 1 and len(open_data(f"{ADDRESS}:test")) == 6
    assert len([call for call in moves.requests if call.path.startswith("/storage")]) == downloads
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    for path in [cache, *cache.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    moves.stop()
    try:
        test = open_data(f"{ADDRESS}:test")
        same(test[0], replace(store.select(np.asarray(store.column("split_test")))[0], split=None))
        assert "the cache holds a part of it, and the hub is not reachable" in sentence(ADDRESS)
        assert "not in the cache, and the hub is not reachable" in sentence("hf://datasets/ada/other")
        assert scan_cache_dir(cache).repos and not scan_cache_dir(cache).warnings
    finally:
        for path in [cache, *cache.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_download_that_is_cut_goes_on(moves, store):
    moves.fail("GET /storage", sent=2000, times=2)
    for one, other in zip(open_data(ADDRESS), store, strict=True):
        same(one, other)


def test_a_hub_that_fails_while_it_is_read_is_named_in_a_sentence(moves, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    data = open_data(ADDRESS, stream=True)
    moves.fail("GET /(storage|datasets)", status=500, times=100)
    with pytest.raises(SkeletonFormatError, match="cannot be read") as caught:
        data[0]
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_files_are_refused(hub, files):
    for name, content in {
        "cut": {name: content[: len(content) // 2] for name, content in files.items()},
        "empty": {"README.md": b"nothing"},
    }.items():
        hub.commit(f"datasets/ada/{name}", content)
    assert "no whole Parquet file" in sentence("hf://datasets/ada/cut")
    assert "there is no Parquet file in it" in sentence("hf://datasets/ada/empty")


@pytest.mark.parametrize(
    "column, values, message",
    [
        ("num_frames", [500] * 6, "num_frames does not fit"),
        ("label", [77] * 6, "array 'label' is 77"),
        ("split", ["dev"] * 6, "column 'split' has 'dev'"),
        ("coordinates", ["4d"] * 6, "column 'coordinates' has '4d'"),
        ("layout", ["nonsense"] * 6, "nonsense"),
        ("num_persons", [None] * 6, "no whole number"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(hub, files, tmp_path, column, values, message):
    name = "data/test-00000-of-00001.parquet"
    (tmp_path / "one.parquet").write_bytes(files[name])
    table = pq.read_table(tmp_path / "one.parquet")
    number = table.schema.get_field_index(column)
    table = table.set_column(number, column, pa.array(values))
    pq.write_table(table, tmp_path / "one.parquet")
    hub.commit("datasets/ada/odd", {name: (tmp_path / "one.parquet").read_bytes()})
    with pytest.raises(SkeletonFormatError, match=message):
        list(open_data("hf://datasets/ada/odd"))


def table_file(tmp_path, **columns) -> bytes:
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    return (tmp_path / "table.parquet").read_bytes()


@pytest.fixture
def tables(hub, tmp_path):
    """Data sets of other people, in all forms."""
    data = clips(6)
    nested = [one.keypoints[:, 0].tolist() for one in data]
    flat = [one.keypoints[:, 0].reshape(one.num_frames, -1).tolist() for one in data]
    names = [data.class_names[one.label] for one in data]
    hub.commit("datasets/bob/nested", {"train.parquet": table_file(tmp_path, motion=nested, action=names)})
    hub.commit("datasets/bob/flat", {"a/test.parquet": table_file(tmp_path, motion=flat, label=[0, 1, -1, 0, 1, 2])})
    steps = {
        "state": [frame for clip in flat for frame in clip],
        "episode_index": [number for number, clip in enumerate(flat) for _ in clip],
        "timestamp": [step / 25 for clip in flat for step in range(len(clip))],
        "task_index": [number % 2 for number, clip in enumerate(flat) for _ in clip],
    }
    hub.commit("datasets/bob/robot", {"data/chunk-000/file-000.parquet": table_file(tmp_path, **steps)})
    return data


def test_any_column_of_keypoints_is_read(tables):
    nested = open_data("hf://datasets/bob/nested?label=action", "ui-prmd39", keypoints="motion")
    assert nested.class_names == sorted({tables.class_names[one.label] for one in tables})
    assert [nested.class_names[one.label] for one in nested] == [tables.class_names[one.label] for one in tables]
    flat = open_data("hf://datasets/bob/flat:test?keypoints=motion&layout=ui-prmd39&fps=30")
    assert [one.label for one in flat] == [0, 1, None, 0, 1, 2] and flat[0].fps == 30
    robot = open_data("hf://datasets/bob/robot?keypoints=state&layout=ui-prmd39&label=task_index")
    assert [one.label for one in robot] == [0, 1, 0, 1, 0, 1] and robot[3].fps == 25
    for found in (nested, flat, robot):
        assert found.layout.name == "ui-prmd39"
        for one, other in zip(found, tables, strict=True):
            assert np.array_equal(one.keypoints[:, 0], other.keypoints[:, 0])


@pytest.mark.parametrize(
    "source, message",
    [
        (
            "nested",
            "no column 'keypoints', but motion, action: name that of the keypoints (--keypoints COLUMN",
        ),
        ("nested?keypoints=motion", "no column 'layout' says which joints"),
        ("nested?keypoints=action&layout=ntu25", "is no list, not lists of numbers"),
        ("nested?keypoints=motion&layout=ntu25", "39"),
        ("nested?keypoints=motion&layout=nix", "nix"),
        ("nested?keypoints=motion&layout=ui-prmd39&label=nix", "there is no column 'nix'"),
        ("flat?keypoints=motion", "name the layout (--layout)"),
        ("flat?keypoints=motion&layout=ntu25", "a frame has 117 numbers, but layout ntu25 has 25 joints"),
    ],
)
def test_columns_that_are_no_keypoints_are_refused(tables, source, message):
    assert message in sentence(f"hf://datasets/bob/{source}")
    assert "leave --stream out" in sentence("hf://datasets/bob/flat?keypoints=motion&layout=ui-prmd39", stream=True)


def test_a_pushed_data_set_is_a_benchmark_on_which_models_have_results(hub, store, undrawn, capsys, tmp_path):
    publish_data(store, "ada/moves", "cc-by-4.0")
    benchmark = yaml.safe_load(hub.files("datasets/ada/moves")["eval.yaml"])
    tested = int((store.column("split_test") & (store.column("labels") >= 0)).sum())
    assert benchmark["name"] == "moves" and f"{tested} clips test" in benchmark["description"]
    # The hub refuses a framework that is not in its list.
    assert set(benchmark) == {"name", "description", "tasks"}
    tasks = [task["id"] for task in benchmark["tasks"]]
    assert {(task["config"], task["split"]) for task in benchmark["tasks"]} == {("default", "test")}
    commit = hub.commits("datasets/ada/moves")[0].oid
    arguments = ["--model", "usdrl/tiny-uiprmd", "--linear-probe", "--output-dir"]
    code, _, err = run(capsys, "finetune", ADDRESS, *arguments, tmp_path / "mine")
    assert code == 0, err
    record = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    assert (record["dataset"], record["address"]) == ("ada/moves", f"{ADDRESS}@{commit}")
    assert record["licenses"]["ada/moves"] == "cc-by-4.0"
    saved = tmp_path / "mine" / ".eval_results" / "moves.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(saved.read_text()))
    assert [entry.task_id for entry in entries] == tasks
    assert {(entry.dataset_id, entry.dataset_revision) for entry in entries} == {("ada/moves", commit)}
    # A model that is not trained on it, on its test split alone.
    code, _, err = run(
        capsys,
        "report",
        "usdrl/tiny-uiprmd",
        "--data",
        f"{ADDRESS}:test",
        "--part",
        "all",
        "--output-dir",
        tmp_path / "r",
    )
    assert code == 0, err
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / "r" / ".eval_results" / "moves.yaml").read_text()))
    assert [entry.task_id for entry in entries] == tasks and {entry.notes for entry in entries} == {None}
    # Without a test split nothing is a benchmark, and the file of an earlier push goes.
    publish_data(store.select(~store.column("split_test")), "ada/moves", "cc-by-4.0")
    assert "eval.yaml" not in hub.files("datasets/ada/moves")


def test_the_commands_take_an_address(moves, tables, store, capsys, tmp_path):
    code, out, err = run(capsys, "check", ADDRESS)
    assert code == 0 and "data set, whole: 24 sequences" in out, err
    code, out, _ = run(capsys, "inspect", "hf://datasets/bob/nested", "--keypoints", "motion", "--layout", "ui-prmd39")
    assert code == 0 and "ui-prmd39" in out
    code, out, err = run(capsys, "prepare", "file", ADDRESS, "--output-dir", tmp_path / "copy")
    assert code == 0, err
    for one, other in zip(SkeletonStore.open(tmp_path / "copy"), store, strict=True):
        same(one, other)
    for source in (ADDRESS, store.path):
        code, _, err = run(capsys, "embed", source, "--output", tmp_path / f"{Path(source).name}.npz")
        assert code == 0, err
    code, out, err = run(capsys, "map", ADDRESS, "--output", tmp_path / "map.png")
    assert code == 0, err
    code, out, err = run(capsys, "embed", "hf://datasets/ada/none", "--output", tmp_path / "none.npz")
    assert code == 2 and "no data set of this name" in err and not (tmp_path / "none.npz").exists()


def test_two_processes_open_it_at_once(moves, hub_environment, tmp_path):
    code = f"from usdrl_hub import open_data; print(sum(one.num_frames for one in open_data('{ADDRESS}')))"
    environment = hub_environment | {"HF_TOKEN": moves.token}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=240)[0].strip() for process in started]
    assert answers[0] == answers[1] and answers[0].isdecimal()
    assert moves.token not in "".join(answers)


def test_an_address_is_read_and_written(tmp_path):
    address = HubAddress.parse("hf:/datasets/a/b@refs/pr/1:c/train?keypoints=x&fps=25")
    assert (address.revision, address.split, address.keypoints, address.fps) == ("refs/pr/1", "c/train", "x", 25.0)
    assert str(address) == "hf://datasets/a/b@refs/pr/1:c/train"
    assert os.fspath(Path("hf://datasets/a/b")) == "hf:/datasets/a/b"


def test_validation_clips_train_with_a_notice(hub, tmp_path):
    data = clips(4)
    rows = {"keypoints": [one.keypoints[:, 0].tolist() for one in data], "label": [one.label for one in data]}
    content = table_file(tmp_path, **rows)
    hub.commit("datasets/bob/parts", {f"{side}.parquet": content for side in ("train", "val", "test")})
    with pytest.warns(USDRLWarning, match="validation"):
        found = open_data("hf://datasets/bob/parts?layout=ui-prmd39")
    assert sorted(one.split for one in found) == ["test"] * 4 + ["train"] * 8


@pytest.fixture
def small(monkeypatch) -> Recipe:
    """A recipe whose order has several blocks of the few clips."""
    monkeypatch.setattr("usdrl_hub.pretraining.data.BLOCK_SEQUENCES", 5)
    monkeypatch.setattr("usdrl_hub.pretraining.data.BLOCKS_SHUFFLED", 2)
    made = recipe({"num_persons": 2}, epochs=2, save_epochs=0.7)
    return replace(made, extractor={"normalization": "body"}, synthetic_pairs=0.5)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.long
def test_streaming_ends_with_the_weights_of_the_local_store(moves, store, small, tmp_path):
    streaming = ComputeOptions(stream=True)
    pretrain([store.path], tmp_path / "local", small, compute=streaming)
    pretrain([ADDRESS], tmp_path / "hub", small, compute=streaming)
    local, remote = weights(tmp_path / "local"), weights(tmp_path / "hub")
    assert local.keys() == remote.keys() and all(torch.equal(local[key], remote[key]) for key in local)
    assert not list(Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("*.parquet"))
    # As if it had been killed after its first checkpoint.
    checkpoints = sorted((tmp_path / "hub").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(checkpoints[-1])
    (tmp_path / "hub" / "model.safetensors").unlink()
    pretrain([ADDRESS], tmp_path / "hub", small, compute=streaming)
    again = weights(tmp_path / "hub")
    assert all(torch.equal(local[key], again[key]) for key in local)
    # Another commit is other data.
    moves.commit("datasets/ada/moves", {"note.txt": b"changed"})
    with pytest.raises(ValueError, match="another run|other"):
        pretrain([ADDRESS], tmp_path / "hub", small, compute=streaming)


STREAMING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from tests.helpers import recipe
from usdrl_hub.pretraining import data
from usdrl_hub.pretraining.arguments import ComputeOptions
from usdrl_hub.pretraining.run import pretrain
from usdrl_hub.pretraining.trainer import USDRLPreTrainer

data.BLOCK_SEQUENCES, data.BLOCKS_SHUFFLED = 5, 2
made = recipe({"num_persons": 2, "drop_path_rate": 0.0}, epochs=3, save_epochs=0.7, batch_size=8)
made = replace(made, extractor={"normalization": "body"}, synthetic_pairs=0.5)
kill_at, count = int(sys.argv[4]), 0
step = USDRLPreTrainer.training_step

def killed(*args, **kwargs):
    global count
    count += 1
    if count == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*args, **kwargs)

USDRLPreTrainer.training_step = killed
pretrain([sys.argv[2]], sys.argv[3], made, compute=ComputeOptions(stream=True))
"""


@pytest.mark.slow
def test_a_killed_stream_goes_on_to_the_same_bytes_and_two_processes_equal_one(moves, hub_environment, tmp_path):
    """By a SIGKILL in every part of the run, over the network."""
    (tmp_path / "program.py").write_text(STREAMING)
    root = str(Path(__file__).parent.parent)
    environment = hub_environment | {"HF_TOKEN": moves.token, "OMP_NUM_THREADS": "1"}

    def run_it(folder: str, kill_at: int = 0, launch: tuple[str, ...] = ()) -> int:
        program = [str(tmp_path / "program.py"), root, ADDRESS, str(tmp_path / folder), str(kill_at)]
        done = subprocess.run([sys.executable, *launch, *program], env=environment, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
        assert moves.token not in done.stdout + done.stderr
        return done.returncode

    assert run_it("whole") == 0
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    steps = json.loads((tmp_path / "whole" / "metrics.json").read_text())["steps"]
    assert steps >= 9
    # Before a checkpoint, between two, in the middle of an epoch, and at the last step; then twice in one run.
    for kills in ((1,), (4,), (steps // 2 + 1,), (steps,), (5, 3)):
        folder = f"killed-{'-'.join(map(str, kills))}"
        for kill in kills:
            assert run_it(folder, kill) == -signal.SIGKILL
            assert not (tmp_path / folder / "model.safetensors").exists()
        assert run_it(folder) == 0
        assert (tmp_path / folder / "model.safetensors").read_bytes() == whole, kills
    assert run_it("two", launch=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")) == 0
    logs = [json.loads((tmp_path / name / "metrics.json").read_text())["log"] for name in ("whole", "two")]
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    # The same batches; sums are rounded in another order, which Adam enlarges from step to step.
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    # Nothing of the data stays on the disk.
    assert not list((tmp_path / "home").rglob("*.parquet"))


def test_the_order_by_blocks_is_a_function_of_seed_and_epoch(store, small):
    def order(seed: int, epoch: int) -> list[int]:
        extractor = USDRLFeatureExtractor("ntu25", normalization="body", num_frames=16)
        data = PretrainingDataset([store], extractor, 20, in_memory=False, in_blocks=True, seed=seed)
        data.set_epoch(epoch)
        assert sorted(data.order()) == list(range(len(data)))
        # Blocks of five clips; two of them are read in turn.
        blocks = data.segments[data.order()][:, 1] // 5
        spans = [np.flatnonzero(blocks == block)[[0, -1]] for block in np.unique(blocks)]
        begun = [sum(first <= place <= last for first, last in spans) for place in range(len(blocks))]
        assert len(spans) == 5 and max(begun) == 2
        return list(BlockSampler(data))

    assert order(0, 0) == order(0, 0) != order(0, 1) != order(1, 1)
    with pytest.raises(ValueError, match="in_memory"):
        PretrainingDataset([store], USDRLFeatureExtractor("ntu25", normalization="body"), in_blocks=True)


@pytest.mark.slow
def test_memory_does_not_grow_over_an_epoch_of_many_clips(hub, tmp_path, monkeypatch):
    # A fifteenth of the keypoints.
    monkeypatch.setattr("usdrl_hub.data.parquet.KEPT_BYTES", 8 << 20)
    random = np.random.default_rng(0)
    base = random.normal(size=(8, 4, 1, 25, 3)).astype(np.float32)
    clip = SkeletonSequence(base[0], "ntu25", fps=30.0)
    many = (replace(clip, keypoints=base[number % 8] + number / 1e5, name=f"{number}") for number in range(100_000))
    made = write_store(many, tmp_path / "many")
    (tmp_path / "parquet").mkdir()
    written = write_parquet(made, tmp_path / "parquet")
    names = [name for side in written.values() for name in side]
    hub.commit("datasets/ada/many", {f"data/{name}": (tmp_path / "parquet" / name).read_bytes() for name in names})
    extractor = USDRLFeatureExtractor("ntu25", normalization="body", num_frames=16)
    data = PretrainingDataset(
        [open_data("hf://datasets/ada/many", stream=True)], extractor, in_memory=False, in_blocks=True
    )
    assert len(data) == 100_000
    order, held = data.order(), []
    hub.requests.clear()
    for start in range(0, len(order), 2000):
        for row in order[start : start + 2000]:
            data.sources[0].read(int(row))
        hub.requests.clear()
        held.append(psutil.Process().memory_info().rss / 2**20)
    # What is kept fills up first.
    assert max(held[10:]) < max(held[:10]) + 20
