"""An atlas of heads in the terminal and as a picture: the heads that do something, and heat maps layers × heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from regard._internal.plurals import counted
from regard.atlas.example import row_of
from regard.attribution.heads.scores import SCORES
from regard.lens.words import printable
from regard.output.lines import Wrapped, aligned, note, short
from regard.output.panels import Panel, draw, scale_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regard.atlas.atlas import Atlas, Head
    from regard.atlas.proof import Effect, Proof

LISTED = 5  # heads that are listed of a score
NAMES, COUNTS = 13, 7  # columns of the terminal
PARTS = {"encoder": "Encoder", "decoder": "Decoder", "cross": "Cross-attention"}
TEXTS = {"text": "text", "repeated": "random tokens, repeated", "needle": "texts with a needle"}


def panels(atlas: Atlas, part: str) -> list[Panel]:
    """What was measured of a part, score by score, without what is no number for any of its heads."""
    return [_panel(atlas, name, part) for name, table in atlas.scores[part].items() if table.isfinite().any()]


def _panel(atlas: Atlas, name: str, part: str) -> Panel:
    """A score with its own scale, which reaches the number from which on a head counts, so that noise stays dark."""
    table, score = atlas.of(name, part).double().cpu(), SCORES.get(name)
    if score is None:
        return Panel(name, "", table, scale_of(table))
    found = [(head.layer, head.head) for head in atlas.found(name, part)]
    scale = scale_of(table, score.found_from or 0.0)
    return Panel(name, score.phrase, table, scale, found, found_from=score.found_from)


# The picture


def picture(atlas: Atlas) -> Figure:
    """Heat maps layers × heads, one for each score with a scale of its own; heads that count carry a dot.

    Layer 0 is at the top. The attentions of an encoder-decoder stand one under another.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    caption = f"{'; '.join(filter(None, [_sizes(atlas), _read(atlas)]))}."
    groups = {PARTS.get(part, part): panels(atlas, part) for part in atlas.parts}
    if any(panel.found for group in groups.values() for panel in group):
        caption += " A dot marks a head that counts as one that does it: its score is beyond the line across the scale."
    return draw(groups, atlas.model, caption)


def _sizes(atlas: Atlas) -> str:
    """The layers and heads of each part, in words."""
    sizes = []
    for part, tables in atlas.scores.items():
        layers, heads = next((table.shape for table in tables.values()), (0, 0))
        name = f"{PARTS.get(part, part).lower()} " if part else ""
        sizes.append(f"{name}{counted(layers, 'layer')} × {counted(heads, 'head')}")
    return ", ".join(sizes)


def _read(atlas: Atlas) -> str:
    """What was read, in words."""
    return ", ".join(
        f"{counted(count, 'token')} of {TEXTS.get(kind, printable(kind))}"
        for kind, count in atlas.tokens.items()
        if count
    )


# The terminal


def table(atlas: Atlas, width: int = 80) -> RenderableType:
    """The heads with the largest score, score by score, and what happened when they were switched off.

    Under each score stands what it is and, where the atlas has an example, the words at which its first head does it.
    """
    lines: list[RenderableType] = [
        Wrapped(printable(atlas.model), "bold"),
        Wrapped("; ".join(filter(None, [_sizes(atlas), _read(atlas)])), "dim"),
    ]
    for part in atlas.parts:
        lines += [Text(), _header(PARTS.get(part, printable(part)), width)]
        for name in atlas.scores[part]:
            lines += _score(atlas, name, part, width)
    if atlas.proofs:
        lines += [Text(), Text("Proof: heads switched off together", "bold cyan")]
        lines += [line for proof in atlas.proofs for line in _proof(proof)]
    return Group(*lines, *([Text(), note(atlas.note)] if atlas.note else []))


def _header(part: str, width: int) -> Text:
    """The names of the columns, after that of the part."""
    heads = "heads: layer.head and score" if width >= NAMES + COUNTS + 32 else "heads"
    return Text(f"{short(part, NAMES - 1):<{NAMES}}", "bold cyan").append(f"{'count':>{COUNTS - 2}}  {heads}", "dim")


def _score(atlas: Atlas, name: str, part: str, width: int) -> list[RenderableType]:
    """A line with the heads of the largest score, as many as fit, and a line with what they do."""
    score, top = SCORES.get(name), atlas.top(name, LISTED, part)
    line = Text(f"{short(name, NAMES - 1):<{NAMES}}", "bold")
    if not top:
        return [line.append("not measured", "dim")]
    counts = score is not None and score.found_from is not None
    found = len(atlas.found(name, part)) if counts else 0
    line.append(f"{found if counts else '–':>{COUNTS - 2}}  ")
    top = [head for head in top if head.value]
    for number, (head, value) in enumerate(zip(top, aligned([head.value for head in top], 3), strict=True)):
        cell = f"{head.layer}.{head.head}".rjust(5) + f" {value}  "
        if line.cell_len + len(cell.rstrip()) > width:
            break
        line.append(cell, "green" if number < found else "dim")
    line.rstrip()
    pair = _example(atlas, name, top[0]) if top else ""
    says = [printable(score.phrase) if score else "", f"{top[0].layer}.{top[0].head}: {pair}" if pair else ""]
    return [line, *([Wrapped("; ".join(filter(None, says)), "dim", 3)] if any(says) else [])]


def _example(atlas: Atlas, name: str, head: Head) -> str:
    """In which word of the example a head shows the score best, and at which word it looks there."""
    if atlas.example is None:
        return ""
    reading = atlas.example.attended(head.part or None)
    row = row_of(reading, name, head.layer, head.head)
    units = reading.units[row.unit], reading.columns.units[row.words[0][0]]
    names = [short(unit.text, 16).strip() or "␣" for unit in units]
    return f"“{names[0]}” to “{names[1]}”, {row.words[0][1]:.0%}"


def _proof(proof: Proof) -> list[RenderableType]:
    """The verdict and its sentence, and for each ablation what it did to the loss, and what random heads did."""
    part = f"{PARTS.get(proof.part, proof.part).lower()}, " if proof.part else ""
    style = "bold green" if proof.verdict == "confirmed" else "bold yellow"
    title = Text(short(f"{part}{proof.score}", 40), "bold").append(f": {proof.verdict}", style)
    heads = " ".join(f"{layer}.{head}" for layer, head in proof.heads)
    lines: list[RenderableType] = [Wrapped(title), Wrapped(proof.sentence, indent=3)]
    lines += [Wrapped(printable(f"Heads {heads}; the loss in {proof.loss}. {proof.note}".strip()), "dim", 3)]
    for where, read, before in (
        ("matters", proof.matters, proof.before[0]),
        ("elsewhere", proof.elsewhere, proof.before[1]),
    ):
        effects = [effect for effect in proof.effects if effect.where == where]
        if effects:
            lines += [Wrapped(f"on {printable(read)}, {before:.3f} as it is", "dim", 3), *_effects(effects)]
    return lines


def _effects(effects: Sequence[Effect]) -> list[RenderableType]:
    """A line for each ablation: the change by these heads, and the largest by random ones."""
    pairs = [(effect.change, max(effect.random, default=math.nan)) for effect in effects]
    changes = aligned([number for pair in pairs for number in pair], 3)
    changes = ["–" if change == "nan" else change if change.startswith("−") else f"+{change}" for change in changes]
    size = max(map(len, changes))
    return [
        Text(f"   {effect.ablation:<6}{ours:>{size}}", "bold").append(f"   random heads {random:>{size}}", "dim")
        for effect, ours, random in zip(effects, changes[::2], changes[1::2], strict=True)
    ]
