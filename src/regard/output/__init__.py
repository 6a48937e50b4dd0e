"""A reading as text, picture or numbers: the terminal, PNG and SVG, JSON."""
