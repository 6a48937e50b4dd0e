"""From text to what a model made of it: `Lens`, `Reading`, `Walk`, `Comparison`, `Embeddings`."""

from regard.lens.compare import Comparison
from regard.lens.embed import Embeddings
from regard.lens.lens import Lens
from regard.lens.reading import Reading, Token, Word
from regard.lens.walk import Walk

__all__ = ["Comparison", "Embeddings", "Lens", "Reading", "Token", "Walk", "Word"]
