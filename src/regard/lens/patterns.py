"""Attention patterns: the positions and the kinds of token to which a head attends, whatever the text means.

What Clark et al. 2019 (https://arxiv.org/abs/1906.04341) found in BERT: heads for the previous token, for the next, for
[SEP], for punctuation. `pattern_shares` measures them for the pictures of all heads; a head is named after a pattern
that gets half of its weight (`NAMED_FROM`). `strict_pattern` is for a single head: every token of the text must give a
position more than nine tenths (`STRICT_FROM`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens.reading import Reading

PATTERNS = {
    "previous": "the previous token",
    "next": "the next token",
    "itself": "the token itself",
    "first": "the first token",
    "last": "the last token",
    "same": "the same token elsewhere",
    "punctuation": "punctuation",
}
POSITIONS = ("previous", "next", "itself", "first", "last")  # the patterns that depend on positions alone
NAMED_FROM = 0.5  # of a head's weight, on average
STRICT_FROM = 0.9  # of the weight of every token
ROWS, WEIGHTS = 256, 1 << 22  # the most tokens and weights of a head that are sampled


def pattern_shares(reading: Reading, layer: int) -> Float[Tensor, "H patterns"]:
    """The share of its weight that each head of a layer gives to each of `PATTERNS`: the mean over the text's tokens.

    Of a long text, the mean over tokens at even distances; 0 for a text of special tokens alone.
    """
    return torch.stack([head_pattern_shares(reading, layer, head) for head in range(reading.heads_of(layer))])


def head_pattern_shares(reading: Reading, layer: int, head: int) -> Float[Tensor, "patterns"]:
    """The same for one head."""
    rows = _sampled_rows(reading)
    shares = torch.zeros(len(PATTERNS))
    if not len(rows):
        return shares
    weights = reading.attention[layer].weights[head, rows].float().cpu()  # (rows,N)
    count = weights.shape[1]
    for n, (key, exists) in enumerate(_positions(rows, count, reading.source is None).values()):
        shares[n] = weights.gather(1, key.clamp(0, count - 1)[:, None])[exists].sum()
    same, punctuation = _kinds(reading, rows)
    shares[5], shares[6] = (weights * same).sum(), (weights * punctuation).sum()
    return shares / len(rows)


def is_positional(reading: Reading, layer: int, head: int) -> bool:
    """Whether a head is named after a position, in a text that has enough tokens to tell."""
    if sum(not token.special for token in reading.tokens) <= 2:
        return False
    shares = head_pattern_shares(reading, layer, head)[: len(POSITIONS)]
    return bool((shares >= NAMED_FROM).any())


def strict_pattern(reading: Reading, layer: int, head: int) -> str | None:
    """The position to which every token of the text gives more than `STRICT_FROM` of its weight; None without one.

    At least three tokens must have such a position besides themselves.
    """
    largest = reading.attention[layer].weights.max()
    weights, keys = largest.values[head].cpu(), largest.indices[head].cpu()
    here, count = torch.arange(len(keys)), len(reading.columns.tokens)
    of_text = torch.tensor([not token.special for token in reading.tokens])
    for name, (key, exists) in _positions(here, count, reading.source is None).items():
        apart = exists if name == "itself" or reading.source is not None else exists & (key != here)
        rows = of_text & apart
        if rows.sum() >= 3 and bool(((keys == key) & (weights > STRICT_FROM))[rows].all()):
            return name
    return None


def _positions(rows: Tensor, count: int, same_text: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """For each of `POSITIONS` the key of every row, and whether there is one; beside it only in the same text."""
    keys = {
        "previous": rows - 1,
        "next": rows + 1,
        "itself": rows,
        "first": torch.zeros_like(rows),
        "last": torch.full_like(rows, count - 1),
    }
    beside = ("previous", "next", "itself")
    return {name: (key, (key >= 0) & (key < count) & (same_text or name not in beside)) for name, key in keys.items()}


def _sampled_rows(reading: Reading) -> Tensor:
    """The tokens of the text, or a sample at even distances."""
    of_text = torch.tensor([n for n, token in enumerate(reading.tokens) if not token.special], dtype=torch.long)
    limit = max(16, min(ROWS, WEIGHTS // len(reading.tokens)))
    return of_text[torch.linspace(0, len(of_text) - 1, min(limit, len(of_text))).long()]


def _kinds(reading: Reading, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Which keys are another occurrence of the row's token, and which are punctuation elsewhere, (rows,N)."""
    keys, numbers = reading.columns.tokens, dict[str, int]()
    of_rows, of_keys = (
        torch.tensor([numbers.setdefault(token.text.casefold(), len(numbers)) for token in tokens])
        for tokens in (reading.tokens, keys)
    )
    punctuation = torch.tensor([not token.special and not any(map(str.isalnum, token.text)) for token in keys])
    elsewhere = (torch.arange(len(keys)) != rows[:, None]) | (reading.source is not None)
    return (of_keys == of_rows[rows][:, None]) & elsewhere, punctuation & elsewhere
