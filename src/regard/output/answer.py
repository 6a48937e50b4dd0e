"""An answer in the terminal: the sentences of the reply, and under each the passages that it came from."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from regard._internal.plurals import counted
from regard.answers import Answer, Sentence
from regard.lens.words import printable
from regard.output.lines import Wrapped, aligned, bar_of, note, short

NUMBERS = ("attention", "logits", "knockout")
_EXPLANATION = (
    "Attention: the share of the sentence's attention that the passage got, over the heads that matter. Logits: what "
    "the passage added to the logits of its tokens. Knockout, the proof: by how many nats log p of the sentence falls "
    "when the passage is hidden. The bar is the knockout."
)


def show(answer: Answer, width: int = 80) -> RenderableType:
    """The question, the reply sentence by sentence with sources and numbers, and what the numbers mean."""
    files = len({passage.file for passage in answer.passages})
    read = f"{counted(len(answer.passages), 'passage')} of {counted(files, 'file')}"
    lines: list[RenderableType] = [
        Wrapped(printable(answer.question), "bold"),
        Wrapped(f"{printable(answer.model)}, {read}", "dim"),
    ]
    for sentence in answer.sentences:
        lines += [Text(), Wrapped(printable(sentence.text), "bold green"), *_sources(answer, sentence, width)]
    lines += [Text(), Wrapped(_EXPLANATION, "dim")]
    return Group(*lines, *([note(answer.note)] if answer.note else []))


def _sources(answer: Answer, sentence: Sentence, width: int) -> list[RenderableType]:
    """A line of numbers for each source, and under it the place and the beginning of the passage."""
    sources = sentence.sources
    columns = [
        [f"{100 * source.attention:.1f} %" for source in sources],
        ["–" if source.logits is None else number for source, number in zip(sources, _logits(sentence), strict=True)],
        aligned([source.knockout for source in sources], 3),
    ]
    sizes = [max(len(name), *map(len, column)) + 2 for name, column in zip(NUMBERS, columns, strict=True)]
    largest = max((source.knockout for source in sources), default=0.0)
    lines: list[RenderableType] = [Text("   " + "".join(map(str.rjust, NUMBERS, sizes)), "dim")]
    for number, source in enumerate(sources):
        passage = answer.passages[source.passage]
        line = Text(
            f"{number + 1:>3}"
            + "".join(column[number].rjust(size) for column, size in zip(columns, sizes, strict=True))
        )
        share = max(0.0, source.knockout / largest) if largest > 0 else 0.0
        line.append("  " + bar_of(share, min(24, max(0, width - line.cell_len - 2))), "green")
        lines.append(line)
        file = passage.file if len(passage.file) <= 40 else f"…{passage.file[-39:]}"
        place = f"{short(file, 40)}, {passage.start:,}–{passage.end:,}: "
        beginning = short(" ".join(passage.text.split()), max(16, width - 5 - len(place)))
        lines.append(Text("     ").append(place, "dim").append(beginning))
    return lines


def _logits(sentence: Sentence) -> list[str]:
    return aligned([source.logits or 0.0 for source in sentence.sources], 3)
