"""`copying`: whether what a head takes from a token raises the logit of that very token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.heads.sample import Sample
    from regard.attribution.layers import Layer


@torch.no_grad()
def copying(layer: Layer, sample: Sample) -> Float[Tensor, "H"]:
    """The share of the tokens whose own logit the head raises most, reading them, among the tokens of the sample.

        copying = |{j ∈ rows: argmax_t (v_j W_O^h)·u_t = t_j}| / |rows|        0 to 1

    u_t is the direction of the logit of token t in the residual stream. Of equal logits the first counts; a token
    without a direction is left out. Wang et al. 2022, https://arxiv.org/abs/2211.00593, section 3.2, and Olsson et al.
    2022, https://arxiv.org/abs/2209.11895, of random tokens. nan where the output projection or the directions are
    unknown.
    """
    values, heads = layer.values, layer.weights.shape[0]
    unknown = values.new_full((heads,), float("nan"), dtype=torch.float64)
    if sample.directions is None or sample.direction_of is None:
        return unknown
    own = sample.direction_of.to(values.device)
    read = sample.rows.to(values.device) & (own >= 0)
    try:
        joining = layer.joining_weight
    except ValueError:
        return unknown
    directions = sample.directions.to(joining).mT
    if not read.any():
        return unknown.zero_()
    shares = []
    for h in range(heads):  # one after another: the logits of all heads at once would be large
        logits = values[h, read].to(joining) @ (joining[h] @ directions)  # (n,t)
        shares.append((logits.argmax(-1) == own[read]).double().mean())
    return torch.stack(shares)
