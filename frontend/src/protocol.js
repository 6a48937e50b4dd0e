// Limits that the page shares with regard/viewer/protocol.py.

export const TILE = 256; // cells on a side of a tile of the map
export const THUMB = 64; // cells on a side of a small picture, at most
export const SAMPLED_UNITS = 2048; // of a longer text, a row of a small picture is that of its cell's first word
export const ALL_UNITS = 64; // units up to which all weights of a layer are sent at once
export const WALK_TOKENS = 24; // tokens up to which a walk lists all
export const WALK_ROWS = 12; // of a longer text, the rows of a walk: those with the largest weights
export const WALK_ALL_ROWS = 2048; // and the rows at most where all are asked for
