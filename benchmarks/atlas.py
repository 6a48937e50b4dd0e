"""The atlas of heads: what it costs, how exact its sinks are, and what a decoder loses with its heads switched off.

python benchmarks/atlas.py time [MODEL] [--rounds 3] [--cpu]
python benchmarks/atlas.py sinks | memory | induction | retrieval [MODEL]

MODEL: the name or the folder of a causal language model; SmolLM2-135M-Instruct if not given. Each takes two to three
minutes on two cores.

time       every score that a text has, of all heads, 4,096 tokens: reading them and measuring, against reading alone
           with all attentions kept, and against transformers' eager attention with output_attentions=True where its
           dense weights fit into memory. A B A B …, medians; then each score on its own.
           --cpu counts the processor time of one thread: on a machine that others use, what is left of a comparison.
sinks      the weight that every row of every head gives to the first token, and the share of rows above 0.3, against
           dense weights: in float64, and by transformers' own softmax in float32.
memory     the peak of an atlas of a text of 4,096 and of 8,000 tokens, the open model included.
induction  the five heads with the largest induction score switched off, beside five random ones of the same layers:
           the loss on repeated random tokens and on prose, for several seeds.
           Beside each draw stands the largest induction score of its heads: the layers have more than five of them.
retrieval  the share of retrieval heads; and the answer about a needle with all of them switched off, beside as many
           random ones: its log-probability, and whether greedy writing still gives it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers

import regard
from regard._internal.measure import in_process, machine_line
from regard.atlas.ablation import Experiment, heads_of, read_without
from regard.atlas.atlas import Atlas
from regard.atlas.loss import Passage, measured
from regard.atlas.needle import needles
from regard.atlas.plan import excerpts, random_heads
from regard.atlas.texts import repeated, texts
from regard.attribution.heads import SCORES, measure, sample_of
from regard.attribution.heads.sinks import HEAVY
from regard.attribution.layers import layers_of
from regard.bench.embed import sample_texts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.headed import eager

ROWS = 512  # of dense weights at a time
HEADS, ABLATIONS = 5, ("zero", "mean", "edges")
LINE = "  {:<72}{:>16}   {}"


def text_of(lens, tokens: int) -> str:
    """English of so many tokens."""
    text = " ".join(sample_texts())
    encoding = lens.model.unprocessed.encode(text[: 8 * tokens], add_special_tokens=False)
    return text[: encoding.offsets[tokens - len(lens.model.prefix_ids) - 1][1]]


def scores_of(reading, sample) -> dict[str, torch.Tensor]:
    """Every score of all heads, (layers, heads)."""
    by_layer = [measure(layer, sample) for layer in layers_of(reading)]
    return {name: torch.stack([scores[name] for scores in by_layer]) for name in by_layer[0]}


def means(lens, inputs) -> dict[str, torch.Tensor]:
    """The same, the mean over several texts."""
    tables = [scores_of(*given.read(lens)) for given in inputs]
    return {name: torch.stack([table[name] for table in tables]).mean(0) for name in tables[0]}


# What it costs


def medians(runs: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """The median seconds of each run, over rounds of all of them after one that is not counted."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if number:
                samples[name].append(clock() - start)
    return {name: statistics.median(taken) for name, taken in samples.items()}


