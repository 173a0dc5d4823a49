"""``.pose`` files: MediaPipe and OpenPose as the package pose-format writes them."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from usdrl_hub import SkeletonFormatError, get_layout, iter_skeletons, read_skeleton
from usdrl_hub.errors import USDRLWarning

from ..fuzz_families import family
from .clip import SHARED, is_upright, landmarks, needs_shared, pixels, same_squat

REASON = "needs the extra 'pose'"


def pose_file(path: Path, parts: dict[str, list[str]], points: np.ndarray, scores: np.ndarray) -> Path:
    """Write points ``(T, M, V, 2 or 3)`` of components with the package."""
    pose_format = pytest.importorskip("pose_format", reason=REASON)
    header = pytest.importorskip("pose_format.pose_header", reason=REASON)
    body = pytest.importorskip("pose_format.numpy", reason=REASON).NumPyPoseBody(25, points, scores)
    form = "XYZC" if points.shape[-1] == 3 else "XYC"
    components = [header.PoseHeaderComponent(name, names, [], [], form) for name, names in parts.items()]
    size = header.PoseHeaderDimensions(1920, 1080, 0)
    content = io.BytesIO()
    pose_format.Pose(header.PoseHeader(0.1, size, components), body).write(content)
    path.write_bytes(content.getvalue())
    return path


def names_of(layout: str) -> list[str]:
    return [name.upper() for name in get_layout(layout).joint_names]


def test_world_landmarks_are_in_metres_and_y_down(tmp_path):
    points = np.concatenate([landmarks()[:, None], np.ones((86, 1, 2, 3))], axis=2)
    parts = {"POSE_WORLD_LANDMARKS": names_of("mediapipe33"), "FACE_LANDMARKS": ["0", "1"]}
    found = read_skeleton(pose_file(tmp_path / "a.pose", parts, points, np.ones(points.shape[:3])))
    assert (found.layout.name, found.fps, found.up, found.coordinates) == ("mediapipe33", 25, "-y", "3d")
    same_squat(found, by_way_of="mediapipe33")


def test_keypoints_in_the_image_have_scores_and_may_be_unseen(tmp_path):
    points, scores = pixels("openpose25")[:, None], np.full((86, 1, 25), 0.5)
    scores[3, 0, 7] = 0
    found = read_skeleton(
        pose_file(tmp_path / "a.pose", {"pose_keypoints_2d": names_of("openpose25")}, points, scores)
    )
    assert (found.layout.name, found.coordinates, found.image_shape) == ("openpose25", "2d+score", (1080, 1920))
    assert not found.keypoints[3, 0, 7].any()
    np.testing.assert_allclose(found.keypoints[4, 0, :, :2], points[4, 0], rtol=1e-5)
    is_upright(found)


def test_damaged_files_are_refused_in_a_sentence(tmp_path):
    whole = pose_file(
        tmp_path / "a.pose", {"POSE_LANDMARKS": names_of("mediapipe33")}, pixels("mediapipe33")[:5, None],
        np.ones((5, 1, 33)),
    ).read_bytes()  # fmt: skip
    draw = np.random.default_rng(0)
    outcomes = set()
    for number in range(300):
        content = bytearray(whole[: draw.integers(len(whole))] if number % 3 == 0 else whole)
        for place in draw.integers(max(len(content), 1), size=0 if number % 3 == 0 else draw.integers(1, 9)):
            content[place] = draw.integers(256)
        (tmp_path / "b.pose").write_bytes(content)
        try:
            outcomes.add(next(iter(iter_skeletons(tmp_path / "b.pose"))).layout.name)
        except SkeletonFormatError as error:
            assert str(tmp_path / "b.pose") in str(error)
            outcomes.add("refused")
    assert outcomes == {"mediapipe33", "refused"}


def test_a_file_of_version_0_1_that_was_cut_is_refused(tmp_path):
    pytest.importorskip("pose_format", reason=REASON)
    files = [files["a.pose"] for files in family("pose").seeds]
    whole = next(content for content in files if content[:4] == struct.pack("<f", 0.1))
    (tmp_path / "a.pose").write_bytes(whole)
    assert read_skeleton(tmp_path / "a.pose").num_frames == 3
    # A third of the numbers is lost: two frames are left by their count, and the second's points would be confidences.
    (tmp_path / "a.pose").write_bytes(whole[: -33 * 4 * 4])
    with pytest.raises(SkeletonFormatError, match="damaged .pose file: it has not the frames"):
        read_skeleton(tmp_path / "a.pose")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pose_format", None)
    for name, content in {
        "a.pose": b"\xcd\xcc\xcc\x3d" + bytes(100),
        "b.dat": b"\xcd\xcc\xcc\x3d\xe2\x04\xe2\x04\x80\x02\x04\x00\x0e\x00POSE_LANDMARKS" + bytes(9),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SkeletonFormatError, match=r"pip install 'usdrl-hub\[pose\]'"):
            read_skeleton(tmp_path / name)


@needs_shared
@pytest.mark.filterwarnings("ignore::usdrl_hub.errors.USDRLWarning")
def test_real_files():
    pytest.importorskip("pose_format", reason=REASON)
    with pytest.warns(USDRLWarning, match="of the 33 joints of layout 'mediapipe33' it has 8"):
        found = read_skeleton(SHARED / "pose-format" / "mediapipe.pose")
    assert found.keypoints.shape == (170, 1, 33, 3) and found.fps == 24 and found.image_shape == (1250, 1250)
    found = read_skeleton(SHARED / "pose-format" / "openpose.pose")
    assert found.layout.name == "openpose25" and found.keypoints.shape == (93, 1, 25, 3)
    nose, neck = (found.keypoints[:, 0, get_layout("openpose25").joint_names.index(name)] for name in ("nose", "neck"))
    assert (nose[:, 1] < neck[:, 1]).all()
