"""Whole models: encoder, decoder, the Transformer of "Attention Is All You Need", and heads on an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regard._internal.deprecated import renamed_arguments
from regard.attention import Attention
from regard.nn import checkpoint
from regard.nn.embeddings import Embeddings, SinusoidalEmbeddings
from regard.nn.layers import ACTIVATIONS, DecoderLayer, EncoderLayer
from regard.nn.shapes import Ids, Lengths, Logits, Memory, Past, Source, Vectors


class LayerStack(nn.Module):
    """Embeddings (any module from ids to vectors) and a stack of layers; with pre_norm, a final norm after them."""

    layer: Any

    def __init__(self, embeddings: Any, layers: int, *, dim: int, final_norm: bool | None = None, **layer: Any) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.layers: Any = nn.ModuleList(self.layer(dim, **layer) for _ in range(layers))
        has_norm = layer.get("pre_norm", False) if final_norm is None else final_norm
        self.norm = nn.LayerNorm(dim, layer.get("epsilon", 1e-5)) if has_norm else nn.Identity()


@renamed_arguments(inner="d_ff")
class Encoder(LayerStack):
    """Embeddings and layers: token ids (B,N) → the L + 1 hidden states (B,N,dim) and the L attentions.

    `types` (B,N) are token types, for `Embeddings` that have learned them. `layer` are the keyword arguments of
    `EncoderLayer`.

    >>> encoder = Encoder(Embeddings(vocab_size=11, dim=6, positions=5), layers=2, dim=6, heads=3, d_ff=8)
    >>> hidden, attentions = encoder(torch.tensor([[1, 2, 3]]))
    >>> len(hidden), hidden[-1].shape, attentions[0].weights.shape
    (3, torch.Size([1, 3, 6]), torch.Size([1, 3, 3, 3]))
    """

    layer = EncoderLayer

    def forward(
        self, ids: Ids, lengths: Lengths = None, types: Ids | None = None
    ) -> tuple[list[Vectors], list[Attention]]:
        hidden, attentions = [self.embeddings(ids) if types is None else self.embeddings(ids, types=types)], []
        for layer in self.layers:
            x, attended = layer(hidden[-1], lengths=lengths)
            hidden.append(x)
            attentions.append(attended)
        hidden[-1] = self.norm(hidden[-1])
        return hidden, attentions

    @classmethod
    def from_pretrained(cls, model: str | Path) -> Encoder:
        """Load BERT, RoBERTa, DistilBERT, MiniLM and the like, in evaluation mode.

        Args:
            model: a folder, or a name on the Hugging Face hub.

        Raises:
            ValueError: it is another architecture, or its files are damaged; the message names what does not fit.
            OSError: there is no such model, or it cannot be fetched.

        >>> import torch, regard.nn
        >>> from regard.models import embedded_folder
        >>> encoder = regard.nn.Encoder.from_pretrained(embedded_folder())
        >>> hidden, attentions = encoder(torch.tensor([[101, 2051, 10029, 102]]))        # [CLS] time flies [SEP]
        >>> len(attentions), attentions[5].weights.shape
        (6, torch.Size([1, 12, 4, 4]))
        """
        folder = checkpoint.fetch(model)
        sizes = checkpoint.sizes(folder, ACTIVATIONS)
        with torch.device("meta"), checkpoint.NoInitialisation():  # shapes only: the numbers come from the file
            tables = {name: sizes.pop(name) for name in ("vocab_size", "positions", "types", "padding_idx")}
            encoder = cls(Embeddings(dim=sizes["dim"], epsilon=sizes["epsilon"], **tables), **sizes)
        encoder.load_state_dict(checkpoint.tensors(folder, encoder.state_dict()), assign=True)
        return encoder.eval()


@renamed_arguments(inner="d_ff")
class Decoder(LayerStack):
    """Embeddings and causal layers: ids (B,N) → hidden states, attentions, past.

    The past is the key-value cache of each layer, from `begin(memory)` at first. A whole text at once and one token at
    a time give the same result. `layer` are the keyword arguments of `DecoderLayer`.

    >>> import torch, regard.nn
    >>> embeddings = regard.nn.SinusoidalEmbeddings(vocab_size=11, dim=8)
    >>> decoder = regard.nn.Decoder(embeddings, layers=2, dim=8, heads=2, d_ff=32)
    >>> past = decoder.begin(torch.randn(1, 7, 8))                # a source of seven tokens
    >>> hidden, attentions, past = decoder(torch.tensor([[3, 1, 4]]), past)
    >>> attended, crossed = attentions[-1]
    >>> attended.weights.shape, crossed.weights.shape
    (torch.Size([1, 2, 3, 3]), torch.Size([1, 2, 3, 7]))
    """

    layer = DecoderLayer

    def begin(self, memory: Memory) -> list[Past]:
        """The caches before the first token.

        >>> import torch, regard.nn
        >>> embeddings = regard.nn.SinusoidalEmbeddings(vocab_size=11, dim=8)
        >>> decoder = regard.nn.Decoder(embeddings, layers=2, dim=8, heads=2, d_ff=32)
        >>> len(decoder.begin(torch.randn(1, 7, 8)))                  # a cache for each layer
        2
        """
        return [layer.begin(memory) for layer in self.layers]

    def forward(
        self, ids: Ids, past: list[Past], lengths: Lengths = None
    ) -> tuple[list[Vectors], list[tuple[Attention, Attention]], list[Past]]:
        hidden, attentions, later = [self.embeddings(ids, past[0][0].shape[2])], [], []
        for layer, known in zip(self.layers, past, strict=True):
            x, attended, known = layer(hidden[-1], known, lengths)
            hidden.append(x)
            attentions.append(attended)
            later.append(known)
        hidden[-1] = self.norm(hidden[-1])
        return hidden, attentions, later


@renamed_arguments(vocabulary="vocab_size", inner="d_ff")
class Transformer(nn.Module):
    """Encoder and decoder: source ids (B,M) and target ids (B,N) → logits (B,N,V), alignments.

    The alignments are the attentions (B,H,N,M) of each layer to the source. The default sizes are those of the base
    model of Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; source, target and output share one embedding table.
    `layer` are the keyword arguments of `DecoderLayer`.

    >>> import torch, regard.nn
    >>> model = regard.nn.Transformer(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32)
    >>> logits, alignments = model(torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[2, 7]]))
    >>> logits.shape, alignments[-1].weights.shape
    (torch.Size([1, 2, 11]), torch.Size([1, 2, 2, 5]))
    """

    def __init__(self, vocab_size: int, layers: int = 6, *, dim: int = 512, dropout: float = 0.1, **layer: Any) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"heads": 8, "d_ff": 4 * dim, "activation": "relu", "dropout": dropout} | layer
        embeddings = SinusoidalEmbeddings(vocab_size, dim, dropout=dropout)
        self.encoder = Encoder(embeddings, layers, dim=dim, **sizes)
        self.decoder = Decoder(embeddings, layers, dim=dim, **sizes)

    def forward(self, source: Source, target: Ids, lengths: Lengths = None) -> tuple[Logits, list[Attention]]:
        memory = self.encoder(source, lengths)[0][-1]
        hidden, attentions, _ = self.decoder(target, self.decoder.begin(memory), lengths)
        return hidden[-1] @ self.decoder.embeddings.tokens.weight.T, [crossed for _, crossed in attentions]

    def begin(self, source: Source, lengths: Lengths = None) -> list[Tensor]:
        """The state from which `step` generates the first token; the first dimension of each tensor is the batch.

        >>> import torch, regard.nn
        >>> model = regard.nn.Transformer(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32).eval()
        >>> state = model.begin(torch.tensor([[3, 1, 4, 1, 5]]))
        >>> logits, state = model.step(torch.tensor([2]), state)
        >>> logits.shape
        torch.Size([1, 11])
        """
        lengths = torch.full_like(source[:, 0], source.shape[1]) if lengths is None else lengths
        past = self.decoder.begin(self.encoder(source, lengths)[0][-1])
        return [lengths, *(tensor for known in past for tensor in known)]

    def step(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The logits (B,V) of the token after these tokens (B,), and the state after them.

        >>> import torch, regard.nn
        >>> model = regard.nn.Transformer(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32).eval()
        >>> source, target = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[2, 7]])
        >>> first, state = model.step(target[:, 0], model.begin(source))
        >>> second, state = model.step(target[:, 1], state)
        >>> torch.allclose(model(source, target)[0], torch.stack((first, second), 1), atol=1e-5)
        True
        """
        lengths, *flat = state
        past = [(flat[n], flat[n + 1], flat[n + 2], flat[n + 3]) for n in range(0, len(flat), 4)]
        hidden, _, past = self.decoder(tokens[:, None], past, lengths)
        logits = hidden[-1][:, -1] @ self.decoder.embeddings.tokens.weight.T
        return logits, [lengths, *(tensor for known in past for tensor in known)]


