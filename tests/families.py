"""Every family of transformers that uses its attention interface: eager attention as the truth, regard against it.

python tests/families.py                    # all families, and docs/families.md
python tests/families.py gemma3 llama       # some, with what happened to each model
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import families_table
import families_tiny
import torch
import transformers
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

import regard
import regard.hf

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
SECONDS = 90  # of the processor's time, a family
TOLERANCE = 2e-4  # of the largest number: float32 through a few layers of random weights


class Verdict(NamedTuple):
    model: str
    result: str  # exact, unseen rows, wrong, crashed, refused, not built
    detail: str = ""


def judge(kind: type[PreTrainedModel]) -> Verdict:
    name = kind.__name__
    try:
        config = families_tiny.tiny_config(kind, families_table.CONFIGS.get(name, {}))
        config._attn_implementation = "eager"
        model = families_tiny.build(kind, config)
    except Exception as error:
        return Verdict(name, "not built", reason(error))
    if os.environ.get("TRACE"):
        print(name, sum(p.numel() for p in model.parameters()) // 1000, "k parameters", flush=True)
    try:
        arguments, options = families_tiny.inputs(model, families_table.INPUTS.get(name, {}))
    except Exception as error:
        return Verdict(name, "not built", f"no input: {reason(error)}")
    calls = variants(model, arguments, options)
    try:
        truth = {variant: observe(call, model) for variant, call in calls.items()}
    except Exception as error:
        return Verdict(name, "not built", f"eager fails: {reason(error)}")
    if not any(attentions for _, attentions in truth.values()):
        return Verdict(name, "no attention", "none of its attentions comes through the interface")
    if compare(truth["plain"], observe(calls["plain"], model)) == "wrong":
        return Verdict(name, "not built", "eager differs from itself, from call to call")
    worst = Verdict(name, "exact")
    for how in ("set", "constructed"):
        verdict = under_regard(kind, model, how, arguments, options, truth)
        if RANK.index(verdict.result) > RANK.index(worst.result):
            worst = verdict
    return worst


RANK = ["no attention", "exact", "unseen rows", "not built", "refused", "crashed", "wrong"]


def under_regard(kind, model, how: str, arguments, options, truth) -> Verdict:
    name = kind.__name__
    try:
        if how == "set":
            ours = copy.deepcopy(model)
            ours.set_attn_implementation("regard")
        else:
            config = copy.deepcopy(model.config)
            config._attn_implementation = "regard"
            ours = kind(config).eval()
            ours.load_state_dict(model.state_dict())
    except Exception as error:
        return Verdict(name, "refused" if refusal(error) else "crashed", f"{how}: {reason(error)}")
    results = {}
    for variant, call in variants(ours, arguments, options).items():
        if how == "constructed" and variant not in ("plain", "left"):
            continue  # the same code as after set_attn_implementation
        try:
            mine = observe(call, ours)
        except Exception as error:
            if os.environ.get("TRACE"):
                traceback.print_exc()
            return Verdict(name, "refused" if refusal(error) else "crashed", f"{how}, {variant}: {reason(error)}")
        results[variant] = compare(truth[variant], mine)
    worst = max(results.values(), key=RANK.index)
    detail = ", ".join(f"{variant}: {result}" for variant, result in results.items() if result != "exact")
    if detail and os.environ.get("TRACE"):
        for variant, result in results.items():
            if result != "exact":
                explain(name, how, variant, truth[variant], observe(variants(ours, arguments, options)[variant], ours))
    return Verdict(name, worst, f"{how}, {detail}" if detail else "")


def refusal(error: Exception) -> bool:
    return isinstance(error, ValueError) and "attention" in str(error) and "regard" in str(error)


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[: int(os.environ.get("LONG", "300"))]


def variants(model, arguments: dict, options: dict) -> dict[str, Callable[[], Any]]:
    """The calls to compare: as it is, padded on either side, and in two parts through a cache."""
    parameters = families_tiny.signature(model)
    calls = {"plain": lambda: model(**arguments, **options)}
    for side in ("right", "left"):
        if (more := families_tiny.padded(arguments, parameters, side)) is not None:
            calls[side] = lambda more=more: model(**more, **options)
    left = families_tiny.padded(arguments, parameters, "left")
    if left is not None and "past_key_values" in parameters and "decoder_input_ids" not in parameters:
        calls["cached"] = lambda: cached(model, left, options)
    return calls


def cached(model, arguments: dict, options: dict):
    """The last three tokens after the others, through a cache where the model has one."""
    ids, mask = arguments["input_ids"], arguments["attention_mask"]
    first = model(**arguments | {"input_ids": ids[:, :-3], "attention_mask": mask[:, :-3]}, use_cache=True, **options)
    cache = getattr(first, "past_key_values", None)
    if cache is None:
        return first
    return model(**arguments | {"input_ids": ids[:, -3:]}, past_key_values=cache, use_cache=True, **options)


# What a call gives


def observe(call: Callable[[], Any], model) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """All tensors of the output by their places, and (output, weights) of every attention of the interface."""
    torch.manual_seed(11)
    with torch.no_grad(), eager_attentions() as eager, regard.hf.record() as ours:
        output = call()
    attentions = eager or [(a.output.transpose(1, 2), a.weights) for _, a in ours]
    return dict(tensors(output)), attentions


@contextmanager
def eager_attentions() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects what the models' own eager functions give, which they hand to the interface as its default."""
    attentions: list[tuple[Tensor, Tensor]] = []
    get_interface = AttentionInterface.get_interface

    def collecting(self, implementation, default):
        function = get_interface(self, implementation, default)
        if implementation != "eager" and implementation is not None:
            return function

        def attend(*args, **kwargs):
            output, weights, *rest = function(*args, **kwargs)
            attentions.append((output.clone(), weights))
            return output, weights, *rest

        return attend

    AttentionInterface.get_interface = collecting
    try:
        yield attentions
    finally:
        AttentionInterface.get_interface = get_interface


