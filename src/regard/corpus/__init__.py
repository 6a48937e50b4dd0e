"""Embedding a corpus: files of texts in, Parquet files of vectors out."""

from regard._internal.deprecated import renamed_names
from regard.corpus.config import EmbedConfig
from regard.corpus.output import OutputExistsError
from regard.corpus.records import BadRecordError, Source, UnknownFormatError
from regard.corpus.run import embed_files

__all__ = ["BadRecordError", "EmbedConfig", "OutputExistsError", "Source", "UnknownFormatError", "embed_files"]

__getattr__ = renamed_names(__name__, Recipe="EmbedConfig")
