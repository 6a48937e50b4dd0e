"""The memory of embedding 300 short texts with a model that is not packed, of ModernBERT-base's shape.

python benchmarks/embed_memory.py [TEXTS]

regard and sentence-transformers, each in a process of its own: the peak of memory above that with the model open and
a text embedded.
"""

from __future__ import annotations

import json
import random
import string
import sys
import tempfile
import time
from pathlib import Path

from regard._internal.measure import PeakMemory, in_process, machine_line

WORDS = ["".join(random.Random(n).choices(string.ascii_lowercase, k=5)) for n in range(2000)]


def make_model(folder: Path) -> None:
    """A random model with a tokenizer of whole words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    transformers.utils.logging.disable_progress_bar()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(special + WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    config = transformers.ModernBertConfig(vocab_size=50_368, **ids)
    transformers.ModernBertModel(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)


def texts(count: int) -> list[str]:
    """Texts of 3 to 40 random words."""
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=chance.randint(3, 40))) for _ in range(count)]


def measure(name: str, folder: str, count: int) -> dict[str, float]:
    if name == "regard":
        import regard

        embed = regard.Lens(folder).embed
    else:
        import sentence_transformers

        model = sentence_transformers.SentenceTransformer(folder, device="cpu")

        def embed(texts: list[str]) -> object:
            return model.encode(texts, show_progress_bar=False)

    embed(["one text"])
    with PeakMemory() as peak:
        start = time.perf_counter()
        embed(texts(count))
        taken = time.perf_counter() - start
    return {"bytes": peak.bytes, "seconds": taken}


def main(count: int = 300) -> None:
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        usage = {name: in_process(__file__, name, folder, str(count)) for name in ("regard", "sentence-transformers")}
    for name, used in usage.items():
        print(f"  {name}: {count} texts, {used['bytes'] / 2**20:.0f} MiB above the open model, {used['seconds']:.1f} s")
    ratio = usage["regard"]["bytes"] / usage["sentence-transformers"]["bytes"]
    print(f"  ratio {ratio:.2f} (goal: at most 1.3)")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        main(*map(int, sys.argv[1:]))
