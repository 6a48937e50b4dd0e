"""Who computes attention: the native kernel, PyTorch, or the reference. registry.py has the one list of them."""

from regard.backends.operator import run
from regard.backends.registry import BACKENDS, availability, choose, description, reductions

__all__ = ["BACKENDS", "availability", "choose", "description", "reductions", "run"]
