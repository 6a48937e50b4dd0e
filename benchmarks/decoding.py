"""What writing with a decoder costs: tokens a second, a long prompt, and a single call, beside transformers.

python benchmarks/decoding.py [MODEL] [--rounds 5] [--threads N] [--cpu] [--parts calls decoding prompt]

MODEL is the folder of a causal language model; the embedded decoder, if not given. Every comparison runs A B C A B C …,
with as many threads for each, and gives medians; the first run of each, which warms up, is not counted.

calls     microseconds of a call: regard.attention and PyTorch's scaled_dot_product_attention (H 4, N 8, D 16), and the
          functions that a layer of transformers calls for "regard" and "sdpa", for one query on 64 keys.
decoding  tokens a second with the cache, greedy, from the first token of the reply to the last, after prompts of 64 and
          2,048 tokens: `lens.generate`, transformers' `generate` with sdpa and with eager. They have to write the same.
prompt    a prompt of 4,096 tokens in processes of their own, time of a forward pass and peak of memory (VmHWM), the
          open model included: sdpa with no attentions, regard.hf with all of them kept, and `lens.read`.

--cpu counts the processor time of the process in place of time on the clock: on a machine that others use, with
--threads 1, it is what is left of a comparison.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch

from regard._internal.measure import in_process, machine_line
from regard.models import embedded_decoder_folder

GOALS = {"decoding": "at least 1.2", "time": "at most 1.05", "memory": "at most 1.6"}
TEXT = "The river rises in the hills, turns to the east where the old road crosses it, and reaches the sea at noon. "


def medians(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of what each run returns, over rounds of all of them after one that is not counted."""
    results: dict[str, list[float]] = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name, run in runs.items():
            result = run()
            if n:
                results[name].append(result)
    return {name: statistics.median(values) for name, values in results.items()}


def calls(rounds: int, clock: Callable[[], float]) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    import regard
    import regard.hf

    def microseconds(call: Callable[[], object]) -> Callable[[], float]:
        def run(count: int = 300) -> float:
            start = clock()
            for _ in range(count):
                call()
            return (clock() - start) / count * 1e6

        return run

    with torch.inference_mode():
        x, module = torch.randn(1, 4, 8, 16), torch.nn.Module()
        module.num_key_value_groups, module.is_causal = 3, True
        query, key, value = torch.randn(1, 9, 1, 64), torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64)
        for label, runs in {
            "attention, H 4, N 8, D 16": {
                "regard": lambda: regard.attention(x, x, x),
                "sdpa": lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x),
            },
            "a layer's call, 1 query, 64 keys": {
                "regard": lambda: regard.hf.attend(module, query, key, value, None, scaling=0.125),
                "sdpa": lambda: sdpa_attention_forward(module, query, key, value, None, scaling=0.125),
            },
        }.items():
            taken = medians({name: microseconds(run) for name, run in runs.items()}, 5 * rounds)
            print(f"  {label:34} regard {taken['regard']:6.1f} µs   sdpa {taken['sdpa']:6.1f} µs")


class Clocked:
    """A streamer of transformers that notes when tokens come; the first that it gets is the prompt."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.times = clock, []

    def put(self, _: object) -> None:
        self.times.append(self.clock())

    def end(self) -> None:
        pass

    def rate(self) -> float:
        return (len(self.times) - 2) / (self.times[-1] - self.times[1])


def decoding(folder: str, rounds: int, clock: Callable[[], float], count: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import regard

    tokenizer, lens = AutoTokenizer.from_pretrained(folder), regard.Lens(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    written = {}
    for length in (64, 2048):
        prompt = tokenizer.decode(tokenizer(TEXT * length)["input_ids"][:length], skip_special_tokens=True)
        ids = torch.tensor([lens.generate(prompt)._prompt.ids])

        def regards(prompt: str = prompt) -> float:
            generation, times = lens.generate(prompt, max_tokens=count), []
            for _ in generation:
                times.append(clock())
            written["regard"] = [token.id for token in generation.tokens]
            return (len(times) - 1) / (times[-1] - times[0])

        def transformers(implementation: str, ids: torch.Tensor = ids) -> float:
            model.set_attn_implementation(implementation)
            streamer = Clocked(clock)
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, streamer=streamer,
                pad_token_id=0,
            )  # fmt: skip
            written[implementation] = out[0, ids.shape[1] :].tolist()
            return streamer.rate()

        runs = {"regard": regards, "sdpa": lambda: transformers("sdpa"), "eager": lambda: transformers("eager")}
        rate = medians(runs, rounds)
        same = written["regard"] == written["eager"][: len(written["regard"])]
        line = "   ".join(f"{name} {rate[name]:.1f}" for name in runs)
        print(f"  {ids.shape[1]:5,} tokens of context, {len(written['regard'])} more: {line} tokens/s", end="")
        print(f"   ratio {rate['regard'] / rate['sdpa']:.2f} (goal: {GOALS['decoding']})   same text: {same}")


def read_prompt(name: str, folder: str, threads: int) -> dict[str, float]:
    """Seconds and peak bytes of a forward pass over 4,096 tokens, in this process."""
    torch.set_num_threads(threads)
    text = TEXT * 400
    if name == "lens.read":
        import regard

        lens = regard.Lens(folder)
        ids = lens.model.tokenizer.encode(text, add_special_tokens=False)
        text = text[: ids.offsets[4095][1]]
        lens.read(TEXT)
        start = time.perf_counter()
        reading = lens.read(text)
        taken, kept = time.perf_counter() - start, len(reading.attention)
    else:
        from transformers import AutoModel

        import regard.hf

        model = AutoModel.from_pretrained(folder, attn_implementation=name).eval()
        ids = torch.randint(100, 4000, (1, 4096), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            model(ids[:, :32])
            start = time.perf_counter()
            out = model(ids, output_attentions=name == "regard")  # with the cache, as of any prompt
            taken, kept = time.perf_counter() - start, len(out.attentions or ())
    return {"seconds": taken, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "attentions": kept}


def prompt(folder: str, rounds: int) -> None:
    names = ("sdpa", "regard", "lens.read")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(in_process(__file__, name, folder, str(torch.get_num_threads())))
    seconds = {name: statistics.median(run["seconds"] for run in runs[name]) for name in names}
    peak = {name: statistics.median(run["bytes"] for run in runs[name]) for name in names}
    for name in names:
        line = f"{seconds[name]:6.2f} s ({seconds[name] / seconds['sdpa']:.2f} ×)   {peak[name] / 2**30:.2f} GiB"
        line += f" ({peak[name] / peak['sdpa']:.2f} ×)   {runs[name][0]['attentions']} attentions kept"
        print(f"  4,096 tokens: {name:10} {line}")
    print(f"  goals: time {GOALS['time']}, memory {GOALS['memory']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tokens", type=int, default=32, help="how many are written")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--parts", nargs="+", default=["calls", "decoding", "prompt"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = arguments.model or str(embedded_decoder_folder())
    clock = time.process_time if arguments.cpu else time.perf_counter
    print(machine_line() + (", processor time" if arguments.cpu else ""))
    if "calls" in arguments.parts:
        calls(arguments.rounds, clock)
    if "decoding" in arguments.parts:
        decoding(model, arguments.rounds, clock, arguments.tokens)
    if "prompt" in arguments.parts:
        prompt(model, arguments.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("sdpa", "regard", "lens.read"):
        print(json.dumps(read_prompt(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        main()
