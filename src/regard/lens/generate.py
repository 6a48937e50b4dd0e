"""`Generation`: a reply that a causal language model writes token by token, and the reading of prompt and reply.

The loop is regard's own and not that of transformers' `generate`, whose streamers give texts without probabilities, and
which returns nothing when it is interrupted. It also runs the body and the head that readings use, so that no second
copy of the model is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from regard._internal import heap
from regard.lens.encode import Encoded, check_text
from regard.lens.reading import Reading, Reply
from regard.lens.words import Span, trimmed
from regard.models import Model
from regard.models.model import report_progress

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from regard.lens.lens import Lens
    from regard.models.head import Head
    from regard.models.model import Step

Finished = Literal["stop", "end", "length", "interrupted"]


class NextToken(NamedTuple):
    """A token of a reply.

    Attributes:
        text: what it adds to the reply; "" while a character is incomplete, which the last of its tokens adds.
        id: its number in the model's vocabulary.
        probability: what the model gave it, softmax(logits), whatever the temperature.

    >>> import regard
    >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    >>> from regard.models import embedded_folder
    >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
    >>> token = next(lens.generate("Once upon a time"))
    >>> 0 < token.probability < 1
    True
    """

    text: str
    id: int
    probability: float


class Generation(Iterator[NextToken]):
    """A reply as it is written: an iterator of `NextToken`. Made by `Lens.generate` and `Lens.chat`.

    A token is given as soon as it cannot begin a stop string. After an interruption, or a `break`, all that was written
    remains, and `reading` is that of the prompt and so much of the reply.

    Attributes:
        prompt: the text that it goes on with; of a chat, what the chat template made of the messages.
        source: of an encoder-decoder, the text that its encoder read; the prompt is then the beginning of a target, and
            mostly empty. None of all other models.
        tokens: those of the reply until now. A stop string that begins within a token cuts its text, not the token.
        finished: why it ended: a "stop" string, an "end" token of the model, its "length" (`max_tokens` or the model's
            context), or "interrupted" by the keyboard; None while it goes on.

    >>> import regard
    >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    >>> from regard.models import embedded_folder
    >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
    >>> generation = lens.generate("Once upon a time", max_tokens=3)
    >>> for token in generation:
    ...     assert generation.text.endswith(token.text)
    >>> generation.finished, len(generation.tokens)
    ('length', 3)
    """

    def __init__(
        self,
        lens: Lens,
        prompt: str,
        max_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        progress: Callable[[float], object] | None = None,
        *,
        call: str = "generate",
    ) -> None:
        self._stops = _check_options(call, max_tokens, temperature, top_p, stop)
        self._head, self._step = _writer(lens.model, call)
        self._lens, self.prompt, self._prompt = lens, prompt, _encode(lens.model, prompt, call)
        self.source = None if lens._source is None else lens._source.text
        self.tokens: list[NextToken] = []
        self.finished: Finished | None = None
        self._limit = min(max_tokens, lens.model.max_length - len(self._prompt.ids))
        self._temperature, self._top_p, self._progress = temperature, top_p, progress
        self._random = torch.Generator().manual_seed(seed)
        self._decoded = max(0, len(self._prompt.ids) - 8), len(self._prompt.ids)
        self._read: tuple[list[NextToken], Reading] | None = None
        self._given = self._write()

    def __next__(self) -> NextToken:
        return next(self._given)

    def __repr__(self) -> str:
        return f"Generation({self.text!r}, {len(self.tokens)} tokens, finished={self.finished!r})"

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._lens.name

    @property
    def text(self) -> str:
        """The reply until now."""
        return "".join(token.text for token in self.tokens)

    def finish(self) -> Reading:
        """Write to the end; then `reading`.

        >>> import regard
        >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
        >>> from regard.models import embedded_folder
        >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
        >>> lens.generate("Once upon a time", max_tokens=3).finish().text.startswith("Once upon a time")
        True
        """
        for _ in self:
            pass
        return self.reading

    @property
    def reading(self) -> Reading:
        """Prompt and reply as the model reads them together, as much as is written; `reading.reply` marks the reply.

        One forward pass over the tokens that were written, which the tokenizer might have chosen differently for the
        same text. A token that ends the reply is not part of it.
        """
        if self._read is None or self._read[0] != self.tokens:
            self._read = list(self.tokens), self.read()
        return self._read[1]

    def read(self, progress: Callable[[float], None] | None = None) -> Reading:
        """The same, computed anew, so that it is not kept here; `progress` is that of `Lens.read`.

        >>> import regard
        >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
        >>> from regard.models import embedded_folder
        >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
        >>> generation = lens.generate("Once upon a time", max_tokens=3)
        >>> first = next(generation)
        >>> generation.read().reply.text == first.text                # what is written until now
        True
        """
        reply = Reply(len(self._prompt.ids), self.text)
        return self._lens._read(self._encoded(), self.prompt + self.text, progress=progress, reply=reply)

    def _encoded(self) -> Encoded:
        """Prompt and reply. Each token of a character has the span of the whole."""
        tokenizer, spans = self._lens.model.tokenizer, []
        text = self.prompt + self.text
        start = stop = len(text)
        for token in reversed(self.tokens):
            if token.text:
                start, stop = start - len(token.text), start
            spans.append(trimmed(text, start, stop))
        ids, prompt = [token.id for token in self.tokens], self._prompt
        pieces = [tokenizer.id_to_token(id) or "" for id in ids]
        return Encoded(
            [*prompt.ids, *ids], [0] * (len(prompt.ids) + len(ids)), [*prompt.pieces, *pieces],
            [*prompt.spans, *reversed(spans)],
        )  # fmt: skip

    def _write(self) -> Iterator[NextToken]:
        given, ids = 0, torch.tensor(self._prompt.ids)
        try:
            final, cache = self._read_prompt(ids)
            while True:
                with torch.inference_mode():
                    logits = self._head(final[-1:], ids[-1:])[0].float().cpu()
                id = _choose(logits, self._temperature, self._top_p, self._random)
                if id in self._head.end_ids:
                    self.finished = "end"
                else:
                    self._add(id, float(logits.softmax(-1)[id]))
                ready = len(self.tokens) if self.finished else self._ready(given)
                for token in self.tokens[given:ready]:
                    given += 1
                    yield token
                if self.finished:
                    return
                ids = torch.tensor([id])
                with torch.inference_mode():
                    final, cache = self._step(ids[None], cache)
        except KeyboardInterrupt:
            self.finished = "interrupted"
            raise

    def _read_prompt(self, ids: Int[Tensor, "N"]) -> tuple[Float[Tensor, "n dim"], Any]:
        """The final states of the last tokens of the prompt, which is read in parts, and the cache."""
        model, cache, read = self._lens.model, None, 0
        parts = model.parts(self._step, ids)
        for part in parts:
            share = _share(self._progress, read, len(part), len(ids))
            with torch.inference_mode(), report_progress(model.blocks, share):
                final, cache = self._step(part[None], cache)
            read += len(part)
            if len(parts) > 1:
                heap.trim()  # the cache has grown, and left holes where it was
        return final, cache

    def _add(self, id: int, probability: float) -> None:
        """One more token, and whether it ends the reply."""
        ended = len(self.tokens) + 1 == self._limit
        self.tokens.append(NextToken(self._new_text(id, ended), id, probability))
        text = self.text if self._stops else ""
        if places := [place for stop in self._stops if (place := text.find(stop)) >= 0]:
            self._cut(min(places))
            self.finished = "stop"
        elif ended:
            self.finished = "length"

    def _new_text(self, id: int, ended: bool) -> str:
        """What a token adds to the text, decoded after a few tokens before it: some tokenizers join by context."""
        first, known = self._decoded
        ids = [*self._prompt.ids[first:], *(token.id for token in self.tokens[max(0, first - len(self._prompt.ids)) :])]
        decode = self._lens.model.tokenizer.decode
        before = decode(ids[: known - first], skip_special_tokens=False)
        after = decode([*ids, id], skip_special_tokens=False)
        total = first + len(ids) + 1
        if after.endswith("\ufffd") and total - known < 4 and not ended:  # of at most four bytes of a character
            return ""
        self._decoded = known, total
        new = after[len(before) :]
        return new if self.prompt or self.text else new.lstrip(" ")

    def _cut(self, place: int) -> None:
        """Shorten the reply to so many characters."""
        start, kept = 0, []
        for token in self.tokens:
            if start >= place:
                break
            kept.append(token._replace(text=token.text[: place - start]))
            start += len(token.text)
        self.tokens = kept

    def _ready(self, given: int) -> int:
        """How many tokens end before anything that a stop string could begin with."""
        if not self._stops:
            return len(self.tokens)
        text = self.text
        ends = (n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
        ready, end = len(self.tokens), len(text)
        certain = end - max(ends, default=0)
        while ready > given and (end > certain or not self.tokens[ready - 1].text):  # or of an incomplete character
            ready -= 1
            end -= len(self.tokens[ready].text)
        return ready


def _share(
    progress: Callable[[float], object] | None, before: int, count: int, total: int
) -> Callable[[float], object] | None:
    """From the share of a part that is read to that of the whole prompt."""
    return progress and (lambda share: progress((before + share * count) / total))


def chat_prompt(model: Model, messages: Sequence[Mapping[str, str]]) -> str:
    """What the model's chat template makes of messages. Raises TypeError or ValueError, naming what is wrong."""
    if isinstance(messages, str | Mapping) or not all(isinstance(message, Mapping) for message in messages):
        raise TypeError("chat: messages: expected a list such as [{'role': 'user', 'content': 'Hello'}].")
    if not messages:
        raise ValueError("chat: there are no messages.")
    if model.chat is None:
        raise ValueError(f"chat: {model.name} has no chat template; write the prompt yourself and use generate().")
    try:
        return model.chat(messages)
    except Exception as error:  # templates are programs, and raise exceptions of every kind
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"chat: the chat template of {model.name} refuses these messages: {reason}") from error


