"""The page about decoders: what it says is run, and no statistic of the cache is missing."""

import re
from pathlib import Path

import pytest

from regard.hf import cache
from support.guides import run_guide

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "decoders.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)


@pytest.mark.usefixtures("smollm2")
def test_what_it_says_is_what_happens():
    run_guide(PAGE, 26)


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links == [section.lower().replace(" ", "-") for section in SECTIONS]
    page, section = re.search(r"\]\((\w+\.md)#([^)]+)\)", TEXT).groups()
    assert re.search(rf"^## {section.replace('-', ' ')}$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.I)


@pytest.mark.parametrize("name", ["received", "h2o", "snapkv", "tova", "kvzip", "kept", "lost"])
def test_no_statistic_of_the_cache_is_missing(name):
    assert re.search(rf"\b{name}\(", TEXT)
    assert callable(getattr(cache, name))
