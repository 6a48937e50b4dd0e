"""What each token adds, by each head, to the logit of a next token: direct logit attribution.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
https://transformer-circuits.pub/2021/framework/index.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from regard.attribution.again import model_of, output_of_reading
from regard.attribution.layers import layer_of
from regard.lens.contributions import surroundings_of
from regard.models.residual import norm_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from regard.attribution.target import Target
    from regard.lens import Reading
    from regard.models import Model
    from regard.weights import Map


def logits(reading: Reading, target: Target, layer: int) -> Map:
    """What each token adds, by each head of a layer, to the logit of a token: a map (H,N,N) of signed numbers

        w_ij · (v_j W_O^h)·u_i

    u_i is the direction of the token in the residual stream, at token i: its row of the unembedding, or the difference
    of two rows, taken back through the final norm and, in a model that adds a norm of what its heads give (Gemma 2),
    through that norm. Norms are frozen: the factor 1/σ_i is the one that the model computed. So the logit that the
    model computes at a token i is the sum of row i over all layers, heads and sources, with what embeddings,
    feed-forward layers and biases add. Row i speaks of a prediction made at token i; that of the target is
    `target.predicted.position`.

    Cost: of a map with factors for rows and columns.

    Args:
        reading: of a causal language model that adds what its heads give to the residual stream.
        target: a next token, or the difference of two.
        layer: counted from 0; from −1 backwards.

    Raises:
        ValueError: the target is no token; or the model normalises after its layers or scales what they add, has a
            head that is not linear, or output projections that are not known: the message names the module.
        IndexError: there is no such layer.

    >>> import regard
    >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    >>> from regard.models import embedded_folder
    >>> from regard import attribution
    >>> from regard.attribution import Target
    >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
    >>> reading = lens.read("Time flies like an arrow")
    >>> target = Target.next_token(reading)
    >>> attribution.logits(reading, target, layer=1)[:, target.predicted.position].shape      # by head, from each token
    torch.Size([4, 7])
    """
    reading.check(layer)
    target.check(reading)
    direction = final_direction(reading, target)
    check_adds(reading, layer)
    at = layer_of(reading, layer)
    to_logit = at.joining_weight.double() @ direction.direction  # (H,E)
    added = at.values.double() @ to_logit[..., None]  # (H,N,1)
    factor = direction.factor if at.scale is None else direction.factor * at.scale
    dtype = at.weights.dtype
    return at.weights.times(query=factor[:, None].to(dtype), key=added.to(dtype))


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
    table, (_, token, other) = _unembedding(model), target.predicted
    unembedding = (table[token] if other is None else table[token] - table[other]).double()
    directions, factor, shift = _before_norm(reading, model, unembedding[None])
    return Direction(directions[0], factor, float(shift @ unembedding))


def directions_of(reading: Reading, tokens: Int[Tensor, "n"]) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "N"]]:
    """The directions of several tokens' logits in the residual stream, and their common factor at each token.

    Raises ValueError as `logits`.
    """
    model = model_of(reading, "logits")
    directions, factor, _ = _before_norm(reading, model, _unembedding(model)[tokens].double())
    return directions, factor


def _unembedding(model: Model) -> Float[Tensor, "vocabulary dim"]:
    """The matrix of the head. Raises ValueError where it is not linear."""
    head = model.head
    if head is None or head.unembedding is None:
        name = model.name if head is None else head.model
        raise ValueError(
            f"logits: {name}: its head (lm_head) is not a linear map of the final states, so that a logit is no sum of "
            "what heads add; use gradient or knockout."
        )
    return head.unembedding.detach()


def _before_norm(
    reading: Reading, model: Model, unembedding: Float[Tensor, "n dim"]
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "N"], Float[Tensor, "dim"]]:
    """Directions of final states, taken back through the final norm, its factors 1/σ at these rows, and its bias."""
    output = output_of_reading(reading, "logits")
    x, final = output.hidden[-1].double(), output.final.double()
    if torch.equal(x, final):
        return unembedding, x.new_ones(len(x)), x.new_zeros(x.shape[1])
    module = model.final_norm
    norm = None if module is None else norm_of(module, x.shape[1])
    if module is not None and norm is not None:
        with torch.no_grad():
            shift = module(torch.zeros_like(x[None, :1], dtype=_dtype(module)))[0, 0].double()
        scaled = norm(x)
        factor = ((final - shift) * scaled).sum(-1) / scaled.square().sum(-1).clamp(min=1e-300)
        if (factor[:, None] * scaled + shift - final).norm() <= 1e-3 * final.norm():
            directions = norm.gain.to(unembedding) * unembedding
            directions = directions - directions.mean(-1, keepdim=True) if norm.centred else directions
            return directions, factor, shift
    name = "what follows its last layer" if module is None else type(module).__name__
    raise ValueError(
        f"logits: {model.name}: {name} is neither a LayerNorm nor an RMSNorm, and cannot be taken back to what the "
        "layers add; use gradient or knockout."
    )


def _dtype(module: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


def check_adds(reading: Reading, layer: int) -> None:
    """Raise ValueError, naming the module, where a layer does not add W_O's result to the stream as it is."""
    around, model = surroundings_of(reading, layer), model_of(reading, "logits")
    if around.output is not None and (around.norms or not around.residual):
        raise ValueError(
            f"logits: layer {layer % reading.layers}: {type(model.blocks[layer]).__name__} does not add the result of "
            f"its {type(around.output).__name__} (W_O) to the residual stream as it is, but normalises or scales it, "
            "so that a logit is no sum of what heads add; use gradient or knockout."
        )
