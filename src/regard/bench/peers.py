"""Other implementations of attention. Each takes a problem and returns a function to time, or raises the reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.dlpack import from_dlpack

import regard
from regard._internal.measure import cores
from regard.bench.grid import Row

Call = Callable[[], tuple[Tensor, ...]]  # the output, or the gradients of query, key and value
LARGEST_MATRIX = 1 << 30  # bytes of N × N numbers, for peers that store them


class PeerUnavailableError(Exception):
    """A peer cannot compute this problem, or not correctly; the message says why."""


class Problem:
    """The tensors of a row: (B,H,Q,D) queries, (B,G,K,D) keys and (B,G,K,E) values, normally distributed, always the
    same.
    """

    def __init__(self, row: Row) -> None:
        self.row = row
        self._random = torch.Generator().manual_seed(0)
        self.query = self._randn(row.batch, row.heads, row.queries, row.dim)
        self.key, self.value = (self._randn(row.batch, row.groups, row.keys, dim) for dim in (row.dim, row.value_dim))

    def _randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._random).to(self.row.dtype)

    @cached_property
    def grad(self) -> Tensor:
        """The gradient of the output."""
        return self._randn(*self.query.shape[:3], self.row.value_dim)

    @cached_property
    def bias(self) -> Tensor | None:
        """(H,Q,K): decreasing with the distance of the key, with a slope per head."""
        if self.row.kind != "bias":
            return None
        distance = (torch.arange(self.row.queries)[:, None] - torch.arange(self.row.keys)).abs()
        slopes = 2.0 ** (-8 * torch.arange(1, self.row.heads + 1) / self.row.heads)
        return (-slopes[:, None, None] * distance).to(self.row.dtype)

    @cached_property
    def lengths(self) -> Tensor | None:
        """(B,), or None if no sequence is padded."""
        return torch.tensor(self.row.lengths, dtype=torch.int32) if self.row.lengths else None

    @cached_property
    def real(self) -> Tensor:
        """(B,N): True where a position is not padding."""
        if self.lengths is None:
            return torch.ones(self.row.batch, self.row.queries, dtype=torch.bool)
        return torch.arange(self.row.queries) < self.lengths[:, None]

    @cached_property
    def mask(self) -> Tensor | None:
        """Which query sees which key, broadcastable to (B,H,Q,K), for peers without lengths or windows."""
        if self.lengths is not None:
            return self.real[:, None, None]
        if self.row.window:
            keys = torch.arange(self.row.keys)
            return (keys <= keys[:, None]) & (keys > keys[:, None] - self.row.window)
        return self._given_mask

    @cached_property
    def _given_mask(self) -> Tensor | None:
        """The mask of the row's own: its rule, or at random; every query sees the key at its own place."""
        row = self.row
        if not row.mask:
            return None
        queries, keys = torch.arange(row.queries)[:, None], torch.arange(row.keys)
        if row.mask == "rule":
            return _rule(None, None, queries, keys)
        size = (row.batch, row.heads) if row.mask == "(B,H,Q,K)" else ()
        random = torch.rand(*size, row.queries, row.keys, generator=self._random)
        return (random < 0.7) | (queries == keys)

    def packed(self, tensor: Tensor) -> Tensor:
        """(B,H,N,D) without padding: (1,H,total,D)."""
        return tensor.transpose(1, 2)[self.real].transpose(0, 1)[None]

    def same_rows(self, tensor: Tensor) -> Tensor:
        """The rows of a result that all must agree on: those that are no padding."""
        return self.packed(tensor) if self.lengths is not None and len(tensor) == self.row.batch else tensor

    def differentiated(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Call:
        """A call of a function of query, key and value, or of its gradient if the row measures that."""
        tensors = (self.query, self.key, self.value)
        if not self.row.gradient:
            return lambda: (function(*tensors),)
        leaves = [tensor.requires_grad_() for tensor in tensors]
        return lambda: torch.autograd.grad(function(*leaves), leaves, self.grad)

    def check_matrix(self) -> None:
        """For peers that store N × N numbers: raises PeerUnavailableError if they are too many."""
        row = self.row
        size = row.batch * row.heads * row.queries * row.keys * row.dtype.itemsize
        if size > LARGEST_MATRIX:
            raise PeerUnavailableError("N × N is too large")


def _rule(batch: object, head: object, query: Tensor, key: Tensor) -> Tensor:
    """A mask as a rule: two keys of three."""
    return (query - key) % 3 != 1


def ours(problem: Problem, **options: Any) -> Call:
    """regard.attention."""
    row = problem.row
    options |= {"causal": row.causal, "bias": problem.bias}
    if row.window:
        options["window"] = (row.window - 1, 0)
    if row.mask:
        options["mask"] = _rule if row.mask == "rule" else problem.mask
    if row.kind == "padded":
        options["lengths"] = problem.lengths
    if problem.lengths is None or row.kind == "padded":
        return problem.differentiated(lambda *tensors: regard.attention(*tensors, **options).output)
    bounds = functional.pad(problem.lengths.cumsum(0), (1, 0))
    tensors = [problem.packed(tensor) for tensor in (problem.query, problem.key, problem.value)]
    return lambda: (regard.attention(*tensors, segments=bounds, **options).output,)


def sdpa(problem: Problem) -> Call:
    """torch.nn.functional.scaled_dot_product_attention. Its causal mask is that of regard where Q = K."""
    row = problem.row
    options: dict[str, Any] = {"is_causal": row.causal, "enable_gqa": row.groups != row.heads}
    options["attn_mask"] = problem.mask if problem.bias is None else problem.bias[None]
    return problem.differentiated(partial(functional.scaled_dot_product_attention, **options))


def eager(problem: Problem) -> Call:
    """Three lines of PyTorch, as in most models: all weights are stored."""
    row = problem.row
    problem.check_matrix()
    mask = problem.mask
    if row.causal:
        mask = torch.ones(row.queries, row.keys, dtype=torch.bool).tril()

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key, value = (tensor.repeat_interleave(row.heads // row.groups, 1) for tensor in (key, value))
        scores = query @ key.mT * row.dim**-0.5
        if problem.bias is not None:
            scores = scores + problem.bias
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights: Tensor = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        return weights @ value

    return problem.differentiated(attend)


def flex(problem: Problem) -> Call:
    """torch.nn.attention.flex_attention, compiled for the shape of the row."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    row, bias, lengths = problem.row, problem.bias, problem.lengths
    if row.gradient:
        raise PeerUnavailableError("no gradient on the CPU")
    _refuse_masks(row)
    options: dict[str, Any] = {"enable_gqa": row.groups != row.heads}
    if row.causal or row.window or lengths is not None:

        def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            if lengths is not None:
                return key < lengths[batch]
            return (key <= query) & (key > query - (row.window or row.keys))

        batch = None if lengths is None else row.batch
        options["block_mask"] = create_block_mask(mask_mod, batch, None, row.queries, row.keys, device="cpu")
    if bias is not None:
        options["score_mod"] = lambda score, batch, head, query, key: score + bias[head, query, key]
    torch._dynamo.reset()  # otherwise, after some shapes, it runs without compiling
    compiled = torch.compile(flex_attention, fullgraph=True, dynamic=False)
    return problem.differentiated(lambda *tensors: compiled(*tensors, **options))


def jax(problem: Problem) -> Call:
    """jax.nn.dot_product_attention, compiled; its tensors are (B,N,H,D)."""
    jax = _installed("jax")
    row = problem.row
    if torch.get_num_threads() != cores():
        raise PeerUnavailableError(f"always uses all {cores()} cores")
    if row.dtype == torch.float16:
        raise PeerUnavailableError("no float16 on the CPU")
    if row.dtype == torch.float64:
        raise PeerUnavailableError("no float64 unless it is switched on")
    _refuse_masks(row)
    problem.check_matrix()

    def to_jax(tensor: Tensor) -> Any:
        return jax.dlpack.from_dlpack(tensor.detach().contiguous())

    options: dict[str, Any] = {"is_causal": row.causal}
    if row.window:
        options["local_window_size"] = (row.window - 1, 0)
    if problem.lengths is not None:
        options["key_value_seq_lengths"] = to_jax(problem.lengths)
    if problem.bias is not None:
        options["bias"] = to_jax(problem.bias[None])
    attend = partial(jax.nn.dot_product_attention, **options)
    tensors = [to_jax(tensor.transpose(1, 2)) for tensor in (problem.query, problem.key, problem.value)]
    if row.gradient:
        tensors.append(to_jax(problem.grad.transpose(1, 2)))

    def backward(query: Any, key: Any, value: Any, grad: Any) -> Any:
        return jax.vjp(attend, query, key, value)[1](grad)

    compiled = jax.jit(backward if row.gradient else attend)

    def call() -> tuple[Tensor, ...]:
        results = jax.block_until_ready(compiled(*tensors))
        arrays = results if row.gradient else [results]
        return tuple(from_dlpack(array).transpose(1, 2) for array in arrays)

    return call


def onnx(problem: Problem) -> Call:
    """ONNX Runtime's MultiHeadAttention; its tensors are (B,N,H·D)."""
    runtime = _installed("onnxruntime")
    row = problem.row
    limits = {
        "no gradient": row.gradient,
        "no bfloat16 on the CPU": row.dtype == torch.bfloat16,
        "no float64": row.dtype == torch.float64,
        "no grouped heads": row.groups != row.heads,
        "no values of another dim": row.value_dim != row.dim,
        "no window": bool(row.window),
    }
    if reasons := [reason for reason, holds in limits.items() if holds]:
        raise PeerUnavailableError(reasons[0])
    _refuse_masks(row)
    inputs = {name: getattr(problem, name).transpose(1, 2).flatten(2) for name in ("query", "key", "value")}
    names = [*inputs]
    if problem.lengths is not None:
        inputs["lengths"] = problem.lengths
        names += ["", "lengths"]
    if problem.bias is not None:
        inputs["bias"] = problem.bias[None]
        names += ["", "", "bias"]
    if row.causal or len(names) > 3:
        problem.check_matrix()
    arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow the others down
    session = runtime.InferenceSession(_onnx_model(row, names, arrays), options, providers=["CPUExecutionProvider"])

    def call() -> tuple[Tensor, ...]:
        output = torch.from_numpy(session.run(None, arrays)[0])
        return (output.view(*output.shape[:2], row.heads, -1).transpose(1, 2),)

    return call


def _onnx_model(row: Row, names: list[str], arrays: dict[str, Any]) -> bytes:
    """A graph of one node: names are its inputs, in order, "" for one that is left out."""
    make = _installed("onnx").helper

    def typed(name: str, like: str) -> Any:
        return make.make_tensor_value_info(name, make.np_dtype_to_tensor_dtype(arrays[like].dtype), None)

    node = make.make_node(
        *("MultiHeadAttention", names, ["output"]),
        **{"domain": "com.microsoft", "num_heads": row.heads, "unidirectional": int(row.causal)},
    )
    graph = make.make_graph([node], "attention", [typed(name, name) for name in arrays], [typed("output", "query")])
    versions = [make.make_opsetid("", 20), make.make_opsetid("com.microsoft", 1)]
    model: bytes = make.make_model(graph, opset_imports=versions, ir_version=10).SerializeToString()
    return model


def _refuse_masks(row: Row) -> None:
    """Raises PeerUnavailableError for a mask of the row's own, which is measured beside SDPA and eager alone."""
    if row.mask:
        raise PeerUnavailableError("a mask is not handed to it here")


def _installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise PeerUnavailableError("not installed") from None


PEERS: dict[str, tuple[str, Callable[[Problem], Call]]] = {
    "sdpa": ("SDPA", sdpa),
    "eager": ("eager", eager),
    "flex": ("Flex", flex),
    "jax": ("JAX", jax),
    "onnx": ("ONNX", onnx),
}
