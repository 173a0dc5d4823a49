"""USDRL models: the encoder (DSTE or STTR), the pretraining projectors, and the classification heads.

Outputs are those of the authors' published checkpoints; where paper and released code differ, those of the code
(``tests/goldens/`` holds them). Axes: B clips, T frames, M persons, V joints, C coordinates, d hidden size, S
tokens of a stream.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ImageClassifierOutput, TokenClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_usdrl import USDRLConfig
from .layouts import get_layout
from .lookup import add_code, bundled_checkpoint, checkpoint_name, commit_of, hint_on_missing
from .weights import HUB_ARGUMENTS, check_files, check_values, find_adapter, share

# Name of class 0 of the heads that have a background: frames in which none of the classes happens.
BACKGROUND = "background"


@dataclass
class USDRLModelOutput(ModelOutput):
    """Output of `USDRLModel`.

    Attributes:
        last_hidden_state: Dense embedding ``(B, T, 2d)``: temporal tokens and pooled spatial tokens, concatenated.
        pooler_output: Clip embedding ``(B, 2d)``: maxima over the temporal and over the spatial tokens, concatenated.
        temporal_hidden_state: Temporal tokens ``(B, T, d)``.
        spatial_hidden_state: Spatial tokens ``(B, M*V, d)``.
        hidden_states: Dense embedding after the embedding layer and after every layer, each ``(B, T, 2d)``.
        temporal_hidden_states: Temporal tokens after the same layers, each ``(B, T, d)``.
        spatial_hidden_states: Spatial tokens after the same layers, each ``(B, M*V, d)``.
        attentions: Weights of the temporal layers, then of the spatial layers, each ``(B, K, heads, S, S)``; K is 3
            for DSTE (convolutional, shifted, plain) and 1 for STTR.
        readout: Clip embedding ``(B, E)`` to compare clips by, where the configuration names a readout; see
            `USDRLReadout`.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    temporal_hidden_state: torch.FloatTensor | None = None
    spatial_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    temporal_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    spatial_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    readout: torch.FloatTensor | None = None


@dataclass
class USDRLForPreTrainingOutput(ModelOutput):
    """Output of `USDRLForPreTraining`.

    For n views of each clip every tensor but the last two has a leading axis n.

    Attributes:
        temporal_projection: Projected maximum of the temporal tokens ``(B, D_t)``.
        spatial_projection: Projected maximum of the spatial tokens ``(B, D_s)``.
        instance_projection: Projected clip embedding ``(B, D_i)``.
        pooler_output: Clip embedding ``(B, 2d)``.
        hidden_states: See `USDRLModelOutput`.
        attentions: See `USDRLModelOutput`.
        modalities: Outputs of single modalities, by name, if requested.
    """

    temporal_projection: torch.FloatTensor | None = None
    spatial_projection: torch.FloatTensor | None = None
    instance_projection: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    modalities: dict | None = None


@dataclass
class USDRLRecognitionOutput(ImageClassifierOutput):
    """Output of `USDRLForActionRecognition`.

    Attributes:
        similarity: Cosine similarity ``(B,)`` of each clip's embedding to the mean training clip of the most probable
            class, by models with `min_similarity`; else None.
    """

    similarity: torch.FloatTensor | None = None


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention whose weights can be returned; tensors ``(B, heads, S, d / heads)``, as transformers' interface."""
    scores = query @ key.transpose(2, 3) * scaling
    if kwargs.get("is_causal"):
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class USDRLDropPath(nn.Module):
    """Stochastic depth: in training, each sample's branch is dropped with `rate` and scaled up otherwise."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return hidden_states
        keep = 1 - self.rate
        mask = hidden_states.new_empty(len(hidden_states), 1, 1).bernoulli_(keep)
        return hidden_states * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class USDRLLinear(nn.Linear):
    """A linear layer that is initialised by its role: "attention_input", "attention_output" or "classifier"."""

    def __init__(self, in_features: int, out_features: int, role: str):
        super().__init__(in_features, out_features)
        self.role = role


def is_ordinary(tensor: torch.Tensor) -> bool:
    """Whether a weight is a plain tensor of torch, not a quantised one of another library."""
    return type(tensor).__module__.partition(".")[0] == "torch"


class USDRLCausalLinear(nn.Linear):
    """A linear map along the sequence in which each token sees itself and earlier tokens only."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(tokens, self.weight.tril(), self.bias)


class USDRLAttention(nn.Module):
    """Multi-head self-attention over the tokens of one stream."""

    def __init__(self, config: USDRLConfig):
        super().__init__()
        self.config = config
        self.head_size = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_size**-0.5
        self.is_causal = config.is_causal
        self.in_proj = USDRLLinear(config.hidden_size, 3 * config.hidden_size, role="attention_input")
        self.out_proj = USDRLLinear(config.hidden_size, config.hidden_size, role="attention_output")

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, tokens, width = hidden_states.shape
        projected = self.in_proj(hidden_states).view(batch, tokens, 3, width // self.head_size, self.head_size)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        attend: Callable = eager_attention_forward
        # Only eager attention has weights to return.
        if not output_attentions:
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        context, weights = attend(self, query, key, value, None, scaling=self.scaling, is_causal=self.is_causal)
        return self.out_proj(context.reshape(batch, tokens, width)), weights if output_attentions else None


class USDRLMLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: USDRLConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(hidden_states)))


