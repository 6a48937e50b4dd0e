"""One more token of a Llama, by the native kernel: its layers read their weights once, and nothing comes between them.

At a token a time, transformers spends as long between the matrix products of a small model as in them.
"""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules import module as torch_module

from regard.attention import is_replaced
from regard.backends import cpu
from regard.models.growing import GrowingLayer, grow_in_place

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# All modules that a body may have, by the names of their classes: of others it is not known what they do.
KNOWN = frozenset({
    "Embedding", "Linear", "LlamaAttention", "LlamaDecoderLayer", "LlamaMLP", "LlamaModel", "LlamaRMSNorm",
    "LlamaRotaryEmbedding", "ModuleList", "SiLUActivation",
})  # fmt: skip
# The modules of a layer, in the order in which the kernel takes their weights.
NAMES = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
# Where hooks are from that do nothing at a step: one returns memory, one collects outputs that were asked for.
IDLE = frozenset({"regard.hf.models", "transformers.utils.output_capturing"})


class LlamaStep:
    """The next token of a float32 `LlamaModel` on the CPU: step(ids (1,1), cache) → its final state (1,dim).

    The cache has a `GrowingLayer` for each layer, which gets the token's key and value. Weights are read where the
    model has them at each step, so that those that were changed or exchanged count.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._modules = [(module, dict(module._modules)) for module in model.modules()]
        self._layers: list[list[dict[str, Any]]] = []
        if cpu.available() and all(type(module).__name__ in KNOWN for module, _ in self._modules):
            self._layers = [[layer.get_submodule(name)._parameters for name in NAMES] for layer in model.layers]

    def serves(self, ids: Tensor, cache: Any) -> bool:
        """Whether the modules would do the same: none is unknown, watched or exchanged, and no gradient is wanted."""
        if ids.shape != (1, 1) or not self._layers or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return False
        if is_replaced() or torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
            return False
        layers = getattr(cache, "layers", ())
        if len(layers) != len(self._layers) or not all(type(layer) is GrowingLayer for layer in layers):
            return False
        for module, children in self._modules:
            if (
                module._modules != children
                or module._forward_pre_hooks
                or "forward" in vars(module)
                or _is_watched(module)
            ):
                return False
        for own in chain.from_iterable(self._layers):
            weight = own["weight"]
            if weight.dtype is not torch.float32 or not weight.is_cpu or not weight.is_contiguous():
                return False
            if own.get("bias") is not None:
                return False
        return self._agrees

    @cached_property
    def _agrees(self) -> bool:
        """Whether it gives the state that the modules give, tried on a few tokens."""
        ids = torch.arange(4)[None] % self.model.embed_tokens.num_embeddings
        expected = self.model(input_ids=ids, use_cache=False).last_hidden_state[0, -1:]
        cache = self.model(input_ids=ids[:, :-1], use_cache=True).past_key_values
        grow_in_place(cache)
        given = self(ids[:, -1:], cache)
        return torch.allclose(given, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))

    def __call__(self, ids: Int[Tensor, "1 1"], cache: Any) -> Float[Tensor, "1 dim"]:
        model, attention = self.model, self.model.layers[0].self_attn
        position = torch.tensor([[cache.get_seq_length()]], device=cpu.CPU)
        state = F.embedding(ids[0], model.embed_tokens.weight)[0].clone()
        cosine, sine = (angles[0, 0] for angles in model.rotary_emb(state, position_ids=position))
        layers = []
        for parameters, kept in zip(self._layers, cache.layers, strict=True):
            kept.append(1)
            layers.append([*(own["weight"] for own in parameters), kept.keys, kept.values])
        cpu.token(layers, state, cosine, sine, attention.scaling, model.norm.variance_epsilon)
        final: Tensor = model.norm(state[None])
        return final


def _is_watched(module: Any) -> bool:
    """Whether a hook reads or changes what the module is given or gives."""
    after = module._forward_hooks
    if not after:
        return bool(module._forward_pre_hooks)
    return bool(module._forward_pre_hooks) or any(hook.__module__ not in IDLE for hook in after.values())
