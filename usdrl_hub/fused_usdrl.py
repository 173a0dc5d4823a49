"""`model.fuse()`: the same outputs with a third fewer operations, for inference only.

Every step is algebra, not an approximation, and what is merged is multiplied in float64. With one head a layer of DSTE
takes 34 d^2 floating-point operations per token instead of 50 d^2, one of STTR 8 d^2 instead of 12 d^2 (attention scores
and token mixing not counted). Axes: B clips, S tokens of a stream, d hidden size.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from .modeling_usdrl import (
    USDRLAttention,
    USDRLDenseLayer,
    USDRLEmbedding,
    USDRLPreTrainedModel,
    USDRLStream,
    USDRLTransformerLayer,
)

# Values that a thread's share of one piece of a batch has in each intermediate tensor: they stay in the cache.
_PIECE = 2**18


def _double(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.detach().double() for tensor in tensors]


def _constant(tensor: torch.Tensor, like: torch.Tensor) -> nn.Parameter:
    """A tensor of the module in the type of the model's own weights."""
    return nn.Parameter(tensor.detach().to(like.dtype, copy=True), requires_grad=False)


class FusedLinear(nn.Module):
    """A linear map, perhaps with an activation or a sum after it.

    On a CPU its weights are kept in the order in which oneDNN's kernels read them, so that no call sorts them anew, and
    the kernel does what follows before its results leave the cache.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, like: torch.Tensor, activation: str = "none"):
        super().__init__()
        self.activation = activation
        self.weight: nn.Parameter | None = _constant(weight, like)
        self.bias = None if bias is None else _constant(bias, like)
        self.packed: torch.Tensor | None = None
        self.pack()

    def pack(self) -> None:
        """Bring the weights into oneDNN's order where torch has its kernels for them."""
        if self.weight is not None and _has_kernel(self.weight):
            self.packed, self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach()), None

    def _apply(self, fn, recurse=True):
        # Another type or device needs the weights in their own order.
        if self.packed is not None:
            self.weight, self.packed = nn.Parameter(self.packed.to_dense(), requires_grad=False), None
        super()._apply(fn, recurse)
        self.pack()
        return self

    def forward(self, inputs: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        if self.packed is not None:
            linear = torch.ops.mkldnn._linear_pointwise
            if added is not None:
                return linear(inputs, added, self.packed, self.bias, "add")
            return linear(inputs, self.packed, self.bias, self.activation, [], "none")
        outputs = F.linear(inputs, self.weight, self.bias)
        if added is not None:
            return outputs + added
        return {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}[self.activation](outputs)


def _has_kernel(weight: torch.Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    kernels = torch.ops.mkldnn
    return {
        torch.float32: True,
        torch.bfloat16: kernels._is_mkldnn_bf16_supported(),
        torch.float16: kernels._is_mkldnn_fp16_supported(),
    }.get(weight.dtype, False)


class FusedAttention(nn.Module):
    """Attention with merged weights where there is one head.

    The score of query i and key j is (Wq x_i + bq) . (Wk x_j + bk) / sqrt(d). What does not depend on j drops out of the
    softmax, so it may be (A x_i + a) . x_j with A = Wk^T Wq / sqrt(d) and a = Wk^T bq / sqrt(d). The weights of a query
    sum to 1, so the output is the weighted mean of Wo Wv x_j + (Wo bv + bo). That makes two products with matrices of
    d x d for each token instead of four; with h heads it would be 2 h.
    """

    def __init__(self, attention: USDRLAttention):
        super().__init__()
        self.head_size, self.is_causal = attention.head_size, attention.is_causal
        like, width = attention.in_proj.weight, attention.in_proj.in_features
        (query, key, value), (query_bias, _, value_bias) = (
            part.chunk(3) for part in _double(attention.in_proj.weight, attention.in_proj.bias)
        )
        output, output_bias = _double(attention.out_proj.weight, attention.out_proj.bias)
        self.merged = self.head_size == width
        if self.merged:
            scores, bias = key.T @ query * attention.scaling, key.T @ query_bias * attention.scaling
            weight = torch.cat([scores, output @ value])
            self.inputs = FusedLinear(weight, torch.cat([bias, output @ value_bias + output_bias]), like)
        else:
            self.inputs = FusedLinear(attention.in_proj.weight, attention.in_proj.bias, like)
            self.output = FusedLinear(output, output_bias, like)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Attend to tokens ``(N, S, d)``."""
        projected = self.inputs(tokens)
        if self.merged:
            query, value = projected[:, None].chunk(2, dim=-1)
            return F.scaled_dot_product_attention(
                query, tokens[:, None], value, scale=1.0, is_causal=self.is_causal
            ).squeeze(1)
        heads = projected.unflatten(-1, (3, -1, self.head_size)).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(*heads, is_causal=self.is_causal)
        return self.output(context.transpose(1, 2).flatten(2))


class FusedDenseLayer(nn.Module):
    """A layer of DSTE: one call of the shared attention, and DSA's second linear layer on the mean of its branches."""

    def __init__(self, layer: USDRLDenseLayer, offset: torch.Tensor):
        super().__init__()
        convolutional, shift = layer.convolutional, layer.dense_shift
        like = convolutional.conv.weight
        self.convolution = FusedLinear(convolutional.conv.weight.squeeze(-1), convolutional.conv.bias, like, "relu")
        self.norms = nn.ModuleList(
            copy.deepcopy(norm).requires_grad_(False)
            for norm in (convolutional.norm1, shift.norm1, convolutional.norm2, shift.norm2)
        )
        self.attention = FusedAttention(layer.attention)
        self.hidden = nn.ModuleList(
            FusedLinear(mlp.fc1.weight, mlp.fc1.bias, like, "gelu") for mlp in (convolutional.mlp, shift.mlp)
        )
        # The output is alpha fc2(g) + (1 - alpha) (a + fc2'(g_a) + b + fc2'(g_b)) / 2, and fc2' is linear.
        self.share = (1 - layer.alpha) / 2
        first, second, bias, shift_bias = _double(
            *(linear.weight for linear in (convolutional.mlp.fc2, shift.mlp.fc2)),
            *(linear.bias for linear in (convolutional.mlp.fc2, shift.mlp.fc2)),
        )
        self.output = nn.ModuleList(
            [FusedLinear(layer.alpha * first, None, like), FusedLinear(self.share * second, None, like)]
        )
        # All that is added to each token: the biases, and the positions that the next layer begins with.
        self.offset = _constant(layer.alpha * bias + 2 * self.share * shift_bias + offset, like)
        self.mix1, self.mix1_bias = _constant(_mixing(shift, shift.mix1), like), _constant(shift.mix1.bias[:, None], like)
        # Tokens that are not to be mixed get zero: then the residual is all they have.
        mixed = torch.arange(len(shift.mix2.bias), device=like.device)[:, None] % shift.shift_gap != 0
        self.mix2 = _constant(_mixing(shift, shift.mix2) * mixed, like)
        self.mix2_bias = _constant(shift.mix2.bias[:, None] * mixed, like)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch = len(tokens)
        mixed = torch.baddbmm(self.mix1_bias, self.mix1.expand(batch, -1, -1), tokens).relu_()
        shifted = torch.baddbmm(tokens, self.mix2.expand(batch, -1, -1), mixed).add_(self.mix2_bias)
        convolved = self.convolution(tokens).add_(tokens)
        norm1, shift_norm1, norm2, shift_norm2 = self.norms
        attended = self.attention(torch.cat([norm1(convolved), shift_norm1(shifted), shift_norm1(tokens)]))
        attended = attended.unflatten(0, (3, batch)) + torch.stack([tokens, shifted, tokens])
        output = torch.add(self.offset, attended[1] + attended[2], alpha=self.share)
        output = self.output[0](self.hidden[0](norm2(attended[0])), output)
        hidden = self.hidden[1](shift_norm2(attended[1:]))
        return self.output[1](hidden[0] + hidden[1], output)


def _mixing(shift: nn.Module, linear: nn.Linear) -> torch.Tensor:
    return linear.weight.tril() if shift.is_causal else linear.weight


class FusedTransformerLayer(nn.Module):
    """A layer of STTR."""

    def __init__(self, layer: USDRLTransformerLayer):
        super().__init__()
        like = layer.fc1.weight
        self.attention = FusedAttention(layer.attention)
        self.norms = nn.ModuleList(copy.deepcopy(norm).requires_grad_(False) for norm in (layer.norm1, layer.norm2))
        self.hidden = FusedLinear(layer.fc1.weight, layer.fc1.bias, like, "relu")
        self.output = FusedLinear(layer.fc2.weight, layer.fc2.bias, like)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.norms[0](self.attention(tokens).add_(tokens))
        return self.norms[1](self.output(self.hidden(tokens), tokens))


class FusedEmbedding(nn.Module):
    """The embedding of one modality's tokens up to what `FusedStream` adds to each."""

    def __init__(self, embedding: USDRLEmbedding, weight: torch.Tensor):
        super().__init__()
        like = embedding.fc1.weight
        self.inputs = FusedLinear(embedding.fc1.weight, embedding.fc1.bias, like)
        self.norm = copy.deepcopy(embedding.norm).requires_grad_(False)
        self.output = FusedLinear(weight, None, like)

    def forward(self, tokens: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        return self.output(self.norm(self.inputs(tokens)).relu_(), added)


class FusedStream(nn.Module):
    """What `USDRLStream` computes, but for the states between layers and the attention weights."""

    def __init__(self, stream: USDRLStream):
        super().__init__()
        embeddings = {"": stream.embedding} if hasattr(stream, "embedding") else dict(stream.embeddings.items())
        weights, biases = zip(*(_double(each.fc2.weight, each.fc2.bias) for each in embeddings.values()), strict=True)
        if len(embeddings) > 1:
            # The map of the mean of the embeddings is linear, as is what is last in each of them.
            (fusion,) = _double(stream.fusion.weight)
            weights, biases = ([fusion @ part / len(embeddings) for part in parts] for parts in (weights, biases))
        self.embeddings = nn.ModuleDict(
            {f"fused_{name}": FusedEmbedding(each, weight) for (name, each), weight in zip(embeddings.items(), weights)}
        )
        (position,) = _double(stream.position()[0])
        self.offset = _constant(sum(biases) + position, stream.position())
        self.fused_layers = nn.ModuleList()
        for number, layer in enumerate(stream.layers):
            if isinstance(layer, USDRLDenseLayer):
                last = number == len(stream.layers) - 1
                self.fused_layers.append(FusedDenseLayer(layer, position * (not last)))
            else:
                self.fused_layers.append(FusedTransformerLayer(layer))

    def train(self, mode: bool = True):
        """Refuse training."""
        if mode:
            raise ValueError("a fused model only infers: train the model that it was made of")
        return super().train(mode)

    @torch.no_grad()
    def forward(self, tokens: dict[str, torch.Tensor], output_attentions: bool = False) -> tuple[list, list]:
        """The hidden states ``(B, S, d)`` after the last layer, as `USDRLStream.forward` has them."""
        if len(tokens) != len(self.embeddings):
            raise ValueError("a fused model encodes its modalities together: take the model that it was made of")
        batch, size, _ = next(iter(tokens.values())).shape
        step = batch
        if self.offset.device.type == "cpu" and not torch.compiler.is_compiling():
            step = max(1, _PIECE * torch.get_num_threads() // self.offset.numel())
        pieces = [
            self.encode([values[start : start + step] for values in tokens.values()])
            for start in range(0, max(batch, 1), max(step, 1))
        ]
        return [torch.cat(pieces)], []

    def encode(self, tokens: list[torch.Tensor]) -> torch.Tensor:
        hidden = None
        for embedding, values in zip(self.embeddings.values(), tokens, strict=True):
            hidden = embedding(values, hidden)
        hidden = hidden.add_(self.offset)
        for layer in self.fused_layers:
            hidden = layer(hidden)
        return hidden


def fuse_model(model: USDRLPreTrainedModel) -> USDRLPreTrainedModel:
    """A copy of a model in eval mode whose streams are fused; see `USDRLPreTrainedModel.fuse`."""
    streams = {id(module): FusedStream(module) for module in model.modules() if isinstance(module, USDRLStream)}
    # What deepcopy finds in its second argument it takes for copied.
    fused = copy.deepcopy(model, streams)
    return fused.requires_grad_(False).eval()
