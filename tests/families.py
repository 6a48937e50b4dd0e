"""Every family of transformers that uses its attention interface: eager attention as the truth, regard against it.

python tests/families.py                    # all families, and docs/families.md
python tests/families.py gemma3 llama       # some, with what happened to each model
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
import transformers
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

import regard
import regard.hf
from support.families import table, tiny

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
SECONDS = 90  # of the processor's time, a family
# float32 sums of at most 256 products, in whatever order, err by about √256 units in the last place; four times that
# leaves room for both sides' errors and for chance.
ROUNDING = 4 * 16 * torch.finfo(torch.float32).eps
SENSITIVE = 1e-3  # of the largest number: no more is ever allowed, however much rounding does to a model


class Verdict(NamedTuple):
    model: str
    result: str  # exact, unseen rows, wrong, crashed, refused, not built
    detail: str = ""


def judge(kind: type[PreTrainedModel]) -> Verdict:
    name = kind.__name__
    try:
        config = tiny.tiny_config(kind, table.CONFIGS.get(name, {}))
        config._attn_implementation = "eager"
        model = tiny.build(kind, config)
    except Exception as error:
        return Verdict(name, "not built", reason(error))
    if os.environ.get("TRACE"):
        print(name, sum(p.numel() for p in model.parameters()) // 1000, "k parameters", flush=True)
    try:
        arguments, options = tiny.inputs(model, table.INPUTS.get(name, {}))
    except Exception as error:
        return Verdict(name, "not built", f"no input: {reason(error)}")
    calls = variants(model, arguments, options)
    try:
        truth = {variant: observe(call, model) for variant, call in calls.items()}
        rounded = {variant: observe(call, model, ROUNDING) for variant, call in calls.items()}
    except Exception as error:
        return Verdict(name, "not built", f"eager fails: {reason(error)}")
    if not any(attentions for _, attentions in truth.values()):
        return Verdict(name, "no attention", "none of its attentions comes through the interface")
    if compare(truth["plain"], observe(calls["plain"], model), truth["plain"]) == "wrong":
        return Verdict(name, "not built", "eager differs from itself, from call to call")
    worst = Verdict(name, "exact")
    for how in ("set", "constructed"):
        verdict = under_regard(kind, model, how, arguments, options, truth, rounded)
        if RANK.index(verdict.result) > RANK.index(worst.result):
            worst = verdict
    return worst


RANK = ["no attention", "exact", "unseen rows", "not built", "refused", "crashed", "wrong"]


def under_regard(kind, model, how: str, arguments, options, truth, rounded) -> Verdict:
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
        results[variant] = compare(truth[variant], mine, rounded[variant])
    worst = max(results.values(), key=RANK.index)
    detail = ", ".join(f"{variant}: {result}" for variant, result in results.items() if result != "exact")
    if detail and os.environ.get("TRACE"):
        for variant, result in results.items():
            if result != "exact":
                again = observe(variants(ours, arguments, options)[variant], ours)
                explain(name, how, variant, truth[variant], again, rounded[variant])
    return Verdict(name, worst, f"{how}, {detail}" if detail else "")


def refusal(error: Exception) -> bool:
    return isinstance(error, ValueError) and "attention" in str(error) and "regard" in str(error)


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[: int(os.environ.get("LONG", "300"))]


def variants(model, arguments: dict, options: dict) -> dict[str, Callable[[], Any]]:
    """The calls to compare: as it is, padded on either side, and in two parts through a cache."""
    parameters = tiny.signature(model)
    calls = {"plain": lambda: model(**copy.deepcopy(arguments), **options)}
    for side in ("right", "left"):
        if (more := tiny.padded(arguments, parameters, side)) is not None:
            calls[side] = lambda more=more: model(**more, **options)
    left = tiny.padded(arguments, parameters, "left")
    if left is not None and "past_key_values" in parameters and "decoder_input_ids" not in parameters:
        calls["cached"] = lambda: cached(model, left, options)
    return calls


def cached(model, arguments: dict, options: dict):
    """The last three tokens after the others, through a cache where the model has one."""
    ids, mask = arguments["input_ids"], arguments["attention_mask"]
    by_token = {n: v for n, v in arguments.items() if isinstance(v, Tensor) and v.shape[:2] == ids.shape}
    before = arguments | {name: value[:, :-3] for name, value in by_token.items()}
    first = model(**before, use_cache=True, **options)
    cache = getattr(first, "past_key_values", None)
    if cache is None:
        return first
    rest = arguments | {name: value[:, -3:] for name, value in by_token.items()} | {"attention_mask": mask}
    return model(**rest, past_key_values=cache, use_cache=True, **options)


# What a call gives


class Observed(NamedTuple):
    """All tensors of the output by their places, and (output, weights) of every attention of the interface."""

    places: dict[str, Tensor]
    attentions: list[tuple[Tensor, Tensor]]


def observe(call: Callable[[], Any], model, rounding: float = 0.0) -> Observed:
    """What a call gives; `rounding` is by how much eager attention is moved, to see what that does to the model."""
    torch.manual_seed(11)
    with torch.no_grad(), eager_attentions(rounding) as eager, regard.hf.record() as ours:
        output = call()
    attentions = eager or [(a.output.transpose(1, 2), a.weights) for _, a in ours]
    return Observed(dict(tensors(output)), attentions)


@contextmanager
def eager_attentions(rounding: float) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects what the models' own eager functions give, which they hand to the interface as its default.

    Queries and outputs are changed by `rounding` of each number, up or down by chance.
    """
    attentions: list[tuple[Tensor, Tensor]] = []
    get_interface = AttentionInterface.get_interface
    generator = torch.Generator().manual_seed(5)

    def moved(numbers: Tensor) -> Tensor:
        if not rounding:
            return numbers
        return numbers * (1 + rounding * torch.empty_like(numbers).uniform_(-1, 1, generator=generator).sign())

    def collecting(self, implementation, default):
        function = get_interface(self, implementation, default)
        if implementation != "eager" and implementation is not None:
            return function

        def attend(module, query, *args, **kwargs):
            output, weights, *rest = function(module, moved(query), *args, **kwargs)
            output = moved(output)
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


