"""An encoder of BERT-base's shape, random weights, on texts of 16 to 512 tokens: regard beside transformers with SDPA.

transformers gets padded batches of texts of similar length.

python benchmarks/base.py [--texts 96] [--rounds 3]
"""

import argparse
import random
import shutil
import tempfile
from pathlib import Path

import torch

from regard.bench.embed import measure, sample_texts
from regard.models import embedded_folder


def texts_of(count):
    """English texts of about 16 to 512 tokens, evenly distributed."""
    chance, words = random.Random(0), " ".join(sample_texts(1500)).split()
    texts = []
    for _ in range(count):
        start = chance.randrange(len(words) - 400)
        texts.append(" ".join(words[start : start + round(chance.uniform(16, 512) / 1.6)]))
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from rich.console import Console
    from transformers import BertConfig, BertModel

    from regard.bench.embed_view import table

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)
        shutil.copy(embedded_folder() / "tokenizer.json", folder)
        names = ["regard", "regard-bf16", "transformers"]
        report = measure(texts_of(arguments.texts), folder, names, arguments.rounds, alone=False)
    Console(width=120, highlight=False).print(table(report))
    print(f"  transformers takes {report.ratio('transformers'):.2f} × as long (goal: at least 2)")


if __name__ == "__main__":
    main()
