"""Skeletons from video, by BlazePose or by a person detector and a pose model of transformers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from ..data.poses import from_pose_estimation
from ..errors import CheckpointLoadError, EmptySequenceError, notice, printable
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..layouts import get_layout
from ..loading import find_device, load_with
from ..sequence import MOST_PERSONS, SkeletonFormatError, SkeletonSequence
from .blazepose import BlazePoseEstimator

LAYOUT = "coco17"
# Share by which the time between two frames may differ from the usual one; frames read of one, at most, where they do.
_UNSTEADY, _MOST_REPEATED = 0.6, 4
# Share of the declared frames or time that a whole video has, and seconds at its end that no packet may speak of.
_WHOLE, _USUAL_LOSS = 0.9, 0.2


class PoseEstimator:
    """Finds people in images, and their joints.

    Example::

        names = "usyd-community/vitpose-base-simple", "PekingU/rtdetr_r50vd_coco_o365"
        estimator = PoseEstimator.from_pretrained(*names)
        recording = read_video("video.mp4", estimator)
    """

    layout = LAYOUT

    def __init__(
        self,
        pose_model: Any,
        pose_processor: Any,
        detector: Any,
        detector_processor: Any,
        threshold: float = 0.5,
        batch_size: int = 8,
    ):
        """Combine a detector and a pose model.

        Args:
            pose_model: A pose model of transformers for the 17 joints of COCO, such as `VitPoseForPoseEstimation`.
            pose_processor: Its image processor.
            detector: An object detector of transformers with a class "person".
            detector_processor: Its image processor.
            threshold: Score above which a detection is a person, in [0, 1).
            batch_size: Images per run of the models.

        Raises:
            CheckpointLoadError: If the detector has no class "person", or the pose model has other joints.
            ValueError: If the threshold is out of range.
        """
        if not 0 <= threshold < 1:
            raise ValueError(f"the threshold for persons must be at least 0 and below 1, got {threshold}")
        labels = detector.config.id2label or {}
        self.persons = [int(number) for number, label in labels.items() if str(label).lower() == "person"]
        if not self.persons:
            raise CheckpointLoadError(
                f"detector '{detector.name_or_path}' has no class 'person' among its {len(labels)} classes: take one "
                "that was trained on COCO"
            )
        joints, expected = pose_model.config.num_labels, get_layout(LAYOUT).num_joints
        if joints != expected or not hasattr(pose_processor, "post_process_pose_estimation"):
            raise CheckpointLoadError(
                f"pose model '{pose_model.name_or_path}' does not give the {expected} joints of COCO as ViTPose does "
                f"(it has {joints}): take a ViTPose model"
            )
        self.pose_model, self.pose_processor = pose_model.eval(), pose_processor
        self.detector, self.detector_processor = detector.eval(), detector_processor
        self.threshold, self.batch_size = threshold, batch_size

    def __repr__(self) -> str:
        """Names of the models, which name its results in a data set that is being made."""
        names = f"{self.pose_model.name_or_path}, {self.detector.name_or_path}"
        return f"{type(self).__name__}({names}, threshold={self.threshold})"

    @classmethod
    def from_pretrained(
        cls,
        pose_model: str | os.PathLike,
        detector: str | os.PathLike,
        threshold: float = 0.5,
        device: str | torch.device | None = None,
        batch_size: int = 8,
    ) -> PoseEstimator:
        """Load both models by their names or folders.

        Args:
            pose_model: Repository on the hub, or a folder, such as ``usyd-community/vitpose-base-simple``.
            detector: The same, such as ``PekingU/rtdetr_r50vd_coco_o365``.
            threshold: Score above which a detection is a person, in [0, 1).
            device: Where to compute; CUDA if there is one where None.
            batch_size: Images per run of the models.

        Raises:
            CheckpointLoadError: If one cannot be loaded or does not fit, see the constructor.
            ValueError: If the device is not available.
        """
        from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoModelForPoseEstimation

        place = find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

        def load(kind: Any, name: str | os.PathLike) -> tuple[Any, Any]:
            model = load_with(kind.from_pretrained, name, use_safetensors=True).to(place)
            return model, load_with(AutoImageProcessor.from_pretrained, name)

        pose, finder = load(AutoModelForPoseEstimation, pose_model), load(AutoModelForObjectDetection, detector)
        return cls(*pose, *finder, threshold, batch_size)

    def recording(
        self,
        images: Iterable[np.ndarray],
        *,
        fps: float | None = None,
        name: str = "",
        where: str | None = None,
    ) -> SkeletonSequence:
        """The people of a film as a recording in 2D.

        Args:
            images: Pictures ``(H, W, 3)`` uint8, RGB, in order and of one size.
            fps: Pictures per second; None if unknown.
            name: Name of the recording.
            where: What to call it in errors; its name where None.

        Returns:
            A recording of layout ``coco17``, in pixels with scores, a frame for each image; frames without people
            are zero. People are linked over time, see `track_persons`.

        Raises:
            EmptySequenceError: If there are no images, or no person is found in any.
        """
        results: list[list[dict[str, torch.Tensor]]] = []
        shape = None
        iterator = iter(images)
        while batch := list(islice(iterator, self.batch_size)):
            shape = batch[0].shape
            results += self(batch)
        if shape is None:
            raise EmptySequenceError(f"{where or name or 'film'}: there is no picture in it")
        return from_pose_estimation(results, image_shape=shape[:2], fps=fps, name=name, where=where)

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[list[dict[str, torch.Tensor]]]:
        """Find the joints of all people.

        Args:
            images: Pictures ``(H, W, 3)`` uint8, RGB, of one size.

        Returns:
            For each image, a dictionary for each person, highest score first, as by the image processor's
            `post_process_pose_estimation`: `keypoints` ``(17, 2)`` in pixels, `scores` ``(17,)`` and so on.
        """
        boxes = self.find_persons(images)
        used = [index for index, found in enumerate(boxes) if len(found)]
        results: list[list[dict[str, torch.Tensor]]] = [[] for _ in images]
        if not used:
            return results
        people = [boxes[index] for index in used]
        inputs = self.pose_processor([images[index] for index in used], boxes=people, return_tensors="pt")
        pixels = inputs["pixel_values"].to(self.pose_model.device)
        more = {}
        if getattr(self.pose_model.config.backbone_config, "num_experts", 1) > 1:
            # In models trained on several data sets, expert 0 is COCO's.
            more["dataset_index"] = torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)
        output = self.pose_model(pixel_values=pixels, **more)
        for index, found in zip(
            used, self.pose_processor.post_process_pose_estimation(output, boxes=people), strict=True
        ):
            results[index] = found
        return results

    @torch.inference_mode()
    def find_persons(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Boxes of the people in each image ``(N, 4)``: left, top, width and height in pixels, highest score first.

        Args:
            images: See the call.
        """
        inputs = self.detector_processor(images=list(images), return_tensors="pt").to(self.detector.device)
        sizes = [image.shape[:2] for image in images]
        found = self.detector_processor.post_process_object_detection(
            self.detector(**inputs), threshold=self.threshold, target_sizes=sizes
        )
        boxes = []
        for result, (height, width) in zip(found, sizes, strict=True):
            corners = result["boxes"].float().cpu().numpy().clip(0, [width, height, width, height])
            size = corners[:, 2:] - corners[:, :2]
            person = np.isin(result["labels"].cpu().numpy(), self.persons) & (size >= 1).all(1)
            order = np.argsort(-result["scores"].float().cpu().numpy()[person], kind="stable")[:MOST_PERSONS]
            boxes.append(np.concatenate([corners[:, :2], size], axis=1)[person][order])
        return boxes


