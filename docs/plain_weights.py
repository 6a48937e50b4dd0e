"""The weights of plain.py and plain_decoder.py: a tiny encoder, and a tiny decoder that translates what it has read.

python docs/plain_weights.py [FOLDER]        a few minutes; the JSON files are written to docs if no folder is given

Both learn from sentences that a small grammar makes, in English and in German. The encoder is trained as `regard train`
trains one. The decoder then learns to translate from the encoder's vectors, which do not change any more. Weights are
rounded to three decimals, and a matrix W is stored as (in, out), so that x W reads as it is written.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

import regard.nn
from regard.train import run
from regard.train.text import load_tokenizer

DOCS = Path(__file__).parent
NOUNS = {  # English: German, gender, what it does
    "arrow": ("Pfeil", "m", ""), "apple": ("Apfel", "m", ""), "stone": ("Stein", "m", ""),
    "banana": ("Banane", "f", ""), "flower": ("Blume", "f", ""), "book": ("Buch", "n", ""), "house": ("Haus", "n", ""),
    "bird": ("Vogel", "m", "flies flies sings"), "fish": ("Fisch", "m", "swims"), "dog": ("Hund", "m", "runs sleeps"),
    "man": ("Mann", "m", "runs sings swims falls"), "cat": ("Katze", "f", "runs sleeps falls"),
    "bee": ("Biene", "f", "flies"), "woman": ("Frau", "f", "runs sings swims falls"),
    "girl": ("Mädchen", "n", "runs sings swims falls"), "horse": ("Pferd", "n", "runs swims"),
    "child": ("Kind", "n", "sings sleeps falls"),
}  # fmt: skip
LIVING, FOOD = [noun for noun in NOUNS if NOUNS[noun][2]], ("apple", "banana", "fish", "flower")
PLURALS = {  # with no article before them
    "fruit flies": "Fruchtfliegen", "house flies": "Stubenfliegen", "flies": "Fliegen", "birds": "Vögel",
    "house cats": "Hauskatzen", "dogs": "Hunde", "bees": "Bienen", "girls": "Mädchen", "children": "Kinder",
}  # fmt: skip
ADJECTIVES = {"old": "alt", "big": "groß", "small": "klein", "red": "rot", "green": "grün", "young": "jung"}
INTRANSITIVE = {  # as it is after a singular: its German
    "flies": "fliegt", "runs": "läuft", "swims": "schwimmt", "sings": "singt", "sleeps": "schläft", "falls": "fällt",
}  # fmt: skip
TRANSITIVE = [  # after a singular, after a plural: their German
    (("likes", "mag"), ("like", "mögen")), (("sees", "sieht"), ("see", "sehen")), (("eats", "isst"), ("eat", "essen")),
    (("finds", "findet"), ("find", "finden")),
]  # fmt: skip
DEFINITE = {"m": "der", "f": "die", "n": "das"}
INDEFINITE = {"m": ("ein", "er"), "f": ("eine", "e"), "n": ("ein", "es")}  # and the end of the adjective after it
SPECIAL = ("[PAD]", "[BEGIN]", "[END]")
SENTENCES, ENCODER_STEPS, DECODER_STEPS = 20_000, 6_000, 5_000
DIM, HEADS, LAYERS, POSITIONS = 32, 2, 2, 16


def noun_phrase(pick: random.Random, noun: str, accusative: bool = False) -> tuple[str, str]:
    """A noun with an article and sometimes an adjective; in the accusative German changes those of masculine nouns."""
    german, gender, _ = NOUNS[noun]
    definite, adjective = pick.random() < 0.5, pick.choice(list(ADJECTIVES)) if pick.random() < 0.4 else ""
    article, ending = (DEFINITE[gender], "e") if definite else INDEFINITE[gender]
    if accusative and gender == "m":
        article, ending = "den" if definite else "einen", "en"
    following = adjective or noun
    english = "the" if definite else "an" if following[0] in "aeiou" else "a"
    if not adjective:
        return f"{english} {noun}", f"{article} {german}"
    return f"{english} {adjective} {noun}", f"{article} {ADJECTIVES[adjective]}{ending} {german}"


def sentence(pick: random.Random) -> tuple[str, str]:
    """One sentence in English and in German. “flies” and “like” are each two words of German."""
    living = pick.choice(LIVING)
    if pick.random() < 0.5:
        subject, verb = noun_phrase(pick, living), pick.choice(NOUNS[living][2].split())
        if pick.random() < 0.15:
            subject, verb = ("time", "die Zeit"), pick.choice(("flies", "runs"))
        likened = noun_phrase(pick, pick.choice(list(NOUNS)))
        return f"{subject[0]} {verb} like {likened[0]}", f"{subject[1]} {INTRANSITIVE[verb]} wie {likened[1]}"
    plural = pick.random() < 0.7
    subject = pick.choice(list(PLURALS.items())) if plural else noun_phrase(pick, living)
    verb = (TRANSITIVE[0] if pick.random() < 0.5 else pick.choice(TRANSITIVE))[plural]
    things = FOOD if verb[0].startswith("eat") else list(NOUNS)
    liked = noun_phrase(pick, pick.choice(things), accusative=True)
    return f"{subject[0]} {verb[0]} {liked[0]}", f"{subject[1]} {verb[1]} {liked[1]}"


def rounded(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers with three decimals; + 0.0 makes −0 a 0."""
    return numbers.detach().double().mul(1000).round().div(1000) + 0.0


