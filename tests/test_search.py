"""`MotionIndex`, `usdrl index` and `usdrl search`."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from usdrl_hub import Engine, MotionIndex, SkeletonFormatError, SkeletonSequence, WindowOptions, write_store
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.errors import NonFiniteError
from usdrl_hub.search.build import cut
from usdrl_hub.search.files import IndexFormatError
from usdrl_hub.search.hits import Hit, merged
from usdrl_hub.search.vectors import InvertedFile, NearestVectors, unit_vectors

from .helpers import run

MODEL = "usdrl/mocap-tiny"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(MODEL, head=False, device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory, engine) -> Path:
    """An index of the sample clips; copy it before writing to it."""
    path = tmp_path_factory.mktemp("search") / "index"
    MotionIndex.build([sample_path()], path, engine)
    return path


@pytest.fixture
def index(made, tmp_path) -> MotionIndex:
    # As deep below the root as the original, because sources are relative to the index.
    shutil.copytree(made, made.parent / tmp_path.name)
    return MotionIndex.open(made.parent / tmp_path.name)


def test_windows_of_a_recording_cover_it():
    sequence = SkeletonSequence(np.ones((75, 1, 25, 3), np.float32), fps=30.0)
    size, windows = cut(sequence, window=1.0, stride=0.5)
    assert size == 30 and [start for start, _ in windows] == [0, 15, 30, 45]
    assert {window.num_frames for _, window in windows} == {30}
    assert cut(sequence, window=0, stride=0.5)[1][0][1].num_frames == 75


def test_a_clip_finds_itself_first_and_is_left_out_by_its_source(made, engine):
    index, clip = MotionIndex.open(made), load_samples()[33]
    hits = index.search(clip, engine, top_k=5)
    assert len(hits) == 5 and hits[0].recording == clip.name and hits[0].score == pytest.approx(1, abs=1e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    others = index.search(clip, engine, top_k=5, source=sample_path())
    assert clip.name not in [hit.recording for hit in others]
    label = load_samples().class_names[clip.label]
    assert others[0].label == label and others[0].to_dict()["to"] == pytest.approx(others[0].end / 33.3333, abs=1e-3)


def test_hits_are_the_cosines_of_embeddings(made, engine):
    """Beside the windows embedded one by one."""
    from usdrl_hub import extract_embeddings

    index, clip = MotionIndex.open(made), load_samples()[5]
    [hit] = index.search(clip, engine, top_k=1, source=sample_path())
    other = next(other for other in load_samples() if other.name == hit.recording)
    _, windows = cut(other, 2.0, 0.5)
    rows = unit_vectors(extract_embeddings([clip, *(window for _, window in windows)], engine))
    assert hit.score == pytest.approx(float((rows[1:] @ rows[0]).max()), abs=2e-3)


def test_hits_are_read_from_their_files(made, engine):
    index, clip = MotionIndex.open(made), load_samples()[33]
    hits = index.search(clip, engine, top_k=3)
    found = index.read(hits, engine)
    assert [sequence.num_frames for sequence in found] == [hit.end - hit.start for hit in hits]
    expected = engine.extractor.prepare(clip).keypoints[hits[0].start : hits[0].end]
    np.testing.assert_array_equal(found[0].keypoints, expected)


def test_a_part_in_seconds(made, engine):
    index, clip = MotionIndex.open(made), load_samples()[0]
    assert index.prepared(clip, engine, start=0.6, end=1.2).span == (20, 40)
    for start, end in ((-1, None), (99, None), (1, 1), (1, 0.5), (0, 99), (float("nan"), None)):
        with pytest.raises(ValueError, match="seconds"):
            index.search(clip, engine, start=start, end=end)


def window(start: int, score: float, name: str = "a") -> Hit:
    return Hit(name, Path("f"), start, start + 60, 30.0, score, None, 1)


def test_neighbouring_windows_are_one_hit():
    windows = [window(100, 0.9), window(115, 0.8), window(85, 0.7), window(300, 0.6), window(110, 0.5, "b")]
    hits = merged(windows, 10, longest=3.0)
    assert [(hit.recording, hit.start, hit.end, hit.score, hit.windows) for hit in hits] == [
        ("a", 85, 175, 0.9, 3),
        ("a", 300, 360, 0.6, 1),
        ("b", 110, 170, 0.5, 1),
    ]
    assert len(merged(windows, 1, longest=3.0)) == 1
    # A hit does not grow without end over motion that goes on.
    steady = merged([window(start, 0.9 - start / 1e4) for start in range(0, 600, 15)], 10, longest=3.0)
    assert len(steady) > 3 and max(hit.end - hit.start for hit in steady) <= 90


def test_vectors_that_are_not_finite_are_refused():
    for wrong in (np.nan, np.inf):
        with pytest.raises(NonFiniteError, match="the vectors to search"):
            NearestVectors.of(np.array([[1.0, 0.0], [wrong, 1.0]]))


def test_inverted_file_finds_what_exact_search_finds():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((40, 24))
    vectors = unit_vectors(middles[rng.integers(0, 40, 3000)] + 0.3 * rng.standard_normal((3000, 24)))
    queries = vectors[:20]
    exact = NearestVectors.of(vectors)
    near = NearestVectors.of(vectors, exact_limit=2999)
    assert exact.inverted is None and near.inverted is not None
    found, expected = near.search(queries, 10), exact.search(queries, 10)
    shared = [len({*a} & {*b}) for a, b in zip(found[1].tolist(), expected[1].tolist(), strict=True)]
    assert np.mean(shared) >= 9.9
    np.testing.assert_allclose(found[0], expected[0], atol=1e-3)
    # What is not in the lists yet is compared exactly.
    partly = NearestVectors(vectors.__getitem__, 3000, 24, near.inverted.without(np.arange(3000) < 2000))
    assert len(partly.inverted) == 2000
    np.testing.assert_allclose(partly.search(queries, 10)[0], expected[0], atol=1e-3)


def test_an_approximate_index_is_extended_and_shrinks(tmp_path, engine):
    pytest.importorskip("faiss")
    samples = load_samples()
    write_store(samples[:60], tmp_path / "first")
    write_store(samples[60:], tmp_path / "second")
    index = MotionIndex.build([tmp_path / "first"], tmp_path / "index", engine, exact_limit=50)
    assert index.about.startswith("IVF-PQ search")
    index = MotionIndex.build([tmp_path / "second"], tmp_path / "index", engine, exact_limit=50)
    assert len(index.inverted) == len(index) and index.num_recordings == 100
    clip = samples[70]
    assert index.search(clip, engine, top_k=1)[0].recording == clip.name
    index, count = index.remove([clip.name])
    assert count == 1 and len(index.inverted) == len(index)
    assert index.search(clip, engine, top_k=1)[0].recording != clip.name
    index, count = index.remove([tmp_path / "first"])
    assert count == 60 and index.num_recordings == 39
    assert len(MotionIndex.build([tmp_path / "first"], tmp_path / "index", engine)) > len(index)


def test_adding_passes_over_what_is_there(index, engine, tmp_path):
    before = index.header
    again = MotionIndex.build([sample_path()], index.path, engine)
    assert again.header == before
    data = load_samples()
    write_store(data[:3], tmp_path / "store")
    assert MotionIndex.build([tmp_path / "store"], index.path, engine).num_recordings == 103
    shutil.rmtree(tmp_path / "store")
    write_store(data[:2], tmp_path / "store")
    with pytest.warns(UserWarning, match="1 sources have changed"):
        changed = MotionIndex.build([tmp_path / "store"], index.path, engine)
    assert changed.num_recordings == 102


def test_a_stopped_run_continues(tmp_path, engine, monkeypatch):
    """The windows are those of a run that was not stopped, whether it was stopped before or after a part's file.

    Kills at any moment: tests/test_kills.py.
    """
    write_store(load_samples()[:40], tmp_path / "store")
    whole = MotionIndex.build([tmp_path / "store"], tmp_path / "whole", engine)
    monkeypatch.setattr("usdrl_hub.search.build._CHUNK", 8)
    monkeypatch.setattr("usdrl_hub.search.build._PART", 1)
    written = []

    def stop(self, arrays, *rest):
        written.append(1)
        if len(written) == 3:
            raise KeyboardInterrupt
        header = save(self, arrays, *rest)
        if len(written) == 4:
            # The header does not name the file yet, as after a kill.
            raise KeyboardInterrupt
        return header

    from usdrl_hub.search.files import Header

    save = Header.with_file
    monkeypatch.setattr(Header, "with_file", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            MotionIndex.build([tmp_path / "store"], tmp_path / "index", engine)
    assert MotionIndex.open(tmp_path / "index").num_recordings == 16
    resumed = MotionIndex.build([tmp_path / "store"], tmp_path / "index", engine)
    assert [name for part in resumed.parts for name in part.names] == [n for part in whole.parts for n in part.names]
    numbers = np.arange(len(whole))
    np.testing.assert_allclose(resumed.vectors(numbers), whole.vectors(numbers), atol=2e-3)
    named = {"index.json", *(stored.file for stored in resumed.header.files)}
    assert {file.name for file in resumed.path.iterdir()} == named


def test_another_model_is_refused(index, engine, tmp_path):
    import copy

    import torch

    clip = load_samples()[0]
    with pytest.raises(IndexFormatError, match=r"have 256 numbers, those of this model 160"):
        index.search(clip, "usdrl/tiny-uiprmd")
    other = copy.deepcopy(Engine.load(MODEL, head=False, fused=False).model)
    # A revision of hardly other weights is another one, too, though bfloat16 changes more.
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01 * parameter.abs().mean() * torch.randn_like(parameter))
    with pytest.raises(IndexFormatError, match="another model or revision"):
        MotionIndex.build([sample_path()], index.path, Engine(other.eval(), engine.extractor))
    turned = replace_extractor(engine, num_frames=32)
    with pytest.raises(IndexFormatError, match=r"preprocessing num_frames=64, this model has 32"):
        index.search(clip, turned)
    # The same model, not fused or in half precision, is the same.
    assert index.search(clip, Engine.load(MODEL, head=False, fused=False), top_k=1)[0].recording == clip.name
    assert index.search(clip, Engine.load(MODEL, head=False, dtype="bfloat16"), top_k=1)[0].recording == clip.name


def replace_extractor(engine: Engine, **changes) -> Engine:
    return Engine(engine.model, type(engine.extractor)(**{**engine.extractor.to_dict(), **changes}))


def test_other_windows_are_refused(index, engine):
    with pytest.raises(IndexFormatError, match=r"--window 2.0, not 3.0"):
        MotionIndex.build([sample_path()], index.path, engine, options=WindowOptions(window=3.0))
    for wrong in ({"window": -1}, {"window": float("nan")}, {"stride": 0}, {"stride": 5}):
        with pytest.raises(ValueError, match="got"):
            WindowOptions(**wrong)


def rewritten(path: Path, **changes) -> None:
    """Change fields of ``index.json``."""
    header = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps(header | changes))


def tampered(path: Path, **changes) -> None:
    """Change arrays of the first part, and the size and checksum that the header states, as an attacker would."""
    header = json.loads((path / "index.json").read_text())
    file = path / header["parts"][0]["file"]
    save_file(load_file(file) | changes, file)
    header["parts"][0]["bytes"] = file.stat().st_size
    (path / "index.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "index.json").write_text("{"), "truncated"),
        (lambda path: (path / "index.json").write_text('{"format": "other"}'), "not the header"),
        (lambda path: rewritten(path, size=7), "a field is missing or impossible"),
        (lambda path: rewritten(path, size="256"), "a field is missing or impossible"),
        (lambda path: rewritten(path, parts=None), "a field is missing or impossible"),
        (lambda path: rewritten(path, parts=[{"file": "../x.safetensors", "bytes": 1, "sha256": "", "windows": 1}]),
         "not the name of a file"),
        (lambda path: rewritten(path, window=float("inf")), "a field is missing or impossible"),
        (lambda path: next(path.glob("windows-*")).unlink(), "it is missing"),
        (lambda path: next(path.glob("windows-*")).write_bytes(b"x"), "not of the size"),
        (lambda path: tampered(path, starts=np.array([-5], np.int32)), "'starts' has not 217 entries"),
        (lambda path: tampered(path, starts=np.full(217, -5, np.int32)), "window outside its recording"),
        (lambda path: tampered(path, source=np.full(100, 9, np.int32)), "a source that there is not"),
        (lambda path: tampered(path, names_ends=np.arange(100)[::-1].copy()), "'names_ends' does not rise"),
        (lambda path: tampered(path, window_ends=np.full(100, 10**12)), "'window_ends' does not rise"),
        (lambda path: tampered(path, vectors=np.zeros((217, 5), np.float16)), "not 217 of 256 numbers"),
    ],
)  # fmt: skip
def test_damage_is_one_sentence(index, change, message):
    change(index.path)
    with pytest.raises(IndexFormatError, match=message):
        MotionIndex.open(index.path)


def test_damaged_lists_never_reach_faiss(tmp_path):
    pytest.importorskip("faiss")
    vectors = unit_vectors(np.random.default_rng(0).standard_normal((600, 16)))
    arrays = InvertedFile.train(vectors.__getitem__, 600, 16).arrays()
    assert len(InvertedFile.of(arrays, 16, 600)) == 600
    for name, wrong in (
        ("ends", arrays["ends"] + 10**9),
        ("ends", -arrays["ends"]),
        ("numbers", arrays["numbers"] + 10**6),
        ("numbers", np.zeros_like(arrays["numbers"])),
        ("codes", arrays["codes"][:-1]),
        ("centroids", arrays["centroids"][:, :-1].copy()),
        ("centroids", arrays["centroids"] * np.nan),
        ("codebooks", arrays["codebooks"].astype(np.float64)),
    ):
        with pytest.raises(ValueError, match="array"):
            InvertedFile.of({**arrays, name: wrong}, 16, 600)
    with pytest.raises(ValueError, match="array"):
        InvertedFile.of(arrays, 16, 599)


def test_vectors_of_a_damaged_file_are_like_nothing(index, engine):
    tampered(index.path, vectors=np.full((217, 256), np.nan, np.float16))
    hits = MotionIndex.open(index.path).search(load_samples()[0], engine, top_k=3)
    assert {hit.score for hit in hits} == {0.0}


def test_removing_what_is_not_there(index):
    with pytest.raises(SkeletonFormatError, match="no recording and no source 'nobody'"):
        index.remove(["nobody"])
    with pytest.raises(SkeletonFormatError, match="nothing would be left"):
        index.remove([sample_path()])
    assert MotionIndex.open(index.path).num_recordings == 100


def test_commands(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = load_samples()
    write_store(data.select(np.arange(100) < 12), "store")
    code, out, _ = run(capsys, "index", "store", "--output", "index", "--window", "1.5", "--stride", "0.75")
    assert code == 0 and re.fullmatch(r"index: 12 recordings by usdrl/mocap-tiny; exact search of \d+ windows\n", out)
    name = data[3].name
    code, out, _ = run(capsys, "search", "index", "store", "--name", name, "--top-k", "2", "--json")
    hits = json.loads(out)["hits"]
    assert code == 0 and len(hits) == 2 and name not in [hit["recording"] for hit in hits]
    code, out, _ = run(capsys, "search", "index", "store", "--name", name, "--top-k", "2", "--output", "hits.csv")
    assert code == 0 and hits[0]["recording"] in out and "written: hits.csv" in out
    rows = Path("hits.csv").read_text().splitlines()
    assert rows[0] == "recording,source,start,end,from,to,score,label,windows" and len(rows) == 3
    code, *_ = run(capsys, "search", "index", "store", "--name", name, "--to", "1", "--output", "hits.html")
    page = Path("hits.html").read_text()
    assert code == 0 and page.count('"low"') == 11 and "Content-Security-Policy" in page
    # Without options, an index keeps its own windows.
    assert run(capsys, "index", "store", "--output", "index")[0] == 0
    code, out, _ = run(capsys, "index", name, "--output", "index", "--remove")
    assert code == 0 and out.startswith("index: 1 recordings removed, 11 left")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "{made}", "missing.npz"], "missing.npz: there is no such file"),
        (["search", "missing", "{samples}"], "there is no index in it"),
        (["search", "{made}", "{samples}"], "it holds 100 recordings"),
        (["search", "{made}", "{samples}", "--name", "0", "--from", "50"], "a query cannot begin at 50"),
        (["search", "{made}", "{samples}", "--name", "0", "--output", "a.txt"], "a.txt: hits are written as"),
        (["index", "{samples}", "--output", "{samples}"], "it exists already and is no index"),
        (["index", "missing", "--output", "new"], "missing"),
        (["index", "{samples}", "--output", "new", "--window", "0", "--stride", "1"], "--stride has no effect"),
        (["index", "x", "--output", "{made}", "--remove", "--window", "1"], "--window has no effect with --remove"),
    ],
)
def test_wrong_commands(capsys, tmp_path, monkeypatch, made, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *(part.format(made=made, samples=sample_path()) for part in arguments))
    assert (code, out) == (2, "") and message in err and err.count("\n") <= 2
    assert not list(tmp_path.iterdir())


def test_check_reads_an_index(capsys, index):
    code, out, _ = run(capsys, "check", index.path)
    assert code == 0 and out == f"{index.path}: index, whole: 100 recordings, 217 windows\n"
    file = next(index.path.glob("windows-*"))
    content = bytearray(file.read_bytes())
    # A number of an embedding: nothing else can tell.
    content[-1] ^= 1
    file.write_bytes(content)
    code, out, err = run(capsys, "check", index.path)
    assert code == 2 and "index, 1 damaged" in out and "its checksum is not the one in index.json" in err
