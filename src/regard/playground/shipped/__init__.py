"""Two small models that come with the package, trained here on text that was made here.

stories: a decoder of Llama's shape (5 layers, 8 heads, 4 of keys and values, dim 64, 512 tokens), trained by `regard
train --decoder` on the stories of `regard.playground.stories`; `regard.Lens` and transformers open its folder.
dates: an encoder-decoder (2 layers each, 2 heads, dim 64), trained by `regard race --task dates` to write a date as
YYYY-MM-DD; `regard.race.kept.load` opens its folder.

`python -m regard.playground.shipped FOLDER` makes both again, in a quarter of an hour on one core. Weights are float16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

ShippedName = Literal["stories", "dates"]


def folder(name: ShippedName) -> Path:
    """The folder of a model that comes with the package.

    >>> import regard
    >>> regard.Lens(folder("stories")).generate("Tom was sad because he could not find", 5).finish().text
    'Tom was sad because he could not find his drum'
    >>> from regard.race import kept
    >>> "".join(kept.load(folder("dates")).write("the 3rd of March 1987"))
    '1987-03-03'
    """
    return Path(__file__).parent / name
