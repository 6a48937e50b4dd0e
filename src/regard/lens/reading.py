"""A text as a model read it: tokens, words, the hidden states and the attention of every layer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.attention import Attention

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from regard.lens.walk import Walk


@dataclass(frozen=True)
class Token:
    """What the tokenizer made; `text` as it stands in the text, `start:end` where. Special ones stand nowhere."""

    text: str
    start: int
    end: int
    special: bool


@dataclass(frozen=True)
class Word:
    """What a reader sees. `reading.text[start:end] == text`; `tokens` are the positions of its tokens.

    `index` is its place among `reading.units`, the words and the special tokens in order.
    """

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]
    special: bool
    index: int
    _reading: Reading = field(repr=False, compare=False)

    @property
    def vectors(self) -> Float[Tensor, "L+1 dim"]:
        """Its vector before the first layer and after each: the mean over its tokens."""
        return self._reading.hidden[:, list(self.tokens)].mean(1)

    def attends_to(self, layer: int, head: int | None = None) -> Float[Tensor, "... units"]:
        """The weight that it gives to each unit: summed over the unit's tokens, averaged over its own."""
        return self._reading.weights(layer, head)[..., self.index, :]

    def attended_by(self, layer: int, head: int | None = None) -> Float[Tensor, "... units"]:
        """The weight that each unit gives to it."""
        return self._reading.weights(layer, head)[..., :, self.index]


@dataclass(frozen=True, eq=False)
class Reading:
    """What `Lens.read` gives.

    text, model: what was read, and by which model. tokens: as the tokenizer made them, special ones included.
    hidden (L+1,tokens,dim): the static embeddings, then the contextualised ones after every layer.
    attention: a `regard.Attention` a layer, with weights (H,tokens,tokens).
    truncated: None, or what of the text was not read, and why.
    """

    text: str
    model: str
    tokens: Sequence[Token]
    hidden: Float[Tensor, "L+1 N dim"]
    attention: Sequence[Attention]
    truncated: str | None
    _spans: Sequence[tuple[tuple[int, int] | None, list[int]]] = field(repr=False)

    def __repr__(self) -> str:
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "…"
        cut = ", truncated" if self.truncated else ""
        return (
            f"Reading({shown!r}, {self.model}, {len(self.words)} words, {self.layers} layers × {self.heads} heads{cut})"
        )

    @property
    def layers(self) -> int:
        """How many layers have attention."""
        return len(self.attention)

    @property
    def heads(self) -> int:
        """How many heads a layer has."""
        return self.attention[0].weights.shape[0]

    @cached_property
    def units(self) -> list[Word]:
        """The words and the special tokens, in the order of the tokens: what the pictures show."""
        found = []
        for index, (span, tokens) in enumerate(self._spans):
            start, end = span or (0, 0)
            text = self.tokens[tokens[0]].text if span is None else self.text[start:end]
            found.append(Word(text, start, end, tuple(tokens), span is None, index, self))
        return found

    @property
    def words(self) -> list[Word]:
        """The words, punctuation among them."""
        return [unit for unit in self.units if not unit.special]

    @cached_property
    def unit_of_token(self) -> Int[Tensor, "tokens"]:
        """The unit that each token belongs to."""
        units = torch.empty(len(self.tokens), dtype=torch.long)
        for unit in self.units:
            units[list(unit.tokens)] = unit.index
        return units

    def weights(self, layer: int, head: int | None = None) -> Float[Tensor, "... units units"]:
        """Weights between units, of a head or of all: summed over a unit's keys, averaged over its queries.

        Raises IndexError, with the range, for a layer or head that is not there.
        """
        self.check(layer, head)
        grouped = self.attention[layer].weights.grouped(queries=self.unit_of_token, keys=self.unit_of_token)
        return grouped if head is None else grouped[head]

    def word(self, word: str | int, nth: int | None = None) -> Word:
        """A word by its text, the nth of them (from 1) where there are more, or by its place in `words`.

        Raises LookupError where it is not there, with the nearest, or is there more than once.
        """
        words = self.words
        if isinstance(word, int):
            if not -len(words) <= word < len(words):
                raise LookupError(f"There is no word {word}: the text has {len(words)}, from 0 to {len(words) - 1}.")
            return words[word]
        found = [one for one in words if one.text == word]
        found = found or [one for one in words if one.text.casefold() == word.casefold()]
        if not found:
            near = difflib.get_close_matches(word, dict.fromkeys(one.text for one in words), n=3, cutoff=0)
            raise LookupError(f"There is no word {word!r} in the text. The nearest: {', '.join(near)}.")
        if nth is None and len(found) > 1:
            raise LookupError(
                f"{word!r} is there {len(found)} times: say which with nth=1 to nth={len(found)} (--nth)."
            )
        if nth is not None and not 1 <= nth <= len(found):
            raise LookupError(f"{word!r} has no nth={nth}: it is there {len(found)} time{'s' * (len(found) > 1)}.")
        return found[(nth or 1) - 1]

    def explain(
        self, word: str | int | Word, layer: int | None = None, head: int | None = None, nth: int | None = None
    ) -> Walk:
        """How the attention of a layer and head makes the new vector of a word, step by step: a `regard.Walk`.

        Without a layer or a head, the ones in which the word gives most of its weight to other words of the text.
        """
        from regard.lens.walk import walk

        return walk(self, word if isinstance(word, Word) else self.word(word, nth), layer, head)

    def most_telling(self, word: Word, layer: int | None = None, head: int | None = None) -> tuple[int, int]:
        """The layer and head in which a word gives most of its weight to other words, itself and specials aside."""
        self.check(layer, head)
        others = torch.tensor([not unit.special and unit.index != word.index for unit in self.units])
        layers = range(self.layers) if layer is None else [layer % self.layers]
        shares = torch.stack([word.attends_to(n)[:, others].sum(-1) for n in layers])  # (layers, H)
        if head is not None:
            shares = shares[:, head % self.heads, None]
        best = divmod(int(shares.argmax()), shares.shape[1])
        return layers[best[0]], best[1] if head is None else head % self.heads

    def check(self, layer: int | None, head: int | None = None) -> None:
        """Raises IndexError, with the range, for a layer or head that is not there."""
        for name, number, size in (("layer", layer, self.layers), ("head", head, self.heads)):
            if number is not None and not -size <= number < size:
                raise IndexError(f"There is no {name} {number}: {self.model} has {name}s 0 to {size - 1}.")

    def save(self, path: str | Path, **options: Any) -> None:
        """Save as a picture (.png, .svg), a page (.html) or numbers (.json); `options` as in `regard.view.save`."""
        from regard.view import save  # the view looks at readings; a reading only calls it

        save(self, path, **options)
