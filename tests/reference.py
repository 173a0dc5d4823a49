"""A plain reference implementation of the model on an original state dict.

It follows the release's description with torch.nn.MultiheadAttention and shares no code with the package.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def _norm(state, key, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"])


def _linear(state, key, x):
    return F.linear(x, state[f"{key}.weight"], state[f"{key}.bias"])


def _attention(state, key, x, heads):
    module = nn.MultiheadAttention(x.shape[-1], heads, batch_first=True).eval()
    module.load_state_dict(
        {
            name: state[f"{key}.{name}"]
            for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        }
    )
    return module(x, x, x)[0]


def _mlp(state, key, x):
    return _linear(state, f"{key}.fc2", F.gelu(_linear(state, f"{key}.fc1", x)))


def dste_layer(state, key, x, heads, alpha, gap):
    conv = F.conv1d(x.transpose(1, 2), state[f"{key}.CA.conv1.weight"], state[f"{key}.CA.conv1.bias"]).transpose(1, 2)
    y = _attention(state, f"{key}.CA.attn", _norm(state, f"{key}.CA.norm1", x + F.relu(conv)), heads) + x
    convolved = _mlp(state, f"{key}.CA.mlp", _norm(state, f"{key}.CA.norm2", y))

    mixed = _linear(state, f"{key}.DSA.wt2", F.relu(_linear(state, f"{key}.DSA.wt1", x.transpose(1, 2))))
    h = mixed.transpose(1, 2) + x
    h[:, ::gap] = x[:, ::gap]
    branches = []
    for start in (h, x):
        a = _attention(state, f"{key}.DSA.attn", _norm(state, f"{key}.DSA.norm1", start), heads) + start
        branches.append(a + _mlp(state, f"{key}.DSA.mlp", _norm(state, f"{key}.DSA.norm2", a)))
    return alpha * convolved + (1 - alpha) * (branches[0] + branches[1]) / 2


def sttr_layer(state, key, x, heads):
    x = _norm(state, f"{key}.norm1", x + _attention(state, f"{key}.self_attn", x, heads))
    return _norm(
        state, f"{key}.norm2", x + _linear(state, f"{key}.linear2", F.relu(_linear(state, f"{key}.linear1", x)))
    )


def sinusoid(tokens, width):
    table = torch.zeros(tokens, width)
    for place in range(tokens):
        for pair in range(0, width, 2):
            angle = place / 10000 ** (pair / width)
            table[place, pair], table[place, pair + 1] = math.sin(angle), math.cos(angle)
    return table


def encode(state, clips, heads=1, alpha=0.5, gap=4):
    """Temporal and spatial tokens of joint clips (B, T, M, V, C) by an original state dict without 'module.'."""
    state = {key.removeprefix("backbone."): value for key, value in state.items()}
    batch, frames, persons, joints, channels = clips.shape
    tokens = {
        "t": clips.reshape(batch, frames, -1),
        "s": clips.permute(0, 2, 3, 1, 4).reshape(batch, persons * joints, frames * channels),
    }
    outputs = []
    for letter, x in tokens.items():
        key = f"ske_emb.{letter}_embedding"
        x = _linear(state, f"{key}.3", F.relu(_norm(state, f"{key}.1", _linear(state, f"{key}.0", x))))
        position = sinusoid(frames, x.shape[-1]) if letter == "t" else state["spe"]
        if f"{letter}_tr.CA.conv1.weight" in state:
            layer = 0
            while f"{letter}_tr{layer or ''}.CA.conv1.weight" in state:
                x = dste_layer(state, f"{letter}_tr{layer or ''}", x + position, heads, alpha, gap)
                layer += 1
        else:
            x, layer = x + position, 0
            while f"{letter}_tr.layers.{layer}.norm1.weight" in state:
                x = sttr_layer(state, f"{letter}_tr.layers.{layer}", x, heads)
                layer += 1
        outputs.append(x)
    return outputs
