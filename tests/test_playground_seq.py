"""The decoder and the encoder-decoder that come with the package: the page computes what Python does."""

import itertools
import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

import regard
from regard.attention import replaced_in_models
from regard.playground import shipped, weights
from regard.playground.shipped import __main__ as making
from regard.playground.stories import stories
from regard.race import kept, training
from regard.race.tasks import BOS, TASKS, draw
from support.page_models import page_replies

TOLERANCE = 1e-4  # of weights and probabilities

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")

# Letters of every script, and what else a visitor may paste.
LETTERS = [
    "été naïve", "Ελληνικά", "русский язык", "Հայերեն", "עִבְרִית", "العربية", "ܣܘܪܝܝܐ", "हिन्दी", "বাংলা", "ਪੰਜਾਬੀ", "ગુજરાતી",
    "தமிழ்", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "සිංහල", "ไทย", "ລາວ", "བོད་ཡིག", "မြန်မာ", "ქართული", "አማርኛ", "ᏣᎳᎩ", "ភាសាខ្មែរ",
    "ᠮᠣᠩᠭᠣᠯ", "ひらがな カタカナ", "漢字", "한국어", "ꦧꦱꦗꦮ", "𐌲𐌿𐍄𐌹𐍃𐌺", "𝒮𝒸𝓇𝒾𝓅𝓉", "👩‍👩‍👧 🏳️‍🌈",
]  # fmt: skip
ODD = [
    "x", " two  spaces ", "a\nb\r\n\tc", "\x00\x01\x7f", "\u200b\u2028\ufeff", "a\u0301\u0327", "<|endoftext|> typed",
    "1,234.5 + x² ≠ ½", '"Quoted," said Tom.', "don't, I'll, we've", "…—“”", "\U0010fffd\ue000",
]  # fmt: skip
STORIES = ["Once upon a time", "Mia had a red ball. But then", *stories(4, seed=5).split("\n")[::2]]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """The decoder's file, and a lens of the same weights."""
    file = tmp_path_factory.mktemp("models") / "stories.js"
    weights.write(weights.decoder_file(shipped.folder("stories"), "stories"), file)
    return file, regard.Lens(shipped.folder("stories"))


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """The encoder-decoder's file, and the model of the same weights."""
    file = tmp_path_factory.mktemp("models") / "dates.js"
    weights.write(weights.translator_file(shipped.folder("dates"), "dates"), file)
    return file, kept.load(shipped.folder("dates"))


