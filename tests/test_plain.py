"""Without acceleration everything computes the same."""

import os
import subprocess
import sys

import numpy as np
import pytest

from usdrl_hub.speedups import IS_PLAIN

from .conftest import relative_error

PROGRAM = """
import sys
import numpy as np
import torch
from usdrl_hub import USDRLForPreTraining, PretrainingDataset, USDRLPreTrainer, extract_embeddings, iter_predictions
from usdrl_hub import USDRLFeatureExtractor, USDRLConfig
from usdrl_hub.data.samples import load_samples
from usdrl_hub import PretrainingArguments

folder = sys.argv[1]
clips = load_samples()[:12]
found = {"embeddings": extract_embeddings(clips, device="cpu")}
found["predictions"] = np.stack([one.probabilities for one in iter_predictions(clips, device="cpu")])
torch.manual_seed(0)
sizes = {"stream_projector_sizes": [32, 32, 32], "instance_projector_sizes": [32, 32, 32]}
config = USDRLConfig(hidden_size=32, intermediate_size=64, num_persons=1, num_hidden_layers=2, **sizes)
# In float64: a gradient in float32 has rounding errors of 1e-5 of its own.
model = USDRLForPreTraining(config).double()
dataset = PretrainingDataset([load_samples()], USDRLFeatureExtractor.from_model_config(config), 64)
arguments = PretrainingArguments(
    folder, max_steps=1, per_device_train_batch_size=8, save_strategy="no", report_to=[], use_cpu=True,
    disable_tqdm=True, optim="sgd", learning_rate=1.0,
)
trainer = USDRLPreTrainer(model, arguments, dataset)
before = torch.cat([weights.detach().flatten() for weights in model.parameters()])
trainer.train()
found["loss"] = np.array(trainer.state.log_history[-1]["train_loss"])
after = torch.cat([weights.detach().flatten() for weights in model.parameters()])
found["step"] = (after - before).numpy()
np.savez(folder + "/found.npz", **found)
print(*sorted(name for name in sys.modules if name.startswith("usdrl_hub.acceleration")))
"""


@pytest.mark.long
def test_nothing_of_acceleration_is_imported_or_needed(tmp_path):
    results = {}
    for plain in ("1", "0"):
        (tmp_path / plain).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / plain)],
            env=os.environ | {"USDRL_PLAIN": plain},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        used = done.stdout.splitlines()[-1].split()
        expected = {"usdrl_hub.acceleration.fused", "usdrl_hub.acceleration.merged"}
        assert not used if plain == "1" else expected <= set(used)
        results[plain] = np.load(tmp_path / plain / "found.npz")
    for name in results["0"].files:
        assert relative_error(results["1"][name], results["0"][name]) < 1e-5, name


def test_this_run_is_of_the_kind_that_was_asked_for():
    assert IS_PLAIN == (os.environ.get("USDRL_PLAIN", "") not in ("", "0"))
    if IS_PLAIN:
        assert not [name for name in sys.modules if name.startswith("usdrl_hub.acceleration")]
