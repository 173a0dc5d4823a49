"""The commands 'prepare', 'join', 'check', 'inspect' and 'write'."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.dataset import open_data
from ..data.readers import SUFFIXES, choose_recording, is_video, iter_skeletons
from ..data.reading import Reading
from ..data.remote import is_address
from ..data.store import SkeletonStore, is_store
from ..data.writing import WRITABLE
from ..errors import notice, printable
from ..layouts import get_layout
from ..persons import PersonSelection
from ..sequence import SkeletonFormatError, SkeletonSequence
from .facts import facts_rows, print_facts, summary_line
from .messages import Errors
from .models import video_reading
from .options import (
    RECORDINGS,
    ReadingWorkers,
    Shard,
    ToLayout,
    VideoOptions,
    grouped,
    join_or,
    layout_of,
    options_of,
)
from .tables import print_table, say


@grouped
def prepare(
    kind: Annotated[
        str,
        typer.Argument(
            help="ntu60, ntu120, uav, pku1, pku2, folder (class/recording or class/video), csv (a table: file, label, "
            f"subject, split) or file ({join_or(SUFFIXES)})."
        ),
    ],
    raw: Annotated[Path | None, typer.Argument(help="The folder of raw files, or the file.")] = None,
    *,
    output_dir: Annotated[Path, typer.Option(help="Folder to create.")],
    ignore: Annotated[Path | None, typer.Option(help="Text file with names of recordings to leave out.")] = None,
    int16: Annotated[bool, typer.Option("--int16", help="Store int16: half the size, at most 0.1 mm off.")] = False,
    workers: ReadingWorkers = 1,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Split to store: xsub, xview, xset, one-shot, v1, v2 or folders; for a .pkl, one of its splits."
        ),
    ] = None,
    split_file: Annotated[Path | None, typer.Option(help="PKU-MMD's split file.")] = None,
    to_layout: ToLayout = None,
    shard: Shard = None,
    clips: Annotated[bool, typer.Option("--clips", help="Cut untrimmed recordings into labelled clips.")] = False,
    videos: VideoOptions,
    reading: Reading,
    persons: PersonSelection,
) -> None:
    """Make a data set of raw recordings or videos, for 'usdrl finetune' and 'usdrl embed'.

    Repeat the command to continue a run that was stopped.
    """
    from ..data.prepare import PrepareOptions
    from ..data.prepare import prepare as prepare_store
    from ..distributed import Workers

    if raw is None:
        example = f"'usdrl prepare {'csv' if Path(kind).is_file() else 'folder'} DATA'"
        raise ValueError(f"name the kind of the data and the data, such as {example}: only {kind!r} is given")
    options = PrepareOptions(ignore, protocol, split_file, clips, int16, layout_of(to_layout))
    options = replace(options, shard=Workers.of_shard(shard))
    if kind in ("folder", "csv"):
        films = replace(video_reading(videos, None), progress=workers == 1)
        options = replace(options, film=films.read, all_films=videos.pose_model is not None)
    try:
        store, report = prepare_store(
            kind,
            raw,
            output_dir,
            reading=reading,
            persons=persons,
            options=options,
            workers=workers,
            progress=True,
        )
    except (KeyboardInterrupt, SystemExit):
        # Ctrl-C, or a signal.
        print("usdrl: note: what has been read is kept: repeat the command to continue", file=sys.stderr)
        raise
    say(f"{output_dir}: {len(store)} sequences, {report['frames']} frames, layout {store.layout.name}")
    if (tests := store.column("split_test")) is not None and tests.ndim == 1:
        say(f"  {protocol or 'split'}: {int((tests == 0).sum())} train, {int(tests.sum())} test")
    if report["joints_missing"]:
        lacking, filled = report["joints_missing"], report["joints_filled"]
        say(f"  joints not seen: {100 * lacking / report['joints']:.1f} % ({filled} of {lacking} filled)")
    for reason, count in report["skipped"].items():
        say(f"  left out: {count} ({reason})")
    errors = Errors()
    for file, problem in report["problems"].items():
        errors(SkeletonFormatError(problem if file in problem else f"{file}: {problem}"))
    errors.finish()


def join(
    parts: Annotated[
        list[Path], typer.Argument(help="Stores, indexes or embeddings (.npz) that several processes made, in order.")
    ],
    output: Annotated[Path, typer.Option(help="Store, index or .npz to make.")],
) -> None:
    """Join what 'prepare --shard', 'embed --shard' or several 'index' have made."""
    from ..search.files import HEADER

    if len(parts) < 2:
        raise ValueError("name at least two parts to join")
    if len({part.resolve() for part in parts}) < len(parts):
        raise ValueError("a part is named twice")
    if all(is_store(part) for part in parts):
        from ..data.joining import join_stores

        store = join_stores(parts, output)
        say(f"{output}: {len(store)} sequences of {len(parts)} stores, layout {store.layout.name}")
    elif all((part / HEADER).is_file() for part in parts):
        from ..search.join import join_indexes

        index = join_indexes(parts, output)
        say(f"{output}: {index.num_recordings} recordings of {len(parts)} indexes; {index.about}")
    elif all(part.suffix == ".npz" for part in [*parts, output]):
        from ..inference.archive import join_embeddings

        say(f"{output}: embeddings of {join_embeddings(parts, output)} recordings of {len(parts)} files")
    else:
        missing = next((part for part in parts if not part.exists()), None)
        if missing is not None:
            raise SkeletonFormatError(f"{missing}: there is no such file or folder")
        raise SkeletonFormatError("the parts to join must be all stores, all indexes or all .npz files of embeddings")


@grouped
def check(
    path: Annotated[
        str,
        typer.Argument(help="A store, index, data set (.npz), checkpoint, recording or folder of recordings."),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a line.")] = False,
    reading: Reading,
) -> None:
    """Read all files, compare checksums, and report damage."""
    from ..hub.check import check as check_path

    found = check_path(path, reading)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        counts = ", ".join(f"{number} {what}" for what, number in found.counts.items())
        state = "whole" if found.whole else f"{len(found.damages)} damaged"
        print(printable(f"{path}: {found.kind}, {state}" + (f": {counts}" if counts else "")))
    errors = Errors()
    for damage in found.damages:
        errors(SkeletonFormatError(damage))
    errors.finish()


@grouped
def inspect(
    path: Annotated[
        str, typer.Argument(help=f"A recording {RECORDINGS}, a video, a data set, a store, or a folder of them.")
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    workers: ReadingWorkers = 1,
    reading: Reading,
) -> None:
    """Show what recordings are: kind, layout, people, frames, rate, units, up, size, and what is passed over."""
    from tqdm import tqdm

    from ..data.inspection import files_to_inspect, inspect_files, summary_of

    files = files_to_inspect(path)
    errors = Errors()
    found = []
    shown = inspect_files(files, reading, film=_film, workers=workers)
    # A single file has no bar.
    is_quiet = None if len(files) > 1 else True
    for facts in tqdm(shown, total=len(files), unit="file", disable=is_quiet, file=sys.stderr):
        found.append(facts)
        for message, kind in facts.notes:
            notice(message, kind)
        for problem in facts.problems:
            errors(SkeletonFormatError(problem))
    if as_json:
        print(json.dumps({"files": [facts.to_dict() for facts in found], "summary": summary_of(found)}, indent=2))
    elif Path(path).is_dir() and files != [Path(path)]:
        print_table(facts_rows(found, Path(path)))
        say(f"\n{summary_line(summary_of(found))}")
    else:
        print_facts(found[0])
    errors.finish()


def _film(path: Path) -> dict[str, Any]:
    """What the container of a video says; only a video needs the packages."""
    from ..inference.video import video_facts

    return video_facts(path)


def _sequences(file: Path, reading: Reading) -> Iterable[SkeletonSequence]:
    """The recordings of a file, a store, or a data set of the hub."""
    if is_address(file):
        return open_data(file, reading.layout, keypoints=reading.keypoints)
    return SkeletonStore.open(file) if is_store(file) else iter_skeletons(file, reading)


@grouped
def write(
    file: Annotated[Path, typer.Argument(help=f"A recording {RECORDINGS}, a video, a data set or a store.")],
    *,
    output: Annotated[Path, typer.Option(help=f"File to write: {join_or(WRITABLE)}.")],
    to_layout: ToLayout = None,
    name: Annotated[str | None, typer.Option(help="Name or index (from 0) of one recording of several.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")] = False,
    videos: VideoOptions,
    reading: Reading,
) -> None:
    """Convert a recording to .npz, .json, .csv or .npy, which are read back equal.

    Several recordings go into one .npz. For what .csv and .npy cannot say, the options to read them are printed.
    """
    from ..data.writing import check_output, in_layout, write_skeleton

    check_output(output, overwrite)
    if file.is_dir() and not is_store(file):
        raise SkeletonFormatError(f"{file}: it is a folder: 'usdrl prepare' makes a data set of it; here, name a file")
    target = layout_of(to_layout)
    if is_video(file):
        found = [video_reading(videos, None).read(file)]
    else:
        found = list(_sequences(file, reading))
    if name is not None:
        found = [found[choose_recording(file, [sequence.name for sequence in found], name)]]
    if target is not None:
        found = [in_layout(sequence, target) for sequence in found]
    rest = options_of(write_skeleton(found, output, overwrite=overwrite))
    layout, people = get_layout(found[0].layout), max(sequence.num_persons for sequence in found)
    frames = sum(sequence.num_frames for sequence in found)
    say(
        f"{output}: {len(found)} recording{'s' * (len(found) > 1)}, {frames} frames, {people} "
        f"{'people' if people > 1 else 'person'}, layout {layout.name}"
    )
    if rest:
        say(f"  read it with {rest}")
