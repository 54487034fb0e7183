"""The prose pages keep up with the code and with the chapters.

Checked against the sources themselves: error messages against the string
literals of the package, the API page against the modules and the names that
Python's own parser finds in them, the references against every arXiv address
in chapters and docstrings, commands against the parsers that read them.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minillama import cli
from tools.shell import ROOT

BOOK = ROOT / "book"
SOURCES = [*sorted((ROOT / "minillama").rglob("*.py")), ROOT / "run.py",
           *sorted((ROOT / "tools").glob("*.py"))]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Messages of pip, PyTorch and the like stand under these headings too.
OURS = ("Getting the text", "Training", "Generating")
FOREIGN = ("torch.OutOfMemoryError", "Killed", "loss nan")
# Rooms that only the authors or the chapters use.
NOT_PUBLIC = {"__init__", "__main__", "cli", "show", "samples", "ablations"}


def page(name: str) -> str:
    """The text of a page."""
    return (BOOK / name).read_text(encoding="utf-8")


def literals() -> str:
    """All string literals of the sources; a hole in one is three dots."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(
                    str(part.value) if isinstance(part, ast.Constant)
                    else "..." for part in node.values))
    return "\n".join(" ".join(text.split()) for text in found)


def quoted_messages() -> Iterator[str]:
    """The messages in the headings of the trouble page that are ours."""
    for section in page("troubles.md").split("\n## ")[1:]:
        if section.startswith(OURS):
            for term in re.findall(r"^(.*)\n: ", section, re.MULTILINE):
                for message in re.findall(r"`([^`]+)`", term):
                    if not message.startswith(FOREIGN):
                        yield message


@pytest.mark.parametrize("message", list(quoted_messages()))
def test_an_error_message_on_the_page_is_in_the_code(message: str) -> None:
    text = literals()
    for part in message.split("..."):
        assert part.strip(" '\"()=") in text, f"{message!r} is no message now"


def test_there_are_messages_on_the_page() -> None:
    assert len(list(quoted_messages())) > 15


