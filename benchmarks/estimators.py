"""What pose estimators do to bodies, and how near the estimated sample clip is to its Kinect twin.

    python benchmarks/estimators.py measure --shared SHARED
    python benchmarks/estimators.py twin [MODEL ...] --shared SHARED [--label before]

SHARED holds data/ntu_rgbd_samples (the film S001C001P001R001A001 with the Kinect's skeletons, and three other clips),
data/falling_openpose18.npz (films through OpenPose) and goldens/blazepose_ntu_clip.npz (the film through BlazePose).

`measure` compares BlazePose (full) with the Kinect's skeletons of the same frames: in 3D after moving the mean of the
joints together in each frame and fitting one rotation and one size for the clip; in 2D in the picture, after moving
the mean together and fitting one size. It writes `usdrl_hub/data/pose_errors.json`, from which `PoseErrors` takes its
defaults, and "measured" in the output file. One film with one person: these are magnitudes, not an accuracy.

`twin` embeds the estimated clip (full and lite) and writes the cosine similarity to its Kinect twin, to the three
other NTU clips, and to the hundred sample clips of the package, under "twin" in the output file. Models of 2D
keypoints are given what is in the picture.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from usdrl_hub import SkeletonSequence, USDRLFeatureExtractor, extract_embeddings, get_layout, read_skeleton
from usdrl_hub.data.pose_errors import HEAD, MEASURED, PoseErrors, erring_body, head_axes, torch_bits
from usdrl_hub.data.samples import load_samples
from usdrl_hub.layouts import TO_Y_UP, convert_layout, seen_joints
from usdrl_hub.records import redact_paths, run_record

FILM = "S001C001P001R001A001"
OTHERS = ("S001C001P001R001A011", "S001C003P008R002A058", "S003C001P015R001A034")
MODELS = ("usdrl/mocap-tiny", "usdrl/tiny-uiprmd")
LAYOUT = get_layout("ntu25")
# Lags in frames at which the drift is fitted, below its zero crossing.
LAGS = range(1, 11)
# Frames of a clip.
CLIP = 64
# BlazePose's landmarks are masked below this visibility by `BlazePoseEstimator`.
VISIBLE = 0.5


def kinect(shared: Path, name: str = FILM) -> tuple[np.ndarray, np.ndarray]:
    """The Kinect's joints of person 0 of a film: 3D in metres, y up, and in the picture, in pixels."""
    path = shared / "data" / "ntu_rgbd_samples" / f"{name}.skeleton"
    rows = [line.split() for line in path.read_text().splitlines()]
    pixels = np.array([[float(value) for value in row[5:7]] for row in rows if len(row) == 12])
    return read_skeleton(path).keypoints[:, 0].astype(float), pixels.reshape(-1, LAYOUT.num_joints, 2)


def estimated(shared: Path, network: str, is_3d: bool) -> tuple[np.ndarray, np.ndarray]:
    """BlazePose's joints in the Kinect's layout, and the visibility of its landmarks.

    The films of NTU are mirrored, so the mirror image is taken. 3D in metres, y up; 2D in pixels, y down.
    """
    with np.load(shared / "goldens" / "blazepose_ntu_clip.npz") as file:
        landmarks = file[f"{network}_{'world' if is_3d else 'image'}"].astype(np.float32)
    visibility = landmarks[..., 3]
    mirrored = list(get_layout("mediapipe33").mirrored)
    if is_3d:
        # From y down, z away to y up, z to the camera; and mirrored in x.
        points = landmarks[:, mirrored, :3] * np.float32([-1, -1, -1])
        return convert_layout(points, "mediapipe33", "ntu25").astype(float), visibility
    points = landmarks[:, mirrored, :2] * np.float32([1920, 1080])
    return convert_layout(points, "mediapipe33", "ntu25", coordinates="2d").astype(float), visibility


