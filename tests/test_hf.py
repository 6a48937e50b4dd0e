"""The door to Hugging Face: every figure against the same model's eager attention."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import transformers
from transformers import masking_utils

import regard
import regard.hf
from support import data
from support import transformers_models as hf_models
from support.transformers_models import TOKENS, batch, both, make, seq2seq_inputs

EXACT = {"rtol": 0, "atol": 2e-6}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

families = partial(pytest.mark.parametrize, "family")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """These models are too small to share among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def named(families: dict) -> list:
    return [pytest.param(family, id=name) for name, family in families.items()]


def same_weights(eager, ours, real=None, **tolerance) -> None:
    """Every layer's weights, in the rows of real tokens; all that sees no token is 0 here and uniform in eager."""
    assert len(eager) == len(ours) > 0
    for dense, weights in zip(eager, ours, strict=True):
        assert isinstance(weights, regard.Weights)
        assert weights.shape == dense.shape == weights.dense().shape
        rows = torch.ones(dense.shape[0], 1, dense.shape[2], 1) if real is None else real[:, None, :, None]
        torch.testing.assert_close(weights.dense() * rows, dense.float() * rows, **(tolerance or EXACT))
        assert_no_square_mask(weights)


def assert_no_square_mask(weights) -> None:
    given = weights.scores.mask.given
    assert not isinstance(given, torch.Tensor) or given.shape[1:3] == (1, 1)


# One forward pass


@families(named({**hf_models.ENCODERS, **hf_models.DECODERS}))
@pytest.mark.parametrize("padding", ["none", "right", "left"])
def test_one_stack(family, padding) -> None:
    model, inputs = make(family), batch(padding)
    call = partial(model, **inputs, output_attentions=True, output_hidden_states=True)
    with torch.no_grad():
        eager, ours = both(model, call)
    real = inputs["attention_mask"]
    same_weights(eager.attentions, ours.attentions, real)
    for actual, other in zip(eager.hidden_states, ours.hidden_states, strict=True):
        torch.testing.assert_close(other * real[..., None], actual * real[..., None], **CLOSE)


@families(named({**hf_models.ENCODERS, **hf_models.DECODERS}))
def test_without_an_attention_mask(family) -> None:
    model, inputs = make(family), batch()
    with torch.no_grad():
        eager, ours = both(model, lambda: model(inputs["input_ids"], output_attentions=True))
    same_weights(eager.attentions, ours.attentions)
    torch.testing.assert_close(ours.last_hidden_state, eager.last_hidden_state, **CLOSE)


@families(named(hf_models.SEQ2SEQ))
@pytest.mark.parametrize("padding", ["none", "right", "left"])
def test_encoder_and_decoder(family, padding) -> None:
    model = make(family)
    inputs, source, target = seq2seq_inputs(family, padding)
    with torch.no_grad():
        eager, ours = both(model, lambda: model(**inputs, output_attentions=True))
    same_weights(eager.encoder_attentions, ours.encoder_attentions, source)
    same_weights(eager.decoder_attentions, ours.decoder_attentions, target)
    same_weights(eager.cross_attentions, ours.cross_attentions, target)
    real = target[..., None]
    torch.testing.assert_close(ours.last_hidden_state * real, eager.last_hidden_state * real, **CLOSE)


def test_vision() -> None:
    model, pixels = make(hf_models.VIT), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        eager, ours = both(model, lambda: model(pixels, output_attentions=True))
    same_weights(eager.attentions, ours.attentions)
    torch.testing.assert_close(ours.last_hidden_state, eager.last_hidden_state, **CLOSE)


