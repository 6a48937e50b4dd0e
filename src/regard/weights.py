"""Weights: the (B,H,Q,K) matrix that is never stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from regard import backends
from regard.backends import streaming
from regard.mask import Block, Index, select
from regard.scores import Scores, Softmax

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int

DENSE_LIMIT = 1 << 30  # bytes
BLOCK = 1 << 21  # weights at a time, where a part of the matrix is asked for


class Top(NamedTuple):
    """The largest weights and the keys they belong to."""

    values: Float[Tensor, "..."]
    indices: Int[Tensor, "..."]


class Weights:
    """The weights of an attention, w_ij = exp(s_ij − lse_i), as a function of query, key and one number a row.

    It has the shape (…,Q,K) of the matrix and none of its memory: a row, a tile or a statistic is computed from the
    scores when it is asked for, in O(N) memory. Whole rows are softmaxed afresh, so that they sum to one to the last
    digit; large parts of rows use the lse. The weights are constants: no gradient flows through them.

    Query, key and the other inputs are kept, not copied; if one is changed in place after that, asking raises
    RuntimeError.

    np.asarray(w), torch's functions given a Weights, and the methods of torch.Tensor that this class does not have
    itself act on `dense()`, so that tools written for dense attentions go on working.

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
        self._versions = None if torch.compiler.is_compiling() else self._current_versions()  # no graph counts them
        self.shape = torch.Size((*self._leading, *scores.shape[2:]))
        self.ndim = len(self.shape)
        self.dtype = scores.dtype
        self.device = scores.query.device

    # What they are made of

    @property
    def scores(self) -> Scores:
        """The scores before the softmax, in four dimensions: query, key, mask, bias, scale, softcap."""
        if self._versions is not None and self._current_versions() != self._versions:
            raise RuntimeError(
                f"Weights{tuple(self.shape)}: query, key, bias, sinks, mask, lengths, segments or lse was changed in "
                "place after the attention was computed, so the weights can no longer be had. Read them before, or "
                "hand attention() a clone."
            )
        return self._scores

    @property
    def lse(self) -> Float[Tensor, "... Q"]:
        """log Σ_j exp(s_ij), sinks included; −inf for a query that sees nothing."""
        return self._shaped(self._lse.to(self.dtype))

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
        # The call may have had fewer than four dimensions; the others are of size 1, and taken by number.
        full = [0] * (4 - self.ndim) + _one_each(index, self.shape)
        picked = [_pick(one, dim, self._scores.shape) for dim, one in enumerate(full, start=-4)]
        if sum(one.ndim for one, given in zip(picked, full, strict=True) if not isinstance(given, slice)) > 1:
            raise IndexError(f"Weights{tuple(self.shape)}: expected at most one list or tensor in an index.")
        kept = [len(one) for one in picked if one.ndim]
        self._refuse_if_large(kept, DENSE_LIMIT, "Ask for a smaller part")
        return self._tile(*(one.reshape(-1) for one in picked)).view(kept)

    def _tile(self, batch: Tensor, heads: Tensor, rows: Tensor, columns: Tensor) -> Float[Tensor, "b h q k"]:
        scores, keys = self.scores, self._scores.shape[3]
        # Whole rows where they are not too many: a softmax of its own is more exact than exp(s − lse).
        whole = len(columns) == keys or len(rows) * keys <= BLOCK
        reach = slice(0, keys) if whole else _run(columns)
        step = max(1, BLOCK // max(1, keys if whole else len(columns)))
        tile = self._lse.new_empty(len(batch), len(heads), len(rows), len(columns), dtype=self.dtype)
        for (b, sequence), (h, head), start in product(
            enumerate(batch.tolist()), enumerate(heads.tolist()), range(0, len(rows), step)
        ):
            at = Block(slice(sequence, sequence + 1), slice(head, head + 1), _run(rows[start : start + step]), reach)
            if whole:
                sinks = None if self._sinks is None else self._sinks[at.heads]
                some = select(streaming.softmax(scores.tile(at), sinks)[0], 3, _run(columns))
            else:
                some = self._by.tile(self._softmax, at)
                if some.shape == tile.shape:  # all that was asked for: no need of a copy
                    return some
            tile[b, h, start : start + step] = some[0, 0]
        return tile

    def dense(self, limit: int = DENSE_LIMIT) -> Float[Tensor, "... Q K"]:
        """The whole matrix. Raises ValueError where it takes more than `limit` bytes."""
        self._refuse_if_large(self.shape, limit, "Ask for a tile, pool it, or call dense(limit=…)")
        return self._shaped(self._by.dense(self._softmax))

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
        return self._statistic("entropy")[0]

    def max(self) -> Top:
        """The largest weight of each query and its key; .values and .indices (…,Q)."""
        values, indices = self.topk(1)
        return Top(values[..., 0], indices[..., 0])

    def topk(self, k: int) -> Top:
        """The k largest weights of each query and their keys, sorted, ties to the lower; (…,Q,k)."""
        name = statistic(f"topk:{k}", self.shape[-1])
        larger = (one for one in self._collected if one.startswith("topk:") and int(one.removeprefix("topk:")) >= k)
        values, indices = self._statistic(next(larger, name))
        return Top(values[..., :k], indices[..., :k])

    def distance(self) -> Float[Tensor, "... Q"]:
        """Σ_j w_ij |i − j|: how far each query looks, in positions."""
        return self._statistic("distance")[0]

    def sink(self) -> Float[Tensor, "... Q"]:
        """The mass that the sink took from each row; 0 without sinks."""
        if self._sinks is None:
            return self._shaped(torch.zeros_like(self._lse, dtype=self.dtype))
        taken = (self._sinks.to(self._lse.dtype)[:, None] - self._lse).exp()
        return self._shaped(taken.masked_fill_(self._lse == -torch.inf, 0).to(self.dtype))

    def _statistic(self, name: str) -> tuple[Tensor, ...]:
        if name not in self._collected:
            self._collected.update(self._by.statistics(self._softmax, [name]))
        return tuple(
            self._shaped(part).clone() for part in self._collected[name]
        )  # they stay right if changed in place

    # Reductions over the matrix

    def received(self) -> Float[Tensor, "... K"]:
        """Σ_i w_ij: the attention that each key gets, from all queries."""
        return self._shaped(self._by.received(self._softmax))

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
        total = self._by.grouped(self._softmax, query_groups, key_groups, sizes, "sum")
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
            if not isinstance(count, int) or not 1 <= count <= size:
                raise ValueError(f"{call}: {name}: expected 1 to {size}, as many as there are positions. Got {count}.")
        cell_of_row, cell_of_column = self._cells(queries, rows), self._cells(keys, cols)
        kind = "max" if reduce == "max" else "sum"
        cells = self._by.grouped(self._softmax, cell_of_row, cell_of_column, (rows, cols), kind)
        if reduce == "mean":
            cells /= cell_of_row.bincount()[:, None] * cell_of_column.bincount()
        return self._shaped(cells)

    def _cells(self, size: int, cells: int) -> Int[Tensor, "size"]:
        first = torch.arange(cells, device=self.device) * size // cells
        return torch.bucketize(torch.arange(size, device=self.device), first, right=True) - 1

    def __matmul__(self, x: Float[Tensor, "... K F"]) -> Float[Tensor, "... Q F"]:
        """w @ x: the weights applied to other vectors; x has one matrix a query head, a group, or for all.

        Differentiable in x.
        """
        x = self._vectors("w @ x", x, self._scores.shape[3])
        return self._shaped(_Apply.apply(x, self, self._by.apply, self._by.apply_transposed))

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
        return self._shaped(_Apply.apply(y, self, self._by.apply_transposed, self._by.apply))

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
        if name in ("size", "dim", "numel", "nelement", "ndimension", "element_size", "is_floating_point"):
            return getattr(torch.empty(self.shape, dtype=self.dtype, device="meta"), name)
        if callable(getattr(Tensor, name)):
            return lambda *args, **kwargs: getattr(self.dense(), name)(*args, **kwargs)  # asking for it costs nothing
        return getattr(self.dense(), name)

    def __getstate__(self) -> dict:
        _ = self.scores  # a copy of what was changed in place would be wrong, and could not know it
        return self.__dict__

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._versions = self._current_versions()  # copies of tensors count from 0

    # Inside

    @property
    def _softmax(self) -> Softmax:
        return Softmax(self.scores, self._sinks, self._lse)

    @property
    def _by(self) -> ModuleType:
        return backends.reductions(self._softmax)

    def _shaped(self, tensor: Tensor) -> Tensor:
        """From (B,H,…) to the leading dimensions of the call."""
        return tensor[(0,) * (2 - len(self._leading))]

    def _current_versions(self) -> list[int]:
        scores, mask = self._scores, self._scores.mask
        tensors = (scores.query, scores.key, scores.bias, mask.given, mask.lengths, *(mask.segments or ()))
        tensors += (self._sinks, self._lse)
        return [t._version for t in tensors if isinstance(t, Tensor) and not t.is_inference()]


def _operator(name: str) -> Callable[..., Tensor]:
    return lambda weights, *other: getattr(weights.dense(), name)(*other)


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "neg", "lt", "le", "gt", "ge"):
    setattr(Weights, f"__{_name}__", _operator(f"__{_name}__"))  # found on the class only, and not by __getattr__


