"""What the signatures here speak of: B texts of N tokens, M in the source; V words; G groups of heads, D their dim."""

from typing import Annotated

from torch import Tensor

Ids = Annotated[Tensor, "(B,N) tokens by number"]
Source = Annotated[Tensor, "(B,M) tokens by number"]
Lengths = Annotated[Tensor, "(B,) how many are no padding"] | None
Vectors = Annotated[Tensor, "(B,N,dim)"]
Memory = Annotated[Tensor, "(B,M,dim)"]
Logits = Annotated[Tensor, "(B,N,V)"]
KeysAndValues = tuple[Annotated[Tensor, "(B,G,M,D)"], Annotated[Tensor, "(B,G,M,D)"]]
Past = tuple[Tensor, Tensor, Tensor, Tensor]  # keys and values of the words so far, then those of the memory
