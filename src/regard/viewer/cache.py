"""A cache that holds at most so many bytes: readings, overviews of maps, thumbnails and comparisons (see api.py).

It imports torch and the readings that it measures, and nothing else of the viewer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from torch import Tensor

from regard.lens.reading import Reading


class LRUCache:
    """A cache that evicts the least recently used entries. Any thread may use it.

    Args:
        limit: bytes that the entries may take together; the newest is kept in any case.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that the entries take."""
        with self._lock:
            return self._used()

    def get(self, key: Hashable) -> Any:
        """The value of a key, which becomes the most recently used; or None."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Store a value that takes `size` bytes, and evict others until all fit."""
        with self._lock:
            self._entries[key] = value, size
            self._entries.move_to_end(key)
            used = self._used()
            while used > self.limit and len(self._entries) > 1:
                used -= self._entries.popitem(last=False)[1][1]

    def __iter__(self) -> Iterator[Hashable]:
        """The keys, the least recently used first."""
        with self._lock:
            return iter(list(self._entries))

    def _used(self) -> int:
        return sum(size for _, size in self._entries.values())


def size_of(tensors: Iterable[Tensor | None]) -> int:
    """The bytes that tensors hold: each storage once, and all of it, also where a tensor is a view of a part."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t is not None}
    return sum(storages.values())


def size_of_reading(reading: Reading) -> int:
    """The bytes that a reading holds: hidden states, and query, key, value, output and lse of every layer.

    Of an encoder-decoder, those of all its attentions.
    """
    tensors: list[Tensor | None] = [reading.hidden, reading.final]
    for attention in reading.attention:
        scores = attention.weights.scores
        tensors += [scores.query, scores.key, scores.bias, attention.value, attention.output, attention.lse]
    rows = sum(attention.lse.numel() for attention in reading.attention)
    names = 300 * (len(reading.tokens) + len(reading.units)) + 4 * len(reading.text)
    parts = [part for part in (reading.decoder, reading.cross) if part is not None]
    # The weights may keep an lse of their own, in float64.
    return size_of(tensors) + 8 * rows + names + sum(map(size_of_reading, parts))
