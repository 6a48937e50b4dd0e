"""Random attention, all options crossed, against dense float64.

    make fuzz                                    # 100,000 cases on every instruction set of this machine
    python tests/fuzz.py --cases 1000            # cases 0 to 999
    python tests/fuzz.py --first 4711 --cases 1  # one of them again

A case is made from its number alone. What must hold: the same nan and infinities as the reference, everything else
within a bound that follows from the arithmetic, gradients too, and no exception. Prints a line for each case that is
wrong and ends with exit status 1 if there was any.
"""

import argparse
import math
import multiprocessing
import os
import random
import sys
import traceback
from contextlib import nullcontext
from functools import cached_property

import torch

import regard
from regard.backends import cpu, reference

UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SENTINELS = (-3.4028234663852886e38, -1e30, -1e20, -1e12, -1e10, -1e9)  # finite, and meant as minus infinity
LARGEST_SCORE_BESIDE_A_SENTINEL = 20  # half of the last digit of −1e9 is 32: beyond it a score is lost in the sum


class Case:
    """Inputs and options of one call, drawn from a number; `exact` where float32 computes the scores without error."""

    def __init__(self, number: int) -> None:
        self.draw = random.Random(number)
        torch.manual_seed(number)
        draw = self.draw
        groups, self.batch = draw.choice((1, 1, 2, 3)), draw.choice((1, 1, 2, 3))
        self.heads = groups * draw.choice((1, 1, 2, 3))
        self.queries, self.keys = (draw.choice((0, 1, 2, 3, 5, 7, 16, 17, 33, 64, 65, 130)) for _ in range(2))
        if draw.random() < 0.05:
            self.keys = draw.choice((257, 300, 513, 700))
        self.dim, self.value_dim = (draw.choice((1, 2, 4, 7, 8, 16, 17, 32, 33, 64, 80)) for _ in range(2))
        self.dtype = draw.choice((torch.float32,) * 5 + (torch.bfloat16, torch.float16, torch.float64))
        self.kind = draw.choice(("normal", "normal", "integers", "large", "one-hot", "equal"))
        self.exact = self.kind in ("integers", "large")
        self.query, self.key = (self.vectors(self.heads, self.queries), self.vectors(groups, self.keys))
        if self.kind == "equal":
            largest = {torch.float16: 2.0**15}.get(self.dtype, 2.0**17)  # all products and sums are exact
            self.query, self.key = torch.full_like(self.query, largest), torch.full_like(self.key, largest)
        self.value = self.laid_out(torch.randn(self.batch, groups, self.keys, self.value_dim).to(self.dtype))
        self.options: dict = {}
        self.add_scale()
        self.add_mask()
        self.add_bias()
        if self.draw.random() < 0.15 and self.kind in ("normal", "one-hot"):
            self.options["softcap"] = draw.choice((0.5, 5.0, 30, 1e6))
        if self.draw.random() < 0.15:
            sinks = torch.randn(self.heads, dtype=draw.choice((self.dtype, torch.float32)))
            self.options["sinks"] = sinks * draw.choice((1, 20)) if draw.random() < 0.9 else sinks - torch.inf
        names = [name for name in ("entropy", "max", "topk:1") if draw.random() < 0.2 and self.keys]
        self.collect = tuple(names)
        self.backend = draw.choice((None, None, "cpu", "torch"))
        callable_mask = callable(self.options.get("mask")) and not torch.is_tensor(self.options["mask"])
        if self.backend == "cpu" and (self.dtype == torch.float64 or callable_mask):
            self.backend = None

    def vectors(self, heads: int, rows: int) -> torch.Tensor:
        """Queries or keys."""
        shape = (self.batch, heads, rows, self.dim)
        if self.kind == "normal":
            x = torch.randn(shape)
        elif self.kind == "one-hot":
            x = 8.0 * torch.nn.functional.one_hot(torch.randint(self.dim, shape[:3]), self.dim)
        else:
            x = torch.randint(-1, 2, shape).float()
            if self.kind == "large":  # powers of two, so that products and sums are exact
                x *= 2.0 ** self.draw.choice((0, 3, 7))
        return self.laid_out(x.to(self.dtype))

    def laid_out(self, x: torch.Tensor) -> torch.Tensor:
        """The same numbers in another order in memory."""
        layout = self.draw.randrange(4)
        if layout == 1:
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        if layout == 2:
            return torch.cat((x, x), -1)[..., : x.shape[-1]]
        return x.mT.contiguous().mT if layout == 3 and self.draw.random() < 0.3 else x

    def add_scale(self) -> None:
        if self.kind == "normal":
            self.options["scale"] = self.draw.choice(
                (None, 0.02, -1 / self.dim**0.5, 3 / self.dim**0.5, 1e-20, 1e-42, 0)
            )
        elif self.kind == "equal":
            self.options["scale"] = self.draw.choice((0.125, 1.0, -0.5))
        else:
            self.options["scale"] = self.draw.choice((0.125, 0.25, -0.25, 1.0))

    def add_mask(self) -> None:
        draw, options = self.draw, self.options
        options["causal"] = draw.random() < 0.3
        if draw.random() < 0.25:
            options["window"] = (draw.choice((None, 0, 1, 5, 40)), draw.choice((None, 0, 1, 5, 40)))
        if draw.random() < 0.2:
            options["lengths"] = torch.randint(0, self.keys + 1, (self.batch,))
        if draw.random() < 0.15:
            bounds = [
                torch.tensor([0, *sorted(draw.randint(0, size) for _ in range(3)), size], dtype=torch.int32)
                for size in (self.queries, self.keys)
            ]
            options["segments"] = tuple(bounds)
        if draw.random() < 0.3:
            shape = [size if draw.random() < 0.6 else 1 for size in self.shape]
            options["mask"] = torch.rand(shape) < draw.choice((0.2, 0.6, 0.95))
            if draw.random() < 0.2:
                options["mask"] = lambda b, h, q, k: (q + 2 * k + b + h) % 3 != 0

    def add_bias(self) -> None:
        draw = self.draw
        if draw.random() < 0.55:
            return
        shape = [size if draw.random() < 0.6 else 1 for size in self.shape]
        kind = draw.choice(("normal", "hiding", "sentinel", "sentinel rows"))
        bias = torch.zeros(shape) if self.exact or self.kind == "equal" else torch.randn(shape)
        if kind == "hiding":
            bias = bias.masked_fill(torch.rand(shape) < 0.4, -torch.inf)
        if kind.startswith("sentinel") and self.kind in ("normal", "integers", "one-hot"):
            self.options["scale"] = 0.25 / self.dim if self.kind != "one-hot" else 0.25
            self.exact = False
            hidden = torch.rand(shape) < 0.5 if kind == "sentinel" else torch.rand(*shape[:3], 1) < 0.4
            bias = bias.masked_fill(hidden, draw.choice(SENTINELS))
        dtype = draw.choice((torch.float32, self.dtype))
        if dtype in (torch.float16, torch.bfloat16):
            bias = bias.clamp(min=torch.finfo(dtype).min) if kind != "hiding" else bias
        self.options["bias"] = self.laid_out(bias.to(dtype))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.heads, self.queries, self.keys

    # What is right

    @cached_property
    def right(self) -> tuple[torch.Tensor, ...]:
        """What `expected` gives of the inputs as they are."""
        return self.expected()

    def expected(self, query=None, key=None, value=None, bias=None, sinks=None):
        """Output, lse and weights of the reference, from scores rounded where any arithmetic must round them."""
        query, key = (own.double() if x is None else x for x, own in ((query, self.query), (key, self.key)))
        scores = query @ key.repeat_interleave(self.heads // key.shape[1], 1).mT
        scores = scores * (self.dim**-0.5 if self.options["scale"] is None else self.options["scale"])
        if (softcap := self.options.get("softcap")) is not None:
            scores = softcap * torch.tanh(scores / softcap)
        bias = self.options.get("bias") if bias is None else bias
        if bias is not None:
            total = scores + bias.double()
            if self.dtype != torch.float64:  # a score beside a sentinel is lost, and the row looks at all alike
                lost = (bias.double().abs() >= 1e9).expand_as(total) & total.isfinite()
                total = torch.where(lost, scores + (bias.double() - scores).detach(), total)  # its gradient is not
            scores = total
        masking = {name: self.options.get(name) for name in ("causal", "lengths", "segments", "mask")}
        masking["window"] = self.options.get("window") or (None, None)
        masking["sinks"] = self.options.get("sinks") if sinks is None else sinks
        nothing = scores.new_zeros(*scores.shape[:3], 1), scores.new_zeros(self.batch, self.heads, self.keys, 1)
        value = (self.value.double() if value is None else value).repeat_interleave(
            self.heads // self.value.shape[1], 1
        )
        return (*reference.attention(*nothing, value, bias=scores, **masking), scores)

    def score_errors(self, scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """A bound of the errors of a row's scores, of those keys that have any weight."""
        unit = UNIT[torch.float64 if self.dtype == torch.float64 else torch.float32]
        scale = abs(self.dim**-0.5 if self.options["scale"] is None else self.options["scale"])
        sizes = self.query.double().abs() @ self.key.double().abs().repeat_interleave(
            self.heads // self.key.shape[1], 1).mT  # fmt: skip
        error = (4 * math.sqrt(self.dim) + 8) * unit * scale * sizes
        if self.exact or self.kind == "equal":
            error = torch.zeros_like(error)
        if (softcap := self.options.get("softcap")) is not None:
            error = error + 8 * unit * torch.minimum(torch.tensor(float(softcap)), scale * sizes)
        bias = self.options.get("bias")
        if bias is not None and not self.exact:
            ordinary = (bias.double().abs() < 1e9) & bias.isfinite()
            error = error + 4 * unit * bias.double().abs().masked_fill(~ordinary, 0)
        error = error.masked_fill(weights < 1e-30, 0)
        return error.amax(-1) + 16 * unit if self.keys else error.new_zeros(self.shape[:3])


def close(name: str, result: torch.Tensor, expected: torch.Tensor, bound) -> None:
    """Assert the same shape, nan and infinities, and all else within the bound."""
    assert result.shape == expected.shape, f"{name}: shape {tuple(result.shape)}, expected {tuple(expected.shape)}"
    result, expected = result.detach().cpu().double(), expected.detach().cpu().double()
    special = ~expected.isfinite()
    same = torch.equal(result[special].nan_to_num(7, 8, 9), expected[special].nan_to_num(7, 8, 9))
    assert same, f"{name}: {result[special][:3].tolist()} for {expected[special][:3].tolist()}"
    error = (result - expected).abs().masked_fill(special, 0)
    wrong = ~(error <= torch.as_tensor(bound, dtype=torch.float64))
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(f"{name}{list(at)}: {result[at].item():.9g}, expected {expected[at].item():.9g}")


def largest_of(x: torch.Tensor) -> float:
    """The largest absolute value; 0 where there is none."""
    return float(x.double().abs().max()) if x.numel() else 0.0


def moved(thing, device: str):
    """A tensor, or a tuple of them, on a device; anything else as it is."""
    if isinstance(thing, tuple):
        return tuple(moved(item, device) for item in thing)
    return thing.to(device) if torch.is_tensor(thing) else thing


def check(case: Case, device: str = "cpu") -> None:
    """Assert that all that an attention gives is right."""
    given = {name: moved(value, device) for name, value in case.options.items() if value is not None}
    tensors = moved((case.query, case.key, case.value), device)
    backend = case.backend if device == "cpu" else None
    with torch.device("meta") if case.draw.random() < 0.1 else nullcontext():  # the default for new tensors, not ours
        attended = regard.attention(*tensors, collect=case.collect, backend=backend, **given)
    output, lse, weights, scores = case.right
    unit = UNIT[torch.float64 if case.dtype == torch.float64 else torch.float32]
    row_error = case.score_errors(scores, weights)
    # A score that is far from the largest has an error in proportion, and with it the logarithm of its weight.
    relative = torch.expm1(2 * row_error.clamp(max=20))[..., None] + 4 * unit * (2 - weights.log().clamp(min=-1000))
    of_weights = weights * relative + 1e-37
    largest = largest_of(case.value)
    # bfloat16 weights are rounded to bfloat16 where the processor multiplies pairs of them.
    of_output = of_weights.sum(-1, keepdim=True) * largest + (UNIT[case.dtype] * 2 + unit * 16) * largest
    close("output", attended.output, output, of_output)
    lse_bound = row_error + (4 * math.sqrt(case.dim) + 4) * unit * (1 + lse.abs().nan_to_num(0, 0, 0))
    if case.options.get("sinks") is not None:
        lse_bound = lse_bound + 4 * unit * case.options["sinks"].double().abs().nan_to_num(0, 0, 0)[:, None]
    close("lse", attended.lse, lse, lse_bound)
    w = attended.weights
    close("dense", w.dense(), weights, of_weights)
    check_reductions(case, w, weights, lse, of_weights, row_error, unit)
    if case.queries and case.keys:
        check_map(case, w, weights, of_weights, unit, device)
    if case.draw.random() < 0.3 and largest_of(row_error) < 1e-3:
        check_gradients(case, given, row_error, device, backend)


def check_reductions(case, w, weights, lse, of_weights, row_error, unit) -> None:
    entropy = torch.special.entr(weights).sum(-1)
    entropy_bound = 4 * row_error * (entropy + 1) + 64 * unit * (1 + entropy)
    close("entropy", w.entropy(), entropy, entropy_bound)
    close("received", w.received(), weights.sum(-2), of_weights.sum(-2) + unit * 16 * max(1, case.queries) ** 0.5)
    ahead = (torch.arange(case.queries)[:, None] - torch.arange(case.keys)).abs()
    close(
        "distance",
        w.distance(),
        (weights * ahead).sum(-1),
        (of_weights * ahead).sum(-1) + 64 * unit * (case.keys + case.queries),
    )
    if not case.keys or not case.queries:
        return
    k = case.draw.randint(1, min(case.keys, 9))
    top = w.topk(k)
    order = weights.sort(dim=-1, descending=True, stable=True)
    close(f"topk({k})", top.values, order.values[..., :k], of_weights.amax(-1, keepdim=True))
    indices = top.indices.cpu()
    named = weights.gather(-1, indices)
    close(f"weights at the indices of topk({k})", named, order.values[..., :k], 2 * of_weights.amax(-1, keepdim=True))
    tied = top.values.cpu().diff(dim=-1) == 0
    assert bool((indices.diff(dim=-1)[tied] > 0).all()), f"topk({k}): of equal weights the lower index comes first"
    rows, columns = case.draw.randint(1, min(case.queries, 6)), case.draw.randint(1, min(case.keys, 6))
    reduce = case.draw.choice(("mean", "sum", "max"))
    cells = pooled(weights, rows, columns, reduce)
    summing = cells * UNIT[torch.float64] * case.queries * case.keys  # one number after another, in float64
    close(
        f"pool {reduce}",
        w.pool(rows, columns, reduce),
        cells,
        pooled(of_weights, rows, columns, reduce) + 16 * unit + summing,
    )
    row, column = case.draw.randrange(case.queries), case.draw.randrange(case.keys)
    close("row", w[:, :, row], weights[:, :, row], of_weights[:, :, row])
    # A part of a row is exp(s − lse) of an lse that is rounded where it is not the kernel's, which keeps it in float64.
    rounded = weights[..., column] * unit * lse.abs().nan_to_num(0, 0, 0)
    close("column", w[..., column], weights[..., column], of_weights[..., column] + rounded)
    x = torch.randn(case.keys, 3, dtype=w.dtype)
    bound = of_weights @ x.double().abs() + 64 * unit * x.double().abs().max()
    close("w @ x", w @ x.to(w.device), weights @ x.double(), bound)


def check_map(case, w, weights, of_weights, unit, device) -> None:
    """Assert that a map of the weights, of some kind, is right."""
    width, activation = case.draw.randint(1, 5), case.draw.choice((None, "relu", "abs"))
    batch, heads = weights.shape[:2]
    groups = case.draw.choice((1, case.key.shape[1], heads))
    a = torch.randn(heads, case.queries, width, dtype=w.dtype)
    b = torch.randn(batch, groups, case.keys, width, dtype=w.dtype)
    kind = case.draw.choice(("row", "column", "product", "combined"))
    if kind == "combined":
        f = torch.randn(heads, case.keys, width, dtype=torch.float64)
        gram = torch.einsum("hkf,gkf->khg", f, f).to(w.dtype)
        matrix, expected = w.combined(gram.to(device)), torch.einsum("bhqk,hkf->bqkf", weights, f).norm(dim=-1)
        lengths = f.norm(dim=-1)[:, None]
        # The root of a sum of squares that cancel is off by the root of their rounding, at most; and squares of
        # weights below the root of the smallest number are 0.
        squares = 8 * (heads + 1) * unit * (weights * lengths).sum(1).square()
        bound = (of_weights * lengths).sum(1) + squares / expected.maximum(squares.sqrt()).clamp(min=1e-300)
        bound = bound + 1e-18 * lengths.sum(0)
    else:
        given = {"query": a[..., :1] if kind == "row" else a} if kind != "column" else {}
        given |= {"key": b[..., :1] if kind == "column" else b} if kind != "row" else {}
        matrix = w.times(**moved_all(given, device), activation=activation)
        left = given["query"].double() if "query" in given else torch.ones(heads, case.queries, 1, dtype=torch.float64)
        right = given["key"].double() if "key" in given else torch.ones(1, 1, case.keys, 1, dtype=torch.float64)
        right = right.repeat_interleave(heads // right.shape[1], 1)
        product = left @ right.mT
        factor = {None: product, "relu": product.relu(), "abs": product.abs()}[activation]
        expected = weights * factor
        bound = (
            of_weights * factor.abs() + (weights + of_weights) * (left.abs() @ right.abs().mT) * 4 * (width + 1) * unit
        )
    bound = bound + 1e-37
    name = f"a map ({kind}, {activation})"
    close(name, matrix.dense(), expected, bound)
    row, column = case.draw.randrange(case.queries), case.draw.randrange(case.keys)
    tile = (..., slice(row, row + 7), slice(column, column + 5))
    whole = expected.abs().amax(-1, keepdim=True)
    rounded = bound + 4 * unit * whole
    close(f"a part of {name}", matrix[tile], expected[tile], 2 * rounded[tile])
    many = 64 * unit * whole.amax(-2, keepdim=True)
    received = case.draw.choice(("sum", "max"))
    reduced = expected.sum(-2) if received == "sum" else expected.amax(-2)
    slack = (2 * rounded).sum(-2) + many[..., 0, :] * case.queries
    close(f"received({received}) of {name}", matrix.received(received), reduced, slack)
    x, y = torch.randn(case.keys, 2, dtype=w.dtype), torch.randn(case.queries, 2, dtype=w.dtype)
    slack = (2 * rounded) @ x.double().abs() + 4 * unit * (expected.abs() @ x.double().abs())
    close(f"{name} @ x", matrix @ x.to(device), expected @ x.double(), slack + 1e-30)
    slack = (2 * rounded).mT @ y.double().abs() + 4 * unit * (expected.abs().mT @ y.double().abs())
    close(f"{name}.T @ y", matrix.T @ y.to(device), expected.mT @ y.double(), slack + 1e-30)
    k, magnitude = case.draw.randint(1, min(case.keys, 9)), case.draw.random() < 0.5
    top = matrix.topk(k, magnitude=magnitude)
    ranked = (expected.abs() if magnitude else expected).sort(dim=-1, descending=True, stable=True)
    values = top.values.cpu().abs() if magnitude else top.values
    close(f"topk({k}, {magnitude}) of {name}", values, ranked.values[..., :k], 2 * rounded.amax(-1, keepdim=True))
    named = expected.gather(-1, top.indices.cpu())
    close(
        f"numbers at the keys of topk of {name}", named, top.values.cpu().double(), 2 * rounded.amax(-1, keepdim=True)
    )
    offset = case.draw.randint(-case.queries, case.keys)
    lse = w.lse.double().cpu().abs().nan_to_num(0, 0, 0) if w.backend != "cpu" else torch.zeros(())
    line = expected.diagonal(offset, -2, -1)
    slack = (2 * rounded).diagonal(offset, -2, -1) + 64 * unit * float(lse.max() if lse.numel() else 0) * line.abs()
    close(f"diagonal({offset}) of {name}", matrix.diagonal(offset), line, slack)


def moved_all(given: dict, device: str) -> dict:
    """The same on a device."""
    return {name: tensor.to(device) for name, tensor in given.items()}


def pooled(dense: torch.Tensor, rows: int, columns: int, reduce: str) -> torch.Tensor:
    """A dense matrix as a picture."""

    def edges(size, cells):
        return [n * size // cells for n in range(cells)] + [size]

    top, left = edges(dense.shape[-2], rows), edges(dense.shape[-1], columns)
    how = {"mean": lambda t: t.mean((-1, -2)), "sum": lambda t: t.sum((-1, -2)), "max": lambda t: t.amax((-1, -2))}[
        reduce
    ]
    cells = [[how(dense[..., top[r] : top[r + 1], left[c] : left[c + 1]]) for c in range(columns)] for r in range(rows)]
    return torch.stack([torch.stack(line, -1) for line in cells], -2)


def check_gradients(case: Case, given: dict, row_error: torch.Tensor, device: str, backend: str | None) -> None:
    names = [name for name in ("query", "key", "value") if getattr(case, name).numel()]
    optional = [
        name for name in ("bias", "sinks") if given.get(name) is not None and bool(given[name].isfinite().all())
    ]
    if "bias" in optional and bool((case.options["bias"].abs() >= 1e9).any()):
        optional.remove("bias")
    toward = torch.randn(case.value_dim)
    results, types = [], []
    for exact in (False, True):
        leaves = {name: getattr(case, name).detach() for name in ("query", "key", "value")}
        leaves |= {name: case.options[name].detach() for name in optional}
        leaves = {name: (x.double() if exact else x.clone().to(device)).requires_grad_() for name, x in leaves.items()}
        if exact:
            output, lse = case.expected(**leaves)[:2]
        else:
            others = {name: value for name, value in given.items() if name not in leaves}
            attended = regard.attention(**leaves, **others, backend=backend)
            output, lse = attended.output, attended.lse
        loss = (output * toward.to(output)).sum() + lse[lse.isfinite()].sum()
        wanted = [leaves[name] for name in (*names, *optional)]
        types = types or [leaf.dtype for leaf in wanted]
        if not loss.requires_grad or not wanted:
            return
        results.append(torch.autograd.grad(loss, wanted, allow_unused=True))
    precision = 1e-11 if set(types) == {torch.float64} else 3e-5
    half = {torch.float16: 2.0**-7, torch.bfloat16: 2.0**-4}.get(case.dtype, 0)
    share = precision + half + 16 * largest_of(row_error)
    vectors = max(largest_of(case.query), largest_of(case.key)) * abs(given.get("scale", case.dim**-0.5))
    for name, result, expected in zip((*names, *optional), *results, strict=True):
        result, expected = (torch.zeros(()) if g is None else g.cpu() for g in (result, expected))
        size = 1 + largest_of(expected) + vectors
        largest = torch.finfo(result.dtype).max  # a gradient just below it may be rounded to infinity
        result, expected = (g.double().clamp(-largest, largest) for g in (result, expected))
        close(f"gradient of {name}", result, expected, share * size * 4)


# Running them


def run(number: int) -> list[str]:
    """What is wrong with a case, on each instruction set."""
    wrong = []
    case = Case(number)
    for name in cpu.instruction_sets() if not cpu._missing else [""]:
        os.environ["REGARD_ISA"] = name
        case.draw.seed(number)
        try:
            check(case)
        except AssertionError as error:
            wrong.append(f"case {number} on {name}: {error}")
        except Exception:
            wrong.append(f"case {number} on {name}: {traceback.format_exc().strip().splitlines()[-1]}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="How many cases to run on each instruction set.")
    parser.add_argument("--first", type=int, default=0, help="The number of the first case.")
    options = parser.parse_args()
    from rich.console import Console
    from rich.progress import track

    numbers = range(options.first, options.first + options.cases)
    wrong = 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), torch.set_num_threads, (1,)) as pool:
        answers = pool.imap(run, numbers, chunksize=64)
        for answer in track(answers, "fuzz", total=len(numbers), console=Console(stderr=True)):
            wrong += len(answer)
            if answer:
                print(*answer, sep="\n", flush=True)
    sets = ", ".join(cpu.instruction_sets()) if not cpu._missing else "PyTorch alone"
    print(f"{len(numbers):,} cases on each of {sets}: {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
