"""The options of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from regard._internal.deprecated import renamed_arguments

# The names of options in checkpoints of the previous release, where they differ from today's.
OLD_NAMES = {
    "vocab_size": "vocabulary",
    "seq_length": "length",
    "batch_size": "batch",
    "learning_rate": "rate",
    "eval_every": "every",
}


@renamed_arguments(**{old: new for new, old in OLD_NAMES.items()})
@dataclass(frozen=True)
class Options:
    """The options of a run: with the same options and text it is the same run, to the bit.

    Args:
        layers, dim, heads: The sizes of the model; dim is the vector size.
        vocab_size: Maximum number of tokens in the vocabulary.
        seq_length: Maximum number of tokens that the model reads at once.
        steps: Maximum number of training steps.
        batch_size: Sequences per step.
        learning_rate: Its peak, after a tenth of the steps.
        eval_every: Steps between evaluations, each with a checkpoint.
        patience: Evaluations without improvement after which the run stops.
        decoder: Whether it is a causal language model, which predicts the next token, and no masked encoder.
        groups: The number of key and value heads of a decoder; None for as many as heads.
    """

    layers: int = 2
    dim: int = 128
    heads: int = 4
    vocab_size: int = 8000
    seq_length: int = 64
    steps: int = 12_000
    batch_size: int = 16
    learning_rate: float = 2e-3
    dropout: float = 0.0
    eval_every: int = 500
    patience: int = 5
    seed: int = 0
    decoder: bool = False
    groups: int | None = None
