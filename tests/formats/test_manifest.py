"""Every file of ../shared/recordings: what it is read as, or the sentence that says why it is not."""

import numpy as np
import pytest

from usdrl_hub import get_layout
from usdrl_hub.data.readers import find_recordings, iter_skeletons
from usdrl_hub.errors import LONGEST_SENTENCE, SkeletonFormatError

from .clip import SHARED, is_upright, needs_shared

# Recordings of a file, layout, frames and people of the first, its coordinates, frames per second and up axis.
READ = """
asfamc/01_01.amc 1 cmu31 2751 1 3d 120 y
asfamc/02_01.amc 1 cmu31 343 1 3d 120 y
bvh/bvh_test3.bvh 1 named 100 1 3d 120 z
bvh/cmu_01_01_motionbuilder.bvh 1 named 2752 1 3d 120 y
bvh/freebvh.bvh 1 named 69 1 3d 30 y
bvh/mocapbank.bvh 1 named 455 1 3d 30 y
bvh/pybvh_example.bvh 1 named 75 1 3d 30 z
bvh/pymo_walk.bvh 1 named 1064 1 3d 120 y
coco-json/posetrack18_012834.json 1 posetrack17 1 10 2d+score - -
coco-json/test_coco.json 4 coco17 1 1 2d+score - -
coco-json/test_coco_wholebody.json 4 coco17 1 1 2d+score - -
coco-json/test_halpe.json 4 halpe26 1 1 2d+score - -
generated/NTU60_CS.npz 8 ntu25 86 1 3d - y
generated/ap_coco17.json 1 coco17 86 1 2d+score - -
generated/ap_coco17_tracked.json 1 coco17 86 1 2d+score - -
generated/ap_halpe136.json 1 halpe26 86 1 2d+score - -
generated/ap_halpe26.json 1 halpe26 86 1 2d+score - -
generated/ap_two_float.json 1 coco17 86 2 2d+score - -
generated/ap_two_int.json 1 coco17 86 2 2d+score - -
generated/ap_two_list.json 1 coco17 86 2 2d+score - -
generated/azure_kinect.json 1 azure32 86 1 3d 30 -y
generated/coco_results.json 1 coco17 86 1 2d+score - -
generated/kinect_headerless.csv 1 ntu25 86 1 3d - -
generated/kinect_sdk.csv 1 ntu25 86 1 3d 30 -
generated/kinetics_skeleton.json 1 openpose18 86 1 2d+score - -
generated/mm_demo_save_predictions.json 1 coco17 86 1 2d+score - -
generated/mm_halpe26.json 1 halpe26 86 1 2d+score - -
generated/mm_human3d.json 1 h36m17 86 1 3d - z
generated/mm_inferencer_image.json 1 coco17 1 1 2d+score - -
generated/mm_inferencer_video.json 1 coco17 86 1 2d+score - -
generated/mm_wholebody133.json 1 wholebody23 86 1 2d+score - -
generated/mp_10_UPPER_names.csv 1 mediapipe33 86 1 3d - -y
generated/mp_11_long.csv 1 mediapipe33 86 1 3d - -y
generated/mp_1_tasks_snake.json 1 mediapipe33 86 1 3d - -y
generated/mp_2_list_of_frames.json 1 mediapipe33 86 1 2d+score - -
generated/mp_3_frames_dict.json 1 mediapipe33 86 1 2d+score 30 -
generated/mp_4_camel_legacy.json 1 mediapipe33 86 1 3d - -y
generated/mp_5_tasks_js.json 1 mediapipe33 86 1 3d - -y
generated/mp_6_world_list.json 1 mediapipe33 86 1 3d - -y
generated/mp_7_lines.jsonl 1 mediapipe33 86 1 3d 30 -y
generated/mp_8_renotte.csv 1 mediapipe33 86 1 2d+score - -
generated/mp_9_names_world.csv 1 mediapipe33 86 1 3d - -y
generated/mp_world_list.json 1 mediapipe33 86 1 3d - -y
generated/ntu60_3danno.pkl 2 ntu25 86 1 3d - y
generated/ntu60_hrnet.pkl 2 coco17 86 1 2d+score - -
generated/openpose_hf/film_*_keypoints.json 1 openpose25 3 1 2d+score - -
generated/train_data_joint.npy 4 ntu25 86 1 3d - y
generated/videopose_output.npz 1 h36m17 86 1 3d - y
generated/yolo_labels/film_*.txt 1 coco17 3 1 2d+score - -
generated/yolo_to_json.json 1 coco17 86 1 2d+score - -
keraal/G3-AP-CTK-P1T1-Unknown-C-0.json 1 coco17 196 1 2d - -
keraal/G3-AP-ELK-P1T1-Unknown-C-0.json 1 coco17 193 1 2d - -
keraal/G3-BP-CTK-P1T1-Unknown-C-0.json 1 mediapipe33 196 1 2d - -
keraal/G3-BP-ELK-P1T1-Unknown-C-0.json 1 mediapipe33 193 1 2d - -
keraal/G3-Kinect-CTK-P1T1-Unknown-C-0.txt 1 ntu25 197 1 3d - -
keraal/G3-Kinect-ELK-P1T1-Unknown-C-0.txt 1 ntu25 193 1 3d - -
keraal/G3-OP-CTK-P1T1-Unknown-C-0.json 1 openpose18 197 1 2d - -
keraal/G3-OP-ELK-P1T1-Unknown-C-0.json 1 openpose18 194 1 2d - -
keraal/G3-Vicon-CTK-P1T1-Unknown-C-0.txt 1 keraal17 390 1 3d - -
keraal/G3-Vicon-ELK-P1T1-Unknown-C-0.txt 1 keraal17 385 1 3d - -
openpose-frames-other-name/*.json 1 openpose25 40 2 2d+score - -
openpose-frames/14_*_keypoints.json 1 openpose25 30 1 2d+score - -
panoptic/body3DScene_*.json 1 panoptic19 2 3 3d 29.97 -y
trc/opencap.trc 1 opencap51 861 1 3d 100 y
trc/pose2sim.trc 1 named 100 1 3d 60 y
"""
REFUSED = {
    "asfamc/01.asf": "skeleton of recordings that end in .amc",
    "asfamc/02.asf": "skeleton of recordings that end in .amc",
    "c3d/markers_analogs.c3d": "51 markers .* make no whole body",
    "c3d/optitrack_walking.c3d": "12 markers .* make no whole body",
    "c3d/sprintbasket.c3d": "26 markers .* make no whole body",
    "generated/train_label.pkl": "names and labels, no keypoints",
    "generated/videopose_positions.npz": "Python objects, which are never loaded",
    "h36m/test_h36m.npz": "single pictures",
    "h36m/test_h36m_body3d.npz": "single pictures",
    "mmaction/joint.pkl": "tensors of PyTorch",
    "mot/Pose2Sim_motion.mot": "OpenSim's .mot",
    "mot/inverse_kin.mot": "OpenSim's .mot",
    "opencap/sample_mono.json": "OpenCap's scene",
    "trc/markers.trc": "51 markers .* make no whole body",
}
ROWS = [row.split() for row in READ.split("\n") if row]

