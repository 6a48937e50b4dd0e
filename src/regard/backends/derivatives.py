"""The derivatives beyond the gradient: forward mode, and the gradient of the gradient, streamed, in O(N) memory.

In a direction (q′, k′, v′, b′ of the bias, z′ of the sinks), for scores s = c·tanh(r/c) + b with r = scale · q·k, and
a sink as one more key of score z and value 0, whose sums over j include it:

    r′_ij = scale · (q′_i·k_j + q_i·k′_j)      s′_ij = (1 − tanh²(r_ij/c)) r′_ij + b′_ij
    lse′_i = Σ_j w_ij s′_ij                    output′_i = Σ_j w_ij ((s′_ij − lse′_i) v_j + v′_j)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.backends import gradient, streaming
from regard.mask import Block, select, select_broadcast
from regard.scores import Scores, matmul


class Inputs(NamedTuple):
    """What attention is differentiated in."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None
    sinks: Tensor | None


class Direction(NamedTuple):
    """A direction in them; None where it is zero."""

    query: Tensor | None
    key: Tensor | None
    value: Tensor | None
    bias: Tensor | None
    sinks: Tensor | None


class _Rows(NamedTuple):
    """Whole rows of the matrix, in a direction: all (b,h,rows,columns), but for the sink's and the rows' (b,h,rows)."""

    inputs: Inputs
    direction: Direction
    weights: Tensor
    sink_weight: Tensor | None
    tanh: Tensor | None  # of r/c, where there is a softcap
    raw_change: Tensor  # r′
    change: Tensor  # s′
    lse_change: Tensor
    spoiled: Tensor | None  # the rows that see a value that is not finite


def tangent(scores: Scores, value: Tensor, sinks: Tensor | None, direction: Direction) -> tuple[Tensor, Tensor]:
    """Output (B,H,Q,E) and lse (B,H,Q), differentiated in a direction."""
    batch, heads, queries, _ = scores.shape
    output = value.new_zeros(batch, queries, heads, value.shape[3]).transpose(1, 2)
    lse = value.new_zeros(batch, heads, queries, dtype=scores.dtype)
    for at in scores.blocks():
        rows = _rows(scores, value, sinks, direction, at)
        pulled = rows.weights * (rows.change - rows.lse_change[..., None])
        change = matmul(pulled.masked_fill_(rows.weights == 0, 0), rows.inputs.value)
        if rows.direction.value is not None:
            change += matmul(rows.weights, rows.direction.value)
        if rows.spoiled is not None:
            change.masked_fill_(rows.spoiled[..., None], torch.nan)
        output[at.batch, at.heads, at.rows] = change.to(output.dtype)
        lse[at.batch, at.heads, at.rows] = rows.lse_change
    return output, lse


def second(
    scores: Scores,
    value: Tensor,
    sinks: Tensor | None,
    direction: Direction,
    grad_output: Tensor,
    grad_lse: Tensor | None,
) -> Inputs:
    """The gradient of Σ grad_output · output′ + Σ grad_lse · lse′ in the inputs, for the tangent in a direction.

    By the symmetry of second derivatives it is also the directional derivative of the gradient.
    """
    inputs = Inputs(scores.query, scores.key, value, scores.bias, sinks)
    room: list[Any] = [t if t is None else torch.zeros_like(t, dtype=scores.dtype) for t in inputs]
    grads = Inputs(*room)
    for at in scores.blocks():
        rows = _rows(scores, value, sinks, direction, at)
        grad = grad_output[at.batch, at.heads, at.rows].to(scores.dtype)
        grad_of_lse = None if grad_lse is None else grad_lse[at.batch, at.heads, at.rows].to(scores.dtype)
        _add_second(Inputs(*_parts(grads, scores, at)), scores, rows, grad, grad_of_lse)
    return grads


