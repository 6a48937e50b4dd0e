"""The encoder from scratch against BertModel of transformers."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from regard.nn import Embeddings, Encoder, MaskedLanguageModel, checkpoint
from support import models as fixtures

LENGTHS = (11, 7, 1, 5)


CONFIGS = {
    "bert": transformers.BertConfig(
        vocab_size=41,
        hidden_size=15,
        num_hidden_layers=3,
        num_attention_heads=5,
        intermediate_size=17,
        max_position_embeddings=13,
        type_vocab_size=3,
        layer_norm_eps=1e-7,
    ),
    "roberta": transformers.RobertaConfig(
        vocab_size=41,
        hidden_size=15,
        num_hidden_layers=3,
        num_attention_heads=5,
        intermediate_size=17,
        max_position_embeddings=15,
        type_vocab_size=1,
        hidden_act="gelu_new",
    ),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=41, dim=15, n_layers=3, n_heads=5, hidden_dim=17, max_position_embeddings=13, activation="relu"
    ),
}


def random_model(name):
    torch.manual_seed(1)
    model = transformers.AutoModel.from_config(CONFIGS[name], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


@pytest.fixture
def bert():
    return random_model("bert")


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
    ids = torch.randint(3, 41, (len(LENGTHS), max(LENGTHS)))
    lengths = torch.tensor(LENGTHS)
    mask = (torch.arange(max(LENGTHS)) < lengths[:, None]).long()
    ids = ids.where(mask.bool(), bert.config.pad_token_id)
    with torch.no_grad():
        expected = bert(ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
        hidden, attentions = encoder(ids, lengths)
        alone, _ = encoder(ids[1:2, :7])
    assert (len(hidden), len(attentions)) == (4, 3)
    for layer, (actual, wanted) in enumerate(zip(hidden, expected.hidden_states, strict=True)):
        for row, length in enumerate(LENGTHS):
            torch.testing.assert_close(actual[row, :length], wanted[row, :length], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(actual[1:2, :7], alone[layer], atol=1e-5, rtol=1e-5)
    for actual, wanted in zip(attentions, expected.attentions, strict=True):
        for row, length in enumerate(LENGTHS):
            weights = actual.weights.dense()[row, :, :length]
            torch.testing.assert_close(weights, wanted[row, :, :length], atol=2e-6, rtol=0)
            assert not weights[..., length:].any()


@pytest.mark.parametrize("name", CONFIGS)
def test_as_saved(name, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    model = random_model(name)
    model.save_pretrained(tmp_path)
    encoder = Encoder.from_pretrained(tmp_path)
    assert not encoder.training
    agree(encoder, model)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_padding_token_within_a_text(name, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    model = random_model(name)
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 1, 7, 0, 1, 1, 9], [1, 3, 0, 4, 4, 2, 1]])
    with torch.no_grad():
        expected = model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        torch.testing.assert_close(Encoder.from_pretrained(tmp_path)(ids)[0][-1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_below_the_head_of_a_masked_language_model(name, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForMaskedLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
    model.save_pretrained(tmp_path)
    agree(Encoder.from_pretrained(str(tmp_path)), model.base_model)


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
        exact = bert.double()(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for actual, wanted in zip(hidden, exact, strict=True):
        assert (actual - wanted)[mask.bool()].abs().max() < 1e-5  # of numbers up to 10; eager in float32 is as far off


def test_it_can_be_trained():
    encoder = Encoder(Embeddings(11, 6, 5), 2, dim=6, heads=3, d_ff=8)
    hidden, _ = encoder(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]))
    hidden[-1].square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "expected one of bert, roberta, xlm-roberta, camembert, distilbert. Got 'gpt2'."),
        ({"model_type": ...}, "camembert, distilbert. Got None."),
        ({"model_type": "distilbert"}, "config.json lacks dim, n_layers, n_heads, hidden_dim, activation."),
        ({"hidden_act": "silu"}, "hidden_act: expected one of gelu, gelu_new, relu. Got 'silu'."),
        ({"is_decoder": True}, "is_decoder: expected False. Got True."),
        ({"position_embedding_type": "relative_key"}, "expected 'absolute'. Got 'relative_key'."),
        ({"quantization_config": {"bits": 4}}, "quantization_config: expected None. Got {'bits': 4}."),
        (
            {"model_type": "roberta", "pad_token_id": None},
            "pad_token_id: expected a number, from which positions are counted",
        ),
        ({"hidden_size": ..., "vocab_size": ...}, "config.json lacks vocab_size, hidden_size."),
        ({"hidden_size": 20}, "embeddings.tokens.weight: expected (41, 20), by config.json. Got (41, 15)."),
        ({"num_attention_heads": 4}, "expected a dim that is divisible by 4 heads. Got 15."),
        ({"num_hidden_layers": 4}, "model.safetensors lacks layers.3.attention.key.bias and 15 more."),
        (
            {"num_hidden_layers": 2},
            "has tensors that such a model does not have: encoder.layer.2.attention.output.LayerNorm.bias and 15 more.",
        ),
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


def test_tensors_that_are_there_twice_or_are_whole_numbers(folder):
    name = "encoder.layer.1.attention.self.query.weight"
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {f"bert.{name}": tensors[name] + 1}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"has tensors that such a model does not have: .*layer\.1\.attention\.self\.query\.weight"
    ):
        Encoder.from_pretrained(folder)
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks layers\.1\.attention\.query\.weight"):
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


def test_no_such_model(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"There is no folder './nowhere'"):
        Encoder.from_pretrained("./nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"^nobody/nothing is neither a folder nor in the local cache"):
        Encoder.from_pretrained("nobody/nothing")


def test_what_is_saved_is_what_transformers_opens(tmp_path):
    transformers.utils.logging.disable_progress_bar()
    model = MaskedLanguageModel(Encoder(Embeddings(41, 15, 13, 2), 3, dim=15, heads=5, d_ff=17, epsilon=1e-12), 15)
    sizes = {"vocab_size": 41, "dim": 15, "layers": 3, "heads": 5, "d_ff": 17, "positions": 13, "types": 2}
    sizes |= {"epsilon": 1e-12, "activation": "gelu"}
    checkpoint.save(tmp_path, model.state_dict(), sizes, pad_token_id=0)
    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids, at = torch.randint(41, (2, 9)), torch.rand(2, 9) < 0.5
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids, at), theirs(ids).logits[at], atol=1e-5, rtol=0)
    agree(Encoder.from_pretrained(tmp_path), theirs.bert)
