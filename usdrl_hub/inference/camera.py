"""Live recognition of a camera or of a stream of video."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.formats.mediapipe import MIN_VISIBILITY
from ..errors import CheckpointLoadError, SkeletonFormatError
from ..facts.checkpoints import RECOGNISER
from ..layouts import get_layout
from ..sequence import SkeletonSequence
from .blazepose import HIPS, LAYOUT, SHOULDERS, BlazePoseEstimator, Pose
from .streaming import StreamResult, USDRLStream

# Frames per second that a model is given; poses between pictures are interpolated.
RATE = 30.0
# Pictures that come later than this many seconds are left out, so that results stay recent.
MAX_DELAY = 0.3
# Seconds between two pictures over which nothing is interpolated.
_GAP = 0.5
# Seconds of waiting for a stream to open, and for its next picture.
_PATIENCE = (10.0, 20.0)
# Formats of streams without a clock, whose times FFmpeg makes up at 25 pictures a second. A picture that is there so
# many seconds after it was asked for has waited.
_CLOCKLESS, _AT_ONCE = ("mpjpeg", "mjpeg", "h264", "hevc"), 0.002
# How systems name a camera, and FFmpeg's format for it.
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}:none")}
_SCHEMES = ("rtsp", "rtsps", "http", "https", "tcp", "udp", "rtp", "srt")
# What a stream may refer to: nothing on this machine.
_PROTOCOLS = "rtsp,rtsps,rtp,udp,tcp,tls,http,https,httpproxy,srt,crypto"
# Ratios of metres to pixels, whose median places a body.
_SCALES = 300


@dataclass(frozen=True, eq=False)
class LiveResult:
    """What a model says at a moment.

    Attributes:
        time: Seconds since the first picture.
        persons: Number of people in the picture.
        result: Classes and embedding, see `StreamResult`.
    """

    time: float
    persons: int
    result: StreamResult


def open_camera(source: str | int) -> Iterator[tuple[float, np.ndarray]]:
    """Open a camera or a stream.

    Args:
        source: Number of a camera, from 0; or the URL of a stream, such as ``rtsp://...`` or ``http://...``.

    Returns:
        Its pictures ``(H, W, 3)`` uint8, RGB, upright, each with its time in seconds since the first one. Pictures
        that cannot be looked at in time are left out.

    Raises:
        SkeletonFormatError: If it cannot be opened; while reading, if it breaks off.
        ValueError: If it is neither, or PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise ValueError("reading a camera needs PyAV: pip install 'usdrl-hub[video]'") from None
    name, kind = str(source), None
    options: dict[str, str] = {"rtsp_transport": "tcp", "protocol_whitelist": _PROTOCOLS}
    if name.isdecimal():
        if sys.platform not in _CAMERAS:
            raise ValueError("cameras are known by number on Linux and macOS only: give the URL of a stream")
        (kind, address), options = _CAMERAS[sys.platform], {}
        name = address.format(name)
    elif name.partition("://")[0].lower() not in _SCHEMES or not name.partition("://")[2]:
        raise ValueError(
            f"'{name}' is neither the number of a camera nor the URL of a stream ({', '.join(_SCHEMES)}): a film is "
            "read without --camera"
        )
    try:
        container = av.open(name, format=kind, options=options, timeout=_PATIENCE)
    except av.FFmpegError as error:
        raise SkeletonFormatError(f"{_shown(name)}: it cannot be opened: {error.strerror}") from None
    if not container.streams.video:
        container.close()
        raise SkeletonFormatError(f"{_shown(name)}: there are no pictures in it")
    return _pictures(container, _shown(name))


def _shown(name: str) -> str:
    """A URL without the password in it."""
    scheme, found, rest = name.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" if found else name


def _pictures(container: Any, name: str) -> Iterator[tuple[float, np.ndarray]]:
    import av

    # Wall time of the stream's beginning; its time stamp there; time of the newest picture.
    began, offset, latest = 0.0, 0.0, None
    count = 0
    with container:
        try:
            for frame, arrived in _arrivals(container):
                now = time.monotonic()
                stamp = arrived if arrived is not None else now if frame.time is None else float(frame.time)
                if latest is None or not 0 <= stamp - offset - latest < 10:
                    # The first picture, or a stream whose clock was set anew.
                    latest = 0.0 if latest is None else latest + 1 / RATE
                    began, offset = now - latest, stamp - latest
                elif now - began - (stamp - offset) > MAX_DELAY:
                    continue
                latest = stamp - offset
                count += 1
                turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield latest, np.ascontiguousarray(turned)
        except av.FFmpegError as error:
            raise SkeletonFormatError(f"{name}: it broke off after {count} pictures: {error.strerror}") from None


def _arrivals(container: Any) -> Iterator[tuple[Any, float | None]]:
    """Yield the frames of a stream, and when each arrived where the stream has no clock.

    Without a clock nobody knows how late a picture is; those that waited are left out, but for one in `MAX_DELAY`.
    """
    stream = container.streams.video[0]
    if container.format.name not in _CLOCKLESS:
        for frame in container.decode(stream):
            yield frame, None
        return
    packets, kept = container.demux(stream), float("-inf")
    while True:
        asked = time.monotonic()
        if (packet := next(packets, None)) is None:
            return
        now = time.monotonic()
        for frame in packet.decode():
            if now - asked >= _AT_ONCE or now - kept >= MAX_DELAY:
                kept = now
                yield frame, now


