"""The gradient of attention, and of any reduction of a map of its weights, a block of the matrix at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.backends.factors import Factor, add_to, combined, multiply, repeated
from regard.backends.protocol import Matrix
from regard.backends.streaming import blocks_of, sink_mass, softmax
from regard.mask import Block, select, select_broadcast
from regard.scores import Scores, matmul

if TYPE_CHECKING:
    from jaxtyping import Float

Cotangent = Callable[[Block, Tensor], Tensor]  # G_ij = ∂L/∂M_ij of a block, from its place and its numbers

BLOCK = 1 << 19  # numbers, on a processor; several tensors of a block's size are alive at once


def gradient_blocks(matrix: Matrix) -> Iterator[Block]:
    """The blocks in which `gradient` goes through all of the matrix."""
    return blocks_of(matrix, BLOCK if matrix.scores.query.device.type == "cpu" else None)


def backward(
    scores: Scores,
    value: Tensor,
    sinks: Tensor | None,
    output: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    bias_needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of query, key, value, bias and sinks, from those of output and lse: G_ij = ∂L/∂output_i · v_j."""
    grad_value = torch.zeros_like(value, dtype=scores.dtype)
    grad_output = grad_output.to(scores.dtype)
    delta = (grad_output * output.to(scores.dtype)).sum(-1)  # (B, H, Q): Σ_k w_ik G_ik
    if grad_lse is not None:
        delta = delta - grad_lse

    def cotangent(at: Block, weights: Tensor) -> Tensor:
        groups, grad = scores.groups(at.heads), grad_output[at.batch, at.heads, at.rows]
        grad_value[at.batch, groups, at.columns] += over_group(weights, grad, scores.n_rep)
        return matmul(grad, finite(value[at.batch, groups, at.columns].to(scores.dtype)).mT)

    blocks = scores.blocks(BLOCK if scores.query.device.type == "cpu" else None)
    grads = gradient(scores, sinks, cotangent, blocks, delta=delta, bias_needs_grad=bias_needs_grad)
    return *grads[:2], grad_value, *grads[2:]


def of_weights(matrix: Matrix, cotangent: Cotangent) -> tuple[Cotangent, list[Tensor | None]]:
    """The derivative by the weights, from that by the numbers of a map, and the derivatives by what makes the map.

    These are by `gram`, and by a and b of each factor; they add up while the blocks are gone through, each of them
    once. With M = c·Π φ_f, c the weights or the length √(Σ w^h w^h′ G[h,h′]) of their combination over the heads:

        ∂L/∂z_f = G·c·Π_{g≠f} φ_g · φ_f′(z_f)      ∂c/∂w^h = (G w)^h / c      ∂c/∂G[h,h′] = w^h w^h′ / 2c
    """
    factors, heads = matrix.factors, matrix.shape[1]
    dtype = matrix.scores.dtype
    made_of = [matrix.gram, *(vectors for factor in factors for vectors in (factor.query, factor.key))]
    grads = [None if tensor is None else torch.zeros_like(tensor, dtype=dtype) for tensor in made_of]

    def by_weights(at: Block, weights: Tensor) -> Tensor:
        place = matrix.place(at)
        length, moved = weights, None
        if matrix.gram is not None:
            length, moved = combined(weights, select_broadcast(matrix.gram, at.batch, at.columns))
        products = [factor.product(place, heads, dtype) for factor in factors]
        activated = [factor.activated(product) for factor, product in zip(factors, products, strict=True)]
        by_numbers = cotangent(place, multiply(length, activated))
        by_length = multiply(by_numbers, activated)
        for n, (factor, product) in enumerate(zip(factors, products, strict=True)):
            by_product = multiply(by_numbers * length, [*activated[:n], *activated[n + 1 :]])
            slope = factor.derivative(product)
            _add_factor(
                factor, grads[1 + 2 * n : 3 + 2 * n], place, heads, by_product if slope is None else by_product * slope
            )
        if matrix.gram is None or moved is None:
            return by_length
        share = (by_length / length).masked_fill_(length == 0, 0)[:, 0].mT  # (b,k,q)
        by_key = weights.permute(0, 3, 2, 1)  # (b,k,q,H)
        gram_grad = grads[0]
        assert gram_grad is not None
        by_gram = matmul((by_key * (share / 2)[..., None]).mT, by_key)
        target = select_broadcast(gram_grad, at.batch, at.columns)
        target += by_gram.sum_to_size(target.shape)
        return (moved * share[..., None]).permute(0, 3, 2, 1)

    return by_weights, grads


