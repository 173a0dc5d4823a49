"""Draws recognition.gif of the README: four recordings of one person, one after the other, with the model's answers.

    python docs/pictures/recognition.py

The recordings ship with the package (UI-PRMD, public domain); the person is not in the model's training data.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from usdrl_hub.data.samples import load_samples
from usdrl_hub.facts.checkpoints import RECOGNISER
from usdrl_hub.inference.engine import Engine
from usdrl_hub.inference.timeline import make_timeline
from usdrl_hub.visualize.pictures import draw_animation
from usdrl_hub.visualize.recording import Recording, RecordingView
from usdrl_hub.visualize.scene import frames_to_draw

PERSON, MOVEMENTS = 6, ("deep squat", "side lunge", "standing shoulder abduction", "inline lunge")
MAX_BYTES = 2_000_000


def draw(path: Path) -> None:
    """Write the animation."""
    samples = load_samples()
    clips = [
        clip
        for movement in MOVEMENTS
        for clip in samples
        if clip.subject == PERSON
        and samples.class_names[clip.label] == movement
        and not clip.name.endswith("_inc")  # done incorrectly
    ]
    assert len(clips) == len(MOVEMENTS)
    film = replace(clips[0], keypoints=np.concatenate([clip.keypoints for clip in clips]), name="", label=None)
    film = film.to_layout("ntu25")
    timeline = make_timeline(Engine.load(RECOGNISER), film)
    timeline = replace(timeline, segments=timeline.runs(), overall=None)
    picture = RecordingView(Recording(film), timeline, [], RECOGNISER).picture()
    picture = replace(picture, title=f"{RECOGNISER}, a person not in its training data")
    frames, fps = frames_to_draw(film.num_frames, picture.scene.rate, 300, 13.0)
    draw_animation(picture, path, frames, fps)
    assert path.stat().st_size < MAX_BYTES


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".gif"))
