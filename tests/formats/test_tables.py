"""Recordings as tables and as lines of numbers, in any encoding, with any separator, under any ending."""

import json
import shutil

import numpy as np
import pytest

from usdrl_hub import get_layout
from usdrl_hub.data.csv import read_csv
from usdrl_hub.data.formats.foreign import FOREIGN
from usdrl_hub.data.readers import find_recordings, read_skeleton
from usdrl_hub.errors import EmptySequenceError, SkeletonFormatError, USDRLWarning

from .clip import GENERATED, SHARED, is_upright, landmarks, needs_shared, same_squat, squat

SDK = [
    *("SpineBase SpineMid Neck Head ShoulderLeft ElbowLeft WristLeft HandLeft ShoulderRight ElbowRight").split(),
    *("WristRight HandRight HipLeft KneeLeft AnkleLeft FootLeft HipRight KneeRight AnkleRight FootRight").split(),
    *("SpineShoulder HandTipLeft ThumbLeft HandTipRight ThumbRight").split(),
]


def table(names, rows, separator=",", first=("frame",), axes="xyz", form="{joint}_{axis}"):
    head = [*first, *(form.format(joint=name, axis=axis) for name in names for axis in axes)]
    body = [[*(str(number) for _ in first), *map("{:.5f}".format, row.ravel())] for number, row in enumerate(rows)]
    return "\n".join(separator.join(row) for row in [head, *body])


