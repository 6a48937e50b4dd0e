"""`Answer`: a reply, and for each of its sentences the passages that it came from, with the proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from regard._internal.plurals import counted
from regard.answers.passages import Passage

if TYPE_CHECKING:
    from regard.lens import Reading


@dataclass(frozen=True)
class Source:
    """What a passage did for a sentence of a reply.

    Attributes:
        passage: its place in `Answer.passages`.
        attention: the share of the attention of the tokens that wrote the sentence, the first token (a sink) left out,
            over the heads that matter, each by its weight: from 0 to 1.
        logits: what was added to the logits of the sentence's tokens from the passage's, by all layers and heads; None
            for a model in which a logit is no sum of what heads add.
        knockout: by how much log p of the sentence falls, in nats, when the passage is hidden. Above 0: it mattered.
        score: the knockout that attention and logits predict, in nats, 0 where they predict no more than noise, for a
            model whose head weights were learned; otherwise the attention. Sources are ranked by the prediction.

    >>> from regard.answers import Source
    >>> source = Source(passage=0, attention=0.37, logits=11.8, knockout=4.6, score=4.1)
    >>> source.knockout                                           # without it, e^4.6 times less likely
    4.6
    """

    passage: int
    attention: float
    logits: float | None
    knockout: float
    score: float


@dataclass(frozen=True)
class Sentence:
    """A sentence of a reply.

    Attributes:
        text: the sentence.
        start, end: its characters in the reply.
        log_probability: Σ log p of its tokens, in nats, as the model wrote it.
        sources: the passages, the best score first.

    >>> from regard.answers import Sentence, Source
    >>> source = Source(passage=0, attention=0.37, logits=11.8, knockout=4.6, score=4.1)
    >>> sentence = Sentence("It is red.", start=0, end=10, log_probability=-0.9, sources=[source])
    >>> sentence.sources[0].passage
    0
    """

    text: str
    start: int
    end: int
    log_probability: float
    sources: Sequence[Source] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """What `ask` returns.

    Attributes:
        model: the name of the model.
        question: what was asked.
        reply: what the model wrote.
        passages: those that it read, in order.
        sentences: those of the reply, each with its sources.
        note: what a reader should also know, such as why the reply ended early, or "".
        reading: prompt and reply as the model read them.

    >>> from regard.answers import Answer, passages
    >>> answer = Answer("a model", "What is red?", "The boat.", passages("The boat is red."), sentences=[])
    >>> answer.passages[0].text
    'The boat is red.'
    """

    model: str
    question: str
    reply: str
    passages: Sequence[Passage] = field(repr=False)
    sentences: Sequence[Sentence] = field(repr=False)
    note: str = ""
    reading: Reading | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        counts = f"{counted(len(self.sentences), 'sentence')} from {counted(len(self.passages), 'passage')}"
        return f"Answer({self.reply!r}, {self.model}, {counts})"

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers for JSON, without the reading.

        >>> from regard.answers import Answer, passages
        >>> answer = Answer("a model", "What is red?", "The boat.", passages("The boat is red."), sentences=[])
        >>> answer.to_dict()["passages"]
        [{'file': '-', 'start': 0, 'end': 16, 'text': 'The boat is red.'}]
        """
        return {
            "model": self.model,
            "question": self.question,
            "reply": self.reply,
            "note": self.note,
            "passages": [asdict(passage) for passage in self.passages],
            "sentences": [asdict(sentence) for sentence in self.sentences],
        }
