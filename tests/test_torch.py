"""attention() in PyTorch's own machinery: compile, export, tracing, modes, devices, threads."""

import threading
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import regard
from regard.backends.problem import flatten

DTYPES = [torch.float32, torch.bfloat16, torch.float64]
OF_TORCH = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def problem(kit, dtype=torch.float32, **sizes):
    """Query, key and value whose gradient is wanted, and one of every option that is a tensor."""
    tensors = [tensor.requires_grad_() for tensor in kit.inputs(dtype=dtype, **sizes)]
    queries, keys = tensors[0].shape[2], tensors[1].shape[2]
    return tensors, {
        "mask": torch.rand(queries, keys) < 0.7,
        "bias": torch.randn(queries, keys, dtype=dtype, requires_grad=True),
        "lengths": torch.tensor([keys, keys // 2]),
        "sinks": torch.randn(6, requires_grad=True),
    }


def same(actual, other):
    for mine, theirs in zip(
        torch.utils._pytree.tree_leaves(actual), torch.utils._pytree.tree_leaves(other), strict=True
    ):
        assert torch.equal(mine, theirs)


class Attend(torch.nn.Module):
    """attention() with options given beforehand, as a module to export."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, query, key, value, lengths=None, mask=None, bias=None, sinks=None, segments=None):
        tensors = {"lengths": lengths, "mask": mask, "bias": bias, "sinks": sinks, "segments": segments}
        attended = regard.attention(query, key, value, **tensors, **self.options)
        return attended.output * 2, attended.lse


# torch.compile


@OF_TORCH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [
    {}, {"causal": True}, {"window": (2, 1), "softcap": 3.0}, {"causal": "lengths"}, {"collect": ("entropy", "topk:3")},
], ids=str)  # fmt: skip
def test_compiled_into_one_graph(kit, dtype, options):
    """The same bits as without, gradients too: the graph holds the operator, and no more of the arithmetic."""
    (query, key, value), tensors = problem(kit, dtype)
    leaves = [query, key, value, tensors["bias"], tensors["sinks"]]
    counter = CompileCounterWithBackend("aot_eager")
    plain, compiled = Attend(**options), torch.compile(Attend(**options), fullgraph=True, backend=counter)
    results = []
    for attend in (plain, compiled):
        output, lse = attend(query, key, value, **tensors)
        loss = output.double().square().sum() + lse.masked_fill(lse == -torch.inf, 0).sum()
        results.append([output, lse, *torch.autograd.grad(loss, leaves)])
    same(*results)
    assert counter.frame_count == 1
    assert sum("attention" in str(node.target) for node in counter.graphs[0].graph.nodes) == 1


@OF_TORCH
def test_what_is_compiled_may_return_what_it_attended(kit):
    def attend(query, key, value):
        return regard.attention(query, key, value, causal=True, collect=("entropy",))

    tensors = kit.inputs()
    result = torch.compile(attend, fullgraph=True, backend="eager")(*tensors)
    expected = attend(*tensors)
    for read in (lambda a: a.output, lambda a: a.weights.entropy(), lambda a: a.weights[0, 1], lambda a: a.weights.lse):
        same(read(result), read(expected))


@OF_TORCH
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (4, 0)}, {"segments": True}], ids=str)
def test_lengths_do_not_compile_anew(kit, options):
    """As many graphs over twelve lengths as PyTorch's own attention takes: one, and one for all others."""
    counter, own = CompileCounterWithBackend("eager"), CompileCounterWithBackend("eager")

    def attend(query, key, value):
        more = dict(options)
        if more.get("segments"):
            more["segments"] = (torch.tensor([0, 1, query.shape[2]]), torch.tensor([0, 2, query.shape[2]]))
        return regard.attention(query, key, value, **more).output

    compiled = torch.compile(attend, fullgraph=True, backend=counter)
    for size in range(2, 14):
        tensors = kit.inputs(heads=3, queries=size, keys=size, value_dim=7)
        kit.agree(compiled(*tensors), attend(*tensors), 0)
        torch.compile(F.scaled_dot_product_attention, backend=own)(*tensors)
    assert counter.frame_count <= own.frame_count == 2


@OF_TORCH
def test_bad_lengths_are_refused_by_what_is_compiled(kit):
    tensors = kit.inputs()
    compiled = torch.compile(Attend(), fullgraph=True, backend="eager")
    compiled(*tensors, lengths=torch.tensor([3, 4]))
    with pytest.raises(ValueError, match=r"lengths: expected 0 to 11, .* Got \[3, 12\]"):
        compiled(*tensors, lengths=torch.tensor([3, 12]))
    with pytest.raises(ValueError, match="segments: expected rising boundaries from 0 to 5"):
        compiled(*tensors, segments=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="sinks: expected numbers below infinity"):
        compiled(*tensors, sinks=torch.full((6,), torch.inf))


@OF_TORCH
def test_a_rule_is_refused_in_one_graph_and_served_in_two(kit):
    tensors = kit.inputs()

    def attend(query, key, value):
        return regard.attention(query, key, value, mask=lambda b, h, q, k: q + 2 >= k).output + 1

    with pytest.raises(torch._dynamo.exc.Unsupported, match="mask= is a Python callable"):
        torch.compile(attend, fullgraph=True, backend="eager")(*tensors)
    same(torch.compile(attend, backend="eager")(*tensors), attend(*tensors))


@OF_TORCH
def test_compiled_under_autocast(kit):
    tensors = kit.inputs()

    def attend(query, key, value):
        with torch.autocast("cpu", torch.bfloat16):
            return regard.attention(query, key, value).output

    result = torch.compile(attend, fullgraph=True, backend="eager")(*tensors)
    assert result.dtype == torch.bfloat16
    same(result, attend(*tensors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "names", [[], ["causal"], ["lengths", "full mask"], ["softcap", "bias", "sinks"]], ids="-".join
)
def test_opcheck_of_the_torch_backend(kit, dtype, names):
    """Schema, shapes of fake tensors, and the gradient with dynamic shapes, where PyTorch computes."""
    tensors = [tensor.requires_grad_() for tensor in kit.inputs(dtype=dtype)]
    more = kit.options(names, *tensors[:2])
    scores = regard.attention(*tensors, backend="torch", **more).weights.scores
    scores = replace(scores, query=tensors[0], key=tensors[1])
    arguments = flatten("torch", scores, tensors[2], more.get("sinks"))
    torch.library.opcheck(torch.ops.regard.attention.default, [*arguments, "sinks" in names, 2 * ("bias" in names)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_vmap_over_options(kit, dtype):
    """Lengths, mask and bias of each may be mapped over too; their numbers are checked one by one."""
    query = torch.randn(3, 2, 4, 5, 8, dtype=dtype)
    lengths, mask = torch.tensor([[3, 5], [1, 2], [5, 5]]), torch.rand(3, 5, 5) < 0.6
    bias = torch.randn(3, 5, 5, dtype=dtype)

    def attend(query, lengths, mask, bias):
        return regard.attention(query, query, query, lengths=lengths, mask=mask, bias=bias, causal="lengths").output

    stacked = torch.stack([attend(*actual) for actual in zip(query, lengths, mask, bias, strict=True)])
    same(torch.func.vmap(attend)(query, lengths, mask, bias), stacked)
    with pytest.raises(ValueError, match=r"lengths: expected 0 to 5, .* Got \[7, 9\]"):
        torch.func.vmap(attend)(query, lengths + 4, mask, bias)


# Export and tracing


@OF_TORCH
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_export(kit, dtype, strict):
    """With mask, bias, lengths and sinks as inputs, and any number of keys."""
    (query, key, value), tensors = problem(kit, dtype)
    query, key, value = (t.detach() for t in (query, key, value))
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    keys = torch.export.Dim("keys", min=2, max=512)
    shapes = {"query": None, "key": {2: keys}, "value": {2: keys}, "lengths": None, "sinks": None}
    shapes |= {"mask": {1: keys}, "bias": {1: keys}}
    exported = torch.export.export(
        Attend(causal=True), (query, key, value), tensors, dynamic_shapes=shapes, strict=strict
    )
    same(exported.module()(query, key, value, **tensors), Attend(causal=True)(query, key, value, **tensors))
    (_, key, value), tensors = problem(kit, dtype, keys=17)
    with torch.no_grad():
        same(exported.module()(query, key, value, **tensors), Attend(causal=True)(query, key, value, **tensors))
    with pytest.raises(ValueError, match="lengths: expected 0 to 17"):
        exported.module()(query, key.detach(), value.detach(), **tensors | {"lengths": torch.tensor([3, 18])})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traced(kit, dtype, gradient):
    """torch.jit.trace and make_fx record the operator, and give its numbers for other inputs."""
    first, others = kit.inputs(dtype=dtype), kit.inputs(dtype=dtype)

    def attend(query, key, value):
        return regard.attention(query, key, value, causal=True).output * 2

    with torch.set_grad_enabled(gradient):
        for tensor in (*first, *others):
            tensor.requires_grad_(gradient)
        traced = torch.jit.trace(attend, first, check_trace=False)
        graph = make_fx(attend)(*first)
        symbolic = make_fx(attend, tracing_mode="symbolic")(*first)
        for recorded in (traced, graph, symbolic):
            same(recorded(*others), attend(*others))
    assert "regard::attention" in str(traced.graph)
    assert "regard.attention" in graph.code
    assert "regard.attention" in symbolic.code


WEIGHTS = {
    "row": lambda w: w[0, 1, 2],
    "dense": lambda w: w.dense(),
    "entropy": lambda w: w.entropy(),
    "received": lambda w: w.received(),
    "topk": lambda w: w.topk(2).values,
    "pool": lambda w: w.pool(2, 2),
    "applied": lambda w: w @ torch.ones(11, 3),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_what_is_asked_of_the_weights_is_not_traced(kit, dtype, gradient, name):
    """The kernel fills memory where no trace can see it: a recorded graph would hand that memory out unfilled."""
    tensors = kit.inputs(dtype=dtype)

    def ask(query, key, value):
        return WEIGHTS[name](regard.attention(query, key, value).weights)

    refused = pytest.raises(RuntimeError, match=r"^Weights: their reductions cannot be traced")
    for record in (lambda: torch.jit.trace(ask, tensors, check_trace=False), lambda: make_fx(ask)(*tensors)):
        with torch.set_grad_enabled(gradient), refused:
            record()


@OF_TORCH
@pytest.mark.parametrize("name", ["row", "entropy"])
def test_what_is_asked_of_the_weights_is_refused_in_one_graph_and_served_in_two(kit, name):
    tensors = kit.inputs()

    def ask(query, key, value):
        return WEIGHTS[name](regard.attention(query, key, value).weights) + 1

    with pytest.raises(torch._dynamo.exc.Unsupported, match="their reductions cannot be traced"):
        torch.compile(ask, fullgraph=True, backend="eager")(*tensors)
    same(torch.compile(ask, backend="eager")(*tensors), ask(*tensors))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_trace_checks_the_lengths_that_it_is_given(kit):
    def attend(query, key, value, lengths):
        return regard.attention(query, key, value, lengths=lengths).output

    tensors, lengths = kit.inputs(), torch.tensor([3, 4])
    traced = torch.jit.trace(attend, (*tensors, lengths), check_trace=False)
    graph = make_fx(attend)(*tensors, lengths)
    for recorded in (traced, graph):
        same(recorded(*tensors, torch.tensor([11, 0])), attend(*tensors, torch.tensor([11, 0])))
        with pytest.raises((ValueError, RuntimeError), match=r"lengths: expected 0 to 11, .* Got \[3, 12\]"):
            recorded(*tensors, torch.tensor([3, 12]))


def test_vmap_refuses_a_mask_that_is_a_rule(kit):
    query, key, value = kit.inputs(dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"attention: torch.vmap does not reach a mask= that is a Python callable"):
        torch.vmap(lambda q: regard.attention(q, key, value, mask=lambda b, h, q, k: q + 2 >= k).output)(query[None])


def test_the_meta_device_is_refused_by_name():
    tensors = [torch.ones(2, 3, 4, device="meta")] * 3
    with pytest.raises(ValueError, match=r"query: expected a tensor with numbers in it\. Got one on the meta device"):
        regard.attention(*tensors)


class Names(TorchDispatchMode):
    """The operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dispatch_modes_and_the_profiler_see_the_operator(kit, dtype):
    tensors = kit.inputs(dtype=dtype)
    with Names() as mode, torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        regard.attention(*tensors)
        tensors[0].requires_grad_()
        regard.attention(*tensors).output.sum().backward()
    assert mode.names.count("regard.attention.default") == 2
    assert mode.names.count("regard.attention_backward.default") == 1
    assert {"regard::attention", "regard::attention_backward"} <= {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flops_are_those_of_pytorchs_attention(kit, dtype):
    query, key, value = (t.requires_grad_() for t in kit.inputs(dtype=dtype))
    with FlopCounterMode(display=False) as counter:
        output = regard.attention(query, key, value).output
        forward = counter.get_total_flops()
        output.sum().backward()
    assert forward == 2 * 2 * 6 * 5 * 11 * (7 + 13)
    assert counter.get_total_flops() - forward == 2 * 2 * 6 * 5 * 11 * (3 * 7 + 2 * 13)


# Where internal tensors are made


ANY_OPTIONS = [["causal"], ["window"], ["lengths"], ["segment pair"], ["rule"], ["padding"], ["sinks", "bias"],
               ["hiding bias", "softcap"]]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("names", ANY_OPTIONS, ids="-".join)
def test_a_default_device_changes_nothing(kit, backend, dtype, names):
    tensors = [tensor.requires_grad_() for tensor in kit.inputs(dtype=dtype)]
    more = kit.options(names, *tensors[:2])
    lists = {"lengths": [3, 11]} if "lengths" in names else {}

    def results():
        chosen = kit.forced(backend, *tensors, **more)
        attended = regard.attention(*tensors, **more | lists, backend=chosen)
        gradient = torch.autograd.grad(attended.output.double().pow(2).sum(), tensors)
        weights = attended.weights
        parts = weights[0, 1], weights[..., 3], weights[0, 0, 1:3, [0, 2]], weights.pool(2, 3), weights.entropy()
        return attended.output, attended.lse, *gradient, *parts

    expected = results()
    with torch.device("meta"):
        same(results(), expected)
    before = torch.empty(0).device
    torch.set_default_device("meta")
    try:
        same(results(), expected)
    finally:
        torch.set_default_device(None if before.type == "cpu" else before)
        if before.type == "cpu":  # where torch 2.8 would have None for the default device from now on
            vars(torch._GLOBAL_DEVICE_CONTEXT).pop("device_context", None)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
def test_a_default_type_changes_nothing(kit, backend, default):
    tensors = [tensor.requires_grad_() for tensor in kit.inputs()]
    for names in ANY_OPTIONS:
        more = kit.options(names, *tensors[:2])
        chosen = kit.forced(backend, *tensors, **more)

        def results(more=more, chosen=chosen):
            attended = regard.attention(*tensors, **more, backend=chosen)
            return attended.output, attended.lse, *torch.autograd.grad(attended.output.sum(), tensors)

        expected = results()
        torch.set_default_dtype(default)
        try:
            result = results()
            assert not regard.backends.availability()["torch"]
        finally:
            torch.set_default_dtype(torch.float32)
        same(result, expected)


# A change in place


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["query", "key", "value", "mask", "lengths", "segments", "bias", "sinks"])
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_change_in_place_before_the_gradient_is_refused(kit, backend, dtype, name):
    tensors = dict(zip(("query", "key", "value"), kit.inputs(dtype=dtype), strict=True))
    options = {
        "mask": torch.rand(5, 11) < 0.5,
        "lengths": torch.tensor([3, 9]),
        "segments": torch.tensor([0, 2, 5]),
        "bias": torch.randn(5, 11, dtype=dtype),
        "sinks": torch.randn(6),
    }
    if name == "segments":
        tensors = {which: tensor[:, :, :5] for which, tensor in tensors.items()}
    more = {name: options[name]} if name in options else {}
    chosen = kit.forced(backend, *tensors.values(), **more)
    leaf = tensors["value" if name == "key" else "key"].requires_grad_()
    output = regard.attention(*tensors.values(), **more, backend=chosen).output
    (tensors | more)[name].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(output.sum(), leaf)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_checkpoints_and_saved_tensors_elsewhere(kit, dtype):
    """torch.utils.checkpoint, hooks on what is saved, and anomaly mode see the same gradient."""
    tensors = [tensor.requires_grad_() for tensor in kit.inputs(dtype=dtype)]

    def attend(*tensors):
        return regard.attention(*tensors, causal=True).output

    def gradient(output):
        return torch.autograd.grad(output.double().square().sum(), tensors)

    expected = gradient(attend(*tensors))
    for reentrant in (False, True):
        again = [tensor.detach().requires_grad_() for tensor in tensors]
        checkpoint(attend, *again, use_reentrant=reentrant).double().square().sum().backward()
        same([tensor.grad for tensor in again], list(expected))
    with torch.autograd.graph.save_on_cpu():
        same(gradient(attend(*tensors)), expected)
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        same(gradient(attend(*tensors)), expected)


# Threads


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("names", [[], ["causal"], ["window"], ["full mask"]], ids="-".join)
def test_the_same_bits_in_any_thread_and_for_any_number_of_them(kit, dtype, names):
    tensors = [t.requires_grad_() for t in kit.inputs(queries=131, keys=257, dim=32, value_dim=32, dtype=dtype)]
    more = kit.options(names, *tensors[:2])

    def results():
        attended = regard.attention(*tensors, **more)
        return attended.output, attended.lse, *torch.autograd.grad(attended.output.double().sum(), tensors)

    expected, result = results(), []

    def work(threads):
        torch.set_num_threads(threads)
        result.append(results())

    for threads in (1, 2, 8):
        thread = threading.Thread(target=work, args=(threads,))
        thread.start()
        thread.join()
    torch.set_num_threads(1)
    assert len(result) == 3
    for actual in result:
        same(actual, expected)
