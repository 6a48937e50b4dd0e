"""What a language model expected at every token, and how much what came surprised it; after any of its layers.

The logit lens is of nostalgebraist 2020, https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.lens.words import printable
from regard.models.head import Head, Kind
from regard.models.model import Model
from regard.models.tokenizer import example_encoding
from regard.weights import DENSE_LIMIT

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from regard.lens.reading import Reading

BLOCK = 1 << 24  # logits that are held at once: 64 MiB of float32
_MASKS = ("[MASK]", "<mask>")


@dataclass(frozen=True, eq=False)
class Predictions:
    """The k most likely tokens at every token of a text, by `Reading.predictions`.

    Attributes:
        kind: "next token", the token after each, or "masked token", the one at each place.
        layer: the layer whose hidden states they are made of; None for the model's own, final states.
        tokens: the tokens of the text.
        ids: (tokens,k), the predicted tokens' numbers in the vocabulary, the most likely first.
        texts: the same as they would stand in a text, with the space before those that begin a word.
        probabilities: (tokens,k), in float32 at least.
        surprise: (tokens,), −log p of the token that came next, in nats; nan for the last, and at every token where
            the model had seen what it predicts: a masked language model, or one that is not causal.

    >>> import regard
    >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    >>> from regard.models import embedded_folder
    >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
    >>> predictions = lens.read("Time flies like an arrow").predictions(k=3)
    >>> predictions.ids.shape, predictions.probabilities.shape
    (torch.Size([7, 3]), torch.Size([7, 3]))
    >>> predictions.surprise.isnan().nonzero()                    # nothing came after the last
    tensor([[6]])
    """

    kind: Kind
    layer: int | None
    tokens: Sequence[str] = field(repr=False)
    ids: Int[Tensor, "N k"] = field(repr=False)
    texts: Sequence[Sequence[str]] = field(repr=False)
    probabilities: Float[Tensor, "N k"] = field(repr=False)
    surprise: Float[Tensor, "N"] = field(repr=False)

    @property
    def perplexity(self) -> float:
        """exp of the mean surprise: e to transformers' loss for the same tokens. nan for a single token."""
        return float(self.surprise[:-1].double().mean().exp())

    def __repr__(self) -> str:
        """The predictions at the last token, or at the last mask."""
        masks = [n for n, token in enumerate(self.tokens) if token in _MASKS and self.kind == "masked token"]
        row = masks[-1] if masks else -1
        likely = zip(self.texts[row], self.probabilities[row].tolist(), strict=True)
        place = ("after" if self.kind == "next token" else "at") + f" “{printable(self.tokens[row])}”"
        layer = "" if self.layer is None else f" by layer {self.layer}"
        shown = ", ".join(f"“{printable(text)}” {probability:.1%}" for text, probability in likely)
        known = "" if math.isnan(self.perplexity) else f"; perplexity {self.perplexity:.4g}"
        return f"Predictions({place}{layer}: {shown}{known})"

    def to_dict(self) -> dict[str, Any]:
        """As plain lists for JSON; None where there is no surprise.

        >>> import regard
        >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
        >>> from regard.models import embedded_folder
        >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
        >>> list(lens.read("Time flies like an arrow").predictions(k=3).to_dict())
        ['kind', 'layer', 'tokens', 'ids', 'texts', 'probabilities', 'surprise', 'perplexity']
        """
        surprise = [None if math.isnan(nats) else nats for nats in self.surprise.tolist()]
        return {
            "kind": self.kind,
            "layer": self.layer,
            "tokens": list(self.tokens),
            "ids": self.ids.tolist(),
            "texts": [list(texts) for texts in self.texts],
            "probabilities": self.probabilities.tolist(),
            "surprise": surprise,
            "perplexity": None if math.isnan(self.perplexity) else self.perplexity,
        }


def logits(reading: Reading) -> Float[Tensor, "N vocabulary"]:
    """The logits at every token, as `Reading.logits`."""
    _, head = language_model(reading, "logits")
    final, row = _final(reading), _first_row(head, reading)
    shape = len(final), row.shape[1]
    size = math.prod(shape) * row.itemsize
    if size > DENSE_LIMIT:
        raise ValueError(
            f"logits: {shape} numbers take {size / 2**30:.1f} GiB, more than the limit of "
            f"{DENSE_LIMIT / 2**30:.1f} GiB. Ask for predictions(), which go through the text in blocks."
        )
    with torch.inference_mode():
        return head(final, _ids(reading))


