"""Facts about data sets: classes, sizes, terms of use and addresses."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetFacts:
    """A data set.

    Attributes:
        name: Short name, as in benchmarks and `usdrl prepare`.
        title: Name in papers.
        url: Address of its owners' page.
        terms: Terms of use.
        size: Number of recordings, people and classes, in words.
        prepare: Command that prepares it, or the file it has to be converted to.
        class_names: Its classes, in the order of the labels; empty if the data contain them.
    """

    name: str
    title: str
    url: str
    terms: str
    size: str
    prepare: str
    class_names: tuple[str, ...] = ()

    @property
    def license(self) -> str:
        """Licence in the hub's spelling; "other" is for research only, and "unknown" has to be asked for."""
        return _LICENSES.get(self.name, "unknown")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(";"))


NTU120_CLASSES = _names(
    "drink water; eat meal/snack; brushing teeth; brushing hair; drop; pickup; throw; sitting down; "
    "standing up (from sitting position); clapping; reading; writing; tear up paper; wear jacket; take off jacket; "
    "wear a shoe; take off a shoe; wear on glasses; take off glasses; put on a hat/cap; take off a hat/cap; cheer up; "
    "hand waving; kicking something; reach into pocket; hopping (one foot jumping); jump up; "
    "make a phone call/answer phone; playing with phone/tablet; typing on a keyboard; "
    "pointing to something with finger; taking a selfie; check time (from watch); rub two hands together; "
    "nod head/bow; shake head; wipe face; salute; put the palms together; cross hands in front (say stop); "
    "sneeze/cough; staggering; falling; touch head (headache); touch chest (stomachache/heart pain); "
    "touch back (backache); touch neck (neckache); nausea or vomiting condition; "
    "use a fan (with hand or paper)/feeling warm; punching/slapping other person; kicking other person; "
    "pushing other person; pat on back of other person; point finger at the other person; hugging other person; "
    "giving something to other person; touch other person's pocket; handshaking; walking towards each other; "
    "walking apart from each other; put on headphone; take off headphone; shoot at the basket; bounce ball; "
    "tennis bat swing; juggling table tennis balls; hush (quiet); flick hair; thumb up; thumb down; make ok sign; "
    "make victory sign; staple book; counting money; cutting nails; cutting paper (using scissors); "
    "snapping fingers; open bottle; sniff (smell); squat down; toss a coin; fold paper; ball up paper; "
    "play magic cube; apply cream on face; apply cream on hand back; put on bag; take off bag; "
    "put something into a bag; take something out of a bag; open a box; move heavy objects; shake fist; "
    "throw up cap/hat; hands up (both hands); cross arms; arm circles; arm swings; running on the spot; "
    "butt kicks (kick backward); cross toe touch; side kick; yawn; stretch oneself; blow nose; "
    "hit other person with something; wield knife towards other person; knock over other person (hit with body); "
    "grab other person's stuff; shoot at other person with a gun; step on foot; high-five; cheers and drink; "
    "carry something with other person; take a photo of other person; follow other person; "
    "whisper in other person's ear; exchange things with other person; support somebody with hand; "
    "finger-guessing game (playing rock-paper-scissors)"
)
PKU_CLASSES = _names(
    "bow; brushing hair; brushing teeth; check time (from watch); cheer up; clapping; "
    "cross hands in front (say stop); "
    "drink water; drop; eat meal/snack; falling; giving something to other person; hand waving; handshaking; "
    "hopping (one foot jumping); hugging other person; jump up; kicking other person; kicking something; "
    "make a phone call/answer phone; pat on back of other person; pickup; playing with phone/tablet; "
    "point finger at the other person; pointing to something with finger; punching/slapping other person; "
    "pushing other person; put on a hat/cap; put something inside pocket; reading; rub two hands together; salute; "
    "sitting down; standing up; take off a hat/cap; take off glasses; take off jacket; "
    "take out something from pocket; taking a selfie; tear up paper; throw; touch back (backache); "
    "touch chest (stomachache/heart pain); touch head (headache); touch neck (neckache); typing on a keyboard; "
    "use a fan (with hand or paper)/feeling warm; wear jacket; wear on glasses; wipe face; writing"
)
_NTU_URL = "https://rose1.ntu.edu.sg/dataset/actionRecognition/"
_NTU_TERMS = "academic research only, on request, no redistribution"
_PKU_URL = "https://www.icst.pku.edu.cn/struct/Projects/PKUMMD.html"
_PKU_TERMS = "academic research only, on request"
# By the name of the data set.
_LICENSES = {
    **dict.fromkeys(("ntu60", "ntu120", "ntu60-2d", "ntu120-2d", "pkummd1", "pkummd2", "uav"), "other"),
    "hdm05_11": "cc-by-sa-3.0",
    "ui_prmd_vicon": "pddl",
    "mocap": "pddl",
}
_NPZ = "an .npz file with the arrays of usdrl_hub.SkeletonDataset"
_PYSKL = "https://github.com/kennymckormick/pyskl/blob/main/tools/data/README.md"

