"""Types that several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

Index = slice | Tensor  # a run of positions with both ends written out, or positions one by one
# mask_mod(batch, head, query, key) → bool, on index tensors
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
FileFormat = Literal["lines", "paragraphs", "json", "jsonl", "csv", "tsv", "parquet", "conllu"]  # of a corpus
OutputDtype = Literal["float32", "float16", "int8"]  # of the vectors of a corpus
