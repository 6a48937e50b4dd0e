"""Running the command line in the process of the tests, and what is expected of its output."""

import re
import sys
from types import SimpleNamespace

import pytest

import regard
import regard.lens
from regard import cli

ARROW = "Time flies like an arrow"
FLIES = [ARROW, "The bird flies over the house", "Fruit flies like a banana", "Swat the flies with a newspaper"]
REGARD = [sys.executable, "-c", "from regard.cli import main; main()"]


@pytest.fixture(scope="module")
def embedded_lens():
    return regard.Lens()


def runner(monkeypatch, capsys, *beginning):
    """A function that runs the command line with some arguments after these: exit code, stdout and stderr."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["regard", *beginning, *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = done.code or 0
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return command


@pytest.fixture
def run(embedded_lens, monkeypatch, capsys):
    """Run a command in this process: exit code, stdout and stderr. The embedded model is opened once for all."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    real = regard.lens.Lens
    monkeypatch.setattr(regard.lens, "Lens", lambda model=None, **more: real(model, **more) if model else embedded_lens)

    return runner(monkeypatch, capsys)


def done(result):
    assert (result.code, result.err) == (0, "")
    return result.out


def could_not(result, message):
    assert result.code == 1
    assert result.out == ""
    assert re.fullmatch(rf"regard: [^\n]*{message}[^\n]*\n", result.err), result.err
    assert "Traceback" not in result.err
