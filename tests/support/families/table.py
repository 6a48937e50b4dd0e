"""What the rules of tiny.py cannot guess: changes to configurations and inputs, by the model's class.

A change to a configuration is a value, or a dictionary of changes for a configuration inside; "__init__" holds what the
class needs before anything can be shrunk. An input is a value, or a function of tiny.Candidates.
"""

from __future__ import annotations

import importlib
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


_DIFFUSION = {"head_dim": 32, "global_head_dim": 64, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}
_SERIES = {
    "__init__": {"prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2]},
    "num_time_features": 2,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
}
_SERIES_INPUTS = {
    "past_values": lambda c: c.noise(3, 14),
    "past_time_features": lambda c: c.noise(3, 14, 2),
    "past_observed_mask": torch.ones(3, 14),
    "future_values": lambda c: c.noise(3, 4),
    "future_time_features": lambda c: c.noise(3, 4, 2),
}


_DETECTION = {"out_indices": [2, 3, 4]}
_RT_DETR = {
    "backbone_config": _DETECTION
    | {"embedding_size": 16, "hidden_sizes": [16, 16, 32, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"},
    "encoder_in_channels": [16, 32, 64],
    "num_queries": 20,
}
_HGNET = {"backbone_config": _DETECTION, "num_queries": 20}


_SAM3 = {
    "geometry_encoder_config": {"hidden_size": 256},
    "detr_encoder_config": {"hidden_size": 256},
    "detr_decoder_config": {"hidden_size": 256},
    "mask_decoder_config": {"hidden_size": 256},
}
_SAM3_TRACKER = {
    "vision_config": {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]},
    "prompt_encoder_config": {"image_size": 56, "hidden_size": 256},
    "mask_decoder_config": {"hidden_size": 256},
}
_SAM2_VIDEO = {
    "vision_config": {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]},
    "prompt_encoder_config": {"image_size": 64, "hidden_size": 256},
    "mask_decoder_config": {"hidden_size": 256},
    "image_size": 64,
}


def _mrope(*sections: int) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sections)}}


