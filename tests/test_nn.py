"""The Transformer from scratch, against torch.nn's, and the recurrent attention against its equations."""

import itertools

import pytest
import torch
from torch import nn

import regard.nn as ours

LENGTHS = torch.tensor([9, 4, 1])
PADDED = torch.arange(9) >= LENGTHS[:, None]


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


# With the weights of torch.nn's counterparts


def copy_attention(mine, theirs):
    for module, name in zip((mine.query, mine.key, mine.value), range(3), strict=True):
        module.weight.data = theirs.in_proj_weight.data.chunk(3)[name]
        module.bias.data = theirs.in_proj_bias.data.chunk(3)[name]
    mine.output.load_state_dict(theirs.out_proj.state_dict())


def copy_layer(mine, theirs):
    copy_attention(mine.attention, theirs.self_attn)
    norms = [mine.attention_norm, mine.feed_forward_norm]
    if isinstance(mine, ours.DecoderLayer):
        copy_attention(mine.cross_attention, theirs.multihead_attn)
        norms.insert(1, mine.cross_attention_norm)
    for n, norm in enumerate(norms, 1):
        norm.load_state_dict(getattr(theirs, f"norm{n}").state_dict())
    mine.feed_forward.fc1.load_state_dict(theirs.linear1.state_dict())
    mine.feed_forward.fc2.load_state_dict(theirs.linear2.state_dict())


def copy_stack(mine, theirs):
    for layer, their_layer in zip(mine.layers, theirs.layers, strict=True):
        copy_layer(layer, their_layer)
    if theirs.norm is not None:
        mine.norm.load_state_dict(theirs.norm.state_dict())


