"""Reading one text with a model of transformers: its hidden states, and the attention of every layer that has one.

`Reader` runs the forward pass. The checks around it raise one plain line for a model that cannot read text, or that
does not belong to its tokenizer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regard.attention import Attention
from regard.models.model import Pass

if TYPE_CHECKING:
    import regard.hf


def unwrapped(model: Any) -> Any:
    """The model inside the wrappers of DataParallel or torch.compile."""
    while isinstance(model, nn.Module) and (
        name := next((n for n in ("module", "_orig_mod") if hasattr(model, n)), None)
    ):
        model = getattr(model, name)
    return model


def text_encoder(model: Any, tokenizer: Any) -> tuple[Any, Any, str]:
    """The part of a model that reads text, its tokenizer, and a sentence about the parts that are not read, or "".

    Raises TypeError or ValueError, in one line, for anything but a model and its tokenizer.
    """
    if isinstance(tokenizer, nn.Module) and not isinstance(model, nn.Module):
        raise TypeError("Lens: expected (model, tokenizer). Got (tokenizer, model).")
    kind = type(model).__name__
    if not hasattr(model, "set_attn_implementation"):
        raise TypeError(f"Lens: expected a model of transformers and its tokenizer. Got {_described(model)}")
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
    if not getattr(tokenizer, "is_fast", False):
        name = getattr(model, "name_or_path", "") or kind
        raise ValueError(
            f"{name}: its tokenizer does not give the spans of its tokens in the text; a fast tokenizer is needed."
        )
    if not getattr(model.config, "is_encoder_decoder", False):
        return model, tokenizer, ""
    note = f"Only the encoder of {kind} was read; given a second text, its decoder reads that as the target."
    return model.get_encoder(), tokenizer, note


def check_reads_text(model: Any, name: str, tokenizer: Any) -> None:
    """Raise ValueError, in one line, for a model that reads no tokens, or those of another tokenizer."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    wanted = getattr(base, "main_input_name", "input_ids")
    if wanted != "input_ids" or "input_ids" not in signature(base.forward).parameters:
        raise ValueError(
            f"{name}: a {type(base).__name__} reads {wanted}, but a Lens needs a model that reads input_ids."
        )
    rows = embedding_rows(model)
    known, added = len(tokenizer.get_vocab()), len(tokenizer.get_added_vocab())
    if known <= added or 2 * known < rows:
        raise ValueError(
            f"{name}: its tokenizer has {known:,} tokens, {added:,} of them added ones, and the model has embeddings "
            f"for {rows:,}: the tokenizer's files are missing, or belong to another model."
        )


def embedding_rows(model: Any) -> int:
    """The rows of its embedding table; 0 where it has no single table."""
    try:
        rows: int = getattr(model.get_input_embeddings(), "num_embeddings", 0)
    except (AttributeError, NotImplementedError):  # a model of several parts, each with its own table
        return 0
    return rows


def missing_tokenizer_error(model: Any) -> TypeError:
    """The error for a model without its tokenizer, or for something that is no model."""
    if hasattr(model, "set_attn_implementation") or isinstance(model, nn.DataParallel):
        return TypeError(f"Lens: {type(model).__name__} needs its tokenizer: Lens((model, tokenizer)).")
    return TypeError(f"Lens: expected None, a name, a folder or (model, tokenizer). Got {_described(model)}")


def _described(model: Any) -> str:
    kind = type(model).__name__
    if type(model).__module__.startswith("sentence_transformers"):
        return f"{kind}: pass its folder or name instead, or (model[0].auto_model, model.tokenizer)."
    return f"{kind}."


_OTHER_INPUTS = ("pixel_values", "input_features", "input_values", "image", "audio", "bbox", "visual")


