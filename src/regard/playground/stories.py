"""Stories for children by a small grammar: the text from which the playground's decoder learns.

Names come back as pronouns, things that were lost are found, and reasons refer to what happened, so that there is
something to look at. The same seed tells the same stories.

>>> print(story(random.Random(8)))
Once upon a time there was a gentle pony named Lucy. One day, Lucy walked to the river to look for carrots. ...
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from regard.train.causal import END

GIRLS = "Mia Lily Anna Ella Rosa Nora Emma Lucy Zoe Clara Ida Ruby".split()  # noqa: SIM905
BOYS = "Tom Ben Max Leo Sam Finn Jack Paul Oscar Noah Emil Otto".split()  # noqa: SIM905
ANIMALS = "rabbit bear fox mouse cat dog duck frog bird squirrel hedgehog pony".split()  # noqa: SIM905
TRAITS = "little kind happy clever brave quiet funny shy curious gentle".split()  # noqa: SIM905
COLOURS = "red blue green yellow white brown pink golden".split()  # noqa: SIM905
TOYS = "ball kite boat hat drum doll train book bell scarf box balloon".split()  # noqa: SIM905
PLACES = {"park": "in", "garden": "in", "forest": "in", "beach": "on", "farm": "on", "meadow": "on", "village": "in",
          "river": "at", "hill": "on", "lake": "at"}  # fmt: skip
SCENES = ["The sun was shining.", "The birds were singing.", "It was a warm day.", "The sky was blue.",
          "The flowers were in bloom.", "A soft wind was blowing."]  # fmt: skip
HIDING = ["under the bench", "behind the tree", "in the long grass", "near the pond", "under the bridge",
          "behind the big stone", "in the bushes", "next to the gate"]  # fmt: skip
FOODS = ["cake", "soup", "bread", "pie", "jam"]
FRUITS = ["apples", "berries", "plums", "carrots", "nuts", "pears"]
FEARS = {"the dark": "It was late and there was no moon.", "the storm": "The wind was loud and the rain was cold.",
         "the big dog": "The big dog barked and barked.", "the deep water": "The water was cold and deep.",
         "the high bridge": "The bridge was old and very high."}  # fmt: skip
SKILLS = {"swim": "the water was too deep", "sing": "the song was too long", "climb the tree": "the tree was too high",
          "ride a bike": "the bike was too fast", "dance": "the steps were too hard",
          "skate": "the ice was too smooth"}  # fmt: skip
TROUBLES = {"stuck in the mud": "pulled and pulled", "lost in the fog": "rang a bell",
            "caught in a net": "cut the net", "shut in a box": "opened the box",
            "too weak to walk": "carried some water"}  # fmt: skip


class Hero(NamedTuple):
    """Someone in a story, with pronouns."""

    name: str
    kind: str
    he: str
    him: str
    his: str


def heroes(draw: random.Random) -> tuple[Hero, Hero]:
    """Two, with different names."""
    first, second = (_hero(draw, name) for name in draw.sample([*GIRLS, *BOYS], 2))
    return first, second


def _hero(draw: random.Random, name: str) -> Hero:
    is_girl = name in GIRLS
    if draw.random() < 0.25:  # a name that was never read before can only be copied
        is_girl, name = draw.random() < 0.5, _invented(draw)
    kind = draw.choice(ANIMALS) if draw.random() < 0.4 else "girl" if is_girl else "boy"
    return Hero(name, kind, *(("she", "her", "her") if is_girl else ("he", "him", "his")))


def _invented(draw: random.Random) -> str:
    """A name of two syllables, or three."""
    return "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(2, 3))).title()


def _opening(draw: random.Random, a: Hero) -> str:
    trait = draw.choice(TRAITS)
    return draw.choice(
        [
            f"Once upon a time there was a {trait} {a.kind} named {a.name}.",
            f"Once there was a {trait} {a.kind}. {a.his.title()} name was {a.name}.",
            f"{a.name} was a {trait} {a.kind}.",
        ]
    )


def _meeting(draw: random.Random, a: Hero, b: Hero, place: str) -> str:
    when = draw.choice(["One day", "One morning", "One sunny day", "One afternoon"])
    first = draw.choice(
        [
            f"{when}, {a.name} went to the {place} with {a.his} friend {b.name}.",
            f"{when}, {a.name} walked to the {place}. There {a.he} met a {b.kind} named {b.name}.",
            f"{when}, {a.name} and a {b.kind} named {b.name} played together {PLACES[place]} the {place}.",
        ]
    )
    return f"{first} {draw.choice(SCENES)}" if draw.random() < 0.4 else first


def _ending(draw: random.Random, a: Hero, b: Hero) -> str:
    return draw.choice(
        [
            f"From that day on, {a.name} and {b.name} were best friends.",
            f'"You are a good friend," said {a.name}. {b.name} smiled.',
            f"{a.name} gave {b.name} a big hug, and they went home together.",
            f"Then {a.name} and {b.name} laughed and played until the sun went down.",
            f"That night {a.name} slept well and dreamed of {b.name}.",
        ]
    )


def _lost(draw: random.Random, a: Hero, b: Hero, place: str) -> list[str]:
    """Something is lost, looked for, and found."""
    colour, toy = draw.choice(COLOURS), draw.choice(TOYS)
    first, second, last = draw.sample(HIDING, 3)
    return [
        f"{a.name} had a {colour} {toy}. "
        + draw.choice([f"{a.he.title()} loved {a.his} {toy} very much.", f"The {toy} was a gift from {a.his} mother."]),
        _meeting(draw, a, b, place),
        f"But then the {toy} was gone! {a.name} was sad because {a.he} could not find {a.his} {toy}.",
        draw.choice([f'"Where is my {toy}?" {a.he} asked.', f'"I have lost my {toy}," {a.he} said.']),
        draw.choice(['"I will help you,"', '"Do not cry,"', '"Let us look for it,"']) + f" said {b.name}.",
        f"They looked {first}, but the {toy} was not there. "
        + draw.choice(["They", f"{a.name} and {b.name}", f"{a.name}", f"{b.name}"])
        + f" looked {second}, but the {toy} was not there.",
        f"Then {b.name} looked {last}. " + draw.choice(['"Here it is!"', '"I see it!"', '"Look, look!"'])
        + f" {b.he} called.",
        f"{a.name} was happy because {b.name} had found the {colour} {toy}.",
    ]  # fmt: skip


def _shared(draw: random.Random, a: Hero, b: Hero, place: str) -> list[str]:
    """Two want the same thing, and learn to share it."""
    colour, toy = draw.choice(COLOURS), draw.choice(TOYS)
    elder = draw.choice(["mother", "father", "grandmother", "grandfather"])
    return [
        _meeting(draw, a, b, place),
        f"{b.name} had a {colour} {toy}. {a.name} wanted to play with the {toy}, too.",
        f'"Give me the {toy}!" said {a.name}. "No, it is my {toy}!" said {b.name}.',
        f"{a.name} was angry because {b.name} did not share. {b.name} was angry, too.",
        f'Then {a.name} went to {a.his} {elder}. "You must ask nicely," said {a.his} {elder}.',
        f'So {a.name} went back to {b.name}. "Please, may I play with your {toy}?" {a.he} asked.',
        draw.choice(['"Yes, you may,"', '"Of course,"', '"Let us play together,"']) + f" said {b.name}.",
        f"They played with the {colour} {toy} all day. {a.name} was glad because {a.he} had asked nicely.",
    ]


def _afraid(draw: random.Random, a: Hero, b: Hero, place: str) -> list[str]:
    """Someone is afraid, and is helped."""
    fear = draw.choice(list(FEARS))
    return [
        draw.choice([f"{a.name} was afraid of {fear}.", f"There was one thing {a.he} did not like: {fear}."]),
        _meeting(draw, a, b, place),
        f"On the way home they came to a bad place. {FEARS[fear]}",
        f'"I cannot go on," said {a.name}, "because I am afraid of {fear}."',
        draw.choice(['"Take my hand,"', '"I am with you,"', '"We will go together,"']) + f" said {b.name}.",
        f"{a.name} took {b.his} hand. Step by step they went on, and {b.name} sang a song for {a.him}.",
        draw.choice(
            [f'"Look, {a.name}, nothing happened!" said {b.name}.', f'"You are very brave," {b.name} told {a.him}.']
        ),
        f"Now {a.name} was not afraid of {fear} any more, because {b.name} was with {a.him}.",
    ]


def _rescued(draw: random.Random, a: Hero, b: Hero, place: str) -> list[str]:
    """Someone is in trouble; helped, they thank with food."""
    trouble, fruits = draw.choice(list(TROUBLES)), draw.choice(FRUITS)
    return [
        f"One day, {a.name} walked to the {place} to look for {fruits}.",
        f'Then {a.he} heard a voice. "Help me, please help me!" cried the voice.',
        f"It was a {b.kind} named {b.name}. {b.name} was {trouble}.",
        f'"Do not be afraid," said {a.name}. "I will help you."',
        f"{a.name} {TROUBLES[trouble]} until {b.name} was free.",
        f'"Thank you, {a.name}," said {b.name}. "I was sad because I was {trouble}."',
        f"{b.name} gave {a.him} a basket of {fruits}, because {a.name} had helped {b.him}.",
        draw.choice([f"They ate the {fruits} together.", f'"I like {fruits} very much," said {a.name}.']),
    ]


def _learned(draw: random.Random, a: Hero, b: Hero, place: str) -> list[str]:
    """Someone tries three times."""
    skill = draw.choice(list(SKILLS))
    return [
        draw.choice([f"{a.name} wanted to learn to {skill}.", f"{a.name} could not {skill}, but {a.he} wanted to."]),
        _meeting(draw, a, b, place),
        f'"Can you show me how to {skill}?" asked {a.name}. "Yes, I can," said {b.name}.',
        f"{a.name} tried, but {a.he} could not {skill} because {SKILLS[skill]}.",
        f'"Try again," said {b.name}. {a.name} tried again, but it was still too hard.',
        f'{a.name} was {draw.choice(["tired", "cold", "hungry"])} and sad. "One more time," said {b.name}.',
        f'{a.name} tried one more time. "I can do it!" {a.he} shouted. "I can {skill}!"',
        f"{a.name} was proud because {a.he} had learned to {skill}.",
    ]


def _baked(draw: random.Random, a: Hero, b: Hero, place: str) -> list[str]:
    """Something is made for a birthday, and a part of it is missing."""
    food, missing = draw.choice(FOODS), draw.choice(["sugar", "flour", "milk", "honey", "salt", "butter"])
    a_food = f"a {food}" if food in ("cake", "pie") else f"some {food}"
    giver = draw.choice(["an old woman", "an old man", "the baker", "the miller"])
    the_giver = giver.replace("an ", "the ")
    return [
        f"It was the birthday of {a.his} friend {b.name}, a {b.kind}.",
        f'"I will make {a_food} for {b.name}," said {a.name}.',
        f"But there was no {missing} in the house. {a.name} was sad because {a.he} could not make the {food}.",
        f"So {a.he} went to the {place} and asked {giver} for {missing}.",
        f'"Here is some {missing}," said {the_giver}. "Thank you," said {a.name}, and {a.he} ran home.',
        f"{a.name} made the {food} and brought it to {b.name}.",
        f'"Happy birthday, {b.name}!" said {a.name}. "I made this {food} for you."',
        f"{b.name} was happy because {a.name} had made {b.him} {a_food}.",
    ]


PLOTS: list[Callable[[random.Random, Hero, Hero, str], list[str]]] = [
    _lost, _shared, _afraid, _rescued, _learned, _baked,
]  # fmt: skip


def story(draw: random.Random) -> str:
    """A story in one line."""
    a, b = heroes(draw)
    place = draw.choice(list(PLACES))
    sentences = [_opening(draw, a), *draw.choice(PLOTS)(draw, a, b, place), _ending(draw, a, b)]
    return " ".join(sentences)


def stories(count: int, seed: int = 0) -> str:
    """Stories, each in a line, between lines that hold nothing but <|endoftext|>, as `regard train --decoder` reads."""
    draw = random.Random(seed)
    return f"\n{END}\n".join(story(draw) for _ in range(count)) + "\n"
