"""Layers that compute the same in training, faster: attention with merged weights, and mixing without transposition.

Single-head attention: the score of query i and key j is (Wq x_i + bq) . (Wk x_j + bk) / sqrt(d). Terms without j
cancel in the softmax, which leaves (A x_i + a) . x_j with A = Wk^T Wq / sqrt(d) and a = Wk^T bq / sqrt(d). The
attention weights of a query sum to 1, so the output is the weighted sum of Wo Wv x_j + (Wo bv + bo). A token needs two
products with d x d matrices instead of four. Axes: B clips, S tokens of a stream, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..modeling_usdrl import (
    USDRLAttention,
    USDRLConvolutionalAttention,
    USDRLDenseLayer,
    USDRLDenseShiftAttention,
    USDRLTransformerLayer,
    eager_attention_forward,
)

# Fused attention kernels of GPUs support heads up to this size; eager attention is faster for wider ones.
_WIDEST_HEAD = 256


def merged_weights(
    in_proj: nn.Linear, out_proj: nn.Linear, scaling: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight ``(2d, d)`` and bias ``(2d,)`` that map tokens to the merged queries and values of a single head.

    Args:
        in_proj: Projection to query, key and value, d to 3d.
        out_proj: Output projection, d to d.
        scaling: Factor of the scores.
        dtype: Type of the computation and the result.
    """
    query, key, value = in_proj.weight.to(dtype).chunk(3)
    query_bias, _, value_bias = in_proj.bias.to(dtype).chunk(3)
    keys, out = key.T * scaling, out_proj.weight.to(dtype)
    weight = torch.cat([keys @ query, out @ value])
    return weight, torch.cat([keys @ query_bias, out @ value_bias + out_proj.bias.to(dtype)])


class MergedAttention(USDRLAttention):
    """Single-head attention that merges its weights at each training call; otherwise as `USDRLAttention`."""

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # With fewer tokens in the batch than hidden_size, merging costs more than it saves.
        is_small = hidden_states[..., 0].numel() <= self.head_size
        if not self.training or output_attentions or is_small:
            return super().forward(hidden_states, output_attentions)
        weight = self.in_proj.weight
        with torch.autocast(weight.device.type, enabled=False):
            wide = torch.promote_types(weight.dtype, torch.float32)
            merged = merged_weights(self.in_proj, self.out_proj, self.scaling, wide)
        projected = nn.functional.linear(hidden_states, *(part.to(weight.dtype) for part in merged))
        query, value = projected[:, None].chunk(2, dim=-1)
        attend: Callable = eager_attention_forward
        implementation = self.config._attn_implementation
        # On a CPU, torch's fused attention takes two to five times as long in bfloat16, and as long in float32.
        has_fused = query.device.type != "cpu" and not (query.is_cuda and self.head_size > _WIDEST_HEAD)
        if implementation != "sdpa" or has_fused:
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        # Autocast gives the projections another type than the tokens.
        keys = hidden_states[:, None].to(query.dtype)
        context, _ = attend(self, query, keys, value, None, scaling=1.0, is_causal=self.is_causal)
        return context.squeeze(2), None


class PointwiseConvolution(nn.Conv1d):
    """A convolution of kernel size 1, as a product of matrices: several times faster on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input.transpose(1, 2), self.weight.squeeze(-1), self.bias).transpose(1, 2)


class TokenMixing(nn.Linear):
    """A linear map along the last axis of transposed tokens, which are multiplied as they lie in memory."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        tokens = input.transpose(1, 2)
        return torch.baddbmm(self.bias[:, None], self.weight.expand(len(tokens), -1, -1), tokens).transpose(1, 2)


class StackedDenseLayer(USDRLDenseLayer):
    """A layer of DSTE whose three attentions are one call in training, with weights that are merged once."""

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not self.training or output_attentions:
            return super().forward(hidden_states, output_attentions)
        conv, dense = self.convolutional, self.dense_shift
        mixed = hidden_states + conv.conv(hidden_states.transpose(1, 2)).relu().transpose(1, 2)
        shifted = dense.shift(hidden_states)
        tokens = torch.cat([conv.norm1(mixed), dense.norm1(shifted), dense.norm1(hidden_states)])
        for_mixed, *for_branches = self.attention(tokens)[0].chunk(3)
        convolved = conv.drop_path(conv.mlp(conv.norm2(conv.drop_path(for_mixed) + hidden_states)))
        branches = []
        for attended, residual in zip(for_branches, (shifted, hidden_states), strict=True):
            residual = dense.drop_path(attended) + residual
            branches.append(residual + dense.drop_path(dense.mlp(dense.norm2(residual))))
        return self.alpha * convolved + (1 - self.alpha) * (sum(branches) / 2), None


# Layers of torch that a model is made of.
_PLAIN = (nn.Conv1d, nn.GELU, nn.LayerNorm, nn.Linear)
# Faster layers by the classes of the module that holds a layer, and of the layer.
_FASTER: dict[tuple[type, type], type[nn.Module]] = {
    (nn.ModuleList, USDRLDenseLayer): StackedDenseLayer,
    (USDRLDenseLayer, USDRLAttention): MergedAttention,
    (USDRLTransformerLayer, USDRLAttention): MergedAttention,
    (USDRLConvolutionalAttention, nn.Conv1d): PointwiseConvolution,
    (USDRLDenseShiftAttention, nn.Linear): TokenMixing,
}


@contextmanager
def training_layers(model: nn.Module) -> Iterator[None]:
    """Swap layers of a model for those that compute the same faster in training, within the block.

    Weights, names and gradients stay the same. Modules with adapters, parametrisations or hooks are not swapped.
    """
    swapped = []
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            faster = _FASTER.get((type(parent), type(layer)))
            if faster is not None and _can_be_swapped(layer):
                new = faster.__new__(faster)
                # What is set in one is set in the other.
                new.__dict__ = layer.__dict__
                setattr(parent, name, new)
                swapped.append((parent, name, layer))
    try:
        yield
    finally:
        for parent, name, layer in swapped:
            setattr(parent, name, layer)


def _can_be_swapped(layer: nn.Module) -> bool:
    """Whether all in a layer is as this package made it, without adapters, quantised weights or hooks."""
    if isinstance(layer, USDRLAttention) and layer.head_size != layer.config.hidden_size:
        return False
    inner = list(layer.modules())[1:]
    own = all(type(part) in _PLAIN or type(part).__module__ == USDRLAttention.__module__ for part in inner)
    return (
        own and not any(map(is_hooked, inner)) and all(type(weight) is nn.Parameter for weight in layer.parameters())
    )


def is_hooked(module: nn.Module) -> bool:
    """Whether a call of the module runs hooks or a patched `forward`."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" in vars(module) or any(hooks)
