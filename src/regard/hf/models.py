"""Which models can be opened with regard, and what stands in the way of the others."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedConfig, PreTrainedModel

from regard._internal import heap
from regard._internal.uncompiled import disable
from regard.hf import inference

NAME = "regard"
LONG = 1 << 20  # numbers in a model's output; below it there is little to give back


def check(model: nn.Module) -> None:
    """Raises ValueError, with the class and the reason, unless all attention of the model comes through here.

    >>> from transformers import BloomConfig, BloomModel
    >>> check(BloomModel(BloomConfig(vocab_size=11, hidden_size=8, n_layer=1, n_head=2)))
    Traceback (most recent call last):
    ValueError: BloomModel: its attention does not go through transformers' attention interface...
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"regard.hf.check: {type(model).__name__} is no model of transformers, whose attention could be read; "
            "give it one, such as AutoModel.from_pretrained(name) or a pipeline's .model."
        )
    _refuse(model, {id(module) for module in model.modules()})
    modules = list(model.modules())
    if own := sorted({type(module).__name__ for module in modules if _computes_its_own(module)}):
        raise ValueError(f"{type(model).__name__}: the attention of its {', '.join(own)} {_REST}")
    if not any("get_interface" in _names(type(module)) for module in modules):
        raise ValueError(f"{type(model).__name__}: it has no attention, or one that {_REST}")


_REST = (
    "does not go through transformers' attention interface, so that regard can neither compute nor show it. "
    'With attn_implementation="eager" the model works as it always did.'
)


def _refuse(model: nn.Module, asked: set[int]) -> None:
    """Raises ValueError if one of the modules that are asked for, by their ids, cannot change its attention."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and id(module) in asked:
            classes = [c for c in type(module).__mro__ if issubclass(c, PreTrainedModel) and c is not PreTrainedModel]
            if not any(c._can_set_attn_implementation() for c in classes):  # a notebook's class has no source to judge
                raise ValueError(f"{type(module).__name__}: its attention {_REST}")


def _computes_its_own(module: nn.Module) -> bool:
    kind = type(module).__name__
    names = _names(type(module))
    if "get_interface" in names or "Att" not in kind or isinstance(module, PreTrainedModel):
        return False
    wraps_one = any("Att" in type(inner).__name__ for inner in module.modules() if inner is not module)
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


# Opening a model with regard


def prepare() -> None:
    """Wraps the two methods of transformers' models through which an attention implementation is chosen.

    transformers accepts any registered name for any model, and leaves those that it cannot serve as they are.
    """
    for name, wrap in (("get_correct_attn_implementation", _constructing), ("set_attn_implementation", _setting)):
        setattr(PreTrainedModel, name, wrap(getattr(PreTrainedModel, name)))


def _constructing(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def checked(self: PreTrainedModel, requested_attention: str | None, *args: Any, **kwargs: Any) -> Any:
        if requested_attention == NAME:
            _refuse(self, {id(self)})
            _serve_dictionaries(type(self))
            _serve(self)
        return method(self, requested_attention, *args, **kwargs)

    return checked


def _setting(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def checked(self: PreTrainedModel, attn_implementation: str | dict[str, str], *args: Any, **kwargs: Any) -> Any:
        wanted = {id(config): name for config, name in _wanted(type(self), self.config, attn_implementation)}
        models = [module for module in self.modules() if isinstance(module, PreTrainedModel)]
        asked = [model for model in models if wanted.get(id(model.config), wanted[id(self.config)]) == NAME]
        _refuse(self, {id(model) for model in asked})
        for model in asked:
            _serve(model)
        method(self, attn_implementation, *args, **kwargs)
        for model in models:
            _set_copies(model, {id(other.config) for other in models} | wanted.keys())

    return checked


def _set_copies(model: PreTrainedModel, known: set[int]) -> None:
    """Hands a model's implementation on to the copies of its configuration that its modules keep.

    Some models give a stack of their own, which is no model of transformers, a changed copy of their configuration.
    set_attn_implementation does not find those, and such a stack would compute as before.
    """
    implementation = model.config._attn_implementation
    modules: list[nn.Module] = [model]
    while modules:
        module = modules.pop()
        config = getattr(module, "config", None)
        if isinstance(config, PreTrainedConfig) and id(config) not in known:
            ours = NAME in (implementation, config._attn_implementation)
            config._attn_implementation_internal = implementation if ours else config._attn_implementation
        modules += [child for child in module.children() if not isinstance(child, PreTrainedModel)]


def _wanted(kind: type, config: PreTrainedConfig, implementation: Any) -> Iterator[tuple[PreTrainedConfig, str | None]]:
    """Each configuration and what is asked for it; in a dictionary it goes by its name, and the model's own by ""."""
    by_name = implementation if isinstance(implementation, dict) else {}
    for name, inner in by_name.items():
        if name and name not in config.sub_configs and NAME in str(inner):
            known = ", ".join(sorted(config.sub_configs)) or "none"
            raise ValueError(
                f'{kind.__name__}.set_attn_implementation: {name!r} is not a configuration of it, so that "{NAME}" '
                f'would be set nowhere. Its sub-configurations: {known}; "" is the model itself.'
            )
    own = by_name.get("", config._attn_implementation) if isinstance(implementation, dict) else implementation
    yield config, own
    for name in config.sub_configs:
        if (inner := getattr(config, name, None)) is not None:
            kept = by_name.get(name, inner._attn_implementation) if isinstance(implementation, dict) else implementation
            yield from _wanted(kind, inner, kept)


