"""What each token adds, by each head, to the logit of a next token: direct logit attribution.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
https://transformer-circuits.pub/2021/framework/index.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from regard.attribution.again import model_of, output_of_reading
from regard.lens.contributions import projections_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.target import Target
    from regard.lens import Reading
    from regard.weights import Map


def logits(reading: Reading, target: Target, layer: int) -> Map:
    """What each token adds, by each head of a layer, to the logit of a token: a map (H,N,N) of signed numbers

        w_ij · (v_j W_O^h)·u_i

    u_i is the direction of the token in the residual stream, at token i: its row of the unembedding, or the difference
    of two rows, taken back through the final norm. That norm is frozen: its factor 1/σ_i is the one that the model
    computed. So the logit that the model computes at a token i is the sum of row i over all layers, heads and sources,
    with what embeddings, feed-forward layers and biases add. Row i speaks of a prediction made at token i; that of the
    target is `target.predicted.position`.

    Cost: of a map with factors for rows and columns.

    Args:
        reading: of a causal language model that adds what its heads give to the residual stream.
        target: a next token, or the difference of two.
        layer: counted from 0; from −1 backwards.

    Raises:
        ValueError: the target is no token; or the model normalises after its layers, has a head that is not linear, or
            output projections that are not known: the message names the module.
        IndexError: there is no such layer.
    """
    reading.check(layer)
    target.check(reading)
    direction = final_direction(reading, target)
    attended = reading.attention[layer]
    values, heads = attended.value.detach().double(), reading.heads_of(layer)
    by_head = _output_by_head(reading, layer, heads, values.shape[-1])  # (H,E,dim)
    to_logit = by_head.double() @ direction.direction.double()  # (H,E)
    added = values.repeat_interleave(heads // len(values), 0) @ to_logit[..., None]  # (H,N,1)
    size = attended.output.dtype
    return attended.weights.times(query=direction.factor[:, None].to(size), key=added.to(size))


class Direction(NamedTuple):
    """The direction of a logit in the residual stream: `factor[i] · direction` (dim,) at token i, and its constant."""

    direction: Float[Tensor, "dim"]
    factor: Float[Tensor, "N"]
    constant: float


def final_direction(reading: Reading, target: Target) -> Direction:
    """Where in the residual stream a logit, or a difference of two, lies.

        logit_i = factor_i · (x_i·direction) + constant

    x_i is the last hidden state. The constant is what the norm's bias adds, without a bias of the head itself.

    Raises ValueError as `logits`.
    """
    model = model_of(reading, "logits")
    if target.predicted is None:
        raise ValueError(
            f"logits: target: expected a next token or the difference of two, as Target.next_token makes. "
            f"Got {target.name}."
        )
    head = model.head
    if head is None or head.unembedding is None:
        name = model.name if head is None else head.model
        raise ValueError(
            f"logits: {name}: its head (lm_head) is not a linear map of the final states, so that a logit is no sum of "
            "what heads add; use gradient or knockout."
        )
    table, (_, token, other) = head.unembedding.detach(), target.predicted
    unembedding = (table[token] if other is None else table[token] - table[other]).double()
    output = output_of_reading(reading, "logits")
    x, final = output.hidden[-1].double(), output.final.double()
    if torch.equal(x, final):
        return Direction(unembedding, torch.ones(len(x), dtype=x.dtype, device=x.device), 0.0)
    norm = model.residual.frozen_norm(x, final)
    if norm is None:
        name = "what follows its last layer" if model.residual.norm is None else type(model.residual.norm).__name__
        raise ValueError(
            f"logits: {model.name}: {name} is neither a LayerNorm nor an RMSNorm, and cannot be taken back to what the "
            "layers add; use gradient or knockout."
        )
    return Direction(norm.before(unembedding), norm.factor, float(norm.bias @ unembedding))


def _output_by_head(reading: Reading, layer: int, heads: int, width: int) -> Float[Tensor, "H E dim"]:
    """W_O, head by head. Raises ValueError where it is not known, or where the layer does not add its product."""
    projections = projections_of(reading, layer)
    weight = None if projections is None else projections.output_weight
    model = model_of(reading, "logits")
    layer %= reading.layers
    if projections is None or weight is None:
        name = type(model.blocks[layer]).__name__ if model.blocks else model.name
        raise ValueError(
            f"logits: layer {layer}: the module that joins the heads (W_O) of {name} is not known; use gradient or "
            "knockout."
        )
    if not model.residual.adds[layer]:
        raise ValueError(
            f"logits: layer {layer}: {type(model.blocks[layer]).__name__} does not add the result of "
            f"{type(projections.output).__name__} (W_O) to the residual stream as it is, but normalises or scales it, "
            "so that a logit is no sum of what heads add; use gradient or knockout."
        )
    matrix = weight.detach().T if isinstance(projections.output, nn.Linear) else weight.detach()  # (H·E, dim)
    return torch.unflatten(matrix, 0, (heads, width))
