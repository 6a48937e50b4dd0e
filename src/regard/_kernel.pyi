"""The native kernel, as csrc/bindings.cpp, maps.cpp and token.cpp bind it; csrc/kernel/attention.hpp has the equations.

Tensors lie in the processor's memory and are read and written where they lie. B batch; H query heads; G key/value
heads, which divide H; Q queries; K keys; D dim; E value dim. `isa` is one of `kernels()`. Every function checks types,
shapes and strides, and raises ValueError with the argument's name.
"""

from collections.abc import Sequence

import torch
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

class Factor:
    """A factor φ(a_i·b_j) of a map; φ(a_i) or φ(b_j) alone, of width 1.

    Args:
        query: a (1|B,1|H,Q,F), float32, without gaps in the last dimension.
        key: b (1|B,1|G|H,K,F), likewise.
        activation: φ: "relu", "abs", or "" for the product itself.
    """

    def __init__(self, query: Tensor | None = None, key: Tensor | None = None, activation: str = "") -> None: ...

class Map:
    """A map of the weights, as a rule: w_ij · Π φ(a_i·b_j); without factors and gram, the weights. Keeps the tensors.

    Args:
        lse: (B,H,Q), float64.
        factors: with one head, where there is a gram.
        gram: (1|B,1,K,H·H), float32, without gaps in the last dimension: the map is
            √(Σ_hh′ w^h_ij w^h′_ij G_j[h,h′]) · Π φ(a_i·b_j), and has one head.
    """

    def __init__(
        self, scores: Scores, *, lse: Tensor, factors: Sequence[Factor] = ..., gram: Tensor | None = None
    ) -> None: ...

def kernels() -> list[str]:
    """The instruction sets that this machine can run, the best first."""

def in_large_pages(array: Tensor) -> None:
    """Asks the system for large pages, for fresh memory."""

def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None,
    causal: bool,
    lengths: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None,
    double_precision: torch.dtype,
    threads: int,
) -> tuple[Tensor, Tensor] | None:
    """Attention where nothing special is asked, in one call: output (B,H,Q,E), in memory as (B,Q,H,E), and lse (B,H,Q).

    None where the machine lacks what REGARD_ISA forces, for tensors of another kind than these, for shapes that do not
    fit together, and where there are no elements.

    Args:
        query, key, value: (B,H,Q,D), (B,G,K,D) and (B,G,K,E) of one type, without gaps in the last dimension.
        scale: a factor of q·k; 1/√D if not given.
        causal: query i sees the keys j ≤ i + (K − Q).
        lengths: (B), int64; keys at or past the length are unseen.
        mask, bias: bool, True = may look, and float: of up to four dimensions that broadcast to (B,H,Q,K).
        double_precision: torch.float64, the type of the lse.
    """

