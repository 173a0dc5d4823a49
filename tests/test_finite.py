"""NaN and infinity are errors everywhere: in training, in metrics, in outputs of models (faults.md 1)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from usdrl_hub import (
    Engine,
    SkeletonSequence,
    USDRLEnsemble,
    USDRLFeatureExtractor,
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLStream,
    extract_embeddings,
    extract_frame_embeddings,
    iter_embeddings,
    iter_frame_embeddings,
    iter_predictions,
    iter_timelines,
)
from usdrl_hub.errors import NonFiniteError, PretrainingCollapseError, TrainingDivergedError, USDRLError
from usdrl_hub.inference.embedding import embed_clips
from usdrl_hub.inference.pipelines import SkeletonActionRecognitionPipeline, SkeletonFeatureExtractionPipeline
from usdrl_hub.metrics.classification import accuracy, agreement, early_accuracy
from usdrl_hub.metrics.detection import detection_metrics, point_metrics
from usdrl_hub.metrics.retrieval import retrieval_metrics, top_k
from usdrl_hub.metrics.segmentation import segmentation_metrics
from usdrl_hub.postprocessing import detect
from usdrl_hub.records import write_metrics
from usdrl_hub.tasks.evaluate import evaluate
from usdrl_hub.tasks.linear import fit_logistic_regression, train_linear
from usdrl_hub.training import USDRLTrainer
from usdrl_hub.visualize.map import make_map

from .helpers import Clips, arguments, tiny_config

NAN, INF = float("nan"), float("inf")


def broken(model, name="classifier.bias", value=NAN):
    with torch.no_grad():
        model.get_parameter(name).fill_(value)
    return model.eval()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_score_of_what_is_not_finite_is_refused(value):
    """faults.md 1: accuracy of NaN logits was 100 %, top-5 too."""
    with pytest.raises(NonFiniteError, match="40 of 40 numbers are NaN or infinite"):
        accuracy(np.full((4, 10), value), np.array([0, 1, 2, 3]))
    logits = torch.zeros(4, 10)
    logits[2, 3] = value
    features, labels = torch.randn(6, 4), np.array([0, 1, 0, 1, 0, 1])
    features[1, 1] = value
    for score in (
        lambda: accuracy(logits.numpy(), np.array([0, 1, 2, 3])),
        lambda: accuracy(logits, np.array([0, 1, 2, 3])),
        lambda: retrieval_metrics(features, labels, torch.randn(2, 4), labels[:2]),
        lambda: retrieval_metrics(torch.randn(6, 4), labels, features[:2], labels[:2]),
        lambda: top_k(features, torch.randn(6, 4), 1),
        lambda: top_k(torch.randn(6, 4), features, 1),
        lambda: detect([logits.softmax(-1).numpy() if value != -INF else logits.numpy()], 0.02),
        lambda: detection_metrics(np.array([[0, 1, 0, 5, value]]), np.array([[0, 1, 0, 5]]), 2),
        lambda: point_metrics(np.array([[0, 1, 3, value]]), np.array([[0, 1, 3]]), 2),
        lambda: fit_logistic_regression(features, labels, 2),
        lambda: train_linear(features, labels, 2, epochs=1),
    ):
        with pytest.raises(NonFiniteError, match="NaN or infinite"):
            score()


def test_a_score_of_nothing_is_refused():
    """faults.md 1: the mean of nothing is NaN, or was called 0."""
    for score in (
        lambda: accuracy(np.zeros((2, 10)), np.array([-100, -100])),
        lambda: accuracy(torch.zeros(0, 3), np.zeros(0, dtype=int)),
        lambda: agreement([], []),
        lambda: early_accuracy({0.5: []}, []),
        lambda: segmentation_metrics([], []),
    ):
        with pytest.raises(ValueError, match="there is no (label|clip|frame) to score"):
            score()


def test_embeddings_to_score_are_finite():
    """faults.md 1."""
    config = tiny_config()
    model = broken(USDRLForActionRecognition(config), "usdrl.temporal.embedding.fc2.bias")
    clips = torch.randn(2, config.num_frames, config.num_persons, config.num_joints, config.num_channels)
    with pytest.raises(NonFiniteError, match="the embeddings of the clips"):
        embed_clips(model, clips)


@pytest.mark.parametrize(("value", "place"), [(NAN, "accuracy"), (INF, "loss")])
def test_metrics_that_are_not_finite_are_not_written(tmp_path, value, place):
    """faults.md 1: metrics.json held NaN, which is no JSON, or scores of it."""
    record = {"metrics": {"accuracy": 0.5, "loss": 1.0, place: value}, "log": [{"loss": 1.0, "grad_norm": INF}]}
    with pytest.raises(NonFiniteError, match=f"metrics.json: metrics: {place}: 1 of 1 numbers"):
        write_metrics(tmp_path, record)
    assert not list(tmp_path.iterdir())
    record["metrics"][place] = 0.25
    written = json.loads(write_metrics(tmp_path, record).read_text())
    assert written["metrics"][place] == 0.25
    # The norm of a gradient of float16 that was left out is no result.
    assert written["log"] == [{"loss": 1.0, "grad_norm": None}]


def trainer_of(tmp_path, model=None, **changes):
    config = tiny_config(drop_path_rate=0)
    return USDRLTrainer(
        model or USDRLForActionRecognition(config),
        arguments(tmp_path, **{"max_steps": 6, "optim": "sgd", "per_device_train_batch_size": 8} | changes),
        train_dataset=Clips(config),
    )


class At(TrainerCallback):
    """Does something to the model once, at the beginning of a step."""

    def __init__(self, step, change):
        self.step, self.change = step, change

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == self.step:
            self.change(model)


def spoil_gradient(value):
    def change(model):
        model.classifier.bias.register_hook(lambda gradient: torch.full_like(gradient, value))

    return change


@pytest.mark.parametrize("norm", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 2])
def test_training_stops_before_the_step_whose_loss_is_not_finite(tmp_path, norm, steps):
    """faults.md 1: transformers goes on, and leaves such losses out of its log."""
    trainer = trainer_of(
        tmp_path, max_grad_norm=norm, gradient_accumulation_steps=steps, save_strategy="steps", save_steps=2
    )
    trainer.add_callback(At(5, lambda model: broken(model)))
    with pytest.raises(TrainingDivergedError) as caught:
        trainer.train()
    error = caught.value
    last = str(tmp_path / "checkpoint-4")
    assert (error.step, error.checkpoint) == (5, last) and 0 < error.learning_rate < 1e-2
    assert str(error).startswith("step 5: the loss is NaN or infinite: at a learning rate of ") and last in str(error)
    assert isinstance(error, USDRLError)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.parametrize("norm", [0.0, 1.0])
@pytest.mark.parametrize("value", [NAN, INF])
def test_training_stops_before_the_step_whose_gradient_is_not_finite(tmp_path, norm, value):
    """faults.md 1: the weights stay as they were."""
    trainer = trainer_of(tmp_path, max_grad_norm=norm)
    before = {}
    trainer.add_callback(At(3, lambda model: before.update({n: p.clone() for n, p in model.named_parameters()})))
    trainer.add_callback(At(3, spoil_gradient(value)))
    with pytest.raises(TrainingDivergedError, match="step 3: the gradient is NaN .*there is no checkpoint yet"):
        trainer.train()
    assert before
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)


def test_weights_that_the_last_step_broke_are_not_taken(tmp_path):
    """faults.md 1: no step comes after the last one to find it."""
    for changes in ({}, {"save_strategy": "steps", "save_steps": 1}):
        trainer = trainer_of(tmp_path, learning_rate=3e38, max_steps=1, max_grad_norm=0, **changes)
        trainer.model.classifier.weight.register_hook(lambda gradient: torch.full_like(gradient, 10))
        with pytest.raises(TrainingDivergedError, match="step 1: weights are NaN or infinite after it"):
            trainer.train()
        assert not list(tmp_path.glob("checkpoint-*"))


def test_a_gradient_of_float16_that_is_too_large_is_left_out(tmp_path):
    """faults.md 1: the scale is lowered on purpose there, until it can be no lower."""
    trainer = trainer_of(tmp_path)

    class Scaler:
        scale = 65536.0

        def get_scale(self):
            return self.scale

    scaler = trainer.accelerator.scaler = Scaler()
    trainer._loss_is_bad, trainer._norm = torch.tensor(False), torch.tensor(INF)
    trainer.check_step()
    trainer._loss_is_bad, trainer._norm = torch.tensor(True), torch.tensor(1.0)
    with pytest.raises(TrainingDivergedError, match="the loss"):
        trainer.check_step()
    scaler.scale = 2.0**-20
    trainer._norm = torch.tensor(NAN)
    with pytest.raises(TrainingDivergedError, match="the gradient"):
        trainer.check_step()


def test_an_evaluation_of_what_is_not_finite_is_refused(tmp_path):
    """faults.md 1: with metrics of one's own, and without any."""
    config = tiny_config()
    for metrics in (None, lambda prediction: {"mine": 1.0}):
        trainer = USDRLTrainer(
            broken(USDRLForActionRecognition(config)),
            arguments(tmp_path),
            eval_dataset=Clips(config),
            compute_metrics=metrics,
        )
        with pytest.raises(NonFiniteError):
            trainer.evaluate()
        with pytest.raises(NonFiniteError, match="the model's predictions"):
            trainer.predict(Clips(config))


