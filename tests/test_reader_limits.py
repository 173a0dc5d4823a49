"""Limits of readers: memory, time, implausible numbers, ambiguous arrays."""

import errno
import io
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest

from usdrl_hub import (
    SkeletonFormatError,
    SkeletonSequence,
    USDRLFeatureExtractor,
    USDRLModel,
    convert_layout,
    get_layout,
    read_skeleton,
)
from usdrl_hub.configuration_usdrl import USDRLConfig
from usdrl_hub.data.arrays import load_npz
from usdrl_hub.data.readers import find_recordings, iter_skeletons
from usdrl_hub.data.reading import Reading
from usdrl_hub.errors import EmptySequenceError, USDRLWarning
from usdrl_hub.inference.source import Source
from usdrl_hub.sequence import FARTHEST

from . import motion_capture

RNG = np.random.default_rng(0)
NAMES = [f"{joint}_{axis}" for joint in get_layout("ntu25").joint_names for axis in "xyz"]
PERSON = {"keypoints": [[1, 2]] * 17, "scores": [1] * 17}
BODY = "1 0 0 0 0 0 0 0 0 0\n25\n" + "0.1 0.2 0.3 0 0 0 0 0 0 0 0 0\n" * 25


def packed(**arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def claim(shape):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return content.getvalue() + bytes(1000)


def zipped_claim():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("keypoints.npy", claim((10**9, 25, 3)))
    return content.getvalue()


def _still_bvh(frames):
    """A whole body of which one number changes."""
    names = [motion_capture.MOTIONBUILDER[name] for name in get_layout("smpl22").joint_names]
    text = motion_capture.bvh(names, motion_capture.tree("smpl22"), motion_capture.clip("smpl22")[:1])
    head = re.sub(r"CHANNELS \d( \w+)+", "CHANNELS 0", text.partition("MOTION")[0])
    head = head.replace("CHANNELS 0", "CHANNELS 1 Xposition", 1)
    return f"{head}MOTION\nFrames: {frames}\nFrame Time: 0.01\n" + "1\n" * frames


def _short_trc(frames):
    """Rows of one point of 39."""
    text = motion_capture.trc(list(get_layout("ui-prmd39").joint_names), motion_capture.clip()[:1])
    return "\n".join(text.split("\n")[:6]) + "\n1\t1\t1\t1\t1" * frames


# Small files that took gigabytes or minutes.
GREEDY = {
    "zeros.skeleton": "1500000\n1\n" + BODY + "0\n" * 1_499_999,
    "P1S1G1B1H1UC1LC1A1R1_1.txt": "9000\n" + ("1\n1\n17\n" + "1 2 3\n" * 17) * 9000,
    "frames.json": "[" + json.dumps([PERSON]) + ",[]" * 1_500_000 + "]",
    "two.json": "[" + ",".join([json.dumps([PERSON, PERSON], separators=(",", ":"))] * 4000) + "]",
    "nulls.json": '[{"pose_landmarks":[' + ",".join(['{"x":1,"y":1}'] * 33) + "]}" + ",{}" * 1_000_000 + "]",
    "lists.json": "[" + "[]," * 1_000_000 + "[]]",
    "crowd.json": json.dumps(
        [{"image_id": n // 150, "keypoints": [n * 7919 % 10007] * 50 + [1], "score": 1} for n in range(6000)]
    ),
    "one.json": json.dumps([{"image_id": 0, "keypoints": [n] * 51, "score": 1} for n in range(6000)]),
    "gap.csv": ",".join(["frame", *NAMES]) + "".join(f"\n{frame}" + ",1" * 75 for frame in (0, 1, 2, 10**7)),
    "people.csv": ",".join(["frame", "person", *NAMES]) + "".join(f"\n0,{n}" + ",1" * 75 for n in range(5000)),
    "empty.csv": ",".join(NAMES) + ("\n1" + "," * 74) * 9000,
    "lists.pkl": b"\x80\x04" + b"]" * 2_000_000 + b".",
    "memo.pkl": b"\x80\x04](" + b"]\x94" * 1_000_000 + b"e.",
    "bomb.npz": packed(keypoints=np.zeros((800_000, 25, 3))),
    "claim.npy": claim((10**9, 25, 3)),
    "claim.npz": zipped_claim(),
    "words.bvh": "HIERARCHY\nROOT " + "a " * 1_000_000 + "{\n}\nMOTION\nFrames: 1\nFrame Time: 1\n1\n",
    "brace.bvh": "HIERARCHY\nROOT a\n" + "{" * 1_000_000 + "\nMOTION\n",
    "still.bvh": _still_bvh(1_000_000),
    "tabs.trc": _short_trc(200_000),
    "deep.mvnx": "<mvnx>" + "<a>" * 300_000,
    "attributes.mvnx": "<mvnx " + " ".join(f'a{number}=""' for number in range(100_000)) + "/>",
    "header.npy": b"\x93NUMPY\x02\x00\x00\x00\x00\x80" + bytes(100),
}


def test_memory_and_time_are_bounded_by_the_size_of_a_file(tmp_path):
    """faults.md 24: at most 64 MB and 50 times the file, 5 s and 1 s for each MB."""
    for name, content in GREEDY.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    script = textwrap.dedent(
        """
        import json, os, pathlib, sys, time, warnings
        warnings.simplefilter("ignore")
        from usdrl_hub.data.readers import iter_skeletons
        for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            child = os.fork()
            if child:
                os.waitpid(child, 0)
                continue
            pathlib.Path("/proc/self/clear_refs").write_text("5")
            before = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            begin = time.process_time()
            try:
                said = str([sequence.keypoints.shape for sequence in iter_skeletons(file)])
            except ValueError as error:
                said = str(error)
            seconds = time.process_time() - begin
            status = pathlib.Path("/proc/self/status").read_text()
            peak = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))
            print(json.dumps([file.name, peak - before, seconds, said]), flush=True)
            os._exit(0)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name for name, *_ in lines} == set(GREEDY)
    for name, memory, seconds, said in lines:
        size = (tmp_path / name).stat().st_size
        assert memory <= (64 << 20) + 50 * size, (name, memory, size)
        assert seconds <= 5 + size / 1e6, (name, seconds, size)
        assert said.startswith("[(") or (str(tmp_path / name) in said and len(said) <= 300), said


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path):
    """faults.md 24."""
    (tmp_path / "bomb.npz").write_bytes(packed(data=np.zeros((800_000, 1, 25, 3)), offsets=np.array([0, 800_000])))
    with pytest.raises(SkeletonFormatError, match="its arrays take 457 MB, far more than such a file holds"):
        load_npz(tmp_path / "bomb.npz")
    (tmp_path / "small.npz").write_bytes(packed(keypoints=np.ones((4000, 25, 3))))
    assert read_skeleton(tmp_path / "small.npz").num_frames == 4000


def test_a_member_that_is_no_array_is_named(tmp_path):
    """faults.md 27: AttributeError."""
    path = tmp_path / "notes.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("keypoints", b"text")
    with pytest.raises(SkeletonFormatError, match="'keypoints' in it is not an array: its name does not end in .npy"):
        read_skeleton(path)


def test_a_file_that_cannot_be_opened_leaves_the_others(tmp_path, monkeypatch):
    """faults.md 27: one unreadable .npy ended the run of a folder."""
    for name in ("a.npy", "b.npy", "c.npy"):
        np.save(tmp_path / name, RNG.normal(size=(4, 25, 3)))
    (tmp_path / "d.npy").mkdir()
    real_open = open

    def no_entry(file, *args, **kwargs):
        if str(file).endswith("b.npy"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return real_open(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", no_entry)
    errors = []
    with pytest.warns(USDRLWarning, match=r"d\.npy: it is a folder, not a file"):
        found = [sequence.name for sequence in Source(tmp_path, on_error=errors.append)]
    assert found == ["a", "c"]
    assert [str(error) for error in errors] == [f"{tmp_path / 'b.npy'}: it cannot be read: Permission denied"]


@pytest.mark.parametrize("far", [1.01 * FARTHEST, 1e30, -1e30, 3e38])
def test_what_is_farther_than_the_earth_is_large_is_no_body(tmp_path, far):
    """faults.md 18: NaN probabilities."""
    body = RNG.normal(size=(4, 2, 25, 3))
    body[2, 1, 7, 1] = far
    with pytest.raises(SkeletonFormatError, match=r"walk: frame 2, person 1, joint 7 is more than 1e\+07 m away"):
        SkeletonSequence(body, name="walk")
    np.save(tmp_path / "walk.npy", body[:, 1])
    with pytest.raises(SkeletonFormatError, match="no body is: check the numbers") as caught:
        read_skeleton(tmp_path / "walk.npy")
    assert str(tmp_path / "walk.npy") in str(caught.value)
    flat = np.ones((4, 1, 17, 3)) * far
    with pytest.raises(SkeletonFormatError, match=r"more than 1e\+07 pixels away"):
        SkeletonSequence(flat, "coco17")


@pytest.mark.parametrize("units, scale", [("m", 1), ("cm", 100), ("mm", 1000)])
def test_all_that_is_nearer_is_read_to_finite_clips(units, scale):
    """faults.md 18."""
    body = RNG.uniform(-1, 1, size=(4, 2, 25, 3)) * FARTHEST * scale
    assert np.isfinite(USDRLFeatureExtractor()(SkeletonSequence(body, units=units)).keypoints).all()
    with pytest.raises(SkeletonFormatError, match=f"{units} away"):
        SkeletonSequence(body * 1e3, units=units)


def test_lists_of_numbers_are_arrays():
    """faults.md 40: refused."""
    extractor = USDRLFeatureExtractor()
    for shape in ((40, 25, 3), (40, 2, 25, 3), (2, 40, 2, 25, 3)):
        array = RNG.normal(size=shape).astype(np.float32)
        np.testing.assert_array_equal(extractor(array.tolist()).keypoints, extractor(array).keypoints)
        found = [sequence.keypoints for sequence in Source(array.tolist())]
        np.testing.assert_array_equal(
            np.stack(found), array.reshape(-1, 40, shape[-3] if len(shape) > 3 else 1, 25, 3)
        )
    several = [RNG.normal(size=(frames, 25, 3)).tolist() for frames in (30, 40)]
    assert extractor(several).keypoints.shape[0] == 2


def test_an_array_of_several_recordings_is_not_one_of_several_people():
    """faults.md 40: four recordings were read as one of four people."""
    extractor, array = USDRLFeatureExtractor(), RNG.normal(size=(4, 40, 25, 3)).astype(np.float32)
    for given in (array, array.tolist()):
        with pytest.raises(SkeletonFormatError, match="one recording of 4 people, axes='MTVC', or as 4 recordings"):
            extractor(given)
        with pytest.raises(SkeletonFormatError, match="one recording of 4 people, axes='MTVC', or as 4 recordings"):
            list(Source(given))
    assert extractor(array, axes="TVC").keypoints.shape[0] == 4
    assert extractor(array, axes="MTVC").keypoints.shape[0] == 1
    assert len(list(Source(array, Reading(axes="TVC")))) == 4 and len(list(Source(array, Reading(axes="MTVC")))) == 1
    # Of twenty, no order but this one fits; one by one, each is a recording.
    assert extractor(RNG.normal(size=(20, 40, 25, 3))).keypoints.shape[0] == 20
    assert extractor([array[:2]]).keypoints.shape[0] == 1


def test_arrays_are_no_input_of_a_model():
    """faults.md 40: TypeError of torch."""
    config = USDRLConfig(num_frames=8, hidden_size=32, num_attention_heads=2, intermediate_size=64)
    extractor, model = USDRLFeatureExtractor.from_model_config(config), USDRLModel(config).eval()
    clip = RNG.normal(size=(20, 25, 3))
    with pytest.raises(ValueError, match="keypoints must be a tensor, got ndarray: .* return_tensors='pt'"):
        model(**extractor([clip]))
    assert model(**extractor([clip], return_tensors="pt")).pooler_output.shape == (1, 64)


def test_another_layout_is_suggested_by_the_joints():
    """faults.md, words that mislead: "name the layout and the axes" where --layout kinect20 would do."""
    with pytest.raises(SkeletonFormatError, match="name another layout, such as kinect20"):
        SkeletonSequence.from_array(np.ones((30, 20, 3)))


def standing(layout, flip):
    """A person of a layout who stands upright, by the names of joints, y up or down."""
    names = get_layout(layout).joint_names
    high = {
        "head": 1.7,
        "nose": 1.7,
        "neck": 1.5,
        "ankle": 0.1,
        "foot": 0.0,
        "heel": 0.0,
        "hip": 0.9,
        "spine_base": 0.9,
    }
    height = np.array([next((value for part, value in high.items() if part in name), 1.2) for name in names])
    body = np.stack([0.1 + 0.01 * np.arange(len(names)), -height if flip else height, np.full(len(names), 0.3)], -1)
    return np.tile(body, (6, 1, 1)).astype(np.float32)


def test_arrays_of_mediapipe_are_turned_over(tmp_path):
    """faults.md 12: upside down, nothing said."""
    np.save(tmp_path / "down.npy", standing("mediapipe33", True))
    with pytest.warns(USDRLWarning, match="MediaPipe's y points down"):
        [sequence] = iter_skeletons(tmp_path / "down.npy", Reading("mediapipe33"))
    body = sequence.to_layout("ntu25").keypoints[0, 0, :, 1]
    assert sequence.up == "-y" and body[3] > body[0] > body[14]
    np.save(tmp_path / "up.npy", standing("mediapipe33", False))
    assert read_skeleton(tmp_path / "up.npy", layout="mediapipe33").up is None


def test_people_on_their_heads_are_told(tmp_path):
    """faults.md 12."""
    for name, flip in (("down", True), ("up", False)):
        rows = [",".join(map(str, frame.ravel())) for frame in standing("ntu25", flip)]
        (tmp_path / f"{name}.csv").write_text("\n".join([",".join(NAMES), *rows]))
        (tmp_path / f"{name}.json").write_text(json.dumps(standing("ntu25", flip).tolist()))
    for ending in ("csv", "json"):
        with pytest.warns(USDRLWarning, match="heads are below feet in most frames: .* such as up='-y'"):
            assert read_skeleton(tmp_path / f"down.{ending}").up is None
        assert read_skeleton(tmp_path / f"up.{ending}").up is None


def test_keypoints_in_pixels_that_count_from_the_bottom_are_told(tmp_path):
    """They were read without a word, and recognised as something else."""
    body = 1000 - 300 * convert_layout(standing("ntu25", False), "ntu25", "coco17", coordinates="3d")[..., :2]
    np.save(tmp_path / "pixels.npy", body)
    assert not read_skeleton(tmp_path / "pixels.npy", layout="coco17").is_3d
    np.save(tmp_path / "up.npy", 1000 - body)
    with pytest.warns(USDRLWarning, match="heads are below feet in most frames: y of 2D keypoints points down"):
        assert read_skeleton(tmp_path / "up.npy", layout="coco17").up is None


def test_a_table_that_lacks_joints_is_told_which(tmp_path):
    """It was told to name another layout, of which it had no joint at all."""
    kept = [place for place, name in enumerate(NAMES) if "thumb" not in name]
    rows = standing("ntu25", False).reshape(-1, len(NAMES))
    assert 0 < len(kept) < len(NAMES)
    text = [",".join(NAMES[place] for place in kept), *(",".join(map(str, row[kept])) for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(text))
    with pytest.raises(SkeletonFormatError, match="23 joints: add empty columns of left_thumb, right_thumb, or"):
        read_skeleton(tmp_path / "t.csv")
    more = ["".join(f",{name}" for name in NAMES if "thumb" in name), *["," * (len(NAMES) - len(kept))] * len(rows)]
    (tmp_path / "t.csv").write_text("\n".join(line + rest for line, rest in zip(text, more, strict=True)))
    keypoints = read_skeleton(tmp_path / "t.csv").keypoints[:, 0].reshape(-1, len(NAMES))
    np.testing.assert_allclose(keypoints[:, kept], rows[:, kept], rtol=1e-6)
    assert keypoints.any() and not np.delete(keypoints, kept, axis=1).any()


@pytest.mark.parametrize("name", ["e.skeleton", "e.npy", "e.npz", "e.json", "e.csv", "e.pkl", "pku.txt"])
def test_a_recording_without_anybody_is_an_error_of_its_own_kind(tmp_path, name):
    """faults.md, words that mislead: errors told apart by their English."""
    path, nobody = tmp_path / name, np.zeros((30, 1, 25, 3), np.float32)
    if name.endswith(".skeleton"):
        path.write_text("2\n0\n0\n")
    elif name.endswith(".npy"):
        np.save(path, nobody)
    elif name.endswith(".npz"):
        np.savez(path, keypoints=nobody)
    elif name.endswith(".json"):
        path.write_text(json.dumps(nobody.tolist()))
    elif name.endswith(".csv"):
        path.write_text("\n".join([",".join(NAMES), *[",".join(["0"] * 75)] * 3]))
    elif name.endswith(".pkl"):
        path.write_bytes(pickle.dumps({"annotations": [{"keypoint": nobody.transpose(1, 0, 2, 3)}]}))
    else:
        path.write_text("\n".join([" ".join(["0"] * 150)] * 3))
    with pytest.raises(EmptySequenceError) as caught:
        list(iter_skeletons(path))
    assert str(path) in str(caught.value)


def test_folders_that_cannot_be_opened_are_told(tmp_path, monkeypatch):
    """faults.md 27: passed over, nothing said."""
    (tmp_path / "closed").mkdir()
    np.save(tmp_path / "a.npy", np.ones(3))
    real_scandir = os.scandir

    def no_entry(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_scandir(path)

    monkeypatch.setattr("os.scandir", no_entry)
    with pytest.warns(USDRLWarning, match="closed: it cannot be opened: Permission denied"):
        assert find_recordings(tmp_path) == [tmp_path / "a.npy"]
