"""Text → tokens: whatever the tokenizer, no letter of the text is lost, and every token covers its piece."""

import unicodedata
from functools import partial
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import regard
from regard.lens.encode import encode, encode_pair, tokens_of
from regard.lens.words import units
from regard.models import Model
from support import models as fixtures

SPECIAL = ["<s>", "</s>", "<unk>", "<mask>"]
ENDS = ("</s>", 1), ("<s>", 0)
TEMPLATE = processors.TemplateProcessing(
    single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 1)]
)


def byte_level(prefix, processor):
    """Bytes as GPT-2 and RoBERTa have them, by what comes after them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(fixtures.TEXTS * 3, trainer)
    tokenizer.post_processor = processor
    return tokenizer


def unigram(byte_fallback):
    """SentencePiece's, with a ▁ for each space; what it does not know it reads as bytes, or as <unk>."""
    letters = sorted(set("".join(fixtures.TEXTS)) - {" "})
    pieces = [*SPECIAL, "▁", *letters, "▁the", "ies", "▁fl", *(f"<0x{n:02X}>" for n in range(256) if byte_fallback)]
    scores = [(piece, -float(len(pieces) - n)) for n, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2, byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def after_bytes(name, trim, prefix):
    """A post-processor of byte-level tokenizers."""
    if name == "RoBERTa":
        return processors.RobertaProcessing(*ENDS, trim_offsets=trim, add_prefix_space=prefix)
    bare = processors.ByteLevel(trim_offsets=trim, add_prefix_space=prefix)
    return bare if name == "GPT-2" else processors.Sequence([bare, TEMPLATE])


TOKENIZERS = {
    **{
        f"{name}, trim {trim}, prefix {prefix}, processor's {told}": partial(
            lambda name, trim, prefix, told: byte_level(prefix, after_bytes(name, trim, told)), name, trim, prefix, told
        )
        for name, trim, prefix, told in product(("RoBERTa", "GPT-2", "both"), *[(False, True)] * 3)
    },
    "WordPiece": fixtures.word_piece,
    "metaspace with bytes": fixtures.metaspace,
    "Unigram": lambda: unigram(False),
    "Unigram with bytes": lambda: unigram(True),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def model(request):
    """A model of which only the tokenizer is asked."""
    return Model(request.param, TOKENIZERS[request.param](), forward=None, states=None, layers=0, max_length=1000)


texts = st.text(
    st.one_of(st.sampled_from(" aIst.'\n"), st.sampled_from("é爱👍\u3000-<m½"), st.characters(codec="utf-8")),
    min_size=1,
    max_size=30,
)


def read(model, text, pair=None):
    """The tokens of a text, and the spans of the words that they make up."""
    if pair is None:
        encoded, _ = encode(model, text, model.max_length, "read")
    else:
        encoded, _ = encode_pair(model, text, pair, model.max_length)
        text = f"{text}\n{pair}"
    tokens = tokens_of(model, encoded, text)
    spans = [None if token.special else (token.start, token.end) for token in tokens]
    return text, tokens, [span for span, _ in units(text, spans) if span is not None]


def seen(text):
    """The places of what a reader sees, and every tokenizer keeps: letters, digits and punctuation."""
    return {n for n, letter in enumerate(text) if unicodedata.category(letter)[0] in "LNP"}


def bare(text):
    """Lower case, without accents."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text).lower() if letter.isalnum())


@settings(max_examples=40)
@given(text=texts, pair=st.none() | texts)
@example(text="the cat saw a mat", pair=None)
@example(text="I am a cat as I was", pair=None)
@example(text="a b", pair="I a m")
@example(text=" a", pair=" a")
def test_no_letter_is_lost_and_every_token_covers_its_piece(model, text, pair):
    try:
        whole, tokens, words = read(model, text, pair)
    except ValueError as error:
        assert any(reason in str(error) for reason in ("is empty", "contains no tokens"))  # noqa: PT017
        return
    covered = {place for start, stop in words for place in range(start, stop)}
    written = {n for token in tokens if token.special for n in range(token.start, token.end)}
    assert seen(whole) <= covered | written
    for token in tokens:
        assert token.text == (whole[token.start : token.end] or token.piece)
        plain = token.piece.lstrip("Ġ▁").removeprefix("##")
        if plain.isascii() and plain.isalnum() and not token.unknown:
            assert bare(token.text) == bare(plain)


def test_the_first_letter_after_a_space_is_read(model):
    _, tokens, words = read(model, "the cat saw a mat")
    assert ["the cat saw a mat"[start:stop] for start, stop in words] == ["the", "cat", "saw", "a", "mat"]
    assert sum(len(token.text.strip()) for token in tokens if not token.special) == len("thecatsawamat")


def test_the_ids_are_those_of_the_tokenizer(model):
    for text, pair in [("the cat saw a mat", None), ("a 👍 I", " I am")]:
        encoded, _ = encode(model, text, 1000, "read") if pair is None else encode_pair(model, text, pair, 1000)
        expected = model.tokenizer.encode(text, pair)
        assert (encoded.ids, encoded.types, encoded.pieces) == (expected.ids, expected.type_ids, expected.tokens)


def test_what_is_cut_keeps_its_letters(model):
    special = model.tokenizer.num_special_tokens_to_add(False)
    encoded, cut = encode(model, "a I a I a I a I", special + 4, "read")
    tokens = tokens_of(model, encoded, "a I a I a I a I")
    assert len(tokens) == special + 4
    assert set("".join(token.text for token in tokens if not token.special)) <= set("aI ")
    assert 2 <= cut.character <= 7


def test_special_tokens_in_a_text_are_special():
    tokenizer = fixtures.byte_level()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<think>"])
    model = Model("chat", tokenizer, forward=None, states=None, layers=0, max_length=1000)
    text, tokens, words = read(model, "<|im_start|>user\nthe cat<|im_end|> <think>")
    assert [token.text for token in tokens if token.special] == ["<|im_start|>", "<|im_end|>"]
    assert (tokens[0].start, tokens[0].end) == (0, 12)
    assert [text[start:stop] for start, stop in words] == ["user", "the", "cat", "<think>"]


def test_what_the_tokenizer_does_not_know_is_unknown():
    for make, text in [(fixtures.word_piece, "the 🪰 cat"), (lambda: unigram(False), "the 🪰 cat")]:
        model = Model("small", make(), forward=None, states=None, layers=0, max_length=1000)
        _, tokens, words = read(model, text)
        assert [token.text for token in tokens if token.unknown] == ["🪰"]
        assert not any(token.special for token in tokens if token.unknown)
        assert (4, 5) in words
    for make in (fixtures.metaspace, fixtures.byte_level):  # bytes are read, not guessed
        model = Model("bytes", make(), forward=None, states=None, layers=0, max_length=1000)
        assert not any(token.unknown for token in read(model, "the 🪰 cat")[1])


def test_a_special_token_of_a_pair_reader():
    reading = regard.Lens().read("I saw [SEP] there 🪰")
    assert [(token.text, token.special, token.unknown) for token in reading.tokens][3:6] == [
        ("[SEP]", True, False),
        ("there", False, False),
        ("🪰", False, True),
    ]
