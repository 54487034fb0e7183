"""Benchmarks' files in the formats in which their authors give them out.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from minillama.evals.protocol import Item, Loader, Wording

Row = dict[str, Any]


def find(place: Path, *names: str) -> Path:
    """The first of these files, in a folder or anywhere below it.

    So an archive may be unpacked as it is.

    Raises:
        ValueError: saying where the file was looked for.

    Chapter: notebooks/14_evaluation.ipynb
    """
    for name in names:
        if (place / name).exists():
            return place / name
        if found := sorted(place.rglob(name)):
            return found[0]
    raise ValueError(
        f"{' or '.join(names)} is not in {place}; put the benchmark's files "
        "there under their original names (book/evaluation_protocol.md)")


def json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    """`file:line` and object of each line that is not empty.

    Raises:
        ValueError: naming the line that is not a JSON object.

    Chapter: notebooks/14_evaluation.ipynb
    """
    text = path.read_text(encoding="utf-8-sig")
    for n, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as e:
            raise ValueError(f"{path}:{n} is not JSON: {e}") from e
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{n} is not a JSON object")
        yield f"{path}:{n}", row


def made(where: str, make: Callable[[], Item]) -> Item:
    """An item, or an error that says where its row stands.

    Raises:
        ValueError: if a field is missing or the label is out of range.

    Chapter: notebooks/14_evaluation.ipynb
    """
    try:
        item = make()
        kinds = {*map(type, (item.prompt, *item.choices, *item.answers))}
        if kinds != {str} or not all(map(str.strip, item.choices)):
            raise ValueError("a text is missing, or a choice is empty")
    except (AttributeError, LookupError, TypeError, ValueError) as e:
        raise ValueError(
            f"{where}: {type(e).__name__} {e}; the row is not in the "
            "benchmark's original format") from e
    if item.gold is not None and not 0 <= item.gold < len(item.choices):
        raise ValueError(
            f"{where}: the label {item.gold} is out of range, there are "
            f"{len(item.choices)} choices")
    return replace(item, id=item.id or where.rsplit(":", 1)[-1])


def lines_loader(
    make: Callable[[Row, Wording], Item],
    files: dict[str, tuple[str, ...]],
    labels: dict[str, tuple[str, ...]] | None = None,
) -> Loader:
    """A loader of JSON lines, with the labels in a file of their own or not.

    Args:
        make: a row and a wording to an item.
        files: split to the names under which its file goes.
        labels: likewise; line n becomes the field `label` of row n, unless
            the rows have it already.

    Chapter: notebooks/14_evaluation.ipynb
    """
    def load(place: Path, split: str, wording: Wording) -> list[Item]:
        rows = list(json_lines(find(place, *files[split])))
        if labels and rows and "label" not in rows[0][1]:
            path = find(place, *labels[split])
            marks = path.read_text(encoding="utf-8-sig").split()
            if len(marks) != len(rows):
                raise ValueError(f"{path} has {len(marks)} labels for "
                                 f"{len(rows)} rows")
            rows = [(where, {**row, "label": mark})
                    for (where, row), mark in zip(rows, marks)]
        return [made(where, lambda row=row: make(row, wording))
                for where, row in rows]
    return load
