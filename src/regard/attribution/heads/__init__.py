"""What heads do: a score for each pattern that the field knows, exact over all rows of texts of any length.

| | |
|---|---|
| sample.py | what was read, as far as scores need to know it |
| edges.py | the pairs of query and key that a pattern is about: the weight on them, and the rule that cuts them |
| patterns.py | the scores that are weights on edges: previous, first, same, induction … |
| sinks.py, spread.py, positional.py, copying.py, retrieval.py, alignment.py | the others, one each |
| scores.py | the list of all, and how a layer is measured |
| named.py, content.py | the pattern that a head is named after; the head that contributes most content to a word |
"""

from __future__ import annotations

from regard.attribution.heads.edges import Alike, At, Earlier, Edges, To
from regard.attribution.heads.sample import Sample, Text, sample_of
from regard.attribution.heads.scores import NAMED_FROM, SCORES, STRICT_FROM, Score, measure

__all__ = [
    "NAMED_FROM",
    "SCORES",
    "STRICT_FROM",
    "Alike",
    "At",
    "Earlier",
    "Edges",
    "Sample",
    "Score",
    "Text",
    "To",
    "measure",
    "sample_of",
]
