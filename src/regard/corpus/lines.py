"""Lines of text from files, compressed or not; of damaged files, the lines before the damage."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from regard.corpus.records import Place, printable_path

MAX_LINE = 1 << 23  # characters
_BLOCK = 1 << 16
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
DAMAGE = (EOFError, zlib.error, lzma.LZMAError)  # besides Arrow's errors, and OSError without an errno


def suffixes(path: Path) -> tuple[str, str]:
    """The extension of a file without that of its compression, and the compression.

    >>> suffixes(Path("a.txt.gz")), suffixes(Path("a.jsonl"))
    (('.txt', 'gzip'), ('.jsonl', ''))
    """
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), COMPRESSED[last]) if last in COMPRESSED else (last, "")


@dataclass
class Position:
    """How many bytes of the files have been read; total: of all files, None if a pipe is among them."""

    read: int = 0
    total: int | None = None


class Lines:
    """The lines of a file as text, numbered from 1. Bytes that are not UTF-8 become lone surrogates.

    A line ends with \\n, \\r\\n, or \\r as on old Macs, and is returned with \\n; with `raw`, for csv, as it is.
    """

    def __init__(self, path: Path, position: Position, raw: bool = False) -> None:
        self.name, self.number = printable_path(path), 0
        self.stdin = str(path) == "-"
        _, self.compression = suffixes(path)
        self.file = _CountingFile(_open(path), position)
        self.bytes = _decompressed(self.file, self.compression)
        self.text = io.TextIOWrapper(self.bytes, "utf-8", "surrogateescape", newline="" if raw else None)

    def is_utf16(self) -> bool:
        """Whether the file begins with a byte order mark of UTF-16. To be asked before anything is read."""
        return self.bytes.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

    def __iter__(self) -> Iterator[str | None]:
        """Each line; None for one that is longer than MAX_LINE."""
        whole = True
        while line := self.text.readline(MAX_LINE):
            begins, whole = whole, line.endswith(("\n", "\r")) or len(line) < MAX_LINE
            if begins:
                self.number += 1
                text = line if whole else None
                yield text.removeprefix("\ufeff") if text and self.number == 1 else text

    def blocks(self) -> Iterator[str]:
        """The text in blocks of any size, without regard to lines."""
        first = self.text.read(_BLOCK)
        yield first.removeprefix("\ufeff")
        while block := self.text.read(_BLOCK):
            yield block

    def close(self) -> None:
        if self.stdin:
            self.text.detach()
        else:
            self.text.close()
            self.file.close()

    def at(self, number: int | None = None) -> Place:
        """The place of a line, by default of the last one read."""
        return Place(self.name, self.number if number is None else number)


def _open(path: Path) -> IO[bytes]:
    if str(path) != "-":
        return open(path, "rb")
    if sys.stdin is None or getattr(sys.stdin, "closed", False):
        raise ValueError("-: standard input is closed.")
    return sys.stdin.buffer


def _decompressed(file: _CountingFile, compression: str) -> Any:
    """The content of a file, with read() and peek()."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=cast(Any, file))  # ignores zeros after the end, as gzip does
    if compression == "bz2":
        return bz2.BZ2File(cast(Any, file))
    if compression == "xz":
        return lzma.LZMAFile(cast(Any, file))
    return io.BufferedReader(cast(Any, _Zstandard(file) if compression else file))


class _CountingFile(io.RawIOBase):
    """A file that adds the bytes read from it to a position."""

    def __init__(self, file: IO[bytes], position: Position) -> None:
        self.inner, self.position, self.taken = file, position, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.inner.read(len(buffer))
        buffer[: len(data)] = data
        self._count(len(data))
        return len(data)

    def rewind(self) -> None:
        """Read from the beginning again. Raises OSError for a pipe."""
        self.inner.seek(0)
        self._count(-self.taken)

    def _count(self, size: int) -> None:
        self.taken += size
        self.position.read += size

    def close(self) -> None:
        if self.inner is not getattr(sys.stdin, "buffer", None):
            self.inner.close()
        super().close()


class _Zstandard(io.RawIOBase):
    """The content of a .zst file, by Arrow; of a damaged one everything before the damage, which Arrow would drop."""

    def __init__(self, file: _CountingFile) -> None:
        self.file, self.returned, self.step = file, 0, _BLOCK
        self.stream = self.old_stream = self._stream()

    def _stream(self) -> Any:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(self.file, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import pyarrow as pa

        size = min(len(buffer), self.step)
        try:
            data = self.stream.read(size)
        except (pa.ArrowException, OSError):
            if self.step == 1 or not self.file.inner.seekable():
                raise
            self.file.rewind()
            self.old_stream = self.stream  # it would close the file if it were freed
            self.stream, self.step = self._stream(), 1  # byte by byte from here to the damage
            for begin in range(0, self.returned, _BLOCK):
                self.stream.read(min(_BLOCK, self.returned - begin))
            return self.readinto(buffer)
        buffer[: len(data)] = data
        self.returned += len(data)
        return len(data)
