"""The Transformer from scratch, on `regard.attention`, and the recurrent attention that it replaced."""

from regard.nn.attention import AttentionHead, MultiHeadAttention, SelfAttention
from regard.nn.embeddings import Embeddings, SinusoidalEmbeddings, SinusoidalPositions
from regard.nn.generation import beam, greedy, smoothed_loss, warm_up
from regard.nn.layers import DecoderLayer, EncoderLayer, FeedForward
from regard.nn.recurrent import BahdanauAttention, LuongAttention, RecurrentTranslator
from regard.nn.transformer import Decoder, Encoder, MaskedLanguageModel, SequenceClassifier, Transformer

__all__ = [
    "AttentionHead", "BahdanauAttention", "Decoder", "DecoderLayer", "Embeddings", "Encoder", "EncoderLayer",
    "FeedForward", "LuongAttention", "MaskedLanguageModel", "MultiHeadAttention", "RecurrentTranslator",
    "SelfAttention", "SequenceClassifier", "SinusoidalEmbeddings", "SinusoidalPositions", "Transformer", "beam",
    "greedy", "smoothed_loss", "warm_up",
]  # fmt: skip
