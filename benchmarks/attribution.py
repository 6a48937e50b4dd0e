"""How well each method of attribution agrees with the knockout, and what some of them cost; maps.py has the others.

Agreement is the rank correlation, over the words of a text, of what a method says of them with what really changes when
nobody may look at them, averaged over texts: first sentences of the pairs of STS-B's development set, evenly chosen.
The targets are the cosine with the second sentence, the sentence's vector, and the vector of a word of it; for the
trained decoder of the test data, the most likely next token.

python benchmarks/attribution.py [--sentences 200] [--rounds 7]
python benchmarks/attribution.py --memory 131072          the memory of each kind of map instead; half an hour
"""

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch

import regard
from regard._internal.measure import PeakMemory, in_process, interleaved, machine_line
from regard.attribution import Target, agreement, relevance

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import data

WORDS = range(6, 31)  # words of a text


def pairs(lens, count):
    """Readings of first sentences, with the second ones: of different words, and neither too short nor too long."""
    rows = [line.split("\t")[5:7] for line in data.STS.read_text(encoding="utf-8").splitlines()]
    unique = {first: second for first, second in rows if first.split() != second.split()}
    fitting = [pair for pair in unique.items() if len(lens.read(pair[0]).words) in WORDS]
    return [fitting[n * len(fitting) // count] for n in range(min(count, len(fitting)))]


def of_an_encoder(lens, first, second):
    """The targets of a sentence, by name."""
    reading = lens.read(first)
    words = [word for word in reading.words if word.text.isalpha()]
    return reading, {
        "cosine with its pair": Target.similarity(reading, second),
        "sentence's vector": Target.sentence(reading),
        "vector of a word": Target.word(reading, words[len(words) // 2]),
    }


def of_a_decoder(lens, first, second):
    """The target of a sentence whose end is cut off: its next token."""
    reading = lens.read(" ".join(first.split()[:-1]))
    return reading, {"next token": Target.next_token(reading)}


def correlations(lens, texts, targets_of):
    """The rank correlation of each method, by target, in each text; texts in which no order is known are left out."""
    collected = {}
    for first, second in texts:
        reading, targets = targets_of(lens, first, second)
        for name, target in targets.items():
            for method, correlation in agreement(reading, target).correlation.items():
                if not math.isnan(correlation):
                    collected.setdefault(name, {}).setdefault(method, []).append(correlation)
    return collected


def print_agreement(title, collected):
    """Mean and standard error by method and target."""
    methods = list(dict.fromkeys(method for by_method in collected.values() for method in by_method))
    print(f"\n{title}\n" + f"  {'':18}" + "".join(f"{name:>22}" for name in collected))
    for method in methods:
        cells = []
        for by_method in collected.values():
            values = by_method.get(method, [])
            if len(values) < 2:
                cells.append("–")
                continue
            error = statistics.stdev(values) / math.sqrt(len(values))
            cells.append(f"{statistics.mean(values):.3f} ± {error:.3f}".replace("-", "−"))
        print(f"  {method:18}" + "".join(f"{cell:>22}" for cell in cells))


def print_cost(lens, rounds, words=254):
    """The whole relevance of a text of 256 tokens against a forward pass over it."""
    text = " ".join(["time", "flies", "like", "an", "arrow", "and", "fruit"] * 50)
    reading = lens.read(" ".join(text.split()[:words]))
    other = lens.read("A short text")

    def whole():
        relevance(reading, Target.similarity(reading, other))  # a new target: its gradient is not known yet

    seconds = interleaved({"forward": lambda: lens.read(reading.text), "relevance": whole}, rounds)
    ratio = seconds["relevance"] / seconds["forward"]
    print(
        f"\nRelevance through all layers, {len(reading.tokens)} tokens: {1e3 * seconds['relevance']:.1f} ms, "
        f"{ratio:.2f} × a forward pass of {1e3 * seconds['forward']:.1f} ms (goal: at most 3)"
    )


def print_diagonal(rounds, tokens=4096, heads=12, dim=64):
    """The weights of each token for the one before it, against a forward pass of the same shape."""
    query, key, value = torch.randn(3, heads, tokens, dim)
    weights = regard.attention(query, key, value).weights
    runs = {"forward": lambda: regard.attention(query, key, value), "diagonal": lambda: weights.diagonal(-1)}
    seconds = interleaved(runs, rounds, 0.01)
    print(
        f"Diagonal of {heads} heads of {dim}, {tokens:,} tokens: {1e3 * seconds['diagonal']:.2f} ms, "
        f"{seconds['diagonal'] / seconds['forward']:.4f} × a forward pass (goal: at most 0.01)"
    )


def maps_of(weights, value):
    """By name, a map of each kind over a head of weights."""
    norms = value.norm(dim=-1, keepdim=True)
    return {
        "value-weighted": lambda: weights.times(key=norms),
        "gradient": lambda: weights.times(query=torch.randn_like(value), key=value, activation="relu"),
        "logits": lambda: weights.times(query=torch.rand(len(value), 1), key=value.sum(-1, keepdim=True)),
        "norms": lambda: weights.combined((norms**2)[..., None]),
    }


def measure_memory(name, tokens, dim=64):
    """The memory that one map needs with all its reductions, above that of the idle process."""
    cells = min(512, tokens)
    with PeakMemory() as peak:
        start = time.perf_counter()
        query, key, value = torch.randn(3, tokens, dim)
        weights = regard.attention(query, key, value).weights
        shown = maps_of(weights, value)[name]()
        shown.received(), shown.pool(cells, cells), shown.topk(8)
        seconds = time.perf_counter() - start
    return {"bytes": peak.bytes, "seconds": seconds}


def print_memory(tokens):
    """Each kind of map in a process of its own."""
    print(f"One head of 64, {tokens:,} tokens, float32: received, pool(512, 512) and the 8 largest of each row")
    for name in maps_of(None, torch.zeros(1, 1)):
        used = in_process(__file__, "--memory", str(tokens), "--map", name)
        megabytes = used["bytes"] / 1e6
        print(f"  {name:16}{megabytes:7.0f} MB above the idle process (goal: at most 400){used['seconds']:8.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", type=int, metavar="TOKENS")
    parser.add_argument("--map", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.map:
        print(json.dumps(measure_memory(arguments.map, arguments.memory)))
        return
    print(machine_line())
    if arguments.memory:
        print_memory(arguments.memory)
        return
    lens = regard.Lens()
    if data.STS.is_file():
        texts = pairs(lens, arguments.sentences)
        title = f"{lens.name}: rank correlation with the knockout, {len(texts)} sentences, mean ± standard error"
        print_agreement(title, correlations(lens, texts, of_an_encoder))
    else:
        print(f"Agreement: skipped, {data.STS} does not exist")
    if data.STS.is_file() and data.STORIES.is_dir():
        decoder = regard.Lens(data.STORIES)
        title = f"{decoder.name}: the same, {len(texts)} sentences without their last word"
        print_agreement(title, correlations(decoder, texts, of_a_decoder))
    else:
        print(f"Agreement of a decoder: skipped, {data.STORIES} does not exist")
    print_cost(lens, arguments.rounds)
    print_diagonal(arguments.rounds)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
