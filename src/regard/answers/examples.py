"""Made-up documents with a question each, from which it is learned which heads matter: facts, a paragraph each.

What is asked is in one of them; in every second document another one has the same form and speaks of somebody else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Example(NamedTuple):
    """Facts, a question about one of them, the number of that one, and the word that answers it."""

    facts: list[str]
    question: str
    fact: int
    answer: str

    @property
    def text(self) -> str:
        """A paragraph for each fact."""
        return "\n\n".join(self.facts) + "\n"


Forms = Mapping[str, tuple[str, str, str]]  # a fact, its question, and the kinds of what it is about and what answers


def examples(count: int, seed: int = 0) -> list[Example]:
    """So many documents to learn from, of six to twelve facts; the first are the same whatever the count.

    >>> example = examples(1)[0]
    >>> example.question, example.facts[example.fact]
    ('What is the price of a barrel?', 'The price of a barrel is 13 dollars.')
    """
    return list(made(_FORMS, _NAMES, count, f"learning {seed}", (6, 12)))


def made(forms: Forms, names: Mapping[str, str], count: int, seed: str, facts: tuple[int, int]) -> Iterator[Example]:
    """Documents of other forms and names: of the fewest to the most facts, the same for the same seed."""
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        size, twins = chance.randint(*facts), bool(number % 2)
        remaining = {kind: chance.sample(words.split(), len(words.split())) for kind, words in names.items()}
        chosen = chance.sample(list(forms), size - twins)
        written, filled = [], []
        for form in [*chosen, chosen[0]][:size]:
            _, about, answer = forms[form]
            filled.append({"about": remaining[about].pop(), "answer": remaining[answer].pop()})
            written.append(form.format(**filled[-1]))
        order = chance.sample(range(size), size)
        question = forms[chosen[0]][0].format(**filled[0])
        yield Example([written[n] for n in order], question, order.index(0), filled[0]["answer"])


_FORMS = {
    "The ship {about} carries {answer} to the harbour.": ("What does the ship {about} carry?", "ship", "goods"),
    "Professor {about} teaches {answer}.": ("Which subject does Professor {about} teach?", "scholar", "subject"),
    "Room {about} is used by the {answer} club.": ("Which club uses room {about}?", "room", "club"),
    "The price of a {about} is {answer} dollars.": ("What is the price of a {about}?", "thing", "price"),
    "The river {about} flows through {answer}.": (
        "Through which country does the river {about} flow?",
        "river",
        "country",
    ),
    "The meeting about {about} is on {answer}.": ("On which day is the meeting about {about}?", "topic", "day"),
    "At lunch, Doctor {about} ordered the {answer}.": ("What did Doctor {about} order at lunch?", "scholar", "dish"),
    "The {about} won {answer} games this season.": ("How many games did the {about} win this season?", "team", "price"),
    "Captain {about} comes from {answer}.": ("From which country does Captain {about} come?", "scholar", "country"),
    "The key to the {about} hangs behind the {answer}.": (
        "Where does the key to the {about} hang?",
        "thing",
        "furniture",
    ),
    "Mount {about} was first climbed in {answer}.": ("When was Mount {about} first climbed?", "mountain", "date"),
    "The festival of {about} begins in {answer}.": (
        "In which month does the festival of {about} begin?",
        "topic",
        "month",
    ),
}
_NAMES = {
    "ship": "Albatross Borealis Corsair Dauntless Endeavour Fortuna Galatea Halcyon Intrepid Juno Kestrel Leviathan",
    "goods": "coffee timber copper cotton salt sugar wheat marble pepper wool",
    "scholar": """Adler Brandt Castillo Duval Eriksen Ferrari Gupta Hansen Ivanov Jensen Kowalski Lopez Moreau Novak
        Okafor Petrov Quinn Rossi Schmidt Tanaka""",
    "subject": "chemistry history botany geometry astronomy economics Latin geology philosophy physics",
    "room": "101 104 108 203 205 209 302 306 307 411 415 418",
    "club": "chess drama rowing cycling debating fencing knitting sailing film poetry",
    "thing": "lantern kettle saddle ladder mirror barrel hammer carpet basket telescope",
    "price": "3 4 6 8 11 13 14 16 19 21 24 26 28 33 36 39 44 48",
    "river": "Arvo Belda Corrin Dessa Elsin Farro Garda Hesper Isola Jarrow",
    "country": "Brazil Canada Egypt France Ghana India Japan Kenya Mexico Norway Peru Spain Turkey Vietnam",
    "topic": "lighting parking recycling gardening housing taxes safety swimming music flowers",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "dish": "soup salad omelette lasagne curry trout pancakes risotto",
    "team": "Falcons Badgers Comets Dolphins Giants Hornets Lions Panthers Ravens Sharks",
    "furniture": "door clock piano stove wardrobe bookcase curtain painting",
    "mountain": "Aldora Breck Coronet Dray Elgin Fallow Gunther Hallow Ister Jorun",
    "date": "1786 1803 1811 1824 1837 1842 1855 1861 1873 1888 1894",
    "month": "January February March April May June July August September October November December",
}
