"""Models of transformers that were once wrong under regard, or did not open: each equal to eager attention."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import masking_utils

import families
import regard
import regard.hf
from regard.mask import both
from support import transformers_models as hf_models
from support.families import tiny

EXACT = {"rtol": 0, "atol": 2e-6}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def batch(tokens: int = 11) -> dict[str, torch.Tensor]:
    """Three sequences, padded on the left."""
    ids = torch.randint(4, 41, (3, tokens), generator=torch.Generator().manual_seed(3))
    real = torch.arange(tokens) >= tokens - torch.tensor([tokens, 7, 2])[:, None]
    return {"input_ids": ids.where(real, 0), "attention_mask": real.long()}


# Families


@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("deepseek_v4", "DeepseekV4Model"),  # concatenates the mask with numbers of its own
        ("bridgetower", "BridgeTowerModel"),  # no mask for images, in modules that say is_causal
        ("diffusion_gemma", "DiffusionGemmaModel"),  # no mask, and a window that is handed over
        ("doge", "DogeModel"),  # makes its own mask out of the one it gets
        ("kosmos2", "Kosmos2TextModel"),  # sums masks
        ("gemma4", "Gemma4VisionModel"),  # asks torch.finfo for the type of its mask
        ("informer", "InformerModel"),  # halves the sequence between layers, if there is no mask
        ("muse_glimmer_assistant", "MuseGlimmerAssistantModel"),  # a mask for fewer keys than there are
        ("nemotron_asr_streaming", "NemotronAsrStreamingEncoder"),
        ("timesfm", "TimesFmModel"),  # rows that see nothing
        ("clip", "CLIPTextModel"),  # pools over such a row
        ("granite_swa", "GraniteSWAModel"),  # sinks that scale the output
        ("deepseek_v32", "DeepseekV32Model"),  # hands over the keys that an indexer chose
        ("minimax_m3_vl", "MiniMaxM3VLTextModel"),  # and blocks of keys
        ("sam", "SamModel"),  # chooses classes by a dictionary of implementations
        ("git", "GitModel"),
        ("x_clip", "XCLIPModel"),  # keeps a changed copy of its configuration
    ],
)
def test_once_wrong(family, model) -> None:
    kind = next((kind for kind in tiny.model_classes(family) if kind.__name__ == model), None)
    if kind is None:
        hf_models.skip_on_old_transformers(LookupError(f"no {model}"))
    verdict = families.judge(kind)
    assert verdict.result == "exact", verdict.detail


def test_what_an_indexer_lets_through_is_visible() -> None:
    try:
        kind = transformers.DeepseekV32Model
    except AttributeError as error:
        hf_models.skip_on_old_transformers(error)
        raise
    config = tiny.tiny_config(kind, {})
    config._attn_implementation = "regard"
    model = tiny.build(kind, config)
    with torch.no_grad(), regard.hf.record() as attentions:
        model(torch.arange(100, 111)[None])
    chosen = (attentions[0].attention.weights.dense()[0, 0] > 0).sum(-1)
    assert chosen.tolist() == [1, 2, 3, *[config.index_topk] * 8]


def test_blocks_without_a_size_are_refused() -> None:
    q = torch.randn(1, 1, 3, 4)
    with pytest.raises(ValueError, match=r"Linear: it hands block_indices to its attention, and has no indexer\.block"):
        regard.hf.attend(torch.nn.Linear(2, 3), q, q, q, None, block_indices=torch.zeros(1, 1, 3, 2))


def test_chosen_keys_as_a_rule() -> None:
    """By heads and by groups of them, keys and blocks of keys, with −1 for none, under a mask and with none."""
    indices = torch.tensor([[[[0, 2], [1, -1], [3, 0]], [[1, 1], [0, 3], [-1, -1]]]])  # (B 1, G 2, Q 3, n 2)
    q, k = torch.randn(1, 4, 3, 5), torch.randn(1, 2, 7, 5)
    for size in (1, 2):
        visible = torch.zeros(1, 4, 3, 7, dtype=torch.bool)
        for head in range(4):
            for query in range(3):
                for block in indices[0, head // 2, query].tolist():
                    if block >= 0:
                        visible[0, head, query, block * size : (block + 1) * size] = True
        rule = regard.hf.mask.chosen_keys(indices, heads=4, size=size)
        padding = torch.tensor([True, True, False, True, True, True, True])[None, None, None]
        for mask in (None, padding, lambda b, h, q, k: (k + q) % 2 == 0):
            ours = regard.attention(q, k, k, mask=both(mask, rule))
            also = torch.ones(1, dtype=torch.bool) if mask is None else mask
            if callable(mask):
                also = (torch.arange(7) + torch.arange(3)[:, None]) % 2 == 0
            expected = regard.attention(q, k, k, mask=visible & also)
            torch.testing.assert_close(ours.weights.dense(), expected.weights.dense(), **EXACT)
            torch.testing.assert_close(ours.output, expected.output, **CLOSE)


# The mask, where a model handles it itself


def lazy(**options):
    padding = batch()["attention_mask"].bool()
    return regard.hf.lazy_mask(3, 11, 11, attention_mask=padding, dtype=torch.float32, **options)


def eager(**options):
    padding = batch()["attention_mask"].bool()
    return masking_utils.eager_mask(3, 11, 11, attention_mask=padding, dtype=torch.float32, **options)


def test_a_model_gets_the_mask_of_eager_attention() -> None:
    mask, dense = lazy(), eager()
    assert mask.dtype == torch.float32
    assert torch.equal(mask.to(torch.float64), dense.double())
    assert torch.equal(torch.cat([mask, torch.zeros(3, 1, 11, 2)], -1)[..., :11], dense)
    assert torch.equal(mask + 1, dense + 1)
    assert torch.equal(mask.masked_fill(mask == 0, 5), dense.masked_fill(dense == 0, 5))
    assert torch.finfo(mask.dtype).min == mask.min()


def test_a_user_s_rule_can_be_read() -> None:
    """Rules of users go through vmap, which does not work where torch has taken an operation apart."""
    table = torch.rand(11, 11) > 0.4
    rule = masking_utils.and_masks(
        masking_utils.causal_mask_function, lambda batch, head, query, key: table[query][key]
    )
    options = {"mask_function": rule, "use_vmap": True}
    assert torch.equal(lazy(**options) + 0, eager(**options))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("write", ["fill", "view", "add"])
def test_a_mask_that_a_model_writes_into(write, mode) -> None:
    q = torch.randn(3, 2, 11, 4)
    outputs = []
    for make in (eager, lazy):
        with mode():
            mask = make()
            if write == "fill":
                mask.masked_fill_(torch.eye(11, dtype=torch.bool), 0.0)
            elif write == "view":
                mask[:, :, :, 3] = 1.5
            else:
                mask += torch.randn(11, 11, generator=torch.Generator().manual_seed(2))
            outputs.append(regard.hf.attend(torch.nn.Linear(2, 3), q, q, q, mask)[0])
    torch.testing.assert_close(outputs[1], outputs[0], **CLOSE)
    unchanged = regard.hf.attend(torch.nn.Linear(2, 3), q, q, q, lazy())[0]
    assert not torch.allclose(outputs[1], unchanged)


def test_no_mask_where_eager_has_none() -> None:
    everybody = {"mask_function": masking_utils.bidirectional_mask_function, "allow_is_bidirectional_skip": True}
    assert regard.hf.lazy_mask(2, 5, 5, **everybody) is None
    assert regard.hf.lazy_mask(2, 5, 5, **everybody, attention_mask=torch.ones(2, 5).bool()) is None
    assert (
        regard.hf.lazy_mask(2, 5, 5, **everybody, attention_mask=torch.tensor([[True] * 4 + [False]] * 2)) is not None
    )
    assert regard.hf.lazy_mask(2, 5, 5, allow_is_bidirectional_skip=False) is not None


@pytest.mark.parametrize("mask", ["lazy", "additive", "sum", "bool"])
def test_a_query_that_sees_nothing_takes_the_mean(mask) -> None:
    """The lowest number on all scores leaves eager's softmax uniform; of a sum of masks, one may be lower still."""
    q, k, v = torch.randn(3, 4, 11, 5), torch.randn(3, 2, 11, 5), torch.randn(3, 2, 11, 7)
    additive = eager()
    given = {"lazy": lazy(), "additive": additive, "bool": additive == 0}
    if mask == "sum":
        additive = additive + torch.full((11, 11), torch.finfo(torch.float32).min).triu(1)
        given["sum"] = additive
    keys, values = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    expected = torch.softmax(q @ keys.mT * 5**-0.5 + additive, -1) @ values
    output, weights = regard.hf.attend(torch.nn.Linear(2, 3), q, k, v, given[mask])
    torch.testing.assert_close(output.transpose(1, 2), expected, **CLOSE)
    assert weights.dense()[2, :, 0].sum() == 0


