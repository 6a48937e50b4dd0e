"""Word-sense disambiguation on CoarseWSD-20: the nearest sense, as the mean of its word vectors in the training texts.

Loureiro, Rezaee, Pilehvar and Camacho-Collados 2021, https://doi.org/10.1162/coli_a_00405. Recall is averaged over
senses, so that rare ones count as much. The baselines are the static embedding of the word and its position (layer 0),
and the mean of the static embeddings of all words in the text.

python benchmarks/senses.py FOLDER [--model FOLDER]        FOLDER has a folder for each word: train.data.txt and so on
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

import regard


def read(folder, split):
    """The texts of a split, the span of the word in each, and its senses."""
    texts, spans = [], []
    for line in (folder / f"{split}.data.txt").read_text(encoding="utf-8").splitlines():
        index, text = line.split("\t")
        words = text.split(" ")
        start = len(" ".join([*words[: int(index)], ""]))
        texts.append(text)
        spans.append([(start, start + len(words[int(index)]))])
    gold = (folder / f"{split}.gold.txt").read_text(encoding="utf-8").split()
    return texts, spans, np.array(gold)


def vectors(lens, texts, spans):
    """(layers,texts,dim): the vectors of the word at every layer."""
    embeddings = lens.embed(texts, "word", "all", aggregate="concatenate", spans=spans)
    assert all(len(array) == 1 for array in embeddings.vectors)
    return np.concatenate(embeddings.vectors).reshape(len(texts), lens.layers + 1, -1).transpose(1, 0, 2)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def recall(train, senses, test, gold):
    """The mean over senses of the share of test words whose nearest centroid is that of their sense."""
    names = np.unique(senses)
    centroids = unit(np.stack([unit(train)[senses == name].mean(0) for name in names]))
    nearest = names[(unit(test) @ centroids.T).argmax(1)]
    return np.mean([(nearest[gold == name] == name).mean() for name in np.unique(gold)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    lens = regard.Lens(arguments.model)
    words = sorted(path.name for path in arguments.folder.iterdir() if path.is_dir())
    ranges = [range(first, last) for first, last in itertools.combinations(range(lens.layers + 2), 2)]
    recalls = {layers: {} for layers in ranges}  # of the mean of these layers
    selection = {layers: [] for layers in ranges}
    around = {}
    for word in words:
        texts, spans, senses = read(arguments.folder / word, "train")
        train = vectors(lens, texts, spans)
        texts, spans, gold = read(arguments.folder / word, "test")
        test = vectors(lens, texts, spans)
        contexts = [
            lens.embed(read(arguments.folder / word, split)[0], layers=0).vectors for split in ("train", "test")
        ]
        around[word] = recall(contexts[0], senses, contexts[1], gold)
        half = np.arange(len(senses)) % 2 == 0  # the layers are selected on the training texts
        for layers in ranges:
            of_train, of_test = train[list(layers)].mean(0), test[list(layers)].mean(0)
            recalls[layers][word] = recall(of_train, senses, of_test, gold)
            selection[layers].append(recall(of_train[half], senses[half], of_train[~half], senses[~half]))
    best = max(ranges, key=lambda layers: np.mean(selection[layers]))
    print(f"{lens.name}: recall, averaged over senses, in %")
    columns = {
        "static": recalls[range(1)],
        "static, around": around,
        "last layer": recalls[range(lens.layers, lens.layers + 1)],
        f"layers {best[0]} to {best[-1]}": recalls[best],
    }
    print("  " + " " * 8 + "".join(f"{name:>16}" for name in columns))
    for word in words:
        print(f"  {word:8}" + "".join(f"{100 * column[word]:16.1f}" for column in columns.values()))
    means = [100 * np.mean(list(column.values())) for column in columns.values()]
    print(f"  {'mean':8}" + "".join(f"{mean:16.1f}" for mean in means))
    print(f"  above the static embedding: {means[-1] - means[0]:+.1f} points (goal: at least 15)")


if __name__ == "__main__":
    main()
