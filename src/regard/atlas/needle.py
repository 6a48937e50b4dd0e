"""Needles in a text: a sentence with random words in the midst of prose, a question about it, and the answer.

    … prose … The secret words of Ada are river, circle, pepper, … . … prose …
    Question: What are the secret words of Ada?
    Answer: The secret words of Ada are river, circle, pepper, …

The words are random, so that a model can know them from the sentence alone: to predict them, a head has to look at them
there, a retrieval head (Wu et al. 2024, https://arxiv.org/abs/2404.15574). The answer is given to the model, and what
counts is where its heads look in the row that predicts each token of a word of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from regard.atlas.texts import TITLES, Input, prose
from regard.lens.chunks import sentences
from regard.lens.encode import Encoded
from regard.lens.words import trimmed

if TYPE_CHECKING:
    from regard.lens import Lens
    from regard.lens.words import Span
    from regard.models import Model

NEEDLES, LENGTH = 8, 512
WORDS = 7  # of an answer
_NAMES = "Ada Bruno Clara David Emma Felix Greta Hugo Ida Jonas"
_WORDS = """
    anchor apple arrow basket beetle blanket bottle bridge bucket butter button camel candle carpet castle cherry
    chicken circle cloud coffee copper cotton cradle dragon drum eagle engine feather finger flag flower forest garden
    ginger glove hammer harbor honey island ivory jacket jungle kettle kitten ladder lemon lion magnet marble mirror
    monkey mountain needle onion orange paper parrot pencil pepper pillow planet pocket potato rabbit ribbon river
    rocket rubber saddle salt shadow silver spider spoon square stone sugar table temple thunder tiger tomato tower
    turtle umbrella valley velvet violin wagon whistle window winter yellow"""


def needles(lens: Lens, seed: int = 0, *, count: int = NEEDLES, length: int = LENGTH) -> list[Input]:
    """Texts with a needle at several depths, from the beginning to the end of the prose around it, and its answer.

    `Sample.answer` of each has, for every token of the answer, the row that predicts it and its place in the needle.
    The texts have more than 50 tokens of answers together: a head that looks anywhere does not get a share of 0.1 by
    chance.

    Args:
        lens: whose model reads them.
        seed: of the words, and of what is around them.
        count: how many.
        length: the most tokens of each; fewer where the context is shorter.

    Returns:
        The texts; an empty list for a model whose context has no room for a needle, its question and the answer.

    >>> import regard
    >>> text = needles(regard.Lens(), count=1)[0]                 # an encoder, but its tokens will do
    >>> print(text.text[-82:])
    The secret words of Ida are arrow, whistle, kitten, turtle, blanket, candle, camel
    >>> row, place = text.answer[0]
    >>> text.encoded.pieces[row + 1], text.encoded.pieces[place]
    ('arrow', 'arrow')
    """
    inputs = (_needle(lens.model, seed, number, count, length) for number in range(count))
    return [text for text in inputs if text is not None]


def _needle(model: Model, seed: int, number: int, count: int, length: int) -> Input | None:
    """Needle number so-and-so, at its depth; None where it does not fit into the context."""
    chance = random.Random(f"needle {seed} {number}")
    name, words = chance.choice(_NAMES.split()), ", ".join(chance.sample(_WORDS.split(), WORDS))
    statement, question = f"The secret words of {name} are {words}", f"What are the secret words of {name}?"
    end = f"\n\nQuestion: {question}\nAnswer: {statement}"
    room = min(length, model.max_length) - len(model.prefix_ids) - _tokens(model, f"{statement}. {end}") - 4
    if room < 0:
        return None
    around = _prose(model, chance, room)
    depth = round(number / max(1, count - 1) * len(around))
    before, after = " ".join(around[:depth]), " ".join(around[depth:])
    text = " ".join(filter(None, (before, f"{statement}.", after))) + end
    place = text.index(statement)
    return _with_answer(model, text, place + statement.index(words), len(words))


def _prose(model: Model, chance: random.Random, room: int) -> list[str]:
    """Sentences that follow each other in our own texts, of so many tokens at most together."""
    text = "\n\n".join(prose(title) for title in chance.sample(TITLES, len(TITLES)))
    chosen = []
    for start, stop in sentences(text):
        sentence = " ".join(text[start:stop].split())
        room -= _tokens(model, f" {sentence}")
        if room < 0:
            break
        chosen.append(sentence)
    return chosen


def _tokens(model: Model, text: str) -> int:
    return len(model.unprocessed.encode(text, add_special_tokens=False).ids)


def _with_answer(model: Model, text: str, start: int, size: int) -> Input | None:
    """A text that ends with what stands at `start`, `size` characters of it, and the pairs of tokens of both."""
    encoding = model.unprocessed.encode(text, add_special_tokens=False)
    before = model.prefix_ids
    spans: list[Span | None] = [None] * len(before)
    spans += [trimmed(text, *span) for span in encoding.offsets]
    ids, pieces = [*before, *encoding.ids], [*(model.tokenizer.id_to_token(id) or "" for id in before)]
    encoded = Encoded(ids, [0] * len(ids), [*pieces, *encoding.tokens], spans)
    shift = len(text) - size - start
    words = [(place, span) for place, span in enumerate(spans) if span and text[slice(*span)].isalpha()]
    there = {span: place for place, span in words if start <= span[0] and span[1] <= start + size}
    pairs = [
        (place - 1, there[moved])
        for place, span in words
        if (moved := (span[0] - shift, span[1] - shift)) in there and ids[there[moved]] == ids[place]
    ]
    if len(ids) > model.max_length or not pairs:
        return None
    return Input("needle", text, encoded, answer=torch.tensor(pairs))


def answers(inputs: Sequence[Input]) -> int:
    """How many tokens of answers these texts have together."""
    return sum(len(text.answer) for text in inputs if text.answer is not None)
