"""Folders of every kind that sentence-transformers opens: the same vectors, or a refusal that names the reason."""

import contextlib
import json
import logging
import random
import shutil

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassFieldValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

import regard
from support.transformers_models import interface_or_skip, skip_on_old_transformers

sentence_transformers = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.filterwarnings("default")  # of sentence-transformers and what it stands on

TEXTS = [
    "Time flies like an arrow",
    "the Café sat on the mat, NAÏVE",
    "我爱北京 today",
    "\u0130stanbul and ISTANBUL",
    "[SEP] <pad> typed</s> [MASK] x",
    "a",
    "unbelievable, isn't it? 3.14 times " * 4,
    " two  spaces\nand a line ",
]
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}
SPECIAL = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


# Models and tokenizers, small and random


def word_pieces():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    lowered = [text.lower() for text in TEXTS]
    plain = [normalizers.BertNormalizer(strip_accents=True).normalize_str(text) for text in TEXTS]
    tokenizer.train_from_iterator(
        [*TEXTS, *lowered, *plain], trainers.WordPieceTrainer(vocab_size=140, special_tokens=special)
    )
    return tokenizer.get_vocab()


def bert_tokenizer(**options):
    return transformers.BertTokenizer(vocab=word_pieces(), **options)


def byte_pairs():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=310, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    saved = json.loads(tokenizer.to_str())["model"]
    return saved["vocab"], [tuple(merge) for merge in saved["merges"]]


def byte_tokenizer(kind):
    vocabulary, merges = byte_pairs()
    return getattr(transformers, kind)(vocab=vocabulary, merges=merges)


def unigrams(special=("<s>", "<pad>", "</s>", "<unk>")):
    letters = sorted({letter for text in TEXTS for letter in text if not letter.isspace()})
    pieces = ["▁", "▁the", "▁mat", "at", "an", "es", "▁Time", *letters]
    return [(piece, 0.0) for piece in special] + [(piece, -2.0 - n % 7) for n, piece in enumerate(pieces)]


def plain_tokenizer():
    """A tokenizer.json that is taken as it is, with <s> before."""
    vocabulary, merges = byte_pairs()
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


