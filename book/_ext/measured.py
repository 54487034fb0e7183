"""The directive `{measured}`: a table made from a committed result file.

No figure on a page of results is typed by hand: it is read from the file that
a benchmark wrote, when the book is built.

    ```{measured} benchmarks/results/speed.json
    :command: python -m benchmarks.speed
    :at: summary.arms
    :columns: Arm = *; Bits per byte = mean .3f; Minutes = seconds /60 .1f
    ```

A name with a star stands for all files that fit, one a machine; each of their
tables says on which it was made. `at` leads to a list of rows, to a dictionary
of rows (`*` is a row's key), or to one row; whole numbers in it count list
items, -1 is the last. A column is its heading, the path of its value in the
row, and optionally a divisor and a format. A file that is not there yet leaves
the command and no table; a path that is not in the file is a warning, which
the build turns into an error.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

COLUMN = re.compile(r"\s*(.+?)\s*=\s*(\S+)(?:\s+/([\d.e]+))?(?:\s+(\S+))?\s*")
NOTHING = "\u2013"


class Measured(SphinxDirective):
    """One table."""

    required_arguments = 1
    option_spec = {"command": directives.unchanged_required,
                   "at": directives.unchanged,
                   "columns": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """For each file the command that wrote it, and the table."""
        name, root = self.arguments[0], Path(self.env.srcdir)
        self.env.note_dependency(str(root / name))
        result: list[nodes.Node] = []
        for path in sorted(root.glob(name)):
            found = path.relative_to(root).as_posix()
            source = nodes.paragraph("", "", *self.command())
            source += [nodes.Text(" wrote "), nodes.literal("", found)]
            try:
                values = read(path)
                if "*" in name:
                    source += nodes.Text(f" on {machine(values)}")
                table = self.table(values)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                return [self.state.document.reporter.warning(
                    f"measured: {found} has no {error}", line=self.lineno)]
            source += nodes.Text(":")
            result += [source, table]
        return result or [nodes.paragraph("", "", *self.command(), nodes.Text(
            " has not been run for this edition."))]

    def command(self) -> list[nodes.Node]:
        """The command in code letters."""
        return [nodes.literal("", self.options["command"])]

    def table(self, values: Any) -> nodes.table:
        """Rows and columns as the options say."""
        columns = []
        for text in self.options["columns"].split(";"):
            match = COLUMN.fullmatch(text)
            if match is None:
                raise ValueError(f"column {text!r}")
            columns.append(match.groups())
        body = [[cell(key, row, *spec) for _, *spec in columns]
                for key, row in rows(at(values, self.options.get("at", "")))]
        group = nodes.tgroup(cols=len(columns))
        group += [nodes.colspec(colwidth=1) for _ in columns]
        group += nodes.thead("", line([c[0] for c in columns]))
        group += nodes.tbody("", *map(line, body))
        return nodes.table("", group, classes=["table"])


def read(path: Path) -> Any:
    """JSON, or a list of it where the file has one value a line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(row) for row in text.splitlines()]
    return json.loads(text)


def at(values: Any, path: str) -> Any:
    """Follow a path such as `summary.arms.0` into a value."""
    for name in filter(None, path.split(".")):
        values = values[int(name) if isinstance(values, list) else name]
    return values


def machine(values: Any) -> str:
    """The machine of the last run in a file of `benchmarks.harness`."""
    of = values["runs"][-1]["machine"]
    where = of["gpu"] or f"{of['processor']}, {of['threads']} threads"
    return f"{where}, PyTorch {of['torch']}"


def rows(values: Any) -> list[tuple[str, Any]]:
    """Each row with its key; a dictionary of plain values is one row."""
    if isinstance(values, list):
        return [(str(number), row) for number, row in enumerate(values, 1)]
    if all(isinstance(row, dict) for row in values.values()):
        return list(values.items())
    return [("", values)]


def cell(key: str, row: Any, path: str, divisor: str | None,
         style: str | None) -> str:
    """One value as text."""
    value = key if path == "*" else at(row, path)
    if value is None:
        return NOTHING
    if divisor:
        value /= float(divisor)
    return format(value, style or "")


def line(texts: list[str]) -> nodes.row:
    """A row of the table."""
    return nodes.row("", *(
        nodes.entry("", nodes.paragraph(text, text)) for text in texts))


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx about the directive."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
