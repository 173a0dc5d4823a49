import copy

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForTokenClassification,
    AutoModelForVideoClassification,
)

from usdrl_hub import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForPreTraining,
    USDRLModel,
)
from usdrl_hub.hub.convert import original_state_dict

from .conftest import relative_error
from .helpers import clips, formed, tiny_config
from .reference import encode

CLASSES = {
    USDRLModel: AutoModel,
    USDRLForPreTraining: AutoModelForPreTraining,
    USDRLForActionRecognition: AutoModelForVideoClassification,
    USDRLForActionDetection: AutoModelForTokenClassification,
}
ENCODERS = ["dste", "sttr"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"encoder": "sttr"},
        {"num_attention_heads": 4},
        {"encoder": "sttr", "num_attention_heads": 2, "num_hidden_layers": 3},
        {"alpha": 0.8},
        {"alpha": 0.0},
        {"shift_gap": 1},
        {"shift_gap": 5, "num_hidden_layers": 3},
        {"num_hidden_layers": 1, "num_channels": 2},
        {"num_persons": 3, "num_frames": 20, "hidden_size": 40},
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_other_sizes_heads_alpha_and_gap_follow_the_reference(fields, seed):
    config = tiny_config(**fields)
    torch.manual_seed(seed)
    model = USDRLModel(config).eval()
    for parameter in model.parameters():
        # Values that no default hides: norms and biases are not one and zero.
        torch.nn.init.normal_(parameter, std=0.2)
    keypoints = clips(config)
    state = {key.removeprefix("module."): value for key, value in original_state_dict(model).items()}
    with torch.no_grad():
        output = model(keypoints)
        temporal, spatial = encode(state, keypoints, config.num_attention_heads, config.alpha, config.shift_gap)
    assert relative_error(output.temporal_hidden_state, temporal) < 1e-5
    assert relative_error(output.spatial_hidden_state, spatial) < 1e-5
    assert torch.equal(
        output.pooler_output, torch.cat([output.temporal_hidden_state.amax(1), output.spatial_hidden_state.amax(1)], 1)
    )


@pytest.mark.parametrize("encoder", ENCODERS)
def test_outputs_have_their_documented_shapes(encoder):
    config = tiny_config(encoder=encoder, num_attention_heads=2)
    model = USDRLModel(config).eval()
    output = model(clips(config), output_hidden_states=True, output_attentions=True)
    d, frames, tokens = 16, 12, 5
    assert output.last_hidden_state.shape == (3, frames, 2 * d) and output.pooler_output.shape == (3, 2 * d)
    assert output.temporal_hidden_state.shape == (3, frames, d) and output.spatial_hidden_state.shape == (3, tokens, d)
    assert len(output.hidden_states) == config.num_hidden_layers + 1
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert torch.equal(output.temporal_hidden_states[-1], output.temporal_hidden_state)
    assert torch.equal(output.spatial_hidden_states[-1], output.spatial_hidden_state)
    maps = 3 if encoder == "dste" else 1
    assert [a.shape for a in output.attentions] == [(3, maps, 2, frames, frames)] * 2 + [
        (3, maps, 2, tokens, tokens)
    ] * 2
    for attention in output.attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    plain = model(clips(config))
    assert plain.hidden_states is None and plain.attentions is None
    assert isinstance(model(clips(config), return_dict=False), tuple)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saving_and_loading_is_bit_exact(tmp_path, model_class, dtype):
    config = tiny_config(modality="bone")
    model = model_class(config).to(dtype).eval()
    model.save_pretrained(tmp_path)
    keypoints = clips(config)
    expected = model(keypoints)[0]
    for loader in (model_class, CLASSES[model_class]):
        loaded, report = loader.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
        assert type(loaded) is model_class and loaded.dtype == dtype
        assert not report["missing_keys"] and not report["unexpected_keys"]
        for (name, saved), (_, read) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
            assert torch.equal(saved, read), name
        assert torch.equal(loaded(keypoints)[0], expected)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_loading_leaves_no_memory_uninitialised(tmp_path, monkeypatch, model_class, encoder):
    config = tiny_config(modality="bone", encoder=encoder)
    model = model_class(config).eval()
    model.save_pretrained(tmp_path)
    keypoints = clips(config)

    def poisoned(function):
        def wrapper(*args, **kwargs):
            tensor = function(*args, **kwargs)
            if tensor.device.type != "meta":
                tensor.fill_(torch.nan if tensor.is_floating_point() else 999_999)
            return tensor

        return wrapper

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))
    loaded = model_class.from_pretrained(tmp_path).eval()
    monkeypatch.undo()
    for name, tensor in [*loaded.named_parameters(), *loaded.named_buffers()]:
        assert tensor.is_floating_point() and tensor.isfinite().all() or (tensor < 100).all(), name
    assert torch.equal(loaded(keypoints)[0], model(keypoints)[0])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_new_heads_are_initialised_and_an_encoder_that_lacks_a_tensor_is_refused(tmp_path, encoder):
    base = USDRLModel(tiny_config(encoder=encoder, hidden_size=64))
    state = base.state_dict()
    base.save_pretrained(tmp_path)
    loaded = USDRLForActionRecognition.from_pretrained(tmp_path, num_labels=50)
    assert loaded.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1) and not loaded.classifier.bias.any()
    for name, tensor in state.items():
        assert torch.equal(loaded.usdrl.state_dict()[name], tensor)
    base.save_pretrained(tmp_path, state_dict={key: state[key] for key in state if "position" not in key})
    for model_class in (USDRLModel, USDRLForActionRecognition):
        with pytest.raises(ValueError, match="tensor 'spatial.position.values' is missing"):
            model_class.from_pretrained(tmp_path)