def _serve(model: PreTrainedModel) -> None:
    _serve_generate(type(model))
    for module in model.modules():
        inference.serve(type(module))
    if _give_back not in model._forward_hooks.values():
        model.register_forward_hook(_give_back)


@disable(reason="it returns memory to the system")
def _give_back(model: nn.Module, _: Any, output: Any) -> None:
    """After a long forward pass, what was freed goes back to the system.

    glibc keeps the holes between the tensors that stay, which for weights of every layer is as much as they are.
    """
    states = next((tensor for tensor in tree_leaves(output) if isinstance(tensor, Tensor)), None)
    long = states is not None and states.device.type == "cpu" and states.numel() >= LONG
    if long and not torch.is_grad_enabled() and getattr(model.config, "_attn_implementation", None) == NAME:
        heap.trim()


def _serve_dictionaries(kind: type[PreTrainedModel]) -> None:
    """Adds regard to the dictionaries by which a model's file chooses a class of attention: eager's class.

    Such a class computes its attention itself; the rest of the model goes through the interface.
    """
    for module in {sys.modules.get(base.__module__) for base in kind.__mro__ if issubclass(base, PreTrainedModel)}:
        for classes in list(vars(module).values()) if module else ():
            if isinstance(classes, dict) and isinstance(classes.get("eager"), type) and NAME not in classes:
                classes[NAME] = classes["eager"]


def _serve_generate(kind: type) -> None:
    """Keeps a model's own generate() from setting eager on its configuration to get attentions, which come here too."""
    for base in kind.__mro__:
        generate = vars(base).get("generate")
        if isinstance(generate, FunctionType) and "_attn_implementation" in generate.__code__.co_names:
            base.generate = _keeping(generate)  # type: ignore[attr-defined]


def _keeping(generate: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(generate)
    def kept(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        if self.config._attn_implementation != NAME:
            return generate(self, *args, **kwargs)
        config = self.config
        kind = type(config)
        fixed = property(lambda _: NAME, lambda _, name: None)
        config.__class__ = type(kind.__name__, (kind,), {"_attn_implementation": fixed, "__module__": kind.__module__})
        try:
            return generate(self, *args, **kwargs)
        finally:
            config.__class__ = kind

    return kept
