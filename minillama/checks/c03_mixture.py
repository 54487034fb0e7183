"""Exercises of chapter 3: lines, overlap, the S-curve, epochs, turns.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from minillama.checks import answer, compare, exercise


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=draw))


def _pages(draw: torch.Generator) -> dict[str, Any]:
    """Pages of numbered lines: 0 to 2 on all, 3 twice on the first."""
    pages = [[0, 1, 2, *range(10 * n, 10 * n + _whole(draw, 4, 9))]
             for n in range(1, 5)]
    return {"pages": [[*pages[0], 3, 3], *pages[1:], [0, 1, 2]]}


def _kept(pages: list[list[int]], *, first: bool = False,
          within: bool = True) -> list[int]:
    """Lines left on each page."""
    on = Counter(line for page in pages for line in set(page))
    counts, seen = [], set()
    for page in pages:
        left = [line for line in page if on[line] == 1 or (
            first and line not in seen)]
        seen |= set(page)
        counts.append(len(set(left)) if within else len(left))
    return counts


@exercise("03-mixture-1", given=_pages)
def lines(mine: Any, pages: list[list[int]]) -> str | None:
    """A function pages -> how many lines each page keeps."""
    return compare(
        answer(mine, pages), _kept(pages),
        (_kept(pages, first=True), "the first copy stays too; CCNet takes a "
         "line that several pages have from all of them"),
        (_kept(pages, within=False), "a line that stands twice on one page "
         "keeps one copy"),
        ([sum(1 for line in page if sum(p.count(line) for p in pages) == 1)
          for page in pages], "a line repeated on one page alone is no "
         "repeated line: count pages, not copies"),
        ([len(page) for page in pages], "nothing was removed"))


def _sets(draw: torch.Generator) -> dict[str, Any]:
    common, small = _whole(draw, 20, 60), _whole(draw, 5, 20)
    return {"a": set(range(common + small)),
            "b": set(range(small, common + 3 * small + 40))}


@exercise("03-mixture-2", given=_sets)
def share(mine: Any, a: set[int], b: set[int]) -> str | None:
    """A function (a, b) -> the share of the larger set found in the other."""
    common = len(a & b)
    return compare(
        answer(mine, set(a), set(b)), common / max(len(a), len(b)),
        (common / len(a | b), "that is the similarity, over the union; the "
         "overlap is a share of the larger text"),
        (common / min(len(a), len(b)), "a share of the smaller text: a story "
         "would throw out the anthology it stands in"),
        (float(common), "a share is wanted, not a count"),
        (2 * common / (len(a) + len(b)), "over the mean of both sizes; take "
         "the larger one"))


def _bands(draw: torch.Generator) -> dict[str, Any]:
    return {"s": 0.3 + 0.5 * float(torch.rand((), generator=draw)),
            "bands": _whole(draw, 4, 20), "rows": _whole(draw, 2, 6)}


@exercise("03-mixture-3", given=_bands)
def candidate(mine: Any, s: float, bands: int, rows: int) -> str | None:
    """A function (s, bands, rows) -> the probability to be a candidate."""
    return compare(
        answer(mine, s, bands, rows), 1 - (1 - s**rows)**bands,
        (s**rows, "that is one band; one of all the bands is enough"),
        ((1 - s**rows)**bands, "that is the probability to be missed"),
        (1 - (1 - s**bands)**rows, "bands and rows are the wrong way round"),
        (1 - (1 - s)**(bands * rows), "all numbers of one band have to "
         "agree, not one of them"), tolerance=1e-9)


def _source(draw: torch.Generator) -> dict[str, Any]:
    return {"percent": 0.5 * _whole(draw, 4, 40),
            "unique": 1e9 * _whole(draw, 20, 90),
            "total": 1e11 * _whole(draw, 5, 15)}


@exercise("03-mixture-4", given=_source)
def epochs(mine: Any, percent: float, unique: float, total: float
           ) -> str | None:
    """A function (percent, unique, total) -> epochs of a source."""
    right = percent / 100 * total / unique
    return compare(
        answer(mine, percent, unique, total), right,
        (100 * right, "percent are hundredths"),
        (1 / right, "upside down: tokens taken over tokens that there are"),
        (total / unique, "the source gets its percentage of the run, not all "
         "of it"))


def _counts(draw: torch.Generator) -> dict[str, Any]:
    """Of the two of middle size one is due, the other is ahead."""
    shares = torch.tensor([4.0, 3.0, 2.0, 1.0]) + torch.rand(
        4, generator=draw) / 2
    shares /= shares.sum()
    counts = (shares * 200).round()
    due = _whole(draw, 1, 3)
    counts[due] -= 6
    counts[3 - due] += 4
    return {"shares": shares.tolist(), "counts": [int(c) for c in counts]}


@exercise("03-mixture-5", given=_counts)
def turn(mine: Any, shares: list[float], counts: list[int]) -> str | None:
    """A function (shares, counts) -> the number of the source that is due."""
    n = sum(counts) + 1
    behind = [share * n - count for share, count in zip(shares, counts)]
    return compare(
        answer(mine, list(shares), list(counts)),
        behind.index(max(behind)),
        (behind.index(min(behind)), "this source is furthest ahead"),
        (shares.index(max(shares)), "this is the largest source, whether it "
         "is behind or not"),
        (counts.index(min(counts)), "this source has the fewest samples, and "
         "may be meant to"))
