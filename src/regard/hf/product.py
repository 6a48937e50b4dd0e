"""Matrix products of a long prompt, by the kernel where it is faster than PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.backends import cpu

try:
    from regard import _kernel
except ImportError:
    _kernel = None  # type: ignore[assignment]

LEAST_TILED_ROWS = 256  # of a product whose weights are packed for it


def multiplies_in_tiles(rows: int) -> bool:
    """Whether this processor multiplies so many rows in tile registers, where floats are faster than in vectors."""
    return _kernel is not None and cpu.instruction_set() == "amx" and rows >= LEAST_TILED_ROWS


class Product:
    """x Wᵀ + b for the calls of one forward pass, packed anew for each, as the weights may have changed.

    Args:
        weight: (outputs,inputs) in float32.
        bias: (outputs), or None.

    >>> layer, x = torch.nn.Linear(3, 2), torch.randn(5, 3)
    >>> if cpu.available():
    ...     with torch.inference_mode():
    ...         assert torch.allclose(Product(layer.weight, layer.bias)(x, torch.empty(5, 2)), layer(x), atol=1e-6)
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.isa = cpu.instruction_set()
        weight = weight.detach().contiguous()
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        self.packed = torch.empty(_kernel.linear_size(weight, self.isa))
        _kernel.pack_linear(weight, self.packed, self.isa)

    def __call__(self, x: Tensor, to: Tensor, added: bool = False) -> Tensor:
        """(rows,inputs) → `to` (rows,outputs), which is returned; to what is there, if it is to be `added`."""
        _kernel.linear(
            x=x,
            weight=self.packed,
            bias=self.bias,
            output=to,
            residual=to if added else None,
            isa=self.isa,
            threads=torch.get_num_threads(),
        )
        return to


class TorchProduct:
    """`Product`, computed by PyTorch from the weights where they are."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor, to: Tensor, added: bool = False) -> Tensor:
        """As `Product`."""
        if added:
            to.addmm_(x, self.weight.T)
            return to if self.bias is None else to.add_(self.bias)
        if self.bias is None:
            return torch.mm(x, self.weight.T, out=to)
        return torch.addmm(self.bias, x, self.weight.T, out=to)


def product_for(weight: Tensor, bias: Tensor | None, rows: int) -> Product | TorchProduct:
    """The faster of the two for so many rows."""
    return (Product if multiplies_in_tiles(rows) else TorchProduct)(weight, bias)
