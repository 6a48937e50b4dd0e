"""Who computes attention: the native kernel, PyTorch, or the reference. registry.py has the one list of them."""

from regard.backends.operator import attend_differentiably, run
from regard.backends.registry import BACKENDS, availability, choose, description, reductions

__all__ = ["BACKENDS", "attend_differentiably", "availability", "choose", "description", "reductions", "run"]
