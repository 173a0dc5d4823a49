"""Imports of the package and of the command line, each in a fresh process."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import usdrl_hub
from usdrl_hub.facts.checkpoints import checkpoint_path

RECOGNISER = str(checkpoint_path("usdrl/tiny-uiprmd"))
ENCODER = str(checkpoint_path("usdrl/mocap-tiny"))


def run(code: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_neither_torch_nor_transformers():
    code = "import sys, usdrl_hub; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    assert run(code) == "set()"


# Each line uses one registry more of transformers.
USES = f"""
from transformers import AutoConfig
print(type(AutoConfig.from_pretrained({ENCODER!r})).__name__)
from transformers import AutoFeatureExtractor
print(type(AutoFeatureExtractor.from_pretrained({ENCODER!r})).__name__)
from transformers import AutoModel, AutoModelForVideoClassification
print(type(AutoModel.from_pretrained({ENCODER!r})).__name__)
print(type(AutoModelForVideoClassification.from_pretrained({RECOGNISER!r})).__name__)
from transformers import pipeline
print(type(pipeline("skeleton-action-recognition", {RECOGNISER!r})).__name__)
"""
ANSWERS = """USDRLConfig
USDRLFeatureExtractor
USDRLModel
USDRLForActionRecognition
SkeletonActionRecognitionPipeline"""


@pytest.mark.parametrize(
    "before",
    [
        "import usdrl_hub",
        pytest.param("import transformers, usdrl_hub", marks=pytest.mark.long),
        pytest.param("from transformers import AutoModel; import usdrl_hub", marks=pytest.mark.slow),
        pytest.param(
            "from transformers import AutoConfig; import usdrl_hub; from transformers import pipeline",
            marks=pytest.mark.slow,
        ),
        # A model of transformers imports half of the Auto classes from within.
        pytest.param("import usdrl_hub; from transformers import BertModel", marks=pytest.mark.long),
        pytest.param("import usdrl_hub; import transformers.modeling_layers", marks=pytest.mark.slow),
        pytest.param("from usdrl_hub import pipeline, USDRLModel", marks=pytest.mark.slow),
    ],
)
def test_auto_classes_know_the_models_in_any_order_of_imports(before):
    assert run(f"{before}\n{USES}") == ANSWERS


@pytest.mark.parametrize(
    "command, status",
    [
        ("--help", 0),
        ("--version", 0),
        ("list", 0),
        ("benchmarks", 0),
        ("recipes", 0),
        ("predict absent.npy", 2),
        ("predict notes.txt", 2),
        ("predict cut.skeleton", 2),
        ("predict cut.npy", 2),
        ("embed absent.npy --output out.npz", 2),
        ("embed notes.txt --output out.npz", 2),
        ("embed cut.skeleton --output out.npz", 2),
        ("embed cut.npy --output out.npz", 2),
        ("prepare file absent.npy --output-dir store", 2),
        ("prepare file cut.npy --output-dir store", 2),
        ("prepare ntu60 absent --output-dir store", 2),
    ],
)
def test_a_command_that_computes_nothing_imports_neither_torch_nor_transformers(tmp_path, command, status):
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "cut.skeleton").write_text("3\n1\n")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    code = f"""
import sys
from usdrl_hub.cli import main
try:
    main({command.split()!r})
except SystemExit as end:
    print("status", end.code)
print("imported", {{"torch", "transformers"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-2:] == [f"status {status}", "imported set()"], done.stderr
    assert status == 0 or (done.stderr.startswith("usdrl: ") and done.stderr.count("\n") == 1)


def test_an_interrupt_while_modules_are_imported_ends_without_a_traceback():
    """The command is interrupted where it imports its options."""
    code = """
import os, signal, sys
from usdrl_hub.cli import main
# A shell starts what runs in the background with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "usdrl_hub.cli.options":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
main(["--help"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "usdrl: interrupted\n")


def test_names_for_type_checkers_are_those_of_python():
    tree = ast.parse(Path(usdrl_hub.__file__).read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imported = {(alias.asname, node.module) for node in checked.body for alias in node.names}
    modules = {name: getattr(usdrl_hub, name) for name in usdrl_hub.__all__ if name != "__version__"}
    assert {name for name, _ in imported} == set(modules)
    for name, module in imported:
        assert getattr(__import__(f"usdrl_hub.{module}", fromlist=[name]), name) is modules[name]
    assert set(usdrl_hub.__all__) <= set(dir(usdrl_hub))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'usdrl_hub' has no attribute 'USDRLModle'"):
        usdrl_hub.USDRLModle  # noqa: B018


def test_a_module_keeps_its_own_loader():
    code = "import json, usdrl_hub, usdrl_hub.layouts as m; print(json.dumps([type(m.__loader__).__name__, "
    code += "type(m.__spec__.loader).__name__]))"
    assert json.loads(run(code)) == ["SourceFileLoader", "SourceFileLoader"]
