"""Configuration, feature extractor and size of a registered checkpoint, with or without its weights."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import torch

from ..configuration_usdrl import USDRLConfig
from ..facts.checkpoints import CHECKPOINTS, NAMESPACE, Checkpoint
from ..facts.recipes import Recipe, check_keys, read_recipe
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..layouts import get_layout
from ..modeling_usdrl import HEADS, USDRLClassificationModel

_CLASSES = {head.task: head for head in HEADS.values()}


def model_parts(recipe: Recipe) -> tuple[USDRLConfig, USDRLFeatureExtractor]:
    """Model configuration and feature extractor of a recipe.

    Raises:
        ValueError: If an entry is unknown or invalid, or entries contradict each other.
    """
    fields = dict(recipe.model)
    check_keys("model.", fields, [entry.name for entry in dataclasses.fields(USDRLConfig)])
    if fields.get("layout") is not None:
        fields.setdefault("num_joints", get_layout(fields["layout"]).num_joints)
    config = USDRLConfig(**fields)
    return config, USDRLFeatureExtractor.from_model_config(config, **recipe.extractor)


def model_config(entry: Checkpoint) -> USDRLConfig:
    """Configuration of a checkpoint, from its folder or else from its recipe."""
    if entry.folder is not None:
        return USDRLConfig.from_pretrained(entry.folder)
    config = model_parts(read_recipe(entry.recipe))[0]
    kind, names = _CLASSES[entry.task], entry.facts.class_names
    causal = entry.task == "early prediction"
    changes = {"encoder": entry.encoder, "modality": entry.modality, "is_causal": causal, "intermediate_size": None}
    if names and issubclass(kind, USDRLClassificationModel):
        changes |= {"id2label": dict(enumerate(kind.label_names(names))), "label2id": None}
    return USDRLConfig(**{**config.to_dict(), **changes, "architectures": [kind.__name__]})


def feature_extractor(entry: Checkpoint) -> USDRLFeatureExtractor:
    """Feature extractor of a checkpoint, from its folder or else from its recipe."""
    if entry.folder is not None:
        return USDRLFeatureExtractor.from_pretrained(entry.folder)
    return model_parts(read_recipe(entry.recipe))[1]


@lru_cache
def num_bytes(name: str) -> int:
    """Size of a checkpoint's weights in bytes: of its files, or else in float32.

    Args:
        name: Name of the checkpoint, with any owner.
    """
    entry = CHECKPOINTS[f"{NAMESPACE}/{name.rpartition('/')[2]}"]
    if entry.num_bytes is not None:
        return entry.num_bytes
    with torch.device("meta"):
        model = _CLASSES[entry.task](model_config(entry))
    return sum(4 * tensor.numel() for tensor in model.state_dict().values())
