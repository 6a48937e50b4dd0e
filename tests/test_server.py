"""The viewer's server: what it answers, who may come in, and what bad input does to it: nothing."""

import gzip
import http.client
import importlib
import json
import pickle
import queue
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

import regard

pytest.importorskip("starlette", reason="the viewer's server, regard[serve], is not installed")

from regard.attribution import default_target, map_of, parse_target
from regard.viewer import server as serving_module
from regard.viewer.api import ViewerAPI, reading_id
from regard.viewer.bundle import served_page
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.limits import TEXT_LIMIT
from support.decoder import save_decoder

ARROW = "Time flies like an arrow"


@pytest.fixture(scope="module")
def address(arrow):
    return arrow


@pytest.fixture(scope="module")
def lens(address):
    return regard.Lens()


class Answered(dict):
    """An answer of the server: what it said, its numbers as tensors, and the status."""

    status: int


def request(address, method="GET", path="/", body=None, timeout=60, **headers):
    """One request, with any headers: (status, headers, content)."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    result = response.status, response.headers, response.read()
    connection.close()
    return result


def ask(address, question, patience=60, **headers):
    """The answer to a question, asked again until it is there."""
    until = time.monotonic() + patience
    while True:
        status, _, content = request(address, "POST", "/api", json.dumps(question).encode(), **headers)
        if status != 200:
            answer = Answered(json.loads(content))
        else:
            (length,) = struct.unpack_from("<I", content)
            answer, at = Answered(json.loads(content[4 : 4 + length])), 4 + length
            for name, shape in answer.pop("arrays"):
                numbers = np.frombuffer(content, "<f4", int(np.prod(shape)), at)
                answer[name], at = torch.tensor(numbers).view(shape), at + numbers.nbytes
            assert at == len(content)
        answer.status = status
        if "progress" not in answer or time.monotonic() > until:
            return answer


def read(address, text=ARROW, **more):
    return ask(address, {"type": "read", "text": text, **more})


def goes_on(address):
    assert read(address, "It goes on.").status == 200


# What it answers


def test_the_page_and_its_files(address):
    status, headers, content = request(address)
    assert status == 200
    assert b'<div class="viewer"' in content
    for name in ("viewer.js", "viewer.css", "openseadragon-license.txt"):
        status, headers, packed = request(address, path=f"/assets/{name}", Accept_Encoding="gzip")
        assert (status, headers["Content-Encoding"]) == (200, "gzip")
        _, headers, plain = request(address, path=f"/assets/{name}")
        assert headers["Content-Encoding"] is None
        assert gzip.decompress(packed) == plain
    assert request(address, path="/assets/../cli.py")[0] == 404
    assert request(address, path="/nothing")[0] == 404
    assert request(address, path="/api")[0] == 405


def test_the_first_load_is_light():
    page, assets = served_page()
    total = sum(
        len(gzip.compress(content, 9)) for content in (page.encode(), *(content for content, _ in assets.values()))
    )
    print(f"{total / 1e3:.0f} kB compressed")
    assert total < 500_000


def test_start_and_card(address, lens):
    start = ask(address, {"type": "start"})
    assert start == {"models": ["all-MiniLM-L6-v2"], "opening": {"text": ARROW, "pair": None}}
    card, reading = read(address), lens.read(ARROW)
    assert card["units"] == [unit.text for unit in reading.units]
    assert card["special"] == [0, 6]
    assert card["second"] is None
    assert 0 < card["memory"]["reading"] <= card["memory"]["used"] <= card["memory"]["limit"]
    pair = read(address, "How old are you?", pair="What is your age?")
    assert pair["units"][pair["second"]] == "What"
    assert ask(address, {"type": "metadata", "reading": card["reading"]})["units"] == card["units"]


def test_the_numbers_are_those_of_python(address, lens):
    """To the bit, though the server has other threads than the tests: so the kernel computes, whatever their number.

    A tile is computed in another way: a score of 20 has an error of 1e-6 in float32, its weight's relative one.
    """
    text = "The unbelievable cat sat on the mat; the tokenizer slept."
    reading, key = lens.read(text), read(address, text)["reading"]
    fields = {"reading": key, "layer": 3}
    for side, expected in (("from", reading.units[2].attends_to(3)), ("to", reading.units[2].attended_by(3))):
        reply = ask(address, {"type": "word_weights", "word": 2, "side": side, **fields})["weights"]
        torch.testing.assert_close(reply, expected, atol=0, rtol=0)
    torch.testing.assert_close(
        ask(address, {"type": "layer_weights", **fields})["weights"], reading.weights(3), atol=0, rtol=0
    )
    tile = {"type": "tile", "head": 7, "level": 0, "row": 0, "column": 0, **fields}
    torch.testing.assert_close(ask(address, tile)["cells"], reading.weights(3, 7), atol=1e-7, rtol=1e-5)
    words = [unit.index for unit in reading.words]
    reply = ask(address, {**tile, "hide": True, "reduce": "max"})["cells"]
    torch.testing.assert_close(reply, reading.weights(3, 7)[words][:, words], atol=1e-7, rtol=1e-5)
    unit = next(unit for unit in reading.units if len(unit.tokens) > 1)
    walk = reading.explain(unit, 3, 7)
    reply = ask(address, {"type": "walk", "head": 7, "token": unit.tokens[1], "all": True, **fields})
    assert reply["rows"] == list(range(len(reading.tokens)))
    for name in ("query", "scores", "scaled", "weights", "context", "x"):
        torch.testing.assert_close(reply[name], getattr(walk, name)[1].float(), atol=0, rtol=0)
    assert reply["error"] == walk.error < 1e-5
    compared = ask(address, {"type": "compare", "word": "bank", "texts": ["A river bank.", "The bank paid the bank."]})
    assert [place["start"] for place in compared["places"]] == [8, 4, 18]
    assert compared["similarity"].shape == (7, 3, 3)
    expected = torch.cosine_similarity(
        *(lens.read(t).word("bank", 1).vectors for t in ("A river bank.", "The bank paid the bank.")), dim=-1
    )
    torch.testing.assert_close(compared["similarity"][:, 0, 1], expected, atol=1e-6, rtol=0)


def test_what_a_head_adds_is_the_weight_times_the_length_of_the_value(address, lens):
    """The length is that of v W_O, as in the terminal: a sink has much of the weight and adds little."""
    walk = lens.read(ARROW).explain("flies", 5, 11)
    reply = ask(address, {"type": "walk", "reading": read(address)["reading"], "layer": 5, "head": 11, "token": 2})
    projection = lens.model.surroundings[5].output.weight.detach().double()[:, 32 * 11 : 32 * 12]
    lengths = (walk.values @ projection.T).norm(dim=-1)
    assert reply["projected"] is True
    torch.testing.assert_close(reply["lengths"], lengths.float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(reply["carried"], walk.carried[0].float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(reply["carried"], (walk.weights[0] * lengths).float(), atol=1e-4, rtol=0)
    assert reply["carried_total"] == pytest.approx(float(walk.weights[0] @ lengths), abs=1e-3)


# Maps


def between_units(reading, dense):
    """The mean over a unit's queries of the sum over its keys, unit by unit; (H,U,U), H 1 for all heads together."""
    dense = dense if dense.ndim == 3 else dense[None]
    rows = torch.stack([dense[:, list(unit.tokens)].mean(1) for unit in reading.units], 1)
    return torch.stack([rows[:, :, list(unit.tokens)].sum(2) for unit in reading.units], 2)


