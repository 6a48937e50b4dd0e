"""The (B,H,Q,K) weights that are never stored: what they are, what can be asked of them, and its gradient."""

from regard.weights.weights import DENSE_LIMIT, Top, Weights, statistic

__all__ = ["DENSE_LIMIT", "Top", "Weights", "statistic"]
