"""The commands 'render' and 'map'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..data.readers import is_video
from ..data.reading import Reading
from ..errors import printable
from ..facts.checkpoints import ENCODER
from ..facts.outputs import MAP_SUFFIXES, PROJECTIONS, RENDER_SUFFIXES
from ..persons import PersonSelection
from ..sequence import interpolate_missing
from .messages import Errors
from .models import load_engine, video_reading
from .needs import check_threshold
from .options import (
    RECORDINGS,
    Model,
    ModelOptions,
    VideoOptions,
    complete_model,
    grouped,
    join_or,
)
from .tables import say


@grouped
def render(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(help=f"A skeleton file {RECORDINGS}, a data set or store with --name, or a video."),
    ],
    *,
    output: Annotated[
        Path, typer.Option(help=f"File to write: {join_or(RENDER_SUFFIXES)} (page, animation, stills).")
    ],
    videos: VideoOptions,
    name: Annotated[str | None, typer.Option(help="Name or index (from 0) of the recording in the file.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete_model,
            help="Checkpoint for predictions: a name, a folder, or an ensemble of several, joined by commas.",
        ),
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Data set (.npz or store) to search for the nearest clips.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of nearest clips.")] = 5,
    threshold: Annotated[float | None, typer.Option(help="See 'usdrl predict'.")] = None,
    reading: Reading,
    computing: ModelOptions,
) -> None:
    """Render a recording as an interactive page, GIF or PNG, with per-frame predictions."""
    from ..visualize.page import check_output
    from ..visualize.recording import Recording, find_recording
    from ..visualize.recording import render as render_recording

    check_output(output, RENDER_SUFFIXES, "a recording is drawn")
    errors = Errors()
    engine = None
    if model is not None:
        engine = load_engine(model, reading, computing)
        check_threshold(context, engine.model)
        extractor = engine.extractor
        reading = reading.with_defaults(extractor.source_layout or extractor.layout, extractor.missing)
    if is_video(file):
        reader = None if engine is None else engine.extractor
        found = Recording(video_reading(videos, computing.device, reader).read(file, reader))
    else:
        found = find_recording(file, name, reading)
    sequence = PersonSelection(track=computing.relink).tracked(found.sequence)
    sequence = interpolate_missing(sequence) if reading.missing == "interpolate" else sequence
    drawn = render_recording(
        Recording(sequence, found.class_names),
        output,
        engine,
        gallery=gallery,
        top_k=top_k,
        threshold=threshold,
        batch_size=computing.batch_size,
        on_error=errors,
    )
    rate = "" if drawn.fps is None else f" at {drawn.fps:g} frames per second"
    top = "" if drawn.top is None else f"; {drawn.top[0]} {100 * drawn.top[1]:.1f} %"
    say(
        f"{output}: {drawn.frames} of {sequence.num_frames} frames of {printable(sequence.name)}{rate}{printable(top)}"
    )
    errors.finish()


@grouped
def map_command(
    source: Annotated[Path, typer.Argument(help="A data set, a store, or a folder of recordings.")],
    *,
    output: Annotated[Path, typer.Option(help=f"File to write: {join_or(MAP_SUFFIXES)} (page, picture).")],
    model: Model = ENCODER,
    projection: Annotated[
        str,
        typer.Option(help=f"{join_or(PROJECTIONS)}; tsne preserves neighbours and needs the extra 'map'."),
    ] = "pca",
    max_recordings: Annotated[int, typer.Option(help="Of more recordings, a random sample of this size is shown.")] = (
        5000
    ),
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    reading: Reading,
    computing: ModelOptions,
) -> None:
    """Draw recordings as points, similar ones near each other, coloured by class."""
    from ..visualize.map import draw_map
    from ..visualize.page import check_output

    check_output(output, MAP_SUFFIXES, "a map is drawn")
    errors = Errors()
    made = draw_map(
        source,
        output,
        load_engine(model, reading, computing, head=False),
        projection=projection,
        max_recordings=max_recordings,
        seed=seed,
        reading=reading,
        batch_size=computing.batch_size,
        on_error=errors,
    )
    say(f"{output}: {len(made.names)} recordings of {len(set(made.labels.tolist()) - {-1})} classes. {made.about}")
    errors.finish()
