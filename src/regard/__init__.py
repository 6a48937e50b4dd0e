"""Self-attention you can look inside.

The core raises Python's own errors, and the rest of the library subclasses of them, so that `except ValueError` catches
what can be mended by other arguments or other texts. Every message has the call, what was expected and what was given.

    ValueError                a shape, number, name or text that cannot be used; a backend= that cannot serve; a matrix
    │                         that is larger than the limit of dense()
    ├── RejectedTextsError    texts that cannot be embedded, each with its reason (regard.lens.embed)
    ├── BadRecordError        a record of a file that cannot be embedded, with its place (regard.corpus)
    ├── UnknownFormatError    a file of a type that is not known (regard.corpus)
    ├── RunExistsError        a training run that was begun before (regard.train.run)
    ├── OptionMismatchError   a training run that is to be resumed with other options (regard.train.run)
    └── PickledWeightsError   a model that only a pickle holds; an OSError, too (regard.models)
    OSError                   a file or folder that cannot be read or written
    └── FileExistsError
        └── OutputExistsError   an output that exists, or was begun with other options (regard.corpus)
    TypeError                 an argument of a wrong type; a change in place of weights that are not stored
    LookupError               a word that is not in the text
    └── IndexError            a layer, a head, a part of the weights or a sequence of a batch that does not exist
    AttributeError            an attribute that only a stored tensor has
    RuntimeError              a derivative that does not exist; an input that was changed in place; a graph that cannot
                              hold what is computed
    ImportError               an optional dependency that is not installed, with what to install
"""

import gc as _gc
import typing as _python_typing
from importlib import import_module as _import_module

_collects = _gc.isenabled()
_gc.disable()  # else the collector goes again and again through all that torch makes while it is imported, for nothing
try:
    from regard.attention import Attention, attention
    from regard.weights import Map, Weights
finally:
    if _collects:
        _gc.enable()

if _python_typing.TYPE_CHECKING:
    from regard.lens import Embeddings, Lens, Reading, Walk

__all__ = ["Attention", "Embeddings", "Lens", "Map", "Reading", "Walk", "Weights", "attention"]

__version__ = "0.1.0"

_FROM_LENS = ("Embeddings", "Lens", "Reading", "Walk")


def __getattr__(name: str) -> object:
    """What is imported when it is first asked for: attention needs neither models nor tokenizers."""
    if name in ("lens", "models"):
        return _import_module(f"{__name__}.{name}")
    if name not in _FROM_LENS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    lens = _import_module(f"{__name__}.lens")
    for exported in _FROM_LENS:
        globals()[exported] = getattr(lens, exported)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM_LENS})
