"""Files, compressed or not → lines of text, and what can be read of damaged ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from regard.corpus.records import Place, shown

LINE = 1 << 23  # characters of a line, at most
_PIECE = 1 << 16
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
DAMAGE = (EOFError, zlib.error, lzma.LZMAError)  # besides errors of Arrow, and of the system without a number


def suffixes(path: Path) -> tuple[str, str]:
    """What a file's name says it holds, and how it is compressed.

    >>> suffixes(Path("a.txt.gz")), suffixes(Path("a.jsonl"))
    (('.txt', 'gzip'), ('.jsonl', ''))
    """
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), COMPRESSED[last]) if last in COMPRESSED else (last, "")


@dataclass
class Position:
    """How far reading has come, in bytes of the files; total: None where a pipe is among them."""

    read: int = 0
    total: int | None = None


class Lines:
    """Lines as text, what is not UTF-8 as lone surrogates, with the number of the last; None for one too long.

    A line ends with \\n, \\r\\n, or \\r as on old Macs, and is given with \\n; `raw`: with the end it has, for csv.
    """

    def __init__(self, path: Path, position: Position, raw: bool = False) -> None:
        self.name, self.number = shown(path), 0
        self.stdin = str(path) == "-"
        _, self.compression = suffixes(path)
        self.file = _Counted(_open(path), position)
        expanded = _expanded(self.file, self.compression)
        self.text = io.TextIOWrapper(expanded, "utf-8", "surrogateescape", newline="" if raw else None)

    def __iter__(self) -> Iterator[str | None]:
        whole = True
        while line := self.text.readline(LINE):
            begins, whole = whole, line.endswith(("\n", "\r")) or len(line) < LINE
            if begins:
                self.number += 1
                text = line if whole else None
                yield text.removeprefix("\ufeff") if text and self.number == 1 else text

    def pieces(self) -> Iterator[str]:
        """The text in pieces of no regard to lines."""
        first = self.text.read(_PIECE)
        yield first.removeprefix("\ufeff")
        while piece := self.text.read(_PIECE):
            yield piece

    def close(self) -> None:
        if self.stdin:
            self.text.detach()
        else:
            self.text.close()
            self.file.close()

    def at(self, number: int | None = None) -> Place:
        """The place of a line, by default of the last."""
        return Place(self.name, self.number if number is None else number)


def _open(path: Path) -> IO[bytes]:
    if str(path) != "-":
        return open(path, "rb")
    if sys.stdin is None or getattr(sys.stdin, "closed", False):
        raise ValueError("-: standard input is closed.")
    return sys.stdin.buffer


def _expanded(file: _Counted, compression: str) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=cast(Any, file))  # takes zeros after the end, as gzip itself does
    if compression == "bz2":
        return bz2.BZ2File(cast(Any, file))
    if compression == "xz":
        return lzma.LZMAFile(cast(Any, file))
    return io.BufferedReader(cast(Any, _Zstandard(file) if compression else file))


class _Counted(io.RawIOBase):
    """A file that says how much of it has been read."""

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
        """Begin again. Raises OSError where that cannot be, as of a pipe."""
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
    """What a .zst holds, by Arrow. Of a damaged one all that comes before the damage, which Arrow would drop."""

    def __init__(self, file: _Counted) -> None:
        self.file, self.given, self.step = file, 0, _PIECE
        self.stream = self.spent = self._stream()

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
            self.spent = self.stream  # which would close the file, were it let go
            self.stream, self.step = self._stream(), 1  # from here on byte by byte, up to the damage
            for begin in range(0, self.given, _PIECE):
                self.stream.read(min(_PIECE, self.given - begin))
            return self.readinto(buffer)
        buffer[: len(data)] = data
        self.given += len(data)
        return len(data)
