"""`record()`: every attention that models compute inside a block, and the modules that surround it."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from regard._internal.modules import is_linear, is_norm
from regard.attention import Attention


class _Pair(NamedTuple):
    module: nn.Module
    attention: Attention


class Recorded(_Pair):
    """An attention, and the module of the model that computed it: `module, attention = recorded`.

    Attributes:
        output: the module that joins the heads, W_O; None where what the attention gives enters no such module.
        x: (B,N,dim), the residual stream to which that module's output is added; None where this was not seen.
        norms: in a post-norm model, the norms of the residual stream after the attention and after the feed-forward
            network; empty in a pre-norm model.
    """

    output: nn.Module | None = None
    x: Tensor | None = None
    norms: tuple[nn.Module, ...] = ()


@contextmanager
def record() -> Iterator[list[Recorded]]:
    """Collects every attention that models compute inside the block, in the order in which they compute them.

    with regard.hf.record() as attentions:
        model(**inputs)
    [(type(module).__name__, attention.value.shape) for module, attention in attentions]

    What surrounds them (`Recorded.output`, `x`, `norms`) is seen by hooks on all modules, which the block removes when
    it ends; inside torch.compile nothing is seen.
    """
    recorder = Recorder()
    hooks = [register_module_forward_pre_hook(recorder.entering), register_module_forward_hook(recorder.leaving)]
    token = current.set(recorder)
    try:
        yield recorder.attentions
    finally:
        current.reset(token)
        for hook in hooks:
            hook.remove()


class Recorder:
    """Collects attentions, and watches what enters the linear modules and norms around them.

    What an attention gives enters the output projection, the result is added to something that entered a norm or a
    linear module before the attention, and the sum enters the next one. Where that is a norm, the feed-forward network
    is added to what the norm gives in a post-norm model, and to the sum itself in a pre-norm model. Tensors are told by
    their memory and sums by a few rows, so this costs next to nothing.
    """

    def __init__(self) -> None:
        self.attentions: list[Recorded] = []
        self._recent: deque[tuple[bool, weakref.ref[Tensor]]] = deque(maxlen=32)  # into a norm?, what entered
        self._before: list[tuple[bool, Tensor]] = []  # the same before the last attention, as far as still alive
        self._heads: Tensor | None = None  # what the last attention gave, until it enters the output projection
        self._linear: Tensor | None = None  # what the output projection gave and, after the sum, the last linear module
        self._summed: _Summed | None = None  # the sum that entered a norm, until it is known to be a post-norm

    def add(self, module: nn.Module, attention: Attention, output: Tensor) -> None:
        """One more attention, and its output as the model gets it."""
        self._before = [(norm, tensor) for norm, entered in self._recent if (tensor := entered()) is not None]
        if self._summed is not None and any(tensor is self._summed.normed for _, tensor in self._before):
            self._settle(self._summed.x, self._summed.norm)  # a post-norm, and cross-attention after it
        self.attentions.append(Recorded(module, attention))
        self._heads, self._linear, self._summed = output, None, None
        self._recent.clear()

    def entering(self, module: nn.Module, inputs: Any) -> None:
        """The hook before the forward pass of a module."""
        if torch.compiler.is_compiling() or current.get() is not self or not inputs:
            return
        x, norm = inputs[0], is_norm(module)
        if not isinstance(x, Tensor) or not (norm or is_linear(module)):
            return
        self._recent.append((norm, weakref.ref(x)))
        if self._heads is not None and not norm and _same_memory(x, self._heads):
            self.attentions[-1].output = module
            self._heads = None
        elif self._summed is not None and norm:
            self._second(module, x)
        elif self._before and self._linear is not None:
            self._first(module, x, norm)

    def leaving(self, module: nn.Module, _: Any, output: Any) -> None:
        """The hook after it."""
        if torch.compiler.is_compiling() or current.get() is not self or not isinstance(output, Tensor):
            return
        if self._summed is not None and module is self._summed.norm and self._summed.normed is None:
            self._summed.normed = output
        elif (self._summed and is_linear(module)) or (self._before and module is self.attentions[-1].output):
            self._linear = output

    def _first(self, module: nn.Module, total: Tensor, norm: bool) -> None:
        """Looks for x, to which the output projection's result was added, once the sum enters a module."""
        x = next((tensor for _, tensor in self._before if _is_sum(total, tensor, self._linear)), None)
        if x is None:
            return
        if norm and not any(before and tensor is x for before, tensor in self._before):
            self._summed = _Summed(x, total, module)
        else:  # x entered a norm before the attention
            self._settle(x)
        self._before = []

    def _second(self, module: nn.Module, total: Tensor) -> None:
        """Tells a post-norm from a pre-norm, once the next norm is called."""
        summed = self._summed
        if summed is None or summed.normed is None:
            return
        if _is_sum(total, summed.normed, self._linear):
            self._settle(summed.x, summed.norm, module)
        elif _is_sum(total, summed.total, self._linear):
            self._settle(summed.x)
        self._summed = None

    def _settle(self, x: Tensor, *norms: nn.Module) -> None:
        self.attentions[-1].x, self.attentions[-1].norms = x, norms


@dataclass
class _Summed:
    """A sum x + change that entered a norm, and what the norm gave."""

    x: Tensor
    total: Tensor
    norm: nn.Module
    normed: Tensor | None = None


current: ContextVar[Recorder | None] = ContextVar("current", default=None)


def _same_memory(x: Tensor, heads: Tensor) -> bool:
    try:
        return x.numel() == heads.numel() and x.data_ptr() == heads.data_ptr()
    except RuntimeError:  # a tensor without memory of its own, as of a mesh of devices
        return False


@torch.no_grad()
def _is_sum(total: Tensor, x: Tensor, change: Tensor | None) -> bool:
    """Whether total = x + change, judged by three rows, up to the rounding of the sum."""
    if change is None or not x.shape == change.shape == total.shape or x.ndim < 2:
        return False
    middle = x.shape[-2] // 2
    for row in ((0,) * (x.ndim - 1), (0,) * (x.ndim - 2) + (middle,), (-1,) * (x.ndim - 1)):
        one, other = x[row].double(), change[row].double()
        allowed = 4 * torch.finfo(total.dtype).eps * (one.abs() + other.abs())
        if bool(((one + other - total[row].double()).abs() > allowed).any()):
            return False
    return True