def public_names(module: str) -> list[str]:
    """Documented classes and functions of a module without underscore."""
    path = ROOT / (module.replace(".", "/") + ".py")
    if not path.is_file():
        path = path.with_suffix("") / "__init__.py"
    return [node.name for node in ast.parse(
                path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
            and not node.name.startswith("_") and ast.get_docstring(node)]


def test_the_api_page_has_every_room() -> None:
    rooms = {path.stem for path in (ROOT / "minillama").glob("*.py")}
    named = set(re.findall(r"\{reference\} minillama\.(\w+)",
                           page("api.md")))
    assert rooms - NOT_PUBLIC <= named


@pytest.mark.html
def test_the_built_api_page_shows_every_name() -> None:
    built = ROOT / "_build" / "html" / "book" / "api.html"
    if not built.is_file():
        pytest.skip("the book is not built; `python run.py book` does it")
    html = built.read_text(encoding="utf-8")
    blocks = re.findall(r"```\{reference\} (\S+)\n(:only: (.*)\n)?",
                        page("api.md"))
    assert len(blocks) > 12
    for module, _, only in blocks:
        names = only.split(", ") if only else public_names(module)
        for name in names:
            assert f'id="{module}.{name}"' in html, f"{module}.{name}"
    # Shapes stand in the signatures, and the chapters are linked.
    assert "B T D" in html
    assert "Traceback" not in html


def test_the_references_hold_every_work_cited() -> None:
    known = set(re.findall(r"arxiv\.org/abs/([\d.]+\d)",
                           page("references.bib")))
    assert len(known) > 20
    cited = {}
    for path in [*CHAPTERS, *SOURCES]:
        text = path.read_text(encoding="utf-8")
        for number in re.findall(r"arxiv\.org/\w+/(\d{4}\.\d{4,5})", text):
            cited.setdefault(number, path.name)
    missing = {n: where for n, where in cited.items() if n not in known}
    assert not missing, f"cited but not in references.bib: {missing}"


def test_every_reference_is_closed_and_its_key_its_own() -> None:
    """A brace that is lost when texts are merged stops the whole book."""
    entries = re.split(r"^(?=@)", page("references.bib"), flags=re.MULTILINE)
    for entry in entries:
        assert entry.count("{") == entry.count("}"), entry.splitlines()[0]
    keys = re.findall(r"^@\w+\{([^,]+),", page("references.bib"),
                      re.MULTILINE)
    assert len(set(keys)) == len(keys) == len(entries) - 1


def test_a_table_has_a_head() -> None:
    for path in sorted(BOOK.glob("*.md")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for before, line in zip(lines, lines[1:]):
            if re.fullmatch(r"\|[-|: ]*-[-|: ]*\|", line):
                assert before.startswith("|"), f"{path.name}: {before!r}"


def test_the_map_leads_somewhere() -> None:
    text, seen = page("paper_map.md"), set()
    for line in text.splitlines():
        if not line.startswith("| ") or "`" not in line:
            continue
        for name in re.findall(r"`([\w/.]+)`", line):
            folder = ("tests" if name.startswith("test_") else "minillama"
                      if name.endswith(".py") else "notebooks")
            suffix = "" if name.endswith(".py") else ".ipynb"
            # Elsewhere a table may speak of other files.
            if folder == "notebooks" and not re.match(r"\d\d_", name):
                continue
            seen.add(name)
            if folder == "tests" and not (ROOT / "tests/mutants").is_dir():
                continue  # the student edition has fewer tests
            path = ROOT / folder / (name + suffix)
            assert path.is_file(), f"paper_map.md: no {path.name}"
    rooms = {path.name for path in (ROOT / "minillama").glob("*.py")}
    assert rooms - seen <= {"__init__.py", "__main__.py"}
    assert {path.stem for path in CHAPTERS} <= seen


def commands() -> Iterator[list[str]]:
    """The `minillama` and `run.py` flags that pages tell readers to type."""
    for path in sorted(BOOK.glob("*.md")):
        for code in re.findall(r"`([^`]+)`", path.read_text("utf-8")):
            for line in code.splitlines():
                words = shlex.split(line, posix=True) if (
                    re.match(r"--\w|minillama \w", line.strip())) else []
                if words:
                    yield words


def test_flags_on_the_pages_exist(capsys: pytest.CaptureFixture) -> None:
    known = set()
    actions = {"data": ("build", "judges", "stats", "fetch", "prepare"),
               "tokenizer": ("train", "encode")}
    asked = [[verb, action] for verb in cli.VERBS
             for action in actions.get(verb, (verb,))]
    for verb, action in asked:
        with pytest.raises(SystemExit):
            cli.parse([*dict.fromkeys((verb, action)), "--help"])
        known |= set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    typed = {word for words in commands() for word in words
             if word.startswith("--")}
    assert len(typed) > 8
    others = {"--plan", "--no-train", "--mine",  # run.py's
              "--nproc-per-node", "--nnodes", "--max-restarts",  # torchrun's
              "--rdzv-backend", "--rdzv-endpoint", "--rdzv-conf",
              "--master-addr", "--master-port", "--node-rank", "--standalone"}
    assert typed - known - others == set()


def measured() -> Any:
    """The module behind the `{measured}` directive."""
    spec = importlib.util.spec_from_file_location(
        "measured", BOOK / "_ext" / "measured.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_of_results_is_what_the_file_says(tmp_path: Path) -> None:
    m = measured()
    (tmp_path / "a.jsonl").write_text(
        '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n',
        encoding="utf-8")
    values = m.read(tmp_path / "a.jsonl")
    (_, last), = m.rows(m.at(values, "-1"))
    assert m.cell("", last, "step", None, None) == "2"
    assert m.cell("", last, "loss", None, ".1f") == m.NOTHING
    arms = {"arms": {"a": {"s": 90.0}, "b": {"s": 30.0}}}
    found = [(m.cell(key, row, "*", None, None),
              m.cell(key, row, "s", "60", ".1f"))
             for key, row in m.rows(m.at(arms, "arms"))]
    assert found == [("a", "1.5"), ("b", "0.5")]
    with pytest.raises(KeyError):
        m.at(arms, "armies")
    run = {"machine": {"gpu": None, "processor": "Z80", "threads": 1,
                       "torch": "2.6"}}
    assert m.machine({"runs": [run]}) == "Z80, 1 threads, PyTorch 2.6"
    assert m.COLUMN.fullmatch(" Minutes = seconds /60 .1f").groups() == (
        "Minutes", "seconds", "60", ".1f")


def test_no_figure_is_typed_on_the_page_of_results() -> None:
    prose = re.sub(r"```.*?```", "", page("results.md"), flags=re.DOTALL)
    assert not re.findall(r"\d\.\d\d|\d ?(?:%|x|ms|minutes?)\b",
                          prose.replace("95 %", ""))


def test_the_syllabus_names_every_chapter() -> None:
    text = page("teaching.md")
    missing = [path.stem for path in CHAPTERS if path.stem not in text]
    assert not missing
    assert json.dumps(CHAPTERS[0].stem)  # there is at least one chapter
