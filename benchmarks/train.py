"""An encoder trained from plain text against a trigram model: the held-out masked tokens that each predicts.

python benchmarks/train.py [--steps N] [--kills N]
"""

import argparse
import ast
import json
import random
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from regard._internal.measure import machine_line
from regard.train import masked
from regard.train import text as texts
from regard.train.options import Options
from regard.train.run import held_out_examples, train

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.data import TREEBANK as EVALUATION


def corpus() -> str:
    """Sentences of the web, where the data is there, and the documentation strings of Python's standard library."""
    lines = []
    if EVALUATION.exists():
        for line in EVALUATION.read_text(encoding="utf-8").splitlines():
            if line.startswith("# text = "):
                lines.append(line.removeprefix("# text = "))
    else:
        print("  without the sentences of en_ewt-ud-dev.conllu, which is not here")
    for file in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in file.parts or "test" in file.parts or "tests" in file.parts:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
        docs = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        lines += [line for doc in docs if doc for line in doc.splitlines()]
    return "\n".join(lines)


class Trigrams:
    """Counts of three, two and single tokens in the order of reading: the most frequent continuation known.

    `both` also looks ahead: it takes the token that is most frequent between the two neighbours, where it was seen.
    """

    def __init__(self, blocks):
        self.after_two, self.after_one, self.between = (defaultdict(Counter) for _ in range(3))
        self.frequent = Counter()
        for row in blocks.tolist():
            for a, b, c in zip(row, row[1:], row[2:], strict=False):
                self.after_two[a, b][c] += 1
                self.after_one[b][c] += 1
                self.between[a, c][b] += 1
                self.frequent[c] += 1

    def guess(self, row, n, both):
        tables = [(self.after_two, (row[n - 2], row[n - 1]) if n > 1 else None), (self.after_one, row[n - 1])]
        if both and n + 1 < len(row):
            tables.insert(0, (self.between, (row[n - 1], row[n + 1])))
        for table, context in tables:
            if context in table:
                return table[context].most_common(1)[0][0]
        return self.frequent.most_common(1)[0][0]

    def accuracy(self, changed, ids, at, both):
        right = total = 0
        for row, true, here in zip(changed.tolist(), ids.tolist(), at.tolist(), strict=True):
            for n, asked in enumerate(here):
                if asked:
                    total += 1
                    right += self.guess(row, n, both) == true[n]
        return right / total


def compare(steps: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "text.txt", Path(folder) / "model"
        file.write_text(corpus(), encoding="utf-8")
        options = Options() if steps is None else Options(steps=steps)

        def show(progress):
            if progress.step % options.eval_every == 0:
                print(
                    f"    step {progress.step:5}  loss {progress.loss:.2f}  accuracy {progress.accuracy:.1%}",
                    flush=True,
                )

        report = train([file], out, options, progress=show)
        tokenizer, text = texts.load_tokenizer(out), texts.read([file])
        learned = masked.blocks(tokenizer, text.learned, options.seq_length)
        held_out = masked.blocks(tokenizer, text.held_out, options.seq_length)
        changed, labels = held_out_examples(masked, held_out, tokenizer.get_vocab_size())
        counts = Trigrams(learned)
    before, between = (counts.accuracy(changed, held_out, labels >= 0, both) for both in (False, True))
    accuracy = report["best"]["accuracy"]
    print(f"  {learned.numel():,} tokens, {report['parameters']:,} parameters, {report['seconds']:.0f} s of training")
    print(f"  held-out masked tokens: {accuracy:.1%}; trigrams: {before:.1%}, with the next token: {between:.1%}")
    print(f"  {100 * (accuracy - before):.1f} points above the trigram model (goal: at least 5)")


def kill(times: int) -> None:
    """An undisturbed run, and one that is killed at random moments and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_text(corpus()[:200_000], encoding="utf-8")
        sizes = (
            "--layers 1 --dim 32 --heads 2 --vocab-size 1000 --seq-length 32 --steps 2000 --eval-every 20 --dropout 0.1"
        )
        command = [sys.executable, "-c", "from regard.cli import main; main()", "train", str(file), *sizes.split()]

        def ended(out, *more):
            done = subprocess.run([*command, "--out", str(out), "--json", *more], capture_output=True, check=True)
            return json.loads(done.stdout)

        whole, out, killed = ended(Path(folder) / "whole"), Path(folder) / "killed", 0
        while killed < times:
            process = subprocess.Popen(
                [*command, "--out", str(out), *(["--resume"] if out.exists() and any(out.iterdir()) else [])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(random.uniform(2, 6))  # of which Python's start takes about two
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        again = ended(out, "--resume")
    same = [whole[name] == again[name] for name in ("final_loss", "best", "held_out", "steps")]
    print(f"  killed {killed} times: final loss {again['final_loss']!r}, undisturbed {whole['final_loss']!r}")
    print(f"  {'the same to the bit' if all(same) else 'NOT THE SAME'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of training, if not as many as the default")
    parser.add_argument("--kills", type=int, help="instead, kill a small run so often")
    arguments = parser.parse_args()
    print(machine_line())
    if arguments.kills:
        kill(arguments.kills)
    else:
        compare(arguments.steps)