# Opening a model


def bloom():
    return transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=11, hidden_size=8, n_layer=1, n_head=2))


def composite():
    text = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 11,
    }
    vision = {name: value for name, value in text.items() if name != "vocab_size"} | {"image_size": 8, "patch_size": 4}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))


def test_a_dictionary_is_refused_as_the_name_is() -> None:
    model = bloom()
    with pytest.raises(ValueError, match=r"Bloom\w+: its attention does not go through"):
        model.set_attn_implementation({"": "regard"})
    assert model.config._attn_implementation != "regard"


def test_a_dictionary_for_a_part_of_a_model() -> None:
    model = composite()
    model.set_attn_implementation({"": "eager", "text_config": "regard", "vision_config": "eager"})
    assert model.config.text_config._attn_implementation == "regard"
    assert model.config.vision_config._attn_implementation == "eager"
    with regard.hf.record() as attentions:
        model.get_text_features(torch.tensor([[3, 4, 5]]))
        model.get_image_features(torch.randn(1, 3, 8, 8))
    assert len(attentions) == 1


def test_a_name_in_a_dictionary_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'txt_config' is not a configuration of it, .* text_config, vision_config"):
        composite().set_attn_implementation({"txt_config": "regard"})


@pytest.mark.parametrize("constructed", [False, True])
def test_a_copy_of_the_configuration_follows(constructed) -> None:
    """ViTMAE's decoder is no model of transformers and has a configuration that set_attn_implementation cannot find."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    decoder = {f"decoder_{name}": size for name, size in sizes.items()} | {"decoder_num_hidden_layers": 3}
    images = {"image_size": 32, "patch_size": 8}
    config = transformers.ViTMAEConfig(**sizes, **decoder, **images, num_hidden_layers=2)
    if constructed:
        config._attn_implementation = "regard"
    model = transformers.ViTMAEForPreTraining(config).eval()
    recorded = {}
    for implementation in ("regard", "eager", "regard", "sdpa"):
        model.set_attn_implementation(implementation)
        with torch.no_grad(), regard.hf.record() as attentions:
            model(torch.randn(2, 3, 32, 32))
        recorded[implementation] = len(attentions)
    assert recorded == {"regard": 5, "eager": 0, "sdpa": 0}


def whisper():
    model = hf_models.make(hf_models.SEQ2SEQ["whisper"], head=True)
    generation = model.generation_config
    generation.alignment_heads, generation.no_timestamps_token_id = [[0, 0], [1, 1]], 30
    generation.is_multilingual, generation.max_length = False, None
    return model


def test_whisper_s_timestamps_leave_its_attention_alone() -> None:
    """Its generate() sets eager on the configuration, to get attentions."""
    model, features = whisper(), torch.randn(2, 7, 26)
    times = []
    for implementation in ("eager", "regard"):
        model.set_attn_implementation(implementation)
        with regard.hf.record() as attentions:
            options = {"return_token_timestamps": True, "return_timestamps": True, "max_new_tokens": 6}
            times.append(model.generate(features, **options, return_dict_in_generate=True)["token_timestamps"])
        assert model.config._attn_implementation == implementation
        assert type(model.config) is transformers.WhisperConfig
    assert len(attentions) > 0
    torch.testing.assert_close(times[1], times[0])
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("how", ["constructed", "set"])
def test_the_heap_is_given_back_after_a_long_forward_pass(monkeypatch, how) -> None:
    given = []
    monkeypatch.setattr(regard.hf.models.heap, "trim", lambda: given.append(1))
    monkeypatch.setattr(regard.hf.models, "LONG", 3 * 11 * 24)
    options = {"attn_implementation": "regard"} if how == "constructed" else {}
    model = hf_models.make(hf_models.DECODERS["llama"], **options)
    for _ in range(2):
        model.set_attn_implementation("regard")
    with torch.no_grad():
        model(**batch())
        model(**batch(tokens=7))  # a short one
    model(**batch())  # its graph is still needed
    model.set_attn_implementation("eager")
    with torch.no_grad():
        model(**batch())
    assert given == [1]


# Training


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_records_once(reentrant) -> None:
    model = hf_models.make(hf_models.DECODERS["llama"], head=True, attn_implementation="regard").train()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    ids = batch()["input_ids"]
    with regard.hf.record() as attentions:
        model(ids, labels=ids, use_cache=False).loss.backward()
    assert len(attentions) == 2
    checkpointed = model.model.layers[0].self_attn.q_proj.weight.grad.clone()
    model.zero_grad()
    disable = getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable
    disable()
    model(ids, labels=ids, use_cache=False).loss.backward()
    torch.testing.assert_close(checkpointed, model.model.layers[0].self_attn.q_proj.weight.grad, **CLOSE)


def test_a_compiled_model() -> None:
    model = hf_models.make(hf_models.DECODERS["mistral"], attn_implementation="regard")
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), regard.hf.record() as attentions:
        plain = model(**batch(), output_attentions=True)
        ours = compiled(**batch(), output_attentions=True)
    assert len(attentions) == 4
    torch.testing.assert_close(ours.last_hidden_state, plain.last_hidden_state, **CLOSE)
    torch.testing.assert_close(ours.attentions[1].dense(), plain.attentions[1].dense(), **EXACT)
