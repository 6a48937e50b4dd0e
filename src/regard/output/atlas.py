"""An atlas of heads in the terminal and as a picture: the heads that do something, and heat maps layers × heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from regard._internal.plurals import counted
from regard.atlas.atlas import Atlas
from regard.atlas.difference import Difference
from regard.attribution.heads.scores import SCORES
from regard.lens.words import printable
from regard.output.lines import Wrapped, aligned, note, short
from regard.output.panels import Panel, draw, scale_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regard.atlas.proof import Effect, Proof
    from regard.atlas.tables import Head

LISTED = 5  # heads that are listed of a score
NAMES, COUNTS = 13, 7  # columns of the terminal
PARTS = {"encoder": "Encoder", "decoder": "Decoder", "cross": "Cross-attention"}
TEXTS = {"text": "text", "repeated": "random tokens, repeated", "needle": "texts with a needle"}
_MEASURED = " A dot marks a head that is found to do it: its score is beyond the line across the scale."
_CHANGED = " The change of each score. A dot marks a head that is found now and was not; a ring, one that no longer is."


# The picture


def picture(atlas: Atlas | Difference) -> Figure:
    """Heat maps layers × heads, one for each score with a scale of its own; heads that are found carry a dot.

    Layer 0 is at the top. The attentions of an encoder-decoder stand one under another. Of a difference, it is the
    changes, with colours that diverge around 0, and the marks are on heads that are found in one of the two alone.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    groups = {
        PARTS.get(part, part): [_panel(atlas, name, part) for name, table in tables.items() if table.isfinite().any()]
        for part, tables in atlas.scores.items()
    }
    caption = f"{'; '.join(filter(None, [_sizes(atlas), _read(atlas)]))}."
    if any(panel.found or panel.lost for group in groups.values() for panel in group):
        caption += _CHANGED if isinstance(atlas, Difference) else _MEASURED
    return draw(groups, _title(atlas), caption)


def _panel(atlas: Atlas | Difference, name: str, part: str) -> Panel:
    return _changed(atlas, name, part) if isinstance(atlas, Difference) else _measured(atlas, name, part)


def _measured(atlas: Atlas, name: str, part: str) -> Panel:
    """A score with its own scale, which reaches the number from which on a head is found, so that noise stays dark."""
    table, score = atlas.of(name, part).double().cpu(), SCORES.get(name)
    least = score.found_from if score else None
    found = [(head.layer, head.head) for head in atlas.found(name, part)]
    return Panel(name, score.phrase if score else "", table, scale_of(table, least or 0.0), found, found_from=least)


def _changed(difference: Difference, name: str, part: str) -> Panel:
    """The change of a score, on a scale that reaches a tenth of the score's own, so that noise stays pale."""
    table, score = difference.of(name, part).double().cpu(), SCORES.get(name)
    own = max(float(of.of(name, part).nan_to_num().abs().max()) for of in (difference.base, difference.atlas))
    _, largest = scale_of(table, max(own, (score and score.found_from) or 0.0) / 10)
    before, now = ({head[1:3] for head in of.found(name, part)} for of in (difference.base, difference.atlas))
    phrase = score.phrase if score else ""
    return Panel(name, phrase, table, (-largest, largest), found=sorted(now - before), lost=sorted(before - now))


def _title(atlas: Atlas | Difference) -> str:
    return f"{atlas.against} → {atlas.model}" if isinstance(atlas, Difference) else atlas.model


def _sizes(atlas: Atlas | Difference) -> str:
    """The layers and heads of each part, in words."""
    sizes = []
    for part, tables in atlas.scores.items():
        layers, heads = next((table.shape for table in tables.values()), (0, 0))
        name = f"{PARTS.get(part, part).lower()} " if part else ""
        sizes.append(f"{name}{counted(layers, 'layer')} × {counted(heads, 'head')}")
    return ", ".join(sizes)


def _read(atlas: Atlas | Difference) -> str:
    """What was read, in words."""
    return ", ".join(
        f"{counted(count, 'token')} of {TEXTS.get(kind, printable(kind))}"
        for kind, count in atlas.tokens.items()
        if count
    )


# The terminal


def table(atlas: Atlas | Difference, width: int = 80) -> RenderableType:
    """The heads with the largest score, score by score, and what happened when they were switched off.

    Under each score stands what it is and, where the atlas has an example, the words at which its first head does it.
    Of a difference, it is the heads whose score changed most.
    """
    lines: list[RenderableType] = [
        Wrapped(printable(_title(atlas)), "bold"),
        Wrapped("; ".join(filter(None, [_sizes(atlas), _read(atlas)])), "dim"),
    ]
    changes = isinstance(atlas, Difference)
    for part in atlas.parts:
        lines += _header(PARTS.get(part, part), "change" if changes else "score", width)
        for name in atlas.scores[part]:
            lines += _score(atlas, name, part, width)
    if isinstance(atlas, Atlas) and atlas.proofs:
        lines += [Text(), Text("Proof: heads switched off together", "bold cyan")]
        lines += [line for proof in atlas.proofs for line in _proof(proof)]
    return Group(*lines, *([Text(), note(atlas.note)] if atlas.note else []))


