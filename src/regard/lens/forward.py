"""From tokens to a `Reading`: the forward pass, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from regard.lens.encode import Encoded, tokenization_notes, tokens_of
from regard.lens.layers import SomeLayers, without_attention
from regard.lens.reading import Reading, Reply
from regard.lens.units import Token
from regard.lens.words import units
from regard.models.model import Pass, report_progress

if TYPE_CHECKING:
    from regard.lens.lens import Lens


def read_tokens(
    lens: Lens,
    encoded: Encoded,
    text: str,
    truncated: object,
    types: torch.Tensor | None,
    second: int | None,
    whole: Sequence[tuple[int, int]],
    progress: Callable[[float], object] | None,
    reply: Reply | None,
    source: Reading | None,
) -> Reading:
    """The reading of a text's tokens; the arguments are those of `Lens.read` and attributes of `Reading`.

    After a source, the text is the target of a decoder, and the reading is that of the source, with the target's.
    """
    model, ids = lens.model, torch.tensor(encoded.ids)
    with torch.inference_mode(), report_progress(model.blocks, progress):
        passed = model.forward(ids[None], None, None if types is None else types[None])
    tokens = tokens_of(model, encoded, text)
    virtual = passed.hidden[0].shape[1] - len(tokens)  # learned positions before the text, of a tuned prompt
    tokens = [*(Token(f"[virtual {n}]", 0, 0, True) for n in range(virtual)), *tokens]
    unit_spans = units(text, [None if token.special else (token.start, token.end) for token in tokens], whole)
    end = len(text) if truncated is None else max(token.end for token in tokens)
    notes = [
        model.reading_note,
        *tokenization_notes(text, tokens, unit_spans, end),
        without_attention(passed.attentions),
    ]
    reading = Reading(
        text=text,
        model=lens.name,
        tokens=tokens,
        truncated=None if truncated is None else str(truncated),
        unit_spans=unit_spans,
        second=second,
        note=" ".join(filter(None, notes)),
        ids=ids,
        types=types,
        lens=lens,
        reply=reply and reply._replace(token=reply.token + virtual),
        part="encoder" if model.after else "decoder" if passed.cross else "",
        **of_pass(passed),
    )
    return reading if passed.cross is None or source is None else with_target(source, reading, passed.cross)


def with_target(source: Reading, target: Reading, cross: Pass) -> Reading:
    """The reading of a source with that of its target, and the target's attention to it."""
    assert source.lens is not None
    note = source.note.removeprefix(source.lens.model.reading_note).strip()
    source = replace(source, note=note)
    attended = of_pass(cross) | {"hidden": target.hidden, "final": target.final}
    attending = replace(target, part="cross", source=source, **attended)
    return replace(source, decoder=target, cross=attending)


def of_pass(passed: Pass, sequence: int = 0) -> dict[str, Any]:
    """What a forward pass gives of one of its sequences, as arguments of `Reading`."""
    hidden, final = torch.stack([state[sequence] for state in passed.hidden]), passed.final[sequence]
    attentions = [attention and attention.of_sequence(sequence) for attention in passed.attentions]
    present = [attention for attention in attentions if attention is not None]
    entering = passed.entering and [state if state is None else state[sequence] for state in passed.entering]
    return {
        "entering": entering,
        "hidden": hidden,
        "attention": present if len(present) == len(attentions) else SomeLayers(attentions),
        "final": hidden[-1] if torch.equal(hidden[-1], final) else final,
    }
