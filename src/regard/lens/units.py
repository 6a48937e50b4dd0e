"""`Token` and `Word`: what a reading consists of, for the model and for a reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens.reading import Reading


@dataclass(frozen=True)
class Token:
    """A token of the text.

    Attributes:
        text, start, end: the text that it stands for, `text[start:end]`; start = end = 0 for a token that the
            tokenizer added.
        special: whether it is for the model and not for a reader.
        piece, id: its name and its number in the model's vocabulary.
        unknown: whether the vocabulary lacks this text, so that the model read the token for unknown text.

    >>> import regard
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> token = reading.tokens[2]
    >>> token.text, token.start, token.end, token.special
    ('flies', 5, 10, False)
    """

    text: str
    start: int
    end: int
    special: bool
    piece: str = ""
    id: int = -1
    unknown: bool = False


@dataclass(frozen=True)
class Word:
    """A word as a reader sees it, or a special token: one of `reading.units`.

    Attributes:
        text, start, end: `reading.text[start:end] == text`.
        tokens: the positions of its tokens.
        special: whether it is a token that is not for a reader, or one of white space alone.
        index: its place in `reading.units`; of several words together, that of the first.
        reading: the reading that it is a word of.

    >>> import regard
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> flies = reading.word("flies")
    >>> flies.text, flies.tokens, flies.index
    ('flies', (2,), 2)
    >>> flies.vectors.shape                                       # before the first of six layers, and after each
    torch.Size([7, 384])
    """

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]
    special: bool
    index: int
    reading: Reading = field(repr=False, compare=False)

    @property
    def unknown(self) -> bool:
        """Whether the vocabulary lacks some of it, so that the model read the token for unknown text."""
        return any(self.reading.tokens[token].unknown for token in self.tokens)

    @property
    def vectors(self) -> Float[Tensor, "L+1 dim"]:
        """Its vector before the first layer and after each: the mean over its tokens."""
        return self.reading.hidden[:, list(self.tokens)].mean(1)

    def attends_to(self, layer: int, head: int | None = None) -> Float[Tensor, "... units"]:
        """The weight that it gives to each unit: summed over the unit's tokens, averaged over its own.

        In cross-attention, the units are those of the source.

        Of one head (units,), or of all (H,units). Raises IndexError for a layer or head that does not exist.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> weights = reading.word("flies").attends_to(layer=5, head=11)
        >>> reading.units[weights.argmax()].text, weights.sum().round(decimals=4)
        ('arrow', tensor(1.))
        """
        reading = self.reading
        reading.check(layer, head)
        rows = reading.attention[layer].weights[slice(None) if head is None else head, list(self.tokens)]
        return reading.columns.by_unit(rows.mean(-2))

    def attended_by(self, layer: int, head: int | None = None) -> Float[Tensor, "... units"]:
        """The weight that each unit gives to it: averaged over the unit's tokens, summed over its own.

        Of one head (units,), or of all (H,units). Raises IndexError for a layer or head that does not exist, ValueError
        for a word of a target in cross-attention, in which nothing attends to it.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.word("flies").attended_by(layer=5, head=11).shape
        torch.Size([7])
        """
        reading = self.reading
        reading.check(layer, head)
        if reading.source is not None:
            raise ValueError(
                f"“{self.text}” is a word of the target, and cross-attention looks at the source: take the column of a "
                "word of the source from weights(layer)."
            )
        columns = reading.attention[layer].weights[slice(None) if head is None else head, :, list(self.tokens)]
        return reading.by_unit(columns.sum(-1)) / reading.sizes.to(columns.device)
