"""The documentation as a site: every public name is on it, its Python runs, its links lead somewhere, it builds."""

import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import regard
from regard.cli import app
from support.guides import DOCS, PAGES, python_of, run_guide

sys.path.insert(0, str(DOCS / "extensions"))
try:
    from docstrings import converted, documented, full_name
    from notebooks import as_markdown
except ImportError:  # Sphinx and MyST are an extra
    pytest.skip("the extra docs is not installed", allow_module_level=True)
finally:
    sys.path.remove(str(DOCS / "extensions"))

ROOMS = [
    "regard", "regard.lens", "regard.attribution", "regard.attribution.heads", "regard.atlas", "regard.answers",
    "regard.hf", "regard.hf.cache", "regard.nn", "regard.corpus",
]  # fmt: skip
MARKDOWN = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


# The API


def public_names():
    """Every name that a room calls public, or, in a room that has no list, every function that it defines."""
    for room in ROOMS:
        module = importlib.import_module(room)
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == room]
        for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
            yield f"{room}.{name}", getattr(module, name)


def objects():
    return {name: value for name, value in public_names() if inspect.isclass(value) or inspect.isfunction(value)}


def test_every_public_name_has_a_page():
    pages = {id(importlib.import_module(room).__dict__[name]) for room, _, name in
             (full.rpartition(".") for full in documented())}  # fmt: skip
    assert {name for name, value in objects().items() if id(value) not in pages} == set()


@pytest.mark.parametrize("name", [name for name, value in public_names() if name not in objects()])
def test_every_other_public_name_is_on_a_page(name):
    short = name.rpartition(".")[2]
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    assert re.search(rf"^\.\. (py:data:: {short}|currentmodule:: {re.escape(name)})$", pages, re.MULTILINE)


OLD = "The old name of"  # which works for one release


def methods(kind):
    """The methods that a class defines and explains itself; what a module's forward pass does, its class explains."""
    for name, value in vars(kind).items():
        method = getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(method) and name != "forward" and method.__doc__:
            yield name, method.__doc__


def docstrings(full):
    """Of an object and of its methods, by name."""
    room, _, name = full.rpartition(".")
    value = getattr(importlib.import_module(room), name)
    yield full, value.__doc__
    if inspect.isclass(value):
        yield from ((f"{full}.{name}", text) for name, text in methods(value))


@pytest.mark.parametrize("name", documented())
def test_every_page_has_an_example(name):
    without = {full for full, text in docstrings(name) if ">>>" not in text and not text.startswith(OLD)}
    assert without == set()


# Markdown


@pytest.mark.parametrize("name", [name for name, file in PAGES.items() if file == "docs"])
def test_the_python_of_a_page_runs(name):
    run_guide(DOCS / f"{name}.md", 3)


def test_the_python_of_every_page_is_run():
    assert {str(page.relative_to(DOCS).with_suffix("")) for page in MARKDOWN if python_of(page)} == PAGES.keys()
    for page, name in PAGES.items():
        text = (Path(__file__).parent / f"test_{name}.py").read_text(encoding="utf-8")
        assert f'"{page}.md"' in text or name == "docs"


def commands(page):
    """The commands of regard in the blocks of a page, as words."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^regard (.+)$", block, re.MULTILINE):
            yield shlex.split(line, comments=True)


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(DOCS)))
def test_commands_have_the_options_that_are_named(page):
    for words in commands(page):
        command = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), words
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} - options == set()


def anchors(page):
    """The anchors that GitHub and the site give to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_contents():
    contents = {"index"}
    for page in MARKDOWN:
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            entries = re.findall(r"^(?!:)(?:.+ <)?([\w/-]+)>?$", block, re.MULTILINE)
            contents |= {str((page.parent / entry).relative_to(DOCS)) for entry in entries}
    pages = [*MARKDOWN, *DOCS.glob("notebooks/*.ipynb")]
    assert {str(page.relative_to(DOCS).with_suffix("")) for page in pages} == contents


# Docstrings and notebooks as pages


def test_a_docstring_becomes_restructured_text():
    text = """What |x| is, times *two*, by `Weights` and `a + b`.

        y = 2 · x

    Args:
        x, y: numbers_, of which
            there are two.

    Raises: ValueError otherwise.

    >>> 1 + 1
    2
    """
    assert converted(inspect.cleandoc(text), "regard.attention", ["regard.Weights"]) == inspect.cleandoc(r"""
        What \|x\| is, times \*two\*, by :py:obj:`Weights <regard.Weights>` and ``a + b``.

        ::

            y = 2 · x

        :Parameters:
            - **x, y** – numbers\_, of which there are two.

        :Raises:
            ValueError otherwise.

        >>> 1 + 1
        2
        """)


def test_a_name_means_what_is_nearest():
    known = ["regard.Weights", "regard.Map", "regard.answers.Source", "regard.corpus.Source"]
    assert full_name("Source", "regard.corpus.EmbedConfig", known) == "regard.corpus.Source"
    assert full_name("Source", "regard.answers.ask", known) == "regard.answers.Source"
    assert full_name("entropy", "regard.Weights.topk", known) == "regard.Weights.entropy"
    assert full_name("Map.pool", "regard.attribution.norms", known) == "regard.Map.pool"
    assert full_name("nothing", "regard.Weights", known) is None


def test_a_notebook_becomes_markdown():
    picture = {"data": {"image/png": "aGVsbG8=\n", "text/plain": ['<A picture of "flies">']}}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text."]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": ["1\n"]}, picture]},
        {"cell_type": "code", "source": "%pip list", "outputs": [{"data": {"text/html": "<b>2</b>"}}]},
    ]
    text = as_markdown({"cells": cells})
    assert text.startswith("# Title\nText.\n\n````python\nprint(1)\n````\n\n````text\n1\n````\n\n")
    assert text.endswith('````{raw} html\n<div class="notebook-output"><b>2</b></div>\n````\n')
    assert '<img src="data:image/png;base64,aGVsbG8=" alt="&lt;A picture of &quot;flies&quot;&gt;">' in text


# The site


def test_the_version_is_the_package_s():
    names = {"__file__": str(DOCS / "conf.py"), "tags": set()}
    before = list(sys.path)
    try:
        exec((DOCS / "conf.py").read_text(encoding="utf-8"), names)
    finally:
        sys.path[:] = before
    assert names["release"] == regard.__version__


def test_the_site_builds_without_warnings_and_asks_no_other_host(tmp_path):
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--quiet", DOCS, tmp_path / "html"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    pages = sorted((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|iframe|source|video)[^>]*\ssrc=\"(?:https?:)?//[^\"]+", text) == []
        assert re.findall(r"<link[^>]*\shref=\"(?:https?:)?//[^\"]+", text) == []
    for style in (tmp_path / "html").rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+", text) == []
