"""What each passage added, through the values that heads took from it, to the logits of the reply's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.answers.prompt import Asked
from regard.attribution.layers import layer_of
from regard.attribution.logits import check_adds, final_direction
from regard.attribution.target import Target

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens import Reading


def direct_logits(reading: Reading, asked: Asked) -> Float[Tensor, "sentences passages"]:
    """Direct logit attribution of the tokens of each sentence to the tokens of each passage.

        Σ_t Σ_j Σ_l Σ_h w^lh_ij (v^l_j W_O^lh)·u_t

    t are the tokens of a sentence, i the token before t, j the tokens of a passage; u_t is the direction of t in the
    residual stream, as in `attribution.logits`, whose rows these are, summed over all layers and heads.

    Raises ValueError, as `attribution.logits`, for a model in which a logit is no sum of what heads add.
    """
    writers, passages = asked.writers, asked.passages
    counts = torch.bincount(writers[writers >= 0], minlength=len(asked.spans))
    rows = torch.arange(asked.reply - 1, len(asked.ids) - 1)
    targets = [Target.next_token(reading, int(asked.ids[row + 1]), position=int(row)) for row in rows]
    directions = [final_direction(reading, target) for target in targets]
    total = torch.zeros(len(asked.spans), asked.passage_count, dtype=torch.float64)
    for number in reading.attention_layers:
        check_adds(reading, number)
        layer = layer_of(reading, number)
        towards = torch.stack([at.factor[row] * at.direction for row, at in zip(rows, directions, strict=True)])
        if layer.scale is not None:
            towards = towards * layer.scale[rows, None]
        asks = torch.zeros(*layer.values.shape[:2], layer.values.shape[2], dtype=torch.float64)  # (H,N,E)
        asks[:, rows] = torch.einsum("hed,td->hte", layer.joining_weight.double(), towards.double()).cpu()
        weights = layer.weights
        added = weights.times(query=asks.to(weights.device, weights.dtype), key=layer.values.to(weights.dtype))
        mean = added.grouped(queries=writers.to(weights.device), keys=passages.to(weights.device))
        total[: mean.shape[1], : mean.shape[2]] += mean.sum(0).cpu()
    return total * counts[:, None]
