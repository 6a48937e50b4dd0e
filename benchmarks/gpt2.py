"""GPT-2 small over 4,096 tokens, all attentions kept: regard's weights beside sdpa, which keeps nothing, and eager.

    python benchmarks/gpt2.py [--tokens 4096] [--rounds 3] [--without-eager]

Times are taken in one process, interleaved (A B A B …); the memory of each implementation in a process of its own. The
model has GPT-2's shape and random weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from regard._internal.measure import PeakMemory, in_process, machine_line


def model_and_ids(tokens: int):
    import transformers

    import regard.hf  # noqa: F401  registers "regard"

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_positions=tokens)
    return transformers.AutoModel.from_config(config).eval(), torch.randint(config.vocab_size, (1, tokens))


def forward(model, ids, implementation: str) -> tuple[float, int]:
    """Seconds of a forward pass that keeps its attentions, and how many these are (none with sdpa)."""
    model.set_attn_implementation(implementation)
    start = time.perf_counter()
    out = model(ids, output_attentions=implementation != "sdpa")
    return time.perf_counter() - start, len(out.attentions or ())


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-eager", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        model, ids = model_and_ids(options.tokens)
        forward(model, ids[:, :64], options.only)
        with PeakMemory() as peak:
            forward(model, ids, options.only)
        print(json.dumps(peak.bytes))
        return
    print(machine_line())
    names = ["sdpa", "regard"] + ([] if options.without_eager else ["eager"])
    memory = {name: in_process(__file__, "--only", name, "--tokens", str(options.tokens)) for name in names}
    model, ids = model_and_ids(options.tokens)
    runs = [{name: forward(model, ids, name) for name in names} for _ in range(options.rounds)]
    for name in names:
        taken = statistics.median(run[name][0] for run in runs)
        ratio = statistics.median(run[name][0] / run["sdpa"][0] for run in runs)
        print(
            f"  {name:<7} {taken:6.2f} s  {memory[name] / 2**30:6.2f} GiB  {runs[0][name][1]:2.0f} attentions kept   "
            f"ratio to sdpa: time {ratio:.2f}, memory {memory[name] / memory['sdpa']:.2f}"
            + (" (goals: at most 1.1 and 2)" if name == "regard" else "")
        )


if __name__ == "__main__":
    main()
