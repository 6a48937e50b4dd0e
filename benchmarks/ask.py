"""`regard ask` on made-up documents: does the passage that holds the fact come first, and does the score predict?

For every document: the reply and, where it is right, each passage's score, attention, direct logit attribution and
knockout; and the log-probability of the reply under random choices of passages, of which ContextCite's LASSO
(Cohen-Wang et al. 2024, https://arxiv.org/abs/2409.00729, with the options of its package, context-cite) sees 32, and
others are held out. The linear datamodeling score (LDS, Park et al. 2023, https://arxiv.org/abs/2303.14186) is the
rank correlation, over those, of the log-probability with the sum of the scores of the passages that are there.

Results go to a file in --folder, a line for each document; run again, it goes on where it stopped. The table is of all
documents in the file.

python benchmarks/ask.py [--documents 200] [--folder ask-results] [--model SmolLM2-135M-Instruct] [--table]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ask_documents import documents, is_right

import regard
from regard.answers.direct import direct_logits
from regard.answers.hiding import log_probabilities
from regard.answers.mass import masses
from regard.answers.passages import passages
from regard.answers.prompt import asked_of, prompt_of

ABLATIONS, HELD_OUT, MAX_TOKENS = 32, 16, 32


def hidden_of(count, first, size):
    """ContextCite's own random choices: number n hides each passage with probability ½, from the seed n."""
    kept = [np.random.RandomState(seed).choice([False, True], size=size, p=[0.5, 0.5]) for seed in range(first, count)]
    return torch.from_numpy(~np.array(kept))


def measure(lens, document):
    """All numbers of a document, as they are kept in the file."""
    divided = passages(document.text)
    size, prompt = len(divided), prompt_of(lens, document.question, divided)
    generation = lens.chat(prompt.messages, max_tokens=MAX_TOKENS)
    start = time.perf_counter()
    for _ in generation:
        pass
    written = time.perf_counter()
    reading = generation.reading
    asked = asked_of(reading, prompt)
    mass = masses(reading, asked).of_passages.sum(2)  # of the whole reply
    looked = time.perf_counter()
    result = {
        "reply": generation.text,
        "right": is_right(generation.text, document),
        "fact": document.fact,
        "tokens": [asked.reply, len(asked.ids) - asked.reply],
        "mass": [[[round(number, 6) for number in head] for head in layer] for layer in mass.tolist()],
        "logits": direct_logits(reading, asked).sum(0).tolist(),
    }
    if not result["right"]:
        return result
    single = torch.cat([torch.zeros(1, size, dtype=torch.bool), torch.eye(size, dtype=torch.bool)])
    hidden = hidden_of(ABLATIONS + HELD_OUT, 0, size)
    known = log_probabilities(lens, asked, torch.cat([single, hidden[ABLATIONS:]]))
    before = time.perf_counter()
    ablated = log_probabilities(lens, asked, hidden[:ABLATIONS])
    seconds = {"reply": written - start, "ours": looked - written, "theirs": time.perf_counter() - before}
    total = torch.cat([known, ablated]).double().sum(1).tolist()
    return result | {
        "whole": total[0],
        "single": total[1 : size + 1],
        "held out": total[size + 1 : size + 1 + HELD_OUT],
        "ablated": total[size + 1 + HELD_OUT :],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("ask-results"))
    parser.add_argument("--model", default="SmolLM2-135M-Instruct")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(exist_ok=True)
    file = arguments.folder / f"{Path(arguments.model).name}-{arguments.seed}.jsonl"
    done = len(file.read_text().splitlines()) if file.exists() else 0
    if not arguments.table and done < arguments.documents:
        lens = regard.Lens(arguments.model)
        for document in documents(arguments.documents, arguments.seed)[done:]:
            line = json.dumps(measure(lens, document))
            with open(file, "a") as lines:
                lines.write(line + "\n")


if __name__ == "__main__":
    main()
