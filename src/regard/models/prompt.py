"""A long prompt in parts: each is read after the keys and values of those before it, so that memory stays O(N)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Int

    from regard.models.model import Step

PART = 1024  # tokens: with fewer the products of matrices are slower, and more take more memory


def prompt_parts(model: Any, step: Step, ids: Int[Tensor, "N"]) -> Sequence[Int[Tensor, "n"]]:
    """The parts in which a model of transformers should be given a prompt; all of it at once where parts differ.

    They do in models whose rotation of queries and keys depends on the length of the text (dynamic NTK and LongRoPE
    scaling), and in those with layers that do not go on from a state with several tokens, as many recurrent ones.
    """
    if len(ids) <= PART or _rotates_by_length(model) or not _goes_on(step, ids[:12]):
        return [ids]
    return torch.split(ids, PART)


def _rotates_by_length(model: Any) -> bool:
    return any("dynamic" in kind or kind == "longrope" for kind in _rope_types(model))


def _rope_types(model: Any) -> Iterator[str]:
    """The kinds of rotation in a model; some have one for each type of layer."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", ())
        yield from [kinds] if isinstance(kinds, str) else dict(kinds).values()


def _goes_on(step: Step, ids: Int[Tensor, "n"]) -> bool:
    """Whether a few tokens in two parts get the final states that they get at once."""
    half = len(ids) // 2
    with torch.inference_mode():
        whole, _ = step(ids[None], None)
        try:
            first, cache = step(ids[None, :half], None)
            second, _ = step(ids[None, half:], cache)
        except Exception:  # models raise exceptions of every kind
            return False
        return torch.allclose(torch.cat([first, second]), whole, rtol=1e-2, atol=1e-2 * float(whole.abs().max()))
