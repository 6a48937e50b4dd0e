"""Writes the inventories of this folder: where the names that regard's documentation uses are explained elsewhere.

They are objects.inv files as Sphinx writes them, version 2, that hold these names only, so that the build needs no
network: https://sphobjinv.readthedocs.io/en/stable/syntax.html. Add a name here, then run
`python docs/inventories/make.py`.
"""

import zlib
from pathlib import Path

PYTHON = {
    "library/constants.html": "data: None",
    "library/functions.html": """class: bool bytes complex dict float frozenset int list object property set slice str
        tuple type""",
    "library/exceptions.html": """exception: AttributeError Exception FileExistsError FileNotFoundError ImportError
        IndexError KeyError LookupError OSError RuntimeError TypeError ValueError""",
    "library/typing.html": "data: typing.Any typing.Literal class: typing.NamedTuple",
    "library/collections.abc.html": """class: collections.abc.Callable collections.abc.Collection
        collections.abc.Iterable collections.abc.Iterator collections.abc.Mapping collections.abc.Sequence""",
    "library/pathlib.html": "class: pathlib.Path",
    "library/os.html": "class: os.PathLike",
}
NUMPY = {
    "reference/generated/numpy.ndarray.html": "class: numpy.ndarray",
    "reference/generated/numpy.asarray.html": "function: numpy.asarray",
    "reference/routines.dtypes.html": "class: numpy.dtype",
}
TORCH = {
    "tensors.html": "class: torch.Tensor",
    "tensor_attributes.html": "class: torch.dtype torch.device",
    "size.html": "class: torch.Size",
    "amp.html": "class: torch.autocast",
    **{
        f"generated/{name}.html": f"{role}: {name}"
        for role, names in {
            "class": """torch.Generator torch.nn.Module torch.nn.Linear torch.nn.LayerNorm torch.nn.Embedding
                torch.nn.MultiheadAttention""",
            "function": "torch.diagonal torch.topk torch.nn.functional.scaled_dot_product_attention",
            "method": "torch.Tensor.to torch.Tensor.topk torch.Tensor.detach torch.Tensor.clone",
        }.items()
        for name in names.split()
    },
}
TRANSFORMERS = {
    "main_classes/model": "class: transformers.PreTrainedModel",
    "main_classes/tokenizer": "class: transformers.PreTrainedTokenizerBase transformers.PreTrainedTokenizerFast",
    "model_doc/auto": "class: transformers.AutoModel transformers.AutoModelForCausalLM transformers.AutoTokenizer",
    "internal/modeling_utils": "class: transformers.AttentionInterface",
}
PROJECTS = {"python": PYTHON, "numpy": NUMPY, "torch": TORCH, "transformers": TRANSFORMERS}


def inventory(project, pages):
    """The bytes of an objects.inv."""
    lines = []
    for page, listed in pages.items():
        role = ""
        for word in listed.split():
            if word.endswith(":"):
                role = word.removesuffix(":")
            else:
                lines.append(f"{word} py:{role} 1 {page}#$ -\n")
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(sorted(lines)).encode(), 9)


if __name__ == "__main__":
    for project, pages in PROJECTS.items():
        Path(__file__).with_name(f"{project}.inv").write_bytes(inventory(project, pages))
