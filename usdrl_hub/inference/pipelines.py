"""Pipelines of transformers: skeletons in, labels or embeddings out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from ..data.huggingface import from_huggingface
from ..data.reading import Reading
from ..errors import CheckpointLoadError
from ..facts.checkpoints import ENCODER, RECOGNISER, checkpoint_path
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..layouts import LayoutLike
from ..loading import extractor_of, load_feature_extractor, load_model
from ..modeling_usdrl import USDRLForActionRecognition, USDRLPreTrainedModel
from ..sequence import SkeletonFormatError, SkeletonSequence, is_nested_numbers
from .embedding import clip_embeddings
from .engine import find_device, find_dtype
from .ensemble import USDRLEnsemble
from .scores import NONE_OF_THESE, NOT_FINITE, check_min_similarity, class_scores
from .source import Source

# Arguments of a call that say what the inputs do not say themselves.
_READING = frozenset({"layout", "axes", "image_shape"})


class _Saved:
    """Loads a model by name for transformers, in the class that it was saved from."""

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike, **kwargs: Any) -> USDRLPreTrainedModel:
        return load_model(name, **kwargs)


class SkeletonPipeline(Pipeline):
    """Base of both pipelines: reads skeletons.

    Inputs are a file, a `SkeletonSequence`, an array or tensor, a row with `keypoints` of a Hugging Face data set, or
    several of these. A list gives a list of results; a generator or data set gives an iterator of results, computed in
    batches of `batch_size` as it is consumed. A folder, a store, or a file of several recordings gives a list, in the
    order of `iter_skeletons`.
    """

    feature_extractor: Any
    _load_tokenizer: Any = False
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _own: frozenset[str] = frozenset()

    def __init__(self, model: Any, feature_extractor: USDRLFeatureExtractor | None = None, **kwargs: Any):
        """Make a pipeline.

        Args:
            model: The model.
            feature_extractor: The model's own where None: that of its folder or repository, or of its configuration.
            **kwargs: Arguments of transformers' `Pipeline` and of the call.
        """
        extractor: Any = feature_extractor or _extractor_of(model)
        super().__init__(model=model.eval(), feature_extractor=extractor, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {type(self.model).__name__} on {self.device}"

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute results.

        Args:
            inputs: See the class.
            *args: Not used.
            **kwargs: `batch_size`; `layout`, the joint layout of arrays, if it is not the model's; `axes`, the axis
                order of arrays, see `SkeletonSequence.from_array`; `image_shape`, height and width in pixels of the
                image of 2D keypoints; and arguments of the pipeline's class.

        Raises:
            SkeletonFormatError: If an input cannot be read or does not fit the model.
        """
        if is_nested_numbers(inputs):
            # Lists that differ in length are recordings.
            with suppress(ValueError, OverflowError):
                inputs = np.asarray(inputs, dtype=np.float32)
        if isinstance(inputs, np.ndarray | torch.Tensor):
            axes = kwargs.get("axes") or self._preprocess_params.get("axes")
            inputs = list(inputs) if inputs.ndim == (len(axes) + 1 if axes else 5) else inputs
        elif isinstance(inputs, str | os.PathLike):
            reading = self._preprocess_params | {name: kwargs[name] for name in _READING & kwargs.keys()}
            inputs = self._recordings(inputs, **reading)
            # The recordings are read; their layout is the model's now.
            kwargs |= dict.fromkeys(_READING)
        elif isinstance(inputs, tuple):
            inputs = list(inputs)
        elif isinstance(inputs, Iterable) and not isinstance(inputs, list | Mapping | torch.utils.data.Dataset):
            inputs = (item for item in inputs)
        return [] if isinstance(inputs, list) and not inputs else super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model and the feature extractor.

        Without this method, transformers would add this file as code that the checkpoint needs, which it does not.

        Args:
            save_directory: Folder to write to.
            **kwargs: Passed to the model's and the extractor's `save_pretrained`.

        Raises:
            ValueError: If it is an ensemble.
        """
        if isinstance(self.model, USDRLEnsemble):
            raise ValueError("an ensemble is saved model by model: use save_pretrained of each of its models")
        self.model.save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(save_directory, **kwargs)

    def _recordings(self, path: str | os.PathLike, **reading: Any) -> SkeletonSequence | list[SkeletonSequence]:
        stream = self._sequences(path, **reading)
        first = next(stream)
        second = next(stream, None)
        return first if second is None and not os.path.isdir(path) else [first, *chain(filter(None, [second]), stream)]

    def _sequences(
        self,
        inputs: Any,
        layout: LayoutLike | None = None,
        axes: str | None = None,
        image_shape: tuple[float, float] | None = None,
    ) -> Iterator[SkeletonSequence]:
        extractor = self.feature_extractor
        if isinstance(inputs, Mapping):
            inputs = from_huggingface([inputs], layout or extractor.source_layout or extractor.layout)
        return Source(inputs, Reading(layout, axes, image_shape=image_shape)).prepared(extractor)

    def _sanitize_parameters(self, **given: Any) -> tuple[dict, dict, dict]:
        # transformers passes it to every pipeline.
        given.pop("local_files_only", None)
        reading = {name: given.pop(name) for name in _READING & given.keys()}
        own = {name: given.pop(name) for name in self._own & given.keys()}
        unknown = sorted(name for name, value in given.items() if value is not None)
        if unknown:
            choices = ", ".join(sorted({"batch_size", *_READING, *self._own}))
            raise ValueError(f"the pipeline has no argument '{unknown[0]}': it has {choices}")
        return reading, {}, {name: value for name, value in own.items() if value is not None}

    def preprocess(self, input_: Any, **reading: Any) -> dict[str, Any]:
        """Make the clip ``(1, T, M, V, C)`` of one recording."""
        if not isinstance(input_, str | os.PathLike | SkeletonSequence | Mapping):
            input_ = [input_]
        stream = self._sequences(input_, **reading)
        sequence = next(stream)
        if next(stream, None) is not None:
            raise SkeletonFormatError(f"{input_}: it holds several recordings: give it to the pipeline by itself")
        return {"keypoints": self.feature_extractor(sequence, return_tensors="pt")["keypoints"]}


class SkeletonActionRecognitionPipeline(SkeletonPipeline):
    """Recognises the action in skeleton recordings; see `SkeletonPipeline` for the inputs.

    The result for a recording is a list of ``{"label": ..., "score": ...}``: the `top_k` (5) most probable classes
    with their probabilities, in descending order; of a regression its numbers. A clip that is like no class of the
    model (see `Engine.threshold`, an argument here, too) begins with ``{"label": "none of these", "score": ...}``, its
    similarity to the most probable class. The task is ``"skeleton-action-recognition"``.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import pipeline
        >>> recognise = pipeline("skeleton-action-recognition", "usdrl/tiny-uiprmd")
        >>> [found] = recognise(np.random.rand(90, 25, 3), top_k=1)
        >>> sorted(found)
        ['label', 'score']
    """

    _own = frozenset({"top_k", "threshold"})

    def __init__(self, model: Any, **kwargs: Any):
        """Make a pipeline.

        Args:
            model: A `USDRLForActionRecognition`, or a `USDRLEnsemble` of them.
            **kwargs: Arguments of `SkeletonPipeline`.

        Raises:
            CheckpointLoadError: If the model is not a recogniser.
        """
        if getattr(model, "task", None) != USDRLForActionRecognition.task:
            raise CheckpointLoadError(
                f"the model is {type(model).__name__}, which is not a recogniser: take a recognition "
                "model, or train one with 'usdrl finetune'"
            )
        super().__init__(model=model, **kwargs)

    def _forward(self, input_tensors: Any, **_: Any) -> Any:
        output = self.model(input_tensors["keypoints"])
        alike = getattr(output, "similarity", None)
        return {"logits": output.logits} | ({} if alike is None else {"similarity": alike})

    def postprocess(self, model_outputs: Any, **chosen: Any) -> list[dict[str, Any]]:
        """The most probable classes of one clip."""
        top_k = chosen.get("top_k", 5)
        if not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k!r}")
        threshold = chosen.get("threshold")
        check_min_similarity(threshold)
        names = self.model.config.class_names
        found = class_scores(model_outputs["logits"][0], cast(Any, self.model.config))
        check_finite(found, "what the model says of the recording", NOT_FINITE)
        scores, classes = found.topk(min(top_k, len(names)))
        top = zip(scores.tolist(), classes.tolist(), strict=True)
        classes_found = [{"label": names[index], "score": score} for score, index in top]
        if "similarity" not in model_outputs:
            return classes_found
        alike = float(model_outputs["similarity"][0])
        least = self.model.config.min_similarity if threshold is None else threshold
        return classes_found if alike >= least else [{"label": NONE_OF_THESE, "score": alike}, *classes_found]


class SkeletonFeatureExtractionPipeline(SkeletonPipeline):
    """Embeds skeleton recordings; see `SkeletonPipeline` for the inputs.

    The result for a recording is its embedding as nested lists ``(1, E)``, see `extract_embeddings`; with
    ``pool=False`` one embedding for each of the T frames of its clip, ``(1, T, 2d)``; with ``return_tensors=True`` a
    float32 tensor of that shape. The task is ``"skeleton-feature-extraction"``.
    """

    _own = frozenset({"pool", "return_tensors"})

    def __init__(self, model: Any, feature_extractor: USDRLFeatureExtractor | None = None, **kwargs: Any):
        """Make a pipeline.

        Args:
            model: A `USDRLModel`, or a model with any head, which is not used.
            feature_extractor: The model's own where None.
            **kwargs: Arguments of `SkeletonPipeline`.

        Raises:
            CheckpointLoadError: If it is no model of USDRL.
        """
        if not hasattr(model, "base_model") or not hasattr(model, "task"):
            raise CheckpointLoadError(f"the model is {type(model).__name__}, which does not embed skeletons")
        # The encoder alone does not know where the model was loaded from.
        extractor = feature_extractor or _extractor_of(model)
        super().__init__(model.base_model, extractor, **kwargs)

    def _forward(self, input_tensors: Any, **_: Any) -> Any:
        output = self.model(input_tensors["keypoints"])
        return {"pooled": clip_embeddings(output), "frames": output.last_hidden_state}

    def postprocess(self, model_outputs: Any, **chosen: Any) -> torch.Tensor | list:
        """The embedding of one clip."""
        found = model_outputs["pooled" if chosen.get("pool", True) else "frames"].float()
        check_finite(found, "the embedding of the recording", NOT_FINITE)
        return found if chosen.get("return_tensors") else found.tolist()


def _extractor_of(model: Any) -> USDRLFeatureExtractor:
    if isinstance(model, USDRLEnsemble):
        return model.feature_extractor
    return extractor_of(model)


_TASKS = {
    "skeleton-action-recognition": SkeletonActionRecognitionPipeline,
    "skeleton-feature-extraction": SkeletonFeatureExtractionPipeline,
}
_DEFAULTS = {"skeleton-action-recognition": RECOGNISER, "skeleton-feature-extraction": ENCODER}


def register_pipelines() -> None:
    """Register the tasks of this package and their default checkpoints with transformers' `pipeline`."""
    for task, kind in _TASKS.items():
        default = {"model": (str(checkpoint_path(_DEFAULTS[task])), None)}
        PIPELINE_REGISTRY.register_pipeline(task, pipeline_class=kind, pt_model=_Saved, default=default)


