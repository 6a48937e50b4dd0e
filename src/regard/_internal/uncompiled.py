"""Calls that torch.compile must not follow into, with the reasons that it then gives.

Imported where a graph is recorded, and not before: torch._dynamo, which marks such functions, takes as long to import
as torch itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from regard._internal.reasons import MASK_IS_CALLABLE, WEIGHTS_ARE_UNTRACEABLE


@torch.compiler.disable(reason=f"attention: {MASK_IS_CALLABLE}")
def attention_by_rule(attend: Callable[..., Any], *arguments: Any) -> Any:
    """Attention by the operator's own implementation, for a mask that only Python can evaluate."""
    return attend(*arguments)


@torch.compiler.disable(reason=f"Weights: {WEIGHTS_ARE_UNTRACEABLE}")
def ask(compute: Callable[..., Any], *arguments: Any) -> Any:
    """A reduction of the weights, between two graphs."""
    return compute(*arguments)
