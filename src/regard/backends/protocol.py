"""What a backend is: a module that computes attention, and declares what it can compute and how exactly.

`Backend` computes attention and its gradient; `Reductions` computes what can be asked of the weights afterwards. Both
are protocols that modules satisfy; the type checker holds them to it in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from regard.backends.factors import Factor
from regard.mask import Block
from regard.scores import Scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

Statistics = dict[str, tuple[Tensor, ...]]  # (values,), or (values, keys) of "topk:k"
Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # output, lse, entropy, the largest weights and their keys
Gradients = tuple[Tensor | None, ...]  # of query, key, value, bias and sinks

# The largest absolute error, against the float64 reference, of outputs of a type; of lse and weights by their own type.
# For queries, keys and values of unit variance.
TOLERANCES: Mapping[torch.dtype, float] = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}


@dataclass(frozen=True)
class Capabilities:
    """What a backend can compute. None is no limit."""

    device_types: frozenset[str] | None = None
    dtypes: frozenset[torch.dtype] = frozenset(TOLERANCES)
    largest_dim: int | None = None  # of query, key and value
    largest_top: int | None = None  # of k, for the k largest weights of a row in the pass that makes the output
    callable_masks: bool = True  # whether mask= may be a Python callable
    reads_spans: bool = False  # whether it reads the run of keys of each query, `Mask.spans`

    # Weights are exp(score − lse). Up to this size of an lse, a backend that keeps it in float64 gets all digits of a
    # float32 weight from it. None: its lse is rounded, and its reductions compute the softmax of whole rows again.
    largest_lse: float | None = None
    # Whether it ranks keys by their scores. Scores that differ may round to the same weight, and keys of equal weight
    # are then not in order.
    ranks_by_score: bool = False

    tolerances: Mapping[torch.dtype, float] = field(default_factory=lambda: TOLERANCES)

    def reasons(self, scores: Scores, value: Tensor) -> list[str]:
        """Why attention over these scores is beyond these capabilities."""
        query, mask = scores.query, scores.mask.given
        reasons = []
        if self.device_types is not None and query.device.type not in self.device_types:
            reasons.append(f"the tensors are on {query.device}")
        if query.dtype not in self.dtypes:
            reasons.append(f"it computes in float32, and the tensors are {query.dtype}")
        if self.largest_dim is not None and (dim := max(query.shape[3], value.shape[3])) > self.largest_dim:
            reasons.append(f"a dim of {dim} is more than {self.largest_dim}")
        if not self.callable_masks and mask is not None and not isinstance(mask, Tensor):
            reasons.append("mask= is a Python callable; the native kernel takes tensors only")
        return reasons

    def hold(self, matrix: Matrix) -> bool:
        """Whether reductions with these capabilities can serve these weights, which may have been moved since."""
        if self.device_types is not None and matrix.lse.device.type not in self.device_types:
            return False
        return self.largest_lse is None or not exceeds(matrix.lse, self.largest_lse)


def exceeds(lse: Float[Tensor, "B H Q"], largest: float) -> bool:
    """Whether any lse is so large, and finite, that weights cannot be computed from it."""
    return bool(((lse.abs() > largest) & lse.isfinite()).any())


class Matrix(NamedTuple):
    """The matrix M_ij = w_ij · Π φ(a_i·b_j) of weights w_ij = exp(s_ij − lse_i), as a rule, and who computes with it.

    Without factors these are the weights themselves. With `gram` G they are first combined over the heads, into the
    length of a sum of vectors f^h_j, one a head and key, of which G holds the products:

        M_ij = ‖Σ_h w^h_ij f^h_j‖ = √(Σ_hh′ w^h_ij w^h′_ij G_j[h,h′]) · Π φ(a_i·b_j)      G_j[h,h′] = f^h_j·f^h′_j

    sinks (H,) have gone into the lse (B,H,Q).
    """

    scores: Scores
    sinks: Tensor | None
    lse: Float[Tensor, "B H Q"]
    reductions: Reductions
    factors: tuple[Factor, ...] = ()
    gram: Float[Tensor, "#B K H H"] | None = None

    @property
    def is_weights(self) -> bool:
        """Whether these are the weights themselves."""
        return not self.factors and self.gram is None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, Q, K), with one head where the heads are combined."""
        batch, heads, queries, keys = self.scores.shape
        return batch, heads if self.gram is None else 1, queries, keys

    def place(self, at: Block) -> Block:
        """Where a block of the scores lies in the matrix."""
        return at if self.gram is None else at._replace(heads=slice(0, 1))

    def source(self, place: Block) -> Block:
        """The block of the scores that a block of the matrix is made of."""
        return place if self.gram is None else place._replace(heads=slice(0, self.scores.shape[1]))


