"""README.md and the guides in docs/: every command and every Python block of theirs is run, as a reader pastes them.

Of a document's fenced blocks, `bash` holds commands, one a line; `python` is run in one session per document; a `text`
block after one of these is what that prints, in part: `...` stands for anything, and decimals may be off by two units
of the last digit that is shown. `yaml` is a file, whose name its first line gives. Other blocks are pictures.
"""

import io
import json
import os
import re
import runpy
import shlex
import signal
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from typer.main import get_command

from usdrl_hub import LAYOUTS, convert_layout
from usdrl_hub.cli import app, main
from usdrl_hub.data.samples import load_samples

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [README, *GUIDES]

# What is not run here, and why; to the letter as it stands in a document.
NOT_RUN = {
    "git clone <this repository> && cd usdrl_hub": "needs the repository's address",
    "make demo": "builds an environment; see .ci",
    "pip install torch==2.13.0 && pip install .": "installs",
    "pip install 'usdrl-hub[map]'": "installs",
    "pip install 'usdrl-hub[video]'": "installs",
    "hf auth login": "needs an account on the real hub",
    "usdrl predict film.mp4 --model MY-2D-MODEL --pose-model usyd-community/vitpose-base-simple "
    "--detector PekingU/rtdetr_r50vd_coco_o365": "needs weights from the real hub; tests/test_video.py has tiny ones",
    "usdrl render film.mp4 --pose-model usyd-community/vitpose-base-simple "
    "--detector PekingU/rtdetr_r50vd_coco_o365 --output film.html": "as above",
    "usdrl prepare ntu60 nturgb+d_skeletons --protocol xsub --ignore missing.txt --int16 --workers 8 "
    "--output-dir ntu60": "needs NTU RGB+D",
    "usdrl prepare pku1 PKUMMD --protocol xsub --split-file cross-subject.txt --output-dir pku1": "needs PKU-MMD",
    "usdrl prepare pku2 PKUMMD2 --protocol xview --clips --output-dir pku2": "needs PKU-MMD",
    "usdrl prepare uav UAV-Human --protocol v2 --output-dir uav": "needs UAV-Human",
    "usdrl prepare file ntu60_hrnet.pkl --output-dir ntu60-2d": "needs NTU RGB+D",
    "usdrl evaluate pretrained --benchmark linear/ntu60-xsub --data ntu60 --output-dir scored": "needs NTU RGB+D",
    "usdrl convert epoch_450.pth.tar --output-dir ntu60-xsub": "needs the authors' file; docs/authors-checkpoints.md",
    "torchrun --nproc-per-node 8 -m usdrl_hub.cli pretrain store --output-dir pretrained": "needs several GPUs",
    "python conversion/convert_all.py CHECKPOINTS MANIFEST OUTPUT --push --namespace alice": "needs the authors' files",
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

    def __init__(self) -> None:
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
                        exec(compile(content, document.name, "exec"), self.session)
                    else:
                        for words in commands_of(content):
                            self.run(words, told)
                self.compare(told, out.getvalue(), document)
            elif language == "yaml":
                Path(re.match(r"# (\S+)\n", content)[1]).write_text(content)
            else:
                assert language in ("", "text"), f"{document.name}: a block is {language}"

    def run(self, words: list[str], told: str = "") -> None:
        """Run a command; one that ends with a sentence is to say it."""
        line = shlex.join(words) if len(words) > 1 else words[0]
        if words[0] in NOT_RUN or line.replace("'", "") in {entry.replace("'", "") for entry in NOT_RUN}:
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
    finally:
        sys.argv = arguments


class ctrl_c:
    """Press Ctrl-C as soon as what runs inside the block listens for it."""

    def __enter__(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        self.done = threading.Event()

        def press() -> None:
            while not self.done.is_set():
                if signal.getsignal(signal.SIGINT) != before:
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                time.sleep(0.002)

        self.thread = threading.Thread(target=press, daemon=True)
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


@pytest.fixture
def reader(tmp_path, monkeypatch, hub):
    """A reader in an empty folder, logged in as alice on a hub of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", hub.add_user("alice"))
    assert not constants.HF_HUB_OFFLINE
    return Reader()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_says_can_be_pasted_and_prints_what_it_says(reader, document):
    reader.read(document)