def scatter(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def test_attention_as_it_is():
    x = torch.randn(2, 5, 7)
    output, attended = ours.SelfAttention()(x)
    weights = (x @ x.mT / 7**0.5).softmax(-1)
    close(output, weights @ x)
    close(attended.weights.dense()[:, 0], weights)


def test_a_head():
    head, x = ours.AttentionHead(7, 3), torch.randn(2, 5, 7)
    output, attended = head(x, causal=True)
    weights = (head.query(x) @ head.key(x).mT / 3**0.5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    close(attended.weights.dense()[:, 0], weights.softmax(-1))
    close(output, weights.softmax(-1) @ head.value(x))


def test_many_heads_looking_at_themselves_and_at_a_memory():
    theirs = scatter(nn.MultiheadAttention(24, 4, batch_first=True))
    mine = ours.MultiHeadAttention(24, 4)
    copy_attention(mine, theirs)
    x, memory = torch.randn(3, 5, 24), torch.randn(3, 9, 24)
    for keys, more in ((x, {}), (memory, {"key_padding_mask": PADDED})):
        expected, weights = theirs(x, keys, keys, average_attn_weights=False, **more)
        output, attended = mine(x, keys, lengths=LENGTHS if more else None)
        close(output, expected)
        close(attended.weights.dense(), weights)
    close(mine(x, mine.keys_and_values(memory))[0], mine(x, memory)[0])


def test_groups_of_heads_share_keys_and_values():
    grouped, all_heads = ours.MultiHeadAttention(24, 6, groups=2), ours.MultiHeadAttention(24, 6)
    state = dict(grouped.state_dict())
    for name in ("key.weight", "key.bias", "value.weight", "value.bias"):
        state[name] = state[name].unflatten(0, (2, 1, 4)).expand(2, 3, 4, *state[name].shape[1:]).flatten(0, 2)
    all_heads.load_state_dict(state)
    x = torch.randn(2, 5, 24)
    close(grouped(x)[0], all_heads(x)[0])


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_encoder(pre_norm, activation):
    layer = nn.TransformerEncoderLayer(24, 4, 31, 0, activation, batch_first=True, norm_first=pre_norm)
    theirs = scatter(nn.TransformerEncoder(layer, 3, nn.LayerNorm(24), enable_nested_tensor=False))
    mine = ours.Encoder(
        nn.Identity(), 3, dim=24, heads=4, d_ff=31, activation=activation, pre_norm=pre_norm, final_norm=True
    )
    copy_stack(mine, theirs)
    x = torch.randn(3, 9, 24)
    hidden, attentions = mine(x, LENGTHS)
    close(hidden[-1][~PADDED], theirs(x, src_key_padding_mask=PADDED)[~PADDED])
    assert (len(hidden), len(attentions), attentions[0].weights.shape) == (4, 3, (3, 4, 9, 9))


class Places(nn.Module):
    """Vectors as they come, in the place of embeddings."""

    def forward(self, x, start=0):
        return x


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_decoder(pre_norm):
    layer = nn.TransformerDecoderLayer(24, 4, 31, 0, batch_first=True, norm_first=pre_norm)
    theirs = scatter(nn.TransformerDecoder(layer, 3, nn.LayerNorm(24)))
    mine = ours.Decoder(Places(), 3, dim=24, heads=4, d_ff=31, activation="relu", pre_norm=pre_norm, final_norm=True)
    copy_stack(mine, theirs)
    x, memory = torch.randn(3, 7, 24), torch.randn(3, 9, 24)
    ahead = torch.ones(7, 7, dtype=torch.bool).triu(1)
    expected = theirs(x, memory, tgt_mask=ahead, memory_key_padding_mask=PADDED)
    hidden, attentions, _ = mine(x, mine.begin(memory), LENGTHS)
    close(hidden[-1], expected)
    assert attentions[0][1].weights.shape == (3, 4, 7, 9)
    past, written = mine.begin(memory), []
    for n in range(7):
        hidden, _, past = mine(x[:, n : n + 1], past, LENGTHS)
        written.append(hidden[-1])
    close(torch.cat(written, 1), expected)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_transformer(pre_norm):
    theirs = nn.Transformer(24, 4, 2, 2, 31, 0, batch_first=True, norm_first=pre_norm)
    with torch.no_grad():
        scatter(theirs)
    mine = ours.Transformer(13, 2, dim=24, heads=4, d_ff=31, dropout=0, pre_norm=pre_norm, final_norm=True)
    copy_stack(mine.encoder, theirs.encoder)
    copy_stack(mine.decoder, theirs.decoder)
    source, target = torch.randint(13, (3, 9)), torch.randint(13, (3, 7))
    embed = mine.encoder.embeddings
    ahead = torch.ones(7, 7, dtype=torch.bool).triu(1)
    padded = {"src_key_padding_mask": PADDED, "memory_key_padding_mask": PADDED}
    expected = theirs(embed(source), embed(target), tgt_mask=ahead, **padded) @ embed.tokens.weight.T
    logits, alignments = mine(source, target, LENGTHS)
    close(logits, expected, 1e-4)  # of numbers around 10
    close(logits / 10, expected / 10)
    assert [alignment.weights.shape for alignment in alignments] == [(3, 4, 7, 9)] * 2


def test_places_by_sines_and_cosines():
    actual = ours.SinusoidalPositions()(torch.zeros(1, 5, 6), 3)[0]
    for i, d in itertools.product(range(5), range(3)):
        angle = torch.tensor((i + 3) / 10_000 ** (2 * d / 6))
        close(actual[i, 2 * d : 2 * d + 2], torch.stack([angle.sin(), angle.cos()]))
    assert ours.SinusoidalPositions()(torch.ones(1, 2, 5))[0, 0].tolist() == [1, 2, 1, 2, 1]


# Recurrent attention


def test_additive_attention():
    attention = ours.BahdanauAttention(5)
    query, memory = torch.randn(3, 5), torch.randn(3, 9, 5)
    context, weights = attention(query, attention.key(memory), memory, LENGTHS)
    for b, length in enumerate(LENGTHS):
        scores = torch.stack([
            attention.energy.weight[0] @ (attention.query(query[b]) + attention.key(state)).tanh()
            for state in memory[b, :length]
        ])  # fmt: skip
        close(weights[b, :length], scores.softmax(0))
        close(context[b], scores.softmax(0) @ memory[b, :length])
    assert not weights[PADDED].any()


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
def test_multiplicative_attention(score):
    attention = ours.LuongAttention(5, score)
    query, memory = torch.randn(3, 5), torch.randn(3, 9, 5)
    _, weights = attention(query, attention.key(memory), memory, torch.tensor([9, 9, 9]))
    if score == "concat":
        joined = torch.cat((attention.query.weight, attention.key.weight), 1)
        both = torch.cat((query[:, None].expand_as(memory), memory), -1)
        scores = attention.energy((both @ joined.T).tanh())[..., 0]
    else:
        keys = memory if score == "dot" else memory @ attention.key.weight.T
        scores = (keys @ query[:, :, None])[..., 0]
    close(weights, scores.softmax(-1))


def test_a_score_that_nobody_knows():
    with pytest.raises(ValueError, match='expected a score of "dot", "general" or "concat"'):
        ours.LuongAttention(4, "cosine")


# Writing

MODELS = {
    "transformer": lambda: ours.Transformer(11, 2, dim=24, heads=4, dropout=0),
    "pre-norm": lambda: ours.Transformer(11, 2, dim=24, heads=4, dropout=0, pre_norm=True),
    "bahdanau": lambda: ours.RecurrentTranslator(11, dim=24, dropout=0),
    "general": lambda: ours.RecurrentTranslator(11, dim=24, attention="general", dropout=0),
    "concat": lambda: ours.RecurrentTranslator(11, dim=24, attention="concat", dropout=0),
}


@pytest.fixture(params=MODELS)
def model(request):
    return scatter(MODELS[request.param]()).eval()


SOURCE = torch.randint(3, 11, (3, 9), generator=torch.Generator().manual_seed(1))


def test_a_word_at_a_time_is_all_at_once(model):
    target = torch.randint(3, 11, (3, 6))
    logits, _ = model(SOURCE, target, LENGTHS)
    state = model.begin(SOURCE, LENGTHS)
    for n in range(6):
        step, state = model.step(target[:, n], state)
        close(step, logits[:, n], 2e-5)


def test_padding_changes_nothing(model):
    target = torch.randint(3, 11, (3, 6))
    logits, _ = model(SOURCE, target, LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone, _ = model(SOURCE[b : b + 1, :length], target[b : b + 1])
        close(alone[0], logits[b], 2e-5)


def likelihood(model, source, tokens, first, last):
    """The log-likelihood of what was written, and how many tokens it is."""
    written = tokens.tolist()
    written = written[: written.index(last) + 1] if last in written else written
    logits, _ = model(source, torch.tensor([[first, *written[:-1]]]))
    return logits[0].log_softmax(-1)[torch.arange(len(written)), written].sum().item(), len(written)


def test_greedy_takes_the_likeliest_and_a_narrow_beam_is_greedy(model):
    actual = ours.greedy(model, SOURCE, LENGTHS, bos_id=1, eos_id=2, max_new_tokens=7)
    for b, length in enumerate(LENGTHS):
        state, token = model.begin(SOURCE[b : b + 1, :length]), 1
        for n in range(actual.shape[1]):
            logits, state = model.step(torch.tensor([token]), state)
            token = 2 if n and token == 2 else logits.argmax().item()
            assert actual[b, n] == token
    assert torch.equal(actual, ours.beam(model, SOURCE, LENGTHS, bos_id=1, eos_id=2, max_new_tokens=7, width=1))


def test_a_wide_beam_finds_the_best_of_all(model):
    actual = ours.beam(model, SOURCE, LENGTHS, bos_id=1, eos_id=2, max_new_tokens=3, width=11**2, length_penalty=0.6)
    for b, length in enumerate(LENGTHS):
        source = SOURCE[b : b + 1, :length]

        def score(tokens, source=source):
            total, count = likelihood(model, source, torch.tensor(tokens), 1, 2)
            return total / ((5 + count) / 6) ** 0.6

        several = [t for n in (1, 2) for t in itertools.product([*range(2), *range(3, 11)], repeat=n)]
        whole = [(*t, 2) for t in [(), *several]]
        whole += itertools.product([*range(2), *range(3, 11)], repeat=3) if b == 2 else []
        best = max(score(tokens) for tokens in whole)
        assert score(actual[b].tolist()) >= best - 1e-4


def test_what_has_ended_stays_ended(model):
    with torch.no_grad():
        for tokens in (ours.greedy, ours.beam):
            actual = tokens(model, SOURCE, LENGTHS, bos_id=1, eos_id=2, max_new_tokens=12)
            for row in actual.tolist():
                if 2 in row:
                    assert set(row[row.index(2) :]) == {2}


# Training


def test_label_smoothing():
    logits, target = torch.randn(4, 7, 5), torch.randint(5, (4, 7))
    target[0, 3:] = -100
    right = nn.functional.one_hot(target.clamp(min=0), 5) * 0.8 + 0.2 / 5
    losses = -(right * logits.log_softmax(-1)).sum(-1)
    close(ours.smoothed_loss(logits, target, 0.2), losses[target >= 0].mean())


def test_the_noam_schedule():
    rates = [ours.noam_schedule(step, 64, 100) for step in range(1, 1000)]
    assert max(rates) == rates[99] == pytest.approx(64**-0.5 * 100**-0.5)
    assert rates[:100] == sorted(rates[:100])
    assert rates[99:] == sorted(rates[99:], reverse=True)


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_gets_a_gradient(name):
    model = MODELS[name]().train()
    logits, _ = model(SOURCE, SOURCE[:, :5], LENGTHS)
    ours.smoothed_loss(logits, SOURCE[:, 1:6]).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


def test_a_classifier_learns():
    encoder = ours.Encoder(ours.Embeddings(11, 16, 9), 1, dim=16, heads=2, d_ff=32)
    model = ours.SequenceClassifier(encoder, 16, 2)
    label = (SOURCE == 5).any(1).long()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(SOURCE), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(model(SOURCE).argmax(-1), label)


# Wrong input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ours.MultiHeadAttention(10, 3), r"expected a dim that is divisible by 3 heads\. Got 10\."),
        (lambda: ours.MultiHeadAttention(12, 0), r"expected a dim that is divisible by 0 heads\. Got 12\."),
        (lambda: ours.MultiHeadAttention(12, 6, 4), r"expected groups that divide the 6 heads\. Got 4\."),
        (lambda: ours.Transformer(9, 1, dim=30, heads=8), r"expected a dim that is divisible by 8 heads\. Got 30\."),
        (
            lambda: ours.Embeddings(9, 4, 5)(torch.zeros(1, 6, dtype=torch.long)),
            r"^Embeddings: expected at most 5 positions, as many as it has learned\. Got 6\.$",
        ),
        (lambda: ours.FeedForward(4, 8, "swish"), "expected one of gelu, gelu_new, relu. Got 'swish'"),
    ],
)
def test_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Old names


def test_old_names_of_arguments_still_work(model):
    with pytest.warns(DeprecationWarning, match=r"^Embeddings: vocabulary= is now called vocab_size=\.$"):
        embeddings = ours.Embeddings(vocabulary=11, dim=16, positions=9)
    with pytest.warns(DeprecationWarning, match=r"^Encoder: inner= is now called d_ff=\.$"):
        encoder = ours.Encoder(embeddings, 1, dim=16, heads=2, inner=32)
    with pytest.warns(DeprecationWarning, match=r"^FeedForward\.widen is now called fc1\.$"):
        assert encoder.layers[0].feed_forward.widen.out_features == 32
    with pytest.warns(DeprecationWarning, match=r"^greedy: (first|last|most)= is now called ") as warned:
        actual = ours.greedy(model, SOURCE, LENGTHS, first=1, last=2, most=3)
    assert len(warned) == 3
    assert torch.equal(actual, ours.greedy(model, SOURCE, LENGTHS, bos_id=1, eos_id=2, max_new_tokens=3))
    with pytest.warns(DeprecationWarning, match=r"^regard\.nn\.warm_up is now called noam_schedule\.$"):
        assert ours.warm_up is ours.noam_schedule
    with pytest.raises(TypeError, match=r"d_ff= was given twice, the second time as inner=\."):
        ours.FeedForward(4, d_ff=8, inner=8)


def test_state_that_was_saved_under_old_names_loads():
    made, other = (ours.Encoder(ours.Embeddings(11, 16, 9), 2, dim=16, heads=2, d_ff=32) for _ in range(2))
    old = {name.replace("fc1", "widen").replace("fc2", "narrow"): tensor for name, tensor in made.state_dict().items()}
    assert "layers.1.feed_forward.narrow.bias" in old
    other.load_state_dict(old)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in made.state_dict().items())
    del old["layers.1.feed_forward.narrow.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"layers\.1\.feed_forward\.fc2\.bias\""):
        other.load_state_dict(old)
