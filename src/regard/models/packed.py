"""BERT's family for many texts at once: their tokens lie one after the other, and nothing is padded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from regard import backends
from regard.mask import Mask, make_mask
from regard.models.linear import Linear
from regard.nn import Encoder
from regard.nn.layers import ACTIVATIONS, EncoderLayer
from regard.scores import Scores

TOKENS_AT_ONCE = 2048  # what a layer makes of them stays in the processor's last cache


class PackedEncoder:
    """The hidden states that an `Encoder` computes, for texts of any lengths side by side, and for inference alone.

    What comes of a text does not depend, to the bit, on those that it lies beside (with the native kernel).

    >>> from regard.nn import Embeddings
    >>> encoder = Encoder(Embeddings(vocabulary=11, dim=6, positions=5), layers=2, dim=6, heads=3, inner=8).eval()
    >>> packed = PackedEncoder(encoder)
    >>> hidden = packed([[1, 2, 3], [4, 5]], layers=[0, 2])
    >>> hidden[2].shape                                            # of all five tokens, after the second layer
    torch.Size([5, 6])
    >>> torch.allclose(hidden[2][3:], encoder(torch.tensor([[4, 5]]))[0][2][0], atol=1e-6)
    True
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype = torch.float32) -> None:
        embeddings = encoder.embeddings
        self.places, types = embeddings.places, embeddings.types
        positions = embeddings.positions.weight.detach()
        self.tokens = embeddings.tokens.weight.detach()
        self.positions = positions if types is None else positions + types.weight.detach()[0]
        self.norm, self.dtype = embeddings.norm, dtype
        self.layers = [_Layer(layer, dtype) for layer in encoder.layers]

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Sequence[int]], layers: Collection[int]) -> dict[int, Tensor]:
        """{layer: its hidden states (all tokens,dim)}, of the ids of some texts. 0 are the static ones."""
        sizes = torch.tensor([len(ids) for ids in texts])
        ends = sizes.cumsum(0)
        count = int(ends[-1])
        segments = F.pad(ends, (1, 0)).int() if len(texts) > 1 else None
        mask = make_mask((1, 1, count, count), sizes.device, segments=segments)  # once for all layers
        ids = [torch.tensor(text) for text in texts]
        x = self.tokens[torch.cat(ids)] + self.positions[torch.cat([self.places(text) for text in ids])]
        x = self.norm(x).to(self.dtype)
        found = {0: x}
        for n, layer in enumerate(self.layers[: max(layers)], 1):
            x = layer(x, mask)
            if n in layers:
                found[n] = x
        return {n: found[n] for n in layers}

    def states(
        self, texts: Sequence[Sequence[int]], layers: Collection[int]
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        """The number and the hidden states of each text, some texts at a time."""
        for batch in _batches(texts):
            hidden = self([texts[n] for n in batch], layers)
            sizes = [len(texts[n]) for n in batch]
            parts = {layer: states.split(sizes) for layer, states in hidden.items()}
            for row, n in enumerate(batch):
                yield n, {layer: part[row] for layer, part in parts.items()}


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[range]:
    """Of as many texts, in order, as have TOKENS_AT_ONCE tokens, or one more."""
    first = tokens = 0
    for n, ids in enumerate(texts):
        tokens += len(ids)
        if tokens >= TOKENS_AT_ONCE or n + 1 == len(texts):
            yield range(first, n + 1)
            first, tokens = n + 1, 0


class _Layer:
    def __init__(self, layer: EncoderLayer, dtype: torch.dtype) -> None:
        heads, forward = layer.attention, layer.feed_forward
        self.heads = heads.heads
        self.project = Linear([heads.query, heads.key, heads.value], dtype=dtype)
        self.output = Linear([heads.output], norm=layer.attention_norm, dtype=dtype)
        name = next(name for name, one in ACTIVATIONS.items() if one is forward.activation)
        self.widen = Linear([forward.widen], name, dtype=dtype)
        self.narrow = Linear([forward.narrow], norm=layer.feed_forward_norm, dtype=dtype)

    def __call__(self, x: Tensor, mask: Mask) -> Tensor:
        query, key, value = self.project(x).unflatten(1, (3, 1, self.heads, -1)).permute(1, 2, 3, 0, 4)
        scores = Scores(query, key, mask, query.shape[3] ** -0.5)
        attended, _, _ = backends.run(backends.choose(None, scores, value), scores, value, None)
        x = self.output(attended[0].transpose(0, 1).flatten(1), x)
        return self.narrow(self.widen(x), x)
