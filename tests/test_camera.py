"""Live recognition of streams of pictures; a server of this machine stands for the camera."""

import io
import json
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from numpy.testing import assert_allclose

from usdrl_hub import SkeletonFormatError, USDRLStream
from usdrl_hub.facts.checkpoints import ENCODER, RECOGNISER
from usdrl_hub.inference import camera
from usdrl_hub.inference.blazepose import LAYOUT, BlazePoseEstimator
from usdrl_hub.inference.camera import open_camera, watch

from . import stream_servers
from .helpers import run, write_film

av = pytest.importorskip("av")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Folder and address of a server, which sends whatever lies in the folder."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path_factory.mktemp("streams")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def patient(monkeypatch):
    """No picture is left out, however slow this machine is."""
    monkeypatch.setattr(camera, "MAX_DELAY", float("inf"))


@pytest.fixture(scope="module")
def images(shared_data):
    with av.open(str(shared_data / "ntu_rgbd_samples" / "S001C001P001R001A001_rgb.avi")) as container:
        return [frame.reformat(480, 270).to_ndarray(format="rgb24") for frame in container.decode(video=0)][:30]


def test_a_stream_gives_a_line_for_each_result(server, images, patient, capsys):
    folder, address = server
    write_film(folder / "live.ts", images, format="mpegts")
    code, out, err = run(capsys, "predict", "--camera", f"{address}/live.ts", "--json", "--top-k", 3, "--threshold", 0)
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    # 30 pictures at 25 a second are 35 frames at 30; the first result needs a quarter of a clip.
    assert_allclose([row["time"] for row in rows], [15 / 30, 23 / 30, 31 / 30], atol=1e-3)
    assert all(row["persons"] == 1 and len(row["top"]) == 3 for row in rows)
    assert all(row["label"] == row["top"][0]["label"] and -1 <= row["similarity"] <= 1 for row in rows)
    assert all(0 <= each["probability"] <= 1 for row in rows for each in row["top"])
    code, out, err = run(capsys, "predict", "--camera", f"{address}/live.ts", "--top-k", 1, "--threshold", 0)
    assert code == 0 and out.splitlines()[0].startswith("   0.50 s  ") and rows[0]["top"][0]["label"] in out


def test_results_are_those_of_the_stream_of_poses(images):
    pictures = [(number / 30, image) for number, image in enumerate(images[:24])]
    found = list(watch(pictures, RECOGNISER))
    stream = USDRLStream(RECOGNISER, layout=LAYOUT, up="-y", stride=8)
    recording = BlazePoseEstimator(max_persons=1).recording(images[:24], fps=30)
    expected = [result for frame in recording.keypoints if (result := stream.push(frame)) is not None]
    assert [live.time for live in found] == [15 / 30, 23 / 30]
    for live, result in zip(found, expected, strict=True):
        # The model puts the body at the origin, so that its path does not matter.
        assert_allclose(live.result.probabilities, result.probabilities, atol=1e-4)
        assert live.result.frame == result.frame


def test_poses_between_pictures_are_interpolated_but_not_over_a_gap(images):
    pictures = [(number / 10, image) for number, image in enumerate(images[:10])]
    found = list(watch(pictures, RECOGNISER, stride=1))
    # Ten pictures in 0.9 seconds are 28 frames.
    assert_allclose([live.time for live in found], np.arange(15, 28) / 30)
    # In a gap of nine seconds nobody is invented: for a time a clip of 64 frames has no person, and no result.
    found = list(watch([*pictures, (10.0, images[10]), (10.1, images[11])], RECOGNISER, stride=1))
    times = np.array([live.time for live in found])
    assert times[-1] == pytest.approx(10.1) and 6 < np.diff(times).max() < 9
    assert {live.persons for live in found} == {1}


def test_pictures_that_come_too_late_are_left_out(server, monkeypatch):
    folder, address = server
    write_film(folder / "late.ts", [np.full((120, 160, 3), 90, np.uint8)] * 30, format="mpegts")
    monkeypatch.setattr(camera, "MAX_DELAY", 0.0)
    found = []
    for moment, _ in open_camera(f"{address}/late.ts"):
        found.append(moment)
        time.sleep(0.1)
    assert 2 <= len(found) < 25 and np.all(np.diff(found) > 0)


GREYS = [np.full((120, 160, 3), 20 + 5 * number, np.uint8) for number in range(30)]


def test_pictures_of_a_camera_by_rtsp(tmp_path, patient):
    content = write_film(tmp_path / "live.ts", GREYS, format="mpegts").read_bytes()
    with stream_servers.rtsp(content, "secret") as url:
        found = list(open_camera(url))
    assert len(found) >= 28 and found[-1][1].shape == (120, 160, 3)
    assert_allclose(np.diff([moment for moment, _ in found]), 1 / 25, atol=1e-3)


