"""A document on its way through the pipelines, and the books that are kept.

Every source reads its raw files as a stream of documents. Whoever drops one
says why: at the end, what went in equals what was kept plus what was dropped
for each reason.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """One page, file, article, book, paper or question with its answers."""

    source: str
    """Which of the seven it came from, or `own`."""
    id: str
    """Unique within the source, and the same however the files are ordered:
    of several duplicates the one with the smallest (source, id) stays."""
    text: str
    """What a model would read."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Whatever else is known: address, title, language, licence, score."""

    def with_text(self, text: str, **metadata: Any) -> Document:
        """The same document with other text, and more known about it."""
        return replace(self, text=text, metadata={**self.metadata, **metadata})


@dataclass
class Ledger:
    """What came in, what was kept, and why the rest was dropped.

    Books of several files or processes are added with `+`.
    """

    kept: int = 0
    """Documents that went on."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents that did not, by reason."""
    lines: Counter[str] = field(default_factory=Counter)
    """Lines cut out of documents that went on, by reason."""

    @property
    def seen(self) -> int:
        """Documents that came in: each was kept or dropped."""
        return self.kept + self.dropped.total()

    def keep(self, document: Document) -> Document:
        """Count a document that goes on, and hand it back."""
        self.kept += 1
        return document

    def drop(self, reason: str) -> None:
        """Count a document that goes no further."""
        self.dropped[reason] += 1

    def cut(self, reason: str, count: int = 1) -> None:
        """Count lines that were taken out of a document."""
        self.lines[reason] += count

    def __add__(self, other: Ledger) -> Ledger:
        """The books of both."""
        return Ledger(self.kept + other.kept, self.dropped + other.dropped,
                      self.lines + other.lines)
