"""The models of the page against Python with the same weights: tokens, words, attention, hidden states, files."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from regex import __version__ as regex_version
from tokenizers import Tokenizer
from tokenizers import __version__ as tokenizers_version

import regard
from regard.attention import attention, replaced_in_models
from regard.attribution.norms import gram
from regard.lens.contributions import value_norms
from regard.lens.words import trimmed, units
from regard.models.residual import output_by_head
from regard.nn import Embeddings, Encoder, MaskedLanguageModel, checkpoint
from regard.playground import tokenizers, unicode, weights
from support.models import EMBEDDED, byte_level
from support.page_models import page_replies, python_places

FRONTEND = Path(__file__).parents[1] / "frontend"
TEXTS = [
    "Time flies like an arrow",
    "Fruit flies like a banana.",
    "The café's naïve façade, Ångström and Übermut: déjà vu!",
    "Don't stop, it’s 3.14 o'clock, isn't it? 'apple' ’É ‘one’",
    "state-of-the-art (really) e.g. U.S.A. and/or 50% @home #1 $9.99",
    "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία. ΟΔΟΣ ΣΊΣΥΦΟΣ",
    "صِف خَلقَ خَودٍ كَمِثلِ الشَمسِ إِذ بَزَغَت ١٢٣٫٤٥",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה. שָׁלוֹם צה״ל ג'ירפה",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश।",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "我能吞下玻璃而不伤身体。北京 x 上海",
    "いろはにほへと ちりぬるを カタカナ・テスト ｶﾞｷﾞ 東京タワー",
    "다람쥐 헌 쳇바퀴에 타고파. 한글 \u1112\u1161\u11ab",
    "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি।",
    "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது எங்கும் காணோம்",
    "მე ვჭამ მინას და არა მტკივა. Կրնամ ապակի ուտել",
    "ጥሩ ቀን ይሁንልህ። ខ្ញុំអាចញ៉ាំកញ្ចក់បាន ကျွန်တော် ༄༅།",
    "Tôi có thể ăn thủy tinh mà không hại gì. Zażółć gęślą jaźń",
    "ﬁne ﬂow ½ ² ℃ Å K ſ ẞ ß Ⅷ ①",
    "İstanbul'da ılık ISPARTA",
    "👍🏽 👨‍👩‍👧 ❤️ 👩🏿‍🚀 🏴󠁧󠁢󠁥󠁮󠁧󠁿 text",
    "🇩🇪🇫🇷 🇩🇪🇫🇷🇯🇵🇧 🇩 a🇩🇪b 🇩🇪🇫🇷\u200d🇯🇵",
    "e\u0301te\u0301 a\u0308\u0301 o\u0302\u0323 \u0301alone c\u0327 Z\u0351\u036b\u0343a\u0335lgo",
    "a\x00b \x1b[31mred\x07 tab\tnew\nline\r\nend\x0b\x0c\x85\x1c",
    "\ufeffone\u200btwo\u200cthree\u200dfour\u2060five\u00adsix",
    "\u202babc\u202c \u200edef\u200f \u2066x\u2069 \u061c",
    "   leading and trailing \u3000\u00a0 spaces  ",
    "two  words\n\n\nand  more\u2028line\u2029paragraph",
    "x" * 100 + " " + "x" * 101 + " ok",
    "a" * 30 + "é" * 80 + " Donaudampfschifffahrtsgesellschaftskapitän",
    "1,234,567.89 3.14.15 1e-9 0x1F 12:30 2026-11-27 +49 (0)30/1234 1_000",
    "https://example.org/a/b?c=d&e=%20#f user@example.com C:\\dir\\file.txt",
    "Wait... what?!?! -- — – • *** ~~~ === <<>> {[()]} «quote» „quote“",
    "The [MASK] sat on the [MASK]. [mask] [MASK][SEP] [CLS] [UNK] [PAD]",
    "[ MASK ] [MASK [SEP ##ing ##a [unused1]",
    "<html> &amp; 'x' \"y\" `z` \\n $x^2$ _under_score_ snake_case camelCase",
    "𝕳𝖊𝖑𝖑𝖔 𝒻𝓊𝓃 𐍈𐌰 𠜎𠜱𠝹 🀄 𝟙𝟚𝟛",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0995\u09cd\u09b7 \u0d2e\u0d32\u0d2f\u0d3e\u0d33\u0d02",
    ".",
    "I",
    "\u00bf\u00a1?",
    "\u2019twas ‘tis rock ’n’ roll l’été l'Été",
    "\ufffd replacement \ufffe \ud7ff \ue000 \U000e0001",
    "ab\u0345c \u1e9b\u0323 \ufb1d \ufb2a\u05b8 \u0344",
    "日本語English混在テキスト123と、句読点。「引用」",
    "\u0627\u0644\u0644\u063a\u0629\u200f (English) \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "A\u030a\u030a\u030a\u030a\u030a\u030a " + "\u0301" * 120,
    "ＦＵＬＬｗｉｄｔｈ １２３ ，。",
    "the " * 40,
]
REFUSED = ["", " \t\n\u3000", "\x1c\x1f", "\u200b\u200d", "\x00\x01", "\u0301"]


def random_model(folder: Path, activation: str = "gelu") -> Path:
    """A random encoder with the embedded model's vocabulary, saved; so large that attention is far from uniform."""
    sizes = {"layers": 3, "dim": 24, "heads": 4, "d_ff": 40, "epsilon": 1e-12}
    tables = {"vocab_size": 30522, "positions": 40, "types": 2}
    torch.manual_seed(11)
    encoder = Encoder(Embeddings(dim=24, **tables), activation=activation, **sizes)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.35)
    model = MaskedLanguageModel(encoder, 24)
    folder.mkdir()
    checkpoint.save(folder, model.state_dict(), sizes | tables | {"activation": activation})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, folder)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A random model's file, and the lens of a folder that has its weights."""
    folder = tmp_path_factory.mktemp("page")
    source, file = random_model(folder / "source"), folder / "random.js"
    weights.write(weights.encoder_file(source, "random"), file)
    return file, regard.Lens(weights.rounded_folder(file, source, folder / "rounded"))


