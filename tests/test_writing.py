"""What `write_skeleton` writes, `read_skeleton` reads back equal."""

import json

import numpy as np
import pytest

from usdrl_hub import LAYOUTS, Layout, Reading, SkeletonSequence, get_layout, iter_skeletons, read_skeleton
from usdrl_hub import write_skeleton as write
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.data.writing import WRITABLE, in_layout
from usdrl_hub.errors import OutputError, SkeletonFormatError, USDRLWarning

from .helpers import run, walking

SEEDS = range(40)
FIELDS = ("name", "fps", "label", "subject", "camera", "setup", "up", "units", "coordinates", "mirrored")
FIELDS += ("image_shape", "split")


def drawn(seed: int) -> SkeletonSequence:
    """A recording of any layout with gaps, empty frames, people who come and go, and any of the fields."""
    draw = np.random.default_rng(seed)
    layout = get_layout(str(draw.choice(list(LAYOUTS))))
    if seed % 5 == 0:
        layout = Layout("mine", ("hip", "knee, left", "toe"), ((1, 0), (2, 1)), center=0, up="z")
    coordinates = str(draw.choice(["3d", "2d", "2d+score"]))
    frames, people = draw.integers(1, 9), draw.integers(1, 4)
    points = draw.normal(size=(frames, people, layout.num_joints, 2 if coordinates == "2d" else 3)).astype(np.float32)
    if coordinates == "2d+score":
        points[..., 2] = draw.random(points.shape[:-1])
    points[draw.random(points.shape[:-1]) < 0.2] = 0
    points[draw.random((frames, people)) < 0.3] = 0
    points[[0, -1]] *= draw.random() < 0.7
    points[:, -1] *= draw.random() < 0.9
    points[frames // 2, 0, 0] = 1

    def one_of(*values):
        return values[draw.integers(len(values))]

    fields = {"name": one_of("a", "b, c", 'ü "x"'), "fps": one_of(None, 30.0, 30000 / 1001, 0.5)}
    fields |= {"label": one_of(None, 3), "subject": one_of(None, 4, "ada"), "camera": one_of(None, 1)}
    fields |= {"setup": one_of(None, 2), "split": one_of(None, "train", "test")}
    fields["events"] = one_of(None, np.zeros((0, 3)), np.array([[1, 0, 1], [0, 0, frames]]))
    if coordinates == "3d":
        fields |= {"up": one_of(None, "z", "-y"), "units": one_of("m", "cm"), "mirrored": one_of(False, False, True)}
    else:
        fields["image_shape"] = one_of(None, (1080.0, 1920.5))
    return SkeletonSequence(points, layout, coordinates=coordinates, **fields)


def in_metres(sequence: SkeletonSequence) -> np.ndarray:
    """Keypoints as forms without units and axes hold them."""
    keypoints = sequence.keypoints * np.float32(0.01 if sequence.units == "cm" else 1)
    keypoints[..., 0] *= -1 if sequence.mirrored else 1
    return keypoints


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_written_is_read_back_equal(tmp_path, seed, suffix):
    written, path = drawn(seed), tmp_path / f"walk{suffix}"
    try:
        reading = write(written, path)
    except SkeletonFormatError as error:
        assert suffix in (".csv", ".npy") and "write .npz" in str(error) and not list(tmp_path.iterdir())
        is_unnamed = written.layout.name == "mine"
        is_unusual = suffix == ".npy" and (written.coordinates == "3d") != written.layout.is_3d
        assert is_unnamed or is_unusual
        return
    found = read_skeleton(path, reading)
    assert get_layout(found.layout) == written.layout and found.coordinates == written.coordinates
    if suffix in (".npz", ".json"):
        assert reading == Reading()
        assert [getattr(found, name) for name in FIELDS] == [getattr(written, name) for name in FIELDS]
        assert (found.events is None) == (written.events is None)
        assert found.events is None or found.events.tolist() == written.events.tolist()
        np.testing.assert_array_equal(found.keypoints, written.keypoints)
        return
    kept = ("fps", "up", "image_shape")
    assert [getattr(found, name) for name in kept] == [getattr(written, name) for name in kept]
    # A table has no row of people who are never seen.
    seen = written.keypoints.any((0, 2, 3)) if suffix == ".csv" else slice(None)
    # Landmarks of MediaPipe are moved off the origin by less than a micrometre.
    atol = 1e-6 if written.layout.name == "mediapipe33" else 0
    np.testing.assert_allclose(found.keypoints, in_metres(written)[:, seen], rtol=0, atol=atol)


def test_most_of_the_drawn_recordings_can_be_written_as_tables():
    named = [drawn(seed) for seed in SEEDS]
    assert sum(sequence.layout.name != "mine" for sequence in named) > 25
    assert {sequence.coordinates for sequence in named} == {"3d", "2d", "2d+score"}


def test_several_recordings_go_into_one_npz(tmp_path):
    clips = [*load_samples()[:3]]
    write(clips, tmp_path / "clips.npz")
    found = list(iter_skeletons(tmp_path / "clips.npz"))
    assert [(one.name, one.label, one.fps) for one in found] == [(one.name, one.label, one.fps) for one in clips]
    for one, clip in zip(found, clips, strict=True):
        np.testing.assert_array_equal(one.keypoints, clip.keypoints)
    with pytest.raises(SkeletonFormatError, match="3 recordings fit into one .npz file only"):
        write(clips, tmp_path / "clips.json")
    with pytest.raises(SkeletonFormatError, match="'walking' differ in layout"):
        write([clips[0], walking()], tmp_path / "other.npz")
    with pytest.raises(SkeletonFormatError, match="there is no recording"):
        write([], tmp_path / "none.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["clips.npz"]


def test_files_are_not_overwritten_unless_asked(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write(walking(), path)
    assert path.read_text() == "mine"
    reading = write(walking(), path, overwrite=True)
    assert read_skeleton(path, reading).num_frames == 40
    with pytest.raises(ValueError, match=r"written as .npz, .json, .csv, .npy"):
        write(walking(), tmp_path / "a.txt")


def test_unseen_joints_stay_unseen_in_another_layout():
    points = walking().keypoints.copy()
    names = get_layout("ntu25").joint_names
    points[5, 0, names.index("left_ankle")] = 0
    found = in_layout(SkeletonSequence(points, "ntu25"), "kinect20")
    ankle = found.keypoints[:, 0, get_layout("kinect20").joint_names.index("left_ankle")]
    assert not ankle[5].any() and ankle[[4, 6]].any(-1).all()


@pytest.mark.parametrize(
    "sequence, layout, sentence",
    [
        (walking(), "coco17", "it is 3D, but layout 'coco17' is of 2D keypoints: a camera"),
        (SkeletonSequence(np.ones((2, 1, 17, 2)), "coco17"), "ntu25", "it is 2D, but layout 'ntu25' is of 3D"),
        (SkeletonSequence(np.ones((2, 1, 15, 3)), "sbu15"), "opencap51", "cannot be converted"),
    ],
)
def test_what_cannot_be_converted_is_a_sentence(sequence, layout, sentence):
    with pytest.raises(SkeletonFormatError, match=sentence):
        in_layout(sequence, layout)


def test_what_a_json_file_says_in_vain_is_reported(tmp_path):
    path = tmp_path / "a.json"
    said = {"layout": "grid", "up": "north", "label": "wave", "fps": 25, "name": 7, "subject": "ada", "units": "cm"}
    path.write_text(json.dumps({"keypoints": np.ones((3, 25, 3)).tolist(), **said}))
    with pytest.warns(USDRLWarning) as caught:
        found = read_skeleton(path, layout="ntu25")
    assert sorted(str(item.message).split("'")[1] for item in caught) == ["label", "layout", "name", "up"]
    assert (found.fps, found.subject, found.name, found.label, found.units) == (25, "ada", "a", None, "cm")


def test_the_command_converts_and_says_how_to_read_the_file(capsys, tmp_path):
    source = tmp_path / "walk.npz"
    write(walking(12, fps=12.5, up="z"), source)
    code, out, err = run(capsys, "write", source, "--output", tmp_path / "a.csv", "--to-layout", "kinect20")
    assert code == 0 and err == ""
    assert out.splitlines() == [
        f"{tmp_path / 'a.csv'}: 1 recording, 12 frames, 1 person, layout kinect20",
        "  read it with --layout kinect20 --up y --fps 12.5",
    ]
    code, out, _ = run(capsys, "write", sample_path(), "--output", tmp_path / "b.json", "--name", "m01_s02_e05")
    assert code == 0 and len(out.splitlines()) == 1 and read_skeleton(tmp_path / "b.json").num_frames == 86
    code, out, _ = run(capsys, "write", sample_path(), "--output", tmp_path / "c.npz", "--to-layout", "ntu25")
    assert code == 0 and "100 recordings" in out and len(list(iter_skeletons(tmp_path / "c.npz"))) == 100


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("SOURCE --output SOURCE", "it exists already"),
        ("none.csv --output a.csv", "none.csv: there is no such file"),
        ("SOURCE --output a.csv", "100 recordings fit into one .npz file only"),
        ("SOURCE --output a.csv --name nobody", "none of its 100 recordings is called 'nobody'"),
        (". --output a.npz", "it is a folder"),
        ("SOURCE --output a.npz --to-layout coco17", "is of 2D keypoints"),
        ("SOURCE --output a.npz --to-layout none.json", "none.json: it cannot be read"),
        ("SOURCE --output a.mat", "a recording is written as"),
    ],
)
def test_wrong_input_of_the_command_is_a_sentence(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    given = [str(sample_path()) if word == "SOURCE" else word for word in arguments.split()]
    code, out, err = run(capsys, "write", *given)
    assert code == 2 and out == "" and sentence in err and len(err.splitlines()) == 1 and not list(tmp_path.iterdir())
