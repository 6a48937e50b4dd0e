"""Attention over a recurrent network against self-attention, on tasks with a right answer."""

from typing import Literal

TaskName = Literal["reverse", "dates", "numbers"]
