"""Build what a recipe describes: model configuration, feature extractor, loss and views."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..configuration_usdrl import USDRLConfig
from ..data.pose_errors import PoseErrors
from ..facts.recipes import Recipe, check_keys, naming_recipe, read_recipe, recipe_path
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..hub.listing import model_parts
from ..layouts import get_layout
from .camera import RandomCamera
from .data import check_synthetic_pairs
from .losses import MultiGrainedFeatureDecorrelation
from .readout import recipe_readout
from .views import ViewAugmentation


def load_recipe(name: str | os.PathLike) -> Recipe:
    """Read a recipe and check every part of it by building it.

    Args:
        name: Name of a recipe that ships with the package, or the path of a YAML file.

    Raises:
        RecipeError: If there is no such recipe, or a part of it is impossible; the message names the file and the
            entry.
    """
    recipe = read_recipe(name)
    with naming_recipe(recipe_path(name)):
        build_recipe(recipe)
    return recipe


def build_recipe(
    recipe: Recipe,
) -> tuple[USDRLConfig, USDRLFeatureExtractor, MultiGrainedFeatureDecorrelation, ViewAugmentation]:
    """The model's configuration, its feature extractor, the loss and the views.

    Raises:
        ValueError: If an entry is unknown, a value is impossible, or two do not fit together.
    """
    check_keys("views.", recipe.views, [entry.name for entry in fields(ViewAugmentation)])
    if not isinstance(recipe.loss, str):
        check_keys("loss.", recipe.loss, [entry.name for entry in fields(MultiGrainedFeatureDecorrelation)])
    check_keys("readout.", recipe.readout, ["parts", "size", "shrinkage"])
    config, extractor = model_parts(recipe)
    if recipe.readout:
        recipe_readout(config, recipe.readout)
    check_synthetic_pairs(recipe.synthetic_pairs, motion_extractor(recipe, extractor))
    given: dict[str, Any] = {"num_frames": config.num_frames, "layout": config.layout, **recipe.views}
    for name in ("camera", "pose_errors"):
        if name in recipe.views and recipe.views[name] in (None, False):
            given[name] = None
    if given.get("camera") is not None:
        _check_camera(extractor)
        given["layout"] = motion_extractor(recipe, extractor).layout
        given |= {"keypoint_layout": config.layout, "num_channels": config.num_channels}
        given["body_size"] = extractor.body_size
        given["camera"] = RandomCamera(**_entries(recipe, "camera", RandomCamera))
    if given.get("pose_errors") is not None:
        entries = {"fill": extractor.fill_joints, **_entries(recipe, "pose_errors", PoseErrors)}
        given["pose_errors"] = PoseErrors(**entries)
    views = ViewAugmentation(**given)
    if isinstance(recipe.loss, str):
        return config, extractor, MultiGrainedFeatureDecorrelation.preset(recipe.loss), views
    return config, extractor, MultiGrainedFeatureDecorrelation(**recipe.loss), views


def motion_extractor(recipe: Recipe, extractor: USDRLFeatureExtractor) -> USDRLFeatureExtractor:
    """The feature extractor of the motion that views are drawn of.

    It is the model's; where views have a camera, that of 3D motion: whole bodies with a torso of half a metre, moving
    freely.
    """
    if recipe.views.get("camera") in (None, False):
        return extractor
    layout = get_layout(_entries(recipe, "camera", RandomCamera).get("layout", RandomCamera.layout))
    names = list(layout.joint_names)
    if not {"spine_base", "neck"} <= set(names):
        raise ValueError(f"camera: layout '{layout.name}' has no spine_base and neck, by which bodies are scaled")
    return USDRLFeatureExtractor(
        layout,
        "none",
        extractor.num_frames,
        extractor.num_persons,
        max_frames=None,
        fill_joints=True,
        torso=[names.index("spine_base"), names.index("neck")],
    )


def _entries(recipe: Recipe, name: str, kind: type) -> dict[str, Any]:
    """The entries of a part of the views; ``true`` takes the defaults."""
    value = recipe.views[name]
    if value is True:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"views.{name} must be true or a mapping of entries, got {value!r}")
    check_keys(f"views.{name}.", value, [entry.name for entry in fields(kind)])
    return dict(value)


def _check_camera(extractor: USDRLFeatureExtractor) -> None:
    """Refuse cameras for a model whose keypoints are neither shares of a picture nor bodies in one."""
    if get_layout(extractor.layout).is_3d or extractor.normalization not in ("image", "body-2d"):
        raise ValueError(
            "views.camera makes 2D keypoints: give the model a 2D layout and normalization 'body-2d' or 'image'"
        )
