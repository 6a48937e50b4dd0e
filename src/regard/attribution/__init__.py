"""What an attention weight does not say: what was taken from a token, and whether it mattered. One file a method."""

from regard.attribution.maps import MAPS, map_of
from regard.attribution.mixing import mixing
from regard.attribution.norms import norms
from regard.attribution.rollout import Relevance, rollout
from regard.attribution.value_weighted import value_weighted

__all__ = ["MAPS", "Relevance", "map_of", "mixing", "norms", "rollout", "value_weighted"]
