import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments
from transformers.utils import is_torch_greater_or_equal

from usdrl_hub import (
    SkeletonDataset,
    SkeletonFormatError,
    SkeletonSequence,
    USDRLConfig,
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLForPreTraining,
    USDRLModel,
    extract_embeddings,
    open_data,
    write_store,
)
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.errors import PretrainingCollapseError, USDRLWarning
from usdrl_hub.facts.recipes import Recipe, RecipeError, read_recipe, recipe_names
from usdrl_hub.layouts import get_layout
from usdrl_hub.pretraining.arguments import ComputeOptions, PretrainingArguments
from usdrl_hub.pretraining.build import build_recipe, load_recipe, motion_extractor
from usdrl_hub.pretraining.data import PretrainingDataset, compose_pair
from usdrl_hub.pretraining.probe import NeighbourProbe
from usdrl_hub.pretraining.run import pretrain
from usdrl_hub.pretraining.trainer import USDRLPreTrainer, compile_streams
from usdrl_hub.pretraining.views import ViewAugmentation
from usdrl_hub.resume import find_checkpoint

from .helpers import MODEL, VIEWS, recipe, run, tiny_config


@pytest.fixture(scope="module")
def motion(tmp_path_factory) -> Path:
    """Forty of the clips that ship, as a store."""
    path = tmp_path_factory.mktemp("motion") / "store"
    write_store((clip for clip in load_samples()[:40]), path, load_samples().class_names)
    return path


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_run_leaves_a_model_that_everything_takes(motion, tmp_path):
    record = pretrain([motion], tmp_path / "run", recipe(), probe=motion)
    assert record["n"]["train"] > 40 and record["steps"] == 2 * (record["n"]["train"] // 16)
    saved = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert saved["recipe"]["views"] == VIEWS and saved["command"] and saved["checkpoint_sha256"]
    names = {"loss", "similarity", "variance", "autocovariance", "dead_features"}
    assert names <= set(saved["log"][0]) and any("probe_1nn_accuracy" in entry for entry in saved["log"])
    assert sorted(path.name for path in (tmp_path / "run").glob(".*")) == []
    assert extract_embeddings(motion, tmp_path / "run").shape == (40, 32)
    assert isinstance(USDRLForPreTraining.from_pretrained(tmp_path / "run"), USDRLForPreTraining)
    assert USDRLFeatureExtractor.from_pretrained(tmp_path / "run").normalization == "body"
    with pytest.raises(ValueError, match="is finished"):
        pretrain([motion], tmp_path / "run", recipe())


@pytest.mark.long
def test_the_same_seed_gives_the_same_weights_and_another_does_not(motion, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        pretrain([motion], tmp_path / name, recipe(), seed=seed)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not torch.equal(*(weights(tmp_path / name)["usdrl.spatial.position.values"] for name in "ac"))


def test_reading_from_disk_gives_the_same_run(motion, tmp_path):
    pretrain([motion], tmp_path / "memory", recipe(epochs=1))
    pretrain([motion], tmp_path / "disk", recipe(epochs=1), compute=ComputeOptions(in_memory=False, workers=2))
    assert_same(weights(tmp_path / "memory"), weights(tmp_path / "disk"))


def paired(**training) -> Recipe:
    return replace(recipe({"num_persons": 2}, **training), synthetic_pairs=0.6)


def test_people_of_other_recordings_are_put_beside_those_who_are_alone(motion):
    _, extractor, _, _ = build_recipe(paired())
    sources = [open_data(motion)]
    alone = PretrainingDataset(sources, extractor, 60)
    pairs = PretrainingDataset(sources, extractor, 60, synthetic_pairs=0.6, seed=1)
    rows = list(range(len(alone)))
    before, first = alone.__getitems__(rows), pairs.__getitems__(rows)
    again = pairs.__getitems__(rows[::-1])[::-1]
    pairs.set_epoch(1)
    later = pairs.__getitems__(rows)
    beside_somebody = []
    for item, one, same, other in zip(before, first, again, later, strict=True):
        torch.testing.assert_close(one["frames"][:, 0], item["frames"][:, 0])
        assert torch.equal(one["frames"], same["frames"]), "a pair depends on its clip, not on its batch"
        beside_somebody.append((bool(one["frames"][:, 1].any()), torch.equal(one["frames"], other["frames"])))
    share = sum(there for there, _ in beside_somebody) / len(rows)
    assert 0.4 < share < 0.8 and not all(same for _, same in beside_somebody)
    distances = [item["frames"][:, 1, 0, ::2].norm(dim=-1).max() for item in first if item["frames"][:, 1].any()]
    assert 0.3 < min(distances) and max(distances) < 2


def test_a_second_person_keeps_shape_speed_and_missing_joints():
    frames = torch.zeros(7, 2, 4, 3)
    partner = torch.randn(3, 4, 3)
    partner[:, 2] = 0
    moved = compose_pair(frames, partner, 0.3, 0.9, 0.5)[:, 1]
    order = [0, 1, 2, 1, 0, 1, 2]
    assert not moved[:, 2].any()
    for joints in ((0, 1), (1, 3)):
        actual = (moved[:, joints[0]] - moved[:, joints[1]]).norm(dim=-1)
        expected = (partner[order, joints[0]] - partner[order, joints[1]]).norm(dim=-1)
        torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(moved[:, 0, 1], partner[order, 0, 1])


SEEN_BY_CAMERAS = Recipe(
    model=MODEL | {"layout": "coco17"},
    extractor={"normalization": "image", "max_frames": None},
    window=40,
    views=VIEWS | {"camera": True, "pose_errors": True},
)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(replace(paired(), views=VIEWS | {"pose_errors": True}), id="pairs"),
        pytest.param(SEEN_BY_CAMERAS, id="camera", marks=pytest.mark.slow),
    ],
)
@pytest.mark.long
def test_a_run_of_random_views_goes_on_to_the_same_weights(motion, tmp_path, made):
    settings = replace(made, training=paired(epochs=3, save_epochs=0.7).training)
    for name in ("whole", "stopped"):
        pretrain([motion], tmp_path / name, settings)
    folder = tmp_path / "stopped"
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(checkpoints[-1])
    (folder / "model.safetensors").unlink()
    pretrain([motion], folder, settings)
    assert_same(weights(folder), weights(tmp_path / "whole"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"synthetic_pairs": 1.5}, "must be a probability"),
        ({"synthetic_pairs": 0.5, "model": MODEL}, "num_persons 2"),
        ({"synthetic_pairs": 0.5, "extractor": {"normalization": "ntu"}}, "upright bodies"),
    ],
)
def test_pairs_that_cannot_be_made_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_recipe(replace(paired(), **changes))