class Estimator(Protocol):
    """A pose estimator as `read_video` needs it: its joint layout, and recordings from images."""

    layout: str

    def recording(
        self, images: Iterable[np.ndarray], *, fps: float | None = None, name: str = "", where: str | None = None
    ) -> SkeletonSequence:
        """The people in images ``(H, W, 3)`` uint8, RGB, as a recording."""


def read_video(
    path: str | os.PathLike,
    estimator: Estimator | None = None,
    *,
    mirrored: bool = False,
    progress: bool = False,
    in_picture: bool = False,
) -> SkeletonSequence:
    """Estimate the poses of the people in a video; needs the extra ``usdrl-hub[video]``.

    Args:
        path: The video, in any format that FFmpeg reads.
        estimator: A `BlazePoseEstimator` (3D; the default, whose networks come with the package) or `PoseEstimator`.
        mirrored: Whether the video is a mirror image, as of front cameras; its frames are flipped first.
        progress: Show a bar on stderr, where that is a terminal.
        in_picture: Take the 2D landmarks of a `BlazePoseEstimator`, as models of 2D keypoints read them.

    Returns:
        A recording in the estimator's layout, as long as the video; frames in which no person is found are all zero.

    Raises:
        EmptySequenceError: If no person is found in it.
        SkeletonFormatError: If it cannot be read.
        ValueError: If a package of the extra is not installed.
    """
    path = Path(path)
    estimator = BlazePoseEstimator() if estimator is None else estimator
    frames, fps = open_video(path)
    shown = tqdm(
        frames,
        unit="frame",
        desc=printable(path.name),
        leave=None,
        disable=None if progress else True,
        file=sys.stderr,
    )

    def images() -> Iterator[np.ndarray]:
        shape = None
        for image in shown:
            if image.shape != (shape := shape or image.shape):
                raise SkeletonFormatError(f"{path}: its pictures change their size")
            yield np.ascontiguousarray(image[:, ::-1]) if mirrored else image

    choice: dict[str, Any] = {"in_picture": True} if in_picture and isinstance(estimator, BlazePoseEstimator) else {}
    return estimator.recording(images(), fps=fps, name=path.stem, where=str(path), **choice)


