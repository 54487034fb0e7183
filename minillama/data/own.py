"""The reader's own text as an eighth source: txt, md, jsonl or parquet.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minillama.data.dedup import text_key
from minillama.data.document import Document, Ledger

SOURCE = "own"
MAX_LINE = 32 * 2**20
"""Longer lines of a jsonl file are dropped."""
_PIECE = 2**20
_TEXT = (".txt", ".text", ".md")
_JSON = (".jsonl", ".jsonl.gz")


def inputs(path: Path) -> list[Path]:
    """The file, or all files of a folder that can be read, by name."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file()
                  and file.name.lower().endswith(
                      (*_TEXT, *_JSON, ".parquet")))


def read(path: Path, ledger: Ledger) -> Iterator[Document]:
    """Stream the documents of one file.

    A text file is one document, or one a mebibyte, cut between lines. Each
    line of a jsonl file is an object with `text`, each row of a parquet file
    has a column `text`; `id` is taken if it is there, all else is metadata.

    Args:
        path: a file.
        ledger: counts documents kept, and what was dropped.

    Chapter: notebooks/03_mixture.ipynb
    """
    name = path.name.lower()
    records = (_parquet(path) if name.endswith(".parquet")
               else _jsonl(path, ledger) if name.endswith(_JSON)
               else _pieces(path))
    for record in records:
        text = record.pop("text", None)
        if not isinstance(text, str) or not text.strip():
            ledger.drop("no text")
            continue
        known = record.pop("id", None)
        yield ledger.keep(Document(
            SOURCE, text_key(text) if known is None else str(known), text,
            record))


def _pieces(path: Path) -> Iterator[dict[str, Any]]:
    """A text file, cut behind a line end near each mebibyte."""
    rest = ""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while piece := file.read(_PIECE):
            text = rest + piece
            cut = text.rfind("\n") + 1 or len(text)
            if len(piece) < _PIECE or len(text) < _PIECE:
                cut = 0
            if cut:
                yield {"text": text[:cut], "file": path.name}
            rest = text[cut:]
    if rest:
        yield {"text": rest, "file": path.name}


def _jsonl(path: Path, ledger: Ledger) -> Iterator[dict[str, Any]]:
    """The objects of a file, line by line; other lines are dropped."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        while line := file.readline(MAX_LINE):
            if not line.endswith(b"\n") and len(line) == MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE)
                ledger.drop("line too long")
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                yield record
            elif line.strip():
                ledger.drop("not a JSON object")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, a thousand at a time.

    Raises:
        ValueError: if pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise ValueError(
            "reading parquet files needs pyarrow; try "
            "`pip install \"minillama[data]\"`") from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches(1000):
            for record in batch.to_pylist():
                yield {key: value if isinstance(
                    value, (str, int, float, bool, type(None)))
                    else str(value) for key, value in record.items()}
    except ArrowInvalid as error:
        raise OSError(f"{path.name}: {error}") from error