DATASETS: dict[str, DatasetFacts] = {
    facts.name: facts
    for facts in (
        DatasetFacts(
            "ntu60",
            "NTU RGB+D",
            _NTU_URL,
            _NTU_TERMS,
            "56 880 recordings, 40 people, 60 classes",
            "usdrl prepare ntu60 FOLDER --ignore LIST --output-dir ntu60",
            NTU120_CLASSES[:60],
        ),
        DatasetFacts(
            "ntu120",
            "NTU RGB+D 120",
            _NTU_URL,
            _NTU_TERMS,
            "114 480 recordings, 106 people, 120 classes",
            "usdrl prepare ntu120 FOLDER --ignore LIST --output-dir ntu120",
            NTU120_CLASSES,
        ),
        DatasetFacts(
            "ntu60-2d",
            "NTU RGB+D, 2D keypoints (HRNet)",
            _PYSKL,
            _NTU_TERMS,
            "56 880 recordings, 40 people, 60 classes",
            "usdrl prepare file ntu60_hrnet.pkl --protocol xsub --output-dir ntu60-2d",
            NTU120_CLASSES[:60],
        ),
        DatasetFacts(
            "ntu120-2d",
            "NTU RGB+D 120, 2D keypoints (HRNet)",
            _PYSKL,
            _NTU_TERMS,
            "114 480 recordings, 106 people, 120 classes",
            "usdrl prepare file ntu120_hrnet.pkl --protocol xsub --output-dir ntu120-2d",
            NTU120_CLASSES,
        ),
        DatasetFacts(
            "pkummd1",
            "PKU-MMD, phase 1",
            _PKU_URL,
            _PKU_TERMS,
            "1076 untrimmed videos, 66 people, 51 classes",
            "usdrl prepare pku1 FOLDER --protocol xsub --split-file FILE --output-dir pkummd1",
            PKU_CLASSES,
        ),
        DatasetFacts(
            "pkummd2",
            "PKU-MMD, phase 2",
            _PKU_URL,
            _PKU_TERMS,
            "1009 untrimmed videos, 13 people, 51 classes",
            "usdrl prepare pku2 FOLDER --protocol xsub --split-file FILE --output-dir pkummd2",
            PKU_CLASSES,
        ),
        DatasetFacts(
            "uav",
            "UAV-Human",
            "https://github.com/sutdcv/UAV-Human",
            "academic research only, on request",
            "22 476 recordings, 119 people, 155 classes",
            "usdrl prepare uav FOLDER --protocol v1 --output-dir uav",
        ),
        DatasetFacts(
            "utd_mhad",
            "UTD-MHAD",
            "https://personal.utdallas.edu/~kehtar/UTD-MHAD.html",
            "see its owners' page",
            "861 recordings, 8 people, 27 classes",
            _NPZ,
        ),
        DatasetFacts(
            "nw_ucla",
            "Northwestern-UCLA",
            "https://wangjiangb.github.io/my_data.html",
            "see its owners' page",
            "1484 recordings, 10 people, 10 classes, 3 cameras",
            _NPZ,
        ),
        DatasetFacts(
            "sbu",
            "SBU Kinect Interaction",
            "https://www3.cs.stonybrook.edu/~kyun/research/kinect_interaction/",
            "see its owners' page",
            "282 recordings of two people, 8 classes",
            _NPZ,
        ),
        DatasetFacts(
            "utkinect",
            "UTKinect-Action3D",
            "https://cvrc.ece.utexas.edu/KinectDatasets/HOJ3D.html",
            "see its owners' page",
            "199 recordings, 10 people, 10 classes",
            _NPZ,
        ),
        DatasetFacts(
            "utkinect_untrimmed",
            "UTKinect-Action3D, whole recordings",
            "https://cvrc.ece.utexas.edu/KinectDatasets/HOJ3D.html",
            "see its owners' page",
            "20 recordings, 10 people, 10 classes",
            f"{_NPZ}, with frame_labels",
        ),
        DatasetFacts(
            "hdm05_11",
            "HDM05, 11 classes",
            "https://resources.mpi-inf.mpg.de/HDM05/",
            "CC BY-SA 3.0",
            "288 recordings, 5 people, 11 classes",
            _NPZ,
        ),
        DatasetFacts(
            "jhmdb",
            "JHMDB, 2D joints",
            "http://jhmdb.is.tue.mpg.de/",
            "see its owners' page",
            "609 recordings, 14 classes",
            _NPZ,
        ),
        DatasetFacts(
            "msrc12",
            "MSRC-12 Kinect gestures",
            "https://www.microsoft.com/en-us/download/details.aspx?id=52283",
            "see its owners' page",
            "593 recordings, 30 people, 12 gestures",
            f"{_NPZ}, with events",
        ),
        DatasetFacts(
            "ui_prmd_vicon",
            "UI-PRMD, Vicon",
            "https://www.webpages.uidaho.edu/ui-prmd/",
            "public domain (PDDL 1.0)",
            "1980 recordings, 10 people, 10 movements",
            _NPZ,
        ),
        DatasetFacts(
            "mocap",
            "UI-PRMD (Vicon; five of its ten people), takes of CMU's motion capture (walks, jumps, sports, dances, "
            "martial arts, acrobatics, couples), and idling of ReActIdle",
            "https://www.webpages.uidaho.edu/ui-prmd/ and http://mocap.cs.cmu.edu",
            "public domain (PDDL 1.0), free for research and commercial use, and MIT; CMU's credit: The data used in "
            "this project was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF "
            "EIA-0196217",
            "1370 recordings, 1.6 hours: 980 of UI-PRMD, 273 of CMU, 117 of ReActIdle",
            "see benchmarks/motion.py",
        ),
    )
}


def nearest(name: str, known: list[str]) -> str:
    """Hint for an unknown name: similar known names, or all."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
