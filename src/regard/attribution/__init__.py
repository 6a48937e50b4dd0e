"""What an attention weight does not say: what was taken from a token, and whether it mattered. One file a method."""

from regard.attribution.gradient import gradient, relevance
from regard.attribution.knockout import Knockout, knockout, knockouts
from regard.attribution.logits import logits
from regard.attribution.similarity import similarity
from regard.attribution.target import Target, default_target, parse_target

__all__ = [
    "Knockout",
    "Target",
    "default_target",
    "gradient",
    "knockout",
    "knockouts",
    "logits",
    "parse_target",
    "relevance",
    "similarity",
]