def pipeline(
    task: str = "skeleton-action-recognition",
    model: str | os.PathLike | USDRLPreTrainedModel | USDRLEnsemble | None = None,
    feature_extractor: USDRLFeatureExtractor | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    device: int | str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    **kwargs: Any,
) -> SkeletonPipeline:
    """Make a pipeline, as transformers' `pipeline` does; checkpoints that ship are known by name, too.

    Args:
        task: "skeleton-action-recognition" or "skeleton-feature-extraction".
        model: A checkpoint's name, folder or hub repository, or a model. None takes
            ``usdrl/tiny-uiprmd`` to recognise actions and ``usdrl/mocap-tiny`` to embed.
        feature_extractor: The model's own where None.
        revision: Commit, branch or tag of a repository on the hub.
        token: Token for the hub.
        device: Where to compute; the first accelerator or else the CPU where None.
        dtype: Type that a model loaded by name computes in; the saved one where None.
        **kwargs: `batch_size`, `num_workers`, and arguments of a call, see the pipeline's class.

    Returns:
        The pipeline: a call with a file, a sequence, an array or a list of them gives labels with scores, or
        embeddings.

    Raises:
        CheckpointLoadError: If the model cannot be loaded or does not fit the task.
        ValueError: If there is no such task, device or type.
    """
    if task not in _TASKS:
        raise ValueError(f"there is no task '{task}' for skeletons: use one of {', '.join(_TASKS)}")
    if isinstance(device, str):
        device = find_device(device)
    model = _DEFAULTS[task] if model is None else model
    if isinstance(model, str | os.PathLike):
        where: dict[str, Any] = {"revision": revision, "token": token}
        where = {name: value for name, value in where.items() if value is not None}
        feature_extractor = feature_extractor or load_feature_extractor(model, **where)
        found = find_dtype(dtype)
        model = load_model(model, **where, **({} if found is None else {"dtype": found}))
    return _TASKS[task](model=model, feature_extractor=feature_extractor, task=task, device=device, **kwargs)
