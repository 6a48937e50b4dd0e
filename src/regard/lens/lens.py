"""`Lens`: a model to read texts with. Text → `Reading`, texts → `Comparison` or `Embeddings`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from regard._internal.deprecated import renamed_arguments
from regard.lens.chunks import Chunk, chunks
from regard.lens.compare import Comparison, comparison
from regard.lens.embed import Embeddings, embed
from regard.lens.embed_options import (
    Aggregate,
    DType,
    Level,
    OnError,
    Pool,
    SubtokenPooling,
    TruncationStrategy,
    check_options,
    current_truncation,
)
from regard.lens.encode import Encoded, check_text, encode, encode_pair
from regard.lens.forward import read_tokens
from regard.lens.generate import Generation, chat_prompt
from regard.lens.reading import Reading, Reply
from regard.lens.words import check_spans
from regard.models import open_model

if TYPE_CHECKING:
    from regard.atlas.atlas import Atlas


class Lens:
    """A model to read texts with.

    Args:
        model: None for the embedded all-MiniLM-L6-v2; a folder, or a name on the Hugging Face hub; or a pair of a
            transformers model and its tokenizer, which is put in evaluation mode and on regard's attention.
        revision: the branch, tag or commit of a model on the hub.
        allow_pickle: whether pickled weights may be opened, which can run any code.

    Attributes:
        model: the opened `regard.models.Model`.

    Raises:
        OSError: there is no such model, or it cannot be fetched. ImportError: the embedded model is not installed.
        ValueError: the model is damaged, its weights are pickled, or its attention cannot be seen.

    >>> lens = Lens()
    >>> reading = lens.read("Time flies like an arrow")
    >>> [word.text for word in reading.words]
    ['Time', 'flies', 'like', 'an', 'arrow']
    >>> reading.hidden.shape             # before the first layer and after each of six; 5 words, [CLS] and [SEP]
    torch.Size([7, 7, 384])
    >>> reading.attention[0].weights.shape
    torch.Size([12, 7, 7])
    >>> walk = reading.explain("flies", layer=3, head=10)
    >>> walk.error < 1e-5                         # the walk arrives where the model does
    True
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | tuple[Any, Any] | None = None,
        *,
        revision: str | None = None,
        allow_pickle: bool = False,
    ) -> None:
        self.model = open_model(model, revision=revision, allow_pickle=allow_pickle)
        folder = None if model is None or isinstance(model, tuple) else Path(model).expanduser()
        model = folder.resolve() if folder is not None and folder.is_dir() else model
        self._source: Reading | None = None
        self._arguments = {"model": model, "revision": revision, "allow_pickle": allow_pickle}

    def __getstate__(self) -> dict[str, Any]:
        """The arguments it was opened with: a copy, in another process for instance, opens the same model again."""
        if self._source is not None:
            raise TypeError("A lens after a source cannot be copied or pickled: pickle the lens that read the source.")
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self.__init__(**arguments)  # type: ignore[misc]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def revision(self) -> str:
        """The version of the model: its commit on the hub, or the SHA-256 of its weights; "" for one from memory."""
        return self.model.revision()

    @property
    def fingerprint(self) -> str:
        """Identifies everything about the model that affects vectors.

        The SHA-256 of a folder's weights, configuration, tokenizer and sentence-transformers modules; the commit of a
        model on the hub; for a model from memory, the SHA-256 of its tensors, configuration and tokenizer.
        """
        return self.model.fingerprint()

    @property
    def note(self) -> str:
        """What a user might not expect of the model, in a sentence, or ""."""
        return self.model.note

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return self.model.layers

    @property
    def pool(self) -> str:
        """The default pooling of sentence vectors, such as "mean" or "cls+mean"; "" where the model has none."""
        return "+".join(self.model.pooling.modes)

    def __repr__(self) -> str:
        return f"Lens({self.name!r})"

    def read(
        self,
        text: str,
        pair: str | None = None,
        *,
        words: Sequence[tuple[int, int]] | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> Reading:
        """Read a text, or a pair of texts together: contextualised embeddings, and the attention that made them.

        An encoder-decoder reads the first text as the source and the second as the target, token by token as if it had
        written it (teacher forcing). The reading is that of the source; its `decoder` is the reading of the target, and
        its `cross` that of the target's attention to the source. Without a target, the encoder alone reads.

        A text that is longer than the model takes is truncated, and `reading.truncated` says where.

        Args:
            text: the text.
            pair: a second text. The reading's text is then `text`, a new line, and `pair`. Of an encoder-decoder, the
                target.
            words: (start, end) of words to be kept whole: names, formulas, a URL. The rest of the text is divided by
                the word boundaries of Unicode.
            progress: called with the share of layers that are done, after each; what it raises ends the reading.

        Raises:
            TypeError: it is not a str. ValueError: it is blank, or has no tokens; words overlap, or share a token.

        >>> import regard
        >>> lens = regard.Lens()
        >>> reading = lens.read("Time flies like an arrow")
        >>> reading.hidden.shape                                      # before the first of six layers, and after each
        torch.Size([7, 7, 384])
        >>> lens.read("What flies?", "Time flies.").words[3].text     # a pair
        'Time'
        """
        truncated: object
        model, second = self.model, None
        if model.after is not None and pair is not None:
            check_text(pair, "read")
            return self.after(self.read(text, words=words, progress=progress)).read(pair)
        if pair is None:
            encoded, truncated = encode(model, text, model.max_length, "read")
        else:
            encoded, truncated = encode_pair(model, text, pair, model.max_length)
            second, text = len(text) + 1, f"{text}\n{pair}"
        whole = [] if words is None else check_spans(text, words)
        types = None if pair is None else torch.tensor(encoded.types)
        return self._read(encoded, text, truncated, types=types, second=second, whole=whole, progress=progress)

    def _read(
        self,
        encoded: Encoded,
        text: str,
        truncated: object = None,
        *,
        types: torch.Tensor | None = None,
        second: int | None = None,
        whole: Sequence[tuple[int, int]] = (),
        progress: Callable[[float], object] | None = None,
        reply: Reply | None = None,
    ) -> Reading:
        """The reading of tokens."""
        return read_tokens(self, encoded, text, truncated, types, second, whole, progress, reply, self._source)

    def after(self, source: Reading | str) -> Lens:
        """A lens with which the decoder of an encoder-decoder reads and writes targets of one source.

        A decoder that has read a source is a causal language model like any other: it reads targets, each after the
        model's start token. `read` gives the reading of the source, with `decoder` and `cross`.

        Raises ValueError where the model has no decoder that reads a source.

        >>> import regard
        >>> from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration
        >>> from regard.models import embedded_folder
        >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        >>> config = T5Config(
        ...     vocab_size=30522, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4,
        ...     pad_token_id=0, eos_token_id=102, decoder_start_token_id=0,
        ... )
        >>> lens = regard.Lens((T5ForConditionalGeneration(config), tokenizer))       # nobody has trained it
        >>> after = lens.after("The cat sat on the mat.")
        >>> after.read("Die Katze").cross.word("Katze").attends_to(layer=0, head=2).shape   # to each word of the source
        torch.Size([9])
        """
        reading = self.read(source) if isinstance(source, str) else source
        if self.model.after is None or reading.part != "encoder":
            raise ValueError(f"after: {self.name} has no decoder that reads a target after a source.")
        lens = object.__new__(type(self))
        final = reading.hidden[-1] if reading.final is None else reading.final
        lens.model, lens._source, lens._arguments = self.model.after(final), reading, {}
        return lens

    def generate(
        self,
        prompt: str,
        max_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        progress: Callable[[float], object] | None = None,
    ) -> Generation:
        """Let a language model go on with a text: a `Generation`, which gives the tokens as they are written.

            p(v) = softmax(logits / temperature)_v, over the fewest tokens that together have top_p

        Keys and values are kept, so that a token costs one token, and a long prompt is read in parts, in O(N) memory.
        When the reply has ended, or at any time before, `.reading` is that of prompt and reply together: attention is
        causal, so that one forward pass over the whole gives the weights of every step.

        An encoder-decoder reads the prompt as its source, and writes a target. `.reading` is then that of the source,
        with `decoder` and `cross`, and `decoder.reply` is what was written.

        Args:
            prompt: the text; not truncated, except for a source.
            max_tokens: the most tokens of the reply, which also ends where the model's context does.
            temperature: 0 for the likeliest token at every step (greedy); above it, tokens are drawn.
            top_p: draw from so much of the distribution only (nucleus sampling, Holtzman et al. 2020,
                https://arxiv.org/abs/1904.09751).
            seed: the same seed gives the same reply.
            stop: strings that end the reply and are not part of it.
            progress: called with the share of the prompt that is read, after each layer; what it raises ends the
                generation.

        Raises:
            TypeError: the prompt, or a string of `stop`, is not a str.
            ValueError: the prompt is empty or does not fit into the model's context, the model has no head that
                predicts the next token, or a number is out of range.

        >>> import regard
        >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
        >>> from regard.models import embedded_folder
        >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
        >>> [token.id >= 0 for token in lens.generate("Once upon a time", max_tokens=3)]
        [True, True, True]
        >>> reading = lens.generate("Once upon a time", max_tokens=3).finish()
        >>> reading.reply.token                                       # where the reply begins
        5
        """
        if self.model.after is not None:
            check_text(prompt, "generate")
            lens = self.after(self.read(prompt, progress=progress))
            return Generation(lens, "", max_tokens, temperature, top_p, seed, stop)
        return Generation(self, prompt, max_tokens, temperature, top_p, seed, stop, progress)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        progress: Callable[[float], object] | None = None,
    ) -> Generation:
        """Let a causal language model reply to messages, as `generate` after the prompt of its own chat template.

        Args:
            messages: each with its "role", such as "user" or "assistant", and its "content".
            max_tokens, temperature, top_p, seed, stop, progress: as in `generate`.

        Raises:
            TypeError, ValueError: as `generate`; or the model has no chat template, or its template refuses them.

        >>> import regard
        >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
        >>> from regard.models import embedded_folder
        >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
        >>> reading = lens.chat([{"role": "user", "content": "Does time fly?"}], max_tokens=3).finish()
        >>> reading.text.startswith("Does time fly?")
        True
        """
        prompt = chat_prompt(self.model, messages)
        return Generation(self, prompt, max_tokens, temperature, top_p, seed, stop, progress, call="chat")

    def compare(self, texts: Sequence[str], word: str | Sequence[str], nth: int | None = None) -> Comparison:
        """How far the context moves a word: the similarity of its vectors in several texts, layer by layer.

        Args:
            texts: two or more.
            word: the word, the same in all texts or one for each.
            nth: which occurrence of it, as in `Reading.word`.

        Raises:
            LookupError: a text does not have the word, or has it more than once.
            ValueError: there are fewer than two texts, or not as many words as texts.

        >>> import regard
        >>> lens = regard.Lens()
        >>> comparison = lens.compare(["Time flies like an arrow", "Fruit flies like a banana"], word="flies")
        >>> [round(layer[0, 1].item(), 2) for layer in comparison.similarity]
        [1.0, 0.92, 0.9, 0.87, 0.81, 0.81, 0.63]
        """
        if isinstance(texts, str) or len(texts) < 2:
            raise ValueError("compare: expected two texts or more.")
        words = [word] * len(texts) if isinstance(word, str) else list(word)
        if len(words) != len(texts):
            raise ValueError(f"compare: expected one word, or one for each of {len(texts)} texts. Got {len(words)}.")
        readings = [self.read(text) for text in texts]
        occurrences = []
        for reading, name in zip(readings, words, strict=True):
            try:
                occurrences.append(reading.word(name, nth))
            except LookupError as error:
                raise LookupError(f"In {reading.text!r}: {error}") from None
        return comparison(words[0], readings, occurrences)

    @renamed_arguments(mix="aggregate", subwords="subtoken_pooling", parts="spans")
    def embed(
        self,
        texts: Sequence[str],
        level: Level = "sentence",
        layers: int | Sequence[int] | Literal["all"] = -1,
        pool: Pool | Sequence[Pool] | None = None,
        *,
        aggregate: Aggregate = "mean",
        subtoken_pooling: SubtokenPooling = "mean",
        spans: Sequence[Sequence[tuple[int, int]] | None] | None = None,
        truncation: TruncationStrategy = "windows",
        prompt: str | None = None,
        prompt_text: str | None = None,
        dims: int | None = None,
        on_error: OnError = "raise",
        dtype: DType = "float32",
        names: Sequence[str] | None = None,
        progress: Callable[[int, int], object] = lambda texts, tokens: None,
    ) -> Embeddings:
        """Contextualised embeddings of many texts.

        Sentence vectors are those of sentence-transformers for the same folder (for texts longer than the model takes,
        with truncation="truncate"): its pooling, prompts, and Dense and Normalize modules. A setting that regard does
        not compute is refused by name. The result for a text does not depend on the texts beside it; for BERT's family
        on the native kernel, not even in the last bit.

        Args:
            texts: any number of texts; identical ones are computed once.
            level: a vector for each "token", "word" or "sentence", which is the whole text.
            layers: one or several of the L + 1 hidden states, or "all": 0 are the static embeddings, −1 the last layer,
                after the model's final norm if it has one.
            pool: the pooling of a sentence's token vectors: "mean", "cls" (the first), "max", "last", "weightedmean"
                (the n-th counts n times), "mean_sqrt_len" (their sum divided by the square root of their number);
                several are concatenated. By default, that of the model's folder.
            aggregate: how several layers make one vector: "mean" or "concatenate".
            subtoken_pooling: how a word's tokens make one vector: "mean", "first", "last", or "first-last", which
                concatenates both (Akbik et al. 2018).
            spans: for each text the (start, end) of spans to embed instead of the text, from the tokens that begin in
                each, which have seen the whole text (late chunking, Günther et al. 2024,
                https://arxiv.org/abs/2409.04701). With level="word", the words of a text, or None; words without a
                token are left out.
            truncation: what to do with texts longer than the model takes: read them in "windows" that overlap by half,
                each after the prompt, where every token is taken from the window that gives it most context on both
                sides; "truncate" them, and `.truncated` says where; or raise an "error". Over several windows, "cls"
                and "last" are means of the windows' vectors, weighted by the tokens taken from each.
            prompt: the name of a prompt of the model's folder, to be put before each text.
            prompt_text: any other text to be put there; "" for none, where the folder has a default prompt.
            dims: keep only so many of a sentence vector's first numbers, for models that are trained for it (Kusupati
                et al. 2022, https://arxiv.org/abs/2205.13147); such a vector does not have length 1.
            on_error: what to do with a text that cannot be embedded: "raise", before the work begins if the text alone
                is the reason; or "skip", and `.errors` says why. Vectors that are not finite are an error, too.
            dtype: the type of the computation, for BERT's family: "bfloat16" is faster on processors with instructions
                for it, "auto" uses it only there. "int8" rounds the inputs and weights of the linear layers to eight
                bits, and is the fastest on processors with VNNI or AMX: its vectors differ by a little. Other
                models are computed in the type of their file.
            names: what errors call the texts; by default "text 0" and so on.
            progress: called repeatedly with how many more texts are done, and how many tokens they have.

        Raises:
            RejectedTextsError: texts that cannot be embedded, with all reasons; a ValueError.
            TypeError, ValueError, IndexError: an option is unknown, or texts are not strings.

        >>> vectors = Lens().embed(["A cat sat.", "A kitten rested.", "Stocks fell."]).vectors
        >>> (vectors @ vectors.T).round(1)
        array([[1. , 0.6, 0.1],
               [0.6, 1. , 0.1],
               [0.1, 0.1, 1. ]], dtype=float32)
        """
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise TypeError(f"embed: expected a list of texts. Got a {type(texts).__name__}.")
        texts = list(texts)
        options = check_options(
            self.model,
            level=level,
            layers=layers,
            pool=pool,
            aggregate=aggregate,
            subtoken_pooling=subtoken_pooling,
            truncation=current_truncation(truncation),
            prompt=prompt,
            prompt_text=prompt_text,
            dims=dims,
            on_error=on_error,
            dtype=dtype,
        )
        if spans is not None and (level == "token" or len(spans) != len(texts)):
            raise ValueError(
                f"embed: spans= cannot be used with level='token' and needs one entry per text ({len(texts)})."
            )
        names = [f"text {n}" for n in range(len(texts))] if names is None else names
        return embed(self.model, texts, options, names, spans, progress)

    def atlas(
        self,
        texts: Sequence[str] | Sequence[tuple[str, str]] | None = None,
        *,
        proof: bool = True,
        seed: int = 0,
        resume: bool = False,
        progress: Callable[[str, float], object] = lambda stage, share: None,
    ) -> Atlas:
        """What every head of the model does, and proof that it does: a `regard.atlas.Atlas`.

        Every score of `regard.attribution.heads.SCORES` is measured, exact over all rows: on texts; on random tokens
        that are repeated; and, of a causal model, on texts with a needle and its answer. Then the heads with a high
        score are switched off, beside as many random ones, and the loss that follows is what proves the score.

        Cost: of one text after the other; the memory is that of reading one.

        Args:
            texts: any number, each read as far as the model's context goes; of an encoder-decoder, pairs of a source
                and its target. By default four English texts of some 280 words.
            proof: whether heads are switched off, which takes longer than the scores.
            seed: of the random tokens, and of the random heads.
            resume: keep what is finished in the user's cache, and go on from there if a run was ended.
            progress: called with "measuring" or "proving" and the share that is done; what it raises ends it.

        Raises:
            TypeError, ValueError: there are no texts, or one that cannot be read.
            OSError: what is finished cannot be kept.

        >>> atlas = Lens().atlas(["The cat sat on the mat, and the dog sat on the cat."], proof=False)
        >>> atlas.of("previous").shape                        # a number for each layer and head
        torch.Size([6, 12])
        >>> [(head.layer, head.head) for head in atlas.found("previous")]
        [(0, 2)]
        """
        from regard.lens.display import atlas

        return atlas(self, texts, proof=proof, seed=seed, resume=resume, progress=progress)

    def chunks(self, text: str, by: Chunk) -> list[tuple[int, int]]:
        """The spans of a text's chunks, for `spans` of `embed`: its "sentences", or of at most so many tokens.

        Raises ValueError for a number below one, or any other word.

        >>> Lens().chunks("Time flies. Fruit flies like a banana!", "sentences")
        [(0, 11), (11, 38)]
        """
        if by != "sentences" and (isinstance(by, str | bool) or by < 1):
            raise ValueError(f"chunks: by: expected 'sentences' or a positive number of tokens. Got {by!r}.")
        return chunks(self.model, text, by)
