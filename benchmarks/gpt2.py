"""GPT-2 small over 4,096 tokens, all attentions kept: regard's weights beside sdpa, which keeps nothing, and eager.

    python benchmarks/gpt2.py [--tokens 4096] [--rounds 3] [--without-eager]

Each is a process of its own, in turn; the weights of the model are random, their shape is GPT-2's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from measure import PeakMemory, in_process, machine


def forward(implementation: str, tokens: int) -> dict:
    """One forward pass: seconds, and the peak of memory above the model's own, attentions kept where there are any."""
    import transformers

    import regard.hf  # noqa: F401  registers "regard"

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_positions=tokens)
    model = transformers.AutoModel.from_config(config, attn_implementation=implementation).eval()
    ids = torch.randint(config.vocab_size, (1, tokens))
    with torch.inference_mode():
        model(ids[:, :64])
        with PeakMemory() as peak:
            start = time.perf_counter()
            out = model(ids, output_attentions=implementation != "sdpa")
            taken = time.perf_counter() - start
    kept = len(out.attentions or ())
    return {"seconds": taken, "bytes": peak.bytes, "attentions": kept}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-eager", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(forward(options.only, options.tokens)))
        return
    print(machine())
    names = ["sdpa", "regard"] + ([] if options.without_eager else ["eager"])
    found: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            found[name].append(in_process(__file__, "--only", name, "--tokens", str(options.tokens)))
    medians = {
        name: {what: statistics.median(run[what] for run in runs) for what in runs[0]} for name, runs in found.items()
    }
    for name, median in medians.items():
        per = {what: median[what] / medians["sdpa"][what] for what in ("seconds", "bytes")}
        print(
            f"  {name:<7} {median['seconds']:6.2f} s  {median['bytes'] / 2**30:6.2f} GiB  "
            f"{median['attentions']:2.0f} attentions kept   ratio to sdpa: time {per['seconds']:.2f}, "
            f"memory {per['bytes']:.2f}" + (" (goals: at most 1.1 and 2)" if name == "regard" else "")
        )


if __name__ == "__main__":
    main()
