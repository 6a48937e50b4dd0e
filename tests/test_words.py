"""Words as a reader sees them: where they lie in the text, and which tokens make them up."""

import random
import time
import unicodedata
from itertools import chain, pairwise, zip_longest

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from regard.lens.words import printable, trimmed, units, words

CASES = {
    "": [],
    "   \t\n": [],
    "Time flies like an arrow": ["Time", "flies", "like", "an", "arrow"],
    "Don't stop, it’s 3.14 o'clock!": ["Don't", "stop", ",", "it’s", "3.14", "o'clock", "!"],
    "state-of-the-art (really)": ["state", "-", "of", "-", "the", "-", "art", "(", "really", ")"],
    "e\u0301te\u0301 naïve": ["e\u0301te\u0301", "naïve"],
    "👍🏽 👨‍👩‍👧 🇩🇪🇫🇷 ❤️": ["👍🏽", "👨‍👩‍👧", "🇩🇪", "🇫🇷", "❤️"],
    "我爱北京。": ["我", "爱", "北", "京", "。"],
    "שלום עולם": ["שלום", "עולם"],
    "مرحبا بالعالم!": ["مرحبا", "بالعالم", "!"],
    "\u202babc\u202c \u200edef\u200f": ["abc", "def"],
    "\ufeffone\u200btwo\u3000three": ["one", "two", "three"],
    "a\x00b \x1b[31mred": ["a", "b", "[", "31mred"],
    "한국어 문장": ["한국어", "문장"],
}


@pytest.mark.parametrize("text", CASES, ids=ascii)
def test_words_are_what_a_reader_sees(text):
    assert [text[start:stop] for start, stop in words(text)] == CASES[text]


texts = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n.'a’é\u0301👍🏽\u200d\u200b爱ם\u202e")), max_size=40
)


@given(texts)
def test_every_visible_character_is_in_one_word(text):
    actual = words(text)
    assert all(start < stop for start, stop in actual)
    assert all(first[1] <= second[0] for first, second in pairwise(actual))
    covered = {place for start, stop in actual for place in range(start, stop)}
    visible = {n for n, letter in enumerate(text) if not letter.isspace() and unicodedata.category(letter)[0] != "C"}
    unassigned = {n for n, letter in enumerate(text) if unicodedata.category(letter) == "Cn"}
    assert visible - unassigned <= covered
    assert all(trimmed(text, *span) == span for span in actual)


@given(texts, st.randoms(use_true_random=False))
def test_every_token_is_in_one_unit(text, chance):
    """Tokens as tokenizers make them: in order, of any width, spaces in them or not, some on top of one another."""
    spans, at = [None], 0
    while at < len(text):
        stop = min(len(text), at + chance.choice([0, 1, 1, 2, 3, 5]))
        spans += [(at, stop)] * chance.choice([1, 1, 1, 2])
        at = stop if chance.random() < 0.8 else max(at, stop - 1)
        at += chance.random() < 0.3
    made = units(text, [*spans, None])
    assert sorted(token for _, tokens in made for token in tokens) == list(range(len(spans) + 1))
    assert all(tokens == list(range(tokens[0], tokens[-1] + 1)) for _, tokens in made)
    seen = [span for span, _ in made if span is not None]
    assert all(first[1] <= second[0] for first, second in pairwise(seen))
    for span, tokens in made:
        for token in tokens:
            if span is not None and text[slice(*spans[token])].strip(" "):
                start, stop = trimmed(text, *spans[token])
                assert span[0] <= start
                assert stop <= span[1]


def test_runs_of_flags():
    """They are two letters each, counted from the beginning of a run, however long it is and whatever is around it."""
    chance = random.Random(5)
    for _ in range(2_000):
        around = [chance.choice(["", "a", " ", "\u0301", "\u200d", "🙂", "1", "-"]) for _ in range(4)]
        runs = ["".join(chance.choices("🇩🇪🇫🇷", k=chance.randint(0, 9))) for _ in range(3)]
        text = "".join(chain(*zip_longest(around, runs, fillvalue="")))
        edges = sorted({0, *(match.start() for match in regex.finditer(r"(?V1w)\b", text)), len(text)})
        assert [start for start, _ in words(text)] == [
            trimmed(text, *piece)[0] for piece in pairwise(edges) if text[slice(*piece)].strip("\u200d ")
        ]
    assert words("🇩🇪" * 100_000) == [(at, at + 2) for at in range(0, 200_000, 2)]  # minutes, if it were quadratic


