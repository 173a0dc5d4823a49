"""Pickles: only containers, numbers, text and plain arrays are read; no code in a file is run."""

import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from usdrl_hub import SkeletonFormatError, read_skeleton
from usdrl_hub.data.pickles import load_numpy_pickle
from usdrl_hub.data.pyskl import read_pyskl
from usdrl_hub.data.readers import iter_skeletons

RNG = np.random.default_rng(0)
DTYPE = b"cnumpy\ndtype\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"


class Raw:
    """Bytes of a pickle in place of an object."""

    def __init__(self, code, *state):
        self.code, self.state = code, state

    def __reduce__(self):
        return np.dtype, (self.code, False, True), self.state


# faults.md 20: states that make NumPy read memory at an address of the file's choice.
FORGED = {
    "fields of a void type": ("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
    "a subarray of nothing": ("i8", (3, "<", (None, None), None, None, -1, -1, 0)),
    "a subarray of three": ("i8", (3, "<", (None, None, None), -1, -1, 0)),
    "a size of its own": ("i8", (3, "<", None, None, None, 1 << 40, 1, 0)),
    "flags of objects": ("i8", (3, "<", None, None, None, -1, -1, 63)),
    "objects": ("O8", (3, "|", None, None, None, -1, -1, 63)),
    "dates": ("M8", (4, "<", None, None, None, -1, -1, 0, ({}, ("s", 1, 1, 1)))),
    "a size of a text's own": ("U5", (3, "<", None, None, None, 1 << 40, 4, 8)),
}


def test_the_state_of_a_type_is_never_executed(tmp_path):
    """faults.md 20: a crash must not take the tests with it, so a process of its own reads them all."""
    expected = {}
    for what, (code, state) in FORGED.items():
        forged = pickle.dumps(Raw(code, *state), protocol=2)[2:-1]
        scalar = b"\x80\x02cnumpy.core.multiarray\nscalar\n(" + forged + b"C\x08" + b"\x41" * 8 + b"tR."
        array = b"\x80\x02" + ARRAY + b"(I1\n(I1\nt" + forged + b"\x89C\x08" + b"\x41" * 8 + b"tb."
        for kind, content in (("scalar", scalar), ("array", array)):
            path = tmp_path / f"{what}, {kind}.pkl"
            path.write_bytes(content)
            expected[path] = f"{path}: it is refused: it holds an array of an unknown type"
            # Flags change nothing: nothing of a state is used but the order of bytes.
            if what == "flags of objects":
                expected[path] = "4702111234474983745" if kind == "scalar" else "[4702111234474983745]"
    script = f"""
from usdrl_hub.data.pickles import load_numpy_pickle
for path in {[str(path) for path in expected]!r}:
    try:
        print(load_numpy_pickle(path))
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.splitlines() == list(expected.values())


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04" + b"]" * 3_000_000 + b".",
        b"\x80\x04]" + b"\x94" * 3_000_000 + b".",
        b"\x80\x04" + b"(" * 3_000_000 + b".",
        b"\x80\x04)" + b"\x85" * 3_000_000 + b".",
        b"\x80\x04}(" + b")" + b"\x85" * 200_000 + b"Nu.",
        b"\x80\x04\x8f.",
        b"\x80\x04" + b"}" * 3_000_000 + b".",
        # A text named again and again, each time made bytes of; and one made text of.
        b"\x80\x04X"
        + struct.pack("<I", 100_000)
        + b"a" * 100_000
        + b"\x94("
        + b"c_codecs\nencode\nh\x00\x85R" * 50_000,
        b"\x80\x04C\xc8"
        + b"a\0\0\0" * 50
        + b"\x94("
        + (b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x03\x00\x00\x00U50\x85Rh\x00\x86R" * 30_000),
    ],
    ids=["lists", "memo", "marks", "tuples", "key", "set", "dictionaries", "bytes", "texts"],
)
def test_objects_and_nesting_are_bounded_by_the_size_of_a_file(tmp_path, content):
    """faults.md 20 and 24."""
    path = tmp_path / "deep.pkl"
    path.write_bytes(content)
    with pytest.raises(SkeletonFormatError, match="it is refused|it is truncated or damaged") as caught:
        load_numpy_pickle(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_containers_numbers_texts_and_plain_arrays_are_read(tmp_path, protocol):
    arrays = [
        RNG.normal(size=(3, 4)).astype(kind) for kind in ("f2", "f4", "f8", ">f4", "i1", "i2", ">i8", "u1", "u4", "?")
    ]
    arrays += [
        np.asfortranarray(arrays[0]),
        arrays[0][::2, 1:],
        np.zeros((0, 3)),
        np.array(3.5),
        np.array(["a", "bé"]),
    ]
    content = {
        "arrays": arrays,
        "numbers": [0, -1, 255, 256, 1 << 40, -(1 << 80), 0.5, True, False, None, float("inf")],
        "scalars": [np.float16(0.5), np.int64(-7), np.bool_(True), np.str_("abc")],
        "texts": ["", "a", "é\n'\\", "x" * 300, b"", b"\xff\x00", b"y" * 300],
        ("texts" if protocol < 0 else 3): ({}, [], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    }
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = load_numpy_pickle(path)
    for mine, other in zip(found.pop("arrays"), content.pop("arrays"), strict=True):
        np.testing.assert_array_equal(mine, other, strict=True)
    assert found == content


def annotations(tmp_path, *entries, **more):
    path = tmp_path / "poses.pkl"
    path.write_bytes(pickle.dumps({"annotations": list(entries), **more}))
    return path


def annotation(channels=2, joints=17, scored=True, **more):
    keypoint = RNG.uniform(1, 900, (1, 6, joints, channels)).astype(np.float32)
    score = {"keypoint_score": np.ones((1, 6, joints), np.float16)} if scored else {}
    return {"frame_dir": "walk", "keypoint": keypoint, "label": 3, **score, **more}


@pytest.mark.parametrize("shape", [np.array([1080, 1920]), [1080, 1920], (1080, 1920, 3), (np.int64(1080), 1920)])
def test_the_shape_of_a_picture_may_be_an_array(tmp_path, shape):
    """faults.md 27: an array ended the whole run in NumPy's words."""
    [sequence] = iter_skeletons(annotations(tmp_path, annotation(img_shape=shape)))
    assert sequence.image_shape == (1080, 1920)


@pytest.mark.parametrize("name", [[["a"]], {"a": 1}, ("a",), b"a", "x" * 2000, None])
def test_a_name_is_a_text_or_a_number(tmp_path, name):
    """faults.md 24: lists in lists, of which Python made a text."""
    nested = []
    for _ in range(40):
        nested = [nested, nested]
    wrong = nested if name is None else name
    for path in (annotations(tmp_path, annotation(frame_dir=wrong)),):
        with pytest.raises(SkeletonFormatError, match="annotation 0: a name is not a text"):
            list(iter_skeletons(path))
    with pytest.raises(SkeletonFormatError, match="'split': a name is not a text"):
        read_pyskl(annotations(tmp_path, annotation(), split={"train": [wrong]}))


def test_keypoints_in_space_are_not_pixels(tmp_path):
    """faults.md 12: z was read as a score, ntu25 as OpenPose's 25 joints."""
    entry = annotation(3, 25, scored=False)
    sequence = read_skeleton(annotations(tmp_path, entry))
    assert (sequence.layout.name, sequence.coordinates, sequence.up, sequence.units) == ("ntu25", "3d", "y", "m")
    np.testing.assert_array_equal(sequence.keypoints, entry["keypoint"].transpose(1, 0, 2, 3))
    with pytest.raises(
        SkeletonFormatError,
        match="annotation 0: no layout of a pose estimator has 17 joints: name the layout, such as .*h36m17",
    ):
        read_skeleton(annotations(tmp_path, annotation(3, 17, scored=False)))
    sequence = read_skeleton(annotations(tmp_path, annotation(3, 17, scored=False)), layout="uav17")
    assert (sequence.layout.name, sequence.coordinates) == ("uav17", "3d")


def test_the_layout_of_a_pickle_can_be_named(tmp_path):
    """faults.md 12: --layout was ignored."""
    path = annotations(tmp_path, annotation(2, 17))
    assert read_skeleton(path).layout.name == "coco17"
    assert read_skeleton(path, layout="coco17-release").layout.name == "coco17-release"
    with pytest.raises(SkeletonFormatError, match="17 2D joints, but layout 'openpose18' has 18 2D joints: leave"):
        read_skeleton(path, layout="openpose18")
    with pytest.raises(SkeletonFormatError, match="17 2D joints, but layout 'uav17' has 17 3D joints: leave"):
        read_skeleton(path, layout="uav17")


def test_annotations_that_share_keypoints_are_counted(tmp_path):
    """faults.md 24: two bytes a recording."""
    path = annotations(tmp_path, *[annotation(frames=6)] * 20_000)
    with pytest.raises(SkeletonFormatError, match="repeat the same keypoints"):
        list(iter_skeletons(path))
