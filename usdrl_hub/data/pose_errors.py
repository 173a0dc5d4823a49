"""What pose estimators do to bodies: errors of positions, missing limbs, a wrong person, and scores.

How large the errors are is measured (``python benchmarks/estimators.py measure``, which writes
``pose_errors.json`` beside this file). Pretraining's views and the augmentation of fine-tuning share this code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..layouts import Layout, get_layout, make_joint, seen_joints
from ..ragged import nearest_joints

MEASURED = Path(__file__).with_suffix(".json")
# The layout in which errors were measured.
_MEASURED_LAYOUT = "ntu25"
# Joints by which the direction of a head is known.
HEAD = ("left_shoulder", "right_shoulder", "neck", "head")
# Moments between which slow errors are interpolated.
_KNOTS = 17


@lru_cache(maxsize=1)
def measured() -> dict[str, Any]:
    """The measured errors, see `PoseErrors`."""
    return json.loads(MEASURED.read_text("utf-8"))


def limbs(layout: Layout) -> np.ndarray:
    """The limb beyond the bone that leads to each joint, booleans ``(V, V)``: the smaller part that the bone joins."""
    beyond = np.eye(layout.num_joints, dtype=bool)
    for _ in range(layout.num_joints):
        beyond |= beyond[:, list(layout.parents)]
    return beyond ^ (beyond.sum(1, keepdims=True) > layout.num_joints / 2)


def head_axes(left: torch.Tensor, right: torch.Tensor, neck: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Directions ``(..., 3, 3)`` of a head, in rows: to its left, up and to its front.

    The head faces where the shoulders do.

    Args:
        left: Left shoulder ``(..., 3)``.
        right: Right shoulder.
        neck: Neck.
        head: Head.
    """
    side = torch.nn.functional.normalize(left - right, dim=-1)
    front = torch.nn.functional.normalize(torch.linalg.cross(side, head - neck), dim=-1)
    return torch.stack([side, torch.linalg.cross(front, side), front], dim=-2)


class ErringBody(NamedTuple):
    """A layout's joints as `PoseErrors` needs them.

    Attributes:
        factor: Errors ``(V, K)`` of joints per independent random number, as a share of the body's size.
        limbs: See `limbs`.
        distances: See `Layout.distances`.
        is_3d: Whether the coordinates are 3D.
    """

    factor: torch.Tensor
    limbs: torch.Tensor
    distances: torch.Tensor
    is_3d: bool


@lru_cache(maxsize=32)
def erring_body(layout: Layout, is_3d: bool) -> ErringBody:
    """Errors of a layout's joints, carried over from the measured ones by joint names.

    Joints without a counterpart have the errors of the nearest joints that have one; in a layout of unknown names,
    joints err independently by the mean of the measured errors.
    """
    values = measured()["3d" if is_3d else "2d"]
    source = get_layout(_MEASURED_LAYOUT)
    spread = np.array([values["joints"][name] for name in source.joint_names])
    along, factor = values["along"], np.diag(spread)
    # A child's error follows its parent's: parents come before children.
    for joint in sorted(range(source.num_joints), key=lambda joint: source.distances[source.center, joint]):
        parent = source.parents[joint]
        if parent != joint:
            factor[joint] *= math.sqrt(1 - along**2)
            factor[joint] += along * spread[joint] / spread[parent] * factor[parent]
    carried = np.zeros((layout.num_joints, source.num_joints), dtype=np.float32)
    for row, name in enumerate(layout.joint_names):
        if (weights := make_joint(name, source)) is not None:
            carried[row] = weights
    for column, name in enumerate(source.joint_names):
        if (made := make_joint(name, layout)) is not None:
            carried[(made > 0) & ~(carried != 0).any(1), column] = 1
    known = (carried != 0).any(1)
    if known.any():
        nearest = nearest_joints(torch.from_numpy(layout.distances), torch.from_numpy(known))
        factor = nearest.numpy() @ carried @ factor
    else:
        factor = np.eye(layout.num_joints) * math.sqrt((spread**2).mean())
    return ErringBody(
        torch.from_numpy(factor).float(),
        torch.from_numpy(limbs(layout)),
        torch.from_numpy(layout.distances),
        is_3d,
    )


def _measured(name: str) -> Any:
    return field(default_factory=lambda: measured()["defaults"][name])


