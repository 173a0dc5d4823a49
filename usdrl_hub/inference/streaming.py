"""Live skeletons: push a frame, get an embedding and, with a head, scores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..layouts import LayoutLike, get_layout
from ..loading import load_config, load_feature_extractor, load_model
from ..modeling_usdrl import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLPreTrainedModel,
    USDRLTokenStream,
)
from ..normalization import FIRST_FRAMES
from ..sequence import SkeletonFormatError, SkeletonSequence, to_float32
from .cache import CausalCache
from .causal import OVERLAP
from .inputs import NOT_FINITE, class_scores, ready_model


@dataclass(frozen=True, eq=False)
class StreamResult:
    """What a model says about somebody now.

    Attributes:
        frame: Number of the frame that this is about, counted from 0 for each person or scene.
        start: First frame that the model saw for it.
        embedding: Float32 ``(2d,)``; for a causal model ``(d,)``, the maximum over the frames so far.
        probabilities: One per class ``(K,)``, see `Prediction`; None without a head.
        class_names: Names of the classes; empty without a head.
    """

    frame: int
    start: int
    embedding: np.ndarray
    probabilities: np.ndarray | None = None
    class_names: list[str] = field(default_factory=list)

    def top(self, k: int) -> list[tuple[str, float]]:
        """The `k` likeliest classes with their probabilities, likeliest first; empty without a head."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.class_names[number], float(self.probabilities[number])) for number in order]


class _Person:
    """What is kept of one person or scene: the frames that are still needed, and how many there have been."""

    def __init__(self, kept: int, slot: int):
        self.frames: deque[np.ndarray] = deque(maxlen=kept)
        self.beginning: list[np.ndarray] = []
        self.count = 0
        self.slot = slot


