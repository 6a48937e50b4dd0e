"""The hidden states of many texts, of a model of transformers: nothing is padded, and no attention is kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.models.forward import virtual_tokens
from regard.models.tokenizer import example

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENS_AT_ONCE = 4096


class TransformersStates:
    """Gives, of many lists of ids, the number and {layer: (N,dim)} of each, in any order.

    Texts of one length are computed together. A padded text would not always be what it is alone: MobileBERT and all
    that convolve look at the token beside, padding or not. The last layer's are the model's `last_hidden_state`, after
    its final norm if it has one; those of inner layers are asked for only where they are wanted.

    Args:
        model: of transformers, in evaluation mode.
        tokenizer: says which types its special tokens and the text have; None where it gives no types.
        layers: how many the model has.
        name: what errors call it.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer | None, layers: int, name: str) -> None:
        self.model, self.layers, self.name = _without_head(model), layers, name
        parameters = signature(self.model.forward).parameters
        self.options = {"use_cache": False} if "use_cache" in parameters else {}
        typed = tokenizer is not None and "token_type_ids" in parameters
        self.types = _types(tokenizer) if typed and tokenizer is not None else None

    def __call__(
        self, pieces: Sequence[Sequence[int]], wanted: Collection[int], dtype: torch.dtype
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        if dtype != torch.float32:
            kind = self.model.dtype
            raise ValueError(
                f"embed: dtype: {self.name} is computed in its own type, {kind}; dtype= is for BERT's family."
            )
        if extra := virtual_tokens(self.model):
            raise ValueError(f"embed: {self.name} puts {extra} positions of its own before a text's: a tuned prompt.")
        for batch in _of_one_length(pieces):
            states = self._batch([pieces[n] for n in batch], wanted)
            for row, n in enumerate(batch):
                yield n, {layer: tensor[row] for layer, tensor in states.items()}

    @torch.inference_mode()
    def _batch(self, pieces: Sequence[Sequence[int]], wanted: Collection[int]) -> dict[int, Tensor]:
        """{layer: (B,N,dim)}"""
        ids = torch.tensor(pieces, device=self.model.device)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self.options}
        if self.types is not None:
            before, text, after = self.types
            types = [*before, *[text] * (ids.shape[1] - len(before) - len(after)), *after]
            inputs["token_type_ids"] = torch.tensor(types, device=ids.device).expand_as(ids)
        inner = [layer for layer in wanted if layer < self.layers]
        output = self.model(**inputs, output_hidden_states=bool(inner), return_dict=True)
        last = getattr(output, "last_hidden_state", None)
        hidden = output.hidden_states if inner else ()
        if last is None or (inner and len(hidden) != self.layers + 1):
            raise ValueError(f"embed: {self.name} does not give the hidden states of its {self.layers} layers.")
        states = {layer: last if layer == self.layers else hidden[layer] for layer in wanted}
        for tensor in states.values():
            if extra := tensor.shape[1] - ids.shape[1]:
                raise ValueError(f"embed: {self.name} puts {extra} positions of its own beside a text's.")
        return states


def _without_head(model: Any) -> Any:
    """The model below a head that predicts tokens or classes, whose output lacks the last layer's states."""
    if virtual_tokens(model):
        return model
    whole = model.get_base_model() if hasattr(model, "peft_config") else model
    return getattr(whole, "base_model", whole)


def _types(tokenizer: Tokenizer) -> tuple[list[int], int, list[int]]:
    """Of the special tokens before a text, of the text, and of those after it."""
    encoding = example(tokenizer)
    mask, types = encoding.special_tokens_mask, encoding.type_ids
    first, last = mask.index(0), len(mask) - mask[::-1].index(0)
    return types[:first], types[first], types[last:]


def _of_one_length(pieces: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The numbers of pieces that have one length, TOKENS_AT_ONCE tokens of them at most, or one."""
    batch: list[int] = []
    for n in sorted(range(len(pieces)), key=lambda n: len(pieces[n])):
        size = len(pieces[n])
        if batch and (size != len(pieces[batch[0]]) or (len(batch) + 1) * size > TOKENS_AT_ONCE):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch
