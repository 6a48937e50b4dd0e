"""Texts in the words of planted models, as samples: random, repeated, and questions with answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from regard.attribution.heads.sample import Sample
from support.planted import AXES, TOKENS, answer

FIRST_WORD, WORDS = 2, 2 * AXES  # after <s> and <unk>


NAMES = ["<s>", "<unk>", *(first + second for first in "bdfgklmnprst" for second in "aeiou")]


def tokenizer() -> Any:
    """A word is a token; <s> comes first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({name: number for number, name in enumerate(NAMES)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def text_of(tokens: Tensor) -> str:
    """The words, without <s>."""
    return " ".join(NAMES[token] for token in tokens[1:].tolist())


def random_tokens(generator: Generator, count: int = TOKENS) -> Tensor:
    """<s>, and words drawn one by one."""
    return _begun(torch.randint(FIRST_WORD, WORDS, (count - 1,), generator=generator))


def repeated_tokens(period: int, generator: Generator, count: int = TOKENS) -> Tensor:
    """<s>, and different words that come again and again."""
    words = FIRST_WORD + torch.randperm(WORDS - FIRST_WORD, generator=generator)[:period]
    return _begun(words.repeat((count - 1) // period))


def needle_tokens(generator: Generator) -> tuple[Tensor, Tensor]:
    """<s>, all words, then one word of each pair again, as a question; (n,2), the places of questions and answers."""
    words = torch.arange(FIRST_WORD, WORDS)
    hay = words[torch.randperm(len(words), generator=generator)]
    ones = words[words < answer(words)]
    asked = torch.where(torch.rand(len(ones), generator=generator) < 0.5, ones, answer(ones))
    questions = asked[torch.randperm(len(ones), generator=generator)]
    queries = 1 + len(hay) + torch.arange(len(ones))
    places = 1 + (answer(questions)[:, None] == hay).int().argmax(-1)
    return _begun(torch.cat((hay, questions))), torch.stack((queries, places), 1)


def _begun(words: Tensor) -> Tensor:
    return torch.cat((torch.zeros(1, dtype=torch.long), words))


def text_sample(tokens: Tensor) -> Sample:
    """Random words, as a text that means something."""
    special = tokens < FIRST_WORD
    return Sample("text", ~special, tokens, tokens, special, torch.zeros_like(special))


def repeated_sample(tokens: Tensor, period: int, directions: Tensor) -> Sample:
    """Words repeated; directions (vocabulary,d), of the logits."""
    special, rows = tokens < FIRST_WORD, torch.arange(len(tokens)) > period
    kinds, which = tokens[~special].unique(return_inverse=True)
    direction_of = torch.full_like(tokens, -1)
    direction_of[~special] = which
    return Sample(
        "repeated", rows, tokens, tokens, special, torch.zeros_like(special),
        period=period, first=1, directions=directions[kinds], direction_of=direction_of,
    )  # fmt: skip


def needle_sample(tokens: Tensor, answers: Tensor) -> Sample:
    """Questions and answers."""
    special = tokens < FIRST_WORD
    rows = torch.zeros_like(special)
    rows[answers[:, 0]] = True
    return Sample("needle", rows, tokens, tokens, special, torch.zeros_like(special), answer=answers)
