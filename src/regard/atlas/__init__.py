"""The atlas of heads: what every head of a model does, and the proof by ablation."""
