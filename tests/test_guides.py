"""README.md and the guides in docs/: every command and every Python block is run as a reader would paste it.

`bash` blocks hold one command per line; `python` blocks of a document run in one session; a `text` block after one of
these is part of its output, where `...` matches anything and decimals may differ by two units of the last digit. A
`yaml` block is a file, named in its first line. Other blocks are not run.
"""

import doctest
import inspect
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from transformers import TrainerCallback
from typer.main import get_command

import usdrl_hub
from usdrl_hub import LAYOUTS, convert_layout
from usdrl_hub.cli import main
from usdrl_hub.cli.app import app
from usdrl_hub.data.formats import joint_names
from usdrl_hub.data.samples import load_samples
from usdrl_hub.errors import USDRLError

from .formats.writers import write_all
from .motion_capture import write_squats

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))
INDEX = ROOT / "docs" / "index.md"
DOCUMENTS = [README, *GUIDES, *sorted((ROOT / ".github").glob("*.md"))]
# Those that train and export for more than a few seconds.
LONG = ("browser", "deployment", "long-recordings", "own-data", "pretraining", "publishing", "trainer")

# What is not run here, and why; to the letter as it stands in a document.
NOT_RUN = {
    "make demo": "builds an environment; see .ci, as for all of make",
    "make test": "as above",
    "make lint": "as above",
    "make fuzz": "as above",
    "make test-lowest": "as above",
    "make test-plain": "as above",
    "make format": "as above",
    "make cards": "as above",
    "make bench": "as above",
    "make docs": "as above",
    "make pictures": "as above",
    "make package": "as above",
    "make test-long": "as above",
    "make test-slow": "as above",
    "make test-gpu": "as above",
    "make workflows": "as above",
    "pip install .": "installs",
    "pip install usdrl-hub": "installs",
    "pip install 'usdrl-hub[onnx]'": "installs",
    "pip install torch --index-url https://download.pytorch.org/whl/cpu": "installs",
    "uv pip install --torch-backend=cpu .": "installs",
    "pip install 'usdrl-hub[video,onnx]'": "installs",
    "pip install 'usdrl-hub[map]'": "installs",
    "pip install 'usdrl-hub[search]'": "installs",
    "pip install '.[video]'": "installs",
    "pip install 'usdrl-hub[video]'": "installs",
    "pip install 'usdrl-hub[onnx,video]'": "installs",
    "npm install onnxruntime-web@1.30.0": "installs",
    "usdrl export usdrl/tiny-uiprmd --page exercises.html --runtime node_modules/onnxruntime-web": "needs that; "
    "tests/test_live.py",
    "usdrl export usdrl/mocap-tiny --page search.html --gallery labelled.npz": "takes seconds; tests/test_live.py",
    "usdrl export detector --page detector.html --threshold 0.5": "as above",
    "usdrl predict --camera 0 --json": "needs a camera; tests/test_camera.py",
    "usdrl predict --camera rtsp://camera.local/stream --model detector": "as above",
    "usdrl predict camera.json --timeline": "needs a camera; tests/test_live.py",
    "usdrl render camera.json --model usdrl/tiny-uiprmd --output camera.html": "as above",
    "hf auth login": "needs an account on the real hub",
    "usdrl predict film.mp4 --model MY-2D-MODEL --pose-model usyd-community/vitpose-base-simple "
    "--detector PekingU/rtdetr_r50vd_coco_o365": "needs weights from the real hub; tests/test_video.py has tiny ones",
    "usdrl predict film.mp4": "needs a film of people; tests/test_blazepose.py reads one",
    "usdrl render film.mp4 --output film.html": "as above",
    "usdrl prepare folder films --output-dir store-films": "needs films of people; tests/test_prepare_films.py",
    "usdrl finetune store-films --pose-errors 0.5 --output-dir my-film-model": "as above",
    "usdrl predict film.mp4 --model my-film-model": "as above",
    "usdrl prepare ntu60 nturgb+d_skeletons --protocol xsub --ignore missing.txt --int16 --workers 8 "
    "--output-dir ntu60": "needs NTU RGB+D",
    "usdrl prepare pku1 PKUMMD --protocol xsub --split-file cross-subject.txt --output-dir pku1": "needs PKU-MMD",
    "usdrl prepare pku2 PKUMMD2 --protocol xview --clips --output-dir pku2": "needs PKU-MMD",
    "usdrl prepare uav UAV-Human --protocol v2 --output-dir uav": "needs UAV-Human",
    "usdrl prepare file ntu60_hrnet.pkl --protocol xsub --output-dir ntu60-2d": "needs NTU RGB+D",
    "usdrl evaluate pretrained --benchmark linear/ntu60-xsub --data ntu60 --output-dir scored": "needs NTU RGB+D",
    "usdrl convert epoch_450.pth.tar --output-dir ntu60-xsub": "needs the authors' file; docs/authors-checkpoints.md",
    "torchrun --nproc-per-node 8 -m usdrl_hub.cli pretrain store --output-dir pretrained": "needs several GPUs",
    "torchrun --nproc-per-node 2 train.py": "takes a minute; tests/test_finite.py trains in two processes",
    "accelerate launch --num-processes 2 train.py": "as above",
    "python conversion/convert_all.py CHECKPOINTS MANIFEST OUTPUT --push --namespace alice": "needs their files",
    # Of the table of results, whose data sets do not ship.
    "usdrl finetune ui_prmd_vicon.npz --output-dir OUT --from-scratch --hidden-size 80 --num-persons 1 --layout ntu25 "
    "--mirror --baseline": "needs all of UI-PRMD",
}


