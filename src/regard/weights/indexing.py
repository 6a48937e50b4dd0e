"""What an index asks for, of a matrix that is not stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Int


class Selection(NamedTuple):
    """Some rows and columns of some heads."""

    pairs: Int[Tensor, "n"]  # each sequence · H + head: the leading dimensions, counted through
    rows: Int[Tensor, "q"]
    columns: Int[Tensor, "k"]
    shape: list[int]  # of the result, whose numbers are those of (n,q,k)


def selection(index: Any, shape: Sequence[int]) -> Selection | None:
    """What `index` takes from a tensor of this shape, whose last two dimensions are queries and keys.

    None where it is not a box of rows and columns: masks, several lists, tensors of two dimensions. Raises IndexError
    where no tensor could be indexed so.
    """
    items = index if isinstance(index, tuple) else (index,)
    if sum(_dimensions(item) for item in items) > 1 or any(isinstance(item, bool) for item in items):
        return None
    picked: list[Tensor] = []
    sizes: list[int] = []
    for item in _written_out(items, shape):
        if item is None:
            sizes.append(1)
            continue
        positions = _positions(item, len(picked) - len(shape), shape[len(picked)])
        picked.append(positions.reshape(-1))
        sizes.extend(positions.shape)
    *leading, rows, columns = picked
    pairs = torch.zeros(1, dtype=torch.long, device="cpu")
    for size, positions in zip(shape[:-2], leading, strict=True):
        pairs = (pairs[:, None] * size + positions).reshape(-1)
    return Selection(pairs, rows, columns, sizes)


def _dimensions(item: Any) -> int:
    """How many dimensions a list or tensor of positions has; 0 for a number, a slice, `...` and None."""
    if isinstance(item, (list, tuple, range)):
        try:
            return torch.as_tensor(item, device="cpu").ndim
        except (TypeError, ValueError, RuntimeError):
            return 2  # tensors in a list, or nothing that is known here
    number_of_dimensions = getattr(item, "ndim", 0)
    is_truth = number_of_dimensions == 0 and str(getattr(item, "dtype", "")) in ("bool", "torch.bool")
    return 2 if is_truth else number_of_dimensions  # True is a mask of no dimension


def _written_out(items: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """An item for each dimension, beside those that are None; `...`, and what is left out, are whole dimensions."""
    dots = [n for n, item in enumerate(items) if item is Ellipsis]
    given = sum(item is not None and item is not Ellipsis for item in items)
    if len(dots) > 1 or given > len(shape):
        raise IndexError(f"Weights{tuple(shape)}: expected at most {len(shape)} indices and one `...`. Got {given}.")
    at = dots[0] if dots else len(items)
    return [*items[:at], *[slice(None)] * (len(shape) - given), *items[at + 1 :]]


def _positions(item: Any, dim: int, size: int) -> Int[Tensor, "n"] | Int[Tensor, ""]:
    """The positions that one index names; of no dimension where it is a number, as in torch."""
    try:
        return torch.arange(size, device="cpu")[item.cpu() if isinstance(item, Tensor) else item]
    except (IndexError, TypeError, ValueError) as error:
        raise IndexError(f"Weights: cannot take {item!r} from the {size} of dimension {dim}: {error}") from None
