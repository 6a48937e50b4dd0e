"""The mask: what transformers says about who may see whom, as options of regard.attention."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
from torch.utils._pytree import tree_map_only
from transformers import masking_utils

from regard._internal.uncompiled import disable
from regard._typing import MaskMod


class LazyMask(Tensor):
    """A model's mask as a rule, in the guise of the tensor (B,1,Q,K) that eager attention would get.

    Nothing of that size exists unless the model reads or changes the mask itself. It then computes with eager's own
    tensor, numbers to add to the scores, so that casts, sums and concatenations mean what they mean in eager.

    >>> import torch, regard.hf
    >>> mask = regard.hf.lazy_mask(1, 4, 4, dtype=torch.float32)
    >>> mask.shape, mask.options
    (torch.Size([1, 1, 4, 4]), {'causal': True, 'window': (None, None)})
    >>> mask[0, 0]                                                # as soon as it is read
    tensor([[ 0.0000e+00, -3.4028e+38, -3.4028e+38, -3.4028e+38],
            [ 0.0000e+00,  0.0000e+00, -3.4028e+38, -3.4028e+38],
            [ 0.0000e+00,  0.0000e+00,  0.0000e+00, -3.4028e+38],
            [ 0.0000e+00,  0.0000e+00,  0.0000e+00,  0.0000e+00]])
    """

    options: dict[str, Any]  # what it says, for regard.attention
    _make: Callable[[], Tensor]
    _dense: Tensor | None

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(
        cls,
        make: Callable[[], Tensor],
        options: dict[str, Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> LazyMask:
        self = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=torch.device(device))
        self.options, self._make, self._dense = options, make, None
        return self

    def dense(self) -> Tensor:
        """The mask that eager attention would get; always the same tensor, so that a change in place is kept.

        >>> import torch, regard.hf
        >>> mask = regard.hf.lazy_mask(1, 3, 3, dtype=torch.float32)
        >>> mask.dense()[0, 0] == 0
        tensor([[ True, False, False],
                [ True,  True, False],
                [ True,  True,  True]])
        """
        if self._dense is None:
            with ThreadPoolExecutor(1) as clean:  # inside a dispatch, vmap, which users' rules need, does not work
                self._dense = clean.submit(self._make).result()
        return self._dense

    def serves(self, query: Tensor, key: Tensor) -> bool:
        """Whether the options still say what the mask says: it has this size, and the model has not written into it.

        >>> import torch, regard.hf
        >>> x = torch.randn(1, 2, 4, 8)
        >>> mask = regard.hf.lazy_mask(1, 4, 4, dtype=torch.float32)
        >>> mask.serves(x, x), mask.serves(x[:, :, :3], x)
        (True, False)
        """
        if self.shape[2:] != (query.shape[2], key.shape[2]):
            return False
        uncounted = self.is_inference() or torch.is_inference_mode_enabled()  # there, writing is not counted
        return self._dense is None if uncounted else self._version == 0

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = tree_map_only(LazyMask, lambda mask: mask.dense(), (args, kwargs or {}))
        return function(*args, **kwargs)

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"LazyMask(shape={tuple(self.shape)}, options={self.options})"


@disable(reason="a mask of rules is not a tensor of a graph")
def lazy_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = masking_utils.causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_bidirectional_skip: bool = False,
    dtype: torch.dtype | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **_: Any,
) -> LazyMask | None:
    """What transformers asks for a mask: its rule on absolute positions, and which keys are padding (B, keys).

    Models name the `dtype` of the numbers that eager attention would add to its scores; without one, the mask is bool,
    True = may look. None where eager's is None: everybody sees everything, and the model lets that be said by None.

    >>> import torch, regard.hf
    >>> padding = torch.tensor([[True, True, True, False]])
    >>> regard.hf.lazy_mask(1, 4, 4, attention_mask=padding, dtype=torch.float32).options
    {'causal': True, 'window': (None, None), 'lengths': tensor([3])}
    """
    q_offset = int(q_offset)  # static caches count in a tensor, and count on
    if allow_is_bidirectional_skip and masking_utils._ignore_bidirectional_mask_sdpa(
        masking_utils.prepare_padding_mask(attention_mask, kv_length, kv_offset), kv_length, local_size
    ):
        return None
    sizes = {"batch_size": batch_size, "q_length": q_length, "kv_length": kv_length}
    rule = {"mask_function": mask_function, "attention_mask": attention_mask, "use_vmap": use_vmap}
    make = partial(_dense, dtype, **sizes, **rule, q_offset=q_offset, kv_offset=kv_offset, device=device)
    causal, window, others = _recognised(mask_function)
    end = q_offset + q_length - kv_offset  # after the last query, counted in keys
    options: dict[str, Any] = {"causal": causal, "window": window}
    if causal and 0 <= end < kv_length:  # a cache with room for more: a segment that nobody looks into
        bounds = (0, q_length, q_length), (0, end, kv_length)
        options["segments"] = tuple(torch.tensor(ends, device=device) for ends in bounds)
    elif end != kv_length and (causal or window != (None, None)):
        options, others = {}, [mask_function]
    if attention_mask is not None:
        short = kv_offset + kv_length - attention_mask.shape[1]
        padding = nn.functional.pad(attention_mask, (0, max(0, short)))
        real = padding[:, kv_offset : kv_offset + kv_length]
        looked_at = real[:, :end] if "segments" in options else real
        lengths = looked_at.sum(-1)
        if looked_at.all():
            pass
        elif others:
            others = [*others, masking_utils.padding_mask_function(padding)]
        elif torch.equal(looked_at, torch.arange(looked_at.shape[1], device=real.device) < lengths[:, None]):
            options["lengths"] = lengths
        else:
            options["mask"] = real[:, None, None]  # (B, 1, 1, K)
    if others:
        options["mask"] = _together(others, q_offset, kv_offset, use_vmap)
    return LazyMask(make, options, (batch_size, 1, q_length, kv_length), dtype or torch.bool, device)


def _dense(dtype: torch.dtype | None, **options: Any) -> Tensor:
    """What the model would have got from transformers; a tensor of its own, which may be written into."""
    if dtype is not None:
        return masking_utils.eager_mask(**options, dtype=dtype)
    mask = masking_utils.sdpa_mask(**options, allow_is_causal_skip=False)
    assert mask is not None  # nothing may be skipped
    return mask.contiguous()


def _recognised(
    mask_function: Callable[..., Any],
) -> tuple[bool, tuple[int | None, int | None], list[Callable[..., Any]]]:
    """Whether a rule is causal, its window, and the other rules in it; all of them hold."""
    causal, left, right, others = False, [], [], []
    for rule in _rules(mask_function):
        back = _closed_over(rule, masking_utils.sliding_window_overlay).get("sliding_window")
        around = _closed_over(rule, masking_utils.sliding_window_bidirectional_overlay).get("sliding_window")
        if rule is masking_utils.causal_mask_function:
            causal = True
        elif isinstance(back, int) and back > 0:
            left.append(back - 1)
        elif isinstance(around, int) and around >= 0:
            left.append(around)
            right.append(around)
        elif rule is not masking_utils.bidirectional_mask_function:
            others.append(rule)
    return causal, (min(left, default=None), min(right, default=None)), others


def _rules(mask_function: Callable[..., Any]) -> list[Callable[..., Any]]:
    joined = _closed_over(mask_function, masking_utils.and_masks).get("mask_functions")
    return [mask_function] if joined is None else [rule for function in joined for rule in _rules(function)]


def _closed_over(function: Callable[..., Any], factory: Callable[..., Any]) -> Mapping[str, Any]:
    """What the function closed over, if the factory made it: all that it makes share one code object. Else nothing."""
    if isinstance(function, FunctionType) and function.__code__ in factory.__code__.co_consts:
        return inspect.getclosurevars(function).nonlocals
    return {}


def _together(rules: list[Callable[..., Any]], q_offset: int, kv_offset: int, use_vmap: bool) -> MaskMod:
    """All these rules of transformers as a single mask of regard, which is called tile by tile."""
    together = masking_utils.and_masks(*rules)

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query, key = query + q_offset, key + kv_offset
        if not use_vmap:
            visible: Tensor = together(batch, head, query, key)
            return visible
        with TransformGetItemToIndex():  # a user's own rule, which may be for single numbers only
            flat = (index.flatten() for index in (batch, head[:1], query, key))
            visible = masking_utils._vmap_expansion_sdpa(together)(*flat)
            return visible

    return rule


def chosen_keys(indices: Tensor, heads: int, size: int = 1) -> MaskMod:
    """What an indexer lets through, as a rule: for each query the keys, or blocks of `size` keys, that it chose.

    Args:
        indices: (B, Q, n), or (B, G, Q, n) for groups of the `heads`; −1 is none.
    """
    grouped = indices if indices.ndim == 4 else indices[:, None]
    groups = grouped.shape[1]

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        group = head.flatten() * groups // heads
        chosen = grouped[batch.reshape(-1, 1, 1), group[:, None], query.flatten()].long()  # (b, h, q, n)
        blocks = key.flatten() // size
        count = 1 + max(int(blocks.max()), int(chosen.max()))
        visible = torch.zeros(*chosen.shape[:3], count + 1, dtype=torch.bool, device=chosen.device)
        visible.scatter_(-1, torch.where(chosen < 0, count, chosen), True)
        return visible[..., blocks]

    return rule