class USDRLStream:
    """Live people, or scenes of several, frame by frame.

    A checkpoint that reads whole clips gets a sliding window: the last `window` frames, prepared exactly as a
    recording of these frames is, so that a result equals that of the window by itself. A causal checkpoint computes
    each frame once: what it needs of earlier frames is kept, inside clips of its length, and at the end of one the
    next begins with the last 16 frames of it (as `inference.causal` does with recordings). There the first 8
    frames (the first one for normalization ``"ntu"`` and ``"uav"``) say how the body is turned and scaled.

    Results come after `push` returns, so nothing waits in a queue: a frame is answered within `stride` frames, or
    `delay` later where that is asked for.

    Args:
        model: A checkpoint's name or folder, or a model: encoder, recogniser, detector, segmenter or early predictor.
        feature_extractor: The model's own where None.
        source_layout: Layout of the frames; the model's where None.
        window: Frames that a result is made of; the model's clip length where None. Give more for fast sensors: 128
            at 60 frames per second for a model of clips of 64 at 30. Causal models have no choice.
        stride: Frames between results; a result is at most `stride` - 1 frames old.
        min_frames: Frames of a person before the first result; a quarter of the window where None, 1 for causal
            models.
        delay: For heads that score every frame (detection, segmentation): how many frames before the newest one is
            scored, less than `window`. More give them more of what follows to see.
        patience: Pushes without a person after which they are forgotten.
        device: Where to compute; see `extract_embeddings`.
        dtype: Type to compute in; see `extract_embeddings`.
        **about: What the frames are, as `SkeletonSequence` has it: `up`, `units`, `coordinates`, `mirrored`,
            `image_shape`.

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
        model: str | os.PathLike | USDRLPreTrainedModel = "usdrl/tiny-uiprmd",
        feature_extractor: USDRLFeatureExtractor | None = None,
        source_layout: LayoutLike | None = None,
        window: int | None = None,
        stride: int = 1,
        min_frames: int | None = None,
        delay: int = 0,
        patience: int = 30,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        **about: Any,
    ):
        is_causal = (model.config if isinstance(model, USDRLPreTrainedModel) else load_config(model)).is_causal
        if is_causal and not isinstance(model, USDRLPreTrainedModel):
            # Kept states are of the layers as they are: a fused model has others.
            feature_extractor = feature_extractor or load_feature_extractor(model)
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            model = load_model(model)
        self.model, self.extractor = ready_model(model, feature_extractor, True, device, dtype)
        if isinstance(self.model, USDRLForPreTraining):
            self.model = self.model.usdrl
        if is_causal and not isinstance(self.model.base_model.temporal, USDRLTokenStream):
            raise ValueError("a causal model streams as it is: give the model that the fused one is made of")
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
        scores_frames = isinstance(self.model, USDRLForActionDetection | USDRLForActionSegmentation)
        if not isinstance(delay, int) or not 0 <= delay < self.window or (delay and not scores_frames):
            raise ValueError(
                f"delay is {delay!r}: it is a number of frames below the window's {self.window}, for detectors and "
                "segmenters, which score single frames"
            )
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience must be at least 1 push, got {patience!r}")
        self.source_layout = get_layout(source_layout or self.extractor.source_layout or self.extractor.layout)
        self.stride, self.min_frames, self.delay, self.patience = stride, min_frames, delay, patience
        # Refused here, not at the first frame.
        joints = np.ones((1, 1, self.source_layout.num_joints, self._channels(about)), dtype=np.float32)
        SkeletonSequence(joints, self.source_layout, **about)
        self.about = about
        self.is_causal = is_causal
        self._cache = CausalCache(self.model.base_model) if is_causal else None  # type: ignore[arg-type]
        self._people: dict[Hashable, _Person] = {}
        self._absent: dict[Hashable, int] = {}

    def _channels(self, about: Mapping[str, Any]) -> int:
        coordinates = about.get("coordinates") or self.source_layout.coordinates
        return 2 if coordinates == "2d" else 3

    @property
    def people(self) -> list[Hashable]:
        """Those who are followed now."""
        return list(self._people)

    def reset(self, person: Hashable = None) -> None:
        """Forget somebody; everybody where None."""
        for key in [person] if person is not None else self.people:
            self._people.pop(key, None)
            self._absent.pop(key, None)

    def push(self, frame: Any) -> StreamResult | None:
        """Push the next frame of the one person or scene that there is.

        Args:
            frame: ``(V, C)``, or ``(M, V, C)`` of the people of a scene, always in the same order; a joint that was
                not seen is all zero. None where nobody is seen in this frame.

        Returns:
            The result, in every `stride`-th frame; else None.

        Raises:
            SkeletonFormatError: If the frame is not of the layout, or not finite; it then counts as not pushed.
        """
        return self.push_many({None: frame}).get(None)

    def push_many(self, frames: Mapping[Hashable, Any]) -> dict[Hashable, StreamResult]:
        """Push the next frame of several people at once; results that are due are computed together.

        Args:
            frames: A frame (see `push`) for each person who is followed, by any key, such as a tracker's number. Who
                is left out has not moved on: they go on later, or are forgotten after `patience` pushes.

        Returns:
            The results of those who are due.

        Raises:
            SkeletonFormatError: See `push`; nobody's frame counts then.
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
                # As where a recording's end is missing: the last frame stands.
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
        joints, channels = self.source_layout.num_joints, self._channels(self.about)
        if frame is None:
            return np.zeros((1, joints, channels), dtype=np.float32)
        array = frame.detach().cpu().float().numpy() if isinstance(frame, torch.Tensor) else to_float32(frame, where)
        array = array[None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[1:] != (joints, channels) or not len(array):
            raise SkeletonFormatError(
                f"{where}: expected ({joints}, {channels}) joints and coordinates of layout "
                f"'{self.source_layout.name}', or a scene of (persons, {joints}, {channels}), got {np.shape(frame)}"
            )
        if not np.isfinite(array).all():
            raise SkeletonFormatError(f"{where}: it holds NaN or infinity: joints that were not seen are all zero")
        if self.is_causal and len(array) > self.extractor.num_persons:
            # Who moves most is known of whole recordings only.
            array = array[: self.extractor.num_persons]
        return np.array(array, dtype=np.float32)

    def _forget(self, present: Mapping[Hashable, Any]) -> None:
        for key in self.people:
            self._absent[key] = 0 if key in present else self._absent.get(key, 0) + 1
            if self._absent[key] > self.patience:
                # Not by `reset`, to which the key of `push` means everybody.
                del self._people[key], self._absent[key]

    def _free_slot(self) -> int:
        used = {person.slot for person in self._people.values()}
        return next(slot for slot in range(len(used) + 1) if slot not in used)

    def _sequence(self, frames: list[np.ndarray]) -> SkeletonSequence:
        """Frames of one person or scene, of as many people as the fullest has."""
        most = max(len(frame) for frame in frames)
        keypoints = np.zeros((len(frames), most, *frames[0].shape[1:]), dtype=np.float32)
        for number, frame in enumerate(frames):
            keypoints[number, : len(frame)] = frame
        return SkeletonSequence(keypoints, self.source_layout, **self.about)

    @torch.inference_mode()
    def _windows(self, due: list[Hashable]) -> dict[Hashable, StreamResult]:
        """Results of people whose windows are computed together."""
        people = [self._people[key] for key in due]
        sequences = [self._sequence(list(person.frames)) for person in people]
        clips = self.extractor(sequences, return_tensors="pt", device=self.model.device)["keypoints"]
        encoded = self.model.base_model(clips)
        scores = None
        lengths = torch.tensor([len(person.frames) for person in people])
        if isinstance(self.model, USDRLForActionRecognition):
            scores = self._head(encoded.pooler_output)
        elif isinstance(self.model, USDRLForActionDetection):
            scores = self._of_frames(self._head(encoded.last_hidden_state), lengths)
        elif isinstance(self.model, USDRLForActionSegmentation):
            starts = torch.zeros(len(clips), 1, dtype=torch.long, device=clips.device)
            scores = self._of_frames(self.model(clips[:, None], window_starts=starts).logits, lengths)
        results = self._results(due, encoded.pooler_output, scores)
        starts_at = {key: person.count - len(person.frames) for key, person in zip(due, people, strict=True)}
        return {
            key: replace(result, frame=max(result.frame - self.delay, starts_at[key]), start=starts_at[key])
            for key, result in results.items()
        }

    def _head(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.model.classifier(embeddings)  # type: ignore[operator]

    def _of_frames(self, logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits of the frame `delay` before the last, of clips that windows of some lengths were resized to."""
        size = logits.shape[1]
        place = ((lengths - self.delay - 0.5).clamp(min=0.5) * size / lengths).long().clamp(max=size - 1)
        return logits[torch.arange(len(logits), device=logits.device), place.to(logits.device)]

    @torch.inference_mode()
    def _advance(self, moved: list[Hashable]) -> dict[Hashable, StreamResult]:
        """Take one frame of each person into a causal model's kept states; results of those who are due."""
        assert self._cache is not None
        size = self.extractor.num_frames
        overlap = min(OVERLAP, size - 1)
        begun: list[Hashable] = []
        going: list[Hashable] = []
        for key in moved:
            # Frames that are new in every clip after the first one, which begins with what is already known.
            place = self._people[key].count - 1
            is_restart = place >= size and (place - size) % (size - overlap) == 0
            (begun if is_restart else going).append(key)
        pooled: dict[Hashable, torch.Tensor] = {}
        for keys, frames in ((begun, overlap + 1), (going, 1)):
            if not keys:
                continue
            people = [self._people[key] for key in keys]
            places = [self._place(person.count - 1, size, overlap) - frames + 1 for person in people]
            # One frame more than is computed: motion is the difference to it.
            tokens = self._tokens(people, frames + 1)
            slots = torch.tensor([person.slot for person in people], device=tokens.device)
            fresh = torch.tensor([person.count == 1 for person in people], device=tokens.device)
            start = torch.tensor(places, device=tokens.device)
            for key, row in zip(keys, self._cache(tokens, slots, start, fresh), strict=True):
                pooled[key] = row
        due = [key for key in moved if self._is_due(self._people[key])]
        if not due:
            return {}
        embeddings = torch.stack([pooled[key] for key in due])
        has_head = isinstance(self.model, USDRLForEarlyActionPrediction)
        scores = self._head(embeddings) if has_head else None
        return self._results(due, embeddings, scores)

    def _is_due(self, person: _Person) -> bool:
        past = person.count - self.min_frames
        return past >= 0 and past % self.stride == 0

    @staticmethod
    def _place(frame: int, size: int, overlap: int) -> int:
        """Place of a frame in the clip in which it is new."""
        return frame if frame < size else overlap + (frame - size) % (size - overlap)

    def _tokens(self, people: list[_Person], frames: int) -> torch.Tensor:
        """The last frames of people, normalised ``(P, frames, M, V, C)``; the first repeats where there are fewer."""
        known = FIRST_FRAMES if self.extractor.upright or self.extractor.torso is not None else 1
        rows = []
        for person in people:
            beginning = person.beginning[:known]
            kept = list(person.frames)[-frames:]
            filled = [beginning[-1]] * (known - len(beginning))
            rows.append(self._sequence([*beginning, *filled, *[kept[0]] * (frames - len(kept)), *kept]))
        most = max(row.num_persons for row in rows)
        if any(row.num_persons < most for row in rows):
            rows = [self._sequence(list(_padded(row.keypoints, most))) for row in rows]
        return self.extractor.normalized_further(rows, known, self.model.device)

    def _results(
        self, keys: list[Hashable], embeddings: torch.Tensor, scores: torch.Tensor | None
    ) -> dict[Hashable, StreamResult]:
        names = [] if scores is None else self.model.config.class_names
        vectors = embeddings.float().cpu().numpy()
        chances = [None] * len(keys) if scores is None else class_scores(scores, self.model.config).cpu().numpy()
        for key, vector, chance in zip(keys, vectors, chances, strict=True):
            where = f"{'the scene' if key is None else repr(key)}, frame {self._people[key].count - 1}"
            check_finite(vector, f"{where}: the embedding", NOT_FINITE)
            if chance is not None:
                check_finite(chance, f"{where}: what the model says", NOT_FINITE)
        return {
            key: StreamResult(self._people[key].count - 1, 0, vector, chance, names)
            for key, vector, chance in zip(keys, vectors, chances, strict=True)
        }


def _padded(keypoints: np.ndarray, persons: int) -> np.ndarray:
    return np.pad(keypoints, ((0, 0), (0, persons - keypoints.shape[1]), (0, 0), (0, 0)))
