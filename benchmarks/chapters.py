"""How long each chapter runs on this machine.

    python -m benchmarks.chapters [NAME ...]

executes the chapters as they are, each in an empty folder, and writes
`benchmarks/results/chapters.json`. The corpus should be in the cache before:
`minillama data fetch`. Names given replace their rows, the others stay.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "chapters.json"


def seconds(path: Path) -> float:
    """Wall time of one chapter, from starting the kernel to its end."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3",
            resources={"metadata": {"path": folder}})
        began = time.perf_counter()
        client.execute()
        return time.perf_counter() - began


def machine() -> dict[str, object]:
    """What the times hang on."""
    return {"system": platform.system(), "processor": platform.machine(),
            "cores": os.cpu_count(), "python": platform.python_version()}


def main(names: list[str]) -> None:
    """Measure the named chapters, or all, and print a table."""
    results = {"machine": machine(), "chapters": {}}
    if OUT.is_file():
        stored = json.loads(OUT.read_text(encoding="utf-8"))
        if stored["machine"] == results["machine"]:
            results = stored
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if not names or path.stem in names:
            took = round(seconds(path), 1)
            results["chapters"][path.stem] = {"seconds": took}
            print(f"{path.stem:<16}{took:>8.1f} s", flush=True)
            order = sorted(results["chapters"].items())
            results["chapters"] = dict(order)
            OUT.parent.mkdir(parents=True, exist_ok=True)
            OUT.write_text(json.dumps(results, indent=1) + "\n",
                           encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