def dense(attention):
    """(H,N,M): the weights of an attention of the page, by their definition, in double precision."""
    query, key = (np.asarray(attention[name], dtype=np.float64) for name in ("query", "key"))
    key = np.repeat(key, len(query) // len(key), 0)
    scores = attention["scale"] * query @ key.swapaxes(1, 2)
    if attention["causal"]:
        scores = np.where(np.tri(*scores.shape[1:], dtype=bool), scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def assert_same_attention(theirs, ours):
    """The weights of every head in every layer, and the outputs."""
    assert len(theirs) == len(ours)
    for page, python in zip(theirs, ours, strict=True):
        matrices = dense(page)
        assert np.abs(matrices - python.weights.dense().numpy().reshape(matrices.shape)).max() <= TOLERANCE
        assert np.abs(page["output"] - python.output.numpy().reshape(page["output"].shape)).max() <= 1e-3


def assert_same_predictions(page, probabilities, surprise):
    """(N,V): the k largest probabilities at every token; the tokens are the same where no two are as likely."""
    largest = probabilities.topk(len(page["ids"][0]) + 1, -1)
    assert np.abs(np.array(page["probabilities"]) - largest.values[:, :-1].numpy()).max() <= TOLERANCE
    for theirs, ours, values in zip(page["ids"], largest.indices.tolist(), largest.values.tolist(), strict=True):
        if all(a - b > 2 * TOLERANCE for a, b in itertools.pairwise(values)):
            assert theirs == ours[:-1]
    assert page["surprise"][-1] is None
    np.testing.assert_allclose(page["surprise"][:-1], surprise[:-1], atol=1e-3)


# What comes with the package


def test_it_is_small_and_the_page_says_what_it_is(decoder, translator):
    for name, most in (("stories", 0.7e6), ("dates", 1e6)):
        assert sum(file.stat().st_size for file in shipped.folder(name).iterdir()) < most
    assert all(file.stat().st_size < 0.8e6 for file, _ in (decoder, translator))
    assert json.loads((shipped.folder("stories") / "config.json").read_text())["num_key_value_heads"] == 4


def test_the_decoder_tells_stories_that_it_has_not_read(decoder):
    _, lens = decoder
    unread = stories(12, seed=99).split("\n")[::2]
    surprise = torch.cat([lens.read(text).predictions(1).surprise[1:-1] for text in unread if text])
    assert surprise.mean() < 0.3  # nats per token
    written = lens.generate("Boba was a shy fox. Boba was afraid of the dark.", 200)
    text = written.finish().text
    assert written.finished == "end"
    assert text.count("Boba") >= 4
    assert "because" in text


def test_the_same_seed_tells_the_same_stories():
    assert stories(50, seed=3) == stories(50, seed=3) != stories(50, seed=4)
    texts = stories(300).split("\n<|endoftext|>\n")
    assert len(set(texts)) == 300
    assert len(set(re.findall(r"\b[a-z]+\b", " ".join(texts)))) < 400  # words, names aside
    assert all(text.count('"') % 2 == 0 for text in texts)


def test_it_is_made_by_one_function(tmp_path, monkeypatch):
    options = replace(making.DECODER, layers=1, dim=16, heads=2, groups=1, vocab_size=300, seq_length=32, steps=2)
    monkeypatch.setattr(making, "DECODER", options)
    monkeypatch.setattr(making, "STORIES", 60)
    monkeypatch.setattr(making, "DATES_STEPS", 2)
    making.make_stories(tmp_path / "stories")
    making.make_dates(tmp_path / "dates")
    assert regard.Lens(tmp_path / "stories").read("Tom").hidden.dtype == torch.float32
    for name in ("stories", "dates"):
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            path.name for path in shipped.folder(name).iterdir()
        }


# The decoder


def test_the_page_reads_any_text_as_the_decoder_does(decoder):
    file, lens = decoder
    texts = [*STORIES, *LETTERS, *ODD]
    assert len(texts) >= 50
    layers = {n: (None, 1) if n % 6 == 0 else (None,) for n in range(len(texts))}
    predicted = [(n, layer) for n in layers for layer in layers[n]]
    requests = [{"read": [text]} for text in texts]
    requests += [{"predict": [[texts[n]], layer, 0, 256, 3]} for n, layer in predicted]
    replies = page_replies(file, requests)
    readings = [lens.read(text) for text in texts]
    for reply, reading in zip(replies, readings, strict=False):
        page = reply["decoder"]
        assert [token["id"] for token in page["tokens"]] == reading.ids.tolist()
        assert [unit["text"] for unit in page["units"]] == [unit.text for unit in reading.units]
        assert_same_attention(page["layers"], reading.attention)
        assert np.abs(page["hidden"] - reading.hidden.numpy()).max() <= 1e-3
        assert page["layers"][0]["made"]["rotated"]
    for (n, layer), page in zip(predicted, replies[len(texts) :], strict=True):
        whole = readings[n].predictions(512, layer)
        probabilities = torch.zeros(len(whole.ids), 512).scatter(1, whole.ids, whole.probabilities)
        assert_same_predictions(page, probabilities, whole.surprise)
        assert page["texts"] == readings[n].predictions(3, layer).texts


def test_the_page_writes_what_the_decoder_writes(decoder):
    file, lens = decoder
    prompts = [*STORIES[:2], "Kimo was a shy fox.", *LETTERS, *ODD]
    replies = page_replies(file, [{"write": [prompt, 20]} for prompt in prompts])
    for prompt, reply in zip(prompts, replies, strict=True):
        assert reply == lens.generate(prompt, 20).finish().text.removeprefix(prompt)


@pytest.fixture
def own(tmp_path):
    """A folder with a random Llama: a head of its own, another base of the rotations, one head of keys and values."""
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, max_position_embeddings=40, rms_norm_eps=1e-3, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0}, initializer_range=0.3, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shipped.folder("stories") / name, tmp_path)
    return tmp_path


