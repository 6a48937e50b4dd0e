"""A map between words in the terminal: numbers on colours, readable without colour."""

from __future__ import annotations

from itertools import accumulate

import torch
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text
from torch import Tensor

from regard.lens.words import printable
from regard.output.lines import Wrapped, colour, note, short
from regard.output.maps import Scale, ShownMap, attention_name

ROWS = 60  # words of a target that are shown at most, where its source is too wide for the terminal


def heat_map(shown: ShownMap, layer: int | None, head: int | None, width: int) -> RenderableType:
    """The map of a head, or of all heads (and layers) as one, word by word: in per cent of the scale, on a colour.

    Rows attend, columns are attended to. Of a text wider than the terminal, the words that fit are shown.
    """
    heads, layers, reading = shown.heads(layer, head), shown.layers(layer), shown.reading
    rows, names = ([short(unit.text, 12) for unit in of.units] for of in (reading, reading.columns))
    margin = max(cell_len(name) for name in rows[:width]) + 1
    columns = [max(4, cell_len(name) + 1) for name in names]
    fitting = max(1, sum(margin + total <= width for total in accumulate(columns)))
    below = fitting if reading.columns is reading else max(fitting, ROWS)
    cells = shown.total(torch.stack([_of_heads(shown, n, heads, (below, fitting)) for n in layers]))
    scale = Scale(1.0) if shown.is_weights else Scale.of(cells)
    lines: list[RenderableType] = [
        Wrapped(f"{_which(shown, layer, head)}: {_legend(shown, scale)}", "dim"),
        Text(),
        *_rows(rows[:below], names[:fitting], columns, margin, cells, scale),
    ]
    cut = [f"{count} of {len(of)}" for count, of in ((fitting, names), (below, rows)) if count < len(of)]
    if cut:
        hint = f"… the first {' and '.join(dict.fromkeys(cut))}; --save map.png or map.html shows all"
        lines.append(Wrapped(hint, "dim"))
    for text in dict.fromkeys(of.note for of in (reading, reading.columns) if of.note):
        lines += [Text(), note(text)]
    if shown.is_weights and head is None:
        lines += [Text(), Wrapped("A mean of weights shows where heads look, not what decides the output.", "dim")]
    return Group(*lines)


def _of_heads(shown: ShownMap, layer: int, heads: list[int | None], count: tuple[int, int]) -> Tensor:
    """The map of a layer between the first units: of one head, or of several as one."""
    cells = shown.words(layer, count)
    return cells[heads[0] or 0] if len(heads) == 1 else shown.total(cells)


def _which(shown: ShownMap, layer: int | None, head: int | None) -> str:
    """Which map it is, of which layers and heads."""
    reading, combined = shown.reading, "sum" if shown.kind.signed else "mean"
    which = "all layers" if layer is None else f"layer {layer % reading.layers}"
    if not shown.kind.by_head:
        which += f" and heads, {combined}" if layer is None else ", all heads"
    elif head is not None:
        which += f", head {head % reading.heads}"
    else:
        which += f" and heads, {combined}" if layer is None else f", {combined} of its heads"
    which = which if shown.is_weights else f"{shown.name}, {which}"
    return f"{attention_name(reading)}, {which}" if reading.part else which


def _legend(shown: ShownMap, scale: Scale) -> str:
    """What the numbers are, and what 100 stands for."""
    meaning = printable(shown.meaning)
    return f"{meaning}, in per cent" if shown.is_weights else f"{meaning}; 100 is {scale.largest:.3g} ({shown.unit})"


def _rows(
    rows: list[str], names: list[str], columns: list[int], margin: int, cells: Tensor, scale: Scale
) -> list[RenderableType]:
    header = Text(" " * margin)
    for name, column in zip(names, columns, strict=False):
        header.append(" " * (column - cell_len(name)) + name, style="bold")
    lines: list[RenderableType] = [header]
    places = scale.place(cells)
    for name, row, place in zip(rows, (cells / scale.largest).tolist(), places.tolist(), strict=True):
        line = Text(name + " " * (margin - cell_len(name)), style="bold")
        for share, at, column in zip(row, place, columns, strict=False):
            text = f"{100 * share:.0f}".replace("-", "−") if abs(share) >= 0.005 else "·"
            line.append(text.rjust(column), style=colour(at, scale.signed))
        lines.append(line)
    return lines