def _rows(scores: Scores, value: Tensor, sinks: Tensor | None, direction: Direction, at: Block) -> _Rows:
    inputs = Inputs(*_parts(Inputs(scores.query, scores.key, value, scores.bias, sinks), scores, at))
    way = Direction(*(t if t is None else t.to(scores.dtype) for t in _parts(direction, scores, at)))
    tile = scores.tile(at)
    weights, lse = streaming.softmax(tile, inputs.sinks)
    sink_weight = spoiled = None
    if inputs.sinks is not None:
        sink_weight = (inputs.sinks.to(lse.dtype)[:, None] - lse).exp().masked_fill(lse == -torch.inf, 0)
    query, key, values = (t.to(scores.dtype) for t in inputs[:3])
    if not values.isfinite().all():
        spoiled = ~streaming.average(weights, values, tile).isfinite().all(-1)
    # What is not finite has made the weights of those who see it nan, or spoiled them; the others must not meet it.
    query, key, values = (gradient.finite(t) for t in (query, key, values))

    raw_change = torch.zeros_like(tile)
    if way.query is not None:
        raw_change += matmul(way.query * scores.scale, key.mT)
    if way.key is not None:
        raw_change += matmul(query * scores.scale, way.key.mT)
    tanh = None if scores.softcap is None else scores.tanh(at)
    change = raw_change if tanh is None else raw_change * (1 - tanh.square())
    change = change if way.bias is None else change + way.bias
    change = change.masked_fill(weights == 0, 0)
    lse_change = (weights * change).sum(-1)
    if sink_weight is not None and way.sinks is not None:
        lse_change += sink_weight * way.sinks[:, None]
    clean = Inputs(query, key, values, inputs.bias, inputs.sinks)
    return _Rows(clean, way, weights, sink_weight, tanh, raw_change, change, lse_change, spoiled)


def _add_second(grads: Inputs, scores: Scores, rows: _Rows, grad: Tensor, grad_lse: Tensor | None) -> None:
    """Adds what whole rows give to the parts of the gradient: all but `rows` and `grad` is written to.

    Of L_i = Σ_j w_ij (s′_ij − lse′_i) g_i·v_j + Σ_j w_ij g_i·v′_j + l_i lse′_i, l the gradient of the lse.
    """
    query, key, value, _, _ = rows.inputs
    weights, change, lse_change = rows.weights, rows.change, rows.lse_change[..., None]
    unseen = weights == 0
    along = matmul(grad, value.mT)  # g_i·v_j
    mean = (weights * along).sum(-1, keepdim=True)
    if rows.spoiled is not None:
        mean = mean.masked_fill(rows.spoiled[..., None], torch.nan)
    of_lse = -mean if grad_lse is None else grad_lse[..., None] - mean  # dL/d lse′
    of_change = (weights * (along + of_lse)).masked_fill_(unseen, 0)  # dL/ds′
    of_weights = along * (change - lse_change) + of_lse * change  # dL/dw, w as if it were free
    if rows.direction.value is not None:
        of_weights += matmul(grad, rows.direction.value.mT)
    total = (weights * of_weights).masked_fill_(unseen, 0).sum(-1, keepdim=True)
    if rows.sink_weight is not None and grads.sinks is not None:
        of_sink = 0.0 if rows.direction.sinks is None else of_lse[..., 0] * rows.direction.sinks[:, None]
        total = total + (rows.sink_weight * of_sink)[..., None]
        grads.sinks.add_((rows.sink_weight * (of_sink - total[..., 0])).sum((0, 2)))
    of_scores = (weights * (of_weights - total)).masked_fill_(unseen, 0)  # dL/ds
    if grads.bias is not None:
        grads.bias.add_(of_scores.sum_to_size(grads.bias.shape))
    if rows.tanh is not None and scores.softcap is not None:  # of c·tanh(r/c), the first and second derivatives
        slope = 1 - rows.tanh.square()
        curvature = ((rows.tanh * slope).double() * (-2 / scores.softcap)).to(slope.dtype)
        of_scores = of_scores * slope + of_change * curvature * rows.raw_change
        of_change = of_change * slope
    of_scores, of_change = of_scores * scores.scale, of_change * scores.scale
    repeat = scores.n_rep
    grads.value.add_(gradient.over_group((weights * (change - lse_change)).masked_fill_(unseen, 0), grad, repeat))
    grads.query.add_(matmul(of_scores, key))
    grads.key.add_(gradient.over_group(of_scores, query, repeat))
    if rows.direction.key is not None:
        grads.query.add_(matmul(of_change, rows.direction.key))
    if rows.direction.query is not None:
        grads.key.add_(gradient.over_group(of_change, rows.direction.query, repeat))


def _parts(inputs: Inputs | Direction, scores: Scores, at: Block) -> list[Any]:
    """The parts of inputs, or of a direction, that make one block: views, in their order."""
    groups = scores.groups(at.heads)
    query, key, value, bias, sinks = inputs
    return [
        query if query is None else select(query[at.batch, at.heads], 2, at.rows),
        key if key is None else select(key[at.batch, groups], 2, at.columns),
        value if value is None else select(value[at.batch, groups], 2, at.columns),
        bias if bias is None else select_broadcast(bias, *at),
        sinks if sinks is None else sinks[at.heads],
    ]
