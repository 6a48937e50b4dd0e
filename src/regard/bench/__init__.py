"""How fast attention is on this machine, with the peers side by side: `regard bench attention`."""