def test_pictures_of_a_camera_by_udp(tmp_path, patient):
    content = write_film(tmp_path / "live.ts", GREYS, format="mpegts").read_bytes()
    with stream_servers.udp(content, 0.5) as url:
        found = [image for _, image in zip(range(10), open_camera(url), strict=False)]
    assert len(found) == 10 and found[0][1].shape == (120, 160, 3)


def test_pictures_of_a_camera_without_a_clock_have_the_times_of_their_arrival():
    """MJPEG; its pictures were taken for 25 a second, so that a slow camera's came too late, and were left out."""
    image = pytest.importorskip("PIL.Image")
    pictures = []
    for grey in GREYS[:12]:
        content = io.BytesIO()
        image.fromarray(grey).save(content, "JPEG")
        pictures.append(content.getvalue())
    found = []
    with stream_servers.mjpeg(pictures, 10) as url, pytest.raises(SkeletonFormatError, match="it broke off after"):
        for moment, picture in open_camera(url):
            found.append((moment, picture.mean()))
    times, greys = np.array(found).T
    numbers = np.round((greys - 20) / 5)
    # The first ones wait while the stream is opened.
    assert len(found) >= 8 and numbers[-1] == 11 and times[-1] > 0.09 * (11 - numbers[1])


def test_what_is_no_stream_gets_a_sentence(server, capsys):
    folder, address = server

    def refused(*words) -> str:
        code, out, err = run(capsys, "predict", *words)
        assert code == 2 and out == "" and err.startswith("usdrl: ") and err.count("\n") == 1
        return err

    assert "name recordings to predict, or a --camera" in refused()
    assert "FILES has no effect with --camera" in refused("film.mp4", "--camera", 0)
    assert "--timeline has no effect with --camera" in refused("--camera", 0, "--timeline")
    assert "--layout has no effect with --camera" in refused("--camera", 0, "--layout", "ntu25")
    assert "'film.mp4' is neither the number of a camera nor the URL" in refused("--camera", "film.mp4")
    assert "is neither the number" in refused("--camera", "file:///etc/passwd")
    assert "/dev/video97: it cannot be opened: No such file" in refused("--camera", 97)
    assert "no-such.ts: it cannot be opened:" in refused("--camera", f"{address}/no-such.ts")
    assert "secret" not in refused("--camera", address.replace("//", "//ada:secret@") + "/no-such.ts")
    assert "--camera is for a single model" in refused("--camera", 0, "--model", f"{RECOGNISER},{RECOGNISER}")
    assert "--camera reads BlazePose" in refused("--camera", 0, "--pose-model", "vitpose", "--detector", "detr")
    (folder / "noise.ts").write_bytes(bytes(range(256)) * 50)
    assert "noise.ts: it cannot be opened" in refused("--camera", f"{address}/noise.ts")
    write_film(folder / "grey.ts", [np.full((120, 160, 3), 90, np.uint8)] * 20, format="mpegts")
    assert "the stream ended without a person in it" in refused("--camera", f"{address}/grey.ts")


def test_an_encoder_has_no_classes_to_print(server, images, patient, capsys):
    folder, address = server
    write_film(folder / "live.ts", images, format="mpegts")
    code, out, err = run(capsys, "predict", "--camera", f"{address}/live.ts", "--model", ENCODER)
    assert code == 2 and out == "" and "usdrl: usdrl/mocap-tiny has no classes" in err


def test_a_playlist_cannot_name_files_of_this_machine(server, images):
    folder, address = server
    film = write_film(folder.parent / "private.ts", images, format="mpegts")
    (folder / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nfile://{film}\n#EXT-X-ENDLIST\n")
    with pytest.raises(SkeletonFormatError, match="cannot be opened|broke off|no pictures"):
        list(open_camera(f"{address}/list.m3u8"))


def test_a_stream_that_breaks_off_gets_a_sentence(server, images, patient):
    folder, address = server
    film = write_film(folder / "whole.avi", images)
    content = film.read_bytes()
    (folder / "cut.avi").write_bytes(content[: len(content) // 2])
    found = []
    try:
        for moment, image in open_camera(f"{address}/cut.avi"):
            found.append(moment)
            assert image.shape == (270, 480, 3)
    except SkeletonFormatError as error:
        assert f"cut.avi: it broke off after {len(found)} pictures" in str(error)
    assert 5 < len(found) < 30 and np.all(np.diff(found) > 0)