def test_a_llama_of_ones_own(own, tmp_path):
    weights.write(weights.decoder_file(own, "own", "float32"), tmp_path / "own.js")
    long = "a long text, " * 20
    requests = [{"read": ["Mia, Mia!"]}, {"predict": [["Mia, Mia!"], None, 0, 9, 512]}, {"write": ["Mia", 50]}]
    read, predicted, written, *refused = page_replies(
        tmp_path / "own.js", [*requests, {"write": [long, 5]}, {"read": [long]}]
    )
    lens = regard.Lens(own)
    reading = lens.read("Mia, Mia!")
    assert_same_attention(read["decoder"]["layers"], reading.attention)
    np.testing.assert_allclose(predicted["probabilities"], reading.predictions(512).probabilities, atol=TOLERANCE)
    generation = lens.generate("Mia", 50)
    generation.finish()
    assert written == generation.text
    assert generation.finished == "length"
    assert refused[0]["error"] == "This model takes at most 40 tokens, with those that it writes: shorten the text."
    assert refused[1]["decoder"]["truncated"] == lens.read(long).truncated


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu'. Got 'gelu'."),
        ({"attention_bias": True}, "attention_bias: expected False. Got True."),
        ({"head_dim": 4}, "head_dim: expected 8. Got 4."),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type: expected 'default'. Got 'llama3'."),
        ({"num_hidden_layers": 3}, "model.safetensors lacks model.layers.2.input_layernorm.weight."),
        ({"model_type": "mistral"}, "model_type: expected 'llama'. Got 'mistral'."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_decoder_that_the_page_does_not_compute_is_refused(own, setting, message):
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | setting))
    with pytest.raises(ValueError, match=re.escape(message)):
        weights.decoder_file(own, "own")


