"""Checks of the arguments of reductions."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Int

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def statistic(name: str, keys: int) -> str:
    """The name of a row statistic to collect, checked: "entropy", or "topk:k" with k from 1 to the number of keys.

    "max" is the first of the largest. One more is collected than asked for, which shows whether the last has equals.
    """
    if name == "entropy":
        return name
    kind, _, number = ("topk:1" if name == "max" else str(name)).partition(":")
    if kind != "topk" or not number.isdecimal():
        raise ValueError(f'collect: expected "entropy", "max" or "topk:8". Got {name!r}.')
    return f"topk:{min(number_of_largest(int(number), keys) + 1, keys)}"


def number_of_largest(k: Any, keys: int) -> int:
    """k of the k largest weights. Raises ValueError where it is not 1 to the number of keys."""
    try:
        number = operator.index(k)
    except TypeError:
        number = 0
    if not 1 <= number <= keys or isinstance(k, bool):
        raise ValueError(f"topk: expected k from 1 to {keys}, the number of keys. Got {k}.")
    return number


def number_of_cells(call: str, name: str, count: Any, size: int) -> int:
    """How many cells of pooled positions. Raises ValueError where it is not 1 to the number of positions."""
    try:
        number = operator.index(count)
    except TypeError:
        number = 0
    if not 1 <= number <= size:
        raise ValueError(f"{call}: {name}: expected 1 to {size}, as many as there are positions. Got {count}.")
    return number


def number_of_groups(groups: Int[Tensor, "n"]) -> int:
    """One more than the largest group; 0 without positions."""
    return int(groups.max()) + 1 if len(groups) else 0


def describe(thing: Any) -> str:
    """Shape and type of a tensor, or the type of anything else, for messages."""
    return f"{tuple(thing.shape)} {thing.dtype}" if isinstance(thing, Tensor) else type(thing).__name__
