"""The Transformer's decoder in plain Python: it translates what the encoder of plain.py has read, word by word.

`python docs/plain_decoder.py` asks for a text, such as: Time flies like an arrow

It is made of the parts of plain.py. New are the causal mask, cross-attention, probabilities, and writing. M is the
number of tokens in the source, the English text, and N the number of German words so far. It knows only few words of
either language, those of the sentences that docs/plain_weights.py has trained it on.
"""

import math

import plain


def causal(scores):
    """The mask: a word must not look at those that come after it. exp(−∞) is 0, so that they get no weight."""
    return [[score if j <= i else -math.inf for j, score in enumerate(row)] for i, row in enumerate(scores)]


def decoder_layer(x, memory, layer, heads):
    """A layer of the encoder, with the mask, and with attention to the source in between."""
    change, _ = plain.attention(x, x, layer["attention"], heads, mask=causal)  # among the words so far
    x = plain.add_and_norm(x, change, layer["attention_norm"])
    change, weights = plain.attention(x, memory, layer["cross_attention"], heads)  # to the source: cross-attention
    x = plain.add_and_norm(x, change, layer["cross_attention_norm"])
    return plain.add_and_norm(x, plain.feed_forward(x, layer), layer["feed_forward_norm"]), weights


def decoder(words, memory, model):
    """The vectors of the words so far (N, dim), and each layer's weights (H, N, M) to the source."""
    x, all_weights = plain.embed(words, model), []
    for layer in model["layers"]:
        x, weights = decoder_layer(x, memory, layer, model["heads"])
        all_weights.append(weights)
    return x, all_weights


def next_word(words, memory, model):
    """The probability of each word of the vocabulary to be the next, and the weights to the source.

    The last vector is what the next word should be like: its dot product with each word's own vector is the score.
    """
    x, weights = decoder(words, memory, model)
    scores = [plain.dot(x[-1], vector) for vector in model["embeddings"]["tokens"]]
    return plain.softmax(scores), weights


def write(memory, model):
    """Greedy: the likeliest word each time, until the likeliest is [END]. Yields word, probability and weights."""
    words = ["[BEGIN]"]
    while words[-1] != "[END]" and len(words) < len(model["embeddings"]["positions"]):
        probabilities, weights = next_word(words, memory, model)
        likeliest = probabilities.index(max(probabilities))
        words.append(model["vocabulary"][likeliest])  # what it has written becomes its input
        yield words[-1], probabilities[likeliest], weights


def translate(text, encoder_model, model):
    """Prints each word with its probability, and the token to which each head of the last layer attends most."""
    tokens = plain.tokenise(text, encoder_model)
    memory, _ = plain.encoder(tokens, encoder_model)  # the source is read once, for all words
    print("\n   word             probability   looks most at")
    for word, probability, weights in write(memory, model):
        rows = [head[-1] for head in weights[-1]]  # of the newest word
        seen = [f"{tokens[row.index(max(row))]} ({max(row):.2f})" for row in rows]
        print(f"   {word:<16} {probability:11.5f}   {', '.join(seen)}")


if __name__ == "__main__":
    try:
        translate(input("Text: "), plain.load(), plain.load("plain_decoder.json"))
    except (EOFError, OSError, ValueError) as error:
        raise SystemExit(f"plain_decoder.py: {error}") from None
