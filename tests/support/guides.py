"""Guides of docs/ that run as they stand."""

import doctest
import re


def run_guide(page, least):
    """Run the Python of a page in one session: all of it prints what it says, in `least` examples or more."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(example)
    assert len(example.examples) >= least
    assert runner.summarize(verbose=False) == doctest.TestResults(failed=0, attempted=len(example.examples))
