"""Types that several rooms share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Index = slice | Tensor  # a run of positions with both ends written out, or positions one by one
MaskMod = Callable[
    [Tensor, Tensor, Tensor, Tensor], Tensor
]  # mask_mod(batch, head, query, key) → bool, on index tensors