def as_lists(module: nn.Module) -> dict[str, list]:
    """The weights of a linear layer or of a norm, rounded in the module as well."""
    for parameter in module.parameters():
        parameter.data.copy_(rounded(parameter))
    return {
        name: rounded(parameter.T if parameter.ndim == 2 else parameter).tolist()
        for name, parameter in module.named_parameters()
    }


def embeddings_as_lists(embeddings: regard.nn.Embeddings) -> dict:
    """The tables of tokens and positions. What BERT adds for the first text of a pair is added to each position."""
    if embeddings.types is not None:
        embeddings.positions.weight.data += embeddings.types.weight[0]
        embeddings.types.weight.data.zero_()
    for table in (embeddings.tokens.weight, embeddings.positions.weight):
        table.data.copy_(rounded(table))
    tables = {name: rounded(getattr(embeddings, name).weight).tolist() for name in ("tokens", "positions")}
    return {**tables, "norm": as_lists(embeddings.norm)}


def layer_as_lists(layer: regard.nn.EncoderLayer) -> dict:
    """The weights of a layer: of attention by query, key, value and output, and a norm after each part."""
    lists: dict = {}
    for name in ("attention", "cross_attention") if isinstance(layer, regard.nn.DecoderLayer) else ("attention",):
        attention = getattr(layer, name)
        lists[name] = {part: as_lists(getattr(attention, part)) for part in ("query", "key", "value", "output")}
        lists[f"{name}_norm"] = as_lists(getattr(layer, f"{name}_norm"))
    lists["fc1"], lists["fc2"] = as_lists(layer.feed_forward.fc1), as_lists(layer.feed_forward.fc2)
    return {**lists, "feed_forward_norm": as_lists(layer.feed_forward_norm)}


def write(path: Path, vocabulary: list[str], model: regard.nn.Encoder | regard.nn.Decoder) -> None:
    """The file, a table a line. The model goes on with the rounded weights that the file has."""
    embeddings, layers = embeddings_as_lists(model.embeddings), [layer_as_lists(layer) for layer in model.layers]
    content = {"vocabulary": vocabulary, "heads": HEADS, "embeddings": embeddings, "layers": layers}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text.replace('],"', '],\n"').replace('},{"', '},\n{"') + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def train_encoder(folder: Path, pairs: list[tuple[str, str]]) -> tuple[regard.nn.Encoder, Tokenizer]:
    """An encoder of the English sentences, and its tokenizer."""
    text = folder / "sentences.txt"
    text.write_text("".join(f"{english}.\n" for english, _ in pairs))
    sizes = {"layers": LAYERS, "dim": DIM, "heads": HEADS, "vocab_size": 240, "seq_length": 24}
    options = run.Options(**sizes, steps=ENCODER_STEPS, patience=99)
    report = run.train([text], folder / "model", options)
    print(f"encoder: {report['best']['accuracy']:.1%} of masked tokens on held-out text")
    return regard.nn.Encoder.from_pretrained(folder / "model"), load_tokenizer(folder / "model")


def train_decoder(
    encoder: regard.nn.Encoder, tokenizer: Tokenizer, pairs: list[tuple[str, str]]
) -> tuple[regard.nn.Decoder, list[str]]:
    """A decoder of German, and its vocabulary, whole words: each predicts the next from those before and the source."""
    vocabulary = [*SPECIAL, *sorted({word for _, german in pairs for word in german.split()})]
    source = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch([english for english, _ in pairs])]
    target = [torch.tensor([1, *map(vocabulary.index, german.split()), 2]) for _, german in pairs]
    lengths = torch.tensor([len(ids) for ids in source])
    source, target = (nn.utils.rnn.pad_sequence(ids, batch_first=True) for ids in (source, target))
    torch.manual_seed(0)
    tables = regard.nn.Embeddings(len(vocabulary), DIM, positions=POSITIONS)
    nn.init.normal_(tables.tokens.weight, std=DIM**-0.5)
    decoder = regard.nn.Decoder(tables, LAYERS, dim=DIM, heads=HEADS, d_ff=4 * DIM, epsilon=1e-12)
    optimizer = torch.optim.AdamW(decoder.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=DECODER_STEPS)
    for _ in range(DECODER_STEPS):
        rows = torch.randint(len(pairs), (64,))
        with torch.no_grad():
            memory = encoder(source[rows], lengths[rows])[0][-1]
        hidden, _, _ = decoder(target[rows, :-1], decoder.begin(memory), lengths[rows])
        logits = hidden[-1] @ tables.tokens.weight.T
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target[rows, 1:].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"decoder: a loss of {loss.item():.4f} in the last step")
    return decoder.eval(), vocabulary


def main(folder: Path) -> None:
    """Both files. The decoder learns from the encoder with its rounded weights."""
    torch.set_num_threads(1)  # so that sums are added in the same order every time
    pick = random.Random(0)
    pairs = [sentence(pick) for _ in range(SENTENCES)]
    with tempfile.TemporaryDirectory() as temporary:
        encoder, tokenizer = train_encoder(Path(temporary), pairs)
    by_number = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    write(folder / "plain.json", by_number, encoder)
    decoder, vocabulary = train_decoder(encoder, tokenizer, pairs)
    write(folder / "plain_decoder.json", vocabulary, decoder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
