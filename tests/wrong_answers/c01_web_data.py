"""What learners answer in chapter 1, and the sentence they should get."""

from __future__ import annotations

import math
import re
from collections import Counter


def _fixed(function):
    """The same function for every variant."""
    return lambda given: function


QUOTES = dict.fromkeys(map(ord, "\u201c\u201d"))


def _key(line):
    return re.sub(r"\d", "0", line.strip().lower()).translate(QUOTES)


def _dedup(pages):
    count = Counter(key for page in pages for key in {*map(_key, page)})
    out = []
    for page in pages:
        kept, here = [], set()
        for line in page:
            if count[_key(line)] == 1 and _key(line) not in here:
                kept.append(line)
            here.add(_key(line))
        out.append(kept)
    return out


def _first_stays(pages):
    seen, out = set(), []
    for page in pages:
        out.append([])
        for line in page:
            if _key(line) not in seen:
                out[-1].append(line)
            seen.add(_key(line))
    return out


def _drop_all_repeats(pages):
    count = Counter(_key(line) for page in pages for line in page)
    return [[line for line in page if count[_key(line)] == 1]
            for page in pages]


def _copies_within_stay(pages):
    count = Counter(key for page in pages for key in {*map(_key, page)})
    return [[line for line in page if count[_key(line)] == 1]
            for page in pages]


def _perplexity(log10, pieces):
    return 10 ** (-sum(log10) / (sum(pieces) + len(pieces)))


def _c4(text, words=5, marks=(".", "?", "!", '"'), dots=False,
        script=False):
    lines = []
    for line in text.split("\n"):
        if not line.endswith(marks) or len(line.split()) < words:
            continue
        if line.endswith("...") and not dots:
            continue
        if "javascript" in line.lower() and not script:
            continue
        if "use cookies" in line.lower():
            continue
        lines.append(line)
    return "\n".join(lines)


def _area(cited, others, draw=0.5):
    return sum((a > b) + draw * (a == b) for a in cited for b in others) / (
        len(cited) * len(others))


RIGHT = {
    "01-web_data-1": _fixed(_key),
    "01-web_data-2": _fixed(_dedup),
    "01-web_data-3": _fixed(_perplexity),
    "01-web_data-4": _fixed(_c4),
    "01-web_data-5": _fixed(_area),
}

WRONG = {
    "01-web_data-1": [
        (_fixed(lambda line: re.sub(r"\d", "0", line.strip()).translate(
            QUOTES)), "capitals"),
        (_fixed(lambda line: re.sub(r"\d", "", line.strip().lower())
                .translate(QUOTES)), "does not vanish"),
        (_fixed(lambda line: re.sub(r"\d+", "0", line.strip().lower())
                .translate(QUOTES)), "each digit"),
        (_fixed(lambda line: re.sub(r"[^\w\s]", "", _key(line))), "ASCII"),
        (_fixed(lambda line: _key(line).replace("\u00e9", "e")), "accents"),
    ],
    "01-web_data-2": [
        (_fixed(_first_stays), "first copy goes too"),
        (_fixed(_drop_all_repeats), "keeps its first copy"),
        (_fixed(_copies_within_stay), "one copy only"),
        (_fixed(lambda pages: pages), "nothing was removed"),
    ],
    "01-web_data-3": [
        (_fixed(lambda log10, pieces: 10 ** (-sum(log10) / sum(pieces))),
         "one more token a line"),
        (_fixed(lambda log10, pieces: math.exp(
            -sum(log10) / (sum(pieces) + len(pieces)))), "base 10"),
        (_fixed(lambda log10, pieces: sum(
            10 ** (-x / (n + 1)) for x, n in zip(log10, pieces))
            / len(log10)), "mean of perplexities"),
        (_fixed(lambda log10, pieces: 1 / _perplexity(log10, pieces)),
         "sign"),
    ],
    "01-web_data-4": [
        (_fixed(lambda text: _c4(text, words=3)), "five words"),
        (_fixed(lambda text: _c4(text, dots=True)), "ellipsis"),
        (_fixed(lambda text: _c4(text, marks=(".", "?", "!"))),
         "quotation mark"),
        (_fixed(lambda text: _c4(text, script=True)), "JavaScript"),
    ],
    "01-web_data-5": [
        (_fixed(lambda a, b: _area(a, b, draw=0)), "half"),
        (_fixed(lambda a, b: _area(a, b, draw=1)), "half"),
        (_fixed(lambda a, b: _area(b, a)), "turned round"),
        (_fixed(lambda a, b: _area(a, b) * len(a) * len(b)), "divide"),
    ],
}
