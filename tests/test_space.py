"""The template of a Space in docs/space/, run with the real gradio."""

import re
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import yaml

from usdrl_hub.data.samples import load_samples

FOLDER = Path(__file__).parent.parent / "docs" / "space"


def test_the_template_has_what_a_space_needs():
    card = (FOLDER / "README.md").read_text("utf-8")
    about = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.S)[1])
    assert about["sdk"] == "gradio" and (FOLDER / about["app_file"]).is_file() and about["license"] == "apache-2.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["sdk_version"]) and about["models"] == ["usdrl/tiny-uiprmd"]
    assert (FOLDER / "requirements.txt").read_text().split() == ["usdrl-hub[video]"]
    assert len((FOLDER / "app.py").read_text("utf-8").splitlines()) <= 80


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    pytest.importorskip("gradio", reason="needs pip install gradio, which is no dependency")
    pytest.importorskip("onnxruntime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        spec = util.spec_from_file_location("space_app", FOLDER / "app.py")
        module = util.module_from_spec(spec)
        patch.setitem(sys.modules, "space_app", module)
        spec.loader.exec_module(module)
        module.demo.queue().launch(prevent_thread_lock=True, server_name="127.0.0.1", quiet=True, show_error=True)
        yield module
        module.demo.close()


@pytest.mark.slow
def test_a_film_sent_to_the_app_comes_back_as_classes_segments_and_skeletons(app, shared_data):
    from gradio_client import Client, handle_file

    film = shared_data / "ntu_rgbd_samples" / "S001C001P001R001A001_rgb.avi"
    client = Client(app.demo.local_url, verbose=False)
    classes, segments, page = client.predict(handle_file(film), True, api_name="/recognise")
    names = load_samples().class_names
    told = {each["label"]: each["confidence"] for each in classes["confidences"]}
    assert classes["label"] in told and set(told) <= set(names) and sum(told.values()) == pytest.approx(1, abs=0.2)
    assert segments["headers"] == app.HEADERS and segments["data"] and segments["data"][0][0] in names
    assert re.fullmatch(r"\d+\.\d\d s", segments["data"][-1][2]) and "<iframe srcdoc=" in page


@pytest.mark.slow
def test_a_film_that_cannot_be_read_gets_a_sentence(app, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "empty.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 160, 120
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((120, 160, 3), 90, np.uint8), "rgb24")))
        container.mux(stream.encode())
    client = Client(app.demo.local_url, verbose=False)
    with pytest.raises(AppError, match="the film: no person is found in its 10 pictures"):
        client.predict(handle_file(tmp_path / "empty.mp4"), False, api_name="/recognise")
    with pytest.raises(AppError, match="Record or upload a film first"):
        client.predict(None, False, api_name="/recognise")
