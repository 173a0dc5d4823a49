"""Data sets of graph networks and MMAction2, and arrays of other programs."""

import pickle

import numpy as np
import pytest

from usdrl_hub import get_layout
from usdrl_hub.data.prepare import prepare
from usdrl_hub.data.readers import find_recordings, iter_skeletons, read_skeleton
from usdrl_hub.data.store import SkeletonStore
from usdrl_hub.errors import SkeletonFormatError, USDRLWarning

from .clip import GENERATED, SHARED, needs_shared, same_squat, squat

NAMES = [f"S001C002P00{number}R001A00{number}" for number in (1, 2, 3, 4)]


def padded(people=1, bodies=None):
    """Four recordings ``(N, T, M, V, C)`` of the squat, with zeros behind it."""
    clips = np.zeros((4, 300, 2, 25, 3), np.float32)
    clips[:, :86, :people] = (squat() if bodies is None else bodies)[None, :, None]
    return clips


def write_agcn(folder, clips, labels=(0, 1, 2, 3)):
    path = folder / "val_data_joint.npy"
    np.save(path, clips.transpose(0, 4, 1, 3, 2))
    with open(folder / "val_label.pkl", "wb") as file:
        pickle.dump(([f"{name}.skeleton" for name in NAMES], list(labels)), file)
    return path


def test_arrays_of_2s_agcn(tmp_path):
    path = write_agcn(tmp_path, padded())
    first, *others = iter_skeletons(path)
    assert [one.name for one in (first, *others)] == NAMES and [one.label for one in (first, *others)] == [0, 1, 2, 3]
    assert (first.subject, first.camera, first.setup, first.split, first.up) == (1, 2, 1, "test", "y")
    # Frames of zeros behind the last one, and a second person of zeros, are padding.
    assert first.keypoints.shape == (86, 1, 25, 3)
    same_squat(first)
    with pytest.raises(SkeletonFormatError, match="several sequences"):
        read_skeleton(path)
    assert find_recordings(tmp_path) == [path]
    assert next(iter_skeletons(write_agcn(tmp_path, padded(2)))).num_persons == 2
    (tmp_path / "val_label.pkl").unlink()
    assert [one.label for one in iter_skeletons(path)] == [None] * 4
    with pytest.raises(SkeletonFormatError, match="not names and labels of the 4 recordings"):
        next(iter_skeletons(write_agcn(tmp_path, padded(), (0, 1, 2, 300.5))))


def test_arrays_that_2s_agcn_has_turned_are_upright(tmp_path):
    """It turns the spine onto z, and moves a joint to the origin."""
    turned = squat()[..., [0, 2, 1]] * np.float32([1, -1, 1])
    path = write_agcn(tmp_path, padded(bodies=turned - turned[0, 1]))
    with pytest.warns(USDRLWarning, match="people stand along its axis z"):
        first = next(iter_skeletons(path))
    assert first.up == "z" and first.keypoints.any(-1).all()
    same_squat(first)
    assert next(iter_skeletons(path, reading_of("y"))).up == "y"


def reading_of(up):
    from usdrl_hub import Reading

    return Reading(up=up)


def test_archives_of_ctr_gcn(tmp_path):
    clips = padded().reshape(4, 300, 150)
    np.savez(
        tmp_path / "a.npz", x_train=clips[:3], y_train=np.eye(60)[[5, 6, 7]], x_test=clips[3:], y_test=np.eye(60)[[9]]
    )
    found = list(iter_skeletons(tmp_path / "a.npz"))
    assert [(one.name, one.label, one.split) for one in found] == [
        *(("train_0", 5, "train"), ("train_1", 6, "train"), ("train_2", 7, "train"), ("test_0", 9, "test"))
    ]
    for one in found:
        same_squat(one)
    np.savez(tmp_path / "a.npz", x_train=clips[..., :149], y_train=np.eye(60)[:4])
    with pytest.raises(SkeletonFormatError, match=r"'x_train' is not numbers \(recordings, frames, 150\)"):
        list(iter_skeletons(tmp_path / "a.npz"))


def test_a_store_of_ctr_gcn_has_its_split(tmp_path):
    clips = padded().reshape(4, 300, 150)
    np.savez(tmp_path / "a.npz", x_train=clips[:3], y_train=np.eye(4)[:3], x_test=clips[3:], y_test=np.eye(4)[3:])
    prepare("file", tmp_path / "a.npz", tmp_path / "store")
    store = SkeletonStore.open(tmp_path / "store")
    assert len(store) == 4 and store.column("split_test").ravel().tolist() == [False, False, False, True]


