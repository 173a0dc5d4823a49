"""`StoreFeed`: clips of a store's recordings, whose numbers go to the device as they lie on disk.

No recording is read, scaled, converted or copied alone: whole groups are, on the model's device. Clips are those of
`USDRLFeatureExtractor`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..data.store import SkeletonStore, is_store
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..layouts import TO_Y_UP, conversion_weights, get_layout, seen_joints
from ..normalization import PIXELS
from ..ragged import RaggedFrames
from ..sequence import FARTHEST, METRES, SkeletonFormatError, SkeletonSequence
from .source import Source


class StoreFeed:
    """Clips of a store of 3D keypoints for a model of 3D keypoints; see `for_source`.

    Attributes:
        store: The store.
        extractor: The model's feature extractor.
        device: Where clips are made.
    """

    def __init__(self, store: SkeletonStore, extractor: USDRLFeatureExtractor, device: torch.device):
        self.store = store
        self.extractor = extractor
        self.device = device
        header, layout = store.header, get_layout(extractor.layout)
        weights = None
        if header.layout.joint_names != layout.joint_names:
            weights = torch.from_numpy(conversion_weights(header.layout, layout).copy()).to(device)
        self._weights = weights
        axes, signs = TO_Y_UP[header.up] if layout.up == "y" else TO_Y_UP["y"]
        factors = np.array(signs, np.float32) * np.float32(METRES[header.units])
        factors[0] *= -1 if header.mirrored else 1
        self._axes = None if axes == [0, 1, 2] else torch.tensor(axes, device=device)
        self._factors = None if (factors == 1).all() else torch.from_numpy(factors).to(device)

    @classmethod
    def for_source(cls, source: Source, extractor: USDRLFeatureExtractor, device: torch.device) -> StoreFeed | None:
        """The feed of a source's only input, if that is a store which needs nothing that is done to one recording.

        Such are 2D keypoints, people who are embedded alone, tracked or not chosen by energy, and fields of its
        readings that the store itself may contradict.

        Args:
            source: The source.
            extractor: The model's feature extractor.
            device: Where clips are made.
        """
        if source.each_person:
            return None
        readings, inputs = [source.reading], source.inputs
        while isinstance(inputs, Source):
            readings, inputs = [*readings, inputs.reading], inputs.inputs
        if isinstance(inputs, list) and len(inputs) == 1:
            [inputs] = inputs
        try:
            if isinstance(inputs, str | os.PathLike) and is_store(inputs):
                inputs = SkeletonStore.open(inputs)
        except SkeletonFormatError:
            return None
        are_silent = all(reading.is_silent and reading.missing in (None, "refuse") for reading in readings)
        if type(inputs) is not SkeletonStore or not are_silent or not len(inputs):
            return None
        layout, header = get_layout(extractor.layout), inputs.header
        plain = extractor.choose_by == "energy" and not extractor.relink and extractor.missing == "refuse"
        if not plain or extractor.normalization in PIXELS or extractor.num_channels != 3 or not layout.is_3d:
            return None
        if device.type == "cpu" and header.layout.joint_names != layout.joint_names:
            # A core converts one recording after the other faster: they fit its cache.
            return None
        if header.coordinates != "3d":
            return None
        try:
            return cls(inputs, extractor, device)
        except ValueError:
            # The layouts cannot be converted: the error is that of the first recording.
            return None

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.store)

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each recording."""
        return self.store.lengths

    def clips(self, part: slice) -> torch.Tensor | None:
        """Clips ``(B, T, M, V, C)`` of some recordings; None if one is damaged: reading each alone says which."""
        store = self.store[part]
        try:
            numbers = self._numbers(store)
        except SkeletonFormatError:
            return None
        index = {name: torch.from_numpy(store.index[name][store.selection]) for name in ("frames", "persons", "scale")}
        people = index["persons"].long()
        lengths, persons, scale = (
            values.to(self.device, non_blocking=True) for values in (index["frames"].long(), people, index["scale"])
        )
        bodies = numbers.view(-1, store.header.joints, 3)
        each = RaggedFrames(bodies, lengths * persons)
        of_body = each.sequence_of_frame
        bodies = bodies * scale.float()[of_body, None, None] if bodies.dtype == torch.int16 else bodies
        if not _are_well(RaggedFrames(bodies, each.lengths), FARTHEST / METRES[store.header.units]):
            return None
        bodies = self._converted(bodies)
        # A recording may have none of the joints that the model's are made of.
        if self._weights is not None and not _are_well(RaggedFrames(bodies, each.lengths), FARTHEST):
            return None
        if int(people.min()) == int(people.max()):
            frames = bodies.unflatten(0, (-1, int(people[0])))
        else:
            # Fewer people than others have are padded with empty ones.
            position = torch.arange(len(bodies), device=self.device) - each.starts[of_body]
            start = (lengths.cumsum(0) - lengths)[of_body]
            frames = bodies.new_zeros(int(index["frames"].sum()), int(people.max()), *bodies.shape[1:])
            frames[start + position // persons[of_body], position % persons[of_body]] = bodies
        return self.extractor.clips_of_frames(RaggedFrames(frames, lengths))

    def _converted(self, bodies: torch.Tensor) -> torch.Tensor:
        """Bodies ``(N, V', 3)`` in the model's layout, upright, in metres; see `layouts.convert_layout`."""
        if self._weights is not None:
            weights, present = self._weights, seen_joints(bodies)
            converted = _apply(weights, bodies)
            if not present.all():
                # Missing joints are left out of the averages.
                positive, seen = weights.clamp(min=0), present.to(bodies.dtype)
                whole = ((1 - seen) @ (weights != 0).to(bodies.dtype).T == 0)[..., None]
                total = (seen @ positive.T)[..., None]
                partial = _apply(positive, bodies) / total.clamp(min=torch.finfo(bodies.dtype).tiny)
                converted = torch.where(whole, converted, torch.where(total > 0, partial, 0))
            bodies = converted
        if self._axes is not None:
            bodies = bodies.index_select(-1, self._axes)
        return bodies if self._factors is None else bodies * self._factors

    def sequences(self, part: slice) -> Sequence[SkeletonSequence]:
        """The recordings, in the model's layout, each made when it is asked for."""
        return _Unread(self, part)

    @cached_property
    def changed(self) -> dict[str, Any]:
        """Fields that all recordings have in the model's layout."""
        header = self.store.header
        names = ("layout", "up", "units", "coordinates", "mirrored")
        # Not those of a recording that is read: it may be damaged.
        any_body = np.ones((1, 1, header.joints, header.channels), np.float32)
        made = self.extractor.prepare(SkeletonSequence(any_body, **{name: getattr(header, name) for name in names}))
        return {name: getattr(made, name) for name in names}

    def _numbers(self, store: SkeletonStore) -> torch.Tensor:
        """The store's numbers, end to end."""
        dtype = torch.int16 if store.header.dtype == "int16" else torch.float32
        # From pinned memory a GPU copies many times faster.
        values = torch.empty(int(store.sizes.sum()), dtype=dtype, pin_memory=self.device.type == "cuda")
        store.read_into(values.numpy())
        return values.to(self.device, non_blocking=True)


class _Unread(Sequence):
    """Recordings of a feed, made one by one where they are used: a thread that made them would hold up the model."""

    def __init__(self, feed: StoreFeed, part: slice):
        self.feed = feed
        self.store = feed.store[part]

    def __len__(self) -> int:
        return len(self.store)

    def __iter__(self) -> Iterator[SkeletonSequence]:
        return self.store.unread(self.feed.extractor.prepare, self.feed.changed)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self)[index]
        number = range(len(self))[index]
        return next(self.store[number : number + 1].unread(self.feed.extractor.prepare, self.feed.changed))


def _are_well(bodies: RaggedFrames, farthest: float) -> bool:
    """Whether all recordings are finite, not empty, and within reach, as `SkeletonSequence` wants them."""
    squares = bodies.sum(bodies.frames.square().sum((1, 2)))
    return bool(((squares > 0) & (squares <= farthest**2)).all())


def _apply(weights: torch.Tensor, bodies: torch.Tensor) -> torch.Tensor:
    """Weights ``(V, V')`` applied to bodies ``(N, V', 3)``, as one product of matrices."""
    return (bodies.flatten(1) @ torch.kron(weights.T.contiguous(), torch.eye(3, device=weights.device))).unflatten(
        1, (-1, 3)
    )
