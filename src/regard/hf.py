"""The door to Hugging Face: attention weights that are never stored, from the models of transformers.

Importing this module registers "regard" with transformers, as an attention and as the mask that belongs to it:

    import regard.hf
    model = AutoModel.from_pretrained(name, attn_implementation="regard")
    out = model(**inputs, output_attentions=True)

`out.attentions[layer]`, and `encoder_attentions`, `decoder_attentions` and `cross_attentions` where a model has them,
are then `regard.Weights` in the shape of eager's matrices: exact, in O(N) memory. So are those of `generate`, which
keep the scores of a generated token and not, step after step, all keys before it.

>>> import torch, transformers
>>> import regard.hf
>>> config = transformers.LlamaConfig(
...     vocab_size=11, hidden_size=16, intermediate_size=13, num_hidden_layers=2,
...     num_attention_heads=4, num_key_value_heads=2, attn_implementation="regard",
... )
>>> model = transformers.LlamaModel(config).eval()
>>> with torch.no_grad():  # without it, a loss on the attentions has a gradient
...     out = model(torch.tensor([[3, 1, 4, 1, 5]]), output_attentions=True)
>>> out.attentions[1]
Weights(shape=(1, 4, 5, 5), dtype=torch.float32, device=cpu)
>>> out.attentions[1][0, 2, 0]                            # the first token can look at itself alone
tensor([1., 0., 0., 0., 0.])

Give `output_attentions=True` to the call: in a config, transformers refuses it for all implementations but eager.
Attention dropout is refused in training, because nothing is stored that could be dropped the same way twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial, wraps
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, masking_utils

from regard.attention import Attention, attention
from regard.mask import Block, Mask, Rule
from regard.scores import Scores
from regard.weights import Weights

NAME = "regard"


class Recorded(NamedTuple):
    """An attention, and the module of the model that computed it."""

    module: nn.Module
    attention: Attention


_recorded: ContextVar[list[Recorded] | None] = ContextVar("recorded", default=None)


@contextmanager
def record() -> Iterator[list[Recorded]]:
    """Collects every attention that models compute inside the block, in the order in which they compute them.

    with regard.hf.record() as attentions:
        model(**inputs)
    [(type(module).__name__, attention.value.shape) for module, attention in attentions]
    """
    attentions: list[Recorded] = []
    token = _recorded.set(attentions)
    try:
        yield attentions
    finally:
        _recorded.reset(token)


# The mask: who may see whom, as options of regard.attention


class LazyMask(Tensor):
    """A model's mask as a rule, in the guise of the bool tensor (B,1,Q,K) that models expect to carry around.

    Nothing of that size exists, unless a model reads or changes the mask itself; that gets the dense one.
    """

    options: dict[str, Any]  # what it says, for regard.attention
    dense: Callable[[], Tensor | None]

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, dense: Callable, options: dict[str, Any], shape: tuple[int, ...], device) -> LazyMask:
        self = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bool, device=torch.device(device))
        self.options, self.dense = options, dense
        return self

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.add, torch.ops.aten.add_):  # True would add 1 to a score
            raise ValueError(f"This model adds its mask to scores of its own: its attention {_REST}")
        args, kwargs = tree_map_only(LazyMask, lambda mask: mask.dense(), (args, kwargs or {}))
        return function(*args, **kwargs)

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"LazyMask(shape={tuple(self.shape)}, options={self.options})"


def lazy_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable = masking_utils.causal_mask_function,
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **_: Any,
) -> LazyMask:
    """What transformers asks for a mask: its rule on absolute positions, and which keys are padding (B, keys)."""
    q_offset = int(q_offset)  # static caches count in a tensor, and count on
    sizes = (batch_size, q_length, kv_length, q_offset, kv_offset)
    dense = partial(
        masking_utils.sdpa_mask,
        *sizes,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=False,
        use_vmap=use_vmap,
        device=device,
    )
    causal, window, others = _recognised(mask_function)
    end = q_offset + q_length - kv_offset  # after the last query, counted in keys
    options: dict[str, Any] = {"causal": causal, "window": window}
    if causal and 0 <= end < kv_length:  # a cache with room for more: a segment that nobody looks into
        bounds = (0, q_length, q_length), (0, end, kv_length)
        options["segments"] = tuple(torch.tensor(one, device=device) for one in bounds)
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
        options["mask"] = _rule(others, q_offset, kv_offset, use_vmap)
    return LazyMask(dense, options, (batch_size, 1, q_length, kv_length), device)


def _recognised(mask_function: Callable) -> tuple[bool, tuple[int | None, int | None], list[Callable]]:
    """Whether a rule is causal, its window, and the parts of it that are neither; all of them hold."""
    causal, left, right, others = False, [], [], []
    for one in _parts(mask_function):
        back = _closed_over(one, masking_utils.sliding_window_overlay).get("sliding_window")
        around = _closed_over(one, masking_utils.sliding_window_bidirectional_overlay).get("sliding_window")
        if one is masking_utils.causal_mask_function:
            causal = True
        elif isinstance(back, int) and back > 0:
            left.append(back - 1)
        elif isinstance(around, int) and around >= 0:
            left.append(around)
            right.append(around)
        elif one is not masking_utils.bidirectional_mask_function:
            others.append(one)
    return causal, (min(left, default=None), min(right, default=None)), others


def _parts(mask_function: Callable) -> list[Callable]:
    parts = _closed_over(mask_function, masking_utils.and_masks).get("mask_functions")
    return [mask_function] if parts is None else [part for one in parts for part in _parts(one)]


def _closed_over(function: Callable, factory: Callable) -> Mapping[str, Any]:
    """What the function closed over, if the factory made it: all that it makes share one code object. Else nothing."""
    if isinstance(function, FunctionType) and function.__code__ in factory.__code__.co_consts:
        return inspect.getclosurevars(function).nonlocals
    return {}


def _rule(parts: list[Callable], q_offset: int, kv_offset: int, use_vmap: bool) -> Rule:
    """All these rules of transformers as one of regard, asked for one tile after the other."""
    together = masking_utils.and_masks(*parts)

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query, key = query + q_offset, key + kv_offset
        if not use_vmap:
            return together(batch, head, query, key)
        with masking_utils.TransformGetItemToIndex():  # a user's own rule, which may be for single numbers only
            flat = (index.flatten() for index in (batch, head[:1], query, key))
            return masking_utils._vmap_expansion_sdpa(together)(*flat)

    return rule


# The attention


@torch.compiler.disable  # what it returns is an object, not a tensor of a graph
def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Weights]:
    """What transformers calls for an attention: query (B,H,Q,D), key (B,G,K,D), value (B,G,K,E) → (B,Q,H,E), Weights.

    Raises: ValueError for dropout in training, and where a model asks for what regard does not know.
    """
    if dropout and module.training:
        raise ValueError(
            f"{type(module).__name__}: attention dropout is {dropout} and the model is in training; regard stores no "
            "weights that it could drop. Set the attention dropout in the model's config to 0, or call model.eval()."
        )
    if unknown := [name for name in ("indices", "block_indices", "sinks", "cache") if kwargs.get(name) is not None]:
        raise ValueError(
            f"{type(module).__name__}: it hands {', '.join(unknown)} to its attention, which regard does not know. "
            'Open the model with attn_implementation="eager".'
        )
    # A static cache marks the tensors that it writes over in the next step, and the weights would change with them.
    static = hasattr(key, "_dynamo_static_input_type")
    generating = query.shape[2] == 1 and (static or bool(kwargs.get("output_attentions")))
    if static and not generating:
        key = key.clone()
    if static and _recorded.get() is not None:
        value = value.clone()
    if attention_mask is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        side = None if sliding_window is None else sliding_window - 1
        options: dict[str, Any] = {"causal": causal, "window": (side, None if causal else side)}
    elif isinstance(attention_mask, LazyMask) and attention_mask.shape[2:] == (query.shape[2], key.shape[2]):
        options = dict(attention_mask.options)
    else:
        options = _ready_made(attention_mask, key.shape[2])
    if position_bias is not None:
        bias = options.get("bias")
        options["bias"] = position_bias if bias is None else position_bias + bias
    if query.shape[0] == 1:  # queries that a model learned, the same for all sequences
        query = query.expand(key.shape[0], -1, -1, -1)
    scale = None if scaling is None else float(scaling)
    found = attention(query, key, value, scale=scale, softcap=softcap, sinks=s_aux, **options)
    if generating:
        found = replace(found, weights=_light(found.weights))
    if (attentions := _recorded.get()) is not None:
        attentions.append(Recorded(module, found))
    return found.output.transpose(1, 2).contiguous(), found.weights


def _light(weights: Weights) -> Weights:
    """The same weights of one query, from its scores: they are far fewer numbers than the keys of every step."""
    scores = weights.scores
    block = Block(*(slice(0, size) for size in scores.shape))
    bias = scores.tile(block)
    nothing = bias.new_zeros(1, 1, 1, 1)
    query = nothing.expand(*scores.query.shape[:3], 1)
    key = nothing.expand(*scores.key.shape[:3], 1)
    return Weights(Scores(query, key, Mask(*scores.shape[2:]), 1.0, bias), weights.lse, weights.sinks)


def _ready_made(mask: Tensor, keys: int) -> dict[str, Any]:
    """A mask that the model made: bool, or numbers to add, the lowest of which mean unseen."""
    mask = mask[..., :keys]
    if not mask.dtype.is_floating_point:
        return {"mask": mask}
    unseen = mask <= torch.finfo(mask.dtype).min / 2
    bias = mask.masked_fill(unseen, 0)
    options = {"mask": ~unseen} if unseen.any() else {}
    return options | {"bias": bias} if bias.requires_grad or bias.any() else options


# The models whose attention does not come through this door


def check(model: nn.Module) -> None:
    """Raises ValueError, with the class and the reason, unless all attention of the model comes through here.

    >>> from transformers import BloomConfig, BloomModel
    >>> check(BloomModel(BloomConfig(vocab_size=11, hidden_size=8, n_layer=1, n_head=2)))
    Traceback (most recent call last):
    ValueError: BloomModel: its attention does not go through transformers' attention interface...
    """
    _refuse(model)
    modules = list(model.modules())
    if own := sorted({type(module).__name__ for module in modules if _computes_its_own(module)}):
        raise ValueError(f"{type(model).__name__}: the attention of its {', '.join(own)} {_REST}")
    if not any("get_interface" in _names(type(module)) for module in modules):
        raise ValueError(f"{type(model).__name__}: it has no attention, or one that {_REST}")


_REST = (
    "does not go through transformers' attention interface, so that regard can neither compute nor show it. "
    'With attn_implementation="eager" the model works as it always did.'
)


def _refuse(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            classes = [c for c in type(part).__mro__ if issubclass(c, PreTrainedModel) and c is not PreTrainedModel]
            if not any(c._can_set_attn_implementation() for c in classes):  # a notebook's class has no source to judge
                raise ValueError(f"{type(part).__name__}: its attention {_REST}")


def _computes_its_own(module: nn.Module) -> bool:
    kind = type(module).__name__
    names = _names(type(module))
    if "get_interface" in names or "Att" not in kind or isinstance(module, PreTrainedModel):
        return False
    wraps_one = any("Att" in type(part).__name__ for part in module.modules() if part is not module)
    softmax = {"softmax", "Softmax", "scaled_dot_product_attention", "multi_head_attention_forward"}
    return bool(names & softmax) or (kind.endswith("Attention") and not wraps_one)


def _names(kind: type) -> set[str]:
    """The functions and attributes that the code of a module's class mentions."""
    methods = (
        inspect.unwrap(method)
        for base in kind.__mro__
        if base not in nn.Module.__mro__
        for method in vars(base).values()
        if callable(method)
    )
    return {name for method in methods if hasattr(method, "__code__") for name in method.__code__.co_names}


def _refusing(method: Callable) -> Callable:
    """transformers accepts any registered name for any model, and leaves those it cannot serve as they are."""

    @wraps(method)
    def checked(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        if NAME in (*args, *kwargs.values()):
            _refuse(self)
        return method(self, *args, **kwargs)

    return checked


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lazy_mask)
for _name in ("get_correct_attn_implementation", "set_attn_implementation"):
    setattr(PreTrainedModel, _name, _refusing(getattr(PreTrainedModel, _name)))