def compare(truth: Observed, ours: Observed, rounded: Observed) -> str:
    """exact; "unseen rows": the same but for queries that may look at nothing; or wrong.

    Equal is what differs from the truth by no more than the truth, computed with other rounding, differs from itself.
    """
    if len(truth.attentions) != len(ours.attentions) or truth.places.keys() != ours.places.keys():
        return "wrong"
    places = [place for place in truth.places if not isinstance(ours.places[place], regard.Weights)]  # compared below
    same = all(close(truth.places[place], ours.places[place], rounded.places.get(place)) for place in places)
    pairs = list(starmap(same_attention, aligned(truth, ours, rounded)))
    if not all(seen for seen, _ in pairs):
        return "wrong"
    if same:
        return "exact"
    return "unseen rows" if not all(everything for _, everything in pairs) else "wrong"


def aligned(truth: Observed, ours: Observed, rounded: Observed) -> Iterator[tuple]:
    """Each attention of the truth beside ours and that of other rounding."""
    return zip(truth.attentions, ours.attentions, rounded.attentions, strict=False)


def same_attention(truth: tuple, ours: tuple, rounded: tuple) -> tuple[bool, bool]:
    """Whether the rows that see something agree, and whether all rows do."""
    (output, weights), (our_output, our_weights) = truth, ours
    dense = our_weights.dense() if isinstance(our_weights, regard.Weights) else our_weights
    if not isinstance(weights, Tensor):
        weights = dense
    if output.shape != our_output.shape or weights.shape != dense.shape:
        return False, False
    blind = dense.sum(-1) == 0  # (B,H,Q)
    rows, weight_rows = blind.transpose(1, 2)[..., None], blind[..., None]
    sinks = getattr(our_weights, "sinks", None)
    if sinks is not None and close(torch.ones_like(weights[..., 0]), weights.sum(-1), None):
        dense = dense / dense.sum(-1, keepdim=True)  # eager's are those before the sink takes its share
    seen = close(output.masked_fill(rows, 0), our_output.masked_fill(rows, 0), rounded[0])
    seen = seen and close(weights.masked_fill(weight_rows, 0), dense.masked_fill(weight_rows, 0), rounded[1])
    return seen, close(output, our_output, rounded[0]) and seen


