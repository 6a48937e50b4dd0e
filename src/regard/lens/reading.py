"""A text as a model read it: tokens, words, the hidden states and the attention of every layer."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from torch import Tensor

from regard.attention import Attention
from regard.lens.find import FORMS, runs
from regard.lens.words import printable
from regard.mask import Block

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from regard.lens.lens import Lens
    from regard.lens.walk import Walk
    from regard.viewer.widget import Viewer


@dataclass(frozen=True)
class Token:
    """What the tokenizer made of a piece of the text: `text[start:end]`, as it stands there.

    `piece` and `id` are its name and number in the model's vocabulary. `special`: it is for the model and not for the
    reader; those that the tokenizer added stand nowhere (start = end = 0). `unknown`: the vocabulary has no token for
    this text, and the model read one that stands for anything.
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
    """What a reader sees. `reading.text[start:end] == text`; `tokens` are the positions of its tokens.

    `special` are the tokens that are not for a reader, and those of white space alone. `index` is its place among
    `reading.units`, the words and the special ones in order.
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
        """Whether the model has no token for some of it, and read one that stands for anything."""
        return any(self.reading.tokens[token].unknown for token in self.tokens)

    @property
    def vectors(self) -> Float[Tensor, "L+1 dim"]:
        """Its vector before the first layer and after each: the mean over its tokens."""
        return self.reading.hidden[:, list(self.tokens)].mean(1)

    def attends_to(self, layer: int, head: int | None = None) -> Float[Tensor, "... units"]:
        """The weight that it gives to each unit: summed over the unit's tokens, averaged over its own."""
        reading = self.reading
        reading.check(layer, head)
        rows = reading.attention[layer].weights[slice(None) if head is None else head, list(self.tokens)]
        return reading.by_unit(rows.mean(-2))

    def attended_by(self, layer: int, head: int | None = None) -> Float[Tensor, "... units"]:
        """The weight that each unit gives to it: averaged over the unit's tokens, summed over its own."""
        reading = self.reading
        reading.check(layer, head)
        columns = reading.attention[layer].weights[slice(None) if head is None else head, :, list(self.tokens)]
        return reading.by_unit(columns.sum(-1)) / reading.sizes.to(columns.device)


class SomeLayers(Sequence[Attention]):
    """The attention of a model in which not every layer has one: by the number of the layer, as it is in the model.

    Iterating gives those that are there. Raises LookupError, with the layers that have one, for any other.
    """

    def __init__(self, attentions: Sequence[Attention | None]) -> None:
        self._attentions = list(attentions)
        self.layers = [n for n, attention in enumerate(self._attentions) if attention is not None]

    def __len__(self) -> int:
        return len(self._attentions)

    def __iter__(self) -> Iterator[Attention]:
        return (self._attentions[n] for n in self.layers)  # type: ignore[misc]

    def __getitem__(self, layer: Any) -> Any:
        attention = self._attentions[layer]
        if attention is None:
            have = ", ".join(map(str, self.layers))
            raise LookupError(f"Layer {layer % len(self)} has no attention. The layers with attention: {have}.")
        return attention


