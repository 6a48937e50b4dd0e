"""Columns of numbers as a table of Arrow or pandas, which are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import pyarrow

_TYPES = {"part": "string", "layer": "int32", "head": "int32", "score": "string"}  # all others are float32
Columns = Mapping[str, list[Any]]


def to_arrow(columns: Columns) -> pyarrow.Table:
    """Columns as a table of Arrow. Raises ImportError, with what to install, where pyarrow is missing."""
    pa = require_pyarrow()
    return pa.table(
        {name: pa.array(values, pa.type_for_alias(_TYPES.get(name, "float32"))) for name, values in columns.items()}
    )


def to_pandas(columns: Columns) -> pandas.DataFrame:
    """Columns as a table of pandas. Raises ImportError, with what to install, where pandas is missing."""
    try:
        import pandas as pd
    except ImportError:
        raise ImportError("A table of pandas needs pandas: pip install pandas.") from None
    return pd.DataFrame(dict(columns)).astype({name: _TYPES.get(name, "float32") for name in columns})


def require_pyarrow() -> Any:
    """The package. Raises ImportError, with what to install, where it is missing."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError("A table of Arrow, and a .parquet file, need pyarrow: pip install pyarrow.") from None
    return pyarrow
