"""Exercises of chapter 1: keys of lines, dedup, perplexity, rules, area.

Chapter: notebooks/01_web_data.ipynb
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import torch

from minillama.checks import answer, compare, exercise
from minillama.data.c4 import line_reason
from minillama.data.ccnet import (
    drop_repeated_lines,
    line_hashes,
    normalise_for_hash,
)
from minillama.data.document import Document, Ledger
from minillama.data.references import area_under_curve
from minillama.data.seen import Seen


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=draw))


def _line(draw: torch.Generator) -> dict[str, Any]:
    return {"line": f"  Mill No. {_whole(draw, 10, 999)}: \u201cCaf\u00e9 & "
                    f"Shop\u201d, {_whole(draw, 1800, 2020)}!\t"}


@exercise("01-web_data-1", given=_line)
def key(mine: Any, line: str) -> str | None:
    """A function line -> the text by which two lines are compared."""
    right = normalise_for_hash(line)
    ascii_gone = re.sub(r"[^\w\s]", "", right)
    return compare(
        answer(mine, line), right,
        (re.sub(r"\d", "0", line.strip()).translate(
            dict.fromkeys(map(ord, "\u201c\u201d"))),
         "capitals count in yours; lower them first"),
        (re.sub(r"0", "", right), "a digit becomes 0, it does not vanish: "
         "two dates are the same line, a date and none are not"),
        (re.sub(r"0+", "0", right), "each digit becomes a 0; yours makes one "
         "of a whole number"),
        (ascii_gone, "ASCII punctuation stays; only typographic marks go"),
        (right.replace("\u00e9", "e"), "accents stay; they go for the "
         "language model only"),
        (line.lower().translate(dict.fromkeys(map(ord, "\u201c\u201d")))
         .strip(), "digits differ in yours; make each of them a 0"),
    )


_PARTS = ["Menu", "Home", "Log in", "Page 1 of 9", "About us", "Imprint",
          "One river ran.", "Two mills stood.", "Three men sang.",
          "Four bees flew."]


def _pages(draw: torch.Generator) -> dict[str, Any]:
    order = [_PARTS[i] for i in torch.randperm(10, generator=draw)]
    a, b, c, d, e, f = order[:6]
    return {"pages": [[a, b, c, b], [a.upper(), d], [e, a, f, c.lower()]]}


def _dedup(pages: list[list[str]]) -> list[list[str]]:
    """By the package."""
    seen = Seen.of((rank, line_hashes("\n".join(page)))
                   for rank, page in enumerate(pages))
    left = [drop_repeated_lines(
        Document("", "", "\n".join(page)), seen, Ledger()) for page in pages]
    return [page.text.split("\n") if page else [] for page in left]


def _as_text(pages: Any) -> str:
    """Pages of lines, so that they can be compared."""
    return "\n--\n".join("\n".join(page) for page in pages)


def _first_stays(pages: list[list[str]]) -> list[list[str]]:
    seen: set[str] = set()
    return [[line for line in page
             if (key := normalise_for_hash(line)) not in seen
             and not seen.add(key)] for page in pages]


def _counted(pages: list[list[str]], distinct: bool) -> list[list[str]]:
    count = Counter(key for page in pages for key in (
        set if distinct else list)(map(normalise_for_hash, page)))
    return [[line for line in page if count[normalise_for_hash(line)] == 1]
            for page in pages]


@exercise("01-web_data-2", given=_pages)
def repeated_lines(mine: Any, pages: list[list[str]]) -> str | None:
    """A function pages -> pages without what several of them have."""
    return compare(
        _as_text(answer(mine, [list(page) for page in pages])),
        _as_text(_dedup(pages)),
        (_as_text(_first_stays(pages)), "the first copy goes too: nobody "
         "knows which page a menu belongs to"),
        (_as_text(_counted(pages, distinct=False)), "a line that repeats "
         "within one page only keeps its first copy there"),
        (_as_text(_counted(pages, distinct=True)), "a line that repeats "
         "within one page keeps one copy only"),
        (_as_text(pages), "nothing was removed"),
    )


def _surprise(draw: torch.Generator) -> dict[str, Any]:
    pieces = torch.randint(2, 12, (3,), generator=draw)
    each = 1 + torch.rand(3, generator=draw)
    return {"log10": [round(-float(x), 3) for x in each * (pieces + 1)],
            "pieces": pieces.tolist()}


@exercise("01-web_data-3", given=_surprise)
def perplexity(
    mine: Any, log10: list[float], pieces: list[int]
) -> str | None:
    """A function (log10, pieces) -> the perplexity of a page."""
    total, count = sum(log10), sum(pieces)
    lines = len(pieces)
    return compare(
        answer(mine, list(log10), list(pieces)),
        10 ** (-total / (count + lines)),
        (10 ** (-total / count), "each line has an end, which the model "
         "predicts as well: one more token a line"),
        (10 ** (-total / (count + 1)), "each line has an end of its own, not "
         "only the page"),
        (float(np.exp(-total / (count + lines))), "the logarithms are of "
         "base 10"),
        (sum(10 ** (-x / (n + 1)) for x, n in zip(log10, pieces)) / lines,
         "a mean of perplexities weighs short lines like long ones; add the "
         "logarithms first"),
        (10 ** (total / (count + lines)), "the sign: less likely means more "
         "surprised"),
    )


_LINES = ["The wheel turned all night long.", "Read more about it here",
          "We use cookies on this page.", "Only four words here.",
          "And so it went on and on...", "\"Is it you at the door?\"",
          "Please turn on JavaScript to read.", "It rained for a whole week!",
          "Do you know the old bridge?", "News - Council - Timetable - Shop",
          "He came back in May."]


def _text(draw: torch.Generator) -> dict[str, Any]:
    order = torch.randperm(len(_LINES), generator=draw)
    return {"text": "\n".join(_LINES[i] for i in order)}


@exercise("01-web_data-4", given=_text)
def kept(mine: Any, text: str) -> str | None:
    """A function text -> the text with only the lines that C4 keeps."""
    lines = text.split("\n")
    right = [line for line in lines if line_reason(line) is None]
    return compare(
        answer(mine, text), "\n".join(right),
        *(("\n".join(line for line in lines
                     if line in right or line in extra), sentence)
          for extra, sentence in (
              (["Only four words here."], "five words a line; that the number "
               "is three is a widespread slip"),
              (["And so it went on and on..."], "an ellipsis is no end"),
              (["We use cookies on this page."], "the line about cookies "
               "should go"),
              (["Please turn on JavaScript to read."], "the line about "
               "JavaScript should go"))),
        ("\n".join(line for line in right if not line.endswith('"')),
         "a closing quotation mark ends a sentence too"),
        ("\n".join(line for line in right if line.endswith(".")),
         "question marks and exclamation marks end a sentence too"),
    )


def _scores(draw: torch.Generator) -> dict[str, Any]:
    tenths = torch.randint(0, 6, (2, 6), generator=draw)
    return {"cited": (tenths[0] + 3).tolist() + [4],
            "others": tenths[1].tolist() + [4]}


@exercise("01-web_data-5", given=_scores)
def area(mine: Any, cited: list[int], others: list[int]) -> str | None:
    """A function (cited, others) -> the area under the ROC curve."""
    pairs = [(a, b) for a in cited for b in others]
    above = sum(a > b for a, b in pairs) / len(pairs)
    level = sum(a == b for a, b in pairs) / len(pairs)
    right = area_under_curve(np.array(cited, float), np.array(others, float))
    return compare(
        answer(mine, list(cited), list(others)), right[0],
        (above, "a draw counts half"), (above + level, "a draw counts half"),
        (1 - right[0], "turned round: how often is the CITED page above?"),
        (above * len(pairs), "divide by the number of pairs"),
        ((above + level / 2) * len(pairs), "divide by the number of pairs"),
    )
