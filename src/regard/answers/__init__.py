"""Answers from documents: a reply, the passages that its sentences came from, and the proof. One file a step."""

from regard.answers.answer import Answer, Sentence, Source
from regard.answers.ask import ask
from regard.answers.heads import HeadWeights, head_weights
from regard.answers.learning import learn
from regard.answers.passages import Passage, passages, read_passages

__all__ = [
    "Answer",
    "HeadWeights",
    "Passage",
    "Sentence",
    "Source",
    "ask",
    "head_weights",
    "learn",
    "passages",
    "read_passages",
]
