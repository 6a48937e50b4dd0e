"""A Transformer encoder of BERT's shape, from scratch, on `regard.attention`.

Devlin et al. 2019, https://arxiv.org/abs/1810.04805; the layer is that of Vaswani et al. 2017,
https://arxiv.org/abs/1706.03762, section 3.1, with the norm after the sum.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regard.attention import Attention, attention

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Embeddings(nn.Module):
    """x_i = norm(token_i + position_i + type_0): what the words are and where they stand; (B,N) → (B,N,dim)."""

    def __init__(self, vocabulary: int, positions: int, types: int, dim: int, epsilon: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, dim)
        self.positions = nn.Embedding(positions, dim)
        self.types = nn.Embedding(types, dim)
        self.norm = nn.LayerNorm(dim, epsilon)

    def forward(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N dim"]:
        if ids.shape[1] > len(self.positions.weight):
            most, got = len(self.positions.weight), ids.shape[1]
            raise ValueError(f"Embeddings: expected {most} positions at most, as the model has learned. Got {got}.")
        here = torch.arange(ids.shape[1], device=ids.device)
        return self.norm(self.tokens(ids) + self.types.weight[0] + self.positions(here))


class MultiHeadAttention(nn.Module):
    """Every head attends with its own query, key and value: concat(attention(x W_q, x W_k, x W_v)) W_o."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"MultiHeadAttention: expected a dim that {heads} heads divide. Got {dim}.")
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self, x: Float[Tensor, "B N dim"], lengths: Int[Tensor, "B"] | None
    ) -> tuple[Float[Tensor, "B N dim"], Attention]:
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, N, D)
            for project in (self.query, self.key, self.value)
        )
        attended = attention(query, key, value, lengths=lengths)
        return self.output(attended.output.transpose(1, 2).flatten(2)), attended


