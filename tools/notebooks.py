"""Execute chapters again, in place, and leave nothing in them that varies.

`python run.py notebooks 07_rope` runs one chapter, no name runs all. A
chapter runs in an empty folder. Kept are sources, outputs and execution
counts (nbval compares nothing in a cell that lacks both); gone are timings,
machine details and random cell ids.

The first code cell of each chapter, tagged `setup`, is `show.setup_cell`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from minillama.files import replace_bytes
from minillama.show import setup_cell

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
KEPT = ("tags", "cellView", "mystnb", "alt")


def clean(notebook: nbformat.NotebookNode) -> None:
    """Strip what differs from run to run; give cells lasting ids."""
    notebook.metadata = nbformat.from_dict({
        "kernelspec": {"display_name": "Python 3", "language": "python",
                       "name": "python3"},
        "language_info": {"name": "python"},
        "colab": {"toc_visible": True},
    })
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
        cell.metadata = nbformat.from_dict(
            {k: v for k, v in cell.metadata.items() if k in KEPT})
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            if alt := cell.metadata.get("alt") or _alternative(cell.outputs):
                # Jupyter Book reads alternative text from here alone.
                cell.metadata["mystnb"] = {"image": {"alt": alt}}


def _alternative(outputs: list) -> str | None:
    """The text that `plots.show` stored beside its picture."""
    for output in outputs:
        picture = output.get("metadata", {}).get("image/png", {})
        if "alt" in picture:
            return picture["alt"]
    return None


def _joined(outputs: list) -> list:
    """Pieces of one stream as one output; nothing else is changed."""
    result: list = []
    for output in outputs:
        before = result[-1] if result else None
        if (before and output.output_type == "stream"
                and before.output_type == "stream"
                and before.name == output.name):
            before.text += output.text
            continue
        result.append(output)
    return result


def set_up(notebook: nbformat.NotebookNode, chapter: str) -> None:
    """Put the one setup cell in place of whatever the chapter has there."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if "minillama" in cell.source and "%pip" in cell.source:
                cell.source = setup_cell(chapter).strip()
                cell.metadata["tags"] = ["setup", "hide-input"]
            return


def execute(path: Path) -> None:
    """Run one chapter and write it back."""
    notebook = nbformat.read(path, as_version=4)
    set_up(notebook, path.stem)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3",
            record_timing=False, resources={"metadata": {"path": folder}})
        client.execute()
    clean(notebook)
    # Written whole or not at all: a reader may have the file open.
    replace_bytes(path, (nbformat.writes(notebook) + "\n").encode())


def main(names: list[str]) -> int:
    """Execute the named chapters, or all; return the exit code."""
    paths = [NOTEBOOKS / f"{Path(name).stem}.ipynb" for name in names]
    failed = 0
    for path in paths or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"{path.stem} ...", flush=True)
        try:
            execute(path)
        except FileNotFoundError:
            print(f"  there is no notebooks/{path.name}")
            failed = 1
        except CellExecutionError as error:
            print(f"  stopped, the file is unchanged:\n{error}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
