"""The command 'demo'."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..errors import OutputError
from ..facts.checkpoints import ENCODER, RECOGNISER
from ..sequence import SkeletonSequence
from .tables import print_predictions


def demo(
    output_dir: Annotated[
        Path, typer.Option(help="Folder for a page, a picture, embeddings and sample recordings.")
    ] = Path("demo-output"),
) -> None:
    """Run the shipped models on real clips of people that they were not trained on."""
    from ..data.samples import load_samples, sample_path
    from ..inference.archive import write_embeddings
    from ..inference.embedding import iter_embeddings
    from ..inference.engine import Engine
    from ..inference.prediction import iter_predictions
    from ..visualize.recording import render

    if output_dir.exists() and not output_dir.is_dir():
        raise OutputError(f"{output_dir}: it is a file: name a folder")
    model = Engine.load(RECOGNISER)
    # Of clips that are known to show its movements, the model names one.
    predictions = list(iter_predictions(load_samples(), model, threshold=0))
    shown = [p for p in predictions if not p.sequence.name.endswith("_inc") and p.sequence.subject in (2, 4)]
    print_predictions(shown, RECOGNISER, predictions[0].class_names, 1, truth=True)
    right = sum(int(p.probabilities.argmax()) == p.sequence.label for p in predictions)
    people = Counter(p.sequence.subject for p in predictions)
    print(
        f"\n{right} of {len(predictions)} clips right ({len(shown)} shown): {len(people)} people not in the training "
        "data, each movement done correctly and incorrectly"
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample_path(), output_dir / "uiprmd-samples.npz")
    stream = iter_embeddings(load_samples(), model)
    embeddings = output_dir / "embeddings.npz"
    write_embeddings(stream, embeddings)
    _write_recordings(output_dir / "recordings")
    page = output_dir / "prediction.html"
    render(predictions[0].sequence, page, model, gallery=load_samples(), top_k=3)
    similar = output_dir / "nearest.png"
    _show_nearest(similar)
    print(f"\nwritten: {embeddings}, {similar}, {output_dir / 'recordings'}\nopen in a browser: {page}")


def _write_recordings(folder: Path) -> None:
    """Write a folder per class with a file per recording, as users have them."""
    from ..data.samples import load_samples
    from ..data.writing import write_skeleton

    names = {"deep squat": "squat", "side lunge": "lunge", "standing shoulder abduction": "raise"}
    samples = load_samples()
    for clip in samples:
        movement = names.get(samples.class_names[clip.label or 0])
        if movement is not None and not clip.name.endswith("_inc"):
            path = folder / movement / f"{clip.name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_skeleton(replace(clip, label=None), path, overwrite=True)


def _show_nearest(picture: Path) -> None:
    """Find the most similar clips of other people for each movement of one person, recorded by another sensor."""
    from ..data.samples import load_samples
    from ..inference.engine import Engine
    from ..visualize.pictures import Picture, draw_rows
    from ..visualize.recording import nearest_clips
    from ..visualize.scene import Scene

    sensor = "kinect20"
    engine = Engine.load(ENCODER, head=False)
    # The simulated sensor has half of the frame rate and 20 joints of its own.
    asked = [
        replace(seen, keypoints=seen.keypoints[::2], fps=(clip.fps or 0) / 2 or None)
        for clip in load_samples()
        if clip.subject == 2 and not clip.name.endswith("_inc") and (seen := clip.to_layout(sensor))
    ]
    gallery = load_samples()
    gallery = gallery.select(np.array([clip.subject != 2 and not clip.name.endswith("_inc") for clip in gallery]))
    print(f"\n{ENCODER}: nearest clips of four people to each movement of a fifth, given as {sensor} at 17 Hz")
    right = 0
    drawn: list[tuple[SkeletonSequence, str]] = []
    for query in asked:
        found = nearest_clips(query, gallery, engine, top_k=3)
        label = gallery.class_names[query.label or 0]
        right += found[0].label == label
        print(f"  {label:45}" + "; ".join(str(near.label) for near in found))
        if not drawn:
            drawn = [(query, f"{query.name}, {sensor}: {label}")]
            drawn += [(near.sequence, f"{near.sequence.name}: {near.label}") for near in found]
    print(f"{right} of {len(asked)} nearest clips show the same movement")
    draw_rows([Picture(Scene.of(clip), title) for clip, title in drawn], picture)
