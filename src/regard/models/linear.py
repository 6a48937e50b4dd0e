"""Linear layers for inference, fused with the activation, residual and norm after them, on the native kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from regard.backends import cpu

try:
    from regard import _kernel
except ImportError:
    _kernel = None  # type: ignore[assignment]

ACTIVATIONS = {"": "", "gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu"}  # the kernel's names for activations
_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


def fastest_dtype() -> torch.dtype:
    """The type in which this processor computes fastest: bfloat16 where it has products of it, else float32."""
    fast = _kernel is not None and cpu.multiplies_bfloat16()
    return torch.bfloat16 if fast else torch.float32


class Linear:
    """y = norm(activation(x Wᵀ + b) + residual), (rows,inputs) → (rows,outputs), row by row.

    Several layers with the same inputs are fused into one, their outputs side by side. The kernel accumulates,
    activates and normalises in float32 whatever the type, and the result for a row does not depend, to the bit, on
    other rows. Without the kernel, PyTorch computes the same.

    >>> layer = torch.nn.Linear(3, 2)
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(Linear([layer])(x), layer(x), atol=1e-6)
    True
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear],
        activation: str = "",
        norm: nn.LayerNorm | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        weights = [layer.weight.detach() for layer in layers]
        weight = (torch.cat(weights) if len(weights) > 1 else weights[0]).to(dtype)
        self.outputs, self.inputs = weight.shape
        self.bias = torch.cat([_bias(layer) for layer in layers])
        self.activation, self.dtype = activation, dtype
        self.norm = None
        if norm is not None:
            self.norm = norm.weight.detach().float(), norm.bias.detach().float(), norm.eps
        self.isa = None if _kernel is None or weight.device.type != "cpu" else cpu.instruction_set()
        if self.isa is None:
            self.weight = weight.clone()  # as the kernel has a copy of its own
        else:
            weight = weight.contiguous()
            self.weight = torch.empty(_kernel.linear_size(weight, self.isa))
            _kernel.pack_linear(weight, self.weight, self.isa)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if self.isa is None:
            return self._by_torch(x, residual)
        rows = x.shape[0]
        output = torch.empty(rows, self.outputs, dtype=self.dtype)
        sums = torch.empty(rows, self.outputs) if self.norm and self.dtype != torch.float32 else None
        gain, shift, epsilon = self.norm or (None, None, 0.0)
        _kernel.linear(
            x=x,
            weight=self.weight,
            bias=self.bias,
            output=output,
            activation=ACTIVATIONS[self.activation],
            residual=residual,
            gain=gain,
            shift=shift,
            epsilon=epsilon,
            sums=sums,
            isa=self.isa,
            threads=torch.get_num_threads(),
        )
        return output

    def _by_torch(self, x: Tensor, residual: Tensor | None) -> Tensor:
        y = _TORCH[self.activation](F.linear(x, self.weight, self.bias.to(self.dtype)))
        y = y if residual is None else y + residual
        if self.norm:
            gain, shift, epsilon = self.norm
            y = F.layer_norm(y.float(), (self.outputs,), gain, shift, epsilon).to(self.dtype)
        return y


class KernelLinear(nn.Linear):
    """An `nn.Linear` for inference: y = x Wᵀ + b by `Linear`, the same to the bit for any number of threads.

    PyTorch splits its matrix product by the number of threads, so that the last digits of the result depend on it. It
    computes the result all the same where a gradient is wanted.
    """

    def __init__(self, layer: nn.Linear) -> None:
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features)
        self.weight, self.bias = layer.weight, layer.bias
        self._packed = Linear([layer])

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return F.linear(x, self.weight, self.bias)
        return self._packed(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)


def for_inference(model: nn.Module) -> None:
    """Replace every `nn.Linear` of a float32 model on the CPU by a `KernelLinear`."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if type(layer) is nn.Linear and layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu":
                setattr(parent, name, KernelLinear(layer))


def _bias(layer: nn.Linear) -> Tensor:
    return (
        torch.zeros(layer.out_features, device=layer.weight.device)
        if layer.bias is None
        else layer.bias.detach().float()
    )
