"""What is made of each text of a corpus."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

from regard.corpus.records import Record
from regard.corpus.table import Store
from regard.lens import Lens
from regard.lens.chunks import Chunk
from regard.lens.embed import Embeddings
from regard.lens.embed_options import Aggregate, Level, Pool, SubtokenPooling, TruncationStrategy
from regard.lens.words import trimmed


@dataclass(frozen=True)
class Recipe:
    """What is made of each text: the model, and the options of `Lens.embed`.

    store: the type of the numbers kept. chunk: "sentences" or a number of tokens, to have a vector for each such piece
    of a text, from a model that has read all of it, in place of one vector.
    """

    model: str | None = None
    revision: str | None = None
    allow_pickle: bool = False
    level: Level = "sentence"
    layers: int | Sequence[int] | str = -1
    pool: Pool | Sequence[Pool] | None = None
    mix: Aggregate = "mean"
    subwords: SubtokenPooling = "mean"
    truncation: TruncationStrategy | Literal["cut"] = "windows"
    prompt: str | None = None
    dtype: str = "float32"
    store: Store = "float32"
    chunk: Chunk | None = None
    dims: int | None = None
    prompt_text: str | None = None

    @property
    def unit(self) -> str:
        """What has a vector."""
        return self.level if self.chunk is None else "chunk"

    def open(self) -> Lens:
        """The lens. Raises what `Lens` raises, and ValueError for options that it does not know."""
        if self.chunk is not None and self.level != "sentence":
            raise ValueError(f"embed: chunk: only at the level of sentences. Got level={self.level!r}.")
        if self.chunk is not None and self.truncation in ("cut", "truncate"):
            raise ValueError("embed: chunk: of a text that is cut the last chunks have no vector; read it in windows.")
        lens = Lens(self.model, revision=self.revision, allow_pickle=self.allow_pickle)
        self.embed(lens, [])
        return lens

    def embed(
        self,
        lens: Lens,
        records: Sequence[Record],
        progress: Callable[[int, int], object] = lambda texts, tokens: None,
    ) -> Embeddings:
        """The records' embeddings, the spans of chunks without white space at their ends; `errors` of those without."""
        texts = [record.text for record in records]
        parts: list[Any] | None = [record.words for record in records] if self.level == "word" else None
        if self.chunk is not None:
            parts = [lens.chunks(text, self.chunk) for text in texts]
        embeddings = lens.embed(
            texts,
            self.level,
            self.layers,  # type: ignore[arg-type]
            self.pool,
            aggregate=self.mix,
            subtoken_pooling=self.subwords,
            spans=parts,
            truncation="truncate" if self.truncation == "cut" else self.truncation,
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
        both = zip(texts, embeddings.spans, strict=True)
        return replace(embeddings, spans=[[trimmed(text, *span) for span in spans] for text, spans in both])

    def about(self, lens: Lens) -> dict[str, str]:
        """What the metadata of a file says of how it was made."""
        said = {key: value for key, value in asdict(self).items() if value is not None and key != "allow_pickle"}
        said |= {"model": lens.name, "revision": lens.revision, "fingerprint": lens.fingerprint}
        said |= {"version": version("regard")}
        said |= {"pool": lens.pool} if self.level == "sentence" and self.pool is None else {}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in said.items()}
