"""Why torch.compile cannot follow: said by torch.compile where it leaves a graph, and in regard's own errors."""

MASK_IS_CALLABLE = "mask= is a Python callable, which no graph holds; give a bool tensor."
WEIGHTS_ARE_UNTRACEABLE = (
    "what is asked of them is computed where no graph can follow. Ask outside of what is compiled, exported or traced; "
    "a.output and a.lse can be had inside."
)
