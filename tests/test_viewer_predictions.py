"""Predictions for the page, and maps without a first token that takes most of the attention: what Python answers."""

import base64
import json
import re

import numpy as np
import pytest
import torch

pytest.importorskip("jaxtyping", reason="jaxtyping, regard[dev], is not installed")

import regard
from regard.viewer import payload, predictions
from regard.viewer.api import ViewerAPI
from regard.viewer.bundle import render_page
from regard.viewer.maps import first_share
from regard.viewer.protocol.encode import encode
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.limits import PREDICTED_TOKENS
from support.decoder import save_decoder
from support.headed import headed
from support.models import tiny
from support.readings import made

TEXT = "the cat sat on the bank"
CLOSE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_decoder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def lens(folder):
    return regard.Lens(folder)


@pytest.fixture(scope="module")
def reading(lens):
    return lens.read(TEXT)


@pytest.fixture(scope="module")
def shares(folder, reading):
    """The probabilities of the whole vocabulary after each layer, by transformers: (L,N,vocabulary) in float64."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).double().eval()
    with torch.no_grad():
        output = model(reading.ids[None], output_hidden_states=True)
        states = [model.model.norm(x[0]) for x in output.hidden_states[1:-1]]  # the last of them is normed already
        logits = torch.stack([model.lm_head(x) for x in states] + [output.logits[0]])
    return logits.softmax(-1)


def asking(reading):
    """A function that asks about a reading."""
    api = ViewerAPI({}, opening=reading)
    key = api.handle({"type": "start"})["opening"]["reading"]
    return lambda kind, **fields: api.handle({"type": kind, "reading": key, **fields}, wait=20)


def carried(reading):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', render_page(reading))[1])


def unpacked(tensor):
    return np.frombuffer(base64.b64decode(tensor["float32"]), "<f4").reshape(tensor["shape"])


# Predictions


@pytest.mark.parametrize("layer", [None, 0, 1])
def test_what_a_layer_predicts(reading, shares, layer):
    asked = {} if layer is None else {"layer": layer}
    reply = asking(reading)("predictions", **asked)
    expected = shares[-1 if layer is None else layer]
    likely = expected.topk(5)
    torch.testing.assert_close(reply["probabilities"].double(), likely.values, atol=CLOSE, rtol=0)
    words = [[reading.lens.model.tokenizer.id_to_token(id) for id in row] for row in likely.indices.tolist()]
    assert [[text.strip(" ") for text in row] for row in reply["texts"]] == words
    nats = -expected[:-1].gather(1, reading.ids[1:, None])[:, 0].log()
    torch.testing.assert_close(reply["surprise"][:-1].double(), nats, atol=CLOSE, rtol=CLOSE)
    assert reply["surprise"][-1].isnan()


def test_a_long_text_is_answered_in_parts(lens):
    reading = lens.read(" ".join(f"w{n * n % 40}" for n in range(300)))
    ask, whole = asking(reading), reading.predictions(3, layer=0)
    parts = [ask("predictions", layer=0, first=first, k=3) for first in range(0, 300, PREDICTED_TOKENS)]
    assert [len(part["texts"]) for part in parts] == [128, 128, 44]
    assert [texts for part in parts for texts in part["texts"]] == whole.texts
    for name in ("probabilities", "surprise"):
        together = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(together, getattr(whole, name), atol=CLOSE, rtol=CLOSE, equal_nan=True)


def test_a_small_vocabulary_has_no_more_tokens(reading):
    assert asking(reading)("predictions", k=20)["probabilities"].shape == (6, 20)
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.float32)
    vocabulary = model.config.vocab_size
    small = regard.Lens((model, tokenizer)).read(TEXT)
    assert asking(small)("predictions", k=min(20, vocabulary))["probabilities"].shape[1] == min(20, vocabulary)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"first": 6}, "first: expected a whole number from 0 to 5. Got 6."),
        ({"layer": 2}, "layer: expected a whole number from 0 to 1. Got 2."),
        ({"k": 0}, "k: expected a whole number from 1 to 20. Got 0."),
        ({"k": 21}, "k: expected a whole number from 1 to 20. Got 21."),
    ],
)
def test_predictions_that_there_are_not(reading, asked, error):
    with pytest.raises(RequestError, match="^" + re.escape(error)):
        asking(reading)("predictions", **asked)


@pytest.mark.parametrize("kind", [None, "LlamaForSequenceClassification"])
def test_a_model_that_predicts_no_tokens(kind):
    model, tokenizer = tiny("llama") if kind is None else headed(kind, "llama", torch.float32)
    ask = asking(regard.Lens((model, tokenizer)).read("the cat sat"))
    assert ask("metadata")["predictions"] is None
    with pytest.raises(RequestError, match="has no head that predicts tokens"):
        ask("predictions")


def test_a_masked_language_model_is_not_surprised():
    reading = regard.Lens(headed("BertForMaskedLM", "bert", torch.float32)).read("the cat sat")
    ask = asking(reading)
    assert ask("metadata")["predictions"]["kind"] == "masked token"
    assert ask("predictions")["surprise"].isnan().all()
    assert ask("metadata")["first_share"] is None


def test_a_model_whose_last_layer_no_single_norm_follows():
    reading = regard.Lens(headed("GPT2LMHeadModel", "gpt2", torch.float32)).read(TEXT)
    vars(reading.lens.model)["final_norm"] = None
    ask = asking(reading)
    offered = ask("metadata")["predictions"]
    assert offered["layers"] == [1]
    assert offered["missing"].startswith("Only the last layer of GPT2LMHeadModel makes predictions: ")
    assert len(ask("predictions", layer=1)["texts"]) == len(reading.tokens)
    with pytest.raises(RequestError, match=r"^layer: Only the last layer of GPT2LMHeadModel"):
        ask("predictions", layer=0)
    data = carried(reading)
    assert [layer for layer, held in enumerate(data["predictions"]) if held] == [1]


# In a file


def test_a_file_carries_the_predictions_of_every_layer(reading, shares):
    data = carried(reading)
    assert data["metadata"]["predictions"]["layers"] == [0, 1]
    ask = asking(reading)
    for layer, expected in enumerate(shares):
        held, reply = data["predictions"][layer], ask("predictions", layer=layer)
        np.testing.assert_allclose(unpacked(held["probabilities"]), expected.topk(5).values, atol=CLOSE)
        np.testing.assert_array_equal(unpacked(held["surprise"]), reply["surprise"])
        assert held["texts"] == reply["texts"]


@pytest.mark.parametrize(("limit", "layers"), [(6 * 90 * 2, [0, 1]), (6 * 90 * 2 - 1, [1]), (6 * 90 - 1, [])])
def test_a_file_says_what_it_has_no_room_for(reading, monkeypatch, limit, layers):
    monkeypatch.setattr(predictions, "FILE_LIMIT", limit)
    data = carried(reading)
    offered = data["metadata"]["predictions"]
    assert offered["layers"] == layers
    assert [layer for layer, held in enumerate(data["predictions"]) if held] == layers
    left = {2: None, 1: "those of the layers before", 0: "the predictions"}[len(layers)]
    assert offered["missing"] == (left and predictions.LEFT_OUT.format(left))


def test_the_predictions_take_no_more_room_than_is_said(lens):
    reading = lens.read(" ".join(f"w{n * n % 40}" for n in range(300)))
    data = carried(reading)
    for held in data["predictions"]:
        assert len(json.dumps(held)) <= predictions.TOKEN * 300 * 1.1


def test_a_file_of_a_model_that_predicts_nothing():
    data = carried(made())
    assert data["metadata"]["predictions"] is None
    assert data["predictions"] == [None, None]


# The first token


def test_the_share_of_the_first_token(reading):
    weights = torch.stack([reading.weights(layer) for layer in range(2)])  # (L, H, U, U)
    assert first_share(reading) == pytest.approx(float(weights[:, :, 1:, 0].mean()), abs=1e-6)
    assert payload.metadata(reading)["first_share"] == first_share(reading)


def test_the_share_of_a_first_word_of_several_tokens():
    reading = made("aa b cc", causal=True)
    weights = torch.stack([reading.weights(layer) for layer in range(2)])
    assert first_share(reading) == pytest.approx(float(weights[:, :, 1:, 0].mean()), abs=1e-6)


def test_where_there_is_no_first_token_to_set_apart(lens):
    assert first_share(made()) is None, "not causal"
    assert first_share(lens.read("the cat")) is None, "one word behind the first"
    assert first_share(lens.read("the cat sat")) is not None


@pytest.mark.parametrize("hide", [False, True])
def test_maps_without_the_first_word(hide):
    reading = made(" ".join(f"w{n}" for n in range(20)), causal=True)  # its first unit is a special token
    ask = asking(reading)
    whole = reading.weights(1)[:, 1:, 1:]
    asked = {"layer": 1, "hide": hide, "hide_first": True}
    tile = ask("tile", head=2, level=0, row=0, column=0, **asked)["cells"]
    torch.testing.assert_close(tile, whole[2], atol=1e-6, rtol=0)
    torch.testing.assert_close(ask("thumbnails", **asked)["thumbnails"], whole, atol=1e-6, rtol=0)
    everything = ask("thumbnails", layer=1)["thumbnails"]
    torch.testing.assert_close(everything, reading.weights(1), atol=1e-6, rtol=0)


def test_nothing_is_left_of_one_word(lens):
    with pytest.raises(RequestError, match="All units of this text are special tokens or the first"):
        asking(lens.read("cat"))("thumbnails", layer=0, hide_first=True)


# In a notebook


def test_a_notebook_gets_the_same_bytes(reading):
    pytest.importorskip("anywidget", reason="anywidget, regard[notebook], is not installed")
    viewer, sent = reading.view(), []
    viewer.send = lambda content, buffers=None: sent.extend(buffers)
    key = viewer._api.handle({"type": "start"})["opening"]["reading"]
    request = {"type": "predictions", "reading": key, "layer": 0}
    viewer._on_message(None, {"id": 1, "request": request}, [])
    assert sent == [encode(asking(reading)("predictions", layer=0))]
