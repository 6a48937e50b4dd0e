"""Many texts → Parquet."""

from regard.corpus.read import Source
from regard.corpus.run import Recipe, embed_files

__all__ = ["Recipe", "Source", "embed_files"]
