import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usdrl_hub import SkeletonFormatError, USDRLFeatureExtractor, iter_skeletons, open_data, read_skeleton
from usdrl_hub.data.decimals import plain_decimals
from usdrl_hub.data.samples import load_samples, sample_path

from .conftest import relative_error, write_ntu

REAL_NAMES = ["S001C001P001R001A001", "S001C001P001R001A011", "S001C003P008R002A058", "S003C001P015R001A034"]


@pytest.mark.parametrize("name", REAL_NAMES)
def test_ntu_files_become_the_clips_of_the_release(golden, tmp_path, name):
    file = golden("ntu_skeleton_files")
    raw = file[f"{name}_raw_CTVM"].transpose(1, 3, 2, 0)
    # The golden's people stand in order of energy; the file has them in the other order.
    sequence = read_skeleton(write_ntu(tmp_path / f"{name}.skeleton", raw[:, ::-1]))
    assert (sequence.name, sequence.layout, sequence.fps) == (name, "ntu25", 30)
    assert (sequence.label, sequence.subject) == (int(name[-3:]) - 1, int(name[9:12]))
    np.testing.assert_array_equal(sequence.keypoints, raw[:, : sequence.num_persons])
    clip = USDRLFeatureExtractor()(sequence).keypoints[0]
    assert relative_error(clip, file[f"{name}_clip_CTVM"].transpose(1, 3, 2, 0)) < 1e-5


@pytest.mark.parametrize("name", REAL_NAMES)
def test_real_ntu_files_become_the_clips_of_the_release(golden, shared_data, name):
    file = golden("ntu_skeleton_files")
    sequence = read_skeleton(shared_data / "ntu_rgbd_samples" / f"{name}.skeleton")
    raw = file[f"{name}_raw_CTVM"].transpose(1, 3, 2, 0)
    np.testing.assert_array_equal(sequence.keypoints, raw[:, : sequence.num_persons])
    clip = USDRLFeatureExtractor()(sequence).keypoints[0]
    assert relative_error(clip, file[f"{name}_clip_CTVM"].transpose(1, 3, 2, 0)) < 1e-5


@pytest.fixture
def ntu_file(tmp_path):
    keypoints = np.random.default_rng(0).normal(size=(4, 2, 25, 3)).astype(np.float32)
    return write_ntu(tmp_path / "S001C001P002R001A007.skeleton", keypoints)


def edit(path, line, text):
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    "line, text, message",
    [
        (1, "four", "line 1: expected the number of frames, got 'four'"),
        (1, "0", "line 1: the recording has zero frames"),
        (1, "3", "line 167: text goes on after the last of 3 frames"),
        (1, "5", "line 221: the file ends where the number of bodies in frame 4"),
        (1, "-4", "line 1: expected the number of frames"),
        (1, "9" * 400, "line 1: expected the number of frames"),
        (2, "1", "line 30: expected the number of bodies in frame 1"),
        (3, "1 2 3", "line 3: 3 fields for a body, expected 10"),
        (3, "a b c d e f g h i j", "line 3: 'a' is not a number"),
        (4, "24", "line 4: 24 joints, expected 25"),
        (9, "1 2 3", "line 9: 3 fields for a joint, expected 12"),
        (9, "1 2 x 4 5 6 7 8 9 10 11 12", "line 9: 'x' is not a number"),
        (9, "1 nan 3 4 5 6 7 8 9 10 11 12", "line 9: a coordinate is NaN"),
        (9, "1 inf 3 4 5 6 7 8 9 10 11 12", "line 9: a coordinate is NaN"),
        (9, "", "line 9: 0 fields"),
    ],
)
def test_a_broken_ntu_file_is_refused_by_line(ntu_file, line, text, message):
    edit(ntu_file, line, text)
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        read_skeleton(ntu_file)
    assert str(ntu_file) in str(caught.value)


@pytest.mark.parametrize("lines", [1, 2, 3, 4, 10, 29, 100, 200, 220])
def test_a_cut_ntu_file_is_refused(ntu_file, lines):
    ntu_file.write_text("\n".join(ntu_file.read_text().splitlines()[:lines]))
    with pytest.raises(SkeletonFormatError, match="cut"):
        read_skeleton(ntu_file)


def test_a_line_cut_in_the_middle_is_refused(ntu_file):
    content = ntu_file.read_text()
    ntu_file.write_text(content[: len(content) - 30])
    with pytest.raises(SkeletonFormatError, match="line 221"):
        read_skeleton(ntu_file)


def test_ntu_files_without_anybody_are_refused(tmp_path):
    path = tmp_path / "empty.skeleton"
    path.write_text("3\n0\n0\n0\n")
    with pytest.raises(SkeletonFormatError, match="no body in any of 3 frames"):
        read_skeleton(path)


def test_four_bodies_are_read_and_ordered_by_energy(tmp_path):
    scale = np.array([1.0, 3.0, 2.0, 5.0, 9.0])[:, None, None]
    keypoints = np.random.default_rng(0).normal(size=(6, 5, 25, 3)) * scale
    keypoints = keypoints.astype(np.float32)
    sequence = read_skeleton(write_ntu(tmp_path / "crowd.skeleton", keypoints))
    # The fifth body of a frame is never read, as in the release.
    np.testing.assert_array_equal(sequence.keypoints, keypoints[:, [3, 1, 2, 0]])
    assert sequence.label is None and sequence.subject is None


