"""What pyproject.toml says of the package, and what the files beside it say of the same things."""

import re
import tomllib
from pathlib import Path

import pytest

import regard
from support.areas import AREA, SLOW_FILES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = dict(
    line.split("==") for line in (ROOT / "constraints-oldest.txt").read_text().splitlines() if not line.startswith("#")
)
REQUIRED = [
    *PROJECT["dependencies"],
    *(line for extra in ("plot", "corpus", "serve") for line in PROJECT["optional-dependencies"][extra]),
]


def floor(name):
    (requirement,) = (line for line in REQUIRED if re.match(rf"{name}\b(?!-)", line))
    return re.search(r">=([\d.]+)", requirement)[1]


@pytest.mark.parametrize("name", OLDEST)
def test_the_oldest_releases_that_are_tested_are_those_that_are_declared(name):
    declared, tested = ([int(number) for number in version.split(".")] for version in (floor(name), OLDEST[name]))
    assert declared == tested[: len(declared)]
    assert not any(tested[len(declared) :])


@pytest.mark.parametrize("name", [re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]])
def test_every_dependency_is_tested_at_its_oldest(name):
    assert name in OLDEST


def test_the_version_is_said_once():
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", regard.__version__)
    assert f"version: {regard.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_licences_are_there():
    assert [path for path in PROJECT["license-files"] if not (ROOT / path).is_file()] == []


def test_the_package_says_that_it_is_typed():
    assert Path(regard.__file__).with_name("py.typed").is_file()


def test_every_file_of_tests_has_an_area():
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    assert files == AREA.keys()
    assert {f"test_{name}.py" for name in SLOW_FILES} <= files
