"""Weights: the (B,H,Q,K) matrix that is never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from regard._checks import traced
from regard.backends import streaming
from regard.weights import arguments, reductions
from regard.weights.autograd import Reduction, evaluate, transformed
from regard.weights.map import Map, Top

if TYPE_CHECKING:
    from jaxtyping import Float


class Weights(Map):
    """The weights of an attention, w_ij = exp(s_ij − lse_i), as a function of query, key and one number a row.

    It has the shape (…,Q,K) of the matrix and none of its memory: a row, a tile or a statistic is computed from the
    scores when it is asked for, in O(N) memory. Whole rows are softmaxed afresh, so that they sum to one to the last
    digit; parts of rows use the lse.

    All that is asked for is differentiable in query, key, bias and sinks, where they required grad when the attention
    was computed; the gradient is streamed too. There is no second derivative, and none in forward mode: both raise
    RuntimeError.

    Query, key and the other inputs are kept, not copied; if one is changed in place after that, asking raises
    RuntimeError.

    np.asarray(w), torch's functions given a Weights, and the operators and methods of torch.Tensor that this class does
    not have itself act on `dense()`, so that tools written for dense attentions go on working. `to`, `cpu`, `detach`
    and `clone` give Weights again. What changes a tensor in place raises TypeError.

    >>> import regard
    >>> q = torch.ones(2, 3, 5, 7)
    >>> w = regard.attention(q, q, q, causal=True).weights
    >>> w.shape
    torch.Size([2, 3, 5, 5])
    >>> w[0, 2, 1]                                    # whom query 1 looks at in head 2 of the first sequence
    tensor([0.5000, 0.5000, 0.0000, 0.0000, 0.0000])
    >>> w[..., 1:3, 2:].shape                         # a tile
    torch.Size([2, 3, 2, 3])
    """

    @property
    def lse(self) -> Float[Tensor, "... Q"]:
        """log Σ_j exp(s_ij), sinks included; −inf for a query that sees nothing."""
        return self._reduced(reductions.LSE)

    def combined(self, gram: Float[Tensor, "... K H H"]) -> Map:
        """The heads combined, into the length of a sum of vectors f^h_j, one a head and key: a map (…,Q,K).

            M_ij = ‖Σ_h w^h_ij f^h_j‖ = √(Σ_hh′ w^h_ij w^h′_ij G_j[h,h′])      G_j[h,h′] = f^h_j·f^h′_j

        Args:
            gram: G, symmetric, for each sequence or for all. A vector a pair is never needed.

        Raises ValueError for another shape.

        >>> import torch, regard
        >>> x = torch.randn(4, 5, 8)                                  # 4 heads
        >>> vectors = torch.randn(5, 4, 16)                           # for each key, what each head takes from it
        >>> w = regard.attention(x, x, x).weights
        >>> m = w.combined(vectors @ vectors.mT)
        >>> m.shape
        torch.Size([5, 5])
        >>> bool(torch.isclose(m[2, 3], (w[:, 2, 3] @ vectors[3]).norm()))
        True
        """
        heads, keys = self._scores.shape[1], self.shape[-1]
        sequences = torch.Size(self._leading[:-1])
        fits = isinstance(gram, Tensor) and gram.shape[-3:] == (keys, heads, heads)
        if not fits or gram.shape[:-3].numel() not in (1, sequences.numel()) or gram.ndim - 3 > len(sequences):
            raise ValueError(
                f"{self._label}.combined: gram: expected (…, {keys}, {heads}, {heads}), for each key the products of "
                f"the vectors of its heads. Got {arguments.describe(gram)}."
            )
        return self._map((), gram.reshape(-1, keys, heads, heads))

    # Statistics of rows

    def collect(self, *names: Literal["entropy", "distance", "max_score"]) -> None:
        """Compute several statistics in one pass; the methods of these names then return them.

        As collect= of `attention`, for weights that are there already. Raises ValueError for another name.

        >>> import torch, regard
        >>> x = torch.ones(3, 8)
        >>> w = regard.attention(x, x, x, causal=True).weights
        >>> w.collect("entropy", "distance")
        >>> w.entropy(), w.distance()
        (tensor([0.0000, 0.6931, 1.0986]), tensor([0.0000, 0.5000, 1.0000]))
        """
        for name in names:
            if name not in reductions.STATISTICS:
                expected = ", ".join(map(repr, reductions.STATISTICS))
                raise ValueError(f"{self._label}.collect: expected names among {expected}. Got {name!r}.")
        unknown = [name for name in dict.fromkeys(names) if name not in self._known and name not in self._collected]
        if unknown and not transformed() and not traced():  # whose results may not be kept
            with torch.no_grad():
                matrix = self._matrix
                statistics = reductions.serving(matrix).statistics(matrix, unknown)
            self._known.update(statistics)

    def entropy(self, queries: slice = slice(None)) -> Float[Tensor, "... q"]:
        """−Σ_j w_ij ln w_ij, in nats: 0 for a query with one key, ln K for one that looks at K keys alike.

        queries: a slice of them, which alone is computed; all if not given.

        >>> import torch, regard
        >>> x = torch.ones(5, 8)                                      # all scores are equal: ln 1, ln 2, ln 3 …
        >>> regard.attention(x, x, x, causal=True).weights.entropy()
        tensor([0.0000, 0.6931, 1.0986, 1.3863, 1.6094])
        """
        return self._statistic("entropy", queries)

    def distance(self, queries: slice = slice(None)) -> Float[Tensor, "... q"]:
        """Σ_j w_ij |i − j|: how far each query looks, in positions; of a slice of the queries, or all.

        >>> import torch, regard
        >>> x = torch.ones(5, 8)
        >>> regard.attention(x, x, x, causal=True).weights.distance()
        tensor([0.0000, 0.5000, 1.0000, 1.5000, 2.0000])
        """
        return self._statistic("distance", queries)

    def max_score(self, queries: slice = slice(None)) -> Float[Tensor, "... q"]:
        """max_j s_ij, the largest score of each query; −inf for one that sees nothing.

        log max_j w_ij + lse_i without sinks: what grows before training diverges, and what QK-clip bounds (Kimi Team
        2025, https://arxiv.org/abs/2507.20534, section 2.1).

        >>> import torch, regard
        >>> x = torch.eye(3) * 4
        >>> regard.attention(x, x, x, scale=0.5).weights.max_score()
        tensor([8., 8., 8.])
        """
        return self._statistic("max_score", queries)

    def _statistic(self, name: str, queries: slice) -> Float[Tensor, "... q"]:
        rule, known = self._matrix, self._known.get(name, self._collected.get(name, ()))
        if name == "max_score":
            rule = rule._replace(sinks=None)
        run, step = arguments.run_of(f"{self._label}.{name}", queries, self.shape[-2])
        if known or run == slice(0, self.shape[-2]):
            rows = evaluate(reductions.STATISTICS[name], rule, *known)
            if not known:
                self._remember(name, rows)
            rows = rows[:, :, run]
        else:
            rows = evaluate(reductions.statistic(name, run), rule)
        return self._shaped(rows[:, :, ::step])

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, magnitude: bool = False) -> Top:
        """The k largest weights of each query and their keys, sorted, ties to the lower; (…,Q,k).

        No weight is negative, so that `magnitude` changes nothing.
        For another dimension than the keys', or the least weights, as torch.Tensor.topk of `dense()`.

        >>> import torch, regard
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> regard.attention(x, x, x).weights.topk(2).indices         # the two keys that each query looks at most
        tensor([[0, 2],
                [1, 2],
                [2, 0]])
        """
        if not self._by_key(dim) or not largest:
            return Top(*self.dense().topk(k, dim, largest, sorted))
        k = arguments.number_of_largest(k, self.shape[-1])
        self._refuse_if_large((*self.shape[:-1], k), "Ask for fewer", item=self._dtype.itemsize + 8)
        for name, known in self._known.items():
            if name.startswith("topk:") and known[0].shape[-1] >= k:
                return self._top(reductions.topk(k, settled=True), known)
        for name, known in self._collected.items():  # one more than k shows whether the order at the edge is sure
            if name.startswith("topk:") and known[0].shape[-1] >= min(k + 1, self.shape[-1]):
                return self._top(reductions.topk(k), known, remember=f"topk:{k}")
        return self._top(reductions.topk(k), (), remember=f"topk:{k}")

    def _top(self, reduction: Reduction, known: tuple[Tensor, ...], remember: str | None = None) -> Top:
        values, indices = evaluate(reduction, self._matrix, *known)
        if remember:
            self._remember(remember, values, indices)
        return Top(self._shaped(values), self._shaped(indices))

    def _remember(self, name: str, *results: Tensor) -> None:
        if not transformed():
            self._known[name] = tuple(result.detach().clone() for result in results)

    def sink(self) -> Float[Tensor, "... Q"]:
        """The mass that the sink took from each row; 0 without sinks.

        >>> import torch, regard
        >>> x = torch.ones(1, 3, 8)
        >>> w = regard.attention(x, x, x, scale=0.0, sinks=torch.zeros(1)).weights
        >>> w.sink()                                                  # one of four equal logits
        tensor([[0.2500, 0.2500, 0.2500]])
        >>> w[0, 0]
        tensor([0.2500, 0.2500, 0.2500])
        """
        lse = evaluate(reductions.LSE, self._matrix)
        if self._sinks is None:
            return self._shaped(torch.zeros_like(lse))
        return self._shaped(streaming.sink_mass(self._sinks, lse))
