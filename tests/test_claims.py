"""Each claim of the paper is shown somewhere, planned, or excused.

`book/claims.csv` is checked against the chapters and the tests themselves: a
heading has to be in the notebook, a test has to be a function that pytest
would find. A claim of a finished chapter (its notebook exists) may not be
left open.
"""

from __future__ import annotations

import ast
import csv
import json
from functools import cache

import pytest

from tools.shell import ROOT

COLUMNS = ["id", "section", "kind", "claim", "chapter", "heading", "test",
           "why_not", "status"]
with open(ROOT / "book" / "claims.csv", encoding="utf-8", newline="") as file:
    CLAIMS = list(csv.DictReader(file))
SHOWN = [claim for claim in CLAIMS if claim["status"] == "shown"]
NAMES = {f"{n:02d}" for n in range(19)}


def finished(chapter: str) -> bool:
    """Whether a chapter is written."""
    return (ROOT / "notebooks" / f"{chapter}.ipynb").is_file()


@cache
def headings(chapter: str) -> set[str]:
    """The headings of a chapter."""
    text = (ROOT / "notebooks" / f"{chapter}.ipynb").read_text("utf-8")
    lines = "\n".join(
        "".join(cell["source"]) for cell in json.loads(text)["cells"]
        if cell["cell_type"] == "markdown").splitlines()
    return {line.lstrip("# ") for line in lines if line.startswith("#")}


@cache
def functions_of(name: str) -> set[str]:
    """The test functions of a file."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")}


def test_every_row_is_complete_and_every_id_its_own() -> None:
    assert list(CLAIMS[0]) == COLUMNS
    ids = [claim["id"] for claim in CLAIMS]
    assert len(set(ids)) == len(ids) > 200
    for claim in CLAIMS:
        assert None not in claim, f"{claim['id']}: a comma too many"
        assert claim["section"] and claim["claim"], claim["id"]
        assert claim["chapter"][:2] in NAMES, claim["id"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_no_claim_of_a_finished_chapter_is_open(claim: dict) -> None:
    expected = ("why_not" if claim["why_not"] else
                "shown" if claim["heading"] and claim["test"] else "planned")
    assert claim["status"] == expected
    if finished(claim["chapter"]):
        assert claim["status"] != "planned"
    if claim["section"].startswith(("2.2", "2.3")):
        assert claim["status"] != "planned" or claim["chapter"] > "11"


@pytest.mark.parametrize("claim", SHOWN, ids=lambda claim: claim["id"])
def test_what_shows_a_claim_exists(claim: dict) -> None:
    assert claim["heading"] in headings(claim["chapter"])
    name, _, function = claim["test"].partition("::")
    assert function in functions_of(name)
