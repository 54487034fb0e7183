"""Books: Project Gutenberg's, without what its volunteers put around them.

Any folder of plain-text books will do; where there is no Gutenberg header
nothing is stripped. Books that overlap by more than 90 % are found later,
when all are at hand.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from minillama.data import archives
from minillama.data.archives import Refused
from minillama.data.document import Document, Ledger

SIZE_LIMIT = 20_000_000
"""Bytes of one book; the Bible has four million, the longest novels ten."""

_START = re.compile(
    r"^(?:\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG"
    r"(?:[^*\n]*\n){0,2}?[^*\n]*\*\*\*|\*END[* ]*THE SMALL PRINT!.*)[^\S\n]*$",
    re.MULTILINE | re.IGNORECASE)
_END = re.compile(
    r"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|End of (?:the |this )?Project Gutenberg)",
    re.MULTILINE | re.IGNORECASE)
# Notes on the making of the file, in the first paragraphs of a book.
_MAKERS = re.compile(
    r"project gutenberg|^produced by|^e-?text prepared by|gutenberg\.org"
    r"|distributed proofread|^transcriber.s notes?\b|^\[?this file was",
    re.IGNORECASE)
_CHARSET = re.compile(rb"set encoding:\s*([\w-]+)", re.IGNORECASE)


def inputs(path: Path) -> list[Path]:
    """The plain-text books below a folder, sorted.

    Chapter: notebooks/02_curated_data.ipynb
    """
    return archives.files(path, ".txt", ".txt.gz", ".txt.bz2")


def read(path: Path, ledger: Ledger) -> Iterator[Document]:
    """One file as one book.

    Chapter: notebooks/02_curated_data.ipynb
    """
    try:
        with open(path, "rb") as file:
            text, cut = strip(decode(
                archives.unpacked(file).read(SIZE_LIMIT + 1)))
        if not text:
            raise Refused("empty")
    except Refused as reason:
        ledger.drop(str(reason))
    except archives.BROKEN:
        ledger.drop("broken archive")
    else:
        ledger.lines += Counter({"Gutenberg header and licence": cut})
        # Two editions may share a name; the content tells them apart.
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        name = f"{path.name.split('.')[0]}-{digest[:8]}"
        yield ledger.keep(Document("books", name, text))


def decode(data: bytes) -> str:
    """UTF-8, or the encoding that a Gutenberg header names.

    Raises:
        Refused: if it is neither, or no text, or too much of it.
    """
    if len(data) > SIZE_LIMIT:
        raise Refused("too large")
    if b"\0" in data:
        raise Refused("not UTF-8 text")
    named = _CHARSET.search(data[:5000])
    for encoding in ("utf-8-sig", named[1].decode() if named else "utf-8"):
        try:
            return data.decode(encoding).replace("\r\n", "\n")
        except (UnicodeError, LookupError):
            continue
    raise Refused("not UTF-8 text")


def strip(text: str) -> tuple[str, int]:
    """A book without header, licence and makers' notes.

    Returns:
        The text, and how many lines went.

    Chapter: notebooks/02_curated_data.ipynb
    """
    start = _START.search(text)
    if start is None:
        return text.strip(), 0
    end = _END.search(text, start.end())
    book = text[start.end():end.start() if end else len(text)].strip()
    parts = re.split(r"(\n\s*\n)", book, maxsplit=6)
    while len(parts) > 2 and _MAKERS.search(parts[0]):
        del parts[:2]
    book = "".join(parts).strip()
    return book, text.strip().count("\n") - book.count("\n")