def test_random_damage_gives_a_sequence_or_one_error(ntu_file):
    """500 mutations of a real layout: no other exception, and every error names the file."""
    content = ntu_file.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(len(damaged))
            kind = generator.randrange(4)
            if kind == 0:
                damaged[place] = generator.randrange(256)
            elif kind == 1:
                del damaged[place : place + generator.randint(1, 200)]
            elif kind == 2:
                damaged[place:place] = generator.choice([b"\n", b" ", b"nan ", b"9999999", b"-", b"1e400 "])
            else:
                damaged = damaged[: place + 1]
        ntu_file.write_bytes(bytes(damaged))
        try:
            read_skeleton(ntu_file)
        except SkeletonFormatError as error:
            refused += 1
            assert str(ntu_file) in str(error) or ntu_file.stem in str(error)
    assert 100 < refused < 500


def test_arrays_are_read(tmp_path):
    keypoints = np.random.randn(30, 25, 3).astype(np.float32)
    np.save(tmp_path / "one.npy", keypoints)
    np.savez(tmp_path / "only.npz", anything=keypoints)
    np.savez(tmp_path / "named.npz", keypoints=keypoints, fps=30)
    for name in ("one.npy", "only.npz", "named.npz"):
        sequence = read_skeleton(tmp_path / name)
        np.testing.assert_array_equal(sequence.keypoints[:, 0], keypoints)
        assert sequence.name == name.split(".")[0]
    np.save(tmp_path / "pair.npy", np.ones((5, 2, 17, 3)))
    assert read_skeleton(tmp_path / "pair.npy", layout="coco17", axes="TMVC").num_persons == 2


@pytest.mark.parametrize("suffix", [".skeleton", ".npy", ".npz", ".txt"])
def test_empty_missing_and_foreign_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    with pytest.raises(SkeletonFormatError, match="there is no such file"):
        read_skeleton(path)
    path.touch()
    with pytest.raises(SkeletonFormatError, match="the file is empty"):
        read_skeleton(path)
    path.write_bytes(bytes(range(256)) * 3)
    with pytest.raises(SkeletonFormatError, match=f"file{suffix}"):
        read_skeleton(path)


def test_python_objects_are_refused_and_never_run(tmp_path):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    objects = np.array([Payload()], dtype=object)
    np.save(tmp_path / "evil.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "evil.npz", keypoints=objects)
    for name in ("evil.npy", "evil.npz"):
        with pytest.raises(SkeletonFormatError, match="Python objects, which are never loaded"):
            read_skeleton(tmp_path / name)
    assert not marker.exists()


def test_cut_arrays_are_refused(tmp_path):
    np.save(tmp_path / "whole.npy", np.random.randn(30, 25, 3))
    np.savez_compressed(tmp_path / "whole.npz", keypoints=np.random.randn(30, 25, 3))
    for name in ("whole.npy", "whole.npz"):
        content = (tmp_path / name).read_bytes()
        for share in (0.01, 0.1, 0.5, 0.95):
            path = tmp_path / f"cut{name[-4:]}"
            path.write_bytes(content[: max(int(len(content) * share), 1)])
            with pytest.raises(SkeletonFormatError, match="cut"):
                read_skeleton(path)


def test_several_arrays_need_a_name(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones((3, 25, 3)), b=np.ones((3, 25, 3)))
    with pytest.raises(SkeletonFormatError, match="which of the arrays a, b"):
        read_skeleton(tmp_path / "two.npz")


def test_a_data_set_file_is_read_sequence_by_sequence():
    sequences = list(iter_skeletons(sample_path()))
    dataset = load_samples()
    assert len(sequences) == len(dataset) == 100
    for sequence, same in zip(sequences, dataset, strict=True):
        np.testing.assert_array_equal(sequence.keypoints, same.keypoints)
    with pytest.raises(SkeletonFormatError, match="several sequences"):
        read_skeleton(sample_path())


def test_shipped_clips_are_small_real_and_of_the_test_people(shared_data):
    assert sample_path().stat().st_size < 2_000_000
    samples, whole = load_samples(), open_data(shared_data / "ui_prmd_vicon.npz")
    assert {sequence.subject for sequence in samples} == {2, 4, 6, 8, 10}
    assert "Public Domain" in str(samples.fields["terms"])
    places = {str(name): number for number, name in enumerate(whole.column("names"))}
    for sequence in samples:
        source = whole[places[sequence.name]]
        np.testing.assert_array_equal(sequence.keypoints, source.keypoints)
        assert (sequence.label, sequence.subject) == (source.label, source.subject)


PLAIN = st.decimals(-9999, 9999, allow_nan=False, allow_infinity=False, places=6).map(str)
ODD = st.sampled_from(
    ["1e5", "-4.37E-05", "nan", "1_0", "--1", "-", ".", "1.2.3", "", "+1", "0x1", "5-", "123456789.123456"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(PLAIN | st.floats(-10, 10).map(repr) | ODD, min_size=0, max_size=6), min_size=1, max_size=8))
def test_numbers_read_all_at_once_are_those_of_float(rows):
    lines = [" ".join(row) for row in rows]
    values, read = plain_decimals(lines, None)
    for line, row, value, done in zip(lines, rows, values, read, strict=True):
        if done:
            assert value.tolist() == [float(field) for field in line.split(" ")[:3]]
        assert (
            done
            or len(row) < 3
            or any(len(field) > 11 or not field.strip("-.0123456789") == "" for field in row[:3])
            or any(field in ("", "-", ".", "--1", "5-", "1.2.3") for field in row[:3])
        )


def test_a_folder_is_no_recording(tmp_path):
    with pytest.raises(SkeletonFormatError, match="it is a folder: name a file in it"):
        read_skeleton(tmp_path)
