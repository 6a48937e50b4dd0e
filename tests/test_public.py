"""The public surface: few names, each explained, and an import that is no heavier than torch's."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import regard

SOURCE = Path(regard.__file__).parent
CORE = ["_checks", "_typing", "attention", "mask", "scores"]
CORE = [SOURCE / f"{name}.py" for name in CORE]
CORE += sorted(path for room in ("backends", "weights") for path in (SOURCE / room).glob("*.py"))

HEAVY = {
    "matplotlib", "pandas", "pyarrow", "ray", "rich", "safetensors", "scipy", "sentence_transformers", "sklearn",
    "starlette", "tokenizers", "torchvision", "transformers", "typer", "uvicorn",
}  # fmt: skip


# Names


def test_names_are_sorted_and_there():
    assert regard.__all__ == sorted(regard.__all__)
    assert len(regard.__all__) == len(set(regard.__all__))
    for name in regard.__all__:
        assert hasattr(regard, name), name


def test_nothing_else_is_public():
    """What `dir` shows beside the names are the modules they come from."""
    others = {name for name in vars(regard) if not name.startswith("_")} - set(regard.__all__)
    assert {name for name in others if f"regard.{name}" not in sys.modules} == set()


@pytest.mark.parametrize("name", regard.__all__)
def test_every_name_is_explained(name):
    public = getattr(regard, name)
    assert public.__doc__
    assert not public.__doc__.startswith(f"{name}(")  # the signature that a dataclass writes itself
    if isinstance(public, type):
        for member, value in vars(public).items():
            if not member.startswith("_") and callable(value):
                assert value.__doc__, f"{name}.{member}"


def test_the_options_are_those_of_the_contract():
    """Every option of attention() is explained, in the order in which it stands."""
    options = list(regard.attention.__annotations__)[3:-1]
    explained = [regard.attention.__doc__.index(f"        {option}: ") for option in options]
    assert explained == sorted(explained)


# Imports


def loaded_by(statement):
    """The heavy packages that a fresh Python has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stdout.split())


def test_importing_regard_loads_nothing_heavy():
    assert loaded_by("import regard; from regard import *") == set()


def test_attention_is_imported_without_models():
    """And what is left for later is there when it is asked for; the collector is on again."""
    code = """
import gc, sys, regard
assert "regard.lens" not in sys.modules and "regard.models" not in sys.modules and gc.isenabled()
assert {"Lens", "Walk", "attention"} <= set(dir(regard))
assert regard.models.PickledWeightsError and regard.lens.Lens is regard.Lens
try:
    regard.Lense
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "module 'regard' has no attribute 'Lense'\n"


def test_that_a_heavy_import_would_be_seen():
    assert loaded_by("import regard, safetensors") == {"safetensors"}


def imported(source):
    """The top-level packages that a module imports when it runs; not those for type checkers alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    result = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            result |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            result.add("." if node.level else node.module.partition(".")[0])
    return result


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_core_imports_nothing_but_torch(path):
    assert imported(path.read_text("utf-8")) - set(sys.stdlib_module_names) <= {"torch", "regard"}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    """The core knows nothing of what stands on it."""
    source = path.read_text("utf-8")
    for above in ("nn", "lens", "hf", "corpus", "view", "cli"):
        assert f"regard.{above}" not in source
        assert f"from regard import {above}" not in source


def test_that_another_import_would_be_seen():
    source = "if TYPE_CHECKING:\n    import jaxtyping\ndef late():\n    from numpy.linalg import norm\nimport torch.nn"
    assert imported(source) == {"numpy", "torch"}
