"""The atlas of heads: what every head of a model does, and the proof by ablation.

| | |
|---|---|
| texts.py, needle.py | what is read: texts, random tokens that are repeated, needles; `prose/` are texts of our own |
| steps.py | the order in which a model reads them, and the attentions and texts that each reading gives |
| make.py | `Lens.atlas`: measures every layer, one reading after the other; the proofs; examples |
| sums.py, state.py | the means over all rows, and what is finished, so that a run that was ended goes on |
| inputs.py | models that no lens opens, because they hear or see |
| plan.py, ablation.py, loss.py, proof.py | the proof that heads do what their score says, by switching them off |
| example.py | the text in which a page shows what heads attend to |
| tables.py, atlas.py, difference.py | the result, and what changed between two models |
| frames.py, store.py, display.py | as tables of Arrow and pandas, as files, and in notebooks |
"""

from __future__ import annotations

from regard.atlas.atlas import Atlas
from regard.atlas.difference import Difference, difference
from regard.atlas.inputs import of_inputs
from regard.atlas.proof import Effect, Proof
from regard.atlas.tables import Example, Head

__all__ = ["Atlas", "Difference", "Effect", "Example", "Head", "Proof", "difference", "of_inputs"]
