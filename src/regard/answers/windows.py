"""Documents that are longer than a model's context: which of their passages to answer from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from regard.answers.heads import HeadWeights
from regard.answers.mass import masses
from regard.answers.passages import Passage
from regard.answers.prompt import asked_of, check_fits, prompt_of, room_for

if TYPE_CHECKING:
    from regard.lens import Lens

WINDOW = 1024  # tokens of passages that are read together in the first pass
TRIED = 8  # tokens that the model begins its reply to each window with


def most_relevant(
    lens: Lens,
    question: str,
    passages: Sequence[Passage],
    heads: HeadWeights,
    max_tokens: int,
    advance: Callable[[int], object] = lambda windows: None,
) -> list[Passage]:
    """The passages to answer from, in their order: as many as fit into the context with the question and the reply.

    In a first pass the passages are read in windows, as many in a row as have 1,024 tokens together; the model begins
    a reply to each, and a passage's score is the attention that this beginning gave it, by the weights of heads.

    Raises ValueError where a single passage does not fit.
    """
    encode = lens.model.unprocessed.encode
    sizes = [len(encode(passage.text, add_special_tokens=False).ids) + 2 for passage in passages]
    room = room_for(lens, question, max_tokens)
    if max(sizes) > room:
        longest = passages[sizes.index(max(sizes))]
        raise ValueError(
            f"ask: a passage of {longest.file} has {max(sizes):,} tokens, and {room:,} fit into the context of "
            f"{lens.name} with the question and the reply; divide it with by='sentences' (--passages sentences)."
        )
    scores: list[float] = []
    for first, last in _windows(sizes, min(WINDOW, room)):
        scores += _scores(lens, question, passages[first:last], heads)
        advance(1)
    chosen: set[int] = set()
    left = room
    for number in torch.tensor(scores).argsort(descending=True, stable=True).tolist():
        if sizes[number] > left:
            break
        chosen.add(number)
        left -= sizes[number]
    return [passages[number] for number in sorted(chosen)]


def _windows(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Passages in a row that have at most so many tokens together, or of one.

    >>> _windows([5, 2, 3, 9, 1], 7)
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    edges, total = [0], 0
    for number, size in enumerate(sizes):
        if total and total + size > limit:
            edges.append(number)
            total = 0
        total += size
    return list(zip(edges, [*edges[1:], len(sizes)], strict=True))


def _scores(lens: Lens, question: str, passages: Sequence[Passage], heads: HeadWeights) -> list[float]:
    """The attention that the beginning of a reply gave to each passage, for each of its tokens."""
    prompt = prompt_of(lens, question, passages)
    check_fits(lens, prompt, TRIED, refuse=True)
    generation = lens.chat(prompt.messages, TRIED)
    reading = generation.finish()
    if not generation.tokens:
        return [0.0] * len(passages)
    mass = masses(reading, asked_of(reading, prompt))
    scores = heads.weighted(mass.of_passages) if heads.learned else mass.of_passages.mean((0, 1))
    return [float(score) for score in scores.sum(0) / len(generation.tokens)]
