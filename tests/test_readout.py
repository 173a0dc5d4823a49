"""The readout: what clips are compared by where it is not the paper's pooled embedding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from usdrl_hub import (
    PretrainingDataset,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLModel,
    USDRLStream,
    extract_embeddings,
    fit_readout,
    fuse,
    pretrain,
)
from usdrl_hub.data.samples import load_samples
from usdrl_hub.inference.embedding import embed_clips
from usdrl_hub.inference.export import export_model
from usdrl_hub.pretraining.build import build_recipe, load_recipe
from usdrl_hub.pretraining.readout import recipe_readout
from usdrl_hub.ragged import RaggedFrames
from usdrl_hub.tasks.heads import with_head

from .helpers import recipe

SIZES = {"hidden_size": 16, "num_frames": 8, "num_persons": 1, "num_joints": 25}


@pytest.fixture(scope="module")
def fitted() -> USDRLModel:
    torch.manual_seed(0)
    model = USDRLModel(USDRLConfig(**SIZES)).eval()
    fit_readout(model, torch.randn(200, 8, 1, 25, 3).split(64), parts=[1, 2], size=24, shrinkage=0.05)
    return model


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("readout") / "model"
    fitted.save_pretrained(folder)
    USDRLFeatureExtractor(num_frames=8, num_persons=1).save_pretrained(folder)
    return folder


def pooled(model, clips):
    """The maxima that a readout of 1 and 2 parts reads, by its definition."""
    output = model(clips)
    temporal, spatial = output.temporal_hidden_state, output.spatial_hidden_state
    halves = [part.amax(1) / 2**0.5 for part in (temporal[:, :4], temporal[:, 4:])]
    return torch.cat([temporal.amax(1), *halves, spatial.amax(1)], dim=1)


@torch.no_grad()
def test_a_readout_is_scaled_principal_components_of_the_maxima(fitted):
    torch.manual_seed(0)
    USDRLModel(USDRLConfig(**SIZES))
    clips = torch.randn(200, 8, 1, 25, 3)
    maxima = pooled(fitted, clips).double().numpy()
    found = fitted(clips).readout.double().numpy()
    assert found.shape == (200, 24)
    centred = maxima - maxima.mean(0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    deviations = values[:24] / 200**0.5
    expected = centred @ directions[:24].T / (deviations + 0.05 * deviations[0])
    # The sign of a component is free.
    signs = np.sign((expected * found).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-3)
    np.testing.assert_allclose(found.std(0), deviations / (deviations + 0.05 * deviations[0]), rtol=1e-3)


def test_it_travels_with_the_model(fitted, folder):
    clips = torch.randn(3, 8, 1, 25, 3)
    loaded = USDRLModel.from_pretrained(folder).eval()
    assert loaded.config.readout_parts == [1, 2] and loaded.config.clip_embedding_size == 24
    with torch.no_grad():
        torch.testing.assert_close(loaded(clips).readout, fitted(clips).readout)
        torch.testing.assert_close(fuse(loaded)(clips).readout, fitted(clips).readout, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="readout_parts"):
        USDRLModel.from_pretrained(folder, readout_parts=[1, 4])


def test_clips_are_compared_by_it_and_heads_read_the_pooled_embedding(fitted, folder):
    clips = torch.randn(3, 8, 1, 25, 3)
    with torch.no_grad():
        output = fitted(clips)
    torch.testing.assert_close(embed_clips(fitted, clips), output.readout)
    torch.testing.assert_close(embed_clips(fitted, clips, pooled=True), output.pooler_output)
    recording = np.random.default_rng(0).normal(size=(20, 25, 3)).astype(np.float32)
    [found] = extract_embeddings([recording], folder)
    [clip] = USDRLFeatureExtractor.from_pretrained(folder)([recording], return_tensors="pt")["keypoints"]
    with torch.no_grad():
        np.testing.assert_allclose(found, fitted(clip[None]).readout[0].numpy(), rtol=1e-3, atol=1e-4)
    assert extract_embeddings([], folder).shape == (0, 24)
    stream = USDRLStream(folder, window=20, stride=20)
    assert [result.embedding.shape for frame in recording if (result := stream.push(frame))] == [(24,)]
    head = with_head(fitted, USDRLForActionRecognition, 3).eval()
    with torch.no_grad():
        torch.testing.assert_close(head(clips).logits, head.classifier(output.pooler_output))


@pytest.mark.long
def test_it_is_exported(folder, tmp_path):
    export = export_model(folder, tmp_path / "onnx")
    assert export.outputs["readout"] == ["batch", 24]


def test_a_causal_model_has_none(folder):
    config = USDRLConfig.from_pretrained(folder, is_causal=True)
    assert config.readout_parts is None and config.clip_embedding_size == 16
    with pytest.raises(ValueError, match="a causal model has no readout"):
        fit_readout(USDRLModel(config), [torch.zeros(2, 8, 1, 25, 3)])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"readout_parts": [3]}, "readout_parts must be different numbers that divide the 8 frames"),
        ({"readout_parts": [2, 2]}, "different"),
        ({"readout_parts": []}, "readout_parts"),
        ({"readout_parts": [1], "readout_size": 33}, "readout_size must be at most the 32"),
        ({"readout_parts": [1], "readout_size": 0}, "readout_size must be at least 1"),
    ],
)
def test_impossible_readouts_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        USDRLConfig(**SIZES, **fields)


@pytest.mark.parametrize(
    ("clips", "options", "said"),
    [
        (24, {}, "needs more than 24 clips, got 24"),
        (0, {}, "needs more than 24 clips, got 0"),
        (40, {"shrinkage": 0}, "shrinkage must be a positive number"),
        (40, {"shrinkage": float("nan")}, "shrinkage"),
        (40, {"parts": None}, "parts must be a list of whole numbers"),
        (40, {"parts": [2.0]}, "parts must be a list of whole numbers"),
        (40, {"size": 1.5}, "parts must be a list of whole numbers and size one"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_leaves_the_model(clips, options, said):
    model = USDRLModel(USDRLConfig(**SIZES))
    batches = torch.randn(clips, 8, 1, 25, 3).split(16) if clips else []
    with pytest.raises(ValueError, match=said):
        fit_readout(model, batches, **{"size": 24, **options})
    assert model.config.readout_parts is None and not hasattr(model, "readout") and model.training
    with pytest.raises(ValueError, match="clips that differ"):
        fit_readout(model, [torch.ones(40, 8, 1, 25, 3)], size=24)


def test_it_is_fitted_on_clips_as_the_extractor_makes_them():
    _, extractor, _, views = build_recipe(load_recipe("mocap-tiny"))
    samples = load_samples()[:20]
    [batch] = PretrainingDataset([samples], extractor).batches()
    found = views.whole()(RaggedFrames(batch["frames"], batch["lengths"]), batch["clips"])[0]
    torch.testing.assert_close(found, extractor(list(samples), return_tensors="pt")["keypoints"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("width", "clips", "size"), [(96, 1000, 256), (16, 1000, 64), (96, 100, 50), (96, 1, 1), (96, None, 256)]
)
def test_a_recipes_readout_is_as_large_as_model_and_archive_allow(width, clips, size):
    config = USDRLConfig(**SIZES | {"hidden_size": width})
    entries = recipe_readout(config, {"parts": [1, 2], "size": 256, "shrinkage": 0.1}, clips)
    assert entries == {"parts": [1, 2], "size": size, "shrinkage": 0.1}


def test_a_small_archive_gets_a_readout(tmp_path):
    settings = replace(recipe(epochs=1, batch_size=8), readout={"parts": [1, 2], "size": 256})
    record = pretrain([load_samples()[:20]], tmp_path / "run", settings, max_steps=1)
    assert record is not None
    # Recordings longer than the recipe's window are several clips.
    assert USDRLModel.from_pretrained(tmp_path / "run").config.readout_size == record["n"]["train"] // 2 < 64


def test_pretraining_ends_with_a_readout_that_is_the_same_again(tmp_path):
    motion = load_samples()[:32]
    settings = replace(recipe(epochs=1, batch_size=8), readout={"parts": [1, 2], "size": 8})
    for name in ("first", "second"):
        pretrain([motion], tmp_path / name, settings, max_steps=1)
    models = [USDRLModel.from_pretrained(tmp_path / name) for name in ("first", "second")]
    assert models[0].config.readout_parts == [1, 2] and models[0].readout.mean.any()
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].state_dict()[name]), name
