"""Weights: the (B,H,Q,K) matrix that is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from regard.backends import streaming
from regard.mask import Block, Index
from regard.scores import Scores

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int

DENSE_LIMIT = 1 << 30  # bytes


class Top(NamedTuple):
    """The largest weights and the keys they belong to."""

    values: Float[Tensor, "..."]
    indices: Int[Tensor, "..."]


class Weights:
    """The weights of an attention, w_ij = exp(s_ij − lse_i), as a function of query, key and one number a row.

    It has the shape (…,Q,K) of the matrix and none of its memory: a row, a tile or a statistic is computed from the
    scores when it is asked for, in O(N) memory. Whole rows are softmaxed afresh, so that they sum to one to the last
    digit; parts of rows use the lse. The weights are constants: no gradient flows through them.

    Query and key are kept, not copied; if they are changed in place after that, asking raises RuntimeError.

    np.asarray(w), torch's functions given a Weights, and the methods of torch.Tensor that this class does not have
    itself act on `dense()`, so that tools written for dense attentions go on working.

    >>> import regard
    >>> q = torch.randn(2, 3, 5, 7)
    >>> w = regard.attention(q, q, q, causal=True).weights
    >>> w.shape
    torch.Size([2, 3, 5, 5])
    >>> w[0, 2, 1]                                    # whom query 1 looks at in head 2 of the first sequence
    tensor([..., ..., 0.0000, 0.0000, 0.0000])
    >>> w[..., 1:3, 2:].shape                         # a tile
    torch.Size([2, 3, 2, 3])
    """

    def __init__(
        self,
        scores: Scores,
        lse: Float[Tensor, "B H Q"],
        sinks: Float[Tensor, "H"] | None = None,
        *,
        leading: Sequence[int] | None = None,
        collected: streaming.Statistics | None = None,
    ) -> None:
        bias = None if scores.bias is None else scores.bias.detach()
        self._scores = replace(scores, query=scores.query.detach(), key=scores.key.detach(), bias=bias)
        self._lse = lse.detach()
        self._sinks = None if sinks is None else sinks.detach()
        self._collected = dict(collected or {})
        self._leading = tuple(scores.shape[:2] if leading is None else leading)
        self._versions = self._current_versions()
        self.shape = torch.Size((*self._leading, *scores.shape[2:]))
        self.ndim = len(self.shape)
        self.dtype = scores.dtype
        self.device = scores.query.device

    # What they are made of

    @property
    def scores(self) -> Scores:
        """The scores before the softmax, in four dimensions: query, key, mask, bias, scale, softcap."""
        if self._current_versions() != self._versions:
            raise RuntimeError(
                "Weights: query, key or bias was changed in place after the attention was computed, so the weights "
                "can no longer be had. Read them before, or hand attention() a clone."
            )
        return self._scores

    @property
    def lse(self) -> Float[Tensor, "... Q"]:
        """log Σ_j exp(s_ij), sinks included; −inf for a query that sees nothing."""
        return self._shaped(self._lse)

    @property
    def sinks(self) -> Float[Tensor, "H"] | None:
        """The logit of each head's sink."""
        return self._sinks

    def __repr__(self) -> str:
        return f"Weights(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    def __len__(self) -> int:
        return self.shape[0]

    # Parts

    def __getitem__(self, index: Any) -> Float[Tensor, "..."]:
        """A part of the matrix, as from a tensor: by integers, slices, `...`, and one list or tensor of positions.

        Raises IndexError past the end and ValueError where the part is larger than `dense()` allows.
        """
        index = index if isinstance(index, tuple) else (index,)
        named = [n for n, one in enumerate(index) if isinstance(one, list | Tensor) and not _is_integer(one)]
        if len(named) > 1:
            raise IndexError(f"Weights: expected at most one list or tensor in an index. Got {len(named)}.")
        full = [slice(None)] * (4 - self.ndim) + self._spelled_out(index)
        picked = [_pick(one, size, dim) for dim, (one, size) in enumerate(zip(full, self._scores.shape, strict=True))]
        sizes = [len(positions) for positions in picked]
        self._refuse_if_large(sizes, DENSE_LIMIT, "Ask for a smaller part")
        tile = self._tile(*picked)
        for dim in reversed(range(4)):
            if _is_integer(full[dim]) or dim < 4 - self.ndim:
                tile = tile.select(dim, 0)
        return tile

    def _spelled_out(self, index: tuple) -> list:
        wanted = self.ndim - sum(1 for one in index if one is not Ellipsis)
        if wanted < 0 or sum(1 for one in index if one is Ellipsis) > 1:
            raise IndexError(f"Weights: expected at most {self.ndim} indices, one for each of {tuple(self.shape)}.")
        if Ellipsis not in [one if one is Ellipsis else None for one in index]:
            index = (*index, Ellipsis)
        at = next(n for n, one in enumerate(index) if one is Ellipsis)
        return [*index[:at], *([slice(None)] * wanted), *index[at + 1 :]]

    def _tile(self, batch: Tensor, heads: Tensor, rows: Tensor, columns: Tensor) -> Float[Tensor, "b h q k"]:
        scores, out = self.scores, []
        whole_rows = len(columns) == scores.shape[3] and bool((columns == torch.arange(len(columns))).all())
        for b in batch.tolist():
            for h in heads.tolist():
                at = Block(slice(b, b + 1), slice(h, h + 1), _run(rows), _run(columns))
                tile = scores.tile(at)
                if whole_rows:
                    out.append(streaming.softmax(tile, None if self._sinks is None else self._sinks[h : h + 1])[0])
                else:
                    lse = self._lse[b : b + 1, h : h + 1].index_select(2, rows.to(self.device))
                    hidden = tile == -torch.inf
                    out.append((tile - lse[..., None]).exp_().masked_fill_(hidden, 0))
        if not out:
            return self._lse.new_zeros(len(batch), len(heads), len(rows), len(columns))
        return torch.cat(out).view(len(batch), len(heads), len(rows), len(columns))

    def dense(self, limit: int = DENSE_LIMIT) -> Float[Tensor, "... Q K"]:
        """The whole matrix. Raises ValueError where it takes more than `limit` bytes."""
        self._refuse_if_large(self.shape, limit, "Ask for a tile, pool it, or call dense(limit=…)")
        scores = self.scores
        weights = self._lse.new_zeros(scores.shape)
        for at, tile, _ in streaming.weights_of(scores, self._sinks):
            weights[at.batch, at.heads, at.rows, at.columns] = tile
        return self._shaped(weights)

    def _refuse_if_large(self, shape: Sequence[int], limit: int, what_to_do: str) -> None:
        size = torch.Size(shape).numel() * self.dtype.itemsize
        if size > limit:
            raise ValueError(
                f"Weights{tuple(self.shape)}: {tuple(shape)} weights take {size / 2**30:.1f} GiB, "
                f"more than the limit of {limit / 2**30:.1f} GiB. {what_to_do}."
            )

    # Statistics of rows

    def entropy(self) -> Float[Tensor, "... Q"]:
        """−Σ_j w_ij ln w_ij, in nats: 0 for a query with one key, ln K for one that looks at K keys alike."""
        return self._statistic("entropy")

    def max(self) -> Top:
        """The largest weight of each query and its key; .values and .indices (…,Q)."""
        return Top(*self._statistic("max"))

    def topk(self, k: int) -> Top:
        """The k largest weights of each query and their keys, sorted, ties to the lower; (…,Q,k)."""
        name = statistic(f"topk:{k}", self.shape[-1])
        for collected, found in self._collected.items():
            if collected.startswith("topk:") and int(collected.removeprefix("topk:")) >= k:
                return Top(*(self._shaped(part[..., :k]) for part in found))
        return Top(*self._statistic(name))

    def distance(self) -> Float[Tensor, "... Q"]:
        """Σ_j w_ij |i − j|: how far each query looks, in positions."""
        return self._statistic("distance")

    def sink(self) -> Float[Tensor, "... Q"]:
        """The mass that the sink took from each row; 0 without sinks."""
        if self._sinks is None:
            return self._shaped(torch.zeros_like(self._lse))
        return self._shaped((self._sinks.to(self._lse.dtype)[:, None] - self._lse).exp())

    def _statistic(self, name: str) -> Any:
        if name not in self._collected:
            self._collected.update(streaming.statistics(self.scores, self._sinks, [name]))
        found = self._collected[name]
        return self._shaped(found) if isinstance(found, Tensor) else tuple(self._shaped(part) for part in found)

    # Reductions over the matrix

    def received(self) -> Float[Tensor, "... K"]:
        """Σ_i w_ij: the attention that each key gets, from all queries."""
        return self._shaped(streaming.received(self.scores, self._sinks))

    def grouped(
        self, queries: Int[Tensor, "Q"] | None = None, keys: Int[Tensor, "K"] | None = None
    ) -> Float[Tensor, "... R C"]:
        """Weights by word, sentence or passage: the mean over the queries of a group of the sum over its keys.

        Args:
            queries, keys: the group of each position, counted from 0; −1 is in none. Not given: each on its own.
        """
        _, _, rows, columns = self._scores.shape
        query_groups, key_groups = self._groups("queries", queries, rows), self._groups("keys", keys, columns)
        sizes = _count(query_groups), _count(key_groups)
        self._refuse_if_large((*self._leading, *sizes), DENSE_LIMIT, "Make fewer groups")
        total = streaming.grouped(self.scores, self._sinks, query_groups, key_groups, sizes, "sum")
        members = torch.bincount(query_groups[query_groups >= 0], minlength=sizes[0]).clamp(min=1)
        return self._shaped(total / members[:, None])

    def _groups(self, name: str, groups: Tensor | None, size: int) -> Tensor:
        if groups is None:
            return torch.arange(size, device=self.device)
        groups = torch.as_tensor(groups, device=self.device)
        if groups.shape != (size,) or groups.dtype.is_floating_point or groups.dtype == torch.bool:
            raise ValueError(
                f"Weights{tuple(self.shape)}.grouped: {name}: expected the group of each position, {size} integers. "
                f"Got {tuple(groups.shape)} {groups.dtype}."
            )
        return groups.long()

    def pool(self, rows: int, cols: int, reduce: Literal["mean", "max", "sum"] = "mean") -> Float[Tensor, "... R C"]:
        """The matrix as a picture of rows × cols cells: cell r holds queries ⌊r·Q/rows⌋ up to the next cell's first."""
        _, _, queries, keys = self._scores.shape
        call = f"Weights{tuple(self.shape)}.pool({rows}, {cols}, {reduce!r})"
        if reduce not in ("mean", "max", "sum"):
            raise ValueError(f"{call}: reduce: expected 'mean', 'max' or 'sum'.")
        for name, count, size in (("rows", rows, queries), ("cols", cols, keys)):
            if not 1 <= count <= size:
                raise ValueError(f"{call}: {name}: expected 1 to {size}, as many as there are positions. Got {count}.")
        cell_of_row, cell_of_column = self._cells(queries, rows), self._cells(keys, cols)
        kind = "max" if reduce == "max" else "sum"
        cells = streaming.grouped(self.scores, self._sinks, cell_of_row, cell_of_column, (rows, cols), kind)
        if reduce == "mean":
            cells /= cell_of_row.bincount()[:, None] * cell_of_column.bincount()
        return self._shaped(cells)

    def _cells(self, size: int, cells: int) -> Int[Tensor, "size"]:
        first = torch.arange(cells, device=self.device) * size // cells
        return torch.bucketize(torch.arange(size, device=self.device), first, right=True) - 1

    def __matmul__(self, x: Float[Tensor, "... K F"]) -> Float[Tensor, "... Q F"]:
        """w @ x: the weights applied to other vectors; x has one matrix a query head, a group, or for all."""
        x = self._vectors("w @ x", x, self._scores.shape[3])
        return self._shaped(streaming.apply(self.scores, self._sinks, x))

    @property
    def T(self) -> Transposed:  # noqa: N802
        """For w.T @ y."""
        return Transposed(self)

    @property
    def mT(self) -> Transposed:  # noqa: N802
        """The same: only the last two dimensions change places."""
        return Transposed(self)

    def _transposed_matmul(self, y: Float[Tensor, "... Q F"]) -> Float[Tensor, "... K F"]:
        y = self._vectors("w.T @ y", y, self._scores.shape[2])
        heads = self._scores.shape[1]
        if y.shape[1] not in (1, heads):
            y = y.repeat_interleave(heads // y.shape[1], dim=1)
        return self._shaped(streaming.apply_transposed(self.scores, self._sinks, y))

    def _vectors(self, call: str, x: Tensor, size: int) -> Tensor:
        batch, heads = self._scores.shape[:2]
        groups = self._scores.key.shape[1]
        if not isinstance(x, Tensor) or x.ndim < 2 or x.ndim > 4:
            raise ValueError(
                f"{call} with w {tuple(self.shape)}: expected a tensor (…, {size}, F). Got {_described(x)}."
            )
        x4 = x[(None,) * (4 - x.ndim)]
        if x4.shape[2] != size or x4.shape[0] not in (1, batch) or x4.shape[1] not in (1, groups, heads):
            raise ValueError(f"{call}, w {tuple(self.shape)}: expected (…, {size}, F). Got {tuple(x.shape)}.")
        return x4

    # As a dense tensor, for others

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return function(*_densely(args), **_densely(kwargs or {}))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        array = self.dense().cpu().numpy()
        return array if dtype is None else array.astype(dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(f"'Weights' object has no attribute {name!r}")
        return getattr(self.dense(), name)

    # Inside

    def _shaped(self, tensor: Tensor) -> Tensor:
        """From (B,H,…) to the leading dimensions of the call."""
        return tensor[(0,) * (2 - len(self._leading))]

    def _current_versions(self) -> list[int]:
        tensors = (self._scores.query, self._scores.key, self._scores.bias)
        return [t._version for t in tensors if t is not None and not t.is_inference()]


class Transposed:
    """w.T, for w.T @ y: what each key would collect if the queries handed out y by their weights."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.shape = torch.Size((*weights.shape[:-2], weights.shape[-1], weights.shape[-2]))

    def __matmul__(self, y: Float[Tensor, "... Q F"]) -> Float[Tensor, "... K F"]:
        return self._weights._transposed_matmul(y)


def statistic(name: str, keys: int) -> str:
    """The name of a row statistic, checked: "entropy", "max" or "topk:k" with k from 1 to the number of keys."""
    if name in ("entropy", "max"):
        return name
    kind, _, number = str(name).partition(":")
    if kind != "topk" or not number.isdecimal():
        raise ValueError(f'collect: expected "entropy", "max" or "topk:8". Got {name!r}.')
    if not 1 <= int(number) <= keys:
        raise ValueError(f"topk: expected k from 1 to {keys}, the number of keys. Got {number}.")
    return f"topk:{int(number)}"


def _count(groups: Int[Tensor, "n"]) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


def _is_integer(index: Any) -> bool:
    return isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0) or hasattr(index, "__index__")


def _pick(index: Any, size: int, dim: int) -> Int[Tensor, "n"]:
    """The positions that one index names."""
    if isinstance(index, slice):
        return torch.arange(size)[index] if index.step is None or index.step > 0 else _no_step(index)
    if isinstance(index, list | Tensor) and not _is_integer(index):
        picked = torch.as_tensor(index)
        if picked.dtype == torch.bool and picked.shape == (size,):
            return picked.nonzero()[:, 0].cpu()
        if picked.ndim == 1 and not picked.dtype.is_floating_point and picked.dtype != torch.bool:
            picked = picked.long().cpu()
        else:
            raise IndexError(f"Weights: expected a list of integers, or {size} bools. Got {_described(picked)}.")
    elif _is_integer(index):
        picked = torch.tensor([int(index)])
    else:
        raise IndexError(f"Weights: expected integers, slices, `...`, a list or a tensor. Got {index!r}.")
    if len(picked) and not (-size <= int(picked.min()) and int(picked.max()) < size):
        raise IndexError(f"Weights: index {picked.tolist()} is out of range for dimension {dim} with size {size}.")
    return torch.where(picked < 0, picked + size, picked)


def _no_step(index: slice) -> Tensor:
    raise ValueError(f"Weights: expected a slice with a step > 0. Got {index}.")


def _run(picked: Int[Tensor, "n"]) -> Index:
    """A slice where the positions follow one another: a view then, and no copy."""
    if len(picked) and bool((picked.diff() == 1).all()):
        return slice(int(picked[0]), int(picked[-1]) + 1)
    return picked


def _densely(thing: Any) -> Any:
    if isinstance(thing, Weights):
        return thing.dense()
    if isinstance(thing, list | tuple):
        return type(thing)(_densely(one) for one in thing)
    if isinstance(thing, dict):
        return {name: _densely(one) for name, one in thing.items()}
    return thing


def _described(thing: Any) -> str:
    return f"{tuple(thing.shape)} {thing.dtype}" if isinstance(thing, Tensor) else type(thing).__name__
