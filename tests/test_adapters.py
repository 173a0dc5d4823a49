"""Adapters, quantisation, offloading and pruning, with the libraries that people use for them."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import peft
import pytest
import torch
from accelerate import cpu_offload, disk_offload
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.utils import prune
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers import TorchAoConfig, TrainingArguments

from usdrl_hub import (
    Engine,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLForEarlyActionPrediction,
    USDRLModel,
    USDRLStream,
    USDRLTrainer,
    extract_embeddings,
)
from usdrl_hub.acceleration.fused import fuse
from usdrl_hub.acceleration.merged import MergedAttention, training_layers
from usdrl_hub.errors import CheckpointLoadError, NonFiniteError
from usdrl_hub.hub.publish import PublishError, publish
from usdrl_hub.inference.export import export_model
from usdrl_hub.loading import load_config, load_feature_extractor, load_model

from . import conftest
from .helpers import clips, run, tiny_config

TINY = "usdrl/tiny-uiprmd"
ENCODERS = ["dste", "sttr"]
ALL = {"target_modules": "all-linear", "r": 4}


def relative_error(actual, expected):
    return conftest.relative_error(torch.as_tensor(actual).detach(), torch.as_tensor(expected).detach())


def recognizer(**fields):
    return USDRLForActionRecognition(tiny_config(**fields)).eval()


def trained(model, **config):
    """Adapters after some steps on random clips; their first product is zero before."""
    adapted = get_peft_model(model, LoraConfig(**(ALL | config)))
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    keypoints = clips(model.config, 4)
    for _ in range(3):
        adapted(keypoints, labels=torch.arange(4)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapted.eval()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_adapter_is_trained(encoder):
    """faults.md 15: those of token mixing had no gradient."""
    model = recognizer(encoder=encoder)
    adapted = get_peft_model(model, LoraConfig(**ALL))
    assert any("mix1" in name for name, _ in adapted.named_parameters()) == (encoder == "dste")
    adapted(clips(model.config), labels=torch.tensor([0, 1, 2])).loss.backward()
    trainable = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert trainable and all(p.grad is not None for p in trainable.values())
    assert all(p.grad.abs().max() > 0 for name, p in trainable.items() if "lora_B" in name)


def test_adapters_that_change_the_weights_compute_the_same_at_first():
    """faults.md 15: PiSSA takes its part out of the weights and adds it in the call."""
    model = recognizer()
    keypoints = clips(model.config)
    expected = model(keypoints).logits
    adapted = get_peft_model(model, LoraConfig(**ALL, init_lora_weights="pissa")).eval()
    assert relative_error(adapted(keypoints).logits, expected) < 1e-5


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_offloaded_models_compute_the_same(tmp_path, encoder, causal):
    """faults.md 15."""
    model = USDRLModel(tiny_config(encoder=encoder, is_causal=causal)).eval()
    keypoints = clips(model.config)
    expected = model(keypoints).last_hidden_state
    for offloaded in (
        cpu_offload(copy.deepcopy(model), torch.device("cpu")),
        disk_offload(copy.deepcopy(model), str(tmp_path), torch.device("cpu")),
    ):
        torch.testing.assert_close(offloaded(keypoints).last_hidden_state, expected, rtol=0, atol=0)
        with pytest.raises(ValueError, match="has hooks or is offloaded"):
            fuse(offloaded)
    if causal:
        extractor = USDRLFeatureExtractor.from_model_config(model.config)
        with pytest.raises(ValueError, match="offloaded does not stream"):
            USDRLStream(Engine(offloaded, extractor))


def test_a_device_map_with_offload_loads_and_computes_the_same(tmp_path):
    """faults.md 15; weights that lie on the disk are checked like others (faults.md 25)."""
    recognizer().save_pretrained(tmp_path / "model")
    model = USDRLForActionRecognition.from_pretrained(tmp_path / "model")
    device_map = {"usdrl.tokens": "cpu", "usdrl.temporal": "disk", "usdrl.spatial": "cpu", "classifier": "cpu"}
    where = {"device_map": device_map, "offload_folder": str(tmp_path / "offload")}
    offloaded = USDRLForActionRecognition.from_pretrained(tmp_path / "model", **where)
    assert any(parameter.is_meta for parameter in offloaded.parameters())
    keypoints = clips(model.config)
    torch.testing.assert_close(offloaded(keypoints).logits, model(keypoints).logits, rtol=0, atol=0)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["usdrl.temporal.embedding.fc1.bias"][0] = float("nan")
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match="'usdrl.temporal.embedding.fc1.bias' holds NaN"):
        USDRLForActionRecognition.from_pretrained(tmp_path / "model", **where)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("causal", [False, True])
def test_dynamic_quantisation_and_pruning_reach_every_layer(causal):
    """faults.md 15: quantised, the layers of token mixing had no weight to take, and raised."""
    model = USDRLModel(tiny_config(is_causal=causal)).eval()
    keypoints = clips(model.config)
    expected = model(keypoints).last_hidden_state
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear}, torch.qint8)
    assert 0 < relative_error(quantised(keypoints).last_hidden_state, expected) < 0.1
    with pytest.raises(ValueError, match="only a plain model"):
        fuse(quantised)
    layers = [module for name, module in model.named_modules() if name.endswith("mix1")]
    zeroed = copy.deepcopy(model)
    for layer in [module for name, module in zeroed.named_modules() if name.endswith("mix1")]:
        torch.nn.init.zeros_(layer.weight)
    for layer in layers:
        prune.random_unstructured(layer, "weight", amount=layer.weight.numel())
    pruned = model(keypoints).last_hidden_state
    assert relative_error(pruned, expected) > 0
    torch.testing.assert_close(pruned, zeroed(keypoints).last_hidden_state, rtol=0, atol=0)
    with pytest.raises(ValueError, match="only a plain model"):
        fuse(model)


def test_a_causal_model_refuses_adapters_that_see_later_frames():
    """faults.md 15: an adapter of token mixing would show each frame the later ones."""
    model = USDRLForEarlyActionPrediction(tiny_config(is_causal=True)).eval()
    keypoints = clips(model.config)
    with pytest.raises(ValueError, match=r"dense_shift.mix1 is now peft.*exclude_modules=\['mix1', 'mix2'\]"):
        get_peft_model(copy.deepcopy(model), LoraConfig(**ALL))(keypoints)
    adapted = get_peft_model(model, LoraConfig(**ALL, exclude_modules=["mix1", "mix2"])).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    later = keypoints.clone()
    later[:, 8:] += 1
    scores = adapted(keypoints).logits
    torch.testing.assert_close(adapted(later).logits[:, :8], scores[:, :8])
    quantised = USDRLModel(tiny_config(is_causal=True)).eval()
    quantize_(quantised, Int8WeightOnlyConfig())
    with pytest.raises(ValueError, match="dense_shift.mix1 is now torchao.*modules_to_not_convert"):
        quantised(keypoints)


def test_attention_of_quantised_weights_is_not_merged():
    """faults.md 15: what is quantised is more than its weights say."""
    model = USDRLModel(tiny_config()).train()
    quantize_(model.temporal.layers[0].attention, Int8WeightOnlyConfig())
    with training_layers(model):
        merged = [isinstance(layer.attention, MergedAttention) for layer in model.temporal.layers]
    assert merged == [False, True]


@pytest.mark.parametrize("modality", ["joint", "joint+bone"])
def test_input_embeddings_are_there(tmp_path, modality):
    """faults.md 33: TorchAoConfig and NEFTune ask for them."""
    model = recognizer(modality=modality)
    layer = model.get_input_embeddings()
    shapes = []
    layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    model(clips(model.config, 2))
    assert shapes == [(2, model.config.num_frames, model.config.hidden_size)]
    other = copy.deepcopy(layer)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other and model.usdrl.get_input_embeddings() is other
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, neftune_noise_alpha=5, report_to=[], disable_tqdm=True, use_cpu=True
    )
    data = [{"keypoints": clips(model.config, 1)[0], "labels": number} for number in range(4)]
    USDRLTrainer(model, arguments, train_dataset=data).train()


def test_int8_weights_of_torchao_are_loaded_saved_and_loaded_again(tmp_path):
    """faults.md 31 and 33: the checkpoint was refused because 'fc1.weight' was missing from it."""
    model = USDRLForActionRecognition.from_pretrained(TINY)
    keypoints = clips(model.config)
    config = TorchAoConfig(Int8WeightOnlyConfig())
    quantised = USDRLForActionRecognition.from_pretrained(TINY, quantization_config=config)
    mixing = quantised.usdrl.temporal.layers[0].dense_shift.mix1.weight
    assert type(mixing).__module__.startswith("torchao")
    expected = quantised(keypoints).logits
    assert 0 < relative_error(expected, model(keypoints).logits) < 0.05
    quantised.save_pretrained(tmp_path)
    again = USDRLForActionRecognition.from_pretrained(tmp_path)
    torch.testing.assert_close(again(keypoints).logits, expected, rtol=0, atol=0)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.5 * 1_599_320
    with pytest.raises(ValueError, match="is quantised"):
        fuse(again)
    with pytest.raises(CheckpointLoadError, match="cannot be loaded"):
        weights = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-9])
        assert weights and load_model(tmp_path)


@pytest.mark.long
def test_adapters_are_trained_saved_loaded_by_name_merged_fused_and_exported(tmp_path):
    """faults.md 31 and 32: a folder of adapters was refused, and held this machine's path."""
    model = USDRLForActionRecognition.from_pretrained("tiny-uiprmd")
    keypoints = clips(model.config, 4)
    data = [{"keypoints": clip, "labels": number} for number, clip in enumerate(keypoints)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        num_train_epochs=3,
        learning_rate=0.05,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    before = model(keypoints).logits.detach()
    adapted = get_peft_model(model, LoraConfig(**ALL, modules_to_save=["classifier"]))
    trainer = USDRLTrainer(
        adapted, arguments, train_dataset=data, processing_class=USDRLFeatureExtractor.from_pretrained(TINY)
    )
    trainer.train()
    folder = tmp_path / "adapter"
    trainer.save_model(str(folder))
    expected = adapted.eval()(keypoints).logits.detach()
    assert relative_error(expected, before) > 0.01
    for file in folder.glob("*"):
        if file.suffix in (".json", ".md"):
            assert os.path.dirname(os.path.dirname(peft.__file__)) not in file.read_text()
            assert "checkpoints/" not in file.read_text(), file
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == TINY
    # As transformers loads adapters: beside the weights.
    loaded = USDRLForActionRecognition.from_pretrained(folder)
    assert relative_error(loaded(keypoints).logits, expected) < 1e-5
    again = PeftModel.from_pretrained(USDRLForActionRecognition.from_pretrained(TINY), folder)
    assert relative_error(again.eval()(keypoints).logits, expected) < 1e-5
    with pytest.raises(ValueError, match="only a plain model"):
        fuse(loaded)
    # As the package loads by name: merged.
    merged = load_model(folder)
    assert type(merged) is USDRLForActionRecognition and load_config(folder).num_labels == 10
    assert relative_error(merged(keypoints).logits, expected) < 1e-4
    assert relative_error(fuse(merged)(keypoints).logits, expected) < 1e-4
    assert load_feature_extractor(folder).layout == "ntu25"
    assert export_model(folder, tmp_path / "onnx").error < 1e-5
    np.save(tmp_path / "walk.npy", np.random.randn(40, 25, 3))
    embeddings = extract_embeddings(tmp_path / "walk.npy", model=folder)
    assert relative_error(embeddings, extract_embeddings(tmp_path / "walk.npy", model=TINY)) > 0.001


@pytest.mark.parametrize("base", [TINY, "usdrl/mocap-tiny"])
def test_an_adapter_with_a_head_for_other_classes_predicts_by_its_folder(tmp_path, capsys, base):
    """faults.md 31: its classes were those of the base, and without a saved head they were drawn at random."""
    names = {0: "sit", 1: "stand", 2: "walk"}
    model = USDRLForActionRecognition.from_pretrained(base, id2label=names, ignore_mismatched_sizes=True)
    keypoints = clips(model.config, 3)
    data = [{"keypoints": clip, "labels": number} for number, clip in enumerate(keypoints)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, learning_rate=0.05, report_to=[], disable_tqdm=True, use_cpu=True
    )
    for saved in (["classifier"], None):
        adapted = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=["fc1"], r=4, modules_to_save=saved))
        trainer = USDRLTrainer(
            adapted, arguments, train_dataset=data, processing_class=USDRLFeatureExtractor.from_pretrained(base)
        )
        trainer.train()
        folder = tmp_path / f"adapter-{saved is None}"
        before = os.umask(0o022)
        try:
            trainer.save_model(str(folder))
        finally:
            os.umask(before)
        # faults.md 37: the adapters were readable for their owner alone.
        assert os.name != "posix" or {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
        if saved is None:
            with pytest.raises(CheckpointLoadError, match="'classifier.bias' is neither in its base.*modules_to_save"):
                load_model(folder)
            continue
        loaded = load_model(folder)
        assert load_config(folder).class_names == list(names.values())
        expected = adapted.eval()(keypoints).logits.detach()
        assert relative_error(loaded(keypoints).logits, expected) < 1e-4
        np.save(tmp_path / "walk.npy", np.random.default_rng(0).normal(scale=0.2, size=(40, 25, 3)))
        code, out, err = run(capsys, "predict", tmp_path / "walk.npy", "--model", folder)
        assert code == 0 and "3 classes" in out and "stand" in out, err
        with pytest.raises(PublishError, match="an adapter of PEFT, not a whole model: save it merged"):
            publish(folder, "ada/adapter", dry_run=True)
        beside = USDRLForActionRecognition.from_pretrained(folder)
        assert relative_error(beside(keypoints).logits, expected) < 1e-5
        (folder / "config.json").unlink()
        with pytest.raises(CheckpointLoadError, match="do not fit its base.*it has no config.json"):
            load_model(folder)


def test_adapters_with_nan_or_of_nothing_are_refused_by_name(tmp_path, monkeypatch):
    """faults.md 31."""
    adapted = trained(USDRLForActionRecognition.from_pretrained(TINY))
    adapted.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    next(iter(weights.values()))[:] = float("nan")
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match="holds NaN or infinity"):
        USDRLForActionRecognition.from_pretrained(tmp_path)
    with pytest.raises(CheckpointLoadError):
        load_model(tmp_path)
    monkeypatch.setattr("usdrl_hub.weights.is_peft_available", lambda: False)
    for load in (load_model, load_config):
        with pytest.raises(CheckpointLoadError, match=f"is an adapter of PEFT for '{TINY}': install the package peft"):
            load(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointLoadError, match="does not name the adapter's base model"):
        load_model(tmp_path)


def test_weights_under_other_names_are_loaded_by_key_mapping(tmp_path):
    """faults.md 31: refused because 'temporal...' was missing."""
    model = recognizer()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    renamed = {name.replace("usdrl.", "encoder."): tensor for name, tensor in weights.items()}
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="its weights hold 0"):
        USDRLForActionRecognition.from_pretrained(tmp_path)
    loaded = USDRLForActionRecognition.from_pretrained(tmp_path, key_mapping={r"^encoder\.": "usdrl."})
    keypoints = clips(model.config)
    torch.testing.assert_close(loaded(keypoints).logits, model(keypoints).logits, rtol=0, atol=0)


@pytest.mark.long
def test_none_of_these_libraries_is_needed():
    """They are for development only."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('peft', 'torchao')))\n"
        "from usdrl_hub.acceleration.fused import fuse, is_fused\n"
        "from usdrl_hub.loading import load_model\n"
        f"print(is_fused(fuse(load_model('{TINY}'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr[-2000:]