@pytest.mark.parametrize(
    ("name", "target"), [("value-weighted", None), ("norms", None), ("gradient", None), ("gradient", "word:cat")]
)
def test_the_numbers_of_a_map_are_those_of_python(address, lens, name, target):
    text = "The unbelievable cat sat on the mat; the tokenizer slept."
    reading, key = lens.read(text), read(address, text)["reading"]
    chosen = None
    if name == "gradient":
        chosen = parse_target(reading, target) if target else default_target(reading)
    dense = map_of(reading, name, 3, chosen).dense()
    numbers = between_units(reading, dense.double()).float()
    head = min(7, len(numbers) - 1)
    fields = {"reading": key, "layer": 3, "map": name, "target": target}
    close = {"atol": 1e-5 * float(numbers.abs().max()), "rtol": 0}
    word = {"type": "word_weights", "word": 2, **fields}
    torch.testing.assert_close(ask(address, word)["weights"], numbers[:, 2], **close)
    torch.testing.assert_close(ask(address, {**word, "side": "to"})["weights"], numbers[:, :, 2], **close)
    torch.testing.assert_close(ask(address, {"type": "layer_weights", **fields})["weights"], numbers, **close)
    thumbnails = ask(address, {"type": "thumbnails", **fields})
    torch.testing.assert_close(thumbnails["thumbnails"], numbers, **close)
    assert thumbnails["shares"].shape[0] == 12, "patterns are of the weights, whatever the map"
    tile = {"type": "tile", "head": 7, "level": 0, "row": 0, "column": 0, **fields}
    torch.testing.assert_close(ask(address, tile)["cells"], numbers[head], **close)
    walk = ask(address, {"type": "walk", "head": 7, "token": 3, **fields})
    row = dense[7, 3] if dense.ndim == 3 else dense[3]
    torch.testing.assert_close(walk["mapped"], row[walk["rows"]].float(), **close)
    assert walk["mapped_total"] == pytest.approx(float(row.abs().sum()), rel=1e-5)


