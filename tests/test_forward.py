"""Models that a lens is given: each is read as it is, or refused at opening in one line that says why."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

import regard
from support import models as fixtures

TEXT = "the cat sat on a mat"
_, TOKENIZER = fixtures.tiny("gpt2")
VOCABULARY = len(TOKENIZER)
SMALL = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 10}
VISION = {**SMALL, "image_size": 12, "patch_size": 4}
TEXTUAL = {**SMALL, "vocab_size": VOCABULARY, "max_position_embeddings": 40}
DECODER = {
    **{"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 16},
    **{"vocab_size": VOCABULARY, "num_key_value_heads": 2, "max_position_embeddings": 64},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}
SEQ2SEQ = {
    **{"vocab_size": VOCABULARY, "d_model": 12, "encoder_layers": 2, "decoder_layers": 2},
    **{"encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 10, "decoder_ffn_dim": 10},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}


def make(kind, head="Model", **options):
    """A tiny model of transformers, its weights so large that attention is far from uniform."""
    torch.manual_seed(7)
    model = getattr(transformers, f"{kind}{head}")(getattr(transformers, f"{kind}Config")(**options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model.eval()


def gpt2(head="Model", **options):
    return make("GPT2", head, vocab_size=VOCABULARY, n_embd=12, n_layer=2, n_head=3, n_positions=64, **options)


def words(reading):
    return [word.text for word in reading.words]


# Read as they are


@pytest.mark.parametrize("before", [True, False])
def test_a_projection_after_the_last_layer_is_no_hidden_state(before):
    sizes = {"hidden_size": 12, "word_embed_proj_dim": 6, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = make("OPT", vocab_size=VOCABULARY, ffn_dim=10, do_layer_norm_before=before, **sizes)
    reading = regard.Lens((model, TOKENIZER)).read(TEXT)
    assert (reading.hidden.shape, reading.final.shape) == ((3, 6, 12), (6, 6))
    assert reading.explain("cat").error < 1e-5


WRAPPED = {
    "DataParallel": lambda: nn.DataParallel(gpt2()),
    "torch.compile": lambda: torch.compile(gpt2()),
    "return_dict=False": lambda: gpt2(return_dict=False),
    "a language model's head": lambda: gpt2("LMHeadModel"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when it is asked to compile
@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_around_a_model_changes_nothing(name):
    expected = regard.Lens((gpt2(), TOKENIZER)).read(TEXT)
    reading = regard.Lens((WRAPPED[name](), TOKENIZER)).read(TEXT)
    assert reading.hidden.shape == expected.hidden.shape
    if name != "a language model's head":  # drawn in another order
        torch.testing.assert_close(reading.hidden, expected.hidden)
        assert reading.model == "GPT2Model"
    assert words(reading) == TEXT.split()


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "t5", "bert"])
def test_hidden_states_are_those_after_each_layer_and_the_final_norm_is_apart(name, tmp_path):
    lens = regard.Lens(fixtures.saved(name, tmp_path))
    model = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    model = model.get_encoder() if name == "t5" else model
    blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == 2)
    after = []
    for block in blocks:
        block.register_forward_hook(lambda module, args, output: after.append(output))
    reading = lens.read(TEXT)
    ids = torch.tensor([[token.id for token in reading.tokens]])
    with torch.inference_mode():
        expected = model(ids, output_hidden_states=True)
    for layer, output in enumerate(after, 1):
        state = output[0] if isinstance(output, tuple) else output
        torch.testing.assert_close(reading.hidden[layer], state[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reading.final, expected.last_hidden_state[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(reading.final, reading.hidden[-1]) == (name == "bert")
    # the logit lens: the last hidden state, normed once, is what the head of the model gets
    norm = {"gpt2": "ln_f", "llama": "norm", "gemma2": "norm", "t5": "final_layer_norm"}.get(name)
    if norm:
        again = getattr(model, norm)(reading.hidden[-1])
        torch.testing.assert_close(again, reading.final, atol=1e-5, rtol=1e-5)


# Some releases of transformers choose for experts an operator that not every release of torch has for the CPU.
EXPERTS = {"num_experts": 2, "experts_implementation": "eager"}
HYBRIDS = {
    "Lfm2": ({"layer_types": ["conv", "conv", "full_attention", "conv"], "conv_L_cache": 3}, [2]),
    "Jamba": ({"attn_layer_period": 2, "attn_layer_offset": 1, **EXPERTS, "mamba_d_state": 4,
               "use_mamba_kernels": False}, [1, 3]),
    "Qwen3Next": ({"layer_types": ["linear_attention"] * 3 + ["full_attention"], "head_dim": 4,
                   "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 4,
                   "linear_value_head_dim": 4, **EXPERTS, "num_experts_per_tok": 1,
                   "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}, [3]),
}  # fmt: skip


@pytest.mark.parametrize("name", HYBRIDS)
def test_layers_with_attention_keep_their_number_and_the_others_are_said(name):
    options, layers = HYBRIDS[name]
    model = make(name, **DECODER, **options)
    reading = regard.Lens((model, TOKENIZER)).read(TEXT)
    assert (reading.layers, reading.attention_layers, len(reading.hidden)) == (4, layers, 5)
    assert f"the other {4 - len(layers)} of 4 layers are of another kind" in reading.note
    eager = make(name, **DECODER, **options)
    eager.set_attn_implementation("eager")
    with torch.inference_mode():
        ids = torch.tensor([[token.id for token in reading.tokens]])
        expected = eager(ids, output_attentions=True).attentions
    for attention, weights in zip(
        reading.attention, [tensor for tensor in expected if tensor is not None], strict=True
    ):
        assert (attention.weights.dense() - weights[0]).abs().max() < 2e-6
    walk = reading.explain("cat")
    assert walk.layer in layers
    assert walk.error < 1e-5
    assert reading.explain("cat", layer=layers[-1] - 4).layer == layers[-1]
    for call in (reading.explain, lambda word, layer: reading.word(word).attends_to(layer)):
        with pytest.raises(LookupError, match=rf"^Layer 0 has no attention\. The layers with attention: {layers[0]}"):
            call("cat", layer=0)


@pytest.mark.parametrize(("kind", "head"), [("Bart", "Model"), ("Bart", "ForConditionalGeneration")])
def test_an_encoder_alone_is_said_to_be_one(kind, head):
    reading = regard.Lens((make(kind, head, **SEQ2SEQ), TOKENIZER)).read(TEXT)
    assert (
        reading.note
        == f"Only the encoder of {kind}{head} was read; given a second text, its decoder reads that as the target."
    )
    assert not regard.Lens((gpt2(), TOKENIZER)).read(TEXT).note


# Learned positions before the text


class Prompted(nn.Module):
    """As PEFT wraps a model for prompt tuning: some learned vectors come before those of the tokens."""

    def __init__(self, model, tokens):
        super().__init__()
        self.model, self.prompt = model, nn.Parameter(torch.randn(1, tokens, 12))
        self.peft_config = {"default": SimpleNamespace(num_virtual_tokens=tokens)}

    active_peft_config = property(lambda self: self.peft_config["default"])

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def get_base_model(self):
        return self.model

    def forward(self, input_ids=None, **options):
        vectors = torch.cat([self.prompt, self.model.get_input_embeddings()(input_ids)], 1)
        return self.model(inputs_embeds=vectors, **{**options, "attention_mask": None})


def test_virtual_tokens_are_special_and_the_words_are_those_of_the_text():
    reading = regard.Lens((Prompted(gpt2(), 3), TOKENIZER)).read(TEXT)
    assert [token.text for token in reading.tokens[:4]] == ["[virtual 0]", "[virtual 1]", "[virtual 2]", "the"]
    assert [token.special for token in reading.tokens] == [True] * 3 + [False] * 6
    assert words(reading) == TEXT.split()
    assert reading.word("cat").tokens == (4,)
    assert reading.hidden.shape == (3, 9, 12)
    assert reading.explain("cat", 1, 2).error < 1e-5
    with pytest.raises(
        ValueError, match=r"^embed: Prompted puts 3 positions of its own before a text \(a tuned prompt\)"
    ):
        regard.Lens((Prompted(gpt2(), 3), TOKENIZER)).embed([TEXT])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft's own calls
def test_prompt_tuning_by_peft():
    peft = pytest.importorskip("peft", reason="needs peft")
    config = peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    reading = regard.Lens((peft.get_peft_model(gpt2("LMHeadModel"), config), TOKENIZER)).read(TEXT)
    assert sum(token.special for token in reading.tokens) == 4
    assert words(reading) == TEXT.split()
    prefix = peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    lens = regard.Lens((peft.get_peft_model(gpt2("LMHeadModel"), prefix), TOKENIZER))
    with pytest.raises(ValueError, match=r"its attention has 6 queries and 10 keys for 6 tokens \(a prefix"):
        lens.read(TEXT)


# Refused, in one line


def folder_without_a_tokenizer(tmp_path, model):
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(tmp_path)
    return tmp_path


REFUSED = {
    "ViT": (lambda _: (make("ViT", **VISION), TOKENIZER), ValueError,
            r"^ViTModel: a ViTModel reads pixel_values, but a Lens needs a model that reads input_ids"),
    "CLIP": (lambda _: (make("CLIP", text_config=TEXTUAL, vision_config=VISION), TOKENIZER), ValueError,
             r"^CLIPModel: CLIPModel cannot read a text without pixel_values\. Its text_model can\. "),
    "Whisper": (lambda _: (make("Whisper", **SEQ2SEQ, num_mel_bins=7, max_source_positions=13), TOKENIZER), ValueError,
                r"^WhisperModel: a WhisperEncoder reads input_features, but a Lens needs"),
    "Wav2Vec2": (lambda _: (make("Wav2Vec2", **SMALL, conv_dim=(8,), conv_stride=(2,), conv_kernel=(2,),
                                 num_feat_extract_layers=1, num_conv_pos_embeddings=2,
                                 num_conv_pos_embedding_groups=2), TOKENIZER), ValueError,
                 r"^Wav2Vec2Model: a Wav2Vec2Model reads input_values, but a Lens needs"),
    "no tokenizer": (lambda _: gpt2(), TypeError, r"^Lens: GPT2Model needs its tokenizer: Lens\(\(mod"),
    "turned round": (lambda _: (TOKENIZER, gpt2()), TypeError, r"^Lens: expected \(model, tokenizer\)\. Got \(tokeni"),
    "three": (lambda _: (gpt2(), TOKENIZER, 1), TypeError, r"^Lens: expected None, a name, a folder or \(mo"),
    "a number": (lambda _: 3, TypeError, r"^Lens: expected None, a name, a folder or .* Got int\.$"),
    "no model": (lambda _: (nn.Linear(2, 2), TOKENIZER), TypeError, r"^Lens: expected a model of .* Got Linear\.$"),
    "a small table": (lambda _: (make("GPT2", vocab_size=20, n_embd=12, n_layer=2, n_head=3), TOKENIZER), ValueError,
                      r"^GPT2Model: its tokenizer gives this text the token \d+, and .* embeddings for 20: "),
    "a large table": (lambda _: (make("GPT2", vocab_size=9999, n_embd=12, n_layer=2, n_head=3), TOKENIZER), ValueError,
                      r"^GPT2Model: its tokenizer has 300 tokens, 2 of them added ones, and .* embeddings for 9,999: "),
    "a folder without tokenizer": (lambda path: folder_without_a_tokenizer(path, make("Bert", **TEXTUAL)), ValueError,
                                   r"its tokenizer has 5 tokens, 5 of them added ones, .*files are missing"),
    "another one": (lambda path: folder_without_a_tokenizer(path, make("Llama", **DECODER)), ValueError,
                    r"it has no tokenizer, or one that cannot be opened: its folder lacks tokenizer\.json\.$"
                    r"|its tokenizer has \d+ tokens, .*files are missing"),  # which of them depends on transformers
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(name, tmp_path):
    make_model, error, message = REFUSED[name]
    model = make_model(tmp_path)
    with pytest.raises(error, match=message) as raised:
        regard.Lens(model)
    assert "\n" not in str(raised.value)


def test_a_sentence_transformer_is_told_apart():
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    model = sentence_transformers.SentenceTransformer(str(fixtures.EMBEDDED), device="cpu")
    for given in (model, (model, model.tokenizer)):
        with pytest.raises(
            TypeError, match=r"Got SentenceTransformer: pass its folder or name instead, or \(model\[0\]\."
        ):
            regard.Lens(given)
    assert words(regard.Lens((model[0].auto_model, model.tokenizer)).read(TEXT)) == TEXT.split()
