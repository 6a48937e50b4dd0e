"""Many texts → Parquet."""

from regard.corpus.parquet import embed_files

__all__ = ["embed_files"]