def test_the_maps_that_a_model_serves_and_why_not(address):
    card = read(address)
    maps = {offer["name"]: offer for offer in card["maps"]}
    assert list(maps) == ["weights", "value-weighted", "norms", "gradient", "logits"]
    assert [name for name, offer in maps.items() if not offer["heads"]] == ["norms"]
    assert [name for name, offer in maps.items() if offer["target"]] == ["gradient", "logits"]
    assert [name for name, offer in maps.items() if offer["signed"]] == ["logits"]
    missing = {name: offer["missing"] for name, offer in maps.items() if offer["missing"]}
    assert missing == {"logits": "all-MiniLM-L6-v2 predicts no next token."}
    assert card["target"] == "the sentence's vector"
    refused = ask(address, {"type": "layer_weights", "reading": card["reading"], "layer": 0, "map": "logits"})
    assert refused.status == 400
    assert refused["error"].startswith("logits: ")
    unknown = ask(address, {"type": "layer_weights", "reading": card["reading"], "layer": 0, "map": "flow"})
    assert (unknown.status, unknown["error"].partition(":")[0]) == (400, "map")


def test_a_target_is_named_or_refused(address):
    key = read(address)["reading"]
    assert ask(address, {"type": "target", "reading": key, "target": "word:flies"})["name"] == "the vector of “flies”"
    for target, error in (("word:dog", "There is no word 'dog'"), ("nonsense", "expected one of these forms")):
        for kind in ("target", "layer_weights"):
            fields = {"layer": 0, "map": "gradient"} if kind == "layer_weights" else {}
            reply = ask(address, {"type": kind, "reading": key, "target": target, **fields})
            assert reply.status == 400
            assert error in reply["error"]


def test_a_target_is_no_place_for_a_book(address):
    reply = ask(address, {"type": "target", "reading": read(address)["reading"], "target": "text:" + "x" * 2000})
    assert (reply.status, reply["error"]) == (413, "target: it has 2,005 characters, and the limit is 2,000.")


def test_a_decoder_says_what_a_word_adds_to_the_next(tmp_path):
    lens = regard.Lens(save_decoder(tmp_path / "small"))
    api = ViewerAPI({"small": lambda: lens})
    card = finished(api, {"type": "read", "text": "the cat sat on the bank"})
    assert not [offer["missing"] for offer in card["maps"] if offer["missing"]]
    reading = api.cache.get(card["reading"])
    target = default_target(reading)
    assert card["target"] == target.name
    fields = {"reading": card["reading"], "layer": 1, "map": "logits"}
    numbers = between_units(reading, map_of(reading, "logits", 1, target).dense())
    assert numbers.min() < 0 < numbers.max()
    torch.testing.assert_close(finished(api, {"type": "layer_weights", **fields})["weights"], numbers)
    other = finished(api, {"type": "layer_weights", **fields, "target": "next:money"})["weights"]
    assert not torch.allclose(other, numbers)
    api.close()


