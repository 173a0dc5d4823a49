"""`fuse(model)`: the same outputs with two thirds of the operations, for inference only.

All steps are exact algebra; weights are merged in float64. With one head, a DSTE layer takes 34 d^2 floating-point
operations per token instead of 50 d^2, an STTR layer 8 d^2 instead of 12 d^2, not counting scores and token mixing.
In a half-precision model only matrix products run in half precision; norms and residual sums run in float32 and are
rounded once at the end: clips differ little relative to the magnitude of their tokens, so rounding sums would cost
more accuracy than rounding products. Axes: B clips, S tokens of a stream, d hidden size.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from ..modeling_usdrl import (
    USDRLAttention,
    USDRLDenseLayer,
    USDRLDenseShiftAttention,
    USDRLEmbedding,
    USDRLPreTrainedModel,
    USDRLTokenStream,
    USDRLTransformerLayer,
    is_ordinary,
)
from .merged import is_hooked, merged_weights

Model = TypeVar("Model", bound=USDRLPreTrainedModel)

# A CPU encodes a batch in parts so that activations stay in the cache: numbers per thread in a tensor ``(B, S, d)``.
_PART = 2**18


def _double(tensor: torch.Tensor) -> torch.Tensor:
    # Apple's GPUs have no float64.
    return tensor.detach().to("cpu" if tensor.device.type == "mps" else tensor.device).double()


def _double_linear(linear: nn.Linear) -> nn.Linear:
    copied = nn.Linear(linear.in_features, linear.out_features, device="meta")
    copied.weight = nn.Parameter(_double(linear.weight), requires_grad=False)
    copied.bias = nn.Parameter(_double(linear.bias), requires_grad=False)
    return copied


def _constant(tensor: torch.Tensor, like: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().to(like.device, like.dtype, copy=True), requires_grad=False)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32 or wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _each(function: Callable[[torch.Tensor], torch.Tensor], inputs: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Apply a function to several batches in one concatenated call, or one by one under torch.compile."""
    if torch.compiler.is_compiling():
        return [function(tokens) for tokens in inputs]
    return function(torch.cat(inputs)).chunk(len(inputs))


class FusedNorm(nn.LayerNorm):
    """Layer normalisation of tokens with a wider type than its weights."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.to(tokens.dtype), self.bias.to(tokens.dtype)
        return F.layer_norm(tokens, self.normalized_shape, weight, bias, self.eps)


def _norms(*norms: nn.LayerNorm) -> nn.ModuleList:
    fused = nn.ModuleList(FusedNorm(norm.normalized_shape, norm.eps, device="meta") for norm in norms)
    for new, norm in zip(fused, norms, strict=True):
        new.load_state_dict(norm.state_dict(), assign=True)
    return copy.deepcopy(fused).requires_grad_(False)


def _has_kernel(weight: torch.Tensor) -> bool:
    """Whether oneDNN has kernels for packed weights of this type on this machine."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    kernels = torch.ops.mkldnn
    return (
        weight.dtype == torch.float32
        or (weight.dtype == torch.bfloat16 and kernels._is_mkldnn_bf16_supported())
        or (weight.dtype == torch.float16 and kernels._is_mkldnn_fp16_supported())
    )


