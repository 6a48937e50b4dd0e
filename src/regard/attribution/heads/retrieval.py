"""`retrieval`: whether a head looks, while an answer is written, at the place in the text that it is copied from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.attribution.heads.edges import Alike, Edges

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.heads.sample import Sample
    from regard.attribution.layers import Layer


def retrieval(layer: Layer, sample: Sample) -> Float[Tensor, "H"]:
    """The share of the answer's tokens that the head copies from the needle.

        retrieval = |{(i, j) ∈ answer: argmax_k w_ik = j}| / |answer|        0 to 1

    i is the query that predicts a token of the answer, j the place of that token in the needle; of equal weights the
    first counts. Wu et al. 2024, https://arxiv.org/abs/2404.15574, who let the model write the answer, and count what
    it writes; here the answer is given. nan for a sample without an answer.
    """
    weights = layer.weights
    if sample.answer is None or not len(sample.answer):
        return weights.lse.new_full(weights.shape[:1], float("nan"))
    queries, places = sample.answer.to(weights.device).unbind(1)
    largest: Tensor = weights[:, queries].argmax(-1)
    return (largest == places).double().mean(-1)


def places(sample: Sample) -> Edges:
    """The pairs of a query that predicts a token of the answer, and the place of that token in the needle."""
    query, key = torch.full_like(sample.ids, -1), torch.full_like(sample.key_ids, -1)
    if sample.answer is not None:
        number = torch.arange(len(sample.answer))
        query[sample.answer[:, 0]], key[sample.answer[:, 1]] = number, number
    return Alike(query, key)