def annotation(name, **more):
    return {"frame_dir": name, "label": 3, "keypoint": squat()[None].astype(np.float16), "total_frames": 86, **more}


@pytest.mark.parametrize("form", ["set", "list", "one"])
def test_annotations_of_mmaction2_are_3d(tmp_path, form):
    """faults: read as OpenPose, z as score; lists of annotations were refused, and the split was lost."""
    entries = [annotation(name) for name in NAMES[:2]]
    split = {"xsub_train": [NAMES[0]], "xsub_val": [NAMES[1]]}
    content = {"set": {"split": split, "annotations": entries}, "list": entries, "one": entries[0]}[form]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    found = list(iter_skeletons(tmp_path / "a.pkl"))
    assert [one.name for one in found] == NAMES[: 1 if form == "one" else 2]
    assert [one.split for one in found] == (["train", "test"] if form == "set" else [None] * len(found))
    for one in found:
        assert (get_layout(one.layout).name, one.coordinates, one.up, one.label) == ("ntu25", "3d", "y", 3)
        same_squat(one, atol=2e-3)


def test_pickles_that_are_no_recording_are_told(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps((["a", "b"], [0, 1])))
    with pytest.raises(SkeletonFormatError, match="names and labels, no keypoints"):
        list(iter_skeletons(path))
    path.write_bytes(pickle.dumps({"person_data": {}}))
    with pytest.raises(SkeletonFormatError, match="SMPL parameters"):
        list(iter_skeletons(path))
    path.write_bytes(b"ctorch._utils\n_rebuild_tensor_v2\n(I1\ntR.")
    with pytest.raises(SkeletonFormatError, match="tensors of PyTorch"):
        list(iter_skeletons(path))


@pytest.mark.parametrize("layout", ["ntu25", "h36m17", "smpl22"])
def test_numbers_of_a_frame_in_a_row(tmp_path, layout):
    np.save(tmp_path / "a.npy", squat(layout).reshape(86, -1))
    if layout == "h36m17":
        with pytest.raises(SkeletonFormatError, match=r"\(86, 51\) may be 17 joints x 3 numbers in a row: name"):
            read_skeleton(tmp_path / "a.npy")
    same_squat(read_skeleton(tmp_path / "a.npy", layout=layout), by_way_of=layout)


def test_arrays_of_human36m(tmp_path):
    turned = squat("h36m17")[..., [0, 2, 1]] * np.float32([1, -1, 1])
    np.savez(tmp_path / "a.npz", reconstruction=turned)
    sequence = read_skeleton(tmp_path / "a.npz")
    assert (get_layout(sequence.layout).name, sequence.up) == ("h36m17", "z")
    same_squat(sequence, by_way_of="h36m17")
    np.savez(tmp_path / "a.npz", positions_3d=np.array({"S1": {}}, dtype=object))
    with pytest.raises(SkeletonFormatError, match="holds Python objects, which are never loaded: save each recording"):
        read_skeleton(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", imgname=np.array(["a"]), S=np.ones((1, 17, 4)))
    with pytest.raises(SkeletonFormatError, match="single pictures"):
        read_skeleton(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.ones((50, 263)))
    with pytest.raises(SkeletonFormatError, match="263 features of HumanML3D"):
        read_skeleton(tmp_path / "a.npy")


@needs_shared
@pytest.mark.parametrize("name, count", [("NTU60_CS.npz", 8), ("train_data_joint.npy", 4), ("ntu60_3danno.pkl", 2)])
def test_generated_data_sets(name, count):
    found = list(iter_skeletons(GENERATED / name))
    assert len(found) == count and {one.split for one in found} <= {"train", "test"}
    for one in found:
        same_squat(one, atol=2e-3 if name.endswith("pkl") else 1e-4)


@needs_shared
@pytest.mark.parametrize(
    "name, message",
    [
        ("h36m/test_h36m.npz", "single pictures"),
        ("h36m/test_h36m_body3d.npz", "single pictures"),
        ("mmaction/joint.pkl", "tensors of PyTorch"),
        ("opencap/sample_mono.json", "OpenCap's scene"),
        ("mot/Pose2Sim_motion.mot", "OpenSim's .mot"),
        ("mot/inverse_kin.mot", "OpenSim's .mot"),
        ("generated/train_label.pkl", "names and labels"),
        ("generated/videopose_positions.npz", "Python objects"),
    ],
)
def test_real_files_that_are_no_recording_are_told(name, message):
    with pytest.raises(SkeletonFormatError, match=message) as caught:
        list(iter_skeletons(SHARED / name))
    assert str(caught.value).startswith(str(SHARED / name)[:100]) and len(str(caught.value)) <= 300