@runtime_checkable
class Backend(Protocol):
    """A module that computes attention."""

    @property
    def CAPABILITIES(self) -> Capabilities:  # noqa: N802
        """What it can compute."""

    @property
    def backward(self) -> Callable[..., Gradients] | None:
        """Gradients of (scores, value, sinks, output, lse, grad_output, grad_lse, bias_needs_grad).

        None where `forward` is made of PyTorch's own operations, which autograd differentiates.
        """

    def reasons(self, scores: Scores, value: Float[Tensor, "B G K E"]) -> list[str]:
        """Why it cannot compute this attention; empty where it can."""

    def forward(
        self, scores: Scores, value: Float[Tensor, "B G K E"], sinks: Tensor | None, entropy: bool, top: int
    ) -> Results:
        """Output (B,H,Q,E) and lse (B,H,Q), and, where asked for, entropy (B,H,Q) and the `top` largest weights.

        lse is float64 where CAPABILITIES.largest_lse is given, and of the arithmetic's type elsewhere. What is not
        asked for has no elements.
        """


@runtime_checkable
class Reductions(Protocol):
    """A module that computes what can be asked of weights that are never stored."""

    @property
    def CAPABILITIES(self) -> Capabilities:  # noqa: N802
        """What it can compute."""

    def statistics(self, matrix: Matrix, names: Sequence[str], rows: slice | None = None) -> Statistics:
        """Statistics of the rows of weights, or of a run of them: "entropy", "distance", "max_score", "topk:k"."""

    def largest(self, matrix: Matrix, k: int, magnitude: bool) -> tuple[Tensor, Tensor]:
        """The k largest numbers of each row of a map, by value or by magnitude, and their keys (B,H,Q,k).

        Sorted, ties to the lower key. Keys that a query may not see have the number 0.
        """

    def apply(self, matrix: Matrix, x: Num[Tensor, "#B _ K F"]) -> Float[Tensor, "B H Q F"]:
        """M @ x."""

    def apply_transposed(self, matrix: Matrix, y: Num[Tensor, "#B _ Q F"]) -> Float[Tensor, "B H K F"]:
        """M.T @ y."""

    def grouped(
        self, matrix: Matrix, queries: Int[Tensor, "Q"], keys: Int[Tensor, "K"], sizes: tuple[int, int], reduce: str
    ) -> Float[Tensor, "B H R C"]:
        """Numbers gathered into `sizes` cells: row i goes to cell queries[i], column j to keys[j]; −1 is left out.

        reduce: "sum", in float64, or "max" of the numbers of a cell; 0 for a cell without any.
        """

    def dense(self, matrix: Matrix) -> Float[Tensor, "B H Q K"]:
        """The whole matrix."""

    def diagonal(self, matrix: Matrix, rows: slice, columns: slice) -> Float[Tensor, "B H n"]:
        """The numbers of as many rows as columns, one with one."""

    def tile(self, matrix: Matrix, at: Block) -> Float[Tensor, "b h q k"]:
        """A block of the matrix, whose heads make up whole groups or lie in one; all of them where they are combined.

        `at.heads` are always heads of the scores.
        """
