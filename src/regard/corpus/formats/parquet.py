"""Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.corpus.lines import Position
from regard.corpus.records import (
    BadRecord,
    Place,
    Record,
    Source,
    list_columns,
    make_record,
    one_line,
    printable_path,
)

if TYPE_CHECKING:
    import pyarrow as pa


def parquet_rows(source: Source, path: Path, position: Position) -> Iterator[Record | BadRecord]:
    """A record per row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row, size, name = 0, path.stat().st_size, printable_path(path)
    start = position.read
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            if why := _why_not(source, file.schema_arrow):
                yield BadRecord(name, why)
                return
            tops = list(dict.fromkeys(_path(file.schema_arrow, column)[0] for column in source.columns))
            for batch in file.iter_batches(256, columns=tops):
                arrays = [_array(batch, *_path(file.schema_arrow, column)) for column in source.columns]
                for n in range(len(batch)):
                    row += 1
                    position.read = start + size * row // rows
                    yield _record(source, Place(name, row, "row"), [array.slice(n, 1) for array in arrays])
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        yield BadRecord(f"{name}, after row {row}", f"the rest is lost: the file is damaged ({one_line(error)}).")


def _path(schema: pa.Schema, column: str) -> tuple[str, list[str]]:
    """The top-level column that a name leads to, and the fields of structs inside it."""
    if column in schema.names:
        return column, []
    top, *fields = column.split(".")
    return top, fields


def _why_not(source: Source, schema: pa.Schema) -> str:
    """Why a file with this schema cannot be read, or ""."""
    import pyarrow as pa

    for column in source.columns:
        top, fields = _path(schema, column)
        if top not in schema.names:
            return f"it has no column {column!r}, but {list_columns(schema.names)}."
        if schema.names.count(top) > 1:
            return f"it has the column {top!r} {schema.names.count(top)} times."
        kind = schema.field(top).type
        for field in fields:
            if not pa.types.is_struct(kind) or kind.get_field_index(field) < 0:
                return f"it has no column {column!r}: its {top!r} holds {kind}."
            kind = kind.field(field).type
        if column == source.column:
            inner = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)):
                return f"its column {column!r} holds {kind}, not text."
    return ""


def _array(batch: pa.RecordBatch, top: str, fields: list[str]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    array = batch.column(batch.schema.get_field_index(top))
    for field in fields:
        array = pc.struct_field(array, field)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _record(source: Source, at: Place, values: list[Any]) -> Record | BadRecord:
    import pyarrow as pa

    required = []
    for name, value in zip(source.required, values, strict=False):  # kept columns stay Arrow arrays
        try:
            required.append(value[0].as_py())
        except UnicodeDecodeError as error:
            column = "the text" if name == source.column else f"its {name!r}"
            return BadRecord(str(at), f"not UTF-8 at byte {error.start} of {column}.")
    kept = tuple(values[len(required) :])
    for name, value in zip(source.keep, kept, strict=True):
        try:
            value.validate(full=True)
        except pa.ArrowInvalid as error:
            return BadRecord(str(at), f"its {name!r} is damaged: {one_line(error)}.")
    return make_record(source, at, required[0], required[-1] if len(required) > 1 else None, kept=kept)
