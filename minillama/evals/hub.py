"""Benchmarks from the Hugging Face hub, put back into their authors' files.

The hub's copies have other columns than the originals. Each is turned back
into the original file, so that one loader reads both, and a folder that was
filled once is read without a network. What is fetched is the Parquet copy
that the hub keeps of every dataset (`refs/convert/parquet`): many of these
datasets are scripts, which `datasets` no longer runs.

Where each copy lies and what its columns become stands in `samples/hub.json`,
with the source of the columns. WinoGender is not there: the hub's copy lacks
the table of occupations, without which no gotcha is known.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from functools import reduce
from pathlib import Path
from typing import Any

from minillama.evals.originals import Row
from minillama.evals.protocol import Task
from minillama.files import needs, replace_bytes
from minillama.samples import FOLDER


def fetch(
    task: Task, data: Path, shots: int, root: str = "hf://datasets"
) -> None:
    """Write what DATA lacks of a benchmark into DATA/task/hub-SPLIT.

    Args:
        task: the benchmark.
        data: DATA.
        shots: examples before each item; their split is fetched too.
        root: the hub, or a folder laid out like it.

    Raises:
        ValueError: if the hub has no whole copy or cannot be reached, or
            `datasets` is not installed.

    Chapter: notebooks/14_evaluation.ipynb
    """
    name = task.folder or task.name
    place = Path(data) / name
    copy = json.loads((FOLDER / "hub.json").read_text("utf-8")).get(name)
    for split in (task.split, task.shots_split)[:1 + bool(shots)]:
        file = copy and copy["files"].get(split)
        if not file:
            raise ValueError(f"the hub has no whole copy of {name}; put its "
                             f"authors' files into {place}")
        if any(place.rglob(file.split("{")[0].rstrip("/") + "*")):
            continue
        files: dict[str, list[Any]] = {}
        for n, row in enumerate(_rows(copy, split, root)):
            record = _record(copy, row)
            files.setdefault(file.format(n=n, **row), []).append(record)
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data) as half:
            for target, records in files.items():
                replace_bytes(Path(half, split, target),
                              _text(target, records, "{" in file).encode())
            Path(half, split).rename(place / f"hub-{split}")


def _rows(copy: Row, split: str, root: str) -> Any:
    """The rows of the hub's Parquet copy."""
    with needs('--hub needs `pip install "minillama[eval]"`'):
        import datasets
    place = f"{root}/{copy['path']}@refs/convert/parquet"
    theirs = copy.get("splits", {}).get(split, split)
    try:
        return datasets.load_dataset("parquet", split="train", data_files=[
            f"{place}/{copy.get('part', '*')}/{name}/*.parquet"
            for name in theirs.split("+")])
    except Exception as error:  # each layer below has errors of its own
        raise ValueError(
            f"the hub's copy {copy['path']} cannot be read ({error}); put "
            "the authors' files into DATA and leave out --hub") from error


def _record(copy: Row, row: Row) -> Any:
    """A row of the hub in the original's columns."""
    def take(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: take(part) for name, part in shape.items()}
        if isinstance(shape, list):
            return [take(part) for part in shape]
        value = reduce(lambda value, key: value[
            int(key) if isinstance(value, list) else key],
            shape.split("."), row)
        if isinstance(value, dict):  # a list of objects, column by column
            value = [dict(zip(value, cells)) for cells in zip(*value.values())]
        return value

    record = take(copy["columns"]) if "columns" in copy else dict(row)
    for column, names in copy.get("names", {}).items():
        record[column] = names[record[column]]
    return record


def _text(file: str, rows: list[Any], many: bool) -> str:
    """The rows of one file; `many` if its split has several."""
    if file.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows)
    if file.endswith(".csv"):
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if isinstance(rows[0], dict):  # MMLU's have no header
            writer.writerow(rows[0])
        writer.writerows([
            "; ".join(cell) if isinstance(cell, list) else cell for cell in (
                row.values() if isinstance(row, dict) else row)]
            for row in rows)
        return text.getvalue()
    if file.endswith(".txt"):  # an article of RACE with its questions
        return json.dumps(rows[0] | {
            name: [row[name] for row in rows]
            for name in ("questions", "options", "answers")})
    return json.dumps(rows[0] if many else {"Data": rows})
