"""Replies written token by token, against transformers' `generate` and against the attention of every step."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
import transformers
from tokenizers import decoders

import regard
from regard._internal.measure import PeakMemory
from regard.lens.generate import _choose
from support.data import STORIES, required
from support.headed import headed
from support.models import tiny

KINDS = {
    "GPT2LMHeadModel": "gpt2",
    "LlamaForCausalLM": "llama",
    "Gemma2ForCausalLM": "gemma2",  # a sliding window of 5 tokens
    "Qwen3ForCausalLM": "qwen3",
}
PROMPT = "Time flies like an"
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}<assistant>"


@pytest.fixture(scope="module", params=KINDS)
def opened(request):
    """A model without an end token, its tokenizer, a lens, and what transformers' generate wrote with eager attention.

    Its attentions are those of every step.
    """
    model, tokenizer = headed(request.param, KINDS[request.param], torch.float32)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    model.config.eos_token_id = None
    oracle = copy.deepcopy(model)
    oracle.set_attn_implementation("eager")
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    wrote = oracle.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
        output_attentions=True, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    return regard.Lens((model, tokenizer)), wrote, ids.shape[1]


def test_greedy_is_that_of_transformers(opened):
    lens, wrote, prompt = opened
    generation = lens.generate(PROMPT, max_tokens=24)
    tokens = list(generation)
    assert [token.id for token in tokens] == wrote.sequences[0, prompt:].tolist()
    assert tokens == generation.tokens
    assert generation.finished == "length"
    expected = [float(logits[0].softmax(-1)[token.id]) for logits, token in zip(wrote.logits, tokens, strict=True)]
    assert torch.allclose(torch.tensor([token.probability for token in tokens]), torch.tensor(expected), atol=1e-4)
    assert generation.text == "".join(token.text for token in tokens)


def test_the_reading_has_the_attention_of_every_step(opened):
    lens, wrote, prompt = opened
    reading = lens.generate(PROMPT, max_tokens=24).finish()
    for layer, attention in enumerate(reading.attention):
        weights = attention.weights.dense()
        for step, attentions in enumerate(wrote.attentions):
            rows = attentions[layer][0]  # (H,queries,keys): of the prompt at the first step, then of one token
            last = prompt + step
            padded = torch.zeros(*rows.shape[:2], last)
            padded[..., last - rows.shape[2] :] = rows  # a sliding cache has dropped the keys before
            ours = weights[:, last - rows.shape[1] : last]
            assert (ours[..., :last] - padded).abs().max() <= 2e-5
            assert not ours[..., last:].any()


def test_the_reply_is_marked(opened):
    lens, wrote, prompt = opened
    generation = lens.generate(PROMPT, max_tokens=12)
    reading = generation.finish()
    assert reading.ids.tolist() == wrote.sequences[0, : prompt + 12].tolist()
    assert reading.reply == (prompt, generation.text)
    assert reading.text == PROMPT + generation.text
    assert [token.id for token in reading.tokens[prompt:]] == [token.id for token in generation.tokens]
    for token in reading.tokens[prompt:]:
        assert token.start >= len(PROMPT) or token.special or not token.text
        assert reading.text[token.start : token.end] == token.text or token.special
    again = pickle.loads(pickle.dumps(reading))
    assert again.reply == reading.reply
    assert again.words[0].reading.reply == reading.reply
    assert lens.read(PROMPT).reply is None


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_prompt_in_parts_gives_the_same_reply(opened, size, monkeypatch):
    """Of window and cache, too: the parts are shorter and longer than the window of five tokens."""
    lens, wrote, prompt = opened
    monkeypatch.setattr("regard.models.prompt.PART", size)
    shares = []
    generation = lens.generate(PROMPT, max_tokens=24, progress=shares.append)
    step, sizes = generation._step, []

    def counted(ids, cache):
        sizes.append(ids.shape[1])
        return step(ids, cache)

    generation._step = counted
    tokens = list(generation)
    tried = 3 if prompt > size else 0  # steps
    assert sizes[tried:] == [len(part) for part in torch.arange(prompt).split(size)] + [1] * 23
    assert [token.id for token in tokens] == wrote.sequences[0, prompt:].tolist()
    expected = [float(logits[0].softmax(-1)[token.id]) for logits, token in zip(wrote.logits, tokens, strict=True)]
    assert torch.allclose(torch.tensor([token.probability for token in tokens]), torch.tensor(expected), atol=1e-4)
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
    assert len(shares) == lens.layers * -(-prompt // size)


def test_what_progress_raises_ends_the_generation(opened):
    lens, _, _ = opened

    def stop(share):
        raise RuntimeError(f"at {share:.0%}")

    generation = lens.generate(PROMPT, progress=stop)
    with pytest.raises(RuntimeError, match="at 50%"):
        next(generation)
    assert generation.tokens == list(generation) == []


def test_models_that_cannot_read_a_prompt_in_parts(monkeypatch):
    """A rotation by the length of the text, and a layer that forgets: they are given the whole prompt."""
    monkeypatch.setattr("regard.models.prompt.PART", 3)
    for rope in ({"rope_type": "default"}, {"rope_type": "dynamic", "factor": 4.0}):
        body, tokenizer = tiny("llama")
        config = body.config
        config.rope_parameters = {"rope_theta": 10000.0, **rope}
        lens = regard.Lens((transformers.LlamaForCausalLM(config).eval(), tokenizer))
        ids = torch.arange(20)
        parts = lens.model.parts(lens.model.step, ids)
        assert [len(part) for part in parts] == ([20] if "factor" in rope else [3] * 6 + [2])
        assert len(lens.model.parts(lens.model.step, ids[:3])) == 1

        def forgetful(ids, cache, step=lens.model.step):
            return step(ids, None)

        def failing(ids, cache, step=lens.model.step):
            if cache is not None:
                raise RuntimeError
            return step(ids, cache)

        assert len(lens.model.parts(forgetful, ids)) == len(lens.model.parts(failing, ids)) == 1


def test_a_long_prompt_takes_memory_in_proportion():
    """No mask of 8,000 × 8,000, which would take 61 MiB as bytes, and no logits but the last."""
    body, tokenizer = tiny("llama")
    body.config.max_position_embeddings = 8192
    lens = regard.Lens((transformers.LlamaForCausalLM(body.config).eval(), tokenizer))
    generation = lens.generate("x" * 7998, max_tokens=1)
    assert len(generation._prompt.ids) == 8000
    rows, logits = [], generation._head._logits
    generation._head = replace(
        generation._head, _logits=lambda final, ids: rows.append(len(final)) or logits(final, ids)
    )
    with PeakMemory() as peak:
        list(generation)
    assert rows == [1]
    cache = 2 * 2 * 8000 * 8 * 4  # layers, keys and values, tokens, numbers in both groups, bytes
    assert peak.bytes < 2 * cache + (16 << 20)


def test_the_same_seed_gives_the_same_reply(opened):
    lens, _, _ = opened

    def reply(seed):
        return [token.id for token in lens.generate(PROMPT, 24, temperature=1.5, top_p=0.95, seed=seed)]

    assert reply(3) == reply(3)
    assert len({tuple(reply(seed)) for seed in range(4)}) > 1


def test_a_trace_of_the_nucleus_is_greedy(opened):
    lens, wrote, prompt = opened
    drawn = lens.generate(PROMPT, 24, temperature=1.0, top_p=1e-6)
    assert [token.id for token in drawn] == wrote.sequences[0, prompt:].tolist()


def test_tokens_are_drawn_from_the_nucleus():
    """With p = 0.5, 0.3, 0.15, 0.05 and top_p = 0.7, the first two have 0.8 together: 5/8 and 3/8 of it."""
    logits, random = torch.tensor([0.15, 0.5, 0.05, 0.3]).log(), torch.Generator().manual_seed(0)
    drawn = torch.bincount(torch.tensor([_choose(logits, 1.0, 0.7, random) for _ in range(4000)]), minlength=4)
    assert drawn[0] == drawn[2] == 0
    assert abs(drawn[1] / 4000 - 5 / 8) < 4 * (15 / 64 / 4000) ** 0.5  # four standard deviations
    at_half = torch.bincount(torch.tensor([_choose(logits, 0.5, 1.0, random) for _ in range(4000)]), minlength=4)
    p = 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025)  # p² over the sum of squares
    assert abs(at_half[1] / 4000 - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    assert _choose(logits, 1e-40, 1.0, random) == 1


def test_a_stop_string_may_span_tokens(opened):
    lens, _, _ = opened
    whole = lens.generate(PROMPT, max_tokens=24)
    list(whole)
    for start in (0, 3, 6):
        stop = whole.text[start : start + 4]
        generation = lens.generate(PROMPT, max_tokens=24, stop=["never written", stop])
        given = list(generation)
        assert generation.finished == "stop"
        assert generation.text == whole.text[: whole.text.find(stop)]
        assert "".join(token.text for token in given) == generation.text
        assert given == generation.tokens
        reading = generation.reading
        assert reading.text == PROMPT + generation.text
        assert reading.reply.text == generation.text
        assert len(reading.tokens) == reading.reply.token + len(given)


def test_a_stop_string_that_never_comes(opened):
    lens, _, _ = opened
    generation = lens.generate(PROMPT, max_tokens=5, stop="never written")
    assert len(list(generation)) == 5
    assert generation.finished == "length"
    assert list(generation) == []


DECODERS = {  # as GPT-2 and Llama 2 have them
    "GPT2LMHeadModel": decoders.ByteLevel(),
    "LlamaForCausalLM": decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
}


def with_decoder(name):
    """A tiny model whose tokenizer makes texts of tokens as the trained ones do, and its lens."""
    model, tokenizer = headed(name, KINDS[name], torch.float32)
    tokenizer.backend_tokenizer.decoder = DECODERS[name]
    return tokenizer, regard.Lens((model, tokenizer))


def dictated(lens, prompt, ids, **options):
    """A generation in which these are the likeliest tokens, one after another."""
    generation, remaining = lens.generate(prompt, max_tokens=len(ids), **options), iter(ids)

    class Dictating:
        end_ids = frozenset()

        def __call__(self, final, ids):
            return torch.nn.functional.one_hot(torch.tensor([next(remaining)]), lens.model.vocab_size)

    generation._head = Dictating()
    return generation


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM"])
@pytest.mark.parametrize("text", [" naïve 👍🏽 我爱北京。", "an arrow\n\n  like 👍", "שלום"])
def test_characters_of_several_tokens_are_whole(name, text):
    tokenizer, lens = with_decoder(name)
    ids = tokenizer("Time" + text, add_special_tokens=False)["input_ids"]
    prompt = tokenizer("Time", add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt)] == prompt
    generation = dictated(lens, "Time", ids[len(prompt) :])
    assert "".join(token.text for token in generation) == text
    reading, expected = generation.reading, lens.read("Time" + text)
    assert reading.ids.tolist() == expected.ids.tolist()
    assert [(token.start, token.end) for token in reading.tokens] == [(t.start, t.end) for t in expected.tokens]
    assert [word.text for word in reading.words] == [word.text for word in expected.words]


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_a_replacement_character_may_be_what_was_meant(name):
    """It cannot be told from an incomplete character: it is given with the token after it."""
    tokenizer, lens = with_decoder(name)
    ids = tokenizer("Time\ufffd? the")["input_ids"]
    prompt = len(tokenizer("Time")["input_ids"])
    generation = dictated(lens, "Time", ids[prompt:])
    assert "".join(token.text for token in generation) == "\ufffd? the"
    assert generation.reading.ids.tolist() == ids


def test_bytes_that_make_no_character_are_shown():
    tokenizer, lens = with_decoder("GPT2LMHeadModel")
    ids = tokenizer("Time 👍")["input_ids"]
    first = next(n for n, id in enumerate(ids) if "ð" in tokenizer.convert_ids_to_tokens(id))
    generation = dictated(lens, "Time", [ids[first]] * 9)
    list(generation)
    assert set(generation.text) == {"\ufffd"}
    assert len(generation.reading.tokens) == len(tokenizer("Time")["input_ids"]) + 9


def test_an_end_token_ends_the_reply(opened):
    lens, wrote, prompt = opened
    model = copy.copy(lens.model)
    written = wrote.sequences[0, prompt:].tolist()
    head = copy.copy(model.head)
    object.__setattr__(head, "end_ids", frozenset([written[4]]))
    model.__dict__["head"] = head
    ended = copy.copy(lens)
    ended.model = model
    generation = ended.generate(PROMPT, max_tokens=24)
    assert [token.id for token in generation] == written[: written.index(written[4])]
    assert generation.finished == "end"


def test_end_tokens_are_those_of_the_model():
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.float32)
    model.generation_config.eos_token_id = [5, 7]
    assert regard.Lens((model, tokenizer)).model.head.end_ids == {5, 7}


def test_an_interrupted_reply_is_kept(opened):
    lens, wrote, prompt = opened
    generation = lens.generate(PROMPT, max_tokens=24)
    step, calls = generation._step, []

    def interrupted(ids, cache):
        calls.append(ids)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(ids, cache)

    generation._step = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(generation)
    assert generation.finished == "interrupted"
    assert generation.reading.ids.tolist() == wrote.sequences[0, : prompt + 3].tolist()
    assert [tuple(ids.shape) for ids in calls[1:]] == [(1, 1)] * 3  # a token costs one token


def test_a_reading_halfway(opened):
    lens, _, prompt = opened
    generation = lens.generate(PROMPT, max_tokens=6)
    next(generation), next(generation)
    assert generation.finished is None
    halfway = generation.reading
    assert len(halfway.tokens) == prompt + 2
    assert generation.reading is halfway
    assert len(generation.finish().tokens) == prompt + 6


def test_the_context_ends_the_reply(opened):
    lens, _, prompt = opened
    generation = lens.generate(PROMPT, max_tokens=1000)
    reading = generation.finish()
    assert len(reading.tokens) == lens.model.max_length == 64
    assert generation.finished == "length"
    assert len(generation.tokens) == 64 - prompt


def test_chat_uses_the_template_of_the_tokenizer():
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.float32)
    tokenizer.chat_template = "{{ '<s>' }}" + TEMPLATE
    generation = regard.Lens((model, tokenizer)).chat([{"role": "user", "content": "Time flies"}], max_tokens=3)
    assert generation.prompt == "<s><user> Time flies\n<assistant>"
    reading = generation.finish()
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Time flies"}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert reading.ids.tolist()[: reading.reply.token] == expected  # <s> once, not twice


def test_a_template_that_refuses():
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.float32)
    tokenizer.chat_template = "{{ raise_exception('Roles must alternate.') }}"
    with pytest.raises(ValueError, match=r"chat: the chat template of \w+ refuses these messages: Roles must alt"):
        regard.Lens((model, tokenizer)).chat([{"role": "user", "content": "Hello"}])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"prompt": "the cat " * 60},
            ValueError,
            r"the prompt has \d\d\d tokens, and \w+ reads at most 64, the reply included\. .* `regard ask --windows`",
        ),
        ({"prompt": " "}, ValueError, "generate: the text is empty"),
        ({"prompt": 3}, TypeError, "generate: expected a str. Got int"),
        ({"temperature": -0.1}, ValueError, "temperature: expected 0 .greedy. or more. Got -0.1"),
        ({"temperature": float("nan")}, ValueError, "temperature: expected"),
        ({"top_p": 0.0}, ValueError, "top_p: expected a number above 0, at most 1. Got 0.0"),
        ({"top_p": 1.1}, ValueError, "top_p: expected"),
        ({"max_tokens": 0}, ValueError, "max_tokens: expected a whole number, 1 or more. Got 0"),
        ({"max_tokens": 2.5}, ValueError, "max_tokens: expected a whole number"),
        ({"stop": ["a", ""]}, ValueError, "stop: an empty string"),
        ({"stop": ""}, ValueError, "stop: an empty string"),
        ({"stop": [3]}, TypeError, "stop: expected strings"),
    ],
)
def test_what_cannot_be_written(opened, options, error, message):
    with pytest.raises(error, match=message):
        opened[0].generate(**{"prompt": PROMPT, **options})


def test_models_that_do_not_write(opened):
    with pytest.raises(ValueError, match=r"generate: \w+ has no head that predicts the next token; open a causal"):
        regard.Lens(tiny("llama")).generate(PROMPT)
    with pytest.raises(ValueError, match="a head for a masked token, and none that predicts the next token"):
        regard.Lens(headed("BertForMaskedLM", "bert", torch.float32)).generate(PROMPT)
    with pytest.raises(ValueError, match=r"chat: \w+ has no chat template; write the prompt yourself"):
        opened[0].chat([{"role": "user", "content": "Hello"}])
    with pytest.raises(ValueError, match="chat: there are no messages"):
        opened[0].chat([])
    with pytest.raises(TypeError, match="chat: messages: expected a list"):
        opened[0].chat("Hello")


def test_the_trained_decoder_tells_its_story():
    lens = regard.Lens(required(STORIES))
    generation = lens.generate("Once upon a time", max_tokens=60, stop="\n")
    reading = generation.finish()
    assert reading.text.startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    )
    assert min(token.probability for token in generation.tokens) > 0.1
    assert [word.text for word in reading.words[:8]] == ["Once", "upon", "a", "time", ",", "there", "was", "a"]
