"""The messages about what a language model writes, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

from regard.viewer.protocol.request import Request, Text

Writes = Literal["message", "text"]
By = Literal["paragraphs", "sentences", "lines"]
Finished = Literal["end", "length", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class WriteRequest(Request):
    """Let a language model reply to messages, or go on with a text: what it writes is asked for by `written`."""

    type = "write"
    texts: list[Text]  # the messages, a person's and the model's by turns, the last a person's; or the one text
    model: str | None = None  # one of `StartReply.models`; the first, if it is not given
    max_tokens: int = 256  # 1 to REPLY_TOKENS
    temperature: float = 0  # 0 to TEMPERATURE_LIMIT; 0 takes the likeliest token at every step
    seed: int = 0  # of the tokens that are drawn


@dataclass(frozen=True, kw_only=True)
class WrittenRequest(Request):
    """The tokens of a reply that are new; it ends where nobody asks for them."""

    type = "written"
    writing: str  # its id, from `WriteReply`
    since: int = 0  # how many of its tokens are known


@dataclass(frozen=True, kw_only=True)
class StopRequest(Request):
    """Stop writing a reply; what was written stays."""

    type = "stop"
    writing: str  # its id, from `WriteReply`


@dataclass(frozen=True, kw_only=True)
class AskRequest(Request):
    """Ask a language model a question about documents: its reply, and the passages that each sentence came from."""

    type = "ask"
    question: Text
    texts: list[Text]  # of the documents
    names: list[Text]  # of the documents, in the same order
    by: By = "paragraphs"  # what the documents are divided into
    model: str | None = None  # one of `StartReply.models`; the first, if it is not given


class WriteReply(TypedDict):
    """A reply that is begun."""

    writing: str  # its id


class WrittenToken(TypedDict):
    """A token of a reply."""

    text: str  # what it adds to the reply; "" while a character is incomplete, which the last of its tokens adds
    probability: float  # what the model gave it, whatever the temperature


class WrittenReply(TypedDict):
    """What is new of a reply."""

    tokens: list[WrittenToken]
    finished: Finished | None  # how it ended: by the model, at the most tokens there may be, or stopped
    reading: NotRequired[str]  # at the end, the id of the reading of prompt and reply together
    progress: NotRequired[float | None]  # where nothing is new: the share of the prompt that is read; null: it waits


class StopReply(TypedDict):
    """Whether the reply was still being written."""

    stopped: bool


class AnswerPassage(TypedDict):
    """A place in a document."""

    file: str  # the name of the document
    start: int  # of its characters in the document, counted as code points
    end: int
    text: str


class AnswerSource(TypedDict):
    """What a passage did for a sentence of a reply."""

    passage: int  # its index
    attention: float  # the share of the attention of the sentence's tokens, over the heads that matter
    logits: float | None  # what was carried from it straight to the logits; null where they are no such sum
    knockout: float  # by how much the log-probability of the sentence falls without it, in nats
    score: float  # by which sources are ranked


class AnswerSentence(TypedDict):
    """A sentence of a reply, and where it came from."""

    text: str
    start: int  # of its characters in the reply, counted as code points
    end: int
    log_probability: float  # in nats
    sources: list[AnswerSource]  # the best first


class AskReply(TypedDict):
    """A reply, and for each of its sentences the passages that it came from."""

    model: str
    question: str
    reply: str
    note: str  # what else a reader should know
    passages: list[AnswerPassage]  # in the order of the documents
    sentences: list[AnswerSentence]


WRITING = (
    (WriteRequest, WriteReply),
    (WrittenRequest, WrittenReply),
    (StopRequest, StopReply),
    (AskRequest, AskReply),
)