def softmax(numbers):
    powers = np.exp(numbers - numbers.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def weights_of(layer):
    """The weights of a reply's layer, in float64, from query, key and scale."""
    query, key = (layer[name].astype(np.float64) for name in ("query", "key"))
    scores = layer["scale"] * query @ np.repeat(key, len(query) // len(key), 0).swapaxes(-1, -2)
    if layer["causal"]:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    return softmax(scores)


def assert_same_tokens(reply, reading):
    """Tokens and units of a pass of the page are those of a reading."""
    places = python_places(reading.text)
    for token, expected in zip(reply["tokens"], reading.tokens, strict=True):
        assert token | {"start": places[token["start"]], "end": places[token["end"]]} == vars(expected)
    for unit, expected in zip(reply["units"], reading.units, strict=True):
        assert [places[unit["start"]], places[unit["end"]]] == [expected.start, expected.end]
        for name in ("text", "special", "unknown"):
            assert unit[name] == getattr(expected, name), (name, reading.text)
        assert unit["tokens"] == list(expected.tokens)
    assert reply["text"] == reading.text
    assert reply["truncated"] == reading.truncated


def assert_same_numbers(reply, reading, tolerance=1e-4):
    """Attention, its output and what maps need, and the hidden states are those of a reading."""
    for number, layer in enumerate(reply["layers"]):
        attended = reading.attention[number]
        np.testing.assert_allclose(weights_of(layer), attended.weights.dense().numpy(), rtol=0, atol=tolerance)
        for name, expected in {
            "query": attended.weights.scores.query[0],
            "key": attended.weights.scores.key[0],
            "value": attended.value,
            "output": attended.output,
            "lengths": value_norms(reading, number)[..., None],
        }.items():
            np.testing.assert_allclose(layer[name], expected.numpy(), rtol=tolerance, atol=tolerance, err_msg=name)
        by_head = output_by_head(reading.opened.surroundings[number].output, reading.heads)
        products = gram(attended.value, by_head)[:, *np.triu_indices(reading.heads)][None].numpy()
        np.testing.assert_allclose(layer["gram"], products, rtol=tolerance, atol=tolerance * np.abs(products).max())
        made = reading.explain(reading.units[0], number, 0).made
        assert layer["made"] == {name: getattr(made, name) for name in ("norm", "head_norm", "rotated", "factor")}
    np.testing.assert_allclose(reply["hidden"], reading.hidden.numpy(), rtol=0, atol=tolerance)


def test_fifty_texts_of_every_script(exported):
    assert len(TEXTS) == len(set(TEXTS)) == 50
    file, lens = exported
    for text, reply in zip(TEXTS, page_replies(file, [{"read": [text]} for text in TEXTS]), strict=True):
        assert "error" not in reply, (text, reply)
        reading = lens.read(text)
        assert reply["decoder"] is None
        assert reply["encoder"]["second"] is None
        assert_same_tokens(reply["encoder"], reading)
        assert_same_numbers(reply["encoder"], reading)


def test_pairs_and_what_is_left_out_of_them(exported):
    file, lens = exported
    long = "A sentence 😀 with many words, " * 12
    pairs = [("Who wrote it?", "She did."), ("a", long), (long, "b"), (long, long), ("[SEP] x", "[MASK]\ny")]
    replies = page_replies(file, [{"read": [text, {"pair": pair}]} for text, pair in pairs])
    for (text, pair), reply in zip(pairs, replies, strict=True):
        reading = lens.read(text, pair)
        assert_same_tokens(reply["encoder"], reading)
        assert_same_numbers(reply["encoder"], reading)
        words = [unit.index for unit in reading.words if unit.start > len(text)]
        assert reply["encoder"]["second"] == words[0]
    assert "of the second were read" in replies[3]["encoder"]["truncated"]


def test_texts_that_have_nothing_to_read_are_refused_in_both(exported):
    file, lens = exported
    replies = page_replies(file, [{"read": [text]} for text in REFUSED])
    for text, reply in zip(REFUSED, replies, strict=True):
        with pytest.raises(ValueError, match="read: the text"):
            lens.read(text)
        assert re.match(r"The text (is empty|contains no tokens)", reply["error"])
    (lone,) = page_replies(file, [{"read": ["ab\ud800c"]}])
    assert lone["error"] == "The text is not valid Unicode at character 2."


def test_a_lesson_changes_scale_mask_and_positions(exported):
    file, lens = exported
    text = "Time flies like an arrow"

    def changed(**change):
        def compute(query, key, value, **options):
            return attention(query, key, value, **(options | change))

        with replaced_in_models(compute):
            return lens.read(text)

    requests = [{"scale": 1}, {"causal": True}, {"causal": False}, {"scale": 0.01, "causal": True}]
    replies = page_replies(file, [{"read": [text, {"changes": change}]} for change in requests])
    for change, reply in zip(requests, replies, strict=True):
        assert_same_numbers(reply["encoder"], changed(**change))
    source = random_model(file.parent / "without")
    encoder = regard.nn.Encoder.from_pretrained(source)
    encoder.load_state_dict(weights.read(file))
    (reply,) = page_replies(file, [{"read": [text, {"changes": {"positions": False}}]}])
    with torch.no_grad():
        encoder.embeddings.positions.weight.zero_()
        hidden, _ = encoder(torch.tensor([[token["id"] for token in reply["encoder"]["tokens"]]]))
    np.testing.assert_allclose(reply["encoder"]["hidden"], torch.cat(hidden).numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_other_activations(tmp_path, activation):
    source, file = random_model(tmp_path / "source", activation), tmp_path / "model.js"
    weights.write(weights.encoder_file(source, activation), file)
    lens = regard.Lens(weights.rounded_folder(file, source, tmp_path / "rounded"))
    (reply,) = page_replies(file, [{"read": [TEXTS[0]]}])
    assert_same_numbers(reply["encoder"], lens.read(TEXTS[0]))


def test_the_embedded_encoder(tmp_path):
    """Same tokens and weights as Python with its rounded weights; and how far these are from the full ones."""
    file = tmp_path / "encoder.js"
    weights.write(weights.encoder_file(EMBEDDED, "all-MiniLM-L6-v2"), file)
    assert os.path.getsize(file) < 29e6
    lens, full = regard.Lens(weights.rounded_folder(file, EMBEDDED, tmp_path / "rounded")), regard.Lens()
    for text, reply in zip(TEXTS, page_replies(file, [{"read": [text]} for text in TEXTS]), strict=True):
        reading, expected = lens.read(text), full.read(text)
        assert_same_tokens(reply["encoder"], reading)
        assert_same_numbers(reply["encoder"], reading)
        for rounded, exact in zip(reading.hidden[-1], expected.hidden[-1], strict=True):
            assert torch.cosine_similarity(rounded, exact, 0) > 0.995
        for layer in range(6):
            assert (reading.weights(layer) - expected.weights(layer)).abs().max() < 0.1


# Files


def test_the_same_model_gives_the_same_bytes_and_python_reads_what_the_page_does(tmp_path):
    numbers = torch.randn(3, 640, generator=torch.Generator().manual_seed(3))
    tensors = {"matrix": numbers, "small": numbers[:, :5], "vector": numbers[0], "zeros": torch.zeros(2, 7)}
    config = {"layers": 0, "heads": 1, "groups": 1, "dim": 5, "positions": 9, "epsilon": 0.0}
    spec = tokenizers.character_spec(["é", "b"], [("A", 0)])
    for precision, error in {"int8": 0.02, "float16": 2e-3, "float32": 0}.items():
        file = weights.ModelFile("x", "encoder", config, spec, tensors, precision, halves={"small"})
        digests = {weights.write(file, tmp_path / name) for name in ("a.js", "b.js")}
        content = (tmp_path / "a.js").read_bytes()
        assert digests == {hashlib.sha256(content).hexdigest()}
        assert content == (tmp_path / "b.js").read_bytes()
        assert content.isascii()
        assert content.count(b"\n") == 1
        read = weights.read(tmp_path / "a.js")
        assert list(read) == list(tensors)
        for name, tensor in tensors.items():
            allowed = max(error, 2e-3 * (name == "small")) * float(tensor.abs().max())
            torch.testing.assert_close(read[name], tensor, rtol=0, atol=allowed)
        assert torch.equal(read["vector"], numbers[0])
        assert torch.equal(read["small"], numbers[:, :5].half().float())
        script = """
            import { readFileSync } from "node:fs";
            import { parse, unpack, tensorsOf } from "./src/model/file.js";
            const tensors = tensorsOf(await unpack(parse(readFileSync(process.argv[1], "utf8"))));
            const [matrix, small, zeros] = ["matrix", "small", "zeros"].map((name) => [...tensors.get(name)]);
            console.log(JSON.stringify({ matrix, small, zeros, rows: [...tensors.rows("matrix", [2, 0])] }));
        """
        command = ["node", "--input-type=module", "-e", script, str(tmp_path / "a.js")]
        reply = json.loads(subprocess.run(command, cwd=FRONTEND, capture_output=True, check=True).stdout)
        for name in ("matrix", "small", "zeros"):
            assert reply[name] == read[name].flatten().tolist()
        assert reply["rows"] == read["matrix"][[2, 0]].flatten().tolist()
    with pytest.raises(ValueError, match="matrix: expected finite numbers"):
        weights.write(replace(file, tensors={"matrix": numbers / 0}), tmp_path / "c.js")
    assert not (tmp_path / "c.js").exists()


def test_what_the_page_does_not_compute_is_refused_by_name(tmp_path):
    folder = random_model(tmp_path / "model")
    saved = json.loads((folder / "tokenizer.json").read_text())
    changes = {
        "pre_tokenizer": {"type": "Whitespace"},
        "normalizer": {"type": "Lowercase"},
        "added token '.MASK.'": [saved["added_tokens"][4] | {"lstrip": True}],
    }
    for name, change in changes.items():
        key = "added_tokens" if name.startswith("added") else name
        changed = Tokenizer.from_str(json.dumps(saved | {key: change}))
        with pytest.raises(ValueError, match=f"does not compute this tokenizer: {name}"):
            tokenizers.tokenizer_spec(changed)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))
    with pytest.raises(ValueError, match="positions of RoBERTa"):
        weights.encoder_file(folder, "x")


# Tokenizers


def tokenized(spec, texts, file):
    """The replies of a model that is nothing but a tokenizer and one table."""
    config = {"layers": 0, "heads": 1, "groups": 1, "dim": 2, "positions": 4000, "epsilon": 1.0}
    tables = {
        "embeddings.tokens.weight": torch.zeros(len(spec["vocab"]), 2),
        "embeddings.positions.weight": torch.zeros(4000, 2),
        "embeddings.norm.weight": torch.ones(2),
        "embeddings.norm.bias": torch.zeros(2),
    }
    weights.write(weights.ModelFile("x", "encoder", config, spec, tables), file)
    return [reply.get("encoder", reply) for reply in page_replies(file, [{"read": [text]} for text in texts])]


def test_byte_level_bpe_divides_texts_as_tokenizers_does(tmp_path):
    tokenizer = byte_level()
    alone = Tokenizer.from_str(tokenizer.to_str())
    alone.post_processor = None
    texts = [*TEXTS, "<s>Once<pad>upon", "don't they'll I'VE we're", " \n\n  a \t b", "unbelievable cat"]
    for text, reply in zip(
        texts, tokenized(tokenizers.tokenizer_spec(tokenizer), texts, tmp_path / "x.js"), strict=True
    ):
        encoding, places = alone.encode(text), python_places(text)
        spans = [trimmed(text, *span) for span in encoding.offsets]
        assert [token["id"] for token in reply["tokens"]] == encoding.ids
        assert [(places[token["start"]], places[token["end"]]) for token in reply["tokens"]] == spans
        assert [token["piece"] for token in reply["tokens"]] == encoding.tokens
        special = [token in ("<s>", "<pad>") for token in encoding.tokens]
        assert [token["special"] for token in reply["tokens"]] == special
        expected = units(text, [None if skip else span for skip, span in zip(special, spans, strict=True)])
        assert [unit["tokens"] for unit in reply["units"]] == [members for _, members in expected]


def test_single_characters(tmp_path):
    spec = tokenizers.character_spec(["[BOS]", "a", "é", "😀", " "], [(0, 0), ("A", 0)])
    first, second = tokenized(spec, ["a😀 é", "abc"], tmp_path / "x.js")
    assert [token["id"] for token in first["tokens"]] == [0, 1, 3, 4, 2]
    assert [(token["start"], token["end"]) for token in first["tokens"]][1:] == [(0, 1), (1, 3), (3, 4), (4, 5)]
    assert second["error"] == "This model has no token for “b”: it knows the characters aé😀 "


def test_the_properties_of_characters_are_those_of_the_libraries():
    text = (FRONTEND / "src" / "model" / "properties.js").read_text()
    versions = re.search(r"regex (\S+) and tokenizers (\S+?):", text)
    if versions and versions.groups() != (regex_version, tokenizers_version):
        pytest.skip(f"properties.js is from {versions[0]}")
    assert text == unicode.module()
