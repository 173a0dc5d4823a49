import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from usdrl_hub import (
    Engine,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLModel,
    extract_embeddings,
    extract_frame_embeddings,
    fuse,
    iter_predictions,
)
from usdrl_hub.acceleration import fused as fusing
from usdrl_hub.acceleration.fused import FusedLinear, is_fused
from usdrl_hub.acceleration.merged import (
    MergedAttention,
    PointwiseConvolution,
    StackedDenseLayer,
    TokenMixing,
    training_layers,
)
from usdrl_hub.data.samples import load_samples
from usdrl_hub.hub.convert import convert_checkpoint, original_state_dict
from usdrl_hub.inference.ensemble import USDRLEnsemble

from .conftest import GOLDENS, relative_error, to_clips
from .helpers import PRETRAINED, clips, inputs_of, randomised, tiny_config
from .reference import encode

TINY = "usdrl/tiny-uiprmd"
TOLERANCE = 1e-5
CONFIGURATIONS = [
    {},
    {"encoder": "sttr"},
    {"num_attention_heads": 4},
    {"encoder": "sttr", "num_attention_heads": 2, "num_hidden_layers": 3},
    {"alpha": 0.0},
    {"alpha": 1},
    {"alpha": 0.3, "shift_gap": 2},
    {"shift_gap": 1},
    {"shift_gap": 5, "num_hidden_layers": 3},
    {"shift_gap": 40, "num_hidden_layers": 1},
    {"num_channels": 2, "num_persons": 3, "num_frames": 20, "hidden_size": 40},
    {"modality": "bone"},
    {"modality": "motion", "encoder": "sttr"},
    {"modality": "joint+motion+bone"},
    {"modality": "bone+joint", "encoder": "sttr"},
    {"is_causal": True},
    {"is_causal": True, "encoder": "sttr", "modality": "motion"},
    {"is_causal": True, "num_attention_heads": 2, "modality": "motion+joint"},
]

_FAST = {MergedAttention, PointwiseConvolution, StackedDenseLayer, TokenMixing}


def assert_same_outputs(actual, expected, tolerance=TOLERANCE):
    assert type(actual) is type(expected) and list(actual) == list(expected)
    for name in expected:
        assert relative_error(actual[name], expected[name].detach()) < tolerance, name


@pytest.mark.parametrize("fields", CONFIGURATIONS)
def test_a_fused_encoder_computes_what_the_model_computes(fields):
    model = randomised(USDRLModel(tiny_config(**fields)))
    keypoints = clips(model.config)
    expected = model(keypoints)
    for packed in (True, False):
        fused = fuse(model, packed=packed)
        assert is_fused(fused) and not is_fused(model) and type(fused) is USDRLModel
        assert_same_outputs(fused(keypoints), expected)
        assert isinstance(fused(keypoints, return_dict=False), tuple)


@pytest.mark.parametrize(
    "fields", [{}, {"num_attention_heads": 4}, {"alpha": 0.8}, {"shift_gap": 5, "num_hidden_layers": 3}]
)
def test_a_fused_encoder_computes_what_the_reference_computes(fields):
    config = tiny_config(**fields)
    model = randomised(USDRLModel(config))
    keypoints = clips(config)
    state = {key.removeprefix("module."): value for key, value in original_state_dict(model).items()}
    with torch.no_grad():
        temporal, spatial = encode(state, keypoints, config.num_attention_heads, config.alpha, config.shift_gap)
    output = fuse(model)(keypoints)
    assert relative_error(output.temporal_hidden_state, temporal) < TOLERANCE
    assert relative_error(output.spatial_hidden_state, spatial) < TOLERANCE


@pytest.mark.parametrize(
    "name", ["recognition_dste_ntu25", "recognition_sttr_ntu25", "recognition_dste_uav17", "detection_dste_ntu25"]
)
def test_fused_classifiers_compute_what_the_release_computes(golden, name):
    file, path = golden(name), GOLDENS / f"{name}.pth.tar"
    keypoints = to_clips(file["input_NCTVM"])
    recognizer = fuse(convert_checkpoint(path, "recognition"))
    with torch.no_grad():
        actual = {
            "logits": recognizer(keypoints).logits,
            "frame_logits": fuse(convert_checkpoint(path, "detection"))(keypoints).logits,
            "embedding": recognizer.usdrl(keypoints).pooler_output,
            "dense": recognizer.usdrl(keypoints).last_hidden_state,
        }
    for key, tensor in actual.items():
        assert relative_error(tensor, file[key]) < TOLERANCE, key