class FusedLinear(nn.Module):
    """A linear layer followed by an activation or a sum, with packed weights where there are kernels for them.

    Packed weights are in the memory layout of oneDNN's kernels, to which `F.linear` converts them at every call.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, like: torch.Tensor, activation: str = "none"):
        super().__init__()
        self.activation = activation
        self.bias = None if bias is None else _constant(bias, like)
        self.weight: nn.Parameter | None = nn.Parameter(weight.detach().to(like), requires_grad=False)
        self.packed: torch.Tensor | None = None
        self.is_packable = True
        self.pack()
        # Packed weights are a copy already.
        if self.weight is not None:
            self.weight = _constant(self.weight, like)

    def pack(self) -> None:
        if self.is_packable and self.weight is not None and _has_kernel(self.weight):
            self.packed, self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach()), None

    def unpack(self) -> None:
        if self.packed is not None:
            self.weight, self.packed = nn.Parameter(self.packed.to_dense(), requires_grad=False), None

    def _apply(self, fn, recurse=True):
        # Packed weights cannot be cast, moved or copied.
        self.unpack()
        super()._apply(fn, recurse)
        self.pack()
        return self

    def __getstate__(self):
        self.unpack()
        state = self.__dict__ | {"_parameters": dict(self._parameters)}
        self.pack()
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        self.pack()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of the computation."""
        weight = self.weight if self.packed is None else self.packed
        return weight.dtype  # type: ignore[union-attr]

    def forward(self, inputs: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        inputs = inputs.to(self.dtype)
        if self.packed is None:
            outputs = F.linear(inputs, self.weight, self.bias)
            if self.activation != "none":
                outputs = F.gelu(outputs) if self.activation == "gelu" else F.relu(outputs)
            return outputs if added is None else outputs + added
        if torch.compiler.is_compiling():
            raise RuntimeError(
                "packed weights cannot be compiled or exported: make the model with fuse(model, packed=False)"
            )
        linear = torch.ops.mkldnn._linear_pointwise
        if added is not None and added.dtype == self.dtype:
            return linear(inputs, added, self.packed, self.bias, "add")
        outputs = linear(inputs, self.packed, self.bias, self.activation, [], "none")
        return outputs if added is None else outputs + added


class FusedAttention(nn.Module):
    """Attention; a single head has merged weights (see `merged`). h heads would need 2 h products instead of 4."""

    def __init__(self, attention: USDRLAttention):
        super().__init__()
        self.head_size, self.is_causal = attention.head_size, attention.is_causal
        inputs, output, like = attention.in_proj, attention.out_proj, attention.in_proj.weight
        self.is_merged = self.head_size == inputs.in_features
        if self.is_merged:
            doubles = (_double_linear(inputs), _double_linear(output))
            weight, bias = merged_weights(*doubles, attention.scaling, torch.float64)
            self.inputs = FusedLinear(weight, bias, like)
        else:
            self.inputs = FusedLinear(inputs.weight, inputs.bias, like)
            self.output = FusedLinear(output.weight, output.bias, like)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.to(self.inputs.dtype)
        projected = self.inputs(tokens)
        if self.is_merged:
            query, value = projected[:, None].chunk(2, dim=-1)
            attend = F.scaled_dot_product_attention
            return attend(query, tokens[:, None], value, is_causal=self.is_causal, scale=1.0).squeeze(1)
        heads = projected.unflatten(-1, (3, -1, self.head_size)).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(*heads.unbind(0), is_causal=self.is_causal)
        return self.output(context.transpose(1, 2).flatten(2))


class FusedTokenMixing(nn.Module):
    """Dense shift: all tokens but every `shift_gap`-th are mixed with all others."""

    def __init__(self, shift: USDRLDenseShiftAttention):
        super().__init__()
        like, biases = shift.mix1.weight, [shift.mix1.bias[:, None], shift.mix2.bias[:, None]]
        # Zero weights and biases leave the other tokens unchanged.
        is_mixed = torch.arange(len(like), device=like.device)[:, None] % shift.shift_gap != 0
        weights = [mix.weight.tril() if shift.is_causal else mix.weight for mix in (shift.mix1, shift.mix2)]
        self.weight1, self.weight2 = _constant(weights[0], like), _constant(weights[1] * is_mixed, like)
        self.bias1, self.bias2 = _constant(biases[0], like), _constant(biases[1] * is_mixed, like)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # Weights on the left avoid transposing tokens. baddbmm would first write the bias to the whole output.
        weight1, weight2 = (weight.expand(tokens.shape[0], -1, -1) for weight in (self.weight1, self.weight2))
        hidden = torch.bmm(weight1, tokens.to(weight1.dtype)).add_(self.bias1).relu_()
        return _wide(torch.bmm(weight2, hidden).add_(self.bias2)).add_(tokens)


class FusedDenseLayer(nn.Module):
    """A DSTE layer that calls the attention shared by its branches once.

    Its output is alpha fc2(g) + (1 - alpha) (a + fc2'(g_a) + b + fc2'(g_b)) / 2; fc2' is linear, so one product with
    g_a + g_b is enough. Scales are merged into the weights, biases into one bias per token.
    """

    def __init__(self, layer: USDRLDenseLayer, position: torch.Tensor):
        """Fuse a layer.

        Args:
            layer: The layer.
            position: Position embedding ``(S, d)`` of the next layer, added to the output.
        """
        super().__init__()
        convolutional, shift, like = layer.convolutional, layer.dense_shift, layer.convolutional.conv.weight
        self.share = (1 - layer.alpha) / 2
        self.convolution = FusedLinear(like.squeeze(-1), convolutional.conv.bias, like, "relu")
        self.mixing = FusedTokenMixing(shift)
        self.norms = _norms(convolutional.norm1, shift.norm1, convolutional.norm2, shift.norm2)
        self.attention = FusedAttention(layer.attention)
        mlps, scales = (convolutional.mlp, shift.mlp), (layer.alpha, self.share)
        self.hidden = nn.ModuleList(FusedLinear(mlp.fc1.weight, mlp.fc1.bias, like, "gelu") for mlp in mlps)
        self.output = nn.ModuleList(
            FusedLinear(scale * mlp.fc2.weight, None, like) for scale, mlp in zip(scales, mlps, strict=True)
        )
        bias, shift_bias = (_double(mlp.fc2.bias) for mlp in mlps)
        self.added = _constant(layer.alpha * bias + 2 * self.share * shift_bias + position, like)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        norm1, shift_norm1, norm2, shift_norm2 = self.norms
        convolved, shifted = _wide(self.convolution(tokens)).add_(tokens), self.mixing(tokens)
        normed = [norm1(convolved), shift_norm1(shifted), shift_norm1(tokens)]
        attended = _each(self.attention, normed)
        convolved, shifted, plain = (
            part + residual for part, residual in zip(attended, (tokens, shifted, tokens), strict=True)
        )
        output = torch.add(self.added, shifted + plain, alpha=self.share)
        output = self.output[0](self.hidden[0](norm2(convolved)), output)
        hidden = _each(lambda tokens: self.hidden[1](shift_norm2(tokens)), [shifted, plain])
        return self.output[1](hidden[0] + hidden[1], output)


class FusedTransformerLayer(nn.Module):
    """An STTR layer: only its attention can be merged."""

    def __init__(self, layer: USDRLTransformerLayer):
        super().__init__()
        like = layer.fc1.weight
        self.attention = FusedAttention(layer.attention)
        self.norms = _norms(layer.norm1, layer.norm2)
        self.hidden = FusedLinear(layer.fc1.weight, layer.fc1.bias, like, "relu")
        self.output = FusedLinear(layer.fc2.weight, layer.fc2.bias, like)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        norm1, norm2 = self.norms
        tokens = norm1(_wide(self.attention(tokens)).add_(tokens))
        return norm2(self.output(self.hidden(tokens), tokens))


class FusedEmbedding(nn.Module):
    """The embedding of one modality without its last bias, added to those of the other modalities."""

    def __init__(self, embedding: USDRLEmbedding, weight: torch.Tensor):
        super().__init__()
        like = embedding.fc1.weight
        self.inputs = FusedLinear(embedding.fc1.weight, embedding.fc1.bias, like)
        self.norms = _norms(embedding.norm)
        self.output = FusedLinear(weight, None, like)

    def forward(self, tokens: torch.Tensor, others: torch.Tensor | None) -> torch.Tensor:
        return self.output(self.norms[0](_wide(self.inputs(tokens))).relu_(), others)


class FusedStream(nn.Module):
    """`USDRLTokenStream` without hidden states and attention weights."""

    def __init__(self, stream: USDRLTokenStream):
        super().__init__()
        embeddings = [stream.embedding] if hasattr(stream, "embedding") else list(stream.embeddings.values())
        weights, biases = ([_double(getattr(each.fc2, name)) for each in embeddings] for name in ("weight", "bias"))
        if len(embeddings) > 1:
            # The last map of each embedding, their mean and the fusion are linear: merge them.
            fusion = _double(stream.fusion.weight) / len(embeddings)
            weights, biases = ([fusion @ part for part in parts] for parts in (weights, biases))
        self.inputs = nn.ModuleList(map(FusedEmbedding, embeddings, weights))
        position = _double(stream.position()[0])
        self.added = _constant(sum(biases) + position, stream.position())
        last = len(stream.layers) - 1
        self.fused_layers = nn.ModuleList(
            FusedDenseLayer(layer, position * (number != last))
            if isinstance(layer, USDRLDenseLayer)
            else FusedTransformerLayer(layer)
            for number, layer in enumerate(stream.layers)
        )

    def train(self, mode: bool = True):
        """Refuse training."""
        if mode:
            raise ValueError("a fused model cannot be trained: train the original model")
        return super().train(mode)

    @torch.no_grad()
    def forward(
        self, tokens: dict[str, torch.Tensor], output_hidden_states: bool = False, output_attentions: bool = False
    ) -> tuple[torch.Tensor, list, list]:
        """Return the last hidden state ``(B, S, d)``, as `USDRLTokenStream` does."""
        if output_hidden_states or output_attentions:
            raise ValueError("a fused model has no hidden states and no attention weights: use the original model")
        if len(tokens) != len(self.inputs):
            raise ValueError("a fused model encodes its modalities together: use the original model")
        # Not len(), which would fix the batch size of an exported model.
        batch = step = next(iter(tokens.values())).shape[0]
        if self.added.device.type == "cpu" and not torch.compiler.is_compiling():
            step = max(1, _PART * torch.get_num_threads() // self.added.numel())
        if batch <= step:
            return self.encode(list(tokens.values())), [], []
        parts = zip(*(values.split(step) for values in tokens.values()), strict=True)
        return torch.cat([self.encode(list(part)) for part in parts]), [], []

    def encode(self, tokens: list[torch.Tensor]) -> torch.Tensor:
        hidden = self.inputs[0](tokens[0], None)
        for embedding, values in zip(self.inputs[1:], tokens[1:], strict=True):
            hidden = embedding(values, hidden)
        hidden = _wide(hidden).add_(self.added)
        for layer in self.fused_layers:
            hidden = layer(hidden)
        return hidden.to(self.added.dtype)


def fuse(model: Model, *, packed: bool = True, keep: bool = True) -> Model:
    """Make a faster model of the same class with the same outputs, for inference only.

    With one head it needs two thirds of the operations. Outputs are equal to 1e-5. It has no hidden states, attention
    weights or gradients, and cannot be trained or saved.

    Args:
        model: The model; returned unchanged if it is fused already.
        packed: Use oneDNN's memory layout of weights on a CPU that has kernels for it; faster, but such a model cannot
            be compiled or exported.
        keep: Keep `model` usable; otherwise its weights are freed.

    Returns:
        The faster model, in evaluation mode.

    Raises:
        ValueError: If the model has adapters, parametrisations, hooks or quantised weights.

    Example:
        >>> from usdrl_hub import USDRLForActionRecognition, fuse
        >>> model = USDRLForActionRecognition.from_pretrained("usdrl/tiny-uiprmd")
        >>> type(fuse(model)).__name__
        'USDRLForActionRecognition'
    """
    if is_fused(model):
        return model
    _refuse_changed(model)
    streams = {}
    for stream in [module for module in model.modules() if isinstance(module, USDRLTokenStream)]:
        streams[id(stream)] = FusedStream(stream)
        if not keep:
            stream.to("meta")
    # deepcopy's memo maps the id of an object to its copy: each stream is "copied" as its fused stream.
    fused = copy.deepcopy(model, streams).requires_grad_(False).eval()
    for module in fused.modules():
        if isinstance(module, FusedLinear) and not packed:
            module.is_packable = False
            module.unpack()
        if isinstance(module, USDRLPreTrainedModel):
            vars(module).update(save_pretrained=_refuse_to_save, push_to_hub=_refuse_to_save)
    return fused


def is_fused(model: nn.Module) -> bool:
    """Whether a model was made by `fuse`."""
    return any(isinstance(module, FusedStream) for module in model.modules())


def _refuse_to_save(*args: object, **kwargs: object) -> NoReturn:
    raise ValueError("a fused model cannot be saved or published: use the original model")


def _refuse_changed(model: USDRLPreTrainedModel) -> None:
    """Refuse a model with adapters, parametrisations, hooks or quantised weights."""
    with torch.device("meta"):
        plain = type(model)(model.config)
    kinds = {name: type(module) for name, module in plain.named_modules()}
    if model.state_dict().keys() != plain.state_dict().keys() or any(
        type(module) is not kinds.get(name) for name, module in model.named_modules()
    ):
        raise ValueError("only a plain model can be fused: merge its adapters or parametrisations into its weights")
    for name, module in model.named_modules():
        if is_hooked(module):
            raise ValueError(
                f"only a plain model can be fused: '{name or type(module).__name__}' has hooks or is offloaded, which "
                "a fused model would ignore: load it without device_map, or remove the hook"
            )
    for name, weight in model.named_parameters():
        if not is_ordinary(weight):
            raise ValueError(
                f"only a plain model can be fused: '{name}' is quantised ({type(weight).__name__}): fuse the original "
                "model"
            )