class Reader:
    """Runs a model of transformers: reader(ids, lengths, types) → `Pass`.

    `blocks` are the modules of its layers; empty where they are not in one ModuleList. Raises ValueError, naming the
    model, where its attention or its hidden states cannot be assigned to layers and tokens.
    """

    def __init__(self, model: Any, name: str, ids: Sequence[int]) -> None:
        self.model, self.name = model, name
        config = model.config.get_text_config()
        self.layers = config.num_hidden_layers
        self._typed = (
            getattr(config, "type_vocab_size", 0) > 1 and "token_type_ids" in signature(model.forward).parameters
        )
        self.blocks = self._try(ids)

    def _try(self, ids: Sequence[int]) -> list[nn.Module]:
        """Read a few tokens, so that a model that cannot read fails when it is opened; returns the layers it used."""
        import regard.hf

        self.check_ids(torch.tensor(ids))
        try:
            with regard.hf.record() as recorded, torch.inference_mode():
                self.model(input_ids=torch.tensor([ids]).to(self.model.device), return_dict=True)
        except Exception as error:  # models raise exceptions of every kind
            kind, reason = type(self.model).__name__, " ".join(str(error).split())[:200]
            others = [name for name in signature(self.model.forward).parameters if name.startswith(_OTHER_INPUTS)]
            if others:
                hint = " Its text_model can." if hasattr(self.model, "text_model") else ""
                raise ValueError(
                    f"{self.name}: {kind} cannot read a text without {', '.join(others)}.{hint} ({reason})"
                ) from error
            raise ValueError(f"{self.name}: {kind} cannot read a text: {type(error).__name__}: {reason}") from error
        used = {module for module, _ in recorded}
        for blocks in self.model.modules():
            if isinstance(blocks, nn.ModuleList) and len(blocks) == self.layers and used & set(blocks.modules()):
                return list(blocks)
        return []

    def __call__(self, ids: Tensor, lengths: Tensor | None, types: Tensor | None = None) -> Pass:
        self.check_ids(ids)
        options = {"token_type_ids": types.to(self.model.device)} if types is not None and self._typed else {}
        hidden, final, recorded = self.run(ids, lengths, **options)
        attentions = self._by_layer(recorded)
        self._check_sizes(ids.shape[1], hidden, attentions)
        return Pass(hidden, attentions, final)

    def run(
        self, ids: Tensor, lengths: Tensor | None, **options: Any
    ) -> tuple[list[Tensor], Tensor, list[regard.hf.Recorded]]:
        """The hidden states, the final ones, and every attention in the order in which the model computes them."""
        import regard.hf

        device = self.model.device
        mask = None if lengths is None else (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(device)
        with regard.hf.record() as recorded, outputs(self.blocks[-1:]) as last:
            output = self.model(
                input_ids=ids.to(device), attention_mask=mask, output_hidden_states=True, return_dict=True, **options
            )
        hidden = list(output.hidden_states)
        if len(hidden) != self.layers + 1:
            raise ValueError(f"{self.name}: it has {self.layers} layers, but returns {len(hidden)} hidden states.")
        final = hidden[-1] if getattr(output, "last_hidden_state", None) is None else output.last_hidden_state
        if last and last[0].shape[:-1] == hidden[-1].shape[:-1]:
            hidden[-1] = last[0]  # transformers returns the last one after the final norm
        return hidden, final, recorded

    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """The final states (n,dim) of tokens (1,n) that follow those in the cache, and the cache with them.

        No attention is recorded. Raises ValueError where the model keeps no keys and values.
        """
        from regard.hf.growing import grow_in_place

        output = self.model(
            input_ids=ids.to(self.model.device), past_key_values=cache, use_cache=True, return_dict=True
        )
        cache = getattr(output, "past_key_values", None)
        if cache is None:
            kind = type(self.model).__name__
            raise ValueError(f"{self.name}: {kind} keeps no keys and values, and cannot write token by token.")
        grow_in_place(cache)
        return output.last_hidden_state[0], cache

    def _by_layer(self, recorded: Sequence[Any]) -> list[Attention | None]:
        if len(recorded) == self.layers:
            return [attention for _, attention in recorded]
        places = {module: n for n, block in enumerate(self.blocks) for module in block.modules()}
        attentions: list[Attention | None] = [None] * self.layers
        for module, attention in recorded:
            place = places.get(module)
            if place is None or attentions[place] is not None:
                break
            attentions[place] = attention
        else:
            if recorded:
                return attentions
        raise ValueError(f"{self.name}: it has {self.layers} layers, but {len(recorded)} attentions that can be seen.")

    def check_ids(self, ids: Tensor) -> None:
        """Raise ValueError for a token that the model has no embedding for."""
        rows = embedding_rows(self.model)
        if rows and int(ids.max()) >= rows:
            raise ValueError(
                f"{self.name}: its tokenizer gives this text the token {int(ids.max()):,}, and the model has "
                f"embeddings for {rows:,}: they do not belong together."
            )

    def _check_sizes(self, tokens: int, hidden: Sequence[Tensor], attentions: Iterable[Attention | None]) -> None:
        """Raise ValueError unless every position is a token of the text, or a virtual one before it."""
        virtual = virtual_tokens(self.model)
        positions = hidden[0].shape[1]
        if positions not in (tokens, tokens + virtual):
            raise ValueError(
                f"{self.name}: it has {positions} positions for {tokens} tokens, and which belong together is unknown."
            )
        for attention in attentions:
            if attention is not None and attention.weights.shape[-2:] != (positions, positions):
                queries, keys = attention.weights.shape[-2:]
                raise ValueError(
                    f"{self.name}: its attention has {queries} queries and {keys} keys for {positions} tokens (a "
                    "prefix, a memory, or a shortened text), which a reading cannot assign to tokens."
                )


def virtual_tokens(model: Any) -> int:
    """How many learned positions the active PEFT adapter (prompt tuning and the like) puts before the text."""
    if not hasattr(model, "peft_config"):
        return 0
    count: int = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0
    return count


@contextmanager
def outputs(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects what these modules return within this context, in this thread."""
    thread, tensors = threading.get_ident(), []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            tensors.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield tensors
    finally:
        for handle in handles:
            handle.remove()
