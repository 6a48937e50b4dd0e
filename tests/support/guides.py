"""The pages of docs/, and their Python, which runs as it stands."""

import doctest
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
# Pages with Python, and the file of tests that runs it. A guide's own file also holds what else the guide says.
PAGES = {
    "ask": "ask_guide",
    "atlas": "atlas_guide",
    "attribution": "attribution_guide",
    "decoders": "decoders_guide",
    "from-scratch": "guide",
    "long": "docs",
    "own-model": "docs",
    "speed": "docs",
    "start": "docs",
}


def python_of(page):
    """The Python of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run_guide(page, least):
    """Run the Python of a page in one session: all of it prints what it says, in `least` examples or more."""
    example = doctest.DocTestParser().get_doctest("\n".join(python_of(page)), {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(example)
    assert len(example.examples) >= least
    assert runner.summarize(verbose=False) == doctest.TestResults(failed=0, attempted=len(example.examples))
