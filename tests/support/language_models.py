"""Small random GPT-2s and Llamas of transformers for `regard.nn.LanguageModel`, saved with settings changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

CONFIGS = {
    "gpt2": transformers.GPT2Config(vocab_size=41, n_embd=24, n_layer=3, n_head=3, n_positions=40),
    "gpt2-untied": transformers.GPT2Config(
        vocab_size=41, n_embd=20, n_layer=2, n_head=2, n_positions=40, n_inner=31, activation_function="relu",
        layer_norm_epsilon=1e-3, tie_word_embeddings=False,
    ),
    "llama": transformers.LlamaConfig(
        vocab_size=41, hidden_size=48, intermediate_size=50, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rms_norm_eps=1e-4,
    ),
    "tied": transformers.LlamaConfig(
        vocab_size=41, hidden_size=32, intermediate_size=17, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    ),
    "mistral": transformers.MistralConfig(
        vocab_size=41, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, head_dim=8, sliding_window=None,
    ),
}  # fmt: skip


def random_model(name: str) -> Any:
    torch.manual_seed(2)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2).add_(parameter.ndim == 1)
    return model


def save(folder: Path, name: str, **changes: Any) -> Path:
    """Saves a model and changes its config.json, in which ... removes a setting; returns the folder."""
    transformers.utils.logging.disable_progress_bar()
    random_model(name).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
