"""Self-attention you can look inside."""

from regard.attention import Attention, attention
from regard.lens import Embeddings, Lens, Reading, Walk
from regard.weights import Weights

__all__ = ["Attention", "Embeddings", "Lens", "Reading", "Walk", "Weights", "attention"]

__version__ = "0.1.0"
