"""The command 'demo'."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..facts.checkpoints import ENCODER, RECOGNISER
from ..sequence import SkeletonSequence
from .tables import print_predictions


def demo(
    output_dir: Annotated[Path, typer.Option(help="Folder for embeddings, picture and sample clips.")] = Path(
        "demo-output"
    ),
) -> None:
    """Run the shipped models on real clips of people that they were not trained on."""
    from ..data.samples import load_samples, sample_path
    from ..inference.archive import write_embeddings
    from ..inference.embedding import iter_embeddings
    from ..inference.prediction import iter_predictions
    from ..loading import load_feature_extractor
    from ..visualize.pictures import draw_clip

    model = RECOGNISER
    # Of clips that are known to show its movements, the model names one.
    predictions = list(iter_predictions(load_samples(), model, threshold=0))
    shown = [p for p in predictions if not p.sequence.name.endswith("_inc") and p.sequence.subject in (2, 4)]
    print_predictions(shown, model, predictions[0].class_names, 3, truth=True)
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
    first = predictions[0]
    extractor = load_feature_extractor(model)
    label, probability = first.top(1)[0]
    title = f"{first.sequence.name}: {label} ({100 * probability:.0f} %)"
    picture = output_dir / "prediction.png"
    draw_clip(extractor(first.sequence).keypoints[0], extractor.layout, title, picture)
    similar = output_dir / "nearest.png"
    _show_nearest(similar)
    print(f"\nwritten: {embeddings}, {picture}, {similar}\ntry: usdrl predict {output_dir / 'uiprmd-samples.npz'}")


def _show_nearest(picture: Path) -> None:
    """Find the most similar clips of other people for each movement of one person, recorded by another sensor."""
    from ..data.samples import load_samples
    from ..inference.engine import Engine
    from ..visualize.pictures import draw_clips
    from ..visualize.recording import nearest_clips

    sensor = "kinect20"
    engine = Engine.load(ENCODER, head=False)
    extractor = engine.extractor
    # The simulated sensor has half of the frame rate and 20 joints of its own.
    asked = [
        replace(seen, keypoints=seen.keypoints[::2], fps=None)
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
    draw_clips([(extractor(clip).keypoints[0], title) for clip, title in drawn], extractor.layout, picture)