def close(expected: Tensor, ours: Tensor, rounded: Tensor | None) -> bool:
    if expected.shape != ours.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(expected, ours)
    return torch.allclose(ours.double(), expected.double(), rtol=0, atol=allowed(expected, rounded), equal_nan=True)


def allowed(expected: Tensor, rounded: Tensor | None) -> float:
    """By how much numbers may differ: as much as other rounding moves one of them, or rounds the largest."""
    scale = largest(expected)
    if not isinstance(rounded, Tensor) or rounded.shape != expected.shape:
        return ROUNDING * scale
    return min(max(ROUNDING * scale, largest(rounded.double() - expected.double())), SENSITIVE * scale)


def largest(numbers: Tensor) -> float:
    finite = numbers[numbers.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


def explain(name: str, how: str, variant: str, truth: Observed, ours: Observed, rounded: Observed) -> None:
    print(f"  {name} {how} {variant}: {len(truth.attentions)} attentions in eager, {len(ours.attentions)} here")
    for place, value in truth.places.items():
        other, limit = ours.places.get(place), allowed(value, rounded.places.get(place))
        if other is None or value.shape != other.shape:
            print("   ", place, tuple(value.shape), None if other is None else tuple(other.shape))
        elif isinstance(other, Tensor) and not close(value, other, rounded.places.get(place)):
            gap = (value.double() - other.double()).abs().max().item()
            print("   ", place, tuple(value.shape), f"differs by {gap:.2g} of {limit:.2g} allowed")
    for index, (eager, mine, moved) in enumerate(aligned(truth, ours, rounded)):
        seen, everything = same_attention(eager, mine, moved)
        if not everything:
            dense = mine[1].dense() if isinstance(mine[1], regard.Weights) else mine[1]
            gaps = [
                "shapes" if a.shape != b.shape else largest(a - b) for a, b in zip(eager, (mine[0], dense), strict=True)
            ]
            limits = [allowed(a, b) for a, b in zip(eager, moved, strict=True)]
            print(f"    attention {index} {tuple(dense.shape)}: {gaps} of {limits}, seen rows agree: {seen}")


# All of them


def family(name: str) -> list[Verdict]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        kinds = tiny.model_classes(name)
    except Exception as error:
        return [Verdict(name, "not built", reason(error))]
    return [judge(kind) for kind in kinds]


def isolated(name: str, connection) -> None:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    connection.send(family(name))
    connection.close()


def run(names: list[str], workers: int) -> Iterator[tuple[str, list[Verdict]]]:
    """Each family in a process of its own, so that a crash or a hang is that family's alone."""
    context, waiting, running = multiprocessing.get_context("fork"), list(names), {}
    while waiting or running:
        while waiting and len(running) < workers:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=isolated, args=(waiting[0], sender))
            process.start()
            sender.close()
            running[receiver] = (waiting.pop(0), process)
        for receiver in multiprocessing.connection.wait(list(running)):
            name, process = running.pop(receiver)
            try:
                models = receiver.recv()
            except EOFError:
                process.join()
                models = [Verdict(name, "crashed", f"the process ended with {process.exitcode}")]
            process.join()
            yield name, models


def verdict(models: list[Verdict]) -> str:
    """A family's: the worst of its models; those that could not be built count where no other was."""
    tried = [model.result for model in models if model.result not in ("not built", "no attention")]
    return max(tried, key=RANK.index) if tried else "not built"


