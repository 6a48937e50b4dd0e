"""regard beside BertViz, TransformerLens, Captum, inseq and sentence-transformers, on the tasks that they share.

    pip install '.[model,bench]' bertviz transformer-lens captum inseq     # into an environment of its own
    python benchmarks/differs.py [--rounds 3] [TASK ...]

Each task has a run for regard and one for the peer. Times are medians of runs in one process, interleaved (A B A B …);
memory is the peak beyond the opened model, in a process of its own. What both give is compared. A peer that is not
installed is left out, with a line that says so. Models are the embedded encoder, or of GPT-2's shape, untrained.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn

import regard
import regard.hf
from regard import attribution
from regard._internal.measure import PeakMemory, in_process, interleaved, machine_line
from regard.models import embedded_folder

WORDS = "time flies like an arrow while fruit flies like a banana and nobody knows why"
PAGE, PATTERNS, GRADIENTS, PROMPT, WRITTEN = 128, 1_024, 254, 512, 8  # tokens
Run = Callable[[], Any]


def words(count: int) -> str:
    several = WORDS.split()
    return " ".join(several[n % len(several)] for n in range(count))


# A page to look at: all heads of the embedded encoder, over a text of PAGE tokens


def regard_page() -> Run:
    lens = regard.Lens()

    def run() -> str:
        with tempfile.TemporaryDirectory() as folder:
            lens.read(words(PAGE - 2)).save(Path(folder, "page.html"))
            return Path(folder, "page.html").read_text(encoding="utf-8")

    return run


def bertviz_page() -> Run:
    from bertviz import head_view

    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_folder())
    model = transformers.AutoModel.from_pretrained(embedded_folder(), attn_implementation="eager").eval()

    def run() -> str:
        inputs = tokenizer(words(PAGE - 2), return_tensors="pt")
        attentions = model(**inputs, output_attentions=True).attentions
        tokens = tokenizer.convert_ids_to_tokens(inputs.input_ids[0])
        return head_view(attentions, tokens, html_action="return").data

    return run


def compared_pages(ours: str, theirs: str) -> str:
    def hosts(page: str) -> int:
        return len(set(re.findall(r"(?:src=|url\(|['\"])[\"']?(https?://[\w.-]*(?:cdn|cloudflare)[\w./-]*)", page)))

    sizes = " and ".join(f"{len(page.encode()) / 2**20:.1f} MiB" for page in (ours, theirs))
    return f"pages of {sizes}; scripts from another host: {hosts(ours)} and {hosts(theirs)}"


# All weights of a decoder of GPT-2's shape: 6 layers of 8 heads, PATTERNS tokens


def gpt2(implementation: str) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=6, n_head=8, n_embd=512, n_positions=2_048, vocab_size=1_000, bos_token_id=0, eos_token_id=999
    )
    return transformers.GPT2LMHeadModel._from_config(config, attn_implementation=implementation).eval()


def ids(count: int) -> torch.Tensor:
    return torch.randint(1, 999, (1, count), generator=torch.Generator().manual_seed(0))


def tokenizer() -> Any:
    """One word, one token: `w0` to `w999`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = Tokenizer(models.WordLevel({f"w{n}": n for n in range(1_000)}, unk_token="w0"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=vocabulary,
        bos_token="w0",
        eos_token="w999",
        pad_token="w0",
        clean_up_tokenization_spaces=False,
        name_or_path="words",
    )


def regard_patterns() -> Run:
    model, tokens = gpt2("regard"), ids(PATTERNS)

    def run() -> torch.Tensor:
        attentions = model(tokens, output_attentions=True).attentions
        return torch.stack([weights.entropy() for weights in attentions])

    return run


def transformer_lens_patterns() -> Run:
    from transformer_lens import TransformerBridge

    model, tokens = gpt2("eager"), ids(PATTERNS)
    with tempfile.TemporaryDirectory() as folder:  # the bridge asks for the tokenizer by name
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        saved = transformers.AutoTokenizer.from_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, hf_model=model, tokenizer=saved)

    def run() -> torch.Tensor:
        _, cache = bridge.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
        return torch.stack([-torch.xlogy(pattern, pattern).sum(-1) for pattern in cache.values()])

    return run


def compared_numbers(ours: torch.Tensor, theirs: torch.Tensor) -> str:
    return f"largest difference {(ours - theirs).abs().max() / theirs.abs().max():.0e} of the largest number"


# How much each token matters by gradient × attention, in each layer of the embedded encoder: GRADIENTS words


def regard_gradients() -> Run:
    lens, direction = regard.Lens(), torch.linspace(-1, 1, 384)

    def run() -> torch.Tensor:
        reading = lens.read(words(GRADIENTS))
        target = attribution.Target.function(reading, lambda output: output.hidden[-1].mean(0) @ direction)
        maps = [attribution.gradient(reading, target, layer) for layer in range(reading.layers)]
        return torch.stack([map.received().sum(0) for map in maps])

    return run


class Watched(nn.Module):
    """What passes through here, Captum can attribute to."""

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        return weights.clone()


