"""Contextualised embeddings of text files, a text a line, as one Parquet file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from regard.files import write
from regard.lens import Lens
from regard.lens.embed import Embeddings, Level, Pool, Truncation

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS_AT_ONCE = 1024  # a row group, and all that is in memory


def embed_files(
    files: Sequence[Path],
    out: Path,
    lens: Lens,
    level: Level,
    layers: int,
    pool: Pool | None = None,
    truncation: Truncation = "windows",
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, int]:
    """Embed every line that is not blank, in order, and write `out` beside, then rename it.

    Columns at sentence level: text_id, text, truncated, vector (fixed_size_list<float32>); at token and word level a
    row a vector: text_id, index, start, end, token or word, vector. The schema's metadata names model, level, layers
    and pool. `-` is stdin.

    Returns: the counts of texts, vectors, truncated texts, and the vectors' dim.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'regard[corpus]'.") from None
    if out.suffix != ".parquet":
        raise ValueError(f"Expected --out FILE.parquet. Got {str(out)!r}.")
    counts = {"texts": 0, "vectors": 0, "truncated": 0, "dim": 0}

    def fill(file: IO[bytes]) -> None:
        writer = None
        with ExitStack() as opened:
            for names, texts in _in_batches(chain.from_iterable(_lines(file) for file in files)):
                embeddings = lens.embed(
                    texts, level, layers, pool, truncation=truncation, names=names, progress=progress
                )
                table = _table(texts, embeddings, counts["texts"])
                if writer is None:
                    about = {"model": lens.name, "level": level, "layers": str(layers)}
                    about |= {"pool": pool} if pool else {}
                    schema = table.schema.with_metadata({f"regard.{name}": value for name, value in about.items()})
                    writer = opened.enter_context(pq.ParquetWriter(file, schema))
                writer.write_table(table.cast(writer.schema))
                counts["texts"] += len(texts)
                counts["vectors"] += len(table)
                counts["truncated"] += sum(cut is not None for cut in embeddings.truncated)
                counts["dim"] = table.schema.field("vector").type.list_size
        if writer is None:
            raise ValueError(f"There is no text in {', '.join(map(str, files))}.")

    write(out, fill)
    return counts


def _in_batches(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[list[str], list[str]]]:
    """(names, texts) of some lines at a time."""
    while batch := list(islice(lines, TEXTS_AT_ONCE)):
        names, texts = zip(*batch, strict=True)
        yield list(names), list(texts)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of each line that is not blank."""
    with nullcontext(sys.stdin.buffer) if str(path) == "-" else open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            name = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise ValueError(f"{name}: not UTF-8 at byte {error.start} of the line.") from None
            if text:
                yield name, text


def _table(texts: Sequence[str], embeddings: Embeddings, first: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    ids = np.arange(first, first + len(texts))
    vectors: Any = embeddings.vectors
    columns: dict[str, Any]
    if embeddings.level == "sentence":
        columns = {"text_id": ids, "text": texts, "truncated": [cut is not None for cut in embeddings.truncated]}
    else:
        spans = list(chain.from_iterable(embeddings.spans))
        sizes = [len(of_text) for of_text in embeddings.spans]
        columns = {
            "text_id": ids.repeat(sizes),
            "index": np.concatenate([np.arange(size) for size in sizes]),
            "start": [start for start, _ in spans],
            "end": [end for _, end in spans],
            embeddings.level: [
                text[start:end] for text, of_text in zip(texts, embeddings.spans, strict=True) for start, end in of_text
            ],
        }
        vectors = np.concatenate(vectors)
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[-1])
    return pa.table(columns)
