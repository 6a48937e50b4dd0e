"""The page about answers from documents: what it says is run, and its commands are there."""

import re
import shlex
from pathlib import Path

import pytest

import regard
from regard import answers
from support.guides import run_guide

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "ask.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^regard .+$", TEXT, re.MULTILINE)]


@pytest.mark.usefixtures("smollm2")
def test_what_it_says_is_what_happens():
    run_guide(PAGE, 16)


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links == [section.lower().replace(",", "").replace(" ", "-") for section in SECTIONS]
    page, section = re.search(r"\]\((\w+\.md)#([^)]+)\)", TEXT).groups()
    assert re.search(rf"^## {section}$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[3:]) or "plain")
def test_its_commands_run(run, smollm2, monkeypatch, tmp_path, command):
    monkeypatch.setattr(regard.lens, "Lens", lambda model, **options: smollm2)
    notes = re.search(r'notes = """(.*?)"""', TEXT, re.DOTALL)[1]
    file = tmp_path / "notes.txt"
    file.write_text(re.sub(r"^\.\.\. ?", "", notes, flags=re.MULTILINE))
    result = run(*(file if word == "notes.txt" else word for word in command))
    assert result.code == 0, result.err
    assert "The museum is closed on Mondays." in result.out


def test_the_right_passage_comes_first(smollm2):
    """Ten facts: all heads together name another one."""
    facts = """Jonas keeps 17 goats.
The bakery in Oakham opens at six o'clock.
Clara plays the oboe.
The bridge in Upton is 163 metres long.
The train to Selby leaves from platform 54.
Olga works as a nurse.
The mayor of Redhill is called Ingram.
The library of Kelso is painted yellow.
Hugo has a dog called Pepper.
The school in Marlow has 216 pupils."""
    divided = answers.passages(facts, "lines")
    answer = answers.ask(smollm2, "How long is the bridge in Upton?", divided)
    assert "163" in answer.reply
    best, *others = answer.sentences[0].sources
    assert divided[best.passage].text == "The bridge in Upton is 163 metres long."
    assert best.knockout > 3 > max(source.knockout for source in others)
    assert best.score > 2 * max(source.score for source in others)
