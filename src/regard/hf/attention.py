"""The attention that transformers calls, with the weights that are never stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from regard._internal.uncompiled import disable
from regard.attention import Attention, attention_of_model, keys_are_hidden
from regard.hf.mask import LazyMask, chosen_keys
from regard.hf.recorder import current
from regard.mask import both
from regard.weights import Weights


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Weights]:
    """What transformers calls for an attention: query (B,H,Q,D), key (B,G,K,D), value (B,G,K,E) → (B,Q,H,E), Weights.

    It gives what eager attention gives. A mask of None hides nothing, whatever `is_causal` and `sliding_window` say,
    which eager does not read either. A query that may look at nothing gets the mean of the values, as in eager, for
    models may pool over such rows; its weights are 0. `indices` (B,Q,n) and `block_indices` (B,G,Q,n) are the keys that
    an indexer chose for each query, and all others are hidden.

    Raises: ValueError for dropout in training, and where a model asks for what regard does not know.

    >>> import torch, regard.hf
    >>> x = torch.randn(1, 2, 5, 8)
    >>> output, weights = regard.hf.attend(torch.nn.Module(), x, x, x, None)
    >>> output.shape, weights.shape
    (torch.Size([1, 5, 2, 8]), torch.Size([1, 2, 5, 5]))
    """
    compute = _outside_of_graphs if torch.compiler.is_compiling() else _attend
    return compute(module, query, key, value, attention_mask, **kwargs)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    indices: Tensor | None = None,
    block_indices: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Weights]:
    _refuse_unknown(module, dropout, kwargs)
    # A static cache marks the tensors that it writes over in the next step, and the weights would change with them.
    static = hasattr(key, "_dynamo_static_input_type")
    generating = query.shape[2] == 1 and (static or bool(kwargs.get("output_attentions")))
    recorder = None if _recomputing() else current.get()
    if static and not generating:
        key = key.clone()
    if static and recorder is not None:
        value = value.clone()
    if isinstance(attention_mask, LazyMask) and not attention_mask.serves(query, key):
        attention_mask = attention_mask.dense()
    ready = (
        None if attention_mask is None or isinstance(attention_mask, LazyMask) else attention_mask[..., : key.shape[2]]
    )
    options = dict(attention_mask.options) if isinstance(attention_mask, LazyMask) else _ready_made(ready)
    if position_bias is not None and (position_bias.requires_grad or position_bias.any()):  # T5's cross-attention has 0
        bias = options.get("bias")
        options["bias"] = position_bias if bias is None else position_bias + bias
    if indices is not None:
        options["mask"] = both(options.get("mask"), chosen_keys(indices, query.shape[1]))
    if block_indices is not None:
        rule = chosen_keys(block_indices, query.shape[1], _block_size(module))
        options["mask"] = both(options.get("mask"), rule)
    if query.shape[0] == 1 != key.shape[0]:  # queries that a model learned, the same for all sequences
        query = query.expand(key.shape[0], -1, -1, -1)
    scale = None if scaling is None else float(scaling)
    result = attention_of_model(query, key, value, scale=scale, softcap=softcap, sinks=s_aux, **options)
    if generating and not result.lse.requires_grad:
        result = replace(result, weights=result.weights.compact())
    may_be_blind = options.keys() - {"causal", "window"} and not keys_are_hidden()
    output = _mean_where_blind(result, value, ready) if may_be_blind else result.output
    output = output.transpose(1, 2).contiguous()
    if recorder is not None:
        recorder.add(module, result, output)
    return output, result.weights


# Entering a function that torch.compile may not trace costs as much as a small attention, so only it is sent there.
_outside_of_graphs = disable(reason="the weights that it returns are an object, not a tensor of a graph")(_attend)


def _refuse_unknown(module: nn.Module, dropout: float, kwargs: dict[str, Any]) -> None:
    if dropout and module.training:
        raise ValueError(
            f"{type(module).__name__}: attention dropout is {dropout} and the model is in training; regard stores no "
            "weights that it could drop. Set the attention dropout in the model's config to 0, or call model.eval()."
        )
    if unknown := [name for name in ("sinks", "cache") if kwargs.get(name) is not None]:
        raise ValueError(
            f"{type(module).__name__}: it hands {', '.join(unknown)} to its attention, which regard does not know. "
            'Open the model with attn_implementation="eager".'
        )


def _block_size(module: nn.Module) -> int:
    size = getattr(getattr(module, "indexer", None), "block_size", None)
    if not isinstance(size, int):
        raise ValueError(
            f"{type(module).__name__}: it hands block_indices to its attention, and has no indexer.block_size that "
            'would say how many keys a block has. Open the model with attn_implementation="eager".'
        )
    return size


def _recomputing() -> bool:
    """Whether a backward pass is under way: gradient checkpointing then computes again what was recorded before."""
    return torch._C._current_graph_task_id() != -1


def _ready_made(mask: Tensor | None) -> dict[str, Any]:
    """A mask that the model made: bool, or numbers to add, the lowest of which mean unseen."""
    if mask is None:
        return {}
    if not mask.dtype.is_floating_point:
        return {"mask": mask}
    unseen = mask <= torch.finfo(mask.dtype).min / 2
    bias = mask.masked_fill(unseen, 0)
    options = {"mask": ~unseen} if unseen.any() else {}
    return options | {"bias": bias} if bias.requires_grad or bias.any() else options


def _mean_where_blind(result: Attention, value: Tensor, mask: Tensor | None) -> Tensor:
    """The output (B,H,Q,E), with the mean of the values for queries that may look at nothing.

    The lowest number added to all scores of a row leaves them equal, and eager's softmax of them uniform. Where masks
    were summed, the keys that only one of them hides are left: two such numbers make −inf.
    """
    blind = (result.lse == -torch.inf)[..., None]
    if not blind.any():
        return result.output
    repeat = result.output.shape[1] // value.shape[1]
    mean = value.mean(2, keepdim=True).repeat_interleave(repeat, 1)
    if mask is not None and mask.dtype.is_floating_point and mask.isneginf().any():
        left = (mask > -torch.inf).to(value.dtype)
        mean = left @ value.repeat_interleave(repeat, 1) / left.sum(-1, keepdim=True)
    return torch.where(blind, mean, result.output)
