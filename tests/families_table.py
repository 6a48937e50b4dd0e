"""What the rules of families_tiny.py cannot guess: changes to configurations and inputs, by the model's class.

A change to a configuration is a value, or a dictionary of changes for a configuration inside; "__init__" holds what the
class needs before anything can be shrunk. An input is a value, or a function of families_tiny.Candidates.
"""

from __future__ import annotations

from typing import Any

import torch

_IMAGE_TOKENS = {"<image>": 4, "IMGIMGA": 5, "IMGIMGB": 6}
_RESNET = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 16, 32, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
_DETR = {"__init__": {"use_timm_backbone": False, "backbone": None, "backbone_config": _RESNET}}


def _frames(channels: int, frames: int):
    return lambda c: c.noise(3, channels, frames)


CONFIGS: dict[str, dict[str, Any]] = {
    "BambaModel": {"attn_layer_indices": [1]},
    "ChameleonModel": {"__init__": {"vocabulary_map": _IMAGE_TOKENS}},
    "Emu3Model": {"__init__": {"vocabulary_map": _IMAGE_TOKENS}},
    "ConditionalDetrModel": _DETR,
    "DeformableDetrModel": _DETR,
    "DetrModel": _DETR,
    "GraniteMoeHybridModel": {"layer_types": ["mamba", "attention"]},
}
INPUTS: dict[str, dict[str, Any]] = {
    "AudioFlamingo3Encoder": {
        "input_features": _frames(128, 3000),
        "input_features_mask": torch.ones(3, 3000, dtype=torch.long),
    },
    "Blip2QFormerModel": {
        "query_embeds": lambda c: c.noise(3, 7, c.size("hidden_size")),
        "encoder_hidden_states": lambda c: c.noise(3, 5, c.size("encoder_hidden_size")),
    },
    "BltModel": {"input_ids": lambda c: c.ids(), "use_cache": False},
    "CsmBackboneModel": {"input_ids": lambda c: c.ids(11 * c.size("num_codebooks")).view(3, 11, -1)},
    "DecisionTransformerModel": {
        "states": lambda c: c.noise(3, 5, c.size("state_dim")),
        "actions": lambda c: c.noise(3, 5, c.size("act_dim")),
        "rewards": lambda c: c.noise(3, 5, 1),
        "returns_to_go": lambda c: c.noise(3, 5, 1),
        "timesteps": torch.arange(5).expand(3, 5),
        "attention_mask": torch.ones(3, 5),
    },
}
