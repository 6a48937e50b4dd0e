"""Self-attention you can look inside."""

from regard.attention import Attention, attention
from regard.weights import Weights

__all__ = ["Attention", "Weights", "attention"]