class SequenceClassifier(nn.Module):
    """Classifies a text by the last hidden state of its first token: ids (B,N) → logits (B,classes).

    >>> import torch, regard.nn
    >>> embeddings = regard.nn.Embeddings(vocab_size=11, dim=8, positions=5)
    >>> encoder = regard.nn.Encoder(embeddings, layers=2, dim=8, heads=2, d_ff=32)
    >>> regard.nn.SequenceClassifier(encoder, dim=8, classes=3)(torch.tensor([[3, 1, 4]])).shape
    torch.Size([1, 3])
    """

    def __init__(self, encoder: Encoder, dim: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.dropout, self.output = encoder, nn.Dropout(dropout), nn.Linear(dim, classes)

    def forward(self, ids: Ids, lengths: Lengths = None) -> Tensor:
        first = self.encoder(ids, lengths)[0][-1][:, 0]
        logits: Tensor = self.output(self.dropout(first))
        return logits


class MaskedLanguageModel(nn.Module):
    """Predicts the tokens at the positions where `at` (B,N) is True: ids (B,N) → logits (number of positions, V).

    norm(gelu(x W + b)) Eᵀ + c, with E the encoder's embedding table. Devlin et al. 2019, section 3.1.

    >>> import torch, regard.nn
    >>> embeddings = regard.nn.Embeddings(vocab_size=11, dim=8, positions=5)
    >>> encoder = regard.nn.Encoder(embeddings, layers=2, dim=8, heads=2, d_ff=32)
    >>> ids = torch.tensor([[3, 1, 4]])
    >>> regard.nn.MaskedLanguageModel(encoder, dim=8)(ids, at=ids == 1).shape        # one position, eleven tokens
    torch.Size([1, 11])
    """

    def __init__(self, encoder: Encoder, dim: int, epsilon: float = 1e-12) -> None:
        super().__init__()
        self.encoder, self.dense, self.norm = encoder, nn.Linear(dim, dim), nn.LayerNorm(dim, epsilon)
        self.bias = nn.Parameter(torch.zeros(encoder.embeddings.tokens.num_embeddings))

    def forward(self, ids: Ids, at: Tensor, lengths: Lengths = None) -> Tensor:
        x = self.norm(nn.functional.gelu(self.dense(self.encoder(ids, lengths)[0][-1][at])))
        return nn.functional.linear(x, self.encoder.embeddings.tokens.weight, self.bias)
