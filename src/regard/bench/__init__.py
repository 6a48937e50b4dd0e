"""Benchmarks of this machine, with other libraries side by side: `regard bench attention` and `regard bench embed`."""
