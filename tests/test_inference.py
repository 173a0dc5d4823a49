import json
import os
import socket
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import torch

from usdrl_hub import (
    Engine,
    Reading,
    SkeletonFormatError,
    SkeletonSequence,
    USDRLConfig,
    USDRLEnsemble,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLModel,
    extract_embeddings,
    extract_frame_embeddings,
    extract_predictions,
    extract_timelines,
    iter_embeddings,
    iter_frame_embeddings,
    iter_predictions,
    iter_timelines,
    open_data,
    write_embeddings,
)
from usdrl_hub.acceleration.prefetch import prefetch
from usdrl_hub.cli import main as cli
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.distributed import Workers
from usdrl_hub.errors import CheckpointLoadError

from .helpers import tiny_config

TINY = "usdrl/tiny-uiprmd"


@pytest.fixture(scope="module")
def model():
    return USDRLModel.from_pretrained(TINY).eval()


@pytest.fixture(scope="module")
def extractor():
    return USDRLFeatureExtractor.from_pretrained(TINY)


@pytest.fixture(scope="module")
def engine(model, extractor):
    return Engine(model, extractor)


@pytest.fixture
def recordings():
    lengths = [1, 64, 300, 17, 90, 5, 128]
    return [SkeletonSequence(np.random.randn(n, 1 + n % 2, 25, 3), name=f"r{n}") for n in lengths]


def test_clip_embeddings_are_the_models_pooled_outputs(model, extractor, recordings):
    embeddings = extract_embeddings(recordings, TINY, batch_size=3)
    assert embeddings.shape == (7, 160) and embeddings.dtype == np.float32
    for sequence, embedding in zip(recordings, embeddings, strict=True):
        with torch.no_grad():
            expected = model(extractor(sequence, return_tensors="pt").keypoints).pooler_output[0]
        np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("extract", [extract_embeddings, extract_frame_embeddings])
def test_order_and_batch_size_change_nothing(recordings, extract):
    one = extract(recordings, TINY, batch_size=1)
    many = extract(recordings[::-1], TINY, batch_size=5)
    for a, b in zip(one, many[::-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_frame_embeddings_are_averages_of_overlapping_windows(model, extractor):
    body = np.random.randn(100, 25, 3).astype(np.float32)
    embedding = extract_frame_embeddings([body], TINY)[0]
    assert embedding.shape == (100, 160)
    total, count = np.zeros((100, 160)), np.zeros((100, 1))
    for start in (0, 32, 36):
        with torch.no_grad():
            window = extractor(body[start : start + 64], return_tensors="pt").keypoints
            total[start : start + 64] += model(window).last_hidden_state[0].numpy()
        count[start : start + 64] += 1
    np.testing.assert_allclose(embedding, total / count, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 5, 63, 64, 65, 10_000])
def test_every_frame_gets_an_embedding_whatever_the_length(frames):
    embedding = extract_frame_embeddings([np.random.randn(frames, 25, 3)], TINY)[0]
    assert embedding.shape == (frames, 160) and np.isfinite(embedding).all()


def test_frames_where_nobody_is_seen_get_zero():
    body = np.random.randn(300, 25, 3)
    body[100:] = 0
    embedding = extract_frame_embeddings([body], TINY)[0]
    assert embedding[:100].any(axis=1).all() and not embedding[200:].any()


def test_files_folders_and_data_sets_are_taken(tmp_path):
    np.save(tmp_path / "b.npy", np.random.randn(20, 25, 3))
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "a.npy", np.random.randn(20, 25, 3))
    assert [s.name for s, _ in iter_embeddings(tmp_path, TINY)] == ["b", "sub/a"]
    assert extract_embeddings(str(tmp_path / "b.npy"), TINY).shape == (1, 160)
    assert extract_embeddings([sample_path(), tmp_path], TINY).shape == (102, 160)
    np.testing.assert_array_equal(extract_embeddings(load_samples(), TINY), extract_embeddings(sample_path(), TINY))


