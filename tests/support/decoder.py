"""A tiny causal language model with words for tokens: what a page shows that is about the next token."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import torch

import regard

WORDS = ["<unk>", "\n", *["the", "cat", "sat", "on", "bank", "money", "river"], *(f"w{n}" for n in range(40))]


TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}\n{% endfor %}assistant"


def save_decoder(folder: Path, template: str | None = None) -> Path:
    """The model, of a few words and the new line, in a folder; with a template, it chats."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=1024, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def with_words(positions: int) -> regard.Lens:
    """A decoder of one layer that nobody has trained, whose tokens are most words of English."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from support.models import EMBEDDED

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=positions,
    )  # fmt: skip
    return regard.Lens((LlamaForCausalLM(config), tokenizer))


class Paced:
    """A step of a model that is counted, and that waits until it is allowed to go on."""

    def __init__(self, step):
        self.step, self.calls, self.allowed, self.pause = step, 0, threading.Event(), 0.0
        self.allowed.set()

    def __call__(self, ids, cache):
        self.calls += 1
        assert self.allowed.wait(20)
        time.sleep(self.pause)
        return self.step(ids, cache)


def paced_lens(folder: Path) -> tuple[regard.Lens, Paced]:
    """The model of a folder, and its steps."""
    lens = regard.Lens(folder)
    step = Paced(lens.model.step)
    lens.model = dataclasses.replace(lens.model, step=step)
    return lens, step
