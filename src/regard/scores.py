"""The scores of attention, never stored: any block of the (B,H,Q,K) matrix, at any time, from q and k."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.mask import Block, Mask, pairs_of, select, select_broadcast

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Scores:
    """s_ij = softcap(scale · q_i·k_j) + bias_ij, and −inf where the mask hides key j from query i.

    B batch; H query heads; G key/value heads, H a multiple of G; Q queries; K keys; D dim per head.
    """

    query: Float[Tensor, "B H Q D"]
    key: Float[Tensor, "B G K D"]
    mask: Mask
    scale: float
    bias: Float[Tensor, "#B #H #Q #K"] | None = None
    softcap: float | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, Q, K)."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]

    @property
    def n_rep(self) -> int:
        """How many query heads share a key/value head: H / G."""
        return max(1, self.query.shape[1] // max(1, self.key.shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        """What the arithmetic is done in: float64 for float64 input, float32 for all others."""
        return torch.promote_types(self.query.dtype, torch.float32)

    def of_heads(self, batch: slice, heads: slice) -> Scores:
        """The scores of a run of sequences and a run of heads, which make up whole groups or lie in one: views."""
        if (batch.start, batch.stop, heads.start, heads.stop) == (0, self.shape[0], 0, self.shape[1]):
            return self
        query, key = self.query[batch, heads], self.key[batch, self.groups(heads)]
        bias = None if self.bias is None else select_broadcast(self.bias, batch, heads)
        return replace(self, query=query, key=key, mask=self.mask.of_heads(batch, heads), bias=bias)

    def tile(self, at: Block) -> Float[Tensor, "b h q k"]:
        """A block of the matrix. Its heads must make up whole groups, or lie in one."""
        return self.apply_modifiers(at, self._scaled(at))

    def _scaled(self, at: Block) -> Float[Tensor, "b h q k"]:
        """scale · q_i·k_j."""
        query = select(self.query[at.batch, at.heads], 2, at.rows).to(self.dtype) * self.scale
        key = select(self.key[at.batch, self.groups(at.heads)], 2, at.columns).to(self.dtype)
        return matmul(query, key.mT)

    def apply_modifiers(self, at: Block, scores: Float[Tensor, "b h q k"]) -> Float[Tensor, "b h q k"]:
        """Softcap, bias and mask, in place, for scaled products q·k."""
        if self.softcap is not None:
            capped = _over(scores, self.softcap).tanh_().mul_(self.softcap)
            scores = scores if capped is scores else scores.copy_(capped)
        if self.bias is not None:
            scores += select_broadcast(self.bias, *at)
        visible = self.mask.tile(at, scores.device)
        return scores if visible is None else scores.masked_fill_(~visible, -torch.inf)

    def tanh(self, at: Block) -> Float[Tensor, "b h q k"]:
        """tanh(s/c) for a part of the matrix, s before the softcap c: c·tanh(s/c) has the derivative 1 − tanh²."""
        scores = self._scaled(at)
        if self.softcap is None:
            raise ValueError("Scores.tanh: there is no softcap.")
        tanh = _over(scores, self.softcap).tanh_()
        return tanh if tanh is scores else scores.copy_(tanh)

    def groups(self, heads: slice) -> slice:
        """The key/value heads that these query heads use."""
        return slice(heads.start // self.n_rep, -(-heads.stop // self.n_rep))

    def pairs(self, rows: slice, columns: slice) -> Float[Tensor, "B H n"]:
        """The scores of as many rows as columns, one with one: of a diagonal, without the matrix."""
        batch, heads, _, _ = self.shape
        scores = self.query.new_empty(batch, heads, rows.stop - rows.start, dtype=self.dtype)
        for head in range(heads):  # one after another: what is multiplied stays in a cache
            query, key = self.query[:, head, rows].to(self.dtype), self.key[:, head // self.n_rep, columns]
            torch.linalg.vecdot(query, key.to(self.dtype), out=scores[:, head])
        scores *= self.scale
        if self.softcap is not None:
            scores = _over(scores, self.softcap).tanh_().mul_(self.softcap).to(self.dtype)
        if self.bias is not None:
            scores += pairs_of(self.bias, rows, columns)
        visible = self.mask.pairs(batch, heads, rows, columns, scores.device)
        return scores if visible is None else scores.masked_fill_(~visible, -torch.inf)

    def blocks(
        self, numbers: int | None = None, *, rows: slice | None = None, heads_together: bool = False
    ) -> Iterator[Block]:
        """Blocks that cover the matrix, or a run of its rows: runs of rows, each with all the keys that they may see.

        `numbers` is roughly how many scores a block may have: few enough to stay in a cache, enough to keep a matrix
        product busy. Memory is O(N): a row at least, however long. `heads_together`: each block has all heads.
        """
        batch, heads, queries, _ = self.shape
        numbers = numbers or (1 << 21 if self.query.device.type == "cpu" else 1 << 26)
        together = heads if heads_together else self.n_rep
        # The rows of a block share a run of keys; where the mask gives each row its own, tall blocks waste computation.
        for band in _runs(slice(0, queries) if rows is None else rows, 256 if self.mask.bounded else queries):
            key_range = self.mask.key_range(slice(0, batch), band)
            keys = max(1, key_range.stop - key_range.start)
            count = max(128, numbers // max(1, batch * heads * keys))
            count = min(count, max(1, numbers // max(1, together * keys)), band.stop - band.start)
            step_heads = together * max(1, numbers // max(1, count * keys * together))
            step_batch = max(1, numbers // max(1, count * keys * min(step_heads, heads)))
            for sequences in _runs(slice(0, batch), step_batch):
                for row in _runs(band, count):
                    key_range = self.mask.key_range(sequences, row)
                    for head in _runs(slice(0, heads), step_heads):
                        yield Block(sequences, head, row, key_range)


def _over(scores: Tensor, softcap: float) -> Tensor:
    """s/c, in place, or in float64 where float32 would lose c: c·tanh(s/c) is s for c = 1e300, and 0 for 1e-50."""
    return (scores if fits_float32(softcap) else scores.double()).div_(softcap)


def fits_float32(softcap: float) -> bool:
    """Whether s/c and c·tanh(s/c) are exact in float32 for any scores that float32 holds well itself."""
    return 2.0**-100 <= softcap <= 2.0**100


def matmul(left: Float[Tensor, "b h m n"], right: Float[Tensor, "#b g n p"]) -> Float[Tensor, "b h m p"]:
    """Matrix product of h heads with g, h a multiple of g: heads of one group share, and nothing is repeated.

    In the precision of its inputs, under torch.autocast too: weights are promised in float32.
    """
    batch, heads, rows, inner = left.shape
    groups = right.shape[1]
    with torch.autocast(left.device.type, enabled=False):
        if groups in (0, heads):
            return left @ right
        folded = left.reshape(batch, groups, heads // groups * rows, inner) @ right
    return folded.view(batch, heads, rows, right.shape[-1])


def _runs(whole: slice, step: int) -> Iterator[slice]:
    step = max(1, step)
    return (slice(start, min(start + step, whole.stop)) for start in range(whole.start, whole.stop, step))
