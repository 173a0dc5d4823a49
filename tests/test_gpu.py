"""A CUDA device computes the same as the CPU; run with `make test-gpu`."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.utils import is_torch_greater_or_equal

from usdrl_hub import (
    SkeletonSequence,
    USDRLFeatureExtractor,
    USDRLModel,
    extract_embeddings,
    extract_frame_embeddings,
    fuse,
    iter_embeddings,
    iter_predictions,
    write_store,
)
from usdrl_hub.acceleration.prefetch import fetch
from usdrl_hub.acceleration.replay import CUDAGraphReplay
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.metrics.retrieval import retrieval_metrics, top_k
from usdrl_hub.normalization import Geometry, normalize_sequences
from usdrl_hub.pretraining.arguments import ComputeOptions
from usdrl_hub.pretraining.losses import MultiGrainedFeatureDecorrelation
from usdrl_hub.pretraining.run import pretrain
from usdrl_hub.pretraining.views import ViewAugmentation, hashed_uniform
from usdrl_hub.ragged import RaggedFrames

from .conftest import relative_error
from .helpers import clips, random_frames, recipe, tiny_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_gpu(batch: RaggedFrames) -> RaggedFrames:
    return RaggedFrames(batch.frames.cuda(), batch.lengths.cuda())


@pytest.mark.parametrize("geometry", [Geometry(1, (4, 8)), Geometry(1, torso=(0, 2))])
def test_normalisation_is_that_of_the_cpu(geometry):
    batch = random_frames([3, 70, 1, 300])
    expected = normalize_sequences(batch, geometry).frames
    assert relative_error(normalize_sequences(on_gpu(batch), geometry).frames.cpu(), expected) < 1e-5


def test_clips_are_those_of_the_cpu():
    sequences = [SkeletonSequence(np.random.default_rng(n).normal(size=(20 + 40 * n, 2, 25, 3))) for n in range(5)]
    extractor = USDRLFeatureExtractor()
    expected = extractor(sequences, return_tensors="pt")["keypoints"]
    assert relative_error(extractor(sequences, return_tensors="pt", device="cuda")["keypoints"].cpu(), expected) < 1e-5


def test_views_are_those_of_the_cpu():
    batch, clips = random_frames([70, 5, 200]), torch.tensor([4, 0, 9])
    assert torch.equal(hashed_uniform(3, 5, clips.cuda(), 40).cpu(), hashed_uniform(3, 5, clips, 40))
    augmentation = ViewAugmentation()
    expected = augmentation(batch, clips, 1, 2)
    assert relative_error(augmentation(on_gpu(batch), clips.cuda(), 1, 2).cpu(), expected) < 1e-5


def test_losses_are_those_of_the_cpu():
    views = [torch.randn(4, 12, size) for size in (32, 32, 64)]
    loss = MultiGrainedFeatureDecorrelation.preset("aaai")
    expected, actual = loss(*views), loss(*(view.cuda() for view in views))
    for name, value in expected.items():
        assert relative_error(actual[name].cpu(), value) < 1e-4


def test_embeddings_are_those_of_the_cpu():
    clips = load_samples()[:20]
    expected = extract_embeddings(clips, device="cpu")
    assert relative_error(extract_embeddings(clips, device="cuda"), expected) < 1e-3
    for dtype in ("bfloat16", "float16"):
        rough = extract_embeddings(clips, device="cuda", dtype=dtype)
        cosine = (rough * expected).sum(1) / np.linalg.norm(rough, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosine.min() > 0.99


@pytest.mark.parametrize("extract", [extract_embeddings, extract_frame_embeddings])
def test_batches_that_are_replayed_are_those_of_the_cpu(extract, monkeypatch):
    recorded, record = [], CUDAGraphReplay.record
    monkeypatch.setattr(CUDAGraphReplay, "record", lambda *arguments: (recorded.append(1), record(*arguments)))
    # Several of one size, one smaller, clips made by a thread in a stream of its own.
    clips = [clip for clip in load_samples()] * 3
    expected, found = (extract(clips, device=place, batch_size=16) for place in ("cpu", "cuda"))
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 1e-3
    if extract is extract_embeddings:
        rows = [
            [row.probabilities for row in iter_predictions(clips, device=d, batch_size=16)] for d in ("cpu", "cuda")
        ]
        assert np.abs(np.subtract(*rows)).max() < 1e-3
    assert recorded


@pytest.mark.parametrize("layout", [None, "ntu25"])
def test_embeddings_of_a_store_are_those_of_the_cpu(tmp_path, layout):
    clips = [clip if layout is None else clip.to_layout(layout) for clip in load_samples()]
    store = write_store([replace(clip, name=str(n)) for n, clip in enumerate(clips * 3)], tmp_path / "store")
    found = list(iter_embeddings(store, device="cuda", batch_size=16))
    assert [sequence.name for sequence, _ in found] == [str(number) for number in range(300)]
    assert relative_error(np.stack([row for _, row in found]), extract_embeddings(list(store), device="cpu")) < 1e-3


def test_fetched_arrays_are_of_ordinary_memory():
    """Pinned memory that a caller keeps is lost to the system."""
    values = ((number, torch.full((4,), float(number), device="cuda")) for number in range(9))
    found = list(fetch(values))
    assert [(number, array.tolist()) for number, array in found] == [(n, [float(n)] * 4) for n in range(9)]
    assert all(array.flags.owndata for _, array in found)


@pytest.mark.parametrize("training", [False, True])
def test_heads_wider_than_fast_kernels_compute_what_the_cpu_does(training):
    model = USDRLModel(tiny_config(hidden_size=512, drop_path_rate=0.0)).train(training)
    keypoints = clips(model.config, 60)
    results = []
    for place in ("cpu", "cuda"):
        moved = copy.deepcopy(model).to(place)
        pooled = moved(keypoints.to(place)).pooler_output
        pooled.square().sum().backward()
        gradients = {name: weights.grad.cpu() for name, weights in moved.named_parameters()}
        results.append((pooled.detach().cpu(), gradients))
    assert relative_error(results[1][0], results[0][0]) < 1e-3
    largest = max(gradient.abs().max() for gradient in results[0][1].values())
    for name, gradient in results[0][1].items():
        # Some are zero in exact arithmetic.
        assert (results[1][1][name] - gradient).norm() < 1e-2 * gradient.norm() + 1e-5 * largest


@pytest.mark.parametrize("fields", [{}, {"encoder": "sttr"}, {"num_attention_heads": 4}, {"is_causal": True}])
def test_fused_models_compute_what_the_model_computes_on_the_cpu(fields):
    model = USDRLModel(tiny_config(hidden_size=64, **fields)).eval()
    keypoints = clips(model.config, 70)
    with torch.no_grad():
        expected = model(keypoints).pooler_output
    for fused in (fuse(model).to("cuda"), fuse(copy.deepcopy(model).to("cuda"))):
        assert relative_error(fused(keypoints.cuda()).pooler_output.cpu(), expected) < 1e-3
        for dtype in (torch.bfloat16, torch.float16):
            rough = copy.deepcopy(fused).to(dtype)(keypoints.cuda()).pooler_output.float().cpu()
            assert torch.nn.functional.cosine_similarity(rough, expected).min() > 0.999


def test_a_fused_model_is_recorded_as_a_graph():
    model = USDRLModel(tiny_config(hidden_size=64)).to("cuda").eval()
    fused, keypoints = fuse(model), clips(model.config).cuda()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        fused(keypoints)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = fused(keypoints).pooler_output
    keypoints.copy_(torch.randn_like(keypoints))
    graph.replay()
    with torch.no_grad():
        assert relative_error(output.cpu(), model(keypoints).pooler_output.cpu()) < 1e-3


def test_neighbours_are_those_of_the_cpu():
    gallery, queries = torch.randn(500, 32), torch.randn(90, 32)
    assert torch.equal(top_k(queries, gallery, 7)[1], top_k(queries, gallery, 7, device="cuda")[1])
    labels = [torch.arange(500) % 5, torch.arange(90) % 5]
    expected = retrieval_metrics(gallery, labels[0], queries, labels[1])
    assert retrieval_metrics(gallery, labels[0], queries, labels[1], device="cuda") == pytest.approx(expected)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16", "mixed"])
@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 5}, {"activation_checkpointing": True}])
def test_pretraining_runs_in_every_precision(tmp_path, precision, options):
    compute = ComputeOptions(**options)
    record = pretrain([sample_path()], tmp_path / "run", recipe(precision=precision), compute=compute)
    assert record["log"][-1]["loss"] > 0 and record["steps"] > 0
    assert extract_embeddings(sample_path(), tmp_path / "run", device="cuda").shape == (100, 32)
    assert next(USDRLModel.from_pretrained(tmp_path / "run").parameters()).dtype == torch.float32


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 8}])
def test_a_compiled_encoder_learns_as_one_that_is_not(tmp_path, options):
    if "micro_batch_size" in options and not is_torch_greater_or_equal("2.13"):
        pytest.skip("an older torch draws other random numbers where a part is computed again, and is refused")
    torch._dynamo.utils.counters.clear()
    losses = []
    for compiled in (False, True):
        compute = ComputeOptions(compile_encoder=compiled, **options)
        record = pretrain([sample_path()], tmp_path / str(compiled), recipe(), compute=compute)
        losses.append(record["log"][0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2) and torch._dynamo.utils.counters["stats"]["unique_graphs"]