@pytest.mark.parametrize("separator", [",", ";", "\t", "  "])
@pytest.mark.parametrize("form", ["{joint}_{axis}", "{joint}.{axis}", "{joint}{axis}", "{axis}_{joint}"])
def test_names_of_kinects_sdk_are_ntu25(tmp_path, separator, form):
    text = table(SDK, squat(), separator, form=form, axes="XYZ")
    if separator == ";" and "." not in form:
        text = text.replace(".", ",")
    (tmp_path / "a.csv").write_text(text)
    sequence = read_skeleton(tmp_path / "a.csv")
    assert (get_layout(sequence.layout).name, sequence.keypoints.shape) == ("ntu25", (86, 1, 25, 3))
    np.testing.assert_allclose(sequence.keypoints[:, 0], squat(), atol=1e-5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_text_of_any_encoding_and_line_ending(tmp_path, encoding, ends):
    content = table(get_layout("ntu25").joint_names, squat()).replace("\n", ends).encode(encoding)
    numbers = "\n".join(" ".join(map("{:.5f}".format, row.ravel())) for row in squat()).replace("\n", ends)
    for name, text in (("a.CSV", content), ("b.TXT", numbers.encode(encoding))):
        (tmp_path / name).write_bytes(text)
        np.testing.assert_allclose(read_skeleton(tmp_path / name).keypoints[:, 0], squat(), atol=1e-5)
    assert len(find_recordings(tmp_path)) == 2


@pytest.mark.parametrize("case", [str, str.upper, str.title])
def test_landmarks_by_name_are_upright(tmp_path, case):
    names = [case(name.replace("_toes", "_foot_index")) for name in get_layout("mediapipe33").joint_names]
    rows = np.concatenate([landmarks(), np.ones((86, 33, 1))], axis=-1)
    (tmp_path / "a.csv").write_text(table(names, rows, axes=("x", "y", "z", "visibility")))
    same_squat(read_skeleton(tmp_path / "a.csv"), by_way_of="mediapipe33")


@pytest.mark.parametrize("numbered", [0, 1])
def test_landmarks_by_number_in_the_image_are_2d(tmp_path, numbered):
    rows = np.concatenate([landmarks() * 0.4 + (0.5, 0.5, 0), np.full((86, 33, 1), 0.7)], axis=-1)
    names = range(numbered, numbered + 33)
    (tmp_path / "a.csv").write_text(table(names, rows, first=("class",), axes="xyzv", form="{axis}{joint}"))
    sequence = read_skeleton(tmp_path / "a.csv", image_shape=(480, 640))
    assert (get_layout(sequence.layout).name, sequence.coordinates) == ("mediapipe33", "2d+score")
    np.testing.assert_allclose(sequence.keypoints[:, 0, :, 0], rows[..., 0] * 640, rtol=1e-3)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("first", ["frame,", "time,", ""])
def test_a_row_for_each_joint(tmp_path, named, first):
    names = [name.upper() for name in get_layout("mediapipe33").joint_names]
    lines = [f"{first}landmark,x,y,z,visibility"]
    for number, row in enumerate(landmarks()):
        when = {"frame,": f"{number + 10},", "time,": f"{number / 30:.4f},", "": ""}[first]
        for joint, point in enumerate(row):
            # A joint may be missing.
            if (number, joint) != (5, 20):
                lines.append(f"{when}{names[joint] if named else joint}," + ",".join(map(str, point)) + ",0.9")
    (tmp_path / "a.csv").write_text("\n".join(lines))
    sequence = read_skeleton(tmp_path / "a.csv")
    assert sequence.keypoints.shape == (86, 1, 33, 3) and not sequence.keypoints[5, 0, 20].any()
    assert sequence.fps == (pytest.approx(30, rel=0.01) if first == "time," else None)
    assert sequence.up == "-y"
    np.testing.assert_allclose(np.delete(sequence.keypoints[:, 0], 5, 0), np.delete(landmarks(), 5, 0), atol=1e-5)


def lines_of(rows, separator=" ", end=""):
    return "\n".join(separator.join(map("{:.5f}".format, row.ravel())) + end for row in rows)


@pytest.mark.parametrize("separator, end", [(" ", ""), (",", ""), (",", ","), ("\t", ""), (";", "")])
def test_lines_of_kinect(tmp_path, separator, end):
    """KIMORE, IRDS and KERAAL write Kinect v2's joints without names."""
    path = tmp_path / "a.csv"

    def read(rows, **options):
        path.write_text(lines_of(rows, separator, end))
        return read_skeleton(path, **options)

    state, quaternion = np.full((86, 25, 1), 2.0), np.zeros((86, 25, 4))
    for rows in (squat(), np.concatenate([squat(), state], -1), np.concatenate([squat(), quaternion], -1)):
        np.testing.assert_allclose(read(rows).keypoints[:, 0], squat(), atol=1e-5)
    state[7, 3] = 0
    assert not read(np.concatenate([squat(), state], -1)).keypoints[7, 0, 3].any()
    two = np.stack([squat(), squat() + 1], axis=1)
    np.testing.assert_allclose(read(two).keypoints, two, atol=1e-5)
    timed = read(np.c_[np.arange(86) / 25, squat().reshape(86, -1)])
    assert timed.fps == 25 and timed.num_frames == 86
    assert get_layout(read(squat("kinect20")).layout).name == "kinect20"
    flat = squat("coco17")[..., :2]
    named = read(flat, layout="coco17")
    assert named.coordinates == "2d" and named.keypoints.shape == (86, 1, 17, 2)


def test_trackers_of_keraal(tmp_path):
    rows = np.concatenate([squat("keraal17")[..., [0, 2, 1]] * (1000, -1000, 1000), np.zeros((86, 17, 4))], axis=-1)
    (tmp_path / "a.txt").write_text(lines_of(rows))
    sequence = read_skeleton(tmp_path / "a.txt")
    assert (get_layout(sequence.layout).name, sequence.units) == ("keraal17", "m")
    same_squat(sequence, atol=1e-3, by_way_of="keraal17")


def test_lines_of_msr_action3d(tmp_path):
    rows = np.concatenate([squat("msr20"), np.full((86, 20, 1), 0.9)], axis=-1).reshape(-1, 4)
    path = tmp_path / "a12_s05_e01_skeleton3D.txt"
    path.write_text(lines_of(rows[:, None]))
    sequence = read_skeleton(path)
    assert (get_layout(sequence.layout).name, sequence.num_frames) == ("msr20", 86)
    assert (sequence.label, sequence.subject) == (11, 5) and find_recordings(tmp_path) == [path]
    same_squat(sequence, by_way_of="msr20")
    path.write_text(lines_of(rows[:-1, None]))
    with pytest.raises(SkeletonFormatError, match="line 1719: 1719 lines of 4 numbers are not 20 joints"):
        read_skeleton(path)
    path.write_text(lines_of(np.abs(rows[:, None]) * 100 + 30))
    with pytest.raises(SkeletonFormatError, match="places in the depth image"):
        read_skeleton(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 2 3\n", "line 1: 3 numbers, expected 150"),
        (" ".join(["1"] * 75) + "\n1 2\n", "line 2: 2 numbers, expected 75"),
        (" ".join(["1"] * 75) + "\n" + " ".join(["x"] * 75), "line 2: 'x' is not a number"),
        (" ".join(["1_0"] * 75) + "\n", ""),
        (" ".join(["0"] * 75), "no person is visible"),
        (",".join(["nan"] * 100), "line 1: a coordinate is NaN"),
    ],
)
def test_damaged_lines_are_refused_by_number(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        read_skeleton(tmp_path / "a.txt")
    assert "a.txt" in str(caught.value) and len(str(caught.value)) <= 300


def test_layouts_with_the_number_of_joints_are_named(tmp_path):
    (tmp_path / "a.csv").write_text(table(range(17), squat("h36m17"), form="{axis}{joint}"))
    with pytest.raises(SkeletonFormatError, match="of its 17 joints, name the layout, such as .*h36m17"):
        read_skeleton(tmp_path / "a.csv")
    same_squat(read_skeleton(tmp_path / "a.csv", layout="h36m17"), by_way_of="h36m17")


def test_what_a_table_lacks_is_told(tmp_path):
    (tmp_path / "a.csv").write_text("frame,landmark,x,y,z\n0,tail,1,2,3\n0,fin,1,2,3\n")
    with pytest.raises(SkeletonFormatError, match="no layout has its 2 joints, such as 'tail'"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("frame,landmark,x,y,z\n0,0,1,2,3\n0,0,1,2,3\n")
    with pytest.raises(SkeletonFormatError, match="a.csv"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("frame,SpineBase_X,SpineBase_Y\n0,1,2\n")
    with pytest.raises(SkeletonFormatError, match="needs the column 'spine_base_x'"):
        read_csv(tmp_path / "a.csv")


FOREIGN_FILES = {
    "a.fbx": (b"Kaydara FBX Binary  \x00", "fbx"),
    "a.mot": (b"Coordinates\nversion=1\nnRows=2\nnColumns=3\ninDegrees=yes\nendheader\ntime\tx\ty\n", "opensim"),
    "a.csv": (b"scorer,DLC,DLC,DLC\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n0,1,2,0.9\n", "deeplabcut"),
    "a.slp": (b"\x89HDF\r\n\x1a\n" + bytes(100), "hdf5"),
    "a.mat": (b"MATLAB 5.0 MAT-file" + bytes(200), "matlab"),
    "c.txt": (b":version 1.10\n:name VICON\n:units\n  mass 1.0\n", "asf"),
}


@pytest.mark.parametrize("name", FOREIGN_FILES)
def test_what_is_not_read_is_told_with_the_program_that_makes_it_readable(tmp_path, name):
    content, kind = FOREIGN_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SkeletonFormatError) as caught:
        read_skeleton(tmp_path / name)
    assert FOREIGN[kind][:60] in str(caught.value) and str(caught.value).count(". ") <= 1


def test_a_folder_says_what_it_passes_over(tmp_path):
    for name in ("a.fbx", "b.FBX", "c.mot", "d.txt", "e.md", "f.asf"):
        (tmp_path / name).write_bytes(b"Some words.")
    np.save(tmp_path / "g.npy", squat())
    with pytest.warns(USDRLWarning, match=r"left out \(2 .fbx, 1 .mot\): name one"):
        assert find_recordings(tmp_path) == [tmp_path / "g.npy"]


def test_every_sentence_of_what_is_not_read_fits(tmp_path):
    assert all(len(sentence) < 250 and sentence.startswith("it ") for sentence in FOREIGN.values())


def test_the_content_decides_and_not_the_ending(tmp_path):
    """A file of each kind under the ending of each other one gives the same result, or one sentence."""
    files = {
        ".npy": None,
        ".json": json.dumps(squat().tolist()).encode(),
        ".csv": table(get_layout("ntu25").joint_names, squat()).encode(),
        ".txt": lines_of(squat()).encode(),
        ".jsonl": "\n".join(json.dumps({"world_landmarks": row}) for row in landmarks().tolist()).encode(),
    }
    np.save(tmp_path / "a.npy", squat())
    files[".npy"] = (tmp_path / "a.npy").read_bytes()
    endings = [*files, ".skeleton", ".pkl", ".npz", ".tsv", ".bvh", ".trc", ".xyz", ""]
    for ending, content in files.items():
        path = tmp_path / f"of{ending}"
        path.write_bytes(content)
        expected = read_skeleton(path).keypoints
        for other in endings:
            shutil.copyfile(path, tmp_path / f"as{other}")
            np.testing.assert_array_equal(read_skeleton(tmp_path / f"as{other}").keypoints, expected)


@needs_shared
@pytest.mark.parametrize(
    "name", ["mp_9_names_world.csv", "mp_10_UPPER_names.csv", "mp_11_long.csv", "mp_7_lines.jsonl"]
)
def test_generated_landmarks(name):
    same_squat(read_skeleton(GENERATED / name), by_way_of="mediapipe33")


@needs_shared
@pytest.mark.parametrize("name", ["kinect_sdk.csv", "kinect_headerless.csv"])
def test_generated_kinect(name):
    sequence = read_skeleton(GENERATED / name)
    np.testing.assert_allclose(sequence.keypoints[:, 0], squat(), atol=1e-4)


@needs_shared
@pytest.mark.parametrize(
    "name, layout, frames",
    [
        ("G3-Kinect-CTK-P1T1-Unknown-C-0.txt", "ntu25", 197),
        ("G3-Kinect-ELK-P1T1-Unknown-C-0.txt", "ntu25", 193),
        ("G3-Vicon-CTK-P1T1-Unknown-C-0.txt", "keraal17", 390),
        ("G3-Vicon-ELK-P1T1-Unknown-C-0.txt", "keraal17", 385),
    ],
)
def test_real_lines_of_keraal(name, layout, frames):
    sequence = read_skeleton(SHARED / "keraal" / name)
    assert (get_layout(sequence.layout).name, sequence.keypoints.shape[:2]) == (layout, (frames, 1))
    is_upright(sequence)


def test_nobody_in_a_recording_of_msr_action3d(tmp_path):
    (tmp_path / "a13_s09_e02_skeleton3D.txt").write_text("0.0 0.0 0.0 0.0\n" * 40)
    with pytest.raises(EmptySequenceError, match="no person is visible"):
        read_skeleton(tmp_path / "a13_s09_e02_skeleton3D.txt")
