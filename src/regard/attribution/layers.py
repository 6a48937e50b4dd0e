"""The attention of a layer and what surrounds it: W_O, the residual stream and the norm after it.

A layer adds to x_i, the residual stream, what its heads take from all tokens:

    x_i + Σ_j Σ_h w^h_ij f^h_j + b_O      f^h_j = v_j W_O^h = (x_j W_V^h + b_V^h) W_O^h

In a post-norm model (BERT) a norm of this sum follows; in a pre-norm model (GPT-2, Llama, T5) the norm comes before the
attention, has gone into v, and the sum goes on as it is. A few models (Gemma 2, OLMo 2) add a norm of what the heads
take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regard.attention import Attention
from regard.lens.contributions import surroundings_of
from regard.lens.reading import Reading
from regard.models.residual import Norm, by_query_head, norm_of, output_by_head
from regard.weights import Weights

if TYPE_CHECKING:
    from jaxtyping import Float

    from regard.hf import Recorded

    Source = Reading | Sequence[Recorded]


@dataclass(frozen=True, eq=False)
class Layer:
    """The attention of a layer and what surrounds it; … is the batch of what was recorded, and nothing in a reading.

    What could not be told from watching the model is refused when it is asked for: ValueError says what, and why.

    Attributes:
        name: what errors call it.
        attention: its `regard.Attention`.
        module: the module that joins the heads; None where none was seen.
        inner_norm: the norm of what it gives, before that is added; None in most models.
        stream: (…,N,dim), x, to which what the heads take is added; None where that was not seen.
        after: in a post-norm model, the norms after the attention and after the feed-forward network.
        cross: whether a reading says that its keys are those of another text.
    """

    name: str
    attention: Attention
    module: nn.Module | None
    inner_norm: nn.Module | None
    stream: Float[Tensor, "*B N dim"] | None
    after: Sequence[nn.Module]
    cross: bool = False

    @property
    def weights(self) -> Weights:
        """(…,H,Q,K)."""
        return self.attention.weights

    @property
    def values(self) -> Float[Tensor, "*B H K E"]:
        """v, for each head that of its group."""
        return by_query_head(self.attention.value, self.weights.shape[-3])

    @property
    def output_weight(self) -> Float[Tensor, "H E dim"]:
        """W_O^h of each head."""
        by_head = output_by_head(self.module, self.weights.shape[-3])
        if by_head is None:
            raise ValueError(f"{self.name}: {self._missing_output} Its weights, gradient and knockout need no W_O.")
        return by_head

    @property
    def output_bias(self) -> Float[Tensor, "dim"] | None:
        """b_O, which belongs to no token; None in a layer without."""
        bias: Tensor | None = getattr(self.module, "bias", None)
        return None if bias is None else bias.detach()

    @property
    def x(self) -> Float[Tensor, "*B N dim"]:
        """The residual stream to which the layer adds what its heads take."""
        if self.stream is None:
            raise ValueError(
                f"{self.name}: which residual stream the attention is added to was not seen; the model adds it in a "
                "way that is not known here, such as scaled. Use value_weighted or norms, which need the output "
                "projection alone."
            )
        return self.stream

    @property
    def norms(self) -> list[Norm]:
        """The norms after the sum in a post-norm model, as linear maps of its summands; none in a pre-norm model."""
        return [self._linear_part(module) for module in self.after]

    def _linear_part(self, module: nn.Module) -> Norm:
        norm = norm_of(module, self.output_weight.shape[-1])
        if norm is None:
            raise ValueError(
                f"{self.name}: the norm after the attention, a {type(module).__name__}, is neither a LayerNorm nor an "
                "RMSNorm. Use value_weighted or norms, which do not go through it."
            )
        return norm

    @property
    def own(self) -> Float[Tensor, "*B H N E"]:
        """w^h_ii v_i, what each head takes from the token itself."""
        weights: Tensor = self.weights.diagonal()
        return weights[..., None] * self.values.to(weights)

    def joined(self, heads: Float[Tensor, "*B H N E"]) -> Float[Tensor, "*B N dim"]:
        """What is added to x of what the heads took, without a bias: Σ_h through W_O^h and the inner norm."""
        joined = _flat(heads) @ self.joining_weight.flatten(0, 1).to(heads)
        return joined if self.scale is None else joined * self.scale[..., None]

    @property
    def joining_weight(self) -> Float[Tensor, "H E dim"]:
        """W_O^h through the linear part of the inner norm, in float32 or better; `scale` multiplies the rows then."""
        by_head = self.output_weight
        by_head = by_head.to(torch.promote_types(by_head.dtype, torch.float32))
        return by_head if self.inner_norm is None else self._linear_part(self.inner_norm)(by_head)

    @cached_property
    @torch.no_grad()
    def scale(self) -> Float[Tensor, "*B N"] | None:
        """1/σ_i of the inner norm, a factor for each row; None without an inner norm."""
        if self.inner_norm is None:
            return None
        heads = self.attention.output
        whole = _flat(heads) @ self.output_weight.flatten(0, 1).to(heads)
        whole = whole if self.output_bias is None else whole + self.output_bias
        change: Tensor = self.inner_norm(whole) - self.inner_norm(torch.zeros_like(whole))
        before = self._linear_part(self.inner_norm)(whole).norm(dim=-1)
        scale: Tensor = change.norm(dim=-1) / before.clamp(min=torch.finfo(before.dtype).tiny)
        return scale

    def check_self_attention(self, call: str) -> None:
        """Raise ValueError where queries and keys are not the same tokens."""
        queries, keys = self.weights.shape[-2:]
        if self.cross or queries != keys:
            raise ValueError(
                f"{call}: {self.name} has {queries} queries and {keys} keys; it takes self-attention, in which every "
                "token is a query and a key, and not cross-attention or a step of generation."
            )

    @property
    def _missing_output(self) -> str:
        if self.module is None:
            return (
                "no module was seen that joins the heads (the output projection, W_O): between it and the attention "
                "the model computes something else, or the reading has lost its lens."
            )
        return (
            f"the module that joins the heads is a {type(self.module).__name__}, and not a Linear or Conv1D with "
            "numbers of floating point; load the model unquantised, or merge its adapters (merge_and_unload)."
        )


def _flat(heads: Float[Tensor, "*B H N E"]) -> Float[Tensor, "*B N H·E"]:
    return heads.transpose(-3, -2).flatten(-2)


def layer_of(source: Source, layer: int) -> Layer:
    """A layer of a reading, or attention number `layer` of the list that `regard.hf.record()` collected.

    Raises: IndexError, with the range, for a layer that does not exist; LookupError for one without attention;
    TypeError for another source.
    """
    if isinstance(source, Reading):
        source.check(layer)
        number, around = layer % source.layers, surroundings_of(source, layer)
        stream = source.input_of(number) if around.residual else None
        name = f"layer {number} of {source.model}"
        cross = source.source is not None
        return Layer(name, source.attention[layer], around.output, around.inner_norm, stream, around.norms, cross)
    recorded = _recorded(source, layer)
    name = f"attention {layer % len(source)}, of a {type(recorded.module).__name__}"
    return Layer(name, recorded.attention, recorded.output, recorded.inner_norm, recorded.x, recorded.norms)


def layers_of(source: Source) -> list[Layer]:
    """All layers, in the order in which the model computes them."""
    if isinstance(source, Reading):
        return [layer_of(source, layer) for layer in source.attention_layers]
    return [layer_of(source, layer) for layer in range(len(source))]


def _recorded(source: Any, layer: int) -> Recorded:
    kinds = {type(entry).__name__ for entry in source} if isinstance(source, list | tuple) else {type(source).__name__}
    if kinds - {"Recorded"}:
        raise TypeError(
            "source: expected a reading, or the list that regard.hf.record() collected. Got "
            f"{'a list of ' if isinstance(source, list | tuple) else ''}{', '.join(sorted(kinds))}."
        )
    if not -len(source) <= layer < len(source):
        last = f"0 to {len(source) - 1}" if source else "none: no model on regard's attention ran in the block"
        raise IndexError(f"There is no attention {layer}: record() collected {last}.")
    recorded: Recorded = source[layer]
    return recorded
