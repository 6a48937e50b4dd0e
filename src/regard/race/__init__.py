"""Recurrent attention against self-attention: the same tasks, the same number of parameters, the same steps."""
