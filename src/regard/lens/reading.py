"""`Reading`: a text as a model read it, with its tokens, words, hidden states and the attention of every layer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from regard._internal.deprecated import warn
from regard._internal.plurals import counted
from regard.attention import Attention
from regard.lens.find import find_word, word_of_tokens
from regard.lens.layers import SomeLayers, sees_ahead
from regard.lens.units import Token, Word
from regard.lens.words import Span, printable

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from regard.lens.display import Picture
    from regard.lens.lens import Lens
    from regard.lens.predictions import Predictions
    from regard.lens.walk import Walk
    from regard.models import Model
    from regard.viewer.widget import Viewer


Part = Literal["encoder", "decoder", "cross"]


class Reply(NamedTuple):
    """What a model wrote after a prompt.

    Attributes:
        token: the place of its first token in `reading.tokens`; their number, where it is empty.
        text: the reply, with which `reading.text` ends.

    >>> import regard
    >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    >>> from regard.models import embedded_folder
    >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
    >>> reply = lens.generate("Once upon a time", max_tokens=3).finish().reply
    >>> reply.token
    5
    """

    token: int
    text: str


@dataclass(frozen=True, eq=False)
class Reading:
    """What `Lens.read` returns.

    Attributes:
        text: what was read.
        model: the name of the model.
        tokens: as the tokenizer made them, special ones included.
        hidden: (L+1,tokens,dim), the static embeddings, then the contextualised ones after every layer, without the
            final norm.
        attention: the `regard.Attention` of each layer, with weights (H,tokens,tokens). Where not every layer has one,
            `attention_layers` are those that do.
        truncated: a sentence about what of the text was not read, or None.
        unit_spans: for each of `units` its span in the text, None for a special token, and its tokens.
        second: where in `text` the second text of a pair begins, or None.
        final: (tokens,dim), what the model passes on to a head: hidden[-1] after the norm and the projection that
            follow the last layer; hidden[-1] itself where there are none.
        note: what a reader should also know, such as words that the vocabulary lacks, or "".
        ids, types: (tokens,), what the model read: the tokens' numbers, and their types in a pair of texts.
        reply: where the reply begins that the model wrote itself, and its text; None for a text that was only read.
        lens: the lens that read it, with which other texts can be read; None once it was pickled. That of a decoder
            reads other targets after the same source.
        part: of an encoder-decoder, what this is: "encoder", "decoder" or "cross"; "" of all other models.
        decoder: the reading of the target; None without one.
        cross: the target's tokens by their attention to those of the source; None without a target.
        source: of cross-attention, the reading of the source, whose tokens are attended to; None otherwise.
        entering: by layer, the vectors (tokens,dim) that enter its attention, where these are not `hidden`: a decoder's
            cross-attention follows its self-attention.

    >>> import regard
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> [unit.text for unit in reading.units]
    ['[CLS]', 'Time', 'flies', 'like', 'an', 'arrow', '[SEP]']
    >>> reading.layers, reading.heads, reading.hidden.shape
    (6, 12, torch.Size([7, 7, 384]))
    >>> reading.attention[5].weights
    Weights(shape=(12, 7, 7), dtype=torch.float32, device=cpu)
    """

    text: str
    model: str
    tokens: Sequence[Token]
    hidden: Float[Tensor, "L+1 N dim"]
    attention: Sequence[Attention]
    truncated: str | None
    unit_spans: Sequence[tuple[Span | None, list[int]]] = field(repr=False)
    second: int | None = None
    final: Float[Tensor, "N dim"] | None = None
    note: str = ""
    ids: Int[Tensor, "tokens"] | None = field(default=None, repr=False)
    types: Int[Tensor, "tokens"] | None = field(default=None, repr=False)
    lens: Lens | None = field(default=None, repr=False)
    reply: Reply | None = field(default=None, repr=False)
    part: Part | Literal[""] = ""
    decoder: Reading | None = field(default=None, repr=False)
    cross: Reading | None = field(default=None, repr=False)
    source: Reading | None = field(default=None, repr=False)
    entering: Sequence[Float[Tensor, "N dim"] | None] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "lens": None}

    def __repr__(self) -> str:
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "…"
        truncated = ", truncated" if self.truncated else ""
        unknown = sum(word.unknown for word in self.words)
        words = counted(len(self.words), "word") + (f", {unknown} unknown" if unknown else "")
        return f"Reading({shown!r}, {self.model}, {words}, {self.layers} layers × {self.heads} heads{truncated})"

    @property
    def parts(self) -> dict[Part, Reading]:
        """The attentions that there are to look at, by name: of an encoder-decoder with a target, three."""
        if self.decoder is None or self.cross is None:
            return {self.part: self} if self.part else {}
        return {"encoder": self, "decoder": self.decoder, "cross": self.cross}

    def attended(self, part: str | None = None) -> Reading:
        """The reading whose attention is meant: "encoder", "decoder" or "cross"; None for this one itself.

        What is shown of a reading are rows and columns of words: its own, which attend, and those of `columns`, which
        are attended to. In self-attention they are the same words.

        Raises ValueError where there is no such attention.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.attended() is reading                             # an encoder has no other
        True
        """
        if part is None:
            return self
        if part not in self.parts:
            known = f"expected {' or '.join(self.parts)}" if self.parts else f"{self.model} has one, without a name"
            if self.part == "encoder" and self.decoder is None:
                known += "; a decoder and its cross-attention need a target: lens.read(text, target)"
            raise ValueError(f"attention: {known}. Got {part!r}.")
        return self.parts[part]

    @property
    def columns(self) -> Reading:
        """The reading whose tokens are attended to: this one; of cross-attention, that of the source."""
        return self if self.source is None else self.source

    @property
    def opened(self) -> Model | None:
        """The model that read it, with the attentions that are shown; None where the reading has no lens."""
        model = None if self.lens is None else self.lens.model
        return model if model is None or self.source is None else model.cross

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return len(self.attention)

    @property
    def attention_layers(self) -> list[int]:
        """The layers that have attention: in most models all of them."""
        return self.attention.layers if isinstance(self.attention, SomeLayers) else list(range(self.layers))

    @property
    def heads(self) -> int:
        """How many heads a layer has."""
        return self.heads_of(self.attention_layers[0])

    def heads_of(self, layer: int) -> int:
        """How many heads this layer has: in some models layers differ.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.heads_of(5)
        12
        """
        return self.attention[layer].weights.shape[0]

    @cached_property
    def causal(self) -> bool:
        """Whether no token attends to a later one of the same text."""
        return self.source is None and not any(sees_ahead(attention) for attention in self.attention)

    @cached_property
    def units(self) -> list[Word]:
        """The words and the special tokens, in the order of the tokens: what the pictures show."""
        # Words hold a shallow copy without this cached list, to avoid a reference cycle.
        units, copy = [], replace(self)
        for index, (span, tokens) in enumerate(self.unit_spans):
            token = self.tokens[tokens[0]]
            start, end = span or (token.start, token.end)
            text = self.text[start:end] if span else printable(token.text).strip(" ") or "␣"
            units.append(Word(text, start, end, tuple(tokens), span is None, index, copy))
        return units

    @property
    def words(self) -> list[Word]:
        """The words, punctuation included."""
        return [unit for unit in self.units if not unit.special]

    @cached_property
    def unit_of_token(self) -> Int[Tensor, "tokens"]:
        """The unit that each token belongs to."""
        units = [0] * len(self.tokens)
        for index, (_, tokens) in enumerate(self.unit_spans):
            for token in tokens:
                units[token] = index
        return torch.tensor(units, dtype=torch.long)

    @cached_property
    def sizes(self) -> Int[Tensor, "units"]:
        """How many tokens each unit has."""
        return torch.bincount(self.unit_of_token)

    def by_unit(self, numbers: Float[Tensor, "... tokens"]) -> Float[Tensor, "... units"]:
        """One number per token, summed over the tokens of each unit.

        >>> import torch, regard
        >>> reading = regard.Lens().read("Anna Berg tokenizes")       # "tokenizes" has two tokens
        >>> reading.by_unit(torch.ones(len(reading.tokens)))
        tensor([1., 1., 1., 2., 1.])
        """
        total = numbers.new_zeros(*numbers.shape[:-1], len(self.unit_spans))
        return total.index_add_(-1, self.unit_of_token.to(numbers.device), numbers)

    def weights(self, layer: int, head: int | None = None) -> Float[Tensor, "... units units"]:
        """Weights between units, and those of `columns`: summed over a unit's keys, averaged over its queries.

        Of a head, or of all.

        Raises IndexError, with the range, for a layer or head that does not exist.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.weights(5, 11).shape, reading.weights(5).shape
        (torch.Size([7, 7]), torch.Size([12, 7, 7]))
        >>> reading.weights(5, 11)[2].argmax()                        # “flies” looks at “arrow” most
        tensor(5)
        """
        self.check(layer, head)
        keys = self.columns.unit_of_token
        grouped = self.attention[layer].weights.grouped(queries=self.unit_of_token, keys=keys)
        return grouped if head is None else grouped[head]

    def word(self, word: str | int, nth: int | None = None) -> Word:
        """A word of the text, by its text or by its place in `words`.

        Several words in a row are named as they stand in the text: "New York" or "COVID-19". Where no words match, a
        special token can be meant, or tokens inside a word: "Cl" in "Cl.OCC". Where nothing matches exactly, or there
        is no nth match, differences of quotes, dashes and spaces are ignored and, after that, of case.

        Args:
            word: its text, or its place in `words`.
            nth: which occurrence, counting from 1, if the word occurs more than once.

        Raises:
            LookupError: it does not occur (the message names the nearest), or occurs more than once.
            TypeError: it is neither a text nor a whole number.

        >>> import regard
        >>> reading = regard.Lens().read("The flies in New York like other flies")
        >>> reading.word("flies", nth=2).index, reading.word("New York").tokens
        (8, (4, 5))
        """
        return find_word(self, word, nth)

    def token(self, place: int) -> Word:
        """A single token as a word, by its place in `tokens`. Raises LookupError for a place that does not exist.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.token(0).text
        '[CLS]'
        """
        count = len(self.tokens)
        if not -count <= place < count:
            raise LookupError(f"There is no token {place}: the text has {count}, from 0 to {count - 1}.")
        return word_of_tokens(self, place % count, place % count)

    @property
    def logits(self) -> Float[Tensor, "tokens vocabulary"]:
        """The logits of a language model at every token, computed from the final states whenever they are asked for.

        Raises ValueError where they take more than 1 GiB, and for a model that does not predict tokens.
        """
        from regard.lens.predictions import logits

        return logits(self)

    def predictions(self, k: int = 5, layer: int | None = None) -> Predictions:
        """What a language model expected at every token, and how much what came surprised it: `Predictions`.

            p_i = softmax(W_U norm(x_i))

        With a layer, x are the hidden states after that layer instead of the last one: the logit lens, which shows at
        which layer an answer appears. The last layer gives the model's own predictions. A masked language model
        predicts the token at each place, which it has seen there unless it is masked: it has no surprise.

        Cost: a multiplication by the unembedding, in blocks of tokens; what is kept are N·k numbers.

        Args:
            k: how many of the most likely tokens are kept.
            layer: counted from 0; from −1 backwards. By default the predictions of the model itself.

        Raises:
            ValueError: the model has no head that predicts tokens, or the reading no lens; there are no k tokens; no
                single norm follows the last layer, so that none can be applied to another.
            IndexError: there is no such layer.

        >>> import regard
        >>> regard.Lens().read("Time flies like an arrow").predictions()  # an encoder, which predicts nothing
        Traceback (most recent call last):
            ...
        ValueError: predictions: all-MiniLM-L6-v2 has no head that predicts tokens; open a language model with its head,
        from its folder or as Lens((AutoModelForCausalLM.from_pretrained(name), tokenizer)).
        """
        from regard.lens.predictions import predictions

        return predictions(self, k, layer)

    def explain(
        self, word: str | int | Word, layer: int | None = None, head: int | None = None, nth: int | None = None
    ) -> Walk:
        """How the attention of a layer and head computes the new vector of a word, step by step: a `regard.Walk`.

        Without a layer or a head, that of `head_with_most_content`. `word` and `nth` are as in `Reading.word`.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> walk = reading.explain("flies", layer=5, head=11)
        >>> walk.weights.argmax(), walk.error < 1e-5      # token 5 is “arrow”; the steps arrive where the model does
        (tensor(5), True)
        """
        from regard.lens.walk import walk

        if isinstance(word, Word) and word.reading.attention is not self.attention:
            raise ValueError(f"explain: {word.text!r} is a word of another reading.")
        return walk(self, word if isinstance(word, Word) else self.word(word, nth), layer, head)

    def head_with_most_content(self, word: Word, layer: int | None = None, head: int | None = None) -> tuple[int, int]:
        """The layer and head that contribute most to a word from other words, by weight × length of the value added.

        Punctuation is no word. Heads that attend to a position, whatever its token, are set aside, and so is the first
        token of a causal model. A given layer or head is kept. Raises IndexError for one that does not exist.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.head_with_most_content(reading.word("flies"))
        (5, 11)
        """
        from regard.lens.display import head_with_most_content

        return head_with_most_content(self, word, layer, head)

    def most_telling(self, word: Word, layer: int | None = None, head: int | None = None) -> tuple[int, int]:
        """The old name of `head_with_most_content`."""
        warn("Reading.most_telling is now called head_with_most_content.")
        return self.head_with_most_content(word, layer, head)

    def to_others(self, word: Word, layer: int, head: int | None = None) -> Float[Tensor, "..."]:
        """The weight that a word gives to all other words together, without itself and special tokens.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.to_others(reading.word("flies"), layer=5).shape   # a number a head
        torch.Size([12])
        """
        own = set(word.tokens) if self.source is None else set()
        others = torch.tensor([not unit.special and not own & set(unit.tokens) for unit in self.columns.units])
        return word.attends_to(layer, head)[..., others].sum(-1)

    def input_of(self, layer: int) -> Float[Tensor, "N dim"]:
        """What enters the attention of a layer. Raises ValueError where this was not seen.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.input_of(3).shape
        torch.Size([7, 384])
        """
        if self.entering is None:
            return self.hidden[layer]
        vectors = self.entering[layer]
        if vectors is None:
            raise ValueError(f"{self.model}: the vectors that enter the cross-attention of layer {layer} are unknown.")
        return vectors

    def check(self, layer: int | None, head: int | None = None) -> None:
        """Raise IndexError, with the range, for a layer or head that does not exist.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> reading.check(layer=5, head=11)
        >>> reading.check(layer=6)
        Traceback (most recent call last):
            ...
        IndexError: There is no layer 6: all-MiniLM-L6-v2 has layers 0 to 5.
        """
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
        map: str = "weights",
        attention: Part | None = None,
    ) -> Viewer:
        """The viewer, in a notebook: the sentence and its lines, all heads, their maps, the walk, a comparison.

        In a saved notebook, and where widgets are off, a picture takes its place. A reading at the end of a cell shows
        itself in the same way.

        Args:
            word, nth: the word that it opens with, as in `Reading.word`.
            layer, head: the layer and head that it opens with.
            map: the map that it opens with: one of `regard.attribution.MAPS`.
            attention: of an encoder-decoder with a target, the one that it opens with; by default "cross".

        Raises:
            ImportError: anywidget is not installed; the message says what to install.
            IndexError: there is no such layer or head. LookupError: there is no such word.
            ValueError: there is no such map, or it has no heads to choose from.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> viewer = reading.view(word="flies", layer=5, head=11)     # at the end of a notebook's cell, it shows itself
        """
        from regard.lens.display import widget

        return widget(self, word=word, nth=nth, layer=layer, head=head, map=map, attention=attention)

    def _ipython_display_(self) -> None:
        """The viewer in a notebook; the one line of `repr` in a terminal."""
        if not _in_notebook():
            raise NotImplementedError  # IPython goes on to the representations below
        try:
            viewer = self.view()
        except ImportError:
            raise NotImplementedError from None
        viewer._ipython_display_()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The same as a MIME bundle, for frontends that do not call `_ipython_display_`."""
        if not _in_notebook():
            return {"text/plain": repr(self)}
        try:
            return self.view()._repr_mimebundle_(**kwargs)
        except ImportError:
            return {"text/plain": repr(self)}

    def _repr_png_(self) -> Picture | None:
        """A picture of the heads of its first layer, where there is no viewer."""
        from regard.lens.display import still

        return still(self.cross or self)

    def _display_(self) -> Any:
        """The same for marimo."""
        return self.view()

    def save(self, path: str | Path, **options: Any) -> None:
        """Save as a picture (.png, .svg), a page (.html) or numbers (.json); options as in `lens.display.save`.

        >>> import tempfile, regard
        >>> from pathlib import Path
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     reading.save(Path(folder, "flies.svg"), layer=5, head=11)
        ...     Path(folder, "flies.svg").read_text()[:5]
        '<?xml'
        """
        from regard.lens.display import save

        save(self, path, **options)


def _in_notebook() -> bool:
    return bool({"ipykernel", "google.colab", "pyodide_kernel"} & sys.modules.keys())
