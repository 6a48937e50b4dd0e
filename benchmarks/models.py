"""GPT-2 small and SmolLM2 through regard.hf, regard.nn and transformers' sdpa: a prompt, and tokens after one.

    python benchmarks/models.py [--models gpt2 smollm2] [--rounds 5] [--threads 1] [--parts prompt decoding]

GPT-2 has its shape and random weights; SmolLM2 is the embedded decoder. Runs are interleaved (sdpa, regard, regard with
all weights kept, …), the first of each is not counted, and medians are given with the ratio to sdpa. `nn` is
`regard.nn.LanguageModel` with the same weights, `nn kept` the same with all hidden states and attentions kept, and
`nn packed` the same with its linear layers by the kernel, which has a copy of their weights; all is kept there, too.

prompt    seconds of 2,048 tokens, with the cache and the logits of the last token, as `generate` asks for them; with
          `regard.hf.record()`, with `output_attentions`, and without. GFLOP are those of the matrix products.
decoding  milliseconds a token, of 128 written by `generate`, after prompts of 64 and of 2,048 tokens; GB/s is how fast
          the weights of the model were read, all of which every token needs.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
import transformers

import regard.hf
import regard.nn
from regard._internal.measure import machine_line
from regard.backends import cpu
from regard.models import embedded_decoder_folder
from regard.models.linear import for_inference

GOALS = {"prompt": 1.15, "decoding": 1.2}
PROMPT, WRITTEN = 2048, 128


def opened(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    if name == "gpt2":
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_positions=PROMPT + WRITTEN))
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(str(embedded_decoder_folder()))
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    return model.eval()


def from_scratch(model: transformers.PreTrainedModel) -> regard.nn.LanguageModel:
    """The same model in regard.nn; raises AssertionError where its logits are others."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours = regard.nn.LanguageModel.from_pretrained(folder)
    ids = torch.randint(100, 4000, (1, 16))
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, model(ids).logits, atol=1e-3, rtol=1e-4)
    return ours


def medians(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    results: dict[str, list[float]] = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name, run in runs.items():
            taken = run()
            if n:
                results[name].append(taken)
    return {name: statistics.median(values) for name, values in results.items()}


def prompt(model: transformers.PreTrainedModel, ids: torch.Tensor, implementation: str, kept: str = "") -> float:
    model.set_attn_implementation(implementation)
    start = time.perf_counter()
    with torch.inference_mode():
        if kept == "record":
            with regard.hf.record() as weights:
                model(ids, logits_to_keep=1)
        else:
            weights = model(ids, logits_to_keep=1, output_attentions=bool(kept)).attentions
    taken = time.perf_counter() - start
    assert not kept or len(weights) == model.config.num_hidden_layers
    return taken


def prompt_from_scratch(model: regard.nn.LanguageModel, ids: torch.Tensor, kept: bool) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        if kept:
            predicted = model(ids, model.begin(), last=True)
        else:
            model.step(ids, model.begin())
    taken = time.perf_counter() - start
    assert not kept or len(predicted.attentions) == len(model.layers)
    return taken


def decode_from_scratch(
    model: regard.nn.LanguageModel, ids: torch.Tensor, written: dict[str, list[int]], kept: bool
) -> float:
    """Milliseconds a token, without the first, which the prompt gives."""
    attentions, tokens, past = [], ids, model.begin()
    with torch.inference_mode():
        new = model.step(ids, past).argmax(-1, keepdim=True)
        start = time.perf_counter()
        for _ in range(WRITTEN - 1):
            tokens = torch.cat((tokens, new), 1)
            if kept:
                predicted = model(new, past)
                attentions += predicted.attentions
            logits = predicted.logits[:, -1] if kept else model.step(new, past)
            new = logits.argmax(-1, keepdim=True)
        taken = time.perf_counter() - start
    written["nn"] = torch.cat((tokens, new), 1)[0].tolist()
    return taken / (WRITTEN - 1) * 1e3


class Times:
    """A streamer of transformers that notes when tokens come; the first that it gets is the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: object) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def decode(
    model: transformers.PreTrainedModel, ids: torch.Tensor, written: dict[str, list[int]], name: str, kept: bool
) -> float:
    """Milliseconds a token, without the first, which the prompt gives."""
    model.set_attn_implementation(name)
    streamer = Times()
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=WRITTEN, do_sample=False, streamer=streamer,
        pad_token_id=0, output_attentions=kept, return_dict_in_generate=True,
    )  # fmt: skip
    written[name] = out.sequences[0].tolist()
    return (streamer.times[-1] - streamer.times[1]) / (WRITTEN - 1) * 1e3


def compared(label: str, taken: dict[str, float], unit: str, goal: float, note: str) -> None:
    line = "   ".join(f"{name} {value:.2f} {unit}" for name, value in taken.items())
    ratios = ", ".join(f"{taken['sdpa'] / value:.2f} ×" for name, value in taken.items() if name != "sdpa")
    print(f"  {label:24} {line}   {ratios} (goal: {goal})   {note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["gpt2", "smollm2"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=["prompt", "decoding"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    peak, bandwidth = (
        cpu._kernel.flops("float32", cpu.instruction_set(), options.threads),
        cpu._kernel.bytes(cpu.instruction_set(), options.threads),
    )
    print(f"{machine_line()}; peak {peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s")
    for name in options.models:
        model, ids = opened(name), torch.randint(100, 4000, (1, PROMPT))
        ours = from_scratch(model)
        packed = copy.deepcopy(ours)
        for_inference(packed)
        size = sum(parameter.numel() for parameter in model.parameters())
        if "prompt" in options.parts:
            names = {
                "sdpa": ("sdpa",),
                "regard": ("regard",),
                "recorded": ("regard", "record"),
                "kept": ("regard", "1"),
            }
            runs = {key: partial(prompt, model, ids, *asked) for key, asked in names.items()}
            for key, from_nn, keep in (("nn", ours, False), ("nn kept", ours, True), ("nn packed", packed, True)):
                runs[key] = partial(prompt_from_scratch, from_nn, ids, keep)
            taken = medians(runs, options.rounds)
            work = 2 * PROMPT * (size - model.get_input_embeddings().weight.numel())
            note = f"{work / taken['regard'] / peak:.0%} of the peak in linear layers alone"
            compared(f"{name}, prompt", taken, "s", GOALS["prompt"], note)
        for length in (64, PROMPT) if "decoding" in options.parts else ():
            written: dict[str, list[int]] = {}
            names = {"sdpa": ("sdpa", False), "regard": ("regard", False), "kept": ("regard", True)}
            runs = {key: partial(decode, model, ids[:, :length], written, *asked) for key, asked in names.items()}
            for key in ("nn", "nn kept"):
                runs[key] = partial(decode_from_scratch, ours, ids[:, :length], written, key != "nn")
            taken = medians(runs, options.rounds)
            same = written["sdpa"] == written["regard"] == written["nn"]
            note = f"{4 * size / taken['regard'] / 1e6:.1f} GB/s, same tokens: {same}"
            compared(f"{name}, after {length:,}", taken, "ms", GOALS["decoding"], note)


if __name__ == "__main__":
    main()
