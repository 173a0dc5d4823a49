import inspect
import logging
import shutil

import numpy as np
import pytest
import torch
import transformers

from usdrl_hub import (
    Reading,
    SkeletonFormatError,
    SkeletonSequence,
    USDRLEnsemble,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLModel,
    checkpoint_path,
    extract_embeddings,
    fuse,
    iter_predictions,
    open_data,
    pipeline,
    write_store,
)
from usdrl_hub.data.huggingface import to_huggingface
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.data.store import SkeletonStore
from usdrl_hub.errors import CheckpointLoadError, USDRLWarning
from usdrl_hub.inference.pipelines import SkeletonActionRecognitionPipeline

from .helpers import tiny_model

TINY = "usdrl/tiny-uiprmd"
RECOGNITION, FEATURES = "skeleton-action-recognition", "skeleton-feature-extraction"


@pytest.fixture(scope="module")
def recognise():
    return pipeline(RECOGNITION, TINY)


@pytest.fixture(scope="module")
def embed():
    return pipeline(FEATURES, TINY)


@pytest.fixture(scope="module")
def samples():
    return load_samples()[:7]


@pytest.fixture(scope="module")
def expected(samples):
    """What the functions of this package say about the samples: five likeliest classes, and embeddings."""
    return [prediction.top(5) for prediction in iter_predictions(samples, TINY)], extract_embeddings(samples, TINY)


def same(results, expected) -> bool:
    assert len(results) == len(expected)
    for result, top in zip(results, expected, strict=True):
        assert [set(row) for row in result] == [{"label", "score"}] * len(top)
        assert [row["label"] for row in result] == [label for label, _ in top]
        np.testing.assert_allclose([row["score"] for row in result], [score for _, score in top], atol=1e-5)
    return True


def test_a_list_gives_a_list_of_labels_and_scores_in_batches_of_any_size(recognise, samples, expected):
    for size in (1, 3, 64):
        assert same(recognise(list(samples), batch_size=size), expected[0])
    assert same([recognise(samples[0])], expected[0][:1]) and same(recognise(tuple(samples)), expected[0])
    assert recognise([]) == []
    # Nested lists are what the array would be: their frames were taken for recordings.
    numbers = samples[0].to_layout("ntu25").keypoints
    assert same([recognise(numbers.tolist())], [[(row["label"], row["score"]) for row in recognise(numbers)]])
    assert len(recognise([numbers.tolist(), numbers[:50].tolist()])) == 2


def test_top_k_is_at_most_the_number_of_classes(recognise, samples):
    assert len(recognise(samples[0], top_k=1)) == 1
    everything = recognise(samples[0], top_k=99)
    assert len(everything) == 10 and sum(row["score"] for row in everything) == pytest.approx(1)
    assert len(pipeline(RECOGNITION, TINY, top_k=2)(samples[0])) == 2


def test_embeddings_are_nested_lists_or_tensors_of_the_recording_or_its_frames(embed, samples, expected):
    found = embed(list(samples), batch_size=4)
    assert np.shape(found) == (7, 1, 160)
    np.testing.assert_allclose(np.array(found)[:, 0], expected[1], atol=1e-4)
    one = embed(samples[2], return_tensors=True)
    assert one.dtype == torch.float32 and one.shape == (1, 160)
    np.testing.assert_allclose(one[0], expected[1][2], atol=1e-4)
    assert embed(samples[2], pool=False, return_tensors=True).shape == (1, 64, 160)
    assert np.shape(embed(samples[2], pool=False)) == (1, 64, 160)


def test_generators_and_data_sets_are_consumed_as_the_results_are(recognise, samples, expected, tmp_path):
    taken = []

    def stream():
        for number, sequence in enumerate(samples):
            taken.append(number)
            yield sequence

    results = recognise(stream(), batch_size=2)
    first = next(iter(results))
    assert len(taken) < 5 and same([first], expected[0][:1])
    data = open_data(sample_path())[:7]
    assert same(list(recognise(data)), expected[0])
    write_store(data, tmp_path / "store", load_samples().class_names)
    assert same(list(recognise(SkeletonStore.open(tmp_path / "store"), batch_size=3)), expected[0])
    assert same(recognise(tmp_path / "store"), expected[0])
    torch_data = torch.utils.data.StackDataset(keypoints=[sequence.keypoints for sequence in samples])
    assert same(list(recognise(torch_data, layout=samples[0].layout)), [*recognised_again(recognise, samples)])