@dataclass(frozen=True)
class PoseErrors:
    """Errors of pose estimators, for batches of clips; the defaults are those of BlazePose beside a Kinect.

    The position error of a joint is a constant offset, a slow drift and white jitter, in shares that were measured, as
    its size is for each joint. Errors follow the chain of joints (a wrist takes its hand along), and are larger along
    a camera axis, which is drawn among the horizontal directions.

    Attributes:
        probability: Probability that a clip has errors.
        strength: Factor of the measured position errors; 1 as measured, 0 none.
        size: Largest change of the body's size, as a share; 3D only.
        limb_gap: Probability that a limb of a person (all joints beyond one bone) is missing for some of the frames.
        gap_length: Largest share of the frames for which it is missing.
        wrong_person: Probability that another person is in someone's position for some of the frames: the other
            person of the clip, or else the same person at another time, turned (mirrored in 2D). Assumed: the film
            has one person.
        wrong_length: Largest share of the frames for which this is so. Assumed.
        fill: Whether missing joints take the position of the nearest ones, as a feature extractor with `fill_joints`
            places them; they are zero otherwise.

    Raises:
        ValueError: If a value is outside its range.
    """

    probability: float = 0.5
    strength: float = 1.0
    size: float = _measured("size")
    limb_gap: float = _measured("limb_gap")
    gap_length: float = _measured("gap_length")
    wrong_person: float = 0.05
    wrong_length: float = 0.15
    fill: bool = True

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        for name in ("probability", "limb_gap", "wrong_person", "gap_length", "wrong_length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"pose_errors: {name} must be a share in [0, 1], got {value!r}")
        for name, most in (("size", 1), ("strength", 100)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < most:
                raise ValueError(f"pose_errors: {name} must be at least 0 and below {most}, got {value!r}")
        if not isinstance(self.fill, bool):
            raise ValueError(f"pose_errors: fill must be true or false, got {self.fill!r}")

    def __call__(
        self,
        clips: torch.Tensor,
        body: ErringBody,
        bits: Callable[[int], torch.Tensor],
        step: torch.Tensor | float = 1.0,
    ) -> torch.Tensor:
        """Clips as an estimator would have seen them.

        Args:
            clips: ``(N, T, M, V, C)``; in 2D, a third coordinate is the score. Joints that are all zero are missing,
                and stay so.
            body: Of the clips' layout.
            bits: Gives so many random int64 numbers for each clip ``(N, count)``.
            step: Recorded frames, 30 a second, from one frame of a clip to the next; ``(N,)`` or one number.

        Returns:
            Clips of the same shape. Bodies are not centred again.
        """
        draws = _uniform(bits(5 + 5 * clips.shape[2]))
        chosen = torch.nonzero(draws[:, 0] < self.probability)[:, 0]
        if not len(chosen):
            return clips
        step = torch.as_tensor(step, dtype=clips.dtype, device=clips.device).expand(len(clips))[chosen]
        result = clips.clone()
        result[chosen] = self._seen_wrongly(clips[chosen], body, draws[chosen], lambda n: bits(n)[chosen], step)
        return result

    def _seen_wrongly(
        self,
        clips: torch.Tensor,
        body: ErringBody,
        draws: torch.Tensor,
        bits: Callable[[int], torch.Tensor],
        step: torch.Tensor,
    ) -> torch.Tensor:
        """Clips with errors; `draws` are uniform numbers, 5 of the clip and 5 of each person."""
        draws = draws.to(clips.dtype)
        alone, each = draws[:, :5], draws[:, 5:].unflatten(1, (5, clips.shape[2]))
        if self.wrong_person:
            span = _span(each[:, 0], self.wrong_person, each[:, 1], alone[:, 3, None] * self.wrong_length, clips)
            clips = _with_wrong_person(clips, span, alone[:, 1], body.is_3d)
        has_score = not body.is_3d and clips.shape[-1] == 3
        seen = seen_joints(clips, has_score)
        if self.strength:
            error = self._position_errors(clips, seen, body, bits, step, alone[:, 2])
            clips = clips + error * seen[..., None]
        if self.strength and has_score:
            clips = _scored(clips, seen, bits)
        if self.size and body.is_3d:
            clips = clips * (1 + (2 * alone[:, 4] - 1) * self.size).view(-1, 1, 1, 1, 1)
        if self.limb_gap:
            span = _span(each[:, 2], self.limb_gap, each[:, 3], alone[:, 3, None] * self.gap_length, clips)
            clips = self._with_gaps(clips, span, each[:, 4], seen, body)
        return clips

    def _position_errors(
        self,
        clips: torch.Tensor,
        seen: torch.Tensor,
        body: ErringBody,
        bits: Callable[[int], torch.Tensor],
        step: torch.Tensor | float,
        camera: torch.Tensor,
    ) -> torch.Tensor:
        """Offset, drift and jitter of every joint ``(N, T, M, V, C)``, in the clips' unit."""
        count, frames, persons, _, channels = clips.shape
        values = measured()["3d" if body.is_3d else "2d"]
        axes = 3 if body.is_3d else 2
        constant, white = values["constant"], values["white"]
        drawn = _noise(bits, count, (1 + _KNOTS, persons, body.factor.shape[1], axes)).to(clips.dtype)
        # Each knot's random number makes an autoregressive series of the first order, in closed form.
        step = torch.as_tensor(step, dtype=clips.dtype, device=clips.device).expand(count)
        kept = torch.exp(-step * max(frames - 1, 1) / (_KNOTS - 1) / values["correlation"])[:, None, None]
        index = torch.arange(_KNOTS, device=clips.device)
        series = torch.where(index[:, None] >= index, kept ** (index[:, None] - index).clamp(min=0), 0)
        series = series * torch.where(index == 0, 1, (1 - kept**2).sqrt())
        factor = body.factor.to(clips.device, clips.dtype)
        turn = _depth_axis(camera, values["depth"]) if body.is_3d else torch.eye(2).expand(count, 2, 2)
        drawn = torch.einsum("vk,nimkc,ndc->nimvd", factor, drawn, turn.to(drawn) / math.sqrt(axes))
        drift = _interpolated(torch.einsum("nij,njmvc->nimvc", series, drawn[:, 1:]), frames, kept)
        jitter = _noise(bits, count, (frames, persons, len(factor), axes)).to(clips.dtype)
        error = drift.mul_(math.sqrt((1 - constant) * (1 - white))).add_(math.sqrt(constant) * drawn[:, :1])
        error.addcmul_(jitter, factor.norm(dim=1, keepdim=True), value=math.sqrt((1 - constant) * white / axes))
        error *= self.strength * _body_size(clips[..., :axes], seen)
        return torch.nn.functional.pad(error, (0, channels - axes))

    def _with_gaps(
        self, clips: torch.Tensor, span: torch.Tensor, draw: torch.Tensor, seen: torch.Tensor, body: ErringBody
    ) -> torch.Tensor:
        """Clips without one limb of each person in a span of frames ``(N, T, M)``."""
        parts = body.limbs.to(clips.device)
        lost = parts[(draw * len(parts)).long()]
        lost = lost & ~lost.all(-1, keepdim=True)
        gone = span[..., None] & lost[:, None]
        if not self.fill:
            return torch.where(gone[..., None], 0, clips)
        weights = nearest_joints(body.distances.to(clips.device), ~lost).to(clips.dtype)
        filled = torch.einsum("nmwv,ntmvc->ntmwc", weights, clips)
        return torch.where((gone & seen)[..., None], filled, clips)


def torch_bits(count: int, device: torch.device) -> Callable[[int], torch.Tensor]:
    """Random numbers of torch's generator for `count` clips, as `PoseErrors` takes them."""
    return lambda number: torch.randint(-(1 << 63), (1 << 63) - 1, (count, number), device=device)


def _uniform(bits: torch.Tensor) -> torch.Tensor:
    """Float32 in [0, 1) of the upper 24 bits of int64."""
    return ((bits >> 40) & ((1 << 24) - 1)).float() / (1 << 24)


def _depth_axis(camera: torch.Tensor, depth: float) -> torch.Tensor:
    """Matrices ``(N, 3, 3)`` that make errors larger along a horizontal axis, at an angle in [0, 1) of a full turn.

    The mean square of the factors over the axes is 1.
    """
    angle = camera * 2 * math.pi
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine], -1).unflatten(-1, (3, 3))
    return turn * turn.new_tensor([1, 1, depth]) * math.sqrt(3 / (2 + depth**2))


