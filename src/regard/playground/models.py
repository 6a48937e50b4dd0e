"""Which models a playground has: the embedded encoder, those that come with regard, or a model of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard._internal.files import read_json
from regard.playground import shipped, weights
from regard.playground.weights import Architecture, ModelFile

Example = tuple[str, str | None]  # a text, and a second one, or None

# By the name of its file, the texts that a visitor can begin with.
EXAMPLES: dict[str, tuple[Example, ...]] = {
    "encoder": (
        ("Time flies like an arrow", None),
        ("Fruit flies like a banana", None),
        ("The animal didn't cross the street because it was too tired", None),
    ),
    "stories": (("Once upon a time there was a little girl named Mia. One day, Mia", None),),
    "dates": (("the 3rd of March 1987", None), ("July 4, 1999", None)),
}
_NAMES: dict[Architecture, str] = {"encoder": "encoder", "decoder": "stories", "encoder-decoder": "dates"}
_PRECISION = {"int8": "8 bits", "float16": "16 bits"}


@dataclass(frozen=True)
class SiteModel:
    """A model of a site.

    Attributes:
        name: of its file, and in the page's address.
        file: what is written there.
        usual: whether it is one of the models that the lesson is about.
    """

    name: str
    file: ModelFile
    usual: bool = True

    def write(self, path: Path) -> dict[str, Any]:
        """Write its file, and return what the page's manifest says of it."""
        digest = weights.write(self.file, path)
        precision = _PRECISION.get(self.file.precision)
        return {
            "digest": digest,
            "bytes": path.stat().st_size,
            "label": self.file.name,
            "architecture": self.file.architecture,
            "exactness": "" if precision is None else f"parameters rounded to {precision}",
            "examples": [{"text": text, "pair": pair} for text, pair in EXAMPLES[self.name]],
        }


def models(own: Sequence[str] = ()) -> list[SiteModel]:
    """The models of a site: one's own in the place of the usual ones of their architecture, and before them.

    Args:
        own: Names on the Hugging Face Hub, or folders: an encoder, a decoder, or one of each.

    Raises:
        ValueError: The page cannot run a model; the message says why. OSError: There is no such model.
        ImportError: The embedded encoder is not installed.

    >>> [(model.name, model.file.architecture) for model in models()]
    [('encoder', 'encoder'), ('stories', 'decoder'), ('dates', 'encoder-decoder')]
    """
    chosen: dict[str, SiteModel] = {}
    for model in own:
        file = own_model(model)
        name = _NAMES[file.architecture]
        if name in chosen:
            raise ValueError(f"{model}: the playground has one {file.architecture}, which is {own[0]} already.")
        chosen[name] = SiteModel(name, file, usual=False)
    if "encoder" not in chosen:
        from regard.models.native import EMBEDDED, embedded_folder

        chosen["encoder"] = SiteModel("encoder", weights.encoder_file(embedded_folder(), EMBEDDED))
    if "stories" not in chosen:
        chosen["stories"] = SiteModel("stories", weights.decoder_file(shipped.folder("stories"), "stories"))
    chosen["dates"] = SiteModel("dates", weights.translator_file(shipped.folder("dates"), "dates"))
    return list(chosen.values())


def own_model(model: str) -> ModelFile:
    """A model of BERT's family or of Llama's, of a folder or the Hugging Face Hub, for the page.

    Raises:
        ValueError: The page cannot run it; the message says why. OSError: There is no such model.
    """
    from regard.nn import checkpoint

    folder = checkpoint.fetch(model)
    if not (folder / "config.json").is_file():
        raise OSError(f"{model} is not a model: it has no config.json.")
    kind = read_json(folder / "config.json").get("model_type")
    name = folder.resolve().name if Path(model).is_dir() else model
    try:
        if kind == "llama":
            return weights.decoder_file(folder, name)
        if kind in checkpoint.FAMILIES:
            return weights.encoder_file(folder, name)
        raise ValueError(f"The page runs encoders of BERT's family and decoders of Llama's, and no {kind!r}.")
    except ValueError as error:
        raise ValueError(f"{model} cannot run in the page. {error}") from error
