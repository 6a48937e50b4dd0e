"""The prompt of a question about passages, which of its tokens each passage has, and the reply as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from regard.answers.passages import Passage
from regard.lens.chunks import sentences
from regard.lens.generate import chat_prompt
from regard.lens.words import Span, trimmed

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor

    from regard.lens import Lens, Reading

# Of the forms that were tried on made-up documents, small models answer this one most often, and in one sentence.
_QUESTION = "\n\nAnswer from the text above, in one sentence: "
_BETWEEN = "\n\n"


class Prompt(NamedTuple):
    """What a model is asked: the message, the prompt that its chat template makes of it, and the passages in that.

    Attributes:
        message: the passages in order, then the question.
        text: the prompt.
        spans: the characters of each passage in the prompt, (start, end).
    """

    message: str
    text: str
    spans: list[Span]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The message as `Lens.chat` takes it."""
        return [{"role": "user", "content": self.message}]


class Asked(NamedTuple):
    """Where passages and sentences are among the tokens of a prompt and its reply.

    Attributes:
        ids: (N,), what the model read.
        reply: the place of the first token of the reply.
        passages: (N,), the passage that each token is part of, −1 for all others.
        hidden: (N,), the passage with which a token is hidden: also the blank line after it.
        sentences: (N,), the sentence of the reply that each token is part of, −1 for the prompt.
        spans: the characters of each sentence in the reply, without white space around it.
        passage_count: how many passages there are.
    """

    ids: Int[Tensor, "N"]
    reply: int
    passages: Int[Tensor, "N"]
    hidden: Int[Tensor, "N"]
    sentences: Int[Tensor, "N"]
    spans: list[Span]
    passage_count: int

    @property
    def writers(self) -> Int[Tensor, "N"]:
        """(N,), the sentence whose next token each token predicts, by its attention: one place before `sentences`."""
        return torch.cat([self.sentences[1:], self.sentences.new_tensor([-1])])

    def kept(self, hidden: Bool[Tensor, "passages"]) -> Bool[Tensor, "N"]:
        """Which tokens remain where these passages are hidden."""
        none = torch.zeros(1, dtype=torch.bool)
        return ~torch.cat([hidden, none])[self.hidden]


def prompt_of(lens: Lens, question: str, passages: Sequence[Passage]) -> Prompt:
    """The prompt of a question about passages.

    Raises:
        TypeError: the question is not a str.
        ValueError: it is blank, there are no passages, or the model has no chat template, or one that changes them.
    """
    if not isinstance(question, str):
        raise TypeError(f"ask: question: expected a str. Got {type(question).__name__}.")
    if not question.strip():
        raise ValueError("ask: the question is empty.")
    if not passages:
        raise ValueError("ask: there are no passages to answer from.")
    if lens.model.chat is None:
        raise ValueError(
            f"ask: {lens.name} has no chat template, by which a model is asked; choose one that was tuned to follow "
            "instructions."
        )
    body = _BETWEEN.join(passage.text for passage in passages)
    message = f"{body}{_QUESTION}{question.strip()}"
    text = chat_prompt(lens.model, [{"role": "user", "content": message}])
    start = text.find(message)
    if start < 0:
        raise ValueError(
            f"ask: the chat template of {lens.name} changes the text of a message; passages are lost in it."
        )
    spans = []
    for passage in passages:
        spans.append((start, start + len(passage.text)))
        start += len(passage.text) + len(_BETWEEN)
    return Prompt(message, text, spans)


def room_for(lens: Lens, question: str, max_tokens: int) -> int:
    """How many tokens of passages fit into the context beside the question and a reply."""
    empty = prompt_of(lens, question, [Passage("", 0, 0, "")])
    return lens.model.max_length - _tokens(lens, empty) - max_tokens


def check_fits(lens: Lens, prompt: Prompt, max_tokens: int, refuse: bool = False) -> bool:
    """Whether a prompt and its reply fit into the context. With `refuse`, raises ValueError where they do not."""
    tokens, limit = _tokens(lens, prompt), lens.model.max_length
    if refuse and tokens + max_tokens > limit:
        raise ValueError(
            f"ask: passages and question have {tokens:,} tokens, the reply may have {max_tokens:,}, and {lens.name} "
            f"reads at most {limit:,}. With windows=True (--windows) they are read in windows first, and the answer is "
            "from the passages that attention finds there."
        )
    return tokens + max_tokens <= limit


def _tokens(lens: Lens, prompt: Prompt) -> int:
    return len(lens.model.unprocessed.encode(prompt.text, add_special_tokens=False).ids)


def asked_of(reading: Reading, prompt: Prompt) -> Asked:
    """Where passages and sentences are in the reading of a prompt and its reply."""
    assert reading.reply is not None
    assert reading.ids is not None
    first, offset = reading.reply.token, len(prompt.text)
    places = [(token.start, token.end) for token in reading.tokens]
    passages = _members(places[:first], prompt.spans)
    until_next = [*(start for start, _ in prompt.spans[1:]), prompt.spans[-1][1]]
    ranges = [(start, end) for (start, _), end in zip(prompt.spans, until_next, strict=True)]
    hidden = _members(places[:first], ranges)
    spans = sentences(reading.reply.text)
    of_reply = [(start - offset, end - offset) for start, end in places[first:]]
    rest = [-1] * len(of_reply)
    return Asked(
        reading.ids,
        first,
        torch.tensor(passages + rest),
        torch.tensor(hidden + rest),
        torch.tensor([-1] * first + _members(of_reply, spans, last=True)),
        [trimmed(reading.reply.text, *span) for span in spans],
        len(prompt.spans),
    )


def _members(tokens: Sequence[Span], spans: Sequence[Span], last: bool = False) -> list[int]:
    """For each token the span in which it begins, or that it reaches into; −1 for none, or with `last` the last."""
    members, n = [], 0
    for start, end in tokens:
        while n < len(spans) - 1 and spans[n + 1][0] <= start:
            n += 1
        within = spans[n][0] < max(end, start + 1) and start < spans[n][1]
        members.append(n if within or last else -1)
    return members