def watch(
    pictures: Iterable[tuple[float, np.ndarray]],
    model: Any = RECOGNISER,
    *,
    stride: int = 8,
    mirrored: bool = False,
    threshold: float | None = None,
    landmarks: str | None = None,
) -> Iterator[LiveResult]:
    """Yield what a model says of pictures as they come.

    Poses are estimated by BlazePose, given to the model at 30 frames a second, and read in windows of its clip length,
    see `USDRLStream`.

    Args:
        pictures: Times in seconds and pictures, see `open_camera`.
        model: A model of 3D joints with any head or none; see `USDRLStream`.
        stride: Frames between results, of 30 a second.
        mirrored: Whether the pictures are mirror images.
        threshold: Probability above which a person is there; the estimator's where None.
        landmarks: Another landmark network, see `BlazePoseEstimator`.

    Raises:
        CheckpointLoadError: If the model cannot be loaded or reads 2D keypoints.
        ValueError: If its joints cannot be made of BlazePose's, or another argument is out of range.
    """
    stream = USDRLStream(model, layout=LAYOUT, up="-y", stride=stride)
    if not get_layout(stream.extractor.layout).is_3d:
        raise CheckpointLoadError("the model reads 2D keypoints, but a camera's joints are in 3D: take a 3D model")
    scenes = _Scenes(min(stream.extractor.num_persons, 2))
    # Refused here, not at the first person.
    body = np.ones((1, 1, get_layout(LAYOUT).num_joints, 3), np.float32)
    stream.extractor.prepare(SkeletonSequence(body, LAYOUT, up="-y", name="the camera"))
    choices: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
    estimator = BlazePoseEstimator(landmarks, max_persons=scenes.size, **choices)
    return _watch(pictures, stream, estimator, scenes, mirrored)


def _watch(
    pictures: Iterable[tuple[float, np.ndarray]],
    stream: USDRLStream,
    estimator: BlazePoseEstimator,
    scenes: _Scenes,
    mirrored: bool,
) -> Iterator[LiveResult]:
    times: list[float] = []

    def images() -> Iterator[np.ndarray]:
        for moment, image in pictures:
            times.append(moment)
            yield np.ascontiguousarray(image[:, ::-1]) if mirrored else image

    before: tuple[float, np.ndarray] | None = None
    steps = 0
    for poses in estimator.track(images(), RATE):
        moment, scene = times.pop(), scenes(poses)
        while steps / RATE <= moment + 1e-6:
            result = stream.push(_between(before, (moment, scene), steps / RATE))
            if result is not None:
                yield LiveResult(steps / RATE, len(poses), result)
            steps += 1
        before = moment, scene


def _between(before: tuple[float, np.ndarray] | None, after: tuple[float, np.ndarray], moment: float) -> np.ndarray:
    """The scene ``(M, V, 3)`` at a moment between two pictures; a joint that one of them hides is not mixed."""
    if before is None:
        return after[1]
    gap = after[0] - before[0]
    share = min(max((moment - before[0]) / gap, 0.0), 1.0) if gap > 0 else 1.0
    near = before[1] if share < 0.5 else after[1]
    if gap > _GAP:
        # Nobody is invented.
        return near if min(moment - before[0], after[0] - moment) <= _GAP / 2 else np.zeros_like(near)
    both = before[1].any(-1, keepdims=True) & after[1].any(-1, keepdims=True)
    return np.where(both, before[1] + np.float32(share) * (after[1] - before[1]), near)


class _Scenes:
    """Poses as scenes ``(M, V, 3)`` of people in the same order: metres, y down, placed as in the picture."""

    def __init__(self, size: int):
        self.size = size
        self.tracks: list[int | None] = [None] * size
        self.scales: list[list[float]] = [[] for _ in range(size)]

    def __call__(self, poses: list[Pose]) -> np.ndarray:
        present = {pose.track for pose in poses}
        scene = np.zeros((self.size, get_layout(LAYOUT).num_joints, 3), np.float32)
        for pose in poses:
            if pose.track not in self.tracks:
                slot = next(slot for slot, track in enumerate(self.tracks) if track not in present)
                self.tracks[slot], self.scales[slot] = pose.track, []
            slot = self.tracks.index(pose.track)
            torso = [
                float(np.hypot(*(points[SHOULDERS, :2].mean(0) - points[HIPS, :2].mean(0))))
                for points in (pose.world, pose.image)
            ]
            self.scales[slot] = [*self.scales[slot], torso[0] / max(torso[1], 1e-6)][-_SCALES:]
            points = pose.world.copy()
            points[:, :2] += pose.image[HIPS].mean(0) * np.median(self.scales[slot])
            scene[slot] = np.where(pose.visibility[:, None] < MIN_VISIBILITY, 0, points)
        return scene
