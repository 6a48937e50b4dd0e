"""The decoder-only Transformer from scratch against GPT-2 and Llama of transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

import regard
import regard.nn as ours
from support.language_models import CONFIGS, random_model, save

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260k"


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


@pytest.fixture(params=CONFIGS)
def pair(request, tmp_path):
    """A model of transformers, and ours of the folder where it was saved."""
    transformers.utils.logging.disable_progress_bar()
    theirs = random_model(request.param)
    theirs.save_pretrained(tmp_path)
    return theirs, ours.LanguageModel.from_pretrained(tmp_path)


@pytest.fixture
def saved(tmp_path):
    return partial(save, tmp_path)


def test_a_whole_text(pair):
    theirs, mine = pair
    ids = torch.randint(41, (2, 37))
    expected = theirs(ids, output_hidden_states=True, output_attentions=True)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            logits, hidden, attentions = mine(ids)
        close(logits, expected.logits, 1e-4)
        for state, theirs_state in zip(hidden, expected.hidden_states, strict=True):
            close(state, theirs_state, 1e-4)
        for attended, weights in zip(attentions, expected.attentions, strict=True):
            close(attended.weights.dense(), weights)
    close(mine(ids, last=True).logits, expected.logits[:, -1:], 1e-4)
    close(mine.step(ids, mine.begin()), expected.logits[:, -1], 1e-4)


def test_gradients(pair):
    theirs, mine = pair
    ids = torch.randint(41, (2, 13))
    for model, logits in ((theirs, theirs(ids).logits), (mine, mine.train()(ids).logits)):
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    close(mine.tokens.weight.grad, theirs.get_input_embeddings().weight.grad, 1e-5)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("steps", [(1,) * 9, (4, 1, 1, 2, 1), (8, 1), (9,)])
def test_a_token_at_a_time(pair, mode, steps):
    theirs, mine = pair
    ids = torch.randint(41, (1, 9))
    expected = theirs(ids, output_hidden_states=True, output_attentions=True)
    with mode():
        past = mine.begin()
        parts = [mine(part, past) for part in ids.split(steps, 1)]
    close(torch.cat([prediction.logits for prediction in parts], 1), expected.logits, 1e-4)
    for n, theirs_state in enumerate(expected.hidden_states):
        close(torch.cat([prediction.hidden[n] for prediction in parts], 1), theirs_state, 1e-4)
    for n, weights in enumerate(expected.attentions):  # read at the end, when the caches have grown
        start = 0
        for part, count in zip(parts, steps, strict=True):
            attended = part.attentions[n]
            close(attended.weights.dense(), weights[:, :, start : start + count, : start + count])
            close(attended.output, attended.weights.dense() @ attended.value.repeat_interleave(
                attended.output.shape[1] // attended.value.shape[1], 1
            ))  # fmt: skip
            close(attended.lse, attended.weights.lse)
            start += count
    assert [known.length for known in past] == [9] * len(mine.layers)


def test_a_batch_at_a_time_and_padding_on_the_right(pair):
    _, mine = pair
    ids = torch.randint(41, (3, 9))
    with torch.no_grad():
        past, whole = mine.begin(), mine(ids).logits
        close(torch.cat([mine(part, past).logits for part in ids.split(1, 1)], 1), whole, 1e-4)
        close(mine(torch.cat((ids, ids), 1)).logits[:, :9], whole, 1e-4)


def test_generation(pair):
    theirs, mine = pair
    ids = torch.randint(41, (2, 5))
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
                               eos_token_id=None, pad_token_id=0)[:, 5:]  # fmt: skip
    assert torch.equal(mine.generate(ids, 12), expected)
    assert torch.equal(mine.generate(ids[:1], 12), expected[:1])
    assert mine.generate(ids, 0).shape == (2, 0)
    eos = int(expected[0, 3])
    written = mine.generate(ids, 12, eos_id=eos)
    for row, whole in zip(written.tolist(), expected.tolist(), strict=True):
        stop = whole.index(eos) + 1 if eos in whole else len(whole)
        assert row[:stop] == whole[:stop]
        assert set(row[stop:]) <= {eos}
    with pytest.raises(ValueError, match="at least one token"):
        mine.generate(ids[:, :0], 3)


def test_what_was_handed_out_stays():
    model = ours.LanguageModel(11, 1, dim=8, heads=2, d_ff=16, rope_theta=100.0).eval()
    ids = torch.randint(11, (1, 200))
    with torch.no_grad():
        past = model.begin()
        seen = [model(part, past).attentions[0] for part in ids.split(1, 1)]
        whole = model(ids).attentions[0].weights.dense()
        room = {attended.value.untyped_storage().data_ptr() for attended in seen}
    assert len(room) < 8  # copied a few times, and not for every token
    for n in (0, 1, 63, 64, 65, 150, 199):
        close(seen[n].weights.dense(), whole[:, :, n : n + 1, : n + 1])


def test_caches_and_inference_mode():
    model = ours.LanguageModel(11, 2, dim=8, heads=2, d_ff=16, rope_theta=100.0).eval()
    ids = torch.randint(11, (1, 9))
    past, expected = model.begin(), model(ids).logits
    with torch.inference_mode():
        first = model(ids[:, :3], past).logits, model(ids[:, 3:4], past).logits
    with torch.no_grad():
        second = model(ids[:, 4:5], past).logits, model(ids[:, 5:8], past).logits
    third = model(ids[:, 8:], past).logits
    close(torch.cat((*first, *second, third), 1), expected)
    third.sum().backward()


def test_rotary_positions_in_inference_mode_can_be_trained_with_later():
    rotary = ours.RotaryPositions(theta=77.0)
    with torch.inference_mode():
        rotary(torch.ones(1, 3, 6))
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotary, (x,))
    weight = torch.ones(1, 3, 6, requires_grad=True)
    rotary(weight, 5).sum().backward()
    close(rotary(weight, 5).norm(dim=-1), weight.norm(dim=-1))


def test_it_learns_to_repeat():
    torch.manual_seed(0)
    model = ours.LanguageModel(12, 2, dim=32, heads=4, groups=2, d_ff=64, rope_theta=100.0, gated=True,
                               rms_norm=True, bias=False, dropout=0.01)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(120):
        ids = torch.randint(12, (32, 6)).repeat(1, 2)
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).logits[:, 5:].flatten(0, 1), ids[:, 6:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ids = torch.randint(12, (8, 6))
    assert (model.eval().generate(ids.repeat(1, 2)[:, :7], 5) == ids[:, 1:]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {"model_type": "bert"}, "model_type: expected one of gpt2, llama, mistral. Got 'bert'"),
        ("gpt2", {"model_type": ["gpt2"]}, r"model_type: .* Got \['gpt2'\]"),
        ("gpt2", {"activation_function": "silu"}, "activation_function: expected one of .* Got 'silu'"),
        (
            "gpt2",
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx: expected False. Got True",
        ),
        ("gpt2", {"n_positions": 41}, r"positions.weight: expected \(41, 24\), by config.json. Got \(40, 24\)"),
        ("gpt2", {"n_layer": 4}, "lacks layers.3"),
        ("gpt2", {"n_layer": 2}, "that such a model does not have: transformer.h.2"),
        ("gpt2", {"n_head": ...}, "config.json lacks n_head"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act: expected 'silu'. Got 'gelu'"),
        ("llama", {"attention_bias": True}, "attention_bias: expected False"),
        ("llama", {"head_dim": 16}, "head_dim: expected 8, hidden_size / heads. Got 16"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type: expected 'default'"),
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type"),
        ("mistral", {"sliding_window": 16}, "sliding_window: expected None. Got 16"),
    ],
)
def test_what_does_not_fit_is_named(saved, name, changes, message):
    with pytest.raises(ValueError, match=message):
        ours.LanguageModel.from_pretrained(saved(name, **changes))


def test_settings_of_older_versions(saved):
    folder = saved("llama", rope_parameters=..., rope_theta=500.0)
    mine, theirs, ids = ours.LanguageModel.from_pretrained(folder), random_model("llama"), torch.randint(41, (1, 30))
    close(mine(ids).logits, theirs(ids).logits, 1e-4)
    folder = saved("gpt2")
    file = load_file(folder / "model.safetensors")
    older = {name.removeprefix("transformer."): tensor.half() for name, tensor in file.items()}
    older["h.0.attn.bias"] = torch.ones(1, 1, 40, 40).tril()
    save_file(older, folder / "model.safetensors", {"format": "pt"})
    model = ours.LanguageModel.from_pretrained(folder)
    assert model.tokens.weight.dtype == torch.float32
    close(model(ids).logits, random_model("gpt2")(ids).logits, 0.1)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"rope_theta: expected heads of an even dim. Got 3"):
        ours.CausalLayer(6, 2, 8, rope_theta=100.0)
    model = ours.LanguageModel(11, 1, dim=8, heads=2, d_ff=16, positions=4)
    with pytest.raises(ValueError, match=r"expected at most 4 positions, as many as it has learned. Got 5"):
        model(torch.zeros(1, 5, dtype=torch.long))
    past = model.begin()
    model(torch.zeros(1, 4, dtype=torch.long), past)
    with pytest.raises(ValueError, match="Got 5"):
        model(torch.zeros(1, 1, dtype=torch.long), past)
    past = model.begin()
    model.step(torch.zeros(2, 2, dtype=torch.long), past)
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"expected keys \(2, 2, ·, 4\), as before. Got \(1, 2, ·, 4\)"),
    ):
        model.step(torch.zeros(1, 1, dtype=torch.long), past)
    with pytest.raises(ValueError, match=r"past: expected 1 caches, from begin\(\). Got 2"):
        model.step(torch.zeros(1, 1, dtype=torch.long), past * 2)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"{STORIES} is not there")
def test_a_trained_model_tells_its_story():
    model = ours.LanguageModel.from_pretrained(STORIES)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(STORIES).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(STORIES)
    written = model.generate(torch.tensor([[1]]), 60)
    assert tokenizer.decode(written[0]).startswith("Once upon a time, there was a little girl named Lily. She loved to")
    ids = torch.cat((torch.tensor([[1]]), written), 1)
    close(model(ids).logits, theirs(ids).logits, 1e-4)
    assert isinstance(model(ids).attentions[0].weights, regard.Weights)
