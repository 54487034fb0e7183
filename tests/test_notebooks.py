"""Every chapter: executed, quiet, in the one form, readable, documented.

Checked against the rules of the book, read from the committed files; that the
stored outputs are true is checked elsewhere, by executing the chapters. Each
rule here is a function from cells to complaints, tried on a bad notebook too.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from minillama.show import setup_cell
from tools.shell import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEADINGS = [
    "The question", "The idea in one picture", "The mathematics", "By hand",
    "The real one", "They agree", "See it",
    "What it costs, and where people slip", "Takeaway", "Exercises",
    "Questions to remember", "Next",
]
# Nothing that differs from machine to machine, or that nbval trips over.
VOLATILE = re.compile(
    r"0x[0-9a-f]{6,}|<Figure size|it/s\]|\d+%\|| at \d\d:\d\d|/home/|/Users/")
Cells = list[dict]


def source(cell: dict) -> str:
    """A cell's text."""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def tags(cell: dict) -> list[str]:
    """A cell's tags."""
    return cell["metadata"].get("tags", [])


def code(cells: Cells) -> Cells:
    """The code cells that hold code."""
    return [cell for cell in cells
            if cell["cell_type"] == "code" and source(cell).strip()]


def executed_in_order(cells: Cells) -> list[str]:
    """nbval compares nothing in a cell without count and outputs."""
    counts = [cell["execution_count"] for cell in code(cells)]
    wanted = list(range(1, len(counts) + 1))
    return [] if counts == wanted else [f"execution counts are {counts}"]


def quiet(cells: Cells) -> list[str]:
    """No error, nothing on stderr, nothing that varies, one print."""
    wrong = []
    for cell in code(cells):
        for output in cell["outputs"]:
            text = "".join(output.get("text", "")) + "".join(
                output.get("data", {}).get("text/plain", ""))
            if output["output_type"] == "error":
                wrong.append(f"an error below {source(cell)[:40]!r}")
            elif output.get("name") == "stderr":
                wrong.append(f"stderr: {text[:60]!r}")
            elif "nbval-ignore-output" not in tags(cell) and (
                    found := VOLATILE.search(text)):
                wrong.append(f"{found.group(0)!r} differs between machines")
            if "image/svg+xml" in output.get("data", {}):
                wrong.append("an SVG, which nbval compares; use PNG")
        streams = [o for o in cell["outputs"]
                   if o["output_type"] == "stream"]
        if len(streams) > 1:
            wrong.append(f"{len(streams)} streams in one cell")
    return wrong


def compared(cells: Cells) -> list[str]:
    """At most a quarter of the code cells hide from the comparison."""
    ignored = [cell for cell in code(cells)
               if "nbval-ignore-output" in tags(cell)
               or "NBVAL_IGNORE_OUTPUT" in source(cell)]
    skipped = [cell for cell in code(cells)
               if {"nbval-skip", "raises-exception"} & set(tags(cell))
               or "NBVAL_SKIP" in source(cell)]
    wrong = []
    if 4 * len(ignored) > len(code(cells)):
        wrong.append(f"{len(ignored)} of {len(code(cells))} cells ignored")
    if skipped:
        wrong.append(f"{len(skipped)} cells are skipped")
    return wrong


def headings(cells: Cells) -> list[str]:
    """The same twelve, in the same order, below one title."""
    lines = [line for cell in cells if cell["cell_type"] == "markdown"
             for line in _outside_fences(source(cell))]
    titles = [line for line in lines if re.match(r"# ", line)]
    found = [line[3:].strip() for line in lines if line.startswith("## ")]
    wrong = []
    if len(titles) != 1 or not re.fullmatch(r"# \d+\. \S.*", titles[0]):
        wrong.append(f"one title `# N. Title` is wanted, not {titles}")
    if found != HEADINGS:
        wrong.append(f"headings are {found}")
    return wrong


