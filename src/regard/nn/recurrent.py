"""The attention before Transformers: a recurrent decoder that attends to the states of a recurrent encoder.

Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473; Luong et al. 2015, https://arxiv.org/abs/1508.04025.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regard._internal.deprecated import renamed_arguments
from regard.nn.shapes import Ids, Lengths, Logits, Memory, Source


class BahdanauAttention(nn.Module):
    """Additive: s_j = v·tanh(W query + U m_j), w = softmax(s), context Σ_j w_j m_j.

    query (B,dim), memory m (B,M,dim), its keys U m and lengths (B,) → context (B,dim), weights (B,M). Bahdanau et al.
    2015, https://arxiv.org/abs/1409.0473.

    >>> import torch, regard.nn
    >>> attention, memory = regard.nn.BahdanauAttention(8), torch.randn(1, 5, 8)
    >>> context, weights = attention(torch.randn(1, 8), attention.key(memory), memory, torch.tensor([5]))
    >>> context.shape, weights.shape
    (torch.Size([1, 8]), torch.Size([1, 5]))
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        modules: Any = (nn.Linear(dim, n, bias=False) for n in (dim, dim, 1))
        self.query, self.key, self.energy = modules

    def scores(self, query: Tensor, keys: Memory) -> Tensor:
        """(B,M): how relevant each encoder state is to the decoder's.

        >>> import torch, regard.nn
        >>> attention, memory = regard.nn.BahdanauAttention(8), torch.randn(1, 5, 8)
        >>> attention.scores(torch.randn(1, 8), attention.key(memory)).shape
        torch.Size([1, 5])
        """
        energies: Tensor = self.energy(torch.tanh(self.query(query)[:, None] + keys))
        return energies.squeeze(-1)

    def forward(self, query: Tensor, keys: Tensor, memory: Memory, lengths: Tensor) -> tuple[Tensor, Tensor]:
        unseen = torch.arange(memory.shape[1], device=memory.device) >= lengths[:, None]
        weights = self.scores(query, keys).masked_fill(unseen, -torch.inf).softmax(-1)
        return (weights[:, None] @ memory)[:, 0], weights


class LuongAttention(BahdanauAttention):
    """Multiplicative: s_j = query·m_j ("dot") or query·U m_j ("general"); "concat" is Bahdanau's additive attention.

    Luong et al. 2015, https://arxiv.org/abs/1508.04025.

    >>> import torch, regard.nn
    >>> attention, memory = regard.nn.LuongAttention(2, score="dot"), torch.eye(2)[None]
    >>> context, weights = attention(torch.tensor([[3.0, 0.0]]), memory, memory, torch.tensor([2]))
    >>> weights
    tensor([[0.9526, 0.0474]])
    """

    def __init__(self, dim: int, score: str = "general") -> None:
        super().__init__(dim)
        if score not in ("dot", "general", "concat"):
            raise ValueError(f'LuongAttention: expected a score of "dot", "general" or "concat". Got {score!r}.')
        if score != "concat":
            self.query = self.energy = None
        if score == "dot":
            self.key = nn.Identity()

    def scores(self, query: Tensor, keys: Memory) -> Tensor:
        return (keys @ query[:, :, None])[..., 0] if self.energy is None else super().scores(query, keys)


@renamed_arguments(vocabulary="vocab_size")
class RecurrentTranslator(nn.Module):
    """Recurrent encoder and decoder: source ids (B,M), target ids (B,N) → logits (B,N,V), alignment (B,N,M).

    The encoder reads in both directions. Bahdanau's decoder attends before it updates its state, s' = GRU([word;
    context(s)], s); Luong's after that, s' = GRU([word; h], s), h = tanh(W [context(s'); s']), with the h of the
    previous step fed in. The alignment holds the attention weights of each step. `begin` and `step` are those of
    `Transformer`.

    >>> import torch, regard.nn
    >>> model = regard.nn.RecurrentTranslator(vocab_size=11, dim=8)
    >>> logits, alignment = model(torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[2, 7]]))
    >>> logits.shape, alignment.shape
    (torch.Size([1, 2, 11]), torch.Size([1, 2, 5]))
    """

    def __init__(self, vocab_size: int, *, dim: int = 512, attention: str = "bahdanau", dropout: float = 0.1) -> None:
        super().__init__()
        self.tokens, self.dropout = nn.Embedding(vocab_size, dim), nn.Dropout(dropout)
        self.encoder = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True)
        self.attention = BahdanauAttention(dim) if attention == "bahdanau" else LuongAttention(dim, attention)
        self.attends_first = attention == "bahdanau"
        self.start, self.cell = nn.Linear(dim, dim), nn.GRUCell(2 * dim, dim)
        self.join, self.output = nn.Linear(2 * dim, dim), nn.Linear(dim, vocab_size)

    def forward(self, source: Source, target: Ids, lengths: Lengths = None) -> tuple[Logits, Tensor]:
        state, outputs, alignment = self.begin(source, lengths), [], []
        for words in self.dropout(self.tokens(target)).unbind(1):  # sequential: every step needs the state before it
            joined, weights, state = self._advance(words, state)
            outputs.append(joined)
            alignment.append(weights)
        return self.output(self.dropout(torch.stack(outputs, 1))), torch.stack(alignment, 1)

    def begin(self, source: Source, lengths: Lengths = None) -> list[Tensor]:
        lengths = torch.full_like(source[:, 0], source.shape[1]) if lengths is None else lengths
        words = self.dropout(self.tokens(source))
        packed = nn.utils.rnn.pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        memory, _ = nn.utils.rnn.pad_packed_sequence(self.encoder(packed)[0], True, total_length=source.shape[1])
        first = torch.tanh(self.start(memory.sum(1) / lengths[:, None]))
        return [lengths, memory, self.attention.key(memory), first, torch.zeros_like(first)]

    def step(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        joined, _, state = self._advance(self.tokens(tokens), state)
        return self.output(joined), state

    def _advance(self, words: Tensor, state: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        lengths, memory, keys, hidden, fed = state
        if self.attends_first:
            fed, weights = self.attention(hidden, keys, memory, lengths)
        hidden = self.cell(torch.cat((words, fed), -1), hidden)
        context = fed
        if not self.attends_first:
            context, weights = self.attention(hidden, keys, memory, lengths)
        joined = torch.tanh(self.join(torch.cat((context, hidden), -1)))
        return joined, weights, [lengths, memory, keys, hidden, fed if self.attends_first else joined]