def _check_options(
    call: str, max_tokens: int, temperature: float, top_p: float, stop: str | Sequence[str]
) -> list[str]:
    """The stop strings. Raises TypeError or ValueError for an option that cannot be used."""
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise ValueError(f"{call}: max_tokens: expected a whole number, 1 or more. Got {max_tokens}.")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"{call}: temperature: expected 0 (greedy) or more. Got {temperature}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"{call}: top_p: expected a number above 0, at most 1. Got {top_p}.")
    stops = [stop] if isinstance(stop, str) else list(stop)
    if any(not isinstance(string, str) for string in stops):
        raise TypeError(f"{call}: stop: expected strings. Got {stop!r}.")
    if "" in stops:
        raise ValueError(f"{call}: stop: an empty string would end every reply before it begins.")
    return stops


def _writer(model: Model, call: str) -> tuple[Head, Step]:
    """The head and the step of a model. Raises ValueError where it predicts no next token, or knows no steps."""
    head = model.head
    if head is None or head.kind != "next token":
        other = "no head" if head is None else f"a head for a {head.kind}, and none"
        raise ValueError(
            f"{call}: {model.name} has {other} that predicts the next token; open a causal language model with its "
            "head, from its folder or as Lens((AutoModelForCausalLM.from_pretrained(name), tokenizer))."
        )
    if model.step is None:
        raise ValueError(f"{call}: {model.name} cannot be run token by token: it reads both ways, or a tuned prompt.")
    return head, model.step


