"""Embeddings as Arrow tables, and Parquet files of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from regard._internal.files import atomic_write
from regard._typing import OutputDtype
from regard.corpus.records import Record, Source
from regard.lens.embed import Embeddings

if TYPE_CHECKING:
    import pyarrow as pa

RESERVED = ("text_id", "file", "line", "index", "start", "end", "truncated", "scale", "vector")


def to_table(
    source: Source,
    records: Sequence[Record],
    embeddings: Embeddings,
    numbers: Sequence[int],
    output_dtype: OutputDtype,
    unit: str,
) -> pa.Table:
    """A row per vector, with the columns that `embed_files` describes; numbers: those of the records in the source."""
    import pyarrow as pa

    texts = [record.text for record in records]
    by_record = _record_columns(source, records, numbers)
    truncated = pa.array([at is not None for at in embeddings.truncated], pa.bool_())
    vectors: Any = embeddings.vectors
    if unit == "sentence":
        columns = by_record | {"text": pa.array(texts, pa.string()), "truncated": truncated}
        return pa.table(columns | _vector_columns(vectors, output_dtype))
    counts = [len(spans) for spans in embeddings.spans]
    rows = pa.array(np.arange(len(records)).repeat(counts))
    index = [np.arange(count, dtype=np.int32) for count in counts]
    spans = [(text, span) for text, spans in zip(texts, embeddings.spans, strict=True) for span in spans]
    columns = {name: column.take(rows) for name, column in by_record.items()} | {
        "index": pa.array(np.concatenate(index) if index else [], pa.int32()),
        "start": pa.array([start for _, (start, _) in spans], pa.int32()),
        "end": pa.array([end for _, (_, end) in spans], pa.int32()),
        unit: pa.array([text[start:end] for text, (start, end) in spans], pa.string()),
        "truncated": truncated.take(rows),
    }
    vectors = np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
    return pa.table(columns | _vector_columns(vectors, output_dtype))


def _record_columns(source: Source, records: Sequence[Record], numbers: Sequence[int]) -> dict[str, pa.Array]:
    """The columns with one value per record: its id, its place, and the kept columns."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {"text_id": pa.array(numbers, pa.int64())}
    if source.id is not None:
        columns["text_id"] = pa.array([record.id for record in records], pa.string())
    if source.places:
        columns["file"] = pa.array([record.at.file for record in records], pa.string())
        columns["line"] = pa.array([record.at.line for record in records], pa.int64())
    return columns | kept_columns(source, records)


# Vectors


def _vector_columns(vectors: np.ndarray, output_dtype: OutputDtype) -> dict[str, Any]:
    import pyarrow as pa

    count, dim = vectors.shape
    numbers, scale = quantize(vectors, output_dtype)
    columns = {} if scale is None else {"scale": pa.array(scale)}
    flat = pa.array(np.ascontiguousarray(numbers).reshape(-1))
    return columns | {"vector": pa.FixedSizeListArray.from_arrays(flat, dim if count else 1)}


def quantize(vectors: np.ndarray, output_dtype: OutputDtype) -> tuple[np.ndarray, np.ndarray | None]:
    """The vectors in the output dtype, and for int8 the scale of each: its largest number divided by 127."""
    if output_dtype != "int8":
        with np.errstate(over="ignore"):
            return vectors.astype(output_dtype), None
    scale = np.abs(vectors).max(1, initial=0).astype(np.float32) / 127
    return np.rint(vectors / np.where(scale == 0, 1, scale)[:, None]).astype(np.int8), scale


def unwritable(embeddings: Embeddings, output_dtype: OutputDtype) -> dict[int, str]:
    """The numbers of the texts whose vectors the output dtype cannot hold, and why."""
    reasons = {n: _why_unwritable(np.atleast_2d(vectors), output_dtype) for n, vectors in enumerate(embeddings.vectors)}
    return {n: reason for n, reason in reasons.items() if reason}


def _why_unwritable(vectors: np.ndarray, output_dtype: OutputDtype) -> str:
    if not np.isfinite(vectors).all():
        return "the model gives numbers that are not finite."
    numbers, scale = quantize(vectors, output_dtype)
    if not np.isfinite(numbers).all():
        largest = float(np.abs(vectors).max())
        return f"a number of its vector, {largest:,.0f}, is too large for {output_dtype}, which ends at 65,504."
    if (vectors.any(1) & ~(numbers.any(1) if scale is None else numbers.any(1) & (scale > 0))).any():
        return f"all numbers of its vector are too small for {output_dtype}: they would be zeros."
    return ""


