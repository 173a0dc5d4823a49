"""Fine-tuning on folds, and runs that are killed, interrupted and repeated."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from usdrl_hub import SkeletonList, USDRLForActionRecognition
from usdrl_hub.data.samples import load_samples
from usdrl_hub.tasks import recognition
from usdrl_hub.tasks.console import Console
from usdrl_hub.tasks.fit import FitRecipe, Progress, fit
from usdrl_hub.tasks.recognition import Evaluation, finetune
from usdrl_hub.tasks.state import RunState, data_digest, kept_state

from .helpers import tiny_config


class Clips(torch.utils.data.Dataset):
    """Random clips; the n-th batch calls a function."""

    def __init__(self, config, calls=None):
        generator = torch.Generator().manual_seed(0)
        shape = (24, config.num_frames, config.num_persons, config.num_joints, config.num_channels)
        self.clips, self.calls, self.batches = torch.randn(shape, generator=generator), calls or {}, 0

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):
        self.batches += 1
        if self.batches in self.calls:
            self.calls[self.batches]()
        return [{"keypoints": self.clips[index], "labels": index % 4} for index in indices]


def fresh():
    torch.manual_seed(0)
    return USDRLForActionRecognition(tiny_config())


def interrupt():
    raise KeyboardInterrupt


RECIPE = FitRecipe(epochs=5, batch_size=4, learning_rate=1e-2, label_smoothing=0.1)


@pytest.mark.long
def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path):
    whole, cut, again = fresh(), fresh(), fresh()
    fit(whole, Clips(whole.config), RECIPE, progress=Progress(folder=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(cut, Clips(cut.config, {17: interrupt}), RECIPE, progress=Progress(folder=tmp_path / "cut"))
    steps = sorted(int(path.name.partition("-")[2]) for path in (tmp_path / "cut").glob("checkpoint-*"))
    assert steps and 0 < steps[-1] < 17
    # A checkpoint that was cut while it was written is not one.
    (tmp_path / "cut" / "checkpoint-99").mkdir()
    clips = Clips(again.config)
    with pytest.warns(UserWarning, match="checkpoint-99"):
        progress = fit(again, clips, RECIPE, progress=Progress(folder=tmp_path / "cut"))
    assert progress.epochs == 5 and clips.batches < 30 and not progress.stopped
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_interrupt_keeps_the_best_weights_so_far(tmp_path):
    model = fresh()
    clips = Clips(model.config, {13: lambda: os.kill(os.getpid(), signal.SIGINT)})
    progress = fit(model, clips, RECIPE, validation=Clips(model.config), progress=Progress(folder=tmp_path / "run"))
    assert progress.stopped and 2 <= progress.epochs <= 3
    accuracies = [row["validation_accuracy"] for row in progress.history if "validation_accuracy" in row]
    assert progress.best["accuracy"] == max(accuracies)


def trained(monkeypatch, interrupted_at=0):
    """Counts trainings of recogniser; an interrupt comes at one of them."""
    calls, run = [], recognition.Training.run

    def counted(self, *arguments):
        calls.append(self.key)
        if len(calls) == interrupted_at:
            raise KeyboardInterrupt
        return run(self, *arguments)

    monkeypatch.setattr(recognition.Training, "run", counted)
    return calls


def test_folds_test_each_person_once_and_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    samples, evaluation = load_samples(), Evaluation(folds="subject")
    data = samples.select(np.asarray(samples.column("labels")) < 3)
    calls, told = trained(monkeypatch, 3), []
    with pytest.raises(KeyboardInterrupt):
        finetune(data, tmp_path / "out", method="linear", evaluation=evaluation, console=Console(told.append))
    assert next(sentence for sentence in told if "trainings" in sentence).startswith("6 trainings: at most about ")
    assert calls == ["fold-0", "fold-1", "fold-2"] and not (tmp_path / "out").exists()
    said = []
    calls = trained(monkeypatch)
    record = finetune(data, tmp_path / "out", method="linear", evaluation=evaluation, console=Console(said.append))
    assert calls == ["fold-2", "fold-3", "fold-4", "all"] and said[0] == "an unfinished run of out goes on"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    whole = finetune(data, tmp_path / "whole", method="linear", evaluation=evaluation)
    for key in ("folds", "scores", "baselines", "metrics", "groups", "checkpoint_sha256"):
        assert record[key] == whole[key]
    assert [row["n"] for row in record["folds"]] == [6] * 5 and np.sum(record["scores"]["confusion"]) == 30
    accuracies = [row["accuracy"] for row in record["folds"]]
    assert record["metrics"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert record["accuracy_of_folds"] == {"mean": pytest.approx(np.mean(accuracies)), "std": np.std(accuracies)}
    assert record["n"] == {"train": 30, "test": 30} and record["scores"]["interval_unit"] == "group"
    assert record["split"] == "5 folds; each person is left out in turn"
    assert any("left" in sentence and "6 clips" in sentence for sentence in said)
    assert not any("at most about" in sentence for sentence in said)


def test_state_is_for_the_same_settings_and_goes_with_what_fails(tmp_path):
    said = []

    def killed(settings, resume=True):
        with kept_state(tmp_path / "out", settings, resume, said.append) as state:
            found = state.load("part")
            state.save("part", {"value": 1}, {"weights": torch.ones(2)})
            raise KeyboardInterrupt from None if found is None else LookupError()

    for settings, resume, goes_on in (
        ({"seed": 0}, True, False),
        ({"seed": 0}, True, True),
        ({"seed": 1}, True, False),
    ):
        with pytest.raises(KeyboardInterrupt) as caught:
            killed(settings, resume)
        assert (caught.value.__cause__ is not None) == goes_on
    with pytest.raises(KeyboardInterrupt) as caught:
        killed({"seed": 1}, False)
    assert caught.value.__cause__ is None
    assert said == [
        "an unfinished run of out goes on",
        "an unfinished run of out is discarded: another seed",
        "an unfinished run of out is discarded",
    ]
    values, tensors = RunState(tmp_path / ".out.training").load("part")
    assert values == {"value": 1} and tensors["weights"].tolist() == [1, 1]
    with pytest.raises(ValueError), kept_state(tmp_path / "out", {"seed": 1}, True, said.append):
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_data_that_were_prepared_anew_are_other_data():
    clips = load_samples()[:20]

    def changed(**values):
        return SkeletonList([replace(clip, **{key: make(clip) for key, make in values.items()}) for clip in clips])

    digests = [
        data_digest(changed()),
        data_digest(changed(keypoints=lambda clip: clip.keypoints * 1000)),
        data_digest(changed(subject=lambda clip: clip.subject + 1)),
        data_digest(changed(), np.ones(20)),
        data_digest(SkeletonList(clips, columns={"session": np.arange(20)})),
    ]
    assert len(set(digests)) == 5 and digests[0] == data_digest(changed())


def test_baselines_of_one_split_are_refused_with_folds(tmp_path):
    with pytest.raises(ValueError, match="leave them out with folds"):
        finetune(load_samples(), tmp_path / "out", evaluation=Evaluation(folds="2", baseline=True))
    assert not (tmp_path / "out").exists()