PROCESSES = """
import sys
sys.path.insert(0, sys.argv[2])
import torch
from tests.test_finite import At, broken, trainer_of
from usdrl_hub.errors import TrainingDivergedError

trainer = trainer_of(sys.argv[1] + "/run", use_cpu=True, gradient_accumulation_steps=2, max_grad_norm=0.0)
if trainer.args.process_index == 1:
    # The loss of one process, whose gradient stays finite.
    step = trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: step(*a, **k) + (float("inf") if trainer.state.global_step == 2 else 0)
try:
    trainer.train()
except TrainingDivergedError as error:
    open(f"{sys.argv[1]}/{trainer.args.process_index}", "w").write(str(error))
trainer.accelerator.wait_for_everyone()
"""


@pytest.mark.long
def test_all_processes_stop_at_the_same_step(tmp_path):
    """faults.md 1: who goes on alone waits for ever."""
    (tmp_path / "program.py").write_text(PROCESSES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "program.py"), str(tmp_path), str(Path(__file__).parent.parent)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    for number in (0, 1):
        assert (tmp_path / str(number)).read_text().startswith("step 3: the loss is NaN or infinite")


def test_a_linear_layer_that_diverges_is_told():
    """faults.md 1."""
    features, labels = 1e30 * torch.randn(32, 4), np.arange(32) % 2
    with pytest.raises(TrainingDivergedError, match="at a learning rate of 1e.10 the linear layer has diverged"):
        train_linear(features, labels, 2, learning_rate=1e10)