def _header(part: str, number: str, width: int) -> list[RenderableType]:
    """The name of a part, where there are several, and those of the columns."""
    heads = f"heads: layer.head and {number}" if width >= NAMES + COUNTS + 32 else "heads"
    columns = Text(f"{'found':>{NAMES + COUNTS - 2}}  {heads}", "dim")
    return [Text(), *([Text(printable(part), "bold cyan")] if part else []), columns]


def _score(atlas: Atlas | Difference, name: str, part: str, width: int) -> list[RenderableType]:
    """A line with the heads of the largest score, as many as fit, and a line with what they do."""
    score, top = SCORES.get(name), atlas.top(name, LISTED, part)
    line = Text(f"{short(name, NAMES - 1):<{NAMES}}", "bold")
    if not top:
        return [line.append("not measured", "dim")]
    line.append(f"{_count(atlas, name, part):>{COUNTS - 2}}  ")
    top = [head for head in top if abs(head.value) >= 0.0005]
    values = aligned([head.value for head in top], 3)
    if score and score.range[1] is not None:
        values = [f"{head.value:.3f}".replace("-", "−") for head in top]
    if isinstance(atlas, Difference):
        values = [value if value.startswith("−") else f"+{value}" for value in values]
    found = [] if isinstance(atlas, Difference) else atlas.found(name, part)
    for head, value in zip(top, values, strict=True):
        cell = f"{head.layer}.{head.head}".rjust(5) + f" {value}  "
        if line.cell_len + len(cell.rstrip()) > width:
            break
        line.append(cell, "green" if head in found else "dim")
    line.rstrip()
    says = [printable(score.phrase) if score else "", _example(atlas, name, top[0]) if top else ""]
    return [line, *([Wrapped("; ".join(filter(None, says)), "dim", 3)] if any(says) else [])]


def _count(atlas: Atlas | Difference, name: str, part: str) -> str:
    """How many heads are found; of a difference, before and now."""
    if name not in SCORES or SCORES[name].found_from is None:
        return "–"
    both = (atlas.base, atlas.atlas) if isinstance(atlas, Difference) else (atlas,)
    return "→".join(str(len(of.found(name, part))) for of in both)


def _example(atlas: Atlas | Difference, name: str, head: Head) -> str:
    """In which word of the example a head shows the score best, and at which word it looks there most."""
    for example in [] if isinstance(atlas, Difference) else atlas.examples:
        if (example.part, example.score, example.layer, example.head) == (head.part, name, head.layer, head.head):
            word, weight = example.attends_to[0]
            names = [short(text, 16).strip() or "␣" for text in (example.word, word)]
            return f"{head.layer}.{head.head}: “{names[0]}” to “{names[1]}”, {weight:.0%}"
    return ""


def _proof(proof: Proof) -> list[RenderableType]:
    """The verdict and its sentence, and for each ablation what it did to the loss, and what random heads did."""
    part = f"{PARTS.get(proof.part, proof.part).lower()}, " if proof.part else ""
    style = "bold green" if proof.verdict == "confirmed" else "bold yellow"
    title = Text(short(f"{part}{proof.score}", 40), "bold").append(f": {proof.verdict}", style)
    heads = " ".join(f"{layer}.{head}" for layer, head in proof.heads)
    lines: list[RenderableType] = [Wrapped(title), Wrapped(proof.sentence, indent=3)]
    digits = 2 if proof.loss == "nats" else 4
    lines += [Wrapped(printable(f"Heads {heads}; the loss in {proof.loss}. {proof.note}".strip()), "dim", 3)]
    for where, read, before in (
        ("matters", proof.matters, proof.before[0]),
        ("elsewhere", proof.elsewhere, proof.before[1]),
    ):
        effects = [effect for effect in proof.effects if effect.where == where]
        if effects:
            lines += [
                Wrapped(f"on {printable(read)}, {before:.{digits}f} as it is", "dim", 3),
                *_effects(effects, digits),
            ]
    return lines


def _effects(effects: Sequence[Effect], digits: int) -> list[RenderableType]:
    """A line for each ablation: the change by these heads, and the largest by random ones."""
    lines: list[RenderableType] = []
    for effect in effects:
        random = f"{max(effect.random):+.{digits}f}" if effect.random else "–"
        line = Text(f"   {effect.ablation:<6}{effect.change:>+7.{digits}f}".replace("-", "−"), "bold")
        lines.append(line.append(f"   random heads {random:>7}".replace("-", "−"), "dim"))
    return lines
