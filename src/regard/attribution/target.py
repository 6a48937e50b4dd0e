"""What is explained: one number that a model makes of a text.

    y = target.value(output)

A next token, or how far one is ahead of another; a class; the cosine with another text; a number of a word's vector; a
word's or the sentence's vector; any other function of the output.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from regard.attribution.again import Output, model_of, output_of_reading
from regard.attribution.vocabulary import known_token, quoted_token, token_id
from regard.lens.units import Word
from regard.lens.vectors import pooled_text
from regard.lens.words import printable
from regard.models.head import Head, Kind

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from regard.lens import Reading
    from regard.models import Model


class Predicted(NamedTuple):
    """A prediction of a token: the position at which it is made, the token, and the one that it is compared with."""

    position: int
    token: int
    instead_of: int | None


@dataclass(frozen=True, eq=False)
class Target:
    """What is explained: a number that a model makes of a text, and its name.

    Made by `next_token`, `label`, `similarity`, `sentence`, `word`, `coordinate` or `function`, for the text of one
    reading.

    Attributes:
        name: what it is called in tables and pictures.
        value: the number, from the `Output` of the model: differentiable.
        ids: the tokens of the text that it was made for.
        predicted: the token, where it is the logit of one or a difference of two.

    >>> import regard
    >>> from regard.attribution import Target
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> Target.similarity(reading, "Time passes quickly").name
    'the similarity with “Time passes quickly”'
    """

    name: str
    value: Callable[[Output], Float[Tensor, ""]]
    ids: Int[Tensor, "N"]
    predicted: Predicted | None = None

    def __repr__(self) -> str:
        return f"Target({self.name})"

    def of(self, reading: Reading) -> float:
        """The number for a reading, as it is. Raises ValueError for one of another text.

        >>> import regard
        >>> from regard.attribution import Target
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> round(Target.similarity(reading, "Time passes quickly").of(reading), 2)
        0.57
        """
        self.check(reading)
        return self.number(output_of_reading(reading, "target"))

    def number(self, output: Output) -> float:
        """The number, without a gradient.

        >>> import regard
        >>> from regard.attribution import Target
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> target = Target.function(reading, lambda output: output.hidden[-1].norm(), "a length")
        >>> target.of(reading) > 0                                    # `number` of the output that was read
        True
        """
        with torch.inference_mode():
            return float(self.value(output))

    def check(self, reading: Reading) -> None:
        """Raises ValueError for the reading of another text than the target was made for.

        >>> import regard
        >>> from regard.attribution import Target
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> Target.word(reading, "flies").check(regard.Lens().read("Fruit flies like a banana"))
        Traceback (most recent call last):
            ...
        ValueError: target: the vector of “flies” was made for another text than 'Fruit flies like a banana'.
        """
        if reading.ids is None or not torch.equal(self.ids, reading.ids):
            raise ValueError(f"target: {self.name} was made for another text than {reading.text[:60]!r}.")

    @classmethod
    def next_token(
        cls,
        reading: Reading,
        token: str | int | None = None,
        instead_of: str | int | None = None,
        position: int | None = None,
    ) -> Target:
        """The logit of a next token, or by how much it is ahead of another one's: logit(token) − logit(instead_of).

        Args:
            reading: of a language model; a masked one predicts the token at a position itself.
            token: a word or another text that is a single token, with the space before it if there is such a token;
                its name in the vocabulary, such as "Ġcat"; or its number. By default the most likely.
            instead_of: the token that it is compared with.
            position: of the token after which it stands: the last by default. For a masked language model, by default
                that of the mask.

        Raises:
            ValueError: the model has no head that predicts tokens; the text is no token, or several.
            IndexError: there is no such position.

        >>> import regard
        >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
        >>> from regard.models import embedded_folder
        >>> from regard.attribution import Target
        >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
        >>> reading = lens.read("Time flies like an arrow")
        >>> Target.next_token(reading, "time", instead_of="fruit").predicted
        Predicted(position=6, token=2051, instead_of=5909)
        """
        head = _head(reading, "next_token", ("next token", "masked token"))
        model, place = model_of(reading, "next_token"), _position(reading, head, position)
        if token is None:
            with torch.inference_mode():
                number = int(output_of_reading(reading, "next_token").logits(place).argmax())
        else:
            number = token_id(model, token, "token")
        other = None if instead_of is None else token_id(model, instead_of, "instead_of")
        name = f"the {head.kind} {quoted_token(model, number)}"
        if other is not None:
            name += f" rather than {quoted_token(model, other)}"

        def value(output: Output) -> Tensor:
            logits = output.logits(place)
            return logits[number] if other is None else logits[number] - logits[other]

        return cls(name, value, _ids(reading), Predicted(place, number, other))

    @classmethod
    def label(cls, reading: Reading, label: str | int | None = None) -> Target:
        """The logit of a class of a classifier.

        Args:
            reading: of a classifier of texts.
            label: the name of the class, or its number. By default the class that the text is given.

        Raises ValueError where the model has no such head, or no such class.

        >>> import regard
        >>> from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
        >>> from regard.attribution import Target
        >>> from regard.models import embedded_folder
        >>> config = BertConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> model = BertForSequenceClassification(config).eval()
        >>> lens = regard.Lens((model, AutoTokenizer.from_pretrained(embedded_folder())))
        >>> Target.label(lens.read("Time flies"), "LABEL_1")
        Target(the class LABEL_1)
        """
        head = _head(reading, "label", ("class",))
        if label is None:
            with torch.inference_mode():
                number = int(output_of_reading(reading, "label").logits().argmax())
        else:
            number = _class(head, label)
        return cls(f"the class {head.labels[number]}", lambda output: output.logits()[number], _ids(reading))

    @classmethod
    def similarity(cls, reading: Reading, text: str | Reading) -> Target:
        """The cosine of the text's vector with that of another text, both by the model's own pooling.

        Raises ValueError where the model does not say how it makes sentence vectors.

        >>> import regard
        >>> from regard.attribution import Target
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> target = Target.similarity(reading, "Time passes quickly")
        >>> target
        Target(the similarity with “Time passes quickly”)
        """
        model = _with_pooling(reading, "similarity")
        if isinstance(text, str):
            assert reading.lens is not None
            text = reading.lens.read(text)
        if model_of(text, "similarity") is not model:
            raise ValueError(f"similarity: text: expected a reading by {model.name}. Got one by {text.model}.")
        other = _computed(lambda: pooled_text(model, output_of_reading(text, "similarity").final))

        def value(output: Output) -> Tensor:
            return torch.cosine_similarity(pooled_text(model, output.final), other, dim=0)

        shown = text.text if len(text.text) <= 40 else text.text[:39] + "…"
        return cls(f"the similarity with “{printable(shown)}”", value, _ids(reading))

    @classmethod
    def sentence(cls, reading: Reading, pool: str | None = None) -> Target:
        """The sentence's vector: its length along its present direction, v·v₀/‖v₀‖: what made this vector what it is.

        It is taken before a module that divides vectors by their length, after which that is always 1.

        Args:
            reading: the text.
            pool: another pooling than the model's own: "mean", "cls" …, as in `Lens.embed`.

        Raises ValueError where the model does not say how it makes sentence vectors, and none is given.

        >>> import regard
        >>> from regard.attribution import Target
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> Target.sentence(reading).of(reading) > 0
        True
        """
        model = model_of(reading, "sentence") if pool else _with_pooling(reading, "sentence")
        pools = None if pool is None else (pool,)

        def vector(output: Output) -> Tensor:
            return pooled_text(model, output.final, pools, normalized=False)

        return _vector(reading, "the sentence's vector", vector)

    @classmethod
    def word(cls, reading: Reading, word: str | int | Word, nth: int | None = None) -> Target:
        """The final vector of a word: its length along its present direction, v·v₀/‖v₀‖. A word as in `Reading.word`.

        Where the model ends in a layer norm, the length of a vector hardly changes: knockouts then say how far it
        turns, and gradients are small.

        Raises LookupError, as `Reading.word`.

        >>> import regard
        >>> from regard.attribution import Target
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> Target.word(reading, "flies")
        Target(the vector of “flies”)
        """
        chosen = word_of(reading, word, nth)
        tokens = list(chosen.tokens)
        return _vector(reading, f"the vector of “{chosen.text}”", lambda output: output.final[tokens].mean(0))

    @classmethod
    def coordinate(cls, reading: Reading, word: str | int | Word, number: int, nth: int | None = None) -> Target:
        """One number of the final vector of a word. Raises IndexError for one that it does not have.

        >>> import regard
        >>> from regard.attribution import Target
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> Target.coordinate(reading, "flies", 17)
        Target(number 17 of the vector of “flies”)
        """
        chosen = word_of(reading, word, nth)
        tokens, size = list(chosen.tokens), output_of_reading(reading, "coordinate").final.shape[1]
        if not -size <= number < size:
            raise IndexError(
                f"coordinate: number: the vector of “{chosen.text}” has {size} numbers, from 0 to {size - 1}. "
                f"Got {number}."
            )
        name = f"number {number % size} of the vector of “{chosen.text}”"
        return cls(name, lambda output: output.final[tokens, number].mean(), _ids(reading))

    @classmethod
    def function(
        cls, reading: Reading, function: Callable[[Output], Float[Tensor, ""]], name: str = "the function"
    ) -> Target:
        """Any number that is computed from the model's `Output`: its hidden states, final states or logits.

        Raises ValueError where the function does not return one number.

        >>> import regard
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> Target.function(reading, lambda output: output.hidden[3][2].norm(), "a length").of(reading) > 0
        True
        """
        with torch.inference_mode():
            value: Any = function(output_of_reading(reading, "function"))
        if not isinstance(value, torch.Tensor) or value.ndim:
            kind = f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"function: expected a function that returns a tensor of one number. Got {kind}.")
        return cls(name, function, _ids(reading))


def default_target(reading: Reading) -> Target:
    """What is explained unless another target is named.

    Of a language model its most likely next token, of a classifier its class, of an encoder the sentence's vector.

    >>> import regard
    >>> from regard import attribution
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> attribution.default_target(reading)
    Target(the sentence's vector)
    """
    model = model_of(reading, "default_target")
    if model.head is not None and model.head.kind == "next token":
        return Target.next_token(reading)
    if model.head is not None and model.head.kind == "class":
        return Target.label(reading)
    return Target.sentence(reading, None if model.pooling.modes else "mean")


_FORMS = "next, next:cat, next:cat-dog, label:POSITIVE, text:another text, sentence, word:flies, word:flies[17]"


def parse_target(reading: Reading, text: str, nth: int | None = None) -> Target:
    """A target as it is written on the command line:

        next            the most likely next token
        next:cat        the next token "cat"
        next:cat-dog    "cat" rather than "dog"; where "cat-dog" itself is a token, that one
        label:POSITIVE  a class; "label" alone is the class that the text is given
        text:some text  the cosine with another text
        sentence        the sentence's vector
        word:flies      the vector of a word
        word:flies[17]  one number of it, counted from 0

    Args:
        reading: the text.
        text: the target.
        nth: which occurrence of the word, if it occurs more than once.

    Raises ValueError for another form; and as `Target`'s makers.

    >>> import regard
    >>> parse_target(regard.Lens().read("Time flies like an arrow"), "word:flies[17]")
    Target(number 17 of the vector of “flies”)
    """
    kind, _, rest = text.partition(":")
    if kind == "next":
        token, other = _tokens(reading, rest)
        return Target.next_token(reading, token, other)
    if kind == "label":
        return Target.label(reading, rest or None)
    if kind == "text" and rest.strip():
        return Target.similarity(reading, rest)
    if text == "sentence":
        return Target.sentence(reading)
    if kind == "word" and rest:
        numbered = re.fullmatch(r"(.+)\[(-?\d+)\]", rest, re.DOTALL)
        if numbered:
            return Target.coordinate(reading, numbered[1], int(numbered[2]), nth)
        return Target.word(reading, rest, nth)
    raise ValueError(f"target: expected one of these forms: {_FORMS}. Got {text!r}.")


def _tokens(reading: Reading, text: str) -> tuple[str | None, str | None]:
    """What "cat", "cat-dog" and "" say: the token, and the one that it is compared with."""
    head = _head(reading, "next_token", ("next token", "masked token"))
    model = model_of(reading, "target")
    if not text or known_token(model, text) is not None or "-" not in text:
        return text or None, None
    cuts = [(text[: cut.start()], text[cut.end() :]) for cut in re.finditer("-", text)]
    pairs = [pair for pair in cuts if all(known_token(model, token) is not None for token in pair)]
    if len(pairs) == 1:
        return pairs[0]
    if pairs:
        raise ValueError(f"target: {text!r} can be divided into two tokens of {head.model} in several ways.")
    return cuts[0]  # the error will name the one that is no token


def word_of(reading: Reading, word: str | int | Word, nth: int | None = None) -> Word:
    """A word of the text, as `Reading.word`, or as it is given. Raises ValueError for a word of another text."""
    if not isinstance(word, Word):
        return reading.word(word, nth)
    if word.reading.text != reading.text:
        raise ValueError(f"{word.text!r} is a word of another text than {reading.text[:60]!r}.")
    return word


def _ids(reading: Reading) -> Tensor:
    assert reading.ids is not None  # a maker has asked for the model
    return reading.ids


def _head(reading: Reading, call: str, kinds: tuple[Kind, ...]) -> Head:
    """The head of the model. Raises ValueError where it has none of these kinds."""
    model = model_of(reading, call)
    if model.head is None or model.head.kind not in kinds:
        has = "it has no head" if model.head is None else f"the head of {model.head.model} predicts a {model.head.kind}"
        wanted, kind = ("classes", "ForSequenceClassification") if kinds == ("class",) else ("tokens", "ForCausalLM")
        raise ValueError(
            f"{call}: {model.name} predicts no {wanted}: {has}. Open a model with one, such as a class …{kind} of "
            "transformers or a folder that holds its head, or choose a target that needs none: the vector of a word "
            "or of the sentence, the similarity with another text."
        )
    return model.head


def _position(reading: Reading, head: Head, position: int | None) -> int:
    count = len(reading.tokens)
    if position is None and head.kind == "masked token":
        masks = [n for n, token in enumerate(reading.tokens) if token.piece in ("[MASK]", "<mask>")]
        if len(masks) != 1:
            raise ValueError(
                f"next_token: position: {head.model} predicts the token at a position: name it, or write one mask into "
                f"the text. It has {len(masks)}."
            )
        return masks[0]
    position = -1 if position is None else position
    if not -count <= position < count:
        raise IndexError(f"next_token: position: the text has {count} tokens, from 0 to {count - 1}. Got {position}.")
    return position % count


def _class(head: Head, label: str | int) -> int:
    labels = list(head.labels)
    if isinstance(label, int) and 0 <= label < len(labels):
        return label
    matches = [n for n, name in enumerate(labels) if name == label] or [
        n for n, name in enumerate(labels) if name.casefold() == str(label).casefold()
    ]
    if len(matches) != 1:
        raise ValueError(f"label: {head.model} has no class {label!r}. Its classes: {', '.join(labels)}.")
    return matches[0]


def _with_pooling(reading: Reading, call: str) -> Model:
    """The model. Raises ValueError where it does not say how it makes sentence vectors, or regard cannot make them."""
    model = model_of(reading, call)
    if reason := model.pooling.unsupported or model.pooling.unspecified:
        raise ValueError(
            f"{call}: {model.name}: the vector of a sentence is not known ({reason}); choose another target, such as "
            "the vector of a word."
        )
    return model


def _vector(reading: Reading, name: str, vector: Callable[[Output], Tensor]) -> Target:
    """The length of a vector along its present direction."""
    present = _computed(lambda: vector(output_of_reading(reading, "target")))
    direction = present / present.norm().clamp(min=1e-30)
    return Target(name, lambda output: vector(output) @ direction, _ids(reading))


def _computed(vector: Callable[[], Tensor]) -> Tensor:
    """A constant from the tensors of a reading, which gradients of others may be computed with."""
    with torch.inference_mode():
        constant = vector()
    with torch.inference_mode(False):
        return constant.clone()
