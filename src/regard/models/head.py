"""The head of a model, which makes logits of its final states, and the norm before it, which makes the final states."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from regard.models.model import Forward

Kind = Literal["next token", "masked token", "class"]
_KINDS: dict[str, Kind] = {  # by how the names of transformers' classes end
    "ForCausalLM": "next token",
    "LMHeadModel": "next token",
    "ForMaskedLM": "masked token",
    "ForSequenceClassification": "class",
}
_TARGET_HEADS = ("ForConditionalGeneration", "MTModel")  # of encoder-decoders, whose decoder predicts the next token


@dataclass(frozen=True, eq=False)
class Head:
    """From the final states of a text to logits: (N,dim) → (N,vocabulary), or (classes,).

    Attributes:
        kind: what it predicts: the "next token" at each position, the "masked token" there, or the text's "class".
        labels: the names of the classes, in the order of the logits; empty where it predicts tokens.
        model: the class that it belongs to, such as "LlamaForCausalLM".
        unembedding: the matrix (vocabulary,dim) by which it multiplies final states, where that is all that it does
            besides adding a bias; None for all others.
        end_ids: the tokens with which the model says that a text has ended.
    """

    kind: Kind
    labels: Sequence[str]
    model: str
    unembedding: Tensor | None = field(repr=False)
    _logits: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    end_ids: frozenset[int] = frozenset()

    def __call__(self, final: Float[Tensor, "N dim"], ids: Int[Tensor, "N"]) -> Float[Tensor, "..."]:
        """The logits. `ids` are the tokens: classifiers that read the last one look there for padding."""
        return self._logits(final, ids)


def kind_of(name: str) -> Kind | None:
    """What the head of a class of transformers predicts, by its name; None where it has none that is known here."""
    return next((kind for ending, kind in _KINDS.items() if name.endswith(ending)), None)


def writes_targets(name: str) -> bool:
    """Whether a class of transformers that is an encoder-decoder has a head for the next token of a target."""
    return name.endswith(_TARGET_HEADS)


def body_of(model: Any) -> Any:
    """The model below the head; the model itself where it has no head that is known here."""
    return getattr(model, "base_model", model) if kind_of(type(model).__name__) else model


def find_target_head(model: Any, forward: Forward, ids: Sequence[int], source: Float[Tensor, "N dim"]) -> Head | None:
    """The head of an encoder-decoder, as `find_head`: it makes logits of the final states of the decoder.

    Args:
        model: a model of transformers, in evaluation mode.
        forward: gives the final states of its decoder, which has read the source.
        ids: a few tokens of a target.
        source: the final states of a source.
    """
    from transformers.modeling_outputs import BaseModelOutput

    if not writes_targets(type(model).__name__):
        return None
    decoder, encoded = model.get_decoder(), BaseModelOutput(last_hidden_state=source[None])
    encoded.router_logits = None  # which mixtures of experts look for
    headed = _with_given(model, decoder)

    def logits(final: Tensor, _: Tensor) -> Tensor:
        result: Tensor = headed.forward(
            encoder_outputs=encoded, decoder_inputs_embeds=final[None], use_cache=False, return_dict=True
        ).logits[0]
        return result

    def expected(tokens: Tensor) -> Tensor:
        tokens = tokens.to(model.device)
        result: Tensor = model(encoder_outputs=encoded, decoder_input_ids=tokens, return_dict=True).logits[0]
        return result

    return _tried("next token", model, forward, ids, logits, expected)


def find_head(model: Any, forward: Forward, ids: Sequence[int]) -> Head | None:
    """The head of a model of transformers; None where it has none, or one that needs more than the final states.

    It is the model's own code, over final states that are given: the body is replaced, in a copy that shares all
    modules, by one that returns them. It is tried on a few tokens, and has to give the logits that the model gives.

    Args:
        model: a model of transformers, in evaluation mode.
        forward: gives the final states of the same model.
        ids: a few tokens.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind, body = kind_of(type(model).__name__), body_of(model)
    if kind is None or body is model or "inputs_embeds" not in signature(type(model).forward).parameters:
        return None
    headed = _with_given(model, body)

    def logits(final: Tensor, ids: Tensor) -> Tensor:
        inputs = {"input_ids": ids.to(final.device)[None]} if kind == "class" else {}
        result: Tensor = headed.forward(**inputs, inputs_embeds=final[None], return_dict=True).logits[0]
        return result

    def expected(tokens: Tensor) -> Tensor:
        result: Tensor = model(input_ids=tokens.to(model.device), return_dict=True).logits[0]
        return result

    return _tried(kind, model, forward, ids, logits, expected)


