"""What a run learns to predict: two modules, `masked` and `causal`, with the functions of one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Generator, Tensor, nn

from regard.train import causal, masked
from regard.train.options import Options

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Objective(Protocol):
    """The part of a run that differs between an encoder and a decoder."""

    def check(self, options: Options) -> None:
        """Raise ValueError if the options contradict each other."""

    def make_tokenizer(self, sections: Sequence[str], options: Options) -> Tokenizer:
        """A tokenizer for the text to train on, always the same for the same text."""

    def tokenizer_config(self) -> Mapping[str, Any]:
        """What tokenizer_config.json says besides the class and the length."""

    def blocks(self, tokenizer: Tokenizer, sections: Sequence[str], seq_length: int) -> Tensor:
        """(blocks, seq_length): all tokens in order."""

    def make(self, options: Options, vocab_size: int) -> nn.Module:
        """The model before the first step."""

    def examples(self, ids: Tensor, vocab_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """What the model reads of some blocks, and the token that it is to predict at each place; −100 for none."""

    def logits(self, model: nn.Module, inputs: Tensor, at: Tensor) -> Tensor:
        """(places, V): the predictions at the places where the bool tensor `at` is True."""

    def export(self, out: Path, options: Options, model: nn.Module, vocab_size: int) -> None:
        """Write config.json and model.safetensors, as transformers reads them."""


def objective_of(options: Options) -> Objective:
    """The next token for a decoder, masked tokens for an encoder."""
    return causal if options.decoder else masked
