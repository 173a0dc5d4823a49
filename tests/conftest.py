"""Shared fixtures. The environment is set before any import of huggingface_hub, which reads it once."""

import os
import tempfile
from pathlib import Path

from .browser import Browser, find_browser
from .loopback_hub import LoopbackHub, reserve_port

# The port stays ours, and refuses connections, while no test wants a hub: no test ever speaks to another machine.
_PORT, _RESERVED = reserve_port()
_HOME = tempfile.mkdtemp(prefix="usdrl-tests-")
os.environ |= {
    "HF_HOME": _HOME,
    "USDRL_HOME": f"{_HOME}/usdrl",
    "HF_ENDPOINT": f"http://127.0.0.1:{_PORT}",
    "NO_PROXY": "127.0.0.1,localhost",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
os.environ.pop("HF_TOKEN", None)

import huggingface_hub  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

GOLDENS = Path(__file__).parent / "goldens"
# Real data of the project's developers; never needed to pass, since the goldens lie here.
SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def golden():
    """Load a golden file by name."""
    return lambda name: np.load(GOLDENS / f"{name}.npz")


@pytest.fixture
def in_three_forms(tmp_path):
    """Write arrays of a data set in all forms, see `three_forms.InThreeForms`."""
    from .three_forms import InThreeForms

    return lambda arrays: InThreeForms.write(arrays, tmp_path / f"forms-{len(list(tmp_path.glob('forms-*')))}")


@pytest.fixture(scope="session")
def shared_data():
    if not (SHARED / "data").is_dir():
        pytest.skip("needs ../shared/data, which is beside the developers' checkout only")
    return SHARED / "data"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine; the client is online, with an empty cache, and has the token of the user "ada"."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with LoopbackHub(_PORT) as hub:
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub
    huggingface_hub.close_session()


@pytest.fixture
def hub_environment(hub, tmp_path):
    """Environment of a process of its own that speaks to that hub."""
    return os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}


@pytest.fixture(scope="session")
def open_page(tmp_path_factory):
    """Opens a page in a window of a size, which it closes at the end."""
    if find_browser() is None:
        pytest.skip("needs chromium and chromedriver, which are not installed")
    folder = tmp_path_factory.mktemp("browser")
    browser = Browser(1280, 800, folder)

    def open(page, width=1280, height=800, dark=False):
        browser.resize(width, height)
        browser.prefer(dark)
        browser.open(page)
        browser.settle()
        return browser

    yield open
    browser.close()


def relative_error(actual, expected) -> float:
    """Largest difference over the largest expected magnitude."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def to_clips(array: np.ndarray) -> torch.Tensor:
    """The goldens' (N, C, T, V, M) as (B, T, M, V, C)."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 2, 4, 3, 1)))


def write_ntu(path: Path, keypoints: np.ndarray) -> Path:
    """Write keypoints (T, M, 25, 3) as an NTU .skeleton file; persons who are all zero in a frame are left out."""
    lines = [str(len(keypoints))]
    for frame in keypoints:
        bodies = [body for body in frame if body.any()]
        lines.append(str(len(bodies)))
        for number, body in enumerate(bodies):
            lines += [f"7205759403793710{number} 0 1 1 1 1 0 0.02 0.05 2", "25"]
            lines += [" ".join([*map(repr, map(float, joint)), *["0.5"] * 8, "2"]) for joint in body]
    path.write_text("\n".join(lines) + "\n")
    return path
