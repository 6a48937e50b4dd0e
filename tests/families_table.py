"""What the rules of families_tiny.py cannot guess: changes to configurations and inputs, by the model's class."""

from __future__ import annotations

from typing import Any

CONFIGS: dict[str, dict[str, Any]] = {}
INPUTS: dict[str, dict[str, Any]] = {}
