"""What is finished of an atlas, kept in the user's cache, so that a run that was ended goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard._internal.cache import cache_folder
from regard._internal.files import atomic_write, read_json
from regard.atlas.store import proof_from_dict, proof_to_dict
from regard.atlas.sums import Sums

if TYPE_CHECKING:
    from regard.atlas.proof import Proof
    from regard.lens import Lens


@dataclass
class State:
    """How far an atlas is.

    Attributes:
        path: the file that it is kept in; None where it is not kept.
        done: how many texts are measured.
        truncated: how many of them are longer than the model takes.
        tokens: how many tokens they have, by kind of text.
        sums: their scores.
        proofs: those that are made.
    """

    path: Path | None = None
    done: int = 0
    truncated: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    sums: Sums = field(default_factory=Sums)
    proofs: list[Proof] = field(default_factory=list)

    def save(self) -> None:
        """Write it to its file, atomically. Raises OSError where that cannot be written."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "done": self.done,
            "truncated": self.truncated,
            "tokens": self.tokens,
            "sums": self.sums.to_dict(),
            "proofs": [proof_to_dict(proof) for proof in self.proofs],
        }
        atomic_write(self.path, lambda file: file.write(json.dumps(content).encode()))

    def remove(self) -> None:
        """Remove the file: the atlas is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def kept_at(lens: Lens, texts: Sequence[Any] | None, seed: int) -> Path:
    """Where the state of an atlas is kept: in the user's cache, by model, texts, seed and version of regard."""
    key = json.dumps([lens.fingerprint, None if texts is None else list(texts), seed, version("regard")])
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in lens.name)
    return cache_folder("atlas") / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def begun(path: Path) -> State:
    """The state that a file holds; a new one where there is none, or one that is damaged."""
    try:
        content = read_json(path)
        return State(
            path,
            int(content["done"]),
            int(content["truncated"]),
            {str(kind): int(tokens) for kind, tokens in content["tokens"].items()},
            Sums.from_dict(content["sums"]),
            [proof_from_dict(proof) for proof in content["proofs"]],
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return State(path)
