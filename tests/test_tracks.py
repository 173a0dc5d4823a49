"""Track numbers, frame numbers and timestamps of files."""

import json
import warnings

import numpy as np
import pytest

from usdrl_hub import SkeletonFormatError, get_layout, read_skeleton
from usdrl_hub.data.csv import read_csv
from usdrl_hub.data.poses import read_pose_json
from usdrl_hub.data.readers import find_recordings
from usdrl_hub.data.reading import Reading
from usdrl_hub.data.tracks import Detections, stack_people
from usdrl_hub.errors import EmptySequenceError, USDRLWarning

RNG = np.random.default_rng(0)
# Two people who walk to the right, 800 pixels apart: (frames, people, joints, x y score).
WALK = np.concatenate(
    [
        RNG.uniform(0, 80, (1, 2, 17, 2))
        + np.arange(120)[:, None, None, None] * [3, 0]
        + [[[100, 100]], [[900, 100]]],
        np.ones((120, 2, 17, 1)),
    ],
    axis=-1,
).round(2)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def alphapose(path, rows):
    """Rows of (image, track, joints)."""
    return write(
        path,
        [
            {"image_id": image, "keypoints": np.ravel(joints).tolist(), "score": 1.0}
            | ({} if track == "" else {"idx": track})
            for image, track, joints in rows
        ],
    )


def mmpose(path, frames):
    """Frames of (number, [(track, joints)])."""
    info = []
    for number, people in frames:
        instances = [
            {"keypoints": joints[:, :2].tolist(), "keypoint_scores": joints[:, 2].tolist()}
            | ({} if track is None else {"track_id": track})
            for track, joints in people
        ]
        info.append({"frame_id": number, "instances": instances})
    return write(path, {"instance_info": info})


def table(path, rows, columns=("frame", "person"), layout="coco17", axes=("x", "y", "score")):
    """Rows of (frame, person, joints)."""
    names = [f"{joint}_{axis}" for joint in get_layout(layout).joint_names for axis in axes]
    lines = [",".join([*columns, *names])]
    for *keys, joints in rows:
        cells = [
            f"{value:.2f}" if isinstance(value, float | np.floating) else value for value in np.ravel(joints).tolist()
        ]
        lines.append(",".join(map(str, [*keys, *cells])))
    path.write_text("\n".join(lines))
    return path


def same_people(sequence, expected=WALK):
    """Whether the people of a sequence are those expected, in any order."""
    found = sequence.keypoints
    assert found.shape == expected.shape
    order = np.argsort(found[:, :, 0, 0].max(0))
    np.testing.assert_allclose(found[:, order][..., :2], expected[..., :2], atol=0.01)


@pytest.mark.parametrize("track", [0, 0.0, [0], [[0.0], [1.0]], ""])
def test_people_who_share_a_track_number_are_told_apart_by_place(tmp_path, track):
    """faults.md 8: AlphaPose calls everybody 0; one overwrote the other."""
    path = alphapose(
        tmp_path / "a.json",
        [(f"{t}.jpg", track, WALK[t, who]) for t in range(120) for who in ((0, 1) if t % 3 else (1, 0))],
    )
    if track == "":
        same_people(read_pose_json(path))
    else:
        with pytest.warns(USDRLWarning, match="two people have the same track number in a frame"):
            same_people(read_pose_json(path))


def test_shared_numbers_of_other_writers_are_told_apart_by_place(tmp_path):
    """faults.md 8: MMPose, OpenPose and tables."""
    order = [(0, 1) if t % 3 else (1, 0) for t in range(120)]
    path = mmpose(tmp_path / "m.json", [(t, [(0, WALK[t, who]) for who in order[t]]) for t in range(120)])
    with pytest.warns(USDRLWarning, match="same track number"):
        same_people(read_pose_json(path))
    for t in range(120):
        people = [{"person_id": [0], "pose_keypoints_2d": WALK[t, who].ravel().tolist()} for who in order[t]]
        write(tmp_path / f"film_{t:012d}_keypoints.json", {"people": people})
    with pytest.warns(USDRLWarning, match="same track number"):
        same_people(read_skeleton(tmp_path / "film_*_keypoints.json"))
    path = table(tmp_path / "t.csv", [(t, 5, WALK[t, who]) for t in range(120) for who in order[t]])
    with pytest.warns(USDRLWarning, match="same track number"):
        same_people(read_csv(path, Reading("coco17")))


