"""What a module of a model is, where only its class and its parameters can say."""

from torch import nn


def is_norm(module: nn.Module) -> bool:
    """Whether it is a norm: LayerNorm, T5LayerNorm, LlamaRMSNorm, …"""
    return isinstance(module, nn.LayerNorm) or "norm" in type(module).__name__.lower()


def is_linear(module: nn.Module) -> bool:
    """Whether it has a matrix and is no norm: Linear, Conv1D, and what wraps them."""
    return getattr(getattr(module, "weight", None), "ndim", 0) == 2 and not is_norm(module)
