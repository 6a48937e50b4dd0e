"""`Sample`: the tokens of which heads are measured, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from regard.lens.reading import Reading
    from regard.lens.units import Token

Text = Literal["text", "repeated", "needle"]


@dataclass(frozen=True, eq=False)
class Sample:
    """What was read, as far as scores of heads need to know it. Q queries; K keys, the same tokens in self-attention.

    Attributes:
        text: "text" that means something; random tokens, "repeated"; or a text with a "needle", and an answer from it.
        rows: (Q,), the queries that count: of a text, its tokens without the special ones; of repeated tokens, those
            that have occurred before.
        ids, key_ids: (Q,) and (K,), a number for each token that tells different tokens apart.
        special, punctuation: (K,), which keys are special tokens, such as [SEP], and which are punctuation.
        same_text: whether queries and keys are the same tokens, as in self-attention.
        period: after how many tokens repeated ones come again; 0 for others.
        first: the place of the first repeated token.
        answer: (n,2), for each token of a needle's answer the query that predicts it, and its place in the needle.
        directions: (t,dim), the directions of the logits of the tokens `direction_of`, in the residual stream; None
            where the model has no head that is linear.
        direction_of: (Q,), for each query's token the row of `directions`; −1 without one.

    >>> import torch
    >>> none = torch.zeros(8, dtype=torch.bool)
    >>> ids, again = torch.tensor([5, 1, 7, 4, 5, 1, 7, 4]), torch.arange(8) >= 4       # four tokens, twice
    >>> sample = Sample("repeated", again, ids, ids, special=none, punctuation=none, period=4)
    >>> sample.kind, sample.period, sample.rows.sum()
    ('self', 4, tensor(4))
    """

    text: Text
    rows: Bool[Tensor, "Q"]
    ids: Int[Tensor, "Q"] = field(repr=False)
    key_ids: Int[Tensor, "K"] = field(repr=False)
    special: Bool[Tensor, "K"] = field(repr=False)
    punctuation: Bool[Tensor, "K"] = field(repr=False)
    same_text: bool = True
    period: int = 0
    first: int = 0
    answer: Int[Tensor, "n 2"] | None = field(default=None, repr=False)
    directions: Float[Tensor, "t dim"] | None = field(default=None, repr=False)
    direction_of: Int[Tensor, "Q"] | None = field(default=None, repr=False)

    @property
    def kind(self) -> Literal["self", "cross"]:
        """Whether the attention that reads it is self-attention or cross-attention."""
        return "self" if self.same_text else "cross"

    def mean(self, numbers: Float[Tensor, "H Q"], rows: Bool[Tensor, "Q"] | None = None) -> Float[Tensor, "H"]:
        """The mean of a number a query over `rows`, or over some of them; 0 where there are none.

        >>> import regard
        >>> sample = sample_of(regard.Lens().read("Time flies"))          # two tokens between [CLS] and [SEP]
        >>> sample.mean(torch.tensor([[9.0, 1.0, 2.0, 9.0]]))
        tensor([1.5000], dtype=torch.float64)
        """
        rows = self.rows if rows is None else rows
        return numbers[..., rows.to(numbers.device)].double().sum(-1) / rows.sum().clamp(min=1).to(numbers.device)


def sample_of(reading: Reading) -> Sample:
    """A reading of a text that means something, as a sample: every token of the text counts, special ones do not.

    >>> import regard
    >>> sample = sample_of(regard.Lens().read("Time flies like an arrow."))
    >>> sample.rows.sum(), sample.special.sum(), sample.punctuation.sum()   # six tokens, [CLS] and [SEP], a full stop
    (tensor(6), tensor(2), tensor(1))
    """
    numbers = dict[str, int]()
    rows, keys = reading.tokens, reading.columns.tokens
    return Sample(
        "text",
        torch.tensor([not token.special for token in rows]),
        _numbered(rows, numbers),
        _numbered(keys, numbers),
        torch.tensor([token.special for token in keys]),
        torch.tensor([not token.special and not any(map(str.isalnum, token.text)) for token in keys]),
        same_text=reading.source is None,
    )


def _numbered(tokens: Sequence[Token], numbers: dict[str, int]) -> Int[Tensor, "n"]:
    """A number for each token by its text, regardless of case."""
    return torch.tensor([numbers.setdefault(token.text.casefold(), len(numbers)) for token in tokens])
