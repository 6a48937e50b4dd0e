"""How a corpus is embedded: the model, and the options of `Lens.embed`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from regard._internal.deprecated import renamed_arguments, warn
from regard._typing import OutputDtype
from regard.corpus.records import Record
from regard.lens import Lens
from regard.lens.chunks import Chunk
from regard.lens.embed import Embeddings
from regard.lens.embed_options import Aggregate, Level, Pool, SubtokenPooling, TruncationStrategy
from regard.lens.words import trimmed

# Keys and values of the files' metadata that differ from those of the options.
_KEYS = {"aggregate": "mix", "subtoken_pooling": "subwords", "output_dtype": "store"}
_VALUES = {"truncate": "cut"}


@renamed_arguments(**{old: new for new, old in _KEYS.items()})
@dataclass(frozen=True)
class EmbedConfig:
    """The model, and the options of `Lens.embed`.

    Args:
        model: A model of the Hugging Face Hub, or a local folder; None is the embedded model.
        dtype: The dtype of the computation: "float32", "bfloat16", "int8" or "auto".
        output_dtype: The dtype of the vectors in the output.
        chunk: "sentences" or a number of tokens. Instead of one vector, a text gets a vector per sentence, or per so
            many tokens, computed from the whole text.

    The other options are those of `Lens` and `Lens.embed`.

    >>> from regard.corpus import EmbedConfig
    >>> EmbedConfig(level="word", output_dtype="float16").unit
    'word'
    """

    model: str | None = None
    revision: str | None = None
    allow_pickle: bool = False
    level: Level = "sentence"
    layers: int | Sequence[int] | str = -1
    pool: Pool | Sequence[Pool] | None = None
    aggregate: Aggregate = "mean"
    subtoken_pooling: SubtokenPooling = "mean"
    truncation: TruncationStrategy = "windows"
    prompt: str | None = None
    dtype: str = "float32"
    output_dtype: OutputDtype = "float32"
    chunk: Chunk | None = None
    dims: int | None = None
    prompt_text: str | None = None

    def __post_init__(self) -> None:
        if str(self.truncation) == "cut":
            warn("EmbedConfig: truncation='cut' is now called truncation='truncate'.", levels=4)
            object.__setattr__(self, "truncation", "truncate")

    @property
    def unit(self) -> str:
        """What gets a vector: "sentence", "word", "token" or "chunk"."""
        return self.level if self.chunk is None else "chunk"

    def open(self) -> Lens:
        """The lens. Raises what `Lens` raises, and ValueError for options that are unknown or contradict each other.

        >>> from regard.corpus import EmbedConfig
        >>> EmbedConfig().open().name
        'all-MiniLM-L6-v2'
        """
        if self.chunk is not None and self.level != "sentence":
            raise ValueError(f"embed: chunk: only at the level of sentences. Got level={self.level!r}.")
        if self.chunk is not None and self.truncation == "truncate":
            raise ValueError("embed: chunk: the last chunks of a truncated text have no vector; read it in windows.")
        lens = Lens(self.model, revision=self.revision, allow_pickle=self.allow_pickle)
        self.embed(lens, [])
        return lens

    def embed(
        self,
        lens: Lens,
        records: Sequence[Record],
        progress: Callable[[int, int], object] = lambda texts, tokens: None,
    ) -> Embeddings:
        """The embeddings of records, and `errors` for those without; spans of chunks exclude outer white space.

        >>> from regard.corpus import EmbedConfig
        >>> from regard.corpus.records import Place, Record
        >>> config = EmbedConfig(dims=8)
        >>> config.embed(config.open(), [Record(Place("notes.txt", 1), "Time flies")]).vectors.shape
        (1, 8)
        """
        texts = [record.text for record in records]
        spans: list[Any] | None = [record.words for record in records] if self.level == "word" else None
        if self.chunk is not None:
            spans = [lens.chunks(text, self.chunk) for text in texts]
        embeddings = lens.embed(
            texts,
            self.level,
            self.layers,  # type: ignore[arg-type]
            self.pool,
            aggregate=self.aggregate,
            subtoken_pooling=self.subtoken_pooling,
            spans=spans,
            truncation=self.truncation,
            prompt=self.prompt,
            prompt_text=self.prompt_text,
            dims=self.dims,
            on_error="skip",
            dtype=self.dtype,  # type: ignore[arg-type]
            names=[record.place for record in records],
            progress=progress,
        )
        if self.chunk is None:
            return embeddings
        trimmed_spans = [
            [trimmed(text, *span) for span in chunks] for text, chunks in zip(texts, embeddings.spans, strict=True)
        ]
        return replace(embeddings, spans=trimmed_spans)

    def manifest(self, lens: Lens) -> dict[str, str]:
        """How the vectors are made, as entries for the metadata of the files.

        >>> from regard.corpus import EmbedConfig
        >>> config = EmbedConfig()
        >>> config.manifest(config.open())["model"]
        'all-MiniLM-L6-v2'
        """
        entries = {_KEYS.get(name, name): value for name, value in asdict(self).items() if value is not None}
        entries["truncation"] = _VALUES.get(self.truncation, self.truncation)
        del entries["allow_pickle"]  # makes no difference to the vectors
        entries |= {"model": lens.name, "revision": lens.revision, "fingerprint": lens.fingerprint}
        entries |= {"version": version("regard")}
        entries |= {"pool": lens.pool} if self.level == "sentence" and self.pool is None else {}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}
