"""The one list of backends, in the order in which they are asked."""

from __future__ import annotations

from torch import Tensor, float32, zeros

from regard.backends import cpu, reference, streaming
from regard.backends import torch as torch_backend
from regard.backends.protocol import Backend, Reductions
from regard.mask import Mask
from regard.scores import Scores

BACKENDS: dict[str, Backend] = {"cpu": cpu, "torch": torch_backend, "reference": reference}

# Who computes the reductions of the weights that a backend made.
_REDUCTIONS: dict[str, Reductions] = {"cpu": cpu, "torch": streaming, "reference": streaming}


def choose(name: str | None, scores: Scores, value: Tensor) -> str:
    """The name of the backend: the given one or, for None, the first that can compute this attention.

    Raises: ValueError where no backend has the name, or where it cannot compute this, with all its reasons.
    """
    if name is None:
        for candidate, backend in BACKENDS.items():
            if not backend.reasons(scores, value):
                return candidate
    if name not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}. Got {name!r}.")
    if reasons := BACKENDS[name].reasons(scores, value):
        raise ValueError(f"backend: {name!r} cannot serve: {'; '.join(reasons)}.")
    return name


def reductions(name: str) -> Reductions:
    """Who computes reductions of the weights that a backend made: the kernel of its own, streamed blocks of all others.

    Streamed blocks serve too where the kernel is missing, as for weights from another machine.
    """
    if name == "cpu" and cpu.unavailable():
        return streaming
    return _REDUCTIONS[name]


def availability() -> dict[str, list[str]]:
    """Each backend's reasons for not serving a plain attention in float32 on this machine's processor."""
    tensor = zeros(1, 1, 1, 1, dtype=float32, device="cpu")
    scores = Scores(tensor, tensor, Mask(queries=1, keys=1), scale=1.0)
    reasons = {}
    for name, backend in BACKENDS.items():
        try:
            reasons[name] = backend.reasons(scores, tensor)
        except ValueError as error:
            reasons[name] = [str(error).rstrip(".")]
    return reasons


def description(name: str) -> str:
    """A backend that is available, in a few words; the kernel with its instruction set and those that can be forced."""
    if name != "cpu":
        return (BACKENDS[name].__doc__ or "").partition(".")[0]
    used = cpu.instruction_set()
    others = [isa for isa in cpu.instruction_sets() if isa != used]
    return f"the native kernel, {used}" + (f" (REGARD_ISA can force {', '.join(others)})" if others else "")
