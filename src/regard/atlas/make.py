"""`atlas`: the scores of all heads of a model over texts, and the proofs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from regard._internal.plurals import counted
from regard.atlas.atlas import Atlas
from regard.atlas.example import EXAMPLE, row_of
from regard.atlas.proof import prove
from regard.atlas.state import State, begun, kept_at
from regard.atlas.steps import Progress, Seen, steps
from regard.atlas.tables import Example
from regard.atlas.texts import check_pairs, default_pairs
from regard.attribution.heads import SCORES, measure
from regard.attribution.layers import layer_of
from regard.lens.chunks import sentences

if TYPE_CHECKING:
    from regard.atlas.loss import Passage
    from regard.atlas.steps import Step
    from regard.lens import Lens, Reading

READING = 0.4  # about the share of reading in the time that a text takes; the rest is measuring
SHOWN = 3  # heads of each score with an example
EXAMPLE_TOKENS = 64

Report = Callable[[str, float], object]
Texts = Sequence[Any]  # strings or, of an encoder-decoder, pairs of them


def atlas(
    lens: Lens,
    texts: Texts | None = None,
    *,
    proof: bool = True,
    seed: int = 0,
    resume: bool = False,
    progress: Report = lambda stage, share: None,
) -> Atlas:
    """What every head of a model does, and proof of it, as `Lens.atlas`.

    One text is read after the other, and its reading is gone before the next: the memory is that of one reading.
    """
    todo = steps(lens, texts, seed)
    state = begun(kept_at(lens, texts, seed)) if resume else State()
    passages = _measured(todo, state, proof, lambda share: progress("measuring", share))
    example = _example(lens, texts)
    made = Atlas(
        model=lens.name,
        fingerprint=lens.fingerprint,
        scores=state.sums.means(),
        tokens=state.tokens,
        seed=seed,
        note=" ".join(filter(None, [_without_attention(example), _truncated(lens, state)])),
        example=example,
    )
    if proof:
        done = {(known.part, known.score) for known in state.proofs}
        for new in prove(lens, made, passages, done=done, progress=lambda share: progress("proving", share)):
            state.proofs.append(new)
            state.save()
    state.remove()
    return replace(made, proofs=state.proofs if proof else (), examples=examples(made))


def _measured(todo: Sequence[Step], state: State, proof: bool, progress: Progress) -> dict[str, list[Passage]]:
    """Read and measure what is not measured yet. Returns what proofs read, by part; for that, all of it is read."""
    passages: dict[str, list[Passage]] = {}
    total, before = sum(step.size for step in todo), 0
    for number, step in enumerate(todo):
        start, share = before / total, step.size / total
        before += step.size
        if number >= state.done or proof:
            _add(step, number, state, passages, lambda done, start=start, share=share: progress(start + share * done))  # type: ignore[misc]
    return passages


def _add(step: Step, number: int, state: State, passages: dict[str, list[Passage]], progress: Progress) -> None:
    """Read a text, add what proofs read of it and, where that is not done, its scores; its reading is gone then."""
    measured = number < state.done
    reading = 1.0 if measured else READING
    seen = step.read(lambda share: progress(reading * share))
    for part, _, _, passage in seen:
        passages.setdefault(part, []).extend([] if passage is None else [passage])
    if measured:
        return
    _measure(state, seen, lambda share: progress(reading + (1 - reading) * share))
    read = sum(len(sample.rows) for part, _, sample, _ in seen if part != "cross")
    state.tokens[step.kind] = state.tokens.get(step.kind, 0) + read
    state.truncated += any(reading.truncated for _, reading, _, _ in seen)
    state.done = number + 1
    state.save()


@torch.inference_mode()
def _measure(state: State, seen: Sequence[Seen], progress: Progress) -> None:
    """Add the scores of all heads of what was read."""
    total = sum(len(reading.attention_layers) for _, reading, _, _ in seen)
    done = 0
    for part, reading, sample, _ in seen:
        heads = max(map(reading.heads_of, reading.attention_layers))
        for layer in reading.attention_layers:
            scores = measure(layer_of(reading, layer), sample)
            state.sums.add(part, reading.layers, heads, layer, int(sample.rows.sum()), scores)
            done += 1
            progress(done / total)


def _without_attention(reading: Reading) -> str:
    """A sentence about a model in which not every layer has attention, or ""."""
    without = reading.layers - len(reading.attention_layers)
    return f"{without} of {counted(reading.layers, 'layer')} are of another kind than attention." if without else ""


def _truncated(lens: Lens, state: State) -> str:
    """A sentence about texts that are longer than the model takes, or ""."""
    if not state.truncated:
        return ""
    what = f"{counted(state.truncated, 'text')} {'was' if state.truncated == 1 else 'were'} read in part"
    return f"{what}: this model takes at most {lens.model.max_length:,} tokens."


# Examples


def examples(atlas: Atlas) -> list[Example]:
    """Of each score that names heads, for the heads with the largest, a word of the example and where they attend to.

    None at all where the atlas has no example.
    """
    if atlas.example is None:
        return []
    readings = {str(part): reading for part, reading in atlas.example.parts.items()} or {"": atlas.example}
    return [
        _shown(readings[part], part, name, head.layer, head.head)
        for part, tables in atlas.scores.items()
        for name in tables
        if part in readings and SCORES[name].found_from is not None
        for head in atlas.top(name, SHOWN, part)
    ]


def _shown(reading: Reading, part: str, name: str, layer: int, head: int) -> Example:
    row, columns = row_of(reading, name, layer, head), reading.columns.units
    attended = [(columns[unit].text, round(weight, 4)) for unit, weight in row.words]
    return Example(part, name, layer, head, reading.units[row.unit].text, attended)


def _example(lens: Lens, texts: Texts | None) -> Reading:
    """The text in which a page shows what heads attend to: our own, or the beginning of the first that was given."""
    if lens.model.after is not None:
        source, target = default_pairs()[0] if texts is None else check_pairs(texts)[0]
        return lens.read(_beginning(lens, source), _beginning(lens, target))
    return lens.read(EXAMPLE if texts is None else _beginning(lens, str(texts[0])))


def _beginning(lens: Lens, text: str) -> str:
    """The first sentences of a text, of `EXAMPLE_TOKENS` at most; of a longer sentence its beginning."""
    spans = lens.model.unprocessed.encode(text, add_special_tokens=False).offsets
    if len(spans) <= EXAMPLE_TOKENS:
        return text
    end = spans[EXAMPLE_TOKENS - 1][1]
    whole = [stop for _, stop in sentences(text) if stop <= end]
    return text[: whole[-1] if whole else end]
