"""Calls that torch.compile must not trace, with the reasons that it prints.

Import this module only where a graph is being recorded: torch._dynamo, which marks the functions, takes as long to
import as torch itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from regard._internal.reasons import MASK_IS_CALLABLE, WEIGHTS_ARE_UNTRACEABLE

Function = TypeVar("Function", bound=Callable[..., Any])
disable: Callable[..., Callable[[Function], Function]] = torch.compiler.disable  # which has no types of its own


@disable(reason=f"attention: {MASK_IS_CALLABLE}")
def attention_with_callable_mask(attend: Callable[..., Any], *arguments: Any) -> Any:
    """Attention by the operator's own implementation, for a mask that only Python can evaluate."""
    return attend(*arguments)


@disable(reason=f"Weights: {WEIGHTS_ARE_UNTRACEABLE}")
def reduce_weights(compute: Callable[..., Any], *arguments: Any) -> Any:
    """A reduction of the weights, between two graphs."""
    return compute(*arguments)
