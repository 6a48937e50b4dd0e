"""The encoder from scratch against BertModel of transformers."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from regard.nn import Encoder
from regard.nn.encoder import our_name

_spec = importlib.util.spec_from_file_location("fixtures_lens", Path(__file__).with_name("fixtures_lens.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)

LENGTHS = (11, 7, 1, 5)


@pytest.fixture
def bert():
    config = transformers.BertConfig(
        vocab_size=41,
        hidden_size=15,
        num_hidden_layers=3,
        num_attention_heads=5,
        intermediate_size=17,
        max_position_embeddings=13,
        type_vocab_size=3,
        layer_norm_eps=1e-7,
        attn_implementation="eager",
    )
    torch.manual_seed(1)
    model = transformers.BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


@pytest.fixture
def folder(bert, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    bert.save_pretrained(tmp_path)
    return tmp_path


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config |= changes
    config = {name: value for name, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder, change):
    tensors = dict(
        filter(None, (change(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items()))
    )
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def agree(encoder, bert):
    ids = torch.randint(0, 41, (len(LENGTHS), max(LENGTHS)))
    lengths = torch.tensor(LENGTHS)
    mask = (torch.arange(max(LENGTHS)) < lengths[:, None]).long()
    with torch.no_grad():
        expected = bert(ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
        hidden, attentions = encoder(ids, lengths)
        alone, _ = encoder(ids[1:2, :7])
    assert (len(hidden), len(attentions)) == (4, 3)
    for layer, (found, wanted) in enumerate(zip(hidden, expected.hidden_states, strict=True)):
        for row, length in enumerate(LENGTHS):
            torch.testing.assert_close(found[row, :length], wanted[row, :length], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[1:2, :7], alone[layer], atol=1e-5, rtol=1e-5)
    for found, wanted in zip(attentions, expected.attentions, strict=True):
        for row, length in enumerate(LENGTHS):
            weights = found.weights.dense()[row, :, :length]
            torch.testing.assert_close(weights, wanted[row, :, :length], atol=2e-6, rtol=0)
            assert not weights[..., length:].any()


def test_as_saved(folder, bert):
    encoder = Encoder.from_pretrained(folder)
    assert not encoder.training
    agree(encoder, bert)


def test_with_the_prefix_of_a_model_with_a_head(folder, bert):
    change_tensors(folder, lambda name, tensor: (f"bert.{name}", tensor))
    agree(Encoder.from_pretrained(folder), bert)


def test_with_the_names_of_old_checkpoints_and_more_than_is_needed(folder, bert):
    def old(name, tensor):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return f"bert.{name}", tensor

    change_tensors(folder, old)
    tensors = load_file(folder / "model.safetensors") | {"cls.predictions.bias": torch.ones(3)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    agree(Encoder.from_pretrained(folder), bert)


def test_in_half_precision_it_is_computed_in_single(folder):
    change_tensors(folder, lambda name, tensor: (name, tensor.bfloat16()))
    assert Encoder.from_pretrained(folder).embeddings.tokens.weight.dtype == torch.float32


def test_the_embedded_model():
    bert = transformers.AutoModel.from_pretrained(fixtures.EMBEDDED, attn_implementation="eager").eval()
    encoder = Encoder.from_pretrained(fixtures.EMBEDDED)
    ids, lengths = torch.randint(1000, 30_000, (3, 19)), torch.tensor([19, 7, 13])
    with torch.inference_mode():
        hidden, _ = encoder(ids, lengths)
        mask = (torch.arange(19) < lengths[:, None]).long()
        expected = bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for found, wanted in zip(hidden, expected, strict=True):
        assert (found - wanted)[mask.bool()].abs().max() < 1e-5


def test_it_can_be_trained():
    encoder = Encoder(vocabulary=11, dim=6, layers=2, heads=3, inner=8, positions=5)
    hidden, _ = encoder(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]))
    hidden[-1].square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type: expected 'bert'. Got 'roberta'."),
        ({"model_type": ...}, "model_type: expected 'bert'. Got None."),
        ({"hidden_act": "relu"}, "hidden_act: expected 'gelu'. Got 'relu'."),
        ({"is_decoder": True}, "is_decoder: expected False. Got True."),
        ({"position_embedding_type": "relative_key"}, "expected 'absolute'. Got 'relative_key'."),
        ({"hidden_size": ..., "vocab_size": ...}, "config.json lacks vocab_size, hidden_size."),
        ({"hidden_size": 20}, "embeddings.tokens.weight: expected (41, 20), by config.json. Got (41, 15)."),
        ({"num_attention_heads": 4}, "expected a dim that 4 heads divide. Got 15."),
        ({"num_hidden_layers": 4}, "model.safetensors lacks layers.3.attention.key.bias and 15 more."),
    ],
    ids=lambda case: next(iter(case), "") if isinstance(case, dict) else "",
)
def test_what_it_does_not_compute(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole message is looked at
        Encoder.from_pretrained(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_tensors(folder):
    change_tensors(
        folder, lambda name, tensor: None if name.endswith("1.attention.self.query.weight") else (name, tensor)
    )
    with pytest.raises(ValueError, match=r"model\.safetensors lacks layers\.1\.attention\.query\.weight\.$"):
        Encoder.from_pretrained(folder)


def test_missing_and_damaged_files(folder):
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: "):
        Encoder.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        Encoder.from_pretrained(folder)
    (folder / "config.json").write_text("no json")
    with pytest.raises(ValueError, match=r"config\.json is damaged: "):
        Encoder.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        Encoder.from_pretrained(folder)


def test_more_positions_than_it_has_learned():
    encoder = Encoder(vocabulary=11, dim=6, layers=1, heads=3, inner=8, positions=5)
    with pytest.raises(
        ValueError, match=r"^Embeddings: expected 5 positions at most, as the model has learned\. Got 6\.$"
    ):
        encoder(torch.zeros(1, 6, dtype=torch.long))


def test_our_names_are_those_of_the_encoder(bert):
    encoder = Encoder(vocabulary=41, dim=15, layers=3, heads=5, inner=17, positions=13, types=3)
    ours = {our_name(name) for name in bert.state_dict() if not name.startswith("pooler")}
    assert ours == set(encoder.state_dict())