def test_packed_sequences() -> None:
    """Several texts in one row, told apart by their positions alone."""
    model = make(hf_models.DECODERS["mistral"])
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3], [0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
    inputs = {"input_ids": batch()["input_ids"][:2], "position_ids": positions, "use_cache": False}
    with torch.no_grad():
        eager, ours = both(model, lambda: model(**inputs, output_attentions=True))
    same_weights(eager.attentions, ours.attentions)
    assert ours.attentions[0].dense()[0, 0, 8, 6] == 0


@pytest.mark.parametrize("kind", ["bool", "additive", "bias"])
def test_a_mask_that_the_caller_made(kind) -> None:
    model, inputs = make(hf_models.DECODERS["llama"]), batch()
    visible = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril() & (torch.rand(3, 1, TOKENS, TOKENS) > 0.3)
    visible |= torch.eye(TOKENS, dtype=torch.bool)
    additive = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    if kind == "bias":
        additive = additive + torch.randn(TOKENS)
    masks = {"eager": additive, "regard": visible if kind == "bool" else additive}
    result = []
    for implementation, mask in masks.items():
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            result.append(model(inputs["input_ids"], attention_mask=mask, output_attentions=True).attentions)
    for dense, weights in zip(*result, strict=True):
        torch.testing.assert_close(weights.dense(), dense, **EXACT)


def test_bfloat16() -> None:
    """Of the same precision's eager, as near as eager is to float32."""
    model, inputs = make(hf_models.DECODERS["llama"], attn_implementation="eager"), batch("left")
    with torch.no_grad():
        exact = model(**inputs, output_attentions=True).attentions
        eager, ours = both(model.bfloat16(), lambda: model(**inputs, output_attentions=True).attentions)
    real = inputs["attention_mask"][:, None, :, None]
    for dense, weights, truth in zip(eager, ours, exact, strict=True):
        error = ((weights.dense() - truth) * real).abs().max()
        assert error <= 2 * ((dense.float() - truth) * real).abs().max()


# What is kept


def test_key_heads_are_not_repeated() -> None:
    model = make(hf_models.DECODERS["llama"], attn_implementation="regard")
    for weights in model(**batch("left"), output_attentions=True).attentions:
        assert weights.scores.key.shape == (3, 2, TOKENS, 4)
        assert weights.shape[1] == 6


def test_generated_tokens_do_not_keep_all_keys() -> None:
    model = make(hf_models.DECODERS["llama"], head=True, attn_implementation="regard")
    out = generate(model, return_dict_in_generate=True, output_attentions=True)
    for step in out.attentions[1:]:
        for weights in step:
            scores = weights.scores
            kept = sum(actual.untyped_storage().nbytes() for actual in (scores.query, scores.key, scores.bias))
            assert kept <= weights.dense().nbytes + 8


@pytest.mark.parametrize(
    ("name", "padding", "expected"),
    [
        ("bert", "none", None),  # everybody sees everything, which eager attention is told by no mask at all
        ("bert", "right", {"causal": False, "window": (None, None), "lengths": [11, 7, 2]}),
        ("llama", "none", {"causal": True, "window": (None, None)}),
        ("llama", "right", {"causal": True, "window": (None, None), "lengths": [11, 7, 2]}),
        ("llama", "left", {"causal": True, "window": (None, None), "mask": (3, 1, 1, 11)}),
        ("mistral", "none", {"causal": True, "window": (4, None)}),
        ("modernbert", "none", {"causal": False, "window": (3, 3)}),
    ],
)
def test_masks_are_rules(monkeypatch, name, padding, expected) -> None:
    family = {**hf_models.ENCODERS, **hf_models.DECODERS}[name]
    masks = []
    monkeypatch.setitem(
        masking_utils.AttentionMaskInterface._global_mapping,
        "regard",
        lambda *args, **kwargs: masks.append(regard.hf.lazy_mask(*args, **kwargs)) or masks[-1],
    )
    monkeypatch.setattr(masking_utils, "sdpa_mask", lambda *_, **__: pytest.fail("a mask was made dense"))
    make(family, attn_implementation="regard")(**batch(padding))
    if expected is None:
        assert masks == [None]
        return
    options = masks[-1].options
    assert options.keys() == expected.keys()
    for key, value in expected.items():
        result = options[key]
        if isinstance(result, torch.Tensor):
            result = result.tolist() if key == "lengths" else tuple(result.shape)
        assert result == value, key


def test_a_cache_with_room_is_a_segment() -> None:
    """Whatever the size of a static cache, nothing past the last query is looked at."""
    options = regard.hf.lazy_mask(1, 4, 97, q_offset=torch.tensor(3)).options
    assert [bounds.tolist() for bounds in options.pop("segments")] == [[0, 4, 4], [0, 7, 97]]
    assert options == {"causal": True, "window": (None, None)}


def blockwise_overlay(blocks: torch.Tensor):
    """That of transformers, for releases that lack it."""
    return lambda batch, head, query, key: (blocks[batch, query] == blocks[batch, key]) & (blocks[batch, query] >= 0)


def mask_function(name: str):
    overlay = getattr(masking_utils, "blockwise_overlay", blockwise_overlay)
    blocks = torch.tensor([[-1, 0, 0, -1, 1, 1, 1, -1, -1, -1, -1], [0, 0, -1, -1, -1, 2, 2, 2, -1, -1, -1]])
    return {
        "causal": masking_utils.causal_mask_function,
        "all": masking_utils.bidirectional_mask_function,
        "window 5": masking_utils.sliding_window_causal_mask_function(5),
        "window 3 both ways": masking_utils.sliding_window_bidirectional_mask_function(3),
        "windows 5 and 3": masking_utils.and_masks(
            masking_utils.sliding_window_overlay(5), masking_utils.sliding_window_causal_mask_function(3)
        ),
        "chunks of 3": masking_utils.chunked_causal_mask_function(3, torch.tensor([0, 2])),
        "blocks": masking_utils.or_masks(masking_utils.causal_mask_function, overlay(blocks)),
        "by hand": lambda batch, head, query, key: (key <= query) & ((key + batch) % 3 != 1),
    }[name]


@pytest.mark.parametrize(
    "sizes", [(11, 11, 0, 0), (4, 11, 7, 0), (4, 11, 0, 0), (1, 11, 6, 0), (3, 6, 5, 2), (3, 11, 5, 0), (5, 4, 0, 3)]
)
@pytest.mark.parametrize("padding", ["none", "right", "left", "right, short"])
@pytest.mark.parametrize(
    "name", ["causal", "all", "window 5", "window 3 both ways", "windows 5 and 3", "chunks of 3", "blocks", "by hand"]
)
def test_every_rule_says_what_the_dense_mask_says(name, padding, sizes) -> None:
    """Prefill, decoding, static and sliding caches: queries, keys, and the positions at which they begin."""
    queries, keys, q_offset, kv_offset = sizes
    call = {"batch_size": 2, "q_length": queries, "kv_length": keys, "q_offset": q_offset, "kv_offset": kv_offset}
    if padding != "none":
        call["attention_mask"] = batch("left" if padding == "left" else "right")["attention_mask"][1:].bool()
        if padding == "right, short":
            call["attention_mask"] = call["attention_mask"][:, :6]
    dense = masking_utils.sdpa_mask(**call, mask_function=mask_function(name), allow_is_causal_skip=False)
    lazy = regard.hf.lazy_mask(**call, mask_function=mask_function(name))
    assert lazy.shape == dense.shape
    assert torch.equal(lazy & True, dense)
    tensors = torch.randn(2, 2, queries, 4), torch.randn(2, 1, keys, 4), torch.randn(2, 1, keys, 4)
    ours = regard.attention(*tensors, **lazy.options)
    expected = regard.attention(*tensors, mask=dense)
    torch.testing.assert_close(ours.weights.dense(), expected.weights.dense(), **EXACT)
    torch.testing.assert_close(ours.output, expected.output, **CLOSE)
    assert ours.weights.shape[2:] == (queries, keys)


def test_a_rule_for_single_numbers() -> None:
    """Rules of users go through vmap in transformers, for they may index as one does with numbers."""
    table = torch.rand(11, 11) > 0.4
    call = {"batch_size": 2, "q_length": 11, "kv_length": 11, "use_vmap": True}
    call["mask_function"] = masking_utils.and_masks(
        masking_utils.causal_mask_function, lambda batch, head, query, key: table[query][key]
    )
    dense = masking_utils.sdpa_mask(**call, allow_is_causal_skip=False)
    q = torch.randn(2, 3, 11, 5)
    ours = regard.attention(q, q, q, **regard.hf.lazy_mask(**call).options).weights.dense()
    torch.testing.assert_close(ours, regard.attention(q, q, q, mask=dense).weights.dense(), **EXACT)


def test_a_model_may_handle_the_mask_as_a_tensor() -> None:
    lazy = regard.hf.lazy_mask(2, 5, 7, q_offset=2)
    assert isinstance(lazy, torch.Tensor)
    assert (lazy.ndim, lazy.dtype, lazy.device.type) == (4, torch.bool, "cpu")
    assert lazy.contiguous() is lazy is lazy.to("cpu")
    dense = torch.ones(5, 7, dtype=torch.bool).tril(2).expand(2, 1, 5, 7)
    assert torch.equal(lazy[:, :, -1:], dense[:, :, -1:])
    assert torch.equal(torch.where(lazy, 0.0, 1.0), 1 - dense.float())
    assert repr(lazy).startswith("LazyMask(shape=(2, 1, 5, 7), options={'causal': True")


# generate()


def generate(model, **options):
    inputs = batch("left") if "input_ids" not in options else {}
    return model.generate(**{**inputs, "max_new_tokens": 9, "do_sample": False, "eos_token_id": None, **options})


@families(named(hf_models.DECODERS))
@pytest.mark.parametrize("cache", [None, "static"], ids=["dynamic", "static"])
def test_greedy_tokens(family, cache) -> None:
    model = make(family, head=True)
    eager, ours = both(model, partial(generate, model, cache_implementation=cache, pad_token_id=0))
    assert eager.tolist() == ours.tolist()


@families(named(hf_models.DECODERS))
@pytest.mark.parametrize("cache", [None, "static"], ids=["dynamic", "static"])
def test_weights_of_generated_tokens(family, cache) -> None:
    """All of them, read when all is done; a static cache has been written over by then."""
    model = make(family, head=True)
    options = {"return_dict_in_generate": True, "output_attentions": True, "output_logits": True}
    eager, ours = both(model, partial(generate, model, **options, cache_implementation=cache, pad_token_id=0))
    prompt = batch("left")["attention_mask"]
    for step, (dense, weights) in enumerate(zip(eager.attentions, ours.attentions, strict=True)):
        same_weights(dense, weights, None if step else prompt)
    torch.testing.assert_close(torch.stack(ours.logits), torch.stack(eager.logits), rtol=1e-4, atol=1e-4)


def test_beam_search() -> None:
    model = make(hf_models.DECODERS["mistral"], head=True)
    eager, ours = both(model, partial(generate, model, num_beams=3))
    assert eager.tolist() == ours.tolist()


@families(named(hf_models.SEQ2SEQ))
@pytest.mark.parametrize("cache", [None, "static"], ids=["dynamic", "static"])
def test_generate_from_an_encoder(family, cache) -> None:
    model = make(family, head=True)
    inputs, _, _ = seq2seq_inputs(family, "right")
    inputs = {name: tensor for name, tensor in inputs.items() if not name.startswith("decoder")}
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "cache_implementation": cache}
    options |= {"return_dict_in_generate": True, "output_attentions": True}
    eager, ours = both(model, partial(model.generate, **inputs, **options))
    assert eager.sequences.tolist() == ours.sequences.tolist()
    for kind in ("decoder_attentions", "cross_attentions"):
        for dense, weights in zip(eager[kind], ours[kind], strict=True):
            if "Whisper" in family.model:  # its generate() takes the batch apart, which makes tensors of all it finds
                torch.testing.assert_close(weights, dense, **EXACT)
            else:
                same_weights(dense, weights)


