"""Texts sorted by length into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def length_batches(lengths: Sequence[int], max_tokens: int, *, same_length: bool = False) -> Iterator[list[int]]:
    """The positions of texts by length, in batches of at most `max_tokens` tokens, padding included, or of one text.

    With `same_length` a batch has only texts of the same length, so that nothing is padded.

    >>> list(length_batches([5, 2, 3, 9], 6))
    [[1, 2], [0], [3]]
    >>> list(length_batches([3, 2, 2, 2], 6, same_length=True))
    [[1, 2, 3], [0]]
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[position]
        if batch and ((len(batch) + 1) * length > max_tokens or (same_length and length != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
