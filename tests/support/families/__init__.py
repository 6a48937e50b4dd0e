"""A tiny random model of any architecture of transformers, and inputs for it: rules in tiny, exceptions in table."""
