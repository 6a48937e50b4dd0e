"""What an attention weight does not say: what was taken from a token, and whether it mattered. One file a method."""

from regard.attribution.agreement import Agreement, agreement
from regard.attribution.gradient import gradient, relevance
from regard.attribution.knockout import Knockout, knockout, knockouts
from regard.attribution.logits import logits
from regard.attribution.maps import MAPS, MapKind, map_of
from regard.attribution.mixing import mixing
from regard.attribution.norms import norms
from regard.attribution.rollout import Relevance, rollout
from regard.attribution.similarity import similarity
from regard.attribution.target import Target, default_target, parse_target
from regard.attribution.value_weighted import value_weighted

__all__ = [
    "MAPS",
    "Agreement",
    "Knockout",
    "MapKind",
    "Relevance",
    "Target",
    "agreement",
    "default_target",
    "gradient",
    "knockout",
    "knockouts",
    "logits",
    "map_of",
    "mixing",
    "norms",
    "parse_target",
    "relevance",
    "rollout",
    "similarity",
    "value_weighted",
]