def _add_factor(
    factor: Factor, grads: Sequence[Tensor | None], at: Block, heads: int, by_product: Float[Tensor, "b h q k"]
) -> None:
    """Adds the derivatives by a and b of a block, from that by their products."""
    grad_a, grad_b = grads
    a, b = factor.rows(at, heads, by_product.dtype), factor.columns(at, heads, by_product.dtype)
    count = at.heads.stop - at.heads.start
    if grad_a is not None:
        change = by_product.sum(-1, keepdim=True) if b is None else matmul(by_product, repeated(b, count))
        add_to(grad_a, at, at.rows, change, heads)
    if grad_b is not None:
        change = by_product.sum(-2)[..., None] if a is None else matmul(by_product.mT, a)
        add_to(grad_b, at, at.columns, change, heads)


def gradient(
    scores: Scores,
    sinks: Tensor | None,
    cotangent: Cotangent | None,
    blocks: Iterable[Block],
    *,
    delta: Float[Tensor, "B H Q"] | None = None,
    bias_needs_grad: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of query, key, bias and sinks, from that of the weights, which are computed again block by block.

        ∂L/∂s_ij = w_ij (G_ij − δ_i)      δ_i = Σ_k w_ik G_ik − ∂L/∂lse_i

    Args:
        cotangent: G; None where the loss depends on the lse alone.
        blocks: the rows on which the loss depends, each once.
        delta: δ, where it is known beforehand; without it the loss must not depend on the lse.
    """
    grad_query = torch.zeros_like(scores.query, dtype=scores.dtype)
    grad_key = torch.zeros_like(scores.key, dtype=scores.dtype)
    grad_bias = None
    if bias_needs_grad and scores.bias is not None:
        grad_bias = torch.zeros_like(scores.bias, dtype=scores.dtype)
    grad_sinks = None if sinks is None else sinks.new_zeros(sinks.shape, dtype=scores.dtype)
    for at in blocks:
        groups = scores.groups(at.heads)
        tile = scores.tile(at)
        weights, lse = softmax(tile, None if sinks is None else sinks[at.heads])
        grad_weights = weights.new_zeros(()) if cotangent is None else cotangent(at, weights)
        row_delta = (grad_weights * weights).sum(-1) if delta is None else delta[at.batch, at.heads, at.rows]
        unseen = weights == 0
        grad_tile = weights.mul_((grad_weights - row_delta[..., None]).to(weights.dtype)).masked_fill_(unseen, 0)
        if grad_bias is not None:
            _add(grad_bias, at, grad_tile)
        if sinks is not None and grad_sinks is not None:
            grad_sinks[at.heads] -= (sink_mass(sinks[at.heads], lse) * row_delta).sum((0, 2))
        if scores.softcap is not None:  # the derivative of c·tanh(s/c) is 1 − tanh²
            grad_tile *= (1 - scores.tanh(at).square()).masked_fill_(unseen, 0)
        grad_tile = grad_tile.mul_(scores.scale)
        # What is not finite has made the weights of those who see it nan; the others must not meet it.
        query = finite(select(scores.query[at.batch, at.heads], 2, at.rows).to(scores.dtype))
        key = finite(select(scores.key[at.batch, groups], 2, at.columns).to(scores.dtype))
        repeat = max(1, grad_tile.shape[1] // max(1, key.shape[1]))
        grad_query[at.batch, at.heads, at.rows] = matmul(grad_tile, key)
        grad_key[at.batch, groups, at.columns] += over_group(grad_tile, query, repeat)
    return grad_query, grad_key, grad_bias, grad_sinks


def over_group(tile: Float[Tensor, "b h q k"], rows: Float[Tensor, "b h q f"], repeat: int) -> Tensor:
    """tileᵀ · rows, summed over the query heads of each group: (b,g,k,f)."""
    batch, heads, queries, columns = tile.shape
    folded = (batch, heads // repeat, repeat * queries)
    return matmul(tile.reshape(*folded, columns).mT, rows.reshape(*folded, rows.shape[-1]))


def _add(total: Tensor, at: Block, tile: Tensor) -> None:
    """Adds a block to its part of a broadcastable tensor, summed over dimensions of size 1."""
    target = select_broadcast(total, *at)
    tile = tile.sum_to_size(target.shape)
    if total.shape[2] == 1 or isinstance(at.rows, slice):
        target += tile
    else:  # rows one by one: `target` is a copy
        select_broadcast(total, at.batch, at.heads, slice(0, total.shape[2]), at.columns).index_add_(2, at.rows, tile)


def finite(tensor: Tensor) -> Tensor:
    """The tensor with 0 for what is not finite."""
    return tensor if tensor.isfinite().all() else tensor.nan_to_num(0, 0, 0)
