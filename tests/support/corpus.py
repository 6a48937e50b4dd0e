"""What the tests of a corpus share: texts, and what is read and written."""

import json

import numpy as np

from regard.corpus.files import find_files, read_records

LONG = "Attention is a weighted average of what the words around bring with them. " * 60
TEXTS = ["Don't stop!", "unbelievable 👍🏽", LONG.strip()]


def records_of(source):
    """All records of a source, good and bad."""
    return list(read_records(source, find_files(source)))


def vectors(table):
    """(rows, dim): the vectors in a table."""
    return np.stack(table["vector"].to_numpy())


def write_lines(path):
    """Write TEXTS as lines, with a byte order mark, blank lines and two kinds of line ends."""
    path.write_bytes("\ufeffDon't stop!\r\n\n   \nunbelievable 👍🏽\n".encode() + LONG.encode())
    return path


def write_json_lines(folder, *rows, name="a.jsonl"):
    """Write a file with these objects, one per line."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def stop_at(text):
    """A progress callback that raises KeyboardInterrupt at a text: earlier shards are finished."""
    numbers = iter(range(1, 10**6))

    def stop(texts, tokens, share):
        if next(numbers) == text:
            raise KeyboardInterrupt

    return stop