def test_a_reading_without_its_model_has_its_maps_with_a_reason(lens):
    api = ViewerAPI({}, opening=pickle.loads(pickle.dumps(lens.read(ARROW))))
    card = api.handle({"type": "metadata", **api.handle({"type": "start"})["opening"]})
    assert card["target"] is None
    assert [offer["name"] for offer in card["maps"] if offer["missing"] is None] == ["weights"]
    assert all(offer["missing"].endswith(".") for offer in card["maps"] if offer["name"] != "weights")
    api.close()


def test_one_backward_pass_serves_all_layers(monkeypatch, lens):
    module = importlib.import_module("regard.attribution.gradient")
    passes, compute = [], module._computed
    monkeypatch.setattr(module, "_computed", lambda *inputs: (passes.append(inputs), compute(*inputs))[1])
    api = ViewerAPI({"m": lambda: lens})
    key = finished(api, {"type": "read", "text": ARROW})["reading"]
    passes.clear()
    for layer in range(6):
        for kind in ("thumbnails", "layer_weights"):
            finished(api, {"type": kind, "reading": key, "layer": layer, "map": "gradient"})
    assert len(passes) == 1
    finished(api, {"type": "layer_weights", "reading": key, "layer": 0, "map": "gradient", "target": "word:flies"})
    assert len(passes) == 2
    api.close()


def test_maps_are_evicted_as_readings_are(lens):
    api = ViewerAPI({"m": lambda: lens})
    key = finished(api, {"type": "read", "text": ARROW})["reading"]
    fields = {"type": "layer_weights", "reading": key, "map": "norms"}
    before = api.cache.used
    finished(api, {**fields, "layer": 0})
    taken = api.cache.used - before
    own = 4 * 7 * 12 * (12 + 2 * 32)  # the products of 12 heads' vectors, and query and key, which a map keeps alive
    assert own <= taken < 2 * own
    api.cache.limit = api.cache.used
    for layer in range(1, 6):
        finished(api, {**fields, "layer": layer})
        assert api.cache.used <= api.cache.limit
    api.close()


def test_a_comparison_leaves_out_the_texts_that_lack_the_word(address):
    texts = [
        "A river bank.",
        "No such word here, in a text that is longer than the sixty characters shown.",
        "The bank.",
    ]
    reply = ask(address, {"type": "compare", "word": "bank", "texts": texts})
    assert [place["text"] for place in reply["places"]] == [texts[0], texts[2]]
    assert [text["text"] for text in reply["left_out"]] == [1]
    assert reply["left_out"][0]["reason"].startswith(
        "In “No such word here, in a text that is longer than the sixt…”: There"
    )
    assert ask(address, {"type": "compare", "word": "bank", "texts": texts[::2]})["left_out"] == []


def test_identical_texts_are_one_group(address):
    reply = ask(address, {"type": "compare", "word": "bank", "texts": ["The bank lent her the money."] * 4})
    assert reply["clusters"] == [[0, 1, 2, 3], []]
    assert not reply["plane"].isnan().any()


def test_a_word_that_occurs_too_often_to_be_compared(address):
    reply = ask(address, {"type": "compare", "word": "the", "texts": ["the cat and the dog " * 20] * 3})
    assert (reply.status, reply["error"]) == (400, "“the” occurs more than 64 times, the most that can be compared.")


# Readings come and go

FIELDS = {
    "metadata": {},
    "word_weights": {"layer": 0, "word": 0},
    "layer_weights": {"layer": 0},
    "thumbnails": {"layer": 0},
    "tile": {"layer": 0, "head": 0, "level": 0, "row": 0, "column": 0},
    "walk": {"layer": 0, "head": 0, "token": 0},
    "target": {"target": "word:A"},
    "page": {"layer": 0, "head": 0},
}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_server_that_was_started_anew_says_so_to_the_program(address, kind):
    """A page from before the restart can act on it: it reads its text again, which has the same name."""
    text = f"A server that was restarted before {kind}"
    key = reading_id("all-MiniLM-L6-v2", text, "")
    reply = ask(address, {"type": kind, "reading": key, **FIELDS[kind]})
    assert (reply.status, reply["code"]) == (404, "unknown_reading")
    assert read(address, text)["reading"] == key
    assert ask(address, {"type": kind, "reading": key, **FIELDS[kind]}).status == 200


