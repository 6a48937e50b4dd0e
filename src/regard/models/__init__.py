"""Opening models: a name, a folder or a (model, tokenizer) pair in, a `Model` out.

| file | what it does |
|---|---|
| opening.py | `open_model`: decides who opens it |
| native.py, packed.py, linear.py | BERT's family, the embedded model among it, computed by regard itself |
| smollm2.py | the embedded decoder, converted once into the user's cache |
| hub.py, reader.py, hidden_states.py | every other model, computed by transformers |
| model.py, tokenizer.py, pooling.py | what both share: the `Model`, its tokenizer, how it pools sentence vectors |
| decoder.py | the decoder of an encoder-decoder, as a causal model once it has read a source |
| head.py | what makes logits of final states, and the norm before it |
| projections.py | which modules of a layer make query, key and value |

Public names: `open_model`, `Model`, `PickledWeightsError`, `EMBEDDED` and `EMBEDDED_DECODER` (the names of
the embedded models), `embedded_folder()` and `embedded_decoder_folder()` (where their files are).
"""

from regard.models.errors import PickledWeightsError
from regard.models.model import Model
from regard.models.native import EMBEDDED, embedded_folder
from regard.models.opening import open_model
from regard.models.smollm2 import EMBEDDED_DECODER, embedded_decoder_folder

__all__ = [
    "EMBEDDED",
    "EMBEDDED_DECODER",
    "Model",
    "PickledWeightsError",
    "embedded_decoder_folder",
    "embedded_folder",
    "open_model",
]
