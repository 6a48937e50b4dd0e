"""`record()`: every attention that models compute inside a block, and the modules that surround it."""

from __future__ import annotations

import warnings
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
        inner_norm: the norm of what that module gives, before it is added (Gemma 2, OLMo 2); None in most models.
        x: (B,N,dim), the residual stream to which it is added; None where this was not seen.
        norms: in a post-norm model, the norms of the residual stream after the attention and after the feed-forward
            network; empty in a pre-norm model.

    >>> import torch, regard.hf
    >>> from transformers import BertConfig, BertModel
    >>> config = BertConfig(
    ...     vocab_size=11, hidden_size=16, intermediate_size=13, num_hidden_layers=1, num_attention_heads=4
    ... )
    >>> model = BertModel._from_config(config, attn_implementation="regard").eval()
    >>> with torch.no_grad(), regard.hf.record() as attentions:
    ...     hidden = model(torch.tensor([[3, 1, 4, 1, 5]])).last_hidden_state
    >>> attentions[0].output, attentions[0].x.shape, len(attentions[0].norms)
    (Linear(in_features=16, out_features=16, bias=True), torch.Size([1, 5, 16]), 2)
    """

    output: nn.Module | None = None
    inner_norm: nn.Module | None = None
    x: Tensor | None = None
    norms: tuple[nn.Module, ...] = ()


@contextmanager
def record() -> Iterator[list[Recorded]]:
    """Collects every attention that models compute inside the block, in the order in which they compute them.

    What surrounds them, `Recorded.output` and the other attributes, is seen by hooks on all modules, which the block
    removes when it ends. Inside torch.compile and in other threads nothing is seen, and past a dropout no residual
    stream.

    >>> import regard.hf
    >>> from transformers import BertConfig, BertModel
    >>> config = BertConfig(
    ...     vocab_size=11, hidden_size=16, intermediate_size=13, num_hidden_layers=2, num_attention_heads=4
    ... )
    >>> model = BertModel._from_config(config, attn_implementation="regard").eval()
    >>> with torch.no_grad(), regard.hf.record() as attentions:
    ...     hidden = model(torch.tensor([[3, 1, 4, 1, 5]])).last_hidden_state
    >>> [(type(module).__name__, attention.weights.shape) for module, attention in attentions]
    [('BertSelfAttention', torch.Size([1, 4, 5, 5])), ('BertSelfAttention', torch.Size([1, 4, 5, 5]))]
    """
    recorder = Recorder()
    hooks = [register_module_forward_pre_hook(recorder.entering), register_module_forward_hook(recorder.leaving)]
    token = current.set(recorder)
    try:
        with warnings.catch_warnings():  # of hooks that torch.compile calls twice, to which these are indifferent
            warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global hooks")
            yield recorder.attentions
    finally:
        current.reset(token)
        for hook in hooks:
            hook.remove()


class Recorder:
    """Collects attentions, and watches what enters the linear modules and norms around them.

    What an attention gives enters the output projection, the result is added to something that entered a norm or a
    linear module before the attention, in some models along with the feed-forward network, and the sum enters the next
    one. Where that is a norm, the feed-forward network is added to what the norm gives in a post-norm model, and to the
    sum itself in a pre-norm model. Tensors are told by their memory and sums by a few rows, so this costs next to
    nothing.
    """

    def __init__(self) -> None:
        self.attentions: list[Recorded] = []
        self._recent: deque[tuple[bool, weakref.ref[Tensor]]] = deque(maxlen=32)  # into a norm?, what entered
        self._before: list[tuple[bool, Tensor]] = []  # the same before the last attention, as far as still alive
        self._heads: Tensor | None = None  # what the last attention gave, until it enters the output projection
        self._change: Tensor | None = None  # what the output projection gave, or the inner norm after it
        self._latest: Tensor | None = None  # what the last linear module after that gave: the feed-forward network
        self._summed: _Summed | None = None  # the sum that entered a norm, until it is known to be a post-norm

    def add(self, module: nn.Module, attention: Attention, output: Tensor) -> None:
        """One more attention, and its output as the model gets it."""
        self._before = [(norm, tensor) for norm, entered in self._recent if (tensor := entered()) is not None]
        if self._summed is not None and any(tensor is self._summed.normed for _, tensor in self._before):
            self._settle(self._summed.x, self._summed.norm)  # a post-norm, and cross-attention after it
        self.attentions.append(Recorded(module, attention))
        self._heads, self._change, self._latest, self._summed = output, None, None, None
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
        elif self._before and self._change is not None:
            if norm and _same_memory(x, self._change):
                self.attentions[-1].inner_norm = module
            else:
                self._first(module, x, norm)

    def leaving(self, module: nn.Module, _: Any, output: Any) -> None:
        """The hook after it."""
        if torch.compiler.is_compiling() or current.get() is not self or not isinstance(output, Tensor):
            return
        if self._summed is not None and module is self._summed.norm and self._summed.normed is None:
            self._summed.normed = output
        elif self._before and module in (self.attentions[-1].output, self.attentions[-1].inner_norm):
            self._change = output
        elif self._change is not None and is_linear(module):
            self._latest = output

    def _first(self, module: nn.Module, total: Tensor, norm: bool) -> None:
        """Looks for x, to which the output projection's result was added, once the sum enters a module."""
        for _, x in self._before:
            alone = _is_sum(total, x, self._change)
            if alone or _is_sum(total, x, self._change, self._latest):
                break
        else:
            return
        if alone and norm and not any(before and tensor is x for before, tensor in self._before):
            self._summed = _Summed(x, total, module)
        else:  # x entered a norm before the attention
            self._settle(x)
        self._before = []

    def _second(self, module: nn.Module, total: Tensor) -> None:
        """Tells a post-norm from a pre-norm, once the next norm is called."""
        summed = self._summed
        if summed is None or summed.normed is None:
            return
        if _is_sum(total, summed.normed, self._latest):
            self._settle(summed.x, summed.norm, module)
        elif _is_sum(total, summed.total, self._latest):
            self._settle(summed.x)
        self._summed = None

    def _settle(self, x: Tensor, *norms: nn.Module) -> None:
        self.attentions[-1].x, self.attentions[-1].norms = x, norms
        self._change = self._latest = None


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
def _is_sum(total: Tensor, *summands: Tensor | None) -> bool:
    """Whether the summands have this total, judged by three rows, up to the rounding of a sum."""
    tensors = [tensor for tensor in summands if tensor is not None and tensor.ndim > 1]
    if len(tensors) < len(summands) or len({tensor.shape for tensor in tensors}) > 1:
        return False
    shape = tensors[0].shape
    if total.numel() != shape.numel() or total.shape[-1] != shape[-1]:
        return False
    total = total.reshape(shape)  # OPT has made one dimension of batch and tokens
    first, middle, last = (0,) * (len(shape) - 1), (0,) * (len(shape) - 2) + (shape[-2] // 2,), (-1,) * (len(shape) - 1)
    for row in (first, middle, last):
        rows = torch.stack([tensor[row].double() for tensor in tensors])
        allowed = 4 * torch.finfo(total.dtype).eps * rows.abs().sum(0)
        if bool(((rows.sum(0) - total[row].double()).abs() > allowed).any()):
            return False
    return True
