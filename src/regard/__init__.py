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

from regard.attention import Attention, attention
from regard.lens import Embeddings, Lens, Reading, Walk
from regard.weights import Map, Weights

__all__ = ["Attention", "Embeddings", "Lens", "Map", "Reading", "Walk", "Weights", "attention"]

__version__ = "0.1.0"
