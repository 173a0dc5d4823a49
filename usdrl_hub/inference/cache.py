"""Key-value cache of a causal encoder: a new frame costs one token, and nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention

from ..modeling_usdrl import (
    USDRLAttention,
    USDRLDenseLayer,
    USDRLDenseShiftAttention,
    USDRLModel,
    USDRLTransformerLayer,
)


@dataclass
class _LayerCache:
    """Cached tensors ``(slots, T, d)`` of a layer, by name, and the positions of the new tokens.

    Attributes:
        states: Keys and values of each attention, and the tokens before each product along the sequence.
        shape: ``(slots, T)``.
        slots: Slot of each person ``(P,)``.
        position: Position in the clip of each new token ``(P, n)``.
    """

    states: dict[str, torch.Tensor]
    shape: tuple[int, int]
    slots: torch.Tensor
    position: torch.Tensor

    def update(self, name: str, tokens: torch.Tensor) -> torch.Tensor:
        """Add new tokens ``(P, n, d)``, and return all tokens up to the last one ``(P, S, d)``."""
        kept = self.states.get(name)
        if kept is None or len(kept) < self.shape[0]:
            grown = tokens.new_zeros(*self.shape, tokens.shape[-1])
            if kept is not None:
                grown[: len(kept)] = kept
            kept = self.states[name] = grown
        kept[self.slots[:, None], self.position] = tokens
        return kept[self.slots, : int(self.position.max()) + 1]

    def attention(self, attention: USDRLAttention, name: str) -> Callable:
        """`attention` of new tokens to all cached ones, with the signature that the layers expect."""
        return partial(self._attend, attention, name)

    def _attend(
        self, attention: USDRLAttention, name: str, tokens: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, None]:
        query, key, value = attention.in_proj(tokens).chunk(3, dim=-1)
        keys, values = self.update(f"{name} keys", key), self.update(f"{name} values", value)
        q, k, v = (t.unflatten(-1, (-1, attention.head_size)).transpose(1, 2) for t in (query, keys, values))
        seen = torch.arange(keys.shape[1], device=tokens.device) <= self.position[:, None, :, None]
        context = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=attention.scaling)
        return attention.out_proj(context.transpose(1, 2).flatten(2)), None

    def shift(self, shift: USDRLDenseShiftAttention, tokens: torch.Tensor) -> torch.Tensor:
        """`USDRLDenseShiftAttention.shift` of new tokens among all cached ones."""
        shift.refuse_others()
        mixed = tokens
        for number, mix in enumerate((shift.mix1, shift.mix2)):
            kept = self.update(f"mix {number}", mixed)
            # Tokens of an earlier clip at later positions get zero weight.
            weight = mix.weight.tril()[self.position][..., : kept.shape[1]]
            mixed = weight @ kept + mix.bias[self.position][..., None]
            mixed = mixed.relu() if number == 0 else mixed
        return torch.where((self.position % shift.shift_gap == 0)[..., None], tokens, mixed + tokens)


def _dense_layer(layer: USDRLDenseLayer, tokens: torch.Tensor, cache: _LayerCache) -> torch.Tensor:
    shift, of = layer.dense_shift, partial(cache.attention, layer.attention)
    convolved, _ = layer.convolutional(tokens, of("convolutional"), False)
    shifted, _ = shift.branch(cache.shift(shift, tokens), of("shifted"), False)
    plain, _ = shift.branch(tokens, of("plain"), False)
    return layer.alpha * convolved + (1 - layer.alpha) * (shifted + plain) / 2


def _transformer_layer(layer: USDRLTransformerLayer, tokens: torch.Tensor, cache: _LayerCache) -> torch.Tensor:
    attended, _ = cache.attention(layer.attention, "plain")(tokens)
    tokens = layer.norm1(tokens + attended)
    return layer.norm2(tokens + layer.fc2(layer.fc1(tokens).relu()))


class CausalCache:
    """Keys, values and mixed tokens of earlier frames, for people in numbered slots."""

    def __init__(self, encoder: USDRLModel):
        """Make an empty cache.

        Args:
            encoder: A causal encoder, not fused.
        """
        self.encoder = encoder
        self.states: list[dict[str, torch.Tensor]] = [{} for _ in encoder.temporal.layers]
        self.maximum = torch.full((0, encoder.config.hidden_size), -torch.inf, device=encoder.device)

    def __call__(
        self, frames: torch.Tensor, slots: torch.Tensor, start: torch.Tensor, fresh: torch.Tensor
    ) -> torch.Tensor:
        """Encode new frames, and return the maximum over all frames so far.

        Args:
            frames: Normalised frames ``(P, n + 1, M, V, C)``: the frame before the new ones, and the new ones.
            slots: Slot of each person ``(P,)``.
            start: Position of the first new frame in the clip ``(P,)``.
            fresh: Whether the person is new ``(P,)``.

        Returns:
            ``(P, d)``.
        """
        encoder, stream = self.encoder, self.encoder.temporal
        # The motion of a clip's first frame is zero.
        first = torch.where((start == 0)[:, None, None, None], frames[:, 1], frames[:, 0])
        tokens, _ = encoder.tokens(torch.cat([first[:, None], frames[:, 1:]], dim=1), None)
        position = start[:, None] + torch.arange(frames.shape[1] - 1, device=frames.device)
        hidden = stream.embed({name: values[:, 1:].to(encoder.dtype) for name, values in tokens.items()})
        self._grow(int(slots.max()) + 1)
        for number, (layer, states) in enumerate(zip(stream.layers, self.states, strict=True)):
            if number == 0 or stream.position_every_layer:
                hidden = hidden + stream.position()[0][position]
            cache = _LayerCache(states, (len(self.maximum), encoder.config.num_frames), slots, position)
            step: Callable = _dense_layer if isinstance(layer, USDRLDenseLayer) else _transformer_layer
            hidden = step(layer, hidden, cache)
        before = torch.where(fresh[:, None], -torch.inf, self.maximum[slots])
        self.maximum[slots] = torch.maximum(before, hidden.float().amax(dim=1))
        return self.maximum[slots].to(hidden.dtype)

    def _grow(self, count: int) -> None:
        missing = count - len(self.maximum)
        if missing > 0:
            more = torch.full((missing, self.maximum.shape[1]), -torch.inf, device=self.maximum.device)
            self.maximum = torch.cat([self.maximum, more])