# Training


@families(named({"llama": hf_models.DECODERS["llama"], "t5": hf_models.SEQ2SEQ["t5"]}))
def test_gradients(family) -> None:
    """T5's include those of the position bias."""
    model = make(family, head=True, **({"dropout_rate": 0.0} if "T5" in family.model else {})).train()
    inputs = batch("right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)

    def gradients():
        model.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    eager, ours = both(model, gradients)
    assert any("relative_attention_bias" in name for name in eager) == ("T5" in family.model)
    for name, gradient in eager.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_dropout_in_training_is_refused() -> None:
    model = make(hf_models.ENCODERS["bert"], attn_implementation="regard").train()
    with pytest.raises(ValueError, match=r"BertSelfAttention: attention dropout is 0\.1 .* to 0, or call model\.eval"):
        model(**batch())
    model.eval()(**batch())


# Who comes through the door


@families(named({**hf_models.ENCODERS, **hf_models.DECODERS, **hf_models.SEQ2SEQ, "vit": hf_models.VIT}))
def test_check_lets_in(family) -> None:
    regard.hf.check(make(family))


OUTSIDE = {
    "gptj": lambda **o: transformers.GPTJForCausalLM(
        transformers.GPTJConfig(vocab_size=11, n_embd=8, n_layer=1, n_head=2, rotary_dim=4, **o)
    ),
    "bloom": lambda **o: transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=11, hidden_size=8, n_layer=1, n_head=2, **o)
    ),
    "deberta": lambda **o: transformers.DebertaV2Model(
        transformers.DebertaV2Config(
            vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, **o
        )
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_models_outside_the_interface_are_refused(name) -> None:
    model = OUTSIDE[name]()
    reason = (
        f"{type(model).__name__.removesuffix('ForCausalLM')}.*: its attention does not go through transformers' att"
    )
    with pytest.raises(ValueError, match=reason):
        regard.hf.check(model)
    with pytest.raises(ValueError, match=reason):
        model.set_attn_implementation("regard")
    with pytest.raises(ValueError, match=reason):
        OUTSIDE[name](attn_implementation="regard")
    model(torch.tensor([[3, 1, 4]]))


def test_check_names_the_modules_that_compute_their_own() -> None:
    vision = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.SiglipVisionConfig(**vision, image_size=8, patch_size=4)
    with pytest.raises(ValueError, match=r"SiglipVisionModel: the attention of its .*Multihead.* does not go"):
        regard.hf.check(transformers.SiglipVisionModel(config))
    with pytest.raises(ValueError, match="Linear: it has no attention, or one that does not go through"):
        regard.hf.check(torch.nn.Linear(2, 3))
    with pytest.raises(TypeError, match=r"NoneType is no model of transformers, .* AutoModel.from_pretrained"):
        regard.hf.check(None)


def test_a_model_that_adds_the_mask_itself() -> None:
    """Half of BigBird-Pegasus goes through the interface; the other half adds the mask to scores of its own."""
    options = {"d_model": 8, "vocab_size": 41, "max_position_embeddings": 32, "attention_type": "original_full"}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.BigBirdPegasusConfig(**options, **layers, encoder_ffn_dim=8, decoder_ffn_dim=8)
    outputs = []
    for implementation in ("eager", "regard"):
        config._attn_implementation = implementation
        torch.manual_seed(5)
        model = transformers.BigBirdPegasusModel(config).eval()
        with torch.no_grad():
            outputs.append(model(**batch("right"), output_attentions=True))
    eager, ours = outputs
    torch.testing.assert_close(ours.last_hidden_state, eager.last_hidden_state, **CLOSE)
    same_weights(eager.cross_attentions, ours.cross_attentions)


@pytest.mark.parametrize("name", ["sinks", "cache"])
def test_what_regard_does_not_know_is_refused(name) -> None:
    q = torch.randn(1, 1, 3, 4)
    with pytest.raises(ValueError, match=f"Linear: it hands {name} to its attention, which regard does not know"):
        regard.hf.attend(torch.nn.Linear(2, 3), q, q, q, None, **{name: torch.zeros(1, 3, 2)})


def test_no_mask_hides_nothing() -> None:
    """Eager attention reads neither attributes nor a window that is handed over; what it hides stands in the mask."""
    module, q = torch.nn.Linear(2, 3), torch.randn(1, 2, 5, 4)
    module.is_causal = True
    for options in ({}, {"is_causal": True}, {"sliding_window": 3}):
        assert not regard.hf.attend(module, q, q, q, None, **options)[1].scores.mask.bounded


# The collector


def test_record() -> None:
    model = make(hf_models.SEQ2SEQ["bart"], attn_implementation="regard")
    inputs, _, _ = seq2seq_inputs(hf_models.SEQ2SEQ["bart"], "right")
    with regard.hf.record() as attentions:
        out = model(**inputs, output_attentions=True)
    model(**inputs)
    assert len(attentions) == 6
    layer = model.decoder.layers[0]
    assert [module for module, _ in attentions[2:4]] == [layer.self_attn, layer.encoder_attn]
    assert all(isinstance(result, regard.Attention) for _, result in attentions)
    assert attentions[3].attention.weights is out.cross_attentions[0]


def test_record_through_a_static_cache() -> None:
    model = make(hf_models.DECODERS["llama"], head=True, attn_implementation="regard")
    with regard.hf.record() as attentions:
        generate(model, cache_implementation="static")
    for _, result in attentions:
        torch.testing.assert_close(result.weights @ result.value, result.output, **CLOSE)


# A trained model


def test_a_trained_decoder() -> None:
    folder = data.required(data.STORIES)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="regard").eval()
    start = torch.tensor([[tokenizer.bos_token_id]])
    eager, ours = both(model, partial(model.generate, start, max_new_tokens=90, do_sample=False))
    assert eager.tolist() == ours.tolist()
    text = tokenizer.decode(ours[0], skip_special_tokens=True)
    assert text.startswith("Once upon a time, there was a little girl named Lily.")
    # A trained model's scores are large, and eager's own rounding adds up from layer to layer: it is the measure.
    double = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float64
    ).eval()
    with torch.no_grad():
        exact = double(ours, output_attentions=True).attentions
        eager, ours = both(model, lambda: model(ours, output_attentions=True))
    same_weights(eager.attentions[:1], ours.attentions[:1])
    same_weights(eager.attentions, ours.attentions, rtol=0, atol=1e-5)
    for dense, weights, truth in zip(eager.attentions, ours.attentions, exact, strict=True):
        assert (weights.dense() - truth).abs().max() <= 2 * (dense - truth).abs().max()
    torch.testing.assert_close(ours.logits, eager.logits, rtol=1e-4, atol=1e-4)
