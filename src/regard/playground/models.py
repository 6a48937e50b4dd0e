"""Which models a playground has: the embedded encoder, those that come with regard, or a model of one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from regard._internal.files import read_json
from regard.playground import weights
from regard.playground.weights import Architecture, ModelFile

Example = tuple[str, str | None]  # a text, and a second one, or None

# By the name of its file, the texts that a visitor can begin with.
EXAMPLES: dict[str, tuple[Example, ...]] = {
    "encoder": (
        ("Time flies like an arrow", None),
        ("Fruit flies like a banana", None),
        ("The animal didn't cross the street because it was too tired", None),
    ),
    "stories": (("Once upon a time, there was a little", None),),
    "dates": (("the 3rd of March 1987", None), ("July 4, 1999", None)),
}
_NAMES: dict[Architecture, str] = {"encoder": "encoder", "decoder": "stories", "encoder-decoder": "dates"}
_EXACTNESS = {"int8": "8 bits", "float16": "16 bits"}


@dataclass(frozen=True)
class SiteModel:
    """A model of a site.

    Attributes:
        name: of its file, and in the page's address.
        source: the model, or its file as it is copied.
    """

    name: str
    source: ModelFile | Path

    def write(self, path: Path) -> dict[str, Any]:
        """Write its file, and return what the page's manifest says of it."""
        if isinstance(self.source, Path):
            path.write_bytes(self.source.read_bytes())
        else:
            weights.write(self.source, path)
        return _described(self.name, path)


def models(own: Sequence[str] = ()) -> list[SiteModel]:
    """The models of a site: one's own in the place of the usual ones of their architecture, and before them.

    Raises:
        ValueError: The page cannot run a model; the message says why. OSError: There is no such model.
        ImportError: The embedded encoder is not installed.
    """
    chosen: dict[str, SiteModel] = {}
    for model in own:
        file = own_model(model)
        name = _NAMES[file.architecture]
        if name in chosen:
            raise ValueError(
                f"{model}: the playground has a place for one {file.architecture}, which is taken already."
            )
        chosen[name] = SiteModel(name, file)
    if "encoder" not in chosen:
        from regard.models.native import EMBEDDED, embedded_folder

        chosen["encoder"] = SiteModel("encoder", weights.encoder_file(embedded_folder(), EMBEDDED))
    for name in ("stories", "dates"):
        file_of = Path(str(resources.files("regard.playground").joinpath("shipped", f"{name}.js")))
        if name not in chosen and file_of.is_file():
            chosen[name] = SiteModel(name, file_of)
    return list(chosen.values())


def own_model(model: str) -> ModelFile:
    """A model of BERT's family, of a folder or the Hugging Face Hub, for the page.

    Raises:
        ValueError: The page cannot run it; the message says why. OSError: There is no such model.
    """
    from regard.nn import checkpoint

    folder = checkpoint.fetch(model)
    read_json(folder / "config.json")  # a folder without one is no model
    return weights.encoder_file(folder, Path(model).resolve().name if folder == Path(model) else model)


def _described(name: str, path: Path) -> dict[str, Any]:
    """What the manifest says of a model's file."""
    text = path.read_bytes()
    content = json.loads(text[text.index(b"(") + 1 : text.rindex(b")")])
    kinds = {tensor["type"] for tensor in content["tensors"]}
    rounding = next((words for kind, words in _EXACTNESS.items() if kind in kinds), None)
    return {
        "label": content["name"],
        "architecture": content["architecture"],
        "exactness": "" if rounding is None else f"weights rounded to {rounding}",
        "examples": [{"text": text, "pair": pair} for text, pair in EXAMPLES[name]],
    }
