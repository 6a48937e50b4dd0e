"""Why a model cannot be opened: errors in one plain line, whatever transformers or the hub raised."""

from __future__ import annotations

from pathlib import Path


class PickledWeightsError(OSError, ValueError):
    """The weights of a model are pickled, and the caller has not allowed that: opening a pickle can run any code.

    An OSError, as no file can be read, and a ValueError, as `allow_pickle` is wrong for it; as io.UnsupportedOperation.

    >>> import tempfile, regard
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text('{"model_type": "bert"}')
    ...     _ = Path(folder, "pytorch_model.bin").write_bytes(b"")
    ...     try:
    ...         regard.Lens(folder)
    ...     except OSError as error:
    ...         print(type(error).__name__)
    PickledWeightsError
    """


def adapter_error(place: str) -> ValueError:
    """The error for a folder that holds a PEFT adapter, whose weights regard does not add to the model's."""
    return ValueError(
        f"{place} holds a PEFT adapter, which regard does not apply to the weights. Merge it into the model first, "
        "with merge_and_unload() and save_pretrained()."
    )


def check_not_pickled(folder: Path) -> None:
    """Raise `PickledWeightsError` for a folder that has pickled weights and none in safetensors."""
    names = sorted(path.name for path in folder.iterdir())
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")) and "model" in name]
    if pickled and not any(name.endswith(".safetensors") for name in names):
        raise PickledWeightsError(
            f"{folder}: its weights are pickled ({pickled[0]}), and opening a pickle can run any code. "
            "Save them as safetensors, or pass allow_pickle=True if you trust the file."
        )


def opening_error(name: str, error: Exception) -> OSError | ValueError:
    """What to raise where transformers could not open a model: OSError for files and network, else ValueError."""
    text = str(error).strip()
    if "safetensors" in text and isinstance(error, OSError):
        return PickledWeightsError(
            f"{name}: its weights are not in safetensors. Pickled weights can run any code; pass allow_pickle=True if "
            "you trust them."
        )
    if isinstance(error, OSError) and any(
        sign in text.lower() for sign in ("connect", "offline", "couldn't reach", "resolve", "cached")
    ):
        return OSError(f"{name} is neither a folder nor in the local cache, and the hub cannot be reached to fetch it.")
    if "instantiate the backend tokenizer" in text:
        message = f"{name}: it has no tokenizer, or one that cannot be opened: its folder lacks tokenizer.json."
    else:
        message = f"{name} cannot be opened: {text.splitlines()[0] if text else type(error).__name__}"
    return OSError(message) if isinstance(error, OSError) else ValueError(message)
