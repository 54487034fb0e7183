"""The reader's own text as an eighth source: txt, md, jsonl or parquet.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minillama.data import archives
from minillama.data.dedup import text_key
from minillama.data.document import Document, Ledger
from minillama.files import DATA, needs

SOURCE = "own"
MAX_LINE = 16 * 2**20
"""A longer line of a jsonl file is no JSON."""
_PIECE = 2**20
_TEXT = (".txt", ".text", ".md")
_JSON = (".jsonl", ".jsonl.gz")


def inputs(path: Path) -> list[Path]:
    """The file, or all files of a folder that can be read, by name."""
    return archives.files(path, *_TEXT, *_JSON, ".parquet", hidden=True)


def read(path: Path, ledger: Ledger) -> Iterator[Document]:
    """Stream the documents of one file.

    A text file is one document, or one each 2^20 characters, cut after the
    line, or in it if it is as long again. Each line of a jsonl file is an
    object with `text`, each row of a parquet file has a column `text`; `id`
    is taken if it is there, all else is metadata.

    Args:
        path: a file.
        ledger: counts documents kept, and what was dropped.

    Chapter: notebooks/03_mixture.ipynb
    """
    name = path.name.lower()
    for record in (_parquet(path) if name.endswith(".parquet") else
                   _jsonl(path) if name.endswith(_JSON) else _pieces(path)):
        text = record and record.pop("text", None)
        if not isinstance(text, str) or not text.strip():
            ledger.drop("no text" if record is not None else
                        "not a JSON object")
            continue
        known = record.pop("id", None)
        if not isinstance(known, str | int | float):
            known = text_key(text)
        yield ledger.keep(Document(SOURCE, str(known), text, record))


def _pieces(path: Path) -> Iterator[dict[str, Any]]:
    """A text file; no more than 2^21 characters are held."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while text := file.read(_PIECE):
            yield {"text": text + file.readline(_PIECE), "file": path.name}


def _jsonl(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects of a file, line by line; None for any other line."""
    for line in archives.lines(path, MAX_LINE):
        try:
            record = json.loads(line or b"")
        except (ValueError, RecursionError):
            record = None
        if line is None or line.strip():
            yield record if isinstance(record, dict) else None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, ten at a time.

    Raises:
        ValueError: if pyarrow is not installed.
    """
    with needs(f"reading parquet files needs pyarrow; {DATA}"):
        from pyarrow import parquet
    for batch in parquet.ParquetFile(path).iter_batches(10):
        yield from batch.to_pylist()