def test_a_given_model_is_left_as_it_is():
    given = USDRLForActionRecognition(tiny_config(num_joints=25, layout="ntu25", drop_path_rate=0.5)).train()
    first, second = (extract_embeddings([np.ones((9, 25, 3))], given, dtype="bfloat16") for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert given.training and given.dtype == torch.float32 and first.shape == (1, 32)


def test_bfloat16_is_near_float32(recordings):
    exact, rough = (extract_embeddings(recordings, TINY, dtype=dtype) for dtype in ("float32", torch.bfloat16))
    assert not np.array_equal(exact, rough)
    cosine = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert cosine.min() > 0.995


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"dtype": "float31"}, "unknown dtype 'float31'"),
        ({"dtype": "int32"}, "floating type"),
        ({"device": "gpu"}, "device 'gpu' is not available"),
        ({"model": "usdrl/nothing"}, "'usdrl/nothing' was not found"),
        ({"model": 3.5}, "a float is no model"),
    ],
)
@pytest.mark.parametrize("verb", [iter_embeddings, iter_frame_embeddings, iter_predictions, iter_timelines])
def test_impossible_arguments_are_refused_at_the_call(verb, options, message):
    with pytest.raises(ValueError, match=message):
        verb([np.ones((9, 25, 3))], **options)


@pytest.mark.parametrize("inputs", [None, 5, ""])
def test_what_is_no_recording_is_one_sentence(inputs):
    with pytest.raises(
        SkeletonFormatError, match="is no recording: give a file, a folder, an array or a list of them"
    ):
        extract_embeddings(inputs)


def test_nothing_in_gives_nothing_out():
    assert extract_embeddings([]).shape == (0, 256)
    assert extract_frame_embeddings([]) == extract_predictions([]) == extract_timelines([]) == []


def test_an_engine_stands_for_its_model(engine, recordings):
    expected = extract_embeddings(recordings, TINY)
    np.testing.assert_allclose(extract_embeddings(recordings, engine), expected, rtol=1e-4, atol=1e-5)
    again = Engine.load(engine)
    assert again.model is engine.model and again.extractor is engine.extractor
    ensemble = USDRLEnsemble([USDRLForActionRecognition.from_pretrained(TINY)], engine.extractor)
    with pytest.raises(CheckpointLoadError, match="an ensemble has no embedding"):
        extract_embeddings(recordings, ensemble)
    half = Engine.load(ensemble.train(), dtype="bfloat16")
    assert ensemble.training and ensemble.dtype == torch.float32
    assert half.model.dtype == torch.bfloat16 and not half.model.training


def test_one_unreadable_recording_of_a_data_set_costs_no_other(tmp_path):
    with np.load(sample_path()) as file:
        arrays = dict(file)
    arrays["data"][: arrays["offsets"][1]] = 0
    np.savez(tmp_path / "mine.npz", **arrays)
    for inputs in (tmp_path / "mine.npz", tmp_path, open_data(tmp_path / "mine.npz")):
        errors = []
        assert len(list(iter_predictions(inputs, TINY, on_error=errors.append))) == 99
        assert len(errors) == 1 and "mine.npz" in str(errors[0])


def test_a_window_shows_the_people_of_the_recording():
    rng = np.random.default_rng(0)
    crowd = rng.normal(size=(128, 3, 25, 3)).astype(np.float32)
    crowd[:64, 1] *= 5
    crowd[64:, 2] *= 9
    crowd[:, 0] *= 7
    pair = extract_frame_embeddings([crowd], TINY, reading=Reading(axes="TMVC"))[0]
    alone = extract_frame_embeddings([crowd[:, :1]], TINY, reading=Reading(axes="TMVC"))[0]
    np.testing.assert_allclose(pair, alone, rtol=1e-4, atol=1e-5)


def test_bfloat16_tensors_are_read():
    recording = torch.randn(20, 25, 3, dtype=torch.bfloat16, requires_grad=True)
    assert extract_embeddings([recording], TINY).shape == (1, 160)


def test_bad_inputs_are_refused_or_reported(tmp_path):
    good, bad = tmp_path / "good.npy", tmp_path / "bad.npy"
    np.save(good, np.ones((4, 25, 3)))
    np.save(bad, np.full((4, 25, 3), np.nan))
    flat = SkeletonSequence(np.ones((3, 1, 25, 2)), name="flat")
    inputs = [bad, good, flat, tmp_path / "absent.npy", np.ones((3, 7, 3)), good]
    with pytest.raises(SkeletonFormatError, match="bad.npy"):
        extract_embeddings(inputs, TINY)
    errors = []
    names = [sequence.name for sequence, _ in iter_embeddings(inputs, TINY, batch_size=2, on_error=errors.append)]
    assert names == ["good", "good"]
    assert [str(error).split(":")[0].split("/")[-1] for error in errors] == [
        "bad.npy",
        "flat",
        "absent.npy",
        "sequence 4",
    ]


