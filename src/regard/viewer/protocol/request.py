"""What all requests have in common, and the replies that any of them may get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NotRequired, TypedDict

Text = Annotated[str, "text"]  # not blank, and at most TEXT_LIMIT characters


@dataclass(frozen=True, kw_only=True)
class Request:
    """What all requests have in common, and the replies that any of them may get."""

    type: ClassVar[str]
    job: int | None = None  # the number in the `PendingReply` to the same request, when it is sent again


class PendingReply(TypedDict):
    """The work is not done: send the request again, with this `job`."""

    progress: float | None  # the share that is done; null while it waits for other work
    job: int


class CancelledReply(TypedDict):
    """The job was cancelled, or given up because nobody asked for it."""

    cancelled: Literal[True]


class ErrorReply(TypedDict):
    """Why a request cannot be answered."""

    error: str
    code: NotRequired[str]  # "unknown_reading" or "cancelled", where a program can act on it
    status: NotRequired[int]  # in a notebook; over HTTP it is the status of the response