def recognised_again(recognise, samples):
    """The same without what a data set of bare keypoints cannot know: which way is up."""
    bare = [SkeletonSequence(sequence.keypoints, sequence.layout) for sequence in samples]
    return [[(row["label"], row["score"]) for row in result] for result in recognise(bare)]


def test_rows_of_hugging_face_data_sets_are_taken(recognise, expected):
    pytest.importorskip("datasets")
    data = open_data(sample_path())[:7]
    for streaming in (False, True):
        assert same(list(recognise(to_huggingface(data, streaming), batch_size=2)), expected[0])


def test_files_folders_and_arrays_are_taken(recognise, tmp_path):
    arrays = [np.random.default_rng(number).standard_normal((30 + number, 25, 3)) for number in range(3)]
    for name, array in zip(("b", "sub/a", "sub/c"), arrays, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", array)
    results = recognise(arrays)
    assert recognise(tmp_path) == recognise([tmp_path / f"{name}.npy" for name in ("b", "sub/a", "sub/c")]) == results
    assert recognise(str(tmp_path / "b.npy")) == recognise(torch.from_numpy(arrays[0])) == results[0]
    channels_first = arrays[0].transpose(2, 0, 1)[..., None]
    assert recognise(channels_first, axes="CTVM") == results[0]
    # An axis more is several recordings.
    stack = np.stack([array[:30, None] for array in arrays])
    assert recognise(stack, axes="TMVC") == recognise([array[:30] for array in arrays])
    assert len(recognise(sample_path(), batch_size=50, top_k=1)) == 100
    kinect = np.random.default_rng(0).standard_normal((20, 20, 3))
    [top, *_] = next(iter_predictions([kinect], TINY, reading=Reading(layout="kinect20"))).top(1)
    assert recognise(kinect, layout="kinect20", threshold=0)[0]["label"] == top[0]


def test_transformers_own_pipeline_knows_the_tasks_and_a_default_model(samples, expected):
    by_default = transformers.pipeline(RECOGNITION)
    assert isinstance(by_default, SkeletonActionRecognitionPipeline) and same(
        [by_default(samples[0])], expected[0][:1]
    )
    assert (
        transformers.pipeline(FEATURES).model.config.hidden_size == pipeline(FEATURES).model.config.hidden_size == 96
    )
    model = USDRLForActionRecognition.from_pretrained(TINY)
    loaded = transformers.pipeline(RECOGNITION, model=model, device="cpu")
    assert same(loaded(list(samples[:2]), batch_size=2), expected[0][:2]) and loaded.device == torch.device("cpu")
    embed = transformers.pipeline(FEATURES, model=str(checkpoint_path(TINY)), batch_size=2)
    np.testing.assert_allclose(embed(samples[0])[0], expected[1][0], atol=1e-4)
    assert type(embed.model) is USDRLModel and "SkeletonFeatureExtractionPipeline" in repr(embed)


def test_a_repository_of_a_hub_is_loaded_with_its_feature_extractor(hub, tmp_path, samples):
    model, extractor = tiny_model(USDRLForActionRecognition)
    model.save_pretrained(tmp_path / "model")
    extractor.save_pretrained(tmp_path / "model")
    model.push_to_hub("ada/waves")
    extractor.push_to_hub("ada/waves")
    recording = np.random.default_rng(0).standard_normal((20, 5, 3))
    here = pipeline(RECOGNITION, tmp_path / "model")(recording)
    for make in (pipeline, transformers.pipeline):
        there = make(RECOGNITION, model="ada/waves")
        assert there.feature_extractor.normalization == "none" and there(recording) == here


def test_a_pipeline_is_saved_as_a_checkpoint_without_code(tmp_path, recognise, samples):
    recognise.save_pretrained(tmp_path / "saved")
    files = {file.name for file in (tmp_path / "saved").iterdir()}
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert "custom_pipelines" not in (tmp_path / "saved" / "config.json").read_text()
    assert pipeline(RECOGNITION, tmp_path / "saved")(samples[0]) == recognise(samples[0])
    with pytest.raises(ValueError, match="an ensemble is saved model by model"):
        pipeline(RECOGNITION, USDRLEnsemble.from_pretrained([TINY])).save_pretrained(tmp_path)


def test_a_model_whose_folder_is_gone_is_read_by_its_configuration(tmp_path, samples):
    model = USDRLForActionRecognition.from_pretrained(TINY)
    model.save_pretrained(tmp_path / "model")
    model = USDRLForActionRecognition.from_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointLoadError, match="cannot be loaded"):
        pipeline(RECOGNITION, model)
    shutil.rmtree(tmp_path / "model")
    assert len(pipeline(RECOGNITION, model)(samples[0])) == 5


