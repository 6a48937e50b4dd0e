"""Readings in the terminal: the walk of a word as a lesson, heat maps and comparisons, readable without colour.

The command line prints what these functions return, and nothing else calls them: so their hints name its options. May
import the rooms below; rich draws.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from itertools import accumulate

import torch
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text
from torch import Tensor

from regard._internal.plurals import counted
from regard.lens.compare import Comparison
from regard.lens.patterns import PATTERNS, STRICT_FROM
from regard.lens.reading import Reading
from regard.lens.walk import CAUTION, Walk
from regard.lens.words import printable

LISTED_LAYERS = 12  # layers whose similarity a lesson lists; of a deeper model, as many at equal distances
LISTED_MATRICES = 8  # matrices of a comparison that are all shown; of more, the first, the middle and the last
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))  # viridis, five stops


def explain(walk: Walk, width: int = 80) -> RenderableType:
    """The walk of a word, as a lesson: what query, key and value are for, the numbers, and what changed."""
    reading, word = walk.reading, f"“{_short(walk.word.text, 32)}”"
    size, dim = len(walk.x[0]), len(walk.query[0])
    tokens = len(walk.word.tokens)
    mean = f" {word} is {tokens} tokens; the numbers are their mean." if tokens > 1 else ""
    heads = f"{printable(reading.model)}: {reading.layers} layers × {reading.heads} heads"
    origin = "at layer 0, much the same in any text" if walk.layer == 0 else f"made by the {walk.layer} layers before"
    lines: list[RenderableType] = [
        _Wrapped(f"“{_short(' '.join(reading.text.split()), 400)}”", "bold"),
        _Wrapped(f"{heads}; this is {_where(walk, word)}.", "dim"),
        *_notes(reading),
        _step(
            "The word comes in",
            f"as {size} numbers, {origin}. Attention will mix in what its neighbours know.{mean}",
        ),
        _numbers("x", walk.x.mean(0), width),
        *_norm_step(walk, width),
        _step(
            "Query, key, value",
            f"Think of a supermarket. The query is the ingredient on your recipe: what {word} looks for. Every token "
            "has a key, the label on its shelf, and a value, what you take home from there. "
            f"{_projections(walk)} Here, {dim} numbers.",
        ),
        *_query_lines(walk, width),
        _numbers("key", walk.keys[list(walk.word.tokens)].mean(0), width),
        _numbers("value", walk.values[list(walk.word.tokens)].mean(0), width),
        _step(
            "Scores, scaling, softmax",
            f"The query meets every key: the dot product is large where they match. {_scaling(walk)}{_softmax(walk)}",
        ),
        _scores(walk, width),
        *([_indented(_pattern(walk.pattern))] if walk.pattern else []),
        _step("The weighted sum", f"{word} takes home each value times its weight: {_mixture(walk)}."),
        _numbers("context", walk.context.mean(0), width),
        *([_indented(_sinks(walk))] if walk.resting else []),
        _step("Check", f"The model itself arrives at these numbers: the largest difference is {walk.error:.1e}."),
        *([_indented(_CHECK.format(walk.made.error))] if walk.made else []),
        _step(
            "What changed",
            f"Every layer does this with all its heads. The cosine of {word} with the vector that came in:",
        ),
        _similarity_by_layer(walk, width),
        Text(),
        _Wrapped(CAUTION, "dim"),
    ]
    return Group(*lines)


def _norm_step(walk: Walk, width: int) -> list[RenderableType]:
    """The normalization of x before the attention, where the layer has one."""
    if walk.made is None or not walk.made.norm:
        return []
    text = f"Before its attention, this layer normalizes x ({walk.made.norm}), which puts all tokens on one scale."
    return [_step("Norm", text), _numbers("normed", walk.made.normed.mean(0), width)]


def _projections(walk: Walk) -> str:
    """How the layer makes query, key and value from x, as far as it is known."""
    made = walk.made
    if made is None:
        return "They are shown as the model's attention received them; how it makes them from x is not known here."
    text = f"Each is made from {'the normalized x' if made.norm else 'x'} by a matrix that the model has learned."
    if made.head_norm:
        text += " Query and key are then normalized again."
    if not made.rotated and made.factor != 1:
        text += f" The query is then multiplied by {made.factor:.4g}."
    if made.rotated:
        text += (
            " Query and key are then rotated, pair by pair of their numbers, by angles that grow with the token's "
            "place in the text: so their product depends on how far apart two tokens are."
        )
        text += f" Both are stretched by {made.factor:.4g}." if abs(made.factor - 1) > 1e-3 else ""
    return text


def _query_lines(walk: Walk, width: int) -> list[RenderableType]:
    if walk.made is None or not walk.made.rotated:
        return [_numbers("query", walk.query.mean(0), width)]
    before, after = walk.made.query.mean(0), walk.query.mean(0)
    return [_numbers("before", before, width), _numbers("query", after, width)]


def _sinks(walk: Walk) -> str:
    """Which tokens take much of the weight and add little."""
    assert walk.carried is not None
    weights, carried = walk.weights.mean(0), walk.carried.mean(0)
    share = carried / carried.sum()
    tokens = [
        f"“{_short(walk.reading.tokens[n].text, 16)}” has {weights[n]:.0%} of the weight "
        f"and {share[n]:.0%} of what is added"
        for n in walk.resting[:3]
    ]
    return (
        f"{'; '.join(tokens)}: its value is short. A head that looks for nothing parks its weight on such a token, an "
        "attention sink."
    )


_CHECK = "Query, key and value, computed again from x with the model's own matrices, differ by {:.1e} at most."


def _pattern(name: str) -> str:
    """What it means that every token attends to the same position."""
    return (
        f"This head follows a pattern: every token gives more than {STRICT_FROM:.0%} of its weight to "
        f"{PATTERNS[name]}. It tells where words stand, not what they mean."
    )


def _notes(reading: Reading) -> list[RenderableType]:
    """What was not read, and which words the model does not know."""
    return [_note(line) for line in (reading.truncated, reading.note) if line]


def _note(note: str, indent: int = 0) -> RenderableType:
    """A sentence about a reading, the words of its text isolated."""
    return _Wrapped(re.sub("“([^”]*)”", lambda quoted: f"“{_isolated(quoted[1])}”", printable(note)), "yellow", indent)


def _where(walk: Walk, word: str) -> str:
    where = f"layer {walk.layer}, head {walk.head}"
    if not walk.chosen:
        return where
    if walk.sees_only_itself:
        return f"{where}: {word} sees no other word, because nothing comes before it"
    share = float(walk.reading.to_others(walk.word, walk.layer, walk.head))
    if share < 0.005:
        return f"{where}: in none does {word} look at another word"
    return f"{where}, which carries most to {word} from other words: they have {share:.0%} of its weight"


def _scaling(walk: Walk) -> str:
    dim = len(walk.query[0])
    if walk.scale == 1:
        return "This model does not scale it; "
    scale = f"{walk.scale:.4g}" + (f" = 1/√{dim}" if math.isclose(walk.scale, dim**-0.5) else "")
    return f"It is scaled by {scale}, so that it stays small however long the vectors, and "


def _softmax(walk: Walk) -> str:
    """What follows the scaling, in this model."""
    scores = walk.reading.attention[walk.layer].weights.scores
    between = [
        "a softcap keeps them within bounds" if scores.softcap is not None else "",
        "the model's bias for the two positions is added" if scores.bias is not None else "",
        "tokens that the model does not let it see are hidden" if walk.hidden.any() else "",
    ]
    steps = "".join(f"{step}; " for step in between if step)
    rest = 1 - float(walk.weights.mean(0).sum())
    result = "the softmax turns it into weights that sum to 1."
    if walk.reading.attention[walk.layer].weights.sinks is not None:
        result = f"the softmax turns it into weights that sum to 1, with {rest:.4f} that a sink takes."
    return steps + result


class _Wrapped:
    """Text that is wrapped at the width of the terminal and indented, without trailing spaces."""

    def __init__(self, text: str | Text, style: str = "", indent: int = 0) -> None:
        self.text = Text(text, style) if isinstance(text, str) else text
        self.indent = indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.text.wrap(console, max(8, options.max_width - self.indent)):
            line.rstrip()
            yield Text(" " * self.indent).append_text(line)


def _indented(text: str | Text) -> RenderableType:
    return _Wrapped(text, indent=3)


def _step(title: str, text: str) -> RenderableType:
    return Group(Text(), Text(title, style="bold cyan"), _indented(text))


def _numbers(name: str, vector: Tensor, width: int) -> RenderableType:
    count = max(1, min(8, (width - 3 - 8 - 14) // 7))
    shown = " ".join(f"{number:+.3f}" for number in vector[:count].tolist())
    more = f" … {len(vector)} in all" if len(vector) > count else ""
    return _indented(Text.assemble((f"{name:<8}", "bold"), shown, (more, "dim")))


def _scores(walk: Walk, width: int, limit: int = 24) -> RenderableType:
    weights = walk.weights.mean(0)
    scores, scaled, hidden = walk.scores.mean(0).tolist(), walk.scaled.mean(0).tolist(), walk.hidden.tolist()
    shown = sorted(weights.argsort(descending=True, stable=True)[:limit].tolist())
    rows = [(Text("key of", "dim"), ["query·key", "scaled", "weight"], 0.0)]
    for place in shown:
        token, weight = walk.reading.tokens[place], float(weights[place])
        style = "dim" if token.special or hidden[place] else "bold" if place in walk.word.tokens else ""
        numbers = [f"{scores[place]:.2f}", f"{scaled[place]:.2f}", "hidden" if hidden[place] else f"{weight:.4f}"]
        label = (_short(token.text, 16).strip() or "␣") + (" (unk)" if token.unknown else "")
        rows.append((Text(label, style), numbers, weight))
    if len(shown) < len(weights):
        rest = float(weights.sum() - weights[shown].sum())
        rows.append((Text(counted(len(weights) - len(shown), "other"), "dim"), ["", "", f"{rest:.4f}"], rest))
    margin = max(name.cell_len for name, _, _ in rows)
    columns = [2 + max(len(numbers[n]) for _, numbers, _ in rows) for n in range(3)]
    room = min(24, width - 3 - margin - sum(columns) - 3)
    lines = []
    for number, (name, numbers, weight) in enumerate(rows):
        name.pad_right(margin - name.cell_len)
        line = name.append("".join(map(str.rjust, numbers, columns)), "" if number else "dim")
        lines.append(_indented(line.append("  " + bar_of(weight, room), "green") if room >= 4 else line))
    return Group(*lines)


def bar_of(share: float, width: int = 24) -> str:
    """A bar for a share of 1, in eighths of a character."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def _mixture(walk: Walk, limit: int = 4) -> str:
    weights = walk.weights.mean(0)
    top = weights.argsort(descending=True, stable=True)[:limit].tolist()
    top = [n for n in top if weights[n] >= 0.0005] or top[:1]
    terms = [f"{weights[n]:.3f} × “{_short(walk.reading.tokens[n].text, 16)}”" for n in top]
    return " + ".join(terms) + (" + …" if len(weights) > len(top) else "")


