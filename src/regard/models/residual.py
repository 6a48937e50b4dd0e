"""The residual stream of a model: which layers add to it what their heads give, and the norm that follows the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from regard.models.projections import Projections, tolerance

if TYPE_CHECKING:
    from jaxtyping import Float


class _Call(NamedTuple):
    """A call of a module: what it was given and what it returned, without the batch dimension."""

    module: nn.Module
    input: Tensor
    output: Tensor


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """A LayerNorm or RMSNorm as a linear map, its standard deviations being those of given rows:

    final_i = factor_i · gain ∘ (x_i − mean x_i) + bias             without the mean for an RMSNorm
    """

    gain: Float[Tensor, "dim"]
    bias: Float[Tensor, "dim"]
    factor: Float[Tensor, "N"]
    centred: bool

    def before(self, direction: Float[Tensor, "dim"]) -> Float[Tensor, "dim"]:
        """The direction d′ with final_i · direction = factor_i · (x_i · d′) + bias · direction."""
        scaled = self.gain * direction
        return scaled - scaled.mean() if self.centred else scaled


@dataclass(frozen=True, eq=False)
class ResidualStream:
    """What the layers of a model add up to.

    Attributes:
        adds: for each layer whether x + (what the heads give, after W_O) + (what another module gives) is what it
            passes on: so it is where layers normalise before and not after.
        norm: the module between the last layer and the final states; None where there is none, or no single one.
    """

    adds: Sequence[bool]
    norm: nn.Module | None

    def frozen_norm(self, x: Float[Tensor, "N dim"], final: Float[Tensor, "N dim"]) -> FrozenNorm | None:
        """The norm at these last hidden and final states (float64); None where it is of another kind."""
        if self.norm is None:
            return None
        probe = torch.ones(x.shape[-1])
        probe[1::2] = -1  # its mean is zero, and none of its numbers is
        if len(probe) % 2:
            probe[-2:] -= 0.5 * torch.tensor([-1.0, 3.0])
        dtype = next((parameter.dtype for parameter in self.norm.parameters()), torch.float32)
        probes = torch.stack([probe, -probe, probe + 3]).to(x.device, dtype)
        with torch.no_grad():
            up, down, shifted = (self.norm(row[None, None])[0, 0].double() for row in probes)
        gain, bias = (up - down) / (2 * probe.to(x)), (up + down) / 2
        centred = bool((up - shifted).abs().max() <= 1e-2 * up.abs().max())
        scaled = gain * (x - x.mean(-1, keepdim=True) if centred else x)
        factor = ((final - bias) * scaled).sum(-1) / scaled.square().sum(-1).clamp(min=1e-30)
        fits = (factor[:, None] * scaled + bias - final).abs().max() <= 10 * tolerance(dtype) * final.abs().max()
        return FrozenNorm(gain, bias, factor, centred) if fits else None


def find_residual(
    forward: Callable[..., Any],
    blocks: Sequence[nn.Module],
    projections: Sequence[Projections | None],
    ids: Sequence[int],
) -> ResidualStream:
    """The residual stream of a model, watched while it reads a few tokens."""
    calls: list[_Call] = []
    thread = threading.get_ident()

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        result = output[0] if isinstance(output, tuple) and output else output
        given = inputs[0] if isinstance(inputs, tuple) and inputs else None
        if threading.get_ident() == thread and _is_batch(given) and _is_batch(result):
            calls.append(_Call(module, given[0], result[0]))

    handle = register_module_forward_hook(keep)
    try:
        with torch.no_grad():
            hidden, _, final = forward(torch.tensor([ids]), None, None)
    finally:
        handle.remove()
    states = [state[0] for state in hidden]
    adds = (
        [
            known is not None and _adds(calls, block, known, before, after)
            for block, known, before, after in zip(blocks, projections, states[:-1], states[1:], strict=True)
        ]
        if blocks
        else [False] * (len(states) - 1)
    )
    norms = (call.module for call in calls if _same(call.input, states[-1]) and _same(call.output, final[0]))
    return ResidualStream(adds, None if _same(states[-1], final[0]) else next(norms, None))


def _adds(calls: Sequence[_Call], block: nn.Module, known: Projections, before: Tensor, after: Tensor) -> bool:
    inner = set(block.modules())
    own = [call for call in calls if call.module in inner and call.output.shape == before.shape]
    attended = next((call.output for call in own if call.module is known.output), None)
    if attended is None:
        return False
    others = after.double() - before.double() - attended.double()
    limit = tolerance(after.dtype) * float(after.abs().max())
    return any(float((call.output.double() - others).abs().max()) <= limit for call in own)


def _is_batch(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 3


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second)
