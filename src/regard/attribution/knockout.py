"""What really changes: the text is read again with heads switched off, or with words that may not look at others.

Geva et al. 2023, "Dissecting Recall of Factual Associations in Auto-Regressive Language Models",
https://arxiv.org/abs/2304.14767; heads by Michel et al. 2019, https://arxiv.org/abs/1905.10650.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from regard.attribution.again import TOKENS_AT_ONCE, attention_without, check_same_text, output_of, read_again
from regard.attribution.target import Target, default_target, word_of
from regard.lens.forward import of_pass
from regard.lens.reading import Reading
from regard.lens.units import Word
from regard.lens.words import printable

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from regard._typing import MaskMod

End = str | int | Word | tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Knockout:
    """What a knockout changed.

    Attributes:
        name: what was switched off.
        target: what was looked at.
        before, after: its number as the model read the text, and with that switched off.
        reading: the text as it was read then, with all hidden states and attentions.

    >>> import regard
    >>> from regard import attribution
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> target = attribution.Target.similarity(reading, "Time passes quickly")
    >>> cut = attribution.knockout(reading, target, edges=[("flies", "Time")])
    >>> cut.name, round(cut.change - (cut.after - cut.before), 6)
    ('“flies” may not look at “Time”', 0.0)
    """

    name: str
    target: Target
    before: float
    after: float
    reading: Reading = field(repr=False)

    @property
    def change(self) -> float:
        """after − before."""
        return self.after - self.before


def knockout(
    reading: Reading,
    target: Target | None = None,
    *,
    heads: Sequence[tuple[int, int]] = (),
    fill: Literal["zero", "mean"] = "zero",
    edges: Sequence[tuple[End, End]] = (),
    at: Sequence[int | tuple[int, int]] | None = None,
) -> Knockout:
    """Read a text again with something switched off.

        heads    o_i^h = 0, or the mean over the text (1/N) Σ_i o_i^h
        edges    s_ij = −inf, so that w_ij = 0 and the other weights of the row grow to a sum of one

    An edge is cut by a rule; no N × N tensor is made. A word that may look at nothing any more takes nothing home: 0.

    Args:
        reading: the text.
        target: whose change is wanted: `default_target` by default.
        heads: (layer, head) of the heads to switch off.
        fill: what takes the place of their output: "zero", or "mean".
        edges: (who, whom): who may no longer look at whom. Each is a word, by its text or its place in
            `reading.words`; a `Word`, such as `reading.word("flies", nth=2)` or, for a token, `reading.token(3)`; a
            passage, as (start, end) of its characters; or None for all tokens, special ones included.
        at: where edges are cut: layers, or (layer, head); by default everywhere.

    Returns: the target before and after, and the new reading.

    Raises:
        LookupError: there is no such word, or several. IndexError: there is no such layer or head.
        ValueError: nothing is switched off; a passage has no token; the reading cannot be read again, or the target is
            of another text.

    >>> import regard
    >>> from regard.attribution import Target, knockout
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> result = knockout(reading, Target.word(reading, "flies"), edges=[("flies", "arrow")])
    >>> result.name
    '“flies” may not look at “arrow”'
    >>> float(result.reading.weights(3)[:, 2, 5].sum())       # of all heads of a layer
    0.0
    """
    check_same_text(reading, "knockout")
    if not heads and not edges:
        raise ValueError("knockout: name the heads or the edges that are to be switched off.")
    if fill not in ("zero", "mean"):
        raise ValueError(f"knockout: fill: expected 'zero' or 'mean'. Got {fill!r}.")
    target = default_target(reading) if target is None else target
    before = target.of(reading)
    ends = [tuple(_end(reading, end) for end in _pair(edge, "edges", "(who, whom)")) for edge in edges]
    cuts = [_Cut(who.tokens, whom.tokens) for who, whom in ends]
    where = _places(reading, list(range(reading.layers)) if at is None else at, skip_missing=at is None)
    off = _places(reading, [_pair(head, "heads", "(layer, head)") for head in heads])
    rules = {layer: _rule(cuts, heads) for layer, heads in where.items()} if cuts else {}
    zero, mean = (off, {}) if fill == "zero" else ({}, off)
    compute = attention_without(reading.attention_layers, hidden=rules, zero=zero, mean=mean)
    with torch.inference_mode():
        passed = read_again(reading, compute, "knockout", hides_keys=bool(cuts))
    after = target.number(output_of(reading, passed, 0, "knockout"))
    names = [f"{who.name} may not look at {whom.name}" for who, whom in ends]
    names += [f"layer {layer} head {head} is off" for layer, head in heads]
    name = ", ".join(names)
    note = f"{reading.note} Read with a knockout: {name}.".strip()
    return Knockout(name, target, before, after, replace(reading, note=note, **of_pass(passed)))


def knockouts(
    reading: Reading,
    target: Target | None = None,
    *,
    at: Sequence[int | tuple[int, int]] | None = None,
    advance: Callable[[int], object] = lambda units: None,
) -> Float[Tensor, "units"]:
    """For every word, how a target changes when no other word may look at it: after − before.

    The judge beside the other methods: below 0 where the word was needed. One number for each of `reading.units`, so
    for special tokens too.

    Cost: a forward pass for each word, several of them together.

    Args:
        reading: the text.
        target: `default_target` by default.
        at: where it may not be looked at: layers, or (layer, head); by default everywhere.
        advance: called with the number of units that are done, each time.

    Raises ValueError and IndexError as `knockout`.

    >>> import regard
    >>> from regard.attribution import knockouts
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> knockouts(reading).shape                  # five words, [CLS] and [SEP]
    torch.Size([7])
    """
    check_same_text(reading, "knockouts")
    target = default_target(reading) if target is None else target
    before = target.of(reading)
    where = _places(reading, list(range(reading.layers)) if at is None else at, skip_missing=at is None)
    at_once = max(1, TOKENS_AT_ONCE // len(reading.tokens))
    changes: list[float] = []
    for hidden in torch.arange(len(reading.units)).split(at_once):
        with torch.inference_mode():
            rules = {layer: _hiding(reading.unit_of_token, hidden, heads) for layer, heads in where.items()}
            compute = attention_without(reading.attention_layers, hidden=rules)
            passed = read_again(reading, compute, "knockouts", copies=len(hidden), hides_keys=True)
        for copy in range(len(hidden)):
            changes.append(target.number(output_of(reading, passed, copy, "knockouts")) - before)
        advance(len(hidden))
    return torch.tensor(changes)


def _hiding(unit_of: Int[Tensor, "N"], unit: Int[Tensor, "B"], heads: Bool[Tensor, "H"]) -> MaskMod:
    """Who may look at whom in copies of a text, in each of which no other word may look at one of them."""

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        units, hidden, chosen = (tensor.to(key.device) for tensor in (unit_of, unit, heads))
        own = units[query] == units[key]
        return own | (units[key] != hidden[batch]) | ~chosen[head]

    return rule


class _End(NamedTuple):
    """One end of an edge: its name, and which tokens it has."""

    name: str
    tokens: Bool[Tensor, "N"]


class _Cut(NamedTuple):
    """Queries that may not look at keys."""

    queries: Bool[Tensor, "N"]
    keys: Bool[Tensor, "N"]


def _rule(cuts: Sequence[_Cut], heads: Bool[Tensor, "H"]) -> MaskMod:
    """Who may look at whom when these edges are cut in these heads."""

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        hidden = torch.zeros((), dtype=torch.bool, device=key.device)
        for queries, keys in cuts:
            hidden = hidden | (queries.to(key.device)[query] & keys.to(key.device)[key])
        return ~(hidden & heads.to(key.device)[head]) & (batch >= 0)

    return rule


def _end(reading: Reading, end: End) -> _End:
    """Who is meant. Raises LookupError or ValueError where that is nobody."""
    tokens = torch.zeros(len(reading.tokens), dtype=torch.bool)
    if end is None:
        return _End("everybody", ~tokens)
    if isinstance(end, tuple):
        start, stop = end
        places = [n for n, token in enumerate(reading.tokens) if max(token.start, start) < min(token.end, stop)]
        if not places:
            raise ValueError(
                f"knockout: edges: there is no token between the characters {start} and {stop}: the text has "
                f"{len(reading.text)}."
            )
        tokens[places] = True
        return _End(f"“{printable(reading.text[start:stop])}”", tokens)
    word = word_of(reading, end)
    tokens[list(word.tokens)] = True
    return _End(f"“{printable(word.text)}”", tokens)


def _pair(pair: Any, argument: str, expected: str) -> tuple[Any, Any]:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ValueError(f"knockout: {argument}: expected {expected} for each. Got {pair!r}.")
    return pair


def _places(
    reading: Reading, places: Sequence[int | tuple[int, int]], skip_missing: bool = False
) -> dict[int, Bool[Tensor, "H"]]:
    """For each layer its heads that are meant. Raises IndexError, with the range, for one that does not exist."""
    chosen: dict[int, Tensor] = {}
    for place in places:
        layer, head = place if isinstance(place, tuple) else (place, None)
        if skip_missing and layer not in reading.attention_layers:
            continue
        reading.check(layer)
        count = reading.heads_of(layer)
        if head is not None and not -count <= head < count:
            raise IndexError(
                f"There is no head {head} in layer {layer}: {reading.model} has heads 0 to {count - 1} there."
            )
        heads = chosen.setdefault(layer % reading.layers, torch.zeros(count, dtype=torch.bool))
        heads[slice(None) if head is None else head] = True
    return chosen