def aligned(points: np.ndarray, truth: np.ndarray, turn: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Errors ``(T, V, C)`` after moving means together, and fitting one size (and rotation); centred truth; size."""
    points, truth = (array - array.mean(1, keepdims=True) for array in (points, truth))
    flat, onto = (array.reshape(-1, array.shape[-1]) for array in (points, truth))
    rotation = np.eye(flat.shape[1])
    if turn:
        left, _, right = np.linalg.svd(flat.T @ onto)
        signs = [1] * (len(left) - 1) + [np.sign(np.linalg.det(left @ right))]
        rotation = left @ np.diag(signs) @ right
    size = ((flat @ rotation) * onto).sum() / (flat**2).sum()
    return size * points @ rotation - truth, truth, 1 / size


def statistics(errors: np.ndarray, truth: np.ndarray) -> dict:
    """Size of the errors per joint, and how they divide into offset, drift and jitter."""
    body = float(np.sqrt((truth**2).sum(-1).mean()))
    spread = np.sqrt((errors**2).sum(-1).mean(0))
    # A side has no larger errors than the other: their mean square.
    spread = np.sqrt((spread**2 + spread[list(LAYOUT.mirrored)] ** 2) / 2)
    constant = errors.mean(0)
    moving = errors - constant
    power = (moving**2).sum()

    def correlation(lag: int) -> float:
        return float((moving[lag:] * moving[: len(moving) - lag]).sum() / power * len(moving) / (len(moving) - lag))

    curve = [correlation(lag) for lag in LAGS]
    observed = float((constant**2).sum() / (errors**2).mean(0).sum())
    offset, white, frames = fitted(len(errors), observed, curve)
    pairs = [(joint, parent) for joint, parent in enumerate(LAYOUT.parents) if joint != parent]
    standard = errors / np.sqrt((errors**2).sum(-1).mean(0))[:, None]
    along = np.mean([(standard[:, a] * standard[:, b]).sum(-1).mean() for a, b in pairs])
    result = {
        "joints": {
            name: round(float(value / body), 4) for name, value in zip(LAYOUT.joint_names, spread, strict=True)
        },
        "body_size": round(body, 4),
        "constant": round(offset, 3),
        "white": round(white, 3),
        "correlation": round(frames, 1),
        "along": round(float(np.clip(along, 0, 0.99)), 3),
        "mean_over_film": round(observed, 3),
        "autocorrelation": {str(lag): round(value, 3) for lag, value in zip(LAGS, curve, strict=True)},
    }
    if errors.shape[-1] == 3:
        square = (errors**2).mean((0, 1))
        result["depth"] = round(float(np.sqrt(square[2] / square[:2].mean())), 2)
    return result


def fitted(count: int, observed: float, curve: list[float]) -> tuple[float, float, float]:
    """Share of the offset, share of white jitter in the rest, and frames in which the drift falls to 1/e.

    The offset's share is such that the mean over a film of `count` frames has the observed one: a part of that mean is
    drift that is slower than the film is long.
    """
    slope, level = np.polyfit(np.array(LAGS), np.log(curve), 1)
    frames, white = -1 / slope, float(np.clip(1 - np.exp(level), 0, 1))
    lag = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    center = np.eye(count) - 1 / count
    power = np.trace(center @ ((1 - white) * np.exp(-lag / frames) + white * np.eye(count)) @ center) / count
    return float(max(1 - (1 - observed) / power, 0.0)), white, float(frames)


def bone_lengths(points: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean length of each bone beside the Kinect's."""
    lengths = [np.linalg.norm(p - p[:, list(LAYOUT.parents)], axis=-1).mean(0) for p in (points, truth)]
    named = zip(LAYOUT.joint_names, *lengths, strict=True)
    return {name: round(float(a / b), 2) for name, a, b in named if min(a, b) > 0.02}


def gaps(path: Path) -> dict[str, float]:
    """How often limbs are missing for a part of a clip, in films through OpenPose, and for how long."""
    with np.load(path) as file:
        data, offsets = file["data"], file["offsets"]
    clips = []
    for start, end in zip(offsets[:-1], offsets[1:], strict=True):
        for first in range(start, end - CLIP + 1, CLIP):
            clip = seen_joints(data[first : first + CLIP])
            # People who are in the picture all the time, with at least a neck.
            clips += [clip[:, person] for person in range(clip.shape[1]) if clip[:, person].any(-1).all()]
    seen = np.stack(clips)
    missing = ~seen
    part = missing.any(1) & ~missing.all(1)
    # Longest stretch without a joint, for the joints that are missing a part of the time.
    run = longest = np.zeros(missing.shape[::2])
    for frame in range(CLIP):
        run = np.where(missing[:, frame], run + 1, 0)
        longest = np.maximum(longest, run)
    arms = [list(file_joints) for file_joints in ((2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13))]
    gapped = np.stack([part[:, joints].any(1) for joints in arms], 1)
    return {
        "clips": len(seen),
        "missing": round(float(missing.mean()), 3),
        "missing_whole_clip": round(float(missing.all(1).mean()), 3),
        "clips_with_gap_in_a_limb": round(float(gapped.any(1).mean()), 3),
        "limbs_with_gap": round(float(gapped.mean()), 3),
        "mean_longest_gap": round(float(longest[part].mean() / CLIP), 3),
    }


def scores(visibility: np.ndarray, errors: np.ndarray) -> dict[str, float]:
    """Scores of landmarks, and how they go with the errors of joints in the picture."""
    joints = convert_layout(np.repeat(visibility[..., None], 2, -1), "mediapipe33", "ntu25", coordinates="2d")[..., 0]
    far = np.linalg.norm(errors, axis=-1)
    return {
        "mean": round(float(visibility.mean()), 3),
        "spread": round(float(visibility.std()), 3),
        "correlation_with_error": round(float(np.corrcoef(joints.ravel(), far.ravel())[0, 1]), 3),
        "below_half": round(float((visibility < VISIBLE).mean()), 4),
    }


def face(shared: Path, size: float) -> dict[str, list[float]]:
    """Where nose, eyes and ears lie beside the head, in metres to the left, up and to the front.

    The head faces where the shoulders do; up is from the neck to the head.
    """
    with np.load(shared / "goldens" / "blazepose_ntu_clip.npz") as file:
        landmarks = file["onnx_full_world"][..., :3].astype(np.float32) * np.float32([1, -1, -1])
    source = get_layout("mediapipe33")
    joints = convert_layout(landmarks, source, LAYOUT)
    axes = head_axes(*(torch.from_numpy(joints[:, LAYOUT.joint_names.index(name)]) for name in HEAD)).numpy()
    head = joints[:, LAYOUT.joint_names.index("head")]
    offsets = {}
    for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear"):
        away = landmarks[:, source.joint_names.index(name)] - head
        offsets[name] = [round(float(value), 3) for value in np.einsum("tc,tac->ta", away, axes).mean(0) / size]
    return offsets


def simulated(is_3d: bool, values: dict) -> dict[str, float]:
    """The errors that `PoseErrors` makes: their size per joint relative to the measured one, and in time."""
    torch.manual_seed(0)
    truth = torch.randn(1, 1, 1, 25, 3 if is_3d else 2).expand(256, 103, 1, -1, -1)
    changes = PoseErrors(probability=1, size=0, limb_gap=0, wrong_person=0)
    errors = changes(truth, erring_body(LAYOUT, is_3d), torch_bits(256, truth.device)) - truth
    errors = errors[:, :, 0]
    size = float((truth[0, 0, 0] - truth[0, 0, 0].mean(0)).square().sum(-1).mean().sqrt())
    spread = errors.square().sum(-1).mean((0, 1)).sqrt() / size
    wanted = torch.tensor([values["joints"][name] for name in LAYOUT.joint_names])
    ratio = spread / wanted
    constant = errors.mean(1, keepdim=True)
    moving = errors - constant
    power = moving.square().mean()

    def correlation(lag: int) -> float:
        return round(float((moving[:, lag:] * moving[:, :-lag]).mean() / power), 3)

    return {
        "smallest_ratio": round(float(ratio.min()), 3),
        "largest_ratio": round(float(ratio.max()), 3),
        "mean_over_film": round(float(constant.square().mean() / errors.square().mean()), 3),
        "autocorrelation": {str(lag): correlation(lag) for lag in LAGS},
    }


def measure(shared: Path, _: argparse.Namespace) -> dict:
    """Every magnitude; written beside `PoseErrors`, too."""
    solid, pixels = kinect(shared)
    result: dict = {"film": FILM, "network": "onnx_full"}
    points, visibility = estimated(shared, "onnx_full", True)
    errors, truth, size = aligned(points, solid, turn=True)
    result["3d"] = statistics(errors, truth)
    result["3d"]["metres"] = {
        name: round(value * result["3d"]["body_size"], 3) for name, value in result["3d"]["joints"].items()
    }
    result["3d"]["size"], result["3d"]["bones"] = round(size, 3), bone_lengths(points, solid)
    lite = aligned(estimated(shared, "onnx_lite", True)[0], solid, turn=True)
    result["lite"] = {"size": round(lite[2], 3), **statistics(lite[0], lite[1])}
    flat, visibility = estimated(shared, "onnx_full", False)
    errors, truth, size = aligned(flat, pixels, turn=False)
    result["2d"] = {**statistics(errors, truth), "size": round(size, 3)}
    result["scores"] = scores(visibility, errors)
    result["face"] = face(shared, result["3d"]["size"])
    result["gaps"] = gaps(shared / "data" / "falling_openpose18.npz")
    kept = ("joints", "constant", "white", "correlation", "along", "depth")
    written = {name: {key: result[name][key] for key in kept if key in result[name]} for name in ("3d", "2d")}
    written["scores"] = {key: result["scores"][key] for key in ("mean", "spread")}
    written["face"] = result["face"]
    written["defaults"] = {
        "size": round(abs(result["3d"]["size"] - 1), 2),
        "limb_gap": round(result["gaps"]["limbs_with_gap"], 2),
        # Uniform up to this, so twice the mean.
        "gap_length": round(min(2 * result["gaps"]["mean_longest_gap"], 1), 2),
    }
    MEASURED.write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    result["defaults"] = written["defaults"]
    result["simulated"] = {name: simulated(name == "3d", written[name]) for name in ("3d", "2d")}
    return result


def recorded(shared: Path, is_3d: bool) -> list[SkeletonSequence]:
    """The film's Kinect twin, the other NTU clips, and the package's sample clips, in 3D or as in a picture.

    The Kinect gives its joints in the film's picture. The sample clips are seen from the front, by parallel rays.
    """
    if is_3d:
        folder = shared / "data" / "ntu_rgbd_samples"
        return [*(read_skeleton(folder / f"{name}.skeleton") for name in (FILM, *OTHERS)), *load_samples()]
    clips = [SkeletonSequence(kinect(shared, name)[1][:, None], LAYOUT) for name in (FILM, *OTHERS)]
    for sample in load_samples():
        axes, signs = TO_Y_UP[sample.up or sample.layout.up]
        seen = (sample.keypoints[..., axes] * np.float32(signs))[..., :2] * np.float32([1000, -1000])
        clips.append(SkeletonSequence(seen, sample.layout))
    return clips


def twin(shared: Path, arguments: argparse.Namespace) -> dict:
    """Cosine similarities of the estimated clip, by model; in the picture for a model of 2D keypoints."""
    results = {}
    for model in arguments.model or MODELS:
        extractor = USDRLFeatureExtractor.from_pretrained(model)
        is_3d = get_layout(extractor.layout).is_3d
        gallery = recorded(shared, is_3d)
        keys = torch.nn.functional.normalize(torch.from_numpy(extract_embeddings(gallery, model)), dim=1)
        results[model if model in MODELS else Path(model).name] = figures = {}
        for network in ("onnx_full", "onnx_lite"):
            points = estimated(shared, network, is_3d)[0][:, None].astype(np.float32)
            clip = SkeletonSequence(points, LAYOUT, name=network)
            query = torch.nn.functional.normalize(torch.from_numpy(extract_embeddings([clip], model)), dim=1)
            cosine = (keys @ query[0]).tolist()
            figures[network] = {
                "twin": round(cosine[0], 4),
                "ntu_clips": {name: round(value, 4) for name, value in zip(OTHERS, cosine[1:4], strict=True)},
                "nearest_sample": round(max(cosine[4:]), 4),
                "margin": round(cosine[0] - max(cosine[1:]), 4),
                "rank_of_twin": 1 + sum(value > cosine[0] for value in cosine[1:]),
            }
        # How alike the Kinect's own clips are: a cosine says little without them.
        own = (keys[1:] @ keys[0]).tolist()
        figures["kinect"] = {"nearest_ntu_clip": round(max(own[:3]), 4), "nearest_sample": round(max(own[3:]), 4)}
        figures["normalization"] = extractor.normalization
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("measure", "twin"))
    parser.add_argument("model", nargs="*", help="models or folders; the shipped ones by default")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--label", default="before", help="what the figures of `twin` are stored as")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments, started = parser.parse_args(), time.monotonic()
    content = json.loads(arguments.output.read_text("utf-8")) if arguments.output.is_file() else {}
    if arguments.command == "measure":
        content["measured"] = measure(arguments.shared, arguments)
    else:
        content.setdefault("twin", {}).setdefault(arguments.label, {}).update(twin(arguments.shared, arguments))
    content[f"{arguments.command}_run"] = redact_paths(run_record(started))
    arguments.output.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(json.dumps(content["measured" if arguments.command == "measure" else "twin"], indent=1))


if __name__ == "__main__":
    main()
