"""What an attention weight does not say: what was taken from a token, and whether it mattered. One file a method."""
