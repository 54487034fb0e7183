"""The edition without solutions: nothing of them is left, every check fails.

Checked against the full edition: the lines of its solution cells are looked
for in every page and notebook of the student edition (the package and its own
tests stay whole: a course reads them), and the cells of each
exercise section are run here, without the solutions, where every check has to
refuse the starter. That every check of the full edition passes is read from
its stored outputs, which the strict notebook run compares with fresh ones.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from pathlib import Path

import pytest

from minillama import checks
from minillama.checks import WrongAnswer
from tools import student
from tools.shell import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CALL = re.compile(r"""check\(\s*["'](\d\d-[a-z_]+-\d+)["']""")


def cells(path: Path) -> list[dict]:
    """The cells of a notebook."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def edition(tmp_path_factory) -> Path:
    """The student edition, written to a folder of its own."""
    return student.write(tmp_path_factory.mktemp("course") / "student")


def lines_of(path: Path, solutions: bool) -> set[str]:
    """Long lines of a chapter's solution cells, or of its other cells.

    What the other cells print counts as taught: `show` prints the package.
    """
    texts = [student.source(cell) for cell in cells(path)
             if student.is_solution(cell) == solutions]
    if not solutions:
        texts += ["".join(output.get("text", "")) for cell in cells(path)
                  if not student.is_solution(cell)
                  for output in cell.get("outputs", [])]
    return {line.strip() for text in texts for line in text.splitlines()
            if len(line.strip()) >= 24}


def test_nothing_of_a_solution_is_left(edition):
    everything = [path for path in edition.rglob("*")
                  if path.suffix in (".ipynb", ".md", ".py")
                  and path.relative_to(edition).parts[0] not in (
                      "minillama", "tests")]
    texts = {path: path.read_text(encoding="utf-8") for path in everything}
    for chapter in CHAPTERS:
        taught = {line for other in CHAPTERS
                  for line in lines_of(other, solutions=False)}
        secret = lines_of(chapter, solutions=True) - taught
        # As JSON, because that is how a notebook holds a line.
        for line in secret:
            coded = json.dumps(line, ensure_ascii=False)[1:-1]
            found = [path.name for path, text in texts.items()
                     if line in text or coded in text]
            assert found == [], f"{line!r} is left in {found}"


def test_nothing_else_is_missing(edition):
    for chapter in CHAPTERS:
        kept = [student.source(cell) for cell in cells(chapter)
                if not student.is_solution(cell)]
        handed_out = [student.source(cell) for cell in
                      cells(edition / "notebooks" / chapter.name)]
        assert handed_out == kept
    for name in ("run.py", "minillama/checks/__init__.py", "_config.yml",
                 "pyproject.toml", "tests/conftest.py"):
        assert (edition / name).is_file()
    assert not (edition / "tests" / "wrong_answers").exists()


def exercises(path: Path) -> list[str]:
    """Definitions of the chapter, then the code of its exercise section."""
    before, section, inside = [], [], False
    for cell in cells(path):
        text = student.source(cell)
        if cell["cell_type"] == "markdown":
            # One text cell may end a section and begin the next.
            for heading in re.findall(r"^## (.*)", text, re.M):
                inside = heading.strip() == "Exercises"
        elif inside:
            section.append(text)
        elif "%pip" not in text:
            before.append(definitions(text))
    return before + section


def definitions(text: str) -> str:
    """Imports, functions, classes and constants of a cell, nothing slow."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    kept = [node for node in ast.parse(text).body
            if isinstance(node, kinds)
            or (isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant))]
    return "\n".join(ast.unparse(node) for node in kept)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_check_fails_without_its_solution(chapter, edition, capsys):
    import matplotlib as mpl

    mpl.use("agg")
    scope: dict = {"__name__": "__main__"}
    refused = []
    for text in exercises(edition / "notebooks" / chapter.name):
        ids = CALL.findall(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                exec(compile(text, chapter.name, "exec"), scope)
            except WrongAnswer as wrong:
                refused += [id for id in ids if id in str(wrong)]
            except Exception as error:
                assert not ids, f"{ids} stopped with {error!r}"
            else:
                assert not ids, f"{ids} passed without an answer"
    assert refused == CALL.findall("\n".join(
        student.source(cell) for cell in cells(chapter)
        if cell["cell_type"] == "code"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_check_passes_in_the_full_edition(chapter):
    for cell in cells(chapter):
        if cell["cell_type"] != "code":
            continue
        printed = "".join("".join(output.get("text", ""))
                          for output in cell["outputs"])
        for id in CALL.findall(student.source(cell)):
            assert f"{id}: right.\n" in printed


def test_every_exercise_is_used_in_its_chapter_once():
    used = [id for chapter in CHAPTERS for cell in cells(chapter)
            if cell["cell_type"] == "code"
            for id in CALL.findall(student.source(cell))]
    assert len(used) == len(set(used)), "an id is used twice"
    written = {chapter.stem[:2] for chapter in CHAPTERS}
    assert {id for id in checks.ids() if id[:2] in written} == set(used)


def test_the_check_of_a_solution_comes_after_it():
    """So that removing the solution cells leaves starter, then check."""
    for chapter in CHAPTERS:
        tagged = [student.is_solution(cell) for cell in cells(chapter)]
        checked = [bool(CALL.search(student.source(cell)))
                   and cell["cell_type"] == "code" for cell in cells(chapter)]
        for place, is_check in enumerate(checked):
            if is_check:
                previous = max((i for i in range(place) if checked[i]),
                               default=0)
                assert any(tagged[previous:place]), (
                    f"{chapter.stem}: no solution before cell {place}")
