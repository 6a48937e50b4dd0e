"""Training an encoder or a decoder of your own on plain text."""