def open_video(path: str | os.PathLike) -> tuple[Iterator[np.ndarray], float | None]:
    """Open a video.

    Args:
        path: The file.

    Returns:
        Its frames ``(H, W, 3)`` uint8, RGB, upright, one by one; and frames per second, None if unknown. Frames at
        irregular times, as of many telephones, are repeated or left out so that they are at a steady rate.

    Raises:
        SkeletonFormatError: If it cannot be read; while reading, if it is damaged.
        ValueError: If PyAV is not installed.
    """
    path = Path(path)
    container = _container(path)
    import av

    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate
    times, end = _frame_times(path)
    fps, begin = _steady_rate(path, times, float(rate) if rate else None)

    def frames() -> Iterator[np.ndarray]:
        number, step, before = 0, 0, None
        with container:
            try:
                for frame in container.decode(stream):
                    # Phones store upright videos rotated, and note the angle.
                    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    image = np.ascontiguousarray(turned)
                    number += 1
                    if begin is None or fps is None or frame.time is None:
                        yield image
                        continue
                    wanted = round((float(frame.time) - begin) * fps)
                    for _ in range(wanted - step):
                        yield image if before is None else before
                    if wanted >= step:
                        yield image
                    step, before = max(wanted + 1, step), image
            except av.FFmpegError as error:
                raise SkeletonFormatError(f"{path}: it is damaged after {number} frames: {error.strerror}") from None
            if number < _WHOLE * stream.frames:
                notice(f"{path}: only {number} of its {stream.frames} frames can be read: it is cut off", "cut videos")
            # Matroska and WebM do not count their frames.
            seconds = (container.duration or 0) / 1_000_000
            if not stream.frames and end is not None and end < min(_WHOLE * seconds, seconds - _USUAL_LOSS):
                notice(f"{path}: it ends after {end:.3g} of its {seconds:.3g} seconds: it is cut off", "cut videos")

    return frames(), fps


def _steady_rate(path: Path, times: np.ndarray, declared: float | None) -> tuple[float | None, float | None]:
    """Frames per second of a video by the times of its frames, which may differ from the rate that it declares.

    Returns:
        The rate, and the time of the first frame if frames at irregular times are to be brought to that rate.
    """
    if len(times) < 2:
        return declared, None
    spacing = np.diff(times)
    usual = float(np.median(spacing))
    if (np.abs(spacing - usual) <= _UNSTEADY * usual).all():
        measured = float(len(spacing) / (times[-1] - times[0]))
        return declared if declared and abs(declared / measured - 1) < 0.02 else measured, None
    kind = "videos with frames at irregular times"
    if times[-1] - times[0] > _MOST_REPEATED * len(times) * usual:
        notice(f"{path}: its frames are at irregular times, far apart, and are read as if they were not", kind)
        return 1 / usual, None
    notice(
        f"{path}: its frames are at irregular times, and it is read at {1 / usual:.3g} frames per second: some are "
        "repeated or left out",
        kind,
    )
    return 1 / usual, float(times[0])


