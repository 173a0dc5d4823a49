"""Write the manifest of `convert_all.py` for a folder of checkpoints that are named as in the authors' scripts.

    python conversion/names.py CHECKPOINTS MANIFEST

The scripts of both releases save ``checkpoint/DATA_PROTOCOL_MODALITY_ENCODER/checkpoint_EPOCH.pth.tar``, such as
``ntu60_xs_j_dste/checkpoint_0450.pth.tar``. Of each folder the newest epoch is taken; such a name of a file serves,
too. A file whose name says nothing of it is printed, and left out: add it to the manifest by hand. Look the manifest
through: names are only what the files are called, and `convert_all.py` refuses those whose sizes contradict them.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from usdrl_hub.facts.checkpoints import CHECKPOINTS
from usdrl_hub.files import new_file

_SUFFIXES = (".pth.tar", ".pth", ".pt", ".tar")
_DATA = {
    "ntu60": "ntu60",
    "ntu120": "ntu120",
    "ntu2d60": "ntu60-2d",
    "ntu2d120": "ntu120-2d",
    "v1": "pkummd1",
    "v2": "pkummd2",
}
_PROTOCOLS = {"xs": "xsub", "xv": "xview", "xe": "xset"}
_MODALITIES = {"j": "", "joint": "", "b": "-bone", "bone": "-bone", "m": "-motion", "motion": "-motion"}
_NAME = re.compile(
    rf"(?:.*[^a-z0-9])?({'|'.join(_DATA)})_({'|'.join(_PROTOCOLS)})_({'|'.join(_MODALITIES)})_(dste|sttr)(?:[^a-z].*)?"
)


def name_of(path: Path) -> str | None:
    """Name of a checkpoint by that of its file or folder; None where it says nothing, or the registry has none."""
    for text in (path.name, path.parent.name):
        if found := _NAME.fullmatch(text.lower()):
            data, protocol, modality, encoder = found.groups()
            sttr = "-sttr" if encoder == "sttr" else ""
            name = f"usdrl/{_DATA[data]}-{_PROTOCOLS[protocol]}{sttr}{_MODALITIES[modality]}"
            return name if name in CHECKPOINTS else None
    return None


def find_entries(checkpoints: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Entries of a manifest by the names of files and folders, and files of which nothing is known."""
    found: dict[str, tuple[int, str]] = {}
    unknown = []
    for path in sorted(checkpoints.rglob("*")):
        if not path.is_file() or not path.name.endswith(_SUFFIXES):
            continue
        # Detectors lie in the folders of their encoders.
        file = path.relative_to(checkpoints).as_posix()
        name = None if "detect" in path.name else name_of(path)
        if name is None:
            unknown.append(file)
            continue
        numbers = re.findall(r"\d+", path.name)
        epoch = int(numbers[-1]) if numbers else -1
        found[name] = max(found.get(name, (-2, "")), (epoch, file))
    return [{"file": file, "name": name} for name, (_, file) in sorted(found.items())], unknown


def main() -> int:
    """Write the manifest and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("manifest", type=Path)
    arguments = parser.parse_args()
    if arguments.manifest.exists():
        print(f"{arguments.manifest}: it exists already: name another file")
        return 2
    entries, unknown = find_entries(arguments.checkpoints)
    for file in unknown:
        print(f"{file}: its name says nothing of it: left out")
    if not entries:
        print(f"{arguments.checkpoints}: no checkpoint in it is named as in the authors' scripts")
        return 2
    with new_file(arguments.manifest) as partial:
        partial.write_text(json.dumps(entries, indent=2) + "\n", "utf-8")
    for entry in entries:
        print(f"{entry['file']}: {entry['name']}")
    print(f"{arguments.manifest}: {len(entries)} checkpoints; look it through, then run conversion/convert_all.py")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
