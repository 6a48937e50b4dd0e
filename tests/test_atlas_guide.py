"""The page about the atlas: what it says is run, its table is that of the scores, and its commands are there."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from regard.attribution.heads import SCORES
from support.guides import run_guide

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "atlas.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
PLANTED = re.search(r"^## Two heads that complete a pattern$.*?(?=^## )", TEXT, re.MULTILINE | re.DOTALL)[0]


@pytest.fixture(autouse=True)
def print_options():
    """As before: the page sets how tensors are printed."""
    yield
    torch.set_printoptions(profile="default")


@pytest.fixture(scope="module")
def pictures():
    """The program that draws the pictures."""
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_planted_heads_do_what_it_says(tmp_path):
    page = tmp_path / "planted.md"
    page.write_text(PLANTED, encoding="utf-8")
    run_guide(page, 25)


@pytest.mark.usefixtures("smollm2")
def test_what_it_says_is_what_happens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_guide(PAGE, 50)


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links == [section.lower().replace(" ", "-") for section in SECTIONS]


def test_its_table_has_every_score():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+), (.+) \| (.+) \| (.+) \|$", TEXT, re.MULTILINE)
    assert [name for name, *_ in rows] == list(SCORES)
    for name, _, least, largest, found_from, _ in rows:
        score = SCORES[name]
        told = tuple(None if number == "–" else float(number.replace("−", "-")) for number in (least, largest))
        assert told == score.range
        assert found_from == ("–" if score.found_from is None else f"{score.found_from:g}")
        assert all(f"({link})" in TEXT for link in re.findall(r"https://[\w./]*\w", score.paper))


def test_its_pictures(pictures):
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert shown == [f"{draw.__name__.replace('_', '-')}.png" for draw in pictures.PICTURES["atlas"]]
    for name in shown:
        with Image.open(DOCS / name) as picture:
            assert picture.width > 800


def test_the_planted_heads_of_the_picture(pictures):
    (before, letters), (after, _) = pictures.planted().values()
    assert letters == list("^catca")
    assert before.diagonal(-1).min() > 0.99
    assert after.diagonal(-2)[2:].min() > 0.99