def video_facts(path: str | os.PathLike) -> dict[str, Any]:
    """What the container of a video says, without its pictures.

    Returns:
        `frames`, `fps`, `seconds`, and `width` and `height` of the stored pictures, each None if it does not say.

    Raises:
        SkeletonFormatError: If it cannot be read.
        ValueError: If PyAV is not installed.
    """
    with _container(Path(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        seconds = stream.duration and stream.duration * stream.time_base
        if not seconds and container.duration:
            seconds = container.duration / 1_000_000
        return {
            "frames": stream.frames or None,
            "fps": float(rate) if rate else None,
            "seconds": float(seconds) if seconds else None,
            "width": stream.width or None,
            "height": stream.height or None,
        }


def _container(path: Path) -> Any:
    """A video, opened by PyAV."""
    try:
        import av
    except ImportError:
        raise ValueError("reading video needs PyAV: pip install 'usdrl-hub[video]'") from None
    if not path.is_file():
        raise SkeletonFormatError(f"{path}: there is no such file")
    try:
        # A playlist may name other files, but nothing on a network.
        container = av.open(str(path), options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read as a video: {error.strerror}") from None
    if not container.streams.video:
        container.close()
        raise SkeletonFormatError(f"{path}: there is no video in it")
    return container


def _frame_times(path: Path) -> tuple[np.ndarray, float | None]:
    """When a video's frames are shown; nothing is decoded.

    Returns:
        Seconds in order, none if a frame has none; and seconds from the beginning to the last frame or sound.
    """
    import av

    times: list[float] = []
    end = None
    with _container(path) as container:
        stream = container.streams.video[0]
        is_timed = True
        try:
            for packet in container.demux():
                if not packet.size:
                    continue
                time = None if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)
                if time is not None:
                    end = time if end is None else max(end, time)
                if packet.stream.index == stream.index:
                    is_timed &= time is not None
                    times.append(time or 0.0)
        except av.FFmpegError:
            # Told where the frames are read.
            is_timed = False
        begin = (container.start_time or 0) / 1_000_000
    return np.unique(times) if is_timed else np.zeros(0), None if end is None else end - begin


def check_reads(extractor: USDRLFeatureExtractor, model_name: str, layout: str) -> None:
    """Check that a model reads the joints of a pose estimator, before any video is read.

    Args:
        extractor: The model's.
        model_name: Name of the model, for the error.
        layout: Joint layout of the estimator.

    Raises:
        ValueError: If the estimator gives 2D keypoints only and the model reads 3D ones, or the estimator lacks joints
            that the model reads.
    """
    estimated, flat = get_layout(layout), not get_layout(extractor.layout).is_3d
    if not estimated.is_3d and not flat:
        raise ValueError(
            f"this pose model gives 2D keypoints, but {model_name} reads 3D joints: leave --pose-model and --detector "
            "out, take a model of 2D keypoints ('usdrl list 2d' names some), or train one with 'usdrl finetune DATA "
            f"--from-scratch --layout {layout}'"
        )
    joints = np.ones((1, 1, estimated.num_joints, 3))
    kind: dict[str, Any] = {"coordinates": "2d+score", "image_shape": (1, 1)} if flat else {}
    extractor.prepare(SkeletonSequence(joints, estimated, name=model_name, **kind))


@dataclass(frozen=True)
class VideoReading:
    """How videos become recordings.

    Attributes:
        estimator: The pose estimator; a `BlazePoseEstimator`, loaded at the first video, where None.
        mirrored: Whether videos are mirrored, see `read_video`.
        progress: Show a bar for each video.
    """

    estimator: Estimator | None = None
    mirrored: bool = False
    progress: bool = field(default=False, repr=False)

    @cached_property
    def _estimator(self) -> Estimator:
        return self.estimator or BlazePoseEstimator()

    def read(self, path: str | os.PathLike, extractor: USDRLFeatureExtractor | None = None) -> SkeletonSequence:
        """Read a video.

        Args:
            path: The file.
            extractor: Of the model that is to read the recording; one that cannot is refused before the video is read.

        Raises:
            SkeletonFormatError: See `read_video`.
            ValueError: See `read_video` and `check_reads`.
        """
        flat = extractor is not None and not get_layout(extractor.layout).is_3d
        if extractor is not None:
            check_reads(extractor, "the model", self._estimator.layout)
        return read_video(path, self._estimator, mirrored=self.mirrored, progress=self.progress, in_picture=flat)
