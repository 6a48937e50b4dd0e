"""Text files → a tokenizer and blocks of tokens to learn from, and others that are held out."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard._internal.plurals import counted

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, CLS, SEP, MASK = range(len(SPECIAL))
HELD_OUT = 20  # one section of so many is not learned from
FEWEST = 8  # blocks that there must be to learn from, and one held out


@dataclass(frozen=True)
class Text:
    """What was read, in sections: to learn from, and held out. `digest` tells whether it is the same as before."""

    learned: list[str]
    held_out: list[str]
    digest: str


def read(files: Sequence[Path]) -> Text:
    """All files, one after the other, cut into sections at the ends of lines; `-` is stdin.

    Raises ValueError where a file is not UTF-8, with the byte, or all of them are empty.
    """
    lines: list[str] = []
    for file in files:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        try:
            lines += content.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not UTF-8 at byte {error.start:,}.") from None
    text = "\n".join(lines)
    if not text.strip():
        raise ValueError(f"There is no text in {', '.join(map(str, files))}.")
    size = max(1, min(2000, len(text) // (2 * HELD_OUT)))
    sections, some = [], ""
    for line in lines:
        some += line + "\n"
        if len(some) >= size:
            sections.append(some)
            some = ""
    sections += [some] if some.strip() else []
    held_out = sections[HELD_OUT // 2 :: HELD_OUT]
    learned = [section for n, section in enumerate(sections) if n % HELD_OUT != HELD_OUT // 2]
    return Text(learned, held_out, hashlib.sha256(text.encode()).hexdigest())


def make_tokenizer(text: Text, vocabulary: int, length: int) -> Tokenizer:
    """WordPiece (Schuster and Nakajima 2012), in lower case, of the text that is learned from.

    The trainer numbers letters within words as it meets them, in the order of a hash table, and breaks ties by number:
    to get the same tokenizer each time they are numbered first, as special tokens, which they do not remain.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[UNKNOWN]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts = Counter("".join(tokenizer.normalizer.normalize_str(section) for section in text.learned))
    letters = sorted(one for one, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:1000])
    first = [*SPECIAL, *(f"##{letter}" for letter in letters if not letter.isspace())]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(text.learned, trainer)

    plain = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token=SPECIAL[UNKNOWN]))
    plain.normalizer, plain.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    plain.decoder = decoders.WordPiece()
    plain.add_special_tokens(list(SPECIAL))
    tokenizer = plain
    marks = [(SPECIAL[CLS], CLS), (SPECIAL[SEP], SEP)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    tokenizer.enable_truncation(length)
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """That of a run."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def blocks(tokenizer: Tokenizer, sections: Sequence[str], length: int) -> Tensor:
    """(blocks, length): all tokens in turn, as many in each block as there is room for between [CLS] and [SEP]."""
    tokenizer.no_truncation()
    encoded = tokenizer.encode_batch(list(sections), add_special_tokens=False)
    ids = torch.tensor([number for one in encoded for number in one.ids], dtype=torch.long)
    room = length - 2
    ids = ids[: len(ids) // room * room].view(-1, room)
    ends = torch.tensor([[CLS, SEP]]).expand(len(ids), 2)
    return torch.cat((ends[:, :1], ids, ends[:, 1:]), 1)


def check(learned: Tensor, held_out: Tensor, text: Text, length: int) -> None:
    """Raises ValueError where there is too little text, saying how much is needed."""
    if len(learned) >= FEWEST and len(held_out):
        return
    characters = sum(map(len, text.learned)) + sum(map(len, text.held_out))
    needed = max(FEWEST * length * HELD_OUT / (HELD_OUT - 1), (length + 1) * HELD_OUT)  # tokens
    per_token = sum(map(len, text.learned)) / max(1, learned.numel()) if len(learned) else 6
    raise ValueError(
        f"Too little text: {counted(characters, 'character')}, and blocks of {length} tokens need about "
        f"{round(needed * max(3, per_token), -2):,.0f}. Give more text, or a smaller length."
    )


def masked(ids: Tensor, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(ids with some replaced, where): 15 % of each block are to be found out; of those 80 % become [MASK], 10 % any
    token, 10 % stay. Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1.
    """
    order = torch.rand(ids.shape, generator=generator).masked_fill(ids < len(SPECIAL), 2)  # not special ones
    count = max(1, round(0.15 * (ids.shape[1] - 2)))
    at = torch.zeros_like(ids, dtype=torch.bool).scatter(1, order.topk(count, largest=False).indices, True)
    at &= ids >= len(SPECIAL)
    fate = torch.rand(ids.shape, generator=generator)
    anything = torch.randint(len(SPECIAL), vocabulary, ids.shape, generator=generator)
    changed = torch.where(at & (fate < 0.8), MASK, ids)
    return torch.where(at & (fate >= 0.9), anything, changed), at
