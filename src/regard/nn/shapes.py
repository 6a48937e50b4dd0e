"""The shapes in the signatures of this package: B texts of N tokens (M in a source), V tokens in the vocabulary,
G groups of heads of dimension D.
"""

from typing import Annotated

from torch import Tensor

Ids = Annotated[Tensor, "(B,N) token ids"]
Source = Annotated[Tensor, "(B,M) token ids"]
Lengths = Annotated[Tensor, "(B,) tokens that are no padding"] | None
Vectors = Annotated[Tensor, "(B,N,dim)"]
Memory = Annotated[Tensor, "(B,M,dim)"]
Logits = Annotated[Tensor, "(B,N,V)"]
KeysAndValues = tuple[Annotated[Tensor, "(B,G,M,D)"], Annotated[Tensor, "(B,G,M,D)"]]
Past = tuple[Tensor, Tensor, Tensor, Tensor]  # keys and values of the tokens so far, then those of the memory
