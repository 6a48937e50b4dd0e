"""What texts for the terminal are made of: lines that wrap, words cut to a width, bars, and the colours of cells."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from regard.lens.words import printable

Colours = Sequence[tuple[int, int, int]]

# Five stops each, which readers who do not tell red from green tell apart.
_VIRIDIS: Colours = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_DIVERGING: Colours = ((94, 60, 153), (178, 171, 210), (247, 247, 247), (253, 184, 99), (230, 97, 1))  # purple, orange


class Wrapped:
    """Text that is wrapped at the width of the terminal and indented, without trailing spaces."""

    def __init__(self, text: str | Text, style: str = "", indent: int = 0) -> None:
        self.text = Text(text, style) if isinstance(text, str) else text
        self.indent = indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.text.wrap(console, max(8, options.max_width - self.indent)):
            line.rstrip()
            yield Text(" " * self.indent).append_text(line)


def indented(text: str | Text) -> RenderableType:
    """Text under a title."""
    return Wrapped(text, indent=3)


def step(title: str, text: str) -> RenderableType:
    """A title, after an empty line, and the text under it."""
    return Group(Text(), Text(title, style="bold cyan"), indented(text))


def note(text: str, indent: int = 0) -> RenderableType:
    """A sentence about a reading, the words of its text isolated."""
    return Wrapped(re.sub("“([^”]*)”", lambda quoted: f"“{isolated(quoted[1])}”", printable(text)), "yellow", indent)


def bar_of(share: float, width: int = 24) -> str:
    """A bar for a share of 1, in eighths of a character."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def table(rows: Sequence[tuple[Text, Sequence[str], float]], width: int) -> RenderableType:
    """Names, their numbers in columns, and a bar for a share of 1, where there is room; the first row is the header."""
    margin = max(name.cell_len for name, _, _ in rows)
    columns = [2 + max(map(len, column)) for column in zip(*(numbers for _, numbers, _ in rows), strict=True)]
    room = min(24, width - 3 - margin - sum(columns) - 3)
    lines = []
    for number, (name, numbers, share) in enumerate(rows):
        name.pad_right(margin - name.cell_len)
        line = name.append("".join(map(str.rjust, numbers, columns)), "" if number else "dim")
        lines.append(indented(line.append("  " + bar_of(share, room), "green") if room >= 4 else line))
    return Group(*lines)


def aligned(numbers: Sequence[float], digits: int = 4) -> list[str]:
    """Numbers with as many decimals as show this many digits of the largest.

    >>> aligned([12.3456, -0.001, 3.0])
    ['12.35', '−0.00', '3.00']
    """
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    decimals = min(12, max(0, digits - 1 - math.floor(math.log10(largest)))) if largest else 1
    return [f"{number:.{decimals}f}".replace("-", "−") for number in numbers]


def on_ramp(weight: float) -> str:
    """A rich style: a weight as a background from dark (0) to yellow (1), by its square root."""
    return colour(math.sqrt(min(1.0, max(0.0, weight))))


def colour(place: float, signed: bool = False) -> str:
    """A rich style for a place on a scale from 0 to 1; of a signed one, from −1, purple, to 1, orange."""
    stops = _DIVERGING if signed else _VIRIDIS
    at = ((place + 1) / 2 if signed else place) * (len(stops) - 1)
    low = min(int(at), len(stops) - 2)
    red, green, blue = (round(a + (b - a) * (at - low)) for a, b in zip(stops[low], stops[low + 1], strict=True))
    return f"{ink_on(red / 255, green / 255, blue / 255)} on rgb({red},{green},{blue})"


def ink_on(red: float, green: float, blue: float) -> str:
    """Black or white, whichever has more contrast with a background: 4.5 at least, by its luminance in WCAG 2.2."""
    linear = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in (red, green, blue)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


def short(text: str, limit: int) -> str:
    """Text for one line: truncated to `limit` columns, without control characters, and isolated (see below)."""
    text = printable(text)
    longest = 8 * limit  # characters; a letter may carry any number of marks that take no column
    if cell_len(text) > limit or len(text) > longest:
        text = set_cell_size(text[:longest], limit - 1).rstrip() + "…"
    return isolated(text)


def isolated(text: str) -> str:
    """Right-to-left text between marks that keep it from moving the numbers beside it.

    Without them, terminals that follow Unicode's bidirectional algorithm (UAX #9) scatter the cells of a row.
    """
    if not any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text):
        return text
    return f"\u2068{text}\u2069"  # FIRST STRONG ISOLATE, POP DIRECTIONAL ISOLATE