def dim(path: Path) -> int:
    """The number of dimensions of the vectors in a file."""
    import pyarrow.parquet as pq

    return int(pq.read_schema(path).field("vector").type.list_size)


# Columns that are kept


def kept_columns(source: Source, records: Sequence[Record]) -> dict[str, pa.Array]:
    """The columns in `source.keep`."""
    return {name: _column([record.kept[n] for record in records]) for n, name in enumerate(source.keep)}


def _column(values: list[Any]) -> pa.Array:
    """A column with the type that the file has; of JSON numbers, booleans or strings, everything else as JSON."""
    import pyarrow as pa

    arrays = [value for value in values if isinstance(value, pa.Array)]
    if arrays and len(arrays) == len(values) and len({array.type for array in arrays}) == 1:
        return pa.concat_arrays(arrays)
    plain = [value[0].as_py() if isinstance(value, pa.Array) else value for value in values]
    if not any(isinstance(value, dict | list) for value in plain):
        try:
            return pa.array(plain)
        except (pa.ArrowException, OverflowError):
            pass
    return as_strings(plain)


def as_strings(values: Iterable[Any]) -> pa.Array:
    """Strings as they are, all other values as JSON."""
    import pyarrow as pa

    def to_string(value: Any) -> str | None:
        return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

    return pa.array(map(to_string, values), pa.string())


def content(columns: dict[str, pa.Array]) -> list[list[Any]]:
    """Name, type and values of columns, as JSON can hold them."""
    import pyarrow as pa

    entries = []
    for name, column in columns.items():
        try:
            values = column.cast(pa.string()).to_pylist()  # exact, and smaller than values of Python
        except pa.ArrowException:
            values = json.dumps(column.to_pylist(), default=repr)
        entries.append([name, str(column.type), values])
    return entries


def size(value: Any) -> int:
    """Roughly how much memory a value takes, in bytes."""
    return getattr(value, "nbytes", None) or len(str(value))


def common_types(paths: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
    """For each column a type that holds its values in all files without loss, or string; None if all are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, Any] = {}
    for name in names:
        fields = [pq.read_schema(path).field(name).remove_metadata() for path in paths]
        try:
            common = pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive")[0].type
            for path, field in zip(paths, fields, strict=True):
                if field.type != common:
                    pq.read_table(path, columns=[name])[name].cast(common)  # raises if a number does not fit
        except pa.ArrowException:
            common = pa.string()
        types[name] = None if pa.types.is_null(common) else common
    return types


def text_type() -> pa.DataType:
    """Arrow's type of strings."""
    import pyarrow as pa

    return pa.string()


def cast(table: pa.Table, types: dict[str, Any]) -> pa.Table:
    """The table with columns of these types."""
    import pyarrow as pa

    for name, type in types.items():
        column = table[name]
        if column.type != type:
            to_string = type == pa.string() and not pa.types.is_null(column.type)
            column = as_strings(column.to_pylist()) if to_string else column.cast(type)
            table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


# Files


def save(path: Path, tables: Iterable[pa.Table], metadata: dict[str, str]) -> None:
    """Write a Parquet file atomically, a row group per table, with metadata in its schema.

    Raises ValueError if there is no table.
    """
    import pyarrow.parquet as pq

    def fill(file: IO[bytes]) -> None:
        remaining = iter(tables)
        first = next(remaining, None)
        if first is None:
            raise ValueError("There is nothing to write.")
        schema = first.schema.with_metadata({f"regard.{name}": value for name, value in metadata.items()})
        compressible = [name for name in schema.names if name not in ("vector", "scale")]
        compression = dict.fromkeys(compressible, "zstd")
        with pq.ParquetWriter(file, schema, use_dictionary=compressible, compression=compression) as writer:
            for table in chain([first], remaining):
                writer.write_table(table.replace_schema_metadata(schema.metadata))

    atomic_write(path, fill)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that `save` has written; {} for a file that does not exist or is from elsewhere."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    prefix = b"regard."
    return {
        key.removeprefix(prefix).decode(): value.decode("utf-8", "replace")
        for key, value in metadata.items()
        if key.startswith(prefix)
    }
