"""Lens: text → `Reading`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from regard.attention import Attention
from regard.lens.chunks import Chunk, chunks
from regard.lens.compare import Comparison, comparison
from regard.lens.embed import Embeddings, Level, Mix, OnError, Pool, Subwords, Truncation, check, embed
from regard.lens.encode import encode, encode_pair, said_of, tokens_of
from regard.lens.reading import Reading, SomeLayers, Token
from regard.lens.words import check_spans, units
from regard.models.model import open_model, telling


class Lens:
    """A model to read texts with.

    Args:
        model: None, the embedded all-MiniLM-L6-v2; a folder or a name on the Hugging Face hub, opened by transformers;
            or a pair of a transformers model and its tokenizer, which is put into eval() and on "regard".
        revision: of a model on the hub.
        allow_pickle: open pickled weights too, which can run code.

    Raises:
        OSError: no such model, or it cannot be fetched. ImportError: the embedded model is not installed.
        ValueError: it is damaged, its weights are pickled, or its attention cannot be seen, with the reason.

    >>> lens = Lens()
    >>> reading = lens.read("Time flies like an arrow")
    >>> [word.text for word in reading.words]
    ['Time', 'flies', 'like', 'an', 'arrow']
    >>> reading.hidden.shape                      # before the first layer and after each of six, 5 words + [CLS], [SEP]
    torch.Size([7, 7, 384])
    >>> reading.attention[0].weights.shape
    torch.Size([12, 7, 7])
    >>> walk = reading.explain("flies", layer=3, head=10)
    >>> walk.error < 1e-5                         # the walk arrives where the model does
    True
    """

    def __init__(
        self,
        model: str | os.PathLike | tuple | None = None,
        *,
        revision: str | None = None,
        allow_pickle: bool = False,
    ) -> None:
        self.model = open_model(model, revision=revision, allow_pickle=allow_pickle)
        folder = None if model is None or isinstance(model, tuple) else Path(model).expanduser()
        model = folder.resolve() if folder is not None and folder.is_dir() else model
        self._opened = {"model": model, "revision": revision, "allow_pickle": allow_pickle}

    def __getstate__(self) -> dict[str, Any]:
        """What it was opened with: a copy, in another process say, opens the same again."""
        return self._opened

    def __setstate__(self, opened: dict[str, Any]) -> None:
        self.__init__(**opened)  # type: ignore[misc]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def revision(self) -> str:
        """Which version of it: the commit on the hub, or the SHA-256 of its weights; "" for a model from memory."""
        return self.model.revision()

    @property
    def fingerprint(self) -> str:
        """Tells apart all that could make other vectors of the same texts and options.

        The SHA-256 of the folder's weights, configs, tokenizer and modules of sentence-transformers; the commit of a
        model on the hub; of a model from memory that of its tensors, config and tokenizer.
        """
        return self.model.fingerprint()

    @property
    def note(self) -> str:
        """What one would not expect of it, in a sentence, or ""."""
        return self.model.note

    @property
    def layers(self) -> int:
        """How many it has."""
        return self.model.layers

    @property
    def pool(self) -> str:
        """How it makes a sentence's vector of its tokens', if not told otherwise: "mean", or "cls+mean", or ""."""
        return "+".join(self.model.sentences.pools)

    def __repr__(self) -> str:
        return f"Lens({self.name!r})"

    def read(
        self,
        text: str,
        pair: str | None = None,
        *,
        words: Sequence[tuple[int, int]] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Reading:
        """Read a text, or a pair of them together: their contextualised embeddings, and the attention that made them.

        A text that is longer than the model takes is cut, and `reading.truncated` says where.

        Args:
            text, pair: what to read. A pair is read as one text: `text`, a new line, and `pair`.
            words: where words lie, as (start, end), for those that are to be taken whole: names, formulas, a URL. The
                rest of the text is divided as usual, by the word boundaries of Unicode.
            progress: is told the share that is done, layer by layer; what it raises ends the reading.

        Raises:
            TypeError, ValueError: what is no text, or an empty one; words that overlap, or that share a token.
        """
        truncated: object
        model, second = self.model, None
        if pair is None:
            encoded, truncated = encode(model, text, model.limit, "read")
        else:
            encoded, truncated = encode_pair(model, text, pair, model.limit)
            second, text = len(text) + 1, f"{text}\n{pair}"
        whole = [] if words is None else check_spans(text, words)
        types = None if pair is None else torch.tensor([encoded.types])
        with torch.inference_mode(), telling(model.blocks, progress):
            hidden, attentions, final = model.forward(torch.tensor([encoded.ids]), None, types)
        tokens = tokens_of(model, encoded, text)
        virtual = hidden[0].shape[1] - len(tokens)  # learned positions before the text, of a tuned prompt
        tokens = [*(Token(f"[virtual {n}]", 0, 0, True) for n in range(virtual)), *tokens]
        spans = [None if token.special else (token.start, token.end) for token in tokens]
        parts = units(text, spans, whole)
        end = len(text) if truncated is None else max(token.end for token in tokens)
        states = torch.stack([state[0] for state in hidden])
        notes = [model.omits, *said_of(text, tokens, parts, end), _without_attention(attentions)]
        return Reading(
            text=text,
            model=self.name,
            tokens=tokens,
            hidden=states,
            attention=_layers([attention and attention.of_sequence(0) for attention in attentions]),
            truncated=None if truncated is None else str(truncated),
            _spans=parts,
            second=second,
            final=states[-1] if torch.equal(states[-1], final[0]) else final[0],
            note=" ".join(filter(None, notes)),
            lens=self,
        )

    def compare(self, texts: Sequence[str], word: str | Sequence[str], nth: int | None = None) -> Comparison:
        """How far the context moved a word: the similarity of its vectors in several texts, layer by layer.

        `word` is one for all texts, or one for each; `nth` as in `Reading.word`.
        """
        if isinstance(texts, str) or len(texts) < 2:
            raise ValueError("compare: expected two texts or more.")
        words = [word] * len(texts) if isinstance(word, str) else list(word)
        if len(words) != len(texts):
            raise ValueError(f"compare: expected one word, or one for each of {len(texts)} texts. Got {len(words)}.")
        readings = [self.read(text) for text in texts]
        found = []
        for reading, one in zip(readings, words, strict=True):
            try:
                found.append(reading.word(one, nth))
            except LookupError as error:
                raise LookupError(f"In {reading.text!r}: {error}") from None
        return comparison(words[0], readings, found)

    def embed(
        self,
        texts: Sequence[str],
        level: Level = "sentence",
        layers: int | Sequence[int] | Literal["all"] = -1,
        pool: Pool | Sequence[Pool] | None = None,
        *,
        mix: Mix = "mean",
        subwords: Subwords = "mean",
        parts: Sequence[Sequence[tuple[int, int]] | None] | None = None,
        truncation: Truncation = "windows",
        prompt: str | None = None,
        prompt_text: str | None = None,
        dims: int | None = None,
        on_error: OnError = "raise",
        dtype: Literal["float32", "bfloat16", "auto"] = "float32",
        names: Sequence[str] | None = None,
        progress: Callable[[int, int], object] = lambda texts, tokens: None,
    ) -> Embeddings:
        """Contextualised embeddings of many texts.

        Sentence vectors are those of sentence-transformers for the same folder (with truncation="cut", for texts that
        are longer than the model takes): its pooling, prompts, and Dense and Normalize modules. What it would do and
        regard cannot is refused with the reason.

        Args:
            texts: any number of them; those that are the same are computed once.
            level: a vector for each "token", "word" or "sentence", which is the whole text.
            layers: which of the L + 1 hidden states: 0 the static ones, −1 the last, after the model's final norm if it
                has one; several; or "all".
            pool: how a sentence's vector is made of its tokens': "mean", "cls" (the first), "max", "last",
                "weightedmean" (later ones weigh more: the n-th n times), "mean_sqrt_len" (their sum over the root of
                their number); several are concatenated. If not given, as the model's folder says.
            mix: how several layers make one vector: their "mean", or "concatenate".
            subwords: how a word's vector is made of its tokens': "mean", "first", "last", or "first-last" (Akbik et al.
                2018: both, one after the other).
            parts: for each text (start, end) of some parts: a vector for each, from the tokens that begin in it, which
                have seen the whole text. Günther et al. 2024, https://arxiv.org/abs/2409.04701. At level "word": where
                the words of a text lie, or None; those that have no token are left out.
            truncation: of a text longer than the model takes: read in "windows" that overlap by half, each with the
                prompt before it, and each token taken from the one where it has most context on both sides; "cut", and
                `.truncated` says where; or "error". Of several windows "cls" and "last" are the mean of each window's
                first or last vector, weighted by how many tokens are taken from it.
            prompt: the name of one that the model's folder knows, to be put before each text.
            prompt_text: any other text to be put there; "" for none, where the folder has a default one.
            dims: how many of a sentence vector's numbers are kept, the first ones, for models trained for that
                (Kusupati et al. 2022, https://arxiv.org/abs/2205.13147); such a vector does not have length 1.
            on_error: for a text that cannot be embedded "raise", before the work begins where the text alone is the
                reason; or "skip", and `.errors` says why. Numbers that are not finite are an error, too.
            dtype: of the computation, for models of BERT's family, whatever the type of their file: "bfloat16" is
                faster where the processor has it; "auto" takes it only there. Others are computed in their file's type.
            names: what errors call the texts; "text 0" and so on if not given.
            progress: is told, again and again, how many more texts are done, and how many tokens they had.

        Raises:
            RefusedError: texts that cannot be embedded, with all their reasons by number; a ValueError.
            TypeError, ValueError, IndexError: what is no text, or an option that is not known.

        Sentence vectors have length 1 where the model's folder asks for it. What comes of a text does not depend on the
        texts beside it: not in the last bit, where the native kernel serves a model of BERT's family.

        >>> vectors = Lens().embed(["A cat sat.", "A kitten rested.", "Stocks fell."]).vectors
        >>> (vectors @ vectors.T).round(1)
        array([[1. , 0.6, 0.1],
               [0.6, 1. , 0.1],
               [0.1, 0.1, 1. ]], dtype=float32)
        """
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise TypeError(f"embed: expected a list of texts. Got a {type(texts).__name__}.")
        texts = list(texts)
        options = check(
            self.model,
            level=level,
            layers=layers,
            pool=pool,
            mix=mix,
            subwords=subwords,
            truncation=truncation,
            prompt=prompt,
            prompt_text=prompt_text,
            dims=dims,
            on_error=on_error,
            dtype=dtype,
        )
        if parts is not None and (level == "token" or len(parts) != len(texts)):
            raise ValueError(f"embed: parts: not for tokens, and some for each of {len(texts)} texts.")
        names = [f"text {n}" for n in range(len(texts))] if names is None else names
        return embed(self.model, texts, options, names, parts, progress)

    def chunks(self, text: str, by: Chunk) -> list[tuple[int, int]]:
        """Where the chunks of a text lie, for `parts` of `embed`: its "sentences", or so many tokens at most.

        Raises ValueError for a number below one, or another word.

        >>> Lens().chunks("Time flies. Fruit flies like a banana!", "sentences")
        [(0, 11), (11, 38)]
        """
        if by != "sentences" and (isinstance(by, str | bool) or by < 1):
            raise ValueError(f"chunks: by: expected 'sentences' or a number of tokens. Got {by!r}.")
        return chunks(self.model, text, by)


def _layers(attentions: Sequence[Attention | None]) -> Sequence[Attention]:
    present = [attention for attention in attentions if attention is not None]
    return present if len(present) == len(attentions) else SomeLayers(attentions)


def _without_attention(attentions: Sequence[Attention | None]) -> str:
    """The sentence for models in which not every layer has attention, or ""."""
    have = [str(n) for n, attention in enumerate(attentions) if attention is not None]
    if len(have) == len(attentions):
        return ""
    layers = f"Layer {have[0]} has" if len(have) == 1 else f"Layers {', '.join(have[:-1])} and {have[-1]} have"
    return (
        f"{layers} attention; the other {len(attentions) - len(have)} of {len(attentions)} layers are of another kind."
    )
