"""The Transformer from scratch, on `regard.attention`, and the recurrent attention that it replaced.

attention.py has the attention modules, layers.py and embeddings.py what a layer and its input consist of,
transformer.py the whole models, generation.py loss, schedule and decoding, recurrent.py the models with recurrent
attention, and checkpoint.py loads and saves BERT's family. docs/from-scratch.md builds all of it step by step.
"""

from regard._internal.deprecated import renamed_names
from regard.nn.attention import AttentionHead, MultiHeadAttention, SelfAttention
from regard.nn.embeddings import Embeddings, SinusoidalEmbeddings, SinusoidalPositions
from regard.nn.generation import beam, greedy, noam_schedule, smoothed_loss
from regard.nn.layers import DecoderLayer, EncoderLayer, FeedForward
from regard.nn.recurrent import BahdanauAttention, LuongAttention, RecurrentTranslator
from regard.nn.transformer import Decoder, Encoder, MaskedLanguageModel, SequenceClassifier, Transformer

__all__ = [
    "AttentionHead", "BahdanauAttention", "Decoder", "DecoderLayer", "Embeddings", "Encoder", "EncoderLayer",
    "FeedForward", "LuongAttention", "MaskedLanguageModel", "MultiHeadAttention", "RecurrentTranslator",
    "SelfAttention", "SequenceClassifier", "SinusoidalEmbeddings", "SinusoidalPositions", "Transformer", "beam",
    "greedy", "noam_schedule", "smoothed_loss",
]  # fmt: skip

__getattr__ = renamed_names(__name__, warm_up="noam_schedule")
