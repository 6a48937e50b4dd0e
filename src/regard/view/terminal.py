"""Readings in the terminal: a walk that reads like a lesson, heat maps, comparisons. Readable without colour."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from torch import Tensor

from regard.lens.compare import Comparison
from regard.lens.reading import Reading
from regard.lens.walk import Walk

_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))  # viridis, five stops


def explain(walk: Walk) -> RenderableType:
    """The walk of a word: what query, key and value are for, the numbers, and what changed."""
    reading, word = walk.reading, f"“{walk.word.text}”"
    heads = f"{reading.model}: {reading.layers} layers × {reading.heads} heads"
    size, dim = len(walk.x[0]), len(walk.query[0])
    share = _to_others(walk)
    where = f"layer {walk.layer}, head {walk.head}"
    if walk.chosen:
        where += f", where {word} gives most of its weight, {share:.0%}, to other words"
    several = len(walk.word.tokens) > 1
    mean = f" {word} is {len(walk.word.tokens)} tokens; the numbers are their mean." if several else ""
    scale = f"{walk.scale:.4g}" + (f" = 1/√{dim}" if math.isclose(walk.scale, dim**-0.5) else "")
    parts: list[RenderableType] = [
        Text(f"“{reading.text}”" if len(reading.text) < 400 else f"“{reading.text[:397]}…”", style="bold"),
        Text(f"{heads}; this is {where}.", style="dim"),
        _step(
            "The word comes in",
            f"as {size} numbers: at layer 0, much the same for every “{walk.word.text}” in any text. "
            f"Attention will mix in what its neighbours know.{mean}",
        ),
        _numbers("x", walk.x.mean(0)),
        _step(
            "Query, key, value",
            f"Think of a supermarket. The query is the ingredient on your recipe: what {word} looks for. Every token "
            "has a key, the label on its shelf, and a value, what you take home from there. "
            f"Each is x times a matrix that the model has learned; here, {dim} numbers.",
        ),
        _numbers("query", walk.query.mean(0)),
        _numbers("key", walk.keys[walk.word.tokens[0]]),
        _numbers("value", walk.values[walk.word.tokens[0]]),
        _step(
            "Scores, scaling, softmax",
            f"The query meets every key: the dot product is large where they match. It is scaled by {scale}, so that "
            "it stays small however long the vectors, and the softmax makes weights of it that sum to 1.",
        ),
        Padding(_scores(walk), (0, 0, 0, 3)),
        _step("The weighted sum", f"{word} takes home each value times its weight: {_mixture(walk)}."),
        _numbers("context", walk.context.mean(0)),
        _step("Check", f"The model itself arrives at the same numbers: the largest difference is {walk.error:.1e}."),
        _step(
            "What changed",
            f"Every layer does this with all its heads. How like (cosine) the vector that came in {word} still is:",
        ),
        Padding(_drift(walk), (0, 0, 0, 3)),
    ]
    if reading.truncated:
        parts.insert(2, Text(reading.truncated, style="yellow"))
    return Group(*parts)


def _to_others(walk: Walk) -> float:
    reading = walk.reading
    weights = walk.word.attends_to(walk.layer, walk.head)
    return sum(float(weights[u.index]) for u in reading.units if not u.special and u.index != walk.word.index)


def _step(title: str, text: str) -> RenderableType:
    return Group(Text(), Text(title, style="bold cyan"), Padding(Text(text), (0, 0, 0, 3)))


def _numbers(name: str, vector: Tensor, most: int = 8) -> RenderableType:
    shown = " ".join(f"{number:+.3f}" for number in vector[:most].tolist())
    more = f" … {len(vector)} in all" if len(vector) > most else ""
    return Padding(Text.assemble((f"{name:<8}", "bold"), shown, (more, "dim")), (0, 0, 0, 3))


def _scores(walk: Walk, most: int = 24) -> Table:
    weights = walk.weights.mean(0)
    shown = sorted(weights.argsort(descending=True, stable=True)[:most].tolist())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("key of", "query·key", "scaled", "weight"):
        table.add_column(title, justify="left" if title == "key of" else "right", no_wrap=True)
    table.add_column("")
    scores, scaled = walk.scores.mean(0).tolist(), walk.scaled.mean(0).tolist()
    for place in shown:
        token, weight = walk.reading.tokens[place], float(weights[place])
        style = "dim" if token.special else "bold" if place in walk.word.tokens else ""
        bar = bar_of(weight)
        table.add_row(
            Text(token.text, style), f"{scores[place]:.2f}", f"{scaled[place]:.2f}", f"{weight:.4f}", Text(bar, "green")
        )
    if len(shown) < len(weights):
        rest = 1 - float(weights[shown].sum())
        table.add_row(Text(f"{len(weights) - len(shown)} others", "dim"), "", "", f"{rest:.4f}", "")
    return table


def bar_of(share: float, width: int = 24) -> str:
    """A bar for a share of 1, in eighths of a character."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def _mixture(walk: Walk, most: int = 4) -> str:
    weights = walk.weights.mean(0)
    top = weights.argsort(descending=True, stable=True)[:most].tolist()
    terms = [f"{weights[n]:.3f} × “{walk.reading.tokens[n].text}”" for n in top]
    return " + ".join(terms) + (" + …" if len(weights) > most else "")


