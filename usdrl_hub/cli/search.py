"""The commands 'index', 'search', 'duplicates' and 'outliers'."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ..data.dataset import SkeletonData
from ..data.reading import Reading
from ..errors import USDRLError
from ..facts.checkpoints import ENCODER
from .inputs import refuse_unreadable
from .messages import Errors
from .models import load_engine
from .options import LABELLED, RECORDINGS, Model, ModelOptions, PerPerson, complete_model, grouped
from .tables import print_table, say

if TYPE_CHECKING:
    from ..search.duplicates import Copy
    from ..search.hits import Hit

IndexModel = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete_model,
        help="Checkpoint; the one that made the index if unset, usdrl/mocap-tiny for a new index.",
    ),
]


@grouped
def index(
    sources: Annotated[
        list[str],
        typer.Argument(help=f"Skeleton files {RECORDINGS}, folders, data sets and stores."),
    ],
    *,
    output: Annotated[Path, typer.Option(help="Folder of the index: a new one, or one to add to.")],
    model: IndexModel = None,
    window: Annotated[
        float | None, typer.Option(help="Seconds of a window; 0 takes recordings whole. 2 in a new index.")
    ] = None,
    stride: Annotated[float | None, typer.Option(help="Seconds between windows; 0.5 in a new index.")] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete the named recordings, files or stores from the index instead.")
    ] = False,
    reading: Reading,
    per_person: PerPerson = False,
    computing: ModelOptions,
) -> None:
    """Index the windows of recordings, for 'usdrl search'.

    Repeat the command to continue a run that was stopped, or with further recordings to add them.
    """
    from ..search.build import WindowOptions
    from ..search.index import MotionIndex

    if remove:
        kept, count = MotionIndex.open(output).remove(sources)
        say(f"{output}: {count} recordings removed, {kept.num_recordings} left; {kept.about}")
        return
    from ..search.files import HEADER, Header

    header = Header.read(output) if (output / HEADER).exists() else None
    name = model or (ENCODER if header is None else MotionIndex.open(output).model_name)
    paths = [Path(source) for source in sources]
    refuse_unreadable(paths, name, reading)
    errors = Errors()
    usual = WindowOptions() if header is None else header
    options = WindowOptions(
        window=usual.window if window is None else window,
        stride=stride if stride is not None else usual.stride if window is None else WindowOptions.stride,
        each_person=per_person or usual.each_person,
        reading=reading,
        batch_size=computing.batch_size,
        on_error=errors,
    )
    engine = load_engine(name, reading, computing, head=False)
    made = MotionIndex.build(paths, output, engine, options=options, progress=True)
    say(f"{output}: {made.num_recordings} recordings by {name}; {made.about}")
    errors.finish()


@grouped
def search(
    index: Annotated[Path, typer.Argument(help="Folder of 'usdrl index'.")],
    query: Annotated[Path, typer.Argument(help=f"A skeleton file {RECORDINGS}, or a data set or store with --name.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name or index (from 0) of the recording in the file.")] = None,
    start: Annotated[float, typer.Option("--from", help="Second of the query to begin at.")] = 0.0,
    end: Annotated[float | None, typer.Option("--to", help="Second of the query to end at.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of hits.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Also write the hits as .csv or .json, or a page of moving skeletons (.html).")
    ] = None,
    model: IndexModel = None,
    reading: Reading,
    computing: ModelOptions,
) -> None:
    """Find the moments in an index that are most like a recording, or a part of it."""
    from ..search.index import MotionIndex
    from ..visualize.page import check_output
    from ..visualize.recording import find_recording
    from ..visualize.search import draw_hits

    if output is not None:
        check_output(output, (".csv", ".json", ".html"), "hits are written")
    opened = MotionIndex.open(index)
    engine = load_engine(model or opened.model_name, reading, computing, head=False)
    opened.check_model(engine)
    extractor = engine.extractor
    reading = reading.with_defaults(extractor.source_layout or extractor.layout, extractor.missing)
    sequence = find_recording(query, name, reading).sequence
    part: dict[str, Any] = {"start": start, "end": end}
    hits = opened.search(sequence, engine, **part, top_k=top_k, source=query, batch_size=computing.batch_size)
    if output is not None and output.suffix.lower() == ".html":
        shown = opened.prepared(sequence, engine, **part).shown
        about = f"{opened.about}; by {opened.header.maker.name}"
        draw_hits(shown, hits, opened.read(hits, engine), output, about)
    elif output is not None:
        _written(output, "hits", [hit.to_dict() for hit in hits])
    if as_json:
        print(
            json.dumps(
                {"index": str(index), "query": sequence.name, "hits": [hit.to_dict() for hit in hits]}, indent=2
            )
        )
        return
    say(f"{len(opened)} windows of {opened.num_recordings} recordings; {opened.about}\n")
    print_table([["recording", "from", "to", "score", "label"], *(_cells(hit) for hit in hits)])
    if output is not None:
        say(f"\nwritten: {output}")


def _cells(hit: Hit) -> list[str]:
    times = [str(hit.start), str(hit.end)]
    if hit.fps is not None:
        times = [f"{frame / hit.fps:.2f} s" for frame in (hit.start, hit.end)]
    return [hit.recording, *times, f"{hit.score:.3f}", hit.label or ""]


def _written(path: Path | None, name: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as a table or as JSON, where a file is named."""
    from ..files import new_file

    if path is None:
        return
    with new_file(path) as partial:
        if path.suffix.lower() == ".json":
            partial.write_text(json.dumps({name: rows}, indent=2) + "\n", "utf-8")
            return
        with open(partial, "w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [name])
            writer.writeheader()
            writer.writerows(rows)


Rows = Annotated[Path | None, typer.Option(help="Also write all rows as .csv or .json.")]
Data = Annotated[str, typer.Argument(help=LABELLED)]


def _opened(path: str, output: Path | None) -> SkeletonData:
    from ..data.dataset import open_data
    from ..visualize.page import check_output

    if output is not None:
        check_output(output, (".csv", ".json"), "rows are written")
    return open_data(path)


@grouped
def duplicates(
    data: Data,
    *,
    model: Model = ENCODER,
    across: Annotated[
        bool, typer.Option("--across-split", help="Only pairs of a training and a test recording: leaks.")
    ] = False,
    max_distance: Annotated[
        float, typer.Option(help="Largest distance of the joints of a copy, in body sizes.")
    ] = 0.08,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    output: Rows = None,
    computing: ModelOptions,
) -> None:
    """Find recordings with the same motion: copies, also cropped at the ends, turned, moved or with noise."""
    from ..search.duplicates import find_copies

    opened = _opened(data, output)
    split = opened.column("split_test")
    sides = None if split is None or split.ndim != 1 else np.asarray(split).astype(bool)
    if across and sides is None:
        raise USDRLError(f"{data}: it has no single split into train and test: leave --across-split out")
    errors = Errors()
    engine = load_engine(model, Reading(), computing, head=False)
    options: dict[str, Any] = {"batch_size": computing.batch_size, "on_error": errors}
    copies = find_copies(opened, engine, max_distance=max_distance, sides=sides if across else None, **options)
    names = opened.names
    rows = []
    for copy in copies:
        row = {"first": names[copy.first], "second": names[copy.second], "distance": round(copy.distance, 4)}
        row |= {"shift": copy.shift, "similarity": copy.similarity}
        if sides is not None:
            row |= {"first_side": _side(sides[copy.first]), "second_side": _side(sides[copy.second])}
        rows.append(row)
    _written(output, "copies", rows)
    if as_json:
        print(json.dumps({"recordings": len(opened), "copies": rows}, indent=2))
    else:
        if rows:
            print_table([list(rows[0]), *([str(value) for value in row.values()] for row in rows)])
            say("")
        leaks = "" if sides is None else f", {_leaks(copies, sides)} test recordings are copies of training recordings"
        say(f"{len(opened)} recordings: {len(rows)} pairs of copies{leaks}")
    errors.finish()


def _side(is_test: bool) -> str:
    return "test" if is_test else "train"


def _leaks(copies: Sequence[Copy], sides: np.ndarray) -> int:
    """Test recordings that are copies of training recordings."""
    pairs = [(copy.first, copy.second) for copy in copies if sides[copy.first] != sides[copy.second]]
    return len({one if sides[one] else other for one, other in pairs})


@grouped
def outliers(
    data: Data,
    *,
    model: Model = ENCODER,
    top_k: Annotated[int, typer.Option(min=1, help="Number of recordings shown.")] = 10,
    neighbours: Annotated[int, typer.Option(min=1, help="Nearest recordings whose distances are averaged.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    output: Rows = None,
    computing: ModelOptions,
) -> None:
    """Show the recordings that are least like the others: rare movements, wrong units, people who were lost."""
    from ..search.duplicates import find_outliers

    opened = _opened(data, output)
    errors = Errors()
    engine = load_engine(model, Reading(), computing, head=False)
    options: dict[str, Any] = {"batch_size": computing.batch_size, "on_error": errors}
    found = find_outliers(opened, engine, neighbours=neighbours, **options)
    names, labels = opened.names, opened.column("labels")
    rows = []
    for entry in found:
        row: dict[str, Any] = {"recording": names[entry.index], "distance": round(entry.distance, 4)}
        row |= {"times_the_median": round(entry.ratio, 2), "nearest": names[entry.nearest]}
        if labels is not None:
            row["label"] = opened.class_names[labels[entry.index]] if labels[entry.index] >= 0 else ""
        rows.append(row)
    _written(output, "outliers", rows)
    if as_json:
        print(json.dumps({"recordings": len(opened), "outliers": rows[:top_k]}, indent=2))
    else:
        near = min(neighbours, len(rows) - 1)
        say(f"{len(rows)} recordings by their mean cosine distance to the {near} nearest others\n")
        print_table([list(rows[0]), *([str(value) for value in row.values()] for row in rows[:top_k])])
    errors.finish()
