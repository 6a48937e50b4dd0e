"""Encoder-decoders: a source and its target in one reading, against transformers' eager attention."""

import io
import json
import pickle

import pytest
import torch
from rich.console import Console

import regard
from regard import attribution
from regard.attribution import Target
from regard.output import terminal, writing
from regard.output.heat_map import heat_map
from regard.output.maps import ShownMap
from support.encoder_decoders import HEADED, SOURCE, TARGET, eager, encoder_decoder, save
from support.models import tiny


@pytest.fixture(scope="module")
def read():
    """By the name of a model: the model with eager attention, a reading of source and target, and eager's output."""
    kept = {}

    def of(kind):
        if kind not in kept:
            model, tokenizer = encoder_decoder(kind)
            dense = eager(model)
            reading = regard.Lens((model, tokenizer)).read(SOURCE, TARGET)
            with torch.no_grad():
                output = dense(
                    input_ids=reading.ids[None],
                    decoder_input_ids=reading.decoder.ids[None],
                    output_attentions=True,
                    output_hidden_states=True,
                )
            kept[kind] = dense, reading, output
        return kept[kind]

    return of


def worst(attentions, expected):
    pairs = zip(attentions, expected, strict=True)
    return max(float((ours.weights.dense() - theirs[0]).abs().max()) for ours, theirs in pairs)


@pytest.mark.parametrize("kind", HEADED)
def test_the_three_attentions_and_the_logits_are_those_of_eager(kind, read):
    _, reading, output = read(kind)
    target, cross = reading.decoder, reading.cross
    assert worst(reading.attention, output.encoder_attentions) < 1e-5
    assert worst(target.attention, output.decoder_attentions) < 1e-5
    assert worst(cross.attention, output.cross_attentions) < 1e-5
    assert (target.logits - output.logits[0]).abs().max() < 1e-4
    for ours, theirs in zip(target.hidden[:-1], output.decoder_hidden_states[:-1], strict=True):
        assert (ours - theirs[0]).abs().max() < 1e-5
    assert (target.final if target.final is not None else target.hidden[-1]).shape == target.hidden[-1].shape
    assert (reading.layers, target.layers, cross.layers) == (2, 3, 3)
    rows, columns = len(target.tokens), len(reading.tokens)
    assert cross.attention[0].weights.shape[-2:] == (rows, columns)
    assert rows != columns


@pytest.mark.parametrize("kind", HEADED)
@pytest.mark.parametrize("part", ["encoder", "decoder", "cross"])
def test_walks_arrive_where_the_model_does(kind, part, read):
    shown = read(kind)[1].attended(part)
    walk = shown.explain("cat")
    assert walk.error < 1e-5
    assert walk.made is not None
    assert walk.made.error < 1e-3 * max(1.0, float(walk.keys.abs().max()), float(walk.query.abs().max()))
    columns = shown.columns
    assert walk.weights.shape == (len(walk.word.tokens), len(columns.tokens))
    assert json.loads(json.dumps(walk.to_dict()))["tokens"] == [token.text for token in columns.tokens]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["T5", "Bart"])
def test_a_walk_across_by_hand(kind, read):
    """Query from the residual stream after the self-attention, keys and values from what the encoder passes on."""
    dense, reading, output = read(kind)
    cross, head, before = reading.cross, 2, output.decoder_hidden_states[0]
    source, count = output.encoder_last_hidden_state[0], before.shape[1]
    mask = torch.full((count, count), -torch.inf).triu(1)[None, None]
    if kind == "T5":
        block, heads, scale = dense.decoder.block[0], 3, 1
        attention = block.layer[1].EncDecAttention
        x = block.layer[0](before, attention_mask=mask)[0][0]
        query, key, value = attention.q(block.layer[1].layer_norm(x)), attention.k(source), attention.v(source)
    else:
        block, heads, scale = dense.model.decoder.layers[0], 5, 4**-0.5
        attention = block.encoder_attn
        x = block.self_attn_layer_norm(before + block.self_attn(before, attention_mask=mask)[0])[0]
        query, key, value = attention.q_proj(x), attention.k_proj(source), attention.v_proj(source)
    word = cross.word("cat")
    rows = list(word.tokens)
    query, key, value = (torch.unflatten(states, 1, (heads, -1))[:, head] for states in (query, key, value))
    weights = (scale * query[rows] @ key.T).softmax(-1)
    walk = cross.explain(word, 0, head)
    assert (walk.weights - weights).abs().max() < 1e-5
    assert (walk.context - weights @ value).abs().max() < 1e-5
    assert (walk.x - x[rows]).abs().max() < 1e-5
    assert walk.made.norm == ("T5LayerNorm" if kind == "T5" else "")


