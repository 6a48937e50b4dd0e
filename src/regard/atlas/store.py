"""An atlas as numbers: as JSON, as a table of Arrow or pandas, as a Parquet file; and how it is read again.

The table has a row for each head and score. A Parquet file carries everything else, such as the proofs, as JSON in the
metadata of its schema, under `regard.atlas`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard._internal.files import read_json
from regard.atlas.frames import require_pyarrow, to_arrow
from regard.atlas.proof import Effect, Proof
from regard.atlas.tables import Example

if TYPE_CHECKING:
    from regard.atlas.atlas import Atlas
    from regard.atlas.tables import HeadTables, Tables

FORMAT = "regard atlas 1"
METADATA = b"regard.atlas"


def tables_to_lists(tables: Tables) -> dict[str, dict[str, list[list[float | None]]]]:
    """Numbers by part and score as lists of layers; None for one that a head does not have."""
    return {
        part: {name: [[_number(value) for value in layer] for layer in table.tolist()] for name, table in named.items()}
        for part, named in tables.items()
    }


def _number(value: float) -> float | None:
    """A number with as many digits as float32 has; None for nan and infinity, which JSON does not have."""
    return float(f"{value:.9g}") if value - value == 0 else None


def to_dict(atlas: Atlas) -> dict[str, Any]:
    """An atlas as plain lists and numbers for JSON."""
    return {"format": FORMAT, **_described(atlas), "scores": tables_to_lists(atlas.scores)}


def _described(atlas: Atlas) -> dict[str, Any]:
    """All of an atlas but its scores."""
    return {
        "model": atlas.model,
        "fingerprint": atlas.fingerprint,
        "tokens": dict(atlas.tokens),
        "seed": atlas.seed,
        "note": atlas.note,
        "proofs": [proof_to_dict(proof) for proof in atlas.proofs],
        "examples": [example._asdict() for example in atlas.examples],
    }


def proof_to_dict(proof: Proof) -> dict[str, Any]:
    """A proof as JSON, with its verdict and its sentence, which are not read again."""
    before = [None if math.isnan(loss) else loss for loss in proof.before]  # to the last bit: a run goes on from it
    return {**asdict(proof), "before": before, "verdict": proof.verdict, "sentence": proof.sentence}


def proof_from_dict(content: Mapping[str, Any]) -> Proof:
    """The proof again. Raises KeyError, TypeError or ValueError for anything else."""
    given = {name: value for name, value in content.items() if name not in ("verdict", "sentence")}
    before, elsewhere = given["before"]
    return Proof(
        **{
            **given,
            "heads": [(int(layer), int(head)) for layer, head in given["heads"]],
            "before": (before, math.nan if elsewhere is None else elsewhere),
            "effects": [Effect(**effect) for effect in given["effects"]],
        }
    )


def to_parquet(tables: HeadTables, atlas: Atlas | None) -> bytes:
    """The content of a Parquet file with the table and, of an atlas, everything else in its metadata."""
    import pyarrow.parquet as pq

    table = to_arrow(tables.columns())
    if atlas is not None:
        shapes = {part: [*named.items()] for part, named in atlas.scores.items()}
        sizes = {part: {name: list(numbers.shape) for name, numbers in named} for part, named in shapes.items()}
        content = {"format": FORMAT, **_described(atlas), "shapes": sizes}
        table = table.replace_schema_metadata({METADATA: json.dumps(content, ensure_ascii=False).encode()})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def read(path: Path) -> dict[str, Any]:
    """The arguments of `Atlas` from a file that it was saved to.

    Raises ValueError for a file that is no atlas or is damaged, and OSError where there is none.
    """
    suffix = path.suffix.lower()
    if suffix not in (".json", ".parquet"):
        raise ValueError(f"An atlas is read from a .json or .parquet file. Got {str(path)!r}.")
    content = read_json(path) if suffix == ".json" else _read_parquet(path)
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} is no atlas: expected the format {FORMAT!r}. Got {content.get('format')!r}.")
    try:
        return _arguments(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: it holds no atlas ({type(error).__name__}: {error}).") from None


def _arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    scores = {
        str(part): {str(name): _table(rows) for name, rows in named.items()}
        for part, named in content["scores"].items()
    }
    return {
        "model": str(content["model"]),
        "fingerprint": str(content["fingerprint"]),
        "scores": scores,
        "proofs": [proof_from_dict(proof) for proof in content["proofs"]],
        "tokens": {str(kind): int(count) for kind, count in content["tokens"].items()},
        "seed": int(content["seed"]),
        "note": str(content["note"]),
        "examples": [
            Example(**{**example, "attends_to": [(str(word), float(weight)) for word, weight in example["attends_to"]]})
            for example in content["examples"]
        ],
    }


def _table(rows: Any) -> torch.Tensor:
    table = torch.tensor([[float("nan") if value is None else float(value) for value in row] for row in rows])
    if table.ndim != 2:
        raise ValueError("expected a number for each layer and head")
    return table


def _read_parquet(path: Path) -> dict[str, Any]:
    """The content of a Parquet file as that of a JSON file."""
    pa = require_pyarrow()
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
        content: dict[str, Any] = json.loads((table.schema.metadata or {})[METADATA])
        scores = {
            part: {name: torch.full(tuple(size), torch.nan) for name, size in sizes.items()}
            for part, sizes in content["shapes"].items()
        }
        for row in table.to_pylist():
            scores[row["part"]][row["score"]][row["layer"], row["head"]] = row["value"]
    except (pa.ArrowException, KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is no atlas, or is damaged ({type(error).__name__}: {error}).") from None
    return {**content, "scores": tables_to_lists(scores)}
