"""Build what a recipe describes: model configuration, feature extractor, loss and views."""

from __future__ import annotations

import os
from dataclasses import fields

from ..configuration_usdrl import USDRLConfig
from ..facts.recipes import Recipe, check_keys, naming_recipe, read_recipe, recipe_path
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..hub.listing import model_parts
from .data import check_synthetic_pairs
from .losses import MultiGrainedFeatureDecorrelation
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
    config, extractor = model_parts(recipe)
    check_synthetic_pairs(recipe.synthetic_pairs, extractor)
    views = ViewAugmentation(**{"num_frames": config.num_frames, "layout": config.layout, **recipe.views})
    if isinstance(recipe.loss, str):
        return config, extractor, MultiGrainedFeatureDecorrelation.preset(recipe.loss), views
    return config, extractor, MultiGrainedFeatureDecorrelation(**recipe.loss), views