@pytest.mark.parametrize("kind", ["T5", "Bart", "M2M100"])
def test_predictions_are_the_models_own(kind, read):
    _, reading, output = read(kind)
    target = reading.decoder
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(output.logits[0, :-1], target.ids[1:])
    predictions = target.predictions(k=3)
    assert predictions.perplexity == pytest.approx(float(loss.exp()), rel=1e-4)
    assert torch.equal(predictions.ids[:, 0], output.logits[0].argmax(-1))
    last = target.predictions(k=3, layer=-1)
    assert (last.probabilities - predictions.probabilities).abs().max() < 1e-4
    assert reading.cross.predictions(k=3).perplexity == predictions.perplexity
    first = target.predictions(k=3, layer=0)
    assert first.perplexity != pytest.approx(predictions.perplexity)
    with pytest.raises(ValueError, match=r"an encoder predicts nothing; ask its decoder: .*\.decoder\.predictions"):
        reading.predictions()


@pytest.mark.parametrize("kind", ["T5", "Bart", "Marian"])
def test_writing_a_target_is_greedy_decoding_and_its_reading_has_all_three(kind, read):
    dense = read(kind)[0]
    model, tokenizer = encoder_decoder(kind)
    generation = regard.Lens((model, tokenizer)).generate(SOURCE, max_tokens=7)
    written = [token.id for token in generation]
    reading = generation.reading
    ids = torch.tensor([[0]])
    with torch.no_grad():
        for _ in written:
            logits = dense(input_ids=reading.ids[None], decoder_input_ids=ids).logits[:, -1]
            ids = torch.cat([ids, logits.argmax(-1)[None]], 1)
        output = dense(input_ids=reading.ids[None], decoder_input_ids=ids, output_attentions=True)
    assert written == ids[0, 1:].tolist()
    assert reading.decoder.ids.tolist() == ids[0].tolist()
    assert (reading.text, reading.decoder.text) == (SOURCE, generation.text)
    assert reading.decoder.reply == (1, generation.text)
    assert worst(reading.cross.attention, output.cross_attentions) < 1e-5
    assert worst(reading.decoder.attention, output.decoder_attentions) < 1e-5


def test_a_written_target_as_json_has_its_source_and_whom_it_looked_at():
    generation = regard.Lens(encoder_decoder("M2M100")).generate(SOURCE, max_tokens=4)
    generation.finish()
    numbers = writing.to_dict(generation, with_looks=True)
    assert (numbers["source"], numbers["prompt"], numbers["reply"]) == (SOURCE, "", generation.text)
    layers = generation.reading.decoder.attention
    weights = torch.stack([attention.weights.dense() for attention in layers]).mean((0, 1))
    shares = [token["looks"]["first_token"] for token in numbers["tokens"]]
    assert shares == pytest.approx(weights[:4, 0].tolist(), abs=1e-5)
    with pytest.raises(ValueError, match=r"^generate: the text is empty"):
        generation._lens.generate(" ")


def test_a_target_goes_on_from_its_beginning(read):
    lens = read("M2M100")[1].lens
    after = lens.after(SOURCE)
    generation = after.generate("a cat", max_tokens=3)
    reading = generation.finish()
    assert reading.decoder.text == "a cat" + generation.text
    assert after.read(TARGET).cross.weights(0).shape == read("M2M100")[1].cross.weights(0).shape
    with pytest.raises(TypeError, match=r"pickle the lens that read the source"):
        pickle.dumps(after)
    assert pickle.loads(pickle.dumps(reading)).cross.weights(1).shape == reading.cross.weights(1).shape


def test_folders_open_with_their_heads(tmp_path, read):
    reading = regard.Lens(save("Bart", tmp_path / "bart")).read(SOURCE, TARGET)
    _, expected, output = read("Bart")
    assert worst(reading.cross.attention, output.cross_attentions) < 1e-5
    assert (reading.decoder.logits - expected.decoder.logits).abs().max() < 1e-5


