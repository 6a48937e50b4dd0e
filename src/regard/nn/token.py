"""One token through a layer of a language model, by a single call of the kernel, which reads the weights once.

At a token a time PyTorch spends as long between the matrix products of a small model as in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from regard._internal.growing import KeyValueCache
from regard.attention import Attention, is_replaced
from regard.backends import cpu
from regard.nn.attention import MultiHeadAttention
from regard.nn.layers import ACTIVATIONS, FeedForward, GatedFeedForward
from regard.weights import Weights

if TYPE_CHECKING:
    from regard.nn.language_model import CausalLayer

_NONE: tuple[Tensor | None, Tensor | None] = (None, None)  # where there is no gate


def serves(layer: CausalLayer, x: Tensor, past: KeyValueCache) -> bool:
    """Whether the modules would do the same: one token in float32, and nothing is unknown, watched or trained."""
    if x.shape[:2] != (1, 1) or not past.length or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if not x.is_cpu or past.keys is None or past.keys.dtype is not torch.float32:
        return False
    if not cpu.available() or is_replaced() or torch.is_autocast_enabled("cpu") or (layer.training and layer.dropout.p):
        return False
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    attention, feed_forward, norms = (
        layer.attention,
        layer.feed_forward,
        (layer.attention_norm, layer.feed_forward_norm),
    )
    known = (
        type(attention) is MultiHeadAttention
        and type(feed_forward) in (FeedForward, GatedFeedForward)
        and (type(feed_forward) is GatedFeedForward or feed_forward.activation is ACTIVATIONS["gelu_new"])
        and type(norms[0]) in (nn.LayerNorm, nn.RMSNorm)
        and type(norms[0]) is type(norms[1])
        and norms[0].eps == norms[1].eps
        and x.shape[2] // attention.heads <= cpu.LARGEST_DIM
    )
    if not known:
        return False
    linear = _linear(layer)
    modules = (attention, feed_forward, *norms, *linear)
    return all(type(module) is nn.Linear for module in linear) and all(map(_is_plain, modules))


def step(layer: CausalLayer, x: Tensor, past: KeyValueCache) -> tuple[Tensor, Attention]:
    """What `CausalLayer.forward` returns for one more token (1,1,dim)."""
    attention, start = layer.attention, past.length
    past.append(1)
    keys, values = past.keys, past.values
    assert keys is not None
    assert values is not None
    query, key, value, output, *gate, up, down = map(_tensors, _linear(layer))
    norms: list[Any] = [layer.attention_norm, layer.feed_forward_norm]
    pairs = (
        _tensors(norms[0]), query, key, value, output, _tensors(norms[1]), *(gate or [_NONE]), up, down, (keys, values)
    )  # fmt: skip
    dim = keys.shape[3]
    angles = None
    if attention.rotary is not None:
        cosine, sine = attention.rotary.angles(keys[0, 0, :1], start)
        angles = cosine[0], sine[0]
    queries, attended = x.new_empty(2, 1, attention.heads, dim)
    lse = x.new_empty(1, attention.heads, dtype=torch.float64)
    state, scale = x.flatten().clone(), dim**-0.5
    tensors, kept = [tensor for pair in pairs for tensor in pair], (queries, lse, attended)
    cpu.token([tensors], state, angles, scale, norms[0].eps, kept)
    weights = Weights._of_plain(queries[:, :, None], keys, lse[:, :, None], scale, True)
    return state[None, None], Attention._of_plain(attended[:, :, None], weights, values)


def _linear(layer: CausalLayer) -> tuple[Any, ...]:
    attention, feed_forward = layer.attention, layer.feed_forward
    gate = (feed_forward.gate,) if isinstance(feed_forward, GatedFeedForward) else ()
    heads = attention.query, attention.key, attention.value, attention.output
    return *heads, *gate, feed_forward.fc1, feed_forward.fc2


def _tensors(module: Any) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias; a root mean square norm has no bias."""
    own = module._parameters
    return own["weight"], own.get("bias")


def _is_plain(module: Any) -> bool:
    """Whether nothing watches or changes what a module computes, from float32 parameters."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False
    return all(map(_is_float, module._parameters.values()))


def _is_float(tensor: Tensor | None) -> bool:
    return tensor is None or (tensor.dtype is torch.float32 and tensor.is_cpu and tensor.is_contiguous())