def attend_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None,
    causal: bool,
    lengths: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None,
    output: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    grad_bias: Tensor | None,
    largest_lse: float,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The gradient of `attend`: of query, key and value, in their types.

    None where an lse is beyond the largest, and does not say the weights, and where grad_output is not of the query's
    type with dense rows.

    Args:
        output, lse: what `attend` gave.
        grad_output: (B,H,Q,E), of the type of output.
        grad_lse: (B,H,Q), float64; None for 0.
        grad_bias: float32, of the shape of the bias, and added to.
    """

def forward(
    scores: Scores,
    *,
    value: Tensor | None = None,
    output: Tensor | None = None,
    lse: Tensor | None = None,
    entropy: Tensor | None = None,
    distance: Tensor | None = None,
    first_position: int = 0,
    max_score: Tensor | None = None,
    top_values: Tensor | None = None,
    top_keys: Tensor | None = None,
    known_lse: Tensor | None = None,
    isa: str,
    threads: int,
) -> None:
    """Attention, and statistics of its rows, in one pass; writes into what is given.

    Args:
        value: (B,G|H,K,E), of the query's type.
        output: (B,H,Q,E), of that type or float32; both, or none.
        lse: (B,H,Q), float64.
        entropy: (B,H,Q), float32, in nats.
        distance: (B,H,Q), float32, Σ_j w_ij |i − j|, of queries counted from first_position.
        max_score: (B,H,Q), float32, the largest score that a row sees; −inf where it sees nothing.
        top_values, top_keys: (B,H,Q,k), float32 and int64: the k largest weights by their scores, ties to the lower
            key; k ≤ 64 and k ≤ K.
        known_lse: (B,H,Q), float64, that of these weights, where another call has given it.
    """

def pool(
    map: Map, *, row_cells: Tensor, column_cells: Tensor, cells: Tensor, largest: bool, isa: str, threads: int
) -> None:
    """The numbers of a map gathered into cells (B,H,R,C), float64: their sums, or the largest.

    M_ij goes to cell (row_cells[i], column_cells[j]), int64 (Q) and (K); −1 is left out. 0 where nothing goes.
    """

def tile(map: Map, *, first_row: int, first_column: int, numbers: Tensor, isa: str, threads: int) -> None:
    """A part of a map itself: numbers (B,H,R,C), float32. Its first row and column are first_row and first_column."""

def diagonal(map: Map, *, first_row: int, first_column: int, numbers: Tensor, isa: str, threads: int) -> None:
    """A diagonal of a map, from first_row and first_column on: numbers (B,H,n), float32."""

def apply(map: Map, *, vectors: Tensor, output: Tensor, isa: str, threads: int) -> None:
    """M x: vectors x (1|B,1|G|H,K,F), F ≤ 256, to output (B,H,Q,F), both float32."""

def transposed(map: Map, *, vectors: Tensor, output: Tensor, isa: str, threads: int) -> None:
    """Mᵀ y: vectors y (1|B,1|H,Q,F), F ≤ 256, to output (B,H,K,F), both float32."""

def largest(map: Map, *, magnitude: bool, values: Tensor, keys: Tensor, isa: str, threads: int) -> None:
    """The k largest numbers of each row, by value or by magnitude, and their keys; those of hidden keys are 0.

    values (B,H,Q,k), float32, and keys, int64: sorted, ties to the lower key; k ≤ 64 and k ≤ K.
    """

def backward(
    scores: Scores,
    *,
    lse: Tensor,
    value: Tensor,
    output: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None = None,
    grad_query: Tensor,
    grad_key: Tensor,
    grad_value: Tensor,
    delta: Tensor | None = None,
    grad_bias: Tensor | None = None,
    isa: str,
    threads: int,
) -> None:
    """The gradient of attention; writes into what is given.

    Args:
        lse: (B,H,Q), float64.
        value: (B,G,K,E), of the query's type.
        output, grad_output: (B,H,Q,E), of the query's type.
        grad_lse: (B,H,Q), float64; None for 0.
        grad_query, grad_key, grad_value: in the shapes of query, key and value, of their type or float32.
        delta: (B,H,Q), float32: Σ_e grad_output · output, less the gradient of the lse.
        grad_bias: float32, added to; four dimensions that broadcast to (B,H,Q,K).
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

def quantized(
    *,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    totals: Tensor,
    bias: Tensor,
    output: Tensor,
    factors: Tensor | None = None,
    activation: str = "",
    residual: Tensor | None = None,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    epsilon: float = 0.0,
    isa: str,
    threads: int,
) -> None:
    """`linear` in float32, but for the product with W, which is made of whole numbers.

    w_oi = scales_o · q_oi, x_ri = step_r · (q_ri − zero_r), of each row by itself. A row that is not finite gives nan.

    Args:
        weight: q as `pack_quantized` leaves it.
        scales, totals: (O), float32: scales_o and Σ_i q_oi.
        factors: (I), float32: what x is multiplied by before it is rounded.
    """

def quantized_size(weight: Tensor, isa: str) -> int:
    """How many bytes `pack_quantized` writes for a weight (O,I)."""

def pack_quantized(weight: Tensor, packed: Tensor, isa: str) -> None:
    """Brings an int8 weight (O,I) into the order in which `quantized` reads it: packed, of bytes."""

def token(
    layers: Sequence[Sequence[Tensor | None]],
    state: Tensor,
    cosine: Tensor | None,
    sine: Tensor | None,
    queries: Tensor | None,
    lse: Tensor | None,
    attended: Tensor | None,
    scale: float,
    epsilon: float,
    isa: str,
    threads: int,
) -> None:
    """One token through all layers of a decoder, in float32.

    Args:
        layers: for each twenty tensors: pairs of input_norm, query, key, value, output, norm, gate, up, down, and of
            all tokens the keys and values (1,G,K,D), of which the last, the token's own, are written. A norm is a gain
            and a shift (dim), or None for a root mean square norm; a projection a weight (outputs,inputs), which may be
            a transposed view, and a bias or None. Without a gate, gelu_tanh follows up; else it is silu(gate) · up.
        state: (dim), the token's embedding, which becomes its state after the last layer.
        cosine, sine: (D), of the angles of the token's position, or None.
        queries, lse, attended: (L,H,D), (L,H) in float64, (L,H,D): written where the token's attention is wanted.
    """

def linear_size(weight: Tensor, isa: str) -> int:
    """How many floats `pack_linear` writes for a weight (O,I)."""

def pack_linear(weight: Tensor, packed: Tensor, isa: str) -> None:
    """Brings a weight (O,I) into the order in which `linear` reads it: packed, float32."""

def flops(dtype: str, isa: str, threads: int) -> float:
    """Floating-point operations a second, in registers, of all threads."""

def bytes(isa: str, threads: int) -> float:
    """Bytes a second, read from memory, of all threads."""
