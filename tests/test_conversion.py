import json
import subprocess
import sys
from pathlib import Path

from usdrl_hub import USDRLForActionRecognition, USDRLForPreTraining

from .conftest import GOLDENS

SCRIPT = Path(__file__).parent.parent / "conversion" / "convert_all.py"


def run(manifest, folder):
    (folder / "manifest.json").write_text(json.dumps(manifest))
    command = [sys.executable, SCRIPT, GOLDENS, folder / "manifest.json", folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_a_folder_of_checkpoints_becomes_repositories_and_a_second_run_leaves_them(tmp_path):
    manifest = [
        {"file": "recognition_dste_uav17.pth.tar", "name": "usdrl/uav-v1-linear", "layout": "uav17"},
        {"file": "absent.pth.tar", "name": "usdrl/absent"},
        {"file": "recognition_dste_uav17.pth.tar", "name": ".."},
        {"file": "pretrain_dste_ntu25.pth.tar", "name": "usdrl/ntu60-xsub-bone", "modality": "bone"},
    ]
    code, out = run(manifest, tmp_path)
    assert code == 2 and "2 of 4 done, 2 failed" in out and "leaves the output folder" in out
    folders = sorted(folder.name for folder in (tmp_path / "out").iterdir())
    assert folders == ["usdrl--ntu60-xsub-bone", "usdrl--uav-v1-linear"]
    assert USDRLForActionRecognition.from_pretrained(tmp_path / "out" / folders[1]).config.layout == "uav17"
    assert USDRLForPreTraining.from_pretrained(tmp_path / "out" / folders[0]).config.modality == "bone"
    code, out = run([manifest[0], manifest[3]], tmp_path)
    assert code == 0 and out.count("exists already") == 2
