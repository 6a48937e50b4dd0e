"""Opening a model by name, by folder, or from memory: decides who opens it.

BERT's family is opened and computed by regard (native.py); every other model, and a folder of BERT's family with
settings that only transformers knows, by transformers (hub.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from regard.models import native, smollm2
from regard.models.errors import adapter_error, check_not_pickled
from regard.models.model import Model
from regard.models.pooling import pooling_config


def open_model(
    model: str | os.PathLike[str] | tuple[object, object] | None = None,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
) -> Model:
    """Open a model to read texts with.

    Args:
        model: None for the embedded model; a folder; the name of an embedded model, or of one on the Hugging Face hub;
            or a (model, tokenizer) pair of transformers.
        revision: the branch, tag or commit of a model on the hub.
        allow_pickle: whether pickled weights may be opened, which can run any code.

    Raises:
        ValueError: the model is damaged, or its attention cannot be seen.
        PickledWeightsError: its weights are pickled and `allow_pickle` is false; a ValueError.
        OSError: there is no such model, or it cannot be fetched.
        ImportError: the embedded model, or the embedded decoder, is not installed.
    """
    from regard.models import hub  # here, so that `import regard` is fast
    from regard.models.reader import missing_tokenizer_error, unwrapped
    from regard.nn import checkpoint

    if isinstance(model, tuple) and len(model) == 2:
        wrapped, tokenizer = model
        inner = unwrapped(wrapped)
        return hub.from_memory(inner, tokenizer, getattr(inner, "name_or_path", "") or type(inner).__name__)
    if model is not None and not isinstance(model, str | os.PathLike):
        raise missing_tokenizer_error(model)
    folder = None if model is None else checkpoint.local_folder(model)
    if folder is not None:
        return _from_folder(folder, allow_pickle)
    if model is None or str(model) == native.EMBEDDED:
        return native.embedded()
    if str(model) == smollm2.EMBEDDED_DECODER:
        return hub.from_folder(smollm2.embedded_decoder_folder())
    return hub.from_name(str(model), revision, allow_pickle)


def _from_folder(folder: Path, allow_pickle: bool) -> Model:
    from regard.models import hub
    from regard.nn import checkpoint
    from regard.nn.layers import ACTIVATIONS

    pooling = pooling_config(folder)
    root = folder / pooling.root if pooling else folder
    if not (root / "config.json").is_file():
        raise OSError(f"{root} is not a model: it has no config.json.")
    if (root / "adapter_config.json").is_file():
        raise adapter_error(str(root))
    if not allow_pickle:
        check_not_pickled(root)
    files = "tokenizer.json", "model.safetensors"
    changed = pooling is not None and (pooling.config_kwargs or pooling.model_kwargs.keys() & {"dtype", "torch_dtype"})
    opened = None
    if (
        not changed
        and checkpoint.incompatibility(root, ACTIVATIONS) is None
        and all((root / file).is_file() for file in files)
    ):
        opened = native.from_folder(folder, folder.resolve().name)
    return opened or hub.from_folder(folder, allow_pickle)
