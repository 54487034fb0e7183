"""Never the same text twice: lines, documents, and books that nearly agree.

Equal texts are found by their hash. Texts that nearly agree are found by
MinHash (Broder 1997), which proposes pairs, and judged by their true overlap,
counted in runs of five words. Whatever the order of the files, of several
duplicates the one with the smallest (source, id) stays.

Nothing here holds a corpus. Records go to the disk, to the part that their
hash belongs to; one part at a time is sorted.

Chapter: notebooks/03_mixture.ipynb
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt32, UInt64

WORDS = 5
"""Words in a shingle, the unit in which overlap is counted."""
HASHES = 128
"""Numbers in a signature: the estimate of a similarity s has standard
deviation sqrt(s (1 - s) / 128), at most 0.044."""
KEY_DIGITS = 32
"""Hexadecimal digits of `text_key`."""
BANDS = 32
"""Parts of a signature; two texts are a candidate if one part agrees."""

_PRIME = 0x100000001B3
_INVERSE = pow(_PRIME, -1, 2**64)
_CHUNK = 2**18
# So many smaller neighbours in one band are compared with; more are spam.
_NEIGHBOURS = 50
_BUFFER = 2**18
# Of a part's records, those that are sorted in memory at a time.
_TURN_BYTES = 2**25


def text_key(text: str) -> str:
    """32 hexadecimal digits that equal texts share, and no others do.

    With 128 bits two of 10^12 texts collide with probability 10^-15.
    """
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def shingles(text: str, words: int = WORDS) -> UInt64[np.ndarray, "N"]:
    """The different runs of a few words in a text, as sorted hashes.

    Case and everything between words is ignored. A text with fewer words is
    one run. With c_i the characters and P a prime, all prefix sums of
    c_i P^i are formed at once, modulo 2^64; the hash of a run is the
    difference of two of them, times P^-start, and then stirred.

    Args:
        text: a document.
        words: in a run.

    Chapter: notebooks/03_mixture.ipynb
    """
    data, ends = _words(text)
    if not len(ends):
        return np.zeros(0, np.uint64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    words = min(words, len(ends))
    parts, first, last = [], 0, len(ends) - words
    while first <= last:  # one chunk at a time: a book may have 50 MB
        stop = int(np.searchsorted(starts, starts[first] + _CHUNK))
        stop = min(max(stop, first + 1), last + 1)
        begin = starts[first:stop] - starts[first]
        end = ends[first + words - 1:stop + words - 1] - starts[first]
        piece = data[starts[first]:starts[first] + end[-1]]
        sums = np.zeros(len(piece) + 1, np.uint64)
        np.cumsum(piece * _powers(_PRIME, len(piece)), out=sums[1:])
        inverse = _powers(_INVERSE, int(begin[-1]) + 1)
        parts.append(_distinct(_stirred(
            (sums[end] - sums[begin]) * inverse[begin])))
        first = stop
    return _distinct(np.concatenate(parts)) if parts[1:] else parts[0]


def _distinct(x: UInt64[np.ndarray, "N"]) -> UInt64[np.ndarray, "M"]:
    """Sorted, each once; `np.unique` of NumPy 2.4 takes ten times as long."""
    x = np.sort(x)
    return x[np.concatenate([[True], x[1:] != x[:-1]])]


def _words(
    text: str
) -> tuple[UInt32[np.ndarray, "C"], Int64[np.ndarray, "N"]]:
    """The characters of all words, a space after each, and where those are.

    What `re.findall(r"\\w+", text.lower())` finds, six times as fast.
    """
    codes = np.frombuffer(
        (text.lower() + " ").encode("utf-32-le", "surrogatepass"), "<u4")
    word = _is_word(1 << int(codes.max()).bit_length())[codes]
    gap = ~word
    gap[1:] &= word[:-1]
    gap[0] = False
    kept = word | gap
    spaced = np.where(word, codes, np.uint32(32))[kept]
    return spaced, np.flatnonzero(gap[kept])


@functools.cache
def _is_word(count: int) -> Bool[np.ndarray, "C"]:
    """For the first characters of Unicode, whether words are made of them."""
    return np.array([(c := chr(i)).isalnum() or c == "_"
                     for i in range(min(count, 0x110000))])


def _powers(base: int, count: int) -> UInt64[np.ndarray, "N"]:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _stirred(x: UInt64[np.ndarray, "N"]) -> UInt64[np.ndarray, "N"]:
    """Every bit depends on every bit (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def signature(
    hashes: UInt64[np.ndarray, "N"], size: int = HASHES
) -> UInt32[np.ndarray, "K"]:
    """MinHash: for each of `size` shuffles of all hashes, the one in front.

    Two sets agree in one place with the probability |A and B| / |A or B|:
    the front one of their union is in both, or in one alone.

    Args:
        hashes: from `shingles`.
        size: K, numbers in the signature.

    Chapter: notebooks/03_mixture.ipynb
    """
    draw = np.random.Generator(np.random.PCG64(1))
    factor, term = draw.integers(0, 2**32, (2, size, 1), dtype=np.uint32)
    least = np.full(size, 2**32 - 1, np.uint32)
    low = hashes.astype(np.uint32)
    for start in range(0, len(low), 2048):
        x = low[None, start:start + 2048] * (factor | 1)
        x += term
        x ^= x >> 15  # a line alone is no shuffle: its low bits only count
        x *= np.uint32(0x2C1B3C6D)
        np.minimum(least, x.min(axis=1), out=least)
    return least


def band_keys(
    signature: UInt32[np.ndarray, "K"], bands: int = BANDS
) -> list[str]:
    """One key for each band of a signature; equal keys are candidates.

    With b bands of r numbers, texts of similarity s become a candidate with
    probability 1 - (1 - s^r)^b. Texts that share 90 % of the larger have
    s >= 0.81; with b = 32, r = 4 less than one such pair in 10^7 is missed.

    Raises:
        ValueError: if the signature does not divide.

    Chapter: notebooks/03_mixture.ipynb
    """
    if len(signature) % bands:
        raise ValueError(
            f"bands={bands} does not divide a signature of {len(signature)}; "
            f"try {BANDS}")
    return [f"{number:02x}" + row.astype("<u4").tobytes().hex()
            for number, row in enumerate(signature.reshape(bands, -1))]


def overlap(
    a: UInt64[np.ndarray, "N"], b: UInt64[np.ndarray, "M"]
) -> float:
    """The share of the larger text that is also in the other.

    Of the larger, so that a story never makes us drop the anthology it
    stands in: whoever is dropped takes at most the rest of the share along.

    Args:
        a: from `shingles`.
        b: likewise.
    """
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a), len(b), 1)


