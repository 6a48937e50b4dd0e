"""Runs the notebooks and saves them with what they show.

python docs/notebooks/execute.py [NAME ...]

Each runs from top to bottom in a kernel and a folder of its own. What is saved is the same every time on one machine:
pictures and texts, and neither widgets, whose numbers are random and which are nothing without a kernel, nor times.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
SKIPPED = "skip-execution"  # the tag of cells that install
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"


def read(path: Path) -> Any:
    """A notebook as it is saved."""
    return nbformat.read(path, as_version=4)


def execute(notebook: Any, folder: Path) -> Any:
    """The notebook with the outputs of its cells, run in a new kernel in a folder."""
    client = NotebookClient(
        notebook.copy(),
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        skip_cells_with_tag=SKIPPED,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
    )
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # sums of floats depend on how many threads make them
    try:
        return client.execute()
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def saved(notebook: Any) -> Any:
    """The notebook as it is saved: without widgets, its pictures small, of metadata only tags and alternative texts."""
    notebook = notebook.copy()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":
            cell.outputs = joined(output for output in cell.outputs if WIDGET not in output.get("data", {}))
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = small(output.data["image/png"])
    return notebook


def joined(outputs: Iterable[Any]) -> list[Any]:
    """The outputs, with what was printed in one go as one of them, however many messages it came in."""
    together: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and together and together[-1].get("name") == output.name:
            together[-1].text += output.text
        else:
            together.append(output)
    return together


def small(png: str) -> str:
    """A picture, in base64, in at most 256 colours, which takes a third."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def text(notebook: Any) -> str:
    """The content of the file."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(names: list[str]) -> None:
    """Run and save the notebooks of these names, or all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = saved(execute(read(path), Path(folder)))
        path.write_text(text(notebook), encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size / 1000:,.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
