"""Keys and values with room for more: a step appends its own, and copies nothing that is there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of transformers' DynamicCache that writes new keys and values behind the old ones, where they lie.

    DynamicLayer concatenates them, which copies all of a long text for every token. Here room grows by a quarter at a
    time. Nothing in it is written over: keys and values that were handed out stay as they were.
    """

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None
    _handed_out: tuple[Tensor, Tensor] | None = None  # `keys` and `values`, unless someone else has set them since

    @classmethod
    def after(cls, layer: DynamicLayer) -> GrowingLayer:
        """The layer that goes on from another."""
        growing = cls()
        vars(growing).update(vars(layer))
        return growing

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values (B,G,n,D); all of them, old and new (B,G,N,D)."""
        if torch.is_grad_enabled() and (key_states.requires_grad or self.keys.requires_grad):
            super().update(key_states, value_states, *args, **kwargs)
            return self.keys, self.values
        keys, values = self.append(key_states.shape[2])
        keys.copy_(key_states)
        values.copy_(value_states)
        return self.keys, self.values

    def append(self, count: int) -> tuple[Tensor, Tensor]:
        """Makes room for so many more keys and values (B,G,n,D) and returns it, to be written into at once."""
        before = self.keys.shape[2]
        after = before + count
        own = self._handed_out is not None and self._handed_out[0] is self.keys and self._handed_out[1] is self.values
        if self._room is None or not own or self._room[0].shape[2] < after or _is_locked(self._room[0]):
            self._room = _with_room(self.keys, after), _with_room(self.values, after)
        keys, values = self._room
        self.keys, self.values = self._handed_out = keys[:, :, :after], values[:, :, :after]
        return self.keys[:, :, before:], self.values[:, :, before:]


def _is_locked(tensor: Tensor) -> bool:
    """Whether PyTorch allows no writing here: into a tensor of inference mode, outside of it."""
    return tensor.is_inference() and not torch.is_inference_mode_enabled()


def _with_room(tensor: Tensor, length: int) -> Tensor:
    batch, groups, before, dim = tensor.shape
    room = tensor.new_empty(batch, groups, length + max(64, length // 4), dim)
    room[:, :, :before] = tensor
    return room


def grow_in_place(cache: Any) -> None:
    """Give room to those layers of a cache that would otherwise be copied for every token."""
    for n, layer in enumerate(getattr(cache, "layers", ())):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[n] = GrowingLayer.after(layer)
