"""The tiles of the viewer's map: the numbers between units, pooled into cells, at any zoom level.

The numbers are weights, or those of another map that is made of them (maps.py). A cell of level n stands for 2ⁿ × 2ⁿ
of them, as in the zoom levels of a street map; level 0 has the numbers themselves, and at the top level one tile holds
the whole matrix. A tile of a low level is computed from query, key and lse when it is requested. High levels need most
of the matrix: they are slices of an `overview`, which is computed once.

api.py and payload.py call this file; it imports the readings, maps.py, and the sizes in protocol/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from regard.lens.reading import Reading
from regard.viewer.maps import by_head
from regard.viewer.protocol import Reduce
from regard.viewer.protocol.limits import SAMPLED_UNITS, THUMBNAIL_SIZE, TILE_SIZE
from regard.weights.map import Map

if TYPE_CHECKING:
    from jaxtyping import Float, Int

OVERVIEW_LEVEL = 5  # the lowest level of the overview; a tile of the level below takes 4,096 × 4,096 weights
BLOCK_SIZE = 1024  # units on each side that are computed at once, and stay in the processor's cache until pooled
DENSE_LIMIT = 1 << 26  # weights between units that are held at once: 256 MB


@dataclass(frozen=True, eq=False)
class Matrix:
    """The weights between the units of a reading in one head as a map: a row for each, and a column for each that is
    attended to.

    Args:
        reading, layer, head: whose weights.
        reduce: what a cell shows of its weights: their mean, or the largest, by magnitude where they have signs.
        hide: leave out the special tokens.
        numbers: in the place of the weights, another map of the layer; of all heads together, the head does not matter.
        hide_first: leave out the first unit, on which the heads of many causal models park their weight.
    """

    reading: Reading
    layer: int
    head: int
    reduce: Reduce = "mean"
    hide: bool = False
    numbers: Map | None = None
    hide_first: bool = False

    @property
    def sides(self) -> tuple[Layout, Layout]:
        """The units that are shown, as rows and as columns."""
        hidden = self.hide, self.hide_first
        return layout(self.reading, *hidden), layout(self.reading.columns, *hidden)

    @property
    def shape(self) -> tuple[int, int]:
        """How many units attend, and how many are attended to, of those that are shown."""
        rows, columns = self.sides
        return len(rows.first), len(columns.first)

    @property
    def size(self) -> int:
        """The larger of the two."""
        return max(self.shape)

    @property
    def top(self) -> int:
        """The level at which one tile holds the whole matrix."""
        return max(0, (-(-self.size // TILE_SIZE) - 1).bit_length())

    @property
    def needs_overview(self) -> bool:
        """Whether there are levels whose tiles take too many weights to be computed on their own."""
        return self.top >= OVERVIEW_LEVEL

    def tile(self, level: int, row: int, column: int, overview: list[Tensor] | None = None) -> Float[Tensor, "r c"]:
        """At most 256 × 256 cells, fewer at the edges; each the mean, or the largest, of its weights.

        From OVERVIEW_LEVEL on it is a slice of the overview, where there is one. Raises IndexError for a tile that is
        not on the map.
        """
        cells = self._counts(level) if 0 <= level <= self.top else (0, 0)
        down, across = (-(-count // TILE_SIZE) for count in cells)
        if not (0 <= row < down and 0 <= column < across):
            tiles = f"0 to {down - 1}" + (f", 0 to {across - 1}" if across != down else "")
            raise IndexError(
                f"There is no tile {row}, {column} of level {level}: the map has levels 0 to {self.top}"
                + (f", and this one tiles {tiles}." if down else ".")
            )
        rows, columns = (
            range(n * TILE_SIZE, min((n + 1) * TILE_SIZE, count)) for n, count in zip((row, column), cells, strict=True)
        )
        if overview is None or level < OVERVIEW_LEVEL:
            return self._finished(self._cells(level, rows, columns), level, rows, columns)
        cells_of_level = overview[level - OVERVIEW_LEVEL]
        tile = cells_of_level[rows.start : rows.stop, columns.start : columns.stop].clone()
        return self._finished(tile, level, rows, columns)

    def overview(self, progress: Callable[[float], None]) -> list[Float[Tensor, "cells cells"]]:
        """The cells of OVERVIEW_LEVEL and of each level above it, for which the whole matrix is computed.

        `progress` is called with the share that is done; an exception that it raises ends the work.
        """
        down, across = self._counts(OVERVIEW_LEVEL)
        base = torch.empty(down, across)
        band = max(1, BLOCK_SIZE >> OVERVIEW_LEVEL)
        for first in range(0, down, band):
            rows = range(first, min(first + band, down))
            for left in range(0, across, TILE_SIZE):
                progress((first + len(rows) * left / across) / down)
                columns = range(left, min(left + TILE_SIZE, across))
                base[first : rows.stop, left : columns.stop] = self._cells(OVERVIEW_LEVEL, rows, columns)
        levels = [base]
        while len(levels) <= self.top - OVERVIEW_LEVEL:
            levels.append(_pooled(levels[-1], 2, self.reduce))
        return levels

    def thumbnail(self) -> Float[Tensor, "n m"]:
        """The whole matrix in at most 64 × 64 cells; of a long text, from the first row of each cell alone."""
        level = _thumbnail_level(self.size)
        if self.size <= SAMPLED_UNITS:
            return self.whole(level)
        down, across = map(range, self._counts(level))
        width, everything = 1 << level, range(self.shape[1])
        rows = [self._pooled_block(range(cell * width, cell * width + 1), everything, width) for cell in down]
        return self._finished(torch.cat(rows), level, down, across, row_width=1)

    def whole(self, level: int) -> Float[Tensor, "n m"]:
        """All the cells of a level, which may be above the top."""
        down, across = map(range, self._counts(level))
        return self._finished(self._cells(level, down, across), level, down, across)

    # Inside

    def _counts(self, level: int) -> tuple[int, int]:
        """How many rows and columns of cells a level has."""
        down, across = (-(-count // (1 << level)) for count in self.shape)
        return down, across

    def _cells(self, level: int, rows: range, columns: range) -> Float[Tensor, "rows columns"]:
        """Cells, each with the sum, or the largest, of its weights."""
        width, side = 1 << level, max(1, BLOCK_SIZE >> level)
        result = torch.empty(len(rows), len(columns))
        for row, column in product(range(rows.start, rows.stop, side), range(columns.start, columns.stop, side)):
            down, across = range(row, min(row + side, rows.stop)), range(column, min(column + side, columns.stop))
            left, right = (
                range(cells.start * width, min(cells.stop * width, count))
                for cells, count in zip((down, across), self.shape, strict=True)
            )
            block = (
                slice(row - rows.start, down.stop - rows.start),
                slice(column - columns.start, across.stop - columns.start),
            )
            result[block] = self._pooled_block(left, right, width)
        return result

    def _pooled_block(self, rows: range, columns: range, width: int) -> Float[Tensor, "rows columns"]:
        """A block of cells: weights between tokens, then units (mean over queries, sum over keys), then pooled."""
        sides = self.sides
        left, right = (
            slice(side.first[units.start], side.first[units.stop - 1] + side.sizes[units.stop - 1])
            for side, units in zip(sides, (rows, columns), strict=True)
        )
        numbers = self.reading.attention[self.layer].weights if self.numbers is None else self.numbers
        chosen = (self.head, left, right) if len(numbers.shape) == 3 else (left, right)
        tile = numbers[chosen].float().cpu()
        if len(tile) != len(rows):
            tile = _gathered(tile, 0, sides[0].place[left] - rows.start, len(rows))
            tile /= torch.tensor(sides[0].sizes[rows.start : rows.stop])[:, None]
        if tile.shape[1] != len(columns):
            tile = _gathered(tile, 1, sides[1].place[right] - columns.start, len(columns))
        return _pooled(tile, width, self.reduce)

    def _finished(
        self, cells: Tensor, level: int, rows: range, columns: range, row_width: int | None = None
    ) -> Float[Tensor, "rows columns"]:
        """The means of cells that are sums; a cell at the edge holds fewer weights than the others."""
        if self.reduce == "max":
            return cells
        widths = [
            (count - (torch.tensor(cells_of_side) << level)).clamp(max=1 << level)
            for count, cells_of_side in zip(self.shape, (rows, columns), strict=True)
        ]
        return cells / ((widths[0][:, None] if row_width is None else row_width) * widths[1])


def thumbnails(
    reading: Reading,
    layer: int,
    hide: bool,
    progress: Callable[[float], None] = lambda share: None,
    numbers: Map | None = None,
    hide_first: bool = False,
) -> Float[Tensor, "H n m"]:
    """A thumbnail of each head of a layer, each cell the largest of its weights, or of the `numbers` of another map.

    Where those of all heads fit in memory, they are computed together, as the dense weights are.
    """
    matrix = Matrix(reading, layer, 0, "max", hide, numbers, hide_first)
    queries, keys = (side.place.clamp(min=-1) for side in matrix.sides)  # hidden units are in no group
    size, (down, across) = matrix.size, matrix.shape
    numbers = reading.attention[layer].weights if numbers is None else numbers
    heads = numbers.shape[0] if len(numbers.shape) == 3 else 1
    if size <= SAMPLED_UNITS and heads * down * across <= DENSE_LIMIT:
        together = by_head(numbers.grouped(queries=queries, keys=keys), 2).float().cpu()
        return torch.stack([_pooled(head, 1 << _thumbnail_level(size), "max") for head in together])
    pictures = []
    for head in range(heads):
        progress(head / heads)
        pictures.append(Matrix(reading, layer, head, "max", hide, numbers, hide_first).thumbnail())
    return torch.stack(pictures)


def _thumbnail_level(size: int) -> int:
    """The lowest level at which a matrix has at most THUMBNAIL_SIZE cells on each side."""
    return max(0, (-(-size // THUMBNAIL_SIZE) - 1).bit_length())


class Layout(NamedTuple):
    """The tokens of the units that are shown."""

    place: Int[
        Tensor, "tokens"
    ]  # of each token: the place of its unit among those shown; far below 0 where it is hidden
    first: list[int]  # of each unit: its first token
    sizes: list[int]  # of each unit: how many tokens it has


def layout(reading: Reading, hide: bool, hide_first: bool = False) -> Layout:
    """The units of a reading that are shown, computed once. Raises LookupError where all are hidden."""
    cached = _layouts.setdefault(reading, {})
    if (hide, hide_first) not in cached:
        units = reading.units
        shown = [unit for unit in units[int(hide_first) :] if not (hide and unit.special)]
        if not shown:
            which = "special tokens or the first" if hide_first else "special tokens"
            raise LookupError(f"All units of this text are {which}: show them to see its weights.")
        place = torch.full((len(units),), -1 << 40)
        place[[unit.index for unit in shown]] = torch.arange(len(shown))
        first, sizes = [unit.tokens[0] for unit in shown], [len(unit.tokens) for unit in shown]
        cached[hide, hide_first] = Layout(place[reading.unit_of_token], first, sizes)
    return cached[hide, hide_first]


_layouts: WeakKeyDictionary[Reading, dict[tuple[bool, bool], Layout]] = WeakKeyDictionary()


def _gathered(tile: Tensor, dim: int, group: Int[Tensor, "n"], count: int) -> Tensor:
    """Sums over groups of rows (dim 0) or columns (dim 1), without those whose group is below 0."""
    shape = list(tile.shape)
    shape[dim] = count
    kept = group >= 0
    if not kept.all():
        tile, group = tile.index_select(dim, kept.nonzero()[:, 0]), group[kept]
    return tile.new_zeros(shape).index_add_(dim, group, tile)


def _pooled(tile: Float[Tensor, "r c"], width: int, reduce: Reduce) -> Float[Tensor, "rows columns"]:
    """The sum, or the largest by magnitude, of each square of width × width, smaller at the edges."""
    if width == 1:
        return tile
    rows, columns = (-(-size // width) for size in tile.shape)
    if tile.shape != (rows * width, columns * width):
        tile = torch.nn.functional.pad(tile, (0, columns * width - tile.shape[1], 0, rows * width - tile.shape[0]))

    def pool(of_cell: Callable[..., Tensor]) -> Tensor:
        return of_cell(of_cell(tile.view(rows, width, -1), 1).view(rows, columns, width), 2)

    if reduce == "mean":
        return pool(torch.Tensor.sum)
    largest, least = pool(torch.Tensor.amax), pool(torch.Tensor.amin)
    return torch.where(largest >= -least, largest, least)
