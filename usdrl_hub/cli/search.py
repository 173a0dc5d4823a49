"""The commands 'index' and 'search'."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..data.reading import Reading
from .inputs import refuse_unreadable
from .messages import Errors
from .models import load_engine
from .options import RECORDINGS, ModelOptions, PerPerson, complete_model, grouped
from .tables import print_table, say

if TYPE_CHECKING:
    from ..search.hits import Hit

_COLUMNS = ("recording", "source", "start", "end", "from", "to", "score", "label", "windows")
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
    from ..facts.checkpoints import ENCODER
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
        _write_hits(hits, output)
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


def _write_hits(hits: list[Hit], path: Path) -> None:
    """Write hits as a table or as JSON."""
    from ..files import new_file

    rows = [hit.to_dict() for hit in hits]
    with new_file(path) as partial:
        if path.suffix.lower() == ".json":
            partial.write_text(json.dumps({"hits": rows}, indent=2) + "\n", "utf-8")
            return
        with open(partial, "w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
