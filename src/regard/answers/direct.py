"""What each passage added, through the values that heads took from it, to the logits of the reply's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.answers.mass import rows_of_reply, summed
from regard.answers.prompt import Asked
from regard.attribution.layers import layer_of
from regard.attribution.logits import check_adds, directions_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens import Reading


def direct_logits(reading: Reading, asked: Asked) -> Float[Tensor, "sentences passages"]:
    """Direct logit attribution of the tokens of each sentence to the tokens of each passage.

        Σ_t Σ_j Σ_l Σ_h w^lh_ij (v^l_j W_O^lh)·u_t

    t are the tokens of a sentence, i the token before t, j the tokens of a passage; u_t is the direction of t in the
    residual stream, as in `attribution.logits`, whose rows these are, summed over all layers and heads.

    Cost: the rows of the weights that belong to the reply, a few at a time.

    Raises ValueError, as `attribution.logits`, for a model in which a logit is no sum of what heads add.
    """
    directions, factor = directions_of(reading, asked.ids[asked.reply :])
    towards = directions * factor[asked.reply - 1 : -1, None]  # (reply,dim)
    total = torch.zeros(len(asked.spans), asked.passage_count)
    for number in reading.attention_layers:
        check_adds(reading, number)
        layer = layer_of(reading, number)
        joining, values = layer.joining_weight, layer.values
        dtype = torch.promote_types(values.dtype, torch.float32)
        for rows in rows_of_reply(asked):
            these = towards[rows.start - asked.reply + 1 : rows.stop - asked.reply + 1].to(joining)
            if layer.scale is not None:
                these = these * layer.scale[rows, None].to(these)
            taken = torch.einsum("hed,td->hte", joining, these).to(dtype) @ values.to(dtype).mT  # (H,rows,N)
            added = layer.weights[:, rows].to(dtype) * taken
            sums = summed(added, asked.writers[rows], asked.passages, len(asked.spans), asked.passage_count)
            total = total + sums.sum(0).cpu()
    return total
