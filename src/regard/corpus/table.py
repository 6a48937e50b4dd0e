"""Embeddings → Arrow tables and Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from regard._internal.files import atomic_write
from regard.corpus.records import Record, Source
from regard.lens.embed import Embeddings

if TYPE_CHECKING:
    import pyarrow as pa

Store = Literal["float32", "float16", "int8"]

RESERVED = ("text_id", "file", "line", "index", "start", "end", "truncated", "scale", "vector")


def table(
    source: Source, records: Sequence[Record], embeddings: Embeddings, numbers: Sequence[int], store: Store, unit: str
) -> pa.Table:
    """A row a vector, as `embed_files` describes them. numbers: of the records; unit: what has a vector."""
    import pyarrow as pa

    named = source.id is not None
    of_record: dict[str, Any] = {
        "text_id": pa.array([record.id for record in records] if named else numbers, pa.string() if named else "int64")
    }
    if source.places:
        of_record["file"] = pa.array([record.at.file for record in records], pa.string())
        of_record["line"] = pa.array([record.at.line for record in records], pa.int64())
    of_record |= kept(source, records)
    cut = pa.array([at is not None for at in embeddings.truncated], pa.bool_())
    texts = [record.text for record in records]
    vectors: Any = embeddings.vectors
    if unit == "sentence":
        return pa.table(of_record | {"text": pa.array(texts, pa.string()), "truncated": cut} | _stored(vectors, store))
    vectors = np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
    sizes = [len(spans) for spans in embeddings.spans]
    rows = pa.array(np.arange(len(records)).repeat(sizes))
    index = [np.arange(size, dtype=np.int32) for size in sizes]
    both = [(text, span) for text, spans in zip(texts, embeddings.spans, strict=True) for span in spans]
    columns = {name: column.take(rows) for name, column in of_record.items()} | {
        "index": pa.array(np.concatenate(index) if index else [], pa.int32()),
        "start": pa.array([start for _, (start, _) in both], pa.int32()),
        "end": pa.array([end for _, (_, end) in both], pa.int32()),
        unit: pa.array([text[start:end] for text, (start, end) in both], pa.string()),
        "truncated": cut.take(rows),
    }
    return pa.table(columns | _stored(vectors, store))


# Numbers


def _stored(vectors: np.ndarray, store: Store) -> dict[str, Any]:
    import pyarrow as pa

    count, dim = vectors.shape
    numbers, scale = quantized(vectors, store)
    columns = {} if scale is None else {"scale": pa.array(scale)}
    flat = pa.array(np.ascontiguousarray(numbers).reshape(-1))
    return columns | {"vector": pa.FixedSizeListArray.from_arrays(flat, dim if count else 1)}


def quantized(vectors: np.ndarray, store: Store) -> tuple[np.ndarray, np.ndarray | None]:
    """The vectors in a smaller type. int8: a number q stands for q × scale, scale the vector's largest number / 127."""
    if store != "int8":
        with np.errstate(over="ignore"):
            return vectors.astype(store), None
    scale = np.abs(vectors).max(1, initial=0).astype(np.float32) / 127
    return np.rint(vectors / np.where(scale == 0, 1, scale)[:, None]).astype(np.int8), scale


def unstored(embeddings: Embeddings, store: Store) -> dict[int, str]:
    """The texts whose vectors cannot be stored so, and why."""
    reasons = ((n, _why_not(np.atleast_2d(vectors), store)) for n, vectors in enumerate(embeddings.vectors))
    return {n: why for n, why in reasons if why}


def _why_not(vectors: np.ndarray, store: Store) -> str:
    if not np.isfinite(vectors).all():
        return "the model gives numbers that are not finite."
    numbers, scale = quantized(vectors, store)
    if not np.isfinite(numbers).all():
        largest = float(np.abs(vectors).max())
        return f"a number of its vector, {largest:,.0f}, is too large for {store}, which ends at 65,504."
    if (vectors.any(1) & ~(numbers.any(1) if scale is None else numbers.any(1) & (scale > 0))).any():
        return f"all numbers of its vector are too small for {store}: they would be zeros."
    return ""


def dim(path: Path) -> int:
    """How many numbers a vector in a file has."""
    import pyarrow.parquet as pq

    return pq.read_schema(path).field("vector").type.list_size


# Columns that are carried through


def kept(source: Source, records: Sequence[Record]) -> dict[str, pa.Array]:
    """The columns in `source.keep`, of Arrow's types."""
    return {name: _column([record.kept[n] for record in records]) for n, name in enumerate(source.keep)}


def _column(values: list[Any]) -> pa.Array:
    """Of the type that the file gives; numbers, truth values and texts of JSON of their own, all else as JSON."""
    import pyarrow as pa

    typed = [value for value in values if isinstance(value, pa.Array)]
    if typed and len(typed) == len(values) and len({value.type for value in typed}) == 1:
        return pa.concat_arrays(typed)
    plain = [value[0].as_py() if isinstance(value, pa.Array) else value for value in values]
    if not any(isinstance(value, dict | list) for value in plain):
        try:
            return pa.array(plain)
        except (pa.ArrowException, OverflowError):
            pass
    return as_text(plain)


def as_text(values: Iterable[Any]) -> pa.Array:
    """Texts as they are, all else as JSON."""
    import pyarrow as pa

    def written(value: Any) -> str | None:
        return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

    return pa.array(map(written, values), pa.string())


def content(columns: dict[str, pa.Array]) -> list[list[Any]]:
    """What is in columns, as JSON can write it."""
    import pyarrow as pa

    found = []
    for name, column in columns.items():
        try:
            values = column.cast(pa.string()).to_pylist()  # exact, and in less than Python's types need
        except pa.ArrowException:
            values = json.dumps(column.to_pylist(), default=repr)
        found.append([name, str(column.type), values])
    return found


def size(value: Any) -> int:
    """About how much memory a value takes, in bytes."""
    return getattr(value, "nbytes", None) or len(str(value))


def common_types(paths: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
    """The types that columns have in all files together: one that holds what is in each, or text; None of no value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    common: dict[str, Any] = {}
    for name in names:
        fields = [pq.read_schema(path).field(name).remove_metadata() for path in paths]
        try:
            kind = pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive")[0].type
            for path, field in zip(paths, fields, strict=True):
                if field.type != kind:
                    pq.read_table(path, columns=[name])[name].cast(kind)  # does every number fit?
        except pa.ArrowException:
            kind = pa.string()
        common[name] = None if pa.types.is_null(kind) else kind
    return common


def text_type() -> pa.DataType:
    """Arrow's type of texts."""
    import pyarrow as pa

    return pa.string()


def converted(table: pa.Table, types: dict[str, Any]) -> pa.Table:
    """The table with columns of these types."""
    import pyarrow as pa

    for name, kind in types.items():
        column = table[name]
        if column.type != kind:
            text = kind == pa.string() and not pa.types.is_null(column.type)
            column = as_text(column.to_pylist()) if text else column.cast(kind)
            table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


# Files


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

    atomic_write(path, fill)


def about(path: Path) -> dict[str, str]:
    """What a file's metadata says of it; nothing, of a file that is not there or is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    said = {key: value.decode("utf-8", "replace") for key, value in metadata.items()}
    prefix = b"regard."
    return {key.removeprefix(prefix).decode(): value for key, value in said.items() if key.startswith(prefix)}
