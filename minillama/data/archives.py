"""Opening files that strangers packed: nothing is trusted, nothing extracted.

Compressed files are read as a stream, archives member by member into memory,
and never onto the disk: a name such as `../x` can only be a word. What is too
large, too long, a link or a device is refused, and the refusal is counted.

Chapter: notebooks/02_curated_data.ipynb
"""

from __future__ import annotations

import bz2
import gzip
import io
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minillama.data.document import Ledger

UNPACKED_LIMIT = 100_000_000
"""Bytes that one paper may unpack to; the largest real ones have half."""

BROKEN = (EOFError, OSError, zlib.error, tarfile.TarError)
"""What a cut, corrupt or mislabelled compressed file raises."""


class Refused(Exception):
    """Why one document, and only this one, cannot be used."""


def files(path: Path, *suffixes: str, hidden: bool = False) -> list[Path]:
    """The files below a folder that end so, sorted; or the one file given.

    Args:
        path: a folder or a file.
        *suffixes: in lower case.
        hidden: whether files whose name begins with a dot count too.

    Chapter: notebooks/02_curated_data.ipynb
    """
    if path.is_file():
        return [path]
    return sorted(
        file for file in path.rglob("*")
        if file.name.lower().endswith(suffixes) and file.is_file()
        and (hidden or not file.name.startswith(".")))


def unpacked(file: io.BufferedIOBase) -> io.BufferedIOBase:
    """The content of a gzip or bzip2 file, or the file itself.

    The first bytes decide, not the name.
    """
    start = file.read(3)
    file.seek(-len(start), io.SEEK_CUR)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if start == b"BZh" else file


def lines(path: Path, limit: int) -> Iterator[bytes | None]:
    """The lines of a plain, gzip or bzip2 file, as UTF-8.

    A file that begins with the mark of UTF-16 is recoded.

    Args:
        path: of the file.
        limit: bytes without the line's end; a longer line comes as None and
            is never held whole.

    Raises:
        One of BROKEN: where the compressed stream ends or makes no sense;
            the lines before it have been handed out.

    Chapter: notebooks/02_curated_data.ipynb
    """
    with open(path, "rb") as packed:
        stream: Any = unpacked(packed)
        if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            stream = io.TextIOWrapper(
                stream, "utf-16", errors="replace", newline="\n")
        inside = False  # of a line that is too long
        while line := stream.readline(limit + 1):
            line = line if isinstance(line, bytes) else line.encode()
            ended = line.endswith(b"\n") or len(line) <= limit
            if not inside:
                yield line if ended else None
            inside = not ended


def members(
    file: io.BufferedIOBase, ledger: Ledger, suffixes: tuple[str, ...]
) -> dict[str, bytes]:
    """The wanted files of a tar archive by name, gzip or plain.

    A single file that is no archive comes under the name of an empty string.

    Args:
        file: can be read and sought.
        ledger: counts members that are refused: links, devices, and names
            that are absolute or lead out of the folder.
        suffixes: of names that are wanted; the others are skipped.

    Raises:
        Refused: if it unpacks to more than UNPACKED_LIMIT.
        One of BROKEN: if it is cut or corrupt.

    Chapter: notebooks/02_curated_data.ipynb
    """
    whole = unpacked(file).read(UNPACKED_LIMIT + 1)
    if len(whole) > UNPACKED_LIMIT:
        raise Refused("unpacks to too much")
    if not tarfile.is_tarfile(io.BytesIO(whole)):
        return {"": whole}
    found = {}
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
        for member in archive:
            name = posixpath.normpath(member.name)
            if member.isdir():
                continue
            if member.size < 0:  # leads back: it would come again for ever
                raise tarfile.TarError("negative size")
            # A sparse file claims any size and brings no bytes.
            if not member.isreg() or member.issparse():
                ledger.cut("archive member is no plain file")
            elif name.startswith(("/", "..")) or member.name[1:2] == ":":
                ledger.cut("archive member outside its folder")
            elif name.lower().endswith(suffixes):
                found[name] = archive.extractfile(member).read()
    return found