def _places(batch: int, patches: int) -> torch.Tensor:
    """The row and the column of every patch of an image, from 1."""
    places = torch.arange(patches)
    return torch.stack([1 + places // 3, 1 + places % 3], -1).float().expand(batch, -1, -1)


def _session(family: str, name: str, side: int):
    """A video of one frame, with a point in it."""

    def session(c: Any) -> Any:
        module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        video = getattr(module, name)(c.noise(1, 3, side, side), side, side, dtype=torch.float32)
        point = {"point_coords": torch.full((1, 1, 1, 2), side / 2), "point_labels": torch.ones(1, 1, 1).int()}
        video.add_point_inputs(video.obj_id_to_idx(1), 0, point)
        video.obj_with_new_inputs = [1]
        return video

    return session


def _frames(channels: int, frames: int):
    return lambda c: c.noise(3, channels, frames)


# Families that have attention in their head only, or no class without one.
HEADED = {
    "Pop2PianoForConditionalGeneration",
    "PPOCRV5MobileRecForTextRecognition",
    "PPOCRV5ServerRecForTextRecognition",
    "PPOCRV6SmallRecForTextRecognition",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "BambaModel": {"attn_layer_indices": [1]},
    "ChameleonModel": {"__init__": {"vocabulary_map": _IMAGE_TOKENS}},
    "Emu3Model": {"__init__": {"vocabulary_map": _IMAGE_TOKENS}},
    "ConditionalDetrModel": _DETR,
    "DeformableDetrModel": _DETR,
    "DetrModel": _DETR,
    "ClapModel": {"audio_config": {"hidden_size": 768}},
    "DbrxModel": {
        "__init__": {"attn_config": {"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 10000.0}},
        "attn_config": {"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 10000.0},
    },
    "DFineModel": _HGNET,
    "Deimv2Model": _HGNET,
    "NeuCodecModel": {"hidden_size": 256, "quantization_dim": 512},
    "Xcodec2Model": {"hidden_size": 256, "quantization_dim": 512},
    "FunAsrNanoModel": {
        "adaptor_config": {"hidden_size": 128, "intermediate_size": 32},
        "text_config": {"hidden_size": 128},
    },
    "Gemma3nTextModel": {"num_kv_shared_layers": 0},
    "GraniteSpeech5Encoder": {"context_size": 8},
    "IdeficsModel": {"vision_config": {"embed_dim": 64}},
    "LwDetrModel": {"backbone_config": {"out_indices": [1, 2]}, "projector_scale_factors": [1.0], "num_queries": 10},
    "MoonshineModel": {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
    "PatchTSMixerModel": {"self_attn": True, "num_layers": 2},
    "PPDocLayoutV2Model": _HGNET,
    "PPDocLayoutV3Model": _HGNET | {"backbone_config": {"out_indices": [1, 2, 3, 4]}},
    "PPDocLayoutV4Model": _HGNET,
    "RTDetrModel": _RT_DETR,
    "RTDetrV2Model": _RT_DETR,
    "RecurrentGemmaModel": {"num_hidden_layers": 3},
    "EdgeTamVideoModel": _SAM2_VIDEO | {"perceiver_resampler_num_latents_2d": 4},
    "Sam2VideoModel": _SAM2_VIDEO,
    "Sam2Model": _SAM2_VIDEO,
    "Sam2HieraDetModel": {"image_size": [64, 64]},
    "Sam2VisionModel": {
        "backbone_config": {"image_size": [64, 64]},
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "Sam3Model": _SAM3,
    "Sam3LiteTextModel": _SAM3,
    "Sam3TrackerModel": _SAM3_TRACKER,
    "Sam3TrackerVideoModel": _SAM3_TRACKER | {"image_size": 56},
    "Sapiens2Model": {"num_key_value_heads_per_layer": [4, 2]},
    "SwinModel": {"image_size": 56, "depths": [2, 2], "num_heads": [2, 4], "embed_dim": 32},
    "VitPoseBackbone": {"image_size": [64, 64]},
    "VJEPA2Model": {"crop_size": 32, "frames_per_clip": 4},
    "XmodModel": {"default_language": "en_XX"},
    "ZambaModel": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "DiffusionGemmaEncoderTextModel": _DIFFUSION,
    "DiffusionGemmaModel": {"text_config": _DIFFUSION, "canvas_length": 8},
    "DeepseekOcr2TextModel": {"layer_types": ["full_attention", "full_attention"], "head_dim": 32},
    "DeepseekV2Model": {"__init__": {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1}},
    "DINOv3ViTModel": {"image_size": 64},
    "Dots1Model": {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1},
    "EsmModel": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 2},
    "Glm4vTextModel": _mrope(16, 24, 24),
    "Glm4vModel": {"text_config": _mrope(16, 24, 24)},
    "Glm4vMoeTextModel": _mrope(4, 6, 6),
    "Glm4vMoeModel": {"text_config": _mrope(4, 6, 6)},
    "Glm5NextTextModel": {"index_topk": 4, "index_kpool": 2},
    "Glm5NextModel": {"text_config": {"index_topk": 4, "index_kpool": 2}},
    "GlmImageTextModel": _mrope(16, 24, 24),
    "GlmImageModel": {"text_config": _mrope(16, 24, 24)},
    "HunYuanDenseV1Model": {"head_dim": 32},
    "HunYuanMoEV1Model": {"head_dim": 32},
    "HunYuanVLTextModel": {"head_dim": 32},
    "HunYuanVLModel": {"text_config": {"head_dim": 32}},
    "InformerModel": _SERIES,
    "SamModel": {"mask_decoder_config": {"hidden_size": 256}},
    "SamHQModel": {"mask_decoder_config": {"hidden_size": 256}},
    "TimeSeriesTransformerModel": _SERIES,
    "Lfm2MoeModel": {"__init__": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}},
    "MimiModel": {"hidden_size": 512},
    "MimiDecoderModel": {"hidden_size": 512},
    "MinistralModel": {"head_dim": 32},
    "NemotronModel": {"num_key_value_heads": 2},
    "NemotronHModel": {"mamba_num_heads": 4, "mamba_head_dim": 64, "n_groups": 2},
    "GraniteMoeHybridModel": {"layer_types": ["mamba", "attention"]},
}
INPUTS: dict[str, dict[str, Any]] = {
    "FunAsrNanoEncoder": {
        "input_features": lambda c: c.noise(3, 48, 560),
        "input_features_mask": (torch.arange(48) < torch.tensor([48, 30, 10])[:, None]).long(),
    },
    "GraniteSpeech5Encoder": {"input_features": lambda c: c.noise(3, 60, 320)},
    "GraniteSpeech5ForCTC": {"input_features": lambda c: c.noise(3, 60, 320)},
    "IdeficsModel": {
        "input_ids": lambda c: c.ids(),
        "pixel_values": lambda c: c.noise(3, 1, 3, 56, 56),
        "image_attention_mask": torch.ones(3, 11, 1, dtype=torch.long),
    },
    "NeuCodecModel": {"input_values": lambda c: c.noise(3, 1, 3840), "input_features": lambda c: c.noise(3, 12, 160)},
    "Xcodec2Model": {"input_values": lambda c: c.noise(3, 1, 3840), "input_features": lambda c: c.noise(3, 12, 160)},
    "Pix2StructForConditionalGeneration": {
        "flattened_patches": lambda c: torch.cat([_places(3, 7), c.noise(3, 7, c.size("patch_embed_hidden_size"))], -1),
        "decoder_input_ids": lambda c: c.ids(),
    },
    "Pix2StructVisionModel": {
        "flattened_patches": lambda c: torch.cat([_places(3, 7), c.noise(3, 7, c.size("patch_embed_hidden_size"))], -1)
    },
    "Pop2PianoStack": {"input_ids": lambda c: c.ids(), "use_cache": False},
    "Pop2PianoForConditionalGeneration": {
        "input_features": lambda c: c.noise(3, 9, c.size("d_model")),
        "decoder_input_ids": lambda c: c.ids(),
    },
    "EdgeTamVideoModel": {
        "inference_session": _session("edgetam_video", "EdgeTamVideoInferenceSession", 64),
        "frame_idx": 0,
    },
    "Sam2VideoModel": {"inference_session": _session("sam2_video", "Sam2VideoInferenceSession", 64), "frame_idx": 0},
    "Sam3TrackerVideoModel": {
        "inference_session": _session("sam3_tracker_video", "Sam3TrackerVideoInferenceSession", 56),
        "frame_idx": 0,
    },
    "Sam3Model": {"pixel_values": lambda c: next(c.images()), "input_ids": lambda c: c.ids()},
    "Sam3LiteTextModel": {"pixel_values": lambda c: next(c.images()), "input_ids": lambda c: c.ids()},
    "SwinModel": {"pixel_values": lambda c: c.noise(3, 3, 56, 56)},
    "UdopModel": {
        "input_ids": lambda c: c.ids(),
        "bbox": lambda c: c.noise(3, 11, 4).sigmoid(),
        "decoder_input_ids": lambda c: c.ids(),
    },
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
    "DiaDecoder": {"input_ids": lambda c: c.ids(11 * c.size("num_channels")).view(3, 11, -1)},
    "DecisionTransformerModel": {
        "states": lambda c: c.noise(3, 5, c.size("state_dim")),
        "actions": lambda c: c.noise(3, 5, c.size("act_dim")),
        "rewards": lambda c: c.noise(3, 5, 1),
        "returns_to_go": lambda c: c.noise(3, 5, 1),
        "timesteps": torch.arange(5).expand(3, 5),
        "attention_mask": torch.ones(3, 5),
    },
    "Gemma3nAudioEncoder": {
        "audio_mel": lambda c: c.noise(3, 64, 128),
        "audio_mel_mask": torch.zeros(3, 64, dtype=torch.bool),
    },
    "Gemma4AudioModel": {"input_features": lambda c: c.noise(3, 64, 128), "attention_mask": torch.ones(3, 64).bool()},
    "Gemma4VisionModel": {
        "pixel_values": lambda c: c.noise(3, 36, 3 * c.size("patch_size") ** 2),
        "pixel_position_ids": torch.stack(torch.meshgrid(torch.arange(6), torch.arange(6), indexing="xy"), -1)
        .reshape(1, 36, 2)
        .repeat(3, 1, 1),
    },
    "GitModel": {"input_ids": lambda c: c.ids(), "pixel_values": lambda c: next(c.images())},
    "InformerModel": _SERIES_INPUTS,
    "TimeSeriesTransformerModel": _SERIES_INPUTS,
    "KyutaiSpeechToTextModel": {"input_ids": lambda c: c.ids(11 * 33).view(3, 11, 33)},
    "MusicgenDecoder": {"input_ids": lambda c: c.ids().repeat(4, 1)},
    "MusicgenMelodyDecoder": {"input_ids": lambda c: c.ids().repeat(4, 1)},
    "MuseGlimmerAssistantModel": {
        "noise_embeds": lambda c: c.noise(3, 4, c.size("hidden_size")),
        "context_hidden_states": lambda c: c.noise(3, 7, len(c.config.target_layer_ids) * c.size("hidden_size")),
    },
    "MoshiDepthDecoder": {
        "input_ids": lambda c: c.ids(6),
        "last_hidden_state": lambda c: c.noise(3, 1, c.size("input_size")),
    },
    "TimesFmModel": {
        "past_values": lambda c: c.noise(3, 512),
        "past_values_padding": (torch.arange(512) < torch.tensor([0, 100, 400])[:, None]).long(),
        "freq": torch.zeros(3, 1, dtype=torch.long),
    },
}
