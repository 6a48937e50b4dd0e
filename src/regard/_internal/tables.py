"""Tables of figures for the terminal, in one style."""

from __future__ import annotations

from rich.table import Table


def new_table(first: str, *others: str, left: tuple[str, ...] = (), no_wrap: bool = True) -> Table:
    """A table without borders: the first column holds names, the others numbers, except for those in `left`.

    no_wrap: Keep the others in one line, also in a narrow terminal.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=no_wrap)
    return table
