"""Start-up time against that of what regard is built on.

`import regard` against `import torch`, the first command against importing transformers, and the first token of the
embedded decoder against that of transformers' own script, from the same converted folder.

All with the bytecode that a first start leaves behind, as an installed package has it.

python benchmarks/start.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from tempfile import TemporaryDirectory

from regard._internal.measure import interleaved, machine_line
from regard.models import embedded_decoder_folder

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

WRITE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], attn_implementation="sdpa")
ids = tokenizer(sys.argv[2], return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=1, do_sample=False)[0]))
"""
PROMPT = "The capital of France is"
FIRST_TOKEN = {
    "transformers: from_pretrained, generate one token, sdpa": (sys.executable, "-c", WRITE),
    f'regard generate "{PROMPT}" --max-tokens 1': (
        sys.executable,
        "-c",
        "from regard.cli import main; main()",
        "generate",
        PROMPT,
        "--max-tokens",
        "1",
    ),
}


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def main(rounds: int = 9) -> None:
    print(machine_line())
    with TemporaryDirectory() as bytecode:
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
        measure(rounds, environment)


def measure(rounds: int, environment: Mapping[str, str]) -> None:
    pairs = [(IMPORTS, 1.02), (COMMANDS, 0.7)]
    try:
        folder = str(embedded_decoder_folder())  # converted first, where it is not yet
        peer, ours = FIRST_TOKEN
        pairs.append(({peer: (*FIRST_TOKEN[peer], folder, PROMPT), ours: FIRST_TOKEN[ours]}, 1.3))
    except ImportError as error:
        print(error)
    for commands, goal in pairs:
        medians = interleaved({name: partial(run, command, environment) for name, command in commands.items()}, rounds)
        for name, median in medians.items():
            print(f"  {name:<56} {median:6.2f} s")
        peer, ours = medians.values()
        print(f"  ratio {ours / peer:.2f} (goal: at most {goal})")


if __name__ == "__main__":
    main()
