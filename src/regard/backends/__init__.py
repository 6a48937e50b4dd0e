"""The one list of backends, in the order in which they are asked; each says for itself why it cannot serve."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor, float32, zeros

from regard.backends import cpu, reference, streaming
from regard.backends import torch as torch_backend
from regard.mask import Mask
from regard.scores import Scores, Softmax

BACKENDS: dict[str, ModuleType] = {"cpu": cpu, "torch": torch_backend, "reference": reference}


def choose(name: str | None, scores: Scores, value: Tensor) -> ModuleType:
    """The backend of that name, or the first that serves.

    Raises ValueError where there is none of the name, or where it cannot serve, with all its reasons.
    """
    if name is None:
        for backend in BACKENDS.values():
            if not backend.reasons(scores, value):
                return backend
    if name not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}. Got {name!r}.")
    if reasons := BACKENDS[name].reasons(scores, value):
        raise ValueError(f"backend: {name!r} cannot serve: {'; '.join(reasons)}.")
    return BACKENDS[name]


def reductions(softmax: Softmax) -> ModuleType:
    """Who computes statistics of the weights: the kernel where their lse is its own, streamed blocks elsewhere."""
    return cpu if cpu.serves(softmax) else streaming


def here() -> dict[str, list[str]]:
    """Each backend's reasons for not serving a plain attention in float32 on this machine's processor."""
    tensor = zeros(1, 1, 1, 1, dtype=float32, device="cpu")
    scores = Scores(tensor, tensor, Mask(queries=1, keys=1), scale=1.0)
    refusals = {}
    for name, backend in BACKENDS.items():
        try:
            refusals[name] = backend.reasons(scores, tensor)
        except ValueError as error:
            refusals[name] = [str(error).rstrip(".")]
    return refusals


def what(name: str) -> str:
    """What a backend that serves here is; of the kernel, its instruction set and those that REGARD_ISA can force."""
    if name != "cpu":
        on_cuda = "; on CUDA it has not been run yet" if name == "torch" else ""
        return (BACKENDS[name].__doc__ or "").partition(".")[0] + on_cuda
    used, *others = sorted(cpu.instruction_sets(), key=lambda one: one != cpu.instruction_set())
    return f"the native kernel, {used}" + (f" (REGARD_ISA can force {', '.join(others)})" if others else "")