def _drift(walk: Walk) -> Table:
    vectors = walk.word.vectors.float()
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for layer, vector in enumerate(vectors[1:]):
        cosine = float(vector @ vectors[0] / (vector.norm() * vectors[0].norm()))
        table.add_row(f"after layer {layer}", f"{cosine:.2f}", Text(bar_of(max(0.0, cosine)), "green"))
    return table


def heat_map(reading: Reading, layer: int | None, head: int | None, width: int) -> RenderableType:
    """The weights of a head, or the mean over heads (and layers), word by word: per cent, on a colour.

    Rows look, columns are looked at. A text wider than the terminal is shown as far as it fits.
    """
    reading.check(layer, head)
    layers = range(reading.layers) if layer is None else [layer]
    by_layer = [reading.weights(n) for n in layers]
    weights = torch.stack([heads.mean(0) if head is None else heads[head] for heads in by_layer]).mean(0)
    of = "all layers" if layer is None else f"layer {layer}"
    of += f", head {head}" if head is not None else ", mean of its heads" if layer is not None else " and heads, mean"
    names = [_short(unit.text) for unit in reading.units]
    margin = max(len(name) for name in names) + 1
    columns = [max(4, _cells(name) + 1) for name in names]
    fitting = sum(1 for n in range(len(names)) if margin + sum(columns[: n + 1]) <= width)
    lines: list[RenderableType] = [Text(f"{of}: each row is where a word looks, in per cent", style="dim"), Text()]
    header = Text(" " * margin)
    for name, column in zip(names[:fitting], columns, strict=False):
        header.append(" " * (column - _cells(name)) + name, style="bold")
    lines.append(header)
    for name, row in zip(names[:fitting], weights[:fitting].tolist(), strict=False):
        line = Text(name + " " * (margin - _cells(name)), style="bold")
        for weight, column in zip(row[:fitting], columns, strict=False):
            per_cent = f"{100 * weight:.0f}" if weight >= 0.005 else "·"
            line.append(per_cent.rjust(column), style=_on_ramp(weight))
        lines.append(line)
    if fitting < len(names):
        lines.append(Text(f"… the first {fitting} of {len(names)}; --save map.png or map.html shows all", "dim"))
    return Group(*lines)


def similarity(comparison: Comparison) -> RenderableType:
    """One word in several texts: the matrix of cosines before the first layer and after each, and the clusters."""
    n = len(comparison.words)
    parts: list[RenderableType] = []
    sides = ["A" if place in comparison.clusters[0] else "B" for place in range(n)]
    for place, reading in enumerate(comparison.readings):
        parts.append(Text.assemble((f"{place + 1} ", "bold"), (f"{sides[place]} ", "cyan"), reading.text))
    within_a, within_b, across = comparison.parting()
    for layer, matrix in enumerate(comparison.similarity):
        title = "before the first layer" if layer == 0 else f"after layer {layer - 1}"
        table = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold cyan")
        table.add_column("")
        for place in range(n):
            table.add_column(f"{place + 1}", justify="right", header_style="bold")
        for place, row in enumerate(matrix.tolist()):
            cells = [Text(f"{cosine:.2f}", _on_ramp((cosine - 0.5) * 2)) for cosine in row]
            table.add_row(Text(f"{place + 1}", "bold"), *cells)
        parts += [Text(), table]
    parts += [Text(), Text(_verdict(comparison, within_a, within_b, across))]
    return Group(*parts)


def _verdict(comparison: Comparison, within_a: Tensor, within_b: Tensor, across: Tensor) -> str:
    start, last = float(comparison.similarity[0].min()), len(across) - 1
    names = [" and ".join(str(place + 1) for place in group) for group in comparison.clusters]
    within = [
        f"{group[last]:.2f} within {name}"
        for group, name in zip((within_a, within_b), names, strict=True)
        if not math.isnan(float(group[last]))
    ]
    return (
        f"Before the first layer every “{comparison.word}” is the same word ({start:.2f} to 1.00: only the position "
        f"differs). After the last the texts part into A ({names[0]}) and B ({names[1]}): "
        + ", ".join([*within, f"{across[last]:.2f} across"])
        + "."
    )


def _on_ramp(weight: float) -> str:
    """A rich style: the weight as a background from dark (0) to yellow (1), by its square root."""
    place = math.sqrt(min(1.0, max(0.0, weight))) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    ink = "black" if place > 2.2 else "white"
    return f"{ink} on rgb({red},{green},{blue})"


def _short(text: str, most: int = 12) -> str:
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("\n", " ")


def _cells(text: str) -> int:
    return Text(text).cell_len


def backends(rows: Mapping[str, list[str]]) -> Table:
    """Which backends serve here, and why the others do not."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, reasons in rows.items():
        table.add_row(
            Text(name, "bold"), Text("serves", "green") if not reasons else Text("; ".join(reasons), "yellow")
        )
    return table
