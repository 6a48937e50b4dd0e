"""Embeddings → Arrow tables and Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from regard.corpus.read import Record
from regard.files import write
from regard.lens.embed import Embeddings

if TYPE_CHECKING:
    import pyarrow as pa

Store = Literal["float32", "float16", "int8"]


def table(records: Sequence[Record], embeddings: Embeddings, first: Sequence[int], store: Store) -> pa.Table:
    """A row a vector, as `embed_files` describes them. first: the numbers of the records."""
    import pyarrow as pa

    named = any(record.id is not None for record in records)
    ids = pa.array([record.id for record in records] if named else first, pa.string() if named else pa.int64())
    cut = pa.array([at is not None for at in embeddings.truncated], pa.bool_())
    texts = [record.text for record in records]
    columns: dict[str, Any]
    vectors: Any = embeddings.vectors
    if embeddings.level == "sentence":
        columns = {"text_id": ids, "text": pa.array(texts, pa.string()), "truncated": cut}
    else:
        vectors = np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
        sizes = [len(spans) for spans in embeddings.spans]
        rows = pa.array(np.arange(len(records)).repeat(sizes))
        index = [np.arange(size, dtype=np.int32) for size in sizes]
        both = [(text, span) for text, spans in zip(texts, embeddings.spans, strict=True) for span in spans]
        columns = {
            "text_id": ids.take(rows),
            "index": pa.array(np.concatenate(index) if index else [], pa.int32()),
            "start": pa.array([start for _, (start, _) in both], pa.int32()),
            "end": pa.array([end for _, (_, end) in both], pa.int32()),
            embeddings.level: pa.array([text[start:end] for text, (start, end) in both], pa.string()),
            "truncated": cut.take(rows),
        }
    return pa.table(columns | _stored(vectors, store))


def _stored(vectors: np.ndarray, store: Store) -> dict[str, Any]:
    """int8: a number q stands for q × scale, where scale is the vector's largest number / 127."""
    import pyarrow as pa

    count, dim = vectors.shape
    found = {}
    if store == "int8":
        scale = np.abs(vectors).max(1, initial=0).astype(np.float32) / 127
        vectors = np.rint(vectors / np.where(scale == 0, 1, scale)[:, None])
        found = {"scale": pa.array(scale)}
    flat = pa.array(np.ascontiguousarray(vectors, dtype=store).reshape(-1))
    return found | {"vector": pa.FixedSizeListArray.from_arrays(flat, dim if count else 1)}


def save(path: Path, tables: Iterable[pa.Table], about: dict[str, str]) -> None:
    """Write a Parquet file beside and rename it: a row group a table, `about` in the schema's metadata.

    Raises ValueError where there is no table.
    """
    import pyarrow.parquet as pq

    def fill(file: IO[bytes]) -> None:
        few = iter(tables)
        first = next(few, None)
        if first is None:
            raise ValueError("There is nothing to write.")
        schema = first.schema.with_metadata({f"regard.{name}": value for name, value in about.items()})
        words = [name for name in schema.names if name not in ("vector", "scale")]  # what repeats
        compression = dict.fromkeys(words, "zstd")
        with pq.ParquetWriter(file, schema, use_dictionary=words, compression=compression) as writer:
            for each in chain([first], few):
                writer.write_table(each.replace_schema_metadata(schema.metadata))

    write(path, fill)


def about(path: Path) -> dict[str, str]:
    """What a file's metadata says of it; nothing, of a file that is not there or is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    found = {key.decode(): value.decode() for key, value in metadata.items()}
    return {key.removeprefix("regard."): value for key, value in found.items() if key.startswith("regard.")}
