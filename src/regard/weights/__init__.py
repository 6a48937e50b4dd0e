"""The (B,H,Q,K) weights that are never stored: what they are, their reductions, and the gradients of these."""

from regard.weights.arguments import statistic
from regard.weights.weights import DENSE_LIMIT, Top, Weights

__all__ = ["DENSE_LIMIT", "Top", "Weights", "statistic"]
