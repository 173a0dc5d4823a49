"""`USDRLFeatureExtractor`: makes the clips a model reads of skeletons of any length, layout and axis order."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin

from .configuration_usdrl import USDRLConfig
from .errors import notice
from .finite import check_finite
from .layouts import Layout, LayoutLike, get_layout, seen_joints
from .lookup import add_code, bundled_checkpoint, hint_on_missing
from .normalization import (
    FILLING,
    PIXELS,
    Geometry,
    clip_batch,
    default_normalization,
    normalize_further,
    normalize_pixels,
    normalize_sequences,
    resize,
)
from .persons import PersonSelection
from .postprocessing import action_proposals, smooth_over_shift_gap
from .ragged import RaggedFrames, end_to_end, fill_joints, select_persons, truncate
from .sequence import (
    DETECTION_THRESHOLD,
    MISSING,
    SkeletonFormatError,
    SkeletonSequence,
    implausible,
    interpolate_missing,
    is_nested_numbers,
    sequences_of,
    to_float32,
)

_SAVED_ENTRIES = {"feature_extractor_type", "processor_class", "auto_map", "_processor_class", "transformers_version"}
# Arguments of `from_pretrained` that say where a saved extractor is and how it is fetched.
_LOADING = set("cache_dir force_download local_files_only token revision subfolder proxies user_agent".split())
_LOADING |= {"trust_remote_code", "code_revision", "use_auth_token"}
# Fields of `Geometry` that are saved one by one; `fill` follows from the normalization.
_GEOMETRY = ("center_joint", "x_axis", "z_axis", "upright", "torso", "torso_length", "body_size")
# Numbers of a clip, 64 MB of them: four thousand frames of ten people with all their fingers.
_LARGEST_CLIP = 1 << 24
# Frames of each recording that are checked for implausible units and axes.
_LOOKED_AT = 8


class USDRLFeatureExtractor(FeatureExtractionMixin):
    """Makes model input from skeletons: selects persons, normalises, resizes to one length.

    For each sequence: convert its layout and up axis to the model's; keep `num_persons` people and the first
    `max_frames` frames; fill, centre, turn and scale the bodies (see `normalization.Geometry`); resize the frames
    linearly to `num_frames`. Every number used is an attribute and is saved in ``preprocessor_config.json``.

    Args:
        layout: The model's joint layout; see `layouts.get_layout`.
        normalization: ``"ntu"``, of the NTU and PKU checkpoints: person 0's centre joint at the origin of each frame,
            the first frame's shoulders turned onto +x; ``"uav"``, of the UAV-Human checkpoints: the left side of the
            trunk turned onto +z instead; ``"body"``, for motion of any sensor: centred in the same way, turned about
            the vertical only, and scaled so that pelvis and neck are half a metre apart; ``"body-2d"``, for 2D
            keypoints of any picture and layout: the first person's middle over the clip at the origin, scaled to one
            size, see `normalization.flat_body`; ``"image"``: pixels divided by width and height; ``"release-2d"``, of
            the 2D checkpoints: see `normalization.normalize_pixels`;
            ``"none"``: coordinates as they are. None takes that of the layout's published checkpoints.
        num_frames: Frames T of a clip.
        num_persons: Persons M of a clip; fewer are padded with zeros.
        num_channels: Coordinates C of a joint.
        max_frames: Frames read of a sequence, 300 as in the release; None reads all.
        source_layout: Layout of arrays that come without one; the model's where None.
        use_score: Whether the score of 2D keypoints is the third coordinate; it is zero otherwise.
        missing: ``"refuse"`` arrays with NaN, or ``"interpolate"`` missing coordinates over time, see
            `sequence.interpolate_missing`.
        choose_by: Which people are kept where there are more than `num_persons`: those with the most ``"energy"`` of
            motion, as in the release; or ``"confidence"``, ``"size"``, ``"frames"`` or ``"order"``, see
            `persons.person_scores`.
        relink: Whether people are tracked by their positions first, so that they do not swap between frames, see
            `persons.track_persons`; the release does not.
        fill_joints: Whether a joint that is not seen in a frame takes the position of the nearest seen joints of the
            same body; otherwise it is zero, as in the release.
        center_joint: Joint moved to the origin. This and the next five take the normalization's choice where None.
        x_axis: ``[start, end]`` joints of the vector turned onto +x.
        z_axis: The same for +z.
        upright: Whether a body is turned about the vertical only.
        torso: ``[start, end]`` joints whose mean distance is scaled to `torso_length`.
        torso_length: Length of the torso afterwards, in metres.
        body_size: Size that 2D bodies are scaled to.
        **kwargs: Entries that transformers adds to a saved configuration; others are refused.

    Raises:
        ValueError: If an argument is unknown or does not fit the layout.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import USDRLFeatureExtractor
        >>> extractor = USDRLFeatureExtractor(num_persons=1)
        >>> extractor(np.random.rand(120, 25, 3), return_tensors="pt").keypoints.shape
        torch.Size([1, 64, 1, 25, 3])
    """

    model_input_names = ["keypoints"]

    def __init__(
        self,
        layout: LayoutLike = "ntu25",
        normalization: str | None = None,
        num_frames: int = 64,
        num_persons: int = 2,
        num_channels: int = 3,
        max_frames: int | None = 300,
        source_layout: LayoutLike | None = None,
        use_score: bool = True,
        missing: str = "refuse",
        choose_by: str = "energy",
        relink: bool = False,
        fill_joints: bool = False,
        center_joint: int | None = None,
        x_axis: Sequence[int] | None = None,
        z_axis: Sequence[int] | None = None,
        upright: bool | None = None,
        torso: Sequence[int] | None = None,
        torso_length: float = 0.5,
        body_size: float | None = None,
        **kwargs: Any,
    ):
        unknown = sorted(set(kwargs) - _SAVED_ENTRIES)
        if unknown:
            raise ValueError(f"the feature extractor has no argument '{unknown[0]}'")
        resolved = get_layout(layout)
        normalization = normalization or default_normalization(resolved)
        if missing not in MISSING:
            raise ValueError(f"missing must be one of {', '.join(MISSING)}, got {missing!r}")
        _check_sizes(num_frames, num_persons, num_channels, resolved.num_joints)
        PersonSelection(num_persons, choose_by)
        if max_frames is not None and (not isinstance(max_frames, int) or max_frames < 1):
            raise ValueError(f"max_frames must be at least 1, or None for all frames, got {max_frames}")
        geometry = Geometry.preset(
            normalization,
            resolved,
            center_joint=center_joint,
            x_axis=x_axis,
            z_axis=z_axis,
            upright=upright,
            torso=torso,
            torso_length=torso_length,
            body_size=body_size,
        )
        if (geometry.x_axis or geometry.z_axis) and num_channels != 3:
            raise ValueError(f"turning a body needs 3 coordinates, but num_channels is {num_channels}")
        super().__init__(**kwargs)
        self.layout = resolved.to_config()
        self.normalization = normalization
        self.num_frames = num_frames
        self.num_persons = num_persons
        self.num_channels = num_channels
        self.max_frames = max_frames
        self.source_layout = None if source_layout is None else get_layout(source_layout).to_config()
        self.use_score = use_score
        self.missing = missing
        self.choose_by = choose_by
        self.relink = relink
        self.fill_joints = fill_joints
        self.center_joint = geometry.center_joint
        self.x_axis, self.z_axis, self.torso = (
            None if joints is None else list(joints) for joints in (geometry.x_axis, geometry.z_axis, geometry.torso)
        )
        self.upright, self.torso_length = geometry.upright, geometry.torso_length
        self.body_size = geometry.body_size

    @classmethod
    def from_model_config(cls, config: USDRLConfig, **kwargs: Any) -> USDRLFeatureExtractor:
        """Make the extractor that fits a model's sizes and layout.

        Args:
            config: The model's configuration.
            **kwargs: Arguments of the extractor that the configuration does not hold.

        Raises:
            ValueError: If the configuration has no layout.
        """
        if config.layout is None:
            raise ValueError("the model's config has no layout, so no feature extractor follows from it: name one")
        sizes = ("layout", "num_frames", "num_persons", "num_channels")
        return cls(**{name: getattr(config, name) for name in sizes} | kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load as transformers does; checkpoints that ship with the package need no network.

        Keyword arguments of the constructor override saved values. A new layout or normalization also brings its own
        centre joint, axes and torso.

        Raises:
            ValueError: If a keyword argument is unknown, or does not fit what is saved.
            OSError: If there is no such checkpoint, or it cannot be fetched.
        """
        # A pipeline also passes the model's arguments.
        if not kwargs.keys() & {"_from_pipeline", "return_unused_kwargs"}:
            known = _LOADING | set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
            if unknown := sorted(key for key in set(kwargs) - known if not key.startswith("_")):
                raise ValueError(f"the feature extractor has no argument '{unknown[0]}'")
        name = bundled_checkpoint(pretrained_model_name_or_path, **kwargs)
        with hint_on_missing(pretrained_model_name_or_path, kwargs):
            return super().from_pretrained(name, *args, **kwargs)

    @classmethod
    def from_dict(cls, feature_extractor_dict, **kwargs):
        """Make an extractor from a saved dictionary and overriding arguments; see `from_pretrained`."""
        names = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
        own = {key: kwargs.pop(key) for key in names & kwargs.keys()}
        saved = dict(feature_extractor_dict)
        before, after = (get_layout(values.get("layout", "ntu25")) for values in (saved, saved | own))
        if before != after or own.get("normalization", saved.get("normalization")) != saved.get("normalization"):
            for key in ("center_joint", "x_axis", "z_axis", "upright", "torso"):
                saved.pop(key, None)
        return super().from_dict(saved | own, **kwargs)

    def _upload_modified_files(self, working_dir, *args, **kwargs):
        """What `push_to_hub` sends, with the code."""
        add_code(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def __call__(
        self,
        sequences: SkeletonSequence | np.ndarray | torch.Tensor | Iterable[Any],
        source_layout: LayoutLike | None = None,
        axes: str | None = None,
        return_tensors: str | None = None,
        device: str | torch.device | None = None,
    ) -> BatchFeature:
        """Make clips of one or more sequences.

        Args:
            sequences: A `SkeletonSequence`; an array, a tensor or lists of numbers of one sequence or (with one axis
                more) of several; or a list of any of these, of any lengths.
            source_layout: Layout of arrays, if it is not the model's; a `SkeletonSequence` has its own.
            axes: Axes of an array of one sequence: "TVC", "TMVC", "MTVC" or "CTVM". None takes the only order that
                fits the shape.
            return_tensors: "pt" for a tensor, as models take it; "np" or None for an array.
            device: Where to compute, and where the tensor stays; the CPU where None.

        Returns:
            `BatchFeature` with `keypoints` ``(B, T, M, V, C)`` float32.

        Raises:
            SkeletonFormatError: If a sequence is not numeric and finite, is empty, has another number of joints or
                coordinates than the layout, can be read in several axis orders, or is 2D where the model wants 3D.
            ValueError: If a layout cannot be converted to the model's.
        """
        source = get_layout(source_layout or self.source_layout or self.layout)
        batch = [self.prepare(item) for item in _as_sequences(sequences, source, axes, self.missing)]
        if not batch:
            raise SkeletonFormatError("there are no sequences to extract features from")
        clips = self.clips(batch, device)
        if return_tensors is None or str(return_tensors) == "np":
            return BatchFeature({"keypoints": clips.cpu().numpy()})
        return BatchFeature({"keypoints": clips}, tensor_type=return_tensors)

    def post_process_action_detection(
        self,
        outputs: Any,
        threshold: float = DETECTION_THRESHOLD,
        target_lengths: Sequence[int] | None = None,
        shift_gap: int | None = None,
    ) -> list[dict[str, torch.Tensor]]:
        """Find actions in clips from the output of `USDRLForActionDetection`.

        Args:
            outputs: Output with `logits` ``(B, T, K)``, class 0 the background.
            threshold: See `action_proposals`; the release's is `facts.benchmarks.RELEASE_THRESHOLD`.
            target_lengths: Lengths of the recordings that the clips were resized from, in whose frames the segments
                are given; T each where None.
            shift_gap: The encoder's shift gap, over which probabilities are averaged first (see
                `smooth_over_shift_gap`), so that segments do not break at unmixed frames. None takes the output's; 1
                averages nothing, as in the release.

        Returns:
            For each clip `scores` ``(N,)``, `labels` ``(N,)`` (1 to K - 1) and `segments` ``(N, 2)`` (the first
            frame, and the frame after the last), highest score first.

        Raises:
            ValueError: If lengths and clips differ in number, or neither output nor argument says the shift gap.
            NonFiniteError: If a logit is NaN or infinite.
        """
        shift_gap = getattr(outputs, "shift_gap", None) if shift_gap is None else shift_gap
        if shift_gap is None:
            raise ValueError(
                "these outputs do not say which frames the encoder leaves unmixed: give shift_gap=config.shift_gap (1 "
                "for encoder 'sttr'), or 1 for probabilities as they are"
            )
        check_finite(outputs.logits, "the logits of the clips")
        probabilities = outputs.logits.float().softmax(dim=-1)
        batch, frames = probabilities.shape[:2]
        lengths = [frames] * batch if target_lengths is None else [int(length) for length in target_lengths]
        if len(lengths) != batch:
            raise ValueError(f"there are {batch} clips, but {len(lengths)} target_lengths")
        results = []
        for clip, length in zip(probabilities, lengths, strict=True):
            clip = smooth_over_shift_gap(clip, shift_gap)
            found = action_proposals(clip if length == frames else resize(clip, length), threshold)
            found = found[found[:, 3].argsort(descending=True, stable=True)]
            results.append(
                {"scores": found[:, 3].float(), "labels": found[:, 0].long(), "segments": found[:, 1:3].long()}
            )
        return results

    def prepare(self, sequence: SkeletonSequence) -> SkeletonSequence:
        """Bring one sequence to the model's layout: the first step of a call.

        Raises:
            SkeletonFormatError: If the model cannot read such a sequence.
            ValueError: If the layouts cannot be converted.
        """
        layout = get_layout(self.layout)
        where = sequence.name or "sequence"
        channels = sequence.keypoints.shape[-1]
        if layout.is_3d and not sequence.is_3d:
            raise SkeletonFormatError(
                f"{where}: the keypoints are 2D ({sequence.coordinates}), but the model reads 3D: embed them with "
                "usdrl/mocap-2d, or train a model of 2D keypoints with 'usdrl finetune'"
            )
        if sequence.is_3d and not layout.is_3d:
            raise SkeletonFormatError(
                f"{where}: the keypoints are 3D, but the model reads 2D ones of layout '{layout.name}': use a 3D model"
            )
        if layout.is_3d and channels != self.num_channels:
            raise SkeletonFormatError(
                f"{where}: {channels} coordinates per joint, but the model reads {self.num_channels}"
            )
        if self.normalization in PIXELS and sequence.image_shape is None:
            raise SkeletonFormatError(
                f"{where}: normalization '{self.normalization}' needs the height and width of the image: give "
                "image_shape=(height, width), or --image-size WIDTHxHEIGHT"
            )
        sequence = self.persons.tracked(sequence)
        if self.missing == "interpolate":
            sequence = interpolate_missing(sequence)
        if self.choose_by != "energy":
            # Selected over the whole recording, so that all its windows show the same people.
            sequence = self.persons.kept(sequence)
        return sequence.to_layout(layout)

    @property
    def persons(self) -> PersonSelection:
        """Which people of a recording the model reads."""
        return PersonSelection(self.num_persons, self.choose_by, self.relink)

    def normalized(
        self, sequences: Sequence[SkeletonSequence], device: str | torch.device | None = None
    ) -> RaggedFrames:
        """Prepare and normalise sequences without resizing them; pretraining makes its views from these.

        Args:
            sequences: See `__call__`; sequences only.
            device: See `__call__`.

        Raises:
            SkeletonFormatError: See `__call__`.
            ValueError: See `__call__`.
        """
        batch = self._ragged([self.prepare(sequence) for sequence in sequences], device)
        return normalize_sequences(batch, self.geometry)

    def normalized_further(
        self, sequences: Sequence[SkeletonSequence], known: int, device: str | torch.device | None = None
    ) -> torch.Tensor:
        """Prepare and normalise the last frames of sequences, turned and scaled by the first `known` frames.

        For streams: no later frame changes the result.

        Args:
            sequences: Sequences of the same number of frames T, above `known`.
            known: Frames that decide how the body is turned and scaled.
            device: See `__call__`.

        Returns:
            ``(B, T - known, M, V, C)``.
        """
        batch = self._ragged([self.prepare(sequence) for sequence in sequences], device)
        frames = batch.frames.unflatten(0, (len(sequences), -1))
        beginning = RaggedFrames(frames[:, :known].flatten(0, 1), torch.full_like(batch.lengths, known))
        return normalize_further(beginning, frames[:, known:], self.geometry)

    def clips(self, sequences: Sequence[SkeletonSequence], device: str | torch.device | None = None) -> torch.Tensor:
        """Clips ``(B, T, M, V, C)`` of sequences from `prepare`; see `__call__`."""
        return clip_batch(self._ragged(list(sequences), device), self.num_frames, self.geometry)

    def clips_of_frames(self, batch: RaggedFrames) -> torch.Tensor:
        """Clips ``(B, T, M, V, 3)``, on the same device, of 3D sequences in the model's layout, upright, in metres."""
        self._judge(batch, torch.ones_like(batch.lengths, dtype=torch.bool))
        return clip_batch(self._as_read(batch), self.num_frames, self.geometry)

    @property
    def geometry(self) -> Geometry:
        """How bodies are filled, centred, turned and scaled."""
        values = {name: getattr(self, name) for name in _GEOMETRY}
        return Geometry(**values, fill=self.normalization in FILLING)

    def _ragged(self, sequences: list[SkeletonSequence], device: str | torch.device | None) -> RaggedFrames:
        """Prepared sequences end to end, with the people and frames that the model reads."""
        persons = max(sequence.num_persons for sequence in sequences)
        arrays = [self._array(sequence, persons) for sequence in sequences]
        frames, lengths = end_to_end(arrays, device)
        if get_layout(self.layout).is_3d and self.num_channels == 3:
            self._judge(RaggedFrames(frames, lengths), torch.tensor([not sequence.judged for sequence in sequences]))
        if self.body_size is not None:
            pairs = (seen_joints(frames).sum(-1) > 1).any(-1).split(lengths.tolist())
            lone = [sequence for sequence, seen in zip(sequences, pairs, strict=True) if not seen.any()]
            if lone:
                fault = "one joint at most is seen at a time, which has no size: the body counts as unseen"
                notice(f"{lone[0].name or 'sequence'}: {fault}", "bodies without a size")
        return self._as_read(RaggedFrames(frames.to(device, non_blocking=True), lengths.to(device)))

    def _judge(self, batch: RaggedFrames, unjudged: torch.Tensor) -> None:
        """Warn of bodies of an implausible size or handedness among the sequences where a mask ``(B,)`` is true."""
        steps = torch.arange(_LOOKED_AT, device=batch.lengths.device)
        index = (batch.starts[:, None] + ((batch.lengths / _LOOKED_AT)[:, None] * steps).long())[unjudged]
        if doubt := implausible(batch.frames[index, 0].cpu().numpy(), self.layout):
            notice(doubt, "implausible bodies")

    def _as_read(self, batch: RaggedFrames) -> RaggedFrames:
        """The people and frames that the model reads."""
        batch = select_persons(batch, self.num_persons)
        batch = batch if self.max_frames is None else truncate(batch, self.max_frames)
        if not self.fill_joints:
            return batch
        distances = torch.from_numpy(get_layout(self.layout).distances).to(batch.frames.device)
        return RaggedFrames(fill_joints(batch.frames, distances), batch.lengths)

    def _array(self, sequence: SkeletonSequence, persons: int) -> np.ndarray:
        """Keypoints ``(T, persons, V, C)`` in the model's unit, with its number of coordinates."""
        array = sequence.keypoints
        if self.normalization in PIXELS:
            array = normalize_pixels(array, self.normalization, sequence.image_shape or (1.0, 1.0))
        if not sequence.is_3d:
            array = array if self.use_score else array[..., :2]
            array = array[..., : self.num_channels]
        missing = (persons - array.shape[1], self.num_channels - array.shape[-1])
        return np.pad(array, ((0, 0), (0, missing[0]), (0, 0), (0, missing[1]))) if any(missing) else array


def _check_sizes(num_frames: int, num_persons: int, num_channels: int, num_joints: int) -> None:
    """Refuse sizes of clips that are no whole numbers of at least 1, or make clips that are too large."""
    sizes = {"num_frames": num_frames, "num_persons": num_persons, "num_channels": num_channels}
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if num_frames * num_persons * num_channels * num_joints > _LARGEST_CLIP:
        raise ValueError(
            f"a clip of num_frames {num_frames}, num_persons {num_persons}, num_channels {num_channels} and "
            f"{num_joints} joints is too large: at most {_LARGEST_CLIP} numbers"
        )


def _is_ragged(numbers: Any) -> bool:
    """Whether nested lists of numbers differ in length."""
    try:
        np.asarray(numbers)
    except ValueError:
        return True
    return False


def _as_sequences(sequences: Any, source: Layout, axes: str | None, missing: str) -> Iterable[SkeletonSequence]:
    """Yield a `SkeletonSequence` for everything the extractor takes."""
    if isinstance(sequences, SkeletonSequence):
        yield sequences
    elif isinstance(sequences, torch.Tensor):
        yield from _as_sequences(sequences.detach().cpu().float().numpy(), source, axes, missing)
    elif isinstance(sequences, np.ndarray):
        yield from sequences_of(sequences, source, axes, "", missing)
    elif is_nested_numbers(sequences) and not _is_ragged(sequences):
        yield from sequences_of(sequences, source, axes, "", missing)
    elif isinstance(sequences, str | bytes) or not isinstance(sequences, Iterable):
        raise SkeletonFormatError(
            f"expected skeleton sequences or arrays, got {type(sequences).__name__}: read files with read_skeleton"
        )
    else:
        for number, item in enumerate(sequences):
            where = f"sequence {number}"
            if isinstance(item, SkeletonSequence):
                yield item
            elif isinstance(item, np.ndarray | torch.Tensor | list | tuple):
                array = (
                    item.detach().cpu().float().numpy() if isinstance(item, torch.Tensor) else to_float32(item, where)
                )
                yield SkeletonSequence.from_array(array, source, axes, name=where, missing=missing)
            else:
                yield from _as_sequences(item, source, axes, missing)


__all__ = ["USDRLFeatureExtractor"]
