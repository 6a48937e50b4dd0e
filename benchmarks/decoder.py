"""A trained decoder against transformers' eager attention: weights, logits, a reply, predictions, evictions.

python benchmarks/decoder.py [MODEL]
python benchmarks/decoder.py [MODEL] --memory       the memory of long prompts and of their reading instead

MODEL: the name or the folder of a causal language model like Llama; SmolLM2-135M-Instruct if not given.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import torch
import transformers

import regard
from regard._internal.measure import PeakMemory, in_process, machine_line
from regard.bench.embed import sample_texts
from regard.hf import cache

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.eviction import dense_h2o, dense_kept, dense_kvzip, dense_snapkv, dense_tova
from support.headed import eager_decoder

WINDOW = 32  # the keys and queries of the end that H2O and SnapKV set apart
CONTINUED = 200  # tokens
REPEAT = "\n\nRepeat the previous context exactly.\n\n"
LINE = "  {:<76}{:>12}   goal {}"


def text_of(lens, tokens: int) -> str:
    """English of so many tokens."""
    text = " ".join(sample_texts())
    encoding = lens.model.unprocessed.encode(text[: 8 * tokens], add_special_tokens=False)
    return text[: encoding.offsets[tokens - len(lens.model.prefix_ids) - 1][1]]


def far(first, second) -> float:
    return float((first.double() - second.double()).abs().max())


def perplexity_of(logits, ids) -> float:
    """In float64: the loss that transformers gives along with them is rounded, by 1e-5 for a vocabulary of 49,152."""
    return float(torch.nn.functional.cross_entropy(logits[:-1].double(), ids[1:]).exp())


def against_eager(lens, eager, tokens: int) -> None:
    """Weights, logits and the greedy reply; and the reading of that reply against the steps that wrote it."""
    text = text_of(lens, tokens)
    reading = lens.read(text)
    ids = reading.ids[None]
    output = eager(ids, output_attentions=True)
    dense = [attention[0] for attention in output.attentions]
    weights = max(far(a.weights.dense(), w) for a, w in zip(reading.attention, dense, strict=True))
    print(LINE.format(f"weights of {ids.shape[1]} tokens, every layer and head", f"{weights:.1e}", "2e-5"))
    print(LINE.format("logits", f"{far(reading.logits, output.logits[0]):.1e}", "1e-3"))
    head, norm = lens.model.head, lens.model.final_norm
    last = head(norm(reading.hidden[-1][None])[0], reading.ids)
    print(LINE.format("logit lens at the last layer against the logits", f"{far(last, reading.logits):.1e}", "1e-4"))
    perplexity, theirs = reading.predictions().perplexity, perplexity_of(output.logits[0], reading.ids)
    difference = f"{abs(perplexity - theirs):.1e}"
    print(LINE.format(f"perplexity, {perplexity:.4f}, against that by transformers' logits", difference, "1e-4"))
    del output, dense
    generation = lens.generate(text, max_tokens=CONTINUED)
    whole = generation.finish()
    wrote = eager.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=CONTINUED, do_sample=False,
        output_attentions=True, return_dict_in_generate=True,
    )  # fmt: skip
    ours, theirs = (sequence.tolist()[ids.shape[1] :] for sequence in (whole.ids, wrote.sequences[0]))
    same = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours))
    print(LINE.format(f"greedy reply of {len(theirs)} tokens: the same", same, len(theirs)))
    error = 0.0
    for layer, attention in enumerate(whole.attention):
        rows = attention.weights.dense()
        for step, attentions in enumerate(wrote.attentions[: same + 1]):
            row = attentions[layer][0]
            end = ids.shape[1] + step
            error = max(error, far(rows[:, end - row.shape[1] : end, :end], row))
    print(LINE.format("the reading of the reply against its steps, every row of every head", f"{error:.1e}", "2e-5"))


# Evictions


def methods(tokens: int):
    """By name: the numbers from weights of regard, and from dense ones, of a cache of so many tokens."""
    return {
        "H2O": (partial(cache.h2o, window=WINDOW, tokens=tokens), partial(dense_h2o, window=WINDOW)),
        "SnapKV": (
            partial(cache.snapkv, window=WINDOW, tokens=tokens),
            partial(dense_snapkv, window=WINDOW, kernel=5, pooling="mean"),
        ),
        "TOVA": (partial(cache.tova, tokens=tokens), dense_tova),
    }


def repeating(tokens: int):
    return {"KVzip": (partial(cache.kvzip, tokens=tokens), partial(dense_kvzip, tokens=tokens))}


def evictions(lens, eager, tokens: int) -> None:
    """What each method would keep of a quarter of the cache, and lose for the tokens after it."""
    ids = torch.tensor(lens.model.unprocessed.encode(text_of(lens, tokens), add_special_tokens=False).ids)
    print(f"\nevictions of {tokens:,} tokens, a quarter kept: the keys that eager's weights keep, and the mass lost")
    columns = "keys not the same", "from the edge", "loss, mean", "worst head", "worst row", "against eager"
    print(f"  {'':<8}" + "".join(f"{column:>18}" for column in columns))
    by_method = methods(tokens - WINDOW)
    report(eager, ids, by_method, tokens - WINDOW)
    half = ids[: tokens // 2]
    prompt = torch.tensor(lens.model.unprocessed.encode(REPEAT, add_special_tokens=False).ids)
    report(eager, torch.cat([half, prompt, half]), repeating(tokens // 2), tokens // 2)


def report(model, ids, by_method, tokens: int) -> None:
    """One line a method: over all layers, heads and rows after the cache of so many tokens."""
    budget = tokens // 4
    dense_numbers, dense_rows = [], []

    def keep(module, inputs, output) -> None:
        weights = output[1].double()
        cached = weights if "KVzip" in by_method else weights[:, :, :tokens, :tokens]
        groups = cached.shape[1] // module.num_key_value_groups
        dense_numbers.append({name: dense(cached, groups) for name, (_, dense) in by_method.items()})
        dense_rows.append(output[1][:, :, tokens:])

    handles = [m.register_forward_hook(keep) for m in model.modules() if hasattr(m, "num_key_value_groups")]
    model(ids[None])  # its weights are not kept, but looked at layer by layer
    for handle in handles:
        handle.remove()
    model.set_attn_implementation("regard")
    layers = model(ids[None], output_attentions=True).attentions
    model.set_attn_implementation("eager")
    for name, (ours, _) in by_method.items():
        different, total, edges, losses, errors = 0, 0, 0.0, [], []
        for weights, numbers, rows in zip(layers, dense_numbers, dense_rows, strict=True):
            kept, theirs = cache.kept(ours(weights), budget), dense_kept(numbers[name], budget)
            edge = numbers[name].sort(-1, descending=True).values[..., budget - 1, None]
            unlike = kept != theirs
            different, total = different + int(unlike.sum()) // 2, total + int(kept.sum())
            if unlike.any():
                edges = max(edges, float(((numbers[name] - edge).abs() / edge)[unlike].max()))
            lost = cache.lost(weights, kept, slice(tokens, None))
            evicted = torch.nn.functional.pad(~kept, (0, rows.shape[-1] - tokens))
            evicted = evicted.repeat_interleave(rows.shape[1] // kept.shape[1], 1)
            errors.append(far(lost, (rows * evicted[:, :, None]).sum(-1)))
            losses.append(lost[0])
        loss = torch.stack(losses)  # (L,H,q)
        print(
            f"  {name:<8}{f'{different} of {total:,}':>18}{edges:18.1e}{float(loss.mean()):18.1%}"
            f"{float(loss.mean(-1).max()):18.1%}{float(loss.max()):18.1%}{max(errors):18.1e}"
        )


# Memory


def memory(name: str) -> None:
    print("peak memory above the opened model, in a process of its own:")
    print(f"  {'tokens':<10}{'its cache':>14}{'prompt':>14}{'seconds':>10}{'reading':>14}{'seconds':>10}")
    for tokens in (1024, 4096, 8000):
        prompt, reading = (in_process(__file__, name, "--of", what, str(tokens)) for what in ("prompt", "reading"))
        sizes = (f"{prompt['cache'] / 2**20:,.0f} MiB", f"{prompt['peak'] / 2**20:,.0f} MiB")
        print(
            f"  {tokens:<10,}{sizes[0]:>14}{sizes[1]:>14}{prompt['seconds']:10.1f}"
            f"{reading['peak'] / 2**20:>10,.0f} MiB{reading['seconds']:10.1f}"
        )


def measure(lens, what: str, tokens: int) -> None:
    """Print what the first token after a prompt, or the reading of a text, takes."""
    text = text_of(lens, tokens)
    list(lens.generate("The", max_tokens=2))
    config = lens.model.forward.model.config
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * dim * 4 * tokens
    start = time.perf_counter()
    with PeakMemory() as peak:
        result = list(lens.generate(text, max_tokens=1)) if what == "prompt" else lens.read(text)
    assert result
    print(json.dumps({"peak": peak.bytes, "seconds": time.perf_counter() - start, "cache": kept}))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="SmolLM2-135M-Instruct")
    parser.add_argument("--tokens", type=int, nargs=2, default=(512, 2048), help="of the first part, and of evictions")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.of:
        return measure(regard.Lens(options.model), options.of[0], int(options.of[1]))
    print(machine_line())
    if options.memory:
        return memory(options.model)
    lens = regard.Lens(options.model)
    eager = eager_decoder(lens)
    against_eager(lens, eager, options.tokens[0])
    evictions(lens, eager, options.tokens[1])
    return None


if __name__ == "__main__":
    main()
