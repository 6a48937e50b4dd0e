"""`Model`: what every opened model offers, whoever computes it."""

from __future__ import annotations

import copy
import functools
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from regard.models.head import Head, find_final_norm
from regard.models.pooling import PoolingConfig
from regard.models.projections import Surroundings, find_surroundings
from regard.models.tokenizer import example_encoding

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from regard.attention import Attention


class Pass(NamedTuple):
    """What a forward pass gives.

    Attributes:
        hidden: the L + 1 hidden states (B,N,dim), before the first layer and after each, without the final norm.
        attentions: the attention of each layer; None for a layer that has none.
        final: (B,N,dim), what the model passes on: after the norm and the projection that follow the last layer,
            where it has them.
        entering: by layer, the vectors (B,N,dim) that enter its attention, where these are not the hidden states.
        cross: of a decoder that has read a source: the same pass with its cross-attentions in the place of its
            self-attentions.
    """

    hidden: list[Tensor]
    attentions: list[Attention | None]
    final: Tensor
    entering: list[Tensor | None] | None = None
    cross: Pass | None = None


Forward = Callable[[Tensor, Tensor | None, Tensor | None], Pass]
Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
Parts = Callable[[Step, Tensor], Sequence[Tensor]]
Chat = Callable[[Sequence[Mapping[str, str]]], str]
States = Callable[[Sequence[Sequence[int]], Collection[int], torch.dtype], Iterator[tuple[int, dict[int, Tensor]]]]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that can be read: text → tokens → hidden states and attentions.

    Attributes:
        name: what errors and readings call it.
        tokenizer: neither truncates nor pads, and is never changed, so that threads can share it.
        forward: (ids (B,N), lengths (B,), types (B,N)) → `Pass`. The types tell the two texts of a pair apart.
        states: (texts as lists of ids, layers, dtype) → for each text its number and {layer: (N,dim)}, in any order.
        layers: how many layers it has.
        max_length: the most tokens it can read at once.
        pooling: how it makes sentence vectors.
        fastest_dtype: the type in which it is computed fastest here.
        revision: tells versions of the model apart by their weights.
        fingerprint: the same by everything that affects a vector: weights, configuration, tokenizer.
        blocks: the modules of its layers; empty where they are not known.
        vocab_size: the rows of its embedding table; None where that is not known.
        all_special_ids: the special tokens that transformers knows by name.
        truncates_left: whether its tokenizer truncates long texts at their beginning.
        note: what a user should know about it, in a sentence, or "".
        reading_note: what every reading should say about it, in a sentence, or "".
        find_head: finds `head`, which may have to be opened first.
        step: (ids (1,n), cache of the tokens before them, None at first) → their final states (n,dim) and the cache
            with them; None where a model cannot read a text step by step.
        parts: (`step`, the tokens (N,) of a prompt) → the parts of it that `step` should be given one after the other.
        chat: messages → the prompt that its chat template makes of them; None where it has no template.
        after: of an encoder-decoder: the final states (N,dim) of a source → its decoder, which has read that source, as
            a model of its own: a causal one, whose texts are targets. None for all others.
        cross: the same decoder as a model whose attentions are its cross-attentions.
        source: the states that key and value of its cross-attentions are made of.
        prefix_ids, suffix_ids: the special tokens before and after a text.
    """

    name: str
    tokenizer: Tokenizer
    forward: Forward
    states: States
    layers: int
    max_length: int
    pooling: PoolingConfig = field(default_factory=PoolingConfig)
    fastest_dtype: torch.dtype = torch.float32
    revision: Callable[[], str] = lambda: ""
    blocks: Sequence[torch.nn.Module] = ()
    fingerprint: Callable[[], str] = lambda: ""
    vocab_size: int | None = None
    all_special_ids: frozenset[int] = frozenset()
    truncates_left: bool = False
    note: str = ""
    reading_note: str = ""
    find_head: Callable[[], Head | None] = lambda: None
    step: Step | None = None
    parts: Parts = lambda step, ids: [ids]
    chat: Chat | None = None
    after: Callable[[Tensor], Model] | None = None
    cross: Model | None = None
    source: Tensor | None = None
    prefix_ids: list[int] = field(init=False)
    suffix_ids: list[int] = field(init=False)

    def __post_init__(self) -> None:
        encoding = example_encoding(self.tokenizer)
        mask = encoding.special_tokens_mask
        object.__setattr__(self, "prefix_ids", encoding.ids[: mask.index(0)])
        object.__setattr__(self, "suffix_ids", encoding.ids[len(mask) - mask[::-1].index(0) :])

    @functools.cached_property
    def unprocessed(self) -> Tokenizer:
        """The tokenizer without its post-processor, where that one would change the spans of tokens."""
        processor = self.tokenizer.post_processor
        if processor is None or b'"trim_offsets":true' not in processor.__getstate__():
            return self.tokenizer
        bare = copy.deepcopy(self.tokenizer)
        bare.post_processor = None
        return bare

    @functools.cached_property
    def surroundings(self) -> Sequence[Surroundings]:
        """For each layer, the modules around its attention, as far as they are known."""
        ids = self.tokenizer.encode("the cat sat").ids
        known = self.blocks and ids
        if not known:
            return [Surroundings()] * self.layers
        return find_surroundings(self.forward, self.blocks, ids, self.source)

    @functools.cached_property
    def final_norm(self) -> nn.Module | None:
        """The module that makes final states of the last hidden ones; None where there is none, or no single one."""
        return find_final_norm(self.forward, example_encoding(self.tokenizer).ids)

    @functools.cached_property
    def head(self) -> Head | None:
        """What makes logits of its final states; None where it has none. Opened when it is asked for."""
        return self.find_head()

    @functools.cached_property
    def flagged_special_ids(self) -> frozenset[int]:
        """The tokens that the tokenizer flags as special, wherever they come from."""
        return frozenset(id for id, token in self.tokenizer.get_added_tokens_decoder().items() if token.special)

    @functools.cached_property
    def unknown_id(self) -> int | None:
        """The token for text that the vocabulary does not cover; None where it covers all text."""
        tokens = self.tokenizer.model
        name = getattr(tokens, "unk_token", None)
        if name:
            return self.tokenizer.token_to_id(name)
        unknown: int | None = json.loads(tokens.__getstate__()).get("unk_id")
        return unknown


@contextmanager
def report_progress(blocks: Sequence[torch.nn.Module], progress: Callable[[float], object] | None) -> Iterator[None]:
    """Within this context, call `progress` with the share of the layers that this thread has run, after each."""
    if progress is None:
        yield
        return
    report, thread, handles = progress, threading.get_ident(), []

    def reporter(share: float) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if threading.get_ident() == thread:
                report(share)

        return hook

    try:
        for number, block in enumerate(blocks, 1):
            handles.append(block.register_forward_hook(reporter(number / len(blocks))))
        yield
    finally:
        for handle in handles:
            handle.remove()
