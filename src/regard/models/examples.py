"""Sentences of many kinds, on which `QuantizedLinear` sees what the inputs of a model's layers are like."""

from __future__ import annotations

from regard.models.model import Model
from regard.models.tokenizer import encode_batch

SENTENCES = (
    "Time flies like an arrow; fruit flies like a banana.",
    "The committee will meet again on 14 March to decide about the budget for next year.",
    "A man is playing a guitar on the street while two children are dancing.",
    "Stocks fell sharply after the central bank raised its interest rate by half a percentage point.",
    "Who wrote the letter that was found in the attic?",
    "Water boils at 100 °C at sea level, and at about 90 °C on a mountain of 3,000 metres.",
    "I never said she stole the money.",
    "def mean(numbers): return sum(numbers) / len(numbers)",
    "The patient was given 250 mg of the drug twice a day, and the fever was gone within a week.",
    "Please read the instructions carefully before you assemble the shelf!",
    "Though it had rained all night, the river did not rise above the lower bridge, which surprised the engineers.",
    "Der Zug nach München fährt heute zehn Minuten später ab.",
    "La bibliothèque est fermée le lundi.",
    "She poured the tea, sat down by the window and waited for the snow to stop.",
    "An HTTP server answers 404 where there is no page of that name.",
    "Two black dogs run through shallow water.",
    "The theory predicts that light is bent by the mass of the sun, as was observed in 1919.",
    "yes",
    "BREAKING: fire in the old harbour, nobody hurt, more at https://example.org/news?id=42",
    "In the beginning the village had forty houses, a church and a mill; a century later it had a railway station, "
    "three schools and a theatre, and hardly anybody remembered where the mill had stood.",
    "He said that he was sorry (he was not).",
    "Add the flour, two eggs, a pinch of salt and 300 ml of milk, and stir until there are no lumps.",
    "What is the capital of Australia? Canberra, not Sydney.",
    "Attention weights are the softmax of the scaled products of queries and keys.",
)


def example_texts(model: Model) -> list[list[int]]:
    """The sentences as the model reads them, as lists of ids; without those that it has no tokens for.

    >>> from regard.models import open_model
    >>> texts = example_texts(open_model())
    >>> len(texts), sum(map(len, texts))
    (24, 450)
    """
    room = model.max_length - len(model.prefix_ids) - len(model.suffix_ids)
    encodings = [encoding for encoding in encode_batch(model.tokenizer, SENTENCES) if encoding]
    texts = [[*model.prefix_ids, *encoding.ids[: max(room, 0)], *model.suffix_ids] for encoding in encodings]
    return [
        ids[: model.max_length] for ids in texts if ids and (model.vocab_size is None or max(ids) < model.vocab_size)
    ]