def _outside_fences(text: str) -> list[str]:
    """The lines of a Markdown text that are not inside a fence."""
    inside, lines = False, []
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            lines.append(line)
    return lines


def setup_first(cells: Cells) -> list[str]:
    """The first code cell installs this edition, as `show` writes it."""
    first = source(code(cells)[0])
    title = re.match(r"# (\d+)", source(cells[0]))
    chapter = next((path.stem for path in CHAPTERS if title
                    and int(path.stem[:2]) == int(title[1])), "")
    return ([] if first == setup_cell(chapter).strip()
            else [f"the first cell is {first[:60]!r}"])


def small_cells(cells: Cells) -> list[str]:
    """At most 25 lines of 76 columns."""
    wrong = []
    for cell in code(cells):
        lines = source(cell).splitlines()
        if len(lines) > 25:
            wrong.append(f"a cell of {len(lines)} lines: {lines[0]!r}")
        wrong += [f"{len(line)} columns: {line!r}"
                  for line in lines if len(line) > 76
                  and "%pip install" not in line]  # as `show` writes it
    return wrong


def rhythm(cells: Cells) -> list[str]:
    """A sentence between code cells, never three text cells in a row.

    A solution's folded text counts with its folded code.
    """
    kinds = [cell["cell_type"] for cell in cells
             if "solution" not in tags(cell)]
    kinds = [kind for kind in kinds if kind != "raw"]
    wrong = [f"two code cells at {i}" for i in range(len(kinds) - 1)
             if kinds[i] == kinds[i + 1] == "code"]
    if "markdown markdown markdown" in " ".join(kinds):
        wrong.append("three text cells in a row")
    return wrong


def solutions_folded(cells: Cells) -> list[str]:
    """A solution folds, in the book and in Colab, and its code says so."""
    wrong = []
    for cell in cells:
        if "solution" not in tags(cell):
            continue
        if cell["cell_type"] == "markdown" and not re.fullmatch(
                r"<details>.*</details>", source(cell).strip(), re.DOTALL):
            wrong.append("a solution's text outside <details>")
        if cell["cell_type"] == "code":
            if not source(cell).startswith("#@title Solution"):
                wrong.append("a solution cell without `#@title Solution`")
            if "hide-cell" not in tags(cell):
                wrong.append("a solution cell without the tag hide-cell")
            if cell["metadata"].get("cellView") != "form":
                wrong.append("a solution cell without cellView form")
    return wrong


def pictures(cells: Cells) -> list[str]:
    """Each picture has alternative text and is small."""
    wrong = []
    for cell in code(cells):
        for output in cell["outputs"]:
            data = output.get("data", {})
            page = "".join(data.get("text/html", ""))
            wrong += [f"an image without alt: {image[:50]}" for image in
                      re.findall(r"<img[^>]*>", page) if 'alt="' not in image]
            if "image/png" not in data:
                continue
            alt = cell["metadata"].get("mystnb", {}).get("image", {})
            if len(alt.get("alt", "")) < 10:
                wrong.append(f"no alt text for {source(cell)[-60:]!r}")
            if len(base64.b64decode("".join(data["image/png"]))) > 120_000:
                wrong.append("a picture of more than 120 KB")
    return wrong


def imports_alone(cells: Cells) -> list[str]:
    """Only what Colab has: never tests, benchmarks or tools."""
    text = "\n".join(source(cell) for cell in code(cells))
    return [f"imports {name}" for name in re.findall(
        r"^\s*(?:from|import) (tests|benchmarks|tools|run)\b", text, re.M)]


def plain_text(cells: Cells) -> list[str]:
    """Directives and roles that GitHub and Colab would show as they are."""
    text = "\n".join(source(cell) for cell in cells
                     if cell["cell_type"] == "markdown")
    return [f"{found!r} shows raw on GitHub and in Colab"
            for found in re.findall(r"\{(?:cite|ref|doc|numref)[^}]*\}`", text)
            + re.findall(r"```\{\w+|:::+\{\w+", text)]


