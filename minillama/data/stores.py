"""What lies on the disk between the steps of a build.

Every file is written whole: beside its place first, then moved there. What a
step writes depends on its input alone, so doing it again changes nothing.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from minillama.data.document import Document


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        yield file
    os.replace(partial, path)


def storing(path: Path, documents: Iterable[Document]) -> Iterator[Document]:
    """Hand documents on, and write them to a .jsonl.gz on the way.

    The bytes depend on the documents alone: gzip's header gets no time.
    """
    with whole(path) as file, gzip.GzipFile(
            "", "wb", compresslevel=3, fileobj=file, mtime=0) as packed:
        for document in documents:
            line = json.dumps(
                {name: getattr(document, name) for name in Document.__slots__},
                ensure_ascii=False, sort_keys=True, default=str)
            packed.write(line.encode("utf-8", "replace") + b"\n")
            yield document


def stored(path: Path) -> Iterator[Document]:
    """The documents of a .jsonl.gz, in their order."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield Document(**json.loads(line))


def spread(folder: Path, part: int, lines: dict[str, list[str]]) -> None:
    """Give each unit the lines that a part has for it."""
    for unit, those in lines.items():
        with whole(folder / unit / f"{part:04d}") as file:
            file.write("".join(those).encode())


def lines(folder: Path) -> Iterator[list[str]]:
    """The fields of all lines in the files of a folder, by file name."""
    for path in sorted(folder.glob("*")):
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\n").split("\t")
