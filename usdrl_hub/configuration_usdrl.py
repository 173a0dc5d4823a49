"""`USDRLConfig`: sizes and choices of a USDRL model."""

import dataclasses
import math
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .layouts import MODALITIES, get_layout
from .lookup import add_code, bundled_checkpoint, hint_on_missing

LARGEST_NUM_LABELS = 100_000
# Stages and layers of a segmentation head, whose dilation doubles from layer to layer.
LARGEST_DEPTH = 32
# Layouts of the authors' checkpoints, which do not name theirs, by number of joints.
RELEASE_LAYOUTS = {25: "ntu25", 17: "coco17-release"}


def _number(text: Any) -> Any:
    """A class number written as text, as an integer; other values are unchanged."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() else text


def _short(value: Any) -> str:
    return repr(value)[:100]


@strict
class USDRLConfig(PreTrainedConfig):
    r"""Sizes and choices of a USDRL model (arXiv 2508.12586, section 3).

    The defaults are those of the authors' NTU RGB+D checkpoints.

    Args:
        encoder (`"dste"` or `"sttr"`, defaults to `"dste"`):
            Dense spatio-temporal encoder, or the plain Transformer baseline.
        num_frames (`int`, defaults to 64):
            Frames T of a clip; DSTE's token mixing is tied to it.
        num_persons (`int`, defaults to 2):
            Persons M of a clip.
        num_joints (`int`, defaults to 25):
            Joints V of a person.
        num_channels (`int`, defaults to 3):
            Coordinates C of a joint.
        hidden_size (`int`, defaults to 1024):
            Width d of both streams; even, and a multiple of the heads.
        num_hidden_layers (`int`, defaults to 2):
            Layers of each stream.
        num_attention_heads (`int`, defaults to 1):
            Heads of each attention.
        intermediate_size (`int`, *optional*):
            Hidden width of the feed-forward layers; 2d for DSTE and d for STTR where None.
        alpha (`float`, defaults to 0.5):
            Share of the convolutional attention in a DSTE layer, in [0, 1]; dense shift attention has the rest.
        shift_gap (`int`, defaults to 4):
            Every `shift_gap`-th token is left unmixed by dense shift attention.
        drop_path_rate (`float`, defaults to 0.1):
            Probability of dropping a residual branch per sample in training (stochastic depth), in [0, 1).
        modality (`"joint"`, `"bone"`, `"motion"`, or several joined by `+`, defaults to `"joint"`):
            What the model forms of the joint coordinates it is given. With several, such as `"joint+motion+bone"`,
            each has an embedding of its own, and the encoder reads a linear map of their mean.
        layout (`str`, `dict` or list of pairs, *optional*):
            Joint layout: a name, `{"joint_names", "bones"}`, or (child, parent) pairs. None takes `ntu25` for 25
            joints, `coco17-release` for 17, and no layout otherwise.
        stream_projector_sizes (`list[int]`, *optional*):
            Widths of the three layers of the temporal and the spatial projector; `[2d, 2d, 2d]` where None.
        instance_projector_sizes (`list[int]`, *optional*):
            Widths of the three layers of the instance projector; `[2d, 2d, 4d]` where None.
        is_causal (`bool`, defaults to `False`):
            Whether no frame sees a later one: masked attention and token mixing, motion as the difference to the
            frame before, and the temporal stream only, because each spatial token holds every frame.
        readout_parts (`list[int]`, *optional*):
            Numbers of equal parts of a clip, such as `[1, 2]`, whose maxima over the temporal tokens a model compares
            clips by, beside the maximum over the spatial tokens; see `USDRLReadout`. None compares by the pooled
            embedding of the paper, and so does every causal model.
        readout_size (`int`, defaults to 256):
            Numbers of such an embedding; at most those that are pooled.
        segmentation_stages (`int`, defaults to 4):
            Stages of the temporal convolution of `USDRLForActionSegmentation`.
        segmentation_layers (`int`, defaults to 10):
            Layers of a stage; the dilation doubles from each to the next.
        segmentation_channels (`int`, defaults to 64):
            Width of the stages.
        layer_norm_eps (`float`, defaults to 1e-5):
            Epsilon of every layer norm.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of DSTE's Linear layers and of the spatial positions before training.
        classifier_initializer_range (`float`, defaults to 0.01):
            Standard deviation of a classification layer before training.
        min_similarity (`float`, *optional*):
            A recogniser's answer is "none of these" for clips whose cosine similarity to the mean training clip of the
            most probable class is below this number, in [0, 1]; see `USDRLForActionRecognition`. None never refuses.

    Raises:
        ValueError: If a size is not positive or the choices do not fit together.
        StrictDataclassFieldValidationError: If a field has the wrong type or an unknown choice.

    Example:
        >>> from usdrl_hub import USDRLConfig
        >>> USDRLConfig(hidden_size=256, num_persons=1).num_spatial_tokens
        25
    """

    model_type = "usdrl"

    encoder: Literal["dste", "sttr"] = "dste"
    num_frames: int = 64
    num_persons: int = 2
    num_joints: int = 25
    num_channels: int = 3
    hidden_size: int = 1024
    num_hidden_layers: int = 2
    num_attention_heads: int = 1
    intermediate_size: int | None = None
    alpha: float | int = 0.5
    shift_gap: int = 4
    drop_path_rate: float | int = 0.1
    modality: str = "joint"
    layout: str | dict[str, Any] | list | tuple | None = None
    stream_projector_sizes: list[int] | None = None
    instance_projector_sizes: list[int] | None = None
    is_causal: bool = False
    readout_parts: list[int] | None = None
    readout_size: int = 256
    segmentation_stages: int = 4
    segmentation_layers: int = 10
    segmentation_channels: int = 64
    layer_norm_eps: float = 1e-5
    initializer_range: float | int = 0.02
    classifier_initializer_range: float | int = 0.01
    min_similarity: float | int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, and check that they fit together."""
        self.validate_sizes()
        if self.intermediate_size is None:
            self.intermediate_size = self.hidden_size * (2 if self.encoder == "dste" else 1)
        width = 2 * self.hidden_size
        if self.stream_projector_sizes is None:
            self.stream_projector_sizes = [width, width, width]
        if self.instance_projector_sizes is None:
            self.instance_projector_sizes = [width, width, 2 * width]
        if self.layout is None:
            self.layout = RELEASE_LAYOUTS.get(self.num_joints)
        else:
            self.layout = get_layout(self.layout).to_config()
        if self.is_causal:
            # Its clips grow frame by frame, and it has no spatial tokens.
            self.readout_parts = None
        self._check_inherited(kwargs.get("num_labels", 2), kwargs.get("quantization_config"))
        super().__post_init__(**kwargs)
        # transformers derives label2id only where it makes up the labels itself.
        self.label2id = {label: number for number, label in enumerate(self.class_names)}
        self.validate_choices()

    def __setattr__(self, key: str, value: Any) -> None:
        """Set a field; the classes' numbers may be text, as in JSON, and `label2id` follows them."""
        if key == "id2label" and isinstance(value, dict):
            value = {_number(label): name for label, name in value.items()}
            super().__setattr__("label2id", {str(name): number for number, name in value.items()})
        super().__setattr__(key, value)

    def validate_sizes(self) -> None:
        """Refuse sizes that are not positive, or too large."""
        sizes = ("num_frames", "num_persons", "num_joints", "num_channels", "hidden_size", "num_hidden_layers")
        head = ("segmentation_stages", "segmentation_layers", "segmentation_channels")
        for name in (*sizes, *head, "num_attention_heads", "shift_gap", "intermediate_size", "readout_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

        if max(self.segmentation_stages, self.segmentation_layers) > LARGEST_DEPTH:
            raise ValueError(f"segmentation_stages and segmentation_layers must be at most {LARGEST_DEPTH}")

    def _check_inherited(self, num_labels: Any, quantization: Any) -> None:
        """Check the types of transformers' own fields."""
        if not isinstance(num_labels, int) or num_labels > LARGEST_NUM_LABELS:
            # transformers makes a name for each label.
            raise ValueError(f"num_labels must be at most {LARGEST_NUM_LABELS}, got {_short(num_labels)}")
        if self.id2label is not None and not isinstance(self.id2label, dict):
            raise ValueError(f"id2label must be a dictionary, number -> name, got {_short(self.id2label)}")
        if any(not isinstance(number, int) for number in self.id2label or ()):
            raise ValueError(f"id2label must name the classes 0 to n - 1, got {_short(list(self.id2label or ()))}")
        names = self.architectures
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"architectures must be a list of names of classes, got {_short(names)}")
        if isinstance(self.dtype, str) and not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f"dtype must be a type of torch such as float32, got {_short(self.dtype)}")
        if self.dtype is not None and not isinstance(self.dtype, str | torch.dtype):
            raise ValueError(f"dtype must be the name of a type, got {_short(self.dtype)}")
        if quantization is not None and not isinstance(quantization, dict) and not hasattr(quantization, "to_dict"):
            raise ValueError(f"quantization_config must be a dictionary, got {_short(quantization)}")

    def validate_choices(self) -> None:
        """Refuse impossible values and combinations."""
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size must be even for the sinusoid positions, got {self.hidden_size}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        unknown = [name for name in self.modalities if name not in MODALITIES]
        if unknown or len(set(self.modalities)) < len(self.modalities):
            raise ValueError(
                f"modality must be {', '.join(MODALITIES)}, or different ones joined by +, got '{self.modality}'"
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be between 0 and 1, got {self.alpha}")
        if self.min_similarity is not None and not 0 <= self.min_similarity <= 1:
            raise ValueError(f"min_similarity must be between 0 and 1, got {self.min_similarity}")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be at least 0 and below 1, got {self.drop_path_rate}")
        if sorted(self.id2label or {}) != list(range(len(self.id2label or {}))) or not self.id2label:
            raise ValueError(
                f"id2label must name the classes 0 to n - 1, got the numbers {sorted(self.id2label or {})}"
            )
        if not 0 < self.layer_norm_eps < 1:
            raise ValueError(f"layer_norm_eps must be above 0 and below 1, got {self.layer_norm_eps}")
        self._check_readout()
        for name in ("initializer_range", "classifier_initializer_range"):
            value = getattr(self, name)
            if not 0 <= value or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
        for name in ("stream_projector_sizes", "instance_projector_sizes"):
            sizes = getattr(self, name)
            if len(sizes) != 3 or min(sizes) < 1:
                raise ValueError(f"{name} must be three positive widths, got {sizes}")
        if self.layout is None:
            if "bone" in self.modalities:
                raise ValueError("modality 'bone' needs a layout: give layout a name or (child, parent) pairs")
        elif get_layout(self.layout).num_joints != self.num_joints:
            layout = get_layout(self.layout)
            raise ValueError(
                f"layout '{layout.name}' has {layout.num_joints} joints, but num_joints is {self.num_joints}: "
                "make them equal"
            )

    def _check_readout(self) -> None:
        parts = self.readout_parts
        if parts is None:
            return
        if not parts or any(part < 1 or self.num_frames % part for part in parts) or len(set(parts)) < len(parts):
            raise ValueError(
                f"readout_parts must be different numbers that divide the {self.num_frames} frames, "
                f"got {_short(parts)}"
            )
        if self.readout_size > self.readout_input_size:
            raise ValueError(
                f"readout_size must be at most the {self.readout_input_size} numbers that are pooled, "
                f"got {self.readout_size}"
            )

    @property
    def readout_input_size(self) -> int:
        """Numbers that are pooled for the readout."""
        return self.hidden_size * (sum(self.readout_parts or ()) + 1)

    @property
    def clip_embedding_size(self) -> int:
        """Width of the embeddings by which clips are compared: the readout's, or `embedding_size` without one."""
        return self.embedding_size if self.readout_parts is None else self.readout_size

    @property
    def modalities(self) -> list[str]:
        """The modalities that the model reads."""
        return self.modality.split("+")

    @property
    def embedding_size(self) -> int:
        """Width of pooled and frame embeddings: both streams', or the temporal stream's in a causal model."""
        return self.hidden_size if self.is_causal else 2 * self.hidden_size

    @property
    def num_spatial_tokens(self) -> int:
        """Tokens M*V of the spatial stream."""
        return self.num_persons * self.num_joints

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        labels = {int(number): str(label) for number, label in (self.id2label or {}).items()}
        return [labels[number] for number in sorted(labels)]

    def _upload_modified_files(self, working_dir, *args, **kwargs):
        """Upload the model's code, too."""
        add_code(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Make a configuration from a dictionary; keyword arguments replace and are checked like its entries."""
        # transformers sets them after __post_init__ has filled in the fields that depend on them. dtype may be "auto".
        fields = {field.name for field in dataclasses.fields(cls)} - {"dtype"}
        given = {key: kwargs.pop(key) for key in fields & kwargs.keys()}
        return super().from_dict({**config_dict, **given}, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load a configuration as transformers does; names of checkpoints in the package need no network."""
        name = bundled_checkpoint(pretrained_model_name_or_path, **kwargs)
        with hint_on_missing(pretrained_model_name_or_path, kwargs):
            return super().from_pretrained(name, *args, **kwargs)


__all__ = ["USDRLConfig"]
