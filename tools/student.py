"""An edition without the solutions, in the folder student/, for a course.

Cells tagged `solution` go, and so do the outputs of the checks, the stored
answers in tests/ and whatever tests need those. Everything else stays as it
is: the package that the checks compare with, the pages, `run.py`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tools.shell import ROOT
from tools.tree import copy_tree

STUDENT = ROOT / "student"
# The stored answers, and the tests that need them or the outputs above.
TEACHERS = ("tests/wrong_answers", "tests/mutants", "tests/test_checks.py",
            "tests/test_student.py", "tests/test_notebooks.py",
            "tests/test_house.py", "tests/test_claims.py")


def source(cell: dict[str, Any]) -> str:
    """A cell's text; notebooks store it whole or line by line."""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def is_solution(cell: dict[str, Any]) -> bool:
    """Whether a cell gives an answer away."""
    return "solution" in cell["metadata"].get("tags", [])


def without_solutions(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook as a student gets it.

    The check cells have not been run: their outputs belong to the solutions.
    """
    cells = []
    for cell in notebook["cells"]:
        if is_solution(cell):
            continue
        if cell["cell_type"] == "code" and "check(" in source(cell):
            cell = {**cell, "outputs": [], "execution_count": None}
        cells.append(cell)
    return {**notebook, "cells": cells}


def write(target: Path = STUDENT) -> Path:
    """Write the edition into `target`, replacing what is there."""
    shutil.rmtree(target, ignore_errors=True)
    copy_tree(target)
    for name in TEACHERS:
        path = target / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in sorted((target / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(
            json.dumps(without_solutions(notebook), indent=1,
                       ensure_ascii=False) + "\n",
            encoding="utf-8", newline="\n")
    return target


if __name__ == "__main__":
    write()
    print(f"The edition without solutions lies in {STUDENT.name}/")
    sys.exit(0)
