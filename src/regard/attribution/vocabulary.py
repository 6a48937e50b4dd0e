"""The tokens of a model's vocabulary, as people write them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from regard.lens.words import printable

if TYPE_CHECKING:
    from regard.models import Model


def token_id(model: Model, token: str | int, argument: str) -> int:
    """The number of a token in the vocabulary. Raises ValueError where there is no such token, or several."""
    size = model.tokenizer.get_vocab_size(with_added_tokens=True)
    if isinstance(token, int):
        if not 0 <= token < size:
            raise ValueError(f"target: {argument}: {model.name} has tokens 0 to {size - 1:,}. Got {token:,}.")
        return token
    known = known_token(model, token)
    if known is not None:
        return known
    pieces = model.tokenizer.encode(token, add_special_tokens=False).tokens
    near = difflib.get_close_matches(token, model.tokenizer.get_vocab(), n=3)
    hint = f" Its nearest: {', '.join(map(printable, near))}." if near else ""
    reads = (
        f"{model.name} reads it as {len(pieces)}: {' '.join(map(printable, pieces[:8]))}"
        if len(pieces) > 1
        else (f"the vocabulary of {model.name} lacks it")
    )
    raise ValueError(f"target: {argument}: expected a single token, and {token!r} is none: {reads}.{hint}")


def known_token(model: Model, text: str) -> int | None:
    """The token of a text after a space, of the text alone, or of this name; None where there is none.

    >>> from regard.models import open_model
    >>> known_token(open_model(), "arrow"), known_token(open_model(), "##ing"), known_token(open_model(), "two words")
    (8612, 2075, None)
    """
    for written in (f" {text}", text) if text else ():
        ids = model.tokenizer.encode(written, add_special_tokens=False).ids
        if len(ids) == 1 and (ids[0] != model.unknown_id or text == model.tokenizer.id_to_token(ids[0])):
            return int(ids[0])
    named: int | None = model.tokenizer.token_to_id(text)
    return named


def quoted_token(model: Model, token: int) -> str:
    """A token as people read it, in quotation marks; by its name where it is white space."""
    text = model.tokenizer.decode([token], skip_special_tokens=False)
    return f"“{printable(text if text.strip() else model.tokenizer.id_to_token(token) or str(token))}”"