def measure_time(lens, tokens: int, rounds: int, clock: Callable[[], float]) -> None:
    text = text_of(lens, tokens)
    reading = lens.read(text)
    sample, ids, heads = sample_of(reading), reading.ids, sum(len(layer.weights) for layer in layers_of(reading))
    del reading
    runs = {"reading": lambda: lens.read(text), "atlas": lambda: scores_of(lens.read(text), sample)}
    seconds = medians(runs, rounds, clock)
    print(LINE.format(f"{len(ids):,} tokens, one forward pass, all attentions kept", f"{seconds['reading']:.2f} s", ""))
    print(LINE.format(f"the same with all scores of {heads} heads", f"{seconds['atlas']:.2f} s", ""))
    ratio = seconds["atlas"] / seconds["reading"]
    print(LINE.format("as a multiple of the forward pass", f"{ratio:.2f} ×", "goal: at most 2.5"))
    for name, taken in parts(lens.read(text), sample, clock).items():
        print(LINE.format(f"    {name}", f"{taken:.2f} s", f"{taken / seconds['reading']:.2f} ×"))
    dense = 4 * heads * len(ids) ** 2
    if dense + 3e9 > available_memory():
        print(LINE.format("transformers' eager attention", "not measured", f"its weights take {dense / 1e9:.1f} GB"))
        return
    model = eager(lens.model.forward.model)
    with torch.inference_mode():
        model(ids[None, :64], use_cache=False)
        start = clock()
        model(ids[None], output_attentions=True, use_cache=False)
    taken = clock() - start
    label = "transformers' eager attention, output_attentions=True, a single run"
    print(LINE.format(label, f"{taken:.2f} s", f"{taken / seconds['atlas']:.2f} × the scores with their reading"))


def parts(reading, sample, clock: Callable[[], float]) -> dict[str, float]:
    """The seconds that each score takes, of all layers; what two of them share counts for the first."""
    layers, seconds = layers_of(reading), {}
    for name, score in SCORES.items():
        if score.text == sample.text and score.of in (sample.kind, "both"):
            start = clock()
            for layer in layers:
                score.compute(layer, sample)
            seconds[name] = clock() - start
    return seconds


