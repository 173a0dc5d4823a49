"""Kinds of files that hold no joint positions, and which program makes some of them."""

from __future__ import annotations

# What each is, and what to do; a file's name and a colon stand before it.
FOREIGN = {
    "fbx": "it is FBX, which is not read: export BVH from Blender (File > Export > Motion Capture)",
    "asf": "it is the skeleton of recordings that end in .amc: name one of those",
    "opensim": (
        "it is OpenSim's .mot or .sto of joint angles or forces, which hold no positions: read the .trc of the same "
        "trial, or export positions with OpenSim's BodyKinematics or PointKinematics"
    ),
    "deeplabcut": (
        "it is a table of DeepLabCut, whose points every project names its own: save them as .npy (frames, joints, 2) "
        "and give the layout as its joints and bones"
    ),
    "hdf5": (
        "it is HDF5, as DeepLabCut, SLEAP and others write it, which is not read: save its tracks as .npy (frames, "
        "persons, joints, 2), for SLEAP from 'sleap-convert --format analysis'"
    ),
    "matlab": (
        "it is a file of MATLAB, which is not read: save its positions with scipy.io.loadmat and numpy.save as .npy "
        "(frames, joints, 3)"
    ),
    "pytorch": (
        "it is a file of PyTorch, which is not read: save its keypoints with numpy.save(tensor.numpy()) as .npy"
    ),
    "humanml3d": (
        "it holds the 263 features of HumanML3D, no positions: make joints of them with its recover_from_ric "
        "(frames, 22, 3), and name the layout smpl22"
    ),
    "smpl": (
        "it holds SMPL parameters (poses, betas), as GLAMR and ROMP write them, and no positions: save the joints of "
        "the body model as .npy (frames, 22, 3), and name the layout smpl22"
    ),
    "pictures": (
        "it lists single pictures (imgname) to train a pose model with, and no recording: name the array with a "
        "recording's frames 'keypoints'"
    ),
    "opencap": (
        "it is OpenCap's scene of bodies and meshes for a viewer, and no recording of joints: read the .trc of the "
        "same trial"
    ),
    "labels": (
        "it holds names and labels, no keypoints: they are read with the array beside it, such as "
        "train_data_joint.npy with train_label.pkl"
    ),
}
