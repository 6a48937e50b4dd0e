"""Self-attention from the bottom up. `python docs/plain.py` asks for a text, such as: Time flies like an arrow

A vector is a list of numbers, and a matrix is a list of vectors, its rows. Shapes: N tokens in the text, dim numbers in
a vector (32), H heads (2). `regard train` learned the weights in plain.json; regard computes the same attention.
"""

import json
import math


def dot(a, b):
    """The dot product of two vectors: large where both have large numbers in the same places."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def product(a, b):
    """The matrix product, (N, K) times (K, M) = (N, M): the dot product of each row of a with each column of b."""
    columns = list(zip(*b, strict=True))
    return [[dot(row, column) for column in columns] for row in a]


def add(a, b):
    """The sum of two vectors, number by number."""
    return [x + y for x, y in zip(a, b, strict=True)]


def softmax(scores):
    """Turns scores into weights that are positive and sum to 1; the largest score gets the largest weight."""
    largest = max(scores)
    exponentials = [math.exp(score - largest) for score in scores]  # no exponent is above 0, so none overflows
    return [exponential / sum(exponentials) for exponential in exponentials]


def layer_norm(x, norm):
    """A vector, brought to mean 0 and variance 1, then stretched and shifted as the model has learned."""
    mean = sum(x) / len(x)
    variance = sum((number - mean) ** 2 for number in x) / len(x)
    normal = [(number - mean) / math.sqrt(variance + 1e-12) for number in x]
    return add([number * weight for number, weight in zip(normal, norm["weight"], strict=True)], norm["bias"])


def pieces_of(word, vocabulary):
    """WordPiece: the longest piece of the vocabulary that the word begins with, then the same for the rest of it."""
    pieces = []
    while word:
        prefix = "##" if pieces else ""  # marks a piece that does not begin a word
        ends = [end for end in range(1, len(word) + 1) if prefix + word[:end] in vocabulary]
        if not ends:
            return ["[UNK]"]  # an unknown word: no piece fits
        pieces.append(prefix + word[: ends[-1]])
        word = word[ends[-1] :]
    return pieces


def tokenise(text, model):
    """The tokens of a text in lower case; [CLS] and [SEP] stand around every text that the model reads."""
    spaced = "".join(letter if letter.isalnum() else f" {letter} " for letter in text.lower())
    tokens = [piece for word in spaced.split() for piece in pieces_of(word, model["vocabulary"])]
    if not 0 < len(tokens) <= len(model["embeddings"]["positions"]) - 2:
        longest = len(model["embeddings"]["positions"]) - 2
        raise ValueError(f"Expected a text of 1 to {longest} tokens. Got {len(tokens)}.")
    return ["[CLS]", *tokens, "[SEP]"]


def embed(tokens, model):
    """(N, dim): the vector of each token, as in a dictionary, plus the vector of its position in the text."""
    tables = model["embeddings"]
    of_tokens = [tables["tokens"][model["vocabulary"].index(token)] for token in tokens]
    both = [add(token, position) for token, position in zip(of_tokens, tables["positions"], strict=False)]
    return [layer_norm(vector, tables["norm"]) for vector in both]


def linear(x, learned):
    """x W + b: each vector times a learned matrix, plus a learned vector."""
    return [add(row, learned["bias"]) for row in product(x, learned["weight"])]


def split(x, heads):
    """(N, dim) to (H, N, dim / H): each head gets its own part of each vector."""
    size = len(x[0]) // heads
    return [[vector[head * size : (head + 1) * size] for vector in x] for head in range(heads)]


def one_head(queries, keys, values, mask):
    """Attention: each token takes its weighted average of the values. (N, dim / H), and the weights (N, N)"""
    scores = [[dot(query, key) / math.sqrt(len(key)) for key in keys] for query in queries]
    weights = [softmax(row) for row in (mask(scores) if mask else scores)]  # a decoder masks the future
    return product(weights, values), weights


def attention(x, source, learned, heads, mask=None):
    """All heads: x (N, dim) attends to the source, which is x itself in self-attention. (N, dim), (H, N, N)"""
    queries = split(linear(x, learned["query"]), heads)  # what each token looks for
    keys = split(linear(source, learned["key"]), heads)  # what each token of the source is labelled with
    values = split(linear(source, learned["value"]), heads)  # what there is to take from it
    outputs, weights = zip(*(one_head(*qkv, mask) for qkv in zip(queries, keys, values, strict=True)), strict=True)
    joined = [[number for part in parts for number in part] for parts in zip(*outputs, strict=True)]  # side by side
    return linear(joined, learned["output"]), weights


def feed_forward(x, layer):
    """(N, dim): each token for itself: up to more numbers, negative ones held back (GELU), and down again."""
    wide = [[number * (1 + math.erf(number / math.sqrt(2))) / 2 for number in row] for row in linear(x, layer["fc1"])]
    return linear(wide, layer["fc2"])


def add_and_norm(x, change, norm):
    """The residual connection: what was computed is added to what came in, so that nothing is lost."""
    return [layer_norm(add(vector, new), norm) for vector, new in zip(x, change, strict=True)]


def encoder_layer(x, layer, heads):
    """Attention, by which the tokens learn from each other, then feed-forward. (N, dim), (H, N, N)"""
    change, weights = attention(x, x, layer["attention"], heads)
    x = add_and_norm(x, change, layer["attention_norm"])
    return add_and_norm(x, feed_forward(x, layer), layer["feed_forward_norm"]), weights


def encoder(tokens, model):
    """Layer after layer: the vectors (N, dim), which now depend on their context, and each layer's weights."""
    x, all_weights = embed(tokens, model), []
    for layer in model["layers"]:
        x, weights = encoder_layer(x, layer, model["heads"])
        all_weights.append(weights)
    return x, all_weights


def load(name="plain.json"):
    """The vocabulary and the weights of a model, from a file beside this one. plain_weights.py makes it again."""
    with open(__file__.replace("plain.py", name), encoding="utf-8") as file:
        return json.load(file)


def main(text, model):
    """Prints the weights of each layer and head: a row for each token that looks, a column for each it looks at."""
    tokens = tokenise(text, model)
    for layer, heads in enumerate(encoder(tokens, model)[1]):
        for head, weights in enumerate(heads):
            print(f"\nlayer {layer}, head {head}", *(f"{token:>8}" for token in tokens))
            for token, row in zip(tokens, weights, strict=True):
                print(f"{token:>15}", *(f"{weight:8.5f}" for weight in row))


if __name__ == "__main__":
    try:
        main(input("Text: "), load())
    except (EOFError, OSError, ValueError) as error:
        raise SystemExit(f"plain.py: {error}") from None
