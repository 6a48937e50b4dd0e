"""The hidden states of many texts by a model of transformers, without padding and without keeping attention."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard._internal.batches import length_batches
from regard._internal.plurals import counted
from regard.models.reader import virtual_tokens
from regard.models.tokenizer import example_encoding

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENS_AT_ONCE = 4096


class TransformersStates:
    """Computes, for many texts as lists of ids, the number of each and its {layer: (N,dim)}, in any order.

    Texts of the same length are computed together, because padding would change some results: MobileBERT and every
    model with convolutions look at the neighbouring token, padding or not. The last layer's states are the model's
    `last_hidden_state`, after its final norm if it has one; inner layers are returned only where they are wanted.

    Args:
        model: a model of transformers, in evaluation mode.
        tokenizer: gives the types of the text and its special tokens; None where it gives no types.
        layers: how many layers the model has.
        name: what errors call the model.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer | None, layers: int, name: str) -> None:
        self.model, self.layers, self.name = _without_head(model), layers, name
        parameters = signature(self.model.forward).parameters
        self.options = {"use_cache": False} if "use_cache" in parameters else {}
        typed = tokenizer is not None and "token_type_ids" in parameters
        self.types = _types(tokenizer) if typed and tokenizer is not None else None

    def __call__(
        self, texts: Sequence[Sequence[int]], layers: Collection[int], dtype: torch.dtype
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        if dtype != torch.float32:
            raise ValueError(
                f"embed: dtype: {self.name} is computed in its own type, {self.model.dtype}; dtype= is for BERT's "
                "family."
            )
        if extra := virtual_tokens(self.model):
            raise ValueError(
                f"embed: {self.name} puts {counted(extra, 'position')} of its own before a text (a tuned prompt), "
                "which has no embedding here."
            )
        for batch in length_batches(list(map(len, texts)), TOKENS_AT_ONCE, same_length=True):
            states = self._batch([texts[number] for number in batch], layers)
            for row, number in enumerate(batch):
                yield number, {layer: tensor[row] for layer, tensor in states.items()}

    @torch.inference_mode()
    def _batch(self, texts: Sequence[Sequence[int]], layers: Collection[int]) -> dict[int, Tensor]:
        """{layer: (B,N,dim)} of texts of the same length."""
        ids = torch.tensor(texts, device=self.model.device)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self.options}
        if self.types is not None:
            before, text, after = self.types
            types = [*before, *[text] * (ids.shape[1] - len(before) - len(after)), *after]
            inputs["token_type_ids"] = torch.tensor(types, device=ids.device).expand_as(ids)
        inner = [layer for layer in layers if layer < self.layers]
        output = self.model(**inputs, output_hidden_states=bool(inner), return_dict=True)
        last = getattr(output, "last_hidden_state", None)
        hidden = output.hidden_states if inner else ()
        if last is None or (inner and len(hidden) != self.layers + 1):
            raise ValueError(f"embed: {self.name} does not give the hidden states of its {self.layers} layers.")
        states = {layer: last if layer == self.layers else hidden[layer] for layer in layers}
        for tensor in states.values():
            if extra := tensor.shape[1] - ids.shape[1]:
                raise ValueError(f"embed: {self.name} adds {counted(extra, 'position')} of its own to a text.")
        return states


def _without_head(model: Any) -> Any:
    """The model without a head that predicts tokens or classes, whose output lacks the last layer's states."""
    if virtual_tokens(model):
        return model
    whole = model.get_base_model() if hasattr(model, "peft_config") else model
    return getattr(whole, "base_model", whole)


def _types(tokenizer: Tokenizer) -> tuple[list[int], int, list[int]]:
    """The types of the special tokens before a text, of the text, and of the special tokens after it."""
    encoding = example_encoding(tokenizer)
    mask, types = encoding.special_tokens_mask, encoding.type_ids
    first, last = mask.index(0), len(mask) - mask[::-1].index(0)
    return types[:first], types[first], types[last:]
