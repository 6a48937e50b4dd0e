"""Made-up documents of ten facts with a question each, the same for the same seed: what `regard ask` is measured on.

A fact is a paragraph. In every second document, another fact has the same form as the one that answers the question,
and speaks of somebody else. They share no form of a fact, no question and no name with the documents that head weights
are learned from (`regard.answers.examples`), so that they say how those serve elsewhere.

python benchmarks/ask_documents.py [--documents 3] [--seed 0]
"""

import argparse

from regard.answers.examples import Example, made

FACTS = 10

FORMS = {  # a fact, its question, and what it is about and what answers it
    "{about} keeps {answer} goats.": ("How many goats does {about} keep?", "person", "number"),
    "The bakery in {about} opens at {answer} o'clock.": ("When does the bakery in {about} open?", "town", "hour"),
    "{about} was born in {answer}.": ("Where was {about} born?", "person", "place"),
    "The bridge in {about} is {answer} metres long.": ("How long is the bridge in {about}?", "town", "number"),
    "{about} plays the {answer}.": ("Which instrument does {about} play?", "person", "instrument"),
    "The library of {about} is painted {answer}.": ("What colour is the library of {about}?", "town", "colour"),
    "{about} drives a {answer} car.": ("What colour is {about}'s car?", "person", "colour"),
    "The train to {about} leaves from platform {answer}.": (
        "From which platform does the train to {about} leave?",
        "town",
        "number",
    ),
    "{about} works as a {answer}.": ("What does {about} work as?", "person", "job"),
    "The mayor of {about} is called {answer}.": ("What is the name of the mayor of {about}?", "town", "surname"),
    "{about} has a dog called {answer}.": ("What is the name of {about}'s dog?", "person", "pet"),
    "The school in {about} has {answer} pupils.": (
        "How many pupils does the school in {about} have?",
        "town",
        "number",
    ),
}
NAMES = {
    "person": """Agnes Bruno Clara Dmitri Edith Farid Greta Hugo Irene Jonas Karin Leon Marta Nils Olga Pavel
        Rosa Stefan Tilda Viktor""",
    "town": """Ashford Brenham Calder Dunmore Eastvale Fenwick Glenrock Harlow Ironton Kelso Linden Marlow Norwood
        Oakham Preston Redhill Selby Tarlton Upton Wexford""",
    "number": "12 17 23 31 38 42 46 54 59 63 67 71 76 82 85 93 97 114 126 138 145 152 163 174 187 195 208 216 237 249",
    "hour": "five six seven eight nine ten",
    "instrument": "cello flute harp oboe trumpet violin accordion banjo clarinet guitar",
    "colour": "red blue green yellow white purple orange brown",
    "place": "Lisbon Oslo Vienna Prague Dublin Athens Warsaw Geneva Naples Seville",
    "job": "baker carpenter dentist gardener lawyer nurse painter plumber tailor teacher",
    "surname": "Abbott Barlow Crane Dalton Ellis Foster Grover Hobbs Ingram Jarvis Kirby Lawson",
    "pet": "Biscuit Pepper Shadow Ginger Comet Pickle Domino Waffles",
}


VALUES = set(" ".join(NAMES.values()).split())


def documents(count: int, seed: int = 0) -> list[Example]:
    """So many documents; the first of them are the same whatever the count."""
    return list(made(FORMS, NAMES, count, f"measuring {seed}", (FACTS, FACTS)))


def is_right(reply: str, document: Example) -> bool:
    """Whether a reply names the answer, and nobody and nothing of which other facts speak."""
    others = _words(" ".join(document.facts)) & VALUES - _words(document.facts[document.fact])
    words = _words(reply)
    return document.answer in words and not words & others


def _words(text: str) -> set[str]:
    return set("".join(letter if letter.isalnum() else " " for letter in text).split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for document in documents(arguments.documents, arguments.seed):
        print(document.text)
        print(f"{document.question} {document.answer} (fact {document.fact + 1})\n")


if __name__ == "__main__":
    main()
