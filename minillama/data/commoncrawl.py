"""CommonCrawl: from WARC and WET archives to pages of text.

A WARC holds what servers answered, a WET the text that CommonCrawl took out
of it; both are records one after another, gzipped one by one or not at all.
Whatever is broken costs the records it lies in and no other: the reader
looks for the next record's start, counts what was lost, and goes on.

What CCNet (Wenzek et al. 2020) does with the pages is in `ccnet`.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from minillama.data import archives
from minillama.data.document import Document, Ledger
from minillama.files import DATA, needs

SOURCE = "commoncrawl"
MIN_LENGTH = 300
"""CCNet's shortest page, in characters."""
MAX_RECORD = 16 * 2**20
"""Longer records are passed over; CommonCrawl itself cuts pages at 1 to 5
MiB."""
MAX_DEPTH = 1000
"""Deeper nested pages are dropped: the extractor's time grows with the
square of the depth, to minutes at a hundred thousand."""

_SUFFIXES = (".warc", ".wet", ".warc.gz", ".wet.gz")
_CHUNK = 2**16
_MAX_HEADER = 2**16
_MEMBER = b"\x1f\x8b\x08"
_HEADER = re.compile(
    rb"WARC/1\.\d\r?\n(?:(?!content-length:)[^\r\n]++\r?\n){0,99}+content-"
    rb"length:[ \t]*(\d{1,18})[ \t]*\r?\n(?:[^\r\n]++\r?\n){0,99}+\r?\n", re.I)
_AFTER = re.compile(rb"\r\n\r\n|[\r\n]*(?:WARC/|\Z)")
_NEXT = re.compile(rb"WARC/1\.\d\r?\n[A-Za-z]+-[A-Za-z]")
_PAGE = re.compile(rb"(?im)^warc-type:[ \t]*(response|conversion)\b")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.I)
_DEEP = "*" + " > *" * MAX_DEPTH  # what tags say is easily wrong


class Unusable(Exception):
    """A record without text that could be used; the message says why."""


def inputs(path: Path) -> list[Path]:
    """The archives in a folder, by name, or the one file itself.

    `.warc` and `.wet` files, gzipped or not; `.wat` files hold no text.
    """
    return archives.files(path, *_SUFFIXES, hidden=True)


def read(path: Path, ledger: Ledger) -> Iterator[Document]:
    """Stream the pages of one archive, as CCNet wants them.

    Of a WARC the main text of each HTML page, of a WET the stored text
    without its first line, which is the title. Pages under 300 characters
    are dropped. Memory stays bounded, whatever the file holds.

    Args:
        path: a WARC or WET file, gzipped or not.
        ledger: counts pages kept, and pages and records dropped.

    Yields:
        Documents with `url`, `title` and `date`; the id is the record's own.

    Chapter: notebooks/01_web_data.ipynb
    """
    for document in pages(path, SOURCE, ledger, main_content=True):
        if len(document.text) < MIN_LENGTH:
            ledger.drop(f"under {MIN_LENGTH} characters")
        else:
            yield ledger.keep(document)


def pages(
    path: Path, source: str, ledger: Ledger, *, main_content: bool
) -> Iterator[Document]:
    """All pages of an archive; records without text are dropped.

    Args:
        path: a WARC or WET file, gzipped or not.
        source: of the documents.
        ledger: counts what is dropped; keeping is the caller's affair.
        main_content: of HTML, leave out menus, side bars and footers.
    """
    for record in records(path):
        try:
            if isinstance(record, str):
                raise Unusable(record)
            document = _page(record, source, main_content)
        except Unusable as reason:
            ledger.drop(str(reason))
        else:
            if document is not None:
                yield document


def records(path: Path) -> Iterator[bytes | str]:
    """Records of an archive, header and block; for a lost one the reason.

    A record is whole if its length is right: another record or the end
    follows. Else the next line that begins a record is looked for, from its
    own start on. No more than one record is in memory.
    """
    with open(path, "rb") as file:
        window = _Window(_chunks(file))
        while window.fill(_MAX_HEADER):
            try:
                size = window.record()
            except Unusable as reason:
                yield str(reason)
                window.resynchronise()
            else:
                yield bytes(window.data[:size])
                window.skip(size)


class _Window:
    """The bytes of an archive that are in memory, and what comes next."""

    def __init__(self, chunks: Iterator[bytes | None]) -> None:
        self.data = bytearray()
        self.chunks = chunks
        self.gap = False
        """Bytes are missing behind `data`."""

    def fill(self, size: int) -> bool:
        """Try to hold so many bytes; False if there is nothing left.

        A gap is crossed only when everything before it is used up.
        """
        self.gap = self.gap and bool(self.data)
        while len(self.data) < size and not self.gap:
            chunk = next(self.chunks, "end")
            if chunk == "end":
                break
            self.gap = chunk is None and bool(self.data)
            self.data += chunk or b""
        return bool(self.data)

    def record(self) -> int:
        """The size of the record that begins here, if it is whole."""
        header = _HEADER.match(self.data, 0, _MAX_HEADER)
        if header is None:
            raise Unusable("broken record header")
        size = header.end() + int(header[1])
        if size > MAX_RECORD:
            raise Unusable("record too long")
        self.fill(size + 64)
        after = self.data[size:size + 64]
        if len(self.data) < size or self.gap and len(after) < 4:
            raise Unusable("record cut off")
        if not _AFTER.match(after):
            raise Unusable("record of another length than it says")
        return size

    def skip(self, size: int) -> None:
        """Drop so many bytes, and the line ends behind them."""
        del self.data[:size]
        while self.fill(1) and self.data[0] in b"\r\n":
            self.data = self.data.lstrip(b"\r\n")

    def resynchronise(self) -> None:
        """Drop all before the next line that begins a record."""
        start = 1
        while not (found := _NEXT.search(self.data, start)):
            del self.data[:-32]  # A start may lie across two chunks.
            start, size, gap = 0, len(self.data), self.gap
            self.fill(size + 1)
            if gap or len(self.data) == size and not self.gap:
                return self.data.clear()
        del self.data[:found.start()]