def tensors(thing: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(thing, Tensor | regard.Weights):
        yield place, thing
    elif isinstance(thing, dict):
        for name, value in thing.items():
            yield from tensors(value, f"{place}.{name}")
    elif isinstance(thing, list | tuple):
        for index, value in enumerate(thing):
            yield from tensors(value, f"{place}[{index}]")


def compare(truth, ours) -> str:
    """exact; "unseen rows": the same but for queries that may look at nothing; or wrong."""
    expected, eager = truth
    outputs, mine = ours
    if len(eager) != len(mine) or expected.keys() != outputs.keys():
        return "wrong"
    places = [place for place in expected if not isinstance(outputs[place], regard.Weights)]  # those are compared below
    same = all(close(expected[place], outputs[place]) for place in places)
    pairs = [same_attention(*one, *other) for one, other in zip(eager, mine, strict=True)]
    if not all(seen for seen, _ in pairs):
        return "wrong"
    if same:
        return "exact"
    return "unseen rows" if not all(everything for _, everything in pairs) else "wrong"


def same_attention(output: Tensor, weights: Any, our_output: Tensor, our_weights: Any) -> tuple[bool, bool]:
    """Whether the rows that see something agree, and whether all rows do."""
    dense = our_weights.dense() if isinstance(our_weights, regard.Weights) else our_weights
    if not isinstance(weights, Tensor):
        weights = dense
    if output.shape != our_output.shape or weights.shape != dense.shape:
        return False, False
    sees = dense.sum(-1) > 0  # (B,H,Q)
    rows, weight_rows = sees.transpose(1, 2)[..., None], sees[..., None]
    seen = close(output * rows, our_output * rows) and close(weights * weight_rows, dense * weight_rows)
    return seen, close(output, our_output) and seen


def close(expected: Tensor, found: Tensor) -> bool:
    if expected.shape != found.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(expected, found)
    scale = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 1.0
    return torch.allclose(found.double(), expected.double(), rtol=0, atol=TOLERANCE * max(scale, 1e-3), equal_nan=True)


def explain(name, how, variant, truth, ours) -> None:
    print(f"  {name} {how} {variant}: {len(truth[1])} attentions in eager, {len(ours[1])} here")
    for place, value in truth[0].items():
        other = ours[0].get(place)
        if other is None or value.shape != other.shape:
            print("   ", place, tuple(value.shape), None if other is None else tuple(other.shape))
        elif isinstance(other, Tensor) and not close(value, other):
            print("   ", place, tuple(value.shape), "differs by", (value.double() - other.double()).abs().max().item())
    for index, (one, other) in enumerate(zip(truth[1], ours[1], strict=False)):
        seen, everything = same_attention(*one, *other)
        if not everything:
            dense = other[1].dense()
            gap = "shapes" if one[0].shape != other[0].shape else (one[0] - other[0]).abs().max().item()
            wgap = "shapes" if one[1].shape != dense.shape else (one[1] - dense).abs().max().item()
            print(f"    attention {index} {tuple(dense.shape)}: output {gap}, weights {wgap}, seen rows agree: {seen}")


# All of them


def family(name: str) -> list[Verdict]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        kinds = families_tiny.model_classes(name)
    except Exception as error:
        return [Verdict(name, "not built", reason(error))]
    return [judge(kind) for kind in kinds]


def isolated(name: str, connection) -> None:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    connection.send(family(name))
    connection.close()


def run(names: list[str], workers: int) -> dict[str, list[Verdict]]:
    """Each family in a process of its own, so that a crash or a hang is that family's alone."""
    context, waiting, running, results = multiprocessing.get_context("fork"), list(names), {}, {}
    while waiting or running:
        while waiting and len(running) < workers:
            name = waiting.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=isolated, args=(name, sender))
            process.start()
            sender.close()
            running[name] = (process, receiver)
        for name, (process, receiver) in list(running.items()):
            if receiver.poll(0.05):
                try:
                    results[name] = receiver.recv()
                except EOFError:
                    process.join()
                    results[name] = [Verdict(name, "crashed", f"the process ended with {process.exitcode}")]
                process.join()
                del running[name]
                line = f"{name}: " + "; ".join(f"{v.model} {v.result} {v.detail}".strip() for v in results[name])
                print(line, flush=True)
    return dict(sorted(results.items()))


if __name__ == "__main__":
    names = sys.argv[1:] or families_tiny.families()
    start = time.time()
    results = run(names, workers=int(os.environ.get("WORKERS", "1")))
    print(f"{time.time() - start:.0f} s")
    Path("/tmp/families.json").write_text(json.dumps(results))