def blocks_of(document: Path) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of a document."""
    text = document.read_text()
    assert text.count("\n```") % 2 == 0, f"{document.name}: a fence is open"
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands_of(block: str) -> list[list[str]]:
    """The commands of a block as words; `#` begins a comment."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := _words(line))]


def _words(line: str) -> list[str]:
    # A list of commands is one; `<...>` stands for what the reader knows.
    line = line.split(" # ")[0].split("  #")[0].strip()
    return [] if line.startswith("#") else [line] if line in NOT_RUN else shlex.split(line)


def inline_commands_of(document: Path) -> list[str]:
    """What stands between backticks in running text and tables, and begins as a command does."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in spans if re.match(r"(usdrl|python|pip|make|torchrun|git|hf) ", span)]


class Reader:
    """Runs what a document says, in the current folder, and keeps what was printed last."""

    # What the demo wrote and printed: several documents begin with it.
    demo: tuple[Path, str] | None = None

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.session: dict[str, object] = {"__name__": "__main__"}
        self.printed = ""

    def read(self, document: Path) -> None:
        blocks = blocks_of(document)
        for number, (language, content) in enumerate(blocks):
            told = blocks[number + 1][1] if blocks[number + 1 : number + 2] and blocks[number + 1][0] == "text" else ""
            if language in ("bash", "python"):
                out = io.StringIO()
                with redirect_stdout(out):
                    if language == "python":
                        self.execute(content, told, document)
                    else:
                        for words in commands_of(content):
                            self.run(words, told)
                self.compare(told, out.getvalue(), document)
            elif language == "yaml":
                Path(re.match(r"# (\S+)\n", content)[1]).write_text(content)
            else:
                assert language in ("", "text"), f"{document.name}: a block is {language}"

    def execute(self, code: str, told: str, document: Path) -> None:
        """Run Python; an error that is to be seen is printed as at the end of a traceback."""
        try:
            exec(compile(code, document.name, "exec"), self.session)
        except USDRLError as error:
            if not told.startswith(f"{type(error).__name__}: "):
                raise
            print(f"{type(error).__name__}: {error}")

    def run(self, words: list[str], told: str = "") -> None:
        """Run a command; one that ends with a sentence is to say it."""
        line = shlex.join(words) if len(words) > 1 else words[0]
        if words[0] in NOT_RUN or line.replace("'", "") in {entry.replace("'", "") for entry in NOT_RUN}:
            return
        if words == ["usdrl", "demo"]:
            self.run_demo()
            return
        assert words[0] in ("usdrl", "python"), f"'{line}' is neither run nor in the list of what is not"
        err = io.StringIO()
        with redirect_stderr(err), pytest.raises(SystemExit) as caught:
            if words[0] == "python":
                runpy_main(words[1:])
            elif "usdrl: stopped" in told:
                with ctrl_c():
                    main(words[1:])
            else:
                main(words[1:])
        wrong = caught.value.code or 0
        sentence = "".join(part for part in err.getvalue().splitlines(True) if part.startswith("usdrl: "))
        print(sentence, end="")
        assert not wrong or sentence and sentence.split()[1] in told, f"{line}\n{err.getvalue()}"

    def run_demo(self) -> None:
        if Reader.demo is None:
            with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as caught:
                main(["demo", "--output-dir", str(self.scratch)])
            assert not caught.value.code
            Reader.demo = self.scratch, out.getvalue().replace(str(self.scratch), "demo-output")
        shutil.copytree(Reader.demo[0], "demo-output")
        print(Reader.demo[1], end="")

    @staticmethod
    def compare(told: str, printed: str, document: Path) -> None:
        numbers, parts = [], []
        for word in told.split():
            if number := re.fullmatch(r"(\d+\.\d+)(\D*)", word):
                numbers.append(number[1])
                parts.append(r"(\d+\.\d+)" + re.escape(number[2]))
            else:
                parts.append(re.escape(word).replace(r"\.\.\.", ".*?"))
        pattern = r"\s+".join(parts).replace(r"\s+.*?\s+", r"\s+(?:.*?\s+)?")
        found = re.search(pattern, printed, flags=re.DOTALL)
        assert found, f"{document.name} says that this is printed:\n{told}\nbut it is:\n{printed}"
        for number, actual in zip(numbers, found.groups(), strict=True):
            unit = 10.0 ** -len(number.partition(".")[2])
            assert abs(float(number) - float(actual)) < 2.5 * unit, f"{document.name}: {number} is {actual}\n{printed}"


def runpy_main(words: list[str]) -> None:
    arguments, sys.argv = sys.argv, words
    try:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        raise SystemExit(0)
    finally:
        sys.argv = arguments


def is_training() -> bool:
    """Whether what listens for Ctrl-C is a trainer's."""
    return isinstance(getattr(signal.getsignal(signal.SIGINT), "__self__", None), TrainerCallback)


