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
    """The name of a row statistic to collect, checked: "entropy", "max_score", or "topk:k", k from 1 to the keys.

    "max" is the first of the largest. One more is collected than asked for, which shows whether the last has equals.
    """
    if name in ("entropy", "max_score"):
        return name
    kind, _, number = ("topk:1" if name == "max" else str(name)).partition(":")
    if kind != "topk" or not number.isdecimal():
        raise ValueError(f'collect: expected "entropy", "max", "max_score" or "topk:8". Got {name!r}.')
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


def check_reduce(call: str, reduce: Any) -> None:
    """Raises ValueError unless it is a way in which cells are made of numbers."""
    if reduce not in ("mean", "max", "sum"):
        raise ValueError(f"{call}: reduce: expected 'mean', 'max' or 'sum'. Got {reduce!r}.")


def run_of(call: str, queries: Any, size: int) -> tuple[slice, int]:
    """The run of queries that a slice lies in, from its first, and its step. Raises TypeError or ValueError."""
    if not isinstance(queries, slice):
        raise TypeError(f"{call}: queries: expected a slice. Got {describe(queries)}.")
    start, stop, step = queries.indices(size)
    if step < 1:
        raise ValueError(f"{call}: queries: expected a slice with a step of 1 or more. Got {queries}.")
    return slice(start, max(start, stop)), step


def groups(call: str, groups: Any, size: int, device: torch.device) -> Int[Tensor, "n"]:
    """The group of each position. Raises ValueError for anything but integers from −1 on."""
    numbers: Tensor = torch.as_tensor(groups, device=device)
    if numbers.shape != (size,) or (size and numbers.dtype not in INTEGERS):
        raise ValueError(
            f"{call}: expected the group of each position, {size} integers. Got {tuple(numbers.shape)} {numbers.dtype}."
        )
    numbers = numbers.long()
    if size and int(numbers.min()) < -1:
        raise ValueError(f"{call}: expected groups from 0 on, or −1 for none. Got {int(numbers.min())}.")
    return numbers


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