DECODER = {**SIZES, **SPECIAL, "num_key_value_heads": 2, "max_position_embeddings": 64}
SEQ2SEQ = {"d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4} | {
    "decoder_attention_heads": 4, "encoder_ffn_dim": 20, "decoder_ffn_dim": 20, "max_position_embeddings": 64
}  # fmt: skip
T5 = {"d_model": 24, "d_kv": 6, "d_ff": 20, "num_layers": 2, "num_heads": 4, "pad_token_id": 1, "eos_token_id": 2}
BASES = {  # name: (class, tokenizer, sizes)
    "bert": ("BertModel", bert_tokenizer, {**SIZES, "max_position_embeddings": 40}),
    "distilbert": (
        "DistilBertModel",
        bert_tokenizer,
        {"dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 20, "max_position_embeddings": 40},
    ),
    "xlm-roberta": (
        "XLMRobertaModel",
        lambda: transformers.XLMRobertaTokenizer(vocab=unigrams()),
        {**SIZES, **SPECIAL, "max_position_embeddings": 160},
    ),
    "albert": (
        "AlbertModel",
        lambda: transformers.AlbertTokenizer(vocab=unigrams(("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"))),
        {**SIZES, "embedding_size": 12, "max_position_embeddings": 160},
    ),
    "roberta": (
        "RobertaModel",
        lambda: byte_tokenizer("RobertaTokenizer"),
        {**SIZES, **SPECIAL, "max_position_embeddings": 60},
    ),
    "electra": ("ElectraModel", bert_tokenizer, {**SIZES, "embedding_size": 16, "max_position_embeddings": 40}),
    "mpnet": ("MPNetModel", bert_tokenizer, {**SIZES, "pad_token_id": 0, "max_position_embeddings": 60}),
    "deberta": (
        "DebertaModel",
        bert_tokenizer,
        {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_position_embeddings": 60},
    ),
    "deberta-v2": (
        "DebertaV2Model",
        bert_tokenizer,
        {**SIZES, "relative_attention": True, "pos_att_type": ["c2p"], "max_position_embeddings": 60},
    ),
    "mobilebert": (
        "MobileBertModel",
        bert_tokenizer,
        {**SIZES, "embedding_size": 12, "true_hidden_size": 12, "intra_bottleneck_size": 12}
        | {"max_position_embeddings": 60, "num_feedforward_networks": 1},
    ),
    "modernbert": (
        "ModernBertModel",
        plain_tokenizer,
        {**SIZES, **SPECIAL, "max_position_embeddings": 64, "local_attention": 8, "global_attn_every_n_layers": 2}
        | {"cls_token_id": 0, "sep_token_id": 2},
    ),
    "llama": ("LlamaModel", plain_tokenizer, DECODER),
    "causal": ("LlamaForCausalLM", plain_tokenizer, DECODER),
    "gpt2": (
        "GPT2LMHeadModel",
        plain_tokenizer,
        {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 64, **SPECIAL},
    ),
    "t5": ("T5ForConditionalGeneration", plain_tokenizer, T5),
    "t5 encoder": ("T5EncoderModel", plain_tokenizer, T5),
    "bart": ("BartModel", plain_tokenizer, {**SEQ2SEQ, **SPECIAL, "decoder_start_token_id": 2}),
    "m2m": ("M2M100Model", plain_tokenizer, {**SEQ2SEQ, **SPECIAL, "decoder_start_token_id": 2}),
    "clip": ("CLIPTextModel", plain_tokenizer, {**SIZES, **SPECIAL, "max_position_embeddings": 64}),
}


def config_of(kind, **sizes):
    try:
        return getattr(transformers, kind).config_class(**sizes)
    except StrictDataclassFieldValidationError as error:  # transformers 5.4 refuses its own default for M2M100
        skip_on_old_transformers(error)
        raise


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a model by name, made once."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    made = {}

    def folder(name):
        if name not in made:
            path = tmp_path_factory.mktemp("base") / "model"
            kind, make_tokenizer, sizes = BASES[name]
            tokenizer = make_tokenizer()
            torch.manual_seed(3)
            model = getattr(transformers, kind)(config_of(kind, **sizes, vocab_size=len(tokenizer)))
            if name in ("modernbert", "t5", "t5 encoder"):
                interface_or_skip(model)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim > 1:
                        parameter.normal_(0, 0.3)
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[name] = path
        return made[name]

    return folder


# What a folder may say: a change of it each


def change(file, **values):
    """Of a file of JSON, which need not be there; ... takes a key out."""

    def apply(folder):
        path = folder / file
        content = (json.loads(path.read_text()) if path.exists() else {}) | values
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return apply


def change_tokenizer(**values):
    return change("tokenizer.json", **values)


def modules(*kinds, pooling=None, root="", **configs):
    """modules.json, and the configs of its modules by kind; pooling is 1_Pooling's, by the mean if not given."""
    named = {"Pooling": {"word_embedding_dimension": 24, **(pooling or {"pooling_mode": "mean"})}} | configs

    def apply(folder):
        listed = []
        for n, kind in enumerate(kinds or ("Transformer", "Pooling")):
            module = kind if "." in kind else f"sentence_transformers.models.{kind}"
            path = root if n == 0 else f"{n}_{kind.rpartition('.')[2]}"
            listed.append({"idx": n, "name": str(n), "path": path, "type": module})
            if n and (config := named.get(kind.rpartition(".")[2])) is not None:
                change(f"{path}/config.json", **config)(folder)
            if kind == "Dense":
                dense(folder / path, named["Dense"])
        (folder / "modules.json").write_text(json.dumps(listed))

    return apply


def dense(folder, config):
    torch.manual_seed(5)
    sizes = config["out_features"], config["in_features"]
    tensors = {"linear.weight": torch.randn(sizes) / 3}
    if config.get("bias", True):
        tensors["linear.bias"] = torch.randn(sizes[0])
    if config.get("use_residual") and sizes[0] != sizes[1]:
        tensors["residual.weight"] = torch.randn(sizes)
    save_file(tensors, folder / "model.safetensors")


def projection(outputs=9, inputs=24, **more):
    return {"in_features": inputs, "out_features": outputs, "bias": True} | more


def pickled_dense(folder):
    path = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()


def transformer(name="sentence_bert_config.json", **values):
    return change(name, **values)


def into(subfolder):
    """All files of the model into a subfolder."""

    def apply(folder):
        (folder / subfolder).mkdir()
        for file in [file for file in folder.iterdir() if file.is_file()]:
            file.rename(folder / subfolder / file.name)

    return apply


def remove(name):
    return lambda folder: (folder / name).unlink()


def half(folder):
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def more_tensors(name):
    def apply(folder):
        tensors = load_file(folder / "model.safetensors")
        save_file(tensors | {name: torch.ones(3, 3)}, folder / "model.safetensors", {"format": "pt"})

    return apply


def typed_template(folder):
    single = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 1}},
        {"Sequence": {"id": "A", "type_id": 1}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"]["single"] = single
    path.write_text(json.dumps(content))
    change("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")(folder)


def without_separator(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"]["single"].pop()
    path.write_text(json.dumps(content))


def vocabulary_alone(folder):
    words = sorted(word_pieces().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
    remove("tokenizer.json")(folder)


PROMPTS = {"prompts": {"query": "the mat: ", "plain": ""}, "default_prompt_name": "query"}
SETTINGS = "config_sentence_transformers.json"
TOKENS = "tokenizer_config.json"
MESSAGE = {"method": "forward", "method_output_name": "last_hidden_state", "format": "flat"}
TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
WHOLE = ("Transformer", "Pooling", "Dense", "Normalize")
LORA = {"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing", "r": 2, "target_modules": ["query"]}

EQUAL = {  # id: (model, changes)
    # pooling
    "mean": ("bert", [modules()]),
    "cls": ("bert", [modules(pooling={"pooling_mode": "cls"})]),
    "max": ("bert", [modules(pooling={"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True})]),
    "last token": ("bert", [modules(pooling={"pooling_mode": "lasttoken"})]),
    "weighted mean": ("bert", [modules(pooling={"pooling_mode_weightedmean_tokens": True})]),
    "root of the length": ("bert", [modules(pooling={"pooling_mode": "mean_sqrt_len_tokens"})]),
    "two poolings by flags": (
        "bert",
        [modules(pooling={"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True})],
    ),
    "three poolings in order": ("bert", [modules(pooling={"pooling_mode": ["lasttoken", "mean", "cls"]})]),
    "flags all false": ("bert", [modules(pooling={"pooling_mode_mean_tokens": False})]),
    "new name of the dimension": ("bert", [modules(pooling={"embedding_dimension": 24, "pooling_mode": "max"})]),
    # modules
    "normalized": ("bert", [modules("Transformer", "Pooling", "Normalize")]),
    "normalize before pooling does nothing": ("bert", [modules("Transformer", "Normalize", "Pooling")]),
    "normalized tokens": (
        "bert",
        [modules("Transformer", "Normalize", "Pooling", Normalize={"module_input_name": "token_embeddings"})],
    ),
    "dense": ("bert", [modules(*WHOLE, Dense=projection())]),
    "dense without activation": (
        "bert",
        [modules(*WHOLE, Dense=projection(bias=False, activation_function="torch.nn.modules.linear.Identity"))],
    ),
    "dense with dropout, which does nothing": (
        "bert",
        [modules(*WHOLE, Dense=projection(activation_function="torch.nn.modules.dropout.Dropout"))],
    ),
    "dense with a residual": ("bert", [modules(*WHOLE, Dense=projection(24, use_residual=True))]),
    "dense with a projected residual": ("bert", [modules(*WHOLE, Dense=projection(use_residual=True))]),
    "dense pickled": ("bert", [modules(*WHOLE, Dense=projection()), pickled_dense]),
    "dense of tokens": (
        "bert",
        [modules("Transformer", "Dense", "Pooling", Dense=projection(module_input_name="token_embeddings"))],
    ),
    "new names of modules": (
        "bert",
        [modules("sentence_transformers.base.modules.transformer.Transformer",
                 "sentence_transformers.sentence_transformer.modules.pooling.Pooling")],
    ),
    "transformer in a subfolder": ("bert", [into("0_Transformer"), modules(root="0_Transformer")]),
    "transformer in a subfolder, by transformers": (
        "llama",
        [into("0_Transformer"), modules(root="0_Transformer"), transformer("0_Transformer/sentence_bert_config.json",
                                                                           max_seq_length=9)],
    ),
    # settings
    "truncate_dim": ("bert", [modules(), change(SETTINGS, truncate_dim=8)]),
    "truncate_dim after normalization": (
        "bert",
        [modules("Transformer", "Pooling", "Normalize"), change(SETTINGS, truncate_dim=8)],
    ),
    "truncate_dim beyond the vector": ("bert", [modules(), change(SETTINGS, truncate_dim=800)]),
    "prompt": ("bert", [modules(), change(SETTINGS, **PROMPTS)]),
    "prompt left out": (
        "bert",
        [modules(pooling={"pooling_mode": "mean", "include_prompt": False}), change(SETTINGS, **PROMPTS)],
    ),
    "prompt left out of a weighted mean": (
        "bert",
        [modules(pooling={"pooling_mode": "weightedmean", "include_prompt": False}), change(SETTINGS, **PROMPTS)],
    ),
    "prompt left out of cls": (
        "bert",
        [modules(pooling={"pooling_mode": "cls", "include_prompt": False}), change(SETTINGS, **PROMPTS)],
    ),
    "prompt in lower case": (
        "llama",
        [modules(), transformer(do_lower_case=True),
         change(SETTINGS, prompts={"a": "THE Mat "}, default_prompt_name="a")],
    ),
    "empty default prompt": ("bert", [modules(), change(SETTINGS, default_prompt_name="document")]),
    "max_seq_length": ("bert", [modules(), transformer(max_seq_length=11)]),
    "max_seq_length above the tokenizer's": (
        "bert",
        [modules(), transformer(max_seq_length=30), change(TOKENS, model_max_length=10)],
    ),
    **{
        f"max_seq_length of {kind}": (
            "bert",
            [modules(), transformer(f"sentence_{kind}_config.json", max_seq_length=9)],
        )
        for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    },
    "the first of two configs": (
        "bert",
        [modules(), transformer("sentence_xlnet_config.json", max_seq_length=9), transformer(max_seq_length=12)],
    ),
    "lower case": ("llama", [modules(), transformer(do_lower_case=True)]),
    "lower case of a cased BERT": (
        "bert",
        [modules(), transformer(do_lower_case=True), change(TOKENS, do_lower_case=False)],
    ),
    "default modality": (
        "bert",
        [modules(), transformer(modality_config={"text": TEXT}, module_output_name="token_embeddings")],
    ),
    "arguments of the config": ("bert", [modules(), transformer(config_args={"layer_norm_eps": 0.5})]),
    "arguments of the tokenizer": ("bert", [modules(), transformer(tokenizer_args={"do_lower_case": False})]),
    "arguments of the tokenizer, its limit": (
        "bert",
        [modules(), transformer(processor_kwargs={"model_max_length": 9}, max_seq_length=30)],
    ),
    "arguments of the model": ("bert", [modules(), transformer(model_args={"add_pooling_layer": False})]),
    # the tokenizer
    "cased": ("bert", [modules(), change(TOKENS, do_lower_case=False)]),
    "accents kept": ("bert", [modules(), change(TOKENS, strip_accents=False)]),
    "accents stripped, cased": ("bert", [modules(), change(TOKENS, strip_accents=True, do_lower_case=False)]),
    "chinese characters together": ("bert", [modules(), change(TOKENS, tokenize_chinese_chars=False)]),
    "tokenizer_config without a class": ("bert", [modules(), change(TOKENS, tokenizer_class=...)]),
    "no tokenizer_config": ("bert", [modules(), remove(TOKENS)]),
    "model_max_length": ("bert", [modules(), change(TOKENS, model_max_length=9)]),
    "tokenizer.json with another normalizer": ("bert", [modules(), change_tokenizer(normalizer={"type": "NFC"})]),
    "tokenizer.json taken as it is": (
        "bert",
        [modules(), change_tokenizer(normalizer={"type": "NFC"}),
         change(TOKENS, tokenizer_class="PreTrainedTokenizerFast")],
    ),
    "post-processor without [SEP]": ("bert", [modules(), without_separator]),
    "post-processor without [SEP], as it is": (
        "bert",
        [modules(), without_separator, change(TOKENS, tokenizer_class="PreTrainedTokenizerFast")],
    ),
    "types of tokens": ("bert", [modules(), typed_template]),
    "special tokens split": ("bert", [modules(), change(TOKENS, split_special_tokens=True)]),
    "a space before": ("roberta", [modules(), change(TOKENS, add_prefix_space=True)]),
    "offsets not trimmed": ("roberta", [modules(), change(TOKENS, trim_offsets=False)]),
    "a vocabulary alone": ("bert", [modules(), vocabulary_alone]),
    "special tokens named": ("bert", [modules(), change("special_tokens_map.json", unk_token="[UNK]")]),
    # architectures
    **{
        f"{name}, by the mean": (name, [modules()])
        for name in (
            *("distilbert", "roberta", "xlm-roberta", "albert", "electra"),
            *("mpnet", "deberta", "deberta-v2", "modernbert", "llama"),
        )
    },
    **{
        f"{name} alone": (name, [])
        for name in ("bert", "roberta", "mpnet", "llama", "gpt2", "t5", "t5 encoder", "clip")
    },
    "T5 with modules": ("t5", [modules(*WHOLE, Dense=projection())]),
    "a decoder alone, by its last token": ("causal", []),
    "a decoder without causality": ("causal", [change("config.json", is_causal=False)]),
    "a masked language model of BERT's family that is causal": (
        "roberta",
        [change("config.json", architectures=["RobertaForCausalLM"])],
    ),
}  # fmt: skip

REFUSED = {  # id: (model, changes, what the error says)
    "no pooling": ("bert", [modules("Transformer")], r"modules\.json names no Pooling; choose one of"),
    "pooling without a config": (
        "bert",
        [modules(), lambda folder: shutil.rmtree(folder / "1_Pooling")],
        r"no 1_Pooling/config\.json",
    ),
    "pooling with an empty config": (
        "bert",
        [modules(), lambda folder: (folder / "1_Pooling/config.json").write_text("{}")],
        r"no 1_Pooling/config\.json that says how",
    ),
    "unknown pooling": ("bert", [modules(pooling={"pooling_mode": "median"})], "pooling by 'median'"),
    "unknown pooling key": (
        "bert",
        [modules(pooling={"pooling_mode_first": True})],
        "a Pooling whose pooling_mode_first is True",
    ),
    "custom module": ("bert", [modules("Transformer", "Pooling", "mine.Normalize")], "its module 'mine.Normalize'"),
    "custom transformer": ("bert", [modules("mine.Transformer", "Pooling")], "a first module 'mine.Transformer'"),
    "word weights": ("bert", [modules("Transformer", "Pooling", "WordWeights")], "its module WordWeights"),
    "two poolings one after the other": (
        "bert",
        [modules("Transformer", "Pooling", "Pooling")],
        "two modules that pool",
    ),
    "dense before the vector": (
        "bert",
        [modules("Transformer", "Dense", "Pooling", Dense=projection())],
        "a Dense of the sentence vector before the Pooling",
    ),
    "dense elsewhere": (
        "bert",
        [modules(*WHOLE, Dense=projection(module_output_name="other"))],
        "a Dense from sentence_embedding to other",
    ),
    "activation of another's": (
        "bert",
        [modules(*WHOLE, Dense=projection(activation_function="mine.Swish"))],
        "a Dense whose activation is 'mine.Swish'",
    ),
    "activation whose parameters no file gives": (
        "bert",
        [modules(*WHOLE, Dense=projection(activation_function="torch.nn.modules.activation.PReLU"))],
        "a Dense whose activation is 'torch.nn.modules.activation.PReLU'",
    ),
    "no pooling mode": ("bert", [modules(pooling={"pooling_mode": None})], "a Pooling whose pooling_mode is None"),
    "a limit in words": (
        "bert",
        [modules(), transformer(max_seq_length="9")],
        "expected a positive number of tokens. Got '9'",
    ),
    "dense of another size": (
        "bert",
        [modules(*WHOLE, Dense=projection(inputs=23))],
        "takes vectors of 23 numbers. Got 24",
    ),
    "path outside": (
        "bert",
        [modules(), lambda folder: change_modules(folder, path="../other")],
        r"expected paths within the folder\. Got '\.\./other'",
    ),
    "same names": ("bert", [modules(), lambda folder: change_modules(folder, name="0")], "two modules named '0'"),
    "another task": (
        "bert",
        [modules(), transformer(transformer_task="fill-mask")],
        "whose transformer_task is 'fill-mask'",
    ),
    "another output": (
        "bert",
        [modules("Transformer"), transformer(
            modality_config={"text": TEXT | {"method_output_name": "pooler_output"}},
            module_output_name="sentence_embedding",
        )],
        "whose modality_config is",
    ),
    "messages": (
        "bert",
        [modules(),
         transformer(modality_config={"text": TEXT, "message": MESSAGE}, module_output_name="token_embeddings")],
        "whose modality_config is",
    ),
    "arguments of each call": (
        "bert",
        [modules(), transformer(processing_kwargs={"text": {"max_length": 5}})],
        "whose processing_kwargs is",
    ),
    "arguments of the model": (
        "bert",
        [modules(), transformer(model_kwargs={"gguf_file": "x"})],
        "opened with gguf_file='x'",
    ),
    "sparse": ("bert", [modules(), change(SETTINGS, model_type="SparseEncoder")], "says that it is a SparseEncoder"),
    "default prompt that is not there": (
        "bert",
        [modules(), change(SETTINGS, default_prompt_name="nowhere")],
        "expected a prompt that .* has",
    ),
    "adapter": ("bert", [modules(), change("adapter_config.json", **LORA)], "holds a PEFT adapter"),
    "adapter, by transformers": ("llama", [change("adapter_config.json", **LORA)], "holds a PEFT adapter"),
    "chat template": ("causal", [change(TOKENS, chat_template="{{ messages }}")], "into the chat template"),
    "chat template of BERT": ("bert", [change(TOKENS, chat_template="{{ messages }}")], "into the chat template"),
    "BART": ("bart", [], "pools the states of BartModel's decoder"),
    "BART with modules": ("bart", [modules()], "pools the states of BartModel's decoder"),
    "M2M100": ("m2m", [], "pools the states of M2M100Model's decoder"),
    "relative positions": ("bert", [change("config.json", position_embedding_type="relative_key")], "relative_key"),
    "a tensor that nobody expects": (
        "electra",
        [more_tensors("encoder.layer.0.attention.self.distance_embedding.weight")],
        "distance_embedding.weight, which ElectraModel does not use",
    ),
    "a tensor that nobody expects, native": (
        "bert",
        [more_tensors("encoder.extra.weight")],
        "has tensors that such a model does not have",
    ),
    "a token beyond the table": (
        "bert",
        [modules(), change("added_tokens.json", arrow=7)],
        r"text 0: its token 'arrow' has the id \d+, and model has \d+ tokens\.",
    ),
    "the beginning is cut": (
        "bert",
        [modules(), change(TOKENS, truncation_side="left")],
        "truncates texts at their beginning; use truncation='windows'",
    ),
}  # fmt: skip


def change_modules(folder, **values):
    path = folder / "modules.json"
    listed = json.loads(path.read_text())
    listed[1] |= values
    path.write_text(json.dumps(listed))


def made(base, name, changes, folder):
    shutil.copytree(base(name), folder)
    for apply in changes:
        apply(folder)
    return folder


@pytest.mark.parametrize("case", EQUAL)
def test_the_vectors_of_sentence_transformers(case, base, tmp_path):
    folder = made(base, *EQUAL[case], tmp_path / "model")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = np.concatenate([model.encode([text], show_progress_bar=False) for text in TEXTS])
    actual = regard.Lens(folder).embed(TEXTS, truncation="truncate").vectors
    assert actual.shape == expected.shape
    assert in_agreement(actual, expected)
    assert np.linalg.matrix_rank(expected) > 3  # the texts can be told apart: the test could fail


def in_agreement(actual, expected):
    lengths = np.linalg.norm(actual, axis=1), np.linalg.norm(expected, axis=1)
    cosines = (actual * expected).sum(1) / (lengths[0] * lengths[1])
    return cosines.min() > 0.99999 and np.allclose(*lengths, rtol=1e-4)


@pytest.mark.parametrize("seed", range(16))
def test_settings_together(seed, base, tmp_path):
    """Two or three of the changes above at random, those that are refused alone among them."""
    chance = random.Random(seed)
    known = [changes for name, changes, *_ in [*EQUAL.values(), *REFUSED.values()] if name == "bert"]
    folder = made(base, chance.choice(["bert", "distilbert", "mpnet", "llama"]), [], tmp_path / "model")
    for apply in [change for changes in chance.sample(known, chance.randint(2, 3)) for change in changes]:
        with contextlib.suppress(FileNotFoundError, IndexError, FileExistsError):  # what another has taken away
            apply(folder)
    try:
        actual = regard.Lens(folder).embed(TEXTS, truncation="truncate").vectors
    except (ValueError, OSError):
        return  # refused
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = np.concatenate([model.encode([text], show_progress_bar=False) for text in TEXTS])
    assert in_agreement(actual, expected)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, base, tmp_path):
    name, changes, message = REFUSED[case]
    folder = made(base, name, changes, tmp_path / "model")
    with pytest.raises(ValueError, match=message) as error:
        regard.Lens(folder).embed(TEXTS, truncation="truncate")
    assert "\n" not in str(error.value)


def test_no_setting_is_without_effect(base, tmp_path):
    """The variants differ from one another: a setting that is passed over would be seen."""
    plain = regard.Lens(made(base, "bert", [modules()], tmp_path / "plain")).embed(TEXTS, truncation="truncate").vectors
    for n, case in enumerate(("cased", "accents kept", "model_max_length", "arguments of the config", "weighted mean")):
        other = regard.Lens(made(base, *EQUAL[case], tmp_path / str(n))).embed(TEXTS, truncation="truncate").vectors
        assert np.abs(plain - other).max() > 1e-3, case


def test_pooling_that_is_chosen_where_none_is_known(base, tmp_path):
    folder = made(base, "bert", [modules("Transformer")], tmp_path / "model")
    expected = regard.Lens(made(base, "bert", [modules()], tmp_path / "mean")).embed(TEXTS).vectors
    np.testing.assert_array_equal(regard.Lens(folder).embed(TEXTS, pool="mean").vectors, expected)


def test_a_prompt_that_is_left_out_with_more_than_itself(base, tmp_path):
    """Alone it ends with a space that is a token; before a text that space is part of the first word."""
    left_out = modules(pooling={"pooling_mode": "mean", "include_prompt": False})
    folder = made(base, "llama", [left_out, change(SETTINGS, **PROMPTS)], tmp_path / "model")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    actual = regard.Lens(folder).embed(TEXTS, truncation="truncate", on_error="skip")
    expected = np.concatenate([model.encode([text], show_progress_bar=False) for text in TEXTS])
    assert actual.errors == {5: "embed: text 5: it has no tokens besides the prompt's."}
    np.testing.assert_allclose(actual.vectors, expected, atol=1e-5)  # theirs is zeros for the one


def test_embedding_where_attention_cannot_be_seen(base):
    lens = regard.Lens(base("mpnet"))
    assert lens.note == "model can only embed texts: the attention of MPNetModel cannot be seen."
    assert lens.embed(["a mat"], "word").vectors[0].shape == (2, 24)
    with pytest.raises(ValueError, match=r"^read: model can only embed texts"):
        lens.read("a mat")


def test_a_vector_does_not_depend_on_its_neighbours(base):
    lens = regard.Lens(base("mobilebert"))
    together = lens.embed(TEXTS).vectors
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(lens.embed([text]).vectors[0], vector, atol=1e-5)
    model = sentence_transformers.SentenceTransformer(str(base("mobilebert")), device="cpu")
    for text, vector in zip(TEXTS[:6], together, strict=False):
        expected = model.encode(text, show_progress_bar=False)
        assert vector @ expected / np.linalg.norm(vector) / np.linalg.norm(expected) > 0.99999


def test_a_causal_model_says_that_it_takes_the_last_token(base):
    lens = regard.Lens(base("causal"))
    assert (lens.pool, lens.note) == (
        "last",
        "Its folder has no modules.json: a sentence's vector is its last token's, as in sentence-transformers.",
    )


def test_the_fingerprint_covers_all_that_makes_a_vector(base, tmp_path):
    changes = {
        "none": [],
        "modules": [modules("Transformer", "Pooling", "Normalize")],
        "dense": [modules(*WHOLE, Dense=projection())],
        "pooling": [modules(pooling={"pooling_mode": "cls"})],
        "limit": [transformer(max_seq_length=9)],
        "settings": [change(SETTINGS, truncate_dim=3)],
        "tokenizer": [change_tokenizer(normalizer={"type": "NFC"})],
        "its config": [change(TOKENS, do_lower_case=False)],
        "config": [change("config.json", layer_norm_eps=0.1)],
        "weights": [half],
    }
    lenses = {name: regard.Lens(made(base, "bert", edits, tmp_path / name)) for name, edits in changes.items()}
    prints = {name: lens.fingerprint for name, lens in lenses.items()}
    assert len(set(prints.values())) == len(changes)
    assert all(value.startswith("sha256:") for value in prints.values())
    assert lenses["none"].revision == lenses["config"].revision != lenses["weights"].revision
    assert regard.Lens(tmp_path / "none").fingerprint == prints["none"]


def test_a_name_on_the_hub(base, tmp_path, monkeypatch):
    """Its files in the cache: those of the revision, the Transformer in its subfolder, Dense and all."""
    folder = made(base, "llama", [into("0_Transformer"), modules(*WHOLE, root="0_Transformer", Dense=projection())],
                  tmp_path / "model")  # fmt: skip
    change("0_Transformer/sentence_xlnet_config.json", max_seq_length=9)(folder)
    cache, commit = tmp_path / "hub" / "models--some--model", "0123456789" * 4
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "later").write_text(commit)
    shutil.copytree(folder, cache / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("regard.models.hub._hub_unreachable", lambda: True)
    lens = regard.Lens("some/model", revision="later")
    expected = regard.Lens(folder).embed(TEXTS, truncation="truncate").vectors
    np.testing.assert_array_equal(lens.embed(TEXTS, truncation="truncate").vectors, expected)
    assert expected.shape == (len(TEXTS), 9)
    assert (lens.revision, lens.fingerprint) == (commit, f"commit:{commit}")
    with pytest.raises(OSError, match="some/model is neither a folder nor in the local cache"):
        regard.Lens("some/model", revision="earlier")


def test_a_text_that_the_tokenizer_has_no_tokens_for(base):
    vocabulary = {"[PAD]": 0, "the": 1, "mat": 2}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # which is not in the vocabulary
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    model = transformers.LlamaModel(transformers.LlamaConfig(**DECODER, vocab_size=3))
    actual = regard.Lens((model, tokenizer)).embed(["the mat", "the cat"], on_error="skip")
    assert actual.errors == {1: "embed: text 1: the tokenizer of LlamaModel has no token for all of 'the cat'."}


def test_the_fingerprint_of_a_model_from_memory():
    tokenizer = bert_tokenizer()
    model = transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=len(tokenizer)))
    before = regard.Lens((model, tokenizer)).fingerprint
    assert regard.Lens((model, tokenizer)).fingerprint == before
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[3, 5] += 1
    changed = regard.Lens((model, tokenizer)).fingerprint
    assert before.startswith("sha256:")
    assert changed not in (before, regard.Lens((model, bert_tokenizer(do_lower_case=False))).fingerprint)


def test_dense_is_what_torch_makes_of_it(base, tmp_path):
    folder = made(base, "bert", [modules(*WHOLE, Dense=projection())], tmp_path / "model")
    tensors = load_file(folder / "2_Dense/model.safetensors")
    pooled = torch.from_numpy(regard.Lens(base("bert")).embed(TEXTS).vectors)
    expected = nn.functional.normalize(torch.tanh(pooled @ tensors["linear.weight"].T + tensors["linear.bias"]), dim=1)
    actual = torch.from_numpy(regard.Lens(folder).embed(TEXTS).vectors)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
