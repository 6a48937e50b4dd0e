"""Linear layers for inference whose product with the weights is made of whole numbers of eight bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regard.backends import cpu
from regard.models.linear import ACTIVATIONS

try:
    from regard import _kernel
except ImportError:
    _kernel = None  # type: ignore[assignment]


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """W (outputs,inputs) as whole numbers q of −127 to 127 and a scale for each output: W_oi ≈ scale_o · q_oi.

    >>> weight = torch.tensor([[0.5, -1.0, 0.2], [0.0, 0.0, 0.0]])
    >>> numbers, scales = quantized(weight)
    >>> numbers.tolist()
    [[64, -127, 25], [0, 0, 0]]
    """
    scales = weight.float().abs().amax(1) / 127
    numbers = weight.float() / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return numbers.round().nan_to_num(0, 0, 0).to(torch.int8), scales


class QuantizedLinear:
    """y = norm(activation(x Wᵀ + b) + residual) as `Linear`, in float32, with x and W rounded for the product alone.

        w_oi ≈ scale_o · q_oi      x_i ≈ step · (q_i − zero)      Σ_i x_i w_oi ≈ step · scale_o · Σ_i (q_i − zero) q_oi

    for whole numbers −127 ≤ q_oi ≤ 127 and 0 ≤ q_i ≤ 255. The scale of an output is fixed; step and zero are those of a
    row, from its largest and its smallest number. The sum is exact, so that it depends neither on other rows nor on
    how the work is divided. A row with a number that is not finite gives nan.

    It needs the native kernel, and is worth it where the processor multiplies bytes: with VNNI or AMX.

    >>> layer = torch.nn.Linear(3, 2)
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(QuantizedLinear([layer])(x), layer(x), atol=0.1)
    True
    """

    def __init__(self, layers: Sequence[nn.Linear], activation: str = "", norm: nn.LayerNorm | None = None) -> None:
        if _kernel is None:
            raise ValueError("embed: dtype: 'int8' needs regard's native kernel, which is not here. Use 'float32'.")
        numbers, self.scales = quantized(torch.cat([layer.weight.detach() for layer in layers]))
        self.outputs, self.inputs = numbers.shape
        self.totals = numbers.sum(1).float()
        self.bias = torch.cat([layer.bias.detach().float() for layer in layers])
        self.activation = activation
        self.norm = None if norm is None else (norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)
        self.isa = cpu.instruction_set()
        self.weight = torch.empty(_kernel.quantized_size(numbers, self.isa), dtype=torch.uint8)
        _kernel.pack_quantized(numbers, self.weight, self.isa)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        output = torch.empty(x.shape[0], self.outputs)
        gain, shift, epsilon = self.norm or (None, None, 0.0)
        _kernel.quantized(
            x=x,
            weight=self.weight,
            scales=self.scales,
            totals=self.totals,
            bias=self.bias,
            output=output,
            activation=ACTIVATIONS[self.activation],
            residual=residual,
            gain=gain,
            shift=shift,
            epsilon=epsilon,
            isa=self.isa,
            threads=torch.get_num_threads(),
        )
        return output