def available_memory() -> int:
    """Bytes that may still be used; 0 where this is not Linux."""
    file = Path("/proc/meminfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)


def print_memory(model: str, *lengths: int) -> None:
    """Each in a process of its own."""
    for tokens in lengths:
        opened, read, made = (
            in_process(__file__, "--peak", what, model, str(tokens)) for what in ("", "read", "atlas")
        )
        print(
            LINE.format(
                f"an atlas of {tokens:,} tokens, the open model included",
                f"{made / 1e9:.2f} GB",
                f"reading alone: {read / 1e9:.2f} GB; the open model: {opened / 1e9:.2f} GB",
            )
        )


def peak(what: str, model: str, tokens: int) -> int:
    """The peak resident memory of this process, in bytes."""
    lens = regard.Lens(model)
    text = text_of(lens, tokens)
    if what == "read":
        lens.read(text)
    if what == "atlas":
        lens.atlas([text], proof=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# How exact the sinks are


def column_in_float64(scores) -> torch.Tensor:
    """w_i0 of every row and head of causal products, dense, a block of rows at a time: (H,Q)."""
    query, key = scores.query[0].double().unflatten(0, (scores.key.shape[1], -1)), scores.key[0].double()[:, None]
    blocks = []
    for start in range(0, query.shape[2], ROWS):
        rows = query[:, :, start : start + ROWS]
        stop = start + rows.shape[2]
        tile = scores.scale * rows @ key[:, :, :stop].mT
        hidden = torch.ones(rows.shape[2], stop, dtype=torch.bool).triu(start + 1)
        blocks.append(tile.masked_fill_(hidden, -torch.inf).softmax(-1)[..., 0].flatten(0, 1))
    return torch.cat(blocks, -1)


def column_by_transformers(scores) -> torch.Tensor:
    """The same by transformers' own function for Llama, in the type of the model."""
    from transformers.models.llama.modeling_llama import eager_attention_forward

    query, key = scores.query, scores.key
    module = SimpleNamespace(num_key_value_groups=query.shape[1] // key.shape[1], training=False)
    blocks = []
    for start in range(0, query.shape[2], ROWS):
        rows = query[:, :, start : start + ROWS]
        hidden = torch.ones(rows.shape[2], key.shape[2], dtype=torch.bool).triu(start + 1)
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, torch.finfo(query.dtype).min)[None, None]
        weights = eager_attention_forward(module, rows, key, key, mask, scores.scale)[1]
        blocks.append(weights[0, ..., 0].clone())
    return torch.cat(blocks, -1)


@torch.inference_mode()
def compare_sinks(lens, tokens: int) -> None:
    reading = lens.read(text_of(lens, tokens))
    sample, layers = sample_of(reading), layers_of(reading)
    rows = sample.rows & (torch.arange(len(sample.rows)) > 0)
    streamed = torch.stack([layer.weights[..., 0] for layer in layers])  # (layers,H,Q)
    shares = torch.stack([SCORES["sink"].compute(layer, sample) for layer in layers]).double()
    size = f"{len(reading.tokens):,} tokens, {streamed[..., 0].numel()} heads"
    print(LINE.format(f"{size}: heads with a share of 0.5 or more", int((shares >= 0.5).sum()), ""))
    for name, compute in (("float64", column_in_float64), ("transformers' eager attention", column_by_transformers)):
        dense = torch.stack([compute(layer.weights.scores) for layer in layers])
        weights = (streamed.double() - dense.double())[..., rows].abs().max()
        theirs = (dense > HEAVY)[..., rows]
        apart = (shares - theirs.double().mean(-1)).abs().max()
        differently = int((theirs != (streamed > HEAVY)[..., rows]).sum())
        print(
            LINE.format(f"w_i0 against {name}, the largest difference", f"{float(weights):.1e}", "goal: at most 1e-5")
        )
        print(LINE.format("    the share of rows above 0.3", f"{float(apart):.1e}", "goal: at most 1e-5"))
        count = f"{differently} of {theirs.numel():,}"
        print(LINE.format("    rows on the other side of 0.3", count, "which rounding decides"))


# What heads do


def switch_induction_off(lens, seeds: int, draws: int) -> None:
    """The five heads with the largest score, for tokens and random heads of several seeds."""
    for seed in range(seeds):
        inputs = repeated(lens, seed)
        table = means(lens, inputs)["induction"]
        places = table.flatten().argsort(descending=True)[:HEADS].tolist()
        heads = [divmod(place, table.shape[1]) for place in places]
        others = {n: [h for h in range(len(row)) if (n, h) not in heads] for n, row in enumerate(table)}
        random, note = random_heads(heads, others, draws, seed)
        experiments = [Experiment(chosen, name) for name in ABLATIONS for chosen in (heads, *random)]
        on_repeated = changes(lens, inputs, "repeated", experiments)
        on_prose = changes(lens, texts(lens)[:2], "text", experiments)
        print(f"\n  seed {seed}: " + ", ".join(f"L{layer}H{head} {table[layer, head]:.2f}" for layer, head in heads))
        print(f"  {note}" if note else "  the random heads are of the same layers, as many in each")
        print(f"  {'change of the loss, nats a token':<50}{'repeated tokens':>18}{'prose':>18}")
        for n, name in enumerate(ABLATIONS):
            start = n * (1 + len(random))
            print(f"  {f'the five heads, {name}':<50}{on_repeated[start]:>+18.3f}{on_prose[start]:>+18.3f}")
            for label, drawn in enumerate(random):
                at, largest = start + 1 + label, max(float(table[head]) for head in drawn)
                label = f"    five random, {name}, their largest score {largest:.2f}"
                print(f"  {label:<50}{on_repeated[at]:>+18.3f}{on_prose[at]:>+18.3f}")
    print("\n  goal: zeroed, at least 1.0 nat on repeated tokens; random heads at most 0.1")


def changes(lens, inputs, kind: str, experiments) -> list[float]:
    """By how much the loss of the tokens that count rises in each experiment, in nats a token."""
    passages = [measured(lens, "", part) for part in excerpts([passage(lens, given) for given in inputs], kind)]
    count = sum(len(part.before) for part in passages)
    totals = [-sum(float(part.before.double().sum()) for part in passages)] * len(experiments)
    for part in passages:
        edges = SCORES["induction"].edges(part.passage.sample).rule()
        for n, final in read_without(part.model, part.ids, experiments, part.heads, edges):
            totals[n] += float(part.of(final).double().sum())
    return [total / count for total in totals]


def passage(lens, given) -> Passage:
    return Passage(given.ids, given.read(lens)[1])


@torch.inference_mode()
def answer_of(lens, given, final) -> tuple[float, bool]:
    """Of the answer, whole, commas too: the mean log-probability of a token, and whether greedy writing gives it."""
    rows = torch.arange(int(given.answer[0, 0]), len(given.ids) - 1)
    logits = lens.model.head(final[rows], given.ids[rows])
    wanted = given.ids[rows + 1]
    return float(logits.log_softmax(-1).gather(1, wanted[:, None]).mean()), bool((logits.argmax(-1) == wanted).all())


def switch_retrieval_off(lens, count: int, draws: int) -> None:
    inputs = needles(lens, count=count)
    table = means(lens, inputs)["retrieval"]
    atlas = Atlas(lens.name, lens.fingerprint, {"": {"retrieval": table}})
    found = [(head.layer, head.head) for head in atlas.found("retrieval")]
    print(LINE.format("retrieval heads, score at least 0.1", len(found), f"{len(found) / table.numel():.1%} of all"))
    print("  the first: " + ", ".join(f"L{h.layer}H{h.head} {h.value:.2f}" for h in atlas.top("retrieval")))
    others = {n: [h for h in range(len(row)) if (n, h) not in found] for n, row in enumerate(table)}
    random, note = random_heads(found, others, draws, 0)
    print(f"  {note}" if note else "  random heads are of the same layers, as many in each")
    names = ["zero", "mean"]
    experiments = [Experiment([]), *(Experiment(heads, name) for name in names for heads in (found, *random))]
    heads = heads_of(lens.model.forward(inputs[0].ids[None], None, None))
    results = [dict(read_answers(lens, given, experiments, heads)) for given in inputs]
    label = f"the answers about {len(inputs)} needles, nats a token; how many are written greedily"

    def row(name: str, numbers) -> None:
        of = [result[n] for result in results for n in numbers]
        written = f"{sum(right for _, right in of)} of {len(of)}"
        print(LINE.format(f"    {name}", f"{statistics.mean(log for log, _ in of):.3f}", written))

    print(LINE.format(label, "log-probability", "written"))
    row("the model as it is", [0])
    for n, name in enumerate(names):
        start = 1 + n * (1 + len(random))
        row(f"retrieval heads, {name}", [start])
        row(f"{len(random)} draws of as many random heads, {name}", range(start + 1, start + 1 + len(random)))


def read_answers(lens, given, experiments, heads):
    for number, final in read_without(lens.model, given.ids, experiments, heads):
        yield number, answer_of(lens, given, final)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "sinks", "memory", "induction", "retrieval"))
    parser.add_argument("model", nargs="?", default="SmolLM2-135M-Instruct")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--seeds", type=int, default=3, help="of induction")
    parser.add_argument("--needles", type=int, default=8)
    parser.add_argument("--draws", type=int, default=5, help="of random heads")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.cpu:
        torch.set_num_threads(1)
    print(machine_line() + (", processor time" if options.cpu else ""))
    if options.what == "memory":
        return print_memory(options.model, options.tokens, 8000)
    lens = regard.Lens(options.model)
    if options.what == "time":
        clock = time.process_time if options.cpu else time.perf_counter
        measure_time(lens, options.tokens, options.rounds, clock)
    elif options.what == "sinks":
        compare_sinks(lens, options.tokens)
    elif options.what == "induction":
        switch_induction_off(lens, options.seeds, options.draws)
    else:
        switch_retrieval_off(lens, options.needles, options.draws)
    return None


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(json.dumps(peak(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        main()
