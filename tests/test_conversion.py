import json
import os
import subprocess
import sys
from pathlib import Path

from usdrl_hub import USDRLForActionRecognition, USDRLForPreTraining

from .conftest import GOLDENS

SCRIPT = Path(__file__).parent.parent / "conversion" / "convert_all.py"


def run(manifest, folder):
    (folder / "manifest.json").write_text(json.dumps(manifest))
    command = [sys.executable, SCRIPT, GOLDENS, folder / "manifest.json", folder / "out", "--install"]
    environment = os.environ | {"USDRL_HOME": str(folder / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout


def test_a_folder_of_checkpoints_becomes_repositories_and_a_second_run_leaves_them(tmp_path):
    manifest = [
        {"file": "recognition_dste_uav17.pth.tar", "name": "alice/uav-v1-linear", "layout": "uav17"},
        {"file": "absent.pth.tar", "name": "usdrl/absent"},
        {"file": "recognition_dste_uav17.pth.tar", "name": ".."},
        {"file": "pretrain_dste_ntu25.pth.tar", "name": "alice/ntu60-xsub-bone", "modality": "bone"},
        {"file": "pretrain_dste_ntu25.pth.tar", "name": "usdrl/ntu60-xsub-bone"},
    ]
    code, out = run(manifest, tmp_path)
    assert code == 2 and "2 of 5 done, 3 failed" in out and "leaves the output folder" in out
    # The goldens are narrow, and a name promises the size of the release.
    assert "usdrl/ntu60-xsub-bone has hidden_size 1024, and this model 32" in out
    folders = sorted(folder.name for folder in (tmp_path / "out").iterdir())
    assert folders == ["alice--ntu60-xsub-bone", "alice--uav-v1-linear"]
    assert USDRLForActionRecognition.from_pretrained(tmp_path / "out" / folders[1]).config.layout == "uav17"
    assert USDRLForPreTraining.from_pretrained(tmp_path / "out" / folders[0]).config.modality == "bone"
    installed = sorted(folder.name for folder in (tmp_path / "home" / "models").iterdir())
    assert [name for name in installed if not name.startswith(".")] == folders
    code, out = run([manifest[0], manifest[3]], tmp_path)
    assert code == 0 and out.count("exists already; installed before") == 2