class FeedForward(nn.Module):
    """gelu(x W_1) W_2, each position on its own."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.widen = nn.Linear(dim, inner)
        self.narrow = nn.Linear(inner, dim)

    def forward(self, x: Float[Tensor, "B N dim"]) -> Float[Tensor, "B N dim"]:
        return self.narrow(nn.functional.gelu(self.widen(x)))


class EncoderLayer(nn.Module):
    """x ← norm(x + attention(x)), then x ← norm(x + feed_forward(x))."""

    def __init__(self, dim: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads)
        self.attention_norm = nn.LayerNorm(dim, epsilon)
        self.feed_forward = FeedForward(dim, inner)
        self.feed_forward_norm = nn.LayerNorm(dim, epsilon)

    def forward(
        self, x: Float[Tensor, "B N dim"], lengths: Int[Tensor, "B"] | None
    ) -> tuple[Float[Tensor, "B N dim"], Attention]:
        attended, weights = self.attention(x, lengths)
        x = self.attention_norm(x + attended)
        return self.feed_forward_norm(x + self.feed_forward(x)), weights


class Encoder(nn.Module):
    """Embeddings and layers: token ids (B,N) → the L + 1 hidden states (B,N,dim) and the L attentions.

    >>> encoder = Encoder(vocabulary=11, dim=6, layers=2, heads=3, inner=8, positions=5)
    >>> hidden, attentions = encoder(torch.tensor([[1, 2, 3]]))
    >>> len(hidden), hidden[-1].shape, attentions[0].weights.shape
    (3, torch.Size([1, 3, 6]), torch.Size([1, 3, 3, 3]))
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        dim: int,
        layers: int,
        heads: int,
        inner: int,
        positions: int,
        types: int = 2,
        epsilon: float = 1e-12,
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocabulary, positions, types, dim, epsilon)
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, inner, epsilon) for _ in range(layers))

    def forward(
        self, ids: Int[Tensor, "B N"], lengths: Int[Tensor, "B"] | None = None
    ) -> tuple[list[Float[Tensor, "B N dim"]], list[Attention]]:
        hidden, attentions = [self.embeddings(ids)], []
        for layer in self.layers:
            x, attended = layer(hidden[-1], lengths)
            hidden.append(x)
            attentions.append(attended)
        return hidden, attentions

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Encoder:
        """The encoder in a folder with BERT's config.json and model.safetensors, in evaluation mode.

        Raises ValueError where the folder holds another architecture, or less than it says, naming what does not fit.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        call = f"Encoder.from_pretrained({str(folder)!r})"
        if reason := cls.why_not(folder):
            raise ValueError(f"{call}: {reason}")
        config = _config(folder)
        with torch.device("meta"), _NoInitialisation():  # shapes alone: the numbers come from the file
            encoder = cls(**{ours: config[theirs] for ours, theirs in _SIZES.items()})
        try:
            file = load_file(folder / "model.safetensors")
        except SafetensorError as error:
            raise ValueError(f"{call}: model.safetensors is damaged: {error}.") from None
        wanted = encoder.state_dict()
        tensors = {our_name(name): tensor.float() for name, tensor in file.items() if our_name(name) in wanted}
        if missing := sorted(wanted.keys() - tensors.keys()):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(f"{call}: model.safetensors lacks {missing[0]}{more}.")
        for name, tensor in wanted.items():
            if tensor.shape != tensors[name].shape:
                expected, got = tuple(tensor.shape), tuple(tensors[name].shape)
                raise ValueError(f"{call}: {name}: expected {expected}, by config.json. Got {got}.")
        encoder.load_state_dict(tensors, assign=True)
        return encoder.eval()

    @staticmethod
    def why_not(folder: str | Path) -> str | None:
        """Why `Encoder` does not compute what the model in a folder does; None if it does.

        Raises OSError or ValueError where there is no config.json that can be read.
        """
        config = _config(Path(folder))
        expected = {  # (expected, where the config says nothing)
            "model_type": ("bert", None),
            "hidden_act": ("gelu", None),
            "position_embedding_type": ("absolute", "absolute"),
            "is_decoder": (False, False),
        }
        for name, (value, default) in expected.items():
            if config.get(name, default) != value:
                return f"{name}: expected {value!r}. Got {config.get(name, default)!r}."
        missing = [name for name in _SIZES.values() if name not in config]
        return f"config.json lacks {', '.join(missing)}." if missing else None


_SIZES = {
    "vocabulary": "vocab_size",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "inner": "intermediate_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "epsilon": "layer_norm_eps",
}


def _config(folder: Path) -> dict:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}.") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file} is damaged: expected an object. Got {type(config).__name__}.")
    return config


class _NoInitialisation(TorchFunctionMode):
    """Leaves out torch.nn.init, which on the meta device would import the compiler, and take a second."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


_NAMES = (  # (in BERT checkpoints, here)
    (r"^bert\.", ""),
    (r"^embeddings\.word_embeddings", "embeddings.tokens"),
    (r"^embeddings\.position_embeddings", "embeddings.positions"),
    (r"^embeddings\.token_type_embeddings", "embeddings.types"),
    (r"^embeddings\.LayerNorm", "embeddings.norm"),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.self\.", ".attention."),
    (r"\.attention\.output\.dense", ".attention.output"),
    (r"\.attention\.output\.LayerNorm", ".attention_norm"),
    (r"\.intermediate\.dense", ".feed_forward.widen"),
    (r"(layers\.\d+)\.output\.dense", r"\1.feed_forward.narrow"),
    (r"(layers\.\d+)\.output\.LayerNorm", r"\1.feed_forward_norm"),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)


def our_name(name: str) -> str:
    """The name that `Encoder` gives to a tensor of a BERT checkpoint.

    >>> our_name("bert.encoder.layer.3.attention.output.dense.weight")
    'layers.3.attention.output.weight'
    """
    for pattern, ours in _NAMES:
        name = re.sub(pattern, ours, name)
    return name