def _similarity_by_layer(walk: Walk, width: int) -> RenderableType:
    vectors = walk.word.vectors.float()
    lines = []
    count = len(vectors) - 1
    for layer in torch.linspace(0, count - 1, min(count, LISTED_LAYERS)).round().int().tolist():
        cosine = float(torch.nn.functional.cosine_similarity(vectors[layer + 1], vectors[0], dim=0))
        bar = bar_of(max(0.0, cosine), max(0, min(24, width - 3 - 22)))
        lines.append(_indented(Text(f"after layer {layer:<3}{cosine:5.2f}  ").append(bar, "green")))
    return Group(*lines)


def heat_map(reading: Reading, layer: int | None, head: int | None, width: int) -> RenderableType:
    """The weights of a head, or the mean over heads (and layers), word by word: in per cent, on a colour.

    Rows attend, columns are attended to. Of a text wider than the terminal, the words that fit are shown.
    """
    reading.check(layer, head)
    layers = reading.attention_layers if layer is None else [layer % reading.layers]
    which = "all layers" if layer is None else f"layer {layers[0]}"
    if head is not None:
        which += f", head {head % reading.heads}"
    else:
        which += " and heads, mean" if layer is None else ", mean of its heads"
    names = [_short(unit.text, 12) for unit in reading.units]
    margin = max(cell_len(name) for name in names[:width]) + 1
    columns = [max(4, cell_len(name) + 1) for name in names]
    fitting = max(1, sum(margin + total <= width for total in accumulate(columns)))
    weights = torch.stack([_corner(reading, n, head, fitting) for n in layers]).mean(0)
    lines: list[RenderableType] = [_Wrapped(f"{which}: each row is where a word looks, in per cent", "dim"), Text()]
    header = Text(" " * margin)
    for name, column in zip(names[:fitting], columns, strict=False):
        header.append(" " * (column - cell_len(name)) + name, style="bold")
    lines.append(header)
    for name, row in zip(names[:fitting], weights.tolist(), strict=True):
        line = Text(name + " " * (margin - cell_len(name)), style="bold")
        for weight, column in zip(row, columns, strict=False):
            per_cent = f"{100 * weight:.0f}" if weight >= 0.005 else "·"
            line.append(per_cent.rjust(column), style=_on_ramp(weight))
        lines.append(line)
    if fitting < len(names):
        hint = f"… the first {fitting} of {len(names)}; --save map.png or map.html shows all"
        lines.append(_Wrapped(hint, "dim"))
    if reading.note:
        lines += [Text(), _note(reading.note)]
    if head is None:
        lines += [Text(), _Wrapped("A mean of weights shows where heads look, not what decides the output.", "dim")]
    return Group(*lines)


