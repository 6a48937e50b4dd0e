"""Keys and values with room for more: a step appends its own, and copies nothing that is there."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """The keys and values (B,G,N,D) of the tokens so far; none at first.

    Concatenating would copy all of a long text for every token. Here room grows by a quarter at a time. Nothing in it
    is written over: keys and values that were handed out stay as they were.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    _room: tuple[Tensor, Tensor] | None = None
    _handed_out: tuple[Tensor, Tensor] | None = None  # `keys` and `values`, unless someone else has set them since

    @property
    def length(self) -> int:
        """The number of tokens so far."""
        return 0 if self.keys is None else self.keys.shape[2]

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B,G,n,D); all of them, old and new (B,G,N,D).

        Raises ValueError where they are of another batch or of other heads.
        """
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        elif keys.shape[:2] != self.keys.shape[:2] or keys.shape[3] != self.keys.shape[3]:
            raise ValueError(f"KeyValueCache: expected keys {_shown(self.keys)}, as before. Got {_shown(keys)}.")
        elif torch.compiler.is_compiling() or (
            torch.is_grad_enabled() and (keys.requires_grad or self.keys.requires_grad)
        ):
            self.keys, self.values = torch.cat((self.keys, keys), 2), torch.cat((self.values, values), 2)
        else:
            before = self.keys.shape[2]
            self.append(keys.shape[2])
            for whole, new in ((self.keys, keys), (self.values, values)):
                whole.data[:, :, before:] = new  # `data`, so that those handed out do not count as changed
        return self.keys, self.values

    def append(self, count: int) -> None:
        """Lengthens keys and values by so many, which are to be written at once."""
        assert self.keys is not None
        assert self.values is not None
        after = self.keys.shape[2] + count
        own = self._handed_out is not None and self._handed_out[0] is self.keys and self._handed_out[1] is self.values
        if self._room is None or not own or self._room[0].shape[2] < after or _is_locked(self._room[0]):
            self._room = _with_room(self.keys, after), _with_room(self.values, after)
        keys, values = self._room
        self.keys, self.values = self._handed_out = keys.narrow(2, 0, after), values.narrow(2, 0, after)


def _shown(keys: Tensor) -> str:
    batch, groups, _, dim = keys.shape
    return f"({batch}, {groups}, ·, {dim})"


def _is_locked(tensor: Tensor) -> bool:
    """Whether PyTorch allows no writing here: into a tensor of inference mode, outside of it."""
    return tensor.is_inference() and not torch.is_inference_mode_enabled()


def _with_room(tensor: Tensor, length: int) -> Tensor:
    batch, groups, before, dim = tensor.shape
    room = tensor.new_empty(batch, groups, length + max(64, length // 4), dim)
    room[:, :, :before] = tensor.detach()
    return room
