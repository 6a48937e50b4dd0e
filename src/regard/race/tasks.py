"""Sequence-to-sequence tasks with one right answer; a tenth of all examples is held out."""

from __future__ import annotations

import calendar
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from string import ascii_letters, ascii_lowercase, digits

import torch
from torch import Tensor

from regard.race import TaskName

PAD, BOS, EOS = range(3)


@dataclass(frozen=True)
class Task:
    """A task: `make(random)` draws a source, and `answer(source)` is its one right target.

    tokens: All tokens of sources and targets. example: The source whose alignment is shown. steps: Training steps that
    are enough for both architectures to learn the task.
    """

    name: TaskName
    make: Callable[[random.Random], list[str]]
    answer: Callable[[list[str]], list[str]]
    tokens: tuple[str, ...]
    example: list[str]
    steps: int

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each token."""
        return {token: n for n, token in enumerate(self.tokens, EOS + 1)}

    @property
    def vocab_size(self) -> int:
        """The number of tokens, with padding, BOS and EOS."""
        return len(self.tokens) + EOS + 1

    def decode(self, numbers: list[int]) -> list[str]:
        """The tokens with these numbers, up to EOS."""
        numbers = numbers[: numbers.index(EOS)] if EOS in numbers else numbers
        return [self.tokens[n - EOS - 1] if n > EOS else "?" for n in numbers]


@dataclass(frozen=True)
class Batch:
    """source (B,M), lengths (B,) of the sources, target (B,N) from BOS on, label (B,N) up to EOS, padded with −100."""

    source: Tensor
    lengths: Tensor
    target: Tensor
    label: Tensor


def batch(task: Task, examples: list[list[str]]) -> Batch:
    """Sources and their answers as tensors."""
    sources = [[task.numbers[token] for token in source] for source in examples]
    answers = [[task.numbers[token] for token in task.answer(source)] for source in examples]
    return Batch(
        _padded(sources, PAD),
        torch.tensor([len(source) for source in sources]),
        _padded([[BOS, *answer] for answer in answers], PAD),
        _padded([[*answer, EOS] for answer in answers], -100),
    )


def _padded(rows: list[list[int]], fill: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])


def draw(task: Task, count: int, seed: str, held_out: bool) -> list[list[str]]:
    """Sources of the held-out tenth, all different, or of the rest; always the same for a seed."""
    generator = random.Random(seed)
    sources: list[list[str]] = []
    seen: set[str] = set()
    while len(sources) < count:
        source = task.make(generator)
        text = "".join(source)
        if (zlib.crc32(text.encode()) % 10 == 0) == held_out and not (held_out and text in seen):
            sources.append(source)
            seen.add(text)
    return sources


# Reversing a string


def _letters(generator: random.Random, longest: int = 32) -> list[str]:
    return generator.choices(ascii_lowercase, k=max(generator.randint(1, longest), generator.randint(1, longest)))


# Dates

_MONTHS = list(calendar.month_name)
_FORMS = (
    "the {day}{th} of {month} {year}",
    "{day} {month} {year}",
    "{day}{th} {month} {year}",
    "{month} {day}, {year}",
    "{short} {day}, {year}",
    "{weekday}, {day} {month} {year}",
    "{day}.{number}.{year}",
    "{number}/{day}/{year}",
)


def _date(generator: random.Random) -> list[str]:
    year, month = generator.randint(1600, 2199), generator.randint(1, 12)
    day = generator.randint(1, calendar.monthrange(year, month)[1])
    fields = {
        "th": "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th"),
        "month": _MONTHS[month],
        "short": _MONTHS[month][:3],
        "weekday": calendar.day_name[calendar.weekday(year, month, day)],
    }
    return list(generator.choice(_FORMS).format(day=day, number=month, year=year, **fields))


def _normalised(source: list[str]) -> list[str]:
    """A date as YYYY-MM-DD."""
    text = "".join(source).partition("day, ")[2] or "".join(source)
    numbers = "".join(c if c in digits else " " for c in text).split()
    year = int(numbers[-1])
    if "/" in text:
        month, day = int(numbers[0]), int(numbers[1])
    elif "." in text:
        day, month = int(numbers[0]), int(numbers[1])
    else:
        day, month = int(numbers[0]), next(n for n in range(1, 13) if _MONTHS[n][:3] in text)
    return list(f"{year:04}-{month:02}-{day:02}")


# Numbers in words

_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def _number(generator: random.Random) -> list[str]:
    return list(str(generator.randrange(10 ** generator.randint(1, 9))))


def _in_words(source: list[str]) -> list[str]:
    """A number in English words: 1,987 is one thousand nine hundred and eighty seven."""
    number = int("".join(source))
    words: list[str] = []
    for size, name in ((10**6, "million"), (1000, "thousand")):
        if number >= size:
            words += [*_below_thousand(number // size), name]
            number %= size
    if words and 0 < number < 100:
        words.append("and")
    return words + _below_thousand(number) if number or not words else words


def _below_thousand(number: int) -> list[str]:
    words = []
    if number >= 100:
        words += [_SMALL[number // 100], "hundred"]
        number %= 100
        if not number:
            return words
        words.append("and")
    if number >= 20:
        words.append(_TENS[number // 10 - 2])
        number %= 10
        if not number:
            return words
    return [*words, _SMALL[number]]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "reverse",
            _letters,
            lambda source: source[::-1],
            tuple(ascii_lowercase),
            list("timeflieslikeanarrow"),
            2500,
        ),
        Task(
            "dates",
            _date,
            _normalised,
            (*ascii_letters, *digits, *" ,./-"),
            list("the 3rd of March 1987"),
            1000,
        ),
        Task(
            "numbers",
            _number,
            _in_words,
            (*digits, *_SMALL, *_TENS, "hundred", "thousand", "million", "and"),
            list("19870303"),
            4000,
        ),
    )
}
