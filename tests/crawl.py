"""Small archives for tests: WARC and WET records, written out by hand."""

from __future__ import annotations

import gzip

SENTENCE = "The miller counted his sacks again, and one of them was missing. "


def html(body: str, title: str = "A page") -> bytes:
    """A page."""
    return (f"<!doctype html><html><head><title>{title}</title></head>"
            f"<body>{body}</body></html>").encode()


def article(words: str, count: int = 8) -> bytes:
    """A page whose main text is long enough for CCNet."""
    return html("".join(f"<p>{words} {SENTENCE}</p>" for _ in range(count)))


def record(kind: str, block: bytes, number: int = 0, **headers: str) -> bytes:
    """One record with a right length."""
    lines = {"WARC-Type": kind, "WARC-Record-ID": f"<urn:uuid:{number}>",
             "WARC-Target-URI": f"http://example.org/{number}",
             "WARC-Date": "2020-01-01T00:00:00Z",
             "Content-Length": str(len(block))} | {
                 name.replace("_", "-"): text
                 for name, text in headers.items()}
    head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n"


def response(
    body: bytes, number: int = 0, status: str = "200 OK",
    kind: str = "text/html; charset=utf-8", encoding: str = "",
) -> bytes:
    """A server's answer as a record."""
    extra = f"Content-Encoding: {encoding}\r\n" if encoding else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{extra}\r\n"
    return record("response", head.encode() + body, number,
                  Content_Type="application/http; msgtype=response")


def pages(count: int) -> list[bytes]:
    """Records of so many different articles, long enough to be kept."""
    return [response(article(f"This is page {number}."), number)
            for number in range(count)]


def gzipped(records: list[bytes]) -> bytes:
    """One gzip member a record, as CommonCrawl writes them."""
    return b"".join(gzip.compress(raw, mtime=0) for raw in records)