class Transposed:
    """w.T, for w.T @ y: what each key would collect if the queries handed out y by their weights."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.shape = torch.Size((*weights.shape[:-2], weights.shape[-1], weights.shape[-2]))

    def __matmul__(self, y: Float[Tensor, "... Q F"]) -> Float[Tensor, "... K F"]:
        return self._weights._transposed_matmul(y)


class _Apply(torch.autograd.Function):
    """w @ x or w.T @ x, linear in x: each is the gradient of the other, and neither keeps the matrix."""

    @staticmethod
    def forward(ctx, x, weights, product, transposed_product):
        ctx.shape, ctx.rest = x.shape, (weights, transposed_product, product)
        return product(weights._softmax, x)

    @staticmethod
    def backward(ctx, grad):
        grad = _Apply.apply(grad, *ctx.rest)
        grad = grad.unflatten(1, (ctx.shape[1], -1)).sum(2)  # one for all heads, or for those of a group
        return grad.sum_to_size(ctx.shape), None, None, None


def statistic(name: str, keys: int) -> str:
    """The name of a row statistic, checked: "entropy", or "topk:k" with k from 1 to the number of keys, as max is."""
    if name == "entropy":
        return name
    name = "topk:1" if name == "max" else name
    kind, _, number = str(name).partition(":")
    if kind != "topk" or not number.isdecimal():
        raise ValueError(f'collect: expected "entropy", "max" or "topk:8". Got {name!r}.')
    if not 1 <= int(number) <= keys:
        raise ValueError(f"topk: expected k from 1 to {keys}, the number of keys. Got {number}.")
    return f"topk:{int(number)}"


def _count(groups: Int[Tensor, "n"]) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


def _one_each(index: Any, shape: torch.Size) -> list[Any]:
    """An index for each dimension; `...`, and what is left out at the end, are whole dimensions."""
    index = index if isinstance(index, tuple) else (index,)
    dots = [n for n, one in enumerate(index) if one is Ellipsis]
    given = len(index) - len(dots)
    if len(dots) > 1 or given > len(shape):
        raise IndexError(f"Weights{tuple(shape)}: expected at most {len(shape)} indices. Got {given}.")
    at = dots[0] if dots else given
    return [*index[:at], *[slice(None)] * (len(shape) - given), *index[at + 1 :]]


def _pick(index: Any, dim: int, shape: Sequence[int]) -> Int[Tensor, "n"] | Int[Tensor, ""]:
    """The positions that one index names; of no dimension where it is a number, as in torch."""
    try:
        picked = torch.arange(shape[dim])[index.cpu() if isinstance(index, Tensor) else index]
    except (IndexError, TypeError, ValueError) as error:
        raise IndexError(f"Weights: cannot take {index!r} from the {shape[dim]} of dimension {dim}: {error}") from None
    if picked.ndim > 1:
        raise IndexError(f"Weights: expected integers, slices, `...`, a list or a tensor of positions. Got {index!r}.")
    return picked


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
