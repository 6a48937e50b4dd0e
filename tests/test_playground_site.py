"""regard playground: what it writes, where, and what it refuses."""

import json
import re

import pytest

from regard.playground import site, weights
from regard.playground.models import models
from support.cli import could_not, done
from support.models import saved


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return saved("bert", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def command(run, tiny):
    """The command with the tiny encoder, so that nothing large is written."""
    return lambda *arguments: run("playground", "--model", tiny, *arguments)


def manifest(folder, page="index.html"):
    text = (folder / page).read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="models">(.*?)</script>', text)[1])


def test_it_says_what_it_wrote_and_how_to_look_at_it(command, tmp_path):
    out = tmp_path / "new" / "site"
    printed = done(command("--out", out))
    files = {str(path.relative_to(out)): path.stat().st_size for path in out.rglob("*") if path.is_file()}
    for name, size in files.items():
        assert re.search(rf"^ *{size / 1e6:.2f} MB  {re.escape(str(out / name))}$", printed, re.MULTILINE)
    assert f"{sum(files.values()) / 1e6:.2f} MB  in all" in printed
    assert printed.endswith(f"python -m http.server --directory {out}\n")
    assert {path.name for path in out.parent.iterdir()} == {"site"}, "no temporary folder is left"


def test_its_manifest_says_what_it_has(command, tmp_path):
    report = json.loads(done(command("--out", tmp_path / "site", "--json")))
    listed = manifest(tmp_path / "site")
    assert report["models"] == list(listed)
    assert report["models"][0] == "encoder"
    assert report["files"] == {
        str(path.relative_to(tmp_path / "site")): path.stat().st_size
        for path in (tmp_path / "site").rglob("*")
        if path.is_file()
    }
    assert listed["encoder"]["label"] == "tiny"
    assert listed["encoder"]["bytes"] == report["files"][listed["encoder"]["file"]]
    assert "lesson.html" not in report["files"], "its exercises are about the usual models"
    assert 'href="lesson.html"' not in (tmp_path / "site/index.html").read_text()


def test_the_lesson_is_there_where_the_models_are_the_usual_ones(tmp_path, tiny):
    out = tmp_path / "site"
    usual = [model for model in models([str(tiny)]) if model.usual]
    assert [model.name for model in usual] == ["stories", "dates"]
    sizes = site.write(out, usual)
    assert {"lesson.html", "lesson.js", "lesson.css"} < set(sizes)
    assert manifest(out, "lesson.html") == manifest(out)
    places = dict(re.findall(r"\b(\w+): ?\"(plain(?:_decoder)?\.html#L\d+)\"", (out / "lesson.js").read_text()))
    assert len(places) >= 15
    for function, place in places.items():
        page, line = place.split("#")
        assert f'<span id="{line}">def {function}(' in (out / page).read_text(), "a link to the lines of a program"
    assert 'href="lesson.html"' in (out / "index.html").read_text()
    site.write(out, models([str(tiny)]))
    assert not (out / "lesson.html").exists()
    assert list(manifest(out)) == ["encoder", "stories", "dates"]


def test_a_playground_is_replaced_and_other_files_in_it_stay(command, tmp_path, tiny):
    out = tmp_path / "site"
    done(command("--out", out))
    (out / "notes.txt").write_text("mine")
    (out / "models/old.js").write_text("of an older page")
    (out / "viewer.css").write_text("")
    done(command("--out", out))
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "models/old.js").exists()
    assert (out / "viewer.css").stat().st_size > 1000


def test_the_same_models_make_the_same_files(tiny, tmp_path):
    for name in ("a", "b"):
        site.write(tmp_path / name, models([str(tiny)]))
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_what_else_is_there_is_never_overwritten(command, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/index.html").write_text("<h1>My thesis</h1>")
    could_not(command("--out", tmp_path / "thesis"), "holds something else than a playground: name another folder")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["index.html"]
    could_not(command("--out", tmp_path / "thesis/index.html"), "index.html is a file: name a folder to write")
    (tmp_path / "empty").mkdir()
    done(command("--out", tmp_path / "empty"))


def test_a_failure_leaves_nothing_behind(command, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "write", fail)
    could_not(command("--out", tmp_path / "site"), "No space left on device")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (
            "gpt2",
            "gpt2 cannot run in the page. The page runs encoders of BERT's family and decoders of Llama's, and no",
        ),
        ("roberta", "roberta cannot run in the page. .*does not compute the positions of RoBERTa."),
        ("llama", "llama cannot run in the page. The page does not compute this tokenizer: "),  # not byte-level
    ],
)
def test_a_model_that_the_page_cannot_run_is_refused_with_the_reason(run, tmp_path, family, message):
    folder = saved(family, tmp_path / family)
    could_not(run("playground", "--out", tmp_path / "site", "--model", folder), message)
    assert not (tmp_path / "site").exists()


def test_models_that_are_not_there(run, tiny, tmp_path):
    (tmp_path / "nothing").mkdir()
    could_not(run("playground", "--out", tmp_path / "site", "--model", tmp_path / "nothing"), "it has no config.json.")
    could_not(
        run("playground", "--out", tmp_path / "site", "--model", tiny, "--model", tiny),
        "the playground has one encoder",
    )
    missing = run("playground", "--model", tiny)
    assert missing.code == 2
    assert "--out" in missing.err
