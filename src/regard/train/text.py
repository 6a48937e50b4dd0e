"""From text files to sections to train on, and others that are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from regard._internal.files import read_text
from regard._internal.plurals import counted

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without special ones."""
    tokenizer.no_truncation()
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


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
