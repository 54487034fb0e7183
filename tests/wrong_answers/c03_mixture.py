"""What learners answer in chapter 3, and the sentence they should get."""

from __future__ import annotations

from collections import Counter


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


def _pages_with(pages):
    return Counter(line for page in pages for line in set(page))


def _kept(pages):
    on = _pages_with(pages)
    return [len({line for line in page if on[line] == 1}) for page in pages]


def _first_stays(pages):
    seen, kept = set(), []
    for page in pages:
        kept.append(len(set(page) - seen))
        seen |= set(page)
    return kept


def _copies_counted(pages):
    copies = Counter(line for page in pages for line in page)
    return [sum(copies[line] == 1 for line in page) for page in pages]


def _behind(shares, counts):
    n = sum(counts) + 1
    return [s * n - c for s, c in zip(shares, counts)]


RIGHT = {
    "03-mixture-1": _fixed(_kept),
    "03-mixture-2": _fixed(lambda a, b: len(a & b) / max(len(a), len(b))),
    "03-mixture-3": _fixed(lambda s, b, r: 1 - (1 - s**r)**b),
    "03-mixture-4": _fixed(lambda p, u, t: p / 100 * t / u),
    "03-mixture-5": _fixed(
        lambda s, c: max(range(len(s)), key=lambda i: _behind(s, c)[i])),
}

WRONG = {
    "03-mixture-1": [
        (_fixed(_first_stays), "from all of them"),
        (_fixed(lambda pages: [
            sum(_pages_with(pages)[line] == 1 for line in page)
            for page in pages]), "keeps one copy"),
        (_fixed(_copies_counted), "count pages"),
        (_fixed(lambda pages: list(map(len, pages))), "nothing was removed"),
    ],
    "03-mixture-2": [
        (_fixed(lambda a, b: len(a & b) / len(a | b)), "union"),
        (_fixed(lambda a, b: len(a & b) / min(len(a), len(b))), "anthology"),
        (_fixed(lambda a, b: float(len(a & b))), "not a count"),
        (_fixed(lambda a, b: 2 * len(a & b) / (len(a) + len(b))), "larger"),
    ],
    "03-mixture-3": [
        (_fixed(lambda s, b, r: s**r), "one band"),
        (_fixed(lambda s, b, r: (1 - s**r)**b), "missed"),
        (_fixed(lambda s, b, r: 1 - (1 - s**b)**r), "wrong way|off|large|"
         "small"),
        (_fixed(lambda s, b, r: 1 - (1 - s)**(b * r)), "have to"),
    ],
    "03-mixture-4": [
        (_fixed(lambda p, u, t: p * t / u), "hundredths"),
        (_fixed(lambda p, u, t: u / (p / 100 * t)), "upside down"),
        (_fixed(lambda p, u, t: t / u), "its percentage"),
    ],
    "03-mixture-5": [
        (_fixed(lambda s, c: min(
            range(len(s)), key=lambda i: _behind(s, c)[i])), "ahead"),
        (_fixed(lambda s, c: s.index(max(s))), "largest source"),
        (_fixed(lambda s, c: c.index(min(c))), "fewest samples"),
    ],
}
