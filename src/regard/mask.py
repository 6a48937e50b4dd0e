"""Which keys each query may see: O(N) numbers, and an N × N tensor only if the caller gave one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from regard import _checks
from regard._typing import Index, MaskMod

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


class Block(NamedTuple):
    """A block of the (B,H,Q,K) matrix."""

    batch: slice
    heads: slice
    rows: Index
    columns: Index


@dataclass(frozen=True, eq=False)
class Mask:
    """Which keys each query may see: all that every option allows.

    Every option but `given` leaves each query a single run of keys, `start ≤ j < stop`, so 2·Q numbers describe them.
    For four queries and six keys (1 = may look):

        causal=True     1 1 1 0 0 0      window=(1, 0)   0 1 1 0 0 0      lengths=[4]   1 1 1 1 0 0
                        1 1 1 1 0 0                      0 0 1 1 0 0                    1 1 1 1 0 0
                        1 1 1 1 1 0                      0 0 0 1 1 0                    1 1 1 1 0 0
                        1 1 1 1 1 1                      0 0 0 0 1 1                    1 1 1 1 0 0

    The last query stands at the last key or, with `to_lengths`, at the last key within `lengths`; lengths=[5] then is

        causal=True     1 1 0 0 0 0      window=(1, 0)   1 1 0 0 0 0
                        1 1 1 0 0 0                      0 1 1 0 0 0
                        1 1 1 1 0 0                      0 0 1 1 0 0
                        1 1 1 1 1 0                      0 0 0 1 1 0
    """

    queries: int
    keys: int
    causal: bool = False
    window: tuple[int | None, int | None] = (None, None)
    lengths: Int[Tensor, "B"] | None = None
    segments: tuple[Int[Tensor, "n+1"], Int[Tensor, "n+1"]] | None = None
    given: Bool[Tensor, "#B #H #Q #K"] | MaskMod | None = None
    to_lengths: bool = False
    device: torch.device | None = None  # where `spans` are made; not given: where lengths or segments are

    @property
    def bounded(self) -> bool:
        """Whether any option but `given` hides a key."""
        if self.causal and (self.queries > 1 or self.segments is not None):
            return True  # a single query is the last, and sees every key
        return self.window != (None, None) or self.lengths is not None or self.segments is not None

    @property
    def has_numbers(self) -> bool:
        """Whether there are lengths or segments, whose numbers have to be checked."""
        return self.lengths is not None or self.segments is not None

    @cached_property
    def spans(self) -> tuple[Int[Tensor, "#B Q"], Int[Tensor, "#B Q"]]:
        """The first key that each query may see and the one after the last; `start ≥ stop` where it sees none."""
        query = torch.arange(self.queries, device=self._device)
        if self.to_lengths and self.lengths is not None:
            start, stop = torch.zeros_like(query), torch.full_like(query, self.keys)
            position = query + (self.lengths[:, None] - self.queries)  # (B, Q)
        elif self.segments is None:
            start, stop = torch.zeros_like(query), torch.full_like(query, self.keys)
            position = query + (self.keys - self.queries)  # in key coordinates: the last query meets the last key
        else:
            query_bounds, key_bounds = self.segments
            segment = torch.bucketize(query, query_bounds[1:], right=True)
            start, stop = key_bounds[segment], key_bounds[segment + 1]
            position = query - query_bounds[segment + 1] + stop
        left, right = self.window
        if left is not None:
            start = start.maximum(position - left)
        if right is not None:
            stop = stop.minimum(position + right + 1)
        if self.causal:
            stop = stop.minimum(position + 1)
        if self.lengths is None:
            return start[None], stop[None]
        stop = stop.minimum(self.lengths[:, None])
        return start.expand_as(stop), stop

    @property
    def _device(self) -> torch.device:
        tensors = (self.lengths, *(self.segments or ()))
        given = (tensor.device for tensor in tensors if tensor is not None)
        return self.device or next(given, torch.device("cpu"))  # and never the default device of the moment

    def of_heads(self, batch: slice, heads: slice) -> Mask:
        """The mask of a run of sequences and a run of their heads."""
        lengths = None if self.lengths is None else self.lengths[batch]
        given = self.given
        if isinstance(given, Tensor):
            given = select_broadcast(given, batch, heads)
        elif given is not None:
            given = _shifted(given, batch.start, heads.start)
        mask = replace(self, lengths=lengths, given=given)
        if self.bounded:
            start, stop = self.spans
            vars(mask)["spans"] = select_broadcast(start, batch), select_broadcast(stop, batch)
        return mask

    def check(self) -> None:
        """Raises ValueError where lengths or segments are out of range: the checks that have to read their numbers."""
        lengths = self.lengths
        if lengths is not None and len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= self.keys:
            raise ValueError(f"lengths: expected 0 to {self.keys}, the number of keys. Got {lengths.tolist()}.")
        sides = (("queries", self.queries), ("keys", self.keys))
        for bounds, (side, end) in zip(self.segments or (), sides, strict=False):
            if bounds[0] != 0 or bounds[-1] != end or (bounds.diff() < 0).any():
                raise ValueError(
                    f"segments: expected rising boundaries from 0 to {end}, the number of {side}. "
                    f"Got {bounds.tolist()}."
                )
        if self.segments is not None and len(self.segments[0]) != len(self.segments[1]):
            counts = " and ".join(str(len(bounds) - 1) for bounds in self.segments)
            raise ValueError(f"segments: expected as many for the queries as for the keys. Got {counts}.")

    def key_range(self, batch: slice, rows: slice) -> slice:
        """The run of keys that holds all that these queries may see; at least a single key, where there are any."""
        if not self.bounded:
            return slice(0, self.keys)
        start, stop = (select_broadcast(bound, batch, rows) for bound in self.spans)
        seeing = start < stop
        if not seeing.any():
            return slice(0, min(1, self.keys))
        return slice(int(start[seeing].min()), int(stop[seeing].max()))

    def tile(self, at: Block, device: torch.device) -> Bool[Tensor, "#b #h #q #k"] | None:
        """Whether query i may look at key j, for a block of the matrix; None where all may look at all."""
        visible = None
        if self.bounded:
            columns = positions(at.columns, device)
            start, stop = (
                select_broadcast(bound.to(device), at.batch, at.rows)[:, None, :, None] for bound in self.spans
            )
            visible = (columns >= start) & (columns < stop)
        given = self.given_at(at, device)
        return given if visible is None else visible if given is None else visible & given

    def given_at(self, at: Block, device: torch.device) -> Bool[Tensor, "..."] | None:
        """What `given` says of a block; of fewer dimensions, or of size 1 in some, where it is the same for all."""
        if self.given is None:
            return None
        if isinstance(self.given, Tensor):
            return select_broadcast(self.given, *at)
        batch, heads, rows, columns = (positions(index, device) for index in at)
        return self.given(batch[:, None, None, None], heads[:, None, None], rows[:, None], columns)

    def pairs(
        self, batch: int, heads: int, rows: slice, columns: slice, device: torch.device
    ) -> Bool[Tensor, "#B #H n"] | None:
        """Whether query i may look at key j, for as many rows as columns, one with one; None where all may."""
        query, key = positions(rows, device), positions(columns, device)
        visible = None
        if self.bounded:
            start, stop = (bound.to(device)[:, None, rows] for bound in self.spans)
            visible = (key >= start) & (key < stop)
        if self.given is None:
            return visible
        if isinstance(self.given, Tensor):
            given = pairs_of(self.given, rows, columns)
        else:
            sequences, every_head = torch.arange(batch, device=device), torch.arange(heads, device=device)
            given = self.given(sequences[:, None, None], every_head[:, None], query, key)
        return given if visible is None else visible & given


def pairs_of(tensor: Tensor, rows: slice, columns: slice) -> Tensor:
    """The elements (#B,#H,#n) of a tensor that is broadcast to (B,H,Q,K), at as many rows as columns, one with one."""
    picked = select_broadcast(tensor, slice(0, tensor.shape[0]), slice(0, tensor.shape[1]), rows, columns)
    if picked.shape[2] == 1:
        return picked[:, :, 0]
    return picked[..., 0] if picked.shape[3] == 1 else picked.diagonal(0, -2, -1)


def _shifted(rule: MaskMod, first_sequence: int, first_head: int) -> MaskMod:
    """The rule for sequences and heads that are counted from these on."""
    return lambda batch, head, query, key: rule(batch + first_sequence, head + first_head, query, key)


def positions(index: Index, device: torch.device) -> Int[Tensor, "n"]:
    """The positions that an index names."""
    return torch.arange(index.start, index.stop, device=device) if isinstance(index, slice) else index.to(device)


def select(tensor: Tensor, dim: int, index: Index) -> Tensor:
    """`tensor[..., index, ...]` at one dimension; a view where the index is a slice."""
    if isinstance(index, slice):
        return tensor.narrow(dim, index.start, index.stop - index.start)
    return tensor.index_select(dim, index.to(tensor.device))


def select_broadcast(tensor: Tensor, *indices: Index) -> Tensor:
    """A block of a broadcastable tensor, an index for each leading dimension; dimensions of size 1 stay as they are."""
    for dim, index in enumerate(indices):
        if tensor.shape[dim] != 1:
            tensor = select(tensor, dim, index)
    return tensor


def make_mask(
    shape: Sequence[int],
    device: torch.device,
    *,
    causal: bool | str = False,
    window: tuple[int | None, int | None] | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    segments: Tensor | Sequence[int] | tuple[Tensor, Tensor] | None = None,
    mask: Tensor | MaskMod | None = None,
) -> Mask:
    """The `Mask` that these options of `regard.attention` mean, for scores of this (…,H,Q,K) shape, all checked.

    Several batch dimensions, in `lengths` and `mask` too, are flattened. The numbers in lengths and segments are
    checked here unless they are not known yet, as in torch.compile; then by whoever computes with them.

    Raises ValueError or TypeError with the argument, what was expected and what was given.
    """
    *batch, _, queries, keys = shape
    to_lengths = _checks.aligned_to_lengths(causal, lengths, segments)
    if lengths is not None:
        lengths = _checks.integers("lengths", lengths, device)
        if lengths.shape != tuple(batch):
            raise ValueError(f"lengths: expected one number a sequence, {tuple(batch)}. Got {tuple(lengths.shape)}.")
        lengths = lengths.reshape(-1)
    if isinstance(mask, Tensor):
        _checks.strided("mask", mask)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask: expected bool, True = may look. Got {mask.dtype}; to add numbers, use bias=.")
        mask = _checks.broadcastable("mask", mask, shape, device)
    elif mask is not None:
        _checks.mask_mod(mask, shape, device)
    rule = Mask(
        queries,
        keys,
        causal=bool(causal),
        window=_checks.window(window),
        lengths=lengths,
        segments=_checks.segments(segments, device),
        given=mask,
        to_lengths=to_lengths,
        device=device,
    )
    if not (rule.has_numbers or window is not None) or not _checks.known(rule.lengths, *(rule.segments or ())):
        return rule
    rule.check()
    return replace(rule, window=needed(rule.window, queries, keys, rule.causal)) if window is not None else rule


def needed(
    window: tuple[int | None, int | None], queries: int, keys: int, causal: bool
) -> tuple[int | None, int | None]:
    """The window, None on a side that hides nothing, so that a model's long window costs a short text nothing."""
    left, right = window
    return (
        None if left is None or left >= keys - 1 else left,
        None if right is None or right >= queries - 1 or causal else right,
    )


def both(mask: Tensor | MaskMod | None, rule: MaskMod) -> MaskMod:
    """Who may look by a mask and by a rule too."""
    if mask is None:
        return rule

    def together(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _at(mask, batch, head, query, key) & rule(batch, head, query, key)

    return together


def _at(mask: Tensor | MaskMod, *index: Tensor) -> Tensor:
    """A mask at some positions; a dimension of size 1 says the same for all."""
    if not isinstance(mask, Tensor):
        return mask(*index)
    mask = mask[(None,) * (4 - mask.ndim)]
    return mask[tuple(at if size > 1 else torch.zeros_like(at) for at, size in zip(index, mask.shape, strict=True))]
