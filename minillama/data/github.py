"""GitHub: source files of projects under the Apache, BSD and MIT licences.

A unit of work is a repository (any folder with files in it), an installed
Python package (its .dist-info folder names the files and the licence), or a
file of JSON lines exported from BigQuery's public data, each with repo_name,
path, content and license. The thresholds are RedPajama's; the paper gives
none.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from minillama.data import archives
from minillama.data.document import Document, Ledger

SIZE_LIMIT = 1_000_000
"""Bytes of a file; BigQuery holds the content of no larger one."""

SUFFIXES = frozenset(
    ".asm .bat .cmd .c .h .cs .cpp .hpp .c++ .h++ .cc .hh .cmake .css "
    ".dockerfile .f90 .f .f03 .f08 .f77 .f95 .for .fpp .go .hs .html .java "
    ".js .jl .lua .md .markdown .php .pl .pm .pod .perl .ps1 .psd1 .psm1 .py "
    ".rb .rs .sql .scala .sh .bash .command .zsh .ts .tsx .tex .vb .xml .rst "
    ".m .smali".split())
NAMES = frozenset({"Dockerfile", "Makefile"})
"""Files without a suffix that are code."""

_EXPORTS = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_LICENCE_FILE = re.compile(r"(un)?licen[cs]e|copying", re.IGNORECASE)
_DECLARED = re.compile(
    r"""^[ \t]*"?license"?\s*[:=]\s*(?:\{\s*text\s*=\s*)?["']([^"'\n]+)""",
    re.MULTILINE)
_ALLOWED = re.compile(
    r"(the |new |modified |[23]-clause )?(mit|bsd|apache)\b", re.IGNORECASE)
# A sentence that each licence has and no other.
_SENTENCES = {
    "mit": r"permission is hereby granted, free of charge",
    "bsd": r"redistribution and use in source and binary forms",
    "apache-2.0": r"apache license,? version 2\.0",
}
_COPYLEFT = re.compile(r"\bgnu (?:affero |lesser )?general public licen[cs]e"
                       r"|mozilla public licen[cs]e|creative commons",
                       re.IGNORECASE)
# The first comment of a file, in the ways of most languages.
_HEADER = re.compile(
    r"(?P<first>(?:#![^\n]*\n)?(?:#(?=[^\n]*\n)[^\n]*coding[:=][^\n]*\n)?)\s*+"
    r"(?P<comment>/\*(?:(?!\*/).)*+\*/|<!--(?:(?!-->).)*+-->"
    r"|(?:[ \t]*(?://|\#(?![a-z!\[])|--|;|%)[^\n]*\n)+)\s*", re.DOTALL)
# All bytes but those of ASCII's letters and digits.
_NO_ALNUM = bytes(i for i in range(256) if i > 127 or not chr(i).isalnum())
_BOILERPLATE = re.compile(r"copyright|licen[cs]e|\(c\) ?\d{4}", re.IGNORECASE)


def inputs(path: Path) -> list[Path]:
    """Repositories, installed packages and exports in a folder, sorted.

    Chapter: notebooks/02_curated_data.ipynb
    """
    if path.is_file():
        return [path]
    return sorted(path.glob("*.dist-info")) or sorted(
        part for part in path.iterdir() if not part.name.startswith(".")
        and (part.is_dir() or part.name.endswith(_EXPORTS)))


def read(path: Path, ledger: Ledger) -> Iterator[Document]:
    """Stream the files of a repository, a package or an export.

    Chapter: notebooks/02_curated_data.ipynb
    """
    files = (_export(path, ledger) if path.is_file() else
             _installed(path) if path.suffix == ".dist-info" else
             _repository(path))
    for repository, name, licence, data in files:
        result = clean(name, licence, data)
        if isinstance(result, str):
            ledger.drop(result)
            continue
        text, lines = result
        if lines:
            ledger.cut("licence header", lines)
        yield ledger.keep(Document(
            "github", f"{repository}/{name}", text, {"licence": licence}))


File = tuple[str, str, str | None, Path | bytes | None]
"""Repository, name in it, licence, and content or where it lies; None: a
link."""


def _repository(folder: Path) -> Iterator[File]:
    """The files of a folder; links are not followed."""
    licence = licence_of(folder)
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            file = Path(place) / name
            yield (folder.name, file.relative_to(folder).as_posix(), licence,
                   None if file.is_symlink() else file)


def _installed(folder: Path) -> Iterator[File]:
    """The files of an installed package, as its metadata lists them."""
    package = importlib.metadata.Distribution.at(folder)
    about = package.metadata
    classified = [text.split(" :: ")[-1] for text in
                  about.get_all("Classifier") or []
                  if text.startswith("License :: OSI")]
    licence = (about.get("License-Expression") or " and ".join(classified)
               or (about.get("License") or "").split("\n")[0]
               or licence_of(folder))
    root = folder.parent.resolve()
    for name in sorted(package.files or [], key=str):
        file = Path(name.locate())
        if file.resolve().is_relative_to(root) and file.is_file():
            yield str(about["Name"]), name.as_posix(), licence, file


def _export(path: Path, ledger: Ledger) -> Iterator[File]:
    """The rows of an export."""
    try:
        for line in archives.lines(path, 8 * SIZE_LIMIT):
            try:
                row = json.loads(line or b"null")
                names = row["repo_name"], row["path"], row.get("license")
                yield *map(str, names), row["content"].encode()
            except (ValueError, TypeError, KeyError, AttributeError,
                    RecursionError):
                ledger.drop("broken row" if line else "row too long")
    except archives.BROKEN:
        ledger.drop("broken archive")


def licence_of(folder: Path) -> str | None:
    """The licence that a repository declares, or that its file states.

    Chapter: notebooks/02_curated_data.ipynb
    """
    for name in ("pyproject.toml", "package.json", "Cargo.toml"):
        found = _DECLARED.search(_start(folder / name))
        if found:
            return found[1]
    texts = [_start(file) for file in sorted(folder.iterdir())
             if _LICENCE_FILE.match(file.name)]
    if any(_COPYLEFT.search(text) for text in texts):
        return None
    return next(filter(None, map(licence_text, texts)), None)


def _start(file: Path) -> str:
    """The beginning of a file as text; nothing if there is none."""
    if file.is_symlink() or not file.is_file():
        return ""
    with open(file, "rb") as opened:
        return opened.read(100_000).decode("utf-8", "replace")


def licence_text(text: str) -> str | None:
    """Which of the three licences a file states; None for any other, and
    where it speaks of a copyleft licence too.

    Chapter: notebooks/02_curated_data.ipynb
    """
    text = " ".join(text.split())
    found = [name for name, sentence in _SENTENCES.items()
             if re.search(sentence, text, re.IGNORECASE)]
    return None if _COPYLEFT.search(text) or not found else found[0]


def allowed(licence: str | None) -> bool:
    """Whether a licence is of the three: all that apply, or one to choose.

    Chapter: notebooks/02_curated_data.ipynb
    """
    choices = re.split(r"\bor\b", licence or "", flags=re.IGNORECASE)
    return any(all(_ALLOWED.match(part.strip("( )")) for part in re.split(
        r"\band\b", choice, flags=re.IGNORECASE)) for choice in choices)


def clean(
    name: str, licence: str | None, data: Path | bytes | None
) -> tuple[str, int] | str:
    """A file's text and the lines of its licence header that went.

    Args:
        name: in the repository.
        licence: of the repository.
        data: content, or where it lies; None for a link.

    Returns:
        Both, or the reason to drop the file.

    Chapter: notebooks/02_curated_data.ipynb
    """
    if not allowed(licence):
        return "licence"
    path = PurePosixPath(name)
    if path.suffix.lower() not in SUFFIXES and path.name not in NAMES:
        return "file type"
    if data is None:
        return "link"
    try:
        if isinstance(data, Path):
            with open(data, "rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        text = data.decode("utf-8-sig")
    except OSError:
        return "unreadable"
    except UnicodeDecodeError:
        return "not UTF-8"
    if len(data) > SIZE_LIMIT:
        return "too large"
    header = _HEADER.match(text)
    cut = 0
    if header and _BOILERPLATE.search(header["comment"]):
        text = header["first"] + text[header.end():]
        cut = header["comment"].count("\n") + 1
    return low_quality(text) or (text, cut)


def low_quality(text: str) -> str | None:
    """Why a source file is no good to learn from, or None.

    Lines count without their ends in the longest, with them on average.

    Chapter: notebooks/02_curated_data.ipynb
    """
    if not text.strip():
        return "empty"
    lines = text.split("\n")
    if max(map(len, lines)) > 1000:
        return "a line over 1,000 characters"
    if len(text) / len(lines) > 100:
        return "lines over 100 characters on average"
    if alphanumeric(text) / len(text) < 0.25:
        return "under 25 % letters and digits"
    return None


def alphanumeric(text: str) -> int:
    """How many characters `str.isalnum` accepts, counted fast in ASCII."""
    plain = text.encode("utf-8", "surrogatepass").translate(None, _NO_ALNUM)
    others = "" if text.isascii() else re.sub(r"[\x00-\x7f]+", "", text)
    return len(plain) + sum(map(str.isalnum, others))
