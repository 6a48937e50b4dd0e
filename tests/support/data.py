"""Real data that is not part of the repository.

REGARD_TEST_DATA names its folder; the default is ../shared beside the checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = Path(os.environ.get("REGARD_TEST_DATA") or CHECKOUT.parent / "shared")

STORIES = ROOT / "models" / "stories260k"  # a trained decoder
STS = ROOT / "evaluation" / "sts-dev.csv"  # STS-B, development set
TREEBANK = ROOT / "evaluation" / "en_ewt-ud-dev.conllu"  # English Web Treebank, development set


def required(path: Path) -> Path:
    """The path, if it exists; otherwise the test is skipped."""
    import pytest  # benchmarks use this module, too

    if not path.exists():
        pytest.skip(f"{path} does not exist; set REGARD_TEST_DATA to the folder of the test data")
    return path
