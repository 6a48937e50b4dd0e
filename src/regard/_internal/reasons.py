"""Why torch.compile cannot trace a call: the reasons that it prints at a graph break, and those in regard's errors."""

MASK_IS_CALLABLE = "mask= is a Python callable, which a graph cannot hold; pass a bool tensor."
WEIGHTS_ARE_UNTRACEABLE = (
    "their reductions cannot be traced. Call them outside of the compiled, exported or traced function; "
    "a.output and a.lse can be used inside."
)
