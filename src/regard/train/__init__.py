"""Training a contextual encoder of your own on plain text."""
