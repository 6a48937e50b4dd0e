"""What torch.compile must not follow into, with the reason that it then gives.

Imported where a graph is recorded, and not before: torch._dynamo, which marks such functions, takes as long to import
as torch itself.
"""

from __future__ import annotations

from typing import Any

import torch

from regard import differentiable
from regard.backends import operator


@torch.compiler.disable(reason="attention: mask= is a Python callable, which no graph holds; give a bool tensor.")
def attention_by_rule(*arguments: Any) -> Any:
    """The operator's own call, for a mask that only Python can evaluate."""
    return operator.differentiable(*arguments)


@torch.compiler.disable(reason=differentiable.UNTRACEABLE)
def ask(*arguments: Any) -> Any:
    """What is asked of weights between two graphs; refused where there is to be but one."""
    return differentiable.outside_of_graphs(*arguments)
