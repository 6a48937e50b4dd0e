"""Colours as people see them: with usual sight, with deuteranopia, and with protanopia."""

from __future__ import annotations

import numpy as np

SIGHTS = {  # Machado, Oliveira and Fernandes 2009
    "usual": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def seen_with(colour, matrix):
    """A colour as linear light, seen with a kind of sight."""
    share = np.array(colour) / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.clip(np.array(matrix) @ light, 0, 1)


def lab(light):
    """CIELAB of linear sRGB."""
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    share = np.array(matrix) @ light / np.array([0.95047, 1, 1.08883])
    f = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
