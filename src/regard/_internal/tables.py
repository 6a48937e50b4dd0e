"""Tables of figures for the terminal, in one style."""

from __future__ import annotations

from rich.table import Table


def new_table(first: str, *others: str, left: tuple[str, ...] = ()) -> Table:
    """A table without borders: the first column holds names, the others numbers, except for those in `left`."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return table