def watched_attention(module: nn.Module, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    scores = query @ key.mT * scaling
    weights = module.watched(scores.softmax(-1) if mask is None else (scores + mask).softmax(-1))
    return (weights @ value).transpose(1, 2).contiguous(), weights


def captum_gradients() -> Run:
    from captum.attr import LayerGradientXActivation

    transformers.AttentionInterface.register("watched", watched_attention)
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_folder())
    model = transformers.AutoModel.from_pretrained(embedded_folder(), attn_implementation="watched").eval()
    layers = [layer.attention.self for layer in model.encoder.layer]
    for layer in layers:
        layer.watched = Watched()
    direction = torch.linspace(-1, 1, 384)
    method = LayerGradientXActivation(
        lambda tokens: model(tokens).last_hidden_state.mean(1) @ direction, [layer.watched for layer in layers]
    )

    def run() -> torch.Tensor:
        tokens = tokenizer(words(GRADIENTS), return_tensors="pt").input_ids
        with torch.enable_grad():
            maps = method.attribute(tokens)
        return torch.stack([map[0].relu().sum((0, 1)) for map in maps]).detach()

    return run


# The weights of WRITTEN tokens that a decoder writes after PROMPT tokens


def regard_writing() -> Run:
    lens, prompt = regard.Lens((gpt2("eager"), tokenizer())), tokenizer().decode(ids(PROMPT)[0].tolist())

    def run() -> torch.Tensor:
        reading = lens.generate(prompt, max_tokens=WRITTEN).finish()
        first = reading.reply.token - 1
        return torch.stack([attention.weights[:, first : first + WRITTEN, :PROMPT] for attention in reading.attention])

    return run


def inseq_writing() -> Run:
    import inseq

    model = inseq.load_model(gpt2("eager"), "attention", tokenizer=tokenizer())
    prompt = tokenizer().decode(ids(PROMPT)[0].tolist())
    options = {"max_new_tokens": WRITTEN, "min_new_tokens": WRITTEN, "do_sample": False}

    def run() -> torch.Tensor:
        written = model.attribute(prompt, generation_args=options, show_progress=False)
        (sequence,) = written.sequence_attributions
        return sequence.target_attributions[:PROMPT].permute(2, 3, 1, 0)  # (layers, heads, written, prompt)

    return run


# Sentence vectors of texts of one to eight sentences, with the embedded encoder


def texts() -> list[str]:
    from regard.bench.embed import sample_texts

    return sample_texts(200)


def regard_embeddings() -> Run:
    lens = regard.Lens()
    return lambda: torch.as_tensor(lens.embed(texts(), truncation="truncate").vectors)


def sentence_transformers_embeddings() -> Run:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(embedded_folder()), device="cpu")
    return lambda: model.encode(texts(), convert_to_tensor=True)


class Task(NamedTuple):
    title: str
    ours: Callable[[], Run]
    peer: str
    theirs: Callable[[], Run]
    compared: Callable[[Any, Any], str]


TASKS = {
    "page": Task(
        f"an HTML page of all heads, {PAGE} tokens, 6 × 12 heads", regard_page, "bertviz", bertviz_page, compared_pages
    ),
    "patterns": Task(
        f"all weights, and the entropy of each row, {PATTERNS:,} tokens, 6 × 8 heads",
        regard_patterns, "transformer-lens", transformer_lens_patterns, compared_numbers,
    ),
    "gradients": Task(
        f"gradient × attention in all layers, {GRADIENTS + 2} tokens, 6 × 12 heads",
        regard_gradients, "captum", captum_gradients, compared_numbers,
    ),
    "writing": Task(
        f"weights of {WRITTEN} tokens written after {PROMPT}, 6 × 8 heads",
        regard_writing, "inseq", inseq_writing, compared_numbers,
    ),
    "embeddings": Task(
        "sentence vectors of 200 texts",
        regard_embeddings, "sentence-transformers", sentence_transformers_embeddings, compared_numbers,
    ),
}  # fmt: skip


def peak(opened: Callable[[], Run]) -> int:
    """Bytes beyond the opened model."""
    run = opened()
    with PeakMemory() as memory:
        run()
    return memory.bytes


def measured(name: str, task: Task, rounds: int) -> None:
    memory = {side: in_process(__file__, "--memory", side, name) for side in ("ours", "theirs")}
    runs = {"ours": task.ours(), "theirs": task.theirs()}
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        results = [run() for run in runs.values()]
        seconds = interleaved(runs, rounds, warm=True)
    print(f"\n{name}: {task.title}")
    for side, label in (("ours", "regard"), ("theirs", f"{task.peer} {version(task.peer)}")):
        print(f"  {label:30} {seconds[side]:7.2f} s   {memory[side] / 2**20:7.0f} MiB")
    print(f"  {task.compared(*results)}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("tasks", nargs="*", metavar="TASK", choices=[[], *TASKS])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if options.memory:
        task = TASKS[options.tasks[0]]
        with redirect_stderr(io.StringIO()):
            used = peak(getattr(task, options.memory))
        print(json.dumps(used))
        return
    print(machine_line())
    for name in options.tasks or TASKS:
        task = TASKS[name]
        try:
            version(task.peer)
        except PackageNotFoundError:
            print(f"\n{name}: {task.peer} is not installed")
            continue
        measured(name, task, options.rounds)


if __name__ == "__main__":
    main()
