"""Which documents have a line, or a span, in common? One table of hashes.

CCNet removes a line from every document when several have it. C4 leaves a
span in one document and removes it from the others. Both ask the same table,
which never knows who was read first: a hash belongs to the document of the
smallest rank, and ranks follow the sorted (source, id).

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt64


@dataclass(frozen=True)
class Seen:
    """Every hash of a corpus once, with the first document that has it.

    Two tables are added with `+`, in any order and grouping, so that files
    and processes count apart. An entry takes 17 bytes. To keep fewer in
    memory, count only the hashes that leave one remainder, and go over them
    once for each remainder.
    """

    hashes: UInt64[np.ndarray, "N"]
    """Sorted."""
    owner: Int64[np.ndarray, "N"]
    """The smallest rank of a document with that hash."""
    several: Bool[np.ndarray, "N"]
    """Whether more than one document has it."""

    @classmethod
    def of(
        cls, documents: Iterable[tuple[int, UInt64[np.ndarray, "_"]]]
    ) -> Seen:
        """Count the hashes of documents.

        Args:
            documents: the rank of each among all, sorted by (source, id),
                and its hashes.
        """
        seen, ranks = [np.zeros(0, "<u8")], [np.zeros(0, np.int64)]
        for rank, hashes in documents:
            seen.append(hashes)
            ranks.append(np.full(len(hashes), rank, np.int64))
        hashes = np.concatenate(seen)
        return _table(hashes, np.concatenate(ranks),
                      np.zeros(len(hashes), bool))

    def __add__(self, other: Seen) -> Seen:
        """Both, as if their documents had been counted together."""
        return _table(*(np.concatenate([getattr(self, name), getattr(
            other, name)]) for name in ("hashes", "owner", "several")))

    def shared(self) -> Seen:
        """Only what several documents have: all that the last pass needs."""
        return Seen(self.hashes[self.several], self.owner[self.several],
                    self.several[self.several])

    def owners(
        self, hashes: UInt64[np.ndarray, "N"], default: int
    ) -> Int64[np.ndarray, "N"]:
        """The owner of each hash; the default where it is not here."""
        at, here = self._find(hashes)
        out = np.full(len(hashes), default, np.int64)
        out[here] = self.owner[at]
        return out

    def repeated(
        self, hashes: UInt64[np.ndarray, "N"]
    ) -> Bool[np.ndarray, "N"]:
        """Whether several documents have each hash."""
        at, here = self._find(hashes)
        here[here] = self.several[at]
        return here

    def _find(
        self, hashes: UInt64[np.ndarray, "N"]
    ) -> tuple[Int64[np.ndarray, "M"], Bool[np.ndarray, "N"]]:
        """Rows of the hashes that are in the table, and which they are."""
        at = np.searchsorted(self.hashes, hashes)
        here = at < len(self.hashes)
        here[here] = self.hashes[at[here]] == hashes[here]
        return at[here], here


def _table(
    hashes: UInt64[np.ndarray, "N"],
    owner: Int64[np.ndarray, "N"],
    several: Bool[np.ndarray, "N"],
) -> Seen:
    """Sort, and put equal hashes together."""
    order = np.lexsort((owner, hashes))
    values, first = np.unique(hashes[order], return_index=True)
    if not len(values):
        return Seen(values, owner, several)
    owner = owner[order]
    smallest, largest = owner[first], np.maximum.reduceat(owner, first)
    return Seen(values, smallest, (largest > smallest)
                | np.logical_or.reduceat(several[order], first))
