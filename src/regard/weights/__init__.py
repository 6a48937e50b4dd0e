"""The (B,H,Q,K) matrices that are never stored: maps and weights, their reductions, and the gradients of these."""

from regard.weights.arguments import statistic
from regard.weights.map import DENSE_LIMIT, Map, Top
from regard.weights.weights import Weights

__all__ = ["DENSE_LIMIT", "Map", "Top", "Weights", "statistic"]
