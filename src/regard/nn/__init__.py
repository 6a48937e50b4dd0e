"""The Transformer from scratch, on `regard.attention`."""

from regard.nn.encoder import Encoder, EncoderLayer, FeedForward, MultiHeadAttention

__all__ = ["Encoder", "EncoderLayer", "FeedForward", "MultiHeadAttention"]
