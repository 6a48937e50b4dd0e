"""The map's tiles: the weights between units, pooled into cells, any part of the matrix at any scale.

A cell of level n stands for 2ⁿ × 2ⁿ weights, as in the levels of a street map; level 0 are the weights themselves, and
at the top level the whole matrix is one tile. Nothing is stored but what was asked for: a tile of a low level is
computed from query, key and lse. High levels need much of the matrix, or all of it: they are cut from an `overview`,
which is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from regard.lens.reading import Reading

if TYPE_CHECKING:
    from jaxtyping import Float, Int

TILE = 256  # cells
BASE = 5  # the level of the overview; a tile of the level below is made of 4,096 × 4,096 weights
BLOCK = 1024  # units on each side that are computed at once: few enough to stay in a cache until they are pooled
THUMB = 64  # cells
WHOLE = 2048  # units: of a longer text, a thumb is made of some of its rows
AT_ONCE = 1 << 26  # weights between units that are held at once: 256 MB

Reduce = Literal["mean", "max"]


@dataclass(frozen=True, eq=False)
class Matrix:
    """The weights between the units of a reading in one head, U × U, as a map. hide: without the special tokens."""

    reading: Reading
    layer: int
    head: int
    reduce: Reduce = "mean"
    hide: bool = False

    @property
    def size(self) -> int:
        """U, of those shown."""
        return len(layout(self.reading, self.hide).first)

    @property
    def top(self) -> int:
        """The level at which one tile holds all."""
        return max(0, (-(-self.size // TILE) - 1).bit_length())

    @property
    def needs_overview(self) -> bool:
        """Whether there are levels whose tiles hold more of the matrix than can be had at once."""
        return self.top >= BASE

    def tile(self, level: int, row: int, column: int, overview: list[Tensor] | None = None) -> Float[Tensor, "r c"]:
        """At most 256 × 256 cells, fewer at the edges; each the mean, or the largest, of its weights.

        From level BASE on it is cut from the overview, if there is one. Raises IndexError for a tile that is not there.
        """
        cells = self._count(level) if 0 <= level <= self.top else 0
        tiles = -(-cells // TILE)
        if not (0 <= row < tiles and 0 <= column < tiles):
            raise IndexError(
                f"There is no tile {row}, {column} of level {level}: the map has levels 0 to {self.top}"
                + (f", and this one tiles 0 to {tiles - 1}." if tiles else ".")
            )
        rows, columns = (range(n * TILE, min((n + 1) * TILE, cells)) for n in (row, column))
        if overview is None or level < BASE:
            return self._finished(self._cells(level, rows, columns), level, rows, columns)
        found = overview[level - BASE][rows.start : rows.stop, columns.start : columns.stop]
        return self._finished(found.clone(), level, rows, columns)

    def overview(self, progress: Callable[[float], None]) -> list[Float[Tensor, "cells cells"]]:
        """The cells of level BASE, and of all above it: the whole matrix is computed, once.

        `progress` is told the share that is done; what it raises ends the work.
        """
        cells = self._count(BASE)
        base = torch.empty(cells, cells)
        band = max(1, BLOCK >> BASE)
        for first in range(0, cells, band):
            rows = range(first, min(first + band, cells))
            for left in range(0, cells, TILE):
                progress((first + len(rows) * left / cells) / cells)
                columns = range(left, min(left + TILE, cells))
                base[first : rows.stop, left : columns.stop] = self._cells(BASE, rows, columns)
        levels = [base]
        while len(levels) <= self.top - BASE:
            levels.append(_pooled(levels[-1], 2, self.reduce))
        return levels

    def thumb(self) -> Float[Tensor, "n n"]:
        """The whole matrix as a picture of at most 64 × 64 cells; of a long text, the first row of each cell."""
        level = _thumb_level(self.size)
        cells = range(self._count(level))
        if self.size <= WHOLE:
            return self.whole(level)
        width, everything = 1 << level, range(self.size)
        rows = [self._part(range(cell * width, cell * width + 1), everything, width) for cell in cells]
        return self._finished(torch.cat(rows), level, cells, cells, row_width=1)

    def whole(self, level: int) -> Float[Tensor, "n n"]:
        """All the cells of a level, which may be above the top."""
        cells = range(self._count(level))
        return self._finished(self._cells(level, cells, cells), level, cells, cells)

    # Inside

    def _count(self, level: int) -> int:
        """How many cells a level has on each side."""
        return -(-self.size // (1 << level))

    def _cells(self, level: int, rows: range, columns: range) -> Float[Tensor, "rows columns"]:
        """Cells, each with the sum, or the largest, of its weights."""
        width, side = 1 << level, max(1, BLOCK >> level)
        found = torch.empty(len(rows), len(columns))
        for row, column in product(range(rows.start, rows.stop, side), range(columns.start, columns.stop, side)):
            down, across = range(row, min(row + side, rows.stop)), range(column, min(column + side, columns.stop))
            left, right = (range(some.start * width, min(some.stop * width, self.size)) for some in (down, across))
            at = (
                slice(row - rows.start, down.stop - rows.start),
                slice(column - columns.start, across.stop - columns.start),
            )
            found[at] = self._part(left, right, width)
        return found

    def _part(self, rows: range, columns: range, width: int) -> Float[Tensor, "rows columns"]:
        """Weights between tokens → between units, averaged over queries and summed over keys → cells."""
        place, first, sizes = layout(self.reading, self.hide)
        left, right = (
            slice(first[some.start], first[some.stop - 1] + sizes[some.stop - 1]) for some in (rows, columns)
        )
        tile = self.reading.attention[self.layer].weights[self.head, left, right].float().cpu()
        if len(tile) != len(rows):
            tile = _gathered(tile, 0, place[left] - rows.start, len(rows))
            tile /= torch.tensor(sizes[rows.start : rows.stop])[:, None]
        if tile.shape[1] != len(columns):
            tile = _gathered(tile, 1, place[right] - columns.start, len(columns))
        return _pooled(tile, width, self.reduce)

    def _finished(
        self, cells: Tensor, level: int, rows: range, columns: range, row_width: int | None = None
    ) -> Float[Tensor, "rows columns"]:
        """Of sums the means: a cell at the edge holds fewer weights than the others."""
        if self.reduce == "max":
            return cells
        widths = [(self.size - (torch.tensor(some) << level)).clamp(max=1 << level) for some in (rows, columns)]
        return cells / ((widths[0][:, None] if row_width is None else row_width) * widths[1])


def thumbs(
    reading: Reading, layer: int, hide: bool, progress: Callable[[float], None] = lambda share: None
) -> Float[Tensor, "H n n"]:
    """A `thumb` of each head of a layer, each cell the largest of its weights.

    The heads of a text that is not long are computed together, which takes no longer than the dense weights.
    """
    place, first, _ = layout(reading, hide)
    size = len(first)
    if size <= WHOLE and reading.heads * size**2 <= AT_ONCE:
        groups = place.clamp(min=-1)  # what is hidden is in none
        weights = reading.attention[layer].weights.grouped(queries=groups, keys=groups)
        return torch.stack([_pooled(head, 1 << _thumb_level(size), "max") for head in weights.float().cpu()])
    made = []
    for head in range(reading.heads):
        progress(head / reading.heads)
        made.append(Matrix(reading, layer, head, "max", hide).thumb())
    return torch.stack(made)


def _thumb_level(size: int) -> int:
    """The lowest level at which a matrix has at most THUMB cells a side."""
    return max(0, (-(-size // THUMB) - 1).bit_length())


class Layout(NamedTuple):
    """Which tokens make up the units that are shown."""

    place: Int[Tensor, "tokens"]  # of its unit among them; far below 0 for a hidden token
    first: list[int]  # token of each
    sizes: list[int]


def layout(reading: Reading, hide: bool) -> Layout:
    """The units of a reading that are shown; made once. Raises LookupError where all are hidden."""
    known = _layouts.setdefault(reading, {})
    if hide not in known:
        units = reading.units
        shown = [unit for unit in units if not (hide and unit.special)]
        if not shown:
            raise LookupError("This text has no words that can be seen: show its special tokens.")
        place = torch.full((len(units),), -1 << 40)
        place[[unit.index for unit in shown]] = torch.arange(len(shown))
        first, sizes = [unit.tokens[0] for unit in shown], [len(unit.tokens) for unit in shown]
        known[hide] = Layout(place[reading.unit_of_token], first, sizes)
    return known[hide]


_layouts: WeakKeyDictionary[Reading, dict[bool, Layout]] = WeakKeyDictionary()


def _gathered(tile: Tensor, dim: int, group: Int[Tensor, "n"], count: int) -> Tensor:
    """Sums over groups of rows or columns; those below 0 are left out."""
    shape = list(tile.shape)
    shape[dim] = count
    kept = group >= 0
    if not kept.all():
        tile, group = tile.index_select(dim, kept.nonzero()[:, 0]), group[kept]
    return tile.new_zeros(shape).index_add_(dim, group, tile)


def _pooled(tile: Float[Tensor, "r c"], width: int, reduce: Reduce) -> Float[Tensor, "rows columns"]:
    """Sums, or the largest, of squares of width × width, smaller at the edges."""
    if width == 1:
        return tile
    rows, columns = (-(-size // width) for size in tile.shape)
    if tile.shape != (rows * width, columns * width):
        tile = torch.nn.functional.pad(tile, (0, columns * width - tile.shape[1], 0, rows * width - tile.shape[0]))
    pool = torch.Tensor.amax if reduce == "max" else torch.Tensor.sum
    return pool(pool(tile.view(rows, width, -1), 1).view(rows, columns, width), 2)
