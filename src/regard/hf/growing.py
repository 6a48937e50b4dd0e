"""Layers of transformers' cache with room for more: a step appends its own, and copies nothing that is there."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

from regard._internal.growing import KeyValueCache


class GrowingLayer(KeyValueCache, DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of transformers' DynamicCache that writes new keys and values behind the old ones, where they lie."""

    keys: Tensor
    values: Tensor

    @classmethod
    def after(cls, layer: DynamicLayer) -> GrowingLayer:
        """The layer that goes on from another."""
        growing = cls()
        vars(growing).update(vars(layer))
        return growing

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values (B,G,n,D); all of them, old and new (B,G,N,D)."""
        return self.extend(key_states, value_states)


def grow_in_place(cache: Any) -> None:
    """Give room to those layers of a cache that would otherwise be copied for every token."""
    for n, layer in enumerate(getattr(cache, "layers", ())):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[n] = GrowingLayer.after(layer)
