"""`ask`: a question about documents, the reply, and where each of its sentences came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from regard.answers.answer import Answer, Sentence, Source
from regard.answers.direct import direct_logits
from regard.answers.heads import HeadWeights, head_weights
from regard.answers.hiding import by_sentence, log_probabilities
from regard.answers.mass import Masses, masses
from regard.answers.passages import By, Passage, read_passages
from regard.answers.prompt import Asked, asked_of, check_fits, prompt_of
from regard.answers.windows import most_relevant

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens import Lens, Reading

Stage = Literal["tokens", "knockouts", "windows"]
Advance = Callable[[Stage, int], object]


def ask(
    lens: Lens,
    question: str,
    documents: Sequence[str | Path] | Sequence[Passage],
    *,
    by: By = "paragraphs",
    max_tokens: int = 64,
    sources: int = 10,
    windows: bool = False,
    heads: HeadWeights | None = None,
    advance: Advance = lambda stage, steps: None,
) -> Answer:
    """Ask a language model a question about documents: its reply, and for each sentence of it the passages behind it.

    Each source has three numbers: the attention that wrote the sentence, over the heads that matter; what was added
    to the logits of its tokens; and the proof, by how much log p of the sentence falls when the passage is hidden. They
    are ranked by a score that predicts the last from the first. The reply is the likeliest at each step (greedy).

    Args:
        lens: of a language model with a chat template.
        question: the question.
        documents: text files, "-" for stdin; or passages, as `passages` makes them of a text.
        by: what files are divided into: "paragraphs", "sentences" or "lines".
        max_tokens: the most tokens of the reply.
        sources: how many passages are given for each sentence, those of the best score; only they are hidden, one
            after the other.
        windows: read documents that are longer than the model's context in windows first, and answer from the passages
            that attention finds there, as many as fit. Otherwise such documents are refused.
        heads: the weights of heads; by default those that `learn` stored, those that regard brings along for this
            model, or the same for all heads.
        advance: called with what has been done: "tokens" of the reply, "knockouts" or "windows", and how many.

    Returns: the answer. Where the keyboard interrupts the reply, the answer is of what was written until then.

    Raises:
        OSError: a file does not exist. TypeError: the question is no str.
        ValueError: a file is empty or no text; the question is blank; the model has no head or no chat template; the
            documents do not fit into its context; the model replies nothing; a number is out of range.

    >>> import regard
    >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    >>> from regard.models import embedded_folder
    >>> from regard import answers
    >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    >>> tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
    >>> notes = answers.passages("The boat is red. The train is blue.", by="sentences")
    >>> answer = answers.ask(lens, "What is red?", notes, max_tokens=3)
    >>> [source.passage for source in answer.sentences[0].sources] in ([0, 1], [1, 0])       # the best first
    True
    """
    if sources < 1:
        raise ValueError(f"ask: sources: expected 1 or more. Got {sources}.")
    passages, notes = _passages(documents, by), []
    heads = head_weights(lens) if heads is None else heads
    prompt = prompt_of(lens, question, passages)
    if windows and not check_fits(lens, prompt, max_tokens):
        count, advanced = len(passages), lambda windows: advance("windows", windows)
        passages = most_relevant(lens, question, passages, heads, max_tokens, advanced)
        notes.append(f"The documents are longer than the context: read were {len(passages):,} of {count:,} passages.")
        prompt = prompt_of(lens, question, passages)
    check_fits(lens, prompt, max_tokens, refuse=True)
    generation = lens.chat(prompt.messages, max_tokens)
    finished = "interrupted"
    try:
        for _ in generation:
            advance("tokens", 1)
        finished = str(generation.finished)
    except KeyboardInterrupt:
        if not generation.text.strip():
            raise
    if not generation.text.strip():
        raise ValueError(f"ask: {lens.name} replied nothing; ask in other words.")
    notes += _ended(finished, len(generation.tokens))
    reading = generation.reading
    asked = asked_of(reading, prompt)
    hidden = partial(advance, "knockouts")
    sentences, warnings = _sentences(lens, reading, asked, heads, sources, hidden)
    note = " ".join([*notes, *warnings, *filter(None, [reading.note])])
    return Answer(lens.name, question, generation.text, passages, sentences, note, reading)


def _passages(documents: Sequence[str | Path] | Sequence[Passage], by: By) -> list[Passage]:
    given = [documents] if isinstance(documents, str | Path | Passage) else list(documents)
    files = [document for document in given if not isinstance(document, Passage)]
    if files and len(files) < len(given):
        raise TypeError("ask: documents: expected text files, or passages, and not both.")
    return read_passages(files, by) if files else [document for document in given if isinstance(document, Passage)]


def _ended(finished: str, tokens: int) -> list[str]:
    """Why a reply ended before its end, if it did."""
    if finished == "length":
        return [f"The reply was cut off after {tokens:,} tokens."]
    return ["The reply was interrupted."] if finished == "interrupted" else []


def _sentences(
    lens: Lens,
    reading: Reading,
    asked: Asked,
    heads: HeadWeights,
    limit: int,
    advance: Callable[[int], object],
) -> tuple[list[Sentence], list[str]]:
    """The sentences of a reply with their sources, and what there is to say about the numbers."""
    assert reading.reply is not None
    notes, mass = [], masses(reading, asked)
    if not heads.learned:
        notes.append(
            "Every head counts alike, since it was not learned for this model which matter: regard ask --learn."
        )
    attention, heads = _attention(heads, mass)
    logits = None
    try:
        logits = direct_logits(reading, asked)
    except ValueError as error:
        notes.append(f"There is no direct logit attribution. {error}")
    predicted = heads.predicted(mass.of_passages, logits) if heads.learned else attention
    scores = heads.scores(predicted)
    ranked = predicted.argsort(dim=-1, descending=True, stable=True)[:, :limit]
    hidden = ranked.unique()
    rows = torch.zeros(len(hidden) + 1, asked.passage_count, dtype=torch.bool)
    rows[torch.arange(len(hidden)) + 1, hidden] = True
    whole, *without = by_sentence(log_probabilities(lens, asked, rows, advance).double(), asked).unbind()
    fall = {passage: whole - row for passage, row in zip(hidden.tolist(), without, strict=True)}
    sentences = []
    for number, (start, end) in enumerate(asked.spans):
        sources = [
            Source(
                passage,
                float(attention[number, passage]),
                None if logits is None else float(logits[number, passage]),
                float(fall[passage][number]),
                float(scores[number, passage]),
            )
            for passage in ranked[number].tolist()
        ]
        text = reading.reply.text[start:end]
        sentences.append(Sentence(text, start, end, float(whole[number]), sources))
    return sentences, notes


def _attention(heads: HeadWeights, mass: Masses) -> tuple[Float[Tensor, "S P"], HeadWeights]:
    """Of each sentence, the share of its attention that passages got, the first token left out; and the weights.

    Raises ValueError for the weights of another model.
    """
    shape = mass.of_first.shape[:2]
    if heads.learned and heads.weights.shape != shape:
        layers, count = heads.weights.shape
        raise ValueError(
            f"ask: heads: the weights of {heads.model} are for {layers} layers × {count} heads, and this model has "
            f"{shape[0]} × {shape[1]}."
        )
    if not heads.learned:
        heads = HeadWeights(heads.model, torch.ones(shape), learned=False)
    anything = heads.weights.double().sum() * mass.tokens - heads.weighted(mass.of_first)
    return heads.weighted(mass.of_passages) / anything.clamp(min=1e-12)[:, None], heads
