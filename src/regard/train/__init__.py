"""A contextual encoder of one's own, from plain text."""
