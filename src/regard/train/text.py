"""From text files to a tokenizer, blocks of tokens to train on, and others that are held out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard._internal.files import read_text
from regard._internal.plurals import counted

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, CLS, SEP, MASK = range(len(SPECIAL))
HELD_OUT = 20  # one section in 20 is held out
MIN_BLOCKS = 8  # to train on; one more must be held out


@dataclass(frozen=True)
class Text:
    """What was read, in sections: those to train on, and those held out. digest: a hash of all of it."""

    learned: list[str]
    held_out: list[str]
    digest: str


def read(files: Sequence[Path]) -> Text:
    """The text of all files, one after the other, cut into sections at line ends; `-` is stdin.

    Raises ValueError if a file is not UTF-8, or all of them are empty.
    """
    lines = [line for file in files for line in read_text(file).splitlines()]
    text = "\n".join(lines)
    if not text.strip():
        raise ValueError(f"There is no text in {', '.join(map(str, files))}.")
    size = max(1, min(2000, len(text) // (2 * HELD_OUT)))
    sections, section = [], ""
    for line in lines:
        section += line + "\n"
        if len(section) >= size:
            sections.append(section)
            section = ""
    sections += [section] if section.strip() else []
    held_out = sections[HELD_OUT // 2 :: HELD_OUT]
    learned = [section for n, section in enumerate(sections) if n % HELD_OUT != HELD_OUT // 2]
    return Text(learned, held_out, hashlib.sha256(text.encode()).hexdigest())


def make_tokenizer(text: Text, vocab_size: int, seq_length: int) -> Tokenizer:
    """A WordPiece tokenizer (Schuster and Nakajima 2012), in lower case, for the text to train on.

    The trainer numbers the letters within words in the order of a hash table, and breaks ties by number. To get the
    same tokenizer every time, they are numbered first, as special tokens, which they do not remain.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    trained = Tokenizer(models.WordPiece(unk_token=SPECIAL[UNKNOWN]))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts = Counter("".join(trained.normalizer.normalize_str(section) for section in text.learned))
    letters = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:1000])
    numbered_first = [*SPECIAL, *(f"##{letter}" for letter in letters if not letter.isspace())]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=numbered_first, show_progress=False)
    trained.train_from_iterator(text.learned, trainer)

    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token=SPECIAL[UNKNOWN]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(SPECIAL[CLS], CLS), (SPECIAL[SEP], SEP)],
    )
    tokenizer.enable_truncation(seq_length)
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def blocks(tokenizer: Tokenizer, sections: Sequence[str], seq_length: int) -> Tensor:
    """(blocks, seq_length): all tokens in order, in blocks that begin with [CLS] and end with [SEP]."""
    tokenizer.no_truncation()
    encodings = tokenizer.encode_batch(list(sections), add_special_tokens=False)
    ids = torch.tensor([id for encoding in encodings for id in encoding.ids], dtype=torch.long)
    room = seq_length - 2
    ids = ids[: len(ids) // room * room].view(-1, room)
    ends = torch.tensor([[CLS, SEP]]).expand(len(ids), 2)
    return torch.cat((ends[:, :1], ids, ends[:, 1:]), 1)


def check(learned: Tensor, held_out: Tensor, text: Text, seq_length: int) -> None:
    """Raise ValueError if there is too little text, with how much is needed."""
    if len(learned) >= MIN_BLOCKS and len(held_out):
        return
    characters = sum(map(len, text.learned)) + sum(map(len, text.held_out))
    tokens_needed = max(MIN_BLOCKS * seq_length * HELD_OUT / (HELD_OUT - 1), (seq_length + 1) * HELD_OUT)
    per_token = sum(map(len, text.learned)) / max(1, learned.numel()) if len(learned) else 6
    raise ValueError(
        f"Too little text: {counted(characters, 'character')}, and blocks of {seq_length} tokens need about "
        f"{round(tokens_needed * max(3, per_token), -2):,.0f}. Give more text, or a smaller seq_length."
    )


def masked(ids: Tensor, vocab_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(ids with some of them replaced, a bool tensor of the masked places).

    15 % of each block are masked: of those 80 % become [MASK], 10 % a random token, and 10 % stay as they are. Devlin
    et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1.
    """
    order = torch.rand(ids.shape, generator=generator).masked_fill(ids < len(SPECIAL), 2)  # special tokens last
    count = max(1, round(0.15 * (ids.shape[1] - 2)))
    at = torch.zeros_like(ids, dtype=torch.bool).scatter(1, order.topk(count, largest=False).indices, True)
    at &= ids >= len(SPECIAL)
    fate = torch.rand(ids.shape, generator=generator)
    random_ids = torch.randint(len(SPECIAL), vocab_size, ids.shape, generator=generator)
    changed = torch.where(at & (fate < 0.8), MASK, ids)
    return torch.where(at & (fate >= 0.9), random_ids, changed), at
