"""Exercises of notebooks/04_tokenizer.ipynb."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch

from minillama.checks import WrongAnswer, answer, compare, exercise
from minillama.vocabulary import SPACE

Words = dict[str, int]


def _whole(draw: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, drawn."""
    return int(torch.randint(low, high + 1, (), generator=draw))


def _merges(words: Words, count: int, *, weigh: bool = True,
            again: bool = True) -> tuple[list[str], bool]:
    """The first merges, and whether two pairs ever tied for the first place.

    Without `weigh` every word counts once; without `again` the pairs are
    counted only at the start.
    """
    split = {word: list(SPACE + word) for word in words}
    found: list[str] = []
    tied = False
    ranking: list[tuple[tuple[str, str], int]] = []
    while len(found) < count:
        if again or not ranking:
            pairs: Counter[tuple[str, str]] = Counter()
            for word, times in words.items():
                for pair in zip(split[word], split[word][1:]):
                    pairs[pair] += times if weigh else 1
            ranking = pairs.most_common()
        tied |= len(ranking) > 1 and ranking[0][1] == ranking[1][1]
        best = ranking.pop(0)[0]
        found.append("".join(best))
        split = {w: _join(parts, best) for w, parts in split.items()}
    return found, tied


def _join(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence of a pair as one part, from the left."""
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def _corpus(draw: torch.Generator) -> dict[str, Any]:
    while True:
        words = {word: _whole(draw, 2, 9)
                 for word in ("heat", "the", "hear", "eat", "ear")}
        right, tied = _merges(words, 4)
        if not tied and right != _merges(words, 4, again=False)[0] and (
                right != _merges(words, 4, weigh=False)[0]):
            return {"words": words}


@exercise("04-tokenizer-1", given=_corpus)
def first_merges(mine: object, words: Words) -> str | None:
    """A list of four strings: the first four merges."""
    if isinstance(mine, str):
        mine = mine.split()
    if not isinstance(mine, list | tuple) or not all(
            isinstance(piece, str) for piece in mine):
        return "a list of four strings is wanted, such as ['ab', 'abc', ...]."
    if len(mine) != 4:
        return f"four merges are wanted, and yours are {len(mine)}."
    # "_" is easier to type than the marker.
    got = " ".join(mine).replace("_", SPACE)
    right, once, stale = (
        " ".join(_merges(words, 4, **how)[0])
        for how in ({}, {"weigh": False}, {"again": False}))
    bare = right.replace(SPACE, "")
    wrong = compare(
        got, right,
        (stale, "you counted the pairs only once; after each merge the new "
                "piece is a neighbour, and the pairs are counted again"),
        (once, "every word counts as often as it occurs in the text, not "
               "once"),
        (bare, "the marker of the space is part of the first piece of a "
               "word; write it too"),
    )
    return wrong and wrong.replace(f"{got!r} is not it", _first_slip(
        got.split(), right.split()))


def _first_slip(got: list[str], right: list[str]) -> str:
    """Which of the merges is the first wrong one."""
    number = next((i for i, (a, b) in enumerate(zip(got, right)) if a != b),
                  len(right)) + 1
    return f"merge number {number} is not the most frequent pair at that step"


def _text(draw: torch.Generator) -> dict[str, Any]:
    letters = "\u00e9\u00df\u03a9\u0416\u5b57\u738b\u20ac\u3042\U0001f642"
    chosen = torch.randperm(len(letters) - 1, generator=draw)[:3].tolist()
    return {"text": "a" + "".join(letters[i] for i in chosen) + letters[-1]}


@exercise("04-tokenizer-2", given=_text)
def fallback(mine: object, text: str) -> str | None:
    """A function text -> ids: every character as its byte pieces."""
    utf8 = [byte + 3 for byte in text.encode("utf-8")]
    return compare(
        answer(mine, text),
        utf8,
        ([byte for byte in text.encode("utf-8")],
         "these are the bytes; their ids begin after the 3 special pieces"),
        ([ord(char) + 3 for char in text],
         "these are code points; a character outside ASCII is several bytes "
         "in UTF-8"),
        ([byte + 3 for byte in text.encode("utf-16-le")],
         "these are the bytes of UTF-16; LLaMA's are those of UTF-8"),
        ([byte + 3 for byte in reversed(text.encode("utf-8"))],
         "the order is turned round"),
        tolerance=1e-9,
    )


Rules = list[tuple[str, str]]


_POOL = ("banana", "cabana", "tattered", "entertain", "teethers",
         "heather", "theatre", "sweetheart", "inherent", "therein")


def _rules(draw: torch.Generator) -> dict[str, Any]:
    """Merges under which an ordered and any other reading differ."""
    while True:
        split = {word: list(word) for word in _POOL}
        merges: Rules = []
        while len(merges) < 9:
            pairs = sorted({pair for parts in split.values()
                            for pair in zip(parts, parts[1:])})
            merges.append(pairs[_whole(draw, 0, len(pairs) - 1)])
            split = {w: _join(p, merges[-1]) for w, p in split.items()}
        for word, parts in split.items():
            if parts not in (_greedy(word, merges), _ordered(
                    word, merges[::-1]), _once(word, merges), list(word)):
                return {"word": word, "merges": merges}


def _ordered(word: str, merges: Rules) -> list[str]:
    """The merges applied in the order given."""
    parts = list(word)
    for pair in merges:
        parts = _join(parts, pair)
    return parts


def _once(word: str, merges: Rules) -> list[str]:
    """Each merge applied at the first place only."""
    parts = list(word)
    for pair in merges:
        parts = _join_first(parts, pair)
    return parts


@exercise("04-tokenizer-3", given=_rules)
def encode_in_order(mine: object, word: str, merges: Rules) -> str | None:
    """A function (word, merges) -> list of strings."""
    got = answer(mine, word, list(merges))
    if not isinstance(got, list | tuple) or not all(
            isinstance(piece, str) for piece in got):
        raise WrongAnswer("your function should return a list of strings.")
    if "".join(got) != word:
        return "your pieces joined are not the word any more."
    return compare(
        "|".join(got),
        "|".join(_ordered(word, merges)),
        ("|".join(_greedy(word, merges)),
         "you took the longest piece from the left each time; BPE applies "
         "the merges in the order in which they were learnt"),
        ("|".join(_ordered(word, merges[::-1])),
         "you began with the last merge; the first one that was learnt comes "
         "first"),
        ("|".join(_once(word, merges)),
         "a merge applies wherever its pair stands, not only at the first "
         "place"),
        ("|".join(word), "nothing was merged"),
    )


def _join_first(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Only the first occurrence of a pair joined."""
    for i in range(len(parts) - 1):
        if (parts[i], parts[i + 1]) == pair:
            return parts[:i] + ["".join(pair)] + parts[i + 2:]
    return parts


def _greedy(word: str, merges: Rules) -> list[str]:
    """The longest piece at each place, from the left."""
    pieces = {a + b for a, b in merges} | set(word)
    out = []
    while word:
        size = max(n for n in range(1, len(word) + 1) if word[:n] in pieces)
        out.append(word[:size])
        word = word[size:]
    return out


def _stream(draw: torch.Generator) -> dict[str, Any]:
    pieces = [f"{SPACE}The", f"{SPACE}caf", "\u00e9", f"{SPACE}of",
              f"{SPACE}{SPACE}", "1", "6", "2", "3", "<0x0A>", "O",
              "<0xF0>", "<0x9F>", "<0x99>", "<0x82>"]
    # With half an emoji there would be no text to count.
    cut = _whole(draw, 10, 12)
    return {"pieces": pieces[:cut] if cut < 12 else pieces,
            "nats": 20 + _whole(draw, 0, 300) / 10}


@exercise("04-tokenizer-4", given=_stream)
def bits_per_byte(mine: object, pieces: list[str], nats: float
                  ) -> str | None:
    """A function (nats, pieces) -> bits per byte of one document."""
    def size(piece: str) -> int:
        if piece.startswith("<0x"):
            return 1
        return len(piece.replace(SPACE, " ").encode("utf-8"))

    right = sum(map(size, pieces)) - 1
    bits = nats / math.log(2)
    names = sum(len(piece.encode("utf-8")) for piece in pieces)
    letters = sum(map(len, pieces))
    spaced = sum(len(piece.replace(SPACE, " ").encode("utf-8"))
                 for piece in pieces)
    marked = sum(1 if piece.startswith("<0x") else len(piece.encode("utf-8"))
                 for piece in pieces)
    return compare(
        answer(mine, nats, list(pieces)),
        bits / right,
        (nats / right, "these are nats per byte; a bit is ln 2 nats"),
        (nats * math.log(2) / right, "divide the nats by ln 2; you "
                                     "multiplied"),
        (bits / (right + 1), "the space before the first word was put there "
                             "by the tokenizer; it is no byte of the text"),
        (bits / names, "you counted the names of the pieces: the marker is "
                       "three bytes long, and stands for one; <0x0A> is six "
                       "letters long, and stands for one"),
        (bits / letters, "you counted the letters of the names; count bytes "
                         "of text"),
        (bits / spaced, "a byte piece such as <0x0A> stands for one byte, "
                        "however long its name is"),
        (bits / marked, "the marker is a space: one byte of text, not "
                        "three"),
        (bits / len(pieces), "that is bits per token"),
    )


def _context(draw: torch.Generator) -> dict[str, Any]:
    gaps = (" ", "  ", "\n", " \n ")
    contexts = ("The capital of France is", " Question: who wrote it?\nA:",
                "To be or not")
    words = ("Paris", "Shakespeare", "to be")
    which = _whole(draw, 0, len(contexts) - 1)
    return {"context": contexts[which] + gaps[_whole(draw, 0, 3)],
            "continuation": words[which]}


@exercise("04-tokenizer-5", given=_context)
def move_the_space(mine: object, context: str, continuation: str
                   ) -> str | None:
    """A function (context, continuation) -> the two, the space moved."""
    for first in (context, context.rstrip()):
        wrong = _moved(answer(mine, first, continuation), first,
                       continuation)
        if wrong:
            return wrong
    return None


def _moved(got: Any, context: str, continuation: str) -> str | None:
    """What is wrong with one pair, or None."""
    if not isinstance(got, tuple | list) or [type(p) for p in got] != [
            str, str]:
        return "return two strings: the context and the continuation."
    bare = context.rstrip()
    first, second = got
    if first + second != context + continuation:
        if first == bare and second.strip() == continuation:
            return ("white space was lost or added: the two parts joined "
                    "must be the text that was there before.")
        return ("joined, the two parts are no longer the same text; only "
                "the place of the cut may change.")
    if first != bare and first == context:
        return "the white space still stands at the end of the context."
    if first != bare:
        return ("only some of it moved: all white space at the end of the "
                "context goes to the continuation, and nothing else.")
    return None
