"""Planted models, made from a number each: whether the scores of heads find what was planted, and nothing else.

    python tests/planted.py --seeds 1000               # seeds 0 to 999
    python tests/planted.py --first 4711 --seeds 1     # one of them again

Seed n is a model of the kind n mod 12: a scheme of positions, a number of groups, and strong or weak heads. Prints a
line for each score that is wrong, then for each score the heads that were planted and found, invented, and how near the
others came to counting; ends with exit status 1 if anything was wrong.
"""

import argparse
import multiprocessing
import os
import sys
from collections import defaultdict

import torch

from regard.attribution.heads import SCORES
from support.planted import GROUPS, IMPLIED, plan, truth
from support.planted_scores import all_scores, wrong
from support.planted_weights import build

KINDS = [(scheme, groups, strong) for scheme in GROUPS for groups in GROUPS[scheme] for strong in (True, False)]


def run(seed: int) -> tuple[str, list[str], dict[str, tuple[list[float], list[float], list[float]]]]:
    """The kind of model, what is wrong, and by score the numbers of strong heads, weak ones, and all others."""
    scheme, groups, strong = KINDS[seed % len(KINDS)]
    heads = plan(scheme, groups, strong, seed)
    scores = all_scores(build(scheme, groups, heads, seed), scheme, seed)
    kind = f"{scheme}, {groups} groups, {'strong' if strong else 'weak'}"
    result = {}
    for name, found in truth(heads).items():
        weak = {(head.layer, head.head) for head in heads if name in IMPLIED[head.pattern]} - found
        numbers = [], [], []
        for layer, row in enumerate(scores[name].tolist()):
            for head, number in enumerate(row):
                numbers[0 if (layer, head) in found else 1 if (layer, head) in weak else 2].append(number)
        result[name] = numbers
    return kind, [f"seed {seed}, {kind}: {line}" for line in wrong(scores, heads)], result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="How many models to try.")
    parser.add_argument("--first", type=int, default=0, help="The first seed.")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    errors, table = 0, defaultdict(lambda: ([], [], []))
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), torch.set_num_threads, (1,)) as pool:
        for kind, lines, result in pool.imap(run, seeds, chunksize=10):
            errors += len(lines)
            if lines:
                print(*lines, sep="\n", flush=True)
            for name, numbers in result.items():
                for whole, more in zip(table[kind.rpartition(", ")[0], name], numbers, strict=True):
                    whole += more
    print(f"{'model':18} {'score':10} from  planted  found  least   weak   most  others  invented   most")
    for (kind, name), (strong, weak, others) in sorted(table.items()):
        least = SCORES[name].found_from
        print(
            f"{kind:18} {name:10} {least:4} {len(strong):8} {sum(number >= least for number in strong):6} "
            f"{min(strong, default=0):6.3f} {len(weak):6} {max(weak, default=0):6.3f} {len(others):7} "
            f"{sum(number >= least for number in weak + others):9} {max(others):6.3f}"
        )
    print(f"{len(seeds):,} models: {errors} wrong")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
