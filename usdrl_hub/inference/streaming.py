"""Live skeletons: push a frame, get an embedding and, with a head, class probabilities."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..facts.checkpoints import RECOGNISER
from ..finite import check_finite
from ..layouts import LayoutLike, get_layout
from ..loading import load_config
from ..modeling_usdrl import USDRLTokenStream
from ..normalization import FIRST_FRAMES
from ..sequence import FARTHEST, METRES, SkeletonFormatError, SkeletonSequence, to_float32
from .cache import CausalCache
from .causal import OVERLAP
from .embedding import clip_embeddings
from .engine import Engine
from .scores import NONE_OF_THESE, NOT_FINITE, class_scores, top_classes


@dataclass(frozen=True, eq=False)
class StreamResult:
    """The result for one person or scene at one moment.

    Attributes:
        frame: Number of the frame that the result is for, counted from 0 for each person or scene.
        start: First frame that the model saw for it.
        embedding: Float32 ``(E,)``, as of `extract_embeddings`; for a causal model ``(d,)``, the maximum over the
            frames so far.
        probabilities: One per class ``(K,)``, see `Prediction`; None without a head.
        class_names: Names of the classes; empty without a head.
        similarity: See `Prediction`.
        is_known: See `Prediction`.
    """

    frame: int
    start: int
    embedding: np.ndarray
    probabilities: np.ndarray | None = None
    class_names: list[str] = field(default_factory=list)
    similarity: float | None = None
    is_known: bool = True

    @property
    def label(self) -> str | None:
        """The most probable class, or `scores.NONE_OF_THESE`; None without a head."""
        return None if self.probabilities is None else self.top(1)[0][0] if self.is_known else NONE_OF_THESE

    def top(self, k: int) -> list[tuple[str, float]]:
        """The `k` most probable classes with their probabilities, in descending order; empty without a head."""
        return [] if self.probabilities is None else top_classes(self.probabilities, self.class_names, k)


class _Person:
    """State of one person or scene: the frames that are still needed, and how many have been pushed."""

    def __init__(self, kept: int, slot: int):
        self.frames: deque[np.ndarray] = deque(maxlen=kept)
        self.beginning: list[np.ndarray] = []
        self.count = 0
        self.slot = slot


class USDRLStream:
    """Live people, or scenes of several people, frame by frame.

    A model that reads whole clips gets a sliding window: the last `window` frames, prepared exactly as a recording of
    these frames, so a result equals that of the window alone. A causal model computes each frame once and keeps the
    states of earlier frames, within clips of its length; consecutive clips share 16 frames (as `inference.causal` does
    with recordings). There the first 8 frames (the first one for normalization ``"ntu"`` and ``"uav"``) decide how the
    body is turned and scaled.

    `push` returns the result itself, so nothing waits in a queue: a result is at most `stride` - 1 frames old, and
    `delay` older where that is given.

    Args:
        model: A checkpoint's name, folder or hub repository; a loaded model; or an `Engine`: an encoder, recognition
            model, detector, segmenter or early predictor.
        layout: Joint layout of the frames; the model's where None.
        window: Frames of a result; the model's clip length where None. Give more for fast sensors: 128 at 60 frames
            per second for a model of clips of 64 at 30. Causal models accept their clip length only.
        stride: Frames between results.
        min_frames: Frames of a person before the first result; a quarter of the window where None, 1 for causal
            models.
        delay: For heads that score every frame (detection, segmentation): how many frames before the newest one is
            scored, less than `window`. A larger delay gives the model more later frames.
        patience: Pushes without a person after which the person is forgotten.
        device: Where to compute; see `extract_embeddings`.
        dtype: Type to compute in; see `extract_embeddings`.
        **about: Fields of `SkeletonSequence` that describe the frames: `up`, `units`, `coordinates`, `mirrored`,
            `image_shape`; and `threshold`, see `Engine`.

    Raises:
        CheckpointLoadError: If the model cannot be found or loaded.
        ValueError: If an argument is impossible.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import USDRLStream
        >>> stream = USDRLStream("usdrl/tiny-uiprmd", stride=16)
        >>> results = [stream.push(frame) for frame in np.random.rand(64, 25, 3)]
        >>> [result.frame for result in results if result]
        [15, 31, 47, 63]
    """

    def __init__(
        self,
        model: Any = RECOGNISER,
        *,
        layout: LayoutLike | None = None,
        window: int | None = None,
        stride: int = 1,
        min_frames: int | None = None,
        delay: int = 0,
        patience: int = 30,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        **about: Any,
    ):
        # A causal model is not fused: the states that are kept are those of its own layers.
        is_causal = isinstance(model, str | os.PathLike) and load_config(model).is_causal
        engine = Engine.load(
            model, fused=not is_causal, device=device, dtype=dtype, threshold=about.pop("threshold", None)
        )
        self.model, self.extractor, self.min_similarity = engine.model, engine.extractor, engine.min_similarity
        is_causal = self.model.config.is_causal
        if self.model.task == "pretraining":
            self.model = self.model.base_model
        if is_causal and not isinstance(self.model.base_model.temporal, USDRLTokenStream):
            raise ValueError("a causal model streams as it is: use the original model, not the fused one")
        if is_causal and any(parameter.is_meta for parameter in self.model.parameters()):
            raise ValueError("a causal model that is offloaded does not stream: load it without device_map")
        size = self.extractor.num_frames
        if is_causal and window not in (None, size):
            raise ValueError(f"window is {window}, but this causal model goes through clips of {size} frames")
        self.window = size if window is None else window
        if min_frames is None:
            min_frames = 1 if is_causal else max(self.window // 4, 1)
        for name, value in (("window", self.window), ("stride", stride), ("min_frames", min_frames)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if min_frames > self.window:
            raise ValueError(f"min_frames is {min_frames}, but a window has {self.window} frames")
        scores_frames = self.model.task in ("detection", "segmentation")
        if not isinstance(delay, int) or not 0 <= delay < self.window or (delay and not scores_frames):
            raise ValueError(
                f"delay is {delay!r}: it is a number of frames below the window's {self.window}, for detectors and "
                "segmenters, which score single frames"
            )
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience must be at least 1 push, got {patience!r}")
        self.layout = get_layout(layout or self.extractor.source_layout or self.extractor.layout)
        self.stride, self.min_frames, self.delay, self.patience = stride, min_frames, delay, patience
        # Fields that do not fit are refused here, not at the first frame.
        joints = np.ones((1, 1, self.layout.num_joints, self._channels(about)), dtype=np.float32)
        SkeletonSequence(joints, self.layout, **about)
        self.about = about
        self.is_causal = is_causal
        self._cache = CausalCache(self.model.base_model) if is_causal else None
        self._people: dict[Hashable, _Person] = {}
        self._absent: dict[Hashable, int] = {}

    def _channels(self, about: Mapping[str, Any]) -> int:
        coordinates = about.get("coordinates") or self.layout.coordinates
        return 2 if coordinates == "2d" else 3

    @property
    def people(self) -> list[Hashable]:
        """Keys of the people and scenes that are followed now."""
        return list(self._people)

    def reset(self, person: Hashable = None) -> None:
        """Forget a person; all if None."""
        for key in [person] if person is not None else self.people:
            self._people.pop(key, None)
            self._absent.pop(key, None)

    def push(self, frame: Any) -> StreamResult | None:
        """Push the next frame of a single person or scene.

        Args:
            frame: ``(V, C)``, or ``(M, V, C)`` of the people of a scene, always in the same order; a joint that was
                not seen is all zero. None if no person is visible in this frame.

        Returns:
            The result, in every `stride`-th frame; else None.

        Raises:
            SkeletonFormatError: If the frame does not fit the layout or is not finite; it then counts as not pushed.
        """
        return self.push_many({None: frame}).get(None)

    def push_many(self, frames: Mapping[Hashable, Any]) -> dict[Hashable, StreamResult]:
        """Push the next frame of several people at once; results that are due are computed together.

        Args:
            frames: A frame (see `push`) for each person, by any key, such as a tracker's number. A person left out
                does not advance, and is forgotten after `patience` pushes.

        Returns:
            The results that are due, by key.

        Raises:
            SkeletonFormatError: See `push`; then no frame counts as pushed.
        """
        read = {key: self._frame(key, frame) for key, frame in frames.items()}
        self._forget(read)
        due: list[Hashable] = []
        for key, frame in read.items():
            person = self._people.get(key)
            if person is None:
                if not frame.any():
                    continue
                person = self._people[key] = _Person(self.window, self._free_slot())
            if self.is_causal and not frame.any():
                # As at the missing end of a recording, the last frame is repeated.
                frame = person.frames[-1]
            person.frames.append(frame)
            person.count += 1
            if len(person.beginning) < FIRST_FRAMES:
                person.beginning.append(frame)
            if self.is_causal or (self._is_due(person) and any(kept.any() for kept in person.frames)):
                due.append(key)
        if not due:
            return {}
        return self._advance(due) if self.is_causal else self._windows(due)

    def _frame(self, key: Hashable, frame: Any) -> np.ndarray:
        """A frame as ``(M, V, C)`` float32."""
        where = "frame" if key is None else f"frame of {key!r}"
        joints, channels = self.layout.num_joints, self._channels(self.about)
        if frame is None:
            return np.zeros((1, joints, channels), dtype=np.float32)
        array = frame.detach().cpu().float().numpy() if isinstance(frame, torch.Tensor) else to_float32(frame, where)
        array = array[None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[1:] != (joints, channels) or not len(array):
            raise SkeletonFormatError(
                f"{where}: expected ({joints}, {channels}) joints and coordinates of layout "
                f"'{self.layout.name}', or a scene of (persons, {joints}, {channels}), got {np.shape(frame)}"
            )
        if not np.isfinite(array).all():
            raise SkeletonFormatError(f"{where}: it holds NaN or infinity: joints that were not seen are all zero")
        # As `SkeletonSequence` refuses it, but before the frame is in the window of all that follow.
        is_3d = (self.about.get("coordinates") or self.layout.coordinates) == "3d"
        farthest = FARTHEST / METRES[(is_3d and self.about.get("units")) or "m"]
        if (most := np.abs(array).max()) > farthest:
            raise SkeletonFormatError(
                f"{where}: a coordinate is {most:.3g}, beyond {farthest:.0e}: joints that were not seen are all zero"
            )
        if self.is_causal and len(array) > self.extractor.num_persons:
            # Who moves most is known only at the end, so the first people are kept.
            array = array[: self.extractor.num_persons]
        return np.array(array, dtype=np.float32)

    def _forget(self, present: Mapping[Hashable, Any]) -> None:
        for key in self.people:
            self._absent[key] = 0 if key in present else self._absent.get(key, 0) + 1
            if self._absent[key] > self.patience:
                # Not with `reset`, to which the key None of `push` means all people.
                del self._people[key], self._absent[key]

    def _free_slot(self) -> int:
        used = {person.slot for person in self._people.values()}
        return next(slot for slot in range(len(used) + 1) if slot not in used)

    def _sequence(self, frames: list[np.ndarray]) -> SkeletonSequence:
        """Frames of one person or scene, padded to the largest number of people."""
        num_persons = max(len(frame) for frame in frames)
        keypoints = np.zeros((len(frames), num_persons, *frames[0].shape[1:]), dtype=np.float32)
        for number, frame in enumerate(frames):
            keypoints[number, : len(frame)] = frame
        return SkeletonSequence(keypoints, self.layout, **self.about)

    @torch.inference_mode()
    def _windows(self, due: list[Hashable]) -> dict[Hashable, StreamResult]:
        """Results of people, whose windows are computed together."""
        people = [self._people[key] for key in due]
        sequences = [self._sequence(list(person.frames)) for person in people]
        clips = self.extractor(sequences, return_tensors="pt", device=self.model.device)["keypoints"]
        encoded = self.model.base_model(clips)
        scores = None
        lengths = torch.tensor([len(person.frames) for person in people])
        if self.model.task == "recognition":
            scores = self._head(encoded.pooler_output)
        elif self.model.task == "detection":
            scores = self._of_frames(self._head(encoded.last_hidden_state), lengths)
        elif self.model.task == "segmentation":
            starts = torch.zeros(len(clips), 1, dtype=torch.long, device=clips.device)
            scores = self._of_frames(self.model(clips[:, None], window_starts=starts).logits, lengths)
        similarity = None
        if self.model.task == "recognition" and self.min_similarity is not None:
            similarity = self.model.similarity(encoded.pooler_output, scores)
        results = self._results(due, clip_embeddings(encoded), scores, similarity)
        starts_at = {key: person.count - len(person.frames) for key, person in zip(due, people, strict=True)}
        return {
            key: replace(result, frame=max(result.frame - self.delay, starts_at[key]), start=starts_at[key])
            for key, result in results.items()
        }

    def _head(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.model.classifier(embeddings)

    def _of_frames(self, logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits of the frame `delay` before the last, of clips that were resized from windows of given lengths."""
        size = logits.shape[1]
        frame = ((lengths - self.delay - 0.5).clamp(min=0.5) * size / lengths).long().clamp(max=size - 1)
        return logits[torch.arange(len(logits), device=logits.device), frame.to(logits.device)]

    @torch.inference_mode()
    def _advance(self, moved: list[Hashable]) -> dict[Hashable, StreamResult]:
        """Advance a causal model's states by one frame of each person; return the results that are due."""
        assert self._cache is not None
        size = self.extractor.num_frames
        overlap = min(OVERLAP, size - 1)
        begun: list[Hashable] = []
        going: list[Hashable] = []
        for key in moved:
            # A clip after the first one begins with the frames that it shares with the one before.
            frame = self._people[key].count - 1
            is_restart = frame >= size and (frame - size) % (size - overlap) == 0
            (begun if is_restart else going).append(key)
        pooled: dict[Hashable, torch.Tensor] = {}
        for keys, frames in ((begun, overlap + 1), (going, 1)):
            if not keys:
                continue
            people = [self._people[key] for key in keys]
            starts = [self._position(person.count - 1, size, overlap) - frames + 1 for person in people]
            # One frame before the new ones, for the motion modality.
            tokens = self._tokens(people, frames + 1)
            slots = torch.tensor([person.slot for person in people], device=tokens.device)
            fresh = torch.tensor([person.count == 1 for person in people], device=tokens.device)
            start = torch.tensor(starts, device=tokens.device)
            for key, row in zip(keys, self._cache(tokens, slots, start, fresh), strict=True):
                pooled[key] = row
        due = [key for key in moved if self._is_due(self._people[key])]
        if not due:
            return {}
        embeddings = torch.stack([pooled[key] for key in due])
        scores = self._head(embeddings) if self.model.task == "early prediction" else None
        return self._results(due, embeddings, scores)

    def _is_due(self, person: _Person) -> bool:
        past = person.count - self.min_frames
        return past >= 0 and past % self.stride == 0

    @staticmethod
    def _position(frame: int, size: int, overlap: int) -> int:
        """Position of a frame in the first clip that has it."""
        return frame if frame < size else overlap + (frame - size) % (size - overlap)

    def _tokens(self, people: list[_Person], frames: int) -> torch.Tensor:
        """The last frames of people, normalised ``(P, frames, M, V, C)``; if there are fewer, the first repeats."""
        known = FIRST_FRAMES if self.extractor.upright or self.extractor.torso is not None else 1
        rows = []
        for person in people:
            beginning = person.beginning[:known]
            kept = list(person.frames)[-frames:]
            filled = [beginning[-1]] * (known - len(beginning))
            rows.append(self._sequence([*beginning, *filled, *[kept[0]] * (frames - len(kept)), *kept]))
        num_persons = max(row.num_persons for row in rows)
        if any(row.num_persons < num_persons for row in rows):
            rows = [self._sequence(list(_padded(row.keypoints, num_persons))) for row in rows]
        return self.extractor.normalized_further(rows, known, self.model.device)

    def _results(
        self,
        keys: list[Hashable],
        embeddings: torch.Tensor,
        scores: torch.Tensor | None,
        similarity: torch.Tensor | None = None,
    ) -> dict[Hashable, StreamResult]:
        names = [] if scores is None else self.model.config.class_names
        vectors = embeddings.float().cpu().numpy()
        rows = [None] * len(keys) if scores is None else class_scores(scores, self.model.config).cpu().numpy()
        alike = [None] * len(keys) if similarity is None else similarity.tolist()
        results = {}
        for key, vector, probabilities, found in zip(keys, vectors, rows, alike, strict=True):
            frame = self._people[key].count - 1
            where = f"{'the scene' if key is None else repr(key)}, frame {frame}"
            check_finite(vector, f"{where}: the embedding", NOT_FINITE)
            if probabilities is not None:
                check_finite(probabilities, f"{where}: what the model says", NOT_FINITE)
            known = found is None or self.min_similarity is None or found >= self.min_similarity
            results[key] = StreamResult(frame, 0, vector, probabilities, names, found, known)
        return results


def _padded(keypoints: np.ndarray, persons: int) -> np.ndarray:
    return np.pad(keypoints, ((0, 0), (0, persons - keypoints.shape[1]), (0, 0), (0, 0)))