@dataclass(frozen=True, eq=False)
class Reading:
    """What `Lens.read` gives.

    text, model: what was read, and by which model. tokens: as the tokenizer made them, special ones included.
    hidden (L+1,tokens,dim): the static embeddings, then the contextualised ones after every layer, not normed.
    attention: a `regard.Attention` a layer, with weights (H,tokens,tokens); where some layers have none, it has their
    numbers all the same, and `attention_layers` are those that can be asked for.
    truncated: None, or what of the text was not read, and why. second: where in `text` the second of a pair begins.
    final (tokens,dim): what the model hands on, to a head that predicts tokens for instance: hidden[-1] after the norm,
    and the projection, that follow the last layer; hidden[-1] itself where there are none.
    note: what else a reader should know: what the model has no token for, what of the model is not shown; or "".
    """

    text: str
    model: str
    tokens: Sequence[Token]
    hidden: Float[Tensor, "L+1 N dim"]
    attention: Sequence[Attention]
    truncated: str | None
    _spans: Sequence[tuple[tuple[int, int] | None, list[int]]] = field(repr=False)
    second: int | None = None
    final: Float[Tensor, "N dim"] | None = None
    note: str = ""
    lens: Lens | None = field(default=None, repr=False)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "lens": None}

    def __repr__(self) -> str:
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "…"
        cut = ", truncated" if self.truncated else ""
        unknown = sum(word.unknown for word in self.words)
        words = f"{len(self.words)} word{'s' * (len(self.words) != 1)}" + (f", {unknown} unknown" if unknown else "")
        return f"Reading({shown!r}, {self.model}, {words}, {self.layers} layers × {self.heads} heads{cut})"

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return len(self.attention)

    @property
    def attention_layers(self) -> list[int]:
        """The layers that have attention: all of them in most models."""
        return self.attention.layers if isinstance(self.attention, SomeLayers) else list(range(self.layers))

    @property
    def heads(self) -> int:
        """How many heads a layer has."""
        return self.heads_of(self.attention_layers[0])

    def heads_of(self, layer: int) -> int:
        """How many heads one layer has: in some models not all have as many."""
        return self.attention[layer].weights.shape[0]

    @cached_property
    def causal(self) -> bool:
        """Whether no token sees one that comes after it."""
        return not any(_sees_ahead(attention) for attention in self.attention)

    @cached_property
    def units(self) -> list[Word]:
        """The words and the special tokens, in the order of the tokens: what the pictures show."""
        # Words know a twin without this list, which shares its tensors: a cycle would keep them until it is collected.
        found, twin = [], replace(self)
        for index, (span, tokens) in enumerate(self._spans):
            token = self.tokens[tokens[0]]
            start, end = span or (token.start, token.end)
            text = self.text[start:end] if span else printable(token.text).strip(" ") or "␣"
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
        """What a reader names: a word by its text, the nth (from 1) where there are more, or by its place in `words`.

        Several words that follow one another are named as they stand in the text, "New York" or "COVID-19". Where no
        words read so, it may be a special token, or tokens inside a word, "Cl" in "Cl.OCC". As it is written; where
        there is none, or no nth, written so, straight and curly quotes, all dashes and spaces, and at last upper and
        lower case, are the same.

        Raises LookupError where it is not there, with the nearest, or is there more than once; TypeError for what is
        neither a text nor a whole number.
        """
        words = self.words
        if isinstance(word, bool) or not isinstance(word, str | SupportsIndex):
            raise TypeError(f"word: expected a word of the text, or its place among the words. Got {word!r}.")
        if not isinstance(word, str):
            word = word.__index__()
            if not -len(words) <= word < len(words):
                within = f", from 0 to {len(words) - 1}" if words else ""
                raise LookupError(f"There is no word {word}: the text has {len(words)}{within}.")
            return words[word]
        if not word.strip():
            raise LookupError("The word to look for is empty.")
        matches: list[Word] = []
        for matching in (self._runs_of_words, self._special_units, self._runs_of_tokens):
            for form in FORMS:
                matches = max(matches, matching(word, form), key=len)
                if len(matches) >= (nth or 1):
                    break
            if matches:
                break
        if not matches:
            raise LookupError(f"There is no word {word!r} in the text.{self._nearest(word)}")
        if nth is None and len(matches) > 1:
            times, between = ("twice", "or") if len(matches) == 2 else (f"{len(matches)} times", "to")
            raise LookupError(
                f"“{printable(word)}” occurs {times}; choose one with nth=1 {between} nth={len(matches)}."
            )
        if nth is not None and not 1 <= nth <= len(matches):
            raise LookupError(f"{word!r} has no nth={nth}: it is there {len(matches)} time{'s' * (len(matches) > 1)}.")
        return matches[(nth or 1) - 1]

    def _runs_of_words(self, wanted: str, form: Callable[[str], str]) -> list[Word]:
        words = self.words
        places = runs(self.text, [(word.start, word.end) for word in words], wanted, form)
        return [
            words[first] if first == last else self._run([unit.index for unit in words[first : last + 1]])
            for first, last in places
        ]

    def _run(self, units: Sequence[int]) -> Word:
        """Some units as one word, with all the tokens from the first to the last."""
        first, last = self.units[units[0]], self.units[units[-1]]
        tokens = tuple(range(first.tokens[0], last.tokens[-1] + 1))
        return Word(self.text[first.start : last.end], first.start, last.end, tokens, False, first.index, first.reading)

    def _special_units(self, wanted: str, form: Callable[[str], str]) -> list[Word]:
        return [unit for unit in self.units if unit.special and form(unit.text) == form(wanted)]

    def _runs_of_tokens(self, wanted: str, form: Callable[[str], str]) -> list[Word]:
        numbers = [n for n, token in enumerate(self.tokens) if token.end > token.start and not token.special]
        places = runs(self.text, [(self.tokens[n].start, self.tokens[n].end) for n in numbers], wanted, form)
        return [self._of_tokens(numbers[first], numbers[last]) for first, last in places]

    def token(self, place: int) -> Word:
        """One token alone, by its place in `tokens`, to be looked at as a word is.

        Raises LookupError for a place that is not there.
        """
        if not -len(self.tokens) <= place < len(self.tokens):
            raise LookupError(
                f"There is no token {place}: the text has {len(self.tokens)}, from 0 to {len(self.tokens) - 1}."
            )
        return self._of_tokens(place % len(self.tokens), place % len(self.tokens))

    def _of_tokens(self, first: int, last: int) -> Word:
        start, end = self.tokens[first].start, self.tokens[last].end
        unit = self.units[int(self.unit_of_token[first])]
        text = self.text[start:end] or unit.text
        return Word(text, start, end, tuple(range(first, last + 1)), unit.special, unit.index, unit.reading)

    def _nearest(self, word: str) -> str:
        by_case = {one.text.casefold(): one.text for one in reversed(self.words)}
        near = [by_case[form] for form in difflib.get_close_matches(word.casefold(), by_case, n=3, cutoff=0)]
        listed = f" The nearest: {', '.join(printable(one) for one in near)}." if near else " It has none."
        return listed + (f" {self.truncated}" if self.truncated else "")

    def explain(
        self, word: str | int | Word, layer: int | None = None, head: int | None = None, nth: int | None = None
    ) -> Walk:
        """How the attention of a layer and head makes the new vector of a word, step by step: a `regard.Walk`.

        Without a layer or a head, those that carry most to the word from other words: see `most_telling`.
        """
        from regard.lens.walk import walk

        if isinstance(word, Word) and word.reading.hidden is not self.hidden:
            raise ValueError(f"explain: {word.text!r} is a word of another reading.")
        return walk(self, word if isinstance(word, Word) else self.word(word, nth), layer, head)

    def most_telling(self, word: Word, layer: int | None = None, head: int | None = None) -> tuple[int, int]:
        """The layer and head that carry most to a word from other words: weight × length of what the value adds.

        Heads that look at one place, whatever stands there, are set aside, and so is the first token of a causal model.
        """
        from regard.lens.carried import head_with_most_content

        return head_with_most_content(self, word, layer, head)

    def to_others(self, word: Word, layer: int, head: int | None = None) -> Float[Tensor, "..."]:
        """The weight that a word gives to the other words together, itself and special tokens aside."""
        own = set(word.tokens)
        others = torch.tensor([not unit.special and not own & set(unit.tokens) for unit in self.units])
        return word.attends_to(layer, head)[..., others].sum(-1)

    def check(self, layer: int | None, head: int | None = None) -> None:
        """Raises IndexError, with the range, for a layer or head that is not there."""
        for name, number, size in (("layer", layer, self.layers), ("head", head, self.heads)):
            if number is not None and not -size <= number < size:
                raise IndexError(f"There is no {name} {number}: {self.model} has {name}s 0 to {size - 1}.")
        if layer is not None:
            self.attention[layer]

    def view(
        self,
        *,
        word: Word | str | int | None = None,
        nth: int | None = None,
        layer: int | None = None,
        head: int | None = None,
    ) -> Viewer:
        """The viewer, in a notebook: the sentence and its lines, all heads, their maps, the walk, a comparison.

        `layer`, `head`, and `word` and `nth` as in `word()`, are what it opens with. In a saved notebook, and where
        widgets are off, a picture stands in its place. What a cell ends with shows itself so: `reading` alone will do.

        Raises ImportError, with what to install, where anywidget is missing; IndexError for a layer or head that is
        not there; LookupError for such a word.
        """
        from regard.lens.display import widget

        return widget(self, word=word, nth=nth, layer=layer, head=head)

    def _ipython_display_(self) -> None:
        """What a notebook shows; a terminal gets the one line of `repr`."""
        if not _in_notebook():
            raise NotImplementedError  # IPython goes on to the representations below
        try:
            viewer = self.view()
        except ImportError:
            raise NotImplementedError from None
        viewer._ipython_display_()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The same as one bundle, for those who do not ask for a display."""
        if not _in_notebook():
            return {"text/plain": repr(self)}
        try:
            return self.view()._repr_mimebundle_(**kwargs)
        except ImportError:
            return {"text/plain": repr(self)}

    def _display_(self) -> Any:
        """The same for marimo."""
        return self.view()

    def save(self, path: str | Path, **options: Any) -> None:
        """Save as a picture (.png, .svg), a page (.html) or numbers (.json); `options`: see `lens.display.save`."""
        from regard.lens.display import save  # the view looks at readings; a reading only calls it

        save(self, path, **options)


def _in_notebook() -> bool:
    return bool({"ipykernel", "google.colab", "pyodide_kernel"} & sys.modules.keys())


def _sees_ahead(attention: Attention) -> bool:
    """Whether some token may look at the one after it."""
    scores = attention.weights.scores
    here = torch.arange(scores.shape[2])[:-1]
    if not len(here):
        return not scores.mask.causal
    return any(
        not scores.tile(Block(slice(0, 1), slice(0, scores.repeat), slice(n, n + 1), slice(n + 1, n + 2)))
        .isneginf()
        .all()
        for n in here[:: max(1, len(here) // 8)].tolist()
    )
