"""Pictures per second of exported pages in a browser.

    python benchmarks/browser.py FILM RUNTIME [--seconds 20] [--output benchmarks/browser.json]

Writes pages of the shipped recogniser (one person) and of the shipped encoder with the sample clips as gallery (up to
two persons), opens them from disk in headless Chromium, with FILM as its camera at 640 x 360, and counts the pictures
that are looked at, model included, after five seconds. RUNTIME is the folder of the npm package onnxruntime-web. The
load of the machine before and after is in the result: judge only figures of a quiet machine.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import av

from usdrl_hub.data.samples import sample_path
from usdrl_hub.facts.checkpoints import ENCODER, RECOGNISER
from usdrl_hub.files import new_file
from usdrl_hub.records import redact_paths, run_record
from usdrl_hub.visualize.live import write_live_page

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.browser import Browser  # noqa: E402

WIDTH, HEIGHT, WARM = 640, 360, 5
# Chromium takes a film for the camera, and asks nobody.
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def write_camera(film: Path, path: Path) -> None:
    """Write a film in the form that Chromium takes for a camera's."""
    with av.open(str(film)) as container, open(path, "wb") as file:
        rate = container.streams.video[0].average_rate
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{rate.numerator}:{rate.denominator} Ip A1:1 C420jpeg\n".encode())
        for frame in container.decode(video=0):
            file.write(b"FRAME\n" + frame.reformat(WIDTH, HEIGHT, "yuv420p").to_ndarray().tobytes())


def measure(page: Path, camera: Path, seconds: float, folder: Path) -> dict[str, float]:
    """Pictures per second of a page, and the share of them with a person."""
    browser = Browser(1280, 800, folder, *CAMERA, f"--use-file-for-fake-video-capture={camera}")
    try:
        started = time.perf_counter()
        browser.open(page)
        browser.wait("model.ready || !$('message').hidden", 120)
        assert not browser.text("#message"), browser.text("#message")
        loaded = time.perf_counter() - started
        browser.click("#camera")
        browser.wait("recording && recording.pictures.length", 30)
        time.sleep(WARM)
        first = browser.run("return recording.pictures.length")
        time.sleep(seconds)
        script = "const all = recording.pictures.slice(arguments[0]); return [all.map(({ time }) => time), "
        times, seen = browser.run(script + "all.filter(({ people }) => people.length).length]", first)
        browser.click("#stop")
        browser.wait("recording.found", 60)
    finally:
        browser.close()
    return {
        "load_seconds": loaded,
        "pictures_per_second": (len(times) - 1) / (times[-1] - times[0]),
        "share_with_person": seen / len(times),
        "page_mb": page.stat().st_size / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("runtime", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    started = time.monotonic()
    results: dict[str, object] = {"load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_camera(options.film, folder / "camera.y4m")
        for name, gallery in ((RECOGNISER, None), (ENCODER, sample_path())):
            page = folder / "page.html"
            write_live_page(name, page, runtime=options.runtime, gallery=gallery)
            profile = folder / name.replace("/", "-")
            profile.mkdir()
            results[name] = measure(page, folder / "camera.y4m", options.seconds, profile)
            print(name, json.dumps(results[name]))
    results["load_after"] = os.getloadavg()[0]
    record = {"table": results, **redact_paths(run_record(started))}
    with new_file(options.output) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