def test_words_of_the_target_look_at_words_of_the_source(read):
    _, reading, output = read("Pegasus")
    cross = reading.cross
    assert cross.columns.text == SOURCE
    assert reading.columns is reading
    expected = output.cross_attentions[2][0]  # (heads, target tokens, source tokens)
    by_hand = torch.zeros(5, len(cross.units), len(reading.units))
    for i, word in enumerate(cross.units):
        for j, other in enumerate(reading.units):
            by_hand[:, i, j] = expected[:, list(word.tokens)][:, :, list(other.tokens)].sum(2).mean(1)
    assert (cross.weights(2) - by_hand).abs().max() < 1e-5
    word = cross.word("cat")
    assert (word.attends_to(2) - by_hand[:, word.index]).abs().max() < 1e-5
    assert cross.to_others(word, 2, 0) == pytest.approx(
        float(by_hand[0, word.index, [not unit.special for unit in reading.units]].sum()), abs=1e-5
    )
    with pytest.raises(ValueError, match=r"“cat” is a word of the target, and cross-attention looks at the source"):
        word.attended_by(2)
    with pytest.raises(ValueError, match=r"explain: 'cat' is a word of another reading"):
        cross.explain(reading.decoder.word("cat"))


def test_without_a_target_the_encoder_alone_reads(read):
    lens = read("T5")[1].lens
    reading = lens.read(SOURCE)
    assert (reading.part, reading.decoder, reading.cross) == ("encoder", None, None)
    assert "given a second text, its decoder reads that as the target" in reading.note
    assert not read("T5")[1].note
    with pytest.raises(ValueError, match=r"expected encoder; a decoder and its cross-attention need a target"):
        reading.attended("cross")
    assert reading.attended() is reading


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (3, TypeError, r"read: expected a str\. Got int\."),
        ("", ValueError, r"read: the text is empty\."),
        (" \n", ValueError, r"read: the text is empty\."),
        ("\ud800", ValueError, r"read: the text is not valid Unicode"),
    ],
)
def test_targets_that_cannot_be_read(target, error, message, read):
    with pytest.raises(error, match=message):
        read("T5")[1].lens.read(SOURCE, target)


def test_a_target_beyond_the_context_is_truncated(read):
    reading = read("Bart")[1].lens.read(SOURCE, "a cat " * 60)
    assert reading.truncated is None
    assert len(reading.decoder.tokens) == 48
    assert "this model takes at most 48 tokens" in reading.decoder.truncated
    assert reading.cross.attention[0].weights.shape[-2:] == (48, len(reading.tokens))


def test_a_pair_of_texts_for_other_models_is_one_text():
    reading = regard.Lens(tiny("bert")).read("the cat", "the mat")
    assert (reading.decoder, reading.cross, reading.part, reading.parts) == (None, None, "", {})
    assert reading.text == "the cat\nthe mat"
    with pytest.raises(ValueError, match=r"has no decoder that reads a target after a source"):
        reading.lens.after("the cat")
    with pytest.raises(ValueError, match=r"attention: .* has one, without a name\. Got 'cross'\."):
        reading.attended("cross")


# Maps of cross-attention


@pytest.mark.parametrize("kind", ["T5", "Bart"])
def test_value_weighted_and_norms_across(kind, read):
    dense, reading, output = read(kind)
    layer = 1
    weights = output.cross_attentions[layer][0].double()
    if kind == "T5":
        attention = dense.decoder.block[layer].layer[1].EncDecAttention
        values, joining = attention.v(output.encoder_last_hidden_state[0]), attention.o.weight.T
    else:
        attention = dense.model.decoder.layers[layer].encoder_attn
        values, joining = attention.v_proj(output.encoder_last_hidden_state[0]), attention.out_proj.weight.T
    heads = len(weights)
    values = torch.unflatten(values.double(), 1, (heads, -1))
    taken = torch.einsum("jhe,hed->hjd", values, torch.unflatten(joining.double(), 0, (heads, -1)))
    expected = weights * taken.norm(dim=-1)[:, None]
    assert (attribution.value_weighted(reading.cross, layer).dense() - expected).abs().max() < 1e-4
    together = torch.einsum("hij,hjd->ijd", weights, taken).norm(dim=-1)
    assert (attribution.norms(reading.cross, layer).dense() - together).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["T5", "M2M100"])
