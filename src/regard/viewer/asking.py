"""A question about documents, as a page asks it: `regard.answers.ask`, with its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from regard.answers import Passage, ask, passages
from regard.lens.lens import Lens
from regard.viewer.jobs import Progress
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.writing import AskReply, AskRequest

TOKENS = 96  # of a reply at most
SOURCES = 10  # passages that are hidden for each sentence, one after the other
WRITING = 0.4  # the share of the work that writing the reply is taken to be; the rest are the knockouts


def answer(open_lens: Callable[[], Lens], request: AskRequest, progress: Progress) -> AskReply:
    """The reply to a question, and where its sentences came from.

    Raises:
        RequestError: the documents have not a name each. ValueError: as `ask`.
    """
    if len(request.names) != len(request.texts):
        raise RequestError(f"names: expected one for each of {len(request.texts)} texts. Got {len(request.names)}.")
    divided: list[Passage] = []
    for name, text in zip(request.names, request.texts, strict=True):
        if "\0" in text:
            raise RequestError(f"{name}: it holds a NUL: a binary file, and no text.")
        divided += passages(text, request.by, name)
    done = {"windows": 0, "tokens": 0, "knockouts": 0}
    hidden = min(SOURCES, len(divided))

    def advance(stage: str, steps: int) -> None:
        done[stage] += steps
        written = 1.0 if done["knockouts"] else done["tokens"] / TOKENS
        progress(min(0.99, WRITING * written + (1 - WRITING) * done["knockouts"] / hidden))

    answered = ask(
        open_lens(), request.question, divided, max_tokens=TOKENS, sources=SOURCES, windows=True, advance=advance
    )
    return cast(AskReply, answered.to_dict())