def _with_given(model: Any, body: Any) -> Any:
    """A copy that shares all modules but the body, in whose place is one that returns the states it is given."""
    headed = copy.copy(model)
    headed._modules = {
        name: _Given(body) if module is body else _with_given(module, body) if _holds(module, body) else module
        for name, module in model._modules.items()
    }
    return headed


def _holds(module: nn.Module | None, body: nn.Module) -> bool:
    return module is not None and any(inner is body for inner in module.modules())


def _tried(
    kind: Kind,
    model: Any,
    forward: Forward,
    ids: Sequence[int],
    logits: Callable[[Tensor, Tensor], Tensor],
    expected: Callable[[Tensor], Tensor],
) -> Head | None:
    """The head, if for a few tokens it gives the logits that the model itself gives."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        final = forward(tokens, None, None).final[0]
        try:
            own = expected(tokens)
            given = logits(final, tokens[0])
        except Exception:  # heads that read more of the body's output raise exceptions of every kind
            return None
        if given.shape != own.shape or not torch.allclose(given, own, rtol=1e-3, atol=1e-3):
            return None
        unembedding = _unembedding(model, logits, final, tokens[0])
    labels = [str(model.config.id2label[n]) for n in range(len(own))] if kind == "class" else []
    return Head(kind, labels, type(model).__name__, unembedding, logits, _end_ids(model))


def _end_ids(model: Any) -> frozenset[int]:
    """The end tokens of a model: those of its configuration for generating, or else of its configuration."""
    for config in (getattr(model, "generation_config", None), model.config.get_text_config()):
        ids: Any = getattr(config, "eos_token_id", None)
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()


class _Given(nn.Module):
    """In place of a body: returns, as its last hidden states, the embeddings that it is given."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.pooler = getattr(body, "pooler", None)
        self.config = getattr(body, "config", None)

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        output = BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)
        for name in ("router_logits", "cache_params", "mems"):  # what some heads pass on
            setattr(output, name, None)
        return output


def _unembedding(model: Any, logits: Callable[[Tensor, Tensor], Tensor], final: Tensor, ids: Tensor) -> Tensor | None:
    """The matrix of a head that is linear; None where it is not."""
    try:
        output = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    weight: Tensor | None = getattr(output, "weight", None)
    if weight is None or weight.ndim != 2 or weight.shape[1] != final.shape[-1]:
        return None
    step = final.roll(1, -1)
    change = logits(final + step, ids) - logits(final, ids)  # without the bias
    size = float(change.abs().max())
    own = step @ weight.detach().to(final.dtype).T
    factor = float((own * change).sum() / own.square().sum().clamp(min=1e-30))  # some models scale their logits
    if own.shape != change.shape or not float((factor * own - change).abs().max()) <= 1e-3 * size:
        return None
    return weight if abs(factor - 1) < 1e-4 else factor * weight.detach()


def find_final_norm(forward: Forward, ids: Sequence[int]) -> nn.Module | None:
    """The module that takes the last hidden states and gives the final ones, watched on a few tokens.

    None where both are the same, and where no single module does it.
    """
    thread, calls = threading.get_ident(), []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() == thread and inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            calls.append((module, inputs[0], output))

    handle = register_module_forward_hook(keep)
    try:
        with torch.no_grad():
            passed = forward(torch.tensor([ids]), None, None)
    finally:
        handle.remove()
    before, final = passed.hidden[-1], passed.final
    same = torch.equal(before, final)
    return next((m for m, x, y in calls if not same and _is(x, before) and _is(y, final)), None)


def _is(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second)