class USDRLConvolutionalAttention(nn.Module):
    """CA: attention over tokens that a pointwise convolution has mixed along the channels."""

    def __init__(self, config: USDRLConfig):
        super().__init__()
        self.conv = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=1)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = USDRLMLP(config)
        self.drop_path = USDRLDropPath(config.drop_path_rate)

    def forward(
        self, hidden_states: torch.Tensor, attention: Callable, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        mixed = hidden_states + self.conv(hidden_states.transpose(1, 2)).relu().transpose(1, 2)
        attended, weights = attention(self.norm1(mixed), output_attentions)
        # As in the release: the residual is the input, not the convolved input, and the MLP has none.
        attended = self.drop_path(attended) + hidden_states
        return self.drop_path(self.mlp(self.norm2(attended))), weights


class USDRLDenseShiftAttention(nn.Module):
    """DSA: the mean of attention over plain tokens and over tokens mixed densely along the sequence."""

    def __init__(self, config: USDRLConfig, num_tokens: int):
        super().__init__()
        self.shift_gap = config.shift_gap
        self.is_causal = config.is_causal
        linear = USDRLCausalLinear if config.is_causal else nn.Linear
        self.mix1, self.mix2 = linear(num_tokens, num_tokens), linear(num_tokens, num_tokens)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = USDRLMLP(config)
        self.drop_path = USDRLDropPath(config.drop_path_rate)

    def shift(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Mix every token but each `shift_gap`-th with all others: ``(B, S, d)`` -> ``(B, S, d)``."""
        if self.is_causal:
            self.refuse_others()
        # The layers are called, because adapters, offloading and quantisation change the call.
        mixed = self.mix2(self.mix1(hidden_states.transpose(1, 2)).relu())
        mixed = mixed.transpose(1, 2) + hidden_states
        token = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        return torch.where((token % self.shift_gap == 0)[:, None], hidden_states, mixed)

    def refuse_others(self) -> None:
        """Refuse replaced or quantised causal layers, in which frames would see later ones."""
        for name in ("mix1", "mix2"):
            layer = getattr(self, name)
            quantised = isinstance(layer, USDRLCausalLinear) and not is_ordinary(layer.weight)
            if quantised or not isinstance(layer, USDRLCausalLinear):
                what = type(layer.weight if quantised else layer)
                raise ValueError(
                    f"a causal model mixes frames with the ones before them only, but dense_shift.{name} is now "
                    f"{what.__module__}.{what.__name__}, which sees later frames: leave mix1 and mix2 out "
                    "(PEFT: exclude_modules=['mix1', 'mix2'], torchao: modules_to_not_convert)"
                )

    def branch(
        self, hidden_states: torch.Tensor, attention: Callable, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One pre-norm Transformer layer; both branches share its weights."""
        attended, weights = attention(self.norm1(hidden_states), output_attentions)
        hidden_states = self.drop_path(attended) + hidden_states
        return hidden_states + self.drop_path(self.mlp(self.norm2(hidden_states))), weights

    def forward(
        self, hidden_states: torch.Tensor, attention: Callable, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        shifted, shifted_weights = self.branch(self.shift(hidden_states), attention, output_attentions)
        plain, plain_weights = self.branch(hidden_states, attention, output_attentions)
        return (shifted + plain) / 2, shifted_weights, plain_weights


class USDRLDenseLayer(GradientCheckpointingLayer):
    """One layer of DSTE: convolutional and dense shift attention side by side, sharing one attention module."""

    def __init__(self, config: USDRLConfig, num_tokens: int):
        super().__init__()
        self.alpha = config.alpha
        self.attention = USDRLAttention(config)
        self.convolutional = USDRLConvolutionalAttention(config)
        self.dense_shift = USDRLDenseShiftAttention(config, num_tokens)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # A function, because accelerate moves modules among arguments, and their weights may still be offloaded.
        attention = partial(self.attention)
        convolved, weights = self.convolutional(hidden_states, attention, output_attentions)
        shifted, *shift_weights = self.dense_shift(hidden_states, attention, output_attentions)
        output = self.alpha * convolved + (1 - self.alpha) * shifted
        return output, torch.stack([weights, *shift_weights], dim=1) if output_attentions else None


class USDRLTransformerLayer(GradientCheckpointingLayer):
    """One layer of STTR: a post-norm Transformer layer with a ReLU feed-forward network."""

    def __init__(self, config: USDRLConfig, num_tokens: int):
        super().__init__()
        self.attention = USDRLAttention(config)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, weights = self.attention(hidden_states, output_attentions)
        hidden_states = self.norm1(hidden_states + attended)
        hidden_states = self.norm2(hidden_states + self.fc2(self.fc1(hidden_states).relu()))
        return hidden_states, weights[:, None] if weights is not None else None


class USDRLEmbedding(nn.Module):
    """Two linear layers that map a stream's tokens to the hidden size."""

    def __init__(self, config: USDRLConfig, token_size: int):
        super().__init__()
        self.fc1 = nn.Linear(token_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc2 = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.norm(self.fc1(tokens)).relu())


class USDRLSinusoidPosition(nn.Module):
    """Fixed positions of the temporal tokens: interleaved sine and cosine, base 10000."""

    def __init__(self, config: USDRLConfig):
        super().__init__()
        self.num_tokens, self.hidden_size = config.num_frames, config.hidden_size
        self.register_buffer("values", torch.zeros(1, self.num_tokens, self.hidden_size), persistent=False)

    def table(self, num_tokens: int | None = None) -> torch.Tensor:
        """The positions in float32 ``(1, S, d)``, for as many tokens as the stream has where None."""
        num_tokens = num_tokens or self.num_tokens
        position = torch.arange(num_tokens, dtype=torch.float32, device="cpu")[:, None]
        even = torch.arange(0, self.hidden_size, 2, dtype=torch.float32, device="cpu")
        angle = position * torch.exp(even * (-math.log(10000.0) / self.hidden_size))
        return torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(1, num_tokens, self.hidden_size)

    def forward(self) -> torch.Tensor:
        return self.values


class USDRLLearnedPosition(nn.Module):
    """Learned positions of the spatial tokens."""

    def __init__(self, config: USDRLConfig):
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, config.num_spatial_tokens, config.hidden_size))

    def forward(self) -> torch.Tensor:
        return self.values


class USDRLTokenStream(nn.Module):
    """Embedding, positions and layers of the temporal or the spatial stream."""

    def __init__(self, config: USDRLConfig, num_tokens: int, token_size: int, position: nn.Module):
        super().__init__()
        # DSTE adds the position before every layer, STTR before the first.
        self.position_every_layer = config.encoder == "dste"
        layer = USDRLDenseLayer if config.encoder == "dste" else USDRLTransformerLayer
        if len(config.modalities) == 1:
            self.embedding = USDRLEmbedding(config, token_size)
        else:
            self.embeddings = nn.ModuleDict({name: USDRLEmbedding(config, token_size) for name in config.modalities})
            self.fusion = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.position = position
        self.layers = nn.ModuleList([layer(config, num_tokens) for _ in range(config.num_hidden_layers)])

    def embed(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """Embed tokens ``(B, S, token size)`` of one modality, or fuse the embeddings of all."""
        if hasattr(self, "embedding"):
            return self.embedding(*tokens.values())
        embedded = [self.embeddings[name](values) for name, values in tokens.items()]
        return embedded[0] if len(embedded) == 1 else self.fusion(sum(embedded) / len(embedded))

    def forward(
        self, tokens: dict[str, torch.Tensor], output_hidden_states: bool = False, output_attentions: bool = False
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Return the last hidden state ``(B, S, d)``, and if requested the states and attentions of all layers."""
        hidden_states = self.embed(tokens)
        all_states = [hidden_states] if output_hidden_states else []
        attentions = []
        for number, layer in enumerate(self.layers):
            if number == 0 or self.position_every_layer:
                hidden_states = hidden_states + self.position()
            hidden_states, weights = layer(hidden_states, output_attentions)
            if output_hidden_states:
                all_states.append(hidden_states)
            if output_attentions:
                attentions.append(weights)
        return hidden_states, all_states, attentions


class USDRLModalityTokens(nn.Module):
    """Compute the modalities of a clip and split them into tokens."""

    def __init__(self, config: USDRLConfig):
        super().__init__()
        self.modalities = config.modalities
        self.is_causal = config.is_causal
        if "bone" in self.modalities:
            self.parent_joints = get_layout(config.layout).parents
            self.register_buffer("parents", torch.zeros(config.num_joints, dtype=torch.long), persistent=False)

    def form(self, keypoints: torch.Tensor, modality: str) -> torch.Tensor:
        """One modality of clips, both ``(B, T, M, V, C)``."""
        if modality == "bone":
            return keypoints - keypoints.index_select(3, self.parents)
        if modality == "motion" and self.is_causal:
            return keypoints - torch.cat([keypoints[:, :1], keypoints[:, :-1]], dim=1)
        if modality == "motion":
            # The last frame has no next one: its motion is zero.
            return torch.cat([keypoints[:, 1:], keypoints[:, -1:]], dim=1) - keypoints
        return keypoints

    def forward(self, keypoints: torch.Tensor, modality: str | None) -> tuple[dict, dict]:
        """Temporal tokens ``(B, T, M*V*C)`` and spatial tokens ``(B, M*V, T*C)`` of clips ``(B, T, M, V, C)``.

        By modality: all of the model's, or the one given.
        """
        formed = {name: self.form(keypoints, name) for name in self.modalities if modality in (None, name)}
        temporal = {name: values.flatten(2) for name, values in formed.items()}
        spatial = {name: values.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2) for name, values in formed.items()}
        return temporal, spatial


class USDRLReadout(nn.Module):
    """Tokens to an embedding to compare clips by: maxima over parts of the clip, decorrelated and reduced.

    The maxima over n equal parts are divided by the root of n, so that each n counts as much. Mean and projection are
    statistics of the pretraining data, see `fit_readout`; before they are fitted, the first numbers are kept.
    """

    mean: torch.Tensor
    projection: torch.Tensor

    def __init__(self, config: USDRLConfig):
        super().__init__()
        self.parts = list(config.readout_parts or ())
        self.register_buffer("mean", torch.zeros(config.readout_input_size))
        self.register_buffer("projection", torch.eye(config.readout_size, config.readout_input_size))

    def pool(self, temporal: torch.Tensor, spatial: torch.Tensor) -> torch.Tensor:
        """Maxima ``(B, E')`` of temporal ``(B, T, d)`` and spatial tokens ``(B, M*V, d)``."""
        pooled = [
            (temporal.unflatten(1, (parts, -1)).amax(dim=2) / math.sqrt(parts)).flatten(1) for parts in self.parts
        ]
        return torch.cat([*pooled, spatial.amax(dim=1)], dim=-1)

    def forward(self, temporal: torch.Tensor, spatial: torch.Tensor) -> torch.Tensor:
        """The embedding ``(B, E)``."""
        return nn.functional.linear(self.pool(temporal, spatial) - self.mean, self.projection)


class USDRLPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation of all USDRL models."""

    config: USDRLConfig
    config_class = USDRLConfig
    # What the class computes, as listings and cards name it; per "clip", "frame" or "video"; the Auto class that loads
    # it; the hub's name of its task; whether class 0 is the background; and whether its loss is a cross-entropy, which
    # the Trainer may replace by a smoothed one.
    task: str = ""
    granularity: str = "clip"
    auto_class: str = "AutoModel"
    pipeline_tag: str | None = None
    has_background: bool = False
    loss_is_cross_entropy: bool = True
    base_model_prefix = "usdrl"
    main_input_name = "keypoints"
    input_modalities = "video"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["USDRLDenseLayer", "USDRLTransformerLayer"]
    # The projectors are used in pretraining only.
    _keys_to_ignore_on_load_unexpected = [r"^(temporal|spatial|instance)_projector\.", r"^class_centers\."]

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as the release: DSTE truncated normal, STTR and DSTE's convolutions as PyTorch does."""
        role = getattr(module, "role", None)
        if role == "classifier":
            init.normal_(module.weight, std=self.config.classifier_initializer_range)
            init.zeros_(module.bias)
        elif role == "attention_input":
            # As torch.nn.MultiheadAttention, which the release uses.
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and self.config.encoder == "dste":
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv1d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 0 if role == "attention_output" else 1 / math.sqrt(module.weight[0].numel())
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm1d):
                init.zeros_(module.running_mean)
                init.ones_(module.running_var)
                init.zeros_(module.num_batches_tracked)
        elif isinstance(module, USDRLLearnedPosition):
            init.trunc_normal_(module.values, std=self.config.initializer_range)
        elif isinstance(module, USDRLReadout):
            init.zeros_(module.mean)
            init.copy_(module.projection, torch.eye(*module.projection.shape, device="cpu"))
        elif isinstance(module, USDRLClassCenters):
            init.zeros_(module.mean)
        elif isinstance(module, USDRLSinusoidPosition):
            init.copy_(module.values, module.table())
        elif isinstance(module, USDRLModalityTokens) and "bone" in module.modalities:
            init.copy_(module.parents, torch.tensor(module.parent_joints, device="cpu"))

    def _upload_modified_files(self, working_dir, *args, **kwargs):
        """Upload the model's code, too."""
        add_code(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """Load a model as transformers does; names of checkpoints in the package need no network.

        Weights are read from safetensors only, and compared with the configuration before anything is allocated. PEFT
        adapters are loaded with the model that they were trained on.

        Raises:
            ValueError: If a tensor of the encoder is missing, a tensor has another shape than the configuration
                describes, is not floating or holds NaN or infinity, a file is truncated, or `config` or a keyword
                argument gives the weights another meaning, such as another layout or modality.
            OSError: If there is no such checkpoint, or it cannot be fetched.
        """
        name = bundled_checkpoint(pretrained_model_name_or_path, **kwargs)
        kwargs.setdefault("use_safetensors", True)
        with hint_on_missing(pretrained_model_name_or_path, kwargs):
            adapter = find_adapter(name, **kwargs)
            if adapter is not None:
                where = {key: kwargs.pop(key) for key in ("revision", "subfolder") if key in kwargs}
                if adapter.revision is not None:
                    kwargs["revision"] = adapter.revision
                name = bundled_checkpoint(adapter.base, **kwargs)
                if adapter.config is not None:
                    kwargs.setdefault("config", adapter.config)
                    if adapter.has_head:
                        # It may be for other classes than that of the base, which it replaces.
                        kwargs.setdefault("ignore_mismatched_sizes", True)
            tensors = check_files(cls, name, kwargs)
            loaded = super().from_pretrained(name, *model_args, **kwargs)
            if adapter is not None:
                where |= {key: kwargs[key] for key in HUB_ARGUMENTS if kwargs.get(key) is not None}
                part = loaded[0] if isinstance(loaded, tuple) else loaded
                part.load_adapter(pretrained_model_name_or_path, adapter_kwargs=where)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        centers = getattr(model, "class_centers", None)
        if centers is not None and centers.mean.device.type != "meta" and not centers.mean.any():
            # A head for other classes, whose training clips are not known yet.
            cast(USDRLForActionRecognition, model).set_class_centers(None, None)
        check_values(pretrained_model_name_or_path, model, tensors)
        if shipped := checkpoint_name(name):
            # The name instead of a local path: adapters and cards record it.
            model.config._name_or_path = shipped
            for part in model.modules():
                if isinstance(part, PreTrainedModel):
                    part.name_or_path = shipped
        else:
            # The feature extractor has to be that of the same commit; the field is never saved.
            model.config._commit_hash = commit_of(name, **kwargs)
        return loaded

    def save_pretrained(self, *args, **kwargs):
        """Save as transformers does."""
        super().save_pretrained(*args, **kwargs)
        share(args[0] if args else kwargs["save_directory"])


class USDRLModel(USDRLPreTrainedModel):
    """The USDRL encoder: clips of joint coordinates to dense and pooled embeddings.

    Example:
        >>> import torch
        >>> from usdrl_hub import USDRLModel
        >>> model = USDRLModel.from_pretrained("usdrl/tiny-uiprmd")
        >>> model(torch.randn(4, 64, 1, 25, 3)).pooler_output.shape[0]
        4
    """

    task = "embedding"
    auto_class = "AutoModel"
    pipeline_tag = "feature-extraction"
    # Without a report of the head that the checkpoint was saved with.
    _keys_to_ignore_on_load_unexpected = [
        *USDRLPreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^(classifier|stages)\.",
    ]

    def __init__(self, config: USDRLConfig):
        super().__init__(config)
        frames, joints, channels = config.num_frames, config.num_spatial_tokens, config.num_channels
        self.tokens = USDRLModalityTokens(config)
        self.temporal = USDRLTokenStream(config, frames, joints * channels, USDRLSinusoidPosition(config))
        if not config.is_causal:
            self.spatial = USDRLTokenStream(config, joints, frames * channels, USDRLLearnedPosition(config))
        if config.readout_parts is not None:
            self.readout = USDRLReadout(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The layer that maps temporal tokens to the hidden size; with several modalities, their fusion."""
        return self.temporal.embedding if hasattr(self.temporal, "embedding") else self.temporal.fusion

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the layer that `get_input_embeddings` returns."""
        setattr(self.temporal, "embedding" if hasattr(self.temporal, "embedding") else "fusion", value)

    @can_return_tuple
    def forward(
        self,
        keypoints: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        modality: str | None = None,
        **kwargs,
    ) -> USDRLModelOutput:
        """Encode clips.

        Args:
            keypoints: Joint coordinates ``(B, T, M, V, C)`` as `USDRLFeatureExtractor` gives them; the model computes
                bone and motion from them.
            output_hidden_states: Return the states of all layers; the config's choice where None.
            output_attentions: Return the attention weights, computed by eager attention; the config's choice where
                None.
            modality: Encode this one of several modalities alone, for consistency in pretraining; all, fused, where
                None.
            **kwargs: Ignored.

        Raises:
            ValueError: If the shape is not the config's, or the modality is not one of the config's.
        """
        config = self.config
        expected = (config.num_frames, config.num_persons, config.num_joints, config.num_channels)
        if not isinstance(keypoints, torch.Tensor):
            raise ValueError(
                f"keypoints must be a tensor, got {type(keypoints).__name__}: call the feature extractor with "
                "return_tensors='pt'"
            )
        if keypoints.ndim != 5 or tuple(keypoints.shape[1:]) != expected:
            raise ValueError(
                f"keypoints must be (batch, {', '.join(map(str, expected))}) = (batch, frames, persons, joints, "
                f"coordinates), got {tuple(keypoints.shape)}: use USDRLFeatureExtractor to make clips"
            )
        if modality is not None and modality not in config.modalities:
            raise ValueError(f"the model reads {', '.join(config.modalities)}, not '{modality}'")
        if output_hidden_states is None:
            output_hidden_states = bool(config.output_hidden_states)
        if output_attentions is None:
            output_attentions = bool(config.output_attentions)
        # Before the cast: in half precision, differences of joints lose most of their digits.
        temporal_tokens, spatial_tokens = (
            {name: values.to(self.dtype) for name, values in tokens.items()}
            for tokens in self.tokens(keypoints, modality)
        )
        asked = (output_hidden_states, output_attentions)
        temporal, temporal_states, temporal_attentions = self.temporal(temporal_tokens, *asked)
        if config.is_causal:
            output = USDRLModelOutput(
                last_hidden_state=temporal, pooler_output=temporal.amax(dim=1), temporal_hidden_state=temporal
            )
            if output_hidden_states:
                output.hidden_states = output.temporal_hidden_states = tuple(temporal_states)
            if output_attentions:
                output.attentions = tuple(temporal_attentions)
            return output
        spatial, spatial_states, spatial_attentions = self.spatial(spatial_tokens, *asked)
        output = USDRLModelOutput(
            last_hidden_state=self.dense(temporal, spatial),
            pooler_output=torch.cat([temporal.amax(dim=1), spatial.amax(dim=1)], dim=-1),
            temporal_hidden_state=temporal,
            spatial_hidden_state=spatial,
        )
        if config.readout_parts is not None:
            output.readout = self.readout(temporal, spatial)
        if output_hidden_states:
            output.hidden_states = tuple(map(self.dense, temporal_states, spatial_states))
            output.temporal_hidden_states = tuple(temporal_states)
            output.spatial_hidden_states = tuple(spatial_states)
        if output_attentions:
            output.attentions = (*temporal_attentions, *spatial_attentions)
        return output

    @staticmethod
    def dense(temporal: torch.Tensor, spatial: torch.Tensor) -> torch.Tensor:
        """Dense embedding ``(B, T, 2d)`` of temporal ``(B, T, d)`` and spatial tokens ``(B, M*V, d)``."""
        pooled = nn.functional.adaptive_avg_pool1d(spatial.transpose(1, 2), temporal.shape[1]).transpose(1, 2)
        return torch.cat([temporal, pooled], dim=-1)


def _projector(input_size: int, sizes: list[int]) -> nn.Sequential:
    first, second, last = sizes
    return nn.Sequential(
        nn.Linear(input_size, first),
        nn.BatchNorm1d(first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.BatchNorm1d(second),
        nn.ReLU(),
        nn.Linear(second, last),
    )


class USDRLForPreTraining(USDRLPreTrainedModel):
    """The encoder with the temporal, spatial and instance projectors of multi-grained feature decorrelation."""

    task = "pretraining"
    auto_class = "AutoModelForPreTraining"

    def __init__(self, config: USDRLConfig):
        super().__init__(config)
        if config.is_causal:
            raise ValueError("a causal model has no spatial stream to pretrain: pretrain it without is_causal")
        self.usdrl = USDRLModel(config)
        self.temporal_projector = _projector(config.hidden_size, config.stream_projector_sizes)
        self.spatial_projector = _projector(config.hidden_size, config.stream_projector_sizes)
        self.instance_projector = _projector(2 * config.hidden_size, config.instance_projector_sizes)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        keypoints: torch.Tensor,
        modalities: Sequence[str] = (),
        gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **kwargs,
    ) -> USDRLForPreTrainingOutput:
        """Project one view or several views of each clip.

        Args:
            keypoints: ``(B, T, M, V, C)``, or n views ``(n, B, T, M, V, C)``; see `USDRLModel.forward`.
            modalities: Modalities in which views are also encoded separately.
            gather: Joins the embeddings of views ``(n, B, 2d)`` of several processes before they are projected,
                because batch normalisation and the loss are statistics of the whole batch.
            **kwargs: Passed to `USDRLModel.forward`.
        """
        if keypoints.ndim == 6:
            projected = {}
            for modality in (None, *modalities):
                pooled = self.encode_views(keypoints, modality=modality, **kwargs)
                projected[modality] = self.project(pooled if gather is None else gather(pooled))
            output = projected.pop(None)
            output.modalities = projected or None
            return output
        encoded = self.usdrl(keypoints, **kwargs)
        output = self.project(encoded.pooler_output)
        output.hidden_states, output.attentions = encoded.hidden_states, encoded.attentions
        return output

    def encode_views(self, views: torch.Tensor, **kwargs) -> torch.Tensor:
        """Clip embeddings ``(n, B, 2d)`` of views ``(n, B, T, M, V, C)``, all encoded in one batch."""
        return self.usdrl(views.flatten(0, 1), **kwargs).pooler_output.unflatten(0, views.shape[:2])

    def project(self, pooled: torch.Tensor) -> USDRLForPreTrainingOutput:
        """Project clip embeddings ``(B, 2d)``, or ``(n, B, 2d)`` of views, each view a batch of its own."""
        temporal, spatial = pooled.chunk(2, dim=-1)

        def projected(projector: nn.Module, features: torch.Tensor) -> torch.Tensor:
            return projector(features) if features.ndim == 2 else torch.stack([projector(view) for view in features])

        return USDRLForPreTrainingOutput(
            temporal_projection=projected(self.temporal_projector, temporal),
            spatial_projection=projected(self.spatial_projector, spatial),
            instance_projection=projected(self.instance_projector, pooled),
            pooler_output=pooled,
        )


class USDRLClassificationModel(USDRLPreTrainedModel):
    """Base class of heads with classes: the encoder, a head that can be replaced, and a way to freeze the encoder."""

    def __init__(self, config: USDRLConfig):
        problem = config.problem_type
        if self.granularity != "clip" and problem not in (None, "single_label_classification"):
            raise ValueError(
                f"{type(self).__name__} predicts one class per frame, and problem_type is '{problem}': only "
                "USDRLForActionRecognition has it; leave it out"
            )
        super().__init__(config)
        self.usdrl = USDRLModel(config)
        self.make_head()
        self._encoder_frozen = False
        self.post_init()

    def make_head(self) -> None:
        """Make a head for the configuration's classes: one linear layer."""
        self.classifier = USDRLLinear(self.config.embedding_size, self.config.num_labels, role="classifier")

    @classmethod
    def label_names(cls, classes: int | Sequence[str]) -> list[str]:
        """Names of the logits.

        Args:
            classes: Names of the classes; a head with a background has it as class 0, before them. Or the number of
                logits, which get the names ``LABEL_0`` and so on.
        """
        if isinstance(classes, int):
            return [f"LABEL_{number}" for number in range(classes)]
        return [*[BACKGROUND] * cls.has_background, *classes]

    def reset_classifier(self, classes: int | Sequence[str]) -> None:
        """Replace the head by a new, untrained one for other classes, like timm's method; the encoder is kept.

        The configuration names the new classes, and forgets a `problem_type`.

        Args:
            classes: Names of the classes, or the number of logits; see `label_names`.

        Raises:
            ValueError: If there is no class.

        Example:
            >>> from usdrl_hub import USDRLForActionRecognition
            >>> model = USDRLForActionRecognition.from_pretrained("usdrl/tiny-uiprmd")
            >>> model.reset_classifier(["fall", "no fall"])
            >>> model.classifier.out_features
            2
        """
        names = self.label_names(classes)
        if not names:
            raise ValueError("a head needs at least one class")
        self.config.id2label, self.config.problem_type = dict(enumerate(names)), None
        self.config.min_similarity = None
        self.make_head()
        for name, part in self.named_children():
            if name != self.base_model_prefix:
                part.apply(self._init_weights).to(self.device, self.dtype).train(self.training)

    def freeze_encoder(self) -> None:
        """Train the head only: the encoder gets no gradient and stays in eval mode."""
        self._encoder_frozen = True
        self.usdrl.requires_grad_(False)
        self.usdrl.eval()

    def train(self, mode: bool = True):
        """Switch to training or evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self._encoder_frozen:
            self.usdrl.eval()
        return self


def _cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """Mean cross-entropy of logits ``(N, K)``; over `num_items_in_batch` items where gradients are accumulated."""
    if labels.is_floating_point():
        raise ValueError(
            f"the labels are classes, whole numbers from 0 to {logits.shape[-1] - 1}, but these are of type "
            f"{labels.dtype}: convert them with labels.long()"
        )
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = nn.functional.cross_entropy(logits.float(), labels.to(logits.device, torch.long), reduction=reduction)
    return _over_items(loss, num_items_in_batch)


def _over_items(loss: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor:
    """A mean unchanged, or a sum divided by the items of the whole accumulated batch."""
    if num_items_in_batch is None:
        return loss
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(loss.device)
    return loss / num_items_in_batch


def _frame_output(
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    num_items_in_batch: torch.Tensor | int | None,
    encoded: USDRLModelOutput,
) -> TokenClassifierOutput:
    """The output of a head with logits ``(B, T, K)`` and labels ``(B, T)``."""
    loss = None if labels is None else _cross_entropy(logits.flatten(0, 1), labels.flatten(), num_items_in_batch)
    return TokenClassifierOutput(
        loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
    )


class USDRLClassCenters(nn.Module):
    """Mean embedding of the training clips of each class ``(K, 2d)``; zero for a class without any."""

    mean: torch.Tensor

    def __init__(self, config: USDRLConfig):
        super().__init__()
        # In a module of its own: torchao loads no tensor of the model itself.
        self.register_buffer("mean", torch.zeros(config.num_labels, config.embedding_size))


class USDRLForActionRecognition(USDRLClassificationModel):
    """One class per clip: a linear layer on the pooled embedding.

    A model that was trained on a few classes has to give one of them to any clip. With `min_similarity` in its
    configuration, it also holds the mean embedding of the training clips of each class (`class_centers`); a clip that
    is less similar to that of its most probable class is none of these.

    Or, by the configuration's `problem_type`, numbers per clip such as a quality score (``"regression"``), or several
    classes per clip (``"multi_label_classification"``). Where it is None, floating labels decide at the first loss:
    one logit is a regression, several are classes.

    Example:
        >>> from usdrl_hub import USDRLForActionRecognition
        >>> model = USDRLForActionRecognition.from_pretrained("usdrl/tiny-uiprmd")
        >>> model.config.id2label[0]
        'deep squat'
    """

    task = "recognition"
    auto_class = "AutoModelForVideoClassification"
    pipeline_tag = "video-classification"

    def make_head(self) -> None:
        """Make a linear layer, and room for the mean training clips where the configuration has `min_similarity`."""
        super().make_head()
        known = self.config.min_similarity is not None
        self.class_centers = USDRLClassCenters(self.config) if known else None

    def set_class_centers(self, centers: torch.Tensor | None, min_similarity: float | None) -> None:
        """Say from which similarity on a clip is of a class, or that every clip is.

        Args:
            centers: Mean embedding of the training clips of each class ``(K, 2d)``; None to refuse no clip.
            min_similarity: See `USDRLConfig`; None to refuse no clip.

        Raises:
            ValueError: If the shape differs, classes do not exclude each other, or the number is not in [0, 1].
        """
        if centers is None or min_similarity is None:
            self.config.min_similarity, self.class_centers = None, None
            return
        shape = (self.config.num_labels, self.config.embedding_size)
        if tuple(centers.shape) != shape:
            raise ValueError(f"class centers must have the shape {shape}, got {tuple(centers.shape)}")
        if self.config.problem_type not in (None, "single_label_classification"):
            raise ValueError(f"a problem_type '{self.config.problem_type}' has no classes that exclude each other")
        if not 0 <= min_similarity <= 1:
            raise ValueError(f"min_similarity must be between 0 and 1, got {min_similarity}")
        self.config.min_similarity = float(min_similarity)
        self.class_centers = USDRLClassCenters(self.config)
        self.class_centers.mean = centers.detach().to(self.device, self.dtype)

    def similarity(self, embeddings: torch.Tensor, logits: torch.Tensor) -> torch.Tensor | None:
        """Similarity of embeddings ``(B, 2d)`` to their most probable class; see `USDRLRecognitionOutput`.

        It is 1 for a class without a mean training clip.
        """
        if self.class_centers is None:
            return None
        centers = self.class_centers.mean[logits.argmax(-1)].float()
        found = nn.functional.cosine_similarity(embeddings.float(), centers, dim=-1)
        return torch.where((centers != 0).any(-1), found, 1.0)

    @can_return_tuple
    def forward(
        self,
        keypoints: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> USDRLRecognitionOutput:
        """Score clips.

        Args:
            keypoints: ``(B, T, M, V, C)``; see `USDRLModel.forward`.
            labels: Class of each clip ``(B,)``, -100 is left out of the loss; targets ``(B, K)`` of a regression, or
                ``(B,)`` of one; 0 or 1 for each class ``(B, K)`` of a multi-label problem.
            num_items_in_batch: Labels in the whole accumulated batch, by which the summed loss is divided.
            **kwargs: Passed to `USDRLModel.forward`.

        Returns:
            `logits` ``(B, K)``, `similarity` ``(B,)`` where the model can refuse clips, `loss` where labels are given
            (cross-entropy, squared error, or binary cross-entropy), hidden states and attentions where asked for.

        Raises:
            ValueError: If labels are of another type or shape than the problem needs.
        """
        encoded = self.usdrl(keypoints, **kwargs)
        logits = self.classifier(encoded.pooler_output)
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return USDRLRecognitionOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            similarity=self.similarity(encoded.pooler_output, logits),
        )

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        problem = self.config.problem_type or "single_label_classification"
        if self.config.problem_type is None and labels.is_floating_point():
            problem = "regression" if logits.shape[1] == 1 else "multi_label_classification"
        if problem == "single_label_classification":
            return _cross_entropy(logits, labels.flatten(), num_items_in_batch)
        wanted = logits.shape if problem != "regression" or logits.shape[1] > 1 else (len(logits),)
        if labels.shape not in (wanted, logits.shape):
            raise ValueError(
                f"problem_type '{problem}' with {logits.shape[1]} logits needs labels of the shape "
                f"{tuple(wanted)}, got {tuple(labels.shape)}"
            )
        # Saved with the model, which would be loaded as a classifier otherwise.
        self.config.problem_type = problem
        measure = nn.functional.mse_loss
        if problem == "multi_label_classification":
            measure = nn.functional.binary_cross_entropy_with_logits
        reduction = "mean" if num_items_in_batch is None else "sum"
        values = labels.to(logits.device, torch.float32).view_as(logits)
        return _over_items(measure(logits.float(), values, reduction=reduction), num_items_in_batch)


class USDRLForActionDetection(USDRLClassificationModel):
    """One class per frame, class 0 the background: a linear layer on the dense embedding."""

    task = "detection"
    granularity = "frame"
    auto_class = "AutoModelForTokenClassification"
    has_background = True

    @can_return_tuple
    def forward(
        self,
        keypoints: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """Score every frame of clips.

        Args:
            keypoints: ``(B, T, M, V, C)``; see `USDRLModel.forward`.
            labels: Class of each frame ``(B, T)``, 0 the background; -100 is left out of the loss.
            num_items_in_batch: Frames in the whole accumulated batch, by which the summed loss is divided.
            **kwargs: Passed to `USDRLModel.forward`.

        Returns:
            `logits` ``(B, T, K)``, `loss` where labels are given, hidden states and attentions where asked for.
        """
        encoded = self.usdrl(keypoints, **kwargs)
        logits = self.classifier(encoded.last_hidden_state)
        output = _frame_output(logits, labels, num_items_in_batch, encoded)
        if not torch.compiler.is_compiling():
            # An attribute for `post_process_action_detection`, not an entry of the output.
            output.shift_gap = self.config.shift_gap if self.config.encoder == "dste" else 1  # type: ignore
        return output


class USDRLForEarlyActionPrediction(USDRLClassificationModel):
    """One class after every frame of an unfinished clip: a linear layer on the running maximum of the frames.

    The encoder is causal: later frames change nothing. Frames are left-aligned, not resized: frame t of the recording
    is frame t of the clip, and frames after a recording's end are ignored.
    """

    task = "early prediction"
    granularity = "frame"
    auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: USDRLConfig):
        if not config.is_causal:
            raise ValueError("early prediction needs a causal encoder: give is_causal=True")
        super().__init__(config)

    @can_return_tuple
    def forward(
        self,
        keypoints: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        maximum: torch.Tensor | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """Score clips after every frame.

        Args:
            keypoints: ``(B, T, M, V, C)``; see `USDRLModel.forward`.
            labels: Class after each frame ``(B, T)``; -100, as after a recording's end, is left out of the loss.
            num_items_in_batch: Frames in the whole accumulated batch, by which the summed loss is divided.
            maximum: Running maximum ``(B, d)`` of the frames before this clip, for recordings longer than a clip.
            **kwargs: Passed to `USDRLModel.forward`.

        Returns:
            `logits` ``(B, T, K)``, `loss` where labels are given, hidden states and attentions where asked for.
        """
        encoded = self.usdrl(keypoints, **kwargs)
        logits = self.classifier(self.running_maximum(encoded.temporal_hidden_state, maximum))
        return _frame_output(logits, labels, num_items_in_batch, encoded)

    @staticmethod
    def running_maximum(frames: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
        """Maximum ``(B, T, d)`` of the frames up to each one, and of the frames before the clip."""
        highest, _ = frames.cummax(dim=1)
        return highest if before is None else torch.maximum(highest, before[:, None])


class USDRLDilatedLayer(nn.Module):
    """A residual layer of dilated temporal convolution."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.dilated = nn.Conv1d(channels, channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv1d(channels, channels, kernel_size=1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (frames + self.dropout(self.pointwise(self.dilated(frames).relu()))) * mask


class USDRLSegmentationStage(nn.Module):
    """A stage of MS-TCN: dilated layers between two pointwise convolutions."""

    def __init__(self, config: USDRLConfig, input_size: int):
        super().__init__()
        channels = config.segmentation_channels
        self.input = nn.Conv1d(input_size, channels, kernel_size=1)
        self.layers = nn.ModuleList(USDRLDilatedLayer(channels, 2**n) for n in range(config.segmentation_layers))
        self.output = nn.Conv1d(channels, config.num_labels, kernel_size=1)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.input(frames) * mask
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return self.output(hidden) * mask


class USDRLForActionSegmentation(USDRLClassificationModel):
    """One class per frame of whole videos: encoded windows are averaged, and refined by temporal convolutions.

    The head is MS-TCN (Abu Farha and Gall, 2019): each stage refines the classes of the one before.
    """

    task = "segmentation"
    granularity = "video"
    auto_class = "AutoModelForTokenClassification"
    has_background = True
    loss_is_cross_entropy = False
    # The loss is a mean over each batch: the Trainer has to divide it where it accumulates gradients of several.
    accepts_loss_kwargs = False

    def make_head(self) -> None:
        """Make the stages for the configuration's classes."""
        config = self.config
        sizes = [config.embedding_size] + [config.num_labels] * (config.segmentation_stages - 1)
        self.stages = nn.ModuleList(USDRLSegmentationStage(config, size) for size in sizes)

    def blend(self, features: torch.Tensor, window_starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Average the features of overlapping windows.

        Args:
            features: Frame embeddings of windows ``(B, W, T, D)``.
            window_starts: First frame of each window ``(B, W)``; -1 for padding.

        Returns:
            Frame embeddings of videos ``(B, L, D)``, and which frames a window covers ``(B, L)``.
        """
        batch, _, frames, width = features.shape
        real = (window_starts >= 0)[..., None].expand(-1, -1, frames)
        index = (window_starts[..., None] + torch.arange(frames, device=features.device)).clamp(min=0)
        index, weight = index.flatten(1), real.flatten(1).to(features.dtype)
        length = index.max().item() + 1
        total = features.new_zeros(batch, length, width)
        weighted = features.flatten(1, 2) * weight[..., None]
        total.scatter_add_(1, index[..., None].expand(-1, -1, width), weighted)
        count = features.new_zeros(batch, length).scatter_add_(1, index, weight)
        return total / count.clamp(min=1)[..., None], count > 0

    @can_return_tuple
    def forward(
        self,
        keypoints: torch.Tensor,
        window_starts: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """Score every frame of videos.

        Args:
            keypoints: Windows ``(B, W, T, M, V, C)`` of each video.
            window_starts: First frame of each window ``(B, W)``; -1 for padding.
            labels: Class of each frame ``(B, L)``, 0 the background; -100 is left out of the loss.
            num_items_in_batch: Ignored: the loss is a mean over the frames of a batch.
            **kwargs: Passed to `USDRLModel.forward`.

        Returns:
            `logits` ``(B, L, K)`` of the last stage, L the end of the last window; `loss`, summed over stages, where
            labels are given: cross-entropy plus 0.15 times the truncated mean squared change of the log-probabilities
            from frame to frame.
        """
        if labels is not None and labels.is_floating_point():
            raise ValueError(f"the labels are classes, whole numbers, but these are of type {labels.dtype}")
        windows = self.usdrl(keypoints.flatten(0, 1), **kwargs).last_hidden_state
        frames, covered = self.blend(windows.unflatten(0, keypoints.shape[:2]), window_starts)
        mask = covered[:, None].to(frames.dtype)
        hidden, stages = frames.transpose(1, 2), []
        for stage in self.stages:
            logits = stage(hidden, mask)
            stages.append(logits)
            hidden = logits.softmax(dim=1) * mask
        loss = None
        if labels is not None:
            loss = sum(self.stage_loss(logits.float(), labels.to(logits.device), mask) for logits in stages)
        return TokenClassifierOutput(loss=loss, logits=stages[-1].transpose(1, 2))

    @staticmethod
    def stage_loss(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Loss of one stage: logits ``(B, K, L)``, labels ``(B, L)``, mask ``(B, 1, L)``."""
        entropy = nn.functional.cross_entropy(logits, labels.long())
        change = logits[..., 1:].log_softmax(dim=1) - logits[..., :-1].detach().log_softmax(dim=1)
        # Changes above 4 are boundaries, which may be sharp.
        smooth = (change.square().clamp(max=16) * mask[..., 1:]).mean()
        return entropy + 0.15 * smooth


# The classes that a checkpoint may be saved from, by name. A new head is entered here only.
HEADS: dict[str, type[USDRLPreTrainedModel]] = {
    head.__name__: head
    for head in (
        USDRLForActionDetection,
        USDRLForActionRecognition,
        USDRLForActionSegmentation,
        USDRLForEarlyActionPrediction,
        USDRLForPreTraining,
        USDRLModel,
    )
}

__all__ = [
    "USDRLForActionDetection",
    "USDRLForActionRecognition",
    "USDRLForActionSegmentation",
    "USDRLForEarlyActionPrediction",
    "USDRLForPreTraining",
    "USDRLModel",
    "USDRLPreTrainedModel",
]
