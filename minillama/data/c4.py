"""C4: rules of thumb that a page of English prose passes.

The Colossal Clean Crawled Corpus (Raffel et al. 2020) knows no model of
quality. It keeps lines that end like a sentence, and pages with enough of
them. Numbers and order are those of the code that built it: three sentences
a page, five words a line. Many copies of the list have the two swapped.

The paper then removes three-sentence spans that stand elsewhere too. Here one
copy stays, in the document with the smallest id, whoever comes first.

Each step counts in a ledger of its own: what came in is what the first one
saw, and what stayed is what the last one kept.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from minillama.data import archives, commoncrawl
from minillama.data.document import Document, Ledger
from minillama.data.seen import Seen

SOURCE = "c4"
MIN_WORDS, MIN_SENTENCES, MAX_WORD, MAX_LENGTH = 5, 3, 1000, 190_000
SPAN = 3
"""Sentences in a span that may stand once only."""

CONDEMNING = {"filler text", "curly bracket"}
"""Reasons of a line for which the whole page goes."""

_END_MARKS = (".", "?", "!", '"')
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies",
           "use of cookies", "use cookies")
_FILLER = " ".join(("lorem", "ipsum"))
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_ROWS = (".json.gz", ".jsonl.gz", ".json", ".jsonl")
_MAX_LINE = 16 * 2**20

Splitter = Callable[[str], list[str]]


def inputs(path: Path) -> list[Path]:
    """Crawl archives and C4's own `.json.gz` files in a folder, by name."""
    return sorted({*commoncrawl.inputs(path),
                   *archives.files(path, *_ROWS, hidden=True)})


def read(path: Path, ledger: Ledger) -> Iterator[Document]:
    """Stream the pages of a WET or WARC archive, or rows of C4 itself.

    Of HTML all text is taken, menus and footers too, as in a WET: throwing
    them away is what the rules are for. Pages over 190,000 characters are
    dropped. `finish` cleans what comes out of here.

    Chapter: notebooks/01_web_data.ipynb
    """
    found = (_rows(path, ledger) if path.name.lower().endswith(_ROWS)
             else commoncrawl.pages(path, SOURCE, ledger, main_content=False))
    for document in found:
        if len(document.text) > MAX_LENGTH:
            ledger.drop(f"over {MAX_LENGTH} characters")
        elif not document.text.strip():
            ledger.drop("empty")
        else:
            yield ledger.keep(document)


def _rows(path: Path, ledger: Ledger) -> Iterator[Document]:
    """Rows `{"text", "url", "timestamp"}`, a line each."""
    try:
        for line in archives.lines(path, _MAX_LINE):
            try:
                yield _row(line or b"")
            except (ValueError, KeyError, TypeError, AttributeError,
                    RecursionError):
                ledger.drop("broken row" if line else "row too long")
    except archives.BROKEN:
        ledger.drop("file cut off or broken")


def _row(line: bytes) -> Document:
    """One row; its id is the address and a hash of the text."""
    row = json.loads(line)
    text, url = row["text"].strip(), str(row.get("url", ""))
    digest = hashlib.sha1(text.encode("utf-8", "replace")).hexdigest()
    return Document(SOURCE, f"{url}#{digest[:16]}", text, {
        "url": url, "date": str(row.get("timestamp", ""))})


def sentence_splitter() -> Splitter:
    """NLTK's punkt where its data is installed, as for C4; else nupunkt."""
    try:
        from nltk.tokenize import sent_tokenize

        sent_tokenize("Is it there?")
    except (ImportError, LookupError):
        from nupunkt import sent_tokenize
    return sent_tokenize