@pytest.mark.parametrize("name, modality", PRETRAINED)
def test_fused_pretraining_models_compute_what_the_release_computes(golden, name, modality):
    file = golden(name)
    fused = fuse(convert_checkpoint(GOLDENS / f"{name}.pth.tar", modality=modality))
    with torch.no_grad():
        output = fused(to_clips(file["input_NCTVM"]))
    assert relative_error(output.pooler_output, file[f"{modality}_pooled"]) < TOLERANCE
    assert relative_error(output.instance_projection, file[f"{modality}_z_instance"]) < TOLERANCE


@pytest.mark.parametrize(
    "model_class",
    [
        USDRLForActionRecognition,
        USDRLForActionDetection,
        USDRLForActionSegmentation,
        USDRLForEarlyActionPrediction,
        USDRLForPreTraining,
    ],
)
@pytest.mark.parametrize("encoder", ["dste", "sttr"])
def test_every_head_can_be_fused_and_is_left_trainable(tmp_path, model_class, encoder):
    config = tiny_config(encoder=encoder, is_causal=model_class is USDRLForEarlyActionPrediction)
    model = randomised(model_class(config))
    inputs = inputs_of(model_class, config)
    expected = model(**inputs)
    fused = fuse(model.train())
    assert type(fused) is model_class and not fused.training and model.training
    assert_same_outputs(fused(**inputs), expected)
    model(**inputs)[0].sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name.startswith("usdrl"))
    model.eval().save_pretrained(tmp_path)
    for name, tensor in model_class.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    nn.init.zeros_(model.usdrl.temporal.layers[0].attention.in_proj.weight)
    assert_same_outputs(fused(**inputs), expected)


def test_a_fused_model_needs_the_operations_that_are_claimed():
    """For a token 34 d^2 of 50 d^2 in DSTE, 8 d^2 of 12 d^2 in STTR; torch does not count attention scores."""
    d, frames, joints, batch, layers = 32, 12, 5, 3, 2
    for encoder, claimed in (("dste", (50, 34)), ("sttr", (12, 8))):
        config = tiny_config(encoder=encoder, hidden_size=d)
        model = USDRLModel(config).eval()
        for each, cost in zip((model, fuse(model, packed=False)), claimed, strict=True):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                each(clips(config, batch))
            expected = 0
            for tokens, width in ((frames, joints * 3), (joints, frames * 3)):
                mixing = 4 * tokens * d if encoder == "dste" else 0
                expected += batch * tokens * (layers * (cost * d * d + mixing) + 2 * width * d + 2 * d * d)
            assert counter.get_total_flops() == expected


def test_what_a_fused_model_has_not_is_refused():
    model = USDRLForActionRecognition(tiny_config(modality="joint+bone"))
    fused, keypoints = fuse(model), clips(model.config)
    for asked in ({"output_hidden_states": True}, {"output_attentions": True}):
        with pytest.raises(ValueError, match="no hidden states and no attention weights"):
            fused(keypoints, **asked)
    fused.config.output_hidden_states = True
    with pytest.raises(ValueError, match="no hidden states"):
        fused(keypoints)
    with pytest.raises(ValueError, match="its modalities together"):
        fuse(model)(keypoints, modality="bone")
    with pytest.raises(ValueError, match="cannot be trained"):
        fused.train()
    assert fuse(fused) is fused
    assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_a_fused_model_is_not_saved_as_if_it_were_the_original(tmp_path):
    model = USDRLForActionRecognition(tiny_config(modality="joint+bone"))
    for packed in (True, False):
        fused = fuse(model, packed=packed)
        with pytest.raises(ValueError, match="a fused model cannot be saved or published"):
            fused.save_pretrained(tmp_path / "model")
        with pytest.raises(ValueError, match="a fused model cannot be saved or published"):
            fused.push_to_hub("somebody/model")
        assert not list(tmp_path.iterdir())
        shared = fused.state_dict().keys() & model.state_dict().keys()
        assert shared == {"classifier.weight", "classifier.bias", "usdrl.spatial.position.values"} & shared
        with pytest.raises(RuntimeError, match="Missing key"):
            model.load_state_dict(fused.state_dict())