COMMAND = """
import gc
import sys
gc.disable()
sys.path.insert(0, sys.argv[3])
from tests.helpers import recipe
from usdrl_hub.pretraining.run import pretrain
sys.exit(0 if pretrain([sys.argv[1]], sys.argv[2], recipe(epochs=4, save_epochs=0.3)) else 7)
"""


def command(motion, folder):
    root = Path(__file__).parent.parent
    return [sys.executable, "-c", COMMAND, str(motion), str(folder), str(root)]


def wait_for(folder, pattern, process):
    while not list(Path(folder).glob(pattern)) and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.long
def test_killed_runs_go_on_to_the_same_weights(motion, tmp_path):
    pretrain([motion], tmp_path / "whole", recipe(epochs=4, save_epochs=0.3))
    folder, kills = tmp_path / "killed", 0
    for pattern, delay in (("run.json", 0.0), (".saving*", 0.002), ("checkpoint-*", 0.1)):
        process = subprocess.Popen(command(motion, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(folder, pattern, process)
        time.sleep(delay)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 3
    pretrain([motion], folder, recipe(epochs=4, save_epochs=0.3))
    assert_same(weights(folder), weights(tmp_path / "whole"))
    assert list(folder.glob(".*")) == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_a_signal_saves_and_stops(motion, tmp_path, number):
    folder = tmp_path / "run"
    process = subprocess.Popen(command(motion, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(folder, "checkpoint-*", process)
    process.send_signal(number)
    assert process.wait(60) == 7
    step = int(find_checkpoint(folder).name.split("-")[1])
    assert step > 0 and not (folder / "model.safetensors").exists()
    assert json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())["global_step"] == step


def test_a_damaged_newest_checkpoint_is_passed_over(motion, tmp_path):
    settings = recipe(epochs=2, save_epochs=0.5)
    pretrain([motion], tmp_path / "run", settings)
    checkpoints = sorted((tmp_path / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert find_checkpoint(tmp_path / "run") == checkpoints[-1] and len(checkpoints) == 2
    content = (checkpoints[-1] / "optimizer.pt").read_bytes()
    (checkpoints[-1] / "optimizer.pt").write_bytes(content[: len(content) // 2])
    expected = weights(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.warns(USDRLWarning, match="checkpoint is damaged or cut"):
        assert find_checkpoint(tmp_path / "run") == checkpoints[0]
    pretrain([motion], tmp_path / "run", settings)
    assert_same(weights(tmp_path / "run"), expected)
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        (checkpoint / "model.safetensors").unlink()
    assert find_checkpoint(tmp_path / "run") is None and find_checkpoint(tmp_path / "absent") is None


FULL = (
    """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
"""
    + COMMAND
)


@pytest.mark.slow
def test_a_full_disk_ends_with_a_sentence_and_keeps_what_was(motion, tmp_path):
    folder = tmp_path / "run"
    program = command(motion, folder)
    program[2] = FULL
    result = subprocess.run(program, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1 and "cannot be written" in result.stderr.splitlines()[-1]
    assert "there is none yet" in result.stderr.splitlines()[-1]
    assert {path.name for path in folder.iterdir()} == {"run.json"}


def trainer_of(motion, folder, loss_limit=1e4, model=None, **fields_given) -> USDRLPreTrainer:
    torch.manual_seed(0)
    settings = recipe({"drop_path_rate": 0.0})
    extractor = USDRLFeatureExtractor("ntu25", "body", num_persons=1, num_frames=16, max_frames=None)
    dataset = PretrainingDataset([open_data(motion)], extractor, window=60)
    model = model or USDRLForPreTraining(USDRLConfig(**settings.model))
    fields = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    fields |= {"save_strategy": "no", "report_to": "none", "per_device_train_batch_size": 16, "max_steps": 5}
    fields |= {"disable_tqdm": True, "dataloader_pin_memory": False, "collapse_loss": loss_limit, **fields_given}
    arguments = PretrainingArguments(output_dir=str(folder), **fields)
    views = ViewAugmentation(num_frames=16, **VIEWS)
    return USDRLPreTrainer(model, arguments, dataset, views=views)


@pytest.mark.parametrize("modality", ["joint", "joint+motion+bone"])
def test_cached_gradients_are_those_of_the_whole_batch(motion, tmp_path, modality):
    results = []
    for size in (None, 5):
        torch.manual_seed(0)
        model = USDRLForPreTraining(USDRLConfig(**(MODEL | {"drop_path_rate": 0.0, "modality": modality}))).double()
        trainer = trainer_of(motion, tmp_path, model=model, micro_batch_size=size)
        trainer.create_optimizer()
        trainer.current_gradient_accumulation_steps = 1
        batch = trainer.data_collator([trainer.train_dataset[index] for index in range(16)])
        batch["frames"] = batch["frames"].double()
        loss = trainer.training_step(model, batch)
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        results.append((loss, gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=0)
    largest = max(gradient.abs().max() for gradient in results[0][1].values())
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-5, atol=1e-6 * largest.item())


def test_cached_gradients_see_the_same_stochastic_depth(motion, tmp_path):
    """What is dropped must be the same with and without gradients, or the gradients belong to other features."""
    model = USDRLForPreTraining(USDRLConfig(**(MODEL | {"drop_path_rate": 0.5})))
    trainer = trainer_of(motion, tmp_path, model=model, micro_batch_size=4)
    seen = []
    encode = model.encode_views

    def noted(views, **kwargs):
        pooled = encode(views, **kwargs)
        seen.append(pooled.detach().clone())
        return pooled

    model.encode_views = noted
    trainer.training_step(model, trainer.data_collator([trainer.train_dataset[index] for index in range(16)]))
    assert len(seen) == 8
    for first, second in zip(seen[:4], seen[4:], strict=True):
        assert torch.equal(first, second)


same_numbers_again = pytest.mark.skipif(
    not is_torch_greater_or_equal("2.13"),
    reason="older torch draws other numbers where parts are compiled",
)


def test_parts_of_a_compiled_encoder_need_random_numbers_that_come_again(motion, tmp_path, monkeypatch):
    monkeypatch.setattr("usdrl_hub.pretraining.arguments.is_torch_greater_or_equal", lambda version: False)
    with pytest.raises(ValueError, match="leave one of compile_encoder and micro_batch_size out"):
        trainer_of(motion, tmp_path, micro_batch_size=8, compile_encoder=True)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [{}, pytest.param({"micro_batch_size": 8}, marks=same_numbers_again)], ids=str)
@pytest.mark.long
def test_a_compiled_encoder_has_the_same_gradients(motion, tmp_path, monkeypatch, options, backend):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled, make = [], torch.nn.Module.compile
    if backend != "inductor":
        # The one that is used takes most of a minute here; this one traces and differentiates in the same way.
        monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: make(module, backend=backend))
    results = []
    for compile_encoder in (False, True):
        torch.manual_seed(0)
        model = USDRLForPreTraining(USDRLConfig(**(MODEL | {"drop_path_rate": 0.5})))
        trainer = trainer_of(motion, tmp_path, model=model, **options)
        if compile_encoder:
            compile_streams(model)
        trainer.create_optimizer()
        trainer.current_gradient_accumulation_steps = 1
        batch = trainer.data_collator([trainer.train_dataset[index] for index in range(16)])
        torch.manual_seed(1)
        loss = trainer.training_step(model, batch)
        compiled.append(bool(torch._dynamo.utils.counters["stats"]["unique_graphs"]))
        results.append((loss, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}))
    assert compiled == [False, True]
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=0)
    largest = max(gradient.abs().max().item() for gradient in results[0][1].values())
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-3, atol=1e-5 * largest)


@pytest.fixture
def quick_compiler(monkeypatch):
    """How many graphs were traced; they are run as they are, because compiling them takes most of a minute."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    make = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: make(module, backend="eager", dynamic=False))
    return lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.long
def test_runs_are_compiled_where_asked_to(motion, tmp_path, quick_compiler, capsys):
    out = tmp_path / "run"
    shared = {"recipe": recipe(epochs=1), "probe": motion}
    plain = pretrain([motion], tmp_path / "plain", **shared)
    assert quick_compiler() == 0 and plain["compiled"] is False
    record = pretrain([motion], out, compute=ComputeOptions(compile_encoder=True), **shared)
    # One for each stream: neither probes nor trials before saving, which have other batches, are compiled.
    assert quick_compiler() == 2 and record["compiled"] is True
    losses = [[entry["loss"] for entry in each["log"] if "loss" in entry] for each in (plain, record)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    # Another way of computing would not go on bit for bit.
    (out / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="the folder has a run with another compile_encoder"):
        pretrain([motion], out, **shared)
    command = ["pretrain", motion, "--hidden-size", 16, "--batch-size", 8, "--max-steps", 1, "--precision", "float32"]
    assert run(capsys, *command, "--compile", "--output-dir", tmp_path / "command")[0] == 0
    assert json.loads((tmp_path / "command" / "metrics.json").read_text())["compiled"] is True


def test_a_trained_model_is_not_compiled_any_more(motion, tmp_path, quick_compiler):
    trainer = trainer_of(motion, tmp_path, compile_encoder=True, max_steps=1)
    trainer.train()
    assert quick_compiler() == 2
    for size in (1, 2, 3):
        trainer.model.eval()(torch.zeros(size, 16, 1, 25, 3))
    assert quick_compiler() == 2


@same_numbers_again
@pytest.mark.long
def test_several_modalities_in_parts_are_compiled(motion, tmp_path, quick_compiler):
    model = USDRLForPreTraining(USDRLConfig(**(MODEL | {"modality": "joint+motion"})))
    options = {"micro_batch_size": 6, "compile_encoder": True, "max_steps": 1}
    trainer_of(motion, tmp_path, model=model, **options).train()
    # Two streams, fused and two single modalities, parts of 6 and of 4 clips, with and without gradients.
    assert quick_compiler() == 2 * 3 * 2 * 2


@pytest.mark.long
def test_an_encoder_that_cannot_be_compiled_is_told_in_a_sentence(motion, tmp_path, monkeypatch):
    def no_compiler(graph, _):
        raise OSError("there is no C++ compiler")

    make = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: make(module, backend=no_compiler))
    with pytest.raises(ValueError, match=r"cannot be compiled here: .*no C\+\+ compiler.*: do not compile it") as said:
        pretrain([motion], tmp_path / "run", recipe(), compute=ComputeOptions(compile_encoder=True))
    assert "\n" not in str(said.value)
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    # The same command without it begins the run.
    assert pretrain([motion], tmp_path / "run", recipe(epochs=1), max_steps=1)["steps"] == 1


# Programs of several processes. One whose threads outlive its last line aborts in one of some hundred runs.
PROCESSES = """
import sys
sys.path.insert(0, sys.argv[4])
from tests.helpers import connections
from tests.test_pretraining import distributed_run
from usdrl_hub.distributed import Workers
distributed_run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
Workers.leave()
assert not connections()
"""
COMMAND_OF_MANY = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from tests.helpers import connections
from usdrl_hub.cli import main
try:
    main(sys.argv[1:])
finally:
    assert not connections()
"""


def distributed_run(motion, folder, micro):
    """Five steps of SGD in float64; the first process writes the first gradients and the last weights."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    torch.manual_seed(0)
    model = USDRLForPreTraining(USDRLConfig(**(MODEL | {"drop_path_rate": 0.0}))).double()
    arguments = {"per_device_train_batch_size": 16 // world, "use_cpu": True, "micro_batch_size": micro or None}
    trainer = trainer_of(motion, f"{folder}.run", model=model, **arguments)
    plain = trainer.data_collator
    trainer.data_collator = lambda items: {
        key: value.double() if value.is_floating_point() else value for key, value in plain(items).items()
    }
    first = {}
    step = trainer.training_step

    def noted(*args, **kwargs):
        loss = step(*args, **kwargs)
        if not first:
            first.update({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        return loss

    trainer.training_step = noted
    trainer.train()
    if trainer.is_world_process_zero():
        save_file({f"gradient.{name}": value for name, value in first.items()} | model.state_dict(), folder)
    trainer.accelerator.wait_for_everyone()


@pytest.mark.parametrize("micro", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_two_processes_are_one(motion, tmp_path, micro):
    root = str(Path(__file__).parent.parent)
    (tmp_path / "program.py").write_text(PROCESSES)
    program = [str(tmp_path / "program.py"), str(motion)]
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    alone = subprocess.Popen([sys.executable, *program, str(one), "0", root], stderr=subprocess.PIPE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*launch, *program, str(two), str(micro), root], env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    assert alone.wait() == 0, alone.stderr.read().decode()[-2000:]
    expected, actual = load_file(one), load_file(two)
    assert expected.keys() == actual.keys()
    largest = max(value.abs().max().item() for name, value in expected.items() if name.startswith("gradient."))
    for name, value in expected.items():
        floor = 1e-7 * largest if name.startswith("gradient.") else 1e-7
        torch.testing.assert_close(actual[name], value, rtol=1e-5, atol=floor)


def test_a_collapse_stops_with_a_sentence(motion, tmp_path):
    with pytest.raises(PretrainingCollapseError, match="step 1: the loss is .* above 1: .*there is no checkpoint yet"):
        trainer_of(motion, tmp_path, loss_limit=1.0).train()
    trainer = trainer_of(motion, tmp_path)
    with torch.no_grad():
        trainer.model.usdrl.spatial.position.values.fill_(float("nan"))
    with pytest.raises(PretrainingCollapseError, match="is not a number"):
        trainer.train()
    trainer = trainer_of(motion, tmp_path)
    with torch.no_grad():
        for stream in (trainer.model.usdrl.temporal, trainer.model.usdrl.spatial):
            for layer in stream.layers:
                for parameter in layer.parameters():
                    parameter.zero_()
            stream.embedding.fc2.weight.zero_()
    with pytest.raises(PretrainingCollapseError, match="100 % of the features are the same for all clips"):
        trainer.train()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gradient_accumulation_steps": 2}, "give micro_batch_size"),
        ({"per_device_train_batch_size": 4096}, "larger than the"),
        ({"per_device_train_batch_size": 1}, "at least 2"),
        ({"micro_batch_size": 0}, "micro_batch_size must be at least 1"),
        ({"compile_encoder": True, "activation_checkpointing": True}, "draws other random numbers"),
    ],
)
def test_impossible_training_is_refused(motion, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(motion, tmp_path, **options)


def test_several_devices_in_one_process_are_refused(motion, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 2"):
        trainer_of(motion, tmp_path)


def test_the_learning_rate_drops_after_the_epochs(motion, tmp_path):
    trainer = trainer_of(motion, tmp_path, drop_epochs=[2, 3], adam=True, num_train_epochs=4)
    assert type(trainer.create_optimizer()) is torch.optim.Adam
    epoch = len(trainer.train_dataset) // 16
    # However many steps are taken: the epochs are those of the data.
    schedule = trainer.create_scheduler(7)
    rates = []
    for _ in range(4 * epoch):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [0.05] * 2 * epoch + [0.005] * epoch + [0.0005] * epoch)


def test_pieces_cover_every_frame_once(motion):
    store = open_data(motion)
    extractor = USDRLFeatureExtractor("ntu25", "body", num_persons=1, max_frames=None)
    dataset = PretrainingDataset([store, store[:5]], extractor, window=30)
    lengths = np.diff(dataset.ends, prepend=0)
    assert lengths.max() <= 30 and lengths.sum() == store.lengths.sum() + store.lengths[:5].sum()
    for source, number in ((0, 0), (0, 17), (1, 4)):
        rows = dataset.segments[(dataset.segments[:, 0] == source) & (dataset.segments[:, 1] == number)]
        assert rows[0, 2] == 0 and rows[-1, 3] == store.lengths[number]
        assert (rows[1:, 2] == rows[:-1, 3]).all() and np.ptp(rows[:, 3] - rows[:, 2]) <= 1
    batch = dataset.collate(dataset.__getitems__([3, 0]))
    assert batch["clips"].tolist() == [3, 0] and batch["lengths"].sum() == len(batch["frames"])


def test_empty_stretches_are_left_out():
    keypoints = np.random.default_rng(0).normal(size=(90, 1, 25, 3))
    keypoints[30:60] = 0
    arrays = {"data": keypoints, "offsets": np.array([0, 90]), "layout": np.array("ntu25")}
    dataset = SkeletonDataset.from_arrays(arrays, "x")
    extractor = USDRLFeatureExtractor("ntu25", "body", num_persons=1)
    assert len(PretrainingDataset([dataset], extractor, window=30)) == 2
    disk = PretrainingDataset([dataset], extractor, window=30, in_memory=False)
    assert len(disk) == 3 and torch.equal(disk[1]["frames"], disk[2]["frames"])
    with pytest.raises(SkeletonFormatError, match="nothing to pretrain on"):
        PretrainingDataset([dataset.select([False])], extractor)


# -- several modalities


@pytest.mark.parametrize("modality", ["joint+motion+bone", "bone+joint"])
def test_models_of_several_modalities_fuse_and_separate(tmp_path, modality):
    config = tiny_config(modality=modality)
    model = USDRLModel(config).eval()
    keypoints = torch.randn(3, 12, 1, 5, 3)
    fused = model(keypoints).pooler_output
    single = {name: model(keypoints, modality=name).pooler_output for name in modality.split("+")}
    assert all(not torch.allclose(fused, features) for features in single.values())
    # The fused input is the mean of the embeddings through one linear map.
    temporal, _ = model.tokens(keypoints, None)
    embedded = torch.stack([model.temporal.embeddings[name](temporal[name]) for name in temporal]).mean(0)
    expected = embedded @ model.temporal.fusion.weight.T
    torch.testing.assert_close(model.temporal.embed(temporal), expected)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(USDRLModel.from_pretrained(tmp_path).eval()(keypoints).pooler_output, fused)
    assert USDRLForActionRecognition.from_pretrained(tmp_path)(keypoints).logits.shape == (3, 4)
    with pytest.raises(ValueError, match="not 'pose'"):
        model(keypoints, modality="pose")


def test_pretraining_on_several_modalities_is_consistent(motion, tmp_path):
    record = pretrain([motion], tmp_path / "run", recipe({"modality": "joint+motion+bone"}, epochs=1))
    assert record["log"][0]["consistency"] > 0
    model = USDRLForPreTraining.from_pretrained(tmp_path / "run")
    assert model.config.modalities == ["joint", "motion", "bone"]
    assert extract_embeddings(motion, tmp_path / "run").shape == (40, 32)


# -- recipes and the command


def test_every_recipe_makes_a_model_and_views():
    assert {"mocap-tiny", "ntu60", "ntu120", "ntu-aaai", "ntu-2d", "pku2", "uav"} <= set(recipe_names())
    for name in recipe_names():
        loaded = load_recipe(name)
        config, extractor, _, views = build_recipe(loaded)
        assert loaded.about and extractor.num_frames == config.num_frames == views.num_frames == 64
        # Views of a 2D model by cameras are drawn of 3D motion.
        joints = (
            get_layout(motion_extractor(loaded, extractor).layout).num_joints if views.camera else config.num_joints
        )
        assert views.draw(torch.tensor([70]), joints, torch.tensor([0]), 0, 0)["start"].shape == (4, 1)
    released = load_recipe("ntu60").training
    assert (released.epochs, released.batch_size, released.learning_rate) == (451, 356, 1e-4)
    assert (released.weight_decay, released.optimizer, released.drop_epochs) == (1e-5, "adam", (351,))
    assert load_recipe("pku2").training.drop_epochs == (801,) and load_recipe("ntu-aaai").loss == "aaai"


@pytest.mark.parametrize(
    "content, message",
    [
        ("- a\n", "a recipe is a mapping"),
        ("modell: {}\n", "there is no entry 'modell'"),
        ("training: {epoch: 3}\n", "there is no entry 'training.epoch'"),
        ("training: {epochs: -3}\n", "epochs must be a positive number"),
        ("training: {schedule: linear}\n", "schedule must be one of constant, cosine"),
        ("training: {schedule: cosine, drop_epochs: [3]}\n", "drop_epochs needs the constant schedule"),
        ("model: 3\n", "'model' must be a mapping"),
        ("a: [\n", "cannot be read"),
        ("loss: {stream: 1}\n", "no entry 'loss.stream'"),
        ("loss: {spatial: -1}\n", "spatial must be a weight of at least 0"),
        ("loss: {temporal: 0, spatial: 0, instance: 0}\n", "needs a weight above 0"),
        ("views: {corupted_joints: 3}\n", "no entry 'views.corupted_joints': did you mean corrupted_joints"),
        ("views: {crop_ratio: 0.5}\n", "crop_ratio must be two shares"),
        ("views: {corrupted_joints: 2.5}\n", "must be whole numbers"),
        ("model: {hiden_size: 16}\n", "no entry 'model.hiden_size': did you mean hidden_size"),
        ("model: {hidden_size: 15}\n", "must be even"),
        ("extractor: {normalisation: ntu}\n", "no argument 'normalisation'"),
        ("window: abc\n", "'window' must be a whole number"),
        ("training: {batch_size: 8.5}\n", "batch_size must be a whole number"),
        ("!!python/object/apply:os.system ['true']\n", "cannot be read"),
        ("[" * 2000, "nested too deeply"),
        ("about: !!float x\n", "cannot be read"),
        ("window: " + "9" * 5000, "cannot be read"),
        ("training: {weight_decay: .nan}\n", "all numbers must be finite"),
        ("training: {warmup: a}\n", "warmup must be a number"),
        ("training: {drop_epochs: [x]}\n", "drop_epochs must be numbers"),
        ("about: [1]\n", "'about' must be a sentence"),
        ("#" * 200_000, "more than 128 KB"),
        ("x" * 900 + ": 1\n", "there is no entry 'x"),
        (
            "\n".join(["a0: &a0 x", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]),
            "more than 10000 values",
        ),
    ],
)
def test_recipes_that_are_none_are_refused(tmp_path, content, message):
    """The last ten: faults.md 24, 29 and their kind."""
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(tmp_path / "mine.yaml")
    assert str(tmp_path / "mine.yaml") in str(caught.value) and len(str(caught.value)) <= 300


def test_the_encoders_of_free_motion_differ_in_width_and_learning_rate_only():
    tiny, *wider = (load_recipe(name) for name in ("mocap-tiny", "mocap-base", "mocap-large"))
    for wide, width, rate in zip(wider, (256, 1024), (5e-4, 2e-4), strict=True):
        # The wider, the smaller the steps.
        changes = {"learning_rate": rate, "precision": "bf16"}
        assert wide == replace(tiny.changed({"hidden_size": width}, **changes), about=wide.about)


def test_recipes_with_old_names_are_read(tmp_path):
    (tmp_path / "old.yaml").write_text("{views: {lost_joints: 0.1, turn: 20, layout: ntu25}, pairs: 0.2}")
    (tmp_path / "new.yaml").write_text(
        "{views: {joint_dropout: 0.1, max_yaw: 20, layout: ntu25}, synthetic_pairs: 0.2}"
    )
    assert read_recipe(tmp_path / "old.yaml") == read_recipe(tmp_path / "new.yaml")


def test_unknown_recipes_get_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean mocap-tiny"):
        load_recipe("mocap-tinny")
    with pytest.raises(ValueError, match="there are mocap-2d, mocap-base, .*or name a .yaml file"):
        load_recipe("x")


def test_the_command_pretrains_and_lists(capsys, tmp_path):
    options = ["--max-steps", 2, "--batch-size", 8, "--hidden-size", 16, "--split", "train"]
    folder = tmp_path / "run"
    code, out, err = run(capsys, "pretrain", sample_path(), "--output-dir", folder, *options)
    assert code == 0 and "2 steps" in out and (folder / "model.safetensors").is_file(), err
    code, _, err = run(capsys, "pretrain", sample_path(), "--output-dir", folder, *options, "--seed", 1)
    assert code == 2 and "the folder has a run with another seed" in err
    code, _, err = run(capsys, "pretrain", sample_path(), "--output-dir", tmp_path / "b", "--batch-size", 100000)
    assert code == 2 and "larger than the" in err
    code, out, _ = run(capsys, "recipes")
    assert code == 0 and "mocap-tiny" in out and "451" not in out


def test_a_failed_beginning_does_not_keep_the_folder(motion, tmp_path):
    with pytest.raises(ValueError, match="larger than the"):
        pretrain([motion], tmp_path / "run", recipe(batch_size=4096))
    assert pretrain([motion], tmp_path / "run", recipe(epochs=1))["steps"] > 0


def test_a_run_killed_after_its_last_step_is_only_written(motion, tmp_path):
    settings = recipe(epochs=50, save_epochs=0.3)
    assert "resumed_at_step" not in pretrain([motion], tmp_path / "whole", settings, max_steps=3)
    pretrain([motion], tmp_path / "killed", settings, max_steps=3)
    assert (tmp_path / "killed" / "checkpoint-3").is_dir()
    (tmp_path / "killed" / "model.safetensors").unlink()
    record = pretrain([motion], tmp_path / "killed", settings, max_steps=3)
    # The seconds of the record are those of the steps after these.
    assert record["steps"] == record["resumed_at_step"] == 3
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_a_broken_step_is_not_saved(motion, tmp_path):
    with pytest.raises(PretrainingCollapseError, match="has collapsed; there is no checkpoint yet"):
        pretrain([motion], tmp_path / "run", recipe(learning_rate=9e8, save_epochs=0.1, epochs=3))
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_the_rate_rises_in_every_schedule(motion, tmp_path):
    record = pretrain([motion], tmp_path / "run", recipe(epochs=4, warmup=0.5))
    rates = [entry["learning_rate"] for entry in record["log"] if "learning_rate" in entry]
    assert rates[0] < rates[1] <= 1e-3 and rates[-1] == 1e-3
    trainer = trainer_of(motion, tmp_path, drop_epochs=[1000], warmup_steps=10)
    trainer.create_optimizer()
    trainer.create_scheduler(40)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 11)


@pytest.mark.parametrize(
    "options",
    [
        ["--modality", "joint+motion+bone"],
        pytest.param([], marks=pytest.mark.slow),
        pytest.param(["--micro-batch-size", "3"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.long
def test_the_command_runs_on_several_processes(motion, tmp_path, options):
    (tmp_path / "program.py").write_text(COMMAND_OF_MANY)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    common = ["pretrain", str(motion), "--hidden-size", "16", "--batch-size", "16", "--max-steps", "3", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [*launch, str(tmp_path / "program.py"), str(Path(__file__).parent.parent), *common]
    program += ["--output-dir", str(tmp_path / "two")]
    result = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    alone = [sys.executable, "-m", "usdrl_hub.cli", *common, "--output-dir", str(tmp_path / "one")]
    subprocess.run(alone, check=True, capture_output=True)
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    # Stochastic depth draws otherwise in each process, so the runs are alike and not equal.
    assert one["steps"] == two["steps"] == 3
    assert two["log"][0]["loss"] == pytest.approx(one["log"][0]["loss"], rel=0.02)


def test_precisions_that_a_machine_has_not_are_refused(motion, tmp_path):
    assert pretrain([motion], tmp_path / "bf16", recipe(epochs=1, precision="bf16"))["steps"] > 0
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="fp16 needs a GPU"):
            pretrain([motion], tmp_path / "fp16", recipe(precision="fp16"))


def test_what_cannot_begin_leaves_no_folder(motion, tmp_path):
    (tmp_path / "mine").mkdir()
    for folder, kept in (("new/run", "mine"), ("mine", "mine"), ("mine/run", "mine")):
        with pytest.raises(SkeletonFormatError, match="there is no such file"):
            pretrain([tmp_path / "nowhere"], tmp_path / folder, recipe())
        with pytest.raises(ValueError, match="larger than the"):
            pretrain([motion], tmp_path / folder, recipe(batch_size=4096))
        assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == [kept]


def test_folders_of_something_else_are_left_alone(motion, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(ValueError, match="not an empty folder"):
        pretrain([motion], tmp_path / "mine", recipe())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_the_probe_needs_labels(tmp_path):
    clip = SkeletonSequence(np.random.default_rng(0).normal(size=(9, 1, 25, 3)))
    with pytest.raises(SkeletonFormatError, match="needs labelled clips"):
        NeighbourProbe([clip], [clip], USDRLFeatureExtractor(num_persons=1))