def test_evaluate_of_training_that_diverges_leaves_nothing(tmp_path):
    """faults.md 1."""
    with pytest.raises(TrainingDivergedError, match="step [0-9]+: "):
        evaluate(
            "usdrl/tiny-uiprmd",
            "finetuned/utkinect",
            output_dir=tmp_path / "out",
            data="tiny",
            changes={"learning_rate": 9e5, "epochs": 2, "optimizer": "sgd", "max_grad_norm": 0.0},
        )
    assert not list(tmp_path.iterdir())


def test_pretraining_errors_are_of_this_package():
    """faults.md 1: a collapse was a RuntimeError."""
    from usdrl_hub.pretraining.trainer import PretrainingCollapseError as same

    assert same is PretrainingCollapseError and issubclass(same, TrainingDivergedError)


def test_finetune_that_diverges_leaves_no_folder(tmp_path, capsys):
    """faults.md 1: it wrote a folder with accuracy 100 %."""
    from usdrl_hub.cli import main
    from usdrl_hub.data.samples import sample_path

    out = ["--output-dir", str(tmp_path / "new" / "model")]
    with pytest.raises(SystemExit) as end:
        main(["finetune", str(sample_path()), *out, "--from-scratch", "--hidden-size", "16", "--learning-rate", "9e5"])
    assert end.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("usdrl: step ") and "there is no checkpoint yet; try a lower learning rate" in told
    assert not list(tmp_path.rglob("model*")) and not list(tmp_path.rglob("*.partial"))


@pytest.fixture
def spoiled():
    """A recogniser that comes to infinity for one of three recordings, the one that stands 5 m away."""
    config = tiny_config(num_joints=25, layout="ntu25")
    model = USDRLForActionRecognition(config).eval()
    extractor = USDRLFeatureExtractor.from_model_config(config, normalization="none")
    frames = np.random.default_rng(0).random((3, 20, 1, 25, 3), dtype=np.float32)
    frames[1] += 5
    sequences = [SkeletonSequence(clip, "ntu25", name=f"clip{number}") for number, clip in enumerate(frames)]

    def spoil(module, inputs, output):
        far = inputs[0].mean(dim=(1, 2, 3, 4)) > 3
        output.pooler_output[far] = output.last_hidden_state[far] = INF

    model.usdrl.register_forward_hook(spoil)
    return model, extractor, sequences