def test_a_reading_knows_the_whole_text_that_it_was_made_of(address):
    text, pair = "A long text. " * 300, "And its pair."
    for asked in ({"text": text}, {"text": text, "pair": pair}):
        key = read(address, **asked)["reading"]
        card = ask(address, {"type": "metadata", "reading": key})
        assert card["source"] == {"model": "all-MiniLM-L6-v2", "pair": None, **asked}


class Slow:
    """A model that reads a text in as many steps as it has characters: `go` lets it take all that are left."""

    def __init__(self, lens):
        self.lens, self.begun, self.go = lens, [], threading.Event()

    def read(self, text, pair=None, progress=lambda share: None):
        self.begun.append(text)
        while len(text) > 4096 and not self.go.wait(0.01):
            progress(0.5)
        return self.lens.read(text[:100], pair, progress=progress)


@pytest.fixture
def slow(lens):
    return Slow(lens)


@pytest.fixture
def api(slow):
    api = ViewerAPI({"slow": lambda: slow})
    yield api
    api.close()


LONG = "a long text " * 400


def finished(api, question):
    """The answer, asked for as the page asks: with the number of the job."""
    answer = api.handle(question)
    while "progress" in answer:
        answer = api.handle({**question, "job": answer["job"]})
    return answer


def test_a_short_text_does_not_wait_for_a_long_one(api, slow):
    assert api.handle({"type": "read", "text": LONG})["progress"] == 0.5
    assert finished(api, {"type": "read", "text": ARROW})["units"][1:-1] == ARROW.split()
    compared = finished(api, {"type": "compare", "word": "cat", "texts": ["a cat sat", "the cat sat"]})
    assert len(compared["places"]) == 2
    assert "progress" in api.handle({"type": "read", "text": LONG})
    assert "progress" in api.handle({"type": "read", "text": LONG + "another"})  # one long text at a time
    assert LONG + "another" not in slow.begun
    slow.go.set()
    assert "units" in finished(api, {"type": "read", "text": LONG + "another"})


def test_what_was_cancelled_stays_cancelled(api, slow):
    started = api.handle({"type": "read", "text": LONG})
    assert api.handle({"type": "cancel", "job": started["job"]}) == {"jobs": 1}
    key = reading_id("slow", LONG, "")
    for kind in FIELDS:
        with pytest.raises(RequestError, match="cancelled: read it again") as refused:
            api.handle({"type": kind, "reading": key, **FIELDS[kind]})
        assert (refused.value.status, refused.value.code) == (409, "cancelled")
    late = api.handle({"type": "read", "text": LONG, "job": started["job"]})  # on its way when Cancel was pressed
    assert late == {"cancelled": True}
    assert slow.begun == [LONG]
    slow.go.set()
    assert "units" in finished(api, {"type": "read", "text": LONG})  # who asks again gets it
    assert slow.begun == [LONG, LONG]


def test_a_reading_that_made_room_is_made_again_after_a_cancellation_too(api, slow):
    slow.go.set()
    key = finished(api, {"type": "read", "text": LONG})["reading"]
    api.cache.limit = 0
    finished(api, {"type": "read", "text": ARROW})
    slow.go.clear()
    again = api.handle({"type": "thumbnails", "reading": key, "layer": 0})
    assert api.handle({"type": "cancel", "job": again["job"]}) == {"jobs": 1}
    slow.go.set()
    assert "shares" in api.handle({"type": "thumbnails", "reading": key, "layer": 0}, wait=20)