def test_a_model_with_adapters_is_refused():
    model = USDRLModel(tiny_config())
    inner = model.temporal.layers[0].attention.in_proj
    nn.utils.parametrizations.weight_norm(inner)
    with pytest.raises(ValueError, match="only a plain model can be fused"):
        fuse(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("encoder", ["dste", "sttr"])
@pytest.mark.parametrize("packed", [True, False])
def test_in_low_precision_it_is_nearer_to_float32_than_the_model(dtype, encoder, packed):
    config = tiny_config(encoder=encoder, hidden_size=64)
    errors = {"model": 0.0, "fused": 0.0}
    for _ in range(5):
        model = USDRLModel(config).eval()
        keypoints = clips(config, 4)
        with torch.no_grad():
            exact = model(keypoints).pooler_output
            rough = {
                "model": copy.deepcopy(model).to(dtype)(keypoints).pooler_output,
                "fused": fuse(model, packed=packed).to(dtype)(keypoints).pooler_output,
            }
        for name, output in rough.items():
            assert output.dtype == dtype
            assert nn.functional.cosine_similarity(output.float(), exact).min() > 0.9995
            errors[name] += float((output.float() - exact).square().mean().sqrt())
    # Its tokens are added up in float32.
    assert errors["fused"] < 0.75 * errors["model"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "model_class",
    [
        USDRLForActionRecognition,
        USDRLForActionDetection,
        USDRLForActionSegmentation,
        USDRLForEarlyActionPrediction,
        USDRLForPreTraining,
    ],
)
def test_every_head_computes_in_low_precision(model_class, dtype):
    config = tiny_config(is_causal=model_class is USDRLForEarlyActionPrediction, hidden_size=64)
    model = model_class(config).eval()
    inputs = inputs_of(model_class, config)
    with torch.no_grad():
        exact = model(**inputs)[0]
        for rough in (fuse(model), copy.deepcopy(model)):
            found = rough.to(dtype)(**inputs)[0]
            assert found.dtype == dtype and relative_error(found.float(), exact) < 0.03


@pytest.mark.parametrize("fields", [{}, {"num_attention_heads": 2}, {"encoder": "sttr"}])
@pytest.mark.parametrize("packed", [True, False])
def test_it_runs_under_autocast(fields, packed):
    model = USDRLModel(tiny_config(hidden_size=64, **fields)).eval()
    keypoints = clips(model.config)
    with torch.no_grad():
        exact = model(keypoints).pooler_output
        with torch.autocast("cpu", torch.bfloat16):
            rough = fuse(model, packed=packed)(keypoints).pooler_output
    assert nn.functional.cosine_similarity(rough.float(), exact).min() > 0.9995


def test_casts_and_copies_keep_the_weights():
    model = randomised(USDRLForActionRecognition(tiny_config()))
    fused, keypoints = fuse(model), clips(model.config)
    expected = fused(keypoints).logits
    for same in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused)), copy.deepcopy(fused).double().float()):
        assert torch.equal(same(keypoints).logits, expected)
    assert relative_error(copy.deepcopy(fused).double()(keypoints).logits, expected) < TOLERANCE
    assert torch.equal(fused(keypoints).logits, expected)


def test_weights_are_packed_where_there_are_kernels_for_them():
    fused = fuse(USDRLModel(tiny_config()))
    linears = [module for module in fused.modules() if isinstance(module, FusedLinear)]
    has_kernels = torch.backends.mkldnn.is_available() and "AVX" in torch.backends.cpu.get_cpu_capability()
    assert linears and all((linear.packed is not None) == has_kernels for linear in linears)
    assert all((linear.weight is None) == has_kernels for linear in linears)


@pytest.mark.parametrize("fields", [{}, {"modality": "joint+bone", "encoder": "sttr"}])
def test_a_batch_is_the_same_in_parts(fields, monkeypatch):
    monkeypatch.setattr(fusing, "_PART", 5 * 12 * 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = tiny_config(**fields)
    model = randomised(USDRLModel(config))
    fused = fuse(model)
    for number in (1, 8):
        keypoints = clips(config, number)
        with torch.no_grad():
            expected = model(keypoints)
        assert_same_outputs(fused(keypoints), expected)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("encoder", ["dste", "sttr"])
@pytest.mark.long
def test_unpacked_it_compiles_without_graph_breaks_and_exports(encoder):
    model = randomised(USDRLForActionRecognition(tiny_config(encoder=encoder, modality="bone")))
    keypoints = clips(model.config)
    expected = model(keypoints).logits.detach()
    fused = fuse(model, packed=False)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(keypoints).logits, expected) < TOLERANCE
    batch = {"keypoints": {0: torch.export.Dim("batch")}}
    exported = torch.export.export(fused, (keypoints,), strict=False, dynamic_shapes=batch)
    for part in (keypoints, keypoints[:1], keypoints.repeat(3, 1, 1, 1, 1)):
        found = exported.module()(part).logits
        assert relative_error(found, expected.repeat(3, 1)[: len(part)]) < TOLERANCE


@pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="nothing is packed on this processor"
)
def test_packed_weights_say_that_they_cannot_be_exported():
    fused = fuse(USDRLModel(tiny_config()))
    with pytest.raises(RuntimeError, match=r"fuse\(model, packed=False\)"):
        torch.export.export(fused, (clips(fused.config),), strict=False)


