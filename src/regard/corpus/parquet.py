"""Parquet files → records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.corpus.formats import plain
from regard.corpus.lines import Position
from regard.corpus.records import Bad, Place, Record, Source, checked, columns, shown

if TYPE_CHECKING:
    import pyarrow as pa


def of_parquet(source: Source, path: Path, position: Position) -> Iterator[Record | Bad]:
    """A record a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row, size, name = 0, path.stat().st_size, shown(path)
    begun = position.read
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            if why := _why_not(source, file.schema_arrow):
                yield Bad(name, why)
                return
            wanted = [*source.columns, *source.keep]
            tops = list(dict.fromkeys(_path(file.schema_arrow, column)[0] for column in wanted))
            for batch in file.iter_batches(256, columns=tops):
                arrays = [_array(batch, *_path(file.schema_arrow, column)) for column in wanted]
                for n in range(len(batch)):
                    row += 1
                    position.read = begun + size * row // rows
                    yield _record(source, Place(name, row, "row"), [array.slice(n, 1) for array in arrays])
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        yield Bad(f"{name}, after row {row}", f"the rest is lost: the file is damaged ({plain(error)}).")


def _path(schema: pa.Schema, column: str) -> tuple[str, list[str]]:
    """The column of the file, and the fields of structs in it, that a name leads to."""
    if column in schema.names:
        return column, []
    top, *fields = column.split(".")
    return top, fields


def _why_not(source: Source, schema: pa.Schema) -> str:
    """Why a file with this schema cannot be read."""
    import pyarrow as pa

    for column in [*source.columns, *source.keep]:
        top, fields = _path(schema, column)
        if top not in schema.names:
            return f"it has no column {column!r}, but {columns(schema.names)}."
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


def _record(source: Source, at: Place, values: list[Any]) -> Record | Bad:
    import pyarrow as pa

    python = []
    for name, value in zip(source.columns, values, strict=False):  # the others are kept as they are
        try:
            python.append(value[0].as_py())
        except UnicodeDecodeError as error:
            what = "the text" if name == source.column else f"its {name!r}"
            return Bad(str(at), f"not UTF-8 at byte {error.start} of {what}.")
    kept = tuple(values[len(python) :])
    for name, value in zip(source.keep, kept, strict=True):
        try:
            value.validate(full=True)
        except pa.ArrowInvalid as error:
            return Bad(str(at), f"its {name!r} is damaged: {plain(error)}.")
    return checked(source, at, python[0], python[-1] if len(python) > 1 else None, kept=kept)