def _corner(reading: Reading, layer: int, head: int | None, count: int) -> Tensor:
    """The weights between the first units: of a head, or the mean of all."""
    groups = torch.where(reading.unit_of_token < count, reading.unit_of_token, -1)
    heads = reading.attention[layer].weights.grouped(queries=groups, keys=groups).cpu()
    return heads.mean(0) if head is None else heads[head]


def similarity(comparison: Comparison) -> RenderableType:
    """One word in several texts: the cosines before the first layer and after each, and the clusters."""
    n = len(comparison.words)
    lines: list[RenderableType] = []
    sides = ["A" if place in comparison.clusters[0] else "B" for place in range(n)]
    for place, reading in enumerate(comparison.readings):
        text = _short(" ".join(reading.text.split()), 200)
        lines.append(_Wrapped(Text.assemble((f"{place + 1} ", "bold"), (f"{sides[place]} ", "cyan"), text)))
        lines += [_note(reading.note, 4)] if reading.note else []
    count = len(comparison.similarity)
    layers = range(count) if count <= LISTED_MATRICES else (0, count // 2, count - 1)
    for layer in layers:
        matrix = comparison.similarity[layer]
        title = "before the first layer" if layer == 0 else f"after layer {layer - 1}"
        lines += [Text(), Text(title, "bold cyan"), Text("  " + "".join(f"{m + 1:>6}" for m in range(n)), "bold")]
        for place, row in enumerate(matrix.tolist()):
            line = Text(f"{place + 1:<2}", "bold")
            for cosine in row:
                line.append(f"{cosine:6.2f}", _on_ramp((cosine - 0.5) * 2))
            lines.append(line)
    if len(layers) < count:
        lines += [Text(), _Wrapped(f"{len(layers)} of {count}; --json has all.", "dim")]
    lines += [Text(), _Wrapped(_verdict(comparison))]
    if comparison.readings[0].causal:
        lines.append(_Wrapped("This model is causal: each word saw only what stands before it.", "dim"))
    return Group(*lines)


def _verdict(comparison: Comparison) -> str:
    within_a, within_b, across = (cosines.tolist() for cosines in comparison.cluster_similarity())
    least = float(comparison.similarity[0].min())
    word = _short(comparison.word, 32)
    start = f"Before the first layer the vectors of “{word}” are alike from {least:.2f} to 1.00"
    if least >= 0.95:
        start = f"Before the first layer every “{word}” is the same word ({least:.2f} to 1.00: only the place differs)"
    if least > 0.9999:  # places that are rotations, or biases, are not in the vectors
        start = f"Before the first layer every “{word}” has the same vector"
    if not comparison.clusters[1]:
        return f"{start}. After the last they do not part into groups."
    names = [" and ".join(str(place + 1) for place in group) for group in comparison.clusters]
    last = zip((within_a[-1], within_b[-1]), names, strict=True)
    within = [(cosine, name) for cosine, name in last if not math.isnan(cosine)]
    if not within:
        return f"{start}. After the last they are alike to {across[-1]:.2f}."
    if sum(cosine for cosine, _ in within) / len(within) <= across[-1]:
        return f"{start}. After the last they do not part into groups."
    shares = ", ".join([*(f"{cosine:.2f} within {name}" for cosine, name in within), f"{across[-1]:.2f} across"])
    return f"{start}. After the last the texts part into A ({names[0]}) and B ({names[1]}): {shares}."


def _on_ramp(weight: float) -> str:
    """A rich style: the weight as a background from dark (0) to yellow (1), by its square root."""
    place = math.sqrt(min(1.0, max(0.0, weight))) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    ink = "black" if place > 2.2 else "white"
    return f"{ink} on rgb({red},{green},{blue})"


def _short(text: str, limit: int) -> str:
    """Text for one line: truncated to `limit` columns, without control characters, and isolated (see below)."""
    text = printable(text)
    longest = 8 * limit  # characters; a letter may carry any number of marks that take no column
    if cell_len(text) > limit or len(text) > longest:
        text = set_cell_size(text[:longest], limit - 1).rstrip() + "…"
    return _isolated(text)


def _isolated(text: str) -> str:
    """Right-to-left text between marks that keep it from moving the numbers beside it.

    Without them, terminals that follow Unicode's bidirectional algorithm (UAX #9) scatter the cells of a row.
    """
    if not any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text):
        return text
    return f"\u2068{text}\u2069"  # FIRST STRONG ISOLATE, POP DIRECTIONAL ISOLATE


def backends(rows: Mapping[str, tuple[list[str], str]]) -> RenderableType:
    """Which backends are available here, as what, and why the others are not."""
    margin = max(map(len, rows)) + 2
    lines = []
    for name, (reasons, what) in rows.items():
        why = Text("; ".join(reasons), "yellow") if reasons else Text("serves", "green").append(f"  {what}", "none")
        lines.append(_Wrapped(Text(f"{name:<{margin}}", "bold").append_text(why)))
    return Group(*lines)