pytestmark = needs_shared


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_a_recording_is_read_as(row):
    found = list(iter_skeletons(SHARED / row[0]))
    first = found[0]
    assert [
        *(str(len(found)), get_layout(first.layout).name, str(first.num_frames), str(first.num_persons)),
        *(first.coordinates, "-" if first.fps is None else f"{first.fps:g}", first.up or "-"),
    ] == row[1:]
    assert first.units == "m" and all(np.isfinite(one.keypoints).all() for one in found)
    is_upright(first)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_in_a_sentence(name):
    with pytest.raises(SkeletonFormatError, match=REFUSED[name]) as caught:
        list(iter_skeletons(SHARED / name))
    assert str(SHARED / name)[:100] in str(caught.value) and len(str(caught.value)) <= LONGEST_SENTENCE


def test_the_table_has_every_file():
    files = [file for file in SHARED.rglob("*") if file.is_file() and file.parent != SHARED]
    known = {row[0] for row in ROWS} | set(REFUSED) | {"pose-format/mediapipe.pose", "pose-format/openpose.pose"}
    whole = {str(path.relative_to(SHARED)) for path in find_recordings(SHARED)}
    for file in files:
        name = str(file.relative_to(SHARED))
        assert name in known or any(file.match(pattern) for pattern in known if "*" in pattern), name
    # What lies in the folder and is a recording is found there.
    assert whole - set(REFUSED) >= {row[0] for row in ROWS}
