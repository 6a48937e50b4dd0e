"""The rooms of the package and the order of their imports: one way, without circles."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import regard

SOURCE = Path(regard.__file__).parent

# A module imports from its own room and from those in lines above, never from a line below.
ORDER = [
    ["regard._internal", "regard._typing"],
    ["regard._checks"],
    ["regard.mask"],
    ["regard.scores"],
    ["regard.backends"],
    ["regard.weights"],
    ["regard.attention"],
    ["regard.nn", "regard.hf"],
    ["regard.models"],
    ["regard.lens"],
    ["regard"],
    ["regard.attribution"],
    ["regard.answers", "regard.atlas"],
    ["regard.corpus"],
    ["regard.train", "regard.race", "regard.bench"],
    ["regard.output"],
    ["regard.viewer"],
    ["regard.playground"],
    ["regard.cli"],
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
UPWARD = {"regard.lens.display", "regard.atlas.display"}  # readings and atlases show themselves by lines below theirs


def module_of(path):
    """The dotted name of a file of the package."""
    name = ".".join(("regard", *path.relative_to(SOURCE).with_suffix("").parts))
    return name.removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCE.rglob("*.py")}


def imports(source, known):
    """The modules of the package that a source imports, wherever in it; not those for type checkers alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "regard")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "regard":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


@cache
def graph():
    return {
        name: set(imports(path.read_text("utf-8"), MODULES.keys() | {"regard._kernel"})) - {"regard._kernel", name}
        for name, path in MODULES.items()
    }


def room(module):
    return ".".join(module.split(".")[:2])


def test_every_file_is_in_a_room():
    assert {room(name) for name in MODULES} - LEVEL.keys() == set()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name):
    above = {other for other in graph()[name] if LEVEL[room(other)] > LEVEL[room(name)]}
    assert name in UPWARD or not above, f"{name} may not import {', '.join(sorted(above))}"


def test_rooms_of_one_line_do_not_know_each_other():
    strangers = {
        (name, other)
        for name, others in graph().items()
        for other in others
        if LEVEL[room(name)] == LEVEL[room(other)] and room(name) != room(other)
    }
    assert strangers == set()


def test_no_imports_go_in_a_circle():
    modules = {name: others for name, others in graph().items() if name not in UPWARD}
    try:
        TopologicalSorter(modules).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_that_a_circle_would_be_seen():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    source = "if TYPE_CHECKING:\n    import regard.x\ndef late():\n    from regard.lens import words\nimport regard.cli"
    assert set(imports(source, {"regard.lens.words"})) == {"regard.lens.words", "regard.cli"}


DOCS = SOURCE.parents[1] / "docs" / "architecture.md"


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`([\w/]+(?:\.(?:py|hpp|cpp|js)|/))`", DOCS.read_text("utf-8"))))
)
def test_the_files_that_the_documentation_names_are_there(name):
    root = SOURCE.parents[1]
    places = [root, root / "csrc", root / "csrc" / "kernel", SOURCE, SOURCE / "backends"]
    assert any((place / name).exists() for place in places)
