"""Maps of the attentions of twenty-two families of transformers, against dense float64 attention over their inputs."""

import pytest
import torch
import transformers

import families
import regard.hf
from regard.mask import Block
from support.families import table, tiny
from test_map import check_reductions

KINDS = [
    "BertModel", "RobertaModel", "DistilBertModel", "ElectraModel", "AlbertModel", "ModernBertModel", "GPT2Model",
    "GPTNeoXModel", "LlamaModel", "MistralModel", "MixtralModel", "Qwen2Model", "Qwen3Model", "GemmaModel", 
    "Gemma2Model",    "PhiModel", "OPTModel", "T5Model", "BartModel", "GptOssModel", "CohereModel", "ViTModel",
]  # fmt: skip


def dense_weights(scores, sinks):
    """The softmax of the scores in float64: eager's arithmetic, on the queries and keys that the model made here."""
    everything = Block(*(slice(0, size) for size in scores.shape))
    key = scores.key.double().repeat_interleave(scores.n_rep, 1)
    logits = scores.query.double() @ key.mT * scores.scale
    if scores.softcap is not None:
        logits = scores.softcap * torch.tanh(logits / scores.softcap)
    if scores.bias is not None:
        logits = logits + scores.bias.double()
    visible = scores.mask.tile(everything, logits.device)
    if visible is not None:
        logits = logits.masked_fill(~visible, -torch.inf)
    if sinks is None:
        return logits.softmax(-1).nan_to_num(0)
    sinks = sinks.double()[:, None, None].expand(*logits.shape[:3], 1)
    return torch.cat([logits, sinks], -1).softmax(-1)[..., :-1]


@pytest.mark.parametrize("name", KINDS)
def test_maps_of_a_family(name):
    kind = getattr(transformers, name)
    config = tiny.tiny_config(kind, table.CONFIGS.get(name, {}))
    config._attn_implementation = "regard"
    model = tiny.build(kind, config)
    arguments, options = tiny.inputs(model, table.INPUTS.get(name, {}))
    with regard.hf.record() as attentions, torch.no_grad():
        families.variants(model, arguments, options)["plain"]()
    assert attentions
    for _, attention in attentions:
        weights = dense_weights(attention.weights.scores, attention.weights.sinks)
        value, output = attention.value, attention.output
        # A score is rounded in proportion to its size, and a weight by as much: T5 has scores of 40, unscaled.
        tolerance = 1e-5 + torch.finfo(torch.float32).eps * float(attention.weights.max_score().abs().max())
        repeated = value.double().repeat_interleave(weights.shape[1] // value.shape[1], 1)
        lengths = value.norm(dim=-1, keepdim=True)
        dense = weights * repeated.norm(dim=-1)[:, :, None]
        check_reductions(attention.weights.times(key=lengths), dense, tolerance)
        matrix = attention.weights.times(query=output, key=value, activation="relu")
        check_reductions(matrix, weights * (output.double() @ repeated.mT).relu(), tolerance)
        gram = torch.einsum("bhkf,bgkf->bkhg", repeated, repeated)
        dense = torch.einsum("bhqk,bhkf->bqkf", weights, repeated).norm(dim=-1)
        check_reductions(attention.weights.combined(gram.float()), dense, tolerance)
