"""Many texts → Parquet."""

from regard.corpus.folder import OutputExistsError
from regard.corpus.recipe import Recipe
from regard.corpus.records import BadRecordError, Source, UnknownFormatError
from regard.corpus.run import embed_files

__all__ = ["BadRecordError", "OutputExistsError", "Recipe", "Source", "UnknownFormatError", "embed_files"]