def page(results: dict[str, list[Verdict]]) -> str:
    """The results as a page of documentation."""
    verdicts = {name: verdict(models) for name, models in results.items()}
    counts = {result: list(verdicts.values()).count(result) for result in dict.fromkeys(HEADINGS)}
    lines = [INTRODUCTION.format(version=transformers.__version__, families=len(results)).strip(), ""]
    lines += ["| result | families |", "|---|---|", *(f"| {HEADINGS[r]} | {n} |" for r, n in counts.items()), ""]
    for result, heading in HEADINGS.items():
        if not counts[result]:
            continue
        lines += [f"## {heading[0].upper()}{heading[1:]}", ""]
        for name, models in results.items():
            if verdicts[name] == result:
                lines.append(f"- **{name}**: " + "; ".join(filter(None, map(told, models))))
        lines.append("")
    return "\n".join(lines)


def told(model: Verdict) -> str:
    if model.result == "exact":
        return model.model
    if model.result == "no attention":
        return f"{model.model} (its attention stays transformers' own)"
    short = model.detail.split(" <- ")[0].split(" | ")[0].replace("no input: ValueError: ", "")
    return f"{model.model} ({model.result}: {short[:200]})".replace("<", "&lt;")


HEADINGS = {
    "exact": "exact",
    "unseen rows": "exact but for queries that see nothing",
    "refused": "refused",
    "crashed": "crashed",
    "wrong": "wrong",
    "not built": "not built here",
}
INTRODUCTION = """
# The families of transformers

`make families` builds tiny random models of every family of transformers that uses its attention interface, and
compares `attn_implementation="regard"` with `"eager"`, the truth: every attention, its output and its weights,
one by one, and every tensor of the model's output; set on a model and given when it is constructed; without
padding, with padding on the right and on the left, and with a cache. This page is what it found with
transformers {version}, in {families} families.

*Exact* means equal within the rounding of float32, and what that is, is measured model by model: eager attention is
computed a second time with every query and every output moved by 64 units in the last place, four times what sums of
256 products err by. Each number of ours may differ from eager's by as much as that moves any number of the same
tensor, by 64 units of the tensor's largest number where it moves them less, and never by more than a thousandth of it.
Three things are as they are on purpose:

- **A query that may look at nothing**, such as padding on the left, has weights of 0 here; eager's are uniform.
  Its output is eager's, the mean of the values, because some models pool over such rows. Where masks hide
  everything from a query, eager's gradient also reaches queries and keys, through scores that rounding erased;
  PyTorch's SDPA has none there, nor have we.
- **Sinks that scale the output** (granite_swa, granitemoe_swa): eager returns the weights before the sink takes
  its share. Ours are those that multiply the values, and sum to 1 − `weights.sink()`. Outputs are equal.
- **A mask of None hides nothing**, as in eager attention, whatever `is_causal` says. SDPA makes moshi's depth
  decoder causal where it is given no mask, and eager does not; a model opened with regard does what eager does.
  Step by step, as it is generated from, both agree.

A model whose "attention stays transformers' own" computes it in its own code; the rest of its family goes
through regard.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="folders of transformers.models; all if none is given")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--results", type=Path, help="a JSON file: families in it are not tried again, unless named")
    options = parser.parse_args()
    everything = tiny.families()
    results = json.loads(options.results.read_text()) if options.results and options.results.exists() else {}
    results = {name: [Verdict(*model) for model in models] for name, models in results.items()}
    for name, models in run(options.families or [n for n in everything if n not in results], options.workers):
        results[name] = models
        print(f"{name}: " + "; ".join(" ".join(filter(None, model)) for model in models), flush=True)
        if options.results:
            options.results.write_text(json.dumps(results))
    if set(everything) <= set(results):
        PAGE.write_text(page(dict(sorted(results.items()))))
        print(
            f"{PAGE}: " + ", ".join(f"{name} {sum(verdict(m) == name for m in results.values())}" for name in HEADINGS)
        )
    bad = [name for name, models in results.items() if verdict(models) in ("wrong", "crashed")]
    sys.exit(f"wrong or crashed: {', '.join(bad)}" if bad else 0)
