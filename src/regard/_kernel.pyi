"""What csrc/bindings.cpp offers, and csrc/attention.hpp explains. Addresses and strides are whole numbers."""

Strided = tuple[int, ...]  # address; strides of batch, head, row
Broadcast = tuple[int, ...]  # address; strides of batch, head, row, column
Scores = tuple[int, Strided, Strided, Strided, Strided, Broadcast, Broadcast, int, int, float, float]

def kernels() -> list[str]: ...
def in_large_pages(data: int, bytes: int) -> None: ...
def forward(
    scores: Scores,
    value_dim: int,
    value: Strided,
    value_heads: int,
    output: Strided,
    output_type: int,
    lse: int,
    entropy: int,
    distance: int,
    top: int,
    top_values: int,
    top_indices: int,
    isa: str,
    threads: int,
) -> None: ...
def cells(
    scores: Scores,
    lse: int,
    row_cell: int,
    column_cell: int,
    rows: int,
    columns: int,
    largest: bool,
    cells: int,
    isa: str,
    threads: int,
) -> None: ...
def tile(
    scores: Scores,
    lse: int,
    first_row: int,
    rows: int,
    first_column: int,
    columns: int,
    weights: int,
    isa: str,
    threads: int,
) -> None: ...
def transposed(scores: Scores, lse: int, width: int, vectors: Strided, output: int, isa: str, threads: int) -> None: ...
def backward(
    scores: Scores,
    lse: int,
    value_dim: int,
    value: Strided,
    grad_output: Strided,
    through: int,
    grad_query: int,
    grad_key: int,
    grad_value: int,
    grad_bias: Broadcast,
    isa: str,
    threads: int,
) -> None: ...
def linear(
    type: int,
    sizes: tuple[int, int, int],
    x: tuple[int, int],
    weight: int,
    bias: int,
    activation: int,
    residual: tuple[int, int],
    gain: int,
    shift: int,
    epsilon: float,
    sums: int,
    output: tuple[int, int],
    isa: str,
    threads: int,
) -> None: ...
def linear_size(type: int, outputs: int, inputs: int, isa: str) -> int: ...
def pack_linear(type: int, outputs: int, inputs: int, weight: int, to: int, isa: str) -> None: ...
def flops(type: int, isa: str, threads: int) -> float: ...
def bytes(isa: str, threads: int) -> float: ...
