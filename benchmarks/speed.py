"""The table of docs/speed.md, by machine, made of reports that `regard bench` saved as JSON.

python benchmarks/speed.py wide.json roofline.json embed.json … [--into docs/speed.md]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from regard.bench import machines
from regard.bench.saved import Saved, load

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> None:
    """Print the tables, or put them between the marks of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, help="a page with the marks")
    arguments = parser.parse_args()
    reports = [load(path) for path in arguments.reports]
    text = "\n\n".join(filter(None, (_machines(reports), _totals(reports), _roofline(reports), _embeddings(reports))))
    if arguments.into is None:
        print(text)
        return
    before, rest = arguments.into.read_text(encoding="utf-8").split(BEGIN)
    page = f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"
    arguments.into.write_text(page, encoding="utf-8")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _machines(reports: list[Saved]) -> str:
    """A column for each machine and number of threads."""
    distinct = {(r.report["machine"].get("processor"), r.report["machine"].get("threads")): r for r in reports}
    rows = machines.rows([saved.report for saved in distinct.values()])
    processors = rows.pop("processor")
    return _table(["", *processors], ([name, *values] for name, values in rows.items()))


def _totals(reports: list[Saved]) -> str:
    rows = []
    for saved in reports:
        for peer, total in saved.report.get("summary", {}).items():
            counts = [str(total["rows"]), str(total["slower"])]
            numbers = [f"{total[name]:.2f} ×" for name in ("lowest", "median", "geometric_mean")]
            rows.append([_command(saved), f"{_machine(saved)}, {peer}", *counts, *numbers])
    head = ["command", "machine, peer", "rows", "below 1.00 ×", "lowest", "median", "geometric mean"]
    return _table(head, rows) if rows else ""


def _roofline(reports: list[Saved]) -> str:
    """The lowest share of each kind, for each instruction set and type."""
    rows = []
    for saved in reports:
        measured = [row for row in saved.report.get("rows", ()) if saved.report.get("grid") == "roofline"]
        for isa, dtype in dict.fromkeys((row["isa"], row["type"]) for row in measured):
            of = [row for row in measured if (row["isa"], row["type"]) == (isa, dtype)]
            long = [row for row in of if row["kind"] == "attention" and row["keys"] >= 2048]
            kinds = [
                [row for row in long if not row["causal"]],
                [row for row in long if row["causal"]],
                [row for row in of if row["kind"] == "ragged"],
                [row for row in of if row["kind"] == "linear"],
            ]
            rows.append([isa, dtype, *(_least(kind) for kind in kinds)])
    head = ["instruction set", "type", "N ≥ 2,048", "causal", "segments of 32 to 256", "linear layers"]
    title = "The lowest share of the peak (`regard bench attention --grid roofline`):"
    return f"{title}\n\n{_table(head, rows)}" if rows else ""


def _least(rows: list[dict[str, dict[str, float]]]) -> str:
    return f"{min(row['share']['regard'] for row in rows):.0%}" if rows else "–"


def _embeddings(reports: list[Saved]) -> str:
    rows = [
        [
            f"{row['shown']}, {row['type']}",
            _machine(saved),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['ratio']:.2f} ×",
            f"{row['cosine']:.4f}, {row['mean_cosine']:.4f}",
        ]
        for saved in reports
        if saved.benchmark == "embed"
        for row in saved.report["rows"].values()
    ]
    head = [
        "`regard bench embed`",
        "machine",
        "tokens per second",
        "time / regard float32",
        "cosine to it: lowest, mean",
    ]
    return _table(head, rows) if rows else ""


def _command(saved: Saved) -> str:
    return f"`regard bench attention --grid {saved.report.get('grid', 'default')}`"


def _machine(saved: Saved) -> str:
    return machines.line(saved.report["machine"])


if __name__ == "__main__":
    main()
