"""Readings in the terminal: the walk of a word as a lesson, heat maps and comparisons, readable without colour.

The command line prints what these functions return, and nothing else calls them: so their hints name its options. May
import the rooms below; rich draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from rich.console import Group, RenderableType
from rich.text import Text
from torch import Tensor

from regard._internal.plurals import counted
from regard.attribution.heads.scores import SCORES, STRICT_FROM
from regard.lens.compare import SAME, Comparison
from regard.lens.contributions import content_tokens
from regard.lens.reading import Reading
from regard.lens.units import Word
from regard.lens.walk import CAUTION, Walk
from regard.lens.words import printable
from regard.output.lines import Wrapped, aligned, bar_of, indented, note, on_ramp, short, step, table
from regard.output.maps import Taken, attention_name

LISTED_LAYERS = 12  # layers whose similarity a lesson lists; of a deeper model, as many at equal distances
LISTED_MATRICES = 8  # matrices of a comparison that are all shown; of more, the first, the middle and the last


def explain(
    walk: Walk, width: int = 80, taken: Taken | None = None, against: Comparison | None = None
) -> RenderableType:
    """The walk of a word, as a lesson: what query, key and value are for, the numbers, and what changed.

    With `taken`, it goes on with what the word took home from each under a map. With `against`, a comparison with the
    word in another text, it ends with how far apart the two are, which takes the place of what changed.
    """
    reading, word = walk.reading, _quoted(walk.word)
    size, tokens = len(walk.x[0]), len(walk.word.tokens)
    mean = f" {word} is {tokens} tokens; the numbers are their mean." if tokens > 1 else ""
    attention = f", {attention_name(reading)}" if reading.part else ""
    heads = f"{printable(reading.model)}{attention}: {reading.layers} layers × {reading.heads} heads"
    origin = "at layer 0, much the same in any text" if walk.layer == 0 else f"made by the {walk.layer} layers before"
    if reading.source is not None:
        origin = "made by the self-attention that comes before it in this layer"
    others = "neighbours know" if reading.source is None else "encoder knows of the source"
    lines: list[RenderableType] = [
        *(Wrapped(f"“{short(' '.join(of.text.split()), 400)}”", "bold") for of in _texts(reading)),
        Wrapped(f"{heads}; this is {_where(walk, word)}.", "dim"),
        *(line for of in _texts(reading) for line in _notes(of)),
        step(
            "The word comes in",
            f"as {size} numbers, {origin}. Attention will mix in what its {others}.{mean}",
        ),
        _numbers("x", walk.x.mean(0), width),
        *_norm_step(walk, width),
        step(
            "Query, key, value",
            f"Think of a supermarket. The query is the ingredient on your recipe: what {word} looks for. Every "
            f"{'token of the source' if reading.source else 'token'} has a key, the label on its shelf, and a value, "
            f"what you take home. {_projections(walk)}",
        ),
        *_query_lines(walk, width),
        *_own_lines(walk, width),
        step(
            "Scores, scaling, softmax",
            f"The query meets every key: the dot product is large where they match. {_scaling(walk)}{_softmax(walk)}",
        ),
        _scores(walk, width),
        *([indented(_pattern(walk.pattern))] if walk.pattern else []),
        step("The weighted sum", f"{word} takes home each value times its weight: {_mixture(walk)}."),
        _numbers("context", walk.context.mean(0), width),
        *([indented(_sinks(walk))] if walk.resting else []),
        step("Check", f"The model itself arrives at these numbers: the largest difference is {_error(walk):.1e}."),
        *(_changes(walk, width) if against is None else []),
        *([_step_of(taken), _taken(taken, width)] if taken else []),
        *(_parting(against, width) if against is not None else []),
        Text(),
        Wrapped(CAUTION, "dim"),
    ]
    return Group(*lines)


def _quoted(word: Word) -> str:
    return f"“{short(word.text, 32)}”"


def _norm_step(walk: Walk, width: int) -> list[RenderableType]:
    """The normalization of x before the attention, where the layer has one."""
    if walk.made is None or not walk.made.norm:
        return []
    text = f"Before its attention, this layer normalizes x ({walk.made.norm}), which puts all tokens on one scale."
    return [step("Norm", text), _numbers("normed", walk.made.normed.mean(0), width)]


def _projections(walk: Walk) -> str:
    """How the layer makes query, key and value from x, as far as it is known."""
    made = walk.made
    if made is None:
        return "They are shown as the model's attention received them; how it makes them from x is not known here."
    x = "the normalized x" if made.norm else "x"
    text = f"Each is made from {x} by a matrix that the model has learned."
    if walk.reading.source is not None:
        text = f"The query is made from {x}, keys and values from what the encoder made of the source, by matrices."
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


def _own_lines(walk: Walk, width: int) -> list[RenderableType]:
    """Key and value of the word itself, which a word of a target does not have for the source."""
    if walk.reading.source is not None:
        return []
    own = list(walk.word.tokens)
    return [_numbers("key", walk.keys[own].mean(0), width), _numbers("value", walk.values[own].mean(0), width)]


def _texts(reading: Reading) -> list[Reading]:
    """What is read: of cross-attention source and target."""
    return [reading] if reading.source is None else [reading.source, reading]


def _sinks(walk: Walk) -> str:
    """Which tokens take much of the weight and add little."""
    assert walk.carried is not None
    weights, carried = walk.weights.mean(0), walk.carried.mean(0)
    share = carried / carried.sum()
    tokens = [
        f"“{short(walk.reading.columns.tokens[n].text, 16)}” has {weights[n]:.0%} of the weight "
        f"and {share[n]:.0%} of what is added"
        for n in walk.resting[:3]
    ]
    return (
        f"{'; '.join(tokens)}: its value is short. A head that looks for nothing rests on such a token, an attention "
        "sink."
    )


def _error(walk: Walk) -> float:
    """The largest difference of anything that is shown from what the model computed."""
    return max(walk.error, walk.made.error if walk.made else 0.0)


def _pattern(name: str) -> str:
    """What it means that every token attends to the same position."""
    return (
        f"This head follows a pattern: every token gives more than {STRICT_FROM:.0%} of its weight to "
        f"{SCORES[name].whom}. It tells where words stand, not what they mean."
    )


def _notes(reading: Reading) -> list[RenderableType]:
    """What was not read, and which words the model does not know."""
    return [note(line) for line in (reading.truncated, reading.note) if line]


def _where(walk: Walk, word: str) -> str:
    where = f"layer {walk.layer}, head {walk.head}"
    if not walk.chosen:
        return where
    if walk.sees_only_itself:
        return f"{where}: {word} sees no other word, because nothing comes before it"
    share = float(walk.weights.mean(0)[content_tokens(walk.reading, walk.word)].sum())
    if share < 0.005:
        return f"{where}: in none does {word} look at another word"
    whose = "other words" if walk.reading.source is None else "words of the source"
    return f"{where}, which carries most to {word} from {whose}: they have {share:.0%} of its weight"


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


def _numbers(name: str, vector: Tensor, width: int) -> RenderableType:
    count = max(1, min(8, (width - 3 - 8 - 14) // 7))
    shown = " ".join(f"{number:+.3f}" for number in vector[:count].tolist())
    more = f" … {len(vector)} in all" if len(vector) > count else ""
    return indented(Text.assemble((f"{name:<8}", "bold"), shown, (more, "dim")))


def _scores(walk: Walk, width: int, limit: int = 24) -> RenderableType:
    weights = walk.weights.mean(0)
    scores, scaled, hidden = walk.scores.mean(0).tolist(), walk.scaled.mean(0).tolist(), walk.hidden.tolist()
    shown = sorted(weights.argsort(descending=True, stable=True)[:limit].tolist())
    rows = [(Text("key of", "dim"), ["query·key", "scaled", "weight"], 0.0)]
    for place in shown:
        token, weight = walk.reading.columns.tokens[place], float(weights[place])
        own = walk.reading.source is None and place in walk.word.tokens
        style = "dim" if token.special or hidden[place] else "bold" if own else ""
        numbers = [f"{scores[place]:.2f}", f"{scaled[place]:.2f}", "hidden" if hidden[place] else f"{weight:.4f}"]
        label = (short(token.text, 16).strip() or "␣") + (" (unk)" if token.unknown else "")
        rows.append((Text(label, style), numbers, weight))
    if len(shown) < len(weights):
        rest = float(weights.sum() - weights[shown].sum())
        rows.append((Text(counted(len(weights) - len(shown), "other"), "dim"), ["", "", f"{rest:.4f}"], rest))
    return table(rows, width)


def _step_of(taken: Taken) -> RenderableType:
    """What the numbers of the map are."""
    shown = taken.shown
    target = "" if shown.target is None else f", for {short(shown.target.name, 64)}"
    where = ", of all heads together; its weights are their mean" if taken.head is None else ""
    text = f"The map {shown.name}{target}: {shown.unit}{where}. Beside each number stands its share of all."
    return step("What it took home", text)


def _taken(taken: Taken, width: int, limit: int = 24) -> RenderableType:
    """Weights and numbers of the units that the word took most from, in the order of the text."""
    sizes, units = taken.values.abs(), taken.shown.reading.columns.units
    total = float(sizes.sum()) or 1.0
    places = sorted(sizes.argsort(descending=True, stable=True)[:limit].tolist())
    rows = [(Text("from", "dim"), ["weight", taken.shown.name, "share"], 0.0)]
    for n, value in zip(places, aligned(taken.values[places].tolist()), strict=True):
        weight, share = float(taken.weights[n]), float(sizes[n]) / total
        label = Text(short(units[n].text, 16).strip() or "␣", "dim" if units[n].special else "")
        rows.append((label, [f"{weight:.4f}", value, f"{share:.0%}"], share))
    if rest := len(units) - len(places):
        left = float(sizes.sum() - sizes[places].sum()) / total
        rows.append((Text(f"… and {rest:,} more", "dim"), ["", "", f"{left:.0%}"], left))
    return table(rows, width)


def _mixture(walk: Walk, limit: int = 4) -> str:
    weights = walk.weights.mean(0)
    top = weights.argsort(descending=True, stable=True)[:limit].tolist()
    top = [n for n in top if weights[n] >= 0.0005] or top[:1]
    terms = [f"{weights[n]:.3f} × “{short(walk.reading.columns.tokens[n].text, 16)}”" for n in top]
    return " + ".join(terms) + (" + …" if len(weights) > len(top) else "")


def _changes(walk: Walk, width: int) -> list[RenderableType]:
    """How much the word still resembles the vector that came in, after each layer."""
    vectors = walk.word.vectors.float()
    cosines = torch.nn.functional.cosine_similarity(vectors[1:], vectors[:1], dim=-1)
    text = f"Every layer does this with all its heads. The cosine of {_quoted(walk.word)} with the vector that came in:"
    return [step("What changed", text), *_by_layer(cosines, 1, width)]


def _parting(against: Comparison, width: int) -> list[RenderableType]:
    """How far apart the word and the same word in another text are, before the first layer and after each."""
    distances, other = against.distances(0, 1), against.readings[1]
    text = short(" ".join(other.text.split()), 400)
    question = (
        f"How far {_quoted(against.words[0])} is from {_quoted(against.words[1])} in “{text}”, as a cosine distance: "
        "0 is the same direction, 1 a right angle."
    )
    return [
        step("The same word in another text", question),
        *_notes_of_other(other),
        *_by_layer(distances, 0, width),
        indented(_end(against, float(distances[0]), float(distances[-1]))),
    ]


def _notes_of_other(reading: Reading) -> list[RenderableType]:
    """The same as `_notes`, under a title."""
    return [note(line, 3) for line in (reading.truncated, reading.note) if line]


def _end(against: Comparison, before: float, after: float) -> str:
    """What the distances of a word in two texts come to."""
    if after < SAME:
        causal = (
            " This model is causal: the word sees only what stands before it." if against.readings[0].causal else ""
        )
        return f"They stay the same vector to the end.{causal}"
    if before < 1e-4:  # as in models whose positions are not in the vectors
        return f"The same vector went in; its neighbours alone made two of it, {after:.2f} apart."
    if before < 0.05:
        return f"The same word went in, only its place differs; its neighbours made two of it, {after:.2f} apart."
    return f"They were {before:.2f} apart before the first layer, and are {after:.2f} apart after the last."


def _by_layer(numbers: Tensor, first: int, width: int) -> list[RenderableType]:
    """A line with a bar for each number: `first` is 0 for numbers that begin before the first layer, 1 after it."""
    lines: list[RenderableType] = []
    count = len(numbers)
    for n in torch.linspace(0, count - 1, min(count, LISTED_LAYERS + 1 - first)).round().int().tolist():
        name = f"after layer {n + first - 1}" if n + first else "before layer 0"
        number = float(numbers[n])
        bar = bar_of(min(1.0, max(0.0, number)), max(0, min(24, width - 3 - 22)))
        lines.append(indented(Text(f"{name:<15}{number:5.2f}  ").append(bar, "green")))
    return lines


def similarity(comparison: Comparison) -> RenderableType:
    """One word in several texts: the cosines before the first layer and after each, and the clusters."""
    n = len(comparison.words)
    lines: list[RenderableType] = []
    sides = ["A" if place in comparison.clusters[0] else "B" for place in range(n)]
    for place, reading in enumerate(comparison.readings):
        text = short(" ".join(reading.text.split()), 200)
        lines.append(Wrapped(Text.assemble((f"{place + 1} ", "bold"), (f"{sides[place]} ", "cyan"), text)))
        lines += [note(reading.note, 4)] if reading.note else []
    count = len(comparison.similarity)
    layers = range(count) if count <= LISTED_MATRICES else (0, count // 2, count - 1)
    for layer in layers:
        matrix = comparison.similarity[layer]
        title = "before the first layer" if layer == 0 else f"after layer {layer - 1}"
        lines += [Text(), Text(title, "bold cyan"), Text("  " + "".join(f"{m + 1:>6}" for m in range(n)), "bold")]
        for place, row in enumerate(matrix.tolist()):
            line = Text(f"{place + 1:<2}", "bold")
            for cosine in row:
                line.append(f"{cosine:6.2f}", on_ramp((cosine - 0.5) * 2))
            lines.append(line)
    if len(layers) < count:
        lines += [Text(), Wrapped(f"{len(layers)} of {count}; --json has all.", "dim")]
    lines += [Text(), Wrapped(_verdict(comparison))]
    if comparison.readings[0].causal:
        lines.append(Wrapped("This model is causal: each word saw only what stands before it.", "dim"))
    return Group(*lines)


def _verdict(comparison: Comparison) -> str:
    within_a, within_b, across = (cosines.tolist() for cosines in comparison.cluster_similarity())
    least = float(comparison.similarity[0].min())
    word = short(comparison.word, 32)
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


def backends(rows: Mapping[str, tuple[list[str], str]]) -> RenderableType:
    """Which backends are available here, as what, and why the others are not."""
    margin = max(map(len, rows)) + 2
    lines = []
    for name, (reasons, what) in rows.items():
        why = Text("; ".join(reasons), "yellow") if reasons else Text("serves", "green").append(f"  {what}", "none")
        lines.append(Wrapped(Text(f"{name:<{margin}}", "bold").append_text(why)))
    return Group(*lines)
