"""A Space of the Hugging Face Hub: record or upload a film, see its classes over time and the skeletons in 3D.

The variable USDRL_MODEL of the Space names another recogniser or detector.
"""

import html
import os
import tempfile
from itertools import islice
from pathlib import Path

import gradio as gr
import numpy as np

from usdrl_hub import BlazePoseEstimator, render
from usdrl_hub.inference.engine import Engine
from usdrl_hub.inference.timeline import check_classes, make_timeline, segment_rows
from usdrl_hub.inference.video import open_video

MODEL = os.environ.get("USDRL_MODEL", "usdrl/tiny-uiprmd")
LONGEST = 60  # seconds that are read of a film
HEADERS = ["class", "from", "to", "probability"]

engine = Engine.load(MODEL)
check_classes(engine.model)
# Poses of a 3D model; a model of 2D keypoints needs a PoseEstimator of transformers here.
estimator = BlazePoseEstimator()


def recognise(film: str | None, mirrored: bool) -> tuple[dict[str, float], list[list[str]], str]:
    """Probabilities of the classes, segments, and the page with the skeletons."""
    if film is None:
        raise gr.Error("Record or upload a film first.")
    try:
        images, fps = open_video(film)
        images = islice(images, round(LONGEST * (fps or 30)))
        if mirrored:
            images = (np.ascontiguousarray(image[:, ::-1]) for image in images)
        sequence = estimator.recording(images, fps=fps, name="film", where="the film")
        timeline = make_timeline(engine, sequence)
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "page.html")
            render(sequence, page, engine)
            text = page.read_text("utf-8")
    except ValueError as error:
        # The package's errors are sentences; here they name a temporary file.
        raise gr.Error(str(error).replace(film, "the film")) from None
    scores = timeline.probabilities.mean(0) if timeline.overall is None else timeline.overall
    rows = [
        [row["label"], *(_seconds(row[key]) for key in ("start_seconds", "end_seconds")), f"{row['probability']:.0%}"]
        for row in segment_rows(sequence, timeline)
    ]
    frame = f'<iframe srcdoc="{html.escape(text)}" style="width: 100%; height: 640px; border: 0"></iframe>'
    return dict(zip(timeline.class_names, map(float, scores), strict=True)), rows, frame


def _seconds(time: float | None) -> str:
    return "" if time is None else f"{time:.2f} s"


# Films are deleted after ten minutes.
with gr.Blocks(title=f"{MODEL}: action recognition", analytics_enabled=False, delete_cache=(600, 600)) as demo:
    gr.Markdown(f"# Action recognition by {MODEL}\nThe film is deleted after ten minutes.")
    with gr.Row():
        with gr.Column():
            film = gr.Video(label=f"Film (the first {LONGEST} seconds of it)", sources=["upload", "webcam"])
            mirrored = gr.Checkbox(label="The film is a mirror image, as of many front cameras")
            button = gr.Button("Recognise", variant="primary")
        with gr.Column():
            classes = gr.Label(label="Whole film", num_top_classes=5)
            segments = gr.Dataframe(headers=HEADERS, label="Over time", interactive=False)
    skeletons = gr.HTML()
    button.click(recognise, [film, mirrored], [classes, segments, skeletons], api_name="recognise")

if __name__ == "__main__":
    demo.queue(max_size=10, default_concurrency_limit=1).launch(show_error=True)
