"""BERT's family for many texts at once: their tokens are packed one after the other, and nothing is padded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from regard import backends
from regard.mask import Mask, make_mask
from regard.models.linear import Linear
from regard.models.quantized import QuantizedLinear
from regard.nn import Encoder
from regard.nn.layers import ACTIVATIONS, EncoderLayer
from regard.scores import Scores

TOKENS_AT_ONCE = 2048  # so many that a layer's activations stay in the processor's last-level cache


class PackedEncoder:
    """The hidden states of an `Encoder`, for texts of any lengths packed side by side; for inference only.

    With the native kernel the result for a text does not depend, to the bit, on the texts beside it. With the dtype
    `torch.int8` the linear layers are `QuantizedLinear`, and all else is computed in float32.

    >>> from regard.nn import Embeddings
    >>> encoder = Encoder(Embeddings(vocab_size=11, dim=6, positions=5), layers=2, dim=6, heads=3, d_ff=8).eval()
    >>> packed = PackedEncoder(encoder)
    >>> hidden = packed([[1, 2, 3], [4, 5]], layers=[0, 2])
    >>> hidden[2].shape                                            # of all five tokens, after the second layer
    torch.Size([5, 6])
    >>> torch.allclose(hidden[2][3:], encoder(torch.tensor([[4, 5]]))[0][2][0], atol=1e-6)
    True
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype = torch.float32) -> None:
        embeddings = encoder.embeddings
        self.position_ids, types = embeddings.position_ids, embeddings.types
        positions = embeddings.positions.weight.detach()
        self.tokens = embeddings.tokens.weight.detach()
        self.positions = positions if types is None else positions + types.weight.detach()[0]
        self.norm, self.dtype = embeddings.norm, torch.float32 if dtype == torch.int8 else dtype
        self.layers = [_Layer(layer, dtype) for layer in encoder.layers]

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Sequence[int]], layers: Collection[int]) -> dict[int, Tensor]:
        """{layer: its hidden states (all tokens,dim)} of texts as lists of ids. Layer 0 are the static embeddings."""
        lengths = torch.tensor([len(text) for text in texts])
        ends = lengths.cumsum(0)
        count = int(ends[-1])
        segments = F.pad(ends, (1, 0)).int() if len(texts) > 1 else None
        mask = make_mask((1, 1, count, count), lengths.device, segments=segments)  # shared by all layers
        ids = [torch.tensor(text) for text in texts]
        x = self.tokens[torch.cat(ids)] + self.positions[torch.cat([self.position_ids(text) for text in ids])]
        x = self.norm(x).to(self.dtype)
        hidden = {0: x}
        for number, layer in enumerate(self.layers[: max(layers)], 1):
            x = layer(x, mask)
            if number in layers:
                hidden[number] = x
        return {number: hidden[number] for number in layers}

    def states(
        self, texts: Sequence[Sequence[int]], layers: Collection[int]
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        """The number and the hidden states of each text, a batch of consecutive texts at a time."""
        for batch in _batches(texts):
            hidden = self([texts[number] for number in batch], layers)
            lengths = [len(texts[number]) for number in batch]
            by_text = {layer: torch.split(states, lengths) for layer, states in hidden.items()}
            for row, number in enumerate(batch):
                yield number, {layer: states[row] for layer, states in by_text.items()}


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[range]:
    """Ranges of consecutive texts, each up to the text with which it reaches TOKENS_AT_ONCE tokens."""
    start = tokens = 0
    for number, ids in enumerate(texts):
        tokens += len(ids)
        if tokens >= TOKENS_AT_ONCE or number + 1 == len(texts):
            yield range(start, number + 1)
            start, tokens = number + 1, 0


class _Layer:
    def __init__(self, layer: EncoderLayer, dtype: torch.dtype) -> None:
        attention, feed_forward = layer.attention, layer.feed_forward
        self.heads = attention.heads
        linear = QuantizedLinear if dtype == torch.int8 else partial(Linear, dtype=dtype)
        self.project = linear([attention.query, attention.key, attention.value])
        self.output = linear([attention.output], norm=layer.attention_norm)
        name = next(name for name, module in ACTIVATIONS.items() if module is feed_forward.activation)
        self.fc1 = linear([feed_forward.fc1], name)
        self.fc2 = linear([feed_forward.fc2], norm=layer.feed_forward_norm)

    def __call__(self, x: Tensor, mask: Mask) -> Tensor:
        query, key, value = torch.unflatten(self.project(x), 1, (3, 1, self.heads, -1)).permute(1, 2, 3, 0, 4)
        scores = Scores(query, key, mask, query.shape[3] ** -0.5)
        attended, _, _ = backends.run(backends.choose(None, scores, value), scores, value, None)
        x = self.output(attended[0].transpose(0, 1).flatten(1), x)
        return self.fc2(self.fc1(x), x)
