"""Answers from documents, against transformers' eager attention and log-probabilities, in float64."""

import copy
import io
import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

import regard
from regard import answers, attribution
from regard.answers import heads as stored
from regard.answers.direct import direct_logits
from regard.answers.examples import examples
from regard.answers.hiding import by_sentence, log_probabilities
from regard.answers.learning import Observed, fitted, nonnegative_ridge
from regard.answers.mass import masses
from regard.answers.prompt import asked_of, prompt_of
from regard.attribution import Target
from support.cli import could_not, done
from support.decoder import save_decoder

TEMPLATE = "{% for m in messages %}w1 {{ m['content'] }}\nw2{% endfor %}"
TEXT = "the cat sat on the bank\n\nthe bank sat\non the river\n\nmoney on the cat w7 w8\n\nw3 river money w9\n"
QUESTION = "the cat sat on"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    folder = save_decoder(tmp_path_factory.mktemp("models") / "decoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def lens(pair):
    return regard.Lens((copy.deepcopy(pair[0]), pair[1]))


@pytest.fixture(scope="module")
def passages():
    return answers.passages(TEXT)


@pytest.fixture(scope="module")
def prompt(lens, passages):
    return prompt_of(lens, QUESTION, passages)


@pytest.fixture(scope="module")
def reading(lens, prompt):
    return lens.chat(prompt.messages, 9).finish()


@pytest.fixture(scope="module")
def asked(reading, prompt):
    """As if the reply were two sentences: a tiny model writes no full stops."""
    asked = asked_of(reading, prompt)
    first = asked.reply
    sentences = torch.where(torch.arange(len(asked.ids)) < first + 4, 0, 1).where(asked.sentences >= 0, -1)
    return asked._replace(sentences=sentences, spans=[(0, 5), (6, 20)])


@pytest.fixture(scope="module")
def eager(pair):
    model = copy.deepcopy(pair[0])
    model.set_attn_implementation("eager")
    return model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# Passages


def test_paragraphs_lines_and_sentences():
    text = "One line.  Two.\r\n  more\r\n \t\r\nA new\nparagraph!\n\n\n"
    assert [p.text for p in answers.passages(text)] == ["One line.  Two.\r\n  more", "A new\nparagraph!"]
    assert [p.text for p in answers.passages(text, "lines")] == ["One line.  Two.", "more", "A new", "paragraph!"]
    assert [p.text for p in answers.passages(text, "sentences")] == [
        "One line.", "Two.\r\n  more", "A new\nparagraph!",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"passages: by: expected one of 'paragraphs'.* Got 'words'"):
        answers.passages(text, "words")


@given(st.text(st.sampled_from("aB. \n\t\r\u200b"), max_size=60), st.sampled_from(["paragraphs", "sentences", "lines"]))
def test_no_word_of_a_text_is_lost(text, by):
    divided = answers.passages(text, by)
    assert all(text[p.start : p.end] == p.text and p.text.strip() for p in divided)
    assert all(first.end <= second.start for first, second in pairwise(divided))
    covered = {n for p in divided for n in range(p.start, p.end)}
    assert all(n in covered for n, letter in enumerate(text) if letter in "aB.")


def test_passages_of_files_and_stdin(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("\ufeffone\n\ntwo", "utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"three")))
    read = answers.read_passages([tmp_path / "a", "-"])
    assert [(p.file, p.start, p.text) for p in read] == [
        (str(tmp_path / "a"), 0, "one"), (str(tmp_path / "a"), 5, "two"), ("-", 0, "three"),
    ]  # fmt: skip


BAD = {
    "empty": (b"", "the file is empty"),
    "blank": (b" \n\n\t", "there is nothing to read in it but white space"),
    "latin": ("Z\u00fcrich".encode("latin-1"), "not UTF-8 at byte 1.*convert it to UTF-8"),
    "binary": (b"a\0b", "it holds a NUL at character 1: a binary file"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_text(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        answers.read_passages([tmp_path / name])


# The prompt


def test_every_token_of_a_passage_is_its_own(reading, prompt, passages, asked):
    for number, passage in enumerate(passages):
        start, end = prompt.spans[number]
        assert prompt.text[start:end] == passage.text
        tokens = [token.text for n, token in enumerate(reading.tokens) if asked.passages[n] == number]
        assert tokens == [word for word in passage.text.replace("\n", " \n ").split(" ") if word]
    without = asked.kept(torch.tensor([False, True, False, True]))
    left = " ".join(token.text for n, token in enumerate(reading.tokens[: asked.reply]) if without[n])
    expected = prompt.text.replace(f"{passages[1].text}\n\n", "").replace(passages[3].text, "")
    assert left.split(" ") == [word for word in expected.replace("\n", " \n ").split(" ") if word]


def test_what_cannot_be_asked(lens, pair, passages):
    with pytest.raises(TypeError, match=r"ask: question: expected a str. Got int"):
        answers.ask(lens, 3, passages)
    with pytest.raises(ValueError, match="ask: the question is empty"):
        answers.ask(lens, " \n", passages)
    with pytest.raises(ValueError, match="ask: there are no passages"):
        answers.ask(lens, QUESTION, [])
    with pytest.raises(ValueError, match=r"ask: sources: expected 1 or more. Got 0"):
        answers.ask(lens, QUESTION, passages, sources=0)
    with pytest.raises(TypeError, match="text files, or passages, and not both"):
        answers.ask(lens, QUESTION, [passages[0], "notes.txt"])
    tokenizer = copy.deepcopy(pair[1])
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"ask: .* has no chat template"):
        answers.ask(regard.Lens((copy.deepcopy(pair[0]), tokenizer)), QUESTION, passages)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(ValueError, match="changes the text of a message"):
        answers.ask(regard.Lens((copy.deepcopy(pair[0]), tokenizer)), QUESTION, passages)
    body = copy.deepcopy(pair[0]).model
    with pytest.raises(ValueError, match=r"chat: .* has no head that predicts the next token"):
        answers.ask(regard.Lens((body, pair[1])), QUESTION, passages)


# The three numbers


def test_mass_is_that_of_the_dense_weights(eager, reading, asked):
    with torch.no_grad():
        weights = torch.stack(eager(asked.ids[None], output_attentions=True).attentions)[:, 0]  # (L,H,N,N)
    mass = masses(reading, asked)
    for sentence in (0, 1):
        written = (asked.sentences == sentence).nonzero()[:, 0]
        assert mass.tokens[sentence] == len(written)
        rows = weights[:, :, written - 1]  # of the tokens at which these were predicted
        torch.testing.assert_close(mass.of_first[:, :, sentence], rows[..., 0].sum(-1).float())
        for passage in range(4):
            expected = rows[..., asked.passages == passage].sum((-2, -1)).float()
            torch.testing.assert_close(mass.of_passages[:, :, sentence, passage], expected)


def test_log_probabilities_are_those_of_transformers(lens, eager, asked):
    hidden = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]], dtype=torch.bool)
    done = []
    logs = log_probabilities(lens, asked, hidden, done.append)
    count = len(asked.ids) - asked.reply
    for row, which in zip(logs, hidden, strict=True):
        ids = asked.ids[asked.kept(which)]
        with torch.no_grad():
            logits = eager(ids[None]).logits[0].log_softmax(-1)
        expected = logits[torch.arange(len(ids) - count - 1, len(ids) - 1), ids[-count:]]
        torch.testing.assert_close(row, expected.float(), rtol=1e-6, atol=1e-6)
    assert sum(done) == len(hidden)
    sums = by_sentence(logs, asked)
    torch.testing.assert_close(sums, torch.stack([logs[:, :4].sum(1), logs[:, 4:].sum(1)], 1))


def test_hiding_is_cutting_every_edge_but_for_the_positions(eager, asked):
    hidden = torch.tensor([False, True, False, True])
    kept = asked.kept(hidden)
    seen = torch.ones(len(kept), len(kept), dtype=torch.bool).tril() & (kept | torch.eye(len(kept), dtype=torch.bool))
    mask = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    with torch.no_grad():
        cut = eager(asked.ids[None], attention_mask=mask[None, None]).logits[0][kept]
        left_out = eager(asked.ids[None, kept], position_ids=kept.nonzero()[None, :, 0]).logits[0]
    torch.testing.assert_close(left_out, cut, rtol=1e-4, atol=3e-5)  # eager attention takes its softmax in float32


def test_direct_logits_are_rows_of_the_attribution(reading, asked):
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for place in range(asked.reply, len(asked.ids)):
        target = Target.next_token(reading, int(asked.ids[place]), position=place - 1)
        for layer in range(reading.layers):
            row = attribution.logits(reading, target, layer)[:, place - 1].sum(0)
            for passage in range(4):
                expected[asked.sentences[place], passage] += row[asked.passages == passage].sum()
    torch.testing.assert_close(direct_logits(reading, asked), expected, rtol=1e-9, atol=1e-9)


# Answers


def test_an_answer(lens, passages, reading):
    weights = answers.HeadWeights("m", torch.rand(2, 4), 0.7, 6.0)
    answer = answers.ask(lens, QUESTION, passages, max_tokens=9, heads=weights)
    assert answer.reply == reading.reply.text
    assert (answer.model, answer.question, list(answer.passages)) == (lens.name, QUESTION, passages)
    assert answer.note.startswith("The reply was cut off after 9 tokens. The model knows")
    (sentence,) = answer.sentences
    assert answer.reply[sentence.start : sentence.end] == sentence.text == answer.reply.strip()
    asked = asked_of(answer.reading, prompt_of(lens, QUESTION, passages))
    rows = torch.cat([torch.zeros(1, 4, dtype=torch.bool), torch.eye(4, dtype=torch.bool)])
    total = log_probabilities(lens, asked, rows).double().sum(1)
    assert sentence.log_probability == pytest.approx(float(total[0]))
    mass = masses(answer.reading, asked)
    scores = (weights.weights[..., None] * mass.of_passages[:, :, 0]).sum((0, 1))
    share = scores / (weights.weights * (9 - mass.of_first[:, :, 0])).sum()
    logits = direct_logits(answer.reading, asked)[0]
    predicted = scores + 0.7 * logits
    assert [source.passage for source in sentence.sources] == predicted.argsort(descending=True).tolist()
    assert 0 < int((predicted < 6).sum()) < 4
    for source in sentence.sources:
        assert source.knockout == pytest.approx(float(total[0] - total[source.passage + 1]), abs=1e-5)
        expected = float(predicted[source.passage])
        assert source.score == (
            pytest.approx(expected, abs=1e-5) if expected >= 6 or expected == float(predicted.max()) else 0
        )
        assert source.attention == pytest.approx(float(share[source.passage]), abs=1e-6)
        assert source.logits == pytest.approx(float(logits[source.passage]), abs=1e-6)
    assert "1 sentence from 4 passages" in repr(answer)


def test_the_dictionary_of_an_answer(lens, passages):
    answer = json.loads(json.dumps(answers.ask(lens, QUESTION, passages, max_tokens=3, sources=2).to_dict()))
    assert list(answer) == ["model", "question", "reply", "note", "passages", "sentences"]
    assert list(answer["passages"][0]) == ["file", "start", "end", "text"]
    (sentence,) = answer["sentences"]
    assert list(sentence) == ["text", "start", "end", "log_probability", "sources"]
    assert [list(source) for source in sentence["sources"]] == [
        ["passage", "attention", "logits", "knockout", "score"]
    ] * 2


def test_all_heads_count_alike_where_none_are_learned(lens, passages, cache):
    answer = answers.ask(lens, QUESTION, passages, max_tokens=3)
    assert "Every head counts alike" in answer.note
    assert "regard ask --learn" in answer.note
    sources = answer.sentences[0].sources
    assert all(source.score == source.attention for source in sources)
    assert 0 < sum(source.attention for source in sources) < 1


def test_a_model_whose_head_is_not_linear(pair, passages):
    model = copy.deepcopy(pair[0])
    model.lm_head = torch.nn.Sequential(model.lm_head, torch.nn.Tanh())
    answer = answers.ask(regard.Lens((model, pair[1])), QUESTION, passages, max_tokens=3)
    assert {source.logits for source in answer.sentences[0].sources} == {None}
    assert "There is no direct logit attribution." in answer.note


def test_an_interrupted_reply(lens, passages):
    given = []

    def stop(stage, steps):
        given.append(stage)
        if given == ["tokens"] * 3:
            raise KeyboardInterrupt

    answer = answers.ask(lens, QUESTION, passages, max_tokens=9, advance=stop)
    assert len(answer.reply.split()) == 3
    assert answer.note.startswith("The reply was interrupted.")
    assert answer.sentences[0].sources[0].knockout != 0
    assert given == ["tokens"] * 3 + ["knockouts"] * 5


def test_weights_of_another_model(lens, passages):
    with pytest.raises(ValueError, match="the weights of m are for 3 layers × 5 heads, and this model has 2 × 4"):
        answers.ask(lens, QUESTION, passages, heads=answers.HeadWeights("m", torch.ones(3, 5)))


# Longer than the context


def test_a_prompt_beyond_the_context(lens):
    many = answers.passages("\n\n".join(["the cat sat on the bank"] * 200))
    with pytest.raises(ValueError, match=r"have 1,\d+ tokens, the reply may have 64, .* at most 1,024. .*--windows"):
        answers.ask(lens, QUESTION, many)
    given = []
    answer = answers.ask(
        lens, QUESTION, many, sources=1, windows=True, max_tokens=5, advance=lambda stage, steps: given.append(stage)
    )
    assert given.count("windows") == 2
    assert 100 < len(answer.passages) < 200
    assert len(answer.reading.tokens) <= 1024
    assert f"read were {len(answer.passages)} of 200 passages" in answer.note
    with pytest.raises(ValueError, match=r"a passage of - has 1,2.* tokens, and .* fit into the context"):
        answers.ask(lens, QUESTION, answers.passages("cat " * 1200), windows=True)


# Weights of heads


def test_the_regression_arrives_at_the_least_squares_that_are_not_negative():
    x, true = torch.randn(40, 7, dtype=torch.float64), torch.tensor([2.0, 0, 1, 0, 0, 3, 0.5], dtype=torch.float64)
    y = x @ true - 2 * x[:, 1] + 0.1 * torch.randn(40, dtype=torch.float64)
    weights = nonnegative_ridge(x, y, 0.3)
    slope = x.T @ (x @ weights - y) + 0.3 * weights  # Karush, Kuhn and Tucker
    assert weights[1] == 0
    assert bool((slope >= -1e-6).all())
    assert float((slope * weights).abs().max()) < 1e-6


def test_planted_weights_are_found():
    true, observed = torch.zeros(3, 5), []
    true[1, 2], true[2, 4] = 0.8, 0.3
    for _ in range(80):
        mass, logits = 10 * torch.rand(3, 5, 7), 5 * torch.randn(7)
        hidden = torch.cat([torch.zeros(1, 7), torch.eye(7), torch.rand(24, 7) < 0.5]).bool()
        knockouts = (true[..., None] * mass).sum((0, 1)) + 0.4 * logits
        observed.append(Observed(mass, logits, hidden, (~hidden).float() @ knockouts - 20))
    learned = fitted("m", observed)
    torch.testing.assert_close(learned.weights, true, rtol=0.1, atol=0.05)  # a ridge shrinks
    assert learned.logits == pytest.approx(0.4, abs=0.05)
    idle = torch.cat(
        [learned.predicted(seen.mass, seen.logits)[seen.total[0] - seen.total[1:8] < 0.5] for seen in observed]
    )
    assert 0.9 <= float((idle < learned.floor).float().mean()) <= 1


def test_learned_weights_are_kept(lens, passages, cache):
    counted = []
    learned = answers.learn(lens, 3, advance=counted.append)
    assert (sum(counted), learned.documents, learned.weights.shape) == (3, 3, (2, 4))
    assert bool((learned.weights >= 0).all())
    again = answers.head_weights(lens)
    assert again.learned
    torch.testing.assert_close(again.weights, learned.weights, rtol=0, atol=1e-4)
    assert (again.logits, again.floor) == pytest.approx((learned.logits, learned.floor), abs=1e-4)
    assert "Every head" not in answers.ask(lens, QUESTION, passages, max_tokens=3).note
    path = stored.stored_at(lens)
    path.write_text('{"model": "m"}')
    with pytest.raises(ValueError, match=f"{path.name} is damaged: it holds no weights of heads"):
        answers.head_weights(lens)
    path.write_text('{"model": "m", "documents": 3, "logits": 0, "floor": 0, "weights": [[-1]]}')
    with pytest.raises(ValueError, match="expected a number, 0 or more"):
        answers.head_weights(lens)
    with pytest.raises(ValueError, match=r"learn: documents: expected two or more. Got 1"):
        answers.learn(lens, 1)


def test_weights_come_with_regard_for_the_embedded_decoder():
    shipped = stored.shipped("SmolLM2-135M-Instruct")
    assert shipped.weights.shape == (30, 9)
    assert bool((shipped.weights >= 0).all())
    assert shipped.weights.flatten().topk(5).values.sum() > 0.8 * shipped.weights.sum()  # a handful of heads
    assert shipped.documents >= 50
    assert stored.shipped("../heads/SmolLM2-135M-Instruct") is stored.shipped("another") is None


def test_documents_to_learn_from_and_to_measure_on_have_nothing_in_common(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import ask_documents

    from regard.answers import examples as learning

    measured, learned = ask_documents.documents(20), examples(20)
    assert measured[:7] == ask_documents.documents(7)
    assert learned[:7] == examples(7)
    assert not set(ask_documents.FORMS) & set(learning._FORMS)
    names, others = (
        {name for words in table.values() for name in words.split() if not name.isdigit()}
        for table in (ask_documents.NAMES, learning._NAMES)
    )
    assert len(names & others) <= 1  # "pepper" is a dog's name, and goods
    for document in [*measured, *learned]:
        assert document.answer in document.facts[document.fact]
        assert sum(document.answer in fact.replace(".", "").split() for fact in document.facts) == 1
    assert ask_documents.is_right(f"It is {measured[0].answer}.", measured[0])
    assert not ask_documents.is_right("It is elsewhere.", measured[0])
    other = measured[0].facts[measured[0].fact - 1]
    assert not ask_documents.is_right(f"{other} {measured[0].answer}", measured[0])


# On the command line


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes.txt").write_text(TEXT)
    return tmp_path / "notes.txt"


def test_the_command(run, folder, notes, cache):
    out = done(run("ask", QUESTION, notes, "--model", folder, "--max-tokens", 4, "--sources", 2))
    assert "/notes.txt, 0–23: the cat sat on the bank" in out
    assert out.count("▏") + out.count("█") > 0
    for word in ("attention", "logits", "knockout", "4 passages of 1 file", "cut off after 4 tokens"):
        assert word in out
    answer = json.loads(done(run("ask", QUESTION, notes, "--model", folder, "--passages", "lines", "--json")))
    assert [passage["text"] for passage in answer["passages"]] == [line for line in TEXT.split("\n") if line]


def test_the_command_saves(run, folder, notes, cache):
    path = notes.with_suffix(".json")
    printed = json.loads(done(run("ask", QUESTION, notes, "--model", folder, "--json", "--save", path)))
    assert json.loads(path.read_text()) == printed
    could_not(run("ask", QUESTION, notes, "--save", "a.txt"), r"ends in .html or .json. Got 'a.txt'")


def test_the_command_with_wrong_files(run, folder, tmp_path):
    could_not(run("ask", QUESTION, tmp_path / "none.txt"), "No such file or directory")
    for name, (content, message) in BAD.items():
        (tmp_path / name).write_bytes(content)
        could_not(run("ask", QUESTION, tmp_path / name), message)
    assert run("ask", QUESTION).code == 2
    assert run("ask", QUESTION, tmp_path, "--passages", "words").code == 2


def test_the_command_learns(run, folder, notes, cache, monkeypatch):
    monkeypatch.setattr("regard.answers.learning.DOCUMENTS", 2)
    monkeypatch.setattr(answers.learn, "__defaults__", (2,))
    result = run("ask", QUESTION, notes, "--model", folder, "--max-tokens", 3, "--learn")
    assert "Every head" not in result.out
    assert result.err.startswith("regard: Which heads of decoder matter is kept in ")