def test_a_tracked_person_beside_one_without_a_number(tmp_path):
    """faults.md 8."""
    rows = [(t, who, WALK[t, who]) for t in range(120) for who in (0, 1)]
    same_people(read_pose_json(alphapose(tmp_path / "a.json", [(t, 0 if who == 0 else "", j) for t, who, j in rows])))
    # A number that is lacking for a few frames is that of the person who is there.
    lost = [(t, "" if who == 0 and 40 <= t < 50 else who, joints) for t, who, joints in rows]
    same_people(read_pose_json(alphapose(tmp_path / "b.json", lost)))


def test_new_track_numbers_go_on_as_the_person_who_is_there(tmp_path):
    """faults.md 9: a number lasts for 4 of 86 frames; 10 "people" were read, and 46 frames lost."""
    path = alphapose(tmp_path / "a.json", [(t, t // 4, WALK[t, 0]) for t in range(86)])
    with pytest.warns(USDRLWarning, match="21 track numbers begin where another has just ended"):
        same_people(read_pose_json(path), WALK[:86, :1])
    two = [(t, 2 * (t // 4) + who, WALK[t, who]) for t in range(86) for who in (0, 1)]
    with pytest.warns(USDRLWarning, match="42 track numbers"):
        same_people(read_pose_json(alphapose(tmp_path / "b.json", two)), WALK[:86])


def test_who_is_left_out_is_told(tmp_path):
    """faults.md 9."""
    rows = [
        (t, who, WALK[0, 0] + [300.0 * who, 0, 0])
        for who in range(12)
        for t in range(40)
        if who > 1 or t < 10 * who + 5
    ]
    with pytest.warns(USDRLWarning, match="the 10 people seen longest of 12 are read; the others are seen 20 times"):
        sequence = read_pose_json(alphapose(tmp_path / "a.json", rows))
    assert sequence.num_persons == 10 and sequence.keypoints[:, :, 0, 0].all()


def test_people_who_are_there_at_once_stay_two():
    frames = np.repeat(np.arange(120), 2)
    rows = WALK.reshape(-1, 17, 3)
    ids = [i % 2 for i in range(240)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = stack_people("walk", Detections(frames, ids, rows))
        np.testing.assert_allclose(found, WALK, rtol=1e-6)
        # A number that comes back after another person took its place is the same person.
        away = (frames < 40) | (frames >= 60) | (np.arange(240) % 2 == 1)
        found = stack_people(
            "walk", Detections(frames[away], [i for i, here in zip(ids, away, strict=True) if here], rows[away])
        )
    assert found.shape[1] == 2 and not found[40:60, 1].any()


def test_a_long_recording_of_many_people_is_linked_at_once():
    """100 000 frames in seconds, whatever the order of the people in them."""
    frames = 20_000
    path = np.cumsum(RNG.normal(0, 0.5, (frames, 3, 1, 2)), axis=0) + 5000.0 * np.arange(3)[:, None, None]
    rows = np.concatenate([path + RNG.uniform(0, 90, (1, 3, 17, 2)), np.ones((frames, 3, 17, 1))], -1)
    shuffled = np.take_along_axis(rows, RNG.random((frames, 3)).argsort(1)[:, :, None, None], 1)
    found = stack_people(
        "long", Detections(np.repeat(np.arange(frames), 3), [None] * 3 * frames, shuffled.reshape(-1, 17, 3))
    )
    order = np.argsort(found[0, :, 0, 0])
    np.testing.assert_allclose(found[:, order], rows, rtol=1e-4)


@pytest.mark.parametrize("name", ["{}", "{}.jpg", "film_{}.png", "out/v1_frame{:06d}.jpeg"])
def test_pictures_of_alphapose_are_put_by_their_numbers(tmp_path, name):
    """faults.md 11: gaps were closed, and the text's order of 0, 1, 10, 11, 2 was taken for that of time."""
    numbers = sorted([*range(10), *range(20, 30)], key=str)
    path = alphapose(tmp_path / "a.json", [(name.format(t), 1, WALK[t, 0]) for t in numbers])
    sequence = read_pose_json(path)
    expected = WALK[:30, :1].copy()
    expected[10:20] = 0
    same_people(sequence, expected)


def test_pictures_without_numbers_keep_the_order_of_the_file(tmp_path):
    """faults.md 11."""
    path = alphapose(tmp_path / "a.json", [("abcdefgh"[t], 1, WALK[t, 0]) for t in range(8)])
    with pytest.warns(USDRLWarning, match="do not number them"):
        same_people(read_pose_json(path), WALK[:8, :1])
    with pytest.raises(SkeletonFormatError, match="not a name or number of a picture"):
        read_pose_json(alphapose(tmp_path / "b.json", [([[1]], 1, WALK[0, 0])]))


def test_frames_of_mmpose_are_put_by_their_numbers(tmp_path):
    """faults.md 11: gaps were closed, and frames without people at the end cut off."""
    frames = [(t + 1, [(1, WALK[t, 0])]) for t in [*range(10), *range(20, 30)]] + [(t + 1, []) for t in range(30, 35)]
    sequence = read_pose_json(mmpose(tmp_path / "m.json", frames[::-1]))
    expected = WALK[:35, :1].copy()
    expected[10:20], expected[30:] = 0, 0
    same_people(sequence, expected)
    with pytest.raises(SkeletonFormatError, match="several frames have the same 'frame_id'"):
        read_pose_json(mmpose(tmp_path / "m.json", [(1, []), (1, [(1, WALK[0, 0])])]))


def test_frames_without_people_stay_at_both_ends(tmp_path):
    """faults.md 11."""
    landmark = {"x": 0.1, "y": -0.5, "z": 0.2}
    frames = [None, {}, {"pose_world_landmarks": []}, {"pose_world_landmarks": [[landmark] * 33]}, None, {}]
    sequence = read_pose_json(write(tmp_path / "w.json", frames))
    assert sequence.num_frames == 6 and sequence.keypoints[3].all() and not sequence.keypoints[[0, 1, 2, 4, 5]].any()
    poses = [[], [{"keypoints": WALK[0, 0, :, :2].tolist(), "scores": [1.0] * 17}], [], []]
    assert read_pose_json(write(tmp_path / "p.json", poses)).num_frames == 4
    for content in ([[], []], {"instance_info": [{"instances": []}]}, [{"pose_landmarks": []}], {"people": []}):
        with pytest.raises(EmptySequenceError):
            read_pose_json(write(tmp_path / "e.json", content))


def test_a_visibility_that_is_missing_is_no_keypoint(tmp_path):
    """faults.md, words that mislead: "a keypoint is NaN or infinite"."""
    landmark = {"x": 0.1, "y": 0.5, "z": 0.2}
    bare = read_pose_json(write(tmp_path / "l.json", [{"pose_landmarks": [landmark] * 33}] * 2))
    assert bare.coordinates == "2d" and bare.keypoints.shape == (2, 1, 33, 2)
    seen = read_pose_json(write(tmp_path / "l.json", [{"pose_landmarks": [landmark | {"presence": 0.5}] * 33}]))
    assert seen.coordinates == "2d+score" and (seen.keypoints[..., 2] == 0.5).all()
    mixed = [landmark | {"visibility": 0.5}] * 32 + [landmark]
    with pytest.raises(SkeletonFormatError, match="frame 0: some landmarks have a 'visibility' and others have not"):
        read_pose_json(write(tmp_path / "l.json", [{"pose_landmarks": mixed}]))
    with pytest.raises(SkeletonFormatError, match="frame 0: a keypoint is missing"):
        read_pose_json(write(tmp_path / "l.json", [{"pose_world_landmarks": [{"x": 1, "y": 2}] * 33}]))


@pytest.mark.parametrize(
    "name, found",
    [
        ("film_{:012d}_keypoints.json", "film_*_keypoints.json"),
        ("img_{:04d}_keypoints.json", "img_*_keypoints.json"),
        ("{}_keypoints.json", "*_keypoints.json"),
        ("{:03d}.json", "*.json"),
        ("a-{}.json", "a-*.json"),
    ],
)
def test_frames_of_openpose_of_any_name_are_one_recording(tmp_path, name, found):
    """faults.md 12: 40 recordings of one frame."""
    for t in [*range(8, 20), *range(25, 40)]:
        people = [{"pose_keypoints_2d": WALK[t, who].ravel().tolist()} for who in (0, 1)]
        write(tmp_path / name.format(t), {"version": 1.3, "people": people})
    np.save(tmp_path / "other1.npy", np.ones(3))
    write(tmp_path / "list_1.json", WALK[:3, 0].tolist())
    paths = find_recordings(tmp_path)
    assert sorted(path.name for path in paths) == sorted([found, "other1.npy", "list_1.json"])
    sequence = read_skeleton(tmp_path / found)
    expected = WALK[8:40].copy()
    expected[12:17] = 0
    same_people(sequence, expected)
    assert sequence.name == (found.split("*")[0].rstrip("_-") or tmp_path.name)
    with pytest.warns(USDRLWarning, match="a file of OpenPose holds one frame"):
        assert read_skeleton(tmp_path / name.format(8)).num_frames == 1


@pytest.mark.parametrize(
    "times, fps",
    [
        ([f"{0.05 * t:.2f}" for t in range(40)], 20),
        ([round(t * 1000 / 30) for t in range(40)], 30),
        ([1_700_000_000_000 + round(t * 1000 / 30) for t in range(40)], 30),
        ([1.7e9 + 0.1 * t for t in range(40)], 10),
    ],
)
@pytest.mark.parametrize("column", ["frame", "time"])
def test_times_in_a_table_are_times(tmp_path, times, fps, column):
    """faults.md 10: 1 frame of 40; 635 frames of 20."""
    path = table(tmp_path / "t.csv", [(time, WALK[t, 0]) for t, time in enumerate(times)], (column,))
    with pytest.warns(USDRLWarning, match="taken for times"):
        sequence = read_csv(path, Reading("coco17"))
    same_people(sequence, WALK[:40, :1])
    assert sequence.fps == pytest.approx(fps, rel=0.01)


def test_several_rows_of_a_frame_are_several_people(tmp_path):
    """faults.md 10: frames 0, 0, 1, 1; half of the rows were lost."""
    path = table(tmp_path / "t.csv", [(t, WALK[t, who]) for t in range(40) for who in (0, 1)], ("frame",))
    with pytest.warns(USDRLWarning, match="several rows have the same frame: they are read as several people"):
        same_people(read_csv(path, Reading("coco17")), WALK[:40])
    path = table(tmp_path / "p.csv", [(who, WALK[t, who]) for t in range(40) for who in (0, 1)], ("person",))
    same_people(read_csv(path, Reading("coco17")), WALK[:40])


def test_holes_in_a_table_are_told(tmp_path):
    """faults.md 10: 1 020 frames of 20 rows, for one empty cell."""
    rows = [[1000 + t, 0, WALK[t, 0]] for t in range(20)]
    rows[7][0] = ""
    with pytest.raises(SkeletonFormatError, match="line 9: the cell of the column 'frame' is empty"):
        read_csv(table(tmp_path / "t.csv", rows), Reading("coco17"))
    with pytest.warns(USDRLWarning, match="1 of 20 frames have no row"):
        sequence = read_csv(table(tmp_path / "t.csv", rows[:7] + rows[8:]), Reading("coco17"))
    expected = WALK[:20, :1].copy()
    expected[7] = 0
    same_people(sequence, expected)
    with pytest.warns(USDRLWarning, match="frame numbers are 5 apart"):
        same_people(
            read_csv(table(tmp_path / "t.csv", [(5 * t, 0, WALK[t, 0]) for t in range(9)]), Reading("coco17")),
            WALK[:9, :1],
        )


def test_a_joint_with_an_empty_coordinate_was_not_seen(tmp_path):
    """faults.md 10: it was put at x = 0."""
    cells = WALK[:5, 0].astype(object)
    cells[2, 3, 0] = ""
    sequence = read_csv(table(tmp_path / "t.csv", [(t, 0, cells[t]) for t in range(5)]), Reading("coco17"))
    assert not sequence.keypoints[2, 0, 3].any() and sequence.keypoints[2, 0, 4].all()
    for written in ("nan", "NaN", "NA", "null"):
        cells[2, 3, 0] = written
        path = table(tmp_path / "w.csv", [(t, 0, cells[t]) for t in range(5)])
        np.testing.assert_array_equal(read_csv(path, Reading("coco17")).keypoints, sequence.keypoints)


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda text: text.replace("nose_x", "nose_y", 1), "line 1: the column 'nose_y' is there twice"),
        (lambda text: text.replace("\n1,", "\n1e300,", 1), "a number in the column 'frame' is too large"),
        (lambda text: text.replace("\n4,", "\n1000000000,", 1), "frames contain detections"),
        (lambda text: text.replace("\n2,0,", "\n\n2,0," + "9" * 5000, 1), "line 5: '9{40}' is not a finite number"),
        (lambda text: text.replace("\n2,", "\n2_0,", 1), "line 4: '2_0' is not a finite number"),
    ],
)
def test_damaged_tables_are_refused_by_line(tmp_path, edit, message):
    """faults.md 24 and 27."""
    path = table(tmp_path / "t.csv", [(t, 0, WALK[t, 0]) for t in range(5)])
    path.write_text(edit(path.read_text()))
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        read_csv(path, Reading("coco17"))
    assert str(path) in str(caught.value) and len(str(caught.value)) < 300
