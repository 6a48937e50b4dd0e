"""Readings as something to look at without a browser: text in a terminal, a picture, or JSON."""
