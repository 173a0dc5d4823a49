"""What files of recordings are, as they are read, and what the command prints of it."""

import json

import numpy as np
import pytest

from usdrl_hub import Reading, write_store
from usdrl_hub.data.inspection import files_to_inspect, inspect_file, inspect_files, summary_of
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.errors import SkeletonFormatError, USDRLWarning

from .formats.clip import squat
from .formats.writers import write_all
from .helpers import run, walking
from .motion_capture import write_squats

# Kind, origin of the layout, recordings, layout, frames, rate and unit in the file of what the guide's files are.
KINDS = """
mediapipe.json                 | MediaPipe | file | 1 | mediapipe33 | 86 | - | -
ultralytics.json               | Ultralytics | number of joints | 1 | coco17 | 86 | - | -
labels/film_*.txt              | Ultralytics, a file per frame | number of joints | 1 | coco17 | 86 | - | -
mmpose.json                    | MMPose | number of joints | 1 | coco17 | 86 | - | -
alphapose.json                 | AlphaPose or COCO results | number of joints | 1 | coco17 | 86 | - | -
poses/squat_*_keypoints.json   | OpenPose, a file per frame | number of joints | 1 | openpose25 | 86 | - | -
coco.json                      | COCO annotations | number of joints | 1 | coco17 | 86 | - | -
kinect.csv                     | table | names | 1 | ntu25 | 86 | - | -
kinect.txt                     | lines of numbers | number of joints | 1 | ntu25 | 86 | - | -
azure.json                     | Azure Kinect | file | 1 | azure32 | 86 | - | mm
a12_s05_e01_skeleton3D.txt     | lines of numbers | number of joints | 1 | msr20 | 86 | 15.0 | -
panoptic/body3DScene_*.json    | CMU Panoptic, a file per frame | file | 1 | panoptic19 | 86 | - | cm
train_data_joint.npy           | 2s-AGCN | number of joints | 4 | ntu25 | 86 | - | -
NTU60_CS.npz                   | CTR-GCN | file | 4 | ntu25 | 86 | - | -
ntu60_3danno.pkl               | pyskl pickle | number of joints | 2 | ntu25 | 86 | - | -
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in KINDS.strip().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    write_all(folder)
    return folder


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_kind_says_what_it_is(folder, row):
    facts = inspect_file(folder / row[0])
    first = facts.recordings[0]
    values = [facts.kind, facts.layout_from, len(facts.recordings), first.layout, first.frames, first.fps]
    assert ["-" if value is None else str(value) for value in (*values, first.file_units)] == row[1:]
    assert not facts.problems and first.people == 1 and first.unseen == 0 and first.empty_frames == 0
    if first.coordinates == "3d":
        assert first.units == "m" and first.up is not None and first.height == pytest.approx(1.86, abs=0.1)
    else:
        assert first.units == "px" and first.up is None and first.height is None


def test_unseen_joints_empty_frames_people_and_time_are_counted(tmp_path):
    points = walking(20, persons=3).keypoints.copy()
    points[:, 2] = 0  # a person who is never seen
    points[5:10] = 0  # and nobody here
    points[0, 0, :5] = 0
    np.savez(tmp_path / "walk.npz", keypoints=points)
    [one] = inspect_file(tmp_path / "walk.npz", Reading(layout="ntu25", fps=10, up="y")).recordings
    assert (one.people, one.frames, one.empty_frames, one.seconds, one.fps) == (2, 20, 5, 2.0, 10)
    assert one.unseen == pytest.approx(5 / (15 * 2 * 25))


def test_what_is_given_is_said_to_be_given(tmp_path):
    np.save(tmp_path / "a.npy", squat("kinect20"))
    assert inspect_file(tmp_path / "a.npy", Reading(layout="kinect20")).layout_from == "given"
    assert not inspect_file(tmp_path / "a.npy").recordings


def test_notes_and_problems_are_kept_with_their_file(tmp_path):
    write_squats(tmp_path)
    (tmp_path / "b.bvh").write_text("HIERARCHY\n")
    facts = list(inspect_files([tmp_path / "squat.bvh", tmp_path / "b.bvh"], workers=2))
    assert [kind for _, kind in facts[0].notes] == ["units guessed by body height"] and not facts[0].problems
    assert facts[1].kind == "BVH" and not facts[1].recordings and "b.bvh" in facts[1].problems[0]
    assert json.loads(json.dumps(facts[0].to_dict()))["notes"] == [facts[0].notes[0][0]]


def test_stores_and_data_sets_list_their_recordings(tmp_path):
    clips = load_samples()[:5]
    write_store(clips, tmp_path / "store")
    for path, kind, count in ((tmp_path / "store", "store", 5), (sample_path(), "data set", 100)):
        facts = inspect_file(path)
        assert (facts.kind, facts.layout_from, len(facts.recordings)) == (kind, "file", count)
        assert [one.name for one in facts.recordings[:5]] == [clip.name for clip in clips]
        assert [one.label for one in facts.recordings[:5]] == [clip.label for clip in clips]
    assert files_to_inspect(tmp_path / "store") == [tmp_path / "store"]


def test_a_folder_is_a_table_with_sums_and_what_is_passed_over(capsys, folder):
    code, out, err = run(capsys, "inspect", folder, "--workers", 2)
    assert code == 0 and "Traceback" not in err
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["file", "kind", "layout", "recordings"] and len(lines) == 2 + 15 + 4
    assert lines[-3].startswith("15 files, 22 recordings, ") and "recordings without a rate" in lines[-3]
    assert "NTU RGB" not in lines[-2] and "MediaPipe (1)" in lines[-2] and "coco17 (5)" in lines[-1]
    assert any(line.startswith("labels/film_*.txt ") for line in lines)


def test_other_files_and_unreadable_ones_are_named(capsys, tmp_path):
    np.save(tmp_path / "a.npy", squat())
    for name in ("notes.md", "more.md", "b.fbx", "LICENSE"):
        (tmp_path / name).write_text("text")
    (tmp_path / "c.npy").write_bytes(b"")
    code, out, err = run(capsys, "inspect", tmp_path)
    assert code == 2 and f"usdrl: {tmp_path / 'c.npy'}: the file is empty" in err
    assert "other files are passed over: 1 without an ending, 1 .fbx, 2 .md" in err
    assert "c.npy  not read" in out and "2 files (1 not read), 1 recordings" in out
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.md").write_text("text")
    with pytest.raises(SkeletonFormatError, match=r"no recording and no video in this folder \(1 .md\)"):
        files_to_inspect(tmp_path / "empty")


def test_one_file_is_described_line_by_line(capsys, folder):
    code, out, _ = run(capsys, "inspect", folder / "azure.json")
    assert code == 0
    facts = dict(line.strip().split(None, 1) for line in out.splitlines()[1:] if len(line.split()) > 1)
    assert facts["kind"] == "Azure Kinect" and facts["layout"] == "azure32 (32 joints)" and facts["up"] == "-y"
    assert facts["coordinates"] == "3D, in m (in the file mm)" and facts["frames"] == "86"
    assert facts["duration"].startswith("unknown")
    code, out, _ = run(capsys, "inspect", folder / "kinect.txt", "--fps", 43)
    assert "guessed from the number of joints" in out and "duration       2.0 s" in out


def test_json_has_every_recording_and_the_sums(capsys, folder):
    code, out, _ = run(capsys, "inspect", folder / "NTU60_CS.npz", "--json")
    found = json.loads(out)
    assert code == 0 and [one["frames"] for one in found["files"][0]["recordings"]] == [86] * 4
    assert found["summary"]["layouts"] == {"ntu25": 4} and found["summary"]["frames"] == 344
    assert summary_of([])["recordings"] == 0


def test_a_video_is_described_by_its_container(tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"x")
    facts = inspect_file(film, film=lambda path: {"frames": 9, "fps": 3.0, "seconds": 3.0, "width": 4, "height": 2})
    assert facts.kind == "video" and facts.film["frames"] == 9 and not facts.recordings
    assert "it is a video" in inspect_file(film).problems[0]


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("none.bvh", "there is no such file"),
        ("none_*_keypoints.json", "there is no such file"),
        ("model", "it is a model, not recordings"),
    ],
)
def test_what_is_not_there_is_a_sentence(capsys, tmp_path, name, sentence):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    code, out, err = run(capsys, "inspect", tmp_path / name)
    assert code == 2 and out == "" and sentence in err and len(err.splitlines()) == 1


def test_notes_reach_the_caller_of_a_folder_once(tmp_path):
    (tmp_path / "a.md").write_text("x")
    np.save(tmp_path / "a.npy", squat())
    with pytest.warns(USDRLWarning, match="passed over: 1 .md"):
        assert files_to_inspect(tmp_path) == [tmp_path / "a.npy"]
