"""The Transformer from scratch, on `regard.attention`, and the recurrent attention that it replaced.

attention.py has the attention modules, layers.py and embeddings.py what a layer and its input consist of,
transformer.py the whole models, language_model.py those without an encoder, token.py how these compute one more token,
generation.py loss, schedule and decoding, recurrent.py the models with recurrent attention, checkpoint.py loads and
saves BERT's family, and decoders.py loads GPT-2 and Llama. docs/from-scratch.md builds all of it step by step.
"""

from regard._internal.deprecated import renamed_names
from regard.nn.attention import AttentionHead, MultiHeadAttention, SelfAttention
from regard.nn.embeddings import Embeddings, RotaryPositions, SinusoidalEmbeddings, SinusoidalPositions
from regard.nn.generation import beam, greedy, noam_schedule, smoothed_loss
from regard.nn.language_model import CausalLayer, LanguageModel
from regard.nn.layers import DecoderLayer, EncoderLayer, FeedForward, GatedFeedForward
from regard.nn.recurrent import BahdanauAttention, LuongAttention, RecurrentTranslator
from regard.nn.transformer import Decoder, Encoder, MaskedLanguageModel, SequenceClassifier, Transformer

__all__ = [
    "AttentionHead", "BahdanauAttention", "CausalLayer", "Decoder", "DecoderLayer", "Embeddings", "Encoder",
    "EncoderLayer", "FeedForward", "GatedFeedForward", "LanguageModel", "LuongAttention", "MaskedLanguageModel",
    "MultiHeadAttention", "RecurrentTranslator", "RotaryPositions", "SelfAttention", "SequenceClassifier",
    "SinusoidalEmbeddings", "SinusoidalPositions", "Transformer", "beam", "greedy", "noam_schedule", "smoothed_loss",
]  # fmt: skip

__getattr__ = renamed_names(__name__, warm_up="noam_schedule")
