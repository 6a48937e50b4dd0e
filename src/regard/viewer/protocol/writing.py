"""The messages about what a language model writes, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

from regard.viewer.protocol.request import Request, Text

Writes = Literal["message", "text"]
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


WRITING = (
    (WriteRequest, WriteReply),
    (WrittenRequest, WrittenReply),
    (StopRequest, StopReply),
)