def bad_words(path: Path) -> re.Pattern[str]:
    """The pattern of a list with one word or phrase a line.

    Raises:
        ValueError: if the file names no word.
    """
    words = [re.escape(line.strip().lower()) for line in
             path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not words:
        raise ValueError(f"bad_words={str(path)!r} names no word; give one "
                         "word or phrase a line, or leave it out")
    return re.compile(rf"(?:\W|^)(?:{'|'.join(words)})(?:\W|$)")


@dataclass(frozen=True)
class Rules:
    """What `finish` needs; what is None is not asked."""

    sentences: Splitter
    """Text to its sentences: `sentence_splitter()`."""
    language: Callable[[str], tuple[str, float]] | None = None
    """Text to language and probability: `LanguageId`."""
    bad_words: re.Pattern[str] | None = None
    """From `bad_words`; the original list is the reader's to bring."""
    keep_language: str = "en"
    """The one that stays."""
    min_language_score: float = 0.5
    """C4's 0.99 was langdetect's; fastText gives real rows of C4 0.94."""


def finish(
    document: Document, rules: Rules, ledger: Ledger
) -> Document | None:
    """Language, lines, sentences and bad words of one page.

    Returns:
        The cleaned document, or None if the page is dropped.

    Chapter: notebooks/01_web_data.ipynb
    """
    if rules.language is not None:
        language, score = rules.language(document.text)
        if score < rules.min_language_score:
            return ledger.drop("language unclear")
        if language != rules.keep_language:
            return ledger.drop("another language")
    lines, cut = [], Counter[str]()
    for line in filter(None, map(str.strip, document.text.splitlines())):
        reason = line_reason(line)
        if reason in CONDEMNING:
            return ledger.drop(reason)
        if reason:
            cut[reason] += 1
        else:
            lines.append(_CITATION.sub("", line))
    if sum(len(rules.sentences(line)) for line in lines) < MIN_SENTENCES:
        return ledger.drop(f"under {MIN_SENTENCES} sentences")
    text = "\n".join(lines).strip()
    if rules.bad_words is not None and rules.bad_words.search(text.lower()):
        return ledger.drop("bad word")
    for reason, count in cut.items():
        ledger.cut(reason, count)
    return ledger.keep(document.with_text(text))


def line_reason(line: str) -> str | None:
    """Why a line has to go, or None. Two of the reasons condemn the page.

    The order matters: only a line that would have stayed can condemn.

    Args:
        line: without spaces around it; citation marks are ignored.
    """
    if max(map(len, line.split()), default=0) > MAX_WORD:
        return "word too long"
    line = _CITATION.sub("", line)
    if not line.endswith(_END_MARKS) or line.endswith("..."):
        return "no end mark"
    if len(line.split()) < MIN_WORDS:
        return f"under {MIN_WORDS} words"
    lower = line.lower()
    if _FILLER in lower:
        return "filler text"
    if "javascript" in lower:
        return "javascript"
    if "{" in line:
        return "curly bracket"
    return "policy" if any(words in lower for words in _POLICY) else None


def span_hashes(text: str, sentences: Splitter) -> UInt64[np.ndarray, "N"]:
    """One hash for every three sentences in a row, in order.

    Chapter: notebooks/01_web_data.ipynb
    """
    each = [s.strip().lower() for line in text.split("\n")
            for s in sentences(line)]
    return np.frombuffer(b"".join(
        hashlib.sha1("\n".join(each[i:i + SPAN]).encode("utf-8", "replace"))
        .digest()[:8] for i in range(len(each) - SPAN + 1)), dtype="<u8")


def drop_repeated_spans(
    document: Document, rank: int, seen: Seen, sentences: Splitter,
    ledger: Ledger,
) -> Document | None:
    """A document without the three-sentence spans that others keep.

    A sentence goes if it lies in a span whose owner is another document, or
    in a later copy of a span of this one: a page that says one thing over
    and over goes whole.

    Args:
        document: a page that `finish` kept.
        rank: its place among all documents, sorted by (source, id).
        seen: the `span_hashes` of all documents; `Seen.shared()` is enough.
        sentences: the splitter that the spans were counted with.
        ledger: counts the document, and the sentences cut out of it.

    Returns:
        The document; None if fewer than three sentences are left.

    Chapter: notebooks/01_web_data.ipynb
    """
    spans = span_hashes(document.text, sentences)
    lines = [(line, sentences(line)) for line in document.text.split("\n")]
    gone = np.zeros(sum(len(parts) for _, parts in lines), dtype=bool)
    later = np.ones(len(spans), dtype=bool)
    later[np.unique(spans, return_index=True)[1]] = False
    for i in np.flatnonzero(later | (seen.owners(spans, rank) != rank)):
        gone[i:i + SPAN] = True
    if len(gone) - gone.sum() < MIN_SENTENCES:
        return ledger.drop("only spans that stand elsewhere")
    if not gone.any():
        return ledger.keep(document)
    ledger.cut("sentence of a repeated span", int(gone.sum()))
    kept, at = [], 0
    for line, parts in lines:
        out = gone[at:at + len(parts)]
        at += len(parts)
        kept.append(line if not out.any() else " ".join(
            part for part, skip in zip(parts, out) if not skip))
    return ledger.keep(document.with_text("\n".join(filter(None, kept))))