class ctrl_c:
    """Press Ctrl-C as soon as the training inside the block listens for it; the command does so from its beginning."""

    def __enter__(self) -> None:
        self.done = threading.Event()

        def press() -> None:
            while not self.done.is_set():
                if is_training():
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                time.sleep(0.002)

        self.thread = threading.Thread(target=press, daemon=True)
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


@pytest.fixture
def reader(tmp_path, tmp_path_factory, monkeypatch, hub):
    """A reader in an empty folder, logged in as alice on a hub of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", hub.add_user("alice"))
    assert not constants.HF_HUB_OFFLINE
    return Reader(tmp_path_factory.mktemp("demo"))


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize(
    "document",
    [pytest.param(path, marks=[pytest.mark.long] * (path.stem in LONG)) for path in DOCUMENTS],
    ids=lambda path: path.name,
)
def test_what_a_document_says_can_be_pasted_and_prints_what_it_says(reader, document, monkeypatch):
    if document.name == "formats.md":
        write_squats(Path())
        write_all(Path())
        for table in ("RIGS", "MARKER_SETS"):
            monkeypatch.setattr(joint_names, table, dict(getattr(joint_names, table)))
    reader.read(document)


EXAMPLES = [name for name in usdrl_hub.__all__ if ">>> " in (getattr(usdrl_hub, name).__doc__ or "")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_docstring_prints_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [example] = doctest.DocTestFinder(recurse=False).find(getattr(usdrl_hub, name), name, module=False, globs={})
    printed = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    assert runner.run(example, out=printed.write).failed == 0, printed.getvalue()


def test_every_public_function_says_what_it_takes_and_gives():
    for name in usdrl_hub.__all__:
        function = getattr(usdrl_hub, name)
        if inspect.isfunction(function):
            text = inspect.getdoc(function)
            assert "Args:" in text or "Arguments and errors are those of `" in text, name
            assert re.search(r"^(Returns|Yields):$", text, flags=re.MULTILINE) or returns_nothing(function), name


def returns_nothing(function) -> bool:
    return inspect.signature(function).return_annotation in (None, "None")


def test_the_readme_is_short_and_links_the_glossary():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 170
    assert "docs/glossary.md" in text


def test_nothing_is_left_out_that_no_document_says():
    said = {
        shlex.join(words) if len(words) > 1 else words[0]
        for document in DOCUMENTS
        for language, content in blocks_of(document)
        if language == "bash"
        for words in commands_of(content)
    }
    inline = {span for document in DOCUMENTS for span in inline_commands_of(document)}
    assert not [
        entry for entry in NOT_RUN if entry not in said | inline and shlex.join(shlex.split(entry)) not in said
    ]
    targets = (ROOT / "Makefile").read_text()
    assert all(f"\n{entry.split()[1]}:" in targets for entry in NOT_RUN if entry.startswith("make "))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_running_text_exist_with_their_options(document):
    known = get_command(app).commands
    for span in inline_commands_of(document):
        words = shlex.split(span)
        if words[0] == "usdrl" and span not in NOT_RUN:
            assert words[1] in known, span
            options = {name: option for option in known[words[1]].params for name in option.opts}
            rest = words[2:]
            while rest:
                assert rest[0] in options, f"{document.name}: '{span}' is a command: let a block run it"
                rest = rest[1 if options[rest[0]].is_flag else 2 :]
        elif words[0] == "python":
            # Measurements on data that do not ship.
            assert words[1].startswith("benchmarks/") and (ROOT / words[1]).is_file(), span
        elif words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), span


def test_guides_are_linked_from_the_readme_or_the_contents_and_links_lead_somewhere():
    linked = set()
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", " ".join(text.split())):
            target = (document.parent / file).resolve() if file else document
            assert target.is_file(), f"{document.name}: {file}"
            linked |= {target} if document in (README, INDEX) else set()
            if anchor:
                heads = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}
    assert linked >= set(GUIDES)


def write_recordings(folder: Path, layout: str, suffix: str) -> None:
    """Six clips of two classes, as somebody has them who uses a layout and a kind of file."""
    for clip in load_samples():
        if clip.label > 1 or clip.name.endswith("_inc") or clip.subject > 6:
            continue
        target = LAYOUTS[layout]
        keypoints = convert_layout(clip.keypoints, clip.layout, layout)
        if target.coordinates != "3d":
            pixels = (960, 540) + (200, -200) * keypoints[..., :2]
            score = np.ones_like(pixels[..., :1])
            keypoints = np.concatenate([pixels, score], axis=-1) if target.coordinates == "2d+score" else pixels
        file = folder / str(clip.label) / f"{clip.name}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        if suffix == "json":
            file.write_text(json.dumps(keypoints[:, 0].tolist()))
        else:
            np.save(file, keypoints)


@pytest.mark.parametrize(
    "layout, suffix",
    [
        ("ntu25", "npy"),
        ("ui-prmd39", "json"),
        ("smpl24", "json"),
        ("sbu15", "npy"),
        ("openpose18", "json"),
        ("jhmdb15", "npy"),
    ],
)
def test_the_readmes_three_commands_make_a_picture_of_predictions(reader, layout, suffix):
    write_recordings(Path("recordings"), layout, suffix)
    [commands] = [
        commands_of(content)
        for _, content in blocks_of(README)
        if content.startswith("usdrl prepare folder demo-output/recordings")
    ]
    assert [words[1] for words in commands] == ["prepare", "finetune", "predict"]
    # One epoch, to be quick.
    for words in commands:
        words = [word.replace("demo-output/", "").replace("recordings/squat", "recordings/0") for word in words]
        quick = ["--epochs", "1"] if words[1] == "finetune" else ["--layout", layout]
        reader.run([*words, *quick])
    assert Path("predictions.png").read_bytes()[:4] == b"\x89PNG" and Path("predictions.png").stat().st_size > 10_000
