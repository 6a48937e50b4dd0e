"""The programs that try many random cases work, and find nothing in a few."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    "command", [("fuzz.py", "--cases", "300"), ("gpu.py", "--device", "cpu", "--seconds", "3")], ids=lambda c: c[0]
)
def test_a_few_cases(command):
    program, *options = command
    done = subprocess.run([sys.executable, TESTS / program, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