def test_a_model_that_is_not_kept_is_emptied():
    model = USDRLModel(tiny_config()).eval()
    keypoints = clips(model.config)
    expected = model(keypoints)
    fused = fuse(model, keep=False)
    assert_same_outputs(fused(keypoints), expected)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in fused.parameters()} == {"cpu"}


def test_what_is_loaded_by_name_for_inference_is_fused_and_equals_the_model():
    recordings = load_samples()[:9]
    model = USDRLForActionRecognition.from_pretrained(TINY).eval()
    for whole in (True, False):
        assert is_fused(Engine.load(TINY, head=whole, device="cpu").model)
    for extract in (extract_embeddings, extract_frame_embeddings):
        fused, exact = (extract(recordings, each, device="cpu") for each in (TINY, model))
        for a, b in zip(fused, exact, strict=True):
            assert relative_error(a, b) < TOLERANCE
    fused, exact = (iter_predictions(recordings, each, device="cpu") for each in (TINY, model))
    for a, b in zip(fused, exact, strict=True):
        assert abs(a.probabilities - b.probabilities).max() < TOLERANCE
    ensemble = USDRLEnsemble.from_pretrained([TINY, TINY])
    assert all(map(is_fused, ensemble.models))
    for a, b in zip(iter_predictions(recordings, ensemble), iter_predictions(recordings, model), strict=True):
        assert abs(a.probabilities - b.probabilities).max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_inference_in_low_precision_is_as_near_to_float32_as_the_model(dtype):
    recordings = load_samples()[:9]
    model = USDRLForActionRecognition.from_pretrained(TINY).eval()
    exact = extract_embeddings(recordings, model, device="cpu")
    fused, rough = (extract_embeddings(recordings, each, device="cpu", dtype=dtype) for each in (TINY, model))
    assert relative_error(fused, exact) < 1.5 * relative_error(rough, exact)


def test_a_configuration_that_asks_for_states_is_still_embedded(tmp_path):
    config = USDRLConfig(hidden_size=16, num_persons=1, output_hidden_states=True)
    model = USDRLModel(config).eval()
    model.save_pretrained(tmp_path)
    USDRLFeatureExtractor.from_model_config(config).save_pretrained(tmp_path)
    recordings = load_samples()[:2]
    fused, exact = (extract_embeddings(recordings, each, device="cpu") for each in (tmp_path, model))
    assert relative_error(fused, exact) < TOLERANCE


@pytest.mark.parametrize("fields", [{}, {"is_causal": True}, {"encoder": "sttr"}])
def test_layers_for_training_have_the_same_outputs_and_gradients(fields):
    model = randomised(USDRLModel(tiny_config(drop_path_rate=0.0, **fields))).double().train()
    keypoints = clips(model.config, 9).double()
    names = list(model.state_dict())
    kinds = _FAST
    if "encoder" in fields:
        kinds = {MergedAttention}
    elif "is_causal" in fields:
        # Its mixing leaves later frames out.
        kinds = _FAST - {TokenMixing}
    results = []
    for faster in (False, True):
        with training_layers(model) if faster else nullcontext():
            assert {type(module) for module in model.modules()} & _FAST == (kinds if faster else set())
            assert list(model.state_dict()) == names
            output = model(keypoints).pooler_output
            gradients = torch.autograd.grad(output.square().sum(), list(model.parameters()), allow_unused=True)
        results.append((output.detach(), gradients))
    assert not {type(module) for module in model.modules()} & _FAST
    assert not torch.equal(results[0][0], results[1][0]) and relative_error(results[1][0], results[0][0]) < 1e-12
    largest = max(gradient.abs().max() for gradient in results[0][1] if gradient is not None)
    for expected, gradient in zip(results[0][1], results[1][1], strict=True):
        if expected is not None:
            assert (gradient - expected).abs().max() < 1e-11 * largest


def test_attention_is_merged_where_its_weights_say_all():
    def is_merged(model):
        with training_layers(model):
            return isinstance(model.temporal.layers[0].attention, MergedAttention)

    assert is_merged(USDRLModel(tiny_config()))
    assert not is_merged(USDRLModel(tiny_config(num_attention_heads=2)))
    changes = [
        lambda attention: attention.out_proj.register_forward_pre_hook(lambda *_: None),
        lambda attention: attention.out_proj.register_full_backward_hook(lambda *_: None),
        lambda attention: setattr(attention.in_proj, "forward", lambda tokens: tokens),
        lambda attention: setattr(attention, "in_proj", nn.Sequential(attention.in_proj)),
    ]
    for change in changes:
        model = USDRLModel(tiny_config())
        change(model.temporal.layers[0].attention)
        assert not is_merged(model)