def test_the_same_text_has_the_same_bits_in_every_thread(lens):
    """Also where the number of threads was changed meanwhile, on which the rounding of matrix products depends."""
    text = "The unbelievable cat sat on the mat; the tokenizer slept."
    keys = [text + " " * spaces for spaces in (0, 5000)]  # the same tokens, read in the one lane and in the other
    api = ViewerAPI({"m": lambda: lens})
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for warm in ("a", "a" + " " * 5000):
            finished(api, {"type": "read", "text": warm})
        torch.set_num_threads(1)
        expected = lens.read(text)
        with ThreadPoolExecutor(4) as pool:
            cards = list(pool.map(lambda key: finished(api, {"type": "read", "text": key}), keys * 2))
        for card in cards:
            reading = api.cache.get(card["reading"])
            assert torch.equal(reading.hidden, expected.hidden)
            for actual, wanted in zip(reading.attention, expected.attention, strict=True):
                assert torch.equal(actual.lse, wanted.lse)
                assert torch.equal(actual.output, wanted.output)
    finally:
        torch.set_num_threads(threads)
        api.close()


# Who may come in


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "192.168.0.1"]
)
def test_another_name_is_turned_away(address, host):
    assert request(address, Host=host)[0] in (400, 421)
    assert request(address, "POST", "/api", b'{"type": "start"}', Host=host)[0] in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST"])
