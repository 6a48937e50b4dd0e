"""One token through a layer of a language model, by a single call of the kernel, which reads the weights once.

At a token a time PyTorch spends as long between the matrix products of a small model as in them. A model has as many
steps as layers at every token, so that what Python does for one is kept short.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from regard._checks import unwatched
from regard._internal.growing import KeyValueCache
from regard.attention import Attention, is_replaced
from regard.backends import cpu
from regard.nn.attention import MultiHeadAttention
from regard.nn.embeddings import RotaryPositions
from regard.nn.layers import ACTIVATIONS, FeedForward, GatedFeedForward
from regard.weights import Weights

if TYPE_CHECKING:
    from regard.nn.language_model import CausalLayer


class _Step:
    """A layer as it was when it was first asked for a token: its modules, and where their tensors are."""

    def __init__(self, layer: CausalLayer) -> None:
        attention: Any = layer.attention
        feed_forward: Any = layer.feed_forward
        norms: tuple[Any, Any] = layer.attention_norm, layer.feed_forward_norm
        self.parts = dict(layer._modules)  # and not the layer, which would then never be freed
        self.children = [(module, dict(module._modules)) for module in (attention, feed_forward)]
        gate: list[Any] = [feed_forward.gate] if type(feed_forward) is GatedFeedForward else []
        self.known = (
            type(attention) is MultiHeadAttention
            and (bool(gate) or (type(feed_forward) is FeedForward and _is_gelu_tanh(feed_forward.activation)))
            and type(norms[0]) in (nn.LayerNorm, nn.RMSNorm)
            and type(norms[0]) is type(norms[1])
            and type(attention.rotary) in (RotaryPositions, type(None))
            and cpu.available()
        )
        if not self.known:
            return
        first = norms[0], attention.query, attention.key, attention.value, attention.output, norms[1]
        last = feed_forward.fc1, feed_forward.fc2
        linear = (*first[1:5], *gate, *last)
        self.known = all(map(_is_linear, linear))
        rotary = [] if attention.rotary is None else [attention.rotary]
        self.modules = [attention, feed_forward, *norms, *linear, *rotary]
        self.tensors = [module._parameters for module in (*first, *(gate or [_NO_MODULE]), *last)]
        self.norms, self.heads, self.rotary = norms, attention.heads, attention.rotary

    def is_of(self, layer: CausalLayer) -> bool:
        """Whether the layer still has the same modules."""
        same = layer._modules == self.parts
        return same and all(module._modules == children for module, children in self.children)

    def serves(self) -> bool:
        """Whether all modules are known, none is watched, and their tensors lie as the kernel wants them."""
        if not self.known or self.norms[0].eps is None or self.norms[0].eps != self.norms[1].eps:
            return False
        for module in self.modules:
            if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
                return False
        for norm in self.norms:  # the kernel takes a norm without a shift for a root mean square norm
            if norm.weight is None or (type(norm) is nn.LayerNorm and norm.bias is None):
                return False
        for own in self.tensors:
            for tensor in own.values():
                if tensor is not None and not (
                    type(tensor) in _PLAIN and tensor.dtype is torch.float32 and tensor.is_contiguous()
                ):
                    return False
        return True

    def __call__(self, x: Tensor, past: KeyValueCache) -> tuple[Tensor, Attention]:
        past.append(1)
        keys, values = past.keys, past.values
        assert keys is not None
        assert values is not None
        dim = keys.shape[3]
        angles = None if self.rotary is None else _angles(self.rotary.theta, dim, past.length - 1)
        kept = (
            x.new_empty(1, self.heads, dim),
            x.new_empty(1, self.heads, dtype=torch.float64),
            x.new_empty(1, self.heads, dim),
        )
        tensors = [tensor for own in self.tensors for tensor in (own.get("weight"), own.get("bias"))]
        state, scale = x.clone(), dim**-0.5
        cpu.token([[*tensors, keys, values]], state.view(-1), angles, scale, self.norms[0].eps, kept)
        queries, lse, attended = (tensor.unsqueeze(2) for tensor in kept)
        weights = Weights._of_plain(queries, keys, lse, scale, True)
        return state, Attention._of_plain(attended, weights, values, lse)


_PLAIN = (nn.Parameter, Tensor)  # whose subclasses may compute otherwise
_NO_MODULE = nn.Module()  # in the place of a gate, without parameters
_steps: WeakKeyDictionary[CausalLayer, _Step] = WeakKeyDictionary()


def step(layer: CausalLayer, x: Tensor, past: KeyValueCache) -> tuple[Tensor, Attention] | None:
    """What the modules of a layer give for one more token (1,1,dim) in float32; None where they have to be asked."""
    keys = past.keys
    if torch.compiler.is_compiling():
        return None
    if keys is None or keys.shape[0] != 1 or keys.dtype is not torch.float32 or keys.shape[3] > cpu.LARGEST_DIM:
        return None
    if x.shape[:-1] != (1, 1) or is_replaced() or (known := _known(layer, x)) is None:
        return None
    return known(x, past)


def is_plain(layer: CausalLayer, x: Tensor) -> bool:
    """Whether nobody would notice if the modules of a layer were given x (…,dim) in parts, or not called at all."""
    return _known(layer, x) is not None


def _known(layer: CausalLayer, x: Tensor) -> _Step | None:
    if (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or type(x) is not Tensor
        or x.dtype is not torch.float32
        or not x.is_cpu
        or (layer.training and layer.dropout.p)
        or not unwatched()
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
    ):
        return None
    known = _steps.get(layer)
    if known is None or not known.is_of(layer):
        known = _steps[layer] = _Step(layer)
    return known if known.serves() else None


@lru_cache(maxsize=4)
def _angles(theta: float, dim: int, position: int) -> tuple[Tensor, Tensor]:
    """Those of one position, which all layers share."""
    cosine, sine = RotaryPositions(theta).angles(torch.empty(1, dim, device=cpu.CPU), position)
    return cosine[0], sine[0]


def _is_linear(module: Any) -> bool:
    """Whether it is a product with its own weight and bias: nn.Linear's, or the kernel's."""
    return type(module) is nn.Linear or type(module).__module__ == "regard.models.linear"


def _is_gelu_tanh(activation: Any) -> bool:
    return activation is ACTIVATIONS["gelu_new"]