@pytest.mark.parametrize(
    "extract, stream", [(extract_embeddings, iter_embeddings), (extract_frame_embeddings, iter_frame_embeddings)]
)
def test_an_embedding_that_is_not_finite_costs_no_other(spoiled, extract, stream):
    """faults.md 1: embed wrote NaN."""
    model, extractor, sequences = spoiled
    engine = Engine(model, extractor)
    with pytest.raises(NonFiniteError, match="clip1: "):
        extract(sequences, engine)
    errors = []
    found = list(stream(sequences, engine, on_error=errors.append))
    assert [sequence.name for sequence, _ in found] == ["clip0", "clip2"]
    assert all(np.isfinite(values).all() for _, values in found)
    [error] = errors
    assert isinstance(error, NonFiniteError) and str(error).startswith("clip1: ")


def test_what_a_model_says_of_one_recording_costs_no_other(spoiled):
    """faults.md 1: predict printed nan %."""
    model, extractor, sequences = spoiled
    for stream in (iter_predictions, iter_timelines):
        with pytest.raises(NonFiniteError, match="clip1: what the model says of"):
            list(stream(sequences, Engine(model, extractor)))
        errors = []
        found = list(stream(sequences, Engine(model, extractor), on_error=errors.append))
        names = [item[0].name if isinstance(item, tuple) else item.sequence.name for item in found]
        assert names == ["clip0", "clip2"] and len(errors) == 1


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_no_probability_of_a_broken_model_leaves_it(tmp_path, value):
    """faults.md 1: predict, timeline, stream, pipeline, ensemble and map of NaN logits; -inf for all of them, too."""
    shapes = {"num_joints": 25, "layout": "ntu25"}
    clip = np.random.default_rng(0).random((30, 25, 3), dtype=np.float32)

    def made(kind, **fields):
        model = kind(tiny_config(**shapes, **fields)).eval()
        last = [name for name, _ in model.named_parameters() if not name.startswith("usdrl.") and "bias" in name][-1]
        return broken(model, last, value), USDRLFeatureExtractor.from_model_config(model.config)

    recogniser, extractor = made(USDRLForActionRecognition)
    detector, _ = made(USDRLForActionDetection)
    segmenter, _ = made(USDRLForActionSegmentation, segmentation_layers=1)
    early, _ = made(USDRLForEarlyActionPrediction, is_causal=True)
    ensemble = USDRLEnsemble([recogniser], extractor)
    for model in (recogniser, ensemble):
        with pytest.raises(NonFiniteError):
            list(iter_predictions([clip], Engine(model, extractor)))
    for model in (recogniser, ensemble, detector, segmenter, early):
        with pytest.raises(NonFiniteError):
            list(iter_timelines([clip], Engine(model, extractor)))
    for model in (recogniser, detector, segmenter, early):
        stream = USDRLStream(Engine(model, extractor), min_frames=1 if model is early else None)
        with pytest.raises(NonFiniteError, match="the scene, frame [0-9]+: what the model says"):
            for frame in clip:
                stream.push(frame)
    with pytest.raises(NonFiniteError, match="what the model says of the recording"):
        SkeletonActionRecognitionPipeline(recogniser, feature_extractor=extractor)(clip)


def test_no_embedding_of_a_broken_model_leaves_it(tmp_path):
    """faults.md 1."""
    config = tiny_config(num_joints=25, layout="ntu25")
    model = broken(USDRLForActionRecognition(config), "usdrl.temporal.embedding.fc2.bias")
    extractor = USDRLFeatureExtractor.from_model_config(config)
    clips = [np.random.default_rng(number).random((30, 25, 3), dtype=np.float32) for number in range(3)]
    with pytest.raises(NonFiniteError, match="the embedding of the recording"):
        SkeletonFeatureExtractionPipeline(model, feature_extractor=extractor)(clips[0])
    with pytest.raises(NonFiniteError, match="sequence 0: its embedding"):
        make_map(clips, Engine(model, extractor))
    stream = USDRLStream(Engine(model.usdrl, extractor))
    with pytest.raises(NonFiniteError, match="'ada', frame 2: the embedding"):
        for frame in clips[0]:
            stream.push_many({"ada": frame})
