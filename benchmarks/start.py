"""Start-up time: `import regard` against `import torch`, and the first command against importing transformers.

python benchmarks/start.py
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from regard._internal.measure import interleaved, machine_line

IMPORTS = {
    "import torch": (sys.executable, "-c", "import torch"),
    "import regard": (sys.executable, "-c", "import regard"),
}
COMMANDS = {
    "import torch, transformers, AutoModel": (
        sys.executable,
        "-c",
        "import torch, transformers; from transformers import AutoModel",
    ),
    'regard explain "Time flies like an arrow" --word flies': (
        sys.executable,
        "-c",
        "from regard.cli import main; main()",
        "explain",
        "Time flies like an arrow",
        "--word",
        "flies",
    ),
}


def run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main(rounds: int = 9) -> None:
    print(machine_line())
    for commands, goal in ((IMPORTS, 1.1), (COMMANDS, 1.3)):
        medians = interleaved({name: partial(run, command) for name, command in commands.items()}, rounds)
        for name, median in medians.items():
            print(f"  {name:<56} {median:6.2f} s")
        peer, ours = medians.values()
        print(f"  ratio {ours / peer:.2f} (goal: at most {goal})")


if __name__ == "__main__":
    main()