def scatter(
    folder: Path, unit: str, records: Iterable[tuple[str, str]], parts: int
) -> None:
    """Write lines to the part of the disk that their key belongs to.

    Args:
        folder: gets `PART/unit` files; a part is sorted by one task.
        unit: name of the input; what it wrote before is replaced.
        records: a hexadecimal key and the rest of the line.
        parts: how many; a power of 16 or less is hit evenly.
    """
    for old in folder.glob(f"*/{unit}"):
        old.unlink()
    waiting: dict[int, list[str]] = {}
    for number, (key, rest) in enumerate(records, 1):
        waiting.setdefault(int(key[-6:], 16) % parts, []).append(
            f"{key}\t{rest}\n")
        if number % _BUFFER == 0:
            _flush(folder, unit, waiting)
    _flush(folder, unit, waiting)


def _flush(folder: Path, unit: str, waiting: dict[int, list[str]]) -> None:
    """Append what has been waiting to its files."""
    for part, lines in waiting.items():
        path = folder / f"{part:04d}" / unit
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
    waiting.clear()


def groups(folder: Path, part: int) -> Iterator[tuple[str, list[list[str]]]]:
    """The keys of a part with two lines or more, and these lines, sorted.

    A part that is large is gone over several times, each time for other
    keys, so that memory is bounded by what it takes to hold one turn.

    The fields of a line are compared as text: written with source and id in
    front, the smallest (source, id) comes first.
    """
    files = sorted((folder / f"{part:04d}").glob("*"))
    turns = 1 + sum(file.stat().st_size for file in files) // _TURN_BYTES
    for turn in range(turns):
        lines: list[str] = []  # tabs come before all that a field may hold
        for path in files:
            with path.open(encoding="utf-8", newline="\n") as file:
                lines += (line for line in file
                          if int(_key(line)[:6], 16) % turns == turn)
        for key, group in groupby(sorted(lines), _key):
            same = list(group)
            if len(same) > 1:
                yield key, [line.rstrip("\n").split("\t")[1:]
                            for line in same]


def _key(line: str) -> str:
    """What a record begins with."""
    return line[:line.index("\t")]


def pairs(same: list[list[str]]) -> Iterator[tuple[list[str], list[str]]]:
    """Candidates of one band: each text with the smallest ones before it."""
    for number, larger in enumerate(same):
        for smaller in same[:min(number, _NEIGHBOURS)]:
            yield smaller, larger


def overlapping(
    candidates: Iterable[tuple[list[str], list[str]]],
    share: Callable[[list[str], list[str]], float],
    limit: float,
) -> list[list[str]]:
    """The texts to drop: each overlaps with a smaller one that stays.

    Texts are judged from the smallest (source, id) up, so that a chain of
    neighbours loses every second link and not all but one.

    Args:
        candidates: pairs, the smaller one first.
        share: the true overlap of two texts.
        limit: more than this is too much.

    Chapter: notebooks/03_mixture.ipynb
    """
    dropped: set[tuple[str, ...]] = set()
    unique = {(tuple(larger), tuple(smaller))
              for smaller, larger in candidates}
    for larger, smaller in sorted(unique):
        if larger not in dropped and smaller not in dropped and (
                share(list(smaller), list(larger)) > limit):
            dropped.add(larger)
    return [list(text) for text in sorted(dropped)]