def metadata(cells: Cells) -> list[str]:
    """Nothing in a cell's metadata that changes from run to run."""
    kept = {"tags", "cellView", "mystnb", "alt"}
    return [f"metadata {sorted(set(cell['metadata']) - kept)}; run "
            "`python run.py notebooks`"
            for cell in cells if set(cell["metadata"]) - kept]


RULES = [executed_in_order, quiet, compared, headings, setup_first,
         small_cells, rhythm, solutions_folded, pictures, imports_alone,
         plain_text, metadata]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path: Path, rule):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert rule(cells) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_numbers_and_kernel(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title = source(notebook["cells"][0]).splitlines()[0]
    assert title.startswith(f"# {int(path.stem[:2])}. "), title
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert path.stat().st_size < 300_000


def cell(text: str, kind: str = "code", count: int | None = 1,
         outputs: list | None = None, **metadata) -> dict:
    """A cell for the tests of the rules."""
    made = {"cell_type": kind, "source": text, "metadata": metadata}
    if kind == "code":
        made |= {"execution_count": count, "outputs": outputs or []}
    return made


PNG = {"output_type": "display_data", "data": {"image/png": "aGVsbG8="}}
PRINT = {"output_type": "stream", "name": "stdout", "text": "a\n"}
BAD = [
    (executed_in_order, [cell("a", count=None)]),
    (executed_in_order, [cell("a", count=2), cell("b", count=1)]),
    (quiet, [cell("a", outputs=[{**PRINT, "name": "stderr"}])]),
    (quiet, [cell("a", outputs=[{"output_type": "error"}])]),
    (quiet, [cell("a", outputs=[{**PRINT, "text": "<f at 0x7f00aa11>"}])]),
    (quiet, [cell("a", outputs=[PRINT, PNG, PRINT])]),
    (compared, [cell("a", tags=["nbval-ignore-output"]), cell("b"),
                cell("c")]),
    (compared, [cell("a", tags=["nbval-skip"])] + [cell("b")] * 9),
    (headings, [cell("# 1. Title\n## By hand", "markdown")]),
    (headings, [cell("# Title\n" + "\n".join(
        f"## {h}" for h in HEADINGS), "markdown")]),
    (setup_first, [cell("import minillama")]),
    (small_cells, [cell("a\n" * 26)]),
    (small_cells, [cell("a" * 77)]),
    (rhythm, [cell("a"), cell("b")]),
    (rhythm, [cell("a", "markdown")] * 3),
    (solutions_folded, [cell("x = 1", tags=["solution", "hide-cell"],
                             cellView="form")]),
    (solutions_folded, [cell("#@title Solution", tags=["solution"])]),
    (solutions_folded, [cell("so", "markdown", tags=["solution"])]),
    (pictures, [cell("plot()", outputs=[PNG])]),
    (pictures, [cell("plot()", outputs=[
        {"output_type": "display_data", "data": {"text/html": "<img >"}}])]),
    (imports_alone, [cell("from tests import small")]),
    (plain_text, [cell("see {cite:t}`a`", "markdown")]),
    (plain_text, [cell("```{note}\nx\n```", "markdown")]),
    (metadata, [cell("a", execution={"start": 1})]),
]


@pytest.mark.parametrize("rule, cells", BAD,
                         ids=[rule.__name__ for rule, _ in BAD])
def test_each_rule_sees_a_bad_notebook(rule, cells):
    assert rule(cells) != []


def test_the_rules_accept_what_is_right():
    good = [cell("# 5. Title\n" + "\n".join(f"## {h}" for h in HEADINGS),
                 "markdown"),
            cell(setup_cell("").strip()), cell("text", "markdown"),
            cell("plot()", count=2, outputs=[PNG],
                 mystnb={"image": {"alt": "a long description"}})]
    assert [rule.__name__ for rule in RULES if rule(good)] == []