UNITS = {
    "pieces": ("unhappy!", [(0, 2), (2, 7), (7, 8)], [("unhappy", [0, 1]), ("!", [2])]),
    "contraction": ("isn't so", [(0, 3), (3, 4), (4, 5), (6, 8)], [("isn't", [0, 1, 2]), ("so", [3])]),
    "leading spaces": ("a cat sat", [(0, 1), (1, 5), (5, 9)], [("a", [0]), ("cat", [1]), ("sat", [2])]),
    "a space alone": ("a cat", [(0, 1), (1, 2), (2, 5)], [("a", [0]), ("cat", [1, 2])]),
    "two spaces": ("a  cat", [(0, 1), (1, 2), (2, 6)], [("a", [0]), (None, [1]), ("cat", [2])]),
    "a new line": ("a\nb", [(0, 1), (1, 2), (2, 3)], [("a", [0]), (None, [1]), ("b", [2])]),
    "new line and space": ("a\n b", [(0, 1), (1, 3), (3, 4)], [("a", [0]), (None, [1]), ("b", [2])]),
    "bytes of an emoji": ("👍🏽 ok", [(0, 1), (0, 1), (1, 2), (1, 2), (2, 5)], [("👍🏽", [0, 1, 2, 3]), ("ok", [4])]),
    "▁ before the text": ("the", [(0, 1), (0, 3)], [("the", [0, 1])]),
    "no width, before": ("the end", [(0, 0), (0, 3), (4, 7)], [("the", [0, 1]), ("end", [2])]),
    "no width, inside": ("the end", [(0, 3), (5, 5), (4, 7)], [("the", [0]), ("end", [1, 2])]),
    "no width, where tokens overlap": ("abc\x1bd", [(0, 2), (1, 4), (3, 3), (3, 5)], [("abc\x1bd", [0, 1, 2, 3])]),
    "no width, after": ("the end", [(0, 3), (4, 7), (7, 7)], [("the", [0]), ("end", [1]), (None, [2])]),
    "two words, one token": ("New York is", [(0, 8), (9, 11)], [("New York", [0]), ("is", [1])]),
    "a word cut in two by a token": ("ab cd", [(0, 1), (1, 4), (4, 5)], [("ab cd", [0, 1, 2])]),
    "a character, two tokens": ("½ x", [(0, 1), (0, 1), (2, 3)], [("½", [0, 1]), ("x", [2])]),
    "backwards": ("ab cd", [(1, 2), (0, 1), (3, 5)], [("ab", [0, 1]), ("cd", [2])]),
    "accents dropped": ("e\u0301a", [(0, 1), (2, 3)], [("e\u0301a", [0, 1])]),
    "wide space of three bytes": ("a\u3000b", [(0, 1), (1, 2), (1, 2), (2, 3)],
                                  [("a", [0]), (None, [1]), (None, [2]), ("b", [3])]),
}  # fmt: skip


@pytest.mark.parametrize("name", UNITS)
def test_the_tokens_of_a_word(name):
    text, spans, expected = UNITS[name]
    assert [(span and text[slice(*span)], tokens) for span, tokens in units(text, spans)] == expected


def test_long_texts_take_time_in_proportion():
    text = "".join(random.Random(0).choice("ab ,") for _ in range(50_000)) + "x" + "\u0301" * 10_000
    start = time.perf_counter()
    spans = words(text)
    assert len(units(text, spans)) == len(spans)
    assert time.perf_counter() - start < 5
    assert text[slice(*spans[-1])].endswith("x" + "\u0301" * 10_000)


@given(texts)
def test_what_is_printed_moves_nothing_around_it(text):
    assert all(unicodedata.category(letter) not in ("Cc", "Cs") for letter in printable(text))
    assert not set(printable(text)) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028")
    assert len(printable(text)) == len(text)


def test_a_word_of_very_many_tokens():
    """A table of decimals with commas is one word. Copying the list for each token would take hours."""
    count = 500_000
    text = "1" * count
    assert units(text, [(n, n + 1) for n in range(count)]) == [((0, count), list(range(count)))]
