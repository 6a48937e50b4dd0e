"""A text as a model read it: tokens, words, the hidden states and the attention of every layer."""

from __future__ import annotations

import difflib
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.attention import Attention
from regard.lens.words import printable

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from regard.lens.lens import Lens
    from regard.lens.walk import Walk
    from regard.view.widget import Viewer


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

    `special` are the tokens that a reader does not see, or only as white space: they stand nowhere. `index` is its
    place among `reading.units`, the words and the special ones in order.
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
        reading = self._reading
        reading.check(layer, head)
        rows = reading.attention[layer].weights[slice(None) if head is None else head, list(self.tokens)]
        return reading.by_unit(rows.mean(-2))

    def attended_by(self, layer: int, head: int | None = None) -> Float[Tensor, "... units"]:
        """The weight that each unit gives to it: averaged over the unit's tokens, summed over its own."""
        reading = self._reading
        reading.check(layer, head)
        columns = reading.attention[layer].weights[slice(None) if head is None else head, :, list(self.tokens)]
        return reading.by_unit(columns.sum(-1)) / reading.sizes.to(columns.device)


@dataclass(frozen=True, eq=False)
class Reading:
    """What `Lens.read` gives.

    text, model: what was read, and by which model. tokens: as the tokenizer made them, special ones included.
    hidden (L+1,tokens,dim): the static embeddings, then the contextualised ones after every layer.
    attention: a `regard.Attention` a layer, with weights (H,tokens,tokens).
    truncated: None, or what of the text was not read, and why. second: where in `text` the second of a pair begins.
    """

    text: str
    model: str
    tokens: Sequence[Token]
    hidden: Float[Tensor, "L+1 N dim"]
    attention: Sequence[Attention]
    truncated: str | None
    _spans: Sequence[tuple[tuple[int, int] | None, list[int]]] = field(repr=False)
    second: int | None = None
    _lens: Lens | None = field(default=None, repr=False)  # to read other texts, where it is shown

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_lens": None}

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
        # Words know a twin without this list, which shares its tensors: a cycle would keep them until it is collected.
        found, twin = [], replace(self)
        for index, (span, tokens) in enumerate(self._spans):
            start, end = span or (0, 0)
            text = self.text[start:end] if span else printable(self.tokens[tokens[0]].text).strip(" ") or "␣"
            found.append(Word(text, start, end, tuple(tokens), span is None, index, twin))
        return found

    @property
    def words(self) -> list[Word]:
        """The words, punctuation among them."""
        return [unit for unit in self.units if not unit.special]

    @cached_property
    def unit_of_token(self) -> Int[Tensor, "tokens"]:
        """The unit that each token belongs to."""
        units = [0] * len(self.tokens)
        for index, (_, tokens) in enumerate(self._spans):
            for token in tokens:
                units[token] = index
        return torch.tensor(units, dtype=torch.long)

    @cached_property
    def sizes(self) -> Int[Tensor, "units"]:
        """How many tokens each unit has."""
        return torch.bincount(self.unit_of_token)

    def by_unit(self, numbers: Float[Tensor, "... tokens"]) -> Float[Tensor, "... units"]:
        """Numbers a token, summed over the tokens of each unit."""
        total = numbers.new_zeros(*numbers.shape[:-1], len(self._spans))
        return total.index_add_(-1, self.unit_of_token.to(numbers.device), numbers)

    def weights(self, layer: int, head: int | None = None) -> Float[Tensor, "... units units"]:
        """Weights between units, of a head or of all: summed over a unit's keys, averaged over its queries.

        Raises IndexError, with the range, for a layer or head that is not there.
        """
        self.check(layer, head)
        grouped = self.attention[layer].weights.grouped(queries=self.unit_of_token, keys=self.unit_of_token)
        return grouped if head is None else grouped[head]

    def word(self, word: str | int, nth: int | None = None) -> Word:
        """A word by its text, the nth of them (from 1) where there are more, or by its place in `words`.

        As it is written; where there is none, or no nth, written so, upper and lower case are the same.

        Raises LookupError where it is not there, with the nearest, or is there more than once.
        """
        words = self.words
        if not isinstance(word, str):
            if not -len(words) <= word < len(words):
                raise LookupError(f"There is no word {word}: the text has {len(words)}, from 0 to {len(words) - 1}.")
            return words[word]
        if not word.strip():
            raise LookupError("The word to look for is empty.")
        wanted = unicodedata.normalize("NFC", word.strip())  # however its accents are put together
        forms = [unicodedata.normalize("NFC", one.text) for one in words]
        found = [one for one, form in zip(words, forms, strict=True) if form == wanted]
        if len(found) < (nth or 1):
            same = [one for one, form in zip(words, forms, strict=True) if form.casefold() == wanted.casefold()]
            found = max(found, same, key=len)
        if not found:
            raise LookupError(f"There is no word {word!r} in the text.{self._nearest(wanted)}")
        if nth is None and len(found) > 1:
            times, between = ("twice", "or") if len(found) == 2 else (f"{len(found)} times", "to")
            raise LookupError(f"“{printable(word)}” occurs {times}; choose one with nth=1 {between} nth={len(found)}.")
        if nth is not None and not 1 <= nth <= len(found):
            raise LookupError(f"{word!r} has no nth={nth}: it is there {len(found)} time{'s' * (len(found) > 1)}.")
        return found[(nth or 1) - 1]

    def _nearest(self, word: str) -> str:
        by_case = {one.text.casefold(): one.text for one in reversed(self.words)}
        near = [by_case[form] for form in difflib.get_close_matches(word.casefold(), by_case, n=3, cutoff=0)]
        listed = f" The nearest: {', '.join(printable(one) for one in near)}." if near else " It has none."
        return listed + (f" {self.truncated}" if self.truncated else "")

    def explain(
        self, word: str | int | Word, layer: int | None = None, head: int | None = None, nth: int | None = None
    ) -> Walk:
        """How the attention of a layer and head makes the new vector of a word, step by step: a `regard.Walk`.

        Without a layer or a head, the ones in which the word gives most of its weight to other words of the text.
        """
        from regard.lens.walk import walk

        if isinstance(word, Word) and word._reading.hidden is not self.hidden:
            raise ValueError(f"explain: {word.text!r} is a word of another reading.")
        return walk(self, word if isinstance(word, Word) else self.word(word, nth), layer, head)

    def most_telling(self, word: Word, layer: int | None = None, head: int | None = None) -> tuple[int, int]:
        """The layer and head in which a word gives most of its weight to other words, itself and specials aside."""
        self.check(layer, head)
        layers = range(self.layers) if layer is None else [layer % self.layers]
        shares = torch.stack([self.to_others(word, n) for n in layers])  # (layers, H)
        if head is not None:
            shares = shares[:, head % self.heads, None]
        best = divmod(int(shares.argmax()), shares.shape[1])
        return layers[best[0]], best[1] if head is None else head % self.heads

    def to_others(self, word: Word, layer: int, head: int | None = None) -> Float[Tensor, "..."]:
        """The weight that a word gives to the other words together, itself and special tokens aside."""
        others = torch.tensor([not unit.special and unit.index != word.index for unit in self.units])
        return word.attends_to(layer, head)[..., others].sum(-1)

    def check(self, layer: int | None, head: int | None = None) -> None:
        """Raises IndexError, with the range, for a layer or head that is not there."""
        for name, number, size in (("layer", layer, self.layers), ("head", head, self.heads)):
            if number is not None and not -size <= number < size:
                raise IndexError(f"There is no {name} {number}: {self.model} has {name}s 0 to {size - 1}.")

    def view(self, *, word: Word | None = None, layer: int | None = None, head: int | None = None) -> Viewer:
        """The viewer, in a notebook: the sentence and its lines, all heads, their maps, the walk, a comparison.

        `layer`, `head` and `word` are what it opens with. Where widgets are off, a picture stands in its place. What a
        cell ends with shows itself so: `reading` alone will do.

        Raises ImportError, with what to install, where anywidget is missing; IndexError for a layer or head that is
        not there.
        """
        from regard.view.widget import Viewer

        return Viewer(self, word=word, layer=layer, head=head)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """What a notebook shows; a terminal gets the one line of `repr`."""
        if not {"ipykernel", "google.colab", "pyodide_kernel"} & sys.modules.keys():
            return {"text/plain": repr(self)}
        try:
            return self.view()._repr_mimebundle_(**kwargs)
        except ImportError:
            return {"text/plain": repr(self)}

    def _display_(self) -> Any:
        """The same for marimo."""
        return self.view()

    def save(self, path: str | Path, **options: Any) -> None:
        """Save as a picture (.png, .svg), a page (.html) or numbers (.json); `options` as in `regard.view.save`."""
        from regard.view import save  # the view looks at readings; a reading only calls it

        save(self, path, **options)