def test_what_comes_live_is_not_kept_waiting(recordings, engine):
    read = []

    def live():
        for number, recording in enumerate([*recordings] * 3):
            read.append(number)
            yield recording

    class Camera:
        def __iter__(self):
            return live()

    assert next(iter_embeddings(Camera(), engine, batch_size=1))[0].name == "r1" and read == [0]
    read.clear()
    stream = iter_embeddings(live(), engine, batch_size=2)
    first = next(stream)[1]
    assert len(read) == 2
    rest = [embedding for _, embedding in stream]
    together = extract_embeddings([*recordings] * 3, engine, batch_size=2)
    np.testing.assert_array_equal([first, *rest], together)


def test_what_was_read_before_an_error_comes_before_it(recordings, engine):
    inputs = [*recordings[:5], np.full((4, 25, 3), np.nan), recordings[5]]
    stream = iter_embeddings(inputs, engine, batch_size=2)
    assert [next(stream)[0].name for _ in range(4)] == [recording.name for recording in recordings[:4]]
    with pytest.raises(SkeletonFormatError, match="NaN"):
        next(stream)


def test_memory_does_not_grow_with_the_number_of_recordings(engine):
    def stream(count):
        for _ in range(count):
            yield np.ones((200, 2, 25, 3), np.float32)

    peaks = []
    for count in (160, 640):
        tracemalloc.start()
        for _ in iter_embeddings(stream(count), engine, batch_size=16):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 1_000_000


def test_predictions_are_probabilities_with_names():
    predictions = list(iter_predictions(load_samples(), TINY))
    assert len(predictions) == 100
    right = 0
    for prediction in predictions:
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        top = prediction.top(3)
        assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
        assert top[0][0] == prediction.class_names[prediction.probabilities.argmax()]
        right += int(prediction.probabilities.argmax()) == prediction.sequence.label
    # The whole test half scores what its card says; a hundred clips of it lie near.
    assert right >= 90


def test_prediction_needs_a_recognition_model(model):
    with pytest.raises(CheckpointLoadError, match="the model given is USDRLModel"):
        iter_predictions([np.ones((4, 25, 3))], model)


def test_everybody_is_predicted_by_themselves():
    clips = [clip.keypoints for clip in load_samples()[:2]]
    frames = min(map(len, clips))
    both = SkeletonSequence(np.concatenate([clip[:frames] for clip in clips], axis=1), "ui-prmd39", name="two", up="z")
    alone = [SkeletonSequence(clip[:frames], "ui-prmd39", up="z") for clip in clips]
    found = list(iter_predictions([both], each_person=True))
    assert [prediction.sequence.name for prediction in found] == ["two#0", "two#1"]
    for prediction, expected in zip(found, iter_predictions(alone), strict=True):
        np.testing.assert_allclose(prediction.probabilities, expected.probabilities, rtol=1e-5, atol=1e-7)


def test_an_ensemble_averages_scores(tmp_path):
    names = []
    for modality in ("joint", "motion", "bone"):
        torch.manual_seed(len(names))
        config = USDRLConfig(hidden_size=16, num_persons=1, modality=modality, num_labels=3)
        USDRLForActionRecognition(config).save_pretrained(tmp_path / modality)
        USDRLFeatureExtractor.from_model_config(config).save_pretrained(tmp_path / modality)
        names.append(tmp_path / modality)
    clips = load_samples()[:6]
    single = [[prediction.probabilities for prediction in iter_predictions(clips, name)] for name in names]
    ensemble = USDRLEnsemble.from_pretrained(names, weights=[2, 1, 1])
    fused = [prediction.probabilities for prediction in iter_predictions(clips, ensemble)]
    np.testing.assert_allclose(fused, np.einsum("mnk,m->nk", single, [0.5, 0.25, 0.25]), rtol=1e-5)
    with pytest.raises(ValueError, match="3 models need as many positive weights"):
        USDRLEnsemble.from_pretrained(names, weights=[1, 0, 1])
    with pytest.raises(CheckpointLoadError, match="differ in their preprocessing"):
        USDRLEnsemble.from_pretrained([*names, "usdrl/tiny-uiprmd"])
    other = USDRLForActionRecognition(USDRLConfig(hidden_size=16, num_persons=1, num_labels=4))
    with pytest.raises(ValueError, match="the same classes"):
        USDRLEnsemble([ensemble.models[0], other], ensemble.feature_extractor)


def test_the_command_fuses_models(capsys, tmp_path):
    from .helpers import run

    names = ",".join(["usdrl/tiny-uiprmd"] * 2)
    single = run(capsys, "predict", sample_path(), "--json")
    fused = run(capsys, "predict", sample_path(), "--model", names, "--json")
    assert single[0] == fused[0] == 0
    first = [json.loads(result[1])["predictions"][0]["top"][0] for result in (single, fused)]
    assert first[0]["label"] == first[1]["label"]
    assert first[0]["probability"] == pytest.approx(first[1]["probability"], rel=1e-5)


