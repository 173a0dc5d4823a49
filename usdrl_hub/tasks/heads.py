"""Heads on pretrained encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ..configuration_usdrl import USDRLConfig
from ..modeling_usdrl import USDRLClassificationModel, USDRLPreTrainedModel

Head = TypeVar("Head", bound=USDRLClassificationModel)


def with_head(
    encoder: USDRLPreTrainedModel, head: type[Head], class_names: int | Sequence[str], **fields: Any
) -> Head:
    """A model with a new, untrained head on a copy of an encoder.

    Args:
        encoder: A model, with or without a head of its own, whose encoder is copied.
        head: Class of the new model, such as `USDRLForActionDetection`.
        class_names: Names of the classes, without the background that some heads have as class 0; or the number of
            logits.
        **fields: Other fields of `USDRLConfig`, such as ``is_causal=True`` for `USDRLForEarlyActionPrediction`.

    Returns:
        The model, on the encoder's device and of its dtype, in training mode.

    Raises:
        ValueError: If there is no class, the fields do not fit together, or the encoder lacks a weight that the model
            needs, as fused and causal encoders do.

    Example:
        >>> from usdrl_hub import USDRLForActionRecognition, USDRLModel, with_head
        >>> encoder = USDRLModel.from_pretrained("usdrl/mocap-tiny")
        >>> with_head(encoder, USDRLForActionRecognition, ["fall", "no fall"]).classifier.out_features
        2
    """
    names = dict(enumerate(head.label_names(class_names)))
    # The problem type is that of the head which the encoder was saved with.
    changes: dict[str, Any] = {"id2label": names, "label2id": None, "problem_type": None, "min_similarity": None}
    changes |= {"architectures": [head.__name__], **fields}
    model = head(USDRLConfig(**{**encoder.config.to_dict(), **changes}))
    state = encoder.base_model.state_dict()
    needed = model.base_model.state_dict().keys()
    if absent := sorted(needed - state.keys()):
        raise ValueError(
            f"the encoder has no weight '{absent[0]}', which {head.__name__} needs: give one that is neither fused "
            "nor wrapped, and causal only if the new model is"
        )
    model.base_model.load_state_dict({name: state[name] for name in needed})
    return model.to(encoder.device, encoder.dtype)  # type: ignore[arg-type]
