import json
import os
import runpy
import shutil
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


def test_the_names_of_the_authors_scripts_make_a_manifest(tmp_path, monkeypatch, capsys):
    names = runpy.run_path(str(SCRIPT.with_name("names.py")))["main"]
    zoo = {
        "ntu60_xs_j_dste/checkpoint_0440.pth.tar": None,
        "ntu60_xs_j_dste/checkpoint_0450.pth.tar": "usdrl/ntu60-xsub",
        "ntu60_xs_j_dste/7_detection.pth.tar": None,
        "ntu120_xe_j_dste/checkpoint_0450.pth.tar": "usdrl/ntu120-xset",
        "deep/ntu60_xs_b_sttr/checkpoint_0450.pth.tar": "usdrl/ntu60-xsub-sttr-bone",
        "ntu60_xv_m_sttr.pth.tar": "usdrl/ntu60-xview-sttr-motion",
        "ntu2d60_xv_j_dste/checkpoint_0450.pth.tar": "usdrl/ntu60-2d-xview",
        "v2_xs_j_dste/checkpoint_1200.pth.tar": "usdrl/pkummd2-xsub",
        "v2_xe_j_dste/checkpoint_1200.pth.tar": None,
        "best.pth.tar": None,
        "ntu60_xs_j_dste/log.txt": None,
    }
    for file in zoo:
        (tmp_path / "zoo" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(GOLDENS / "pretrain_dste_ntu25.pth.tar", tmp_path / "zoo" / file)
    monkeypatch.setattr(sys, "argv", ["names.py", str(tmp_path / "zoo"), str(tmp_path / "manifest.json")])
    assert names() == 0
    out = capsys.readouterr().out
    assert out.count("left out") == 3 and "best.pth.tar: its name says nothing" in out and "log.txt" not in out
    entries = {entry["file"]: entry["name"] for entry in json.loads((tmp_path / "manifest.json").read_text())}
    assert entries == {file: name for file, name in zoo.items() if name}
    # What was looked through is not overwritten, and sizes have the last word.
    assert names() == 2 and "exists already" in capsys.readouterr().out
    command = ["convert_all.py", str(tmp_path / "zoo"), str(tmp_path / "manifest.json"), str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    assert runpy.run_path(str(SCRIPT))["main"]() == 2
    out = capsys.readouterr().out
    assert "usdrl/ntu60-xsub has hidden_size 1024, and this model 32" in out and "0 of 6 done, 6 failed" in out
    assert "usdrl/ntu60-xsub-sttr-bone has encoder sttr, and this model dste" in out
    assert not list((tmp_path / "out").glob("*"))
    monkeypatch.setattr(sys, "argv", ["names.py", str(tmp_path / "out"), str(tmp_path / "none.json")])
    assert names() == 2 and not (tmp_path / "none.json").exists()