def _noise(bits: Callable[[int], torch.Tensor], count: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Random numbers ``(N, *shape)`` of mean 0 and variance 1, uniform: as good as normal ones, and cheap."""
    number = math.prod(shape)
    # Four numbers of 16 bits each of one of 64 bits.
    drawn = bits(-(-number // 4)).contiguous().view(torch.int16)[:, :number]
    return (drawn.float() + 0.5).mul_(math.sqrt(3) / (1 << 15)).view(count, *shape)


def _interpolated(knots: torch.Tensor, frames: int, kept: torch.Tensor) -> torch.Tensor:
    """Values at `frames` moments between knots ``(N, K, ...)``, with the variance of the knots at each moment."""
    position = torch.linspace(0, knots.shape[1] - 1, frames, device=knots.device, dtype=knots.dtype)
    before = position.long().clamp(max=knots.shape[1] - 2)
    weight = position - before
    # Between two knots a mean varies less than they do.
    variance = (1 - weight) ** 2 + weight**2 + 2 * weight * (1 - weight) * kept[:, 0]
    first, second = (1 - weight) / variance.sqrt(), weight / variance.sqrt()
    tail = [1] * (knots.ndim - 2)
    return knots[:, before] * first.view(len(knots), frames, *tail) + knots[:, before + 1] * second.view(
        len(knots), frames, *tail
    )


def _body_size(clips: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Root mean square distance of a person's joints from their mean in each frame ``(N, 1, M, 1, 1)``."""
    mask = seen[..., None].to(clips.dtype)
    number = mask.sum(3, keepdim=True).clamp(min=1)
    middle = (clips * mask).sum(3, keepdim=True) / number
    squares = ((clips - middle) * mask).square().sum((1, 3, 4))
    return (squares / seen.sum((1, 3)).clamp(min=1)).sqrt()[:, None, :, None, None]


def _span(
    draw: torch.Tensor,
    probability: float,
    start: torch.Tensor,
    share: torch.Tensor,
    clips: torch.Tensor,
) -> torch.Tensor:
    """Frames ``(N, T, M)`` of one span of each person; none where the draw is not below the probability."""
    frames = clips.shape[1]
    length = (share * frames).ceil()
    start = (start * (frames - length + 1)).floor()
    time = torch.arange(frames, device=clips.device)[None, :, None]
    start, length = start[:, None], length[:, None]
    return (time >= start) & (time < start + length) & (draw < probability)[:, None]


def _with_wrong_person(clips: torch.Tensor, span: torch.Tensor, turn: torch.Tensor, is_3d: bool) -> torch.Tensor:
    """Clips with another person in someone's position in a span of frames ``(N, T, M)``."""
    axes = 3 if is_3d else 2
    seen = seen_joints(clips)
    later, later_seen = clips.flip(1), seen.flip(1)

    def middle(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return frames[..., :axes].sum(-2, keepdim=True) / mask.sum(-1).clamp(min=1)[..., None, None]

    angle = (0.25 + 0.5 * turn) * 2 * math.pi
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    if is_3d:
        matrix = torch.stack([cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine], -1).unflatten(-1, (3, 3))
    else:
        matrix = torch.diag(clips.new_tensor([-1.0, 1.0])).expand(len(clips), 2, 2)
    turned = torch.einsum("ntmvc,ndc->ntmvd", later[..., :axes] - middle(later, later_seen), matrix)
    other = torch.cat([turned + middle(clips, seen), later[..., axes:]], -1) * later_seen[..., None]
    if clips.shape[2] > 1:
        # All present people exchange their positions where there are several.
        next_one, present = clips.roll(1, 2), seen.any(-1)
        both = (present & present.roll(1, 2))[..., None, None]
        # The same frames for both.
        span = torch.where(both[..., 0, 0], span.any(2, keepdim=True), span)
        other = torch.where(both, next_one, other)
    there = span & seen.any(-1) & seen_joints(other).any(-1)
    return torch.where(there[..., None, None], other, clips)


def _scored(clips: torch.Tensor, seen: torch.Tensor, bits: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """2D clips with scores, the same in all frames; in the film they hardly go with the errors."""
    values = measured()["scores"]
    spread = _noise(bits, len(clips), (1, *clips.shape[2:4])).to(clips.dtype) * values["spread"]
    score = (values["mean"] + spread).clamp(0.05, 1) * seen
    return torch.cat([clips[..., :2], score[..., None]], -1)
