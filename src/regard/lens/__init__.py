"""From a text to what a model makes of it: `Lens`, `Reading`, `Walk`, `Comparison`, `Embeddings`.

| file | what it does |
|---|---|
| lens.py | `Lens`: opens a model; reads, compares, embeds |
| encode.py, words.py | text → tokens, and the words that they make up |
| forward.py, layers.py | tokens → `Reading`: the forward pass, and the layers that have attention |
| reading.py, units.py, find.py | `Reading`, its `Token`s and `Word`s, and how a word is found by its text |
| walk.py, contributions.py | a word in one head, step by step; what heads contribute |
| generate.py | `Generation`: a reply that the model writes token by token, and its reading |
| predictions.py | what a language model expected at every token, after any layer |
| compare.py | a word in several texts |
| embed.py, embed_options.py, windows.py, vectors.py, chunks.py | embeddings of many texts |
| display.py | pictures, pages, the widget and the patterns of a reading: the only file here that looks up |
"""

from regard.lens.compare import Comparison
from regard.lens.embed import Embeddings, RejectedTextsError
from regard.lens.generate import Generation, NextToken
from regard.lens.lens import Lens
from regard.lens.predictions import Predictions
from regard.lens.reading import Reading, Reply
from regard.lens.units import Token, Word
from regard.lens.walk import Walk

__all__ = [
    "Comparison",
    "Embeddings",
    "Generation",
    "Lens",
    "NextToken",
    "Predictions",
    "Reading",
    "RejectedTextsError",
    "Reply",
    "Token",
    "Walk",
    "Word",
]