def test_its_own_names_are_known(address, host):
    assert request(address, Host=f"{host}:{urlsplit(address).port}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://localhost", "http://localhost:1", "http://[", ""]
)
def test_a_page_elsewhere_may_not_ask(address, origin):
    status, _, content = request(address, "POST", "/api", b'{"type": "start"}', Origin=origin)
    assert (status, json.loads(content)["error"]) == (403, "Cross-origin request refused.")
    own = f"http://{urlsplit(address).netloc}"
    assert request(address, "POST", "/api", b'{"type": "start"}', Origin=own)[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_nor_by_an_image_or_a_script(address, site):
    assert request(address, path="/assets/viewer.js", Sec_Fetch_Site=site)[0] == 403
    assert request(address, Sec_Fetch_Site=site)[0] == 200  # a link may lead here
    assert request(address, "POST", "/api", b"{}", Sec_Fetch_Site=site)[0] == 403


def test_the_policy_is_strict(address):
    for path in ("/", "/assets/viewer.js", "/nothing"):
        _, headers, _ = request(address, path=path)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "server" not in {name.lower() for name in headers}


def test_another_address_needs_a_token(serving):
    with pytest.raises(ValueError, match=r"0\.0\.0\.0 can be reached from other machines: give a token"):
        serving_module.application(None, "0.0.0.0")
    with pytest.raises(ValueError, match="at least 8 printable ASCII characters"):
        serving_module.application(None, "0.0.0.0", "secret")
    started = serving("--host", "0.0.0.0", "--token", "open-sesame-42").address
    assert started.endswith("/?token=open-sesame-42")
    address = f"http://127.0.0.1:{urlsplit(started).port}/"
    for path in ("/", "/assets/viewer.js", "/?token=open-sesame-43", "/?token=%C3%A9", "/?token="):
        status, _, content = request(address, path=path)
        assert (status, "requires a token" in json.loads(content)["error"]) == (401, True)
    status, headers, _ = request(address, path="/?token=open-sesame-42")
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert request(address, Cookie=cookie.partition(";")[0])[0] == 200
    assert request(address, Authorization="Bearer open-sesame-42")[0] == 200
    assert request(address, Authorization="Bearer open-sesame")[0] == 401
    assert request(address, Cookie=cookie.partition(";")[0], Host=f"{socket.gethostname()}")[0] == 200
    assert request(address, Cookie=cookie.partition(";")[0], Host="evil.example")[0] == 421


def test_models_come_only_from_the_list(address):
    for model in (3, {}, ["all-MiniLM-L6-v2"]):
        assert read(address, model=model)["error"].startswith("model: expected a string. Got ")
    for model in ("/etc", "../..", "bert-base-uncased", "all-MiniLM-L6-v2/"):
        reply = read(address, model=model)
        assert (reply.status, reply["error"]) == (
            403,
            "model: expected one of all-MiniLM-L6-v2, which were chosen at the start.",
        )


# Bad input

QUESTIONS = {
    "not JSON": (b"{", "The request is not JSON in UTF-8."),
    "not UTF-8": (b'{"type": "\xff"}', "The request is not JSON in UTF-8."),
    "nothing": (b"", "The request is not JSON in UTF-8."),
    "too deep": (b"[" * 100_000, "The request is not JSON in UTF-8."),
    "a list": (b"[]", "Expected a JSON object with"),
    "no type": (b"{}", "type: expected one of start, read"),
    "an odd type": (b'{"type": {}}', "type: expected one of start, read"),
    "an unknown type": (b'{"type": "__class__"}', "type: expected one of start, read"),
    "no text": (b'{"type": "read"}', "text: missing."),
    "an empty text": (b'{"type": "read", "text": " "}', "text: there is no text."),
    "a number for a text": (b'{"type": "read", "text": 3}', "text: there is no text."),
    "half a letter": (b'{"type": "read", "text": "a\\ud800"}', "is not valid Unicode"),
    "an odd comparison": (
        b'{"type": "page", "reading": "KEY", "layer": 0, "head": 0, "comparison": "bank"}',
        "comparison: expected",
    ),
    "an unknown reading": (b'{"type": "metadata", "reading": "0"}', "Unknown reading"),
    "an odd reading": (b'{"type": "metadata", "reading": {}}', "reading: expected a string."),
    "no texts": (b'{"type": "compare", "word": "a", "texts": []}', "texts: expected 1 to 32 texts."),
    "odd texts": (b'{"type": "compare", "word": "a", "texts": [1]}', "text: there is no text."),
    "a word not there": (b'{"type": "compare", "word": "zebra", "texts": ["a cat"]}', "There is no word 'zebra'"),
    "one place": (b'{"type": "compare", "word": "cat", "texts": ["a cat"]}', "“cat” occurs only once"),
}


@pytest.mark.parametrize(("body", "message"), QUESTIONS.values(), ids=QUESTIONS)
def test_what_is_no_question_gets_a_clear_message(address, body, message):
    body = body.replace(b"KEY", read(address)["reading"].encode())
    status, _, content = request(address, "POST", "/api", body)
    while status == 200 and b'"progress"' in content[:60]:
        status, _, content = request(address, "POST", "/api", body)
    assert 400 <= status < 500, content
    assert message in json.loads(content)["error"]
    goes_on(address)


PARTS = {"layer": 0, "head": 0, "level": 0, "row": 0, "column": 0, "word": 0, "token": 0}
WHERE = {
    "layer": "tile",
    "head": "tile",
    "level": "tile",
    "row": "tile",
    "column": "tile",
    "word": "word_weights",
    "token": "walk",
}


@pytest.mark.parametrize("value", [-1, 1, 2**31, 2**70, 0.0, "0", None, True, [], -(2**70), 99])
@pytest.mark.parametrize("name", PARTS)
def test_indices_out_of_range_are_refused(address, name, value):
    key = read(address)["reading"]
    reply = ask(address, {"type": WHERE[name], "reading": key, "side": "from", **PARTS, name: value})
    if value == 1 and value is not True and name in ("layer", "head", "word", "token"):
        assert reply.status == 200
        return
    assert reply.status == 400, reply
    assert name in reply["error"] or "There is no tile" in reply["error"]


@pytest.mark.parametrize(
    ("name", "value"), [("side", "left"), ("reduce", "sum"), ("hide", "yes"), ("side", []), ("hide", 7)]
)
def test_choices_are_named(address, name, value):
    kind = {"side": "word_weights"}.get(name, "tile")
    reply = ask(address, {"type": kind, "reading": read(address)["reading"], **PARTS, name: value})
    assert reply.status == 400
    assert reply["error"].startswith(f"{name}: expected one of")


def test_a_text_over_the_limit(address):
    reply = read(address, "a " * (TEXT_LIMIT // 2) + "a")
    assert (reply.status, reply["error"]) == (413, "text: it has 1,048,577 characters, and the limit is 1,048,576.")
    status, _, content = request(address, "POST", "/api", b" " * (serving_module.BODY_LIMIT + 1))
    assert (status, json.loads(content)["error"]) == (413, "The request is longer than 8,388,608 bytes.")
    goes_on(address)


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "</script><!--", "a" + "\u0301" * 10_000, "\u202eevil\u0000"]
)
def test_hostile_texts_are_texts(address, text):
    card = read(address, text)
    assert card.status == 200
    assert card["text"] == text[:2000]


def test_a_thousand_requests_at_once(address):
    key = read(address)["reading"]
    statuses = []

    def request_weights(n):
        reply = ask(address, {"type": "word_weights", "reading": key, "layer": n % 6, "word": n % 7, "side": "from"})
        statuses.append(reply.status)
        assert reply.status in (200, 503)
        assert reply.status == 200 or reply["error"] == "Too many requests at once: try again in a moment."

    with ThreadPoolExecutor(200) as pool:
        list(pool.map(request_weights, range(1000)))
    assert len(statuses) == 1000
    assert statuses.count(200) >= 500
    goes_on(address)


def test_a_cancelled_request(address):
    where = urlsplit(address)
    text = " ".join(f"cancelled{n}" for n in range(2000))
    body = json.dumps({"type": "read", "text": text}).encode()
    for _ in range(20):
        with socket.create_connection((where.hostname, where.port)) as connection:
            connection.sendall(
                b"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, and gone
    assert ask(address, {"type": "cancel", "job": 10**9})["jobs"] == 0
    goes_on(address)


@pytest.fixture
def impatient(monkeypatch):
    """The address of a server in this process, at which a request must arrive within two seconds."""
    assert serving_module.TIMEOUT == 10
    monkeypatch.setattr(serving_module, "TIMEOUT", 2.0)
    addresses, api, lens = queue.Queue(), ViewerAPI({"tiny": lambda: lens}, opening=("a cat", None)), regard.Lens()
    threading.Thread(target=serving_module.serve, args=(api, "127.0.0.1", 0, None, addresses.put), daemon=True).start()
    yield addresses.get(timeout=20)
    api.close()


def test_a_client_that_sends_a_byte_at_a_time(impatient):
    """Is let go when the time is up, and keeps nobody else from being served meanwhile."""
    where = urlsplit(impatient)
    head = b"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"

    def drip(at_once, slowly):
        """What the server says in the end, and the seconds until then."""
        with socket.create_connection((where.hostname, where.port), timeout=0.2) as slow:
            began = time.monotonic()
            slow.sendall(at_once)
            for byte in slowly:
                try:
                    return slow.recv(10_000), time.monotonic() - began
                except TimeoutError:
                    slow.sendall(bytes([byte]))
                except ConnectionResetError:
                    return b"", time.monotonic() - began

    with ThreadPoolExecutor() as clients:
        slow_head = clients.submit(drip, b"", head)
        slow_body = clients.submit(drip, head + b"\r\n", b" " * 1000)
        goes_on(impatient)
        said = [client.result()[0] for client in (slow_head, slow_body)]
        took = [client.result()[1] for client in (slow_head, slow_body)]
    assert said[0] == b""
    assert b"408" in said[1]
    assert all(1.6 < seconds < 8 for seconds in took), took  # the head alone would take 13
    goes_on(impatient)


def test_it_ends_when_asked(serving):
    started = serving("a cat")
    goes_on(started.address)
    started.process.terminate()
    assert started.process.wait(10) is not None


# Memory


def test_memory_is_bounded(serving):
    """Readings beyond --memory go, the least used first, and come back when they are asked for."""
    address = serving("--memory", "40").address
    texts = [" ".join(f"{word}{n}" for word in ("alpha", "beta", "gamma") for _ in range(30)) for n in range(6)]
    keys = [read(address, text)["reading"] for text in texts]
    memory = read(address, texts[-1])["memory"]
    assert memory["limit"] == 40 << 20
    assert memory["used"] <= memory["limit"]
    assert memory["readings"] < len(texts) + 1
    for n in range(60):
        key = keys[n % len(keys)]
        tile = ask(address, {"type": "tile", "reading": key, **PARTS})
        assert tile.status == 200, tile
    assert read(address, texts[0])["memory"]["used"] <= 40 << 20
