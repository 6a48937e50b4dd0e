"""Limits and sizes that Python and the page both know."""

from __future__ import annotations

from regard.attribution.heads import named, scores

TEXT_LIMIT = 1 << 20  # characters of a text
LINK_LIMIT = 20_000  # characters of the link that a saved page opens with
TARGET_LIMIT = 2000  # characters of a target
COMPARED_TEXTS = 32  # texts of a comparison, messages of a chat, or documents of a question
COMPARED_PLACES = 64  # occurrences of the word in all of them
LAYER_WEIGHTS_UNITS = 64  # units of the longest text whose weights of a whole layer can be requested
TILE_SIZE = 256  # cells of a tile, on each side
THUMBNAIL_SIZE = 64  # cells of a thumbnail, on each side, at most
SAMPLED_UNITS = 2048  # units beyond which the cells of a thumbnail are sampled: a row is that of its first unit
WALK_TOKENS = 24  # tokens of the longest text of which a walk lists all
WALK_LARGEST = 12  # tokens that the walk of a longer text lists: those with the largest weights
WALK_ROWS = 2048  # tokens that a walk lists at most, when all are requested
MAPPED_UNITS = 4096  # units of the longest text whose weights a saved page maps one by one
LOGARITHM_STEPS = 2048  # steps for each doubling, in which a saved page holds the cells of a picture
REPLY_TOKENS = 2048  # tokens of the longest reply that a page can ask for
TEMPERATURE_LIMIT = 2  # the highest temperature that a page can ask for
PREDICTED_TOKENS = 128  # tokens whose predictions a reply has, at most
PREDICTED_MOST = 20  # predictions that can be requested for each token
PREDICTIONS = 5  # predictions for each token, unless others are requested
NAMED_FROM = scores.NAMED_FROM  # the share of its weight from which on a head is named after a pattern
PATTERNS = named.PATTERNS  # by name, in the order of the shares, whom a head with the pattern attends to
VIEWS = ("atlas", "sentence", "heads", "map", "walk", "predictions", "compare")  # in the order of the tabs