def test_initialisation_is_that_of_the_release():
    for encoder, linear in (("dste", 0.02), ("sttr", 1 / 256**0.5 / 3**0.5)):
        model = USDRLForPreTraining(tiny_config(encoder=encoder, hidden_size=256))
        attention = model.usdrl.temporal.layers[0].attention
        assert attention.in_proj.weight.std().item() == pytest.approx((6 / (4 * 256)) ** 0.5 / 3**0.5, rel=0.05)
        assert attention.out_proj.weight.std().item() == pytest.approx(linear, rel=0.05)
        assert not attention.in_proj.bias.any() and not attention.out_proj.bias.any()
        assert model.usdrl.temporal.embedding.fc2.weight.std().item() == pytest.approx(linear, rel=0.05)
        assert bool(model.usdrl.temporal.embedding.fc2.bias.any()) == (encoder == "sttr")
        projector = model.instance_projector[3].weight
        assert projector.std().item() == pytest.approx(
            linear if encoder == "dste" else 1 / 512**0.5 / 3**0.5, rel=0.05
        )
        assert model.usdrl.spatial.position.values.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("heads", [1, 4])
def test_sdpa_equals_eager_attention(encoder, heads):
    config = tiny_config(encoder=encoder, num_attention_heads=heads)
    model = USDRLModel(config).eval()
    keypoints = clips(config)
    model.set_attn_implementation("sdpa")
    fused = model(keypoints)
    with_weights = model(keypoints, output_attentions=True)
    model.set_attn_implementation("eager")
    eager = model(keypoints)
    assert relative_error(fused.last_hidden_state.detach(), eager.last_hidden_state.detach()) < 1e-5
    assert relative_error(with_weights.pooler_output.detach(), eager.pooler_output.detach()) < 1e-5


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradient_checkpointing_changes_no_gradient(encoder):
    config = tiny_config(encoder=encoder, drop_path_rate=0.5)
    model = USDRLForActionRecognition(config).train()
    checkpointed = copy.deepcopy(model)
    checkpointed.gradient_checkpointing_enable()
    keypoints, labels = clips(config), torch.tensor([0, 1, 2])
    for each in (model, checkpointed):
        torch.manual_seed(3)
        each(keypoints, labels=labels).loss.backward()
    for (name, a), (_, b) in zip(model.named_parameters(), checkpointed.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize("encoder", ["dste", pytest.param("sttr", marks=pytest.mark.slow)])
def test_it_compiles_without_graph_breaks(encoder):
    config = tiny_config(encoder=encoder, modality="bone")
    model = USDRLForActionRecognition(config).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    keypoints = clips(config)
    with torch.no_grad():
        assert relative_error(compiled(keypoints).logits, model(keypoints).logits) < 1e-5
    model.train()
    torch.compile(model, fullgraph=True, backend="aot_eager")(
        keypoints, labels=torch.tensor([0, 1, 2])
    ).loss.backward()


def test_modalities_are_formed_of_joint_coordinates():
    config = tiny_config()
    keypoints = clips(config)
    tokens = {}
    for modality in ("joint", "bone", "motion"):
        temporal, spatial = formed(USDRLModel(tiny_config(modality=modality)), keypoints)
        tokens[modality] = temporal.view(keypoints.shape)
        assert torch.equal(spatial.view(3, 1, 5, 12, 3), tokens[modality].permute(0, 2, 3, 1, 4))
    assert torch.equal(tokens["joint"], keypoints)
    for joint in range(5):
        assert torch.equal(tokens["bone"][..., joint, :], keypoints[..., joint, :] - keypoints[..., joint // 2, :])
    assert torch.equal(tokens["motion"][:, :-1], keypoints[:, 1:] - keypoints[:, :-1])
    assert not tokens["motion"][:, -1].any()


def test_stochastic_depth_drops_samples_in_training_only():
    config = tiny_config(drop_path_rate=0.5)
    model = USDRLModel(config)
    keypoints = clips(config, 1).expand(64, -1, -1, -1, -1)
    model.train()
    assert len(model(keypoints).pooler_output.round(decimals=4).unique(dim=0)) > 10
    model.eval()
    assert model(keypoints).pooler_output.std(dim=0).max() < 1e-5
    drop = model.temporal.layers[0].convolutional.drop_path.train()
    dropped = drop(torch.ones(20_000, 3, 2))
    assert set(dropped.unique().tolist()) == {0.0, 2.0} and (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("model_class", [USDRLForActionRecognition, USDRLForActionDetection])
def test_losses_are_cross_entropies_and_honour_the_items_of_an_accumulated_batch(model_class):
    config = tiny_config(drop_path_rate=0)
    model = model_class(config)
    keypoints = clips(config, 8)
    shape = (8,) if model_class is USDRLForActionRecognition else (8, 12)
    labels = torch.randint(0, 4, shape)
    labels.view(-1)[::3] = -100
    output = model(keypoints, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits.view(-1, 4), labels.view(-1))
    torch.testing.assert_close(output.loss, expected)
    items = (labels != -100).sum()
    parts = [
        model(keypoints[i : i + 2], labels=labels[i : i + 2], num_items_in_batch=items).loss for i in range(0, 8, 2)
    ]
    torch.testing.assert_close(sum(parts), expected)


def test_a_frozen_encoder_stays_in_eval_mode_and_gets_no_gradient():
    config = tiny_config(drop_path_rate=0.9)
    model = USDRLForActionRecognition(config)
    model.freeze_encoder()
    model.train()
    assert model.training and not model.usdrl.training
    keypoints = clips(config)
    assert torch.equal(model(keypoints).logits, model(keypoints).logits)
    model(keypoints, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_clips_of_another_shape_are_refused():
    model = USDRLModel(tiny_config())
    for shape in [(2, 12, 1, 5, 2), (12, 1, 5, 3), (2, 11, 1, 5, 3)]:
        with pytest.raises(ValueError, match="use USDRLFeatureExtractor"):
            model(torch.randn(shape))


@pytest.mark.parametrize("modality", ["bone", "motion"])
def test_differences_are_formed_before_the_cast_to_half_precision(modality):
    config = tiny_config(modality=modality)
    exact, rough = USDRLModel(config).eval(), USDRLModel(config).eval().to(torch.bfloat16)
    # Joints a few millimetres apart, metres from the origin.
    keypoints = 3 + 0.005 * clips(config)
    rough.temporal.embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    seen: list[torch.Tensor] = []
    rough(keypoints)
    torch.testing.assert_close(seen[0].float(), formed(exact, keypoints)[0], rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integer_type_are_taken(dtype):
    model = USDRLForActionRecognition(tiny_config())
    assert model(clips(model.config), labels=torch.tensor([0, 1, 2], dtype=dtype)).loss.isfinite()


def test_bone_moves_to_the_clips_device_type():
    model = USDRLModel(tiny_config(modality="bone")).to(torch.bfloat16)
    assert model(clips(model.config)).pooler_output.dtype == torch.bfloat16
    assert model.tokens.parents.dtype == torch.long and np.array_equal(model.tokens.parents, [0, 0, 1, 1, 2])


def test_models_in_training_can_be_exported_and_their_attention_replaced():
    class Plain(torch.nn.Module):
        def forward(self, tokens, output_attentions=False):
            return tokens, None

    model = USDRLModel(tiny_config(drop_path_rate=0.0)).train()
    keypoints = clips(model.config, 9)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (keypoints,), dynamic_shapes={"keypoints": {0: batch}})
    expected = model(keypoints[:2]).pooler_output
    assert relative_error(exported.module()(keypoints[:2]).pooler_output.detach(), expected.detach()) < 1e-5
    model.temporal.layers[0].attention = Plain()
    assert model(keypoints).pooler_output.isfinite().all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_training_computes_what_evaluation_does_but_for_stochastic_depth(encoder):
    model = USDRLModel(tiny_config(encoder=encoder, drop_path_rate=0.0))
    keypoints = clips(model.config, 6)
    trained, evaluated = (model.train(mode)(keypoints).pooler_output.detach() for mode in (True, False))
    assert relative_error(trained, evaluated) < 1e-5