def _encode(model: Model, prompt: str, call: str) -> Encoded:
    """The tokens of a prompt: those before a text, but none after it, and none twice that a chat template wrote."""
    starts = model.cross is not None and not prompt  # a decoder after a source begins with its start token
    if not starts:
        check_text(prompt, call)
    encoding = model.unprocessed.encode(prompt, add_special_tokens=False)
    prefix = [] if call == "chat" else model.prefix_ids
    ids = [*prefix, *encoding.ids]
    if not encoding.ids and not starts:
        raise ValueError(f"{call}: the prompt contains no tokens for {model.name}: {prompt[:60]!r}.")
    if len(ids) >= model.max_length:
        raise ValueError(
            f"{call}: the prompt has {len(ids):,} tokens, and {model.name} reads at most {model.max_length:,}, the "
            "reply included. Shorten it, or ask about a long text with `regard ask --windows`."
        )
    spans: list[Span | None] = [None] * len(prefix)
    spans += [trimmed(prompt, start, stop) for start, stop in encoding.offsets]
    pieces = [*(model.tokenizer.id_to_token(id) or "" for id in prefix), *encoding.tokens]
    return Encoded(ids, [0] * len(ids), pieces, spans)


def _choose(logits: Float[Tensor, "vocabulary"], temperature: float, top_p: float, random: Any) -> int:
    """The likeliest token at temperature 0; otherwise one drawn from the nucleus."""
    if logits.isnan().any():
        raise ValueError("generate: the model's logits are not numbers.")
    if temperature == 0:
        return int(logits.argmax())
    probabilities = ((logits - logits.max()) / temperature).softmax(-1)
    ordered, ids = probabilities.sort(descending=True, stable=True)
    ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0)  # the first is always kept
    return int(ids[torch.multinomial(ordered, 1, generator=random)])
