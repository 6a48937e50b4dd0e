"""The page about attribution: what it says is run, its picture is made as it says, and no method is missing."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from regard import attribution
from support.cli import done
from support.guides import run_guide

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "attribution.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^regard .+$", TEXT, re.MULTILINE)]


def test_what_it_says_is_what_happens():
    try:
        run_guide(PAGE, 41)
    finally:
        attribution.MAPS.pop("along", None)  # the map of one's own


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links[: len(SECTIONS)] == [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in SECTIONS]
    assert set(links) == set(links[: len(SECTIONS)])


@pytest.mark.parametrize("name", sorted(attribution.__all__))
def test_no_method_is_missing(name):
    assert re.search(rf"\b{name}\b", TEXT)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_its_commands_run(run, command, tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    done(run(*command))
    for name in (word for word in command if word.endswith(".png")):
        with Image.open(tmp_path / name) as made, Image.open(DOCS.parent / name) as kept:
            assert abs(made.width - kept.width) < 20
            assert abs(made.height - kept.height) < 20


def test_its_picture_is_made_by_a_command_that_it_names():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert {f"docs/{name}" for name in pictures} == {
        word for command in COMMANDS for word in command if word.endswith(".png")
    }