def test_embeddings_are_named_by_their_path_below_the_folder(capsys, tmp_path):
    from .helpers import run

    for name in ("a/r0", "b/r0"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        np.save(tmp_path / "in" / f"{name}.npy", np.random.default_rng(0).normal(size=(30, 25, 3)))
    assert run(capsys, "embed", tmp_path / "in", "--output", tmp_path / "e.npz")[0] == 0
    assert np.load(tmp_path / "e.npz")["names"].tolist() == ["a/r0", "b/r0"]


# -- read ahead, and several processes


def test_reading_ahead_keeps_order_brings_errors_in_place_and_stops_with_its_reader():
    made = []

    def items(count, fail=None):
        for number in range(count):
            if number == fail:
                raise SkeletonFormatError("the fifth is bad")
            made.append(number)
            yield number

    assert list(prefetch(items(20))) == list(range(20))
    got = []
    with pytest.raises(SkeletonFormatError, match="the fifth is bad"):
        for number in prefetch(items(20, fail=5)):
            got.append(number)
    assert got == list(range(5))
    made.clear()
    reader = prefetch(items(1000), count=2)
    assert next(reader) == 0
    reader.close()
    assert len(made) <= 5 and not [t for t in threading.enumerate() if t.name == "usdrl-prefetch"]


def test_embeddings_are_written_by_this_process_alone_unless_workers_are_given(tmp_path, monkeypatch, engine):
    """In a distributed script of a user, too."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    clips = [SkeletonSequence(np.random.randn(frames, 1, 25, 3), name=str(frames)) for frames in (5, 70)]
    assert write_embeddings(iter_embeddings(clips, engine), tmp_path / "clips.npz") == 2
    assert write_embeddings(iter_frame_embeddings(clips, engine), tmp_path / "frames.npz") == 2
    with np.load(tmp_path / "clips.npz") as file:
        assert file["embeddings"].shape == (2, 160) and "offsets" not in file
    with np.load(tmp_path / "frames.npz") as file:
        assert file["embeddings"].shape == (75, 160) and file["offsets"].tolist() == [0, 5, 75]


@pytest.mark.parametrize("count, block, workers", [(10, 4, 3), (0, 4, 2), (1, 64, 8), (129, 64, 2), (640, 64, 7)])
def test_shares_are_whole_blocks_that_follow_each_other(count, block, workers):
    shares = [range(count)[Workers(rank, workers).share(count, block)] for rank in range(workers)]
    assert [number for share in shares for number in share] == list(range(count))
    assert all(share.start % block == 0 for share in shares if len(share))
    sizes = [-(-len(share) // block) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def launch(*arguments, count=2) -> list[tuple[int, str]]:
    """Exit status and messages of the command in several processes, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "usdrl_hub.cli", *map(str, arguments)]
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    return [(process.returncode, output) for process, output in zip(running, outputs, strict=True)]


@pytest.mark.long
def test_several_processes_write_what_one_writes(tmp_path):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for number, sample in enumerate(load_samples()[:6]):
        np.save(recordings / f"{number}.npy", USDRLFeatureExtractor(num_persons=1).prepare(sample).keypoints)
    (recordings / "5.npy").write_text("no array")
    given = ["embed", recordings, "--batch-size", "2", "--output"]
    with pytest.raises(SystemExit, match="2"):
        cli([*map(str, given), str(tmp_path / "one.npz")])
    (first, told), (second, complained) = launch(*given, tmp_path / "two.npz")
    assert (first, second) == (0, 2)
    assert "embeddings of 5 recordings" in told and "5.npy" in complained and "recordings by" not in complained
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert two["names"].tolist() == one["names"].tolist() == list("01234")
    np.testing.assert_allclose(two["embeddings"], one["embeddings"], rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_where_one_process_cannot_go_on_all_say_so_and_nothing_is_left(tmp_path):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for number, sample in enumerate(load_samples()[:2]):
        np.save(recordings / f"{number}.npy", USDRLFeatureExtractor(num_persons=1).prepare(sample).keypoints)
    (tmp_path / "out.npz").mkdir()
    (first, told), (second, complained) = launch("embed", recordings, "--output", tmp_path / "out.npz")
    assert (first, second) == (2, 2) and "it is a folder" in told and "another process failed" in complained
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "recordings"]
