"""The native kernel, as csrc/bindings.cpp binds it; csrc/kernel/attention.hpp has the equations.

Tensors lie in the processor's memory and are read and written where they lie. B batch; H query heads; G key/value
heads, which divide H; Q queries; K keys; D dim; E value dim. `isa` is one of `kernels()`. Every function checks types,
shapes and strides, and raises ValueError with the argument's name.
"""

from torch import Tensor

class Scores:
    """The scores of attention, as a rule: softcap(scale · q·k) + bias, −inf where hidden. Keeps the tensors.

    Args:
        query: (B,H,Q,D) in float32, bfloat16 or float16, D ≤ 256, without gaps in the last dimension.
        key: (B,G,K,D), likewise.
        scale: a factor of q·k.
        softcap: 0 for none.
        start, stop: (B|1,Q), int64; query i sees the keys start[i] ≤ j < stop[i]. Without them it sees all.
        mask: bool, True = may look; four dimensions that broadcast to (B,H,Q,K).
        bias: float32, bfloat16 or float16; four dimensions that broadcast to (B,H,Q,K).
        sinks: (H), float32.
    """

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        *,
        scale: float,
        softcap: float = 0.0,
        start: Tensor | None = None,
        stop: Tensor | None = None,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        sinks: Tensor | None = None,
    ) -> None: ...

def kernels() -> list[str]:
    """The instruction sets that this machine can run, the best first."""

def in_large_pages(array: Tensor) -> None:
    """Asks the system for large pages, for fresh memory."""

def forward(
    scores: Scores,
    *,
    value: Tensor | None = None,
    output: Tensor | None = None,
    lse: Tensor | None = None,
    entropy: Tensor | None = None,
    distance: Tensor | None = None,
    top_values: Tensor | None = None,
    top_keys: Tensor | None = None,
    isa: str,
    threads: int,
) -> None:
    """Attention, and statistics of its rows, in one pass; writes into what is given.

    Args:
        value: (B,G|H,K,E), of the query's type.
        output: (B,H,Q,E), of that type or float32; both, or none.
        lse: (B,H,Q), float64.
        entropy: (B,H,Q), float32, in nats.
        distance: (B,H,Q), float32, Σ_j w_ij |i − j|.
        top_values, top_keys: (B,H,Q,k), float32 and int64: the k largest weights by their scores, ties to the lower
            key; k ≤ 64 and k ≤ K.
    """

def pool(
    scores: Scores,
    *,
    lse: Tensor,
    row_cells: Tensor,
    column_cells: Tensor,
    cells: Tensor,
    largest: bool,
    isa: str,
    threads: int,
) -> None:
    """Weights gathered into cells (B,H,R,C), float64: their sums, or the largest.

    Weight w_ij goes to cell (row_cells[i], column_cells[j]), int64 (Q) and (K); −1 is left out. lse (B,H,Q): float64.
    """

def tile(
    scores: Scores, *, lse: Tensor, first_row: int, first_column: int, weights: Tensor, isa: str, threads: int
) -> None:
    """A part of the matrix of weights: weights (B,H,R,C), float32, from lse (B,H,Q), float64.

    Its first row and column are first_row and first_column.
    """

def transposed(scores: Scores, *, lse: Tensor, vectors: Tensor, output: Tensor, isa: str, threads: int) -> None:
    """wᵀ y: vectors y (B,H,Q,F), F ≤ 256, to output (B,H,K,F), both float32. lse (B,H,Q): float64."""

def backward(
    scores: Scores,
    *,
    lse: Tensor,
    value: Tensor,
    grad_output: Tensor,
    delta: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
    grad_value: Tensor,
    grad_bias: Tensor | None = None,
    isa: str,
    threads: int,
) -> None:
    """The gradient of attention, added to gradients that the caller has zeroed.

    Args:
        lse: (B,H,Q), float64.
        value: (B,G,K,E), of the query's type.
        grad_output: (B,H,Q,E), of the query's type.
        delta: (B,H,Q), float32: Σ_e grad_output · output, less the gradient of the lse.
        grad_query, grad_key, grad_value: float32, in the shapes of query, key and value, and in memory as (B,N,H,D).
        grad_bias: float32; four dimensions that broadcast to (B,H,Q,K).
    """

def linear(
    *,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    output: Tensor,
    activation: str = "",
    residual: Tensor | None = None,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    epsilon: float = 0.0,
    sums: Tensor | None = None,
    isa: str,
    threads: int,
) -> None:
    """output = norm(activation(x Wᵀ + bias) + residual), (R,I) to (R,O), row by row.

    Args:
        x, output, residual: of one type.
        weight: as `pack_linear` leaves it.
        bias: (O), float32.
        activation: "gelu", "gelu_tanh", "relu", or "" for none.
        gain, shift: (O), float32; without them there is no norm.
        sums: (R,O), float32: memory to work in, for a norm of half precision.
    """

def linear_size(weight: Tensor, isa: str) -> int:
    """How many floats `pack_linear` writes for a weight (O,I)."""

def pack_linear(weight: Tensor, packed: Tensor, isa: str) -> None:
    """Brings a weight (O,I) into the order in which `linear` reads it: packed, float32."""

def flops(dtype: str, isa: str, threads: int) -> float:
    """Floating-point operations a second, in registers, of all threads."""

def bytes(isa: str, threads: int) -> float:
    """Bytes a second, read from memory, of all threads."""
