"""Maps of the attentions of twenty families of transformers, against those of eager attention."""

import pytest
import torch
import transformers
from test_map import check_reductions

import families
import regard.hf
from support.families import table, tiny

KINDS = [
    "BertModel", "RobertaModel", "DistilBertModel", "ElectraModel", "AlbertModel", "ModernBertModel", "GPT2Model",
    "GPTNeoXModel", "LlamaModel", "MistralModel", "MixtralModel", "Qwen2Model", "Qwen3Model", "GemmaModel", "Gemma2Model",
    "PhiModel", "OPTModel", "T5Model", "BartModel", "GptOssModel", "CohereModel", "ViTModel",
]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_maps_of_a_family(name):
    kind = getattr(transformers, name)
    config = tiny.tiny_config(kind, table.CONFIGS.get(name, {}))
    config._attn_implementation = "eager"
    model = tiny.build(kind, config)
    arguments, options = tiny.inputs(model, table.INPUTS.get(name, {}))
    calls = families.variants(model, arguments, options)
    expected = families.observe(calls["plain"], model).attentions
    model.set_attn_implementation("regard")
    with regard.hf.record() as attentions, torch.no_grad():
        calls["plain"]()
    assert len(attentions) == len(expected) > 0
    for (_, attention), (_, eager) in zip(attentions, expected, strict=True):
        heads, value, output = eager.shape[1], attention.value, attention.output
        repeated = value.double().repeat_interleave(heads // value.shape[1], 1)
        # Eager's scores are rounded in float32, and their weights with them, in proportion to the largest.
        tolerance = 1e-5 + 2 * torch.finfo(torch.float32).eps * float(attention.weights.max_score().abs().max())
        lengths = value.norm(dim=-1, keepdim=True)
        dense = eager.double() * repeated.norm(dim=-1)[:, :, None]
        check_reductions(attention.weights.times(key=lengths), dense, tolerance)
        matrix = attention.weights.times(query=output, key=value, activation="relu")
        check_reductions(matrix, eager.double() * (output.double() @ repeated.mT).relu(), tolerance)
        gram = torch.einsum("bhkf,bgkf->bkhg", repeated, repeated)
        dense = torch.einsum("bhqk,bhkf->bqkf", eager.double(), repeated).norm(dim=-1)
        check_reductions(attention.weights.combined(gram.float()), dense, tolerance)