@pytest.mark.parametrize("part", ["decoder", "cross"])
def test_gradients_through_either_attention_of_a_decoder(kind, part, read):
    """(w ∂y/∂w)⁺, with ∂y/∂w by automatic differentiation of eager attention."""
    dense, reading, _ = read(kind)
    shown, layer = reading.attended(part), 1
    output = dense(input_ids=reading.ids[None], decoder_input_ids=reading.decoder.ids[None], output_attentions=True)
    weights = (output.decoder_attentions if part == "decoder" else output.cross_attentions)[layer]
    token = int(output.logits[0, -1].argmax())
    gradient = torch.autograd.grad(output.logits[0, -1, token], weights)[0][0]
    expected = (weights[0] * gradient).clamp(min=0).detach()
    target = Target.next_token(shown, token)
    close = attribution.gradient(shown, target, layer).dense() - expected
    assert close.abs().max() < 1e-4 * max(1.0, float(expected.max()))


def test_what_takes_one_text_refuses_two(read):
    cross = read("T5")[1].cross
    target = attribution.default_target(cross)
    calls = {
        "knockout": lambda: attribution.knockout(cross, target, heads=[(0, 0)]),
        "knockouts": lambda: attribution.knockouts(cross, target),
        "relevance": lambda: attribution.relevance(cross, target),
        "mixing": lambda: attribution.mixing(cross, 0),
        "rollout": lambda: attribution.rollout(cross, tokens=-1),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=rf"^{name}: .*self-attention"):
            call()


def test_a_knockout_in_the_decoder_leaves_its_cross_attention_alone(read):
    """A word of the target hidden from the others, against eager attention with that column masked."""
    dense, reading, _ = read("Bart")
    target = reading.decoder
    token = int(target.logits[-1].argmax())
    explained = Target.next_token(target, token)
    result = attribution.knockout(target, explained, edges=[(None, "cat")])
    count, hidden = len(target.tokens), list(target.word("cat").tokens)
    mask = torch.full((count, count), -torch.inf).triu(1)
    mask[:, hidden] = -torch.inf
    mask = mask.masked_fill(mask.isneginf().all(1)[:, None], 0)
    with torch.no_grad():
        changed = dense(
            input_ids=reading.ids[None],
            decoder_input_ids=target.ids[None],
            decoder_attention_mask=mask[None, None],
        )
    assert result.after == pytest.approx(float(changed.logits[0, -1, token]), abs=1e-4)
    assert result.after != pytest.approx(result.before, abs=1e-3)


def test_a_decoder_without_a_head_is_read_and_predicts_nothing():
    model, tokenizer = encoder_decoder("Bart", head=False)
    reading = regard.Lens((model, tokenizer)).read(SOURCE, TARGET)
    assert reading.decoder.explain("cat").error < 1e-5
    with pytest.raises(ValueError, match=r"has no head that predicts tokens"):
        reading.decoder.predictions()


# In the terminal, as a picture and as JSON


def test_pictures_and_json_have_rows_of_the_target_and_columns_of_the_source(tmp_path, read):
    reading = read("T5")[1]
    for options in ({"layer": 1, "head": 2}, {"map": "value-weighted"}, {"layer": 0, "map": "norms"}):
        reading.save(tmp_path / "across.png", attention="cross", **options)
        assert (tmp_path / "across.png").read_bytes().startswith(b"\x89PNG")
    reading.save(tmp_path / "across.json", attention="cross", layer=1, head=2)
    numbers = json.loads((tmp_path / "across.json").read_text())
    assert [unit["text"] for unit in numbers["units"]][1:] == TARGET.split()
    assert [unit["text"] for unit in numbers["source"]["units"]][:-1] == SOURCE.split()
    assert (numbers["part"], numbers["source"]["text"]) == ("cross", SOURCE)
    weights = torch.tensor(numbers["attention"][0][0])
    assert (weights - reading.cross.weights(1, 2)).abs().max() < 1e-6


def test_the_terminal_shows_words_of_both_texts(read):
    reading = read("T5")[1]
    lines = printed(heat_map(ShownMap(reading.cross), 1, 2, 80)).splitlines()
    assert lines[0].startswith("cross-attention, layer 1, head 2: each row is where a word of the target looks")
    assert next(line for line in lines if "sat" in line).split() == [*SOURCE.split(), "</s>"]
    assert [line.split()[0] for line in lines[-5:]] == ["<pad>", *TARGET.split()]
    lesson = " ".join(printed(terminal.explain(reading.cross.explain("cat"), 80)).split())
    assert "Every token of the source has a key" in lesson
    assert "keys and values from what the encoder made of the source" in lesson
    assert "bias" not in lesson  # T5 has one of zeros
    assert lesson.index(SOURCE) < lesson.index(TARGET)


def printed(renderable):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()