def predictions(reading: Reading, k: int, layer: int | None, rows: slice = slice(None)) -> Predictions:
    """The k most likely tokens at every token, or at those in `rows`, as `Reading.predictions`."""
    model, head = language_model(reading, "predictions")
    number = None if layer is None else _layer(reading, layer)
    vocabulary, ids = _first_row(head, reading).shape[1], _ids(reading)
    k = _k(k, vocabulary, model)
    causal = reading.causal or reading.part == "cross"
    following = (ids[1:] if head.kind == "next token" and causal else ids[:0])[rows]
    ids = ids[rows]
    chosen, probabilities, surprise, start = [], [], [], 0
    with torch.inference_mode():
        for states in _states(reading, model, number, rows, max(1, BLOCK // vocabulary)):
            logits = head(states, ids[start : start + len(states)])
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            total = logits.logsumexp(-1)
            values, indices = logits.topk(k)
            chosen.append(indices)
            probabilities.append((values - total[:, None]).exp())
            came = following[start : start + len(states)].to(logits.device)
            surprise.append(torch.full_like(total, torch.nan))
            surprise[-1][: len(came)] = total[: len(came)] - logits[: len(came)].gather(1, came[:, None])[:, 0]
            start += len(states)
        likely = torch.cat(chosen)
        tokens, texts = [token.text for token in reading.tokens[rows]], _texts(model, likely)
        return Predictions(head.kind, number, tokens, likely, texts, torch.cat(probabilities), torch.cat(surprise))


def vocabulary_of(reading: Reading) -> int:
    """How many tokens the model of a reading can predict."""
    _, head = language_model(reading, "predictions")
    return _first_row(head, reading).shape[1]


def unembeds_every_layer(reading: Reading, model: Model) -> bool:
    """Whether predictions can be made of the states after any layer: a single norm, or nothing, follows the last."""
    return torch.equal(reading.hidden[-1], _final(reading)) or model.final_norm is not None


def _states(
    reading: Reading, model: Model, layer: int | None, rows: slice, block: int
) -> Iterator[Float[Tensor, "block dim"]]:
    """What the head is applied to, so many tokens at once: the final states, or those that a layer's would make.

    Raises ValueError where the model has no final norm that could be applied to the states of another layer.
    """
    final = _final(reading)
    if layer is None or layer == reading.layers - 1:
        return iter(final[rows].split(block))
    if not unembeds_every_layer(reading, model):
        raise ValueError(
            f"predictions: layer: what follows the last layer of {model.name} is no single norm that could be applied "
            "to the states of another layer; only its last layer makes predictions."
        )
    blocks = reading.hidden[layer + 1][rows].split(block)
    norm = model.final_norm
    if norm is None or torch.equal(reading.hidden[-1], final):
        return iter(blocks)
    return (norm(states[None])[0] for states in blocks)


def language_model(reading: Reading, call: str) -> tuple[Model, Head]:
    """The model of a reading and its head. Raises ValueError where there is no lens or no head that predicts tokens."""
    if reading.opened is None or reading.ids is None:
        raise ValueError(
            f"{call}: this reading has no lens, and so no model that could predict, as one that was pickled; read the "
            "text with a Lens."
        )
    model = reading.opened
    head = model.head
    if reading.part == "encoder":
        raise ValueError(
            f"{call}: an encoder predicts nothing; ask its decoder: lens.read(text, target).decoder.{call}."
        )
    if head is None:
        raise ValueError(
            f"{call}: {model.name} has no head that predicts tokens; open a language model with its head, from its "
            "folder or as Lens((AutoModelForCausalLM.from_pretrained(name), tokenizer))."
        )
    if head.kind == "class":
        raise ValueError(f"{call}: {model.name} is a {head.model}, which predicts the class of a text and no tokens.")
    return model, head


def _layer(reading: Reading, layer: int) -> int:
    # Not Reading.check, which refuses layers without attention: they have hidden states, too.
    count = reading.layers
    if not -count <= layer < count:
        raise IndexError(f"There is no layer {layer}: {reading.model} has layers 0 to {count - 1}.")
    return layer % count


def _k(k: Any, vocabulary: int, model: Model) -> int:
    try:
        number = operator.index(k)
    except TypeError:
        raise TypeError(f"predictions: k: expected a whole number. Got {k!r}.") from None
    if not 1 <= number <= vocabulary:
        raise ValueError(
            f"predictions: k: expected 1 to {vocabulary:,}, the vocabulary of {model.name}. Got {number:,}."
        )
    return number


def _first_row(head: Head, reading: Reading) -> Float[Tensor, "1 vocabulary"]:
    with torch.inference_mode():
        return head(_final(reading)[:1], _ids(reading)[:1])


def _final(reading: Reading) -> Float[Tensor, "N dim"]:
    return reading.hidden[-1] if reading.final is None else reading.final


def _ids(reading: Reading) -> Int[Tensor, "N"]:
    assert reading.ids is not None
    return reading.ids


def _texts(model: Model, ids: Int[Tensor, "N k"]) -> list[list[str]]:
    """The tokens as they would stand in a text, behind another word; by their names where they are no text alone.

    >>> from regard.models import open_model
    >>> _texts(open_model(), torch.tensor([[8612, 2075]]))  # "arrow" and "##ing"
    [[' arrow', 'ing']]
    """
    tokenizer = model.tokenizer
    example = example_encoding(tokenizer)
    before = example.ids[example.special_tokens_mask.index(0)]
    start = tokenizer.decode([before], skip_special_tokens=False)
    numbers = ids.unique().tolist()
    behind = tokenizer.decode_batch([[before, id] for id in numbers], skip_special_tokens=False)
    texts = {}
    for id, text in zip(numbers, behind, strict=True):
        text = text[len(start) :] if text.startswith(start) else ""
        texts[id] = text if text and "\ufffd" not in text else tokenizer.id_to_token(id) or str(id)
    return [[texts[id] for id in row] for row in ids.tolist()]