def _chunks(file: BinaryIO) -> Iterator[bytes | None]:
    """The content of a file, inflated if need be; None where some is lost."""
    data = file.read(_CHUNK)
    if not data.startswith(_MEMBER):
        yield data
        yield from iter(lambda: file.read(_CHUNK), b"")
        return
    damaged = False
    spare = 8 * os.fstat(file.fileno()).st_size  # that may be read again
    while data:
        at = data.find(_MEMBER)
        if at and not damaged:
            damaged = True
            yield from (b"\0", None)  # Counts as one broken record.
        if at < 0:
            fresh = file.read(_CHUNK)
            data = data[-2:] + fresh if fresh else b""
            continue
        data = data[at:]
        start = file.tell() - len(data)
        inflater, held = zlib.decompressobj(31), b""
        try:
            while not inflater.eof:
                data = data or file.read(_CHUNK)
                out = inflater.decompress(data, _CHUNK)
                if not (data or out or inflater.eof):
                    raise zlib.error("cut off")
                data = inflater.unconsumed_tail
                if out:
                    yield held
                    held = out
            yield held
            data, damaged = inflater.unused_data or file.read(_CHUNK), False
        except zlib.error:
            if not damaged:  # A last byte is kept back: what ends here is cut.
                damaged = True
                yield from (held[:-1] or b"\0", None)
            # The next member may have begun in what was just misread.
            again = min(file.tell() - start - 1, MAX_RECORD, spare)
            spare -= again
            file.seek(-again, io.SEEK_CUR)
            data = file.read(_CHUNK)


def _page(raw: bytes, source: str, main_content: bool) -> Document | None:
    """The text of a record; None if the record is no page of the web.

    Raises:
        Unusable: if there is a page, but no text to be had.
    """
    if not _PAGE.search(raw[:_MAX_HEADER]):
        return None
    with needs(f"reading WARC files needs warcio; {DATA}"):
        from warcio.recordloader import ArcWarcRecordLoader
    try:
        record = ArcWarcRecordLoader().parse_record_stream(
            io.BytesIO(raw), known_format="warc")
    except Exception:  # warcio raises many kinds.
        raise Unusable("broken record header") from None
    body = record.content_stream().read(MAX_RECORD)
    if record.rec_type == "conversion":
        title, _, text = body.decode("utf-8", "replace").partition("\n")
    else:
        title, text = _from_html(record.http_headers, body, main_content)
    known = record.rec_headers.get_header
    url = known("WARC-Target-URI", "")
    digest = hashlib.sha1(url.encode() + b"\n" + body).hexdigest()
    return Document(
        source, known("WARC-Record-ID", digest).strip("<>"), text.strip("\n"),
        {"url": url, "title": title, "date": known("WARC-Date", "")})


def _from_html(http: Any, body: bytes, main_content: bool) -> tuple[str, str]:
    """Title and text of an answer.

    Raises:
        Unusable: if the answer is no page of HTML.
    """
    if http is None or http.get_statuscode() != "200":
        raise Unusable("answer without a page")
    kind = http.get_header("Content-Type", "")
    if "html" not in (kind or body[:512].decode("latin-1")).lower():
        raise Unusable("not HTML")
    if b"\0" in body[:512]:
        raise Unusable("unknown content encoding")
    return extract(decode(body, kind), main_content=main_content)


def decode(body: bytes, content_type: str = "") -> str:
    """Bytes of a page as text.

    Strict UTF-8 comes first: hardly any other text passes for it, and both
    what servers declare and what statistics guess are wrong more often. Then
    the charset of the HTTP header, that of the page, and a guess. A page may
    end in the middle of a character.
    """
    from resiliparse.parse import encoding

    head = f"{content_type}\n{body[:4096].decode('latin-1')}"
    for name in ("utf-8", *_CHARSET.findall(head)):
        try:
            name = encoding.map_encoding_to_html5(name, False) or "utf-8"
            return codecs.getincrementaldecoder(name)().decode(body)
        except (LookupError, UnicodeDecodeError):
            continue
    return body.decode(encoding.detect_encoding(body), "replace")


def extract(html: str, *, main_content: bool = True) -> tuple[str, str]:
    """Title and text of a page, one paragraph a line.

    Args:
        html: the page.
        main_content: leave out menus, side bars and footers.

    Raises:
        Unusable: if elements nest deeper than MAX_DEPTH.

    Chapter: notebooks/01_web_data.ipynb
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html)
    if html.count("<") > MAX_DEPTH and tree.document.query_selector(_DEEP):
        raise Unusable("nested too deep")
    text = extract_plain_text(
        tree, main_content=main_content, alt_texts=False, list_bullets=False)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return " ".join((tree.title or "").split()), "\n".join(filter(None, lines))
