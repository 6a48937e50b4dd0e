"""What an atlas reads, one after the other, and what each reading gives: attentions to measure, and texts for proofs.

| the model | reads |
|---|---|
| an encoder | texts, repeated tokens |
| a decoder | texts, repeated tokens, needles |
| an encoder-decoder | sources with their targets; repeated tokens as a source, and as a target after a source |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from regard.atlas.loss import Passage
from regard.atlas.needle import needles
from regard.atlas.texts import Input, check_pairs, default_pairs, repeated, texts
from regard.attribution.heads import Sample, Text, sample_of
from regard.lens.encode import Encoded

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from regard.atlas.difference import Shape
    from regard.lens import Lens, Reading

Progress = Callable[[float], object]


class Seen(NamedTuple):
    """An attention that can be measured.

    Attributes:
        part: the part of the model, as in `Atlas.scores`.
        reading: what was read.
        sample: the same as scores of heads see it.
        passage: the same as proofs read it; None where nothing is proved with it.
    """

    part: str
    reading: Reading
    sample: Sample
    passage: Passage | None


class Step(NamedTuple):
    """A text that is read.

    Attributes:
        kind: the kind of text.
        size: about how many tokens it has, for progress.
        read: reads it, and reports the share of the layers that are done.
    """

    kind: Text
    size: int
    read: Callable[[Progress | None], list[Seen]]


def steps(lens: Lens, given: Sequence[Any] | None, seed: int) -> list[Step]:
    """All that is read for an atlas; nothing is read yet, but a few tokens.

    Raises TypeError or ValueError, naming the text, for texts that cannot be read.

    >>> import regard
    >>> [(step.kind, step.size) for step in steps(regard.Lens(), ["Time flies."], seed=0)]
    [('text', 5), ('repeated', 258), ('repeated', 258), ('repeated', 258), ('repeated', 258)]
    """
    if lens.model.after is not None:
        return _of_pairs(lens, default_pairs() if given is None else check_pairs(given), seed)
    inputs = texts(lens, given)
    inputs += repeated(lens, seed)
    if _is_causal(lens, inputs[0]):
        inputs += needles(lens, seed)
    return [_step(lens, text) for text in inputs]


def shape_of_lens(lens: Lens) -> Shape:
    """By part of the model, its layers and the most heads of one, as an atlas of it would have.

    >>> import regard
    >>> shape_of_lens(regard.Lens())
    {'': (6, 12)}
    """
    short = "The cat sat on the mat."
    reading = lens.read(short) if lens.model.after is None else lens.read(short, short)
    parts: dict[str, Reading] = {str(part): each for part, each in reading.parts.items()} or {"": reading}
    return {part: (each.layers, max(map(each.heads_of, each.attention_layers))) for part, each in parts.items()}


def _is_causal(lens: Lens, text: Input) -> bool:
    """Whether no token attends to a later one, judged by the beginning of a text."""
    whole = text.encoded
    beginning = Encoded(whole.ids[:8], whole.types[:8], whole.pieces[:8], whole.spans[:8])
    return Input("text", text.text, beginning).read(lens)[0].causal


def _step(lens: Lens, text: Input, part: str = "", more: Callable[[Passage], Passage] = lambda it: it) -> Step:
    """A text of tokens, as a model reads it; `more` adds to what a proof reads."""

    def read(progress: Progress | None) -> list[Seen]:
        reading, sample = text.read(lens, progress)
        passage = None
        if len(reading.tokens) == len(text.ids):  # and no learned positions before it, which a proof would not know
            passage = more(Passage(text.ids, light(sample)))
        return [Seen(part, reading, sample, passage)]

    return Step(text.kind, len(text.ids), read)


def light(sample: Sample) -> Sample:
    """A sample without the directions of logits, which are large and which no proof needs."""
    return replace(sample, directions=None, direction_of=None)


def _of_pairs(lens: Lens, pairs: Sequence[tuple[str, str]], seed: int) -> list[Step]:
    """What an encoder-decoder reads."""
    after = lens.after(pairs[0][0])
    source = _source_of(after)
    made = [_pair(lens, *pair) for pair in pairs]
    for text in repeated(lens, seed):
        core = text.ids[text.first : text.first + text.period * (len(text.ids) // text.period)]
        target = torch.cat([torch.tensor(after.model.prefix_ids), core[: after.model.max_length - 2]])
        made.append(_step(lens, text, "encoder", lambda it, target=target: replace(it, target=target)))  # type: ignore[misc]
    for text in repeated(after, seed):
        made.append(_step(after, text, "decoder", lambda it: replace(it, source=source)))
    return made


def _source_of(after: Lens) -> Int[Tensor, "N"]:
    """The tokens of the source that a lens has read."""
    source = after._source
    assert source is not None
    assert source.ids is not None
    return source.ids


def _pair(lens: Lens, source: str, target: str) -> Step:
    """A source and its target: the attention of the encoder, of the decoder, and from the target to the source."""

    def read(progress: Progress | None) -> list[Seen]:
        reading = lens.read(source, target, progress=progress)
        parts = {part: (each, sample_of(each)) for part, each in reading.parts.items()}
        assert reading.ids is not None
        assert reading.decoder is not None
        assert reading.decoder.ids is not None
        ids, own = reading.ids, reading.decoder.ids
        passages = {
            "encoder": Passage(ids, parts["encoder"][1], target=own),
            "decoder": Passage(own, parts["decoder"][1], source=ids),
            "cross": Passage(own, parts["cross"][1], source=ids),
        }
        return [Seen(part, *each, passages[part]) for part, each in parts.items()]

    return Step("text", (len(source) + len(target)) // 4, read)