def test_models_in_other_types_and_ensembles_are_taken(samples, expected):
    rough = pipeline(RECOGNITION, TINY, dtype="bfloat16")
    assert rough.model.dtype == torch.bfloat16
    np.testing.assert_allclose(rough(samples[0])[0]["score"], expected[0][0][0][1], atol=0.05)
    fused = pipeline(RECOGNITION, fuse(USDRLForActionRecognition.from_pretrained(TINY).eval()))
    assert same(fused(list(samples), batch_size=3), expected[0])
    ensemble = pipeline(RECOGNITION, USDRLEnsemble.from_pretrained([TINY, TINY]))
    assert same(ensemble(list(samples), batch_size=3), expected[0]) and "USDRLEnsemble" in repr(ensemble)


def test_a_model_that_was_training_is_in_eval_mode(samples):
    model = USDRLForActionRecognition.from_pretrained(TINY, drop_path_rate=0.5).train()
    recognise = pipeline(RECOGNITION, model)
    assert recognise(samples[0]) == recognise(samples[0])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("skeleton-singing",), "there is no task 'skeleton-singing' for skeletons: use one of skeleton-action-rec"),
        ((RECOGNITION, "usdrl/nothing"), "model 'usdrl/nothing' was not found"),
        ((RECOGNITION, TINY, None, None, None, "tpu9"), "device 'tpu9' is not available"),
        ((RECOGNITION, TINY, None, None, None, None, "float31"), "unknown dtype 'float31'"),
        ((FEATURES, torch.nn.Linear(1, 1)), "Linear, which does not embed skeletons"),
    ],
)
def test_what_cannot_be_a_pipeline_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(*arguments)


def test_a_detector_is_no_recogniser_however_it_is_loaded(tmp_path):
    model, extractor = tiny_model(USDRLForActionDetection)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    for make in (pipeline, transformers.pipeline):
        with pytest.raises(CheckpointLoadError, match="USDRLForActionDetection, which is not a recogniser"):
            make(RECOGNITION, model=str(tmp_path))
    assert np.shape(pipeline(FEATURES, tmp_path)(np.ones((9, 5, 3)))) == (1, 32)


@pytest.mark.parametrize(
    "given, options, message",
    [
        (np.ones((9, 24, 3)), {}, "is not a skeleton of layout 'ntu25'"),
        (np.full((9, 25, 3), np.nan), {}, "NaN or infinite"),
        (np.ones((9, 25, 2)), {}, "the keypoints are 2D"),
        ("absent.npy", {}, "there is no such file"),
        ([sample_path()], {}, "it holds several recordings: give it to the pipeline by itself"),
        ({"label": 3}, {}, "it has no column 'keypoints'"),
        (np.ones((9, 25, 3)), {"top_k": 0}, "top_k must be at least 1"),
        (
            np.ones((9, 25, 3)),
            {"topk": 1},
            "no argument 'topk': it has axes, batch_size, image_shape, layout, threshold, top_k",
        ),
        (np.ones((9, 25, 3)), {"layout": "coco18"}, "unknown layout 'coco18'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_one_sentence(recognise, given, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        recognise(given, **options)
    assert "\n" not in str(caught.value)
    if not options:
        assert isinstance(caught.value, SkeletonFormatError)


def test_the_tasks_are_registered_once_and_quietly(caplog):
    with caplog.at_level(logging.WARNING):
        task = transformers.pipelines.check_task(RECOGNITION)[1]
    assert task["impl"] is SkeletonActionRecognitionPipeline and not caplog.records
    assert inspect.signature(pipeline).parameters["task"].default == RECOGNITION


def test_the_layout_of_a_file_is_said_once_and_not_contradicted(tmp_path, recwarn):
    clip = load_samples()[0].to_layout("kinect20")
    np.save(tmp_path / "squat.npy", clip.keypoints)
    recognise = pipeline("skeleton-action-recognition", "usdrl/tiny-uiprmd")
    [found, *_] = recognise(str(tmp_path / "squat.npy"), layout="kinect20")
    assert found["label"] == "deep squat" and not [w for w in recwarn if issubclass(w.category, USDRLWarning)]