def test_a_damaged_file_is_refused(own):
    (own / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        weights.decoder_file(own, "own")


def test_a_task_of_words_is_refused(tmp_path):
    task = TASKS["numbers"]
    kept.save(tmp_path, training.make("transformer", task.vocab_size, 16), task)
    with pytest.raises(ValueError, match=r"tokens: expected single characters\. Got 'zero'\."):
        weights.translator_file(tmp_path, "numbers")


# The encoder-decoder

DATES = [
    *("".join(source) for source in draw(TASKS["dates"], 42, "page", held_out=True)),
    "the 3rd of March 1987", "29 February 2001", "March", "1", "/", "a b, c.", "the the the the", "Sun - and Mars",
    "x" * 63, "99/99/9999",
]  # fmt: skip


def python_pass(model, source, target):
    """Hidden states and attentions of encoder and decoder, and the probabilities after each of the decoder's layers."""
    with torch.no_grad():
        encoded, attentions = model.encoder(source[None])
        hidden, pairs, _ = model.decoder(target[None], model.decoder.begin(encoded[-1]))
        states = [*(model.decoder.norm(state) for state in hidden[1:-1]), hidden[-1]]
        logits = [(state @ model.decoder.embeddings.tokens.weight.T)[0] for state in states]
    layers, cross = zip(*pairs, strict=True)
    return attentions, layers, cross, logits


def test_the_page_reads_and_writes_dates_as_the_model_does(translator):
    file, opened = translator
    assert len(DATES) >= 50
    predicted = [(n, layer) for n in range(0, len(DATES), 4) for layer in (None, 0)]
    requests = [{"read": [text]} for text in DATES]
    requests += [{"predict": [[DATES[n]], layer, 0, 64, 3]} for n, layer in predicted]
    requests += [{"write": [text, 64]} for text in DATES[-10:]]
    replies = page_replies(file, requests)
    assert replies[-10:] == [reply["decoder"]["text"] for reply in replies[: len(DATES)][-10:]]
    passes = []
    for text, page in zip(DATES, replies, strict=False):
        written = "".join(opened.write(text, 63))
        assert page["decoder"]["text"] == written
        source, target = opened.encode(text), torch.tensor([BOS, *(opened.encode(written) if written else [])])
        assert [token["id"] for token in page["encoder"]["tokens"]] == source.tolist()
        assert [token["id"] for token in page["decoder"]["tokens"]] == target.tolist()
        assert [token["special"] for token in page["decoder"]["tokens"]] == [True, *([False] * len(written))]
        attentions, layers, cross, logits = python_pass(opened.model, source, target)
        assert_same_attention(page["encoder"]["layers"], attentions)
        assert_same_attention(page["decoder"]["layers"], layers)
        assert_same_attention(page["decoder"]["cross"], cross)
        passes.append((target, logits))
    for (n, layer), page in zip(predicted, replies[len(DATES) :], strict=False):
        target, logits = passes[n]
        rows = logits[-1 if layer is None else layer]
        came = rows.log_softmax(-1)[:-1].gather(1, target[1:, None])[:, 0]
        assert_same_predictions(page, rows.softmax(-1), [*(-came).tolist(), None])


def test_nearly_all_held_out_dates_are_right_in_float16(translator):
    _, opened = translator
    sources = draw(TASKS["dates"], 300, "rounded", held_out=True)
    written = training.translate(opened.model, TASKS["dates"], sources)
    right = sum(one == TASKS["dates"].answer(source) for one, source in zip(written, sources, strict=True))
    assert right >= 0.99 * len(sources)


def test_a_target_of_the_visitors_own(translator):
    file, opened = translator
    page, empty = page_replies(
        file, [{"read": ["3/3/1987", {"pair": "1987-12-24"}]}, {"read": ["3/3/1987", {"pair": ""}]}]
    )
    target = torch.tensor([BOS, *opened.encode("1987-12-24")])
    _, layers, cross, _ = python_pass(opened.model, opened.encode("3/3/1987"), target)
    assert_same_attention(page["decoder"]["layers"], layers)
    assert_same_attention(page["decoder"]["cross"], cross)
    assert page["decoder"]["units"][0]["text"] == "[START]"
    assert [token["id"] for token in empty["decoder"]["tokens"]] == [BOS]


@pytest.mark.parametrize("text", ["3 März 1987", "北京", "1987\n", "3 March 1987 👍", "", "   "])
def test_a_character_that_it_does_not_know_is_named(translator, text):
    file, opened = translator
    replies = page_replies(
        file, [{"read": [text]}, {"write": [text, 9]}, {"read": ["1.1.2000", {"pair": text or "é"}]}]
    )
    if text.strip():
        with pytest.raises(ValueError, match="This model has no token for “") as error:
            opened.write(text)
        assert [reply["error"] for reply in replies] == [str(error.value)] * 3
    else:
        assert replies[0]["error"] == replies[1]["error"] == "The text is empty."


# What a lesson changes


@pytest.mark.parametrize(
    "changes",
    [{"scale": 1.0}, {"positions": False}, {"causal": False}, {"scale": 0.1, "positions": False, "causal": True}],
    ids=json.dumps,
)
def test_what_a_lesson_changes(decoder, translator, changes, monkeypatch):
    def changed(query, key, value, **options):
        is_cross = "lengths" in options and len(options) == 1 and query.shape[2] != key.shape[2]
        rule = {name: changes[name] for name in ("scale", "causal") if name in changes}
        if is_cross:
            rule.pop("causal", None)
        return regard.attention(query, key, value, **(options | rule))

    text, date = "Mia and Tom saw Mia and Tom", "the 3rd of March 1987"
    (file, lens), (dates, opened) = decoder, translator
    (page,) = page_replies(file, [{"read": [text, {"changes": changes}]}])
    (pair,) = page_replies(dates, [{"read": [date, {"pair": "1987-03", "changes": changes}]}])
    if changes.get("positions") is False:
        turn = type(lens.model.blocks[0].self_attn)
        module = sys.modules[turn.__module__]
        monkeypatch.setattr(module, "apply_rotary_pos_emb", lambda query, key, *_: (query, key))
        monkeypatch.setattr(opened.model.encoder.embeddings.positions, "forward", lambda x, start=0: x)
    with replaced_in_models(changed):
        reading = lens.read(text)
        target = torch.tensor([BOS, *opened.encode("1987-03")])
        attentions, layers, cross, _ = python_pass(opened.model, opened.encode(date), target)
    assert_same_attention(page["decoder"]["layers"], reading.attention)
    assert_same_attention(pair["encoder"]["layers"], attentions)
    assert_same_attention(pair["decoder"]["layers"], layers)
    assert_same_attention(pair["decoder"]["cross"], cross)
    unchanged = page_replies(file, [{"read": [text]}])[0]["decoder"]["layers"][4]["output"]
    assert np.abs(page["decoder"]["layers"][4]["output"] - unchanged).max() > 0.01
