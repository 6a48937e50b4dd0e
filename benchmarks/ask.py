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
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from ask_documents import FACTS, documents, is_right
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler

import regard
from regard.answers.direct import direct_logits
from regard.answers.heads import shipped
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
    logits = direct_logits(reading, asked).sum(0)
    looked = time.perf_counter()
    result = {
        "reply": generation.text,
        "right": is_right(generation.text, document),
        "fact": document.fact,
        "tokens": [asked.reply, len(asked.ids) - asked.reply],
        "mass": [[[round(number, 6) for number in head] for head in layer] for layer in mass.tolist()],
        "logits": logits.tolist(),
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


def context_cite(line, hidden, count):
    """What ContextCite makes of so many ablations: LASSO on the log-odds of the reply, a number for each passage."""
    tokens, total = line["tokens"][1], np.array(line["ablated"][:count])
    odds = total - np.log1p(-np.exp(np.minimum(total, -1e-9)))
    scaler = StandardScaler()
    scaled = scaler.fit_transform(1 - hidden[:count].numpy().astype(np.float32))
    return Lasso(alpha=0.01, random_state=0).fit(scaled, odds / tokens).coef_ / scaler.scale_ * tokens


def numbers_of(line, heads, hidden):
    """Every method's number for each passage of a document."""
    mass, logits = torch.tensor(line["mass"]), torch.tensor(line["logits"])
    predicted = heads.predicted(mass, logits)
    return {
        "score": heads.scores(predicted).numpy(),
        "attention, heads that matter": heads.weighted(mass).numpy(),
        "attention, all heads": mass.mean((0, 1)).numpy(),
        "direct logits": logits.numpy(),
        "knockout": line["whole"] - np.array(line["single"]),
        **{f"ContextCite, {count} ablations": context_cite(line, hidden, count) for count in (2, 8, 12, ABLATIONS)},
    }


def table(lines, heads, asked):
    """The figures, from the lines of a file and the documents that they are of."""
    right = [
        (line, document) for line, document in zip(lines, asked, strict=False) if is_right(line["reply"], document)
    ]
    hidden = hidden_of(ABLATIONS + HELD_OUT, 0, FACTS)
    first, correlation = defaultdict(list), defaultdict(list)
    for line, _ in right:
        for name, numbers in numbers_of(line, heads, hidden).items():
            first[name].append(numbers.argmax() == line["fact"])
            kept = 1 - hidden[ABLATIONS:].numpy().astype(float)
            predicted = (kept @ numbers).round(9)
            correlation[name].append(spearmanr(predicted, line["held out"]).statistic if np.ptp(predicted) else 0.0)
    print(f"{len(lines)} documents, {len(right)} answered rightly ({len(right) / len(lines):.0%}); of these:")
    print(f"{'':32}{'fact first':>12}{'LDS':>16}")
    for name in first:
        rank = np.array(correlation[name])
        error = rank.std(ddof=1) / np.sqrt(len(rank))
        print(f"{name:32}{np.mean(first[name]):>12.1%}{rank.mean():>10.3f} ± {error:.3f}")
    timed = [line["seconds"] for line, _ in right if "seconds" in line]
    ratios = [seconds["theirs"] / seconds["ours"] for seconds in timed]
    ours, theirs = (np.median([seconds[name] for seconds in timed]) for name in ("ours", "theirs"))
    print(f"one pass: {ours:.2f} s, 32 ablations: {theirs:.1f} s; 1/{np.median(ratios):.1f} of the time (medians)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("ask-results"))
    parser.add_argument("--model", default="SmolLM2-135M-Instruct")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="measure nothing: print the table of what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(exist_ok=True)
    name = Path(arguments.model).name
    file = arguments.folder / f"{name}-{arguments.seed}.jsonl"
    asked = documents(arguments.documents, arguments.seed)
    done = len(file.read_text().splitlines()) if file.exists() else 0
    if not arguments.table and done < arguments.documents:
        lens = regard.Lens(arguments.model)
        for document in asked[done:]:
            line = json.dumps(measure(lens, document))
            with open(file, "a") as lines:
                lines.write(line + "\n")
    heads = shipped(name)
    if heads is None:
        raise SystemExit(f"There are no head weights for {name}.")
    table([json.loads(line) for line in file.read_text().splitlines()], heads, asked)


if __name__ == "__main__":
    main()
